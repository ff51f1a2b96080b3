//! What an attempt knows, for activities that are called without an engine. Time jumps: a sleep ends at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dssflow_engine::activity::{
    ActivityContext, ActivityResult, ContextInner, Recorded, Recorder, Resource, Resources,
};
use dssflow_engine::id::{RunId, StepName, StoreId};
use dssflow_engine::time::{BoxFuture, Clock, Timestamp};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// What a step recorded.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) recorded: Mutex<Recorded>,
    pub(crate) heartbeats: Mutex<Vec<Value>>,
}

impl Recorder for Ledger {
    fn resource(&self, resource: Resource) -> BoxFuture<'_, ActivityResult<()>> {
        self.recorded.lock().expect("no panic inside").resources.push(resource);
        Box::pin(async { Ok(()) })
    }

    fn before(&self, values: BTreeMap<String, Value>) -> BoxFuture<'_, ActivityResult<()>> {
        let mut recorded = self.recorded.lock().expect("no panic inside");
        for (key, value) in values {
            recorded.before.entry(key).or_insert(value);
        }
        Box::pin(async { Ok(()) })
    }

    fn heartbeat(&self, details: Value) {
        self.heartbeats.lock().expect("no panic inside").push(details);
    }
}

/// A clock on which ten milliseconds are as long as a sleep.
#[derive(Default)]
struct Jumping(Arc<Mutex<u64>>);

impl Clock for Jumping {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(*self.0.lock().expect("no panic inside"))
    }

    fn sleep_until(&self, until: Timestamp) -> BoxFuture<'static, ()> {
        let clock = Arc::clone(&self.0);
        Box::pin(async move {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            let mut now = clock.lock().expect("no panic inside");
            *now = (*now).max(until.as_millis());
        })
    }
}

/// A step of a run.
pub(crate) fn context(step: &str, resources: Resources) -> (ActivityContext, Arc<Ledger>) {
    let ledger = Arc::new(Ledger::default());
    let ctx = ActivityContext::new(ContextInner {
        store: StoreId::generate([7; 16]),
        site: "test".to_owned(),
        run: RunId::new("test-ssh").expect("a good name"),
        step: StepName::new(step).expect("a good name"),
        attempt: 1,
        generation: 1,
        deadline: None,
        last_heartbeat: None,
        cancel: CancellationToken::new(),
        stop: Arc::default(),
        fence: None,
        recorder: Arc::clone(&ledger) as Arc<dyn Recorder>,
        resources,
        clock: Arc::new(Jumping::default()),
        kept: Vec::new(),
    });
    (ctx, ledger)
}
