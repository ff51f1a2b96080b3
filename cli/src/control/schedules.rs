//! What is said about schedules on the socket.

use dssflow_engine::id::ScheduleId;
use dssflow_engine::schedule::{Backfill, Overlap, ScheduleSpec};
use dssflow_engine::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who asks, and why.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asks {
    /// Who.
    #[serde(default)]
    pub(crate) by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
}

/// Body of `POST /v1/schedules`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSchedule {
    /// Its name.
    pub(crate) schedule: ScheduleId,
    /// What is wanted.
    pub(crate) spec: ScheduleSpec,
    /// Who and why.
    #[serde(default)]
    pub(crate) asks: Asks,
}

/// Body of `PUT /v1/schedules/{schedule}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangedSchedule {
    /// What is wanted from now on.
    pub(crate) spec: ScheduleSpec,
    /// Whether it may start as many runs as its limit says from now on; it may in any case when that is another one than
    /// before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) renew_limit: bool,
    /// What `updated` of the schedule said when it was looked at: if it was changed since, the change is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seen: Option<Timestamp>,
    /// Who and why.
    #[serde(default)]
    pub(crate) asks: Asks,
}

/// Body of `POST /v1/schedules/{schedule}/trigger`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trigger {
    /// The overlap policy in place of the schedule's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) overlap: Option<Overlap>,
    /// Who and why.
    #[serde(default)]
    pub(crate) asks: Asks,
}

/// Body of `POST /v1/schedules/{schedule}/backfill`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedBackfill {
    /// Which instants.
    pub(crate) backfill: Backfill,
    /// Whether it is only to be said.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// Who and why.
    #[serde(default)]
    pub(crate) asks: Asks,
}

impl From<Asks> for dssflow_engine::event::Request {
    fn from(asks: Asks) -> Self {
        Self { by: asks.by, reason: asks.reason }
    }
}

impl From<dssflow_engine::event::Request> for Asks {
    fn from(request: dssflow_engine::event::Request) -> Self {
        Self { by: request.by, reason: request.reason }
    }
}
