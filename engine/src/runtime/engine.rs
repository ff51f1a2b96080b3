//! The handle: start, resume, roll back, pause, cancel, look.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::activity::{ActivityRegistry, Resources};
use crate::event::{self, CancelMode, DecodeError, EVENT_FORMAT, Event, EventKind, Request};
use crate::graph::{Graph, GraphError, StepKind};
use crate::id::{RunId, StepName, WorkflowName};
use crate::run::resolve::FunctionRegistry;
use crate::run::state::Halt;
use crate::run::view::{RunView, view};
use crate::run::{IllegalEvent, RunOptions, RunState, RunStatus, apply, create};
use crate::runtime::SystemClock;
use crate::runtime::driver::{Ask, Asked, Driver};
use crate::runtime::locks::LockTable;
use crate::store::{ListPage, ListQuery, Store, StoreError};
use crate::time::Clock;

/// Why the engine did not do as asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The store refused or failed.
    #[error("{}{error}", run.as_ref().map(|r| format!("run {r}: ")).unwrap_or_default())]
    Store {
        /// The run concerned.
        run: Option<RunId>,
        /// Why.
        error: StoreError,
    },
    /// There is no such run.
    #[error("run {0} is not in the store")]
    NoSuchRun(RunId),
    /// The run is driven from this engine already.
    #[error("run {0} is being driven already")]
    Live(RunId),
    /// The run is not driven from here, so it cannot be told anything.
    #[error("run {0} is not being driven")]
    NotLive(RunId),
    /// A step names an activity that was not registered.
    #[error("activity {activity}, which run {run} needs, is not registered")]
    MissingActivity {
        /// The run.
        run: RunId,
        /// The activity.
        activity: String,
    },
    /// A binding names a function that was not registered.
    #[error("function {function}, which run {run} needs, is not registered")]
    MissingFunction {
        /// The run.
        run: RunId,
        /// The function.
        function: String,
    },
    /// A literal input does not fit its activity.
    #[error("the input of step {step} does not fit activity {activity}: {why}")]
    InputMismatch {
        /// The step.
        step: StepName,
        /// The activity.
        activity: String,
        /// Why.
        why: String,
    },
    /// The run's state does not allow it.
    #[error("run {run} does not allow that: {why}")]
    Illegal {
        /// The run.
        run: RunId,
        /// Why.
        why: String,
    },
    /// The history cannot be read.
    #[error("run {run} cannot be read: {error}")]
    History {
        /// The run.
        run: RunId,
        /// Why.
        error: DecodeError,
    },
    /// The history contradicts itself.
    #[error("the history of run {run} is damaged: {error}")]
    Replay {
        /// The run.
        run: RunId,
        /// Where.
        error: IllegalEvent,
    },
    /// The stored graph cannot be read.
    #[error("the graph of run {run} cannot be read: {error}")]
    Graph {
        /// The run.
        run: RunId,
        /// Why.
        error: GraphError,
    },
    /// The driver ended without an answer, because the engine stopped or a task was lost.
    #[error("run {0} was let go before it ended; it can be resumed")]
    Dropped(RunId),
}

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
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { heartbeat_throttle: Duration::from_secs(5), pause_grace: Duration::from_secs(10), seed: None }
    }
}

/// A run to start.
#[derive(Debug, Clone)]
pub struct StartRun {
    /// Its id; generated when not given.
    pub id: Option<RunId>,
    /// The workflow's name.
    pub workflow: WorkflowName,
    /// The workflow's version.
    pub version: u32,
    /// What a set of runs builds and owns together; empty for none.
    pub site: String,
    /// What to do.
    pub graph: Graph,
    /// What it is given, without secrets.
    pub input: Value,
    /// How it behaves.
    pub options: RunOptions,
    /// Free words to find it by.
    pub labels: BTreeMap<String, String>,
    /// Who asks.
    pub request: Request,
}

impl StartRun {
    /// A run of `graph` with defaults for everything else.
    pub fn new(workflow: WorkflowName, graph: Graph) -> Self {
        Self {
            id: None,
            workflow,
            version: 1,
            site: String::new(),
            graph,
            input: Value::Null,
            options: RunOptions::default(),
            labels: BTreeMap::new(),
            request: Request::default(),
        }
    }
}

