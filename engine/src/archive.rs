//! Backups: whole runs as text, to be kept elsewhere and put into a store again.
//!
//! An archive is lines of JSON (NDJSON), to be read from its start to its end and in little memory, with any tool that
//! knows JSON. [`ArchiveWriter`] and [`ArchiveReader`] know the format and no store; [`write()`] copies a store out,
//! [`put`] puts runs into one. What it holds is what the store holds: no secret is in there. It is not encrypted and
//! not signed: its checksums tell damage, not forgery.
//!
//! # What becomes of runs that are put into a store
//! A *restore* ([`Purpose::Restore`]) is into a store with the id of the one that the backup was made of. It is as that
//! store was, and the world has gone on: what runs did since the backup is not known. So each run gets the event
//! `run_restored`; one that had not ended is paused by it, and goes on only when somebody resumes it. From then on a
//! step that can be probed is looked at before it acts, also one that had never started, and "absent" counts only when
//! two looks agree over its settle time. What is found is taken as done; what has to be made gets a generation that was
//! never used, because a service may know the tokens of all earlier ones. Runs below, which it starts later, do the
//! same.
//!
//! What a restore cannot know: a rollback takes back what the backup knows of and what was looked at since. Steps that
//! had not started by then are not looked at by a rollback: a run should be resumed first, so that what it made is
//! found, or what is left be swept by its tags. Old values that an update recorded since the backup are lost with it. A
//! run that was started since the backup is not there: started again under its id it looks once before each step, as
//! any new run does.
//!
//! An *import* ([`Purpose::Import`]) is into another store. Its runs can be listed, shown and explained, and that is all:
//! whatever would change one is refused ([`EngineError::Imported`](crate::EngineError::Imported)). They have ended there,
//! and own nothing, so they can be pruned like others.
//!
//! Schedules are part of a backup of a whole store. A restored one is paused, and what waited in it is gone: what it has
//! started since the backup is not known, and an instant must not fire twice. An import leaves them out.
//!
//! # Format
//! Version 2. Every line is one object, and its last member is `sum`: the first 16 hex digits of the SHA-256 of the
//! `sum` before it (nothing for the first line) and of the line without its `sum`. So a line that was changed,
//! taken out, put in or moved shows where it is. A line has at most [`MAX_LINE_BYTES`]; what is larger goes on in
//! `more` lines. In order:
//!
//! | line | holds |
//! |---|---|
//! | `{"dssflow_archive":2, store, created, epoch, runs, product}` | [`Header`]; once |
//! | `{"graph":HASH, "len":N, "text":".."}` | a graph, before the first run that names it, once |
//! | `{"run":ID, seq, summary, due, graphs}` | a run begins; `graphs` are those that it names |
//! | `{"record":FIRST_SEQ, "events":N, "len":N, "text":".."}` | one of its records, oldest first |
//! | `{"more":".."}` | what a graph or record goes on with, in the form it began in |
//! | `{"end_of_run":ID, "records":N, "seq":N, "sha256":".."}` | all its records were there; the hash is over their bytes |
//! | `{"schedule":ID, "due":T, "len":N, "text":".."}` | a schedule, after the runs; also goes on in `more` |
//! | `{"end":{"runs":N, "records":N, "graphs":N, "schedules":N}}` | all of it was there; nothing follows |
//!
//! `text` is the bytes as they are when they are UTF-8, which records of the engine always are; `hex` stands in its
//! place when they are not. An archive without its last line was cut off; every run whose `end_of_run` is there is
//! whole even so.
//!
//! # Format changelog
//! - 1: the first.
//! - 2: schedules.

mod copy;
mod line;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use copy::{Copied, CopyError, CopyOptions, Made, Purpose, PutOptions, PutReport, put, write};
pub use read::{ArchiveError, ArchiveReader, Part};
pub use write::ArchiveWriter;

use serde::{Deserialize, Serialize};

use crate::id::{RunId, ScheduleId, StoreId};
use crate::store::{GraphHash, RunSummary};
use crate::time::Timestamp;

/// The format that this version writes. It reads all up to this one.
pub const ARCHIVE_FORMAT: u16 = 2;
/// The most bytes a line may have.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;
/// The most graphs that a run may name.
pub const MAX_GRAPHS: usize = 10_000;

/// Where an archive comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The store it was made of.
    pub store: StoreId,
    /// When: nothing that happened later is in it.
    pub created: Timestamp,
    /// The store's epoch then.
    pub epoch: u64,
    /// The runs that it was to have; none when it was to have all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<Vec<RunId>>,
    /// The product and version that wrote it.
    pub product: String,
}

/// A run as an archive has it, without its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedRun {
    /// The run.
    pub run: RunId,
    /// Sequence number of its last event.
    pub seq: u64,
    /// Its summary then.
    pub summary: RunSummary,
    /// When it wanted to be looked at next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// The graphs that its records name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub graphs: Vec<GraphHash>,
}

/// What an archive has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Runs that are whole.
    pub runs: u64,
    /// Their records.
    pub records: u64,
    /// Graphs.
    pub graphs: u64,
    /// Schedules.
    #[serde(default)]
    pub schedules: u64,
}

/// A schedule as an archive has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedSchedule {
    /// The schedule.
    pub schedule: ScheduleId,
    /// When it wanted to be looked at next.
    pub due: Option<Timestamp>,
    /// Its record.
    pub record: Vec<u8>,
}
