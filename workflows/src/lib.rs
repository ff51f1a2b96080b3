//! The workflows dssflow ships. Checked parameters in, a graph out: nothing here reads a file, a clock or the
//! network, and the same parameters give the same graph.
//!
//! ```
//! let site = dssflow_workflows::parse(include_str!("../examples/site.yaml"), "site.yaml")?;
//! let workflow = dssflow_workflows::bootstrap(&site)?;
//! assert_eq!(workflow.graph.steps()[0].name.as_str(), "identity");
//!
//! // A file that is wrong is told everything that is wrong with it.
//! let errors = dssflow_workflows::parse("name: lab\nregion: Ireland", "site.yaml").unwrap_err();
//! assert!(errors.problems.iter().any(|p| p.path == "region"));
//! # Ok::<(), dssflow_workflows::SiteErrors>(())
//! ```

pub mod bootstrap;
mod expected;
pub mod glue_resync;
pub mod image;
pub mod init;
pub mod permissions;
pub mod preflight;
mod security;
pub mod site;
pub mod teardown;

use dssflow_engine::graph::Graph;
use dssflow_engine::id::WorkflowName;
use dssflow_engine::run::RunOptions;
use dssflow_engine::run::resolve::FunctionRegistry;

pub use bootstrap::{bootstrap, costs, required_account, summary, wired_not_exercised};
pub use expected::expected_duration;
pub use glue_resync::{ResyncSpec, glue_resync};
pub use image::{ImageSpec, image};
pub use init::{InstanceFacts, SubnetFacts, init_template};
pub use preflight::{RESYNC_CHECKS, preflight, preflight_resync};
pub use security::security_notes;
pub use site::{Site, SiteErrors, SiteProblem, parse, schema};
pub use teardown::{Teardown, teardown};

/// A workflow with its parameters filled in, ready to be started.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// Its name.
    pub name: WorkflowName,
    /// Its version; rises when the same parameters give another graph.
    pub version: u32,
    /// What a set of runs builds and owns together.
    pub site: String,
    /// What to do.
    pub graph: Graph,
    /// The parameters. Secrets are not in them, only where they are.
    pub input: serde_json::Value,
    /// How a run of it behaves.
    pub options: RunOptions,
}

/// Adds the functions that bindings of the graphs name.
pub fn register_functions(functions: &mut FunctionRegistry) {
    bootstrap::register_functions(functions);
    glue_resync::register_functions(functions);
}
