//! Which functions are steps, and which take them back.

use std::future::{Future, Pending, pending};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::activity::{ActivityContext, ActivityResult, Undoing};
use crate::time::BoxFuture;

/// What can be stored: any type that serde writes and reads back and that owns all it has. Implemented by itself.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be stored between two steps",
    label = "neither written to the history nor read back from it",
    note = "derive serde's `Serialize` and `Deserialize` for it; it must own all it has and be `Send + Sync`"
)]
pub trait Data: Serialize + DeserializeOwned + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Data for T {}

/// How a function comes to be an activity or an undo: by being called.
#[doc(hidden)]
#[derive(Debug)]
pub enum Called {}

/// No function comes to be anything by this. With one implementation only, the compiler looks through our traits and
/// complains about closures in its own words; with two it complains about the trait, in ours.
#[doc(hidden)]
#[derive(Debug)]
pub enum Never {}

trait Nothing {}

/// An `async fn(ActivityCtx, I) -> ActivityResult<O>`. Implemented by itself; `M` is found by the compiler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an activity: it must be an `async fn(ActivityCtx, Input) -> ActivityResult<Output>`",
    label = "is no activity",
    note = "it takes two arguments, the context and one input (a tuple where it needs several), and must be async",
    note = "its error must be `ActivityError`; `map_err` with `ActivityError::retryable(..)` makes one of any other",
    note = "a closure is called once for each attempt: it must clone what it captured before its `async move` takes it, \
            or better take it from `ctx.resource`"
)]
pub trait ActivityFn<I, O, M = Called>: Send + Sync + 'static {
    /// What it gives to wait for.
    #[doc(hidden)]
    type Future: Future<Output = ActivityResult<O>> + 'static;

    /// Calls it.
    #[doc(hidden)]
    fn call(&self, ctx: ActivityContext, input: I) -> Self::Future;
}

#[diagnostic::do_not_recommend]
impl<I, O, F, Fut> ActivityFn<I, O> for F
where
    F: Fn(ActivityContext, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ActivityResult<O>> + 'static,
{
    type Future = Fut;

    fn call(&self, ctx: ActivityContext, input: I) -> Fut {
        self(ctx, input)
    }
}

#[diagnostic::do_not_recommend]
impl<I, O: 'static, F: Nothing + Send + Sync + 'static> ActivityFn<I, O, Never> for F {
    type Future = Pending<ActivityResult<O>>;

    fn call(&self, _: ActivityContext, _: I) -> Self::Future {
        pending()
    }
}

/// An `async fn(ActivityCtx, Undoing<I, O>) -> ActivityResult<()>` that takes back what an activity from `I` to `O` did.
/// Implemented by itself; `M` is found by the compiler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not undo this step: it must be an `async fn(ActivityCtx, Undoing<{I}, {O}>) -> ActivityResult<()>`",
    label = "does not undo a step that takes `{I}` and gives `{O}`",
    note = "the types in `Undoing` are the step's input and output"
)]
pub trait UndoFn<I, O, M = Called>: Send + Sync + 'static {
    /// What it gives to wait for.
    #[doc(hidden)]
    type Future: Future<Output = ActivityResult<()>> + 'static;

    /// Calls it.
    #[doc(hidden)]
    fn call(&self, ctx: ActivityContext, was: Undoing<I, O>) -> Self::Future;
}

#[diagnostic::do_not_recommend]
impl<I, O, F, Fut> UndoFn<I, O> for F
where
    F: Fn(ActivityContext, Undoing<I, O>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ActivityResult<()>> + 'static,
{
    type Future = Fut;

    fn call(&self, ctx: ActivityContext, was: Undoing<I, O>) -> Fut {
        self(ctx, was)
    }
}

#[diagnostic::do_not_recommend]
impl<I, O, F: Nothing + Send + Sync + 'static> UndoFn<I, O, Never> for F {
    type Future = Pending<ActivityResult<()>>;

    fn call(&self, _: ActivityContext, _: Undoing<I, O>) -> Self::Future {
        pending()
    }
}

/// An activity function whose own type is forgotten.
pub(super) type Function<I, O> =
    Arc<dyn Fn(ActivityContext, I) -> BoxFuture<'static, ActivityResult<O>> + Send + Sync>;

pub(super) fn forget<I, O, F, M>(function: F) -> Function<I, O>
where
    F: ActivityFn<I, O, M>,
    F::Future: Send,
{
    Arc::new(move |ctx, input| Box::pin(function.call(ctx, input)))
}
