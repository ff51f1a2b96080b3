//! One store, one virtual clock and the code of a process, over as many lives of that process as a test needs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::event::{Event, EventKind, Request};
use crate::id::{RunId, StepName, StoreId};
use crate::run::view::{Awaited, RunView, view};
use crate::run::{RunStatus, Verb};
use crate::runtime::clock::TokioClock;
use crate::runtime::{Engine, EngineBuilder, EngineError, RunHandle, StartRun, history, load};
use crate::store::memory::MemoryStore;
use crate::testing::faults::{Faults, Faulty};
use crate::testing::wire::{Commit, Crash, LifeStore, Plan};
use crate::time::Timestamp;

/// When the virtual clock starts.
const BEGIN: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// A run that does not stand after so much virtual time is told to be stuck.
const LIMIT: Duration = Duration::from_hours(24 * 400);
/// A run that does not stand after so many lives never will.
const MAX_LIVES: u64 = 1_000;
/// A run that has written so many events writes without end.
const MAX_EVENTS: u64 = 200_000;
/// How often the events written are looked at while a run is waited for.
const LOOK: Duration = Duration::from_hours(24);

/// Why a lab could not bring a run to where it stands.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The run neither ended nor stood still: it waits for something that nobody does, or goes round in circles.
    #[error("run {run} is {status} and neither ends nor stands still{}", awaits.as_ref().map(|s| format!("; step {s} waits for somebody")).unwrap_or_default())]
    Stuck {
        /// The run.
        run: RunId,
        /// Where it is.
        status: RunStatus,
        /// A step that waits for somebody's decision or signal; see [`Lab::operator`].
        awaits: Option<StepName>,
    },
    /// The process crashed over and over.
    #[error("run {run} did not come to stand in {MAX_LIVES} lives of the process")]
    TooManyLives {
        /// The run.
        run: RunId,
    },
}

/// How one life's work on a run ended.
#[derive(Debug, Clone)]
pub enum End {
    /// The run has ended or stands still.
    Stood(Box<RunView>),
    /// The process crashed first.
    Crashed,
}

impl End {
    /// The run as it stands.
    ///
    /// # Panics
    /// When the process crashed.
    pub fn stood(self) -> RunView {
        match self {
            Self::Stood(view) => *view,
            Self::Crashed => panic!("the process crashed before the run stood"),
        }
    }

    /// Whether the process crashed.
    pub fn is_crash(&self) -> bool {
        matches!(self, Self::Crashed)
    }
}

/// A step that waits for somebody.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepName,
    /// What it waits for.
    pub awaits: Awaited,
}

type Code<'a> = Box<dyn Fn(EngineBuilder) -> EngineBuilder + 'a>;
type Operator<'a> = Box<dyn Fn(&Waiting) -> Option<Verb> + 'a>;

/// A place to run workflows in: a [`MemoryStore`], a virtual clock, and the code of a process, which can crash and come
/// back on the same store. See [`testing`](super).
///
/// A lab lives on the caller's tokio runtime, a current-thread one whose time is paused: then time moves by itself
/// whenever nothing else can happen. `#[tokio::test(start_paused = true)]` makes one.
pub struct Lab<'a> {
    code: Code<'a>,
    operator: Option<Operator<'a>>,
    base: Arc<MemoryStore>,
    clock: Arc<TokioClock>,
    plan: Arc<Plan>,
    faults: Faults,
    seed: u64,
    runs: AtomicU32,
    life: Mutex<Option<Life>>,
}

#[derive(Clone)]
struct Life {
    engine: Engine,
    token: CancellationToken,
}

impl std::fmt::Debug for Lab<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lab({} events, {} crashes)", self.plan.events(), self.plan.crashes())
    }
}

enum Does {
    Start(Box<StartRun>),
    Resume(RunId),
    Rollback(RunId),
    Act(RunId, Verb),
}

impl<'a> Lab<'a> {
    /// A lab for a process that builds its engine with `code`: called once for each life, with a builder that has the
    /// lab's store and clock already. Its activities are wrapped, so that they stop with their process.
    ///
    /// Must be made inside a tokio runtime.
    pub fn new(code: impl Fn(EngineBuilder) -> EngineBuilder + 'a) -> Self {
        Self {
            code: Box::new(code),
            operator: None,
            base: Arc::new(MemoryStore::new(StoreId::generate([7; 16]))),
            clock: Arc::new(TokioClock::starting_at(BEGIN)),
            plan: Arc::default(),
            faults: Faults::new(),
            seed: 0,
            runs: AtomicU32::new(0),
            life: Mutex::new(None),
        }
    }

    /// Takes these faults.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// The seed of the chance in retry delays. Default 0. A seed that the code sets itself wins.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Who decides at gates and sends signals: asked for every step that waits for somebody, answers with what to do.
    #[must_use]
    pub fn operator(mut self, operator: impl Fn(&Waiting) -> Option<Verb> + 'a) -> Self {
        self.operator = Some(Box::new(operator));
        self
    }

