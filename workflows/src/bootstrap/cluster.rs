//! The EKS plugin and the cluster, made by the plugin through eksctl or by dssflow itself through the AWS API.

use std::collections::BTreeMap;

use dssflow_activities::aws::cluster::{self as eks, wait as cluster_wait};
use dssflow_activities::aws::node_group::{self, wait as node_group_wait};
use dssflow_activities::aws::{access_entry, addon, launch_template, role, service_linked_role};
use dssflow_activities::dss::{
    cluster, cluster_attach, cluster_start, default_cluster, nodes_check, plugin, plugin_code_env,
    plugin_presets, pods_check,
};
use dssflow_engine::graph::Binding;
use dssflow_engine::id::StepName;
use dssflow_engine::run::resolve::FunctionRegistry;
use serde_json::{Value, json};

use super::Start;
use super::dss::{Dss, ext_host};
use super::host::HostSteps;
use super::overlay::Names;
use super::plan::{ADDON, CLUSTER_START, CONTROL_PLANE, ENDPOINT, NODES, PLUGIN, PODS, Plan, from_step};
use super::registry::Registry;
use crate::site::{ClusterMode, PluginSource};

/// The preset that leaves credentials to the service user's own.
const CONNECTION_PRESET: &str = "aws-env";
/// The preset with the subnets and security groups.
const NETWORK_PRESET: &str = "dss-vpc";
/// The function that turns what STS calls a session of a role into that role.
const PRINCIPAL: &str = "bootstrap.principal";
/// The function that gives the image of the pod that asks for DSS.
const POD_IMAGE: &str = "bootstrap.pod-image";
/// The longest name of an IAM role.
const ROLE_NAME_LEN: usize = 64;

/// The cluster that DSS uses.
pub(super) struct Cluster {
    /// The step whose output says its id in DSS.
    pub(super) running: StepName,
    /// DSS uses it unless a project says otherwise.
    pub(super) default: StepName,
}

pub(super) fn steps(
    plan: &mut Plan<'_>,
    start: &Start,
    host: &HostSteps,
    dss: &Dss,
    registry: &Registry,
) -> Cluster {
    let presets = presets(plan, dss);
    plan.heading("Create your first cluster");
    let running = match plan.site.cluster.mode {
        ClusterMode::DssPlugin => by_plugin(plan, start, host, dss, &presets),
        ClusterMode::Sdk => by_sdk(plan, start, host, dss, &presets),
    };
    let site = plan.site;
    plan.heading("Use it");
    let default = plan
        .step(
            "default-cluster",
            default_cluster::NAME,
            &default_cluster::DefaultClusterInput {
                target: dss.target.clone(),
                cluster_id: from_step(&running, "/id"),
            },
        )
        .title(format!("{} is the default cluster", site.cluster.name))
        .after([&registry.spark_config])
        .general_settings()
        .add();
    plan.step(
        "nodes-check",
        nodes_check::NAME,
        &nodes_check::NodesCheckInput {
            target: dss.target.clone(),
            cluster_id: from_step(&running, "/id"),
            expected: site.cluster.node_pool.num_nodes,
        },
    )
    .title(format!("{} nodes are ready, seen through DSS", site.cluster.node_pool.num_nodes))
    .api()
    .budget(ENDPOINT)
    .add();
    pods_check(plan, start, dss, registry, &running);
    Cluster { running, default }
}

/// A pod of the base image asks for DSS, once the image is in the registry and nodes are there to run it.
fn pods_check(plan: &mut Plan<'_>, start: &Start, dss: &Dss, registry: &Registry, running: &StepName) {
    let site = plan.site;
    plan.step(
        "pods-check",
        pods_check::NAME,
        &pods_check::PodsCheckInput {
            target: dss.target.clone(),
            cluster_id: from_step(running, "/id"),
            image: String::new(),
            address: ext_host(site, start),
            port: site.dss.port,
        },
    )
    .with(
        "image",
        Binding::Function {
            name: POD_IMAGE.to_owned(),
            argument: Box::new(Binding::Object {
                fields: BTreeMap::from([
                    ("registry".to_owned(), Binding::literal(site.registry_url())),
                    ("images".to_owned(), Binding::output(&dss.exec_image, "/images")),
                ]),
            }),
        },
    )
    .title(format!("pods of {} reach DSS", site.cluster.name))
    .after([&registry.images])
    .api()
    .budget(PODS)
    .add();
}

