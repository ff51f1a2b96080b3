//! Datasets: their settings, their schema, their partitions, and what DSS tells a metastore of them.
//!
//! A synchronisation writes what a real one is believed to: an external table over the dataset's files, its columns in
//! Hive's words, a partition for each directory that the dataset's pattern fits. It happens in the catalogue that the
//! general settings name, with the credentials of the connection they name; another catalogue than Glue is not here, and
//! then nothing is written. What DSS really makes of dates and nested types nobody could verify.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::FakeDss;
use super::backend::MetastoreTable;
use super::behaviour::MetastoreSync;
use super::plugins::unknown_route;
use super::projects::no_project;
use super::reply::{Answer, Call, Refusal, Reply, ok};
use super::unverified;

fn missing(key: &str, name: &str) -> Refusal {
    Refusal::missing(format!("Dataset does not exist: {key}.{name}"))
}

impl FakeDss {
    pub(super) fn datasets(&self, call: &Call, key: &str, rest: &[&str]) -> Answer {
        match (call.method.as_str(), rest) {
            ("GET", []) => {
                let list: Vec<Value> =
                    self.read(|state| state.projects[key].datasets.values().cloned().collect());
                ok(json!(list))
            }
            ("POST", []) => {
                let body = call.json()?;
                let name = Call::text(&body, "name")?;
                let mut dataset = body;
                dataset["projectKey"] = json!(key);
                if dataset.get("schema").is_none() {
                    dataset["schema"] = json!({"columns": [], "userModified": false});
                }
                self.edit(key, |project| project.datasets.insert(name.clone(), dataset))?;
                ok(json!({"msg": format!("Created dataset {name}")}))
            }
            ("GET", [name]) => ok(self.dataset(key, name)?),
            ("PUT", [name]) => {
                let body = call.json()?;
                self.edit(key, |project| project.datasets.get_mut(*name).map(|dataset| *dataset = body))?
                    .ok_or_else(|| missing(key, name))?;
                ok(json!({"msg": format!("Updated dataset {name}")}))
            }
            ("GET", [name, "schema"]) => ok(self.dataset(key, name)?["schema"].clone()),
            ("PUT", [name, "schema"]) => {
                let body = call.json()?;
                let set = |dataset: &mut Value| dataset["schema"] = body.clone();
                self.edit(key, |project| project.datasets.get_mut(*name).map(set))?
                    .ok_or_else(|| missing(key, name))?;
                ok(body)
            }
            ("POST", [name, "actions", "updateFromHive"]) => {
                self.dataset(key, name)?;
                Ok(Reply::Empty)
            }
            _ => Err(unknown_route(call)),
        }
    }

    fn dataset(&self, key: &str, name: &str) -> Result<Value, Refusal> {
        self.read(|state| {
            let project = state.projects.get(key).ok_or_else(|| no_project(key))?;
            project.datasets.get(name).cloned().ok_or_else(|| missing(key, name))
        })
    }

    /// Puts many datasets there at once, as a person would over years: of a project that is made when it is not there.
    pub fn put_datasets(&self, key: &str, datasets: BTreeMap<String, Value>) {
        self.write(|state| {
            let project = state.projects.entry(key.to_owned()).or_insert_with(|| super::state::Project {
                summary: json!({"projectKey": key, "name": key, "ownerLogin": "admin", "shortDesc": null, "tags": []}),
                settings: json!({"settings": {}, "exposedObjects": {"objects": []}}),
                metadata: json!({}),
                variables: json!({"standard": {}, "local": {}}),
                datasets: BTreeMap::new(),
                recipes: BTreeMap::new(),
                scenarios: BTreeMap::new(),
                jobs: BTreeMap::new(),
            });
            project.datasets.extend(datasets);
        });
    }

    /// The first project, an S3 connection whose datasets a metastore is told of, and where it keeps managed ones. Of
    /// several it is the one of the shipped site's data.
    pub(crate) fn place_for_data(&self) -> Option<(String, String, String)> {
        self.read(|state| {
            let synced = |connection: &Value| {
                let database = connection["params"][unverified::S3_SYNC_DATABASE].as_str();
                connection["type"] == "EC2" && database.is_some_and(|database| !database.is_empty())
            };
            let all = state.connections.iter().filter(|(_, connection)| synced(connection));
            let (name, connection) = all.min_by_key(|(name, _)| (*name != "s3-main", *name))?;
            let path = connection["params"]["defaultManagedPath"].as_str().unwrap_or_default();
            let project = state.projects.keys().next()?;
            Some((project.clone(), name.clone(), path.trim_matches('/').to_owned()))
        })
    }

