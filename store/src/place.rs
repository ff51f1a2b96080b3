//! The directory a store lives in: its paths, whether it is safe to use, and what is in it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::disk::{self, Disk};
use crate::error::OpenError;

/// What other parts of dssflow keep in the same directory.
const NEIGHBOURS: &[&str] = &["sandbox", "control.sock", "control.token", "log", "logs", "tmp", "cache"];
/// What the store itself keeps there; `gen-N` aside.
const OWN: &[&str] = &[
    LOCK,
    FORMAT,
    CURRENT,
    HEAD,
    MANIFEST,
    PAYLOADS,
    RESTORING,
    REPLACING,
    "FORMAT.tmp",
    "CURRENT.tmp",
    "HEAD.tmp",
    "MANIFEST.tmp",
    "replacing.tmp",
];

pub(crate) const LOCK: &str = "lock";
pub(crate) const FORMAT: &str = "FORMAT";
pub(crate) const CURRENT: &str = "CURRENT";
pub(crate) const HEAD: &str = "HEAD";
pub(crate) const MANIFEST: &str = "MANIFEST";
pub(crate) const PAYLOADS: &str = "payloads";
pub(crate) const GENERATION: &str = "gen-";
/// What a restore fills before it puts it in place.
pub(crate) const RESTORING: &str = "restoring";
/// There while a restore puts a store in the place of another: until there is a `CURRENT` again, there is no store.
pub(crate) const REPLACING: &str = "replacing";
/// Begins the name of a directory with what a restore took the place of, or with a copy from before a format was changed.
pub(crate) const KEPT: &str = "kept-";

/// The paths of a store.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) root: PathBuf,
}

impl Place {
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join(LOCK)
    }

    pub(crate) fn head(&self) -> PathBuf {
        self.root.join(HEAD)
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.root.join(MANIFEST)
    }

    pub(crate) fn payloads(&self) -> PathBuf {
        self.root.join(PAYLOADS)
    }

    /// An existing store directory, checked.
    pub(crate) fn existing(path: &Path) -> Result<Self, OpenError> {
        check_safe(path)?;
        Ok(Self { root: path.to_owned() })
    }

    /// A store directory, made with mode 0700 when it is missing, checked.
    pub(crate) fn create(path: &Path, disk: &dyn Disk) -> Result<Self, OpenError> {
        if std::fs::symlink_metadata(path).is_err() {
            let parent = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            let make = || -> io::Result<()> {
                let missing = |dir: &&Path| std::fs::symlink_metadata(dir).is_err();
                let new: Vec<&Path> = parent.ancestors().take_while(missing).collect();
                std::fs::DirBuilder::new().recursive(true).mode(disk::DIR_MODE).create(parent)?;
                disk::make_dir(path)?;
                // The entry of each new directory must be as durable as what will lie in it.
                for dir in new {
                    let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
                    disk::sync_dir(disk, above.unwrap_or(Path::new(".")))?;
                }
                disk::sync_dir(disk, parent)
            };
            make().map_err(OpenError::io("create", path))?;
        }
        Self::existing(path)
    }

    /// Whether a store is or was here, going by the names; refuses a directory that holds other things.
    pub(crate) fn is_used(&self) -> Result<bool, OpenError> {
        let mut used = false;
        for name in names(&self.root).map_err(OpenError::io("read", &self.root))? {
            if name.starts_with(GENERATION)
                || [FORMAT, CURRENT, HEAD, MANIFEST, PAYLOADS, REPLACING].contains(&name.as_str())
            {
                used = true;
            } else if !is_own(&name) && !NEIGHBOURS.contains(&name.as_str()) {
                return Err(OpenError::NotAStore { path: self.root.clone(), found: name });
            }
        }
        Ok(used)
    }
}

/// Whether a name in a store's directory is the store's own.
pub(crate) fn is_own(name: &str) -> bool {
    OWN.contains(&name) || name.starts_with(GENERATION) || name.starts_with(KEPT)
}

/// The names in a directory, sorted.
pub(crate) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Refuses what somebody else could read, change or have put there.
fn check_safe(path: &Path) -> Result<(), OpenError> {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::NotFound { path: path.to_owned() });
        }
        Err(source) => return Err(OpenError::Io { doing: "look at", path: path.to_owned(), source }),
    };
    let refuse = |why: String, mend: String| Err(OpenError::Unsafe { path: path.to_owned(), why, mend });
    if meta.is_symlink() {
        let target = std::fs::read_link(path).unwrap_or_default();
        return refuse(
            "it is a symbolic link, which could be pointed elsewhere".to_owned(),
            format!("name its target: {}", target.display()),
        );
    }
    if !meta.is_dir() {
        return refuse("it is not a directory".to_owned(), "name a directory".to_owned());
    }
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me {
        return refuse(
            format!("it belongs to user {}, and this is user {me}", meta.uid()),
            "run as the user who owns it, or name another directory".to_owned(),
        );
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return refuse(
            format!("other users can enter it (mode {mode:04o})"),
            // Only where nothing but a store is in it: this may be somebody's project.
            if names(path)
                .is_ok_and(|names| names.iter().all(|n| is_own(n) || NEIGHBOURS.contains(&n.as_str())))
            {
                format!("take their rights away: chmod -R go= {}", path.display())
            } else {
                "it holds other things: name an empty or a new directory".to_owned()
            },
        );
    }
    match network_kind(path) {
        Ok(None) => Ok(()),
        Ok(Some(kind)) => Err(OpenError::NetworkFileSystem { path: path.to_owned(), kind }),
        Err(source) => {
            Err(OpenError::Io { doing: "look at the file system of", path: path.to_owned(), source })
        }
    }
}

/// The name of the network file system a path is on. Magic numbers from statfs(2) and linux/magic.h.
#[cfg(target_os = "linux")]
fn network_kind(path: &Path) -> io::Result<Option<&'static str>> {
    let stat = rustix::fs::fstatfs(File::open(path)?)?;
    // The type of `f_type` differs between platforms; all magic numbers have 32 bits.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "magic numbers have 32 bits")]
    let magic = stat.f_type as u32;
    Ok(match magic {
        0x0000_6969 => Some("nfs"),
        0x0000_517b => Some("smb"),
        0xfe53_4d42 => Some("smb2"),
        0xff53_4d42 => Some("cifs"),
        0x00c3_6400 => Some("ceph"),
        0x0102_1997 => Some("9p"),
        0x5346_414f | 0x6b41_4653 => Some("afs"),
        0x7375_7245 => Some("coda"),
        0x0000_564c => Some("ncp"),
        0x0bd0_0bd0 => Some("lustre"),
        0x0116_1970 => Some("gfs2"),
        0x7461_636f => Some("ocfs2"),
        0x786f_4256 => Some("vboxsf"),
        _ => None,
    })
}

#[cfg(not(target_os = "linux"))]
fn network_kind(_path: &Path) -> io::Result<Option<&'static str>> {
    Ok(None)
}
