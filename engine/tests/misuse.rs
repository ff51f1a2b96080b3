//! Whoever uses the engine wrongly is told so by a typed error that says what to do, and nothing is lost by it.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::sync::Arc;

use dssflow_engine::activity::{Effect, Probe, Recorded, Undo};
use dssflow_engine::event::{CancelMode, Request};
use dssflow_engine::graph::{GraphError, OnReject, StepKind};
use dssflow_engine::id::{ActivityName, RunId, StepName, StoreId, WorkflowName};
use dssflow_engine::run::{RunStatus, Verb};
use dssflow_engine::runtime::clock::TokioClock;
use dssflow_engine::store::StoreError;
use dssflow_engine::store::memory::MemoryStore;
use dssflow_engine::time::Timestamp;
use dssflow_engine::{
    Activity, ActivityContext, ActivityError, ActivityRegistry, ActivityResult, Binding, Engine, EngineError,
    Graph, GraphBuilder, RunHandle, StartRun, Step,
};
use serde_json::{Value, json};

fn huge() -> String {
    "x".repeat(20 * 1024 * 1024)
}

fn by() -> Request {
    Request::by("ann")
}

fn name(text: &str) -> StepName {
    StepName::new(text).unwrap()
}

fn step(text: &str, activity: &str, input: Value) -> Step {
    Step::activity(name(text), ActivityName::new(activity).unwrap(), Binding::literal(input))
}

fn graph(steps: Vec<Step>) -> Result<Graph, GraphError> {
    steps.into_iter().fold(Graph::builder(), GraphBuilder::step).build()
}

fn start(id: &str, steps: Vec<Step>) -> StartRun {
    let graph = graph(steps).unwrap();
    StartRun::new(WorkflowName::new("test").unwrap(), graph).id(RunId::new(id).unwrap())
}

/// Something that is there, is nobody's, and has too much to say.
struct Talker;

impl Activity for Talker {
    type Input = String;
    type Output = String;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn execute(&self, _: &ActivityContext, _: &String) -> ActivityResult<String> {
        Ok("made".to_owned())
    }

    async fn probe(&self, _: &ActivityContext, about: &String) -> ActivityResult<Probe<String>> {
        match about.as_str() {
            "found" => Ok(Probe::Present { output: huge(), owner: dssflow_engine::activity::Owner::Foreign }),
            "broken" => Ok(Probe::Failed { owner: dssflow_engine::activity::Owner::Foreign, detail: huge() }),
            _ => Ok(Probe::Absent),
        }
    }

    async fn compensate(&self, _: &ActivityContext, _: &String, _: &Recorded) -> ActivityResult<Undo> {
        Ok(Undo::Kept { reason: huge() })
    }
}

/// Activity `double` takes and gives numbers; `talk` says too much in the way it is told to; `wait` never ends.
fn engine() -> Engine {
    let mut activities = ActivityRegistry::new();
    activities.add_fn("double", |_, n: u64| async move { Ok(n * 2) }).unwrap();
    let wait = |ctx: ActivityContext, (): ()| async move {
        ctx.cancelled().await;
        Err::<(), _>(ActivityError::cancelled())
    };
    activities.add_fn("wait", wait).unwrap();
    let talk = |ctx: ActivityContext, how: String| async move {
        match how.as_str() {
            "output" => return Ok(huge()),
            "controls" => return Ok("\u{1}".repeat(12 * 1024 * 1024)),
            "error" => return Err(ActivityError::terminal("E", huge()).help(huge())),
            "panic" => std::panic::resume_unwind(Box::new(huge())),
            "resource" => ctx.record_resource("kind", huge()).await?,
            "before" => ctx.record_before(BTreeMap::from([("key".to_owned(), json!(huge()))])).await?,
            "heartbeat" => ctx.heartbeat(huge()),
            _ => {}
        }
        Ok(how)
    };
    activities.add_fn("talk", talk).unwrap();
    activities.add("talker", Talker).unwrap();
    Engine::builder(Arc::new(MemoryStore::new(StoreId::generate([7; 16]))))
        .clock(Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_000_000))))
        .activities(activities)
        .build()
}