    /// Lets the process crash right after event `n` is durable and before anybody is told. Events are counted over all
    /// runs of the lab, from 1. A transition of several events is written as a whole: it crashes at its end.
    pub fn crash_after_event(&self, n: u64) {
        self.crash_at(Crash::AfterEvent(n));
    }

    /// Lets the process crash right before the transition with event `n` is written: what the process did is done, and
    /// nothing tells it.
    pub fn crash_before_event(&self, n: u64) {
        self.crash_at(Crash::BeforeEvent(n));
    }

    /// Lets the process crash there, in place of an earlier plan that has not come to pass.
    pub fn crash_at(&self, crash: Crash) {
        self.plan.crash_at(crash);
    }

    /// A crash that was planned and has not come to pass.
    pub fn crash_to_come(&self) -> Option<Crash> {
        self.plan.crash_to_come()
    }

    /// Ends the present life at once, as a crash would.
    pub fn crash(&self) {
        if let Some(life) = self.present().clone() {
            self.bury(&life);
        }
    }

    /// Crashes so far.
    pub fn crashes(&self) -> u64 {
        self.plan.crashes()
    }

    /// Every transition that is durable, in order.
    pub fn commits(&self) -> Vec<Commit> {
        self.plan.commits()
    }

    /// The faults.
    pub fn the_faults(&self) -> &Faults {
        &self.faults
    }

    /// The data, to look at from outside of any process.
    pub fn store(&self) -> &Arc<MemoryStore> {
        &self.base
    }

    /// The virtual clock.
    pub fn clock(&self) -> &Arc<TokioClock> {
        &self.clock
    }

    /// The engine of the present life; begins one when there is none. Do not keep it over a crash.
    pub fn engine(&self) -> Engine {
        self.alive().engine
    }

    /// The history of a run.
    ///
    /// # Errors
    /// When there is no such run or it cannot be read.
    pub async fn history(&self, run: &RunId) -> Result<Vec<Event>, EngineError> {
        history(self.base.as_ref(), run, 0).await
    }

    /// A run as it is stored.
    ///
    /// # Errors
    /// When there is no such run or it cannot be read.
    pub async fn view(&self, run: &RunId) -> Result<RunView, EngineError> {
        Ok(view(&load(self.base.as_ref(), run).await?))
    }

    /// Starts a run and waits until it stands, or the process crashes. A run without an id gets `lab-1`, `lab-2`, ...
    ///
    /// # Errors
    /// When the engine refuses, or the run never stands.
    pub async fn start(&self, start: StartRun) -> Result<End, LabError> {
        self.one_life(Does::Start(Box::new(self.named(start)))).await
    }

