//! An EKS cluster made by dssflow itself (`cluster.mode: sdk`): create, wait, delete.
//!
//! Creating and waiting are steps of their own, so that a run that dies in the quarter of an hour in between goes on
//! waiting and never asks for a second cluster. Access goes by access entries; the add-ons are steps of their own.

use aws_sdk_eks::types::{
    AuthenticationMode, Cluster, ClusterStatus, CreateAccessConfigRequest, VpcConfigRequest,
};
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::blockers::{blockers, no_load_balancers, still_in_use};
use super::error::{classify, incomplete, none_if};
use super::poll::{Pace, Seen, until, until_ready};
use super::role::{self, RoleKind};
use super::tags;
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.eks.create-cluster";
/// The kind under which the cluster is recorded, by name.
pub const KIND: &str = "eks:cluster";

pub(crate) const NOT_FOUND: &[&str] = &["ResourceNotFoundException", "NotFoundException"];

/// What [`CreateCluster`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterInput {
    /// Its name, unique in account and region.
    pub name: String,
    /// The control plane's role.
    pub role_arn: String,
    /// Its subnets, in two zones or more.
    pub subnets: Vec<String>,
    /// More security groups of the control plane's interfaces.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// The Kubernetes version, as `1.33`; the service's default when absent.
    #[serde(default)]
    pub version: Option<String>,
    /// Whether the API answers on the internet.
    #[serde(default = "yes")]
    pub endpoint_public: bool,
    /// Whether the API answers inside the VPC. Nodes join through it, so it is on unless one says otherwise.
    #[serde(default = "yes")]
    pub endpoint_private: bool,
    /// From where the public API may be called; from everywhere when empty.
    #[serde(default)]
    pub public_access_cidrs: Vec<String>,
}

fn yes() -> bool {
    true
}

/// The cluster that was asked for; it is ready only after [`wait::WaitCluster`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterOutput {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
}

impl ClusterOutput {
    fn of(cluster: &Cluster) -> Self {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Self { name: text(cluster.name()), arn: text(cluster.arn()) }
    }
}

/// Describes a cluster; `None` when there is none of that name.
pub(crate) async fn find(clients: &AwsClients, name: &str) -> ActivityResult<Option<Cluster>> {
    let call = clients.eks().describe_cluster().name(name).send().await;
    Ok(none_if(call.map_err(|e| classify("eks:DescribeCluster", e)), NOT_FOUND)?.and_then(|a| a.cluster))
}

fn status(cluster: &Cluster) -> &str {
    cluster.status().map_or("UNKNOWN", ClusterStatus::as_str)
}

/// What EKS says is wrong, one line an issue.
fn issues(cluster: &Cluster) -> String {
    let issues = cluster.health().map(aws_sdk_eks::types::ClusterHealth::issues).unwrap_or_default();
    join_issues(
        issues.iter().map(|i| {
            (i.code().map(aws_sdk_eks::types::ClusterIssueCode::as_str), i.message(), i.resource_ids())
        }),
    )
}

/// Health issues of clusters, node groups and add-ons as one text.
pub(crate) fn join_issues<'a>(
    issues: impl Iterator<Item = (Option<&'a str>, Option<&'a str>, &'a [String])>,
) -> String {
    let lines: Vec<_> = issues
        .map(|(code, message, ids)| {
            let ids = if ids.is_empty() { String::new() } else { format!(" ({})", ids.join(", ")) };
            format!("{}: {}{ids}", code.unwrap_or("Unknown"), message.unwrap_or("no message"))
        })
        .collect();
    if lines.is_empty() { "EKS gives no reason".to_owned() } else { lines.join("; ") }
}

