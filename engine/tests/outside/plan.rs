//! What a plan says, and that it changes nothing.

use std::time::Duration;

use dssflow_engine::graph::StepKind;
use dssflow_engine::run::RunStatus;
use dssflow_engine::runtime::{Action, LookOptions, Plan};
use dssflow_engine::{Binding, Engine, StartRun, Step};
use serde_json::json;

use crate::support::{Shared, activities, engine_on, foreign, make, name, run_of, step, store};

fn engine(world: &Shared) -> Engine {
    engine_on(store(), activities(world))
}

async fn plan(engine: &Engine, run: &StartRun) -> Plan {
    engine.plan(run, &LookOptions::default()).await.unwrap()
}

fn actions(plan: &Plan) -> Vec<(&str, Action)> {
    plan.steps.iter().map(|s| (s.step.as_str(), s.action)).collect()
}

fn gate(step: &str) -> Step {
    Step::new(
        name(step),
        StepKind::Gate {
            question: "go?".to_owned(),
            timeout_ms: Some(1000),
            default: Some(true),
            on_reject: <_>::default(),
        },
    )
}

/// A thing whose value is a part of another step's output.
fn from(thing: &str, step_name: &str, pointer: &str) -> Step {
    step(thing, "make", json!({ "name": thing, "value": { "$output": step_name, "pointer": pointer } }))
}

#[tokio::test(start_paused = true)]
async fn a_fresh_world_is_to_be_made_and_what_is_not_known_is_not_looked_at() {
    let world = Shared::default();
    let engine = engine(&world);
    let run = || {
        run_of(
            "r",
            vec![
                step("who", "again", json!(null)),
                step("facts", "read", json!({ "vpc": "v" })),
                from("net", "facts", "/vpc"),
                make("a", &["who"]),
                from("b", "a", "/name"),
                gate("go"),
                step("push", "again", json!(null)).after_all(&["b"]),
                step("check", "read", json!(1)).after_all(&["b"]),
            ],
        )
    };
    let found = plan(&engine, &run()).await;
    let mut all = actions(&found);
    all.sort_unstable();
    assert_eq!(
        all,
        [
            ("a", Action::Create),
            ("b", Action::Create),
            ("check", Action::Nothing),
            ("facts", Action::Nothing),
            ("go", Action::Gate),
            ("net", Action::Create),
            ("push", Action::Update),
            ("who", Action::Nothing),
        ]
    );
    let b = found.steps.iter().find(|s| s.step.as_str() == "b").unwrap();
    assert!(!b.looked && b.note.contains("known after a"), "{b:?}");
    let mut looks = world.lock().unwrap().looks.clone();
    looks.sort();
    assert_eq!(looks, ["a", "facts", "net"], "a read is done where something needs it");
    assert!(world.lock().unwrap().changes.is_empty());
    assert!(found.has_changes() && !found.has_trouble());

    // Once it is made there is nothing to do, and everything can be looked at.
    let handle = engine.start(run()).await.unwrap();
    assert_eq!(handle.wait().await.unwrap().status, RunStatus::Succeeded);
    let changes = world.lock().unwrap().changes.len();
    let again = plan(&engine, &StartRun { id: None, ..run() }).await;
    let counts = again.counts();
    assert_eq!((counts[&Action::Nothing], counts[&Action::Gate]), (7, 1), "{again:?}");
    assert!(again.steps.iter().any(|s| s.note == "made by run r"));
    assert!(!again.has_changes());
    assert_eq!(world.lock().unwrap().changes.len(), changes);
}

