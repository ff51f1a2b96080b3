//! [`SledStore`]: opening, owning and closing a store, and the [`Store`] trait over it.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use dssflow_engine::id::{RunId, ScheduleId, StoreId};
use dssflow_engine::store::{
    GraphHash, Head, ListPage, ListQuery, MAX_PAGE, NamesGraphs, Record, SchedulePut, Snapshot, Store,
    StoreCaps, StoreError, StoredSchedule, Swept, Transition, VerifyReport, WholeRun,
};
use dssflow_engine::time::{BoxFuture, Timestamp};
use tokio::sync::oneshot;

use crate::codec::Hash;
use crate::commit::{Committer, Counters, Order, Poison, Queue, Request, write_payloads};
use crate::compact::{self, CompactReport, Progress};
use crate::disk::{self, Disk, OsDisk};
use crate::error::OpenError;
use crate::format::{FORMAT_NUMBER, Format, encode_current, read_current};
use crate::head::{HeadFile, Slots};
use crate::inflight::{Held, InFlight};
use crate::lock::Lock;
use crate::manifest::{self, ManifestState};
use crate::offline::{self, StoreInfo};
use crate::place::{CURRENT, FORMAT, GENERATION, Place, REPLACING, names};
use crate::read::Reader;
use crate::stats::Stats;
use crate::tree::{self, BLOBS, DB, Trouble, protect};
use crate::watch::Watch;
use crate::{check, codec, import, migrate, payload, remove, schedules, snapshot, sweep};

/// How many bytes of sled's log are kept in memory unless told otherwise.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// A store of at most so many bytes is compared with its manifest byte by byte when it is opened, which takes some
/// 20 ms; of a larger one the lengths are compared, and the sums of its last group.
const OPEN_READ_LIMIT: u64 = 64 * 1024 * 1024;
/// A store whose owner crashed is opened as a copy first, up to this size of sled's directory. So much is copied in a
/// second or two; a larger one is opened as it is, and then compared.
const TRIAL_LIMIT: u64 = 1024 * 1024 * 1024;

/// How to open a store.
#[derive(Clone)]
pub struct OpenOptions {
    /// Whether to make the store when there is none. Yes, unless told otherwise.
    pub create: bool,
    /// What this process does, for others who find the store in use. Without secrets: it is written to a file.
    pub command: String,
    /// How many bytes of the log sled keeps in memory.
    pub cache_bytes: u64,
    /// Makes data durable; tests put one in that fails.
    pub disk: Arc<dyn Disk>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { create: true, command: String::new(), cache_bytes: CACHE_BYTES, disk: Arc::new(OsDisk) }
    }
}

impl std::fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenOptions")
            .field("create", &self.create)
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

/// sled, and the lock of the store it is in. However it ends, the lock goes last: the next owner must find nothing
/// of this one at work.
pub(crate) struct Opened {
    sled: Option<(sled::Tree, sled::Db)>,
    dir: PathBuf,
    pub(crate) lock: Lock,
}

impl Opened {
    fn new(db: sled::Db, dir: PathBuf, lock: Lock) -> Self {
        Self { sled: Some(((*db).clone(), db)), dir, lock }
    }

    pub(crate) fn tree(&self) -> &sled::Tree {
        &self.sled.as_ref().expect("it is taken only to be closed").0
    }

    /// Closes sled and waits until it has let go of its directory. Nobody else may hold the tree.
    pub(crate) fn close_sled(&mut self) -> Result<(), Trouble> {
        let Some((tree, db)) = self.sled.take() else { return Ok(()) };
        drop(tree);
        let closed = tree::close(db);
        let gone = tree::wait_closed(&self.dir).map_err(Trouble::Io);
        closed.and(gone)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Err(trouble) = self.close_sled() {
            tracing::warn!(%trouble, "sled did not close");
        }
    }
}

/// Threads that are waited for. What they wait for themselves must be gone before.
#[derive(Default)]
struct Threads(Vec<JoinHandle<()>>);

