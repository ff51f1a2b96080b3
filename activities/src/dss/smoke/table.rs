//! The table that DSS made in Glue of a dataset of the smoke test.
//!
//! # Idempotency
//! Reads; where the table is not there, DSS is asked once more to synchronise the dataset, which converges.
//! # Compensation
//! None here: the table goes with its dataset.
//!
//! Page: <https://docs.aws.amazon.com/glue/latest/webapi/API_GetTable.html>

use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect};
use serde::{Deserialize, Serialize};

use super::{Location, table_place};
use crate::clients::AwsClients;
use crate::dss::client::{DssClient, DssTarget};

/// The registered name.
pub const NAME: &str = "dss.smoke-table";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmokeTableInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Key of the smoke test's project.
    pub project: String,
    /// The dataset.
    pub dataset: String,
    /// Its Glue database.
    pub database: String,
    /// Its table.
    pub table: String,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeTableOutput {
    /// The query that counts its rows.
    pub count_query: String,
    /// Where its data lies.
    pub location: String,
    /// How many columns it has.
    pub columns: usize,
}

/// The activity.
pub(crate) struct SmokeTable;

impl Activity for SmokeTable {
    type Input = SmokeTableInput;
    type Output = SmokeTableOutput;

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &SmokeTableInput,
    ) -> ActivityResult<SmokeTableOutput> {
        let aws = AwsClients::of(ctx)?;
        let named = format!("{}.{}", input.database, input.table);
        let mut found = table_place(&aws, &input.database, &input.table).await?;
        if found.is_none() {
            let client = DssClient::connect(ctx, &input.target).await?;
            let path = [
                "projects",
                &input.project,
                "datasets",
                &input.dataset,
                "actions",
                "synchronizeHiveMetastore",
            ];
            client.post(&path, None).await?;
            found = table_place(&aws, &input.database, &input.table).await?;
        }
        let (location, columns) = found.ok_or_else(|| {
            ActivityError::retryable("TableMissing", format!("Glue has no table {named} after the job")).help(
                "is the metastore catalog of DSS Glue, and may the connection's credentials write to it?",
            )
        })?;
        if !Location::is_of(&input.project, &location) || columns == 0 {
            let text = format!("Glue table {named} has {columns} columns at {location:?}");
            return Err(ActivityError::retryable("TableUnfit", text).help(
                "the table is not what the job wrote: look at the dataset's metastore settings in DSS",
            ));
        }
        let count_query = format!("SELECT COUNT(*) FROM \"{}\".\"{}\"", input.database, input.table);
        Ok(SmokeTableOutput { count_query, location, columns })
    }

    fn describe(&self, input: &SmokeTableInput) -> String {
        format!("Glue table of {}", input.dataset)
    }
}
