//! The reference store, in memory: what [`Store`] promises, in its plainest form.
//!
//! It is also the store of simulations, so a commit completes at once, costs little and can be made to fail
//! through [`MemoryStore::set_fault`]. Its data outlive a handle: [`MemoryStore::reopen`] is what a process that
//! starts again sees. [`MemoryStore::shared`] is one for several engines, with claims and leases. It keeps nothing on
//! disk and does not group commits.

mod leases;
mod schedules;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::leases::Leases;
use self::schedules::Schedules;
use super::{
    Claim, Damage, GraphHash, Head, Holds, ListPage, ListQuery, MAX_PAGE, NamesGraphs, Record, RunSummary,
    SchedulePut, Snapshot, Store, StoreCaps, StoreError, StoredSchedule, Swept, Transition, VerifyReport,
    WholeRun, page_len,
};
use crate::id::{RunId, ScheduleId, StoreId, WorkerId};
use crate::time::{BoxFuture, Timestamp};

/// What a fault hook does to one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitFault {
    /// Nothing is written and this error is answered.
    Refuse(StoreError),
    /// It is written, and this error is answered all the same; [`StoreError::Unknown`] is the one that fits.
    WriteThenFail(StoreError),
    /// Nothing is written and the handle is poisoned, as after a failed sync.
    Poison,
    /// It is written and the handle is poisoned: the sync failed after the data had reached the disk.
    WriteThenPoison,
    /// The process dies before the write: the commit never resolves and the handle is poisoned.
    CrashBefore,
    /// The process dies between write and acknowledgement: the commit never resolves and the handle is poisoned.
    CrashAfter,
}

/// Looks at each commit before it is made; `None` lets it pass.
pub type FaultHook = dyn Fn(&Transition) -> Option<CommitFault> + Send + Sync;

#[derive(Default)]
struct Run {
    seq: u64,
    records: Vec<Record>,
    summary: Option<RunSummary>,
    due: Option<Timestamp>,
}

impl Run {
    /// The records from the one that holds event `after + 1`.
    fn after(&self, after: u64) -> &[Record] {
        let before = |record: &Record| record.first_seq + u64::from(record.events) <= after.saturating_add(1);
        &self.records[self.records.partition_point(before)..]
    }
}

#[derive(Default)]
struct Data {
    epoch: u64,
    /// `None` in a store with one owner, who drives every run.
    leases: Option<Leases>,
    runs: BTreeMap<RunId, Run>,
    created: BTreeSet<(Timestamp, RunId)>,
    due: BTreeSet<(Timestamp, RunId)>,
    graphs: BTreeMap<GraphHash, Vec<u8>>,
    schedules: Schedules,
    commits: u64,
    holds: Holds,
}

/// A store in memory. Cheap to make and to share between a crashed owner and the next one.
pub struct MemoryStore {
    id: StoreId,
    epoch: u64,
    data: Arc<Mutex<Data>>,
    fault: Mutex<Option<Arc<FaultHook>>>,
    faulty: AtomicBool,
    poisoned: AtomicBool,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore")
            .field("id", &self.id)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// An empty store in epoch 1, with one owner.
    pub fn new(id: StoreId) -> Self {
        Self::with_data(id, 1, Arc::new(Mutex::new(Data { epoch: 1, ..Data::default() })))
    }

    /// An empty store in epoch 1 that several engines may work on at once, each through the same handle or one of
    /// its own ([`MemoryStore::share`]). Runs must be claimed; see the contract of [`crate::store`].
    pub fn shared(id: StoreId) -> Self {
        let data = Data { epoch: 1, leases: Some(Leases::default()), ..Data::default() };
        Self::with_data(id, 1, Arc::new(Mutex::new(data)))
    }

