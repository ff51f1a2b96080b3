//! The code environment of the EKS plugin, made by DSS and chosen in the plugin's settings.
//!
//! The interpreter is named: DSS's own default may be one the host lacks, and that failure shows only later and
//! under another name.
//!
//! # Idempotency
//! A plugin that has a code environment is left alone; one that was made and not chosen yet is chosen.
//! # Compensation
//! Where the settings still name the environment this run made, the choice is taken back and the environment
//! deleted.
//!
//! Page: <https://doc.dataiku.com/dss/latest/plugins/installing.html>

use std::collections::BTreeMap;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{DssClient, DssTarget};
use super::document::Place;
use super::plugin::default_plugin;

/// The registered name.
pub const NAME: &str = "dss.plugin-code-env";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginCodeEnvInput {
    /// Which DSS.
    pub target: DssTarget,
    /// The plugin.
    #[serde(default = "default_plugin")]
    pub plugin_id: String,
    /// The interpreter as DSS names it, `PYTHON39` to `PYTHON311`.
    pub interpreter: String,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginCodeEnvOutput {
    /// Name of the code environment.
    pub env_name: String,
}

/// The activity.
pub(crate) struct PluginCodeEnv;

/// The name DSS gives the environment of a plugin.
fn managed_name(plugin: &str) -> String {
    format!("plugin_{plugin}_managed")
}

fn chosen(settings: &Value) -> Option<&str> {
    settings["codeEnvName"].as_str().filter(|name| !name.is_empty())
}

async fn env_exists(client: &DssClient, name: &str) -> ActivityResult<bool> {
    let list = client.get(&["admin", "code-envs", ""]).await?;
    Ok(list.as_array().is_some_and(|envs| envs.iter().any(|env| env["envName"] == name)))
}

impl PluginCodeEnvInput {
    async fn settings(&self, client: &DssClient) -> ActivityResult<Value> {
        Place::Plugin(self.plugin_id.clone()).read(client).await?.ok_or_else(|| {
            ActivityError::terminal("PluginMissing", format!("plugin {} is not installed", self.plugin_id))
                .no_effect()
        })
    }

    async fn choose(&self, client: &DssClient, name: Option<&str>) -> ActivityResult<()> {
        let mut settings = self.settings(client).await?;
        settings["codeEnvName"] = json!(name);
        client.post(&["plugins", &self.plugin_id, "settings"], Some(&settings)).await?;
        let stored = self.settings(client).await?;
        if chosen(&stored) == name {
            return Ok(());
        }
        Err(ActivityError::terminal(
            "SettingsDropped",
            format!("plugin {}: DSS did not keep codeEnvName", self.plugin_id),
        ))
    }
}

impl Activity for PluginCodeEnv {
    type Input = PluginCodeEnvInput;
    type Output = PluginCodeEnvOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Update
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &PluginCodeEnvInput,
    ) -> ActivityResult<PluginCodeEnvOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let name = managed_name(&input.plugin_id);
        let mut before = BTreeMap::from([("codeEnvName".to_owned(), Value::Null)]);
        let exists = env_exists(&client, &name).await?;
        if !exists {
            before.insert("env".to_owned(), Value::Null);
        }
        ctx.record_before(before).await?;
        let name = if exists {
            name
        } else {
            let body = json!({"deploymentMode": "PLUGIN_MANAGED", "conda": false, "pythonInterpreter": input.interpreter});
            let path = ["plugins", &input.plugin_id, "code-env", "actions", "create"];
            let start = async {
                // What an earlier task of ours has made in the end is not made again.
                if env_exists(&client, &name).await? {
                    return Ok(json!({"hasResult": true, "result": {"envName": name}}));
                }
                client.post(&path, Some(&body)).await
            };
            let result = client.task(ctx, "creation of the plugin's code environment", start).await.map_err(
                |error| {
                    error.help(format!(
                        "is {} on the host, and does it reach PyPI? the log of the code env in DSS says",
                        input.interpreter
                    ))
                },
            )?;
            result["envName"].as_str().map_or(name, str::to_owned)
        };
        ctx.record_resource("dss:code-env", &name).await?;
        input.choose(&client, Some(&name)).await?;
        Ok(PluginCodeEnvOutput { env_name: name })
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &PluginCodeEnvInput,
    ) -> ActivityResult<Probe<PluginCodeEnvOutput>> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let Some(settings) = Place::Plugin(input.plugin_id.clone()).read(&client).await? else {
            return Ok(Probe::Absent);
        };
        Ok(match chosen(&settings) {
            Some(name) => {
                let output = PluginCodeEnvOutput { env_name: name.to_owned() };
                Probe::Present { output, owner: Owner::ThisSite(String::new()) }
            }
            None => Probe::Absent,
        })
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &PluginCodeEnvInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        if !recorded.before.contains_key("codeEnvName") {
            return Ok(Undo::NothingToDo);
        }
        let client = DssClient::connect(ctx, &input.target).await?;
        let name = recorded
            .ids("dss:code-env")
            .next_back()
            .map_or_else(|| managed_name(&input.plugin_id), str::to_owned);
        let mut undo = Undo::NothingToDo;
        if let Some(settings) = Place::Plugin(input.plugin_id.clone()).read(&client).await? {
            match chosen(&settings) {
                Some(current) if current == name => {
                    input.choose(&client, None).await?;
                    undo = Undo::Undone;
                }
                Some(other) => {
                    let reason = format!("plugin {} uses the code environment {other} now", input.plugin_id);
                    return Ok(Undo::Kept { reason });
                }
                None => {}
            }
        }
        if recorded.before.contains_key("env") && env_exists(&client, &name).await? {
            let path = ["admin", "code-envs", "PYTHON", &name];
            let delete = client.delete_known(&path, &[("wait", "True")], env_exists(&client, &name));
            client.task(ctx, "deletion of the plugin's code environment", delete).await?;
            undo = Undo::Undone;
        }
        Ok(undo)
    }

    fn describe(&self, input: &PluginCodeEnvInput) -> String {
        format!("code environment of plugin {} on {}", input.plugin_id, input.interpreter)
    }
}
