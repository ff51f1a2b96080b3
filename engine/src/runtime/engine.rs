//! The handle: look, listen, let go.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::activity::{ActivityRegistry, Fence, Resources, check_payload};
use crate::event::{ActivityShapes, Event};
use crate::graph::{Binding, Graph, StepKind};
use crate::id::{ActivityName, RunId, ScheduleId, StepName, WorkerId, WorkflowName};
use crate::run::RunState;
use crate::run::resolve::FunctionRegistry;
use crate::run::view::{RunView, view};
use crate::runtime::admission::{Admission, Obstacle};
use crate::runtime::builder::{EngineBuilder, Migration};
use crate::runtime::driver::{Ask, Asked, Driver, Parts, Reach};
pub use crate::runtime::error::EngineError;
pub use crate::runtime::handle::RunHandle;
use crate::runtime::lease::{self, LeaseEnd, LeaseFence};
use crate::runtime::load::in_run;
pub use crate::runtime::load::{history, load};
use crate::runtime::metrics::{Measure, Metrics};
use crate::runtime::schedules::Launcher;
pub use crate::runtime::start::StartRun;
use crate::store::{ListPage, ListQuery, Store, StoreError};
use crate::time::Clock;
use crate::workflow::Definition;

/// Settings of an engine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineOptions {
    /// How often an attempt's heartbeat becomes durable at most. Default 5 s.
    pub heartbeat_throttle: Duration,
    /// How long attempts may go on after a pause was asked for; what is left then counts as unknown. Default 10 s.
    pub pause_grace: Duration,
    /// Seed of the chance in retry delays; drawn when not set.
    pub seed: Option<u64>,
    /// A run that was recovered so often without a step getting on is paused, not recovered again. Default 5.
    pub crash_loop_cap: u32,
    /// How long this engine's lease lasts on a store that several share; it is renewed three times as often. Default 15 s.
    pub lease_ttl: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            heartbeat_throttle: Duration::from_secs(5),
            pause_grace: Duration::from_secs(10),
            seed: None,
            crash_loop_cap: 5,
            lease_ttl: lease::LEASE_TTL,
        }
    }
}

/// Events of one run, just become durable.
pub type Published = (RunId, Arc<Vec<Event>>);

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) multi_worker: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) activities: ActivityRegistry,
    pub(crate) functions: FunctionRegistry,
    pub(crate) workflows: BTreeMap<WorkflowName, Definition>,
    pub(crate) migrations: BTreeMap<ActivityName, Migration>,
    pub(crate) options: EngineOptions,
    pub(crate) admission: Arc<Admission>,
    pub(crate) worker: WorkerId,
    pub(crate) lease_end: LeaseEnd,
    pub(crate) lease_kept: AtomicBool,
    pub(crate) metrics: Option<Arc<dyn Metrics>>,
    pub(crate) events: broadcast::Sender<Published>,
    pub(crate) launcher: Arc<dyn Launcher>,
    /// Schedules that were changed through this engine.
    pub(crate) touched: broadcast::Sender<ScheduleId>,
    pub(crate) live: Mutex<BTreeMap<RunId, Live>>,
    /// Set when the last handle is gone: nothing is driven any more.
    pub(crate) closed: AtomicBool,
}

#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) asks: mpsc::UnboundedSender<Asked>,
    pub(crate) ended: watch::Receiver<Option<Ended>>,
}

impl Live {
    /// Whether nobody drives it any more; a driver that panicked left no result.
    fn is_over(&self) -> bool {
        self.ended.borrow().is_some() || self.ended.has_changed().is_err()
    }
}

pub(crate) type Ended = Arc<Result<RunView, EngineError>>;

/// The place of a run among those that are driven. It is taken before anything is claimed, so that of two who want to
/// drive a run one is refused at once, and given back whatever becomes of the one who has it.
struct Place {
    inner: Arc<Inner>,
    run: RunId,
    live: Live,
    ended: watch::Sender<Option<Ended>>,
}