/// Events of one run, just become durable.
pub type Published = (RunId, Arc<Vec<Event>>);

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) activities: ActivityRegistry,
    pub(crate) functions: FunctionRegistry,
    pub(crate) options: EngineOptions,
    pub(crate) locks: Arc<LockTable>,
    events: broadcast::Sender<Published>,
    live: Mutex<BTreeMap<RunId, Live>>,
}

#[derive(Clone)]
struct Live {
    asks: mpsc::UnboundedSender<Asked>,
    ended: watch::Receiver<Option<Ended>>,
}

impl Live {
    /// Whether nobody drives it any more; a driver that panicked left no result.
    fn is_over(&self) -> bool {
        self.ended.borrow().is_some() || self.ended.has_changed().is_err()
    }
}

type Ended = Arc<Result<RunView, EngineError>>;

impl Inner {
    pub(crate) fn publish(&self, run: &RunId, events: Vec<Event>) {
        // Nobody listening is fine.
        drop(self.events.send((run.clone(), Arc::new(events))));
    }

    fn live(&self) -> std::sync::MutexGuard<'_, BTreeMap<RunId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Collects what an engine needs.
pub struct EngineBuilder {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    activities: ActivityRegistry,
    functions: FunctionRegistry,
    resources: Resources,
    options: EngineOptions,
}

impl EngineBuilder {
    /// Takes another clock than the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Gives the activities.
    #[must_use]
    pub fn activities(mut self, activities: ActivityRegistry) -> Self {
        self.activities = activities;
        self
    }

    /// Gives the functions that bindings name.
    #[must_use]
    pub fn functions(mut self, functions: FunctionRegistry) -> Self {
        self.functions = functions;
        self
    }

    /// Injects a thing for activities.
    #[must_use]
    pub fn resource<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.resources.insert(value);
        self
    }

    /// Sets options.
    #[must_use]
    pub fn options(mut self, options: EngineOptions) -> Self {
        self.options = options;
        self
    }

    /// Makes the engine. It starts nothing by itself; see [`Engine::recover`].
    pub fn build(self) -> Engine {
        let (events, _) = broadcast::channel(1024);
        Engine {
            inner: Arc::new(Inner {
                store: self.store,
                clock: self.clock,
                activities: self.activities,
                functions: self.functions,
                options: self.options,
                locks: Arc::new(LockTable::default()),
                events,
                live: Mutex::new(BTreeMap::new()),
            }),
            resources: self.resources,
            patience: 1.0,
        }
    }
}

/// The engine. Cheap to clone; all clones share their runs.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    resources: Resources,
    patience: f64,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({} live runs)", self.inner.live().len())
    }
}

/// A run that is being driven.
#[derive(Clone)]
pub struct RunHandle {
    run: RunId,
    live: Live,
}

impl std::fmt::Debug for RunHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RunHandle({})", self.run)
    }
}

impl RunHandle {
    /// The run.
    pub fn id(&self) -> &RunId {
        &self.run
    }

    /// Waits until the run has ended or stands still, and shows it then.
    ///
    /// # Errors
    /// When the store failed, or the engine was dropped first.
    pub async fn wait(&self) -> Result<RunView, EngineError> {
        let mut ended = self.live.ended.clone();
        let end = ended
            .wait_for(Option::is_some)
            .await
            .map_err(|_| EngineError::Dropped(self.run.clone()))?
            .clone();
        match end.as_deref() {
            Some(Ok(view)) => Ok(view.clone()),
            Some(Err(error)) => Err(error.clone()),
            None => Err(EngineError::Dropped(self.run.clone())),
        }
    }
}

impl Engine {
    /// Starts building an engine on `store`.
    pub fn builder(store: Arc<dyn Store>) -> EngineBuilder {
        EngineBuilder {
            store,
            clock: Arc::new(SystemClock),
            activities: ActivityRegistry::new(),
            functions: FunctionRegistry::default(),
            resources: Resources::default(),
            options: EngineOptions::default(),
        }
    }

    /// The same engine with other things injected, for runs started or resumed through the new handle.
    #[must_use]
    pub fn with_resources(&self, resources: Resources) -> Self {
        Self { inner: Arc::clone(&self.inner), resources, patience: self.patience }
    }

    /// The same engine with all waiting scaled, for runs started or resumed through the new handle: retry delays,
    /// settle times, polls, and the time activities see. 1 is as written; less is for a simulated world that is
    /// consistent and quick. Values under 0.001 count as 0.001, so that a retry is never a busy loop.
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

