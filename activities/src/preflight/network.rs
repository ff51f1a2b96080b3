//! The network of the cluster: zones, subnets, ways out, who may reach the API, addresses: P09, P10, P11, P12, P13,
//! P21. The rules of security groups are in `rules`: P14.
//!
//! What a cluster needs of its subnets is judged by [`crate::aws::network`], which the run's own step uses as well, so
//! that the two cannot differ; here its problems are told under the rows of the catalogue.

mod rules;

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{Filter, InstanceType, NatGateway, NatGatewayAddress, NetworkInfo, VCpuInfo};
use dssflow_engine::activity::ActivityResult;

pub(super) use self::rules::{GroupRules, groups, read_groups};
use super::Notes;
use super::leftovers::ClusterFacts;
use super::look::Look;
use super::spec::{Endpoint, Spec};
use crate::aws::error::{classify, incomplete};
use crate::aws::network::{
    GROUP_OTHER_VPC, GROUP_UNKNOWN, Group, MIN_FREE_ADDRESSES, NetworkInput, SUBNET_FULL, SUBNET_NO_INTERNET,
    SUBNET_NO_PUBLIC_IP, SUBNET_NO_WAY_OUT, SUBNET_OTHER_VPC, SUBNET_UNKNOWN, SUBNETS_ONE_ZONE, Subnet,
    TOO_FEW_SUBNETS, ZONE_UNSUPPORTED, judge,
};
use crate::clients::AwsClients;

/// Tells the problems of some codes.
async fn problems(look: &Look, notes: &mut Notes, codes: &[&str]) -> bool {
    let subnets = match look.subnets().await {
        Ok(subnets) => subnets,
        Err(error) => {
            notes.unanswered("subnets", error);
            return false;
        }
    };
    let wants_groups = codes.contains(&GROUP_UNKNOWN);
    let groups: Vec<Group> = if wants_groups {
        match look.groups().await {
            Ok(groups) => {
                groups.iter().map(|g| Group { id: g.id.clone(), vpc_id: g.vpc_id.clone() }).collect()
            }
            Err(error) => {
                notes.unanswered("security groups", error);
                return false;
            }
        }
    } else {
        Vec::new()
    };
    let cluster = &look.spec.cluster;
    let input = NetworkInput {
        vpc_id: look.vpc().await,
        subnets: cluster.subnets.clone(),
        security_groups: cluster.security_groups.clone(),
        public: !cluster.private_nodes,
        host_subnet: look.spec.host_subnet.clone(),
    };
    let mut all = subnets.clone();
    if let Ok(host) = look.host_subnet().await {
        all.extend(host.iter().filter(|h| !subnets.iter().any(|s| s.id == h.id)).cloned());
    }
    let found = judge(&input, &all, &groups).err().unwrap_or_default();
    let before = notes.findings.len();
    for problem in found.into_iter().filter(|p| codes.contains(&p.code.as_str())) {
        // Without a VPC there is none to look in.
        let help = if input.vpc_id.is_none() && problem.help.contains("Values=`") {
            "correct region, or the id in the site file".to_owned()
        } else {
            problem.help
        };
        notes.error(problem.subject, problem.message, help);
    }
    notes.findings.len() == before && !subnets.is_empty()
}

/// P09: every subnet is in a zone that hosts EKS control planes.
pub(super) async fn zones(look: &Look, notes: &mut Notes) {
    let fits = problems(look, notes, &[ZONE_UNSUPPORTED]).await;
    if let Ok(subnets) = look.subnets().await
        && fits
    {
        let zones: BTreeSet<&str> = subnets.iter().map(|s| s.zone_id.as_str()).collect();
        notes.seen(format!("zones {}", zones.into_iter().collect::<Vec<_>>().join(", ")));
    }
}

