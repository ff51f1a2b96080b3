//! When each attempt of each step ran, and what lay between: a fold of a run's history into stretches of time.
//!
//! What waits has a reason of its own: for the next try after a failure, for somebody or an hour, for a lock, permit, rate
//! or slot that others hold. The last is not in the history; it is what lies between the moment a step could start and
//! its start, without the times when the run stood still. Pure: the present is handed in. Nothing here draws.

mod fold;
mod svg;

use serde::Serialize;

use crate::event::Event;
use crate::id::{RunId, StepName};
use crate::run::RunStatus;
use crate::run::view::RunView;
use crate::time::Timestamp;

pub use svg::svg;

/// Below this a wait is the engine's own time and no queue, in milliseconds.
pub const QUEUE_FROM_MS: u64 = 20;

/// A run in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Timeline {
    /// The run.
    pub run: RunId,
    /// Its workflow.
    pub workflow: String,
    /// Where it stands.
    pub status: RunStatus,
    /// When it was created.
    pub begin: Timestamp,
    /// Its last event, or the present while somebody drives it.
    pub end: Timestamp,
    /// What holds for the run as a whole: when it stood still, and when it went backwards.
    pub run_spans: Vec<Span>,
    /// Its steps, in the order in which something happened to them; those without a stretch last, in order of dependency.
    pub rows: Vec<Row>,
}

/// A step in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Row {
    /// The step.
    pub step: StepName,
    /// A heading to show it under.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// One line on what it does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// What happened, in order. The children of a map are rows of their own.
    pub spans: Vec<Span>,
}

/// One stretch of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Span {
    /// What it is.
    pub kind: SpanKind,
    /// When it began.
    pub begin: Timestamp,
    /// When it ended; the end of the picture when it has not.
    pub end: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// The attempt, counted over all phases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// For people: why it failed, who decided.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What a stretch of time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SpanKind {
    /// An attempt to do the step's work.
    Execute,
    /// An attempt to find out what an earlier one did.
    Probe,
    /// An attempt to take back what the step did.
    Compensate,
    /// Waits to be tried again.
    Backoff,
    /// Could start, and waits for a lock, permit, rate or slot.
    Queue,
    /// Waits for a decision, a signal or an hour.
    Wait,
    /// A map's children are at work.
    Children,
    /// Decided without an attempt: skipped, completed or closed by somebody. Has no length.
    Mark,
    /// The run stood still.
    Paused,
    /// Nobody drove the run.
    Unowned,
    /// The run took back what it made.
    RollingBack,
}

/// How a stretch of time ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// It has not.
    Open,
    /// Well.
    Done,
    /// What was wanted was there already.
    Adopted,
    /// A look gave an answer other than "done".
    Answered,
    /// It failed.
    Failed,
    /// Without an answer: its process ended, or it was interrupted.
    Lost,
    /// By rule nothing was changed: skipped, kept.
    Left,
}

impl Timeline {
    /// Folds a history. `view` is the run at the end of it; `now` is given while somebody drives the run.
    pub fn of(view: &RunView, history: &[Event], now: Option<Timestamp>) -> Self {
        fold::fold(view, history, now)
    }

    /// How long the picture is, in milliseconds.
    pub fn length_ms(&self) -> u64 {
        self.end.as_millis().saturating_sub(self.begin.as_millis())
    }
}

impl Span {
    /// How long it took so far, in milliseconds.
    pub fn length_ms(&self) -> u64 {
        self.end.as_millis().saturating_sub(self.begin.as_millis())
    }

    /// Whether something was at work, rather than waiting.
    pub fn is_attempt(&self) -> bool {
        matches!(self.kind, SpanKind::Execute | SpanKind::Probe | SpanKind::Compensate)
    }
}
