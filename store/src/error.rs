//! Why a store does not open: what is wrong, why it is refused, and ([`OpenError::hint`]) what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use dssflow_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::tree::Trouble;

/// What [`OpenError::Io`] says was tried when a copy of the store could not be made or read: nothing is known of the store.
pub(crate) const TRYING: &str = "look at a copy of the store in";

/// The process that owns a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// The name of the machine it runs on.
    pub host: String,
    /// When it started, in clock ticks since the machine did, so that a pid used again is told apart; 0 when not
    /// known.
    #[serde(default)]
    pub start_time: u64,
    /// Since when it has owned the store.
    pub since: Timestamp,
    /// What it does, in its own words.
    #[serde(default)]
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)?;
        if !self.command.is_empty() {
            write!(f, " ({})", self.command)?;
        }
        write!(f, ", since {}", self.since)
    }
}

/// Why a store did not open. Nothing was changed unless a variant says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process owns it.
    #[error("the store {} is in use by {}", path.display(), holder_text(holder.as_ref()))]
    Locked {
        /// The store.
        path: PathBuf,
        /// Who owns it; `None` when the owner has not written it yet.
        holder: Option<Holder>,
    },
    /// Nothing is there, and it was not to be created.
    #[error("there is no store at {}", path.display())]
    NotFound {
        /// The store.
        path: PathBuf,
    },
    /// There is a store already where a new one was to be made.
    #[error("there is a store at {} already", path.display())]
    Used {
        /// The store.
        path: PathBuf,
    },
    /// The directory holds other things.
    #[error("{} is not a store: it holds {found:?}, which no store does", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// The first thing that does not belong there.
        found: String,
    },
    /// Others could read or change it.
    #[error("the store {} is not safe: {why}", path.display())]
    Unsafe {
        /// The store.
        path: PathBuf,
        /// What is unsafe about it.
        why: String,
        /// The command that mends it.
        mend: String,
    },
    /// It lies on a file system that another machine can write to.
    #[error("the store {} is on a network file system ({kind}), where locks and syncs do not hold", path.display())]
    NetworkFileSystem {
        /// The store.
        path: PathBuf,
        /// The file system's name.
        kind: &'static str,
    },
    /// A later version of dssflow wrote it.
    #[error("the store {} has format {format}; this version reads formats up to {known}", path.display())]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The latest format this version reads.
        known: u32,
        /// The first version that reads it.
        needs: String,
    },
    /// Its data are not what was acknowledged.
    #[error("the store {} is damaged: {what}", path.display())]
    Damaged {
        /// The store.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The system refused something.
    #[error("failed to {doing} {}", path.display())]
    Io {
        /// What was tried, as "open" or "sync".
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

fn holder_text(holder: Option<&Holder>) -> String {
    holder.map_or_else(|| "another process".to_owned(), Holder::to_string)
}

impl OpenError {
    /// What to do about it, as one sentence.
    pub fn hint(&self) -> String {
        match self {
            Self::Locked { holder: Some(holder), .. } if holder.pid == std::process::id() => {
                "this process has it open already: clone that engine, or wait until the last clone of it and the last \
                 handle of a run are gone; what they were doing ends a moment later"
                    .to_owned()
            }
            Self::Locked { holder: Some(holder), .. } => {
                format!("wait until process {} has ended, or end it", holder.pid)
            }
            Self::Locked { holder: None, .. } => "wait until that process has ended".to_owned(),
            Self::NotFound { .. } => {
                "check the path; `dssflow run` makes a store where there is none".to_owned()
            }
            Self::Used { .. } => "name an empty or a new directory".to_owned(),
            Self::NotAStore { found, .. } => {
                format!("move {found:?} out of it if the rest is a store; else name an empty or a new directory")
            }
            Self::Unsafe { mend, .. } => mend.clone(),
            Self::NetworkFileSystem { .. } => "name a directory on a local disk".to_owned(),
            Self::Newer { needs, .. } => format!("use dssflow {needs} or later"),
            Self::Damaged { .. } => {
                "nothing is repaired: put the last backup back with `dssflow store restore BACKUP`, which keeps \
                 what is here; `dssflow store verify` says what is damaged, and `dssflow store export` saves what \
                 can be read"
                    .to_owned()
            }
            Self::Io { doing: TRYING, path, .. } => format!(
                "make room in {}, or set TMPDIR to a directory that can be written and has room for a copy of the store \
                 and some more; the store is as it was, and nothing says that it is damaged",
                path.display()
            ),
            Self::Io { path, source, .. } => match source.kind() {
                io::ErrorKind::NotFound => format!(
                    "something took {} away: stop what cleans up there, then see what is left with `dssflow store verify`",
                    path.display()
                ),
                io::ErrorKind::PermissionDenied => {
                    format!("give this user the right to read and write {}", path.display())
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "make room on that disk and type it again; nothing acknowledged is lost".to_owned()
                }
                io::ErrorKind::ReadOnlyFilesystem => {
                    "a store is written to even when it is only looked at: mount the disk writable, or copy the \
                     directory to one that is and name the copy with --store"
                        .to_owned()
                }
                _ => "check that the disk is mounted, writable and not full".to_owned(),
            },
        }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.into() }
    }

    /// What sled's trouble means to who wanted to do something with its directory.
    pub(crate) fn of(trouble: Trouble, store: &Path, doing: &'static str, dir: &Path) -> Self {
        match trouble {
            Trouble::Damage(what) => Self::damaged(store, what),
            Trouble::Io(source) => Self::Io { doing, path: dir.to_owned(), source },
        }
    }

    /// For `map_err`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}
