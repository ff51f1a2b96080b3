//! What is saved of a damaged store is what was written, as far as it goes, and what is missing is said.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dssflow_engine::archive::{self, ArchiveReader, CopyOptions, Part, Purpose, PutOptions};
use dssflow_engine::event::Request;
use dssflow_engine::id::{ActivityName, RunId, StepName, StoreId, WorkflowName};
use dssflow_engine::run::RunStatus;
use dssflow_engine::store::{Record, Store};
use dssflow_engine::time::Timestamp;
use dssflow_engine::{ActivityRegistry, Binding, Engine, Graph, StartRun, Step};
use dssflow_store::{
    Disk, ExportError, ExportReport, OpenError, OpenOptions, OsDisk, Restore, SledStore, Synced,
    export_offline, verify_offline,
};

use crate::support::{Contents, Dice, contents, open};

const RUNS: u64 = 6;
/// Unless `DSSFLOW_CASES` says how many.
const FLIPS: u64 = 60;

fn timed<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn options(runs: Option<Vec<RunId>>) -> CopyOptions {
    CopyOptions { now: Timestamp::from_millis(5_000), product: "a test".to_owned(), runs }
}

/// Runs whose outputs are small, in chunks, and in payload files.
async fn make_runs(store: &Arc<SledStore>) {
    let mut activities = ActivityRegistry::new();
    activities.add_fn("say", |_ctx, size: usize| async move { Ok("x".repeat(size)) }).unwrap();
    let engine = Engine::builder(Arc::clone(store) as Arc<dyn Store>).activities(activities).build();
    for i in 0..RUNS {
        let mut graph = Graph::builder();
        let mut before: Option<StepName> = None;
        for size in [10, 9_000, 80_000 + i, 20] {
            let name = StepName::new(format!("say-{size}")).unwrap();
            let mut step =
                Step::activity(name.clone(), ActivityName::new("say").unwrap(), Binding::literal(size));
            step.after.extend(before.replace(name));
            graph.push(step);
        }
        let start = StartRun::new(WorkflowName::new("talk").unwrap(), graph.build().unwrap());
        let run = engine.start(start.id(RunId::new(format!("run-{i}")).unwrap())).await.unwrap();
        assert_eq!(run.wait().await.unwrap().status, RunStatus::Succeeded);
    }
}

/// A store as a killed owner leaves it, and what is in it.
fn made(path: &Path) -> Contents {
    let store = Arc::new(open(path));
    timed(async {
        make_runs(&store).await;
        contents(&*store).await
    })
}

/// The whole runs of an archive.
fn read(bytes: &[u8]) -> BTreeMap<String, Vec<Record>> {
    let mut reader = ArchiveReader::open(bytes).unwrap();
    let (mut runs, mut open) = (BTreeMap::new(), Vec::new());
    while let Some(part) = reader.next_part().unwrap() {
        match part {
            Part::Record(record) => open.push(record),
            Part::EndOfRun(run) => drop(runs.insert(run.to_string(), std::mem::take(&mut open))),
            Part::Graph(..) | Part::Run(_) | Part::Schedule(_) => {}
        }
    }
    runs
}

fn export(path: &Path) -> Result<(Vec<u8>, ExportReport), ExportError> {
    timed(export_offline(path, Vec::new(), options(None), &mut |_| ()))
}

/// Puts an archive into a store of its own.
fn restore(path: &Path, archive: &[u8]) -> (SledStore, dssflow_engine::archive::PutReport) {
    let mut reader = ArchiveReader::open(archive).unwrap();
    let id = reader.header().store.clone();
    let store = SledStore::create_with_id(path, id, OpenOptions::default()).unwrap();
    let options = PutOptions {
        purpose: Purpose::Restore,
        now: Timestamp::from_millis(6_000),
        request: Request::by("ada"),
        runs: None,
        salvage: false,
    };
    let report = timed(archive::put(&store, &mut reader, &options, &mut |_| ())).unwrap();
    (store, report)
}

