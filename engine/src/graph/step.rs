//! One step as it is written down: what it does, where its input comes from, how it is retried and limited.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Binding;
use crate::id::{ActivityName, LockName, StepName};
use crate::retry::RetryPolicy;
use crate::run::OnTrouble;

/// How a step holds a lock while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// Nobody else holds it.
    #[default]
    Exclusive,
    /// Others may share it.
    Shared,
    /// One permit of a semaphore, whose size the engine is told; see `EngineBuilder::semaphore`.
    Permit,
}

/// A lock that a step holds while it runs or is undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LockUse {
    /// The lock.
    pub name: LockName,
    /// How it is held.
    #[serde(default)]
    pub mode: LockMode,
    /// Told apart by this value, as one lock for each account: its text stands behind the name. The whole must make a
    /// lock name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Binding>,
}

impl LockUse {
    /// The lock `name`, held alone.
    pub fn exclusive(name: LockName) -> Self {
        Self { name, mode: LockMode::Exclusive, key: None }
    }

    /// The lock `name`, shared.
    pub fn shared(name: LockName) -> Self {
        Self { name, mode: LockMode::Shared, key: None }
    }

    /// One permit of the semaphore `name`.
    pub fn permit(name: LockName) -> Self {
        Self { name, mode: LockMode::Permit, key: None }
    }

    /// One lock for each value of `key`.
    #[must_use]
    pub fn keyed(mut self, key: Binding) -> Self {
        self.key = Some(key);
        self
    }
}

/// Limits on time. They count only while the run is owned and not paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Timeouts {
    /// From the moment a step may start to its first attempt, in milliseconds: waiting for room, a lock or a rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_to_start_ms: Option<u64>,
    /// One attempt, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_to_close_ms: Option<u64>,
    /// All attempts together, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_to_close_ms: Option<u64>,
    /// The longest silence between two heartbeats, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
}

impl Timeouts {
    /// A limit on each attempt.
    pub fn per_attempt(limit: Duration) -> Self {
        Self { start_to_close_ms: Some(millis(limit)), ..Self::default() }
    }

    /// A limit on all attempts together.
    #[must_use]
    pub fn in_all(mut self, limit: Duration) -> Self {
        self.schedule_to_close_ms = Some(millis(limit));
        self
    }

    /// A limit on the wait before the first attempt.
    #[must_use]
    pub fn to_start(mut self, limit: Duration) -> Self {
        self.schedule_to_start_ms = Some(millis(limit));
        self
    }

    /// A limit on the silence between two heartbeats.
    #[must_use]
    pub fn heartbeat(mut self, limit: Duration) -> Self {
        self.heartbeat_ms = Some(millis(limit));
        self
    }
}

pub(crate) fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// What a rejected gate means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    /// The step fails for good.
    #[default]
    Fail,
    /// The step is done; its output says `"approved": false` and later steps go by it.
    Continue,
}

/// What becomes of a sub-workflow's run when the run that started it stops before it has ended: fails, or is
/// cancelled with what it made kept. A pause always goes down, and so does a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnParentClose {
    /// It is cancelled, and what it made is kept.
    #[default]
    Cancel,
    /// It is ended at once, without waiting for its attempts.
    Terminate,
    /// It goes on by itself.
    Abandon,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum StepKind {
    /// Calls an activity.
    Activity {
        /// Its name.
        activity: ActivityName,
        /// Its input.
        input: Binding,
    },
    /// Waits for a person. Its output is `{"approved": bool, "by": text, "reason": text}`.
    Gate {
        /// What is asked.
        question: String,
        /// How long it waits, in milliseconds of wall time; for ever when not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
        /// What counts as decided when the time is over; without it the step fails then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        default: Option<bool>,
        /// What a rejection means.
        #[serde(default)]
        on_reject: OnReject,
    },
    /// Runs an activity for each item of a list known at run time. Each is a step of its own, named
    /// `map[key]`: the item itself where all items are different texts that make a name, else its number from 0. Its
    /// output is the list of their outputs, in order, with null for those that failed and were tolerated.
    Map {
        /// The list.
        items: Binding,
        /// Called for each.
        activity: ActivityName,
        /// How many at once; 0 means all.
        #[serde(default)]
        max_concurrency: u32,
        /// So many may fail for good.
        #[serde(default)]
        tolerated_failures: u32,
    },
    /// Runs another workflow, as a run of its own. Its output is that run's. A lock that this step holds is held as long
    /// as that run goes on: its own steps must not want it.
    SubWorkflow {
        /// Its name.
        workflow: String,
        /// Its input.
        input: Binding,
        /// What becomes of it when this run stops first.
        #[serde(default)]
        on_parent_close: OnParentClose,
    },
    /// Waits for some time; the end is durable and in wall time.
    Sleep {
        /// How long, in milliseconds.
        duration_ms: Binding,
    },
    /// Waits for a signal. Its output is what the signal carried.
    Signal {
        /// Its name. Signals that came early are kept and taken in order.
        signal: String,
        /// How long it waits, in milliseconds of wall time; for ever when not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
        /// Taken as the signal's payload when the time is over; without it the step fails then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        default: Option<Value>,
    },
}

