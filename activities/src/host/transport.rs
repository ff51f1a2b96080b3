//! What a host is to the activities: something that runs one command as one user.
//!
//! [`Host`] has a single primitive, so that a new transport is one small file. Everything else (files, markers,
//! packages) is built on it in [`super::files`] and the activities. A command is an argv vector; nothing here ever
//! builds shell text out of data. What goes in by stdin and comes out by stdout may be secret: neither is logged
//! nor shown by `Debug`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dssflow_engine::activity::{ActivityError, ActivityResult};
use dssflow_engine::time::BoxFuture;
use zeroize::Zeroizing;

use super::ssh::SshHost;
use super::sudo;

/// The most a command may print on stdout, and again on stderr, in bytes.
pub const MAX_OUTPUT_BYTES: usize = 16 * 1024 * 1024;
/// How much of a failed command's stderr goes into an error, in characters.
const STDERR_TAIL: usize = 600;
/// How long a command may take unless it says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_mins(2);

/// As whom a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostUser {
    /// The superuser, by `sudo -n` when we are not.
    Root,
    /// The account DSS runs as, or another by name.
    Service(String),
    /// Whoever the transport logs in as.
    Login,
}

/// Says whether a command may start.
pub type StartFence = Arc<dyn Fn() -> ActivityResult<()> + Send + Sync>;

/// One command.
#[derive(Clone)]
pub struct HostCommand {
    /// Program and arguments. Never a secret: other users of the host can read them.
    pub argv: Vec<String>,
    /// Bytes for stdin; may be secret.
    pub stdin: Option<Zeroizing<Vec<u8>>>,
    /// As whom it runs.
    pub user: HostUser,
    /// Variables on top of the small fixed environment. Never a secret, see [`HostCommand::argv`].
    pub env: Vec<(String, String)>,
    /// After this the command and its children are ended.
    pub timeout: Duration,
    /// A name of letters, digits, `.`, `_` and `-`: of two commands with the same one the second waits for the first,
    /// whoever started them. An activity's commands get that of their step.
    pub lock: Option<String>,
    /// Asked when the lock is held, right before the command starts: whoever waited for the lock may have lost the run
    /// meanwhile. A command without a lock does not ask.
    pub fence: Option<StartFence>,
}

impl HostCommand {
    /// A command run as `user` with nothing on stdin and [`DEFAULT_TIMEOUT`].
    pub fn new<I, S>(user: HostUser, argv: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let argv = argv.into_iter().map(Into::into).collect();
        Self { argv, stdin: None, user, env: Vec::new(), timeout: DEFAULT_TIMEOUT, lock: None, fence: None }
    }

    /// A constant script with arguments. It goes in by stdin, so that no command line has it, and can read no stdin
    /// itself.
    pub fn script<I, S>(user: HostUser, script: &'static str, arguments: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let fixed = ["sh", "-s", "--"].map(str::to_owned);
        Self::new(user, fixed.into_iter().chain(arguments.into_iter().map(Into::into))).stdin(script)
    }

    /// Gives it bytes on stdin.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(Zeroizing::new(bytes.into()));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the timeout.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A name for messages: the program and its first words, without scripts and data.
    pub fn name(&self) -> String {
        let program = self.argv.first().map_or("", |p| p.rsplit('/').next().unwrap_or(p));
        if program == "sh" {
            return "sh (a script of dssflow)".to_owned();
        }
        let rest = self.argv.iter().skip(1).take(3).map(String::as_str);
        let name = std::iter::once(program).chain(rest).collect::<Vec<_>>().join(" ");
        printable(&name, 120)
    }

    /// Refuses what no transport can carry.
    pub(crate) fn check(&self) -> Result<(), HostError> {
        let bad = |why: &str| Err(HostError::BadCommand { command: self.name(), why: why.to_owned() });
        if self.argv.first().is_none_or(String::is_empty) {
            return bad("it names no program");
        }
        if self.argv.iter().any(|a| a.contains('\0')) {
            return bad("an argument has a NUL byte");
        }
        for (name, value) in &self.env {
            let ok = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !ok || value.contains('\0') {
                return bad("a variable has a name or value that cannot be passed");
            }
        }
        if let HostUser::Service(user) = &self.user
            && !is_account_name(user)
        {
            return bad("the user name is not a valid account name");
        }
        if let Some(lock) = &self.lock {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if lock.is_empty() || lock.len() > 200 || lock.starts_with('.') || !lock.chars().all(plain) {
                return bad("its lock has a name that is no plain file name");
            }
        }
        Ok(())
    }
}

