//! A service on the host, reached through its ssh connection, whatever becomes of that.

use std::time::Duration;

use dssflow_activities::host::{Host, HostCommand, HostRoute, HostUser};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::sshd::{Sshd, with_argument, within};
use crate::web::{Answer, Web};

async fn get(address: std::net::SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await?;
    let at = all.windows(4).position(|w| w == b"\r\n\r\n").map_or(all.len(), |at| at + 4);
    Ok(all[at..].to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_outlives_its_connection() {
    let Some(sshd) = Sshd::start() else { return };
    let body: Vec<u8> = (0..1_000_000_u32).map(|i| u8::try_from(i % 253).expect("a byte")).collect();
    let sent = body.clone();
    let web = Web::serve(move |_, _| Answer { body: sent.clone(), cut: None }).await;
    let config = sshd.config("forward", sshd.port(), "");
    let part = config.display().to_string();
    let ssh = Sshd::host_by(config, "box");
    let route =
        HostRoute::open(&ssh, &format!("http://127.0.0.1:{}", web.port), web.port).await.expect("a port");
    let local = route.forward.local();
    assert_ne!(local.port(), web.port);
    let many = futures::future::join_all((0..12).map(|_| get(local))).await;
    assert!(many.into_iter().all(|got| got.expect("an answer") == body));
    let masters = || -> Vec<u32> {
        let keeping = with_argument(&part);
        keeping.into_iter().filter(|pid| with_argument("ControlMaster=yes").contains(pid)).collect()
    };
    for round in 0..3 {
        // The connection itself, with its guard.
        let words: Vec<String> = masters().iter().map(u32::to_string).collect();
        assert!(!words.is_empty());
        let killed = std::process::Command::new("kill").arg("-9").args(&words).status().expect("kill");
        assert!(killed.success());
        within(Duration::from_secs(5), "the connection is gone", || {
            words.iter().all(|pid| !masters().iter().any(|left| left.to_string() == *pid))
        });
        assert_eq!(get(local).await.expect("by a new connection"), body, "round {round}");
        let output = ssh.exec(HostCommand::new(HostUser::Login, ["echo", "on"])).await.expect("the same");
        assert_eq!(output.text(), "on");
    }
    drop((route, ssh));
    within(Duration::from_secs(3), "its ssh is gone", || with_argument(&part).is_empty());
    within(Duration::from_secs(3), "the port is closed", || std::net::TcpStream::connect(local).is_err());
}
