//! What a store promises that can be copied and pruned.

use futures::future::{join, join_all};

use super::super::{Expect, GraphHash, ListQuery, Record, RunSummary, Store, StoreError, Swept, WholeRun};
use super::{Harness, assert_clean, claim, commit, create, dues, head, id, load, names, transition};
use crate::run::RunStatus;
use crate::time::Timestamp;

const KIB: usize = 1024;

/// What the suite's records name: a record `graphs aa bb ...` the graphs `aa` and `bb`.
fn named(_first_seq: u64, record: &[u8]) -> Result<Vec<GraphHash>, String> {
    if record == b"not to be read" {
        return Err("the suite says so".to_owned());
    }
    let text = String::from_utf8_lossy(record);
    let Some(text) = text.strip_prefix("graphs ") else { return Ok(Vec::new()) };
    Ok(text.split(' ').map(hash).collect())
}

fn hash(text: &str) -> GraphHash {
    GraphHash(text.to_owned())
}

async fn swept(store: &impl Store) -> Swept {
    store.sweep(named).await.unwrap_or_else(|error| panic!("a sweep must succeed: {error}"))
}

async fn has_graph(store: &impl Store, text: &str) -> bool {
    match store.graph(&hash(text)).await {
        Ok(_) => true,
        Err(StoreError::NotFound(_)) => false,
        Err(error) => panic!("a graph is there or NotFound, not {error:?}"),
    }
}

/// Removes a run as its owner.
async fn remove(store: &impl Store, run: &str, seq: u64) -> Result<(), StoreError> {
    let epoch = claim(store, run, 0, 0).await.expect("it is ours").epoch;
    store.remove(&id(run), seq, epoch).await
}

/// A run of one event that has ended.
async fn ended(store: &impl Store, run: &str, status: RunStatus, live: bool) {
    let mut new = transition(run, Expect::New, store.epoch());
    (new.summary.status, new.summary.live) = (status, live);
    commit(store, new).await;
}

/// A run with these records, each of one event, as it is in a backup.
fn whole(run: &str, records: &[&[u8]]) -> WholeRun<'static> {
    let seq = records.len() as u64;
    let records: Vec<_> = (1..)
        .zip(records)
        .map(|(first_seq, bytes)| Ok(Record { first_seq, events: 1, bytes: bytes.to_vec() }))
        .collect();
    WholeRun {
        run: id(run),
        seq,
        summary: transition(run, Expect::New, 1).summary,
        due: None,
        graphs: Vec::new(),
        records: Box::new(records.into_iter()),
    }
}

/// What a store has of a run, all of it.
async fn all_of(store: &impl Store, run: &str) -> (Option<(u64, RunSummary)>, Vec<Record>) {
    (head(store, run).await.map(|head| (head.seq, head.summary)), load(store, run, 0).await)
}

pub(super) async fn a_page_is_the_start_of_what_is_left<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    create(&store, "a").await;
    for seq in 1..30_u64 {
        let mut next = transition("a", Expect::At { seq }, store.epoch());
        next.record = vec![b'x'; usize::try_from(seq).expect("small") * 700];
        commit(&store, next).await;
    }
    let all = load(&store, "a", 0).await;
    for bytes in [0, 1, 5 * KIB, 50 * KIB, 64 * 1024 * KIB] {
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let page = store.page(&id("a"), after, bytes).await.expect("a page can be read");
            let Some(last) = page.last() else { break };
            let sum: usize = page.iter().map(|record| record.bytes.len()).sum();
            assert!(sum <= bytes || page.len() == 1, "a page of {bytes} bytes has {sum}");
            after = last.first_seq + u64::from(last.events) - 1;
            found.extend(page);
        }
        assert_eq!(found, all, "the pages of {bytes} bytes together are the records");
    }
    let page = store.page(&id("nobody"), 0, 100).await;
    assert_eq!(page, Ok(Vec::new()), "an unknown run has no records");
}

