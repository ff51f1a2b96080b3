//! Copies of a store, putting it back, making it smaller, and removing runs: what is written, printed and refused.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::{Home, Ran, open};
use dssflow_engine::event::{CancelMode, EventKind, Request};
use dssflow_engine::id::{ActivityName, RunId, StepName, WorkflowName};
use dssflow_engine::store::Store;
use dssflow_engine::testing::HistoryBuilder;
use dssflow_engine::{ActivityError, ActivityRegistry, Binding, Engine, Graph, StartRun, Step};
use serde_json::{Value, json};

fn graph() -> Graph {
    let step = |name: &str, after: &[&str]| {
        let activity = ActivityName::new("say").unwrap();
        let size = if name == "ship" { 80_000 } else { 10 };
        let mut step = Step::activity(StepName::new(name).unwrap(), activity, Binding::literal(size));
        step.after = after.iter().map(|name| StepName::new(*name).unwrap()).collect();
        step
    };
    Graph::builder().step(step("pay", &[])).step(step("ship", &["pay"])).build().unwrap()
}

fn start(id: &str) -> StartRun {
    StartRun::new(WorkflowName::new("shop").unwrap(), graph()).id(RunId::new(id).unwrap())
}

/// A home whose store has a run of each kind: `done` (in several records), `failed`, `paused`, `created`.
async fn home() -> Home {
    let home = Home::new();
    fs::create_dir_all(home.store().parent().unwrap()).unwrap();
    let store = Arc::new(open(&home.store(), "test"));
    let mut activities = ActivityRegistry::new();
    activities.add_fn("say", |_ctx, size: usize| async move { Ok("x".repeat(size)) }).unwrap();
    let engine = Engine::builder(Arc::clone(&store) as Arc<dyn Store>).activities(activities).build();
    engine.start(start("done")).await.unwrap().wait().await.unwrap();
    drop(engine);
    let failed = HistoryBuilder::new(start("failed"))
        .attempt_fails("pay", ActivityError::terminal("Nope", "it cannot be"))
        .finished();
    let paused = HistoryBuilder::new(start("paused")).attempt_succeeds("pay", json!("p")).paused();
    for history in [failed, paused, HistoryBuilder::new(start("created"))] {
        history.into_store(store.as_ref()).await.unwrap();
    }
    store.close().await.unwrap();
    home
}

impl Home {
    /// Runs a command that must end so.
    #[track_caller]
    fn does(&self, args: &[&str], exit: i32) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.exit, exit, "{args:?} {ran:?}");
        ran
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.does(&["runs", "ls", "-o", "name"], 0).out.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn id(&self) -> String {
        let info: Value = serde_json::from_str(&self.does(&["store", "info", "-o", "json"], 0).out).unwrap();
        info["store"].as_str().unwrap().to_owned()
    }
}

/// Changes the large value of the run `done`, which is in a file of its own.
fn damage(store: &Path) -> PathBuf {
    let file = fs::read_dir(store.join("payloads")).unwrap().next().unwrap().unwrap().path();
    fs::write(&file, "something else").unwrap();
    file
}

const ALL: [&str; 4] = ["created", "done", "failed", "paused"];

