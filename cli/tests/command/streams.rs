//! What reaches each stream: colours and redrawing where a terminal is and people want them, and not one byte of that
//! elsewhere, whichever of the two streams is the terminal.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use dssflow_engine::graph::Binding;
use dssflow_engine::id::{ActivityName, RunId, StepName, WorkflowName};
use dssflow_engine::{ActivityContext, ActivityRegistry, Engine, Graph, StartRun, Step};
use serde_json::Value;

use crate::errors;
use crate::sandbox::World;
use crate::snapshots;
use crate::support::{Home, Ran, open};
use crate::tty::{Tty, ends, screen};

/// Runs a command whose streams are terminals or files; what reached stdout and stderr.
fn on(tty: (bool, bool), columns: u16, command: &mut Command) -> (String, String, Option<i32>) {
    let (out, err) = (Tty::new(columns, 50), Tty::new(columns, 50));
    let dir = tempfile::tempdir().unwrap();
    let files = [dir.path().join("out"), dir.path().join("err")];
    let stream = |on: bool, tty: &Tty, file| if on { tty.side() } else { File::create(file).unwrap() };
    command.stdin(Stdio::null());
    command.stdout(stream(tty.0, &out, &files[0])).stderr(stream(tty.1, &err, &files[1]));
    let mut child = command.spawn().unwrap();
    let status = child.wait().unwrap();
    out.settle();
    err.settle();
    let read = |on: bool, tty: &Tty, file| {
        if on { tty.text() } else { std::fs::read_to_string(file).unwrap() }
    };
    (read(tty.0, &out, &files[0]), read(tty.1, &err, &files[1]), status.code())
}

/// One world for all of it: a run takes its time.
#[test]
fn a_run_is_shown_as_it_was_to_whoever_looks_and_to_nobody_else() {
    let world = World::new();
    snapshots::before_a_run(&world);
    a_reader_that_leaves_takes_no_run_with_it(&world);
    snapshots::after_a_run(&world);
    errors::of_a_dss(&world);
    escapes_reach_a_terminal_and_nothing_else(&world);
}

fn a_reader_that_leaves_takes_no_run_with_it(world: &World) {
    for (args, first) in [
        (&["run", "bootstrap", "--sandbox", "-o", "jsonl"][..], "{\"type\":\"version\""),
        (&["runs", "events", "-o", "jsonl"], "{\"type\":\"version\""),
        (&["runs", "get", "-o", "json"], "{"),
        (&["why", "-o", "json"], "{"),
    ] {
        let mut child = world.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        // As `head -1`: one line, then it is gone.
        BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with(first), "{args:?} {line}");
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        ends(&mut child, 0, || said.clone());
        assert!(!said.contains("panicked") && !said.contains("error["), "{args:?} {said}");
    }
    assert_eq!(world.view()["status"], "succeeded");
    // A disk that is full is another matter.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ran = Ran::from(world.command(&["runs", "events"]).stdout(full).output().unwrap());
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(ran.err.contains("DF0040"), "{}", ran.err);
}

fn escapes_reach_a_terminal_and_nothing_else(world: &World) {
    let combined = |tty: (bool, bool), env: &[(&str, &str)]| {
        // The tree, the log and the summary: all that may be coloured.
        let mut command = world.command(&["run", "glue-resync", "--sandbox", "--dry-run"]);
        command.env("DSSFLOW_LOG", "info").envs(env.iter().copied());
        on(tty, 100, &mut command)
    };
    let escaped = |text: &str| text.contains('\u{1b}');
    for (tty, env, expected) in [
        ((true, true), &[][..], (true, true)),
        ((false, true), &[], (false, true)),
        ((true, false), &[], (true, false)),
        ((false, false), &[], (false, false)),
        ((true, true), &[("NO_COLOR", "1")], (false, false)),
        ((true, true), &[("TERM", "dumb")], (false, false)),
        ((true, true), &[("TERM", "")], (false, false)),
        // The convention: an empty one says nothing.
        ((false, true), &[("NO_COLOR", "")], (false, true)),
    ] {
        let (out, err, _) = combined(tty, env);
        assert!(out.contains("run "), "{tty:?} {env:?}: {out:?} {err}");
        assert!(err.contains("INFO"), "{tty:?} {env:?}: {err:?}");
        assert_eq!((escaped(&out), escaped(&err)), expected, "{tty:?} {env:?}\n{out:?}\n{err:?}");
    }
    // An error is coloured by the stream it is written to.
    for (tty, expected) in [((true, false), false), ((false, true), true)] {
        let (_, err, code) = on(tty, 100, &mut world.command(&["explain", "DF999"]));
        assert_eq!((escaped(&err), code), (expected, Some(64)), "{err:?}");
    }
}

