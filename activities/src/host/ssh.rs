//! A remote host, through the user's own `ssh` program.
//!
//! Keys, agents, jump hosts, `ProxyCommand` and host key checking are the user's configuration; dssflow adds `BatchMode`
//! (never a question) and keep-alives, and takes away what a command has no use for (forwards, terminals, agents). All
//! commands share one connection, see [`super::ssh_link`]. The remote login shell, which must be a POSIX one, sees one
//! line of single-quoted words. This is not an SSH client and copies no files by itself.
//!
//! The address of a machine that is launched by the run is not known when the host is made: [`SshHost::place`] gives it,
//! with the machine's host keys, and from then on only these are trusted. Commands before that fail and say why.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dssflow_engine::time::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::guard;
use super::local::{Identity, WHO, env_prefix, inherit, with_base_env, wrap};
use super::process::{self, Child, Ended, MAX_WORD_BYTES};
use super::ssh_link::{Link, Links, PrivateDir};
use super::sudo;
use super::transport::{Host, HostCommand, HostError, HostOutput, HostUser};

/// Commands at once over one connection; `sshd` refuses more than ten (`MaxSessions`).
const MAX_SESSIONS: usize = 8;
/// So many commands whose connection was lost are remembered.
const MAX_LOST: usize = 16;
/// How long a machine may take to show its key.
const ASK_KEYS_WITHIN: Duration = Duration::from_secs(30);

/// Where to connect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshTarget {
    /// Host name, address or alias of the user's ssh configuration; empty when it comes later by [`SshHost::place`].
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
    /// An ssh configuration in place of the user's and the system's (`ssh -F`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_file: Option<PathBuf>,
    /// A command put before every command on the host, as [`super::LocalHost::new`] takes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrapper: Vec<String>,
}

/// Where a launched machine is, and by what it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshPlace {
    /// Its address.
    pub address: String,
    /// The name its keys are kept under, which stays when the address changes: the instance id.
    pub alias: String,
    /// Its host keys, as in `ssh-ed25519 AAAA...`: nothing else is trusted. Without any the ssh configuration decides.
    pub host_keys: Vec<String>,
}

/// A host reached by `ssh`. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct SshHost(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    target: SshTarget,
    /// Set by [`SshHost::place`].
    place: Mutex<Option<SshPlace>>,
    links: Links,
    identity: tokio::sync::Mutex<Option<(Destination, Identity)>>,
    sessions: Semaphore,
    /// Commands whose connection went while they ran; they may still run.
    lost: Mutex<VecDeque<String>>,
}

/// Where a connection goes, all told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) target: SshTarget,
    pub(super) place: Option<SshPlace>,
}

impl Destination {
    /// The name or address, for people.
    pub(super) fn host(&self) -> &str {
        self.place.as_ref().map_or(&self.target.host, |place| &place.address)
    }

    /// `ssh` with its options, up to and with the host. `known_hosts` is where the keys of a place lie.
    pub(super) fn ssh(&self, options: &[String], known_hosts: Option<&str>) -> Vec<String> {
        let target = &self.target;
        let mut argv: Vec<String> = ["ssh", "-T"].map(str::to_owned).to_vec();
        if let Some(file) = &target.config_file {
            argv.extend(["-F".to_owned(), file.display().to_string()]);
        }
        let fixed = [
            "BatchMode=yes",
            "ConnectTimeout=15",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=4",
            "EscapeChar=none",
            "LogLevel=ERROR",
            "ClearAllForwardings=yes",
            "ForwardAgent=no",
            "ForwardX11=no",
            "PermitLocalCommand=no",
        ];
        for option in fixed.into_iter().map(str::to_owned).chain(options.iter().cloned()) {
            argv.extend(["-o".to_owned(), option]);
        }
        if let (Some(place), Some(file)) = (&self.place, known_hosts) {
            for option in [
                format!("UserKnownHostsFile={file}"),
                "GlobalKnownHostsFile=/dev/null".to_owned(),
                "StrictHostKeyChecking=yes".to_owned(),
                format!("HostKeyAlias={}", place.alias),
                "CheckHostIP=no".to_owned(),
                "UpdateHostKeys=no".to_owned(),
            ] {
                argv.extend(["-o".to_owned(), option]);
            }
        }
        if let Some(port) = target.port {
            argv.extend(["-p".to_owned(), port.to_string()]);
        }
        if let Some(file) = &target.identity_file {
            argv.extend(["-i".to_owned(), file.display().to_string()]);
        }
        if let Some(user) = &target.user {
            argv.extend(["-l".to_owned(), user.clone()]);
        }
        argv.extend(["--".to_owned(), self.host().to_owned()]);
        argv
    }
}

