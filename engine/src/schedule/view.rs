//! What people and programs see of a schedule.

use serde::{Deserialize, Serialize};

use super::spec::ScheduleSpec;
use super::state::{
    BackfillState, Counts, FiredBy, LastFailure, LastResult, Paused, Recent, Resumed, ScheduleState, Trouble,
    Wanted,
};
use super::times::{Times, local};
use crate::event::Request;
use crate::id::{RunId, ScheduleId};
use crate::time::Timestamp;

/// Where a schedule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ScheduleStatus {
    /// It fires.
    Active,
    /// It is paused.
    Paused,
    /// The clock brings up nothing any more: it has ended, or has started as many runs as it may.
    Ended,
}

impl ScheduleStatus {
    /// As written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Ended => "ended",
        }
    }
}

impl std::fmt::Display for ScheduleStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// One schedule, for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ScheduleView {
    /// Its id.
    pub schedule: ScheduleId,
    /// Where it stands.
    pub status: ScheduleStatus,
    /// Its next instant by the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// The next instant on the clock of its zone, as `2026-03-01T06:00:00`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_local: Option<String>,
    /// What is wanted.
    pub spec: ScheduleSpec,
    /// When it was created.
    pub created: Timestamp,
    /// Who created it, or changed its spec last.
    pub request: Request,
    /// When its spec was changed last. No two changes have the same time, so it says which spec was seen.
    pub updated: Timestamp,
    /// Why it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// Who ended the last pause, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
    /// The last instant that was taken in.
    pub mark: Timestamp,
    /// How many runs the clock may still start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
    /// Runs that are not over.
    pub running: Vec<RunningView>,
    /// Firings that wait.
    pub waiting: Vec<WaitingView>,
    /// Backfills of which something waits: instants to be taken in, or to be started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backfills: Vec<BackfillState>,
    /// Why a firing that is due could not be started so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// What the last run that succeeded returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_result: Option<LastResult>,
    /// Why the last run failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    /// What happened last, oldest first.
    pub recent: Vec<Recent>,
    /// How often what happened.
    pub counts: Counts,
}

/// A run of a schedule that is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RunningView {
    /// The run.
    pub run: RunId,
    /// Its instant.
    pub nominal: Timestamp,
    /// What made it.
    pub by: FiredBy,
    /// When it was started.
    pub started: Timestamp,
}

/// A firing that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WaitingView {
    /// Its instant.
    pub nominal: Timestamp,
    /// What made it.
    pub by: FiredBy,
}

/// The picture of a schedule at a time.
pub fn view(state: &ScheduleState, times: &Times, now: Timestamp) -> ScheduleView {
    let next = times.next_after(state.mark.max(now)).filter(|_| !state.is_dormant());
    let status = if state.paused.is_some() {
        ScheduleStatus::Paused
    } else if next.is_none() {
        ScheduleStatus::Ended
    } else {
        ScheduleStatus::Active
    };
    let next_local = next.and_then(|at| local(&times.instants.zone, at)).map(|at| at.to_string());
    let running = state.running.iter().map(|running| RunningView {
        run: running.run(&state.id),
        nominal: running.nominal,
        by: running.by,
        started: running.started,
    });
    let waiting = |wanted: &Wanted| WaitingView { nominal: wanted.nominal, by: wanted.by };
    ScheduleView {
        schedule: state.id.clone(),
        status,
        next,
        next_local,
        spec: state.spec.clone(),
        created: state.created,
        request: state.request.clone(),
        updated: state.updated,
        paused: state.paused.clone(),
        resumed: state.resumed.clone(),
        mark: state.mark,
        left: state.left,
        running: running.collect(),
        waiting: state.queue.iter().map(waiting).collect(),
        backfills: state.backfills.clone(),
        trouble: state.trouble.clone(),
        last_result: state.last_result.clone(),
        last_failure: state.last_failure.clone(),
        recent: state.recent.iter().cloned().collect(),
        counts: state.counts,
    }
}
