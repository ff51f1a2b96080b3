//! An Athena connection that takes its credentials from an S3 connection.
//!
//! Apart from the type, no program that writes one is known: the params are a guess that the read-back verifies and
//! `overlays.athena_connection` corrects. The JDBC driver must lie on the host before.
//!
//! # Idempotency
//! The name is looked up in the list before anything is created; a connection of ours that is not as wanted is
//! written again.
//! # Compensation
//! Deleted when its mark names this run and no dataset uses it; the S3 side is cleared before.
//!
//! Page: <https://doc.dataiku.com/dss/latest/connecting/sql/athena.html>

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::DssTarget;
use super::connection::{Connection, ConnectionInput, Wanted, audience};
use super::tree::overlaid;

/// The registered name.
pub const NAME: &str = "dss.athena-connection";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AthenaConnectionInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Name of the connection.
    pub name: String,
    /// The S3 connection whose credentials it uses.
    pub s3_connection: String,
    /// The region.
    pub region: String,
    /// The Glue database queries start in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The workgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workgroup: Option<String>,
    /// Where Athena writes results, `s3://bucket/path/`.
    pub output_location: String,
    /// Version of the JDBC driver, as `3.5.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// Directory of the JDBC driver on the host.
    pub driver_directory: String,
    /// Groups that may use it; everybody when empty.
    #[serde(default)]
    pub usable_by: Vec<String>,
    /// Merged into the connection; `null` takes a key out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Value>,
}

/// The activity.
pub(crate) type AthenaConnection = Connection<AthenaConnectionInput>;

impl AthenaConnectionInput {
    fn keys(&self) -> Value {
        let mut params = json!({
            "region": self.region, "s3OutputLocation": self.output_location,
            "credentialsMode": "FROM_S3_CONNECTION", "s3Connection": self.s3_connection,
            "driverJarsDirectory": self.driver_directory
        });
        let optional = [
            ("database", &self.database),
            ("workgroup", &self.workgroup),
            ("driverVersion", &self.driver_version),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                params[key] = json!(value);
            }
        }
        let keys = json!({"credentialsMode": "GLOBAL", "params": params});
        let keys = overlaid(keys, Some(&audience(&self.usable_by, &[])));
        overlaid(keys, self.overlay.as_ref())
    }
}

impl ConnectionInput for AthenaConnectionInput {
    fn target(&self) -> &DssTarget {
        &self.target
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted { name: &self.name, kind: "Athena", keys: self.keys(), credentials: None }
    }

    fn describe(&self) -> String {
        format!("Athena connection {} with the credentials of {}", self.name, self.s3_connection)
    }
}
