//! The verbs with which people steer a run, on runs that nobody drives: what they write down, what they print, how
//! they end. The runs are made by an engine of the test, with activities that the command does not know: so a verb that
//! reached for a world where it need not would fail here.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{EXAMPLE, Home, Ran, open};
use dssflow_engine::activity::Undoing;
use dssflow_engine::event::{EventKind, Request};
use dssflow_engine::graph::{Binding, StepKind};
use dssflow_engine::id::{ActivityName, RunId, StepName, WorkflowName};
use dssflow_engine::retry::RetryPolicy;
use dssflow_engine::run::{OnTrouble, RunStatus};
use dssflow_engine::{ActivityContext, ActivityError, ActivityRegistry, Engine, Graph, StartRun, Step};
use dssflow_store::SledStore;
use futures::StreamExt as _;
use serde_json::{Value, json};

/// A store that runs are put into; closed before the command looks.
struct Seeds {
    home: Home,
    store: Arc<SledStore>,
    engine: Engine,
}

impl Seeds {
    fn new() -> Self {
        let home = Home::new();
        std::fs::create_dir_all(home.store().parent().unwrap()).unwrap();
        let store = Arc::new(open(&home.store(), "test"));
        let mut activities = ActivityRegistry::new();
        let fails = |_: ActivityContext, (): ()| async {
            Err::<Value, _>(ActivityError::terminal("Nope", "it cannot be"))
        };
        activities.add_fn("test.fail", fails).unwrap();
        activities
            .add_fn("test.flaky", |_: ActivityContext, (): ()| async {
                Err::<Value, _>(ActivityError::retryable("Later", "not yet"))
            })
            .unwrap();
        activities.add_fn("test.ok", |_: ActivityContext, (): ()| async { Ok(json!({ "n": 1 })) }).unwrap();
        activities
            .add_fn("test.odd", |_: ActivityContext, n: u32| async move {
                if n % 2 == 1 { Ok(n) } else { Err(ActivityError::terminal("Even", format!("{n} is even"))) }
            })
            .unwrap();
        activities
            .add_fn_with_undo(
                "test.sticky",
                |_: ActivityContext, (): ()| async { Ok(json!("made")) },
                |_: ActivityContext, _: Undoing<(), Value>| async {
                    Err(ActivityError::terminal("Glued", "it does not come off"))
                },
            )
            .unwrap();
        let engine = Engine::builder(store.clone()).activities(activities).build();
        Self { home, store, engine }
    }

    /// Starts a run and waits until it stands.
    async fn run(&self, id: &str, steps: Vec<Step>) -> RunStatus {
        self.run_of(start(id, steps)).await
    }

    async fn run_of(&self, start: StartRun) -> RunStatus {
        self.engine.start(start).await.unwrap().wait().await.unwrap().status
    }

    /// Starts a run and pauses it as soon as each of these steps waits or has failed.
    async fn pause_at(&self, id: &str, steps: Vec<Step>, at: &[&str]) {
        let handle = self.engine.start(start(id, steps)).await.unwrap();
        let mut missing: Vec<&str> = at.to_vec();
        let mut events = Box::pin(handle.events(0));
        while !missing.is_empty() {
            let event = events.next().await.unwrap().unwrap();
            let stands =
                matches!(event.kind, EventKind::WaitStarted { .. } | EventKind::AttemptFailed { .. });
            missing.retain(|step| !stands || event.kind.step().map(StepName::as_str) != Some(*step));
        }
        handle.pause(Request::by("tester")).await.unwrap();
        assert_eq!(handle.wait().await.unwrap().status, RunStatus::Paused);
    }

    async fn close(self) -> Home {
        drop(self.engine);
        self.store.close().await.unwrap();
        self.home
    }
}

fn start(id: &str, steps: Vec<Step>) -> StartRun {
    let mut graph = Graph::builder();
    for step in steps {
        graph.push(step);
    }
    StartRun::new(WorkflowName::new("test").unwrap(), graph.build().unwrap()).id(RunId::new(id).unwrap())
}

fn name(name: &str) -> StepName {
    StepName::new(name).unwrap()
}

fn step(called: &str, activity: &str, after: &[&str]) -> Step {
    let mut step = Step::activity(name(called), ActivityName::new(activity).unwrap(), Binding::literal(()));
    step.after = after.iter().map(|n| name(n)).collect();
    step
}

