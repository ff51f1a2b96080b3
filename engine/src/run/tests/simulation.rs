//! A driver, a world and an operator made of chance: what happens to a run is drawn, within what may happen at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::invariants::broken;
use super::name;
use crate::activity::{ActivityError, Effect, Owner, Probe, Resource, Undo};
use crate::event::{CancelMode, EVENT_FORMAT, Event, EventKind, LostCause, Next, Phase, Request};
use crate::graph::{Binding, Graph, GraphBuilder, OnReject, Step, StepIx, StepKind};
use crate::id::{ActivityName, RunId, StepName, WorkflowName};
use crate::run::decide::{after_absent, after_failure, blocked, give_up_for_good};
use crate::run::resolve::{FunctionRegistry, resolve};
use crate::run::state::{Ledger, RunState, StepState};
use crate::run::verbs::rejected;
use crate::run::versions::to_do_again;
use crate::run::{Command, OnTrouble, RunOptions, RunStatus, StepStatus, Verb, apply, create, decide};
use crate::time::Timestamp;

/// A run to which things happen by chance.
pub(super) struct Sim {
    pub(super) state: RunState,
    pub(super) events: Vec<Event>,
    seed: u64,
    now: u64,
    rng: StdRng,
    /// The effect of each step of the definition, and whether it can be probed.
    nature: BTreeMap<StepName, (Effect, bool)>,
    pub(super) accepted: BTreeMap<&'static str, u32>,
}

fn request() -> Request {
    Request::by("chance")
}

