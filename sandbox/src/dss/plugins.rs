//! Plugins: the store has one, `eks-clusters`, with its three parameter sets.

use serde_json::{Map, Value, json};

use super::FakeDss;
use super::reply::{Answer, Call, Refusal, Reply, messages, ok};
use super::state::{Plugin, State};

/// The plugin that runs EKS clusters.
pub(super) const EKS: &str = "eks-clusters";
/// The version the fake store carries.
const EKS_VERSION: &str = "1.5.0";

/// Parameter sets of the EKS plugin and their fields.
const PARAMETER_SETS: &[(&str, &[&str])] = &[
    ("connection-info", &["accessKey", "secretKey", "sessionToken", "region"]),
    (
        "networking-settings",
        &["subnets", "privateNetworking", "privateSubnets", "securityGroups", "controlPlaneSG", "sharedSG"],
    ),
    (
        "node-pool-request",
        &[
            "nodeGroupId",
            "machineType",
            "numNodes",
            "useSpotInstances",
            "numNodesAutoscaling",
            "minNumNodes",
            "maxNumNodes",
            "diskType",
            "diskSizeGb",
            "publicKeyName",
            "labels",
            "taints",
            "enableGPU",
            "addPreBootstrapCommands",
            "preBootstrapCommands",
            "tags",
        ],
    ),
];

/// Type string of a parameter set; opaque to clients, who must copy it.
pub(super) fn element_type(set: &str) -> String {
    format!("parameter-set-{EKS}-{set}")
}

/// Fields of the parameter set whose element type is `kind`.
fn fields_of(kind: &str) -> Option<&'static [&'static str]> {
    PARAMETER_SETS.iter().find(|(set, _)| element_type(set) == kind).map(|(_, fields)| *fields)
}

impl FakeDss {
    pub(super) fn plugin_list(&self) -> Answer {
        let list: Vec<Value> = self.read(|state| {
            let plugins = state.plugins.iter();
            plugins.map(|(id, plugin)| json!({"id": id, "version": plugin.version, "isDev": false})).collect()
        });
        ok(json!(list))
    }

    pub(super) fn plugin_install(&self, call: &Call, how: &str) -> Answer {
        let (id, version) = match how {
            "installFromStore" => {
                let id = Call::text(&call.json()?, "pluginId")?;
                (id, EKS_VERSION.to_owned())
            }
            "installFromGit" => {
                let url = Call::text(&call.json()?, "gitRepositoryUrl")?;
                let name = url.trim_end_matches(".git").rsplit('/').next().unwrap_or_default().to_owned();
                (name.trim_start_matches("dss-plugin-").to_owned(), EKS_VERSION.to_owned())
            }
            _ => uploaded(&call.body)?,
        };
        let dss = self.clone();
        let work = async move {
            dss.write(|state| {
                if id != EKS {
                    let text = format!("Plugin '{id}' is not in the store");
                    return json!({"success": false, "messages": messages(Some(("ERR_PLUGIN_NOT_FOUND", &text)))});
                }
                if state.plugins.contains_key(&id) {
                    let text = format!("Plugin '{id}' is already installed");
                    return json!({"success": false, "messages": messages(Some(("ERR_PLUGIN_ALREADY_INSTALLED", &text)))});
                }
                state.plugins.insert(id.clone(), Plugin { version, code_env: None, presets: Vec::new() });
                json!({"success": true, "pluginId": id, "messages": messages(None)})
            })
        };
        self.future(call, "plugin-install", 1.0, work)
    }

    /// The synchronous upload: the official client wants a JSON reply.
    pub(super) fn plugin_upload(&self, call: &Call) -> Answer {
        let (id, version) = uploaded(&call.body)?;
        self.try_write(|state| {
            if state.plugins.contains_key(&id) {
                return Err(Refusal::illegal(format!("Plugin '{id}' is already installed")));
            }
            state.plugins.insert(id.clone(), Plugin { version, code_env: None, presets: Vec::new() });
            Ok(())
        })?;
        ok(json!({"success": true}))
    }

    pub(super) fn plugin(&self, call: &Call, id: &str, rest: &[&str]) -> Answer {
        self.read(|state| installed(state, id).map(|_| ()))?;
        match (call.method.as_str(), rest) {
            ("GET", ["settings"]) => self.plugin_settings(id),
            ("POST", ["settings"]) => self.plugin_save(call, id),
            ("POST", ["code-env", "actions", "create"]) => self.plugin_code_env(call, id),
            (
                "POST",
                ["code-env", "actions", "update"] | ["actions", "updateFromStore" | "updateFromGit"],
            ) => self.future(call, "plugin-update", 1.0, async {
                json!({"success": true, "messages": messages(None)})
            }),
            ("GET", ["actions", "listUsages"]) => {
                let usages = self.read(|state| usages(state, id));
                ok(json!({"usages": usages, "missingTypes": []}))
            }
            ("POST", ["actions", "delete"]) => self.plugin_delete(call, id),
            _ => Err(unknown_route(call)),
        }
    }

    fn plugin_settings(&self, id: &str) -> Answer {
        let plugin = self.read(|state| installed(state, id).cloned())?;
        let sets = PARAMETER_SETS.iter();
        let parameter_sets: Vec<Value> = sets
            .clone()
            .map(|(set, _)| {
                json!({"name": set, "type": element_type(set), "defaultPermission": {"definableInline": true, "definableAtProjectLevel": true}})
            })
            .collect();
        let descriptions: Vec<Value> = sets
            .map(|(set, fields)| {
                let params: Vec<Value> = fields.iter().map(|name| json!({"name": name, "type": "STRING"})).collect();
                json!({"id": set, "elementType": element_type(set), "desc": {"params": params, "pluginParams": []}})
            })
            .collect();
        ok(json!({
            "codeEnvName": plugin.code_env, "presets": plugin.presets, "parameterSets": parameter_sets,
            "accessibleParameterSetDescs": descriptions, "config": {}, "permissions": []
        }))
    }

