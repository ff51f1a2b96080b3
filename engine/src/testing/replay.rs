//! Stored histories against the code of now: whether it still reads what earlier code wrote.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;

use serde_json::Value;

use crate::event::{self, DecodeError, Event, EventKind};
use crate::graph::{Binding, Graph, GraphError, Step, StepIx, StepKind};
use crate::id::{RunId, StepName};
use crate::run::state::StepState;
use crate::run::versions::{Comparison, Verdict, compare};
use crate::run::view::{RunView, view};
use crate::run::{IllegalEvent, RunState, RunStatus, StepStatus, apply, create};
use crate::runtime::{Engine, EngineError, history};
use crate::store::{GraphHash, Store};

/// Why a history cannot be replayed at all.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It cannot be had from the store.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A line is no event.
    #[error("line {line} of the history is no event: {why}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// Why.
        why: String,
    },
    /// The events are no history that this version reads.
    #[error("run {run}: {error}")]
    Unreadable {
        /// The run.
        run: RunId,
        /// Why.
        error: DecodeError,
    },
    /// There are no events.
    #[error("there are no events")]
    Empty,
    /// An event refers to a graph that was not given.
    #[error("run {run}, event {seq}: graph {} was not given; `dssflow runs graph {run} -o json` prints it", graph.0)]
    MissingGraph {
        /// The run.
        run: RunId,
        /// The event.
        seq: u64,
        /// The graph.
        graph: GraphHash,
    },
    /// An event does not fit those before it.
    #[error("run {run}: {error}")]
    Illegal {
        /// The run.
        run: RunId,
        /// Which, and why.
        error: IllegalEvent,
    },
}

/// What the code of now cannot do with a stored run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayProblem {
    /// A step's activity is not registered.
    #[error("run {run}: activity {activity} of step {step} is not registered")]
    MissingActivity {
        /// The run.
        run: RunId,
        /// The step.
        step: StepName,
        /// The activity.
        activity: String,
    },
    /// A function is not registered.
    #[error("run {run}: function {function}, which {} names, is not registered", step.as_ref().map_or("the run's output".to_owned(), |s| format!("step {s}")))]
    MissingFunction {
        /// The run.
        run: RunId,
        /// The step; none for what the run returns.
        step: Option<StepName>,
        /// The function.
        function: String,
    },
    /// A step's workflow is not registered.
    #[error("run {run}: workflow {workflow} of step {step} is not registered")]
    MissingWorkflow {
        /// The run.
        run: RunId,
        /// The step.
        step: StepName,
        /// The workflow.
        workflow: String,
    },
    /// A stored input does not read as what its activity takes.
    #[error("run {run}, event {seq}: the input of step {step} does not fit what {activity} takes now: {why}")]
    Input {
        /// The run.
        run: RunId,
        /// The event that holds it; the first where the graph does.
        seq: u64,
        /// The step.
        step: StepName,
        /// The activity.
        activity: String,
        /// Why.
        why: String,
    },
    /// A stored output does not read as what its activity gives, and no migration mends it.
    #[error(
        "run {run}, event {seq}: the output of step {step} does not fit what {activity} gives now: {why}"
    )]
    Output {
        /// The run.
        run: RunId,
        /// The event that holds it.
        seq: u64,
        /// The step.
        step: StepName,
        /// The activity.
        activity: String,
        /// Why.
        why: String,
    },
    /// The run is not over, and steps of it that have started differ in the definition registered now.
    #[error("run {run}: steps that have started are others in the definition of now: {}", .comparison.differences.iter().map(|d| format!("{} ({:?})", d.step, d.change)).collect::<Vec<_>>().join(", "))]
    Definition {
        /// The run.
        run: RunId,
        /// The differences.
        comparison: Comparison,
    },
    /// The definition registered now does not take the run's input.
    #[error("run {run}: the definition of now does not take its input: {why}")]
    RunInput {
        /// The run.
        run: RunId,
        /// Why.
        why: String,
    },
}

/// What a replay found.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct ReplayReport {
    /// The run as its history leaves it.
    pub view: RunView,
    /// Events replayed.
    pub events: usize,
    /// Stored inputs that were read.
    pub inputs: usize,
    /// Stored outputs that were read.
    pub outputs: usize,
    /// Steps whose outputs only read after their migration.
    pub migrated: Vec<StepName>,
    /// The run beside the definition of its workflow that is registered now; none when none is.
    pub comparison: Option<Comparison>,
    /// What the code of now cannot do; empty is good.
    pub problems: Vec<ReplayProblem>,
}

