//! The history of a run: facts in the past tense, each with its number and time.
//!
//! Whatever depended on chance or time when a decision was made (a retry's wake time, a resolved input) stands in
//! the event, so that replay needs neither. Times are [`Timestamp`]s; everything else is plain data without
//! secrets.
//!
//! # Format changelog
//! - 1: the first.
//! - 2: waits (gates, sleeps, signals), maps, sub-workflows, what a run returns, the operator's verbs, upgrades; a run's
//!   parent, source and shapes of types; runs of a store that was put back to a backup, and runs of another store.
//!   Fields that are new have defaults, so format 1 reads as it was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::activity::{ActivityError, Effect, Owner, Probe, Resource, Shapes, Undo};
use crate::id::{ActivityName, RunId, StepName, StoreId, WorkflowName};
use crate::run::{RunOptions, RunStatus};
use crate::schedule::Scheduled;
use crate::store::GraphHash;
use crate::time::Timestamp;

/// The format of events that this version writes. It reads all up to this one.
pub const EVENT_FORMAT: u16 = 2;

/// What an attempt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// To do the step's work (with a look first, where the activity has a probe).
    Execute,
    /// Only to find out what an earlier attempt did.
    Probe,
    /// To take back what the step did.
    Compensate,
}

/// What follows a failed, lost or inconclusive attempt; decided when the event was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "then")]
pub enum Next {
    /// Another attempt at this time.
    At {
        /// The wake time.
        at: Timestamp,
    },
    /// Another attempt at once.
    Now,
    /// The run pauses; the step is tried again on resume.
    Pause,
    /// The step failed for good, and the run with it.
    Fail,
    /// The step failed for good, and the run takes back what it made.
    Rollback,
    /// The step failed for good, and its map goes on without it.
    Tolerate,
    /// The compensation failed for good; the rest goes on.
    Stuck,
}

/// Why an attempt ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LostCause {
    /// The process that ran it ended.
    Crash,
    /// The run was told to stop and the attempt did not answer in time, or changes nothing anyway.
    Interrupted,
}

/// Who asked for something, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// Who: a user name, a process, a schedule.
    pub by: String,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl Request {
    /// A request by `by` without a reason.
    pub fn by(by: impl Into<String>) -> Self {
        Self { by: by.into(), reason: String::new() }
    }
}

/// What a cancelled run does with what it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CancelMode {
    /// Leaves it.
    Keep,
    /// Takes it back.
    Rollback,
    /// Leaves it, and ends at once: attempts under way are not waited for, and a rollback is left as it is.
    Terminate,
}

/// How an operator closes the undo of a step that could not be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UndoMark {
    /// It was taken back by hand.
    Undone,
    /// It stays where it is.
    Abandoned,
}

/// What an operator wants of steps that are run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Again {
    /// A step that failed or waits is tried at once, with a fresh budget.
    Retry,
    /// Steps are done again, whatever they were.
    Rerun,
    /// A step that found something which is not ours in its place is tried at once, and may take that from now on: it is
    /// then used as it is and never taken back.
    Adopt,
}

/// The step of another run that started a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Parent {
    /// The run.
    pub run: RunId,
    /// Its step.
    pub step: StepName,
}

/// The run that a run took its first steps from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ForkedFrom {
    /// The run.
    pub run: RunId,
    /// Its last event at that moment.
    pub seq: u64,
    /// The step that is done again first.
    pub from: StepName,
}

/// Hashes of the types that activities took and gave when the run was made; see [`crate::shape`].
pub type ActivityShapes = BTreeMap<ActivityName, Shapes>;

/// Why a run paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PauseKind {
    /// Somebody asked.
    Requested,
    /// A step used up its attempts.
    Exhausted,
    /// Credentials are missing, expired or denied.
    Credentials,
    /// A person has to decide something.
    NeedsHuman,
    /// It was recovered over and over without getting on: perhaps it is what ends the process.
    CrashLoop,
    /// Its store was put back to a backup; somebody has to say that it may go on.
    Restored,
}

/// Why a run paused, in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PauseReason {
    /// The kind.
    pub kind: PauseKind,
    /// The step concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepName>,
    /// For people.
    pub message: String,
}

