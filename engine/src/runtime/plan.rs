//! What a run would do, found out without changing anything.
//!
//! The graph is walked in topological order. A step is probed with the input that it would get: outputs of steps that are
//! there come from their probes, and of reads from doing them. What depends on an output that only the step itself can
//! give is planned without a look. Only [`Activity::probe`](crate::Activity::probe) and activities declared
//! [`Effect::Read`] are called, each in a context that records nothing.

mod walk;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::activity::{ActivityError, Effect, Owner};
use crate::graph::Graph;
use crate::id::{RunId, StepName};
use crate::runtime::engine::{Engine, EngineError};
use crate::runtime::look::{LookOptions, Looker};
use crate::runtime::start::StartRun;
use crate::store::GraphHash;

/// What a run would do with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Makes something.
    Create,
    /// Changes something that is there, or does something that cannot be looked at.
    Update,
    /// Takes something that is there and not ours as it is; it is never undone.
    Adopt,
    /// Removes something.
    Delete,
    /// Waits for a person or a signal.
    Gate,
    /// Waits for something that is being made or removed right now, and then looks again.
    Wait,
    /// Nothing: it is there as wanted, it changes nothing, or its condition is false.
    Nothing,
    /// Stops for a person: something not ours is there, and the graph does not allow to adopt it.
    Conflict,
    /// Nobody can tell: the look failed.
    Unknown,
}

impl Action {
    /// All of them, in the order of a summary.
    pub const ALL: [Self; 9] = [
        Self::Create,
        Self::Update,
        Self::Adopt,
        Self::Delete,
        Self::Gate,
        Self::Wait,
        Self::Nothing,
        Self::Conflict,
        Self::Unknown,
    ];

    /// The sign before a step.
    pub fn sign(self) -> char {
        match self {
            Self::Create => '+',
            Self::Update => '~',
            Self::Adopt => '=',
            Self::Delete => '-',
            Self::Gate => '?',
            Self::Wait => '>',
            Self::Nothing => '.',
            Self::Conflict | Self::Unknown => '!',
        }
    }

    /// As written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Adopt => "adopt",
            Self::Delete => "delete",
            Self::Gate => "gate",
            Self::Wait => "wait",
            Self::Nothing => "nothing",
            Self::Conflict => "conflict",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the world would be another one afterwards, as far as one can tell.
    pub fn is_change(self) -> bool {
        match self {
            Self::Create | Self::Update | Self::Delete | Self::Wait => true,
            Self::Adopt | Self::Gate | Self::Nothing | Self::Conflict | Self::Unknown => false,
        }
    }

    /// What doing an activity of this effect is called.
    fn of(effect: Effect) -> Self {
        match effect {
            Effect::Create => Self::Create,
            Effect::Update | Effect::Idempotent => Self::Update,
            Effect::Delete => Self::Delete,
            Effect::Read => Self::Nothing,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One step of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Planned {
    /// Its name.
    pub step: StepName,
    /// A heading to show it under.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// One line on what it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// The activity, the workflow of a sub-workflow, or the kind of step.
    pub activity: String,
    /// What a run would do.
    pub action: Action,
    /// Why, for people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Whose it is, when something is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Whether the world was asked. Where it was not, the action is what the step does if nothing is there yet.
    pub looked: bool,
    /// Why it cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ActivityError>,
    /// How long it usually takes, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_ms: Option<u64>,
    /// Tells what was found of the step and what it would be given, without holding it: equal while neither changes.
    pub fingerprint: String,
}

/// What a run would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Plan {
    /// The graph it is of.
    pub graph: GraphHash,
    /// Its steps, in topological order; children of maps and steps of sub-workflows after their step.
    pub steps: Vec<Planned>,
    /// How long a run would usually take with as many attempts at once as it likes, in milliseconds: the longest path over
    /// steps that do something.
    pub expected_ms: u64,
}

impl Plan {
    /// Whether a run would change the world, as far as one can tell.
    pub fn has_changes(&self) -> bool {
        self.steps.iter().any(|step| step.action.is_change())
    }

    /// Whether a run would stop for a person, or a look failed.
    pub fn has_trouble(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Conflict | Action::Unknown))
    }

    /// How many steps there are of each action; those without any are left out.
    pub fn counts(&self) -> BTreeMap<Action, usize> {
        let mut counts = BTreeMap::new();
        for step in &self.steps {
            *counts.entry(step.action).or_default() += 1;
        }
        counts
    }

    /// Steps that differ from those of an earlier plan of the same graph: what moved since. Each with what was planned
    /// and what would be done now.
    pub fn moved_since<'a>(&'a self, earlier: &'a Self) -> Vec<Moved<'a>> {
        let find = |steps: &'a [Planned], name: &StepName| steps.iter().find(|s| s.step == *name);
        let mut moved: Vec<Moved<'a>> = earlier
            .steps
            .iter()
            .map(|then| Moved { then: Some(then), now: find(&self.steps, &then.step) })
            .filter(|m| m.now.is_none_or(|now| m.then.is_some_and(|t| t.fingerprint != now.fingerprint)))
            .collect();
        let new = self.steps.iter().filter(|now| find(&earlier.steps, &now.step).is_none());
        moved.extend(new.map(|now| Moved { then: None, now: Some(now) }));
        moved
    }
}

/// A step of which something else is planned than before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moved<'a> {
    /// As it was planned; `None` when it was not.
    pub then: Option<&'a Planned>,
    /// As it would be now; `None` when it is gone.
    pub now: Option<&'a Planned>,
}

impl Engine {
    /// Finds out what a run would do, without doing or recording anything. Needs no free id: `start.id` only says whose
    /// marks count as the run's own, and without one everything the site's runs made is an earlier run's.
    ///
    /// A look that fails is a line of the plan. Locks, rates and limits of the run are not kept to: nothing is changed.
    ///
    /// # Errors
    /// When an activity, function or workflow is missing, or a literal input does not fit.
    pub async fn plan(&self, start: &StartRun, options: &LookOptions) -> Result<Plan, EngineError> {
        let now = self.inner.clock.now();
        let run = start.id.clone().unwrap_or_else(|| RunId::generate(now, rand::random()));
        self.plan_as(run, &start.site, &start.graph, &start.input, options).await
    }

    pub(super) async fn plan_as(
        &self,
        run: RunId,
        site: &str,
        graph: &Graph,
        input: &Value,
        options: &LookOptions,
    ) -> Result<Plan, EngineError> {
        self.check_code(&run, graph, true)?;
        let looker = Looker::new(self, run, site.to_owned(), options);
        Ok(walk::walk(self, &looker, graph, input, options).await)
    }
}

/// Tells two findings apart without holding what was found. Inputs may be looked at by whoever reads the ledger anyway:
/// they name secrets and never hold them.
fn fingerprint(
    step: &StepName,
    activity: &str,
    input: Option<&Value>,
    action: Action,
    owner: Option<&Owner>,
) -> String {
    let all = json!({
        "step": step, "activity": activity, "input": input.map(sorted), "action": action,
        "owner": owner,
    });
    hex::encode(&Sha256::digest(all.to_string())[..16])
}

/// A value with the keys of its objects in order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let fields: BTreeMap<&String, Value> =
                map.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(fields.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
