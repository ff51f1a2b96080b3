//! Saving what can be read of a store that nobody owns, a damaged one too: of each run the records up to the first that
//! is not what was written.
//!
//! It works on a copy of sled's directory, as checking does, and changes nothing. A run that is cut short gets the
//! summary that its events make; what is lost is told run by run, and never made up.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dssflow_engine::EngineError;
use dssflow_engine::archive::{self, Copied, CopyError, CopyOptions, Made};
use dssflow_engine::event::graphs_named;
use dssflow_engine::id::{RunId, StoreId};
use dssflow_engine::run::RunStatus;
use dssflow_engine::runtime::{load_at, summary};
use dssflow_engine::store::{
    Damage, GraphHash, Head, Holds, ListPage, ListQuery, Record, RunSummary, Snapshot, SnapshotHead, Store,
    StoreCaps, StoreError, StoredSchedule, Transition, VerifyReport, page_len,
};
use dssflow_engine::time::{BoxFuture, Timestamp};
use serde::{Deserialize, Serialize};

use crate::blob::{BadBlob, Blobs, Body};
use crate::check;
use crate::codec::{self, Commit, HeadValue, unseal};
use crate::error::OpenError;
use crate::format::{Format, read_current};
use crate::head::{self, Slots};
use crate::offline::{lock_to_look, newest_generation};
use crate::place::{GENERATION, Place};
use crate::tree::{self, BLOBS, DB, Trouble, protect, scan};
use crate::trial::{Copy, not_looked_at};
use crate::{keys, payload, schedules};

/// Cache of a copy that is read a few times.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// What an export has not got of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The run.
    pub run: RunId,
    /// The first of its events that is not in the archive; 1 when nothing of the run is.
    pub from: u64,
    /// The last event that it had, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// What is wrong there.
    pub what: String,
}

/// What [`export_offline`] wrote, and what it could not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportReport {
    /// The archive.
    pub made: Made,
    /// What is wrong with the store; empty is good.
    pub damage: Vec<Damage>,
    /// What is not in the archive of the runs that it was to have.
    pub lost: Vec<Lost>,
}

/// Why nothing could be exported, or not all of it was written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store cannot be looked at, or nothing in it can be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The archive could not be written.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

/// Writes an archive of a store that nobody owns, without changing the store. What is damaged is left out and told in
/// the report, so an archive that was written is not the same as one in which nothing is missing. Needs room for a copy
/// of the store, and some more, in the system's directory for temporary files.
///
/// # Errors
/// [`OpenError::Locked`] when somebody owns it (ask the owner), [`OpenError::Damaged`] when nothing can be read,
/// [`OpenError::Io`] when the copy cannot be made or read, which says nothing of the store, and what keeps the archive
/// from being written.
pub async fn export_offline<W: Write + Send>(
    path: impl AsRef<Path>,
    out: W,
    options: CopyOptions,
    progress: &mut (dyn FnMut(Copied) + Send),
) -> Result<(W, ExportReport), ExportError> {
    let (place, lock) = lock_to_look(path.as_ref(), "store export")?;
    let result = export(&place, out, options, progress).await;
    drop(lock.wipe());
    result
}

