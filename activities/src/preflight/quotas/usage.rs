//! How much of each quota is used, counted from the services.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    Filter, Instance, InstanceLifecycleType, InstanceType, NatGatewayState, Reservation, VCpuInfo,
};
use dssflow_engine::activity::ActivityResult;

use super::super::look::Look;
use super::super::spec::Demand;
use super::{family, roles, vcpu_quota};
use crate::aws::eksctl::all_stacks;
use crate::aws::error::classify;

/// Everything `page` gives, following its tokens.
async fn pages<F>(page: impl Fn(Option<String>) -> F) -> ActivityResult<u64>
where
    F: Future<Output = ActivityResult<(usize, Option<String>)>>,
{
    let (mut total, mut next) = (0, None);
    loop {
        let (count, token) = page(next).await?;
        total += u64::try_from(count).unwrap_or(u64::MAX);
        next = token.filter(|t| !t.is_empty());
        if next.is_none() {
            return Ok(total);
        }
    }
}

/// What is used of the quota of a demand.
pub(super) async fn used(look: &Look, demand: Demand) -> ActivityResult<u64> {
    match demand {
        Demand::NodeVcpus(_) => vcpus(look).await,
        Demand::Addresses(_) => {
            let call = look.clients.ec2().describe_addresses().send().await;
            let answer = call.map_err(|e| classify("ec2:DescribeAddresses", e))?;
            Ok(count(answer.addresses().len()))
        }
        Demand::Vpcs(_) => {
            pages(|next| async {
                let call = look.clients.ec2().describe_vpcs().set_next_token(next).send().await;
                let page = call.map_err(|e| classify("ec2:DescribeVpcs", e))?;
                Ok((page.vpcs().len(), page.next_token().map(str::to_owned)))
            })
            .await
        }
        Demand::NatGateways(_) => nat_gateways(look).await,
        Demand::Clusters(_) => {
            pages(|next| async {
                let call = look.clients.eks().list_clusters().set_next_token(next).send().await;
                let page = call.map_err(|e| classify("eks:ListClusters", e))?;
                Ok((page.clusters().len(), page.next_token().map(str::to_owned)))
            })
            .await
        }
        // Asked only while there is no cluster.
        Demand::NodeGroups(_) => Ok(0),
        Demand::SecurityGroups(_) => {
            pages(|next| async {
                let call = look.clients.ec2().describe_security_groups().max_results(1000);
                let page = call
                    .set_next_token(next)
                    .send()
                    .await
                    .map_err(|e| classify("ec2:DescribeSecurityGroups", e))?;
                Ok((page.security_groups().len(), page.next_token().map(str::to_owned)))
            })
            .await
        }
        Demand::GroupRules(_) => {
            let groups = look.groups().await.map_err(Clone::clone)?;
            Ok(groups.iter().map(|g| u64::from(g.count)).max().unwrap_or(0))
        }
        Demand::Stacks(_) => Ok(count(all_stacks(&look.clients).await?.len())),
        Demand::Repositories(_) => {
            pages(|next| async {
                let call = look.clients.ecr().describe_repositories().max_results(1000);
                let page = call
                    .set_next_token(next)
                    .send()
                    .await
                    .map_err(|e| classify("ecr:DescribeRepositories", e))?;
                Ok((page.repositories().len(), page.next_token().map(str::to_owned)))
            })
            .await
        }
        Demand::Roles(_) => Ok(roles(look).await?.0),
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The processors of running on-demand instances that share the quota of the nodes.
async fn vcpus(look: &Look) -> ActivityResult<u64> {
    let letters =
        vcpu_quota(&look.spec.cluster.machine_type).map(|(letters, _)| *letters).unwrap_or_default();
    let running = Filter::builder().name("instance-state-name").values("running").values("pending").build();
    let (mut total, mut plain, mut next) = (0, BTreeMap::<InstanceType, u64>::new(), None);
    loop {
        let call =
            look.clients.ec2().describe_instances().filters(running.clone()).set_next_token(next).send();
        let page = call.await.map_err(|e| classify("ec2:DescribeInstances", e))?;
        let instances = page.reservations().iter().flat_map(Reservation::instances);
        for instance in instances.filter(|i| counts(i, letters)) {
            match (processors(instance), instance.instance_type()) {
                (Some(number), _) => total += number,
                (None, Some(kind)) => *plain.entry(kind.clone()).or_default() += 1,
                (None, None) => {}
            }
        }
        next = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
        if next.is_none() {
            break;
        }
    }
    if plain.is_empty() {
        return Ok(total);
    }
    let kinds = Some(plain.keys().cloned().collect());
    let call = look.clients.ec2().describe_instance_types().set_instance_types(kinds).send().await;
    let answer = call.map_err(|e| classify("ec2:DescribeInstanceTypes", e))?;
    for info in answer.instance_types() {
        let number = info.v_cpu_info().and_then(VCpuInfo::default_v_cpus).and_then(|n| u64::try_from(n).ok());
        let times = info.instance_type().and_then(|kind| plain.get(kind)).copied().unwrap_or(0);
        total += number.unwrap_or(0) * times;
    }
    Ok(total)
}

fn counts(instance: &Instance, letters: &[&str]) -> bool {
    let on_demand = instance.instance_lifecycle() != Some(&InstanceLifecycleType::Spot);
    on_demand && instance.instance_type().is_some_and(|t| letters.contains(&family(t.as_str())))
}

/// The processors of an instance, where it tells; its type has the usual number.
fn processors(instance: &Instance) -> Option<u64> {
    let options = instance.cpu_options()?;
    let part = |number: Option<i32>| number.and_then(|n| u64::try_from(n).ok());
    Some(part(options.core_count())? * part(options.threads_per_core())?)
}

/// The most NAT gateways in a zone of the cluster's subnets.
async fn nat_gateways(look: &Look) -> ActivityResult<u64> {
    let call = look.clients.ec2().describe_nat_gateways().send().await;
    let answer = call.map_err(|e| classify("ec2:DescribeNatGateways", e))?;
    let alive = answer
        .nat_gateways()
        .iter()
        .filter(|g| matches!(g.state(), Some(NatGatewayState::Available | NatGatewayState::Pending)));
    let subnets: Vec<String> = alive.filter_map(|g| g.subnet_id()).map(str::to_owned).collect();
    if subnets.is_empty() {
        return Ok(0);
    }
    let found = crate::aws::network::find_subnets(&look.clients, &subnets).await?;
    let ours = look.subnets().await.map_err(Clone::clone)?;
    let mut zones: BTreeMap<&str, u64> = BTreeMap::new();
    for id in &subnets {
        if let Some(subnet) = found.iter().find(|s| s.id == *id)
            && ours.iter().any(|s| s.zone == subnet.zone)
        {
            *zones.entry(subnet.zone.as_str()).or_default() += 1;
        }
    }
    Ok(zones.into_values().max().unwrap_or(0))
}
