//! Whole runs: read at one instant, put into a store as they were, taken out of it.
//!
//! A backup reads a [`Snapshot`]; a restore puts [`WholeRun`]s into another store; pruning removes runs and then sweeps
//! what they alone had named. The store still knows nothing of what records mean: what graphs they name it is told by
//! a function that it is given.

use std::sync::Arc;

use super::{GraphHash, Head, MAX_RECORD_BYTES, Record, RunSummary, StoreError, StoredSchedule};
use crate::id::RunId;
use crate::time::Timestamp;

/// Where a run stood when a snapshot was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The run.
    pub run: RunId,
    /// Sequence number of its last event.
    pub seq: u64,
    /// When it wanted to be looked at next.
    pub due: Option<Timestamp>,
}

/// The heads of all runs at one instant, by run id. About a hundred bytes a run.
///
/// Records are only ever appended, so what each run had at that instant can be read later: its records up to
/// [`SnapshotHead::seq`]. As long as the snapshot is there, nothing is removed from the store.
#[derive(Debug)]
pub struct Snapshot {
    /// The heads.
    pub heads: Vec<SnapshotHead>,
    /// The schedules of the same instant, whole, by name.
    pub schedules: Vec<StoredSchedule>,
    /// Keeps the store from removing anything.
    pub hold: Hold,
}

