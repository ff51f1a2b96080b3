//! The port to durable storage: what the engine needs of a store, and what a store must promise.
//!
//! A store keeps, per run, an append-only history of *records*. One [`Transition`] appends one record (all events
//! of one decision, in one atomic batch), replaces the run's summary and its due item, and may add a graph. The
//! record's bytes mean nothing to the store.
//!
//! # Contract
//! - [`Store::commit`] resolves with `Ok` only when the transition is durable; nothing of it is visible after a
//!   crash unless all of it is. Resolving with an error other than [`StoreError::Unknown`] means that nothing was
//!   written.
//! - Commits of one run are totally ordered by `seq`. `Expect` is checked inside the commit, against what earlier
//!   commits of the same group leave behind.
//! - Readers may see applied data that is not durable yet; the engine acts only on acknowledged commits.
//! - After an IO error in a write or a sync the store is poisoned: every waiter and every later call gets
//!   [`StoreError::Poisoned`]. A sync is never repeated.
//! - Opening a store bumps its epoch durably. A commit that names an older epoch is [`StoreError::Fenced`].
//!
//! # Who drives a run
//! A single-process store has one owner, who drives every run in the store's epoch; [`Store::claim`] and its
//! siblings have nothing to do there and need not be implemented. A store that says [`StoreCaps::multi_worker`] has
//! several, and promises:
//! - A run is claimed by one worker at a time. A worker has one lease for all its runs: claimed or renewed at `t`, it
//!   is over at `t + ttl`. Until then a claim by anybody else is [`StoreError::Held`].
//! - A claim that changes hands gives the run a higher epoch than it ever had, and each commit must name the epoch
//!   of the run's claim: anything else is [`StoreError::Fenced`]. The epoch is checked inside the commit, so that a
//!   worker that was away for long cannot write over its successor. A new run is claimed before its first commit.
//! - A lease that is over and that nobody took over still writes: its epoch is the last one given, and nobody else
//!   can have written. What ends a claim is the next claim, [`Store::release`] or a new epoch of the store, never
//!   the clock alone.
//! - Times are those that the workers hand in. Clocks that differ make a claim early or late; the epoch keeps the
//!   history whole even so.
//!
//! # Copies and removal
//! A store that can be copied and pruned has [`Store::snapshot`], [`Store::put_graph`], [`Store::import`],
//! [`Store::remove`] and [`Store::sweep`]; one that cannot leaves them as they are, and says so when asked. They promise:
//! - A run is there whole or not at all: neither an import nor a removal shows half, before or after a crash.
//! - What a snapshot shows can be read as long as it is there: nothing is removed meanwhile.
//! - A run that has not ended, or that made things that are still there, is never removed.
//! - A graph is swept only when no run names it, and none whose commit or import is on its way.
//! - An id whose run was removed is free: its next run begins anew, at event 1.
//!
//! # Schedules
//! A store that keeps schedules has [`Store::put_schedule`] and its siblings, and takes [`Transition::schedule`]; one that
//! cannot leaves them as they are. A schedule is one record whose bytes mean nothing to the store, a version, and when it
//! wants to be looked at next. They promise:
//! - What is put has the version that was expected replaced, or nothing is written; of rivals one wins. A version is
//!   higher than any that the store gave before, also to a schedule of that name that was removed.
//! - A put in a transition is part of it: the run and the schedule are written together or not at all.
//! - As with runs, a put resolves when it is durable, and names the epoch that it was decided in.
//! - A snapshot has the schedules of its instant.
//!
//! [`conformance`] is the suite that any store must pass; [`memory::MemoryStore`] is the reference.

pub mod conformance;
pub mod layer;
pub mod memory;
pub mod prune;
mod rules;
mod schedule;
mod whole;

pub use rules::check_graph;
pub(crate) use rules::escaped_len;
pub use schedule::{MAX_SCHEDULE_BYTES, SchedulePut, StoredSchedule};
pub use whole::{
    Continuity, Hold, Holds, NamesGraphs, Snapshot, SnapshotHead, Swept, WholeRun, check_removal, page_len,
};

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{RunId, ScheduleId, StoreId, WorkerId};
use crate::run::RunStatus;
use crate::time::{BoxFuture, Timestamp};

/// The most one record may have, in bytes.
pub const MAX_RECORD_BYTES: usize = 64 * 1024 * 1024;
/// The most a run summary may have when encoded, in bytes.
pub const MAX_SUMMARY_BYTES: usize = 512;
/// The most runs a page of [`Store::list`] has.
pub const MAX_PAGE: usize = 1000;

/// What the run's head must be for a commit to take place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The run does not exist.
    New,
    /// The run's last event has this sequence number.
    At {
        /// Sequence number of the run's last event.
        seq: u64,
    },
}

