//! Bringing a store of an earlier format to this one. Before anything of it is written in a way that the version which
//! made it could not read, the store is copied as it is, to where that version can open it again.
//!
//! From 1 to 2 nothing is rewritten: heads of format 1 are read for ever and replaced when their run gets on. What
//! changes at once is `FORMAT`, so that no earlier version opens a store in which it could not read some heads.
//!
//! From 2 to 3 nothing is rewritten either: a store of format 2 is one without schedules. Groups that are written from then
//! on count them.

use std::io;
use std::path::Path;

use crate::disk::{self, Disk, FILE_MODE, Synced};
use crate::error::OpenError;
use crate::format::{FORMAT_NUMBER, Format};
use crate::place::{CURRENT, FORMAT, HEAD, KEPT, MANIFEST, PAYLOADS, Place, names};

/// Copies a store of an earlier format within its own directory. The caller has the lock, and nothing is open. `group` is
/// its last one, so that a copy of an earlier time is not taken for this one.
pub(crate) fn back_up(
    place: &Place,
    disk: &dyn Disk,
    format: &Format,
    generation: &str,
    group: u64,
) -> Result<(), OpenError> {
    let kept = place.root.join(format!("{KEPT}before-format-{FORMAT_NUMBER}-at-{group}"));
    if kept.exists() {
        // It has its name since it was whole, and nothing was written since.
        return Ok(());
    }
    let unfinished = place.root.join(format!("{KEPT}unfinished{}", disk::TEMPORARY));
    let copy = || -> io::Result<()> {
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished)?;
        }
        disk::make_dir(&unfinished)?;
        for name in [FORMAT, CURRENT, HEAD, MANIFEST] {
            let from = place.root.join(name);
            if from.exists() {
                copy_file(disk, &from, &unfinished.join(name))?;
            }
        }
        copy_dir(&place.root.join(generation), &unfinished.join(generation), disk, copy_file)?;
        // Their content never changes, and a name of theirs is worth as much as a copy.
        let link = |_: &dyn Disk, from: &Path, to: &Path| std::fs::hard_link(from, to);
        copy_dir(&place.payloads(), &unfinished.join(PAYLOADS), disk, link)?;
        disk::sync_dir(disk, &unfinished)?;
        std::fs::rename(&unfinished, &kept)?;
        disk::sync_dir(disk, &place.root)
    };
    copy().map_err(OpenError::io("copy before its format is changed", &place.root))?;
    tracing::warn!(
        path = %place.root.display(),
        from = format.number,
        to = FORMAT_NUMBER,
        kept = %kept.display(),
        "the store gets a later format, which earlier versions cannot open; a copy of it as it was is kept"
    );
    Ok(())
}

/// Says that the store is of this version's format. Nothing may be written before.
pub(crate) fn mark(place: &Place, disk: &dyn Disk, format: &Format) -> Result<(), OpenError> {
    let text = Format::new(format.store.clone()).encode();
    disk::write_whole(disk, &place.root, FORMAT, text.as_bytes())
        .map_err(OpenError::io("write", &place.root.join(FORMAT)))
}

type CopyFile = fn(&dyn Disk, &Path, &Path) -> io::Result<()>;

fn copy_file(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<()> {
    std::fs::copy(from, to)?;
    disk::set_mode(to, FILE_MODE)?;
    disk.sync(&std::fs::File::open(to)?, Synced::Payload)
}

fn copy_dir(from: &Path, to: &Path, disk: &dyn Disk, copy: CopyFile) -> io::Result<()> {
    disk::make_dir(to)?;
    for name in names(from)? {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy_dir(&from, &to, disk, copy)?;
        } else {
            copy(disk, &from, &to)?;
        }
    }
    disk::sync_dir(disk, to)
}
