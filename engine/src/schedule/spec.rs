//! What somebody wants of a schedule, and what is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::times::{Times, Zone, ZoneError};
use crate::id::ScheduleId;
use crate::run::RunOptions;
use crate::time::Timestamp;

/// How late a firing may be unless told otherwise.
pub const DEFAULT_CATCH_UP: Duration = Duration::from_hours(24);
/// The least that may be asked for: the clock is looked at every ten seconds, so a shorter window would miss at random.
pub const MIN_CATCH_UP: Duration = Duration::from_secs(10);
/// The most expressions and intervals a schedule may have.
pub const MAX_TIMINGS: usize = 16;
/// The longest expression, in bytes.
pub const MAX_CRON_BYTES: usize = 100;
/// The most a spec may have as JSON, in bytes: it is part of a record that is written at every firing.
pub const MAX_SPEC_BYTES: usize = 24 * 1024;

/// A point in time from which an expression must match at all: 2000.
const SOME_TIME: Timestamp = Timestamp::from_millis(946_684_800_000);

/// When, how and what a schedule starts.
///
/// ```
/// use dssflow_engine::schedule::{ScheduleAction, ScheduleSpec};
///
/// let spec = ScheduleSpec::cron("0 6 * * 1-5", ScheduleAction::new("report")).zone("Europe/Berlin");
/// assert!(spec.check().is_ok());
/// assert!(ScheduleSpec::cron("0 25 * * *", ScheduleAction::new("report")).check().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ScheduleSpec {
    /// When: all instants of all of them.
    pub timing: Vec<Timing>,
    /// The IANA name of the time zone whose clock cron expressions are compared with. Default `UTC`.
    #[serde(default = "utc")]
    pub zone: String,
    /// What happens when a run of the schedule goes on. Default: the instant is skipped.
    #[serde(default)]
    pub overlap: Overlap,
    /// How late a firing may be, in milliseconds: what nobody could fire for longer than that is skipped. Default 24 h, at
    /// least 10 s.
    #[serde(default = "catch_up")]
    pub catch_up_ms: u64,
    /// Firings come up to so many milliseconds late, each always the same, and never later than the next instant. Default 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub jitter_ms: u64,
    /// No instant before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    /// No instant after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Timestamp>,
    /// So many runs are started by the clock, and then no more. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Whether the schedule pauses when a run fails, times out, is taken back, or cannot be started. Default: no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pause_on_failure: bool,
    /// What is started.
    pub action: ScheduleAction,
}

/// Instants, one way or the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, deny_unknown_fields)]
pub enum Timing {
    /// Those at which the zone's clock shows what a cron expression says; see [`Cron`](super::Cron).
    Cron {
        /// The expression.
        cron: String,
    },
    /// Every so often, counted from 1970-01-01T00:00:00Z.
    Interval {
        /// Milliseconds between two; whole seconds.
        every_ms: u64,
        /// Milliseconds by which all are shifted, less than that; whole seconds.
        #[serde(default, skip_serializing_if = "is_zero")]
        offset_ms: u64,
    },
}

/// What happens when it is time to start a run and one that the schedule started is not over. A run that is paused is not
/// over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Nothing: the instant is skipped.
    #[default]
    Skip,
    /// The next run starts when the running one is over; one waits, and those after it are skipped.
    BufferOne,
    /// Runs start one after the other, none is skipped.
    BufferAll,
    /// The running one is cancelled, what it made stays, and the new one starts when it is over. Of several that wait only
    /// the last one starts.
    CancelOther,
    /// The running one is ended at once, and the new one starts.
    TerminateOther,
    /// Runs go on side by side.
    AllowAll,
}

impl Overlap {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Skip,
        Self::BufferOne,
        Self::BufferAll,
        Self::CancelOther,
        Self::TerminateOther,
        Self::AllowAll,
    ];

    /// As written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::BufferOne => "buffer_one",
            Self::BufferAll => "buffer_all",
            Self::CancelOther => "cancel_other",
            Self::TerminateOther => "terminate_other",
            Self::AllowAll => "allow_all",
        }
    }

    /// The one written so, with `-` or `_`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.replace('-', "_");
        Self::ALL.iter().copied().find(|overlap| overlap.as_str() == text)
    }
}

impl std::fmt::Display for Overlap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a firing starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ScheduleAction {
    /// The workflow.
    pub workflow: String,
    /// What it is given, without secrets. What it is made of the engine's [`Launcher`](crate::runtime::Launcher) says: for
    /// registered workflows it is the run's input.
    #[serde(default)]
    pub input: Value,
    /// The site of the runs, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub site: String,
    /// Labels of the runs, besides `schedule`, which each has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How the runs behave. Default: as the workflow says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<RunOptions>,
}

impl ScheduleAction {
    /// Runs of a workflow that needs no input.
    pub fn new(workflow: impl Into<String>) -> Self {
        let (workflow, input) = (workflow.into(), Value::Null);
        Self { workflow, input, site: String::new(), labels: BTreeMap::new(), options: None }
    }

    /// With this input.
    #[must_use]
    pub fn input(mut self, input: impl Into<Value>) -> Self {
        self.input = input.into();
        self
    }
}

