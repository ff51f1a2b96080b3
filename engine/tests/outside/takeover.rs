//! Taking back what several runs made, as one run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use dssflow_engine::activity::ActivityRegistry;
use dssflow_engine::event::Request;
use dssflow_engine::id::WorkflowName;
use dssflow_engine::run::view::RunView;
use dssflow_engine::run::{RunStatus, StepStatus};
use dssflow_engine::store::memory::{CommitFault, MemoryStore};
use dssflow_engine::store::{Store as _, StoreError};
use dssflow_engine::takeover::{self, close_books, takeover};
use dssflow_engine::{Engine, StartRun, Step};
use serde_json::Value;

use crate::support::{Shared, activities, engine_on, foreign, make, name, run_id, run_of, store};

fn with_takeover(world: &Shared) -> ActivityRegistry {
    let mut all = activities(world);
    takeover::register(&mut all).unwrap();
    all
}

fn engine(world: &Shared, store: &MemoryStore) -> Engine {
    engine_on(store.share(), with_takeover(world))
}

fn shared() -> MemoryStore {
    MemoryStore::shared(store().id())
}

async fn runs(engine: &Engine, ids: &[&str]) -> Vec<dssflow_engine::run::RunState> {
    let mut runs = Vec::new();
    for id in ids {
        runs.push(engine.load(&run_id(id)).await.unwrap());
    }
    runs
}

async fn start_of(engine: &Engine, ids: &[&str]) -> Option<StartRun> {
    let made = takeover(&runs(engine, ids).await, None, &[]).unwrap()?;
    let start = StartRun::new(WorkflowName::new("teardown").unwrap(), made.graph).id(run_id("down"));
    Some(StartRun { site: "lab".to_owned(), input: Value::Object(made.input), ..start })
}

