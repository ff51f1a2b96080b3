//! The life of a world: start, reuse, outliving its starter, the end, and being found or not.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dssflow_sandbox::{SandboxError, World, down, find, status, up};
use support::{EXE, Lab, client, fresh_dir, options};

/// Pids of the living, not zombie, members of a process group.
fn members(group: u32) -> Vec<u32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
            let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            fields[0] != "Z" && fields[2] == group.to_string()
        })
        .collect()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn starts_is_reused_and_ends_with_its_group() {
    let lab = Lab::new().await;
    let world = lab.world.clone();
    let again = up(&options(&world.dir), &|_| {}).await.unwrap();
    assert_eq!((again.id.as_str(), again.daemon_pid), (world.id.as_str(), world.daemon_pid));
    assert_ne!(world.daemon_pid, std::process::id());
    assert_eq!(members(world.daemon_pid).len(), 2, "the daemon and moto, in a group of their own");
    for (path, mode) in
        [(world.dir.clone(), 0o700), (world.dir.join("world.json"), 0o600), (world.site_yaml.clone(), 0o600)]
    {
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            mode,
            "{}",
            path.display()
        );
    }
    assert!(!format!("{world:?}").contains(&world.admin_token));
    let answer = client().get(format!("{}/ping", world.admin_url)).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    // DSS does not listen before it is started, and its port is kept for it.
    assert!(client().get(&world.dss_url).send().await.unwrap_err().is_connect());
    assert!(std::net::TcpListener::bind(("127.0.0.1", world.dss_port)).is_err());
    assert_eq!(status(&world.dir).await.unwrap().calls, 0, "making the world counts as nobody's call");
    lab.end().await;
    assert!(members(world.daemon_pid).is_empty());
    assert!(find(&world.dir).await.unwrap().is_none());
    assert!(!down(&world.dir).await.unwrap());
    assert!(status(&world.dir).await.unwrap().world.is_none());
}

#[tokio::test]
async fn outlives_a_killed_starter() {
    let dir = fresh_dir();
    // The test binary stands for the command: it starts a world in a child that is then killed.
    let mut starter = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "starter", "--nocapture"])
        .env("DSSFLOW_TEST_STARTER", &dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("a world", || dir.join("world.json").exists()).await;
    kill(starter.id());
    starter.wait().unwrap();
    let world = find(&dir).await.unwrap().unwrap();
    assert!(client().get(format!("{}/moto-api/data.json", world.moto_endpoint)).send().await.is_ok());
    assert!(down(&dir).await.unwrap());
    std::fs::remove_dir_all(&dir).unwrap();
}

/// What the killed child of [`outlives_a_killed_starter`] runs; on its own it does nothing.
#[tokio::test]
async fn starter() {
    let Some(dir) = std::env::var_os("DSSFLOW_TEST_STARTER") else { return };
    up(&options(Path::new(&dir)), &|_| {}).await.unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_world_is_not_found_leaves_nothing_and_can_be_made_anew() {
    let lab = Lab::new().await;
    let World { dir, daemon_pid, id, .. } = lab.world.clone();
    kill(daemon_pid);
    until("moto ends with the daemon", || members(daemon_pid).is_empty()).await;
    assert!(find(&dir).await.unwrap().is_none());
    let world = up(&options(&dir), &|_| {}).await.unwrap();
    assert_ne!(world.id, id);
    lab.end().await;
}

#[tokio::test]
async fn ends_when_idle_unless_held() {
    let dir = fresh_dir();
    let mut idle = options(&dir);
    idle.idle = Duration::from_secs(1);
    let world = up(&idle, &|_| {}).await.unwrap();
    dssflow_sandbox::hold(&world, "run-1").await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(find(&dir).await.unwrap().is_some(), "a run holds it");
    dssflow_sandbox::release(&world, "run-1").await.unwrap();
    until("it ends by itself", || members(world.daemon_pid).is_empty()).await;
    assert!(find(&dir).await.unwrap().is_none());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn says_what_is_missing() {
    let dir = fresh_dir();
    // No package index: nothing listens on this port.
    let cache = dir.join("cache/venv");
    std::fs::create_dir_all(&dir).unwrap();
    let mut starter = Command::new(std::env::current_exe().unwrap());
    starter
        .args(["--exact", "broken_starter", "--nocapture"])
        .env("DSSFLOW_TEST_BROKEN", &cache)
        .env("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        .env("PIP_RETRIES", "0")
        .env("PIP_FIND_LINKS", "")
        .env("PIP_CONFIG_FILE", "/dev/null");
    let output = starter.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("Packages"), "{text}");
    assert!(!cache.exists(), "a failed installation is never taken for a good one");
    let output = starter.env("PATH", dir.as_os_str()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("NoPython"), "{text}");
    std::fs::remove_dir_all(&dir).unwrap();
}

/// What the child of [`says_what_is_missing`] runs; on its own it does nothing.
#[tokio::test]
async fn broken_starter() {
    let Some(cache) = std::env::var_os("DSSFLOW_TEST_BROKEN") else { return };
    let dir = fresh_dir();
    let mut options = options(&dir);
    options.venv_cache = Some(cache.into());
    let error = up(&options, &|_| {}).await.unwrap_err();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(!error.help().is_empty());
    // The parent reads it.
    assert!(!matches!(error, SandboxError::Packages { .. } | SandboxError::NoPython), "{error:?}");
}

#[test]
fn unknown_words_are_refused() {
    for args in [&["__sandbox"][..], &["__sandbox", "daemon"], &["__sandbox", "daemon", "--dir"], &["other"]]
    {
        assert_eq!(Command::new(EXE).args(args).status().unwrap().code(), Some(64), "{args:?}");
    }
}
