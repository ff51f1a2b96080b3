//! The workbench of a graph: steps are added with typed inputs, references to other steps' outputs, locks and
//! budgets, and come out as engine steps.
//!
//! A reference to an output stands in a typed input as a marked text made by [`from_step`], so that an input is
//! written as an ordinary struct literal and a change of its type breaks the build. What is no text is bound with
//! [`Draft::with`].

use std::time::Duration;

use dssflow_activities::aws::{blockers, role};
use dssflow_engine::graph::{Binding, LockMode, LockUse, Step, StepKind, Timeouts};
use dssflow_engine::id::{ActivityName, LockName, StepName};
use dssflow_engine::retry::{RetryPolicy, RetryRule};
use serde::Serialize;
use serde_json::Value;

use crate::site::Site;

/// Starts a text that stands for an output. No site can hold it: control characters are refused there.
const MARK: char = '\u{1}';

/// A text that stands for a part of another step's output until the step runs.
pub(super) fn from_step(step: &StepName, pointer: &str) -> String {
    format!("{MARK}{step}{MARK}{pointer}")
}

/// Turns a value into bindings: marked texts become references, all else stays as it is.
fn bind(value: Value) -> Binding {
    match value {
        Value::String(text) => match text.strip_prefix(MARK).and_then(|rest| rest.split_once(MARK)) {
            Some((step, pointer)) => Binding::output(&step_name(step), pointer),
            None => Binding::Literal { value: Value::String(text) },
        },
        Value::Array(items) => {
            let items: Vec<Binding> = items.into_iter().map(bind).collect();
            match items.iter().map(literal).collect() {
                Some(values) => Binding::Literal { value: Value::Array(values) },
                None => Binding::List { items },
            }
        }
        Value::Object(fields) => {
            let fields: std::collections::BTreeMap<String, Binding> =
                fields.into_iter().map(|(key, value)| (key, bind(value))).collect();
            match fields.iter().map(|(key, field)| Some((key.clone(), literal(field)?))).collect() {
                Some(values) => Binding::Literal { value: Value::Object(values) },
                None => Binding::Object { fields },
            }
        }
        value => Binding::Literal { value },
    }
}

fn literal(binding: &Binding) -> Option<Value> {
    if let Binding::Literal { value } = binding { Some(value.clone()) } else { None }
}

/// Makes a step's name from parts that were checked with the site.
pub(super) fn step_name(name: impl Into<String>) -> StepName {
    StepName::new(name).expect("step names are made of checked parts")
}

/// A name from the site as a part of a step's name.
pub(super) fn slug(name: &str) -> String {
    name.to_lowercase()
}

/// How long something usually takes, how long an attempt may take, and how many there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    typical: Duration,
    limit: Duration,
    attempts: u32,
}

const fn budget(typical_s: u64, limit_min: u64, attempts: u32) -> Budget {
    Budget { typical: Duration::from_secs(typical_s), limit: Duration::from_mins(limit_min), attempts }
}

