//! A run that follows another definition from here on: what is done stays done where neither the step nor its input
//! changed; what made something is never lost sight of.

use std::collections::BTreeSet;

use crate::graph::{Graph, StepIx, StepKind};
use crate::id::StepName;
use crate::run::apply::{again, maps, new_step};
use crate::run::state::RunState;
use crate::time::Timestamp;

/// What stands against an upgrade.
pub(super) fn check_upgrade(state: &RunState, graph: &Graph, reset: &[StepName]) -> Result<(), String> {
    for (ix, s) in (0..).zip(&state.steps) {
        let step = state.graph.step(ix);
        if s.owns_nothing || !s.may_have_effect() {
            continue;
        }
        // Children go with their map.
        let was = s.map.map_or(step, |map| state.graph.step(map));
        match graph.index_of(&was.name) {
            None => {
                return Err(format!(
                    "step {} may have made something and is not in the new definition",
                    step.name
                ));
            }
            Some(now) if !undone_alike(&was.kind, &graph.step(now).kind) => {
                return Err(format!(
                    "step {} may have made something, and the new definition calls something else there that could not take it back",
                    step.name
                ));
            }
            Some(_) => {}
        }
    }
    for name in reset {
        if graph.index_of(name).is_none() {
            return Err(format!("step {name} is not in the new definition"));
        }
    }
    Ok(())
}

/// Whether what a step made is taken back by what the other one calls.
fn undone_alike(was: &StepKind, now: &StepKind) -> bool {
    let same_kind = std::mem::discriminant(was) == std::mem::discriminant(now);
    match (was, now) {
        (StepKind::SubWorkflow { workflow: was, .. }, StepKind::SubWorkflow { workflow: now, .. }) => {
            was == now
        }
        _ => same_kind && was.activity() == now.activity(),
    }
}

/// Puts the new graph in place of the old one.
pub(super) fn upgrade(state: &mut RunState, graph: &Graph, reset: &[StepName], at: Timestamp) {
    again::reopen(state, at);
    let old = state.graph.clone();
    let mut steps = std::mem::take(&mut state.steps);
    let maps_known = std::mem::take(&mut state.maps);
    let waiting: Vec<StepName> = state.waiting.iter().map(|&ix| old.step(ix).name.clone()).collect();
    for set in [&mut state.prompt, &mut state.waiting] {
        set.clear();
    }
    state.ready.clear();
    state.timers.clear();
    state.start_by.clear();
    state.graph = graph.clone();
    state.retired = 0;
    state.failed_step = None;

    let mut fresh: Vec<_> = (0..graph.len()).map(|_| new_step(0)).collect();
    for (ix, step) in graph.steps().iter().enumerate() {
        if let Some(was) = old.index_of(&step.name).filter(|&was| steps[was as usize].map.is_none()) {
            fresh[ix] = std::mem::replace(&mut steps[was as usize], new_step(0));
        }
    }
    state.steps = fresh;
    // Children of maps that are still maps come after, with all they know.
    for (was, map) in maps_known {
        let Some(ix) = still_map(graph, &old.step(was).name) else { continue };
        carry_children(state, &old, &mut steps, ix, &map.children);
        let moved = |was: &StepIx| state.graph.index_of(&old.step(*was).name).expect("carried");
        let children = map.children.iter().map(moved).collect();
        let queue = map.queue.iter().map(moved).collect();
        state.maps.insert(ix, crate::run::state::MapState { children, queue, ..map });
    }
    for (was, s) in (0..).zip(std::mem::take(&mut steps)) {
        let (Some(map), true) = (s.map, s.retired) else { continue };
        let name = old.step(was).name.clone();
        let Some(ix) = still_map(graph, &old.step(map).name) else { continue };
        if state.graph.index_of(&name).is_none() {
            let item = s.input.as_deref().cloned().unwrap_or_default();
            state.graph = state.graph.with_children(ix, &[(name, item)]);
            state.steps.push(crate::run::state::StepState { map: Some(ix), ..s });
        }
    }
    state.retired = u32::try_from(state.steps.iter().filter(|s| s.retired).count()).expect("limited");

    let again_from: BTreeSet<StepIx> =
        reset.iter().map(|name| state.graph.index_of(name).expect("checked")).collect();
    recount(state, &again_from, &waiting);
}

fn still_map(graph: &Graph, name: &StepName) -> Option<StepIx> {
    graph.index_of(name).filter(|&ix| matches!(graph.step(ix).kind, StepKind::Map { .. }))
}

fn carry_children(
    state: &mut RunState,
    old: &Graph,
    steps: &mut [crate::run::state::StepState],
    map: StepIx,
    children: &[StepIx],
) {
    let named: Vec<_> = children
        .iter()
        .map(|&child| {
            let step = old.step(child);
            let item = match &step.kind {
                StepKind::Activity { input: crate::graph::Binding::Literal { value }, .. } => value.clone(),
                _ => serde_json::Value::Null,
            };
            (step.name.clone(), item)
        })
        .collect();
    state.graph = state.graph.with_children(map, &named);
    for &child in children {
        let s = std::mem::replace(&mut steps[child as usize], new_step(0));
        state.steps.push(crate::run::state::StepState { map: Some(map), ..s });
    }
}

/// Everything that is counted is counted anew: the old numbers belong to another graph.
fn recount(state: &mut RunState, reset: &BTreeSet<StepIx>, waiting: &[StepName]) {
    let graph = state.graph.clone();
    // In topological order and all the way down: what depends on a step that is done again is done again.
    let again: Vec<StepIx> = graph.order().iter().copied().filter(|ix| reset.contains(ix)).collect();
    for &ix in &again {
        if state.maps.contains_key(&ix) {
            maps::retire(state, ix);
        }
    }
    for &ix in &again {
        again::make_pending(state, ix);
    }
    state.done = u32::try_from(state.steps.iter().filter(|s| s.status.is_done()).count()).expect("limited");
    for ix in 0..StepIx::try_from(graph.len()).expect("a checked graph") {
        let missing =
            graph.dependencies(ix).iter().filter(|&&d| !state.steps[d as usize].is_settled()).count();
        state.steps[ix as usize].missing = u32::try_from(missing).expect("limited");
    }
    for ix in 0..StepIx::try_from(graph.len()).expect("a checked graph") {
        again::settle_in(state, ix, waiting.contains(&graph.step(ix).name));
    }
}