    /// Keeps what the plugin knows: presets of its own types with the fields of their set.
    fn plugin_save(&self, call: &Call, id: &str) -> Answer {
        let body = call.json()?;
        if !body.is_object() {
            return Err(Refusal::illegal("Plugin settings must be an object"));
        }
        let presets: Vec<Value> =
            body["presets"].as_array().into_iter().flatten().filter_map(kept_preset).collect();
        self.write(|state| {
            if let Some(plugin) = state.plugins.get_mut(id) {
                plugin.presets = presets;
                plugin.code_env = body["codeEnvName"].as_str().map(str::to_owned);
            }
        });
        Ok(Reply::Empty)
    }

    fn plugin_code_env(&self, call: &Call, id: &str) -> Answer {
        let body = call.json()?;
        let interpreter = body["pythonInterpreter"].as_str().unwrap_or("PYTHON39").to_owned();
        let (dss, id) = (self.clone(), id.to_owned());
        let work = async move {
            let supported = ["PYTHON36", "PYTHON37", "PYTHON38", "PYTHON39", "PYTHON310", "PYTHON311"];
            if !supported.contains(&interpreter.as_str()) {
                let text = format!("Plugin does not support interpreter {interpreter}");
                return json!({"messages": messages(Some(("ERR_CODEENV_CREATION_FAILED", &text)))});
            }
            let name = format!("plugin_{id}_managed");
            dss.write(|state| {
                let key = format!("PYTHON/{name}");
                let env = json!({
                    "envName": name, "envLang": "PYTHON", "deploymentMode": "PLUGIN_MANAGED", "owner": "admin",
                    "pythonInterpreter": interpreter
                });
                state.code_envs.insert(key, env);
            });
            json!({"envName": name, "envLang": "PYTHON", "messages": messages(None)})
        };
        self.future(call, "code-env-create", 2.0, work)
    }

    fn plugin_delete(&self, call: &Call, id: &str) -> Answer {
        let force = call.json()?["force"] == true;
        let (dss, id) = (self.clone(), id.to_owned());
        let work = async move {
            dss.write(|state| {
                if !force && !usages(state, &id).is_empty() {
                    let text = format!("Plugin '{id}' is used");
                    return json!({"success": false, "messages": messages(Some(("ERR_PLUGIN_IN_USE", &text)))});
                }
                state.plugins.remove(&id);
                state.code_envs.remove(&format!("PYTHON/plugin_{id}_managed"));
                json!({"success": true, "messages": messages(None)})
            })
        };
        self.future(call, "plugin-delete", 0.5, work)
    }
}

fn installed<'a>(state: &'a State, id: &str) -> Result<&'a Plugin, Refusal> {
    state.plugins.get(id).ok_or_else(|| Refusal::missing(format!("Plugin not found: {id}")))
}

fn usages(state: &State, id: &str) -> Vec<Value> {
    let prefix = format!("pycluster_{id}_");
    let used = state.clusters.iter().filter(|(_, cluster)| {
        cluster.settings["type"].as_str().is_some_and(|kind| kind.starts_with(&prefix))
    });
    used.map(|(cluster, value)| {
        json!({"elementKind": "python-clusters", "elementType": value.settings["type"], "objectId": cluster,
               "objectType": "CLUSTER", "projectKey": null})
    })
    .collect()
}

fn kept_preset(preset: &Value) -> Option<Value> {
    let fields = fields_of(preset["type"].as_str()?)?;
    let name = preset["name"].as_str().filter(|name| !name.is_empty())?;
    let config: Map<String, Value> = preset["config"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| fields.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let or = |key: &str, default: Value| {
        preset.get(key).filter(|value| !value.is_null()).cloned().unwrap_or(default)
    };
    Some(json!({
        "name": name, "type": preset["type"], "config": config, "pluginConfig": or("pluginConfig", json!({})),
        "defaultPermission": or("defaultPermission", json!({})), "permissions": or("permissions", json!([])),
        "owner": or("owner", Value::Null), "description": or("description", json!(""))
    }))
}

/// Plugin id and version from the file name of a multipart upload, `dss-plugin-ID-VERSION.zip`.
fn uploaded(body: &[u8]) -> Result<(String, String), Refusal> {
    let head = String::from_utf8_lossy(&body[..body.len().min(2048)]).into_owned();
    let named = head.split("filename=\"").nth(1).and_then(|rest| rest.split('"').next());
    let stem =
        named.and_then(|name| name.strip_suffix(".zip")).and_then(|name| name.strip_prefix("dss-plugin-"));
    match stem.and_then(|stem| stem.rsplit_once('-')) {
        Some((EKS, version)) => Ok((EKS.to_owned(), version.to_owned())),
        _ => Err(Refusal::illegal(
            "Not a plugin archive the sandbox knows: expected dss-plugin-eks-clusters-VERSION.zip",
        )),
    }
}

/// The answer to a path nothing is served at.
pub(super) fn unknown_route(call: &Call) -> Refusal {
    Refusal::missing(format!("No handler found for {} /{}", call.method, call.segments.join("/")))
}

/// The config of the preset `name` of `set`, if the plugin has it.
pub(super) fn preset(state: &State, set: &str, name: &str) -> Option<Value> {
    let presets = &state.plugins.get(EKS)?.presets;
    let kind = element_type(set);
    presets
        .iter()
        .find(|preset| preset["name"] == name && preset["type"] == *kind)
        .map(|preset| preset["config"].clone())
}
