//! P14: the rules of the security groups let nodes, control plane and DSS reach each other.
//!
//! Rules are compared, no packet is sent. A group that EKS makes with the cluster lets nodes and control plane reach
//! each other; what is judged is the groups that the site brings, and an existing cluster's own.

use std::net::Ipv4Addr;

use aws_sdk_ec2::types::{Filter, IpPermission, IpRange, UserIdGroupPair};
use dssflow_engine::activity::ActivityResult;

use super::super::Notes;
use super::super::look::Look;
use super::super::spec::Spec;
use crate::aws::error::classify;
use crate::clients::AwsClients;

/// The API of the cluster.
const API: u16 = 443;
/// The kubelet.
const KUBELET: u16 = 10250;
/// DSS listens on ten ports from its first.
const DSS_PORTS: u16 = 10;

/// One rule of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::preflight) struct Rule {
    /// Whether it covers TCP.
    pub(super) tcp: bool,
    /// The ports it covers.
    pub(super) ports: (u16, u16),
    /// The groups it names.
    pub(super) groups: Vec<String>,
    /// The ranges it names.
    pub(super) ranges: Vec<String>,
}

/// A security group with its rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::preflight) struct GroupRules {
    /// Its id.
    pub(in crate::preflight) id: String,
    /// Its VPC.
    pub(in crate::preflight) vpc_id: String,
    /// How many rules it has, as the quota counts them.
    pub(in crate::preflight) count: u32,
    pub(super) ingress: Vec<Rule>,
    pub(super) egress: Vec<Rule>,
}

/// Reads groups that are there.
pub(in crate::preflight) async fn read_groups(
    clients: &AwsClients,
    ids: Vec<String>,
) -> ActivityResult<Vec<GroupRules>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let filter = Filter::builder().name("group-id").set_values(Some(ids)).build();
    let call = clients.ec2().describe_security_groups().filters(filter).send().await;
    let answer = call.map_err(|e| classify("ec2:DescribeSecurityGroups", e))?;
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let sources =
        |p: &IpPermission| p.ip_ranges().len() + p.user_id_group_pairs().len() + p.prefix_list_ids().len();
    let group = |g: &aws_sdk_ec2::types::SecurityGroup| {
        let counts: usize = g.ip_permissions().iter().map(sources).sum();
        GroupRules {
            id: text(g.group_id()),
            vpc_id: text(g.vpc_id()),
            count: u32::try_from(counts).unwrap_or(u32::MAX),
            ingress: g.ip_permissions().iter().map(rule).collect(),
            egress: g.ip_permissions_egress().iter().map(rule).collect(),
        }
    };
    Ok(answer.security_groups().iter().map(group).collect())
}

fn rule(permission: &IpPermission) -> Rule {
    let port =
        |number: Option<i32>, otherwise| number.and_then(|n| u16::try_from(n).ok()).unwrap_or(otherwise);
    let every = permission.ip_protocol() == Some("-1");
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Rule {
        tcp: every || matches!(permission.ip_protocol(), Some("tcp" | "6")),
        ports: if every {
            (0, u16::MAX)
        } else {
            (port(permission.from_port(), 0), port(permission.to_port(), u16::MAX))
        },
        groups: permission
            .user_id_group_pairs()
            .iter()
            .map(UserIdGroupPair::group_id)
            .filter_map(owned)
            .collect(),
        ranges: permission.ip_ranges().iter().map(IpRange::cidr_ip).filter_map(owned).collect(),
    }
}

/// Somebody a rule may let through: its groups, or where it is.
struct Peer<'a> {
    groups: &'a [String],
    ranges: &'a [String],
}

/// Whether one of the rules covers all of the ports for the peer.
fn allows<'a>(rules: impl IntoIterator<Item = &'a Rule>, ports: (u16, u16), peer: &Peer<'_>) -> bool {
    let rules: Vec<&Rule> =
        rules.into_iter().filter(|r| r.tcp && r.ports.0 <= ports.0 && ports.1 <= r.ports.1).collect();
    let by_group = rules.iter().any(|r| r.groups.iter().any(|g| peer.groups.contains(g)));
    let by_range = !peer.ranges.is_empty()
        && peer.ranges.iter().all(|range| rules.iter().any(|r| r.ranges.iter().any(|c| contains(c, range))));
    by_group || by_range
}

/// Whether a range holds another one, or an address.
pub(super) fn contains(outer: &str, inner: &str) -> bool {
    let range = |text: &str| -> Option<(u32, u32)> {
        let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
        let (address, bits): (Ipv4Addr, u32) = (address.parse().ok()?, bits.parse().ok()?);
        (bits <= 32).then_some((u32::from(address), bits))
    };
    let (Some((outer, wide)), Some((inner, narrow))) = (range(outer), range(inner)) else { return false };
    let mask = u32::MAX.checked_shl(32 - wide).unwrap_or(0);
    wide <= narrow && outer & mask == inner & mask
}

