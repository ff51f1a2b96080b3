//! The committer: the one thread that writes. It takes what has queued up, checks each transition against the
//! run's head as the ones before leave it, applies all of it as one batch, makes it durable, and then answers.
//!
//! The order is always: batch, sled's flush, `fdatasync` of sled's log, the older slot of `HEAD`, its `fdatasync`,
//! the answers. The first failure on this way poisons the store: nothing is tried again, because a sync that
//! failed once may succeed the second time without having written anything.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dssflow_engine::id::{RunId, StoreId};
use dssflow_engine::store::{Expect, GraphHash, Holds, StoreError, Transition, VerifyReport};
use dssflow_engine::time::Timestamp;
use tokio::sync::oneshot;

use crate::blob::{self, Body, INLINE_LIMIT};
use crate::codec::{self, Commit, Hash, HeadValue, seal};
use crate::disk::{Disk, Synced};
use crate::head::{HeadFile, Slots};
use crate::import::Importing;
use crate::inflight::{Held, InFlight};
use crate::place::Place;
use crate::schedules::{self, Overlay};
use crate::tree::{EmptyDir, Trouble, protect};
use crate::watch::Watch;
use crate::{check, keys, payload, read};

/// Most transitions in a group; more made it slower.
const MAX_GROUP: usize = 256;
/// Most bytes of records and graphs in a group, but for its last transition.
const MAX_GROUP_BYTES: usize = 1024 * 1024;
/// A group waits for writers that are likely to come for one part in so many of the time the last one took.
const LINGER: u32 = 8;
/// The longest that a committer without work stays awake after a group.
const MAX_AWAKE: Duration = Duration::from_micros(200);
/// Most heads kept in memory; they are dropped all at once and read again when needed.
const MAX_HEADS: usize = 65_536;

/// Set once, when the store must not be written any more.
#[derive(Debug, Default)]
pub(crate) struct Poison(OnceLock<String>);

impl Poison {
    pub(crate) fn set(&self, why: impl Into<String>) -> StoreError {
        let why = self.0.get_or_init(|| {
            let why = why.into();
            tracing::error!(%why, "the store is poisoned");
            why
        });
        StoreError::Poisoned(why.clone())
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.0.get().map_or(Ok(()), |why| Err(StoreError::Poisoned(why.clone())))
    }
}

/// What the committer counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) groups: AtomicU64,
    pub(crate) transitions: AtomicU64,
    pub(crate) tree_syncs: AtomicU64,
    pub(crate) head_syncs: AtomicU64,
    pub(crate) payloads: AtomicU64,
    pub(crate) largest_group: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Counted by readers.
    pub(crate) listed: AtomicU64,
    pub(crate) spent: Spent,
}

/// Nanoseconds in each part of the groups so far.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    pub(crate) staging: AtomicU64,
    pub(crate) applying: AtomicU64,
    pub(crate) flushing: AtomicU64,
    pub(crate) syncing_tree: AtomicU64,
    pub(crate) writing_head: AtomicU64,
}

/// Adds what has passed since the mark to a counter, and sets the mark anew.
fn lap(mark: &mut Instant, counter: &AtomicU64) {
    let now = Instant::now();
    let passed = u64::try_from((now - *mark).as_nanos()).unwrap_or(u64::MAX);
    counter.fetch_add(passed, Ordering::Relaxed);
    *mark = now;
}

pub(crate) type Reply = oneshot::Sender<Result<u64, StoreError>>;

/// A transition on its way.
pub(crate) struct Request {
    pub(crate) transition: Transition,
    /// Set when the record is in a payload file.
    pub(crate) record_digest: Option<Hash>,
    /// Set when the graph is in a payload file.
    pub(crate) graph_digest: Option<Hash>,
    /// Keeps those files.
    pub(crate) held: Vec<Held>,
    pub(crate) reply: Reply,
}

impl Request {
    pub(crate) fn new(transition: Transition, reply: Reply) -> Self {
        Self { transition, record_digest: None, graph_digest: None, held: Vec::new(), reply }
    }

    /// Whether something of it must go to a payload file first.
    pub(crate) fn is_large(&self) -> bool {
        self.transition.record.len() > INLINE_LIMIT
            || self.transition.graph.as_ref().is_some_and(|(_, bytes)| bytes.len() > INLINE_LIMIT)
    }

