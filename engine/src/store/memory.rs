//! The reference store, in memory: what [`Store`] promises, in its plainest form.
//!
//! It is also the store of simulations, so a commit completes at once, costs little and can be made to fail
//! through [`MemoryStore::set_fault`]. Its data outlive a handle: [`MemoryStore::reopen`] is what a process that
//! starts again sees. It keeps nothing on disk and does not group commits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    Damage, Expect, GraphHash, Head, ListPage, ListQuery, MAX_PAGE, MAX_RECORD_BYTES, MAX_SUMMARY_BYTES,
    Record, RunSummary, Store, StoreCaps, StoreError, Transition, VerifyReport,
};
use crate::id::{RunId, StoreId};
use crate::time::{BoxFuture, Timestamp};

/// Longest graph hash a store takes, in bytes; it is part of store keys.
const MAX_GRAPH_HASH_BYTES: usize = 128;

/// The JSON of a summary without its four texts has at most so many bytes.
const SUMMARY_FRAME_BYTES: usize = 200;

/// Stands at the end of a note that was cut.
const CUT_MARK: &str = "…";

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

#[derive(Default)]
struct Data {
    epoch: u64,
    runs: BTreeMap<RunId, Run>,
    created: BTreeSet<(Timestamp, RunId)>,
    due: BTreeSet<(Timestamp, RunId)>,
    graphs: BTreeMap<GraphHash, Vec<u8>>,
    commits: u64,
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
    /// An empty store in epoch 1.
    pub fn new(id: StoreId) -> Self {
        Self::with_data(id, 1, Arc::new(Mutex::new(Data { epoch: 1, ..Data::default() })))
    }

    /// Opens the same data again, as the next process would: the epoch rises, and writes decided under an earlier
    /// one are fenced. The new handle has no fault hook and is not poisoned.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let mut data = lock(&self.data);
        data.epoch += 1;
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
    if transition.epoch != data.epoch {
        return Err(StoreError::Fenced { epoch: data.epoch });
    }
    let found = data.runs.get(&transition.run).map(|run| run.seq);
    let seq = transition.expect.check(&transition.run, found)?;

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

impl Expect {
    /// Compares with the sequence number of the run's last event, `None` when there is no such run, and returns
    /// the one that the change goes on from. For implementations of [`Store`].
    ///
    /// # Errors
    /// [`StoreError::Exists`] or [`StoreError::Conflict`]; a run that does not exist is at event 0.
    pub fn check(&self, run: &RunId, found: Option<u64>) -> Result<u64, StoreError> {
        match (self, found) {
            (Self::New, None) => Ok(0),
            (Self::New, Some(_)) => Err(StoreError::Exists(run.clone())),
            (Self::At { seq }, Some(found)) if *seq == found => Ok(found),
            (Self::At { .. }, found) => Err(StoreError::Conflict { seq: found.unwrap_or(0) }),
        }
    }
}

impl Transition {
    /// Checks what any store must refuse, and cuts the summary's note to fit. For implementations of [`Store`],
    /// before anything is written.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] for a record, summary or graph over its limit; [`StoreError::Unavailable`] for a
    /// transition that makes no sense: without events, or with a summary of another run.
    pub fn check(&mut self) -> Result<(), StoreError> {
        let too_large = |what, size, limit| Err(StoreError::TooLarge { what, size, limit });
        if self.record.len() > MAX_RECORD_BYTES {
            return too_large("the record", self.record.len(), MAX_RECORD_BYTES);
        }
        if let Some((hash, bytes)) = &self.graph {
            if bytes.len() > MAX_RECORD_BYTES {
                return too_large("the graph", bytes.len(), MAX_RECORD_BYTES);
            }
            if hash.0.len() > MAX_GRAPH_HASH_BYTES {
                return too_large("the graph's hash", hash.0.len(), MAX_GRAPH_HASH_BYTES);
            }
        }
        if self.events == 0 {
            return Err(StoreError::Unavailable("a transition must hold at least one event".to_owned()));
        }
        if self.summary.run != self.run {
            return Err(StoreError::Unavailable(format!(
                "the summary is of run {}, the transition of run {}",
                self.summary.run, self.run
            )));
        }
        fit(&mut self.summary)
    }
}

/// Cuts the note so that the summary's JSON fits [`MAX_SUMMARY_BYTES`].
fn fit(summary: &mut RunSummary) -> Result<(), StoreError> {
    let texts = [summary.run.as_str(), &summary.workflow, &summary.site, &summary.note];
    if SUMMARY_FRAME_BYTES + texts.iter().map(|text| escaped_len(text)).sum::<usize>() <= MAX_SUMMARY_BYTES {
        return Ok(());
    }
    let encoded_len = |summary: &RunSummary| {
        serde_json::to_vec(summary).expect("a struct of texts and numbers can be written as JSON").len()
    };
    let full = encoded_len(summary);
    if full <= MAX_SUMMARY_BYTES {
        return Ok(());
    }
    let note = std::mem::take(&mut summary.note);
    let bare = encoded_len(summary);
    if bare > MAX_SUMMARY_BYTES {
        return Err(StoreError::TooLarge { what: "the run summary", size: bare, limit: MAX_SUMMARY_BYTES });
    }
    let Some(room) = MAX_SUMMARY_BYTES.checked_sub(bare + r#","note":"""#.len() + CUT_MARK.len()) else {
        return Ok(());
    };
    let mut used = 0;
    for c in note.chars() {
        used += escaped_len(c.encode_utf8(&mut [0; 4]));
        if used > room {
            break;
        }
        summary.note.push(c);
    }
    summary.note.push_str(CUT_MARK);
    Ok(())
}

/// Bytes of a text in JSON, without its quotes.
fn escaped_len(text: &str) -> usize {
    text.bytes()
        .map(|b| match b {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
            0..0x20 => 6,
            _ => 1,
        })
        .sum()
}

impl ListQuery {
    /// Whether a run belongs in the answer, the cursor left aside. For implementations of [`Store`].
    pub fn matches(&self, summary: &RunSummary) -> bool {
        (self.statuses.is_empty() || self.statuses.contains(&summary.status))
            && self.workflow.as_ref().is_none_or(|workflow| *workflow == summary.workflow)
            && self.site.as_ref().is_none_or(|site| *site == summary.site)
            && self.prefix.as_ref().is_none_or(|prefix| summary.run.as_str().starts_with(prefix.as_str()))
    }

