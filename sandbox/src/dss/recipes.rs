//! Managed datasets, recipes and the jobs that build them.
//!
//! No code runs. A job checks what a real one would need (the recipe's container or Spark configuration, a running
//! cluster, the connection's credentials), then writes as many rows as the first `range(N)` in the recipe's code says,
//! or as its input has. It proves that the calls are right, not that a recipe works.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::FakeDss;
use super::backend::DatasetSpec;
use super::plugins::unknown_route;
use super::projects::no_project;
use super::reply::{Answer, Call, Refusal, Reply, ok};
use super::state::{ClusterState, Project, State};
use super::unverified;

/// Keys of a recipe's params that are known, by type.
const PARAMS: &[(&str, &[&str])] = &[
    ("python", &["envSelection", "containerSelection", "customParams"]),
    ("pyspark", &["envSelection", "containerSelection", "sparkConfig", "customParams"]),
];

fn missing_dataset(key: &str, name: &str) -> Refusal {
    Refusal::missing(format!("Dataset does not exist: {key}.{name}"))
}

/// Name of a dataset in a reference, which may name the project first.
fn local<'a>(reference: &'a str, key: &str) -> &'a str {
    reference.strip_prefix(key).and_then(|rest| rest.strip_prefix('.')).unwrap_or(reference)
}

fn refs(recipe: &Value, side: &str, key: &str) -> Vec<String> {
    let roles = recipe[side].as_object().into_iter().flatten();
    let items = roles.flat_map(|(_, role)| role["items"].as_array().into_iter().flatten());
    items.filter_map(|item| item["ref"].as_str()).map(|name| local(name, key).to_owned()).collect()
}

impl FakeDss {
    /// A dataset on a connection that allows managed ones; where it lies is the connection's business.
    pub(super) fn managed_dataset(&self, call: &Call, key: &str) -> Answer {
        let body = call.json()?;
        let name = Call::text(&body, "name")?;
        let settings = &body["creationSettings"];
        let connection = Call::text(settings, "connectionId")?;
        let format =
            settings["specificSettings"]["formatOptionId"].as_str().unwrap_or("CSV_EXCEL_GZIP").to_owned();
        self.try_write(|state| {
            let on = state.connections.get(&connection).cloned().ok_or_else(|| {
                Refusal::late_illegal(format!("Connection '{connection}' does not exist"))
            })?;
            if on["allowManagedDatasets"] != true || on["type"] != "EC2" {
                return Err(Refusal::illegal(format!(
                    "Connection '{connection}' does not take managed datasets"
                )));
            }
            let params = &on["params"];
            let text = |field: &str| params[field].as_str().unwrap_or_default();
            let synced = params["metastoreSynchronizationMode"] == unverified::S3_SYNC_MODE;
            let base = text("defaultManagedPath").trim_matches('/');
            let dataset = json!({
                "name": name, "projectKey": key, "type": "S3", "managed": true,
                "params": {
                    "connection": connection, "bucket": text("defaultManagedBucket"), "path": format!("/{base}/{key}/{name}"),
                    "metastoreSynchronizationEnabled": synced,
                    "metastoreDatabaseName": text(unverified::S3_SYNC_DATABASE),
                    "metastoreTableName": format!("{}_{name}", key.to_lowercase())
                },
                "formatType": if format.starts_with("PARQUET") { "parquet" } else { "csv" }, "formatParams": {},
                "schema": {"columns": [], "userModified": false}
            });
            let project = state.projects.get_mut(key).ok_or_else(|| no_project(key))?;
            if project.datasets.contains_key(&name) {
                self.duplicate(format!("Dataset {key}.{name} already exists"))?;
            }
            project.datasets.insert(name.clone(), dataset.clone());
            Ok(dataset)
        })
        .and_then(ok)
    }

    pub(super) async fn dataset_delete(&self, call: &Call, key: &str, name: &str) -> Answer {
        let users: Vec<String> = self.read(|state| {
            let recipes = state.projects[key].recipes.iter();
            let uses =
                |recipe: &Value| refs(&recipe["recipe"], "inputs", key).iter().any(|input| input == name);
            recipes.filter(|(_, recipe)| uses(recipe)).map(|(name, _)| name.clone()).collect()
        });
        if let Some(user) = users.first() {
            return Err(Refusal::illegal(format!("Dataset {key}.{name} is used by recipe {user}")));
        }
        if call.flag("dropData") {
            self.drop_data(key, name).await?;
        }
        self.edit(key, |project| project.datasets.remove(name))?.ok_or_else(|| missing_dataset(key, name))?;
        Ok(Reply::Empty)
    }

