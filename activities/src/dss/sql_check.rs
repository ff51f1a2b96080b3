//! A query through DSS, as `SELECT 1` on an Athena connection.
//!
//! # Idempotency
//! Reads only. A query whose reply was lost is asked again.
//!
//! Page: <https://developer.dataiku.com/latest/api-reference/python/sql.html>

use std::time::Duration;

use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{DssClient, DssTarget};
use super::reply::{Trouble, clipped};

/// The registered name.
pub const NAME: &str = "dss.sql-check";
/// How long the first rows may take: Athena queues queries.
const QUERY_TIMEOUT: Duration = Duration::from_mins(5);

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlCheckInput {
    /// Which DSS.
    pub target: DssTarget,
    /// The connection.
    pub connection: String,
    /// The query.
    #[serde(default = "select_one")]
    pub query: String,
    /// What its one value must be; anything without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
}

fn select_one() -> String {
    "SELECT 1".to_owned()
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlCheckOutput {
    /// The connection.
    pub connection: String,
    /// Rows of the answer.
    pub rows: u64,
}

/// The activity.
pub(crate) struct SqlCheck;

impl Activity for SqlCheck {
    type Input = SqlCheckInput;
    type Output = SqlCheckOutput;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, ctx: &ActivityContext, input: &SqlCheckInput) -> ActivityResult<SqlCheckOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let body = json!({
            "query": input.query, "connection": input.connection, "type": "sql", "preQueries": null,
            "postQueries": null, "database": null, "datasetFullName": null, "projectKey": null, "extraConf": {}
        });
        let reply = client.post_long(&["sql", "queries", ""], &[], Some(&body), QUERY_TIMEOUT).await;
        let reply = reply.map_err(|trouble: Trouble| trouble.into_error().no_effect())?;
        let id = reply["queryId"].as_str().ok_or_else(|| {
            ActivityError::retryable("SqlCheck", format!("the query on {} got no id", input.connection))
                .no_effect()
        })?;
        let format = [("format", "tsv-excel-noheader")];
        let text = client.get_with(&["sql", "queries", id, "stream"], &format).await?;
        // Errors of a query that had begun to answer show only here.
        client.get(&["sql", "queries", id, "finish-streaming"]).await?;
        // One row of one number or word is JSON as well.
        let text = match text {
            Value::String(text) => text,
            Value::Null => String::new(),
            other => other.to_string(),
        };
        if let Some(expected) = &input.expect
            && text.trim() != expected
        {
            let message = format!(
                "{} on {} gave {:?}, not {expected}",
                input.query,
                input.connection,
                clipped(text.trim())
            );
            return Err(ActivityError::retryable("SqlAnswer", message).no_effect());
        }
        let rows = text.lines().count();
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        Ok(SqlCheckOutput { connection: input.connection.clone(), rows })
    }

    fn describe(&self, input: &SqlCheckInput) -> String {
        format!("{} through connection {}", input.query, input.connection)
    }
}
