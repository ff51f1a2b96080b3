//! What is held and who waits, and the judgement over it. Plain values; the lock around it is one room up.
//!
//! A want is judged thing by thing, against what is held and what those ahead of it in line need:
//!
//! - At a **lock** every want ahead counts, so that order at a lock is strict.
//! - Of what is **counted** (slots, permits of a semaphore) a want ahead reserves its part, but only one that stands
//!   behind nobody at a lock. One that does cannot go before that one has come and gone; a hundred of them in line at
//!   one lock would else keep a hundred slots empty.
//! - Of a **rate** the same wants reserve their part, but not while they wait for something to be given back: a
//!   bucket fills up again by itself, and it would stand full for as long as the lock is held.
//!
//! The first in line has nobody ahead. It goes as soon as enough was given back, and so does everyone in turn.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::bucket::Bucket;
use super::{Hold, Limits, Want};
use crate::graph::StepIx;
use crate::id::{LockName, RunId};
use crate::time::Timestamp;

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nobody else holds it.
    Exclusive,
    /// Others may share it.
    Shared,
}

/// A place in line: the higher priority first, then who came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    priority: Reverse<i32>,
    ticket: u64,
}

/// Things there is a number of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Counted {
    Slots,
    Semaphore(LockName),
}

/// A want put in order: each thing once, nothing that has no limit, and never more than there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Need {
    pub(super) locks: BTreeMap<LockName, Mode>,
    pub(super) counts: BTreeMap<Counted, u32>,
    pub(super) rates: BTreeMap<String, u32>,
}

#[derive(Debug)]
struct Waiter {
    key: (RunId, StepIx),
    need: Need,
    /// One that it stands behind at a lock; there may be more of them. Nobody: what it needs is reserved.
    behind: Option<Place>,
    /// Those who have this one as their `behind`.
    followers: BTreeSet<Place>,
}

#[derive(Debug, Default)]
struct Lock {
    shared: u32,
    exclusive: bool,
    by: BTreeMap<RunId, u32>,
    wait_exclusive: BTreeSet<Place>,
    wait_shared: BTreeSet<Place>,
}

#[derive(Debug)]
struct Pool {
    size: u32,
    held: u32,
    by: BTreeMap<RunId, u32>,
    reserved: BTreeMap<Place, u32>,
}

#[derive(Debug)]
struct Flow {
    bucket: Bucket,
    reserved: BTreeMap<Place, u32>,
}

/// What stands in the way at one lock or pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// It is held.
    Held,
    /// It is free, but for others.
    Reserved,
}

/// What is held and who waits.
#[derive(Debug)]
pub(super) struct Ledger {
    semaphores: BTreeMap<String, u32>,
    locks: BTreeMap<LockName, Lock>,
    pools: BTreeMap<Counted, Pool>,
    flows: BTreeMap<String, Flow>,
    line: BTreeMap<Place, Waiter>,
    places: BTreeMap<(RunId, StepIx), Place>,
    next_ticket: u64,
    /// Entries of the line that were looked at, ever: the measure of what a judgement costs.
    #[cfg(test)]
    pub(super) visited: u64,
}

impl Ledger {
    pub(super) fn new(limits: Limits) -> Self {
        let pool = |size: u32| Pool { size, held: 0, by: BTreeMap::new(), reserved: BTreeMap::new() };
        let slots = limits.max_attempts.map(|size| (Counted::Slots, pool(size.max(1))));
        let flow = |rate| Flow { bucket: Bucket::new(rate), reserved: BTreeMap::new() };
        Self {
            semaphores: limits.semaphores,
            locks: BTreeMap::new(),
            pools: slots.into_iter().collect(),
            flows: limits.rates.into_iter().map(|(name, rate)| (name, flow(rate))).collect(),
            line: BTreeMap::new(),
            places: BTreeMap::new(),
            next_ticket: 0,
            #[cfg(test)]
            visited: 0,
        }
    }

    fn size(&self, name: &LockName) -> u32 {
        self.semaphores.get(name.as_str()).copied().unwrap_or(1).max(1)
    }

