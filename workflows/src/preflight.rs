//! What a site wants of the world, for the checks that come before a run: [`dssflow_activities::preflight`]. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use dssflow_activities::aws::instance::MIN_MEMORY_MIB;
use dssflow_activities::preflight::{
    AthenaSpec, ClusterSpec, ConnectionSpec, CredentialSpec, Demand, Endpoint, Need, Pinned, Spec,
};
use dssflow_activities::secret::SecretRef;
use dssflow_engine::graph::{Graph, StepIx};

use crate::bootstrap::{MIN_DISK_GB, MIN_MEMORY_GB};
use crate::site::{ApiKey, ClusterMode, Connection, Credentials, Site, Tool, Transport};

/// What the checks compare the world with before this site is built. `graph` tells how long that usually takes; `needs`
/// are the permissions it asks for; `store` is the id of the store whose runs are ours, once there is one.
pub fn preflight(site: &Site, graph: &Graph, needs: Vec<Need>, store: Option<String>) -> Spec {
    let region = site.region.clone();
    Spec {
        site: site.name.clone(),
        store,
        region,
        expected_account: site.expected_account.clone(),
        typical: typical(graph),
        credentials_set: site.aws.credentials.clone(),
        credentials: site.credentials.iter().map(|(name, set)| (name.clone(), credentials(set))).collect(),
        service_credentials: site.service_credentials.clone(),
        secrets: secrets(site),
        needs,
        demands: demands(site),
        dry_runs: site.aws.endpoint_url.is_none(),
        instance: site.host.instance.clone(),
        host_subnet: site.host.launch.as_ref().map(|l| l.subnet.clone()),
        host_type: site.host.launch.as_ref().map(|l| l.instance_type.clone()),
        min_memory_mib: MIN_MEMORY_MIB,
        min_memory_gb: MIN_MEMORY_GB,
        min_disk_gb: MIN_DISK_GB,
        host_reachable: site.host.launch.is_none()
            && (site.host.transport == Transport::Local || site.host.address.is_some()),
        service_user: site.host.service_user.clone(),
        data_dir: site.dss.data_dir.clone(),
        dss_port: site.dss.port,
        dss_version: site.dss.version.clone(),
        image_tag: site.image_tag(),
        cluster: cluster(site, graph),
        kubectl: pinned(&site.host.tools.kubectl),
        aws_cli: pinned(&site.host.tools.aws_cli),
        eksctl: pinned(&site.host.tools.eksctl),
        authenticator: pinned(&site.host.tools.aws_iam_authenticator),
        connections: site.connections.iter().map(connection).collect(),
    }
}

/// How long a run usually takes: the longest way through the graph, by what each step usually takes.
fn typical(graph: &Graph) -> Duration {
    let mut ends: BTreeMap<StepIx, u64> = BTreeMap::new();
    for ix in graph.order() {
        let begin = graph.dependencies(*ix).iter().filter_map(|d| ends.get(d)).max().copied().unwrap_or(0);
        ends.insert(*ix, begin + graph.step(*ix).expected_ms.unwrap_or(0));
    }
    Duration::from_millis(ends.into_values().max().unwrap_or(0))
}

fn credentials(set: &Credentials) -> CredentialSpec {
    match set {
        Credentials::Static { access_key_id, secret_access_key } => CredentialSpec::Static {
            access_key_id: access_key_id.clone(),
            secret_access_key: secret_access_key.clone(),
        },
        Credentials::AssumeRole { role_arn } => CredentialSpec::Role { arn: role_arn.clone() },
        Credentials::Profile { profile } => CredentialSpec::Profile { name: profile.clone() },
        Credentials::Environment {} | Credentials::InstanceRole {} => CredentialSpec::Ambient,
    }
}

/// Every reference to a secret, with where it stands.
fn secrets(site: &Site) -> Vec<(String, SecretRef)> {
    let mut secrets = vec![("dss.admin_password".to_owned(), site.dss.admin_password.clone())];
    if let Some(license) = &site.dss.license {
        secrets.push(("dss.license".to_owned(), license.clone()));
    }
    if let ApiKey::Ref(key) = &site.dss.api_key {
        secrets.push(("dss.api_key".to_owned(), key.clone()));
    }
    for (name, set) in &site.credentials {
        if let Credentials::Static { access_key_id, secret_access_key } = set {
            secrets.push((format!("credentials.{name}.access_key_id"), access_key_id.clone()));
            secrets.push((format!("credentials.{name}.secret_access_key"), secret_access_key.clone()));
        }
    }
    secrets
}

