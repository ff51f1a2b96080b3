//! One run's loop. Its order is the promise: decide, apply in memory, commit all events of the transition in one
//! batch, wait until durable, and only then act and answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::activity::{
    ActivityContext, ActivityError, ActivityResult, ContextInner, Effect, ErasedActivity, Owner, Probe,
    Resources, check_payload,
};
use crate::event::{self, CancelMode, Event, EventKind, LostCause, Next, Phase, Request};
use crate::graph::{StepIx, StepKind, truthy};
use crate::id::{RunId, StepName};
use crate::run::decide::{after_absent, after_failure, attempt_limit, exhausted_by_one_more, over_time};
use crate::run::resolve::resolve;
use crate::run::state::{Halt, RunState};
use crate::run::{Command, RunStatus, apply, decide, view};
use crate::runtime::clock::HurriedClock;
use crate::runtime::engine::{EngineError, Inner};
use crate::runtime::locks::LockGuard;
use crate::runtime::worker::{self, Attempt, DriverRecorder, Outcome, Pulse, Report};
use crate::store::{Expect, GraphHash, MAX_SUMMARY_BYTES, RunSummary, StoreError, Transition};
use crate::time::Timestamp;

/// What others ask of a driver.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Pause, giving attempts under way some time.
    Pause(Request),
    /// End, keeping or taking back what was made.
    Cancel(CancelMode, Request),
    /// Show the run as it is, with live heartbeats.
    View(oneshot::Sender<view::RunView>),
    /// Let go at once, as a crash would.
    Stop,
}

/// An ask with its answer: resolved when the events it led to are durable.
pub(crate) struct Asked {
    pub(crate) ask: Ask,
    pub(crate) done: Option<oneshot::Sender<Result<(), EngineError>>>,
}

struct Running {
    attempt: u32,
    phase: Phase,
    effect: Effect,
    abort: AbortHandle,
    cancel: CancellationToken,
    pulse: Arc<Pulse>,
    _locks: LockGuard,
}

impl Drop for Running {
    /// Whatever ends the driver, a panic included, ends its attempts.
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// Answers to give when the next commit is durable.
enum Answer {
    Recorder(oneshot::Sender<ActivityResult<()>>),
    Ask(oneshot::Sender<Result<(), EngineError>>),
}

/// An attempt whose intent is staged; it starts when that is durable.
struct Intended {
    step: StepIx,
    phase: Phase,
    activity: Arc<dyn ErasedActivity>,
    locks: LockGuard,
}

pub(crate) struct Driver {
    inner: Arc<Inner>,
    resources: Resources,
    state: RunState,
    /// Number of the last committed event; 0 for a run that is not stored yet.
    committed: u64,
    staged: Vec<Event>,
    graph: Option<(GraphHash, Vec<u8>)>,
    answers: Vec<Answer>,
    to_start: Vec<Intended>,
    running: BTreeMap<StepIx, Running>,
    reports: mpsc::UnboundedReceiver<Report>,
    report_to: mpsc::UnboundedSender<Report>,
    asks: mpsc::UnboundedReceiver<Asked>,
    rng: StdRng,
    /// Scale of all waiting.
    patience: f64,
    /// When attempts that do not answer a pause are left behind.
    grace_ends: Option<tokio::time::Instant>,
    halted: bool,
    /// Bytes of inputs and outputs in the transition that is being put together.
    weight: usize,
    /// Set when steps were left for the next transition because this one is heavy.
    more: bool,
    /// The time by which `settle` last decided. A timer that falls due after it, while the commit is on its way, has
    /// not been looked at.
    settled_at: Timestamp,
    released: watch::Receiver<u64>,
}

/// The least a waiting time is scaled to: a retry is never a busy loop.
const MIN_PATIENCE: f64 = 0.001;
/// A transition that has so many bytes takes nothing more in; the store's limit is four times as much.
const MAX_WEIGHT: usize = crate::activity::MAX_PAYLOAD_BYTES;
/// The most reports taken into one transition.
const MAX_BATCH: usize = 256;

impl Driver {
    pub(crate) fn new(
        inner: Arc<Inner>,
        resources: Resources,
        state: RunState,
        committed: u64,
        asks: mpsc::UnboundedReceiver<Asked>,
        seed: u64,
        patience: f64,
    ) -> Self {
        let (report_to, reports) = mpsc::unbounded_channel();
        let released = inner.locks.released.subscribe();
        Self {
            released,
            inner,
            resources,
            state,
            committed,
            staged: Vec::new(),
            graph: None,
            answers: Vec::new(),
            to_start: Vec::new(),
            running: BTreeMap::new(),
            reports,
            report_to,
            asks,
            rng: StdRng::seed_from_u64(seed),
            patience,
            grace_ends: None,
            halted: false,
            weight: 0,
            more: false,
            settled_at: Timestamp::default(),
        }
    }

