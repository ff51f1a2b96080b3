//! A sub-workflow as a step: a run of its own, with an id that the step's name gives, so that every attempt of the
//! step finds the same one. Pauses, cancels and rollbacks of the run above go down to it.

use std::sync::Weak;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::activity::{
    ActivityContext, ActivityError, ActivityResult, Effect, ErasedActivity, Probe, Recorded, Resources,
    Shapes, StopReason, Undo,
};
use crate::event::{CancelMode, Parent, Request};
use crate::graph::OnParentClose;
use crate::id::{MAX_RUN_ID_LEN, RunId, StepName};
use crate::run::RunStatus;
use crate::run::view::RunView;
use crate::runtime::driver::{Ask, Asked};
use crate::runtime::engine::{Engine, EngineError, Inner, RunHandle};
use crate::time::BoxFuture;

/// The id of the run that a step starts.
pub fn sub_run_id(parent: &RunId, step: &StepName) -> RunId {
    let plain = format!("{parent}:{step}");
    if plain.len() <= MAX_RUN_ID_LEN
        && let Ok(id) = RunId::new(plain.clone())
    {
        return id;
    }
    let hash = hex::encode(&Sha256::digest(plain)[..8]);
    let start: String = parent.as_str().chars().take(MAX_RUN_ID_LEN - 1 - hash.len()).collect();
    RunId::new(format!("{start}:{hash}")).expect("a run id, a colon and hex digits")
}

/// The id of the run that a generation of a step starts: a step that is done once more, or with another input, starts
/// another run.
fn generation_id(parent: &RunId, step: &StepName, generation: u32) -> RunId {
    if generation <= 1 {
        return sub_run_id(parent, step);
    }
    let step = StepName::new(format!("{step}/{generation}")).unwrap_or_else(|_| {
        let hash = hex::encode(&Sha256::digest(step.as_str())[..8]);
        StepName::new(format!("{hash}/{generation}")).expect("hex digits, a slash and a number")
    });
    sub_run_id(parent, &step)
}

pub(crate) struct SubWorkflow {
    inner: Weak<Inner>,
    workflow: String,
    on_parent_close: OnParentClose,
    resources: Resources,
    patience: f64,
}

impl SubWorkflow {
    pub(crate) fn new(inner: Weak<Inner>, workflow: String, on_parent_close: OnParentClose) -> Self {
        Self { inner, workflow, on_parent_close, resources: Resources::default(), patience: 1.0 }
    }

    /// The run below is driven as the run above is.
    pub(crate) fn with(mut self, resources: Resources, patience: f64) -> Self {
        (self.resources, self.patience) = (resources, patience);
        self
    }

    fn engine(&self) -> ActivityResult<Engine> {
        let inner = self.inner.upgrade().ok_or_else(ActivityError::cancelled)?;
        Ok(Engine::of(inner, self.resources.clone(), self.patience))
    }

    fn request(ctx: &ActivityContext, reason: &str) -> Request {
        Request { by: format!("run {}", ctx.run()), reason: reason.to_owned() }
    }

    /// Starts the run, or finds it and drives it on.
    async fn attach(
        &self,
        engine: &Engine,
        ctx: &ActivityContext,
        input: &Value,
    ) -> ActivityResult<RunHandle> {
        let id = generation_id(ctx.run(), ctx.step(), ctx.generation());
        let parent = Parent { run: ctx.run().clone(), step: ctx.step().clone() };
        // Somebody else may start, end or drive it between two looks.
        for _ in 0..16 {
            if let Some(handle) = engine.handle(&id) {
                return Ok(handle);
            }
            let attached = match engine.load(&id).await {
                Err(EngineError::NoSuchRun(_)) => {
                    engine.start_sub(&self.workflow, id.clone(), input.clone(), parent.clone()).await
                }
                Ok(state)
                    if matches!(
                        state.finished,
                        Some(RunStatus::Succeeded | RunStatus::RolledBack | RunStatus::RollbackStuck)
                    ) =>
                {
                    return Ok(engine.at_rest(&state));
                }
                Ok(_) => engine.resume(&id, Self::request(ctx, "its step was tried again")).await,
                Err(error) => Err(error),
            };
            match attached {
                Ok(handle) => return Ok(handle),
                Err(EngineError::Live(_)) => {}
                Err(EngineError::Store { error: crate::store::StoreError::Exists(_), .. }) => {}
                Err(error) => return Err(failed(&id, &error)),
            }
        }
        Err(ActivityError::retryable("SubWorkflowBusy", format!("run {id} changed hands too often")))
    }

