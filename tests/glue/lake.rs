//! A sandbox with DSS in it, whose datasets, files and tables a person works on by hand.

use std::collections::BTreeMap;

use aws_sdk_glue::types::{PartitionInput, SerDeInfo, StorageDescriptor, Table, TableInput};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Home, Ran};

/// The project of the datasets.
pub(crate) const PROJECT: &str = "CHURN";
/// The Glue database of the connection that they are on.
pub(crate) const DATABASE: &str = "dss_main";
/// Where the connection keeps managed datasets.
const ROOT: &str = "dataiku";

/// The sandbox after a bootstrap.
pub(crate) struct Lake {
    pub(crate) home: Home,
}

impl Lake {
    pub(crate) fn new() -> Self {
        let home = Home::with_sandbox();
        home.run(&["run", "bootstrap", "--sandbox"]).expect(0);
        Self { home }
    }

    fn bucket(&self) -> String {
        self.home.world().buckets[0].clone()
    }

    /// Makes a dataset; partitioned by country when `partitioned`.
    pub(crate) fn dataset(&self, name: &str, columns: &[(&str, &str)], partitioned: bool, synced: bool) {
        let columns: Vec<Value> = columns.iter().map(|(n, t)| json!({"name": n, "type": t})).collect();
        let partitioning = if partitioned {
            json!({"dimensions": [{"name": "country", "type": "value", "params": {}}], "filePathPattern": "%{country}/.*"})
        } else {
            json!({"dimensions": []})
        };
        let dataset = json!({
            "projectKey": PROJECT, "name": name, "type": "S3", "managed": true, "formatType": "parquet", "formatParams": {},
            "params": {
                "connection": "s3-main", "path": format!("{ROOT}/${{projectKey}}/{name}"),
                "metastoreSynchronizationEnabled": synced, "metastoreTableName": format!("${{projectKey}}_{name}")
            },
            "partitioning": partitioning, "schema": {"columns": columns, "userModified": false}
        });
        self.home.dss().call(Method::POST, &format!("/projects/{PROJECT}/datasets/"), Some(&dataset));
    }

    pub(crate) fn drop_dataset(&self, name: &str) {
        self.home.dss().call(Method::DELETE, &format!("/projects/{PROJECT}/datasets/{name}"), None);
    }

    pub(crate) fn table_name(name: &str) -> String {
        format!("{PROJECT}_{name}").to_lowercase()
    }

    /// Puts a file into a partition.
    pub(crate) fn file(&self, name: &str, partition: &str) {
        let (bucket, key) = (self.bucket(), format!("{ROOT}/{PROJECT}/{name}/{partition}/part-0.parquet"));
        self.home.aws(async |aws| {
            let body = b"rows".to_vec().into();
            aws.s3().put_object().bucket(bucket).key(key).body(body).send().await.expect("a file");
        });
    }

    pub(crate) fn no_file(&self, name: &str, partition: &str) {
        let (bucket, key) = (self.bucket(), format!("{ROOT}/{PROJECT}/{name}/{partition}/part-0.parquet"));
        self.home.aws(async |aws| {
            aws.s3().delete_object().bucket(bucket).key(key).send().await.expect("no file");
        });
    }

    /// A table as Glue has it.
    pub(crate) fn table(&self, name: &str) -> Option<Table> {
        let table = Self::table_name(name);
        self.home.aws(async |aws| {
            let found = aws.glue().get_table().database_name(DATABASE).name(table).send().await;
            found.ok().and_then(|found| found.table)
        })
    }