fn presets(plan: &mut Plan<'_>, dss: &Dss) -> StepName {
    let site = plan.site;
    plan.heading("Install EKS plugin");
    let source = match (site.plugin.source, &site.plugin.url, &site.plugin.sha256) {
        (PluginSource::Zip, Some(url), Some(sha256)) => {
            plugin::PluginSource::Zip { url: url.clone(), sha256: sha256.to_lowercase() }
        }
        _ => plugin::PluginSource::Store,
    };
    let plugin = plan
        .step(
            "plugin",
            plugin::NAME,
            &plugin::PluginInput {
                target: dss.target.clone(),
                plugin_id: plugin::EKS_PLUGIN.to_owned(),
                version: site.plugin.version.clone(),
                source,
            },
        )
        .title("EKS plugin")
        .after([&dss.ready])
        .api()
        .lock("dss:plugin:eks-clusters")
        .budget(PLUGIN)
        .add();
    let code_env = plan
        .step(
            "plugin-code-env",
            plugin_code_env::NAME,
            &plugin_code_env::PluginCodeEnvInput {
                target: dss.target.clone(),
                plugin_id: plugin::EKS_PLUGIN.to_owned(),
                interpreter: site.host.python.dss_name().to_owned(),
            },
        )
        .title(format!("code environment of the plugin, Python {}", site.host.python.version()))
        .after([&plugin])
        .api()
        .lock("dss:plugin:eks-clusters")
        .budget(PLUGIN)
        .add();
    plan.step(
        "plugin-presets",
        plugin_presets::NAME,
        &plugin_presets::PluginPresetsInput {
            target: dss.target.clone(),
            plugin_id: plugin::EKS_PLUGIN.to_owned(),
            connection_preset: CONNECTION_PRESET.to_owned(),
            region: None,
            network_preset: NETWORK_PRESET.to_owned(),
            subnets: site.cluster.subnets.clone(),
            security_groups: site.cluster.security_groups.clone(),
            private: site.cluster.private,
            overlay: Names::of_site(site).fill(site.overlays.plugin_presets.as_ref()),
        },
    )
    .title("presets: connection left empty; networking with the subnets and security groups")
    .after([&code_env])
    .api()
    .lock("dss:plugin:eks-clusters")
    .add()
}

fn by_plugin(
    plan: &mut Plan<'_>,
    start: &Start,
    host: &HostSteps,
    dss: &Dss,
    presets: &StepName,
) -> StepName {
    let site = plan.site;
    let pool = &site.cluster.node_pool;
    let define = plan
        .step(
            "cluster",
            cluster::NAME,
            &cluster::ClusterInput {
                target: dss.target.clone(),
                name: site.cluster.name.clone(),
                connection_preset: CONNECTION_PRESET.to_owned(),
                network_preset: NETWORK_PRESET.to_owned(),
                k8s_version: site.cluster.k8s_version.clone(),
                node_pool: cluster::NodePoolSpec {
                    machine_type: pool.machine_type.clone(),
                    num_nodes: pool.num_nodes,
                    min_nodes: pool.minimum(),
                    max_nodes: pool.maximum(),
                    disk_gb: pool.disk_gb,
                },
                overlay: Names::of_site(site).fill(site.overlays.cluster.as_ref()),
            },
        )
        .title(format!("cluster {} with {} x {}", site.cluster.name, pool.num_nodes, pool.machine_type))
        .after([presets])
        .api()
        .add();
    plan.step(
        "cluster-start",
        cluster_start::NAME,
        &cluster_start::ClusterStartInput { target: dss.target.clone(), id: from_step(&define, "/id") },
    )
    .title(format!("start {}: EKS cluster and nodes, by eksctl", site.cluster.name))
    .after(&host.cluster_tools)
    .after([&start.identity, &host.aws_ready])
    .api()
    .budget(CLUSTER_START)
    .stubborn()
    .add()
}

fn by_sdk(plan: &mut Plan<'_>, start: &Start, host: &HostSteps, dss: &Dss, presets: &StepName) -> StepName {
    let active = control_plane(plan, start);
    let access = access(plan, start, host, &active);
    let nodes = nodes(plan, start, &active);
    let mut ready = vec![access];
    for (name, title) in
        [("vpc-cni", "pod networking"), ("kube-proxy", "services"), ("coredns", "names in the cluster")]
    {
        ready.push(addon(plan, name, title, &nodes));
    }
    let site = plan.site;
    plan.step(
        "cluster-attach",
        cluster_attach::NAME,
        &cluster_attach::ClusterAttachInput {
            target: dss.target.clone(),
            name: site.cluster.name.clone(),
            eks_cluster: from_step(&active, "/name"),
            connection_preset: CONNECTION_PRESET.to_owned(),
        },
    )
    .title(format!("DSS attaches to {}", site.cluster.name))
    .after(&ready)
    .after(&host.cluster_tools)
    .after([presets])
    .api()
    .budget(ENDPOINT)
    .stubborn()
    .add()
}

