//! Changes to the files of a store, as a disk, a bad restore or a person makes them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dice::Dice;

/// Where blocks begin and how long the shortest are: a sector.
pub const SECTOR: u64 = 512;
/// Lengths of the blocks that are changed as a whole.
const BLOCKS: [u64; 2] = [SECTOR, 4096];

/// One change of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mutation {
    /// A bit is the other one.
    Flip {
        /// Which byte.
        at: u64,
        /// Which bit of it.
        bit: u8,
    },
    /// A block is zeros.
    Zero {
        /// Where it begins.
        at: u64,
        /// How long it is.
        len: u64,
    },
    /// A block lies over another one, as after a misdirected write.
    Duplicate {
        /// Where it was written to begin with.
        from: u64,
        /// Where it is now as well.
        to: u64,
        /// How long it is.
        len: u64,
    },
    /// Two blocks have changed places.
    Swap {
        /// One.
        a: u64,
        /// The other.
        b: u64,
        /// How long both are.
        len: u64,
    },
    /// The file ends early.
    Truncate {
        /// Its length.
        len: u64,
    },
    /// Another file lies in its place: an older copy, or one of another store.
    Replace {
        /// That file.
        by: PathBuf,
    },
    /// The file is gone.
    Remove,
}

impl Mutation {
    /// A word for the kind, to count by.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Flip { .. } => "flip",
            Self::Zero { .. } => "zero",
            Self::Duplicate { .. } => "duplicate",
            Self::Swap { .. } => "swap",
            Self::Truncate { .. } => "truncate",
            Self::Replace { .. } => "replace",
            Self::Remove => "remove",
        }
    }

    /// One of the kinds that leave the file there, somewhere in a file of `len` bytes.
    pub fn random(dice: &mut Dice, len: u64) -> Self {
        let block = *dice.pick(&BLOCKS);
        let mut place = || dice.below(len.div_ceil(block)) * block;
        let (a, b) = (place(), place());
        match dice.below(10) {
            0..5 => Self::Flip { at: dice.below(len), bit: u8::try_from(dice.below(8)).expect("below 8") },
            5 | 6 => Self::Zero { at: a, len: block },
            7 => Self::Duplicate { from: a, to: b, len: block },
            8 => Self::Swap { a, b, len: block },
            _ => Self::Truncate { len: dice.below(len.div_ceil(SECTOR)) * SECTOR },
        }
    }

    /// Makes the change. `false` when it left every byte as it was.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn apply(&self, path: &Path) -> io::Result<bool> {
        let before = match fs::read(path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let open = || File::options().write(true).open(path);
        let block = |at: u64, len: u64| {
            let bytes = before.as_deref().unwrap_or_default();
            let end = index(at + len).min(bytes.len());
            &bytes[index(at).min(end)..end]
        };
        match self {
            Self::Flip { at, bit } => {
                open()?.write_all_at(&[block(*at, 1)[0] ^ (1 << bit)], *at)?;
            }
            Self::Zero { at, len } => open()?.write_all_at(&vec![0; block(*at, *len).len()], *at)?,
            Self::Duplicate { from, to, len } => {
                let room = block(*to, *len).len();
                let block = block(*from, *len);
                open()?.write_all_at(&block[..room.min(block.len())], *to)?;
            }
            Self::Swap { a, b, len } => {
                let len = block(*a, *len).len().min(block(*b, *len).len()) as u64;
                let file = open()?;
                file.write_all_at(block(*a, len), *b)?;
                file.write_all_at(block(*b, len), *a)?;
            }
            Self::Truncate { len } => open()?.set_len(*len)?,
            Self::Replace { by } => {
                fs::write(path, fs::read(by)?)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
            }
            Self::Remove => {
                fs::remove_file(path)?;
                return Ok(true);
            }
        }
        Ok(before != Some(fs::read(path)?))
    }
}

fn index(at: u64) -> usize {
    usize::try_from(at).expect("files of tests fit into memory")
}

/// The files below a directory with their contents, by their names in it.
///
/// # Errors
/// When they cannot be read.
pub fn files(root: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    fn walk(root: &Path, name: &str, files: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
        for entry in fs::read_dir(root.join(name))? {
            let entry = entry?;
            let file = Path::new(name).join(entry.file_name()).to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                walk(root, &file, files)?;
            } else {
                let content = fs::read(entry.path())?;
                files.insert(file, content);
            }
        }
        Ok(())
    }
    let mut found = BTreeMap::new();
    walk(root, "", &mut found)?;
    Ok(found)
}

/// What must be free in memory for a harness to work there.
const ROOM: u64 = 1024 * 1024 * 1024;

/// A directory that ends with the test, in memory where there is such a place: syncs cost nothing there, and a disk that
/// stalls for half a minute under others' writes does not look like a process that hangs.
///
/// # Errors
/// When none can be made.
pub fn fleeting_dir() -> io::Result<tempfile::TempDir> {
    // In a container it may be too small for what the tests write.
    let has_room = |stat: rustix::fs::StatVfs| stat.f_bavail.saturating_mul(stat.f_frsize) >= ROOM;
    if rustix::fs::statvfs("/dev/shm").is_ok_and(has_room) {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
    } else {
        tempfile::tempdir()
    }
}

/// Copies a directory with all that is in it, modes included.
///
/// # Errors
/// When it cannot be read, or the copy not be written.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_changes_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        let original: Vec<u8> = (0..1_500_u32).map(|n| u8::try_from(n / 512).unwrap() + 1).collect();
        fs::write(&other, b"other").unwrap();
        let done = |mutation: Mutation| {
            fs::write(&path, &original).unwrap();
            let changed = mutation.apply(&path).unwrap();
            (changed, fs::read(&path).unwrap_or_default())
        };
        let (changed, bytes) = done(Mutation::Flip { at: 700, bit: 3 });
        assert!(changed && bytes[700] == 2 ^ 8 && bytes.len() == 1_500);
        let (_, bytes) = done(Mutation::Zero { at: 1_024, len: 512 });
        assert!(bytes.len() == 1_500 && bytes[1_023] == 2 && bytes[1_024..].iter().all(|byte| *byte == 0));
        let (_, bytes) = done(Mutation::Duplicate { from: 0, to: 1_024, len: 512 });
        assert!(bytes.len() == 1_500 && bytes[1_024..].iter().all(|byte| *byte == 1));
        let (_, bytes) = done(Mutation::Swap { a: 0, b: 512, len: 512 });
        assert!(
            bytes[0] == 2 && bytes[511] == 2 && bytes[512] == 1 && bytes[1_023] == 1 && bytes[1_024] == 3
        );
        assert_eq!(done(Mutation::Truncate { len: 512 }).1, original[..512]);
        assert_eq!(done(Mutation::Replace { by: other }).1, b"other");
        assert_eq!(done(Mutation::Remove).1, b"");
        assert!(!done(Mutation::Swap { a: 512, b: 512, len: 512 }).0, "the same block is no change");
    }
}
