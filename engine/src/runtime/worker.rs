//! One attempt: calls the activity under its time limits, catches its panics, and reports how it ended.
//!
//! A worker decides nothing. What a failure means, and what follows, is the core's.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use crate::activity::{
    ActivityContext, ActivityError, ActivityResult, ErasedActivity, Owner, Probe, Recorded, Recorder,
    Resource, Undo, check_payload, cut,
};
use crate::event::Phase;
use crate::graph::StepIx;
use crate::time::BoxFuture;

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Done; `found` says whose it is when nothing had to be done.
    Done { output: Value, found: Option<Owner> },
    /// A probe answered something other than "there it is, go on".
    Answer(Probe<Value>),
    /// It failed.
    Failed(ActivityError),
    /// Taken back.
    Undone(Undo),
}

/// What workers tell their driver.
#[derive(Debug)]
pub(crate) enum Report {
    /// The attempt ended.
    Ended { step: StepIx, attempt: u32, outcome: Outcome },
    /// Make this durable, then answer.
    Resource { step: StepIx, attempt: u32, resource: Resource, done: oneshot::Sender<ActivityResult<()>> },
    /// Make this durable, then answer.
    Before {
        step: StepIx,
        attempt: u32,
        values: BTreeMap<String, Value>,
        done: oneshot::Sender<ActivityResult<()>>,
    },
    /// Worth making durable; the throttle has been applied.
    Heartbeat { step: StepIx, attempt: u32, details: Value },
}

/// What an attempt needs.
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
pub(crate) struct Attempt {
    pub(crate) step: StepIx,
    pub(crate) attempt: u32,
    pub(crate) phase: Phase,
    pub(crate) activity: Arc<dyn ErasedActivity>,
    pub(crate) ctx: ActivityContext,
    pub(crate) input: Arc<Value>,
    /// Earlier inputs whose effects may still be there.
    pub(crate) past_inputs: Vec<Arc<Value>>,
    pub(crate) recorded: Recorded,
    /// Something of ours failed and is to be replaced: `execute` runs although the probe finds it.
    pub(crate) replacing: bool,
    /// This generation made something before, or may have: if it is gone, the next one makes it anew.
    pub(crate) done_before: bool,
    /// Whether something not ours may be taken as it is.
    pub(crate) adopt: bool,
    /// Whether the run goes backwards: what is to be taken back need not be whole.
    pub(crate) undoing: bool,
    pub(crate) limit: Option<Duration>,
    pub(crate) silence: Option<Duration>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) span: tracing::Span,
}

/// When an attempt last gave a sign of life.
#[derive(Debug)]
pub(crate) struct Pulse {
    last: Mutex<tokio::time::Instant>,
    told: Mutex<Option<tokio::time::Instant>>,
    throttle: Duration,
    latest: Mutex<Option<Value>>,
    /// Whether the details given last were held back by the throttle.
    held_back: AtomicBool,
}

impl Pulse {
    pub(crate) fn new(throttle: Duration) -> Self {
        Self {
            last: Mutex::new(tokio::time::Instant::now()),
            told: Mutex::new(None),
            throttle,
            latest: Mutex::new(None),
            held_back: AtomicBool::new(false),
        }
    }

