//! Projects, their settings, variables, scenarios and macros: as much as automation touches. Datasets are in `datasets`,
//! recipes and jobs in `recipes`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::FakeDss;
use super::plugins::unknown_route;
use super::reply::{Answer, Call, Refusal, Reply, ok};
use super::state::{Project, State};

impl FakeDss {
    pub(super) fn projects(&self, call: &Call) -> Answer {
        if call.method == "GET" {
            let list: Vec<Value> =
                self.read(|state| state.projects.values().map(|project| project.summary.clone()).collect());
            return ok(json!(list));
        }
        let body = call.json()?;
        let key = Call::text(&body, "projectKey")?;
        if !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(Refusal::illegal(format!("Invalid project key: {key}")));
        }
        let tags = body.get("tags").filter(|tags| tags.is_array()).cloned().unwrap_or_else(|| json!([]));
        let description = body.get("description").cloned().unwrap_or(Value::Null);
        let project = Project {
            summary: json!({
                "projectKey": key, "name": body["name"], "ownerLogin": body["owner"], "shortDesc": description, "tags": tags
            }),
            // A new project has no k8sCluster until somebody sets it.
            settings: json!({
                "settings": {"cluster": {"clusterMode": "INHERIT"}, "container": {"containerMode": "INHERIT"}},
                "exposedObjects": {"objects": []}
            }),
            metadata: json!({"label": body["name"], "description": description, "shortDesc": description, "tags": tags, "customFields": {}, "checklists": {"checklists": []}}),
            variables: json!({"standard": {}, "local": {}}),
            datasets: BTreeMap::new(),
            recipes: BTreeMap::new(),
            scenarios: BTreeMap::new(),
            jobs: BTreeMap::new(),
        };
        self.try_write(|state| {
            if state.projects.contains_key(&key) {
                self.duplicate(format!("Project key already exists: {key}"))?;
            }
            state.projects.insert(key.clone(), project);
            Ok(())
        })?;
        ok(json!(key))
    }

    pub(super) async fn project(&self, call: &Call, key: &str, rest: &[&str]) -> Answer {
        self.read(|state| project(state, key).map(|_| ()))?;
        match (call.method.as_str(), rest) {
            ("GET", []) => ok(self.read(|state| state.projects[key].summary.clone())),
            ("DELETE", []) => {
                if call.flag("clearManagedDatasets") {
                    let managed: Vec<String> = self.read(|state| {
                        let datasets = state.projects[key].datasets.iter();
                        datasets
                            .filter(|(_, set)| set["managed"] == true)
                            .map(|(name, _)| name.clone())
                            .collect()
                    });
                    for name in managed {
                        self.drop_data(key, &name).await?;
                    }
                }
                self.write(|state| state.projects.remove(key));
                ok(json!({"hasResult": true, "result": {"messages": [], "anyMessage": false}}))
            }
            ("GET", ["settings"]) => ok(self.read(|state| state.projects[key].settings.clone())),
            ("PUT", ["settings"]) => {
                let kept = kept_settings(&call.json()?)?;
                self.edit(key, |project| project.settings = kept)?;
                Ok(Reply::Empty)
            }
            ("GET", ["metadata"]) => ok(self.read(|state| state.projects[key].metadata.clone())),
            ("PUT", ["metadata"]) => {
                let body = call.json()?;
                self.edit(key, |project| {
                    project.summary["tags"] = body["tags"].clone();
                    project.summary["shortDesc"] = body["shortDesc"].clone();
                    project.metadata = body;
                })?;
                Ok(Reply::Empty)
            }
            ("POST", ["datasets", "managed"]) => self.managed_dataset(call, key),
            ("DELETE", ["datasets", name]) => self.dataset_delete(call, key, name).await,
            ("POST", ["datasets", name, "actions", "synchronizeHiveMetastore"]) => {
                self.synchronize(key, name).await?;
                Ok(Reply::Empty)
            }
            ("GET", ["datasets", name, "partitions"]) => self.partitions(key, name).await,
            (_, ["datasets", rest @ ..]) => self.datasets(call, key, rest),
            ("GET", ["variables"]) => ok(self.read(|state| state.projects[key].variables.clone())),
            ("PUT", ["variables"]) => {
                let body = call.json()?;
                self.edit(key, |project| project.variables = body)?;
                Ok(Reply::Empty)
            }
            (_, ["recipes", rest @ ..]) => self.recipes(call, key, rest),
            (_, ["jobs", rest @ ..]) => self.jobs(call, key, rest),
            (_, ["scenarios", rest @ ..]) => self.scenarios(call, key, rest),
            (_, ["runnables", kind, rest @ ..]) => self.runnables(call, kind, rest),
            _ => Err(unknown_route(call)),
        }
    }

    fn scenarios(&self, call: &Call, key: &str, rest: &[&str]) -> Answer {
        match (call.method.as_str(), rest) {
            ("GET", []) => ok(json!(
                self.read(|state| state.projects[key].scenarios.values().cloned().collect::<Vec<_>>())
            )),
            ("POST", []) => {
                let mut scenario = call.json()?;
                let id = Call::text(&scenario, "name")?.to_uppercase();
                scenario["id"] = json!(id);
                self.edit(key, |project| project.scenarios.insert(id.clone(), scenario))?;
                ok(json!({"id": id}))
            }
            (_, [id, rest @ ..]) => {
                let scenario = self.read(|state| state.projects[key].scenarios.get(*id).cloned());
                let scenario =
                    scenario.ok_or_else(|| Refusal::missing(format!("Scenario not found: {id}")))?;
                match (call.method.as_str(), rest) {
                    ("GET", []) => ok(scenario),
                    ("POST", ["run"]) => {
                        let run = self.write(|state| state.new_id("T"));
                        ok(
                            json!({"runId": run, "trigger": {"id": "manual", "type": "manual"}, "projectKey": key, "scenarioId": id}),
                        )
                    }
                    ("GET", ["get-last-runs"]) => ok(json!([])),
                    _ => Err(unknown_route(call)),
                }
            }
            _ => Err(unknown_route(call)),
        }
    }

    /// Macros end at once; the network test of the EKS plugin says that the nodes reach DSS.
    fn runnables(&self, call: &Call, kind: &str, rest: &[&str]) -> Answer {
        if !kind.starts_with("pyrunnable_") {
            return Err(Refusal::missing(format!("Unknown macro: {kind}")));
        }
        match (call.method.as_str(), rest) {
            ("POST", []) => ok(json!({"runId": self.write(|state| state.new_id("R")), "hasResult": false})),
            ("GET", ["state", run]) => {
                ok(json!({"runId": run, "running": false, "exists": true, "type": "RESULT"}))
            }
            ("GET", ["result", _]) => Ok(Reply::Text("{\"columns\":[],\"records\":[]}".to_owned())),
            ("POST", ["abort", _]) => Ok(Reply::Empty),
            _ => Err(unknown_route(call)),
        }
    }

    pub(super) fn edit<T>(&self, key: &str, change: impl FnOnce(&mut Project) -> T) -> Result<T, Refusal> {
        self.try_write(|state| state.projects.get_mut(key).map(change).ok_or_else(|| no_project(key)))
    }
}

