//! The EKS cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::site::formats;

/// Who makes the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterMode {
    /// The EKS plugin of DSS, by eksctl, as in the reference architecture.
    #[default]
    DssPlugin,
    /// dssflow itself, by the AWS API; DSS attaches to it.
    Sdk,
}

/// The EKS cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Who makes it.
    #[serde(default)]
    pub mode: ClusterMode,
    /// Its name, in EKS and in DSS.
    #[schemars(schema_with = "formats::cluster_name")]
    pub name: String,
    /// At least two subnets in different zones, in the VPC of the DSS host.
    #[schemars(schema_with = "formats::subnets")]
    pub subnets: Vec<String>,
    /// The security groups of the DSS host, so that pods and DSS reach each other.
    #[schemars(schema_with = "formats::security_groups")]
    pub security_groups: Vec<String>,
    /// Whether nodes get private addresses only.
    #[serde(default)]
    pub private: bool,
    /// The Kubernetes version, quoted: "1.33".
    #[schemars(schema_with = "formats::k8s_version")]
    pub k8s_version: String,
    /// The nodes.
    #[serde(default)]
    pub node_pool: NodePool,
    /// With `mode: sdk`: roles to use; those left out are made.
    #[serde(default)]
    pub roles: Roles,
}

/// The nodes of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NodePool {
    /// The EC2 instance type.
    #[schemars(schema_with = "formats::machine_type")]
    pub machine_type: String,
    /// How many nodes to start with.
    #[schemars(range(min = 1, max = 450))]
    pub num_nodes: u32,
    /// The fewest nodes; by default `num_nodes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 450))]
    pub min_nodes: Option<u32>,
    /// The most nodes; by default `num_nodes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 450))]
    pub max_nodes: Option<u32>,
    /// The disk of each node, in GB.
    #[schemars(range(min = 20, max = 16384))]
    pub disk_gb: u32,
}

impl NodePool {
    /// The fewest nodes.
    pub fn minimum(&self) -> u32 {
        self.min_nodes.unwrap_or(self.num_nodes)
    }

    /// The most nodes.
    pub fn maximum(&self) -> u32 {
        self.max_nodes.unwrap_or(self.num_nodes)
    }
}

impl Default for NodePool {
    fn default() -> Self {
        Self {
            machine_type: "m7i.4xlarge".to_owned(),
            num_nodes: 3,
            min_nodes: None,
            max_nodes: None,
            disk_gb: 200,
        }
    }
}

/// Roles to use instead of making them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    /// The cluster's role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::role_arn")]
    pub cluster: Option<String>,
    /// The nodes' role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::role_arn")]
    pub node: Option<String>,
}
