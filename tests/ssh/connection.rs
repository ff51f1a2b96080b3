//! The connection: cut in the middle, through a proxy, by an agent, with a key that is not the pinned one.

use std::time::Duration;

use dssflow_activities::host::{Host, HostCommand, HostError, HostUser, SshPlace, SshTarget};
use dssflow_engine::activity::{ActivityError, ErrorClass};

use crate::owners::{Owner, Spec};
use crate::sshd::{Cable, Sshd, Wire, marked, with_argument, within};

fn login(argv: &[&str]) -> HostCommand {
    HostCommand::new(HostUser::Login, argv.iter().copied())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_is_an_unknown_outcome_and_the_group_ends() {
    let Some(sshd) = Sshd::start() else { return };
    let cable = Cable::to(sshd.port()).await;
    let ssh = Sshd::host_by(sshd.config("cut", cable.port, ""), "box");
    ssh.exec(login(&["true"])).await.expect("a connection");
    let mark = format!("{}", sshd.port());
    let long = login(&["sh", "-c", "trap '' TERM; sleep 600 & sleep 601"]).env("DSSFLOW_TEST_CUT", &mark);
    let running = tokio::spawn({
        let ssh = ssh.clone();
        async move { ssh.exec(long).await }
    });
    let started = || marked("DSSFLOW_TEST_CUT", &mark).len() >= 2;
    tokio::task::block_in_place(|| within(Duration::from_secs(20), "the command runs", started));
    cable.set(Wire::Cut);
    let error = running.await.expect("no panic").expect_err("it was cut off");
    assert!(matches!(error, HostError::Connection { .. }), "{error}");
    let error = ActivityError::from(error);
    assert!(matches!(error.class, ErrorClass::Retryable) && !error.no_effect, "{error:?}");
    let gone = || marked("DSSFLOW_TEST_CUT", &mark).is_empty();
    let took = within(Duration::from_secs(3), "the group is gone", gone);
    println!("cut: gone {} ms after the error", took.as_millis());
    // While nobody answers nothing was done, for sure.
    let error = ssh.exec(login(&["true"])).await.expect_err("still cut");
    assert!(matches!(error, HostError::Unreachable { .. }), "{error}");
    // And then on a new connection.
    cable.set(Wire::Whole);
    assert_eq!(ssh.exec(login(&["echo", "again"])).await.expect("a new one").text(), "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_silent_cut_leaves_is_ended_before_the_step_goes_on() {
    let Some(sshd) = Sshd::start() else { return };
    let cable = Cable::to(sshd.port()).await;
    let mark = format!("{}", sshd.port());
    let spec = Spec {
        config: Some(sshd.config("silent", cable.port, "")),
        lock: Some(format!("test-silent.{mark}")),
        script: "sleep 600 & sleep 601".to_owned(),
        mark: ("DSSFLOW_TEST_SILENT".to_owned(), mark.clone()),
    };
    let mut owner = Owner::start(&spec);
    let running = || marked("DSSFLOW_TEST_SILENT", &mark);
    tokio::task::block_in_place(|| {
        within(Duration::from_secs(20), "the command runs", || running().len() >= 2)
    });
    // The far side hears neither of the cut nor of the death.
    cable.set(Wire::Silent);
    owner.kill();
    let host = sshd.host();
    let other = login(&["echo", "other"]).timeout(Duration::from_secs(5));
    assert_eq!(host.exec(other).await.expect("another step").text(), "other");
    assert!(running().len() >= 2, "sshd cannot know yet");
    let mut next = login(&[
        "sh",
        "-c",
        "grep -lszx \"DSSFLOW_TEST_SILENT=$1\" /proc/[0-9]*/environ | wc -l",
        "sh",
        &mark,
    ]);
    next.lock.clone_from(&spec.lock);
    let output =
        host.exec(next.timeout(Duration::from_secs(8))).await.expect("it waits, then ends the old one");
    assert_eq!(output.text(), "0", "the second copy runs alone");
    assert!(running().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_commands_of_a_step_take_turns() {
    let Some(sshd) = Sshd::start() else { return };
    let (one, two) = (sshd.host(), sshd.host());
    let file = sshd.dir().join("turns").display().to_string();
    let script = "echo in >> \"$1\"; sleep 0.4; echo out >> \"$1\"";
    let command = || {
        let mut command = login(&["sh", "-c", script, "sh", &file]);
        command.lock = Some(format!("test-turns.{}", sshd.port()));
        command
    };
    let (a, b, c) = tokio::join!(one.exec(command()), two.exec(command()), one.exec(command()));
    assert!(a.expect("ran").ok() && b.expect("ran").ok() && c.expect("ran").ok());
    assert_eq!(std::fs::read_to_string(&file).expect("written"), "in\nout\n".repeat(3));
    // A sibling that waits in vain says so, and leaves the other alone.
    let mut long = login(&["sh", "-c", "sleep 4; echo done"]);
    long.lock = command().lock;
    let mut short = command().timeout(Duration::from_secs(2));
    short.lock = command().lock;
    let (long, short) = tokio::join!(one.exec(long), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        two.exec(short).await
    });
    assert_eq!(long.expect("it was left alone").text(), "done");
    let error = short.expect_err("it did not get its turn");
    assert!(matches!(error, HostError::Busy { .. }), "{error}");
}

#[tokio::test]
async fn a_proxy_command_carries_the_connection() {
    let Some(sshd) = Sshd::start() else { return };
    let plain = sshd.config("plain", sshd.port(), "");
    let jump = format!(
        "Host far\n  HostName 127.0.0.1\n  Port {0}\n  ProxyCommand ssh -F {1} -W %h:%p box\n",
        sshd.port(),
        plain.display()
    );
    let far = Sshd::host_by(sshd.config("jump", sshd.port(), &jump), "far");
    assert_eq!(far.exec(login(&["echo", "by ssh -W"])).await.expect("through the jump").text(), "by ssh -W");
    let Some(nc) = ["/usr/bin/nc", "/bin/nc"].into_iter().find(|p| std::path::Path::new(p).exists()) else {
        eprintln!("skipped in part: there is no nc on this machine");
        return;
    };
    // As with AWS Systems Manager: the name is an instance id that only the proxy understands.
    let proxy = format!("Host i-0abc\n  ProxyCommand {nc} 127.0.0.1 {}\n", sshd.port());
    let host = Sshd::host_by(sshd.config("nc", sshd.port(), &proxy), "i-0abc");
    assert_eq!(host.exec(login(&["echo", "by nc"])).await.expect("through nc").text(), "by nc");
}

#[tokio::test]
async fn refusals_say_what_to_mend() {
    let Some(sshd) = Sshd::start() else { return };
    // A key nobody knows.
    let stranger = sshd.dir().join("stranger");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&stranger)
        .status();
    assert!(made.expect("ssh-keygen").success());
    let text = std::fs::read_to_string(sshd.config("config", sshd.port(), "")).expect("written");
    let other = sshd.dir().join("stranger-config");
    let id = sshd.dir().join("id").display().to_string();
    std::fs::write(&other, text.replace(&id, &stranger.display().to_string())).expect("a file of ours");
    let error = Sshd::host_by(other, "box").exec(login(&["true"])).await.expect_err("no key of ours");
    let error = ActivityError::from(error);
    assert_eq!((error.code.as_str(), error.class), ("HostLoginRefused", ErrorClass::NeedsHuman), "{error:?}");
    // Another machine at the address: its key is not the pinned one.
    let host = sshd.host();
    let place =
        |key: String| SshPlace { address: "127.0.0.1".into(), alias: "i-0abc".into(), host_keys: vec![key] };
    let foreign = std::fs::read_to_string(sshd.dir().join("stranger.pub")).expect("made");
    let target = |sshd: &Sshd| SshTarget {
        port: Some(sshd.port()),
        config_file: Some(sshd.config("config", sshd.port(), "")),
        ..SshTarget::default()
    };
    let late = dssflow_activities::host::SshHost::new(target(&sshd)).expect("a good target");
    let error = late.exec(login(&["true"])).await.expect_err("no address yet");
    assert!(matches!(error, HostError::NoAddress { .. }), "{error}");
    late.place(place(foreign.split_whitespace().take(2).collect::<Vec<_>>().join(" "))).expect("a key");
    let error = ActivityError::from(late.exec(login(&["true"])).await.expect_err("not its key"));
    assert_eq!((error.code.as_str(), error.class), ("HostKeyUntrusted", ErrorClass::NeedsHuman), "{error:?}");
    late.place(place(sshd.host_key())).expect("a key");
    assert_eq!(late.exec(login(&["echo", "in"])).await.expect("its key").text(), "in");
    // Nobody there at all.
    let nobody = Sshd::host_by(sshd.config("nobody", crate::sshd::free_port(), ""), "box");
    let error = ActivityError::from(nobody.exec(login(&["true"])).await.expect_err("nobody listens"));
    assert!(error.code == "HostUnreachable" && matches!(error.class, ErrorClass::Retryable), "{error:?}");
    drop(host);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_holds_the_key() {
    let Some(sshd) = Sshd::start() else { return };
    let socket = sshd.dir().join("agent");
    let mut agent = std::process::Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("ssh-agent");
    within(Duration::from_secs(10), "the agent listens", || socket.exists());
    let added = std::process::Command::new("ssh-add")
        .arg("-q")
        .arg(sshd.dir().join("id"))
        .env("SSH_AUTH_SOCK", &socket)
        .stderr(std::process::Stdio::null())
        .status();
    // From here on the key is in the agent alone.
    std::fs::rename(sshd.dir().join("id"), sshd.dir().join("elsewhere")).expect("renamed");
    std::fs::remove_file(sshd.dir().join("id.pub")).expect("removed");
    let text = std::fs::read_to_string(sshd.config("config", sshd.port(), "")).expect("written");
    let config = sshd.dir().join("by-agent");
    std::fs::write(&config, text.replace("IdentitiesOnly yes", "IdentitiesOnly no")).expect("a file of ours");
    let mark = format!("{}", sshd.port());
    let spec = Spec {
        config: Some(config),
        lock: None,
        script: "sleep 600".to_owned(),
        mark: ("DSSFLOW_TEST_AGENT".to_owned(), mark.clone()),
    };
    let mut owner = Owner::start_with(&spec, &[("SSH_AUTH_SOCK", &socket.display().to_string())]);
    let running = || !marked("DSSFLOW_TEST_AGENT", &mark).is_empty();
    within(Duration::from_mins(1), "the agent let it in", running);
    owner.kill();
    within(Duration::from_secs(3), "the command is gone", || !running());
    agent.kill().expect("a child of ours");
    agent.wait().expect("a child of ours");
    assert!(added.expect("ssh-add").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_host_that_is_dropped() {
    let Some(sshd) = Sshd::start() else { return };
    let config = sshd.config("left", sshd.port(), "");
    let part = config.display().to_string();
    let ssh = Sshd::host_by(config, "box");
    ssh.exec(login(&["true"])).await.expect("a connection");
    assert!(!with_argument(&part).is_empty(), "the connection is kept open");
    drop(ssh);
    within(Duration::from_secs(3), "its ssh is gone", || with_argument(&part).is_empty());
}
