//! One run's loop. Its order is the promise: decide, apply in memory, commit all events of the transition in one
//! batch, wait until durable, and only then act and answer.
//!
//! `intend` turns what the core decided into events, `attempts` starts and stops what is durable, `reports` takes in
//! what workers tell, `asks` what people want.

mod asks;
mod attempts;
mod intend;
mod reports;
mod summary;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use asks::{Ask, Asked, check_request};

use crate::activity::{ActivityError, ActivityResult, Fence, Resources, StopReason};
use crate::event::{self, EVENT_FORMAT, Event, EventKind, LostCause, Next, PauseKind, PauseReason};
use crate::graph::StepIx;
use crate::id::StepName;
use crate::run::decide::{after_failure, next_wake};
use crate::run::state::RunState;
use crate::run::{Command, apply, decide, view};
use crate::runtime::admission::{Grant, Want};
use crate::runtime::driver::attempts::{Intended, Running};
pub(crate) use crate::runtime::driver::intend::{keys, want};
pub use crate::runtime::driver::summary::summary;
use crate::runtime::engine::{EngineError, Inner};
use crate::runtime::metrics::{AttemptEnd, Measure};
use crate::runtime::worker::Report;
use crate::schedule::Scheduled;
use crate::store::{Expect, GraphHash, SchedulePut, StoreError, Transition};
use crate::time::Timestamp;

/// Answers to give when the next commit is durable.
enum Answer {
    Recorder(oneshot::Sender<ActivityResult<()>>),
    Ask(oneshot::Sender<Result<(), EngineError>>),
}

/// How far a drive goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Until the run ends or stands still.
    Drive,
    /// What is staged is written, and that is all.
    WriteOnly,
}

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) inner: Arc<Inner>,
    pub(crate) resources: Resources,
    pub(crate) state: RunState,
    /// Number of the last committed event; 0 for a run that is not stored yet.
    pub(crate) committed: u64,
    pub(crate) asks: mpsc::UnboundedReceiver<Asked>,
    pub(crate) seed: u64,
    /// Scale of all waiting.
    pub(crate) patience: f64,
    /// The epoch under which this engine owns the run.
    pub(crate) epoch: u64,
    /// What lets its attempts act, where several engines share a store.
    pub(crate) fence: Option<Arc<dyn Fence>>,
    pub(crate) reach: Reach,
}

pub(crate) struct Driver {
    inner: Arc<Inner>,
    resources: Resources,
    state: RunState,
    committed: u64,
    epoch: u64,
    fence: Option<Arc<dyn Fence>>,
    reach: Reach,
    staged: Vec<Event>,
    graph: Option<(GraphHash, Vec<u8>)>,
    schedule: Option<SchedulePut>,
    answers: Vec<Answer>,
    /// What the steps that are about to start were given.
    granted: BTreeMap<StepIx, Grant>,
    to_start: Vec<Intended>,
    running: BTreeMap<StepIx, Running>,
    reports: mpsc::UnboundedReceiver<Report>,
    report_to: mpsc::UnboundedSender<Report>,
    asks: mpsc::UnboundedReceiver<Asked>,
    rng: StdRng,
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
    /// When a rate lets the next attempt through, as the clock shows it.
    retry_at: Option<Timestamp>,
    /// Lines in which the run stands; see [`intend::line`].
    lines: BTreeSet<StepIx>,
    released: watch::Receiver<u64>,
    /// How far the clock is behind the run's own time. A clock that is set back must not keep the run's timers waiting
    /// until it has caught up.
    skew_ms: Cell<u64>,
    last_now: Cell<Timestamp>,
}

