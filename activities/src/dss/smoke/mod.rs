//! The smoke test: a project of its own in which data is made in a container, copied by Spark, found in Glue and
//! counted by Athena, and which is then removed to the last object.
//!
//! Routes and bodies are those of Dataiku's own client; where a dataset lies and what it is called in Glue is read back
//! from DSS and never composed. Everything is named after the run, and removal goes by these names: nothing is deleted
//! because of where it lies alone. None of these steps has a probe: what they make is gone when the run is done, and
//! each looks before it acts.

pub mod clean;
pub mod dataset;
pub mod job;
pub mod project;
pub mod recipe;
pub mod table;

use dssflow_engine::activity::{ActivityError, ActivityRegistry, ActivityResult, RegistryError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::client::DssClient;
use super::document::Place;
use crate::aws::error::{classify, failure_of, none_if};
use crate::clients::AwsClients;

/// Start of the key of every project of a smoke test.
pub const KEY_PREFIX: &str = "DSSFLOW_SMOKE_";

pub(super) fn register(registry: &mut ActivityRegistry) -> Result<(), RegistryError> {
    registry.add(project::NAME, project::SmokeProject)?;
    registry.add(dataset::NAME, dataset::SmokeDataset)?;
    registry.add(recipe::NAME, recipe::SmokeRecipe)?;
    registry.add(job::NAME, job::SmokeJob)?;
    registry.add(table::NAME, table::SmokeTable)?;
    registry.add(clean::NAME, clean::SmokeClean)
}

/// Where a dataset of the smoke test lies, as DSS says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// The dataset.
    pub name: String,
    /// Its bucket.
    pub bucket: String,
    /// The path in the bucket, without a slash at either end.
    pub path: String,
    /// The Glue database it is synchronised to.
    pub database: String,
    /// Its table there.
    pub table: String,
}

impl Location {
    /// Reads it from the settings of a dataset.
    fn of(project: &str, name: &str, settings: &Value) -> Self {
        let text = |key: &str| {
            let text = settings["params"][key].as_str().unwrap_or_default();
            text.replace("${projectKey}", project).trim_matches('/').to_owned()
        };
        Self {
            name: name.to_owned(),
            bucket: text("bucket"),
            path: text("path"),
            database: text("metastoreDatabaseName"),
            table: text("metastoreTableName"),
        }
    }

    /// Whether a path belongs to this project: its key stands in it, as a whole part.
    fn is_of(project: &str, path: &str) -> bool {
        project.starts_with(KEY_PREFIX) && path.split('/').any(|part| part == project)
    }
}

/// Whether DSS lists the project.
async fn project_exists(client: &DssClient, key: &str) -> ActivityResult<bool> {
    let list = client.get(&["projects", ""]).await?;
    Ok(list.as_array().is_some_and(|projects| projects.iter().any(|project| project["projectKey"] == key)))
}

/// Names of the project's datasets or recipes; none when there is no project.
async fn names(client: &DssClient, key: &str, what: &str) -> ActivityResult<Vec<String>> {
    if !project_exists(client, key).await? {
        return Ok(Vec::new());
    }
    let list = match what {
        "datasets" => client.get_with(&["projects", key, what, ""], &[("foreign", "False")]).await?,
        _ => client.get(&["projects", key, what, ""]).await?,
    };
    let items = list.as_array().into_iter().flatten();
    Ok(items.filter_map(|item| item["name"].as_str()).map(str::to_owned).collect())
}

/// Deletes a recipe. True when it was there.
async fn remove_recipe(client: &DssClient, key: &str, name: &str) -> ActivityResult<bool> {
    if !names(client, key, "recipes").await?.iter().any(|known| known == name) {
        return Ok(false);
    }
    let is_there = async { Ok(names(client, key, "recipes").await?.iter().any(|known| known == name)) };
    client.delete_known(&["projects", key, "recipes", name], &[], is_there).await?;
    Ok(true)
}

/// Deletes a dataset with its data, then what DSS left of it in Glue and S3. True when anything was there.
///
/// `known` is where it lies when DSS can no longer be asked.
async fn remove_dataset(
    client: &DssClient,
    aws: &AwsClients,
    key: &str,
    name: &str,
    known: Option<Location>,
) -> ActivityResult<bool> {
    let place = Place::Dataset(key.to_owned(), name.to_owned());
    let settings = place.read(client).await?;
    let there = settings.is_some();
    let location = settings.map(|settings| Location::of(key, name, &settings)).or(known);
    if there {
        let path = ["projects", key, "datasets", name];
        let is_there = async { place.read(client).await.map(|it| it.is_some()) };
        client.delete_known(&path, &[("dropData", "True")], is_there).await?;
    }
    let Some(location) = location else { return Ok(there) };
    let table = remove_table(aws, key, &location).await?;
    let objects = remove_objects(aws, key, &location).await?;
    Ok(there || table || objects > 0)
}