    /// How much of a group's bytes it takes.
    fn weight(&self) -> usize {
        let weight = |bytes: &[u8]| if bytes.len() > INLINE_LIMIT { 0 } else { bytes.len() };
        weight(&self.transition.record) + self.transition.graph.as_ref().map_or(0, |(_, bytes)| weight(bytes))
    }
}

/// What the committer is asked to do.
pub(crate) enum Order {
    Commit(Box<Request>),
    /// Reads and checks everything while nothing is written.
    Verify(oneshot::Sender<Result<VerifyReport, StoreError>>),
    /// Does something else between two groups.
    Task(Box<dyn FnOnce(&mut Committer) + Send>),
}

/// What the last group tells of the next one.
#[derive(Debug, Default)]
struct Pace {
    took: Duration,
    /// Who was answered or waited: as many are likely to want the next group.
    writers: usize,
}

/// The next order; none when there will not be one. Whoever was just answered often comes back sooner than a thread that
/// sleeps is woken, so it sleeps only after a moment. It does not yield meanwhile: on a busy machine that gives away
/// milliseconds.
fn next(orders: &Receiver<Order>, pace: &Pace) -> Option<Order> {
    let patience = Instant::now() + (pace.took / LINGER).min(MAX_AWAKE);
    while Instant::now() < patience {
        match orders.try_recv() {
            Ok(order) => return Some(order),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => std::hint::spin_loop(),
        }
    }
    orders.recv().ok()
}

/// A group: what waits, and what comes within a small part of the time that a group takes. Writers that were just
/// answered come back in a moment; without them they and the others take turns with groups of half the size.
#[expect(clippy::vec_box, reason = "they come in boxes")]
fn gather(
    first: Box<Request>,
    queue: &mut VecDeque<Order>,
    orders: &Receiver<Order>,
    pace: &Pace,
) -> Vec<Box<Request>> {
    let patience = Instant::now() + pace.took / LINGER;
    let mut bytes = first.weight();
    let mut group = vec![first];
    while group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES {
        match queue.pop_front().or_else(|| orders.try_recv().ok()) {
            Some(Order::Commit(request)) => {
                bytes += request.weight();
                group.push(request);
            }
            Some(order) => {
                queue.push_front(order);
                break;
            }
            None if group.len() < pace.writers && Instant::now() < patience => std::hint::spin_loop(),
            None => break,
        }
    }
    group
}

struct CachedHead {
    value: HeadValue,
    root: Hash,
}

pub(crate) struct Committer {
    pub(crate) tree: sled::Tree,
    pub(crate) watch: Watch,
    pub(crate) place: Place,
    pub(crate) blobs: EmptyDir,
    /// Our own descriptor of sled's log.
    pub(crate) db: File,
    pub(crate) head: HeadFile,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) store: StoreId,
    pub(crate) poison: Arc<Poison>,
    pub(crate) counters: Arc<Counters>,
    /// The last group, durable.
    pub(crate) last: Commit,
    pub(crate) cache: Cache,
    /// Snapshots that are there.
    pub(crate) holds: Holds,
    /// Payload files that are wanted by what is on its way.
    pub(crate) inflight: Arc<InFlight>,
}

/// What is known of the tree without reading it. Ahead of the tree while a group is put together; a group that
/// fails leaves it wrong, and the store poisoned.
#[derive(Default)]
pub(crate) struct Cache {
    heads: HashMap<RunId, CachedHead>,
    pub(crate) graphs: HashSet<GraphHash>,
    /// Only of the group that is put together.
    schedules: Overlay,
    /// Runs that are being put in, whose ids are taken.
    pub(crate) importing: HashMap<RunId, Importing>,
}

impl Committer {
    #[expect(clippy::too_many_arguments, reason = "made in one place, from what opening found")]
    pub(crate) fn new(
        tree: sled::Tree,
        watch: Watch,
        place: Place,
        blobs: PathBuf,
        db: File,
        head: HeadFile,
        disk: Arc<dyn Disk>,
        store: StoreId,
        last: Commit,
    ) -> Self {
        let (poison, counters, cache, holds, inflight) = Default::default();
        let blobs = EmptyDir::new(blobs);
        Self {
            tree,
            watch,
            place,
            blobs,
            db,
            head,
            disk,
            store,
            poison,
            counters,
            last,
            cache,
            holds,
            inflight,
        }
    }

