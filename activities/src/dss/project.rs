//! A project that uses the cluster. One that exists is used as it is.
//!
//! # Idempotency
//! The key is looked up in the list first.
//! # Compensation
//! Deleted when its mark names this run and it holds no dataset; a project with data in it is kept.
//!
//! Page: <https://developer.dataiku.com/latest/api-reference/python/projects.html>

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{DssClient, DssTarget};
use super::document::SETTLE;
use super::mark;

/// The registered name.
pub const NAME: &str = "dss.project";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectInput {
    /// Which DSS.
    pub target: DssTarget,
    /// The project's key.
    pub key: String,
    /// Its name when it has to be made; the key without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectOutput {
    /// The project's key.
    pub key: String,
}

/// The activity.
pub(crate) struct Project;

/// Whether the project exists, and the text that may carry our mark.
async fn find(client: &DssClient, key: &str) -> ActivityResult<Option<String>> {
    if !is_listed(client, key).await? {
        return Ok(None);
    }
    let metadata = match client.get(&["projects", key, "metadata"]).await {
        // It went between the list and the look.
        Err(_) if !is_listed(client, key).await? => return Ok(None),
        metadata => metadata?,
    };
    let texts = ["description", "shortDesc"].map(|field| metadata[field].as_str().unwrap_or_default());
    Ok(Some(texts.into_iter().find(|text| text.contains("dssflow:")).unwrap_or_default().to_owned()))
}

async fn is_listed(client: &DssClient, key: &str) -> ActivityResult<bool> {
    let list = client.get(&["projects", ""]).await?;
    Ok(list.as_array().is_some_and(|projects| projects.iter().any(|project| project["projectKey"] == key)))
}

impl Activity for Project {
    type Input = ProjectInput;
    type Output = ProjectOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn execute(&self, ctx: &ActivityContext, input: &ProjectInput) -> ActivityResult<ProjectOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        if find(&client, &input.key).await?.is_none() {
            ctx.record_resource("dss:project", &input.key).await?;
            let body = json!({
                "projectKey": input.key, "name": input.name.as_deref().unwrap_or(&input.key), "owner": "admin",
                "settings": null, "description": mark::marked("", &ctx.marks()), "permissions": [], "tags": []
            });
            client.post(&["projects", ""], Some(&body)).await?;
        }
        Ok(ProjectOutput { key: input.key.clone() })
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &ProjectInput,
    ) -> ActivityResult<Probe<ProjectOutput>> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let Some(text) = find(&client, &input.key).await? else { return Ok(Probe::Absent) };
        // The site names projects to use, whoever made them: a foreign one is adopted, and never deleted.
        let owner = match mark::owner(&text, &ctx.marks()) {
            Owner::Foreign => Owner::ThisSite(String::new()),
            owner => owner,
        };
        Ok(Probe::Present { output: ProjectOutput { key: input.key.clone() }, owner })
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &ProjectInput,
        _recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let Some(text) = find(&client, &input.key).await? else { return Ok(Undo::NothingToDo) };
        if mark::owner(&text, &ctx.marks()) != Owner::ThisRun {
            return Ok(Undo::NothingToDo);
        }
        let datasets = ["projects", &input.key, "datasets", ""];
        let datasets = match client.get_with(&datasets, &[("foreign", "False")]).await {
            // Another attempt was faster.
            Err(_) if !is_listed(&client, &input.key).await? => return Ok(Undo::Undone),
            datasets => datasets?,
        };
        let count = datasets.as_array().map_or(0, Vec::len);
        if count > 0 {
            return Ok(Undo::Kept { reason: format!("project {} holds {count} datasets", input.key) });
        }
        let query = [
            ("clearManagedDatasets", "False"),
            ("clearOutputManagedFolders", "False"),
            ("clearJobAndScenarioLogs", "True"),
            ("wait", "True"),
        ];
        let path = ["projects", input.key.as_str()];
        let delete = client.delete_known(&path, &query, is_listed(&client, &input.key));
        client.task(ctx, "project deletion", delete).await?;
        Ok(Undo::Undone)
    }

    fn describe(&self, input: &ProjectInput) -> String {
        format!("project {}", input.key)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}
