//! The activities that touch the world: AWS, Docker, DSS and hosts. One activity a file, each with its input, output,
//! `execute`, `probe`, `verify` and `compensate`, and nothing that decides what runs when: that is the engine's.
#![warn(missing_docs)]

pub mod aws;
pub mod clients;
pub mod credentials;
pub mod docker;
pub mod dss;
pub mod glue;
pub mod host;
pub mod preflight;
pub mod secret;
pub mod wildcard;

use dssflow_engine::activity::{ActivityRegistry, RegistryError};

/// Registers every activity of this crate.
///
/// # Errors
/// When two activities share a name, or one that creates or updates something has no probe.
pub fn register_all(registry: &mut ActivityRegistry) -> Result<(), RegistryError> {
    aws::register(registry)?;
    docker::register(registry)?;
    host::register(registry)?;
    dss::register(registry)?;
    glue::register(registry)
}
