//! A store that crashes its process at a chosen commit, refuses others, and takes time to acknowledge. Under it lies
//! the engine's memory store; what a crash may leave behind is exactly what that one holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dssflow_engine::id::StoreId;
use dssflow_engine::store::layer::Layer;
use dssflow_engine::store::memory::MemoryStore;
use dssflow_engine::store::{Expect, ListQuery, Store, StoreError, Transition};
use dssflow_engine::time::BoxFuture;
use futures::FutureExt;

use crate::chance::Chance;
use crate::journal::{Journal, Written};
use crate::life::Life;

/// What happens to one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The process ends before the write.
    CrashBefore,
    /// It is written, and the process ends before it is told.
    CrashAfter,
    /// The process ends in the middle of a slow write, of which nothing is left; others acted meanwhile.
    Torn,
    /// Refused; nothing is written.
    Refused,
    /// Written, but the answer is that nobody knows.
    Unknown,
}

impl Trouble {
    /// The crashes.
    pub const CRASHES: [Self; 3] = [Self::CrashBefore, Self::CrashAfter, Self::Torn];
}

/// Deliberate mistakes, to see that the harness notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Acknowledges at once and writes 50 ms later: a crash loses an acknowledged tail.
    AcknowledgesEarly,
    /// Says yes to every third commit of the run and forgets it at a crash, with all that follows.
    LosesTail,
}

#[derive(Default)]
struct Plan {
    commits: u64,
    troubles: BTreeMap<u64, Trouble>,
    fired: BTreeMap<Trouble, u64>,
    limit: u64,
    overrun: bool,
    sabotage: Option<Sabotage>,
}

/// What outlives the process: the data, and the plan of troubles.
pub struct Disk {
    base: Mutex<Arc<MemoryStore>>,
    plan: Mutex<Plan>,
    journal: Arc<Journal>,
    chance: Mutex<Chance>,
    slow: bool,
}

