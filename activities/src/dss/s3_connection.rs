//! An S3 connection (type `EC2` in DSS) with its own credentials, S3A, and its Glue database.
//!
//! # Idempotency
//! The name is looked up in the list before anything is created; a connection of ours that is not as wanted is
//! written again. `ENVIRONMENT` credentials cannot be asked for: Athena and Glue cannot use them.
//! # Compensation
//! Deleted when its mark names this run and no dataset uses it; what this run changed in an earlier run's is put
//! back, except secrets, which are named. The bucket is never touched.
//!
//! Page: <https://doc.dataiku.com/dss/latest/connecting/s3.html>

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::DssTarget;
use super::connection::{Connection, ConnectionInput, S3Credentials, Wanted, audience};
use super::tree::overlaid;

/// The registered name.
pub const NAME: &str = "dss.s3-connection";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3ConnectionInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Name of the connection.
    pub name: String,
    /// The bucket.
    pub bucket: String,
    /// Path in the bucket below which managed datasets live.
    #[serde(default = "default_path")]
    pub path: String,
    /// Region of the bucket.
    pub region: String,
    /// Whose credentials it uses.
    pub credentials: S3Credentials,
    /// The Glue database its datasets are synchronised to.
    pub glue_database: String,
    /// Groups that may use it; everybody when empty.
    #[serde(default)]
    pub usable_by: Vec<String>,
    /// Groups that may read its details, credentials included; nobody when empty.
    #[serde(default)]
    pub readable_by: Vec<String>,
    /// Merged into the connection; `null` takes a key out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Value>,
}

fn default_path() -> String {
    "/dataiku".to_owned()
}

/// The activity.
pub(crate) type S3Connection = Connection<S3ConnectionInput>;

impl S3ConnectionInput {
    fn keys(&self) -> Value {
        let params = json!({
            "regionOrEndpoint": self.region, "switchToRegionFromBucket": true, "usePathMode": false,
            "chbucket": self.bucket, "chroot": "/", "defaultManagedBucket": self.bucket,
            "defaultManagedPath": self.path, "hdfsInterface": "S3A", "encryptionMode": "NONE",
            "metastoreSynchronizationMode": "KEEP_IN_SYNC", "metastoreDatabaseName": self.glue_database
        });
        let mut keys = json!({
            "allowWrite": true, "allowManagedDatasets": true, "allowManagedFolders": true,
            "credentialsMode": "GLOBAL", "maxActivities": 0, "useGlobalProxy": false,
            "params": overlaid(params, Some(&self.credentials.plain()))
        });
        keys = overlaid(keys, Some(&audience(&self.usable_by, &self.readable_by)));
        overlaid(keys, self.overlay.as_ref())
    }
}

impl ConnectionInput for S3ConnectionInput {
    fn target(&self) -> &DssTarget {
        &self.target
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted { name: &self.name, kind: "EC2", keys: self.keys(), credentials: Some(&self.credentials) }
    }

    fn describe(&self) -> String {
        format!("S3 connection {} on bucket {}", self.name, self.bucket)
    }
}