/// Roles, control plane, and the wait for it; gives the wait.
fn control_plane(plan: &mut Plan<'_>, start: &Start) -> StepName {
    let site = plan.site;
    let linked: Vec<StepName> =
        [("eks", "eks.amazonaws.com"), ("eks-nodegroup", "eks-nodegroup.amazonaws.com")]
            .into_iter()
            .map(|(name, service)| {
                let input = service_linked_role::ServiceLinkedRoleInput { service: service.to_owned() };
                plan.step(format!("service-linked-role-{name}"), service_linked_role::NAME, &input)
                    .title(format!("service-linked role of {service}"))
                    .after(&start.checked)
                    .add()
            })
            .collect();
    let role =
        role(plan, start, "cluster-role", role::RoleKind::EksCluster, site.cluster.roles.cluster.as_ref());
    let cluster = plan
        .step(
            "eks-cluster",
            eks::NAME,
            &eks::ClusterInput {
                name: site.cluster.name.clone(),
                role_arn: from_step(&role, "/arn"),
                subnets: site.cluster.subnets.clone(),
                security_groups: site.cluster.security_groups.clone(),
                version: Some(site.cluster.k8s_version.clone()),
                endpoint_public: true,
                endpoint_private: true,
                public_access_cidrs: Vec::new(),
            },
        )
        .title(format!("EKS cluster {}, Kubernetes {}", site.cluster.name, site.cluster.k8s_version))
        .after(&linked)
        .budget(CONTROL_PLANE)
        .with_new_role()
        .stubborn()
        .add();
    plan.step(
        "eks-cluster-active",
        cluster_wait::NAME,
        &cluster_wait::WaitClusterInput { name: from_step(&cluster, "/name") },
    )
    .title("the control plane answers")
    .budget(CONTROL_PLANE)
    .add()
}

fn role(
    plan: &mut Plan<'_>,
    start: &Start,
    step: &str,
    kind: role::RoleKind,
    given: Option<&String>,
) -> StepName {
    let site = plan.site;
    let name = short(&format!("dssflow-{}-{}-{step}", site.region, site.cluster.name), ROLE_NAME_LEN);
    let title = given.map_or_else(|| format!("role {name}"), |arn| format!("role {arn}"));
    let input = role::RoleInput {
        name: given.is_none().then_some(name),
        given_arn: given.cloned(),
        kind,
        extra_policies: Vec::new(),
    };
    plan.step(step, role::NAME, &input).title(title).after(&start.checked).add()
}

fn access(plan: &mut Plan<'_>, start: &Start, host: &HostSteps, active: &StepName) -> StepName {
    plan.step(
        "access-entry",
        access_entry::NAME,
        &access_entry::AccessEntryInput {
            cluster: from_step(active, "/name"),
            principal_arn: String::new(),
            policy_arn: None,
        },
    )
    .with(
        "principal_arn",
        Binding::Function {
            name: PRINCIPAL.to_owned(),
            argument: Box::new(Binding::output(&host.aws_ready, "/arn")),
        },
    )
    .title("the service user's principal administers the cluster")
    .after([&start.identity])
    .add()
}

/// Launch template, node group, and the wait for it; gives the wait.
fn nodes(plan: &mut Plan<'_>, start: &Start, active: &StepName) -> StepName {
    let site = plan.site;
    let pool = &site.cluster.node_pool;
    let role = role(plan, start, "node-role", role::RoleKind::EksNode, site.cluster.roles.node.as_ref());
    let template = plan
        .step(
            "launch-template",
            launch_template::NAME,
            &launch_template::LaunchTemplateInput {
                name: format!("dssflow-{}", site.cluster.name),
                cluster_security_group: Some(from_step(active, "/cluster_security_group")),
                security_groups: site.cluster.security_groups.clone(),
                disk_gb: int(pool.disk_gb),
            },
        )
        .title("launch template with the security groups of the cluster and of DSS")
        .add();
    let group = plan
        .step(
            "node-group",
            node_group::NAME,
            &node_group::NodeGroupInput {
                cluster: from_step(active, "/name"),
                name: format!("{}-nodes", site.cluster.name),
                node_role_arn: from_step(&role, "/arn"),
                subnets: site.cluster.subnets.clone(),
                instance_types: vec![pool.machine_type.clone()],
                min_size: int(pool.minimum()),
                max_size: int(pool.maximum()),
                desired_size: int(pool.num_nodes),
                launch_template_id: Some(from_step(&template, "/id")),
                launch_template_version: Some(from_step(&template, "/version")),
                ami_type: None,
                labels: BTreeMap::new(),
            },
        )
        .title(format!("node group: {} x {}", pool.num_nodes, pool.machine_type))
        .budget(NODES)
        .with_new_role()
        .stubborn()
        .add();
    plan.step(
        "node-group-active",
        node_group_wait::NAME,
        &node_group_wait::WaitNodeGroupInput {
            cluster: from_step(&group, "/cluster"),
            name: from_step(&group, "/name"),
        },
    )
    .title("the nodes have joined")
    .budget(NODES)
    .add()
}

