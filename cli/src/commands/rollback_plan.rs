//! `dssflow rollback --dry-run`: what a rollback would take back, in its order, and what would stay. From what the store
//! knows: nothing is asked and nothing is changed.

use std::collections::BTreeSet;

use dssflow_engine::graph::Graph;
use dssflow_engine::id::{RunId, StepName};
use dssflow_engine::run::StepStatus;
use dssflow_engine::run::view::{RunView, StepView};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::FollowFormat;
use crate::describe;
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::ui::{Ui, one_line};

/// What a rollback would do.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RollbackPlan {
    /// The run.
    run: RunId,
    /// What would be taken back, first things first. Steps that do not depend on each other go at the same time.
    takes_back: Vec<Taken>,
    /// What the run made, or may have made, and would stay.
    stays: Vec<Stays>,
    /// Steps that found what they were to make: it was there before the run, and is never taken back.
    not_of_this_run: Vec<StepName>,
}

/// A step that would be undone.
#[derive(Debug, Serialize, JsonSchema)]
struct Taken {
    step: StepName,
    /// One line on what it did.
    title: String,
    /// What it is known to have made, as `kind id`.
    made: Vec<String>,
}

/// A step whose work would stay.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "StaysInPlace")]
struct Stays {
    step: StepName,
    why: String,
}

impl RollbackPlan {
    /// What a rollback of the run as it stands would do.
    pub(super) fn of(view: &RunView, graph: &Graph, to: Option<&StepName>, keep: &[StepName]) -> Self {
        let scope = to.map(|to| after(view, to));
        let mut plan = Self {
            run: view.run.clone(),
            takes_back: Vec::new(),
            stays: Vec::new(),
            not_of_this_run: Vec::new(),
        };
        // Steps of a view stand in topological order.
        for step in view.steps.iter().rev() {
            if step.status == StepStatus::Adopted {
                plan.not_of_this_run.push(step.step.clone());
            }
            if !step.live {
                continue;
            }
            let is_protected = graph.index_of(&step.step).is_some_and(|ix| graph.step(ix).protect);
            let why = match (to, &scope) {
                _ if is_protected => "protected by the spec".to_owned(),
                (Some(to), Some(scope)) if !scope.contains(&step.step) => {
                    format!("made before {to} was done")
                }
                _ if keep.contains(&step.step) => "kept on request".to_owned(),
                _ => {
                    plan.takes_back.push(taken(step));
                    continue;
                }
            };
            plan.stays.push(Stays { step: step.step.clone(), why });
        }
        plan
    }

    /// Prints it.
    ///
    /// # Errors
    /// When it is wanted as a stream, which it is not.
    pub(super) fn print(&self, ui: &Ui, format: FollowFormat) -> CommandResult {
        match format {
            FollowFormat::Table => ui.out(&self.text()),
            FollowFormat::Json => ui.json(self, true),
            FollowFormat::Yaml => ui.yaml(self),
            FollowFormat::Name => self.takes_back.iter().for_each(|step| ui.out(step.step.as_str())),
            FollowFormat::Jsonl => {
                return Err(CommandError::new(Code::Usage, "a dry run has no stream of events")
                    .hint("-o json prints what would be taken back"));
            }
        }
        Ok(Exit::Ok)
    }

    fn text(&self) -> String {
        let steps = self.takes_back.iter().map(|step| step.step.as_str().len());
        let width = steps.chain(self.stays.iter().map(|step| step.step.as_str().len())).max().unwrap_or(0);
        let mut lines = Vec::new();
        if !self.takes_back.is_empty() {
            lines.push("would be taken back, in this order:".to_owned());
        }
        for step in &self.takes_back {
            let made = if step.made.is_empty() { step.title.clone() } else { step.made.join(", ") };
            let line = format!("  - {:<width$}  {}", step.step.as_str(), one_line(&made));
            lines.push(line.trim_end().to_owned());
        }
        if !self.stays.is_empty() {
            lines.push("would stay:".to_owned());
        }
        lines.extend(
            self.stays.iter().map(|step| format!("  . {:<width$}  {}", step.step.as_str(), step.why)),
        );
        let found = match &self.not_of_this_run[..] {
            [] => String::new(),
            steps => format!(", {} found what was there before", count(steps.len())),
        };
        lines.push(format!(
            "rollback of run {}: {} to take back, {} would stay{found}; nothing was changed",
            self.run,
            count(self.takes_back.len()),
            self.stays.len()
        ));
        lines.join("\n")
    }
}

fn count(steps: usize) -> String {
    if steps == 1 { "1 step".to_owned() } else { format!("{steps} steps") }
}

fn taken(step: &StepView) -> Taken {
    let made = describe::standing(&step.resources, step.output.is_some());
    let made = made.map(|made| format!("{} {}", made.kind, made.id)).collect();
    Taken { step: step.step.clone(), title: step.title.clone(), made }
}

/// Everything that depends on a step.
fn after(view: &RunView, to: &StepName) -> BTreeSet<StepName> {
    let mut found = BTreeSet::new();
    for step in &view.steps {
        if step.after.iter().any(|before| before == to || found.contains(before)) {
            found.insert(step.step.clone());
        }
    }
    found
}