/// Keeps a store from removing anything while it exists. It lives in memory only: it ends with the process.
#[derive(Debug, Clone)]
pub struct Hold(#[expect(dead_code, reason = "what counts is that it is there")] Arc<()>);

/// The holds on a store. For implementations of [`Store`](super::Store): give one out and ask whether there are any
/// under the same lock, or in the same thread.
#[derive(Debug, Default)]
pub struct Holds(Arc<()>);

impl Holds {
    /// One more.
    pub fn hold(&self) -> Hold {
        Hold(Arc::clone(&self.0))
    }

    /// Whether there are none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is one.
    pub fn check(&self) -> Result<(), StoreError> {
        if Arc::strong_count(&self.0) > 1 {
            return Err(StoreError::Unavailable(
                "it is being copied, and nothing is removed meanwhile; wait until the copy is done"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

/// A run from its first event to its last, to be put into a store that does not have it.
pub struct WholeRun<'a> {
    /// The run.
    pub run: RunId,
    /// Sequence number of its last event.
    pub seq: u64,
    /// Its summary.
    pub summary: RunSummary,
    /// When it wants to be looked at next.
    pub due: Option<Timestamp>,
    /// The graphs that its records name. The store must have them; see [`Store::put_graph`](super::Store::put_graph).
    pub graphs: Vec<GraphHash>,
    /// Its records, oldest first. An error ends the import; nothing of the run is left then.
    pub records: Box<dyn Iterator<Item = Result<Record, StoreError>> + Send + 'a>,
}

impl std::fmt::Debug for WholeRun<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WholeRun")
            .field("run", &self.run)
            .field("seq", &self.seq)
            .field("graphs", &self.graphs)
            .finish_non_exhaustive()
    }
}

impl WholeRun<'_> {
    /// Checks what any store must refuse before it reads a record, and cuts the summary's note to fit. For
    /// implementations of [`Store`](super::Store).
    ///
    /// # Errors
    /// As [`Transition::check`](super::Transition::check).
    pub fn check(&mut self) -> Result<Continuity, StoreError> {
        super::rules::of_run(&self.run, &self.summary)?;
        super::rules::fit(&mut self.summary)?;
        if self.seq == 0 {
            return Err(StoreError::Invalid(format!("run {} has no events", self.run)));
        }
        for graph in &self.graphs {
            super::rules::is_hash(graph)?;
        }
        Ok(Continuity { run: self.run.clone(), seq: 0, end: self.seq })
    }
}

/// Sees that the records of a run follow each other and end where its head says. For implementations of
/// [`Store`](super::Store).
#[derive(Debug)]
pub struct Continuity {
    run: RunId,
    seq: u64,
    end: u64,
}

impl Continuity {
    /// Looks at the next record.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when it does not follow the one before or goes beyond the head;
    /// [`StoreError::TooLarge`].
    pub fn take(&mut self, record: &Record) -> Result<(), StoreError> {
        let size = record.bytes.len();
        if size > MAX_RECORD_BYTES {
            return Err(StoreError::TooLarge { what: "the record", size, limit: MAX_RECORD_BYTES });
        }
        let (next, found) = (self.seq + 1, record.first_seq);
        if record.events == 0 || found != next {
            let why = format!("event {next} of run {} is missing, {found} stands there", self.run);
            return Err(StoreError::Invalid(why));
        }
        let last = self.seq.saturating_add(u64::from(record.events));
        if last > self.end {
            let why = format!("run {} has event {last}, its head is at {}", self.run, self.end);
            return Err(StoreError::Invalid(why));
        }
        self.seq = last;
        Ok(())
    }

    /// Looks at the end: all records were taken.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when events are missing.
    pub fn finish(&self) -> Result<(), StoreError> {
        if self.seq == self.end {
            return Ok(());
        }
        let why = format!("run {} ends at event {}, its head is at {}", self.run, self.seq, self.end);
        Err(StoreError::Invalid(why))
    }
}

/// Says which graphs a record names; `Err` says why it cannot be read. Gets the number of the record's first event and
/// its bytes.
pub type NamesGraphs = fn(u64, &[u8]) -> Result<Vec<GraphHash>, String>;

/// What [`Store::sweep`](super::Store::sweep) removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Graphs.
    pub graphs: u64,
    /// Files of large values, where the store has such.
    pub payloads: u64,
    /// Bytes of both.
    pub bytes: u64,
}

/// Says whether a run may be removed, given its head. For implementations of [`Store`](super::Store), inside the
/// change.
///
/// # Errors
/// As [`Store::remove`](super::Store::remove).
pub fn check_removal(run: &RunId, seq: u64, head: Option<&Head>) -> Result<(), StoreError> {
    let head = head.ok_or_else(|| StoreError::NotFound(format!("run {run}")))?;
    if head.seq != seq {
        return Err(StoreError::Conflict { seq: head.seq });
    }
    if !head.summary.status.is_end() {
        let why = format!("run {run} is {} and cannot be removed", head.summary.status);
        return Err(StoreError::Invalid(why.replace('_', " ")));
    }
    if head.summary.live {
        let why = format!("run {run} made things that are still there, so it cannot be removed");
        return Err(StoreError::Invalid(why));
    }
    Ok(())
}

/// How many of `records` have at most so many bytes together; at least one, when there is one. For implementations of
/// [`Store::page`](super::Store::page).
pub fn page_len(records: &[Record], bytes: usize) -> usize {
    let mut sum = 0_usize;
    let mut fits = |record: &&Record| {
        sum = sum.saturating_add(record.bytes.len());
        sum <= bytes
    };
    records.iter().take_while(|record| fits(record)).count().max(records.len().min(1))
}

#[cfg(test)]
mod tests {
    use super::super::{Expect, conformance};
    use super::*;
    use crate::run::RunStatus;

    fn record(first_seq: u64, events: u32, size: usize) -> Record {
        Record { first_seq, events, bytes: vec![b'x'; size] }
    }

    #[test]
    fn a_page_is_never_empty_and_never_more_than_asked() {
        let records = [record(1, 1, 10), record(2, 1, 10), record(3, 1, 10)];
        let page = |bytes| page_len(&records, bytes);
        assert_eq!([0, 9, 10, 19, 20, 29, 30, usize::MAX].map(page), [1, 1, 1, 1, 2, 2, 3, 3]);
        assert_eq!(page_len(&[], 5), 0);
    }

    #[test]
    fn records_must_follow_each_other_to_the_head() {
        let check = |end: u64, records: &[Record]| {
            let mut order = Continuity { run: RunId::new("r").unwrap(), seq: 0, end };
            records.iter().try_for_each(|record| order.take(record)).and_then(|()| order.finish())
        };
        let good = [record(1, 2, 1), record(3, 1, 1)];
        assert_eq!(check(3, &good), Ok(()));
        for (end, records) in [
            (4, &good[..]),
            (2, &good[..]),
            (3, &good[1..]),
            (3, &[record(1, 0, 1)]),
            (u64::MAX, &[record(2, u32::MAX, 1)]),
            (3, &[]),
        ] {
            let error = check(end, records).unwrap_err();
            assert!(matches!(error, StoreError::Invalid(_)), "{error:?}");
        }
        assert!(matches!(check(1, &[record(1, 1, MAX_RECORD_BYTES + 1)]), Err(StoreError::TooLarge { .. })));
    }

    #[test]
    fn only_what_has_ended_and_owns_nothing_goes() {
        let run = RunId::new("r").unwrap();
        let mut summary = conformance::transition("r", Expect::New, 1).summary;
        for status in RunStatus::ALL.iter().copied() {
            for live in [false, true] {
                (summary.status, summary.live) = (status, live);
                let head = Head { seq: 5, summary: summary.clone() };
                let answer = check_removal(&run, 5, Some(&head));
                assert_eq!(answer.is_ok(), status.is_end() && !live, "{status} {live}: {answer:?}");
                assert_eq!(check_removal(&run, 4, Some(&head)), Err(StoreError::Conflict { seq: 5 }));
            }
        }
        assert!(matches!(check_removal(&run, 5, None), Err(StoreError::NotFound(_))));
    }

    #[test]
    fn a_hold_lasts_as_long_as_any_copy_of_it() {
        let holds = Holds::default();
        let (one, two) = (holds.hold(), holds.hold());
        assert!(holds.check().is_err());
        drop(one);
        assert!(holds.check().is_err());
        drop(two);
        assert_eq!(holds.check(), Ok(()));
    }
}
