//! A managed node group of an EKS cluster: create, wait, delete.
//!
//! Creating and waiting are steps of their own, as for the cluster. Why nodes do not join is told by the group's
//! health issues, which the wait passes on.

use aws_sdk_eks::types::{
    AmiTypes, LaunchTemplateSpecification, Nodegroup, NodegroupScalingConfig, NodegroupStatus,
};
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Marks, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::blockers::{blockers, no_load_balancers, still_in_use};
use super::cluster::{NOT_FOUND, join_issues};
use super::error::{classify, incomplete, none_if};
use super::poll::{Pace, Seen, until, until_ready};
use super::role::{self, RoleKind};
use super::{tags, verdict};
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.eks.node-group";
/// The kind under which the group is recorded, as `CLUSTER/NAME`.
pub const KIND: &str = "eks:node-group";

/// What [`NodeGroup`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeGroupInput {
    /// The cluster.
    pub cluster: String,
    /// Its name, unique in the cluster.
    pub name: String,
    /// The nodes' role.
    pub node_role_arn: String,
    /// Where nodes stand.
    pub subnets: Vec<String>,
    /// As `m7i.4xlarge`; the first that is to be had.
    pub instance_types: Vec<String>,
    /// The fewest nodes.
    pub min_size: i32,
    /// The most nodes.
    pub max_size: i32,
    /// How many nodes to begin with.
    pub desired_size: i32,
    /// The launch template.
    #[serde(default)]
    pub launch_template_id: Option<String>,
    /// Its version; the default one when absent.
    #[serde(default)]
    pub launch_template_version: Option<String>,
    /// As `AL2023_x86_64_STANDARD`; EKS's choice for the version when absent.
    #[serde(default)]
    pub ami_type: Option<String>,
    /// Kubernetes labels of the nodes.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The group that was asked for; its nodes are ready only after [`wait::WaitNodeGroup`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeGroupOutput {
    /// The cluster.
    pub cluster: String,
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
}

impl NodeGroupOutput {
    fn of(group: &Nodegroup) -> Self {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Self {
            cluster: text(group.cluster_name()),
            name: text(group.nodegroup_name()),
            arn: text(group.nodegroup_arn()),
        }
    }
}

async fn find(clients: &AwsClients, cluster: &str, name: &str) -> ActivityResult<Option<Nodegroup>> {
    let call = clients.eks().describe_nodegroup().cluster_name(cluster).nodegroup_name(name).send().await;
    Ok(none_if(call.map_err(|e| classify("eks:DescribeNodegroup", e)), NOT_FOUND)?.and_then(|a| a.nodegroup))
}

fn status(group: &Nodegroup) -> &str {
    group.status().map_or("UNKNOWN", NodegroupStatus::as_str)
}

fn issues(group: &Nodegroup) -> String {
    let issues = group.health().map(aws_sdk_eks::types::NodegroupHealth::issues).unwrap_or_default();
    join_issues(issues.iter().map(|i| {
        (i.code().map(aws_sdk_eks::types::NodegroupIssueCode::as_str), i.message(), i.resource_ids())
    }))
}

fn judge(marks: &Marks, group: Option<&Nodegroup>) -> Probe<NodeGroupOutput> {
    let Some(group) = group else { return Probe::Absent };
    let owner = tags::owner_of_map(marks, group.tags());
    match group.status() {
        Some(NodegroupStatus::Deleting) => Probe::InProgress {
            detail: format!("node group {} is being deleted", group.nodegroup_name().unwrap_or_default()),
        },
        Some(NodegroupStatus::CreateFailed | NodegroupStatus::DeleteFailed) => {
            Probe::Failed { owner, detail: issues(group) }
        }
        _ => Probe::Present { output: NodeGroupOutput::of(group), owner },
    }
}

/// Deletes a group of this run and waits until it is gone.
async fn delete(
    ctx: &ActivityContext,
    clients: &AwsClients,
    cluster: &str,
    name: &str,
) -> ActivityResult<()> {
    let mut asked = false;
    loop {
        let seen = until(ctx, Pace::SLOW, || async {
            let group = find(clients, cluster, name).await?;
            ctx.heartbeat(group.as_ref().map_or("gone", status));
            Ok(match group {
                None => Some(None),
                Some(group) => match group.status() {
                    Some(
                        NodegroupStatus::Creating | NodegroupStatus::Updating | NodegroupStatus::Deleting,
                    ) => None,
                    _ => Some(Some(group)),
                },
            })
        });
        let Some(group) = seen.await? else { return Ok(()) };
        if tags::owner_of_map(&ctx.marks(), group.tags()) != Owner::ThisRun {
            return Ok(());
        }
        if asked {
            if group.status() == Some(&NodegroupStatus::DeleteFailed) {
                let found = blockers(clients, cluster, None).await.unwrap_or_default();
                return Err(still_in_use(&format!("node group {name}"), &issues(&group), &found));
            }
            // The state read lags behind the call; do not ask in a tight loop.
            ctx.sleep(Pace::SLOW.first).await?;
        }
        let call = clients.eks().delete_nodegroup().cluster_name(cluster).nodegroup_name(name).send().await;
        none_if(call.map_err(|e| classify("eks:DeleteNodegroup", e)), NOT_FOUND)?;
        asked = true;
    }
}

