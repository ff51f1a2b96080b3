//! The shim that writes down what a program does to its files: building it, preloading it, reading its log.
//! `shim/shim.c` says what it sees.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One call of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A process begins; the inode is the root's.
    Life {
        /// Of the root.
        ino: u64,
    },
    /// A file or directory was opened.
    Open {
        /// Of what was opened.
        ino: u64,
        /// Below the root.
        path: String,
        /// It is new.
        created: bool,
        /// It was there and is empty now.
        truncated: bool,
    },
    /// Bytes were written.
    Write {
        /// Into what.
        ino: u64,
        /// From where on.
        at: u64,
        /// Which bytes, as a range of [`Log::bytes`].
        data: Range<usize>,
    },
    /// A file got another size.
    Truncate {
        /// Which.
        ino: u64,
        /// The size.
        size: u64,
    },
    /// A file got at least a size.
    Extend {
        /// Which.
        ino: u64,
        /// The size.
        size: u64,
    },
    /// A sync began.
    SyncStart {
        /// Of what.
        ino: u64,
        /// Tells the syncs of a life apart.
        id: u64,
    },
    /// A sync has succeeded: what was written before it began is durable.
    SyncEnd {
        /// Which.
        id: u64,
        /// Whether it was `fdatasync`.
        data_only: bool,
    },
    /// A name was moved, over another one where that was there.
    Rename {
        /// Below the root.
        from: String,
        /// Below the root.
        to: String,
    },
    /// A second name.
    Link {
        /// Below the root.
        from: String,
        /// Below the root.
        to: String,
    },
    /// A name was removed.
    Remove {
        /// Below the root.
        path: String,
    },
    /// A directory was made.
    MakeDir {
        /// Its own.
        ino: u64,
        /// Below the root.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// Permissions were set.
    Mode {
        /// Below the root.
        path: String,
        /// The permissions.
        mode: u32,
    },
    /// Something was written to standard output.
    Said {
        /// Which bytes, as a range of [`Log::bytes`].
        data: Range<usize>,
    },
    /// A call was made to fail.
    Fault {
        /// On what; 0 for calls on names.
        ino: u64,
    },
    /// A range of a file was written back, which makes nothing durable.
    WriteBack,
    /// A process ends in good order: so many calls of a class were made.
    Count {
        /// An index into [`CLASSES`].
        class: usize,
        /// How many.
        calls: u64,
    },
    /// Something that the shim cannot write down.
    Unsupported {
        /// What.
        what: String,
    },
}

/// Which calls can be made to fail.
pub const CLASSES: [&str; 5] = ["write", "sync", "open", "rename", "other"];

/// The shim, built.
#[derive(Debug, Clone)]
pub struct Shim(PathBuf);

impl Shim {
    /// Compiles it into a directory.
    ///
    /// # Errors
    /// When there is no C compiler, or it refuses the source.
    pub fn build(dir: &Path) -> io::Result<Self> {
        let library = dir.join("shim.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/shim/shim.c");
        let flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"];
        let built = Command::new("cc").args(flags).arg(&library).arg(source).status()?;
        if !built.success() {
            return Err(io::Error::other(format!("cc ended with {built}")));
        }
        Ok(Self(library))
    }

    /// A command with the shim in it, which appends to `log` what is done below `root`. What it prints is in the log.
    pub fn command(&self, program: &str, root: &Path, log: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("LD_PRELOAD", &self.0).env("SHIM_ROOT", root).env("SHIM_LOG", log);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

/// A log, read.
#[derive(Debug, Clone)]
pub struct Log {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// Its records, in the order in which they took place.
    pub ops: Vec<Op>,
}

const HEADER: usize = 32;

impl Log {
    /// Reads a log.
    ///
    /// # Errors
    /// When it cannot be read or is none.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(path)?;
        let mut ops = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let (op, next) =
                record(&bytes, at).ok_or_else(|| io::Error::other(format!("no record at byte {at}")))?;
            ops.push(op);
            at = next;
        }
        Ok(Self { bytes, ops })
    }

    /// What was said up to an operation, which is not among them.
    pub fn said(&self, from: usize, to: usize) -> String {
        let said = self.ops[from..to].iter().filter_map(|op| match op {
            Op::Said { data } => Some(&self.bytes[data.clone()]),
            _ => None,
        });
        String::from_utf8_lossy(&said.collect::<Vec<_>>().concat()).into_owned()
    }
}

/// The record at a byte, and where the next one is.
fn record(bytes: &[u8], at: usize) -> Option<(Op, usize)> {
    let header = bytes.get(at..at + HEADER)?;
    let short = |at: usize| Some(u32::from_ne_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_ne_bytes(header.get(at..at + 8)?.try_into().ok()?));
    let (kind, aux, ino, number) = (short(0)?, short(4)?, long(8)?, long(16)?);
    let first = at + HEADER..at + HEADER + short(24)? as usize;
    let second = first.end..first.end + short(28)? as usize;
    let next = second.end;
    if next > bytes.len() {
        return None;
    }
    let text = |range: &Range<usize>| Some(std::str::from_utf8(bytes.get(range.clone())?).ok()?.to_owned());
    let op = match kind {
        1 => Op::Life { ino },
        2 => Op::Open { ino, path: text(&first)?, created: aux & 1 != 0, truncated: aux & 2 != 0 },
        3 => Op::Write { ino, at: number, data: first },
        4 => Op::Truncate { ino, size: number },
        5 => Op::Extend { ino, size: number },
        6 => Op::SyncStart { ino, id: number },
        7 => Op::SyncEnd { id: number, data_only: aux != 0 },
        8 => Op::Rename { from: text(&first)?, to: text(&second)? },
        9 => Op::Link { from: text(&first)?, to: text(&second)? },
        10 | 12 => Op::Remove { path: text(&first)? },
        11 => Op::MakeDir { ino, path: text(&first)?, mode: aux },
        13 => Op::Said { data: first },
        14 => Op::Fault { ino },
        15 => Op::Unsupported { what: text(&first)? },
        16 => Op::WriteBack,
        17 => Op::Count { class: aux as usize, calls: number },
        18 => Op::Mode { path: text(&first)?, mode: aux },
        _ => return None,
    };
    Some((op, next))
}
