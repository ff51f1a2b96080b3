//! Opening the store: as its owner, or finding out who owns it. The lock is never broken.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dssflow_store::{Holder, OpenError, OpenOptions, SledStore};

use crate::control;
use crate::control::client::Client;
use crate::error::{Code, CommandError, CommandResult};

/// How long to wait for somebody who only looks: readers hold the store for some milliseconds.
const PATIENCE: Duration = Duration::from_millis(600);
const PAUSE: Duration = Duration::from_millis(25);
/// What the daemon says that it does.
const DAEMON: &str = "dssflow serve";

/// Who has the store.
pub(crate) enum Opened {
    /// This process now.
    Here(Arc<SledStore>),
    /// Another one, which can be asked on its socket.
    Elsewhere(Option<Holder>),
}

/// Opens the store, or says who owns it. `command` tells others what this process does.
///
/// # Errors
/// When it is locked by somebody without a socket, or cannot be opened.
pub(crate) async fn open(dir: &Path, command: &str, create: bool) -> CommandResult<Opened> {
    let begin = Instant::now();
    loop {
        let options = OpenOptions { create, command: command.to_owned(), ..OpenOptions::default() };
        let path = dir.to_owned();
        let opened = tokio::task::spawn_blocking(move || SledStore::open(path, options))
            .await
            .map_err(|e| CommandError::new(Code::Internal, format!("opening the store ended early: {e}")))?;
        match opened {
            Ok(store) => return Ok(Opened::Here(Arc::new(store))),
            Err(OpenError::Locked { holder, .. }) => {
                if let Some(socket) = control::socket_path(dir)
                    && is_served(&socket).await
                {
                    return Ok(Opened::Elsewhere(holder));
                }
                if begin.elapsed() > PATIENCE {
                    return Err(locked(dir, holder.as_ref()));
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens the store to drive runs with it.
///
/// # Errors
/// When it is owned by another process, which is named, or cannot be opened.
pub(crate) async fn open_to_drive(dir: &Path, command: &str, create: bool) -> CommandResult<Arc<SledStore>> {
    match open(dir, command, create).await? {
        Opened::Here(store) => Ok(store),
        Opened::Elsewhere(holder) => {
            let error = locked(dir, holder.as_ref());
            // A daemon whose runs are paused still owns its store.
            if holder.is_some_and(|holder| holder.command == DAEMON) {
                return Err(error);
            }
            Err(error.hint(
                "look at its run with `dssflow runs ls` and `dssflow runs watch`, or stop it with `dssflow pause`",
            ))
        }
    }
}

/// The process that serves the store, when one does: it drives any run and takes new ones.
/// An owner that does not answer is met again when the store is opened, and told then.
pub(crate) async fn served(dir: &Path) -> Option<Client> {
    let socket = control::socket_path(dir)?;
    if !is_served(&socket).await {
        return None;
    }
    let client = Client { socket, store: dir.to_owned(), holder: dssflow_store::holder_of(dir) };
    client.serves().await.is_ok_and(|serves| serves).then_some(client)
}

/// Gives the store back.
///
/// # Errors
/// When what was acknowledged cannot be made final; it is durable all the same.
pub(crate) async fn close(store: Arc<SledStore>) -> CommandResult<()> {
    Ok(store.close().await?)
}

/// Whether somebody listens: connecting to a dead owner's socket is refused. One that is stopped has a queue, and when
/// that is full, nobody is let in and nobody has to wait for that.
async fn is_served(socket: &Path) -> bool {
    match tokio::net::UnixStream::connect(socket).await {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

/// Says who owns the store, what that process does, in which state it is, and since when.
pub(crate) fn locked(dir: &Path, holder: Option<&Holder>) -> CommandError {
    let Some(holder) = holder else {
        return CommandError::new(
            Code::StoreLocked,
            format!("the store {} is in use by another process", dir.display()),
        )
        .hint("wait until that process has ended");
    };
    let state = process_state(holder);
    let error =
        CommandError::new(Code::StoreLocked, format!("the store {} is in use by {holder}", dir.display()))
            .why(format!("process {} is {state}", holder.pid));
    match state {
        "stopped" => error.hint(format!(
            "it still owns the store: let it go on with `kill -CONT {}`, or end it",
            holder.pid
        )),
        _ if holder.command == DAEMON => error
            .hint(format!(
                "stop the daemon: `systemctl stop dssflow` where systemd started it, else `kill -TERM {}`",
                holder.pid
            ))
            .hint("it saves its runs, and takes them up again with `dssflow serve`"),
        _ => error.hint(format!("wait until process {} has ended, or end it", holder.pid)),
    }
}

/// As the kernel tells: `running`, `stopped` or `not to be seen from here`.
pub(crate) fn process_state(holder: &Holder) -> &'static str {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", holder.pid)).unwrap_or_default();
    // The name stands in parentheses and may hold anything; the state is the letter after it.
    match text.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next()) {
        Some('T' | 't') => "stopped",
        Some(_) => "running",
        None => "not to be seen from here",
    }
}

#[cfg(test)]
mod tests {
    use dssflow_engine::time::Timestamp;

    use super::*;

    #[test]
    fn a_daemon_is_stopped_and_not_paused() {
        let holder = |command: &str| Holder {
            pid: std::process::id(),
            host: "here".to_owned(),
            start_time: 0,
            since: Timestamp::from_millis(0),
            command: command.to_owned(),
        };
        let hints = |command: &str| locked(Path::new("/store"), Some(&holder(command))).hints.join("\n");
        let pid = std::process::id();
        let daemon = hints(DAEMON);
        assert!(daemon.contains("systemctl stop dssflow"), "{daemon}");
        assert!(daemon.contains(&format!("kill -TERM {pid}")), "{daemon}");
        assert!(hints("dssflow run bootstrap").contains("wait until process"));
    }
}
