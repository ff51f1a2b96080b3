//! The core on values: a history goes in, a state or commands come out.

mod invariants;
mod random;
mod restore;
mod simulation;

use std::time::Duration;

use serde_json::json;

use crate::activity::{ActivityError, Effect, ErrorClass, Owner, Probe, Resource, Undo};
use crate::event::{EVENT_FORMAT, Event, EventKind, LostCause, Next, Phase, Request};
use crate::graph::{Binding, Graph, LockUse, Step};
use crate::id::{ActivityName, LockName, RunId, StepName, WorkflowName};
use crate::run::decide::{after_absent, after_failure};
use crate::run::{Command, OnTrouble, RunOptions, RunState, RunStatus, StepStatus, apply, create, decide};
use crate::time::Timestamp;

fn name(n: &str) -> StepName {
    StepName::new(n).unwrap()
}

fn step(n: &str, after: &[&str]) -> Step {
    let mut step = Step::activity(name(n), ActivityName::new("act").unwrap(), Binding::literal(json!(null)));
    step.after = after.iter().map(|a| name(a)).collect();
    step
}

/// A run under test: feeds events with rising numbers and times.
struct Bench {
    state: RunState,
    now: u64,
}

impl Bench {
    fn new(steps: Vec<Step>, options: RunOptions) -> Self {
        let graph =
            steps.into_iter().fold(Graph::builder(), crate::graph::GraphBuilder::step).build().unwrap();
        let event = Event {
            seq: 1,
            at: Timestamp::from_millis(1000),
            kind: EventKind::RunCreated {
                format: EVENT_FORMAT,
                workflow: WorkflowName::new("test").unwrap(),
                workflow_version: 1,
                site: String::new(),
                graph: graph.hash().clone(),
                input: json!({}),
                options,
                labels: Default::default(),
                request: Request::default(),
                parent: None,
                forked_from: None,
                scheduled: None,
                shapes: Default::default(),
            },
        };
        let state = create(RunId::new("r").unwrap(), graph, &event).unwrap();
        Self { state, now: 1000 }
    }

    fn feed(&mut self, kind: EventKind) -> Result<(), String> {
        self.now += 1;
        let event = Event { seq: self.state.seq + 1, at: Timestamp::from_millis(self.now), kind };
        let before = format!("{:?}", self.state);
        let result = apply(&mut self.state, &event).map_err(|e| e.to_string());
        if result.is_err() {
            assert_eq!(before, format!("{:?}", self.state), "a refused event changes nothing");
        }
        result
    }

    fn start(&mut self, n: &str, phase: Phase) {
        let (attempt, generation) = {
            let s = self.state.step(&name(n)).unwrap();
            (s.attempt + 1, s.generation)
        };
        let kind = EventKind::AttemptStarted {
            step: name(n),
            attempt,
            phase,
            generation,
            effect: Effect::Create,
            probed: true,
            owns_nothing: false,
            input: None,
            deadline: None,
        };
        self.feed(kind).unwrap();
    }

    fn attempt(&self, n: &str) -> u32 {
        self.state.step(&name(n)).unwrap().attempt
    }

    fn done(&mut self, n: &str) {
        self.start(n, Phase::Execute);
        let attempt = self.attempt(n);
        self.feed(EventKind::AttemptSucceeded {
            step: name(n),
            attempt,
            output: json!({"id": n}),
            found: None,
        })
        .unwrap();
    }

    fn lost(&mut self, n: &str) {
        let attempt = self.attempt(n);
        self.feed(EventKind::AttemptLost { step: name(n), attempt, cause: LostCause::Crash }).unwrap();
    }

    fn undo(&mut self, n: &str) {
        self.start(n, Phase::Compensate);
        let attempt = self.attempt(n);
        self.feed(EventKind::CompensationSucceeded { step: name(n), attempt, undo: Undo::Undone }).unwrap();
    }

    fn next(&self) -> Vec<String> {
        decide(&self.state, Timestamp::from_millis(self.now), &|_| true)
            .into_iter()
            .map(|c| match c {
                Command::StartAttempt { step, phase } => {
                    format!("{phase:?} {}", self.state.graph.step(step).name)
                }
                other => format!("{other:?}"),
            })
            .collect()
    }
}

