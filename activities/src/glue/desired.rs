//! The table that a dataset of DSS wants to have, from the dataset's own settings. Pure: what DSS and its connection say
//! comes in as values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::format::{self, Storage};
use super::pattern::Pattern;
use super::table::{Column, place};
use super::types::{self, Types, Wanted};

/// The type of S3 connections in DSS.
pub const S3_CONNECTION: &str = "EC2";
/// The type of datasets on them.
pub const S3_DATASET: &str = "S3";
/// The most columns of a dataset; Glue's own limit is the size of a request.
const MAX_COLUMNS: usize = 10_000;

/// A column that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedColumn {
    /// Its name, in lower case.
    pub name: String,
    /// Its type.
    pub wanted: Wanted,
}

impl WantedColumn {
    /// The column as it is made.
    pub fn preferred(&self) -> Column {
        Column { name: self.name.clone(), kind: self.wanted.kind.clone() }
    }
}

/// A table as a dataset wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The dataset, as `PROJECT.name`.
    pub dataset: String,
    /// Its columns.
    pub columns: Vec<WantedColumn>,
    /// Its partition keys.
    pub keys: Vec<Column>,
    /// Where its files are.
    pub location: String,
    /// How they are read.
    pub storage: Storage,
    /// How they lie in partitions.
    pub pattern: Option<Pattern>,
}

/// What matters of an S3 connection of DSS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionPlace {
    /// The bucket it is restricted to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bucket: String,
    /// The path all of its paths are below.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub root: String,
    /// Where managed datasets go, as `s3://bucket/path`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub managed: String,
    /// The Glue database of datasets that name none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub database: String,
}

impl ConnectionPlace {
    /// Reads it from a connection's definition. The database that a site names for it wins over DSS's own.
    pub fn of(connection: &Value, database: Option<&str>) -> Self {
        let params = &connection["params"];
        let text = |key: &str| params[key].as_str().unwrap_or_default().trim_matches('/').to_owned();
        let (bucket, root) = (text("chbucket"), text("chroot"));
        let managed_bucket = if text("defaultManagedBucket").is_empty() {
            bucket.clone()
        } else {
            text("defaultManagedBucket")
        };
        let below = joined(&root, &text("defaultManagedPath"));
        let managed = if managed_bucket.is_empty() {
            String::new()
        } else {
            place(&format!("s3://{managed_bucket}/{below}"))
        };
        let database = database.map_or_else(|| text("metastoreDatabaseName"), str::to_owned).to_lowercase();
        Self { bucket, root, managed, database }
    }

    /// Whether a place is where this connection keeps managed datasets.
    pub fn holds(&self, location: &str) -> bool {
        !self.managed.is_empty()
            && location
                .strip_prefix(&self.managed)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// A path below another, which it may contain already.
fn joined(root: &str, path: &str) -> String {
    let path = path.trim_matches('/');
    match (root.is_empty(), path.is_empty()) {
        (true, _) => path.to_owned(),
        (false, true) => root.to_owned(),
        (false, false) if path == root || path.starts_with(&format!("{root}/")) => path.to_owned(),
        (false, false) => format!("{root}/{path}"),
    }
}

/// The variables that may stand in a dataset's settings, as `${name}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Those of a project: its own key, then what is set for it, then what is set for all.
    pub fn of(project: &str, own: &Value, global: &Value) -> Self {
        let mut all = BTreeMap::new();
        for set in [global, &own["standard"], &own["local"]] {
            for (name, value) in set.as_object().into_iter().flatten() {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                all.insert(name.clone(), text);
            }
        }
        all.insert("projectKey".to_owned(), project.to_owned());
        Self(all)
    }

    /// The text with its variables filled in.
    ///
    /// # Errors
    /// A fragment that names the variable that is not known.
    pub fn expand(&self, text: &str) -> Result<String, String> {
        let mut made = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            made.push_str(&rest[..at]);
            let end = rest[at..].find('}').ok_or_else(|| format!("{text} has an open brace"))? + at;
            let name = &rest[at + 2..end];
            made.push_str(self.0.get(name).ok_or_else(|| format!("variable {name} in {text} is not known"))?);
            rest = &rest[end + 1..];
        }
        Ok(made + rest)
    }
}