#[tokio::test(start_paused = true)]
async fn what_is_foreign_is_adopted_where_that_is_allowed_and_a_conflict_elsewhere() {
    let world = Shared::default();
    let engine = engine(&world);
    foreign(&world, "a");
    foreign(&world, "b");
    let adopting = Step { adopt: true, ..make("a", &[]) };
    let run = run_of("r", vec![adopting, make("b", &[])]);
    let found = plan(&engine, &run).await;
    assert_eq!(actions(&found), [("a", Action::Adopt), ("b", Action::Conflict)]);
    assert!(found.has_trouble() && !found.has_changes());
    // The run does as planned: it stops for a person at the conflict, and changes nothing.
    let view = engine.start(run).await.unwrap().wait().await.unwrap();
    assert_eq!(view.status, RunStatus::Paused);
    assert!(world.lock().unwrap().changes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn looks_that_fail_hang_or_panic_are_lines_of_the_plan() {
    let world = Shared::default();
    world.lock().unwrap().failing.insert("a".to_owned(), 1);
    let engine = engine(&world);
    let run = run_of(
        "r",
        vec![
            make("a", &[]),
            step("hang", "hang", json!(null)),
            step("panic", "panic", json!(null)),
            step("rude", "rude", json!(null)),
            make("c", &[]),
        ],
    );
    let mut options = LookOptions::default();
    options.timeout = Duration::from_secs(5);
    let found = engine.plan(&run, &options).await.unwrap();
    let codes: Vec<_> =
        found.steps.iter().map(|s| (s.step.as_str(), s.error.as_ref().map(|e| e.code.as_str()))).collect();
    assert_eq!(
        codes,
        [
            ("a", Some("Broken")),
            ("hang", Some("Timeout")),
            ("panic", Some("Panic")),
            ("rude", Some("OnlyLooking")),
            ("c", None)
        ]
    );
    assert!(world.lock().unwrap().changes.is_empty(), "a look that wants to change something is refused");
}

#[tokio::test(start_paused = true)]
async fn a_failing_look_behind_something_that_is_made_first_is_no_error() {
    let world = Shared::default();
    world.lock().unwrap().failing.insert("b".to_owned(), 1);
    let engine = engine(&world);
    let found = plan(&engine, &run_of("r", vec![make("a", &[]), make("b", &["a"])])).await;
    assert_eq!(actions(&found), [("a", Action::Create), ("b", Action::Create)]);
    assert_eq!(found.steps[1].note, "cannot be looked at before a");
}

#[tokio::test(start_paused = true)]
async fn conditions_and_maps_are_planned() {
    let world = Shared::default();
    let engine = engine(&world);
    foreign(&world, "m-b");
    let mut left_out = make("left-out", &[]);
    left_out.when = Some(Binding::output(&name("facts"), "/no"));
    let mut unknown = make("unknown", &[]);
    unknown.when = Some(Binding::output(&name("a"), "/value"));
    let map = Step::new(
        name("m"),
        StepKind::Map {
            items: Binding::literal(json!([{ "name": "m-a" }, { "name": "m-b" }])),
            activity: dssflow_engine::id::ActivityName::new("make").unwrap(),
            max_concurrency: 0,
            tolerated_failures: 0,
        },
    );
    let run = run_of(
        "r",
        vec![step("facts", "read", json!({ "no": false })), make("a", &[]), left_out, unknown, map],
    );
    let found = plan(&engine, &run).await;
    let mut all = actions(&found);
    all.sort_unstable();
    assert_eq!(
        all,
        [
            ("a", Action::Create),
            ("facts", Action::Nothing),
            ("left-out", Action::Nothing),
            ("m", Action::Nothing),
            ("m[0]", Action::Create),
            ("m[1]", Action::Conflict),
            ("unknown", Action::Create),
        ]
    );
    let unknown = found.steps.iter().find(|s| s.step.as_str() == "unknown").unwrap();
    assert!(unknown.note.contains("if its condition holds, which is known after a"), "{unknown:?}");
}

#[tokio::test(start_paused = true)]
async fn a_plan_tells_what_moved_since_and_how_long_it_takes() {
    let world = Shared::default();
    let engine = engine(&world);
    let timed = |thing: &str, after: &[&str], ms| Step { expected_ms: Some(ms), ..make(thing, after) };
    let run = run_of("r", vec![timed("a", &[], 10), timed("b", &["a"], 20), timed("c", &[], 25)]);
    let then = plan(&engine, &run).await;
    assert_eq!(then.expected_ms, 30, "the longest path");
    assert!(plan(&engine, &run).await.moved_since(&then).is_empty());
    // As it is saved and read.
    let saved: Plan = serde_json::from_str(&serde_json::to_string(&then).unwrap()).unwrap();
    foreign(&world, "b");
    let now = plan(&engine, &run).await;
    let moved = now.moved_since(&saved);
    assert_eq!(moved.len(), 1, "{moved:?}");
    assert_eq!(moved[0].then.map(|s| s.action), Some(Action::Create));
    assert_eq!(moved[0].now.map(|s| (s.step.as_str(), s.action)), Some(("b", Action::Conflict)));
}

trait AfterAll {
    fn after_all(self, steps: &[&str]) -> Self;
}

impl AfterAll for Step {
    fn after_all(mut self, steps: &[&str]) -> Self {
        self.after = steps.iter().map(|n| name(n)).collect();
        self
    }
}
