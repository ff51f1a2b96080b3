//! The machine DSS runs on, its tools, and the credentials that are used.

use dssflow_activities::secret::SecretRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Launch;
use crate::site::formats;

/// How dssflow itself reaches AWS. Without any of it: the usual chain of environment, profile and instance role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aws {
    /// Which set of `credentials` dssflow uses; a set of any kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::plain")]
    pub credentials: Option<String>,
    /// One endpoint for all AWS services, for tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::url")]
    pub endpoint_url: Option<String>,
    /// The instance metadata service, for tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::url")]
    pub imds_endpoint: Option<String>,
}

/// How commands reach the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// dssflow runs on the host.
    #[default]
    Local,
    /// dssflow reaches the host with the `ssh` client of this machine.
    Ssh,
}

/// The machine DSS runs on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// How commands reach the host.
    #[serde(default)]
    pub transport: Transport,
    /// With ssh: name or address of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::plain")]
    pub address: Option<String>,
    /// With ssh: a user that is root or may sudo without a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::unix_name")]
    pub user: Option<String>,
    /// With ssh: the port, 22 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::port")]
    pub ssh_port: Option<u16>,
    /// With ssh: the private key file. Without it the ssh client's own configuration decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::plain")]
    pub identity_file: Option<String>,
    /// The EC2 instance id of a machine that is there. Either this or `launch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::instance")]
    pub instance: Option<String>,
    /// A machine to launch, in place of `instance`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<Launch>,
    /// Closes the instance's metadata service to containers and to forged requests: version 2 only, one hop. The old
    /// settings come back with a rollback.
    #[serde(default = "yes")]
    pub protect_metadata: bool,
    /// A command put before every host command, for tests.
    #[serde(default)]
    pub wrapper: Vec<String>,
    /// The user DSS runs as.
    #[serde(default = "default_service_user")]
    #[schemars(schema_with = "formats::unix_name")]
    pub service_user: String,
    /// The Python of DSS's built-in environment: the package to install.
    #[serde(default)]
    pub python: Python,
    /// Tools to install, each pinned.
    pub tools: Tools,
}

fn yes() -> bool {
    true
}

fn default_service_user() -> String {
    "dssuser".to_owned()
}

/// A Python that DSS supports for its built-in environment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Python {
    /// Python 3.9.
    #[serde(rename = "3.9")]
    Python39,
    /// Python 3.10.
    #[serde(rename = "3.10")]
    Python310,
    /// Python 3.11.
    #[default]
    #[serde(rename = "3.11")]
    Python311,
}

impl Python {
    /// As in `3.11`.
    pub fn version(self) -> &'static str {
        match self {
            Self::Python39 => "3.9",
            Self::Python310 => "3.10",
            Self::Python311 => "3.11",
        }
    }

    /// As DSS names the interpreter of a code environment.
    pub fn dss_name(self) -> &'static str {
        match self {
            Self::Python39 => "PYTHON39",
            Self::Python310 => "PYTHON310",
            Self::Python311 => "PYTHON311",
        }
    }
}

/// Tools the service user needs, each pinned by version, URL and checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// kubectl.
    pub kubectl: Tool,
    /// The `aws` command line client, version 2.
    pub aws_cli: Tool,
    /// eksctl, which the EKS plugin runs. Without a pinned one the plugin downloads the latest.
    pub eksctl: Tool,
    /// aws-iam-authenticator, which the EKS plugin runs.
    pub aws_iam_authenticator: Tool,
    /// The package repository of Docker CE.
    #[serde(default = "default_docker_repo")]
    #[schemars(schema_with = "formats::url")]
    pub docker_repo: String,
}

fn default_docker_repo() -> String {
    "https://download.docker.com/linux/centos/docker-ce.repo".to_owned()
}

/// A pinned download with a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// The version the tool must report.
    #[schemars(schema_with = "formats::version")]
    pub version: String,
    /// Where it is downloaded from.
    #[schemars(schema_with = "formats::url")]
    pub url: String,
    /// SHA-256 of the download, in hex.
    #[schemars(schema_with = "formats::sha256")]
    pub sha256: String,
}

/// A pinned download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// Where it is downloaded from.
    #[schemars(schema_with = "formats::url")]
    pub url: String,
    /// SHA-256 of the download, in hex.
    #[schemars(schema_with = "formats::sha256")]
    pub sha256: String,
}

/// A set of AWS credentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Credentials {
    /// An access key.
    Static {
        /// Where the access key id is.
        #[schemars(schema_with = "formats::secret_ref")]
        access_key_id: SecretRef,
        /// Where the secret access key is.
        #[schemars(schema_with = "formats::secret_ref")]
        secret_access_key: SecretRef,
        /// Where the session token of temporary keys is. Not for S3 connections.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "formats::secret_ref")]
        session_token: Option<SecretRef>,
    },
    /// A role that is assumed: by DSS itself for an S3 connection, by the service user's tools, or by dssflow.
    AssumeRole {
        /// Its ARN.
        #[schemars(schema_with = "formats::role_arn")]
        role_arn: String,
        /// Which set of `credentials` assumes it; without it the usual chain does for dssflow, the instance's role for the
        /// service user, and the service user for S3 connections.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "formats::plain")]
        source: Option<String>,
        /// What the session is called in CloudTrail.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "formats::session_name")]
        session_name: Option<String>,
        /// What the role's trust policy asks for, when the role is of another account.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "formats::external_id")]
        external_id: Option<String>,
    },
    /// A profile of the AWS configuration files on this machine.
    Profile {
        /// Its name.
        #[schemars(schema_with = "formats::plain")]
        profile: String,
    },
    /// The environment of the process.
    Environment {},
    /// The role of the EC2 instance.
    InstanceRole {},
}

impl Credentials {
    /// The secrets it is made of: the key in the site file, and where the secret is.
    pub fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        match self {
            Self::Static { access_key_id, secret_access_key, session_token } => {
                let mut secrets =
                    vec![("access_key_id", access_key_id), ("secret_access_key", secret_access_key)];
                secrets.extend(session_token.as_ref().map(|token| ("session_token", token)));
                secrets
            }
            Self::AssumeRole { .. } | Self::Profile { .. } | Self::Environment {} | Self::InstanceRole {} => {
                Vec::new()
            }
        }
    }
}
