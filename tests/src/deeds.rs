//! Activities over the fake cloud: one that creates, one that changes a setting, a plain function with an undo, and
//! one that waits. They do what the crash matrix asks of real ones, no more.

use std::collections::BTreeMap;
use std::time::Duration;

use dssflow_engine::activity::{Activity, ActivityRegistry, Effect, Owner, Probe, Recorded, Undo};
use dssflow_engine::{ActivityContext, ActivityError, ActivityResult};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cloud::{Cloud, Phase, Reply, Request, Section, Service, Thing};

/// Deliberate mistakes of activities, to see that the harness notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// Probes find nothing, whatever is there.
    BlindProbe,
    /// Compensations do nothing and say they did.
    ForgetfulUndo,
    /// Whatever is found is called this run's, and undone without proof.
    GreedyUndo,
    /// One token for all generations.
    SameToken,
    /// Settings are changed without their old values being recorded.
    CarelessChange,
}

/// All of them under their names, with a mistake or without.
///
/// # Panics
/// Never: the names are fixed and differ.
pub fn registry(mistake: Option<Mistake>) -> ActivityRegistry {
    let mut registry = ActivityRegistry::new();
    registry.add("make", Make(mistake)).expect("a new name");
    registry.add("set", Set(mistake)).expect("a new name");
    registry.add("ensure", Ensure).expect("a new name");
    registry.add("wait", Wait).expect("a new name");
    registry
        .add_fn("compute", |_: ActivityContext, input: ComputeInput| async move {
            Ok(ComputeOutput { go: input.go })
        })
        .expect("a new name");
    registry
        .add_fn("list", |_: ActivityContext, input: ListInput| async move { Ok(input.items) })
        .expect("a new name");
    registry
}

/// What a person gives as id who completes a step by hand.
pub const BY_HAND: &str = "by-hand";

fn cloud(ctx: &ActivityContext) -> ActivityResult<Cloud> {
    Ok(ctx.resource::<Cloud>()?.as_ref().clone())
}

/// A lock the step declares, which the cloud watches.
pub type Held = (String, bool);

fn sections(cloud: &Cloud, locks: &[Held]) -> Vec<Section> {
    locks.iter().map(|(lock, exclusive)| cloud.enter(lock, *exclusive)).collect()
}

/// Input of `make`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MakeInput {
    /// Its kind.
    pub service: Service,
    /// Its name.
    pub name: String,
    /// How long it takes to become active.
    pub slow_ms: u64,
    /// Whether the step itself waits for that.
    pub poll: bool,
    /// Whether the undo trusts the recorded id and asks for no proof.
    pub trusting: bool,
    /// Locks to be watched.
    pub locks: Vec<Held>,
    /// Outputs of steps before.
    #[serde(default)]
    pub needs: Value,
}

/// Output of `make`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MakeOutput {
    /// The id.
    pub id: String,
    /// The name.
    pub name: String,
}

struct Make(Option<Mistake>);

impl Activity for Make {
    type Input = MakeInput;
    type Output = MakeOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn execute(&self, ctx: &ActivityContext, input: &MakeInput) -> ActivityResult<MakeOutput> {
        let cloud = cloud(ctx)?;
        let _in = sections(&cloud, &input.locks);
        if ctx.generation() > 1 {
            for (thing, _) in cloud.mine(ctx, input.service, &input.name).await? {
                if thing.marks.as_ref().is_some_and(|m| m.generation < ctx.generation()) {
                    cloud.change(ctx, Request::Delete { id: thing.id }, false, true).await?;
                }
            }
        }
        let request = Request::Create {
            service: input.service,
            name: input.name.clone(),
            marks: ctx.marks(),
            token: if self.0 == Some(Mistake::SameToken) {
                ctx.step().to_string()
            } else {
                ctx.token("create").to_string()
            },
            slow_ms: input.slow_ms,
        };
        let id = match cloud.change(ctx, request, false, true).await? {
            Reply::Id(id) => id,
            Reply::Taken => return Err(ActivityError::retryable("AlreadyExists", "the name is taken")),
            other => return Err(ActivityError::terminal("Protocol", format!("{other:?}"))),
        };
        ctx.record_resource("thing", &id).await?;
        loop {
            if !input.poll {
                break;
            }
            // Whatever a look fails with, the create has taken place.
            let phase = cloud.get(ctx, &id).await.map_err(|e| ActivityError { no_effect: false, ..e })?;
            match phase {
                Some(Phase::Active) => break,
                Some(Phase::Creating) => {
                    ctx.heartbeat("creating");
                    ctx.sleep(Duration::from_secs(3)).await?;
                }
                Some(Phase::Failed) => {
                    return Err(ActivityError::retryable("CreateFailed", "it became FAILED"));
                }
                None => return Err(ActivityError::retryable("Gone", "it is gone")),
            }
        }
        Ok(MakeOutput { id, name: input.name.clone() })
    }

