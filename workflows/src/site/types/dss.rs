//! DSS: its kits, and what is set up in it.

use std::collections::BTreeMap;

use dssflow_activities::secret::{SecretRef, SecretSink};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Download;
use crate::site::formats;

/// Dataiku DSS itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dss {
    /// The version of the kit, as `14.2.0`.
    #[schemars(schema_with = "formats::version")]
    pub version: String,
    /// The form of the settings to write: 14 or 15. Without it the instance is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 12, max = 15))]
    pub major: Option<u32>,
    /// The downloads.
    pub kits: Kits,
    /// The directory in which the kit is unpacked.
    #[serde(default = "default_install_dir")]
    #[schemars(schema_with = "formats::abs_path")]
    pub install_dir: String,
    /// The data directory; empty or absent before the first run, outside `install_dir`.
    #[schemars(schema_with = "formats::abs_path")]
    pub data_dir: String,
    /// The first of ten consecutive ports.
    #[serde(default = "default_port")]
    #[schemars(schema_with = "formats::port")]
    pub port: u16,
    /// The URL under which dssflow reaches DSS; by default http, the host and the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::url")]
    pub url: Option<String>,
    /// Where the licence file's content is. Without it DSS runs as Free edition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::secret_ref")]
    pub license: Option<SecretRef>,
    /// An admin's API key you bring, or a `sink` to which dssflow writes the one it makes.
    #[schemars(schema_with = "formats::api_key")]
    pub api_key: ApiKey,
    /// Where the new password of DSS's `admin` user is.
    #[schemars(schema_with = "formats::secret_ref")]
    pub admin_password: SecretRef,
    /// The address under which pods reach DSS; by default the instance's private address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::plain")]
    pub ext_host: Option<String>,
    /// Also install what R needs.
    #[serde(default)]
    pub with_r: bool,
    /// Runs code of DSS users under accounts of their own, by DSS's User Isolation Framework. Without it that code runs as
    /// the service user and can read its AWS credentials.
    #[serde(default)]
    pub user_isolation: bool,
    /// With `user_isolation`: Unix groups on the host whose members DSS may act as.
    #[serde(default)]
    #[schemars(schema_with = "formats::unix_names")]
    pub isolation_groups: Vec<String>,
}

fn default_install_dir() -> String {
    "/opt/dataiku".to_owned()
}

fn default_port() -> u16 {
    11200
}

/// The downloads DSS is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kits {
    /// `dataiku-dss-VERSION.tar.gz`.
    pub dss: Download,
    /// The generic-hadoop3 standalone Hadoop libraries.
    pub hadoop: Download,
    /// The standalone Spark binaries.
    pub spark: Download,
}

/// The API key dssflow works with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ApiKey {
    /// dssflow makes a key and writes it there before anything uses it.
    Sink {
        /// Where to.
        sink: SecretSink,
    },
    /// You bring a key.
    Ref(SecretRef),
}

/// The image registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ecr {
    /// The registry's host; by default `ACCOUNT.dkr.ecr.REGION.amazonaws.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::registry")]
    pub registry: Option<String>,
    /// Put before every repository's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::repository_prefix")]
    pub prefix: Option<String>,
}

/// The container configuration in DSS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Containers {
    /// Its name.
    #[schemars(schema_with = "formats::dss_name")]
    pub name: String,
    /// The Kubernetes namespace of the pods; may contain DSS variables.
    #[schemars(schema_with = "formats::plain")]
    pub namespace: String,
    /// Whether projects use it unless they say otherwise.
    pub make_default: bool,
}

impl Default for Containers {
    fn default() -> Self {
        Self { name: "eks".to_owned(), namespace: "dssns-${dssUserLogin}".to_owned(), make_default: true }
    }
}

/// The Spark configurations in DSS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Spark {
    /// Configurations in which "Managed Spark on K8S" is enabled; made when they do not exist.
    pub configs: Vec<SparkConfig>,
}

impl Default for Spark {
    fn default() -> Self {
        Self { configs: vec![SparkConfig { name: "SparkOnEKS".to_owned(), properties: BTreeMap::new() }] }
    }
}

/// A named Spark configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SparkConfig {
    /// Its name in DSS.
    #[schemars(schema_with = "formats::dss_name")]
    pub name: String,
    /// Spark properties to set.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// A group in DSS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    #[schemars(schema_with = "formats::dss_name")]
    pub name: String,
    /// What it is for.
    #[serde(default)]
    #[schemars(schema_with = "formats::any_text")]
    pub description: String,
}

/// Where the EKS plugin comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Plugin {
    /// Dataiku's store, or a zip file that is downloaded and uploaded to DSS.
    pub source: PluginSource,
    /// The version to check for, as `1.5.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::version")]
    pub version: Option<String>,
    /// With `source: zip`: where it is downloaded from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::url")]
    pub url: Option<String>,
    /// With `source: zip`: SHA-256 of the download, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::sha256")]
    pub sha256: Option<String>,
}

impl Default for Plugin {
    fn default() -> Self {
        Self { source: PluginSource::Store, version: None, url: None, sha256: None }
    }
}

/// Where a plugin comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PluginSource {
    /// Dataiku's plugin store.
    Store,
    /// A zip file, for sites without Internet.
    Zip,
}

/// A project that uses the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Its key, as `CHURN`.
    #[schemars(schema_with = "formats::project_key")]
    pub key: String,
    /// Its name, used when it has to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::any_text")]
    pub name: Option<String>,
}