    /// Works until every sender is gone and the queue is empty.
    pub(crate) fn run(mut self, orders: &Receiver<Order>) {
        let mut queue = VecDeque::new();
        let mut pace = Pace::default();
        while let Some(order) = queue.pop_front().or_else(|| next(orders, &pace)) {
            let first = match order {
                Order::Commit(request) => request,
                Order::Verify(reply) => {
                    let _gone = reply.send(self.verify());
                    continue;
                }
                Order::Task(task) => {
                    task(&mut self);
                    continue;
                }
            };
            let begin = Instant::now();
            let group = gather(first, &mut queue, orders, &pace);
            let answers = self.commit(&group);
            pace.took = begin.elapsed();
            pace.writers = group.len();
            for (request, answer) in group.into_iter().zip(answers) {
                // Who asked may have gone.
                let _gone = request.reply.send(answer);
            }
            queue.extend(orders.try_iter());
            pace.writers += queue.len();
        }
    }

    /// One answer a request.
    fn commit(&mut self, group: &[Box<Request>]) -> Vec<Result<u64, StoreError>> {
        if let Err(poisoned) = self.poison.check() {
            return group.iter().map(|_| Err(poisoned.clone())).collect();
        }
        let mut mark = Instant::now();
        let written = protect(|| {
            let mut batch = sled::Batch::default();
            let mut next = self.last.next();
            let answers: Vec<_> = group
                .iter()
                .map(|request| {
                    stage(&self.tree, &self.store, &mut self.cache, &mut next, &mut batch, request)
                })
                .collect();
            let good = answers.iter().filter(|answer| answer.is_ok()).count() as u64;
            self.counters.refused.fetch_add(answers.len() as u64 - good, Ordering::Relaxed);
            lap(&mut mark, &self.counters.spent.staging);
            if good > 0 {
                self.write(batch, next)?;
                self.counters.transitions.fetch_add(good, Ordering::Relaxed);
                self.counters.largest_group.fetch_max(good, Ordering::Relaxed);
            }
            Ok(answers)
        });
        self.cache.schedules.clear();
        if self.cache.heads.len() > MAX_HEADS {
            self.cache.heads.clear();
        }
        written.unwrap_or_else(|trouble| {
            let poisoned = self.poison.set(trouble.to_string());
            group.iter().map(|_| Err(poisoned.clone())).collect()
        })
    }

    /// Raises the epoch and makes that durable, before the first commit.
    pub(crate) fn raise_epoch(&mut self) -> Result<u64, Trouble> {
        protect(|| {
            let mut batch = sled::Batch::default();
            let mut next = self.last.next();
            next.epoch += 1;
            if self.last.number == 0 {
                let id = self.store.as_str().as_bytes().to_vec();
                batch.insert(keys::STORE, seal(keys::STORE, id));
            }
            self.write(batch, next)
        })?;
        Ok(self.last.epoch)
    }

    fn write(&mut self, mut batch: sled::Batch, mut next: Commit) -> Result<(), Trouble> {
        let (mut mark, spent) = (Instant::now(), &self.counters.spent);
        next.finish();
        batch.insert(keys::COMMIT, seal(keys::COMMIT, next.encode()));
        self.tree.apply_batch(batch)?;
        lap(&mut mark, &spent.applying);
        self.watch.flush(&self.tree)?;
        lap(&mut mark, &spent.flushing);
        if !self.blobs.is_empty().map_err(Trouble::Io)? {
            return Err(Trouble::Damage("sled moved a value into a file that it does not sync".to_owned()));
        }
        self.disk.sync(&self.db, Synced::Tree).map_err(Trouble::Io)?;
        self.counters.tree_syncs.fetch_add(1, Ordering::Relaxed);
        lap(&mut mark, &spent.syncing_tree);
        self.head.write(&next).map_err(Trouble::Io)?;
        self.head.sync(&*self.disk).map_err(Trouble::Io)?;
        self.counters.head_syncs.fetch_add(1, Ordering::Relaxed);
        lap(&mut mark, &spent.writing_head);
        self.counters.groups.fetch_add(1, Ordering::Relaxed);
        self.last = next;
        Ok(())
    }

