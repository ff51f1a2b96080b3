//! A remote host, through the user's own `ssh` program.
//!
//! Keys, agents, jump hosts and host key checking are the user's configuration; dssflow adds `BatchMode` (never a
//! question), keep-alives, and one shared connection whose socket lies in a private directory. The remote login
//! shell sees one line of single-quoted words. This is not an SSH client and copies no files by itself.

use std::path::{Path, PathBuf};

use dssflow_engine::time::BoxFuture;
use tokio::sync::OnceCell;

use super::local::{Identity, WHO, env_prefix, inherit, with_base_env};
use super::process::{self, Child};
use super::transport::{Host, HostCommand, HostError, HostOutput, HostUser};

/// The status with which `ssh` reports its own failures.
const SSH_FAILED: i32 = 255;

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshTarget {
    /// Host name, address or alias of the user's ssh configuration.
    pub host: String,
    /// Login user; the ssh configuration decides when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Port; the ssh configuration decides when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Private key file; the ssh configuration and agent decide when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_file: Option<PathBuf>,
}

/// A host reached by `ssh`.
#[derive(Debug)]
pub struct SshHost {
    target: SshTarget,
    sockets: PathBuf,
    identity: OnceCell<Identity>,
}

impl SshHost {
    /// Prepares the connection; nothing is contacted yet.
    ///
    /// # Errors
    /// When the target could be read as an option by `ssh`, or the private directory cannot be made.
    pub fn new(target: SshTarget) -> Result<Self, HostError> {
        let words = [Some(&target.host), target.user.as_ref()];
        let bad = |word: &String| {
            word.is_empty()
                || word.starts_with('-')
                || word.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        if words.into_iter().flatten().any(bad) {
            let why = "the host or user name is empty, starts with `-` or has white space".to_owned();
            return Err(HostError::BadCommand { command: "ssh".to_owned(), why });
        }
        let sockets =
            private_directory().map_err(|source| HostError::Spawn { program: "ssh".to_owned(), source })?;
        Ok(Self { target, sockets, identity: OnceCell::new() })
    }

    /// The `ssh` command line up to and with the host.
    fn ssh(&self) -> Vec<String> {
        let mut argv: Vec<String> = ["ssh", "-T"].map(str::to_owned).to_vec();
        let control = format!("ControlPath={}/%C", self.sockets.display());
        for option in [
            "BatchMode=yes",
            "ControlMaster=auto",
            control.as_str(),
            "ControlPersist=60",
            "ConnectTimeout=15",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=4",
            "EscapeChar=none",
        ] {
            argv.extend(["-o".to_owned(), option.to_owned()]);
        }
        if let Some(port) = self.target.port {
            argv.extend(["-p".to_owned(), port.to_string()]);
        }
        if let Some(file) = &self.target.identity_file {
            argv.extend(["-i".to_owned(), file.display().to_string()]);
        }
        if let Some(user) = &self.target.user {
            argv.extend(["-l".to_owned(), user.clone()]);
        }
        argv.extend(["--".to_owned(), self.target.host.clone()]);
        argv
    }

    fn child(&self, command: HostCommand, identity: Option<&Identity>) -> Child {
        let name = command.name();
        let HostCommand { argv, stdin, user, env, timeout } = command;
        let guarded = process::guarded(argv, stdin.as_ref().map_or(0, |s| s.len()));
        let switch = identity.map(|i| i.switch(&user)).unwrap_or_default();
        let remote: Vec<String> =
            switch.into_iter().chain(env_prefix(with_base_env(env))).chain(guarded).collect();
        let mut argv = self.ssh();
        argv.push(quote_all(&remote));
        let env = inherit(&["PATH", "HOME", "USER", "LOGNAME", "SSH_AUTH_SOCK", "TMPDIR"]);
        Child { name, argv, env, stdin, timeout }
    }

    async fn call(&self, child: Child) -> Result<HostOutput, HostError> {
        let output = process::run(child).await?;
        if output.status == SSH_FAILED {
            return Err(HostError::Connection { host: self.target.host.clone(), detail: output.complaint() });
        }
        Ok(output)
    }

    async fn identity(&self) -> Result<&Identity, HostError> {
        self.identity
            .get_or_try_init(|| async {
                let output = self.call(self.child(HostCommand::new(HostUser::Login, WHO), None)).await?;
                Identity::parse(&output).ok_or_else(|| HostError::Connection {
                    host: self.target.host.clone(),
                    detail: format!("`id` gave no answer (status {}): {}", output.status, output.complaint()),
                })
            })
            .await
    }
}

impl Host for SshHost {
    fn exec(&self, command: HostCommand) -> BoxFuture<'_, Result<HostOutput, HostError>> {
        Box::pin(async move {
            command.check()?;
            let identity = if command.user == HostUser::Login { None } else { Some(self.identity().await?) };
            self.call(self.child(command, identity)).await
        })
    }

