//! What a workflow is: a name, a version, and the graph that a run of it is given.
//!
//! [`Workflow::build`] is the typed way to write one: functions are steps, and what a step gives is handed to the next
//! as a [`Step`] of its type, so that wrong wiring does not compile. [`Definition`] is the form without types under
//! which an engine knows a workflow; write one by hand where the graph depends on what a run is given.
//!
//! Nothing here runs anything or knows a store.

mod build;
mod error;
mod function;
mod input;
mod parts;
mod register;
mod step;
mod steps;

use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde_json::Value;

pub use self::build::WorkflowBuilder;
pub use self::error::WorkflowError;
pub use self::function::{ActivityFn, Data, UndoFn};
#[doc(hidden)]
pub use self::function::{Called, Never};
pub use self::input::{Condition, Given, Input, Items, Literal, Returns, Source, Wiring, value};
pub use self::step::{Any, Approval, Call, Each, Gate, Own, Signal, Sleep, Step, Sub};

use crate::activity::ActivityRegistry;
use crate::graph::Graph;
use crate::id::WorkflowName;
use crate::run::RunOptions;
use crate::run::resolve::FunctionRegistry;
use crate::store::GraphHash;

type MakeGraph = Arc<dyn Fn(&Value) -> Result<Graph, String> + Send + Sync>;

/// A workflow as the engine knows it by name: to start it as a sub-workflow, and to bring runs to its present version.
#[derive(Clone)]
pub struct Definition {
    /// Its name.
    pub name: WorkflowName,
    /// Its version; higher is newer.
    pub version: u32,
    /// How its runs behave.
    pub options: RunOptions,
    graph: MakeGraph,
    made: Option<Arc<Made>>,
}

/// What tells whether two typed workflows are the same: the graph, and which code its names stand for.
#[derive(PartialEq, Eq)]
struct Made {
    graph: GraphHash,
    code: BTreeMap<String, TypeId>,
    /// Whether code carries values, as a closure that captures: those cannot be compared.
    carries: bool,
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Definition({} {})", self.name, self.version)
    }
}

impl Definition {
    /// A workflow whose runs all have the same graph.
    pub fn fixed(name: WorkflowName, version: u32, graph: Graph) -> Self {
        Self::computed(name, version, move |_| Ok(graph.clone()))
    }

    /// A workflow whose graph depends on what a run is given. The function must be pure.
    pub fn computed(
        name: WorkflowName,
        version: u32,
        graph: impl Fn(&Value) -> Result<Graph, String> + Send + Sync + 'static,
    ) -> Self {
        Self { name, version, options: RunOptions::default(), graph: Arc::new(graph), made: None }
    }

    /// Sets how its runs behave.
    #[must_use]
    pub fn options(mut self, options: RunOptions) -> Self {
        self.options = options;
        self
    }

    /// The graph of a run that is given `input`.
    ///
    /// # Errors
    /// What is wrong with the input.
    pub fn graph(&self, input: &Value) -> Result<Graph, String> {
        (self.graph)(input)
    }

    /// Whether the other is this one, or was built the same way from the same functions. Where functions carry values of
    /// their own, nothing but being this one will do: the same closure with another value does something else.
    fn is_same(&self, other: &Self) -> bool {
        let alike = match (&self.made, &other.made) {
            (Some(made), Some(others)) => Arc::ptr_eq(made, others) || (made == others && !made.carries),
            _ => Arc::ptr_eq(&self.graph, &other.graph),
        };
        alike && self.name == other.name && self.version == other.version && self.options == other.options
    }
}

/// A workflow that takes an `I` and returns an `O`, with the code of its steps. Cheap to clone.
///
/// Give it to [`EngineBuilder::register`](crate::runtime::EngineBuilder::register), then to
/// [`Engine::run`](crate::Engine::run) or [`Engine::submit`](crate::Engine::submit).
pub struct Workflow<I, O> {
    untyped: Untyped,
    types: PhantomData<fn(I) -> O>,
}

/// A workflow with its code and without its types.
#[derive(Clone)]
struct Untyped {
    definition: Definition,
    code: Arc<Code>,
}

struct Code {
    graph: Graph,
    activities: ActivityRegistry,
    functions: FunctionRegistry,
    subs: Vec<Untyped>,
}

impl<I, O> Clone for Workflow<I, O> {
    fn clone(&self) -> Self {
        Self { untyped: self.untyped.clone(), types: PhantomData }
    }
}

impl<I, O> fmt::Debug for Workflow<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Definition { name, version, .. } = self.definition();
        write!(f, "Workflow({name} {version}, {} steps)", self.graph().len())
    }
}

impl<I, O> Workflow<I, O> {
    /// With another version; the first is 1. Raise it when runs of the old one should be told apart.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.untyped.definition.version = version;
        self
    }

    /// With other rules for its runs.
    #[must_use]
    pub fn options(mut self, options: RunOptions) -> Self {
        self.untyped.definition.options = options;
        self
    }

    /// Its name.
    pub fn name(&self) -> &WorkflowName {
        &self.untyped.definition.name
    }

    /// The form without types under which an engine knows it.
    pub fn definition(&self) -> &Definition {
        &self.untyped.definition
    }

    /// What its runs do.
    pub fn graph(&self) -> &Graph {
        &self.untyped.code.graph
    }

    /// The code of its steps, named `workflow/step`.
    pub fn activities(&self) -> &ActivityRegistry {
        &self.untyped.code.activities
    }

    /// The functions between its steps, named `workflow/step#n`.
    pub fn functions(&self) -> &FunctionRegistry {
        &self.untyped.code.functions
    }
}
