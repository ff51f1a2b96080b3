//! Who may start an attempt now, across all runs of an engine: locks, semaphores, rates, and the number of attempts
//! at a time.
//!
//! An attempt asks once for everything it needs and gets all or nothing. It never asks for more while it holds
//! something, so no two can wait for each other. Who is refused stands in line, by priority and then by who came
//! first, and those behind cannot take what it waits for: no stream of small wants starves a big one. Steps of one
//! run and of several are the same to it. Whoever waits hears through [`Admission::subscribe`] that something was
//! given back or that somebody left the line, and asks again; a rate says when.
//!
//! The line is kept by what asks: a run that pauses, ends or turns round says so with [`Admission::leave`], or those
//! behind would wait for somebody who no longer comes.
//!
//! What it does not do. It stores nothing: one process owns a store, all its attempts end with it, and a new one
//! starts with everything free. It reads no clock and starts no task. It does not take back what it gave to let a
//! higher priority in. It does not promise a fair share to each run: many wants of one run are many places in line.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::graph::StepIx;
use crate::id::{LockName, RunId};
use crate::time::Timestamp;

mod bucket;
mod ledger;
#[cfg(test)]
mod tests;

pub use bucket::Rate;
use ledger::{Counted, Ledger, Need, Place, Stand};

/// The most runs an [`Obstacle`] of the line names.
const MAX_NAMED: usize = 16;

/// What there is of everything. A number of 0 counts as 1: it would let nobody in, ever.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits {
    /// Attempts at a time; without a number there is no limit.
    pub(crate) max_attempts: Option<u32>,
    /// Permits of each semaphore, by name.
    pub(crate) semaphores: BTreeMap<String, u32>,
    /// Rates by name. A want that names another one is not held up by it.
    pub(crate) rates: BTreeMap<String, Rate>,
}

/// Something to be held while an attempt runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hold {
    /// A lock that nobody else holds, nor a permit of that name.
    Exclusive(LockName),
    /// A lock that others may share.
    Shared(LockName),
    /// One permit of a semaphore. Without a configured size there is one; who asks for more than there are gets all.
    Permit(LockName),
}

/// What an attempt needs to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) run: RunId,
    pub(crate) step: StepIx,
    /// Higher first.
    pub(crate) priority: i32,
    pub(crate) holds: Vec<Hold>,
    /// One permit of each; a name given twice takes two, but never more than a full bucket has.
    pub(crate) rates: Vec<String>,
    /// Whether it counts against [`Limits::max_attempts`].
    pub(crate) slot: bool,
}

/// A want that has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// When to ask again as a rate has more then. `None`: when [`Admission::subscribe`] tells.
    pub(crate) retry_at: Option<Timestamp>,
}

/// What kind of thing a step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ObstacleKind {
    /// A lock that others hold.
    Lock,
    /// A semaphore with too few permits left.
    Semaphore,
    /// A rate that is used up for now.
    Rate,
    /// The number of attempts that may run at a time.
    Slots,
    /// Others who came first, or have a higher priority, and wait for the same thing.
    Queue,
}

/// One thing that keeps a step from starting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Obstacle {
    /// What kind of thing it is.
    pub kind: ObstacleKind,
    /// Its name; `attempts` for the number of attempts at a time.
    pub name: String,
    /// Runs that hold it, each once. For [`ObstacleKind::Queue`] the first runs in line for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<RunId>,
    /// When it goes away by itself; only a rate does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Who may start an attempt now, for all runs of an engine.
#[derive(Debug)]
pub(crate) struct Admission {
    ledger: Mutex<Ledger>,
    /// Counts what was given back and who left the line, so that nobody who waits misses one.
    released: watch::Sender<u64>,
}

/// What an attempt was given. Dropping it gives locks, permits and the slot back; permits of a rate are spent. It
/// belongs into the attempt's own task, so that nothing is given back before the task has really ended.
#[derive(Debug)]
#[must_use = "dropping it gives everything back"]
pub(crate) struct Grant {
    admission: Arc<Admission>,
    run: RunId,
    need: Need,
}

