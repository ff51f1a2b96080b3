//! Histories written by hand, event by event: to test what follows from them without running anything.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::activity::{ActivityError, ActivityRegistry, Effect, Resource, Undo};
use crate::event::{
    self, EVENT_FORMAT, Event, EventKind, LostCause, Next, PauseKind, PauseReason, Phase, Request,
};
use crate::graph::{Graph, StepIx};
use crate::id::{RunId, StepName};
use crate::run::decide::{Command, after_failure, decide, next_wake};
use crate::run::resolve::{FunctionRegistry, resolve};
use crate::run::state::{Halt, RunState};
use crate::run::{IllegalEvent, RunStatus, Verb, apply, create};
use crate::runtime::StartRun;
use crate::store::{Expect, RunSummary, Store, StoreError, Transition};
use crate::time::Timestamp;

/// Why a history cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// An event does not fit what came before, in the words of the core.
    #[error(transparent)]
    Illegal(#[from] IllegalEvent),
    /// What was asked for is no event of this run.
    #[error("event {seq} cannot be made: {why}")]
    Impossible {
        /// The number that it would have had.
        seq: u64,
        /// Why.
        why: String,
    },
    /// A store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Builds a valid history of one run, event by event. Numbers and times come by themselves, a second apart; the first
/// event that does not fit is kept and told at the end, and nothing is added after it.
///
/// It writes what it is told and no more: which step starts when is for the test to say. Where one call needs others
/// before it, as a success needs an attempt, they are added.
///
/// ```
/// use dssflow_engine::id::{ActivityName, StepName, WorkflowName};
/// use dssflow_engine::run::StepStatus;
/// use dssflow_engine::testing::HistoryBuilder;
/// use dssflow_engine::{ActivityError, Binding, Graph, StartRun, Step};
/// use serde_json::json;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let step = |name: &str| -> Result<Step, Box<dyn std::error::Error>> {
///     Ok(Step::activity(StepName::new(name)?, ActivityName::new("call")?, Binding::literal(1)))
/// };
/// let mut ship = step("ship")?;
/// ship.after.push(StepName::new("pay")?);
/// let graph = Graph::builder().step(step("pay")?).step(ship).build()?;
///
/// let history = HistoryBuilder::new(StartRun::new(WorkflowName::new("shop")?, graph))
///     .attempt_succeeds("pay", json!({"receipt": 7}))
///     .attempt_fails("ship", ActivityError::retryable("Busy", "no lorry"));
/// let ship = StepName::new("ship")?;
/// assert_eq!(history.state()?.step(&ship).map(|s| s.status), Some(StepStatus::Backoff));
///
/// let wrong = history.attempt_succeeds("pay", json!({}));
/// assert!(wrong.events().is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct HistoryBuilder {
    state: RunState,
    events: Vec<Event>,
    graphs: Vec<Graph>,
    activities: ActivityRegistry,
    functions: FunctionRegistry,
    /// When the next event happens.
    next_at: Timestamp,
    error: Option<HistoryError>,
}

/// When a history starts, and how far apart its events are.
const BEGIN: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const APART: Duration = Duration::from_secs(1);

impl HistoryBuilder {
    /// The history of a run that has just been created. A run without an id is named `history`.
    pub fn new(start: StartRun) -> Self {
        let id = start.id.unwrap_or_else(|| RunId::new("history").expect("a fixed name"));
        let event = Event {
            seq: 1,
            at: BEGIN,
            kind: EventKind::RunCreated {
                format: EVENT_FORMAT,
                workflow: start.workflow,
                workflow_version: start.version,
                site: start.site,
                graph: start.graph.hash().clone(),
                input: start.input,
                options: start.options,
                labels: start.labels,
                request: start.request,
                parent: None,
                forked_from: None,
                scheduled: None,
                shapes: Default::default(),
            },
        };
        let state = create(id, start.graph.clone(), &event).expect("a first event that fits its graph");
        Self {
            state,
            events: vec![event],
            graphs: vec![start.graph],
            activities: ActivityRegistry::new(),
            functions: FunctionRegistry::default(),
            next_at: BEGIN + APART,
            error: None,
        }
    }

