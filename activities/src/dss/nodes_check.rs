//! The nodes of a cluster are ready, as DSS's own kubectl sees them.
//!
//! # Idempotency
//! Reads only.
//!
//! Page: <https://developer.dataiku.com/latest/api-reference/python/clusters.html>

use std::time::Duration;

use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{DssClient, DssTarget};
use super::kubectl::Kubectl;

/// The registered name.
pub const NAME: &str = "dss.nodes-check";
/// How long nodes may take to become ready.
const LIMIT: Duration = Duration::from_mins(10);
/// Wait between two looks.
const POLL: Duration = Duration::from_secs(10);

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodesCheckInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Id of the DSS cluster.
    pub cluster_id: String,
    /// How many nodes must be ready.
    #[serde(default = "one")]
    pub expected: u32,
}

fn one() -> u32 {
    1
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesCheckOutput {
    /// Nodes listed.
    pub nodes: u32,
    /// Nodes ready.
    pub ready: u32,
}

/// The activity.
pub(crate) struct NodesCheck;

/// Counts nodes and ready nodes in the output of `get nodes -o json`.
fn count(output: &str) -> Option<NodesCheckOutput> {
    let list: Value = serde_json::from_str(output).ok()?;
    let items = list["items"].as_array()?;
    let is_ready = |node: &&Value| {
        let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let ready = items.iter().filter(is_ready).count();
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Some(NodesCheckOutput { nodes: number(items.len()), ready: number(ready) })
}

impl Activity for NodesCheck {
    type Input = NodesCheckInput;
    type Output = NodesCheckOutput;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &NodesCheckInput,
    ) -> ActivityResult<NodesCheckOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let until = ctx.now() + LIMIT;
        let kubectl = Kubectl::on(&client, &input.cluster_id);
        loop {
            let answer = kubectl.run(&["get", "nodes", "-o", "json"]).await?;
            let found = answer.as_deref().ok().and_then(count);
            match found {
                Some(found) if found.ready >= input.expected => return Ok(found),
                found if ctx.now() >= until => {
                    let seen = found.map_or_else(
                        || match &answer {
                            Ok(_) => "kubectl lists no nodes".to_owned(),
                            Err(complaint) => format!("kubectl failed: {complaint}"),
                        },
                        |found| {
                            format!(
                                "{} of {} nodes are ready, {} are wanted",
                                found.ready, found.nodes, input.expected
                            )
                        },
                    );
                    return Err(ActivityError::retryable("NodesNotReady", seen)
                        .help(
                            "nodes that never join usually lack a public address or a route to the Internet",
                        )
                        .no_effect());
                }
                found => ctx.heartbeat(json!({"ready": found.map(|found| found.ready)})),
            }
            ctx.sleep(POLL).await?;
        }
    }

    fn describe(&self, input: &NodesCheckInput) -> String {
        format!("at least {} nodes of cluster {} ready", input.expected, input.cluster_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_nodes_are_counted() {
        let node = |ready: &str| json!({"status": {"conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": ready}]}});
        let output = json!({"items": [node("True"), node("Unknown")]}).to_string();
        assert_eq!(count(&output), Some(NodesCheckOutput { nodes: 2, ready: 1 }));
        assert_eq!(count("error"), None);
    }
}