fn diamond() -> Vec<Step> {
    vec![step("a", &[]), step("b", &["a"]), step("c", &["a"]), step("d", &["b", "c"])]
}

#[test]
fn goes_forward_in_order_and_ends() {
    let mut bench = Bench::new(diamond(), RunOptions::default());
    assert_eq!(bench.next(), ["Execute a"]);
    bench.done("a");
    assert_eq!(bench.next(), ["Execute b", "Execute c"]);
    bench.done("c");
    assert_eq!(bench.next(), ["Execute b"]);
    bench.done("b");
    bench.done("d");
    assert_eq!(bench.next(), ["Finish(Succeeded)"]);
}

#[test]
fn parallelism_and_what_others_hold_limit_what_starts() {
    let mut steps = vec![step("a", &[]), step("b", &[]), step("c", &[])];
    for s in &mut steps[..2] {
        s.locks = vec![LockUse::exclusive(LockName::new("dss").unwrap())];
    }
    let bench = Bench::new(steps.clone(), RunOptions { parallelism: 2, ..RunOptions::default() });
    assert_eq!(bench.next(), ["Execute a", "Execute b"]);
    let asked = std::cell::RefCell::new(Vec::new());
    let commands = decide(&bench.state, Timestamp::from_millis(bench.now), &|ix| {
        asked.borrow_mut().push(ix);
        ix == 2
    });
    assert_eq!(commands, [Command::StartAttempt { step: 2, phase: Phase::Execute }]);
    // b wants what a was refused: it is not asked about.
    assert_eq!(*asked.borrow(), [0, 2]);
}

#[test]
fn a_lost_attempt_is_probed_before_it_is_repeated() {
    let mut bench = Bench::new(diamond(), RunOptions::default());
    bench.start("a", Phase::Execute);
    bench.lost("a");
    assert_eq!(bench.next(), ["Probe a"]);
    // Absent once is not absent: the second probe must agree after the settle time.
    for expected in ["wait", "go"] {
        bench.start("a", Phase::Probe);
        let settle = if expected == "wait" { Duration::from_secs(30) } else { Duration::ZERO };
        let next = after_absent(&bench.state, 0, settle, Timestamp::from_millis(bench.now));
        let attempt = bench.attempt("a");
        bench
            .feed(EventKind::ProbeAnswered { step: name("a"), attempt, answer: Probe::Absent, next })
            .unwrap();
        if expected == "wait" {
            assert_eq!(
                next,
                Next::At { at: Timestamp::from_millis(bench.now - 1) + Duration::from_secs(30) }
            );
            assert_eq!(bench.state.status(), RunStatus::Waiting);
            bench.now += 30_000;
            assert_eq!(bench.next(), ["Probe a"]);
        } else {
            assert_eq!(next, Next::Now);
            assert_eq!(bench.next(), ["Execute a"]);
        }
    }
    assert_eq!(bench.state.steps[0].generation, 1, "the token stays the same");
}

#[test]
fn what_failed_for_good_is_replaced_under_a_new_generation() {
    let mut bench = Bench::new(diamond(), RunOptions::default());
    bench.start("a", Phase::Execute);
    bench.lost("a");
    bench.start("a", Phase::Probe);
    let answer = Probe::Failed { owner: Owner::ThisRun, detail: "CREATE_FAILED".into() };
    let attempt = bench.attempt("a");
    bench.feed(EventKind::ProbeAnswered { step: name("a"), attempt, answer, next: Next::Now }).unwrap();
    assert_eq!(bench.next(), ["Execute a"]);
    assert_eq!((bench.state.steps[0].generation, bench.state.steps[0].replacing), (2, true));
}

