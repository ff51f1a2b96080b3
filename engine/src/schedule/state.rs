//! All that is known of a schedule.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fired::Fired;
use super::spec::{Overlap, ScheduleAction, ScheduleSpec};
use crate::event::Request;
use crate::id::{RunId, ScheduleId};
use crate::run::RunStatus;
use crate::store::escaped_len;
use crate::time::Timestamp;

/// The most firings that wait for a run to be over. While there are so many, no more instants are taken in.
pub const MAX_QUEUE: usize = 300;
/// The most runs of a schedule that go on at once; more wait.
pub const MAX_RUNNING: usize = 100;
/// The most firings and skips that are shown as the latest.
pub const MAX_RECENT: usize = 20;
/// The most backfills of which something waits.
pub const MAX_BACKFILLS: usize = 4;
/// The most that is kept of who wanted triggers that wait, and why, in bytes as JSON.
pub const MAX_ASKED_BYTES: usize = 2 * 1024;
/// The longest result that is kept in the schedule, in bytes; a longer one is read from its run as long as that is there.
pub const MAX_INLINE_RESULT: usize = 4 * 1024;

/// A schedule and where it stands. Stored as one record; see [`encode`](super::encode).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// Its id.
    pub id: ScheduleId,
    /// What is wanted.
    pub spec: ScheduleSpec,
    /// When it was created.
    pub created: Timestamp,
    /// Who created it, or changed its spec last, and why.
    pub request: Request,
    /// When its spec was changed last; no two changes have the same time.
    pub updated: Timestamp,
    /// Set while it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// Who ended the last pause, and why. None while it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
    /// The last instant that was taken in: fired, queued or skipped. The clock brings up nothing at or before it.
    pub mark: Timestamp,
    /// How many runs the clock may still start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
    /// Firings that wait.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub queue: VecDeque<Wanted>,
    /// Who wanted the triggers that wait, and why, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Asked>,
    /// Backfills of which something waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backfills: Vec<BackfillState>,
    /// Runs that are not over, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub running: Vec<Running>,
    /// What happened last, oldest first.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub recent: VecDeque<Recent>,
    /// What the last run that succeeded returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_result: Option<LastResult>,
    /// Why the last run failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    /// When it was triggered last: no two triggers have the same time.
    #[serde(default)]
    pub last_trigger: Timestamp,
    /// Why a firing that is due could not be started so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// How often what happened.
    #[serde(default)]
    pub counts: Counts,
    /// The instants that have fired.
    #[serde(default)]
    pub fired: Fired,
}

/// Why a schedule is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Paused {
    /// Who, or what.
    pub by: String,
    /// A note.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
    /// What kind of pause it is.
    pub cause: PauseCause,
}

/// Who ended a pause, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Resumed {
    /// Who.
    pub by: String,
    /// A note.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// What kind of pause it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PauseCause {
    /// Somebody asked.
    Requested,
    /// A run failed, or could not be started.
    Failure,
    /// The store was put back to a backup: what fired since is not known.
    Restored,
}

/// What makes a firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FiredBy {
    /// The clock.
    Clock,
    /// Somebody who wanted the instants of a stretch of time.
    Backfill,
    /// Somebody who wanted one more, now.
    Trigger,
}

impl FiredBy {
    /// Whether somebody asked for it: then a pause and a limit do not hold it up.
    pub fn is_manual(self) -> bool {
        self != Self::Clock
    }

    /// As written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Backfill => "backfill",
            Self::Trigger => "trigger",
        }
    }
}

/// A firing that waits. Stored as a short list: there may be hundreds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "(Timestamp, u8)", into = "(Timestamp, u8)")]
pub struct Wanted {
    /// The instant.
    pub nominal: Timestamp,
    /// What made it.
    pub by: FiredBy,
    /// The overlap policy that holds in place of the schedule's.
    pub overlap: Option<Overlap>,
}

