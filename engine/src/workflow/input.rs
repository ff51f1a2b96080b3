//! What can be handed to a step: handles of earlier steps, the run's input, values, functions of those, tuples.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::parts::Shared;
use super::{Step, WorkflowError};
use crate::graph::Binding;

/// The workflow into which something is wired. For the builder's own use.
#[doc(hidden)]
pub struct Wiring<'a> {
    pub(super) parts: &'a Shared,
}

/// What a value at run time can come from. Implemented by all that implements [`Input`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be handed to a step",
    label = "is no handle of this workflow and no value",
    note = "write `value(..)` around a value that is known now"
)]
pub trait Source {
    /// The reference that is stored.
    #[doc(hidden)]
    fn bind(self, to: &Wiring<'_>) -> Binding;
}

/// What can be handed to a step that takes a `T`: a [`Step`] or [`Given`] of that type, or a reference to one; a
/// [`value`]; `()`; and tuples of up to eight of these.
#[diagnostic::on_unimplemented(
    message = "a step that takes `{T}` cannot be given `{Self}`",
    label = "does not give `{T}`",
    note = "a `Step<T>`, what `w.input()` and `.map(..)` give, `value(..)`, `()` and tuples of these can be handed to a step",
    note = "`.map(|x| ..)` turns what a step gives into what another one takes"
)]
pub trait Input<T>: Source {}

/// What a workflow that returns an `O` can end with: all that a step could be handed.
#[diagnostic::on_unimplemented(
    message = "a workflow that returns `{O}` cannot end with `{Self}`",
    label = "does not give `{O}`",
    note = "what the closure of `Workflow::build` ends with, without a `;`, is what a run returns"
)]
pub trait Returns<O>: Source {}

#[diagnostic::do_not_recommend]
impl<O, S: Input<O>> Returns<O> for S {}

/// What a step's condition can be: all that gives a `bool`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no condition: `when` takes what gives a `bool`",
    label = "does not give a `bool`",
    note = "`.map(|x| ..)` turns what a step gives into a `bool`"
)]
pub trait Condition: Source {}

#[diagnostic::do_not_recommend]
impl<S: Input<bool>> Condition for S {}

/// What a map can go over: all that gives a `Vec<T>`.
#[diagnostic::on_unimplemented(
    message = "a map cannot go over `{Self}`: it is no list of what the function takes",
    label = "does not give such a `Vec`",
    note = "the function of a map takes one item of the list"
)]
pub trait Items<T>: Source {}

#[diagnostic::do_not_recommend]
impl<T, S: Input<Vec<T>>> Items<T> for S {}