    /// Puts a want in order. A permit also shares the lock of its name, so that whoever holds that lock alone has
    /// the whole semaphore.
    pub(super) fn need(&self, want: &Want) -> Need {
        let mut need = Need::default();
        for hold in &want.holds {
            let (name, mode) = match hold {
                Hold::Exclusive(name) => (name, Mode::Exclusive),
                Hold::Shared(name) => (name, Mode::Shared),
                Hold::Permit(name) => {
                    let n = need.counts.entry(Counted::Semaphore(name.clone())).or_default();
                    *n = n.saturating_add(1).min(self.size(name));
                    (name, Mode::Shared)
                }
            };
            let entry = need.locks.entry(name.clone()).or_insert(mode);
            if mode == Mode::Exclusive {
                *entry = mode;
            }
        }
        if want.slot && self.pools.contains_key(&Counted::Slots) {
            need.counts.insert(Counted::Slots, 1);
        }
        for name in &want.rates {
            if let Some(flow) = self.flows.get(name) {
                let n = need.rates.entry(name.clone()).or_default();
                *n = n.saturating_add(1).min(flow.bucket.burst());
            }
        }
        need
    }

    /// How many stand in line.
    pub(super) fn waiting(&self) -> usize {
        self.line.len()
    }

    /// Where a want stands, or would stand were it queued now.
    pub(super) fn place(&self, want: &Want) -> Place {
        let known = self.places.get(&(want.run.clone(), want.step));
        let ticket = known.map_or(self.next_ticket, |p| p.ticket);
        Place { priority: Reverse(want.priority), ticket }
    }

    fn visit(&mut self, entries: usize) {
        #[cfg(test)]
        {
            self.visited += entries as u64;
        }
        #[cfg(not(test))]
        let _ = (self, entries);
    }

    /// What stands in the way at a lock.
    pub(super) fn at_lock(&mut self, name: &LockName, mode: Mode, place: Place) -> Option<Stand> {
        let lock = self.locks.get(name)?;
        if lock.held_against(mode) {
            return Some(Stand::Held);
        }
        let ahead = lock.last_ahead(mode, place).is_some();
        self.visit(usize::from(ahead));
        ahead.then_some(Stand::Reserved)
    }

    /// What stands in the way of so many of a counted thing.
    pub(super) fn at_pool(&mut self, what: &Counted, n: u32, place: Place) -> Option<Stand> {
        let pool = self.pools.get(what)?;
        let free = pool.size - pool.held;
        let Some(spare) = free.checked_sub(n) else { return Some(Stand::Held) };
        let (mut reserved, mut seen, mut stand) = (0u64, 0, None);
        for (_, n) in pool.reserved.range(..place) {
            (reserved, seen) = (reserved + u64::from(*n), seen + 1);
            if reserved > u64::from(spare) {
                stand = Some(Stand::Reserved);
                break;
            }
        }
        self.visit(seen);
        stand
    }

    /// When a rate will have so many permits for this want; `None` when it has them now.
    pub(super) fn at_rate(&mut self, name: &str, n: u32, place: Place, now: Timestamp) -> Option<Timestamp> {
        let flow = self.flows.get_mut(name)?;
        flow.bucket.refill(now);
        let flow = self.flows.get(name)?;
        let (mut needed, mut seen) = (u64::from(n), 0);
        for (ahead, n) in flow.reserved.range(..place) {
            seen += 1;
            if self.line.get(ahead).is_some_and(|w| !self.waits_for_holders(&w.need)) {
                needed += u64::from(*n);
            }
            // Farther ahead than this nobody looks: by the time found so far one looks again.
            if needed > u64::from(flow.bucket.burst()) {
                break;
            }
        }
        let until = flow.bucket.short_until(needed);
        self.visit(seen);
        until
    }

    /// Whether something has to be given back before this can go.
    fn waits_for_holders(&self, need: &Need) -> bool {
        need.locks.iter().any(|(name, mode)| self.locks.get(name).is_some_and(|l| l.held_against(*mode)))
            || need.counts.iter().any(|(what, n)| self.pools.get(what).is_some_and(|p| p.size - p.held < *n))
    }

