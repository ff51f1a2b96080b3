//! What comes next. Reads only the ready set, the timer queue and what is in flight, so its cost does not grow with
//! the graph. The same state and time give the same commands.

use std::time::Duration;

use crate::activity::{ActivityError, ErrorClass};
use crate::event::{Next, PauseReason, Phase};
use crate::graph::StepIx;
use crate::retry::RetryPolicy;
use crate::run::options::OnTrouble;
use crate::run::state::{CancelModeOrd, Halt, Ledger, RunState, UndoRole};
use crate::run::{RunStatus, StepStatus};
use crate::time::Timestamp;

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Start an attempt, after its intent is durable.
    StartAttempt {
        /// The step.
        step: StepIx,
        /// What for.
        phase: Phase,
    },
    /// Stand still.
    Pause(PauseReason),
    /// Turn round.
    BeginRollback,
    /// End.
    Finish(RunStatus),
    /// Nothing to do before this time.
    WakeAt(Timestamp),
}

/// Says what to do next. `now` is never before the run's last event; `free` says whether locks held by other runs
/// leave room for a step.
pub fn decide(state: &RunState, now: Timestamp, free: &dyn Fn(StepIx) -> bool) -> Vec<Command> {
    let now = now.max(state.updated);
    if state.finished.is_some() || state.paused.is_some() {
        return Vec::new();
    }
    if let Some(halt) = &state.halt {
        return if state.in_flight.is_empty() { vec![halted(state, halt)] } else { Vec::new() };
    }
    let mut commands = Vec::new();
    let room = (state.options.parallelism.max(1) as usize).saturating_sub(state.in_flight.len());
    if room > 0 {
        let due = state.timers.iter().take_while(|(at, _)| *at <= now).map(|&(_, ix)| ix);
        let ready = state.ready.iter().map(|&(_, ix)| ix);
        // Locks taken by a step chosen a moment ago count as well, so the choice is made one by one.
        let mut chosen: Vec<StepIx> = Vec::new();
        for ix in due.chain(ready) {
            if chosen.len() == room {
                break;
            }
            if state.locks_free(ix) && !chosen.iter().any(|&c| clash(state, c, ix)) && free(ix) {
                chosen.push(ix);
                commands.push(Command::StartAttempt { step: ix, phase: phase(state, ix) });
            }
        }
    }
    if !commands.is_empty() {
        return commands;
    }
    if state.in_flight.is_empty() && state.ready.is_empty() && state.timers.is_empty() {
        return vec![Command::Finish(end(state))];
    }
    match state.timers.first() {
        Some(&(at, _)) if at > now => vec![Command::WakeAt(at)],
        _ => Vec::new(),
    }
}

fn halted(state: &RunState, halt: &Halt) -> Command {
    match halt {
        Halt::Pause => Command::Pause(state.pause_reason.clone().unwrap_or(PauseReason {
            kind: crate::event::PauseKind::Requested,
            step: None,
            message: "paused".to_owned(),
        })),
        Halt::Fail => Command::Finish(RunStatus::Failed),
        Halt::Cancel(CancelModeOrd::Keep) => Command::Finish(RunStatus::Cancelled),
        Halt::Rollback | Halt::Cancel(CancelModeOrd::Rollback) => Command::BeginRollback,
    }
}

fn end(state: &RunState) -> RunStatus {
    if !state.rolling_back {
        RunStatus::Succeeded
    } else if state.stuck.is_empty() {
        RunStatus::RolledBack
    } else {
        RunStatus::RollbackStuck
    }
}

/// What an attempt of a step would be for.
fn phase(state: &RunState, ix: StepIx) -> Phase {
    let s = &state.steps[ix as usize];
    if s.probed && matches!(s.ledger, Ledger::Unknown { .. }) {
        Phase::Probe
    } else if s.undo == UndoRole::Wanted {
        Phase::Compensate
    } else {
        Phase::Execute
    }
}

fn clash(state: &RunState, a: StepIx, b: StepIx) -> bool {
    use crate::graph::LockMode::Exclusive;
    let (a, b) = (state.graph.step(a), state.graph.step(b));
    a.locks.iter().any(|la| {
        b.locks.iter().any(|lb| la.name == lb.name && (la.mode == Exclusive || lb.mode == Exclusive))
    })
}