/// One fact of a run's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    /// Its number in the run, from 1, without gaps.
    pub seq: u64,
    /// When it happened; never earlier than the event before it.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum EventKind {
    /// The run exists. Always the first.
    RunCreated {
        /// [`EVENT_FORMAT`] of the writer.
        format: u16,
        /// The workflow.
        workflow: WorkflowName,
        /// The workflow's version.
        workflow_version: u32,
        /// The site, or empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        site: String,
        /// The graph, stored apart under its hash.
        graph: GraphHash,
        /// What the run was given, without secrets.
        input: Value,
        /// How it behaves.
        options: RunOptions,
        /// Free words to find it by.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        /// Who asked.
        #[serde(default)]
        request: Request,
        /// The run that started it as a step of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<Parent>,
        /// The run it took its first steps from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        forked_from: Option<ForkedFrom>,
        /// Shapes of the types that its activities take and give.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        shapes: ActivityShapes,
        /// The schedule that started it, and what it tells the run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scheduled: Option<Box<Scheduled>>,
    },
    /// Another process (or the same one, later) took the run over.
    RunRecovered {
        /// The store epoch of the new owner.
        epoch: u64,
        /// How long nobody owned it, in milliseconds; timeouts do not count it.
        gap_ms: u64,
        /// [`EVENT_FORMAT`] of the new owner.
        #[serde(default = "first_format")]
        format: u16,
    },
    /// Its store was put back to a backup of it. What the run did since the backup is not known here: it pauses, what
    /// was in flight is lost, and from here on every step that can be probed is looked at before it acts, until it is
    /// known anew.
    RunRestored {
        /// [`EVENT_FORMAT`] of the writer.
        format: u16,
        /// When the backup was made.
        backup: Timestamp,
        /// How long nobody owned the run, in milliseconds; timeouts do not count it.
        gap_ms: u64,
        /// Who and why.
        request: Request,
    },
    /// It was brought here from another store, as history: nothing happens to it any more.
    RunImported {
        /// [`EVENT_FORMAT`] of the writer.
        format: u16,
        /// The store it is of.
        store: StoreId,
        /// When the backup was made that it came in.
        backup: Timestamp,
        /// Who and why.
        request: Request,
    },
    /// An attempt is about to act: the intent. Durable before anything is done.
    AttemptStarted {
        /// The step.
        step: StepName,
        /// Counts all attempts of the step, from 1.
        attempt: u32,
        /// What it is for.
        phase: Phase,
        /// The step's generation.
        generation: u32,
        /// What kind of effect the activity has.
        effect: Effect,
        /// Whether the activity can be probed.
        probed: bool,
        /// Whether what it does is nobody's to take back; see [`Activity::OWNS`](crate::activity::Activity::OWNS).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        owns_nothing: bool,
        /// The resolved input, when it differs from the one recorded last.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
        input: Option<Value>,
        /// When the attempt is ended by its timeout.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
    },
    /// The step is done.
    AttemptSucceeded {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// The step's output.
        output: Value,
        /// Set when nothing had to be done because it was there: whose it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found: Option<Owner>,
    },
    /// An attempt to execute or probe failed.
    AttemptFailed {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// Why.
        error: ActivityError,
        /// What follows.
        next: Next,
    },
    /// An attempt ended without an answer.
    AttemptLost {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// Why.
        cause: LostCause,
    },
    /// A probe answered something other than "done".
    ProbeAnswered {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// The answer.
        answer: Probe<Value>,
        /// What follows.
        next: Next,
    },
    /// An attempt made something; its id is known.
    ResourceRecorded {
        /// The step.
        step: StepName,
        /// What it made.
        resource: Resource,
    },
    /// An attempt is about to change something; its old values are known. Keys recorded before keep their value.
    BeforeRecorded {
        /// The step.
        step: StepName,
        /// Old values by key.
        values: BTreeMap<String, Value>,
    },
    /// An attempt is alive.
    HeartbeatRecorded {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// Details, for people and the next attempt.
        details: Value,
    },
    /// The step's condition was false, or somebody wants it left out.
    StepSkipped {
        /// The step.
        step: StepName,
        /// Who and why, when somebody asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<Request>,
    },
    /// Somebody says that the step is done, and with what output.
    StepCompleted {
        /// The step.
        step: StepName,
        /// Its output.
        output: Value,
        /// Who and why.
        request: Request,
    },
    /// The step failed without an attempt: its input could not be resolved, it waited too long to start or for
    /// somebody's decision.
    StepFailed {
        /// The step.
        step: StepName,
        /// Why.
        error: ActivityError,
        /// What follows.
        next: Next,
    },
    /// Somebody wants steps run again.
    StepsReset {
        /// The step asked for, first, and for a rerun everything that depends on it.
        steps: Vec<StepName>,
        /// What is wanted.
        again: Again,
        /// Who and why.
        request: Request,
    },
    /// A gate, sleep or signal step waits.
    WaitStarted {
        /// The step.
        step: StepName,
        /// Until when at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// The time a step waited for has come: a sleep is over, or a default is taken.
    WaitEnded {
        /// The step.
        step: StepName,
        /// Its output.
        output: Value,
    },
    /// Somebody decided at a gate, or its time was over and its default decided.
    GateDecided {
        /// The step.
        step: StepName,
        /// What was decided.
        approved: bool,
        /// Who and why.
        request: Request,
        /// What follows when the step fails by it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Next>,
    },
    /// Somebody sent the run a signal. The first step that waits for it takes it, or the next that will.
    SignalReceived {
        /// Its name.
        signal: String,
        /// What it carries.
        payload: Value,
        /// Who and why.
        request: Request,
    },
    /// The list of a map is known.
    MapExpanded {
        /// The map.
        step: StepName,
        /// The part of each child's name in brackets.
        keys: Vec<String>,
        /// The input of each child.
        items: Vec<Value>,
    },
    /// The children of a map are done; its output is theirs.
    MapCollected {
        /// The map.
        step: StepName,
    },
    /// The run follows another definition from here on.
    RunUpgraded {
        /// The new graph, stored apart under its hash.
        graph: GraphHash,
        /// The new definition's version.
        workflow_version: u32,
        /// Steps that are done again because they or their inputs changed, with all that depends on them.
        reset: Vec<StepName>,
        /// Shapes of the types that its activities take and give now.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        shapes: ActivityShapes,
        /// Who and why.
        request: Request,
    },
    /// The output of a step that is done was brought to the type that its activity gives now.
    OutputMigrated {
        /// The step.
        step: StepName,
        /// The output in its new form.
        output: Value,
    },
    /// The run had no time left.
    RunTimedOut {},
    /// Somebody wants the run to pause.
    PauseRequested {
        /// Who and why.
        request: Request,
    },
    /// The run stands still until it is resumed.
    RunPaused {
        /// Why.
        reason: PauseReason,
    },
    /// The run goes on: failed steps are tried again with fresh budgets.
    RunResumed {
        /// Who and why.
        request: Request,
    },
    /// Somebody wants the run to end.
    CancelRequested {
        /// What happens to what it made.
        mode: CancelMode,
        /// Who and why.
        request: Request,
    },
    /// From here on the run only takes back.
    RollbackStarted {
        /// Steps that are left alone on request.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keep: Vec<StepName>,
        /// Only what depends on this step is taken back; everything when not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<StepName>,
        /// Who and why.
        request: Request,
    },
    /// A step was taken back, or had nothing to take back, or was kept by rule.
    CompensationSucceeded {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// How.
        undo: Undo,
    },
    /// An attempt to take a step back failed.
    CompensationFailed {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// Why.
        error: ActivityError,
        /// What follows.
        next: Next,
    },
    /// Failed compensations are tried again with fresh budgets.
    RollbackRetried {
        /// Who and why.
        request: Request,
    },
    /// Somebody closes the undo of a step that could not be taken back.
    UndoMarked {
        /// The step.
        step: StepName,
        /// How.
        mark: UndoMark,
        /// Who and why.
        request: Request,
    },
    /// The run ended.
    RunFinished {
        /// How: always an end.
        status: RunStatus,
        /// What it returns, when it succeeded and its graph says what.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
        output: Option<Value>,
        /// Why it could not return that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ActivityError>,
    },
}

