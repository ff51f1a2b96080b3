//! Starts a world, or finds the one that is there.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::control;
use crate::error::SandboxError;
use crate::files;
use crate::options::SandboxOptions;
use crate::process::{self, ProcessId};
use crate::venv::{self, Progress};
use crate::world::{Layout, World};

/// Starting takes two or three seconds; a busy machine is given more.
const PATIENCE: Duration = Duration::from_secs(90);

/// Starts the world of `options.dir`, or returns the living one as it is.
///
/// The first time it makes the Python environment, which takes a minute and a package index; `progress` is given a line
/// for each thing it waits for. The world goes on when the calling process ends.
///
/// # Errors
/// [`SandboxError`] with what is missing; [`SandboxError::help`] says how to mend it.
pub async fn up(options: &SandboxOptions, progress: Progress<'_>) -> Result<World, SandboxError> {
    let world = start(options, progress).await?;
    if let Some(behaviour) = &options.dss {
        control::behave(&world, behaviour).await?;
    }
    Ok(world)
}

async fn start(options: &SandboxOptions, progress: Progress<'_>) -> Result<World, SandboxError> {
    files::private_dir(&options.dir)?;
    let dir = options.dir.canonicalize().map_err(SandboxError::io("could not resolve", &options.dir))?;
    let layout = Layout::new(&dir);
    let _lock = venv::lock(&layout.lock()).await?;
    if let Some(world) = control::find(&dir).await? {
        return Ok(world);
    }
    sweep(&layout).await?;
    let place = options.venv_cache.clone().unwrap_or_else(|| venv::default_place(venv::MOTO));
    let python = venv::ensure(&place, venv::MOTO, progress).await?;
    progress("starting the sandbox");
    files::private_dir(&layout.log())?;
    let log_path = layout.log().join("daemon.log");
    files::remove(&layout.log().join("daemon.error"))?;
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path);
    let log = log.map_err(SandboxError::io("could not write", &log_path))?;
    let errors = log.try_clone().map_err(SandboxError::io("could not write", &log_path))?;
    let exe = options.exe.canonicalize().map_err(SandboxError::io("could not find", &options.exe))?;
    let python = std::path::absolute(&python).map_err(SandboxError::io("could not resolve", &python))?;
    let mut daemon = Command::new(exe)
        .args(["__sandbox", "daemon", "--dir"])
        .arg(&dir)
        .arg("--python")
        .arg(python)
        .args(["--latency", &options.latency.to_string(), "--idle-s", &options.idle.as_secs().to_string()])
        .current_dir(&dir)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(SandboxError::io("could not start", &options.exe))?;
    let failed = |detail: String| SandboxError::Start { detail, log: log_path.clone() };
    let step = Duration::from_millis(25);
    let mut waited = Duration::ZERO;
    while waited < PATIENCE {
        if let Some(world) = control::find(&dir).await? {
            return Ok(world);
        }
        if let Ok(Some(status)) = daemon.try_wait() {
            let reason = files::tail(&layout.log().join("daemon.error"), 5);
            let reason = if reason.is_empty() { files::tail(&log_path, 5) } else { reason };
            sweep(&layout).await?;
            let unsaid = || files::unwritable(&layout.log()).unwrap_or_else(|| status.to_string());
            return Err(failed(if reason.is_empty() { unsaid() } else { reason }));
        }
        tokio::time::sleep(step).await;
        waited += step;
    }
    sweep(&layout).await?;
    Err(failed(format!("it was not ready within {} s", PATIENCE.as_secs())))
}

/// Ends what is left of an earlier world and removes its papers. True if something was ended.
pub(crate) async fn sweep(layout: &Layout) -> Result<bool, SandboxError> {
    let mut ended = false;
    for file in [layout.daemon(), layout.moto()] {
        // A paper that cannot be read names no process that could be ended safely.
        if let Ok(Some(id)) = files::read_json::<ProcessId>(&file) {
            ended |= process::end_group(&id, Duration::from_secs(5)).await;
        }
        files::remove(&file)?;
    }
    files::remove(&layout.world())?;
    Ok(ended)
}
