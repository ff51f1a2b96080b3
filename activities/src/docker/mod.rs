//! Images: built from a Dockerfile and its context, and pushed to ECR or another registry.
//!
//! All of it goes by the API of the Docker Engine on this machine; the `docker` command is not needed and its
//! configuration is neither read nor written. What was built tells by its labels from what it was built and whose it
//! is; what was pushed is compared with the registry. The base images of DSS are made on the host by `dssadmin`
//! ([`crate::host::base_image`]), not here.

pub mod build;
pub mod context;
pub mod daemon;
mod ignore;
pub mod push;
pub mod reference;
pub mod registry;
mod registry_http;
mod trouble;

use dssflow_engine::activity::{ActivityRegistry, RegistryError};

/// Registers the activities of this module.
///
/// # Errors
/// When a name is taken.
pub fn register(registry: &mut ActivityRegistry) -> Result<(), RegistryError> {
    registry.add(build::NAME, build::BuildImage)?;
    registry.add(push::NAME, push::PushImage)
}
