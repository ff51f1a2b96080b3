//! Taking back what several runs made, as one run of its own.
//!
//! A run takes back its own things by a rollback. A *takeover* is a run that did not make the things itself: forward, each
//! of its steps takes over what a step of earlier runs made, which changes nothing; then it turns round, and its rollback
//! calls the compensations of those steps, each in the name of the run that made the thing. So it has all that a rollback
//! has: the reverse order, durable and resumable, retries, things that are kept, and a stuck step that can be retried,
//! marked undone or abandoned. A takeover that is done is [`RolledBack`](crate::run::RunStatus::RolledBack).
//!
//! What is taken over stands in the takeover's input, as the histories of the runs have it. Ownership is proven by each
//! compensation, by the marks of the run that made the thing: what an earlier run adopted, and what is foreign, stays.
//!
//! The runs that were taken over do not learn of it by themselves: [`close_books`] makes a registry with which their own
//! rollback writes that down and calls nothing.

mod activities;
mod order;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::activity::{ActivityRegistry, RegistryError};
use crate::graph::{Binding, Graph, GraphError, Step, StepKind};
use crate::id::{ActivityName, RunId, StepName};
use crate::retry::RetryPolicy;
use crate::run::state::{Ledger, RunState, StepState};
use crate::run::{OnTrouble, StepStatus};

pub use activities::{Creator, TakeOverInput, close_books};

/// The activity whose undo calls the compensations of other runs' steps.
pub const TAKE_OVER: &str = "takeover.take-over";
/// The activity that turns a takeover round: it always fails, after which the run takes back.
pub const TURN_ROUND: &str = "takeover.turn-round";
/// The step of [`TURN_ROUND`].
pub const TURN_STEP: &str = "turn-round";
/// The code that [`TURN_ROUND`] fails with.
pub const TURN_CODE: &str = "TurnRound";
/// Where the input of a takeover has the steps.
const STEPS: &str = "steps";
/// Where the input of a takeover has the runs.
const RUNS: &str = "runs";

/// A run that was taken over, as it stood then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The run.
    pub run: RunId,
    /// Its last event.
    pub seq: u64,
}

/// A takeover that can be started.
#[derive(Debug, Clone)]
pub struct Takeover {
    /// What to do.
    pub graph: Graph,
    /// What the graph is bound to; [`taken`] reads the runs from it. More keys may be added.
    pub input: Map<String, Value>,
    /// The steps whose effects are taken back, with the runs that made them, newest first.
    pub steps: BTreeMap<StepName, Vec<RunId>>,
}

/// Adds the activities of takeovers. They call those that are in the registry now.
///
/// # Errors
/// When the names are taken.
pub fn register(activities: &mut ActivityRegistry) -> Result<(), RegistryError> {
    let below = activities.clone();
    activities.add(TAKE_OVER, activities::TakeOver::new(below))?;
    activities.add(TURN_ROUND, activities::TurnRound)
}

/// The runs that a takeover with this input took over.
pub fn taken(input: &Value) -> Vec<Taken> {
    input.get(RUNS).and_then(|runs| serde_json::from_value(runs.clone()).ok()).unwrap_or_default()
}

/// Whether the step may have left something that is this run's.
fn has_effect(s: &StepState) -> bool {
    // What a rollback kept is looked at again: what it was kept for may be gone.
    s.may_have_effect() || (s.status == StepStatus::Kept && s.intent)
}

fn creator(state: &RunState, step: &Step, s: &StepState) -> Option<Creator> {
    let StepKind::Activity { activity, .. } = &step.kind else { return None };
    Some(Creator {
        run: state.id.clone(),
        step: step.name.clone(),
        generation: s.generation,
        activity: activity.clone(),
        input: s.input.as_deref().cloned().unwrap_or(Value::Null),
        past_inputs: s.past_inputs.iter().map(|input| input.as_ref().clone()).collect(),
        recorded: s.recorded(),
        unknown: matches!(s.ledger, Ledger::Intent | Ledger::Unknown { .. }) && s.probed,
    })
}

