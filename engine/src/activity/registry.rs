//! What activities are found in: the registry by name, and the things injected for them by type.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::erased::{Erased, read_input, write_output};
use super::{Activity, ActivityContext, ActivityError, ActivityResult, ErasedActivity, Recorded, Undo};
use crate::id::ActivityName;

/// Why an activity cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The name is taken.
    #[error("activity {0} is registered twice")]
    Duplicate(ActivityName),
    /// A Create or Update must be able to find out what happened.
    #[error(
        "activity {0} creates or updates something but has no probe; implement `probe` and set `HAS_PROBE`"
    )]
    ProbeMissing(ActivityName),
    /// What a Create or Update did is the run's to take back.
    #[error("activity {0} creates or updates something and says that it owns nothing")]
    OwnsNothing(ActivityName),
    /// The name breaks a rule.
    #[error(transparent)]
    Name(#[from] crate::id::InvalidName),
}

/// Activities by name.
#[derive(Clone, Default)]
pub struct ActivityRegistry {
    by_name: BTreeMap<ActivityName, Arc<dyn ErasedActivity>>,
}

impl fmt::Debug for ActivityRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl ActivityRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an activity under `name`.
    ///
    /// # Errors
    /// When the name is taken or not allowed, or a Create or Update has no probe or owns nothing.
    pub fn add<A: Activity>(&mut self, name: &str, activity: A) -> Result<(), RegistryError> {
        let name = ActivityName::new(name)?;
        if activity.effect().needs_probe() && !A::HAS_PROBE {
            return Err(RegistryError::ProbeMissing(name));
        }
        if activity.effect().needs_probe() && !A::OWNS {
            return Err(RegistryError::OwnsNothing(name));
        }
        if self.by_name.contains_key(&name) {
            return Err(RegistryError::Duplicate(name));
        }
        self.by_name.insert(name, Arc::new(Erased::new(activity)));
        Ok(())
    }

    /// Adds a plain async function as an idempotent activity without a probe. As nothing takes back what it did, it
    /// owns nothing (see [`Activity::OWNS`]): a rollback leaves it alone, and a run of such functions may be removed once
    /// it has ended, unless one of them recorded a resource or old values.
    ///
    /// # Errors
    /// When the name is taken or not allowed.
    pub fn add_fn<I, O, F, Fut>(&mut self, name: &str, function: F) -> Result<(), RegistryError>
    where
        I: Serialize + DeserializeOwned + Send + Sync + 'static,
        O: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: Fn(ActivityContext, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ActivityResult<O>> + Send + 'static,
    {
        self.add(name, FnActivity { function, undo: NoUndo, marker: PhantomData })
    }

    /// Adds a plain async function as an idempotent activity, with another one that takes back what it did.
    ///
    /// The undo runs for every step that ever started, also when no attempt answered: what it should take back may
    /// be there, in part or not at all. It is repeated like any attempt, and "not there" is success.
    ///
    /// # Errors
    /// When the name is taken or not allowed.
    pub fn add_fn_with_undo<I, O, F, Fut, U, UndoFut>(
        &mut self,
        name: &str,
        function: F,
        undo: U,
    ) -> Result<(), RegistryError>
    where
        I: Serialize + DeserializeOwned + Send + Sync + 'static,
        O: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: Fn(ActivityContext, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ActivityResult<O>> + Send + 'static,
        U: Fn(ActivityContext, Undoing<I, O>) -> UndoFut + Send + Sync + 'static,
        UndoFut: Future<Output = ActivityResult<()>> + Send + 'static,
    {
        self.add(name, FnActivity { function, undo: WithUndo(undo), marker: PhantomData })
    }

    /// Takes over all activities of `other`, or none.
    ///
    /// # Errors
    /// When a name is in both.
    pub fn merge(&mut self, mut other: Self) -> Result<(), RegistryError> {
        if let Some(name) = other.by_name.keys().find(|name| self.by_name.contains_key(*name)) {
            return Err(RegistryError::Duplicate(name.clone()));
        }
        self.by_name.append(&mut other.by_name);
        Ok(())
    }

    /// Puts something around every activity that is there: `wrap` gets its name and its code, and gives the code that
    /// is called instead. For measurements, limits and tests.
    pub fn wrap(&mut self, wrap: impl Fn(&ActivityName, Arc<dyn ErasedActivity>) -> Arc<dyn ErasedActivity>) {
        for (name, code) in &mut self.by_name {
            *code = wrap(name, Arc::clone(code));
        }
    }

    /// Looks an activity up.
    pub fn get(&self, name: &ActivityName) -> Option<&Arc<dyn ErasedActivity>> {
        self.by_name.get(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &ActivityName> {
        self.by_name.keys()
    }
}

/// What an undo given to [`ActivityRegistry::add_fn_with_undo`] gets to see.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undoing<I, O> {
    /// The step's input.
    pub input: I,
    /// What the step gave; `None` when no attempt answered. The effect may be there all the same.
    pub output: Option<O>,
    /// Everything that was recorded of the step.
    pub recorded: Recorded,
}

/// The undo of an [`FnActivity`], if it has one.
trait UndoFn<I, O>: Send + Sync + 'static {
    /// Whether it takes anything back.
    const OWNS: bool;

    fn undo(
        &self,
        ctx: &ActivityContext,
        input: &I,
        recorded: &Recorded,
    ) -> impl Future<Output = ActivityResult<Undo>> + Send;
}

struct NoUndo;

impl<I: Sync, O> UndoFn<I, O> for NoUndo {
    const OWNS: bool = false;

    async fn undo(&self, _: &ActivityContext, _: &I, _: &Recorded) -> ActivityResult<Undo> {
        Ok(Undo::NothingToDo)
    }
}

struct WithUndo<U>(U);

impl<I, O, U, Fut> UndoFn<I, O> for WithUndo<U>
where
    I: Serialize + DeserializeOwned + Send + Sync + 'static,
    O: DeserializeOwned + Send + 'static,
    U: Fn(ActivityContext, Undoing<I, O>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ActivityResult<()>> + Send + 'static,
{
    const OWNS: bool = true;

    async fn undo(&self, ctx: &ActivityContext, input: &I, recorded: &Recorded) -> ActivityResult<Undo> {
        // An output that no longer fits is an error, not a missing one: the undo would take it for an attempt that
        // never answered.
        let output = recorded.output.clone().map(serde_json::from_value).transpose().map_err(|e| {
            ActivityError::terminal("OutputMismatch", format!("the stored output does not fit the undo: {e}"))
                .no_effect()
        })?;
        let undoing = Undoing { input: to_owned(input)?, output, recorded: recorded.clone() };
        (self.0)(ctx.clone(), undoing).await.map(|()| Undo::Undone)
    }
}

/// A function owns its input; a round trip through JSON is how it was stored anyway.
fn to_owned<I: Serialize + DeserializeOwned>(input: &I) -> ActivityResult<I> {
    read_input(&write_output(input)?)
}

struct FnActivity<F, U, I, O> {
    function: F,
    undo: U,
    marker: PhantomData<fn(I) -> O>,
}

impl<I, O, F, Fut, U> Activity for FnActivity<F, U, I, O>
where
    I: Serialize + DeserializeOwned + Send + Sync + 'static,
    O: Serialize + DeserializeOwned + Send + Sync + 'static,
    F: Fn(ActivityContext, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ActivityResult<O>> + Send + 'static,
    U: UndoFn<I, O>,
{
    type Input = I;
    type Output = O;

    const OWNS: bool = U::OWNS;

    async fn execute(&self, ctx: &ActivityContext, input: &I) -> ActivityResult<O> {
        (self.function)(ctx.clone(), to_owned(input)?).await
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &I,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        self.undo.undo(ctx, input, recorded).await
    }
}

/// Things injected for activities, by type: clients, configuration.
#[derive(Clone, Default)]
pub struct Resources {
    by_type: BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resources({})", self.by_type.len())
    }
}

impl Resources {
    /// Adds `value`, in place of an earlier one of the same type.
    pub fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.by_type.insert(TypeId::of::<T>(), Arc::new(value));
    }

    /// The value of this type.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.by_type.get(&TypeId::of::<T>()).and_then(|v| Arc::clone(v).downcast().ok())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::super::{ContextInner, Effect, ErrorClass, Fence, Recorder, Resource, StopReason};
    use super::*;
    use crate::id::{RunId, StepName, StoreId};
    use crate::runtime::SystemClock;
    use crate::time::BoxFuture;

    struct NoProbe;
    impl Activity for NoProbe {
        type Input = ();
        type Output = ();
        fn effect(&self) -> Effect {
            Effect::Create
        }
        async fn execute(&self, _: &ActivityContext, (): &()) -> ActivityResult<()> {
            Ok(())
        }
    }

    #[test]
    fn a_create_without_a_probe_is_refused() {
        let mut registry = ActivityRegistry::new();
        assert!(matches!(registry.add("x", NoProbe), Err(RegistryError::ProbeMissing(_))));
    }

    struct OwnsNothing;
    impl Activity for OwnsNothing {
        type Input = ();
        type Output = ();
        const HAS_PROBE: bool = true;
        const OWNS: bool = false;
        fn effect(&self) -> Effect {
            Effect::Create
        }
        async fn execute(&self, _: &ActivityContext, (): &()) -> ActivityResult<()> {
            Ok(())
        }
    }

    #[test]
    fn a_create_that_owns_nothing_is_refused() {
        let mut registry = ActivityRegistry::new();
        assert!(matches!(registry.add("x", OwnsNothing), Err(RegistryError::OwnsNothing(_))));
    }

    struct Silent;
    impl Recorder for Silent {
        fn resource(&self, _: Resource) -> BoxFuture<'_, ActivityResult<()>> {
            Box::pin(async { Ok(()) })
        }
        fn before(&self, _: BTreeMap<String, Value>) -> BoxFuture<'_, ActivityResult<()>> {
            Box::pin(async { Ok(()) })
        }
        fn heartbeat(&self, _: Value) {}
    }

    fn context(fence: Option<Arc<dyn Fence>>) -> ActivityContext {
        ActivityContext::new(ContextInner {
            store: StoreId::generate([1; 16]),
            site: String::new(),
            run: RunId::new("r").unwrap(),
            step: StepName::new("s").unwrap(),
            attempt: 1,
            generation: 1,
            deadline: None,
            last_heartbeat: None,
            cancel: CancellationToken::new(),
            stop: Arc::default(),
            fence,
            recorder: Arc::new(Silent),
            resources: Resources::default(),
            clock: Arc::new(SystemClock),
            kept: Vec::new(),
        })
    }

    type Seen = Arc<Mutex<Vec<(String, Option<u32>, usize)>>>;

    /// An activity whose undo notes what it gets, and fails when its input says so.
    fn undoable(seen: &Seen) -> Arc<dyn ErasedActivity> {
        let seen = Arc::clone(seen);
        let mut registry = ActivityRegistry::new();
        registry
            .add_fn_with_undo(
                "make",
                |_ctx, name: String| async move {
                    u32::try_from(name.len()).map_err(|_| ActivityError::cancelled())
                },
                move |_ctx, undoing: Undoing<String, u32>| {
                    let seen = Arc::clone(&seen);
                    async move {
                        if undoing.input == "stuck" {
                            return Err(ActivityError::terminal("Stuck", "it does not go"));
                        }
                        let ids = undoing.recorded.ids("thing").count();
                        seen.lock().unwrap().push((undoing.input, undoing.output, ids));
                        Ok(())
                    }
                },
            )
            .unwrap();
        Arc::clone(registry.get(&ActivityName::new("make").unwrap()).unwrap())
    }

    #[tokio::test]
    async fn an_undo_sees_what_there_is() {
        let seen = Seen::default();
        let activity = undoable(&seen);
        let ctx = context(None);
        assert_eq!(activity.effect(), Effect::Idempotent);
        assert_eq!(activity.execute(&ctx, &json!("four")).await, Ok(json!(4)));

        let thing = Resource { kind: "thing".into(), id: "t1".into(), generation: 1 };
        let answered = Recorded { output: Some(json!(4)), resources: vec![thing], before: BTreeMap::new() };
        assert_eq!(activity.compensate(&ctx, &json!("four"), &answered).await, Ok(Undo::Undone));
        // No attempt answered: it runs all the same.
        assert_eq!(activity.compensate(&ctx, &json!("four"), &Recorded::default()).await, Ok(Undo::Undone));
        assert_eq!(*seen.lock().unwrap(), [("four".to_owned(), Some(4), 1), ("four".to_owned(), None, 0)]);
    }

    #[tokio::test]
    async fn an_undo_that_fails_or_cannot_read_the_output_says_so() {
        let seen = Seen::default();
        let activity = undoable(&seen);
        let ctx = context(None);
        let stuck = activity.compensate(&ctx, &json!("stuck"), &Recorded::default()).await;
        assert_eq!(stuck.unwrap_err().code, "Stuck");
        let foreign = Recorded { output: Some(json!("no number")), ..Recorded::default() };
        let error = activity.compensate(&ctx, &json!("four"), &foreign).await.unwrap_err();
        assert_eq!(error.code, "OutputMismatch");
        assert!(seen.lock().unwrap().is_empty(), "the undo did not run on half a truth");
    }

    #[tokio::test]
    async fn a_function_without_an_undo_has_nothing_to_take_back() {
        let mut registry = ActivityRegistry::new();
        registry.add_fn("plain", |_ctx, n: u32| async move { Ok(n) }).unwrap();
        let activity = registry.get(&ActivityName::new("plain").unwrap()).unwrap();
        let undo = activity.compensate(&context(None), &json!(1), &Recorded::default()).await;
        assert_eq!(undo, Ok(Undo::NothingToDo));
        assert!(!activity.owns());
        assert!(undoable(&Seen::default()).owns(), "there is something to take back");
    }

    #[test]
    fn types_are_checked_and_have_shapes() {
        let activity = undoable(&Seen::default());
        assert_eq!(activity.check_input(&json!("x")), Ok(()));
        assert!(activity.check_input(&json!(1)).is_err());
        assert_eq!(activity.check_output(&json!(1)), Ok(()));
        assert!(activity.check_output(&json!("x")).is_err());
        let shapes = activity.shapes();
        assert_eq!(shapes.input, crate::shape::shape_of::<String>().hash());
        assert_eq!(shapes.output, crate::shape::shape_of::<u32>().hash());
    }

    #[test]
    fn merging_takes_all_or_nothing() {
        let with = |names: &[&str]| {
            let mut registry = ActivityRegistry::new();
            for name in names {
                registry.add_fn(name, |_ctx, (): ()| async { Ok(()) }).unwrap();
            }
            registry
        };
        let names =
            |registry: &ActivityRegistry| registry.names().map(ToString::to_string).collect::<Vec<_>>();
        let mut registry = with(&["b"]);
        registry.merge(with(&["a", "c"])).unwrap();
        assert_eq!(names(&registry), ["a", "b", "c"]);
        let twice = registry.merge(with(&["a0", "b", "d"]));
        assert_eq!(twice, Err(RegistryError::Duplicate(ActivityName::new("b").unwrap())));
        assert_eq!(names(&registry), ["a", "b", "c"]);
    }

    #[test]
    fn a_context_tells_why_to_stop_and_whether_the_run_is_ours() {
        struct Ended(bool);
        impl Fence for Ended {
            fn epoch(&self) -> ActivityResult<u64> {
                if self.0 { Err(ActivityError::lost_ownership("the lease ended")) } else { Ok(7) }
            }
        }
        let ctx = context(None);
        assert_eq!((ctx.fence(), ctx.stop_reason()), (Ok(()), None));
        ctx.inner.stop.set(StopReason::Pause).unwrap();
        assert_eq!(ctx.stop_reason(), Some(StopReason::Pause));
        assert_eq!(context(Some(Arc::new(Ended(false)))).fence(), Ok(()));
        let error = context(Some(Arc::new(Ended(true)))).fence().unwrap_err();
        assert_eq!((error.class, error.code.as_str()), (ErrorClass::Cancelled, "LostOwnership"));
        assert!(error.no_effect);
    }
}