/// A run that succeeded, with names and titles of all widths.
async fn seed(home: &Home) {
    std::fs::create_dir_all(home.store().parent().unwrap()).unwrap();
    let store = std::sync::Arc::new(open(&home.store(), "test"));
    let mut activities = ActivityRegistry::new();
    activities.add_fn("test.do", |_: ActivityContext, (): ()| async { Ok(()) }).unwrap();
    let engine = Engine::builder(store.clone()).activities(activities).build();
    let step = |name: &str, title: &str| {
        let (name, activity) = (StepName::new(name).unwrap(), ActivityName::new("test.do").unwrap());
        let mut step = Step::activity(name, activity, Binding::literal(()));
        (step.title, step.group) = (title.to_owned(), "数据库を準備する".to_owned());
        step
    };
    let graph = Graph::builder()
        .step(step("a", "短い"))
        .step(step(
            "a-step-with-a-name-that-nobody-would-like-to-type",
            "データベースとテーブルを作成する、長い説明",
        ))
        .build()
        .unwrap();
    let start = StartRun {
        id: Some(RunId::new("lab").unwrap()),
        ..StartRun::new(WorkflowName::new("test").unwrap(), graph)
    };
    engine.start(start).await.unwrap().wait().await.unwrap();
    drop(engine);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_fits_terminals_of_all_widths() {
    let home = Home::new();
    seed(&home).await;
    for columns in [40, 60, 80, 120, 200] {
        let (out, _, code) = on((true, true), columns, &mut home.command(&["runs", "watch", "lab"]));
        assert_eq!(code, Some(0), "{out}");
        // Wide characters are counted by whoever is asked; here each letter of them is two columns.
        let wide = |line: &str| line.chars().map(|c| if c >= '\u{2e80}' { 2 } else { 1 }).sum::<usize>();
        for line in screen(&out, usize::MAX, 50) {
            assert!(wide(&line) <= usize::from(columns), "{columns}: {line}");
        }
        assert!(out.contains("run lab: succeeded"), "{out}");
    }
    // Where nobody looks nothing is cut.
    let piped = home.run(&["runs", "watch", "lab"]).out;
    assert!(piped.contains("データベースとテーブルを作成する、長い説明"), "{piped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_lists_end_where_the_terminal_does_unless_they_are_wanted_wide() {
    let home = Home::new();
    seed(&home).await;
    for args in [&["workflows", "ls"][..], &["runs", "ls"]] {
        let longest = |text: &str| {
            let lines = screen(text, usize::MAX, 50);
            lines.iter().map(|line| line.chars().count()).max().unwrap_or_default()
        };
        let (cut, _, _) = on((true, false), 40, &mut home.command(args));
        assert!(longest(&cut) <= 40 && cut.contains('…'), "{args:?}: {cut}");
        let (wide, _, _) = on((true, false), 40, &mut home.command(&[args, &["-o", "wide"]].concat()));
        assert!(longest(&wide) > 40 && !wide.contains('…'), "{args:?}: {wide}");
        let piped = home.run(args).out;
        assert!(longest(&piped) > 40 && !piped.contains('…'), "{args:?}: {piped}");
    }
}

#[test]
fn the_version_says_what_it_was_built_from_and_what_it_reads() {
    let home = Home::new();
    assert_eq!(home.run(&["version"]).out, format!("dssflow {}\n", env!("CARGO_PKG_VERSION")));
    let version: Value = serde_json::from_str(&home.run(&["version", "-o", "json"]).out).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let commit = &version["commit"];
    let hex = |text: &str| text.len() >= 7 && text.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(commit.is_null() || commit.as_str().is_some_and(hex), "{version}");
    assert!(version["rustc"].as_str().unwrap().starts_with("rustc 1."), "{version}");
    assert!(version["target"].as_str().unwrap().contains(std::env::consts::ARCH), "{version}");
    assert!(["debug", "release"].contains(&version["profile"].as_str().unwrap()), "{version}");
    // As the store and the archive are.
    tokio::runtime::Runtime::new().unwrap().block_on(seed(&home));
    let info: Value = serde_json::from_str(&home.run(&["store", "info", "-o", "json"]).out).unwrap();
    assert_eq!(version["store_format"]["writes"], info["format"], "{info}");
    let exported = home.run(&["store", "export"]).out;
    let first: Value = serde_json::from_str(exported.lines().next().unwrap()).unwrap();
    assert_eq!(version["archive_format"]["writes"], first["dssflow_archive"]);
    let events = home.run(&["runs", "events", "-o", "jsonl"]).out;
    let first: Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    assert_eq!(version["event_format"]["writes"], first["event_format"]);
    for format in ["store_format", "event_format", "archive_format"] {
        let reads = version[format]["reads"].as_array().unwrap();
        assert_eq!(reads.last(), Some(&version[format]["writes"]), "{format}");
        assert_eq!(reads[0], 1, "{format}: the first is read for ever");
    }
    assert_eq!(home.run(&["version", "--jq", ".version"]).out.trim(), env!("CARGO_PKG_VERSION"));
}
