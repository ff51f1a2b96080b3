//! What a store that several workers share promises about claims and leases; and that any other lets all of it pass.

use std::time::Duration;

use futures::future::join_all;

use super::super::{Claim, Expect, Store, StoreError};
use super::{Harness, claim, create, head, id, transition, worker};
use crate::time::Timestamp;

async fn claimed(store: &impl Store, run: &str, by: u8, now: u64) -> Claim {
    let claim = claim(store, run, by, now).await;
    claim.unwrap_or_else(|error| panic!("worker {by} must get {run} at {now}: {error}"))
}

async fn assert_held(store: &impl Store, run: &str, by: u8, now: u64, holder: u8, until: u64) {
    let held = StoreError::Held { by: worker(holder), until: Timestamp::from_millis(until) };
    let answer = claim(store, run, by, now).await;
    assert_eq!(answer, Err(held), "{run} is not to be had for worker {by} at {now}");
}

/// Renews a lease of ten milliseconds.
async fn renewed(store: &impl Store, by: u8, now: u64) -> u64 {
    let until = store.renew(&worker(by), Timestamp::from_millis(now), Duration::from_millis(10)).await;
    until
        .unwrap_or_else(|error| panic!("renewing the lease of worker {by} must succeed: {error}"))
        .as_millis()
}

async fn released(store: &impl Store, run: &str, by: u8) {
    let answer = store.release(&id(run), &worker(by)).await;
    answer.unwrap_or_else(|error| panic!("releasing {run} must succeed: {error}"));
}

/// A commit under just this epoch.
async fn write(store: &impl Store, run: &str, seq: u64, epoch: u64) -> Result<u64, StoreError> {
    let expect = if seq == 0 { Expect::New } else { Expect::At { seq } };
    store.commit(transition(run, expect, epoch)).await
}

pub(super) async fn one_owner_needs_no_lease<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    create(&store, "a").await;
    let all = Claim { epoch: store.epoch(), until: Timestamp::MAX };
    for (run, by) in [("a", 0), ("a", 1), ("b", 1)] {
        assert_eq!(claimed(&store, run, by, 5).await, all, "the owner of the store drives every run");
        released(&store, run, by).await;
    }
    assert_eq!(renewed(&store, 0, 5).await, u64::MAX, "nothing needs to be renewed");
    assert_eq!(write(&store, "a", 1, all.epoch).await, Ok(2), "releasing a run ends nothing");
}

pub(super) async fn a_run_has_one_owner<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let first = claimed(&store, "a", 0, 100).await;
    assert!(first.epoch >= store.epoch(), "a run's epoch is never below the store's");
    assert_eq!(first.until.as_millis(), 110, "a lease is over its length after the claim");
    assert_held(&store, "a", 1, 100, 0, 110).await;
    assert_held(&store, "a", 1, 109, 0, 110).await;
    assert_eq!(head(&store, "a").await, None, "a claim makes no run");
    let again = claimed(&store, "a", 0, 105).await;
    assert_eq!(again.epoch, first.epoch, "who holds a run gets the same epoch again");
    assert_eq!(again.until.as_millis(), 115, "and a lease from now on");
    assert_held(&store, "a", 1, 114, 0, 115).await;
    assert_eq!(write(&store, "a", 0, first.epoch).await, Ok(1), "the owner creates the run");
    let other = claimed(&store, "b", 1, 109).await;
    assert_eq!(write(&store, "b", 0, other.epoch).await, Ok(1), "another run is another claim");
}

pub(super) async fn a_lease_that_is_over_can_be_taken<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let old = claimed(&store, "a", 0, 100).await;
    assert_eq!(write(&store, "a", 0, old.epoch).await, Ok(1));
    let new = claimed(&store, "a", 1, 110).await;
    assert!(new.epoch > old.epoch, "a claim that changes hands gets a higher epoch");
    let fenced = Err(StoreError::Fenced { epoch: new.epoch });
    assert_eq!(write(&store, "a", 1, old.epoch).await, fenced, "the owner before may not write any more");
    assert_eq!(head(&store, "a").await.map(|head| head.seq), Some(1), "a fenced change is not written");
    assert_held(&store, "a", 0, 111, 1, 120).await;
    assert_eq!(write(&store, "a", 1, new.epoch).await, Ok(2), "the new owner writes");
}

pub(super) async fn a_lease_that_nobody_took_still_writes<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let claim = claimed(&store, "a", 0, 100).await;
    // The store sees from the others how late it is.
    claimed(&store, "b", 1, 100_000).await;
    assert_eq!(write(&store, "a", 0, claim.epoch).await, Ok(1), "its epoch is still the last one given");
    let again = claimed(&store, "a", 0, 100_001).await;
    assert_eq!(again.epoch, claim.epoch, "nobody had it in between");
    assert_held(&store, "a", 1, 100_010, 0, 100_011).await;
    assert_eq!(write(&store, "a", 1, claim.epoch).await, Ok(2));
}