impl Disk {
    /// An empty disk. `slow` commits take some milliseconds now and then, so that others act meanwhile.
    pub fn new(id: StoreId, journal: Arc<Journal>, chance: Chance, slow: bool) -> Self {
        Self {
            base: Mutex::new(Arc::new(MemoryStore::new(id))),
            plan: Mutex::new(Plan { limit: 50_000, ..Plan::default() }),
            journal,
            chance: Mutex::new(chance),
            slow,
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans trouble at commit number `at`, from 1, counted over all lives.
    pub fn trouble_at(&self, at: u64, trouble: Trouble) {
        self.plan().troubles.insert(at, trouble);
    }

    /// Makes the store break its promise.
    pub fn sabotage(&self, sabotage: Sabotage) {
        self.plan().sabotage = Some(sabotage);
    }

    /// Counts a commit; `None` when there were too many.
    fn next_commit(&self) -> Option<(Option<Trouble>, Option<Sabotage>)> {
        let mut plan = self.plan();
        plan.commits += 1;
        if plan.commits > plan.limit {
            plan.overrun = true;
            return None;
        }
        let n = plan.commits;
        let trouble = plan.troubles.remove(&n);
        if let Some(trouble) = trouble {
            *plan.fired.entry(trouble).or_default() += 1;
        }
        Some((trouble, plan.sabotage))
    }

    /// Commits so far.
    pub fn commits(&self) -> u64 {
        self.plan().commits
    }

    /// Troubles that took place.
    pub fn fired(&self) -> BTreeMap<Trouble, u64> {
        self.plan().fired.clone()
    }

    /// Whether a run wrote without end.
    pub fn overrun(&self) -> bool {
        self.plan().overrun
    }

    /// Opens it for a new process.
    pub fn open(self: &Arc<Self>, life: &Life) -> CrashStore {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        *base = Arc::new(base.reopen());
        let left = everything(&base).now_or_never().expect("a store in memory answers at once");
        self.journal.replace(left.unwrap_or_default());
        CrashStore {
            disk: Arc::clone(self),
            base: Arc::clone(&base),
            life: life.clone(),
            early: Arc::default(),
        }
    }

    /// A reader without an owner.
    pub fn look(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.base.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All records of all runs.
async fn everything(base: &MemoryStore) -> Result<Vec<Written>, StoreError> {
    let mut found = Vec::new();
    for summary in base.list(ListQuery::default()).await?.runs {
        let records = base.load(&summary.run, 0).await?;
        found.extend(records.into_iter().map(|r| (summary.run.to_string(), r.first_seq, r.bytes)));
    }
    Ok(found)
}

/// The store of one life.
pub struct CrashStore {
    disk: Arc<Disk>,
    base: Arc<MemoryStore>,
    life: Life,
    /// Sabotage: acknowledged and not written.
    early: Arc<Mutex<Vec<Transition>>>,
}

impl CrashStore {
    async fn commit_with_trouble(&self, transition: Transition) -> Result<u64, StoreError> {
        if self.life.is_over() {
            return std::future::pending().await;
        }
        let Some((trouble, sabotage)) = self.disk.next_commit() else {
            self.life.end();
            return std::future::pending().await;
        };
        let first = match transition.expect {
            Expect::New => 1,
            Expect::At { seq } => seq + 1,
        };
        match trouble {
            Some(Trouble::CrashBefore) => {
                self.life.end();
                return std::future::pending().await;
            }
            Some(Trouble::Torn) => {
                tokio::time::sleep(Duration::from_millis(400)).await;
                self.life.end();
                return std::future::pending().await;
            }
            Some(Trouble::Refused) => {
                return Err(StoreError::Unavailable("refused by the simulation".to_owned()));
            }
            Some(Trouble::CrashAfter | Trouble::Unknown) | None => {}
        }
        if let Some(sabotage) = sabotage {
            return Ok(self.sabotaged(sabotage, transition, first, trouble).await);
        }
        let (run, record) = (transition.run.to_string(), transition.record.clone());
        let seq = self.base.commit(transition).await?;
        match trouble {
            Some(Trouble::CrashAfter) => {
                self.life.end();
                return std::future::pending().await;
            }
            Some(Trouble::Unknown) => {
                self.disk.journal.durable(&run, first, record);
                return Err(StoreError::Unknown("by the simulation".to_owned()));
            }
            _ => {}
        }
        if self.disk.slow {
            let ms = {
                let mut chance = self.disk.chance.lock().unwrap_or_else(PoisonError::into_inner);
                if chance.percent(70) { 0 } else { chance.between(1, 12) }
            };
            if ms > 0 {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                if self.life.is_over() {
                    return std::future::pending().await;
                }
            }
        }
        self.disk.journal.durable(&run, first, record);
        Ok(seq)
    }

    /// Breaks the promise: says yes and keeps the transition in memory, where a crash finds it.
    async fn sabotaged(
        &self,
        sabotage: Sabotage,
        transition: Transition,
        first: u64,
        trouble: Option<Trouble>,
    ) -> u64 {
        let seq = first - 1 + u64::from(transition.events);
        let crash = trouble == Some(Trouble::CrashAfter);
        match sabotage {
            Sabotage::AcknowledgesEarly => {
                let waiting: Vec<Transition> = std::mem::take(&mut *self.lock_early());
                for t in waiting {
                    let first = match t.expect {
                        Expect::New => 1,
                        Expect::At { seq } => seq + 1,
                    };
                    let (run, record) = (t.run.to_string(), t.record.clone());
                    // A conflict means that the tail was lost before: the harness will say so.
                    if self.base.commit(t).await.is_ok() {
                        self.disk.journal.durable(&run, first, record);
                    }
                }
                self.lock_early().push(transition);
            }
            Sabotage::LosesTail => {
                // Keeps a window of three transitions in memory; the journal's reader is fooled as well.
                self.disk.journal.durable(transition.run.as_str(), first, transition.record.clone());
                let out = {
                    let mut early = self.lock_early();
                    early.push(transition);
                    if early.len() > 3 { Some(early.remove(0)) } else { None }
                };
                if let Some(t) = out {
                    let _kept = self.base.commit(t).await;
                }
            }
        }
        if crash {
            self.life.end();
            return std::future::pending().await;
        }
        seq
    }

    fn lock_early(&self) -> MutexGuard<'_, Vec<Transition>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Layer for CrashStore {
    fn base(&self) -> &dyn Store {
        &*self.base
    }

    fn commit(&self, transition: Transition) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.commit_with_trouble(transition))
    }
}
