//! Spark on Kubernetes: enabled, and managed in every named configuration of the spec.
//!
//! A configuration that exists is edited in place: its own `conf` stays, our properties are merged into it by key.
//!
//! # Idempotency
//! The managed keys are compared first; equal ones are not written.
//! # Compensation
//! The old keys are put back where they still hold our values; configurations we added are removed.
//!
//! Page: <https://doc.dataiku.com/dss/latest/spark/kubernetes/index.html>

use std::collections::BTreeMap;

use dssflow_engine::activity::ActivityResult;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::DssTarget;
use super::container_config::default_namespace;
use super::document::{DocumentInput, DocumentUpdate, Place};
use super::tree::overlaid;

/// The registered name.
pub const NAME: &str = "dss.spark-config";
/// The activity.
pub(crate) type SparkConfigActivity = DocumentUpdate<SparkConfigInput>;

/// One named Spark configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparkConfig {
    /// Its name.
    pub name: String,
    /// Spark properties, merged into what it has.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparkConfigInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Registry with an optional prefix, no scheme, no slash at the end.
    pub registry_url: String,
    /// Namespace of the pods.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// The configurations to make managed.
    pub configs: Vec<SparkConfig>,
    /// Merged into every configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Value>,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SparkConfigOutput {
    /// Names of the configurations.
    pub configs: Vec<String>,
}

impl SparkConfigInput {
    fn entry(&self, config: &SparkConfig) -> Value {
        let mut entry = json!({
            "name": config.name,
            "kubernetesSettings": {
                "managedKubernetes": true, "managedNamespace": self.namespace, "createNamespace": true,
                "ensureNamespaceCompliance": false, "authenticationMode": "DYNAMIC_SERVICE_ACCOUNT",
                "baseImageType": "SPARK", "repositoryURL": self.registry_url, "prePushMode": "ECR",
                "dockerTLSVerify": false
            }
        });
        if !config.properties.is_empty() {
            let conf: Vec<Value> =
                config.properties.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
            entry["conf"] = json!(conf);
        }
        overlaid(entry, self.overlay.as_ref())
    }

    fn names(&self) -> Vec<String> {
        self.configs.iter().map(|config| config.name.clone()).collect()
    }
}

impl DocumentInput for SparkConfigInput {
    type Output = SparkConfigOutput;

    fn target(&self) -> &DssTarget {
        &self.target
    }

    fn place(&self) -> Place {
        Place::GeneralSettings
    }

    fn patch(&self, _document: &Value) -> ActivityResult<Value> {
        let entries: Vec<Value> = self.configs.iter().map(|config| self.entry(config)).collect();
        let mut settings = json!({"sparkEnabled": true});
        if !entries.is_empty() {
            settings["executionConfigs"] = json!(entries);
        }
        Ok(json!({"sparkSettings": settings}))
    }

    fn output(&self, _document: &Value) -> SparkConfigOutput {
        SparkConfigOutput { configs: self.names() }
    }

    fn describe(&self) -> String {
        format!("managed Spark on Kubernetes in {}", self.names().join(", "))
    }
}