pub(super) async fn a_snapshot_is_of_one_instant<H: Harness>(harness: &mut H) {
    const ROUNDS: u64 = 60;
    let store = harness.fresh().await;
    assert_eq!(store.snapshot().await.expect("an empty store can be copied").heads, []);
    create(&store, "b").await;
    let mut first = transition("a", Expect::New, store.epoch());
    first.due = Some(Timestamp::from_millis(77));
    commit(&store, first).await;
    // `b` follows `a`: at no instant is it ahead, or two behind.
    let write = async {
        for seq in 1..ROUNDS {
            commit(&store, transition("a", Expect::At { seq }, store.epoch())).await;
            commit(&store, transition("b", Expect::At { seq }, store.epoch())).await;
        }
    };
    let copy = async {
        let mut snapshots = Vec::new();
        for _ in 0..20 {
            snapshots.push(store.snapshot().await.expect("a store in use can be copied"));
        }
        snapshots
    };
    let ((), snapshots) = join(write, copy).await;
    for snapshot in &snapshots {
        let [a, b] = &snapshot.heads[..] else { panic!("a snapshot has all runs: {snapshot:?}") };
        assert_eq!((a.run.as_str(), b.run.as_str()), ("a", "b"), "ordered by run id");
        let (a, b) = (a.seq, b.seq);
        assert!(a == b || a == b + 1, "heads of one instant, not {a} and {b}");
    }
    let heads = &snapshots[0].heads;
    assert_eq!(heads[0].due, (heads[0].seq == 1).then_some(Timestamp::from_millis(77)), "with its due item");
    let records = load(&store, "a", 0).await;
    assert_eq!(records.len() as u64, ROUNDS, "what came later does not change what a snapshot shows");
}

pub(super) async fn nothing_is_removed_while_a_snapshot_is_there<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    ended(&store, "a", RunStatus::Succeeded, false).await;
    let (first, second) = (store.snapshot().await.expect("it can"), store.snapshot().await.expect("it can"));
    drop(first);
    let answer = remove(&store, "a", 1).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "a snapshot keeps runs: {answer:?}");
    let answer = store.sweep(named).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "a snapshot keeps graphs: {answer:?}");
    create(&store, "b").await;
    assert_eq!(load(&store, "a", 0).await.len(), 1, "the run is there");
    drop(second);
    assert_eq!(remove(&store, "a", 1).await, Ok(()), "a snapshot that is gone keeps nothing");
    swept(&store).await;
}

pub(super) async fn only_ended_runs_that_own_nothing_are_removed<H: Harness>(harness: &mut H) {
    let mut store = harness.fresh().await;
    let mut number = 0;
    for status in RunStatus::ALL.iter().copied() {
        for live in [false, true] {
            number += 1;
            let run = format!("run-{number}");
            ended(&store, &run, status, live).await;
            let before = all_of(&store, &run).await;
            let answer = remove(&store, &run, 1).await;
            if status.is_end() && !live {
                assert_eq!(answer, Ok(()), "{status}, live: {live}");
                assert_eq!(all_of(&store, &run).await, (None, Vec::new()), "it is gone");
            } else {
                assert!(matches!(answer, Err(StoreError::Invalid(_))), "{status}, live: {live}: {answer:?}");
                assert_eq!(all_of(&store, &run).await, before, "a refused removal changes nothing");
            }
        }
    }
    ended(&store, "a", RunStatus::Failed, false).await;
    for seq in [0, 2] {
        assert_eq!(remove(&store, "a", seq).await, Err(StoreError::Conflict { seq: 1 }), "it is elsewhere");
    }
    let answer = remove(&store, "nobody", 1).await;
    assert!(matches!(answer, Err(StoreError::NotFound(_))), "an unknown run is NotFound, not {answer:?}");
    let old = claim(&store, "a", 0, 0).await.expect("it is ours").epoch;
    store = harness.reopen(store).await;
    claim(&store, "a", 1, 1_000).await.expect("the first owner is gone");
    let answer = store.remove(&id("a"), 1, old).await;
    assert!(matches!(answer, Err(StoreError::Fenced { .. })), "an earlier epoch is fenced: {answer:?}");
    assert!(head(&store, "a").await.is_some(), "and removes nothing");
    assert_clean(&store).await;
}