impl ReplayReport {
    /// The first problem, if there is one.
    ///
    /// # Errors
    /// That problem.
    pub fn ok(&self) -> Result<(), ReplayProblem> {
        self.problems.first().cloned().map_or(Ok(()), Err)
    }

    /// Makes sure that there is no problem.
    ///
    /// # Panics
    /// When there is one, with all of them.
    pub fn assert_ok(&self) {
        assert!(self.problems.is_empty(), "{self}");
    }
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { view, events, problems, .. } = self;
        write!(f, "run {} ({} events): {} problems", view.run, events, problems.len())?;
        problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// A history with the graphs that its events refer to.
#[derive(Debug, Clone)]
pub struct StoredHistory {
    /// The run.
    pub run: RunId,
    /// Its events, from the first.
    pub events: Vec<Event>,
    /// The graphs.
    pub graphs: Vec<Graph>,
}

impl StoredHistory {
    /// A run's history and graphs, from a store.
    ///
    /// # Errors
    /// When there is no such run or it cannot be read.
    pub async fn of_run(store: &dyn Store, run: &RunId) -> Result<Self, ReplayError> {
        let events = history(store, run, 0).await?;
        let mut graphs = Vec::new();
        for hash in events.iter().filter_map(|event| graph_of(&event.kind)) {
            let store_error = |error| EngineError::Store { run: Some(run.clone()), error };
            let bytes = store.graph(hash).await.map_err(store_error)?;
            let graph = Graph::decode(&bytes).map_err(|error| EngineError::Graph { run: run.clone(), error });
            graphs.push(graph?);
        }
        Ok(Self { run: run.clone(), events, graphs })
    }

    /// A history with one event a line, as `dssflow runs events RUN -o jsonl` prints it, with or without the line on
    /// versions that comes first. The graphs are not in it: give them here or with [`StoredHistory::with_graph_json`].
    ///
    /// # Errors
    /// When a line is no event, or the events are not numbered from 1 on or written by a later version.
    pub fn from_json_lines(text: &str, graphs: Vec<Graph>) -> Result<Self, ReplayError> {
        let mut run = RunId::new("history").expect("a fixed name");
        let (mut lines, mut events) = (Vec::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let bad = |why: String| ReplayError::Line { line: number, why };
            let value: Value = serde_json::from_str(line).map_err(|e| bad(e.to_string()))?;
            if value["type"] == "version" {
                let named = value["run"].as_str().unwrap_or_default();
                run = RunId::new(named).map_err(|e| bad(e.to_string()))?;
                continue;
            }
            lines.push((number, value));
        }
        if lines.is_empty() {
            return Err(ReplayError::Empty);
        }
        for (line, value) in lines {
            let expected = events.len() as u64 + 1;
            // The same reader as for stored records: it knows later versions and missing numbers.
            let decoded = event::decode(expected, Value::Array(vec![value]).to_string().as_bytes());
            match decoded {
                Ok(decoded) => events.extend(decoded),
                Err(DecodeError::Unreadable { why, .. }) => return Err(ReplayError::Line { line, why }),
                Err(error @ DecodeError::Newer { .. }) => {
                    return Err(ReplayError::Unreadable { run, error });
                }
            }
        }
        Ok(Self { run, events, graphs })
    }

    /// With a graph as `dssflow runs graph RUN -o json` prints it.
    ///
    /// # Errors
    /// When it is no graph.
    pub fn with_graph_json(mut self, text: &str) -> Result<Self, GraphError> {
        let value: Value = serde_json::from_str(text).map_err(|e| GraphError::Unreadable(e.to_string()))?;
        // The stored form, which the history knows by its hash, has no spaces.
        self.graphs.push(Graph::decode(value.to_string().as_bytes())?);
        Ok(self)
    }

    /// The state that the history leads to.
    ///
    /// # Errors
    /// When a graph is missing, or an event does not fit.
    pub fn state(&self) -> Result<RunState, ReplayError> {
        self.fold(|_, _| {})
    }

