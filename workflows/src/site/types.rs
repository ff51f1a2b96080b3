//! The typed site: what `site.yaml` says once it is known to be right. Plain data; the checks are in `shape` and
//! `rules`.

mod cluster;
mod data;
mod dss;
mod host;
mod launch;
mod resync;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use cluster::*;
pub use data::*;
pub use dss::*;
pub use host::*;
pub use launch::*;
pub use resync::*;

use super::formats;

/// A Dataiku DSS on AWS: where it runs, what it is made of, which data and which cluster it uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Names the site in every ownership mark and in the run id. Never change it for a site that exists.
    #[schemars(schema_with = "formats::site_name")]
    pub name: String,
    /// The AWS account everything must happen in; another one is refused before anything is created.
    #[schemars(schema_with = "formats::account")]
    pub expected_account: String,
    /// The AWS region.
    #[schemars(schema_with = "formats::region")]
    pub region: String,
    /// The machine DSS runs on.
    pub host: Host,
    /// Sets of AWS credentials, by a name of your choice. Values are references, never secrets.
    #[serde(default)]
    pub credentials: BTreeMap<String, Credentials>,
    /// Which set goes to the service user's `~/.aws` (it manages EKS and pushes to ECR). Without it the instance
    /// role is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::plain")]
    pub service_credentials: Option<String>,
    /// Dataiku DSS itself.
    pub dss: Dss,
    /// The image registry.
    #[serde(default)]
    pub ecr: Ecr,
    /// The container configuration in DSS.
    #[serde(default)]
    pub containers: Containers,
    /// The Spark configurations in DSS.
    #[serde(default)]
    pub spark: Spark,
    /// Groups that must exist in DSS, for use in `connections[].usable_by` and `readable_by`.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// The Glue metastore.
    #[serde(default)]
    pub glue: Glue,
    /// S3 connections, each with its own credentials and its Athena pair.
    #[serde(default)]
    pub connections: Vec<Connection>,
    /// The Athena JDBC driver; needed as soon as a connection has an `athena` pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub athena_driver: Option<AthenaDriver>,
    /// The EKS plugin of DSS.
    #[serde(default)]
    pub plugin: Plugin,
    /// The EKS cluster.
    pub cluster: Cluster,
    /// Projects that are made to use the cluster.
    #[serde(default)]
    pub projects: Vec<Project>,
    /// What is tried out once everything stands.
    #[serde(default, skip_serializing_if = "Verify::is_nothing")]
    pub verify: Verify,
    /// How the workflow `glue-resync` compares and mends; the bootstrap does not look at it.
    #[serde(default, skip_serializing_if = "GlueResync::is_default")]
    pub glue_resync: GlueResync,
    /// JSON merged into what dssflow sends to DSS, for settings whose spelling your DSS version decides.
    #[serde(default)]
    pub overlays: Overlays,
    /// What happens when a step fails for good or uses up its attempts.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// How many steps run at once.
    #[serde(default = "default_parallelism")]
    #[schemars(range(min = 1, max = 64))]
    pub parallelism: u32,
    /// How dssflow itself reaches AWS.
    #[serde(default)]
    pub aws: Aws,
    /// Steps that rollback leaves alone, by name or with `*`.
    #[serde(default)]
    pub protect: Vec<String>,
    /// Steps that may take over what they find although dssflow did not make it, by name or with `*`.
    #[serde(default)]
    pub adopt: Vec<String>,
}

fn default_parallelism() -> u32 {
    8
}

/// What is tried out once everything stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Verify {
    /// Run a smoke test: a project of its own, a Python recipe in a container, a Spark recipe, the table in Glue, a count
    /// by Athena; everything of it is removed at the end. It takes some minutes of the cluster.
    pub smoke: bool,
}

impl Verify {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What happens when a step fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// A terminal error ends the run as failed; used-up attempts pause it for a person.
    #[default]
    Pause,
    /// Both end the run as failed.
    Fail,
    /// Both take back what the run made.
    Rollback,
}

/// JSON merged into what dssflow sends. What DSS drops of it is reported. `{{s3_connection}}`, `{{athena_connection}}`,
/// `{{glue_database}}`, `{{bucket}}`, `{{region}}` and `{{registry}}` stand for what they name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Overlays {
    /// Into every S3 connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::json_object")]
    pub s3_connection: Option<Value>,
    /// Into every Athena connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::json_object")]
    pub athena_connection: Option<Value>,
    /// Into every S3 connection when it is linked to its Athena connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::json_object")]
    pub athena_link: Option<Value>,
    /// Into the metastore catalog settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::json_object")]
    pub metastore: Option<Value>,
    /// Into the container configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::json_object")]
    pub container_config: Option<Value>,
    /// Into every Spark configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::json_object")]
    pub spark_config: Option<Value>,
    /// Into the settings of the EKS plugin, where its presets are.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::json_object")]
    pub plugin_presets: Option<Value>,
    /// Into the cluster's parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::json_object")]
    pub cluster: Option<Value>,
    /// Into the Python recipe of the smoke test.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::json_object")]
    pub smoke_python: Option<Value>,
    /// Into the Spark recipe of the smoke test.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::json_object")]
    pub smoke_spark: Option<Value>,
}