    /// Drives a run on until it stands, or the process crashes.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub async fn resume(&self, run: &RunId) -> Result<End, LabError> {
        self.one_life(Does::Resume(run.clone())).await
    }

    /// Takes a run back until it stands, or the process crashes.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub async fn rollback(&self, run: &RunId) -> Result<End, LabError> {
        self.one_life(Does::Rollback(run.clone())).await
    }

    /// Does what an operator wants, and waits until the run stands, or the process crashes.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub async fn act(&self, run: &RunId, verb: Verb) -> Result<End, LabError> {
        self.one_life(Does::Act(run.clone(), verb)).await
    }

    /// Starts a run and resumes it after every crash, until it stands.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub async fn run(&self, start: StartRun) -> Result<RunView, LabError> {
        let start = self.named(start);
        let run = start.id.clone().expect("named a moment ago");
        let mut end = self.one_life(Does::Start(Box::new(start.clone()))).await?;
        for _ in 0..MAX_LIVES {
            if let End::Stood(view) = end {
                return Ok(*view);
            }
            end = match self.view(&run).await {
                Err(EngineError::NoSuchRun(_)) => self.start(start.clone()).await?,
                Err(error) => return Err(error.into()),
                Ok(view) if stands(&view) => return Ok(view),
                Ok(_) => self.resume(&run).await?,
            };
        }
        Err(LabError::TooManyLives { run })
    }

    /// Drives a run on and resumes it after every crash, until it stands.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub async fn run_on(&self, run: &RunId) -> Result<RunView, LabError> {
        for _ in 0..MAX_LIVES {
            if let End::Stood(view) = self.resume(run).await? {
                return Ok(*view);
            }
            let view = self.view(run).await?;
            if stands(&view) {
                return Ok(view);
            }
        }
        Err(LabError::TooManyLives { run: run.clone() })
    }

    /// Takes a run back, and goes on after every crash, until it is taken back or stands on the way.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub async fn take_back(&self, run: &RunId) -> Result<RunView, LabError> {
        for _ in 0..MAX_LIVES {
            if let End::Stood(view) = self.rollback(run).await? {
                return Ok(*view);
            }
            let view = self.view(run).await?;
            if view.rolling_back && stands(&view) {
                return Ok(view);
            }
        }
        Err(LabError::TooManyLives { run: run.clone() })
    }

    fn named(&self, mut start: StartRun) -> StartRun {
        if start.id.is_none() {
            let number = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
            start.id = Some(RunId::new(format!("lab-{number}")).expect("letters and digits"));
        }
        start
    }

    fn present(&self) -> MutexGuard<'_, Option<Life>> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present life, or a new one.
    fn alive(&self) -> Life {
        let present = self.present().clone().filter(|life| !life.token.is_cancelled());
        if let Some(life) = present {
            return life;
        }
        let token = CancellationToken::new();
        let store = LifeStore { base: self.base.reopen(), life: token.clone(), plan: Arc::clone(&self.plan) };
        let clock: Arc<TokioClock> = Arc::clone(&self.clock);
        let engine = (self.code)(Engine::builder(Arc::new(store)).clock(clock)).build();
        let (inner, resources) = (Arc::clone(&engine.inner), engine.resources.clone());
        drop(engine);
        let mut inner = Arc::into_inner(inner).expect("an engine that was just built drives nothing");
        inner.options.seed.get_or_insert(self.seed);
        inner.activities.wrap(|name, code| {
            let (faults, life) = (self.faults.clone(), token.clone());
            Arc::new(Faulty { name: name.clone(), inner: code, faults, life })
        });
        let life = Life { engine: Engine::owner(Arc::new(inner), resources), token };
        *self.present() = Some(life.clone());
        life
    }

    /// Ends a life. Its drivers find the store closed; nothing of it acts any more.
    fn bury(&self, life: &Life) {
        life.token.cancel();
        life.engine.stop();
        self.plan.crashed();
        self.present().take();
    }

    async fn one_life(&self, does: Does) -> Result<End, LabError> {
        let life = self.alive();
        let end = tokio::select! {
            biased;
            () = life.token.cancelled() => None,
            end = self.work(&life, does) => Some(end),
        };
        match end {
            Some(end) if !life.token.is_cancelled() => end.map(|view| End::Stood(Box::new(view))),
            Some(_) | None => {
                self.bury(&life);
                Ok(End::Crashed)
            }
        }
    }

    /// Does one thing and waits until the run stands, answering for those who are waited for.
    async fn work(&self, life: &Life, does: Does) -> Result<RunView, LabError> {
        let engine = &life.engine;
        let mut published = engine.subscribe();
        let request = Request::by("lab");
        let (run, handle) = match does {
            Does::Start(start) => {
                let handle = engine.start(*start).await?;
                (handle.id().clone(), Some(handle))
            }
            Does::Resume(run) => {
                let handle = engine.resume(&run, request).await?;
                (run, Some(handle))
            }
            Does::Rollback(run) => {
                let handle = engine.rollback(&run, Vec::new(), request).await?;
                (run, Some(handle))
            }
            Does::Act(run, verb) => {
                let handle = engine.act(&run, verb, request).await?.handle;
                (run, handle)
            }
        };
        let Some(handle) = handle else { return Ok(engine.view(&run).await?) };
        let begin = tokio::time::Instant::now();
        self.answer(engine).await?;
        loop {
            tokio::select! {
                biased;
                stood = handle.wait() => return Ok(stood?),
                batch = published.recv() => match batch {
                    Ok((_, events)) if !events.iter().any(|event| begins_to_wait(&event.kind)) => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => self.answer(engine).await?,
                    Err(RecvError::Closed) => return Ok(handle.wait().await?),
                },
                () = tokio::time::sleep(LOOK) => {}
            }
            if begin.elapsed() > LIMIT || self.plan.events() > MAX_EVENTS {
                return Err(self.stuck(&handle).await?);
            }
        }
    }

    async fn stuck(&self, handle: &RunHandle) -> Result<LabError, EngineError> {
        let view = handle.status().await?;
        let awaits = view.steps.iter().find(|step| matters(step.awaits.as_ref()).is_some());
        let awaits = awaits.map(|step| step.step.clone());
        Ok(LabError::Stuck { run: view.run, status: view.status, awaits })
    }

    /// Lets the operator answer for every step that waits for somebody.
    async fn answer(&self, engine: &Engine) -> Result<(), EngineError> {
        let Some(operator) = &self.operator else { return Ok(()) };
        for run in engine.live_runs() {
            for step in engine.view(&run).await?.steps {
                let Some(awaits) = matters(step.awaits.as_ref()) else { continue };
                let waiting = Waiting { run: run.clone(), step: step.step, awaits: awaits.clone() };
                let Some(verb) = operator(&waiting) else { continue };
                match engine.act(&run, verb, Request::by("operator")).await {
                    // Between the look and the answer the wait may be over.
                    Ok(_) | Err(EngineError::Illegal { .. } | EngineError::NotLive(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// What somebody has to do, and not an hour that comes by itself.
fn matters(awaits: Option<&Awaited>) -> Option<&Awaited> {
    awaits.filter(|awaits| !matches!(awaits, Awaited::Time))
}

fn begins_to_wait(kind: &EventKind) -> bool {
    matches!(kind, EventKind::WaitStarted { .. } | EventKind::RunRecovered { .. })
}

/// Whether nothing happens any more unless somebody asks.
fn stands(view: &RunView) -> bool {
    view.status.is_end() || view.status == RunStatus::Paused
}
