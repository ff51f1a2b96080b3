//! Stores of every format that was released open, read as they did, and go on, for ever. A later format is refused.
//!
//! `DSSFLOW_WRITE_GOLDEN=1` writes the store of the present format anew, which is done once, when a format is new:
//! what is checked in stays.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dssflow_engine::event::Request;
use dssflow_engine::id::{ActivityName, RunId, ScheduleId, StepName, WorkflowName};
use dssflow_engine::run::{RunStatus, StepStatus};
use dssflow_engine::schedule::{
    ScheduleAction, ScheduleSpec, ScheduleState, Times, Zone, decide, decode, encode,
};
use dssflow_engine::store::{GraphHash, SchedulePut, Store, StoredSchedule};
use dssflow_engine::testing::HistoryBuilder;
use dssflow_engine::time::Timestamp;
use dssflow_engine::{ActivityError, ActivityRegistry, Binding, Engine, Graph, StartRun, Step};
use dssflow_store::{OpenError, OpenOptions, SledStore, info_offline, verify_offline};
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::support::{contents, fill, open, wait};

/// The format that is written now, and the version that reads it.
const PRESENT: u32 = 3;
const NEEDS: &str = "0.2.0";
/// What [`fill`] names its graphs, and how many there are.
const FILLED: u64 = 12;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Pays, ships what was paid, says so.
fn shop() -> Graph {
    let step = |name: &str, after: &[&str]| {
        let activity = ActivityName::new(name).unwrap();
        let mut step = Step::activity(StepName::new(name).unwrap(), activity, Binding::literal(name));
        step.after = after.iter().map(|name| StepName::new(*name).unwrap()).collect();
        step
    };
    let graph =
        Graph::builder().step(step("pay", &[])).step(step("ship", &["pay"])).step(step("tell", &["ship"]));
    graph.build().unwrap()
}

fn history(id: &str) -> HistoryBuilder {
    let start = StartRun::new(WorkflowName::new("shop").unwrap(), shop()).id(RunId::new(id).unwrap());
    HistoryBuilder::new(start.label("team", "data"))
}

fn histories() -> Vec<HistoryBuilder> {
    let paid = |id| history(id).attempt_succeeds("pay", json!("receipt 7"));
    vec![
        history("created"),
        paid("under-way").attempt_starts("ship"),
        paid("backing-off").attempt_fails("ship", ActivityError::retryable("Busy", "no lorry")),
        paid("paused").paused(),
        // In chunks, and in a payload file.
        paid("large")
            .attempt_succeeds("ship", json!("x".repeat(90_000)))
            .attempt_succeeds("tell", json!(null))
            .finished(),
        paid("done")
            .attempt_succeeds("ship", json!(1))
            .attempt_succeeds("tell", json!("y".repeat(9_000)))
            .finished(),
        paid("failed").attempt_fails("ship", ActivityError::terminal("Sunk", "the ship is gone")).finished(),
    ]
}

/// One that is paused, one that has fired, one that is large.
fn schedules() -> Vec<ScheduleState> {
    let now = Timestamp::from_millis(5_000);
    let new = |id: &str, input: Value| {
        let spec = ScheduleSpec::cron("*/5 * * * *", ScheduleAction::new("shop").input(input));
        ScheduleState::new(ScheduleId::new(id).unwrap(), spec.zone("Europe/Berlin"), now, Request::by("ada"))
    };
    let mut paused = new("paused", json!(null));
    paused.pause(now, Request { by: "ada".to_owned(), reason: "audit".to_owned() }).unwrap();
    let fired = new("fired", json!({ "a": 1 }));
    let times = Times::of(&fired, &Zone::find).unwrap();
    let fire = decide(&fired, &times, Timestamp::from_millis(300_000)).fire.unwrap();
    vec![paused, fire.state, new("large", json!("x".repeat(20_000)))]
}