/// Asks for a managed node group.
///
/// # Idempotency
/// The step's token, a name unique in the cluster, and tags given with the create. A group of this run that
/// failed is deleted before the next generation asks anew.
///
/// # Compensation
/// Deletes the group with its nodes if this run made it, and waits until it is gone. Load balancers that Kubernetes
/// made must have gone before: what takes them down may run on these nodes.
///
/// Page: <https://docs.aws.amazon.com/eks/latest/APIReference/API_CreateNodegroup.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeGroup;

impl Activity for NodeGroup {
    type Input = NodeGroupInput;
    type Output = NodeGroupOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &NodeGroupInput,
    ) -> ActivityResult<Probe<NodeGroupOutput>> {
        let group = find(&*AwsClients::of(ctx)?, &input.cluster, &input.name).await?;
        Ok(judge(&ctx.marks(), group.as_ref()))
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &NodeGroupInput,
    ) -> ActivityResult<NodeGroupOutput> {
        const ACTION: &str = "eks:CreateNodegroup";
        let clients = AwsClients::of(ctx)?;
        let there = find(&clients, &input.cluster, &input.name).await?;
        if there.is_some_and(|g| matches!(judge(&ctx.marks(), Some(&g)), Probe::Failed { .. })) {
            Box::pin(delete(ctx, &clients, &input.cluster, &input.name)).await?;
        }
        let scaling = NodegroupScalingConfig::builder()
            .min_size(input.min_size)
            .max_size(input.max_size)
            .desired_size(input.desired_size)
            .build();
        let template = input.launch_template_id.as_ref().map(|id| {
            let version = input.launch_template_version.clone();
            LaunchTemplateSpecification::builder().id(id).set_version(version).build()
        });
        let labels = input.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        let call = clients
            .eks()
            .create_nodegroup()
            .cluster_name(&input.cluster)
            .nodegroup_name(&input.name)
            .node_role(&input.node_role_arn)
            .set_subnets(Some(input.subnets.clone()))
            .set_instance_types(Some(input.instance_types.clone()))
            .scaling_config(scaling)
            .set_launch_template(template)
            .set_ami_type(input.ami_type.as_deref().map(AmiTypes::from))
            .set_labels(Some(labels))
            .client_request_token(ctx.token("create-node-group").as_str())
            .set_tags(Some(tags::map(&ctx.marks())));
        let answer = match call.send().await.map_err(|e| classify(ACTION, e)) {
            Ok(answer) => answer,
            Err(error) => {
                return Err(
                    role::explain_refusal(&clients, &input.node_role_arn, RoleKind::EksNode, error).await
                );
            }
        };
        ctx.record_resource(KIND, format!("{}/{}", input.cluster, input.name)).await?;
        answer.nodegroup().map(NodeGroupOutput::of).ok_or_else(|| incomplete(ACTION, "nodegroup"))
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &NodeGroupInput,
        _: &Recorded,
    ) -> ActivityResult<Undo> {
        let clients = AwsClients::of(ctx)?;
        match find(&clients, &input.cluster, &input.name).await? {
            Some(group) if tags::owner_of_map(&ctx.marks(), group.tags()) == Owner::ThisRun => {
                // Before the nodes go: what takes load balancers down runs on them.
                no_load_balancers(&clients, &input.cluster, None).await?;
                Box::pin(delete(ctx, &clients, &input.cluster, &input.name)).await?;
                Ok(Undo::Undone)
            }
            _ => Ok(Undo::NothingToDo),
        }
    }

    fn describe(&self, input: &NodeGroupInput) -> String {
        let (name, types) = (&input.name, input.instance_types.join(", "));
        format!("create node group {name} of {} {types} in {}", input.desired_size, input.cluster)
    }
}

/// Waiting for the nodes of a group to be ready.
pub mod wait {
    use super::{
        Activity, ActivityContext, ActivityError, ActivityResult, AwsClients, Deserialize, Effect, Nodegroup,
        NodegroupStatus, Pace, Seen, Serialize, find, issues, status, until_ready, verdict,
    };

    /// The registered name.
    pub const NAME: &str = "aws.eks.wait-node-group";

