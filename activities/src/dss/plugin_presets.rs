//! The two presets of the EKS plugin: an empty connection to AWS (the service user's own credentials) and the
//! network.
//!
//! The type string of a preset is opaque and copied from the plugin's own description.
//!
//! # Idempotency
//! The presets are compared by name first; equal ones are not written.
//! # Compensation
//! Presets we added are removed, keys we changed are put back, where they still hold our values.
//!
//! Page: <https://doc.dataiku.com/dss/latest/containers/eks/managed.html>

use dssflow_engine::activity::{ActivityError, ActivityResult};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::DssTarget;
use super::document::{DocumentInput, DocumentUpdate, Place};
use super::plugin::default_plugin;
use super::tree::overlaid;

/// The registered name.
pub const NAME: &str = "dss.plugin-presets";
/// The activity.
pub(crate) type PluginPresets = DocumentUpdate<PluginPresetsInput>;

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginPresetsInput {
    /// Which DSS.
    pub target: DssTarget,
    /// The plugin.
    #[serde(default = "default_plugin")]
    pub plugin_id: String,
    /// Name of the preset of `connection-info`.
    pub connection_preset: String,
    /// Region in it; without it the environment decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Name of the preset of `networking-settings`.
    pub network_preset: String,
    /// Subnets of the cluster.
    pub subnets: Vec<String>,
    /// Security groups of the nodes.
    pub security_groups: Vec<String>,
    /// Whether nodes get private addresses only.
    #[serde(default)]
    pub private: bool,
    /// Merged into the plugin's settings as they are written; `null` takes a key out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Value>,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginPresetsOutput {
    /// Name of the preset of `connection-info`.
    pub connection_preset: String,
    /// Name of the preset of `networking-settings`.
    pub network_preset: String,
}

/// The type of a parameter set, from either of the two places a plugin describes it in.
fn element_type(settings: &Value, set: &str) -> ActivityResult<String> {
    let find = |list: &str, id: &str, kind: &str| {
        let items = settings[list].as_array()?;
        items.iter().find(|item| item[id] == set)?[kind].as_str().map(str::to_owned)
    };
    find("parameterSets", "name", "type")
        .or_else(|| find("accessibleParameterSetDescs", "id", "elementType"))
        .ok_or_else(|| {
            ActivityError::terminal("ParameterSetMissing", format!("the plugin has no parameter set {set}"))
                .help("this version of the EKS plugin differs from the ones dssflow knows (1.5)")
                .no_effect()
        })
}

impl DocumentInput for PluginPresetsInput {
    type Output = PluginPresetsOutput;

    fn target(&self) -> &DssTarget {
        &self.target
    }

    fn place(&self) -> Place {
        Place::Plugin(self.plugin_id.clone())
    }

    fn patch(&self, document: &Value) -> ActivityResult<Value> {
        let preset = |name: &str, set: &str, config: Value| -> ActivityResult<Value> {
            Ok(json!({
                "name": name, "type": element_type(document, set)?, "config": config, "pluginConfig": {},
                "defaultPermission": {"use": true}, "permissions": []
            }))
        };
        let connection = match &self.region {
            Some(region) => json!({"region": region}),
            None => json!({}),
        };
        let mut network = json!({"subnets": self.subnets, "securityGroups": self.security_groups, "privateNetworking": self.private});
        if self.private {
            network["privateSubnets"] = json!(self.subnets);
        }
        let ours = json!({"presets": [
            preset(&self.connection_preset, "connection-info", connection)?,
            preset(&self.network_preset, "networking-settings", network)?
        ]});
        Ok(overlaid(ours, self.overlay.as_ref()))
    }

    fn output(&self, _document: &Value) -> PluginPresetsOutput {
        PluginPresetsOutput {
            connection_preset: self.connection_preset.clone(),
            network_preset: self.network_preset.clone(),
        }
    }

    fn describe(&self) -> String {
        format!("presets {} and {} of plugin {}", self.connection_preset, self.network_preset, self.plugin_id)
    }
}
