//! Values of the tree: compact, versioned, each with a CRC over its key and itself; and the hashes that chain them.
//!
//! The CRC tells damage from data. The chain over a run's records tells a record that was taken out or put back
//! from one that belongs there. The roots of all runs and graphs, combined by XOR, are part of each group's hash,
//! so that a whole run that vanished shows as well.

use dssflow_engine::id::{RunId, ScheduleId, StoreId};
use dssflow_engine::store::{GraphHash, Head, RunSummary};
use dssflow_engine::time::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::summary;

pub(crate) type Hash = [u8; 32];

/// Groups of formats 1 and 2 know no schedules. They are read for ever.
const OLD_COMMIT: u8 = 1;
const COMMIT: u8 = 2;
const CRC: usize = 4;

/// Appends the CRC over key and value.
pub(crate) fn seal(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    value.extend_from_slice(&crc(key, &value).to_be_bytes());
    value
}

/// The value without its CRC, when that is right.
pub(crate) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (body, found) = value.split_last_chunk::<CRC>()?;
    (crc(key, body) == u32::from_be_bytes(*found)).then_some(body)
}

fn crc(key: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(body);
    crc.finalize()
}

/// Hashes length-prefixed parts.
fn hash(parts: &[&[u8]]) -> Hash {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    sha.finalize().into()
}

pub(crate) fn digest(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// The chain of a run without events.
pub(crate) fn genesis(store: &StoreId, run: &RunId) -> Hash {
    hash(&[b"dssflow run", store.as_str().as_bytes(), run.as_str().as_bytes()])
}

/// The chain after one more record. `body` is its bytes, or the digest of a payload file.
pub(crate) fn chain(before: &Hash, first_seq: u64, events: u32, body: &[u8]) -> Hash {
    hash(&[before, &first_seq.to_be_bytes(), &events.to_be_bytes(), body])
}

/// A run's part in the XOR over the store.
pub(crate) fn run_root(run: &RunId, head: &[u8]) -> Hash {
    hash(&[b"run", run.as_str().as_bytes(), head])
}

/// A graph's part in the XOR over the store.
pub(crate) fn graph_root(graph: &GraphHash, body: &[u8]) -> Hash {
    hash(&[b"graph", graph.0.as_bytes(), body])
}

/// A schedule's part in the XOR over the store.
pub(crate) fn schedule_root(schedule: &ScheduleId, body: &[u8]) -> Hash {
    hash(&[b"schedule", schedule.as_str().as_bytes(), body])
}

pub(crate) fn xor(into: &mut Hash, root: &Hash) {
    for (into, root) in into.iter_mut().zip(root) {
        *into ^= root;
    }
}

/// Reads a value field by field; `None` at its end.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(field)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(|bytes| u64::from_be_bytes(*bytes))
    }
}

/// A run's head as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeadValue {
    pub(crate) seq: u64,
    pub(crate) records: u64,
    pub(crate) due: Option<Timestamp>,
    pub(crate) created: Timestamp,
    pub(crate) ended: bool,
    pub(crate) chain: Hash,
}

const ENDED: u8 = 1;
const HAS_DUE: u8 = 2;
/// Heads of format 1 have their summary as JSON. They are read for ever and replaced when their run gets on.
const JSON_HEAD: u8 = 1;
const HEAD: u8 = 2;

impl HeadValue {
    /// The value without its CRC; [`run_root`] is taken over it.
    pub(crate) fn encode(&self, summary: &RunSummary) -> Vec<u8> {
        let mut value = Vec::with_capacity(200);
        value.push(HEAD);
        value.push((u8::from(self.ended) * ENDED) | (u8::from(self.due.is_some()) * HAS_DUE));
        for number in
            [self.seq, self.records, self.due.unwrap_or_default().as_millis(), self.created.as_millis()]
        {
            value.extend_from_slice(&number.to_be_bytes());
        }
        value.extend_from_slice(&self.chain);
        summary::write(&mut value, summary);
        value
    }