    async fn probe(&self, ctx: &ActivityContext, input: &MakeInput) -> ActivityResult<Probe<MakeOutput>> {
        let cloud = cloud(ctx)?;
        let seen = cloud.list(ctx, input.service, &input.name).await?;
        if self.0 == Some(Mistake::BlindProbe) {
            return Ok(Probe::Absent);
        }
        let marks = ctx.marks();
        let owner = |t: &Thing| t.marks.as_ref().map_or(Owner::Foreign, |m| marks.owner_of(m));
        let rank = |(t, phase): &(Thing, Phase)| match (owner(t), phase) {
            (Owner::ThisRun, Phase::Active | Phase::Creating) => 0,
            (Owner::ThisRun, Phase::Failed) => 1,
            (Owner::ThisSite(_), _) => 2,
            (Owner::Foreign, _) => 3,
        };
        let Some((thing, phase)) = seen.iter().min_by_key(|s| rank(s)) else { return Ok(Probe::Absent) };
        let owner = if self.0 == Some(Mistake::GreedyUndo) { Owner::ThisRun } else { owner(thing) };
        // Where names are free, a stranger's thing is none of our business.
        if owner == Owner::Foreign && input.service != Service::Named {
            return Ok(Probe::Absent);
        }
        Ok(match phase {
            Phase::Failed => Probe::Failed { owner, detail: "FAILED".to_owned() },
            Phase::Creating if input.poll => Probe::InProgress { detail: "CREATING".to_owned() },
            Phase::Creating | Phase::Active => Probe::Present {
                output: MakeOutput { id: thing.id.clone(), name: thing.name.clone() },
                owner,
            },
        })
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &MakeInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        if self.0 == Some(Mistake::ForgetfulUndo) {
            return Ok(Undo::Undone);
        }
        let cloud = cloud(ctx)?;
        let _in = sections(&cloud, &input.locks);
        let mut ids: Vec<String> =
            cloud.mine(ctx, input.service, &input.name).await?.into_iter().map(|(t, _)| t.id).collect();
        if input.trusting || self.0 == Some(Mistake::GreedyUndo) {
            ids.extend(recorded.ids("thing").map(str::to_owned));
            ids.extend(recorded.output_as::<MakeOutput>().map(|o| o.id));
            ids.sort();
            ids.dedup();
        }
        let mut undo = Undo::NothingToDo;
        for id in ids {
            if cloud.change(ctx, Request::Delete { id }, true, true).await? == Reply::Done {
                undo = Undo::Undone;
            }
        }
        Ok(undo)
    }
}

/// Input of `set`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetInput {
    /// The key.
    pub key: String,
    /// Its new value.
    pub value: String,
    /// Locks to be watched.
    pub locks: Vec<Held>,
    /// Outputs of steps before.
    #[serde(default)]
    pub needs: Value,
}

struct Set(Option<Mistake>);

