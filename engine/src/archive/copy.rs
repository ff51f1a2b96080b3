//! Between a store and an archive: [`write()`] makes a backup of a store in use, [`put`] brings runs back.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{
    ArchiveError, ArchiveReader, ArchiveWriter, ArchivedRun, ArchivedSchedule, Header, Part, Totals,
};
use crate::event::{self, EVENT_FORMAT, Event, EventKind, Request, graphs_named};
use crate::id::{RunId, ScheduleId, StoreId};
use crate::run::{RunStatus, restored_note};
use crate::runtime::{EngineError, load_at, summary};
use crate::schedule;
use crate::store::{GraphHash, Head, Record, SchedulePut, SnapshotHead, Store, StoreError, WholeRun};
use crate::time::Timestamp;

/// Bytes of records read at once.
const PAGE: usize = 1024 * 1024;
/// The most damaged places that are told one by one.
const MAX_TOLD: usize = 1_000;

/// Why a copy failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The store refused or failed.
    #[error("{}{error}", run.as_ref().map(|run| format!("run {run}: ")).unwrap_or_default())]
    Store {
        /// The run concerned.
        run: Option<RunId>,
        /// Why.
        error: StoreError,
    },
    /// A run of the store cannot be read.
    #[error("{0}")]
    Run(#[from] EngineError),
    /// The backup could not be written.
    #[error("the backup could not be written: {0}")]
    Io(Arc<io::Error>),
    /// The backup could not be read.
    #[error("{0}")]
    Archive(#[from] ArchiveError),
    /// A run that was asked for is not in the store.
    #[error("run {0} is not in the store")]
    NoSuchRun(RunId),
    /// A restore is for the store that the backup was made of.
    #[error(
        "the backup is of store {backup}, this is store {store}; import it, and its runs are here as history only"
    )]
    OtherStore {
        /// The store that the backup is of.
        backup: StoreId,
        /// The store it was to go into.
        store: StoreId,
    },
    /// An import is for another store.
    #[error("the backup is of this very store ({0}); restore it, and its runs can go on where they were")]
    SameStore(StoreId),
    /// A run of the backup cannot be taken.
    #[error("run {run} of the backup cannot be taken: {why}")]
    BadRun {
        /// The run.
        run: RunId,
        /// Why.
        why: String,
    },
    /// A graph of the backup is not what its name says.
    #[error("the graph {} of the backup is not what its hash says; use another copy of it", graph.0)]
    BadGraph {
        /// The graph.
        graph: GraphHash,
    },
    /// A schedule of the backup cannot be taken.
    #[error("schedule {schedule} of the backup cannot be taken: {why}")]
    BadSchedule {
        /// The schedule.
        schedule: ScheduleId,
        /// Why.
        why: String,
    },
}

fn in_store(run: &RunId, error: StoreError) -> CopyError {
    CopyError::Store { run: Some(run.clone()), error }
}

fn of_store(error: StoreError) -> CopyError {
    CopyError::Store { run: None, error }
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// How far a copy has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Runs done.
    pub runs: u64,
    /// Runs there are; 0 when that is not known.
    pub of: u64,
    /// Bytes of the archive so far.
    pub bytes: u64,
}

/// What goes into a backup, and what its first line says.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// The time now.
    pub now: Timestamp,
    /// The product and version that writes it.
    pub product: String,
    /// Only these runs; none means all.
    pub runs: Option<Vec<RunId>>,
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its first line.
    pub header: Header,
    /// What it has.
    pub totals: Totals,
    /// Its size.
    pub bytes: u64,
}

