//! The order of undo: which steps have to be taken back, and when each may be.
//!
//! Every step that ever started takes part, not only those that are done: a failed or lost attempt may have done
//! its work. A step may be undone when everything that depends on it is resolved; steps without an effect of ours
//! are resolved by themselves and pass that on. A compensation that fails for good blocks what the step depends
//! on, and nothing else.

use crate::activity::Effect;
use crate::event::Next;
use crate::graph::StepIx;
use crate::id::StepName;
use crate::run::StepStatus;
use crate::run::apply::{fresh_budget, schedule};
use crate::run::state::{Ledger, RunState, StepState, UndoRole};

/// Whether a step has to be looked at in a rollback.
fn participates(s: &StepState) -> bool {
    s.intent
        && s.effect != Effect::Read
        && !s.owns_nothing
        && match s.ledger {
            Ledger::Untouched => false,
            Ledger::NoEffect => s.replacing || s.has_records(),
            // What is there now is not ours; what was recorded before it was seen may still be.
            Ledger::NotOurs => s.has_records(),
            Ledger::Intent | Ledger::Done | Ledger::Unknown { .. } => true,
        }
}

/// Turns the run round. Costs as much as the graph is large, once.
pub(super) fn start(state: &mut RunState, keep: &[StepName], to: Option<&StepName>) {
    state.ready.clear();
    state.prompt.clear();
    state.timers.clear();
    state.waiting.clear();
    state.start_by.clear();
    state.stuck.clear();
    state.undo_left = 0;
    state.rolling_back = true;
    let scope = to.and_then(|to| state.graph.index_of(to)).map(|to| {
        let mut scope = state.graph.downstream(to);
        scope.remove(&to);
        scope
    });
    let graph = state.graph.clone();
    for ix in 0..StepIx::try_from(graph.len()).expect("a checked graph") {
        let step = graph.step(ix);
        let s = &mut state.steps[ix as usize];
        (s.wake, s.start_by_ms, s.kept) = (None, None, None);
        s.undo_missing = u32::try_from(graph.dependents(ix).len()).expect("limited");
        fresh_budget(s);
        let wanted = participates(s);
        let outside = scope.as_ref().is_some_and(|scope| !scope.contains(&ix));
        if wanted && (step.protect || outside || keep.contains(&step.name)) {
            s.kept = Some(match to {
                _ if step.protect => "protected by the spec".to_owned(),
                Some(to) if outside => format!("made before {to} was done"),
                _ => "kept on request".to_owned(),
            });
            s.status = StepStatus::Kept;
            s.undo = UndoRole::Resolved;
        } else if wanted {
            s.undo = UndoRole::Wanted;
            state.undo_left += 1;
        } else {
            s.undo = UndoRole::Resolved;
            match s.status {
                StepStatus::Pending | StepStatus::Ready | StepStatus::Backoff | StepStatus::Waiting => {
                    s.status = StepStatus::Cancelled;
                }
                _ => {}
            }
        }
    }
    for &ix in graph.order().iter().rev() {
        let s = &state.steps[ix as usize];
        if s.undo_missing == 0 && s.undo == UndoRole::Wanted {
            schedule(state, ix);
        }
        if s_resolved(state, ix) {
            pass_on(state, ix);
        }
    }
}

fn s_resolved(state: &RunState, ix: StepIx) -> bool {
    let s = &state.steps[ix as usize];
    // Steps that are resolved from the start pass on when their turn comes in reverse order, so that each edge is
    // walked once.
    s.undo == UndoRole::Resolved && s.undo_missing == 0
}

/// A step needs nothing more: what it depends on may follow.
pub(super) fn resolve(state: &mut RunState, ix: StepIx) {
    state.steps[ix as usize].undo = UndoRole::Resolved;
    state.undo_left -= 1;
    let mut todo = vec![ix];
    while let Some(ix) = todo.pop() {
        let graph = state.graph.clone();
        for &dependency in graph.dependencies(ix) {
            let s = &mut state.steps[dependency as usize];
            s.undo_missing -= 1;
            if s.undo_missing == 0 {
                match s.undo {
                    UndoRole::Wanted => schedule(state, dependency),
                    UndoRole::Resolved => todo.push(dependency),
                    UndoRole::None | UndoRole::Stuck => {}
                }
            }
        }
    }
}

/// Only used while a rollback starts, in reverse topological order: dependencies come later in that order.
fn pass_on(state: &mut RunState, ix: StepIx) {
    let graph = state.graph.clone();
    for &dependency in graph.dependencies(ix) {
        state.steps[dependency as usize].undo_missing -= 1;
    }
}

/// A probe before an undo answered something other than "present".
pub(super) fn after_probe(state: &mut RunState, ix: StepIx, next: Next) {
    let s = &mut state.steps[ix as usize];
    match s.ledger {
        Ledger::NotOurs if !s.has_records() => {
            s.status = StepStatus::Adopted;
            resolve(state, ix);
        }
        // Nothing there and nothing recorded: there is nothing to take back.
        Ledger::NoEffect if s.resources.is_empty() && s.before.is_empty() => {
            s.status = StepStatus::Compensated;
            resolve(state, ix);
        }
        Ledger::NotOurs | Ledger::NoEffect | Ledger::Done => schedule(state, ix),
        Ledger::Untouched | Ledger::Intent | Ledger::Unknown { .. } => match next {
            Next::At { at } => {
                s.status = StepStatus::Compensating;
                s.wake = Some(at);
                state.timers.insert((at, ix));
            }
            Next::Now | Next::Pause | Next::Fail | Next::Rollback | Next::Stuck | Next::Tolerate => {
                schedule(state, ix);
            }
        },
    }
}