pub(super) fn no_project(key: &str) -> Refusal {
    Refusal::missing(format!("Project not found: {key}"))
}

fn project<'a>(state: &'a State, key: &str) -> Result<&'a Project, Refusal> {
    state.projects.get(key).ok_or_else(|| no_project(key))
}

/// What survives a write of the project settings.
fn kept_settings(sent: &Value) -> Result<Value, Refusal> {
    let settings =
        sent["settings"].as_object().ok_or_else(|| Refusal::illegal("Project settings must be an object"))?;
    let object = |value: &Value, known: &[&str]| -> Value {
        let fields = value.as_object().into_iter().flatten().filter(|(key, _)| known.contains(&key.as_str()));
        Value::Object(fields.map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    let mut kept = serde_json::Map::new();
    for (key, value) in settings {
        match key.as_str() {
            "cluster" | "k8sCluster" => {
                kept.insert(key.clone(), object(value, &["clusterMode", "clusterId", "defaultClusterId"]));
            }
            "container" => {
                kept.insert(key.clone(), object(value, &["containerMode", "containerConf"]));
            }
            "codeEnvs" | "flowBuildSettings" | "integrations" => {
                kept.insert(key.clone(), value.clone());
            }
            _ => {}
        }
    }
    Ok(
        json!({"settings": kept, "exposedObjects": sent.get("exposedObjects").cloned().unwrap_or_else(|| json!({"objects": []}))}),
    )
}
