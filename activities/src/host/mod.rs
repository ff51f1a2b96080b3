//! The machine DSS runs on: transports, files, and the activities that prepare it and install DSS.
//!
//! One activity a file. All act through [`Host`], so the same code serves this machine, a machine behind `ssh` and
//! the sandbox. Nothing here talks to AWS or to the DSS API; the service user's own tools do that on the host.

pub mod api_key;
pub mod athena_driver;
pub mod aws_cli;
pub mod aws_credentials;
pub mod base_image;
pub mod boot;
pub mod credentials_private;
pub mod docker;
pub mod dss_start;
pub mod env_site;
pub mod facts;
mod files;
mod forward;
mod guard;
mod host_key;
pub mod install_deps;
pub mod install_dss;
pub mod integration;
pub mod kit;
pub mod license;
pub mod limits;
mod local;
pub mod marker;
mod owned_dir;
pub mod packages;
mod process;
pub mod reachable;
pub mod service_user;
mod ssh;
mod ssh_link;
mod step;
mod sudo;
pub mod tool;
mod transport;
pub mod unpack;
pub mod user_isolation;

use dssflow_engine::activity::{ActivityRegistry, RegistryError};

pub use files::{FileKind, Stat, check_path};
pub use forward::{Forward, HostRoute};
pub use local::LocalHost;
pub use ssh::{SshHost, SshPlace, SshTarget};
pub use sudo::sudo_ok;
pub use transport::{
    DEFAULT_TIMEOUT, Host, HostCommand, HostError, HostHandle, HostOutput, HostUser, MAX_OUTPUT_BYTES,
    StartFence, is_account_name,
};

/// Kind of the directories that a step works in and removes before it is done: recorded, so that what a cut-off attempt
/// leaves behind is found.
pub const SCRATCH: &str = "host:scratch";

/// Registers every activity of this folder under the name its page gives.
///
/// # Errors
/// When a name is taken.
pub fn register(registry: &mut ActivityRegistry) -> Result<(), RegistryError> {
    registry.add(reachable::NAME, reachable::Reachable)?;
    registry.add("host.facts", facts::HostFacts)?;
    registry.add("host.packages", packages::Packages)?;
    registry.add("host.docker", docker::Docker)?;
    registry.add("host.tool", tool::Tool)?;
    registry.add("host.aws-cli", aws_cli::AwsCli)?;
    registry.add("host.service-user", service_user::ServiceUser)?;
    registry.add("host.limits", limits::Limits)?;
    registry.add("host.aws-credentials", aws_credentials::AwsCredentials)?;
    registry.add(credentials_private::NAME, credentials_private::CredentialsPrivate)?;
    registry.add("host.kit", kit::Kit)?;
    registry.add("host.unpack", unpack::Unpack)?;
    registry.add("host.install-deps", install_deps::InstallDeps)?;
    registry.add("host.install-dss", install_dss::InstallDss)?;
    registry.add("host.env-site", env_site::EnvSite)?;
    registry.add("host.integration", integration::Integration)?;
    registry.add("host.base-image", base_image::BaseImage)?;
    registry.add(user_isolation::NAME, user_isolation::UserIsolation)?;
    registry.add("host.boot", boot::Boot)?;
    registry.add("host.dss-start", dss_start::DssStart)?;
    registry.add("host.athena-driver", athena_driver::AthenaDriver)?;
    registry.add("host.api-key", api_key::ApiKey)?;
    registry.add("host.license", license::License)
}
