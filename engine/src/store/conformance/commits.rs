//! What commits promise: order, atomicity, limits; and what comes back.

use super::super::{
    Expect, GraphHash, ListQuery, MAX_RECORD_BYTES, MAX_SUMMARY_BYTES, Store as _, StoreError,
};
use super::transition;
use super::{Harness, assert_clean, commit, create, dues, head, id, load, names, refused};
use crate::run::RunStatus;
use crate::time::Timestamp;

const KIB: usize = 1024;

pub(super) async fn an_empty_store_has_nothing<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    assert!(store.epoch() >= 1, "epochs count from 1");
    assert_eq!(head(&store, "nobody").await, None, "an unknown run has no head");
    assert_eq!(load(&store, "nobody", 0).await, [], "an unknown run has no records");
    assert!(names(&store, ListQuery::default()).await.is_empty(), "an empty store lists nothing");
    assert!(dues(&store, u64::MAX, 10).await.is_empty(), "an empty store has nothing due");
    let graph = store.graph(&GraphHash("00".to_owned())).await;
    assert!(matches!(graph, Err(StoreError::NotFound(_))), "an unknown graph is NotFound, not {graph:?}");
    assert_eq!(assert_clean(&store).await.runs, 0);
}

pub(super) async fn commits_of_a_run_are_in_order<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    create(&store, "a").await;
    for (seq, events) in [(1, 3), (4, 1), (5, 2)] {
        let mut next = transition("a", Expect::At { seq }, store.epoch());
        next.events = events;
        next.record = vec![u8::try_from(seq).expect("small"); 10];
        assert_eq!(commit(&store, next).await, seq + u64::from(events), "the new head is the last event");
    }
    let shape: Vec<_> =
        load(&store, "a", 0).await.iter().map(|r| (r.first_seq, r.events, r.bytes[0])).collect();
    assert_eq!(
        shape,
        [(1, 1, b'a'), (2, 3, 1), (5, 1, 4), (6, 2, 5)],
        "records come back in order, unchanged"
    );
    let head = head(&store, "a").await.expect("a committed run has a head");
    assert_eq!(head.seq, 7, "the head is at the last event");
    assert_eq!(head.summary.updated, Timestamp::from_millis(1_006), "the summary is the last one committed");
}

pub(super) async fn what_is_expected_is_checked<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let epoch = store.epoch();
    let error = refused(&store, transition("a", Expect::At { seq: 1 }, epoch)).await;
    assert_eq!(error, StoreError::Conflict { seq: 0 }, "a run that does not exist is at event 0");
    let error = refused(&store, transition("a", Expect::At { seq: 0 }, epoch)).await;
    assert_eq!(error, StoreError::Conflict { seq: 0 }, "only Expect::New creates a run");
    create(&store, "a").await;
    let error = refused(&store, transition("a", Expect::New, epoch)).await;
    assert_eq!(error, StoreError::Exists(id("a")), "a run is created once");
    commit(&store, transition("a", Expect::At { seq: 1 }, epoch)).await;
    for seq in [0, 1, 3, u64::MAX] {
        let error = refused(&store, transition("a", Expect::At { seq }, epoch)).await;
        assert_eq!(error, StoreError::Conflict { seq: 2 }, "a change decided elsewhere is refused");
    }
    assert_eq!(load(&store, "a", 0).await.len(), 2, "refused commits add nothing");
}

pub(super) async fn what_makes_no_sense_is_invalid<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    create(&store, "a").await;
    let next = || transition("a", Expect::At { seq: 1 }, store.epoch());
    let mut empty = next();
    empty.events = 0;
    let mut foreign = next();
    foreign.summary.run = id("b");
    let mut graph = next();
    graph.graph = Some((GraphHash("a/\0".to_owned()), vec![1]));
    for (what, transition) in
        [("no events", empty), ("the summary of another run", foreign), ("no hash", graph)]
    {
        let error = refused(&store, transition).await;
        assert!(
            matches!(error, StoreError::Invalid(_)),
            "a transition with {what} is Invalid, not {error:?}"
        );
    }
    let bad = ListQuery { cursor: Some("nonsense".to_owned()), ..ListQuery::default() };
    let bad = store.list(bad).await;
    assert!(matches!(bad, Err(StoreError::Invalid(_))), "a cursor that no store wrote is Invalid: {bad:?}");
    assert_eq!(head(&store, "a").await.map(|head| head.seq), Some(1), "nothing of it is written");
    commit(&store, next()).await;
}

pub(super) async fn a_refused_commit_leaves_no_trace<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    create(&store, "a").await;
    let mut bad = transition("a", Expect::At { seq: 9 }, store.epoch());
    bad.due = Some(Timestamp::from_millis(5));
    bad.graph = Some((GraphHash("ab".to_owned()), b"graph".to_vec()));
    bad.summary.status = RunStatus::Failed;
    bad.record = vec![7; 100_000];
    refused(&store, bad.clone()).await;
    bad.expect = Expect::New;
    refused(&store, bad).await;
    assert!(dues(&store, u64::MAX, 10).await.is_empty(), "a refused commit sets no due item");
    let graph = store.graph(&GraphHash("ab".to_owned())).await;
    assert!(matches!(graph, Err(StoreError::NotFound(_))), "a refused commit stores no graph");
    let head = head(&store, "a").await.expect("the run is there");
    assert_eq!((head.seq, head.summary.status), (1, RunStatus::Running), "a refused commit changes no head");
    let failed = ListQuery { statuses: vec![RunStatus::Failed], ..ListQuery::default() };
    assert!(names(&store, failed).await.is_empty(), "a refused commit changes no summary");
    assert_eq!(assert_clean(&store).await.events, 1);
}

