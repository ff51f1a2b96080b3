//! The suite that any store must pass, and the counts behind its speed and its promise.

use std::sync::Arc;

use dssflow_engine::run::RunStatus;
use dssflow_engine::store::conformance::{self, Harness, transition};
use dssflow_engine::store::{Expect, ListQuery, Store as _};
use dssflow_engine::time::{BoxFuture, Timestamp};
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
    let mut harness = Sled { dirs: Vec::new(), closes: true };
    let report = wait(conformance::run(&mut harness));
    assert!(report.cases >= 23, "{report:?}");
    let report = wait(conformance::archives(&mut harness));
    assert!(report.cases >= 11, "{report:?}");
    let report = wait(conformance::schedules(&mut harness));
    assert!(report.cases >= 8, "{report:?}");
}

#[test]
fn conforms_when_dropped() {
    let mut harness = Sled { dirs: Vec::new(), closes: false };
    let report = wait(conformance::run(&mut harness));
    assert!(report.cases >= 23, "{report:?}");
    let report = wait(conformance::archives(&mut harness));
    assert!(report.cases >= 11, "{report:?}");
    let report = wait(conformance::schedules(&mut harness));
    assert!(report.cases >= 8, "{report:?}");
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

#[test]
fn a_list_reads_only_the_time_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    wait(async {
        for i in 0..100_u64 {
            let mut new = transition(&format!("run-{i}"), Expect::New, store.epoch());
            new.summary.created = Timestamp::from_millis(i);
            if i % 2 == 0 {
                new.summary.status = RunStatus::Succeeded;
            }
            if i % 10 == 3 {
                new.summary.labels = [("team".to_owned(), "data".to_owned())].into();
            }
            store.commit(new).await.unwrap();
        }
        let read = async |query: ListQuery| {
            let before = store.stats().listed;
            let found = store.list(query).await.unwrap().runs.len();
            (found, store.stats().listed - before)
        };
        let from =
            |from| ListQuery { created_from: Some(Timestamp::from_millis(from)), ..ListQuery::default() };
        let until =
            |query, before| ListQuery { created_before: Some(Timestamp::from_millis(before)), ..query };
        assert_eq!(read(ListQuery::default()).await, (100, 100));
        assert_eq!(read(from(90)).await, (10, 10), "what is older is not looked at");
        assert_eq!(read(until(ListQuery::default(), 10)).await, (10, 10), "nor what is newer");
        assert_eq!(read(until(from(40), 60)).await, (20, 20));
        assert_eq!(read(until(from(60), 40)).await, (0, 0));
        let labels = [("team".to_owned(), "data".to_owned())].into();
        assert_eq!(
            read(ListQuery { labels, ..until(from(40), 60) }).await,
            (2, 20),
            "a label is in the head"
        );
        let running = ListQuery { statuses: vec![RunStatus::Running], ..until(from(40), 60) };
        assert_eq!(read(running).await, (10, 10), "unfinished runs have a table of their own");
        let first = ListQuery { limit: 5, ..from(0) };
        assert_eq!(read(first).await, (5, 6), "a page reads one more, to tell whether it is the last");
    });
}

#[test]
fn what_is_refused_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    wait(async {
        store.commit(transition("a", Expect::New, store.epoch())).await.unwrap();
        store.commit(transition("a", Expect::New, store.epoch())).await.unwrap_err();
        store.commit(transition("a", Expect::At { seq: 1 }, 0)).await.unwrap_err();
        let mut empty = transition("a", Expect::At { seq: 1 }, store.epoch());
        empty.events = 0;
        store.commit(empty).await.unwrap_err();
    });
    let stats = store.stats();
    assert_eq!((stats.transitions, stats.refused), (1, 3), "{stats:?}");
}