    /// Whether it may go: `Err` says when a rate lets it, `Err(None)` that something must be given back first.
    pub(super) fn judge(
        &mut self,
        need: &Need,
        place: Place,
        now: Timestamp,
    ) -> Result<(), Option<Timestamp>> {
        for (name, mode) in &need.locks {
            if self.at_lock(name, *mode, place).is_some() {
                return Err(None);
            }
        }
        for (what, n) in &need.counts {
            if self.at_pool(what, *n, place).is_some() {
                return Err(None);
            }
        }
        let times = need.rates.iter().filter_map(|(name, n)| self.at_rate(name, *n, place, now));
        match times.max() {
            Some(at) => Err(Some(at)),
            None => Ok(()),
        }
    }

    /// Takes what a want was judged to get.
    pub(super) fn hold(&mut self, run: &RunId, need: &Need) {
        for (name, mode) in &need.locks {
            let lock = self.locks.entry(name.clone()).or_default();
            match mode {
                Mode::Exclusive => lock.exclusive = true,
                Mode::Shared => lock.shared += 1,
            }
            *lock.by.entry(run.clone()).or_default() += 1;
        }
        for (what, n) in &need.counts {
            let pool = self.pool(what);
            pool.held += n;
            *pool.by.entry(run.clone()).or_default() += 1;
        }
        for (name, n) in &need.rates {
            self.flows.get_mut(name).expect("needs name rates that are there").bucket.spend(*n);
        }
    }

    /// Gives back all but what was spent.
    pub(super) fn give_back(&mut self, run: &RunId, need: &Need) {
        for (name, mode) in &need.locks {
            let lock = self.locks.get_mut(name).expect("a lock that is held is there");
            match mode {
                Mode::Exclusive => lock.exclusive = false,
                Mode::Shared => lock.shared -= 1,
            }
            one_less(&mut lock.by, run);
            self.tidy_lock(name);
        }
        for (what, n) in &need.counts {
            let pool = self.pool(what);
            pool.held -= n;
            one_less(&mut pool.by, run);
            self.tidy_pool(what);
        }
    }

    fn pool(&mut self, what: &Counted) -> &mut Pool {
        let size = match what {
            Counted::Slots => u32::MAX,
            Counted::Semaphore(name) => self.size(name),
        };
        // The slots are there from the start if there is a limit; without one no need names them.
        self.pools.entry(what.clone()).or_insert_with(|| Pool {
            size,
            held: 0,
            by: BTreeMap::new(),
            reserved: BTreeMap::new(),
        })
    }

    fn tidy_lock(&mut self, name: &LockName) {
        let idle = |l: &Lock| l.by.is_empty() && l.wait_exclusive.is_empty() && l.wait_shared.is_empty();
        if self.locks.get(name).is_some_and(idle) {
            self.locks.remove(name);
        }
    }

    fn tidy_pool(&mut self, what: &Counted) {
        let idle = |p: &Pool| p.held == 0 && p.reserved.is_empty();
        if *what != Counted::Slots && self.pools.get(what).is_some_and(idle) {
            self.pools.remove(what);
        }
    }

    /// Puts a step in line, once; it stands nowhere else. Says whether others may go now that could not before.
    pub(super) fn queue(&mut self, key: (RunId, StepIx), need: Need, place: Place) -> bool {
        if self.places.contains_key(&key) {
            return false;
        }
        let mut eased = false;
        self.next_ticket = self.next_ticket.max(place.ticket + 1);
        let locks = need.locks.clone();
        for (name, mode) in &locks {
            self.locks.entry(name.clone()).or_default().line(*mode).insert(place);
        }
        self.places.insert(key.clone(), place);
        self.line.insert(place, Waiter { key, need, behind: None, followers: BTreeSet::new() });
        self.stand(place);
        // Those who had nobody ahead and now have this one reserve nothing any more.
        let mut overtaken = BTreeSet::new();
        for (name, mode) in &locks {
            self.locks[name].first_behind(*mode, place, &mut overtaken);
        }
        self.visit(overtaken.len());
        for other in overtaken {
            let waiter = self.line.get_mut(&other).expect("who waits at a lock is in line");
            if waiter.behind.is_none() {
                waiter.behind = Some(place);
                self.line.get_mut(&place).expect("just put there").followers.insert(other);
                self.unreserve(other);
                eased = true;
            }
        }
        eased
    }

    /// Where a want is in line, if it is.
    pub(super) fn queued(&self, want: &Want) -> Option<Place> {
        self.places.get(&(want.run.clone(), want.step)).copied()
    }

