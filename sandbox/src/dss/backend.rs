//! What the fake DSS asks of the rest of the sandbox: clusters, image pushes, data and queries.
//!
//! The real product shells out to `eksctl`, `docker` and the Athena driver. The fake calls these traits
//! instead, so that what DSS "does" shows up in the same world as everything else. Nothing here knows about
//! moto or HTTP; the implementations live beside the cloud they act on, and tests bring in-memory ones.

use std::collections::BTreeMap;

pub use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// The node pool the EKS plugin passes to `eksctl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePool {
    /// EC2 instance type, for example `m7i.4xlarge`.
    pub machine_type: String,
    /// Nodes wanted at the start.
    pub num_nodes: u32,
    /// Lower bound of the autoscaling group (equals `num_nodes` without autoscaling).
    pub min: u32,
    /// Upper bound of the autoscaling group (equals `num_nodes` without autoscaling).
    pub max: u32,
    /// Root volume, in GiB.
    pub disk_gb: u32,
}

/// What the plugin's create-cluster type was told, presets already resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Name of the EKS cluster; equals the id of the DSS cluster object.
    pub name: String,
    /// Region from the connection preset; empty when the environment decides.
    pub region: String,
    /// Subnets of the networking settings.
    pub subnets: Vec<String>,
    /// Security groups attached to the nodes.
    pub security_groups: Vec<String>,
    /// Kubernetes version, for example `1.33`; empty for the tool's default.
    pub version: String,
    /// Tags on everything the tool creates.
    pub tags: BTreeMap<String, String>,
    /// The first node pool.
    pub node_pool: NodePool,
}

/// What is known of an EKS cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// Name of the EKS cluster.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// API server address.
    pub endpoint: String,
    /// EKS status, for example `ACTIVE`.
    pub status: String,
    /// Kubernetes version.
    pub version: String,
    /// Tags of the cluster.
    pub tags: BTreeMap<String, String>,
}

/// One node as `kubectl get nodes` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Kubernetes node name.
    pub name: String,
    /// Whether its `Ready` condition is `True`.
    pub ready: bool,
    /// Instance type label.
    pub instance_type: String,
    /// Kubelet version, for example `v1.33.1`.
    pub version: String,
}

/// What came back from a query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryResult {
    /// Column names and their types.
    pub columns: Vec<(String, String)>,
    /// Rows as text, in the order of the columns.
    pub rows: Vec<Vec<String>>,
}

/// One query of the SQL API, with what its connection says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuerySpec {
    /// SQL text.
    pub sql: String,
    /// Name of the DSS connection it was asked on.
    pub connection: String,
    /// Database (catalog schema) of the connection; empty when it names none.
    pub database: String,
    /// Athena workgroup; empty for the account's default.
    pub workgroup: String,
    /// Where results go, `s3://bucket/path`; empty when the workgroup decides.
    pub output_location: String,
    /// Region; empty when the environment decides.
    pub region: String,
    /// Access key of the S3 connection the Athena connection takes its credentials from; empty with a role.
    pub access_key: String,
    /// Its secret key; never logged.
    pub secret_key: String,
}

/// Where a dataset lies and who writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSpec {
    /// Bucket.
    pub bucket: String,
    /// Path in the bucket below which the files are, without a slash at either end.
    pub path: String,
    /// Database and table the dataset is synchronised to; `None` when it is not.
    pub table: Option<(String, String)>,
    /// Column names and their types.
    pub columns: Vec<(String, String)>,
    /// Access key of the connection; empty with a role.
    pub access_key: String,
}

