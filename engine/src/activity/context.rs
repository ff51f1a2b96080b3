//! What an attempt knows and may do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    ActivityError, ActivityResult, MAX_HEARTBEAT_BYTES, MAX_NOTE_BYTES, Marks, Resource, Resources,
    check_payload,
};
use crate::event::CancelMode;
use crate::id::{RunId, StepName, StoreId, Token};
use crate::schedule::Scheduled;
use crate::time::{BoxFuture, Clock, Timestamp};

/// Where a context writes what must be durable before it returns. Implemented by the runtime, and by test kits.
pub trait Recorder: Send + Sync {
    /// Resolves when the resource is durable.
    fn resource(&self, resource: Resource) -> BoxFuture<'_, ActivityResult<()>>;
    /// Resolves when the old values are durable. Keys that were recorded before keep their first value.
    fn before(&self, values: BTreeMap<String, Value>) -> BoxFuture<'_, ActivityResult<()>>;
    /// Notes progress; the runtime throttles how often it becomes durable.
    fn heartbeat(&self, details: Value);
}

/// Why an attempt should stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The run pauses; the attempt will be repeated.
    Pause,
    /// Another step failed, and the run fails with it.
    Fail,
    /// The run takes back what it made.
    Rollback,
    /// Somebody wants the run to end.
    Cancel(CancelMode),
    /// The attempt took longer than it may, or was silent for too long.
    TimedOut,
    /// The run ends at once.
    Terminate,
    /// This process may not act on the run any more: another one may have taken it over.
    Lost,
}

/// Shows that this process may act on a run. Implemented by the runtime.
pub trait Fence: Send + Sync {
    /// The epoch under which this process may act on the run now.
    ///
    /// # Errors
    /// [`ActivityError::lost_ownership`] when that cannot be shown any more.
    fn epoch(&self) -> ActivityResult<u64>;
}

/// What an attempt knows and may do. Cheap to clone.
#[derive(Clone)]
pub struct ActivityContext {
    pub(crate) inner: Arc<ContextInner>,
}

/// The parts of an [`ActivityContext`], for runtimes and test kits.
pub struct ContextInner {
    /// The store of the run.
    pub store: StoreId,
    /// The site of the run, or an empty string.
    pub site: String,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepName,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The generation of the step, from 1.
    pub generation: u32,
    /// When the attempt is ended by its timeout.
    pub deadline: Option<Timestamp>,
    /// The details of the last heartbeat of any attempt of this generation.
    pub last_heartbeat: Option<Value>,
    /// Fires when the attempt should stop.
    pub cancel: CancellationToken,
    /// Why it fired; set before it fires.
    pub stop: Arc<OnceLock<StopReason>>,
    /// Shows that this process may act on the run; `None` where nobody else could.
    pub fence: Option<Arc<dyn Fence>>,
    /// Where durable notes go.
    pub recorder: Arc<dyn Recorder>,
    /// Injected things.
    pub resources: Resources,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// In a compensation: steps of this run whose effects stay, by rule or because they could not be undone.
    pub kept: Vec<StepName>,
}

impl fmt::Debug for ActivityContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActivityContext({}/{}#{})", self.inner.run, self.inner.step, self.inner.attempt)
    }
}

impl ActivityContext {
    /// Builds a context from its parts.
    pub fn new(inner: ContextInner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.inner.run
    }

    /// The step.
    pub fn step(&self) -> &StepName {
        &self.inner.step
    }

