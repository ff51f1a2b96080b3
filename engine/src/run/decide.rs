//! What comes next. Reads only the ready set, the timer queue and what is in flight, so its cost does not grow with
//! the graph. The same state and time give the same commands.

use std::time::Duration;

use crate::activity::{ActivityError, ErrorClass};
use crate::event::{Next, PauseReason, Phase};
use crate::graph::{StepIx, StepKind};
use crate::run::options::OnTrouble;
use crate::run::state::{CancelModeOrd, Halt, Ledger, RunState, StepState, UndoRole};
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
    /// Let a gate, sleep or signal step wait, or a map read its list or collect what its children gave.
    GoOn {
        /// The step.
        step: StepIx,
    },
    /// A step waited for a time, and it has come.
    EndWait {
        /// The step.
        step: StepIx,
    },
    /// A step has waited too long for its first attempt.
    StartTooLate {
        /// The step.
        step: StepIx,
    },
    /// The run has used up its own time.
    TimeOut,
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
    if !state.rolling_back && state.ends_by_ms().is_some_and(|by| state.active_ms(now) >= by) {
        return vec![Command::TimeOut];
    }
    let mut commands = Vec::new();
    commands.extend(state.prompt.iter().map(|&step| Command::GoOn { step }));
    let active = state.active_ms(now);
    let late = state.start_by.iter().take_while(|(by, _)| *by <= active);
    commands.extend(late.map(|&(_, step)| Command::StartTooLate { step }));
    let due = || state.timers.iter().take_while(|(at, _)| *at <= now).map(|&(_, ix)| ix);
    let (ended, again): (Vec<_>, Vec<_>) = due().partition(|ix| state.waiting.contains(ix));
    commands.extend(ended.into_iter().map(|step| Command::EndWait { step }));
    if !commands.is_empty() {
        // What these lead to is decided first; attempts follow in the same transition.
        return commands;
    }
    let room = (state.options.parallelism.max(1) as usize).saturating_sub(state.in_flight.len());
    if room > 0 {
        let ready = state.ready.iter().map(|&(_, ix)| ix);
        // Steps that wait for the same things wait together: the rest of them need not be asked about.
        let mut blocked: Vec<StepIx> = Vec::new();
        for ix in again.into_iter().chain(ready) {
            if commands.len() == room {
                break;
            }
            let step = state.graph.step(ix);
            let same = |&b: &StepIx| {
                let other = state.graph.step(b);
                other.wants_the_same(step)
            };
            if blocked.iter().any(same) {
                continue;
            }
            if free(ix) {
                commands.push(Command::StartAttempt { step: ix, phase: phase(state, ix) });
            } else {
                blocked.push(ix);
            }
        }
    }
    if !commands.is_empty() {
        return commands;
    }
    let idle = state.in_flight.is_empty() && state.ready.is_empty();
    if idle && state.timers.is_empty() && state.waiting.is_empty() {
        return vec![Command::Finish(end(state))];
    }
    match next_wake(state, now) {
        Some(at) => vec![Command::WakeAt(at)],
        None => Vec::new(),
    }
}

/// When something may have to be decided next, if nothing happens before: the next timer after `now`, the next limit on
/// a start, the end of the run's own time.
pub fn next_wake(state: &RunState, now: Timestamp) -> Option<Timestamp> {
    if state.finished.is_some() || state.paused.is_some() {
        return None;
    }
    let timer = state.timers.range((now + Duration::from_millis(1), 0)..).next().map(|&(at, _)| at);
    let start = state.start_by.first().map(|&(by, _)| state.wall(by));
    let end = state.ends_by_ms().filter(|_| !state.rolling_back).map(|by| state.wall(by));
    timer.into_iter().chain(start).chain(end).min()
}

fn halted(state: &RunState, halt: &Halt) -> Command {
    match halt {
        Halt::Pause => Command::Pause(state.pause_reason.clone().unwrap_or(PauseReason {
            kind: crate::event::PauseKind::Requested,
            step: None,
            message: "paused".to_owned(),
        })),
        Halt::Fail => Command::Finish(RunStatus::Failed),
        Halt::TimedOut => Command::Finish(RunStatus::TimedOut),
        Halt::Cancel(CancelModeOrd::Keep | CancelModeOrd::Terminate) => Command::Finish(RunStatus::Cancelled),
        Halt::Rollback | Halt::Cancel(CancelModeOrd::Rollback) => Command::BeginRollback,
    }
}