impl Sim {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let graph = random_graph(&mut rng, None);
        let mut options = RunOptions { parallelism: rng.random_range(1..5), ..RunOptions::default() };
        let mut trouble = || match rng.random_range(0..12) {
            0..8 => OnTrouble::Pause,
            8..11 => OnTrouble::Fail,
            _ => OnTrouble::Rollback,
        };
        (options.on_exhausted, options.on_failure) = (trouble(), trouble());
        if rng.random_bool(0.1) {
            options.timeout_ms = Some(rng.random_range(1_000..200_000));
            options.on_blocked = options.on_failure;
        }
        let event = Event {
            seq: 1,
            at: Timestamp::from_millis(1000),
            kind: EventKind::RunCreated {
                format: EVENT_FORMAT,
                workflow: WorkflowName::new("test").unwrap(),
                workflow_version: 1,
                site: String::new(),
                graph: graph.hash().clone(),
                input: json!({"yes": true, "no": false}),
                options,
                labels: BTreeMap::new(),
                request: request(),
                parent: None,
                forked_from: None,
                scheduled: None,
                shapes: BTreeMap::new(),
            },
        };
        let state = create(RunId::new("r").unwrap(), graph, &event).unwrap();
        let mut sim = Self {
            state,
            events: vec![event],
            seed,
            now: 1000,
            rng,
            nature: BTreeMap::new(),
            accepted: BTreeMap::new(),
        };
        sim.look();
        sim
    }

    fn chance(&mut self, p: f64) -> bool {
        self.rng.random_bool(p)
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }

    fn fail(&self, why: &str) -> ! {
        let last: Vec<String> = self
            .events
            .iter()
            .rev()
            .take(25)
            .rev()
            .map(|e| format!("{} {:?}", e.at.as_millis(), e.kind))
            .collect();
        panic!("seed {}: {why}\nafter\n{}", self.seed, last.join("\n"));
    }

    fn look(&mut self) {
        let broken = broken(&self.state);
        if !broken.is_empty() {
            self.fail(&broken.join("\n"));
        }
    }

    /// Feeds an event. A refused one changes nothing.
    fn feed(&mut self, kind: EventKind) -> Result<(), String> {
        self.now += 1;
        let event = Event { seq: self.state.seq + 1, at: Timestamp::from_millis(self.now), kind };
        let before = self.state.clone();
        match apply(&mut self.state, &event) {
            Ok(()) => {
                self.events.push(event);
                self.look();
                Ok(())
            }
            Err(error) => {
                if format!("{before:?}") != format!("{:?}", self.state) {
                    self.fail(&format!("{event:?} was refused and changed something"));
                }
                Err(error.to_string())
            }
        }
    }

    /// Feeds an event that a driver may write.
    fn must(&mut self, kind: EventKind) {
        let shown = kind.clone();
        if let Err(why) = self.feed(kind) {
            self.fail(&format!("{shown:?}: {why}"));
        }
    }

    fn step_name(&self, ix: StepIx) -> StepName {
        self.state.graph.step(ix).name.clone()
    }

    fn nature(&mut self, ix: StepIx) -> (Effect, bool) {
        let own = self.state.steps[ix as usize].map.unwrap_or(ix);
        let drawn = match self.below(4) {
            0 => (Effect::Read, false),
            1 => (Effect::Idempotent, false),
            2 => (Effect::Idempotent, true),
            _ => (Effect::Create, true),
        };
        *self.nature.entry(self.step_name(own)).or_insert(drawn)
    }

    /// Does what the core wants, as a driver would.
    pub(super) fn turn(&mut self) -> usize {
        let commands = decide(&self.state, Timestamp::from_millis(self.now), &|_| true);
        let n = commands.len();
        for command in commands {
            let halted = self.state.halt.is_some();
            match command {
                Command::StartAttempt { .. } if halted => {}
                Command::StartAttempt { step, phase } => self.start(step, phase),
                Command::GoOn { step } => self.go_on(step),
                Command::EndWait { step } => self.end_wait(step),
                Command::StartTooLate { step } => self.step_failed(step),
                Command::TimeOut => self.must(EventKind::RunTimedOut {}),
                Command::Pause(reason) => self.must(EventKind::RunPaused { reason }),
                Command::BeginRollback => {
                    self.must(EventKind::RollbackStarted { keep: vec![], to: None, request: request() });
                }
                Command::Finish(status) => {
                    self.must(EventKind::RunFinished { status, output: None, error: None });
                }
                Command::WakeAt(at) => {
                    if self.state.in_flight.is_empty() || self.chance(0.3) {
                        self.now = self.now.max(at.as_millis());
                    }
                }
            }
        }
        n
    }

    fn step_failed(&mut self, ix: StepIx) {
        let error = ActivityError::terminal("Chance", "drawn").no_effect();
        let next = give_up_for_good(&self.state, ix);
        self.must(EventKind::StepFailed { step: self.step_name(ix), error, next });
    }

    /// False when the step was skipped.
    fn condition(&mut self, ix: StepIx) -> bool {
        if self.state.steps[ix as usize].asked {
            return true;
        }
        let step = self.state.graph.step(ix).clone();
        let Some(when) = &step.when else { return true };
        let holds = resolve(&self.state, &FunctionRegistry::default(), when).unwrap();
        if holds == json!(true) {
            return true;
        }
        self.must(EventKind::StepSkipped { step: step.name, request: None });
        false
    }

    fn start(&mut self, ix: StepIx, phase: Phase) {
        let mut input = None;
        if phase == Phase::Execute {
            if !self.condition(ix) {
                return;
            }
            if self.chance(0.02) {
                return self.step_failed(ix);
            }
            if self.state.steps[ix as usize].input.is_none() || self.chance(0.1) {
                input = Some(json!(self.rng.random::<u8>()));
            }
        }
        let (effect, probed) = self.nature(ix);
        let s = &self.state.steps[ix as usize];
        let changed = input.is_some() && s.intent && !matches!(s.ledger, Ledger::NoEffect | Ledger::NotOurs);
        self.must(EventKind::AttemptStarted {
            step: self.step_name(ix),
            attempt: s.attempt + 1,
            phase,
            generation: s.generation + u32::from(changed),
            effect,
            probed,
            owns_nothing: false,
            input,
            deadline: None,
        });
    }

    fn go_on(&mut self, ix: StepIx) {
        if !self.condition(ix) {
            return;
        }
        let step = self.step_name(ix);
        match self.state.graph.step(ix).kind.clone() {
            StepKind::Map { .. } if self.state.maps.contains_key(&ix) => {
                self.must(EventKind::MapCollected { step });
            }
            StepKind::Map { .. } if self.chance(0.05) => self.step_failed(ix),
            StepKind::Map { .. } => {
                let keys: Vec<String> =
                    (0..6).filter(|_| self.chance(0.5)).map(|k| format!("k{k}")).collect();
                let items = keys.iter().map(|_| json!(self.rng.random::<u8>())).collect();
                self.must(EventKind::MapExpanded { step, keys, items });
            }
            kind => {
                let until = (matches!(kind, StepKind::Sleep { .. }) || self.chance(0.5))
                    .then(|| Timestamp::from_millis(self.now + self.rng.random_range(0..50_000)));
                self.must(EventKind::WaitStarted { step, until });
            }
        }
    }

    fn end_wait(&mut self, ix: StepIx) {
        let step = self.step_name(ix);
        match self.state.graph.step(ix).kind.clone() {
            StepKind::Gate { .. } if self.chance(0.7) => {
                let approved = self.chance(0.5);
                let next = if approved { None } else { rejected(&self.state, ix) };
                self.must(EventKind::GateDecided { step, approved, request: request(), next });
            }
            StepKind::Gate { .. } => self.step_failed(ix),
            StepKind::Signal { .. } if self.chance(0.3) => self.step_failed(ix),
            _ => self.must(EventKind::WaitEnded { step, output: Value::Null }),
        }
    }

    /// An attempt under way ends, or tells something.
    fn land(&mut self, well: bool) {
        let n = self.below(self.state.in_flight.len());
        let (ix, flight) = self.state.in_flight.iter().nth(n).map(|(&ix, f)| (ix, f.clone())).unwrap();
        let (step, attempt, phase) = (self.step_name(ix), flight.attempt, flight.phase);
        let (_, probed) = self.nature(ix);
        let undoing = self.state.rolling_back;
        let draw = if well { 100 } else { self.below(100) };
        let now = Timestamp::from_millis(self.now + 1);
        if draw < 10 {
            let generation = self.state.steps[ix as usize].generation;
            let resource = Resource { kind: "x".into(), id: draw.to_string(), generation };
            return self.must(EventKind::ResourceRecorded { step, resource });
        }
        if draw < 15 {
            let values = [("k".to_owned(), json!(1))].into();
            return self.must(EventKind::BeforeRecorded { step, values });
        }
        if draw < 20 {
            return self.must(EventKind::HeartbeatRecorded { step, attempt, details: json!(draw) });
        }
        if draw < 25 && self.state.halt.is_some() {
            return self.must(EventKind::AttemptLost { step, attempt, cause: LostCause::Interrupted });
        }
        if draw < 50 {
            let error = match self.below(8) {
                0..4 => ActivityError::retryable("Busy", "later"),
                4 => ActivityError::throttled("Slow", "down"),
                5 => ActivityError::terminal("No", "never"),
                6 => ActivityError::credentials("Expired", "log in"),
                _ => ActivityError::needs_human("Odd", "look"),
            };
            let error = if self.chance(0.5) { error.no_effect() } else { error };
            let next = after_failure(&self.state, ix, &error, now, 0.5);
            return self.must(if undoing {
                EventKind::CompensationFailed { step, attempt, error, next }
            } else {
                EventKind::AttemptFailed { step, attempt, error, next }
            });
        }
        if phase == Phase::Compensate {
            let undo = match self.below(5) {
                0 => Undo::NothingToDo,
                1 => Undo::Kept { reason: "drawn".into() },
                _ => Undo::Undone,
            };
            return self.must(EventKind::CompensationSucceeded { step, attempt, undo });
        }
        if probed && draw < 75 {
            let settle = Duration::from_secs(30);
            let (answer, next) = match self.below(4) {
                0 => (Probe::Absent, after_absent(&self.state, ix, settle, now)),
                1 => {
                    let next = Next::At { at: now + Duration::from_secs(10) };
                    (Probe::InProgress { detail: String::new() }, next)
                }
                2 => (Probe::Failed { owner: Owner::ThisRun, detail: "bad".into() }, Next::Now),
                _ => {
                    let next = if undoing { Next::Now } else { blocked(&self.state, ix) };
                    (Probe::Present { output: json!(1), owner: Owner::Foreign }, next)
                }
            };
            return self.must(EventKind::ProbeAnswered { step, attempt, answer, next });
        }
        let found = match self.below(4) {
            0 => Some(Owner::ThisSite("other".into())),
            1 => Some(Owner::ThisRun),
            _ => None,
        };
        self.must(EventKind::AttemptSucceeded { step, attempt, output: json!({"n": attempt}), found });
    }

    /// The process dies and another takes over.
    fn crash(&mut self) {
        self.must(EventKind::RunRecovered { epoch: 2, gap_ms: 5, format: EVENT_FORMAT });
        let lost: Vec<_> =
            self.state.in_flight.iter().map(|(&ix, f)| (self.step_name(ix), f.attempt)).collect();
        for (step, attempt) in lost {
            self.must(EventKind::AttemptLost { step, attempt, cause: LostCause::Crash });
        }
    }

    /// Lets anything happen that may.
    pub(super) fn chaos(&mut self, rounds: usize) {
        for _ in 0..rounds {
            if (self.state.paused.is_some() || self.state.finished.is_some()) && self.chance(0.3) {
                let _refused_after_a_rollback = self.feed(EventKind::RunResumed { request: request() });
            }
            match self.below(100) {
                0..45 => drop(self.turn()),
                45..80 if !self.state.in_flight.is_empty() => self.land(false),
                80..83 if self.state.finished.is_none() => self.crash(),
                83 => self.must(EventKind::RunRestored {
                    format: EVENT_FORMAT,
                    backup: self.state.updated,
                    gap_ms: 7,
                    request: request(),
                }),
                84..86 => self.now += self.rng.random_range(0..40_000),
                86..97 => self.verb(),
                _ => self.ask(),
            }
        }
    }

    fn ask(&mut self) {
        let wish = match self.below(40) {
            0..18 => EventKind::RunResumed { request: request() },
            18..26 => EventKind::PauseRequested { request: request() },
            26 => {
                let mode = [CancelMode::Keep, CancelMode::Rollback, CancelMode::Terminate][self.below(3)];
                EventKind::CancelRequested { mode, request: request() }
            }
            27 => {
                let any = self.any_step();
                let to = self.chance(0.3).then(|| any.clone());
                let keep = if self.chance(0.3) { vec![any] } else { vec![] };
                EventKind::RollbackStarted { keep, to, request: request() }
            }
            28..32 => EventKind::RollbackRetried { request: request() },
            _ => {
                let graph = random_graph(&mut self.rng, Some(&self.state.graph));
                let mut draws = StdRng::seed_from_u64(self.rng.random());
                let reset = to_do_again(&self.state, &graph, &mut |_, _| draws.random_bool(0.8));
                self.state.known_graphs.insert(graph.hash().clone(), graph.clone());
                let shapes = BTreeMap::new();
                let graph = graph.hash().clone();
                EventKind::RunUpgraded { graph, workflow_version: 2, reset, shapes, request: request() }
            }
        };
        let _often_refused = self.feed(wish);
    }

    /// A step that may be tried again.
    fn stopped(&self) -> Option<StepName> {
        let stopped = |s: &StepState| matches!(s.status, StepStatus::Failed | StepStatus::Backoff);
        let ix = (0..).zip(&self.state.steps).find(|(_, s)| stopped(s))?.0;
        Some(self.step_name(ix))
    }

    fn any_step(&mut self) -> StepName {
        let n = self.below(self.state.steps.len());
        self.state.graph.steps()[n].name.clone()
    }

    /// An operator's verb: refused, or a change of nothing but the closure of its step.
    fn verb(&mut self) {
        let n = self.below(11);
        let step = match n {
            // Few steps fit these, so one that may is taken where there is one.
            0 | 1 => self.stopped(),
            6 | 7 => self.state.waiting.first().map(|&ix| self.step_name(ix)),
            9 | 10 => self.state.stuck.first().map(|&ix| self.step_name(ix)),
            _ => None,
        };
        let step = step.unwrap_or_else(|| self.any_step());
        let (what, verb) = match n {
            0 | 1 => ("retry", Verb::Retry { step }),
            2 | 3 => ("rerun", Verb::Rerun { from: step }),
            4 => ("skip", Verb::Skip { step }),
            5 => ("complete", Verb::Complete { step, output: json!("by hand") }),
            6 => ("approve", Verb::Approve { step }),
            7 => ("reject", Verb::Reject { step }),
            8 => ("signal", Verb::Signal { signal: "go".into(), payload: json!(1) }),
            9 => ("undone", Verb::MarkUndone { step }),
            _ => ("abandon", Verb::Abandon { step }),
        };
        let before = self.state.clone();
        let event = verb.event(&self.state, request()).unwrap();
        if self.feed(event).is_err() {
            return;
        }
        *self.accepted.entry(what).or_default() += 1;
        let closure = closure(&before, &verb);
        for ix in 0..before.steps.len() {
            let (was, is) = (&before.steps[ix], &self.state.steps[ix]);
            let at = StepIx::try_from(ix).unwrap();
            // Where a child of a map ends, the next one's turn comes.
            let next = is.map.is_some_and(|m| before.maps.get(&m).is_some_and(|m| m.queue.contains(&at)))
                && (was.status, is.status) == (StepStatus::Pending, StepStatus::Ready);
            if !closure.contains(&at) && !next && format!("{was:?}") != format!("{is:?}") {
                let step = self.step_name(at);
                self.fail(&format!("{verb:?} changed {step}\nfrom {was:?}\nto {is:?}"));
            }
        }
    }

    /// Drives to an end, with a world that is kind from now on.
    pub(super) fn finish(&mut self) {
        for _ in 0..3_000 {
            if self.state.finished.is_some() {
                return;
            }
            if self.state.paused.is_some() {
                self.must(EventKind::RunResumed { request: request() });
            }
            if !self.state.in_flight.is_empty() {
                self.land(true);
                continue;
            }
            if self.turn() > 0 {
                continue;
            }
            let Some(&ix) = self.state.waiting.first() else { self.fail("nothing goes on") };
            let step = self.step_name(ix);
            let verb = match &self.state.graph.step(ix).kind {
                StepKind::Signal { signal, .. } => Verb::Signal { signal: signal.clone(), payload: json!(1) },
                _ => Verb::Approve { step },
            };
            let event = verb.event(&self.state, request()).unwrap();
            self.must(event);
        }
        self.fail("it never ends");
    }

    /// The same events give the same state.
    pub(super) fn replay(&self) {
        let (first, rest) = self.events.split_first().unwrap();
        let EventKind::RunCreated { graph: hash, .. } = &first.kind else { unreachable!() };
        let graph = match self.state.known_graphs.get(hash) {
            Some(graph) => graph.clone(),
            None => self.first_graph(),
        };
        let mut state = create(self.state.id.clone(), graph, first).unwrap();
        state.known_graphs = self.state.known_graphs.clone();
        for event in rest {
            apply(&mut state, event).unwrap();
        }
        assert_eq!(format!("{state:?}"), format!("{:?}", self.state), "seed {}", self.seed);
    }

    fn first_graph(&self) -> Graph {
        random_graph(&mut StdRng::seed_from_u64(self.seed), None)
    }

    pub(super) fn status(&self) -> RunStatus {
        self.state.status()
    }
}