#[test]
fn rollback_undoes_every_intent_in_reverse_and_adopted_things_never() {
    let mut bench = Bench::new(diamond(), RunOptions::default());
    bench.start("a", Phase::Execute);
    let found = Some(Owner::ThisSite("r0".into()));
    bench.feed(EventKind::AttemptSucceeded { step: name("a"), attempt: 1, output: json!(1), found }).unwrap();
    bench.done("b");
    bench.start("c", Phase::Execute);
    bench.lost("c");
    bench.feed(EventKind::RollbackStarted { keep: vec![], to: None, request: Request::default() }).unwrap();
    assert_eq!(bench.next(), ["Probe c", "Undo b"].map(|s| s.replace("Undo", "Compensate")));
    bench.undo("b");
    bench.start("c", Phase::Probe);
    let attempt = bench.attempt("c");
    bench
        .feed(EventKind::AttemptSucceeded {
            step: name("c"),
            attempt,
            output: json!(2),
            found: Some(Owner::ThisRun),
        })
        .unwrap();
    assert_eq!(bench.next(), ["Compensate c"]);
    bench.undo("c");
    assert_eq!(bench.next(), ["Finish(RolledBack)"]);
    let statuses: Vec<_> = bench.state.steps.iter().map(|s| s.status).collect();
    assert_eq!(
        statuses,
        [StepStatus::Adopted, StepStatus::Compensated, StepStatus::Compensated, StepStatus::Cancelled]
    );
}

#[test]
fn rollback_reaches_through_steps_without_effect() {
    let mut bench =
        Bench::new(vec![step("a", &[]), step("w", &["a"]), step("b", &["w"])], RunOptions::default());
    for n in ["a", "w", "b"] {
        bench.done(n);
    }
    bench.state.steps[1].effect = Effect::Read;
    bench.feed(EventKind::RollbackStarted { keep: vec![], to: None, request: Request::default() }).unwrap();
    assert_eq!(bench.next(), ["Compensate b"]);
    bench.undo("b");
    assert_eq!(bench.next(), ["Compensate a"]);
}

#[test]
fn what_owns_nothing_is_not_taken_back_and_keeps_no_run() {
    let mut bench =
        Bench::new(vec![step("a", &[]), step("w", &["a"]), step("b", &["w"])], RunOptions::default());
    bench.done("a");
    assert!(bench.state.is_live());
    for n in ["w", "b"] {
        bench.done(n);
    }
    for s in &mut bench.state.steps {
        s.owns_nothing = true;
    }
    assert!(!bench.state.is_live(), "it may be removed");
    let thing = Resource { kind: "thing".to_owned(), id: "t1".to_owned(), generation: 1 };
    bench.state.steps[2].resources.push(thing);
    assert!(bench.state.is_live(), "what it recorded may be there");
    bench.state.steps[0].owns_nothing = false;
    bench.feed(EventKind::RollbackStarted { keep: vec![], to: None, request: Request::default() }).unwrap();
    assert_eq!(bench.next(), ["Compensate a"]);
    bench.undo("a");
    assert_eq!(bench.next(), ["Finish(RolledBack)"]);
    assert!(!bench.state.is_live(), "a rollback is the last word on it");
}

#[test]
fn a_stuck_undo_blocks_only_what_it_must() {
    let mut bench = Bench::new(diamond(), RunOptions::default());
    for n in ["a", "b", "c"] {
        bench.done(n);
    }
    bench.feed(EventKind::RollbackStarted { keep: vec![], to: None, request: Request::default() }).unwrap();
    bench.start("b", Phase::Compensate);
    let error = ActivityError::terminal("DependencyViolation", "in use");
    let attempt = bench.attempt("b");
    bench.feed(EventKind::CompensationFailed { step: name("b"), attempt, error, next: Next::Stuck }).unwrap();
    assert_eq!(bench.next(), ["Compensate c"]);
    bench.undo("c");
    assert_eq!(bench.next(), ["Finish(RollbackStuck)"]);
    bench
        .feed(EventKind::RunFinished { status: RunStatus::RollbackStuck, output: None, error: None })
        .unwrap();
    bench.feed(EventKind::RollbackRetried { request: Request::default() }).unwrap();
    assert_eq!(bench.next(), ["Compensate b"]);
    bench.undo("b");
    bench.undo("a");
    assert_eq!(bench.next(), ["Finish(RolledBack)"]);
}