#[tokio::test]
async fn a_backup_is_private_whole_and_never_replaces_what_is_there_by_itself() {
    let home = home().await;
    let file = home.file("b.ndjson");
    let ran = home.does(&["store", "backup", &file], 0);
    assert!(ran.err.contains("4 runs") && ran.out.is_empty(), "{ran:?}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!Path::new(&format!("{file}.dssflow.tmp")).exists());
    for line in fs::read_to_string(&file).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["sum"].is_string());
    }
    let before = fs::read(&file).unwrap();
    let ran = home.does(&["store", "backup", &file], 64);
    assert!(ran.err.contains("DF0003") && ran.err.contains("--force"), "{}", ran.err);
    assert_eq!(fs::read(&file).unwrap(), before);
    home.does(&["store", "backup", &file, "--force"], 0);

    // Where nothing can be written nothing is, and it says so.
    let ran = home.does(&["store", "backup", &home.file("no/such/dir/b")], 64);
    assert!(ran.err.contains("DF0003"), "{}", ran.err);
    assert_eq!(home.does(&["store", "backup", home.dir.path().to_str().unwrap()], 64).out, "");
    let ran = home.does(&["store", "export", "-o", "/dev/full", "--force"], 64);
    assert!(ran.err.contains("is no file"), "{}", ran.err);
    // stdout on a disk that is full.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = home.command(&["store", "export"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"));
    // A file that may not grow: the system ends who writes it, or says no; nothing half is left under its name.
    let small = home.file("small.ndjson");
    let limited = home.command(&["store", "backup", &small]);
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"])
        .arg(limited.get_program())
        .args(limited.get_args());
    shell.env_clear().envs(limited.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let output = shell.output().unwrap();
    assert_ne!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!Path::new(&small).exists());
    assert_eq!(home.names(), ALL, "the store is as it was");
}

#[tokio::test]
async fn what_is_exported_is_data_on_stdout_or_a_file() {
    let home = home().await;
    let ran = home.does(&["store", "export"], 0);
    assert_eq!(ran.err, "");
    let first: Value = serde_json::from_str(ran.out.lines().next().unwrap()).unwrap();
    assert_eq!((&first["dssflow_archive"], &first["store"]), (&json!(2), &json!(home.id())));
    let one = home.does(&["runs", "export", "@latest"], 0);
    assert_eq!(one.out.lines().filter(|line| line.starts_with("{\"run\":")).count(), 1);
    let file = home.file("one.ndjson");
    home.does(&["store", "export", "--run", "done", "-o", &file], 0);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("{\"run\":\"done\"") && !text.contains("{\"run\":\"paused\""));
    assert!(home.does(&["store", "export", "--run", "nobody"], 1).err.contains("DF0004"));
    assert!(home.does(&["runs", "export", "nobody"], 1).err.contains("DF0004"));
    home.does(&["store", "export", "--run", "no such id"], 64);
}

#[tokio::test]
async fn runs_of_another_store_are_history() {
    let (there, here) = (home().await, Home::new());
    let file = there.file("b.ndjson");
    there.does(&["store", "backup", &file], 0);
    let ran = here.does(&["store", "import", &file], 0);
    assert!(ran.err.contains("4 runs") && ran.err.contains("as history"), "{}", ran.err);
    assert_eq!(here.names(), ALL);
    assert_ne!(here.id(), there.id());
    assert!(here.does(&["runs", "events", "done"], 0).out.contains("as history"));
    let ran = here.does(&["runs", "import", &file], 0);
    assert!(ran.err.contains("0 runs") && ran.err.contains("4 runs were here already"), "{}", ran.err);
    let ran = here.run(&["resume", "paused"]);
    assert_ne!(ran.exit, 0, "{ran:?}");
    let ran = there.does(&["store", "import", &file], 64);
    assert!(ran.err.contains("DF0051") && ran.err.contains("store restore"), "{}", ran.err);
    assert_eq!(here.does(&["store", "verify"], 0).err, "");
}

