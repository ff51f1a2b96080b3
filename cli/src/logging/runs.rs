//! What was said about each run, in a file of its own beside the store: `logs/RUN.jsonl`, one line of JSON each. Whoever
//! drives the run writes it; who looks reads the file, whoever drives.
//!
//! A file that has grown to its limit becomes `RUN.1.jsonl`, in the place of the one before, so that a run has at most twice
//! the limit. It is a help to people and no part of the history: a line may be lost when the process is killed, and
//! nothing is decided by it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use dssflow_engine::id::RunId;

use super::Record;

/// The directory of the files in that of the store.
const DIR: &str = "logs";
/// How large a file may become, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// How many files are kept open.
const MAX_OPEN: usize = 64;
/// The longest line that is read back.
const MAX_LINE: usize = 1024 * 1024;

/// The files that this process writes, once it owns a store.
static WRITER: OnceLock<Mutex<Writer>> = OnceLock::new();

/// Has what is said about runs written beside this store from now on. The caller owns the store.
pub(crate) fn keep(store: &Path) {
    // A process owns one store in its life.
    let _first = WRITER.set(Mutex::new(Writer::new(store.join(DIR), MAX_FILE)));
}

/// Writes a line to the file of the run that it is about, if it is about one and this process keeps files.
pub(super) fn write(record: &Record) {
    let (Some(writer), Some(run)) = (WRITER.get(), &record.ids.run) else { return };
    writer.lock().unwrap_or_else(PoisonError::into_inner).write(run, &record.json());
}

/// Removes the files of runs that are gone.
pub(crate) fn remove<'a>(store: &Path, runs: impl IntoIterator<Item = &'a RunId>) {
    for run in runs {
        if let Some(writer) = WRITER.get() {
            writer.lock().unwrap_or_else(PoisonError::into_inner).forget(run.as_str());
        }
        for path in paths(&store.join(DIR), run.as_str()) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "the log of a run that is gone stays");
                }
                _ => {}
            }
        }
    }
}

/// The older file of a run, and the one that is written.
fn paths(dir: &Path, run: &str) -> [PathBuf; 2] {
    let mut name = String::new();
    for byte in run.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            name.push(char::from(byte));
        } else {
            put!(name, "%{byte:02X}");
        }
    }
    [dir.join(format!("{name}.1.jsonl")), dir.join(format!("{name}.jsonl"))]
}

struct Writer {
    dir: PathBuf,
    limit: u64,
    open: BTreeMap<String, Open>,
    clock: u64,
    /// Whether a failure was told; each further one would say the same.
    failed: bool,
}

struct Open {
    file: File,
    size: u64,
    used: u64,
}

impl Writer {
    fn new(dir: PathBuf, limit: u64) -> Self {
        Self { dir, limit, open: BTreeMap::new(), clock: 0, failed: false }
    }

    fn write(&mut self, run: &str, line: &str) {
        if let Err(error) = self.try_write(run, line)
            && !std::mem::replace(&mut self.failed, true)
        {
            // Not through the log, which is what fails.
            drop(writeln!(
                io::stderr().lock(),
                "the logs of runs cannot be written to {}: {error}",
                self.dir.display()
            ));
        }
    }

    fn try_write(&mut self, run: &str, line: &str) -> io::Result<()> {
        self.clock += 1;
        let size = line.len() as u64 + 1;
        if self.open.get(run).is_some_and(|open| open.size + size > self.limit && open.size > 0) {
            self.open.remove(run);
            let [old, new] = paths(&self.dir, run);
            fs::rename(new, old)?;
        }
        if !self.open.contains_key(run) {
            self.make_room();
            let open = self.open(run)?;
            self.open.insert(run.to_owned(), open);
        }
        let open = self.open.get_mut(run).expect("it is there now");
        // One write a line, so that a reader sees whole ones.
        open.file.write_all(format!("{line}\n").as_bytes())?;
        (open.size, open.used) = (open.size + size, self.clock);
        Ok(())
    }

    fn open(&self, run: &str) -> io::Result<Open> {
        let [_, path] = paths(&self.dir, run);
        let open = || OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
                open()?
            }
            other => other?,
        };
        let size = file.metadata()?.size();
        Ok(Open { file, size, used: self.clock })
    }

    /// Closes what was not written to for the longest time.
    fn make_room(&mut self) {
        while self.open.len() >= MAX_OPEN {
            let Some(oldest) = self.open.iter().min_by_key(|(_, open)| open.used).map(|(run, _)| run.clone())
            else {
                return;
            };
            self.open.remove(&oldest);
        }
    }

    fn forget(&mut self, run: &str) {
        self.open.remove(run);
    }
}