/// P10: two subnets or more, in two zones or more, of the VPC of DSS; security groups of the same.
pub(super) async fn places(look: &Look, notes: &mut Notes) {
    const CODES: &[&str] = &[
        TOO_FEW_SUBNETS,
        SUBNETS_ONE_ZONE,
        SUBNET_OTHER_VPC,
        SUBNET_UNKNOWN,
        GROUP_UNKNOWN,
        GROUP_OTHER_VPC,
    ];
    if problems(look, notes, CODES).await {
        let (subnets, groups) = (&look.spec.cluster.subnets, &look.spec.cluster.security_groups);
        notes.seen(format!("subnets {} and groups {}", subnets.join(", "), groups.join(", ")));
    }
}

/// P11: public subnets give public addresses.
pub(super) async fn public_addresses(look: &Look, notes: &mut Notes) {
    if look.spec.cluster.private_nodes {
        return notes.seen("nodes are private: they need no public address");
    }
    if problems(look, notes, &[SUBNET_NO_PUBLIC_IP]).await {
        notes.seen("every subnet assigns public addresses");
    }
}

/// P12: every subnet has a way out.
pub(super) async fn ways_out(look: &Look, notes: &mut Notes) {
    if problems(look, notes, &[SUBNET_NO_INTERNET, SUBNET_NO_WAY_OUT]).await
        && let Ok(subnets) = look.subnets().await
    {
        for subnet in subnets {
            let way = if subnet.default_route.is_empty() { "VPC endpoints" } else { &subnet.default_route };
            notes.seen(format!("{} by {way}", subnet.id));
        }
    }
}

/// P13: who may reach the API of the cluster lets the nodes reach it.
pub(super) async fn endpoint(look: &Look, notes: &mut Notes) {
    let cluster = match look.cluster().await {
        Ok(cluster) => cluster,
        Err(error) => return notes.unanswered(&look.spec.cluster.name, error),
    };
    let endpoint = cluster.endpoint.as_ref().unwrap_or(&look.spec.cluster.endpoint);
    let gateways = if closed(endpoint) && look.spec.cluster.private_nodes {
        match nat_addresses(look).await {
            Ok(addresses) => addresses,
            Err(error) => return notes.unanswered("NAT gateways", &error),
        }
    } else {
        Vec::new()
    };
    judge_endpoint(&look.spec, cluster, endpoint, &gateways, notes);
}

/// Whether the Internet reaches it from some places only, and the VPC not at all.
fn closed(endpoint: &Endpoint) -> bool {
    let open = endpoint.public_cidrs.is_empty() || endpoint.public_cidrs.iter().any(|c| c == "0.0.0.0/0");
    endpoint.public && !endpoint.private && !open
}

fn judge_endpoint(
    spec: &Spec,
    cluster: &ClusterFacts,
    endpoint: &Endpoint,
    gateways: &[String],
    notes: &mut Notes,
) {
    let name = &spec.cluster.name;
    let which = if cluster.endpoint.is_some() { "it is there and" } else { "it would be made so that it" };
    let fix = format!(
        "`aws eks update-cluster-config --name {name} --resources-vpc-config endpointPrivateAccess=true`, or put the addresses of the nodes into publicAccessCidrs"
    );
    if !endpoint.public && !endpoint.private {
        return notes.error(name, format!("{which} answers neither the Internet nor the VPC"), fix);
    }
    if !closed(endpoint) {
        return notes.seen(if endpoint.private {
            "nodes reach the API inside the VPC"
        } else {
            "the API answers everywhere"
        });
    }
    let list = endpoint.public_cidrs.join(", ");
    let outside: Vec<&String> =
        gateways.iter().filter(|a| !endpoint.public_cidrs.iter().any(|c| rules::contains(c, a))).collect();
    if spec.cluster.private_nodes && !gateways.is_empty() && outside.is_empty() {
        return notes.seen(format!("the API answers {list}, where the NAT gateways of the nodes are"));
    }
    let nodes = match outside.as_slice() {
        [] => "the addresses of the nodes".to_owned(),
        outside => outside.iter().map(|a| a.as_str()).collect::<Vec<_>>().join(", "),
    };
    notes.error(
        name,
        format!("{which} answers {list} only and not the VPC; {nodes} are not in that list: nodes would never join (NodeCreationFailure)"),
        fix,
    );
}