#[test]
fn a_whole_store_is_saved_as_it_is_and_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let expected = made(&path);
    drop(open(&path));
    let before = fs::read(path.join("gen-1/db")).unwrap();
    let (archive, report) = export(&path).unwrap();
    assert!(report.damage.is_empty() && report.lost.is_empty(), "{report:?}");
    assert_eq!(report.made.totals.runs, RUNS);
    assert!(fs::read(path.join("gen-1/db")).unwrap() == before && !path.join("MANIFEST").exists());
    let (store, put) = restore(&dir.path().join("other"), &archive);
    assert_eq!((put.runs, put.unfinished), (RUNS, 0));
    let found = timed(contents(&store));
    for (run, (head, records)) in &expected {
        let (new_head, new_records) = &found[run];
        assert_eq!(&new_records[..records.len()], &records[..], "{run}");
        assert_eq!(
            (new_records.len(), new_head.seq),
            (records.len() + 1, head.seq + 1),
            "and one that says so"
        );
        assert_eq!(new_head.summary.status, head.summary.status);
    }
    assert!(timed(store.verify()).unwrap().damage.is_empty());
}

#[test]
fn a_run_with_a_bad_record_is_saved_up_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let expected = made(&path);
    let (_, records) = &expected["run-3"];
    let bad = records.iter().find(|record| record.bytes.len() > 70_000).unwrap();
    let file = fs::read_dir(path.join("payloads")).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|file| fs::read(file).unwrap() == bad.bytes).unwrap();
    fs::write(&file, "something else").unwrap();

    let (archive, report) = export(&path).unwrap();
    let [lost] = &report.lost[..] else { panic!("{report:?}") };
    assert_eq!((lost.run.as_str(), lost.from), ("run-3", bad.first_seq));
    assert_eq!(lost.until, Some(expected["run-3"].0.seq));
    assert!(lost.what.contains("is not what was written"), "{lost:?}");
    let saved = read(&archive);
    assert_eq!(saved.len() as u64, RUNS);
    assert!(saved["run-3"].iter().eq(records.iter().take_while(|record| record.first_seq < bad.first_seq)));

    let (store, put) = restore(&dir.path().join("other"), &archive);
    assert_eq!((put.runs, put.unfinished), (RUNS, 1), "it had not ended there");
    let head = timed(store.head(&RunId::new("run-3").unwrap())).unwrap().unwrap();
    assert_eq!((head.summary.status, head.summary.workflow.as_str()), (RunStatus::Paused, "talk"));
    let others = report.made.totals.records;
    assert!(others > 0 && timed(store.verify()).unwrap().damage.is_empty());

    // One run alone, for whoever helps.
    let one = Some(vec![RunId::new("run-1").unwrap()]);
    let (archive, report) = timed(export_offline(&path, Vec::new(), options(one), &mut |_| ())).unwrap();
    assert!(report.lost.is_empty() && !report.damage.is_empty(), "{report:?}");
    assert_eq!(read(&archive).into_keys().collect::<Vec<_>>(), ["run-1"]);
    let none = Some(vec![RunId::new("nobody").unwrap()]);
    let answer = timed(export_offline(&path, Vec::new(), options(none), &mut |_| ()));
    assert!(matches!(answer, Err(ExportError::Copy(_))), "{answer:?}");
}

