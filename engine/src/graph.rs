//! The shape of a workflow: a directed acyclic graph of steps, checked when it is built and stored with the run.
//!
//! A graph is data. It names activities and functions and carries no code, so a stored run needs no definition to
//! be read. Dependencies come from two places: `after`, and every output an input or condition refers to.

mod binding;
pub mod layout;
pub mod render;
mod step;
pub mod svg;

pub use binding::{Binding, OutputRef, truthy};
pub use step::{LockMode, LockUse, OnParentClose, OnReject, Step, StepKind, Timeouts};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use petgraph::Direction;
use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::activity::check_payload;
use crate::id::StepName;
use crate::store::GraphHash;

/// The most steps a graph may have.
pub const MAX_STEPS: usize = 20_000;
/// The most dependencies a graph may have.
pub const MAX_EDGES: usize = 200_000;

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
    /// What the run returns is the output of a step that does not exist.
    #[error("the run is to return the output of {missing}, which is not in the graph{}", suggestion.as_ref().map(|s| format!("; did you mean {s}?")).unwrap_or_default())]
    UnknownOutput {
        /// The step that is not there.
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
    /// A value written into the graph is over a limit.
    #[error("a value in step {step} {why}")]
    BadLiteral {
        /// The step.
        step: StepName,
        /// Which limit.
        why: String,
    },
    /// A name breaks a rule.
    #[error("{0}")]
    Name(String),
    /// The children of a map are named after it, and another step has such a name or they would be too long.
    #[error("the children of the map {map} need names like {map}[key]: {why}")]
    MapName {
        /// The map.
        map: StepName,
        /// Why it cannot be.
        why: String,
    },
    /// Stored bytes are not a graph.
    #[error("the stored graph cannot be read: {0}")]
    Unreadable(String),
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Graph"))]
struct GraphFile {
    format: u16,
    steps: Vec<Step>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<Binding>,
}

/// The format of graphs that this version writes. It reads all up to this one.
///
/// - 1: the first; activities only.
/// - 2: gates, maps, sub-workflows, sleeps, signals; what the run returns; classes of retry, keyed locks, rates.
const GRAPH_FORMAT: u16 = 2;
/// The longest name a map may have, so that its children can be named.
const MAX_MAP_NAME_LEN: usize = 80;

/// A step's place in its graph. Stable for the life of the graph.
pub type StepIx = u32;

/// A checked graph. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Graph {
    inner: Arc<Inner>,
}

#[derive(Debug, Clone)]
struct Inner {
    steps: Vec<Step>,
    /// How many of them the stored form has; the rest are children of maps.
    own: usize,
    output: Option<Binding>,
    by_name: BTreeMap<StepName, StepIx>,
    dependencies: Vec<Vec<StepIx>>,
    dependents: Vec<Vec<StepIx>>,
    /// Position of each step in a topological order that keeps the order of definition where it can.
    rank: Vec<u32>,
    order: Vec<StepIx>,
    hash: GraphHash,
    encoded: Arc<[u8]>,
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
        if !(1..=GRAPH_FORMAT).contains(&file.format) {
            return Err(GraphError::Unreadable(format!(
                "format {} is not known, 1 to {GRAPH_FORMAT} are",
                file.format
            )));
        }
        let mut graph = check(file.steps, file.output)?;
        // The hash is of the bytes as stored: another version, or another reading of a float, may write them otherwise.
        let inner = Arc::get_mut(&mut graph.inner).expect("made a moment ago");
        inner.hash = GraphHash(hex::encode(Sha256::digest(bytes)));
        inner.encoded = bytes.into();
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

    /// How many steps it was built with; those after them are children of maps.
    pub fn own_len(&self) -> usize {
        self.inner.own
    }

    /// What a run returns.
    pub fn output(&self) -> Option<&Binding> {
        self.inner.output.as_ref()
    }

    /// The same graph with children of a map. They wait for what the map waits for, and the map waits for them. Those
    /// that are there already stay as they are, but for their input. Indexes and ranks of other steps do not change.
    pub(crate) fn with_children(&self, map: StepIx, items: &[(StepName, Value)]) -> Self {
        let mut inner = Inner::clone(&self.inner);
        let waits_for: Vec<StepIx> =
            inner.dependencies[map as usize].iter().copied().filter(|&d| (d as usize) < inner.own).collect();
        let mut new = Vec::new();
        for (name, item) in items {
            let step = inner.steps[map as usize].child(name.clone(), item.clone());
            if let Some(&there) = inner.by_name.get(name) {
                inner.steps[there as usize] = step;
                continue;
            }
            let ix = StepIx::try_from(inner.steps.len()).expect("limited by MAX_STEPS");
            inner.steps.push(step);
            inner.by_name.insert(name.clone(), ix);
            inner.dependencies.push(waits_for.clone());
            inner.dependents.push(vec![map]);
            inner.rank.push(inner.rank[map as usize]);
            for &dependency in &waits_for {
                inner.dependents[dependency as usize].push(ix);
            }
            inner.dependencies[map as usize].push(ix);
            new.push(ix);
        }
        let at = inner.order.iter().position(|&ix| ix == map).expect("the map is in the graph");
        inner.order.splice(at..at, new);
        Self { inner: Arc::new(inner) }
    }

    /// A step by name.
    pub fn index_of(&self, name: &StepName) -> Option<StepIx> {
        self.inner.by_name.get(name).copied()
    }