    /// The head and its summary, not read yet.
    pub(crate) fn decode(body: &[u8]) -> Option<(Self, Packed<'_>)> {
        let mut fields = Fields(body);
        let [version, flags] = *fields.take()?;
        if ![JSON_HEAD, HEAD].contains(&version) {
            return None;
        }
        let (seq, records) = (fields.u64()?, fields.u64()?);
        let due = Timestamp::from_millis(fields.u64()?);
        let due = (flags & HAS_DUE != 0).then_some(due);
        let created = Timestamp::from_millis(fields.u64()?);
        let chain = *fields.take()?;
        let packed = Packed { json: version == JSON_HEAD, bytes: fields.0 };
        Some((Self { seq, records, due, created, ended: flags & ENDED != 0, chain }, packed))
    }

    pub(crate) fn decode_full(body: &[u8]) -> Option<(Self, Head)> {
        let (value, packed) = Self::decode(body)?;
        let summary = packed.summary(value.created)?;
        let head = Head { seq: value.seq, summary };
        Some((value, head))
    }
}

/// A summary as stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed<'a> {
    json: bool,
    bytes: &'a [u8],
}

impl Packed<'_> {
    fn summary(self, created: Timestamp) -> Option<RunSummary> {
        if self.json { serde_json::from_slice(self.bytes).ok() } else { summary::read(self.bytes, created) }
    }
}

/// What a group of commits leaves behind; in the tree and, once durable there, in `HEAD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Counts groups, from 1.
    pub(crate) number: u64,
    pub(crate) epoch: u64,
    pub(crate) runs: u64,
    pub(crate) graphs: u64,
    pub(crate) schedules: u64,
    /// XOR of the roots of all runs, graphs and schedules.
    pub(crate) roots: Hash,
    /// Hash of the group before; of the store's id in a store that has none.
    pub(crate) before: Hash,
    /// Hash of all the above.
    pub(crate) chain: Hash,
}

impl Commit {
    /// Length of the encoding.
    pub(crate) const LEN: usize = 1 + 5 * 8 + 3 * 32;
    const OLD_LEN: usize = Self::LEN - 8;

    /// The state of a store that has no group yet.
    pub(crate) fn none(store: &StoreId) -> Self {
        let before = hash(&[b"dssflow store", store.as_str().as_bytes()]);
        let (number, epoch, runs, graphs, schedules) = Default::default();
        let mut none =
            Self { number, epoch, runs, graphs, schedules, roots: [0; 32], before, chain: [0; 32] };
        none.finish();
        none
    }

    /// The next group, with the counts and roots as they are now.
    pub(crate) fn next(&self) -> Self {
        Self { number: self.number + 1, before: self.chain, ..self.clone() }
    }

    /// Sets the hash once everything else is set.
    pub(crate) fn finish(&mut self) {
        self.chain = self.expected_chain();
    }

    pub(crate) fn expected_chain(&self) -> Hash {
        let numbers = [self.number, self.epoch, self.runs, self.graphs, self.schedules].map(u64::to_be_bytes);
        // Without schedules it is what it was in the formats that know none.
        let numbers = if self.schedules == 0 { &numbers[..4] } else { &numbers };
        hash(&[&self.before, numbers.as_flattened(), &self.roots])
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(Self::LEN + CRC);
        value.push(COMMIT);
        for number in [self.number, self.epoch, self.runs, self.graphs, self.schedules] {
            value.extend_from_slice(&number.to_be_bytes());
        }
        for hash in [&self.roots, &self.before, &self.chain] {
            value.extend_from_slice(hash);
        }
        value
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let [version] = *fields.take()?;
        let [number, epoch, runs, graphs] = [fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?];
        let schedules = match version {
            OLD_COMMIT => 0,
            COMMIT => fields.u64()?,
            _ => return None,
        };
        let commit = Self {
            number,
            epoch,
            runs,
            graphs,
            schedules,
            roots: *fields.take()?,
            before: *fields.take()?,
            chain: *fields.take()?,
        };
        (fields.0.is_empty() && commit.chain == commit.expected_chain()).then_some(commit)
    }

