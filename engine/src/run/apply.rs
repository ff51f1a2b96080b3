//! The only way state changes: one event at a time. An event that does not fit is an error and changes nothing.

mod again;
mod change;
mod check;
mod maps;
mod restore;
mod steps;
mod upgrade;

use std::sync::Arc;

pub(crate) use maps::{child_name, collect};
pub(crate) use restore::restored_note;
pub(super) use steps::{fresh_budget, schedule};

use crate::activity::Effect;
use crate::event::{Event, EventKind};
use crate::graph::{Graph, StepIx};
use crate::id::RunId;
use crate::run::StepStatus;
use crate::run::state::{Ledger, RunState, StepState, UndoRole};

/// An event that does not fit the state it met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {seq} does not fit: {why}")]
pub struct IllegalEvent {
    /// The event's number.
    pub seq: u64,
    /// Both sides of the mismatch.
    pub why: String,
}

/// Makes the state of a new run from its first event.
///
/// # Errors
/// When the event is not `RunCreated` number 1, or names another graph.
pub fn create(id: RunId, graph: Graph, event: &Event) -> Result<RunState, IllegalEvent> {
    let refuse = |why: String| Err(IllegalEvent { seq: event.seq, why });
    let EventKind::RunCreated {
        workflow,
        workflow_version,
        site,
        graph: hash,
        input,
        options,
        labels,
        request,
        parent,
        forked_from,
        shapes,
        scheduled,
        ..
    } = &event.kind
    else {
        return refuse("a history starts with run_created".to_owned());
    };
    if event.seq != 1 {
        return refuse("run_created is event 1".to_owned());
    }
    if hash != graph.hash() {
        return refuse(format!("the run was made with graph {}, not {}", hash.0, graph.hash().0));
    }
    let total = StepIx::try_from(graph.len()).expect("a checked graph");
    let mut state = RunState {
        id,
        workflow: workflow.clone(),
        workflow_version: *workflow_version,
        site: site.clone(),
        input: Arc::new(input.clone()),
        options: options.clone(),
        labels: labels.clone(),
        request: request.clone(),
        seq: 1,
        created: event.at,
        updated: event.at,
        suspended_ms: 0,
        steps: (0..total)
            .map(|ix| new_step(u32::try_from(graph.dependencies(ix).len()).expect("limited")))
            .collect(),
        ready: Default::default(),
        prompt: Default::default(),
        timers: Default::default(),
        in_flight: Default::default(),
        waiting: Default::default(),
        start_by: Default::default(),
        signals: Default::default(),
        maps: Default::default(),
        done: 0,
        retired: 0,
        recoveries: 0,
        rolling_back: false,
        undo_left: 0,
        stuck: Default::default(),
        halt: None,
        pause_reason: None,
        paused: None,
        paused_at: None,
        finished: None,
        finished_at: None,
        time_from_ms: event.at.as_millis(),
        failed_step: None,
        output: None,
        error: None,
        parent: parent.clone(),
        forked_from: forked_from.clone(),
        scheduled: scheduled.as_deref().cloned().map(Arc::new),
        restored: None,
        imported: None,
        shapes: shapes.clone(),
        known_graphs: Default::default(),
        graph,
    };
    for ix in 0..total {
        if state.steps[ix as usize].missing == 0 {
            schedule(&mut state, ix);
        }
    }
    Ok(state)
}

fn new_step(missing: u32) -> StepState {
    StepState {
        status: StepStatus::Pending,
        missing,
        attempt: 0,
        failures: 0,
        rule_failures: Default::default(),
        throttles: 0,
        generation: 1,
        ledger: Ledger::Untouched,
        intent: false,
        effect: Effect::Idempotent,
        probed: false,
        owns_nothing: false,
        replacing: false,
        unproven: false,
        adopt: false,
        asked: false,
        input: None,
        past_inputs: Vec::new(),
        output: None,
        resources: Vec::new(),
        before: Default::default(),
        heartbeat: None,
        error: None,
        wake: None,
        start_by_ms: None,
        map: None,
        retired: false,
        tolerated: false,
        budget_start_ms: None,
        started: None,
        ended: None,
        undo: UndoRole::None,
        undo_missing: 0,
        kept: None,
    }
}

/// Takes in one fact.
///
/// # Errors
/// [`IllegalEvent`] when it does not fit; the state stays as it was.
pub fn apply(state: &mut RunState, event: &Event) -> Result<(), IllegalEvent> {
    check::check(state, event).map_err(|why| IllegalEvent { seq: event.seq, why })?;
    state.seq = event.seq;
    state.updated = event.at;
    change::change(state, event);
    Ok(())
}