pub(super) async fn a_removed_run_is_gone_for_good<H: Harness>(harness: &mut H) {
    let mut store = harness.fresh().await;
    for run in ["a", "b"] {
        let mut new = transition(run, Expect::New, store.epoch());
        new.due = Some(Timestamp::from_millis(5));
        commit(&store, new).await;
        for (seq, size) in (1..).zip([10, 5 * KIB, 300 * KIB]) {
            let mut next = transition(run, Expect::At { seq }, store.epoch());
            next.record = vec![run.as_bytes()[0]; size];
            next.due = Some(Timestamp::from_millis(6));
            next.summary.status = RunStatus::Failed;
            next.summary.labels = [("team".to_owned(), "data".to_owned())].into();
            commit(&store, next).await;
        }
    }
    let kept = all_of(&store, "b").await;
    assert_eq!(remove(&store, "a", 4).await, Ok(()));
    for round in 0..2 {
        assert_eq!(all_of(&store, "a").await, (None, Vec::new()), "round {round}: head and records are gone");
        let by_label =
            ListQuery { labels: [("team".to_owned(), "data".to_owned())].into(), ..ListQuery::default() };
        for query in [ListQuery::default(), by_label] {
            assert_eq!(names(&store, query).await, ["b"], "round {round}: it is in no list");
        }
        assert_eq!(dues(&store, 100, 9).await, [(6, "b".to_owned())], "round {round}: nothing of it is due");
        assert_eq!(all_of(&store, "b").await, kept, "round {round}: the other run is as it was");
        assert_eq!(assert_clean(&store).await.runs, 1);
        let answer = remove(&store, "a", 4).await;
        assert!(matches!(answer, Err(StoreError::NotFound(_))), "it is removed once: {answer:?}");
        store = harness.reopen(store).await;
    }
    let answer = store
        .commit(transition("a", Expect::At { seq: 4 }, claim(&store, "a", 0, 0).await.expect("ours").epoch))
        .await;
    assert_eq!(answer, Err(StoreError::Conflict { seq: 0 }), "a removed run does not go on");
    create(&store, "a").await;
    commit(&store, transition("a", Expect::At { seq: 1 }, store.epoch())).await;
    let texts: Vec<_> = load(&store, "a", 0).await.into_iter().map(|record| record.bytes).collect();
    assert_eq!(texts, [b"a:1", b"a:2"], "a new run of its id begins anew");
    let store = harness.reopen(store).await;
    assert_eq!(load(&store, "a", 0).await.len(), 2);
    assert_eq!(assert_clean(&store).await.runs, 2);
}

pub(super) async fn a_removal_and_a_commit_exclude_each_other<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    for round in 0..20 {
        let run = format!("run-{round}");
        ended(&store, &run, RunStatus::Failed, false).await;
        let epoch = claim(&store, &run, 0, 0).await.expect("it is ours").epoch;
        let name = id(&run);
        let remove = store.remove(&name, 1, epoch);
        let go_on = store.commit(transition(&run, Expect::At { seq: 1 }, epoch));
        let (removed, gone_on) = if round % 2 == 0 {
            join(remove, go_on).await
        } else {
            let (gone_on, removed) = join(go_on, remove).await;
            (removed, gone_on)
        };
        let seq = head(&store, &run).await.map(|head| head.seq);
        match (removed, gone_on) {
            (Ok(()), Err(StoreError::Conflict { seq: 0 })) => assert_eq!(seq, None),
            (Err(StoreError::Conflict { seq: 2 }), Ok(2)) => assert_eq!(seq, Some(2)),
            other => panic!("just one of a removal and a commit takes place, not {other:?}"),
        }
    }
    assert_clean(&store).await;
}

pub(super) async fn a_sweep_removes_what_no_run_names<H: Harness>(harness: &mut H) {
    let mut store = harness.fresh().await;
    let graph = |text: &str, size| Some((hash(text), vec![b'g'; size]));
    for (run, first, second) in [("a", "aa", "bb"), ("b", "cc", "dd"), ("c", "aa", "ee")] {
        let mut new = transition(run, Expect::New, store.epoch());
        (new.graph, new.record) = (graph(first, 100 * KIB), format!("graphs {first}").into_bytes());
        commit(&store, new).await;
        let mut next = transition(run, Expect::At { seq: 1 }, store.epoch());
        (next.graph, next.record) = (graph(second, 3 * KIB), format!("graphs {second} {first}").into_bytes());
        commit(&store, next).await;
        let mut large = transition(run, Expect::At { seq: 2 }, store.epoch());
        large.summary.status = RunStatus::Succeeded;
        large.record = vec![run.as_bytes()[0]; 200 * KIB];
        commit(&store, large).await;
    }
    assert_eq!(swept(&store).await, Swept::default(), "nothing is swept that a run names");
    for run in ["a", "b"] {
        assert_eq!(remove(&store, run, 3).await, Ok(()));
    }
    let done = swept(&store).await;
    assert_eq!(done.graphs, 3, "bb, cc and dd: {done:?}");
    assert!(done.bytes >= (100 + 3 + 3) * KIB as u64, "their bytes: {done:?}");
    for round in 0..2 {
        let mut there = Vec::new();
        for text in ["aa", "bb", "cc", "dd", "ee"] {
            there.push(has_graph(&store, text).await);
        }
        assert_eq!(there, [true, false, false, false, true], "round {round}: what the last run names stays");
        assert_eq!(load(&store, "c", 2).await[0].bytes.len(), 200 * KIB, "round {round}: and its records");
        assert_clean(&store).await;
        assert_eq!(swept(&store).await, Swept::default(), "round {round}: the second time there is nothing");
        store = harness.reopen(store).await;
    }
    // What was swept can be stored again, also by an owner that knew it.
    assert_eq!(remove(&store, "c", 3).await, Ok(()));
    assert_eq!(swept(&store).await.graphs, 2);
    let mut new = transition("d", Expect::New, store.epoch());
    (new.graph, new.record) = (graph("aa", 100 * KIB), b"graphs aa".to_vec());
    commit(&store, new).await;
    assert_eq!(swept(&store).await, Swept::default());
    assert_eq!(store.graph(&hash("aa")).await.map(|bytes| bytes.len()), Ok(100 * KIB), "it is there again");
    assert_clean(&store).await;
}