fn judge(marks: &dssflow_engine::activity::Marks, cluster: Option<&Cluster>) -> Probe<ClusterOutput> {
    let Some(cluster) = cluster else { return Probe::Absent };
    let owner = tags::owner_of_map(marks, cluster.tags());
    match cluster.status() {
        Some(ClusterStatus::Deleting) => Probe::InProgress {
            detail: format!("cluster {} is being deleted", cluster.name().unwrap_or_default()),
        },
        Some(ClusterStatus::Failed) => Probe::Failed { owner, detail: issues(cluster) },
        _ => Probe::Present { output: ClusterOutput::of(cluster), owner },
    }
}

/// Deletes a cluster of this run and waits until it is gone, however far its making or deletion is.
async fn delete(ctx: &ActivityContext, clients: &AwsClients, name: &str) -> ActivityResult<bool> {
    let marks = ctx.marks();
    let mut asked = false;
    loop {
        let seen = until(ctx, Pace::SLOW, || async {
            let cluster = find(clients, name).await?;
            ctx.heartbeat(cluster.as_ref().map_or("gone", status));
            Ok(match cluster {
                None => Some(None),
                Some(cluster) => match cluster.status() {
                    Some(
                        ClusterStatus::Creating
                        | ClusterStatus::Updating
                        | ClusterStatus::Pending
                        | ClusterStatus::Deleting,
                    ) => None,
                    _ => Some(Some(cluster)),
                },
            })
        });
        let Some(cluster) = seen.await? else { return Ok(asked) };
        if tags::owner_of_map(&marks, cluster.tags()) != Owner::ThisRun {
            return Ok(false);
        }
        if asked && cluster.status() == Some(&ClusterStatus::Failed) {
            let vpc = cluster.resources_vpc_config().and_then(|v| v.vpc_id());
            let found = blockers(clients, name, vpc).await.unwrap_or_default();
            return Err(still_in_use(&format!("cluster {name}"), &issues(&cluster), &found));
        }
        let vpc = cluster.resources_vpc_config().and_then(|v| v.vpc_id());
        no_load_balancers(clients, name, vpc).await?;
        let call = clients.eks().delete_cluster().name(name).send().await;
        none_if(call.map_err(|e| classify("eks:DeleteCluster", e)), NOT_FOUND)?;
        if asked {
            // The state read lags behind the call; do not ask in a tight loop.
            ctx.sleep(Pace::SLOW.first).await?;
        }
        asked = true;
    }
}

/// Asks for an EKS cluster.
///
/// # Idempotency
/// The step's token, a name unique in account and region, and tags given with the create. A role not known
/// everywhere yet is an error worth another attempt. A cluster of this run that FAILED is deleted before the next
/// generation asks anew.
///
/// # Compensation
/// Deletes the cluster if this run made it, whatever state it is in, and waits until it is gone. Load balancers that
/// Kubernetes made for it must have gone before: without the cluster nobody takes them down.
///
/// Page: <https://docs.aws.amazon.com/eks/latest/APIReference/API_CreateCluster.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct CreateCluster;

