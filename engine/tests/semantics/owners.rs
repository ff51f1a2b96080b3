//! Who drives a run: leases, fences, recovery, letting go.

use dssflow_engine::EngineError;
use dssflow_engine::graph::OnReject;
use dssflow_engine::id::WorkerId;
use dssflow_engine::run::{RunStatus, Verb};
use dssflow_engine::store::layer::Layer;
use dssflow_engine::store::{Store, StoreError, Transition};
use dssflow_engine::time::BoxFuture;

use super::*;

/// A store of which one worker sees nothing any more for a time: no renewal, no write.
struct Stalling {
    base: MemoryStore,
    renewals: tokio::sync::watch::Receiver<bool>,
    commits: tokio::sync::watch::Receiver<bool>,
}

async fn open(gate: &tokio::sync::watch::Receiver<bool>) {
    gate.clone().wait_for(|open| *open).await.unwrap();
}

impl Layer for Stalling {
    fn base(&self) -> &dyn Store {
        &self.base
    }

    fn commit(&self, transition: Transition) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            open(&self.commits).await;
            self.base.commit(transition).await
        })
    }

    fn renew<'a>(
        &'a self,
        worker: &'a WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Timestamp, StoreError>> {
        Box::pin(async move {
            open(&self.renewals).await;
            self.base.renew(worker, now, ttl).await
        })
    }
}

fn shared() -> MemoryStore {
    MemoryStore::shared(StoreId::generate([7; 16]))
}

#[tokio::test(start_paused = true)]
async fn a_second_owner_is_refused_and_a_refused_verb_leaves_no_claim_behind() {
    let world = World::new();
    world.slow("a", 100);
    let kept = shared();
    let (one, two) = (builder(kept.share(), &world).build(), builder(kept.share(), &world).build());
    let handle = one.start(run("r", vec![act("a", &[])])).await.unwrap();
    pass(60).await;
    let refused = two.resume(handle.id(), by()).await.unwrap_err();
    assert!(matches!(refused, EngineError::Held { .. }), "the lease is renewed: {refused}");
    assert_eq!(end(&one, &handle).await.status, RunStatus::Succeeded);
    let refused = one.act(handle.id(), Verb::Skip { step: name("a") }, by()).await.unwrap_err();
    assert!(matches!(refused, EngineError::Illegal { .. }), "{refused}");
    let back = two.rollback(handle.id(), vec![], by()).await.unwrap();
    assert_eq!(end(&two, &back).await.status, RunStatus::RolledBack);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_stalls_loses_the_run_writes_nothing_more_and_calls_nothing_more() {
    // `late`: its writes hang on when its lease is renewed again, and the attempt wakes up only then.
    for late in [false, true] {
        let world = World::new();
        let kept = shared();
        let (renew, renewals) = tokio::sync::watch::channel(true);
        let (commit, commits) = tokio::sync::watch::channel(true);
        let stalling = Stalling { base: kept.share(), renewals, commits };
        let clock = || Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_000_000)));
        let mut beat = ActivityRegistry::new();
        let seen = Arc::clone(&world);
        // A beat in every second keeps the driver at its store, where it hangs.
        beat.add_fn("beat", move |ctx: ActivityContext, seconds: u64| {
            let seen = Arc::clone(&seen);
            async move {
                for n in 0..seconds {
                    ctx.heartbeat(n);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                if ctx.fence().is_ok() {
                    seen.note("acted");
                } else {
                    seen.note("refused");
                }
                Ok(json!(null))
            }
        })
        .unwrap();
        let (code, same) = (beat.clone(), beat);
        let one = Engine::builder(Arc::new(stalling)).clock(clock()).activities(code).build();
        let two = Engine::builder(Arc::new(kept.share())).clock(clock()).activities(same).build();
        let seconds = if late { 100 } else { 40 };
        let act = ActivityName::new("beat").unwrap();
        let steps = vec![Step::activity(name("b"), act, Binding::literal(seconds))];
        let handle = one.start(run("r", steps)).await.unwrap();
        pass(3).await;
        renew.send_replace(false);
        commit.send_replace(false);
        pass(30).await;
        let recovered = two.recover().await.unwrap();
        assert_eq!(recovered.runs.len(), 1, "{recovered:?}");
        pass(30).await;
        renew.send_replace(true);
        pass(if late { 60 } else { 0 }).await;
        assert_eq!(world.log(), ["refused"]);
        commit.send_replace(true);
        let lost = handle.wait().await.unwrap_err();
        assert!(matches!(&lost, EngineError::Store { error: StoreError::Fenced { .. }, .. }), "{lost}");
        let view = end(&two, &recovered.runs[0]).await;
        assert_eq!(view.status, RunStatus::Succeeded);
        assert_eq!(world.count("acted"), 1, "late {late}: {:?}", world.log());
    }
}

