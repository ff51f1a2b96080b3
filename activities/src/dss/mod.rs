//! The activities that call DSS over its public API, one activity a file.
//!
//! Existence is looked up in lists, writes are read back and compared, success is read from the reply's messages and
//! not from its status, secrets are read from their references when a call needs them. Ownership marks stand in
//! descriptions and cluster tags; documents that others edit too are changed key by key. What runs on DSS's host
//! without the API (dsscli, dssadmin) is the host's business.
//!
//! Spellings nobody could verify without a DSS (Glue metastore, Athena params, the link of a pair) are defaults that
//! an overlay of the site replaces; the read-back tells when it has to.

mod clusters;
mod connection;
mod document;
mod kubectl;
mod mark;
mod redaction;
pub(crate) mod reply;
mod task;
mod tree;

pub mod admin_password;
pub mod athena_connection;
pub mod athena_link;
pub mod capture;
pub mod client;
pub mod cluster;
pub mod cluster_attach;
pub mod cluster_start;
pub mod connection_test;
pub mod container_config;
pub mod default_cluster;
pub mod groups;
pub mod license;
pub mod metastore;
pub mod nodes_check;
pub mod plugin;
pub mod plugin_code_env;
pub mod plugin_presets;
pub mod pods_check;
pub mod project;
pub mod project_settings;
pub mod push_images;
pub mod ready;
pub mod s3_connection;
pub mod smoke;
pub mod spark_config;
pub mod sql_check;

use dssflow_engine::activity::{ActivityRegistry, RegistryError};

pub use client::DssTarget;
pub use clusters::ClusterState;
pub use connection::{ConnectionOutput, S3Credentials};

/// Registers the activities of this module.
///
/// # Errors
/// When a name is taken.
pub fn register(registry: &mut ActivityRegistry) -> Result<(), RegistryError> {
    registry.add(ready::NAME, ready::Ready)?;
    registry.add(license::NAME, license::License)?;
    registry.add(admin_password::NAME, admin_password::AdminPassword)?;
    registry.add(groups::NAME, groups::Groups)?;
    registry.add(container_config::NAME, container_config::ContainerConfig::new())?;
    registry.add(spark_config::NAME, spark_config::SparkConfigActivity::new())?;
    registry.add(push_images::NAME, push_images::PushImages)?;
    registry.add(s3_connection::NAME, s3_connection::S3Connection::new())?;
    registry.add(athena_connection::NAME, athena_connection::AthenaConnection::new())?;
    registry.add(athena_link::NAME, athena_link::AthenaLink::new())?;
    registry.add(connection_test::NAME, connection_test::ConnectionTest)?;
    registry.add(sql_check::NAME, sql_check::SqlCheck)?;
    registry.add(metastore::NAME, metastore::GlueMetastore::new())?;
    registry.add(plugin::NAME, plugin::PluginInstall)?;
    registry.add(plugin_code_env::NAME, plugin_code_env::PluginCodeEnv)?;
    registry.add(plugin_presets::NAME, plugin_presets::PluginPresets::new())?;
    registry.add(cluster::NAME, cluster::ClusterDefinition)?;
    registry.add(cluster_start::NAME, cluster_start::ClusterStart)?;
    registry.add(cluster_attach::NAME, cluster_attach::ClusterAttach)?;
    registry.add(default_cluster::NAME, default_cluster::DefaultCluster::new())?;
    registry.add(project::NAME, project::Project)?;
    registry.add(project_settings::NAME, project_settings::ProjectSettings::new())?;
    registry.add(nodes_check::NAME, nodes_check::NodesCheck)?;
    registry.add(pods_check::NAME, pods_check::PodsCheck)?;
    smoke::register(registry)
}
