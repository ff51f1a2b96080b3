//! Handles of steps: what is said of a step after it was added.

#![expect(
    clippy::return_self_not_must_use,
    reason = "they change the step they are called on; the handle is an extra"
)]

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Given;
use super::function::Function;
use super::input::{Condition, Source, Wiring};
use super::parts::{Place, Shared, millis};
use crate::graph::{Binding, LockUse, Timeouts};
use crate::id::{ActivityName, LockName, StepName};
use crate::retry::RetryPolicy;
use crate::run::OnTrouble;

/// A step that gives a `T`, of kind `K`: hand it to other steps, or say more of it. Cheap to clone; all clones are the
/// same step. The kind is there for methods that only some steps have; [`Step::any`] forgets it.
///
/// A step that is skipped gives nothing, and a step that takes a `T` from it fails: hand on [`Step::optional`], or give
/// the other the same condition.
pub struct Step<T, K = Any> {
    parts: Shared,
    place: Option<Place>,
    pub(super) kind: K,
    of: PhantomData<fn() -> T>,
}

/// The kind of a step whose kind does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Any;

/// The kind of a step that calls a function from `I` to `O`.
pub struct Call<I, O>(pub(super) Option<Coded<I, O>>);

/// The kind of a step that does for each item of a list what a step of kind `C` does, which gives an `O`.
#[derive(Debug)]
pub struct Each<O, C> {
    pub(super) one: C,
    pub(super) gives: PhantomData<fn() -> O>,
}

/// The kind of a step that calls an [`Activity`](crate::Activity), which brings its own undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own;

/// The kind of a step that runs another workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sub;

/// The kind of a step that asks a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate;

/// The kind of a step that waits for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sleep;

/// The kind of a step that waits for a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal;

/// A function and the name under which the engine finds it.
pub(super) struct Coded<I, O> {
    pub(super) name: ActivityName,
    pub(super) type_id: std::any::TypeId,
    pub(super) function: Function<I, O>,
}

impl<I, O> Clone for Coded<I, O> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), type_id: self.type_id, function: Arc::clone(&self.function) }
    }
}

impl<I, O> Clone for Call<I, O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I, O> fmt::Debug for Call<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Call").field(&self.0.as_ref().map(|coded| &coded.name)).finish()
    }
}

impl<O, C: Clone> Clone for Each<O, C> {
    fn clone(&self) -> Self {
        Self { one: self.one.clone(), gives: PhantomData }
    }
}

/// What a gate gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Whether it was let through.
    pub approved: bool,
    /// Who decided; `timeout` when nobody did in time.
    pub by: String,
    /// Why, as they said.
    pub reason: String,
}

impl<T, K: Clone> Clone for Step<T, K> {
    fn clone(&self) -> Self {
        Self {
            parts: self.parts.clone(),
            place: self.place.clone(),
            kind: self.kind.clone(),
            of: PhantomData,
        }
    }
}

impl<T, K> fmt::Debug for Step<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Step({})", self.shown_name())
    }
}

impl<T, K> Step<T, K> {
    pub(super) fn new(parts: &Shared, place: Option<Place>, kind: K) -> Self {
        Self { parts: parts.clone(), place, kind, of: PhantomData }
    }

    /// The same step, read as another type.
    pub(super) fn retyped<U>(self) -> Step<U, K> {
        Step { parts: self.parts, place: self.place, kind: self.kind, of: PhantomData }
    }

    pub(super) fn parts(&self) -> &Shared {
        &self.parts
    }

    fn shown_name(&self) -> &str {
        self.place.as_ref().map_or("?", |place| place.name.as_str())
    }

    /// Its name in another step's dependencies; nothing and a mistake noted when it is another workflow's.
    pub(super) fn reference(&self, in_parts: &Shared) -> Option<StepName> {
        let own = in_parts.owns(&self.parts, || format!("step {}", self.shown_name()));
        self.place.as_ref().filter(|_| own).map(|place| place.name.clone())
    }

    fn given(&self) -> Given<T> {
        let binding = match &self.place {
            Some(place) => Binding::output(&place.name, ""),
            None => Binding::Literal { value: serde_json::Value::Null },
        };
        Given::new(&self.parts, binding, self.shown_name())
    }

    /// The same step without its kind, to keep steps of several kinds together.
    pub fn any(&self) -> Step<T> {
        Step::new(&self.parts, self.place.clone(), Any)
    }