    /// Events of all runs from now on, each batch once it is durable. A slow reader that lags loses batches and is
    /// told so by the channel; the history has them.
    pub fn subscribe(&self) -> broadcast::Receiver<Published> {
        self.inner.events.subscribe()
    }

    /// Starts a run. It exists durably when this returns.
    ///
    /// # Errors
    /// When an activity is missing, a literal input does not fit, the id is taken, or the store fails. Nothing has
    /// started then.
    pub async fn start(&self, start: StartRun) -> Result<RunHandle, EngineError> {
        let now = self.inner.clock.now();
        let id = start.id.unwrap_or_else(|| RunId::generate(now, rand::random()));
        self.check_code(&id, &start.graph, true)?;
        if self.inner.store.head(&id).await.map_err(|e| in_run(&id, e))?.is_some() {
            return Err(EngineError::Store { run: Some(id.clone()), error: StoreError::Exists(id) });
        }
        let event = Event {
            seq: 1,
            at: now,
            kind: EventKind::RunCreated {
                format: EVENT_FORMAT,
                workflow: start.workflow,
                workflow_version: start.version,
                site: start.site,
                graph: start.graph.hash().clone(),
                input: start.input,
                options: start.options,
                labels: start.labels,
                request: start.request,
            },
        };
        let state = create(id.clone(), start.graph, &event)
            .map_err(|error| EngineError::Replay { run: id.clone(), error })?;
        self.launch(state, 0, |driver| {
            driver.created(event);
            Ok(())
        })
        .await
    }

    /// Drives a run on from where it is: after a crash, a pause, a failure. Failed steps get fresh budgets.
    ///
    /// # Errors
    /// When there is no such run, it is driven already, has ended for good, or cannot be read; or an activity is
    /// missing.
    pub async fn resume(&self, run: &RunId, request: Request) -> Result<RunHandle, EngineError> {
        self.drive_on(run, request, true).await
    }

    /// `wanted` is set when a person asks: a pause or failure that a crash cut short is over then.
    async fn drive_on(&self, run: &RunId, request: Request, wanted: bool) -> Result<RunHandle, EngineError> {
        let state = self.load_idle(run).await?;
        let seq = state.seq;
        self.launch(state, seq, |driver| {
            let state = driver.state();
            let stopped =
                state.paused.is_some() || wanted && matches!(state.halt, Some(Halt::Pause | Halt::Fail));
            match state.finished {
                None => {
                    driver.recover()?;
                    if stopped { driver.stage(EventKind::RunResumed { request }) } else { Ok(()) }
                }
                Some(RunStatus::RollbackStuck) => {
                    driver.recover()?;
                    driver.stage(EventKind::RollbackRetried { request })
                }
                Some(_) => driver.stage(EventKind::RunResumed { request }),
            }
        })
        .await
    }

    /// Turns a run round: takes back everything it made. On a run that is stuck, tries again what failed. A run that
    /// is being driven is cancelled with rollback.
    ///
    /// # Errors
    /// As [`Engine::resume`]; a run that is rolled back already is [`EngineError::Illegal`], and so is `keep` for a
    /// run that is being driven or goes backwards already: nothing is silently deleted that should stay.
    pub async fn rollback(
        &self,
        run: &RunId,
        keep: Vec<StepName>,
        request: Request,
    ) -> Result<RunHandle, EngineError> {
        let refuse_keep = || EngineError::Illegal {
            run: run.clone(),
            why: "what to keep can only be said of a run that stands still and goes forward; pause it first"
                .to_owned(),
        };
        if let Some(handle) = self.handle(run) {
            if !keep.is_empty() {
                return Err(refuse_keep());
            }
            self.ask(run, Ask::Cancel(CancelMode::Rollback, request)).await?;
            return Ok(handle);
        }
        let state = self.load_idle(run).await?;
        let seq = state.seq;
        self.launch(state, seq, |driver| {
            let (finished, rolling_back, paused) = {
                let s = driver.state();
                (s.finished, s.rolling_back, s.paused.is_some())
            };
            if rolling_back && !keep.is_empty() {
                return Err(refuse_keep());
            }
            if finished == Some(RunStatus::RollbackStuck) {
                driver.recover()?;
                return driver.stage(EventKind::RollbackRetried { request });
            }
            if finished.is_none() {
                driver.recover()?;
            }
            if rolling_back && finished.is_none() {
                return if paused { driver.stage(EventKind::RunResumed { request }) } else { Ok(()) };
            }
            driver.stage(EventKind::RollbackStarted { keep, request })
        })
        .await
    }

