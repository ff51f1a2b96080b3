//! What eksctl leaves in the account: a cluster and its CloudFormation stacks `eksctl-CLUSTER-*`.
//!
//! In `cluster.mode: dss-plugin` DSS runs eksctl, which neither waits for its deletions nor cleans up after a
//! failure. These functions tell the truth that AWS knows, also while DSS is at work, wait for the end, and delete
//! stacks left over, if they carry this run's marks: DSS passes them on as the cluster's tags. A stack that could not be
//! deleted because something hangs on it is tried again by the step's policy, and the error says what hangs on it. No
//! activity is registered here.
//!
//! Page: <https://eksctl.io/usage/creating-and-managing-clusters/>

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_cloudformation::types::{Stack, StackStatus};
use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult, Marks, Owner};
use serde::{Deserialize, Serialize};

use super::blockers::{blockers, still_in_use};
use super::error::{Trouble, classify, trouble_in};
use super::poll::{Pace, until};
use super::{cluster, tags};
use crate::clients::AwsClients;

/// The tags by which eksctl marks a stack with its cluster, newest first.
const CLUSTER_TAGS: &[&str] =
    &["alpha.eksctl.io/cluster-name", "eksctl.cluster.k8s.io/v1alpha1/cluster-name"];
/// What the name of a stack goes on with after its cluster's.
const STACK_KINDS: &[&str] = &["cluster", "nodegroup-", "addon-", "podidentityrole-", "fargate", "karpenter"];

/// A cluster as seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCluster {
    /// As `CREATING`.
    pub status: String,
    /// Its ARN.
    pub arn: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// A stack as seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenStack {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub id: String,
    /// As `ROLLBACK_COMPLETE`.
    pub status: String,
    /// Why it is so, when CloudFormation tells.
    pub reason: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl SeenStack {
    fn of(stack: &Stack) -> Self {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Self {
            name: text(stack.stack_name()),
            id: text(stack.stack_id()),
            status: text(stack.stack_status().map(StackStatus::as_str)),
            reason: stack.stack_status_reason().map(str::to_owned),
            tags: stack
                .tags()
                .iter()
                .filter_map(|t| Some((t.key()?.to_owned(), t.value()?.to_owned())))
                .collect(),
        }
    }

    /// Whose it is.
    pub fn owner(&self, marks: &Marks) -> Owner {
        marks.owner_by(self.tags.iter().map(|(k, v)| (k.as_str(), v.as_str())))
    }

    /// Whether CloudFormation still works on it. A stack in review holds only a plan, and nobody works on it.
    pub fn in_progress(&self) -> bool {
        self.status.ends_with("_IN_PROGRESS") && self.status != "REVIEW_IN_PROGRESS"
    }

    /// Whether it ended badly. An update that was rolled back leaves a stack that works.
    pub fn failed(&self) -> bool {
        self.status.ends_with("_FAILED") || self.status == "ROLLBACK_COMPLETE"
    }

    /// Whether it is of the cluster, by eksctl's tag, else by its name. A cluster `a` has no part in the stacks of
    /// a cluster `a-b`.
    fn is_of(&self, cluster: &str) -> bool {
        let Some(rest) = self.name.strip_prefix(&format!("eksctl-{cluster}-")) else { return false };
        match CLUSTER_TAGS.iter().find_map(|tag| self.tags.get(*tag)) {
            Some(name) => name == cluster,
            None => STACK_KINDS.iter().any(|kind| rest.starts_with(kind)),
        }
    }
}

/// A cluster of eksctl's with its stacks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EksctlState {
    /// The cluster, if it is there.
    pub cluster: Option<SeenCluster>,
    /// The stacks that are there, node groups before the control plane.
    pub stacks: Vec<SeenStack>,
}

impl EksctlState {
    /// Whether nothing is there.
    pub fn is_gone(&self) -> bool {
        self.cluster.is_none() && self.stacks.is_empty()
    }

    /// Whether AWS works on the cluster or on one of the stacks: nobody may start or delete it then.
    pub fn in_progress(&self) -> bool {
        let busy = ["CREATING", "DELETING", "UPDATING", "PENDING"];
        self.cluster.as_ref().is_some_and(|c| busy.contains(&c.status.as_str()))
            || self.stacks.iter().any(SeenStack::in_progress)
    }

    /// What ended badly, one line each.
    pub fn failed(&self) -> Vec<String> {
        let cluster =
            self.cluster.iter().filter(|c| c.status == "FAILED").map(|_| "the cluster is FAILED".to_owned());
        let stacks = self.stacks.iter().filter(|s| s.failed());
        let stacks = stacks.map(|s| {
            let reason = s.reason.as_deref().unwrap_or("no reason given");
            format!("stack {} is {}: {reason}", s.name, s.status)
        });
        cluster.chain(stacks).collect()
    }

