//! What an operator may do to steps of a run. Each verb is one event, checked like any other, and changes nothing
//! outside the closure of its step.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::{Again, EventKind, Next, Request, UndoMark};
use crate::graph::{OnReject, StepIx, StepKind};
use crate::id::StepName;
use crate::run::decide::give_up_for_good;
use crate::run::state::RunState;

/// The code of the error of a step that found something in its place which is not ours, and which it may not take.
pub const FOREIGN: &str = "ForeignResource";

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "verb")]
#[non_exhaustive]
pub enum Verb {
    /// Tries a step that failed or waits for its next attempt at once, with a fresh budget.
    Retry {
        /// The step.
        step: StepName,
    },
    /// Lets a step take what it found in its place and is not ours, and tries it at once. What is taken so is used as it
    /// is and never taken back.
    Adopt {
        /// The step.
        step: StepName,
    },
    /// Does a step and everything that depends on it again.
    Rerun {
        /// The step.
        from: StepName,
    },
    /// Leaves a step out; what refers to its output gets null.
    Skip {
        /// The step.
        step: StepName,
    },
    /// Takes a step as done.
    Complete {
        /// The step.
        step: StepName,
        /// Its output.
        output: Value,
    },
    /// Lets a gate through.
    Approve {
        /// The gate.
        step: StepName,
    },
    /// Decides against a gate.
    Reject {
        /// The gate.
        step: StepName,
    },
    /// Sends the run a signal.
    Signal {
        /// Its name.
        signal: String,
        /// What it carries.
        payload: Value,
    },
    /// Takes a step whose undo is stuck as taken back by hand.
    MarkUndone {
        /// The step.
        step: StepName,
    },
    /// Leaves what a step made, whose undo is stuck, where it is.
    Abandon {
        /// The step.
        step: StepName,
    },
}

impl Verb {
    /// The step it is about; none for a signal.
    pub fn step(&self) -> Option<&StepName> {
        match self {
            Self::Retry { step }
            | Self::Adopt { step }
            | Self::Rerun { from: step }
            | Self::Skip { step }
            | Self::Complete { step, .. }
            | Self::Approve { step }
            | Self::Reject { step }
            | Self::MarkUndone { step }
            | Self::Abandon { step } => Some(step),
            Self::Signal { .. } => None,
        }
    }

    /// The event that it is.
    ///
    /// # Errors
    /// When the step is not in the run, with the nearest name there is.
    pub fn event(&self, state: &RunState, request: Request) -> Result<EventKind, String> {
        let ix = self.step().map(|step| find(state, step)).transpose()?;
        Ok(match self.clone() {
            Self::Retry { step } => EventKind::StepsReset { steps: vec![step], again: Again::Retry, request },
            Self::Adopt { step } => EventKind::StepsReset { steps: vec![step], again: Again::Adopt, request },
            Self::Rerun { .. } => {
                let closure = state.closure(ix.expect("has a step"));
                let steps = closure.iter().map(|&ix| state.graph.step(ix).name.clone()).collect();
                EventKind::StepsReset { steps, again: Again::Rerun, request }
            }
            Self::Skip { step } => EventKind::StepSkipped { step, request: Some(request) },
            Self::Complete { step, output } => EventKind::StepCompleted { step, output, request },
            Self::Approve { step } => EventKind::GateDecided { step, approved: true, request, next: None },
            Self::Reject { step } => {
                let next = rejected(state, ix.expect("has a step"));
                EventKind::GateDecided { step, approved: false, request, next }
            }
            Self::Signal { signal, payload } => EventKind::SignalReceived { signal, payload, request },
            Self::MarkUndone { step } => EventKind::UndoMarked { step, mark: UndoMark::Undone, request },
            Self::Abandon { step } => EventKind::UndoMarked { step, mark: UndoMark::Abandoned, request },
        })
    }
}

/// What follows when a gate is decided against; `None` when the step is done by it.
pub fn rejected(state: &RunState, ix: StepIx) -> Option<Next> {
    match state.graph.step(ix).kind {
        StepKind::Gate { on_reject: OnReject::Continue, .. } => None,
        _ => Some(give_up_for_good(state, ix)),
    }
}

fn find(state: &RunState, name: &StepName) -> Result<StepIx, String> {
    state.graph.index_of(name).ok_or_else(|| match state.graph.nearest(name) {
        Some(near) => format!("step {name} is not in the run; did you mean {near}?"),
        None => format!("step {name} is not in the run"),
    })
}
