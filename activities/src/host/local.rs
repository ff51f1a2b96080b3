//! The machine dssflow runs on, or a stand-in for it behind a wrapper command.
//!
//! Commands run directly when we already are the wanted user, else through `sudo -n`, or `su` when we are root.
//! With a wrapper (`host.wrapper` of the site, used by the sandbox) every command becomes
//! `WRAPPER... --user USER -- ARGV...` and the wrapper does the rest.

use dssflow_engine::time::BoxFuture;
use tokio::sync::OnceCell;

use super::guard;
use super::process::{self, Child};
use super::sudo;
use super::transport::{Host, HostCommand, HostError, HostOutput, HostUser};

/// Where programs are looked for on a host. `sudo`'s own path often lacks `/usr/local/bin`.
pub(super) const HOST_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// This machine as a [`Host`].
#[derive(Debug, Default)]
pub struct LocalHost {
    wrapper: Vec<String>,
    identity: OnceCell<Identity>,
}

/// Whom a transport logs in as.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) name: String,
}

/// Asks a host who we are there: `id -u; id -un`.
pub(super) const WHO: [&str; 3] = ["sh", "-c", "id -u; id -un"];

impl Identity {
    pub(super) fn parse(output: &HostOutput) -> Option<Self> {
        let text = output.text();
        let (uid, name) = text.split_once('\n')?;
        Some(Self { uid: uid.trim().parse().ok()?, name: name.trim().to_owned() })
    }

    /// Whether a command of `user` goes through `sudo`.
    pub(super) fn uses_sudo(&self, user: &HostUser) -> bool {
        self.switch(user).first().is_some_and(|word| word == "sudo")
    }

    /// What to put before a command that runs as `user`.
    pub(super) fn switch(&self, user: &HostUser) -> Vec<String> {
        let wanted = match user {
            HostUser::Login => return Vec::new(),
            HostUser::Root if self.uid == 0 => return Vec::new(),
            HostUser::Service(name) if *name == self.name => return Vec::new(),
            HostUser::Root => "root",
            HostUser::Service(name) => name.as_str(),
        };
        if self.uid == 0 {
            // Root may lack sudo. `su` sets up groups, home and the limits of a login like sudo does.
            let su = ["su", "-s", "/bin/sh", "-c", "exec \"$@\"", wanted, "--", "dssflow-su"];
            return su.map(str::to_owned).to_vec();
        }
        ["sudo", "-n", "-H", "-u", wanted, "--"].map(str::to_owned).to_vec()
    }
}

/// The fixed part of a command's environment on a real host, then its own variables.
pub(super) fn with_base_env(own: Vec<(String, String)>) -> Vec<(String, String)> {
    let base = [("PATH", HOST_PATH), ("LC_ALL", "C.UTF-8")];
    base.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).chain(own).collect()
}

/// `env K=V ...`, for transports that do not carry an environment.
pub(super) fn env_prefix(env: Vec<(String, String)>) -> Vec<String> {
    std::iter::once("env".to_owned()).chain(env.into_iter().map(|(k, v)| format!("{k}={v}"))).collect()
}

/// Our own values of the variables a child may see.
pub(super) fn inherit(names: &[&str]) -> Vec<(String, String)> {
    names.iter().filter_map(|n| Some(((*n).to_owned(), std::env::var(n).ok()?))).collect()
}

impl LocalHost {
    /// This machine, or with a non-empty `wrapper` whatever that command stands for.
    pub fn new(wrapper: Vec<String>) -> Self {
        Self { wrapper, identity: OnceCell::new() }
    }

    async fn identity(&self) -> Result<&Identity, HostError> {
        self.identity
            .get_or_try_init(|| async {
                let who = self.child(HostCommand::new(HostUser::Login, WHO), None);
                let output = process::run(who).await?.output;
                Identity::parse(&output).ok_or_else(|| HostError::Failed {
                    command: "id".to_owned(),
                    status: output.status,
                    complaint: output.complaint(),
                })
            })
            .await
    }