impl Drop for Threads {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            // They catch what sled throws; should one have panicked even so, it has ended, which is what matters.
            drop(thread.join());
        }
    }
}

/// What is there while the store is open. Fields are dropped in order: without a queue the threads finish what is
/// queued and end, and sled is closed after them.
struct Running {
    queue: Queue,
    threads: Threads,
    opened: Opened,
}

/// A store without its threads: open and locked, and nobody writes but the caller.
pub(crate) struct Quiet {
    pub(crate) place: Place,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) store: StoreId,
    pub(crate) dir: PathBuf,
    pub(crate) opened: Opened,
    pub(crate) cache_bytes: u64,
}

/// Starts a named thread; tests put one in that fails.
type Spawn = dyn Fn(&str, Box<dyn FnOnce() + Send>) -> std::io::Result<JoinHandle<()>>;

fn spawn(name: &str, work: Box<dyn FnOnce() + Send>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// A store on disk, owned by this process.
///
/// End it with [`SledStore::close`]. Dropping it ends it too, as a crash would: everything acknowledged is there
/// at the next open.
pub struct SledStore {
    id: StoreId,
    epoch: u64,
    place: Place,
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    poison: Arc<Poison>,
    counters: Arc<Counters>,
    inflight: Arc<InFlight>,
    cache_bytes: u64,
    running: RwLock<Option<Running>>,
}

impl std::fmt::Debug for SledStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SledStore")
            .field("id", &self.id)
            .field("epoch", &self.epoch)
            .field("path", &self.place.root)
            .finish_non_exhaustive()
    }
}

/// What opening has read before sled is touched.
struct Found {
    format: Format,
    generation: u32,
    slots: Slots,
    /// Whether the last owner closed it in good order.
    closed: bool,
    /// Whether what is live in it was compared with what there was when it was closed.
    compared: bool,
    /// Whether it is still being made: `CURRENT` is to be written.
    is_new: bool,
}

impl SledStore {
    /// Opens the store in a directory, or makes one there, and becomes its owner in a new epoch. Blocks for
    /// milliseconds; after a crash for as long as sled takes to read its log.
    ///
    /// # Errors
    /// See [`OpenError`]. A damaged store is refused and left as it is. After a crash that holds up to 1 GiB: in a larger
    /// one sled may have cut off a torn end of its log before the damage shows. The same goes for a store of more than
    /// 64 MiB that was closed and changed since without a change of lengths.
    ///
    /// After a crash a copy of up to 1 GiB is looked at first, in the system's directory for temporary files. Without room
    /// for it the store is not opened.
    pub fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self, OpenError> {
        Self::open_with(path.as_ref(), options, None, &spawn)
    }

    /// Makes a store of this id in a directory that has none, and becomes its owner: the store that a backup is put
    /// back into. What was made in the world carries the store's id, so a store that takes its place needs the same.
    ///
    /// # Errors
    /// [`OpenError::Used`] when there is a store, and as [`SledStore::open`].
    pub fn create_with_id(
        path: impl AsRef<Path>,
        store: StoreId,
        options: OpenOptions,
    ) -> Result<Self, OpenError> {
        Self::open_with(path.as_ref(), OpenOptions { create: true, ..options }, Some(store), &spawn)
    }