/// What a verb may change.
fn closure(before: &RunState, verb: &Verb) -> BTreeSet<StepIx> {
    let graph = &before.graph;
    let mut closure = match verb {
        Verb::Signal { signal: wanted, .. } => (0..)
            .zip(graph.steps())
            .filter(|(_, s)| matches!(&s.kind, StepKind::Signal { signal, .. } if signal == wanted))
            .flat_map(|(ix, _)| graph.downstream(ix))
            .collect(),
        Verb::MarkUndone { step } | Verb::Abandon { step } => {
            let (mut up, mut todo) = (BTreeSet::new(), vec![graph.index_of(step).unwrap()]);
            while let Some(ix) = todo.pop() {
                if up.insert(ix) {
                    todo.extend_from_slice(graph.dependencies(ix));
                }
            }
            up
        }
        other => graph.downstream(graph.index_of(other.step().unwrap()).unwrap()),
    };
    // The children of a map whose list is read again go with it.
    if let Verb::Rerun { from } = verb {
        let first = graph.index_of(from).unwrap();
        closure.extend(before.maps.get(&first).into_iter().flat_map(|map| map.children.clone()));
    }
    closure
}

/// A graph, or a variation of one: some steps added, some gone, some changed.
fn random_graph(rng: &mut StdRng, old: Option<&Graph>) -> Graph {
    let n = rng.random_range(2..11);
    let mut steps: Vec<Step> = Vec::new();
    for i in 0..n {
        let kept = old.and_then(|g| g.steps()[..g.own_len()].get(i)).filter(|_| rng.random_bool(0.8));
        let mut step = match kept {
            Some(step) => step.clone(),
            None => random_step(rng, i),
        };
        step.after.retain(|after| steps.iter().any(|s| s.name == *after));
        if kept.is_none() {
            step.after = steps.iter().filter(|_| rng.random_bool(0.35)).map(|s| s.name.clone()).collect();
        }
        if steps.iter().all(|s| s.name != step.name) {
            steps.push(step);
        }
    }
    steps.into_iter().fold(Graph::builder(), GraphBuilder::step).build().unwrap()
}

