//! How a run behaves, chosen when it is created and stored with it.

use serde::{Deserialize, Serialize};

/// What happens when a step cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnTrouble {
    /// The run pauses; `resume` tries again.
    Pause,
    /// The run fails; what it made stays.
    Fail,
    /// The run takes back what it made.
    Rollback,
}

/// How a run behaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct RunOptions {
    /// How many attempts at once. Default 16.
    pub parallelism: u32,
    /// When a step has used up its attempts. Default: the run fails.
    pub on_exhausted: OnTrouble,
    /// When a step fails for good. Default: the run fails.
    pub on_failure: OnTrouble,
    /// When a step wants a person: for credentials, a permission, a quota, a thing of somebody else. Default: the run
    /// pauses. A run that nobody looks after, as that of a schedule, may fail instead, so that it stands in nobody's way.
    /// A rollback always waits.
    #[serde(skip_serializing_if = "is_pause")]
    pub on_blocked: OnTrouble,
    /// The run's own limit on time, in milliseconds; time in which it is paused or not owned does not count. What it
    /// made stays. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Who goes first where runs wait for the same lock, semaphore, rate or slot: the higher. Default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_pause(trouble: &OnTrouble) -> bool {
    *trouble == OnTrouble::Pause
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(priority: &i32) -> bool {
    *priority == 0
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            parallelism: 16,
            on_exhausted: OnTrouble::Fail,
            on_failure: OnTrouble::Fail,
            on_blocked: OnTrouble::Pause,
            timeout_ms: None,
            priority: 0,
        }
    }
}
