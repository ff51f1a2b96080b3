//! Pictures, completions, manual pages, settings and filters, by the built binary: from the store, and through the process
//! that owns it.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dssflow_engine::activity::Undoing;
use dssflow_engine::graph::Binding;
use dssflow_engine::id::{ActivityName, RunId, StepName, WorkflowName};
use dssflow_engine::retry::RetryPolicy;
use dssflow_engine::{ActivityContext, ActivityError, ActivityRegistry, Engine, Graph, StartRun, Step};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Home, Ran, open};

const RUN: &str = "bootstrap-lab";

/// A run whose second step succeeded at the second try, and whose third failed for good.
pub(crate) async fn seed(dir: &Path) {
    std::fs::create_dir_all(dir.parent().unwrap()).unwrap();
    let store = Arc::new(open(dir, "test"));
    let mut activities = ActivityRegistry::new();
    let tries = Arc::new(AtomicU32::new(0));
    activities
        .add_fn_with_undo(
            "test.do",
            |_: ActivityContext, (): ()| async { Ok(()) },
            |_: ActivityContext, _: Undoing<(), ()>| async { Ok(()) },
        )
        .unwrap();
    activities
        .add_fn("test.flaky", move |_: ActivityContext, (): ()| {
            let first = tries.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if first { Err(ActivityError::retryable("Busy", "<later> & \"again\"")) } else { Ok(()) }
            }
        })
        .unwrap();
    activities
        .add_fn("test.fail", |_: ActivityContext, (): ()| async {
            Err::<(), _>(ActivityError::terminal("Nope", "it cannot be"))
        })
        .unwrap();
    let engine = Engine::builder(store.clone()).activities(activities).build();
    let step = |name: &str, activity: &str, after: &[&str]| {
        let mut step = Step::activity(
            StepName::new(name).unwrap(),
            ActivityName::new(activity).unwrap(),
            Binding::literal(()),
        );
        step.after = after.iter().map(|a| StepName::new(*a).unwrap()).collect();
        step.retry = RetryPolicy { initial_interval_ms: 60, ..RetryPolicy::attempts(3) };
        step
    };
    let graph = Graph::builder()
        .step(step("first", "test.do", &[]))
        .step(step("flaky", "test.flaky", &["first"]))
        .step(step("last", "test.fail", &["flaky"]))
        .step(step("never", "test.do", &["last"]))
        .build()
        .unwrap();
    let start = StartRun {
        id: Some(RunId::new(RUN).unwrap()),
        ..StartRun::new(WorkflowName::new("test").unwrap(), graph)
    };
    engine.start(start).await.unwrap().wait().await.unwrap();
    drop(engine);
    store.close().await.unwrap();
}

/// `dssflow serve` on a home's store; it ends with the test.
struct Daemon(Child);

