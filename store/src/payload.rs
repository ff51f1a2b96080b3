//! Files for what is too large for the tree, named by the SHA-256 of their content. They are durable before the
//! commit that names them, so a commit never names one that is not there; one that nothing names does no harm.

use std::io;
use std::path::Path;

use crate::codec::{Hash, digest};
use crate::disk::{self, Disk, TEMPORARY};
use crate::place::{self, Place};

/// Writes the file unless it is there.
pub(crate) fn write(place: &Place, disk: &dyn Disk, name: &Hash, bytes: &[u8]) -> io::Result<()> {
    let dir = place.payloads();
    let name = hex::encode(name);
    if std::fs::read(dir.join(&name)).is_ok_and(|found| found == bytes) {
        // It was synced before it got its name; the name itself may not have been.
        return disk::sync_dir(disk, &dir);
    }
    // Who writes the same at the same time has a file of its own until both have the same name.
    let temporary = format!("{name}.{:016x}{TEMPORARY}", rand::random::<u64>());
    let written = disk::write_as(disk, &dir, &temporary, &name, bytes);
    if written.is_err() {
        // Nobody writes over it; should this fail too, a sweep removes it.
        drop(std::fs::remove_file(dir.join(&temporary)));
    }
    written
}

/// The name of the file that an unfinished one was to become; `unfinished` is what stands before [`TEMPORARY`]. Earlier
/// versions had nothing in between.
pub(crate) fn of_temporary(unfinished: &str) -> &str {
    unfinished.split_once('.').map_or(unfinished, |(name, _)| name)
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
        if name.ends_with(TEMPORARY) {
            continue;
        }
        if hex::encode(digest(&std::fs::read(dir.join(&name))?)) != name {
            damaged.push(name);
        }
    }
    Ok(damaged)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Barrier;

    use super::*;
    use crate::disk::{OsDisk, Synced};

    /// Lets both writers come to where their files have content and no name, before either gets on.
    struct Meet(Barrier);

    impl Disk for Meet {
        fn sync(&self, file: &File, what: Synced) -> io::Result<()> {
            if what == Synced::Payload {
                self.0.wait();
            }
            OsDisk.sync(file, what)
        }
    }

    fn place() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { root: dir.path().to_owned() };
        disk::make_dir(&place.payloads()).unwrap();
        (dir, place)
    }

    #[test]
    fn two_may_write_the_same_at_the_same_time() {
        let (_dir, place) = place();
        let bytes = vec![7; 100_000];
        let name = digest(&bytes);
        let meet = Meet(Barrier::new(2));
        std::thread::scope(|scope| {
            let one = scope.spawn(|| write(&place, &meet, &name, &bytes));
            let two = scope.spawn(|| write(&place, &meet, &name, &bytes));
            one.join().unwrap().unwrap();
            two.join().unwrap().unwrap();
        });
        assert_eq!(read(&place.payloads(), &name, 100_000).unwrap(), bytes);
        assert_eq!(place::names(&place.payloads()).unwrap(), [hex::encode(name)]);
    }

    /// The disk fails.
    struct Broken;

    impl Disk for Broken {
        fn sync(&self, _file: &File, _what: Synced) -> io::Result<()> {
            Err(io::Error::other("injected"))
        }
    }

    #[test]
    fn a_file_that_was_not_finished_is_known_and_removed() {
        let (_dir, place) = place();
        assert!(write(&place, &Broken, &[1; 32], b"content").is_err());
        assert!(place::names(&place.payloads()).unwrap().is_empty());
        assert_eq!(of_temporary("abcd.0123456789abcdef"), "abcd");
        assert_eq!(of_temporary("abcd"), "abcd");
    }
}