    /// Drives on every run that was running when its owner ended. Runs that cannot be driven are told with their
    /// reason and do not stop the others.
    ///
    /// # Errors
    /// When the runs cannot be listed.
    pub async fn recover(&self) -> Result<Recovered, EngineError> {
        let statuses =
            vec![RunStatus::Pending, RunStatus::Running, RunStatus::Waiting, RunStatus::RollingBack];
        let mut found = Recovered::default();
        let mut cursor = None;
        loop {
            let query = ListQuery { statuses: statuses.clone(), cursor, ..ListQuery::default() };
            let page = self.list(query).await?;
            for summary in page.runs {
                match self.drive_on(&summary.run, Request::by("recovery"), false).await {
                    Ok(handle) => found.runs.push(handle),
                    Err(EngineError::Live(_)) => {}
                    Err(error) => found.parked.push((summary.run, error)),
                }
            }
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(found);
            }
        }
    }

    /// Asks a driven run to pause. Returns when the request is durable; [`RunHandle::wait`] tells when it stands.
    ///
    /// # Errors
    /// When the run is not driven from here.
    pub async fn pause(&self, run: &RunId, request: Request) -> Result<(), EngineError> {
        self.ask(run, Ask::Pause(request)).await
    }

    /// Asks a driven run to end.
    ///
    /// # Errors
    /// When the run is not driven from here.
    pub async fn cancel(&self, run: &RunId, mode: CancelMode, request: Request) -> Result<(), EngineError> {
        self.ask(run, Ask::Cancel(mode, request)).await
    }

    /// Lets go of every run at once, as a crash would; each can be resumed.
    pub fn stop(&self) {
        for live in self.inner.live().values() {
            drop(live.asks.send(Asked { ask: Ask::Stop, done: None }));
        }
    }

    /// The handle of a run that is being driven from here.
    pub fn handle(&self, run: &RunId) -> Option<RunHandle> {
        let live = self.inner.live().get(run).cloned()?;
        if live.is_over() { None } else { Some(RunHandle { run: run.clone(), live }) }
    }

    /// Runs that are being driven from here.
    pub fn live_runs(&self) -> Vec<RunId> {
        self.inner.live().iter().filter(|(_, l)| !l.is_over()).map(|(run, _)| run.clone()).collect()
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

    /// Runs that hold a lock now, as far as this process knows.
    pub fn lock_holders(&self, lock: &crate::id::LockName) -> Vec<RunId> {
        self.inner.locks.holders(lock)
    }

    async fn load_idle(&self, run: &RunId) -> Result<RunState, EngineError> {
        if self.handle(run).is_some() {
            return Err(EngineError::Live(run.clone()));
        }
        let state = self.load(run).await?;
        self.check_code(run, &state.graph, false)?;
        Ok(state)
    }

    /// Everything the graph names must be there before anything starts.
    fn check_code(&self, run: &RunId, graph: &Graph, inputs: bool) -> Result<(), EngineError> {
        for step in graph.steps() {
            let StepKind::Activity { activity, input } = &step.kind else { continue };
            let Some(code) = self.inner.activities.get(activity) else {
                return Err(EngineError::MissingActivity {
                    run: run.clone(),
                    activity: activity.to_string(),
                });
            };
            let mut missing = None;
            for binding in std::iter::once(input).chain(&step.when) {
                binding.functions(&mut |name| {
                    if !self.inner.functions.contains(name) {
                        missing.get_or_insert(name.to_owned());
                    }
                });
            }
            if let Some(function) = missing {
                return Err(EngineError::MissingFunction { run: run.clone(), function });
            }
            if let crate::graph::Binding::Literal { value } = input
                && inputs
                && let Err(why) = code.check_input(value)
            {
                return Err(EngineError::InputMismatch {
                    step: step.name.clone(),
                    activity: activity.to_string(),
                    why,
                });
            }
        }
        Ok(())
    }

    async fn launch(
        &self,
        state: RunState,
        committed: u64,
        prepare: impl FnOnce(&mut Driver) -> Result<(), EngineError>,
    ) -> Result<RunHandle, EngineError> {
        let run = state.id.clone();
        let (asks, receiver) = mpsc::unbounded_channel();
        let seed = self.inner.options.seed.map_or_else(rand::random, |seed| {
            // Each run its own stream, the same for the same seed and run.
            run.as_str().bytes().fold(seed, |a, b| a.wrapping_mul(0x0100_0000_01b3) ^ u64::from(b))
        });
        let inner = Arc::clone(&self.inner);
        let mut driver =
            Driver::new(inner, self.resources.clone(), state, committed, receiver, seed, self.patience);
        prepare(&mut driver)?;
        let (ended_to, ended) = watch::channel(None);
        let live = Live { asks, ended };
        {
            let mut all = self.inner.live();
            if all.get(&run).is_some_and(|l| !l.is_over()) {
                return Err(EngineError::Live(run));
            }
            all.insert(run.clone(), live.clone());
        }
        let inner = Arc::downgrade(&self.inner);
        let (first_to, first) = oneshot::channel();
        let name = run.clone();
        tokio::spawn(async move {
            let result = driver.drive(first_to).await;
            ended_to.send_replace(Some(Arc::new(result)));
            if let Some(inner) = inner.upgrade() {
                // A later drive of the same run may have taken the place.
                let mut all = inner.live();
                if all.get(&name).is_some_and(|l| l.ended.borrow().is_some()) {
                    all.remove(&name);
                }
            }
        });
        let handle = RunHandle { run, live };
        // The first transition is durable, or the drive has failed and says why.
        if first.await.is_err() {
            handle.wait().await?;
        }
        Ok(handle)
    }

    async fn ask(&self, run: &RunId, ask: Ask) -> Result<(), EngineError> {
        let handle = self.handle(run).ok_or_else(|| EngineError::NotLive(run.clone()))?;
        let (done, answer) = oneshot::channel();
        handle
            .live
            .asks
            .send(Asked { ask, done: Some(done) })
            .map_err(|_| EngineError::NotLive(run.clone()))?;
        answer.await.map_err(|_| EngineError::NotLive(run.clone()))?
    }
}

