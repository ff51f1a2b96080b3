//! What people see of a run: a plain, serialisable picture of its state, and the reasons why it does not move.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::activity::{ActivityError, Resource};
use crate::event::{ForkedFrom, Parent, PauseReason, Phase, Request};
use crate::graph::{StepIx, StepKind};
use crate::id::{RunId, StepName, StoreId};
use crate::run::decide::waiting_for;
use crate::run::state::{Ledger, RunState};
use crate::run::{RunOptions, RunStatus, StepStatus};
use crate::schedule::Scheduled;
use crate::time::Timestamp;

/// One run, for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct RunView {
    /// Its id.
    pub run: RunId,
    /// Its workflow.
    pub workflow: String,
    /// Its site, or empty.
    pub site: String,
    /// Where it stands.
    pub status: RunStatus,
    /// When it was created.
    pub created: Timestamp,
    /// When its last event happened.
    pub updated: Timestamp,
    /// Number of the last event.
    pub seq: u64,
    /// Who created it.
    pub request: Request,
    /// How it behaves.
    pub options: RunOptions,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether something it made may still be out there.
    pub live: bool,
    /// Whether it goes backwards.
    pub rolling_back: bool,
    /// Why it stands still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<PauseReason>,
    /// The step that failed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_step: Option<StepName>,
    /// What it returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why it could not return it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ActivityError>,
    /// The workflow's version.
    #[serde(default)]
    pub workflow_version: u32,
    /// The run that started it as a step of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The run it took its first steps from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<ForkedFrom>,
    /// The schedule that started it, and what it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<Scheduled>,
    /// When the backup was made that its store was last put back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Timestamp>,
    /// The store it is of, when it is here as history only: nothing can be done to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<StoreId>,
    /// Its steps, in topological order.
    pub steps: Vec<StepView>,
}

/// One step of a [`RunView`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct StepView {
    /// Its name.
    pub step: StepName,
    /// A heading to show it under.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub group: String,
    /// One line on what it does.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub title: String,
    /// What kind of step it is: `activity`, `gate`, `map`, `sub-workflow`, `sleep`, `signal`.
    #[serde(default)]
    pub kind: String,
    /// The activity.
    pub activity: String,
    /// The map whose item it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<StepName>,
    /// Whether it failed for good and its map goes on without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tolerated: bool,
    /// Where it stands.
    pub status: StepStatus,
    /// Attempts of any phase so far.
    pub attempt: u32,
    /// Failed attempts of the present budget.
    pub failures: u32,
    /// Attempts the policy allows.
    pub maximum_attempts: u32,
    /// From 1.
    pub generation: u32,
    /// What an attempt under way is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What is known of its effect: `none`, `intent`, `done`, `no_effect`, `not_ours`, `unknown`.
    pub effect: String,
    /// What somebody or something outside has to do before it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Awaited>,
    /// When it is looked at again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake: Option<Timestamp>,
    /// When it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// How long it usually takes, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_ms: Option<u64>,
    /// Of how many earlier steps that is the median; 0 when it is what the workflow says.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub expected_by: u32,
    /// What it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub waits_for: Vec<StepName>,
    /// What must be done before it, for pictures.
    pub after: Vec<StepName>,
    /// The last error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ActivityError>,
    /// Details of the last durable heartbeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Value>,
    /// What it made that is still there.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub resources: Vec<Resource>,
    /// Its output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Whether something of this run may be out there because of it.
    pub live: bool,
    /// Why it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What a step waits for outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "for")]
#[non_exhaustive]
pub enum Awaited {
    /// Somebody's decision.
    Decision {
        /// What is asked.
        question: String,
    },
    /// A signal.
    Signal {
        /// Its name.
        signal: String,
    },
    /// An hour.
    Time,
}

