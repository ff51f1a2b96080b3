//! What a store promises that keeps schedules.

use futures::future::join_all;

use super::super::{Expect, MAX_SCHEDULE_BYTES, SchedulePut, Store, StoreError, StoredSchedule};
use super::{Harness, assert_clean, commit, head, refused, transition};
use crate::id::ScheduleId;
use crate::time::Timestamp;

fn name(id: &str) -> ScheduleId {
    ScheduleId::new(id).expect("the suite's names are valid")
}

fn put(id: &str, expect: Option<u64>, size: usize, due: Option<u64>) -> SchedulePut {
    let record = format!("{id}:{size}:").into_bytes().into_iter().cycle().take(size).collect();
    SchedulePut { id: name(id), expect, record, due: due.map(Timestamp::from_millis) }
}

async fn write(store: &impl Store, schedule: SchedulePut) -> u64 {
    let text = format!("{schedule:.40?}");
    let version = store.put_schedule(schedule, store.epoch()).await;
    version.unwrap_or_else(|error| panic!("a good put ({text}) must succeed: {error}"))
}

async fn get(store: &impl Store, id: &str) -> Option<StoredSchedule> {
    store.schedule(&name(id)).await.unwrap_or_else(|error| panic!("reading {id} must succeed: {error}"))
}

async fn ids(store: &impl Store, after: Option<&str>, limit: usize) -> Vec<String> {
    let after = after.map(name);
    let page = store.schedules(after.as_ref(), limit).await.expect("listing schedules must succeed");
    page.into_iter().map(|stored| stored.id.to_string()).collect()
}

async fn dues(store: &impl Store, until: u64) -> Vec<(u64, String)> {
    let due = store.due_schedules(Timestamp::from_millis(until), 100).await;
    let due = due.expect("reading due schedules must succeed");
    due.into_iter().map(|(at, id)| (at.as_millis(), id.to_string())).collect()
}

pub(super) async fn a_schedule_comes_back_as_it_was<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    assert_eq!(get(&store, "a").await, None);
    assert_eq!(ids(&store, None, 10).await, [""; 0]);
    let mut version = None;
    // Larger and smaller again: nothing of the larger one may be left.
    for size in [10, 4_000, 20_000, MAX_SCHEDULE_BYTES, 5_000, 0] {
        let wanted = put("a", version, size, Some(size as u64));
        version = Some(write(&store, wanted.clone()).await);
        let SchedulePut { id, record, due, .. } = wanted;
        let stored = StoredSchedule { id, version: version.expect("just set"), due, record };
        assert_eq!(get(&store, "a").await, Some(stored), "{size} bytes");
        assert_clean(&store).await;
    }
    let large = put("a", version, MAX_SCHEDULE_BYTES + 1, None);
    let error = store.put_schedule(large, store.epoch()).await.expect_err("too large a schedule is refused");
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error:?}");
    for id in ["c", "b", "ab"] {
        write(&store, put(id, None, 5, None)).await;
    }
    assert_eq!(ids(&store, None, 10).await, ["a", "ab", "b", "c"], "by name");
    assert_eq!(ids(&store, Some("a"), 2).await, ["ab", "b"], "from there on, so many");
    assert_clean(&store).await;
}

pub(super) async fn of_rivals_one_wins<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let all = join_all((0..20).map(|i| store.put_schedule(put("a", None, i, None), store.epoch()))).await;
    assert_eq!(all.iter().filter(|result| result.is_ok()).count(), 1, "one is the first: {all:?}");
    let version = get(&store, "a").await.expect("it was written").version;
    let conflict = StoreError::ScheduleConflict { found: version };
    for result in all {
        assert!(result == Ok(version) || result == Err(conflict.clone()), "{result:?}");
    }
    let next = |i| store.put_schedule(put("a", Some(version), i, None), store.epoch());
    let all = join_all((0..20).map(next)).await;
    assert_eq!(all.iter().filter(|result| result.is_ok()).count(), 1, "one is the next: {all:?}");
    let missing = store.put_schedule(put("b", Some(1), 1, None), store.epoch()).await;
    assert_eq!(missing, Err(StoreError::ScheduleConflict { found: 0 }));
    assert_clean(&store).await;
}

pub(super) async fn a_version_never_comes_back<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let mut last = 0;
    for _ in 0..3 {
        let first = write(&store, put("a", None, 9_000, Some(5))).await;
        assert!(first > last, "a schedule made anew has a higher version than the one that was removed");
        let second = write(&store, put("a", Some(first), 3, Some(5))).await;
        assert!(second > first);
        let epoch = store.epoch();
        let stale = store.remove_schedule(&name("a"), first, epoch).await;
        assert_eq!(stale, Err(StoreError::ScheduleConflict { found: second }));
        store.remove_schedule(&name("a"), second, epoch).await.expect("a removal must succeed");
        let gone = store.remove_schedule(&name("a"), second, epoch).await;
        assert_eq!(gone, Err(StoreError::ScheduleConflict { found: 0 }));
        assert!(get(&store, "a").await.is_none() && dues(&store, 100).await.is_empty());
        last = second;
    }
    assert_clean(&store).await;
}

