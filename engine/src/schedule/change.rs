//! What people and the ends of runs change.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::spec::{Overlap, ScheduleSpec};
use super::state::{
    Asked, BackfillState, FiredBy, Happened, LastFailure, LastResult, MAX_ASKED_BYTES, MAX_BACKFILLS,
    MAX_INLINE_RESULT, MAX_QUEUE, PauseCause, Paused, Recent, Resumed, ScheduleState, SkipReason, Trouble,
    Wanted,
};
use super::times::Times;
use crate::event::Request;
use crate::run::RunStatus;
use crate::time::Timestamp;

/// The longest text of why something failed that is kept, in bytes.
const MAX_WHY: usize = 300;

/// A change that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IllegalChange {
    /// It is paused already.
    #[error("it is paused already, by {by}")]
    PausedAlready {
        /// Who paused it.
        by: String,
    },
    /// It is not paused.
    #[error("it is not paused")]
    NotPaused,
    /// Somebody else has changed what is wanted of it.
    #[error("{by} changed it at {at}, after it was looked at; look again, and try again")]
    Changed {
        /// Who changed it last.
        by: String,
        /// When.
        at: Timestamp,
    },
    /// A backfill that ends before it begins, or in the future.
    #[error("{why}")]
    Backfill {
        /// What is wrong.
        why: String,
    },
    /// Too much waits.
    #[error("{what} wait already; let some of them start first")]
    Full {
        /// What.
        what: String,
    },
}

/// What is wanted of a schedule from now on.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The spec.
    pub spec: ScheduleSpec,
    /// Whether it may start as many runs as its limit says from now on. It may in any case when that is another one than
    /// before.
    pub renew_limit: bool,
    /// Which spec it was that is changed: what [`ScheduleView::updated`](super::ScheduleView::updated) said. When it was
    /// changed since, nothing is done. None: whichever it was.
    pub seen: Option<Timestamp>,
}

impl Update {
    /// This spec, in place of whichever it was.
    pub fn new(spec: ScheduleSpec) -> Self {
        Self { spec, renew_limit: false, seen: None }
    }
}

/// The instants of a stretch of time that are wanted after all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Backfill {
    /// The first moment; an instant at it belongs to it.
    pub from: Timestamp,
    /// The last moment; an instant at it belongs to it. Not in the future.
    pub to: Timestamp,
    /// The overlap policy that holds for it. Default: one after the other.
    #[serde(default = "one_by_one")]
    pub overlap: Overlap,
}

fn one_by_one() -> Overlap {
    Overlap::BufferAll
}

impl Backfill {
    /// From `from` to `to`, both included, one run after the other.
    pub fn new(from: Timestamp, to: Timestamp) -> Self {
        Self { from, to, overlap: one_by_one() }
    }
}

/// How a run of a schedule ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Its status; none when the run is not in the store any more.
    pub status: Option<RunStatus>,
    /// What it returned.
    pub output: Option<Value>,
    /// Why it failed, for people.
    pub message: String,
}

impl ScheduleState {
    /// Pauses it: the clock starts nothing until it is unpaused, and what its time brings up meanwhile never fires.
    ///
    /// # Errors
    /// When it is paused.
    pub fn pause(&mut self, now: Timestamp, request: Request) -> Result<(), IllegalChange> {
        if let Some(paused) = &self.paused
            && paused.cause == PauseCause::Requested
        {
            return Err(IllegalChange::PausedAlready { by: paused.by.clone() });
        }
        let Request { by, reason } = request;
        self.stand_still(Paused { by, reason, at: now, cause: PauseCause::Requested });
        Ok(())
    }

    fn stand_still(&mut self, paused: Paused) {
        self.paused = Some(paused);
        self.resumed = None;
    }

    /// Lets it go on from now.
    ///
    /// # Errors
    /// When it is not paused.
    pub fn unpause(&mut self, now: Timestamp, request: Request) -> Result<(), IllegalChange> {
        self.paused.take().ok_or(IllegalChange::NotPaused)?;
        let Request { by, reason } = request;
        self.resumed = Some(Resumed { by, reason, at: now });
        self.go_on_from(now);
        Ok(())
    }

    /// Nothing before now fires by the clock.
    fn go_on_from(&mut self, now: Timestamp) {
        self.mark = self.mark.max(now);
        self.queue.retain(|wanted| wanted.by.is_manual());
    }