/// Reads the log of a run on as it grows.
pub(crate) struct Reader {
    dir: PathBuf,
    run: String,
    /// The file that is read, by its inode, and how far.
    at: Option<(u64, u64)>,
}

impl Reader {
    /// The log of a run of the store in `store`.
    pub(crate) fn new(store: &Path, run: &RunId) -> Self {
        Self { dir: store.join(DIR), run: run.to_string(), at: None }
    }

    /// What was written since the last call. A line that is not whole yet comes with a later one; what is no line of
    /// ours is passed over.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub(crate) fn next(&mut self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut files = Vec::new();
        for path in paths(&self.dir, &self.run) {
            match File::open(&path) {
                Ok(file) => files.push((file.metadata()?.ino(), file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // The file that was read may be the older one by now; one that is gone was read as far as it will ever be.
        let first =
            self.at.and_then(|(inode, _)| files.iter().position(|(ino, _)| *ino == inode)).unwrap_or(0);
        for (inode, file) in files.into_iter().skip(first) {
            let from = self.at.filter(|(ino, _)| *ino == inode).map_or(0, |(_, from)| from);
            let read = read_from(file, from, &mut records)?;
            self.at = Some((inode, read));
        }
        Ok(records)
    }
}

/// Reads whole lines from a place on; where the next one begins.
fn read_from(mut file: File, from: u64, records: &mut Vec<Record>) -> io::Result<u64> {
    file.seek(SeekFrom::Start(from))?;
    let mut lines = BufReader::new(file);
    let mut at = from;
    loop {
        let mut line = Vec::new();
        let n = lines.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line)?;
        if n == 0 || line.last() != Some(&b'\n') && n < MAX_LINE {
            return Ok(at);
        }
        at += n as u64;
        if let Ok(record) = serde_json::from_slice(&line) {
            records.push(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn line(n: usize) -> String {
        format!(r#"{{"at":"t","level":"info","target":"x","run":"a/b","message":"{n:02}"}}"#)
    }

    fn numbers(records: &[Record]) -> Vec<usize> {
        records.iter().map(|record| record.message.parse().unwrap()).collect()
    }

    #[test]
    fn a_reader_sees_every_line_once_while_files_turn_over() {
        let dir = tempfile::tempdir().unwrap();
        let limit = 10 * (line(0).len() as u64 + 1);
        let mut writer = Writer::new(dir.path().join(DIR), limit);
        let mut reader = Reader::new(dir.path(), &RunId::new("a/b").unwrap());
        assert!(reader.next().unwrap().is_empty());
        let mut seen = Vec::new();
        for n in 0..100 {
            writer.write("a/b", &line(n));
            if n % 7 == 0 {
                seen.extend(numbers(&reader.next().unwrap()));
            }
        }
        seen.extend(numbers(&reader.next().unwrap()));
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        // Whoever comes late sees what is kept: the last two files.
        let late = Reader::new(dir.path(), &RunId::new("a/b").unwrap()).next().unwrap();
        assert_eq!(numbers(&late), (80..100).collect::<Vec<_>>());
        let files: Vec<_> = fs::read_dir(dir.path().join(DIR)).unwrap().map(|e| e.unwrap()).collect();
        assert_eq!(files.len(), 2);
        for file in files {
            assert!(file.metadata().unwrap().len() <= limit, "{file:?}");
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        }
    }

    #[test]
    fn half_a_line_waits_and_what_is_none_of_ours_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(dir.path().join(DIR), MAX_FILE);
        let run = RunId::new("r").unwrap();
        writer.write("r", &line(1));
        let [_, path] = paths(&dir.path().join(DIR), "r");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        let mut reader = Reader::new(dir.path(), &run);
        file.write_all(b"torn by a crash\n").unwrap();
        file.write_all(&line(2).as_bytes()[..10]).unwrap();
        assert_eq!(numbers(&reader.next().unwrap()), [1]);
        file.write_all(&line(2).as_bytes()[10..]).unwrap();
        assert!(reader.next().unwrap().is_empty());
        file.write_all(b"\n").unwrap();
        assert_eq!(numbers(&reader.next().unwrap()), [2]);
        remove(dir.path(), [&run]);
        assert!(!path.exists());
        remove(dir.path(), [&run]);
    }

    #[test]
    fn no_more_files_are_open_than_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(dir.path().join(DIR), MAX_FILE);
        for n in 0..MAX_OPEN * 2 {
            writer.write(&format!("run-{n}"), &line(n));
        }
        assert_eq!(writer.open.len(), MAX_OPEN);
        writer.write("run-0", &line(1));
        let records = Reader::new(dir.path(), &RunId::new("run-0").unwrap()).next().unwrap();
        assert_eq!(numbers(&records), [0, 1]);
    }
}