/// The least a waiting time is scaled to: a retry is never a busy loop.
pub(crate) const MIN_PATIENCE: f64 = 0.001;
/// A transition that has so many bytes takes nothing more in; the store's limit is four times as much.
const MAX_WEIGHT: usize = crate::activity::MAX_PAYLOAD_BYTES;
/// The most reports taken into one transition.
const MAX_BATCH: usize = 256;

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { inner, mut resources, state, committed, asks, seed, patience, epoch, fence, reach } =
            parts;
        if let Some(scheduled) = &state.scheduled {
            // Attempts find it by its type.
            resources.insert(Scheduled::clone(scheduled));
        }
        let (report_to, reports) = mpsc::unbounded_channel();
        let released = inner.admission.subscribe();
        let last_now = Cell::new(state.updated);
        Self {
            released,
            inner,
            resources,
            state,
            committed,
            epoch,
            fence,
            reach,
            staged: Vec::new(),
            graph: None,
            schedule: None,
            answers: Vec::new(),
            granted: BTreeMap::new(),
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
            retry_at: None,
            lines: BTreeSet::new(),
            skew_ms: Cell::new(0),
            last_now,
        }
    }

    /// Adds the first event and the graph of a new run; they go with the first transition.
    pub(crate) fn created(&mut self, event: Event) {
        self.graph = Some((self.state.graph.hash().clone(), self.state.graph.encode().to_vec()));
        self.staged.push(event);
    }

    /// The schedule that starts the run; it goes with the first transition.
    pub(crate) fn with_schedule(&mut self, schedule: SchedulePut) {
        self.schedule = Some(schedule);
    }

    /// A graph that a staged event refers to; it goes with the same transition.
    pub(crate) fn with_graph(&mut self, graph: &crate::graph::Graph) {
        self.state.known_graphs.insert(graph.hash().clone(), graph.clone());
        self.graph = Some((graph.hash().clone(), graph.encode().to_vec()));
    }

    /// Applies an event and adds it to the transition.
    pub(crate) fn stage(&mut self, kind: EventKind) -> Result<(), EngineError> {
        if let Some(request) = kind.request() {
            check_request(&self.state.id, request)?;
        }
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
        self.stage(EventKind::RunRecovered { epoch: self.epoch, gap_ms, format: EVENT_FORMAT })?;
        let lost: Vec<(StepIx, u32)> = self.state.in_flight.iter().map(|(&ix, f)| (ix, f.attempt)).collect();
        for (ix, attempt) in lost {
            let step = self.name(ix);
            self.stage(EventKind::AttemptLost { step, attempt, cause: LostCause::Crash })?;
        }
        Ok(())
    }

    /// Parks a run that was recovered over and over without getting on.
    pub(crate) fn park(&mut self, times: u32) -> Result<(), EngineError> {
        let message = format!(
            "it was recovered {times} times and no step got on since; perhaps one of its steps ends the process"
        );
        self.stage(EventKind::RunPaused {
            reason: PauseReason { kind: PauseKind::CrashLoop, step: None, message },
        })
    }

    pub(crate) fn state(&self) -> &RunState {
        &self.state
    }

    /// The run's own time: the clock, but never before what has happened.
    fn now(&self) -> Timestamp {
        let floor = self.state.updated.max(self.last_now.get());
        let clock = self.inner.clock.now();
        let mut now = clock + Duration::from_millis(self.skew_ms.get());
        if now < floor {
            now = floor;
            self.skew_ms.set(floor.as_millis() - clock.as_millis());
        }
        self.last_now.set(now);
        now
    }

    /// What the clock shows when the run's own time is `at`.
    fn on_the_clock(&self, at: Timestamp) -> Timestamp {
        Timestamp::from_millis(at.as_millis().saturating_sub(self.skew_ms.get()))
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
        for (&ix, running) in &self.running {
            self.measure_end(ix, running, AttemptEnd::Lost);
            let _first_reason_wins = running.stop.set(StopReason::Lost);
            running.cancel.cancel();
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
            if self.reach == Reach::Drive {
                self.settle()?;
            }
            self.commit().await?;
            if let Some(first) = first.take() {
                // Whoever asked may have gone away; the run goes on.
                let _ = first.send(());
            }
            if self.reach == Reach::WriteOnly {
                return Ok(());
            }
            self.start_attempts();
            if self.state.finished.is_some() || self.state.paused.is_some() {
                return Ok(());
            }
            self.stop_what_should_not_run()?;
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
        self.retry_at = None;
        loop {
            let now = self.now();
            self.settled_at = now;
            let clock = self.inner.clock.now();
            let (grants, retry_at) = (RefCell::new(BTreeMap::new()), Cell::new(self.retry_at));
            let lines = RefCell::new(BTreeSet::new());
            let commands = decide(&self.state, now, &|ix| {
                // What cannot be asked for is told when the step is to start.
                let Ok(want) = self.want(ix) else { return true };
                match self.inner.admission.take(&want, clock) {
                    Ok(grant) => {
                        grants.borrow_mut().insert(ix, grant);
                        true
                    }
                    Err(refused) => {
                        lines.borrow_mut().insert(want.step);
                        retry_at.set(retry_at.get().into_iter().chain(refused.retry_at).min());
                        false
                    }
                }
            });
            (self.granted, self.retry_at) = (grants.into_inner(), retry_at.get());
            self.lines = lines.into_inner();
            let before = self.staged.len();
            for command in commands {
                if self.state.halt.is_some() && matches!(command, Command::StartAttempt { .. }) {
                    // A step before it in this transition failed the run.
                    break;
                }
                if self.weight > MAX_WEIGHT && matches!(command, Command::StartAttempt { .. }) {
                    self.more = true;
                    break;
                }
                self.obey(command)?;
            }
            // What was skipped or failed instead of starting needs nothing.
            self.granted.clear();
            if self.more {
                break;
            }
            if self.staged.len() == before {
                break;
            }
        }
        self.leave_lines();
        Ok(())
    }

    /// Leaves the lines in which nothing of the run wants to stand any more: others may go on past it.
    fn leave_lines(&mut self) {
        if self.state.halt.is_some() || self.state.finished.is_some() || self.state.paused.is_some() {
            self.lines.clear();
        }
        let lines = &self.lines;
        self.inner.admission.leave(&self.state.id, &|line| lines.contains(&line));
    }

    /// What a step needs of what all runs share.
    fn want(&self, ix: StepIx) -> Result<Want, ActivityError> {
        intend::want(&self.state, &self.inner, ix)
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
                epoch: self.epoch,
                events: u32::try_from(events.len()).expect("a transition is small"),
                record: event::encode(&events),
                summary: summary(&self.state),
                due: next_wake(&self.state, Timestamp::default()).map(|at| self.on_the_clock(at)),
                graph: self.graph.take(),
                schedule: self.schedule.take(),
            };
            let begin = tokio::time::Instant::now();
            let committed = self.inner.store.commit(transition).await;
            self.committed = committed.map_err(|error| store_error(&self.state.id, error))?;
            self.inner.measure(&Measure::Committed {
                run: &self.state.id,
                events: &events,
                took: begin.elapsed(),
            });
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

    /// Waits for something to happen and stages what follows from it.
    async fn wait(&mut self) -> Result<Flow, EngineError> {
        // Timers that were due and could not be served wait for room or a lock, not for time.
        let now = self.settled_at;
        let going = self.state.halt.is_none();
        let blocked =
            going && (!self.state.ready.is_empty() || self.state.timers.first().is_some_and(|t| t.0 <= now));
        let wake = next_wake(&self.state, now).map(|at| self.on_the_clock(at));
        let wake = wake.into_iter().chain(self.retry_at).min().filter(|_| going);
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
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.inner.admission.leave(&self.state.id, &|_| false);
    }
}

#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Stop,
}

fn store_error(run: &crate::id::RunId, error: StoreError) -> EngineError {
    EngineError::Store { run: Some(run.clone()), error }
}