    /// Replays it; `seen` is shown each event and the state after it.
    fn fold(&self, mut seen: impl FnMut(&Event, &RunState)) -> Result<RunState, ReplayError> {
        let run = &self.run;
        let illegal = |error| ReplayError::Illegal { run: run.clone(), error };
        let (first, rest) = self.events.split_first().ok_or(ReplayError::Empty)?;
        let hash = graph_of(&first.kind).ok_or_else(|| {
            illegal(IllegalEvent { seq: first.seq, why: "a history starts with run_created".to_owned() })
        })?;
        let mut state = create(run.clone(), self.graph(first.seq, hash)?, first).map_err(illegal)?;
        seen(first, &state);
        for event in rest {
            if let Some(hash) = graph_of(&event.kind) {
                state.known_graphs.insert(hash.clone(), self.graph(event.seq, hash)?);
            }
            std::panic::catch_unwind(AssertUnwindSafe(|| apply(&mut state, event)))
                .unwrap_or_else(|_| {
                    let why = "it contradicts what came before".to_owned();
                    Err(IllegalEvent { seq: event.seq, why })
                })
                .map_err(illegal)?;
            seen(event, &state);
        }
        Ok(state)
    }

    fn graph(&self, seq: u64, hash: &GraphHash) -> Result<Graph, ReplayError> {
        let missing = || ReplayError::MissingGraph { run: self.run.clone(), seq, graph: hash.clone() };
        self.graphs.iter().find(|graph| graph.hash() == hash).cloned().ok_or_else(missing)
    }
}

fn graph_of(kind: &EventKind) -> Option<&GraphHash> {
    match kind {
        EventKind::RunCreated { graph, .. } | EventKind::RunUpgraded { graph, .. } => Some(graph),
        _ => None,
    }
}

/// Replays a history against an engine's code: its activities, functions, workflows and migrations. Nothing runs and
/// nothing is written.
///
/// # Errors
/// When it cannot be replayed at all. What the code of now cannot do with it is in the report.
pub fn replay(history: &StoredHistory, code: &Engine) -> Result<ReplayReport, ReplayError> {
    // Where the input and the output of each step were written.
    let mut inputs: BTreeMap<StepName, u64> = BTreeMap::new();
    let mut outputs: BTreeMap<StepName, u64> = BTreeMap::new();
    let state = history.fold(|event, _| match &event.kind {
        EventKind::AttemptStarted { step, input: Some(_), .. } => {
            inputs.insert(step.clone(), event.seq);
        }
        EventKind::AttemptSucceeded { step, .. }
        | EventKind::StepCompleted { step, .. }
        | EventKind::MapCollected { step }
        | EventKind::OutputMigrated { step, .. } => {
            outputs.insert(step.clone(), event.seq);
        }
        _ => {}
    })?;
    let mut checker = Checker {
        code,
        run: &history.run,
        state: &state,
        report: ReplayReport {
            view: view(&state),
            events: history.events.len(),
            inputs: 0,
            outputs: 0,
            migrated: Vec::new(),
            comparison: None,
            problems: Vec::new(),
        },
    };
    let seq = |of: &BTreeMap<StepName, u64>, step: &Step| of.get(&step.name).copied().unwrap_or(1);
    for (ix, step) in (0..).zip(state.graph.steps()) {
        checker.code_is_there(step);
        checker.inputs(ix, step, seq(&inputs, step));
        checker.output(ix, step, seq(&outputs, step));
    }
    if let Some(output) = state.graph.output() {
        checker.functions(None, output);
    }
    checker.definition();
    Ok(checker.report)
}

/// As [`replay`], of a run in the engine's own store.
///
/// # Errors
/// As [`replay`], and when there is no such run.
pub async fn replay_run(engine: &Engine, run: &RunId) -> Result<ReplayReport, ReplayError> {
    let history = StoredHistory::of_run(engine.store().as_ref(), run).await?;
    replay(&history, engine)
}

struct Checker<'a> {
    code: &'a Engine,
    run: &'a RunId,
    state: &'a RunState,
    report: ReplayReport,
}