    /// Whether a step stands at this place.
    pub(super) fn is_at(&self, run: &RunId, step: StepIx, place: Place) -> bool {
        self.places.get(&(run.clone(), step)) == Some(&place)
    }

    /// Where a want is in line with another place or other needs than these.
    pub(super) fn changed(&self, want: &Want, need: &Need, place: Place) -> Option<Place> {
        self.queued(want).filter(|old| *old != place || self.line[old].need != *need)
    }

    /// Judges a want as if it stood in line with what it asks for now, whatever it asked for before.
    pub(super) fn as_if<T>(&mut self, want: &Want, judge: impl FnOnce(&mut Self, &Need, Place) -> T) -> T {
        let (need, place) = (self.need(want), self.place(want));
        let Some(old) = self.changed(want, &need, place) else { return judge(self, &need, place) };
        let before = self.line[&old].need.clone();
        self.leave(old);
        let result = judge(self, &need, place);
        self.queue((want.run.clone(), want.step), before, old);
        result
    }

    /// Places of a run's steps in line.
    pub(super) fn places_of(&self, run: &RunId) -> Vec<(StepIx, Place)> {
        let all = self.places.range((run.clone(), 0)..=(run.clone(), StepIx::MAX));
        all.map(|((_, step), place)| (*step, *place)).collect()
    }

    /// Takes one out of the line.
    pub(super) fn leave(&mut self, place: Place) {
        self.unreserve(place);
        let waiter = self.line.remove(&place).expect("only who is in line leaves it");
        self.places.remove(&waiter.key);
        for (name, mode) in &waiter.need.locks {
            self.locks.get_mut(name).expect("a lock with a line is there").line(*mode).remove(&place);
            self.tidy_lock(name);
        }
        if let Some(ahead) = waiter.behind.and_then(|ahead| self.line.get_mut(&ahead)) {
            ahead.followers.remove(&place);
        }
        self.visit(waiter.followers.len());
        for follower in waiter.followers {
            self.stand(follower);
        }
    }

    /// Finds somebody this one stands behind at a lock; if there is nobody, reserves what it needs.
    fn stand(&mut self, place: Place) {
        let need = &self.line[&place].need;
        let ahead = need.locks.iter().find_map(|(name, mode)| self.locks.get(name)?.last_ahead(*mode, place));
        self.visit(1);
        self.line.get_mut(&place).expect("asked of who is in line").behind = ahead;
        if let Some(ahead) = ahead {
            self.line.get_mut(&ahead).expect("who waits at a lock is in line").followers.insert(place);
            return;
        }
        let (counts, rates) = self.countables(place);
        for (what, n) in counts {
            self.pool(&what).reserved.insert(place, n);
        }
        for (name, n) in rates {
            self.flows.get_mut(&name).expect("needs name rates that are there").reserved.insert(place, n);
        }
    }

    /// Takes back what [`Ledger::stand`] reserved, if it did.
    fn unreserve(&mut self, place: Place) {
        let (counts, rates) = self.countables(place);
        for (what, _) in counts {
            if let Some(pool) = self.pools.get_mut(&what) {
                pool.reserved.remove(&place);
            }
            self.tidy_pool(&what);
        }
        for (name, _) in rates {
            self.flows.get_mut(&name).expect("needs name rates that are there").reserved.remove(&place);
        }
    }

    fn countables(&self, place: Place) -> (BTreeMap<Counted, u32>, BTreeMap<String, u32>) {
        let need = &self.line[&place].need;
        (need.counts.clone(), need.rates.clone())
    }

    /// Runs that hold a lock or a permit of it, each once.
    pub(super) fn holders(&self, name: &LockName) -> Vec<RunId> {
        self.locks.get(name).map(|l| l.by.keys().cloned().collect()).unwrap_or_default()
    }

    /// Runs that hold a part of a counted thing, each once.
    pub(super) fn pool_holders(&self, what: &Counted) -> Vec<RunId> {
        self.pools.get(what).map(|p| p.by.keys().cloned().collect()).unwrap_or_default()
    }