    fn open_with(
        path: &Path,
        options: OpenOptions,
        new: Option<StoreId>,
        spawn: &Spawn,
    ) -> Result<Self, OpenError> {
        let OpenOptions { create, command, cache_bytes, disk } = options;
        let place = if create { Place::create(path, &*disk)? } else { Place::existing(path)? };
        if !place.is_used()? && !create {
            return Err(OpenError::NotFound { path: path.to_owned() });
        }
        let lock = Lock::acquire(&place, &command)?;
        if place.is_used()? {
            if new.is_some() {
                return Err(OpenError::Used { path: path.to_owned() });
            }
        } else {
            let format = Format::new(new.unwrap_or_else(|| StoreId::generate(rand::random())));
            write_text(&place, &*disk, FORMAT, &format.encode())?;
        }
        let found = look(&place, &*disk)?;
        let store = found.format.store.clone();
        let dir = place.root.join(format!("{GENERATION}{}", found.generation));
        let is_old = found.format.number < FORMAT_NUMBER;
        if is_old && !found.is_new {
            let generation = format!("{GENERATION}{}", found.generation);
            let group = found.slots.newest().map_or(0, |head| head.number);
            migrate::back_up(&place, &*disk, &found.format, &generation, group)?;
        }
        manifest::remove(&place, &*disk).map_err(OpenError::io("remove", &place.manifest()))?;
        let mut looked_at = found.compared;
        if !found.closed {
            tree::drop_cache(&*disk, &dir).map_err(OpenError::io("sync", &dir))?;
            looked_at = offline::rehearse(&place, &dir, &found.slots, &store, TRIAL_LIMIT)?;
        }

        let trouble = |trouble: Trouble| OpenError::of(trouble, &place.root, "open", &dir);
        let db = tree::open(&dir, cache_bytes).map_err(trouble)?;
        let opened = Opened::new(db, dir.clone(), lock);
        let made_durable = || {
            tree::settle(&*disk, &dir)?;
            disk::sync_dir(&*disk, &place.payloads())?;
            disk::sync_dir(&*disk, &place.root)
        };
        made_durable().map_err(OpenError::io("sync", &dir))?;
        if found.is_new {
            // Last, so that a store that has it has all of sled's files, and they are whole.
            write_text(&place, &*disk, CURRENT, &encode_current(found.generation))?;
        }

        if !looked_at {
            offline::whole(&place, &dir, opened.tree(), &found.slots, &store).map_err(trouble)?;
        }
        let commit = protect(|| check::read_commit(opened.tree())).map_err(trouble)?;
        let commit = check::agree(commit.as_ref(), Some(&found.slots), &store, false)
            .map_err(|what| OpenError::damaged(&place.root, what))?;
        let head = HeadFile::open(&place, &store).map_err(OpenError::io("open", &place.head()))?;
        if is_old {
            migrate::mark(&place, &*disk, &found.format)?;
        }
        let advance = || {
            if found.slots.newest().is_some_and(|head| head.number < commit.number) {
                // Written by the last owner and not acknowledged. It is durable now, so it stays.
                head.write(&commit)?;
            }
            // What was read may be in memory only, when the last owner was killed before it synced. The next group
            // must not be durable before it.
            head.sync(&*disk)
        };
        advance().map_err(OpenError::io("write", &place.head()))?;

        let log = std::fs::File::open(dir.join(DB)).map_err(OpenError::io("open", &dir))?;
        let watch = Watch::start(opened.tree()).map_err(OpenError::io("start threads for", path))?;
        let mut committer = Committer::new(
            opened.tree().clone(),
            watch,
            place.clone(),
            dir.join(BLOBS),
            log,
            head,
            Arc::clone(&disk),
            store.clone(),
            commit,
        );
        let epoch = committer.raise_epoch().map_err(trouble)?;
        remove::clean_up(&mut committer).map_err(|error| match error {
            StoreError::Corrupt(what) => OpenError::damaged(&place.root, what),
            other => OpenError::io("write", &dir)(std::io::Error::other(other.to_string())),
        })?;
        let (poison, counters) = (Arc::clone(&committer.poison), Arc::clone(&committer.counters));
        let inflight = Arc::clone(&committer.inflight);
        let running = start(opened, committer, &place, &disk, spawn)
            .map_err(OpenError::io("start threads for", path))?;
        tracing::debug!(path = %path.display(), store = %store, epoch, "store opened");
        Ok(Self {
            id: store,
            epoch,
            place,
            dir,
            disk,
            poison,
            counters,
            inflight,
            cache_bytes,
            running: RwLock::new(Some(running)),
        })
    }