    /// The run above was told to stop: what becomes of the one below.
    async fn stop(&self, engine: &Engine, ctx: &ActivityContext, handle: &RunHandle) {
        let id = handle.id();
        let mode = match ctx.stop_reason() {
            Some(StopReason::Pause) => {
                let _it_may_have_ended = engine.pause(id, Self::request(ctx, "the run above pauses")).await;
                let _shown_by_its_history = handle.wait().await;
                return;
            }
            // The rollback that follows takes it back in its turn; until then it stops where it is.
            Some(StopReason::Rollback | StopReason::Cancel(CancelMode::Rollback)) => CancelMode::Keep,
            Some(StopReason::Lost) | None => return,
            Some(_) => match self.on_parent_close {
                OnParentClose::Cancel => CancelMode::Keep,
                OnParentClose::Terminate => CancelMode::Terminate,
                OnParentClose::Abandon => return,
            },
        };
        let _it_may_have_ended = engine.cancel(id, mode, Self::request(ctx, "the run above stops")).await;
        let _shown_by_its_history = handle.wait().await;
    }

    /// Takes back what a run below made. False when there is no such run.
    async fn take_back(&self, engine: &Engine, ctx: &ActivityContext, id: &RunId) -> ActivityResult<bool> {
        let rolled = match engine.load(id).await {
            Err(EngineError::NoSuchRun(_)) => return Ok(false),
            Ok(state) if state.finished == Some(RunStatus::RolledBack) => return Ok(true),
            Ok(_) => engine.rollback(id, Vec::new(), Self::request(ctx, "the run above goes back")).await,
            Err(error) => Err(error),
        };
        let handle = match rolled {
            Ok(handle) => handle,
            Err(EngineError::Live(_)) => engine.handle(id).ok_or_else(|| {
                ActivityError::retryable("SubWorkflowBusy", format!("run {id} changed hands"))
            })?,
            Err(error) => return Err(failed(id, &error)),
        };
        let ended = tokio::select! {
            biased;
            ended = handle.wait() => ended,
            () = ctx.cancelled() => {
                if ctx.stop_reason() == Some(StopReason::Pause) {
                    let _it_may_have_ended = engine.pause(id, Self::request(ctx, "the run above pauses")).await;
                    let _shown_by_its_history = handle.wait().await;
                }
                return Err(ActivityError::cancelled());
            }
        };
        match ended.map_err(|e| failed(id, &e))?.status {
            RunStatus::RolledBack => Ok(true),
            status => Err(ActivityError::terminal(
                "SubWorkflowStuck",
                format!("run {id} could not be taken back: it is {status}"),
            )
            .help(format!("dssflow why {id}"))),
        }
    }

    fn judge(id: &RunId, view: RunView) -> ActivityResult<Value> {
        match view.status {
            RunStatus::Succeeded => Ok(view.output.unwrap_or(Value::Null)),
            RunStatus::Paused => {
                let why = view.paused.map(|p| p.message).unwrap_or_default();
                Err(ActivityError::needs_human("SubWorkflowPaused", format!("run {id} is paused: {why}"))
                    .help(format!("dssflow why {id}")))
            }
            status => {
                let step = view.failed_step.as_ref().map(|s| format!(" at step {s}")).unwrap_or_default();
                let why = view
                    .steps
                    .iter()
                    .find(|s| Some(&s.step) == view.failed_step.as_ref())
                    .and_then(|s| s.error.as_ref())
                    .or(view.error.as_ref())
                    .map(|e| format!(": {e}"))
                    .unwrap_or_default();
                let error = ActivityError::terminal(
                    "SubWorkflowEnded",
                    format!("run {id} ended {status}{step}{why}"),
                );
                Err(error.help(format!("dssflow why {id}")))
            }
        }
    }
}

/// An attempt whose run is terminated is dropped where it stands; the word still goes down to the run below.
struct Terminated<'a> {
    sub: &'a SubWorkflow,
    ctx: &'a ActivityContext,
    id: &'a RunId,
}