    /// The attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.inner.attempt
    }

    /// The generation, from 1. It rises when what an earlier one made failed for good, was deleted, or its input
    /// changed.
    pub fn generation(&self) -> u32 {
        self.inner.generation
    }

    /// The idempotency token for the call `label` names: the same in every attempt of this generation.
    pub fn token(&self, label: &str) -> Token {
        Token::derive(&self.inner.store, &self.inner.run, &self.inner.step, self.inner.generation, label)
    }

    /// The ownership marks to put on what is created.
    pub fn marks(&self) -> Marks {
        Marks {
            store: self.inner.store.as_str().to_owned(),
            site: self.inner.site.clone(),
            run: self.inner.run.as_str().to_owned(),
            step: self.inner.step.as_str().to_owned(),
            generation: self.inner.generation,
        }
    }

    /// The same attempt in the name of another run's step: its marks and tokens are those of that step. For whoever takes
    /// back what another run of the same site made. What is recorded is still recorded by this attempt.
    #[must_use]
    pub fn in_the_name_of(&self, run: RunId, step: StepName, generation: u32) -> Self {
        let ContextInner { store, site, attempt, deadline, cancel, stop, fence, recorder, .. } = &*self.inner;
        Self::new(ContextInner {
            store: store.clone(),
            site: site.clone(),
            run,
            step,
            attempt: *attempt,
            generation,
            deadline: *deadline,
            last_heartbeat: None,
            cancel: cancel.clone(),
            stop: Arc::clone(stop),
            fence: fence.clone(),
            recorder: Arc::clone(recorder),
            resources: self.inner.resources.clone(),
            clock: Arc::clone(&self.inner.clock),
            kept: self.inner.kept.clone(),
        })
    }

    /// The schedule that started the run, the instant it is for, and what the schedule's last run returned. None when
    /// somebody else started it.
    pub fn scheduled(&self) -> Option<Arc<Scheduled>> {
        self.inner.resources.get()
    }

    /// When the attempt is ended by its timeout.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.inner.deadline
    }

    /// The time now, by the engine's clock.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Waits, by the engine's clock. Ends early with [`ActivityError::cancelled`] when the attempt should stop.
    ///
    /// # Errors
    /// [`ActivityError::cancelled`].
    pub async fn sleep(&self, duration: Duration) -> ActivityResult<()> {
        let until = self.now() + duration;
        while self.now() < until {
            tokio::select! {
                biased;
                () = self.inner.cancel.cancelled() => return Err(ActivityError::cancelled()),
                () = self.inner.clock.sleep_until(until) => {}
            }
        }
        Ok(())
    }

    /// Resolves when the attempt should stop.
    pub async fn cancelled(&self) {
        self.inner.cancel.cancelled().await;
    }

    /// Whether the attempt should stop.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancel.is_cancelled()
    }

    /// Why the attempt should stop; `None` while it may go on.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.inner.stop.get().copied()
    }

    /// Makes sure that the run is still ours. Call it right before a call that changes something: a process that
    /// stalled, and whose lease ended meanwhile, would otherwise act beside the new owner.
    ///
    /// # Errors
    /// An error of class [`Cancelled`](super::ErrorClass::Cancelled), code `LostOwnership`, when that cannot be shown
    /// any more. Make no call then; return the error.
    pub fn fence(&self) -> ActivityResult<()> {
        self.inner.fence.as_ref().map_or(Ok(()), |fence| fence.epoch().map(drop))
    }

    /// Says that the attempt is alive, with details for people and for the next attempt (at most 4 KiB of JSON;
    /// larger details are replaced by a note).
    pub fn heartbeat(&self, details: impl Serialize) {
        let details = serde_json::to_value(details).unwrap_or(Value::Null);
        let details = if details.to_string().len() > MAX_HEARTBEAT_BYTES {
            Value::String("(details over 4 KiB left out)".to_owned())
        } else {
            details
        };
        self.inner.recorder.heartbeat(details);
    }

    /// The details of the last durable heartbeat of an earlier attempt of this generation.
    pub fn last_heartbeat<T: DeserializeOwned>(&self) -> Option<T> {
        self.inner.last_heartbeat.as_ref().and_then(|v| serde_json::from_value(v.clone()).ok())
    }

    /// Records something made in the outside world; durable when it returns. Call it the moment the id is known.
    ///
    /// # Errors
    /// A terminal error, `RecordTooLarge`, for a kind and id of more than [`MAX_NOTE_BYTES`](super::MAX_NOTE_BYTES).
    /// When the record could not be made durable; stop then, the run is reloaded.
    pub async fn record_resource(
        &self,
        kind: impl Into<String>,
        id: impl Into<String>,
    ) -> ActivityResult<()> {
        let resource = Resource { kind: kind.into(), id: id.into(), generation: self.inner.generation };
        let size = resource.kind.len() + resource.id.len();
        if size > MAX_NOTE_BYTES {
            let why = format!(
                "the kind and id of a resource have {size} bytes, at most {MAX_NOTE_BYTES} are allowed"
            );
            return Err(ActivityError::terminal("RecordTooLarge", why));
        }
        self.inner.recorder.resource(resource).await
    }

    /// Records the old values of keys about to be changed; durable when it returns. Never put a secret in it.
    ///
    /// # Errors
    /// A terminal error, `RecordTooLarge`, for more than [`MAX_PAYLOAD_BYTES`](super::MAX_PAYLOAD_BYTES).
    /// When the record could not be made durable; stop then, the run is reloaded.
    pub async fn record_before(&self, values: BTreeMap<String, Value>) -> ActivityResult<()> {
        let values = Value::Object(values.into_iter().collect());
        check_payload(&values)
            .map_err(|why| ActivityError::terminal("RecordTooLarge", format!("what is recorded {why}")))?;
        let Value::Object(values) = values else { unreachable!("made above") };
        self.inner.recorder.before(values.into_iter().collect()).await
    }

    /// In a compensation: steps of this run whose effects stay, by rule or because they could not be undone. A
    /// final sweep must expect to find them.
    pub fn kept(&self) -> &[StepName] {
        &self.inner.kept
    }

    /// An injected thing.
    ///
    /// # Errors
    /// A terminal error naming the type when it was not injected.
    pub fn resource<T: Send + Sync + 'static>(&self) -> ActivityResult<Arc<T>> {
        self.inner.resources.get::<T>().ok_or_else(|| {
            let name = std::any::type_name::<T>();
            ActivityError::terminal("ResourceMissing", format!("{name} was not given to the engine"))
                .no_effect()
        })
    }
}
