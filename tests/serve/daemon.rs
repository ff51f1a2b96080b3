//! A daemon of one test: started, asked, stopped, killed. It does not outlive the test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take before the test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// `dssflow serve`, and what it has said so far.
pub(crate) struct Daemon {
    child: Option<Child>,
    said: Arc<Mutex<String>>,
    store: PathBuf,
}

impl Daemon {
    /// Starts it, and waits until it answers.
    pub(crate) fn start(mut command: Command, store: PathBuf) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let said = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("piped");
        let hears = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut said = hears.lock().expect("no panic");
                said.push_str(&line);
                said.push('\n');
            }
        });
        let mut daemon = Self { child: Some(child), said, store };
        daemon.until("it answers", |daemon| daemon.get("/v1/health").is_some());
        daemon
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Asks on its socket; nothing when it does not answer with a success.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        let (status, body) = self.call("GET", path, "")?;
        (status == 200).then(|| serde_json::from_str(&body).expect("JSON"))
    }

    /// Sends a request on its socket; the status and the body.
    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        ask(&self.store.join("control.sock"), method, path, body)
    }

    /// Looks until something is so, or the daemon has ended.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !is_so(self) {
            let ended = self.child.as_mut().expect("it runs").try_wait().expect("a child of ours");
            assert!(ended.is_none(), "waiting that {what}, it ended: {ended:?}\n{}", self.said());
            assert!(begin.elapsed() < PATIENCE, "it never was so that {what}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().expect("it runs")), signal).expect("it runs");
    }

    /// Tells it to stop, and waits for its end.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        self.send(Signal::TERM);
        let status = self.child.take().expect("it runs").wait().expect("a child of ours");
        // The last lines are on their way.
        std::thread::sleep(Duration::from_millis(50));
        (status.code(), self.said())
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let begin = Instant::now();
        let mut child = self.child.take().expect("it runs");
        loop {
            if let Some(status) = child.try_wait().expect("a child of ours") {
                // The last lines are on their way.
                std::thread::sleep(Duration::from_millis(50));
                return (status.code(), self.said());
            }
            if begin.elapsed() >= PATIENCE {
                drop((child.kill(), child.wait()));
                panic!("it never ended\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it.
    pub(crate) fn kill(mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it runs");
        child.wait().expect("a child of ours")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop((child.kill(), child.wait()));
        }
    }
}

/// Sends one request to a socket; the status and the body.
pub(crate) fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: dssflow\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split_whitespace().nth(1)?.parse().ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    Some((status, if chunked { unchunked(body) } else { body.to_owned() }))
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((length, after)) = rest.split_once("\r\n") {
        let Ok(length) = usize::from_str_radix(length.trim(), 16) else { break };
        if length == 0 {
            break;
        }
        body.push_str(&after[..length]);
        rest = after[length..].trim_start_matches("\r\n");
    }
    body
}
