//! Groups that connections and projects refer to.
//!
//! # Idempotency
//! Groups are looked up in the list; those that exist are left as they are, whoever made them.
//! # Compensation
//! Groups whose description carries this run's mark are deleted; others stay.
//!
//! Page: <https://doc.dataiku.com/dss/latest/security/groups.html>

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{DssClient, DssTarget};
use super::document::SETTLE;
use super::mark;

/// The registered name.
pub const NAME: &str = "dss.groups";

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupsInput {
    /// Which DSS.
    pub target: DssTarget,
    /// The groups that must exist.
    pub groups: Vec<GroupSpec>,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsOutput {
    /// Their names.
    pub groups: Vec<String>,
}

/// The activity.
pub(crate) struct Groups;

async fn existing(client: &DssClient) -> ActivityResult<Vec<Value>> {
    let list = client.get(&["admin", "groups", ""]).await?;
    Ok(list.as_array().cloned().unwrap_or_default())
}

fn find<'a>(list: &'a [Value], name: &str) -> Option<&'a Value> {
    list.iter().find(|group| group["name"] == name)
}

fn output(input: &GroupsInput) -> GroupsOutput {
    GroupsOutput { groups: input.groups.iter().map(|group| group.name.clone()).collect() }
}

impl Activity for Groups {
    type Input = GroupsInput;
    type Output = GroupsOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn execute(&self, ctx: &ActivityContext, input: &GroupsInput) -> ActivityResult<GroupsOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let list = existing(&client).await?;
        for group in input.groups.iter().filter(|group| find(&list, &group.name).is_none()) {
            ctx.record_resource("dss:group", &group.name).await?;
            let description = mark::marked(&group.description, &ctx.marks());
            let body = json!({"name": group.name, "description": description, "sourceType": "LOCAL"});
            client.post(&["admin", "groups", ""], Some(&body)).await?;
        }
        Ok(output(input))
    }

    async fn probe(&self, ctx: &ActivityContext, input: &GroupsInput) -> ActivityResult<Probe<GroupsOutput>> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let list = existing(&client).await?;
        let mut owner = Owner::ThisSite(String::new());
        for group in &input.groups {
            match find(&list, &group.name) {
                None => return Ok(Probe::Absent),
                Some(found) if mark::owner_of(found, &ctx.marks()) == Owner::ThisRun => {
                    owner = Owner::ThisRun;
                }
                Some(_) => {}
            }
        }
        Ok(Probe::Present { output: output(input), owner })
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &GroupsInput,
        _recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let list = existing(&client).await?;
        let mut undo = Undo::NothingToDo;
        for group in &input.groups {
            let ours = find(&list, &group.name)
                .is_some_and(|found| mark::owner_of(found, &ctx.marks()) == Owner::ThisRun);
            if ours {
                let is_there =
                    async { existing(&client).await.map(|list| find(&list, &group.name).is_some()) };
                client.delete_known(&["admin", "groups", &group.name], &[], is_there).await?;
                undo = Undo::Undone;
            }
        }
        Ok(undo)
    }

    fn describe(&self, input: &GroupsInput) -> String {
        format!("groups {}", output(input).groups.join(", "))
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}
