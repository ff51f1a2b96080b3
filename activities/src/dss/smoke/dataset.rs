//! A managed dataset of the smoke test, synchronised to Glue.
//!
//! # Idempotency
//! The name is looked up in the project's list first; its keys are compared and written only when they differ.
//! # Compensation
//! Deleted with its data; a table in Glue that points into the project, and objects left below its path, go too.
//!
//! Page: <https://developer.dataiku.com/latest/concepts-and-examples/datasets/datasets-other.html>

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Recorded, Undo,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Location, names, remove_dataset};
use crate::clients::AwsClients;
use crate::dss::client::{DssClient, DssTarget};
use crate::dss::document::{Place, dropped_keys};
use crate::dss::tree;

/// The registered name.
pub const NAME: &str = "dss.smoke-dataset";
/// A format that Athena reads without being told more.
const FORMAT: &str = "PARQUET_HIVE";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmokeDatasetInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Key of the smoke test's project.
    pub project: String,
    /// Name of the dataset.
    pub name: String,
    /// The S3 connection it is on.
    pub connection: String,
    /// The Glue database it is synchronised to.
    pub glue_database: String,
}

/// The activity.
pub(crate) struct SmokeDataset;

impl SmokeDatasetInput {
    fn place(&self) -> Place {
        Place::Dataset(self.project.clone(), self.name.clone())
    }
}

impl Activity for SmokeDataset {
    type Input = SmokeDatasetInput;
    type Output = Location;

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    async fn execute(&self, ctx: &ActivityContext, input: &SmokeDatasetInput) -> ActivityResult<Location> {
        let client = DssClient::connect(ctx, &input.target).await?;
        if !names(&client, &input.project, "datasets").await?.contains(&input.name) {
            ctx.record_resource("dss:dataset", format!("{}.{}", input.project, input.name)).await?;
            let body = json!({"name": input.name, "creationSettings": {
                "connectionId": input.connection, "specificSettings": {"formatOptionId": FORMAT}
            }});
            client.post(&["projects", &input.project, "datasets", "managed"], Some(&body)).await?;
        }
        let place = input.place();
        let missing = || {
            let text = format!("dataset {}.{} is not there after its creation", input.project, input.name);
            ActivityError::retryable("DatasetMissing", text)
        };
        let mut settings = place.read(&client).await?.ok_or_else(missing)?;
        let table = format!("{}_{}", input.project, input.name).to_lowercase();
        let patch = json!({"params": {
            "metastoreSynchronizationEnabled": true, "metastoreDatabaseName": input.glue_database,
            "metastoreTableName": table
        }});
        let changes = tree::changes(&settings, &patch);
        if !changes.is_empty() {
            tree::apply(&mut settings, &changes);
            place.write(&client, &settings).await?;
            settings = place.read(&client).await?.ok_or_else(missing)?;
            let dropped = tree::changes(&settings, &patch);
            if !dropped.is_empty() {
                return Err(dropped_keys(&place, &settings, &dropped));
            }
        }
        Ok(Location::of(&input.project, &input.name, &settings))
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &SmokeDatasetInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let known = recorded.output_as::<Location>();
        let aws = AwsClients::of(ctx)?;
        let gone = remove_dataset(&client, &aws, &input.project, &input.name, known).await?;
        Ok(if gone { Undo::Undone } else { Undo::NothingToDo })
    }

    fn describe(&self, input: &SmokeDatasetInput) -> String {
        format!("dataset {} on {}", input.name, input.connection)
    }
}
