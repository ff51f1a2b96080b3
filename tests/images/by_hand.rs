//! Activities called by hand, without an engine: contexts whose ledger is in memory and keeps all it was told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dssflow_engine::activity::{
    ActivityContext, ActivityResult, ContextInner, Recorded, Recorder, Resource, Resources,
};
use dssflow_engine::id::{RunId, StepName, StoreId};
use dssflow_engine::runtime::clock::SystemClock;
use dssflow_engine::time::BoxFuture;
use serde_json::Value;
use tokio::sync::Notify;

/// The ledger of one step.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    told: Mutex<Told>,
    beat: Notify,
}

#[derive(Debug, Default)]
struct Told {
    recorded: Recorded,
    beats: Vec<Value>,
    /// From the first resource of this kind on, nothing that is recorded ever becomes durable.
    hangs_at: Option<String>,
}

impl Ledger {
    /// What was recorded.
    pub(crate) fn recorded(&self) -> Recorded {
        self.lock().recorded.clone()
    }

    /// Every heartbeat's details.
    pub(crate) fn beats(&self) -> Vec<Value> {
        self.lock().beats.clone()
    }

    /// All it was told, as one text.
    pub(crate) fn text(&self) -> String {
        let told = self.lock();
        let recorded = serde_json::to_string(&told.recorded).expect("it is plain data");
        format!("{recorded} {}", Value::Array(told.beats.clone()))
    }

    /// Lets the next record of a resource of this kind hang for ever, without having been written: as a crash would.
    pub(crate) fn hang_at(&self, kind: &str) {
        self.lock().hangs_at = Some(kind.to_owned());
    }

    /// Waits until something was told.
    pub(crate) async fn told(&self) {
        self.beat.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().expect("nobody panics while it is held")
    }
}

impl Recorder for Ledger {
    fn resource(&self, resource: Resource) -> BoxFuture<'_, ActivityResult<()>> {
        let mut told = self.lock();
        if told.hangs_at.as_ref() == Some(&resource.kind) {
            drop(told);
            self.beat.notify_one();
            return Box::pin(std::future::pending());
        }
        told.recorded.resources.push(resource);
        Box::pin(async { Ok(()) })
    }

    fn before(&self, values: BTreeMap<String, Value>) -> BoxFuture<'_, ActivityResult<()>> {
        let mut told = self.lock();
        for (key, value) in values {
            told.recorded.before.entry(key).or_insert(value);
        }
        Box::pin(async { Ok(()) })
    }

    fn heartbeat(&self, details: Value) {
        self.lock().beats.push(details);
        self.beat.notify_one();
    }
}

/// Makes contexts.
#[derive(Clone, Default)]
pub(crate) struct Hand {
    /// What is injected into each.
    pub(crate) resources: Resources,
}

impl Hand {
    /// A context of a step of `run`, with its ledger. Store 1 is ours.
    pub(crate) fn ctx(&self, store: u8, run: &str, step: &str) -> (ActivityContext, Arc<Ledger>) {
        let ledger = Arc::new(Ledger::default());
        (self.ctx_with(store, run, step, &ledger), ledger)
    }

    /// The next attempt of a step whose ledger is there.
    pub(crate) fn ctx_with(&self, store: u8, run: &str, step: &str, ledger: &Arc<Ledger>) -> ActivityContext {
        ActivityContext::new(ContextInner {
            store: StoreId::generate([store; 16]),
            site: "lab".into(),
            run: RunId::new(run).expect("a run id"),
            step: StepName::new(step).expect("a step name"),
            attempt: 1,
            generation: 1,
            deadline: None,
            last_heartbeat: None,
            cancel: Default::default(),
            stop: Default::default(),
            fence: None,
            recorder: Arc::<Ledger>::clone(ledger),
            resources: self.resources.clone(),
            clock: Arc::new(SystemClock),
            kept: Vec::new(),
        })
    }
}