/// What [`SshHost::ask_keys`] learned.
pub(super) struct AskedKeys {
    /// Host keys, `KIND BASE64`.
    pub(super) keys: Vec<String>,
    /// What ssh said; with keys, that nobody was let in.
    pub(super) complaint: String,
}

/// What of our environment an `ssh` may see: where its configuration, agent and helpers are.
pub(super) fn ssh_env() -> Vec<(String, String)> {
    inherit(&[
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SSH_AUTH_SOCK",
        "TMPDIR",
        // A ProxyCommand through AWS Systems Manager asks AWS for its session.
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ])
}

/// Refuses what `ssh` could read as an option, or not at all.
fn check_word(word: &str) -> Result<(), HostError> {
    let bad = word.is_empty()
        || word.starts_with('-')
        || word.chars().any(|c| c.is_control() || c.is_whitespace() || c == '"' || c == '%');
    if !bad {
        return Ok(());
    }
    let why = format!(
        "{word:?} cannot be a host, user or alias: empty, with white space, quotes, `%` or a first `-`"
    );
    Err(HostError::BadCommand { command: "ssh".to_owned(), why })
}

impl SshHost {
    /// Prepares the connection; nothing is contacted yet. With an empty `host` every command fails with
    /// [`HostError::NoAddress`] until [`SshHost::place`] has given one.
    ///
    /// # Errors
    /// When the target could be read as an option by `ssh`.
    pub fn new(target: SshTarget) -> Result<Self, HostError> {
        for word in
            [Some(&target.host).filter(|host| !host.is_empty()), target.user.as_ref()].into_iter().flatten()
        {
            check_word(word)?;
        }
        Ok(Self(Arc::new(Inner {
            target,
            place: Mutex::new(None),
            links: Links::default(),
            identity: tokio::sync::Mutex::new(None),
            sessions: Semaphore::new(MAX_SESSIONS),
            lost: Mutex::new(VecDeque::new()),
        })))
    }

    /// Says where the machine is and which host keys it has. Connections made before are not used any more.
    ///
    /// # Errors
    /// When the address, the alias or a key could be read as something else.
    pub fn place(&self, place: SshPlace) -> Result<(), HostError> {
        check_word(&place.address)?;
        check_word(&place.alias)?;
        if let Some(key) = place.host_keys.iter().find(|key| super::host_key::fingerprint(key).is_none()) {
            let why = format!("{:?} is not a host key", super::transport::printable(key, 60));
            return Err(HostError::BadCommand { command: "ssh".to_owned(), why });
        }
        *self.0.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        Ok(())
    }

