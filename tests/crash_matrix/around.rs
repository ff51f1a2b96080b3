//! Code put around the real activities: bugs on purpose, and gates at which attempts wait for each other.

use std::sync::Arc;
use std::time::Duration;

use dssflow_engine::activity::{
    ActivityContext, ActivityResult, Effect, ErasedActivity, Probe, Recorded, Shapes, Undo,
};
use dssflow_engine::time::BoxFuture;
use serde_json::Value;

use crate::world::{GIVEN, Wrap};

/// What the engine asks of an activity.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    inner: &'a dyn ErasedActivity,
    pub(crate) ctx: &'a ActivityContext,
    pub(crate) input: &'a Value,
}

impl<'a> Asked<'a> {
    /// The same of another input.
    pub(crate) fn of(self, input: &'a Value) -> Self {
        Self { input, ..self }
    }

    pub(crate) fn execute(self) -> BoxFuture<'a, ActivityResult<Value>> {
        self.inner.execute(self.ctx, self.input)
    }

    pub(crate) fn probe(self) -> BoxFuture<'a, ActivityResult<Probe<Value>>> {
        self.inner.probe(self.ctx, self.input)
    }

    pub(crate) fn compensate(self, recorded: &'a Recorded) -> BoxFuture<'a, ActivityResult<Undo>> {
        self.inner.compensate(self.ctx, self.input, recorded)
    }
}

/// What is done in place of an activity's calls. Without a word of its own each goes on to the activity.
pub(crate) trait Around: Send + Sync + 'static {
    fn execute<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, ActivityResult<Value>> {
        asked.execute()
    }

    fn probe<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, ActivityResult<Probe<Value>>> {
        asked.probe()
    }

    fn compensate<'a>(
        &'a self,
        asked: Asked<'a>,
        recorded: &'a Recorded,
    ) -> BoxFuture<'a, ActivityResult<Undo>> {
        asked.compensate(recorded)
    }
}

/// Puts `around` around every activity of the product.
pub(crate) fn wrap(around: Arc<impl Around>) -> Wrap {
    Arc::new(move |name, inner| {
        if name.as_str() == GIVEN {
            return inner;
        }
        Arc::new(Wrapped { inner, around: Arc::clone(&around) })
    })
}

struct Wrapped<A> {
    inner: Arc<dyn ErasedActivity>,
    around: Arc<A>,
}

impl<A> Wrapped<A> {
    fn asked<'a>(&'a self, ctx: &'a ActivityContext, input: &'a Value) -> Asked<'a> {
        Asked { inner: &*self.inner, ctx, input }
    }
}

impl<A: Around> ErasedActivity for Wrapped<A> {
    fn effect(&self) -> Effect {
        self.inner.effect()
    }

    fn has_probe(&self) -> bool {
        self.inner.has_probe()
    }

    fn execute<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Value>> {
        self.around.execute(self.asked(ctx, input))
    }

    fn probe<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Probe<Value>>> {
        self.around.probe(self.asked(ctx, input))
    }

    fn verify<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
        output: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<()>> {
        self.inner.verify(ctx, input, output)
    }

    fn compensate<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
        recorded: &'a Recorded,
    ) -> BoxFuture<'a, ActivityResult<Undo>> {
        self.around.compensate(self.asked(ctx, input), recorded)
    }

    fn describe(&self, input: &Value) -> String {
        self.inner.describe(input)
    }

    fn settle(&self) -> Duration {
        self.inner.settle()
    }

    fn poll_interval(&self) -> Duration {
        self.inner.poll_interval()
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
