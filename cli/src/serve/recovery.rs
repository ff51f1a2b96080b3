//! Runs that were under way when the last owner of the store ended: driven on, each in its own world.
//!
//! One that cannot be driven holds up nobody. It is parked with the reason, and tried again as long as the reason may
//! pass: the network is not there yet, nobody has logged in.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use dssflow_engine::EngineError;
use dssflow_engine::event::{PauseKind, Request};
use dssflow_engine::id::RunId;
use dssflow_engine::run::RunStatus;
use dssflow_engine::run::view::RunView;
use dssflow_engine::runtime::Recovery;
use dssflow_engine::store::{ListQuery, MAX_PAGE, RunSummary};
use futures::{StreamExt as _, stream};

use super::{ACTOR, STOPS, Service, Why};
use crate::error::{Code, CommandError, CommandResult};
use crate::ui::one_line;

/// How many runs are opened at once.
const AT_ONCE: usize = 128;
/// How long it is waited before parked runs are tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// How far it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recovered {
    /// Whether it is known how many there are.
    pub(super) listed: bool,
    /// How many runs were under way.
    pub(super) of: usize,
    /// How many of them were looked at.
    pub(super) done: usize,
    /// How long it took, in milliseconds; 0 until all were looked at.
    pub(super) took_ms: u64,
}

/// What a run that the daemon paused when it stopped is paused with.
fn stopped_message() -> String {
    format!("paused by {ACTOR}: {STOPS}")
}

/// Whether the daemon paused the run when it stopped.
pub(super) fn was_stopped(view: &RunView) -> bool {
    view.paused.as_ref().is_some_and(|p| p.kind == PauseKind::Requested && p.message == stopped_message())
}

/// Who goes on with it, and why.
pub(super) fn request() -> Request {
    Request { by: ACTOR.to_owned(), reason: "it runs again".to_owned() }
}

impl Service {
    fn note_recovery(&self, change: impl FnOnce(&mut Recovered)) {
        change(&mut self.recovered.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Goes on with every run that was under way, and with those that the daemon paused when it stopped.
    ///
    /// # Errors
    /// When the runs cannot be listed.
    pub(crate) async fn recover(self: &Arc<Self>) -> CommandResult<()> {
        let begin = Instant::now();
        let runs = self.under_way().await?;
        self.note_recovery(|r| (r.listed, r.of) = (true, runs.len()));
        stream::iter(runs)
            .for_each_concurrent(AT_ONCE, async |run| {
                self.try_one(&run).await;
                self.note_recovery(|r| r.done += 1);
            })
            .await;
        let took_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.note_recovery(|r| r.took_ms = took_ms);
        let (driven, parked) = (self.engine.live_runs().len(), self.parked().len());
        tracing::info!(driven, parked, took_ms, "runs of before are taken up");
        Ok(())
    }

    /// Tries parked runs again, for as long as the daemon goes on.
    pub(crate) async fn unpark(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = self.stopping.cancelled() => return,
            }
            let passing: Vec<RunId> =
                self.parked().iter().filter(|(_, why)| why.passing).map(|(run, _)| run.clone()).collect();
            for run in passing {
                self.try_one(&run).await;
            }
        }
    }

    async fn under_way(&self) -> CommandResult<Vec<RunId>> {
        let mut found = Vec::new();
        let mut cursor = None;
        loop {
            let query = ListQuery {
                statuses: vec![
                    RunStatus::Pending,
                    RunStatus::Running,
                    RunStatus::Waiting,
                    RunStatus::RollingBack,
                    RunStatus::Paused,
                ],
                limit: MAX_PAGE,
                cursor,
                ..ListQuery::default()
            };
            let page = self.engine.list(query).await?;
            found.extend(page.runs.into_iter().filter(may_go_on).map(|run| run.run));
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(found);
            }
        }
    }

    async fn try_one(self: &Arc<Self>, run: &RunId) {
        if self.stopping.is_cancelled() {
            return;
        }
        let error = match Box::pin(self.take_up(run)).await {
            Ok(()) => {
                self.parked().remove(run);
                return;
            }
            Err(error) => error,
        };
        let why = Why { text: text_of(&error), passing: may_pass(error.code) };
        let mut parked = self.parked();
        if parked.get(run).is_none_or(|before| before.text != why.text) {
            tracing::warn!(%run, again = why.passing, "the run is not driven on: {}", why.text);
        }
        parked.insert(run.clone(), why);
    }

    async fn take_up(self: &Arc<Self>, run: &RunId) -> CommandResult<()> {
        let view = self.engine.view(run).await?;
        let stopped = was_stopped(&view);
        if view.status.is_end() || view.status == RunStatus::Paused && !stopped {
            return Ok(());
        }
        // The step of the run above drives it, in the world of that run.
        if let Some(parent) = &view.parent
            && !self.engine.view(&parent.run).await?.status.is_end()
        {
            return Ok(());
        }
        let opened = self.open_to_drive(&view).await?;
        let driven = if stopped {
            match opened.engine.resume(run, request()).await {
                Err(EngineError::Live(_)) => None,
                other => Some(other?),
            }
        } else {
            match opened.engine.recover_run(run).await? {
                Recovery::Driven(handle) => Some(handle),
                _ => None,
            }
        };
        if let Some(handle) = driven {
            self.keep(opened, handle);
        }
        Ok(())
    }
}

/// Whether a run in a list may be one that is gone on with. The note of a list may be cut, so it only leaves out.
fn may_go_on(run: &RunSummary) -> bool {
    run.status != RunStatus::Paused
        || run.note.starts_with(&stopped_message())
        || stopped_message().starts_with(&run.note)
}

pub(super) fn text_of(error: &CommandError) -> String {
    let mut text = one_line(&error.message);
    for why in &error.why {
        put!(text, "; {}", one_line(why));
    }
    text
}

/// Whether what keeps a run from being driven may go away by itself, or by what somebody does elsewhere.
fn may_pass(code: Code) -> bool {
    !matches!(
        code,
        Code::RunForeign
            | Code::RunRefused
            | Code::StoreDamaged
            | Code::SandboxGone
            | Code::DefinitionChanged
            | Code::WrongSite
    )
}