    /// What [`WaitNodeGroup`] takes.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct WaitNodeGroupInput {
        /// The cluster.
        pub cluster: String,
        /// The group.
        pub name: String,
    }

    /// A group whose nodes joined.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct WaitNodeGroupOutput {
        /// The cluster.
        pub cluster: String,
        /// The group.
        pub name: String,
        /// Its status.
        pub status: String,
        /// How many nodes it should have.
        pub desired_size: i32,
        /// The auto scaling groups behind it.
        pub auto_scaling_groups: Vec<String>,
    }

    fn judge(
        input: &WaitNodeGroupInput,
        group: Option<&Nodegroup>,
    ) -> ActivityResult<Option<WaitNodeGroupOutput>> {
        let name = &input.name;
        let Some(group) = group else {
            return Err(ActivityError::terminal("NodeGroupGone", format!("there is no node group {name}"))
                .no_effect());
        };
        match group.status() {
            Some(NodegroupStatus::Active) => Ok(Some(WaitNodeGroupOutput {
                cluster: input.cluster.clone(),
                name: name.clone(),
                status: status(group).to_owned(),
                desired_size: group
                    .scaling_config()
                    .and_then(aws_sdk_eks::types::NodegroupScalingConfig::desired_size)
                    .unwrap_or_default(),
                auto_scaling_groups: group
                    .resources()
                    .map(|r| {
                        r.auto_scaling_groups().iter().filter_map(|g| g.name()).map(str::to_owned).collect()
                    })
                    .unwrap_or_default(),
            })),
            Some(
                NodegroupStatus::CreateFailed
                | NodegroupStatus::Degraded
                | NodegroupStatus::DeleteFailed
                | NodegroupStatus::Deleting,
            ) => {
                let text = format!("node group {name} is {}: {}", status(group), issues(group));
                Err(ActivityError::terminal("NodeGroupFailed", text).help(verdict::GENERAL).no_effect())
            }
            _ => Ok(None),
        }
    }

    /// Waits until the nodes of a group have joined, or EKS says why they do not.
    ///
    /// # Idempotency
    /// Reads only; a wait cut short is simply begun again.
    ///
    /// # Compensation
    /// None.
    ///
    /// Page: <https://docs.aws.amazon.com/eks/latest/userguide/troubleshooting.html>
    #[derive(Debug, Clone, Copy, Default)]
    pub struct WaitNodeGroup;

    impl Activity for WaitNodeGroup {
        type Input = WaitNodeGroupInput;
        type Output = WaitNodeGroupOutput;

        fn effect(&self) -> Effect {
            Effect::Read
        }

        async fn execute(
            &self,
            ctx: &ActivityContext,
            input: &WaitNodeGroupInput,
        ) -> ActivityResult<WaitNodeGroupOutput> {
            let clients = AwsClients::of(ctx)?;
            until_ready(ctx, Pace::SLOW, &format!("node group {}", input.name), || async {
                let group = find(&clients, &input.cluster, &input.name).await?;
                let status = group.as_ref().map_or("gone", status).to_owned();
                match (judge(input, group.as_ref()), &group) {
                    (Err(error), Some(group)) => Err(verdict::explain(&clients, group, error).await),
                    (judged, _) => Ok(judged?.map_or(Seen::Still(status), Seen::Ready)),
                }
            })
            .await
        }

        fn describe(&self, input: &WaitNodeGroupInput) -> String {
            format!("wait for the nodes of {}", input.name)
        }
    }

    #[cfg(test)]
    mod tests {
        use aws_sdk_eks::types::{Issue, NodegroupHealth, NodegroupIssueCode};

        use super::*;

        #[test]
        fn the_reason_of_a_failure_is_passed_on() {
            let input = WaitNodeGroupInput { cluster: "c".into(), name: "n".into() };
            let issue = Issue::builder()
                .code(NodegroupIssueCode::NodeCreationFailure)
                .message("Instances failed to join the kubernetes cluster")
                .resource_ids("i-1")
                .build();
            let failed = Nodegroup::builder()
                .status(NodegroupStatus::CreateFailed)
                .health(NodegroupHealth::builder().issues(issue).build())
                .build();
            let error = judge(&input, Some(&failed)).unwrap_err();
            assert!(
                error.message.contains("NodeCreationFailure: Instances failed to join")
                    && error.message.contains("i-1")
            );
            let creating = Nodegroup::builder().status(NodegroupStatus::Creating).build();
            assert_eq!(judge(&input, Some(&creating)), Ok(None));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_ours_by_its_tags_and_failed_by_its_status() {
        let marks =
            Marks { store: "s".into(), site: "l".into(), run: "r".into(), step: "x".into(), generation: 1 };
        let group = |status| {
            Nodegroup::builder().nodegroup_name("n").set_tags(Some(tags::map(&marks))).status(status).build()
        };
        assert!(matches!(
            judge(&marks, Some(&group(NodegroupStatus::Degraded))),
            Probe::Present { owner: Owner::ThisRun, .. }
        ));
        assert!(matches!(
            judge(&marks, Some(&group(NodegroupStatus::CreateFailed))),
            Probe::Failed { owner: Owner::ThisRun, .. }
        ));
        assert!(matches!(judge(&marks, Some(&group(NodegroupStatus::Deleting))), Probe::InProgress { .. }));
    }
}
