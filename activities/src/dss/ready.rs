//! DSS answers and the key is an administrator's. Everything that calls DSS comes after it.
//!
//! # Idempotency
//! Reads only.
//!
//! Page: <https://doc.dataiku.com/dss/latest/publicapi/rest.html>

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, ErrorClass,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{DssClient, DssTarget};

/// The registered name.
pub const NAME: &str = "dss.ready";
/// Wait between two looks.
const POLL: Duration = Duration::from_secs(2);

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadyInput {
    /// Which DSS.
    pub target: DssTarget,
    /// How long DSS may take to start, in seconds.
    #[serde(default = "default_wait")]
    pub wait_seconds: u64,
}

fn default_wait() -> u64 {
    600
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyOutput {
    /// The node's id.
    pub node_id: String,
    /// `DESIGN`, `AUTOMATION` or `DEPLOYER`.
    pub node_type: String,
    /// Shape of the container settings: 15 when the document has build configs, else 14, unless the target says.
    pub major: u32,
}

/// The activity.
pub(crate) struct Ready;

impl Activity for Ready {
    type Input = ReadyInput;
    type Output = ReadyOutput;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, ctx: &ActivityContext, input: &ReadyInput) -> ActivityResult<ReadyOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let until = ctx.now() + Duration::from_secs(input.wait_seconds);
        loop {
            match client.get(&["auth", "info"]).await {
                Ok(_) => break,
                Err(error) if error.class == ErrorClass::Retryable && ctx.now() < until => {
                    ctx.heartbeat(json!({"waiting": error.message}));
                    ctx.sleep(POLL).await?;
                }
                Err(error) => return Err(error),
            }
        }
        // Some editions let the key in and refuse the administration.
        let settings = client.get(&["admin", "general-settings"]).await?;
        let info = client.get(&["instance-info"]).await?;
        let has_builds = settings.pointer("/containerSettings/buildConfigs").is_some();
        let text = |key: &str| info[key].as_str().unwrap_or_default().to_owned();
        let output = ReadyOutput {
            node_id: text("nodeId"),
            node_type: text("nodeType"),
            major: input.target.major.unwrap_or(if has_builds { 15 } else { 14 }),
        };
        if output.node_type != "DESIGN" && !output.node_type.is_empty() {
            let message = format!("the instance is a {} node, a design node is needed", output.node_type);
            return Err(ActivityError::terminal("NodeType", message).no_effect());
        }
        Ok(output)
    }

    fn describe(&self, input: &ReadyInput) -> String {
        format!("DSS answers at {}", input.target.url)
    }
}