/// One atomic change of one run.
#[derive(Debug, Clone)]
pub struct Transition {
    /// The run.
    pub run: RunId,
    /// The head it was decided on.
    pub expect: Expect,
    /// The epoch of the run's claim under which it was decided; see [`Store::claim`]. On a single-process store
    /// that is [`Store::epoch`].
    pub epoch: u64,
    /// How many events the record holds; they get the next `events` sequence numbers. At least one.
    pub events: u32,
    /// The encoded events.
    pub record: Vec<u8>,
    /// The run's summary after it.
    pub summary: RunSummary,
    /// When the run wants to be looked at next; replaces the earlier due item. `None` removes it.
    pub due: Option<Timestamp>,
    /// A graph the record refers to, by its hash; stored once however many runs use it.
    pub graph: Option<(GraphHash, Vec<u8>)>,
    /// A schedule that is written in the same change, as the one that starts the run. Only for stores that keep schedules.
    pub schedule: Option<SchedulePut>,
}

/// SHA-256 of a graph's canonical form, in hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct GraphHash(pub String);

/// What lists show of a run without reading its history. At most [`MAX_SUMMARY_BYTES`] as JSON: `note` is cut, and
/// names and labels never are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RunSummary {
    /// The run.
    pub run: RunId,
    /// The workflow's name.
    pub workflow: String,
    /// The site, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub site: String,
    /// Where it stands.
    pub status: RunStatus,
    /// When it was created.
    pub created: Timestamp,
    /// When its last event happened.
    pub updated: Timestamp,
    /// Steps that need nothing more / all steps.
    pub done: u32,
    /// All steps.
    pub total: u32,
    /// Whether the run has made things that are still there.
    pub live: bool,
    /// A word on the status, as the step that failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// What it was started with, to find it by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A committed run's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Sequence number of the last event.
    pub seq: u64,
    /// The summary.
    pub summary: RunSummary,
}

/// One stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Sequence number of its first event, from 1.
    pub first_seq: u64,
    /// How many events it holds.
    pub events: u32,
    /// The bytes given to [`Transition::record`].
    pub bytes: Vec<u8>,
}

/// Which runs to list: those for which all of it holds. Newest first by creation.
///
/// ```
/// use dssflow_engine::store::ListQuery;
/// use dssflow_engine::time::Timestamp;
///
/// let query = ListQuery {
///     labels: [("team".to_owned(), "data".to_owned())].into(),
///     created_from: Some(Timestamp::from_millis(1_700_000_000_000)),
///     limit: 20,
///     ..ListQuery::default()
/// };
/// # assert_eq!(query.page_size(), 20);
/// ```
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only these statuses; empty means all.
    pub statuses: Vec<RunStatus>,
    /// Only this workflow.
    pub workflow: Option<String>,
    /// Only this site.
    pub site: Option<String>,
    /// Only run ids that start so.
    pub prefix: Option<String>,
    /// Only runs that have each of these labels with this value.
    pub labels: BTreeMap<String, String>,
    /// Only runs created then or later. A store does not read the older ones.
    pub created_from: Option<Timestamp>,
    /// Only runs created earlier than that. A store does not read the others.
    pub created_before: Option<Timestamp>,
    /// At most so many (capped at [`MAX_PAGE`]); 0 means [`MAX_PAGE`].
    pub limit: usize,
    /// Where the last page ended.
    pub cursor: Option<String>,
}

/// A page of runs.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// The runs.
    pub runs: Vec<RunSummary>,
    /// Where to go on, when there is more.
    pub cursor: Option<String>,
}

/// One thing [`Store::verify`] found wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Damage {
    /// The run, when one is concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The first bad sequence number of that run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What [`Store::verify`] read and found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VerifyReport {
    /// Runs read.
    pub runs: u64,
    /// Events read.
    pub events: u64,
    /// Bytes of records read.
    pub bytes: u64,
    /// Schedules read.
    #[serde(default)]
    pub schedules: u64,
    /// What is wrong; empty is good.
    pub damage: Vec<Damage>,
}

/// A run that a worker may drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// What each commit of the run names until the claim ends; higher than that of any earlier owner.
    pub epoch: u64,
    /// When the worker's lease is over unless it is renewed; [`Timestamp::MAX`] where nothing needs to be.
    pub until: Timestamp,
}

/// What a store can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreCaps {
    /// Whether an acknowledged commit survives a power cut on a disk that honours flush.
    pub durable: bool,
    /// Whether several workers may work on it at once, each with [`Store::claim`].
    pub multi_worker: bool,
    /// A name for people: `memory`, `sled`.
    pub backend: &'static str,
}

