//! Who drives which run of a store that several workers share.
//!
//! Epochs never repeat. A claim that changes hands gets one more than the larger of the store's epoch and the
//! highest that the run ever had, so it is higher than any that an earlier owner may still name; and a store that is
//! opened again starts above all of them ([`Leases::highest`]). What a run had is therefore kept when its claim ends.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{RunId, WorkerId};
use crate::store::{Claim, StoreError};
use crate::time::Timestamp;

#[derive(Default)]
struct Owner {
    /// The highest epoch the run ever had.
    epoch: u64,
    /// Who drives it; `None` once released.
    worker: Option<WorkerId>,
}

/// The claims on runs and the leases behind them.
#[derive(Default)]
pub(super) struct Leases {
    /// When each worker's lease is over.
    workers: BTreeMap<WorkerId, Timestamp>,
    runs: BTreeMap<RunId, Owner>,
}

impl Leases {
    pub(super) fn claim(
        &mut self,
        store_epoch: u64,
        run: &RunId,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Claim, StoreError> {
        let owner = self.runs.entry(run.clone()).or_default();
        if owner.worker.as_ref() != Some(worker) {
            if let Some(by) = &owner.worker
                && let Some(until) = self.workers.get(by).copied().filter(|until| now < *until)
            {
                return Err(StoreError::Held { by: by.clone(), until });
            }
            owner.epoch = owner.epoch.max(store_epoch) + 1;
            owner.worker = Some(worker.clone());
        }
        let epoch = owner.epoch;
        Ok(Claim { epoch, until: self.renew(worker, now, ttl) })
    }

    /// Of two answers that overtook each other the later end counts: a worker relies on what it was told.
    pub(super) fn renew(&mut self, worker: &WorkerId, now: Timestamp, ttl: Duration) -> Timestamp {
        let until = self.workers.entry(worker.clone()).or_default();
        *until = (*until).max(now + ttl);
        *until
    }

    pub(super) fn release(&mut self, run: &RunId, worker: &WorkerId) {
        if let Some(owner) = self.runs.get_mut(run).filter(|owner| owner.worker.as_ref() == Some(worker)) {
            owner.worker = None;
        }
    }

    /// Whether a commit of the run under this epoch may go on. Time plays no part in it.
    pub(super) fn check(&self, store_epoch: u64, run: &RunId, epoch: u64) -> Result<(), StoreError> {
        match self.runs.get(run) {
            Some(Owner { epoch: current, worker: Some(_) }) if *current == epoch => Ok(()),
            Some(Owner { epoch, worker: Some(_) }) => Err(StoreError::Fenced { epoch: *epoch }),
            unclaimed => {
                let last = unclaimed.map_or(0, |owner| owner.epoch);
                Err(StoreError::Fenced { epoch: last.max(store_epoch) + 1 })
            }
        }
    }

    /// Ends every claim and lease.
    pub(super) fn end_all(&mut self) {
        self.workers.clear();
        for owner in self.runs.values_mut() {
            owner.worker = None;
        }
    }

    /// The highest epoch that any run ever had.
    pub(super) fn highest(&self) -> u64 {
        self.runs.values().map(|owner| owner.epoch).max().unwrap_or(0)
    }
}
