//! The EC2 instance DSS lives on: where it stands and whether it fits.
//!
//! It is only looked at. What is changed on it is the business of the host's activities, and its security groups
//! that of `default_sg`.

use aws_sdk_ec2::types::{
    ArchitectureType, Filter, InstanceStateName, InstanceType, MemoryInfo, ProcessorInfo, VCpuInfo,
};
use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect};
use serde::{Deserialize, Serialize};

use super::error::{classify, incomplete, none_if};
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.ec2.instance-facts";
/// DSS asks for 32 GB; a machine sold with so much shows a little less.
pub const MIN_MEMORY_MIB: u64 = 30_000;

/// What [`InstanceFactsActivity`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceInput {
    /// The instance; the one this process runs on when absent.
    #[serde(default)]
    pub instance_id: Option<String>,
    /// The least memory, in MiB.
    #[serde(default = "min_memory")]
    pub min_memory_mib: u64,
}

fn min_memory() -> u64 {
    MIN_MEMORY_MIB
}

/// Where the instance stands and what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceFacts {
    /// Its id.
    pub instance_id: String,
    /// As `m7i.2xlarge`.
    pub instance_type: String,
    /// Its memory, in MiB.
    pub memory_mib: u64,
    /// Its virtual processors.
    pub vcpus: u32,
    /// As `x86_64`.
    pub architecture: String,
    /// As `running`.
    pub state: String,
    /// The VPC it is in.
    pub vpc_id: String,
    /// The subnet it is in.
    pub subnet_id: String,
    /// The zone it is in.
    pub availability_zone: String,
    /// Its first private address.
    pub private_ip: String,
    /// Its private name.
    pub private_dns: String,
    /// Ids of its security groups.
    pub security_groups: Vec<String>,
    /// Id of the VPC's group called `default`.
    pub default_security_group: String,
}

impl InstanceFacts {
    /// Everything that does not fit, one line each.
    pub fn misfits(&self, min_memory_mib: u64) -> Vec<String> {
        let mut misfits = Vec::new();
        if self.state != "running" {
            misfits.push(format!("it is {}, not running", self.state));
        }
        if self.architecture != "x86_64" {
            misfits.push(format!("its architecture is {}, DSS needs x86_64", self.architecture));
        }
        if self.memory_mib < min_memory_mib {
            let (has, wants) = (self.memory_mib, min_memory_mib);
            misfits.push(format!("{} has {has} MiB of memory, DSS needs {wants}", self.instance_type));
        }
        misfits
    }
}

/// Reads the facts of an instance, without judging them.
///
/// # Errors
/// `InstanceNotFound` when there is none of that id, `InstanceOutsideVpc`, and the calls' own errors.
pub async fn instance_facts(clients: &AwsClients, input: &InstanceInput) -> ActivityResult<InstanceFacts> {
    const ACTION: &str = "ec2:DescribeInstances";
    let id = match &input.instance_id {
        Some(id) => id.clone(),
        None => Box::pin(clients.instance_id_from_metadata()).await?,
    };
    let instance = describe(clients, &id).await?.ok_or_else(|| {
        ActivityError::terminal(
            "InstanceNotFound",
            format!("there is no instance {id} in {}", clients.region()),
        )
        .help("correct host.instance in the site file, or the region")
        .no_effect()
    })?;
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let kind = instance.instance_type().ok_or_else(|| incomplete(ACTION, "InstanceType"))?.clone();
    let vpc_id = instance.vpc_id().filter(|v| !v.is_empty()).map(str::to_owned).ok_or_else(|| {
        ActivityError::terminal("InstanceOutsideVpc", format!("instance {id} is in no VPC, or has ended"))
            .no_effect()
    })?;
    let offer = type_facts(clients, &kind).await?;
    Ok(InstanceFacts {
        instance_id: id,
        instance_type: kind.as_str().to_owned(),
        memory_mib: offer.memory_mib,
        vcpus: offer.vcpus,
        // An instance without one runs an image that does not say: its type then tells.
        architecture: instance.architecture().map_or(offer.architecture, |a| a.as_str().to_owned()),
        state: text(instance.state().and_then(|s| s.name()).map(InstanceStateName::as_str)),
        subnet_id: text(instance.subnet_id()),
        availability_zone: text(instance.placement().and_then(|p| p.availability_zone())),
        private_ip: text(instance.private_ip_address()),
        private_dns: text(instance.private_dns_name()),
        security_groups: group_ids(&instance),
        default_security_group: default_security_group(clients, &vpc_id).await?,
        vpc_id,
    })
}

/// Describes one instance; `None` when there is none.
pub(crate) async fn describe(
    clients: &AwsClients,
    id: &str,
) -> ActivityResult<Option<aws_sdk_ec2::types::Instance>> {
    let call = clients.ec2().describe_instances().instance_ids(id).send().await;
    let answer = call.map_err(|e| classify("ec2:DescribeInstances", e));
    let found = none_if(answer, &["InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"])?;
    Ok(found.and_then(|a| {
        a.reservations.unwrap_or_default().into_iter().flat_map(|r| r.instances.unwrap_or_default()).next()
    }))
}