/// Whether a dataset's settings name a variable other than the project's key.
pub fn needs_variables(dataset: &Value) -> bool {
    let params = &dataset["params"];
    ["bucket", "path", "metastoreDatabaseName", "metastoreTableName"].iter().any(|key| {
        let text = params[*key].as_str().unwrap_or_default().replace("${projectKey}", "");
        text.contains("${")
    })
}

/// Whether DSS is to keep a table of this dataset.
pub fn is_synced(dataset: &Value) -> bool {
    dataset["params"]["metastoreSynchronizationEnabled"] == true
}

/// The database and table of a dataset, in lower case as Glue keeps them.
///
/// # Errors
/// A fragment that says what is missing.
pub fn names(
    dataset: &Value,
    connection: &ConnectionPlace,
    variables: &Variables,
) -> Result<(String, String), String> {
    let params = &dataset["params"];
    let text = |key: &str| variables.expand(params[key].as_str().unwrap_or_default());
    let mut database = text("metastoreDatabaseName")?.to_lowercase();
    if database.is_empty() {
        database.clone_from(&connection.database);
    }
    if database.is_empty() {
        return Err("neither it nor its connection names a Glue database".to_owned());
    }
    let mut table = text("metastoreTableName")?.to_lowercase();
    if table.is_empty() {
        let of = |key: &str| dataset[key].as_str().unwrap_or_default();
        table = format!("{}_{}", of("projectKey"), of("name")).to_lowercase();
    }
    Ok((database, table))
}

