//! Why the nodes of a group did not join: one verdict from what EKS says, what the instances say, and another look at
//! the network.
//!
//! EKS itself gives one line after twenty minutes or more. Everything here only reads; what the principal may not read
//! is left out, and the verdict is then the poorer for it. It is asked for when a group has failed, and changes nothing.
//!
//! Pages: <https://docs.aws.amazon.com/eks/latest/userguide/troubleshooting.html>,
//! <https://docs.aws.amazon.com/eks/latest/APIReference/API_Issue.html>.

use aws_sdk_eks::types::{Issue, Nodegroup, NodegroupHealth, NodegroupIssueCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dssflow_engine::activity::{ActivityError, ActivityResult};

use super::error::{Trouble, classify, help, trouble_in};
use super::network::{NetworkInput, Problem, check_network};
use super::{cluster, instance};
use crate::clients::AwsClients;

/// What mostly helps when nothing better is known.
pub(crate) const GENERAL: &str = "nodes that do not join mostly lack a way to the API: check the subnets' public addresses and routes, the security \
     groups and the nodes' role; then run the step that creates the group again";

/// So many instances are looked at: they fail alike.
const MAX_INSTANCES: usize = 2;
/// So many lines of a console are quoted.
const MAX_LINES: usize = 4;
/// So long may a quoted line be.
const MAX_LINE: usize = 160;

/// What is known of a failed group.
#[derive(Debug, Default)]
struct Facts {
    /// Codes of EKS with their texts.
    issues: Vec<(String, String)>,
    /// What an instance says: its state, and telling lines of its console.
    instances: Vec<String>,
    /// An instance that EKS names.
    node: Option<String>,
    /// What does not fit in the network.
    network: Vec<String>,
}

/// A verdict: the cause in one line, and what mends it.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    cause: String,
    help: String,
}

/// Adds the verdict to the error of a failed group.
pub(crate) async fn explain(clients: &AwsClients, group: &Nodegroup, error: ActivityError) -> ActivityError {
    let facts = Box::pin(collect(clients, group)).await;
    let verdict = judge(&facts);
    let mut error = error;
    error.message = format!("{}\n  verdict: {}", error.message, verdict.cause);
    for line in facts.network.iter().chain(&facts.instances) {
        error.message.push_str("\n  ");
        error.message.push_str(line);
    }
    error.help = Some(verdict.help);
    error
}

/// Weighs what is known. A network that does not fit explains what EKS only calls a failure to join.
fn judge(facts: &Facts) -> Verdict {
    let verdict = |cause: String, help: &str| Verdict {
        cause,
        help: format!("{help}; then run the step that creates the group again"),
    };
    for (code, message) in &facts.issues {
        let about = message.as_str();
        if let Some(trouble @ (Trouble::Quota | Trouble::Capacity)) = trouble_in(about) {
            let help = help(trouble, "ec2:RunInstances", first_code(about)).unwrap_or_default();
            return Verdict { cause: about.to_owned(), help };
        }
        let help = match code.as_str() {
            "Ec2SubnetInvalidConfiguration" => {
                "let the subnet give public addresses: `aws ec2 modify-subnet-attribute --map-public-ip-on-launch \
                 --subnet-id ID`, or use private subnets with a NAT gateway (cluster.private: true)"
            }
            "Ec2SubnetNotFound" | "Ec2SubnetMissingIpv6Assignment" | "Ec2SubnetListTooLong" => {
                "correct cluster.subnets in the site file"
            }
            "InsufficientFreeAddresses" => "free addresses in the subnets, or name larger ones",
            "IamNodeRoleNotFound" | "IamInstanceProfileNotFound" | "AccessDenied" => {
                "see that the nodes' role is there, with AmazonEKSWorkerNodePolicy, AmazonEKS_CNI_Policy and \
                 AmazonEC2ContainerRegistryReadOnly, and has an access entry"
            }
            "Ec2LaunchTemplateNotFound"
            | "Ec2LaunchTemplateVersionMismatch"
            | "Ec2LaunchTemplateInvalidConfiguration"
            | "Ec2LaunchTemplateMaxLimitExceeded"
            | "Ec2LaunchTemplateDeletionFailure" => {
                "somebody changed the launch template: run the step that makes it again"
            }
            "ClusterUnreachable" | "NodeCreationFailure" | "Unreachable" => break,
            "AsgInstanceLaunchFailures" => {
                "see the activity history of the auto scaling group; often the type is not offered in the zone"
            }
            _ => continue,
        };
        return verdict(format!("{code}: {about}"), help);
    }
    if let Some(problem) = facts.network.first() {
        return verdict(
            format!("the nodes have no way to the cluster: {problem}"),
            "mend the network as told above",
        );
    }
    match facts.instances.iter().find(|line| line.contains("its console: ")) {
        Some(line) => verdict(line.clone(), "mend what the node's console tells"),
        None => Verdict {
            cause:
                "the network looks right from outside; the reason is on the nodes or in their security groups"
                    .to_owned(),
            help: facts
                .node
                .as_deref()
                .map_or_else(|| GENERAL.to_owned(), |node| format!("{GENERAL}; {}", by_hand(node))),
        },
    }
}