    pub(super) async fn drop_data(&self, key: &str, name: &str) -> Result<(), Refusal> {
        let spec = self.read(|state| self.dataset_spec(state, key, name))?;
        let Some(spec) = spec else { return Ok(()) };
        let dropped = self.data().drop_data(spec).await;
        dropped.map_err(|message| Refusal::broken("java.io.IOException", message))
    }

    /// Where a managed dataset lies; `None` for others.
    fn dataset_spec(&self, state: &State, key: &str, name: &str) -> Result<Option<DatasetSpec>, Refusal> {
        let project = state.projects.get(key).ok_or_else(|| no_project(key))?;
        let dataset = project.datasets.get(name).ok_or_else(|| missing_dataset(key, name))?;
        if dataset["managed"] != true {
            return Ok(None);
        }
        let params = &dataset["params"];
        let text = |field: &str| params[field].as_str().unwrap_or_default().to_owned();
        let table = (params["metastoreSynchronizationEnabled"] == true)
            .then(|| (text("metastoreDatabaseName"), text("metastoreTableName")))
            .filter(|(database, table)| !database.is_empty() && !table.is_empty());
        let on = state.connections.get(&text("connection")).cloned().unwrap_or_default();
        let keys = self.s3_keys(&on);
        let (access_key, _) = keys.map_err(|message| Refusal::broken("java.io.IOException", message))?;
        Ok(Some(DatasetSpec {
            bucket: text("bucket"),
            path: text("path").trim_matches('/').to_owned(),
            table,
            columns: vec![("id".to_owned(), "bigint".to_owned())],
            access_key,
        }))
    }

    pub(super) fn recipes(&self, call: &Call, key: &str, rest: &[&str]) -> Answer {
        let missing = |name: &str| Refusal::missing(format!("Recipe does not exist: {key}.{name}"));
        match (call.method.as_str(), rest) {
            ("GET", []) => ok(json!(self.read(|state| {
                let recipes = state.projects[key].recipes.values();
                recipes.map(|recipe| recipe["recipe"].clone()).collect::<Vec<_>>()
            }))),
            ("POST", []) => {
                let body = call.json()?;
                let prototype = &body["recipePrototype"];
                let kind = Call::text(prototype, "type")?;
                let outputs = refs(prototype, "outputs", key);
                let Some(first) = outputs.first() else {
                    return Err(Refusal::illegal("A recipe needs an output"));
                };
                let name =
                    prototype["name"].as_str().map_or_else(|| format!("compute_{first}"), str::to_owned);
                let mut recipe = prototype.clone();
                recipe["name"] = json!(name);
                recipe["projectKey"] = json!(key);
                recipe["params"] = params(&kind, &prototype["params"]);
                let script = body["creationSettings"]["script"].as_str().unwrap_or_default().to_owned();
                self.try_write(|state| {
                    let project = state.projects.get_mut(key).ok_or_else(|| no_project(key))?;
                    for dataset in refs(prototype, "inputs", key).iter().chain(&outputs) {
                        if !project.datasets.contains_key(dataset) {
                            return Err(missing_dataset(key, dataset));
                        }
                    }
                    if project.recipes.contains_key(&name) {
                        self.duplicate(format!("Recipe {key}.{name} already exists"))?;
                    }
                    project.recipes.insert(name.clone(), json!({"recipe": recipe, "payload": script}));
                    Ok(())
                })?;
                ok(json!({"projectKey": key, "name": name}))
            }
            ("GET", [name]) => ok(self
                .read(|state| state.projects[key].recipes.get(*name).cloned())
                .ok_or_else(|| missing(name))?),
            ("PUT", [name]) => {
                let body = call.json()?;
                self.edit(key, |project| {
                    let stored = project.recipes.get_mut(*name)?;
                    let kind = stored["recipe"]["type"].as_str().unwrap_or_default().to_owned();
                    let mut recipe = body["recipe"].clone();
                    recipe["params"] = params(&kind, &body["recipe"]["params"]);
                    *stored = json!({"recipe": recipe, "payload": body["payload"]});
                    Some(())
                })?
                .ok_or_else(|| missing(name))?;
                ok(json!({"msg": format!("Updated recipe {name}")}))
            }
            ("DELETE", [name]) => {
                self.edit(key, |project| project.recipes.remove(*name))?.ok_or_else(|| missing(name))?;
                Ok(Reply::Empty)
            }
            _ => Err(unknown_route(call)),
        }
    }

