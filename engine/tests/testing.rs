//! The test kit: that it passes what is right, and that it catches real mistakes.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dssflow_engine::activity::{Effect, ErrorClass, Owner, Probe, Recorded, Undo, Undoing};
use dssflow_engine::event::{EventKind, Next, Phase};
use dssflow_engine::graph::{OnReject, StepKind, Timeouts};
use dssflow_engine::id::{ActivityName, RunId, StepName, StoreId, WorkflowName};
use dssflow_engine::run::versions::Verdict;
use dssflow_engine::run::view::Awaited;
use dssflow_engine::run::{Command, OnTrouble, RunStatus, StepStatus, Verb};
use dssflow_engine::runtime::EngineBuilder;
use dssflow_engine::testing::{
    CheckReport, Crash, End, Fault, Faults, HistoryBuilder, HistoryError, Lab, LabError, MemoryStore, Moment,
    Rates, RepeatCheck, ReplayError, ReplayProblem, Rule, StoredHistory, Trial, Wrong, check_idempotent,
    replay, replay_run,
};
use dssflow_engine::workflow::Definition;
use dssflow_engine::{
    Activity, ActivityContext, ActivityError, ActivityRegistry, ActivityResult, Binding, Engine, Graph,
    GraphBuilder, StartRun, Step,
};
use serde_json::{Value, json};

/// The world outside: what there is, and how many.
type World = Arc<Mutex<BTreeMap<String, u32>>>;

fn look(world: &World) -> BTreeMap<String, u32> {
    world.lock().unwrap().clone()
}

fn name(text: &str) -> StepName {
    StepName::new(text).unwrap()
}

fn step(text: &str, activity: &str, input: Value) -> Step {
    let input = Binding::from_template(input).unwrap();
    Step::activity(name(text), ActivityName::new(activity).unwrap(), input)
}

fn after(mut step: Step, before: &str) -> Step {
    step.after.push(name(before));
    step
}

fn start(steps: Vec<Step>) -> StartRun {
    let graph = steps.into_iter().fold(Graph::builder(), GraphBuilder::step).build().unwrap();
    StartRun::new(WorkflowName::new("test").unwrap(), graph)
}

/// How an activity does and undoes: what it makes of the number that is there.
#[derive(Clone, Copy)]
struct Deed {
    does: fn(u32) -> u32,
    /// None of it there is an error.
    strict_undo: bool,
}

const RIGHT: Deed = Deed { does: |_| 1, strict_undo: false };

fn activities(world: &World, deed: Deed) -> ActivityRegistry {
    let (there, gone) = (Arc::clone(world), Arc::clone(world));
    let mut activities = ActivityRegistry::new();
    activities
        .add_fn_with_undo(
            "put",
            move |_, shelf: String| {
                let world = Arc::clone(&there);
                async move {
                    let mut world = world.lock().unwrap();
                    let count = world.entry(shelf.clone()).or_default();
                    *count = (deed.does)(*count);
                    Ok(shelf)
                }
            },
            move |_, undoing: Undoing<String, String>| {
                let world = Arc::clone(&gone);
                async move {
                    let was = world.lock().unwrap().remove(&undoing.input);
                    if was.is_none() && deed.strict_undo {
                        return Err(ActivityError::terminal("NotThere", "there is nothing to take"));
                    }
                    Ok(())
                }
            },
        )
        .unwrap();
    activities
}

fn two_puts() -> StartRun {
    start(vec![step("a", "put", json!("left")), after(step("b", "put", json!("right")), "a")])
}

async fn check(deed: Deed) -> CheckReport {
    let code =
        |world: &World, engine: EngineBuilder| engine.activities(activities(world, deed)).max_attempts(4);
    check_idempotent(World::default, code, two_puts(), look).await
}

#[tokio::test(start_paused = true)]
async fn what_is_right_passes() {
    let report = check(RIGHT).await;
    report.assert_ok();
    assert_eq!(report.skipped, 0);
    // Two calls and two undos, twice and three times.
    assert_eq!(report.repeats, 8);
    // 5 transitions forward (twice each side), 5 back.
    assert_eq!((report.crashes_fired, report.runs), (30, 33), "{report}");
}

