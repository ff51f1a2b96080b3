//! What holds when many write at once and when the store is opened again.

use futures::future::join_all;

use super::super::{Expect, GraphHash, ListQuery, Store as _, StoreError};
use super::{Harness, assert_clean, claim, commit, create, dues, head, load, names, transition};
use crate::time::Timestamp;

pub(super) async fn many_runs_commit_at_once<H: Harness>(harness: &mut H) {
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

pub(super) async fn one_of_many_rivals_wins<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let claim = claim(&store, "a", 0, 0).await.expect("a run that is not there can be claimed");
    let rival = async |expect: Expect, i: u8| {
        let mut rival = transition("a", expect, claim.epoch);
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

pub(super) async fn everything_is_there_after_reopening<H: Harness>(harness: &mut H) {
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
        // What several workers share need not end the others' claims when one more opens it.
        let shared = store.caps().multi_worker && store.epoch() == epoch;
        assert!(store.epoch() > epoch || shared, "opening a store raises its epoch");
        assert_eq!(head(&store, "a").await.map(|head| head.seq), Some(round + 1), "the head survives");
        assert_eq!(load(&store, "a", 0).await.len() as u64, round + 1, "the records survive");
        assert_eq!(dues(&store, 1_000, 9).await, [(100 + round, "a".to_owned())], "the due item survives");
        assert_eq!(store.graph(&hash).await, Ok(vec![9; 5_000]), "the graph survives");
        assert_eq!(names(&store, ListQuery::default()).await, ["a"], "the list survives");
        assert_clean(&store).await;
    }
}

pub(super) async fn an_earlier_epoch_is_fenced<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    create(&store, "a").await;
    let mut stale = vec![transition("a", Expect::At { seq: 1 }, 0), transition("b", Expect::New, 0)];
    for transition in &mut stale {
        transition.epoch = claim(&store, transition.run.as_str(), 0, 0).await.expect("it is ours").epoch;
    }
    let store = harness.reopen(store).await;
    let mut epochs = Vec::new();
    for stale in stale {
        // Another owner, long after the lease of the first, where there are leases.
        let epoch = claim(&store, stale.run.as_str(), 1, 1_000).await.expect("the first owner is gone").epoch;
        assert!(epoch > stale.epoch, "a new owner has a higher epoch");
        let answer = store.commit(stale).await;
        assert_eq!(
            answer,
            Err(StoreError::Fenced { epoch }),
            "a change decided under an earlier epoch is fenced"
        );
        epochs.push(epoch);
    }
    assert_eq!(head(&store, "a").await.map(|head| head.seq), Some(1), "a fenced change is not written");
    assert_eq!(head(&store, "b").await, None, "a fenced change is not written");
    let next = store.commit(transition("a", Expect::At { seq: 1 }, epochs[0])).await;
    assert_eq!(next, Ok(2), "the new owner goes on");
}

pub(super) async fn verify_finds_a_used_store_clean<H: Harness>(harness: &mut H) {
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
