//! The whole engine on the memory store and paused time: what an embedder sees.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dssflow_engine::activity::{Effect, Marks, Owner, Probe, Recorded, Undo};
use dssflow_engine::event::{Again, CancelMode, EventKind, Request};
use dssflow_engine::graph::Timeouts;
use dssflow_engine::id::{ActivityName, StepName, StoreId, WorkflowName};
use dssflow_engine::retry::RetryPolicy;
use dssflow_engine::run::{OnTrouble, RunOptions, RunStatus, StepStatus, Verb};
use dssflow_engine::runtime::clock::TokioClock;
use dssflow_engine::store::memory::MemoryStore;
use dssflow_engine::time::Timestamp;
use dssflow_engine::{
    Activity, ActivityContext, ActivityError, ActivityRegistry, ActivityResult, Binding, Engine, EngineError,
    Graph, StartRun, Step,
};
use serde_json::{Value, json};

fn engine(activities: ActivityRegistry) -> Engine {
    Engine::builder(Arc::new(MemoryStore::new(StoreId::generate([7; 16]))))
        .clock(Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_000_000))))
        .activities(activities)
        .build()
}

fn step(name: &str, activity: &str, input: Value) -> Step {
    Step::activity(
        StepName::new(name).unwrap(),
        ActivityName::new(activity).unwrap(),
        Binding::from_template(input).unwrap(),
    )
}

fn run_of(steps: Vec<Step>) -> StartRun {
    let graph = steps.into_iter().fold(Graph::builder(), dssflow_engine::GraphBuilder::step).build().unwrap();
    StartRun::new(WorkflowName::new("test").unwrap(), graph)
}

fn status(view: &dssflow_engine::run::view::RunView, step: &str) -> StepStatus {
    view.steps.iter().find(|s| s.step.as_str() == step).unwrap().status
}