impl Daemon {
    fn start(home: &Home) -> Self {
        let daemon =
            Self(home.command(&["serve"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let begin = Instant::now();
        loop {
            let info = home.run(&["store", "info", "-o", "json"]);
            if info.exit == 0 && info.out.contains("dssflow serve") {
                return daemon;
            }
            assert!(begin.elapsed() < Duration::from_mins(1), "it does not answer: {info:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::TERM).ok();
        drop(self.0.wait());
    }
}

/// What a shell is offered after these words, the last of which is being typed.
fn offered(home: &Home, words: &[&str]) -> Vec<String> {
    let mut args = vec!["--", "dssflow"];
    args.extend(words);
    let ran = Ran::from(home.command(&args).env("DSSFLOW_COMPLETE", "fish").output().unwrap());
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{words:?} {ran:?}");
    // Options are offered behind values; they are asked for by a dash.
    let options = words.last().unwrap().starts_with('-');
    let offers = ran.out.lines().map(|line| line.split('\t').next().unwrap().to_owned());
    offers.filter(|offer| options || !offer.starts_with('-')).collect()
}

/// What does not change from one look to the next: everything but the present.
fn looks(home: &Home) -> Vec<String> {
    [
        &["runs", "timeline"][..],
        &["runs", "timeline", RUN, "--width", "72"],
        &["runs", "timeline", "-o", "svg"],
        &["runs", "timeline", "-o", "json"],
        &["runs", "graph", "-o", "svg"],
        &["runs", "graph", "-o", "text"],
    ]
    .into_iter()
    .map(|args| {
        let ran = home.run(args);
        assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{args:?} {ran:?}");
        assert!(!ran.out.contains('\u{1b}'), "no escape byte in a pipe: {args:?}");
        ran.out
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_and_completions_are_the_same_from_the_store_and_through_its_owner() {
    let home = Home::new();
    seed(&home.store()).await;
    let alone = looks(&home);
    let completed = |home: &Home| {
        [&["runs", "get", ""][..], &["retry", RUN, "--step", "f"], &["approve", "@latest", ""]]
            .map(|words| offered(home, words))
    };
    let offers = completed(&home);
    assert_eq!(offers[0], ["@latest", RUN]);
    assert_eq!(offers[1], ["first", "flaky"]);
    assert_eq!(offers[2], ["first", "flaky", "last", "never"]);

    let chart = &alone[0];
    for part in
        ["bootstrap-lab: failed", "flaky", "✗", "×2", "1 step has not started", "waits to be tried again"]
    {
        assert!(chart.contains(part), "{part} in\n{chart}");
    }
    assert!(alone[1].lines().all(|line| line.chars().count() <= 72), "{}", alone[1]);
    let timeline: Value = serde_json::from_str(&alone[3]).unwrap();
    let flaky = timeline["rows"].as_array().unwrap().iter().find(|r| r["step"] == "flaky").unwrap();
    let kinds: Vec<_> =
        flaky["spans"].as_array().unwrap().iter().map(|s| s["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds[..2], ["execute", "backoff"], "{flaky}");
    assert_eq!((kinds.last(), &flaky["spans"][0]["outcome"]), (Some(&"execute"), &Value::from("failed")));
    for picture in [&alone[2], &alone[4]] {
        assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"), "{picture}");
    }
    assert!(alone[2].contains("&lt;later&gt; &amp; &quot;again&quot;") && !alone[2].contains("<later>"));
    assert!(alone[4].contains("1 failed") && alone[4].contains("<title>first → flaky</title>"));

    let daemon = Daemon::start(&home);
    assert_eq!(looks(&home), alone);
    assert_eq!(completed(&home), offers);
    drop(daemon);
    assert_eq!(looks(&home), alone);
}

#[test]
fn what_the_command_knows_by_itself_is_offered_without_a_store() {
    let home = Home::new();
    for (words, wanted) in [
        (&["run", "boot"][..], "bootstrap"),
        (&["runs", "ti"], "timeline"),
        (&["runs", "ls", "--status", "roll"], "rolled_back"),
        (&["runs", "graph", "-o", "s"], "svg"),
        (&["explain", "DF001"], "DF0010"),
        (&["help", "exit"], "exit-codes"),
        (&["schedules", "create", "--workflow", "gl"], "glue-resync"),
        (&["runs", "ls", "--j"], "--jq"),
    ] {
        let offers = offered(&home, words);
        assert!(offers.iter().any(|offer| offer == wanted), "{words:?} {offers:?}");
    }
    assert!(offered(&home, &["runs", "get", ""]).is_empty());
    assert!(!home.store().exists(), "asking makes no store");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_nobody_answers_for_is_not_waited_for() {
    let home = Home::new();
    seed(&home.store()).await;
    let store = open(&home.store(), "dssflow of a test");
    let begin = Instant::now();
    assert!(offered(&home, &["runs", "get", ""]).is_empty());
    // Under half a second is the aim; a machine under load is given more.
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    store.close().await.unwrap();
    assert_eq!(offered(&home, &["runs", "get", "boot"]), [RUN]);
    let other = home.dir.path().join("other");
    let named = other.to_str().unwrap();
    assert!(offered(&home, &["--store", named, "runs", "get", ""]).is_empty(), "another store is looked at");
}

#[test]
fn every_shell_gets_a_script() {
    let home = Home::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = home.run(&["completions", shell]);
        assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{ran:?}");
        assert!(ran.out.contains("DSSFLOW_COMPLETE") && ran.out.contains("dssflow"), "{}", ran.out);
        // Nothing of this machine is in it.
        assert!(!ran.out.contains("target/"), "{}", ran.out);
    }
    assert_eq!(home.run(&["completions", "csh"]).exit, 64);
}

#[test]
fn manual_pages_are_for_everybody() {
    use std::os::unix::fs::PermissionsExt as _;

    let home = Home::new();
    let ran = home.run(&["man", "share/man1"]);
    assert_eq!((ran.exit, ran.out.as_str()), (0, ""), "{ran:?}");
    let dir = home.dir.path().join("share/man1");
    for page in ["dssflow.1", "dssflow-run.1", "dssflow-runs-timeline.1", "dssflow-signals.7"] {
        let path = dir.join(page);
        assert!(std::fs::read_to_string(&path).unwrap().contains(".TH "), "{page}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644, "{page}");
    }
    home.write("taken", "");
    assert_eq!(home.run(&["man", "taken"]).exit, 64);
}

#[test]
fn help_has_pages_and_slips_are_told() {
    let home = Home::new();
    for topic in ["environment", "exit-codes", "files", "formatting", "signals"] {
        let ran = home.run(&["help", topic]);
        assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{ran:?}");
        assert!(ran.out.starts_with("# ") && ran.out.lines().count() > 10, "{}", ran.out);
    }
    assert_eq!(home.run(&["help", "runs", "get"]).out, home.run(&["runs", "get", "--help"]).out);
    assert!(home.run(&["help"]).out.contains("Usage: dssflow"));
    let slip = home.run(&["help", "exit-code"]);
    assert_eq!(slip.exit, 64);
    assert!(slip.err.contains("did you mean exit-codes?"), "{}", slip.err);
    let slip = home.run(&["help", "runs", "gte"]);
    assert!(slip.exit == 64 && slip.err.contains("did you mean get?"), "{slip:?}");
}

#[test]
fn of_several_settings_the_nearest_counts() {
    let home = Home::new();
    let user = home.dir.path().join(".config/dssflow");
    std::fs::create_dir_all(&user).unwrap();
    std::fs::write(user.join("config.toml"), "store = \"users\"\nlog = \"info\"\nerror_format = \"json\"\n")
        .unwrap();
    let near = home.write("dssflow.toml", "log = \"debug\"\nlog_format = \"json\"\n");
    let show = |args: &[&str], variables: &[(&str, &str)]| -> Value {
        let mut all = vec!["config", "show", "--sources", "-o", "json"];
        all.extend(args);
        let mut command = home.command(&all);
        command.envs(variables.iter().copied());
        let ran = Ran::from(command.output().unwrap());
        assert_eq!(ran.exit, 0, "{ran:?}");
        serde_json::from_str(&ran.out).unwrap()
    };
    let held = show(&[], &[]);
    let users = user.join("users");
    let near = near.canonicalize().unwrap();
    assert_eq!(held["store"]["value"], users.to_str().unwrap());
    assert_eq!(held["store"]["source"], user.join("config.toml").to_str().unwrap());
    assert_eq!(
        (&held["log"]["value"], &held["log"]["source"]),
        (&"debug".into(), &near.to_str().unwrap().into())
    );
    assert_eq!((&held["run_log"]["value"], &held["run_log"]["source"]), (&"info".into(), &"default".into()));
    let held = show(&["--log", "error"], &[("DSSFLOW_LOG", "trace"), ("DSSFLOW_STORE", "/x")]);
    assert_eq!((&held["log"]["value"], &held["log"]["source"]), (&"error".into(), &"flag --log".into()));
    assert_eq!((&held["store"]["value"], &held["store"]["source"]), (&"/x".into(), &"DSSFLOW_STORE".into()));

    // They are not only shown.
    let ran = home.run(&["runs", "get", "nobody"]);
    let error: Value = serde_json::from_str(ran.err.lines().last().unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "DF0013");
    assert!(ran.err.contains(users.to_str().unwrap()), "{}", ran.err);

    let plain = home.run(&["config", "show"]);
    assert!(plain.out.starts_with("SETTING") && !plain.out.contains("FROM"), "{}", plain.out);
    let paths = home.run(&["config", "path"]);
    assert!(
        paths.out.contains("dssflow.toml") && paths.out.contains("/etc/dssflow/config.toml"),
        "{}",
        paths.out
    );
}

#[test]
fn a_key_that_nobody_knows_ends_every_command_that_would_go_by_it() {
    let home = Home::new();
    home.write("dssflow.toml", "# mine\nstroe = \"/x\"\n");
    for args in [&["runs", "ls"][..], &["config", "show"], &["run", "bootstrap", "--sandbox"]] {
        let ran = home.run(args);
        assert_eq!((ran.exit, ran.out.as_str()), (64, ""), "{ran:?}");
        for part in ["error[DF0190]", "line 2", "stroe", "did you mean store?"] {
            assert!(ran.err.contains(part), "{part} in {}", ran.err);
        }
    }
    // What helps to mend it works all the same.
    for args in
        [&["config", "path"][..], &["config", "schema"], &["explain", "DF0190"], &["version"], &["help"]]
    {
        assert_eq!(home.run(args).exit, 0, "{args:?}");
    }
}

#[test]
fn the_file_that_init_writes_is_right() {
    let home = Home::new();
    assert_eq!(home.run(&["config", "init", "-o", "dssflow.toml"]).exit, 0);
    let text = std::fs::read_to_string(home.dir.path().join("dssflow.toml")).unwrap();
    assert_eq!(home.run(&["config", "init"]).out, text);
    assert_eq!(home.run(&["config", "show"]).exit, 0);
    assert_eq!(home.run(&["config", "init", "-o", "dssflow.toml"]).exit, 64, "it is not replaced");
    let schema: Value = serde_json::from_str(&home.run(&["config", "schema"]).out).unwrap();
    assert_eq!(schema["additionalProperties"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_goes_through_filters() {
    let home = Home::new();
    seed(&home.store()).await;
    let out = |args: &[&str]| {
        let ran = home.run(args);
        assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{args:?} {ran:?}");
        ran.out
    };
    assert_eq!(out(&["runs", "ls", "--jq", ".[].run"]), format!("{RUN}\n"));
    assert_eq!(
        out(&["runs", "get", "--jq", "[.steps[] | select(.attempt > 1) | .step]"]),
        "[\n  \"flaky\"\n]\n"
    );
    let types = out(&["runs", "events", "-o", "jsonl", "--jq", ".type"]);
    assert!(types.starts_with("version\nrun_created\n") && types.ends_with("run_finished\n"), "{types}");
    assert_eq!(out(&["workflows", "ls", "--jq", "map(.name) | index(\"bootstrap\")"]), "0\n");
    assert_eq!(out(&["config", "show", "--jq", ".log"]), "warn\n");

    for (args, part) in [
        (&["runs", "ls", "--jq", ".["][..], "--jq"),
        (&["runs", "ls", "--jq", "nosuch"], "nosuch"),
        (&["runs", "ls", "-o", "table", "--jq", "."], "-o json"),
        (&["runs", "ls", "--jq", ".run"], "index"),
        (&["completions", "bash", "--jq", "."], "--jq"),
    ] {
        let ran = home.run(args);
        assert_eq!(ran.exit, 64, "{args:?} {ran:?}");
        assert!(ran.err.contains("error[DF0002]") && ran.err.contains(part), "{args:?} {}", ran.err);
    }
}