    /// Takes effects and probes of attempts from these activities. Otherwise all are idempotent and have no probe.
    pub fn activities(mut self, activities: ActivityRegistry) -> Self {
        self.activities = activities;
        self
    }

    /// Functions that inputs name.
    pub fn functions(mut self, functions: FunctionRegistry) -> Self {
        self.functions = functions;
        self
    }

    /// Lets time pass before the next event.
    pub fn wait(mut self, time: Duration) -> Self {
        self.next_at = self.next_at + time;
        self
    }

    /// The next event happens then, and those after it later.
    pub fn at(mut self, time: Timestamp) -> Self {
        self.next_at = time;
        self
    }

    /// Adds an event.
    pub fn event(mut self, kind: EventKind) -> Self {
        if self.error.is_none() {
            self.add(kind);
        }
        self
    }

    /// A graph that a later event refers to, as [`EventKind::RunUpgraded`] does; in the order of those events.
    pub fn graph(mut self, graph: Graph) -> Self {
        self.state.known_graphs.insert(graph.hash().clone(), graph.clone());
        self.graphs.push(graph);
        self
    }

    /// An attempt of a step starts: to undo it when the run goes backwards, to look what became of it when it has a
    /// probe and its outcome is not known, else to execute it. The input is resolved, as the engine does it.
    pub fn attempt_starts(self, step: &str) -> Self {
        self.step(step, Self::starts)
    }

    /// An attempt of a step gives an output; it starts first when none is under way.
    pub fn attempt_succeeds(self, step: &str, output: Value) -> Self {
        self.attempt(step, |_, step, attempt| EventKind::AttemptSucceeded {
            step,
            attempt,
            output,
            found: None,
        })
    }

    /// An attempt of a step fails, and what follows is what the core says; it starts first when none is under way.
    pub fn attempt_fails(self, step: &str, error: ActivityError) -> Self {
        self.attempt(step, |history, step, attempt| {
            let next = history.after(&step, &error);
            EventKind::AttemptFailed { step, attempt, error, next }
        })
    }

    /// An attempt of a step ends without an answer, as in a crash; it starts first when none is under way.
    pub fn attempt_is_lost(self, step: &str) -> Self {
        let cause = LostCause::Crash;
        self.attempt(step, |_, step, attempt| EventKind::AttemptLost { step, attempt, cause })
    }

    /// An attempt of a step records what it made; it starts first when none is under way.
    pub fn records(self, step: &str, kind: &str, id: &str) -> Self {
        let (kind, id) = (kind.to_owned(), id.to_owned());
        self.attempt(step, |history, step, _| {
            let generation = history.state.step(&step).map_or(1, |s| s.generation);
            EventKind::ResourceRecorded { step, resource: Resource { kind, id, generation } }
        })
    }

    /// A step is taken back; an attempt starts first when none is under way.
    pub fn undo_succeeds(self, step: &str) -> Self {
        let undo = Undo::Undone;
        self.attempt(step, |_, step, attempt| EventKind::CompensationSucceeded { step, attempt, undo })
    }

    /// A step cannot be taken back, and what follows is what the core says; an attempt starts first when none is under
    /// way.
    pub fn undo_fails(self, step: &str, error: ActivityError) -> Self {
        self.attempt(step, |history, step, attempt| {
            let next = history.after(&step, &error);
            EventKind::CompensationFailed { step, attempt, error, next }
        })
    }

    /// An operator does something.
    pub fn verb(mut self, verb: &Verb) -> Self {
        if self.error.is_some() {
            return self;
        }
        match verb.event(&self.state, Request::by("tester")) {
            Ok(kind) => self.add(kind),
            Err(why) => self.refuse(why),
        }
        self
    }

    /// A gate, sleep or signal step begins to wait, for ever.
    pub fn waits(self, step: &str) -> Self {
        self.step(step, |history, ix| {
            let step = history.name(ix);
            history.add(EventKind::WaitStarted { step, until: None });
        })
    }

