//! What the steps of a takeover call, and what the runs that were taken over call afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TURN_CODE;
use crate::activity::{
    Activity, ActivityContext, ActivityError, ActivityRegistry, ActivityResult, Effect, ErasedActivity,
    Probe, Recorded, Shapes, Undo,
};
use crate::id::{ActivityName, RunId, StepName};
use crate::time::BoxFuture;

/// What a step of a run made, as the run's history has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Creator {
    /// The run.
    pub run: RunId,
    /// Its step.
    pub step: StepName,
    /// The step's generation.
    pub generation: u32,
    /// What the step called.
    pub activity: ActivityName,
    /// What it was given last.
    pub input: Value,
    /// What it was given before, while the effects may still be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past_inputs: Vec<Value>,
    /// What it recorded.
    pub recorded: Recorded,
    /// Whether nobody knows how its last attempt ended: it is looked at before it is taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
}

/// What a step of a takeover takes over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TakeOverInput {
    /// Who made it, newest first.
    pub creators: Vec<Creator>,
}

/// Takes over what steps of other runs made; its undo takes that back.
///
/// # Idempotency
/// Forward it changes nothing.
///
/// # Compensation
/// The compensations of those steps, the newest first, each in the name of its run: the marks it must find are that run's.
pub(super) struct TakeOver {
    below: ActivityRegistry,
}

impl TakeOver {
    pub(super) fn new(below: ActivityRegistry) -> Self {
        Self { below }
    }

    fn code(&self, creator: &Creator) -> ActivityResult<&Arc<dyn ErasedActivity>> {
        self.below.get(&creator.activity).ok_or_else(|| {
            let text = format!(
                "activity {}, which made what step {} of run {} left, is not registered",
                creator.activity, creator.step, creator.run
            );
            ActivityError::terminal("ActivityMissing", text).no_effect()
        })
    }

    async fn take_back(&self, ctx: &ActivityContext, creator: &Creator) -> ActivityResult<Vec<Undo>> {
        let code = self.code(creator)?;
        let named = ctx.in_the_name_of(creator.run.clone(), creator.step.clone(), creator.generation);
        if creator.unknown {
            settle(&named, code.as_ref(), creator).await?;
        }
        let mut undone = vec![code.compensate(&named, &creator.input, &creator.recorded).await?];
        for past in creator.past_inputs.iter().rev() {
            undone.push(code.compensate(&named, past, &creator.recorded).await?);
        }
        Ok(undone)
    }
}

/// Waits until what an attempt nobody knows of did is to be seen: two looks that find nothing, over the settle time.
async fn settle(ctx: &ActivityContext, code: &dyn ErasedActivity, creator: &Creator) -> ActivityResult<()> {
    let mut absent = false;
    loop {
        match code.probe(ctx, &creator.input).await.map_err(ActivityError::no_effect)? {
            Probe::Absent if absent => return Ok(()),
            Probe::Absent => {
                absent = true;
                ctx.sleep(code.settle()).await?;
            }
            Probe::InProgress { detail } => {
                ctx.heartbeat(detail);
                ctx.sleep(code.poll_interval()).await?;
            }
            Probe::Present { .. } | Probe::Failed { .. } => return Ok(()),
        }
    }
}

/// What several undos are together: something kept is told before something undone.
fn joined(undone: Vec<Undo>) -> Undo {
    let mut kept: Vec<String> = Vec::new();
    let mut all = Undo::NothingToDo;
    for undo in undone {
        match undo {
            Undo::NothingToDo => {}
            Undo::Undone => all = Undo::Undone,
            Undo::Kept { reason } if kept.contains(&reason) => {}
            Undo::Kept { reason } => kept.push(reason),
        }
    }
    if kept.is_empty() { all } else { Undo::Kept { reason: kept.join("; ") } }
}

impl Activity for TakeOver {
    type Input = TakeOverInput;
    type Output = ();

    fn effect(&self) -> Effect {
        // Not a read: a read is never undone.
        Effect::Idempotent
    }

