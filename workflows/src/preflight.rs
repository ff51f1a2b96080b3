//! What a site wants of the world, for the checks that come before a run: [`dssflow_activities::preflight`]. Pure.

use dssflow_activities::aws::instance::MIN_MEMORY_MIB;
use dssflow_activities::preflight::{
    AthenaSpec, ClusterSpec, ConnectionSpec, Demand, Endpoint, Need, Pinned, Spec, Who,
};
use dssflow_activities::secret::SecretRef;
use dssflow_engine::graph::Graph;

use crate::bootstrap::{MIN_DISK_GB, MIN_MEMORY_GB};
use crate::expected::expected_duration;
use crate::glue_resync::ResyncSpec;
use crate::permissions::{self, Permission, Principal};
use crate::site::{ApiKey, ClusterMode, Connection, Site, Tool, Transport};

/// What the checks compare the world with before this site is built. `graph` tells how long that usually takes; `store`
/// is the id of the store whose runs are ours, once there is one.
pub fn preflight(site: &Site, graph: &Graph, store: Option<String>) -> Spec {
    let region = site.region.clone();
    Spec {
        site: site.name.clone(),
        store,
        region,
        expected_account: site.expected_account.clone(),
        typical: expected_duration(graph),
        credentials_set: site.aws.credentials.clone(),
        credentials: site
            .credentials
            .keys()
            .filter_map(|name| Some((name.clone(), site.credential_source(name)?)))
            .collect(),
        service_credentials: site.service_credentials.clone(),
        secrets: secrets(site),
        needs: needs(site),
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

/// The checks that come before a resync: who calls, with which rights and secrets. The rest is about what a bootstrap
/// makes.
pub const RESYNC_CHECKS: [&str; 5] = ["P01", "P02", "P03", "P08", "S01"];

/// What [`RESYNC_CHECKS`] compare the world with before a resync.
pub fn preflight_resync(spec: &ResyncSpec) -> Spec {
    let needs = permissions::resync_needs(spec).into_iter().map(|p| Need {
        actions: p.actions,
        resources: p.resources,
        context: Vec::new(),
        condition: None,
        why: p.why,
        who: Who::Operator,
    });
    Spec {
        site: spec.name.clone(),
        region: spec.region.clone(),
        expected_account: spec.expected_account.clone(),
        typical: std::time::Duration::from_mins(10),
        credentials_set: spec.aws.credentials.clone(),
        credentials: spec
            .credentials
            .keys()
            .filter_map(|name| Some((name.clone(), spec.credential_source(name)?)))
            .collect(),
        secrets: vec![("dss.api_key".to_owned(), spec.dss.api_key.clone())],
        needs: needs.collect(),
        dry_runs: false,
        ..Spec::default()
    }
}

/// What the principals of a site must be allowed to do, as far as that can be asked about.
fn needs(site: &Site) -> Vec<Need> {
    permissions::needed(site).into_iter().filter_map(|p| need(site, p)).collect()
}

fn need(site: &Site, permission: Permission) -> Option<Need> {
    let who = match &permission.principal {
        Principal::Dssflow => Who::Operator,
        Principal::ServiceUser => Who::Service,
        Principal::Connection(name) => {
            Who::Set(site.connections.iter().find(|c| c.name == *name)?.credentials.clone())
        }
        // What it does has happened when the checks run: without it there are no credentials to ask with.
        Principal::Source => return None,
    };
    let of_connection = matches!(who, Who::Set(_));
    let actions: Vec<String> = permission
        .actions
        .iter()
        // What connections do with Glue has a check of its own.
        .filter(|action| !(of_connection && action.starts_with("glue:")))
        .flat_map(|action| concrete(action))
        .collect();
    let plain = |value: &String| value.replace('*', "dssflow");
    let context = permission
        .conditions
        .values()
        .flatten()
        .filter_map(|(key, values)| Some((key.clone(), plain(values.first()?))))
        .collect();
    let condition = (!permission.conditions.is_empty())
        .then(|| serde_json::to_value(&permission.conditions).expect("conditions are plain data"));
    (!actions.is_empty()).then(|| Need {
        actions,
        resources: permission.resources,
        context,
        condition,
        why: permission.why,
        who,
    })
}

/// IAM is asked about single actions: of a whole service, those that making a cluster cannot do without.
fn concrete(action: &str) -> Vec<String> {
    let some: &[&str] = match action {
        "ec2:*" => &[
            "ec2:AuthorizeSecurityGroupIngress",
            "ec2:CreateLaunchTemplate",
            "ec2:CreateSecurityGroup",
            "ec2:CreateTags",
            "ec2:DescribeSubnets",
            "ec2:RunInstances",
        ],
        "eks:*" => &[
            "eks:CreateAddon",
            "eks:CreateCluster",
            "eks:CreateNodegroup",
            "eks:DeleteCluster",
            "eks:DeleteNodegroup",
            "eks:DescribeCluster",
            "eks:TagResource",
        ],
        "cloudformation:*" => &[
            "cloudformation:CreateStack",
            "cloudformation:DeleteStack",
            "cloudformation:DescribeStackEvents",
            "cloudformation:DescribeStacks",
        ],
        other if other.contains('*') => &[],
        other => return vec![other.to_owned()],
    };
    some.iter().map(|a| (*a).to_owned()).collect()
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
        let of_set = set.secrets().into_iter();
        secrets.extend(of_set.map(|(key, secret)| (format!("credentials.{name}.{key}"), secret.clone())));
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
    use dssflow_activities::clients::CredentialSource;

    use super::*;

    fn spec(text: &str) -> Spec {
        let site = crate::parse(text, "site.yaml").unwrap();
        let graph = crate::bootstrap(&site).unwrap().graph;
        preflight(&site, &graph, None)
    }

    #[test]
    fn a_site_becomes_what_is_checked() {
        let spec = spec(include_str!("../examples/site.yaml"));
        assert_eq!(spec.image_tag, "dss-14.2.0");
        // Installation, images and a cluster are the longest way.
        let minutes = spec.typical.as_secs() / 60;
        assert!((30..120).contains(&minutes), "{minutes} min");
        assert!(spec.secrets.iter().any(|(path, _)| path == "credentials.ops.secret_access_key"));
        assert!(matches!(spec.credentials["marketing"], CredentialSource::Role { .. }));
        let wants = |who: &Who, action: &str| {
            spec.needs.iter().any(|n| n.who == *who && n.actions.iter().any(|a| a == action))
        };
        assert!(wants(&Who::Service, "eks:CreateCluster") && wants(&Who::Operator, "ecr:CreateRepository"));
        assert!(wants(&Who::Set("sales".to_owned()), "s3:PutObject"));
        assert!(spec.needs.iter().flat_map(|n| &n.actions).all(|a| !a.contains('*')));
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
