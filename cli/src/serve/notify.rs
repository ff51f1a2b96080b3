//! What the service manager is told: that the daemon is ready, how it stands, that it is alive, that it stops.
//!
//! The protocol is a datagram of `NAME=value` lines to the socket that `$NOTIFY_SOCKET` names. Without that variable
//! nobody wants to be told, and nothing is.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager, or nobody.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that the daemon is alive.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says.
    pub(crate) fn from_env() -> Self {
        let watched_pid = std::env::var("WATCHDOG_PID").ok();
        let watched = watched_pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let usec = std::env::var("WATCHDOG_USEC").ok().filter(|_| watched);
        Self::new(std::env::var_os("NOTIFY_SOCKET"), usec.as_deref())
    }

    fn new(socket: Option<OsString>, watchdog_usec: Option<&str>) -> Self {
        let Some(socket) = socket.filter(|socket| !socket.is_empty()) else { return Self::default() };
        let opened = address(socket.as_bytes()).and_then(|to| Ok((UnixDatagram::unbound()?, to)));
        match opened {
            Ok((from, to)) => {
                // A manager that does not read must not hold the daemon up.
                let _best = from.set_nonblocking(true);
                let usec = watchdog_usec.and_then(|usec| usec.parse().ok()).filter(|usec| *usec > 0);
                // Twice as often as it waits for.
                let watchdog = usec.map(|usec| Duration::from_micros(usec) / 2);
                Self { to: Some((from, to)), watchdog }
            }
            Err(error) => {
                tracing::warn!(socket = %socket.display(), %error, "the service manager cannot be told how the daemon stands");
                Self::default()
            }
        }
    }

    /// How often [`Notifier::alive`] has to be called.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The daemon answers.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nMAINPID={}\nSTATUS={}", std::process::id(), line(status)));
    }

    /// How it stands, for people.
    pub(crate) fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", line(status)));
    }

    /// It stops.
    pub(crate) fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={}", line(status)));
    }

    /// It is alive.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, text: &str) {
        let Some((from, to)) = &self.to else { return };
        if let Err(error) = from.send_to_addr(text.as_bytes(), to) {
            tracing::debug!(%error, text, "the service manager was not told");
        }
    }
}

/// One line, as the protocol wants it.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// A path, or behind an `@` a name in the abstract space.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(std::path::Path::new(std::ffi::OsStr::from_bytes(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_is_told_on_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(Some(path.into_os_string()), Some("3000000"));
        assert_eq!(notifier.watchdog(), Some(Duration::from_millis(1500)));
        notifier.ready("2 runs\nare driven");
        let pid = std::process::id();
        assert_eq!(receive(&manager), format!("READY=1\nMAINPID={pid}\nSTATUS=2 runs are driven"));
        notifier.alive();
        assert_eq!(receive(&manager), "WATCHDOG=1");
        notifier.stopping("saving");
        assert_eq!(receive(&manager), "STOPPING=1\nSTATUS=saving");
    }

    #[test]
    fn an_abstract_socket_is_told_too() {
        let name = format!("dssflow-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        Notifier::new(Some(format!("@{name}").into()), None).status("up");
        assert_eq!(receive(&manager), "STATUS=up");
    }

    #[test]
    fn nobody_is_told_where_nobody_asked() {
        for socket in [None, Some(OsString::new()), Some("/nowhere/at/all".into())] {
            let notifier = Notifier::new(socket, Some("0"));
            assert_eq!(notifier.watchdog(), None);
            notifier.ready("fine");
        }
    }
}
