//! What an activity is: the code a step names, the context it runs in, and the answers it may give.
//!
//! An embedder writes [`Activity::execute`] and is done. An activity that provisions something also says what
//! kind of effect it has and how to find out whether that effect took place ([`Activity::probe`]), so that an
//! attempt whose outcome is unknown is looked at before it is repeated or undone.

mod context;
mod erased;
mod error;
mod ledger;
mod owner;
mod registry;

use std::future::Future;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::escaped_len;

pub use self::context::{ActivityContext, ContextInner, Fence, Recorder, StopReason};
pub use self::erased::{ErasedActivity, Shapes};
pub use self::error::{ActivityError, ActivityResult, ErrorClass};
pub use self::ledger::{Probe, Recorded, Resource, Undo};
pub use self::owner::{Marks, Owner};
pub use self::registry::{ActivityRegistry, RegistryError, Resources, Undoing};

/// The most an input or output may have, in bytes of JSON.
pub const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;
/// How deep an input or output may be nested. Stored events could not be read beyond some 120.
pub const MAX_PAYLOAD_DEPTH: usize = 64;
/// The most heartbeat details may have, in bytes of JSON.
pub const MAX_HEARTBEAT_BYTES: usize = 4 * 1024;

/// The most that the texts of a note may have, in bytes: who asks and why, the kind and id of a resource, the message of
/// an error.
pub const MAX_NOTE_BYTES: usize = 16 * 1024;

/// What an activity does to the world outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Changes nothing. Repeated freely, never undone.
    Read,
    /// Changes something, but a repetition leaves the same world. Repeated freely after a crash.
    Idempotent,
    /// Makes something that was not there. Needs a probe.
    Create,
    /// Changes something that was there; the old values of the managed keys are recorded first. Needs a probe.
    Update,
    /// Removes something. "Not there" is success.
    Delete,
}

impl Effect {
    /// Whether an attempt with an unknown outcome must be probed before it is repeated or undone.
    pub fn needs_probe(self) -> bool {
        matches!(self, Self::Create | Self::Update)
    }
}

/// The code a step names.
///
/// `execute` is all an embedder must write. Implement the rest for an activity that provisions something, and set
/// [`Activity::HAS_PROBE`]. Attempts are at least once: `execute` may run again after a crash, and every future
/// here may be dropped at any await point (a timeout, a cancellation, a crash).
pub trait Activity: Send + Sync + 'static {
    /// What it takes. Never put a secret's value in it: it is stored.
    type Input: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What it gives. It is stored.
    type Output: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Whether [`Activity::probe`] is implemented. Registering a Create or Update without one is an error.
    const HAS_PROBE: bool = false;

    /// Whether what it does is the run's own, for a rollback to take back. False for an activity that brings what others
    /// own into the state that they want, as a catalogue that follows its source: a rollback leaves that alone, and a run
    /// that did nothing else owns nothing and may be removed once it has ended, unless it recorded a resource or old
    /// values. Not for a Create or Update.
    const OWNS: bool = true;

    /// What it does to the world outside.
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    /// Does the work. With a probe, it is called only after the probe said that there is nothing yet, or
    /// something of ours that failed.
    fn execute(
        &self,
        ctx: &ActivityContext,
        input: &Self::Input,
    ) -> impl Future<Output = ActivityResult<Self::Output>> + Send;

    /// Looks whether the effect is there, without changing anything. Called before the first call of a generation
    /// and after every attempt whose outcome is unknown.
    fn probe(
        &self,
        _ctx: &ActivityContext,
        _input: &Self::Input,
    ) -> impl Future<Output = ActivityResult<Probe<Self::Output>>> + Send {
        async {
            Err(ActivityError::terminal("ProbeMissing", "the activity declares HAS_PROBE but has no probe")
                .no_effect())
        }
    }

    /// Checks the post-condition after `execute`, or after a probe found the thing present.
    fn verify(
        &self,
        _ctx: &ActivityContext,
        _input: &Self::Input,
        _output: &Self::Output,
    ) -> impl Future<Output = ActivityResult<()>> + Send {
        async { Ok(()) }
    }

    /// Takes back what this run made, and nothing else: ownership is proven here, at delete time. "Not there" is
    /// success. `recorded` carries what every generation recorded, also of attempts that never finished.
    fn compensate(
        &self,
        _ctx: &ActivityContext,
        _input: &Self::Input,
        _recorded: &Recorded,
    ) -> impl Future<Output = ActivityResult<Undo>> + Send {
        async { Ok(Undo::NothingToDo) }
    }

    /// One line for plan and progress.
    fn describe(&self, _input: &Self::Input) -> String {
        String::new()
    }

    /// How long "absent" must hold, over two probes, before an attempt with an unknown outcome counts as without
    /// effect: reads are stale and a lost request can land late.
    fn settle(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// How long to wait between two probes that answer [`Probe::InProgress`].
    fn poll_interval(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// A text for people, cut to [`MAX_NOTE_BYTES`].
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > MAX_NOTE_BYTES {
        let end = text.floor_char_boundary(MAX_NOTE_BYTES - '…'.len_utf8());
        text.truncate(end);
        text.push('…');
    }
    text
}

/// About how many bytes of JSON a value has.
///
/// # Errors
/// When it is over a limit.
pub(crate) fn check_payload(value: &Value) -> Result<usize, String> {
    fn weigh(value: &Value, depth: usize) -> Result<usize, String> {
        if depth > MAX_PAYLOAD_DEPTH {
            return Err(format!("is nested more than {MAX_PAYLOAD_DEPTH} deep"));
        }
        Ok(match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 8,
            Value::String(text) => escaped_len(text) + 3,
            Value::Array(list) => {
                list.iter().try_fold(2, |n, v| Ok::<_, String>(n + 1 + weigh(v, depth + 1)?))?
            }
            Value::Object(map) => map
                .iter()
                .try_fold(2, |n, (k, v)| Ok::<_, String>(n + escaped_len(k) + 4 + weigh(v, depth + 1)?))?,
        })
    }
    let size = weigh(value, 0)?;
    if size > MAX_PAYLOAD_BYTES {
        return Err(format!("has {size} bytes, at most {MAX_PAYLOAD_BYTES} are allowed"));
    }
    Ok(size)
}
