//! The Glue Data Catalog as the metastore of DSS, with the credentials of an S3 connection.
//!
//! No program that sets this outside the web interface is known; the keys below are a guess that the read-back
//! verifies and `overlays.metastore` corrects.
//!
//! # Idempotency
//! The managed keys are compared first; equal ones are not written.
//! # Compensation
//! The old keys are put back where they still hold our values.
//!
//! Page: <https://doc.dataiku.com/dss/latest/metastore/glue-metastore.html>

use dssflow_engine::activity::ActivityResult;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::DssTarget;
use super::document::{DocumentInput, DocumentUpdate, Place};
use super::tree::overlaid;

/// The registered name.
pub const NAME: &str = "dss.glue-metastore";
/// The activity.
pub(crate) type GlueMetastore = DocumentUpdate<MetastoreInput>;

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetastoreInput {
    /// Which DSS.
    pub target: DssTarget,
    /// The S3 connection whose credentials DSS uses for Glue.
    pub connection: String,
    /// Merged into `metastoreCatalogsSettings`; `null` takes a key out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Value>,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetastoreOutput {
    /// The catalog flavor DSS holds now.
    pub flavor: String,
}

impl DocumentInput for MetastoreInput {
    type Output = MetastoreOutput;

    fn target(&self) -> &DssTarget {
        &self.target
    }

    fn place(&self) -> Place {
        Place::GeneralSettings
    }

    fn patch(&self, _document: &Value) -> ActivityResult<Value> {
        let ours = json!({
            "synchronizeTo": {"flavor": "GLUE", "glueCredentialsMode": "CONNECTION", "glueConnection": self.connection}
        });
        Ok(json!({"metastoreCatalogsSettings": overlaid(ours, self.overlay.as_ref())}))
    }

    fn output(&self, document: &Value) -> MetastoreOutput {
        let flavor =
            document.pointer("/metastoreCatalogsSettings/synchronizeTo/flavor").and_then(Value::as_str);
        MetastoreOutput { flavor: flavor.unwrap_or_default().to_owned() }
    }

    fn describe(&self) -> String {
        format!("metastore on Glue, by connection {}", self.connection)
    }
}
