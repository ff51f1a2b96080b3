//! What is left of the instance: identity, sanity check, base-image pushes, SQL, variables and code envs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::FakeDss;
use super::backend::QueryResult;
use super::general::push_targets;
use super::plugins::unknown_route;
use super::reply::{Answer, Call, Refusal, Reply, messages, ok};
use super::state::State;

/// A query whose rows have not been fetched yet.
#[derive(Debug)]
pub(super) struct OpenQuery {
    result: QueryResult,
}

impl FakeDss {
    pub(super) fn auth_info(call: &Call) -> Answer {
        ok(
            json!({"authIdentifier": format!("api:{}", call.key_id), "authSource": "GLOBAL_API_KEY", "groups": ["administrators"],
                  "associatedDSSUser": "admin", "via": [], "secrets": []}),
        )
    }

    pub(super) fn instance_info(&self) -> Answer {
        ok(
            json!({"nodeId": "dss-sandbox", "nodeName": "dss-sandbox", "nodeType": "DESIGN", "dssVersion": self.version()}),
        )
    }

    pub(super) fn sanity_check(&self, call: &Call) -> Answer {
        let excluded = call.json()?;
        let dss = self.clone();
        let work = async move {
            let codes = dss.read(sanity_codes);
            let listed =
                |code: &str| excluded.as_array().is_some_and(|list| list.iter().any(|item| item == code));
            let found: Vec<Value> = codes
                .into_iter()
                .filter(|code| !listed(code))
                .map(|code| json!({"severity": "WARNING", "isFatal": false, "code": code, "title": code, "message": code, "details": code}))
                .collect();
            let any = !found.is_empty();
            json!({"messages": found, "anyMessage": any, "success": false, "warning": any, "error": false, "fatal": false,
                   "maxSeverity": if any { "WARNING" } else { "INFO" }})
        };
        self.future(call, "sanity-check", 0.2, work)
    }

    /// Pushes every recorded base image to every registry the settings name for its kind.
    pub(super) fn push_base_images(&self, call: &Call) -> Answer {
        let dss = self.clone();
        let work = async move {
            let (targets, images) =
                dss.read(|state| (push_targets(&state.general), state.base_images.clone()));
            let mut pushed = Vec::new();
            for target in &targets {
                let prefix = target.registry.split_once('/').map_or("", |(_, prefix)| prefix);
                for image in images.iter().filter(|image| image.kind == target.kind) {
                    let repository = match prefix {
                        "" => image.repository.clone(),
                        prefix => format!("{prefix}/{}", image.repository),
                    };
                    let push = dss.images().push(repository.clone(), image.tag.clone(), image.digest.clone());
                    if let Err(message) = push.await {
                        let text = format!("Failed to push {repository}:{}: {message}", image.tag);
                        return json!({"success": false, "messages": messages(Some(("ERR_CONTAINER_IMAGE_PUSH_FAILED", &text)))});
                    }
                    pushed.push(format!("{}/{}:{}", target.registry, image.repository, image.tag));
                }
            }
            json!({"success": true, "pushed": pushed, "messages": messages(None)})
        };
        self.future(call, "push-base-images", 2.0, work)
    }

    pub(super) fn container_task(&self, call: &Call, kind: &'static str) -> Answer {
        self.future(call, kind, 0.2, async { json!({"success": true, "messages": messages(None)}) })
    }

    pub(super) async fn sql_query(&self, call: &Call) -> Answer {
        let body = call.json()?;
        let sql = Call::text(&body, "query")?;
        let connection = Call::text(&body, "connection")?;
        let spec = self.read(|state| self.athena_query(state, &connection, sql));
        let mut spec = spec.map_err(|message| Refusal::broken("java.sql.SQLException", message))?;
        if let Some(database) = body["database"].as_str().filter(|database| !database.is_empty()) {
            database.clone_into(&mut spec.database);
        }
        let result = self.queries().query(spec).await;
        let result = result.map_err(|message| Refusal::broken("java.sql.SQLException", message))?;
        let columns: Vec<Value> =
            result.columns.iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect();
        let id = format!("q-{}", hex::encode(rand::random::<[u8; 6]>()));
        self.open_queries().insert(id.clone(), OpenQuery { result });
        // The client's documentation says `{columns: [...]}`, but its row reader only works with the plain list.
        ok(json!({"queryId": id, "hasResults": true, "schema": columns}))
    }

