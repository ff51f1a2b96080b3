//! The shape of a workflow: a directed acyclic graph of steps, checked when it is built and stored with the run.
//!
//! A graph is data. It names activities and functions and carries no code, so a stored run needs no definition to
//! be read. Dependencies come from two places: `after`, and every output an input or condition refers to.

mod binding;
pub mod render;

pub use binding::{Binding, OutputRef, truthy};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use petgraph::Direction;
use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::activity::MAX_PAYLOAD_BYTES;
use crate::id::{ActivityName, LockName, StepName};
use crate::retry::RetryPolicy;
use crate::store::GraphHash;

/// The most steps a graph may have.
pub const MAX_STEPS: usize = 20_000;
/// The most dependencies a graph may have.
pub const MAX_EDGES: usize = 200_000;

/// How a step holds a lock while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// Nobody else holds it.
    #[default]
    Exclusive,
    /// Others may share it.
    Shared,
}

/// A lock that a step holds while it runs or is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockUse {
    /// The lock.
    pub name: LockName,
    /// How it is held.
    #[serde(default)]
    pub mode: LockMode,
}

/// Limits on time. They count only while the run is owned and not paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Timeouts {
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
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// What a step does. The format carries more kinds than this version runs: see [`GraphError::Unsupported`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum StepKind {
    /// Calls an activity.
    Activity {
        /// Its name.
        activity: ActivityName,
        /// Its input.
        input: Binding,
    },
    /// Waits for a person.
    Gate {
        /// What is asked.
        question: String,
    },
    /// Runs a step for each item of a list known at run time.
    Map {
        /// The list.
        items: Binding,
        /// Called for each.
        activity: ActivityName,
        /// How many at once; 0 means all.
        #[serde(default)]
        max_concurrency: u32,
    },
    /// Runs another workflow.
    SubWorkflow {
        /// Its name.
        workflow: String,
        /// Its input.
        input: Binding,
    },
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// How it is retried.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// How its compensation is retried; by default the step's own policy with twice the attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_retry: Option<RetryPolicy>,
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
    /// A step that calls `activity` with `input`.
    pub fn activity(name: StepName, activity: ActivityName, input: Binding) -> Self {
        Self {
            name,
            kind: StepKind::Activity { activity, input },
            after: Vec::new(),
            when: None,
            locks: Vec::new(),
            retry: RetryPolicy::default(),
            undo_retry: None,
            timeouts: Timeouts::default(),
            adopt: false,
            protect: false,
            group: String::new(),
            title: String::new(),
            expected_ms: None,
        }
    }

    /// The retry policy of the compensation.
    pub fn undo_policy(&self) -> RetryPolicy {
        self.undo_retry.clone().unwrap_or_else(|| self.retry.for_undo())
    }
}

/// What is wrong with a graph. One clear error each; the builder keeps the first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// There is nothing to run.
    #[error("the graph has no steps")]
    Empty,
    /// Two steps have one name.
    #[error("two steps are named {0}")]
    DuplicateStep(StepName),
    /// A dependency does not exist.
    #[error("step {step} depends on {missing}, which is not in the graph{}", suggestion.as_ref().map(|s| format!("; did you mean {s}?")).unwrap_or_default())]
    UnknownStep {
        /// The step that depends.
        step: StepName,
        /// What it depends on.
        missing: StepName,
        /// The nearest name there is.
        suggestion: Option<StepName>,
    },
    /// Steps wait for each other.
    #[error("steps wait for each other: {}", .0.iter().map(StepName::as_str).collect::<Vec<_>>().join(" -> "))]
    Cycle(Vec<StepName>),
    /// A step can never run because its condition is a literal false.
    #[error("step {0} can never run: its condition is always false")]
    Unreachable(StepName),
    /// Over a limit.
    #[error("the graph has {found} {what}, at most {limit} are allowed")]
    TooLarge {
        /// Steps or dependencies.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// An input is over the limit.
    #[error("the literal input of step {step} has {size} bytes, at most {MAX_PAYLOAD_BYTES} are allowed")]
    InputTooLarge {
        /// The step.
        step: StepName,
        /// Its size.
        size: usize,
    },
    /// A name breaks a rule.
    #[error("{0}")]
    Name(String),
    /// The format knows it, this version does not run it.
    #[error("step {step} is a {what}, which this version cannot run")]
    Unsupported {
        /// The step.
        step: StepName,
        /// What it is.
        what: &'static str,
    },
    /// Stored bytes are not a graph.
    #[error("the stored graph cannot be read: {0}")]
    Unreadable(String),
}

