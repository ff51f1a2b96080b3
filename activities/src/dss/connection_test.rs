//! A connection answers with its credentials.
//!
//! # Idempotency
//! Reads only.
//!
//! Page: <https://developer.dataiku.com/latest/api-reference/python/connections.html>

use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect};
use serde::{Deserialize, Serialize};

use super::client::{DssClient, DssTarget};

/// The registered name.
pub const NAME: &str = "dss.connection-test";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionTestInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Name of the connection.
    pub name: String,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionTestOutput {
    /// Name of the connection.
    pub name: String,
}

/// The activity.
pub(crate) struct ConnectionTest;

impl Activity for ConnectionTest {
    type Input = ConnectionTestInput;
    type Output = ConnectionTestOutput;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &ConnectionTestInput,
    ) -> ActivityResult<ConnectionTestOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let reply = client.get(&["connections", &input.name, "test"]).await?;
        if reply["connectionOK"] == true {
            return Ok(ConnectionTestOutput { name: input.name.clone() });
        }
        let why = reply["connectionErrorMsg"].as_str().unwrap_or("DSS gives no reason");
        // New access keys and policies take some time to be known everywhere.
        Err(ActivityError::retryable(
            "ConnectionTest",
            format!("connection {} does not work: {why}", input.name),
        )
        .no_effect())
    }

    fn describe(&self, input: &ConnectionTestInput) -> String {
        format!("connection {} works", input.name)
    }
}
