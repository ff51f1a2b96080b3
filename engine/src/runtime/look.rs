//! Looking at the world without changing it: one probe, one read or one check at a time, under a limit on time and in a
//! context that records nothing and lets nothing be changed.
//!
//! What is found is for plans and for comparing a run with the world. It decides nothing in a run: a run looks for itself.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::activity::{
    ActivityContext, ActivityError, ActivityResult, ContextInner, ErasedActivity, Fence, Probe, Recorder,
    Resource,
};
use crate::id::{RunId, StepName};
use crate::runtime::clock::HurriedClock;
use crate::runtime::driver::MIN_PATIENCE;
use crate::runtime::engine::Engine;
use crate::runtime::worker::panic_text;
use crate::time::{BoxFuture, Clock};

/// How the world is looked at.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LookOptions {
    /// How long one look may take. Default 60 s.
    pub timeout: Duration,
    /// How many looks at once. Default 8.
    pub parallelism: usize,
}

impl Default for LookOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_mins(1), parallelism: 8 }
    }
}

/// Records nothing: what a look would write down is refused.
struct Blind;

fn only_looking() -> ActivityError {
    ActivityError::terminal(
        "OnlyLooking",
        "the world is only looked at: nothing is changed and nothing is recorded",
    )
    .no_effect()
}

impl Recorder for Blind {
    fn resource(&self, _: Resource) -> BoxFuture<'_, ActivityResult<()>> {
        Box::pin(async { Err(only_looking()) })
    }

    fn before(&self, _: BTreeMap<String, Value>) -> BoxFuture<'_, ActivityResult<()>> {
        Box::pin(async { Err(only_looking()) })
    }

    fn heartbeat(&self, _: Value) {}
}

impl Fence for Blind {
    fn epoch(&self) -> ActivityResult<u64> {
        Err(only_looking())
    }
}

/// Looks on behalf of one run.
pub(crate) struct Looker<'a> {
    engine: &'a Engine,
    run: RunId,
    site: String,
    timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl<'a> Looker<'a> {
    pub(crate) fn new(engine: &'a Engine, run: RunId, site: String, options: &LookOptions) -> Self {
        let mut clock: Arc<dyn Clock> = Arc::clone(&engine.inner.clock);
        if engine.patience < 1.0 {
            clock = Arc::new(HurriedClock::new(clock, engine.patience.max(MIN_PATIENCE)));
        }
        Self { engine, run, site, timeout: options.timeout, clock }
    }

    /// The site for which it looks.
    pub(crate) fn site(&self) -> &str {
        &self.site
    }

    /// The run for which it looks.
    pub(crate) fn run(&self) -> &RunId {
        &self.run
    }

    fn context(&self, step: &StepName, generation: u32, cancel: &CancellationToken) -> ActivityContext {
        ActivityContext::new(ContextInner {
            store: self.engine.inner.store.id(),
            site: self.site.clone(),
            run: self.run.clone(),
            step: step.clone(),
            attempt: 1,
            generation,
            deadline: None,
            last_heartbeat: None,
            cancel: cancel.clone(),
            stop: Arc::new(OnceLock::new()),
            fence: Some(Arc::new(Blind)),
            recorder: Arc::new(Blind),
            resources: self.engine.resources.clone(),
            clock: Arc::clone(&self.clock),
            kept: Vec::new(),
        })
    }

    /// Asks whether the effect of a step is there.
    pub(crate) async fn probe(
        &self,
        code: &dyn ErasedActivity,
        step: &StepName,
        generation: u32,
        input: &Value,
    ) -> ActivityResult<Probe<Value>> {
        let cancel = CancellationToken::new();
        let ctx = self.context(step, generation, &cancel);
        self.within(code.probe(&ctx, input), &cancel).await
    }

    /// Does a read for its output.
    pub(crate) async fn read(
        &self,
        code: &dyn ErasedActivity,
        step: &StepName,
        input: &Value,
    ) -> ActivityResult<Value> {
        let cancel = CancellationToken::new();
        let ctx = self.context(step, 1, &cancel);
        self.within(code.execute(&ctx, input), &cancel).await
    }

    /// Checks the post-condition of a step.
    pub(crate) async fn verify(
        &self,
        code: &dyn ErasedActivity,
        step: &StepName,
        generation: u32,
        input: &Value,
        output: &Value,
    ) -> ActivityResult<()> {
        let cancel = CancellationToken::new();
        let ctx = self.context(step, generation, &cancel);
        self.within(code.verify(&ctx, input, output), &cancel).await
    }

    async fn within<T>(
        &self,
        look: BoxFuture<'_, ActivityResult<T>>,
        cancel: &CancellationToken,
    ) -> ActivityResult<T> {
        let look = AssertUnwindSafe(look).catch_unwind();
        let ended = tokio::time::timeout(self.timeout, look).await;
        match ended {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => Err(ActivityError::terminal("Panic", panic_text(&panic)).no_effect()),
            Err(_) => {
                cancel.cancel();
                let message = format!("the look did not end within {:?}", self.timeout);
                Err(ActivityError::retryable("Timeout", message).no_effect())
            }
        }
    }
}
