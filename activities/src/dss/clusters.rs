//! What the cluster activities share: definitions, their state, and the two calls that take a quarter of an hour.

use std::time::Duration;

use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult, ErrorClass, Marks, Owner};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::DssClient;
use super::mark;
use super::reply::Trouble;

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
            match read(client, id).await {
                // It went between the list and the look.
                Err(_) if !is_listed(client, id).await? => {}
                definition => found.push(definition?),
            }
        }
    }
    Ok(found)
}

/// The definition with this id, looked up in the list.
pub(crate) async fn by_id(client: &DssClient, id: &str) -> ActivityResult<Option<Definition>> {
    if !is_listed(client, id).await? {
        return Ok(None);
    }
    match read(client, id).await {
        Err(_) if !is_listed(client, id).await? => Ok(None),
        definition => definition.map(Some),
    }
}

async fn is_listed(client: &DssClient, id: &str) -> ActivityResult<bool> {
    let list = client.get(&["admin", "clusters", ""]).await?;
    Ok(list.as_array().is_some_and(|items| items.iter().any(|item| item["id"] == id)))
}

/// Deletes a definition.
pub(crate) async fn delete(client: &DssClient, id: &str) -> ActivityResult<()> {
    let path = ["admin", "clusters", id];
    client.delete_known(&path, &[], is_listed(client, id)).await.map(drop)
}

async fn read(client: &DssClient, id: &str) -> ActivityResult<Definition> {
    Ok(Definition { id: id.to_owned(), settings: client.get(&["admin", "clusters", id]).await? })
}

/// Creates a definition and gives its id. An attempt that finds afterwards that another one of this step has made an
/// earlier one takes its own back and gives that.
pub(crate) async fn define(
    ctx: &ActivityContext,
    client: &DssClient,
    name: &str,
    body: &Value,
) -> ActivityResult<String> {
    let reply = client.post(&["admin", "clusters", ""], Some(body)).await?;
    let id = reply["id"]
        .as_str()
        .ok_or_else(|| ActivityError::retryable("ClusterId", "DSS gave no id for the new cluster"))?;
    let marks = ctx.marks();
    let ours = named(client, name).await?.into_iter().filter(|it| it.owner(&marks) == Owner::ThisRun);
    // DSS makes the second of a name by a number behind it. All attempts must agree on which one is the first.
    let first = ours.map(|it| it.id).min_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    let first = first.unwrap_or_else(|| id.to_owned());
    if first != id {
        delete(client, id).await?;
    }
    ctx.record_resource(DEFINITION, &first).await?;
    Ok(first)
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
/// A connection can die without a word: DSS's state is looked at beside it, and when that has stood at the end for
/// some looks, the reply is given up. It is never asked a second time here.
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
    let mut silence = Silence::default();
    let reply = loop {
        tokio::select! {
            reply = &mut call => break reply,
            slept = ctx.sleep(POLL) => slept?,
        }
        // DSS may be too busy to say; the reply is what is waited for.
        let seen = state(client, id).await.ok();
        ctx.heartbeat(json!({"action": action, "cluster": id, "state": seen}));
        if silence.is_final(seen) {
            return Ok(LongCall::Lost(ActivityError::retryable(
                "DssNoReply",
                format!("cluster {action}: DSS shows {seen:?} for {id} and does not answer the call"),
            )));
        }
    };
    match reply {
        Ok(_) => Ok(LongCall::Done),
        Err(Trouble::Said(error)) => Ok(LongCall::Failed(error)),
        Err(Trouble::Call(error)) if error.no_effect || error.class != ErrorClass::Retryable => Err(error),
        Err(Trouble::Call(error)) => Ok(LongCall::Lost(error)),
    }
}

/// Tells a call that takes its time from one whose reply will never come.
#[derive(Debug, Default)]
struct Silence {
    moved: bool,
    still: u32,
}

impl Silence {
    /// Looks at an end state after which no reply is expected any more.
    const LOOKS: u32 = 6;
    /// The same when no start or stop was seen at all: it may not have begun.
    const LOOKS_UNMOVED: u32 = 60;

    fn is_final(&mut self, seen: Option<ClusterState>) -> bool {
        match seen {
            Some(ClusterState::Starting | ClusterState::Stopping) => {
                self.moved = true;
                self.still = 0;
            }
            Some(ClusterState::None | ClusterState::Running) => self.still += 1,
            // Nothing was seen: neither the one nor the other.
            None => {}
        }
        self.still >= if self.moved { Self::LOOKS } else { Self::LOOKS_UNMOVED }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_given_up_only_when_the_state_has_come_to_rest() {
        let mut silence = Silence::default();
        assert!((0..1000).all(|_| !silence.is_final(Some(ClusterState::Starting))));
        assert!((0..5).all(|_| !silence.is_final(Some(ClusterState::Running))));
        assert!(!silence.is_final(None), "a look that failed says nothing");
        assert!(silence.is_final(Some(ClusterState::Running)));
        let mut silence = Silence::default();
        let looks = (1..1000).find(|_| silence.is_final(Some(ClusterState::None)));
        assert_eq!(looks, Some(60), "five minutes for a start that DSS never shows");
    }
}