    /// The run stands still: because a step failed so that it has to, or else because somebody asked.
    pub fn paused(mut self) -> Self {
        let request = Request::by("tester");
        if self.state.halt != Some(Halt::Pause) {
            self = self.event(EventKind::PauseRequested { request });
        }
        let reason = self.state.pause_reason.clone().unwrap_or(PauseReason {
            kind: PauseKind::Requested,
            step: None,
            message: "tester asked".to_owned(),
        });
        self.event(EventKind::RunPaused { reason })
    }

    /// The run goes on.
    pub fn resumed(self) -> Self {
        self.event(EventKind::RunResumed { request: Request::by("tester") })
    }

    /// The process crashed and another one takes the run over after `gap`: what was in flight is lost.
    pub fn crashed(mut self, gap: Duration) -> Self {
        self = self.wait(gap);
        let gap_ms = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
        let epoch = 1 + u64::from(self.state.recoveries) + 1;
        self = self.event(EventKind::RunRecovered { epoch, gap_ms, format: EVENT_FORMAT });
        let lost: Vec<StepIx> = self.state.in_flight.keys().copied().collect();
        for ix in lost {
            let name = self.name(ix);
            self = self.attempt_is_lost(name.as_str());
        }
        self
    }

    /// The run turns round.
    pub fn rollback_starts(self) -> Self {
        let request = Request::by("tester");
        self.event(EventKind::RollbackStarted { keep: Vec::new(), to: None, request })
    }

    /// The run ends, in the way the core says.
    pub fn finished(mut self) -> Self {
        if self.error.is_some() {
            return self;
        }
        let commands = decide(&self.state, self.next_at, &|_| true);
        match commands.as_slice() {
            [Command::Finish(status)] => {
                let status = *status;
                let output = self.state.graph.output().filter(|_| status == RunStatus::Succeeded).cloned();
                let output = output.map(|binding| resolve(&self.state, &self.functions, &binding));
                match output.transpose() {
                    Ok(output) => self.add(EventKind::RunFinished { status, output, error: None }),
                    Err(error) => self.refuse(error.to_string()),
                }
            }
            other => self.refuse(format!("the run does not end here; what follows is {other:?}")),
        }
        self
    }

    /// The state that the history leads to.
    ///
    /// # Errors
    /// The first event that did not fit.
    pub fn state(&self) -> Result<&RunState, HistoryError> {
        self.error.clone().map_or(Ok(&self.state), Err)
    }

    /// The events.
    ///
    /// # Errors
    /// The first event that did not fit.
    pub fn events(&self) -> Result<&[Event], HistoryError> {
        self.error.clone().map_or(Ok(&self.events), Err)
    }

    /// The graphs that the events refer to.
    pub fn graphs(&self) -> &[Graph] {
        &self.graphs
    }

    /// What the core would do next, at the time of the next event, if nothing else were in the way.
    ///
    /// # Errors
    /// The first event that did not fit.
    pub fn what_follows(&self) -> Result<Vec<Command>, HistoryError> {
        Ok(decide(self.state()?, self.next_at, &|_| true))
    }

    /// Writes the run to a store in which it does not exist yet. An engine on that store can drive it on.
    ///
    /// # Errors
    /// The first event that did not fit, or why the store did not take it.
    pub async fn into_store(&self, store: &dyn Store) -> Result<RunId, HistoryError> {
        let mut left = self.events()?;
        let mut graphs = self.graphs.iter();
        let mut expect = Expect::New;
        while !left.is_empty() {
            // A transition takes one graph with it; each but the first begins with the event that refers to it.
            let refers = |event: &Event| matches!(event.kind, EventKind::RunUpgraded { .. });
            let end = left.iter().skip(1).position(refers).map_or(left.len(), |at| at + 1);
            let (events, rest) = left.split_at(end);
            let graph = graphs.next().map(|graph| (graph.hash().clone(), graph.encode().to_vec()));
            let transition = Transition {
                run: self.state.id.clone(),
                expect,
                epoch: store.epoch(),
                events: u32::try_from(events.len()).expect("a history written by hand is short"),
                record: event::encode(events),
                summary: self.summary(),
                due: next_wake(&self.state, Timestamp::default()),
                graph,
                schedule: None,
            };
            expect = Expect::At { seq: store.commit(transition).await? };
            left = rest;
        }
        Ok(self.state.id.clone())
    }

