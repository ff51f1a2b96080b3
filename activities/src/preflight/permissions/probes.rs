//! What can be told without `iam:SimulatePrincipalPolicy`: dry runs of EC2, which check rights and do nothing, and
//! reads whose answer nobody needs.
//!
//! A dry run answers `DryRunOperation` when the call would be allowed and `UnauthorizedOperation` when not. Anything
//! else tells nothing. Only AWS is asked that way: a stand-in that does not know dry runs would do it.

use aws_sdk_ec2::types::{Filter, Tag};
use dssflow_engine::activity::{ActivityError, ActivityResult};
use dssflow_engine::time::BoxFuture;
use futures::future::join_all;

use super::super::Notes;
use super::super::look::Look;
use super::super::spec::Need;
use super::is_denied;
use super::simulate::Decision;
use crate::aws::error::classify;

type Answer<'a> = BoxFuture<'a, ActivityResult<()>>;

/// The actions of `needs` that a dry run or a read was refused.
pub(super) async fn ask(look: &Look, needs: &[Need], notes: &mut Notes) -> Vec<Decision> {
    let wanted = |action: &str| needs.iter().any(|n| n.actions.iter().any(|a| a == action));
    let mut asked: Vec<(&'static str, Answer<'_>)> = reads(look);
    if look.spec.dry_runs {
        asked.extend(dry_runs(look));
    }
    asked.retain(|(action, _)| wanted(action));
    let mut denied = Vec::new();
    let mut allowed = Vec::new();
    for (action, answer) in
        join_all(asked.into_iter().map(|(action, call)| async move { (action, call.await) })).await
    {
        match answer {
            Ok(()) => allowed.push(action),
            Err(error) if error.code == "DryRunOperation" => allowed.push(action),
            Err(error) if is_denied(&error) => {
                denied.push(Decision { action: action.to_owned(), reason: error.code, sure: true });
            }
            // It was let through and stumbled over something else.
            Err(_) => {}
        }
    }
    if !allowed.is_empty() {
        notes.seen(format!("allowed as far as tried: {}", allowed.join(", ")));
    }
    denied
}

fn done<T>(answer: Result<T, ActivityError>) -> ActivityResult<()> {
    answer.map(drop)
}

fn reads(look: &Look) -> Vec<(&'static str, Answer<'_>)> {
    let clients = &look.clients;
    let cluster = &look.spec.cluster.name;
    vec![
        (
            "eks:DescribeCluster",
            Box::pin(async move {
                let call = clients.eks().describe_cluster().name(cluster).send().await;
                done(call.map_err(|e| classify("eks:DescribeCluster", e)))
            }),
        ),
        (
            "ecr:GetAuthorizationToken",
            Box::pin(async move {
                let call = clients.ecr().get_authorization_token().send().await;
                done(call.map_err(|e| classify("ecr:GetAuthorizationToken", e)))
            }),
        ),
        (
            "ecr:DescribeRepositories",
            Box::pin(async move {
                let call = clients.ecr().describe_repositories().max_results(1).send().await;
                done(call.map_err(|e| classify("ecr:DescribeRepositories", e)))
            }),
        ),
        (
            "cloudformation:DescribeStacks",
            Box::pin(async move {
                let call = clients.cloudformation().describe_stacks().send().await;
                done(call.map_err(|e| classify("cloudformation:DescribeStacks", e)))
            }),
        ),
        (
            "ec2:DescribeInstances",
            Box::pin(async move {
                let call = clients.ec2().describe_instances().max_results(5).send().await;
                done(call.map_err(|e| classify("ec2:DescribeInstances", e)))
            }),
        ),
        (
            "iam:ListRoles",
            Box::pin(async move {
                let call = clients.iam().list_roles().max_items(1).send().await;
                done(call.map_err(|e| classify("iam:ListRoles", e)))
            }),
        ),
        (
            "glue:GetDatabase",
            Box::pin(async move {
                let call = clients.glue().get_database().name("default").send().await;
                done(call.map_err(|e| classify("glue:GetDatabase", e)))
            }),
        ),
        (
            "athena:GetWorkGroup",
            Box::pin(async move {
                let call = clients.athena().get_work_group().work_group("primary").send().await;
                done(call.map_err(|e| classify("athena:GetWorkGroup", e)))
            }),
        ),
    ]
}

fn dry_runs(look: &Look) -> Vec<(&'static str, Answer<'_>)> {
    let clients = &look.clients;
    vec![
        (
            "ec2:CreateLaunchTemplate",
            Box::pin(async move {
                let data =
                    aws_sdk_ec2::types::RequestLaunchTemplateData::builder().ebs_optimized(true).build();
                let call = clients.ec2().create_launch_template().dry_run(true);
                let call =
                    call.launch_template_name("dssflow-preflight").launch_template_data(data).send().await;
                done(call.map_err(|e| classify("ec2:CreateLaunchTemplate", e)))
            }),
        ),
        (
            "ec2:ModifyInstanceAttribute",
            Box::pin(async move {
                let Some(id) = &look.spec.instance else { return Ok(()) };
                let groups = look.instance().await.map_err(Clone::clone)?.security_groups.clone();
                let call = clients.ec2().modify_instance_attribute().dry_run(true);
                let call = call.instance_id(id).set_groups(Some(groups)).send().await;
                done(call.map_err(|e| classify("ec2:ModifyInstanceAttribute", e)))
            }),
        ),
        (
            "ec2:CreateTags",
            Box::pin(async move {
                let Some(id) = &look.spec.instance else { return Ok(()) };
                let tag = Tag::builder().key("dssflow:preflight").value("1").build();
                let call = clients.ec2().create_tags().dry_run(true).resources(id).tags(tag).send().await;
                done(call.map_err(|e| classify("ec2:CreateTags", e)))
            }),
        ),
        (
            "ec2:DescribeSubnets",
            Box::pin(async move {
                let filter = Filter::builder().name("subnet-id").values("subnet-0").build();
                let call = clients.ec2().describe_subnets().dry_run(true).filters(filter).send().await;
                done(call.map_err(|e| classify("ec2:DescribeSubnets", e)))
            }),
        ),
    ]
}
