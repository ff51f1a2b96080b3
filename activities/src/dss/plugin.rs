//! The EKS plugin, from Dataiku's store or from a pinned zip.
//!
//! A plugin carries no mark. What it held before ("not installed") is recorded before the install, and only then is
//! the plugin ours to remove.
//!
//! # Idempotency
//! The list of plugins is looked at first; an installed plugin is not installed again.
//! # Compensation
//! Deleted when this run installed it and nothing uses it; a used one is kept.
//!
//! Page: <https://doc.dataiku.com/dss/latest/plugins/installing.html>

use std::collections::BTreeMap;
use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::client::{DssClient, DssTarget};

/// The registered name.
pub const NAME: &str = "dss.plugin";
/// The plugin that runs EKS clusters.
pub const EKS_PLUGIN: &str = "eks-clusters";
/// The most a plugin archive may have, in bytes.
const MAX_ARCHIVE_BYTES: usize = 128 << 20;

/// Where the plugin comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum PluginSource {
    /// Dataiku's store, which the host must reach.
    Store,
    /// A zip that dssflow downloads, checks and uploads; its file name is the last part of the URL.
    Zip {
        /// Where it is.
        url: String,
        /// Its SHA-256, in hex.
        sha256: String,
    },
}

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginInput {
    /// Which DSS.
    pub target: DssTarget,
    /// The plugin.
    #[serde(default = "default_plugin")]
    pub plugin_id: String,
    /// The version it must have; any without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it comes from.
    pub source: PluginSource,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginOutput {
    /// The plugin.
    pub plugin_id: String,
    /// Its version, as DSS tells.
    pub version: String,
}

pub(crate) fn default_plugin() -> String {
    EKS_PLUGIN.to_owned()
}

/// The activity.
pub(crate) struct PluginInstall;

async fn installed(client: &DssClient, id: &str) -> ActivityResult<Option<PluginOutput>> {
    let list = client.get(&["plugins", ""]).await?;
    let found = list.as_array().into_iter().flatten().find(|plugin| plugin["id"] == id);
    Ok(found.map(|plugin| PluginOutput {
        plugin_id: id.to_owned(),
        version: plugin["version"].as_str().unwrap_or_default().to_owned(),
    }))
}

/// Starts the installation, unless an earlier one has ended well.
async fn start(client: &DssClient, input: &PluginInput) -> ActivityResult<Value> {
    if installed(client, &input.plugin_id).await?.is_some() {
        return Ok(json!({"hasResult": true, "result": {}}));
    }
    match &input.source {
        PluginSource::Store => {
            let body = json!({"pluginId": input.plugin_id});
            client.post(&["plugins", "actions", "installFromStore"], Some(&body)).await
        }
        PluginSource::Zip { url, sha256 } => {
            let bytes = download(url, sha256).await?;
            let name = url.rsplit('/').next().unwrap_or("plugin.zip");
            client.upload(&["plugins", "actions", "future", "installFromZip"], name, bytes).await
        }
    }
}

impl Activity for PluginInstall {
    type Input = PluginInput;
    type Output = PluginOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Update
    }

    async fn execute(&self, ctx: &ActivityContext, input: &PluginInput) -> ActivityResult<PluginOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        if let Some(found) = installed(&client, &input.plugin_id).await? {
            return Ok(found);
        }
        ctx.record_before(BTreeMap::from([("installed".to_owned(), Value::Null)])).await?;
        ctx.record_resource("dss:plugin", &input.plugin_id).await?;
        let what = format!("installation of plugin {}", input.plugin_id);
        client.task(ctx, &what, start(&client, input)).await?;
        installed(&client, &input.plugin_id).await?.ok_or_else(|| {
            ActivityError::retryable(
                "PluginMissing",
                format!("plugin {} is not listed after its installation", input.plugin_id),
            )
        })
    }

    async fn probe(&self, ctx: &ActivityContext, input: &PluginInput) -> ActivityResult<Probe<PluginOutput>> {
        let client = DssClient::connect(ctx, &input.target).await?;
        Ok(match installed(&client, &input.plugin_id).await? {
            Some(output) => Probe::Present { output, owner: Owner::ThisSite(String::new()) },
            None => Probe::Absent,
        })
    }

    async fn verify(
        &self,
        _ctx: &ActivityContext,
        input: &PluginInput,
        output: &PluginOutput,
    ) -> ActivityResult<()> {
        match &input.version {
            Some(wanted) if *wanted != output.version => Err(ActivityError::terminal(
                "PluginVersion",
                format!(
                    "plugin {} has version {}, the site wants {wanted}",
                    output.plugin_id, output.version
                ),
            )
            .help("update the plugin in DSS, or change plugin.version in the site")),
            _ => Ok(()),
        }
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &PluginInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        if !recorded.before.contains_key("installed") {
            return Ok(Undo::NothingToDo);
        }
        let client = DssClient::connect(ctx, &input.target).await?;
        if installed(&client, &input.plugin_id).await?.is_none() {
            return Ok(Undo::NothingToDo);
        }
        let usages = client.get(&["plugins", &input.plugin_id, "actions", "listUsages"]).await?;
        if let Some(usage) = usages["usages"].as_array().and_then(|list| list.first()) {
            let user = format!(
                "{} {}",
                usage["objectType"].as_str().unwrap_or("object"),
                usage["objectId"].as_str().unwrap_or_default()
            );
            return Ok(Undo::Kept { reason: format!("plugin {} is used by {user}", input.plugin_id) });
        }
        let body = json!({"force": false});
        let path = ["plugins", &input.plugin_id, "actions", "delete"];
        let what = format!("deletion of plugin {}", input.plugin_id);
        let deleted = client.task(ctx, &what, client.post(&path, Some(&body))).await;
        // A deletion whose reply was lost, or whose task a restart forgot, may have been done.
        if let Err(error) = deleted
            && installed(&client, &input.plugin_id).await?.is_some()
        {
            return Err(error);
        }
        Ok(Undo::Undone)
    }

    fn describe(&self, input: &PluginInput) -> String {
        let from = match &input.source {
            PluginSource::Store => "Dataiku's store",
            PluginSource::Zip { url, .. } => url,
        };
        format!("plugin {} from {from}", input.plugin_id)
    }
}

/// Downloads a file of known content into memory.
async fn download(url: &str, sha256: &str) -> ActivityResult<Vec<u8>> {
    // Unlike DSS itself, a download may stand behind a proxy and redirect.
    let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(10)).build();
    let client =
        client.map_err(|error| ActivityError::terminal("HttpClient", error.to_string()).no_effect())?;
    let failed = |error: reqwest::Error| {
        ActivityError::retryable("Download", format!("{url} cannot be downloaded: {error}")).no_effect()
    };
    let response =
        client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    let mut stream = response.bytes_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.map_err(failed)?);
        if bytes.len() > MAX_ARCHIVE_BYTES {
            return Err(ActivityError::terminal(
                "Download",
                format!("{url} has more than {MAX_ARCHIVE_BYTES} bytes"),
            )
            .no_effect());
        }
    }
    let found = hex::encode(Sha256::digest(&bytes));
    if found.eq_ignore_ascii_case(sha256) {
        return Ok(bytes);
    }
    Err(ActivityError::terminal("Checksum", format!("{url} has SHA-256 {found}, the site wants {sha256}"))
        .no_effect())
}
