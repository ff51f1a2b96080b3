//! What became of what a run made: every step that is done is looked at again, and nothing is changed.
//!
//! A step is probed in the name of its run, with the input it was done with. What the probe gives is compared with what the
//! step gave, and the step's own check of its post-condition is asked.

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::activity::{ActivityError, Effect, ErasedActivity, Owner, Probe, Resource};
use crate::graph::StepIx;
use crate::id::{RunId, StepName};
use crate::run::StepStatus;
use crate::run::state::{Ledger, RunState};
use crate::runtime::engine::{Engine, EngineError};
use crate::runtime::look::{LookOptions, Looker};
use crate::time::BoxFuture;

/// The most differences that are told of one step.
const MAX_DIFFERENCES: usize = 20;

/// How the world differs from what a step left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It is as the step left it.
    Fine,
    /// It is there and differs.
    Changed,
    /// It is gone.
    Missing,
    /// Something is there that this run did not make.
    Foreign,
    /// It is there and broken, or on its way.
    Broken,
    /// The look failed: nobody can tell.
    Unknown,
    /// The step leaves nothing that could be looked at, or is not done.
    NotLooked,
}

impl Finding {
    /// All of them, in the order of a summary.
    pub const ALL: [Self; 7] = [
        Self::Changed,
        Self::Missing,
        Self::Foreign,
        Self::Broken,
        Self::Unknown,
        Self::Fine,
        Self::NotLooked,
    ];

    /// As written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Foreign => "foreign",
            Self::Broken => "broken",
            Self::Unknown => "unknown",
            Self::NotLooked => "not_looked",
        }
    }

    /// Whether the world differs from what the run left.
    pub fn is_drift(self) -> bool {
        match self {
            Self::Changed | Self::Missing | Self::Foreign | Self::Broken => true,
            Self::Fine | Self::Unknown | Self::NotLooked => false,
        }
    }
}

/// A value that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "ValueDifference"))]
pub struct Difference {
    /// JSON pointer into the step's output.
    pub at: String,
    /// What the step gave; null when it gave nothing there.
    pub was: Value,
    /// What is there now; null when nothing is.
    pub is: Value,
}

/// One step of a run, compared with the world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Inspected {
    /// Its name.
    pub step: StepName,
    /// A heading to show it under.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// One line on what it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// What was found.
    pub finding: Finding,
    /// Why, for people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Whose it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// What differs in its output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// What the look failed with, or the check of the post-condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ActivityError>,
    /// What the step made and the run has not taken back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
}

