//! What a workflow is: a name, a version, and the graph that a run of it is given.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::graph::Graph;
use crate::id::WorkflowName;
use crate::run::RunOptions;

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
        Self { name, version, options: RunOptions::default(), graph: Arc::new(graph) }
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
}