    /// Columns with types, location and keys: what a table is.
    pub(crate) fn is(&self, name: &str) -> Value {
        let Some(table) = self.table(name) else { return Value::Null };
        let stored =
            table.storage_descriptor().cloned().unwrap_or_else(|| StorageDescriptor::builder().build());
        let columns = |list: &[aws_sdk_glue::types::Column]| -> Vec<Value> {
            list.iter().map(|c| json!([c.name(), c.r#type()])).collect()
        };
        let input = stored.input_format().unwrap_or_default();
        json!({
            "columns": columns(stored.columns()), "keys": columns(table.partition_keys()),
            "location": stored.location(), "input": input, "partitions": self.partitions(name)
        })
    }

    /// The partitions of a table, by their value.
    pub(crate) fn partitions(&self, name: &str) -> BTreeMap<String, String> {
        let table = Self::table_name(name);
        self.home.aws(async |aws| {
            let found = aws.glue().get_partitions().database_name(DATABASE).table_name(table).send().await;
            let found = found.ok().and_then(|found| found.partitions).unwrap_or_default();
            let place = |p: &aws_sdk_glue::types::Partition| {
                p.storage_descriptor().and_then(|s| s.location()).unwrap_or_default().to_owned()
            };
            found.iter().map(|p| (p.values().join("|"), place(p))).collect()
        })
    }

    /// Changes a table by hand.
    pub(crate) fn spoil(&self, name: &str, change: impl FnOnce(&mut StorageDescriptor)) {
        let table = self.table(name).expect("a table");
        let mut stored = table.storage_descriptor().cloned().expect("with files");
        change(&mut stored);
        let input = TableInput::builder()
            .name(Self::table_name(name))
            .set_table_type(table.table_type.clone())
            .set_parameters(table.parameters.clone())
            .set_partition_keys(table.partition_keys.clone())
            .storage_descriptor(stored)
            .build()
            .expect("it has a name");
        self.home.aws(async |aws| {
            aws.glue()
                .update_table()
                .database_name(DATABASE)
                .table_input(input)
                .send()
                .await
                .expect("a change");
        });
    }

    pub(crate) fn drop_table(&self, name: &str) {
        let table = Self::table_name(name);
        self.home.aws(async |aws| {
            aws.glue().delete_table().database_name(DATABASE).name(table).send().await.expect("a deletion");
        });
    }

    pub(crate) fn drop_partition(&self, name: &str, value: &str) {
        let table = Self::table_name(name);
        self.home.aws(async |aws| {
            let call = aws.glue().delete_partition().database_name(DATABASE).table_name(table);
            call.partition_values(value).send().await.expect("a deletion");
        });
    }

    /// Tells Glue of a partition that is nowhere.
    pub(crate) fn ghost(&self, name: &str, value: &str) {
        let table = self.table(name).expect("a table");
        let mut stored = table.storage_descriptor().cloned().expect("with files");
        stored.location = stored.location.map(|place| format!("{place}/{value}"));
        let input = PartitionInput::builder().values(value).storage_descriptor(stored).build();
        self.home.aws(async |aws| {
            let call =
                aws.glue().create_partition().database_name(DATABASE).table_name(Self::table_name(name));
            call.partition_input(input).send().await.expect("a partition");
        });
    }

    /// A table that no dataset knows, with a name as if one did.
    pub(crate) fn foreign(&self, name: &str, location: &str) {
        let stored = StorageDescriptor::builder()
            .location(location)
            .serde_info(SerDeInfo::builder().serialization_library("x.Y").build())
            .build();
        let input = TableInput::builder()
            .name(Self::table_name(name))
            .table_type("EXTERNAL_TABLE")
            .storage_descriptor(stored)
            .build()
            .expect("it has a name");
        self.home.aws(async |aws| {
            aws.glue()
                .create_table()
                .database_name(DATABASE)
                .table_input(input)
                .send()
                .await
                .expect("a table");
        });
    }

    /// Runs the resync with these arguments.
    pub(crate) fn resync(&self, args: &[&str]) -> Ran {
        let mut all = vec!["run", "glue-resync", "--sandbox"];
        all.extend(args);
        self.home.run(&all)
    }

    /// The report of the newest run.
    pub(crate) fn report(&self) -> Value {
        self.home.step("report")["output"].clone()
    }

    /// The counts of the newest run that are not nought.
    pub(crate) fn totals(&self) -> BTreeMap<String, u64> {
        let report = self.report();
        let mut found = BTreeMap::new();
        for (of, counts) in [("", &report["totals"]), ("partitions ", &report["totals"]["partitions"])] {
            for (name, count) in counts.as_object().into_iter().flatten() {
                if let Some(count) = count.as_u64().filter(|count| *count > 0) {
                    found.insert(format!("{of}{name}"), count);
                }
            }
        }
        found
    }
}

/// Counts as [`Lake::totals`] gives them.
pub(crate) fn counts(list: &[(&str, u64)]) -> BTreeMap<String, u64> {
    list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}