pub(super) async fn a_renewal_covers_all_runs_of_a_worker<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    claimed(&store, "a", 0, 100).await;
    // Claiming one more renews the lease on the first as well.
    claimed(&store, "b", 0, 103).await;
    assert_held(&store, "a", 1, 112, 0, 113).await;
    assert_eq!(renewed(&store, 0, 108).await, 118, "a renewed lease is over its length later");
    assert_eq!(renewed(&store, 0, 106).await, 118, "a lease never gets shorter");
    for run in ["a", "b"] {
        assert_held(&store, run, 1, 117, 0, 118).await;
    }
    assert_eq!(renewed(&store, 1, 300).await, 310, "a worker without a run may renew");
    for run in ["a", "b"] {
        claimed(&store, run, 1, 118).await;
    }
}

pub(super) async fn what_was_taken_stays_taken<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let taken = claimed(&store, "a", 0, 100).await;
    let kept = claimed(&store, "b", 0, 100).await;
    let new = claimed(&store, "a", 1, 110).await;
    assert_eq!(renewed(&store, 0, 115).await, 125, "a lease that was over can be renewed");
    let fenced = Err(StoreError::Fenced { epoch: new.epoch });
    assert_eq!(write(&store, "a", 0, taken.epoch).await, fenced, "that gives back no run that was taken");
    assert_eq!(write(&store, "a", 0, new.epoch).await, Ok(1), "its new owner keeps it");
    assert_held(&store, "a", 0, 116, 1, 120).await;
    assert_held(&store, "b", 1, 124, 0, 125).await;
    assert_eq!(write(&store, "b", 0, kept.epoch).await, Ok(1), "what nobody took is held again");
}

pub(super) async fn a_released_run_is_free_at_once<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let first = claimed(&store, "a", 0, 100).await;
    assert_eq!(write(&store, "a", 0, first.epoch).await, Ok(1));
    released(&store, "a", 1).await;
    assert_held(&store, "a", 1, 100, 0, 110).await;
    released(&store, "a", 0).await;
    let late = write(&store, "a", 1, first.epoch).await;
    assert!(matches!(late, Err(StoreError::Fenced { .. })), "who released a run may not write: {late:?}");
    let second = claimed(&store, "a", 1, 100).await;
    assert!(second.epoch > first.epoch, "the next owner has a higher epoch");
    released(&store, "a", 0).await;
    assert_eq!(write(&store, "a", 1, second.epoch).await, Ok(2), "what another holds cannot be released");
    released(&store, "a", 1).await;
    released(&store, "a", 1).await;
    released(&store, "never-claimed", 1).await;
    assert!(claimed(&store, "a", 1, 101).await.epoch > second.epoch, "also for one who had it before");
}

pub(super) async fn every_commit_needs_the_claim_of_its_run<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let answer = write(&store, "a", 0, store.epoch()).await;
    let Err(StoreError::Fenced { epoch: next }) = answer else {
        panic!("a run that nobody claimed cannot be written: {answer:?}")
    };
    let answer = write(&store, "a", 0, next).await;
    assert!(
        matches!(answer, Err(StoreError::Fenced { .. })),
        "an epoch that was not given is none: {answer:?}"
    );
    let claim = claimed(&store, "a", 0, 100).await;
    let fenced = StoreError::Fenced { epoch: claim.epoch };
    for epoch in [0, claim.epoch - 1, claim.epoch + 1, u64::MAX] {
        assert_eq!(write(&store, "a", 0, epoch).await, Err(fenced.clone()), "only the claim's epoch writes");
    }
    let answer = write(&store, "b", 0, claim.epoch).await;
    assert!(matches!(answer, Err(StoreError::Fenced { .. })), "a claim is on one run only: {answer:?}");
    assert_eq!(head(&store, "a").await, None, "nothing of it is written");
    assert_eq!(write(&store, "a", 0, claim.epoch).await, Ok(1));
}

pub(super) async fn one_of_many_claims_wins<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    for round in 1..5_u64 {
        let answers = join_all((0..20).map(|by| claim(&store, "a", by, round * 100))).await;
        let winner = answers.iter().position(Result::is_ok).expect("of many that claim a free run one wins");
        let held = StoreError::Held {
            by: worker(u8::try_from(winner).expect("small")),
            until: Timestamp::from_millis(round * 100 + 10),
        };
        for (by, answer) in answers.iter().enumerate() {
            assert!(by == winner || *answer == Err(held.clone()), "worker {by} must be held off: {answer:?}");
        }
    }
}

pub(super) async fn an_epoch_never_comes_back<H: Harness>(harness: &mut H) {
    let mut store = harness.fresh().await;
    let mut given = Vec::new();
    for round in 0..12_u8 {
        let by = round % 3;
        let epoch = claimed(&store, "a", by, u64::from(round) * 100).await.epoch;
        assert!(given.iter().all(|old| *old < epoch), "epoch {epoch} comes after all of {given:?}");
        for old in &given {
            let answer = write(&store, "a", u64::from(round), *old).await;
            assert_eq!(answer, Err(StoreError::Fenced { epoch }), "no owner before may write any more");
        }
        assert_eq!(write(&store, "a", u64::from(round), epoch).await, Ok(u64::from(round) + 1));
        given.push(epoch);
        match round % 4 {
            1 => released(&store, "a", by).await,
            3 => store = harness.reopen(store).await,
            _ => {}
        }
    }
}