impl Place {
    fn take(inner: &Arc<Inner>, run: &RunId) -> Result<(Self, mpsc::UnboundedReceiver<Asked>), EngineError> {
        let (asks, receiver) = mpsc::unbounded_channel();
        let (ended_to, ended) = watch::channel(None);
        let live = Live { asks, ended };
        let mut all = inner.live();
        // Looked at while the others are locked out: who lets go of all runs finds this one, or it is not begun.
        if inner.closed.load(Ordering::SeqCst) {
            return Err(EngineError::Dropped(run.clone()));
        }
        if all.get(run).is_some_and(|l| !l.is_over()) {
            return Err(EngineError::Live(run.clone()));
        }
        all.insert(run.clone(), live.clone());
        drop(all);
        Ok((Self { inner: Arc::clone(inner), run: run.clone(), live, ended: ended_to }, receiver))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.inner.live();
        // A later drive of the same run may have taken the place.
        if all.get(&self.run).is_some_and(|l| l.asks.same_channel(&self.live.asks)) {
            all.remove(&self.run);
        }
    }
}

impl Inner {
    pub(crate) fn publish(&self, run: &RunId, events: Vec<Event>) {
        // Nobody listening is fine.
        drop(self.events.send((run.clone(), Arc::new(events))));
    }

    pub(crate) fn measure(&self, measure: &Measure<'_>) {
        if let Some(metrics) = &self.metrics {
            metrics.measure(measure);
        }
    }

    pub(crate) fn live(&self) -> std::sync::MutexGuard<'_, BTreeMap<RunId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lets attempts act under an epoch; nothing where leases never end.
    pub(crate) fn fence(&self, epoch: u64) -> Option<Arc<dyn Fence>> {
        self.multi_worker.then(|| {
            let (end, clock) = (self.lease_end.clone(), Arc::clone(&self.clock));
            Arc::new(LeaseFence::new(epoch, end, clock)) as Arc<dyn Fence>
        })
    }

    /// Lets go of every run at once, as a crash would.
    pub(crate) fn stop(&self) {
        self.stop_all_but(None);
    }

    fn stop_all_but(&self, but: Option<&RunId>) {
        for (_, live) in self.live().iter().filter(|(run, _)| Some(*run) != but) {
            drop(live.asks.send(Asked { ask: Ask::Stop, done: None }));
        }
    }

    /// Whether an output given by hand fits the type that the step's activity gives.
    pub(crate) fn check_output(
        &self,
        state: &RunState,
        step: &StepName,
        output: &serde_json::Value,
    ) -> Result<(), EngineError> {
        let Some(ix) = state.graph.index_of(step) else { return Ok(()) };
        let kind = &state.graph.step(ix).kind;
        let mismatch = |activity: &str, why: String| EngineError::OutputMismatch {
            step: step.clone(),
            activity: activity.to_owned(),
            why,
        };
        check_payload(output).map_err(|why| mismatch(kind.word(), format!("it {why}")))?;
        match kind {
            StepKind::Activity { activity, .. } => match self.activities.get(activity) {
                Some(code) => code.check_output(output).map_err(|why| mismatch(activity.as_str(), why)),
                None => Ok(()),
            },
            StepKind::Map { activity, .. } => {
                let items = output
                    .as_array()
                    .ok_or_else(|| mismatch(activity.as_str(), "a map gives a list".to_owned()))?;
                let Some(code) = self.activities.get(activity) else { return Ok(()) };
                items.iter().filter(|item| !item.is_null()).try_for_each(|item| {
                    code.check_output(item).map_err(|why| mismatch(activity.as_str(), why))
                })
            }
            StepKind::Gate { .. }
            | StepKind::Sleep { .. }
            | StepKind::Signal { .. }
            | StepKind::SubWorkflow { .. } => Ok(()),
        }
    }

    /// The shapes that the activities of a graph have now.
    pub(crate) fn shapes(&self, graph: &Graph) -> ActivityShapes {
        let named = graph.steps().iter().filter_map(|step| step.kind.activity());
        named.filter_map(|name| self.activities.get(name).map(|code| (name.clone(), code.shapes()))).collect()
    }
}

/// The engine. Cheap to clone; all clones share their runs. Runs go on until the last clone and the last [`RunHandle`]
/// are dropped; then they are let go, as after a crash, and can be resumed. It runs on the caller's tokio runtime.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
    pub(crate) resources: Resources,
    pub(crate) patience: f64,
    _alive: Option<Arc<Alive>>,
}