    /// Does `work`; a panic of sled becomes an error.
    pub(crate) fn carefully<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.poison.check()?;
        protect(|| Ok(work(self)))?
    }

    /// Makes a batch durable as a group of its own. When that fails the store is poisoned.
    pub(crate) fn apply(&mut self, batch: sled::Batch, next: Commit) -> Result<(), StoreError> {
        let written = protect(|| self.write(batch, next));
        written.map_err(|trouble| self.poison.set(trouble.to_string()))
    }

    /// The run is no longer what it was.
    pub(crate) fn forget(&mut self, run: &RunId) {
        self.cache.heads.remove(run);
    }

    /// The graph is no longer there.
    pub(crate) fn forget_graph(&mut self, hash: &GraphHash) {
        self.cache.graphs.remove(hash);
    }

    /// The graphs that imports under way name.
    pub(crate) fn imported_graphs(&self) -> impl Iterator<Item = GraphHash> {
        self.cache.importing.values().flat_map(|importing| importing.graphs().iter().cloned())
    }

    fn verify(&self) -> Result<VerifyReport, StoreError> {
        self.poison.check()?;
        let slots = Slots::read(&self.place, &self.store);
        let slots = slots.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let checked = check::check(&check::Input {
            tree: &self.tree,
            store: &self.store,
            payloads: &self.place.payloads(),
            blobs: self.blobs.path(),
            slots: slots.as_ref(),
            owned: true,
        });
        Ok(checked.map_err(Trouble::Io)?)
    }
}

/// Adds one transition to the group, or refuses it and leaves everything as it was.
fn stage(
    tree: &sled::Tree,
    store: &StoreId,
    cache: &mut Cache,
    next: &mut Commit,
    batch: &mut sled::Batch,
    request: &Request,
) -> Result<u64, StoreError> {
    let transition = &request.transition;
    let run = &transition.run;
    if transition.epoch != next.epoch {
        return Err(StoreError::Fenced { epoch: next.epoch });
    }
    if !cache.heads.contains_key(run)
        && let Some((value, sealed)) = read::head_value(tree, run)?
    {
        let key = keys::head(run);
        let body = codec::unseal(&key, &sealed).expect("the seal was right a moment ago");
        let root = codec::run_root(run, body);
        cache.heads.insert(run.clone(), CachedHead { value, root });
    }
    if transition.expect == Expect::New && cache.importing.contains_key(run) {
        return Err(StoreError::Exists(run.clone()));
    }
    let old = cache.heads.get(run);
    let seq = transition.expect.check(run, old.map(|head| head.value.seq))?;
    let new_graph = match &transition.graph {
        Some((hash, bytes)) if !has_graph(tree, &mut cache.graphs, hash)? => Some((hash, bytes)),
        _ => None,
    };
    let schedule = match &transition.schedule {
        Some(put) => Some((put, schedules::check(tree, &cache.schedules, put)?)),
        None => None,
    };

    // Nothing is refused from here on.
    if let Some((put, old)) = schedule {
        schedules::write(batch, next, &mut cache.schedules, put, old.as_ref());
    }
    let put_record = |key, value| batch.insert(key, value);
    let record = body(&transition.record, request.record_digest);
    blob::write(&keys::record(run, seq + 1), transition.events, &record, put_record);
    if let Some((hash, bytes)) = new_graph {
        let graph = body(bytes, request.graph_digest);
        blob::write(&keys::graph(hash), 0, &graph, |key, value| batch.insert(key, value));
        codec::xor(&mut next.roots, &codec::graph_root(hash, graph.hashed()));
        next.graphs += 1;
        cache.graphs.insert(hash.clone());
    }

    let before = old.map_or_else(|| codec::genesis(store, run), |head| head.value.chain);
    let new = HeadValue {
        seq: seq + u64::from(transition.events),
        records: old.map_or(0, |head| head.value.records) + 1,
        due: transition.due,
        created: transition.summary.created,
        ended: transition.summary.status.is_end(),
        chain: codec::chain(&before, seq + 1, transition.events, record.hashed()),
    };
    index(batch, run, old.map(|head| &head.value), &new);
    let value = new.encode(&transition.summary);
    let root = codec::run_root(run, &value);
    match old {
        Some(old) => codec::xor(&mut next.roots, &old.root),
        None => next.runs += 1,
    }
    codec::xor(&mut next.roots, &root);
    let key = keys::head(run);
    let value = seal(&key, value);
    batch.insert(key, value);
    let seq = new.seq;
    cache.heads.insert(run.clone(), CachedHead { value: new, root });
    Ok(seq)
}