#[tokio::test(start_paused = true)]
async fn outputs_flow_into_inputs() {
    let mut activities = ActivityRegistry::new();
    activities.add_fn("double", |_, n: u64| async move { Ok(json!({"n": n * 2})) }).unwrap();
    let engine = engine(activities);
    let run = run_of(vec![
        step("a", "double", json!(3)),
        step("b", "double", json!({"$output": "a", "pointer": "/n"})),
    ]);
    let view = engine.start(run).await.unwrap().wait().await.unwrap();
    assert_eq!(view.status, RunStatus::Succeeded);
    assert_eq!(view.steps[1].output, Some(json!({"n": 12})));
    assert!(engine.live_runs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_attempt_and_time_moves_by_itself() {
    let mut activities = ActivityRegistry::new();
    let calls = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&calls);
    activities
        .add_fn("shaky", move |_, (): ()| {
            let seen = Arc::clone(&seen);
            async move {
                assert!(seen.fetch_add(1, Ordering::SeqCst) >= 2, "not yet");
                Ok(json!(null))
            }
        })
        .unwrap();
    let engine = engine(activities);
    let view =
        engine.start(run_of(vec![step("a", "shaky", json!(null))])).await.unwrap().wait().await.unwrap();
    assert_eq!(
        (view.status, view.steps[0].attempt, calls.load(Ordering::SeqCst)),
        (RunStatus::Succeeded, 3, 3)
    );
}

#[tokio::test(start_paused = true)]
async fn a_hung_attempt_is_ended_by_its_timeout_and_attempts_run_out() {
    let mut activities = ActivityRegistry::new();
    activities
        .add_fn("hang", |_, (): ()| async move {
            std::future::pending::<()>().await;
            Ok(json!(null))
        })
        .unwrap();
    let engine = engine(activities);
    let mut hung = step("a", "hang", json!(null));
    hung.timeouts = Timeouts::per_attempt(Duration::from_mins(5));
    hung.retry = RetryPolicy::attempts(3);
    let mut run = run_of(vec![hung]);
    run.options.on_exhausted = OnTrouble::Pause;
    let view = engine.start(run).await.unwrap().wait().await.unwrap();
    assert_eq!(view.status, RunStatus::Paused);
    assert_eq!(view.steps[0].error.as_ref().unwrap().code, "Timeout");
    assert_eq!(view.steps[0].attempt, 3);
}

/// A thing in a world of one name, with an owner.
#[derive(Clone, Default)]
struct World {
    things: Arc<std::sync::Mutex<BTreeMap<String, Marks>>>,
}

/// Marks of another store.
fn foreign() -> Marks {
    Marks { store: "other".into(), site: String::new(), run: "x".into(), step: "x".into(), generation: 1 }
}

struct Make;

impl Activity for Make {
    type Input = String;
    type Output = String;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn execute(&self, ctx: &ActivityContext, name: &String) -> ActivityResult<String> {
        if name.starts_with("bad") {
            return Err(ActivityError::terminal("Refused", "never").no_effect());
        }
        ctx.record_resource("thing", name.as_str()).await?;
        ctx.resource::<World>()?.things.lock().unwrap().insert(name.clone(), ctx.marks());
        Ok(name.clone())
    }

    async fn probe(&self, ctx: &ActivityContext, name: &String) -> ActivityResult<Probe<String>> {
        let world = ctx.resource::<World>()?;
        let things = world.things.lock().unwrap();
        Ok(match things.get(name) {
            None => Probe::Absent,
            Some(marks) => Probe::Present { output: name.clone(), owner: ctx.marks().owner_of(marks) },
        })
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        name: &String,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        assert_eq!(recorded.ids("thing").collect::<Vec<_>>(), [name]);
        let world = ctx.resource::<World>()?;
        let mut things = world.things.lock().unwrap();
        match things.get(name).map(|marks| ctx.marks().owner_of(marks)) {
            Some(Owner::ThisRun) => {
                things.remove(name);
                Ok(Undo::Undone)
            }
            _ => Ok(Undo::NothingToDo),
        }
    }
}

fn maker(world: World) -> Engine {
    let mut activities = ActivityRegistry::new();
    activities.add("make", Make).unwrap();
    let mut resources = dssflow_engine::activity::Resources::default();
    resources.insert(world);
    engine(activities).with_resources(resources)
}

#[tokio::test(start_paused = true)]
async fn a_terminal_error_rolls_back_when_told_to_and_foreign_things_stay() {
    let world = World::default();
    world.things.lock().unwrap().insert("theirs".into(), foreign());
    let engine = maker(world);
    let mut adopted = step("b", "make", json!("theirs"));
    adopted.adopt = true;
    adopted.after = vec![StepName::new("a").unwrap()];
    let mut bad = step("c", "make", json!("bad"));
    bad.after = vec![StepName::new("b").unwrap()];
    let mut run = run_of(vec![step("a", "make", json!("ours")), adopted, bad]);
    run.options = RunOptions { on_failure: OnTrouble::Rollback, ..RunOptions::default() };
    let handle = engine.start(run).await.unwrap();
    let view = handle.wait().await.unwrap();
    assert_eq!(view.status, RunStatus::RolledBack);
    assert_eq!(status(&view, "a"), StepStatus::Compensated);
    assert_eq!(status(&view, "b"), StepStatus::Adopted);
    assert!(!view.live);
    let again = engine.rollback(handle.id(), vec![], Request::by("test")).await;
    assert!(matches!(again, Err(EngineError::Illegal { .. })), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_thing_pauses_the_run_and_resume_looks_again() {
    let world = World::default();
    world.things.lock().unwrap().insert("a".into(), foreign());
    let engine = maker(world);
    let handle = engine.start(run_of(vec![step("a", "make", json!("a"))])).await.unwrap();
    let view = handle.wait().await.unwrap();
    assert_eq!(view.status, RunStatus::Paused);
    assert_eq!(view.steps[0].error.as_ref().unwrap().code, "ForeignResource");
    let mut resources = dssflow_engine::activity::Resources::default();
    resources.insert(World::default());
    let resumed = engine.with_resources(resources).resume(handle.id(), Request::by("test")).await.unwrap();
    assert_eq!(resumed.wait().await.unwrap().status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_thing_that_somebody_lets_a_step_take_is_used_and_never_taken_back() {
    let world = World::default();
    world.things.lock().unwrap().insert("a".into(), foreign());
    let engine = maker(world.clone());
    let mut after = step("b", "make", json!("b"));
    after.after = vec![StepName::new("a").unwrap()];
    let handle = engine.start(run_of(vec![step("a", "make", json!("a")), after])).await.unwrap();
    assert_eq!(handle.wait().await.unwrap().status, RunStatus::Paused);
    let (run, name) = (handle.id(), |n: &str| StepName::new(n).unwrap());

    // Only where something foreign is in the way.
    let refused = engine.note(run, Verb::Adopt { step: name("b") }, Request::by("ann")).await;
    assert!(refused.unwrap_err().to_string().contains("nothing that is not ours"));
    let why = Request { by: "ann".into(), reason: "it is the team's".into() };
    engine.note(run, Verb::Adopt { step: name("a") }, why.clone()).await.unwrap();
    // What was allowed outlives the process: the fold of the history knows it.
    let view = engine.resume(run, Request::by("ann")).await.unwrap().wait().await.unwrap();
    assert_eq!(view.status, RunStatus::Succeeded, "{view:?}");
    assert_eq!((status(&view, "a"), status(&view, "b")), (StepStatus::Adopted, StepStatus::Succeeded));
    let history = engine.history(run, 0).await.unwrap();
    let asked = history.iter().find_map(|event| match &event.kind {
        EventKind::StepsReset { again: Again::Adopt, request, .. } => Some(request.clone()),
        _ => None,
    });
    assert_eq!(asked, Some(why));

    let view = engine.rollback(run, vec![], Request::by("ann")).await.unwrap().wait().await.unwrap();
    assert_eq!(view.status, RunStatus::RolledBack);
    assert_eq!((status(&view, "a"), status(&view, "b")), (StepStatus::Adopted, StepStatus::Compensated));
    assert_eq!(*world.things.lock().unwrap(), BTreeMap::from([("a".to_owned(), foreign())]));
}

#[tokio::test(start_paused = true)]
async fn pause_resume_cancel_and_the_history_tells_who() {
    let mut activities = ActivityRegistry::new();
    activities
        .add_fn("nap", |ctx: ActivityContext, secs: u64| async move {
            ctx.sleep(Duration::from_secs(secs)).await?;
            Ok(json!(null))
        })
        .unwrap();
    let engine = engine(activities);
    let handle = engine.start(run_of(vec![step("a", "nap", json!(3600))])).await.unwrap();
    engine.pause(handle.id(), Request { by: "ann".into(), reason: "lunch".into() }).await.unwrap();
    let view = handle.wait().await.unwrap();
    assert_eq!(view.status, RunStatus::Paused);
    assert!(view.paused.unwrap().message.contains("ann: lunch"));
    assert!(matches!(engine.pause(handle.id(), Request::by("x")).await, Err(EngineError::NotLive(_))));
    let resumed = engine.resume(handle.id(), Request::by("bob")).await.unwrap();
    assert!(matches!(engine.resume(handle.id(), Request::by("bob")).await, Err(EngineError::Live(_))));
    engine.cancel(handle.id(), CancelMode::Keep, Request::by("bob")).await.unwrap();
    assert_eq!(resumed.wait().await.unwrap().status, RunStatus::Cancelled);
    let history = engine.history(handle.id(), 0).await.unwrap();
    assert!(
        history.iter().any(|e| matches!(&e.kind, EventKind::RunResumed { request } if request.by == "bob"))
    );
    assert!(history.iter().zip(1..).all(|(e, n)| e.seq == n));
}

#[tokio::test(start_paused = true)]
async fn two_runs_share_a_lock() {
    let mut activities = ActivityRegistry::new();
    let busy = Arc::new(AtomicU32::new(0));
    let inside = Arc::clone(&busy);
    activities
        .add_fn("alone", move |ctx: ActivityContext, (): ()| {
            let inside = Arc::clone(&inside);
            async move {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "somebody else is inside");
                ctx.sleep(Duration::from_secs(5)).await?;
                inside.fetch_sub(1, Ordering::SeqCst);
                Ok(json!(null))
            }
        })
        .unwrap();
    let engine = engine(activities);
    let mut handles = Vec::new();
    for _ in 0..3 {
        let mut s = step("a", "alone", json!(null));
        let lock = dssflow_engine::id::LockName::new("dss").unwrap();
        s.locks = vec![dssflow_engine::graph::LockUse::exclusive(lock)];
        s.retry = RetryPolicy::attempts(1);
        handles.push(engine.start(run_of(vec![s])).await.unwrap());
    }
    for handle in handles {
        assert_eq!(handle.wait().await.unwrap().status, RunStatus::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn mistakes_are_told_before_anything_starts() {
    let mut activities = ActivityRegistry::new();
    activities.add_fn("double", |_, n: u64| async move { Ok(json!(n * 2)) }).unwrap();
    let engine = engine(activities);
    let missing = engine.start(run_of(vec![step("a", "nope", json!(1))])).await.unwrap_err();
    assert!(matches!(missing, EngineError::MissingActivity { .. }), "{missing}");
    let mismatch = engine.start(run_of(vec![step("a", "double", json!("text"))])).await.unwrap_err();
    assert!(matches!(mismatch, EngineError::InputMismatch { .. }), "{mismatch}");
    assert!(engine.list(Default::default()).await.unwrap().runs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_is_what_is_read() {
    let mut activities = ActivityRegistry::new();
    activities.add_fn("same", |_, value: Value| async move { Ok(value) }).unwrap();
    let engine = engine(activities);
    // Floats whose shortest text is read back one unit off by a plain parser; a graph is hashed as it was stored.
    let mut x: u64 = 88_172_645_463_325_252;
    for _ in 0..2000 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        let float = f64::from(u32::try_from(x >> 32).unwrap()) / 4_294_967.296
            + f64::from(u32::try_from(x & 0xff).unwrap()) / 3.0;
        let graph = Graph::builder().step(step("a", "same", json!({ "x": float }))).build().unwrap();
        assert_eq!(Graph::decode(graph.encode()).unwrap().hash(), graph.hash(), "{float}");
    }
    let handle = engine.start(run_of(vec![step("a", "same", json!(null))])).await.unwrap();
    handle.wait().await.unwrap();
    assert!(engine.load(handle.id()).await.unwrap().steps[0].input.is_some(), "an input of null is an input");
}

#[tokio::test(start_paused = true)]
async fn an_output_that_could_never_be_read_is_refused() {
    let mut activities = ActivityRegistry::new();
    activities
        .add_fn(
            "deep",
            |_, depth: usize| async move { Ok((0..depth).fold(json!(1), |value, _| json!([value]))) },
        )
        .unwrap();
    let engine = engine(activities);
    for (depth, expected) in [(60, RunStatus::Succeeded), (200, RunStatus::Failed)] {
        let handle = engine.start(run_of(vec![step("a", "deep", json!(depth))])).await.unwrap();
        assert_eq!(handle.wait().await.unwrap().status, expected, "depth {depth}");
        engine.load(handle.id()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn resume_after_a_crash_between_the_wish_to_pause_and_the_pause_goes_on() {
    let mut activities = ActivityRegistry::new();
    activities
        .add_fn("slow", |_, (): ()| async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(json!(1))
        })
        .unwrap();
    let store = MemoryStore::new(StoreId::generate([7; 16]));
    let open = |store: MemoryStore| {
        Engine::builder(Arc::new(store))
            .clock(Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_000_000))))
            .activities(activities.clone())
            .build()
    };
    let reopened = store.share();
    let first = open(store);
    let handle = first
        .start(run_of(vec![step("a", "slow", json!(null)), step("b", "slow", json!(null))]))
        .await
        .unwrap();
    first.pause(handle.id(), Request::by("ann")).await.unwrap();
    first.stop();
    handle.wait().await.unwrap();
    let second = open(reopened.reopen());
    let resumed = second.resume(handle.id(), Request::by("ann")).await.unwrap();
    assert_eq!(resumed.wait().await.unwrap().status, RunStatus::Succeeded);
}

/// Makes its thing, and finds every time that it is not good enough.
struct NeverGood;

impl Activity for NeverGood {
    type Input = String;
    type Output = String;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn execute(&self, ctx: &ActivityContext, name: &String) -> ActivityResult<String> {
        Make.execute(ctx, name).await
    }

    async fn probe(&self, ctx: &ActivityContext, name: &String) -> ActivityResult<Probe<String>> {
        Make.probe(ctx, name).await
    }

    async fn verify(&self, _: &ActivityContext, _: &String, _: &String) -> ActivityResult<()> {
        Err(ActivityError::terminal("NotGood", "the post-condition does not hold"))
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        name: &String,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        Make.compensate(ctx, name, recorded).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_never_good_can_still_be_taken_back() {
    let mut activities = ActivityRegistry::new();
    activities.add("never-good", NeverGood).unwrap();
    let mut resources = dssflow_engine::activity::Resources::default();
    resources.insert(World::default());
    let engine = engine(activities).with_resources(resources);
    let mut run = run_of(vec![step("a", "never-good", json!("x"))]);
    run.options.on_failure = OnTrouble::Rollback;
    let view = engine.start(run).await.unwrap().wait().await.unwrap();
    assert_eq!((view.status, status(&view, "a")), (RunStatus::RolledBack, StepStatus::Compensated));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_cancels_itself_uses_up_its_budget() {
    let mut activities = ActivityRegistry::new();
    let calls = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&calls);
    activities
        .add_fn("quits", move |_, (): ()| {
            seen.fetch_add(1, Ordering::SeqCst);
            async move { Err::<Value, _>(ActivityError::cancelled()) }
        })
        .unwrap();
    let view = engine(activities)
        .start(run_of(vec![step("a", "quits", json!(null))]))
        .await
        .unwrap()
        .wait()
        .await
        .unwrap();
    assert_eq!((view.status, calls.load(Ordering::SeqCst)), (RunStatus::Failed, 8));
}