    /// What a metastore would be told of a dataset; `None` when it is not there.
    pub(crate) fn table_of(&self, key: &str, name: &str) -> Option<MetastoreTable> {
        let dataset = self.dataset(key, name).ok()?;
        Some(self.metastore_table(&dataset, key, name, String::new()))
    }

    /// The same of all datasets with such names, by project and name.
    pub(crate) fn tables_of(&self, wanted: impl Fn(&str) -> bool) -> Vec<MetastoreTable> {
        let names: Vec<(String, String)> = self.read(|state| {
            let all = state.projects.iter();
            let all = all
                .flat_map(|(key, project)| project.datasets.keys().map(|name| (key.clone(), name.clone())));
            all.filter(|(_, name)| wanted(name)).collect()
        });
        names.iter().filter_map(|(key, name)| self.table_of(key, name)).collect()
    }

    /// The identifiers of the partitions, as they lie in S3.
    pub(super) async fn partitions(&self, key: &str, name: &str) -> Answer {
        let dataset = self.dataset(key, name)?;
        if dataset["partitioning"]["dimensions"].as_array().is_none_or(Vec::is_empty) {
            return ok(json!(["NP"]));
        }
        let table = self.metastore_table(&dataset, key, name, String::new());
        let listed = self.data().partitions(table).await;
        let list = listed.map_err(|message| Refusal::broken("java.io.IOException", message))?;
        ok(json!(list.iter().map(|values| values.join("|")).collect::<Vec<_>>()))
    }

    /// Tells the metastore of a dataset that is to be kept there.
    pub(super) async fn synchronize(&self, key: &str, name: &str) -> Result<(), Refusal> {
        let dataset = self.dataset(key, name)?;
        let (glue, keys) = self.read(|state| {
            let to = &state.general["metastoreCatalogsSettings"]["synchronizeTo"];
            let on = to[unverified::GLUE_CONNECTION].as_str().unwrap_or_default();
            let keys = self.s3_keys(state.connections.get(on).unwrap_or(&Value::Null));
            (to["flavor"] == unverified::GLUE_FLAVOR, keys)
        });
        let behaviour = self.behaviour();
        let columns = dataset["schema"]["columns"].as_array().is_some_and(|columns| !columns.is_empty());
        let wanted = dataset["params"]["metastoreSynchronizationEnabled"] == true && columns;
        if !glue || !wanted || behaviour.metastore_sync == MetastoreSync::Nothing {
            return Ok(());
        }
        let broken =
            |message: String| Refusal::broken("com.dataiku.dip.metastore.MetastoreException", message);
        let (access_key, _) = keys.map_err(broken)?;
        let mut table = self.metastore_table(&dataset, key, name, access_key);
        if table.database.is_empty() || table.path.is_empty() {
            return Err(Refusal::illegal(format!("Dataset {key}.{name} has no metastore table")));
        }
        table.removes = behaviour.metastore_sync == MetastoreSync::Full;
        for (parameter, value) in &behaviour.metastore_parameters {
            let value = value.replace("{project}", key).replace("{dataset}", name);
            table.parameters.insert(parameter.clone(), value);
        }
        self.data().synchronize(table).await.map_err(broken)
    }