impl Drop for Terminated<'_> {
    fn drop(&mut self) {
        let mode = match self.sub.on_parent_close {
            _ if self.ctx.stop_reason() != Some(StopReason::Terminate) => return,
            OnParentClose::Cancel => CancelMode::Keep,
            OnParentClose::Terminate => CancelMode::Terminate,
            OnParentClose::Abandon => return,
        };
        let Some(inner) = self.sub.inner.upgrade() else { return };
        if let Some(below) = inner.live().get(self.id) {
            let ask = Ask::Cancel(mode, SubWorkflow::request(self.ctx, "the run above was terminated"));
            // It may have ended.
            drop(below.asks.send(Asked { ask, done: None }));
        }
    }
}

fn failed(id: &RunId, error: &EngineError) -> ActivityError {
    let text = format!("run {id}: {error}");
    match error {
        EngineError::Store { .. }
        | EngineError::Dropped(_)
        | EngineError::NotLive(_)
        | EngineError::Held { .. } => ActivityError::retryable("SubWorkflow", text),
        _ => ActivityError::terminal("SubWorkflow", text),
    }
}

impl ErasedActivity for SubWorkflow {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn has_probe(&self) -> bool {
        false
    }

    fn execute<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Value>> {
        Box::pin(async move {
            let engine = self.engine()?;
            let handle = self.attach(&engine, ctx, input).await?;
            let _goes_down = Terminated { sub: self, ctx, id: handle.id() };
            let mut shown = None;
            loop {
                tokio::select! {
                    biased;
                    ended = handle.wait() => {
                        let view = ended.map_err(|e| failed(handle.id(), &e))?;
                        return Self::judge(handle.id(), view);
                    }
                    () = ctx.cancelled() => {
                        self.stop(&engine, ctx, &handle).await;
                        return Err(ActivityError::cancelled());
                    }
                    () = tokio::time::sleep(Duration::from_secs(5)) => {
                        if let Ok(view) = engine.view(handle.id()).await {
                            let done = view.steps.iter().filter(|s| s.status.is_done()).count();
                            let now = serde_json::json!({ "run": handle.id(), "done": done, "total": view.steps.len() });
                            if shown.as_ref() != Some(&now) {
                                ctx.heartbeat(&now);
                                shown = Some(now);
                            }
                        }
                    }
                }
            }
        })
    }

    fn probe<'a>(
        &'a self,
        _ctx: &'a ActivityContext,
        _input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Probe<Value>>> {
        Box::pin(async {
            Err(ActivityError::terminal("ProbeMissing", "a sub-workflow has no probe").no_effect())
        })
    }

    fn verify<'a>(
        &'a self,
        _ctx: &'a ActivityContext,
        _input: &'a Value,
        _output: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<()>> {
        Box::pin(async { Ok(()) })
    }

    fn compensate<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        _input: &'a Value,
        _recorded: &'a Recorded,
    ) -> BoxFuture<'a, ActivityResult<Undo>> {
        Box::pin(async move {
            let engine = self.engine()?;
            let mut undone = Undo::NothingToDo;
            // Each generation had a run of its own.
            for generation in (1..=ctx.generation()).rev() {
                let id = generation_id(ctx.run(), ctx.step(), generation);
                if self.take_back(&engine, ctx, &id).await? {
                    undone = Undo::Undone;
                }
            }
            Ok(undone)
        })
    }

    fn describe(&self, _input: &Value) -> String {
        format!("runs workflow {}", self.workflow)
    }

    fn settle(&self) -> Duration {
        Duration::ZERO
    }

    fn poll_interval(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn check_input(&self, _input: &Value) -> Result<(), String> {
        Ok(())
    }

    fn check_output(&self, _output: &Value) -> Result<(), String> {
        Ok(())
    }

    fn shapes(&self) -> Shapes {
        let any = crate::shape::shape_of::<Value>().hash();
        Shapes { input: any.clone(), output: any }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_below_always_has_the_same_id() {
        let (run, step) = (RunId::new("r").unwrap(), StepName::new("pay").unwrap());
        assert_eq!(sub_run_id(&run, &step).as_str(), "r:pay");
        let long = RunId::new("x".repeat(80)).unwrap();
        let id = sub_run_id(&long, &step);
        assert_eq!((id.as_str().len(), sub_run_id(&long, &step)), (80, id));
        assert_ne!(sub_run_id(&long, &step), sub_run_id(&long, &StepName::new("ship").unwrap()));
    }
}
