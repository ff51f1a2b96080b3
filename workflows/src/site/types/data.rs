//! Connections to data: S3, Glue, Athena.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::site::formats;

/// The Glue metastore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Glue {
    /// The S3 connection whose credentials DSS uses for Glue; by default the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::plain")]
    pub connection: Option<String>,
}

/// An S3 connection with its Glue database and its Athena pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// Its name in DSS.
    #[schemars(schema_with = "formats::dss_name")]
    pub name: String,
    /// The bucket. It must exist.
    #[schemars(schema_with = "formats::bucket")]
    pub bucket: String,
    /// The path in the bucket below which datasets live.
    #[serde(default = "default_path")]
    #[schemars(schema_with = "formats::abs_path")]
    pub path: String,
    /// Which set of `credentials` it carries: an access key or a role of its own.
    #[schemars(schema_with = "formats::plain")]
    pub credentials: String,
    /// The Glue database its datasets are synchronised to.
    #[schemars(schema_with = "formats::glue_name")]
    pub glue_database: String,
    /// Groups that may use it; without it everybody.
    #[serde(default)]
    pub usable_by: Vec<String>,
    /// Groups that may read its details. Spark needs it for speed, and it shows them the credentials.
    #[serde(default)]
    pub readable_by: Vec<String>,
    /// The Athena connection that reads what is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub athena: Option<Athena>,
}

fn default_path() -> String {
    "/dataiku".to_owned()
}

/// An Athena connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Athena {
    /// Its name in DSS.
    #[schemars(schema_with = "formats::dss_name")]
    pub name: String,
    /// The Athena workgroup.
    #[serde(default = "default_workgroup")]
    #[schemars(schema_with = "formats::plain")]
    pub workgroup: String,
    /// Where Athena writes results, as `s3://bucket/path/`.
    #[schemars(schema_with = "formats::s3_url")]
    pub output_location: String,
}

fn default_workgroup() -> String {
    "primary".to_owned()
}

/// The Athena JDBC driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AthenaDriver {
    /// Its version, as `3.5.0`.
    #[schemars(schema_with = "formats::version")]
    pub version: String,
    /// Where the zip or jar is downloaded from.
    #[schemars(schema_with = "formats::url")]
    pub url: String,
    /// SHA-256 of the download, in hex.
    #[schemars(schema_with = "formats::sha256")]
    pub sha256: String,
    /// The directory it is put in; outside the data directory's `lib/jdbc`.
    #[serde(default = "default_driver_dir")]
    #[schemars(schema_with = "formats::abs_path")]
    pub directory: String,
}

fn default_driver_dir() -> String {
    "/opt/dataiku/athena-jdbc".to_owned()
}
