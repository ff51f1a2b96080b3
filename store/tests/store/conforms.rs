//! The suite that any store must pass, and the counts behind its speed and its promise.

use std::sync::Arc;

use dssflow_engine::store::conformance::{self, Harness, transition};
use dssflow_engine::store::{Expect, Store as _};
use dssflow_engine::time::BoxFuture;
use dssflow_store::SledStore;
use tempfile::TempDir;

use crate::support::{open, wait};

/// Directories live as long as the harness.
struct Sled {
    dirs: Vec<TempDir>,
    /// Whether a store is closed before it is opened again, or just dropped.
    closes: bool,
}

impl Harness for Sled {
    type Store = SledStore;

    fn fresh(&mut self) -> BoxFuture<'_, SledStore> {
        self.dirs.push(tempfile::tempdir().unwrap());
        let store = open(&self.dirs.last().unwrap().path().join("store"));
        Box::pin(async move { store })
    }

    fn reopen(&mut self, store: SledStore) -> BoxFuture<'_, SledStore> {
        let closes = self.closes;
        Box::pin(async move {
            let path = store.path().to_owned();
            if closes {
                store.close().await.unwrap();
            }
            drop(store);
            open(&path)
        })
    }
}

#[test]
fn conforms_when_closed() {
    let report = wait(conformance::run(&mut Sled { dirs: Vec::new(), closes: true }));
    assert!(report.cases >= 15, "{report:?}");
}

#[test]
fn conforms_when_dropped() {
    let report = wait(conformance::run(&mut Sled { dirs: Vec::new(), closes: false }));
    assert!(report.cases >= 15, "{report:?}");
}

#[test]
fn every_group_is_synced_twice_and_many_commits_share_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&dir.path().join("store")));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let writers: Vec<_> = (0..64)
            .map(|i| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    for seq in 0..20 {
                        let expect = if seq == 0 { Expect::New } else { Expect::At { seq } };
                        store.commit(transition(&format!("run-{i}"), expect, store.epoch())).await.unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
    let stats = store.stats();
    println!("{stats:?}");
    assert_eq!(stats.transitions, 64 * 20);
    assert_eq!((stats.tree_syncs, stats.head_syncs), (stats.groups, stats.groups), "two syncs a group");
    assert!(stats.groups < stats.transitions / 2, "commits share groups: {stats:?}");
    assert!(stats.largest_group > 1, "{stats:?}");
}