    /// Gives it another spec. If its instants are others now, those before now do not fire by the clock.
    ///
    /// # Errors
    /// When it is not the spec any more that was to be changed.
    pub fn update(&mut self, update: Update, now: Timestamp, request: Request) -> Result<(), IllegalChange> {
        let Update { spec, renew_limit, seen } = update;
        if seen.is_some_and(|seen| seen != self.updated) {
            return Err(IllegalChange::Changed { by: self.request.by.clone(), at: self.updated });
        }
        let old = &self.spec;
        let same_instants = old.timing == spec.timing
            && old.zone == spec.zone
            && old.start == spec.start
            && old.end == spec.end;
        if !same_instants {
            self.fired.turn(&self.spec);
            // Those of a backfill that waits were asked for under the old spec.
            self.go_on_from(now);
        }
        if renew_limit || self.spec.limit != spec.limit {
            if self.left == Some(0) {
                self.go_on_from(now);
            }
            self.left = spec.limit;
        }
        self.spec = spec;
        self.request = request;
        self.updated = now.max(self.updated + Duration::from_millis(1));
        self.trouble = None;
        Ok(())
    }

    /// Wants one more run, now. Gives its instant.
    ///
    /// # Errors
    /// When too much waits.
    pub fn trigger(
        &mut self,
        overlap: Option<Overlap>,
        now: Timestamp,
        request: Request,
    ) -> Result<Timestamp, IllegalChange> {
        if self.queue.len() >= MAX_QUEUE {
            return Err(IllegalChange::Full { what: format!("{} firings", self.queue.len()) });
        }
        self.tidy();
        let nominal = now.max(self.last_trigger + Duration::from_millis(1));
        match self.asked.last_mut() {
            // One after the other for the same: no trigger of somebody else is between them.
            Some(asked) if asked.request == request => asked.last = nominal,
            _ => {
                let kept: usize = self.asked.iter().map(|asked| Asked::size(&asked.request)).sum();
                if kept + Asked::size(&request) > MAX_ASKED_BYTES {
                    let waits = self.queue.iter().filter(|wanted| wanted.by == FiredBy::Trigger).count();
                    return Err(IllegalChange::Full { what: format!("{waits} triggers of several people") });
                }
                self.asked.push(Asked { first: nominal, last: nominal, request });
            }
        }
        self.last_trigger = nominal;
        self.queue.push_back(Wanted { nominal, by: FiredBy::Trigger, overlap });
        Ok(nominal)
    }

    /// Wants the instants of a stretch of time.
    ///
    /// # Errors
    /// When it ends before it begins or in the future, or too many wait.
    pub fn backfill(
        &mut self,
        backfill: &Backfill,
        now: Timestamp,
        request: Request,
    ) -> Result<(), IllegalChange> {
        backfill.check(now)?;
        self.tidy();
        if self.backfills.len() >= MAX_BACKFILLS {
            return Err(IllegalChange::Full { what: format!("{} backfills", self.backfills.len()) });
        }
        let after = backfill.before();
        let Backfill { from, to, overlap } = *backfill;
        self.backfills.push(BackfillState { from, after, to, overlap, request });
        Ok(())
    }

    /// What a backfill would do, instant by instant, up to `limit`: fire it, or why not.
    ///
    /// # Errors
    /// When it ends before it begins or in the future.
    pub fn foresee(
        &self,
        backfill: &Backfill,
        times: &Times,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, Option<SkipReason>)>, IllegalChange> {
        backfill.check(now)?;
        let mut instants = Vec::new();
        let mut after = backfill.before();
        while instants.len() < limit
            && let Some(nominal) = times.next_after(after).filter(|nominal| *nominal <= backfill.to)
        {
            after = nominal;
            // One that waits because of the clock becomes the backfill's.
            let waits = |wanted: &Wanted| wanted.by == FiredBy::Backfill && wanted.nominal == nominal;
            let why = if self.fired.contains(nominal, times) {
                Some(SkipReason::Fired)
            } else if nominal <= self.fired.floor() {
                Some(SkipReason::Unknown)
            } else {
                self.queue.iter().any(waits).then_some(SkipReason::Waiting)
            };
            instants.push((nominal, why));
        }
        Ok(instants)
    }