#[test]
fn graphs_that_make_no_sense_name_the_step() {
    let after = |text: &str, before: &str| {
        let mut step = step(text, "double", json!(1));
        step.after = vec![name(before)];
        step
    };
    let cases = [
        (vec![], "no steps"),
        (vec![step("a", "double", json!(1)), step("a", "double", json!(1))], "two steps are named a"),
        (vec![after("a", "bb"), step("b", "double", json!(1))], "not in the graph; did you mean b?"),
        (vec![after("a", "b"), after("b", "a")], "wait for each other: "),
        (vec![step("a", "double", json!(huge()))], "at most 16777216 are allowed"),
    ];
    for (steps, says) in cases {
        let error = graph(steps).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_cannot_be_is_refused_and_leaves_nothing() {
    let engine = engine();
    let one = || vec![step("a", "double", json!(1))];
    let mut large = start("r", one());
    large.input = json!(huge());
    let mut reason = start("r", one());
    reason.request = Request { by: "ann".to_owned(), reason: huge() };
    let label = start("r", one()).label("key", huge());
    let cases = [
        (start("r", vec![step("a", "nope", json!(1))]), "register it before the run goes on"),
        (start("r", vec![step("a", "double", json!("one"))]), "the input of step a does not fit"),
        (large, "keep what is large elsewhere"),
        (reason, "keep it elsewhere and say where it is"),
        (label, "run summary"),
    ];
    for (start, says) in cases {
        let error = engine.start(start).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(engine.list(Default::default()).await.unwrap().runs.is_empty(), "{says}");
        assert!(engine.live_runs().is_empty(), "{says}");
    }
    // The id is as free as it was.
    let handle = engine.start(start("r", one())).await.unwrap();
    assert_eq!(handle.wait().await.unwrap().status, RunStatus::Succeeded);
    let again = engine.start(start("r", one())).await.unwrap_err();
    assert!(matches!(again, EngineError::Store { error: StoreError::Exists(_), .. }), "{again}");
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_says_too_much_of_ends_the_attempt_and_not_the_run() {
    let engine = engine();
    let cases = [
        ("output", RunStatus::Failed, "OutputTooLarge"),
        ("controls", RunStatus::Failed, "OutputTooLarge"),
        ("error", RunStatus::Failed, "E"),
        ("panic", RunStatus::Failed, "Panic"),
        ("resource", RunStatus::Failed, "RecordTooLarge"),
        ("before", RunStatus::Failed, "RecordTooLarge"),
        ("heartbeat", RunStatus::Succeeded, ""),
    ];
    for (how, status, code) in cases {
        let mut talk = step("a", "talk", json!(how));
        talk.retry.maximum_attempts = 1;
        let handle = engine.start(start(how, vec![talk])).await.unwrap();
        let view = handle.wait().await.unwrap();
        let error = view.steps[0].error.clone();
        assert_eq!((view.status, error.as_ref().map_or("", |e| &*e.code)), (status, code), "{how}");
        assert!(error.is_none_or(|e| e.message.len() <= dssflow_engine::activity::MAX_NOTE_BYTES), "{how}");
    }
    for (about, status) in [("found", RunStatus::Failed), ("broken", RunStatus::Paused)] {
        let talker = step("a", "talker", json!(about));
        let handle = engine.start(start(about, vec![talker])).await.unwrap();
        assert_eq!(handle.wait().await.unwrap().status, status, "{about}");
    }
    let handle = engine.start(start("kept", vec![step("a", "talker", json!("kept"))])).await.unwrap();
    handle.wait().await.unwrap();
    let back = engine.rollback(handle.id(), vec![], by()).await.unwrap();
    assert_eq!(back.wait().await.unwrap().status, RunStatus::RolledBack);
}

/// Every verb that takes a reason, on a run that waits at a gate.
async fn ask(engine: &Engine, run: &RunId, n: usize, request: Request) -> Option<Result<(), EngineError>> {
    let act = |verb| async { engine.act(run, verb, request.clone()).await.map(drop) };
    Some(match n {
        0 => engine.pause(run, request).await,
        1 => engine.cancel(run, CancelMode::Keep, request).await,
        2 => engine.rollback(run, vec![], request).await.map(drop),
        3 => engine.terminate(run, request).await.map(drop),
        4 => act(Verb::Approve { step: name("gate") }).await,
        5 => act(Verb::Reject { step: name("gate") }).await,
        6 => act(Verb::Skip { step: name("gate") }).await,
        7 => act(Verb::Complete { step: name("gate"), output: Value::Null }).await,
        8 => act(Verb::Signal { signal: "s".to_owned(), payload: Value::Null }).await,
        9 => act(Verb::Rerun { from: name("a") }).await,
        _ => return None,
    })
}

async fn waiting(engine: &Engine) -> RunHandle {
    let kind = StepKind::Gate {
        question: "go on?".to_owned(),
        timeout_ms: None,
        default: None,
        on_reject: OnReject::Fail,
    };
    let mut gate = Step::new(name("gate"), kind);
    gate.after = vec![name("a")];
    let handle = engine.start(start("r", vec![step("a", "double", json!(1)), gate])).await.unwrap();
    while handle.status().await.unwrap().status != RunStatus::Waiting {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    handle
}

#[tokio::test(start_paused = true)]
async fn a_verb_that_says_too_much_is_refused_and_the_run_goes_on() {
    let engine = engine();
    let handle = waiting(&engine).await;
    let before = engine.history(handle.id(), 0).await.unwrap().len();
    let mut n = 0;
    while let Some(refused) =
        ask(&engine, handle.id(), n, Request { by: "ann".to_owned(), reason: huge() }).await
    {
        let error = refused.unwrap_err();
        assert!(matches!(error, EngineError::PayloadTooLarge { .. }), "{n}: {error}");
        n += 1;
    }
    let refused = handle.signal("s", huge(), by()).await.unwrap_err();
    assert!(matches!(refused, EngineError::PayloadTooLarge { .. }), "{refused}");
    let refused = handle.signal(huge(), 1, by()).await.unwrap_err();
    assert!(matches!(refused, EngineError::PayloadTooLarge { .. }), "{refused}");
    let complete = Verb::Complete { step: name("gate"), output: json!(huge()) };
    let refused = engine.act(handle.id(), complete, by()).await.unwrap_err();
    assert!(matches!(refused, EngineError::OutputMismatch { .. }), "{refused}");
    assert_eq!(engine.history(handle.id(), 0).await.unwrap().len(), before);
    engine.act(handle.id(), Verb::Approve { step: name("gate") }, by()).await.unwrap();
    assert_eq!(handle.wait().await.unwrap().status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_live_run_and_a_finished_one_say_what_they_do_not_take() {
    let engine = engine();
    let handle = waiting(&engine).await;
    let id = handle.id();
    let live = [
        engine.resume(id, by()).await.map(drop),
        engine.cancel_idle(id, CancelMode::Keep, by()).await.map(drop),
        engine.note(id, Verb::Skip { step: name("gate") }, by()).await.map(drop),
        engine.upgrade(id, by()).await.map(drop),
    ];
    for refused in live {
        let error = refused.unwrap_err();
        assert!(matches!(error, EngineError::Live(_)), "{error}");
        assert!(error.to_string().contains("pause it"), "{error}");
    }
    let unknown = engine.act(id, Verb::Skip { step: name("gat") }, by()).await.unwrap_err();
    assert!(unknown.to_string().contains("gate"), "{unknown}");
    let missing = RunId::new("missing").unwrap();
    assert!(matches!(engine.resume(&missing, by()).await, Err(EngineError::NoSuchRun(_))));
    engine.act(id, Verb::Approve { step: name("gate") }, by()).await.unwrap();
    assert_eq!(handle.wait().await.unwrap().status, RunStatus::Succeeded);

    let before = engine.history(id, 0).await.unwrap().len();
    // All but a rollback and a rerun, which a finished run takes.
    for n in [0, 1, 3, 4, 5, 6, 7, 8] {
        let error = ask(&engine, id, n, by()).await.unwrap().unwrap_err();
        assert!(matches!(error, EngineError::Illegal { .. } | EngineError::NotLive(_)), "{n}: {error}");
        assert!(error.to_string().contains("ended") || error.to_string().contains("driven"), "{n}: {error}");
    }
    assert!(matches!(engine.resume(id, by()).await, Err(EngineError::Illegal { .. })));
    assert_eq!(engine.history(id, 0).await.unwrap().len(), before, "a refusal writes nothing");
    let fit = Verb::Complete { step: name("a"), output: json!("text") };
    let misfit = engine.act(id, fit, by()).await.unwrap_err();
    assert!(matches!(misfit, EngineError::OutputMismatch { .. }), "{misfit}");
}

#[tokio::test(start_paused = true)]
async fn a_list_too_large_to_map_fails_its_step() {
    let engine = engine();
    let activity = ActivityName::new("double").unwrap();
    let map = |items| StepKind::Map {
        items,
        activity: activity.clone(),
        max_concurrency: 1,
        tolerated_failures: 0,
    };
    let mut start_large =
        start("large", vec![Step::new(name("m"), map(Binding::Input { pointer: "/list".to_owned() }))]);
    start_large.input = json!({ "list": (0..100_001).collect::<Vec<_>>() });
    let mut start_text =
        start("text", vec![Step::new(name("m"), map(Binding::Input { pointer: "/list".to_owned() }))]);
    start_text.input = json!({ "list": "abc" });
    for (start, code) in [(start_large, "MapTooLarge"), (start_text, "NotAList")] {
        let handle = engine.start(start).await.unwrap();
        let view = handle.wait().await.unwrap();
        assert_eq!(view.status, RunStatus::Failed);
        assert_eq!(view.steps[0].error.as_ref().unwrap().code, code);
    }
}
