//! Python environments with pinned packages, made once and kept in the user's cache: the sandbox's with the moto server,
//! and those of whoever else needs one.
//!
//! It is made beside its final place and renamed when complete, under a lock, so that a broken or interrupted
//! installation is never taken for a good one and two sandboxes never install at the same time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::error::SandboxError;
use crate::files;

/// What pip installs for the sandbox. The version is pinned because the overlay follows what this moto lacks.
pub(crate) const MOTO: &[&str] =
    &["moto[athena,cloudformation,ec2,ecr,eks,glue,iam,s3,secretsmanager,ssm,sts,server]==5.2.5"];
const OLDEST_PYTHON: &str = "3.9";

/// Reports one line of progress.
pub(crate) type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// The interpreter of an environment with these packages, each pinned as `name==1.2.3`. It is made if the user's cache has
/// none; `progress` is given a line for each thing it waits for.
///
/// # Errors
/// [`SandboxError`] with what is missing; [`SandboxError::help`] says how to mend it.
pub async fn python_with(packages: &[&str], progress: Progress<'_>) -> Result<PathBuf, SandboxError> {
    ensure(&default_place(packages), packages, progress).await
}

/// Where the environment with these packages is kept when the options do not say.
pub(crate) fn default_place(packages: &[&str]) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(std::env::temp_dir);
    let hash = hex::encode(Sha256::digest(packages.join(" ")));
    cache.join("dssflow").join(format!("venv-{}", &hash[..12]))
}

/// The interpreter of a complete environment, which is made if it is not there.
pub(crate) async fn ensure(
    place: &Path,
    packages: &[&str],
    progress: Progress<'_>,
) -> Result<PathBuf, SandboxError> {
    if let Some(python) = complete(place) {
        return Ok(python);
    }
    let parent = place.parent().unwrap_or(place).to_owned();
    files::private_dir(&parent)?;
    let _lock = lock(&place.with_extension("lock")).await?;
    if let Some(python) = complete(place) {
        return Ok(python);
    }
    check_python().await?;
    progress(&format!("making a Python environment with {} (once; it is cached)", names(packages)));
    let building = place.with_extension("building");
    files::remove(&building)?;
    let made =
        Command::new("python3").args(["-m", "venv"]).arg(&building).stdin(Stdio::null()).output().await;
    let made = made.map_err(|_| SandboxError::NoPython)?;
    if !made.status.success() {
        // Debian's venv says what is missing on stdout, others on stderr.
        let text = [made.stdout, made.stderr].concat();
        return Err(SandboxError::NoVenv { detail: last_line(&String::from_utf8_lossy(&text)) });
    }
    install(&building, packages, progress).await?;
    // Scripts name the building place in their first line; the interpreter and its modules do not, and only they are
    // used.
    files::remove(place)?;
    std::fs::rename(&building, place).map_err(SandboxError::io("could not move", &building))?;
    complete(place).ok_or_else(|| SandboxError::Packages {
        package: packages.join(" "),
        detail: "the environment is incomplete after the installation".to_owned(),
    })
}

fn complete(place: &Path) -> Option<PathBuf> {
    let python = place.join("bin").join("python3");
    (place.join("dssflow.complete").exists() && python.exists()).then_some(python)
}

/// Takes an exclusive lock, waiting for another process that installs.
pub(crate) async fn lock(path: &Path) -> Result<File, SandboxError> {
    let path = path.to_owned();
    let task = tokio::task::spawn_blocking(move || {
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(SandboxError::io("could not open", &path))?;
        file.lock().map_err(SandboxError::io("could not lock", &path))?;
        Ok(file)
    });
    task.await.expect("taking a lock does not panic")
}

async fn check_python() -> Result<(), SandboxError> {
    let output = Command::new("python3")
        .args(["-c", "import sys; print('%d.%d' % sys.version_info[:2]); import venv"])
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|_| SandboxError::NoPython)?;
    let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let number = |text: &str| -> (u32, u32) {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
    };
    if found.is_empty() {
        return Err(SandboxError::NoPython);
    }
    if number(&found) < number(OLDEST_PYTHON) {
        return Err(SandboxError::PythonTooOld { found, needed: OLDEST_PYTHON });
    }
    if !output.status.success() {
        return Err(SandboxError::NoVenv { detail: last_line(&String::from_utf8_lossy(&output.stderr)) });
    }
    Ok(())
}

async fn install(building: &Path, packages: &[&str], progress: Progress<'_>) -> Result<(), SandboxError> {
    let failed = |detail: String| SandboxError::Packages { package: packages.join(" "), detail };
    let mut pip = Command::new(building.join("bin").join("python3"))
        .args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"])
        .args(packages)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let errors = pip.stderr.take().expect("stderr was asked for");
    let errors = tokio::spawn(async move {
        let mut last = Vec::new();
        let mut lines = BufReader::new(errors).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line.contains("ERROR") {
                last.push(line);
            }
        }
        last
    });
    let mut lines = BufReader::new(pip.stdout.take().expect("stdout was asked for")).lines();
    let mut fetched = 0_u32;
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(name) =
            line.trim().strip_prefix("Downloading ").or(line.trim().strip_prefix("Using cached "))
        {
            fetched += 1;
            progress(&format!("pip: package {fetched}: {}", name.split(' ').next().unwrap_or(name)));
        } else if line.starts_with("Installing collected packages") {
            progress(&format!("pip: installing {fetched} packages"));
        }
    }
    let status = pip.wait().await.map_err(|error| failed(error.to_string()))?;
    let errors = errors.await.unwrap_or_default();
    if !status.success() {
        return Err(failed(errors.first().map_or_else(|| status.to_string(), |line| strip(line))));
    }
    files::write_private(&building.join("dssflow.complete"), packages.join(" ").as_bytes())
}

/// The packages without versions and extras, for people.
fn names(packages: &[&str]) -> String {
    let bare = |package: &&str| package.split(['[', '=', '<', '>']).next().unwrap_or_default().to_owned();
    packages.iter().map(bare).collect::<Vec<_>>().join(" and ")
}

/// pip's error without its prefix.
fn strip(line: &str) -> String {
    line.trim_start_matches("ERROR: ").to_owned()
}

fn last_line(text: &str) -> String {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no output").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_packages_are_another_environment() {
        assert_ne!(default_place(MOTO), default_place(&["ministack==1.5.33"]));
        assert_eq!(names(&["moto[ec2,s3]==5.2.5", "duckdb==2.0.1"]), "moto and duckdb");
    }
}
