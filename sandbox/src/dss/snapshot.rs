//! The instance in normal form: what an operator would call its settings, comparable before and after a run.
//!
//! Left out: secrets, hashes, timestamps, generated ids, futures, query and job history.

use serde_json::{Map, Value, json};

use super::FakeDss;
use super::state::{WRAPPED, password_hash};

impl FakeDss {
    /// The instance in normal form. Keys are sorted, generated ids and secrets left out.
    pub fn snapshot(&self) -> Value {
        let value = self.read(|state| {
            let plugins: Map<String, Value> = state
                .plugins
                .iter()
                .map(|(id, plugin)| {
                    (id.clone(), json!({"version": plugin.version, "codeEnv": plugin.code_env, "presets": plugin.presets}))
                })
                .collect();
            let clusters: Map<String, Value> = state
                .clusters
                .iter()
                .map(|(id, cluster)| {
                    let mut settings = cluster.settings.clone();
                    if let Some(fields) = settings.as_object_mut() {
                        fields.remove("data");
                        fields.remove("owner");
                        fields.insert("state".to_owned(), json!(cluster.state));
                        if !cluster.pods.is_empty() {
                            fields.insert("pods".to_owned(), json!(cluster.pods));
                        }
                    }
                    (id.clone(), settings)
                })
                .collect();
            let projects: Map<String, Value> = state
                .projects
                .iter()
                .map(|(key, project)| {
                    let shown = json!({
                        "summary": project.summary, "settings": project.settings, "metadata": project.metadata,
                        "datasets": project.datasets, "recipes": project.recipes, "scenarios": project.scenarios.keys().collect::<Vec<_>>()
                    });
                    (key.clone(), shown)
                })
                .collect();
            let users: Map<String, Value> =
                state.users.iter().map(|(login, user)| (login.clone(), user.settings.clone())).collect();
            let mut labels: Vec<&str> = state.keys.iter().map(|key| key.label.as_str()).collect();
            labels.sort_unstable();
            let mut images = state.base_images.clone();
            images.sort();
            let default_password = state.users.get("admin").map(|user| user.password_sha256 == password_hash("admin", "admin"));
            json!({
                "generalSettings": state.general, "connections": state.connections, "plugins": plugins,
                "clusters": clusters, "projects": projects, "groups": state.groups, "users": users,
                "adminHasDefaultPassword": default_password, "apiKeyLabels": labels,
                "license": state.license.as_ref().map(|_| "set"), "variables": state.variables,
                "codeEnvs": state.code_envs, "baseImages": images
            })
        });
        normal(value)
    }
}

/// Sorts keys and hides wrapped secrets, which differ every time.
fn normal(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut entries: Vec<(String, Value)> =
                fields.into_iter().map(|(key, value)| (key, normal(value))).collect();
            entries.sort_by(|(left, _), (right, _)| left.cmp(right));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(normal).collect()),
        Value::String(text) if text.starts_with(WRAPPED) => Value::from("<secret>"),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}
