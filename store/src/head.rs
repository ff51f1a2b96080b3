//! `HEAD`: which group was acknowledged last. Two slots of 512 bytes, one sector each, written in turn, so that a
//! write that the power cut off leaves the other whole.
//!
//! It is written and synced after sled's log was. So the tree has the same group as the newest slot or, when the
//! process ended between the two, the one after it; anything else means that the disk lost or changed something.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use dssflow_engine::id::StoreId;

use crate::codec::Commit;
use crate::disk::{self, Disk, Synced};
use crate::error::OpenError;
use crate::format::read_if_there;
use crate::place::{HEAD, Place};

const SLOT: usize = 512;
const CRC: usize = 4;
const MAGIC: &[u8; 8] = b"DSSFHEAD";

/// One slot as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Never written.
    Empty,
    Good(Commit),
    Damaged,
}

/// Both slots as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slots([Slot; 2]);

impl Slots {
    /// `None` when there is no such file.
    pub(crate) fn read(place: &Place, store: &StoreId) -> Result<Option<Self>, OpenError> {
        Ok(read_if_there(&place.head())?.map(|bytes| Self::decode(&bytes, store)))
    }

    fn decode(bytes: &[u8], store: &StoreId) -> Self {
        let slot = |number: usize| {
            let Some(slot) = bytes.get(number * SLOT..(number + 1) * SLOT) else { return Slot::Damaged };
            // An empty slot beside a later group than the first means that a written one was wiped.
            if slot.iter().all(|byte| *byte == 0) {
                return Slot::Empty;
            }
            match decode_slot(slot, store) {
                Some(commit) if slot_of(&commit) == number => Slot::Good(commit),
                _ => Slot::Damaged,
            }
        };
        let mut slots = [slot(0), slot(1)];
        if bytes.len() != 2 * SLOT {
            slots[1] = Slot::Damaged;
        }
        if let [Slot::Good(_), Slot::Good(_)] | [Slot::Empty, _] = &slots
            && !Self(slots.clone()).is_sequence()
        {
            slots[0] = Slot::Damaged;
        }
        if let [Slot::Good(commit), empty @ Slot::Empty] = &mut slots
            && commit.number > 0
        {
            *empty = Slot::Damaged;
        }
        Self(slots)
    }

    fn is_sequence(&self) -> bool {
        match &self.0 {
            [Slot::Good(a), Slot::Good(b)] => {
                (a.number + 1 == b.number && b.before == a.chain)
                    || (b.number + 1 == a.number && a.before == b.chain)
            }
            _ => false,
        }
    }

    /// The last group acknowledged.
    pub(crate) fn newest(&self) -> Option<&Commit> {
        let commits = self.0.iter().filter_map(|slot| match slot {
            Slot::Good(commit) => Some(commit),
            Slot::Empty | Slot::Damaged => None,
        });
        commits.max_by_key(|commit| commit.number)
    }

    /// Whether a slot can no longer be read.
    pub(crate) fn is_damaged(&self) -> bool {
        self.0.contains(&Slot::Damaged)
    }
}

/// Group n is in slot n mod 2.
fn slot_of(commit: &Commit) -> usize {
    usize::from(commit.number % 2 == 1)
}

fn encode_slot(commit: &Commit, store: &StoreId) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    let id = store.as_str().as_bytes();
    let mut at = 0;
    for part in [MAGIC, id, &commit.encode()] {
        slot[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    let crc = crc32fast::hash(&slot[..SLOT - CRC]);
    slot[SLOT - CRC..].copy_from_slice(&crc.to_be_bytes());
    slot
}

fn decode_slot(slot: &[u8], store: &StoreId) -> Option<Commit> {
    let (body, crc) = slot.split_last_chunk::<CRC>()?;
    if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
        return None;
    }
    let body = body.strip_prefix(MAGIC)?.strip_prefix(store.as_str().as_bytes())?;
    Commit::decode_first(body)
}

/// The store id in a `HEAD` file, for when `FORMAT` is damaged.
pub(crate) fn store_of(place: &Place) -> Option<StoreId> {
    let bytes = std::fs::read(place.head()).ok()?;
    bytes.chunks(SLOT).find_map(|slot| {
        let text = std::str::from_utf8(slot.strip_prefix(MAGIC)?.get(..32)?).ok()?;
        let store = StoreId::generate(hex::decode(text).ok()?.try_into().ok()?);
        decode_slot(slot, &store).map(|_| store)
    })
}

/// The open file.
pub(crate) struct HeadFile {
    file: File,
    store: StoreId,
}

impl HeadFile {
    /// Makes the file of a store without groups.
    pub(crate) fn create(place: &Place, disk: &dyn Disk, store: &StoreId) -> io::Result<()> {
        let mut bytes = encode_slot(&Commit::none(store), store).to_vec();
        bytes.resize(2 * SLOT, 0);
        disk::write_whole(disk, &place.root, HEAD, &bytes)
    }

    pub(crate) fn open(place: &Place, store: &StoreId) -> io::Result<Self> {
        let file = disk::open_options().read(true).write(true).open(place.head())?;
        Ok(Self { file, store: store.clone() })
    }

    /// Writes the older slot. Durable after [`HeadFile::sync`].
    pub(crate) fn write(&self, commit: &Commit) -> io::Result<()> {
        let at = if slot_of(commit) == 0 { 0 } else { SLOT as u64 };
        self.file.write_all_at(&encode_slot(commit, &self.store), at)
    }

    pub(crate) fn sync(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.sync(&self.file, Synced::Head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(store: &StoreId, count: u64) -> Vec<Commit> {
        let mut commits = vec![Commit::none(store)];
        for _ in 0..count {
            let mut next = commits.last().unwrap().next();
            next.runs += 1;
            next.finish();
            commits.push(next);
        }
        commits
    }

    fn file(commits: &[Commit], store: &StoreId) -> Vec<u8> {
        let mut bytes = vec![0; 2 * SLOT];
        for commit in commits {
            let at = slot_of(commit) * SLOT;
            bytes[at..at + SLOT].copy_from_slice(&encode_slot(commit, store));
        }
        bytes
    }

    #[test]
    fn the_newest_slot_is_found_and_every_changed_bit_shows() {
        let store = StoreId::generate([3; 16]);
        for count in [0, 1, 2, 5] {
            let commits = groups(&store, count);
            let bytes = file(&commits, &store);
            let slots = Slots::decode(&bytes, &store);
            assert_eq!((slots.newest(), slots.is_damaged()), (commits.last(), false), "{count} groups");
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let slots = Slots::decode(&flipped, &store);
                assert!(slots.is_damaged(), "{count} groups, bit {bit}");
            }
            let other = Slots::decode(&bytes, &StoreId::generate([4; 16]));
            assert_eq!(other.newest(), None, "the file of another store");
            assert!(Slots::decode(&bytes[..SLOT], &store).is_damaged(), "a truncated file");
        }
    }
}
