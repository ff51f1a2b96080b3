//! The project of a smoke test, named after the run, on the run's cluster.
//!
//! # Idempotency
//! The key is made from run and step and looked up in the list first.
//! # Compensation
//! Deleted when its mark names this run and nothing is in it; datasets and recipes have gone before.
//!
//! Page: <https://developer.dataiku.com/latest/api-reference/python/projects.html>

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Recorded, Undo,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{KEY_PREFIX, names, project_exists};
use crate::dss::client::{DssClient, DssTarget};
use crate::dss::document::{Place, dropped_keys};
use crate::dss::{mark, tree};

/// The registered name.
pub const NAME: &str = "dss.smoke-project";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmokeProjectInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Id of the DSS cluster that is tried.
    pub cluster_id: String,
    /// The container configuration that is tried.
    pub container_config: String,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeProjectOutput {
    /// The project's key.
    pub key: String,
}

/// The activity.
pub(crate) struct SmokeProject;

/// The key, the same in every attempt of a generation.
fn key(ctx: &ActivityContext) -> String {
    let token = ctx.token("project").to_string();
    format!("{KEY_PREFIX}{}", token[..8].to_ascii_uppercase())
}

/// Deletes a project of this run in which nothing is left. `None` when it is not there or not this run's.
pub(super) async fn remove_project(
    ctx: &ActivityContext,
    client: &DssClient,
    key: &str,
) -> ActivityResult<Option<Undo>> {
    if !key.starts_with(KEY_PREFIX) || !project_exists(client, key).await? {
        return Ok(None);
    }
    let metadata = client.get(&["projects", key, "metadata"]).await?;
    let texts = ["description", "shortDesc"].map(|field| metadata[field].as_str().unwrap_or_default());
    if !texts.into_iter().any(|text| mark::owner(text, &ctx.marks()) == Owner::ThisRun) {
        return Ok(None);
    }
    for what in ["datasets", "recipes"] {
        let left = names(client, key, what).await?;
        if !left.is_empty() {
            return Ok(Some(Undo::Kept {
                reason: format!("project {key} holds {what} {}", left.join(", ")),
            }));
        }
    }
    let query = [
        ("clearManagedDatasets", "False"),
        ("clearOutputManagedFolders", "False"),
        ("clearJobAndScenarioLogs", "True"),
        ("wait", "True"),
    ];
    let path = ["projects", key];
    let delete = client.delete_known(&path, &query, project_exists(client, key));
    client.task(ctx, "deletion of the smoke test's project", delete).await?;
    if project_exists(client, key).await? {
        return Err(ActivityError::retryable("ProjectStays", format!("project {key} is still listed")));
    }
    Ok(Some(Undo::Undone))
}

impl Activity for SmokeProject {
    type Input = SmokeProjectInput;
    type Output = SmokeProjectOutput;

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &SmokeProjectInput,
    ) -> ActivityResult<SmokeProjectOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let key = key(ctx);
        ctx.record_resource("dss:project", &key).await?;
        if !project_exists(&client, &key).await? {
            let body = json!({
                "projectKey": key, "name": "dssflow smoke test", "owner": "admin", "settings": null,
                "description": mark::marked("made and removed by a run of dssflow", &ctx.marks()),
                "permissions": [], "tags": []
            });
            client.post(&["projects", ""], Some(&body)).await?;
        }
        let place = Place::Project(key.clone());
        let patch = json!({"settings": {
            "k8sCluster": {"clusterMode": "EXPLICIT_CLUSTER", "clusterId": input.cluster_id},
            "container": {"containerMode": "EXPLICIT_CONTAINER", "containerConf": input.container_config}
        }});
        let mut settings = place.read(&client).await?.unwrap_or(Value::Null);
        let changes = tree::changes(&settings, &patch);
        if !changes.is_empty() {
            tree::apply(&mut settings, &changes);
            place.write(&client, &settings).await?;
            let stored = place.read(&client).await?.unwrap_or(Value::Null);
            let dropped = tree::changes(&stored, &patch);
            if !dropped.is_empty() {
                return Err(dropped_keys(&place, &stored, &dropped));
            }
        }
        Ok(SmokeProjectOutput { key })
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &SmokeProjectInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let mut undo = Undo::NothingToDo;
        // One for each generation.
        for key in recorded.ids("dss:project") {
            undo = remove_project(ctx, &client, key).await?.unwrap_or(undo);
        }
        Ok(undo)
    }

    fn describe(&self, _input: &SmokeProjectInput) -> String {
        "a project for the smoke test".to_owned()
    }
}
