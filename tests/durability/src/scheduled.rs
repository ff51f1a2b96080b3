//! What `storm` writes of schedules, and what a store must hold of them.
//!
//! Each writer has a schedule of its own, which follows from how many events the writer has written: some events carry a
//! change of it in the same transition, after others it is written or removed by itself. The engine has one schedule
//! whose instants are brought up by backfills.

use std::collections::BTreeMap;

use dssflow_engine::id::{RunId, ScheduleId};
use dssflow_engine::run::RunStatus;
use dssflow_engine::schedule::decode;
use dssflow_engine::store::{MAX_PAGE, SchedulePut, Store, StoreError, StoredSchedule, Transition};
use dssflow_engine::time::Timestamp;

use crate::work::{self, RUN_EVENTS};

/// The schedule of the engine's runs.
pub const ENGINE: &str = "tick";
/// Over 4 KiB, so that a schedule has several values; it has one value again later.
const LONG: usize = 9_000;

/// How a schedule changes with a writer's event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// In the transition of the event.
    With,
    /// By itself, after the event.
    Put,
    /// It is removed, after the event.
    Remove,
}

/// What comes with the event at this position: the first one of a writer is 1.
pub fn change(position: u64) -> Option<Change> {
    match position {
        p if p % 24 == 15 => Some(Change::Remove),
        p if p % 8 == 3 => Some(Change::Put),
        p if p % 4 == 0 && p > 0 => Some(Change::With),
        _ => None,
    }
}

/// The position of an event of a writer's run.
pub fn position(number: u64, seq: u64) -> u64 {
    number * RUN_EVENTS + seq
}

/// The position whose put the schedule holds after the event at `position`; `changed` says whether that one's change by
/// itself has been made.
pub fn held(position: u64, changed: bool) -> Option<u64> {
    for at in (1..=position).rev() {
        match change(at) {
            Some(Change::Put | Change::Remove) if at == position && !changed => {}
            Some(Change::With | Change::Put) => return Some(at),
            Some(Change::Remove) => return None,
            None => {}
        }
    }
    None
}

/// The schedule of a writer.
pub fn id(writer: u64) -> ScheduleId {
    ScheduleId::new(format!("s{writer}")).expect("a valid name")
}

fn put(writer: u64, position: u64, expect: Option<u64>) -> SchedulePut {
    let size = if position.is_multiple_of(16) { LONG } else { 200 };
    SchedulePut {
        id: id(writer),
        expect,
        record: work::text(&format!("s{writer}:{position}"), size).into_bytes(),
        due: (!position.is_multiple_of(3)).then(|| Timestamp::from_millis(position)),
    }
}

/// Whether a schedule is what a writer's put at this position wrote.
fn is_put(stored: &StoredSchedule, writer: u64, position: u64) -> bool {
    let put = put(writer, position, None);
    (&stored.record, stored.due) == (&put.record, put.due)
}

async fn version(store: &dyn Store, writer: u64) -> Result<Option<u64>, StoreError> {
    Ok(store.schedule(&id(writer)).await?.map(|stored| stored.version))
}

/// Adds to a transition the change that belongs to it.
///
/// # Errors
/// When the store fails.
pub async fn add(
    store: &dyn Store,
    writer: u64,
    position: u64,
    transition: &mut Transition,
) -> Result<(), StoreError> {
    if change(position) == Some(Change::With) {
        transition.schedule = Some(put(writer, position, version(store, writer).await?));
    }
    Ok(())
}

/// Makes the change by itself that comes after an event, unless it was made; what to print when there is one.
///
/// # Errors
/// When the store fails.
pub async fn follow(store: &dyn Store, writer: u64, position: u64) -> Result<Option<String>, StoreError> {
    let before = store.schedule(&id(writer)).await?;
    let version = before.as_ref().map(|stored| stored.version);
    match change(position) {
        Some(Change::Put) => {
            if !before.is_some_and(|stored| is_put(&stored, writer, position)) {
                store.put_schedule(put(writer, position, version), store.epoch()).await?;
            }
        }
        Some(Change::Remove) => {
            if let Some(version) = version {
                store.remove_schedule(&id(writer), version, store.epoch()).await?;
            }
        }
        Some(Change::With) | None => return Ok(None),
    }
    Ok(Some(format!("changed s{writer} {position}\n")))
}

/// The writer and the number of a run's name, if a writer wrote it.
fn writer_of(run: &RunId) -> Option<(u64, u64)> {
    let (writer, number) = run.as_str().strip_prefix('w')?.split_once('-')?;
    Some((writer.parse().ok()?, number.parse().ok()?))
}

