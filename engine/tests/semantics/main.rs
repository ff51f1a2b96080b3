//! What the engine promises of time, shapes, versions and owners, one file an area, on the memory store and moved time.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod across;
mod events;
mod owners;
mod restores;
mod shapes;
mod subs;
mod time;
mod upgrades;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dssflow_engine::event::Request;
use dssflow_engine::graph::StepKind;
use dssflow_engine::id::{ActivityName, RunId, StepName, StoreId, WorkflowName};
use dssflow_engine::run::view::{RunView, StepView, view};
use dssflow_engine::runtime::EngineBuilder;
use dssflow_engine::runtime::clock::TokioClock;
use dssflow_engine::store::memory::MemoryStore;
use dssflow_engine::time::Timestamp;
use dssflow_engine::{
    ActivityContext, ActivityError, ActivityRegistry, Binding, Engine, Graph, GraphBuilder, RunHandle,
    StartRun, Step,
};
use serde_json::{Value, json};

/// The world outside: it counts what is done to it, and does as it is told.
#[derive(Default)]
pub(crate) struct World {
    log: Mutex<Vec<String>>,
    errors: Mutex<BTreeMap<String, VecDeque<ActivityError>>>,
    naps: Mutex<BTreeMap<String, u64>>,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The next calls about `name` fail so.
    pub(crate) fn fail(&self, name: &str, errors: impl IntoIterator<Item = ActivityError>) {
        self.errors.lock().unwrap().entry(name.into()).or_default().extend(errors);
    }

    /// Calls about `name` take so many seconds.
    pub(crate) fn slow(&self, name: &str, seconds: u64) {
        self.naps.lock().unwrap().insert(name.into(), seconds);
    }

    pub(crate) fn note(&self, what: impl Into<String>) {
        self.log.lock().unwrap().push(what.into());
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.log().iter().filter(|l| *l == what).count()
    }

    /// `do` writes down what it is given, and `undo NAME` when it is taken back; it returns what it was given.
    pub(crate) fn activities(self: &Arc<Self>) -> ActivityRegistry {
        let mut activities = ActivityRegistry::new();
        let (world, back) = (Arc::clone(self), Arc::clone(self));
        let call = move |ctx: ActivityContext, input: Value| {
            let world = Arc::clone(&world);
            async move {
                let name = input.as_str().map_or_else(|| input.to_string(), str::to_owned);
                let nap = world.naps.lock().unwrap().get(&name).copied();
                if let Some(seconds) = nap {
                    ctx.sleep(Duration::from_secs(seconds)).await?;
                }
                ctx.fence()?;
                let error = world.errors.lock().unwrap().get_mut(&name).and_then(VecDeque::pop_front);
                world.note(name);
                error.map_or(Ok(input), Err)
            }
        };
        let undo = move |_: ActivityContext, undoing: dssflow_engine::activity::Undoing<Value, Value>| {
            let world = Arc::clone(&back);
            async move {
                let input = undoing.input;
                world.note(format!(
                    "undo {}",
                    input.as_str().map_or_else(|| input.to_string(), str::to_owned)
                ));
                Ok(())
            }
        };
        activities.add_fn_with_undo("do", call, undo).unwrap();
        activities
    }
}

pub(crate) fn store() -> MemoryStore {
    MemoryStore::new(StoreId::generate([7; 16]))
}

pub(crate) fn builder(store: MemoryStore, world: &Arc<World>) -> EngineBuilder {
    Engine::builder(Arc::new(store))
        .clock(Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_000_000))))
        .activities(world.activities())
}

pub(crate) fn engine(world: &Arc<World>) -> Engine {
    builder(store(), world).build()
}

pub(crate) fn name(name: &str) -> StepName {
    StepName::new(name).unwrap()
}

pub(crate) fn by() -> Request {
    Request::by("ann")
}

/// A step that does what it is called.
pub(crate) fn act(step: &str, after: &[&str]) -> Step {
    of(step, Binding::literal(step), after)
}

pub(crate) fn of(step: &str, input: Binding, after: &[&str]) -> Step {
    let mut step = Step::activity(name(step), ActivityName::new("do").unwrap(), input);
    step.after = after.iter().map(|a| name(a)).collect();
    step
}

pub(crate) fn kind(step: &str, kind: StepKind, after: &[&str]) -> Step {
    let mut step = Step::new(name(step), kind);
    step.after = after.iter().map(|a| name(a)).collect();
    step
}

pub(crate) fn map(step: &str, items: Binding, max_concurrency: u32, tolerated_failures: u32) -> Step {
    let activity = ActivityName::new("do").unwrap();
    kind(step, StepKind::Map { items, activity, max_concurrency, tolerated_failures }, &[])
}

pub(crate) fn graph(steps: Vec<Step>) -> Graph {
    steps.into_iter().fold(Graph::builder(), GraphBuilder::step).build().unwrap()
}

pub(crate) fn run(id: &str, steps: Vec<Step>) -> StartRun {
    StartRun::new(WorkflowName::new("test").unwrap(), graph(steps)).id(RunId::new(id).unwrap())
}

/// Waits for the end or a pause, and looks whether a replay of the history shows the same.
pub(crate) async fn end(engine: &Engine, handle: &RunHandle) -> RunView {
    let shown = handle.wait().await.unwrap();
    let replayed = view(&engine.load(handle.id()).await.unwrap());
    assert_eq!(shown, replayed, "a replay shows something else");
    shown
}

pub(crate) fn step<'a>(view: &'a RunView, step: &str) -> &'a StepView {
    view.steps.iter().find(|s| s.step.as_str() == step).unwrap()
}

pub(crate) fn code(view: &RunView, of: &str) -> String {
    step(view, of).error.as_ref().map(|e| e.code.clone()).unwrap_or_default()
}

/// Lets everything happen that may, until a time has passed.
pub(crate) async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

pub(crate) fn texts(items: &[&str]) -> Binding {
    Binding::literal(json!(items))
}