/// A `T` that is known when the run comes to it: the run's input, or what a function makes of earlier outputs.
pub struct Given<T> {
    parts: Shared,
    binding: Binding,
    /// What it comes from, as a step's name or `input`.
    root: String,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Given<T> {
    fn clone(&self) -> Self {
        Self {
            parts: self.parts.clone(),
            binding: self.binding.clone(),
            root: self.root.clone(),
            of: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Given<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Given({})", self.root)
    }
}

impl<T> Given<T> {
    pub(super) fn new(parts: &Shared, binding: Binding, root: &str) -> Self {
        Self { parts: parts.clone(), binding, root: root.to_owned(), of: PhantomData }
    }

    /// What a pure function makes of it. The function's result is recorded with the step that takes it. It is called
    /// `workflow/step#n`, counted for each step: runs that go on under newer code find it by that name, so add new
    /// ones behind old ones, or name them with [`Given::map_as`].
    #[must_use = "a function that nothing takes is never called"]
    pub fn map<U: Serialize>(&self, function: impl Fn(T) -> U + Send + Sync + 'static) -> Given<U>
    where
        T: DeserializeOwned + 'static,
    {
        self.function(None, function)
    }

    /// The same with a name of its own, as `address`, unique among the functions on one step's output.
    #[must_use = "a function that nothing takes is never called"]
    pub fn map_as<U: Serialize>(
        &self,
        name: impl Into<String>,
        function: impl Fn(T) -> U + Send + Sync + 'static,
    ) -> Given<U>
    where
        T: DeserializeOwned + 'static,
    {
        self.function(Some(name.into()), function)
    }

    fn function<U, F>(&self, name: Option<String>, function: F) -> Given<U>
    where
        T: DeserializeOwned + 'static,
        U: Serialize,
        F: Fn(T) -> U + Send + Sync + 'static,
    {
        let name = self.parts.add_function::<T, U, F>(&self.root, name, function);
        let binding = Binding::Function { name, argument: Box::new(self.binding.clone()) };
        Given::new(&self.parts, binding, &self.root)
    }

    /// The same for readers that can do without it: `None` where its step was skipped.
    pub fn optional(&self) -> Given<Option<T>> {
        Given::new(&self.parts, self.binding.clone(), &self.root)
    }
}

impl<T> Source for &Given<T> {
    fn bind(self, to: &Wiring<'_>) -> Binding {
        let what = || match self.root.as_str() {
            "input" => "the input".to_owned(),
            root => format!("what comes from {root}"),
        };
        if to.parts.owns(&self.parts, what) { self.binding.clone() } else { nothing() }
    }
}

impl<T> Source for Given<T> {
    fn bind(self, to: &Wiring<'_>) -> Binding {
        (&self).bind(to)
    }
}

impl<T> Input<T> for Given<T> {}
impl<T> Input<T> for &Given<T> {}

impl<T, K> Source for &Step<T, K> {
    fn bind(self, to: &Wiring<'_>) -> Binding {
        self.reference(to.parts).map_or_else(nothing, |name| Binding::output(&name, ""))
    }
}

impl<T, K> Source for Step<T, K> {
    fn bind(self, to: &Wiring<'_>) -> Binding {
        (&self).bind(to)
    }
}

impl<T, K> Input<T> for Step<T, K> {}
impl<T, K> Input<T> for &Step<T, K> {}

/// Stands where a mistake was noted: such a workflow is never built.
fn nothing() -> Binding {
    Binding::Literal { value: serde_json::Value::Null }
}

/// A value that is known when the workflow is built; made by [`value`].
#[derive(Debug, Clone)]
pub struct Literal<T>(T);

/// A value that is known when the workflow is built. It is part of the workflow's graph and stored with it.
pub fn value<T: Serialize>(value: T) -> Literal<T> {
    Literal(value)
}

impl<T: Serialize> Source for Literal<T> {
    fn bind(self, to: &Wiring<'_>) -> Binding {
        match serde_json::to_value(self.0) {
            Ok(value) => Binding::Literal { value },
            Err(e) => {
                let workflow = to.parts.workflow().clone();
                to.parts.wrong(WorkflowError::BadValue { workflow, why: e.to_string() });
                nothing()
            }
        }
    }
}

impl<T: Serialize> Input<T> for Literal<T> {}
impl Input<String> for Literal<&str> {}

impl Source for () {
    fn bind(self, _: &Wiring<'_>) -> Binding {
        nothing()
    }
}

impl Input<()> for () {}

macro_rules! tuples {
    ($(($($source:ident: $of:ident),+))+) => {$(
        impl<$($source: Source),+> Source for ($($source,)+) {
            fn bind(self, to: &Wiring<'_>) -> Binding {
                #[expect(non_snake_case, reason = "named after their types")]
                let ($($source,)+) = self;
                Binding::List { items: vec![$($source.bind(to)),+] }
            }
        }

        impl<$($source: Input<$of>, $of),+> Input<($($of,)+)> for ($($source,)+) {}
    )+};
}

tuples! {
    (A: TA)
    (A: TA, B: TB)
    (A: TA, B: TB, C: TC)
    (A: TA, B: TB, C: TC, D: TD)
    (A: TA, B: TB, C: TC, D: TD, E: TE)
    (A: TA, B: TB, C: TC, D: TD, E: TE, F: TF)
    (A: TA, B: TB, C: TC, D: TD, E: TE, F: TF, G: TG)
    (A: TA, B: TB, C: TC, D: TD, E: TE, F: TF, G: TG, H: TH)
}
