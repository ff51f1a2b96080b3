//! How a sandbox is to be started.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::dss::behaviour::Behaviour;

/// What [`crate::up`] needs to know.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Where the world keeps its files: `<store>/sandbox`.
    pub dir: PathBuf,
    /// The program that serves `__sandbox ...`; the command passes its own path.
    pub exe: PathBuf,
    /// Scale of simulated durations: 1.0 shows a whole bootstrap in well under a minute, 0.0 is for tests.
    pub latency: f64,
    /// The world ends itself after so long without a request, unless a run holds it.
    pub idle: Duration,
    /// Where the Python environment is kept; `None` is `$XDG_CACHE_HOME/dssflow/venv-<hash of pins>`.
    pub venv_cache: Option<PathBuf>,
    /// How the fake DSS behaves; `None` leaves it as it is.
    pub dss: Option<Behaviour>,
}

impl SandboxOptions {
    /// Options at demonstration speed with the usual two idle hours.
    pub fn new(dir: impl AsRef<Path>, exe: impl AsRef<Path>) -> Self {
        Self {
            dir: dir.as_ref().to_owned(),
            exe: exe.as_ref().to_owned(),
            latency: 1.0,
            idle: Duration::from_hours(2),
            venv_cache: None,
            dss: None,
        }
    }
}
