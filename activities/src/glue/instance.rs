//! What a resync asks of DSS: projects, datasets, connections, variables, and the synchronisation of a dataset.
//!
//! Existence is looked up in lists; which status DSS gives for a missing object is not documented.

use std::collections::BTreeMap;
use std::time::Duration;

use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult, ErrorClass};
use serde_json::Value;

use super::calls::Calls;
use super::desired::{S3_CONNECTION, Variables, needs_variables};
use crate::dss::client::{DssClient, DssTarget};
use crate::dss::reply::Trouble;

/// How long DSS may take to synchronise one dataset: it tells Glue of each partition.
const SYNC_TIMEOUT: Duration = Duration::from_mins(10);

/// One DSS as an attempt sees it. Variables are asked for once a project.
pub(super) struct Instance {
    client: DssClient,
    variables: BTreeMap<String, Variables>,
    global: Option<Value>,
}

/// Whether an error is about one object, and not about reaching DSS at all.
pub(super) fn is_of_one(error: &ActivityError) -> bool {
    const UNREACHED: [&str; 4] = ["DssUnreachable", "DssTimeout", "DssNoReply", "HttpClient"];
    const LOST: [&str; 4] = ["ConnectionFailed", "Timeout", "ResponseUnreadable", "NoCredentials"];
    match error.class {
        ErrorClass::Terminal => true,
        ErrorClass::Retryable => {
            !UNREACHED.contains(&error.code.as_str()) && !LOST.contains(&error.code.as_str())
        }
        ErrorClass::Throttled | ErrorClass::Credentials | ErrorClass::NeedsHuman | ErrorClass::Cancelled => {
            false
        }
    }
}

impl Instance {
    pub(super) async fn connect(ctx: &ActivityContext, target: &DssTarget) -> ActivityResult<Self> {
        Ok(Self { client: DssClient::connect(ctx, target).await?, variables: BTreeMap::new(), global: None })
    }

    async fn list(
        &self,
        calls: Calls<'_>,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> ActivityResult<Vec<Value>> {
        let answer = calls.steady(true, || self.client.get_with(path, query)).await?;
        match answer {
            Value::Array(items) => Ok(items),
            other => {
                let message = format!("GET /{}: a list was expected, not {}", path.join("/"), kind(&other));
                Err(ActivityError::terminal("AnswerIncomplete", message).no_effect())
            }
        }
    }

    /// The keys of all projects that the key may see.
    pub(super) async fn projects(&self, calls: Calls<'_>) -> ActivityResult<Vec<String>> {
        let list = self.list(calls, &["projects", ""], &[]).await?;
        let mut keys: Vec<String> =
            list.iter().filter_map(|project| project["projectKey"].as_str()).map(str::to_owned).collect();
        keys.sort();
        Ok(keys)
    }

    /// The datasets of a project, as far as the list tells them.
    pub(super) async fn datasets(&self, calls: Calls<'_>, project: &str) -> ActivityResult<Vec<Value>> {
        self.list(calls, &["projects", project, "datasets", ""], &[("foreign", "False")]).await
    }

    /// The names of a project's datasets; none when the project is not there.
    pub(super) async fn names(&self, calls: Calls<'_>, project: &str) -> ActivityResult<Vec<String>> {
        if !self.projects(calls).await?.iter().any(|key| key == project) {
            return Ok(Vec::new());
        }
        let list = self.datasets(calls, project).await?;
        Ok(list.iter().filter_map(|dataset| dataset["name"].as_str()).map(str::to_owned).collect())
    }

    /// The settings of a dataset; `None` when it is not there.
    pub(super) async fn dataset(
        &self,
        calls: Calls<'_>,
        project: &str,
        name: &str,
    ) -> ActivityResult<Option<Value>> {
        let path = ["projects", project, "datasets", name];
        match calls.steady(true, || self.client.get(&path)).await {
            Ok(Value::Object(mut dataset)) => {
                // Of old definitions it may be missing.
                dataset.insert("projectKey".to_owned(), Value::String(project.to_owned()));
                dataset.insert("name".to_owned(), Value::String(name.to_owned()));
                Ok(Some(Value::Object(dataset)))
            }
            Ok(other) => {
                let message =
                    format!("GET /{}: an object was expected, not {}", path.join("/"), kind(&other));
                Err(ActivityError::terminal("AnswerIncomplete", message).no_effect())
            }
            Err(error) if is_of_one(&error) => {
                let known = self.names(calls, project).await?;
                if known.iter().any(|other| other == name) { Err(error) } else { Ok(None) }
            }
            Err(error) => Err(error),
        }
    }

    /// All S3 connections, by name.
    pub(super) async fn connections(&self, calls: Calls<'_>) -> ActivityResult<BTreeMap<String, Value>> {
        let all = calls.steady(true, || self.client.get(&["admin", "connections", ""])).await?;
        let Value::Object(all) = all else {
            let message = format!("GET /admin/connections/: an object was expected, not {}", kind(&all));
            return Err(ActivityError::terminal("AnswerIncomplete", message).no_effect());
        };
        Ok(all.into_iter().filter(|(_, connection)| connection["type"] == S3_CONNECTION).collect())
    }

    /// The variables that a dataset's settings may name.
    pub(super) async fn variables(
        &mut self,
        calls: Calls<'_>,
        project: &str,
        dataset: &Value,
    ) -> ActivityResult<Variables> {
        if !needs_variables(dataset) {
            return Ok(Variables::of(project, &Value::Null, &Value::Null));
        }
        if let Some(known) = self.variables.get(project) {
            return Ok(known.clone());
        }
        if self.global.is_none() {
            let all = calls.steady(true, || self.client.get(&["admin", "variables", ""])).await?;
            self.global = Some(all);
        }
        let path = ["projects", project, "variables", ""];
        let own = calls.steady(true, || self.client.get(&path)).await?;
        let made = Variables::of(project, &own, self.global.as_ref().unwrap_or(&Value::Null));
        self.variables.insert(project.to_owned(), made.clone());
        Ok(made)
    }

    /// Lets DSS tell Glue what it knows of a dataset. The name of the route is from the days of Hive.
    pub(super) async fn synchronize(
        &self,
        calls: Calls<'_>,
        project: &str,
        name: &str,
    ) -> ActivityResult<()> {
        let path = ["projects", project, "datasets", name, "actions", "synchronizeHiveMetastore"];
        calls
            .steady(false, || async {
                let answer = self.client.post_long(&path, &[], None, SYNC_TIMEOUT).await;
                answer.map(drop).map_err(Trouble::into_error)
            })
            .await
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
