//! The locks that all runs of a process share. A store that only one process owns needs no more than this table:
//! when the process ends, so do all attempts, and with them their locks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::graph::{LockMode, LockUse};
use crate::id::{LockName, RunId};

#[derive(Debug, Default)]
struct Held {
    shared: u32,
    exclusive: bool,
    by: Vec<RunId>,
}

/// Who holds what.
#[derive(Debug, Default)]
pub(crate) struct LockTable {
    held: Mutex<BTreeMap<LockName, Held>>,
    /// Counts locks given back, so that nobody who waits misses one.
    pub(crate) released: watch::Sender<u64>,
}

/// Locks held by one attempt; given back when dropped.
#[derive(Debug)]
pub(crate) struct LockGuard {
    table: Arc<LockTable>,
    run: RunId,
    locks: Vec<LockUse>,
}

impl LockTable {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<LockName, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all of them could be taken now.
    pub(crate) fn free(&self, locks: &[LockUse]) -> bool {
        let held = self.lock();
        locks.iter().all(|l| fits(held.get(&l.name), l.mode))
    }

    /// Takes all of them, or none.
    pub(crate) fn take(self: &Arc<Self>, run: &RunId, locks: &[LockUse]) -> Option<LockGuard> {
        let mut held = self.lock();
        if !locks.iter().all(|l| fits(held.get(&l.name), l.mode)) {
            return None;
        }
        for l in locks {
            let entry = held.entry(l.name.clone()).or_default();
            match l.mode {
                LockMode::Exclusive => entry.exclusive = true,
                LockMode::Shared => entry.shared += 1,
            }
            entry.by.push(run.clone());
        }
        Some(LockGuard { table: Arc::clone(self), run: run.clone(), locks: locks.to_vec() })
    }

    /// Runs that hold a lock, for `why`.
    pub(crate) fn holders(&self, name: &LockName) -> Vec<RunId> {
        self.lock().get(name).map(|h| h.by.clone()).unwrap_or_default()
    }
}

fn fits(held: Option<&Held>, mode: LockMode) -> bool {
    held.is_none_or(|h| !h.exclusive && (mode == LockMode::Shared || h.shared == 0))
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if self.locks.is_empty() {
            return;
        }
        let mut held = self.table.lock();
        for l in &self.locks {
            let Some(entry) = held.get_mut(&l.name) else { continue };
            match l.mode {
                LockMode::Exclusive => entry.exclusive = false,
                LockMode::Shared => entry.shared -= 1,
            }
            if let Some(at) = entry.by.iter().position(|r| *r == self.run) {
                entry.by.remove(at);
            }
            if entry.by.is_empty() {
                held.remove(&l.name);
            }
        }
        drop(held);
        self.table.released.send_modify(|n| *n += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(mode: LockMode) -> Vec<LockUse> {
        vec![LockUse { name: LockName::new("dss").unwrap(), mode }]
    }

    #[test]
    fn shared_and_exclusive() {
        let table = Arc::new(LockTable::default());
        let run = RunId::new("r").unwrap();
        let a = table.take(&run, &lock(LockMode::Shared)).unwrap();
        let b = table.take(&run, &lock(LockMode::Shared)).unwrap();
        assert!(table.take(&run, &lock(LockMode::Exclusive)).is_none());
        drop(a);
        assert!(!table.free(&lock(LockMode::Exclusive)));
        drop(b);
        let _alone = table.take(&run, &lock(LockMode::Exclusive)).unwrap();
        assert!(table.take(&run, &lock(LockMode::Shared)).is_none());
        assert_eq!(table.holders(&LockName::new("dss").unwrap()), [run]);
    }
}
