//! The order of a takeover: the graphs of its runs laid over each other. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Graph, StepIx};
use crate::id::StepName;
use crate::run::RunState;

/// For each of `names` those that come before it in a run's graph, directly or through steps that are not among them. An
/// order that contradicts that of a newer run is left out; `runs` are newest first.
pub(super) fn before(
    runs: &[&RunState],
    names: &BTreeSet<StepName>,
) -> BTreeMap<StepName, BTreeSet<StepName>> {
    let mut before: BTreeMap<StepName, BTreeSet<StepName>> =
        names.iter().map(|name| (name.clone(), BTreeSet::new())).collect();
    for run in runs {
        let graph = &run.graph;
        for (ix, step) in (0..).zip(graph.steps()).filter(|(_, step)| names.contains(&step.name)) {
            for earlier in nearest(graph, ix, names) {
                // Only an older graph can contradict; a graph has no cycle of its own.
                if earlier != step.name && !comes_after(&before, &earlier, &step.name) {
                    before.get_mut(&step.name).expect("one of the names").insert(earlier);
                }
            }
        }
    }
    before
}

/// The nearest steps upstream that are among `names`.
fn nearest(graph: &Graph, ix: StepIx, names: &BTreeSet<StepName>) -> BTreeSet<StepName> {
    let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut todo = graph.dependencies(ix).to_vec();
    while let Some(ix) = todo.pop() {
        if !seen.insert(ix) {
            continue;
        }
        let name = &graph.step(ix).name;
        if names.contains(name) {
            found.insert(name.clone());
        } else {
            todo.extend_from_slice(graph.dependencies(ix));
        }
    }
    found
}

/// Whether `later` stands before `earlier` already, directly or not.
fn comes_after(
    before: &BTreeMap<StepName, BTreeSet<StepName>>,
    earlier: &StepName,
    later: &StepName,
) -> bool {
    let (mut seen, mut todo) = (BTreeSet::new(), vec![earlier]);
    while let Some(name) = todo.pop() {
        if name == later {
            return true;
        }
        if seen.insert(name) {
            todo.extend(&before[name]);
        }
    }
    false
}