/// Everything a store says, with digests in place of long bytes.
async fn read(store: &dyn Store) -> Value {
    let digest = |bytes: &[u8]| hex::encode(sha2::Sha256::digest(bytes));
    let mut runs = serde_json::Map::new();
    for (run, (head, records)) in contents(store).await {
        let records: Vec<Value> = records
            .iter()
            .map(|r| json!({ "first": r.first_seq, "events": r.events, "sha256": digest(&r.bytes) }))
            .collect();
        runs.insert(run, json!({ "seq": head.seq, "summary": head.summary, "records": records }));
    }
    let due = store.due(Timestamp::MAX, 1_000).await.unwrap();
    let due: Vec<Value> = due.into_iter().map(|(at, run)| json!([at, run])).collect();
    let mut graphs = serde_json::Map::new();
    let filled = (0..FILLED.div_ceil(4)).map(|i| GraphHash(format!("{i:064x}")));
    for hash in filled.chain([shop().hash().clone()]) {
        let bytes = store.graph(&hash).await.unwrap();
        graphs.insert(hash.0, json!(digest(&bytes)));
    }
    let mut all = json!({ "store": store.id(), "runs": runs, "due": due, "graphs": graphs });
    let schedules = store.schedules(None, 100).await.unwrap();
    if !schedules.is_empty() {
        let told = |s: StoredSchedule| json!([s.id, s.version, s.due, digest(&s.record)]);
        all["schedules"] = schedules.into_iter().map(told).collect();
        all["due_schedules"] = json!(store.due_schedules(Timestamp::MAX, 100).await.unwrap());
    }
    all
}

/// Unpacks a golden store.
fn unpack(number: u32, into: &Path) -> PathBuf {
    let file = fs::File::open(golden(&format!("format-{number}.tar.gz"))).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(file)).unpack(into).unwrap();
    into.join("store")
}

fn write_golden() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    let expected = wait(async {
        fill(&store, FILLED).await;
        for history in histories() {
            history.into_store(&store).await.unwrap();
        }
        for state in schedules() {
            let due = state.paused.is_none().then_some(Timestamp::from_millis(9_000));
            let put = SchedulePut { id: state.id.clone(), expect: None, record: encode(&state), due };
            store.put_schedule(put, store.epoch()).await.unwrap();
        }
        let expected = read(&store).await;
        store.close().await.unwrap();
        expected
    });
    fs::create_dir_all(golden("")).unwrap();
    let file = fs::File::create(golden(&format!("format-{PRESENT}.tar.gz"))).unwrap();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::best()));
    tar.append_dir_all("store", &path).unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    let text = serde_json::to_string_pretty(&expected).unwrap();
    fs::write(golden(&format!("format-{PRESENT}.json")), text + "\n").unwrap();
}

#[test]
fn a_store_of_every_format_reads_as_it_did() {
    if std::env::var_os("DSSFLOW_WRITE_GOLDEN").is_some() {
        write_golden();
    }
    for format in 1..=PRESENT {
        reads_as_it_did(format);
    }
}

/// The schedules of every format that had any are read by the core of today.
#[test]
fn schedules_of_every_format_are_read() {
    for format in 3..=PRESENT {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&unpack(format, dir.path()));
        let stored = wait(store.schedules(None, 10)).unwrap();
        let read: Vec<_> = stored.iter().map(|s| decode(&s.id, &s.record).unwrap()).collect();
        assert_eq!(read.len(), 3);
        let fired = &read[0];
        assert_eq!((fired.id.as_str(), fired.running.len(), fired.counts.fired), ("fired", 1, 1));
        assert!(read.iter().any(|schedule| schedule.paused.is_some()));
    }
}

fn reads_as_it_did(format: u32) {
    let dir = tempfile::tempdir().unwrap();
    let path = unpack(format, dir.path());
    let expected = fs::read(golden(&format!("format-{format}.json"))).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();

    let report = verify_offline(&path).unwrap();
    assert!(report.report.damage.is_empty(), "{report:?}");
    let info = info_offline(&path).unwrap();
    assert_eq!((info.format, json!(info.store)), (format, expected["store"].clone()));
    let statuses: Vec<&RunStatus> = info.runs.keys().collect();
    assert!(statuses.len() >= 4, "runs in several states: {statuses:?}");

    let store = open(&path);
    assert_eq!(wait(read(&store)), expected);
    assert!(wait(store.verify()).unwrap().damage.is_empty());
    drop(store);
    SledStore::compact(&path, OpenOptions::default(), &mut |_| ()).unwrap();
    assert_eq!(wait(read(&open(&path))), expected, "compacted");
}

/// The copies that were kept before a store got a later format.
fn kept(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("kept-")).collect()
}