#[tokio::test]
async fn a_damaged_store_is_refused_saved_and_put_back() {
    let home = home().await;
    let (id, backup, saved) = (home.id(), home.file("b.ndjson"), home.file("saved.ndjson"));
    home.does(&["store", "backup", &backup], 0);
    damage(&home.store());

    for args in [&["runs", "ls"][..], &["store", "backup", &saved], &["store", "compact"], &["resume"]] {
        let ran = home.does(args, 8);
        assert!(ran.err.contains("DF0011"), "{args:?} {}", ran.err);
        assert!(ran.err.contains("dssflow store restore BACKUP"), "{args:?} {}", ran.err);
    }
    let ran = home.does(&["store", "verify"], 8);
    assert!(ran.out.contains("run done event") && ran.err.contains("store restore BACKUP"), "{ran:?}");
    let ran = home.does(&["store", "export", "-o", &saved], 8);
    assert!(ran.err.contains("4 runs") && ran.err.contains("lost  run done: from event"), "{}", ran.err);
    assert!(ran.err.contains("1 run was not saved as a whole"), "{}", ran.err);

    let ran = home.does(&["store", "restore", &backup], 0);
    for part in
        ["4 runs are as they were", "is kept in", "2 runs had not ended and are paused", "dssflow resume RUN"]
    {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
    assert_eq!((home.names(), home.id()), (ALL.map(str::to_owned).to_vec(), id.clone()));
    assert_eq!(home.does(&["store", "verify"], 0).err, "");
    assert_eq!(home.does(&["runs", "ls", "--status", "paused", "-o", "name"], 0).out.lines().count(), 2);
    let why = home.does(&["why", "created"], 0);
    assert!(why.out.contains("backup"), "{}", why.out);
    let kept: Vec<PathBuf> = fs::read_dir(home.store())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("kept-"))
        .collect();
    assert!(kept.len() == 1 && kept[0].join("gen-1/db").exists(), "{kept:?}");

    // What was saved of the damaged one can be put back as well, here where all is well only when told to.
    let ran = home.does(&["store", "restore", &saved], 64);
    assert!(ran.err.contains("DF0008") && ran.err.contains("--yes"), "{}", ran.err);
    home.does(&["store", "restore", &saved, "--yes"], 0);
    assert_eq!((home.names(), home.id()), (ALL.map(str::to_owned).to_vec(), id));
}

#[tokio::test]
async fn a_store_of_which_nothing_can_be_read_says_so() {
    let home = home().await;
    let backup = home.file("b.ndjson");
    home.does(&["store", "backup", &backup], 0);
    fs::remove_file(home.store().join("gen-1/db")).unwrap();
    let ran = home.does(&["store", "export", "-o", &home.file("saved")], 8);
    assert!(
        ran.err.contains("nothing of it can be read") && ran.err.contains("store restore"),
        "{}",
        ran.err
    );
    assert!(!Path::new(&home.file("saved")).exists());
    home.does(&["store", "restore", &backup], 0);
    assert_eq!(home.names(), ALL);
}

#[tokio::test]
async fn a_backup_that_is_not_whole_or_of_another_store_changes_nothing() {
    let (home, empty) = (home().await, Home::new());
    let file = home.file("b.ndjson");
    home.does(&["store", "backup", &file], 0);
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let cut = home.file("cut.ndjson");
    for (what, content) in [
        ("no last line", lines[..lines.len() - 1].join("\n") + "\n"),
        ("half of it", text[..text.len() / 2].to_owned()),
        ("a changed number", text.replacen("\"seq\":1,", "\"seq\":2,", 1)),
        ("nothing", String::new()),
        ("a site file", "site: lab\n".to_owned()),
        ("a later version", text.replacen("\"dssflow_archive\":2", "\"dssflow_archive\":9", 1)),
    ] {
        assert_ne!(content, text, "{what}");
        fs::write(&cut, content).unwrap();
        for home in [&home, &empty] {
            let ran = home.does(&["store", "restore", &cut, "--yes"], 64);
            assert!(ran.err.contains("DF0050"), "{what}: {}", ran.err);
        }
        assert!(!empty.store().join("FORMAT").exists(), "{what}: nothing was made");
    }
    assert_eq!(home.names(), ALL);
    fs::write(&cut, lines[..lines.len() - 1].join("\n") + "\n").unwrap();
    let ran = empty.does(&["store", "restore", &cut, "--salvage"], 64);
    assert!(ran.err.contains("what is whole was taken"), "{}", ran.err);
    assert_eq!((empty.names(), empty.id()), (ALL.map(str::to_owned).to_vec(), home.id()));

    let other = Home::new();
    other.does(&["store", "import", &file], 0);
    let ran = other.does(&["store", "restore", &file, "--yes"], 64);
    assert!(ran.err.contains("DF0051") && ran.err.contains("store import"), "{}", ran.err);
    let one = home.file("one.ndjson");
    home.does(&["runs", "export", "done", "-o", &one], 0);
    let ran = Home::new().does(&["store", "restore", &one], 64);
    assert!(ran.err.contains("only some runs"), "{}", ran.err);
    home.does(&["store", "restore", "/no/such/file"], 64);
    home.does(&["store", "restore", "/"], 64);
}

