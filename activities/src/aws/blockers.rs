//! What still hangs on a cluster or its security groups when it does not want to go: network interfaces, and whose they
//! are.
//!
//! AWS answers a deletion with `DependencyViolation` and names nothing. The interfaces tell: their description, what
//! they are attached to, and the cluster's tags on their security groups. Only looks, and only by EC2: a network load
//! balancer without a security group cannot be told apart from others this way. What the principal may not list is left
//! out: a right that was not needed to make things cannot be asked for.
//!
//! Page: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-eni.html>

use std::collections::BTreeSet;
use std::fmt;

use aws_sdk_ec2::types::{Filter, NetworkInterface};
use dssflow_engine::activity::{ActivityError, ActivityResult, ErrorClass};

use super::error::classify;
use crate::clients::AwsClients;

/// The code of an error that says what is still in use; retried for a quarter of an hour.
pub const STILL_IN_USE: &str = "StillInUse";

/// A network interface that keeps something from going.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The interface.
    pub id: String,
    /// `in-use` or `available`.
    pub status: String,
    /// Whose it is, for people.
    pub owner: Owner,
    /// Its security groups.
    pub groups: Vec<String>,
}

/// Whose a network interface is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A load balancer, as `app/k8s-default-web/0123`.
    LoadBalancer(String),
    /// The control plane of an EKS cluster.
    ControlPlane(String),
    /// The pod networking of a node.
    Pods(String),
    /// An instance.
    Instance(String),
    /// Something else, as AWS describes it.
    Other(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoadBalancer(name) => {
                write!(f, "load balancer {name}, of a Kubernetes Service or Ingress most likely")
            }
            Self::ControlPlane(cluster) => write!(f, "control plane of EKS cluster {cluster}"),
            Self::Pods(instance) => write!(f, "pod networking of node {instance}"),
            Self::Instance(id) => write!(f, "instance {id}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network interface {} ({}): {}", self.id, self.status, self.owner)
    }
}

impl Blocker {
    fn of(interface: &NetworkInterface) -> Self {
        Self {
            id: interface.network_interface_id().unwrap_or_default().to_owned(),
            status: interface.status().map_or("unknown", |s| s.as_str()).to_owned(),
            owner: owner_of(interface),
            groups: interface.groups().iter().filter_map(|g| g.group_id()).map(str::to_owned).collect(),
        }
    }
}

/// Reads whose an interface is. AWS's own services say so in the description.
fn owner_of(interface: &NetworkInterface) -> Owner {
    let description = interface.description().unwrap_or_default();
    let attached = interface.attachment().and_then(|a| a.instance_id()).filter(|id| !id.is_empty());
    if let Some(name) = description.strip_prefix("ELB ") {
        return Owner::LoadBalancer(name.to_owned());
    }
    if let Some(cluster) = description.strip_prefix("Amazon EKS ") {
        return Owner::ControlPlane(cluster.to_owned());
    }
    if let Some(node) = description.strip_prefix("aws-K8S-") {
        return Owner::Pods(node.to_owned());
    }
    if let Some(id) = attached {
        return Owner::Instance(id.to_owned());
    }
    let kind = interface.interface_type().map_or("", |k| k.as_str());
    let requester = interface.requester_id().unwrap_or_default();
    Owner::Other(match (kind, description, requester) {
        ("" | "interface", "", "") => "nobody says whose".to_owned(),
        ("" | "interface", "", requester) => format!("made by {requester}"),
        ("" | "interface", description, _) => format!("{description:?}"),
        (kind, description, _) => format!("a {kind} ({description})"),
    })
}

/// The tag by which Kubernetes marks what belongs to a cluster.
fn cluster_tag(cluster: &str) -> String {
    format!("kubernetes.io/cluster/{cluster}")
}

