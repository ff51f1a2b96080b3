//! Attempts: started when their intent is durable, stopped when the run is to stand still or turn round.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::{Driver, MIN_PATIENCE};
use crate::activity::{ActivityContext, ActivityError, ContextInner, Effect, ErasedActivity, StopReason};
use crate::event::{CancelMode, EventKind, LostCause, Phase};
use crate::graph::{Step, StepIx};
use crate::run::decide::attempt_limit;
use crate::run::state::{CancelModeOrd, Halt, UndoRole};
use crate::runtime::admission::Grant;
use crate::runtime::clock::HurriedClock;
use crate::runtime::engine::EngineError;
use crate::runtime::metrics::{AttemptEnd, Measure};
use crate::runtime::worker::{self, Attempt, DriverRecorder, Outcome, Pulse, Report};
use crate::time::Clock;

/// An attempt that acts.
pub(super) struct Running {
    pub(super) attempt: u32,
    pub(super) phase: Phase,
    pub(super) effect: Effect,
    pub(super) abort: AbortHandle,
    pub(super) cancel: CancellationToken,
    pub(super) stop: Arc<OnceLock<StopReason>>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) began: tokio::time::Instant,
}

impl Drop for Running {
    /// Whatever ends the driver, a panic included, ends its attempts.
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// An attempt whose intent is staged; it starts when that is durable.
pub(super) struct Intended {
    pub(super) step: StepIx,
    pub(super) phase: Phase,
    pub(super) activity: Arc<dyn ErasedActivity>,
    pub(super) grant: Grant,
}

/// What a step calls, as measurements name it.
fn activity_of(step: &Step) -> &str {
    step.kind.activity().map_or(step.kind.word(), |activity| activity.as_str())
}

impl Driver {
    /// Acts on the intents that have become durable.
    pub(super) fn start_attempts(&mut self) {
        for Intended { step: ix, phase, activity, grant } in std::mem::take(&mut self.to_start) {
            let (step, s) = (self.state.graph.step(ix), &self.state.steps[ix as usize]);
            let cancel = CancellationToken::new();
            let stop = Arc::new(OnceLock::new());
            let pulse = Arc::new(Pulse::new(self.inner.options.heartbeat_throttle));
            let limit = attempt_limit(&self.state, ix, self.now());
            let mut deadline = limit.map(|limit| self.on_the_clock(self.now() + limit));
            let mut clock: Arc<dyn Clock> = Arc::clone(&self.inner.clock);
            if self.patience < 1.0 {
                let hurried = HurriedClock::new(clock, self.patience.max(MIN_PATIENCE));
                deadline = deadline.map(|at| hurried.hurried(at));
                clock = Arc::new(hurried);
            }
            let kept = if phase == Phase::Compensate { self.left_in_place(ix) } else { Vec::new() };
            let ctx = ActivityContext::new(ContextInner {
                store: self.inner.store.id(),
                site: self.state.site.clone(),
                run: self.state.id.clone(),
                step: step.name.clone(),
                attempt: s.attempt,
                generation: s.generation,
                deadline,
                last_heartbeat: s.heartbeat.clone(),
                cancel: cancel.clone(),
                recorder: Arc::new(DriverRecorder {
                    step: ix,
                    attempt: s.attempt,
                    reports: self.report_to.clone(),
                    pulse: Arc::clone(&pulse),
                }),
                resources: self.resources.clone(),
                clock,
                kept,
                stop: Arc::clone(&stop),
                fence: self.fence.clone(),
            });
            // The drive's span is current here; the task that the attempt becomes has none of its own.
            let (run, name) = (&self.state.id, &step.name);
            let span = tracing::info_span!("step", %run, step = %name, generation = s.generation);
            let span = tracing::info_span!(parent: &span, "attempt", %run, step = %name, attempt = s.attempt, ?phase);
            let attempt = Attempt {
                span,
                step: ix,
                attempt: s.attempt,
                phase,
                ctx,
                input: s.input.clone().unwrap_or_else(|| Arc::new(serde_json::Value::Null)),
                past_inputs: s.past_inputs.clone(),
                recorded: s.recorded(),
                replacing: s.replacing,
                done_before: s.output.is_some()
                    || s.resources.iter().any(|r| r.generation == s.generation)
                    || self.state.in_doubt(ix),
                adopt: step.adopt || s.adopt,
                undoing: self.state.rolling_back,
                limit,
                silence: step.timeouts.heartbeat_ms.map(Duration::from_millis),
                pulse: Arc::clone(&pulse),
                activity,
            };
            let reports = self.report_to.clone();
            // The grant goes with the task: what it holds is given back when the task has really ended.
            let task = tokio::spawn(async move {
                let _grant = grant;
                worker::run(attempt, reports).await;
            });
            self.inner.measure(&Measure::AttemptStarted {
                run: &self.state.id,
                step: &step.name,
                activity: activity_of(step),
                phase,
            });
            let running = Running {
                attempt: s.attempt,
                phase,
                effect: s.effect,
                abort: task.abort_handle(),
                cancel,
                stop,
                pulse,
                began: tokio::time::Instant::now(),
            };
            self.running.insert(ix, running);
        }
    }