impl ScheduleSpec {
    /// At what a cron expression says, and by default otherwise.
    pub fn cron(cron: impl Into<String>, action: ScheduleAction) -> Self {
        Self::at(Timing::Cron { cron: cron.into() }, action)
    }

    /// Every so often, counted from the epoch, and by default otherwise.
    pub fn every(every: Duration, action: ScheduleAction) -> Self {
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        Self::at(Timing::Interval { every_ms, offset_ms: 0 }, action)
    }

    fn at(timing: Timing, action: ScheduleAction) -> Self {
        Self {
            timing: vec![timing],
            zone: utc(),
            overlap: Overlap::default(),
            catch_up_ms: catch_up(),
            jitter_ms: 0,
            start: None,
            end: None,
            limit: None,
            pause_on_failure: false,
            action,
        }
    }

    /// By the clock of this zone.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = zone.into();
        self
    }

    /// With this overlap policy.
    #[must_use]
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// Checks everything that can be told without the world. Looks up the zone, which reads files.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), SpecError> {
        self.check_with(&Zone::find).map(drop)
    }

    /// The same with zones from elsewhere; gives the instants.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check_with(&self, zones: &dyn Fn(&str) -> Result<Zone, ZoneError>) -> Result<Times, SpecError> {
        if self.timing.is_empty() {
            return Err(SpecError::NoTiming);
        }
        if self.timing.len() > MAX_TIMINGS {
            return Err(SpecError::TooManyTimings { found: self.timing.len() });
        }
        if self.catch_up_ms < u64::try_from(MIN_CATCH_UP.as_millis()).expect("ten seconds") {
            return Err(SpecError::CatchUp);
        }
        if self.limit == Some(0) {
            return Err(SpecError::NoActions);
        }
        if let (Some(start), Some(end)) = (self.start, self.end)
            && end < start
        {
            return Err(SpecError::EndsBeforeItStarts { start, end });
        }
        if self.action.workflow.is_empty() {
            return Err(SpecError::NoWorkflow);
        }
        let size = serde_json::to_vec(self).map_or(usize::MAX, |bytes| bytes.len());
        if size > MAX_SPEC_BYTES {
            return Err(SpecError::TooLarge { size });
        }
        // Any id does: it only shifts jitters.
        let id = ScheduleId::new("any").expect("a name of ours");
        for timing in &self.timing {
            let alone = Self { timing: vec![timing.clone()], start: None, end: None, ..self.clone() };
            if let Timing::Cron { cron } = timing
                && Times::new(&id, &alone, zones)?.next_after(SOME_TIME).is_none()
            {
                return Err(SpecError::NeverFires { cron: cron.clone() });
            }
        }
        Times::new(&id, self, zones)
    }
}

impl Timing {
    pub(super) fn check_interval(&self) -> Result<(), SpecError> {
        let Self::Interval { every_ms, offset_ms } = self else { return Ok(()) };
        let why = if *every_ms < 1000 {
            "it is shorter than a second"
        } else if every_ms % 1000 != 0 || offset_ms % 1000 != 0 {
            "it is counted in whole seconds"
        } else if offset_ms >= every_ms {
            "its offset is not shorter than itself"
        } else if *every_ms > 100 * 366 * 24 * 3_600 * 1000 {
            "it is longer than a hundred years"
        } else {
            return Ok(());
        };
        Err(SpecError::Interval { every_ms: *every_ms, why })
    }
}

/// What is wrong with a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// It has no expression and no interval.
    #[error("the schedule says nothing about when; give it a cron expression or an interval")]
    NoTiming,
    /// It has too many.
    #[error("the schedule has {found} expressions and intervals, at most {MAX_TIMINGS} are allowed")]
    TooManyTimings {
        /// How many.
        found: usize,
    },
    /// An expression cannot be read.
    #[error("{cron:?} is no cron expression: {why}")]
    Cron {
        /// The expression.
        cron: String,
        /// Why.
        why: String,
    },
    /// An expression matches no time.
    #[error("the cron expression {cron:?} never matches")]
    NeverFires {
        /// The expression.
        cron: String,
    },
    /// An interval cannot be used.
    #[error("an interval of {every_ms} ms cannot be used: {why}")]
    Interval {
        /// Its length.
        every_ms: u64,
        /// Why.
        why: &'static str,
    },
    /// There is no such time zone.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// The window is too short.
    #[error("the catch-up window is shorter than {} s, which is how often the clock is looked at", MIN_CATCH_UP.as_secs())]
    CatchUp,
    /// No run would ever be started.
    #[error("a limit of 0 runs starts none; pause the schedule instead")]
    NoActions,
    /// Its end is before its start.
    #[error("the schedule ends at {end}, before it starts at {start}")]
    EndsBeforeItStarts {
        /// Its start.
        start: Timestamp,
        /// Its end.
        end: Timestamp,
    },
    /// It starts nothing.
    #[error("the schedule names no workflow")]
    NoWorkflow,
    /// It is over the limit.
    #[error(
        "the schedule has {size} bytes, at most {MAX_SPEC_BYTES} are allowed; keep what is large elsewhere"
    )]
    TooLarge {
        /// Its size as JSON.
        size: usize,
    },
}

fn utc() -> String {
    "UTC".to_owned()
}

fn catch_up() -> u64 {
    u64::try_from(DEFAULT_CATCH_UP.as_millis()).expect("a day")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