#[test]
fn whatever_bit_flips_what_is_saved_was_written_and_what_is_missing_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let expected = made(&path);
    let mut dice = Dice::new("export-flips", 20_261_126);
    let flips = std::env::var("DSSFLOW_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(FLIPS);
    let (mut unreadable, mut whole, mut cut, mut gone) = (0, 0, 0, 0);
    let db = path.join("gen-1/db");
    let good = fs::read(&db).unwrap();
    // Behind that the file is empty.
    let used = good.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    for case in 0..flips {
        let mut bytes = good.clone();
        let at = dice.below(used) as usize;
        bytes[at] ^= 1 << dice.below(8);
        fs::write(&db, bytes).unwrap();
        let when = format!("case {case}, byte {at}");
        let (archive, report) = match export(&path) {
            Ok(done) => done,
            Err(ExportError::Open(OpenError::Damaged { what, .. })) => {
                assert!(what.contains("nothing of it can be read"), "{when}: {what}");
                unreadable += 1;
                continue;
            }
            Err(error) => panic!("{when}: {error:?}"),
        };
        let saved = read(&archive);
        let mut missing = 0;
        for (run, (head, records)) in &expected {
            let found = saved.get(run).map_or(&[][..], Vec::as_slice);
            assert!(records.starts_with(found), "{when}: {run} is not as it was written");
            if found.len() == records.len() {
                continue;
            }
            missing += 1;
            let last = found.last().map_or(0, |record| record.first_seq + u64::from(record.events) - 1);
            match report.lost.iter().find(|lost| lost.run.as_str() == run) {
                Some(lost) => {
                    assert_eq!(lost.from, last + 1, "{when}: {lost:?}");
                    assert!(lost.until.is_none_or(|until| until <= head.seq), "{when}: {lost:?}");
                }
                // A run of which nothing can be found, or whose later head is gone with the end of the log.
                None => assert!(!report.damage.is_empty(), "{when}: {run} is missing, and nothing says so"),
            }
            if found.is_empty() { gone += 1 } else { cut += 1 }
        }
        if missing == 0 {
            whole += 1;
        }
        assert!(missing == 0 || !report.damage.is_empty(), "{when}: missing and not told: {report:?}");
        assert!(saved.keys().all(|run| expected.contains_key(run)), "{when}: runs that never were");
    }
    println!(
        "export-flips: cases={flips} faults_fired={flips} unreadable={unreadable} whole={whole} cut={cut} gone={gone} violations=0"
    );
    assert!(cut + gone + unreadable > 0);
    fs::write(&db, good).unwrap();
    assert!(verify_offline(&path).unwrap().report.damage.is_empty());
}

/// Counts the syncs, and refuses from one on.
struct Failing {
    left: AtomicU64,
    seen: AtomicU64,
}

impl Disk for Failing {
    fn sync(&self, file: &fs::File, what: Synced) -> std::io::Result<()> {
        self.seen.fetch_add(1, Ordering::Relaxed);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            return Err(std::io::Error::other("the disk is gone"));
        }
        OsDisk.sync(file, what)
    }
}

/// Restores an archive over what is at `path`; `good` syncs succeed. Returns how many were asked for.
fn restore_over(path: &Path, archive: &[u8], good: u64) -> (Result<(), String>, u64) {
    let disk = Arc::new(Failing { left: AtomicU64::new(good), seen: AtomicU64::new(0) });
    let options = OpenOptions { disk: Arc::clone(&disk) as Arc<dyn Disk>, ..OpenOptions::default() };
    let mut reader = ArchiveReader::open(archive).unwrap();
    let put = PutOptions {
        purpose: Purpose::Restore,
        now: Timestamp::from_millis(6_000),
        request: Request::by("ada"),
        runs: None,
        salvage: false,
    };
    let all = || -> Result<(), String> {
        let id = reader.header().store.clone();
        let (restore, store) = Restore::begin(path, id, options).map_err(|error| error.to_string())?;
        timed(archive::put(&store, &mut reader, &put, &mut |_| ())).map_err(|error| error.to_string())?;
        timed(store.close()).map_err(|error| error.to_string())?;
        drop(store);
        restore.finish().map(drop).map_err(|error| error.to_string())
    };
    let result = all();
    (result, disk.seen.load(Ordering::Relaxed))
}

#[test]
fn a_restore_that_is_cut_off_leaves_the_old_store_or_none_and_can_be_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let expected = made(&path);
    drop(open(&path));
    let (archive, _) = export(&path).unwrap();
    let (done, syncs) = restore_over(&path, &archive, u64::MAX);
    assert_eq!(done, Ok(()));
    // The first, and all of those with which the two stores change places.
    let (mut cases, mut refused, mut old) = (0, 0, 0);
    for good in (0..syncs).filter(|good| good % 9 == 0 || good + 12 > syncs) {
        let (done, _) = restore_over(&path, &archive, good);
        assert!(done.is_err(), "sync {good} of {syncs} failed");
        cases += 1;
        match SledStore::open(&path, OpenOptions::default()) {
            Ok(store) => {
                assert_eq!(
                    timed(contents(&store)).len(),
                    expected.len(),
                    "sync {good}: nothing is forgotten"
                );
                old += 1;
            }
            Err(OpenError::Damaged { what, .. }) => {
                assert!(what.contains("CURRENT"), "sync {good}: {what}");
                let kept = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
                assert!(
                    kept.into_iter().any(|path| path.join("gen-1/db").exists() || path.ends_with("gen-1"))
                );
                refused += 1;
            }
            Err(error) => panic!("sync {good}: {error:?}"),
        }
        assert_eq!(restore_over(&path, &archive, u64::MAX).0, Ok(()), "sync {good}: given again");
        assert_eq!(timed(contents(&open(&path))).len(), expected.len(), "sync {good}");
    }
    println!("restore-syncs: cases={cases} faults_fired={cases} refused={refused} old={old} violations=0");
    assert!(refused > 0 && old > 0, "{refused} {old}");
}