#[tokio::test(start_paused = true)]
async fn an_activity_that_cannot_be_repeated_is_caught() {
    let report = check(Deed { does: |count| count + 1, ..RIGHT }).await;
    assert!(!report.is_ok());
    let worlds = |difference: &&dssflow_engine::testing::Difference| {
        matches!(difference.wrong, Wrong::World { .. }) && difference.moment == Moment::AfterRun
    };
    let found: Vec<_> = report.differences.iter().filter(worlds).map(|d| d.trial.clone()).collect();
    assert!(found.contains(&Trial::Repeated { times: 2 }), "{report}");
    // It acted, and the process crashed before anybody knew: only a crash before the event shows it.
    let lost = found.iter().find_map(|trial| match trial {
        Trial::CrashThenResume { crash: Crash::BeforeEvent(n), what } => Some((*n, what.clone())),
        _ => None,
    });
    let (n, what) = lost.unwrap();
    assert!(what.contains("attempt_succeeded of a"), "{what}");
    assert!(report.to_string().contains("lab.crash_before_event("), "{report}");

    // What the report says brings it back.
    let world = World::default();
    let deed = Deed { does: |count| count + 1, ..RIGHT };
    let lab = Lab::new(|engine| engine.activities(activities(&world, deed)));
    lab.crash_before_event(n);
    lab.run(two_puts()).await.unwrap();
    assert_eq!(look(&world)["left"], 2);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the world is")]
async fn a_check_that_found_something_panics_with_it() {
    check(Deed { does: |count| count + 1, ..RIGHT }).await.assert_ok();
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_when_nothing_is_there_is_caught() {
    let report = check(Deed { strict_undo: true, ..RIGHT }).await;
    let stuck = report.differences.iter().find(|d| d.trial == Trial::Repeated { times: 2 }).unwrap();
    assert_eq!(stuck.moment, Moment::AfterRollback);
    let Wrong::Ended { expected, found, step, error } = &stuck.wrong else { panic!("{stuck}") };
    assert_eq!((*expected, *found), (RunStatus::RolledBack, RunStatus::RollbackStuck));
    assert_eq!((step.as_ref().unwrap().as_str(), error.as_ref().unwrap().code.as_str()), ("b", "NotThere"));
    let crashed = |d: &dssflow_engine::testing::Difference| matches!(d.trial, Trial::CrashInRollback { .. });
    assert!(report.differences.iter().any(crashed), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_workflow_that_does_nothing_is_not_checked() {
    let nothing = start(vec![Step::new(name("nap"), StepKind::Sleep { duration_ms: Binding::literal(5) })]);
    let report = check_idempotent(World::default, |_, engine| engine, nothing, look).await;
    assert!(report.differences.is_empty() && !report.is_ok());
    assert!(report.to_string().contains("nothing was repeated"), "{report}");
}

/// Things with ids of their own; the first one comes out broken.
#[derive(Default)]
struct Foundry {
    things: BTreeSet<String>,
    broken: BTreeSet<String>,
}

struct Cast {
    foundry: Arc<Mutex<Foundry>>,
    /// Whether the undo knows of more than the last thing.
    all: bool,
}

impl Activity for Cast {
    type Input = String;
    type Output = String;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn execute(&self, ctx: &ActivityContext, name: &String) -> ActivityResult<String> {
        let id = format!("{name}-{}", ctx.generation());
        ctx.record_resource("thing", &id).await?;
        let mut foundry = self.foundry.lock().unwrap();
        foundry.things.insert(id.clone());
        if ctx.generation() == 1 {
            foundry.broken.insert(id);
            return Err(ActivityError::retryable("Cracked", "it came out broken"));
        }
        Ok(id)
    }

    async fn probe(&self, ctx: &ActivityContext, name: &String) -> ActivityResult<Probe<String>> {
        let id = format!("{name}-{}", ctx.generation());
        let foundry = self.foundry.lock().unwrap();
        Ok(if foundry.broken.contains(&id) {
            Probe::Failed { owner: Owner::ThisRun, detail: "cracked".to_owned() }
        } else if foundry.things.contains(&id) {
            Probe::Present { output: id, owner: Owner::ThisRun }
        } else {
            Probe::Absent
        })
    }

    async fn compensate(&self, _: &ActivityContext, _: &String, made: &Recorded) -> ActivityResult<Undo> {
        let mut foundry = self.foundry.lock().unwrap();
        let skip = if self.all { 0 } else { made.ids("thing").count().saturating_sub(1) };
        for id in made.ids("thing").skip(skip) {
            foundry.things.remove(id);
            foundry.broken.remove(id);
        }
        Ok(Undo::Undone)
    }
}

async fn cast(all: bool) -> CheckReport {
    let code = move |foundry: &Arc<Mutex<Foundry>>, engine: EngineBuilder| {
        let mut activities = ActivityRegistry::new();
        activities.add("cast", Cast { foundry: Arc::clone(foundry), all }).unwrap();
        engine.activities(activities)
    };
    let look = |foundry: &Arc<Mutex<Foundry>>| foundry.lock().unwrap().things.clone();
    let world = || Arc::new(Mutex::new(Foundry::default()));
    check_idempotent(world, code, start(vec![step("bell", "cast", json!("bell"))]), look).await
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_forgets_a_generation_is_caught() {
    cast(true).await.assert_ok();
    let report = cast(false).await;
    let first = &report.differences[0];
    assert_eq!((&first.trial, first.moment), (&Trial::Plain, Moment::AfterRollback));
    let Wrong::World { found, expected } = &first.wrong else { panic!("{first}") };
    assert!(found.contains("bell-1") && !expected.contains("bell-1"), "{first}");
}

#[tokio::test(start_paused = true)]
async fn a_check_goes_through_gates_maps_and_sub_workflows() {
    let inner = start(vec![step("x", "put", json!("inner"))]).graph;
    let gate = StepKind::Gate {
        question: "go on?".to_owned(),
        timeout_ms: None,
        default: None,
        on_reject: OnReject::Fail,
    };
    let map = StepKind::Map {
        items: Binding::literal(["one", "two"]),
        activity: ActivityName::new("put").unwrap(),
        max_concurrency: 0,
        tolerated_failures: 0,
    };
    let sub = StepKind::SubWorkflow {
        workflow: "inner".to_owned(),
        input: Binding::literal(()),
        on_parent_close: dssflow_engine::graph::OnParentClose::Cancel,
    };
    let signal = StepKind::Signal { signal: "ring".to_owned(), timeout_ms: None, default: None };
    let run = start(vec![
        Step::new(name("gate"), gate),
        after(Step::new(name("map"), map), "gate"),
        after(Step::new(name("sub"), sub), "gate"),
        after(Step::new(name("signal"), signal), "map"),
    ]);
    let code = |world: &World, engine: EngineBuilder| {
        let name = WorkflowName::new("inner").unwrap();
        engine.activities(activities(world, RIGHT)).definition(Definition::fixed(name, 1, inner.clone()))
    };
    let report = RepeatCheck::new(World::default, code, run, look)
        .operator(|waiting| match &waiting.awaits {
            Awaited::Decision { .. } => Some(Verb::Approve { step: waiting.step.clone() }),
            Awaited::Signal { signal } => {
                Some(Verb::Signal { signal: signal.clone(), payload: json!("dong") })
            }
            _ => None,
        })
        .run()
        .await;
    report.assert_ok();
    assert!(report.crashes_fired > 50, "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_itself_back_is_checked_too() {
    let mut run = start(vec![step("a", "put", json!("left")), after(step("b", "refuse", json!(null)), "a")]);
    run.options.on_failure = OnTrouble::Rollback;
    let code = |world: &World, engine: EngineBuilder| {
        let mut all = activities(world, RIGHT);
        all.add_fn("refuse", |_, (): ()| async { Err::<(), _>(ActivityError::terminal("No", "never")) })
            .unwrap();
        engine.activities(all)
    };
    let check = RepeatCheck::new(World::default, code, run.clone(), look).expects(RunStatus::RolledBack);
    check.run().await.assert_ok();
    // Without being told, it is an end that nobody wanted.
    let report = check_idempotent(World::default, code, run, look).await;
    assert!(matches!(report.differences[0].wrong, Wrong::Ended { found: RunStatus::RolledBack, .. }));
}

#[tokio::test(start_paused = true)]
async fn a_process_crashes_where_it_is_told_and_comes_back() {
    let world = World::default();
    let lab = Lab::new(|engine| engine.activities(activities(&world, RIGHT)));
    let run = RunId::new("lab-1").unwrap();

    lab.crash_before_event(1);
    assert!(lab.start(two_puts().id(run.clone())).await.unwrap().is_crash());
    assert!(lab.view(&run).await.is_err(), "nothing was written");

    // The intent of the first step is durable, and it did not act yet.
    lab.crash_after_event(2);
    assert!(lab.start(two_puts().id(run.clone())).await.unwrap().is_crash());
    assert!(look(&world).is_empty());
    assert_eq!(lab.history(&run).await.unwrap().len(), 2);

    // It acted, and that is not written down.
    let written = lab.commits().last().unwrap().last;
    lab.crash_before_event(written + 3);
    let end = lab.resume(&run).await.unwrap();
    assert!(end.is_crash(), "{end:?}");
    assert_eq!(look(&world).len(), 1);

    let view = lab.run_on(&run).await.unwrap();
    assert_eq!((view.status, lab.crashes()), (RunStatus::Succeeded, 3));
    assert_eq!(look(&world).len(), 2);
    let kinds = |kind: fn(&EventKind) -> bool| {
        let events = lab.commits();
        drop(events);
        kind
    };
    let recovered = kinds(|kind| matches!(kind, EventKind::RunRecovered { .. }));
    let events = lab.history(&run).await.unwrap();
    assert_eq!(events.iter().filter(|event| recovered(&event.kind)).count(), 2);

    lab.crash_after_event(lab.commits().last().unwrap().last + 1);
    let view = lab.take_back(&run).await.unwrap();
    assert_eq!((view.status, lab.crashes(), look(&world).len()), (RunStatus::RolledBack, 4, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_dead_process_acts() {
    let world = World::default();
    let seen = Arc::clone(&world);
    let code = |engine: EngineBuilder| {
        let seen = Arc::clone(&seen);
        let mut activities = ActivityRegistry::new();
        activities
            .add_fn("slow", move |ctx: ActivityContext, (): ()| {
                let seen = Arc::clone(&seen);
                async move {
                    *seen.lock().unwrap().entry("begun".to_owned()).or_default() += 1;
                    // Not by the context: this one does not look whether it should stop.
                    tokio::time::sleep(Duration::from_mins(1)).await;
                    *seen.lock().unwrap().entry(format!("ended {}", ctx.attempt())).or_default() += 1;
                    Ok(())
                }
            })
            .unwrap();
        activities
            .add_fn(
                "quick",
                |ctx: ActivityContext, (): ()| async move { ctx.sleep(Duration::from_secs(1)).await },
            )
            .unwrap();
        engine.activities(activities)
    };
    let lab = Lab::new(code)
        .faults(Faults::new().with(Rule::new(Fault::Crash).step("quick").phase(Phase::Execute).once()));
    let run = start(vec![step("slow", "slow", json!(null)), step("quick", "quick", json!(null))]);
    let run = run.id(RunId::new("r").unwrap());
    assert!(lab.start(run.clone()).await.unwrap().is_crash());
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(look(&world), [("begun".to_owned(), 1)].into());
    let view = lab.run_on(run.id.as_ref().unwrap()).await.unwrap();
    assert_eq!(view.status, RunStatus::Succeeded);
    assert_eq!(look(&world), [("begun".to_owned(), 2), ("ended 2".to_owned(), 1)].into());
}

#[tokio::test(start_paused = true)]
async fn a_life_can_be_ended_by_hand_and_time_goes_on() {
    let world = World::default();
    let lab = Lab::new(|engine| engine.activities(activities(&world, RIGHT)));
    let nap = StepKind::Sleep { duration_ms: Binding::literal(86_400_000) };
    let run = start(vec![Step::new(name("nap"), nap), after(step("a", "put", json!("x")), "nap")]);
    let handle = lab.engine().start(run.id(RunId::new("r").unwrap())).await.unwrap();
    tokio::time::sleep(Duration::from_hours(2)).await;
    lab.crash();
    assert!(handle.wait().await.is_err());
    let view = lab.run_on(handle.id()).await.unwrap();
    assert_eq!((view.status, lab.crashes()), (RunStatus::Succeeded, 1));
    let took = view.updated.since(view.created);
    assert!(took >= Duration::from_hours(24) && took < Duration::from_hours(25), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_answers_is_told() {
    let lab = Lab::new(|engine| engine);
    let gate = StepKind::Gate {
        question: "well?".to_owned(),
        timeout_ms: None,
        default: None,
        on_reject: OnReject::Fail,
    };
    let error = lab.run(start(vec![Step::new(name("gate"), gate)])).await.unwrap_err();
    let LabError::Stuck { status, awaits, .. } = &error else { panic!("{error}") };
    assert_eq!((*status, awaits.as_ref().unwrap().as_str()), (RunStatus::Waiting, "gate"));

    let missing = lab.run(start(vec![step("a", "nobody", json!(null))])).await.unwrap_err();
    assert!(missing.to_string().contains("activity nobody"), "{missing}");
}

/// One run of one step with these faults: where it stands, its error codes, and what became of the world.
async fn faulty(faults: Faults) -> (RunStatus, Vec<String>, Option<u32>) {
    let world = World::default();
    let deed = Deed { does: |count| count + 1, ..RIGHT };
    let lab = Lab::new(|engine| engine.activities(activities(&world, deed))).faults(faults);
    let mut put = step("a", "put", json!("x"));
    put.timeouts = Timeouts::per_attempt(Duration::from_mins(1));
    let run = start(vec![put]).id(RunId::new("r").unwrap());
    let view = lab.run(run).await.unwrap();
    assert!(lab.the_faults().unfired().is_empty());
    let events = lab.history(&view.run).await.unwrap();
    let codes = events.iter().filter_map(|event| match &event.kind {
        EventKind::AttemptFailed { error, .. } => Some(error.code.clone()),
        EventKind::AttemptLost { .. } => Some("lost".to_owned()),
        _ => None,
    });
    let count = look(&world).get("x").copied();
    (view.status, codes.collect(), count)
}

#[tokio::test(start_paused = true)]
async fn faults_happen_as_written() {
    let once = |fault| Faults::new().with(Rule::new(fault).activity("put").step("a").attempt(1));
    let done = |code: &[&str], count| {
        (RunStatus::Succeeded, code.iter().map(|code| (*code).to_owned()).collect::<Vec<_>>(), Some(count))
    };
    assert_eq!(faulty(Faults::new()).await, done(&[], 1));
    assert_eq!(faulty(once(Fault::fail(ErrorClass::Retryable))).await, done(&["Injected"], 1));
    assert_eq!(faulty(once(Fault::LoseReply)).await, done(&["ReplyLost"], 2));
    assert_eq!(faulty(once(Fault::Crash)).await, done(&["lost"], 2));
    assert_eq!(faulty(once(Fault::Panic)).await, done(&["Panic"], 1));
    assert_eq!(faulty(once(Fault::Hang)).await, done(&["Timeout"], 1));
    assert_eq!(faulty(once(Fault::Repeat(3))).await, done(&[], 3));
    let twice = Faults::new().with(Rule::new(Fault::fail(ErrorClass::Retryable)).times(2));
    assert_eq!(faulty(twice).await, done(&["Injected", "Injected"], 1));
    let terminal = faulty(once(Fault::fail(ErrorClass::Terminal))).await;
    assert_eq!(terminal, (RunStatus::Failed, vec!["Injected".to_owned()], None));
    let credentials = faulty(once(Fault::fail(ErrorClass::Credentials))).await;
    assert_eq!(credentials.0, RunStatus::Paused);
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_fits_nothing_is_told_and_faults_can_be_cleared() {
    let world = World::default();
    let lab = Lab::new(|engine| engine.activities(activities(&world, RIGHT)))
        .faults(Faults::new().with(Rule::new(Fault::Panic).step("misspelt")));
    let view = lab.run(two_puts()).await.unwrap();
    assert_eq!(view.status, RunStatus::Succeeded);
    assert_eq!(lab.the_faults().unfired(), [Rule::new(Fault::Panic).step("misspelt")]);

    // An undo that never works is stuck, until what stands in its way is gone.
    let no_undo = Rule::new(Fault::fail(ErrorClass::Terminal)).step("b").phase(Phase::Compensate);
    lab.the_faults().add(no_undo);
    let view = lab.take_back(&view.run).await.unwrap();
    assert_eq!((view.status, look(&world).len()), (RunStatus::RollbackStuck, 2));
    lab.the_faults().clear();
    let view = lab.take_back(&view.run).await.unwrap();
    assert_eq!((view.status, look(&world).len()), (RunStatus::RolledBack, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_of_an_activity_with_a_probe_is_looked_up() {
    let foundry = Arc::new(Mutex::new(Foundry::default()));
    let lab = Lab::new(|engine| {
        let mut activities = ActivityRegistry::new();
        activities.add("cast", Cast { foundry: Arc::clone(&foundry), all: true }).unwrap();
        engine.activities(activities)
    })
    .faults(Faults::new().with(Rule::new(Fault::LoseReply).phase(Phase::Execute).attempt(3)));
    let view = lab.run(start(vec![step("bell", "cast", json!("bell"))])).await.unwrap();
    assert_eq!(view.status, RunStatus::Succeeded);
    // Cracked, looked at, cast anew, looked at.
    assert_eq!((view.steps[0].attempt, view.steps[0].generation), (4, 2), "{:?}", lab.commits());
    assert_eq!(view.steps[0].output, Some(json!("bell-2")));
}

#[tokio::test(start_paused = true)]
async fn chance_is_the_same_for_the_same_seed() {
    let mut distinct = BTreeSet::new();
    for seed in 0..20 {
        let mut fired = Vec::new();
        for _ in 0..2 {
            let world = World::default();
            let lab = Lab::new(|engine| engine.activities(activities(&world, RIGHT)))
                .faults(Faults::random(seed, Rates::ROUGH, 6))
                .seed(seed);
            let view = lab.run(two_puts()).await.unwrap();
            assert_eq!((view.status, look(&world).len()), (RunStatus::Succeeded, 2), "seed {seed}");
            assert_eq!(lab.take_back(&view.run).await.unwrap().status, RunStatus::RolledBack, "seed {seed}");
            assert!(look(&world).is_empty(), "seed {seed}");
            let words: Vec<String> = lab.the_faults().fired().iter().map(ToString::to_string).collect();
            fired.push((words, lab.history(&view.run).await.unwrap().len()));
        }
        assert_eq!(fired[0], fired[1], "seed {seed}");
        distinct.insert(fired.remove(0).0);
    }
    assert!(distinct.len() > 10, "chance that is always alike: {distinct:?}");
}

fn shop() -> StartRun {
    let ship = step("ship", "ship", json!({"receipt": {"$output": "pay", "pointer": "/receipt"}}));
    start(vec![step("pay", "pay", json!({"sum": 5})), ship])
}

#[test]
fn a_history_is_written_by_hand() {
    let history = HistoryBuilder::new(shop());
    assert_eq!(history.state().unwrap().status(), RunStatus::Pending);
    let [Command::StartAttempt { step: 0, phase: Phase::Execute }] = *history.what_follows().unwrap() else {
        panic!("{:?}", history.what_follows())
    };
    let history = history
        .attempt_succeeds("pay", json!({"receipt": 7}))
        .attempt_fails("ship", ActivityError::retryable("Busy", "no lorry"));
    let state = history.state().unwrap();
    assert_eq!(state.step(&name("ship")).unwrap().input.as_deref(), Some(&json!({"receipt": 7})));
    let EventKind::AttemptFailed { next: Next::At { at }, .. } = &history.events().unwrap()[4].kind else {
        panic!("{:?}", history.events())
    };
    assert_eq!(history.what_follows().unwrap(), [Command::WakeAt(*at)], "the retry is still to come");

    let paused = history.clone().paused();
    assert_eq!(paused.state().unwrap().status(), RunStatus::Paused);
    let done = paused.resumed().attempt_succeeds("ship", json!("sent")).finished();
    assert_eq!(done.state().unwrap().status(), RunStatus::Succeeded);
    let back = done
        .rollback_starts()
        .undo_succeeds("ship")
        .undo_fails("pay", ActivityError::terminal("Spent", "no money back"))
        .finished();
    assert_eq!(back.state().unwrap().status(), RunStatus::RollbackStuck);
    let back = back.verb(&Verb::MarkUndone { step: name("pay") });
    assert_eq!(back.state().unwrap().step(&name("pay")).unwrap().status, StepStatus::Compensated);

    let crashed = history.attempt_starts("ship").crashed(Duration::from_hours(1));
    let last = &crashed.events().unwrap().last().unwrap().kind;
    assert!(matches!(last, EventKind::AttemptLost { attempt: 2, .. }), "{last:?}");
    let numbers: Vec<u64> = crashed.events().unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn an_event_that_does_not_fit_is_refused_in_the_words_of_the_core() {
    let twice = HistoryBuilder::new(shop())
        .attempt_succeeds("pay", json!({"receipt": 7}))
        .attempt_succeeds("pay", json!({"receipt": 8}))
        .attempt_succeeds("ship", json!("sent"));
    let error = twice.events().unwrap_err();
    let HistoryError::Illegal(illegal) = &error else { panic!("{error}") };
    assert_eq!((illegal.seq, illegal.why.as_str()), (4, "pay is succeeded and cannot start to Execute"));
    assert_eq!(twice.state().unwrap_err(), error, "told wherever it is asked for, and nothing came after");

    let early = HistoryBuilder::new(shop()).attempt_starts("ship").events().unwrap_err().to_string();
    assert!(early.contains("pay") || early.contains("ship"), "{early}");
    let unknown = HistoryBuilder::new(shop()).attempt_starts("shipp").events().unwrap_err().to_string();
    assert!(unknown.contains("did you mean ship?"), "{unknown}");
    let unfinished = HistoryBuilder::new(shop()).finished().events().unwrap_err().to_string();
    assert!(unfinished.contains("does not end here"), "{unfinished}");
}

#[tokio::test(start_paused = true)]
async fn a_history_written_by_hand_can_be_driven_on() {
    let lab = Lab::new(|engine| {
        let mut activities = ActivityRegistry::new();
        activities
            .add_fn("pay", |_, _: Value| async { Err::<Value, _>(ActivityError::cancelled()) })
            .unwrap();
        activities.add_fn("ship", |_, order: Value| async move { Ok(order) }).unwrap();
        engine.activities(activities)
    });
    let history = HistoryBuilder::new(shop())
        .attempt_succeeds("pay", json!({"receipt": 7}))
        .attempt_starts("ship")
        .crashed(Duration::from_secs(9));
    let run = history.into_store(lab.store().as_ref()).await.unwrap();
    let view = lab.run_on(&run).await.unwrap();
    assert_eq!((view.status, view.steps[1].attempt), (RunStatus::Succeeded, 2));
    assert_eq!(view.steps[1].output, Some(json!({"receipt": 7})));
    assert_eq!(lab.view(&run).await.unwrap().updated, view.updated);
    let again = history.into_store(lab.store().as_ref()).await;
    assert!(matches!(again, Err(HistoryError::Store(_))), "{again:?}");
}

fn engine_of(activities: ActivityRegistry) -> EngineBuilder {
    Engine::builder(Arc::new(MemoryStore::new(StoreId::generate([1; 16])))).activities(activities)
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Receipt {
    receipt: u32,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct NewReceipt {
    number: String,
}

fn pay_gives<O: serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static>() -> ActivityRegistry
{
    let mut activities = ActivityRegistry::new();
    activities.add_fn("pay", |_, _: Value| async { Err::<O, _>(ActivityError::cancelled()) }).unwrap();
    activities.add_fn("ship", |_, _: Receipt| async { Ok(String::new()) }).unwrap();
    activities
}

/// A run that paid and waits to ship.
fn paid() -> StoredHistory {
    let history = HistoryBuilder::new(shop())
        .attempt_succeeds("pay", json!({"receipt": 7}))
        .attempt_fails("ship", ActivityError::retryable("Busy", "no lorry"));
    StoredHistory {
        run: RunId::new("old").unwrap(),
        events: history.events().unwrap().to_vec(),
        graphs: history.graphs().to_vec(),
    }
}

#[test]
fn code_that_reads_an_old_history_passes() {
    let engine = engine_of(pay_gives::<Receipt>())
        .definition(Definition::fixed(WorkflowName::new("test").unwrap(), 2, shop().graph))
        .build();
    let report = replay(&paid(), &engine).unwrap();
    report.assert_ok();
    assert_eq!((report.events, report.inputs, report.outputs), (5, 2, 1));
    assert_eq!(report.comparison.unwrap().verdict, Verdict::Compatible);
    assert_eq!(report.view.steps[1].status, StepStatus::Backoff);
}

#[test]
fn a_changed_output_type_is_caught() {
    let report = replay(&paid(), &engine_of(pay_gives::<NewReceipt>()).build()).unwrap();
    let [ReplayProblem::Output { run, seq: 3, step, activity, why }] = report.problems.as_slice() else {
        panic!("{report}")
    };
    assert_eq!((run.as_str(), step.as_str(), activity.as_str()), ("old", "pay", "pay"));
    assert!(why.contains("number"), "{why}");
    assert_eq!(report.ok().unwrap_err(), report.problems[0]);

    // A migration mends it, if it gives what is wanted.
    let pay = || ActivityName::new("pay").unwrap();
    let mends = |old: &Value| Ok(json!({"number": old["receipt"].to_string()}));
    let report =
        replay(&paid(), &engine_of(pay_gives::<NewReceipt>()).migrate(pay(), mends).build()).unwrap();
    report.assert_ok();
    assert_eq!(report.migrated, [name("pay")]);
    let other = engine_of(pay_gives::<NewReceipt>()).migrate(pay(), |old| Ok(old.clone())).build();
    assert!(replay(&paid(), &other).unwrap().to_string().contains("after its migration"));
}

#[test]
fn a_changed_input_type_is_caught() {
    let mut activities = ActivityRegistry::new();
    activities.add_fn("pay", |_, _: Value| async { Ok(Value::Null) }).unwrap();
    activities.add_fn("ship", |_, _: NewReceipt| async { Ok(()) }).unwrap();
    let report = replay(&paid(), &engine_of(activities).build()).unwrap();
    let [ReplayProblem::Input { seq: 4, step, .. }] = report.problems.as_slice() else { panic!("{report}") };
    assert_eq!(step.as_str(), "ship");
}

#[test]
fn a_removed_activity_or_function_is_caught() {
    let mut activities = ActivityRegistry::new();
    activities.add_fn("ship", |_, _: Receipt| async { Ok(String::new()) }).unwrap();
    let report = replay(&paid(), &engine_of(activities).build()).unwrap();
    let [ReplayProblem::MissingActivity { step, activity, .. }] = report.problems.as_slice() else {
        panic!("{report}")
    };
    assert_eq!((step.as_str(), activity.as_str()), ("pay", "pay"));

    let mut pay = step("pay", "pay", json!(null));
    pay.when = Some(Binding::Function { name: "rich".to_owned(), argument: Box::new(Binding::literal(1)) });
    let history = HistoryBuilder::new(start(vec![pay]));
    let stored = StoredHistory {
        run: RunId::new("old").unwrap(),
        events: history.events().unwrap().to_vec(),
        graphs: history.graphs().to_vec(),
    };
    let report = replay(&stored, &engine_of(pay_gives::<Receipt>()).build()).unwrap();
    let [ReplayProblem::MissingFunction { step, function, .. }] = report.problems.as_slice() else {
        panic!("{report}")
    };
    assert_eq!((step.as_ref().unwrap().as_str(), function.as_str()), ("pay", "rich"));
}

#[test]
fn a_definition_that_changed_what_has_started_is_caught() {
    let other = start(vec![step("pay", "pay", json!({"sum": 6})), step("ship", "ship", json!(null))]).graph;
    let engine = engine_of(pay_gives::<Receipt>())
        .definition(Definition::fixed(WorkflowName::new("test").unwrap(), 2, other))
        .build();
    let report = replay(&paid(), &engine).unwrap();
    let [ReplayProblem::Definition { comparison, .. }] = report.problems.as_slice() else {
        panic!("{report}")
    };
    assert_eq!(comparison.verdict, Verdict::Incompatible);
}

#[test]
fn a_history_comes_from_lines_of_json() {
    let paid = paid();
    let mut text = String::from("{\"type\":\"version\",\"stream\":\"1.0\",\"run\":\"old\"}\n");
    for event in &paid.events {
        text += &serde_json::to_string(event).unwrap();
        text += "\n";
    }
    let graph = serde_json::to_string_pretty(&paid.graphs[0]).unwrap();
    let read = StoredHistory::from_json_lines(&text, Vec::new()).unwrap();
    assert_eq!((read.run.as_str(), &read.events), ("old", &paid.events));
    let missing = replay(&read, &engine_of(pay_gives::<Receipt>()).build()).unwrap_err();
    assert!(matches!(&missing, ReplayError::MissingGraph { seq: 1, .. }), "{missing}");
    let read = read.with_graph_json(&graph).unwrap();
    replay(&read, &engine_of(pay_gives::<Receipt>()).build()).unwrap().assert_ok();

    let hole: String =
        text.lines().filter(|line| !line.contains("\"seq\":3")).map(|l| format!("{l}\n")).collect();
    let error = StoredHistory::from_json_lines(&hole, Vec::new()).unwrap_err();
    assert!(matches!(&error, ReplayError::Line { line: 4, .. }), "{error}");
    assert!(error.to_string().contains("event 3 is missing"), "{error}");
    let empty = StoredHistory::from_json_lines("\n", Vec::new()).unwrap_err();
    assert!(matches!(empty, ReplayError::Empty));
    let newer = text.replace("\"format\":2", "\"format\":99");
    let newer = StoredHistory::from_json_lines(&newer, Vec::new()).unwrap_err();
    assert!(matches!(newer, ReplayError::Unreadable { .. }), "{newer}");

    let mut damaged = paid;
    damaged.events.remove(2);
    for (seq, event) in (1..).zip(&mut damaged.events) {
        event.seq = seq;
    }
    let error = replay(&damaged, &engine_of(pay_gives::<Receipt>()).build()).unwrap_err();
    assert!(matches!(&error, ReplayError::Illegal { error, .. } if error.seq == 3), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_run_is_replayed_from_a_store() {
    let world = World::default();
    let lab = Lab::new(|engine| engine.activities(activities(&world, RIGHT)));
    let End::Stood(view) = lab.start(two_puts()).await.unwrap() else { panic!("it crashed") };
    replay_run(&lab.engine(), &view.run).await.unwrap().assert_ok();
    let error = replay_run(&lab.engine(), &RunId::new("none").unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");

    // After the rollback nobody reads its outputs any more.
    let other = Engine::builder(Arc::clone(lab.store()) as _).activities({
        let mut activities = ActivityRegistry::new();
        activities.add_fn("put", |_, _: u32| async { Ok(5) }).unwrap();
        activities
    });
    let other = other.build();
    assert_eq!(replay_run(&other, &view.run).await.unwrap().problems.len(), 4);
    lab.take_back(&view.run).await.unwrap();
    replay_run(&other, &view.run).await.unwrap().assert_ok();
}

#[tokio::test]
async fn wrapping_reaches_every_activity() {
    let mut activities = activities(&World::default(), RIGHT);
    activities.add_fn("other", |_, n: u32| async move { Ok(n) }).unwrap();
    let seen = Mutex::new(Vec::new());
    activities.wrap(|name, code| {
        seen.lock().unwrap().push(name.to_string());
        code
    });
    assert_eq!(*seen.lock().unwrap(), ["other", "put"]);
}
