//! Whoever reads while runs are removed sees each run whole or not at all, and never takes it for damage.

use std::sync::atomic::{AtomicBool, Ordering};

use dssflow_engine::id::{RunId, ScheduleId};
use dssflow_engine::run::RunStatus;
use dssflow_engine::store::conformance::transition;
use dssflow_engine::store::{Expect, ListQuery, SchedulePut, Store as _};
use dssflow_engine::time::Timestamp;
use dssflow_store::SledStore;

use crate::support::{open, wait};

const RUNS: u64 = 60;
const ROUNDS: u64 = 12;

/// Runs that have ended, with records of one value and of several.
async fn put_runs(store: &SledStore) {
    let puts = (0..RUNS).map(|i| {
        let mut next = transition(&format!("run-{i}"), Expect::New, store.epoch());
        next.record = vec![u8::try_from(i).unwrap(); if i % 2 == 0 { 300 } else { 9_000 }];
        next.summary.status = RunStatus::Succeeded;
        store.commit(next)
    });
    for done in futures::future::join_all(puts).await {
        done.unwrap();
    }
}

/// Says that it is over however it ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn lists_and_records_meet_removals() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    wait(put_runs(&store));
    let over = AtomicBool::new(false);
    let (mut lists, mut listed) = (0_u64, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _over = Over(&over);
            wait(async {
                for _ in 0..ROUNDS {
                    for i in 0..RUNS {
                        let run = RunId::new(format!("run-{i}")).unwrap();
                        store.remove(&run, 1, store.epoch()).await.unwrap();
                    }
                    put_runs(&store).await;
                }
            });
        });
        wait(async {
            while !over.load(Ordering::SeqCst) {
                let page = store.list(ListQuery::default()).await.unwrap();
                for summary in &page.runs {
                    let records = store.load(&summary.run, 0).await.unwrap();
                    assert!(records.len() < 2, "{} has one record, or is gone", summary.run);
                    store.page(&summary.run, 0, 100).await.unwrap();
                }
                lists += 1;
                listed += page.runs.len();
            }
        });
    });
    println!("removed: lists={lists} runs_listed={listed}");
    assert!(lists > 0);
    assert!(wait(store.verify()).unwrap().damage.is_empty());
}

#[test]
fn a_schedule_of_several_values_is_read_as_it_was_at_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let id = ScheduleId::new("plan").unwrap();
    let put = |fill: u8, expect: Option<u64>| {
        // Of other lengths, too.
        let record = vec![fill; if fill.is_multiple_of(3) { 9_000 } else { 14_000 }];
        SchedulePut { id: id.clone(), expect, record, due: Some(Timestamp::from_millis(5)) }
    };
    let first = wait(store.put_schedule(put(0, None), store.epoch())).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _over = Over(&over);
            let mut version = first;
            for fill in 1..=200 {
                let next = store.put_schedule(put(fill, Some(version)), store.epoch());
                version = wait(next).unwrap();
                if fill % 20 == 0 {
                    wait(store.remove_schedule(&id, version, store.epoch())).unwrap();
                    version = wait(store.put_schedule(put(fill, None), store.epoch())).unwrap();
                }
            }
        });
        wait(async {
            while !over.load(Ordering::SeqCst) {
                let one = store.schedule(&id).await.unwrap();
                for stored in store.schedules(None, 10).await.unwrap().into_iter().chain(one) {
                    let fill = stored.record[0];
                    assert!(stored.record.iter().all(|byte| *byte == fill), "values of two versions");
                }
            }
        });
    });
}