    /// The limit in force.
    pub fn page_size(&self) -> usize {
        if self.limit == 0 { MAX_PAGE } else { self.limit.min(MAX_PAGE) }
    }

    /// The creation time and id of the last run of the page before. For implementations of [`Store`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for a cursor that no store has written.
    pub fn after(&self) -> Result<Option<(Timestamp, RunId)>, StoreError> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        cursor
            .split_once('~')
            .and_then(|(at, run)| Some((Timestamp::from_millis(at.parse().ok()?), RunId::new(run).ok()?)))
            .map(Some)
            .ok_or_else(|| StoreError::NotFound(format!("the cursor {cursor:?}")))
    }

    /// The cursor that goes on after this run.
    pub fn cursor_after(summary: &RunSummary) -> String {
        format!("{}~{}", summary.created.as_millis(), summary.run)
    }
}

fn list(data: &Data, query: &ListQuery) -> Result<ListPage, StoreError> {
    let mut page = ListPage::default();
    let runs: Box<dyn Iterator<Item = &(Timestamp, RunId)>> = match query.after()? {
        Some(after) => Box::new(data.created.range(..after).rev()),
        None => Box::new(data.created.iter().rev()),
    };
    for (_, run) in runs {
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
        StoreCaps { durable: false, multi_worker: false, backend: "memory" }
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
            self.read(|data| {
                let Some(run) = data.runs.get(run) else { return Ok(Vec::new()) };
                let from = run.records.partition_point(|record| {
                    record.first_seq + u64::from(record.events) <= after.saturating_add(1)
                });
                Ok(run.records[from..].to_vec())
            })
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

    fn verify(&self) -> BoxFuture<'_, Result<VerifyReport, StoreError>> {
        Box::pin(async move { self.read(|data| Ok(verify(data))) })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::super::conformance::{self, Harness};
    use super::*;
    use crate::run::RunStatus;

    struct Memory(u8);

    impl Harness for Memory {
        type Store = MemoryStore;

        fn fresh(&mut self) -> BoxFuture<'_, MemoryStore> {
            self.0 += 1;
            let store = MemoryStore::new(StoreId::generate([self.0; 16]));
            Box::pin(async move { store })
        }

        fn reopen(&mut self, store: MemoryStore) -> BoxFuture<'_, MemoryStore> {
            Box::pin(async move { store.reopen() })
        }
    }

    #[test]
    fn conforms() {
        let report = conformance::run(&mut Memory(0)).now_or_never().expect("a store in memory never waits");
        assert!(report.cases >= 15, "{report:?}");
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

    #[test]
    fn the_size_of_a_summary_is_never_underestimated() {
        let mut summary = transition(&MemoryStore::new(StoreId::generate([0; 16])), Expect::New).summary;
        (summary.created, summary.updated) = (Timestamp::MAX, Timestamp::MAX);
        (summary.done, summary.total) = (u32::MAX, u32::MAX);
        for status in RunStatus::ALL {
            summary.status = *status;
            for text in ["", "a", "\"\\\n\u{1}é\u{7f}"] {
                (summary.site, summary.note) = (format!("s{text}"), format!("n{text}"));
                let texts = [summary.run.as_str(), &summary.workflow, &summary.site, &summary.note];
                let texts: usize = texts.iter().map(|text| escaped_len(text)).sum();
                let size = serde_json::to_vec(&summary).unwrap().len();
                assert!(size <= SUMMARY_FRAME_BYTES + texts, "{size} {summary:?}");
            }
        }
    }
}