    async fn execute(&self, _: &ActivityContext, input: &TakeOverInput) -> ActivityResult<()> {
        input.creators.iter().try_for_each(|creator| self.code(creator).map(drop))
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &TakeOverInput,
        _: &Recorded,
    ) -> ActivityResult<Undo> {
        let mut undone = Vec::new();
        for creator in &input.creators {
            undone.extend(self.take_back(ctx, creator).await?);
        }
        Ok(joined(undone))
    }

    fn describe(&self, input: &TakeOverInput) -> String {
        let runs: Vec<&str> = input.creators.iter().map(|c| c.run.as_str()).collect();
        format!("take over from {}", runs.join(", "))
    }
}

/// Fails, so that the run takes back what it took over.
pub(super) struct TurnRound;

impl Activity for TurnRound {
    type Input = ();
    type Output = ();

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, _: &ActivityContext, (): &()) -> ActivityResult<()> {
        Err(ActivityError::terminal(TURN_CODE, "everything is taken over: now it is taken back").no_effect())
    }
}

/// Puts an answer in front of every activity, for the rollback of a run whose things a takeover took back: nothing is
/// called, and each step is taken back, or kept for the reason that `kept` has. With an engine made of this registry
/// [`Engine::rollback`](crate::Engine::rollback) writes down what became of the run's things.
pub fn close_books(activities: &mut ActivityRegistry, kept: &BTreeMap<StepName, String>) {
    activities.wrap(|_, inner| Arc::new(Closed { inner, kept: kept.clone() }) as Arc<dyn ErasedActivity>);
}

struct Closed {
    inner: Arc<dyn ErasedActivity>,
    kept: BTreeMap<StepName, String>,
}

fn closed<T>() -> ActivityResult<T> {
    Err(ActivityError::terminal(
        "TakenOver",
        "what the run made was taken back by another run: it cannot go on",
    )
    .no_effect())
}

impl ErasedActivity for Closed {
    fn effect(&self) -> Effect {
        self.inner.effect()
    }

    fn has_probe(&self) -> bool {
        self.inner.has_probe()
    }

    fn execute<'a>(&'a self, _: &'a ActivityContext, _: &'a Value) -> BoxFuture<'a, ActivityResult<Value>> {
        Box::pin(async { closed() })
    }

    fn probe<'a>(
        &'a self,
        _: &'a ActivityContext,
        _: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Probe<Value>>> {
        Box::pin(async { Ok(Probe::Absent) })
    }

    fn verify<'a>(
        &'a self,
        _: &'a ActivityContext,
        _: &'a Value,
        _: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<()>> {
        Box::pin(async { closed() })
    }

    fn compensate<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        _: &'a Value,
        _: &'a Recorded,
    ) -> BoxFuture<'a, ActivityResult<Undo>> {
        let kept = self.kept.get(ctx.step()).cloned();
        Box::pin(async move { Ok(kept.map_or(Undo::Undone, |reason| Undo::Kept { reason })) })
    }

    fn describe(&self, input: &Value) -> String {
        self.inner.describe(input)
    }

    fn settle(&self) -> Duration {
        Duration::ZERO
    }

    fn poll_interval(&self) -> Duration {
        Duration::ZERO
    }

    fn check_input(&self, input: &Value) -> Result<(), String> {
        self.inner.check_input(input)
    }

    fn check_output(&self, output: &Value) -> Result<(), String> {
        self.inner.check_output(output)
    }

    fn shapes(&self) -> Shapes {
        self.inner.shapes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_told_once_and_before_what_is_undone() {
        let kept = |reason: &str| Undo::Kept { reason: reason.to_owned() };
        assert_eq!(joined(vec![Undo::NothingToDo, Undo::NothingToDo]), Undo::NothingToDo);
        assert_eq!(joined(vec![Undo::Undone, Undo::NothingToDo]), Undo::Undone);
        assert_eq!(joined(vec![kept("a"), Undo::Undone, kept("b"), kept("a")]), kept("a; b"));
    }
}
