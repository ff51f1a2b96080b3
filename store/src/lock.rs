//! The lock that makes a process the owner of a store, and the note in it that tells others who that is.
//!
//! The lock is the kernel's, on the open file: it ends with the process however that ends, and nothing here ever
//! breaks one. The directory is locked as well, which nobody can take away under its owner as they can the file. The note
//! is for people; it may be left over, and counts only while the lock is held.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dssflow_engine::time::Timestamp;

use crate::disk;
use crate::error::{Holder, OpenError};
use crate::place::Place;

/// Longest command kept in the note, in bytes.
const MAX_COMMAND: usize = 500;
/// How often the note is read again while its owner is still writing it, or has not yet and it is a dead one's.
const NOTE_READS: u32 = 20;

/// How often the file is opened anew when another has its name by the time it is locked.
const ATTEMPTS: u32 = 10;

/// The lock, held until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    dir: File,
}

impl Lock {
    pub(crate) fn acquire(place: &Place, command: &str) -> Result<Self, OpenError> {
        let path = place.lock();
        let file = Self::lock_file(place)?;
        // Who has this one while the file was to be had owns the store, and somebody took the file away.
        let dir = File::open(&place.root).map_err(OpenError::io("open", &place.root))?;
        if matches!(dir.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(OpenError::Locked { path: place.root.clone(), holder: None });
        }
        let lock = Self { file, dir };
        disk::set_mode(&path, disk::FILE_MODE).map_err(OpenError::io("set the mode of", &path))?;
        lock.write_note(command).map_err(OpenError::io("write", &path))?;
        Ok(lock)
    }

    /// The lock of the file that has the name when it is held.
    fn lock_file(place: &Place) -> Result<File, OpenError> {
        let path = place.lock();
        for _ in 0..ATTEMPTS {
            let file = disk::open_options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(OpenError::io("open", &path))?;
            match file.try_lock() {
                Ok(()) if disk::is_at(&file, &path) => return Ok(file),
                // It was taken away since it was opened.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(OpenError::Locked { path: place.root.clone(), holder: read_note(&path) });
                }
                Err(TryLockError::Error(source)) => {
                    return Err(OpenError::Io { doing: "lock", path, source });
                }
            }
        }
        let source = io::Error::other("something takes it away all the time");
        Err(OpenError::Io { doing: "lock", path, source })
    }

    fn write_note(&self, command: &str) -> io::Result<()> {
        let mut command = command.to_owned();
        command.truncate(command.floor_char_boundary(MAX_COMMAND));
        let holder = Holder {
            pid: std::process::id(),
            host: host(),
            start_time: start_time("self").unwrap_or(0),
            since: now(),
            command,
        };
        let mut note = serde_json::to_vec(&holder)?;
        note.push(b'\n');
        self.file.write_all_at(&note, 0)?;
        self.file.set_len(note.len() as u64)
    }

    /// Wipes the note, as the store is left in good order.
    pub(crate) fn wipe(&self) -> io::Result<()> {
        self.file.set_len(0)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A child that is being started at this moment has a copy of the descriptor, and with it the lock would live on
        // until the child's program is loaded.
        drop(self.dir.unlock());
        drop(self.file.unlock());
    }
}

pub(crate) fn read_note(path: &Path) -> Option<Holder> {
    let mut last = None;
    for _ in 0..NOTE_READS {
        let text = std::fs::read(path).ok()?;
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if let Ok(holder) = serde_json::from_slice::<Holder>(line) {
            if start_time(&holder.pid.to_string()).unwrap_or(0) == holder.start_time {
                return Some(holder);
            }
            // It may also be one that cannot be seen from here.
            last = Some(holder);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    last
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Field 22 of /proc/PID/stat; the name in field 2 may hold blanks and brackets.
fn start_time(pid: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_the_file_away_does_not_take_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { root: dir.path().to_owned() };
        let lock = Lock::acquire(&place, "the owner").unwrap();
        std::fs::remove_file(place.lock()).unwrap();
        for _ in 0..2 {
            let second = Lock::acquire(&place, "another");
            assert!(matches!(second, Err(OpenError::Locked { .. })), "{second:?}");
        }
        drop(lock);
        drop(Lock::acquire(&place, "another").unwrap());
    }

    #[test]
    fn the_lock_is_that_of_the_file_that_has_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { root: dir.path().to_owned() };
        let gone = File::create(place.lock()).unwrap();
        assert!(disk::is_at(&gone, &place.lock()));
        std::fs::remove_file(place.lock()).unwrap();
        assert!(!disk::is_at(&gone, &place.lock()), "nothing has the name");
        let lock = Lock::acquire(&place, "the owner").unwrap();
        assert!(disk::is_at(&lock.file, &place.lock()) && !disk::is_at(&gone, &place.lock()));
    }

    #[test]
    fn a_dead_owners_note_gives_way_to_that_of_the_one_who_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { root: dir.path().to_owned() };
        let dead = r#"{"pid":4194303,"host":"here","start_time":7,"since":5,"command":"the dead one"}"#;
        std::fs::write(place.lock(), format!("{dead}\n")).unwrap();
        // As it is between taking the lock and writing the note, for good.
        assert_eq!(read_note(&place.lock()).unwrap().command, "the dead one", "better than nobody");
        let lock = Lock::acquire(&place, "the living one").unwrap();
        let holder = read_note(&place.lock()).unwrap();
        assert_eq!((holder.pid, holder.command.as_str()), (std::process::id(), "the living one"));

        std::fs::write(place.lock(), format!("{dead}\n")).unwrap();
        let reader = std::thread::spawn({
            let path = place.lock();
            move || read_note(&path)
        });
        lock.write_note("the living one").unwrap();
        assert_eq!(reader.join().unwrap().unwrap().command, "the living one");
    }
}