/// What made a firing, and a policy or none, as one number: 16 for each step of the first, and the policy counted from 1.
fn code(by: FiredBy, overlap: Option<Overlap>) -> u8 {
    let by = match by {
        FiredBy::Clock => 0,
        FiredBy::Backfill => 16,
        FiredBy::Trigger => 32,
    };
    let overlap = overlap.map_or(0, |overlap| match overlap {
        Overlap::Skip => 1,
        Overlap::BufferOne => 2,
        Overlap::BufferAll => 3,
        Overlap::CancelOther => 4,
        Overlap::TerminateOther => 5,
        Overlap::AllowAll => 6,
    });
    by + overlap
}

fn of_code(found: u8) -> Result<(FiredBy, Option<Overlap>), String> {
    let overlaps = Overlap::ALL.iter().copied().map(Some).chain([None]);
    let all = [FiredBy::Clock, FiredBy::Backfill, FiredBy::Trigger];
    let mut pairs = overlaps.flat_map(|overlap| all.map(|by| (by, overlap)));
    let fits = pairs.find(|(by, overlap)| code(*by, *overlap) == found);
    fits.ok_or_else(|| format!("{found} is no code of a firing"))
}

impl TryFrom<(Timestamp, u8)> for Wanted {
    type Error = String;

    fn try_from((nominal, code): (Timestamp, u8)) -> Result<Self, String> {
        let (by, overlap) = of_code(code)?;
        Ok(Self { nominal, by, overlap })
    }
}

impl From<Wanted> for (Timestamp, u8) {
    fn from(wanted: Wanted) -> Self {
        (wanted.nominal, code(wanted.by, wanted.overlap))
    }
}

/// Who wanted triggers that follow one another, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The instant of the first of them.
    pub first: Timestamp,
    /// That of the last.
    pub last: Timestamp,
    /// Who and why.
    pub request: Request,
}

impl Asked {
    /// At most so many bytes of a record.
    pub(super) fn size(request: &Request) -> usize {
        const FRAME: usize =
            r#"{"first":1772323200000,"last":1772323200000,"request":{"by":"","reason":""}},"#.len();
        FRAME + escaped_len(&request.by) + escaped_len(&request.reason)
    }
}

/// A backfill of which something waits: instants to be taken in, or to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BackfillState {
    /// The first moment that is wanted; 0 when it was written before that was kept.
    #[serde(default)]
    pub from: Timestamp,
    /// The last instant that was taken in, or just before the first.
    pub after: Timestamp,
    /// The last instant that is wanted.
    pub to: Timestamp,
    /// The overlap policy that holds for it.
    pub overlap: Overlap,
    /// Who and why.
    pub request: Request,
}

impl BackfillState {
    /// Whether all of its instants are in the queue, or were.
    pub(super) fn is_taken_in(&self) -> bool {
        self.after >= self.to
    }
}

/// A run of the schedule that is not over. Stored as a short list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(Timestamp, Timestamp, u8)", into = "(Timestamp, Timestamp, u8)")]
pub struct Running {
    /// Its instant.
    pub nominal: Timestamp,
    /// What made it.
    pub by: FiredBy,
    /// When it was started.
    pub started: Timestamp,
    /// Set when it is to end for another one.
    pub stop: Option<Overlap>,
}

impl TryFrom<(Timestamp, Timestamp, u8)> for Running {
    type Error = String;

    fn try_from((nominal, started, code): (Timestamp, Timestamp, u8)) -> Result<Self, String> {
        let (by, stop) = of_code(code)?;
        Ok(Self { nominal, by, started, stop })
    }
}

impl From<Running> for (Timestamp, Timestamp, u8) {
    fn from(running: Running) -> Self {
        (running.nominal, running.started, code(running.by, running.stop))
    }
}