#[derive(Serialize, Deserialize)]
struct GraphFile {
    format: u16,
    steps: Vec<Step>,
}

const GRAPH_FORMAT: u16 = 1;

/// A step's place in its graph. Stable for the life of the graph.
pub type StepIx = u32;

/// A checked graph. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Graph {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    steps: Vec<Step>,
    by_name: BTreeMap<StepName, StepIx>,
    dependencies: Vec<Vec<StepIx>>,
    dependents: Vec<Vec<StepIx>>,
    /// Position of each step in a topological order that keeps the order of definition where it can.
    rank: Vec<u32>,
    order: Vec<StepIx>,
    hash: GraphHash,
    encoded: Vec<u8>,
}

impl PartialEq for Graph {
    fn eq(&self, other: &Self) -> bool {
        self.inner.hash == other.inner.hash
    }
}

impl Graph {
    /// Starts building.
    pub fn builder() -> GraphBuilder {
        GraphBuilder::default()
    }

    /// Reads a graph from its stored form and checks it again.
    ///
    /// # Errors
    /// When the bytes are no graph of a known format, or the graph is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, GraphError> {
        let file: GraphFile =
            serde_json::from_slice(bytes).map_err(|e| GraphError::Unreadable(e.to_string()))?;
        if file.format != GRAPH_FORMAT {
            return Err(GraphError::Unreadable(format!(
                "format {} is not known, {GRAPH_FORMAT} is",
                file.format
            )));
        }
        let mut graph = check(file.steps)?;
        // The hash is of the bytes as stored: another version, or another reading of a float, may write them otherwise.
        let inner = Arc::get_mut(&mut graph.inner).expect("made a moment ago");
        inner.hash = GraphHash(hex::encode(Sha256::digest(bytes)));
        inner.encoded = bytes.to_vec();
        Ok(graph)
    }

    /// The stored form.
    pub fn encode(&self) -> &[u8] {
        &self.inner.encoded
    }

    /// SHA-256 of the stored form.
    pub fn hash(&self) -> &GraphHash {
        &self.inner.hash
    }

    /// All steps, in order of definition; the index is the [`StepIx`].
    pub fn steps(&self) -> &[Step] {
        &self.inner.steps
    }

    /// One step.
    pub fn step(&self, ix: StepIx) -> &Step {
        &self.inner.steps[ix as usize]
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.inner.steps.len()
    }

    /// Never true for a checked graph; here because `len` is.
    pub fn is_empty(&self) -> bool {
        self.inner.steps.is_empty()
    }

    /// A step by name.
    pub fn index_of(&self, name: &StepName) -> Option<StepIx> {
        self.inner.by_name.get(name).copied()
    }

    /// What a step waits for.
    pub fn dependencies(&self, ix: StepIx) -> &[StepIx] {
        &self.inner.dependencies[ix as usize]
    }

    /// What waits for a step.
    pub fn dependents(&self, ix: StepIx) -> &[StepIx] {
        &self.inner.dependents[ix as usize]
    }

    /// Position in the topological order; ready steps start in this order.
    pub fn rank(&self, ix: StepIx) -> u32 {
        self.inner.rank[ix as usize]
    }

    /// All steps in topological order.
    pub fn order(&self) -> &[StepIx] {
        &self.inner.order
    }

    /// The step with its dependents, theirs, and so on.
    pub fn downstream(&self, ix: StepIx) -> BTreeSet<StepIx> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![ix];
        while let Some(next) = todo.pop() {
            if seen.insert(next) {
                todo.extend_from_slice(self.dependents(next));
            }
        }
        seen
    }
}

impl Serialize for Graph {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct File<'a> {
            format: u16,
            steps: &'a [Step],
        }
        File { format: GRAPH_FORMAT, steps: self.steps() }.serialize(serializer)
    }
}

/// Collects steps. The first error is kept and told by [`GraphBuilder::build`].
#[derive(Debug, Default)]
pub struct GraphBuilder {
    steps: Vec<Step>,
}

impl GraphBuilder {
    /// Adds a step.
    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Adds a step in place.
    pub fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Checks the whole.
    ///
    /// # Errors
    /// The first thing that is wrong; see [`GraphError`].
    pub fn build(self) -> Result<Graph, GraphError> {
        check(self.steps)
    }
}

fn always_false(when: Option<&Binding>) -> bool {
    matches!(when, Some(Binding::Literal { value }) if !truthy(value))
}