    fn metastore_table(&self, dataset: &Value, key: &str, name: &str, access_key: String) -> MetastoreTable {
        let params = &dataset["params"];
        let variables = self.read(|state| {
            let own = state.projects.get(key).map_or(Value::Null, |project| project.variables.clone());
            (state.variables.clone(), own)
        });
        let text = |field: &str| filled(params[field].as_str().unwrap_or_default(), key, &variables);
        let on = params["connection"].as_str().unwrap_or_default();
        let connection = self.read(|state| state.connections.get(on).cloned().unwrap_or_default());
        let of_connection = |field: &str| {
            connection["params"][field].as_str().unwrap_or_default().trim_matches('/').to_owned()
        };
        let or = |value: String, other: String| if value.is_empty() { other } else { value };
        let root = of_connection("chroot");
        let path = text("path").trim_matches('/').to_owned();
        let path = if root.is_empty() || path.starts_with(&root) { path } else { format!("{root}/{path}") };
        let dimensions = dataset["partitioning"]["dimensions"].as_array().cloned().unwrap_or_default();
        let time = dimensions.iter().find(|dimension| dimension["type"] == "time");
        let units = time.map_or(0, |dimension| match dimension["params"]["period"].as_str() {
            Some("YEAR") => 1,
            Some("MONTH") => 2,
            Some("HOUR") => 4,
            _ => 3,
        });
        let typed = dataset["formatType"] != "csv";
        let columns = dataset["schema"]["columns"].as_array().map_or(&[][..], Vec::as_slice);
        let (classes, serde_parameters, parameters) = described(dataset);
        MetastoreTable {
            database: or(text("metastoreDatabaseName"), of_connection(unverified::S3_SYNC_DATABASE))
                .to_lowercase(),
            table: or(text("metastoreTableName"), format!("{key}_{name}")).to_lowercase(),
            bucket: or(text("bucket"), of_connection("chbucket")),
            path,
            columns: columns
                .iter()
                .map(|column| {
                    (column["name"].as_str().unwrap_or_default().to_lowercase(), hive_type(column, typed))
                })
                .collect(),
            keys: dimensions.iter().filter_map(|d| d["name"].as_str()).map(str::to_lowercase).collect(),
            pattern: dataset["partitioning"]["filePathPattern"].as_str().unwrap_or_default().to_owned(),
            time_units: units,
            time_key: time.and_then(|d| d["name"].as_str()).unwrap_or_default().to_lowercase(),
            classes,
            serde_parameters,
            parameters,
            removes: true,
            access_key,
        }
    }
}

/// A text with the project's key and variables filled in; what is not known stays.
fn filled(text: &str, key: &str, (global, own): &(Value, Value)) -> String {
    let mut text = text.replace("${projectKey}", key);
    for set in [&own["local"], &own["standard"], global] {
        for (name, value) in set.as_object().into_iter().flatten() {
            text = text.replace(&format!("${{{name}}}"), value.as_str().unwrap_or_default());
        }
    }
    text
}

fn hive_type(column: &Value, typed: bool) -> String {
    match column["type"].as_str().unwrap_or_default() {
        "date" | "datetimenotz" if typed => "timestamp".to_owned(),
        "dateonly" if typed => "date".to_owned(),
        kind @ ("tinyint" | "smallint" | "int" | "bigint" | "float" | "double" | "boolean") => {
            kind.to_owned()
        }
        "array" if typed => format!("array<{}>", hive_type(&column["arrayContent"], typed)),
        "map" if typed => {
            format!(
                "map<{},{}>",
                hive_type(&column["mapKeys"], typed),
                hive_type(&column["mapValues"], typed)
            )
        }
        _ => "string".to_owned(),
    }
}

type Described = ([String; 3], BTreeMap<String, String>, BTreeMap<String, String>);

/// Classes, what the SerDe is told, and parameters of the table.
fn described(dataset: &Value) -> Described {
    let hive = "org.apache.hadoop.hive.ql.io";
    let mut parameters = BTreeMap::from([("EXTERNAL".to_owned(), "TRUE".to_owned())]);
    let mut told = BTreeMap::from([("serialization.format".to_owned(), "1".to_owned())]);
    let classes = match dataset["formatType"].as_str().unwrap_or_default() {
        "orcfile" => [
            format!("{hive}.orc.OrcInputFormat"),
            format!("{hive}.orc.OrcOutputFormat"),
            format!("{hive}.orc.OrcSerde"),
        ],
        "avro" => [
            format!("{hive}.avro.AvroContainerInputFormat"),
            format!("{hive}.avro.AvroContainerOutputFormat"),
            "org.apache.hadoop.hive.serde2.avro.AvroSerDe".to_owned(),
        ],
        "csv" => {
            let format = &dataset["formatParams"];
            let text = |key: &str, usual: &str| format[key].as_str().unwrap_or(usual).to_owned();
            told.insert("field.delim".to_owned(), text("separator", "\t"));
            told.insert("serialization.format".to_owned(), text("separator", "\t"));
            if format["style"] == "escape_only_no_quote" {
                told.insert("escape.delim".to_owned(), text("escapeChar", "\\"));
            }
            if format["parseHeaderRow"] == true {
                parameters.insert("skip.header.line.count".to_owned(), "1".to_owned());
            }
            [
                "org.apache.hadoop.mapred.TextInputFormat".to_owned(),
                format!("{hive}.HiveIgnoreKeyTextOutputFormat"),
                "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe".to_owned(),
            ]
        }
        _ => [
            format!("{hive}.parquet.MapredParquetInputFormat"),
            format!("{hive}.parquet.MapredParquetOutputFormat"),
            format!("{hive}.parquet.serde.ParquetHiveSerDe"),
        ],
    };
    (classes, told, parameters)
}
