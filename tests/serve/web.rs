//! The daemon's HTTP side, as a client sees it: raw bytes, so that a request may be as wrong as it likes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::Daemon;
use crate::support::Home;

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(30);

/// Where a daemon listens, and the token it wants.
#[derive(Debug, Clone)]
pub(crate) struct Web {
    /// As `127.0.0.1:40123`.
    pub(crate) address: String,
    pub(crate) token: String,
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// 0 when the connection was closed without one.
    pub(crate) status: u16,
    /// In small letters.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A daemon of a home that serves HTTP as well.
pub(crate) fn serve_http(home: &Home) -> (Daemon, Web) {
    let daemon = Daemon::start(
        home.command(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--allow-host",
            "Runs.example.com",
            "--log",
            "info",
        ]),
        home.store(),
    );
    let web = Web::of(&daemon, home);
    (daemon, web)
}

impl Web {
    /// Of a daemon that listens.
    pub(crate) fn of(daemon: &Daemon, home: &Home) -> Self {
        let health = daemon.get("/v1/health").expect("it answers");
        let address = health["listens"].as_str().expect("it listens").to_owned();
        let token = std::fs::read_to_string(home.store().join("control.token")).expect("a token");
        Self { address, token: token.trim().to_owned() }
    }

    /// Sends these bytes on a connection of their own, and reads until it is closed or silent.
    pub(crate) fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(ANSWER)).expect("a socket");
        stream.set_write_timeout(Some(ANSWER)).expect("a socket");
        // It may close before all is sent.
        let _sent = stream.write_all(bytes);
        let mut answer = Vec::new();
        let mut buffer = [0; 8 * 1024];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            answer.extend_from_slice(&buffer[..n]);
            if answer.len() > 1 << 20 {
                break;
            }
        }
        Answer::of(&answer)
    }

    /// A request in good order; `headers` are whole lines.
    pub(crate) fn call(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        for header in headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        if !body.is_empty() {
            text.push_str("content-type: application/json\r\ncontent-length: ");
            text.push_str(&body.len().to_string());
            text.push_str("\r\n");
        }
        self.send(format!("{text}\r\n{body}").as_bytes())
    }

    pub(crate) fn bearer(&self) -> String {
        format!("authorization: Bearer {}", self.token)
    }

    /// The same with the token.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[&self.bearer()], "")
    }

    pub(crate) fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str(&answer.body).expect("JSON")
    }
}

impl Answer {
    fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status =
            head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        Self { status, head: head.to_lowercase(), body: body.to_owned() }
    }
}
