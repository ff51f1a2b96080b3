//! Keys of the one sled tree. The first byte is the table; integers are big-endian, so that order is by number.
//!
//! | table | key | value |
//! |---|---|---|
//! | `m` | `m/store`, `m/commit` | store id; the last group |
//! | `h` | run | head: last event, chain, due, summary |
//! | `r` | run 0 first_seq chunk | a record, in chunks |
//! | `d` | due run | |
//! | `c` | created run | every run, by creation |
//! | `u` | created run | runs that have not ended |
//! | `g` | hash 0 chunk | a graph, in chunks |
//! | `s` | schedule 0 chunk | a schedule with its version and due, in chunks |
//! | `t` | due schedule | |
//! | `p` | run | a mark: it has records and no head, while it is put in or taken out |
//!
//! A run id has at most 80 bytes and a graph hash 128, so every key is far below sled's comfortable 256.

use dssflow_engine::id::{RunId, ScheduleId};
use dssflow_engine::store::GraphHash;
use dssflow_engine::time::Timestamp;

pub(crate) const COMMIT: &[u8] = b"m/commit";
pub(crate) const STORE: &[u8] = b"m/store";
pub(crate) const META: u8 = b'm';
pub(crate) const HEADS: u8 = b'h';
pub(crate) const RECORDS: u8 = b'r';
pub(crate) const DUE: u8 = b'd';
pub(crate) const CREATED: u8 = b'c';
pub(crate) const UNFINISHED: u8 = b'u';
pub(crate) const GRAPHS: u8 = b'g';
pub(crate) const PARTIAL: u8 = b'p';
pub(crate) const SCHEDULES: u8 = b's';
pub(crate) const SCHEDULE_DUE: u8 = b't';

/// Length of the chunk number at the end of a key.
pub(crate) const CHUNK: usize = 2;

fn key(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>() + CHUNK);
    key.push(table);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

pub(crate) fn head(run: &RunId) -> Vec<u8> {
    key(HEADS, &[run.as_str().as_bytes()])
}

/// The mark of a run that is put in or taken out.
pub(crate) fn partial(run: &RunId) -> Vec<u8> {
    key(PARTIAL, &[run.as_str().as_bytes()])
}

/// What the keys of all records of a run begin with.
pub(crate) fn records(run: &RunId) -> Vec<u8> {
    key(RECORDS, &[run.as_str().as_bytes(), &[0]])
}

/// What all chunks of a record's keys begin with.
pub(crate) fn record(run: &RunId, first_seq: u64) -> Vec<u8> {
    key(RECORDS, &[run.as_str().as_bytes(), &[0], &first_seq.to_be_bytes()])
}

/// What all chunks of a graph's keys begin with.
pub(crate) fn graph(hash: &GraphHash) -> Vec<u8> {
    key(GRAPHS, &[hash.0.as_bytes(), &[0]])
}

/// What all chunks of a schedule's keys begin with.
pub(crate) fn schedule(id: &ScheduleId) -> Vec<u8> {
    key(SCHEDULES, &[id.as_str().as_bytes(), &[0]])
}

/// An entry of the schedules by due time.
pub(crate) fn schedule_due(at: Timestamp, id: &ScheduleId) -> Vec<u8> {
    key(SCHEDULE_DUE, &[&at.as_millis().to_be_bytes(), id.as_str().as_bytes()])
}

pub(crate) fn parse_schedule(prefix: &[u8]) -> Option<ScheduleId> {
    parse_schedule_id(prefix.get(1..)?.strip_suffix(&[0])?)
}

pub(crate) fn parse_schedule_due(key: &[u8]) -> Option<(Timestamp, ScheduleId)> {
    let (at, id) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((Timestamp::from_millis(u64::from_be_bytes(*at)), parse_schedule_id(id)?))
}

fn parse_schedule_id(bytes: &[u8]) -> Option<ScheduleId> {
    ScheduleId::new(std::str::from_utf8(bytes).ok()?).ok()
}

/// An entry of one of the tables ordered by time.
pub(crate) fn timed(table: u8, at: Timestamp, run: &RunId) -> Vec<u8> {
    key(table, &[&at.as_millis().to_be_bytes(), run.as_str().as_bytes()])
}

/// Where the entries of a time begin in one of the tables ordered by it.
pub(crate) fn time(table: u8, at: Timestamp) -> Vec<u8> {
    key(table, &[&at.as_millis().to_be_bytes()])
}

/// The run and first sequence number in a record's key without its chunk number.
pub(crate) fn parse_record(prefix: &[u8]) -> Option<(RunId, u64)> {
    let (run, seq) = prefix.get(1..)?.split_last_chunk::<8>()?;
    Some((parse_run(run.strip_suffix(&[0])?)?, u64::from_be_bytes(*seq)))
}

pub(crate) fn parse_graph(prefix: &[u8]) -> Option<GraphHash> {
    let hash = prefix.get(1..)?.strip_suffix(&[0])?;
    Some(GraphHash(String::from_utf8(hash.to_vec()).ok()?))
}

pub(crate) fn parse_timed(key: &[u8]) -> Option<(Timestamp, RunId)> {
    let (at, run) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((Timestamp::from_millis(u64::from_be_bytes(*at)), parse_run(run)?))
}

pub(crate) fn parse_head(key: &[u8]) -> Option<RunId> {
    parse_run(key.get(1..)?)
}

fn parse_run(bytes: &[u8]) -> Option<RunId> {
    RunId::new(std::str::from_utf8(bytes).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_sort_by_number() {
        let (a, b) = (RunId::new("a").unwrap(), RunId::new("a/b").unwrap());
        assert_eq!(parse_record(&record(&b, 300)), Some((b.clone(), 300)));
        assert!(record(&a, 2) < record(&a, 300) && record(&a, u64::MAX) < record(&b, 0));
        let at = Timestamp::from_millis(77);
        assert_eq!(parse_timed(&timed(DUE, at, &b)), Some((at, b.clone())));
        assert!(timed(DUE, at, &b) < timed(DUE, Timestamp::from_millis(256), &a));
        assert!(
            time(DUE, at) < timed(DUE, at, &a) && timed(DUE, at, &b) < time(DUE, Timestamp::from_millis(78))
        );
        let hash = GraphHash("ab".to_owned());
        assert_eq!(parse_graph(&graph(&hash)), Some(hash));
        let nightly = ScheduleId::new("nightly").unwrap();
        assert_eq!(parse_schedule(&schedule(&nightly)), Some(nightly.clone()));
        assert_eq!(parse_schedule_due(&schedule_due(at, &nightly)), Some((at, nightly)));
        assert_eq!(parse_head(&head(&a)), Some(a));
        assert_eq!(parse_record(b"r"), None);
    }
}