/// The interfaces that belong to a cluster: by its tag, by the control plane's description, or by a security group that
/// carries the tag.
fn of_cluster(cluster: &str, groups: &BTreeSet<String>, interfaces: &[NetworkInterface]) -> Vec<Blocker> {
    let tag = cluster_tag(cluster);
    let tagged = |i: &NetworkInterface| {
        i.tag_set().iter().any(|t| {
            t.key() == Some(tag.as_str())
                || (t.key() == Some("cluster.k8s.amazonaws.com/name") && t.value() == Some(cluster))
        })
    };
    let by_group =
        |i: &NetworkInterface| i.groups().iter().filter_map(|g| g.group_id()).any(|id| groups.contains(id));
    interfaces
        .iter()
        .map(|i| (i, Blocker::of(i)))
        .filter(|(i, blocker)| {
            tagged(i) || by_group(i) || blocker.owner == Owner::ControlPlane(cluster.to_owned())
        })
        .map(|(_, blocker)| blocker)
        .collect()
}

fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// Security groups that carry the cluster's tag, with their VPCs.
async fn tagged_groups(
    clients: &AwsClients,
    cluster: &str,
) -> ActivityResult<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut groups, mut vpcs, mut next) = (BTreeSet::new(), BTreeSet::new(), None);
    loop {
        let call = clients.ec2().describe_security_groups().filters(filter("tag-key", &cluster_tag(cluster)));
        let page =
            call.set_next_token(next).send().await.map_err(|e| classify("ec2:DescribeSecurityGroups", e))?;
        groups.extend(page.security_groups().iter().filter_map(|g| g.group_id()).map(str::to_owned));
        vpcs.extend(page.security_groups().iter().filter_map(|g| g.vpc_id()).map(str::to_owned));
        next = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
        if next.is_none() {
            return Ok((groups, vpcs));
        }
    }
}

async fn interfaces(clients: &AwsClients, vpc: &str) -> ActivityResult<Vec<NetworkInterface>> {
    let (mut found, mut next) = (Vec::new(), None);
    loop {
        let call = clients.ec2().describe_network_interfaces().filters(filter("vpc-id", vpc));
        let page = call
            .set_next_token(next)
            .send()
            .await
            .map_err(|e| classify("ec2:DescribeNetworkInterfaces", e))?;
        next = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
        found.extend(page.network_interfaces.unwrap_or_default());
        if next.is_none() {
            return Ok(found);
        }
    }
}

/// The network interfaces of a cluster that are there, with their owners; none where they may not be listed. `vpc` is
/// looked in besides the VPCs of security groups that carry the cluster's tag.
///
/// # Errors
/// Every error of the calls but a denied one.
pub async fn blockers(
    clients: &AwsClients,
    cluster: &str,
    vpc: Option<&str>,
) -> ActivityResult<Vec<Blocker>> {
    match Box::pin(look(clients, cluster, vpc)).await {
        Err(error) if error.class == ErrorClass::Terminal => {
            tracing::debug!(%error, "not looked for what still uses the cluster");
            Ok(Vec::new())
        }
        other => other,
    }
}

async fn look(clients: &AwsClients, cluster: &str, vpc: Option<&str>) -> ActivityResult<Vec<Blocker>> {
    let (groups, mut vpcs) = tagged_groups(clients, cluster).await?;
    vpcs.extend(vpc.map(str::to_owned));
    let mut found = Vec::new();
    for vpc in vpcs {
        found.extend(of_cluster(cluster, &groups, &interfaces(clients, &vpc).await?));
    }
    Ok(found)
}

/// What is still in use and by whom, as an error that is tried again. `what` is the thing that does not go, `why` what
/// AWS says of it.
pub(crate) fn still_in_use(what: &str, why: &str, blockers: &[Blocker]) -> ActivityError {
    let mut text = format!("{what} is still in use: {why}");
    for blocker in blockers {
        text.push_str("\n  ");
        text.push_str(&blocker.to_string());
    }
    let balancer = blockers.iter().any(|b| matches!(b.owner, Owner::LoadBalancer(_)));
    let help = if balancer {
        "delete the Kubernetes Services and Ingresses that asked for load balancers (`kubectl get svc,ingress -A`), or the \
         load balancers themselves when their cluster is gone; then `dssflow rollback RUN --retry`"
    } else {
        "interfaces go some minutes after their owner; what stays is deleted by hand (`aws ec2 delete-network-interface`, \
         or its owner), then `dssflow rollback RUN --retry`"
    };
    ActivityError::retryable(STILL_IN_USE, text).help(help)
}

