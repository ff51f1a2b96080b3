//! Whole runs put in and taken out: cut off at any moment they are there or not, and memory stays small.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dssflow_engine::id::{RunId, StoreId};
use dssflow_engine::run::RunStatus;
use dssflow_engine::store::conformance::transition;
use dssflow_engine::store::{Expect, GraphHash, Record, Store, StoreError, WholeRun};
use dssflow_store::{Disk, OpenError, OpenOptions, OsDisk, SledStore, Synced, verify_offline};
use futures::FutureExt as _;

use crate::support::{Dice, child, child_path, contents, fill, open, wait};

const KILLS: u64 = 20;
/// More than fits a batch of an import or of a removal.
const LONG: u64 = 6_000;

fn id(run: &str) -> RunId {
    RunId::new(run).unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "a sweep asks it that way")]
fn none(_seq: u64, _record: &[u8]) -> Result<Vec<GraphHash>, String> {
    Ok(Vec::new())
}

/// A run that has ended, of so many records; some in chunks, some in payload files.
fn long(run: &str, records: u64) -> WholeRun<'static> {
    let mut summary = transition(run, Expect::New, 1).summary;
    summary.status = RunStatus::Succeeded;
    WholeRun {
        run: id(run),
        seq: records,
        summary,
        due: None,
        graphs: Vec::new(),
        records: Box::new((1..=records).map(|first_seq| Ok(record(first_seq)))),
    }
}

fn record(first_seq: u64) -> Record {
    let size =
        if first_seq.is_multiple_of(2_000) { 80_000 } else { [200, 300, 6_000][(first_seq % 3) as usize] };
    Record { first_seq, events: 1, bytes: vec![(first_seq % 251) as u8; size] }
}

#[test]
fn a_long_run_goes_in_and_out_in_batches() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    wait(async {
        let groups = store.stats().groups;
        store.import(long("long", LONG)).await.unwrap();
        assert!(store.stats().groups - groups > 5, "in several groups: {:?}", store.stats());
        let records = store.load(&id("long"), 0).await.unwrap();
        assert!((1..).zip(&records).all(|(seq, found)| *found == record(seq)));
        assert_eq!(records.len() as u64, LONG);
        assert!(store.verify().await.unwrap().damage.is_empty());
        let groups = store.stats().groups;
        store.remove(&id("long"), LONG, store.epoch()).await.unwrap();
        assert!(store.stats().groups - groups > 1, "in several groups");
        let report = store.verify().await.unwrap();
        assert!(report.damage.is_empty() && report.runs == 0, "{report:?}");
        let swept = store.sweep(none).await.unwrap();
        assert_eq!(swept.payloads, 3, "each of another content: {swept:?}");
    });
}

#[test]
fn an_import_that_is_dropped_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    for polls in [1, 2, 4] {
        wait(async {
            let mut import = Box::pin(store.import(long("long", LONG)));
            for _ in 0..polls {
                // Each poll writes a part and waits for it.
                assert!((&mut import).now_or_never().is_none());
                while store.stats().groups == 0 {}
            }
            drop(import);
            // Queued behind what the dropped import left.
            let report = store.verify().await.unwrap();
            assert!(report.damage.is_empty() && report.runs == 0, "{report:?}");
            store.import(long("long", 3)).await.unwrap();
            store.remove(&id("long"), 3, store.epoch()).await.unwrap();
        });
    }
}

/// Counts the syncs, and refuses from one on.
struct Failing(AtomicU64);

impl Disk for Failing {
    fn sync(&self, file: &std::fs::File, what: Synced) -> std::io::Result<()> {
        if self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            return Err(std::io::Error::other("the disk is gone"));
        }
        OsDisk.sync(file, what)
    }
}

