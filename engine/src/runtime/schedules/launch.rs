//! What the firing of a schedule starts.

use crate::runtime::{Engine, EngineError, RunHandle, StartRun};
use crate::schedule::{Firing, ScheduleAction};
use crate::time::BoxFuture;

/// Turns a firing into a run. The engine has one ([`EngineBuilder::launcher`](crate::runtime::EngineBuilder::launcher)),
/// and [`Schedules::with_launcher`](crate::runtime::Schedules::with_launcher) takes another.
pub trait Launcher: Send + Sync + 'static {
    /// Looks whether runs of this could be started at all, without looking at the world: when a schedule is made or
    /// changed.
    ///
    /// # Errors
    /// When they could not.
    fn check(&self, engine: &Engine, action: &ScheduleAction) -> Result<(), LaunchError>;

    /// Makes the run of a firing. Its id, its label `schedule` and who asks are set by the schedule afterwards.
    ///
    /// # Errors
    /// [`LaunchError::Later`] when it may work in a moment; the firing waits then, as long as the catch-up window is.
    fn launch<'a>(
        &'a self,
        engine: &'a Engine,
        firing: &'a Firing,
    ) -> BoxFuture<'a, Result<Launch, LaunchError>>;
}

/// A run to start, and where.
pub struct Launch {
    /// The run.
    pub start: StartRun,
    /// The engine to start it on: the one that the launcher was given, or one made of it with
    /// [`Engine::with_resources`].
    pub engine: Engine,
    started: Option<Box<dyn FnOnce(RunHandle) + Send>>,
}

impl Launch {
    /// This run, on this engine.
    pub fn new(start: StartRun, engine: Engine) -> Self {
        Self { start, engine, started: None }
    }

    /// Has this called with the run once it is there. After a crash it may not have been: whoever looks after runs looks
    /// for those of before when it starts.
    #[must_use]
    pub fn then(mut self, started: impl FnOnce(RunHandle) + Send + 'static) -> Self {
        self.started = Some(Box::new(started));
        self
    }

    pub(super) fn take_started(&mut self) -> Box<dyn FnOnce(RunHandle) + Send> {
        self.started.take().unwrap_or_else(|| Box::new(drop))
    }
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch").field("start", &self.start).finish_non_exhaustive()
    }
}

/// Why a firing starts no run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// It never will, as things are.
    #[error("{0}")]
    Never(String),
    /// It may in a moment: something outside does not answer.
    #[error("{0}")]
    Later(String),
}

/// Starts runs of the workflows that the engine knows, with the action's input.
#[derive(Debug, Clone, Copy, Default)]
pub struct RegisteredWorkflows;

impl RegisteredWorkflows {
    fn start(engine: &Engine, action: &ScheduleAction) -> Result<StartRun, EngineError> {
        let mut start = engine.start_of(&action.workflow, action.input.clone())?;
        start.site.clone_from(&action.site);
        start.labels.clone_from(&action.labels);
        if let Some(options) = &action.options {
            start.options = options.clone();
        }
        Ok(start)
    }
}

impl Launcher for RegisteredWorkflows {
    fn check(&self, engine: &Engine, action: &ScheduleAction) -> Result<(), LaunchError> {
        Self::start(engine, action).map(drop).map_err(|error| LaunchError::Never(error.to_string()))
    }

    fn launch<'a>(
        &'a self,
        engine: &'a Engine,
        firing: &'a Firing,
    ) -> BoxFuture<'a, Result<Launch, LaunchError>> {
        Box::pin(async move {
            let start = Self::start(engine, &firing.action);
            let start = start.map_err(|error| LaunchError::Never(error.to_string()))?;
            Ok(Launch::new(start, engine.clone()))
        })
    }
}
