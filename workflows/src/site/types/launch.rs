//! A machine for DSS that is launched by the run, in place of one that is there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::site::formats;

/// Who publishes AlmaLinux images.
pub const ALMALINUX_OWNER: &str = "764336703387";
/// What AlmaLinux calls its images for version 8.
pub const ALMALINUX_8: &str = "AlmaLinux OS 8*x86_64*";

/// The EC2 instance to launch for DSS. It is terminated when the run is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// The subnet it stands in: of the VPC of the cluster's subnets.
    #[schemars(schema_with = "formats::subnet")]
    pub subnet: String,
    /// The machine image by id. Without it the newest image of `image_owner` whose name fits `image_name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::image")]
    pub image: Option<String>,
    /// The account that publishes the image, or `self`. By default AlmaLinux's.
    #[serde(default = "image_owner")]
    #[schemars(schema_with = "formats::image_owner")]
    pub image_owner: String,
    /// The image's name, with `*` for any text. By default AlmaLinux 8.
    #[serde(default = "image_name")]
    #[schemars(schema_with = "formats::plain")]
    pub image_name: String,
    /// The EC2 instance type; DSS wants 32 GB of memory.
    #[serde(default = "instance_type")]
    #[schemars(schema_with = "formats::machine_type")]
    pub instance_type: String,
    /// The disk, in GB.
    #[serde(default = "disk_gb")]
    #[schemars(range(min = 100, max = 16384))]
    pub disk_gb: u32,
    /// The kind of disk.
    #[serde(default)]
    pub disk_type: DiskType,
    /// Security groups besides the VPC's `default` one, as the one that lets you in by ssh.
    #[serde(default)]
    #[schemars(schema_with = "formats::more_security_groups")]
    pub security_groups: Vec<String>,
    /// The instance profile, by name; it gives the machine its role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::iam_name")]
    pub instance_profile: Option<String>,
    /// A key pair of EC2 that is there, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::plain")]
    pub key_name: Option<String>,
    /// A public key to import as a key pair, as a line of `~/.ssh/id_ed25519.pub`. No private key is ever made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::public_key")]
    pub public_key: Option<String>,
    /// What the machine runs when it starts for the first time. Small, and never a secret: whoever may describe the
    /// instance reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::user_data")]
    pub user_data: Option<String>,
}

/// A kind of disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiskType {
    /// General purpose, third generation.
    #[default]
    Gp3,
    /// General purpose, second generation.
    Gp2,
}

impl DiskType {
    /// As EC2 names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gp3 => "gp3",
            Self::Gp2 => "gp2",
        }
    }
}

fn image_owner() -> String {
    ALMALINUX_OWNER.to_owned()
}

fn image_name() -> String {
    ALMALINUX_8.to_owned()
}

fn instance_type() -> String {
    "m7i.2xlarge".to_owned()
}

fn disk_gb() -> u32 {
    200
}