    /// The place given by [`SshHost::place`].
    pub fn placed(&self) -> Option<SshPlace> {
        self.0.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connects as far as the host key, and reads which it was.
    pub(super) async fn ask_keys(&self, address: &str, alias: &str) -> Result<AskedKeys, HostError> {
        check_word(address)?;
        check_word(alias)?;
        let place = SshPlace { address: address.to_owned(), alias: alias.to_owned(), host_keys: Vec::new() };
        let destination = Destination { target: self.0.target.clone(), place: Some(place) };
        let dir =
            PrivateDir::make().map_err(|source| HostError::Spawn { program: "ssh".to_owned(), source })?;
        let file = dir.path().join("offered");
        // The key is kept before anybody logs in, and nobody does.
        let options = [
            "PreferredAuthentications=none".to_owned(),
            "StrictHostKeyChecking=accept-new".to_owned(),
            format!("UserKnownHostsFile={}", file.display()),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            "HashKnownHosts=no".to_owned(),
            "UpdateHostKeys=no".to_owned(),
            "CheckHostIP=no".to_owned(),
            format!("HostKeyAlias={alias}"),
            "ControlMaster=no".to_owned(),
            "ControlPath=none".to_owned(),
        ];
        let mut argv = guard::relay();
        argv.extend(destination.ssh(&options, None));
        argv.push("true".to_owned());
        let child = Child {
            name: "ssh".to_owned(),
            argv,
            env: ssh_env(),
            stdin: None,
            timeout: ASK_KEYS_WITHIN,
            nonce: guard::nonce(),
            locked: false,
            fence: None,
        };
        let ended = process::run(child).await?;
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        Ok(AskedKeys { keys: super::host_key::known(&text), complaint: ended.output.complaint() })
    }

    pub(super) fn destination(&self, command: &str) -> Result<Destination, HostError> {
        let place = self.placed();
        if place.is_none() && self.0.target.host.is_empty() {
            return Err(HostError::NoAddress { command: command.to_owned() });
        }
        Ok(Destination { target: self.0.target.clone(), place })
    }

    /// The open connection, made anew when it is gone.
    pub(super) async fn link(&self, destination: &Destination) -> Result<Arc<Link>, HostError> {
        self.0.links.open(destination).await
    }

    fn child(&self, link: &Link, command: HostCommand, identity: Option<&Identity>) -> Child {
        let name = command.name();
        let nonce = guard::nonce();
        let HostCommand { argv, stdin, user, mut env, timeout, lock, fence } = command;
        let stdin_len = stdin.as_ref().map_or(0, |s| s.len());
        let outer = guard::outer(&nonce, lock.as_deref(), timeout, &self.lost());
        let (locked, inner) = (lock.is_some(), guard::inner(stdin_len));
        let wrapper = &self.0.target.wrapper;
        let (switch, env, argv) = if wrapper.is_empty() {
            (identity.map(|i| i.switch(&user)).unwrap_or_default(), with_base_env(env), argv)
        } else {
            env.push(("LC_ALL".to_owned(), "C.UTF-8".to_owned()));
            (Vec::new(), env, wrap(wrapper, &user, argv))
        };
        let env = env_prefix(env.into_iter().chain([guard::mark(&nonce)]).collect());
        let remote: Vec<String> =
            outer.into_iter().chain(switch).chain(env).chain(inner).chain(argv).collect();
        let mut argv = guard::relay();
        argv.extend(link.ssh());
        argv.push(quote_all(&remote));
        Child { name, argv, env: ssh_env(), stdin, timeout, nonce, locked, fence }
    }

    fn lost(&self) -> Vec<String> {
        self.0.lost.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn lose(&self, nonce: String) {
        let mut lost = self.0.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.len() >= MAX_LOST {
            lost.pop_front();
        }
        lost.push_back(nonce);
    }

    async fn call(
        &self,
        link: &Link,
        command: HostCommand,
        identity: Option<&Identity>,
    ) -> Result<HostOutput, HostError> {
        let _session = self.0.sessions.acquire().await.expect("it is never closed");
        let child = self.child(link, command, identity);
        let (name, nonce) = (child.name.clone(), child.nonce.clone());
        if child.argv.last().is_some_and(|line| line.len() > MAX_WORD_BYTES) {
            let why = format!("its command line has more than {MAX_WORD_BYTES} bytes");
            return Err(HostError::BadCommand { command: name, why });
        }
        let Ended { output, own_status, started } = process::run(child).await?;
        if !own_status && !started {
            let host = link.host().to_owned();
            return Err(HostError::Unreachable { host, detail: output.complaint() });
        }
        if !own_status {
            self.lose(nonce);
            let host = link.host().to_owned();
            return Err(HostError::Connection { host, command: name, detail: output.complaint() });
        }
        Ok(output)
    }

    async fn identity(&self, destination: &Destination, link: &Link) -> Result<Identity, HostError> {
        let mut known = self.0.identity.lock().await;
        if let Some((of, identity)) = known.as_ref()
            && of == destination
        {
            return Ok(identity.clone());
        }
        let output = self.call(link, HostCommand::new(HostUser::Login, WHO), None).await?;
        let identity = Identity::parse(&output).ok_or_else(|| HostError::Failed {
            command: "id".to_owned(),
            status: output.status,
            complaint: output.complaint(),
        })?;
        *known = Some((destination.clone(), identity.clone()));
        Ok(identity)
    }
}

impl Host for SshHost {
    fn exec(&self, command: HostCommand) -> BoxFuture<'_, Result<HostOutput, HostError>> {
        Box::pin(async move {
            command.check()?;
            let (name, user) = (command.name(), command.user.clone());
            let destination = self.destination(&name)?;
            let link = self.link(&destination).await?;
            let needs_identity = self.0.target.wrapper.is_empty() && user != HostUser::Login;
            let identity =
                if needs_identity { Some(self.identity(&destination, &link).await?) } else { None };
            let output = self.call(&link, command, identity.as_ref()).await?;
            match sudo::refusal(&output).filter(|_| identity.is_some_and(|i| i.uses_sudo(&user))) {
                Some(detail) => Err(HostError::Sudo { command: name, detail }),
                None => Ok(output),
            }
        })
    }

    fn describe(&self) -> String {
        let place = self.placed();
        let host = place.as_ref().map_or(self.0.target.host.as_str(), |place| &place.address);
        let host = if host.is_empty() { "(a machine that is not launched yet)" } else { host };
        match &self.0.target.user {
            Some(user) => format!("ssh {user}@{host}"),
            None => format!("ssh {host}"),
        }
    }

    fn ssh(&self) -> Option<SshHost> {
        Some(self.clone())
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
        SshTarget { host: host.into(), user: Some("ec2-user".into()), port: Some(22), ..SshTarget::default() }
    }

    #[test]
    fn a_host_is_never_an_option() {
        for bad in ["-oProxyCommand=id", "a b", "a\nb", "a\"b", "%h"] {
            assert!(SshHost::new(target(bad)).is_err(), "{bad:?}");
            let host = SshHost::new(target("")).unwrap();
            let place = |address: &str, alias: &str| SshPlace {
                address: address.into(),
                alias: alias.into(),
                host_keys: Vec::new(),
            };
            assert!(host.place(place(bad, "i-1")).is_err(), "{bad:?}");
            assert!(host.place(place("10.0.0.4", bad)).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn without_an_address_no_command_starts() {
        let host = SshHost::new(target("")).unwrap();
        let error = host.exec(HostCommand::new(HostUser::Root, ["true"])).await.unwrap_err();
        assert!(matches!(error, HostError::NoAddress { .. }), "{error}");
        assert_eq!(host.describe(), "ssh ec2-user@(a machine that is not launched yet)");
    }

    #[test]
    fn secrets_travel_by_stdin_only() {
        let host = SshHost::new(target("10.0.0.4")).unwrap();
        let command =
            HostCommand::new(HostUser::Service("dssuser".into()), ["tee", "/x y"]).stdin("canary-123");
        let who = Identity { uid: 1000, name: "ec2-user".into() };
        let link = Link::unopened(host.destination("x").unwrap());
        let child = host.child(&link, command, Some(&who));
        assert!(child.argv.iter().all(|a| !a.contains("canary")));
        assert!(child.env.iter().all(|(_, v)| !v.contains("canary")));
        let line = child.argv.last().unwrap();
        assert!(line.contains(" sudo -n -H -u dssuser -- env PATH="));
        assert!(line.ends_with(" 10 tee '/x y'"));
        assert_eq!(child.argv[child.argv.len() - 3..][..2], ["--", "10.0.0.4"]);
    }

    #[test]
    fn a_placed_machine_is_known_by_its_keys_alone() {
        let host = SshHost::new(target("")).unwrap();
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINg/Jo6/Z1DJjSIEnr2LD/j5t1Uk2xSaCzDv8h/C9jB3";
        host.place(SshPlace {
            address: "10.0.0.9".into(),
            alias: "i-0abc".into(),
            host_keys: vec![key.into()],
        })
        .unwrap();
        let argv = host.destination("x").unwrap().ssh(&[], Some("/run/k"));
        for wanted in
            ["StrictHostKeyChecking=yes", "HostKeyAlias=i-0abc", "UserKnownHostsFile=/run/k", "10.0.0.9"]
        {
            assert!(argv.iter().any(|word| word == wanted), "{wanted} in {argv:?}");
        }
    }
}
