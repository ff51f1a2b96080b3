//! Putting another store in the place of what is in a directory, which is kept beside it and never deleted.
//!
//! The new store is filled in a directory inside the old one's, so that all of it lies on the same file system and the
//! lock is held all the time. Only when it is whole and closed do the two change places. The file `CURRENT` goes first
//! and comes last: whoever opens the store in between finds it damaged, and a restore can be started again. The old
//! store may lack what would tell so, as its being damaged is why it is replaced: the file `replacing`, there before
//! anything is moved and gone after the last, tells it. It names where the old store is kept, so that all of it comes to
//! lie in one place however often it takes.

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
    CURRENT, FORMAT, GENERATION, HEAD, KEPT, LOCK, MANIFEST, PAYLOADS, Place, REPLACING, RESTORING, names,
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
            // Of a restore that was cut off: all of it comes out of the backup once more.
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
    let kept = match unfinished(root, &old)? {
        None if old.is_empty() => None,
        None => Some(format!("{KEPT}{}", stamp(lock::now()))),
        begun => begun,
    };
    let say = |text: &str| disk::write_whole(disk, root, REPLACING, text.as_bytes());
    say(kept.as_deref().unwrap_or_default())?;
    let kept = kept.map(|name| root.join(name));
    if let Some(kept) = &kept {
        keep(root, disk, &old, kept)?;
        // What a restore that is cut off from here on leaves is not of the old store.
        say("")?;
    }
    // Only FORMAT and HEAD are left of the old one.
    let rest = |name: &str| ![CURRENT, LOCK].contains(&name);
    for name in names(work)?.into_iter().filter(|name| rest(name)) {
        fs::rename(work.join(&name), root.join(&name))?;
    }
    disk::sync_dir(disk, root)?;
    fs::rename(work.join(CURRENT), root.join(CURRENT))?;
    disk::sync_dir(disk, root)?;
    fs::remove_dir_all(work)?;
    fs::remove_file(root.join(REPLACING))?;
    disk::sync_dir(disk, root)?;
    Ok(kept)
}

/// Where a restore that was cut off had begun to keep what is left here of the old store.
fn unfinished(root: &Path, old: &[String]) -> io::Result<Option<String>> {
    let name = match fs::read_to_string(root.join(REPLACING)) {
        Ok(name) => name,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // With CURRENT still here the old store could be used since, and all of it is kept anew.
    let is_begun = !old.iter().any(|name| name == CURRENT);
    let kept = root.join(&name);
    let moves = |name: &&String| ![FORMAT, HEAD].contains(&name.as_str());
    let is_room = old.iter().filter(moves).all(|name| !kept.join(name).exists());
    let is_kept = name.starts_with(KEPT) && !name.contains('/') && kept.is_dir();
    Ok((is_begun && is_kept && is_room).then_some(name))
}

/// Moves the old store into a directory of its own, or what is left of it.
fn keep(root: &Path, disk: &dyn Disk, old: &[String], kept: &Path) -> io::Result<()> {
    disk::make_dir(kept)?;
    disk::sync_dir(disk, root)?;
    let has = |name: &str| old.iter().any(|found| found == name);
    // They stay until others take their names: the directory looks like one with a store for versions that do not know
    // `replacing`, too.
    for name in [FORMAT, HEAD].into_iter().filter(|name| has(name) && !kept.join(name).exists()) {
        fs::hard_link(root.join(name), kept.join(name))?;
    }
    if has(CURRENT) {
        fs::rename(root.join(CURRENT), kept.join(CURRENT))?;
        // It has its new name for sure before it has lost the old one.
        disk::sync_dir(disk, kept)?;
        disk::sync_dir(disk, root)?;
    }
    for name in old.iter().filter(|name| ![FORMAT, HEAD, CURRENT].contains(&name.as_str())) {
        fs::rename(root.join(name), kept.join(name))?;
    }
    disk::sync_dir(disk, kept)?;
    disk::sync_dir(disk, root)
}

/// A time as part of a name, to the second, and a number that tells two of them apart.
fn stamp(now: Timestamp) -> String {
    let text: String = now.to_string().chars().take_while(|c| *c != '.').collect();
    let plain: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{plain}-{:03}", now.as_millis() % 1_000)
}
