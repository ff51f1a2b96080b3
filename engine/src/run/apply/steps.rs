//! How a step moves between the sets that `decide` reads.

use crate::activity::ErrorClass;
use crate::event::{Next, PauseKind, PauseReason, Phase};
use crate::graph::{StepIx, StepKind};
use crate::run::StepStatus;
use crate::run::apply::maps;
use crate::run::state::{Halt, Ledger, RunState, StepState, UndoRole};
use crate::time::Timestamp;

/// Removes a step from the sets that decide reads.
pub(super) fn unschedule(state: &mut RunState, ix: StepIx) {
    state.ready.remove(&(order(state, ix), ix));
    state.prompt.remove(&ix);
    state.waiting.remove(&ix);
    let s = &mut state.steps[ix as usize];
    if let Some(wake) = s.wake.take() {
        state.timers.remove(&(wake, ix));
    }
    if let Some(by) = s.start_by_ms.take() {
        state.start_by.remove(&(by, ix));
    }
}

/// Makes a step startable at once, in the direction the run goes.
pub(in crate::run) fn schedule(state: &mut RunState, ix: StepIx) {
    unschedule(state, ix);
    let key = (order(state, ix), ix);
    let step = state.graph.step(ix);
    let limit = match &step.kind {
        StepKind::Activity { .. } | StepKind::SubWorkflow { .. } => {
            state.ready.insert(key);
            step.timeouts.schedule_to_start_ms
        }
        // These go on at once, whatever others hold.
        StepKind::Map { .. } | StepKind::Gate { .. } | StepKind::Sleep { .. } | StepKind::Signal { .. } => {
            state.prompt.insert(ix);
            None
        }
    };
    let now_ms = state.active_ms(state.updated);
    let s = &mut state.steps[ix as usize];
    s.status = if s.undo == UndoRole::None { StepStatus::Ready } else { StepStatus::Compensating };
    if let Some(limit) = limit
        && s.undo == UndoRole::None
        && s.budget_start_ms.is_none()
    {
        let by = now_ms.saturating_add(limit);
        s.start_by_ms = Some(by);
        state.start_by.insert((by, ix));
    }
}

/// Puts every step back into the sets where its own state says it belongs, after an end has emptied them.
pub(super) fn take_up(state: &mut RunState) {
    for ix in 0..StepIx::try_from(state.steps.len()).expect("a checked graph") {
        let s = &state.steps[ix as usize];
        if let Some(at) = s.wake {
            state.timers.insert((at, ix));
        }
        if let Some(by) = s.start_by_ms {
            state.start_by.insert((by, ix));
        }
        match (s.status, &state.graph.step(ix).kind) {
            (StepStatus::Ready, StepKind::Activity { .. } | StepKind::SubWorkflow { .. }) => {
                state.ready.insert((order(state, ix), ix));
            }
            (StepStatus::Ready, _) => {
                state.prompt.insert(ix);
            }
            (
                StepStatus::Waiting,
                StepKind::Gate { .. } | StepKind::Sleep { .. } | StepKind::Signal { .. },
            ) => {
                state.waiting.insert(ix);
            }
            _ => {}
        }
    }
}

/// Lets a step wait for something outside, and for a time at most.
pub(super) fn wait(state: &mut RunState, ix: StepIx, until: Option<Timestamp>) {
    unschedule(state, ix);
    state.waiting.insert(ix);
    let s = &mut state.steps[ix as usize];
    s.status = StepStatus::Waiting;
    if let Some(at) = until {
        s.wake = Some(at);
        state.timers.insert((at, ix));
    }
}

fn order(state: &RunState, ix: StepIx) -> u32 {
    if state.rolling_back { u32::MAX - state.graph.rank(ix) } else { state.graph.rank(ix) }
}

/// Ends the attempt under way; says what it was for.
pub(super) fn land(state: &mut RunState, ix: StepIx) -> Phase {
    state.in_flight.remove(&ix).expect("checked").phase
}

/// A step is done: those that waited only for it may start.
pub(super) fn finish_step(state: &mut RunState, ix: StepIx, at: Timestamp) {
    let s = &mut state.steps[ix as usize];
    s.ended = Some(at);
    state.done += 1;
    state.recoveries = 0;
    settled(state, ix);
}

