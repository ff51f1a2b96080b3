//! One life of a process that drives a run, and the moment at which it dies.
//!
//! A process dies at a write of its store, before or after it, or while the world carries out a call of it. From that
//! moment on its store refuses everything and its attempts are dropped, with their connections and children.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dssflow_engine::archive::{self, ArchiveReader, CopyOptions, Purpose, PutOptions};
use dssflow_engine::event::{self, EventKind, Phase, Request};
use dssflow_engine::graph::Graph;
use dssflow_engine::id::{RunId, StepName, StoreId, WorkflowName};
use dssflow_engine::run::view::{RunView, view};
use dssflow_engine::run::{OnTrouble, RunOptions, Verb};
use dssflow_engine::runtime::{history, load};
use dssflow_engine::store::layer::Layer;
use dssflow_engine::store::memory::MemoryStore;
use dssflow_engine::store::{Expect, Store, StoreError, Transition};
use dssflow_engine::time::{BoxFuture, Timestamp};
use dssflow_engine::{Engine, EngineError, StartRun};
use dssflow_sandbox::Fault;
use tokio::sync::Notify;

use crate::world::{Tamper, World};

/// Longer than any step takes in a sandbox without latency, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A moment of the step under test, in what the store is given to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// Its first intent.
    Started,
    /// The so-manieth resource or old value, from 0.
    Recorded(u32),
    /// It is done.
    Done,
    /// The intent to take it back.
    UndoStarted,
    /// It is taken back.
    Undone,
}

/// When the process dies.
#[derive(Debug, Clone)]
pub(crate) enum Cut {
    Never,
    /// Right before this is written.
    Before(Moment),
    /// Right after this is durable, and before anybody is told.
    After(Moment),
    /// When this fault strikes; it must let the call hang.
    Struck(Fault),
}

/// What the process is asked to do.
#[derive(Debug, Clone)]
pub(crate) enum Does {
    Start(Graph),
    Resume,
    /// Does the step once more.
    Rerun,
    Rollback,
}

/// How its life ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The run stands; the process ended in peace.
    Stood(Box<RunView>),
    Died,
    /// The engine refused.
    Refused(String),
    /// The run neither ended nor stood still.
    Stuck,
}

/// What outlives a process: the data of its store. One run, always of the same id.
pub(crate) struct Disk {
    base: MemoryStore,
    run: RunId,
    site: String,
    step: StepName,
}

impl Disk {
    /// An empty disk for a run in which `step` is under test. Every disk has the same store id, so that what runs on
    /// different disks make looks the same and belongs together, as in one bootstrap; `other` gives another one.
    pub(crate) fn new(world: &World, step: &StepName, run: &str, other: u8) -> Self {
        let run = RunId::new(run).expect("a good id");
        let base = MemoryStore::new(StoreId::generate([7 + other; 16]));
        Self { base, run, site: world.site.clone(), step: step.clone() }
    }

    /// The same for a store that several processes share: who drives a run has a lease on it, and whoever takes it over ends
    /// that.
    pub(crate) fn shared(self) -> Self {
        Self { base: MemoryStore::shared(self.base.id()), ..self }
    }

    /// A disk with the same on it.
    pub(crate) async fn copy(&self) -> Self {
        let now = Timestamp::from_millis(0);
        let options = CopyOptions { now, product: String::new(), runs: None };
        let (bytes, _) = archive::write(&self.base, Vec::new(), options, &mut |_| {}).await.expect("copied");
        let base = MemoryStore::new(self.base.id());
        let mut reader = ArchiveReader::open(bytes.as_slice()).expect("just written");
        let request = Request::by("matrix");
        let options = PutOptions { purpose: Purpose::Restore, now, request, runs: None, salvage: false };
        archive::put(&base, &mut reader, &options, &mut |_| {}).await.expect("put");
        Self { base, run: self.run.clone(), site: self.site.clone(), step: self.step.clone() }
    }

    /// The run as it is written, if it is.
    pub(crate) async fn view(&self) -> Option<RunView> {
        load(&self.base, &self.run).await.ok().map(|state| view(&state))
    }

    /// Whether there was an attempt to take the step back.
    pub(crate) async fn undid(&self) -> bool {
        self.history().await.iter().any(|kind| match kind {
            EventKind::AttemptStarted { step, phase: Phase::Compensate, .. } => *step == self.step,
            _ => false,
        })
    }

    /// What was written so far.
    pub(crate) async fn history(&self) -> Vec<EventKind> {
        let events = history(&self.base, &self.run, 0).await.unwrap_or_default();
        events.into_iter().map(|event| event.kind).collect()
    }

