//! What the checks compare the world with. Plain data, made from a site by the workflow's crate.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::credentials::CredentialSource;
use crate::secret::SecretRef;

/// Everything a run is going to want of the world.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// The site's name.
    pub site: String,
    /// The store whose runs are ours, once there is one.
    pub store: Option<String>,
    /// The region of all of it.
    pub region: String,
    /// The account everything must happen in.
    pub expected_account: String,
    /// How long the run usually takes.
    pub typical: Duration,
    /// Which credentials the site names for dssflow itself; without any the default chain is asked.
    pub credentials_set: Option<String>,
    /// The sets of credentials, by name.
    pub credentials: BTreeMap<String, CredentialSource>,
    /// The set of the service user; without one it uses the instance's role.
    pub service_credentials: Option<String>,
    /// Every reference to a secret, with where it stands in the site.
    pub secrets: Vec<(String, SecretRef)>,
    /// What the run calls, and for whom.
    pub needs: Vec<Need>,
    /// What the run makes that counts against a quota.
    pub demands: Vec<Demand>,
    /// Whether permissions may be asked about by dry runs. An endpoint that is not AWS may not know them and act.
    pub dry_runs: bool,
    /// The instance of DSS; `None` when the run launches it.
    pub instance: Option<String>,
    /// The subnet in which the run launches the instance.
    pub host_subnet: Option<String>,
    /// The type of the instance that the run launches.
    pub host_type: Option<String>,
    /// The least memory of the instance, in MiB.
    pub min_memory_mib: u64,
    /// The least memory of the host, in GB.
    pub min_memory_gb: u64,
    /// The least size of the file system of the data directory, in GB.
    pub min_disk_gb: u64,
    /// Whether commands can reach the host before the run: not when the run launches it.
    pub host_reachable: bool,
    /// The user DSS runs as.
    pub service_user: String,
    /// The data directory of DSS.
    pub data_dir: String,
    /// The first of the ten ports of DSS.
    pub dss_port: u16,
    /// The version of DSS.
    pub dss_version: String,
    /// The tag of the base images.
    pub image_tag: String,
    /// The cluster.
    pub cluster: ClusterSpec,
    /// kubectl.
    pub kubectl: Pinned,
    /// The aws command line client.
    pub aws_cli: Pinned,
    /// eksctl.
    pub eksctl: Pinned,
    /// aws-iam-authenticator.
    pub authenticator: Pinned,
    /// The connections to data.
    pub connections: Vec<ConnectionSpec>,
}

/// For whom a permission is needed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// dssflow's own principal.
    Operator,
    /// The service user's principal, as which DSS runs eksctl and pushes images.
    Service,
    /// Whoever has the named set of credentials, as which DSS reads data.
    Set(String),
}

/// Actions that a run calls.
#[derive(Debug, Clone)]
pub struct Need {
    /// As `eks:CreateCluster`.
    pub actions: Vec<String>,
    /// ARNs, in which `*` stands for any text; `*` alone where the action takes no resource.
    pub resources: Vec<String>,
    /// Keys and values of the request that a policy may look at.
    pub context: Vec<(String, String)>,
    /// The condition under which it is enough, as an IAM statement has it.
    pub condition: Option<serde_json::Value>,
    /// What for.
    pub why: String,
    /// Who calls.
    pub who: Who,
}

/// What a run adds to something that has a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Virtual processors of running on-demand standard instances: nodes of this many, of the cluster's type.
    NodeVcpus(u32),
    /// Elastic IP addresses.
    Addresses(u32),
    /// VPCs.
    Vpcs(u32),
    /// NAT gateways, in the zone of each subnet.
    NatGateways(u32),
    /// EKS clusters.
    Clusters(u32),
    /// Managed node groups of the cluster.
    NodeGroups(u32),
    /// Security groups in the VPC.
    SecurityGroups(u32),
    /// Rules in each security group of the cluster.
    GroupRules(u32),
    /// CloudFormation stacks.
    Stacks(u32),
    /// ECR repositories.
    Repositories(u32),
    /// IAM roles.
    Roles(u32),
}

/// Who may reach the cluster's API, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// From the Internet.
    pub public: bool,
    /// From the VPC.
    pub private: bool,
    /// From where on the Internet; everywhere when empty.
    pub public_cidrs: Vec<String>,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self { public: true, private: true, public_cidrs: Vec::new() }
    }
}

/// The cluster.
#[derive(Debug, Clone, Default)]
pub struct ClusterSpec {
    /// Its name.
    pub name: String,
    /// Whether eksctl makes it, run by DSS; else dssflow does.
    pub by_plugin: bool,
    /// As `1.33`.
    pub k8s_version: String,
    /// Its subnets.
    pub subnets: Vec<String>,
    /// The security groups of its nodes.
    pub security_groups: Vec<String>,
    /// Whether nodes have private addresses only.
    pub private_nodes: bool,
    /// Who reaches its API.
    pub endpoint: Endpoint,
    /// As `m7i.4xlarge`.
    pub machine_type: String,
    /// Nodes to start with.
    pub nodes: u32,
    /// The most nodes.
    pub max_nodes: u32,
    /// Whether the site lets the run take a cluster that is not ours.
    pub adopt: bool,
}

/// A tool by its pin.
#[derive(Debug, Clone, Default)]
pub struct Pinned {
    /// The version it must report.
    pub version: String,
    /// Where it is downloaded from.
    pub url: String,
    /// SHA-256 of the download.
    pub sha256: String,
}

/// A connection to data.
#[derive(Debug, Clone)]
pub struct ConnectionSpec {
    /// Its name in DSS.
    pub name: String,
    /// The bucket.
    pub bucket: String,
    /// The path in it.
    pub path: String,
    /// Which set of credentials it carries.
    pub credentials: String,
    /// Its Glue database.
    pub glue_database: String,
    /// Its Athena pair.
    pub athena: Option<AthenaSpec>,
}

/// An Athena connection.
#[derive(Debug, Clone)]
pub struct AthenaSpec {
    /// Its name in DSS.
    pub name: String,
    /// Its workgroup.
    pub workgroup: String,
    /// Where results go, as `s3://bucket/path/`.
    pub output_location: String,
}
