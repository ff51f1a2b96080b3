//! The world outside, an activity that makes things in it, and engines on one store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dssflow_engine::activity::{Effect, Marks, Owner, Probe, Recorded, Undo};
use dssflow_engine::id::{ActivityName, RunId, StepName, StoreId, WorkflowName};
use dssflow_engine::runtime::clock::TokioClock;
use dssflow_engine::store::memory::MemoryStore;
use dssflow_engine::time::Timestamp;
use dssflow_engine::{
    Activity, ActivityContext, ActivityError, ActivityRegistry, ActivityResult, Binding, Engine, Graph,
    StartRun, Step,
};
use serde_json::{Value, json};

/// A thing outside.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Thing {
    pub(crate) marks: Option<Marks>,
    pub(crate) value: Value,
    pub(crate) broken: bool,
}

/// The world outside.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) things: BTreeMap<String, Thing>,
    /// Calls that changed something, in order.
    pub(crate) changes: Vec<String>,
    /// Looks, in order.
    pub(crate) looks: Vec<String>,
    /// Things whose looks or undos fail, with how often.
    pub(crate) failing: BTreeMap<String, u32>,
    /// Things that hold something of somebody else.
    pub(crate) full: Vec<String>,
}

pub(crate) type Shared = Arc<Mutex<World>>;

/// Makes a thing.
struct Make(Shared);

#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct MakeInput {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) value: Value,
}

impl Make {
    fn fails(world: &mut World, name: &str) -> ActivityResult<()> {
        match world.failing.get_mut(name) {
            Some(0) | None => Ok(()),
            Some(left) => {
                *left -= 1;
                Err(ActivityError::terminal("Broken", format!("{name} cannot be reached")))
            }
        }
    }
}

impl Activity for Make {
    type Input = MakeInput;
    type Output = Value;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn execute(&self, ctx: &ActivityContext, input: &MakeInput) -> ActivityResult<Value> {
        ctx.record_resource("thing", &input.name).await?;
        let mut world = self.0.lock().unwrap();
        world.changes.push(format!("make {}", input.name));
        let thing = Thing { marks: Some(ctx.marks()), value: input.value.clone(), broken: false };
        world.things.insert(input.name.clone(), thing);
        Ok(json!({ "name": input.name, "value": input.value }))
    }

    async fn probe(&self, ctx: &ActivityContext, input: &MakeInput) -> ActivityResult<Probe<Value>> {
        let mut world = self.0.lock().unwrap();
        world.looks.push(input.name.clone());
        Self::fails(&mut world, &input.name)?;
        let Some(thing) = world.things.get(&input.name) else { return Ok(Probe::Absent) };
        let owner = thing.marks.as_ref().map_or(Owner::Foreign, |marks| ctx.marks().owner_of(marks));
        Ok(if thing.broken {
            Probe::Failed { owner, detail: "it broke".to_owned() }
        } else {
            Probe::Present { output: json!({ "name": input.name, "value": thing.value }), owner }
        })
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &MakeInput,
        _: &Recorded,
    ) -> ActivityResult<Undo> {
        let mut world = self.0.lock().unwrap();
        Self::fails(&mut world, &input.name)?;
        let Some(thing) = world.things.get(&input.name) else { return Ok(Undo::NothingToDo) };
        if thing.marks.as_ref().is_none_or(|marks| ctx.marks().owner_of(marks) != Owner::ThisRun) {
            return Ok(Undo::NothingToDo);
        }
        if world.full.contains(&input.name) {
            return Ok(Undo::Kept { reason: format!("{} holds something", input.name) });
        }
        world.things.remove(&input.name);
        world.changes.push(format!("delete {}", input.name));
        Ok(Undo::Undone)
    }

    fn settle(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// Changes things without asking whether it may: its looks, too.
struct Rude(Shared);

impl Activity for Rude {
    type Input = ();
    type Output = ();
    const HAS_PROBE: bool = true;

    async fn execute(&self, _: &ActivityContext, (): &()) -> ActivityResult<()> {
        Ok(())
    }

    async fn probe(&self, ctx: &ActivityContext, (): &()) -> ActivityResult<Probe<()>> {
        ctx.fence()?;
        ctx.record_resource("thing", "rude").await?;
        self.0.lock().unwrap().changes.push("rude".to_owned());
        Ok(Probe::Absent)
    }
}

pub(crate) fn activities(world: &Shared) -> ActivityRegistry {
    let mut activities = ActivityRegistry::new();
    activities.add("make", Make(Arc::clone(world))).unwrap();
    activities.add("rude", Rude(Arc::clone(world))).unwrap();
    let reads = Arc::clone(world);
    activities.add("read", Read(reads)).unwrap();
    activities.add_fn("again", |_, (): ()| async { Ok(()) }).unwrap();
    activities.add("hang", Hang).unwrap();
    activities.add("panic", Panics).unwrap();
    activities
}

/// Gives what it is given.
struct Read(Shared);

impl Activity for Read {
    type Input = Value;
    type Output = Value;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, ctx: &ActivityContext, input: &Value) -> ActivityResult<Value> {
        self.0.lock().unwrap().looks.push(ctx.step().to_string());
        Ok(input.clone())
    }
}

/// Never answers.
struct Hang;

impl Activity for Hang {
    type Input = ();
    type Output = ();
    const HAS_PROBE: bool = true;

    async fn execute(&self, _: &ActivityContext, (): &()) -> ActivityResult<()> {
        Ok(())
    }

    async fn probe(&self, _: &ActivityContext, (): &()) -> ActivityResult<Probe<()>> {
        std::future::pending().await
    }
}

/// Panics when it is looked at.
struct Panics;

impl Activity for Panics {
    type Input = ();
    type Output = ();
    const HAS_PROBE: bool = true;

    async fn execute(&self, _: &ActivityContext, (): &()) -> ActivityResult<()> {
        Ok(())
    }

    async fn probe(&self, _: &ActivityContext, (): &()) -> ActivityResult<Probe<()>> {
        panic!("no look")
    }
}

pub(crate) fn engine_on(store: MemoryStore, activities: ActivityRegistry) -> Engine {
    Engine::builder(Arc::new(store))
        .clock(Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_000_000))))
        .activities(activities)
        .build()
}

pub(crate) fn store() -> MemoryStore {
    MemoryStore::new(StoreId::generate([7; 16]))
}

pub(crate) fn name(name: &str) -> StepName {
    StepName::new(name).unwrap()
}

pub(crate) fn run_id(id: &str) -> RunId {
    RunId::new(id).unwrap()
}

pub(crate) fn step(step: &str, activity: &str, input: Value) -> Step {
    Step::activity(name(step), ActivityName::new(activity).unwrap(), Binding::from_template(input).unwrap())
}

/// A step that makes the thing of its own name, after others.
pub(crate) fn make(thing: &str, after: &[&str]) -> Step {
    let mut step = step(thing, "make", json!({ "name": thing }));
    step.after = after.iter().map(|n| name(n)).collect();
    step
}

pub(crate) fn run_of(id: &str, steps: Vec<Step>) -> StartRun {
    let graph = steps.into_iter().fold(Graph::builder(), dssflow_engine::GraphBuilder::step).build().unwrap();
    let start = StartRun::new(WorkflowName::new("test").unwrap(), graph).id(run_id(id));
    StartRun { site: "lab".to_owned(), ..start }
}

/// A thing that nobody of ours made.
pub(crate) fn foreign(world: &Shared, thing: &str) {
    let made = Thing { marks: None, value: Value::Null, broken: false };
    world.lock().unwrap().things.insert(thing.to_owned(), made);
}
