//! The suite that any store must pass. Public, so that an embedder can hold a store of their own to it.
//!
//! Write a [`Harness`] that makes fresh stores and opens one again, and await [`run`] in a test. A broken promise
//! is a panic that names the case and the promise. It looks at a store through the trait only; what a disk may do
//! to the data, it does not know.

use futures::future::join_all;

use super::{
    Expect, GraphHash, ListQuery, MAX_RECORD_BYTES, MAX_SUMMARY_BYTES, Record, RunSummary, Store, StoreError,
    Transition,
};
use crate::id::RunId;
use crate::run::RunStatus;
use crate::time::{BoxFuture, Timestamp};

const KIB: usize = 1024;

/// Makes the stores that the suite works on.
pub trait Harness: Send {
    /// The store under test.
    type Store: Store;

    /// An empty store that shares nothing with those made before.
    fn fresh(&mut self) -> BoxFuture<'_, Self::Store>;

    /// Ends this owner of a store in good order and opens the same data again.
    fn reopen(&mut self, store: Self::Store) -> BoxFuture<'_, Self::Store>;
}

/// What a run of the suite did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conformance {
    /// How many cases ran.
    pub cases: usize,
}

/// Runs every case.
///
/// # Panics
/// When the store breaks a promise, with the case and the promise.
pub async fn run<H: Harness>(harness: &mut H) -> Conformance {
    let mut cases = 0;
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {
            $(
                tracing::debug!(case = stringify!($case), "conformance");
                Box::pin($case(harness)).await;
                cases += 1;
            )*
        };
    }
    cases!(
        an_empty_store_has_nothing,
        commits_of_a_run_are_in_order,
        what_is_expected_is_checked,
        a_refused_commit_leaves_no_trace,
        load_starts_at_the_record_asked_for,
        records_of_any_size_come_back,
        what_is_too_large_is_refused,
        a_long_note_is_cut,
        graphs_are_stored_once,
        due_items_are_ordered_and_replaced,
        runs_are_listed_newest_first,
        lists_are_filtered,
        lists_are_paged,
        many_runs_commit_at_once,
        one_of_many_rivals_wins,
        everything_is_there_after_reopening,
        an_earlier_epoch_is_fenced,
        verify_finds_a_used_store_clean,
    );
    Conformance { cases }
}

/// A plain transition of one event for run `run`, to build others from.
///
/// # Panics
/// When `run` is no valid run id.
pub fn transition(run: &str, expect: Expect, epoch: u64) -> Transition {
    let run = RunId::new(run).expect("the suite's run ids are valid");
    let seq = match expect {
        Expect::New => 1,
        Expect::At { seq } => seq.saturating_add(1),
    };
    Transition {
        summary: RunSummary {
            run: run.clone(),
            workflow: "flow".to_owned(),
            site: String::new(),
            status: RunStatus::Running,
            created: Timestamp::from_millis(1_000),
            updated: Timestamp::from_millis(seq.saturating_add(1_000)),
            done: 0,
            total: 3,
            live: false,
            note: String::new(),
        },
        record: format!("{run}:{seq}").into_bytes(),
        run,
        expect,
        epoch,
        events: 1,
        due: None,
        graph: None,
    }
}

fn id(run: &str) -> RunId {
    RunId::new(run).expect("the suite's run ids are valid")
}

async fn commit(store: &impl Store, transition: Transition) -> u64 {
    let text = format!("{} {:?}", transition.run, transition.expect);
    store
        .commit(transition)
        .await
        .unwrap_or_else(|error| panic!("a good commit ({text}) must succeed: {error}"))
}

async fn create(store: &impl Store, run: &str) {
    let seq = commit(store, transition(run, Expect::New, store.epoch())).await;
    assert_eq!(seq, 1, "a commit returns the sequence number of its last event");
}

async fn refused(store: &impl Store, transition: Transition) -> StoreError {
    let text = format!("{} {:?}", transition.run, transition.expect);
    match store.commit(transition).await {
        Err(error) => error,
        Ok(seq) => panic!("the commit ({text}) must be refused, and was acknowledged at event {seq}"),
    }
}

async fn load(store: &impl Store, run: &str, after: u64) -> Vec<Record> {
    store.load(&id(run), after).await.unwrap_or_else(|error| panic!("loading {run} must succeed: {error}"))
}

async fn head(store: &impl Store, run: &str) -> Option<super::Head> {
    store
        .head(&id(run))
        .await
        .unwrap_or_else(|error| panic!("reading the head of {run} must succeed: {error}"))
}

