//! What the cluster activities share: definitions, their state, and the two calls that take a quarter of an hour.

use std::time::Duration;

use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult, ErrorClass, Marks, Owner};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{DssClient, check_messages};
use super::mark;

/// Kind of resource recorded for a definition.
pub(crate) const DEFINITION: &str = "dss:cluster";
/// How long a start or a stop may keep its connection open.
const LONG_CALL: Duration = Duration::from_mins(45);
/// Wait between two looks at the state.
const POLL: Duration = Duration::from_secs(5);
/// The first looks come quicker.
const FIRST_POLL: Duration = Duration::from_millis(200);

/// State of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ClusterState {
    /// Not started.
    None,
    /// A start is under way.
    Starting,
    /// Started.
    Running,
    /// A stop is under way.
    Stopping,
}

/// A definition as the list and its settings tell.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub(crate) id: String,
    pub(crate) settings: Value,
}

impl Definition {
    /// Whose it is: by the cluster tags, which reach AWS as well.
    pub(crate) fn owner(&self, marks: &Marks) -> Owner {
        mark::owner_by_tags(&self.settings["params"]["config"]["clusterTags"], marks)
    }
}

/// Every definition of this name. The name is not known to be unique.
pub(crate) async fn named(client: &DssClient, name: &str) -> ActivityResult<Vec<Definition>> {
    let list = client.get(&["admin", "clusters", ""]).await?;
    let mut found = Vec::new();
    for item in list.as_array().into_iter().flatten() {
        if item["name"] == name
            && let Some(id) = item["id"].as_str()
        {
            found.push(read(client, id).await?);
        }
    }
    Ok(found)
}

/// The definition with this id, looked up in the list.
pub(crate) async fn by_id(client: &DssClient, id: &str) -> ActivityResult<Option<Definition>> {
    let list = client.get(&["admin", "clusters", ""]).await?;
    if list.as_array().is_some_and(|items| items.iter().any(|item| item["id"] == id)) {
        return read(client, id).await.map(Some);
    }
    Ok(None)
}

async fn read(client: &DssClient, id: &str) -> ActivityResult<Definition> {
    Ok(Definition { id: id.to_owned(), settings: client.get(&["admin", "clusters", id]).await? })
}

/// Creates a definition and gives its id.
pub(crate) async fn define(
    ctx: &ActivityContext,
    client: &DssClient,
    body: &Value,
) -> ActivityResult<String> {
    let reply = client.post(&["admin", "clusters", ""], Some(body)).await?;
    check_messages(&reply, "cluster definition")?;
    let id = reply["id"]
        .as_str()
        .ok_or_else(|| ActivityError::retryable("ClusterId", "DSS gave no id for the new cluster"))?;
    ctx.record_resource(DEFINITION, id).await?;
    Ok(id.to_owned())
}

/// The state DSS shows.
pub(crate) async fn state(client: &DssClient, id: &str) -> ActivityResult<ClusterState> {
    let status = client.get(&["admin", "clusters", id, "status"]).await?;
    serde_json::from_value(status["state"].clone()).map_err(|_| {
        ActivityError::terminal(
            "ClusterState",
            format!("DSS shows an unknown cluster state: {}", status["state"]),
        )
        .no_effect()
    })
}

/// What became of a long call.
#[derive(Debug)]
pub(crate) enum LongCall {
    /// DSS said that it is done.
    Done,
    /// DSS said that it failed.
    Failed(ActivityError),
    /// The reply was lost; only the state can tell.
    Lost(ActivityError),
}

/// Makes one of the long calls, once, and says that the attempt is alive while it takes.
///
/// # Errors
/// When the call surely did nothing, and [`ActivityError::cancelled`]. The work in DSS goes on then.
pub(crate) async fn long_call(
    ctx: &ActivityContext,
    client: &DssClient,
    id: &str,
    action: &str,
    query: &[(&str, &str)],
) -> ActivityResult<LongCall> {
    let path = ["admin", "clusters", id, "actions", action];
    let call = client.post_long(&path, query, None, LONG_CALL);
    let mut call = std::pin::pin!(call);
    let reply = loop {
        tokio::select! {
            reply = &mut call => break reply,
            slept = ctx.sleep(POLL) => {
                slept?;
                ctx.heartbeat(json!({"action": action, "cluster": id}));
            }
        }
    };
    match reply {
        Ok(reply) => Ok(match check_messages(&reply, &format!("cluster {action}")) {
            Ok(()) => LongCall::Done,
            Err(error) => LongCall::Failed(error),
        }),
        Err(error) if error.no_effect || error.class != ErrorClass::Retryable => Err(error),
        Err(error) => Ok(LongCall::Lost(error)),
    }
}

/// Waits until no start or stop is under way.
pub(crate) async fn settled(
    ctx: &ActivityContext,
    client: &DssClient,
    id: &str,
) -> ActivityResult<ClusterState> {
    let mut looks = 0u32;
    let mut failures = 0u32;
    loop {
        match state(client, id).await {
            Ok(state @ (ClusterState::None | ClusterState::Running)) => return Ok(state),
            Ok(state) => {
                failures = 0;
                ctx.heartbeat(json!({"state": state, "cluster": id}));
            }
            // DSS may be restarting; a few looks may fail.
            Err(error) if error.class == ErrorClass::Retryable && failures < 5 => failures += 1,
            Err(error) => return Err(error),
        }
        ctx.sleep(if looks < 10 { FIRST_POLL } else { POLL }).await?;
        looks += 1;
    }
}
