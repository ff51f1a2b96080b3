//! The built binary in a home of its own: what it prints, where, and how it ends. Here: looking, and what goes wrong.
//! The verbs have rooms of their own; more runs against the sandbox are in the tests crate.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod errors;
mod live;
mod policy;
mod product;
mod races;
mod sandbox;
mod schedules;
mod signals;
mod snapshots;
mod store;
mod streams;
mod support;
mod tty;
mod verbs;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{EXAMPLE, Home, Ran, open};

#[test]
fn a_wrong_command_line_is_64_with_a_suggestion_and_nothing_on_stdout() {
    let home = Home::new();
    for args in [
        &["rnu"][..],
        &["run"],
        &["runs", "ls", "--status", "faild"],
        &["run", "bootsrap"],
        &["explain", "DF999"],
    ] {
        let ran = home.run(args);
        assert_eq!((ran.exit, ran.out.as_str()), (64, ""), "{args:?} {ran:?}");
    }
    assert!(home.run(&["rnu"]).err.contains("'runs'"));
    assert!(home.run(&["runs", "ls", "--status", "faild"]).err.contains("did you mean failed?"));
    assert!(home.run(&["run", "bootsrap"]).err.contains("did you mean bootstrap?"));
    assert!(!home.store().exists(), "a wrong command line makes no store");
}

#[test]
fn version_and_help_are_data() {
    let home = Home::new();
    assert_eq!(home.run(&["version"]).out, format!("dssflow {}\n", env!("CARGO_PKG_VERSION")));
    let help = home.run(&["run", "--help"]);
    assert_eq!(help.exit, 0);
    assert!(help.out.contains("--sandbox") && help.err.is_empty());
}

#[test]
fn errors_for_programs_are_one_json_object() {
    let home = Home::new();
    let ran = home.run(&["runs", "get", "x", "--error-format", "json"]);
    let error: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(error["error"]["code"], "DF0013");
    assert_eq!(ran.exit, 1);
}

#[test]
fn a_wrong_site_tells_all_problems_at_once_and_makes_nothing() {
    let home = Home::new();
    let text = EXAMPLE
        .replace("service_user: dssuser", "service_usr: dssuser")
        .replace("access_key_id: { env: OPS_ACCESS_KEY_ID }", "access_key_id: AKIAIOSFODNN7EXAMPLE")
        .replace("credentials: sales", "credentials: salse");
    assert_ne!(text, EXAMPLE);
    let file = home.write("site.yaml", &text);
    let ran = home.run(&["run", "bootstrap", "-f", file.to_str().unwrap(), "--yes"]);
    assert_eq!(ran.exit, 64, "{ran:?}");
    for part in ["error[DF0100]", "service_usr", "DF0105", "salse", "help:", "nothing was created"] {
        assert!(ran.err.contains(part), "{part} in {}", ran.err);
    }
    assert!(!ran.err.contains("AKIAIOSFODNN7EXAMPLE"), "a secret is not repeated");
    assert!(!home.store().exists());
}

#[test]
fn without_a_terminal_and_without_yes_it_is_64_naming_the_flag() {
    let home = Home::new();
    let file = home.write("site.yaml", EXAMPLE);
    let ran = home.run(&["run", "bootstrap", "-f", file.to_str().unwrap()]);
    assert_eq!(ran.exit, 64, "{ran:?}");
    assert!(ran.err.contains("DF0008") && ran.err.contains("--yes"), "{}", ran.err);
}

#[test]
fn no_store_is_an_empty_list_and_an_unknown_run_is_1() {
    let home = Home::new();
    let ran = home.run(&["runs", "ls"]);
    assert_eq!((ran.exit, ran.out.as_str()), (0, ""), "{ran:?}");
    assert_eq!(home.run(&["runs", "ls", "-o", "json"]).out.trim(), "[]");
    assert_eq!(home.run(&["resume"]).exit, 1);
    assert!(!home.store().exists(), "looking makes no store");
}

