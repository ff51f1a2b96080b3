//! What people want of a run that is there and that takes its world: to go on, to be taken back, to be looked at.

use std::sync::Arc;

use dssflow_activities::aws::sweep::Leftover;
use dssflow_engine::event::{CancelMode, Request};
use dssflow_engine::id::{RunId, StepName};
use dssflow_engine::run::Verb;
use dssflow_engine::runtime::{Inspected, LookOptions};
use dssflow_engine::{EngineError, RunHandle};

use super::{Opened, Service};
use crate::access::Access;
use crate::commands::again;
use crate::commands::resources;
use crate::control::{Driven, Fork, Resume};
use crate::error::CommandResult;

impl Service {
    /// Drives a run on. One that is being driven already is left alone.
    ///
    /// # Errors
    /// When its world is not there or somebody else's, or the run cannot go on.
    pub(crate) async fn resume(self: &Arc<Self>, run: &RunId, wish: Resume) -> CommandResult<Driven> {
        self.must_go_on()?;
        let view = self.engine.view(run).await?;
        let already = Driven { run: run.clone(), seq: view.seq, already: true };
        if self.engine.handle(run).is_some() {
            return Ok(already);
        }
        let opened = self.open_to_drive(&view).await?;
        let request = Request { by: wish.by, reason: wish.reason };
        let driven = if wish.upgrade {
            opened.engine.upgrade(run, request).await
        } else {
            opened.engine.resume(run, request).await
        };
        match driven {
            Ok(handle) => Ok(self.driven(opened, handle, view.seq)),
            Err(EngineError::Live(_)) => Ok(already),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes back what a run made that nobody drives.
    ///
    /// # Errors
    /// As [`Service::resume`].
    pub(crate) async fn rollback(
        self: &Arc<Self>,
        run: &RunId,
        to: Option<StepName>,
        keep: Vec<StepName>,
        request: Request,
    ) -> CommandResult<Driven> {
        self.must_go_on()?;
        let view = self.engine.view(run).await?;
        let opened = self.open_to_drive(&view).await?;
        let handle = opened.engine.rollback_to(run, to, keep, request).await?;
        Ok(self.driven(opened, handle, view.seq))
    }

    /// Ends a run that nobody drives, and takes back what it made.
    ///
    /// # Errors
    /// As [`Service::resume`].
    pub(crate) async fn cancel_back(
        self: &Arc<Self>,
        run: &RunId,
        request: Request,
    ) -> CommandResult<Driven> {
        self.must_go_on()?;
        let view = self.engine.view(run).await?;
        let opened = self.open_to_drive(&view).await?;
        let handle = opened.engine.cancel_idle(run, CancelMode::Rollback, request).await?;
        Ok(self.driven(opened, handle, view.seq))
    }

    /// Does steps of a run again that nobody drives, and drives it on.
    ///
    /// # Errors
    /// As [`Service::resume`]; and when the run's state does not allow it.
    pub(crate) async fn again(
        self: &Arc<Self>,
        run: &RunId,
        verb: Verb,
        request: Request,
    ) -> CommandResult<Driven> {
        self.must_go_on()?;
        let view = self.engine.view(run).await?;
        let opened = self.open_to_drive(&view).await?;
        let handle = again::begin(&opened.engine, &view, verb, request).await?;
        Ok(self.driven(opened, handle, view.seq))
    }

    /// Starts a run that takes over what another did before a step.
    ///
    /// # Errors
    /// As [`Service::resume`]; and when the step was not reached.
    pub(crate) async fn fork(self: &Arc<Self>, run: &RunId, fork: Fork) -> CommandResult<Driven> {
        self.must_go_on()?;
        let view = self.engine.view(run).await?;
        let opened = self.open_to_drive(&view).await?;
        let request = Request { by: fork.by, reason: fork.reason };
        let handle = opened.engine.fork(run, &fork.from, fork.id, request).await?;
        Ok(self.driven(opened, handle, 0))
    }

    /// Compares what a run left with the world. Changes nothing.
    ///
    /// # Errors
    /// When its world is not there or somebody else's.
    pub(crate) async fn inspect(&self, run: &RunId) -> CommandResult<Vec<Inspected>> {
        let view = self.engine.view(run).await?;
        let opened = self.open(&view).await?;
        Ok(Box::pin(opened.engine.inspect(run, &LookOptions::default())).await?)
    }

    /// What carries the marks of the run's site and no run knows of. Changes nothing.
    ///
    /// # Errors
    /// As [`Service::inspect`].
    pub(crate) async fn orphans(&self, run: &RunId) -> CommandResult<Vec<Leftover>> {
        let view = self.engine.view(run).await?;
        let opened = self.open(&view).await?;
        let access = Access::Store(Arc::clone(&self.store));
        Box::pin(resources::look_for_orphans(&access, &opened.world, &view)).await
    }

    fn driven(self: &Arc<Self>, opened: Opened, handle: RunHandle, seq: u64) -> Driven {
        let run = handle.id().clone();
        self.keep(opened, handle);
        Driven { run, seq, already: false }
    }
}