    fn describe(&self) -> String {
        match &self.target.user {
            Some(user) => format!("ssh {user}@{}", self.target.host),
            None => format!("ssh {}", self.target.host),
        }
    }
}

impl Drop for SshHost {
    fn drop(&mut self) {
        // The shared connection ends by itself after ControlPersist; its socket must be reachable until then,
        // so only an empty directory is removed.
        drop(std::fs::remove_dir(&self.sockets));
    }
}

/// Quotes one word for a POSIX shell.
pub(super) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.starts_with('=') {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Quotes words into one line.
pub(super) fn quote_all(words: &[String]) -> String {
    words.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" ")
}

/// Makes a directory only we can enter; socket paths are limited to about 100 bytes, so it stays short.
fn private_directory() -> std::io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let base = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|p| p.is_dir() && p.as_os_str().len() < 40)
        .unwrap_or_else(|| Path::new("/tmp").to_path_buf());
    for attempt in 0..64 {
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.subsec_nanos());
        let path = base.join(format!("dssflow-{}-{:x}", std::process::id(), nanos.wrapping_add(attempt)));
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(std::io::Error::other("no free name for a private directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_survive_a_real_shell() {
        let mut words: Vec<String> = [
            "", "a b", "'", "''", "\"", "$HOME", "$(id)", "`id`", ";id", "|", "&", "a\nb", "\\", "*", "~",
            "#x", "!x", "=x", "-x",
        ]
        .map(str::to_owned)
        .to_vec();
        // Every ASCII character but NUL, alone and between quotes.
        for byte in 1..128_u8 {
            let c = char::from(byte);
            words.extend([c.to_string(), format!("'{c}\""), format!("{c}{c}$")]);
        }
        let line = format!("printf '%s\\0' {}", quote_all(&words));
        let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
        let got: Vec<&[u8]> = output.stdout.strip_suffix(b"\0").unwrap().split(|b| *b == 0).collect();
        let want: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        assert_eq!(got, want);
    }

    fn target(host: &str) -> SshTarget {
        SshTarget { host: host.into(), user: Some("ec2-user".into()), port: Some(22), identity_file: None }
    }

    #[test]
    fn a_host_is_never_an_option() {
        for bad in ["", "-oProxyCommand=id", "a b", "a\nb"] {
            assert!(SshHost::new(target(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secrets_travel_by_stdin_only() {
        let host = SshHost::new(target("10.0.0.4")).unwrap();
        let command =
            HostCommand::new(HostUser::Service("dssuser".into()), ["tee", "/x y"]).stdin("canary-123");
        let who = Identity { uid: 1000, name: "ec2-user".into() };
        let child = host.child(command, Some(&who));
        assert!(child.argv.iter().all(|a| !a.contains("canary")));
        assert!(child.env.iter().all(|(_, v)| !v.contains("canary")));
        let line = child.argv.last().unwrap();
        assert!(line.starts_with("sudo -n -H -u dssuser -- env PATH="));
        assert!(line.ends_with(" 10 tee '/x y'"));
        assert_eq!(child.argv[child.argv.len() - 3..][..2], ["--", "10.0.0.4"]);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&host.sockets).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700);
    }
}