/// Puts a run into a store, as a crashed process would have left it.
async fn seed(dir: &Path, id: &str) {
    use dssflow_engine::graph::Binding;
    use dssflow_engine::id::{ActivityName, RunId, StepName, WorkflowName};
    use dssflow_engine::{ActivityContext, ActivityError, ActivityRegistry, Engine, Graph, StartRun, Step};

    let store = std::sync::Arc::new(open(dir, "test"));
    let mut activities = ActivityRegistry::new();
    activities
        .add_fn("test.fail", |_: ActivityContext, (): ()| async {
            Err::<(), _>(ActivityError::terminal("Nope", "it \u{1b}[2Jcannot be").help("try another"))
        })
        .unwrap();
    let engine = Engine::builder(store.clone()).activities(activities).build();
    let step = Step::activity(
        StepName::new("first").unwrap(),
        ActivityName::new("test.fail").unwrap(),
        Binding::literal(()),
    );
    let graph = Graph::builder().step(step).build().unwrap();
    let start = StartRun {
        id: Some(RunId::new(id).unwrap()),
        ..StartRun::new(WorkflowName::new("test").unwrap(), graph)
    };
    engine.start(start).await.unwrap().wait().await.unwrap();
    drop(engine);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_can_be_looked_at_from_every_side() {
    let home = Home::new();
    std::fs::create_dir_all(home.store().parent().unwrap()).unwrap();
    seed(&home.store(), "bootstrap-lab").await;

    let ls = home.run(&["runs", "ls"]);
    assert_eq!(ls.exit, 0, "{ls:?}");
    assert!(ls.out.starts_with("RUN            STATUS  STEPS  CREATED"), "{}", ls.out);
    assert_eq!(home.run(&["runs", "ls", "-o", "name"]).out, "bootstrap-lab\n");

    let get = home.run(&["runs", "get", "boot", "-o", "json"]);
    let view: serde_json::Value = serde_json::from_str(&get.out).unwrap();
    assert_eq!(view["status"], "failed");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&home.run(&["runs", "ls", "-o", "json"]).out).unwrap()[0]["run"],
        "bootstrap-lab"
    );

    let why = home.run(&["why"]);
    assert!(why.out.contains("Nope") && why.out.contains("help: try another"), "{}", why.out);
    assert!(why.out.contains("next: dssflow resume bootstrap-lab"), "{}", why.out);

    let events = home.run(&["runs", "events", "@latest", "-o", "jsonl"]);
    let lines: Vec<serde_json::Value> =
        events.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0]["type"], "version");
    assert_eq!(lines[1]["type"], "run_created");
    assert_eq!(lines.last().unwrap()["type"], "run_finished");

    assert!(home.run(&["runs", "graph", "-o", "mermaid"]).out.contains(":::failed"));
    assert!(home.run(&["runs", "graph", "-o", "dot"]).out.starts_with("digraph"));

    let info = home.run(&["store", "info", "-o", "json"]);
    let info: serde_json::Value = serde_json::from_str(&info.out).unwrap();
    assert_eq!(info["runs"]["failed"], 1);
    let verify = home.run(&["store", "verify"]);
    assert_eq!(verify.exit, 0, "{verify:?}");

    let unknown = home.run(&["runs", "get", "bootstrpa-lab"]);
    assert_eq!(unknown.exit, 1);
    assert!(unknown.err.contains("did you mean bootstrap-lab?"), "{}", unknown.err);

    for args in [&["runs", "get"][..], &["why"], &["runs", "events"], &["runs", "watch"], &["store", "info"]]
    {
        let ran = home.run(args);
        assert!(
            !ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'),
            "no escape byte in a pipe: {args:?} {ran:?}"
        );
    }
    for entry in std::fs::read_dir(home.store()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o077;
        assert_eq!(mode, 0, "{:?} is for its owner alone", entry.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_itself_however_many_newer_ones_begin_like_it() {
    let home = Home::new();
    std::fs::create_dir_all(home.store().parent().unwrap()).unwrap();
    seed(&home.store(), "lab").await;
    for n in 0..12 {
        seed(&home.store(), &format!("lab-{n}")).await;
    }
    let get = home.run(&["runs", "get", "lab", "-o", "json"]);
    let view: serde_json::Value = serde_json::from_str(&get.out).unwrap_or_default();
    assert_eq!(view["run"], "lab", "{get:?}");
    assert!(home.run(&["runs", "get", "la"]).err.contains("DF0005"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_use_without_an_answer_is_8_naming_the_owner_in_under_a_second() {
    let home = Home::new();
    std::fs::create_dir_all(home.store().parent().unwrap()).unwrap();
    let store = open(&home.store(), "dssflow run of a test");
    let me = format!("process {}", std::process::id());
    for args in
        [&["runs", "ls"][..], &["why"], &["resume"], &["rollback", "@latest", "--yes"], &["store", "verify"]]
    {
        let begin = Instant::now();
        let ran = home.run(args);
        let took = begin.elapsed();
        assert_eq!(ran.exit, 8, "{args:?} {ran:?}");
        assert!(ran.err.contains(&me) && ran.err.contains("dssflow run of a test"), "{args:?} {}", ran.err);
        assert!(ran.err.contains("is running"), "{args:?} {}", ran.err);
        // A second is the promise; a machine under load is given some more.
        assert!(took < Duration::from_secs(3), "{args:?} took {took:?}");
    }
    store.close().await.unwrap();
    assert_eq!(home.run(&["store", "verify"]).exit, 0);
}

#[test]
fn every_code_can_be_explained() {
    let home = Home::new();
    let list = home.run(&["explain"]);
    assert!(list.out.lines().count() > 30, "{}", list.out);
    for line in list.out.lines() {
        let code = line.split(':').next().unwrap();
        let ran = home.run(&["explain", &code.to_lowercase()]);
        assert_eq!(ran.exit, 0);
        assert!(ran.out.starts_with(&format!("# {code}: ")), "{}", ran.out);
    }
}

#[test]
fn workflows_can_be_listed_drawn_and_described() {
    let home = Home::new();
    assert_eq!(home.run(&["workflows", "ls", "-o", "name"]).out, "bootstrap\nteardown\nglue-resync\nimage\n");
    let schema: serde_json::Value =
        serde_json::from_str(&home.run(&["workflows", "schema", "bootstrap"]).out).unwrap();
    assert_eq!(schema["type"], "object");
    let graph = home.run(&["workflows", "graph", "bootstrap"]);
    assert!(graph.out.starts_with("layer 1\n") && graph.out.contains("identity"), "{}", graph.out);
    let sdk = home.run(&["workflows", "graph", "bootstrap", "--set", "cluster.mode=sdk", "-o", "dot"]);
    assert_eq!(sdk.exit, 0, "{sdk:?}");
}

#[test]
fn a_resync_has_a_small_file_of_its_own() {
    let home = Home::new();
    assert!(home.run(&["workflows", "schema", "glue-resync"]).out.contains("dssflow glue-resync"));
    assert_eq!(home.run(&["init", "glue-resync", "-o", "site.yaml"]).exit, 0);
    let graph = home.run(&["workflows", "graph", "glue-resync", "-f", "site.yaml"]);
    assert!(graph.out.contains("inventory") && graph.out.contains("verdict"), "{graph:?}");
    let policy = |set: &str| home.run(&["plan", "glue-resync", "--iam-policy", "dssflow", "--set", set]).out;
    let reads = policy("glue_resync.mode=dss");
    assert!(reads.contains("glue:GetPartitions") && !reads.contains("glue:UpdateTable"), "{reads}");
    let writes = policy("glue_resync.mode=direct");
    assert!(writes.contains("glue:UpdateTable") && !writes.contains("Delete"), "{writes}");
    let deletes = policy("glue_resync={mode: direct, prune: true}");
    assert!(deletes.contains("glue:DeleteTable"), "{deletes}");
    for (args, says) in [
        (&["run", "glue-resync", "--dataset", "orders"][..], "PROJECT.name"),
        (&["run", "glue-resync", "--set", "glue_resync.include=all"], "mode: direct"),
        (&["run", "glue-resync", "--plan", "x"], "no saved plan"),
        (&["plan", "glue-resync", "--out", "x"], "not saved"),
        (&["run", "bootstrap", "--dry-run"], "--dry-run is for glue-resync"),
    ] {
        let refused = home.run(args);
        assert!(refused.exit == 64 && refused.err.contains(says), "{args:?}: {refused:?}");
    }
}

#[test]
fn images_have_a_file_of_their_own() {
    let home = Home::new();
    let schema = home.run(&["workflows", "schema", "image"]);
    assert!(schema.out.contains("dssflow images"), "{schema:?}");
    assert_eq!(home.run(&["init", "image", "-o", "image.yaml"]).exit, 0);
    let graph = home.run(&["workflows", "graph", "image", "-f", "image.yaml"]);
    assert!(graph.out.contains("push-exec"), "{graph:?}");
    let wrong = home.run(&["run", "image", "-f", "image.yaml", "--set", "images[0].tags[0]=a b", "--yes"]);
    assert!(wrong.exit == 64 && wrong.err.contains("images[0].tags[0]"), "{wrong:?}");
    let sandbox = home.run(&["run", "image", "--sandbox"]);
    assert_eq!(sandbox.exit, 64, "{sandbox:?}");
    // Nothing is made when it cannot be built.
    let here = "registry={kind: anonymous, host: \"127.0.0.1:1\"}";
    let no_docker = "docker_host=unix:///nowhere/docker.sock";
    let ran = home.run(&["run", "image", "-f", "image.yaml", "--set", here, "--set", no_docker, "--yes"]);
    assert_eq!(ran.exit, 5, "{ran:?}");
    assert!(ran.err.contains("/nowhere/docker.sock") && ran.err.contains("image exec"), "{ran:?}");
    assert_eq!(home.run(&["runs", "ls", "-o", "name"]).out, "");
}

#[test]
fn init_writes_once_and_not_over_a_file() {
    let home = Home::new();
    let first = home.run(&["init", "bootstrap", "-o", "site.yaml", "--offline"]);
    assert_eq!(first.exit, 0, "{first:?}");
    let second = home.run(&["init", "bootstrap", "-o", "site.yaml", "--offline"]);
    assert_eq!(second.exit, 64, "{second:?}");
    assert!(second.err.contains("--force"));
    let ran = home.run(&["run", "bootstrap", "--yes"]);
    assert_eq!(ran.exit, 64);
    assert!(ran.err.contains("DF0109"), "{}", ran.err);
}

#[test]
fn a_sandbox_without_python_is_a_clear_error() {
    let home = Home::new();
    let empty = home.dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let ran = Ran::from(home.command(&["sandbox", "up"]).env("PATH", &empty).output().unwrap());
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(ran.err.contains("DF0030") && ran.err.contains("python3"), "{}", ran.err);
    assert_eq!(home.run(&["sandbox", "snapshot"]).exit, 1);
    assert_eq!(home.run(&["sandbox", "down"]).exit, 0);
}
