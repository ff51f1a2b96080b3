//! The one connection that all commands to a host share.
//!
//! An `ssh` of our own is its master: started before the first command, under the guard [`super::guard`] calls KEEP, so
//! that it ends with this process however that ends; started again when it has gone. Its socket, and the file with the
//! host keys of a placed machine, lie in a directory that only we can enter and that goes with it. Commands and forwards
//! are clients of it. Connecting is thereby apart from running: a failure to connect did nothing, for sure.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin};

use super::guard;
use super::process::piped;
use super::ssh::{Destination, ssh_env};
use super::transport::{HostError, printable};

/// How long a connection may take to come up. A session of AWS Systems Manager can take several seconds.
const OPEN_WITHIN: Duration = Duration::from_mins(1);
/// Between two looks whether it is up.
const LOOK: Duration = Duration::from_millis(10);
/// How much of what the master complains about is kept, in bytes.
const MAX_COMPLAINT: usize = 4 * 1024;

/// The connection of one host.
#[derive(Debug, Default)]
pub(super) struct Links {
    now: tokio::sync::Mutex<Option<Arc<Link>>>,
}

/// An open connection. Ends when the last one who holds it lets go.
#[derive(Debug)]
pub(super) struct Link {
    destination: Destination,
    /// KEEP removes it as well, also when nobody is left to drop this.
    dir: PrivateDir,
    child: Mutex<Option<Child>>,
    /// Its end is the end of the master.
    lifeline: Option<ChildStdin>,
}

impl Links {
    /// The connection that is open, or a new one.
    pub(super) async fn open(&self, destination: &Destination) -> Result<Arc<Link>, HostError> {
        let mut now = self.now.lock().await;
        if let Some(link) = now.as_ref()
            && link.destination == *destination
            && link.alive()
        {
            return Ok(Arc::clone(link));
        }
        *now = None;
        let link = Arc::new(Link::open(destination.clone()).await?);
        *now = Some(Arc::clone(&link));
        Ok(link)
    }
}

impl Link {
    async fn open(destination: Destination) -> Result<Self, HostError> {
        let spawn = |source| HostError::Spawn { program: "ssh".to_owned(), source };
        let dir = PrivateDir::make().map_err(spawn)?;
        let mut link = Self { destination, dir, child: Mutex::new(None), lifeline: None };
        let keys = link.destination.place.as_ref().map(|place| {
            let lines: Vec<String> =
                place.host_keys.iter().map(|key| format!("{} {key}", place.alias)).collect();
            lines.join("\n")
        });
        if let Some(keys) = keys.filter(|keys| !keys.is_empty()) {
            std::fs::write(link.known_hosts(), keys + "\n").map_err(spawn)?;
        }
        let mut argv = guard::keep(&link.dir.path().display().to_string());
        let mut options = vec!["ControlMaster=yes".to_owned(), "ControlPersist=no".to_owned()];
        options.push(link.control_path());
        let mut ssh = link.destination.ssh(&options, link.known_hosts_option().as_deref());
        ssh.insert(1, "-N".to_owned());
        argv.extend(ssh);
        let mut child = piped(&argv, &ssh_env())?;
        link.lifeline = child.stdin.take();
        let complaint = Arc::new(Mutex::new(String::new()));
        let listening =
            tokio::spawn(listen(child.stderr.take().expect("stderr is piped"), Arc::clone(&complaint)));
        let opened = tokio::time::timeout(OPEN_WITHIN, async {
            loop {
                if link.socket().exists() {
                    return true;
                }
                if !matches!(child.try_wait(), Ok(None)) {
                    return false;
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        let opened = opened.await;
        if let Ok(true) = opened {
            link.child = Mutex::new(Some(child));
            return Ok(link);
        }
        // The end of stderr comes with the end of the master.
        drop(tokio::time::timeout(Duration::from_secs(1), listening).await);
        let said = complaint.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let detail = match opened {
            Ok(_) => printable(said.trim(), 600),
            Err(_) => format!("nothing within {} s: {}", OPEN_WITHIN.as_secs(), printable(said.trim(), 600)),
        };
        Err(HostError::Unreachable { host: link.host().to_owned(), detail })
    }

    /// A connection that is not there, for looking at command lines.
    #[cfg(test)]
    pub(super) fn unopened(destination: Destination) -> Self {
        Self {
            destination,
            dir: PrivateDir::make().expect("/tmp can be written"),
            child: Mutex::new(None),
            lifeline: None,
        }
    }

    /// Whom it leads to, for people.
    pub(super) fn host(&self) -> &str {
        self.destination.host()
    }

    /// `ssh` as a client of this connection, up to and with the host.
    pub(super) fn ssh(&self) -> Vec<String> {
        let options = ["ControlMaster=no".to_owned(), self.control_path()];
        self.destination.ssh(&options, self.known_hosts_option().as_deref())
    }

    fn alive(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))) && self.socket().exists()
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn control_path(&self) -> String {
        format!("ControlPath={}", self.socket().display())
    }

    fn known_hosts(&self) -> PathBuf {
        self.dir.path().join("known_hosts")
    }

    fn known_hosts_option(&self) -> Option<String> {
        let keys = self.destination.place.as_ref().is_some_and(|place| !place.host_keys.is_empty());
        keys.then(|| self.known_hosts().display().to_string())
    }
}

/// Reads to the end and keeps the first of it.
async fn listen(mut from: impl AsyncRead + Unpin, into: Arc<Mutex<String>>) {
    let mut buffer = [0_u8; 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let mut text = into.lock().unwrap_or_else(PoisonError::into_inner);
        if text.len() < MAX_COMPLAINT {
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }
}

/// A directory only we can enter; it goes with its owner. Socket paths are limited to about 100 bytes, so its name stays
/// short, and it has no character that `ssh` could read as its own.
#[derive(Debug)]
pub(super) struct PrivateDir(PathBuf);

impl PrivateDir {
    pub(super) fn make() -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = Path::new("/tmp").join(format!("dssflow-ssh-{}", guard::nonce()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