    /// Opens the same data again, as the next process would: the epoch rises, and writes decided under an earlier
    /// one are fenced. Every claim on a run ends. The new handle has no fault hook and is not poisoned.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let mut data = lock(&self.data);
        let highest = data.leases.as_ref().map_or(0, Leases::highest);
        data.epoch = data.epoch.max(highest) + 1;
        if let Some(leases) = &mut data.leases {
            leases.end_all();
        }
        Self::with_data(self.id.clone(), data.epoch, Arc::clone(&self.data))
    }

    /// Another handle on the same data in the same epoch.
    #[must_use]
    pub fn share(&self) -> Self {
        Self::with_data(self.id.clone(), self.epoch, Arc::clone(&self.data))
    }

    /// Has each later commit of this handle looked at by `hook`.
    pub fn set_fault(&self, hook: impl Fn(&Transition) -> Option<CommitFault> + Send + Sync + 'static) {
        *lock(&self.fault) = Some(Arc::new(hook));
        self.faulty.store(true, Ordering::Release);
    }

    /// How many commits have been written, by all handles on this data.
    pub fn commits(&self) -> u64 {
        lock(&self.data).commits
    }

    fn with_data(id: StoreId, epoch: u64, data: Arc<Mutex<Data>>) -> Self {
        Self {
            id,
            epoch,
            data,
            fault: Mutex::new(None),
            faulty: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
        }
    }

    fn check_alive(&self) -> Result<(), StoreError> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(StoreError::Poisoned("a fault was injected".to_owned()));
        }
        Ok(())
    }

    fn poison(&self) -> StoreError {
        self.poisoned.store(true, Ordering::Release);
        StoreError::Poisoned("a fault was injected".to_owned())
    }

    fn read<T>(&self, read: impl FnOnce(&Data) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.check_alive()?;
        read(&lock(&self.data))
    }

    /// Changes data as the owner of the store: a handle from before it was opened again changes nothing.
    fn change<T>(&self, change: impl FnOnce(&mut Data) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.check_alive()?;
        let mut data = lock(&self.data);
        if self.epoch != data.epoch {
            return Err(StoreError::Fenced { epoch: data.epoch });
        }
        change(&mut data)
    }

    /// Changes data as [`Self::change`] does, by what was decided in an epoch of the store.
    fn decided<T>(
        &self,
        epoch: u64,
        change: impl FnOnce(&mut Data) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.change(|data| {
            if epoch != data.epoch {
                return Err(StoreError::Fenced { epoch: data.epoch });
            }
            let done = change(data)?;
            data.commits += 1;
            Ok(done)
        })
    }

    /// Looks at the claims of a shared store; `alone` is the answer of one with a single owner.
    fn owned<T>(
        &self,
        alone: T,
        change: impl FnOnce(&mut Leases, u64) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.check_alive()?;
        let mut data = lock(&self.data);
        let epoch = data.epoch;
        let Some(leases) = &mut data.leases else { return Ok(alone) };
        if self.epoch != epoch {
            return Err(StoreError::Fenced { epoch });
        }
        change(leases, epoch)
    }

    /// `None` means that the process died in it.
    fn commit_now(&self, transition: Transition) -> Option<Result<u64, StoreError>> {
        if let Err(error) = self.check_alive() {
            return Some(Err(error));
        }
        let hook = if self.faulty.load(Ordering::Acquire) { lock(&self.fault).clone() } else { None };
        let fault = hook.and_then(|hook| hook(&transition));
        match fault {
            None => Some(write(&mut lock(&self.data), transition)),
            Some(CommitFault::Refuse(error)) => Some(Err(error)),
            Some(CommitFault::WriteThenFail(error)) => {
                Some(write(&mut lock(&self.data), transition).and(Err(error)))
            }
            Some(CommitFault::Poison) => Some(Err(self.poison())),
            Some(CommitFault::WriteThenPoison) => {
                Some(write(&mut lock(&self.data), transition).and_then(|_| Err(self.poison())))
            }
            Some(CommitFault::CrashBefore) => {
                let _poisoned = self.poison();
                None
            }
            Some(CommitFault::CrashAfter) => match write(&mut lock(&self.data), transition) {
                Ok(_) => {
                    let _poisoned = self.poison();
                    None
                }
                Err(error) => Some(Err(error)),
            },
        }
    }
}

/// No code panics while it holds the lock; if a hook of a test does, the data are still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(data: &mut Data, mut transition: Transition) -> Result<u64, StoreError> {
    transition.check()?;
    check_epoch(data, &transition.run, transition.epoch)?;
    let found = data.runs.get(&transition.run).map(|run| run.seq);
    let seq = transition.expect.check(&transition.run, found)?;
    if let Some(schedule) = transition.schedule.take() {
        data.schedules.put(schedule)?;
    }

    let run = data.runs.entry(transition.run.clone()).or_default();
    let created = transition.summary.created;
    match &run.summary {
        Some(old) if old.created == created => {}
        old => {
            if let Some(old) = old {
                data.created.remove(&(old.created, transition.run.clone()));
            }
            data.created.insert((created, transition.run.clone()));
        }
    }
    if run.due != transition.due {
        if let Some(at) = run.due {
            data.due.remove(&(at, transition.run.clone()));
        }
        if let Some(at) = transition.due {
            data.due.insert((at, transition.run.clone()));
        }
        run.due = transition.due;
    }
    run.records.push(Record { first_seq: seq + 1, events: transition.events, bytes: transition.record });
    run.seq = seq + u64::from(transition.events);
    run.summary = Some(transition.summary);
    if let Some((hash, bytes)) = transition.graph {
        data.graphs.entry(hash).or_insert(bytes);
    }
    data.commits += 1;
    Ok(run.seq)
}

