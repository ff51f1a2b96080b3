//! The builder: adds steps and hands out their handles.

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::function::{ActivityFn, Data, forget};
use super::input::{Given, Input, Items, Returns, Wiring};
use super::parts::{Shared, millis};
use super::step::{Approval, Call, Coded, Each, Gate, Own, Signal, Sleep, Step, Sub};
use super::{Workflow, WorkflowError};
use crate::activity::Activity;
use crate::graph::{Binding, OnParentClose, OnReject, StepKind};
use crate::id::{ActivityName, WorkflowName};

/// Adds steps to a workflow that takes an `I`. See [`Workflow::build`].
pub struct WorkflowBuilder<I> {
    parts: Shared,
    takes: PhantomData<fn(I)>,
}

impl<I> fmt::Debug for WorkflowBuilder<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkflowBuilder({})", self.parts.workflow())
    }
}

impl<I: Data, O: Data> Workflow<I, O> {
    /// Builds a workflow: `steps` adds its steps and ends with what a run returns. It is called once, now; only the
    /// functions that it hands to steps run later.
    ///
    /// # Errors
    /// The first mistake that was made: a bad name, two steps of one name, a handle of another workflow.
    pub fn build<R: Returns<O>>(
        name: impl Into<String>,
        steps: impl FnOnce(&WorkflowBuilder<I>) -> R,
    ) -> Result<Self, WorkflowError> {
        let name = name.into();
        let name =
            WorkflowName::new(name.clone()).map_err(|error| WorkflowError::Name { workflow: name, error })?;
        let builder = WorkflowBuilder { parts: Shared::new(name), takes: PhantomData };
        let output = steps(&builder).bind(&builder.wiring());
        let untyped = builder.parts.finish(output, fits::<I>)?;
        Ok(Self { untyped, types: PhantomData })
    }
}

fn fits<I: DeserializeOwned>(input: &Value) -> Result<(), String> {
    I::deserialize(input).map(drop).map_err(|e| e.to_string())
}