/// Why a store did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The run's head is elsewhere; nothing was written.
    #[error("the run is at event {seq}, not where the change was decided")]
    Conflict {
        /// Sequence number of the run's last event.
        seq: u64,
    },
    /// The run exists already; nothing was written.
    #[error("run {0} exists already")]
    Exists(RunId),
    /// The schedule is at another version, or is there already; nothing was written.
    #[error("the schedule was changed since it was read (version {found})")]
    ScheduleConflict {
        /// Its version; 0 when there is none.
        found: u64,
    },
    /// There is no such run, graph or schedule.
    #[error("{0} is not in the store")]
    NotFound(String),
    /// The writer's epoch has ended: the store was opened again, or the run is claimed by another worker or by
    /// none. Nothing was written.
    #[error("another owner has taken over since (epoch {epoch}); this one may not write any more")]
    Fenced {
        /// The epoch in force, or the one that the next claim gets.
        epoch: u64,
    },
    /// Another worker's lease on the run is not over; nothing was written.
    #[error("another worker ({by}) drives the run until {until}; nothing was written")]
    Held {
        /// That worker.
        by: WorkerId,
        /// When its lease is over unless it renews it.
        until: Timestamp,
    },
    /// What was asked makes no sense; nothing was written, and asking again does not help.
    #[error("the store was asked for what makes no sense: {0}")]
    Invalid(String),
    /// The record or summary is over its limit; nothing was written.
    #[error("{what} has {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// Not to be had now; nothing was written.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// Whether it was written is not known; read the head again.
    #[error("whether the change was written is not known: {0}")]
    Unknown(String),
    /// Stored data is damaged.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// A write or sync failed earlier; open the store again.
    #[error("the store stopped after a failed write and must be opened again: {0}")]
    Poisoned(String),
}

