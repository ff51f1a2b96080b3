//! `MANIFEST`: length and checksum of every file, written when a store is closed in good order and removed before
//! the next owner writes anything. While it is there, a changed bit shows wherever it is, also where no live data
//! are. After a crash there is none, and only what is live can be checked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk, seal_text, unseal_text};
use crate::place::{CURRENT, FORMAT, GENERATION, HEAD, MANIFEST, PAYLOADS, Place, names};

/// A store of more bytes is closed without a manifest, which would cost more time than it is worth.
const MAX_BYTES: u64 = 4 * 1024 * 1024 * 1024;
const TITLE: &str = "dssflow manifest 1";

/// What comparing the files with the manifest gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ManifestState {
    /// There is none: the last owner was killed or crashed, or the store is very large.
    Absent,
    /// Every byte of these files is as it was when the store was closed.
    Checked {
        /// How many files.
        files: usize,
    },
    /// These differ, each with what is wrong.
    Differs {
        /// A line for each.
        problems: Vec<String>,
    },
}

/// What [`check`] gave.
pub(crate) struct Compared {
    pub(crate) state: ManifestState,
    /// Whether the files were read, and not only their lengths compared.
    pub(crate) bytes: bool,
}

/// Length and CRC of a file; payload files carry their own checksum in their name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    len: u64,
    crc: Option<u32>,
}

/// What a manifest covers.
fn files(place: &Place) -> io::Result<BTreeMap<String, u64>> {
    fn walk(root: &Path, name: &str, files: &mut BTreeMap<String, u64>) -> io::Result<()> {
        let path = root.join(name);
        let meta = std::fs::symlink_metadata(&path)?;
        if meta.is_dir() {
            for inner in names(&path)? {
                walk(root, &format!("{name}/{inner}"), files)?;
            }
        } else {
            files.insert(name.to_owned(), meta.len());
        }
        Ok(())
    }
    let mut found = BTreeMap::new();
    for name in names(&place.root)? {
        if [FORMAT, CURRENT, HEAD, PAYLOADS].contains(&name.as_str()) || name.starts_with(GENERATION) {
            walk(&place.root, &name, &mut found)?;
        }
    }
    Ok(found)
}

fn crc(path: &Path) -> io::Result<u32> {
    let mut file = File::open(path)?;
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(crc.finalize()),
            read => crc.update(&buffer[..read]),
        }
    }
}

fn is_payload(name: &str) -> bool {
    name.strip_prefix(PAYLOADS).is_some_and(|rest| rest.starts_with('/'))
}

/// Writes the manifest. Nothing may change the store any more.
pub(crate) fn write(place: &Place, disk: &dyn Disk) -> io::Result<()> {
    let files = files(place)?;
    if files.values().sum::<u64>() > MAX_BYTES {
        return Ok(());
    }
    let mut text = format!("{TITLE}\n");
    for (name, len) in files {
        let crc =
            if is_payload(&name) { "-".to_owned() } else { format!("{:08x}", crc(&place.root.join(&name))?) };
        writeln!(text, "{crc} {len} {name}").expect("writing to a string succeeds");
    }
    disk::write_whole(disk, &place.root, MANIFEST, seal_text(text).as_bytes())
}

/// Removes the manifest durably, before the first write.
pub(crate) fn remove(place: &Place, disk: &dyn Disk) -> io::Result<()> {
    match std::fs::remove_file(place.manifest()) {
        Ok(()) => disk::sync_dir(disk, &place.root),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn parse(bytes: &[u8]) -> Option<BTreeMap<String, Entry>> {
    let text = unseal_text(bytes)?;
    let mut entries = BTreeMap::new();
    for line in text.strip_prefix(TITLE)?.strip_prefix('\n')?.lines() {
        let (crc, rest) = line.split_once(' ')?;
        let (len, name) = rest.split_once(' ')?;
        let crc = if crc == "-" { None } else { Some(u32::from_str_radix(crc, 16).ok()?) };
        entries.insert(name.to_owned(), Entry { len: len.parse().ok()?, crc });
    }
    Some(entries)
}

/// Compares the files with the manifest. Files are read only as long as all of them together have at most
/// `read_limit` bytes; of a larger store the lengths are compared.
pub(crate) fn check(place: &Place, read_limit: u64) -> io::Result<Compared> {
    let unread = |state: ManifestState| Ok(Compared { state, bytes: false });
    let bytes = match std::fs::read(place.manifest()) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return unread(ManifestState::Absent),
        Err(error) => return Err(error),
    };
    let Some(expected) = parse(&bytes) else {
        let problems = vec!["MANIFEST does not match its checksum".to_owned()];
        return unread(ManifestState::Differs { problems });
    };
    let found = files(place)?;
    let read = found.values().sum::<u64>() <= read_limit;
    let mut problems = Vec::new();
    for (name, entry) in &expected {
        let Some(len) = found.get(name) else {
            problems.push(format!("{name} is missing"));
            continue;
        };
        if *len != entry.len {
            problems.push(format!("{name} has {len} bytes and had {}", entry.len));
        } else if let Some(expected) = entry.crc
            && read
            && crc(&place.root.join(name))? != expected
        {
            problems.push(format!("{name} is not what was written"));
        }
    }
    for name in found.keys().filter(|name| !expected.contains_key(*name)) {
        problems.push(format!("{name} was not there when the store was closed"));
    }
    let state = if problems.is_empty() {
        ManifestState::Checked { files: expected.len() }
    } else {
        ManifestState::Differs { problems }
    };
    Ok(Compared { state, bytes: read })
}