impl Activity for CreateCluster {
    type Input = ClusterInput;
    type Output = ClusterOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &ClusterInput,
    ) -> ActivityResult<Probe<ClusterOutput>> {
        let cluster = find(&*AwsClients::of(ctx)?, &input.name).await?;
        Ok(judge(&ctx.marks(), cluster.as_ref()))
    }

    async fn execute(&self, ctx: &ActivityContext, input: &ClusterInput) -> ActivityResult<ClusterOutput> {
        const ACTION: &str = "eks:CreateCluster";
        let clients = AwsClients::of(ctx)?;
        let there = find(&clients, &input.name).await?;
        if there.is_some_and(|c| c.status() == Some(&ClusterStatus::Failed)) {
            Box::pin(delete(ctx, &clients, &input.name)).await?;
        }
        let cidrs = Some(input.public_access_cidrs.clone()).filter(|c| !c.is_empty());
        let vpc = VpcConfigRequest::builder()
            .set_subnet_ids(Some(input.subnets.clone()))
            .set_security_group_ids(Some(input.security_groups.clone()))
            .endpoint_public_access(input.endpoint_public)
            .endpoint_private_access(input.endpoint_private)
            .set_public_access_cidrs(cidrs)
            .build();
        let access = CreateAccessConfigRequest::builder()
            .authentication_mode(AuthenticationMode::ApiAndConfigMap)
            .bootstrap_cluster_creator_admin_permissions(true)
            .build();
        let call = clients
            .eks()
            .create_cluster()
            .name(&input.name)
            .role_arn(&input.role_arn)
            .resources_vpc_config(vpc)
            .access_config(access)
            .set_version(input.version.clone())
            .client_request_token(ctx.token("create-cluster").as_str())
            .set_tags(Some(tags::map(&ctx.marks())));
        let answer = match call.send().await.map_err(|e| classify(ACTION, e)) {
            Ok(answer) => answer,
            Err(error) => {
                return Err(
                    role::explain_refusal(&clients, &input.role_arn, RoleKind::EksCluster, error).await
                );
            }
        };
        ctx.record_resource(KIND, &input.name).await?;
        answer.cluster().map(ClusterOutput::of).ok_or_else(|| incomplete(ACTION, "cluster"))
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &ClusterInput,
        _: &Recorded,
    ) -> ActivityResult<Undo> {
        let clients = AwsClients::of(ctx)?;
        match find(&clients, &input.name).await? {
            Some(cluster) if tags::owner_of_map(&ctx.marks(), cluster.tags()) == Owner::ThisRun => {
                Box::pin(delete(ctx, &clients, &input.name)).await?;
                Ok(Undo::Undone)
            }
            _ => Ok(Undo::NothingToDo),
        }
    }

    fn describe(&self, input: &ClusterInput) -> String {
        let version = input.version.as_deref().unwrap_or("the default version");
        format!("create EKS cluster {} ({version}) in {} subnets", input.name, input.subnets.len())
    }
}

/// Waiting for a cluster to be ready.
pub mod wait {
    use super::{
        Activity, ActivityContext, ActivityError, ActivityResult, AwsClients, Cluster, ClusterStatus,
        Deserialize, Effect, Pace, Seen, Serialize, find, issues, status, until_ready,
    };

    /// The registered name.
    pub const NAME: &str = "aws.eks.wait-cluster";

