//! Going on: after a pause, after an end, and with steps that are to be done once more.

use crate::activity::Effect;
use crate::event::Again;
use crate::graph::{StepIx, StepKind};
use crate::run::apply::maps;
use crate::run::apply::steps::{fresh_budget, schedule, start_again, take_up, unschedule, wait};
use crate::run::state::{Ledger, RunState, UndoRole};
use crate::run::{RunStatus, StepStatus};
use crate::time::Timestamp;

/// A run that ended goes on; the time since does not count. Its steps stay as they are: what was about to start or
/// waited when it ended does so again.
pub(super) fn reopen(state: &mut RunState, at: Timestamp) {
    let Some(end) = state.finished.take() else { return };
    unsettle(state);
    let since = state.finished_at.take().unwrap_or(at);
    suspend(state, since, at);
    if end == RunStatus::TimedOut {
        state.time_from_ms = state.active_ms(at);
    }
    (state.halt, state.pause_reason) = (None, None);
    (state.output, state.error) = (None, None);
    if !state.rolling_back {
        take_up(state);
    }
}

/// The clock may have been set since the run was last driven: "absent" has to settle within one drive.
pub(super) fn unsettle(state: &mut RunState) {
    for s in &mut state.steps {
        if matches!(s.ledger, Ledger::Unknown { .. }) {
            s.ledger = Ledger::Unknown { absent_since: None };
        }
    }
}

/// The time between two moments does not count.
pub(super) fn suspend(state: &mut RunState, since: Timestamp, at: Timestamp) {
    let gap = u64::try_from(at.since(since).as_millis()).unwrap_or(u64::MAX);
    state.suspended_ms = state.suspended_ms.saturating_add(gap);
}

/// Somebody resumes the run: failed and cancelled steps may start again, with fresh budgets; so may those that wait
/// for their next attempt, at once. What waits for somebody or for an hour goes on waiting.
pub(super) fn resume(state: &mut RunState) {
    for ix in all(state) {
        let s = &mut state.steps[ix as usize];
        fresh_budget(s);
        if state.rolling_back {
            if s.undo == UndoRole::Wanted && s.undo_missing == 0 {
                schedule(state, ix);
            }
            continue;
        }
        let again = matches!(
            s.status,
            StepStatus::Failed
                | StepStatus::Cancelled
                | StepStatus::Ready
                | StepStatus::Backoff
                | StepStatus::Waiting
        );
        let stands = s.retired || s.tolerated || state.waiting.contains(&ix);
        if again && s.missing == 0 && !stands && maps::has_turn(state, ix) {
            start_again(state, ix);
        }
    }
}

fn all(state: &RunState) -> std::ops::Range<StepIx> {
    0..StepIx::try_from(state.steps.len()).expect("a checked graph")
}

/// Steps are to be done once more: one that failed or waits, or a step with all that depends on it.
pub(super) fn reset(state: &mut RunState, steps: &[StepIx], again: Again, at: Timestamp) {
    reopen(state, at);
    match again {
        Again::Retry | Again::Adopt => {
            for &ix in steps {
                state.steps[ix as usize].adopt |= again == Again::Adopt;
                start_again(state, ix);
            }
            if state.failed_step.is_some_and(|f| steps.contains(&f)) {
                state.failed_step = None;
            }
        }
        Again::Rerun => rerun(state, steps),
    }
}

/// Makes a closure pending and starts what may start. Also used by an upgrade.
pub(super) fn rerun(state: &mut RunState, closure: &[StepIx]) {
    let graph = state.graph.clone();
    for &ix in closure {
        if !matches!(graph.step(ix).kind, StepKind::Map { .. }) {
            continue;
        }
        // Reached through a child, the map only collects again.
        let own = |d: &StepIx| (*d as usize) < graph.own_len() && closure.contains(d);
        if closure.first() == Some(&ix) || graph.dependencies(ix).iter().any(own) {
            maps::retire(state, ix);
        }
    }
    for &ix in closure {
        make_pending(state, ix);
    }
    for &ix in closure {
        let missing =
            graph.dependencies(ix).iter().filter(|&&d| !state.steps[d as usize].is_settled()).count();
        state.steps[ix as usize].missing = u32::try_from(missing).expect("limited");
    }
    for &ix in closure {
        let s = &mut state.steps[ix as usize];
        if s.retired {
            s.status = StepStatus::Cancelled;
        } else if state.maps.contains_key(&ix) && s.missing > 0 {
            s.status = StepStatus::Waiting;
        } else if s.missing == 0 {
            maps::line_up(state, ix);
        }
    }
    if state.failed_step.is_some_and(|f| closure.contains(&f)) {
        state.failed_step = None;
    }
}

/// A step stands as before it started, but for what is known of its effect: that is still taken back.
pub(super) fn make_pending(state: &mut RunState, ix: StepIx) {
    unschedule(state, ix);
    let next = state.next_generation(ix);
    let map = state.steps[ix as usize].map.and_then(|map| state.maps.get_mut(&map));
    let s = &mut state.steps[ix as usize];
    if s.status.is_done() {
        state.done -= 1;
    }
    if s.tolerated
        && let Some(map) = map
    {
        map.failed -= 1;
    }
    fresh_budget(s);
    s.status = StepStatus::Pending;
    (s.asked, s.tolerated) = (false, false);
    (s.error, s.ended, s.heartbeat) = (None, None, None);
    match s.ledger {
        // An attempt that fails without an effect proves nothing about what is there already. And where nothing could
        // tell a repetition from the first time, a new token is what makes it one.
        Ledger::Done if s.effect != Effect::Read => {
            s.unproven = true;
            if !s.probed {
                s.generation = next;
            }
        }
        Ledger::NotOurs => s.ledger = Ledger::NoEffect,
        Ledger::Untouched | Ledger::Intent | Ledger::Done | Ledger::NoEffect | Ledger::Unknown { .. } => {}
    }
}

/// Puts a step where its status says, in a graph that is new to it.
pub(super) fn settle_in(state: &mut RunState, ix: StepIx, waited: bool) {
    let s = &state.steps[ix as usize];
    if s.retired {
        state.steps[ix as usize].status = StepStatus::Cancelled;
        return;
    }
    if !matches!(
        s.status,
        StepStatus::Pending | StepStatus::Ready | StepStatus::Backoff | StepStatus::Waiting
    ) {
        return;
    }
    let (missing, wake, status) = (s.missing, s.wake, s.status);
    if state.maps.contains_key(&ix) && missing > 0 {
        state.steps[ix as usize].status = StepStatus::Waiting;
    } else if missing > 0 || !maps::has_turn(state, ix) {
        let s = &mut state.steps[ix as usize];
        (s.status, s.wake, s.start_by_ms) = (StepStatus::Pending, None, None);
    } else if waited && status == StepStatus::Waiting {
        state.steps[ix as usize].wake = None;
        wait(state, ix, wake);
    } else if let Some(at) = wake {
        state.timers.insert((at, ix));
        state.steps[ix as usize].status = status;
    } else {
        schedule(state, ix);
    }
}