    /// Writes what is live anew, into as little room as it takes, while nobody owns the store. A crash at any moment
    /// leaves the store as it was or compacted. Needs room for a second copy; reads everything twice, since it also
    /// checks. `progress` is told how far it is.
    ///
    /// # Errors
    /// As [`SledStore::open`]. What was there stays in use.
    pub fn compact(
        path: impl AsRef<Path>,
        options: OpenOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<CompactReport, OpenError> {
        compact::compact(path.as_ref(), options, progress)
    }

    /// Ends the threads and keeps the rest open. The store was opened a moment ago, so that nothing is queued.
    pub(crate) fn quiet(self) -> Quiet {
        let Running { queue, threads, opened } = self.take_running().expect("nobody has closed it");
        drop(queue);
        drop(threads);
        Quiet {
            place: self.place.clone(),
            disk: Arc::clone(&self.disk),
            store: self.id.clone(),
            dir: self.dir.clone(),
            opened,
            cache_bytes: self.cache_bytes,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.place.root
    }

    /// What it has done since it was opened.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.counters)
    }

    /// What it is and has. Reads every run's head.
    ///
    /// # Errors
    /// When it cannot be read, or is closed or poisoned.
    pub async fn info(&self) -> Result<StoreInfo, StoreError> {
        let tree = self.tree()?;
        let (place, id) = (self.place.clone(), self.id.clone());
        let holder = crate::lock::read_note(&place.lock());
        let describe = move || Ok(offline::describe(&place, &tree, FORMAT_NUMBER, &id, holder)?);
        on_thread(describe).await.map_err(|error| no_thread(&error))?
    }

    /// Makes what is queued durable, writes the manifest and lets the store go. Every later call is refused. Does
    /// nothing the second time. A poisoned store is let go without a manifest.
    ///
    /// # Errors
    /// When the store is poisoned or the manifest cannot be written; everything acknowledged is safe even so.
    pub async fn close(&self) -> Result<(), StoreError> {
        let Some(running) = self.take_running() else { return Ok(()) };
        let (place, dir) = (self.place.clone(), self.dir.clone());
        let (disk, poison) = (Arc::clone(&self.disk), Arc::clone(&self.poison));
        on_thread(move || {
            let (opened, ended) = end(running);
            poison.check()?;
            let finish = || {
                tree::settle(&*disk, &dir)?;
                manifest::write(&place, &*disk)?;
                opened.lock.wipe()
            };
            ended.map_err(|trouble| StoreError::Unavailable(format!("closing failed: {trouble}")))?;
            finish().map_err(|error| StoreError::Unavailable(format!("closing failed: {error}")))
        })
        .await
        .map_err(|error| no_thread(&error))?
    }

    fn take_running(&self) -> Option<Running> {
        self.running.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn with_running<T>(&self, work: impl FnOnce(&Running) -> T) -> Result<T, StoreError> {
        self.poison.check()?;
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(work).ok_or_else(|| StoreError::Unavailable("the store is closed".to_owned()))
    }

    fn tree(&self) -> Result<sled::Tree, StoreError> {
        self.with_running(|running| running.opened.tree().clone())
    }

    fn read<T>(&self, read: impl FnOnce(Reader<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let tree = self.tree()?;
        read(Reader {
            tree: &tree,
            store: &self.id,
            payloads: &self.place.payloads(),
            listed: &self.counters.listed,
        })
    }

    pub(crate) fn store_id(&self) -> &StoreId {
        &self.id
    }

    /// Writes a payload file, and keeps it until what names it is in the tree. Blocks for the sync.
    pub(crate) fn write_payload(&self, bytes: &[u8]) -> Result<(Held, Hash), StoreError> {
        self.poison.check()?;
        let digest = codec::digest(bytes);
        let held = self.inflight.hold(digest);
        payload::write(&self.place, &*self.disk, &digest, bytes)
            .map_err(|error| self.poison.set(format!("writing a payload file failed: {error}")))?;
        self.counters.payloads.fetch_add(1, Ordering::Relaxed);
        Ok((held, digest))
    }

    /// Has the committer do something between two groups.
    pub(crate) async fn between<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Committer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Task(Box::new(move |committer| {
            // Who asked may have gone.
            let _gone = reply.send(committer.carefully(work));
        })))?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    pub(crate) fn order(&self, order: Order) -> Result<(), StoreError> {
        self.with_running(|running| running.queue.orders.send(order))?.map_err(|_| self.gone())
    }

    /// The committer ends only when the store is closed.
    fn gone(&self) -> StoreError {
        self.poison.check().err().unwrap_or_else(|| StoreError::Unavailable("the store is closed".to_owned()))
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        drop(self.take_running());
    }
}

/// Reads and checks what says what is where; makes the parts of a new store that are missing.
fn look(place: &Place, disk: &dyn Disk) -> Result<Found, OpenError> {
    let damaged = |what: &str| OpenError::damaged(&place.root, what);
    if place.root.join(REPLACING).exists() && !place.root.join(CURRENT).exists() {
        return Err(damaged("a restore of it was cut off, so that CURRENT is missing"));
    }
    let format = Format::read(place)?.ok_or_else(|| damaged("FORMAT is missing"))?;
    let (generation, is_new) = match read_current(place)? {
        Some(generation) => (generation, false),
        None => (1, true),
    };
    let mut slots = Slots::read(place, &format.store)?;
    let compared = manifest::check(place, OPEN_READ_LIMIT).map_err(OpenError::io("read", &place.root))?;
    let (manifest, mut compared) = (compared.state, compared.bytes);
    if is_new {
        // CURRENT is written last; until then nothing was ever committed.
        let never_used =
            slots.as_ref().is_none_or(|slots| slots.newest().is_some_and(|commit| commit.number == 0));
        if !never_used || manifest != ManifestState::Absent {
            return Err(damaged("CURRENT is missing"));
        }
        let dir = place.root.join(format!("{GENERATION}{generation}"));
        let has_files = names(&dir).is_ok_and(|names| !names.is_empty());
        // sled is begun after HEAD.
        if has_files && slots.is_none() {
            return Err(damaged("CURRENT and HEAD are missing"));
        }
        let make = || {
            if has_files {
                // Of a sled that was cut off while it was made; a torn file of it would never open.
                std::fs::remove_dir_all(&dir)?;
            }
            disk::make_dir(&dir)?;
            disk::make_dir(&place.payloads())?;
            disk::sync_dir(disk, &place.root)?;
            HeadFile::create(place, disk, &format.store)
        };
        make().map_err(OpenError::io("create", &place.root))?;
        slots = Slots::read(place, &format.store)?;
    }
    let slots = slots.ok_or_else(|| damaged("HEAD is missing"))?;
    if slots.newest().is_none() {
        return Err(damaged("neither slot of HEAD can be read"));
    }
    for (dir, what) in [
        (place.root.join(format!("{GENERATION}{generation}")), "the directory that CURRENT names is missing"),
        (place.payloads(), "the directory payloads is missing"),
    ] {
        if !dir.is_dir() {
            return Err(damaged(what));
        }
    }
    if slots.is_damaged() {
        tracing::warn!(path = %place.root.display(), "a slot of HEAD is damaged; the next group writes it anew");
    }
    if let ManifestState::Differs { problems } = &manifest {
        // Something changed since the store was closed. If it hit what is live, nothing may be written.
        compared = true;
        let report = offline::inspect(place)?.report;
        let live = report.damage.iter().find(|damage| !problems.contains(&damage.what));
        if let Some(live) = live {
            let run = live.run.as_ref().map_or_else(String::new, |run| format!(" (run {run})"));
            return Err(damaged(&format!("{}{run}; {}", live.what, problems.join("; "))));
        }
        tracing::warn!(
            path = %place.root.display(),
            problems = problems.join("; "),
            "files of the store were changed since it was closed, where no live data are"
        );
    }
    let closed = manifest != ManifestState::Absent;
    Ok(Found { format, generation, slots, closed, compared, is_new })
}

fn write_text(place: &Place, disk: &dyn Disk, name: &str, text: &str) -> Result<(), OpenError> {
    disk::write_whole(disk, &place.root, name, text.as_bytes())
        .map_err(OpenError::io("write", &place.root.join(name)))
}

/// When it fails, what it had started has ended before the lock is let go: the queue's ends are declared after the
/// threads and so dropped before them, and `opened` is dropped last.
fn start(
    opened: Opened,
    committer: Committer,
    place: &Place,
    disk: &Arc<dyn Disk>,
    spawn: &Spawn,
) -> std::io::Result<Running> {
    let mut threads = Threads::default();
    let (orders, inbox) = mpsc::channel();
    let (payloads, large) = mpsc::channel();
    let (poison, counters) = (Arc::clone(&committer.poison), Arc::clone(&committer.counters));
    let inflight = Arc::clone(&committer.inflight);
    threads.0.push(spawn("dssflow-commit", Box::new(move || committer.run(&inbox)))?);
    let (forward, place, disk): (Sender<Order>, _, _) = (orders.clone(), place.clone(), Arc::clone(disk));
    let write = move || write_payloads(&large, &forward, &place, &*disk, &poison, &counters, &inflight);
    threads.0.push(spawn("dssflow-payload", Box::new(write))?);
    Ok(Running { queue: Queue { orders, payloads }, threads, opened })
}

/// Lets the threads finish what is queued, and closes sled. The lock is still held.
fn end(running: Running) -> (Opened, Result<(), Trouble>) {
    let Running { queue, threads, mut opened } = running;
    drop(queue);
    drop(threads);
    let ended = opened.close_sled();
    (opened, ended)
}

/// Runs what blocks for long on a thread of its own.
pub(crate) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    let (done, answer) = oneshot::channel();
    spawn("dssflow-store", Box::new(move || drop(done.send(work()))))?;
    answer.await.map_err(|_| std::io::Error::other("the work was cut short"))
}

fn no_thread(error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("no thread: {error}"))
}

