//! A project's cluster and container configuration.
//!
//! A new project has no `k8sCluster` at all; then the whole object is ours.
//!
//! # Idempotency
//! The managed keys are compared first; equal ones are not written.
//! # Compensation
//! The old keys are put back where they still hold our values.
//!
//! Page: <https://developer.dataiku.com/latest/api-reference/python/projects.html>

use dssflow_engine::activity::ActivityResult;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::DssTarget;
use super::document::{DocumentInput, DocumentUpdate, Place};

/// The registered name.
pub const NAME: &str = "dss.project-settings";
/// The activity.
pub(crate) type ProjectSettings = DocumentUpdate<ProjectSettingsInput>;

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectSettingsInput {
    /// Which DSS.
    pub target: DssTarget,
    /// The project's key.
    pub key: String,
    /// Id of the DSS cluster it uses.
    pub cluster_id: String,
    /// The container configuration it uses.
    pub container_config: String,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectSettingsOutput {
    /// The project's key.
    pub key: String,
}

impl DocumentInput for ProjectSettingsInput {
    type Output = ProjectSettingsOutput;

    fn target(&self) -> &DssTarget {
        &self.target
    }

    fn place(&self) -> Place {
        Place::Project(self.key.clone())
    }

    fn patch(&self, _document: &Value) -> ActivityResult<Value> {
        Ok(json!({"settings": {
            "k8sCluster": {"clusterMode": "EXPLICIT_CLUSTER", "clusterId": self.cluster_id},
            "container": {"containerMode": "EXPLICIT_CONTAINER", "containerConf": self.container_config}
        }}))
    }

    fn output(&self, _document: &Value) -> ProjectSettingsOutput {
        ProjectSettingsOutput { key: self.key.clone() }
    }

    fn describe(&self) -> String {
        format!(
            "project {} on cluster {} with container configuration {}",
            self.key, self.cluster_id, self.container_config
        )
    }
}