fn gate(called: &str, question: &str) -> Step {
    let kind = StepKind::Gate {
        question: question.to_owned(),
        timeout_ms: None,
        default: None,
        on_reject: dssflow_engine::graph::OnReject::Fail,
    };
    Step::new(name(called), kind)
}

fn signal(called: &str, signal: &str) -> Step {
    Step::new(name(called), StepKind::Signal { signal: signal.to_owned(), timeout_ms: None, default: None })
}

/// Steps of which the second fails for good.
fn broken() -> Vec<Step> {
    vec![
        step("first", "test.ok", &[]),
        step("second", "test.fail", &["first"]),
        step("third", "test.ok", &["second"]),
    ]
}

impl Home {
    /// The command, which must succeed without a word on stdout.
    #[track_caller]
    fn decides(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!((ran.exit, ran.out.as_str()), (0, ""), "{args:?} {ran:?}");
        ran
    }

    #[track_caller]
    fn refuses(&self, args: &[&str], exit: i32, code: &str) -> Ran {
        let ran = self.run(args);
        assert_eq!((ran.exit, ran.out.as_str()), (exit, ""), "{args:?} {ran:?}");
        assert!(ran.err.contains(code), "{code} in {ran:?}");
        ran
    }

    fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(args);
        assert_eq!(ran.exit, 0, "{args:?} {ran:?}");
        serde_json::from_str(&ran.out).unwrap()
    }

    fn status(&self, run: &str, step: &str) -> Value {
        let view = self.json(&["runs", "get", run, "-o", "json"]);
        let steps = view["steps"].as_array().unwrap();
        steps.iter().find(|s| s["step"] == step).unwrap()["status"].clone()
    }

    fn last_event(&self, run: &str) -> Value {
        self.json(&["runs", "events", run, "-o", "json"]).as_array().unwrap().last().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_about_a_step_is_written_down_and_the_next_command_told() {
    let seeds = Seeds::new();
    for run in ["skip-me", "complete-me", "complete-file"] {
        assert_eq!(seeds.run(run, broken()).await, RunStatus::Failed);
    }
    let home = seeds.close().await;

    let ran = home.decides(&["skip", "skip", "second", "--reason", "not used"]);
    assert!(ran.err.contains("step second is skipped"), "{}", ran.err);
    assert!(ran.err.contains("go on: dssflow resume skip-me"), "{}", ran.err);
    assert_eq!(home.status("skip-me", "second"), "skipped");
    let event = home.last_event("skip-me");
    assert_eq!(event["type"], "step_skipped");
    assert_eq!(event["request"], json!({ "by": "tester", "reason": "not used" }));

    home.decides(&[
        "complete",
        "complete-me",
        "second",
        "--reason",
        "by hand",
        "--output",
        "{\"url\":\"x\"}",
    ]);
    assert_eq!(home.last_event("complete-me")["output"], json!({ "url": "x" }));
    home.write("out.json", "[1, 2]");
    home.decides(&["complete", "complete-file", "second", "--reason", "r", "--output", "@out.json"]);
    assert_eq!(home.last_event("complete-file")["output"], json!([1, 2]));

    // What is done is not decided again, and nothing is written then.
    let ran = home.refuses(&["skip", "skip-me", "first", "--reason", "r"], 1, "DF0015");
    assert!(ran.err.contains("first is succeeded already"), "{}", ran.err);
    assert_eq!(home.last_event("skip-me")["type"], "step_skipped");

    let ran = home.refuses(&["skip", "skip-me", "secnod", "--reason", "r"], 64, "DF0007");
    assert!(ran.err.contains("did you mean second?"), "{}", ran.err);
    let bad = ["complete", "skip-me", "third", "--reason", "r", "--output", "done"];
    assert!(home.refuses(&bad, 64, "DF0002").err.contains("'\"done\"'"));
    home.refuses(&["complete", "skip-me", "third", "--reason", "r", "--output", "@no.json"], 64, "DF0003");
    home.refuses(&["skip", "skip-me", "third"], 64, "--reason");
    home.refuses(&["skip", "skip-me", "third", "--reason", ""], 64, "DF0002");
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_and_signals_of_a_paused_run_take_what_is_decided() {
    let seeds = Seeds::new();
    let steps =
        || vec![gate("go", "Go live?"), signal("data", "data-ready"), step("first", "test.ok", &["go"])];
    seeds.pause_at("yes", steps(), &["go", "data"]).await;
    seeds.pause_at("no", steps(), &["go", "data"]).await;
    let home = seeds.close().await;

    let why = home.run(&["why", "yes"]);
    assert!(why.out.contains("go: asks: Go live?"), "{}", why.out);
    assert!(
        why.out.contains("dssflow approve yes go\n") && why.out.contains("dssflow reject yes go"),
        "{}",
        why.out
    );
    assert!(why.out.contains("data: waits for signal data-ready"), "{}", why.out);
    assert!(why.out.contains("dssflow signal yes data-ready --payload JSON"), "{}", why.out);
    let why = home.json(&["why", "yes", "-o", "json"]);
    assert_eq!((&why["steps"][0]["kind"], &why["steps"][1]["kind"]), (&json!("decision"), &json!("signal")));
    let get = home.run(&["runs", "get", "yes"]);
    assert!(get.out.contains("asks: Go live?"), "{}", get.out);

    let ran = home.refuses(&["approve", "yes", "data"], 1, "DF0015");
    assert!(ran.err.contains("data is no gate") && ran.err.contains("gates that wait: go"), "{}", ran.err);

    home.decides(&["approve", "yes", "go", "--note", "seen"]);
    assert_eq!(home.status("yes", "go"), "succeeded");
    assert_eq!(home.last_event("yes")["request"], json!({ "by": "tester", "reason": "seen" }));
    home.refuses(&["approve", "yes", "go"], 1, "DF0015");

    home.decides(&["reject", "no", "go"]);
    assert_eq!(home.status("no", "go"), "failed");

    let ran = home.decides(&["signal", "yes", "data-ready", "--payload", "{\"rows\":12}"]);
    assert!(ran.err.contains("signal data-ready is sent"), "{}", ran.err);
    assert_eq!(home.status("yes", "data"), "succeeded");
    let ran = home.decides(&["signal", "yes", "data-redy"]);
    assert!(ran.err.contains("is kept: no step waits for it now"), "{}", ran.err);
    assert_eq!(home.last_event("yes")["payload"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_takes_a_retry_or_rerun_and_stays_paused() {
    let seeds = Seeds::new();
    let mut flaky = step("flaky", "test.flaky", &[]);
    flaky.retry = RetryPolicy::default().first_after(Duration::from_hours(1)).without_jitter();
    let steps = vec![
        flaky,
        step("first", "test.ok", &[]),
        step("second", "test.ok", &["first"]),
        step("other", "test.ok", &[]),
        gate("go", "Go?"),
    ];
    seeds.pause_at("held", steps, &["flaky", "go"]).await;
    let home = seeds.close().await;

    let why = home.run(&["why", "held"]);
    assert!(why.out.contains("dssflow retry held --step flaky --reason TEXT"), "{}", why.out);
    let ran = home.decides(&["retry", "held", "--step", "flaky", "--reason", "quota raised"]);
    assert!(ran.err.contains("go on: dssflow resume held"), "{}", ran.err);
    let event = home.last_event("held");
    assert_eq!((&event["type"], &event["again"]), (&json!("steps_reset"), &json!("retry")));
    assert_eq!(home.status("held", "flaky"), "ready");
    let ran = home.refuses(&["retry", "held", "--step", "second", "--reason", "r"], 1, "DF0015");
    assert!(ran.err.contains("second is succeeded"), "{}", ran.err);

    // What is done again is listed, and asked for.
    let before = home.last_event("held");
    let ran = home.refuses(&["rerun", "held", "--from", "first"], 64, "DF0008");
    assert!(ran.err.contains("steps that are done again: 2") && ran.err.contains("--yes"), "{}", ran.err);
    assert!(!ran.err.contains("other"), "{}", ran.err);
    assert_eq!(home.last_event("held"), before, "nothing is written before the yes");
    home.decides(&["rerun", "held", "--from", "first", "--yes"]);
    assert_eq!(home.last_event("held")["steps"], json!(["first", "second"]));
    assert_eq!(home.status("held", "second"), "pending");
    assert_eq!(home.json(&["runs", "get", "held", "-o", "json"])["status"], "paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_that_go_on_need_the_runs_world_and_write_nothing_without_it() {
    let seeds = Seeds::new();
    seeds.run("lab", broken()).await;
    let home = seeds.close().await;
    let before = home.last_event("lab");
    for args in [
        &["retry", "lab", "--step", "second", "--reason", "r"][..],
        &["rerun", "lab", "--from", "first", "--yes"],
        &["fork", "lab", "--from", "second", "--yes"],
        &["unpause", "lab"],
        &["rollback", "lab", "--to", "first", "--yes"],
    ] {
        home.refuses(args, 1, "DF0016");
        assert_eq!(home.last_event("lab"), before, "{args:?}");
    }
    assert_eq!(home.run(&["runs", "ls", "-o", "name"]).out, "lab\n");
    home.refuses(&["fork", "lab", "--from", "second"], 64, "DF0008");
    home.refuses(&["fork", "lab", "--from", "secnod", "--yes"], 64, "did you mean second?");
    home.refuses(&["fork", "lab", "--from", "second", "--id", "No Id", "--yes"], 64, "DF0002");
    home.refuses(&["rollback", "lab", "--to", "frist", "--yes"], 64, "did you mean first?");
    home.refuses(&["rollback", "lab", "--retry", "--yes"], 1, "is not stuck");
    home.refuses(&["rollback", "lab", "--retry", "--to", "first"], 64, "DF0002");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_undo_is_closed_by_hand() {
    let seeds = Seeds::new();
    for run in ["gone", "left"] {
        let mut start =
            start(run, vec![step("glue", "test.sticky", &[]), step("second", "test.fail", &["glue"])]);
        start.options.on_failure = OnTrouble::Rollback;
        assert_eq!(seeds.run_of(start).await, RunStatus::RollbackStuck);
    }
    let home = seeds.close().await;

    let why = home.run(&["why", "gone"]);
    for part in [
        "dssflow mark-undone gone glue --reason TEXT",
        "dssflow abandon gone glue --reason TEXT",
        "next: dssflow rollback gone --retry",
    ] {
        assert!(why.out.contains(part), "{part} in {}", why.out);
    }
    home.refuses(&["mark-undone", "gone", "glue", "--reason", "r"], 64, "--yes");
    let ran = home.decides(&["mark-undone", "gone", "glue", "--reason", "by hand", "--yes"]);
    assert!(ran.err.contains("go on: dssflow rollback gone"), "{}", ran.err);
    assert_eq!(home.status("gone", "glue"), "compensated");
    home.decides(&["abandon", "left", "glue", "--reason", "audit", "--yes"]);
    assert_eq!(home.status("left", "glue"), "kept");
    assert_eq!(home.last_event("left")["mark"], "abandoned");
    let ran = home.refuses(&["abandon", "left", "second", "--reason", "r", "--yes"], 1, "DF0015");
    assert!(ran.err.contains("the undo of second is not stuck"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nobody_drives_can_be_ended() {
    let seeds = Seeds::new();
    for run in ["cancel-me", "end-me"] {
        let steps = vec![step("first", "test.ok", &[]), gate("go", "Go?")];
        seeds.pause_at(run, steps, &["go"]).await;
    }
    seeds.run("done", vec![step("first", "test.ok", &[])]).await;
    let home = seeds.close().await;

    let ran = home.decides(&["pause", "cancel-me"]);
    assert!(ran.err.contains("is paused: nothing to do"), "{}", ran.err);
    let ran = home.decides(&["cancel", "cancel-me", "--reason", "wrong site"]);
    assert!(ran.err.contains("run cancel-me is cancelled"), "{}", ran.err);
    assert_eq!(home.json(&["runs", "get", "cancel-me", "-o", "json"])["status"], "cancelled");
    assert!(home.decides(&["cancel", "cancel-me"]).err.contains("nothing to cancel"));

    home.refuses(&["terminate", "end-me", "--yes"], 64, "--reason");
    home.refuses(&["terminate", "end-me", "--reason", "r"], 64, "DF0008");
    home.decides(&["terminate", "end-me", "--reason", "wrong account", "--yes"]);
    assert_eq!(home.json(&["runs", "get", "end-me", "-o", "json"])["status"], "cancelled");
    let events = home.json(&["runs", "events", "end-me", "-o", "json"]);
    let asked = events.as_array().unwrap().iter().find(|e| e["type"] == "cancel_requested").unwrap();
    assert_eq!((&asked["mode"], &asked["request"]["reason"]), (&json!("terminate"), &json!("wrong account")));

    home.refuses(&["signal", "done", "x"], 1, "the run has ended");
    assert!(home.decides(&["unpause", "done"]).err.contains("nothing to do"));
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_found_by_label_and_time() {
    let seeds = Seeds::new();
    for (run, team) in [("one", "data"), ("two", "ops")] {
        seeds.run_of(start(run, vec![step("first", "test.ok", &[])]).label("team", team)).await;
    }
    let home = seeds.close().await;
    let names = |args: &[&str]| home.run(&[&["runs", "ls", "-o", "name"], args].concat()).out;
    assert_eq!(names(&["--label", "team=data"]), "one\n");
    assert_eq!(
        names(&["--label", "team=data", "--label", "team=ops"]).lines().count(),
        1,
        "the last one holds"
    );
    assert_eq!(names(&["--label", "team=none"]), "");
    assert_eq!(names(&["--since", "1h"]), "two\none\n");
    assert_eq!(names(&["--until", "1h"]), "");
    assert_eq!(names(&["--since", "2020-01-01", "--until", "2099-01-01"]), "two\none\n");
    assert!(home.run(&["runs", "ls", "--label", "team=none"]).err.contains("no run fits"));
    assert!(home.run(&["runs", "ls", "-o", "wide"]).out.contains("team=ops"));
    home.refuses(&["runs", "ls", "--label", "team"], 64, "KEY=VALUE");
    home.refuses(&["runs", "ls", "--since", "yesterday"], 64, "2d");
}

#[tokio::test(flavor = "multi_thread")]
async fn items_of_a_map_stand_below_it_and_those_that_failed_are_told() {
    let seeds = Seeds::new();
    let kind = StepKind::Map {
        items: Binding::literal([1, 2, 3]),
        activity: ActivityName::new("test.odd").unwrap(),
        max_concurrency: 0,
        tolerated_failures: 1,
    };
    assert_eq!(seeds.run("maps", vec![Step::new(name("each"), kind)]).await, RunStatus::Succeeded);
    let home = seeds.close().await;
    let get = home.run(&["runs", "get", "maps"]);
    let at = |text: &str| get.out.find(text).unwrap_or_else(|| panic!("{text:?} is not in {}", get.out));
    assert!(
        at("\n  ✓ each ") < at("\n    ✓ each[0]") && at("each[0]") < at("\n    ✗ each[1]"),
        "{}",
        get.out
    );
    assert!(get.out.contains("2/3 items"), "{}", get.out);
    let why = home.run(&["why", "maps"]);
    assert!(why.out.contains("each[1]: failed, and its map goes on without it: Even"), "{}", why.out);
    assert_eq!(home.json(&["why", "maps", "-o", "json"])["steps"][0]["kind"], "tolerated");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_shows_what_differs_and_asks() {
    let seeds = Seeds::new();
    let site = dssflow_workflows::parse(EXAMPLE, "site.yaml").unwrap();
    let workflow = dssflow_workflows::bootstrap(&site).unwrap();
    let old = vec![step("identity", "test.fail", &[]), step("old-step", "test.ok", &["identity"])];
    let mut changed = start("changed", old);
    (changed.workflow, changed.input) = (workflow.name.clone(), workflow.input.clone());
    assert_eq!(seeds.run_of(changed).await, RunStatus::Failed);
    seeds.run("foreign", broken()).await;
    let home = seeds.close().await;

    let before = home.last_event("changed");
    let ran = home.refuses(&["resume", "changed", "--upgrade"], 64, "DF0008");
    for part in [
        "steps differ that have started",
        "~ identity  does something else",
        "it is failed",
        "- old-step  is gone",
        "+ cluster",
        "--yes",
    ] {
        assert!(ran.err.contains(part), "{part} in {}", ran.err);
    }
    assert_eq!(home.last_event("changed"), before);
    let ran = home.refuses(&["resume", "foreign", "--upgrade"], 1, "DF0016");
    assert!(ran.err.contains("no workflow test"), "{}", ran.err);
    home.refuses(&["resume", "changed", "--yes"], 64, "--upgrade");
}

#[test]
fn without_a_store_every_verb_says_so() {
    let home = Home::new();
    for args in [
        &["retry", "x", "--step", "s", "--reason", "r"][..],
        &["rerun", "x", "--from", "s"],
        &["fork", "x", "--from", "s"],
        &["skip", "x", "s", "--reason", "r"],
        &["complete", "x", "s", "--reason", "r", "--output", "1"],
        &["approve", "x", "s"],
        &["reject", "x", "s"],
        &["signal", "x", "s"],
        &["pause", "x"],
        &["unpause", "x"],
        &["cancel", "x"],
        &["terminate", "x", "--reason", "r"],
        &["mark-undone", "x", "s", "--reason", "r"],
        &["abandon", "x", "s", "--reason", "r"],
    ] {
        home.refuses(args, 1, "DF0013");
    }
    assert!(!home.store().exists());
}