    /// Runs ahead in line at a lock that are in the way, the first of them.
    pub(super) fn ahead_at_lock(&self, name: &LockName, mode: Mode, place: Place, most: usize) -> Vec<RunId> {
        let Some(lock) = self.locks.get(name) else { return Vec::new() };
        let mut places: BTreeSet<Place> = lock.wait_exclusive.range(..place).take(most).copied().collect();
        if mode == Mode::Exclusive {
            places.extend(lock.wait_shared.range(..place).take(most));
        }
        self.runs(places.into_iter(), most)
    }

    /// Runs ahead in line for whom a counted thing is reserved, the first of them.
    pub(super) fn ahead_at_pool(&self, what: &Counted, place: Place, most: usize) -> Vec<RunId> {
        let Some(pool) = self.pools.get(what) else { return Vec::new() };
        self.runs(pool.reserved.range(..place).map(|(p, _)| *p), most)
    }

    fn runs(&self, places: impl Iterator<Item = Place>, most: usize) -> Vec<RunId> {
        let mut runs: Vec<RunId> = Vec::new();
        for waiter in places.take(most).filter_map(|p| self.line.get(&p)) {
            if !runs.contains(&waiter.key.0) {
                runs.push(waiter.key.0.clone());
            }
        }
        runs
    }
}

impl Lock {
    fn line(&mut self, mode: Mode) -> &mut BTreeSet<Place> {
        match mode {
            Mode::Exclusive => &mut self.wait_exclusive,
            Mode::Shared => &mut self.wait_shared,
        }
    }

    fn held_against(&self, mode: Mode) -> bool {
        self.exclusive || (mode == Mode::Exclusive && self.shared > 0)
    }

    /// The one next ahead with whom a want cannot go together.
    fn last_ahead(&self, mode: Mode, place: Place) -> Option<Place> {
        let alone = self.wait_exclusive.range(..place).next_back();
        match mode {
            Mode::Shared => alone.copied(),
            Mode::Exclusive => alone.max(self.wait_shared.range(..place).next_back()).copied(),
        }
    }

    /// Those behind a place whom nobody but it keeps from being first at this lock.
    fn first_behind(&self, mode: Mode, place: Place, found: &mut BTreeSet<Place>) {
        if self.wait_exclusive.range(..place).next().is_some() {
            return;
        }
        let behind = (Bound::Excluded(place), Bound::Unbounded);
        let alone = self.wait_exclusive.range(behind).next();
        found.extend(alone);
        if mode == Mode::Exclusive {
            let upto = alone.map_or(Bound::Unbounded, |p| Bound::Excluded(*p));
            found.extend(self.wait_shared.range((Bound::Excluded(place), upto)));
        }
    }
}

fn one_less(by: &mut BTreeMap<RunId, u32>, run: &RunId) {
    let n = by.get_mut(run).expect("who gives back has held");
    *n -= 1;
    if *n == 0 {
        by.remove(run);
    }
}

#[cfg(test)]
impl Ledger {
    /// Whether nothing is held and nobody waits.
    pub(super) fn is_idle(&self) -> bool {
        let pools = self.pools.values().all(|p| p.held == 0 && p.by.is_empty() && p.reserved.is_empty());
        let flows = self.flows.values().all(|f| f.reserved.is_empty());
        self.locks.is_empty() && self.line.is_empty() && self.places.is_empty() && pools && flows
    }

    /// Checks what the line promises: who stands behind nobody has all reserved, and nobody else has anything.
    pub(super) fn check(&self) {
        assert_eq!(self.line.len(), self.places.len());
        for (place, waiter) in &self.line {
            assert_eq!(self.places[&waiter.key], *place);
            let first = waiter.need.locks.iter().all(|(n, m)| self.locks[n].last_ahead(*m, *place).is_none());
            assert_eq!(waiter.behind.is_none(), first);
            assert!(waiter.behind.is_none_or(|b| b < *place && self.line[&b].followers.contains(place)));
            for (what, n) in &waiter.need.counts {
                let reserved = self.pools.get(what).and_then(|p| p.reserved.get(place));
                assert_eq!(reserved, first.then_some(n));
            }
            for (name, n) in &waiter.need.rates {
                assert_eq!(self.flows[name].reserved.get(place), first.then_some(n));
            }
        }
        for pool in self.pools.values() {
            assert!(pool.held <= pool.size);
            assert!(pool.reserved.keys().all(|p| self.line.contains_key(p)));
        }
    }
}
