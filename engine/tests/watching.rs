//! Measurements are whole; nothing is lost when hooks fail or verbs cross an end.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use dssflow_engine::event::Request;
use dssflow_engine::id::{ActivityName, RunId, StepName, StoreId, WorkflowName};
use dssflow_engine::run::{RunStatus, Verb};
use dssflow_engine::runtime::clock::TokioClock;
use dssflow_engine::runtime::{AttemptEnd, EngineBuilder, Measure};
use dssflow_engine::store::memory::MemoryStore;
use dssflow_engine::time::Timestamp;
use dssflow_engine::{
    ActivityContext, ActivityError, ActivityRegistry, Binding, Engine, EngineError, Graph, StartRun, Step,
};
use serde_json::{Value, json};

fn by() -> Request {
    Request::by("ann")
}

fn name(text: &str) -> StepName {
    StepName::new(text).unwrap()
}

/// Activity `do` fails once for "again", waits for ever for "wait", and gives back anything else.
fn activities() -> ActivityRegistry {
    let mut activities = ActivityRegistry::new();
    let call = |ctx: ActivityContext, input: String| async move {
        match input.as_str() {
            "again" if ctx.attempt() == 1 => Err(ActivityError::retryable("Busy", "once")),
            "wait" => {
                ctx.cancelled().await;
                std::future::pending().await
            }
            _ => Ok(input),
        }
    };
    activities.add_fn("do", call).unwrap();
    activities
}

fn builder(store: MemoryStore) -> EngineBuilder {
    let clock = TokioClock::starting_at(Timestamp::from_millis(1_000_000));
    Engine::builder(Arc::new(store)).clock(Arc::new(clock)).activities(activities())
}

fn store() -> MemoryStore {
    MemoryStore::new(StoreId::generate([7; 16]))
}

fn step(text: &str, input: &str) -> Step {
    Step::activity(name(text), ActivityName::new("do").unwrap(), Binding::literal(json!(input)))
}

fn start(id: &str, steps: Vec<Step>) -> StartRun {
    let graph = steps.into_iter().fold(Graph::builder(), dssflow_engine::GraphBuilder::step).build().unwrap();
    StartRun::new(WorkflowName::new("test").unwrap(), graph).id(RunId::new(id).unwrap())
}

