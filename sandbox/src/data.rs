//! What jobs of the fake DSS write, in the emulator: one object a row in S3, and the table in Glue.

use reqwest::Method;
use serde_json::{Value, json};

use crate::aws::Aws;
use crate::dss::backend::{BoxFuture, DataBackend, DatasetSpec};
use crate::error::SandboxError;
use crate::xml::list;

/// Writes through the proxy with the keys of the connection.
#[derive(Debug)]
pub(crate) struct Data {
    endpoint: String,
}

impl Data {
    pub(crate) fn new(proxy: &str) -> Self {
        Self { endpoint: proxy.to_owned() }
    }

    fn aws(&self, spec: &DatasetSpec) -> Aws {
        let key = if spec.access_key.is_empty() { "ASIASANDBOXROLE" } else { &spec.access_key };
        Aws::new(&self.endpoint, key)
    }

    async fn write(&self, spec: &DatasetSpec, rows: u64) -> Result<(), SandboxError> {
        let aws = self.aws(spec);
        self.clear(&aws, spec).await?;
        for row in 0..rows {
            let path = format!("/{}/{}/part-{row:05}", spec.bucket, spec.path);
            aws.s3(Method::PUT, &path, format!("{row}\n")).await?;
        }
        let Some((database, table)) = &spec.table else { return Ok(()) };
        let columns: Vec<Value> =
            spec.columns.iter().map(|(name, kind)| json!({ "Name": name, "Type": kind })).collect();
        let body = json!({ "DatabaseName": database, "TableInput": {
            "Name": table, "TableType": "EXTERNAL_TABLE", "Parameters": { "EXTERNAL": "TRUE" },
            "StorageDescriptor": { "Columns": columns, "Location": format!("s3://{}/{}", spec.bucket, spec.path) }
        }});
        match aws.json("glue", "AWSGlue.CreateTable", &body).await {
            Err(error) if error.to_string().contains("AlreadyExistsException") => {
                aws.json("glue", "AWSGlue.UpdateTable", &body).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    async fn drop_data(&self, spec: &DatasetSpec) -> Result<(), SandboxError> {
        let aws = self.aws(spec);
        self.clear(&aws, spec).await?;
        let Some((database, table)) = &spec.table else { return Ok(()) };
        let body = json!({ "DatabaseName": database, "Name": table });
        match aws.json("glue", "AWSGlue.DeleteTable", &body).await {
            Err(error) if error.to_string().contains("EntityNotFoundException") => Ok(()),
            other => other.map(drop),
        }
    }

    async fn clear(&self, aws: &Aws, spec: &DatasetSpec) -> Result<(), SandboxError> {
        for key in objects(aws, &spec.bucket, &spec.path).await? {
            aws.s3(Method::DELETE, &format!("/{}/{key}", spec.bucket), String::new()).await?;
        }
        Ok(())
    }
}

/// The keys below a path.
async fn objects(aws: &Aws, bucket: &str, path: &str) -> Result<Vec<String>, SandboxError> {
    let listed = aws.s3(Method::GET, &format!("/{bucket}?list-type=2&prefix={path}/"), String::new()).await?;
    let found = list(&listed, &["ListBucketResult", "Contents"]);
    Ok(found.into_iter().filter_map(|entry| entry["Key"].as_str()).map(str::to_owned).collect())
}

/// The rows of a table: an object each.
pub(crate) async fn rows_of(aws: &Aws, database: &str, table: &str) -> Result<usize, SandboxError> {
    let body = json!({ "DatabaseName": database, "Name": table });
    let found = aws.json("glue", "AWSGlue.GetTable", &body).await?;
    let location =
        found.pointer("/Table/StorageDescriptor/Location").and_then(Value::as_str).unwrap_or_default();
    let (bucket, path) =
        location.strip_prefix("s3://").and_then(|rest| rest.split_once('/')).unwrap_or_default();
    Ok(objects(aws, bucket, path.trim_end_matches('/')).await?.len())
}

impl DataBackend for Data {
    fn write(&self, spec: DatasetSpec, rows: u64) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.write(&spec, rows).await.map_err(|error| error.to_string()) })
    }

    fn drop_data(&self, spec: DatasetSpec) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.drop_data(&spec).await.map_err(|error| error.to_string()) })
    }
}
