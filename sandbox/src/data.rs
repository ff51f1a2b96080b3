//! What the fake DSS does to data, in the emulator: its jobs write one object a row to S3, and its synchronisation writes
//! tables and partitions to Glue, without asking what was there: the last writer wins.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::aws::Aws;
use crate::dss::backend::{BoxFuture, DataBackend, DatasetSpec, MetastoreTable};
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
        self.acting_as(&spec.access_key)
    }

    fn acting_as(&self, access_key: &str) -> Aws {
        let key = if access_key.is_empty() { "ASIASANDBOXROLE" } else { access_key };
        Aws::new(&self.endpoint, key)
    }

    async fn write(&self, spec: &DatasetSpec, rows: u64) -> Result<(), SandboxError> {
        let aws = self.aws(spec);
        self.clear(&aws, spec).await?;
        for row in 0..rows {
            let path = format!("/{}/{}/part-{row:05}", spec.bucket, spec.path);
            aws.s3(Method::PUT, &path, format!("{row}\n")).await?;
        }
        Ok(())
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

impl Data {
    /// The partitions that lie in S3, with their paths below the table's.
    async fn lying(aws: &Aws, table: &MetastoreTable) -> Result<BTreeMap<Vec<String>, String>, SandboxError> {
        let mut found = BTreeMap::new();
        let root = format!("{}/", table.path);
        for key in objects(aws, &table.bucket, &table.path).await? {
            let below = key.strip_prefix(&root).unwrap_or_default();
            if let Some((values, directory)) = partition_of(table, below) {
                found.insert(values, directory);
            }
        }
        Ok(found)
    }

    async fn tell(&self, table: &MetastoreTable) -> Result<(), SandboxError> {
        let aws = self.acting_as(&table.access_key);
        let location = format!("s3://{}/{}", table.bucket, table.path);
        let keys: Vec<Value> =
            table.keys.iter().map(|key| json!({ "Name": key, "Type": "string" })).collect();
        let body = json!({ "DatabaseName": table.database, "TableInput": {
            "Name": table.table, "TableType": "EXTERNAL_TABLE", "Parameters": table.parameters,
            "PartitionKeys": keys, "StorageDescriptor": stored(table, &location)
        }});
        match aws.json("glue", "AWSGlue.CreateTable", &body).await {
            Err(error) if error.to_string().contains("AlreadyExistsException") => {
                aws.json("glue", "AWSGlue.UpdateTable", &body).await?;
            }
            other => drop(other?),
        }
        if table.keys.is_empty() {
            return Ok(());
        }
        let lying = Self::lying(&aws, table).await?;
        let named = json!({ "DatabaseName": table.database, "TableName": table.table });
        let known = aws.json("glue", "AWSGlue.GetPartitions", &named).await?;
        let known: BTreeMap<Vec<String>, Value> = list(&known, &["Partitions"])
            .into_iter()
            .map(|partition| {
                let values = partition["Values"].as_array().map_or(&[][..], Vec::as_slice);
                let values = values.iter().filter_map(|v| v.as_str()).map(str::to_owned).collect();
                (values, partition["StorageDescriptor"].clone())
            })
            .collect();
        let mut gone: Vec<&Vec<String>> =
            known.keys().filter(|values| table.removes && !lying.contains_key(*values)).collect();
        let mut new = Vec::new();
        for (values, directory) in &lying {
            let storage = stored(table, &format!("{location}/{directory}"));
            match known.get(values) {
                Some(was)
                    if was["Location"] == storage["Location"] && was["Columns"] == storage["Columns"] => {}
                was => {
                    gone.extend(was.map(|_| values));
                    new.push(json!({ "Values": values, "StorageDescriptor": storage }));
                }
            }
        }
        for some in gone.chunks(25) {
            let mut body = named.clone();
            body["PartitionsToDelete"] = some.iter().map(|values| json!({ "Values": values })).collect();
            aws.json("glue", "AWSGlue.BatchDeletePartition", &body).await?;
        }
        for some in new.chunks(100) {
            let mut body = named.clone();
            body["PartitionInputList"] = json!(some);
            aws.json("glue", "AWSGlue.BatchCreatePartition", &body).await?;
        }
        Ok(())
    }
}

fn stored(table: &MetastoreTable, location: &str) -> Value {
    let columns: Vec<Value> =
        table.columns.iter().map(|(name, kind)| json!({ "Name": name, "Type": kind })).collect();
    let [input, output, serde] = &table.classes;
    json!({
        "Columns": columns, "Location": location, "InputFormat": input, "OutputFormat": output, "Compressed": false,
        "SerdeInfo": { "SerializationLibrary": serde, "Parameters": table.serde_parameters }
    })
}

/// The partition that a file belongs to, by its path below the table's: values, and the partition's directory.
fn partition_of(table: &MetastoreTable, path: &str) -> Option<(Vec<String>, String)> {
    let pattern = table.pattern.trim_start_matches('/').strip_suffix("/.*")?;
    let wanted: Vec<&str> = pattern.split('/').collect();
    let parts: Vec<&str> = path.split('/').collect();
    // The last one is the file.
    if parts.len() <= wanted.len() {
        return None;
    }
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for (wanted, part) in wanted.iter().zip(&parts) {
        take(wanted, part, &mut known)?;
    }
    let time = || {
        let units: Option<Vec<&str>> = ["%Y", "%M", "%D", "%H"][..table.time_units]
            .iter()
            .map(|u| known.get(*u).map(String::as_str))
            .collect();
        units.map(|units| units.join("-"))
    };
    let value = |key: &String| if *key == table.time_key { time() } else { known.get(key).cloned() };
    let values: Option<Vec<String>> = table.keys.iter().map(value).collect();
    Some((values?, parts[..wanted.len()].join("/")))
}

/// Reads what a directory's pattern says out of its name.
fn take(mut pattern: &str, mut name: &str, known: &mut BTreeMap<String, String>) -> Option<()> {
    while !pattern.is_empty() {
        let (key, width) = match pattern.as_bytes() {
            [b'%', b'{', ..] => {
                let end = pattern.find('}')?;
                let key = pattern[2..end].to_lowercase();
                pattern = &pattern[end + 1..];
                let next = pattern.chars().next();
                (key, next.map_or(Some(name.len()), |next| name.find(next))?)
            }
            [b'%', unit, ..] => {
                let key = pattern[..2].to_owned();
                let width = if *unit == b'Y' { 4 } else { 2 };
                pattern = &pattern[2..];
                (key, width)
            }
            [first, ..] => {
                name = name.strip_prefix(char::from(*first))?;
                pattern = &pattern[1..];
                continue;
            }
            [] => break,
        };
        let value = name.get(..width).filter(|value| !value.is_empty())?;
        known.insert(key, value.to_owned());
        name = &name[width..];
    }
    name.is_empty().then_some(())
}

/// The keys below a path.
async fn objects(aws: &Aws, bucket: &str, path: &str) -> Result<Vec<String>, SandboxError> {
    let mut keys = Vec::new();
    let mut after = String::new();
    loop {
        let query =
            format!("/{bucket}?list-type=2&prefix={}/&start-after={}", encoded(path), encoded(&after));
        let listed = aws.s3(Method::GET, &query, String::new()).await?;
        let found = list(&listed, &["ListBucketResult", "Contents"]);
        keys.extend(found.into_iter().filter_map(|entry| entry["Key"].as_str()).map(str::to_owned));
        match keys.last() {
            Some(last) if *last != after && listed["ListBucketResult"]["IsTruncated"] == "true" => {
                after.clone_from(last);
            }
            _ => return Ok(keys),
        }
    }
}

/// A text as a value in a query.
fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/=:".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
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

    fn partitions(&self, table: MetastoreTable) -> BoxFuture<'_, Result<Vec<Vec<String>>, String>> {
        Box::pin(async move {
            let found = Self::lying(&self.acting_as(&table.access_key), &table).await;
            found.map(|found| found.into_keys().collect()).map_err(|error| error.to_string())
        })
    }

    fn synchronize(&self, table: MetastoreTable) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.tell(&table).await.map_err(|error| error.to_string()) })
    }

    fn drop_data(&self, spec: DatasetSpec) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.drop_data(&spec).await.map_err(|error| error.to_string()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_the_partition_of_its_directories() {
        let table = |pattern: &str, keys: &[&str], time_key: &str, time_units| MetastoreTable {
            pattern: pattern.to_owned(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            time_key: time_key.to_owned(),
            time_units,
            ..MetastoreTable::default()
        };
        let of = |table: &MetastoreTable, path: &str| {
            partition_of(table, path).map(|(values, _)| values.join("|"))
        };
        let two = table("/%Y-%M-%D/c=%{Country}/.*", &["day", "country"], "day", 3);
        assert_eq!(of(&two, "2020-01-02/c=IT/part-0").as_deref(), Some("2020-01-02|IT"));
        assert_eq!(of(&two, "2020-01-02/c=IT/sub/part-0").as_deref(), Some("2020-01-02|IT"));
        assert_eq!(of(&two, "2020-01/c=IT/part-0"), None);
        assert_eq!(of(&two, "2020-01-02/part-0"), None);
        let one = table("%{x}-eu/.*", &["x"], "", 0);
        assert_eq!(of(&one, "a-eu/f").as_deref(), Some("a"));
        assert_eq!(of(&one, "a-us/f"), None);
    }
}
