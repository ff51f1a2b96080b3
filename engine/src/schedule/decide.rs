//! What a schedule does at a given time. The same state and time give the same decision.

use std::time::Duration;

use super::spec::Overlap;
use super::state::{
    FiredBy, Firing, Happened, MAX_QUEUE, MAX_RUNNING, Recent, Running, ScheduleState, SkipReason, Wanted,
    run_id,
};
use super::times::Times;
use crate::id::RunId;
use crate::time::Timestamp;

/// The most instants that one decision takes in; more are taken in by the next one.
const MAX_INSTANTS: usize = 1_000;
/// A clock that is put back by less than this is waited for: nothing is looked at twice for it.
const SET_BACK: Duration = Duration::from_mins(1);
/// Backfills leave so many places in the queue to the clock.
const LEFT_TO_THE_CLOCK: usize = 50;

/// What is to be done now.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The schedule after it, but for what `fire` changes.
    pub state: ScheduleState,
    /// A run to start; the state that goes with it is its own.
    pub fire: Option<Box<Fire>>,
    /// Runs that are to end. Told at every decision until they are over.
    pub stop: Vec<Stop>,
    /// Instants that were skipped by it.
    pub skips: Vec<Skip>,
    /// When to look again; nothing that the clock brings up comes earlier. None when the clock brings up nothing.
    pub due: Option<Timestamp>,
}

/// A run to start.
#[derive(Debug, Clone, PartialEq)]
pub struct Fire {
    /// What of.
    pub firing: Firing,
    /// The schedule when it is started. To be stored in the transition that makes the run, or not at all.
    pub state: ScheduleState,
}

/// A run that is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The run.
    pub run: RunId,
    /// Whether at once; otherwise it is cancelled and what it made stays.
    pub terminate: bool,
}

/// An instant that was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip {
    /// The instant.
    pub nominal: Timestamp,
    /// What made it.
    pub by: FiredBy,
    /// Why.
    pub why: SkipReason,
}

impl Decision {
    /// The schedule when the run of `fire` cannot be started and will not be.
    #[must_use]
    pub fn refused(&self, why: &str, now: Timestamp) -> ScheduleState {
        let mut state = self.state.clone();
        if let Some(fire) = &self.fire {
            let Firing { nominal, by, .. } = fire.firing;
            state.queue.retain(|wanted| (wanted.nominal, wanted.by) != (nominal, by));
            state.refuse(nominal, by, why, now);
            state.tidy();
        }
        state
    }
}

/// Says what to do now.
pub fn decide(state: &ScheduleState, times: &Times, now: Timestamp) -> Decision {
    let mut skips = Vec::new();
    let mut turn = Turn { state: state.clone(), times, now, skips: &mut skips };
    turn.follow_the_clock_back();
    let more = turn.take_instants() | turn.take_backfills();
    let fire = turn.take_queue();
    turn.state.tidy();
    let state = turn.state;

    let stop = state.running.iter().filter_map(|running| {
        let terminate = running.stop? == Overlap::TerminateOther;
        Some(Stop { run: running.run(&state.id), terminate })
    });
    let stop = stop.collect();
    let due = if more || fire.is_some() {
        Some(now)
    } else if state.is_dormant() || state.queue.len() >= MAX_QUEUE {
        None
    } else {
        times.next_after(state.mark).map(|nominal| times.due(nominal))
    };
    Decision { state, fire: fire.map(Box::new), stop, skips, due }
}

struct Turn<'a> {
    state: ScheduleState,
    times: &'a Times,
    now: Timestamp,
    skips: &'a mut Vec<Skip>,
}