pub(crate) fn has_graph(
    tree: &sled::Tree,
    known: &mut HashSet<GraphHash>,
    hash: &GraphHash,
) -> Result<bool, Trouble> {
    if known.contains(hash) {
        return Ok(true);
    }
    let mut key = keys::graph(hash);
    key.extend_from_slice(&[0; keys::CHUNK]);
    let found = tree.contains_key(key)?;
    if found {
        known.insert(hash.clone());
    }
    Ok(found)
}

fn body(bytes: &[u8], digest: Option<Hash>) -> Body<'_> {
    match digest {
        Some(digest) => Body::Payload { len: bytes.len() as u64, digest },
        None => Body::Inline(bytes.into()),
    }
}

/// Takes a run's entries out of the tables ordered by time.
pub(crate) fn unindex(batch: &mut sled::Batch, run: &RunId, old: &HeadValue) {
    for (table, at) in entries(old) {
        if let Some(at) = at {
            batch.remove(keys::timed(table, at, run));
        }
    }
}

/// Where a run stands in each of the tables ordered by time.
fn entries(head: &HeadValue) -> [(u8, Option<Timestamp>); 3] {
    [
        (keys::DUE, head.due),
        (keys::CREATED, Some(head.created)),
        (keys::UNFINISHED, (!head.ended).then_some(head.created)),
    ]
}

/// Brings the tables ordered by time in line with the head.
pub(crate) fn index(batch: &mut sled::Batch, run: &RunId, old: Option<&HeadValue>, new: &HeadValue) {
    let none = [(keys::DUE, None), (keys::CREATED, None), (keys::UNFINISHED, None)];
    for ((table, old), (_, new)) in old.map_or(none, entries).into_iter().zip(entries(new)) {
        if old == new {
            continue;
        }
        if let Some(at) = old {
            batch.remove(keys::timed(table, at, run));
        }
        if let Some(at) = new {
            let key = keys::timed(table, at, run);
            let value = seal(&key, Vec::new());
            batch.insert(key, value);
        }
    }
}

/// The thread that writes payload files, so that large ones do not hold up the others' commits.
pub(crate) fn write_payloads(
    requests: &Receiver<Box<Request>>,
    orders: &Sender<Order>,
    place: &Place,
    disk: &dyn Disk,
    poison: &Poison,
    counters: &Counters,
    inflight: &Arc<InFlight>,
) {
    let write = |bytes: &[u8], held: &mut Vec<Held>| -> std::io::Result<Option<Hash>> {
        if bytes.len() <= INLINE_LIMIT {
            return Ok(None);
        }
        let digest = codec::digest(bytes);
        held.push(inflight.hold(digest));
        payload::write(place, disk, &digest, bytes)?;
        counters.payloads.fetch_add(1, Ordering::Relaxed);
        Ok(Some(digest))
    };
    while let Ok(mut request) = requests.recv() {
        let done = poison.check().and_then(|()| {
            let failed =
                |error: std::io::Error| poison.set(format!("writing a payload file failed: {error}"));
            let Request { transition, record_digest, graph_digest, held, .. } = &mut *request;
            *record_digest = write(&transition.record, held).map_err(failed)?;
            if let Some((_, bytes)) = &transition.graph {
                *graph_digest = write(bytes, held).map_err(failed)?;
            }
            Ok(())
        });
        match done {
            Ok(()) => {
                if let Err(refused) = orders.send(Order::Commit(request))
                    && let Order::Commit(request) = refused.0
                {
                    let _gone = request.reply.send(Err(poison.set("the committer has ended")));
                }
            }
            Err(error) => {
                let _gone = request.reply.send(Err(error));
            }
        }
    }
}

/// Waits in the queue of the payload thread or the committer.
pub(crate) struct Queue {
    pub(crate) orders: Sender<Order>,
    pub(crate) payloads: Sender<Box<Request>>,
}

impl Queue {
    /// `false` when the thread has ended.
    pub(crate) fn send(&self, request: Request) -> bool {
        if request.is_large() {
            self.payloads.send(Box::new(request)).is_ok()
        } else {
            self.orders.send(Order::Commit(Box::new(request))).is_ok()
        }
    }
}