impl Store for SledStore {
    fn id(&self) -> StoreId {
        self.id.clone()
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn caps(&self) -> StoreCaps {
        StoreCaps { durable: true, multi_worker: false, backend: "sled" }
    }

    fn commit(&self, mut transition: Transition) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            if let Err(refused) = transition.check() {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                return Err(refused);
            }
            let (reply, answer) = oneshot::channel();
            let request = Request::new(transition, reply);
            if !self.with_running(|running| running.queue.send(request))? {
                return Err(self.gone());
            }
            answer.await.unwrap_or_else(|_| {
                // It was taken and never answered: whether it is written only the head can tell.
                Err(self.poison.check().err().unwrap_or_else(|| {
                    StoreError::Unknown("the store was closed while the change was on its way".to_owned())
                }))
            })
        })
    }

    fn load<'a>(&'a self, run: &'a RunId, after: u64) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(async move { self.read(|reader| reader.load(run, after)) })
    }

    fn head<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Option<Head>, StoreError>> {
        Box::pin(async move { self.read(|reader| reader.head(run)) })
    }

    fn graph<'a>(&'a self, hash: &'a GraphHash) -> BoxFuture<'a, Result<Vec<u8>, StoreError>> {
        Box::pin(async move { self.read(|reader| reader.graph(hash)) })
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<ListPage, StoreError>> {
        Box::pin(async move { self.read(|reader| reader.list(&query)) })
    }

    fn due(
        &self,
        until: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, RunId)>, StoreError>> {
        Box::pin(async move { self.read(|reader| reader.due(until, limit)) })
    }

    fn page<'a>(
        &'a self,
        run: &'a RunId,
        after: u64,
        bytes: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(async move { self.read(|reader| reader.page(run, after, bytes)) })
    }

    /// Commits wait while the heads are read.
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        Box::pin(self.between(snapshot::snapshot))
    }

    fn put_graph<'a>(&'a self, hash: &'a GraphHash, bytes: Vec<u8>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(import::put_graph(self, hash, bytes))
    }

    /// What is large is written, and synced, by the thread that asks.
    fn import<'a>(&'a self, run: WholeRun<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(import::import(self, run))
    }

    /// In groups of its own, a long run in several; what it takes is bounded however long the run is.
    fn remove<'a>(&'a self, run: &'a RunId, seq: u64, epoch: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        let run = run.clone();
        Box::pin(self.between(move |committer| remove::remove(committer, &run, seq, epoch)))
    }

    /// Commits wait meanwhile.
    fn sweep(&self, names: NamesGraphs) -> BoxFuture<'_, Result<Swept, StoreError>> {
        Box::pin(self.between(move |committer| sweep::sweep(committer, names)))
    }

    /// In a group of its own.
    fn put_schedule(&self, put: SchedulePut, epoch: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            put.check()?;
            self.between(move |committer| schedules::put(committer, &put, epoch)).await
        })
    }

    fn schedule<'a>(
        &'a self,
        id: &'a ScheduleId,
    ) -> BoxFuture<'a, Result<Option<StoredSchedule>, StoreError>> {
        Box::pin(async move { schedules::get(&self.tree()?, id) })
    }

    fn schedules<'a>(
        &'a self,
        after: Option<&'a ScheduleId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredSchedule>, StoreError>> {
        Box::pin(async move { schedules::page(&self.tree()?, after, limit.min(MAX_PAGE)) })
    }

    fn due_schedules(
        &self,
        until: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, ScheduleId)>, StoreError>> {
        Box::pin(async move { schedules::due(&self.tree()?, until, limit) })
    }

    /// In a group of its own.
    fn remove_schedule<'a>(
        &'a self,
        id: &'a ScheduleId,
        version: u64,
        epoch: u64,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let id = id.clone();
        Box::pin(self.between(move |committer| schedules::remove(committer, &id, version, epoch)))
    }

    /// Commits wait meanwhile.
    fn verify(&self) -> BoxFuture<'_, Result<VerifyReport, StoreError>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.order(Order::Verify(reply))?;
            answer.await.unwrap_or_else(|_| Err(self.gone()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn when_a_thread_does_not_start_the_lock_outlives_the_others() {
        for failing in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store");
            let (held, ended) = mpsc::channel();
            let (root, started) = (path.clone(), AtomicUsize::new(0));
            let spawn = move |name: &str, work: Box<dyn FnOnce() + Send>| {
                if started.fetch_add(1, Ordering::Relaxed) == failing {
                    return Err(std::io::Error::other("no more threads"));
                }
                let (root, held) = (root.clone(), held.clone());
                let watched = move || {
                    work();
                    let place = Place::existing(&root).unwrap();
                    let refused =
                        || matches!(Lock::acquire(&place, "the next owner"), Err(OpenError::Locked { .. }));
                    // Longer than an opener that does not wait for this thread would take to be gone.
                    held.send((0..2_000).all(|_| refused())).unwrap();
                };
                super::spawn(name, Box::new(watched))
            };
            let error = SledStore::open_with(&path, OpenOptions::default(), None, &spawn).unwrap_err();
            assert!(matches!(error, OpenError::Io { doing: "start threads for", .. }), "{error:?}");
            let held: Vec<bool> = ended.try_iter().collect();
            assert_eq!(held, vec![true; failing], "each thread ended, with the lock still held");
            let log = std::fs::File::open(path.join("gen-1").join(DB)).unwrap();
            assert!(log.try_lock().is_ok(), "sled has let go of its log");
            drop(log);
            SledStore::open(&path, OpenOptions::default()).unwrap();
        }
    }
}
