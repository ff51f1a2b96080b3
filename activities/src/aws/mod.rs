//! The activities that call AWS, one service thing a file.
//!
//! Every create carries the ownership marks as tags from its first moment and, where the service takes one, the
//! step's token; every probe proves the owner by the tags it reads back; every undo proves it again before it
//! deletes. What cannot carry tags says so in its module. Nothing here waits for longer than one attempt, retries a
//! mutating call, or knows in which order the steps run.

pub mod access_entry;
pub mod addon;
pub mod athena_query;
pub mod blockers;
pub mod bucket;
pub mod cluster;
pub mod default_sg;
pub mod eksctl;
pub mod error;
pub mod glue_database;
pub mod identity;
pub mod images;
pub mod instance;
pub mod key_pair;
pub mod launch;
pub mod launch_template;
pub mod machine_image;
pub mod metadata_options;
pub mod network;
pub mod node_group;
pub mod permissions;
pub mod poll;
pub mod push_needed;
pub mod repositories;
pub mod role;
pub mod service_linked_role;
pub mod site_sweep;
pub mod sweep;
pub mod tags;
mod verdict;
pub mod versions;

use dssflow_engine::activity::{ActivityRegistry, RegistryError};

/// Registers the activities of this module.
///
/// # Errors
/// When a name is taken.
pub fn register(registry: &mut ActivityRegistry) -> Result<(), RegistryError> {
    registry.add(identity::NAME, identity::StsIdentity)?;
    registry.add(identity::ACCOUNT, identity::StsAccount)?;
    registry.add(site_sweep::NAME, site_sweep::SiteSweep)?;
    registry.add(machine_image::NAME, machine_image::MachineImage)?;
    registry.add(key_pair::NAME, key_pair::KeyPair)?;
    registry.add(launch::NAME, launch::Launch)?;
    registry.add(launch::running::NAME, launch::running::InstanceRunning)?;
    registry.add(instance::NAME, instance::InstanceFactsActivity)?;
    registry.add(default_sg::NAME, default_sg::DefaultSecurityGroup)?;
    registry.add(metadata_options::NAME, metadata_options::MetadataOptions)?;
    registry.add(network::NAME, network::NetworkCheck)?;
    registry.add(repositories::NAME, repositories::Repositories)?;
    registry.add(images::NAME, images::ImagesPresent)?;
    registry.add(push_needed::NAME, push_needed::PushNeeded)?;
    registry.add(glue_database::NAME, glue_database::GlueDatabase)?;
    registry.add(bucket::NAME, bucket::BucketCheck)?;
    registry.add(athena_query::NAME, athena_query::AthenaQuery)?;
    registry.add(service_linked_role::NAME, service_linked_role::ServiceLinkedRole)?;
    registry.add(role::NAME, role::Role)?;
    registry.add(cluster::NAME, cluster::CreateCluster)?;
    registry.add(cluster::wait::NAME, cluster::wait::WaitCluster)?;
    registry.add(access_entry::NAME, access_entry::AccessEntry)?;
    registry.add(launch_template::NAME, launch_template::LaunchTemplate)?;
    registry.add(node_group::NAME, node_group::NodeGroup)?;
    registry.add(node_group::wait::NAME, node_group::wait::WaitNodeGroup)?;
    registry.add(addon::NAME, addon::Addon)?;
    registry.add(addon::wait::NAME, addon::wait::WaitAddon)
}
