//! Runs that schedules start: each in the world of its site, looked after like any other.

use std::sync::Arc;

use dssflow_engine::run::view::RunView;
use dssflow_engine::runtime::{Launch, LaunchError, Launcher, ScheduleDriver};
use dssflow_engine::schedule::{Firing, ScheduleAction};
use dssflow_engine::time::BoxFuture;
use dssflow_engine::{Engine, StartRun};

use super::{Opened, Service};
use crate::commands::run::{self, sandbox_behind};
use crate::error::{Code, CommandError, CommandResult};
use crate::spec::About;
use crate::world;
use crate::{describe, drive, launch, takeovers};

/// Starts the runs of schedules as the daemon does.
struct Firings(Arc<Service>);

impl Service {
    /// Fires what is due from now on, until the driver is stopped.
    pub(crate) fn fire(self: &Arc<Self>) -> ScheduleDriver {
        self.engine.schedules().with_launcher(Arc::new(Firings(Arc::clone(self)))).drive()
    }

    async fn launch(self: &Arc<Self>, firing: &Firing) -> CommandResult<Launch> {
        self.must_go_on()?;
        let (mut start, spec) = launch::start_of_action(&firing.action, None)?;
        let about = About::from(&spec);
        let sandbox = sandbox_behind(&self.settings, about).await?;
        let label = sandbox.as_ref().map(|sandbox| sandbox.id.clone());
        self.must_be_there(firing, label.as_ref())?;
        if let Some(down) = takeovers::tidy(&self.store, about.name(), label.as_deref()).await? {
            return Err(takeovers::in_the_way(about.name(), &down, &self.settings.command()));
        }
        if let Some(id) = label {
            start.labels.insert(world::SANDBOX_LABEL.to_owned(), id);
        }
        let world = world::connect_about(&self.pool, about, sandbox).await?;
        if about.account().is_some() {
            world.identify(about).await?;
        }
        // As with orders: of two runs for one site the second sees the first.
        let begins = Arc::clone(&self.starting).lock_owned().await;
        self.must_be_free(firing, &start, world.sandbox.as_ref().map(|sandbox| sandbox.id.as_str())).await?;
        let engine = drive::equip(&self.engine, &world);
        let (service, opened) = (Arc::clone(self), Opened { spec, world, engine: engine.clone() });
        Ok(Launch::new(start, engine).then(move |handle| {
            service.keep(opened, handle);
            drop(begins);
        }))
    }

    /// Refuses what was made in a sandbox that has ended.
    fn must_be_there(&self, firing: &Firing, label: Option<&String>) -> CommandResult<()> {
        let (schedule, action) = (&firing.schedule, &firing.action);
        let Some(of) = action.labels.get(world::SANDBOX_LABEL).filter(|of| Some(*of) != label) else {
            return Ok(());
        };
        let command = self.settings.command();
        let update =
            format!("{command} schedules update {schedule} --workflow {} --sandbox", action.workflow);
        Err(CommandError::new(
            Code::SandboxGone,
            format!("schedule {schedule} belongs to sandbox {of}, which is gone with everything in it"),
        )
        .hint(format!("give it the one there is: {update}")))
    }

    /// Refuses while a run that others began for the same site wants something. What becomes of the schedule's own runs is
    /// for its overlap policy.
    async fn must_be_free(
        &self,
        firing: &Firing,
        start: &StartRun,
        sandbox: Option<&str>,
    ) -> CommandResult<()> {
        let (workflow, site) = (start.workflow.as_str(), start.site.as_str());
        if run::leaves_nothing(workflow)? {
            return Ok(());
        }
        let others = run::all_unfinished(&self.engine, workflow, site, sandbox).await?;
        let is_own = |view: &RunView| view.scheduled.as_ref().is_some_and(|s| s.schedule == firing.schedule);
        let Some(other) = others.into_iter().find(|view| !is_own(view)) else { return Ok(()) };
        let command = self.settings.command();
        Err(CommandError::new(Code::RunInTheWay, format!("run {} of site {site} is not finished", other.run))
            .why(format!("it is {}", describe::words(other.status.as_str())))
            .hint(format!("finish it: {command} resume {}", other.run))
            .hint(format!("or take it back: {command} rollback {}", other.run)))
    }
}

impl Launcher for Firings {
    fn check(&self, engine: &Engine, action: &ScheduleAction) -> Result<(), LaunchError> {
        launch::Checker.check(engine, action)
    }

    fn launch<'a>(&'a self, _: &'a Engine, firing: &'a Firing) -> BoxFuture<'a, Result<Launch, LaunchError>> {
        Box::pin(async move {
            // What it writes before the run is started, the books of a teardown, is written by the next one as well.
            tokio::select! {
                () = self.0.stopping().cancelled() => Err(LaunchError::Later("the daemon stops".to_owned())),
                launched = Box::pin(self.0.launch(firing)) => launched.map_err(|error| refusal(&error)),
            }
        })
    }
}

/// Whether a firing waits for what is in its way.
fn refusal(error: &CommandError) -> LaunchError {
    let text = super::recovery::text_of(error);
    match error.code {
        Code::Credentials
        | Code::WrongAccount
        | Code::HostUnusable
        | Code::Preflight
        | Code::RunInTheWay
        | Code::SandboxFailed
        | Code::StoreFailed
        | Code::Stopping => LaunchError::Later(text),
        _ => LaunchError::Never(text),
    }
}