    pub(super) fn sql_rows(&self, id: &str) -> Answer {
        let open = self.open_queries();
        let query = open.get(id).ok_or_else(|| Refusal::missing(format!("Unknown query: {id}")))?;
        let lines = query
            .result
            .rows
            .iter()
            .map(|row| row.iter().map(|cell| tsv(cell)).collect::<Vec<_>>().join("\t"));
        Ok(Reply::Text(lines.map(|line| line + "\n").collect()))
    }

    pub(super) fn sql_finish(&self, id: &str) -> Answer {
        self.open_queries().remove(id).ok_or_else(|| Refusal::missing(format!("Unknown query: {id}")))?;
        Ok(Reply::Empty)
    }

    pub(super) fn variables(&self, call: &Call) -> Answer {
        if call.method == "GET" {
            return ok(self.read(|state| state.variables.clone()));
        }
        let body = call.json()?;
        self.write(|state| state.variables = body);
        Ok(Reply::Empty)
    }

    pub(super) fn code_envs(&self, call: &Call, rest: &[&str]) -> Answer {
        match (call.method.as_str(), rest) {
            ("GET", []) => {
                ok(json!(self.read(|state| state.code_envs.values().cloned().collect::<Vec<_>>())))
            }
            ("POST", [lang, name]) => {
                let body = call.json()?;
                let env = json!({"envName": name, "envLang": lang, "deploymentMode": body["deploymentMode"], "owner": "admin",
                                 "pythonInterpreter": body["pythonInterpreter"]});
                self.write(|state| state.code_envs.insert(format!("{lang}/{name}"), env));
                ok(json!({"messages": messages(None)}))
            }
            (method, [lang, name, rest @ ..]) => {
                let key = format!("{lang}/{name}");
                let env = self.read(|state| state.code_envs.get(&key).cloned());
                let env = env.ok_or_else(|| Refusal::missing(format!("Code env does not exist: {key}")))?;
                match (method, rest) {
                    ("GET", []) => ok(env),
                    ("POST", ["images"]) => ok(json!({"messages": messages(None)})),
                    ("GET", ["logs"]) => ok(json!([])),
                    ("DELETE", []) => {
                        self.write(|state| state.code_envs.remove(&key));
                        ok(json!({"messages": messages(None)}))
                    }
                    _ => Err(unknown_route(call)),
                }
            }
            _ => Err(unknown_route(call)),
        }
    }
}

/// What the instance's own diagnosis would complain about.
fn sanity_codes(state: &State) -> Vec<&'static str> {
    let mut codes = Vec::new();
    if state.base_images.is_empty() {
        codes.push("WARN_MISC_BASE_IMAGE_NOT_FOUND");
    }
    let selected = state.general["defaultK8sClusterId"].as_str().is_some_and(|id| !id.is_empty());
    if !state.clusters.is_empty() && !selected {
        codes.push("WARN_CLUSTERS_NONE_SELECTED_GLOBAL");
    }
    let unreadable = |connection: &Value| {
        connection["type"] == "EC2" && connection["detailsReadability"]["readableBy"] == "NONE"
    };
    if state.connections.values().any(unreadable) {
        codes.push("WARN_CONNECTION_SPARK_NO_GROUP_WITH_DETAILS_READ_ACCESS");
    }
    codes
}

/// One cell of the excel flavour of TSV.
fn tsv(cell: &str) -> String {
    if cell.contains(['\t', '\n', '"']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// Queries opened and not finished, by id.
pub(super) type OpenQueries = BTreeMap<String, OpenQuery>;