/// The takeover of these runs; `None` when none of them has left anything. `root` comes before everything, so that its undo
/// is the last; steps of runs that call one of `without` are left out, because `root` does their part.
///
/// Runs of a sub-workflow are runs like others: hand them in too. The order is that of the runs' graphs, laid over each
/// other, the newest first; where an older one says the opposite of a newer, the newer is right.
///
/// # Errors
/// When the graph is over a limit.
pub fn takeover(
    runs: &[RunState],
    root: Option<Step>,
    without: &[ActivityName],
) -> Result<Option<Takeover>, GraphError> {
    let mut runs: Vec<&RunState> = runs.iter().filter(|run| run.imported.is_none()).collect();
    runs.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
    if !runs.iter().any(|run| run.is_live()) {
        return Ok(None);
    }
    let mut creators: BTreeMap<StepName, Vec<Creator>> = BTreeMap::new();
    let mut templates: BTreeMap<StepName, Step> = BTreeMap::new();
    for run in &runs {
        for (step, s) in run.graph.steps().iter().zip(&run.steps) {
            let left_out = step.kind.activity().is_none_or(|name| without.contains(name));
            if left_out || !has_effect(s) {
                continue;
            }
            let Some(creator) = creator(run, step, s) else { continue };
            creators.entry(step.name.clone()).or_default().push(creator);
            let template = templates.entry(step.name.clone()).or_insert_with(|| step.clone());
            template.protect |= step.protect;
        }
    }
    let names: BTreeSet<StepName> = creators.keys().cloned().collect();
    let before = order::before(&runs, &names);
    let mut graph = Graph::builder();
    let root_name = root.as_ref().map(|root| root.name.clone());
    if let Some(root) = root {
        graph.push(root);
    }
    for (name, template) in templates {
        let many = u64::try_from(creators[&name].len()).unwrap_or(u64::MAX);
        let pointer = format!("/{STEPS}/{}", name.as_str().replace('~', "~0").replace('/', "~1"));
        let activity = ActivityName::new(TAKE_OVER).expect("a good name");
        let mut step =
            Step { when: None, on_failure: None, on_exhausted: None, expected_ms: None, ..template };
        step.undo_retry = Some(step.undo_policy());
        step.kind = StepKind::Activity { activity, input: Binding::Input { pointer } };
        step.after = before[&name].iter().cloned().chain(root_name.clone()).collect();
        // The undo of one step does the work of several.
        for limit in [&mut step.timeouts.start_to_close_ms, &mut step.timeouts.schedule_to_close_ms] {
            *limit = limit.map(|ms| ms.saturating_mul(many));
        }
        step.rates = Vec::new();
        // A key would be a part of an output that this run does not have.
        step.locks.retain(|lock| lock.key.is_none());
        graph.push(step);
    }
    let mut turn = Step::activity(
        StepName::new(TURN_STEP).expect("a good name"),
        ActivityName::new(TURN_ROUND).expect("a good name"),
        Binding::literal(Value::Null),
    );
    turn.after = names.iter().cloned().chain(root_name).collect();
    "everything is taken over; from here it is taken back".clone_into(&mut turn.title);
    turn.retry = RetryPolicy::attempts(1);
    (turn.on_failure, turn.on_exhausted) = (Some(OnTrouble::Rollback), Some(OnTrouble::Rollback));
    graph.push(turn);

    let steps =
        creators.iter().map(|(name, list)| (name.clone(), list.iter().map(|c| c.run.clone()).collect()));
    let mut input = Map::new();
    let all: Vec<Taken> = runs.iter().map(|run| Taken { run: run.id.clone(), seq: run.seq }).collect();
    input.insert(RUNS.to_owned(), json!(all));
    let steps_input: Map<String, Value> = creators
        .iter()
        .map(|(name, list)| (name.to_string(), json!(TakeOverInput { creators: list.clone() })))
        .collect();
    input.insert(STEPS.to_owned(), Value::Object(steps_input));
    Ok(Some(Takeover { steps: steps.collect(), graph: graph.build()?, input }))
}