impl fmt::Debug for HostCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostCommand")
            .field("argv", &self.argv)
            .field("stdin_len", &self.stdin.as_ref().map(|s| s.len()))
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What a command left behind.
#[derive(Clone)]
pub struct HostOutput {
    /// Exit status; 128 + signal when a signal ended it.
    pub status: i32,
    /// What it printed; may be secret.
    pub stdout: Zeroizing<Vec<u8>>,
    /// What it complained about.
    pub stderr: Vec<u8>,
}

impl HostOutput {
    /// Whether it exited with 0.
    pub fn ok(&self) -> bool {
        self.status == 0
    }

    /// Stdout as text without surrounding white space.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// The end of stderr, for messages; control characters are escaped.
    pub fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let text = text.trim();
        let skip = text.chars().count().saturating_sub(STDERR_TAIL);
        printable(&text.chars().skip(skip).collect::<String>(), STDERR_TAIL + 8)
    }
}

impl fmt::Debug for HostOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostOutput")
            .field("status", &self.status)
            .field("stdout_len", &self.stdout.len())
            .field("stderr_len", &self.stderr.len())
            .finish()
    }
}

/// Why a command gave no exit status, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The command cannot be carried by any transport.
    #[error("cannot run {command}: {why}")]
    BadCommand {
        /// Its name.
        command: String,
        /// What is wrong with it.
        why: String,
    },
    /// The local program that carries it did not start.
    #[error("could not start {program}")]
    Spawn {
        /// The program.
        program: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The pipes to it broke.
    #[error("lost the pipes to {command}")]
    Pipe {
        /// Its name.
        command: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// It ran too long and was ended with its children.
    #[error("{command} did not end within {} s and was stopped", after.as_secs())]
    Timeout {
        /// Its name.
        command: String,
        /// Its limit.
        after: Duration,
    },
    /// It printed more than [`MAX_OUTPUT_BYTES`].
    #[error("{command} printed more than {MAX_OUTPUT_BYTES} bytes")]
    TooMuchOutput {
        /// Its name.
        command: String,
    },
    /// An older command with the same lock still runs on the host; this one did not start.
    #[error(
        "{command} did not start: an older command of the same step still runs on the host{}",
        pid_text(pid)
    )]
    Busy {
        /// Its name.
        command: String,
        /// The process that holds the lock there.
        pid: String,
    },
    /// The lock of the step is not to be had; the command did not start.
    #[error("{command} did not start: {why}")]
    Lock {
        /// Its name.
        command: String,
        /// What is wrong.
        why: String,
    },
    /// The run may be another process's by now; the command did not start.
    #[error("the command did not start: {}", .0.message)]
    Fenced(ActivityError),
    /// The host has no address yet; the command did not start.
    #[error("{command} did not start: the address of the host is not known yet")]
    NoAddress {
        /// Its name.
        command: String,
    },
    /// There is no connection to the host; the command did not start.
    #[error("no connection to {host}: {detail}")]
    Unreachable {
        /// The host.
        host: String,
        /// What ssh said.
        detail: String,
    },
    /// The connection to the host failed while the command ran; whether it had its effect is unknown.
    #[error("the connection to {host} was lost while {command} ran: {detail}")]
    Connection {
        /// The host.
        host: String,
        /// Its name.
        command: String,
        /// What ssh said.
        detail: String,
    },
    /// `sudo` did not let us; the command did not start.
    #[error("{command} did not start: {detail}")]
    Sudo {
        /// Its name.
        command: String,
        /// What sudo said.
        detail: String,
    },
    /// It ended with another status than 0.
    #[error("{command} ended with status {status}: {complaint}")]
    Failed {
        /// Its name.
        command: String,
        /// The status.
        status: i32,
        /// The end of its stderr.
        complaint: String,
    },
}

/// Where the process is, for a message.
fn pid_text(pid: &str) -> String {
    if pid.is_empty() { String::new() } else { format!(" as process {}", printable(pid, 20)) }
}

impl From<HostError> for ActivityError {
    fn from(error: HostError) -> Self {
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            message = format!("{message}: {source}");
        }
        match error {
            HostError::Fenced(error) => error,
            HostError::BadCommand { .. } => Self::terminal("HostCommandRefused", message).no_effect(),
            HostError::Spawn { .. } => Self::terminal("HostProgramMissing", message).no_effect(),
            HostError::NoAddress { .. } => Self::terminal("HostAddressUnknown", message)
                .help("a step that needs the host must come after the one that launches and reaches it")
                .no_effect(),
            HostError::Lock { .. } => Self::needs_human("HostLock", message)
                .help("put right on the host what the message names, then resume the run"),
            HostError::Busy { ref pid, .. } => {
                let help = if pid.is_empty() {
                    "it is waited for again; a process that hangs can be ended on the host".to_owned()
                } else {
                    format!(
                        "it is waited for again; `ps -o pid,etime,args -g {pid}` on the host shows it, and one that \
                         hangs can be ended there"
                    )
                };
                Self::retryable("HostBusy", message).help(help)
            }
            HostError::Unreachable { ref detail, .. } | HostError::Connection { ref detail, .. } => {
                connection(detail, message)
            }
            HostError::Sudo { ref detail, .. } => {
                Self::needs_human("SudoRefused", message).help(sudo::help(detail))
            }
            HostError::Pipe { .. } => Self::retryable("HostPipe", message),
            HostError::Timeout { .. } => Self::retryable("HostCommandTimeout", message),
            HostError::TooMuchOutput { .. } => Self::terminal("HostOutputTooLarge", message),
            HostError::Failed { .. } => Self::retryable("HostCommandFailed", message),
        }
    }
}

