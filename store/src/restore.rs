//! Putting another store in the place of what is in a directory, which is kept beside it and never deleted.
//!
//! The new store is filled in a directory inside the old one's, so that all of it lies on the same file system and the
//! lock is held all the time. Only when it is whole and closed do the two change places. The file `CURRENT` goes first
//! and comes last: whoever opens the store in between finds it damaged, and a restore can be started again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dssflow_engine::id::StoreId;
use dssflow_engine::time::Timestamp;

use crate::disk::{self, Disk};
use crate::error::OpenError;
use crate::lock::{self, Lock};
use crate::place::{
    CURRENT, FORMAT, GENERATION, HEAD, KEPT, LOCK, MANIFEST, PAYLOADS, Place, RESTORING, names,
};
use crate::store::{OpenOptions, SledStore};

/// A restore that has begun. Dropped before [`Restore::finish`], it leaves what was there in its place.
pub struct Restore {
    place: Place,
    work: PathBuf,
    disk: Arc<dyn Disk>,
    lock: Lock,
}

impl std::fmt::Debug for Restore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restore").field("path", &self.place.root).finish_non_exhaustive()
    }
}

impl Restore {
    /// Takes the lock of a directory, which is made when it is missing, and makes an empty store of this id inside it,
    /// to be filled, closed and put in place with [`Restore::finish`]. What is in the directory stays as it is.
    ///
    /// # Errors
    /// [`OpenError::Locked`] when somebody owns the store there; when the directory is not safe or holds other things.
    pub fn begin(
        path: impl AsRef<Path>,
        store: StoreId,
        options: OpenOptions,
    ) -> Result<(Self, SledStore), OpenError> {
        let path = path.as_ref();
        let disk = Arc::clone(&options.disk);
        let place = Place::create(path, &*disk)?;
        place.is_used()?;
        let lock = Lock::acquire(&place, &options.command)?;
        let work = place.root.join(RESTORING);
        if work.is_dir() {
            // Of a restore that was cut off before it changed anything, or after it moved all that counts.
            fs::remove_dir_all(&work).map_err(OpenError::io("remove", &work))?;
        }
        let filled = SledStore::create_with_id(&work, store, options)?;
        Ok((Self { place, work, disk, lock }, filled))
    }

    /// Removes what was begun, as well as it can, so that it takes no room. What was there stays in its place.
    pub fn give_up(self) {
        drop(fs::remove_dir_all(&self.work));
    }

    /// Puts the new store, which must be closed, in place. Returns where the old one is kept, if there was one.
    ///
    /// # Errors
    /// When a file cannot be moved. The store is then damaged until a restore has succeeded, and both the old and the
    /// new one are still there.
    pub fn finish(self) -> Result<Option<PathBuf>, OpenError> {
        let Self { place, work, disk, lock } = self;
        let kept = swap(&place, &work, &*disk).map_err(OpenError::io("change", &place.root))?;
        drop(lock.wipe());
        Ok(kept)
    }
}

fn swap(place: &Place, work: &Path, disk: &dyn Disk) -> io::Result<Option<PathBuf>> {
    let root = &place.root;
    let is_live = |name: &String| {
        name.starts_with(GENERATION) || [FORMAT, HEAD, MANIFEST, PAYLOADS, CURRENT].contains(&name.as_str())
    };
    let old: Vec<String> = names(root)?.into_iter().filter(is_live).collect();
    let kept = if old.is_empty() { None } else { Some(keep(place, disk, &old)?) };
    // Only FORMAT and HEAD are left of the old one, which say that there is a store.
    let rest = |name: &str| ![CURRENT, LOCK].contains(&name);
    for name in names(work)?.into_iter().filter(|name| rest(name)) {
        fs::rename(work.join(&name), root.join(&name))?;
    }
    disk::sync_dir(disk, root)?;
    fs::rename(work.join(CURRENT), root.join(CURRENT))?;
    disk::sync_dir(disk, root)?;
    fs::remove_dir_all(work)?;
    disk::sync_dir(disk, root)?;
    Ok(kept)
}

/// Moves the old store into a directory of its own.
fn keep(place: &Place, disk: &dyn Disk, old: &[String]) -> io::Result<PathBuf> {
    let root = &place.root;
    let kept = root.join(format!("{KEPT}{}", stamp(lock::now())));
    fs::create_dir(&kept)?;
    disk::set_mode(&kept, disk::DIR_MODE)?;
    disk::sync_dir(disk, root)?;
    let has = |name: &str| old.iter().any(|found| found == name);
    // They stay until others take their names, so that the directory never looks like one without a store.
    for name in [FORMAT, HEAD].into_iter().filter(|name| has(name)) {
        fs::hard_link(root.join(name), kept.join(name))?;
    }
    if has(CURRENT) {
        fs::rename(root.join(CURRENT), kept.join(CURRENT))?;
        disk::sync_dir(disk, root)?;
    }
    for name in old.iter().filter(|name| ![FORMAT, HEAD, CURRENT].contains(&name.as_str())) {
        fs::rename(root.join(name), kept.join(name))?;
    }
    disk::sync_dir(disk, &kept)?;
    disk::sync_dir(disk, root)?;
    Ok(kept)
}

/// A time as part of a name, to the second, and a number that tells two of them apart.
fn stamp(now: Timestamp) -> String {
    let text: String = now.to_string().chars().take_while(|c| *c != '.').collect();
    let plain: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{plain}-{:03}", now.as_millis() % 1_000)
}
