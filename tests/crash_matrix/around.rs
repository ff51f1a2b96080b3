//! Code put around the real activities: bugs on purpose, and gates at which attempts wait for each other.

use std::sync::Arc;
use std::time::Duration;

use dssflow_engine::activity::{
    ActivityContext, ActivityResult, Effect, ErasedActivity, Probe, Recorded, Shapes, Undo,
};
use dssflow_engine::time::BoxFuture;
use serde_json::Value;

use crate::world::{GIVEN, Wrap};

/// What is done in place of an activity's calls. Without a word of its own each goes on to the activity.
pub(crate) trait Around: Send + Sync + 'static {
    fn execute<'a>(
        &'a self,
        inner: &'a dyn ErasedActivity,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Value>> {
        inner.execute(ctx, input)
    }

    fn probe<'a>(
        &'a self,
        inner: &'a dyn ErasedActivity,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Probe<Value>>> {
        inner.probe(ctx, input)
    }

    fn compensate<'a>(
        &'a self,
        inner: &'a dyn ErasedActivity,
        ctx: &'a ActivityContext,
        input: &'a Value,
        recorded: &'a Recorded,
    ) -> BoxFuture<'a, ActivityResult<Undo>> {
        inner.compensate(ctx, input, recorded)
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
        self.around.execute(&*self.inner, ctx, input)
    }

    fn probe<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Probe<Value>>> {
        self.around.probe(&*self.inner, ctx, input)
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
        self.around.compensate(&*self.inner, ctx, input, recorded)
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