impl Running {
    /// Its id.
    pub fn run(&self, schedule: &ScheduleId) -> RunId {
        run_id(schedule, self.nominal, self.by)
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Recent {
    /// The instant; the first of several.
    pub nominal: Timestamp,
    /// What made it.
    pub by: FiredBy,
    /// When it happened.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: Happened,
}

/// What happened to an instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Happened {
    /// A run was started.
    Started {
        /// The run.
        run: RunId,
        /// How it ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<RunStatus>,
        /// When it was seen to have ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended: Option<Timestamp>,
    },
    /// Nothing was started.
    Skipped {
        /// Why.
        why: SkipReason,
        /// How many instants in a row.
        times: u64,
        /// The last of them.
        last: Timestamp,
    },
    /// A run could not be started, and will not be.
    Refused {
        /// Why.
        why: String,
    },
}

/// Why an instant was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// A run was not over.
    Overlap,
    /// A later one that was to end the running one took its place.
    Superseded,
    /// Nobody fired it within the catch-up window.
    Missed,
    /// The schedule was paused before it could be started.
    Paused,
    /// As many runs were started as the limit allows.
    Limit,
    /// It has fired already.
    Fired,
    /// It is so long ago that it is not known whether it has fired.
    Unknown,
    /// It waits already, for another backfill. Told of a backfill that is asked about; nothing is skipped for it.
    Waiting,
}

impl SkipReason {
    /// As written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Superseded => "superseded",
            Self::Missed => "missed",
            Self::Paused => "paused",
            Self::Limit => "limit",
            Self::Fired => "fired",
            Self::Unknown => "unknown",
            Self::Waiting => "waiting",
        }
    }
}

/// What a run that succeeded returned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LastResult {
    /// The run.
    pub run: RunId,
    /// Its instant.
    pub nominal: Timestamp,
    /// What it returned. Absent when that is too long to be kept here; then it is read from the run.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub output: Option<Value>,
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LastFailure {
    /// The run; none when it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Its instant.
    pub nominal: Timestamp,
    /// For people.
    pub message: String,
}

/// Why a firing that is due could not be started so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Trouble {
    /// The instant.
    pub nominal: Timestamp,
    /// Since when none can be started.
    pub since: Timestamp,
    /// Why.
    pub why: String,
}

/// How often what happened since the schedule was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Counts {
    /// Runs that were started.
    pub fired: u64,
    /// Runs that succeeded.
    pub succeeded: u64,
    /// Runs that failed, timed out or were taken back.
    pub failed: u64,
    /// Runs that were cancelled.
    pub cancelled: u64,
    /// Instants skipped because a run was not over, or a later one took their place.
    pub overlapped: u64,
    /// Instants skipped because nobody fired them within the catch-up window. After a long time without anybody not each is
    /// counted.
    pub missed: u64,
    /// Firings that could not be started.
    pub refused: u64,
}

/// One firing, for whoever makes a run of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Firing {
    /// The schedule.
    pub schedule: ScheduleId,
    /// The run's id.
    pub run: RunId,
    /// The instant.
    pub nominal: Timestamp,
    /// What made it.
    pub by: FiredBy,
    /// Who wanted it, and why; none when the clock did.
    pub request: Option<Request>,
    /// What is to be started.
    pub action: ScheduleAction,
    /// What the last run that succeeded returned.
    pub last_result: Option<LastResult>,
    /// Why the last run failed, if it did.
    pub last_failure: Option<LastFailure>,
}

impl Firing {
    /// What the run is told of it.
    pub fn scheduled(&self) -> Scheduled {
        Scheduled {
            schedule: self.schedule.clone(),
            nominal: self.nominal,
            by: self.by,
            last_result: self.last_result.clone(),
            last_failure: self.last_failure.clone(),
        }
    }

    /// Who asks for the run: the schedule, and it says for whom.
    pub fn asks(&self) -> Request {
        let by = format!("schedule {}", self.schedule);
        let did = match self.by {
            FiredBy::Clock => return Request::by(by),
            FiredBy::Backfill => "backfilled",
            FiredBy::Trigger => "triggered",
        };
        let reason = match &self.request {
            None => String::new(),
            Some(Request { by: who, reason }) if reason.is_empty() => format!("{did} by {who}"),
            Some(Request { by: who, reason }) => format!("{did} by {who}: {reason}"),
        };
        Request { by, reason }
    }
}