/// Lets go of all runs when the last handle is dropped.
struct Alive(Arc<Inner>);

impl Drop for Alive {
    fn drop(&mut self) {
        {
            let _others_wait = self.0.live();
            self.0.closed.store(true, Ordering::SeqCst);
        }
        self.0.stop();
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({} live runs)", self.inner.live().len())
    }
}

impl Engine {
    /// Starts building an engine on `store`.
    pub fn builder(store: Arc<dyn Store>) -> EngineBuilder {
        EngineBuilder::new(store)
    }

    pub(crate) fn owner(inner: Arc<Inner>, resources: Resources) -> Self {
        // A test kit takes apart an engine that was just built, and drops its first handle.
        inner.closed.store(false, Ordering::SeqCst);
        let alive = Some(Arc::new(Alive(Arc::clone(&inner))));
        Self { inner, resources, patience: 1.0, _alive: alive }
    }

    /// A handle for the engine's own use, which does not keep its runs going.
    pub(crate) fn of(inner: Arc<Inner>, resources: Resources, patience: f64) -> Self {
        Self { inner, resources, patience, _alive: None }
    }

    /// The same engine with other things injected, for runs started or resumed through the new handle.
    #[must_use]
    pub fn with_resources(&self, resources: Resources) -> Self {
        Self { resources, ..self.clone() }
    }

    /// The same engine with all waiting scaled, for runs started or resumed through the new handle: retry delays,
    /// settle times, polls, sleeps, limits of gates, and the time activities see. 1 is as written; less is for a
    /// simulated world that is consistent and quick. Values under 0.001 count as 0.001, so that a retry is never a busy
    /// loop.
    #[must_use]
    pub fn with_patience(&self, patience: f64) -> Self {
        Self { patience, ..self.clone() }
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// The activities.
    pub fn activities(&self) -> &ActivityRegistry {
        &self.inner.activities
    }

    /// Who this engine is to stores that several share.
    pub fn worker(&self) -> &WorkerId {
        &self.inner.worker
    }

    /// Events of all runs from now on, each batch once it is durable. A slow reader that lags loses batches and is
    /// told so by the channel; the history has them. [`RunHandle::events`] loses none.
    pub fn subscribe(&self) -> broadcast::Receiver<Published> {
        self.inner.events.subscribe()
    }

    /// Lets go of every run at once, as a crash would; each can be resumed.
    pub fn stop(&self) {
        self.inner.stop();
    }

    /// Runs that are being driven from here.
    pub fn live_runs(&self) -> Vec<RunId> {
        self.inner.live().iter().filter(|(_, l)| !l.is_over()).map(|(run, _)| run.clone()).collect()
    }

    /// The handle of a run that is being driven from here.
    pub fn handle(&self, run: &RunId) -> Option<RunHandle> {
        let live = self.inner.live().get(run).cloned()?;
        if live.is_over() { None } else { Some(RunHandle::new(self.clone(), run.clone(), live)) }
    }

    /// Shows a run, with live heartbeats when it is driven from here.
    ///
    /// # Errors
    /// When there is no such run or it cannot be read.
    pub async fn view(&self, run: &RunId) -> Result<RunView, EngineError> {
        if let Some(handle) = self.handle(run) {
            let (to, answer) = oneshot::channel();
            if handle.live.asks.send(Asked { ask: Ask::View(to), done: None }).is_ok()
                && let Ok(view) = answer.await
            {
                return Ok(view);
            }
        }
        Ok(view(&self.load(run).await?))
    }

    /// The history of a run after event `after`.
    ///
    /// # Errors
    /// When there is no such run or it cannot be read.
    pub async fn history(&self, run: &RunId, after: u64) -> Result<Vec<Event>, EngineError> {
        history(self.inner.store.as_ref(), run, after).await
    }

    /// The state of a run, by replay of its history.
    ///
    /// # Errors
    /// When there is no such run or it cannot be read.
    pub async fn load(&self, run: &RunId) -> Result<RunState, EngineError> {
        load(self.inner.store.as_ref(), run).await
    }

    /// A page of runs.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self, query: ListQuery) -> Result<ListPage, EngineError> {
        self.inner.store.list(query).await.map_err(|error| EngineError::Store { run: None, error })
    }