pub(super) async fn a_sweep_leaves_everything_when_it_cannot_read<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    assert_eq!(store.put_graph(&hash("aa"), vec![1; 10]).await, Ok(()));
    let mut new = transition("a", Expect::New, store.epoch());
    (new.record, new.summary.status) = (b"not to be read".to_vec(), RunStatus::Failed);
    commit(&store, new).await;
    let answer = store.sweep(named).await;
    assert!(matches!(answer, Err(StoreError::Corrupt(_))), "a record that cannot be read: {answer:?}");
    assert!(has_graph(&store, "aa").await, "it may name any graph");
    assert_eq!(remove(&store, "a", 1).await, Ok(()));
    assert_eq!(swept(&store).await.graphs, 1);
    assert!(!has_graph(&store, "aa").await);
}

pub(super) async fn a_sweep_spares_what_is_on_its_way<H: Harness>(harness: &mut H) {
    const RUNS: usize = 40;
    let store = harness.fresh().await;
    let create = async {
        for i in 0..RUNS {
            // Each graph is swept, stored again, or there all along.
            let text = format!("a{}", i % 7);
            let mut new = transition(&format!("run-{i}"), Expect::New, store.epoch());
            (new.graph, new.record) =
                (Some((hash(&text), vec![7; 90 * KIB])), format!("graphs {text}").into_bytes());
            new.summary.status = RunStatus::Succeeded;
            commit(&store, new).await;
            if i % 3 == 0 {
                assert_eq!(remove(&store, &format!("run-{i}"), 1).await, Ok(()));
            }
        }
    };
    let sweep = async {
        for _ in 0..10 {
            swept(&store).await;
        }
    };
    join(create, sweep).await;
    let store = harness.reopen(store).await;
    for i in (0..RUNS).filter(|i| i % 3 != 0) {
        assert!(has_graph(&store, &format!("a{}", i % 7)).await, "run-{i} was acknowledged with its graph");
    }
    assert_clean(&store).await;
}

pub(super) async fn an_imported_run_is_as_it_was<H: Harness>(harness: &mut H) {
    let source = harness.fresh().await;
    let large = vec![b'y'; 400 * KIB];
    for (seq, bytes) in (0..).zip([&b"graphs aa"[..], &[0, 159, 146, 150], &large, b"", b"the last"]) {
        let expect = if seq == 0 { Expect::New } else { Expect::At { seq } };
        let mut next = transition("a", expect, source.epoch());
        (next.record, next.due) = (bytes.to_vec(), Some(Timestamp::from_millis(9)));
        next.summary.labels = [("team".to_owned(), "data".to_owned())].into();
        commit(&source, next).await;
    }
    let (head_there, records) = all_of(&source, "a").await;
    let (seq, summary) = head_there.clone().expect("it is there");

    let mut store = harness.fresh().await;
    create(&store, "b").await;
    assert_eq!(store.put_graph(&hash("aa"), vec![3; 70 * KIB]).await, Ok(()));
    assert_eq!(store.put_graph(&hash("aa"), vec![3; 70 * KIB]).await, Ok(()), "a second time does nothing");
    let copied: Vec<_> = records.iter().cloned().map(Ok).collect();
    let run = WholeRun {
        run: id("a"),
        seq,
        summary,
        due: Some(Timestamp::from_millis(9)),
        graphs: vec![hash("aa")],
        records: Box::new(copied.into_iter()),
    };
    assert_eq!(store.import(run).await, Ok(()));
    for round in 0..2 {
        assert_eq!(all_of(&store, "a").await, (head_there.clone(), records.clone()), "round {round}");
        assert_eq!(load(&store, "a", 3).await, records[3..], "round {round}: also from the middle");
        assert_eq!(dues(&store, 10, 9).await, [(9, "a".to_owned())], "round {round}: the due item");
        let mut listed = names(&store, ListQuery::default()).await;
        listed.sort();
        assert_eq!(listed, ["a", "b"], "round {round}: it is in the list");
        assert_eq!(store.graph(&hash("aa")).await, Ok(vec![3; 70 * KIB]), "round {round}: its graph");
        assert_eq!(assert_clean(&store).await.runs, 2);
        store = harness.reopen(store).await;
    }
    swept(&store).await;
    assert!(has_graph(&store, "aa").await, "a sweep spares what an imported run names");
    assert_eq!(
        commit(&store, transition("a", Expect::At { seq }, store.epoch())).await,
        seq + 1,
        "it goes on"
    );
    assert_clean(&store).await;
}