/// The public addresses of the NAT gateways the subnets go out by.
async fn nat_addresses(look: &Look) -> ActivityResult<Vec<String>> {
    let subnets = look.subnets().await.map_err(Clone::clone)?;
    let ids: BTreeSet<String> =
        subnets.iter().map(|s| s.default_route.clone()).filter(|r| r.starts_with("nat-")).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let filter = Filter::builder().name("nat-gateway-id").set_values(Some(ids.into_iter().collect())).build();
    let call = look.clients.ec2().describe_nat_gateways().filter(filter).send().await;
    let answer = call.map_err(|e| classify("ec2:DescribeNatGateways", e))?;
    let addresses = answer.nat_gateways().iter().flat_map(NatGateway::nat_gateway_addresses);
    Ok(addresses.filter_map(NatGatewayAddress::public_ip).map(str::to_owned).collect())
}

/// What an instance type offers to pods and counts against quotas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeType {
    /// Its virtual processors.
    pub(super) vcpus: u32,
    /// The most pods of a node, as EKS sets it.
    pub(super) max_pods: u32,
}

/// The most pods EKS allows on a node with up to 30 processors, and with more.
const PODS: (u32, u32) = (110, 250);

/// Reads what an instance type offers.
pub(super) async fn read_node_type(clients: &AwsClients, name: &str) -> ActivityResult<NodeType> {
    const ACTION: &str = "ec2:DescribeInstanceTypes";
    let call = clients.ec2().describe_instance_types().instance_types(InstanceType::from(name)).send().await;
    let answer = call.map_err(|e| classify(ACTION, e))?;
    let info = answer.instance_types().first().ok_or_else(|| incomplete(ACTION, "InstanceTypes"))?;
    let count = |number: Option<i32>| number.and_then(|n| u32::try_from(n).ok());
    let vcpus = count(info.v_cpu_info().and_then(VCpuInfo::default_v_cpus)).unwrap_or_default();
    let network = info.network_info();
    let interfaces = count(network.and_then(NetworkInfo::maximum_network_interfaces));
    let each = count(network.and_then(NetworkInfo::ipv4_addresses_per_interface));
    Ok(NodeType { vcpus, max_pods: max_pods(vcpus, interfaces, each) })
}

/// As EKS computes it: every interface but for its own address gives pods theirs, two pods use the host's network; at
/// most what Kubernetes scales to.
fn max_pods(vcpus: u32, interfaces: Option<u32>, addresses_each: Option<u32>) -> u32 {
    let limit = if vcpus > 30 { PODS.1 } else { PODS.0 };
    match (interfaces, addresses_each) {
        (Some(interfaces), Some(each)) => limit.min(interfaces * each.saturating_sub(1) + 2),
        _ => limit,
    }
}

/// P21: the subnets have addresses for nodes and pods.
pub(super) async fn addresses(look: &Look, notes: &mut Notes) {
    let fits = problems(look, notes, &[SUBNET_FULL]).await;
    if let Ok(cluster) = look.cluster().await
        && cluster.state.cluster.is_some()
    {
        return notes.seen("the cluster is there; its nodes have their addresses");
    }
    match (look.subnets().await, look.node_type().await) {
        (Ok(subnets), Ok(node)) if fits => judge_addresses(&look.spec, subnets, node, notes),
        (Ok(_), Err(error)) => notes.unanswered(&look.spec.cluster.machine_type, error),
        _ => {}
    }
}

