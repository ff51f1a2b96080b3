//! What runs share: locks, semaphores, rates, priorities, ids.

use dssflow_engine::event::CancelMode;
use dssflow_engine::graph::LockUse;
use dssflow_engine::id::LockName;
use dssflow_engine::run::RunStatus;
use dssflow_engine::runtime::Rate;
use dssflow_engine::runtime::start::{Conflict, Reuse};
use dssflow_engine::store::ListQuery;

use super::*;

fn lock(text: &str) -> LockName {
    LockName::new(text).unwrap()
}

fn holding(step: &str, locks: Vec<LockUse>) -> Step {
    let mut step = act(step, &[]);
    step.locks = locks;
    step
}

#[tokio::test(start_paused = true)]
async fn the_higher_priority_goes_first_then_who_came_first() {
    let world = World::new();
    for n in ["first", "low", "mid", "high", "mid2"] {
        world.slow(n, 10);
    }
    let engine = engine(&world);
    let mut handles = Vec::new();
    for (n, priority) in [("first", 0), ("low", -1), ("mid", 0), ("high", 9), ("mid2", 0)] {
        let mut wanted = run(n, vec![holding(n, vec![LockUse::exclusive(lock("dss"))])]);
        wanted.options.priority = priority;
        handles.push(engine.start(wanted).await.unwrap());
        pass(1).await;
    }
    for handle in &handles {
        assert_eq!(end(&engine, handle).await.status, RunStatus::Succeeded);
    }
    assert_eq!(world.log(), ["first", "high", "mid", "mid2", "low"]);
}