async fn export<W: Write + Send>(
    place: &Place,
    out: W,
    options: CopyOptions,
    progress: &mut (dyn FnMut(Copied) + Send),
) -> Result<(W, ExportReport), ExportError> {
    let mut damage = Vec::new();
    let mut bad = |what: &str| damage.push(Damage { run: None, seq: None, what: what.to_owned() });
    let format = match Format::read(place) {
        Err(OpenError::Damaged { what, .. }) => {
            bad(&what);
            None
        }
        other => other?,
    };
    let dir = match read_current(place) {
        Ok(Some(generation)) => format!("{GENERATION}{generation}"),
        Ok(None) => {
            bad("CURRENT is missing");
            newest_generation(place)?
        }
        Err(OpenError::Damaged { what, .. }) => {
            bad(&what);
            newest_generation(place)?
        }
        Err(other) => return Err(other.into()),
    };
    let nothing = |why: String| OpenError::damaged(&place.root, format!("nothing of it can be read: {why}"));
    let dir = place.root.join(dir);
    if !dir.join(DB).is_file() {
        return Err(nothing("sled's log is missing".to_owned()).into());
    }
    let copy = Copy::of(&dir)?;
    let db = match tree::open(&copy.dir(), CACHE_BYTES) {
        Ok(db) => db,
        Err(trouble) => return Err(nothing(copy.judge(trouble)?).into()),
    };
    let known = format.map(|format| format.store).or_else(|| head::store_of(place));
    let saved = save(place, &dir, &db, known, out, options, progress).await;
    // A copy that does not close is none the worse for what was read.
    drop(tree::close(db));
    let Some((out, mut report)) = saved? else {
        copy.has_room()?;
        return Err(nothing("the store's id is in no readable file".to_owned()).into());
    };
    damage.append(&mut report.damage);
    if !damage.is_empty() || !report.lost.is_empty() {
        copy.has_room()?;
    }
    Ok((out, ExportReport { damage, ..report }))
}

/// Writes what can be read of the opened copy; `None` when nothing says which store it is.
async fn save<W: Write + Send>(
    place: &Place,
    dir: &Path,
    db: &sled::Db,
    known: Option<StoreId>,
    out: W,
    options: CopyOptions,
    progress: &mut (dyn FnMut(Copied) + Send),
) -> Result<Option<(W, ExportReport)>, ExportError> {
    let read = |trouble: Trouble| match trouble {
        Trouble::Io(source) => Err(not_looked_at(source)),
        Trouble::Damage(_) => Ok(None),
    };
    let in_tree = || id_of(db).or_else(read);
    let Some(store) = known.map_or_else(in_tree, |store| Ok(Some(store)))? else { return Ok(None) };
    let slots = Slots::read(place, &store)?;
    let checked = check::check(&check::Input {
        tree: db,
        store: &store,
        payloads: &place.payloads(),
        blobs: &dir.join(BLOBS),
        slots: slots.as_ref(),
        owned: false,
    });
    let damage = checked.map_err(not_looked_at)?.damage;
    let commit: Option<Commit> = match protect(|| check::read_commit(db)) {
        Ok(commit) => commit,
        Err(Trouble::Damage(_)) => None,
        Err(Trouble::Io(source)) => return Err(not_looked_at(source).into()),
    };
    let mut salvage = Salvage {
        tree: (**db).clone(),
        store,
        payloads: place.payloads(),
        epoch: commit.map_or(0, |commit| commit.epoch),
        holds: Holds::default(),
        runs: BTreeMap::new(),
        refused: Mutex::default(),
    };
    let lost = salvage.look(options.runs.as_deref()).await;
    salvage.was_read()?;
    let options = salvage.only_saved(options);
    let written = archive::write(&salvage, out, options, progress).await;
    // Also when it was written: what is missing may be there.
    salvage.was_read()?;
    let (out, made) = written?;
    Ok(Some((out, ExportReport { made, damage, lost })))
}

/// The store's id as it stands in the tree.
fn id_of(tree: &sled::Tree) -> Result<Option<StoreId>, Trouble> {
    let value = protect(|| Ok(tree.get(keys::STORE)?))?;
    let decode = |value: &[u8]| {
        let text = std::str::from_utf8(unseal(keys::STORE, value)?).ok()?;
        Some(StoreId::generate(hex::decode(text).ok()?.try_into().ok()?))
    };
    Ok(value.as_deref().and_then(decode))
}

/// What can be read of a run.
struct Saved {
    head: Head,
    due: Option<Timestamp>,
}

/// A damaged store to be read from: each run is as long as what can be read of it.
struct Salvage {
    tree: sled::Tree,
    store: StoreId,
    payloads: PathBuf,
    epoch: u64,
    holds: Holds,
    runs: BTreeMap<RunId, Saved>,
    /// The first error of the system with the copy, after which nothing that is missing is known to be lost.
    refused: Mutex<Option<io::Error>>,
}

/// What of a run's records is as it was written.
struct Prefix {
    /// The last event.
    end: u64,
    /// Whether they form the chain that the head names.
    chained: bool,
    /// What is wrong with the record after it.
    what: Option<String>,
}