    /// What a pure function makes of its output; see [`Given::map`].
    #[must_use = "a function that nothing takes is never called"]
    pub fn map<U: Serialize>(&self, function: impl Fn(T) -> U + Send + Sync + 'static) -> Given<U>
    where
        T: DeserializeOwned + 'static,
    {
        self.given().map(function)
    }

    /// The same with a name of its own; see [`Given::map_as`].
    #[must_use = "a function that nothing takes is never called"]
    pub fn map_as<U: Serialize>(
        &self,
        name: impl Into<String>,
        function: impl Fn(T) -> U + Send + Sync + 'static,
    ) -> Given<U>
    where
        T: DeserializeOwned + 'static,
    {
        self.given().map_as(name, function)
    }

    /// Its output for readers that can do without it: `None` where it was skipped.
    pub fn optional(&self) -> Given<Option<T>> {
        self.given().optional()
    }

    pub(super) fn change(self, change: impl FnOnce(&mut crate::graph::Step)) -> Self {
        self.parts.change(self.place.as_ref(), change);
        self
    }

    /// How it is retried. Default: 8 attempts, from 2 s on, doubling up to a minute.
    pub fn retry(self, policy: RetryPolicy) -> Self {
        self.change(|step| step.retry = policy)
    }

    /// How its undo is retried; by default as the step, with twice the attempts.
    pub fn undo_retry(self, policy: RetryPolicy) -> Self {
        self.change(|step| step.undo_retry = Some(policy))
    }

    /// How long one attempt may take.
    pub fn timeout(self, per_attempt: Duration) -> Self {
        let limit = Timeouts::per_attempt(per_attempt).start_to_close_ms;
        self.change(|step| step.timeouts.start_to_close_ms = limit)
    }

    /// All its limits on time, in place of those set before.
    pub fn timeouts(self, timeouts: Timeouts) -> Self {
        self.change(|step| step.timeouts = timeouts)
    }

    /// It is skipped unless this is true. Said twice, the last counts.
    pub fn when(self, condition: impl Condition) -> Self {
        let condition = condition.bind(&Wiring { parts: &self.parts });
        self.change(|step| step.when = Some(condition))
    }

    /// It waits for this step, besides those whose output it takes.
    pub fn after<U, L>(self, other: &Step<U, L>) -> Self {
        match other.reference(&self.parts) {
            Some(name) => self.change(|step| step.after.push(name)),
            None => self,
        }
    }

    fn hold(self, name: impl Into<String>, how: impl FnOnce(LockName) -> LockUse) -> Self {
        match self.parts.checked(LockName::new(name)) {
            Some(name) => self.change(|step| step.locks.push(how(name))),
            None => self,
        }
    }

    /// It holds this lock alone while it runs or is undone. Locks are shared by all runs of a store.
    pub fn lock(self, name: impl Into<String>) -> Self {
        self.hold(name, LockUse::exclusive)
    }

    /// It shares this lock with others that do.
    pub fn shared_lock(self, name: impl Into<String>) -> Self {
        self.hold(name, LockUse::shared)
    }

    /// It holds one permit of this semaphore; see
    /// [`EngineBuilder::semaphore`](crate::runtime::EngineBuilder::semaphore).
    pub fn permit(self, name: impl Into<String>) -> Self {
        self.hold(name, LockUse::permit)
    }

    /// It holds one lock for each value of `key`, as one for each account. The value's text must make a name.
    pub fn keyed_lock(self, name: impl Into<String>, key: impl Source) -> Self {
        let key = key.bind(&Wiring { parts: &self.parts });
        self.hold(name, |name| LockUse::exclusive(name).keyed(key))
    }

    /// Its attempts keep to this rate; see [`EngineBuilder::rate`](crate::runtime::EngineBuilder::rate).
    pub fn rate(self, name: impl Into<String>) -> Self {
        match self.parts.checked(LockName::new(name)) {
            Some(name) => self.change(|step| step.rates.push(name)),
            None => self,
        }
    }

    /// A person is asked before it starts, by a step of its own named `step.gate`. That waits for all that this step
    /// waits for, and is skipped with it.
    pub fn gate(self, question: impl Into<String>) -> Self {
        self.parts.set_gate(self.place.as_ref(), question.into());
        self
    }

    /// Rollback leaves it alone.
    pub fn protect(self) -> Self {
        self.change(|step| step.protect = true)
    }

    /// Something that is there and not ours may be taken as it is. It is never undone then.
    pub fn adopt(self) -> Self {
        self.change(|step| step.adopt = true)
    }

    /// One line for people.
    pub fn title(self, title: impl Into<String>) -> Self {
        let title = title.into();
        self.change(|step| step.title = title)
    }

    /// A heading under which people see it.
    pub fn group(self, group: impl Into<String>) -> Self {
        let group = group.into();
        self.change(|step| step.group = group)
    }

    /// How long it usually takes; for progress only.
    pub fn expected(self, usually: Duration) -> Self {
        self.change(|step| step.expected_ms = Some(millis(usually)))
    }

    /// What follows when its attempts are used up; by default what the workflow's options say.
    pub fn on_exhausted(self, what: OnTrouble) -> Self {
        self.change(|step| step.on_exhausted = Some(what))
    }

    /// What follows when it fails for good; by default what the workflow's options say.
    pub fn on_failure(self, what: OnTrouble) -> Self {
        self.change(|step| step.on_failure = Some(what))
    }
}
