//! Compaction: smaller, the same, and whole wherever it is cut off.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dssflow_engine::store::Store as _;
use dssflow_store::{Disk, OpenError, OpenOptions, OsDisk, SledStore, Synced, info_offline, verify_offline};

use crate::support::{Contents, Dice, child, child_path, contents, fill, open, wait};

const KILLS: u64 = 25;

fn generations(path: &Path) -> Vec<String> {
    let names = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("gen-")).collect();
    names.sort();
    names
}

fn compact(path: &Path, options: OpenOptions) -> Result<dssflow_store::CompactReport, OpenError> {
    SledStore::compact(path, options, &mut |_| ())
}

/// A closed store with much that is no longer live, and what is in it.
fn filled(path: &Path) -> Contents {
    let store = open(path);
    wait(async {
        fill(&store, 12).await;
        let all = contents(&store).await;
        store.close().await.unwrap();
        all
    })
}

#[track_caller]
fn assert_whole(path: &Path, expected: &Contents, when: &str) {
    let report = verify_offline(path).unwrap();
    assert!(report.report.damage.is_empty(), "{when}: {report:?}");
    let store = open(path);
    assert!(wait(contents(&store)) == *expected, "{when}: another content");
    drop(store);
}

#[test]
fn a_compacted_store_is_smaller_and_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    // Each commit leaves the head before it behind.
    let id = store.id();
    wait(async {
        for round in 0..40 {
            crate::support::extend(&store, 50, round).await;
        }
        fill(&store, 12).await;
    });
    let expected = wait(contents(&store));
    wait(store.close()).unwrap();
    let before = info_offline(&path).unwrap();
    let mut told = Vec::new();
    let report = SledStore::compact(&path, OpenOptions::default(), &mut |at| told.push(at)).unwrap();
    println!("compact: {report:?}");
    assert!(report.after_bytes < report.before_bytes, "{report:?}");
    assert!(report.values > 2_000, "{report:?}");
    let copied = told.iter().rfind(|at| at.doing == "copying").unwrap();
    assert_eq!((copied.done, copied.total), (report.values, report.values));
    assert_eq!(generations(&path), ["gen-2"]);
    for name in ["gen-2/db", "gen-2/conf", "CURRENT"] {
        assert_eq!(std::fs::metadata(path.join(name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    let after = info_offline(&path).unwrap();
    assert_eq!(
        (after.last_group, after.epoch),
        (before.last_group + 1, before.epoch + 1),
        "only opened once"
    );
    assert_eq!((after.events, after.store), (before.events, id));
    assert!(matches!(
        verify_offline(&path).unwrap().manifest,
        dssflow_store::ManifestState::Checked { files } if files > 3
    ));
    assert_whole(&path, &expected, "compacted");
    compact(&path, OpenOptions::default()).unwrap();
    assert_eq!(generations(&path), ["gen-3"]);
    assert_whole(&path, &expected, "compacted twice");
}

#[test]
fn a_store_in_use_is_not_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    assert!(matches!(compact(&path, OpenOptions::default()), Err(OpenError::Locked { holder: Some(_), .. })));
    drop(store);
    let absent = dir.path().join("absent");
    assert!(matches!(compact(&absent, OpenOptions::default()), Err(OpenError::NotFound { .. })));
}

#[test]
fn a_damaged_store_is_not_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    filled(&path);
    drop(open(&path));
    let payload = std::fs::read_dir(path.join("payloads")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&payload, "changed").unwrap();
    let error = compact(&path, OpenOptions::default()).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged { .. }), "{error:?}");
    assert_eq!(generations(&path), ["gen-1"], "what was there stays");
}

/// Counts the syncs, and refuses from one on.
struct Failing {
    left: AtomicU64,
    seen: AtomicU64,
}

impl Disk for Failing {
    fn sync(&self, file: &std::fs::File, what: Synced) -> std::io::Result<()> {
        self.seen.fetch_add(1, Ordering::Relaxed);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            return Err(std::io::Error::other("the disk is gone"));
        }
        OsDisk.sync(file, what)
    }
}

#[test]
fn whichever_sync_fails_the_store_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let expected = filled(&path);
    let (mut fired, mut cases) = (0, 0);
    for good in 0_u64.. {
        let disk = Arc::new(Failing { left: AtomicU64::new(good), seen: AtomicU64::new(0) });
        let options = OpenOptions { disk: Arc::clone(&disk) as Arc<dyn Disk>, ..OpenOptions::default() };
        let result = compact(&path, options);
        cases += 1;
        let failed = disk.seen.load(Ordering::Relaxed) > good;
        fired += u64::from(failed);
        assert_eq!(result.is_err(), failed, "sync {good}: {result:?}");
        assert_whole(&path, &expected, &format!("sync {good} failed"));
        if !failed {
            break;
        }
    }
    compact(&path, OpenOptions::default()).unwrap();
    assert_eq!(generations(&path).len(), 1, "leftovers are gone");
    println!("compact-syncs: cases={cases} faults_fired={fired} violations=0");
    assert!(fired > 15, "{fired}");
}

#[test]
fn killed_at_any_moment_the_store_is_whole() {
    const NAME: &str = "compact::killed_at_any_moment_the_store_is_whole";
    if let Some(path) = child_path() {
        loop {
            compact(&path, OpenOptions::default()).unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let expected = filled(&path);
    let begin = std::time::Instant::now();
    compact(&path, OpenOptions::default()).unwrap();
    let one = u64::try_from(begin.elapsed().as_millis()).unwrap().max(10);
    let mut dice = Dice::new("compact-kill", 20_261_124);
    let (mut left_over, mut moved) = (0, 0);
    for kill in 0..KILLS {
        let before = std::fs::read(path.join("CURRENT")).unwrap();
        let mut owner = child(NAME, &path).stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(dice.below(one * 4)));
        owner.kill().unwrap();
        owner.wait().unwrap();
        left_over += u32::from(generations(&path).len() > 1);
        moved += u32::from(std::fs::read(path.join("CURRENT")).unwrap() != before);
        assert_whole(&path, &expected, &format!("kill {kill}"));
    }
    println!("compact-kill: cases={KILLS} faults_fired={left_over} moved={moved} violations=0");
    assert!(left_over > 0, "some kills hit a compaction half way");
    compact(&path, OpenOptions::default()).unwrap();
    assert_eq!(generations(&path).len(), 1);
    assert_whole(&path, &expected, "in the end");
}