impl Salvage {
    /// Reads from the copy, and remembers when it is the system that does not let it.
    fn read<T>(&self, work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
        protect(work).map_err(|trouble| match trouble {
            Trouble::Damage(what) => Trouble::Damage(what),
            Trouble::Io(error) => {
                let told = Trouble::Io(io::Error::new(error.kind(), error.to_string()));
                let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                if refused.is_none() {
                    *refused = Some(error);
                }
                told
            }
        })
    }

    /// Whether the system let all of it be read that was asked for so far.
    fn was_read(&self) -> Result<(), OpenError> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        refused.map_or(Ok(()), |error| Err(not_looked_at(error)))
    }

    /// Finds out what can be read, and returns what cannot.
    async fn look(&mut self, wanted: Option<&[RunId]>) -> Vec<Lost> {
        let (heads, mut lost) = self.heads();
        let mut runs: BTreeSet<RunId> = heads.keys().cloned().collect();
        runs.extend(self.runs_with_records());
        if let Some(wanted) = wanted {
            runs.retain(|run| wanted.contains(run));
            lost.retain(|lost| wanted.contains(&lost.run));
        }
        for run in runs {
            let found = heads.get(&run);
            let prefix = self.prefix(&run, found.map(|(value, _)| value));
            let until = found.map(|(value, _)| value.seq);
            if let Some((value, head)) = found
                && prefix.end == value.seq
                && prefix.chained
            {
                self.runs.insert(run, Saved { head: head.clone(), due: value.due });
                continue;
            }
            let (end, why) = self.fold(&run, prefix.end).await;
            let what = why.or(prefix.what).unwrap_or_else(|| match found {
                Some((value, _)) if end < value.seq => "the records end here".to_owned(),
                Some(_) => "the records are not those that the run's head names; they were saved as they are"
                    .to_owned(),
                None => "the run's head cannot be read, so that what came after is not known".to_owned(),
            });
            lost.retain(|lost| lost.run != run);
            lost.push(Lost { run, from: end + 1, until, what });
        }
        lost.sort_by(|a, b| a.run.cmp(&b.run));
        lost
    }

    /// Only runs of which something is there; a run that was asked for and is nowhere stays, to be refused.
    fn only_saved(&self, mut options: CopyOptions) -> CopyOptions {
        if let Some(runs) = &mut options.runs {
            let known: BTreeSet<RunId> = self.runs_with_records();
            runs.retain(|run| self.runs.contains_key(run) || !known.contains(run));
        }
        options
    }

    /// The heads that can be read, and the runs whose heads cannot.
    fn heads(&self) -> (BTreeMap<RunId, (HeadValue, Head)>, Vec<Lost>) {
        let (mut heads, mut lost) = (BTreeMap::new(), Vec::new());
        // A table that breaks off gives what came before.
        let _broken = self.read(|| {
            for pair in scan(&self.tree, &[keys::HEADS], &[keys::HEADS]) {
                let (key, value) = pair?;
                let Some(run) = keys::parse_head(&key) else { continue };
                match unseal(&key, &value).and_then(HeadValue::decode_full) {
                    Some(head) => drop(heads.insert(run, head)),
                    None => lost.push(Lost {
                        run,
                        from: 1,
                        until: None,
                        what: "the run's head does not match its checksum".to_owned(),
                    }),
                }
            }
            Ok(())
        });
        (heads, lost)
    }

    /// Runs that have records and are not on their way in or out.
    fn runs_with_records(&self) -> BTreeSet<RunId> {
        let mut runs = BTreeSet::new();
        let _broken = self.read(|| {
            let mut from = vec![keys::RECORDS];
            while let Some(pair) = scan(&self.tree, &[keys::RECORDS], &from).next() {
                let (key, _) = pair?;
                let prefix = key.len().checked_sub(keys::CHUNK).map(|len| &key[..len]);
                if let Some((run, _)) = prefix.and_then(keys::parse_record) {
                    from = tree::after_prefix(&keys::records(&run));
                    if !self.tree.contains_key(keys::partial(&run))? {
                        runs.insert(run);
                    }
                } else {
                    from = key.to_vec();
                    from.push(0);
                }
            }
            Ok(())
        });
        runs
    }

    /// How far a run's records are right, each by itself and with what it names.
    fn prefix(&self, run: &RunId, head: Option<&HeadValue>) -> Prefix {
        let mut found = Prefix { end: 0, chained: false, what: None };
        let mut chain = codec::genesis(&self.store, run);
        let read = self.read(|| {
            let prefix = keys::records(run);
            for blob in Blobs::new(scan(&self.tree, &prefix, &prefix)) {
                let blob = blob.map_err(|bad| bad.what.at("the record cannot be read"))?;
                let missing = || Trouble::Damage("the record is missing".to_owned());
                let (_, first_seq) = keys::parse_record(&blob.prefix).ok_or_else(missing)?;
                if first_seq != found.end + 1 {
                    return Err(missing());
                }
                chain = codec::chain(&chain, first_seq, blob.events, blob.body.hashed());
                let bytes = self.body(blob.body).map_err(Trouble::Damage)?;
                for graph in graphs_named(first_seq, &bytes).map_err(Trouble::Damage)? {
                    self.read_graph(&graph).map_err(|error| Trouble::Damage(error.to_string()))?;
                }
                found.end = first_seq + u64::from(blob.events) - 1;
                found.chained = head.is_some_and(|head| head.seq == found.end && head.chain == chain);
                if found.chained {
                    break;
                }
            }
            Ok(())
        });
        found.what = read.err().map(|trouble| trouble.to_string());
        found
    }

    /// Makes the summary of a run that is cut short, cutting off more until its events make sense.
    async fn fold(&mut self, run: &RunId, mut end: u64) -> (u64, Option<String>) {
        let mut why = None;
        while end > 0 {
            // So that it can be read that far; the summary comes out of that.
            let head = Head { seq: end, summary: unknown(run) };
            self.runs.insert(run.clone(), Saved { head, due: None });
            match load_at(&*self, run, end).await {
                Ok(state) => {
                    let head = Head { seq: end, summary: summary(&state) };
                    self.runs.insert(run.clone(), Saved { head, due: None });
                    return (end, why);
                }
                Err(error) => {
                    self.runs.remove(run);
                    let at = match &error {
                        EngineError::Replay { error, .. } => error.seq,
                        _ => end,
                    };
                    why = Some(error.to_string());
                    end = self.end_before(run, at.min(end));
                }
            }
        }
        (0, why)
    }

    /// The last event before the record that holds event `seq`.
    fn end_before(&self, run: &RunId, seq: u64) -> u64 {
        let records = self.records(run, 0, seq, usize::MAX).unwrap_or_default();
        records.last().map_or(0, |record| record.first_seq - 1)
    }

    fn body(&self, body: Body<'static>) -> Result<Vec<u8>, String> {
        match body {
            Body::Inline(bytes) => Ok(bytes.into_owned()),
            Body::Payload { len, digest } => payload::read(&self.payloads, &digest, len),
        }
    }

    fn read_graph(&self, hash: &GraphHash) -> Result<Vec<u8>, StoreError> {
        let prefix = keys::graph(hash);
        let found = self.read(|| {
            let Some(blob) = Blobs::new(scan(&self.tree, &prefix, &prefix)).next() else { return Ok(None) };
            let body =
                blob.map_err(|bad| bad.what).and_then(|blob| self.body(blob.body).map_err(Trouble::Damage));
            body.map(Some).map_err(|trouble| trouble.at(format_args!("the graph {}", hash.0)))
        })?;
        found.ok_or_else(|| StoreError::NotFound(format!("the graph {}", hash.0)))
    }

    /// The records that hold events after `after` and begin at `until` or before.
    fn records(&self, run: &RunId, after: u64, until: u64, bytes: usize) -> Result<Vec<Record>, StoreError> {
        let mut records: Vec<Record> = Vec::new();
        let prefix = keys::records(run);
        let mut sum = 0_usize;
        self.read(|| {
            for blob in Blobs::new(scan(&self.tree, &prefix, &prefix)) {
                let blob = match blob {
                    Ok(blob) => blob,
                    Err(BadBlob { what: what @ Trouble::Io(_), .. }) => return Err(what),
                    Err(_) => break,
                };
                let Some((_, first_seq)) = keys::parse_record(&blob.prefix) else { break };
                if first_seq > until {
                    break;
                }
                if first_seq + u64::from(blob.events) <= after + 1 {
                    continue;
                }
                let body = self.body(blob.body).map_err(Trouble::Damage)?;
                sum = sum.saturating_add(body.len());
                records.push(Record { first_seq, events: blob.events, bytes: body });
                if sum > bytes {
                    break;
                }
            }
            Ok(())
        })?;
        records.truncate(page_len(&records, bytes));
        Ok(records)
    }

    /// Those that can be read; of the others the check has told.
    fn schedules(&self) -> Vec<StoredSchedule> {
        let mut found = Vec::new();
        let _broken = self.read(|| {
            for blob in Blobs::new(scan(&self.tree, &[keys::SCHEDULES], &[keys::SCHEDULES])) {
                match blob {
                    Ok(blob) => found.extend(schedules::decode(blob).map(|(stored, _)| stored)),
                    Err(BadBlob { what: what @ Trouble::Io(_), .. }) => return Err(what),
                    // What follows one without a key cannot be read either.
                    Err(bad) if bad.prefix.is_empty() => break,
                    Err(_) => {}
                }
            }
            Ok(())
        });
        found
    }

    fn end_of(&self, run: &RunId) -> u64 {
        self.runs.get(run).map_or(u64::MAX, |saved| saved.head.seq)
    }
}