    /// What [`WaitCluster`] takes.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct WaitClusterInput {
        /// The cluster.
        pub name: String,
    }

    /// A cluster that is ready.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct WaitClusterOutput {
        /// Its name.
        pub name: String,
        /// Its ARN.
        pub arn: String,
        /// The URL of its API.
        pub endpoint: String,
        /// The certificate authority of its API, in base 64.
        pub certificate_authority: String,
        /// Its Kubernetes version.
        pub version: String,
        /// The security group EKS made for it.
        pub cluster_security_group: String,
        /// Its VPC.
        pub vpc_id: String,
    }

    fn output(cluster: &Cluster) -> WaitClusterOutput {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let vpc = cluster.resources_vpc_config();
        WaitClusterOutput {
            name: text(cluster.name()),
            arn: text(cluster.arn()),
            endpoint: text(cluster.endpoint()),
            certificate_authority: text(cluster.certificate_authority().and_then(|c| c.data())),
            version: text(cluster.version()),
            cluster_security_group: text(vpc.and_then(|v| v.cluster_security_group_id())),
            vpc_id: text(vpc.and_then(|v| v.vpc_id())),
        }
    }

    fn judge(name: &str, cluster: Option<&Cluster>) -> ActivityResult<Option<WaitClusterOutput>> {
        let Some(cluster) = cluster else {
            return Err(ActivityError::terminal("ClusterGone", format!("there is no cluster {name}"))
                .help("somebody deleted it while the run waited; `dssflow runs` tells the step to run again")
                .no_effect());
        };
        match cluster.status() {
            Some(ClusterStatus::Active) => Ok(Some(output(cluster))),
            Some(ClusterStatus::Failed | ClusterStatus::Deleting) => {
                let text = format!("cluster {name} is {}: {}", status(cluster), issues(cluster));
                Err(ActivityError::terminal("ClusterFailed", text)
                    .help("mend what EKS names, then run the step that creates the cluster again: it replaces its own failed one")
                    .no_effect())
            }
            _ => Ok(None),
        }
    }

    /// Waits until a cluster is ACTIVE. EKS has been seen to take between ten minutes and two and a half hours.
    ///
    /// # Idempotency
    /// Reads only; a wait cut short is simply begun again.
    ///
    /// # Compensation
    /// None.
    ///
    /// Page: <https://docs.aws.amazon.com/eks/latest/APIReference/API_DescribeCluster.html>
    #[derive(Debug, Clone, Copy, Default)]
    pub struct WaitCluster;

    impl Activity for WaitCluster {
        type Input = WaitClusterInput;
        type Output = WaitClusterOutput;

        fn effect(&self) -> Effect {
            Effect::Read
        }

        async fn execute(
            &self,
            ctx: &ActivityContext,
            input: &WaitClusterInput,
        ) -> ActivityResult<WaitClusterOutput> {
            let clients = AwsClients::of(ctx)?;
            until_ready(ctx, Pace::SLOW, &format!("cluster {}", input.name), || async {
                let cluster = find(&clients, &input.name).await?;
                let status = cluster.as_ref().map_or("gone", status).to_owned();
                Ok(judge(&input.name, cluster.as_ref())?.map_or(Seen::Still(status), Seen::Ready))
            })
            .await
        }

        fn describe(&self, input: &WaitClusterInput) -> String {
            format!("wait for EKS cluster {}", input.name)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn only_active_is_ready_and_failed_is_for_good() {
            let cluster = |status| Cluster::builder().name("c").status(status).build();
            assert_eq!(judge("c", Some(&cluster(ClusterStatus::Creating))), Ok(None));
            assert!(
                matches!(judge("c", Some(&cluster(ClusterStatus::Active))), Ok(Some(out)) if out.name == "c")
            );
            assert_eq!(judge("c", Some(&cluster(ClusterStatus::Failed))).unwrap_err().code, "ClusterFailed");
            assert_eq!(judge("c", None).unwrap_err().code, "ClusterGone");
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_eks::types::{ClusterHealth, ClusterIssue, ClusterIssueCode};
    use dssflow_engine::activity::Marks;

    use super::*;

    fn marks() -> Marks {
        Marks { store: "s".into(), site: "lab".into(), run: "r".into(), step: "x".into(), generation: 1 }
    }

    #[test]
    fn a_cluster_on_its_way_is_there_and_a_failed_one_says_why() {
        let ours = Cluster::builder().name("c").arn("a").set_tags(Some(tags::map(&marks())));
        let with = |status| ours.clone().status(status).build();
        assert!(matches!(
            judge(&marks(), Some(&with(ClusterStatus::Creating))),
            Probe::Present { owner: Owner::ThisRun, .. }
        ));
        assert!(matches!(judge(&marks(), Some(&with(ClusterStatus::Deleting))), Probe::InProgress { .. }));
        let issue =
            ClusterIssue::builder().code(ClusterIssueCode::Ec2SubnetNotFound).message("no subnet").build();
        let failed =
            ours.clone().status(ClusterStatus::Failed).health(ClusterHealth::builder().issues(issue).build());
        let Probe::Failed { owner, detail } = judge(&marks(), Some(&failed.build())) else {
            panic!("not failed")
        };
        assert_eq!((owner, detail.as_str()), (Owner::ThisRun, "Ec2SubnetNotFound: no subnet"));
        let foreign = Cluster::builder().name("c").status(ClusterStatus::Active).build();
        assert!(matches!(judge(&marks(), Some(&foreign)), Probe::Present { owner: Owner::Foreign, .. }));
        assert_eq!(judge(&marks(), None), Probe::Absent);
    }
}