fn check_epoch(data: &Data, run: &RunId, epoch: u64) -> Result<(), StoreError> {
    match &data.leases {
        Some(leases) => leases.check(data.epoch, run, epoch),
        None if epoch != data.epoch => Err(StoreError::Fenced { epoch: data.epoch }),
        None => Ok(()),
    }
}

fn list(data: &Data, query: &ListQuery) -> Result<ListPage, StoreError> {
    let mut page = ListPage::default();
    // The keys are ordered by creation: start below the cursor and the end of the time asked for, stop at its start.
    let before = query.created_before.map(|at| (at, first_run_id()));
    let end = query.after()?.into_iter().chain(before).min();
    let runs = data.created.range((Bound::Unbounded, end.as_ref().map_or(Bound::Unbounded, Bound::Excluded)));
    let in_time = |(at, _): &&(Timestamp, RunId)| query.created_from.is_none_or(|from| *at >= from);
    for (_, run) in runs.rev().take_while(in_time) {
        let summary = data.runs.get(run).and_then(|run| run.summary.as_ref());
        let Some(summary) = summary.filter(|summary| query.matches(summary)) else { continue };
        if page.runs.len() == query.page_size() {
            page.cursor = page.runs.last().map(ListQuery::cursor_after);
            break;
        }
        page.runs.push(summary.clone());
    }
    Ok(page)
}

/// Sorts before every other: an id starts with a letter or a digit.
fn first_run_id() -> RunId {
    RunId::new("0").expect("a digit is a run id")
}

fn verify(data: &Data) -> VerifyReport {
    let mut report = VerifyReport::default();
    for (id, run) in &data.runs {
        let mut damage = |seq, what: &str| {
            report.damage.push(Damage { run: Some(id.clone()), seq, what: what.to_owned() });
        };
        report.runs += 1;
        let mut seq = 0;
        for record in &run.records {
            if record.first_seq != seq + 1 {
                damage(Some(seq + 1), "events are missing");
            }
            seq = record.first_seq + u64::from(record.events) - 1;
            report.events += u64::from(record.events);
            report.bytes += record.bytes.len() as u64;
        }
        if seq != run.seq {
            damage(Some(seq), "the head is not at the last event");
        }
        if run.due.is_some_and(|at| !data.due.contains(&(at, id.clone()))) {
            damage(None, "the due item is not in the index");
        }
        match &run.summary {
            Some(summary) if data.created.contains(&(summary.created, id.clone())) => {}
            _ => damage(None, "the run is not in the list"),
        }
    }
    if data.due.len() != data.runs.values().filter(|run| run.due.is_some()).count() {
        report.damage.push(Damage {
            run: None,
            seq: None,
            what: "the due index has an item of no run".to_owned(),
        });
    }
    report.schedules = data.schedules.len();
    report.damage.extend(data.schedules.verify());
    report
}