    /// Adds the first event and the graph of a new run; they go with the first transition.
    pub(crate) fn created(&mut self, event: Event) {
        self.graph = Some((self.state.graph.hash().clone(), self.state.graph.encode().to_vec()));
        self.staged.push(event);
    }

    /// Adds an event that starts the drive, as `RunResumed`, to go with the first transition.
    pub(crate) fn stage(&mut self, kind: EventKind) -> Result<(), EngineError> {
        let event = Event { seq: self.state.seq + 1, at: self.now(), kind };
        apply(&mut self.state, &event)
            .map_err(|e| EngineError::Illegal { run: self.state.id.clone(), why: e.why })?;
        self.staged.push(event);
        Ok(())
    }

    /// Notes that the run was taken over: what was in flight under an earlier owner is lost.
    pub(crate) fn recover(&mut self) -> Result<(), EngineError> {
        let gap = self.now().since(self.state.updated);
        let gap_ms = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
        self.stage(EventKind::RunRecovered { epoch: self.inner.store.epoch(), gap_ms })?;
        let lost: Vec<(StepIx, u32)> = self.state.in_flight.iter().map(|(&ix, f)| (ix, f.attempt)).collect();
        for (ix, attempt) in lost {
            let step = self.name(ix);
            self.stage(EventKind::AttemptLost { step, attempt, cause: LostCause::Crash })?;
        }
        Ok(())
    }

    pub(crate) fn state(&self) -> &RunState {
        &self.state
    }

    fn now(&self) -> Timestamp {
        self.inner.clock.now().max(self.state.updated)
    }

    /// A waiting time, scaled as the engine's options say.
    fn scaled(&self, wait: Duration) -> Duration {
        let patience = self.patience;
        if patience < 1.0 { wait.mul_f64(patience.max(MIN_PATIENCE)) } else { wait }
    }

    /// What follows a failure, with its waiting time scaled.
    fn after_failure(&mut self, ix: StepIx, error: &ActivityError, now: Timestamp) -> Next {
        let chance = self.rng.random::<f64>();
        match after_failure(&self.state, ix, error, now, chance) {
            Next::At { at } => Next::At { at: now + self.scaled(at.since(now)) },
            next => next,
        }
    }

    fn name(&self, ix: StepIx) -> StepName {
        self.state.graph.step(ix).name.clone()
    }

    /// Drives until the run ends or stands still.
    ///
    /// `first` is told when the first transition is durable; it is dropped when that fails.
    pub(crate) async fn drive(mut self, first: oneshot::Sender<()>) -> Result<view::RunView, EngineError> {
        let result = self.turn(first).await;
        for running in self.running.values() {
            running.abort.abort();
        }
        match result {
            Ok(()) => Ok(self.view()),
            Err(error) => {
                for answer in self.answers.drain(..) {
                    match answer {
                        Answer::Recorder(done) => drop(done),
                        Answer::Ask(done) => drop(done.send(Err(error.clone()))),
                    }
                }
                Err(error)
            }
        }
    }

    async fn turn(&mut self, first: oneshot::Sender<()>) -> Result<(), EngineError> {
        let mut first = Some(first);
        loop {
            self.settle()?;
            self.commit().await?;
            if let Some(first) = first.take() {
                // Whoever asked may have gone away; the run goes on.
                let _ = first.send(());
            }
            self.start_attempts();
            if self.state.finished.is_some() || self.state.paused.is_some() {
                return Ok(());
            }
            self.stop_what_should_not_run();
            if std::mem::take(&mut self.more) {
                continue;
            }
            if self.wait().await? == Flow::Stop {
                return Ok(());
            }
        }
    }