/// What a run knows of the schedule that started it. Part of its history, so the same whenever it is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Scheduled {
    /// The schedule.
    pub schedule: ScheduleId,
    /// The instant: when it was to start, not when it did.
    pub nominal: Timestamp,
    /// What made the firing.
    pub by: FiredBy,
    /// What the last run of the schedule that succeeded returned. With [`Overlap::AllowAll`] that of whichever was seen to end last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_result: Option<LastResult>,
    /// Why the last run of the schedule failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
}

/// A field that is there is `Some`, also when it is null.
fn there<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// The id of the run that a firing starts: the schedule and the instant, as `nightly-20260301t020000z`. A trigger has the
/// milliseconds as well, so that it is never an instant of the clock.
///
/// # Panics
/// Never: a schedule id leaves room for it.
pub fn run_id(schedule: &ScheduleId, nominal: Timestamp, by: FiredBy) -> RunId {
    let mut id = format!("{schedule}-");
    let text = nominal.to_string();
    // As 2026-03-01T02:00:00.000Z
    let (whole, millis) = text.trim_end_matches('Z').split_once('.').unwrap_or((&text, "000"));
    id.extend(whole.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()));
    if by == FiredBy::Trigger || millis != "000" {
        write!(id, ".{millis}").expect("a String takes everything");
    }
    id.push('z');
    RunId::new(id).expect("a schedule id and a time make a run id")
}

impl ScheduleState {
    /// A schedule that was created just now; nothing before that fires.
    pub fn new(id: ScheduleId, spec: ScheduleSpec, now: Timestamp, request: Request) -> Self {
        Self {
            id,
            left: spec.limit,
            spec,
            created: now,
            request,
            updated: now,
            paused: None,
            resumed: None,
            mark: now,
            queue: VecDeque::new(),
            asked: Vec::new(),
            backfills: Vec::new(),
            running: Vec::new(),
            recent: VecDeque::new(),
            last_result: None,
            last_failure: None,
            last_trigger: Timestamp::default(),
            trouble: None,
            counts: Counts::default(),
            fired: Fired::default(),
        }
    }

    /// Whether the clock may start nothing.
    pub fn is_dormant(&self) -> bool {
        self.paused.is_some() || self.left == Some(0)
    }

    /// Who wanted a firing, and why; none when the clock did.
    pub(super) fn request_of(&self, wanted: &Wanted) -> Option<&Request> {
        let at = wanted.nominal;
        match wanted.by {
            FiredBy::Clock => None,
            FiredBy::Backfill => {
                self.backfills.iter().find(|of| (of.from..=of.to).contains(&at)).map(|of| &of.request)
            }
            FiredBy::Trigger => {
                self.asked.iter().find(|of| (of.first..=of.last).contains(&at)).map(|of| &of.request)
            }
        }
    }

    /// Forgets who wanted firings of which none waits any more.
    pub(super) fn tidy(&mut self) {
        let Self { queue, asked, backfills, .. } = self;
        let waits = |by: FiredBy, stretch: &RangeInclusive<Timestamp>| {
            queue.iter().any(|wanted| wanted.by == by && stretch.contains(&wanted.nominal))
        };
        asked.retain(|of| waits(FiredBy::Trigger, &(of.first..=of.last)));
        backfills.retain(|of| !of.is_taken_in() || waits(FiredBy::Backfill, &(of.from..=of.to)));
    }

    pub(super) fn remember(&mut self, recent: Recent) {
        if let Happened::Skipped { why, last, .. } = &recent.what
            && let Some(Recent { by, what: Happened::Skipped { why: same, times, last: before }, .. }) =
                self.recent.back_mut()
            && same == why
            && *by == recent.by
        {
            (*times, *before) = (*times + 1, *last);
            return;
        }
        while self.recent.len() >= MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(recent);
    }
}
