//! Maps: their list becomes steps of the run, which are let go a few at a time and collected at the end.

use serde_json::Value;

use crate::graph::{MAX_STEPS, StepIx, StepKind};
use crate::id::StepName;
use crate::run::StepStatus;
use crate::run::apply::steps::{schedule, unschedule};
use crate::run::apply::{again, new_step};
use crate::run::state::{MapState, RunState};

/// The name of a child.
///
/// # Errors
/// When the key makes no name.
pub(crate) fn child_name(map: &StepName, key: &str) -> Result<StepName, String> {
    StepName::new(format!("{map}[{key}]")).map_err(|e| e.to_string())
}

/// What is wrong with the list of a map.
pub(super) fn check_expansion(
    state: &RunState,
    ix: StepIx,
    keys: &[String],
    items: &[Value],
) -> Result<(), String> {
    let step = state.graph.step(ix);
    if !matches!(step.kind, StepKind::Map { .. }) {
        return Err(format!("{} is no map", step.name));
    }
    if state.maps.contains_key(&ix) {
        return Err(format!("the list of {} is known already", step.name));
    }
    if keys.len() != items.len() {
        return Err(format!("{} keys for {} items", keys.len(), items.len()));
    }
    if state.steps.len() + items.len() > MAX_STEPS {
        return Err(format!("with {} children the run has more than {MAX_STEPS} steps", items.len()));
    }
    let mut seen = std::collections::BTreeSet::new();
    for key in keys {
        let name = child_name(&step.name, key)?;
        if !seen.insert(key) {
            return Err(format!("two children are named {name}"));
        }
    }
    Ok(())
}

/// The children become steps. Those of an earlier reading of the list are taken up again where their key is the same.
pub(super) fn expand(state: &mut RunState, ix: StepIx, keys: &[String], items: &[Value]) {
    let map = state.graph.step(ix).clone();
    let StepKind::Map { max_concurrency, .. } = &map.kind else { unreachable!("checked") };
    let named: Vec<(StepName, Value)> = keys
        .iter()
        .zip(items)
        .map(|(key, item)| (child_name(&map.name, key).expect("checked"), item.clone()))
        .collect();
    state.graph = state.graph.with_children(ix, &named);
    while state.steps.len() < state.graph.len() {
        let mut child = new_step(0);
        child.map = Some(ix);
        state.steps.push(child);
    }
    let children: Vec<StepIx> =
        named.iter().map(|(name, _)| state.graph.index_of(name).expect("added a moment ago")).collect();
    for &child in &children {
        let s = &mut state.steps[child as usize];
        if s.retired {
            s.retired = false;
            state.retired -= 1;
            again::make_pending(state, child);
            state.steps[child as usize].missing = 0;
        }
    }
    unschedule(state, ix);
    let parent = &mut state.steps[ix as usize];
    parent.missing = u32::try_from(children.len()).expect("limited");
    parent.status = StepStatus::Waiting;
    parent.started.get_or_insert(state.updated);
    let at_once = if *max_concurrency == 0 { children.len() } else { *max_concurrency as usize };
    let first: Vec<StepIx> = children.iter().copied().take(at_once).collect();
    let queue = children.iter().copied().skip(at_once).collect();
    let empty = children.is_empty();
    state.maps.insert(ix, MapState { children, queue, failed: 0 });
    for child in first {
        schedule(state, child);
    }
    if empty {
        schedule(state, ix);
    }
}

/// A child is done or failed for good: the next one may go on, and the map is collected when none is left.
pub(super) fn child_ended(state: &mut RunState, child: StepIx) {
    let Some(parent) = state.steps[child as usize].map else { return };
    let Some(map) = state.maps.get_mut(&parent) else { return };
    // A child that somebody skipped or completed may end before its turn has come.
    let waited = map.queue.iter().position(|&queued| queued == child).and_then(|at| map.queue.remove(at));
    if waited.is_none()
        && let Some(next) = map.queue.pop_front()
        && state.steps[next as usize].missing == 0
    {
        schedule(state, next);
    }
    let s = &state.steps[parent as usize];
    if s.missing == 0 && s.status == StepStatus::Waiting {
        schedule(state, parent);
    }
}

/// Whether a child's turn has come; always, for a step that is none.
pub(super) fn has_turn(state: &RunState, ix: StepIx) -> bool {
    let map = state.steps[ix as usize].map.and_then(|map| state.maps.get(&map));
    map.is_none_or(|map| !map.queue.contains(&ix))
}

/// A child is to be done once more: at once, or when another one has ended.
pub(super) fn line_up(state: &mut RunState, child: StepIx) {
    let Some(parent) = state.steps[child as usize].map else { return schedule(state, child) };
    let StepKind::Map { max_concurrency, .. } = state.graph.step(parent).kind else {
        unreachable!("checked")
    };
    let goes_on =
        |c: &&StepIx| **c != child && !state.steps[**c as usize].is_settled() && has_turn(state, **c);
    let open = state.maps.get(&parent).map_or(0, |map| map.children.iter().filter(goes_on).count());
    match state.maps.get_mut(&parent) {
        Some(map) if max_concurrency > 0 && open >= max_concurrency as usize => map.queue.push_back(child),
        _ => schedule(state, child),
    }
}

/// What a map gives: its children's outputs in order, null where one failed or was skipped.
pub(crate) fn collect(state: &RunState, ix: StepIx) -> Value {
    let children = state.maps.get(&ix).map(|map| map.children.as_slice()).unwrap_or_default();
    Value::Array(
        children
            .iter()
            .map(|&child| {
                let s = &state.steps[child as usize];
                let done = matches!(s.status, StepStatus::Succeeded | StepStatus::Adopted);
                s.output.as_deref().filter(|_| done).cloned().unwrap_or(Value::Null)
            })
            .collect(),
    )
}

/// The list will be read again: the children of the last reading are put aside, with whatever they made.
pub(super) fn retire(state: &mut RunState, ix: StepIx) {
    let Some(map) = state.maps.remove(&ix) else { return };
    for child in map.children {
        unschedule(state, child);
        let s = &mut state.steps[child as usize];
        if s.status.is_done() {
            state.done -= 1;
        }
        (s.retired, s.tolerated) = (true, false);
        s.status = StepStatus::Cancelled;
        state.retired += 1;
    }
}