fn end(state: &RunState) -> RunStatus {
    if !state.rolling_back {
        // A step that failed may have been left as it is when another was retried.
        let settled = state.steps.iter().all(StepState::is_settled);
        if settled { RunStatus::Succeeded } else { RunStatus::Failed }
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

/// What follows a failure of an attempt to execute or probe, before the event is written. `chance` is in 0..1.
pub fn after_failure(
    state: &RunState,
    ix: StepIx,
    error: &ActivityError,
    now: Timestamp,
    chance: f64,
) -> Next {
    let s = &state.steps[ix as usize];
    let step = state.graph.step(ix);
    let all = if state.rolling_back { step.undo_policy() } else { step.retry.clone() };
    let (rule, policy) = all.for_error(error);
    let give_up =
        |trouble: OnTrouble| if state.rolling_back { Next::Stuck } else { gives_up(state, ix, trouble) };
    let exhausted = policy.on_exhausted.or(step.on_exhausted).unwrap_or(state.options.on_exhausted);
    let again = |count: u32, limit: u32| {
        let wish = error.retry_after_ms.map(Duration::from_millis);
        let at = now + policy.delay(count, chance, wish);
        // An attempt that would only start when all of them have had their time is not waited for.
        if count >= limit || over_time(state, ix, at) { give_up(exhausted) } else { Next::At { at } }
    };
    match error.class {
        ErrorClass::Credentials if state.rolling_back => Next::Pause,
        ErrorClass::NeedsHuman if state.rolling_back => Next::Stuck,
        ErrorClass::Credentials | ErrorClass::NeedsHuman => blocked(state, ix),
        ErrorClass::Terminal => give_up(step.on_failure.unwrap_or(state.options.on_failure)),
        ErrorClass::Cancelled => Next::Now,
        ErrorClass::Throttled => again(s.throttles + 1, policy.maximum_throttles),
        ErrorClass::Retryable => {
            let failures = match rule {
                Some(rule) => s.rule_failures.get(&rule).copied().unwrap_or(0),
                None => s.failures,
            };
            again(failures + 1, policy.maximum_attempts)
        }
    }
}

/// What follows when a step fails for good without an attempt.
pub fn give_up_for_good(state: &RunState, ix: StepIx) -> Next {
    gives_up(state, ix, state.graph.step(ix).on_failure.unwrap_or(state.options.on_failure))
}

/// What follows when a step that is not taken back wants a person. A pause is for the whole run, whatever a map tolerates.
pub fn blocked(state: &RunState, ix: StepIx) -> Next {
    match state.options.on_blocked {
        OnTrouble::Pause => Next::Pause,
        trouble => gives_up(state, ix, trouble),
    }
}

fn gives_up(state: &RunState, ix: StepIx, trouble: OnTrouble) -> Next {
    match trouble {
        _ if tolerated(state, ix) => Next::Tolerate,
        OnTrouble::Pause => Next::Pause,
        OnTrouble::Fail => Next::Fail,
        OnTrouble::Rollback => Next::Rollback,
    }
}

/// Whether the map of a child goes on without it.
fn tolerated(state: &RunState, ix: StepIx) -> bool {
    let Some(parent) = state.steps[ix as usize].map else { return false };
    let StepKind::Map { tolerated_failures, .. } = &state.graph.step(parent).kind else { return false };
    state.maps.get(&parent).is_some_and(|map| map.failed < *tolerated_failures)
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

/// What a step waits for, for people.
pub fn waiting_for(state: &RunState, ix: StepIx) -> Vec<StepIx> {
    let s = &state.steps[ix as usize];
    if s.status != StepStatus::Pending {
        return Vec::new();
    }
    state.graph.dependencies(ix).iter().copied().filter(|&d| !state.steps[d as usize].is_settled()).collect()
}