    /// Runs that hold a lock now, or a permit of a semaphore, as far as this process knows.
    pub fn lock_holders(&self, lock: &crate::id::LockName) -> Vec<RunId> {
        self.inner.admission.holders(lock)
    }

    /// How many steps, of all runs that are driven from here, could start and stand in line: for a lock, a permit, a rate
    /// or a slot.
    pub fn queued(&self) -> usize {
        self.inner.admission.waiting()
    }

    /// What keeps a step that may start from starting: locks, semaphores, rates, slots. Nothing when nothing does.
    ///
    /// # Errors
    /// When there is no such run or it cannot be read.
    pub async fn obstacles(&self, run: &RunId, step: &StepName) -> Result<Vec<Obstacle>, EngineError> {
        let state = self.load(run).await?;
        let Some(ix) = state.graph.index_of(step) else { return Ok(Vec::new()) };
        let now = self.inner.clock.now();
        Ok(match crate::runtime::driver::want(&state, &self.inner, ix) {
            Ok(want) => self.inner.admission.obstacles(&want, now),
            Err(_) => Vec::new(),
        })
    }

    /// Everything the graph names must be there before anything starts.
    pub(crate) fn check_code(&self, run: &RunId, graph: &Graph, inputs: bool) -> Result<(), EngineError> {
        for step in graph.steps() {
            let mut missing = None;
            let keys = step.locks.iter().filter_map(|l| l.key.as_ref());
            for binding in
                step.kind.bindings().into_iter().chain(&step.when).chain(keys).chain(graph.output())
            {
                binding.functions(&mut |name| {
                    if !self.inner.functions.contains(name) {
                        missing.get_or_insert(name.to_owned());
                    }
                });
            }
            if let Some(function) = missing {
                return Err(EngineError::MissingFunction { run: run.clone(), function });
            }
            if let StepKind::SubWorkflow { workflow, .. } = &step.kind
                && !self.inner.workflows.keys().any(|name| name.as_str() == workflow)
            {
                return Err(EngineError::MissingWorkflow { workflow: workflow.clone() });
            }
            let Some(activity) = step.kind.activity() else { continue };
            let Some(code) = self.inner.activities.get(activity) else {
                return Err(EngineError::MissingActivity {
                    run: run.clone(),
                    activity: activity.to_string(),
                });
            };
            let literal: Vec<&serde_json::Value> = match &step.kind {
                StepKind::Activity { input: Binding::Literal { value }, .. } => vec![value],
                StepKind::Map { items: Binding::Literal { value }, .. } => {
                    value.as_array().map(|items| items.iter().collect()).unwrap_or_default()
                }
                _ => Vec::new(),
            };
            for value in literal.into_iter().filter(|_| inputs) {
                code.check_input(value).map_err(|why| EngineError::InputMismatch {
                    step: step.name.clone(),
                    activity: activity.to_string(),
                    why,
                })?;
            }
        }
        Ok(())
    }