impl StepKind {
    /// The bindings it has.
    pub fn bindings(&self) -> Option<&Binding> {
        match self {
            Self::Activity { input, .. } | Self::SubWorkflow { input, .. } => Some(input),
            Self::Map { items, .. } => Some(items),
            Self::Sleep { duration_ms } => Some(duration_ms),
            Self::Gate { .. } | Self::Signal { .. } => None,
        }
    }

    /// The activity it calls.
    pub fn activity(&self) -> Option<&ActivityName> {
        match self {
            Self::Activity { activity, .. } | Self::Map { activity, .. } => Some(activity),
            Self::SubWorkflow { .. } | Self::Sleep { .. } | Self::Gate { .. } | Self::Signal { .. } => None,
        }
    }

    /// A word for people.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Activity { .. } => "activity",
            Self::Gate { .. } => "gate",
            Self::Map { .. } => "map",
            Self::SubWorkflow { .. } => "sub-workflow",
            Self::Sleep { .. } => "sleep",
            Self::Signal { .. } => "signal",
        }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Step {
    /// Its name, unique in the graph.
    pub name: StepName,
    /// What it does.
    #[serde(flatten)]
    pub kind: StepKind,
    /// Steps that must be done first, besides those whose output is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<StepName>,
    /// The step is skipped unless this is true (or, for other values, neither null, false, 0, "" nor empty).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Binding>,
    /// Locks it holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<LockUse>,
    /// Rates its attempts keep to; the engine is told them, see `EngineBuilder::rate`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<LockName>,
    /// How it is retried.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// How its compensation is retried; by default the step's own policy with twice the attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_retry: Option<RetryPolicy>,
    /// What follows when its attempts are used up; by default what the run's options say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exhausted: Option<OnTrouble>,
    /// What follows when it fails for good; by default what the run's options say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnTrouble>,
    /// Its limits on time.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Whether something that is there and not ours may be taken as it is. It is never undone then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
    /// Whether rollback leaves it alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protect: bool,
    /// A heading under which people see it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// How long it usually takes, in milliseconds; for progress only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_ms: Option<u64>,
}

impl Step {
    /// A step of the given kind with defaults for everything else.
    pub fn new(name: StepName, kind: StepKind) -> Self {
        Self {
            name,
            kind,
            after: Vec::new(),
            when: None,
            locks: Vec::new(),
            rates: Vec::new(),
            retry: RetryPolicy::default(),
            undo_retry: None,
            on_exhausted: None,
            on_failure: None,
            timeouts: Timeouts::default(),
            adopt: false,
            protect: false,
            group: String::new(),
            title: String::new(),
            expected_ms: None,
        }
    }

    /// A step that calls `activity` with `input`.
    pub fn activity(name: StepName, activity: ActivityName, input: Binding) -> Self {
        Self::new(name, StepKind::Activity { activity, input })
    }

    /// The retry policy of the compensation.
    pub fn undo_policy(&self) -> RetryPolicy {
        self.undo_retry.clone().unwrap_or_else(|| self.retry.for_undo())
    }

    /// What one child of this map is: the map's own rules, with `item` as its input.
    pub(crate) fn child(&self, name: StepName, item: Value) -> Self {
        let StepKind::Map { activity, .. } = &self.kind else {
            unreachable!("only maps have children");
        };
        let kind = StepKind::Activity { activity: activity.clone(), input: Binding::Literal { value: item } };
        Self { name, kind, after: Vec::new(), when: None, ..self.clone() }
    }

    /// Whether it wants the same of what all runs share: locks, rates, a slot.
    pub(crate) fn wants_the_same(&self, other: &Self) -> bool {
        let sub = |step: &Self| matches!(step.kind, StepKind::SubWorkflow { .. });
        self.locks == other.locks && self.rates == other.rates && sub(self) == sub(other)
    }

    /// Whether what it does is the same as in `other`: what people see and how it is retried and limited is left aside.
    pub fn does_the_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.when == other.when
    }
}