async fn run(engine: &Engine, start: StartRun) -> RunView {
    engine.start(start).await.unwrap().wait().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_all_runs_made_goes_in_reverse_order_and_the_rest_stays() {
    let (world, store) = (Shared::default(), shared());
    let engine = engine(&world, &store);
    foreign(&world, "theirs");
    let adopting = || Step { adopt: true, ..make("theirs", &["a"]) };
    assert_eq!(
        run(&engine, run_of("r1", vec![make("a", &[]), make("c", &["a"])])).await.status,
        RunStatus::Succeeded
    );
    // Somebody loses `a`; the next run makes it again and something between, and adopts the rest.
    world.lock().unwrap().things.remove("a");
    let second = vec![make("a", &[]), make("b", &["a"]), make("c", &["b"]), adopting()];
    let second = run(&engine, run_of("r2", second)).await;
    assert_eq!(second.status, RunStatus::Succeeded);
    world.lock().unwrap().changes.clear();

    let view = run(&engine, start_of(&engine, &["r1", "r2"]).await.unwrap()).await;
    assert_eq!(view.status, RunStatus::RolledBack, "{view:?}");
    // `c` is the first run's and stands on what the second made: it goes first all the same.
    assert_eq!(world.lock().unwrap().changes, ["delete c", "delete b", "delete a"]);
    assert_eq!(world.lock().unwrap().things.keys().collect::<Vec<_>>(), ["theirs"]);
    let input = engine.load(&run_id("down")).await.unwrap().input;
    let taken: Vec<_> = takeover::taken(&input).into_iter().map(|t| t.run.to_string()).collect();
    assert_eq!(taken, ["r2", "r1"]);
}

#[tokio::test(start_paused = true)]
async fn a_thing_that_somebody_else_made_meanwhile_under_the_same_name_stays() {
    let (world, store) = (Shared::default(), shared());
    let engine = engine(&world, &store);
    run(&engine, run_of("r1", vec![make("a", &[]), make("b", &["a"])])).await;
    foreign(&world, "b");
    let view = run(&engine, start_of(&engine, &["r1"]).await.unwrap()).await;
    assert_eq!(view.status, RunStatus::RolledBack);
    assert_eq!(world.lock().unwrap().things.keys().collect::<Vec<_>>(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_stuck_blocks_only_what_it_must_and_is_retried() {
    let (world, store) = (Shared::default(), shared());
    let engine = engine(&world, &store);
    run(&engine, run_of("r1", vec![make("a", &[]), make("b", &["a"]), make("c", &["a"]), make("d", &[])]))
        .await;
    world.lock().unwrap().failing.insert("b".to_owned(), 1);
    world.lock().unwrap().full.push("d".to_owned());
    let view = run(&engine, start_of(&engine, &["r1"]).await.unwrap()).await;
    assert_eq!(view.status, RunStatus::RollbackStuck);
    assert_eq!(world.lock().unwrap().things.keys().collect::<Vec<_>>(), ["a", "b", "d"]);
    let again =
        engine.rollback(&run_id("down"), Vec::new(), Request::by("x")).await.unwrap().wait().await.unwrap();
    assert_eq!(again.status, RunStatus::RolledBack);
    assert_eq!(world.lock().unwrap().things.keys().collect::<Vec<_>>(), ["d"]);
    let d = again.steps.iter().find(|s| s.step == name("d")).unwrap();
    assert_eq!((d.status, d.kept.as_deref()), (StepStatus::Kept, Some("d holds something")));

    // The books are closed without a call, and then there is nothing left to take over.
    let changes = world.lock().unwrap().changes.len();
    let mut closed = with_takeover(&world);
    let kept: BTreeMap<_, _> =
        again.steps.iter().filter_map(|s| Some((s.step.clone(), s.kept.clone()?))).collect();
    close_books(&mut closed, &kept);
    let books = engine_on(store.share(), closed);
    let first =
        books.rollback(&run_id("r1"), Vec::new(), Request::by("down")).await.unwrap().wait().await.unwrap();
    assert_eq!(first.status, RunStatus::RolledBack);
    let statuses: Vec<_> = first.steps.iter().map(|s| (s.step.as_str(), s.status)).collect();
    assert!(
        statuses.contains(&("d", StepStatus::Kept)) && statuses.contains(&("a", StepStatus::Compensated))
    );
    assert_eq!(world.lock().unwrap().changes.len(), changes);
    assert!(start_of(&engine, &["r1"]).await.is_none(), "nothing is left to take over");
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_write_goes_on_where_it_was() {
    for written in [false, true] {
        let mut crashes = 0;
        // Cut off at every commit in turn, before or after it is written, and resumed by another engine.
        for commits in 0.. {
            let world = Shared::default();
            let base = store();
            let first = engine_on(base.share(), with_takeover(&world));
            run(&first, run_of("r1", vec![make("a", &[]), make("b", &["a"]), make("c", &["b"])])).await;
            drop(first);
            let store = base.reopen();
            let seen = AtomicU64::new(0);
            store.set_fault(move |_| {
                let error = StoreError::Poisoned("cut off".to_owned());
                let struck = seen.fetch_add(1, Ordering::SeqCst) >= commits;
                struck.then_some(if written {
                    CommitFault::WriteThenFail(error)
                } else {
                    CommitFault::Refuse(error)
                })
            });
            let second = engine_on(store, with_takeover(&world));
            let start = start_of(&second, &["r1"]).await.unwrap();
            let ended = match second.start(start).await {
                Ok(handle) => handle.wait().await.is_ok(),
                Err(_) => false,
            };
            drop(second);
            if ended {
                break;
            }
            crashes += 1;
            let third = engine_on(base.reopen(), with_takeover(&world));
            if let Ok(state) = third.load(&run_id("down")).await {
                let mut status = state.status();
                // Cut off after its last write it has ended, and nobody was told.
                if status != RunStatus::RolledBack {
                    let handle = third.resume(&run_id("down"), Request::by("x")).await.unwrap();
                    status = handle.wait().await.unwrap().status;
                }
                assert_eq!(status, RunStatus::RolledBack, "cut off after {commits} commits");
                assert!(world.lock().unwrap().things.is_empty(), "cut off after {commits} commits");
            }
            let world = world.lock().unwrap();
            let deleted = world.changes.iter().filter(|c| c.starts_with("delete")).count();
            assert!(deleted <= 3, "cut off after {commits} commits: {:?}", world.changes);
        }
        assert!(crashes > 5, "the fault struck only {crashes} times");
    }
}