fn addon(plan: &mut Plan<'_>, name: &str, title: &str, nodes: &StepName) -> StepName {
    let add = plan
        .step(
            format!("addon-{name}"),
            addon::NAME,
            &addon::AddonInput {
                cluster: from_step(nodes, "/cluster"),
                addon: name.to_owned(),
                version: None,
            },
        )
        .title(format!("add-on {name}: {title}"))
        .budget(ADDON)
        .add();
    plan.step(
        format!("addon-{name}-active"),
        addon::wait::NAME,
        &addon::wait::WaitAddonInput {
            cluster: from_step(&add, "/cluster"),
            addon: from_step(&add, "/addon"),
        },
    )
    .title(format!("add-on {name} is active"))
    .budget(ADDON)
    .add()
}

/// Adds what bindings here name.
pub(super) fn register_functions(functions: &mut FunctionRegistry) {
    functions.insert(PRINCIPAL, principal);
    functions.insert(POD_IMAGE, pod_image);
}

/// The first base image for containers, as the registry has it.
pub(super) fn pod_image(argument: &Value) -> Result<Value, String> {
    let registry = argument["registry"].as_str().ok_or("no registry was given")?;
    let image = argument["images"].get(0).and_then(Value::as_str).ok_or("no base image was built")?;
    Ok(json!(format!("{registry}/{image}")))
}

/// The user or role behind a caller's ARN: access entries take no sessions. A role's path is not part of what STS
/// tells, and EKS does not want it either.
pub(super) fn principal(caller: &Value) -> Result<Value, String> {
    let arn = caller.as_str().ok_or("the caller's ARN is no text")?;
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let &[_, partition, service, _, account, resource] = parts.as_slice() else {
        return Err(format!("{arn:?} is no ARN"));
    };
    match resource.strip_prefix("assumed-role/").and_then(|rest| rest.split_once('/')) {
        Some((role, _)) if service == "sts" => {
            Ok(json!(format!("arn:{partition}:iam::{account}:role/{role}")))
        }
        _ => Ok(json!(arn)),
    }
}

/// Counts and sizes as EKS takes them.
fn int(number: u32) -> i32 {
    i32::try_from(number).expect("numbers of nodes and disks are checked with the site")
}

/// `name`, or when it is longer than `limit` its start with a checksum of the whole.
fn short(name: &str, limit: usize) -> String {
    if name.len() <= limit {
        return name.to_owned();
    }
    // FNV-1a: it only has to tell names apart that share their start.
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{}-{hash:08x}", &name[..limit - 9])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_principal_of_a_session_is_its_role() {
        let of = |arn: &str| principal(&json!(arn));
        assert_eq!(
            of("arn:aws:sts::123456789012:assumed-role/ops/i-0ab"),
            Ok(json!("arn:aws:iam::123456789012:role/ops"))
        );
        assert_eq!(of("arn:aws:iam::123456789012:user/ops"), Ok(json!("arn:aws:iam::123456789012:user/ops")));
        assert!(of("ops").is_err());
    }

    #[test]
    fn the_image_of_a_pod_is_the_registrys() {
        let image = pod_image(&json!({ "registry": "r/dss", "images": ["dku-exec-base-x:dss-14"] }));
        assert_eq!(image, Ok(json!("r/dss/dku-exec-base-x:dss-14")));
        assert!(pod_image(&json!({ "registry": "r", "images": [] })).is_err());
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        assert_eq!(short("dssflow-a", 64), "dssflow-a");
        let (a, b) = (short(&"x".repeat(80), 64), short(&"x".repeat(81), 64));
        assert_eq!((a.len(), b.len()), (64, 64));
        assert_ne!(a, b);
    }
}