impl Admission {
    /// With everything free.
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { ledger: Mutex::new(Ledger::new(limits)), released: watch::Sender::new(0) })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.released.send_modify(|n| *n += 1);
    }

    /// Takes everything or nothing. A want that is refused stands in line from then on, once per run and step; asked
    /// again with other needs or another priority, it keeps its age.
    ///
    /// `now` is the engine's clock itself: a rate cannot tell time that goes to and fro from time that passes.
    pub(crate) fn take(self: &Arc<Self>, want: &Want, now: Timestamp) -> Result<Grant, Refused> {
        let mut ledger = self.ledger();
        let (need, place) = (ledger.need(want), ledger.place(want));
        // Who asks for something else than it did does not stand in its own way; others may have stood behind that.
        let old = ledger.changed(want, &need, place);
        if let Some(old) = old {
            ledger.leave(old);
        }
        let (result, eased) = match ledger.judge(&need, place, now) {
            Ok(()) => {
                if let (None, Some(queued)) = (old, ledger.queued(want)) {
                    ledger.leave(queued);
                }
                ledger.hold(&want.run, &need);
                (Ok(need), false)
            }
            Err(retry_at) => {
                (Err(Refused { retry_at }), ledger.queue((want.run.clone(), want.step), need, place))
            }
        };
        let eased = eased || old.is_some();
        drop(ledger);
        if eased {
            self.tell();
        }
        result.map(|need| Grant { admission: Arc::clone(self), run: want.run.clone(), need })
    }

    /// The same judgement without taking or standing in line.
    #[cfg(test)]
    pub(crate) fn would_fit(&self, want: &Want, now: Timestamp) -> bool {
        let mut ledger = self.ledger();
        ledger.as_if(want, |ledger, need, place| ledger.judge(need, place, now).is_ok())
    }

    /// Takes wants of a run out of the line: those of steps that are not `still` wanted.
    pub(crate) fn leave(&self, run: &RunId, still: &dyn Fn(StepIx) -> bool) {
        let waiting = self.ledger().places_of(run);
        // Asked without the lock: what is asked is not ours to know.
        let gone: Vec<_> = waiting.into_iter().filter(|(step, _)| !still(*step)).collect();
        let mut ledger = self.ledger();
        let mut any = false;
        for (step, place) in gone {
            if ledger.is_at(run, step, place) {
                ledger.leave(place);
                any = true;
            }
        }
        drop(ledger);
        if any {
            self.tell();
        }
    }

    /// What stands in the way of a want, for `why`; nothing when it would fit.
    pub(crate) fn obstacles(&self, want: &Want, now: Timestamp) -> Vec<Obstacle> {
        self.ledger().as_if(want, |ledger, need, place| obstacles(ledger, need, place, now))
    }

    /// Runs that hold a lock, or a permit of that name, each once.
    pub(crate) fn holders(&self, name: &LockName) -> Vec<RunId> {
        self.ledger().holders(name)
    }

    /// How many wants were refused and stand in line.
    pub(crate) fn waiting(&self) -> usize {
        self.ledger().waiting()
    }

    /// Changes whenever somebody who was refused may fit now.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.released.subscribe()
    }
}

fn obstacles(ledger: &mut Ledger, need: &Need, place: Place, now: Timestamp) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let mut add = |kind, name: &str, held_by| {
        found.push(Obstacle { kind, name: name.to_owned(), held_by, until: None });
    };
    for (name, mode) in &need.locks {
        if ledger.at_lock(name, *mode, place) == Some(Stand::Held) {
            add(ObstacleKind::Lock, name.as_str(), ledger.holders(name));
        }
        let ahead = ledger.ahead_at_lock(name, *mode, place, MAX_NAMED);
        if !ahead.is_empty() {
            add(ObstacleKind::Queue, name.as_str(), ahead);
        }
    }
    for (what, n) in &need.counts {
        let (kind, name) = match what {
            Counted::Slots => (ObstacleKind::Slots, "attempts"),
            Counted::Semaphore(name) => (ObstacleKind::Semaphore, name.as_str()),
        };
        match ledger.at_pool(what, *n, place) {
            Some(Stand::Held) => add(kind, name, ledger.pool_holders(what)),
            Some(Stand::Reserved) => {
                add(ObstacleKind::Queue, name, ledger.ahead_at_pool(what, place, MAX_NAMED));
            }
            None => {}
        }
    }
    for (name, n) in &need.rates {
        if let Some(until) = ledger.at_rate(name, *n, place, now) {
            let (kind, name) = (ObstacleKind::Rate, name.clone());
            found.push(Obstacle { kind, name, held_by: Vec::new(), until: Some(until) });
        }
    }
    found
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.need.locks.is_empty() && self.need.counts.is_empty() {
            return;
        }
        self.admission.ledger().give_back(&self.run, &self.need);
        self.admission.tell();
    }
}
