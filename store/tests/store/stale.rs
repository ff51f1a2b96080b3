//! Where a part of sled's log cannot be read, sled may answer with older values, each of them whole. A store that nobody
//! closed is compared with the sums of its last group before anything is written.

use std::collections::BTreeMap;
use std::path::Path;

use dssflow_engine::id::ScheduleId;
use dssflow_engine::store::{SchedulePut, Store as _};
use dssflow_engine::time::Timestamp;
use dssflow_store::{OpenError, OpenOptions, SledStore, verify_offline};

use crate::support::{extend, fill, open, wait};

/// A change behind the store's back.
type Change<'a> = &'a dyn Fn(&sled::Db);

fn files(dir: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.ends_with("lock") {
            found.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    found
}

/// A store with something in every table, left as a crash leaves it.
fn left_behind(path: &Path) {
    let store = open(path);
    wait(async {
        fill(&store, 6).await;
        for number in 0..2 {
            let id = ScheduleId::new(format!("plan-{number}")).unwrap();
            let due = Some(Timestamp::from_millis(number));
            let put = SchedulePut { id, expect: None, record: vec![b's'; 300], due };
            store.put_schedule(put, store.epoch()).await.unwrap();
        }
    });
}

fn behind_its_back<T>(path: &Path, work: impl FnOnce(&sled::Db) -> T) -> T {
    let db = sled::Config::new().path(path.join("gen-1")).flush_every_ms(None).open().unwrap();
    let done = work(&db);
    db.flush().unwrap();
    drop(db);
    let log = std::fs::File::open(path.join("gen-1/db")).unwrap();
    while log.try_lock().is_err() {
        std::thread::yield_now();
    }
    done
}

fn is_refused(what: &str, change: Change<'_>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    left_behind(&path);
    behind_its_back(&path, change);
    let before = files(&path);
    assert!(!verify_offline(&path).unwrap().report.damage.is_empty(), "{what}: verify tells it");
    let error = SledStore::open(&path, OpenOptions::default()).expect_err(what);
    assert!(matches!(error, OpenError::Damaged { .. }), "{what}: {error:?}");
    assert!(files(&path) == before, "{what}: it was changed before it was refused");
}

#[test]
fn an_entry_that_a_list_has_lost_is_noticed_at_open() {
    for table in ["h", "d", "c", "u", "g", "s", "t"] {
        is_refused(table, &|db| {
            let (key, _) =
                db.scan_prefix(table).next().unwrap_or_else(|| panic!("{table} is empty")).unwrap();
            db.remove(key).unwrap();
        });
    }
}

#[test]
fn an_older_head_is_noticed_at_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    {
        let store = open(&path);
        wait(extend(&store, 1, 0));
    }
    let key = b"hlong-0";
    let old = behind_its_back(&path, |db| db.get(key).unwrap().unwrap());
    {
        let store = open(&path);
        wait(extend(&store, 1, 1));
    }
    open(&path);
    behind_its_back(&path, |db| db.insert(key, old).unwrap());
    let error = SledStore::open(&path, OpenOptions::default()).expect_err("the head is an older one");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}