    /// Decides until nothing more follows at this moment, staging the events.
    fn settle(&mut self) -> Result<(), EngineError> {
        self.released.mark_unchanged();
        loop {
            let now = self.now();
            self.settled_at = now;
            let commands = {
                let (state, locks) = (&self.state, &self.inner.locks);
                decide(state, now, &|ix| locks.free(&state.graph.step(ix).locks))
            };
            let before = self.staged.len();
            for command in commands {
                if self.weight > MAX_WEIGHT && matches!(command, Command::StartAttempt { .. }) {
                    self.more = true;
                    return Ok(());
                }
                match command {
                    Command::StartAttempt { step, phase } => self.intend(step, phase)?,
                    Command::Pause(reason) => self.stage(EventKind::RunPaused { reason })?,
                    Command::BeginRollback => {
                        let request = Request { by: "dssflow".to_owned(), reason: self.rollback_reason() };
                        self.stage(EventKind::RollbackStarted { keep: Vec::new(), request })?;
                        (self.halted, self.grace_ends) = (false, None);
                    }
                    Command::Finish(status) => self.stage(EventKind::RunFinished { status })?,
                    Command::WakeAt(_) => {}
                }
            }
            if self.staged.len() == before {
                return Ok(());
            }
        }
    }

    fn rollback_reason(&self) -> String {
        match self.state.failed_step {
            Some(ix) => format!("step {} failed", self.name(ix)),
            None => "cancelled".to_owned(),
        }
    }

    /// Stages the intent of an attempt, or what follows when it cannot even start.
    fn intend(&mut self, ix: StepIx, phase: Phase) -> Result<(), EngineError> {
        let step = self.state.graph.step(ix).clone();
        let StepKind::Activity { activity: name, input: binding } = &step.kind else {
            unreachable!("a checked graph has activities only");
        };
        let Some(locks) = self.inner.locks.take(&self.state.id, &step.locks) else {
            return Ok(());
        };
        let s = &self.state.steps[ix as usize];
        let mut input = None;
        if phase == Phase::Execute {
            // Asked once: an attempt whose input was resolved had its condition met.
            if let Some(when) = step.when.as_ref().filter(|_| s.input.is_none()) {
                match resolve(&self.state, &self.inner.functions, when) {
                    Ok(value) if !truthy(&value) => {
                        return self.stage(EventKind::StepSkipped { step: step.name });
                    }
                    Ok(_) => {}
                    Err(error) => return self.refuse_to_start(ix, error),
                }
            }
            let resolved = resolve(&self.state, &self.inner.functions, binding).and_then(|value| {
                match check_payload(&value) {
                    Ok(size) => Ok((value, size)),
                    Err(why) => {
                        let why = format!("the input {why}");
                        Err(ActivityError::terminal("InputTooLarge", why).no_effect())
                    }
                }
            });
            match resolved {
                Ok((value, size)) => {
                    self.weight += size;
                    if s.input.as_deref() != Some(&value) {
                        input = Some(value);
                    }
                }
                Err(error) => return self.refuse_to_start(ix, error),
            }
        }
        let activity = self.inner.activities.get(name).cloned().ok_or_else(|| {
            EngineError::MissingActivity { run: self.state.id.clone(), activity: name.to_string() }
        })?;
        let s = &self.state.steps[ix as usize];
        let now = self.now();
        let deadline = attempt_limit(&self.state, ix, now).map(|limit| now + limit);
        self.stage(EventKind::AttemptStarted {
            step: step.name,
            attempt: s.attempt + 1,
            phase,
            generation: s.generation,
            effect: activity.effect(),
            probed: activity.has_probe(),
            input,
            deadline,
        })?;
        self.to_start.push(Intended { step: ix, phase, activity, locks });
        Ok(())
    }

    /// An input that cannot be resolved is a failed attempt, so that the history tells it.
    fn refuse_to_start(&mut self, ix: StepIx, error: ActivityError) -> Result<(), EngineError> {
        let s = &self.state.steps[ix as usize];
        let (step, attempt, generation) = (self.name(ix), s.attempt + 1, s.generation);
        self.stage(EventKind::AttemptStarted {
            step: step.clone(),
            attempt,
            phase: Phase::Execute,
            generation,
            effect: Effect::Read,
            probed: false,
            input: None,
            deadline: None,
        })?;
        let next = self.after_failure(ix, &error, self.now());
        self.stage(EventKind::AttemptFailed { step, attempt, error, next })
    }