/// The table that a dataset wants.
///
/// # Errors
/// A fragment that says why a metastore can have none of it.
pub fn desired(
    dataset: &Value,
    connection: &ConnectionPlace,
    variables: &Variables,
    types: &Types,
) -> Result<Desired, String> {
    let params = &dataset["params"];
    let text = |key: &str| variables.expand(params[key].as_str().unwrap_or_default());
    let bucket = text("bucket")?;
    let bucket = if bucket.trim_matches('/').is_empty() { connection.bucket.clone() } else { bucket };
    let bucket = bucket.trim_matches('/');
    if bucket.is_empty() {
        return Err("neither it nor its connection names a bucket".to_owned());
    }
    let path = joined(&connection.root, &text("path")?);
    if path.is_empty() {
        return Err("it is a whole bucket".to_owned());
    }
    let (storage, layout) =
        format::of(dataset["formatType"].as_str().unwrap_or_default(), &dataset["formatParams"])?;
    let list = dataset.pointer("/schema/columns").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if list.is_empty() {
        return Err("it has no schema: it has never been built".to_owned());
    }
    if list.len() > MAX_COLUMNS {
        return Err(format!("it has {} columns, at most {MAX_COLUMNS} are compared", list.len()));
    }
    let pattern = Pattern::of(&dataset["partitioning"])?;
    let keys: Vec<Column> = pattern
        .iter()
        .flat_map(Pattern::keys)
        .map(|name| Column { name: name.to_lowercase(), kind: "string".to_owned() })
        .collect();
    let mut columns: Vec<WantedColumn> = Vec::with_capacity(list.len());
    let mut seen = std::collections::BTreeSet::new();
    for column in list {
        let name = column["name"].as_str().unwrap_or_default().to_lowercase();
        if name.is_empty() || name.contains(',') {
            return Err(format!("a column is named {name:?}, which Hive cannot have"));
        }
        // The files of a partition do not hold its key.
        if keys.iter().any(|key| key.name == name) {
            return Err(format!("column {name} is a partition key as well"));
        }
        if !seen.insert(name.clone()) {
            return Err(format!("two columns are named {name} in lower case"));
        }
        let wanted = types::wanted(column, layout, types).map_err(|why| format!("column {name}: {why}"))?;
        columns.push(WantedColumn { name, wanted });
    }
    let of = |key: &str| dataset[key].as_str().unwrap_or_default();
    Ok(Desired {
        dataset: format!("{}.{}", of("projectKey"), of("name")),
        columns,
        keys,
        location: place(&format!("s3://{bucket}/{path}")),
        storage,
        pattern,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dataset() -> Value {
        json!({
            "projectKey": "SALES", "name": "Orders", "type": "S3", "formatType": "parquet", "formatParams": {},
            "params": {
                "connection": "s3-main", "bucket": "b", "path": "/${projectKey}/orders", "metastoreSynchronizationEnabled": true,
                "metastoreDatabaseName": "Sales_${env}", "metastoreTableName": "${projectKey}_orders"
            },
            "schema": {"columns": [{"name": "Id", "type": "bigint"}, {"name": "when", "type": "date"}]},
            "partitioning": {"dimensions": [{"name": "Country", "type": "value"}], "filePathPattern": "/%{Country}/.*"}
        })
    }

    fn variables() -> Variables {
        Variables::of(
            "SALES",
            &json!({"standard": {"env": "test"}, "local": {"env": "prod"}}),
            &json!({"env": "x"}),
        )
    }

    fn make(dataset: &Value) -> Result<Desired, String> {
        desired(dataset, &ConnectionPlace::default(), &variables(), &Types::new())
    }

    #[test]
    fn a_dataset_wants_a_table() {
        let made = make(&dataset()).unwrap();
        assert_eq!(made.dataset, "SALES.Orders");
        assert_eq!(made.location, "s3://b/SALES/orders");
        assert_eq!(made.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["id", "when"]);
        assert_eq!(made.keys, [Column { name: "country".into(), kind: "string".into() }]);
        let names = names(&dataset(), &ConnectionPlace::default(), &variables()).unwrap();
        assert_eq!(names, ("sales_prod".into(), "sales_orders".into()), "what is local wins");
        assert!(needs_variables(&dataset()));
    }

    #[test]
    fn what_cannot_be_a_table_says_why() {
        let with = |pointer: &str, value: Value| {
            let mut changed = dataset();
            *changed.pointer_mut(pointer).unwrap() = value;
            make(&changed).unwrap_err()
        };
        assert!(with("/schema/columns", json!([])).contains("never been built"));
        assert!(with("/params/bucket", json!("")).contains("names a bucket"));
        assert!(with("/params/path", json!("/")).contains("whole bucket"));
        assert!(with("/params/path", json!("/${who}")).contains("variable who"));
        assert!(with("/formatType", json!("json")).contains("format json"));
        assert!(with("/schema/columns/1/name", json!("ID")).contains("two columns"));
        assert!(with("/schema/columns/1/name", json!("country")).contains("partition key"));
        assert!(with("/schema/columns/1/type", json!("x")).contains("column when: type x"));
        let nobody = dataset();
        let mut nobody = nobody.clone();
        nobody["params"]["metastoreDatabaseName"] = json!("");
        assert!(names(&nobody, &ConnectionPlace::default(), &variables()).is_err());
    }

    #[test]
    fn a_connection_fills_in_what_the_dataset_leaves_open() {
        let connection = json!({"type": "EC2", "params": {
            "chbucket": "/b2/", "chroot": "/team", "defaultManagedPath": "/dataiku", "metastoreDatabaseName": "Team"
        }});
        let place = ConnectionPlace::of(&connection, None);
        assert_eq!((place.managed.as_str(), place.database.as_str()), ("s3://b2/team/dataiku", "team"));
        assert_eq!(ConnectionPlace::of(&connection, Some("site")).database, "site");
        assert!(place.holds("s3://b2/team/dataiku/SALES/x") && !place.holds("s3://b2/team/dataiku2/x"));
        assert!(!ConnectionPlace::default().holds("s3://b2/x"));
        let mut open = dataset();
        open["params"]["bucket"] = json!("");
        open["params"]["metastoreDatabaseName"] = json!("");
        open["params"]["metastoreTableName"] = json!("");
        assert_eq!(
            desired(&open, &place, &variables(), &Types::new()).unwrap().location,
            "s3://b2/team/SALES/orders"
        );
        assert_eq!(names(&open, &place, &variables()).unwrap(), ("team".into(), "sales_orders".into()));
    }
}