/// A dataset as DSS tells a metastore of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetastoreTable {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Bucket.
    pub bucket: String,
    /// Path in the bucket, without a slash at either end.
    pub path: String,
    /// Column names and their types, in Hive's words.
    pub columns: Vec<(String, String)>,
    /// Partition keys.
    pub keys: Vec<String>,
    /// How files lie in partitions, as DSS writes it; empty without partitions.
    pub pattern: String,
    /// Period of the time dimension: how many of year, month, day and hour; 0 without one.
    pub time_units: usize,
    /// The key that is the time dimension.
    pub time_key: String,
    /// Java classes: input format, output format, SerDe.
    pub classes: [String; 3],
    /// What the SerDe is told.
    pub serde_parameters: BTreeMap<String, String>,
    /// Parameters of the table.
    pub parameters: BTreeMap<String, String>,
    /// Whether partitions that are no longer there are taken out.
    pub removes: bool,
    /// Access key of the connection whose credentials DSS uses for the metastore; empty with a role.
    pub access_key: String,
}

/// What the EKS plugin does by running `eksctl` and `kubectl`.
pub trait ClusterBackend: Send + Sync {
    /// Creates the stacks, the cluster and its nodes. Slow; the caller spawns it, so it goes on when the HTTP
    /// client drops. The error is what the tool printed.
    fn create(&self, spec: ClusterSpec) -> BoxFuture<'_, Result<ClusterInfo, String>>;
    /// Removes what [`ClusterBackend::create`] made, as `eksctl delete cluster` without `--wait`.
    fn delete(&self, name: String, region: String) -> BoxFuture<'_, Result<(), String>>;
    /// The nodes of a cluster, for `kubectl get nodes`.
    fn nodes(&self, name: String) -> BoxFuture<'_, Result<Vec<NodeInfo>, String>>;
    /// The cluster as EKS knows it, `None` when there is none.
    fn describe(&self, name: String) -> BoxFuture<'_, Result<Option<ClusterInfo>, String>>;
}

/// What "push base images" does with Docker and the ECR hook.
pub trait ImageBackend: Send + Sync {
    /// Pushes one local image; `repository` is the name inside the registry (`[PREFIX/]NAME`), `digest` the
    /// `sha256:...` the pushed tag must have.
    fn push(&self, repository: String, tag: String, digest: String) -> BoxFuture<'_, Result<(), String>>;
}

/// What a job does to the data.
pub trait DataBackend: Send + Sync {
    /// Writes so many rows.
    fn write(&self, spec: DatasetSpec, rows: u64) -> BoxFuture<'_, Result<(), String>>;
    /// The partitions that lie in S3, each with its values.
    fn partitions(&self, table: MetastoreTable) -> BoxFuture<'_, Result<Vec<Vec<String>>, String>>;
    /// Makes the metastore's table of a dataset what the dataset is.
    fn synchronize(&self, table: MetastoreTable) -> BoxFuture<'_, Result<(), String>>;
    /// Removes the files and the table.
    fn drop_data(&self, spec: DatasetSpec) -> BoxFuture<'_, Result<(), String>>;
}

/// What the SQL API does on an Athena connection.
pub trait QueryBackend: Send + Sync {
    /// Runs one query to its end.
    fn query(&self, spec: QuerySpec) -> BoxFuture<'_, Result<QueryResult, String>>;
}

/// Database and table of a query that only counts rows, `SELECT COUNT(*) FROM "database"."table"`: all the SQL the
/// sandbox understands.
pub fn counted_table(sql: &str) -> Option<(String, String)> {
    let words: Vec<&str> = sql.split_whitespace().collect();
    let [select, count, from, table] = words.as_slice() else { return None };
    let is = |word: &str, wanted: &str| word.eq_ignore_ascii_case(wanted);
    if !is(select, "select") || !is(count, "count(*)") || !is(from, "from") {
        return None;
    }
    let (database, table) = table.trim_end_matches(';').split_once('.')?;
    Some((database.trim_matches('"').to_owned(), table.trim_matches('"').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_count_is_understood() {
        let found = counted_table("select COUNT(*) from \"dss_main\".\"t\";");
        assert_eq!(found, Some(("dss_main".to_owned(), "t".to_owned())));
        assert_eq!(counted_table("SELECT 1"), None);
        assert_eq!(counted_table("SELECT COUNT(*) FROM t"), None);
    }
}