#[test]
fn a_store_of_an_earlier_format_is_kept_as_it_was_before_it_gets_the_present_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = unpack(1, dir.path());
    let expected: Value = serde_json::from_slice(&fs::read(golden("format-1.json")).unwrap()).unwrap();
    let before = files(&path);
    assert_eq!(info_offline(&path).unwrap().format, 1, "looking changes nothing");
    assert_eq!(kept(&path), Vec::<PathBuf>::new());

    drop(open(&path));
    assert_eq!(info_offline(&path).unwrap().format, PRESENT);
    assert!(verify_offline(&path).unwrap().report.damage.is_empty());
    let [copy] = &kept(&path)[..] else { panic!("one copy") };
    let of_copy: BTreeMap<PathBuf, Vec<u8>> = files(copy)
        .into_iter()
        .map(|(file, bytes)| (path.join(file.strip_prefix(copy).unwrap()), bytes))
        .collect();
    assert!(of_copy == before, "every file as it was");
    assert_eq!(info_offline(copy).unwrap().format, 1);
    assert!(verify_offline(copy).unwrap().report.damage.is_empty(), "whole, with its manifest");

    // The next open finds nothing to do. The copy is a store like any other.
    drop(open(&path));
    assert_eq!(kept(&path).len(), 1);
    let moved = dir.path().join("moved");
    fs::rename(copy, &moved).unwrap();
    assert_eq!(wait(read(&open(&moved))), expected);
}

#[test]
fn a_store_that_cannot_be_saved_stays_of_its_format() {
    let dir = tempfile::tempdir().unwrap();
    let path = unpack(1, dir.path());
    // Where the copy is to be made something else stands.
    fs::write(path.join("kept-unfinished.tmp"), "").unwrap();
    let before = files(&path);
    let error = SledStore::open(&path, OpenOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
    assert_eq!(files(&path), before, "nothing else changed");
    assert_eq!(info_offline(&path).unwrap().format, 1);
}

/// Every file but the lock's note, with what is in it.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().unwrap() != "lock" {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn a_run_of_format_1_goes_on_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = unpack(1, dir.path());
    let store = Arc::new(open(&path));
    let shipped = Arc::new(AtomicU32::new(0));
    let mut activities = ActivityRegistry::new();
    for name in ["pay", "ship", "tell"] {
        let shipped = Arc::clone(&shipped);
        let does = move |_ctx, name: String| {
            let shipped = Arc::clone(&shipped);
            async move {
                shipped.fetch_add(u32::from(name == "ship"), Ordering::Relaxed);
                assert_ne!(name, "pay", "what was done stays done");
                Ok(name)
            }
        };
        activities.add_fn(name, does).unwrap();
    }
    wait_timed(async {
        let engine = Engine::builder(Arc::clone(&store) as Arc<dyn Store>).activities(activities).build();
        for run in ["under-way", "backing-off", "paused"] {
            let run = RunId::new(run).unwrap();
            let view = engine.resume(&run, Request::by("ada")).await.unwrap().wait().await.unwrap();
            assert_eq!(view.status, RunStatus::Succeeded, "{run}: {view:?}");
            assert!(view.steps.iter().all(|step| step.status == StepStatus::Succeeded));
        }
    });
    assert_eq!(shipped.load(Ordering::Relaxed), 3);
    wait(store.close()).unwrap();
    assert!(verify_offline(&path).unwrap().report.damage.is_empty());
}

/// As [`wait`], for an engine, which sets timers.
fn wait_timed<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_later_format_is_refused_by_whoever_looks_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = unpack(PRESENT, dir.path());
    let text = fs::read_to_string(path.join("FORMAT")).unwrap();
    let body = text.rsplit_once("crc32").unwrap().0;
    // A later format may add lines after those of the first.
    let (present, later) = (format!("format {PRESENT}\nneeds {NEEDS}"), PRESENT + 1);
    assert!(body.contains(&present), "{body}");
    let body = body.replace(&present, &format!("format {later}\nneeds 9.1.0")) + "chunks 64\n";
    let seal = crc32fast::hash(body.as_bytes());
    fs::write(path.join("FORMAT"), format!("{body}crc32 {seal:08x}\n")).unwrap();
    let before = fs::read(path.join("gen-1/db")).unwrap();
    for refused in [
        SledStore::open(&path, OpenOptions::default()).map(drop),
        SledStore::compact(&path, OpenOptions::default(), &mut |_| ()).map(drop),
        verify_offline(&path).map(drop),
        info_offline(&path).map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(
            matches!(&error, OpenError::Newer { format, known: PRESENT, needs, .. } if *format == later && needs == "9.1.0"),
            "{error:?}"
        );
        assert!(error.hint().contains("dssflow 9.1.0 or later"), "{}", error.hint());
    }
    assert!(path.join("MANIFEST").exists() && fs::read(path.join("gen-1/db")).unwrap() == before);
}