/// A look at something that is there.
pub(super) const LOOK: Budget = budget(1, 2, 8);
/// A launched machine coming up, as far as ssh.
pub(super) const REACH: Budget = budget(90, 15, 5);
/// A single small change by an API.
pub(super) const WRITE: Budget = budget(2, 2, 5);
/// EC2 launching or terminating an instance.
pub(super) const LAUNCH: Budget = budget(60, 15, 5);
/// A small change on the host.
pub(super) const HOST: Budget = budget(3, 10, 5);
/// Packages from a repository.
pub(super) const PACKAGES: Budget = budget(240, 30, 3);
/// A download of some hundred megabytes or more.
pub(super) const DOWNLOAD: Budget = budget(240, 60, 5);
/// Unpacking a kit.
pub(super) const UNPACK: Budget = budget(60, 30, 3);
/// DSS's installer: never again in place, so a failure waits for a person.
pub(super) const INSTALLER: Budget = budget(300, 30, 1);
/// A Hadoop or Spark integration.
pub(super) const INTEGRATION: Budget = budget(120, 30, 3);
/// Building an image.
pub(super) const IMAGE: Budget = budget(720, 60, 2);
/// Pushing images.
pub(super) const PUSH: Budget = budget(480, 60, 5);
/// DSS coming up.
pub(super) const START: Budget = budget(90, 20, 5);
/// A plugin and its code environment.
pub(super) const PLUGIN: Budget = budget(180, 20, 3);
/// eksctl making a cluster, started by DSS.
pub(super) const CLUSTER_START: Budget = budget(18 * 60, 45, 2);
/// EKS making a control plane.
pub(super) const CONTROL_PLANE: Budget = budget(10 * 60, 60, 3);
/// EKS making a node group.
pub(super) const NODES: Budget = budget(4 * 60, 60, 3);
/// EKS making an add-on.
pub(super) const ADDON: Budget = budget(60, 30, 3);
/// A query, or a command in the cluster.
pub(super) const CHECK: Budget = budget(10, 10, 8);
/// A question to an API server that has only just become active: for about five minutes its address may not answer
/// ("dial tcp ...:443: i/o timeout").
pub(super) const ENDPOINT: Budget = budget(10, 10, 16);
/// A pod, whose node may have to fetch its image first.
pub(super) const PODS: Budget = budget(60, 20, 3);
/// Two recipes, with pods that start for each and nodes that may have to come first.
pub(super) const SMOKE_JOB: Budget = budget(180, 45, 3);
/// Attempts to take a cluster down: it is safe to repeat, and what blocks it often goes away by itself.
const TAKE_DOWN_ATTEMPTS: u32 = 5;
/// Codes of errors that say that something still hangs on what is to be deleted.
const IN_USE: [&str; 3] = [blockers::STILL_IN_USE, "DependencyViolation", "ResourceInUse*"];

/// What still hangs on a thing is waited for about eighteen minutes: interfaces and load balancers go by themselves.
fn in_use() -> RetryRule {
    let policy = RetryPolicy {
        initial_interval_ms: 15_000,
        maximum_interval_ms: 60_000,
        ..RetryPolicy::attempts(20).without_jitter()
    };
    RetryRule { class: None, codes: IN_USE.map(str::to_owned).to_vec(), policy }
}

/// A role made a moment ago is asked for with again every few seconds; the error itself says for how long that is.
fn spreading() -> RetryRule {
    RetryRule::for_code(role::SPREADING, RetryPolicy::attempts(60))
}

/// The graph being made.
pub(super) struct Plan<'a> {
    pub(super) site: &'a Site,
    steps: Vec<Step>,
    group: &'static str,
}

impl<'a> Plan<'a> {
    pub(super) fn new(site: &'a Site) -> Self {
        Self { site, steps: Vec::new(), group: "" }
    }

    /// The heading of the reference architecture under which the next steps stand.
    pub(super) fn heading(&mut self, heading: &'static str) {
        self.group = heading;
    }

    /// A step that calls `activity`.
    pub(super) fn step<I: Serialize>(
        &mut self,
        name: impl Into<String>,
        activity: &str,
        input: &I,
    ) -> Draft<'_, 'a> {
        let activity = ActivityName::new(activity).expect("activities have good names");
        let input = bind(serde_json::to_value(input).expect("inputs are plain data"));
        let mut step = Step::activity(step_name(name), activity, input);
        self.group.clone_into(&mut step.group);
        Draft { plan: self, step }.budget(WRITE)
    }

    pub(super) fn into_steps(self) -> Vec<Step> {
        self.steps
    }
}

/// A step that is being described.
#[must_use = "a step counts once it is added"]
pub(super) struct Draft<'p, 'a> {
    plan: &'p mut Plan<'a>,
    step: Step,
}

impl Draft<'_, '_> {
    /// One line for people.
    pub(super) fn title(mut self, title: impl Into<String>) -> Self {
        self.step.title = title.into();
        self
    }

