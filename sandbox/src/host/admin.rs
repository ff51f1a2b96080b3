//! A few lines of HTTP/1.1 over a std socket: enough for the daemon's admin routes and the kits server.
//!
//! Plain HTTP to loopback only, one request a connection. A general client would cost more than the stubs do.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::HostConfig;

/// How long a reply may take; starting the fake DSS is the slowest.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A reply.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) length: Option<u64>,
    pub(super) body: Box<dyn Read>,
}

/// Sends one request; `headers` are complete lines without line ends.
pub(super) fn request(method: &str, url: &str, headers: &[String], body: &[u8]) -> io::Result<Reply> {
    let rest = url.strip_prefix("http://").ok_or_else(|| io::Error::other("only http:// works here"))?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let stream = TcpStream::connect(authority)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for line in headers {
        head.push_str(line);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    (&stream).write_all(head.as_bytes())?;
    (&stream).write_all(body)?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("the server's answer is not HTTP"))?;
    let (mut length, mut chunked) = (None, false);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok(),
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let body: Box<dyn Read> = if chunked {
        Box::new(Chunked { reader, left: 0, done: false })
    } else if let Some(length) = length {
        Box::new(reader.take(length))
    } else {
        Box::new(reader)
    };
    Ok(Reply { status, length, body })
}

/// Takes `Transfer-Encoding: chunked` apart.
struct Chunked<R> {
    reader: R,
    left: u64,
    done: bool,
}

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.done {
            return Ok(0);
        }
        if self.left == 0 {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                line.clear();
                self.reader.read_line(&mut line)?;
            }
            let size = line.trim().split(';').next().unwrap_or_default();
            self.left = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
            if self.left == 0 {
                self.done = true;
                return Ok(0);
            }
        }
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.reader.read(&mut buffer[..want])?;
        self.left -= u64::try_from(got).expect("a length fits 64 bits");
        Ok(got)
    }
}

/// Calls an admin route of the daemon with JSON.
pub(super) fn call(config: &HostConfig, method: &str, path: &str, body: &Value) -> io::Result<Value> {
    let base =
        config.admin_url.as_deref().ok_or_else(|| io::Error::other("the sandbox daemon is not running"))?;
    let mut headers = vec!["Content-Type: application/json".to_owned()];
    if let Some(token) = &config.admin_token {
        headers.push(format!("x-sandbox-token: {token}"));
    }
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
    let mut reply = request(method, &format!("{}{path}", base.trim_end_matches('/')), &headers, &body)?;
    let mut text = String::new();
    reply.body.read_to_string(&mut text)?;
    if reply.status >= 400 {
        return Err(io::Error::other(format!(
            "the sandbox daemon answered {}: {}",
            reply.status,
            text.trim()
        )));
    }
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).map_err(io::Error::other)
}

/// A scripted fault, as far as a command can show one.
pub(super) enum Fault {
    Error(String),
    Hang,
    Delay(Duration),
}

/// Asks the daemon whether a fault strikes, and whether one may strike behind a command; none when there is no daemon.
pub(super) fn fault(config: &HostConfig, op: &str, phase: &str) -> (Option<Fault>, bool) {
    let question = serde_json::json!({"target": "host", "op": op, "phase": phase});
    match call(config, "POST", "/faults/check", &question) {
        Ok(answer) => (of_action(&answer["action"]), answer["after"] == true),
        Err(_) => (None, false),
    }
}

/// What a command makes of an action; none when there is none, or no command can show it.
fn of_action(action: &Value) -> Option<Fault> {
    let (kind, inner) = match action {
        Value::String(kind) => (kind.as_str(), &Value::Null),
        Value::Object(fields) => fields.iter().next().map(|(kind, inner)| (kind.as_str(), inner))?,
        _ => return None,
    };
    match kind {
        "error" => {
            let message = inner["message"].as_str().unwrap_or("a scripted fault");
            Some(Fault::Error(message.to_owned()))
        }
        "reset" => Some(Fault::Error("connection reset by peer".to_owned())),
        "hang" => Some(Fault::Hang),
        "delay" => Some(Fault::Delay(Duration::from_millis(inner["ms"].as_u64().unwrap_or(0)))),
        _ => None,
    }
}