impl Turn<'_> {
    fn skip(&mut self, nominal: Timestamp, by: FiredBy, why: SkipReason) {
        self.skips.push(Skip { nominal, by, why });
        let counts = &mut self.state.counts;
        match why {
            SkipReason::Overlap | SkipReason::Superseded => counts.overlapped += 1,
            SkipReason::Missed => counts.missed += 1,
            SkipReason::Paused
            | SkipReason::Limit
            | SkipReason::Fired
            | SkipReason::Unknown
            | SkipReason::Waiting => {}
        }
        let what = Happened::Skipped { why, times: 1, last: nominal };
        self.state.remember(Recent { nominal, by, at: self.now, what });
    }

    /// A clock that was ahead and was put right must not silence the schedule until it has caught up. What has fired is
    /// known, so nothing does twice.
    fn follow_the_clock_back(&mut self) {
        if self.now + SET_BACK < self.state.mark {
            self.state.mark = self.now;
        }
    }

    /// Puts the instants whose time has come into the queue. True when some are left.
    fn take_instants(&mut self) -> bool {
        if self.state.is_dormant() {
            return false;
        }
        let window = Duration::from_millis(self.state.spec.catch_up_ms);
        for _ in 0..MAX_INSTANTS {
            let Some(nominal) = self.times.next_after(self.state.mark) else { return false };
            let due = self.times.due(nominal);
            if due > self.now {
                return false;
            }
            let is_late = self.now.since(due) > window;
            match self.known(nominal) {
                // A clock that was put back comes by once more at what has fired or waits: neither is missed.
                Some(SkipReason::Fired) => self.skip(nominal, FiredBy::Clock, SkipReason::Fired),
                _ if self.is_queued(nominal) => {}
                _ if is_late => self.skip(nominal, FiredBy::Clock, SkipReason::Missed),
                Some(why) => self.skip(nominal, FiredBy::Clock, why),
                // They wait where they are, behind the mark.
                None if self.state.queue.len() >= MAX_QUEUE => return false,
                None => {
                    self.state.queue.push_back(Wanted { nominal, by: FiredBy::Clock, overlap: None });
                }
            }
            self.state.mark = nominal;
        }
        // What is sure to be too late need not be looked at one by one. A firing is due at most a jitter after its instant.
        let late = self.state.spec.catch_up_ms.saturating_add(self.state.spec.jitter_ms).saturating_add(1);
        let sure = Timestamp::from_millis(self.now.as_millis().saturating_sub(late));
        self.state.mark = self.state.mark.max(sure);
        true
    }

    /// Why an instant may not fire, when it may not.
    fn known(&self, nominal: Timestamp) -> Option<SkipReason> {
        if self.state.fired.contains(nominal, self.times) {
            Some(SkipReason::Fired)
        } else if nominal <= self.state.fired.floor() {
            Some(SkipReason::Unknown)
        } else {
            None
        }
    }

    fn is_queued(&self, nominal: Timestamp) -> bool {
        self.state.queue.iter().any(|wanted| wanted.by != FiredBy::Trigger && wanted.nominal == nominal)
    }

    /// Puts the instants of backfills into the queue, the oldest backfill first. True when some are left and there is room.
    fn take_backfills(&mut self) -> bool {
        for _ in 0..MAX_INSTANTS {
            let Some(backfill) = self.state.backfills.iter_mut().find(|of| !of.is_taken_in()) else {
                return false;
            };
            if self.state.queue.len() + LEFT_TO_THE_CLOCK >= MAX_QUEUE {
                return false;
            }
            let (to, overlap) = (backfill.to, backfill.overlap);
            let next = self.times.next_after(backfill.after).filter(|nominal| *nominal <= to);
            backfill.after = next.unwrap_or(to);
            let Some(nominal) = next else { continue };
            if let Some(why) = self.known(nominal) {
                self.skip(nominal, FiredBy::Backfill, why);
            } else {
                self.want(Wanted { nominal, by: FiredBy::Backfill, overlap: Some(overlap) });
            }
        }
        true
    }

    /// Puts an instant of a backfill into the queue. One that waits because of the clock is somebody's wish from now on,
    /// and neither a pause nor a limit takes it out any more.
    fn want(&mut self, wanted: Wanted) {
        let same = |of: &Wanted| of.by != FiredBy::Trigger && of.nominal == wanted.nominal;
        match self.state.queue.iter().position(same) {
            Some(at) if self.state.queue[at].by == FiredBy::Clock => self.state.queue[at] = wanted,
            Some(_) => {}
            None => self.state.queue.push_back(wanted),
        }
    }

    /// Goes through the queue up to the first firing that may start.
    fn take_queue(&mut self) -> Option<Fire> {
        let mut at = 0;
        let mut one_waits = false;
        while let Some(&wanted) = self.state.queue.get(at) {
            let Wanted { nominal, by, overlap } = wanted;
            let overlap = overlap.unwrap_or(self.state.spec.overlap);
            let why = if by == FiredBy::Trigger {
                None
            } else if by == FiredBy::Clock && self.state.paused.is_some() {
                Some(SkipReason::Paused)
            } else if by == FiredBy::Clock && self.state.left == Some(0) {
                Some(SkipReason::Limit)
            } else if by == FiredBy::Clock && self.was_tried_too_long(nominal) {
                Some(SkipReason::Missed)
            } else {
                self.known(nominal)
            };
            let running = !self.state.running.is_empty();
            let why = why.or(match overlap {
                Overlap::Skip if running => Some(SkipReason::Overlap),
                Overlap::BufferOne if running && one_waits => Some(SkipReason::Overlap),
                _ => None,
            });
            if let Some(why) = why {
                self.state.queue.remove(at);
                self.skip(nominal, by, why);
                continue;
            }
            let may_start = match overlap {
                Overlap::AllowAll => self.state.running.len() < MAX_RUNNING,
                _ => !running,
            };
            if may_start {
                return Some(self.fire(at));
            }
            match overlap {
                Overlap::BufferOne => one_waits = true,
                Overlap::CancelOther | Overlap::TerminateOther => {
                    at -= self.supersede(at);
                    for running in &mut self.state.running {
                        if running.stop != Some(Overlap::TerminateOther) {
                            running.stop = Some(overlap);
                        }
                    }
                }
                Overlap::Skip | Overlap::BufferAll | Overlap::AllowAll => {}
            }
            at += 1;
        }
        None
    }

    /// Whether nothing could be started for as long as a firing may be late. What waited for a run to be over before that
    /// has as long from then on.
    fn was_tried_too_long(&self, nominal: Timestamp) -> bool {
        let window = Duration::from_millis(self.state.spec.catch_up_ms);
        let since = self.state.trouble.as_ref().map(|trouble| trouble.since.max(self.times.due(nominal)));
        since.is_some_and(|since| self.now.since(since) > window)
    }

    /// Takes out what waits before `at` for the same runs to end. Gives how many.
    fn supersede(&mut self, at: usize) -> usize {
        let policy = self.state.spec.overlap;
        let ends_others = |wanted: &Wanted| {
            matches!(wanted.overlap.unwrap_or(policy), Overlap::CancelOther | Overlap::TerminateOther)
        };
        let mut taken = 0;
        let mut ix = 0;
        while ix < at - taken {
            if ends_others(&self.state.queue[ix])
                && let Some(wanted) = self.state.queue.remove(ix)
            {
                self.skip(wanted.nominal, wanted.by, SkipReason::Superseded);
                taken += 1;
            } else {
                ix += 1;
            }
        }
        taken
    }

    fn fire(&mut self, at: usize) -> Fire {
        let mut state = self.state.clone();
        let wanted = state.queue.remove(at).expect("it was looked at");
        let Wanted { nominal, by, .. } = wanted;
        let request = state.request_of(&wanted).cloned();
        let run = run_id(&state.id, nominal, by);
        let firing = Firing {
            schedule: state.id.clone(),
            run: run.clone(),
            nominal,
            by,
            request,
            action: state.spec.action.clone(),
            last_result: state.last_result.clone(),
            last_failure: state.last_failure.clone(),
        };
        if by != FiredBy::Trigger {
            state.fired.add(nominal, self.times);
        }
        if by == FiredBy::Clock
            && let Some(left) = &mut state.left
        {
            *left = left.saturating_sub(1);
        }
        state.counts.fired += 1;
        state.trouble = None;
        state.running.push(Running { nominal, by, started: self.now, stop: None });
        let what = Happened::Started { run, status: None, ended: None };
        state.remember(Recent { nominal, by, at: self.now, what });
        state.tidy();
        Fire { firing, state }
    }
}