fn unknown(run: &RunId) -> RunSummary {
    RunSummary {
        run: run.clone(),
        workflow: String::new(),
        site: String::new(),
        status: RunStatus::Pending,
        created: Timestamp::default(),
        updated: Timestamp::default(),
        done: 0,
        total: 0,
        live: false,
        note: String::new(),
        labels: BTreeMap::new(),
    }
}

fn refused<T: Send + 'static>() -> BoxFuture<'static, Result<T, StoreError>> {
    Box::pin(async { Err(StoreError::Invalid("a damaged store is only read".to_owned())) })
}

impl Store for Salvage {
    fn id(&self) -> StoreId {
        self.store.clone()
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn caps(&self) -> StoreCaps {
        StoreCaps { durable: false, multi_worker: false, backend: "sled, read only" }
    }

    fn commit(&self, _transition: Transition) -> BoxFuture<'_, Result<u64, StoreError>> {
        refused()
    }

    fn load<'a>(&'a self, run: &'a RunId, after: u64) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(async move { self.records(run, after, self.end_of(run), usize::MAX) })
    }

    fn page<'a>(
        &'a self,
        run: &'a RunId,
        after: u64,
        bytes: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(async move { self.records(run, after, self.end_of(run), bytes) })
    }

    fn head<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Option<Head>, StoreError>> {
        Box::pin(async move { Ok(self.runs.get(run).map(|saved| saved.head.clone())) })
    }

    fn graph<'a>(&'a self, hash: &'a GraphHash) -> BoxFuture<'a, Result<Vec<u8>, StoreError>> {
        Box::pin(async move { self.read_graph(hash) })
    }

    fn list(&self, _query: ListQuery) -> BoxFuture<'_, Result<ListPage, StoreError>> {
        refused()
    }

    fn due(
        &self,
        _until: Timestamp,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, RunId)>, StoreError>> {
        refused()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        let head = |(run, saved): (&RunId, &Saved)| SnapshotHead {
            run: run.clone(),
            seq: saved.head.seq,
            due: saved.due,
        };
        let snapshot = Snapshot {
            heads: self.runs.iter().map(head).collect(),
            schedules: self.schedules(),
            hold: self.holds.hold(),
        };
        Box::pin(async move { Ok(snapshot) })
    }

    fn verify(&self) -> BoxFuture<'_, Result<VerifyReport, StoreError>> {
        refused()
    }
}