fn judge_addresses(spec: &Spec, subnets: &[Subnet], node: &NodeType, notes: &mut Notes) {
    let free: i64 = subnets.iter().map(|s| s.free_addresses).sum();
    let count = i64::try_from(subnets.len()).unwrap_or(i64::MAX);
    let nodes = i64::from(spec.cluster.nodes);
    let least = nodes.saturating_add(MIN_FREE_ADDRESSES.saturating_mul(count));
    let full = nodes.saturating_mul(i64::from(node.max_pods));
    let all = spec.cluster.subnets.join(", ");
    let fix = "name larger subnets, free addresses, take fewer nodes, or a smaller machine_type";
    if free < least {
        let text = format!(
            "{free} free addresses for {nodes} nodes and the control plane, which take {least} without a pod: {} are missing",
            least - free
        );
        notes.error(all, text, fix);
    } else if free < full {
        let text = format!(
            "{free} free addresses; {nodes} x {} run up to {} pods each, which take {full}: pods may stay pending",
            spec.cluster.machine_type, node.max_pods
        );
        notes.warning(all, text, fix);
    } else {
        notes.seen(format!("{free} free addresses for up to {full} pods on {nodes} nodes"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CHECKS, Finding, Severity};
    use super::*;

    fn spec() -> Spec {
        let mut spec = Spec::default();
        spec.cluster.name = "eks-main".into();
        spec.cluster.machine_type = "m7i.4xlarge".into();
        spec.cluster.nodes = 3;
        spec.cluster.subnets = vec!["subnet-a".into(), "subnet-b".into()];
        spec
    }

    fn found(judge: impl FnOnce(&mut Notes)) -> Option<Finding> {
        let mut notes = Notes::of(&CHECKS[0]);
        judge(&mut notes);
        notes.findings.pop()
    }

    #[test]
    fn p13_an_allow_list_without_the_nodes_is_told() {
        let mut spec = spec();
        let listed = Endpoint { public: true, private: false, public_cidrs: vec!["203.0.113.0/24".into()] };
        let judge = |spec: &Spec, endpoint: &Endpoint, gateways: &[&str]| {
            let gateways: Vec<String> = gateways.iter().map(|g| (*g).to_owned()).collect();
            found(|n| judge_endpoint(spec, &ClusterFacts::default(), endpoint, &gateways, n))
        };
        let told = judge(&spec, &listed, &[]).unwrap();
        assert_eq!(told.severity, Severity::Error);
        assert!(told.fix.contains("endpointPrivateAccess=true"), "{told:?}");
        assert_eq!(judge(&spec, &Endpoint { private: true, ..listed.clone() }, &[]), None);
        spec.cluster.private_nodes = true;
        assert_eq!(judge(&spec, &listed, &["203.0.113.7"]), None);
        let outside = judge(&spec, &listed, &["203.0.113.7", "198.51.100.1"]).unwrap();
        assert!(outside.evidence.contains("198.51.100.1 are not in that list"), "{outside:?}");
        let nobody = Endpoint { public: false, private: false, public_cidrs: Vec::new() };
        assert!(judge(&spec, &nobody, &[]).is_some());
    }

    #[test]
    fn p21_addresses_are_counted_against_pods() {
        let subnet = |free| Subnet {
            id: "subnet-a".into(),
            vpc_id: "vpc-1".into(),
            zone: "a".into(),
            zone_id: "a".into(),
            cidr: "10.0.0.0/24".into(),
            public_ip: true,
            default_route: "igw-1".into(),
            missing_endpoints: Vec::new(),
            free_addresses: free,
        };
        let node = NodeType { vcpus: 16, max_pods: 110 };
        let judge = |free| found(|n| judge_addresses(&spec(), &[subnet(free), subnet(free)], &node, n));
        assert_eq!(judge(250), None);
        let few = judge(100).unwrap();
        assert_eq!(
            (few.severity, few.evidence.contains("which take 330")),
            (Severity::Warning, true),
            "{few:?}"
        );
        let none = judge(7).unwrap();
        assert_eq!(
            (none.severity, none.evidence.contains("1 are missing")),
            (Severity::Error, true),
            "{none:?}"
        );
    }

    #[test]
    fn pods_of_a_node_as_eks_counts_them() {
        assert_eq!(max_pods(16, Some(8), Some(30)), 110);
        assert_eq!(max_pods(48, Some(15), Some(50)), 250);
        assert_eq!(max_pods(2, Some(3), Some(6)), 17);
        assert_eq!(max_pods(2, None, None), 110);
    }
}