impl Engine {
    /// Compares what a run left with the world, step by step, in topological order. Nothing is changed or recorded.
    ///
    /// # Errors
    /// When there is no such run, it cannot be read, it is another store's, or an activity is missing.
    pub async fn inspect(&self, run: &RunId, options: &LookOptions) -> Result<Vec<Inspected>, EngineError> {
        let state = self.load(run).await?;
        if let Some(imported) = &state.imported {
            return Err(EngineError::Imported { run: run.clone(), store: imported.store.clone() });
        }
        self.check_code(run, &state.graph, false)?;
        let looker = Looker::new(self, run.clone(), state.site.clone(), options);
        // Boxed one by one, so that the whole may be handed to another thread.
        let looks: Vec<BoxFuture<'_, Inspected>> = state
            .graph
            .order()
            .iter()
            .map(|&ix| Box::pin(self.inspect_step(&looker, &state, ix)) as BoxFuture<'_, Inspected>)
            .collect();
        Ok(futures::stream::iter(looks).buffered(options.parallelism.max(1)).collect().await)
    }

    async fn inspect_step(&self, looker: &Looker<'_>, state: &RunState, ix: StepIx) -> Inspected {
        let (step, s) = (state.graph.step(ix), &state.steps[ix as usize]);
        let mut inspected = Inspected {
            step: step.name.clone(),
            group: step.group.clone(),
            title: step.title.clone(),
            finding: Finding::NotLooked,
            note: String::new(),
            owner: None,
            differences: Vec::new(),
            error: None,
            resources: if s.may_have_effect() { s.resources.clone() } else { Vec::new() },
        };
        let done = matches!(s.status, StepStatus::Succeeded | StepStatus::Adopted);
        let code = step.kind.activity().and_then(|name| self.inner.activities.get(name));
        let (Some(code), Some(input)) = (code.filter(|code| code.has_probe()), &s.input) else {
            return inspected;
        };
        if !done {
            s.status.as_str().clone_into(&mut inspected.note);
            return inspected;
        }
        let ours = s.ledger != Ledger::NotOurs;
        let found = looker.probe(code.as_ref(), &step.name, s.generation, input).await;
        judge(&mut inspected, code.effect(), ours, s.output.as_deref(), found);
        if inspected.finding == Finding::Fine
            && let Some(output) = &s.output
            && let Err(error) = verify(looker, code.as_ref(), state, ix, input, output).await
        {
            inspected.finding = Finding::Changed;
            inspected.error = Some(error);
        }
        inspected
    }
}

async fn verify(
    looker: &Looker<'_>,
    code: &dyn ErasedActivity,
    state: &RunState,
    ix: StepIx,
    input: &Value,
    output: &Value,
) -> Result<(), ActivityError> {
    let generation = state.steps[ix as usize].generation;
    looker.verify(code, &state.graph.step(ix).name, generation, input, output).await
}

/// What an answer means for a step that is done.
fn judge(
    step: &mut Inspected,
    effect: Effect,
    ours: bool,
    was: Option<&Value>,
    found: Result<Probe<Value>, ActivityError>,
) {
    match found {
        Ok(Probe::Present { output, owner }) => {
            step.finding = Finding::Fine;
            if let Some(was) = was {
                differences(was, &output, "", &mut step.differences);
                step.differences.truncate(MAX_DIFFERENCES);
            }
            if !step.differences.is_empty() {
                step.finding = Finding::Changed;
            }
            if owner == Owner::Foreign && ours {
                step.finding = Finding::Foreign;
                "what is there does not carry the marks of this store and site".clone_into(&mut step.note);
            }
            if effect == Effect::Delete {
                step.finding = Finding::Changed;
                "it is there again".clone_into(&mut step.note);
            }
            step.owner = Some(owner);
        }
        Ok(Probe::Absent) => match effect {
            Effect::Delete => step.finding = Finding::Fine,
            Effect::Update | Effect::Idempotent => {
                step.finding = Finding::Changed;
                "what the step set does not hold any more".clone_into(&mut step.note);
            }
            Effect::Create | Effect::Read => step.finding = Finding::Missing,
        },
        Ok(Probe::InProgress { detail }) => (step.finding, step.note) = (Finding::Broken, detail),
        Ok(Probe::Failed { owner, detail }) => {
            (step.finding, step.note, step.owner) = (Finding::Broken, detail, Some(owner));
        }
        Err(error) => (step.finding, step.error) = (Finding::Unknown, Some(error)),
    }
}

/// Every value that differs, by JSON pointer.
fn differences(was: &Value, is: &Value, at: &str, out: &mut Vec<Difference>) {
    match (was, is) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                differences(&of(a), &of(b), &at, out);
            }
        }
        (was, is) if was != is => {
            out.push(Difference { at: at.to_owned(), was: was.clone(), is: is.clone() });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_named_by_its_place() {
        let mut out = Vec::new();
        differences(
            &json!({"a": 1, "b": {"c/d": "x", "e": [1]}, "gone": true}),
            &json!({"a": 1, "b": {"c/d": "y", "e": [1]}, "new": 2}),
            "",
            &mut out,
        );
        let at: Vec<&str> = out.iter().map(|d| d.at.as_str()).collect();
        assert_eq!(at, ["/b/c~1d", "/gone", "/new"]);
        assert_eq!((&out[0].was, &out[0].is), (&json!("x"), &json!("y")));
    }
}