    /// Makes what is staged durable, then answers those who waited for it.
    async fn commit(&mut self) -> Result<(), EngineError> {
        if !self.staged.is_empty() {
            let events = std::mem::take(&mut self.staged);
            self.weight = 0;
            let expect = if self.committed == 0 { Expect::New } else { Expect::At { seq: self.committed } };
            let transition = Transition {
                run: self.state.id.clone(),
                expect,
                epoch: self.inner.store.epoch(),
                events: u32::try_from(events.len()).expect("a transition is small"),
                record: event::encode(&events),
                summary: summary(&self.state),
                due: self.state.timers.first().map(|(at, _)| *at),
                graph: self.graph.take(),
            };
            let committed = self.inner.store.commit(transition).await;
            self.committed = committed.map_err(|error| store_error(&self.state.id, error))?;
            self.inner.publish(&self.state.id, events);
        }
        for answer in self.answers.drain(..) {
            match answer {
                Answer::Recorder(done) => drop(done.send(Ok(()))),
                Answer::Ask(done) => drop(done.send(Ok(()))),
            }
        }
        Ok(())
    }

    /// Acts on the intents that have become durable.
    fn start_attempts(&mut self) {
        for Intended { step: ix, phase, activity, locks } in std::mem::take(&mut self.to_start) {
            let (step, s) = (self.state.graph.step(ix), &self.state.steps[ix as usize]);
            let cancel = CancellationToken::new();
            let pulse = Arc::new(Pulse::new(self.inner.options.heartbeat_throttle));
            let limit = attempt_limit(&self.state, ix, self.now());
            let mut deadline = limit.map(|limit| self.now() + limit);
            let mut clock = Arc::clone(&self.inner.clock);
            if self.patience < 1.0 {
                let hurried = HurriedClock::new(clock, self.patience.max(MIN_PATIENCE));
                deadline = deadline.map(|at| hurried.hurried(at));
                clock = Arc::new(hurried);
            }
            let kept = if phase == Phase::Compensate {
                self.state.leftovers().into_iter().filter(|&o| o != ix).map(|o| self.name(o)).collect()
            } else {
                Vec::new()
            };
            let ctx = ActivityContext::new(ContextInner {
                store: self.inner.store.id(),
                site: self.state.site.clone(),
                run: self.state.id.clone(),
                step: step.name.clone(),
                attempt: s.attempt,
                generation: s.generation,
                deadline,
                last_heartbeat: s.heartbeat.clone(),
                cancel: cancel.clone(),
                recorder: Arc::new(DriverRecorder {
                    step: ix,
                    attempt: s.attempt,
                    reports: self.report_to.clone(),
                    pulse: Arc::clone(&pulse),
                }),
                resources: self.resources.clone(),
                clock,
                kept,
            });
            let attempt = Attempt {
                step: ix,
                attempt: s.attempt,
                phase,
                ctx,
                input: s.input.clone().unwrap_or_else(|| Arc::new(Value::Null)),
                recorded: s.recorded(),
                replacing: s.replacing,
                adopt: step.adopt,
                undoing: self.state.rolling_back,
                limit,
                silence: step.timeouts.heartbeat_ms.map(Duration::from_millis),
                pulse: Arc::clone(&pulse),
                activity,
            };
            let task = tokio::spawn(worker::run(attempt, self.report_to.clone()));
            let running = Running {
                attempt: s.attempt,
                phase,
                effect: s.effect,
                abort: task.abort_handle(),
                cancel,
                pulse,
                _locks: locks,
            };
            self.running.insert(ix, running);
        }
    }

    /// A run about to stand still or turn round stops what changes nothing, and asks the rest to hurry.
    fn stop_what_should_not_run(&mut self) {
        if self.state.halt.is_none() || self.halted {
            return;
        }
        self.halted = true;
        if self.state.halt == Some(Halt::Pause) {
            self.grace_ends = Some(tokio::time::Instant::now() + self.inner.options.pause_grace);
        }
        for (&ix, running) in &self.running {
            running.cancel.cancel();
            if running.effect == Effect::Read && running.phase == Phase::Execute {
                running.abort.abort();
                drop(self.report_to.send(Report::Ended {
                    step: ix,
                    attempt: running.attempt,
                    outcome: Outcome::Failed(ActivityError::cancelled().no_effect()),
                }));
            }
        }
    }

