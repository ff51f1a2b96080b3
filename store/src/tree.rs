//! sled, kept at arm's length: opened with the settings that are safe, its panics caught, its errors translated.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use dssflow_engine::store::StoreError;

use crate::disk::{self, DIR_MODE, Disk, FILE_MODE, Synced};
use crate::place::names;

/// sled's file with the data; it is ours to sync.
pub(crate) const DB: &str = "db";
/// Where sled puts values that are too large; it must stay empty.
pub(crate) const BLOBS: &str = "blobs";
/// Ends the name of a snapshot that sled has not finished.
const UNFINISHED: &str = ".generating";
/// In what sled says when another process, or another thread of this one, has its directory open.
const NO_LOCK: &str = "could not acquire lock";

/// sled frees its own lock a moment after it is dropped, from another thread.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A directory that must stay empty, looked at after every group. Its entries are read only when its time of change says
/// that there may be new ones: reading them costs more than all else that a small group computes.
#[derive(Debug)]
pub(crate) struct EmptyDir {
    path: PathBuf,
    /// When it was changed last, as of the last time that its entries were read.
    seen: Option<SystemTime>,
}

impl EmptyDir {
    /// File systems tell times in steps of some milliseconds: a change in the same step as the one before does not show.
    const STEP: Duration = Duration::from_secs(2);

    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_empty(&mut self) -> io::Result<bool> {
        let changed = std::fs::metadata(&self.path)?.modified()?;
        if self.seen == Some(changed) {
            return Ok(true);
        }
        if std::fs::read_dir(&self.path)?.next().is_some() {
            return Ok(false);
        }
        let is_past = SystemTime::now().duration_since(changed).is_ok_and(|age| age > Self::STEP);
        self.seen = is_past.then_some(changed);
        Ok(true)
    }
}

/// Why sled did not do as asked.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Its data are damaged, or it panicked.
    Damage(String),
    Io(io::Error),
}

impl Trouble {
    /// What an error that sled hands on means. Where its files make no sense it reads past their end or at places that
    /// no file has, which the system refuses, or it makes up an error of its own; all else is the system's doing.
    fn of_system(error: io::Error) -> Self {
        let is_damage = match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::FileTooLarge => true,
            io::ErrorKind::Other => !error.to_string().contains(NO_LOCK),
            _ => false,
        };
        if is_damage { Self::Damage(format!("sled: {error}")) } else { Self::Io(error) }
    }

    /// What a panic means: sled panics on some kinds of damage, and on some errors of the system.
    fn of_panic(panic: &(dyn std::any::Any + Send)) -> Self {
        let text = panic_text(panic);
        match os_code(&text).map(|code| Self::of_system(io::Error::from_raw_os_error(code))) {
            Some(Self::Io(error)) => Self::Io(error),
            Some(Self::Damage(_)) | None => Self::Damage(text),
        }
    }

    /// Says where the damage is. An error of the system is what it is wherever it comes up.
    pub(crate) fn at(self, place: impl std::fmt::Display) -> Self {
        match self {
            Self::Damage(what) => Self::Damage(format!("{place}: {what}")),
            Self::Io(error) => Self::Io(error),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damage(what) => f.write_str(what),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl From<sled::Error> for Trouble {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::of_system(plain(error)),
            sled::Error::Corruption { at: Some(at), .. } => {
                Self::Damage(format!("sled cannot read its log at {at:?}"))
            }
            sled::Error::Corruption { at: None, .. } => Self::Damage("sled cannot read its files".to_owned()),
            other => Self::Damage(format!("sled: {other}")),
        }
    }
}

/// sled hands on an error of the system as the text of its debug form; the number in it makes it the error that it was.
fn plain(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(_) => error,
        None => os_code(&error.to_string()).map_or(error, io::Error::from_raw_os_error),
    }
}

/// The number of the first error of the system whose debug form is in a text.
fn os_code(text: &str) -> Option<i32> {
    let (_, rest) = text.split_once("Os { code: ")?;
    rest.split(',').next()?.parse().ok()
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Damage(what) => Self::Corrupt(what),
            Trouble::Io(error) => Self::Unavailable(format!("reading failed: {error}")),
        }
    }
}

/// Runs what calls sled; a panic becomes an error.
pub(crate) fn protect<T>(work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Trouble::of_panic(&*panic)))
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a message"))
}

/// Opens or creates the sled directory, which must exist.
pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<sled::Db, Trouble> {
    // sled would take a snapshot that it had not finished for the latest one.
    for name in names(dir).map_err(Trouble::Io)? {
        if name.ends_with(UNFINISHED) {
            std::fs::remove_file(dir.join(name)).map_err(Trouble::Io)?;
        }
    }
    let started = Instant::now();
    loop {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes)
            // A background flush would sync outside our committer.
            .flush_every_ms(None)
            .use_compression(false);
        match protect(|| Ok(config.open()?)) {
            Err(Trouble::Io(error))
                if error.to_string().contains(NO_LOCK) && started.elapsed() < LOCK_PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            answer => return answer,
        }
    }
}

/// Drops the last handle; sled writes and syncs once more as it goes, and panics when that fails.
pub(crate) fn close<T>(handle: T) -> Result<(), Trouble> {
    protect(|| {
        drop(handle);
        Ok(())
    })
}