    /// Lives one life.
    pub(crate) async fn live(&self, world: &World, does: Does, cut: Cut, tamper: &Tamper) -> End {
        let fault = match &cut {
            Cut::Struck(fault) => std::slice::from_ref(fault),
            _ => &[],
        };
        if !fault.is_empty() {
            world.faults(fault).await;
        }
        let plan = match cut {
            Cut::Before(moment) => Some((true, moment)),
            Cut::After(moment) => Some((false, moment)),
            Cut::Never | Cut::Struck(_) => None,
        };
        let store = Arc::new(LifeStore {
            base: self.base.reopen(),
            step: self.step.clone(),
            plan: Mutex::new(plan),
            recorded: Mutex::new(0),
            over: AtomicBool::new(false),
            died: Notify::new(),
        });
        let engine = world.engine(Arc::clone(&store) as Arc<dyn Store>, tamper);
        let strikes = async {
            if fault.is_empty() { std::future::pending().await } else { world.struck(PATIENCE).await }
        };
        let end = tokio::select! {
            biased;
            () = store.died.notified() => End::Died,
            () = strikes => End::Died,
            end = self.drive(&engine, does) => match end {
                _ if store.over.load(Ordering::SeqCst) => End::Died,
                Ok(view) => End::Stood(Box::new(view)),
                Err(error) => End::Refused(error.to_string()),
            },
            () = tokio::time::sleep(PATIENCE) => End::Stuck,
        };
        store.over.store(true, Ordering::SeqCst);
        engine.stop();
        // Drivers see the stop when they are next polled; they drop their attempts then.
        while !engine.live_runs().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if !fault.is_empty() {
            world.faults(&[]).await;
        }
        end
    }

    async fn drive(&self, engine: &Engine, does: Does) -> Result<RunView, EngineError> {
        let request = Request::by("matrix");
        let handle = match does {
            Does::Start(graph) => {
                let start = StartRun {
                    id: Some(self.run.clone()),
                    site: self.site.clone(),
                    options: RunOptions { on_exhausted: OnTrouble::Pause, ..RunOptions::default() },
                    ..StartRun::new(WorkflowName::new("bootstrap").expect("a good name"), graph)
                };
                engine.start(start).await?
            }
            Does::Resume => engine.resume(&self.run, request).await?,
            Does::Rerun => {
                let acted = engine.act(&self.run, Verb::Rerun { from: self.step.clone() }, request).await?;
                acted.handle.expect("the run is not paused")
            }
            Does::Rollback => engine.rollback(&self.run, Vec::new(), request).await?,
        };
        handle.wait().await
    }
}

/// The store of one life.
struct LifeStore {
    base: MemoryStore,
    step: StepName,
    plan: Mutex<Option<(bool, Moment)>>,
    recorded: Mutex<u32>,
    over: AtomicBool,
    died: Notify,
}

fn dead() -> StoreError {
    StoreError::Poisoned("the process has died".to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LifeStore {
    fn die(&self) -> StoreError {
        self.over.store(true, Ordering::SeqCst);
        self.died.notify_one();
        dead()
    }

    /// The moments of the step that a transition holds.
    fn moments(&self, transition: &Transition) -> Vec<Moment> {
        let first = match transition.expect {
            Expect::New => 1,
            Expect::At { seq } => seq + 1,
        };
        let events = event::decode(first, &transition.record).expect("what the engine writes can be read");
        let mut recorded = lock(&self.recorded);
        events
            .iter()
            .filter(|event| event.kind.step() == Some(&self.step))
            .filter_map(|event| match &event.kind {
                EventKind::AttemptStarted { phase: Phase::Compensate, .. } => Some(Moment::UndoStarted),
                EventKind::AttemptStarted { .. } => Some(Moment::Started),
                EventKind::ResourceRecorded { .. } | EventKind::BeforeRecorded { .. } => {
                    *recorded += 1;
                    Some(Moment::Recorded(*recorded - 1))
                }
                EventKind::AttemptSucceeded { .. } => Some(Moment::Done),
                EventKind::CompensationSucceeded { .. } => Some(Moment::Undone),
                _ => None,
            })
            .collect()
    }

    async fn commit_or_die(&self, transition: Transition) -> Result<u64, StoreError> {
        if self.over.load(Ordering::SeqCst) {
            return Err(dead());
        }
        let moments = self.moments(&transition);
        let due = lock(&self.plan).take_if(|(_, moment)| moments.contains(moment));
        if let Some((true, _)) = due {
            return Err(self.die());
        }
        let seq = self.base.commit(transition).await?;
        if due.is_some() { Err(self.die()) } else { Ok(seq) }
    }
}

impl Layer for LifeStore {
    fn base(&self) -> &dyn Store {
        &self.base
    }

    fn commit(&self, transition: Transition) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.commit_or_die(transition))
    }
}
