//! Compaction: what is live is written into a new sled directory, and the old one goes.
//!
//! sled gives room back slowly, and runs that were removed leave it behind. The new directory `gen-N+1` is filled,
//! made durable, opened again and checked before the file `CURRENT` names it; until that rename the old directory is
//! the store, and from then on the new one is. Whichever `CURRENT` does not name is left over: the next compaction
//! removes it, and nothing else ever does. Group, epoch and chains go on as they were, so `HEAD` stays as it is.

use std::path::Path;

use dssflow_engine::id::StoreId;
use serde::{Deserialize, Serialize};

use crate::check;
use crate::codec::unseal;
use crate::disk::{self, Disk};
use crate::error::OpenError;
use crate::format::{encode_current, read_current};
use crate::head::Slots;
use crate::manifest;
use crate::offline::dir_bytes;
use crate::place::{CURRENT, GENERATION, Place, names};
use crate::store::{OpenOptions, Quiet, SledStore};
use crate::tree::{self, BLOBS, Trouble, protect};

/// Most bytes of keys and values in one batch of the copy.
const BATCH_BYTES: usize = 1024 * 1024;
/// How many keys are counted or copied between two words on how far it is.
const STEP: u64 = 4096;

/// How far something that takes long is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, as "copying".
    pub doing: &'static str,
    /// How much of it is done.
    pub done: u64,
    /// How much there is; 0 when that is not known.
    pub total: u64,
}

/// What [`SledStore::compact`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactReport {
    /// What sled's directory took on the disk, in bytes.
    pub before_bytes: u64,
    /// What it takes now.
    pub after_bytes: u64,
    /// How many values are live.
    pub values: u64,
}