    /// Notes that the run of an instant is over. Does nothing when it is not one of the running.
    pub fn ended(&mut self, nominal: Timestamp, by: FiredBy, ended: Ended, now: Timestamp) {
        let Some(at) = self.running.iter().position(|r| (r.nominal, r.by) == (nominal, by)) else { return };
        let running = self.running.remove(at);
        let run = running.run(&self.id);
        let Ended { status, output, message } = ended;
        for recent in &mut self.recent {
            if let Happened::Started { run: of, status: known, ended } = &mut recent.what
                && *of == run
            {
                (*known, *ended) = (status, Some(now));
            }
        }
        match status {
            Some(RunStatus::Succeeded) => {
                self.counts.succeeded += 1;
                let short = |output: &Value| output.to_string().len() <= MAX_INLINE_RESULT;
                let output = Some(output.unwrap_or(Value::Null)).filter(short);
                self.last_result = Some(LastResult { run, nominal, output });
                self.last_failure = None;
            }
            Some(
                status @ (RunStatus::Failed
                | RunStatus::TimedOut
                | RunStatus::RolledBack
                | RunStatus::RollbackStuck),
            ) if running.stop.is_none() => {
                self.counts.failed += 1;
                let word = status.as_str().replace('_', " ");
                let mut text = format!("it is {word}");
                if !message.is_empty() {
                    text = format!("{text}: {message}");
                }
                let reason = format!("run {run} is {word}");
                self.last_failure = Some(LastFailure { run: Some(run), nominal, message: cut(&text) });
                self.pause_on_failure(&reason, now);
            }
            Some(_) => self.counts.cancelled += 1,
            // Whoever removed it knows.
            None => {}
        }
    }

    /// Notes that a firing cannot be started and will not be.
    pub(super) fn refuse(&mut self, nominal: Timestamp, by: FiredBy, why: &str, now: Timestamp) {
        self.counts.refused += 1;
        self.trouble = None;
        let why = cut(why);
        self.last_failure = Some(LastFailure { run: None, nominal, message: why.clone() });
        self.remember(Recent { nominal, by, at: now, what: Happened::Refused { why: why.clone() } });
        self.pause_on_failure(&format!("a run could not be started: {why}"), now);
    }

    /// Notes that a firing could not be started so far. True when that is news.
    pub fn note_trouble(&mut self, nominal: Timestamp, why: &str, now: Timestamp) -> bool {
        let why = cut(why);
        match &self.trouble {
            Some(known) if known.nominal == nominal && known.why == why => false,
            known => {
                let since = known.as_ref().map_or(now, |t| t.since);
                self.trouble = Some(Trouble { nominal, since, why });
                true
            }
        }
    }

    fn pause_on_failure(&mut self, reason: &str, now: Timestamp) {
        if self.spec.pause_on_failure && self.paused.is_none() {
            let (by, reason) = (format!("schedule {}", self.id), cut(reason));
            self.stand_still(Paused { by, reason, at: now, cause: PauseCause::Failure });
        }
    }

    /// Notes that its store was put back to a backup: what fired since is not known here, so the clock fires nothing until
    /// somebody says that it may.
    pub fn restored(&mut self, backup: Timestamp, now: Timestamp) {
        let reason = format!(
            "the store was put back to the backup of {backup}; what the schedule started since is not known"
        );
        self.stand_still(Paused { by: "restore".to_owned(), reason, at: now, cause: PauseCause::Restored });
        // Somebody wanted them before the backup; whether they were started is not known.
        self.queue.clear();
        self.asked.clear();
        self.backfills.clear();
    }
}

impl Backfill {
    fn check(&self, now: Timestamp) -> Result<(), IllegalChange> {
        let Self { from, to, .. } = self;
        let wrong = |why: String| Err(IllegalChange::Backfill { why });
        if to < from {
            return wrong(format!("the backfill ends at {to}, before it begins at {from}"));
        }
        if *to > now {
            return wrong(format!(
                "the backfill ends at {to}, which is still to come; the clock brings that up"
            ));
        }
        Ok(())
    }

    /// Just before its first moment.
    fn before(&self) -> Timestamp {
        Timestamp::from_millis(self.from.as_millis().saturating_sub(1))
    }
}

/// The beginning of a text.
fn cut(text: &str) -> String {
    // What is written with six bytes in JSON is of no use to people.
    let text = text.replace(char::is_control, " ");
    if text.len() <= MAX_WHY {
        return text;
    }
    let end = (0..=MAX_WHY).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}