/// What the bootstrap makes that counts against a quota. It makes no VPC, gateway or fixed address: it uses yours.
fn demands(site: &Site) -> Vec<Demand> {
    let mut demands = vec![
        Demand::NodeVcpus(site.cluster.node_pool.num_nodes),
        Demand::Clusters(1),
        Demand::NodeGroups(1),
        Demand::Repositories(2),
        Demand::Roles(2),
    ];
    match site.cluster.mode {
        // eksctl makes the shared group and that of the control plane, EKS its own; two stacks.
        ClusterMode::DssPlugin => demands.extend([Demand::SecurityGroups(3), Demand::Stacks(2)]),
        ClusterMode::Sdk => demands.push(Demand::SecurityGroups(1)),
    }
    demands
}

fn cluster(site: &Site, graph: &Graph) -> ClusterSpec {
    let cluster = &site.cluster;
    let step = match cluster.mode {
        ClusterMode::DssPlugin => "cluster-start",
        ClusterMode::Sdk => "eks-cluster",
    };
    ClusterSpec {
        name: cluster.name.clone(),
        by_plugin: cluster.mode == ClusterMode::DssPlugin,
        k8s_version: cluster.k8s_version.clone(),
        subnets: cluster.subnets.clone(),
        security_groups: cluster.security_groups.clone(),
        private_nodes: cluster.private,
        endpoint: match cluster.mode {
            // eksctl's own default; an overlay of the plugin's YAML cannot be read here.
            ClusterMode::DssPlugin => Endpoint { public: true, private: false, public_cidrs: Vec::new() },
            ClusterMode::Sdk => Endpoint::default(),
        },
        machine_type: cluster.node_pool.machine_type.clone(),
        nodes: cluster.node_pool.num_nodes,
        max_nodes: cluster.node_pool.maximum(),
        adopt: graph.steps().iter().any(|s| s.name.as_str() == step && s.adopt),
    }
}

fn pinned(tool: &Tool) -> Pinned {
    Pinned { version: tool.version.clone(), url: tool.url.clone(), sha256: tool.sha256.clone() }
}

fn connection(connection: &Connection) -> ConnectionSpec {
    ConnectionSpec {
        name: connection.name.clone(),
        bucket: connection.bucket.clone(),
        path: connection.path.clone(),
        credentials: connection.credentials.clone(),
        glue_database: connection.glue_database.clone(),
        athena: connection.athena.as_ref().map(|a| AthenaSpec {
            name: a.name.clone(),
            workgroup: a.workgroup.clone(),
            output_location: a.output_location.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Spec {
        let site = crate::parse(text, "site.yaml").unwrap();
        let graph = crate::bootstrap(&site).unwrap().graph;
        preflight(&site, &graph, Vec::new(), None)
    }

    #[test]
    fn a_site_becomes_what_is_checked() {
        let spec = spec(include_str!("../examples/site.yaml"));
        assert_eq!(spec.image_tag, "dss-14.2.0");
        // Installation, images and a cluster are the longest way.
        let minutes = spec.typical.as_secs() / 60;
        assert!((30..120).contains(&minutes), "{minutes} min");
        assert!(spec.secrets.iter().any(|(path, _)| path == "credentials.ops.secret_access_key"));
        assert!(matches!(spec.credentials["marketing"], CredentialSpec::Role { .. }));
        assert!(spec.demands.contains(&Demand::Stacks(2)) && spec.cluster.by_plugin);
        assert!(!spec.cluster.adopt && spec.dry_runs);
        assert_eq!(spec.connections.len(), 2);
    }

    #[test]
    fn what_the_site_lets_the_run_take_is_no_trouble() {
        let text = include_str!("../examples/site.yaml");
        let text = text.replace("adopt: []", "adopt: [cluster-start]");
        assert!(spec(&text).cluster.adopt);
    }
}
