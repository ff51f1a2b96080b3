//! A copy of sled's directory in the system's directory for temporary files, to be looked at in its place: sled writes
//! when it opens, and moves pages even while it only reads, so a copy needs some room beside what is copied.
//!
//! What the system refuses there says nothing of the store. It is told as such ([`not_looked_at`]), never as damage.
//!
//! A copy is removed when it is dropped, and those of processes that were killed when the next one is made: each has a
//! file in it that is locked as long as it is used.

use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};

use crate::disk::{self, DIR_MODE, FILE_MODE};
use crate::error::{OpenError, TRYING};
use crate::place::names;
use crate::tree::Trouble;

/// Begins the name of each.
const PREFIX: &str = "dssflow-store-";
/// The file in it that is locked.
const LOCK: &str = "lock";
/// The directory in it that sled is opened in.
const DATA: &str = "data";
/// Without that file it is removed only after this time: it may be about to get one, or be an earlier version's.
const UNLOCKED_AGE: Duration = Duration::from_hours(24);
/// How much room there must be beside a copy: sled takes half a MiB at once, and may wait for ever for what it cannot write.
const SPARE_BYTES: usize = 2 * 1024 * 1024;
/// So often another name is tried, when what was just made is gone.
const NAMES: u32 = 10;

/// The system did not let a copy be made or read: nothing is known of the store.
pub(crate) fn not_looked_at(source: io::Error) -> OpenError {
    OpenError::Io { doing: TRYING, path: std::env::temp_dir(), source }
}

/// A copy of a sled directory, removed when dropped.
pub(crate) struct Copy {
    root: PathBuf,
    /// Locked.
    lock: File,
}

impl Copy {
    /// Copies the files of a sled directory. There is room for what sled writes besides.
    pub(crate) fn of(dir: &Path) -> Result<Self, OpenError> {
        let temp = std::env::temp_dir();
        sweep(&temp);
        let copy = Self::new(&temp).map_err(not_looked_at)?;
        for name in names(dir).map_err(OpenError::io("read", dir))? {
            let from = dir.join(&name);
            if from.is_file() {
                std::fs::copy(&from, copy.dir().join(&name)).map_err(|error| match read(&from) {
                    Ok(()) => not_looked_at(error),
                    // It is the store's own disk that refuses.
                    Err(source) => OpenError::Io { doing: "read", path: from, source },
                })?;
            }
        }
        copy.has_room()?;
        Ok(copy)
    }

    /// An empty one.
    fn new(temp: &Path) -> io::Result<Self> {
        for _ in 0..NAMES {
            let root = temp.join(format!("{PREFIX}{:016x}", rand::random::<u64>()));
            DirBuilder::new().mode(DIR_MODE).create(&root)?;
            // Whatever the umask was.
            disk::set_mode(&root, DIR_MODE)?;
            let path = root.join(LOCK);
            let made = || -> io::Result<File> {
                let lock = disk::open_options().read(true).write(true).create_new(true).open(&path)?;
                // Somebody who removes what is left over may have it for a moment. Where there are no locks nobody has
                // them, and nobody removes it either.
                drop(lock.lock());
                if disk::is_at(&lock, &path) {
                    disk::set_mode(&path, FILE_MODE)?;
                    disk::make_dir(&root.join(DATA))?;
                }
                Ok(lock)
            };
            match made() {
                Ok(lock) if root.join(DATA).is_dir() => return Ok(Self { root, lock }),
                // It was removed before it was locked.
                Ok(_) => {}
                Err(error) => {
                    drop(std::fs::remove_dir_all(&root));
                    return Err(error);
                }
            }
        }
        Err(io::Error::other("what is made there is removed at once"))
    }

    /// Where sled is to be opened.
    pub(crate) fn dir(&self) -> PathBuf {
        self.root.join(DATA)
    }

    /// What trouble with the copy says of the store: what is damaged, unless it is the copy.
    pub(crate) fn judge(&self, trouble: Trouble) -> Result<String, OpenError> {
        match trouble {
            Trouble::Io(source) => Err(not_looked_at(source)),
            Trouble::Damage(what) => {
                self.has_room()?;
                Ok(what)
            }
        }
    }

    /// As [`Copy::judge`], as an error of the store.
    pub(crate) fn blame(&self, store: &Path, trouble: Trouble) -> OpenError {
        match self.judge(trouble) {
            Ok(what) => OpenError::damaged(store, what),
            Err(error) => error,
        }
    }

    /// Whether there is room beside the copy. Without it sled may say other things than that.
    pub(crate) fn has_room(&self) -> Result<(), OpenError> {
        let path = self.root.join("room");
        let write = || -> io::Result<()> {
            let mut file = disk::open_options().write(true).create(true).truncate(true).open(&path)?;
            file.write_all(&vec![1_u8; SPARE_BYTES])?;
            std::fs::remove_file(&path)
        };
        write().map_err(not_looked_at)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Left over, the next one removes it.
        drop(std::fs::remove_dir_all(&self.root));
        // A child that is being started at this moment has a copy of the descriptor, see [`crate::lock::Lock`].
        drop(self.lock.unlock());
    }
}