async fn names(store: &impl Store, query: ListQuery) -> Vec<String> {
    let page = store.list(query).await.unwrap_or_else(|error| panic!("listing must succeed: {error}"));
    page.runs.into_iter().map(|summary| summary.run.to_string()).collect()
}

async fn dues(store: &impl Store, until: u64, limit: usize) -> Vec<(u64, String)> {
    let due = store.due(Timestamp::from_millis(until), limit).await;
    let due = due.unwrap_or_else(|error| panic!("reading due items must succeed: {error}"));
    due.into_iter().map(|(at, run)| (at.as_millis(), run.to_string())).collect()
}

async fn assert_clean(store: &impl Store) -> super::VerifyReport {
    let report = store.verify().await.unwrap_or_else(|error| panic!("verify must succeed: {error}"));
    assert!(report.damage.is_empty(), "verify must find nothing wrong, and found {:?}", report.damage);
    report
}

async fn an_empty_store_has_nothing<H: Harness>(harness: &mut H) {
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

async fn commits_of_a_run_are_in_order<H: Harness>(harness: &mut H) {
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

async fn what_is_expected_is_checked<H: Harness>(harness: &mut H) {
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
    let mut empty = transition("a", Expect::At { seq: 2 }, epoch);
    empty.events = 0;
    refused(&store, empty).await;
    let mut foreign = transition("a", Expect::At { seq: 2 }, epoch);
    foreign.summary.run = id("b");
    refused(&store, foreign).await;
    assert_eq!(load(&store, "a", 0).await.len(), 2, "refused commits add nothing");
}

async fn a_refused_commit_leaves_no_trace<H: Harness>(harness: &mut H) {
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

async fn load_starts_at_the_record_asked_for<H: Harness>(harness: &mut H) {
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

async fn records_of_any_size_come_back<H: Harness>(harness: &mut H) {
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

async fn what_is_too_large_is_refused<H: Harness>(harness: &mut H) {
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

async fn a_long_note_is_cut<H: Harness>(harness: &mut H) {
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

async fn graphs_are_stored_once<H: Harness>(harness: &mut H) {
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

async fn due_items_are_ordered_and_replaced<H: Harness>(harness: &mut H) {
    let mut store = harness.fresh().await;
    for (run, at) in [("c", 30), ("a", 10), ("b2", 20), ("b1", 20), ("far", u64::MAX)] {
        let mut new = transition(run, Expect::New, store.epoch());
        new.due = Some(Timestamp::from_millis(at));
        commit(&store, new).await;
    }
    create(&store, "never").await;
    let owned =
        |items: &[(u64, &str)]| items.iter().map(|(at, run)| (*at, (*run).to_owned())).collect::<Vec<_>>();
    assert!(dues(&store, 9, 10).await.is_empty(), "nothing is due too early");
    assert_eq!(dues(&store, 10, 10).await, owned(&[(10, "a")]), "what is due now is due");
    assert_eq!(
        dues(&store, 29, 10).await,
        owned(&[(10, "a"), (20, "b1"), (20, "b2")]),
        "earliest first, then by id"
    );
    assert_eq!(dues(&store, 29, 2).await.len(), 2, "the limit holds");
    for (run, at) in [("a", Some(25)), ("b1", None), ("b2", Some(20))] {
        let mut next = transition(run, Expect::At { seq: 1 }, store.epoch());
        next.due = at.map(Timestamp::from_millis);
        commit(&store, next).await;
    }
    for _ in 0..2 {
        assert_eq!(
            dues(&store, 1_000, 10).await,
            owned(&[(20, "b2"), (25, "a"), (30, "c")]),
            "a commit replaces or removes the run's due item"
        );
        assert_clean(&store).await;
        store = harness.reopen(store).await;
    }
}

/// Ten runs, the later ones newer; statuses, workflows and sites alternate.
async fn ten_runs(store: &impl Store) {
    for i in 0..10_u64 {
        let run = format!("run-{}", (i * 7) % 10);
        let mut new = transition(&run, Expect::New, store.epoch());
        new.summary.created = Timestamp::from_millis(1_000 + i / 2);
        new.summary.status = if i % 2 == 0 { RunStatus::Succeeded } else { RunStatus::Failed };
        new.summary.workflow = String::from(if i < 5 { "first" } else { "second" });
        new.summary.site = String::from(if i % 3 == 0 { "lab" } else { "" });
        commit(store, new).await;
    }
}

async fn runs_are_listed_newest_first<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    ten_runs(&store).await;
    // Changing a run does not move it: the order is that of creation.
    let mut next = transition("run-0", Expect::At { seq: 1 }, store.epoch());
    next.summary.updated = Timestamp::from_millis(9_999);
    commit(&store, next).await;
    let page = store.list(ListQuery::default()).await.expect("listing succeeds");
    assert_eq!(page.cursor, None, "a full answer has no cursor");
    assert_eq!(page.runs.len(), 10, "every run is listed once");
    let keys: Vec<_> = page.runs.iter().map(|s| (s.created, s.run.clone())).collect();
    assert!(keys.is_sorted_by(|a, b| a > b), "newest first, and of one moment the later id first: {keys:?}");
    let zero = page.runs.iter().find(|s| s.run.as_str() == "run-0").expect("listed");
    assert_eq!(zero.updated, Timestamp::from_millis(9_999), "the list shows the last summary");
}

async fn lists_are_filtered<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    ten_runs(&store).await;
    create(&store, "other").await;
    let count = async |query: ListQuery| names(&store, query).await.len();
    let all = ListQuery::default();
    assert_eq!(count(ListQuery { statuses: vec![RunStatus::Failed], ..all.clone() }).await, 5, "by status");
    let ends = vec![RunStatus::Failed, RunStatus::Succeeded];
    assert_eq!(count(ListQuery { statuses: ends, ..all.clone() }).await, 10, "by several statuses");
    assert_eq!(
        count(ListQuery { workflow: Some("second".to_owned()), ..all.clone() }).await,
        5,
        "by workflow"
    );
    assert_eq!(count(ListQuery { site: Some("lab".to_owned()), ..all.clone() }).await, 4, "by site");
    assert_eq!(count(ListQuery { prefix: Some("run-".to_owned()), ..all.clone() }).await, 10, "by prefix");
    assert_eq!(
        count(ListQuery { prefix: Some("run-3".to_owned()), ..all.clone() }).await,
        1,
        "by a whole id"
    );
    let mut both = ListQuery { site: Some("lab".to_owned()), ..all };
    both.statuses = vec![RunStatus::Succeeded];
    assert_eq!(count(both).await, 2, "all filters hold at once");
}

async fn lists_are_paged<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    ten_runs(&store).await;
    let everything = names(&store, ListQuery::default()).await;
    for statuses in [vec![], vec![RunStatus::Failed]] {
        let filtered = names(&store, ListQuery { statuses: statuses.clone(), ..ListQuery::default() }).await;
        for limit in [1, 2, 3, 5, 10, 11] {
            let mut query = ListQuery { limit, statuses: statuses.clone(), ..ListQuery::default() };
            let mut seen = Vec::new();
            loop {
                let page = store.list(query.clone()).await.expect("listing succeeds");
                assert!(page.runs.len() <= limit, "a page has at most {limit} runs");
                seen.extend(page.runs.iter().map(|s| s.run.to_string()));
                if page.cursor.is_none() {
                    break;
                }
                assert!(seen.len() <= everything.len(), "paging comes to an end");
                query.cursor = page.cursor;
            }
            assert_eq!(seen, filtered, "pages of {limit} hold every run once, in order");
        }
    }
    let page = store.list(ListQuery { limit: 1, ..ListQuery::default() }).await.expect("listing succeeds");
    let mut newer = transition("newer", Expect::New, store.epoch());
    newer.summary.created = Timestamp::from_millis(99_999);
    commit(&store, newer).await;
    let rest = names(&store, ListQuery { cursor: page.cursor, ..ListQuery::default() }).await;
    assert_eq!(rest, everything[1..], "a run that is created between two pages disturbs neither");
    let bad = store.list(ListQuery { cursor: Some("nonsense".to_owned()), ..ListQuery::default() }).await;
    assert!(bad.is_err(), "a cursor that no store wrote is an error");
}

async fn many_runs_commit_at_once<H: Harness>(harness: &mut H) {
    const RUNS: usize = 50;
    const COMMITS: u64 = 10;
    let mut store = harness.fresh().await;
    let one_run = async |i: usize| {
        let run = format!("run-{i}");
        create(&store, &run).await;
        for seq in 1..COMMITS {
            commit(&store, transition(&run, Expect::At { seq }, store.epoch())).await;
        }
    };
    join_all((0..RUNS).map(one_run)).await;
    for _ in 0..2 {
        for i in 0..RUNS {
            let run = format!("run-{i}");
            let records = load(&store, &run, 0).await;
            let texts: Vec<_> = records.iter().map(|record| String::from_utf8_lossy(&record.bytes)).collect();
            let expected: Vec<_> = (1..=COMMITS).map(|seq| format!("{run}:{seq}")).collect();
            assert_eq!(texts, expected, "each run's records are in order, none lost, none twice");
        }
        let report = assert_clean(&store).await;
        assert_eq!((report.runs, report.events), (RUNS as u64, RUNS as u64 * COMMITS));
        store = harness.reopen(store).await;
    }
}

async fn one_of_many_rivals_wins<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let rival = async |expect: Expect, i: u8| {
        let mut rival = transition("a", expect, store.epoch());
        rival.record = vec![i];
        (i, store.commit(rival).await)
    };
    for round in 0..5_u64 {
        let expect = if round == 0 { Expect::New } else { Expect::At { seq: round } };
        let answers = join_all((0..20).map(|i| rival(expect.clone(), i))).await;
        let winners: Vec<u8> = answers.iter().filter(|(_, answer)| answer.is_ok()).map(|(i, _)| *i).collect();
        assert_eq!(winners.len(), 1, "of rivals that expect the same head exactly one wins");
        for (_, answer) in answers {
            match answer {
                Ok(seq) => assert_eq!(seq, round + 1),
                Err(StoreError::Exists(_)) if round == 0 => {}
                Err(StoreError::Conflict { seq }) if round > 0 => assert_eq!(seq, round + 1),
                Err(error) => panic!("a loser gets Exists or Conflict, not {error:?}"),
            }
        }
        let last = load(&store, "a", round).await;
        assert_eq!(
            last.first().map(|r| r.bytes.clone()),
            Some(winners),
            "the winner's record is the one stored"
        );
    }
}

async fn everything_is_there_after_reopening<H: Harness>(harness: &mut H) {
    let mut store = harness.fresh().await;
    let (store_id, hash) = (store.id(), GraphHash("aa".to_owned()));
    for round in 0..4_u64 {
        let expect = if round == 0 { Expect::New } else { Expect::At { seq: round } };
        let mut next = transition("a", expect, store.epoch());
        next.due = Some(Timestamp::from_millis(100 + round));
        next.graph = (round == 0).then(|| (hash.clone(), vec![9; 5_000]));
        commit(&store, next).await;
        let epoch = store.epoch();
        store = harness.reopen(store).await;
        assert_eq!(store.id(), store_id, "a store keeps its id for ever");
        assert!(store.epoch() > epoch, "opening a store raises its epoch");
        assert_eq!(head(&store, "a").await.map(|head| head.seq), Some(round + 1), "the head survives");
        assert_eq!(load(&store, "a", 0).await.len() as u64, round + 1, "the records survive");
        assert_eq!(dues(&store, 1_000, 9).await, [(100 + round, "a".to_owned())], "the due item survives");
        assert_eq!(store.graph(&hash).await, Ok(vec![9; 5_000]), "the graph survives");
        assert_eq!(names(&store, ListQuery::default()).await, ["a"], "the list survives");
        assert_clean(&store).await;
    }
}

async fn an_earlier_epoch_is_fenced<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    create(&store, "a").await;
    let stale = transition("a", Expect::At { seq: 1 }, store.epoch());
    let stale_new = transition("b", Expect::New, store.epoch());
    let store = harness.reopen(store).await;
    let epoch = store.epoch();
    for stale in [stale, stale_new] {
        let error = refused(&store, stale).await;
        assert_eq!(error, StoreError::Fenced { epoch }, "a change decided under an earlier epoch is fenced");
    }
    assert_eq!(head(&store, "a").await.map(|head| head.seq), Some(1), "a fenced change is not written");
    assert_eq!(head(&store, "b").await, None, "a fenced change is not written");
    commit(&store, transition("a", Expect::At { seq: 1 }, epoch)).await;
}

async fn verify_finds_a_used_store_clean<H: Harness>(harness: &mut H) {
    let mut store = harness.fresh().await;
    for round in 0..3_u64 {
        for i in 0..20_u64 {
            let expect = if round == 0 { Expect::New } else { Expect::At { seq: round } };
            let mut next = transition(&format!("run-{i}"), expect, store.epoch());
            next.due = (i % 3 == round).then(|| Timestamp::from_millis(i));
            next.record = vec![b'x'; usize::try_from(i * i * 30).expect("small")];
            commit(&store, next).await;
        }
        let report = assert_clean(&store).await;
        assert_eq!((report.runs, report.events), (20, 20 * (round + 1)), "verify reads every event");
        assert_eq!(report.bytes, 74_100 * (round + 1), "verify reads every byte");
        store = harness.reopen(store).await;
    }
}