fn check(steps: Vec<Step>) -> Result<Graph, GraphError> {
    if steps.is_empty() {
        return Err(GraphError::Empty);
    }
    if steps.len() > MAX_STEPS {
        return Err(GraphError::TooLarge { what: "steps", found: steps.len(), limit: MAX_STEPS });
    }
    let mut by_name = BTreeMap::new();
    for (ix, step) in steps.iter().enumerate() {
        let ix = StepIx::try_from(ix).expect("MAX_STEPS fits 32 bits");
        if by_name.insert(step.name.clone(), ix).is_some() {
            return Err(GraphError::DuplicateStep(step.name.clone()));
        }
    }

    let mut net: DiGraph<(), (), u32> = DiGraph::with_capacity(steps.len(), steps.len());
    for _ in &steps {
        net.add_node(());
    }
    let mut edges = 0;
    let mut dependencies = vec![Vec::new(); steps.len()];
    for (ix, step) in steps.iter().enumerate() {
        let mut wanted: BTreeSet<&StepName> = step.after.iter().collect();
        let mut note = |name| {
            wanted.insert(name);
        };
        match &step.kind {
            StepKind::Activity { input, .. } => {
                if let Binding::Literal { value } = input {
                    let size = value.to_string().len();
                    if size > MAX_PAYLOAD_BYTES {
                        return Err(GraphError::InputTooLarge { step: step.name.clone(), size });
                    }
                }
                input.outputs(&mut note);
            }
            StepKind::Gate { .. } => return Err(unsupported(step, "gate")),
            StepKind::Map { .. } => return Err(unsupported(step, "map")),
            StepKind::SubWorkflow { .. } => return Err(unsupported(step, "sub-workflow")),
        }
        if let Some(when) = &step.when {
            when.outputs(&mut note);
        }
        if always_false(step.when.as_ref()) {
            return Err(GraphError::Unreachable(step.name.clone()));
        }
        for name in wanted {
            let Some(&from) = by_name.get(name) else {
                let suggestion = nearest(name, by_name.keys());
                return Err(GraphError::UnknownStep {
                    step: step.name.clone(),
                    missing: name.clone(),
                    suggestion,
                });
            };
            net.add_edge(NodeIndex::new(from as usize), NodeIndex::new(ix), ());
            dependencies[ix].push(from);
            edges += 1;
        }
    }
    if edges > MAX_EDGES {
        return Err(GraphError::TooLarge { what: "dependencies", found: edges, limit: MAX_EDGES });
    }
    if toposort(&net, None).is_err() {
        return Err(GraphError::Cycle(find_cycle(&net, &steps)));
    }

    let dependents: Vec<Vec<StepIx>> = (0..steps.len())
        .map(|ix| {
            let mut next: Vec<_> = net
                .neighbors_directed(NodeIndex::new(ix), Direction::Outgoing)
                .map(|n| StepIx::try_from(n.index()).expect("checked above"))
                .collect();
            next.sort_unstable();
            next
        })
        .collect();
    let order = stable_order(&dependencies, &dependents);
    let mut rank = vec![0; steps.len()];
    for (position, &ix) in order.iter().enumerate() {
        rank[ix as usize] = u32::try_from(position).expect("MAX_STEPS fits 32 bits");
    }

    let file = GraphFile { format: GRAPH_FORMAT, steps };
    let encoded = serde_json::to_vec(&file).map_err(|e| GraphError::Unreadable(e.to_string()))?;
    let hash = GraphHash(hex::encode(Sha256::digest(&encoded)));
    let steps = file.steps;
    Ok(Graph {
        inner: Arc::new(Inner { steps, by_name, dependencies, dependents, rank, order, hash, encoded }),
    })
}

fn unsupported(step: &Step, what: &'static str) -> GraphError {
    GraphError::Unsupported { step: step.name.clone(), what }
}

/// Kahn's algorithm with the order of definition as tie-break, so that lists read as they were written.
fn stable_order(dependencies: &[Vec<StepIx>], dependents: &[Vec<StepIx>]) -> Vec<StepIx> {
    let mut missing: Vec<usize> = dependencies.iter().map(Vec::len).collect();
    let all = StepIx::try_from(missing.len()).expect("MAX_STEPS fits 32 bits");
    let mut ready: BTreeSet<StepIx> = (0..all).filter(|&ix| missing[ix as usize] == 0).collect();
    let mut order = Vec::with_capacity(missing.len());
    while let Some(ix) = ready.pop_first() {
        order.push(ix);
        for &next in &dependents[ix as usize] {
            missing[next as usize] -= 1;
            if missing[next as usize] == 0 {
                ready.insert(next);
            }
        }
    }
    order
}