    /// Lays out the argv and environment; `None` for the identity runs as ourselves.
    fn child(&self, command: HostCommand, identity: Option<&Identity>) -> Child {
        let name = command.name();
        let nonce = guard::nonce();
        let HostCommand { argv, stdin, user, env, timeout, lock, fence } = command;
        let stdin_len = stdin.as_ref().map_or(0, |s| s.len());
        let outer = guard::outer(&nonce, lock.as_deref(), timeout, &[]);
        let (locked, inner) = (lock.is_some(), guard::inner(stdin_len));
        let mark = guard::mark(&nonce);
        if !self.wrapper.is_empty() {
            let mut whole = inherit(&["PATH", "HOME", "TMPDIR"]);
            whole.push(("LC_ALL".to_owned(), "C.UTF-8".to_owned()));
            whole.extend(env);
            whole.push(mark);
            let wrapped = wrap(&self.wrapper, &user, argv);
            let argv = outer.into_iter().chain(inner).chain(wrapped).collect();
            return Child { name, argv, env: whole, stdin, timeout, nonce, locked, fence };
        }
        let switch = identity.map(|i| i.switch(&user)).unwrap_or_default();
        let mut env = with_base_env(env);
        env.push(mark);
        let mut whole = inherit(&["HOME", "USER", "LOGNAME", "TMPDIR"]);
        // Behind `sudo` and `su` the environment is given anew.
        let carried = if switch.is_empty() {
            whole.extend(env);
            Vec::new()
        } else {
            whole.extend(with_base_env(Vec::new()));
            env_prefix(env)
        };
        let argv = outer.into_iter().chain(switch).chain(carried).chain(inner).chain(argv).collect();
        Child { name, argv, env: whole, stdin, timeout, nonce, locked, fence }
    }
}

/// `WRAPPER... --user USER -- ARGV...`
pub(super) fn wrap(wrapper: &[String], user: &HostUser, argv: Vec<String>) -> Vec<String> {
    let user = match user {
        HostUser::Root => "root",
        HostUser::Login => "login",
        HostUser::Service(name) => name,
    };
    let tail = ["--user", user, "--"].map(str::to_owned);
    wrapper.iter().cloned().chain(tail).chain(argv).collect()
}

