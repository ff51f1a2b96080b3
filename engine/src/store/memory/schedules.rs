//! Schedules in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::id::ScheduleId;
use crate::store::{Damage, SchedulePut, StoreError, StoredSchedule};
use crate::time::Timestamp;

#[derive(Default)]
pub(super) struct Schedules {
    all: BTreeMap<ScheduleId, StoredSchedule>,
    due: BTreeSet<(Timestamp, ScheduleId)>,
    /// The last version that was given.
    version: u64,
}

impl Schedules {
    pub(super) fn put(&mut self, put: SchedulePut) -> Result<u64, StoreError> {
        let old = self.all.get(&put.id);
        put.check_version(old.map(|old| old.version))?;
        if let Some(at) = old.and_then(|old| old.due) {
            self.due.remove(&(at, put.id.clone()));
        }
        if let Some(at) = put.due {
            self.due.insert((at, put.id.clone()));
        }
        self.version += 1;
        let SchedulePut { id, record, due, .. } = put;
        let stored = StoredSchedule { id: id.clone(), version: self.version, due, record };
        self.all.insert(id, stored);
        Ok(self.version)
    }

    pub(super) fn remove(&mut self, id: &ScheduleId, version: u64) -> Result<(), StoreError> {
        let found = self.all.get(id).map_or(0, |old| old.version);
        if found != version || found == 0 {
            return Err(StoreError::ScheduleConflict { found });
        }
        if let Some(StoredSchedule { due: Some(at), .. }) = self.all.remove(id) {
            self.due.remove(&(at, id.clone()));
        }
        Ok(())
    }

    pub(super) fn get(&self, id: &ScheduleId) -> Option<StoredSchedule> {
        self.all.get(id).cloned()
    }

    pub(super) fn page(&self, after: Option<&ScheduleId>, limit: usize) -> Vec<StoredSchedule> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.all.range::<ScheduleId, _>((from, Bound::Unbounded));
        rest.take(limit).map(|(_, stored)| stored.clone()).collect()
    }

    pub(super) fn due(&self, until: Timestamp, limit: usize) -> Vec<(Timestamp, ScheduleId)> {
        self.due.iter().take_while(|(at, _)| *at <= until).take(limit).cloned().collect()
    }

    pub(super) fn len(&self) -> u64 {
        self.all.len() as u64
    }

    pub(super) fn verify(&self) -> Vec<Damage> {
        let dues = self.all.values().filter_map(|stored| Some((stored.due?, stored.id.clone())));
        if dues.collect::<BTreeSet<_>>() == self.due {
            return Vec::new();
        }
        vec![Damage {
            run: None,
            seq: None,
            what: "the due index of schedules does not agree with them".to_owned(),
        }]
    }
}
