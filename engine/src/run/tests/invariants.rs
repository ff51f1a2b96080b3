//! What holds of every state that events lead to, whatever they were: the sets that `decide` reads agree with the
//! steps, what is counted is there, and nothing that could go on is forgotten.

use std::collections::BTreeSet;

use crate::graph::{StepIx, StepKind};
use crate::run::state::{RunState, UndoRole};
use crate::run::{RunStatus, StepStatus as S};

/// Everything that does not hold.
pub(super) fn broken(state: &RunState) -> Vec<String> {
    let mut found = Vec::new();
    for ix in 0..StepIx::try_from(state.steps.len()).unwrap() {
        step(state, ix, &mut found);
    }
    sets(state, &mut found);
    maps(state, &mut found);
    run(state, &mut found);
    found
}

fn step(state: &RunState, ix: StepIx, found: &mut Vec<String>) {
    let (s, kind) = (&state.steps[ix as usize], &state.graph.step(ix).kind);
    let mut hold = |holds: bool, what: &str| {
        if !holds {
            let name = &state.graph.step(ix).name;
            found.push(format!("{name} ({}, missing {}, undo {:?}): {what}", s.status, s.missing, s.undo));
        }
    };
    let attempted = matches!(kind, StepKind::Activity { .. } | StepKind::SubWorkflow { .. });
    let waits_outside =
        matches!(kind, StepKind::Gate { .. } | StepKind::Sleep { .. } | StepKind::Signal { .. });
    let ready = state.ready.iter().any(|&(_, r)| r == ix);
    let (prompt, waiting) = (state.prompt.contains(&ix), state.waiting.contains(&ix));
    let timer = state.timers.iter().any(|&(_, t)| t == ix);
    let flies = state.in_flight.contains_key(&ix);
    let going = state.finished.is_none();
    hold(s.map.is_some() == (ix as usize >= state.graph.own_len()), "children are children of a map");
    hold(!s.retired || s.status == S::Cancelled || state.rolling_back, "put aside and not cancelled");
    hold(!(s.retired && (ready || flies || timer) && !state.rolling_back), "put aside and going on");
    hold(!prompt || !attempted, "prompt and attempted");
    hold(!ready || attempted, "ready and not attempted");
    hold(!s.tolerated || s.status == S::Failed || state.rolling_back, "tolerated and not failed");
    let places = [ready, prompt, waiting, flies, timer && !waiting].into_iter().filter(|p| *p).count();
    hold(places <= 1, "in two places at once");
    if state.rolling_back {
        let behind = state.graph.dependents(ix).iter().filter(|&&d| !passed(state, d)).count();
        hold(s.undo_missing as usize == behind, &format!("{} undos before it, not {behind}", s.undo_missing));
        hold(s.undo != UndoRole::None, "no part in the rollback");
        let turn = s.undo == UndoRole::Wanted && s.undo_missing == 0;
        if going {
            hold(turn == (places == 1), "its turn to be taken back and nothing will");
        } else {
            hold(places == 0, "going on after the end");
        }
        return;
    }
    let missing = state.graph.dependencies(ix).iter().filter(|&&d| !state.steps[d as usize].is_settled());
    let missing = missing.count();
    hold(s.missing as usize == missing, &format!("{missing} dependencies are not settled"));
    let queued = s.map.and_then(|m| state.maps.get(&m)).is_some_and(|m| m.queue.contains(&ix));
    hold(flies == (s.status == S::Running), "running and in flight are the same");
    hold(s.undo == UndoRole::None, "has a part in a rollback");
    match s.status {
        S::Ready => {
            hold(s.missing == 0 && !queued, "ready too early");
            hold(!going || (if attempted { ready } else { prompt }), "ready and forgotten");
        }
        S::Backoff => hold(!going || (timer && !ready), "in backoff without a timer"),
        S::Waiting if waits_outside => hold(!going || waiting, "waiting and forgotten"),
        S::Waiting if state.maps.contains_key(&ix) => hold(s.missing > 0, "a map waits for nothing"),
        S::Waiting => hold(!going || timer, "waiting without a timer"),
        S::Pending => hold(s.missing > 0 || queued, "pending and nothing will start it"),
        S::Running | S::Succeeded | S::Adopted | S::Failed | S::Skipped | S::Cancelled => {}
        S::Compensating | S::Compensated | S::Kept | S::CompensationFailed => hold(false, "taken back"),
    }
    let still =
        matches!(s.status, S::Pending | S::Succeeded | S::Adopted | S::Failed | S::Skipped | S::Cancelled);
    hold(!still || places == 0, "stands still and goes on");
}

