//! P20: what the run makes fits into the quotas of account and region.
//!
//! A quota's value comes from Service Quotas, what is used from the service itself: Service Quotas knows no usage of
//! most. What a cluster that is there already uses is not counted again. New accounts have more limits, as on fleet
//! requests, that no API tells: those show only when they are met.
//!
//! Page: <https://docs.aws.amazon.com/servicequotas/latest/userguide/intro.html>

mod usage;

use aws_sdk_iam::types::SummaryKeyType;
use aws_sdk_servicequotas::types::ServiceQuota;
use dssflow_engine::activity::{ActivityError, ActivityResult};
use futures::future::join_all;

use super::Notes;
use super::look::Look;
use super::network::read_node_type;
use super::spec::Demand;
use crate::aws::error::{classify, incomplete};

/// A quota as Service Quotas knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quota {
    service: &'static str,
    code: &'static str,
    name: &'static str,
    /// What the service says when it is met.
    says: &'static str,
}

const fn quota(service: &'static str, code: &'static str, name: &'static str, says: &'static str) -> Quota {
    Quota { service, code, name, says }
}

/// The vCPU quotas of on-demand instances by the first letters of their type; the standard ones first.
const FAMILIES: &[(&[&str], Quota)] = &[
    (
        &["a", "c", "d", "h", "i", "m", "r", "t", "z"],
        quota("ec2", "L-1216C47A", "running on-demand standard instances (vCPU)", "VcpuLimitExceeded"),
    ),
    (
        &["g", "vt"],
        quota("ec2", "L-DB2E81BA", "running on-demand G and VT instances (vCPU)", "VcpuLimitExceeded"),
    ),
    (&["p"], quota("ec2", "L-417A185B", "running on-demand P instances (vCPU)", "VcpuLimitExceeded")),
    (&["x"], quota("ec2", "L-7295265B", "running on-demand X instances (vCPU)", "VcpuLimitExceeded")),
    (&["inf"], quota("ec2", "L-1945791B", "running on-demand Inf instances (vCPU)", "VcpuLimitExceeded")),
    (&["dl"], quota("ec2", "L-6E869C2A", "running on-demand DL instances (vCPU)", "VcpuLimitExceeded")),
    (&["trn"], quota("ec2", "L-2C3B7624", "running on-demand Trn instances (vCPU)", "VcpuLimitExceeded")),
];

/// The letters of an instance type before its generation.
fn family(machine_type: &str) -> &str {
    machine_type.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default()
}

/// The families that share a vCPU quota, and that quota.
fn vcpu_quota(machine_type: &str) -> Option<&'static (&'static [&'static str], Quota)> {
    FAMILIES.iter().find(|(letters, _)| letters.contains(&family(machine_type)))
}

fn quota_of(demand: Demand, machine_type: &str) -> Option<(Quota, u32)> {
    Some(match demand {
        Demand::NodeVcpus(count) => (vcpu_quota(machine_type)?.1, count),
        Demand::Addresses(n) => {
            (quota("ec2", "L-0263D0A3", "EC2-VPC Elastic IPs", "AddressLimitExceeded"), n)
        }
        Demand::Vpcs(n) => (quota("vpc", "L-F678F1CE", "VPCs per region", "VpcLimitExceeded"), n),
        Demand::NatGateways(n) => {
            (quota("vpc", "L-FE5A380F", "NAT gateways per zone", "NatGatewayLimitExceeded"), n)
        }
        Demand::Clusters(n) => {
            (quota("eks", "L-1194D53C", "EKS clusters", "ResourceLimitExceededException"), n)
        }
        Demand::NodeGroups(n) => (
            quota("eks", "L-6D54EA21", "managed node groups per cluster", "ResourceLimitExceededException"),
            n,
        ),
        Demand::SecurityGroups(n) => {
            (quota("vpc", "L-E79EC296", "VPC security groups per region", "SecurityGroupLimitExceeded"), n)
        }
        Demand::GroupRules(n) => (
            quota(
                "vpc",
                "L-0EA8095F",
                "inbound or outbound rules per security group",
                "RulesPerSecurityGroupLimitExceeded",
            ),
            n,
        ),
        Demand::Stacks(n) => {
            (quota("cloudformation", "L-0485CB21", "CloudFormation stacks", "LimitExceededException"), n)
        }
        Demand::Repositories(n) => {
            (quota("ecr", "L-CFEB8E8D", "ECR repositories", "LimitExceededException"), n)
        }
        Demand::Roles(n) => (quota("iam", "L-FE177D64", "IAM roles", "LimitExceeded"), n),
    })
}