/// Where a table of Glue says that its data lies; `None` when there is no such table.
async fn table_place(
    aws: &AwsClients,
    database: &str,
    table: &str,
) -> ActivityResult<Option<(String, usize)>> {
    if database.is_empty() || table.is_empty() {
        return Ok(None);
    }
    let call = aws.glue().get_table().database_name(database).name(table).send().await;
    let found = none_if(call.map_err(|e| classify("glue:GetTable", e)), &["EntityNotFoundException"])?;
    let storage = found.and_then(|answer| answer.table).map(|table| table.storage_descriptor);
    Ok(storage.map(|storage| {
        let columns = storage.as_ref().map_or(0, |storage| storage.columns().len());
        (storage.and_then(|storage| storage.location).unwrap_or_default(), columns)
    }))
}

/// Deletes the table if it points into the project. True when it did.
async fn remove_table(aws: &AwsClients, key: &str, location: &Location) -> ActivityResult<bool> {
    let Some((place, _)) = table_place(aws, &location.database, &location.table).await? else {
        return Ok(false);
    };
    if !Location::is_of(key, &place) {
        return Err(ActivityError::terminal(
            "ForeignTable",
            format!(
                "Glue table {}.{} lies at {place}, not in the smoke test",
                location.database, location.table
            ),
        )
        .help("look at the table; the smoke test deletes only what carries its project's key"));
    }
    let call = aws.glue().delete_table().database_name(&location.database).name(&location.table).send().await;
    none_if(call.map_err(|e| classify("glue:DeleteTable", e)), &["EntityNotFoundException"])?;
    Ok(true)
}

/// Deletes what is left below the dataset's path, key by key. Whoever may not look there leaves that to DSS.
async fn remove_objects(aws: &AwsClients, key: &str, location: &Location) -> ActivityResult<usize> {
    if location.bucket.is_empty() || !Location::is_of(key, &location.path) {
        return Ok(0);
    }
    let prefix = format!("{}/", location.path);
    let mut keys = Vec::new();
    let mut next = None;
    loop {
        let call =
            aws.s3().list_objects_v2().bucket(&location.bucket).prefix(&prefix).set_continuation_token(next);
        let page = match call.send().await {
            Ok(page) => page,
            Err(error) => {
                let failure = failure_of(error);
                if failure.status == Some(403) {
                    tracing::info!(bucket = location.bucket, "what DSS left in the bucket may not be listed");
                    return Ok(0);
                }
                return Err(crate::aws::error::classify_failure("s3:ListObjectsV2", &failure));
            }
        };
        keys.extend(page.contents().iter().filter_map(|object| object.key()).map(str::to_owned));
        next = page.next_continuation_token().map(str::to_owned);
        if next.is_none() {
            break;
        }
    }
    for object in &keys {
        let call = aws.s3().delete_object().bucket(&location.bucket).key(object).send().await;
        call.map_err(|e| classify("s3:DeleteObject", e))?;
    }
    Ok(keys.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_paths_with_the_projects_key_are_its_own() {
        let key = "DSSFLOW_SMOKE_0A1B2C3D";
        assert!(Location::is_of(key, "dataiku/DSSFLOW_SMOKE_0A1B2C3D/smoke_rows"));
        assert!(Location::is_of(key, "s3://b/dataiku/DSSFLOW_SMOKE_0A1B2C3D"));
        assert!(!Location::is_of(key, "dataiku/DSSFLOW_SMOKE_0A1B2C3D_2/x"));
        assert!(!Location::is_of(key, "dataiku"));
        assert!(!Location::is_of("SALES", "dataiku/SALES/x"), "no project but a smoke test's");
        assert!(!Location::is_of("", ""));
    }

    #[test]
    fn variables_of_the_path_are_filled_in() {
        let settings = json!({"params": {"bucket": "b", "path": "/${projectKey}/rows", "metastoreTableName": "${projectKey}_rows"}});
        let location = Location::of("P", "rows", &settings);
        assert_eq!(
            (location.path.as_str(), location.table.as_str(), location.database.as_str()),
            ("P/rows", "P_rows", "")
        );
    }
}