/// Makes the picture.
pub fn view(state: &RunState) -> RunView {
    let name = |ix: StepIx| state.graph.step(ix).name.clone();
    let steps = state.graph.order().iter().map(|&ix| step_view(state, ix)).collect();
    RunView {
        run: state.id.clone(),
        workflow: state.workflow.to_string(),
        site: state.site.clone(),
        status: state.status(),
        created: state.created,
        updated: state.updated,
        seq: state.seq,
        request: state.request.clone(),
        options: state.options.clone(),
        labels: state.labels.clone(),
        live: state.is_live(),
        rolling_back: state.rolling_back,
        paused: state.paused.clone(),
        failed_step: state.failed_step.map(name),
        output: state.output.as_deref().cloned(),
        error: state.error.clone(),
        workflow_version: state.workflow_version,
        parent: state.parent.clone(),
        forked_from: state.forked_from.clone(),
        scheduled: state.scheduled.as_deref().cloned(),
        restored: state.restored.map(|restored| restored.backup),
        imported: state.imported.as_ref().map(|imported| imported.store.clone()),
        steps,
    }
}

/// A step that was about to go on when the run was cancelled is shown as cancelled; it still goes on if the run does.
fn shown(state: &RunState, status: StepStatus) -> StepStatus {
    match status {
        StepStatus::Ready | StepStatus::Backoff | StepStatus::Waiting
            if state.finished == Some(RunStatus::Cancelled) =>
        {
            StepStatus::Cancelled
        }
        status => status,
    }
}

fn step_view(state: &RunState, ix: StepIx) -> StepView {
    let name = |&ix: &StepIx| state.graph.step(ix).name.clone();
    let (step, s) = (state.graph.step(ix), &state.steps[ix as usize]);
    let activity = match &step.kind {
        StepKind::Activity { activity, .. } | StepKind::Map { activity, .. } => activity.to_string(),
        StepKind::SubWorkflow { workflow, .. } => workflow.clone(),
        kind @ (StepKind::Gate { .. } | StepKind::Sleep { .. } | StepKind::Signal { .. }) => {
            kind.word().to_owned()
        }
    };
    let waits_for_what = match &step.kind {
        _ if !state.waiting.contains(&ix) => None,
        StepKind::Gate { question, .. } => Some(Awaited::Decision { question: question.clone() }),
        StepKind::Signal { signal, .. } => Some(Awaited::Signal { signal: signal.clone() }),
        _ => Some(Awaited::Time),
    };
    let policy = if state.rolling_back { step.undo_policy() } else { step.retry.clone() };
    StepView {
        step: step.name.clone(),
        group: step.group.clone(),
        title: step.title.clone(),
        kind: step.kind.word().to_owned(),
        activity,
        map: s.map.as_ref().map(name),
        tolerated: s.tolerated,
        status: shown(state, s.status),
        attempt: s.attempt,
        failures: s.failures,
        maximum_attempts: policy.maximum_attempts,
        generation: s.generation,
        phase: state.in_flight.get(&ix).map(|f| f.phase),
        effect: match s.ledger {
            Ledger::Untouched => "none",
            Ledger::Intent => "intent",
            Ledger::Done => "done",
            Ledger::NoEffect => "no_effect",
            Ledger::NotOurs => "not_ours",
            Ledger::Unknown { .. } => "unknown",
        }
        .to_owned(),
        awaits: waits_for_what,
        wake: s.wake,
        started: s.started,
        ended: s.ended,
        expected_ms: step.expected_ms,
        expected_by: 0,
        waits_for: waiting_for(state, ix).iter().map(name).collect(),
        after: state.graph.dependencies(ix).iter().map(name).collect(),
        error: s.error.clone(),
        heartbeat: if state.in_flight.contains_key(&ix) { s.heartbeat.clone() } else { None },
        resources: if s.may_have_effect() { s.resources.clone() } else { Vec::new() },
        output: s.output.as_deref().cloned(),
        live: s.may_have_effect(),
        kept: s.kept.clone(),
    }
}