#[tokio::test(start_paused = true)]
async fn one_bad_run_holds_up_nobody_and_one_that_ends_the_process_is_parked() {
    let world = World::new();
    world.slow("a", 1000);
    let kept = store();
    let mut activities = ActivityRegistry::new();
    activities
        .add_fn("gone", |_, (): ()| async move {
            std::future::pending::<()>().await;
            Ok(json!(null))
        })
        .unwrap();
    let first = builder(kept.share(), &world).add_code(activities, Default::default()).unwrap().build();
    let gone =
        Step::activity(name("gone"), ActivityName::new("gone").unwrap(), Binding::literal(json!(null)));
    for (id, step) in [("bad", gone), ("good", act("a", &[]))] {
        first.start(run(id, vec![step])).await.unwrap();
    }
    first.stop();
    drop(first);
    let mut looping = Vec::new();
    for round in 0..7 {
        let next = builder(kept.reopen(), &world).build();
        let found = next.recover().await.unwrap();
        // Once it is paused it is not recovered any more.
        let going = usize::from(round < 6);
        assert_eq!((found.parked.len(), found.runs.len() + found.looping.len()), (1, going), "round {round}");
        looping.extend(found.looping);
        next.stop();
    }
    assert_eq!(looping.len(), 1);
    let last = builder(kept.reopen(), &world).build();
    let handle = last.resume(&looping[0], by()).await.unwrap();
    assert_eq!(end(&last, &handle).await.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn when_the_last_handle_goes_its_runs_are_let_go() {
    let world = World::new();
    world.slow("a", 100);
    let kept = store();
    let engine = builder(kept.share(), &world).build();
    let handle = engine.start(run("r", vec![act("a", &[])])).await.unwrap();
    drop(engine);
    pass(50).await;
    drop(handle);
    pass(200).await;
    assert!(world.log().is_empty(), "it went on without anybody");
    let second = builder(kept.reopen(), &world).build();
    let handle = second.recover().await.unwrap().runs.remove(0);
    drop(second);
    assert_eq!(handle.wait().await.unwrap().status, RunStatus::Succeeded, "a handle keeps it going");
}

#[tokio::test(start_paused = true)]
async fn a_note_on_a_run_nobody_drives_does_not_make_its_time_count() {
    let world = World::new();
    world.slow("a", 50);
    let kept = store();
    let first = builder(kept.share(), &world).build();
    let mut wanted = run("r", vec![act("a", &[])]);
    wanted.options.timeout_ms = Some(100_000);
    let handle = first.start(wanted).await.unwrap();
    pass(10).await;
    first.stop();
    handle.wait().await.unwrap();
    let at =
        |seconds: u64| Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_000_000 + seconds * 1000)));
    let second = builder(kept.reopen(), &world).clock(at(10_000)).build();
    let signal = Verb::Signal { signal: "go".into(), payload: json!(1) };
    second.note(handle.id(), signal, by()).await.unwrap();
    let third = builder(kept.reopen(), &world).clock(at(10_001)).build();
    let handle = third.recover().await.unwrap().runs.remove(0);
    assert_eq!(end(&third, &handle).await.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_only_waits_may_outlive_any_number_of_processes() {
    let world = World::new();
    let kept = store();
    let gate =
        StepKind::Gate { question: "?".into(), timeout_ms: None, default: None, on_reject: OnReject::Fail };
    let first = builder(kept.share(), &world).build();
    let id = first.start(run("r", vec![kind("g", gate, &[])])).await.unwrap().id().clone();
    first.stop();
    for _ in 0..8 {
        let next = builder(kept.reopen(), &world).build();
        assert!(next.recover().await.unwrap().looping.is_empty());
        next.stop();
    }
    let last = builder(kept.reopen(), &world).build();
    let handle = last.act(&id, Verb::Approve { step: name("g") }, by()).await.unwrap().handle.unwrap();
    assert_eq!(end(&last, &handle).await.status, RunStatus::Succeeded);
}