/// How a person reads the last thing that could tell. dssflow does not: it takes the right to run commands as root on nodes.
fn by_hand(node: &str) -> String {
    format!(
        "the log of its kubelet is on the node: `aws ssm start-session --target {node}`, there `sudo journalctl -u kubelet -u \
         nodeadm-run` (the nodes' role needs AmazonSSMManagedInstanceCore for that)"
    )
}

/// The first word of a text that looks like a code of AWS.
fn first_code(text: &str) -> &str {
    text.split(|c: char| !c.is_ascii_alphanumeric()).find(|w| w.ends_with("Exceeded")).unwrap_or_default()
}

async fn collect(clients: &AwsClients, group: &Nodegroup) -> Facts {
    let issues: &[Issue] = group.health().map(NodegroupHealth::issues).unwrap_or_default();
    let mut facts = Facts {
        issues: issues
            .iter()
            .map(|i| {
                let code = i.code().map_or("Unknown", NodegroupIssueCode::as_str);
                (code.to_owned(), i.message().unwrap_or_default().to_owned())
            })
            .collect(),
        ..Facts::default()
    };
    let ids = issues.iter().flat_map(Issue::resource_ids).filter(|id| id.starts_with("i-"));
    for id in ids.take(MAX_INSTANCES) {
        facts.node.get_or_insert_with(|| id.clone());
        match look_at_instance(clients, id).await {
            Ok(line) => facts.instances.push(line),
            Err(error) => tracing::debug!(instance = id, %error, "the node was not looked at"),
        }
    }
    let vpc = match cluster::find(clients, group.cluster_name().unwrap_or_default()).await {
        Ok(cluster) => cluster.and_then(|c| c.resources_vpc_config?.vpc_id),
        Err(_) => None,
    };
    let mut input = NetworkInput {
        vpc_id: vpc,
        subnets: group.subnets().to_vec(),
        security_groups: Vec::new(),
        public: true,
        host_subnet: None,
    };
    let mut found = Box::pin(check_network(clients, &input)).await.err().unwrap_or_default();
    if found.iter().any(is_private) {
        // Whether the site wants private nodes is not known here: a way out by NAT is good as well.
        input.public = false;
        found = Box::pin(check_network(clients, &input)).await.err().unwrap_or_default();
    }
    facts.network = found.iter().filter(|p| p.error.is_none()).map(ToString::to_string).collect();
    facts
}

/// A subnet without public addresses, which is right for private nodes.
fn is_private(problem: &Problem) -> bool {
    problem.code == super::network::SUBNET_NO_INTERNET && !problem.message.contains("nowhere")
}

/// One line on a node: its state, and what its console tells of a failure.
async fn look_at_instance(clients: &AwsClients, id: &str) -> ActivityResult<String> {
    let seen = instance::describe(clients, id).await?;
    let state = seen.as_ref().and_then(|i| i.state()?.name()).map_or("gone", |n| n.as_str()).to_owned();
    let call = clients.ec2().get_console_output().instance_id(id).latest(true).send().await;
    let console = match call.map_err(|e| classify("ec2:GetConsoleOutput", e)) {
        Ok(answer) => answer.output().and_then(|text| STANDARD.decode(text.trim()).ok()).unwrap_or_default(),
        // `latest` is for Nitro instances only; others tell what they told at their start.
        Err(_) => Vec::new(),
    };
    let lines = telling(&String::from_utf8_lossy(&console));
    Ok(if lines.is_empty() {
        format!("node {id} is {state}; its console tells nothing of a failure")
    } else {
        format!("node {id} is {state}; its console: {}", lines.join(" | "))
    })
}

