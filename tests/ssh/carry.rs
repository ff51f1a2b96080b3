//! What goes in arrives, and what comes out comes back.

use std::time::Duration;

use dssflow_activities::host::{
    Host, HostCommand, HostError, HostUser, LocalHost, MAX_OUTPUT_BYTES, sudo_ok,
};
use dssflow_tests::chance::Chance;

use crate::sshd::{Sshd, marked, within};

const STRINGS: usize = 5_000;
const BATCH: usize = 200;

/// Strings that some shell, terminal or option parser reads as something else.
fn hostile() -> Vec<String> {
    let parts = [
        "",
        " ",
        "'",
        "''",
        "\"",
        "\\",
        "\\\\",
        "$HOME",
        "$(id)",
        "${x}",
        "`id`",
        ";",
        "|",
        "&",
        "&&",
        "\n",
        "\r",
        "\t",
        "*",
        "?",
        "[a]",
        "{a,b}",
        "~",
        "~root",
        "#",
        "!",
        "!!",
        "!$",
        "-",
        "--",
        "-n",
        "-oProxyCommand=id",
        "=",
        "<",
        ">",
        "(",
        ")",
        "%s",
        "%n",
        "%%",
        "\u{1b}[31m",
        "\u{7f}",
        "\u{1}",
        "é",
        "\u{202e}",
        "😀",
        "\u{feff}",
        "a",
        "Z9",
        "/",
        "/etc/passwd",
        "..",
        "x=y",
        "^",
        "@",
        ":",
        ",",
        "+",
    ];
    let mut chance = Chance::new(20_261_128);
    let mut strings: Vec<String> = parts.map(str::to_owned).to_vec();
    while strings.len() < STRINGS {
        let count = chance.between(1, 6);
        strings.push((0..count).map(|_| *chance.pick(&parts)).collect());
    }
    strings
}

async fn arrive(host: &dyn Host) -> usize {
    let strings = hostile();
    let mut wrong = 0;
    for batch in strings.chunks(BATCH) {
        let argv = ["printf", "%s\\0"].into_iter().map(str::to_owned).chain(batch.iter().cloned());
        let output = host.run(HostCommand::new(HostUser::Login, argv)).await.expect("printf");
        let got: Vec<&[u8]> = output.stdout.strip_suffix(b"\0").expect("an end").split(|b| *b == 0).collect();
        assert_eq!(got.len(), batch.len());
        wrong += got.iter().zip(batch).filter(|(got, sent)| **got != sent.as_bytes()).count();
    }
    wrong
}

#[tokio::test]
async fn arguments_arrive_as_they_were_sent() {
    let wrong = arrive(&LocalHost::default()).await;
    println!("argv: host=local cases={STRINGS} violations={wrong}");
    assert_eq!(wrong, 0);
    let Some(sshd) = Sshd::start() else { return };
    let wrong = arrive(&sshd.host()).await;
    println!("argv: host=ssh cases={STRINGS} violations={wrong}");
    assert_eq!(wrong, 0);
}