    fn silent_for(&self) -> Duration {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// The details given last, durable or not.
    pub(crate) fn latest(&self) -> Option<Value> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The details given last, when they are not on their way to the store.
    pub(crate) fn held_back(&self) -> Option<Value> {
        if self.held_back.load(Ordering::SeqCst) { self.latest() } else { None }
    }

    /// Notes a beat; true when it is time to make one durable.
    fn beat(&self, details: &Value) -> bool {
        let now = tokio::time::Instant::now();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = now;
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(details.clone());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told.is_none_or(|t| now.duration_since(t) >= self.throttle);
        if due {
            *told = Some(now);
        }
        self.held_back.store(!due, Ordering::SeqCst);
        due
    }
}

/// The recorder an attempt writes through: everything goes to the driver, which commits it.
pub(crate) struct DriverRecorder {
    pub(crate) step: StepIx,
    pub(crate) attempt: u32,
    pub(crate) reports: mpsc::UnboundedSender<Report>,
    pub(crate) pulse: Arc<Pulse>,
}

fn lost() -> ActivityError {
    ActivityError::new(
        crate::activity::ErrorClass::Cancelled,
        "LostOwnership",
        "the run is no longer driven from here; nothing more may be recorded",
    )
}

impl Recorder for DriverRecorder {
    fn resource(&self, resource: Resource) -> BoxFuture<'_, ActivityResult<()>> {
        let (done, answer) = oneshot::channel();
        let sent =
            self.reports.send(Report::Resource { step: self.step, attempt: self.attempt, resource, done });
        Box::pin(async move {
            sent.map_err(|_| lost())?;
            answer.await.map_err(|_| lost())?
        })
    }

    fn before(&self, values: BTreeMap<String, Value>) -> BoxFuture<'_, ActivityResult<()>> {
        let (done, answer) = oneshot::channel();
        let sent = self.reports.send(Report::Before { step: self.step, attempt: self.attempt, values, done });
        Box::pin(async move {
            sent.map_err(|_| lost())?;
            answer.await.map_err(|_| lost())?
        })
    }

    fn heartbeat(&self, details: Value) {
        if self.pulse.beat(&details) {
            // A driver that is gone needs no heartbeat.
            drop(self.reports.send(Report::Heartbeat { step: self.step, attempt: self.attempt, details }));
        }
    }
}

/// Runs the attempt to its end and reports it.
pub(crate) async fn run(attempt: Attempt, reports: mpsc::UnboundedSender<Report>) {
    let (step, number) = (attempt.step, attempt.attempt);
    let began = tokio::time::Instant::now();
    attempt.span.in_scope(|| tracing::info!("the attempt begins"));
    let outcome = storable(limited(&attempt).instrument(attempt.span.clone()).await);
    attempt.span.in_scope(|| tell(&outcome, began.elapsed()));
    drop(reports.send(Report::Ended { step, attempt: number, outcome }));
}

/// How an attempt ended, for the log. Outputs are the history's: they may be long.
fn tell(outcome: &Outcome, took: Duration) {
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match outcome {
        Outcome::Done { found: None, .. } => tracing::info!(took_ms, "the attempt is done"),
        Outcome::Done { found: Some(owner), .. } => tracing::info!(took_ms, ?owner, "it was there already"),
        Outcome::Undone(undo) => tracing::info!(took_ms, ?undo, "the attempt has taken back"),
        Outcome::Answer(Probe::Absent) => tracing::info!(took_ms, "a look found nothing"),
        Outcome::Answer(Probe::Present { owner, .. }) => {
            tracing::info!(took_ms, ?owner, "a look found it");
        }
        Outcome::Answer(Probe::InProgress { detail }) => {
            tracing::info!(took_ms, detail, "it is being made or removed");
        }
        Outcome::Answer(Probe::Failed { owner, detail }) => {
            tracing::warn!(took_ms, ?owner, detail, "a look found it broken");
        }
        Outcome::Failed(error) => tracing::warn!(
            took_ms,
            class = ?error.class,
            code = error.code,
            request_id = error.request_id,
            "the attempt failed: {}",
            error.message
        ),
    }
}

/// The texts of an outcome, cut where they are too long to be stored: they are for people, and must not hold up the run.
fn storable(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Failed(error) => Outcome::Failed(error.cut()),
        Outcome::Answer(Probe::InProgress { detail }) => {
            Outcome::Answer(Probe::InProgress { detail: cut(detail) })
        }
        Outcome::Answer(Probe::Failed { owner, detail }) => {
            Outcome::Answer(Probe::Failed { owner, detail: cut(detail) })
        }
        Outcome::Undone(Undo::Kept { reason }) => Outcome::Undone(Undo::Kept { reason: cut(reason) }),
        outcome => outcome,
    }
}

