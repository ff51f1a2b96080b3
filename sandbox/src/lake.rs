//! Data for the fake DSS: datasets with files in S3, as a project's recipes would have made them, and a person who then
//! changes tables in Glue by hand. It is what `glue-resync` has something to do with.
//!
//! Both act on moto directly, so that they count as nobody's calls, and both may be done again: what is there is made
//! anew, and what was changed already is changed no further.

use std::collections::BTreeMap;

use reqwest::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::aws::Aws;
use crate::dss::FakeDss;
use crate::dss::backend::MetastoreTable;
use crate::error::SandboxError;

/// How many datasets there may be.
pub const MOST_DATASETS: u16 = 1_000;
/// Names of the datasets begin so.
const SAMPLE: &str = "sample_";
/// Every so many datasets one has partitions.
const PARTITIONED: u16 = 3;
/// The partitions of a dataset that has some.
const COUNTRIES: [&str; 3] = ["at", "de", "fr"];
/// A table of somebody else beside them.
const FOREIGN: &str = "handmade";

/// A dataset that was put into DSS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SampleDataset {
    /// `PROJECT.name`.
    pub dataset: String,
    /// `database.table`, to which DSS synchronises it; nothing has made that table.
    pub table: String,
    /// Where its files are, `s3://bucket/path`.
    pub location: String,
    /// How many partitions it has; 0 when it has none by design.
    pub partitions: usize,
}

/// A change to Glue that a person could have made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GlueChange {
    /// `database.table`.
    pub table: String,
    /// What was done to it, in a few words.
    pub change: String,
}

/// A refusal: what there has to be first.
fn first(what: &str, command: &str) -> SandboxError {
    SandboxError::TooEarly { what: what.to_owned(), command: command.to_owned() }
}

/// Puts `count` datasets into the first project, on an S3 connection that is synchronised to a metastore.
pub(crate) async fn fill(
    dss: Option<&FakeDss>,
    moto: &Aws,
    count: u16,
) -> Result<Vec<SampleDataset>, SandboxError> {
    let nothing = || {
        first(
            "no DSS with a project and a synchronised S3 connection is in the sandbox",
            "dssflow run bootstrap --sandbox",
        )
    };
    let dss = dss.ok_or_else(nothing)?;
    let (project, connection, kept) = dss.place_for_data().ok_or_else(nothing)?;
    let datasets: BTreeMap<String, Value> =
        (1..=count).map(|n| (format!("{SAMPLE}{n}"), dataset(&project, &connection, &kept, n))).collect();
    dss.put_datasets(&project, datasets);
    let mut made = Vec::new();
    for n in 1..=count {
        let name = format!("{SAMPLE}{n}");
        let Some(table) = dss.table_of(&project, &name) else { continue };
        let partitions = if n.is_multiple_of(PARTITIONED) { &COUNTRIES[..] } else { &[] };
        let mut files: Vec<String> = partitions.iter().map(|country| format!("{country}/part-0")).collect();
        if files.is_empty() {
            files.push("part-0".to_owned());
        }
        for file in files {
            let path = format!("/{}/{}/{file}.parquet", table.bucket, table.path);
            moto.s3(Method::PUT, &path, "rows".to_owned()).await?;
        }
        made.push(SampleDataset {
            dataset: format!("{project}.{name}"),
            table: format!("{}.{}", table.database, table.table),
            location: format!("s3://{}/{}", table.bucket, table.path),
            partitions: partitions.len(),
        });
    }
    Ok(made)
}

fn dataset(project: &str, connection: &str, kept: &str, n: u16) -> Value {
    let name = format!("{SAMPLE}{n}");
    let partitioning = if n.is_multiple_of(PARTITIONED) {
        json!({
            "dimensions": [{"name": "country", "type": "value", "params": {}}], "filePathPattern": "%{country}/.*"
        })
    } else {
        json!({"dimensions": []})
    };
    json!({
        "projectKey": project, "name": name, "type": "S3", "managed": true, "formatType": "parquet",
        "formatParams": {}, "partitioning": partitioning,
        "params": {
            "connection": connection, "path": format!("/{kept}/{project}/{name}"),
            "metastoreSynchronizationEnabled": true, "metastoreTableName": format!("${{projectKey}}_{name}")
        },
        "schema": {"userModified": false, "columns": [
            {"name": "id", "type": "bigint"}, {"name": "amount", "type": "double"}, {"name": "note", "type": "string"}
        ]}
    })
}