    pub(super) fn jobs(&self, call: &Call, key: &str, rest: &[&str]) -> Answer {
        let missing = |id: &str| Refusal::missing(format!("Job not found: {id}"));
        match (call.method.as_str(), rest) {
            ("POST", []) => {
                let definition = call.json()?;
                let fails = call.course.is_some_and(|course| course.fails);
                let polls = call.course.map_or_else(|| self.behaviour().future_polls, |course| course.polls);
                let outputs: Vec<String> = definition["outputs"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|output| output["id"].as_str())
                    .map(|name| local(name, key).to_owned())
                    .collect();
                let id = self.try_write(|state| {
                    let id = state.new_id("Build_");
                    let project = state.projects.get_mut(key).ok_or_else(|| no_project(key))?;
                    let job = json!({"def": definition, "state": "RUNNING", "polls": polls, "log": ""});
                    project.jobs.insert(id.clone(), job);
                    Ok(id)
                })?;
                let (dss, key, job, life) = (self.clone(), key.to_owned(), id.clone(), self.life());
                tokio::spawn(async move {
                    dss.pause(3.0).await;
                    let ended = if fails {
                        Err("the job failed, as scripted".to_owned())
                    } else {
                        dss.build(&key, &outputs).await
                    };
                    if dss.life() == life {
                        dss.job_ended(&key, &job, ended);
                    }
                });
                ok(json!({"id": id}))
            }
            ("GET", []) => ok(json!(self.read(|state| {
                let jobs = state.projects[key].jobs.iter();
                jobs.map(|(id, job)| json!({"def": {"id": id}, "state": job["state"]})).collect::<Vec<_>>()
            }))),
            ("GET", [id]) => {
                let state = self
                    .edit(key, |project| {
                        let job = project.jobs.get_mut(*id)?;
                        let left = job["polls"].as_u64().unwrap_or_default();
                        if left > 0 {
                            job["polls"] = json!(left - 1);
                            return Some(json!("RUNNING"));
                        }
                        Some(job["state"].clone())
                    })?
                    .ok_or_else(|| missing(id))?;
                let (done, failed) = (u32::from(state == "DONE"), u32::from(state == "FAILED"));
                ok(json!({
                    "baseStatus": {"def": {"id": id, "projectKey": key}, "state": state},
                    "globalState": {"done": done, "failed": failed, "total": 1}
                }))
            }
            ("GET", [id, "log"]) => {
                let job = self
                    .read(|state| state.projects[key].jobs.get(*id).cloned())
                    .ok_or_else(|| missing(id))?;
                Ok(Reply::Text(job["log"].as_str().unwrap_or_default().to_owned()))
            }
            ("POST", [id, "abort"]) => {
                self.edit(key, |project| {
                    let job = project.jobs.get_mut(*id)?;
                    if job["state"] == "RUNNING" || job["polls"].as_u64() > Some(0) {
                        job["state"] = json!("ABORTED");
                        job["polls"] = json!(0);
                    }
                    Some(())
                })?
                .ok_or_else(|| missing(id))?;
                ok(json!({"msg": "Job aborted"}))
            }
            _ => Err(unknown_route(call)),
        }
    }

    fn job_ended(&self, key: &str, id: &str, ended: Result<(), String>) {
        self.write(|state| {
            let job = state.projects.get_mut(key).and_then(|project| project.jobs.get_mut(id));
            if let Some(job) = job.filter(|job| job["state"] == "RUNNING") {
                job["state"] = json!(if ended.is_ok() { "DONE" } else { "FAILED" });
                job["log"] = json!(ended.err().unwrap_or_default());
            }
        });
    }