/// Whether a step no longer holds up the undo of what it depends on.
fn passed(state: &RunState, ix: StepIx) -> bool {
    let s = &state.steps[ix as usize];
    s.undo == UndoRole::Resolved && s.undo_missing == 0
}

fn sets(state: &RunState, found: &mut Vec<String>) {
    let steps = || (0..).zip(&state.steps);
    if state.finished.is_none() {
        let timers: BTreeSet<_> = steps().filter_map(|(ix, s)| s.wake.map(|at| (at, ix))).collect();
        if timers != state.timers {
            found.push(format!("timers {:?}, but the steps say {timers:?}", state.timers));
        }
        let start_by: BTreeSet<_> = steps().filter_map(|(ix, s)| s.start_by_ms.map(|by| (by, ix))).collect();
        if start_by != state.start_by {
            found.push(format!("limits on starts {:?}, but the steps say {start_by:?}", state.start_by));
        }
    }
    if let Some((_, ix)) = state.start_by.iter().find(|(_, ix)| !state.ready.iter().any(|(_, r)| r == ix)) {
        found.push(format!("step {ix} has to start by a time and may not"));
    }
    for &(order, ix) in &state.ready {
        let rank = state.graph.rank(ix);
        if order != if state.rolling_back { u32::MAX - rank } else { rank } {
            found.push(format!("step {ix} of rank {rank} is ready in place {order}"));
        }
    }
}

fn maps(state: &RunState, found: &mut Vec<String>) {
    for (&ix, map) in &state.maps {
        let mut hold = |holds: bool, what: String| {
            if !holds {
                found.push(format!("map {}: {what}", state.graph.step(ix).name));
            }
        };
        let child = |ix: &StepIx| &state.steps[*ix as usize];
        for c in &map.children {
            hold(child(c).map == Some(ix) && !child(c).retired, format!("{c} is no child of it"));
        }
        let failed = map.children.iter().filter(|c| child(c).tolerated).count();
        if state.rolling_back {
            continue;
        }
        hold(
            map.failed as usize == failed,
            format!("{} failures are counted, {failed} are there", map.failed),
        );
        let unique: BTreeSet<_> = map.queue.iter().collect();
        hold(unique.len() == map.queue.len(), "a child is queued twice".to_owned());
        hold(map.queue.iter().all(|c| map.children.contains(c)), "a stranger is queued".to_owned());
        hold(map.queue.iter().all(|c| child(c).status == S::Pending), "a queued child went on".to_owned());
        let open = map.children.iter().filter(|c| !child(c).is_settled() && !map.queue.contains(c)).count();
        let StepKind::Map { max_concurrency: limit, .. } = state.graph.step(ix).kind else {
            hold(false, "it is no map".to_owned());
            continue;
        };
        hold(limit == 0 || open <= limit as usize, format!("{open} children go on, {limit} may"));
        hold(map.queue.is_empty() || open == limit as usize, format!("{open} go on and others are queued"));
    }
}

fn run(state: &RunState, found: &mut Vec<String>) {
    let mut hold = |holds: bool, what: &str| {
        if !holds {
            found.push(what.to_owned());
        }
    };
    let count =
        |f: &dyn Fn(&crate::run::state::StepState) -> bool| state.steps.iter().filter(|s| f(s)).count();
    hold(state.rolling_back || state.done as usize == count(&|s| s.status.is_done()), "done is miscounted");
    hold(state.retired as usize == count(&|s| s.retired), "those put aside are miscounted");
    if state.rolling_back {
        hold(state.undo_left as usize == count(&|s| s.undo == UndoRole::Wanted), "undos left are miscounted");
        hold(state.stuck.len() == count(&|s| s.undo == UndoRole::Stuck), "stuck undos are miscounted");
        hold(state.maps.keys().all(|m| !state.prompt.contains(m)), "a map goes on in a rollback");
    }
    if state.finished.is_some() {
        hold(state.ready.is_empty() && state.prompt.is_empty(), "ready after the end");
        hold(state.timers.is_empty() && state.waiting.is_empty(), "waiting after the end");
        hold(state.in_flight.is_empty() && state.start_by.is_empty(), "acting after the end");
        hold(state.finished_at.is_some(), "ended at no time");
    }
    hold(state.paused.is_none() || state.in_flight.is_empty(), "paused and acting");
    hold(state.paused.is_some() == state.paused_at.is_some(), "paused at no time");
    if state.finished == Some(RunStatus::Succeeded) {
        hold(state.steps.iter().all(crate::run::state::StepState::is_settled), "succeeded and not done");
    }
}
