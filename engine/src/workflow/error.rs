//! What is wrong with a workflow. The builder keeps the first mistake and tells it at the end.

use crate::activity::RegistryError;
use crate::graph::GraphError;
use crate::id::{InvalidName, StepName, WorkflowName};

/// What is wrong with a workflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkflowError {
    /// A name breaks a rule.
    #[error("in workflow {workflow}: {error}")]
    Name {
        /// The workflow, as it was named.
        workflow: String,
        /// Which name, and the rule.
        error: InvalidName,
    },
    /// Two steps have one name.
    #[error("workflow {workflow} has two steps named {step}")]
    DuplicateStep {
        /// The workflow.
        workflow: WorkflowName,
        /// The name.
        step: StepName,
    },
    /// A handle from another workflow was used.
    #[error(
        "workflow {workflow} uses {what} of workflow {other}; \
         handles go only into the workflow whose builder made them"
    )]
    Foreign {
        /// The workflow that is being built.
        workflow: WorkflowName,
        /// What was used, as "step pay" or "the input".
        what: String,
        /// Whose it is.
        other: WorkflowName,
    },
    /// A value written into the workflow cannot be stored.
    #[error("a value in workflow {workflow} cannot be written as JSON: {why}")]
    BadValue {
        /// The workflow.
        workflow: WorkflowName,
        /// Why.
        why: String,
    },
    /// Two functions have one name.
    #[error("workflow {workflow} has two functions named {function}")]
    DuplicateFunction {
        /// The workflow.
        workflow: WorkflowName,
        /// The name.
        function: String,
    },
    /// The steps make no graph.
    #[error("workflow {workflow}: {error}")]
    Graph {
        /// The workflow.
        workflow: WorkflowName,
        /// Why.
        error: GraphError,
    },
    /// The code of a step cannot be registered.
    #[error("workflow {workflow}: {error}")]
    Code {
        /// The workflow.
        workflow: WorkflowName,
        /// Why.
        error: RegistryError,
    },
    /// The engine knows another workflow by that name.
    #[error(
        "another workflow named {workflow} is registered already, which differs in version, options, steps or code"
    )]
    Taken {
        /// The name.
        workflow: WorkflowName,
    },
}