    /// Builds datasets with all they are made of, each once. Datasets that no recipe makes are taken as they are.
    async fn build(&self, key: &str, outputs: &[String]) -> Result<(), String> {
        let order = self.read(|state| {
            let project = state.projects.get(key).ok_or_else(|| format!("Project not found: {key}"))?;
            let mut order = Vec::new();
            for output in outputs {
                visit(project, key, output, &mut BTreeSet::new(), &mut order);
            }
            Ok::<_, String>(order)
        })?;
        let mut rows = 1;
        for (recipe, output) in order {
            let spec = self.read(|state| {
                can_run(state, key, &recipe["recipe"])?;
                self.dataset_spec(state, key, &output).map_err(|refusal| refusal.text())
            })?;
            if let Some(named) = named_rows(recipe["payload"].as_str().unwrap_or_default()) {
                rows = named;
            }
            let Some(spec) = spec else { continue };
            let columns: Vec<Value> =
                spec.columns.iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect();
            self.data().write(spec, rows).await?;
            self.write(|state| {
                let dataset =
                    state.projects.get_mut(key).and_then(|project| project.datasets.get_mut(&output));
                if let Some(dataset) = dataset {
                    dataset["schema"]["columns"] = json!(columns);
                }
            });
            self.synchronize(key, &output).await.map_err(|refusal| refusal.text())?;
        }
        Ok(())
    }
}

/// The recipes that make `output`, inputs first.
fn visit(
    project: &Project,
    key: &str,
    output: &str,
    seen: &mut BTreeSet<String>,
    order: &mut Vec<(Value, String)>,
) {
    if !seen.insert(output.to_owned()) {
        return;
    }
    let makes = |recipe: &&Value| refs(&recipe["recipe"], "outputs", key).iter().any(|made| made == output);
    let Some(recipe) = project.recipes.values().find(makes) else { return };
    for input in refs(&recipe["recipe"], "inputs", key) {
        visit(project, key, &input, seen, order);
    }
    order.push((recipe.clone(), output.to_owned()));
}

/// Whether a recipe could be run: its configuration is there and its cluster runs.
fn can_run(state: &State, key: &str, recipe: &Value) -> Result<(), String> {
    let configs =
        |pointer: &str| state.general.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let params = &recipe["params"];
    if let Some(name) = params["containerSelection"]["containerConf"].as_str()
        && !configs("/containerSettings/executionConfigs").iter().any(|config| config["name"] == name)
    {
        return Err(format!("Container configuration '{name}' does not exist"));
    }
    if recipe["type"] == "pyspark" {
        let name = params["sparkConfig"]["inheritConf"].as_str().unwrap_or("default");
        let configs = configs("/sparkSettings/executionConfigs");
        let config = configs.iter().find(|config| config["name"] == name);
        let config = config.ok_or_else(|| format!("Spark configuration '{name}' does not exist"))?;
        if state.general["sparkSettings"]["sparkEnabled"] != true {
            return Err("Spark is not enabled on this instance".to_owned());
        }
        if config["kubernetesSettings"]["managedKubernetes"] != true {
            return Err(format!("Spark configuration '{name}' is not managed on Kubernetes"));
        }
    }
    let chosen =
        state.projects[key].settings.pointer("/settings/k8sCluster/clusterId").and_then(Value::as_str);
    let default = state.general["defaultK8sClusterId"].as_str().filter(|id| !id.is_empty());
    let cluster = chosen.or(default).ok_or("No default Kubernetes cluster selected")?;
    match state.clusters.get(cluster) {
        Some(found) if found.state == ClusterState::Running => Ok(()),
        Some(_) => Err(format!("Cluster {cluster} is not running")),
        None => Err(format!("Cluster {cluster} does not exist")),
    }
}

/// The `N` of the first `range(N)` in the code.
fn named_rows(code: &str) -> Option<u64> {
    let rest = &code[code.find("range(")? + "range(".len()..];
    rest[..rest.find(')')?].trim().parse().ok()
}

/// The params that survive.
fn params(kind: &str, sent: &Value) -> Value {
    let fields = sent.as_object().cloned().unwrap_or_default();
    let known = PARAMS.iter().find(|(name, _)| *name == kind).map(|(_, known)| *known);
    let kept = fields.into_iter().filter(|(key, _)| known.is_none_or(|known| known.contains(&key.as_str())));
    let mut kept: Map<String, Value> = kept.collect();
    kept.entry("envSelection").or_insert_with(|| json!({"envMode": "INHERIT"}));
    kept.entry("containerSelection").or_insert_with(|| json!({"containerMode": "INHERIT"}));
    Value::Object(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_says_how_many_rows_there_are() {
        assert_eq!(named_rows("df = pd.DataFrame({'id': range( 12 )})"), Some(12));
        assert_eq!(named_rows("for x in range(n): pass"), None);
        assert_eq!(named_rows(""), None);
    }
}