/// P14, from the world.
pub(in crate::preflight) async fn groups(look: &Look, notes: &mut Notes) {
    let (all, subnets) = match (look.groups().await, look.subnets().await) {
        (Ok(groups), Ok(subnets)) => (groups, subnets),
        (Err(error), _) | (_, Err(error)) => return notes.unanswered("security groups", error),
    };
    let ranges: Vec<String> = subnets.iter().map(|s| s.cidr.clone()).collect();
    if look.spec.instance.is_none() {
        return notes.seen("the run launches the instance, with the cluster's groups");
    }
    let instance = match look.instance().await {
        Ok(facts) => facts,
        Err(error) => return notes.unanswered("instance", error),
    };
    // The run's own step adds the default group to those the instance has.
    let mut host = instance.security_groups.clone();
    if !host.contains(&instance.default_security_group) {
        host.push(instance.default_security_group.clone());
    }
    let traffic = Traffic { host, host_address: instance.private_ip.clone(), subnets: ranges };
    judge(&look.spec, all, &traffic, notes);
    let cluster_group = look.cluster().await.ok().and_then(|c| c.security_group.clone());
    if let Some(id) = cluster_group {
        match read_groups(&look.clients, vec![id.clone()]).await {
            Ok(found) => judge_cluster_group(&look.spec, &id, found.first(), notes),
            Err(error) => notes.unanswered(id, &error),
        }
    }
}

/// Where traffic goes.
struct Traffic {
    host: Vec<String>,
    host_address: String,
    subnets: Vec<String>,
}

fn judge(spec: &Spec, all: &[GroupRules], traffic: &Traffic, notes: &mut Notes) {
    let of = |ids: &[String]| all.iter().filter(|g| ids.contains(&g.id)).collect::<Vec<_>>();
    let ingress = |groups: &[&GroupRules]| groups.iter().flat_map(|g| g.ingress.clone()).collect::<Vec<_>>();
    let egress = |groups: &[&GroupRules]| groups.iter().flat_map(|g| g.egress.clone()).collect::<Vec<_>>();
    let (nodes, host) = (of(&spec.cluster.security_groups), of(&traffic.host));
    if nodes.is_empty() || host.is_empty() {
        return notes.skipped("security groups", "none of those the site names is there", "see P10");
    }
    let before = notes.findings.len();
    let node_peer = Peer { groups: &spec.cluster.security_groups, ranges: &traffic.subnets };
    let address = [traffic.host_address.clone()];
    let host_peer = Peer { groups: &traffic.host, ranges: &address };
    let ports = (spec.dss_port, spec.dss_port.saturating_add(DSS_PORTS - 1));
    let (node_ids, host_ids) = (spec.cluster.security_groups.join(", "), traffic.host.join(", "));
    let name = host.last().map_or_else(String::new, |g| g.id.clone());
    if !allows(&ingress(&host), ports, &node_peer) {
        notes.error(
            &host_ids,
            format!("nothing lets pods (groups {node_ids}) reach DSS on ports {}-{}: jobs in containers would hang", ports.0, ports.1),
            format!(
                "`aws ec2 authorize-security-group-ingress --group-id {name} --protocol tcp --port 0-65535 --source-group {}`, \
                 or use the VPC's default group for both",
                spec.cluster.security_groups.first().map_or("SG", String::as_str)
            ),
        );
    } else if !allows(&ingress(&host), (1024, u16::MAX), &node_peer) {
        notes.warning(
            &host_ids,
            "pods reach the ports of DSS, but not every TCP port: Spark drivers on the host listen on ports of their own".to_owned(),
            format!("allow TCP 1024-65535 from the groups of the nodes to {name}"),
        );
    }
    if !allows(&egress(&nodes), ports, &host_peer) {
        notes.error(
            &node_ids,
            format!("no rule for outgoing traffic lets pods reach DSS on ports {}-{}", ports.0, ports.1),
            "allow all outgoing traffic of the nodes' groups, as AWS does by default",
        );
    }
    let api = [traffic.subnets.clone(), vec!["0.0.0.0/0".to_owned()]];
    let out = egress(&host);
    if !api.iter().any(|ranges| allows(&out, (API, API), &Peer { groups: &[], ranges })) {
        notes.error(
            &host_ids,
            "no rule for outgoing traffic lets DSS reach the cluster's API on port 443".to_owned(),
            "allow outgoing TCP 443 of the instance's groups",
        );
    }
    if notes.findings.len() == before {
        notes.seen(format!("groups {node_ids} of the nodes and {host_ids} of DSS let each other through"));
    }
}