pub(super) async fn an_import_is_whole_or_nothing<H: Harness>(harness: &mut H) {
    let mut store = harness.fresh().await;
    let large = vec![7; 90 * KIB];
    let records: &[&[u8]] = &[b"one", &large, b"three"];
    let failing = |at: usize| {
        let mut run = whole("a", records);
        let all: Vec<_> = std::mem::replace(&mut run.records, Box::new(std::iter::empty())).collect();
        let failed = Err(StoreError::Invalid("the copy ends here".to_owned()));
        run.records = Box::new(all.into_iter().take(at).chain([failed]));
        run
    };
    for at in 0..=3 {
        let answer = store.import(failing(at)).await;
        let expected = Err(StoreError::Invalid("the copy ends here".to_owned()));
        assert_eq!(answer, expected, "what its records fail with, at {at}");
        assert_eq!(all_of(&store, "a").await, (None, Vec::new()), "nothing is left of it");
        assert_clean(&store).await;
    }
    let broken = |breaks: fn(&mut WholeRun<'static>)| {
        let mut run = whole("a", records);
        breaks(&mut run);
        run
    };
    let skip = |run: &mut WholeRun<'static>| {
        let all: Vec<_> = std::mem::replace(&mut run.records, Box::new(std::iter::empty())).collect();
        run.records = Box::new(all.into_iter().skip(1));
    };
    for (what, run) in [
        ("a head beyond its records", broken(|run| run.seq = 4)),
        ("a head before its last record", broken(|run| run.seq = 2)),
        ("no events", whole("a", &[])),
        ("the summary of another run", broken(|run| run.summary.run = id("b"))),
        ("a first record that is missing", broken(skip)),
    ] {
        let answer = store.import(run).await;
        assert!(matches!(answer, Err(StoreError::Invalid(_))), "{what}: {answer:?}");
        assert_eq!(all_of(&store, "a").await, (None, Vec::new()), "{what}: nothing is left of it");
    }
    let mut graphless = whole("a", records);
    graphless.graphs = vec![hash("aa")];
    let answer = store.import(graphless).await;
    assert!(matches!(answer, Err(StoreError::NotFound(_))), "a graph that is not there: {answer:?}");
    assert_clean(&store).await;
    store = harness.reopen(store).await;
    assert!(names(&store, ListQuery::default()).await.is_empty(), "nothing came back");
    assert_eq!(store.import(whole("a", records)).await, Ok(()), "after all that it can be imported");
    let there = all_of(&store, "a").await;
    let answer = store.import(whole("a", &[b"another"])).await;
    assert_eq!(answer, Err(StoreError::Exists(id("a"))), "a run that is there stays");
    assert_eq!(all_of(&store, "a").await, there, "as it was");
    assert_eq!(assert_clean(&store).await.runs, 1);
}

pub(super) async fn of_rival_imports_one_wins<H: Harness>(harness: &mut H) {
    let mut store = harness.fresh().await;
    for round in 0..5 {
        let run = format!("run-{round}");
        let epoch = claim(&store, &run, 0, 0).await.expect("it is ours").epoch;
        let import = async |i: u8| store.import(whole(&run, &[&[i], &vec![i; 70 * KIB]])).await;
        let create = store.commit(transition(&run, Expect::New, epoch));
        let (answers, created) = join(join_all((0..8).map(import)), create).await;
        let winners = answers.iter().filter(|answer| answer.is_ok()).count() + usize::from(created.is_ok());
        assert_eq!(winners, 1, "one of many: {answers:?} {created:?}");
        let losers = answers.into_iter().chain([created.map(|_| ())]).filter_map(Result::err);
        for error in losers {
            assert_eq!(error, StoreError::Exists(id(&run)), "the others get Exists");
        }
        let records = load(&store, &run, 0).await;
        if records.len() == 2 {
            assert_eq!(records[0].bytes[0], records[1].bytes[0], "the records are of one import");
        }
        assert_clean(&store).await;
        store = harness.reopen(store).await;
    }
}