#[test]
fn a_restore_takes_the_place_of_what_is_there_and_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let expected = made(&path);
    drop(open(&path));
    let (archive, report) = export(&path).unwrap();
    let id = report.made.header.store.clone();
    fs::write(path.join("CURRENT"), "nonsense").unwrap();
    assert!(matches!(SledStore::open(&path, OpenOptions::default()), Err(OpenError::Damaged { .. })));

    // One that is given up changes nothing.
    let (given_up, store) = Restore::begin(&path, id.clone(), OpenOptions::default()).unwrap();
    let second = Restore::begin(&path, id.clone(), OpenOptions::default());
    assert!(matches!(second, Err(OpenError::Locked { .. })));
    drop((given_up, store));
    assert_eq!(fs::read(path.join("CURRENT")).unwrap(), b"nonsense");

    for round in 0..2 {
        let (restore, store) = Restore::begin(&path, id.clone(), OpenOptions::default()).unwrap();
        let mut reader = ArchiveReader::open(&archive[..]).unwrap();
        let put = PutOptions {
            purpose: Purpose::Restore,
            now: Timestamp::from_millis(6_000),
            request: Request::by("ada"),
            runs: None,
            salvage: false,
        };
        timed(archive::put(&store, &mut reader, &put, &mut |_| ())).unwrap();
        timed(store.close()).unwrap();
        drop(store);
        let kept = restore.finish().unwrap().expect("something was there");
        assert!(kept.join("gen-1/db").exists() && kept.join("CURRENT").exists(), "round {round}");
        assert!(!path.join("restoring").exists());
        let report = verify_offline(&path).unwrap();
        assert!(report.report.damage.is_empty(), "round {round}: {report:?}");
        assert!(matches!(report.manifest, dssflow_store::ManifestState::Checked { .. }));
        let store = open(&path);
        assert_eq!((store.id(), timed(contents(&store)).len()), (id.clone(), expected.len()));
    }
    let kept = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(kept.filter(|name| name.starts_with("kept-")).count(), 2);
    assert_ne!(id, StoreId::generate([0; 16]));
}

#[test]
fn of_a_store_that_lost_current_the_whole_copy_is_saved_and_not_the_half_of_a_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let expected = made(&path);
    drop(open(&path));
    // What a compaction that is cut off leaves: the first keys, the last group among them, and no records.
    let (apart, half) = (dir.path().join("apart"), path.join("gen-2"));
    fs::create_dir(&apart).unwrap();
    fs::create_dir(&half).unwrap();
    for entry in fs::read_dir(path.join("gen-1")).unwrap().map(Result::unwrap) {
        if entry.path().is_file() {
            fs::copy(entry.path(), apart.join(entry.file_name())).unwrap();
        }
    }
    let (from, to) = (sled::open(&apart).unwrap(), sled::open(&half).unwrap());
    for (key, value) in from.range(..b"r".to_vec()).map(Result::unwrap) {
        to.insert(key, value).unwrap();
    }
    to.flush().unwrap();
    drop((from, to));
    let (_, report) = export(&path).unwrap();
    assert!(report.damage.is_empty(), "CURRENT says which it is: {report:?}");

    fs::remove_file(path.join("CURRENT")).unwrap();
    let (archive, report) = export(&path).unwrap();
    assert_eq!(report.lost, []);
    assert_eq!(read(&archive).len(), expected.len());
    let damage = verify_offline(&path).unwrap().report.damage;
    assert!(damage.iter().all(|damage| damage.what.contains("CURRENT")), "{damage:?}");
}