impl Store for MemoryStore {
    fn id(&self) -> StoreId {
        self.id.clone()
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn caps(&self) -> StoreCaps {
        let multi_worker = lock(&self.data).leases.is_some();
        StoreCaps { durable: false, multi_worker, backend: "memory" }
    }

    fn commit(&self, transition: Transition) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            match self.commit_now(transition) {
                Some(result) => result,
                None => std::future::pending().await,
            }
        })
    }

    fn load<'a>(&'a self, run: &'a RunId, after: u64) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(async move {
            self.read(|data| Ok(data.runs.get(run).map_or(&[][..], |run| run.after(after)).to_vec()))
        })
    }

    fn head<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Option<Head>, StoreError>> {
        Box::pin(async move {
            self.read(|data| {
                Ok(data.runs.get(run).and_then(|run| {
                    run.summary.as_ref().map(|summary| Head { seq: run.seq, summary: summary.clone() })
                }))
            })
        })
    }

    fn graph<'a>(&'a self, hash: &'a GraphHash) -> BoxFuture<'a, Result<Vec<u8>, StoreError>> {
        Box::pin(async move {
            self.read(|data| {
                let graph = data.graphs.get(hash).cloned();
                graph.ok_or_else(|| StoreError::NotFound(format!("the graph {}", hash.0)))
            })
        })
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<ListPage, StoreError>> {
        Box::pin(async move { self.read(|data| list(data, &query)) })
    }

    fn due(
        &self,
        until: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, RunId)>, StoreError>> {
        Box::pin(async move {
            self.read(|data| {
                Ok(data.due.iter().take_while(|(at, _)| *at <= until).take(limit).cloned().collect())
            })
        })
    }

    fn claim<'a>(
        &'a self,
        run: &'a RunId,
        worker: &'a WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Claim, StoreError>> {
        let alone = Claim { epoch: self.epoch, until: Timestamp::MAX };
        Box::pin(async move { self.owned(alone, |leases, epoch| leases.claim(epoch, run, worker, now, ttl)) })
    }

    fn renew<'a>(
        &'a self,
        worker: &'a WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Timestamp, StoreError>> {
        Box::pin(async move { self.owned(Timestamp::MAX, |leases, _| Ok(leases.renew(worker, now, ttl))) })
    }

    fn release<'a>(&'a self, run: &'a RunId, worker: &'a WorkerId) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.owned((), |leases, _| {
                leases.release(run, worker);
                Ok(())
            })
        })
    }

    fn page<'a>(
        &'a self,
        run: &'a RunId,
        after: u64,
        bytes: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(async move {
            self.read(|data| {
                let records = data.runs.get(run).map_or(&[][..], |run| run.after(after));
                Ok(records[..page_len(records, bytes)].to_vec())
            })
        })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        Box::pin(async move { self.read(|data| Ok(whole::snapshot(data))) })
    }

    fn put_graph<'a>(&'a self, hash: &'a GraphHash, bytes: Vec<u8>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { self.change(|data| whole::put_graph(data, hash, bytes)) })
    }

    fn import<'a>(&'a self, run: WholeRun<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            // Reading the records may take long, and whoever hands them out may look at this store.
            let collected = whole::collect(run)?;
            self.change(|data| whole::import(data, collected))
        })
    }

    fn remove<'a>(&'a self, run: &'a RunId, seq: u64, epoch: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.check_alive()?;
            whole::remove(&mut lock(&self.data), run, seq, epoch)
        })
    }

    fn sweep(&self, names: NamesGraphs) -> BoxFuture<'_, Result<Swept, StoreError>> {
        Box::pin(async move { self.change(|data| whole::sweep(data, names)) })
    }

    fn put_schedule(&self, put: SchedulePut, epoch: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            put.check()?;
            self.decided(epoch, |data| data.schedules.put(put))
        })
    }

    fn schedule<'a>(
        &'a self,
        id: &'a ScheduleId,
    ) -> BoxFuture<'a, Result<Option<StoredSchedule>, StoreError>> {
        Box::pin(async move { self.read(|data| Ok(data.schedules.get(id))) })
    }

    fn schedules<'a>(
        &'a self,
        after: Option<&'a ScheduleId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredSchedule>, StoreError>> {
        Box::pin(async move { self.read(|data| Ok(data.schedules.page(after, limit.min(MAX_PAGE)))) })
    }

    fn due_schedules(
        &self,
        until: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, ScheduleId)>, StoreError>> {
        Box::pin(async move { self.read(|data| Ok(data.schedules.due(until, limit))) })
    }

    fn remove_schedule<'a>(
        &'a self,
        id: &'a ScheduleId,
        version: u64,
        epoch: u64,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { self.decided(epoch, |data| data.schedules.remove(id, version)) })
    }

    fn verify(&self) -> BoxFuture<'_, Result<VerifyReport, StoreError>> {
        Box::pin(async move { self.read(|data| Ok(verify(data))) })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::super::conformance::{self, Harness};
    use super::*;
    use crate::store::Expect;

    /// Counts the stores; whether they are shared.
    struct Memory(u8, bool);

    impl Harness for Memory {
        type Store = MemoryStore;

        fn fresh(&mut self) -> BoxFuture<'_, MemoryStore> {
            self.0 += 1;
            let id = StoreId::generate([self.0; 16]);
            let store = if self.1 { MemoryStore::shared(id) } else { MemoryStore::new(id) };
            Box::pin(async move { store })
        }

        fn reopen(&mut self, store: MemoryStore) -> BoxFuture<'_, MemoryStore> {
            Box::pin(async move { store.reopen() })
        }
    }

    #[test]
    fn conforms() {
        for (shared, cases) in [(false, 23), (true, 31)] {
            let report = conformance::run(&mut Memory(0, shared)).now_or_never();
            let report = report.expect("a store in memory never waits");
            assert_eq!(report.cases, cases, "shared: {shared}");
            let report = conformance::archives(&mut Memory(100, shared)).now_or_never();
            assert_eq!(report.expect("nor then").cases, 12, "shared: {shared}");
            let report = conformance::schedules(&mut Memory(200, shared)).now_or_never();
            assert_eq!(report.expect("nor then").cases, 8, "shared: {shared}");
        }
    }

    #[test]
    fn opening_a_shared_store_again_ends_every_claim() {
        let now = |future: BoxFuture<'_, Result<Claim, StoreError>>| future.now_or_never().unwrap();
        let (run, worker) = (RunId::new("r").unwrap(), WorkerId::generate([1; 16]));
        let (at, ttl) = (Timestamp::from_millis(5), Duration::from_mins(1));
        let old = MemoryStore::shared(StoreId::generate([0; 16]));
        let mut before = now(old.claim(&run, &worker, at, ttl)).unwrap();
        for _ in 0..3 {
            old.release(&run, &worker).now_or_never().unwrap().unwrap();
            let next = now(old.claim(&run, &worker, at, ttl)).unwrap();
            assert_eq!(next.epoch, before.epoch + 1, "a new claim is one higher");
            before = next;
        }
        let new = old.reopen();
        assert!(new.epoch() > before.epoch, "also above what runs were given");
        let answer =
            new.commit(conformance::transition("r", Expect::New, before.epoch)).now_or_never().unwrap();
        assert_eq!(answer, Err(StoreError::Fenced { epoch: new.epoch() + 1 }));
        let fenced = Err(StoreError::Fenced { epoch: new.epoch() });
        assert_eq!(now(old.claim(&run, &worker, at, ttl)), fenced, "a handle of before claims nothing");
        let other = WorkerId::generate([2; 16]);
        assert_eq!(
            now(new.claim(&run, &other, at, ttl)),
            Ok(Claim { epoch: new.epoch() + 1, until: at + ttl }),
            "leases ended with the epoch"
        );
    }

    #[test]
    fn two_handles_of_a_shared_store_see_the_same_claims() {
        let first = MemoryStore::shared(StoreId::generate([0; 16]));
        let second = first.share();
        let run = RunId::new("r").unwrap();
        let claim = |store: &MemoryStore, by: u8| {
            let worker = WorkerId::generate([by; 16]);
            store.claim(&run, &worker, Timestamp::default(), Duration::from_secs(1)).now_or_never().unwrap()
        };
        assert!(first.caps().multi_worker && second.caps().multi_worker);
        claim(&first, 1).unwrap();
        assert!(matches!(claim(&second, 2), Err(StoreError::Held { .. })));
    }

    fn transition(store: &MemoryStore, expect: Expect) -> Transition {
        conformance::transition("r", expect, store.epoch())
    }

    #[test]
    fn a_hook_can_fail_kill_and_poison() {
        let commit = |fault: CommitFault| {
            let store = MemoryStore::new(StoreId::generate([0; 16]));
            store.set_fault(move |_| Some(fault.clone()));
            let answer = store.commit(transition(&store, Expect::New)).now_or_never();
            (answer, store.commits(), store.head(&RunId::new("r").unwrap()).now_or_never().unwrap().is_err())
        };
        let unknown = StoreError::Unknown("lost".to_owned());
        assert_eq!(commit(CommitFault::Refuse(unknown.clone())), (Some(Err(unknown.clone())), 0, false));
        assert_eq!(commit(CommitFault::WriteThenFail(unknown.clone())), (Some(Err(unknown)), 1, false));
        assert_eq!(commit(CommitFault::CrashBefore), (None, 0, true));
        assert_eq!(commit(CommitFault::CrashAfter), (None, 1, true));
        assert!(matches!(commit(CommitFault::Poison), (Some(Err(StoreError::Poisoned(_))), 0, true)));
        assert!(matches!(
            commit(CommitFault::WriteThenPoison),
            (Some(Err(StoreError::Poisoned(_))), 1, true)
        ));
    }
}
