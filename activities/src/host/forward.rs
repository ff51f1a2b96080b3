//! A port of this machine that leads to a port of the host, through its ssh connection.
//!
//! The listener is our own, so the port stays the same for as long as this process lives, whatever becomes of the
//! connection beneath: each incoming connection asks for an open link and gets an `ssh -W` of its own. It listens on
//! loopback only; DSS asks for credentials there as anywhere. When one side has finished sending, both are closed: it
//! is made for HTTP, where the answer is read before the connection is given up.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::guard;
use super::process::piped;
use super::ssh::{SshHost, ssh_env};
use super::transport::HostError;

/// An open forward; it ends when this is dropped.
#[derive(Debug)]
pub struct Forward {
    local: SocketAddr,
    task: JoinHandle<()>,
}

impl Forward {
    /// Where to connect to, on this machine.
    pub fn local(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where the URL of a service on the host leads to from here: injected beside the host, so that graphs name the URL as
/// it is on the host and run wherever the command runs.
#[derive(Debug, Clone)]
pub struct HostRoute {
    /// Beginning of the URLs as they are on the host: `http://127.0.0.1:11200`.
    pub on_host: String,
    /// What takes its place here.
    pub here: String,
    /// The way itself; it is open for as long as this is kept.
    pub forward: std::sync::Arc<Forward>,
}

impl HostRoute {
    /// A way to the service that is `on_host` and listens on loopback there.
    ///
    /// # Errors
    /// What [`SshHost::forward`] gives.
    pub async fn open(ssh: &SshHost, on_host: &str, port: u16) -> Result<Self, HostError> {
        let forward = std::sync::Arc::new(ssh.forward("127.0.0.1", port).await?);
        let here = format!("http://{}", forward.local());
        Ok(Self { on_host: on_host.to_owned(), here, forward })
    }

    /// `url` as it is reached from here.
    pub fn translate(&self, url: &str) -> String {
        let on_host = self.on_host.trim_end_matches('/');
        match url.strip_prefix(on_host) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{}{rest}", self.here),
            _ => url.to_owned(),
        }
    }
}

impl SshHost {
    /// Opens a free port of this machine's loopback that leads to `host:port` as the far side sees it. Nothing is
    /// contacted yet.
    ///
    /// # Errors
    /// [`HostError::BadCommand`] for a host that is none, [`HostError::Spawn`] when no port is to be had.
    pub async fn forward(&self, host: &str, port: u16) -> Result<Forward, HostError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
        if host.is_empty() || host.starts_with('-') || !host.chars().all(plain) {
            let why = format!("{host:?} is no host to forward to");
            return Err(HostError::BadCommand { command: "ssh -W".to_owned(), why });
        }
        let failed = |source| HostError::Spawn { program: "a listener on loopback".to_owned(), source };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let (ssh, to) = (self.clone(), format!("{host}:{port}"));
        let task = tokio::spawn(async move {
            // Ended with the listener, so that a forward that was dropped carries nothing any more.
            let mut carried = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => {
                            let (ssh, to) = (ssh.clone(), to.clone());
                            carried.spawn(async move {
                                if let Err(error) = carry(&ssh, stream, &to).await {
                                    tracing::warn!(%error, %to, "a connection could not be forwarded");
                                }
                            });
                        }
                        // As when too many files are open; it passes.
                        Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                    },
                    Some(_) = carried.join_next() => {}
                }
            }
        });
        Ok(Forward { local, task })
    }
}

/// Carries one connection to its end.
async fn carry(ssh: &SshHost, stream: TcpStream, to: &str) -> Result<(), HostError> {
    let destination = ssh.destination("ssh -W")?;
    let link = ssh.link(&destination).await?;
    let mut argv = guard::relay();
    let mut client = link.ssh();
    client.splice(1..2, ["-W".to_owned(), to.to_owned()]);
    argv.extend(client);
    let mut child = piped(&argv, &ssh_env())?;
    let mut up = child.stdin.take().expect("stdin is piped");
    let mut down = child.stdout.take().expect("stdout is piped");
    // Read to its end, or `ssh` would wait for somebody to read it.
    let mut complaint = child.stderr.take().expect("stderr is piped");
    let listening = tokio::spawn(async move {
        let mut text = Vec::new();
        drop(tokio::io::AsyncReadExt::read_to_end(&mut complaint, &mut text).await);
        text
    });
    let (mut from, mut into) = stream.into_split();
    // Broken pipes are how connections end.
    tokio::select! {
        _ = tokio::io::copy(&mut from, &mut up) => {}
        _ = tokio::io::copy(&mut down, &mut into) => {}
    }
    into.shutdown().await.ok();
    drop((up, down));
    let status =
        child.wait().await.map_err(|source| HostError::Pipe { command: "ssh -W".to_owned(), source })?;
    let text = listening.await.unwrap_or_default();
    if !status.success() && !text.is_empty() {
        let text = super::transport::printable(String::from_utf8_lossy(&text).trim(), 300);
        tracing::debug!(%to, %status, text, "a forwarded connection ended");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urls_of_the_host_lead_to_the_forward() {
        let ssh = SshHost::new(super::super::SshTarget { host: "h".into(), ..Default::default() }).unwrap();
        assert!(ssh.forward("-x", 1).await.is_err());
        let route = HostRoute::open(&ssh, "http://127.0.0.1:11200", 11200).await.unwrap();
        assert!(route.forward.local().ip().is_loopback());
        let here = route.here.clone();
        assert_eq!(route.translate("http://127.0.0.1:11200"), here);
        assert_eq!(route.translate("http://127.0.0.1:11200/x?y"), format!("{here}/x?y"));
        assert_eq!(route.translate("http://127.0.0.1:112001/x"), "http://127.0.0.1:112001/x");
        assert_eq!(route.translate("https://dss.example"), "https://dss.example");
    }
}