#[test]
fn what_wants_a_person_follows_the_options_and_a_rollback_waits() {
    let errors =
        [ActivityError::credentials("Expired", "ended"), ActivityError::needs_human("Quota", "used up")];
    for (trouble, expected) in [
        (OnTrouble::Pause, Next::Pause),
        (OnTrouble::Fail, Next::Fail),
        (OnTrouble::Rollback, Next::Rollback),
    ] {
        for error in &errors {
            let options = RunOptions { on_blocked: trouble, ..RunOptions::default() };
            let mut bench = Bench::new(vec![step("a", &[])], options);
            bench.start("a", Phase::Execute);
            let next =
                |state: &RunState| after_failure(state, 0, error, Timestamp::from_millis(bench.now), 0.5);
            assert_eq!(next(&bench.state), expected, "{error:?}");
            let undoing = RunState { rolling_back: true, ..bench.state.clone() };
            let waits = if error.class == ErrorClass::Credentials { Next::Pause } else { Next::Stuck };
            assert_eq!(next(&undoing), waits, "{error:?}");
        }
    }
    // Runs that were made before it was there pause as they did.
    let stored: RunOptions =
        serde_json::from_str(r#"{"parallelism":2,"on_exhausted":"fail","on_failure":"fail"}"#).unwrap();
    assert_eq!(stored.on_blocked, OnTrouble::Pause);
    assert!(!serde_json::to_string(&stored).unwrap().contains("on_blocked"));
}

#[test]
fn attempts_used_up_follow_the_options() {
    for (trouble, expected) in [
        (OnTrouble::Pause, Next::Pause),
        (OnTrouble::Fail, Next::Fail),
        (OnTrouble::Rollback, Next::Rollback),
    ] {
        let mut s = step("a", &[]);
        s.retry.maximum_attempts = 2;
        let mut bench = Bench::new(vec![s], RunOptions { on_exhausted: trouble, ..RunOptions::default() });
        let error = ActivityError::retryable("Busy", "later").no_effect();
        for round in 1..=2 {
            bench.start("a", Phase::Execute);
            let next = after_failure(&bench.state, 0, &error, Timestamp::from_millis(bench.now), 0.5);
            if round == 1 {
                assert_eq!(next, Next::At { at: Timestamp::from_millis(bench.now + 1000) });
            } else {
                assert_eq!(next, expected);
            }
            let attempt = bench.attempt("a");
            bench
                .feed(EventKind::AttemptFailed { step: name("a"), attempt, error: error.clone(), next })
                .unwrap();
            bench.now += 60_000;
        }
    }
}

#[test]
fn throttling_and_credentials_cost_no_attempt() {
    let mut bench = Bench::new(vec![step("a", &[])], RunOptions::default());
    for error in [
        ActivityError::throttled("Throttling", "Rate exceeded"),
        ActivityError::credentials("ExpiredToken", "expired"),
    ] {
        bench.start("a", Phase::Execute);
        let next = after_failure(&bench.state, 0, &error, Timestamp::from_millis(bench.now), 0.5);
        let attempt = bench.attempt("a");
        bench.feed(EventKind::AttemptFailed { step: name("a"), attempt, error, next }).unwrap();
        bench.now += 60_000;
    }
    assert_eq!(bench.state.steps[0].failures, 0);
    assert!(bench.next()[0].contains("Credentials"), "{:?}", bench.next());
}

#[test]
fn events_that_do_not_fit_change_nothing() {
    let mut bench = Bench::new(diamond(), RunOptions::default());
    assert!(
        bench
            .feed(EventKind::AttemptSucceeded { step: name("a"), attempt: 1, output: json!(1), found: None })
            .is_err()
    );
    assert!(bench.feed(EventKind::StepSkipped { step: name("b"), request: None }).is_err());
    assert!(
        bench.feed(EventKind::RunFinished { status: RunStatus::Running, output: None, error: None }).is_err()
    );
    assert!(bench.feed(EventKind::RunResumed { request: Request::default() }).is_err());
    bench.start("a", Phase::Execute);
    assert!(
        bench.feed(EventKind::RunFinished { status: RunStatus::Failed, output: None, error: None }).is_err()
    );
    assert!(
        bench
            .feed(EventKind::RollbackStarted { keep: vec![], to: None, request: Request::default() })
            .is_err()
    );
    let resource = Resource { kind: "x".into(), id: "1".into(), generation: 1 };
    assert!(bench.feed(EventKind::ResourceRecorded { step: name("zzz"), resource }).is_err());
}
