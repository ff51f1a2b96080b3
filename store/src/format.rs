//! `FORMAT` and `CURRENT`: two small text files that say what the store is and which sled directory is in use.
//!
//! # When the format changes
//! [`Reading::of`] is the one place that decides what happens to a store of some format. A new one gets a number and the
//! version that reads it ([`FORMAT_NUMBER`], [`FORMAT_NEEDS`]), a golden store beside the others in `tests/golden`,
//! and a way from each earlier number in `migrate`. A migration writes a backup of the whole store beside it first. One that
//! rewrites values fills `gen-N+1` as a compaction does, and changes `FORMAT` and then `CURRENT` last, so that until
//! then the store is what it was.

use std::path::Path;

use dssflow_engine::id::StoreId;

use crate::disk::{seal_text, unseal_text};
use crate::error::OpenError;
use crate::place::{CURRENT, FORMAT, GENERATION, Place};

/// The format this version writes, and the latest it reads.
pub(crate) const FORMAT_NUMBER: u32 = 3;
/// The first version of dssflow that reads [`FORMAT_NUMBER`].
const FORMAT_NEEDS: &str = "0.2.0";
const TITLE: &str = "dssflow store";

/// What this version does with a store of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Reads it as it is; before it writes, `migrate` has brought it to the latest.
    AsItIs,
    /// Refuses it: a later version made it.
    Newer,
    /// There never was such a format.
    Never,
}

impl Reading {
    fn of(number: u32) -> Self {
        match number {
            0 => Self::Never,
            1..=FORMAT_NUMBER => Self::AsItIs,
            _ => Self::Newer,
        }
    }
}

/// What `FORMAT` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) number: u32,
    pub(crate) needs: String,
    pub(crate) store: StoreId,
}

impl Format {
    pub(crate) fn new(store: StoreId) -> Self {
        Self { number: FORMAT_NUMBER, needs: FORMAT_NEEDS.to_owned(), store }
    }

    pub(crate) fn encode(&self) -> String {
        seal_text(format!("{TITLE}\nformat {}\nneeds {}\nstore {}\n", self.number, self.needs, self.store))
    }

    /// Reads the file's text. A later format may add lines, but keeps these four and the seal.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut lines = unseal_text(bytes)?.lines();
        if lines.next() != Some(TITLE) {
            return None;
        }
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
        let number = value("format")?.parse().ok()?;
        let needs = value("needs")?.to_owned();
        let store: [u8; 16] = hex::decode(value("store")?).ok()?.try_into().ok()?;
        Some(Self { number, needs, store: StoreId::generate(store) })
    }

    /// `None` when there is no such file.
    pub(crate) fn read(place: &Place) -> Result<Option<Self>, OpenError> {
        let Some(bytes) = read_if_there(&place.root.join(FORMAT))? else { return Ok(None) };
        let format = Self::decode(&bytes)
            .ok_or_else(|| OpenError::damaged(&place.root, "FORMAT does not match its checksum"))?;
        match Reading::of(format.number) {
            Reading::AsItIs => Ok(Some(format)),
            Reading::Newer => Err(OpenError::Newer {
                path: place.root.clone(),
                format: format.number,
                known: FORMAT_NUMBER,
                needs: format.needs,
            }),
            Reading::Never => Err(OpenError::damaged(&place.root, "FORMAT names a format that never was")),
        }
    }
}

pub(crate) fn encode_current(generation: u32) -> String {
    seal_text(format!("{GENERATION}{generation}\n"))
}

/// The generation in use; `None` when there is no such file.
pub(crate) fn read_current(place: &Place) -> Result<Option<u32>, OpenError> {
    let Some(bytes) = read_if_there(&place.root.join(CURRENT))? else { return Ok(None) };
    unseal_text(&bytes)
        .and_then(|text| text.strip_suffix('\n')?.strip_prefix(GENERATION)?.parse().ok())
        .map(Some)
        .ok_or_else(|| OpenError::damaged(&place.root, "CURRENT does not match its checksum"))
}

pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, OpenError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { doing: "read", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_round_trips_and_any_changed_bit_shows() {
        let format = Format::new(StoreId::generate([7; 16]));
        let text = format.encode().into_bytes();
        assert_eq!(Format::decode(&text), Some(format));
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Format::decode(&flipped), None, "bit {bit}");
        }
    }
}