/// The steps of one cycle, in the order in which they wait for each other, the first repeated at the end.
fn find_cycle(net: &DiGraph<(), (), u32>, steps: &[Step]) -> Vec<StepName> {
    let component: BTreeSet<NodeIndex> = tarjan_scc(net)
        .into_iter()
        .find(|c| c.len() > 1 || net.contains_edge(c[0], c[0]))
        .map(|c| c.into_iter().collect())
        .unwrap_or_default();
    let Some(&start) = component.first() else { return Vec::new() };
    let mut path = vec![start];
    let mut at = start;
    loop {
        let inside = net.neighbors(at).filter(|n| component.contains(n)).min();
        let Some(next) = inside else { break };
        if let Some(first) = path.iter().position(|&n| n == next) {
            path.drain(..first);
            path.push(next);
            break;
        }
        path.push(next);
        at = next;
    }
    path.into_iter().map(|n| steps[n.index()].name.clone()).collect()
}

fn nearest<'a>(name: &StepName, names: impl Iterator<Item = &'a StepName>) -> Option<StepName> {
    names
        .map(|candidate| (edit_distance(name.as_str(), candidate.as_str()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.as_str().len() / 4)
        .min()
        .map(|(_, candidate)| candidate.clone())
}

/// Levenshtein distance in characters; for suggestions only.
pub fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let cost = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, after: &[&str]) -> Step {
        let mut step = Step::activity(
            StepName::new(name).unwrap(),
            ActivityName::new("noop").unwrap(),
            Binding::literal(serde_json::json!({})),
        );
        step.after = after.iter().map(|n| StepName::new(*n).unwrap()).collect();
        step
    }

    fn build(steps: &[(&str, &[&str])]) -> Result<Graph, GraphError> {
        steps.iter().fold(Graph::builder(), |b, (name, after)| b.step(step(name, after))).build()
    }

    #[test]
    fn each_mistake_has_its_error() {
        assert_eq!(build(&[]).unwrap_err(), GraphError::Empty);
        assert!(matches!(build(&[("a", &[]), ("a", &[])]).unwrap_err(), GraphError::DuplicateStep(_)));
        let unknown = build(&[("host.docker", &[]), ("b", &["host.dokcer"])]).unwrap_err();
        assert!(unknown.to_string().ends_with("did you mean host.docker?"), "{unknown}");
        let cycle = build(&[("a", &["c"]), ("b", &["a"]), ("c", &["b"]), ("d", &[])]).unwrap_err();
        assert_eq!(cycle.to_string(), "steps wait for each other: a -> b -> c -> a");
        assert!(matches!(build(&[("a", &["a"])]).unwrap_err(), GraphError::Cycle(_)));
        let mut never = step("a", &[]);
        never.when = Some(Binding::literal(false));
        assert!(matches!(Graph::builder().step(never).build().unwrap_err(), GraphError::Unreachable(_)));
        let many = (0..=MAX_STEPS).fold(Graph::builder(), |b, i| b.step(step(&format!("s{i}"), &[])));
        assert!(matches!(many.build().unwrap_err(), GraphError::TooLarge { .. }));
    }

    #[test]
    fn outputs_are_dependencies() {
        let a = step("a", &[]);
        let input =
            Binding::from_template(serde_json::json!({"x": {"$output": "a", "pointer": "/id"}})).unwrap();
        let b = Step::activity(StepName::new("b").unwrap(), ActivityName::new("noop").unwrap(), input);
        let graph = Graph::builder().step(b).step(a).build().unwrap();
        assert_eq!(graph.dependencies(0), &[1]);
        assert_eq!(graph.dependents(1), &[0]);
        assert_eq!(graph.order(), &[1, 0]);
    }

    #[test]
    fn stored_form_is_stable() {
        let graph = build(&[("a", &[]), ("b", &["a"])]).unwrap();
        let again = Graph::decode(graph.encode()).unwrap();
        assert_eq!(graph.hash(), again.hash());
        assert_eq!(graph.encode(), again.encode());
    }

    #[test]
    fn what_this_version_cannot_run_is_refused() {
        let mut gate = step("g", &[]);
        gate.kind = StepKind::Gate { question: "go on?".into() };
        let error = Graph::builder().step(gate).build().unwrap_err();
        assert_eq!(error.to_string(), "step g is a gate, which this version cannot run");
    }
}
