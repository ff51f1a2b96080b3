//! The cluster every project uses that names none.
//!
//! # Idempotency
//! The key is compared first; an equal one is not written.
//! # Compensation
//! The old default is put back where the key still holds ours.
//!
//! Page: <https://doc.dataiku.com/dss/latest/containers/managed-k8s-clusters.html>

use dssflow_engine::activity::ActivityResult;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::DssTarget;
use super::document::{DocumentInput, DocumentUpdate, Place};

/// The registered name.
pub const NAME: &str = "dss.default-cluster";
/// The activity.
pub(crate) type DefaultCluster = DocumentUpdate<DefaultClusterInput>;

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultClusterInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Id of the DSS cluster.
    pub cluster_id: String,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultClusterOutput {
    /// Id of the DSS cluster.
    pub cluster_id: String,
}

impl DocumentInput for DefaultClusterInput {
    type Output = DefaultClusterOutput;

    fn target(&self) -> &DssTarget {
        &self.target
    }

    fn place(&self) -> Place {
        Place::GeneralSettings
    }

    fn patch(&self, _document: &Value) -> ActivityResult<Value> {
        Ok(json!({"defaultK8sClusterId": self.cluster_id}))
    }

    fn output(&self, _document: &Value) -> DefaultClusterOutput {
        DefaultClusterOutput { cluster_id: self.cluster_id.clone() }
    }

    fn describe(&self) -> String {
        format!("cluster {} as the default", self.cluster_id)
    }
}