/// Refuses to go on while load balancers of the cluster are there: without its cluster nobody takes them down, and they
/// cost money and hold security groups and subnets.
///
/// # Errors
/// [`STILL_IN_USE`] with the load balancers, and the calls' own errors.
pub(crate) async fn no_load_balancers(
    clients: &AwsClients,
    cluster: &str,
    vpc: Option<&str>,
) -> ActivityResult<()> {
    let mut found = blockers(clients, cluster, vpc).await?;
    found.retain(|b| matches!(b.owner, Owner::LoadBalancer(_)));
    if found.is_empty() {
        return Ok(());
    }
    Err(still_in_use(&format!("cluster {cluster}"), "load balancers of it are there", &found).no_effect())
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{GroupIdentifier, NetworkInterfaceAttachment, NetworkInterfaceStatus, Tag};

    use super::*;

    fn interface(id: &str, description: &str, group: &str) -> NetworkInterface {
        NetworkInterface::builder()
            .network_interface_id(id)
            .description(description)
            .status(NetworkInterfaceStatus::InUse)
            .groups(GroupIdentifier::builder().group_id(group).build())
            .build()
    }

    #[test]
    fn the_owner_of_an_interface_is_read() {
        for (description, owner) in [
            ("ELB app/k8s-web/1", Owner::LoadBalancer("app/k8s-web/1".into())),
            ("Amazon EKS eks-main", Owner::ControlPlane("eks-main".into())),
            ("aws-K8S-i-0abc", Owner::Pods("i-0abc".into())),
            ("EFS mount target for fs-1", Owner::Other("\"EFS mount target for fs-1\"".into())),
        ] {
            assert_eq!(owner_of(&interface("eni-1", description, "sg-1")), owner);
        }
        let attached = NetworkInterface::builder()
            .attachment(NetworkInterfaceAttachment::builder().instance_id("i-1").build())
            .build();
        assert_eq!(owner_of(&attached), Owner::Instance("i-1".into()));
        assert_eq!(owner_of(&NetworkInterface::builder().build()), Owner::Other("nobody says whose".into()));
    }

    #[test]
    fn only_those_of_the_cluster_are_named() {
        let groups = BTreeSet::from(["sg-c".to_owned()]);
        let tag = Tag::builder().key("kubernetes.io/cluster/a").value("owned").build();
        let all = [
            interface("eni-1", "ELB app/x/1", "sg-c"),
            interface("eni-2", "Amazon EKS a", "sg-x"),
            interface("eni-3", "Amazon EKS a-b", "sg-x"),
            interface("eni-4", "", "sg-x"),
            NetworkInterface::builder().network_interface_id("eni-5").tag_set(tag).build(),
        ];
        let ids: Vec<_> = of_cluster("a", &groups, &all).into_iter().map(|b| b.id).collect();
        assert_eq!(ids, ["eni-1", "eni-2", "eni-5"]);
    }

    #[test]
    fn the_error_names_interface_owner_and_the_next_step() {
        let blockers = [Blocker::of(&interface("eni-1", "ELB app/x/1", "sg-c"))];
        let error = still_in_use("stack eksctl-a-cluster", "sg-c has a dependent object", &blockers);
        assert_eq!((error.class, error.code.as_str()), (ErrorClass::Retryable, STILL_IN_USE));
        assert!(error.message.contains("eni-1 (in-use): load balancer app/x/1"), "{error}");
        assert!(error.help.as_ref().is_some_and(|h| h.contains("kubectl get svc,ingress")), "{error:?}");
        let error = still_in_use("x", "y", &[]);
        assert!(error.help.is_some_and(|h| h.contains("rollback RUN --retry")));
    }
}