pub(super) async fn due_schedules_are_ordered_and_replaced<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let a = write(&store, put("a", None, 1, Some(300))).await;
    write(&store, put("b", None, 1, Some(70_000))).await;
    write(&store, put("c", None, 1, None)).await;
    let d = write(&store, put("d", None, 1, Some(20))).await;
    let item = |at: u64, id: &str| (at, id.to_owned());
    assert_eq!(dues(&store, 300).await, [item(20, "d"), item(300, "a")], "the moment itself belongs to it");
    write(&store, put("a", Some(a), 1, Some(10))).await;
    write(&store, put("d", Some(d), 1, None)).await;
    assert_eq!(dues(&store, u64::MAX).await, [item(10, "a"), item(70_000, "b")]);
    let runs = store.due(Timestamp::MAX, 10).await.expect("reading due items must succeed");
    assert!(runs.is_empty(), "schedules are no runs");
    assert_clean(&store).await;
}

pub(super) async fn a_run_and_its_schedule_are_written_together<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let version = write(&store, put("a", None, 9_000, Some(1))).await;
    let mut start = transition("a-1", Expect::New, store.epoch());
    start.schedule = Some(put("a", Some(version), 20, Some(2)));
    commit(&store, start).await;
    let stored = get(&store, "a").await.expect("it is there");
    assert_eq!((stored.record.len(), stored.due), (20, Some(Timestamp::from_millis(2))));
    assert!(head(&store, "a-1").await.is_some());
    // The schedule is elsewhere: the run is not there either.
    let mut stale = transition("a-2", Expect::New, store.epoch());
    stale.schedule = Some(put("a", Some(version), 30, None));
    let error = refused(&store, stale).await;
    assert_eq!(error, StoreError::ScheduleConflict { found: stored.version });
    assert!(head(&store, "a-2").await.is_none(), "a run whose schedule was refused is not there");
    // The run is there: the schedule stays as it was.
    let mut again = transition("a-1", Expect::New, store.epoch());
    again.schedule = Some(put("a", Some(stored.version), 40, None));
    let error = refused(&store, again).await;
    assert!(matches!(error, StoreError::Exists(_)), "{error:?}");
    assert_eq!(get(&store, "a").await, Some(stored.clone()), "a schedule whose run was refused stays");
    // Of many that want it at once one gets it.
    let starts = (3..20).map(async |n| {
        let mut start = super::owned(&store, transition(&format!("a-{n}"), Expect::New, store.epoch())).await;
        start.schedule = Some(put("a", Some(stored.version), n, None));
        store.commit(start).await
    });
    let all = join_all(starts).await;
    assert_eq!(all.iter().filter(|result| result.is_ok()).count(), 1, "{all:?}");
    assert_clean(&store).await;
}

pub(super) async fn an_earlier_epoch_changes_no_schedule<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let version = write(&store, put("a", None, 1, None)).await;
    let before = store.epoch();
    let store = harness.reopen(store).await;
    let fenced = Err(StoreError::Fenced { epoch: store.epoch() });
    assert_eq!(store.put_schedule(put("a", Some(version), 2, None), before).await, fenced);
    let removed = store.remove_schedule(&name("a"), version, before).await;
    assert_eq!(removed, Err(StoreError::Fenced { epoch: store.epoch() }));
    assert_eq!(get(&store, "a").await.map(|stored| stored.version), Some(version));
}

pub(super) async fn schedules_are_there_after_reopening<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    for (id, size) in [("a", 60_000), ("b", 1), ("c", 5_000)] {
        write(&store, put(id, None, size, Some(size as u64))).await;
    }
    let version = get(&store, "b").await.expect("it is there").version;
    store.remove_schedule(&name("b"), version, store.epoch()).await.expect("a removal must succeed");
    let before = [get(&store, "a").await, get(&store, "c").await];
    let store = harness.reopen(store).await;
    assert_eq!([get(&store, "a").await, get(&store, "c").await], before);
    assert_eq!(dues(&store, u64::MAX).await, [(5_000, "c".to_owned()), (60_000, "a".to_owned())]);
    let newest = write(&store, put("b", None, 1, None)).await;
    assert!(before.into_iter().flatten().all(|stored| stored.version < newest), "versions go on");
    assert_clean(&store).await;
}

pub(super) async fn a_snapshot_has_the_schedules<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    write(&store, put("b", None, 9_000, Some(3))).await;
    write(&store, put("a", None, 2, None)).await;
    let snapshot = store.snapshot().await.expect("a snapshot must succeed");
    let expected = [get(&store, "a").await, get(&store, "b").await];
    let found: Vec<_> = snapshot.schedules.iter().cloned().map(Some).collect();
    assert_eq!(found, expected, "by name, whole");
}