/// Whether all of a file can be read.
fn read(path: &Path) -> io::Result<()> {
    io::copy(&mut File::open(path)?, &mut io::sink()).map(|_bytes| ())
}

/// Removes the copies of this user that nobody uses any more. What cannot be removed stays.
fn sweep(temp: &Path) {
    for name in names(temp).unwrap_or_default() {
        let random = name.strip_prefix(PREFIX);
        if random.is_some_and(|random| random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit())) {
            let root = temp.join(&name);
            // Held until it is gone, so that nobody begins to use it.
            if let Ok(Some(_held)) = unused(&root) {
                drop(std::fs::remove_dir_all(&root));
            }
        }
    }
}

/// The directory, and its lock when it has one, if nobody uses it. Links are not followed.
fn unused(root: &Path) -> io::Result<Option<(File, Option<File>)>> {
    let flags = (OFlags::NOFOLLOW | OFlags::DIRECTORY).bits().cast_signed();
    let dir = File::options().read(true).custom_flags(flags).open(root)?;
    let meta = dir.metadata()?;
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Ok(None);
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&dir, LOCK, flags, Mode::empty()) {
        Ok(lock) => {
            let lock = File::from(lock);
            Ok(lock.try_lock().is_ok().then_some((dir, Some(lock))))
        }
        Err(rustix::io::Errno::NOENT) => {
            let age = SystemTime::now().duration_since(meta.modified()?).unwrap_or_default();
            Ok((age > UNLOCKED_AGE).then_some((dir, None)))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;

    use super::*;

    fn source(dir: &Path) -> PathBuf {
        let source = dir.join("gen-1");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("db"), "data").unwrap();
        source
    }

    #[test]
    fn a_copy_has_the_files_and_goes_when_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let copy = Copy::of(&source(dir.path())).unwrap();
        assert_eq!(std::fs::read_to_string(copy.dir().join("db")).unwrap(), "data");
        assert_eq!(names(&copy.dir()).unwrap(), ["db"]);
        let root = copy.root.clone();
        assert_eq!(std::fs::metadata(&root).unwrap().mode() & 0o7777, 0o700);
        drop(copy);
        assert!(!root.exists());
    }

    #[test]
    fn what_killed_processes_left_is_removed_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let used = Copy::new(temp.path()).unwrap();
        let left = temp.path().join(format!("{PREFIX}0123456789abcdef"));
        std::fs::create_dir_all(left.join(DATA)).unwrap();
        std::fs::write(left.join(LOCK), "").unwrap();
        std::fs::write(left.join(DATA).join("db"), "data").unwrap();
        let (begun, old) = (
            temp.path().join(format!("{PREFIX}{:016x}", 1)),
            temp.path().join(format!("{PREFIX}{:016x}", 2)),
        );
        let long_ago = SystemTime::now() - UNLOCKED_AGE - Duration::from_mins(1);
        for dir in [&begun, &old] {
            std::fs::create_dir(dir).unwrap();
        }
        File::open(&old).unwrap().set_times(FileTimes::new().set_modified(long_ago)).unwrap();
        let other = temp.path().join(format!("{PREFIX}of-somebody"));
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join(LOCK), "").unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join(LOCK), "").unwrap();
        let link = temp.path().join(format!("{PREFIX}{:016x}", 3));
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();

        sweep(temp.path());
        assert!(!left.exists() && !old.exists(), "nobody uses them");
        assert!(used.dir().is_dir() && begun.is_dir(), "they are used, or about to be");
        assert!(other.is_dir() && link.is_symlink() && elsewhere.path().join(LOCK).exists(), "not ours");

        let root = used.root.clone();
        used.lock.unlock().unwrap();
        sweep(temp.path());
        assert!(!root.exists(), "its lock is free");
    }

    #[test]
    fn what_keeps_a_copy_from_being_read_is_no_damage() {
        let temp = tempfile::tempdir().unwrap();
        let copy = Copy::new(temp.path()).unwrap();
        let damage = || Trouble::Damage("a page makes no sense".to_owned());
        assert_eq!(copy.judge(damage()).unwrap(), "a page makes no sense");
        assert!(matches!(copy.blame(Path::new("/store"), damage()), OpenError::Damaged { .. }));

        let full = || Trouble::Io(io::Error::from_raw_os_error(28));
        for error in [copy.judge(full()).unwrap_err(), copy.blame(Path::new("/store"), full())] {
            assert!(matches!(&error, OpenError::Io { source, .. } if source.raw_os_error() == Some(28)));
            let hint = error.hint();
            assert!(hint.contains("TMPDIR") && hint.contains("make room"), "{hint}");
        }
        // It can no longer be written, whatever sled makes of that.
        std::fs::remove_dir_all(&copy.root).unwrap();
        assert!(matches!(copy.judge(damage()), Err(OpenError::Io { .. })));
    }
}