/// What [`Engine::recover`] found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Runs that go on.
    pub runs: Vec<RunHandle>,
    /// Runs that cannot, with why.
    pub parked: Vec<(RunId, EngineError)>,
}

fn in_run(run: &RunId, error: StoreError) -> EngineError {
    EngineError::Store { run: Some(run.clone()), error }
}

/// The history of a run after event `after`, from any store.
///
/// # Errors
/// When there is no such run or it cannot be read.
pub async fn history(store: &dyn Store, run: &RunId, after: u64) -> Result<Vec<Event>, EngineError> {
    if store.head(run).await.map_err(|e| in_run(run, e))?.is_none() {
        return Err(EngineError::NoSuchRun(run.clone()));
    }
    let mut events = Vec::new();
    for record in store.load(run, after).await.map_err(|e| in_run(run, e))? {
        let decoded = event::decode(record.first_seq, &record.bytes)
            .map_err(|error| EngineError::History { run: run.clone(), error })?;
        events.extend(decoded.into_iter().filter(|e| e.seq > after));
    }
    Ok(events)
}

/// The state of a run by replay, from any store.
///
/// # Errors
/// When there is no such run, or its history or graph cannot be read.
pub async fn load(store: &dyn Store, run: &RunId) -> Result<RunState, EngineError> {
    let events = history(store, run, 0).await?;
    let replay = |error| EngineError::Replay { run: run.clone(), error };
    let Some((first, rest)) = events.split_first() else {
        return Err(EngineError::NoSuchRun(run.clone()));
    };
    let EventKind::RunCreated { graph: hash, .. } = &first.kind else {
        return Err(replay(IllegalEvent {
            seq: first.seq,
            why: "a history starts with run_created".to_owned(),
        }));
    };
    let bytes = store.graph(hash).await.map_err(|e| in_run(run, e))?;
    let graph = Graph::decode(&bytes).map_err(|error| EngineError::Graph { run: run.clone(), error })?;
    let mut state = create(run.clone(), graph, first).map_err(replay)?;
    for event in rest {
        apply(&mut state, event).map_err(replay)?;
    }
    Ok(state)
}