impl EventKind {
    /// Who asked for it, where somebody did.
    pub(crate) fn request(&self) -> Option<&Request> {
        match self {
            Self::StepSkipped { request, .. } => request.as_ref(),
            Self::RunCreated { request, .. }
            | Self::StepCompleted { request, .. }
            | Self::StepsReset { request, .. }
            | Self::GateDecided { request, .. }
            | Self::SignalReceived { request, .. }
            | Self::RunUpgraded { request, .. }
            | Self::RunRestored { request, .. }
            | Self::RunImported { request, .. }
            | Self::PauseRequested { request, .. }
            | Self::RunResumed { request, .. }
            | Self::CancelRequested { request, .. }
            | Self::RollbackStarted { request, .. }
            | Self::RollbackRetried { request, .. }
            | Self::UndoMarked { request, .. } => Some(request),
            _ => None,
        }
    }

    /// The step it is about.
    pub fn step(&self) -> Option<&StepName> {
        match self {
            Self::AttemptStarted { step, .. }
            | Self::AttemptSucceeded { step, .. }
            | Self::AttemptFailed { step, .. }
            | Self::AttemptLost { step, .. }
            | Self::ProbeAnswered { step, .. }
            | Self::ResourceRecorded { step, .. }
            | Self::BeforeRecorded { step, .. }
            | Self::HeartbeatRecorded { step, .. }
            | Self::StepSkipped { step, .. }
            | Self::StepCompleted { step, .. }
            | Self::StepFailed { step, .. }
            | Self::WaitStarted { step, .. }
            | Self::WaitEnded { step, .. }
            | Self::GateDecided { step, .. }
            | Self::MapExpanded { step, .. }
            | Self::MapCollected { step }
            | Self::OutputMigrated { step, .. }
            | Self::UndoMarked { step, .. }
            | Self::CompensationSucceeded { step, .. }
            | Self::CompensationFailed { step, .. } => Some(step),
            Self::RunCreated { .. }
            | Self::RunRecovered { .. }
            | Self::RunRestored { .. }
            | Self::RunImported { .. }
            | Self::PauseRequested { .. }
            | Self::RunPaused { .. }
            | Self::RunResumed { .. }
            | Self::CancelRequested { .. }
            | Self::RollbackStarted { .. }
            | Self::RollbackRetried { .. }
            | Self::StepsReset { .. }
            | Self::SignalReceived { .. }
            | Self::RunUpgraded { .. }
            | Self::RunTimedOut {}
            | Self::RunFinished { .. } => None,
        }
    }
}