/// What follows a failure of an attempt to execute or probe, before the event is written. `chance` is in 0..1.
pub fn after_failure(
    state: &RunState,
    ix: StepIx,
    error: &ActivityError,
    now: Timestamp,
    chance: f64,
) -> Next {
    let s = &state.steps[ix as usize];
    let policy = if state.rolling_back {
        state.graph.step(ix).undo_policy()
    } else {
        state.graph.step(ix).retry.clone()
    };
    let give_up = |trouble: OnTrouble| {
        if state.rolling_back {
            return Next::Stuck;
        }
        match trouble {
            OnTrouble::Pause => Next::Pause,
            OnTrouble::Fail => Next::Fail,
            OnTrouble::Rollback => Next::Rollback,
        }
    };
    match error.class {
        ErrorClass::Credentials => Next::Pause,
        ErrorClass::NeedsHuman if state.rolling_back => Next::Stuck,
        ErrorClass::NeedsHuman => Next::Pause,
        ErrorClass::Terminal => give_up(state.options.on_failure),
        ErrorClass::Cancelled => Next::Now,
        ErrorClass::Throttled => {
            let throttles = s.throttles + 1;
            if throttles >= policy.maximum_throttles || over_time(state, ix, now) {
                give_up(state.options.on_exhausted)
            } else {
                retry_at(&policy, throttles, error, now, chance)
            }
        }
        ErrorClass::Retryable => {
            let failures = s.failures + 1;
            if failures >= policy.maximum_attempts || over_time(state, ix, now) {
                give_up(state.options.on_exhausted)
            } else {
                retry_at(&policy, failures, error, now, chance)
            }
        }
    }
}

fn retry_at(policy: &RetryPolicy, failures: u32, error: &ActivityError, now: Timestamp, chance: f64) -> Next {
    Next::At { at: now + policy.delay(failures, chance, error.retry_after_ms.map(Duration::from_millis)) }
}

/// Whether all attempts together have had their time.
pub fn over_time(state: &RunState, ix: StepIx, now: Timestamp) -> bool {
    let step = &state.steps[ix as usize];
    match (state.graph.step(ix).timeouts.schedule_to_close_ms, step.budget_start_ms) {
        (Some(limit), Some(start)) => state.active_ms(now).saturating_sub(start) >= limit,
        _ => false,
    }
}

/// How long the next attempt of a step may take, from its own limit and what is left of the limit on all.
pub fn attempt_limit(state: &RunState, ix: StepIx, now: Timestamp) -> Option<Duration> {
    let limits = &state.graph.step(ix).timeouts;
    let left = limits.schedule_to_close_ms.map(|limit| {
        let start = state.steps[ix as usize].budget_start_ms.unwrap_or_else(|| state.active_ms(now));
        limit.saturating_sub(state.active_ms(now).saturating_sub(start)).max(1)
    });
    match (limits.start_to_close_ms, left) {
        (Some(a), Some(b)) => Some(Duration::from_millis(a.min(b))),
        (Some(a), None) | (None, Some(a)) => Some(Duration::from_millis(a)),
        (None, None) => None,
    }
}

/// What follows a first, or an early second, answer "absent" after an attempt whose outcome is not known.
pub fn after_absent(state: &RunState, ix: StepIx, settle: Duration, now: Timestamp) -> Next {
    match state.steps[ix as usize].ledger {
        Ledger::Unknown { absent_since: Some(since) } if now >= since + settle => Next::Now,
        Ledger::Unknown { absent_since: Some(since) } => Next::At { at: since + settle },
        _ => Next::At { at: now + settle },
    }
}

/// Whether a step's budget of failures is used up once one more is counted.
pub fn exhausted_by_one_more(state: &RunState, ix: StepIx) -> bool {
    let policy = if state.rolling_back {
        state.graph.step(ix).undo_policy()
    } else {
        state.graph.step(ix).retry.clone()
    };
    state.steps[ix as usize].failures + 1 >= policy.maximum_attempts
}

/// What a step waits for, for people.
pub fn waiting_for(state: &RunState, ix: StepIx) -> Vec<StepIx> {
    let s = &state.steps[ix as usize];
    if s.status != StepStatus::Pending {
        return Vec::new();
    }
    state
        .graph
        .dependencies(ix)
        .iter()
        .copied()
        .filter(|&d| !state.steps[d as usize].status.is_done())
        .collect()
}