/// What was acknowledged of schedules.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// For each writer's schedule, the last position whose change by itself was made.
    pub changed: BTreeMap<String, u64>,
    /// For each of the engine's, the highest version.
    pub versions: BTreeMap<String, u64>,
}

/// Compares the schedules of a store with its runs, by run the number of events found and how it stands, and with what
/// was acknowledged. Gives what is lost and what is wrong.
pub async fn check(
    store: &dyn Store,
    runs: &BTreeMap<RunId, (u64, RunStatus)>,
    told: &Told,
) -> (Vec<String>, Vec<String>) {
    let (mut lost, mut wrong) = (Vec::new(), Vec::new());
    let stored = match store.schedules(None, MAX_PAGE).await {
        Ok(stored) => stored,
        Err(error) => return (lost, vec![format!("schedules: {error}")]),
    };
    let mut due: Vec<_> =
        stored.iter().filter_map(|stored| stored.due.map(|at| (at, stored.id.clone()))).collect();
    due.sort();
    match store.due_schedules(Timestamp::MAX, MAX_PAGE).await {
        Ok(found) if found == due => {}
        other => wrong.push(format!("due schedules: {other:.200?}, they are {due:.200?}")),
    }
    let mut stored: BTreeMap<String, StoredSchedule> =
        stored.into_iter().map(|stored| (stored.id.to_string(), stored)).collect();
    let mut positions: BTreeMap<u64, u64> = BTreeMap::new();
    for (run, (events, _)) in runs {
        if let Some((writer, number)) = writer_of(run) {
            let last = positions.entry(writer).or_default();
            *last = position(number, *events).max(*last);
        }
    }
    for (writer, last) in positions {
        let name = format!("s{writer}");
        let found = stored.remove(&name);
        let is = |changed| match (held(last, changed), &found) {
            (None, None) => true,
            (Some(at), Some(stored)) => is_put(stored, writer, at),
            _ => false,
        };
        let acknowledged = told.changed.get(&name).is_some_and(|at| *at >= last);
        if is(true) || (is(false) && !acknowledged) {
            continue;
        }
        let what = found
            .as_ref()
            .map(|found| String::from_utf8_lossy(&found.record).chars().take(20).collect::<String>());
        let what = format!("schedule {name}: {what:?} after event {last}");
        if is(false) { lost.push(what) } else { wrong.push(what) }
    }
    for (name, version) in &told.versions {
        match stored.get(name) {
            Some(found) if found.version >= *version => {}
            found => lost.push(format!(
                "schedule {name}: version {version}, it is at {:?}",
                found.map(|found| found.version)
            )),
        }
    }
    for (name, found) in stored {
        match name.as_str() {
            ENGINE => wrong.extend(check_engine(&found, runs)),
            _ => wrong.push(format!("schedule {name}: nobody wrote it")),
        }
    }
    (lost, wrong)
}

/// A run that a schedule started, and the note that its instant has fired, are one change.
fn check_engine(found: &StoredSchedule, runs: &BTreeMap<RunId, (u64, RunStatus)>) -> Vec<String> {
    let state = match decode(&found.id, &found.record) {
        Ok(state) => state,
        Err(error) => return vec![format!("schedule {}: {error}", found.id)],
    };
    let prefix = format!("{ENGINE}-");
    let started: Vec<_> = runs.iter().filter(|(run, _)| run.as_str().starts_with(&prefix)).collect();
    let mut wrong = Vec::new();
    if state.counts.fired != started.len() as u64 {
        wrong.push(format!(
            "schedule {}: {} instants fired, {} runs",
            found.id,
            state.counts.fired,
            started.len()
        ));
    }
    let going: Vec<RunId> = state.running.iter().map(|running| running.run(&state.id)).collect();
    for (run, (_, status)) in started {
        if !status.is_end() && !going.contains(run) {
            wrong.push(format!("schedule {}: {run} is {status} and not among those that go on", found.id));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_what_the_last_change_made_of_it() {
        let all: Vec<_> = (1..=24).filter_map(|at| change(at).map(|change| (at, change))).collect();
        let with = [4, 8, 12, 16, 20, 24].map(|at| (at, Change::With));
        let alone = [(3, Change::Put), (11, Change::Put), (15, Change::Remove), (19, Change::Put)];
        let mut expected = [with.as_slice(), alone.as_slice()].concat();
        expected.sort_by_key(|(at, _)| *at);
        assert_eq!(all, expected);
        assert_eq!((held(2, true), held(3, false), held(3, true)), (None, None, Some(3)));
        assert_eq!((held(14, true), held(15, false), held(15, true)), (Some(12), Some(12), None));
        assert_eq!((held(16, false), held(18, true)), (Some(16), Some(16)));
    }
}