fn first_format() -> u16 {
    1
}

/// A field that is there is `Some`, also when it is null.
fn there<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Stored events that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a later version.
    #[error("the run was written in event format {found}; this version reads up to {EVENT_FORMAT}")]
    Newer {
        /// The format found.
        found: u16,
    },
    /// Not events.
    #[error("the record that starts at event {seq} cannot be read: {why}")]
    Unreadable {
        /// First sequence number of the record.
        seq: u64,
        /// Why.
        why: String,
    },
}

/// Encodes the events of one transition as one record.
///
/// # Panics
/// Never: events are plain data.
pub fn encode(events: &[Event]) -> Vec<u8> {
    serde_json::to_vec(events).expect("events are plain data")
}

/// Decodes one record.
///
/// # Errors
/// When the bytes are no events, the numbers do not fit, or a later version wrote them.
pub fn decode(first_seq: u64, bytes: &[u8]) -> Result<Vec<Event>, DecodeError> {
    let unreadable = |why: String| DecodeError::Unreadable { seq: first_seq, why };
    let events: Vec<Event> = serde_json::from_slice(bytes).map_err(|e| {
        // A newer run is named as such and not as damage.
        #[derive(Deserialize)]
        struct Peek {
            #[serde(default)]
            format: Option<u16>,
        }
        let formats = serde_json::from_slice::<Vec<Peek>>(bytes).unwrap_or_default();
        match formats.iter().filter_map(|p| p.format).find(|f| *f > EVENT_FORMAT) {
            Some(found) => DecodeError::Newer { found },
            None => unreadable(e.to_string()),
        }
    })?;
    let formats = events.iter().filter_map(|e| match &e.kind {
        EventKind::RunCreated { format, .. }
        | EventKind::RunRecovered { format, .. }
        | EventKind::RunRestored { format, .. }
        | EventKind::RunImported { format, .. } => Some(*format),
        _ => None,
    });
    if let Some(found) = formats.into_iter().find(|f| *f > EVENT_FORMAT) {
        return Err(DecodeError::Newer { found });
    }
    for (expected, event) in (first_seq..).zip(&events) {
        if event.seq != expected {
            return Err(unreadable(format!("event {expected} is missing, {} stands there", event.seq)));
        }
    }
    Ok(events)
}

/// The graphs that a record names. For [`Store::sweep`](crate::store::Store::sweep) and backups.
///
/// # Errors
/// When it cannot be read, why.
pub fn graphs_named(first_seq: u64, bytes: &[u8]) -> Result<Vec<GraphHash>, String> {
    // Most records name none, and a type is never written with escapes: those need not be decoded.
    let says = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    if first_seq > 1 && !says(b"run_upgraded") && !bytes.is_empty() {
        return Ok(Vec::new());
    }
    let events = decode(first_seq, bytes).map_err(|error| error.to_string())?;
    let named = events.into_iter().filter_map(|event| match event.kind {
        EventKind::RunCreated { graph, .. } | EventKind::RunUpgraded { graph, .. } => Some(graph),
        _ => None,
    });
    Ok(named.collect())
}
