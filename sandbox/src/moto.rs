//! Starts the moto server and waits until it answers.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};

use crate::aws;
use crate::error::SandboxError;
use crate::files;
use crate::process::ProcessId;

/// Starts moto's server and ends it when the process that started it is gone: the emulator must not outlive the daemon,
/// not even one that was killed, and a child cannot otherwise tell. Standard input is a pipe from the daemon.
const WRAPPER: &str = "
import os, sys, threading
def watch():
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)
threading.Thread(target=watch, daemon=True).start()
from moto.server import main
main(sys.argv[1:])
";

/// A running emulator; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Moto {
    pub(crate) endpoint: String,
    pub(crate) process: ProcessId,
    pub(crate) child: Child,
    /// What the emulator watches; apart from the child, because waiting for a child closes its input.
    _lifeline: Option<ChildStdin>,
}

/// Starts moto on a free port of loopback; its output goes to `log`.
pub(crate) async fn start(python: &Path, log: &Path) -> Result<Moto, SandboxError> {
    let failed = |detail: String| SandboxError::Moto { detail };
    let port = free_port().map_err(|error| failed(error.to_string()))?;
    let output = std::fs::File::create(log).map_err(SandboxError::io("could not write", log))?;
    let errors = output.try_clone().map_err(SandboxError::io("could not write", log))?;
    let mut child = Command::new(python)
        .args(["-c", WRAPPER, "-H", "127.0.0.1", "-p", &port.to_string()])
        .env("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUNBUFFERED", "1")
        .stdin(Stdio::piped())
        .stdout(output)
        .stderr(errors)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let process = child.id().and_then(ProcessId::of).ok_or_else(|| failed("it ended at once".to_owned()))?;
    let lifeline = child.stdin.take();
    let endpoint = format!("http://127.0.0.1:{port}");
    let http = aws::http_client();
    for _ in 0..1200 {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(failed(format!("it ended with {status}: {}", files::tail(log, 3))));
        }
        let ready = http.get(format!("{endpoint}/moto-api/data.json")).send().await;
        if ready.is_ok_and(|response| response.status().is_success()) {
            return Ok(Moto { endpoint, process, child, _lifeline: lifeline });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(failed(format!("no answer within a minute: {}", files::tail(log, 3))))
}

/// A port that was free a moment ago.
fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