#[tokio::test(start_paused = true)]
async fn every_attempt_that_is_measured_to_start_is_measured_to_end() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&seen);
    let hook = move |measure: &Measure<'_>| {
        let line = match measure {
            Measure::Committed { events, .. } => format!("committed {}", events.len()),
            Measure::AttemptStarted { step, .. } => format!("started {step}"),
            Measure::AttemptEnded { step, end, .. } => format!("ended {step} {end:?}"),
            Measure::DriveEnded { status, .. } => format!("over {status:?}"),
            _ => return,
        };
        told.lock().unwrap().push(line);
    };
    let engine = builder(store()).metrics(hook).build();
    let handle = engine.start(start("r", vec![step("a", "again"), step("b", "wait")])).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(100)).await;
    engine.terminate(handle.id(), by()).await.unwrap();
    assert_eq!(handle.wait().await.unwrap().status, RunStatus::Cancelled);
    let seen = seen.lock().unwrap().clone();
    let count = |what: &str| seen.iter().filter(|l| l.starts_with(what)).count();
    assert_eq!((count("started a"), count("started b")), (2, 1), "{seen:?}");
    assert_eq!(count("ended a Failed(Retryable)"), 1, "{seen:?}");
    assert_eq!(count("ended a Done"), 1, "{seen:?}");
    assert_eq!(count(&format!("ended b {:?}", AttemptEnd::Lost)), 1, "{seen:?}");
    assert_eq!(count("over Some(Cancelled)"), 1, "{seen:?}");
    let events: usize =
        seen.iter().filter_map(|l| l.strip_prefix("committed ")).map(|n| n.parse::<usize>().unwrap()).sum();
    assert_eq!(events, engine.history(handle.id(), 0).await.unwrap().len());
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_loses_nothing_and_another_worker_may_take_the_run_at_once() {
    let kept = MemoryStore::shared(StoreId::generate([7; 16]));
    let bad = Arc::new(AtomicBool::new(true));
    let hook = move |measure: &Measure<'_>| {
        let ended = matches!(measure, Measure::AttemptEnded { .. });
        assert!(!ended || !bad.swap(false, Ordering::SeqCst), "a hook with a bug");
    };
    let one = builder(kept.share()).metrics(hook).build();
    let handle = one.start(start("r", vec![step("a", "x")])).await.unwrap();
    assert!(matches!(handle.wait().await, Err(EngineError::Dropped(_))));
    assert!(one.live_runs().is_empty());
    let listened: Vec<_> = futures::StreamExt::collect(handle.events(0)).await;
    assert_eq!(listened.len(), one.history(handle.id(), 0).await.unwrap().len());
    let two = builder(kept.share()).build();
    let again = two.resume(handle.id(), by()).await.unwrap();
    assert_eq!(again.wait().await.unwrap().status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn of_two_resumes_at_once_one_drives_and_one_is_refused() {
    let engine = builder(MemoryStore::shared(StoreId::generate([7; 16]))).build();
    let handle = engine.start(start("r", vec![step("a", "wait")])).await.unwrap();
    engine.stop();
    handle.wait().await.unwrap();
    let (one, two) = tokio::join!(engine.resume(handle.id(), by()), engine.resume(handle.id(), by()));
    let (drives, refused) = if one.is_ok() { (one, two) } else { (two, one) };
    assert!(matches!(refused, Err(EngineError::Live(_))), "{refused:?}");
    engine.terminate(drives.unwrap().id(), by()).await.unwrap().wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verb_that_crosses_the_end_of_a_drive_is_done_or_says_why() {
    let engine = builder(MemoryStore::shared(StoreId::generate([7; 16]))).build();
    for n in 0..300 {
        let mut gate = step("c", "x");
        gate.after = vec![name("b")];
        // It pauses at `b`, some time around the verbs.
        let run = engine.start(start(&format!("r{n}"), vec![step("a", "x"), step("b", "wait"), gate])).await;
        let handle = run.unwrap();
        let (id, pausing) = (handle.id().clone(), engine.clone());
        let paused = tokio::spawn(async move { pausing.pause(&id, by()).await });
        let skip = Verb::Skip { step: name("c") };
        match engine.act(handle.id(), skip, by()).await {
            // A driven run takes no verb whose moment is gone; nothing else is an answer.
            Ok(_) | Err(EngineError::Illegal { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        paused.await.unwrap().unwrap();
        engine.terminate(handle.id(), by()).await.unwrap().wait().await.unwrap();
        assert_eq!(engine.load(handle.id()).await.unwrap().status(), RunStatus::Cancelled);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_run_may_be_resumed_right_after_a_verb() {
    let engine = builder(MemoryStore::shared(StoreId::generate([7; 16]))).build();
    for n in 0..100 {
        let mut slow = step("b", "x");
        slow.after = vec![name("a")];
        let mut waits = step("a", "wait");
        waits.timeouts.start_to_close_ms = Some(1);
        waits.retry.maximum_attempts = 1;
        waits.on_exhausted = Some(dssflow_engine::run::OnTrouble::Pause);
        let handle = engine.start(start(&format!("r{n}"), vec![waits, slow])).await.unwrap();
        assert_eq!(handle.wait().await.unwrap().status, RunStatus::Paused);
        let skip = Verb::Complete { step: name("a"), output: json!("by hand") };
        assert!(engine.act(handle.id(), skip, by()).await.unwrap().handle.is_none());
        let handle = engine.resume(handle.id(), by()).await.unwrap();
        assert_eq!(handle.wait().await.unwrap().status, RunStatus::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_gone_gives_back_what_it_owned() {
    let kept = MemoryStore::shared(StoreId::generate([7; 16]));
    let one = builder(kept.share()).build();
    let handle = one.start(start("r", vec![step("a", "wait")])).await.unwrap();
    let id = handle.id().clone();
    drop((one, handle));
    tokio::task::yield_now().await;
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    let two = builder(kept.share()).build();
    let again = two.resume(&id, by()).await.unwrap();
    two.act(&id, Verb::Signal { signal: "s".to_owned(), payload: Value::Null }, by()).await.unwrap();
    two.terminate(&id, by()).await.unwrap();
    assert_eq!(again.wait().await.unwrap().status, RunStatus::Cancelled);
}