/// Writes a backup of a store that may be in use: every run as it was at one instant, and, when all runs are wanted, every
/// schedule. Runs go on meanwhile, and nothing
/// is removed. Holds a megabyte of records, or one record or graph that is larger, and about a hundred bytes a run.
///
/// Whoever wants the backup to survive a power cut writes it to a file of another name, syncs, renames and syncs the
/// directory: [`ArchiveWriter::finish`] flushes and no more. `progress` is called after each run.
///
/// # Errors
/// When the store has no snapshots, fails, or has a damaged run; a run that was asked for is not there; `out` fails.
/// What was written until then is an archive that was cut off.
pub async fn write<W: Write + Send>(
    store: &dyn Store,
    out: W,
    options: CopyOptions,
    progress: &mut (dyn FnMut(Copied) + Send),
) -> Result<(W, Made), CopyError> {
    let snapshot = store.snapshot().await.map_err(of_store)?;
    let CopyOptions { now, product, runs } = options;
    let wanted: Option<BTreeSet<RunId>> = runs.map(|runs| runs.into_iter().collect());
    if let Some(wanted) = &wanted {
        let found: BTreeSet<&RunId> = snapshot.heads.iter().map(|head| &head.run).collect();
        if let Some(missing) = wanted.iter().find(|run| !found.contains(run)) {
            return Err(CopyError::NoSuchRun(missing.clone()));
        }
    }
    let header = Header {
        store: store.id(),
        created: now,
        epoch: store.epoch(),
        runs: wanted.as_ref().map(|wanted| wanted.iter().cloned().collect()),
        product,
    };
    let mut writer = ArchiveWriter::new(out, &header)?;
    let is_wanted = |head: &&SnapshotHead| wanted.as_ref().is_none_or(|wanted| wanted.contains(&head.run));
    let mut copied = Copied { runs: 0, of: snapshot.heads.iter().filter(is_wanted).count() as u64, bytes: 0 };
    for head in snapshot.heads.iter().filter(is_wanted) {
        write_run(store, &mut writer, head).await?;
        (copied.runs, copied.bytes) = (copied.runs + 1, writer.bytes());
        progress(copied);
    }
    if wanted.is_none() {
        for stored in &snapshot.schedules {
            let (schedule, due, record) = (stored.id.clone(), stored.due, stored.record.clone());
            writer.schedule(&ArchivedSchedule { schedule, due, record })?;
        }
    }
    drop(snapshot);
    let bytes = writer.bytes();
    let (out, totals) = writer.finish()?;
    Ok((out, Made { header, totals, bytes }))
}

/// The records of a run after event `after` and up to `end`, a page of them.
async fn page(store: &dyn Store, run: &RunId, after: u64, end: u64) -> Result<Vec<Record>, CopyError> {
    let mut page = store.page(run, after, PAGE).await.map_err(|error| in_store(run, error))?;
    page.retain(|record| record.first_seq <= end);
    if page.is_empty() {
        let error = StoreError::Corrupt(format!("event {} is missing", after + 1));
        return Err(in_store(run, error));
    }
    Ok(page)
}

fn last_of(page: &[Record]) -> u64 {
    page.last().map_or(0, |record| record.first_seq + u64::from(record.events) - 1)
}

async fn write_run<W: Write>(
    store: &dyn Store,
    writer: &mut ArchiveWriter<W>,
    head: &SnapshotHead,
) -> Result<(), CopyError> {
    let run = &head.run;
    // Which graphs it names must be known before its first record is written: short runs are read once, long ones twice.
    let first = page(store, run, 0, head.seq).await?;
    let mut graphs = BTreeSet::new();
    let mut note = |page: &[Record]| -> Result<u64, CopyError> {
        for record in page {
            let named = graphs_named(record.first_seq, &record.bytes);
            graphs.extend(named.map_err(|why| in_store(run, StoreError::Corrupt(why)))?);
        }
        Ok(last_of(page))
    };
    let mut last = note(&first)?;
    while last < head.seq {
        last = note(&page(store, run, last, head.seq).await?)?;
    }
    for graph in &graphs {
        if !writer.has_graph(graph) {
            let bytes = store.graph(graph).await.map_err(|error| in_store(run, error))?;
            writer.graph(graph, &bytes)?;
        }
    }
    let now = store.head(run).await.map_err(|error| in_store(run, error))?;
    let summary = match now {
        Some(Head { seq, summary }) if seq == head.seq => summary,
        // It went on since: what lists showed then, its history tells.
        _ => summary(&load_at(store, run, head.seq).await?),
    };
    let graphs = graphs.into_iter().collect();
    writer.run(&ArchivedRun { run: run.clone(), seq: head.seq, summary, due: head.due, graphs })?;
    let (mut next, mut last) = (first, 0);
    loop {
        for record in &next {
            writer.record(record)?;
        }
        last = last.max(last_of(&next));
        if last >= head.seq {
            break;
        }
        next = page(store, run, last, head.seq).await?;
    }
    Ok(writer.end_run()?)
}

/// What runs of a backup are put into a store for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To go on: the store has the id of the one that the backup was made of. What happened since the backup is not
    /// known, so every run that had not ended is paused, and looks at what is there before it makes anything.
    Restore,
    /// To be read: the store is another one. Nothing happens to the runs any more; see [`EngineError::Imported`].
    Import,
}

/// How runs are put into a store.
#[derive(Debug, Clone)]
pub struct PutOptions {
    /// What for.
    pub purpose: Purpose,
    /// The time now.
    pub now: Timestamp,
    /// Who asked, and why.
    pub request: Request,
    /// Only these runs; none means all.
    pub runs: Option<BTreeSet<RunId>>,
    /// Whether to go on past what is damaged, and take every run that is whole.
    pub salvage: bool,
}

