//! A machine that has just been launched: waited for, its key compared with its console, pinned, and found again by a
//! later process.

use std::sync::Arc;

use dssflow_activities::clients::{AwsClients, ClientsConfig, StaticCredentials};
use dssflow_activities::host::reachable::{self, KeyTrust, Reachable, ReachableInput};
use dssflow_activities::host::{Host, HostCommand, HostHandle, HostUser, SshHost, SshTarget};
use dssflow_engine::activity::{Activity as _, ErrorClass, Resources};

use crate::context::context;
use crate::sshd::{Sshd, me};
use crate::web::{Answer, Web};

fn late(sshd: &Sshd) -> SshHost {
    let target = SshTarget {
        port: Some(sshd.port()),
        config_file: Some(sshd.config("late", sshd.port(), "")),
        ..SshTarget::default()
    };
    SshHost::new(target).expect("a good target")
}

fn input() -> ReachableInput {
    ReachableInput { instance_id: "i-0abc".into(), address: "127.0.0.1".into(), within_s: 600 }
}

/// EC2 as far as `GetConsoleOutput` goes.
async fn ec2(console: String) -> (AwsClients, Web) {
    let web = Web::serve(move |_, _| {
        let packed = base64(console.as_bytes());
        let body = format!(
            "<GetConsoleOutputResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>\
             <instanceId>i-0abc</instanceId><timestamp>2026-01-01T00:00:00.000Z</timestamp><output>{packed}</output>\
             </GetConsoleOutputResponse>"
        );
        Answer { body: body.into_bytes(), cut: None }
    })
    .await;
    let mut config = ClientsConfig::new("eu-west-1");
    config.endpoint_url = Some(format!("http://127.0.0.1:{}", web.port));
    config.credentials = Some(StaticCredentials::new("AKIDEXAMPLE", "x".to_owned()));
    (AwsClients::connect(&config).await, web)
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0_u32, |n, b| (n << 8) | u32::from(*b)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let letter = usize::try_from((number >> (18 - 6 * at)) & 63).expect("six bits");
            text.push(if at <= chunk.len() { char::from(LETTERS[letter]) } else { '=' });
        }
    }
    text
}

async fn works(host: &SshHost) {
    let output = host.exec(HostCommand::new(HostUser::Login, ["echo", "in"])).await.expect("a connection");
    assert_eq!(output.text(), "in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_comes_up_is_waited_for_and_pinned() {
    let Some(mut sshd) = Sshd::prepare() else { return };
    if me() != "root" {
        eprintln!("skipped: the step ends with a command as root, and this is not root");
        return;
    }
    let ssh = late(&sshd);
    let mut resources = Resources::default();
    resources.insert(HostHandle(Arc::new(ssh.clone())));
    let (ctx, ledger) = context("host-reachable", resources);
    let waiting = tokio::spawn(async move { Reachable.execute(&ctx, &input()).await });
    // Nobody listens until it has been seen that nobody does.
    let seen = || !ledger.heartbeats.lock().expect("no panic inside").is_empty();
    tokio::task::block_in_place(|| {
        crate::sshd::within(std::time::Duration::from_secs(20), "a heartbeat", seen)
    });
    let beat = ledger.heartbeats.lock().expect("no panic inside")[0].to_string();
    assert!(beat.contains("Connection refused"), "{beat}");
    tokio::task::block_in_place(|| sshd.listen());
    let output = waiting.await.expect("no panic").expect("it answers");
    // Without AWS there is no console to compare with.
    assert_eq!((output.trust, &output.host_keys), (KeyTrust::FirstUse, &vec![sshd.host_key()]));
    works(&ssh).await;

    // A later process sets it again from the record.
    let later = late(&sshd);
    let error = later.exec(HostCommand::new(HostUser::Root, ["true"])).await.expect_err("not known yet");
    assert!(error.to_string().contains("the address of the host is not known yet"), "{error}");
    let record = serde_json::to_value(&output).expect("plain data");
    reachable::restore(&later, &record).expect("our own record");
    works(&later).await;
    assert!(reachable::restore(&later, &serde_json::json!({"address": "x"})).is_err());

    // Another machine answers at the address: refused for good.
    sshd.stop();
    drop(later);
    std::fs::remove_file(sshd.dir().join("host_key")).expect("removed");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(sshd.dir().join("host_key"))
        .stdin(std::process::Stdio::null())
        .status();
    assert!(made.expect("ssh-keygen").success());
    tokio::task::block_in_place(|| sshd.listen());
    let again = late(&sshd);
    reachable::restore(&again, &record).expect("our own record");
    let error = again.exec(HostCommand::new(HostUser::Login, ["true"])).await.expect_err("another key");
    let error = dssflow_engine::activity::ActivityError::from(error);
    assert_eq!(error.code, "HostKeyUntrusted", "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_decides_which_key_is_pinned() {
    let Some(sshd) = Sshd::start() else { return };
    if me() != "root" {
        eprintln!("skipped: the step ends with a command as root, and this is not root");
        return;
    }
    let console = |key: &str| {
        format!(
            "[ 1.0] up\n-----BEGIN SSH HOST KEY KEYS-----\n{key} root@new\n-----END SSH HOST KEY KEYS-----\n"
        )
    };
    let ssh = late(&sshd);
    let (clients, _web) = ec2(console(&sshd.host_key())).await;
    let mut resources = Resources::default();
    resources.insert(HostHandle(Arc::new(ssh.clone())));
    resources.insert(clients);
    let output =
        Reachable.execute(&context("host-reachable", resources).0, &input()).await.expect("the same key");
    assert_eq!((output.trust, output.host_keys), (KeyTrust::Console, vec![sshd.host_key()]));
    assert!(output.fingerprints[0].starts_with("SHA256:"));
    works(&ssh).await;

    // The console shows the key of another machine.
    let other = std::fs::read_to_string(sshd.dir().join("id.pub")).expect("made");
    let other: Vec<&str> = other.split_whitespace().take(2).collect();
    let ssh = late(&sshd);
    let (clients, _web) = ec2(console(&other.join(" "))).await;
    let mut resources = Resources::default();
    resources.insert(HostHandle(Arc::new(ssh.clone())));
    resources.insert(clients);
    let error =
        Reachable.execute(&context("host-reachable", resources).0, &input()).await.expect_err("another key");
    assert_eq!((error.code.as_str(), error.class), ("HostKeyMismatch", ErrorClass::NeedsHuman), "{error:?}");
    assert!(ssh.placed().is_none(), "it is not trusted");

    // It shows none: after a minute the key that is offered is taken, and that is said.
    let ssh = late(&sshd);
    let (clients, web) = ec2("booting\n".to_owned()).await;
    let mut resources = Resources::default();
    resources.insert(HostHandle(Arc::new(ssh.clone())));
    resources.insert(clients);
    let output =
        Reachable.execute(&context("host-reachable", resources).0, &input()).await.expect("in the end");
    assert_eq!(output.trust, KeyTrust::FirstUse);
    assert!(web.asked().len() > 3, "the console was asked more than once");
}