#[tokio::test(start_paused = true)]
async fn keys_permits_and_rates() {
    let world = World::new();
    for n in ["a", "b", "c", "d"] {
        world.slow(n, 10);
    }
    let engine = builder(store(), &world)
        .semaphore("two", 2)
        .rate("slow", Rate { permits: 1, per_ms: 60_000 })
        .build();
    let keyed = |n: &str, key: &str| {
        holding(n, vec![LockUse::exclusive(lock("account")).keyed(Binding::literal(key))])
    };
    let begin = tokio::time::Instant::now();
    let handle =
        engine.start(run("keys", vec![keyed("a", "1"), keyed("b", "2"), keyed("c", "1")])).await.unwrap();
    end(&engine, &handle).await;
    assert_eq!(begin.elapsed().as_secs(), 20);
    let permit = |n: &str| holding(n, vec![LockUse::permit(lock("two"))]);
    let begin = tokio::time::Instant::now();
    let handle = engine.start(run("permits", ["a", "b", "c", "d"].map(permit).to_vec())).await.unwrap();
    end(&engine, &handle).await;
    assert_eq!(begin.elapsed().as_secs(), 20);
    let rated = |n: &str| Step { rates: vec![lock("slow")], ..act(n, &[]) };
    let begin = tokio::time::Instant::now();
    let handle = engine.start(run("rates", ["x", "y", "z"].map(rated).to_vec())).await.unwrap();
    end(&engine, &handle).await;
    assert_eq!(begin.elapsed().as_secs(), 120);
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_free_only_when_who_held_it_has_really_ended() {
    let world = World::new();
    let mut activities = ActivityRegistry::new();
    let seen = Arc::clone(&world);
    // Hears of nothing, and when it is dropped its last word takes a moment of the thread.
    activities
        .add_fn("deaf", move |_, (): ()| {
            let seen = Arc::clone(&seen);
            async move {
                struct Last(Arc<World>);
                impl Drop for Last {
                    fn drop(&mut self) {
                        self.0.note("deaf ended");
                    }
                }
                let _last = Last(seen);
                std::future::pending::<()>().await;
                Ok(json!(null))
            }
        })
        .unwrap();
    let engine = builder(store(), &world).add_code(activities, Default::default()).unwrap().build();
    let mut deaf =
        Step::activity(name("deaf"), ActivityName::new("deaf").unwrap(), Binding::literal(json!(null)));
    deaf.locks = vec![LockUse::exclusive(lock("dss"))];
    let first = engine.start(run("first", vec![deaf])).await.unwrap();
    pass(1).await;
    let second = engine
        .start(run("second", vec![holding("next", vec![LockUse::exclusive(lock("dss"))])]))
        .await
        .unwrap();
    pass(1).await;
    assert_eq!(engine.lock_holders(&lock("dss")), [first.id().clone()]);
    assert_eq!(engine.obstacles(second.id(), &name("next")).await.unwrap().len(), 1);
    engine.cancel(first.id(), CancelMode::Terminate, by()).await.unwrap();
    assert_eq!(end(&engine, &second).await.status, RunStatus::Succeeded);
    assert_eq!(world.log(), ["deaf ended", "next"]);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_was_had_and_one_that_is_had() {
    let world = World::new();
    world.fail("bad", [ActivityError::terminal("No", "never").no_effect()]);
    let engine = engine(&world);
    let with = |step: &str, reuse, conflict| StartRun { reuse, conflict, ..run("r", vec![act(step, &[])]) };
    let bad = engine.start(with("bad", Reuse::Reject, Conflict::Fail)).await.unwrap();
    assert_eq!(end(&engine, &bad).await.status, RunStatus::Failed);
    assert!(engine.start(with("a", Reuse::Reject, Conflict::Fail)).await.is_err());
    let second = engine.start(with("a", Reuse::FailedOnly, Conflict::Fail)).await.unwrap();
    assert_eq!((second.id().as_str(), end(&engine, &second).await.status), ("r/2", RunStatus::Succeeded));
    assert!(engine.start(with("a", Reuse::FailedOnly, Conflict::Fail)).await.is_err());
    world.slow("slow", 100);
    let third = engine.start(with("slow", Reuse::AllowDuplicate, Conflict::Fail)).await.unwrap();
    assert_eq!(third.id().as_str(), "r/3");
    assert!(engine.start(with("a", Reuse::AllowDuplicate, Conflict::Fail)).await.is_err());
    let same = engine.start(with("a", Reuse::AllowDuplicate, Conflict::UseExisting)).await.unwrap();
    assert_eq!(same.id().as_str(), "r/3");
    let instead = engine.start(with("a", Reuse::AllowDuplicate, Conflict::TerminateExisting)).await.unwrap();
    assert_eq!(instead.id().as_str(), "r/4");
    assert_eq!(end(&engine, &third).await.status, RunStatus::Cancelled);
    assert_eq!(end(&engine, &instead).await.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn of_two_starts_at_once_with_one_id_one_starts() {
    for (conflict, both) in [(Conflict::Fail, false), (Conflict::UseExisting, true)] {
        let world = World::new();
        world.slow("a", 10);
        let engine = engine(&world);
        let start = || engine.start(StartRun { conflict, ..run("r", vec![act("a", &[])]) });
        let (one, two) = tokio::join!(start(), start());
        assert!(one.is_ok() || two.is_ok(), "{one:?} {two:?}");
        assert_eq!(one.is_ok() && two.is_ok(), both, "{one:?} {two:?}");
        for handle in [one, two].into_iter().flatten() {
            assert_eq!(
                (end(&engine, &handle).await.status, handle.id().as_str()),
                (RunStatus::Succeeded, "r")
            );
        }
        assert_eq!(world.count("a"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn runs_are_found_by_their_labels() {
    let world = World::new();
    let engine = engine(&world);
    for (id, team) in [("r1", "data"), ("r2", "ops")] {
        let handle = engine.start(run(id, vec![act("a", &[])]).label("team", team)).await.unwrap();
        end(&engine, &handle).await;
    }
    let query = ListQuery { labels: [("team".to_owned(), "ops".to_owned())].into(), ..ListQuery::default() };
    let found = engine.list(query).await.unwrap().runs;
    assert_eq!(found.iter().map(|r| r.run.as_str()).collect::<Vec<_>>(), ["r2"]);
}