fn random_step(rng: &mut StdRng, i: usize) -> Step {
    let act = ActivityName::new("act").unwrap();
    let kind = match rng.random_range(0..20) {
        0..9 => StepKind::Activity { activity: act, input: Binding::literal(i) },
        9..13 => StepKind::Map {
            items: Binding::literal(json!([])),
            activity: act,
            max_concurrency: rng.random_range(0..3),
            tolerated_failures: rng.random_range(0..3),
        },
        13..17 => StepKind::Gate {
            question: "?".into(),
            timeout_ms: None,
            default: None,
            on_reject: if rng.random_bool(0.5) { OnReject::Fail } else { OnReject::Continue },
        },
        17 => StepKind::Sleep { duration_ms: Binding::literal(1) },
        18 => StepKind::Signal { signal: "go".into(), timeout_ms: None, default: None },
        _ => StepKind::SubWorkflow {
            workflow: "other".into(),
            input: Binding::literal(1),
            on_parent_close: crate::graph::OnParentClose::Cancel,
        },
    };
    let mut step = Step::new(name(&format!("s{i}")), kind);
    if rng.random_bool(0.15) {
        let pointer = if rng.random_bool(0.5) { "/yes" } else { "/no" };
        step.when = Some(Binding::Input { pointer: pointer.into() });
    }
    step.retry.maximum_attempts = rng.random_range(1..4);
    step.protect = rng.random_bool(0.05);
    if rng.random_bool(0.2) {
        step.timeouts.schedule_to_start_ms = Some(rng.random_range(1..60_000));
    }
    if rng.random_bool(0.1) {
        step.timeouts.schedule_to_close_ms = Some(rng.random_range(1..60_000));
    }
    step
}
