//! Files for what is too large for the tree, named by the SHA-256 of their content. They are durable before the
//! commit that names them, so a commit never names one that is not there; one that nothing names does no harm.

use std::io;
use std::path::Path;

use crate::codec::{Hash, digest};
use crate::disk::{self, Disk};
use crate::place::{self, Place};

/// Writes the file unless it is there.
pub(crate) fn write(place: &Place, disk: &dyn Disk, name: &Hash, bytes: &[u8]) -> io::Result<()> {
    let dir = place.payloads();
    let name = hex::encode(name);
    if std::fs::read(dir.join(&name)).is_ok_and(|found| found == bytes) {
        // It was synced before it got its name; the name itself may not have been.
        return disk::sync_dir(disk, &dir);
    }
    disk::write_whole(disk, &dir, &name, bytes)
}

/// Reads and checks a file.
pub(crate) fn read(dir: &Path, name: &Hash, len: u64) -> Result<Vec<u8>, String> {
    let file = hex::encode(name);
    let bytes =
        std::fs::read(dir.join(&file)).map_err(|error| format!("the payload file {file}: {error}"))?;
    if bytes.len() as u64 != len || digest(&bytes) != *name {
        return Err(format!("the payload file {file} is not what was written"));
    }
    Ok(bytes)
}

/// Checks the content of every file against its name, and returns the names of those that do not match.
pub(crate) fn damaged(dir: &Path) -> io::Result<Vec<String>> {
    let mut damaged = Vec::new();
    for name in place::names(dir)? {
        if name.strip_suffix(disk::TEMPORARY).is_some() {
            continue;
        }
        if hex::encode(digest(&std::fs::read(dir.join(&name))?)) != name {
            damaged.push(name);
        }
    }
    Ok(damaged)
}