    /// Waits for `steps`, besides those whose outputs it takes.
    pub(super) fn after<'s>(mut self, steps: impl IntoIterator<Item = &'s StepName>) -> Self {
        for step in steps {
            if !self.step.after.contains(step) {
                self.step.after.push(step.clone());
            }
        }
        self
    }

    /// Binds the field `key` of the input, in place of what the literal holds.
    pub(super) fn with(mut self, key: &str, binding: Binding) -> Self {
        let StepKind::Activity { input, .. } = &mut self.step.kind else { return self };
        let mut fields = match std::mem::replace(input, Binding::literal(())) {
            Binding::Object { fields } => fields,
            Binding::Literal { value: Value::Object(map) } => {
                map.into_iter().map(|(key, value)| (key, Binding::Literal { value })).collect()
            }
            other => {
                *input = other;
                return self;
            }
        };
        fields.insert(key.to_owned(), binding);
        *input = Binding::Object { fields };
        self
    }

    /// The step is skipped unless this is true.
    pub(super) fn when(mut self, condition: Binding) -> Self {
        self.step.when = Some(condition);
        self
    }

    pub(super) fn budget(mut self, budget: Budget) -> Self {
        self.step.timeouts = Timeouts::per_attempt(budget.limit);
        self.step.retry = RetryPolicy::attempts(budget.attempts);
        self.step.expected_ms = u64::try_from(budget.typical.as_millis()).ok();
        self
    }

    /// The step hands a role to a service that may not know it yet. Call it after the budget.
    pub(super) fn with_new_role(mut self) -> Self {
        self.step.retry.rules.push(spreading());
        self
    }

    /// A failed one of ours is replaced; the undo is tried as often as it is for a cluster that does not want to go, and
    /// what still hangs on it is waited for. Call it after the budget.
    pub(super) fn stubborn(mut self) -> Self {
        // A failed one of ours is replaced as often as it is tried; finding it failed is counted apart.
        let replaced = RetryPolicy::attempts(self.step.retry.maximum_attempts);
        self.step.retry.rules.push(RetryRule::for_code("FailedResource", replaced));
        let attempts = TAKE_DOWN_ATTEMPTS.max(2 * self.step.retry.maximum_attempts);
        self.step.undo_retry = Some(RetryPolicy::attempts(attempts).rule(in_use()));
        self
    }

    /// Holds a lock alone. Locks are of one host, so that sites do not wait for each other.
    pub(super) fn lock(self, name: &str) -> Self {
        self.hold(name, LockMode::Exclusive)
    }

    /// Works through DSS's API: must not run while DSS is stopped or started.
    pub(super) fn api(self) -> Self {
        self.hold("host:dss-service", LockMode::Shared)
    }

    /// Reads and writes DSS's general settings, one document without versions.
    pub(super) fn general_settings(self) -> Self {
        self.api().lock("dss:general-settings")
    }

    fn hold(mut self, name: &str, mode: LockMode) -> Self {
        // A machine that is still to be launched has no id, and no other site can mean it.
        let site = self.plan.site;
        let name = format!("{name}:{}", site.host.instance.as_deref().unwrap_or(&site.name));
        let name = LockName::new(name).expect("locks are made of checked parts");
        self.step.locks.push(LockUse { name, mode, key: None });
        self
    }

    /// Puts the step into the graph.
    pub(super) fn add(self) -> StepName {
        let name = self.step.name.clone();
        self.plan.steps.push(self.step);
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn marked_texts_become_references_and_nothing_else_does() {
        let step = step_name("instance");
        let bound = bind(json!({ "a": 1, "list": ["x", from_step(&step, "/id")], "o": { "b": true } }));
        let Binding::Object { fields } = bound else { panic!("an object") };
        assert_eq!(fields["a"], Binding::literal(1));
        assert_eq!(
            fields["list"],
            Binding::List { items: vec![Binding::literal("x"), Binding::output(&step, "/id")] }
        );
        assert_eq!(fields["o"], Binding::literal(json!({ "b": true })));
        assert_eq!(bind(json!({ "a": ["b"] })), Binding::literal(json!({ "a": ["b"] })));
    }
}
