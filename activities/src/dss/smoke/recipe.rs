//! A code recipe of the smoke test: Python in a container, or Spark on Kubernetes.
//!
//! # Idempotency
//! The name is looked up in the project's list first; its keys are compared and written only when they differ.
//! # Compensation
//! Deleted by its name.
//!
//! Page: <https://developer.dataiku.com/latest/api-reference/python/recipes.html>

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Recorded, Undo,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{names, remove_recipe};
use crate::dss::client::{DssClient, DssTarget};
use crate::dss::document::{Place, dropped_keys};
use crate::dss::tree::{self, overlaid};

/// The registered name.
pub const NAME: &str = "dss.smoke-recipe";

/// Where a recipe runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Engine {
    /// Python in a container that makes `rows` rows.
    Python {
        /// The container configuration.
        container_config: String,
        /// How many rows it makes.
        rows: u32,
    },
    /// Spark that copies its input.
    Spark {
        /// The Spark configuration.
        spark_config: String,
    },
}

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmokeRecipeInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Key of the smoke test's project.
    pub project: String,
    /// Name of the recipe.
    pub name: String,
    /// Where it runs.
    pub engine: Engine,
    /// The dataset it reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// The dataset it writes.
    pub output: String,
    /// Merged into the recipe; `null` takes a key out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Value>,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeRecipeOutput {
    /// Name of the recipe.
    pub name: String,
}

/// The activity.
pub(crate) struct SmokeRecipe;

impl SmokeRecipeInput {
    fn kind(&self) -> &'static str {
        match self.engine {
            Engine::Python { .. } => "python",
            Engine::Spark { .. } => "pyspark",
        }
    }

    fn code(&self) -> String {
        let output = &self.output;
        match &self.engine {
            Engine::Python { rows, .. } => format!(
                "import dataiku\nimport pandas\n\n\
                 dataiku.Dataset(\"{output}\").write_with_schema(pandas.DataFrame({{\"id\": range({rows})}}))\n"
            ),
            Engine::Spark { .. } => format!(
                "import dataiku\nfrom dataiku import spark as dkuspark\nfrom pyspark import SparkContext\n\
                 from pyspark.sql import SQLContext\n\n\
                 context = SQLContext(SparkContext.getOrCreate())\n\
                 rows = dkuspark.get_dataframe(context, dataiku.Dataset(\"{}\"))\n\
                 dkuspark.write_with_schema(dataiku.Dataset(\"{output}\"), rows)\n",
                self.input.as_deref().unwrap_or_default()
            ),
        }
    }

    /// The keys of the recipe that say where it runs.
    fn patch(&self) -> Value {
        let params = match &self.engine {
            Engine::Python { container_config, .. } => json!({
                "containerSelection": {"containerMode": "EXPLICIT_CONTAINER", "containerConf": container_config}
            }),
            Engine::Spark { spark_config } => json!({"sparkConfig": {"inheritConf": spark_config}}),
        };
        overlaid(json!({"params": params}), self.overlay.as_ref())
    }
}

impl Activity for SmokeRecipe {
    type Input = SmokeRecipeInput;
    type Output = SmokeRecipeOutput;

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &SmokeRecipeInput,
    ) -> ActivityResult<SmokeRecipeOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let (project, name) = (input.project.as_str(), input.name.as_str());
        if !names(&client, project, "recipes").await?.iter().any(|known| known == name) {
            ctx.record_resource("dss:recipe", format!("{project}.{name}")).await?;
            let inputs = match &input.input {
                Some(dataset) => json!({"main": {"items": [{"ref": dataset}]}}),
                None => json!({}),
            };
            let body = json!({
                "recipePrototype": {
                    "type": input.kind(), "name": name, "projectKey": project, "inputs": inputs,
                    "outputs": {"main": {"items": [{"ref": input.output, "appendMode": false}]}}
                },
                "creationSettings": {"script": input.code()}
            });
            client.post(&["projects", project, "recipes", ""], Some(&body)).await?;
        }
        let place = Place::Recipe(project.to_owned(), name.to_owned());
        let missing =
            || ActivityError::retryable("RecipeMissing", format!("recipe {project}.{name} is not there"));
        let mut stored = place.read(&client).await?.ok_or_else(missing)?;
        // The settings of a recipe are the recipe and, beside it, its code.
        let patch = json!({"recipe": input.patch(), "payload": input.code()});
        let changes = tree::changes(&stored, &patch);
        if !changes.is_empty() {
            tree::apply(&mut stored, &changes);
            place.write(&client, &stored).await?;
            let stored = place.read(&client).await?.ok_or_else(missing)?;
            let dropped = tree::changes(&stored, &patch);
            if !dropped.is_empty() {
                return Err(dropped_keys(&place, &stored, &dropped));
            }
        }
        Ok(SmokeRecipeOutput { name: name.to_owned() })
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &SmokeRecipeInput,
        _recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let gone = remove_recipe(&client, &input.project, &input.name).await?;
        Ok(if gone { Undo::Undone } else { Undo::NothingToDo })
    }

    fn describe(&self, input: &SmokeRecipeInput) -> String {
        match &input.engine {
            Engine::Python { container_config, .. } => {
                format!("Python recipe in container {container_config}")
            }
            Engine::Spark { spark_config } => format!("Spark recipe with {spark_config}"),
        }
    }
}