/// As [`SledStore::compact`].
pub(crate) fn compact(
    path: &Path,
    options: OpenOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<CompactReport, OpenError> {
    // Opening recovers, raises the epoch and sees that nobody else writes.
    let quiet = SledStore::open(path, OpenOptions { create: false, ..options })?.quiet();
    let result = rewrite(&quiet, progress);
    let Quiet { place, disk, dir, mut opened, .. } = quiet;
    let closed = opened.close_sled();
    let (generation, report) = match result {
        Ok(done) => done,
        Err(error) => {
            drop(opened);
            return Err(error);
        }
    };
    // The new one is in place. Whatever keeps the old one from being closed, nothing that is in use is damaged.
    closed.map_err(|trouble| {
        let source = match trouble {
            Trouble::Io(source) => source,
            Trouble::Damage(what) => std::io::Error::other(what),
        };
        OpenError::io("close", &dir)(source)
    })?;
    let finish = || {
        std::fs::remove_dir_all(&dir)?;
        disk::sync_dir(&*disk, &place.root)?;
        manifest::write(&place, &*disk)?;
        opened.lock.wipe()
    };
    finish().map_err(OpenError::io("remove", &dir))?;
    tracing::debug!(path = %path.display(), generation, ?report, "store compacted");
    Ok(report)
}

/// Everything up to the moment that `CURRENT` names the new directory.
fn rewrite(quiet: &Quiet, progress: &mut dyn FnMut(Progress)) -> Result<(u32, CompactReport), OpenError> {
    let Quiet { place, disk, store, dir, opened, cache_bytes } = quiet;
    let disk = &**disk;
    let missing = || OpenError::damaged(&place.root, "CURRENT is missing");
    let old = read_current(place)?.ok_or_else(missing)?;
    progress(Progress { doing: "checking", done: 0, total: 0 });
    checked(place, opened.tree(), store, dir)?;

    remove_leftovers(place, disk, old)?;
    let new = old + 1;
    let target = place.root.join(format!("{GENERATION}{new}"));
    let mut fill = || -> Result<u64, OpenError> {
        let io = |error| OpenError::io("write", &target)(error);
        disk::make_dir(&target).map_err(io)?;
        let trouble = |trouble: Trouble| OpenError::of(trouble, &place.root, "write", &target);
        let values = copy(opened.tree(), &target, *cache_bytes, progress).map_err(trouble)?;
        tree::settle(disk, &target).map_err(io)?;
        // What counts is what the next owner reads.
        progress(Progress { doing: "checking the copy", done: 0, total: 0 });
        let db = tree::open(&target, *cache_bytes).map_err(trouble)?;
        let good = checked(place, &db, store, &target);
        let closed = tree::close(db);
        good?;
        closed.map_err(trouble)?;
        tree::wait_closed(&target).map_err(io)?;
        tree::settle(disk, &target).map_err(io)?;
        disk::sync_dir(disk, &place.root).map_err(io)?;
        Ok(values)
    };
    let values = match fill() {
        Ok(values) => values,
        Err(error) => {
            // It was never named. Left over, the next compaction removes it.
            drop(std::fs::remove_dir_all(&target));
            return Err(error);
        }
    };
    let bytes = |dir: &Path| dir_bytes(dir).map_err(OpenError::io("read", dir));
    let report = CompactReport { before_bytes: bytes(dir)?, after_bytes: bytes(&target)?, values };
    disk::write_whole(disk, &place.root, CURRENT, encode_current(new).as_bytes())
        .map_err(OpenError::io("write", &place.root.join(CURRENT)))?;
    Ok((new, report))
}

/// Refuses a tree in which anything is wrong.
fn checked(place: &Place, tree: &sled::Tree, store: &StoreId, dir: &Path) -> Result<(), OpenError> {
    let slots = Slots::read(place, store)?;
    let report = check::check(&check::Input {
        tree,
        store,
        payloads: &place.payloads(),
        blobs: &dir.join(BLOBS),
        slots: slots.as_ref(),
        owned: true,
    });
    let report = report.map_err(OpenError::io("read", dir))?;
    match report.damage.first() {
        None => Ok(()),
        Some(first) => {
            let run = first.run.as_ref().map_or_else(String::new, |run| format!("run {run}: "));
            let seq = first.seq.map_or_else(String::new, |seq| format!("event {seq}: "));
            Err(OpenError::damaged(&place.root, format!("{run}{seq}{}", first.what)))
        }
    }
}

/// Removes the directories that `CURRENT` does not name. Its own name is durable: opening synced the directory.
fn remove_leftovers(place: &Place, disk: &dyn Disk, current: u32) -> Result<(), OpenError> {
    let live = format!("{GENERATION}{current}");
    let mut removed = false;
    for name in names(&place.root).map_err(OpenError::io("read", &place.root))? {
        let path = place.root.join(&name);
        if name.starts_with(GENERATION) && name != live && path.is_dir() {
            std::fs::remove_dir_all(&path).map_err(OpenError::io("remove", &path))?;
            removed = true;
        }
    }
    if removed {
        disk::sync_dir(disk, &place.root).map_err(OpenError::io("sync", &place.root))?;
    }
    Ok(())
}

/// Copies every value into a new sled directory and returns how many there are.
fn copy(
    from: &sled::Tree,
    target: &Path,
    cache_bytes: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<u64, Trouble> {
    let total = protect(|| Ok(from.len() as u64))?;
    let db = tree::open(target, cache_bytes)?;
    let copied = protect(|| {
        let (mut batch, mut bytes, mut done) = (sled::Batch::default(), 0, 0);
        for pair in from {
            let (key, value) = pair?;
            if unseal(&key, &value).is_none() {
                return Err(Trouble::Damage("a value does not match its checksum".to_owned()));
            }
            bytes += key.len() + value.len();
            batch.insert(key, value);
            done += 1;
            if bytes >= BATCH_BYTES {
                db.apply_batch(std::mem::take(&mut batch))?;
                bytes = 0;
            }
            if done % STEP == 0 {
                progress(Progress { doing: "copying", done, total });
            }
        }
        db.apply_batch(batch)?;
        db.flush()?;
        progress(Progress { doing: "copying", done, total });
        Ok(done)
    });
    let closed = tree::close(db);
    let done = copied?;
    closed?;
    tree::wait_closed(target).map_err(Trouble::Io)?;
    if std::fs::read_dir(target.join(BLOBS)).map_err(Trouble::Io)?.next().is_some() {
        return Err(Trouble::Damage("sled moved a value into a file that it does not sync".to_owned()));
    }
    Ok(done)
}
