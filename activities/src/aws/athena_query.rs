//! Runs one Athena query and waits for its rows: the proof that a pair of connections can work.
//!
//! Meant for queries that read. The result file it leaves is in the place the workgroup or the input names.

use aws_sdk_athena::types::{
    QueryExecution, QueryExecutionContext, QueryExecutionState, ResultConfiguration, Row,
};
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, ErrorClass,
};
use serde::{Deserialize, Serialize};

use super::error::{classify, incomplete};
use super::poll::{Pace, until};
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.athena.query";
/// At most so many rows are put into the output.
pub const MAX_ROWS: usize = 100;

/// What [`AthenaQuery`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AthenaQueryInput {
    /// The query.
    pub sql: String,
    /// The database it runs in.
    #[serde(default)]
    pub database: Option<String>,
    /// The catalog, when it is not `AwsDataCatalog`.
    #[serde(default)]
    pub catalog: Option<String>,
    /// The workgroup, when it is not `primary`.
    #[serde(default)]
    pub workgroup: Option<String>,
    /// Where results go, when the workgroup does not say, as `s3://bucket/path/`.
    #[serde(default)]
    pub output_location: Option<String>,
}

/// What the query gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AthenaQueryOutput {
    /// Its execution id.
    pub query_id: String,
    /// Names of its columns.
    pub columns: Vec<String>,
    /// Rows of the first page, at most [`MAX_ROWS`].
    pub rows: Vec<Vec<Option<String>>>,
    /// How many rows the first page had.
    pub row_count: usize,
}

/// The state of an execution as an answer: not yet, done, or failed.
fn judge(query: &QueryExecution) -> ActivityResult<Option<()>> {
    let status = query.status();
    let reason = status.and_then(|s| s.state_change_reason()).unwrap_or("no reason given");
    match status.and_then(|s| s.state()) {
        Some(QueryExecutionState::Succeeded) => Ok(Some(())),
        Some(QueryExecutionState::Failed) => {
            let again = status
                .and_then(|s| s.athena_error())
                .is_some_and(aws_sdk_athena::types::AthenaError::retryable);
            let class = if again { ErrorClass::Retryable } else { ErrorClass::Terminal };
            Err(ActivityError::new(class, "QueryFailed", format!("the query failed: {reason}"))
                .help("run it in the Athena console; check the output location and the rights on database and bucket")
                .no_effect())
        }
        Some(QueryExecutionState::Cancelled) => {
            Err(ActivityError::retryable("QueryCancelled", format!("the query was cancelled: {reason}"))
                .no_effect())
        }
        _ => Ok(None),
    }
}

fn cells(row: &Row) -> Vec<Option<String>> {
    row.data().iter().map(|d| d.var_char_value().map(str::to_owned)).collect()
}

/// Splits the page: Athena repeats the column names as first row of a SELECT.
fn rows_of(columns: &[String], rows: &[Row]) -> Vec<Vec<Option<String>>> {
    let mut rows: Vec<_> = rows.iter().map(cells).collect();
    let is_header = |row: &Vec<Option<String>>| {
        row.len() == columns.len()
            && row.iter().zip(columns).all(|(cell, name)| cell.as_deref() == Some(name))
    };
    if rows.first().is_some_and(is_header) {
        rows.remove(0);
    }
    rows
}

/// Runs a query and waits for it.
///
/// # Idempotency
/// Reads only. The token is the attempt's: a query that failed is asked anew and not answered by its old failure.
///
/// # Compensation
/// None.
///
/// Page: <https://docs.aws.amazon.com/athena/latest/APIReference/API_StartQueryExecution.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct AthenaQuery;

impl Activity for AthenaQuery {
    type Input = AthenaQueryInput;
    type Output = AthenaQueryOutput;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &AthenaQueryInput,
    ) -> ActivityResult<AthenaQueryOutput> {
        const START: &str = "athena:StartQueryExecution";
        let clients = AwsClients::of(ctx)?;
        let athena = clients.athena();
        let token = ctx.token(&format!("query-{}", ctx.attempt()));
        let context = QueryExecutionContext::builder()
            .set_database(input.database.clone())
            .set_catalog(input.catalog.clone())
            .build();
        let results =
            input.output_location.as_ref().map(|l| ResultConfiguration::builder().output_location(l).build());
        let started = athena
            .start_query_execution()
            .query_string(&input.sql)
            .client_request_token(token.as_str())
            .query_execution_context(context)
            .set_result_configuration(results)
            .set_work_group(input.workgroup.clone())
            .send()
            .await
            .map_err(|e| classify(START, e))?;
        let id =
            started.query_execution_id().ok_or_else(|| incomplete(START, "QueryExecutionId"))?.to_owned();
        let ended = until(ctx, Pace::QUICK, || async {
            let call = athena.get_query_execution().query_execution_id(&id).send().await;
            let answer = call.map_err(|e| classify("athena:GetQueryExecution", e))?;
            ctx.heartbeat(&id);
            answer.query_execution().map_or(Ok(None), judge)
        });
        if let Err(error) = ended.await {
            if error.class == ErrorClass::Cancelled
                && let Err(stop) = athena.stop_query_execution().query_execution_id(&id).send().await
            {
                tracing::debug!(query = %id, error = %classify("athena:StopQueryExecution", stop), "not stopped");
            }
            return Err(error);
        }
        let page = athena.get_query_results().query_execution_id(&id).send().await;
        let page = page.map_err(|e| classify("athena:GetQueryResults", e))?;
        let set = page.result_set();
        let columns: Vec<String> = set
            .and_then(|s| s.result_set_metadata())
            .map(|m| m.column_info().iter().map(|c| c.name().to_owned()).collect())
            .unwrap_or_default();
        let mut rows = rows_of(&columns, set.map(aws_sdk_athena::types::ResultSet::rows).unwrap_or_default());
        let row_count = rows.len();
        rows.truncate(MAX_ROWS);
        Ok(AthenaQueryOutput { query_id: id, columns, rows, row_count })
    }

    fn describe(&self, input: &AthenaQueryInput) -> String {
        format!("query Athena in {}", input.database.as_deref().unwrap_or("the default database"))
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_athena::types::{Datum, QueryExecutionStatus};

    use super::*;

    fn in_state(state: QueryExecutionState) -> ActivityResult<Option<()>> {
        judge(&QueryExecution::builder().status(QueryExecutionStatus::builder().state(state).build()).build())
    }

    #[test]
    fn a_query_goes_on_ends_or_fails() {
        assert_eq!(in_state(QueryExecutionState::Queued), Ok(None));
        assert_eq!(in_state(QueryExecutionState::Succeeded), Ok(Some(())));
        assert_eq!(in_state(QueryExecutionState::Failed).unwrap_err().class, ErrorClass::Terminal);
        assert_eq!(in_state(QueryExecutionState::Cancelled).unwrap_err().class, ErrorClass::Retryable);
    }

    #[test]
    fn the_header_is_no_row() {
        let row = |text: &str| Row::builder().data(Datum::builder().var_char_value(text).build()).build();
        let columns = vec!["n".to_owned()];
        assert_eq!(rows_of(&columns, &[row("n"), row("1")]), [[Some("1".to_owned())]]);
        assert_eq!(rows_of(&columns, &[row("1")]), [[Some("1".to_owned())]]);
    }
}