/// The last lines of a console that tell of a failure of what makes a node a node. Lines that may carry a credential
/// are left out.
fn telling(console: &str) -> Vec<String> {
    const ABOUT: [&str; 6] = ["kubelet", "nodeadm", "bootstrap", "cloud-init", "containerd", "kubernetes"];
    const BAD: [&str; 6] = ["error", "fail", "timeout", "timed out", "denied", "unauthorized"];
    const SECRET: [&str; 4] = ["token", "secret", "password", "credential"];
    let has = |line: &str, parts: &[&str]| parts.iter().any(|part| line.contains(part));
    let mut lines: Vec<String> = console
        .lines()
        .rev()
        .filter(|line| {
            let lower = line.to_lowercase();
            has(&lower, &ABOUT) && has(&lower, &BAD) && !has(&lower, &SECRET)
        })
        .take(MAX_LINES)
        .map(|line| {
            line.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect::<String>().trim().to_owned()
        })
        .collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(code: &str, message: &str, network: &[&str], instances: &[&str]) -> Facts {
        let texts = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect();
        Facts {
            issues: vec![(code.to_owned(), message.to_owned())],
            network: texts(network),
            instances: texts(instances),
            node: None,
        }
    }

    #[test]
    fn a_failure_to_join_is_explained_by_the_network_then_by_the_console() {
        let failure = "Instances failed to join the kubernetes cluster";
        let route = "subnet-1: its default route leads to nowhere, not to an internet gateway";
        let verdict = judge(&facts("NodeCreationFailure", failure, &[route], &["node i-1; its console: x"]));
        assert!(verdict.cause.contains("no way to the cluster: subnet-1"), "{verdict:?}");
        let line = "node i-1 is running; its console: kubelet: error: dial tcp 10.0.0.1:443: i/o timeout";
        let verdict = judge(&facts("NodeCreationFailure", failure, &[], &[line]));
        assert!(verdict.cause.contains("i/o timeout"), "{verdict:?}");
        let verdict = judge(&facts("NodeCreationFailure", failure, &[], &[]));
        assert_eq!(verdict.help, GENERAL);
        let failed =
            facts("NodeCreationFailure", failure, &[], &["node i-1 is running; its console tells nothing"]);
        let verdict = judge(&Facts { node: Some("i-1".to_owned()), ..failed });
        assert!(verdict.help.contains("start-session --target i-1"), "{verdict:?}");
    }

    #[test]
    fn what_eks_knows_better_is_believed() {
        let cause = |code: &str, message: &str| judge(&facts(code, message, &["subnet-1: no route"], &[]));
        let verdict = cause("Ec2SubnetInvalidConfiguration", "subnet-1 does not assign public addresses");
        assert!(verdict.help.contains("--map-public-ip-on-launch"), "{verdict:?}");
        let verdict = cause("IamNodeRoleNotFound", "no role");
        assert!(verdict.help.contains("AmazonEKSWorkerNodePolicy"), "{verdict:?}");
        let quota =
            "Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested more vCPU capacity";
        let verdict = cause("AsgInstanceLaunchFailures", quota);
        assert!(verdict.help.contains("L-1216C47A"), "{verdict:?}");
        let verdict =
            cause("AsgInstanceLaunchFailures", "The requested configuration is currently not supported");
        assert!(verdict.help.contains("activity history"), "{verdict:?}");
    }

    #[test]
    fn a_console_is_quoted_where_it_tells_of_a_failure_and_never_with_a_credential() {
        let console = "[1] systemd: all well\n[2] nodeadm: Error: could not reach the API\r\n\
                       [3] kubelet: failed to get token AQoDYXdz\n[4] kubelet: connection timed out\n[5] login:";
        assert_eq!(
            telling(console),
            ["[2] nodeadm: Error: could not reach the API", "[4] kubelet: connection timed out"]
        );
        assert_eq!(telling(&"kubelet failed\n".repeat(9)).len(), MAX_LINES);
    }
}