/// Changes up to `count` tables of sample datasets: a type, a table that is gone, a partition that is gone, in turns; and
/// makes a table that is nobody's.
pub(crate) async fn spoil(
    dss: Option<&FakeDss>,
    moto: &Aws,
    count: u16,
) -> Result<Vec<GlueChange>, SandboxError> {
    let none = || first("the sandbox's DSS has no sample dataset", "dssflow sandbox datasets");
    let dss = dss.ok_or_else(none)?;
    let tables = dss.tables_of(|name| name.starts_with(SAMPLE));
    let Some(of_all) = tables.first().map(|table| table.database.clone()) else { return Err(none()) };
    let mut changes = Vec::new();
    for table in &tables {
        if changes.len() == usize::from(count) {
            break;
        }
        let Some(found) = glue_table(moto, table).await? else { continue };
        let change = if table.keys.is_empty() {
            if changes.len().is_multiple_of(2) {
                retype(moto, table, found).await?
            } else {
                drop_table(moto, table).await?
            }
        } else {
            drop_partition(moto, table).await?
        };
        let name = format!("{}.{}", table.database, table.table);
        changes.extend(change.map(|change| GlueChange { table: name, change }));
    }
    if changes.is_empty() {
        return Err(first(
            "no table of a sample dataset is in Glue that could be changed",
            "dssflow run glue-resync --sandbox",
        ));
    }
    if make_foreign(moto, &of_all).await? {
        let table = format!("{of_all}.{FOREIGN}");
        changes.push(GlueChange { table, change: "made, a table that no dataset names".to_owned() });
    }
    Ok(changes)
}

async fn glue_table(moto: &Aws, table: &MetastoreTable) -> Result<Option<Value>, SandboxError> {
    let body = json!({ "DatabaseName": table.database, "Name": table.table });
    match moto.json("glue", "AWSGlue.GetTable", &body).await {
        Ok(found) => Ok(Some(found["Table"].clone())),
        Err(error) if error.to_string().contains("EntityNotFoundException") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Another type for the first column.
async fn retype(
    moto: &Aws,
    table: &MetastoreTable,
    mut found: Value,
) -> Result<Option<String>, SandboxError> {
    let column = &mut found["StorageDescriptor"]["Columns"][0];
    let (name, was) = (column["Name"].clone(), column["Type"].clone());
    if was == "string" {
        return Ok(None);
    }
    column["Type"] = json!("string");
    let kept = ["Name", "TableType", "Parameters", "PartitionKeys", "StorageDescriptor"];
    let input: Value = kept
        .into_iter()
        .filter(|key| !found[*key].is_null())
        .map(|key| (key.to_owned(), found[key].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let body = json!({ "DatabaseName": table.database, "TableInput": input });
    moto.json("glue", "AWSGlue.UpdateTable", &body).await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(Some(format!("column {} is a string now, was {}", text(&name), text(&was))))
}

async fn drop_table(moto: &Aws, table: &MetastoreTable) -> Result<Option<String>, SandboxError> {
    let body = json!({ "DatabaseName": table.database, "Name": table.table });
    moto.json("glue", "AWSGlue.DeleteTable", &body).await?;
    Ok(Some("deleted".to_owned()))
}

/// One partition less.
async fn drop_partition(moto: &Aws, table: &MetastoreTable) -> Result<Option<String>, SandboxError> {
    let body = json!({ "DatabaseName": table.database, "TableName": table.table });
    let found = moto.json("glue", "AWSGlue.GetPartitions", &body).await?;
    let Some(values) = found["Partitions"].get(0).map(|partition| partition["Values"].clone()) else {
        return Ok(None);
    };
    let body = json!({
        "DatabaseName": table.database, "TableName": table.table, "PartitionsToDelete": [{ "Values": values }]
    });
    moto.json("glue", "AWSGlue.BatchDeletePartition", &body).await?;
    let values: Vec<&str> = values.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    Ok(Some(format!("partition {} is gone", values.join("/"))))
}

/// True when it was not there.
async fn make_foreign(moto: &Aws, database: &str) -> Result<bool, SandboxError> {
    let body = json!({ "DatabaseName": database, "TableInput": {
        "Name": FOREIGN, "TableType": "EXTERNAL_TABLE",
        "StorageDescriptor": { "Columns": [{ "Name": "line", "Type": "string" }], "Location": "s3://somebody-else/table" }
    }});
    match moto.json("glue", "AWSGlue.CreateTable", &body).await {
        Ok(_) => Ok(true),
        Err(error) if error.to_string().contains("AlreadyExistsException") => Ok(false),
        Err(error) => Err(error),
    }
}
