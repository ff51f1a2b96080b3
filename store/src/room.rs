//! Room ahead of sled's log. sled lets its file grow with every write, and a file that has grown costs `fdatasync` a
//! commit of the file system's journal, about as long again as the sync itself. So the file is made longer in large
//! steps, with `posix_fallocate`, which never touches what is there. To sled the end of it is segments that nobody
//! uses; when it opens the file it takes them as free, or cuts them off.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use fs2::FileExt as _;

use crate::disk::open_options;
use crate::tree::DB;

/// In these sled divides its file: its default, which we leave as it is.
const SEGMENT: u64 = 512 * 1024;
/// The least and the most that the file is made longer at once.
const STEP: (u64, u64) = (SEGMENT, 16 * 1024 * 1024);
/// Of a file that is already so many times as long.
const PART: u64 = 16;

/// What is known of the length of sled's log.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// The file has been made this long.
    end: u64,
}

impl Room {
    /// Makes room when sled has used what there was. To be called when sled writes nothing: after its flush. What
    /// cannot be had is done without: the file then grows as it did before.
    pub(crate) fn keep(&mut self, db: &File) {
        let Ok(len) = db.metadata().map(|meta| meta.len()) else { return };
        if len <= self.end {
            // sled may have cut off what it had freed.
            self.end = len;
            return;
        }
        let step = (len / PART).clamp(STEP.0, STEP.1);
        let end = (len + step).next_multiple_of(SEGMENT);
        if let Err(error) = db.allocate(end) {
            tracing::debug!(%error, "no room ahead of the log");
        }
        // Also when it failed: it is tried again when the file has grown by as much.
        self.end = end;
    }
}

/// Cuts segments of zeros off the end of a closed log. A segment in use begins with a header that is never zero.
pub(crate) fn give_back(dir: &Path) -> io::Result<()> {
    let db = open_options().read(true).write(true).open(dir.join(DB))?;
    let len = db.metadata()?.len();
    let mut end = len;
    let mut segment = vec![0; usize::try_from(SEGMENT).expect("a segment fits into memory")];
    // The first one stays whatever is in it.
    while end > SEGMENT {
        let begin = (end - 1) / SEGMENT * SEGMENT;
        let part = &mut segment[..usize::try_from(end - begin).expect("no longer than a segment")];
        db.read_exact_at(part, begin)?;
        if part.iter().any(|byte| *byte != 0) {
            break;
        }
        end = begin;
    }
    if end < len { db.set_len(end) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_in_steps_and_given_back_without_touching_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(DB);
        let data: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8 + 1).collect();
        std::fs::write(&path, &data).unwrap();
        let file = open_options().read(true).write(true).open(&path).unwrap();
        let len = || file.metadata().unwrap().len();
        let mut room = Room::default();
        room.keep(&file);
        let first = len();
        assert!(first >= 700_000 + SEGMENT && first.is_multiple_of(SEGMENT), "{first}");
        room.keep(&file);
        assert_eq!(len(), first, "there is room");
        file.write_all_at(b"x", first).unwrap();
        room.keep(&file);
        assert!(len() > first + SEGMENT, "it was used up");
        file.set_len(first).unwrap();
        room.keep(&file);
        assert_eq!(len(), first, "what sled cuts off is not put back at once");
        file.write_all_at(b"x", first).unwrap();
        room.keep(&file);
        assert!(len() > first + SEGMENT);
        file.set_len(first + 2 * SEGMENT).unwrap();

        give_back(dir.path()).unwrap();
        assert_eq!(len(), first + SEGMENT, "the segment with a byte in it stays, whole");
        file.write_all_at(&[0], first).unwrap();
        give_back(dir.path()).unwrap();
        assert_eq!(len(), 2 * SEGMENT, "as far as the data reach");
        assert_eq!(std::fs::read(&path).unwrap()[..data.len()], data);
    }

    #[test]
    fn sled_opens_a_log_with_room_and_has_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = 0_u64;
        for life in 0..4_u64 {
            let db = crate::tree::open(dir.path(), 1024 * 1024).unwrap();
            assert_eq!(db.len() as u64, expected);
            let file = open_options().read(true).write(true).open(dir.path().join(DB)).unwrap();
            let mut room = Room::default();
            for n in 0..3000_u64 {
                let key = (life * 3000 + n).to_be_bytes();
                db.insert(key, vec![n as u8; 700]).unwrap();
                if n % 100 == 0 {
                    db.flush().unwrap();
                    room.keep(&file);
                }
            }
            db.flush().unwrap();
            room.keep(&file);
            expected += 3000;
            crate::tree::close(db).unwrap();
            crate::tree::wait_closed(dir.path()).unwrap();
            if life % 2 == 1 {
                give_back(dir.path()).unwrap();
            }
        }
    }
}