#[test]
fn whichever_sync_fails_a_run_is_there_whole_or_not_at_all() {
    let (mut cases, mut fired, mut there) = (0, 0, 0);
    for good in (0..).step_by(4) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = open(&path);
        wait(fill(&store, 6));
        let expected = wait(contents(&store));
        wait(store.close()).unwrap();
        let disk = Arc::new(Failing(AtomicU64::new(good)));
        let options = OpenOptions { disk: disk as Arc<dyn Disk>, ..OpenOptions::default() };
        cases += 1;
        let done = match SledStore::open(&path, options) {
            Err(OpenError::Io { .. } | OpenError::Damaged { .. }) => false,
            Err(error) => panic!("{error:?}"),
            Ok(store) => wait(async {
                let imported = store.import(long("long", LONG)).await;
                let removed = match &imported {
                    Ok(()) => store.remove(&id("long"), LONG, store.epoch()).await,
                    Err(error) => Err(error.clone()),
                };
                assert!(matches!(removed, Ok(()) | Err(StoreError::Poisoned(_))), "{removed:?}");
                removed.is_ok()
            }),
        };
        fired += u32::from(!done);
        let report = verify_offline(&path).unwrap();
        assert!(report.report.damage.is_empty(), "{good}: {report:?}");
        let store = open(&path);
        let mut found = wait(contents(&store));
        if let Some((_, records)) = found.remove("long") {
            assert_eq!(records.len() as u64, LONG, "{good}");
            there += 1;
        }
        assert!(found == expected, "{good}: the others are as they were");
        assert!(wait(store.verify()).unwrap().damage.is_empty());
        if done {
            break;
        }
    }
    println!("whole-syncs: cases={cases} faults_fired={fired} there={there} violations=0");
    assert!(fired > 8, "{fired}");
}

#[test]
fn killed_while_runs_go_in_and_out_each_is_whole_or_gone() {
    const NAME: &str = "whole::killed_while_runs_go_in_and_out_each_is_whole_or_gone";
    if let Some(path) = child_path() {
        let store = open(&path);
        wait(async {
            loop {
                if store.head(&id("long")).await.unwrap().is_none() {
                    store.import(long("long", LONG)).await.unwrap();
                }
                store.remove(&id("long"), LONG, store.epoch()).await.unwrap();
                store.sweep(none).await.unwrap();
            }
        });
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    wait(fill(&store, 6));
    let expected = wait(contents(&store));
    drop(store);
    let mut dice = Dice::new("whole-kill", 20_261_125);
    let (mut half, mut there) = (0, 0);
    for kill in 0..KILLS {
        let mut owner = child(NAME, &path).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(50 + dice.below(900)));
        owner.kill().unwrap();
        owner.wait().unwrap();
        let report = verify_offline(&path).unwrap();
        assert!(report.report.damage.is_empty(), "kill {kill}: {report:?}");
        let store = open(&path);
        // Opening writes one group; another one took away what was half there.
        half += u32::from(store.stats().groups > 1);
        let mut found = wait(contents(&store));
        if let Some((_, records)) = found.remove("long") {
            assert_eq!(records.len() as u64, LONG, "kill {kill}");
            there += 1;
        }
        assert!(found == expected, "kill {kill}");
        assert!(wait(store.verify()).unwrap().damage.is_empty(), "kill {kill}");
        drop(store);
    }
    println!("whole-kill: cases={KILLS} faults_fired={half} there={there} violations=0");
    assert!(half > 2, "some kills hit a run half way: {half}");
}

#[test]
fn a_store_is_made_with_the_id_it_is_told_and_only_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let wanted = StoreId::generate([9; 16]);
    let store = SledStore::create_with_id(&path, wanted.clone(), OpenOptions::default()).unwrap();
    wait(fill(&store, 2));
    assert_eq!(store.id(), wanted);
    let again = || SledStore::create_with_id(&path, StoreId::generate([8; 16]), OpenOptions::default());
    assert!(matches!(again(), Err(OpenError::Locked { .. })));
    wait(store.close()).unwrap();
    assert!(matches!(again(), Err(OpenError::Used { .. })));
    assert_eq!(open(&path).id(), wanted);
}
