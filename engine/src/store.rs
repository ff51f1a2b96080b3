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
//! [`conformance`] is the suite that any store must pass; [`memory::MemoryStore`] is the reference.

pub mod conformance;
pub mod memory;

use serde::{Deserialize, Serialize};

use crate::id::{RunId, StoreId};
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
    /// The store epoch under which it was decided; see [`Store::epoch`].
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
}

/// SHA-256 of a graph's canonical form, in hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GraphHash(pub String);

/// What lists show of a run without reading its history. At most [`MAX_SUMMARY_BYTES`] as JSON: `note` is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// Which runs to list. Newest first by creation.
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
pub struct VerifyReport {
    /// Runs read.
    pub runs: u64,
    /// Events read.
    pub events: u64,
    /// Bytes of records read.
    pub bytes: u64,
    /// What is wrong; empty is good.
    pub damage: Vec<Damage>,
}

/// What a store can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreCaps {
    /// Whether an acknowledged commit survives a power cut on a disk that honours flush.
    pub durable: bool,
    /// Whether several processes may work on it at once.
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
    /// There is no such run or graph.
    #[error("{0} is not in the store")]
    NotFound(String),
    /// The writer's epoch has ended; nothing was written.
    #[error("the store was opened again since (epoch {epoch}); this owner may not write any more")]
    Fenced {
        /// The epoch in force.
        epoch: u64,
    },
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
pub trait Store: Send + Sync + 'static {
    /// Identifies the store for ever.
    fn id(&self) -> StoreId;

    /// The epoch in force since this store was opened.
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

    /// Reads everything and checks it.
    fn verify(&self) -> BoxFuture<'_, Result<VerifyReport, StoreError>>;
}