/// The ids of an instance's security groups, in the order AWS keeps them.
pub(crate) fn group_ids(instance: &aws_sdk_ec2::types::Instance) -> Vec<String> {
    instance.security_groups().iter().filter_map(|g| g.group_id()).map(str::to_owned).collect()
}

/// What an instance type offers.
struct Offer {
    memory_mib: u64,
    vcpus: u32,
    architecture: String,
}

async fn type_facts(clients: &AwsClients, kind: &InstanceType) -> ActivityResult<Offer> {
    const ACTION: &str = "ec2:DescribeInstanceTypes";
    let call = clients.ec2().describe_instance_types().instance_types(kind.clone()).send().await;
    let answer = call.map_err(|e| classify(ACTION, e))?;
    let info = answer.instance_types().first().ok_or_else(|| incomplete(ACTION, "InstanceTypes"))?;
    let memory = info.memory_info().and_then(MemoryInfo::size_in_mib).and_then(|m| u64::try_from(m).ok());
    let vcpus = info.v_cpu_info().and_then(VCpuInfo::default_v_cpus).and_then(|v| u32::try_from(v).ok());
    let kinds = info.processor_info().map(ProcessorInfo::supported_architectures).unwrap_or_default();
    let best = kinds.iter().find(|a| **a == ArchitectureType::X8664).or(kinds.first());
    Ok(Offer {
        memory_mib: memory.ok_or_else(|| incomplete(ACTION, "MemoryInfo"))?,
        vcpus: vcpus.unwrap_or_default(),
        architecture: best.map(|a| a.as_str().to_owned()).unwrap_or_default(),
    })
}

/// The id of the security group called `default` that every VPC has.
///
/// # Errors
/// `DefaultSecurityGroupMissing` and the call's own errors.
pub async fn default_security_group(clients: &AwsClients, vpc: &str) -> ActivityResult<String> {
    let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
    let answer = clients
        .ec2()
        .describe_security_groups()
        .filters(filter("vpc-id", vpc))
        .filters(filter("group-name", "default"))
        .send()
        .await
        .map_err(|e| classify("ec2:DescribeSecurityGroups", e))?;
    answer.security_groups().iter().find_map(|g| g.group_id()).map(str::to_owned).ok_or_else(|| {
        ActivityError::terminal(
            "DefaultSecurityGroupMissing",
            format!("VPC {vpc} has no security group `default`"),
        )
        .help("name the VPC of the instance, and see that `ec2:DescribeSecurityGroups` covers it")
        .no_effect()
    })
}

/// Reads where the instance stands and refuses one that cannot carry DSS.
///
/// # Idempotency
/// Reads only.
///
/// # Compensation
/// None.
///
/// Page: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct InstanceFactsActivity;

impl Activity for InstanceFactsActivity {
    type Input = InstanceInput;
    type Output = InstanceFacts;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, ctx: &ActivityContext, input: &InstanceInput) -> ActivityResult<InstanceFacts> {
        let clients = AwsClients::of(ctx)?;
        let facts = instance_facts(&clients, input).await?;
        let misfits = facts.misfits(input.min_memory_mib);
        if misfits.is_empty() {
            return Ok(facts);
        }
        let text = format!("instance {} cannot carry DSS: {}", facts.instance_id, misfits.join("; "));
        Err(ActivityError::terminal("InstanceUnfit", text)
            .help("choose a running x86_64 instance with 32 GB or more, as m7i.2xlarge")
            .no_effect())
    }

    fn describe(&self, input: &InstanceInput) -> String {
        match &input.instance_id {
            Some(id) => format!("look at instance {id}: VPC, architecture, memory"),
            None => "look at this instance: VPC, architecture, memory".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_misfit_is_named() {
        let facts = InstanceFacts {
            instance_id: "i-1".into(),
            instance_type: "t4g.small".into(),
            memory_mib: 2048,
            vcpus: 2,
            architecture: "arm64".into(),
            state: "stopped".into(),
            vpc_id: "vpc-1".into(),
            subnet_id: "subnet-1".into(),
            availability_zone: "eu-west-1a".into(),
            private_ip: "10.0.0.1".into(),
            private_dns: "ip-10-0-0-1".into(),
            security_groups: vec![],
            default_security_group: "sg-1".into(),
        };
        assert_eq!(facts.misfits(MIN_MEMORY_MIB).len(), 3);
        let fit = InstanceFacts {
            memory_mib: 32_768,
            architecture: "x86_64".into(),
            state: "running".into(),
            ..facts
        };
        assert!(fit.misfits(MIN_MEMORY_MIB).is_empty());
    }

    #[test]
    fn the_memory_has_a_default() {
        let input: InstanceInput = serde_json::from_str("{}").unwrap();
        assert_eq!(input, InstanceInput { instance_id: None, min_memory_mib: MIN_MEMORY_MIB });
    }
}
