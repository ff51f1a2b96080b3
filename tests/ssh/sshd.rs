//! An `sshd` for one test, a client configuration that leads to it, and a wire in between that can be cut.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dssflow_activities::host::{SshHost, SshTarget};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A running `sshd`; ended by its pid when dropped.
pub(crate) struct Sshd {
    dir: tempfile::TempDir,
    port: u16,
    server: Option<Child>,
}

/// Who runs this test, and so logs in.
pub(crate) fn me() -> String {
    let output = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn program() -> Option<PathBuf> {
    ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"]
        .map(PathBuf::from)
        .into_iter()
        .find(|p| p.exists())
}

fn key(path: &Path) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status();
    assert!(made.expect("ssh-keygen").success());
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
    listener.local_addr().expect("bound").port()
}

impl Sshd {
    /// Starts one; `None`, said on stderr, where there is no `sshd`.
    pub(crate) fn start() -> Option<Self> {
        let mut sshd = Self::prepare()?;
        sshd.listen();
        Some(sshd)
    }

    /// All but the server itself.
    pub(crate) fn prepare() -> Option<Self> {
        if program().is_none() {
            say!("skipped: there is no sshd on this machine (Debian: apt-get install openssh-server)");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        key(&dir.path().join("host_key"));
        key(&dir.path().join("id"));
        std::fs::copy(dir.path().join("id.pub"), dir.path().join("authorized")).expect("a copy");
        Some(Self { dir, port: free_port(), server: None })
    }

    /// Starts the server and waits until it listens.
    pub(crate) fn listen(&mut self) {
        // What Debian's unit makes; without it a privileged sshd does not start.
        drop(std::fs::create_dir_all("/run/sshd"));
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let config = format!(
            "ListenAddress 127.0.0.1:{}\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             MaxStartups 200\nAllowTcpForwarding yes\nPrintMotd no\nLogLevel VERBOSE\n",
            self.port,
            path("host_key"),
            path("authorized"),
        );
        std::fs::write(self.dir.path().join("sshd_config"), config).expect("a file of ours");
        let log = std::fs::File::create(self.dir.path().join("log")).expect("a file of ours");
        let mut server = Command::new(program().expect("looked at"))
            .args(["-D", "-e", "-f", &path("sshd_config")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("sshd starts");
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = server.try_wait().expect("a child of ours");
            assert!(ended.is_none() && started.elapsed() < Duration::from_secs(20), "sshd: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.server = Some(server);
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What the server wrote.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// `KIND BASE64` of the host key.
    pub(crate) fn host_key(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("host_key.pub")).expect("made");
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// A client configuration: the host `box` at `port`, then `more`.
    pub(crate) fn config(&self, name: &str, port: u16, more: &str) -> PathBuf {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        std::fs::write(path("known_hosts"), format!("box {}\n", self.host_key())).expect("a file of ours");
        let mut text = String::new();
        write!(
            text,
            "{more}\nHost box\n  HostName 127.0.0.1\n  Port {port}\nHost *\n  User {}\n  HostKeyAlias box\n  \
             UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  IdentitiesOnly yes\n  \
             IdentityFile {}\n",
            me(),
            path("known_hosts"),
            path("id"),
        )
        .expect("a text");
        let file = self.dir.path().join(name);
        std::fs::write(&file, text).expect("a file of ours");
        file
    }

    /// The host, straight.
    pub(crate) fn host(&self) -> SshHost {
        Self::host_by(self.config("config", self.port, ""), "box")
    }

    /// A host of a configuration.
    pub(crate) fn host_by(config: PathBuf, name: &str) -> SshHost {
        let target = SshTarget { host: name.to_owned(), config_file: Some(config), ..SshTarget::default() };
        SshHost::new(target).expect("a good target")
    }

    /// Ends the server, not its sessions.
    pub(crate) fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("a child of ours");
            server.wait().expect("a child of ours");
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How a wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Whole,
    /// Both ends see that it is gone.
    Cut,
    /// Nothing goes through, and nobody sees it.
    Silent,
}

/// A port that leads to another, over a wire.
pub(crate) struct Cable {
    pub(crate) port: u16,
    state: watch::Sender<Wire>,
}

impl Cable {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback");
        let own = listener.local_addr().expect("bound").port();
        let (state, seen) = watch::channel(Wire::Whole);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_client, to_server, seen.clone()));
                tokio::spawn(carry(from_server, to_client, seen.clone()));
            }
        });
        Self { port: own, state }
    }

    pub(crate) fn set(&self, wire: Wire) {
        self.state.send_replace(wire);
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut state: watch::Receiver<Wire>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let wire = *state.borrow_and_update();
        match wire {
            Wire::Cut => return,
            Wire::Silent => {
                if state.changed().await.is_err() {
                    return;
                }
            }
            Wire::Whole => tokio::select! {
                read = from.read(&mut buffer) => match read {
                    Ok(length @ 1..) => if to.write_all(&buffer[..length]).await.is_err() { return },
                    Ok(0) | Err(_) => return,
                },
                changed = state.changed() => if changed.is_err() { return },
            },
        }
    }
}

/// Processes whose environment has `NAME=VALUE`, without those that have ended.
pub(crate) fn marked(name: &str, value: &str) -> Vec<u32> {
    let wanted = format!("{name}={value}").into_bytes();
    processes(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|entry| entry == wanted)
    })
}

/// Processes with `part` in their command line, without this one and those that have ended.
pub(crate) fn with_argument(part: &str) -> Vec<u32> {
    processes(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        pid != std::process::id() && String::from_utf8_lossy(&line).contains(part)
    })
}

fn processes(wanted: impl Fn(u32) -> bool) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("Linux");
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid| wanted(*pid) && alive(*pid)).collect()
}

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Waits until `done`, and says how long it took.
#[track_caller]
pub(crate) fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    started.elapsed()
}