    /// The step whose name is nearest, when one is near.
    pub fn nearest(&self, name: &StepName) -> Option<StepName> {
        nearest(name, self.inner.by_name.keys())
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
            #[serde(skip_serializing_if = "Option::is_none")]
            output: Option<&'a Binding>,
        }
        let steps = &self.steps()[..self.inner.own];
        File { format: GRAPH_FORMAT, steps, output: self.output() }.serialize(serializer)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Graph {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        GraphFile::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        GraphFile::json_schema(generator)
    }
}

/// Collects steps. The first error is kept and told by [`GraphBuilder::build`].
#[derive(Debug, Default)]
pub struct GraphBuilder {
    steps: Vec<Step>,
    output: Option<Binding>,
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

    /// Says what a run of the graph returns.
    #[must_use]
    pub fn output(mut self, output: Binding) -> Self {
        self.output = Some(output);
        self
    }

    /// Checks the whole.
    ///
    /// # Errors
    /// The first thing that is wrong; see [`GraphError`].
    pub fn build(self) -> Result<Graph, GraphError> {
        check(self.steps, self.output)
    }
}

fn always_false(when: Option<&Binding>) -> bool {
    matches!(when, Some(Binding::Literal { value }) if !truthy(value))
}

fn check(steps: Vec<Step>, output: Option<Binding>) -> Result<Graph, GraphError> {
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
        if let StepKind::Map { .. } = &step.kind {
            check_map_name(step, &by_name)?;
        }
        let keys = step.locks.iter().filter_map(|l| l.key.as_ref());
        for binding in step.kind.bindings().into_iter().chain(&step.when).chain(keys) {
            let mut wrong = None;
            binding.literals(&mut |value| {
                if let Err(why) = check_payload(value) {
                    wrong.get_or_insert(why);
                }
            });
            if let Some(why) = wrong {
                return Err(GraphError::BadLiteral { step: step.name.clone(), why });
            }
            binding.outputs(&mut note);
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

    if let Some(output) = &output {
        let mut unknown = None;
        output.outputs(&mut |name| {
            if !by_name.contains_key(name) {
                unknown.get_or_insert_with(|| name.clone());
            }
        });
        if let Some(missing) = unknown {
            return Err(GraphError::UnknownOutput { suggestion: nearest(&missing, by_name.keys()), missing });
        }
    }
    let file = GraphFile { format: GRAPH_FORMAT, steps, output };
    let encoded = serde_json::to_vec(&file).map_err(|e| GraphError::Unreadable(e.to_string()))?;
    let hash = GraphHash(hex::encode(Sha256::digest(&encoded)));
    let GraphFile { steps, output, .. } = file;
    let own = steps.len();
    Ok(Graph {
        inner: Arc::new(Inner {
            steps,
            own,
            output,
            by_name,
            dependencies,
            dependents,
            rank,
            order,
            hash,
            encoded: encoded.into(),
        }),
    })
}

/// Children are named `map[key]`: no other step may be.
fn check_map_name(map: &Step, by_name: &BTreeMap<StepName, StepIx>) -> Result<(), GraphError> {
    let refuse = |why: String| Err(GraphError::MapName { map: map.name.clone(), why });
    if map.name.as_str().len() > MAX_MAP_NAME_LEN {
        return refuse(format!("its own name may have {MAX_MAP_NAME_LEN} bytes at most"));
    }
    let prefix = format!("{}[", map.name);
    match by_name.keys().find(|name| name.as_str().starts_with(&prefix)) {
        Some(other) => refuse(format!("step {other} is named so")),
        None => Ok(()),
    }
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
    use crate::id::ActivityName;

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
    fn children_stand_between_the_map_and_what_it_waits_for() {
        let kind = StepKind::Map {
            items: Binding::output(&StepName::new("a").unwrap(), ""),
            activity: ActivityName::new("noop").unwrap(),
            max_concurrency: 0,
            tolerated_failures: 0,
        };
        let map = Step::new(StepName::new("m").unwrap(), kind);
        let graph = Graph::builder().step(step("a", &[])).step(map).step(step("z", &["m"])).build().unwrap();
        let child = |name: &str| (StepName::new(name).unwrap(), Value::from(1));
        let grown = graph.with_children(1, &[child("m[0]"), child("m[1]")]);
        assert_eq!(grown.order(), &[0, 3, 4, 1, 2]);
        assert_eq!(grown.dependencies(1), &[0, 3, 4]);
        assert_eq!(grown.dependencies(4), &[0]);
        assert_eq!(grown.dependents(0), &[1, 3, 4]);
        let again = grown.with_children(1, &[child("m[1]"), child("m[2]")]);
        assert_eq!((again.len(), again.own_len(), again.hash()), (6, 3, graph.hash()));
        assert_eq!(again.dependencies(5), &[0]);
        let taken = Graph::builder().step(step("m[0]", &[])).step(graph.step(1).clone()).step(step("a", &[]));
        assert!(matches!(taken.build().unwrap_err(), GraphError::MapName { .. }));
    }

    #[test]
    fn a_graph_of_the_first_format_is_read() {
        let stored = br#"{"format":1,"steps":[{"name":"a","kind":"activity","activity":"noop","input":{"from":"literal","value":1}}]}"#;
        let graph = Graph::decode(stored).unwrap();
        assert_eq!(graph.encode(), stored);
        let newer = br#"{"format":3,"steps":[]}"#;
        assert!(Graph::decode(newer).unwrap_err().to_string().contains("format 3 is not known"));
    }
}