    /// Reads one that other bytes follow.
    pub(crate) fn decode_first(bytes: &[u8]) -> Option<Self> {
        let len = if *bytes.first()? == OLD_COMMIT { Self::OLD_LEN } else { Self::LEN };
        Self::decode(bytes.get(..len)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_key_and_value_together() {
        let sealed = seal(b"key", b"value".to_vec());
        assert_eq!(unseal(b"key", &sealed), Some(&b"value"[..]));
        assert_eq!(unseal(b"kex", &sealed), None);
        assert_eq!(unseal(b"key", &sealed[1..]), None);
        assert_eq!(unseal(b"key", b"abc"), None);
    }

    /// Heads of format 1, those without labels too, which are older, and the same ones as they are written now.
    #[test]
    fn a_head_of_format_1_is_read_and_written_anew() {
        let mut old = vec![1, HAS_DUE];
        for number in [7_u64, 3, 5_000, 1_000] {
            old.extend_from_slice(&number.to_be_bytes());
        }
        old.extend_from_slice(&[9; 32]);
        old.extend_from_slice(
            br#"{"run":"a","workflow":"flow","site":"lab","status":"running","created":1000,"#,
        );
        old.extend_from_slice(br#""updated":1007,"done":1,"total":3,"live":true,"note":"copy"#);
        for (rest, labels) in [(r#""}"#, 0), (r#"","labels":{"team":"data"}}"#, 1)] {
            let mut body = old.clone();
            body.extend_from_slice(rest.as_bytes());
            let (value, head) = HeadValue::decode_full(&body).unwrap();
            assert_eq!(
                (head.seq, head.summary.note.as_str(), head.summary.labels.len()),
                (7, "copy", labels)
            );
            let new = value.encode(&head.summary);
            assert!(new.len() < body.len() - 80, "{} of {}", new.len(), body.len());
            assert_eq!(HeadValue::decode_full(&new).unwrap(), (value, head));
        }
        old[0] = 3;
        assert!(HeadValue::decode(&old).is_none(), "a version that nobody has written yet");
    }

    #[test]
    fn a_commit_round_trips_and_is_chained() {
        let store = StoreId::generate([1; 16]);
        let mut first = Commit::none(&store).next();
        (first.epoch, first.runs, first.roots) = (1, 2, [9; 32]);
        first.finish();
        let mut second = first.next();
        second.finish();
        assert_eq!((second.number, second.before), (2, first.chain));
        assert_ne!(second.chain, first.chain);
        assert_eq!(Commit::decode(&second.encode()), Some(second.clone()));
        assert_eq!(second.encode().len(), Commit::LEN);
        let mut with_schedules = second.next();
        with_schedules.schedules = 3;
        with_schedules.finish();
        assert_eq!(Commit::decode(&with_schedules.encode()), Some(with_schedules.clone()));
        with_schedules.schedules = 0;
        assert_eq!(Commit::decode(&with_schedules.encode()), None, "schedules that vanished");
        second.runs += 1;
        assert_eq!(Commit::decode(&second.encode()), None, "a count that does not fit the hash");
    }

    #[test]
    fn a_group_of_the_formats_without_schedules_is_read() {
        let mut commit = Commit::none(&StoreId::generate([1; 16])).next();
        (commit.epoch, commit.runs, commit.roots) = (1, 2, [9; 32]);
        commit.finish();
        let mut old = vec![OLD_COMMIT];
        for number in [commit.number, commit.epoch, commit.runs, commit.graphs] {
            old.extend_from_slice(&number.to_be_bytes());
        }
        for hash in [&commit.roots, &commit.before, &commit.chain] {
            old.extend_from_slice(hash);
        }
        assert_eq!(Commit::decode(&old), Some(commit.clone()));
        old.extend_from_slice(&[0; 40]);
        assert_eq!(Commit::decode_first(&old), Some(commit));
    }
}