pub(super) async fn load_starts_at_the_record_asked_for<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    create(&store, "a").await;
    create(&store, "a0").await;
    create(&store, "a/b").await;
    for seq in [1, 4, 7] {
        let mut next = transition("a", Expect::At { seq }, store.epoch());
        next.events = 3;
        commit(&store, next).await;
    }
    for (after, first) in [(0, 1), (1, 2), (2, 2), (3, 2), (4, 5), (6, 5), (7, 8), (9, 8)] {
        let records = load(&store, "a", after).await;
        assert_eq!(
            records[0].first_seq,
            first,
            "load(after {after}) starts with the record of event {}",
            after + 1
        );
        assert_eq!(records.last().map(|r| r.first_seq), Some(8), "load goes on to the last record");
    }
    assert!(load(&store, "a", 10).await.is_empty(), "there is nothing after the last event");
    assert!(load(&store, "a", u64::MAX).await.is_empty(), "there is nothing after the last event");
    assert_eq!(load(&store, "a0", 0).await.len(), 1, "runs whose names start alike are kept apart");
}

pub(super) async fn records_of_any_size_come_back<H: Harness>(harness: &mut H) {
    let mut store = harness.fresh().await;
    let mut sizes = vec![0, 1];
    for edge in [4 * KIB, 8 * KIB, 64 * KIB, KIB * KIB] {
        sizes.extend([edge - 64, edge - 1, edge, edge + 1, edge + 64]);
    }
    // Not periodic in any chunk size, so that swapped or repeated chunks show.
    let bytes = |size: usize| -> Vec<u8> {
        let mut state = size as u64 + 1;
        (0..size)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect()
    };
    create(&store, "a").await;
    for (i, size) in sizes.iter().enumerate() {
        let mut next = transition("a", Expect::At { seq: i as u64 + 1 }, store.epoch());
        next.record = bytes(*size);
        if *size > KIB {
            next.graph = Some((GraphHash(format!("{size:x}")), bytes(*size)));
        }
        commit(&store, next).await;
    }
    for round in ["before", "after"] {
        let records = load(&store, "a", 1).await;
        assert_eq!(records.len(), sizes.len(), "{round} reopening: every record is there");
        for (record, size) in records.iter().zip(&sizes) {
            assert!(
                record.bytes == bytes(*size),
                "{round} reopening: a record of {size} bytes comes back unchanged"
            );
        }
        for size in sizes.iter().filter(|size| **size > KIB) {
            let graph = store.graph(&GraphHash(format!("{size:x}"))).await;
            assert!(
                graph.is_ok_and(|graph| graph == bytes(*size)),
                "{round} reopening: a graph of {size} bytes comes back unchanged"
            );
        }
        let tail = load(&store, "a", sizes.len() as u64).await;
        assert_eq!(tail.len(), 1, "{round} reopening: load(after) finds the last of the large records");
        assert_clean(&store).await;
        if round == "before" {
            store = harness.reopen(store).await;
        }
    }
}

pub(super) async fn what_is_too_large_is_refused<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    create(&store, "a").await;
    let next = || transition("a", Expect::At { seq: 1 }, store.epoch());
    let mut record = next();
    record.record = vec![0; MAX_RECORD_BYTES + 1];
    let mut summary = next();
    summary.summary.site = "s".repeat(MAX_SUMMARY_BYTES);
    let mut graph = next();
    graph.graph = Some((GraphHash("h".repeat(1000)), vec![1]));
    for (what, transition) in [("record", record), ("summary", summary), ("graph hash", graph)] {
        let error = refused(&store, transition).await;
        assert!(
            matches!(error, StoreError::TooLarge { .. }),
            "a {what} over its limit is TooLarge, not {error:?}"
        );
    }
    assert_eq!(head(&store, "a").await.map(|head| head.seq), Some(1), "nothing of it is written");
    commit(&store, next()).await;
}

pub(super) async fn a_long_note_is_cut<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let names = [(1, "x"), (80, "\u{1}"), (80, "é"), (80, "\\")];
    for (i, (len, unit)) in names.into_iter().enumerate() {
        let run = format!("{i}{}", "r".repeat(len - 1));
        let mut new = transition(&run, Expect::New, store.epoch());
        new.summary.note = unit.repeat(2_000);
        commit(&store, new).await;
        let summary = head(&store, &run).await.expect("the run is there").summary;
        let size = serde_json::to_vec(&summary).expect("a summary can be written as JSON").len();
        assert!(size <= MAX_SUMMARY_BYTES, "a summary has at most {MAX_SUMMARY_BYTES} bytes, not {size}");
        assert!(summary.note.starts_with(unit), "the note is cut at its end, not dropped");
    }
}

pub(super) async fn graphs_are_stored_once<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let hash = GraphHash("c0ffee".repeat(10));
    for run in ["a", "b"] {
        let mut new = transition(run, Expect::New, store.epoch());
        new.graph = Some((hash.clone(), b"the graph".to_vec()));
        commit(&store, new).await;
    }
    assert_eq!(store.graph(&hash).await.as_deref(), Ok(&b"the graph"[..]), "a graph is found by its hash");
    let other = store.graph(&GraphHash("c0ffee".repeat(9))).await;
    assert!(matches!(other, Err(StoreError::NotFound(_))), "a hash that is a prefix of another is not found");
    assert_clean(&store).await;
}
