//! The teardown of a site: takes back what any run of the store and site made, as a run of its own.
//!
//! It is a [takeover] of the site's runs: what each step of them made is taken back by that
//! step's own undo, in the reverse order of their graphs, and proves at that time that the thing carries the marks of the
//! run that made it. What a run adopted, and what is foreign, is nobody's to delete. At the end AWS is searched for
//! anything that still carries the marks of the store and site.
//!
//! Nothing here reads the store: the caller hands in the runs as their histories have them.

use std::collections::{BTreeMap, BTreeSet};

use dssflow_activities::aws::{identity, site_sweep};
use dssflow_activities::wildcard::matches;
use dssflow_engine::activity::{ActivityRegistry, RegistryError};
use dssflow_engine::graph::{Binding, Graph, GraphError, Step, Timeouts};
use dssflow_engine::id::{ActivityName, RunId, StepName, WorkflowName};
use dssflow_engine::run::{OnTrouble, RunOptions, RunState};
use dssflow_engine::takeover;
use serde_json::Value;

use crate::Workflow;
use crate::site::Site;

/// The workflow's name.
pub const NAME: &str = "teardown";
/// The workflow's version; rises when the same runs give another graph.
pub const VERSION: u32 = 1;
/// The step whose undo is the last look.
pub const SWEEP_STEP: &str = "site-sweep";
/// How long the last look goes on finding nothing, in seconds: a lost request can land late.
const QUIET_S: u64 = 60;
/// How long one attempt of the last look may take.
const SWEEP_LIMIT: std::time::Duration = std::time::Duration::from_mins(10);
/// Where the workflow's input has the site.
const SITE: &str = "site";

/// A teardown that can be started.
#[derive(Debug, Clone)]
pub struct Teardown {
    /// The workflow.
    pub workflow: Workflow,
    /// The steps whose effects are taken back, with the runs that made them, newest first.
    pub steps: BTreeMap<StepName, Vec<RunId>>,
    /// Of those the ones that `protect` keeps.
    pub protected: BTreeSet<StepName>,
}

/// The teardown of what these runs of a site made; `None` when they have left nothing. Steps that `protect` names, in this
/// site or in what a run was made with, are kept.
///
/// # Errors
/// When together they have more steps than a graph may have.
pub fn teardown(site: &Site, runs: &[RunState]) -> Result<Option<Teardown>, GraphError> {
    let quiet_seconds = if site.aws.endpoint_url.is_some() { 0 } else { QUIET_S };
    let input = Binding::literal(site_sweep::SiteSweepInput { quiet_seconds });
    let mut sweep = Step::activity(name(SWEEP_STEP), activity(site_sweep::NAME), input);
    "nothing carries the marks of this store and site any more".clone_into(&mut sweep.title);
    sweep.timeouts = Timeouts::per_attempt(SWEEP_LIMIT);
    // Each run's own last look is a part of that of the site.
    let Some(made) = takeover::takeover(runs, Some(sweep), &[activity(identity::NAME)])? else {
        return Ok(None);
    };
    let mut graph = Graph::builder();
    let mut protected = BTreeSet::new();
    for step in made.graph.steps() {
        let mut step = step.clone();
        step.protect |= site.protect.iter().any(|pattern| matches(pattern, step.name.as_str()));
        if step.protect && made.steps.contains_key(&step.name) {
            protected.insert(step.name.clone());
        }
        graph.push(step);
    }
    let mut input = made.input;
    input.insert(SITE.to_owned(), serde_json::to_value(site).expect("a site is plain data"));
    let workflow = Workflow {
        name: WorkflowName::new(NAME).expect("a good name"),
        version: VERSION,
        site: site.name.clone(),
        graph: graph.build()?,
        input: Value::Object(input),
        options: RunOptions {
            parallelism: site.parallelism,
            on_exhausted: OnTrouble::Pause,
            on_failure: OnTrouble::Pause,
            ..RunOptions::default()
        },
    };
    Ok(Some(Teardown { workflow, steps: made.steps, protected }))
}

/// Adds the activities of teardowns. They call those that are in the registry now: it comes last.
///
/// # Errors
/// When the names are taken.
pub fn register(activities: &mut ActivityRegistry) -> Result<(), RegistryError> {
    takeover::register(activities)
}

/// The part of a run's input that is its site: of a teardown a part, of other workflows all of it.
pub fn site_in<'a>(workflow: &str, input: &'a Value) -> &'a Value {
    if workflow == NAME { input.get(SITE).unwrap_or(&Value::Null) } else { input }
}

fn name(text: &str) -> StepName {
    StepName::new(text).expect("a good name")
}

fn activity(text: &str) -> ActivityName {
    ActivityName::new(text).expect("a good name")
}