#[tokio::test]
async fn a_store_in_use_is_not_touched() {
    let home = home().await;
    let file = home.file("b.ndjson");
    home.does(&["store", "backup", &file], 0);
    let owner = open(&home.store(), "dssflow run of a test");
    for args in [
        &["store", "restore", &file, "--yes"][..],
        &["store", "compact"],
        &["store", "import", &file],
        &["runs", "prune", "--keep", "0", "--yes"],
        &["store", "backup", &home.file("c.ndjson")],
    ] {
        let ran = home.does(args, 8);
        assert!(
            ran.err.contains("DF0010") && ran.err.contains("dssflow run of a test"),
            "{args:?} {}",
            ran.err
        );
    }
    owner.close().await.unwrap();
    assert_eq!(home.names(), ALL);
}

#[tokio::test]
async fn compaction_says_what_it_did() {
    let home = home().await;
    let ran = home.does(&["store", "compact", "-o", "json"], 0);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(
        report["values"].as_u64().unwrap() > 10 && report["after_bytes"].as_u64().unwrap() > 0,
        "{report}"
    );
    assert!(home.does(&["store", "compact"], 0).out.contains("after"));
    assert!(home.store().join("gen-3").exists() && !home.store().join("gen-1").exists());
    assert_eq!(home.names(), ALL);
    let info = home.does(&["store", "info"], 0).out;
    for part in ["format   3", "payload file", "lag      ", "owner    nobody", "oldest   "] {
        assert!(info.contains(part), "{part}: {info}");
    }
    assert!(Home::new().does(&["store", "compact"], 1).err.contains("DF0013"));
}

#[tokio::test]
async fn pruning_removes_what_ended_and_owns_nothing() {
    let home = home().await;
    let store = open(&home.store(), "test");
    // Ended before anything was made.
    for id in ["old-1", "old-2"] {
        let cancel = EventKind::CancelRequested { mode: CancelMode::Keep, request: Request::by("tester") };
        HistoryBuilder::new(start(id)).event(cancel).finished().into_store(&store).await.unwrap();
    }
    store.close().await.unwrap();
    let prune = |args: &[&str], exit| home.does(&[&["runs", "prune"], args].concat(), exit);
    assert!(prune(&["--status", "paused"], 64).err.contains("has not ended"));
    assert!(prune(&["--status", "cancelld"], 64).err.contains("did you mean cancelled?"));
    assert!(prune(&["--older-than", "soon"], 64).err.contains("is no time"));
    let ran = prune(&["--workflow", "other", "--yes"], 0);
    assert!(ran.err.contains("no run fits"), "{ran:?}");
    let ran = prune(&["--dry-run"], 0);
    assert!(ran.err.contains("run failed stays: it made things that are still there"), "{}", ran.err);
    assert_eq!(ran.out, "old-1\nold-2\n");
    let ran = prune(&[], 64);
    assert!(ran.err.contains("DF0008") && ran.err.contains("--yes"), "{}", ran.err);
    assert_eq!(home.names().len(), 6, "nothing was removed so far");
    // Four have ended.
    let ran = prune(&["--keep", "4", "--status", "cancelled", "--dry-run"], 0);
    assert_eq!(ran.out, "", "{ran:?}");
    let ran = prune(&["--yes", "-o", "json"], 0);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["runs"], json!(["old-1", "old-2"]));
    assert_eq!(home.names(), ALL);
    assert!(home.does(&["runs", "get", "old-1"], 1).err.contains("DF0004"));
    assert_eq!(home.does(&["store", "verify"], 0).err, "");
    assert!(prune(&["--yes"], 0).err.contains("no run fits"));
}
