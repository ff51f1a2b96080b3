//! How an activity fails. The class says what the engine does about it; the text is for people.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cut;

/// The class of an error: the engine decides by it and never reads messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// May go away by itself; retried by the step's policy.
    Retryable,
    /// The service asked for less; retried on a budget of its own, no attempt is consumed.
    Throttled,
    /// Will not go away by itself.
    Terminal,
    /// Credentials are missing, expired or denied; the run pauses, no attempt is consumed.
    Credentials,
    /// A person has to decide; the run pauses.
    NeedsHuman,
    /// The attempt saw that it was cancelled and stopped.
    Cancelled,
}

/// An activity's failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[error("{code}: {message}")]
pub struct ActivityError {
    /// What the engine does about it.
    pub class: ErrorClass,
    /// A short stable code: the service's own where there is one, as `ResourceInUseException`.
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// What mends it: a command, a policy, a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The service's id of the failed request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The service's own wish for the next try, in milliseconds; wins over the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Whether the call surely did nothing: then a repetition needs no probe.
    #[serde(default)]
    pub no_effect: bool,
}

impl ActivityError {
    /// An error of the given class.
    pub fn new(class: ErrorClass, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            class,
            code: code.into(),
            message: message.into(),
            help: None,
            request_id: None,
            retry_after_ms: None,
            no_effect: false,
        }
    }

    /// Worth another attempt.
    pub fn retryable(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Retryable, code, message)
    }

    /// Not worth another attempt.
    pub fn terminal(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Terminal, code, message)
    }

    /// The service throttles; nothing was done. Implies [`ActivityError::no_effect`]: only for a request that the
    /// service refused as a whole. Where an earlier call of the attempt did something, set `no_effect` to false.
    pub fn throttled(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Throttled, code, message).no_effect()
    }

    /// Credentials are missing, expired or denied; nothing was done. Implies [`ActivityError::no_effect`]: only for a
    /// request that was refused as a whole. Where an earlier call of the attempt did something, set `no_effect` to
    /// false.
    pub fn credentials(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Credentials, code, message).no_effect()
    }

    /// The run may be somebody else's by now; nothing was done. See
    /// [`ActivityContext::fence`](super::ActivityContext::fence).
    pub fn lost_ownership(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Cancelled, "LostOwnership", message).no_effect()
    }

    /// A person has to decide.
    pub fn needs_human(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::NeedsHuman, code, message)
    }

    /// The attempt stopped because it was told to.
    pub fn cancelled() -> Self {
        Self::new(ErrorClass::Cancelled, "Cancelled", "the attempt was cancelled")
    }

    /// Says what mends it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the service's request id.
    #[must_use]
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into());
        self
    }

    /// Adds the service's wish for the next try.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after_ms = Some(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// The same with texts that can be stored.
    pub(crate) fn cut(self) -> Self {
        Self {
            code: cut(self.code),
            message: cut(self.message),
            help: self.help.map(cut),
            request_id: self.request_id.map(cut),
            ..self
        }
    }

    /// Promises that the call did nothing, as a refused request did.
    #[must_use]
    pub fn no_effect(mut self) -> Self {
        self.no_effect = true;
        self
    }
}

/// The answer of an activity.
pub type ActivityResult<T> = Result<T, ActivityError>;