impl Host for LocalHost {
    fn exec(&self, command: HostCommand) -> BoxFuture<'_, Result<HostOutput, HostError>> {
        Box::pin(async move {
            command.check()?;
            let needs_identity = self.wrapper.is_empty() && command.user != HostUser::Login;
            let identity = if needs_identity { Some(self.identity().await?) } else { None };
            let (name, user) = (command.name(), command.user.clone());
            let output = process::run(self.child(command, identity)).await?.output;
            match sudo::refusal(&output).filter(|_| identity.is_some_and(|i| i.uses_sudo(&user))) {
                Some(detail) => Err(HostError::Sudo { command: name, detail }),
                None => Ok(output),
            }
        })
    }

    fn describe(&self) -> String {
        if self.wrapper.is_empty() {
            "this machine".to_owned()
        } else {
            "a host behind a wrapper command".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use dssflow_engine::activity::ActivityError;

    use super::*;

    fn login<I: IntoIterator<Item = S>, S: Into<String>>(argv: I) -> HostCommand {
        HostCommand::new(HostUser::Login, argv)
    }

    #[tokio::test]
    async fn carries_stdin_output_and_status() {
        let host = LocalHost::default();
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let output = host.exec(login(["cat"]).stdin(bytes.clone())).await.unwrap();
        assert_eq!((output.status, output.stdout.as_slice()), (0, bytes.as_slice()));
        let output = host.exec(login(["sh", "-c", "echo out; echo err >&2; exit 7"])).await.unwrap();
        assert_eq!((output.status, output.text(), output.complaint()), (7, "out".into(), "err".into()));
        // A command that never reads its stdin keeps its own status.
        let output = host.exec(login(["sh", "-c", "exit 3"]).stdin(bytes)).await.unwrap();
        assert_eq!(output.status, 3);
    }

    #[tokio::test]
    async fn arguments_arrive_as_they_are() {
        let host = LocalHost::default();
        for hostile in
            ["", " ", "'", "\"", "$(id)", "`id`", "; id", "a\nb", "-n", "\\", "*", "~", "é\u{202e}"]
        {
            let output = host.exec(login(["printf", "%s.", hostile])).await.unwrap();
            assert_eq!(&*output.stdout, format!("{hostile}.").as_bytes());
        }
    }

    #[tokio::test]
    async fn the_environment_is_a_short_list() {
        let output = LocalHost::default().exec(login(["env"]).env("DSS_X", "1")).await.unwrap();
        let text = output.text();
        assert!(text.contains("DSS_X=1"));
        assert!(text.lines().all(|l| {
            let name = l.split('=').next().unwrap_or_default();
            let own = ["PATH", "LC_ALL", "HOME", "USER", "LOGNAME", "TMPDIR", "DSS_X", "DSSFLOW_CHILD"];
            own.contains(&name) || ["PWD", "OLDPWD", "SHLVL", "_"].contains(&name)
        }));
    }

    fn alive(pid: &str) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !status.is_empty() && !status.contains(") Z ")
    }

    async fn child_of_a_started_command(file: &std::path::Path) -> String {
        for _ in 0..500 {
            if let Ok(pid) = std::fs::read_to_string(file)
                && pid.ends_with('\n')
            {
                return pid.trim().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the command did not start");
    }

    #[tokio::test]
    async fn children_end_when_the_future_is_dropped() {
        let file = std::env::temp_dir().join(format!("dssflow-guard-{}", std::process::id()));
        // A child that ignores TERM and a grandchild: both must go.
        let script = "trap '' TERM; (trap '' TERM; exec sleep 60) & echo $! > \"$1\"; wait; sleep 60";
        let host = LocalHost::default();
        let command = login(["sh", "-c", script, "sh", file.to_str().unwrap()]);
        let future = host.exec(command);
        let pid = tokio::select! {
            _ = future => panic!("it cannot end by itself"),
            pid = child_of_a_started_command(&file) => pid,
        };
        let started = Instant::now();
        while alive(&pid) {
            assert!(started.elapsed() < Duration::from_secs(3), "pid {pid} outlived its owner");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::fs::remove_file(file).unwrap();
    }

    #[tokio::test]
    async fn a_timeout_is_an_error_of_its_own() {
        let host = LocalHost::default();
        let error = host.exec(login(["sleep", "60"]).timeout(Duration::from_millis(100))).await.unwrap_err();
        assert!(matches!(error, HostError::Timeout { .. }));
    }

    #[tokio::test]
    async fn a_command_whose_run_was_lost_while_it_waited_does_not_start() {
        let host = LocalHost::default();
        let key = format!("fence-test.{}", std::process::id());
        let owner = host.exec(login(["id", "-u"])).await.unwrap().text();
        let held = std::path::PathBuf::from(format!("/tmp/dssflow-{owner}/{key}"));
        let file = std::env::temp_dir().join(format!("dssflow-fence-{}", std::process::id()));
        for lost in [true, false] {
            let mut command = login(["touch", file.to_str().unwrap()]);
            command.lock = Some(key.clone());
            let held = held.clone();
            command.fence = Some(std::sync::Arc::new(move || {
                assert!(std::fs::metadata(&held).unwrap().len() > 0, "it is asked when the lock is held");
                if lost { Err(ActivityError::lost_ownership("the lease has ended")) } else { Ok(()) }
            }));
            let outcome = host.exec(command).await;
            assert_eq!(matches!(outcome, Err(HostError::Fenced(_))), lost, "{outcome:?}");
            assert_eq!(file.exists(), !lost);
        }
        assert!(!held.exists(), "the lock was let go");
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn switching_users_keeps_the_argv_apart() {
        let root = Identity { uid: 0, name: "root".into() };
        let user = Identity { uid: 1000, name: "ec2-user".into() };
        assert!(root.switch(&HostUser::Root).is_empty());
        assert_eq!(user.switch(&HostUser::Root), ["sudo", "-n", "-H", "-u", "root", "--"]);
        assert_eq!(user.switch(&HostUser::Service("dss".into()))[4], "dss");
        assert!(user.switch(&HostUser::Service("ec2-user".into())).is_empty());
        assert_eq!(root.switch(&HostUser::Service("dss".into()))[0], "su");
    }
}