    /// Claims a run for this engine, and keeps its lease from then on.
    async fn claim(&self, run: &RunId) -> Result<u64, EngineError> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let claimed = inner.store.claim(run, &inner.worker, now, inner.options.lease_ttl).await;
        let claim = claimed.map_err(|error| match error {
            StoreError::Held { by, until } => EngineError::Held { run: run.clone(), by, until },
            error => in_run(run, error),
        })?;
        if inner.multi_worker {
            if !inner.lease_end.extend(now, claim.until) {
                // What was claimed before may be another's by now.
                inner.stop_all_but(Some(run));
            }
            if !inner.lease_kept.swap(true, Ordering::SeqCst) {
                tokio::spawn(lease::keep(Arc::downgrade(inner)));
            }
        }
        Ok(claim.epoch)
    }

    /// Drives a run. `prepare` stages what the drive starts with; when it fails nothing has happened.
    pub(crate) async fn launch(
        &self,
        state: RunState,
        committed: u64,
        reach: Reach,
        prepare: impl FnOnce(&mut Driver) -> Result<(), EngineError>,
    ) -> Result<RunHandle, EngineError> {
        let run = state.id.clone();
        let seed = self.inner.options.seed.map_or_else(rand::random, |seed| {
            // Each run its own stream, the same for the same seed and run.
            run.as_str().bytes().fold(seed, |a, b| a.wrapping_mul(0x0100_0000_01b3) ^ u64::from(b))
        });
        let (place, asks) = Place::take(&self.inner, &run)?;
        let epoch = self.claim(&run).await?;
        let fence = self.inner.fence(epoch);
        let mut driver = Driver::new(Parts {
            inner: Arc::clone(&self.inner),
            resources: self.resources.clone(),
            state,
            committed,
            asks,
            seed,
            patience: self.patience,
            epoch,
            fence,
            reach,
        });
        if let Err(error) = prepare(&mut driver) {
            drop(driver);
            // Nothing will be driven: another worker must not have to wait for our lease to end.
            let _gone = self.inner.store.release(&run, &self.inner.worker).await;
            return Err(error);
        }
        let live = place.live.clone();
        let (first_to, first) = oneshot::channel();
        let span = tracing::info_span!("run", run = %run, workflow = %driver.state().workflow);
        tokio::spawn(tracing::Instrument::instrument(drive(driver, place, first_to), span));
        let handle = RunHandle::new(self.clone(), run, live);
        // The first transition is durable, or the drive has failed and says why.
        if first.await.is_err() {
            handle.wait().await?;
        }
        Ok(handle)
    }

    /// Waits until a run that was started a moment ago is in the store, or its start has failed.
    pub(crate) async fn until_stored(&self, run: &RunId) -> Result<(), EngineError> {
        let mut published = self.subscribe();
        let Some(handle) = self.handle(run) else { return Ok(()) };
        while self.inner.store.head(run).await.map_err(|e| in_run(run, e))?.is_none() {
            tokio::select! {
                // Behind or not: the next look tells.
                _ = published.recv() => {}
                _ended = handle.wait() => return Ok(()),
            }
        }
        Ok(())
    }

    /// Tells a driven run something. When it answers that nobody drives it, that is so: its drive is wholly over, and
    /// whoever then wants to drive it is not refused because of it.
    pub(crate) async fn ask(&self, run: &RunId, ask: Ask) -> Result<(), EngineError> {
        let handle = self.handle(run).ok_or_else(|| EngineError::NotLive(run.clone()))?;
        let told = Self::tell(&handle, run, ask).await;
        if matches!(told, Err(EngineError::NotLive(_))) {
            // How it ended is for whoever waits for it.
            drop(handle.wait().await);
        }
        told
    }

    async fn tell(handle: &RunHandle, run: &RunId, ask: Ask) -> Result<(), EngineError> {
        let (done, answer) = oneshot::channel();
        handle
            .live
            .asks
            .send(Asked { ask, done: Some(done) })
            .map_err(|_| EngineError::NotLive(run.clone()))?;
        answer.await.map_err(|_| EngineError::NotLive(run.clone()))?
    }
}

/// Drives a run, lets go of it, and says how it ended.
async fn drive(driver: Driver, place: Place, first: oneshot::Sender<()>) {
    let (inner, run) = (&place.inner, &place.run);
    let driven = async {
        tracing::info!("the run is driven");
        let result = driver.drive(first).await;
        let status = result.as_ref().ok().map(|view| view.status);
        match &result {
            Ok(view) => {
                let why = view.paused.as_ref().map(|why| why.message.as_str());
                tracing::info!(status = %view.status, why, "the drive is over");
            }
            Err(error) => tracing::error!(%error, "the drive of the run failed"),
        }
        inner.measure(&Measure::DriveEnded { run, status });
        result
    };
    let driven = AssertUnwindSafe(driven).catch_unwind().await;
    // What panics here is the embedder's store or hook. The history is whole: the run can be driven on.
    let result = driven.unwrap_or_else(|_| {
        tracing::error!(%run, "the drive of the run panicked: it is let go");
        Err(EngineError::Dropped(run.clone()))
    });
    // Another worker need not wait for the lease to end. It may be gone already: then this changes nothing.
    // A store that hangs must not keep those waiting who want to know how it ended.
    tokio::select! {
        _gone = inner.store.release(run, &inner.worker) => {}
        () = tokio::time::sleep(inner.options.lease_ttl) => {}
    }
    place.ended.send_replace(Some(Arc::new(result)));
}