/// The group EKS makes lets everything with it through. Somebody may have taken its rules away.
fn judge_cluster_group(spec: &Spec, id: &str, group: Option<&GroupRules>, notes: &mut Notes) {
    let Some(group) = group else {
        return notes.error(
            id,
            format!("the security group of cluster {} is gone", spec.cluster.name),
            "make the cluster anew",
        );
    };
    let own = [id.to_owned()];
    let peer = Peer { groups: &own, ranges: &[] };
    let missing: Vec<String> = [API, KUBELET]
        .iter()
        .filter(|p| !allows(&group.ingress, (**p, **p), &peer))
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() {
        return notes.seen(format!("group {id} lets nodes and control plane through"));
    }
    notes.error(
        id,
        format!(
            "nodes and control plane share this group, and no rule lets them reach each other on port {}",
            missing.join(" and ")
        ),
        format!(
            "`aws ec2 authorize-security-group-ingress --group-id {id} --protocol all --source-group {id}`"
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::super::super::{CHECKS, Finding, Severity};
    use super::*;

    fn rule(ports: (u16, u16), groups: &[&str], ranges: &[&str]) -> Rule {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Rule { tcp: true, ports, groups: owned(groups), ranges: owned(ranges) }
    }

    fn group(id: &str, ingress: Vec<Rule>) -> GroupRules {
        let egress = vec![rule((0, u16::MAX), &[], &["0.0.0.0/0"])];
        GroupRules { id: id.into(), vpc_id: "vpc-1".into(), count: 1, ingress, egress }
    }

    fn found(groups: &[GroupRules]) -> Vec<Finding> {
        let mut spec = Spec { dss_port: 11200, ..Spec::default() };
        spec.cluster.security_groups = vec!["sg-nodes".into()];
        let traffic = Traffic {
            host: vec!["sg-host".into()],
            host_address: "10.0.1.9".into(),
            subnets: vec!["10.0.1.0/24".into(), "10.0.2.0/24".into()],
        };
        let mut notes = Notes::of(&CHECKS[0]);
        judge(&spec, groups, &traffic, &mut notes);
        notes.findings
    }

    #[test]
    fn ranges() {
        assert!(contains("10.0.0.0/8", "10.1.2.0/24") && contains("0.0.0.0/0", "10.0.0.1"));
        assert!(!contains("10.0.0.0/24", "10.0.1.0/24") && !contains("10.0.0.0/24", "10.0.0.0/8"));
        assert!(!contains("fd00::/8", "10.0.0.1") && contains("10.0.0.1", "10.0.0.1/32"));
    }

    #[test]
    fn p14_groups_that_do_not_let_each_other_through_are_told() {
        let nodes = || group("sg-nodes", Vec::new());
        let open = group("sg-host", vec![rule((0, u16::MAX), &["sg-nodes"], &[])]);
        assert_eq!(found(&[nodes(), open]), []);
        let by_range = group("sg-host", vec![rule((0, u16::MAX), &[], &["10.0.0.0/16"])]);
        assert_eq!(found(&[nodes(), by_range]), []);
        let shut = found(&[nodes(), group("sg-host", vec![rule((22, 22), &[], &["0.0.0.0/0"])])]);
        assert_eq!((shut.len(), shut[0].severity), (1, Severity::Error), "{shut:?}");
        assert!(shut[0].evidence.contains("11200-11209") && shut[0].fix.contains("--source-group sg-nodes"));
        let narrow = found(&[nodes(), group("sg-host", vec![rule((11200, 11209), &["sg-nodes"], &[])])]);
        assert_eq!((narrow.len(), narrow[0].severity), (1, Severity::Warning), "{narrow:?}");
        let half = found(&[nodes(), group("sg-host", vec![rule((0, u16::MAX), &[], &["10.0.1.0/24"])])]);
        assert_eq!(half[0].severity, Severity::Error, "one of two subnets is not enough");
        let mut dumb = nodes();
        dumb.egress.clear();
        let open = group("sg-host", vec![rule((0, u16::MAX), &["sg-nodes"], &[])]);
        assert!(found(&[dumb, open.clone()])[0].evidence.contains("outgoing"));
        let mut sealed = open;
        sealed.egress.clear();
        assert!(found(&[nodes(), sealed])[0].evidence.contains("port 443"));
    }

    #[test]
    fn p14_a_cluster_group_without_its_rules_is_told() {
        let spec = Spec::default();
        let judge = |group: Option<&GroupRules>| {
            let mut notes = Notes::of(&CHECKS[0]);
            judge_cluster_group(&spec, "sg-c", group, &mut notes);
            notes.findings.pop()
        };
        assert_eq!(judge(Some(&group("sg-c", vec![rule((0, u16::MAX), &["sg-c"], &[])]))), None);
        let only_api = judge(Some(&group("sg-c", vec![rule((443, 443), &["sg-c"], &[])]))).unwrap();
        assert!(only_api.evidence.ends_with("port 10250") && only_api.fix.contains("--protocol all"));
        assert!(judge(None).is_some());
    }
}