impl Activity for Set {
    type Input = SetInput;
    type Output = String;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Update
    }

    async fn execute(&self, ctx: &ActivityContext, input: &SetInput) -> ActivityResult<String> {
        let cloud = cloud(ctx)?;
        let _in = sections(&cloud, &input.locks);
        let old = cloud.setting(ctx, &input.key).await?;
        if self.0 != Some(Mistake::CarelessChange) {
            ctx.record_before(BTreeMap::from([(input.key.clone(), Value::String(old))])).await?;
        }
        let request = Request::Put { key: input.key.clone(), expected: None, value: input.value.clone() };
        cloud.change(ctx, request, false, true).await?;
        Ok(input.value.clone())
    }

    async fn probe(&self, ctx: &ActivityContext, input: &SetInput) -> ActivityResult<Probe<String>> {
        let now = cloud(ctx)?.setting(ctx, &input.key).await?;
        Ok(if now == input.value {
            Probe::Present { output: now, owner: Owner::ThisSite(String::new()) }
        } else {
            Probe::Absent
        })
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &SetInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let cloud = cloud(ctx)?;
        let _in = sections(&cloud, &input.locks);
        let Some(old) = recorded.before.get(&input.key).and_then(Value::as_str) else {
            return Ok(Undo::NothingToDo);
        };
        let request = Request::Put {
            key: input.key.clone(),
            expected: Some(input.value.clone()),
            value: old.to_owned(),
        };
        match cloud.change(ctx, request, true, true).await? {
            Reply::Done => Ok(Undo::Undone),
            Reply::Mismatch(now) if now == old => Ok(Undo::NothingToDo),
            other => {
                Err(ActivityError::terminal("Drifted", format!("{} was changed since: {other:?}", input.key)))
            }
        }
    }
}

/// Input of `ensure`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnsureInput {
    /// The note's name.
    pub name: String,
    /// Locks to be watched.
    pub locks: Vec<Held>,
    /// Outputs of steps before.
    #[serde(default)]
    pub needs: Value,
}

struct Ensure;

impl Activity for Ensure {
    type Input = EnsureInput;
    type Output = String;

    async fn execute(&self, ctx: &ActivityContext, input: &EnsureInput) -> ActivityResult<String> {
        let cloud = cloud(ctx)?;
        let _in = sections(&cloud, &input.locks);
        let request = Request::Note { name: input.name.clone(), marks: ctx.marks() };
        // Nothing can tell whether a late request will still land, so this service has none.
        cloud.change(ctx, request, false, false).await?;
        Ok(input.name.clone())
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &EnsureInput,
        _: &Recorded,
    ) -> ActivityResult<Undo> {
        let cloud = cloud(ctx)?;
        let _in = sections(&cloud, &input.locks);
        match cloud.note(ctx, &input.name).await? {
            Some(marks) if ctx.marks().owner_of(&marks) == Owner::ThisRun => {
                cloud.change(ctx, Request::Erase { name: input.name.clone() }, true, true).await?;
                Ok(Undo::Undone)
            }
            _ => Ok(Undo::NothingToDo),
        }
    }
}

/// Input of `wait`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitInput {
    /// The id to wait for; nothing when the step that makes it was skipped.
    #[serde(default)]
    pub id: Option<String>,
    /// Outputs of steps before.
    #[serde(default)]
    pub needs: Value,
}

struct Wait;

impl Activity for Wait {
    type Input = WaitInput;
    type Output = String;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, ctx: &ActivityContext, input: &WaitInput) -> ActivityResult<String> {
        let cloud = cloud(ctx)?;
        let Some(id) = input.id.as_ref().filter(|id| *id != BY_HAND) else { return Ok(String::new()) };
        loop {
            match cloud.get(ctx, id).await? {
                Some(Phase::Active) => return Ok(id.clone()),
                Some(Phase::Creating) => {
                    ctx.heartbeat("waiting");
                    ctx.sleep(Duration::from_secs(2)).await?;
                }
                Some(Phase::Failed) => {
                    return Err(ActivityError::terminal("ResourceFailed", format!("{id} became FAILED")));
                }
                None => return Err(ActivityError::terminal("ResourceGone", format!("{id} is not there"))),
            }
        }
    }
}

/// Input of `compute`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ComputeInput {
    /// What the output says.
    pub go: bool,
    /// Outputs of steps before.
    #[serde(default)]
    pub needs: Value,
}

/// Output of `compute`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ComputeOutput {
    /// For conditions.
    pub go: bool,
}

/// Input of `list`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListInput {
    /// What it gives.
    pub items: Vec<Value>,
    /// Outputs of steps before.
    #[serde(default)]
    pub needs: Value,
}