    /// Steps whose effects stay, by rule or because they could not be undone; not those whose turn is to come.
    fn left_in_place(&self, but: StepIx) -> Vec<crate::id::StepName> {
        (0..)
            .zip(&self.state.steps)
            .filter(|(ix, s)| {
                *ix != but && (s.kept.is_some() || (s.undo != UndoRole::Wanted && s.may_have_effect()))
            })
            .map(|(ix, _)| self.name(ix))
            .collect()
    }

    /// A run about to stand still or turn round stops what changes nothing, and asks the rest to hurry.
    pub(super) fn stop_what_should_not_run(&mut self) -> Result<(), EngineError> {
        let Some(halt) = &self.state.halt else { return Ok(()) };
        if self.halted {
            return Ok(());
        }
        self.halted = true;
        let reason = match halt {
            Halt::Pause => StopReason::Pause,
            Halt::Fail => StopReason::Fail,
            Halt::TimedOut => StopReason::TimedOut,
            Halt::Rollback => StopReason::Rollback,
            Halt::Cancel(CancelModeOrd::Keep) => StopReason::Cancel(CancelMode::Keep),
            Halt::Cancel(CancelModeOrd::Rollback) => StopReason::Cancel(CancelMode::Rollback),
            Halt::Cancel(CancelModeOrd::Terminate) => StopReason::Terminate,
        };
        if reason == StopReason::Pause || reason == StopReason::TimedOut {
            self.grace_ends = Some(tokio::time::Instant::now() + self.inner.options.pause_grace);
        }
        for (&ix, running) in &self.running {
            let _first_reason_wins = running.stop.set(reason);
            running.cancel.cancel();
            if running.effect == Effect::Read && running.phase == Phase::Execute {
                running.abort.abort();
                drop(self.report_to.send(Report::Ended {
                    step: ix,
                    attempt: running.attempt,
                    outcome: Outcome::Failed(ActivityError::cancelled().no_effect()),
                }));
            }
        }
        if reason == StopReason::Terminate {
            self.leave_behind()?;
            self.more = true;
        }
        Ok(())
    }

    /// Gives up waiting for attempts: their outcome is unknown, and the ledger says so.
    pub(super) fn leave_behind(&mut self) -> Result<(), EngineError> {
        for (ix, running) in std::mem::take(&mut self.running) {
            running.abort.abort();
            self.measure_end(ix, &running, AttemptEnd::Lost);
            let step = self.name(ix);
            self.stage(EventKind::AttemptLost {
                step,
                attempt: running.attempt,
                cause: LostCause::Interrupted,
            })?;
        }
        Ok(())
    }

    /// Tells the hook how an attempt ended.
    pub(super) fn measure_end(&self, ix: StepIx, running: &Running, end: AttemptEnd) {
        let step = self.state.graph.step(ix);
        self.inner.measure(&Measure::AttemptEnded {
            run: &self.state.id,
            step: &step.name,
            activity: activity_of(step),
            phase: running.phase,
            end,
            took: running.began.elapsed(),
        });
    }
}