async fn limited(attempt: &Attempt) -> Outcome {
    let work = AssertUnwindSafe(call(attempt)).catch_unwind();
    let deadline = async {
        match attempt.limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let silence = async {
        match attempt.silence {
            Some(limit) => loop {
                let silent = attempt.pulse.silent_for();
                if silent >= limit {
                    break;
                }
                tokio::time::sleep(limit.saturating_sub(silent)).await;
            },
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        result = work => match result {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Failed(error),
            Err(panic) => Outcome::Failed(ActivityError::retryable("Panic", panic_text(&panic))),
        },
        () = deadline => Outcome::Failed(ActivityError::retryable(
            "Timeout",
            format!("the attempt did not end within {:?}", attempt.limit.unwrap_or_default()),
        )),
        () = silence => Outcome::Failed(ActivityError::retryable(
            "HeartbeatTimeout",
            format!("the attempt gave no sign of life for {:?}", attempt.silence.unwrap_or_default()),
        )),
    }
}

pub(crate) fn panic_text(panic: &Box<dyn std::any::Any + Send>) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    format!("the activity panicked: {text}")
}

async fn call(attempt: &Attempt) -> ActivityResult<Outcome> {
    let Attempt { activity, ctx, input, .. } = attempt;
    match attempt.phase {
        Phase::Compensate => {
            let mut undone = activity.compensate(ctx, input, &attempt.recorded).await?;
            // Backwards in time, as everything else.
            for past in attempt.past_inputs.iter().rev() {
                match activity.compensate(ctx, past, &attempt.recorded).await? {
                    Undo::NothingToDo => {}
                    Undo::Undone if undone == Undo::NothingToDo => undone = Undo::Undone,
                    Undo::Undone => {}
                    kept @ Undo::Kept { .. } => undone = kept,
                }
            }
            Ok(Outcome::Undone(undone))
        }
        Phase::Probe => {
            let answer = activity.probe(ctx, input).await.map_err(ActivityError::no_effect)?;
            settle_answer(attempt, answer).await
        }
        Phase::Execute => {
            if activity.has_probe() {
                match activity.probe(ctx, input).await.map_err(ActivityError::no_effect)? {
                    // It was there and is gone, or is not to be seen yet: that is settled before anything is made.
                    Probe::Absent if attempt.done_before => return Ok(Outcome::Answer(Probe::Absent)),
                    Probe::Absent => {}
                    Probe::Failed { owner: Owner::ThisRun, .. } if attempt.replacing => {}
                    answer => return settle_answer(attempt, answer).await,
                }
            }
            let output = activity.execute(ctx, input).await?;
            check_payload(&output)
                .map_err(|why| ActivityError::terminal("OutputTooLarge", format!("the output {why}")))?;
            activity.verify(ctx, input, &output).await?;
            Ok(Outcome::Done { output, found: None })
        }
    }
}

/// Reads a probe's answer in the light of what the step may adopt and what this run recorded.
async fn settle_answer(attempt: &Attempt, answer: Probe<Value>) -> ActivityResult<Outcome> {
    let Probe::Present { output, owner } = answer else {
        return Ok(Outcome::Answer(answer));
    };
    check_payload(&output)
        .map_err(|why| ActivityError::terminal("OutputTooLarge", format!("what the probe found {why}")))?;
    // An update cannot be marked: what this run recorded before it wrote is the proof that it is ours.
    let recorded = !attempt.recorded.before.is_empty() || !attempt.recorded.resources.is_empty();
    let owner = match owner {
        Owner::ThisSite(_) if recorded => Owner::ThisRun,
        owner => owner,
    };
    if owner == Owner::Foreign && !attempt.adopt {
        return Ok(Outcome::Answer(Probe::Present { output, owner }));
    }
    if !attempt.undoing {
        attempt.activity.verify(&attempt.ctx, &attempt.input, &output).await?;
    }
    Ok(Outcome::Done { output, found: Some(owner) })
}