    /// Waits for something to happen and stages what follows from it.
    async fn wait(&mut self) -> Result<Flow, EngineError> {
        // Timers that were due and could not be served wait for room or a lock, not for time.
        let now = self.settled_at;
        let going = self.state.halt.is_none();
        let wake = self.state.timers.iter().map(|&(at, _)| at).find(|&at| going && at > now);
        let blocked =
            going && (!self.state.ready.is_empty() || self.state.timers.first().is_some_and(|t| t.0 <= now));
        let clock = Arc::clone(&self.inner.clock);
        let timer = async {
            match wake {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let grace = async {
            match self.grace_ends {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let released = &mut self.released;
        let released = async {
            // The table lives as long as the engine; if it is gone the asks channel says so.
            if !blocked || released.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            asked = self.asks.recv() => match asked {
                Some(asked) => return Ok(self.asked(asked)),
                // Nobody can ask any more: the engine is gone.
                None => return Ok(Flow::Stop),
            },
            report = self.reports.recv() => {
                let report = report.expect("this driver holds a sender");
                self.take(report)?;
                for _ in 1..MAX_BATCH {
                    if self.weight > MAX_WEIGHT {
                        break;
                    }
                    let Ok(report) = self.reports.try_recv() else { break };
                    self.take(report)?;
                }
            }
            () = timer => {}
            () = released => {}
            () = grace => {
                self.grace_ends = None;
                self.leave_behind()?;
            }
        }
        Ok(Flow::On)
    }

    /// Gives up waiting for attempts: their outcome is unknown, and the ledger says so.
    fn leave_behind(&mut self) -> Result<(), EngineError> {
        for (ix, running) in std::mem::take(&mut self.running) {
            running.abort.abort();
            let step = self.name(ix);
            self.stage(EventKind::AttemptLost {
                step,
                attempt: running.attempt,
                cause: LostCause::Interrupted,
            })?;
        }
        Ok(())
    }

    fn asked(&mut self, asked: Asked) -> Flow {
        let Asked { ask, done } = asked;
        let staged = match ask {
            Ask::Pause(request) => {
                if self.halted && self.grace_ends.is_none() {
                    self.grace_ends = Some(tokio::time::Instant::now() + self.inner.options.pause_grace);
                }
                self.stage(EventKind::PauseRequested { request })
            }
            Ask::Cancel(mode, request) => {
                self.halted = false;
                self.stage(EventKind::CancelRequested { mode, request })
            }
            Ask::View(to) => {
                drop(to.send(self.view()));
                Ok(())
            }
            Ask::Stop => return Flow::Stop,
        };
        if let Some(done) = done {
            match staged {
                Ok(()) => self.answers.push(Answer::Ask(done)),
                Err(error) => drop(done.send(Err(error))),
            }
        }
        Flow::On
    }

    fn view(&self) -> view::RunView {
        let mut picture = view::view(&self.state);
        for step in &mut picture.steps {
            let ix = self.state.graph.index_of(&step.step);
            if let Some(latest) = ix.and_then(|ix| self.running.get(&ix)).and_then(|r| r.pulse.latest()) {
                step.heartbeat = Some(latest);
            }
        }
        picture
    }

    /// Whether a report is of the attempt that is under way; anything else comes from the past.
    fn current(&self, ix: StepIx, attempt: u32) -> bool {
        self.state.in_flight.get(&ix).is_some_and(|f| f.attempt == attempt)
    }

    fn take(&mut self, report: Report) -> Result<(), EngineError> {
        match report {
            Report::Ended { step: ix, attempt, outcome } => {
                if self.current(ix, attempt) {
                    let told = self.running.remove(&ix).is_some_and(|r| r.cancel.is_cancelled());
                    let outcome = match outcome {
                        // Nobody told it to stop: without a budget this would go on for ever.
                        Outcome::Failed(error)
                            if !told && error.class == crate::activity::ErrorClass::Cancelled =>
                        {
                            Outcome::Failed(ActivityError {
                                class: crate::activity::ErrorClass::Retryable,
                                ..error
                            })
                        }
                        outcome => outcome,
                    };
                    self.ended(ix, attempt, outcome)?;
                }
            }
            Report::Resource { step: ix, attempt, resource, done } => {
                if self.current(ix, attempt) {
                    let step = self.name(ix);
                    self.stage(EventKind::ResourceRecorded { step, resource })?;
                    self.answers.push(Answer::Recorder(done));
                }
            }
            Report::Before { step: ix, attempt, values, done } => {
                if self.current(ix, attempt) {
                    let step = self.name(ix);
                    self.stage(EventKind::BeforeRecorded { step, values })?;
                    self.answers.push(Answer::Recorder(done));
                }
            }
            Report::Heartbeat { step: ix, attempt, details } => {
                if self.current(ix, attempt) {
                    let step = self.name(ix);
                    self.stage(EventKind::HeartbeatRecorded { step, attempt, details })?;
                }
            }
        }
        Ok(())
    }

    fn ended(&mut self, ix: StepIx, attempt: u32, outcome: Outcome) -> Result<(), EngineError> {
        let step = self.name(ix);
        let now = self.now();
        let phase = self.state.in_flight[&ix].phase;
        let undoing = self.state.rolling_back;
        let outcome = match outcome {
            // Waiting for it is part of all attempts' time together.
            Outcome::Answer(Probe::InProgress { detail }) if over_time(&self.state, ix, now) => {
                Outcome::Failed(ActivityError::retryable("StillInProgress", detail))
            }
            outcome => outcome,
        };
        match outcome {
            Outcome::Done { output, found } => {
                self.weight += check_payload(&output).unwrap_or(MAX_WEIGHT);
                self.stage(EventKind::AttemptSucceeded { step, attempt, output, found })
            }
            Outcome::Undone(undo) => self.stage(EventKind::CompensationSucceeded { step, attempt, undo }),
            Outcome::Failed(error)
                if error.class == crate::activity::ErrorClass::Cancelled && phase != Phase::Compensate =>
            {
                self.stage(EventKind::AttemptLost { step, attempt, cause: LostCause::Interrupted })
            }
            Outcome::Failed(error) => {
                let next = self.after_failure(ix, &error, now);
                if undoing {
                    self.stage(EventKind::CompensationFailed { step, attempt, error, next })
                } else {
                    self.stage(EventKind::AttemptFailed { step, attempt, error, next })
                }
            }
            Outcome::Answer(answer) => {
                let next = self.after_answer(ix, &answer, now);
                self.stage(EventKind::ProbeAnswered { step, attempt, answer, next })
            }
        }
    }

    fn after_answer(&mut self, ix: StepIx, answer: &Probe<Value>, now: Timestamp) -> Next {
        let step = self.state.graph.step(ix);
        let StepKind::Activity { activity, .. } = &step.kind else {
            unreachable!("a checked graph has activities only")
        };
        let Some(activity) = self.inner.activities.get(activity).cloned() else { return Next::Now };
        match answer {
            Probe::Absent => after_absent(&self.state, ix, self.scaled(activity.settle()), now),
            Probe::InProgress { .. } => Next::At { at: now + self.scaled(activity.poll_interval()) },
            Probe::Failed { owner: Owner::ThisRun, detail } => {
                if self.state.rolling_back {
                    Next::Now
                } else if exhausted_by_one_more(&self.state, ix) {
                    let error = ActivityError::retryable("FailedResource", detail.clone());
                    self.after_failure(ix, &error, now)
                } else {
                    Next::Now
                }
            }
            Probe::Failed { .. } | Probe::Present { .. } => {
                if self.state.rolling_back {
                    Next::Now
                } else {
                    Next::Pause
                }
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Stop,
}

fn store_error(run: &RunId, error: StoreError) -> EngineError {
    EngineError::Store { run: Some(run.clone()), error }
}

/// What lists show. The note is cut so that the whole stays within its limit.
pub(crate) fn summary(state: &RunState) -> RunSummary {
    let status = state.status();
    let note = match (&state.paused, state.failed_step) {
        (Some(reason), _) => reason.message.clone(),
        (None, Some(ix)) if status.is_end() => state.graph.step(ix).name.to_string(),
        _ => String::new(),
    };
    let mut summary = RunSummary {
        run: state.id.clone(),
        workflow: state.workflow.to_string(),
        site: state.site.clone(),
        status,
        created: state.created,
        updated: state.updated,
        done: state.done,
        total: u32::try_from(state.graph.len()).expect("a checked graph"),
        // Looking at every step is worth it only when the run stands still.
        live: if status.is_end() { state.is_live() } else { status != RunStatus::Pending },
        note,
    };
    while serde_json::to_vec(&summary).is_ok_and(|bytes| bytes.len() > MAX_SUMMARY_BYTES)
        && !summary.note.is_empty()
    {
        let keep = summary.note.chars().count() * 2 / 3;
        summary.note = summary.note.chars().take(keep).collect();
    }
    summary
}