impl<I> WorkflowBuilder<I> {
    fn wiring(&self) -> Wiring<'_> {
        Wiring { parts: &self.parts }
    }

    fn place<T, K>(&self, name: String, kind: K, does: StepKind) -> Step<T, K> {
        Step::new(&self.parts, self.parts.add(name, does), kind)
    }

    /// What a run is given.
    pub fn input(&self) -> Given<I> {
        Given::new(&self.parts, Binding::Input { pointer: String::new() }, "input")
    }

    /// What a pure function makes of several things, as `w.compute((&a, &b), |(a, b): (u32, u32)| a + b)`; see
    /// [`Given::map`]. It is called `workflow/compute#n`.
    #[must_use = "a function that nothing takes is never called"]
    pub fn compute<T, U>(
        &self,
        from: impl Input<T>,
        function: impl Fn(T) -> U + Send + Sync + 'static,
    ) -> Given<U>
    where
        T: DeserializeOwned + 'static,
        U: Serialize,
    {
        Given::<T>::new(&self.parts, from.bind(&self.wiring()), "compute").map(function)
    }

    /// A step that calls an async function with `input`. Its code is found as `workflow/name`.
    pub fn step<T, U, F, M>(
        &self,
        name: impl Into<String>,
        function: F,
        input: impl Input<T>,
    ) -> Step<U, Call<T, U>>
    where
        T: Data,
        U: Data,
        F: ActivityFn<T, U, M>,
        F::Future: Send,
    {
        let name = name.into();
        let input = input.bind(&self.wiring());
        let coded = self.coded(&name, function);
        let activity = activity_of(coded.as_ref());
        self.place(name, Call(coded), StepKind::Activity { activity, input })
    }

    /// A step that calls an [`Activity`], which may bring a probe, a check and an undo.
    pub fn activity<A: Activity>(
        &self,
        name: impl Into<String>,
        activity: A,
        input: impl Input<A::Input>,
    ) -> Step<A::Output, Own> {
        let name = name.into();
        let input = input.bind(&self.wiring());
        let activity = self.own(&name, activity);
        self.place(name, Own, StepKind::Activity { activity, input })
    }

    /// A step that calls an async function for each item of a list known at run time, each as a step of its own named
    /// `name[key]`. It gives the list of what they gave, in order.
    pub fn map<T, U, F, M>(
        &self,
        name: impl Into<String>,
        items: impl Items<T>,
        function: F,
    ) -> Step<Vec<U>, Each<U, Call<T, U>>>
    where
        T: Data,
        U: Data,
        F: ActivityFn<T, U, M>,
        F::Future: Send,
    {
        let name = name.into();
        let items = items.bind(&self.wiring());
        let coded = self.coded(&name, function);
        let activity = activity_of(coded.as_ref());
        self.place(name, each(Call(coded)), map_kind(items, activity))
    }

    /// The same with an [`Activity`] for each item.
    pub fn map_activity<A: Activity>(
        &self,
        name: impl Into<String>,
        items: impl Items<A::Input>,
        activity: A,
    ) -> Step<Vec<A::Output>, Each<A::Output, Own>> {
        let name = name.into();
        let items = items.bind(&self.wiring());
        let activity = self.own(&name, activity);
        self.place(name, each(Own), map_kind(items, activity))
    }

    /// A step that runs another workflow, as a run of its own. Registering this one registers the other too.
    pub fn sub<T, U>(
        &self,
        name: impl Into<String>,
        workflow: &Workflow<T, U>,
        input: impl Input<T>,
    ) -> Step<U, Sub> {
        let input = input.bind(&self.wiring());
        self.parts.add_sub(workflow.untyped.clone());
        let (workflow, on_parent_close) = (workflow.name().to_string(), OnParentClose::default());
        self.place(name.into(), Sub, StepKind::SubWorkflow { workflow, input, on_parent_close })
    }

    /// A step that asks a person and waits for the answer. When they reject, it fails, unless
    /// [`continue_on_reject`](Step::continue_on_reject) says otherwise.
    pub fn gate(&self, name: impl Into<String>, question: impl Into<String>) -> Step<Approval, Gate> {
        let on_reject = OnReject::Fail;
        let kind = StepKind::Gate { question: question.into(), timeout_ms: None, default: None, on_reject };
        self.place(name.into(), Gate, kind)
    }

    /// A step that waits. The end is durable and in wall time.
    pub fn sleep(&self, name: impl Into<String>, duration: Duration) -> Step<(), Sleep> {
        let duration_ms = Binding::Literal { value: millis(duration).into() };
        self.place(name.into(), Sleep, StepKind::Sleep { duration_ms })
    }

    /// A step that waits for a number of milliseconds known at run time.
    pub fn sleep_ms(&self, name: impl Into<String>, duration_ms: impl Input<u64>) -> Step<(), Sleep> {
        let duration_ms = duration_ms.bind(&self.wiring());
        self.place(name.into(), Sleep, StepKind::Sleep { duration_ms })
    }

    /// A step that waits for a signal and gives what it carried. Signals that came early are kept and taken in order.
    pub fn signal<T: Data>(&self, name: impl Into<String>, signal: impl Into<String>) -> Step<T, Signal> {
        let kind = StepKind::Signal { signal: signal.into(), timeout_ms: None, default: None };
        self.place(name.into(), Signal, kind)
    }

    /// Notes the code of a step.
    fn coded<T, U, F, M>(&self, step: &str, function: F) -> Option<Coded<T, U>>
    where
        T: Data,
        U: Data,
        F: ActivityFn<T, U, M>,
        F::Future: Send,
    {
        let name = self.parts.activity_name(step)?;
        self.parts.note_values::<F>();
        let coded = Coded { name, type_id: TypeId::of::<F>(), function: forget(function) };
        let function = coded.function.clone();
        self.parts.set_code(
            &coded.name,
            &[coded.type_id],
            Box::new(move |activities, name| activities.add_fn(name, move |ctx, input| function(ctx, input))),
        );
        Some(coded)
    }

    fn own<A: Activity>(&self, step: &str, activity: A) -> ActivityName {
        let Some(name) = self.parts.activity_name(step) else { return no_activity() };
        let add =
            Box::new(|activities: &mut crate::ActivityRegistry, name: &str| activities.add(name, activity));
        self.parts.note_values::<A>();
        self.parts.set_code(&name, &[TypeId::of::<A>()], add);
        name
    }
}

fn each<O, C>(one: C) -> Each<O, C> {
    Each { one, gives: PhantomData }
}

fn map_kind(items: Binding, activity: ActivityName) -> StepKind {
    StepKind::Map { items, activity, max_concurrency: 0, tolerated_failures: 0 }
}

fn activity_of<T, U>(coded: Option<&Coded<T, U>>) -> ActivityName {
    coded.map_or_else(no_activity, |coded| coded.name.clone())
}

/// Stands where a mistake was noted: such a workflow is never built.
fn no_activity() -> ActivityName {
    ActivityName::new("none").expect("a name by the rules")
}
