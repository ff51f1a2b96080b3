//! Syncing, and the few file operations that must be made durable. [`Disk`] is the seam through which tests let a
//! sync fail; everything else goes to the file system directly.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// What a sync is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Synced {
    /// sled's log, once a group.
    Tree,
    /// `HEAD`, once a group.
    Head,
    /// A payload file.
    Payload,
    /// A directory entry.
    Directory,
}

/// Makes written data durable.
pub trait Disk: Send + Sync + 'static {
    /// Returns when the data of `file` are on the disk.
    ///
    /// # Errors
    /// Whatever the system says. The store is poisoned then; it never asks twice.
    fn sync(&self, file: &File, what: Synced) -> io::Result<()>;
}

/// The operating system's sync.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn sync(&self, file: &File, what: Synced) -> io::Result<()> {
        match what {
            Synced::Tree | Synced::Head => file.sync_data(),
            Synced::Payload | Synced::Directory => file.sync_all(),
        }
    }
}

/// Ends the name of a file that is still being written.
pub(crate) const TEMPORARY: &str = ".tmp";

pub(crate) const DIR_MODE: u32 = 0o700;
pub(crate) const FILE_MODE: u32 = 0o600;

/// Options that never follow a link and never make a file that others can read.
pub(crate) fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// Sets the mode whatever the umask was.
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Whether the open file is the one of that name.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

pub(crate) fn sync_dir(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.sync(&File::open(path)?, Synced::Directory)
}

/// Makes a directory with mode 0700 if it is missing. Its parent must exist.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    // Private from the first moment: a power cut can leave the directory and not a mode that was set later.
    match std::fs::DirBuilder::new().mode(DIR_MODE).create(path) {
        Ok(()) => set_mode(path, DIR_MODE),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a file so that after a crash it is there whole or not at all.
pub(crate) fn write_whole(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    write_as(disk, dir, &format!("{name}{TEMPORARY}"), name, bytes)
}

/// As [`write_whole`]; it has the other name until it is durable, which nobody else may use meanwhile.
pub(crate) fn write_as(
    disk: &dyn Disk,
    dir: &Path,
    temporary: &str,
    name: &str,
    bytes: &[u8],
) -> io::Result<()> {
    let temporary = dir.join(temporary);
    let mut file = open_options().write(true).create(true).truncate(true).open(&temporary)?;
    file.write_all(bytes)?;
    set_mode(&temporary, FILE_MODE)?;
    disk.sync(&file, Synced::Payload)?;
    std::fs::rename(&temporary, dir.join(name))?;
    sync_dir(disk, dir)
}

const SEAL: &str = "crc32 ";

/// Adds a last line with the checksum of the lines before.
pub(crate) fn seal_text(mut text: String) -> String {
    let crc = crc32fast::hash(text.as_bytes());
    writeln!(text, "{SEAL}{crc:08x}").expect("writing to a string succeeds");
    text
}

/// The lines before the checksum, when it is right.
pub(crate) fn unseal_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let at = text.strip_suffix('\n')?.rfind('\n')? + 1;
    let (body, last) = text.split_at(at);
    let expected = format!("{SEAL}{:08x}\n", crc32fast::hash(body.as_bytes()));
    (last == expected).then_some(body)
}