    fn summary(&self) -> RunSummary {
        let state = &self.state;
        RunSummary {
            run: state.id.clone(),
            workflow: state.workflow.to_string(),
            site: state.site.clone(),
            status: state.status(),
            created: state.created,
            updated: state.updated,
            done: state.done,
            total: state.total(),
            live: state.is_live(),
            note: String::new(),
            labels: state.labels.clone(),
        }
    }

    fn add(&mut self, kind: EventKind) {
        let at = self.next_at.max(self.state.updated);
        let event = Event { seq: self.state.seq + 1, at, kind };
        match apply(&mut self.state, &event) {
            Ok(()) => {
                self.events.push(event);
                self.next_at = at + APART;
            }
            Err(error) => self.error = Some(error.into()),
        }
    }

    fn refuse(&mut self, why: String) {
        self.error.get_or_insert(HistoryError::Impossible { seq: self.state.seq + 1, why });
    }

    fn name(&self, ix: StepIx) -> StepName {
        self.state.graph.step(ix).name.clone()
    }

    /// Does something with a step that is there.
    fn step(mut self, name: &str, does: impl FnOnce(&mut Self, StepIx)) -> Self {
        if self.error.is_some() {
            return self;
        }
        let found = StepName::new(name).map_err(|error| error.to_string()).and_then(|name| {
            let near = self.state.graph.nearest(&name);
            let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            self.state.graph.index_of(&name).ok_or_else(|| format!("step {name} is not in the run{near}"))
        });
        match found {
            Ok(ix) => does(&mut self, ix),
            Err(why) => self.refuse(why),
        }
        self
    }

    fn starts(&mut self, ix: StepIx) {
        let (graph, s) = (self.state.graph.clone(), &self.state.steps[ix as usize]);
        let step = graph.step(ix);
        let code = step.kind.activity().and_then(|name| self.activities.get(name));
        let probed = code.is_some_and(|code| code.has_probe());
        let unknown = matches!(s.ledger, crate::run::state::Ledger::Unknown { .. });
        let phase = match (unknown && s.probed, self.state.rolling_back) {
            (true, _) => Phase::Probe,
            (false, true) => Phase::Compensate,
            (false, false) => Phase::Execute,
        };
        let (attempt, generation, old) = (s.attempt + 1, s.generation, s.input.clone());
        let mut input = None;
        let mut changed = false;
        if phase == Phase::Execute
            && let Some(binding) = step.kind.bindings()
        {
            match resolve(&self.state, &self.functions, binding) {
                Ok(value) => {
                    changed = s.intent && old.as_deref().is_some_and(|old| *old != value);
                    input = Some(value).filter(|value| old.as_deref() != Some(value));
                }
                Err(error) => return self.refuse(error.to_string()),
            }
        }
        let effect = code.map_or(Effect::Idempotent, |code: &Arc<_>| code.effect());
        self.add(EventKind::AttemptStarted {
            step: step.name.clone(),
            attempt,
            phase,
            generation: generation + u32::from(changed),
            effect,
            probed,
            owns_nothing: code.is_some_and(|code| !code.owns()),
            input,
            deadline: None,
        });
    }

    /// Adds what becomes of the attempt under way, which starts when there is none.
    fn attempt(self, step: &str, ends: impl FnOnce(&Self, StepName, u32) -> EventKind) -> Self {
        self.step(step, |history, ix| {
            if !history.state.in_flight.contains_key(&ix) {
                history.starts(ix);
            }
            if history.error.is_none() {
                let attempt = history.state.steps[ix as usize].attempt;
                let kind = ends(history, history.name(ix), attempt);
                history.add(kind);
            }
        })
    }

    /// What follows a failure, with the longest delay that chance may give.
    fn after(&self, step: &StepName, error: &ActivityError) -> Next {
        let ix = self.state.graph.index_of(step).expect("looked up a moment ago");
        after_failure(&self.state, ix, error, self.next_at, 1.0)
    }
}
