//! The store of one process life: passes everything on to the memory store below, until the process crashes at a
//! planned event. After that it does nothing more for that life.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::event;
use crate::id::RunId;
use crate::store::layer::Layer;
use crate::store::memory::MemoryStore;
use crate::store::{
    GraphHash, Head, ListPage, ListQuery, Record, Store, StoreError, Transition, VerifyReport,
};
use crate::time::{BoxFuture, Timestamp};

/// Where a process crashes. Events are counted over all runs of the store, from 1; for a store with one run that is
/// the event's own number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Right before the transition with this event is written: what the process did is not recorded.
    BeforeEvent(u64),
    /// Right after the transition with this event is durable: nobody is told so.
    AfterEvent(u64),
}

impl Crash {
    fn event(self) -> u64 {
        match self {
            Self::BeforeEvent(n) | Self::AfterEvent(n) => n,
        }
    }
}

impl std::fmt::Display for Crash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BeforeEvent(n) => write!(f, "crash_before_event({n})"),
            Self::AfterEvent(n) => write!(f, "crash_after_event({n})"),
        }
    }
}

/// One durable transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The run.
    pub run: RunId,
    /// Number of its first event, counted over all runs of the store.
    pub first: u64,
    /// Number of its last event.
    pub last: u64,
    /// For people: its events, as `attempt_succeeded of pay`.
    pub what: String,
}

/// What outlives the lives: the crashes to come, and what was written.
#[derive(Debug, Default)]
pub(super) struct Plan {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    crash: Option<Crash>,
    crashes: u64,
    events: u64,
    commits: Vec<Commit>,
}

impl Plan {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn crash_at(&self, crash: Crash) {
        self.lock().crash = Some(crash);
    }

    pub(super) fn crash_to_come(&self) -> Option<Crash> {
        self.lock().crash
    }

    pub(super) fn crashed(&self) {
        self.lock().crashes += 1;
    }

    pub(super) fn crashes(&self) -> u64 {
        self.lock().crashes
    }

    pub(super) fn commits(&self) -> Vec<Commit> {
        self.lock().commits.clone()
    }

    pub(super) fn events(&self) -> u64 {
        self.lock().events
    }
}

/// The store of one life.
pub(super) struct LifeStore {
    pub(super) base: MemoryStore,
    pub(super) life: CancellationToken,
    pub(super) plan: Arc<Plan>,
}

fn dead() -> StoreError {
    StoreError::Poisoned("the process has crashed".to_owned())
}

impl LifeStore {
    fn check_alive(&self) -> Result<(), StoreError> {
        if self.life.is_cancelled() { Err(dead()) } else { Ok(()) }
    }

    fn commit_now(&self, transition: Transition) -> Result<u64, StoreError> {
        self.check_alive()?;
        let mut plan = self.plan.lock();
        let first = plan.events + 1;
        let last = plan.events + u64::from(transition.events);
        let crash = plan.crash.filter(|crash| (first..=last).contains(&crash.event()));
        if crash.is_some() {
            plan.crash = None;
        }
        if matches!(crash, Some(Crash::BeforeEvent(_))) {
            self.life.cancel();
            return Err(dead());
        }
        let (run, what) = (transition.run.clone(), words(&transition));
        let written = self.base.commit(transition).now_or_never().expect("a store in memory never waits");
        let seq = written?;
        plan.events = last;
        plan.commits.push(Commit { run, first, last, what });
        if crash.is_some() {
            self.life.cancel();
            return Err(dead());
        }
        Ok(seq)
    }
}

/// What a transition holds, for people.
fn words(transition: &Transition) -> String {
    // Only the numbers of the events matter to `decode`, and the first one tells the others.
    let first = match transition.expect {
        crate::store::Expect::New => 1,
        crate::store::Expect::At { seq } => seq + 1,
    };
    let events = event::decode(first, &transition.record).unwrap_or_default();
    let words: Vec<String> = events
        .iter()
        .map(|event| {
            let kind = serde_json::to_value(&event.kind).unwrap_or_default();
            let kind = kind["type"].as_str().unwrap_or("event").to_owned();
            event.kind.step().map_or(kind.clone(), |step| format!("{kind} of {step}"))
        })
        .collect();
    words.join(", ")
}

impl Layer for LifeStore {
    fn base(&self) -> &dyn Store {
        &self.base
    }

    fn commit(&self, transition: Transition) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { self.commit_now(transition) })
    }

    fn load<'a>(&'a self, run: &'a RunId, after: u64) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(async move {
            self.check_alive()?;
            self.base.load(run, after).await
        })
    }

    fn head<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Option<Head>, StoreError>> {
        Box::pin(async move {
            self.check_alive()?;
            self.base.head(run).await
        })
    }

    fn graph<'a>(&'a self, hash: &'a GraphHash) -> BoxFuture<'a, Result<Vec<u8>, StoreError>> {
        Box::pin(async move {
            self.check_alive()?;
            self.base.graph(hash).await
        })
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<ListPage, StoreError>> {
        Box::pin(async move {
            self.check_alive()?;
            self.base.list(query).await
        })
    }

    fn due(
        &self,
        until: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, RunId)>, StoreError>> {
        Box::pin(async move {
            self.check_alive()?;
            self.base.due(until, limit).await
        })
    }

    fn verify(&self) -> BoxFuture<'_, Result<VerifyReport, StoreError>> {
        Box::pin(async move {
            self.check_alive()?;
            self.base.verify().await
        })
    }
}
