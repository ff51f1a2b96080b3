//! Which functions are steps, and which take them back.

use std::future::Future;
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

/// An `async fn(ActivityCtx, I) -> ActivityResult<O>`. Implemented by itself.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an activity: it must be an `async fn(ActivityCtx, Input) -> ActivityResult<Output>`",
    label = "is no activity",
    note = "it takes two arguments, the context and one input (a tuple where it needs several), and must be async",
    note = "its future must be `Send`: it may not hold an `Rc` or a lock guard over an await"
)]
pub trait ActivityFn<I, O>: Send + Sync + 'static {
    /// Calls it.
    #[doc(hidden)]
    fn call(&self, ctx: ActivityContext, input: I) -> BoxFuture<'static, ActivityResult<O>>;
}

#[diagnostic::do_not_recommend]
impl<I, O, F, Fut> ActivityFn<I, O> for F
where
    F: Fn(ActivityContext, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ActivityResult<O>> + Send + 'static,
{
    fn call(&self, ctx: ActivityContext, input: I) -> BoxFuture<'static, ActivityResult<O>> {
        Box::pin(self(ctx, input))
    }
}

/// An `async fn(ActivityCtx, Undoing<I, O>) -> ActivityResult<()>` that takes back what an activity from `I` to `O` did.
/// Implemented by itself.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not undo this step: it must be an `async fn(ActivityCtx, Undoing<{I}, {O}>) -> ActivityResult<()>`",
    label = "does not undo a step that takes `{I}` and gives `{O}`",
    note = "the types in `Undoing` are the step's input and output"
)]
pub trait UndoFn<I, O>: Send + Sync + 'static {
    /// Calls it.
    #[doc(hidden)]
    fn call(&self, ctx: ActivityContext, was: Undoing<I, O>) -> BoxFuture<'static, ActivityResult<()>>;
}

#[diagnostic::do_not_recommend]
impl<I, O, F, Fut> UndoFn<I, O> for F
where
    F: Fn(ActivityContext, Undoing<I, O>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ActivityResult<()>> + Send + 'static,
{
    fn call(&self, ctx: ActivityContext, was: Undoing<I, O>) -> BoxFuture<'static, ActivityResult<()>> {
        Box::pin(self(ctx, was))
    }
}

/// An activity function whose own type is forgotten.
pub(super) type Function<I, O> =
    Arc<dyn Fn(ActivityContext, I) -> BoxFuture<'static, ActivityResult<O>> + Send + Sync>;

pub(super) fn forget<I, O>(function: impl ActivityFn<I, O>) -> Function<I, O> {
    Arc::new(move |ctx, input| function.call(ctx, input))
}
