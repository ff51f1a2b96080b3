//! The shipped site: the `site.yaml` that `run bootstrap --sandbox` uses, with the ids of this world.
//!
//! It shows the reference architecture whole: two S3 connections with keys of their own, an Athena pair for each, two
//! projects. It is written as a person would write it.

use std::fmt::Write as _;
use std::path::Path;

use crate::host::kits::{self, Kit, Kits};
use crate::world::World;

/// The DSS of the sandbox.
pub(crate) const DSS_VERSION: &str = "14.2.0";
/// Its major version.
pub(crate) const DSS_MAJOR: u32 = 14;

/// Who makes the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    DssPlugin,
    Sdk,
}

/// The text of the site.
pub(crate) fn yaml(world: &World, kits: &Kits, mode: Mode) -> String {
    let mode = match mode {
        Mode::DssPlugin => "dss-plugin",
        Mode::Sdk => "sdk",
    };
    let secret = |name: &str| {
        let path = world.secrets.iter().find(|(known, _)| known == name).map(|(_, path)| path.as_path());
        format!("{{file: {}}}", quoted(path.unwrap_or(Path::new("/nowhere"))))
    };
    let wrapper: Vec<String> = world.host_wrapper.iter().map(|word| quoted(Path::new(word))).collect();
    let mut credentials = String::new();
    for name in ["operator", "service", "s3-main", "s3-finance"] {
        // Writing to a string cannot fail.
        let _written = write!(
            credentials,
            "  {name}:\n    kind: static\n    access_key_id: {}\n    secret_access_key: {}\n",
            secret(&format!("{name}-access-key-id")),
            secret(&format!("{name}-secret-access-key")),
        );
    }
    let mut connections = String::new();
    for (name, bucket) in [("main", &world.buckets[0]), ("finance", &world.buckets[1])] {
        let _written = write!(
            connections,
            "  - name: s3-{name}
    bucket: {bucket}
    path: /dataiku
    credentials: s3-{name}
    glue_database: dss_{name}
    usable_by: [data_team]
    readable_by: [data_team]
    athena:
      name: athena-{name}
      workgroup: primary
      output_location: s3://{}/{name}/
",
            world.buckets[2]
        );
    }
    let tool = |name: &str, version: &str, kit: &Kit| {
        format!("    {name}: {{version: \"{version}\", url: {}, sha256: {}}}\n", kit.url, kit.sha256)
    };
    let tools = [
        tool("kubectl", kits::KUBECTL_VERSION, &kits.kubectl),
        tool("aws_cli", kits::AWS_CLI_VERSION, &kits.aws_cli),
        tool("eksctl", kits::EKSCTL_VERSION, &kits.eksctl),
        tool("aws_iam_authenticator", kits::AUTHENTICATOR_VERSION, &kits.aws_iam_authenticator),
    ]
    .concat();
    let kit = |kit: &Kit| format!("{{url: {}, sha256: {}}}", kit.url, kit.sha256);
    format!(
        "# The site of the sandbox. Made by `dssflow sandbox up`; every id in it belongs to this world and no other.
name: sandbox
expected_account: \"{account}\"
region: {region}

# For the sandbox only: where its AWS and its instance metadata listen.
aws:
  credentials: operator
  endpoint_url: {aws}
  imds_endpoint: {imds}

host:
  transport: local
  instance: {instance}
  # For the sandbox only: host commands run in a directory that stands for the machine.
  wrapper: [{wrapper}]
  service_user: dssuser
  python: \"3.11\"
  tools:
{tools}    docker_repo: {docker_repo}

credentials:
{credentials}service_credentials: service

dss:
  version: \"{version}\"
  major: {major}
  kits:
    dss: {dss}
    hadoop: {hadoop}
    spark: {spark}
  install_dir: /opt/dataiku
  data_dir: /data/dss
  port: {port}
  api_key: {{sink: {api_key}}}
  admin_password: {admin_password}

spark:
  configs:
    - name: SparkOnEKS
      properties: {{spark.executor.memory: 4g}}

groups:
  - name: data_team
    description: may use the S3 and Athena connections

connections:
{connections}
athena_driver:
  version: \"{driver_version}\"
  url: {driver_url}
  sha256: {driver_sha}

cluster:
  mode: {mode}
  name: eks-main
  subnets: [{subnet_a}, {subnet_b}]
  security_groups: [{group}]
  k8s_version: \"1.33\"
  node_pool:
    machine_type: m7i.4xlarge
    num_nodes: 3
    min_nodes: 1
    max_nodes: 5
    disk_gb: 200

projects:
  - key: CHURN
    name: Customer churn
  - key: FORECAST
    name: Sales forecast
",
        account = world.account,
        region = world.region,
        aws = world.aws_endpoint,
        imds = world.imds_endpoint,
        instance = world.instance_id,
        wrapper = wrapper.join(", "),
        docker_repo = kits.docker_repo.url,
        version = DSS_VERSION,
        major = DSS_MAJOR,
        dss = kit(&kits.dss),
        hadoop = kit(&kits.hadoop),
        spark = kit(&kits.spark),
        port = world.dss_port,
        api_key = secret("dss-api-key"),
        admin_password = secret("dss-admin-password"),
        driver_version = kits::ATHENA_JDBC_VERSION,
        driver_url = kits.athena_jdbc.url,
        driver_sha = kits.athena_jdbc.sha256,
        subnet_a = world.subnets[0],
        subnet_b = world.subnets[1],
        group = world.default_security_group,
    )
}

/// A path as a YAML text.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