/// Tells what a person must mend from what may pass.
fn connection(detail: &str, message: String) -> ActivityError {
    if detail.contains("IDENTIFICATION HAS CHANGED") || detail.contains("Host key verification failed") {
        return ActivityError::needs_human("HostKeyUntrusted", message).help(
            "compare the host's key with what you know of it (the EC2 console output has its fingerprint), then put it \
             into known_hosts by logging in once by hand, and resume the run",
        );
    }
    if detail.contains("Permission denied") || detail.contains("Too many authentication failures") {
        return ActivityError::needs_human("HostLoginRefused", message).help(
            "check `host.user` and the key: `ssh -o BatchMode=yes` to the host must log in without a question, by a key \
             file of the ssh configuration, `host.identity_file`, or an agent that holds the key",
        );
    }
    ActivityError::retryable("HostUnreachable", message)
        .help("check that `ssh -o BatchMode=yes` reaches the host without a question (address, route, key, host key)")
}

/// A host that runs commands. Object-safe; shared as `Arc<dyn Host>`.
pub trait Host: Send + Sync + fmt::Debug {
    /// Runs one command to its end. Dropping the future, a timeout, and the death of this process all end the
    /// command with its children. A status other than 0 is not an error here.
    ///
    /// # Errors
    /// [`HostError`] when there is no exit status to report.
    fn exec(&self, command: HostCommand) -> BoxFuture<'_, Result<HostOutput, HostError>>;

    /// Names the host for people, as `this machine` or `ssh ec2-user@10.0.0.4`.
    fn describe(&self) -> String;

    /// The ssh transport, where it is one: for its address, host key and forwards.
    fn ssh(&self) -> Option<SshHost> {
        None
    }
}

impl dyn Host + '_ {
    /// Runs a command that must exit with 0.
    ///
    /// # Errors
    /// [`HostError::Failed`] for any other status, and what [`Host::exec`] gives.
    pub async fn run(&self, command: HostCommand) -> Result<HostOutput, HostError> {
        let name = command.name();
        let output = self.exec(command).await?;
        if output.ok() {
            return Ok(output);
        }
        Err(HostError::Failed { command: name, status: output.status, complaint: output.complaint() })
    }
}

/// The host of a site, as injected into the engine.
#[derive(Debug, Clone)]
pub struct HostHandle(pub Arc<dyn Host>);

/// Whether `name` can be an account: what `useradd` takes, and nothing a tool could read as an option.
pub fn is_account_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
}

/// `text` on one line, control characters escaped, at most `max` characters.
pub(crate) fn printable(text: &str, max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max));
    for c in text.chars().take(max) {
        if c == '\n' {
            line.push_str(" | ");
        } else if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_stdin_nor_stdout() {
        let command = HostCommand::new(HostUser::Root, ["cat"]).stdin("hunter2-canary");
        assert!(!format!("{command:?}").contains("hunter2"));
        let output =
            HostOutput { status: 0, stdout: Zeroizing::new(b"hunter2".to_vec()), stderr: Vec::new() };
        assert!(!format!("{output:?}").contains("hunter2"));
    }

    #[test]
    fn impossible_commands_are_refused() {
        let check = |c: HostCommand| c.check().is_err();
        assert!(check(HostCommand::new(HostUser::Root, Vec::<String>::new())));
        assert!(check(HostCommand::new(HostUser::Root, ["a\0b"])));
        assert!(check(HostCommand::new(HostUser::Service("-x".into()), ["id"])));
        assert!(check(HostCommand::new(HostUser::Service("a b".into()), ["id"])));
        assert!(check(HostCommand::new(HostUser::Root, ["id"]).env("A=B", "x")));
        assert!(!check(HostCommand::new(HostUser::Service("dssuser".into()), ["id"]).env("LANG", "C")));
    }

    #[test]
    fn complaints_are_one_printable_line() {
        let output =
            HostOutput { status: 1, stdout: Zeroizing::new(Vec::new()), stderr: b"a\nb\x1b[31mred".to_vec() };
        assert_eq!(output.complaint(), "a | b\\u{1b}[31mred");
    }
}
