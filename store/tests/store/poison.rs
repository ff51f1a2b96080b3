//! After a failed sync nothing is acknowledged any more, and nothing that was is lost.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use dssflow_engine::id::RunId;
use dssflow_engine::store::conformance::transition;
use dssflow_engine::store::{Expect, Store as _, StoreError};
use dssflow_store::{Disk, OpenOptions, OsDisk, SledStore, Synced, verify_offline};

use crate::support::{open, wait};

/// Fails the n-th sync of a kind from when it is armed, and counts those after it.
struct FailingDisk {
    what: Synced,
    left: AtomicI64,
    fired: AtomicU64,
}

impl FailingDisk {
    fn new(what: Synced) -> Arc<Self> {
        Arc::new(Self { what, left: AtomicI64::new(i64::MAX), fired: AtomicU64::new(0) })
    }
}

impl Disk for FailingDisk {
    fn sync(&self, file: &File, what: Synced) -> io::Result<()> {
        if what == self.what && self.left.fetch_sub(1, Ordering::SeqCst) <= 1 {
            self.fired.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::other("injected"));
        }
        OsDisk.sync(file, what)
    }
}

#[test]
fn a_failed_sync_poisons_the_store_and_keeps_what_was_acknowledged() {
    let mut fired = 0;
    for what in [Synced::Tree, Synced::Head, Synced::Payload, Synced::Directory] {
        for nth in 1..=4 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store");
            let disk = FailingDisk::new(what);
            let options = OpenOptions { disk: Arc::<FailingDisk>::clone(&disk), ..OpenOptions::default() };
            let store = SledStore::open(&path, options).unwrap();
            disk.left.store(nth, Ordering::SeqCst);
            let run = RunId::new("a").unwrap();
            let acknowledged = wait(async {
                let mut seq = 0;
                loop {
                    let expect = if seq == 0 { Expect::New } else { Expect::At { seq } };
                    let mut next = transition("a", expect, store.epoch());
                    // Large, so that payload files and directories are synced too.
                    next.record = vec![u8::try_from(seq).unwrap(); 80_000];
                    match store.commit(next).await {
                        Ok(now) => seq = now,
                        Err(StoreError::Poisoned(_)) => break,
                        Err(error) => panic!("{what:?} {nth}: {error:?}"),
                    }
                }
                for _ in 0..3 {
                    let expect = Expect::At { seq };
                    let again = store.commit(transition("a", expect, store.epoch())).await;
                    assert!(matches!(again, Err(StoreError::Poisoned(_))), "poison does not wear off");
                }
                assert!(
                    matches!(store.head(&run).await, Err(StoreError::Poisoned(_))),
                    "reads are refused too"
                );
                assert!(store.close().await.is_err(), "closing says that it is poisoned");
                seq
            });
            assert_eq!(disk.fired.load(Ordering::SeqCst), 1, "{what:?}: a sync is never asked for twice");
            fired += 1;
            assert_eq!(
                acknowledged,
                u64::try_from(nth).unwrap() - 1,
                "{what:?}: those before it were acknowledged"
            );
            drop(store);

            let store = open(&path);
            let head = wait(store.head(&run)).unwrap().map_or(0, |head| head.seq);
            assert!(
                head == acknowledged || head == acknowledged + 1,
                "{what:?} {nth}: {head} of {acknowledged}"
            );
            assert_eq!(wait(store.load(&run, 0)).unwrap().len() as u64, head);
            let report = wait(store.verify()).unwrap();
            assert!(report.damage.is_empty(), "{what:?} {nth}: {report:?}");
            wait(store.close()).unwrap();
            assert!(verify_offline(&path).unwrap().report.damage.is_empty());
        }
    }
    println!("poison: cases=16 faults_fired={fired}");
    assert_eq!(fired, 16);
}