impl Checker<'_> {
    fn code_is_there(&mut self, step: &Step) {
        let (run, name) = (self.run.clone(), step.name.clone());
        match &step.kind {
            StepKind::Activity { activity, .. } | StepKind::Map { activity, .. } => {
                if self.code.activities().get(activity).is_none() {
                    let activity = activity.to_string();
                    self.report.problems.push(ReplayProblem::MissingActivity { run, step: name, activity });
                }
            }
            StepKind::SubWorkflow { workflow, .. } => {
                if !self.code.inner.workflows.keys().any(|known| known.as_str() == workflow) {
                    let workflow = workflow.clone();
                    self.report.problems.push(ReplayProblem::MissingWorkflow { run, step: name, workflow });
                }
            }
            StepKind::Gate { .. } | StepKind::Sleep { .. } | StepKind::Signal { .. } => {}
        }
        let keys = step.locks.iter().filter_map(|lock| lock.key.as_ref());
        for binding in step.kind.bindings().into_iter().chain(&step.when).chain(keys) {
            self.functions(Some(&step.name), binding);
        }
    }

    fn functions(&mut self, step: Option<&StepName>, binding: &Binding) {
        binding.functions(&mut |function| {
            if !self.code.inner.functions.contains(function) {
                let (run, function) = (self.run.clone(), function.to_owned());
                let step = step.cloned();
                self.report.problems.push(ReplayProblem::MissingFunction { run, step, function });
            }
        });
    }

    /// What an attempt or an undo would still be given.
    fn inputs(&mut self, ix: StepIx, step: &Step, seq: u64) {
        let s = &self.state.steps[ix as usize];
        let Some(activity) = step.kind.activity() else { return };
        let Some(code) = self.code.activities().get(activity) else { return };
        if matches!(step.kind, StepKind::Map { .. }) || is_over(s) {
            return;
        }
        let stored: Vec<&Value> = match (&s.input, &step.kind) {
            (Some(input), _) => s.past_inputs.iter().chain([input]).map(AsRef::as_ref).collect(),
            (None, StepKind::Activity { input: Binding::Literal { value }, .. }) => vec![value],
            (None, _) => Vec::new(),
        };
        for input in stored {
            self.report.inputs += 1;
            if let Err(why) = code.check_input(input) {
                let (run, step) = (self.run.clone(), step.name.clone());
                let activity = activity.to_string();
                self.report.problems.push(ReplayProblem::Input { run, seq, step, activity, why });
            }
        }
    }

    /// What later steps or an undo would still read.
    fn output(&mut self, ix: StepIx, step: &Step, seq: u64) {
        let s = &self.state.steps[ix as usize];
        let (Some(activity), Some(output)) = (step.kind.activity(), s.output.as_deref()) else { return };
        let Some(code) = self.code.activities().get(activity) else { return };
        if is_over(s) || !(s.status.is_done() || s.may_have_effect()) {
            return;
        }
        // The output of a map is that of its children, which are looked at themselves.
        if matches!(step.kind, StepKind::Map { .. }) && self.state.maps.contains_key(&ix) {
            return;
        }
        self.report.outputs += 1;
        let (run, name) = (self.run.clone(), step.name.clone());
        let Err(mut why) =
            self.code.inner.check_output(self.state, &step.name, output).map_err(|error| reason(&error))
        else {
            return;
        };
        match self.code.inner.migrations.get(activity).map(|migrate| migrate(output)) {
            Some(Ok(migrated)) => match code.check_output(&migrated) {
                Ok(()) => return self.report.migrated.push(name),
                Err(still) => why = format!("after its migration: {still}"),
            },
            Some(Err(says)) => why = format!("its migration says: {says}"),
            None => {}
        }
        let activity = activity.to_string();
        self.report.problems.push(ReplayProblem::Output { run, seq, step: name, activity, why });
    }

    fn definition(&mut self) {
        let Some(definition) = self.code.inner.workflows.get(&self.state.workflow) else { return };
        let run = self.run.clone();
        let graph = match definition.graph(&self.state.input) {
            Ok(graph) => graph,
            Err(why) => return self.report.problems.push(ReplayProblem::RunInput { run, why }),
        };
        let comparison = compare(self.state, &graph, &self.code.inner.shapes(&graph));
        let over = matches!(
            self.state.status(),
            RunStatus::Succeeded | RunStatus::RolledBack | RunStatus::RollingBack | RunStatus::RollbackStuck
        );
        if comparison.verdict == Verdict::Incompatible && !over {
            let comparison = comparison.clone();
            self.report.problems.push(ReplayProblem::Definition { run, comparison });
        }
        self.report.comparison = Some(comparison);
    }
}

/// Whether nobody reads anything of the step any more.
fn is_over(s: &StepState) -> bool {
    s.retired || s.status == StepStatus::Compensated
}

/// What does not fit, without the step and activity that stand beside it anyway.
fn reason(error: &EngineError) -> String {
    match error {
        EngineError::OutputMismatch { why, .. } => why.clone(),
        other => other.to_string(),
    }
}