    /// Whose all of it is; `None` when nothing is there.
    pub fn owner(&self, marks: &Marks) -> Option<Owner> {
        let cluster = self
            .cluster
            .as_ref()
            .map(|c| marks.owner_by(c.tags.iter().map(|(k, v)| (k.as_str(), v.as_str()))));
        let owners: Vec<_> = cluster.into_iter().chain(self.stacks.iter().map(|s| s.owner(marks))).collect();
        (!owners.is_empty()).then(|| tags::joint_owner(owners))
    }

    /// One line for people, as `cluster CREATING, eksctl-x-cluster CREATE_IN_PROGRESS`.
    pub fn summary(&self) -> String {
        if self.is_gone() {
            return "gone".to_owned();
        }
        let cluster = self.cluster.iter().map(|c| format!("cluster {}", c.status));
        cluster
            .chain(self.stacks.iter().map(|s| format!("{} {}", s.name, s.status)))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Every stack of account and region that is not deleted.
pub(crate) async fn all_stacks(clients: &AwsClients) -> ActivityResult<Vec<SeenStack>> {
    let (mut stacks, mut next) = (Vec::new(), None);
    loop {
        let call = clients.cloudformation().describe_stacks().set_next_token(next).send().await;
        let page = call.map_err(|e| classify("cloudformation:DescribeStacks", e))?;
        stacks.extend(page.stacks().iter().map(SeenStack::of).filter(|s| s.status != "DELETE_COMPLETE"));
        next = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
        if next.is_none() {
            return Ok(stacks);
        }
    }
}

/// What AWS has of the eksctl cluster `name`.
///
/// # Errors
/// The calls' own errors.
pub async fn eksctl_state(clients: &AwsClients, name: &str) -> ActivityResult<EksctlState> {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let cluster = cluster::find(clients, name).await?.map(|c| SeenCluster {
        status: text(c.status().map(aws_sdk_eks::types::ClusterStatus::as_str)),
        arn: text(c.arn()),
        tags: c.tags().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
    });
    let mut stacks = all_stacks(clients).await?;
    stacks.retain(|s| s.is_of(name));
    stacks.sort_by_key(|s| (s.name.ends_with("-cluster"), s.name.clone()));
    Ok(EksctlState { cluster, stacks })
}

/// How often AWS is looked at while DSS is at work.
const WATCH: Duration = Duration::from_secs(15);

/// Does `work`, by which DSS makes or takes down the cluster, and meanwhile says in heartbeats what AWS has of it: DSS
/// itself says nothing for a quarter of an hour.
pub async fn watched<T>(
    ctx: &ActivityContext,
    clients: &AwsClients,
    name: &str,
    work: impl Future<Output = T>,
) -> T {
    let watch = async {
        let mut told = String::new();
        loop {
            if ctx.sleep(WATCH).await.is_err() {
                // The work sees it as well, and ends in its own way.
                return std::future::pending::<()>().await;
            }
            match eksctl_state(clients, name).await {
                Ok(state) => {
                    let now = state.summary();
                    ctx.heartbeat(serde_json::json!({ "cluster": name, "aws": now }));
                    for line in state.failed().iter().filter(|_| now != told) {
                        tracing::warn!(cluster = name, "{line}");
                    }
                    told = now;
                }
                Err(error) => tracing::debug!(cluster = name, %error, "the stacks were not looked at"),
            }
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        () = watch => unreachable!("the watch has no end of its own"),
    }
}

/// Waits until the cluster and its stacks are gone. Asks for nothing.
///
/// # Errors
/// `StillInUse` or `StackDeleteFailed` when CloudFormation gave up on a stack, and the calls' own errors.
pub async fn wait_gone(ctx: &ActivityContext, clients: &AwsClients, name: &str) -> ActivityResult<()> {
    let failed = until(ctx, Pace::SLOW, || async {
        let state = eksctl_state(clients, name).await?;
        ctx.heartbeat(state.summary());
        let gone = state.is_gone().then_some(None);
        Ok(state.stacks.into_iter().find(|s| s.status == "DELETE_FAILED").map(Some).or(gone))
    });
    match failed.await? {
        Some(stack) => Err(delete_failed(clients, name, &stack).await),
        None => Ok(()),
    }
}

/// What a stack that could not be deleted means. Something that hangs on it goes by itself in most cases, or a person
/// has to see to it: the error names it.
async fn delete_failed(clients: &AwsClients, name: &str, stack: &SeenStack) -> ActivityError {
    let reason = stack.reason.as_deref().unwrap_or("no reason given");
    let what = format!("stack {}", stack.name);
    let found = blockers(clients, name, None).await.unwrap_or_default();
    if !found.is_empty() || trouble_in(reason) == Some(Trouble::NotYet) {
        return still_in_use(&what, reason, &found);
    }
    ActivityError::terminal("StackDeleteFailed", format!("{what} could not be deleted: {reason}"))
        .help("remove what the stack's events name (load balancers, interfaces, group rules), then `dssflow rollback RUN --retry`")
}

/// Deletes the stacks of the cluster that carry this run's marks, node groups before the control plane, and waits
/// until they are gone. Stacks of others stay. Gives the names of those it deleted.
///
/// A stack CloudFormation still works on is waited for first, and one that could not be deleted is tried once more.
///
/// # Errors
/// `StillInUse` or `StackDeleteFailed` when CloudFormation gave up on a stack, and the calls' own errors.
pub async fn delete_leftovers(
    ctx: &ActivityContext,
    clients: &AwsClients,
    name: &str,
) -> ActivityResult<Vec<String>> {
    let marks = ctx.marks();
    let mut deleted = Vec::new();
    loop {
        let settled = until(ctx, Pace::SLOW, || async {
            let state = eksctl_state(clients, name).await?;
            ctx.heartbeat(state.summary());
            Ok((!state.stacks.iter().any(SeenStack::in_progress)).then_some(state))
        });
        let state = settled.await?;
        let Some(stack) = state.stacks.iter().find(|s| s.owner(&marks) == Owner::ThisRun) else {
            return Ok(deleted);
        };
        if deleted.iter().filter(|d| **d == stack.name).count() > 1 {
            return Err(delete_failed(clients, name, stack).await);
        }
        let call = clients.cloudformation().delete_stack().stack_name(&stack.id).client_request_token(
            ctx.token(&format!("delete-{}-{}-{}", stack.name, ctx.attempt(), deleted.len())).as_str(),
        );
        call.send().await.map_err(|e| classify("cloudformation:DeleteStack", e))?;
        deleted.push(stack.name.clone());
        ctx.sleep(Pace::SLOW.first).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(name: &str, status: &str, tags: &[(&str, &str)]) -> SeenStack {
        SeenStack {
            name: name.into(),
            id: format!("arn:{name}"),
            status: status.into(),
            reason: None,
            tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn a_clusters_stacks_are_told_from_those_of_a_longer_name() {
        let of = |name: &str, tags: &[(&str, &str)]| stack(name, "CREATE_COMPLETE", tags).is_of("a");
        assert!(of("eksctl-a-cluster", &[]));
        assert!(of("eksctl-a-nodegroup-n1", &[]));
        assert!(!of("eksctl-a-b-cluster", &[]));
        assert!(!of("eksctl-a-cluster-cluster", &[("alpha.eksctl.io/cluster-name", "a-cluster")]));
        assert!(of("eksctl-a-other", &[("alpha.eksctl.io/cluster-name", "a")]));
        assert!(!of("a-cluster", &[]));
    }

    #[test]
    fn progress_failure_and_owner() {
        let marks =
            Marks { store: "s".into(), site: "l".into(), run: "r".into(), step: "x".into(), generation: 1 };
        let ours: Vec<_> = marks.tags();
        let ours: Vec<_> = ours.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let mut state = EksctlState {
            cluster: None,
            stacks: vec![stack("eksctl-a-cluster", "ROLLBACK_COMPLETE", &ours)],
        };
        assert!(!state.in_progress() && !state.is_gone());
        assert_eq!(state.failed().len(), 1);
        assert_eq!(state.owner(&marks), Some(Owner::ThisRun));
        state.stacks.push(stack("eksctl-a-nodegroup-n", "DELETE_IN_PROGRESS", &[]));
        assert!(state.in_progress());
        assert_eq!(state.owner(&marks), Some(Owner::Foreign));
        assert_eq!(EksctlState::default().owner(&marks), None);
        assert!(!stack("s", "REVIEW_IN_PROGRESS", &[]).in_progress(), "nobody works on a plan");
        assert!(!stack("s", "UPDATE_ROLLBACK_COMPLETE", &[]).failed(), "it works as before");
        assert!(stack("s", "DELETE_FAILED", &[]).failed() && stack("s", "CREATE_FAILED", &[]).failed());
        assert_eq!(EksctlState::default().summary(), "gone");
    }
}