/// Nobody has to wait for a step any longer.
fn settled(state: &mut RunState, ix: StepIx) {
    let graph = state.graph.clone();
    for &next in graph.dependents(ix) {
        let s = &mut state.steps[next as usize];
        s.missing -= 1;
        let starts = s.missing == 0 && s.status == StepStatus::Pending && !s.retired;
        if starts && maps::has_turn(state, next) {
            schedule(state, next);
        }
    }
    maps::child_ended(state, ix);
}

/// Puts a step where `next` says.
pub(super) fn follow(state: &mut RunState, ix: StepIx, next: Next, now: Timestamp) {
    match next {
        Next::At { at } => {
            let s = &mut state.steps[ix as usize];
            s.wake = Some(at);
            if s.status != StepStatus::Compensating {
                s.status = StepStatus::Backoff;
            }
            state.timers.insert((at, ix));
        }
        Next::Now => schedule(state, ix),
        Next::Pause => {
            let s = &mut state.steps[ix as usize];
            s.status = StepStatus::Failed;
            let (class, message) = s
                .error
                .as_ref()
                .map_or((ErrorClass::NeedsHuman, String::new()), |e| (e.class, e.to_string()));
            pause_for(state, ix, class, message);
        }
        Next::Tolerate => {
            let s = &mut state.steps[ix as usize];
            s.status = StepStatus::Failed;
            s.tolerated = true;
            s.ended = Some(now);
            if let Some(map) = s.map.and_then(|map| state.maps.get_mut(&map)) {
                map.failed += 1;
            }
            settled(state, ix);
        }
        Next::Fail | Next::Rollback | Next::Stuck => {
            let s = &mut state.steps[ix as usize];
            s.status = StepStatus::Failed;
            s.ended = Some(now);
            state.failed_step = Some(ix);
            raise(state, if next == Next::Rollback { Halt::Rollback } else { Halt::Fail });
        }
    }
}

/// The run is to pause because of a step.
pub(super) fn pause_for(state: &mut RunState, ix: StepIx, class: ErrorClass, message: String) {
    let kind = match class {
        ErrorClass::Credentials => PauseKind::Credentials,
        ErrorClass::NeedsHuman => PauseKind::NeedsHuman,
        ErrorClass::Retryable | ErrorClass::Throttled | ErrorClass::Terminal | ErrorClass::Cancelled => {
            PauseKind::Exhausted
        }
    };
    raise(state, Halt::Pause);
    state.failed_step = Some(ix);
    let step = Some(state.graph.step(ix).name.clone());
    state.pause_reason = Some(PauseReason { kind, step, message });
}

pub(super) fn raise(state: &mut RunState, halt: Halt) {
    if state.halt.as_ref().is_none_or(|h| *h < halt) {
        state.halt = Some(halt);
    }
}

/// Counts a failure under the rule that its error falls under.
pub(super) fn count_failure(state: &mut RunState, ix: StepIx, error: &crate::activity::ActivityError) {
    let rule = {
        let step = state.graph.step(ix);
        if state.rolling_back { step.undo_policy().for_error(error).0 } else { step.retry.for_error(error).0 }
    };
    let s = &mut state.steps[ix as usize];
    match error.class {
        ErrorClass::Throttled => s.throttles += 1,
        ErrorClass::Credentials | ErrorClass::Cancelled => {}
        ErrorClass::Retryable | ErrorClass::Terminal | ErrorClass::NeedsHuman => {
            s.throttles = 0;
            match rule {
                Some(rule) => *s.rule_failures.entry(rule).or_default() += 1,
                None => s.failures += 1,
            }
        }
    }
}

/// Gives a step all its attempts and time again.
pub(in crate::run) fn fresh_budget(s: &mut StepState) {
    (s.failures, s.throttles, s.budget_start_ms) = (0, 0, None);
    s.rule_failures.clear();
}

/// Lets a step that stopped start again, with a fresh budget.
pub(super) fn start_again(state: &mut RunState, ix: StepIx) {
    let s = &mut state.steps[ix as usize];
    fresh_budget(s);
    // What a probe found foreign is looked at again: a person may have moved it.
    if s.ledger == Ledger::NotOurs {
        s.ledger = Ledger::NoEffect;
    }
    s.ended = None;
    schedule(state, ix);
}
