//! A run and another definition of its workflow: what the difference means for it, and which of its steps would have
//! to be done again.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::event::ActivityShapes;
use crate::graph::{Graph, Step, StepIx};
use crate::id::StepName;
use crate::run::StepStatus;
use crate::run::state::RunState;

/// What another definition means for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It does the same: at most titles, retries and limits differ.
    Compatible,
    /// Only steps that have not started differ.
    PendingOnly,
    /// Steps differ that have started or are done.
    Incompatible,
}

/// How a step differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It calls something else, or has another input, condition or order.
    Changed,
    /// Its activity takes or gives another type than when the run was made.
    Retyped,
}

/// A step that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "StepDifference"))]
pub struct Difference {
    /// The step.
    pub step: StepName,
    /// How.
    pub change: Change,
    /// Where it stands in the run; none when it is new.
    pub status: Option<StepStatus>,
}

/// A definition beside a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Comparison {
    /// What it means.
    pub verdict: Verdict,
    /// The steps that differ, in the order of the graphs.
    pub differences: Vec<Difference>,
}

/// Compares a run with another graph of its workflow and the shapes its activities have now.
pub fn compare(state: &RunState, graph: &Graph, shapes: &ActivityShapes) -> Comparison {
    let mut differences = Vec::new();
    let mut verdict = Verdict::Compatible;
    let mut note = |step: &Step, change, status: Option<StepStatus>, started: bool| {
        differences.push(Difference { step: step.name.clone(), change, status });
        verdict = match (started, verdict) {
            (true, _) | (_, Verdict::Incompatible) => Verdict::Incompatible,
            (false, _) => Verdict::PendingOnly,
        };
    };
    for (ix, step) in (0..).zip(&state.graph.steps()[..state.graph.own_len()]) {
        let s = &state.steps[ix as usize];
        let started = started(state, ix);
        match graph.index_of(&step.name) {
            None => note(step, Change::Removed, Some(s.status), started),
            Some(now)
                if !graph.step(now).does_the_same(step) || names(&state.graph, ix) != names(graph, now) =>
            {
                note(step, Change::Changed, Some(s.status), started);
            }
            Some(_) => {
                let activity = step.kind.activity();
                let was = activity.and_then(|a| state.shapes.get(a));
                let now = activity.and_then(|a| shapes.get(a));
                if was.is_some() && now.is_some() && was != now {
                    note(step, Change::Retyped, Some(s.status), started);
                }
            }
        }
    }
    for step in graph.steps() {
        if state.graph.index_of(&step.name).is_none() {
            note(step, Change::Added, None, false);
        }
    }
    Comparison { verdict, differences }
}

fn started(state: &RunState, ix: StepIx) -> bool {
    let s = &state.steps[ix as usize];
    s.started.is_some() || s.status.is_done() || state.maps.contains_key(&ix)
}

/// What a step waits for, the children of maps left aside.
fn names(graph: &Graph, ix: StepIx) -> BTreeSet<&StepName> {
    let own = |d: &&StepIx| (**d as usize) < graph.own_len();
    graph.dependencies(ix).iter().filter(own).map(|&d| &graph.step(d).name).collect()
}

/// Steps of the new graph that an upgrade does again: those that started and now do something else, those whose input
/// `resolved` says to be another, and all that depends on either. `resolved` is asked only for steps that are done and
/// do the same; it says whether the step's input is what it was.
pub fn to_do_again(
    state: &RunState,
    graph: &Graph,
    resolved: &mut dyn FnMut(StepIx, &Step) -> bool,
) -> Vec<StepName> {
    let mut again: BTreeSet<StepIx> = BTreeSet::new();
    for &ix in graph.order() {
        let step = graph.step(ix);
        let after_changed = graph.dependencies(ix).iter().any(|d| again.contains(d));
        let Some(was) = state.graph.index_of(&step.name) else { continue };
        if !started(state, was) {
            continue;
        }
        let same = state.graph.step(was).does_the_same(step);
        if after_changed || !same || !resolved(was, step) {
            again.insert(ix);
        }
    }
    graph.order().iter().filter(|ix| again.contains(ix)).map(|&ix| graph.step(ix).name.clone()).collect()
}
