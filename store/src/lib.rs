//! The workflow store on disk: [`SledStore`], which is sled made safe against power cuts.
//!
//! sled alone loses data when the power fails: its `flush` does not fsync, and damage at the end of its log is
//! dropped without a word. Here every group of commits is followed by an `fdatasync` of our own and by a record of
//! what was acknowledged in a second file, `HEAD`; everything stored carries a checksum, a run's events a hash
//! chain. What the disk lost is therefore found at the next open.
//!
//! ```text
//! <store>/           0700; all files 0600
//!   lock             held while a process owns the store; says who
//!   FORMAT           format number, the version that can read it, the store's id
//!   CURRENT          the name of the sled directory in use
//!   HEAD             two slots of 512 bytes: the last two groups acknowledged
//!   MANIFEST         only after a clean close: length and checksum of every file
//!   gen-1/           sled
//!   payloads/        what is over 64 KiB, by its SHA-256
//!   restoring/       while a backup is put back: the store that it becomes
//!   replacing        while that takes the place of the one before
//!   kept-TIME/       what a restore took the place of
//!   kept-before-*/   a copy from before the format was changed
//! ```
//!
//! # Formats
//! A store of an earlier one is copied into `kept-before-format-3-at-GROUP` before it is written to for the first time.
//!
//! - 3 (0.2.0): schedules. Nothing of format 2 is written anew; groups count the schedules from then on.
//! - 2 (0.2.0): a run's head is packed, not JSON. Heads of format 1 are replaced as their runs get on.
//! - 1 (0.1.0): the first. A run's summary may have labels; one without is written as it was before there were any.
//!
//! What this crate does not do: it does not know what an event is, it does not repair, and it does not detect that
//! a whole directory was replaced by an older copy of itself.
#![warn(missing_docs)]

mod blob;
mod check;
mod codec;
mod commit;
mod compact;
mod disk;
mod error;
mod export;
mod format;
mod head;
mod import;
mod inflight;
mod keys;
mod lock;
mod manifest;
mod migrate;
mod offline;
mod open_engine;
mod payload;
mod place;
mod read;
mod remove;
mod restore;
mod schedules;
mod snapshot;
mod stats;
mod store;
mod summary;
mod sweep;
mod tree;
mod trial;
mod watch;

/// The format of stores that this version writes. It opens all up to this one.
pub const STORE_FORMAT: u32 = format::FORMAT_NUMBER;

pub use compact::{CompactReport, Progress};
pub use disk::{Disk, OsDisk, Synced};
pub use error::{Holder, OpenError};
pub use export::{ExportError, ExportReport, Lost, export_offline};
pub use manifest::ManifestState;
pub use offline::{
    Lag, OfflineReport, OldestRun, Parts, StoreInfo, holder_of, id_offline, info_offline, verify_offline,
};
pub use open_engine::OpenEngine;
pub use restore::Restore;
pub use stats::{Spent, Stats};
pub use store::{OpenOptions, SledStore};