/// Waits until no thread of sled uses the directory any more.
pub(crate) fn wait_closed(dir: &Path) -> io::Result<()> {
    let file = File::open(dir.join(DB))?;
    let started = Instant::now();
    while file.try_lock().is_err() {
        if started.elapsed() > LOCK_PATIENCE {
            return Err(io::Error::other("sled is still in use"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    file.unlock()
}

/// Makes what sled wrote at open durable and private: it fsyncs neither its settings nor the directory, and makes
/// files as the umask has them.
pub(crate) fn settle(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for name in names(dir)? {
        let path = dir.join(&name);
        if std::fs::symlink_metadata(&path)?.is_dir() {
            disk::set_mode(&path, DIR_MODE)?;
            disk::sync_dir(disk, &path)?;
        } else {
            disk::set_mode(&path, FILE_MODE)?;
            let what = if name == DB { Synced::Tree } else { Synced::Payload };
            disk.sync(&File::open(&path)?, what)?;
        }
    }
    disk::sync_dir(disk, dir)
}

/// Forgets what the system has cached of the log. After a failed sync the cache may hold what the disk does not,
/// and would pass for durable.
pub(crate) fn drop_cache(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let file = match File::open(dir.join(DB)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    disk.sync(&file, Synced::Tree)?;
    #[cfg(target_os = "linux")]
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

/// Scans keys from `from` on, as long as they begin with `prefix`.
pub(crate) fn scan(
    tree: &sled::Tree,
    prefix: &[u8],
    from: &[u8],
) -> impl DoubleEndedIterator<Item = Result<(sled::IVec, sled::IVec), Trouble>> + use<> {
    let end = after_prefix(prefix);
    tree.range(from.to_vec()..end).map(|pair| pair.map_err(Trouble::from))
}

/// The first key after all that begin with `prefix`. Our prefixes never end in 0xff.
pub(crate) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};

    use super::*;

    #[test]
    fn an_error_of_the_system_that_sled_wrapped_is_that_error_again() {
        let wrapped = "Os { code: 28, kind: StorageFull, message: \"No space left on device\" }";
        let told = plain(io::Error::new(io::ErrorKind::StorageFull, wrapped));
        assert_eq!(
            (told.raw_os_error(), told.to_string().as_str()),
            (Some(28), "No space left on device (os error 28)")
        );
        assert_eq!(plain(io::Error::other("something else")).to_string(), "something else");
        // Handed on twice.
        let text = format!("{:?}", io::Error::new(io::ErrorKind::StorageFull, wrapped));
        assert_eq!(plain(io::Error::new(io::ErrorKind::StorageFull, text)).raw_os_error(), Some(28));
    }

    #[test]
    fn what_the_system_refuses_is_no_damage_and_what_makes_no_sense_is() {
        let told = |error: io::Error| Trouble::from(sled::Error::Io(error));
        let (no_such_file, disk_fault, too_many_files, disk_full, read_only) = (2, 5, 24, 28, 30);
        for code in [no_such_file, disk_fault, too_many_files, disk_full, read_only] {
            let trouble = told(io::Error::from_raw_os_error(code));
            assert!(
                matches!(&trouble, Trouble::Io(error) if error.raw_os_error() == Some(code)),
                "{trouble:?}"
            );
            let panicked = protect(|| -> Result<(), Trouble> {
                panic!("failed to write: {:?}", io::Error::from_raw_os_error(code))
            });
            assert!(
                matches!(&panicked, Err(Trouble::Io(error)) if error.raw_os_error() == Some(code)),
                "{panicked:?}"
            );
        }
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::WriteZero] {
            assert!(matches!(told(io::Error::from(kind)), Trouble::Io(_)), "{kind:?}");
        }
        let locked = io::Error::other("could not acquire lock on \"db\": WouldBlock");
        assert!(matches!(told(locked), Trouble::Io(_)));

        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::InvalidData, io::ErrorKind::InvalidInput] {
            assert!(matches!(told(io::Error::from(kind)), Trouble::Damage(_)), "{kind:?}");
        }
        let (invalid, too_large) = (22, 27);
        for code in [invalid, too_large] {
            assert!(matches!(told(io::Error::from_raw_os_error(code)), Trouble::Damage(_)), "{code}");
        }
        assert!(matches!(told(io::Error::other("encountered torn segment")), Trouble::Damage(_)));
        let panicked = protect(|| -> Result<(), Trouble> { panic!("a page makes no sense") });
        assert!(matches!(panicked, Err(Trouble::Damage(_))), "{panicked:?}");
        for error in [
            sled::Error::Corruption { at: None, bt: () },
            sled::Error::ReportableBug("a bug".to_owned()),
            sled::Error::Unsupported("nothing of the kind".to_owned()),
        ] {
            assert!(matches!(Trouble::from(error), Trouble::Damage(_)));
        }
    }

    #[test]
    fn damage_gets_its_place_and_an_error_of_the_system_stays_one() {
        let damage = Trouble::Damage("it is gone".to_owned()).at("run a").at("here");
        assert_eq!(damage.to_string(), "here: run a: it is gone");
        let full = Trouble::Io(io::Error::from_raw_os_error(28)).at("run a");
        assert!(matches!(full, Trouble::Io(error) if error.raw_os_error() == Some(28)));
    }

    #[test]
    fn a_file_in_a_directory_that_must_be_empty_is_seen_whenever_it_comes() {
        let dir = tempfile::tempdir().unwrap();
        let mut watched = EmptyDir::new(dir.path().to_owned());
        for _ in 0..3 {
            assert!(watched.is_empty().unwrap());
        }
        assert_eq!(watched.seen, None, "it was changed a moment ago: its entries are read each time");
        let file = dir.path().join("1");
        std::fs::write(&file, "").unwrap();
        assert!(!watched.is_empty().unwrap());
        std::fs::remove_file(&file).unwrap();

        let old = SystemTime::now() - Duration::from_mins(1);
        File::open(dir.path()).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
        for _ in 0..2 {
            assert!(watched.is_empty().unwrap());
            assert!(watched.seen.is_some());
        }
        std::fs::write(&file, "").unwrap();
        assert!(!watched.is_empty().unwrap());
    }
}
