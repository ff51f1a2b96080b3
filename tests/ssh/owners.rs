//! Owners that are killed by a real SIGKILL while a child of theirs runs: nothing of it is left two seconds later, and the
//! next copy of the step runs alone. The owner is this test's own program, started again for one command.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dssflow_activities::host::{Host, HostCommand, HostUser, LocalHost, SshHost, SshTarget};
use serde::{Deserialize, Serialize};

use crate::sshd::{Sshd, marked, with_argument, within};

const SPEC: &str = "DSSFLOW_TEST_OWNER_OF";
/// All of it must be gone within this time.
const GONE_WITHIN: Duration = Duration::from_secs(2);
const ROUNDS: u32 = 4;

/// What an owner runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// Over ssh to the host `box` of this configuration; on this machine without one.
    pub(crate) config: Option<PathBuf>,
    pub(crate) lock: Option<String>,
    pub(crate) script: String,
    /// A variable of the command, to find its processes by.
    pub(crate) mark: (String, String),
}

/// A process that owns a command; killed when dropped.
pub(crate) struct Owner(Child);

impl Owner {
    pub(crate) fn start(spec: &Spec) -> Self {
        Self::start_with(spec, &[])
    }

    pub(crate) fn start_with(spec: &Spec, env: &[(&str, &str)]) -> Self {
        let child = Command::new(std::env::current_exe().expect("a test knows its path"))
            .args(["--exact", "owners::an_owner", "--nocapture"])
            .env(SPEC, serde_json::to_string(spec).expect("plain data"))
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this program starts again");
        Self(child)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("a child of ours");
        self.0.wait().expect("a child of ours");
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The owner itself, when this program was started as one; nothing otherwise.
#[tokio::test]
async fn an_owner() {
    let Ok(spec) = std::env::var(SPEC) else { return };
    let spec: Spec = serde_json::from_str(&spec).expect("written by a test");
    let (name, value) = &spec.mark;
    let mut command = HostCommand::new(HostUser::Login, ["sh", "-c", &spec.script])
        .env(name, value)
        .timeout(Duration::from_hours(1));
    command.lock.clone_from(&spec.lock);
    match spec.config {
        None => drop(LocalHost::default().exec(command).await),
        Some(config) => {
            let target = SshTarget { host: "box".into(), config_file: Some(config), ..SshTarget::default() };
            drop(SshHost::new(target).expect("a good target").exec(command).await);
        }
    }
}

fn killed(name: &str, config: Option<&Path>, host: &dyn Host) {
    let part = config.map(|path| path.display().to_string());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut worst = Duration::ZERO;
    for round in 0..ROUNDS {
        let value = format!("{name}.{round}.{}", std::process::id());
        // Children and grandchildren, of which half ignore TERM.
        let script = "sleep 600 & (trap '' TERM; sleep 601 & sleep 602) & sleep 603";
        let spec = Spec {
            config: config.map(Path::to_path_buf),
            lock: Some(format!("test-killed.{value}")),
            script: script.to_owned(),
            mark: ("DSSFLOW_TEST_KILLED".to_owned(), value.clone()),
        };
        let mut owner = Owner::start(&spec);
        let running = || marked("DSSFLOW_TEST_KILLED", &value).len();
        within(Duration::from_secs(20), "the command runs", || running() >= 5);
        owner.kill();
        // The next copy of the step starts at once, and finds itself alone.
        let mut next = HostCommand::new(
            HostUser::Login,
            ["sh", "-c", "grep -lszx \"DSSFLOW_TEST_KILLED=$1\" /proc/[0-9]*/environ | wc -l", "sh", &value],
        );
        next.lock.clone_from(&spec.lock);
        let output = runtime.block_on(host.exec(next)).expect("it waits for the first one");
        assert_eq!(output.text(), "0", "two copies at once");
        assert_eq!(running(), 0);
        let mut owner = Owner::start(&spec);
        within(Duration::from_secs(20), "the command runs", || running() >= 5);
        owner.kill();
        let took = within(GONE_WITHIN, "its children are gone", || running() == 0);
        worst = worst.max(took);
        if let Some(part) = &part {
            worst = worst.max(
                took + within(GONE_WITHIN.saturating_sub(took), "its ssh is gone", || {
                    with_argument(part).is_empty()
                }),
            );
        }
        // Who gets the lock next clears away what the killed one left of it.
        let mut last = HostCommand::new(HostUser::Login, ["true"]);
        last.lock.clone_from(&spec.lock);
        assert!(runtime.block_on(host.exec(last)).expect("nobody holds it").ok());
    }
    say!("owner killed: host={name} cases={} violations=0 slowest_ms={}", 2 * ROUNDS, worst.as_millis());
}

#[test]
fn children_of_a_killed_owner_are_gone_and_the_next_copy_is_alone() {
    killed("local", None, &LocalHost::default());
}

#[test]
fn so_over_ssh() {
    let Some(sshd) = Sshd::start() else { return };
    // Another file than the owner's, so that its ssh can be told apart.
    let config = sshd.config("owners-config", sshd.port(), "");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let host = {
        let _inside = runtime.enter();
        sshd.host()
    };
    killed("ssh", Some(&config), &host);
    drop(host);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlives_its_guard_is_ended_by_the_next_copy() {
    let value = format!("{}", std::process::id());
    let host = LocalHost::default();
    let lock = format!("test-unguarded.{value}");
    let mut first = HostCommand::new(HostUser::Login, ["sh", "-c", "sleep 600 & sleep 601"])
        .env("DSSFLOW_TEST_UNGUARDED", &value);
    first.lock = Some(lock.clone());
    let running = tokio::spawn(async move { LocalHost::default().exec(first).await });
    let left = || marked("DSSFLOW_TEST_UNGUARDED", &value);
    let sleeping = || with_argument("sleep 60").len() >= 2 && left().len() >= 3;
    tokio::task::block_in_place(|| within(Duration::from_secs(10), "the command runs", sleeping));
    // As when the system kills what has no memory: all guards at once, and nothing else.
    let guards: Vec<u32> = left().into_iter().filter(|pid| with_argument("dssflow-").contains(pid)).collect();
    assert!(!guards.is_empty());
    let words: Vec<String> = guards.iter().map(u32::to_string).collect();
    let killed = Command::new("kill").arg("-9").args(&words).status().expect("kill");
    assert!(killed.success());
    assert!(!left().is_empty(), "nobody ends them by himself");
    let mut next = HostCommand::new(HostUser::Login, ["echo", "alone"]);
    next.lock = Some(lock);
    assert_eq!(host.exec(next).await.expect("it ends them").text(), "alone");
    assert!(left().is_empty(), "{:?}", left());
    drop(running.await);
}