/// What was put into a store.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PutReport {
    /// Runs that are in the store now and were not before.
    pub runs: u64,
    /// Their records.
    pub records: u64,
    /// Of these, runs that had not ended.
    pub unfinished: u64,
    /// Runs that were in the store already and stay as they are.
    pub existing: u64,
    /// The first of them.
    pub first_existing: Option<RunId>,
    /// Schedules that are in the store now, paused, and were not before.
    pub schedules: u64,
    /// Schedules that stay out: those of another store, and where only some runs were asked for; and those that are in the
    /// store already, which stay as they are.
    pub schedules_left: u64,
    /// Runs that were asked for and are not in the backup.
    pub missing: Vec<RunId>,
    /// What could not be read or taken; only when salvaging. At most a thousand are told.
    pub lost: Vec<CopyError>,
}

/// Puts the runs of an archive into a store, each whole or not at all, and marks each with an event that says so. A run
/// that is in the store stays as it is, so a copy that was interrupted can be started again. Holds one record or graph.
///
/// # Errors
/// When the archive is of another store than [`Purpose`] wants, is damaged or cut off (unless it is to be salvaged), or
/// the store fails. Runs that were put until then stay.
pub async fn put<R: BufRead + Send>(
    store: &dyn Store,
    reader: &mut ArchiveReader<R>,
    options: &PutOptions,
    progress: &mut (dyn FnMut(Copied) + Send),
) -> Result<PutReport, CopyError> {
    let header = reader.header().clone();
    let here = store.id();
    match options.purpose {
        Purpose::Restore if header.store != here => {
            return Err(CopyError::OtherStore { backup: header.store, store: here });
        }
        Purpose::Import if header.store == here => return Err(CopyError::SameStore(here)),
        Purpose::Restore | Purpose::Import => {}
    }
    let mut report = PutReport::default();
    let mut missing = options.runs.clone().unwrap_or_default();
    let mut copied = Copied::default();
    loop {
        let done = match reader.next_part() {
            Ok(None) => break,
            Ok(Some(part)) => {
                if let Part::Run(run) = &part {
                    missing.remove(&run.run);
                }
                put_part(store, reader, &header, part, options, &mut report).await
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = done {
            // A store that fails will fail again.
            let of_archive = !matches!(error, CopyError::Store { .. } | CopyError::Io(_));
            if !(options.salvage && of_archive) {
                return Err(error);
            }
            if report.lost.len() < MAX_TOLD {
                report.lost.push(error);
            }
        }
        (copied.runs, copied.bytes) = (report.runs + report.existing, reader.bytes());
        progress(copied);
    }
    report.missing = missing.into_iter().collect();
    if options.runs.is_some() && report.runs > 0 {
        // The graphs of the other runs came along. What is not swept now is swept another time.
        let _left = store.sweep(graphs_named).await;
    }
    Ok(report)
}

async fn put_part<R: BufRead + Send>(
    store: &dyn Store,
    reader: &mut ArchiveReader<R>,
    header: &Header,
    part: Part,
    options: &PutOptions,
    report: &mut PutReport,
) -> Result<(), CopyError> {
    match part {
        Part::Graph(graph, bytes) => {
            if hex::encode(Sha256::digest(&bytes)) != graph.0 {
                return Err(CopyError::BadGraph { graph });
            }
            store.put_graph(&graph, bytes).await.map_err(of_store)
        }
        Part::Run(run) if options.runs.as_ref().is_some_and(|wanted| !wanted.contains(&run.run)) => {
            Ok(reader.skip_run()?)
        }
        Part::Run(archived) => {
            let run = archived.run.clone();
            let unfinished = !archived.summary.status.is_end();
            let before = reader.totals().records;
            match put_run(store, reader, header, archived, options).await {
                Ok(()) => {
                    report.runs += 1;
                    report.records += reader.totals().records - before + 1;
                    report.unfinished += u64::from(unfinished);
                    Ok(())
                }
                Err(CopyError::Store { error: StoreError::Exists(_), .. }) => {
                    report.existing += 1;
                    report.first_existing.get_or_insert(run);
                    Ok(reader.skip_run()?)
                }
                Err(error) => {
                    // What is told is the first thing that was wrong with it.
                    drop(reader.skip_run());
                    Err(error)
                }
            }
        }
        Part::Schedule(_) if options.purpose == Purpose::Import || options.runs.is_some() => {
            report.schedules_left += 1;
            Ok(())
        }
        Part::Schedule(archived) => {
            let put = put_schedule(store, header, &archived, options).await?;
            *(if put { &mut report.schedules } else { &mut report.schedules_left }) += 1;
            Ok(())
        }
        Part::Record(_) | Part::EndOfRun(_) => {
            unreachable!("a run is read to its end, or the reader is lost")
        }
    }
}

/// Puts a schedule into the store, paused; false when there is one of that name.
async fn put_schedule(
    store: &dyn Store,
    header: &Header,
    archived: &ArchivedSchedule,
    options: &PutOptions,
) -> Result<bool, CopyError> {
    let ArchivedSchedule { schedule: id, record, .. } = archived;
    let bad = |why: String| CopyError::BadSchedule { schedule: id.clone(), why };
    let mut state = schedule::decode(id, record).map_err(|error| bad(error.to_string()))?;
    state.restored(header.created, options.now);
    // Paused, it wants nothing; the runs that it follows are looked at by whoever drives schedules.
    let put = SchedulePut { id: id.clone(), expect: None, record: schedule::encode(&state), due: None };
    match store.put_schedule(put, store.epoch()).await {
        Ok(_) => Ok(true),
        Err(StoreError::ScheduleConflict { .. }) => Ok(false),
        Err(error @ (StoreError::TooLarge { .. } | StoreError::Invalid(_))) => Err(bad(error.to_string())),
        Err(error) => Err(of_store(error)),
    }
}

async fn put_run<R: BufRead + Send>(
    store: &dyn Store,
    reader: &mut ArchiveReader<R>,
    header: &Header,
    archived: ArchivedRun,
    options: &PutOptions,
) -> Result<(), CopyError> {
    let ArchivedRun { run, seq, mut summary, graphs, .. } = archived;
    let (format, backup, request) = (EVENT_FORMAT, header.created, options.request.clone());
    let at = options.now.max(summary.updated);
    let ended = summary.status.is_end();
    let kind = match options.purpose {
        Purpose::Restore => {
            let gap_ms = u64::try_from(at.since(summary.updated).as_millis()).unwrap_or(u64::MAX);
            if !ended {
                let was = (summary.status == RunStatus::Paused).then_some(summary.note.as_str());
                summary.note = restored_note(backup, was);
                (summary.status, summary.live, summary.updated) = (RunStatus::Paused, true, at);
            }
            EventKind::RunRestored { format, backup, gap_ms, request }
        }
        Purpose::Import => {
            summary.live = false;
            if !ended {
                (summary.status, summary.updated) = (RunStatus::Cancelled, at);
                summary.note = format!("of store {}, here as history only", header.store);
            }
            EventKind::RunImported { format, store: header.store.clone(), backup, request }
        }
    };
    let marker = Event { seq: seq + 1, at, kind };
    let marker = Record { first_seq: seq + 1, events: 1, bytes: event::encode(&[marker]) };
    let mut failed = None;
    let records = Records { reader, failed: &mut failed, marker: Some(marker), run: run.clone() };
    // What had not ended stands still, and what has wants nothing: nothing is due.
    let whole =
        WholeRun { run: run.clone(), seq: seq + 1, summary, due: None, graphs, records: Box::new(records) };
    let done = store.import(whole).await;
    match (done, failed) {
        (_, Some(error)) => Err(error),
        (Ok(()), None) => Ok(()),
        // A damaged archive or a bug of its writer, not the store: the rest may be whole.
        (
            Err(error @ (StoreError::NotFound(_) | StoreError::Invalid(_) | StoreError::TooLarge { .. })),
            None,
        ) => Err(CopyError::BadRun { run, why: error.to_string() }),
        (Err(error), None) => Err(in_store(&run, error)),
    }
}

/// The records of a run of an archive, and the one that says how it came here.
struct Records<'a, R> {
    reader: &'a mut ArchiveReader<R>,
    failed: &'a mut Option<CopyError>,
    marker: Option<Record>,
    run: RunId,
}

impl<R: BufRead> Iterator for Records<'_, R> {
    type Item = Result<Record, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        // Without it the run is over, and the reader must not be asked: the next part is of another.
        self.marker.as_ref()?;
        let error = match self.reader.next_part() {
            Ok(Some(Part::Record(record))) => match event::decode(record.first_seq, &record.bytes) {
                Ok(_) => return Some(Ok(record)),
                Err(error) => CopyError::BadRun { run: self.run.clone(), why: error.to_string() },
            },
            Ok(Some(Part::EndOfRun(_))) => return self.marker.take().map(Ok),
            Ok(_) => CopyError::BadRun { run: self.run.clone(), why: "it has no end".to_owned() },
            Err(error) => CopyError::Archive(error),
        };
        let told = StoreError::Invalid(error.to_string());
        *self.failed = Some(error);
        self.marker = None;
        Some(Err(told))
    }
}