/// Durable storage for runs. See the module's contract.
///
/// A store that wraps another one passes on every method, those with a default too: a shared store whose claims do
/// not arrive is fenced at its first commit. A [`layer::Layer`] does.
pub trait Store: Send + Sync + 'static {
    /// Identifies the store for ever.
    fn id(&self) -> StoreId;

    /// The epoch in force since this store was opened, from 1. No claim ever has a lower one.
    fn epoch(&self) -> u64;

    /// What it can do.
    fn caps(&self) -> StoreCaps;

    /// Writes a transition. Resolves with the new head's sequence number when it is durable.
    fn commit(&self, transition: Transition) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// The records of a run from the one that holds event `after + 1`, oldest first; empty when there are none.
    fn load<'a>(&'a self, run: &'a RunId, after: u64) -> BoxFuture<'a, Result<Vec<Record>, StoreError>>;

    /// The head of a run; `None` when there is no such run.
    fn head<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Option<Head>, StoreError>>;

    /// A graph by its hash.
    fn graph<'a>(&'a self, hash: &'a GraphHash) -> BoxFuture<'a, Result<Vec<u8>, StoreError>>;

    /// A page of runs.
    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<ListPage, StoreError>>;

    /// Runs with a due item at or before `until`, earliest first, at most `limit`.
    fn due(
        &self,
        until: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, RunId)>, StoreError>>;

    /// Makes `worker` the one who drives `run`, which need not exist yet, and renews its lease. A worker that holds
    /// the run already gets the same epoch again; that two of its own tasks do not drive one run is its business.
    ///
    /// Fails with [`StoreError::Held`] while another worker's lease is not over.
    fn claim<'a>(
        &'a self,
        run: &'a RunId,
        worker: &'a WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Claim, StoreError>> {
        let _ = (run, worker, now, ttl);
        Box::pin(async { Ok(Claim { epoch: self.epoch(), until: Timestamp::MAX }) })
    }

    /// Renews the lease on all runs that `worker` holds and says when it is over now; a lease never gets shorter. One
    /// that was over is alive again for the runs that nobody took over; the others stay taken, and commits on them
    /// are [`StoreError::Fenced`].
    fn renew<'a>(
        &'a self,
        worker: &'a WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Timestamp, StoreError>> {
        let _ = (worker, now, ttl);
        Box::pin(async { Ok(Timestamp::MAX) })
    }

    /// Ends `worker`'s claim on `run`, so that the next one can have it at once. Does nothing when another holds it.
    fn release<'a>(&'a self, run: &'a RunId, worker: &'a WorkerId) -> BoxFuture<'a, Result<(), StoreError>> {
        let _ = (run, worker);
        Box::pin(async { Ok(()) })
    }

    /// As [`Store::load`], but only the first records that have at most so many bytes together; always at least one
    /// when there is one. So a history of any length is read in little memory.
    fn page<'a>(
        &'a self,
        run: &'a RunId,
        after: u64,
        bytes: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(async move {
            let mut records = self.load(run, after).await?;
            records.truncate(page_len(&records, bytes));
            Ok(records)
        })
    }

    /// The heads of all runs at one instant: when the head of one is from after some commit, no other is from before
    /// it. They are of acknowledged commits, or of such as will be.
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        Box::pin(async move { Err(cannot(&self.caps(), "copied")) })
    }

    /// Puts a graph into the store, for runs that are imported next. Does nothing when it is there. One that no run
    /// comes to name goes with the next sweep.
    fn put_graph<'a>(&'a self, hash: &'a GraphHash, bytes: Vec<u8>) -> BoxFuture<'a, Result<(), StoreError>> {
        drop((hash, bytes));
        Box::pin(async move { Err(cannot(&self.caps(), "copied into")) })
    }

    /// Puts a whole run into a store that does not have it, with its records as they are. Resolves when it is durable;
    /// nothing of it is visible before, or ever when it fails. It needs no claim.
    ///
    /// Fails with [`StoreError::Exists`]; with [`StoreError::NotFound`] when a graph it names is not there; with
    /// [`StoreError::Invalid`] when its records have gaps or do not end where its head is; with
    /// [`StoreError::Fenced`] when the store was opened again since; and with what [`WholeRun::records`] fails with.
    fn import<'a>(&'a self, run: WholeRun<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        drop(run);
        Box::pin(async move { Err(cannot(&self.caps(), "copied into")) })
    }

    /// Removes a run whole: its head, records and due item, and it is in no list any more. `seq` is its last event;
    /// `epoch` is that of its claim, as in [`Transition::epoch`].
    ///
    /// Fails with [`StoreError::NotFound`]; with [`StoreError::Conflict`] when it went on since; with
    /// [`StoreError::Invalid`] when it has not ended or made things that are still there; with
    /// [`StoreError::Unavailable`] while a [`Snapshot`] is there; with [`StoreError::Fenced`].
    fn remove<'a>(&'a self, run: &'a RunId, seq: u64, epoch: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        let _ = (run, seq, epoch);
        Box::pin(async move { Err(cannot(&self.caps(), "pruned")) })
    }

    /// Removes graphs and large values that no run names any more. Reads every record, to ask `names` which graphs it
    /// names; what commits and imports name meanwhile stays.
    ///
    /// Fails with [`StoreError::Corrupt`] when `names` cannot read a record: it may name any graph, so all of them
    /// stay; with [`StoreError::Unavailable`] while a [`Snapshot`] is there; with [`StoreError::Fenced`].
    fn sweep(&self, names: NamesGraphs) -> BoxFuture<'_, Result<Swept, StoreError>> {
        let _ = names;
        Box::pin(async move { Err(cannot(&self.caps(), "pruned")) })
    }

    /// Writes a schedule, decided in this epoch of the store. Resolves with its new version when it is durable.
    ///
    /// Fails with [`StoreError::ScheduleConflict`]; with [`StoreError::TooLarge`]; with [`StoreError::Fenced`].
    fn put_schedule(&self, put: SchedulePut, epoch: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        drop((put, epoch));
        Box::pin(async move { Err(cannot(&self.caps(), "given schedules")) })
    }

    /// A schedule; `None` when there is none of that name.
    fn schedule<'a>(
        &'a self,
        id: &'a ScheduleId,
    ) -> BoxFuture<'a, Result<Option<StoredSchedule>, StoreError>> {
        let _ = id;
        Box::pin(async { Ok(None) })
    }

    /// The schedules after `after` by name, at most `limit` (capped at [`MAX_PAGE`]).
    fn schedules<'a>(
        &'a self,
        after: Option<&'a ScheduleId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredSchedule>, StoreError>> {
        let _ = (after, limit);
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Schedules that want to be looked at by `until`, the earliest first, at most `limit`.
    fn due_schedules(
        &self,
        until: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, ScheduleId)>, StoreError>> {
        let _ = (until, limit);
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Removes a schedule that is at this version, decided in this epoch of the store.
    ///
    /// Fails with [`StoreError::ScheduleConflict`], also when there is none; with [`StoreError::Fenced`].
    fn remove_schedule<'a>(
        &'a self,
        id: &'a ScheduleId,
        version: u64,
        epoch: u64,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let _ = (id, version, epoch);
        Box::pin(async move { Err(cannot(&self.caps(), "given schedules")) })
    }

    /// Reads everything and checks it.
    fn verify(&self) -> BoxFuture<'_, Result<VerifyReport, StoreError>>;
}

fn cannot(caps: &StoreCaps, what: &str) -> StoreError {
    StoreError::Invalid(format!("a store of kind {} cannot be {what}", caps.backend))
}
