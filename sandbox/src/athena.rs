//! Queries of the fake DSS on Athena connections, run in the emulator.
//!
//! moto computes nothing: each query is given one canned result, `_col0` with one row. `SELECT COUNT(*)` of a table that
//! a job of the fake DSS wrote is given its rows, of a table that is not there 0; any other SQL gets `1`, which is what
//! `SELECT 1` answers.

use std::time::Duration;

use serde_json::{Value, json};

use crate::aws::{ACCOUNT, Aws, REGION};
use crate::data::rows_of;
use crate::dss::backend::{BoxFuture, QueryBackend, QueryResult, QuerySpec, counted_table};
use crate::error::SandboxError;
use crate::xml::list;

/// Gives moto the result of the query that is started next.
pub(crate) async fn queue_result(moto: &Aws, sql: &str) -> Result<(), SandboxError> {
    let answer = match counted_table(sql) {
        Some((database, table)) => rows_of(moto, &database, &table).await.unwrap_or_default(),
        None => 1,
    };
    let row = |text: &str| json!({ "Data": [{ "VarCharValue": text }] });
    let column = json!({ "CatalogName": "hive", "SchemaName": "", "TableName": "", "Name": "_col0", "Label": "_col0",
                         "Type": "integer", "Precision": 10, "Scale": 0, "Nullable": "UNKNOWN", "CaseSensitive": false });
    let result = json!({ "rows": [row("_col0"), row(&answer.to_string())], "column_info": [column] });
    moto.moto(
        "/static/athena/query-results",
        &json!({ "account_id": ACCOUNT, "region": REGION, "results": [result] }),
    )
    .await
}

/// Runs queries through the proxy with the keys of the connection.
#[derive(Debug)]
pub(crate) struct Athena {
    endpoint: String,
}

impl Athena {
    pub(crate) fn new(proxy: &str) -> Self {
        Self { endpoint: proxy.to_owned() }
    }

    async fn run(&self, spec: QuerySpec) -> Result<QueryResult, SandboxError> {
        if spec.output_location.is_empty() && matches!(spec.workgroup.as_str(), "" | "primary") {
            return Err(SandboxError::Aws {
                operation: "athena:StartQueryExecution".to_owned(),
                detail: "No output location provided. An output location is required either through the Workgroup \
                         result configuration setting or as an API input."
                    .to_owned(),
            });
        }
        let key = if spec.access_key.is_empty() { "ASIASANDBOXROLE" } else { &spec.access_key };
        let aws = Aws::new(&self.endpoint, key);
        let mut body = json!({ "QueryString": spec.sql });
        if !spec.output_location.is_empty() {
            body["ResultConfiguration"] = json!({ "OutputLocation": spec.output_location });
        }
        if !spec.workgroup.is_empty() {
            body["WorkGroup"] = json!(spec.workgroup);
        }
        if !spec.database.is_empty() {
            body["QueryExecutionContext"] = json!({ "Database": spec.database });
        }
        let started = aws.json("athena", "AmazonAthena.StartQueryExecution", &body).await?;
        let id = json!({ "QueryExecutionId": started["QueryExecutionId"] });
        for _ in 0..200 {
            let seen = aws.json("athena", "AmazonAthena.GetQueryExecution", &id).await?;
            let status = &seen["QueryExecution"]["Status"];
            match status["State"].as_str().unwrap_or_default() {
                "SUCCEEDED" => {
                    let results = aws.json("athena", "AmazonAthena.GetQueryResults", &id).await?;
                    return Ok(result(&results));
                }
                "FAILED" | "CANCELLED" => {
                    let detail =
                        status["StateChangeReason"].as_str().unwrap_or("the query failed").to_owned();
                    return Err(SandboxError::Aws {
                        operation: "athena:StartQueryExecution".to_owned(),
                        detail,
                    });
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        Err(SandboxError::Aws {
            operation: "athena:GetQueryExecution".to_owned(),
            detail: "the query did not end".to_owned(),
        })
    }
}

impl QueryBackend for Athena {
    fn query(&self, spec: QuerySpec) -> BoxFuture<'_, Result<QueryResult, String>> {
        Box::pin(async move { self.run(spec).await.map_err(|error| error.to_string()) })
    }
}

/// The answer to `GetQueryResults`; its first row repeats the names of the columns.
fn result(results: &Value) -> QueryResult {
    let set = &results["ResultSet"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let columns: Vec<(String, String)> = list(set, &["ResultSetMetadata", "ColumnInfo"])
        .into_iter()
        .map(|column| (text(&column["Name"]), text(&column["Type"])))
        .collect();
    let rows = list(set, &["Rows"])
        .into_iter()
        .skip(1)
        .map(|row| list(row, &["Data"]).into_iter().map(|cell| text(&cell["VarCharValue"])).collect())
        .collect();
    QueryResult { columns, rows }
}
