//! The end of the smoke test: recipes, datasets with their data and tables, and the project, each by its name.
//!
//! # Idempotency
//! What is gone already is no error; at the end all of it is looked for once more.
//! # Compensation
//! None: it only removes what the steps before it made, and their own undo finds nothing left.
//!
//! Page: <https://developer.dataiku.com/latest/api-reference/python/projects.html>

use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect, Undo};
use serde::{Deserialize, Serialize};

use super::project::remove_project;
use super::{Location, names, remove_dataset, remove_recipe, table_place};
use crate::clients::AwsClients;
use crate::dss::client::{DssClient, DssTarget};

/// The registered name.
pub const NAME: &str = "dss.smoke-clean";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmokeCleanInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Key of the smoke test's project.
    pub project: String,
    /// Recipes, the last of the flow first.
    pub recipes: Vec<String>,
    /// Datasets, the last of the flow first.
    pub datasets: Vec<Location>,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeCleanOutput {
    /// What was removed, by name.
    pub removed: Vec<String>,
}

/// The activity.
pub(crate) struct SmokeClean;

impl Activity for SmokeClean {
    type Input = SmokeCleanInput;
    type Output = SmokeCleanOutput;

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &SmokeCleanInput,
    ) -> ActivityResult<SmokeCleanOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let aws = AwsClients::of(ctx)?;
        let key = input.project.as_str();
        let mut removed = Vec::new();
        for recipe in &input.recipes {
            if remove_recipe(&client, key, recipe).await? {
                removed.push(format!("recipe {recipe}"));
            }
        }
        for dataset in &input.datasets {
            if remove_dataset(&client, &aws, key, &dataset.name, Some(dataset.clone())).await? {
                removed.push(format!("dataset {}", dataset.name));
            }
        }
        match remove_project(ctx, &client, key).await? {
            Some(Undo::Kept { reason }) => {
                return Err(ActivityError::needs_human("SmokeKept", reason)
                    .help("somebody works in the smoke test's project: move it, then resume"));
            }
            Some(_) => removed.push(format!("project {key}")),
            None => {}
        }
        let mut left = names(&client, key, "datasets").await?;
        for dataset in &input.datasets {
            if table_place(&aws, &dataset.database, &dataset.table).await?.is_some() {
                left.push(format!("{}.{}", dataset.database, dataset.table));
            }
        }
        if left.is_empty() {
            return Ok(SmokeCleanOutput { removed });
        }
        let text = format!("after the smoke test there is still {}", left.join(", "));
        Err(ActivityError::retryable("SmokeLeft", text))
    }

    fn describe(&self, input: &SmokeCleanInput) -> String {
        format!("removal of the smoke test's {} datasets and its project", input.datasets.len())
    }
}