/// Whether a cluster that is there already answers the demand.
fn is_of_cluster(demand: Demand) -> bool {
    match demand {
        Demand::NodeVcpus(_)
        | Demand::Clusters(_)
        | Demand::NodeGroups(_)
        | Demand::SecurityGroups(_)
        | Demand::Stacks(_)
        | Demand::Roles(_) => true,
        Demand::Addresses(_)
        | Demand::Vpcs(_)
        | Demand::NatGateways(_)
        | Demand::GroupRules(_)
        | Demand::Repositories(_) => false,
    }
}

/// P20.
pub(super) async fn quotas(look: &Look, notes: &mut Notes) {
    let there = look.cluster().await.is_ok_and(|c| c.state.cluster.is_some());
    let wanted: Vec<Demand> =
        look.spec.demands.iter().copied().filter(|d| !(there && is_of_cluster(*d))).collect();
    let asked = wanted.into_iter().map(|demand| async move { (demand, Box::pin(ask(look, demand)).await) });
    for (demand, answer) in join_all(asked).await {
        match answer {
            Ok(Some(count)) => judge(&count, &look.spec.region, notes),
            Ok(None) => {}
            Err(error) => {
                let name = quota_of(demand, &look.spec.cluster.machine_type).map_or("quota", |(q, _)| q.name);
                notes.unanswered(name, &error);
            }
        }
    }
}

/// A quota with its figures.
#[derive(Debug, Clone, Copy)]
struct Count {
    quota: Quota,
    limit: u64,
    used: u64,
    wanted: u64,
    /// What it may grow to later.
    later: u64,
}

async fn ask(look: &Look, demand: Demand) -> ActivityResult<Option<Count>> {
    let Some((quota, number)) = quota_of(demand, &look.spec.cluster.machine_type) else { return Ok(None) };
    if number == 0 {
        return Ok(None);
    }
    // IAM tells its quotas itself, and in every region.
    if let Demand::Roles(wanted) = demand {
        let (used, limit) = Box::pin(roles(look)).await?;
        let wanted = u64::from(wanted);
        return Ok(Some(Count { quota, limit, used, wanted, later: wanted }));
    }
    let (limit, used) = tokio::join!(Box::pin(limit(look, quota)), Box::pin(usage::used(look, demand)));
    let (limit, used) = (limit?, used?);
    let each = match demand {
        Demand::NodeVcpus(_) => u64::from(look.node_type().await.map_err(Clone::clone)?.vcpus),
        _ => 1,
    };
    // The machine that the run launches for DSS counts with the nodes where both are of one family.
    let host = match (demand, &look.spec.host_type) {
        (Demand::NodeVcpus(_), Some(kind)) if vcpu_quota(kind).map(|(_, q)| q.code) == Some(quota.code) => {
            u64::from(read_node_type(&look.clients, kind).await?.vcpus)
        }
        _ => 0,
    };
    let wanted = u64::from(number) * each + host;
    let later = match demand {
        Demand::NodeVcpus(_) => u64::from(look.spec.cluster.max_nodes) * each + host,
        _ => wanted,
    };
    Ok(Some(Count { quota, limit, used, wanted, later: later.max(wanted) }))
}

/// The value that applies to the account, else AWS's default.
async fn limit(look: &Look, quota: Quota) -> ActivityResult<u64> {
    let client = look.clients.servicequotas();
    let own = client.get_service_quota().service_code(quota.service).quota_code(quota.code).send().await;
    let value = match own.map_err(|e| classify("servicequotas:GetServiceQuota", e)) {
        Ok(answer) => answer.quota().and_then(ServiceQuota::value),
        Err(error) if error.code == "NoSuchResourceException" => {
            let call =
                client.get_aws_default_service_quota().service_code(quota.service).quota_code(quota.code);
            let answer =
                call.send().await.map_err(|e| classify("servicequotas:GetAWSDefaultServiceQuota", e))?;
            answer.quota().and_then(ServiceQuota::value)
        }
        Err(error) => return Err(error),
    };
    value.and_then(whole).ok_or_else(|| {
        ActivityError::terminal("QuotaUnknown", format!("Service Quotas gives no value for {}", quota.code))
    })
}

/// A quota's value, which is a whole number of things.
fn whole(value: f64) -> Option<u64> {
    if !(0.0..9e15).contains(&value) {
        return None;
    }
    format!("{:.0}", value.floor()).parse().ok()
}

fn judge(count: &Count, region: &str, notes: &mut Notes) {
    let Count { quota, limit, used, wanted, later } = *count;
    let raise = |to: u64| {
        format!(
            "raise {name} (quota {code}) to {to} or more: `aws service-quotas request-service-quota-increase --service-code \
             {service} --quota-code {code} --desired-value {to}`, or at \
             https://{region}.console.aws.amazon.com/servicequotas/home/services/{service}/quotas/{code}; or free some",
            name = quota.name,
            code = quota.code,
            service = quota.service,
        )
    };
    let figures = format!("{}: {used} of {limit} are used, the run needs {wanted}", quota.name);
    if used + wanted > limit {
        let missing = used + wanted - limit;
        notes.error(
            quota.code,
            format!("{figures}: {missing} are missing (AWS would say {})", quota.says),
            raise(used + wanted),
        );
    } else if used + later > limit {
        notes.warning(
            quota.code,
            format!(
                "{figures}, and up to {later} as the node pool grows: then {} are missing",
                used + later - limit
            ),
            raise(used + later),
        );
    } else {
        notes.seen(figures);
    }
}