#[tokio::test]
async fn bytes_and_statuses_come_through() {
    let Some(sshd) = Sshd::start() else { return };
    let ssh = sshd.host();
    let host: &dyn Host = &ssh;
    let login = |argv: &[&str]| HostCommand::new(HostUser::Login, argv.iter().copied());
    let bytes: Vec<u8> =
        (0..3_000_000_u32).map(|i| u8::try_from((i * 7 + i / 251) % 256).expect("a byte")).collect();
    let output = host.exec(login(&["cat"]).stdin(bytes.clone())).await.expect("cat");
    assert!(*output.stdout == bytes && output.ok());
    // Stdin that nobody reads.
    let output = host.exec(login(&["sh", "-c", "exit 3"]).stdin(bytes)).await.expect("sh");
    assert_eq!(output.status, 3);
    let most = MAX_OUTPUT_BYTES.to_string();
    let output = host.exec(login(&["head", "-c", &most, "/dev/zero"])).await.expect("head");
    assert_eq!(output.stdout.len(), MAX_OUTPUT_BYTES);
    let over = (MAX_OUTPUT_BYTES + 1).to_string();
    let error = host.exec(login(&["head", "-c", &over, "/dev/zero"])).await.expect_err("too much");
    assert!(matches!(error, HostError::TooMuchOutput { .. }), "{error}");
    for status in [0, 1, 2, 44, 126, 127, 128, 254, 255] {
        let script = format!("echo out; echo err >&2; exit {status}");
        let output = host.exec(login(&["sh", "-c", &script])).await.expect("a status is no error");
        // What the account's own login says on stderr comes first.
        assert_eq!((output.status, output.text().as_str()), (status, "out"));
        assert!(output.complaint().ends_with("err"), "{}", output.complaint());
    }
    let output = host.exec(login(&["sh", "-c", "kill -9 $$"])).await.expect("a status");
    assert_eq!(output.status, 137);
    let output = host.exec(login(&["no-such-program-here"])).await.expect("a status");
    assert_eq!(output.status, 127);
    let long = "x".repeat(200_000);
    let error = host.exec(login(&["true", &long])).await.expect_err("no system takes it");
    assert!(matches!(error, HostError::BadCommand { .. }), "{error}");
    // More at once than sshd allows over one connection.
    let many =
        (0..30).map(|i| {
            let text = format!("{i}");
            async move {
                host.run(HostCommand::new(HostUser::Login, ["echo", &text])).await.map(|o| o.text() == text)
            }
        });
    let all = futures::future::join_all(many).await;
    assert!(all.iter().all(|one| matches!(one, Ok(true))), "{all:?}");
    if crate::sshd::me() == "root" {
        sudo_ok(host).await.expect("root needs no sudo");
    }
}

#[tokio::test]
async fn files_are_written_and_read_over_ssh() {
    let Some(sshd) = Sshd::start() else { return };
    let ssh = sshd.host();
    let host: &dyn Host = &ssh;
    let user = HostUser::Login;
    let dir = sshd.dir().join("it's $HOME");
    let path = dir.join("a \"file\"").display().to_string();
    let bytes: Vec<u8> = (0..200_000_u32).map(|i| u8::try_from(i % 256).expect("a byte")).collect();
    for contents in [&bytes[..], b"", b"\0\n'"] {
        host.write_file(&user, &path, contents, "0640", None).await.expect("written");
        assert_eq!(host.read_file(&user, &path).await.expect("read").expect("there").as_slice(), contents);
    }
    let moved = dir.join("moved").display().to_string();
    assert!(host.move_path(&user, &path, &moved).await.expect("moved"));
    assert!(host.read_file(&user, &path).await.expect("looked").is_none());
    assert_eq!(host.stat(&user, &moved).await.expect("looked").expect("there").size, 3);
    let names = host.list_dir(&user, &dir.display().to_string()).await.expect("listed").expect("there");
    assert_eq!(names, ["moved"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_the_group_on_the_far_side() {
    let Some(sshd) = Sshd::start() else { return };
    let ssh = sshd.host();
    let mark = sshd.port().to_string();
    // It ignores TERM, and so do its children.
    let script = "trap '' TERM; sleep 600 & sleep 601 & sleep 602; sleep 603";
    let command = HostCommand::new(HostUser::Login, ["sh", "-c", script])
        .env("DSSFLOW_TEST_TIMEOUT", &mark)
        .timeout(Duration::from_secs(2));
    let error = ssh.exec(command).await.expect_err("it hangs");
    assert!(matches!(error, HostError::Timeout { .. }), "{error}");
    let took = within(Duration::from_secs(2), "the group is gone", || {
        marked("DSSFLOW_TEST_TIMEOUT", &mark).is_empty()
    });
    println!("timeout: gone {} ms after the error", took.as_millis());
    // The connection is as good as before.
    let output = ssh.exec(HostCommand::new(HostUser::Login, ["echo", "on"])).await.expect("echo");
    assert_eq!(output.text(), "on");
}