/// The account's roles, and how many it may have.
async fn roles(look: &Look) -> ActivityResult<(u64, u64)> {
    const ACTION: &str = "iam:GetAccountSummary";
    let answer = look.clients.iam().get_account_summary().send().await.map_err(|e| classify(ACTION, e))?;
    let map = answer.summary_map().ok_or_else(|| incomplete(ACTION, "SummaryMap"))?;
    let figure = |key: &str| -> Result<u64, ActivityError> {
        let value = map.get(&SummaryKeyType::from(key)).and_then(|n| u64::try_from(*n).ok());
        value.ok_or_else(|| incomplete(ACTION, key))
    };
    Ok((figure("Roles")?, figure("RolesQuota")?))
}

#[cfg(test)]
mod tests {
    use super::super::{CHECKS, Finding, Severity};
    use super::*;

    fn found(demand: Demand, limit: u64, used: u64, each: u64, later: u64) -> Option<Finding> {
        let (quota, number) = quota_of(demand, "m7i.4xlarge").unwrap();
        let wanted = u64::from(number) * each;
        let mut notes = Notes::of(&CHECKS[0]);
        judge(&Count { quota, limit, used, wanted, later: later.max(wanted) }, "eu-west-1", &mut notes);
        notes.findings.pop()
    }

    #[test]
    fn p20_every_quota_says_the_missing_number_its_code_and_where_to_raise_it() {
        let table = [
            (Demand::NodeVcpus(3), 16, "L-1216C47A", "VcpuLimitExceeded"),
            (Demand::Addresses(2), 1, "L-0263D0A3", "AddressLimitExceeded"),
            (Demand::Vpcs(1), 1, "L-F678F1CE", "VpcLimitExceeded"),
            (Demand::NatGateways(1), 1, "L-FE5A380F", "NatGatewayLimitExceeded"),
            (Demand::Clusters(1), 1, "L-1194D53C", "ResourceLimitExceededException"),
            (Demand::NodeGroups(1), 1, "L-6D54EA21", "ResourceLimitExceededException"),
            (Demand::SecurityGroups(2), 1, "L-E79EC296", "SecurityGroupLimitExceeded"),
            (Demand::GroupRules(4), 1, "L-0EA8095F", "RulesPerSecurityGroupLimitExceeded"),
            (Demand::Stacks(2), 1, "L-0485CB21", "LimitExceededException"),
            (Demand::Repositories(2), 1, "L-CFEB8E8D", "LimitExceededException"),
            (Demand::Roles(2), 1, "L-FE177D64", "LimitExceeded"),
        ];
        for (demand, each, code, says) in table {
            let (_, number) = quota_of(demand, "m7i.4xlarge").unwrap();
            let wanted = u64::from(number) * each;
            // One less than needed is free.
            let told = found(demand, 4 + wanted, 5, each, 0).unwrap();
            assert_eq!((told.severity, told.subject.as_str()), (Severity::Error, code), "{told:?}");
            assert!(told.evidence.contains(": 1 are missing") && told.evidence.contains(says), "{told:?}");
            assert!(
                told.fix.contains(&format!("quotas/{code}")) && told.fix.contains("--desired-value"),
                "{told:?}"
            );
            assert_eq!(found(demand, 5 + wanted, 5, each, 0), None, "what just fits fits");
        }
    }

    #[test]
    fn p20_growth_beyond_a_quota_is_a_warning() {
        let told = found(Demand::NodeVcpus(3), 64, 8, 16, 80).unwrap();
        assert_eq!(told.severity, Severity::Warning);
        assert!(told.evidence.contains("then 24 are missing"), "{told:?}");
    }

    #[test]
    fn machine_types_have_the_quota_of_their_family() {
        let code = |machine: &str| vcpu_quota(machine).map(|(_, q)| q.code);
        assert_eq!(code("m7i.4xlarge"), Some("L-1216C47A"));
        assert_eq!(code("g5.xlarge"), Some("L-DB2E81BA"));
        assert_eq!(code("inf2.xlarge"), Some("L-1945791B"));
        assert_eq!(code("u-6tb1.metal"), None);
        assert_eq!((whole(5.0), whole(f64::NAN), whole(-1.0)), (Some(5), None, None));
    }
}
