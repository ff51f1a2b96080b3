//! Starts a defined cluster: DSS runs eksctl, which makes the EKS cluster and its stacks.
//!
//! The call answers when all is done, a quarter of an hour later, and a lost reply says nothing. It is made once; then
//! DSS's state and AWS's decide, and AWS is believed where they differ: a start that died shows as `NONE` in DSS and
//! as a cluster or a stack in AWS. That is a failure of ours to clean up, never a reason to start again on top of it.
//!
//! # Idempotency
//! Never started while anything of it exists in AWS. Leftovers of a failed start are removed by the next generation:
//! forced stop in DSS, then deletion of this run's stacks, then a new start.
//! # Compensation
//! Forced stop in DSS, then waiting until cluster and stacks are gone (eksctl does not wait), then deletion of this
//! run's stacks that are left. The definition is deleted by its own step.
//!
//! Page: <https://developer.dataiku.com/latest/concepts-and-examples/clusters.html>

use std::sync::Arc;
use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, ErrorClass, Owner, Probe, Recorded,
    Undo,
};
use serde::{Deserialize, Serialize};

use super::client::{DssClient, DssTarget};
use super::clusters::{self, ClusterState, LongCall};
use crate::aws::eksctl::{self, EksctlState};
use crate::aws::error::{self as aws_error, Trouble};
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "dss.cluster-start";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterStartInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Id of the definition.
    pub id: String,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStartOutput {
    /// Id of the definition, and name of the EKS cluster.
    pub id: String,
    /// ARN of the EKS cluster.
    pub arn: Option<String>,
}

/// The activity.
pub(crate) struct ClusterStart;

/// DSS and AWS side by side.
struct View {
    client: DssClient,
    aws: Arc<AwsClients>,
}

impl View {
    async fn open(ctx: &ActivityContext, input: &ClusterStartInput) -> ActivityResult<Self> {
        Ok(Self { client: DssClient::connect(ctx, &input.target).await?, aws: AwsClients::of(ctx)? })
    }

    async fn in_aws(&self, id: &str) -> ActivityResult<EksctlState> {
        eksctl::eksctl_state(&self.aws, id).await
    }

    /// Forced stop, then AWS is waited for, then this run's stacks that are left are deleted. When only stacks are left
    /// there is nothing to stop: eksctl would find no cluster.
    async fn tear_down(&self, ctx: &ActivityContext, id: &str) -> ActivityResult<()> {
        let left = self.in_aws(id).await?;
        if left.cluster.is_some() || clusters::state(&self.client, id).await? != ClusterState::None {
            self.stop(ctx, id).await?;
        }
        eksctl::delete_leftovers(ctx, &self.aws, id).await?;
        let left = self.in_aws(id).await?;
        if !left.in_progress() && !left.is_gone() {
            return Err(ActivityError::terminal(
                "ClusterStays",
                format!("after the stop there is still: {}", left.summary()),
            )
            .help(
                "delete what is left by hand, or mark the step undone; then `dssflow rollback RUN --retry`",
            ));
        }
        eksctl::wait_gone(ctx, &self.aws, id).await
    }

    async fn stop(&self, ctx: &ActivityContext, id: &str) -> ActivityResult<()> {
        let query = [("terminate", "False"), ("forceStop", "True")];
        let call = clusters::long_call(ctx, &self.client, id, "stop", &query);
        match eksctl::watched(ctx, &self.aws, id, call).await? {
            LongCall::Done => {}
            // eksctl may fail on what it half made; the stacks below decide.
            LongCall::Failed(error) => tracing::warn!(%error, cluster = id, "the forced stop failed"),
            LongCall::Lost(error) => {
                tracing::warn!(%error, cluster = id, "the reply to the forced stop was lost");
                eksctl::watched(ctx, &self.aws, id, clusters::settled(ctx, &self.client, id)).await?;
            }
        }
        Ok(())
    }
}

/// What eksctl said, with what CloudFormation says, and what mends it. A used-up quota waits for a person: the same
/// start would end in the same way a quarter of an hour later.
fn start_failed(mut error: ActivityError, failed: &[String]) -> ActivityError {
    if !failed.is_empty() {
        error.message = format!("{}; {}", error.message, failed.join("; "));
    }
    let trouble = aws_error::trouble_in(&error.message);
    let quota =
        error.message.split(|c: char| !c.is_ascii_alphanumeric()).find(|w| w.ends_with("LimitExceeded"));
    if trouble == Some(Trouble::Quota) {
        error.class = ErrorClass::NeedsHuman;
    }
    let help = trouble.and_then(|t| aws_error::help(t, "eks:CreateCluster", quota.unwrap_or_default()));
    error.help(help.unwrap_or_else(|| {
        "quotas, subnets without public addresses and missing IAM rights are the usual causes; the stack's events tell"
            .to_owned()
    }))
}

fn arn(state: &EksctlState) -> Option<String> {
    state.cluster.as_ref().map(|cluster| cluster.arn.clone())
}

impl Activity for ClusterStart {
    type Input = ClusterStartInput;
    type Output = ClusterStartOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &ClusterStartInput,
    ) -> ActivityResult<ClusterStartOutput> {
        let view = View::open(ctx, input).await?;
        let id = input.id.as_str();
        ctx.record_resource("dss:cluster-start", id).await?;
        let mut state = clusters::settled(ctx, &view.client, id).await?;
        let left = view.in_aws(id).await?;
        if state == ClusterState::None && !left.is_gone()
            || state == ClusterState::Running && left.cluster.is_none()
        {
            if left.in_progress() {
                return Err(ActivityError::retryable(
                    "ClusterBusy",
                    format!("AWS still works on {id}: {}", left.summary()),
                ));
            }
            if left.owner(&ctx.marks()).is_some_and(|owner| owner != Owner::ThisRun) {
                return Err(ActivityError::needs_human(
                    "ForeignCluster",
                    format!(
                        "EKS or CloudFormation has a {id} that this run did not make: {}",
                        left.summary()
                    ),
                )
                .help("choose another cluster.name, or remove it"));
            }
            view.tear_down(ctx, id).await?;
            state = clusters::settled(ctx, &view.client, id).await?;
        }
        if state == ClusterState::None {
            let call = clusters::long_call(ctx, &view.client, id, "start", &[]);
            match eksctl::watched(ctx, &view.aws, id, call).await? {
                LongCall::Done => {}
                LongCall::Failed(error) => {
                    let failed = view.in_aws(id).await.map(|state| state.failed()).unwrap_or_default();
                    return Err(start_failed(error, &failed));
                }
                LongCall::Lost(error) => {
                    tracing::warn!(%error, cluster = id, "the reply to the start was lost");
                }
            }
        }
        match eksctl::watched(ctx, &view.aws, id, clusters::settled(ctx, &view.client, id)).await? {
            ClusterState::Running => {
                Ok(ClusterStartOutput { id: id.to_owned(), arn: arn(&view.in_aws(id).await?) })
            }
            _ => Err(ActivityError::retryable(
                "ClusterStart",
                format!("the start of cluster {id} did not end well, and no reply tells why"),
            )),
        }
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &ClusterStartInput,
    ) -> ActivityResult<Probe<ClusterStartOutput>> {
        let view = View::open(ctx, input).await?;
        let id = input.id.as_str();
        let Some(definition) = clusters::by_id(&view.client, id).await? else { return Ok(Probe::Absent) };
        let owner = definition.owner(&ctx.marks());
        let state = clusters::state(&view.client, id).await?;
        let aws = view.in_aws(id).await?;
        Ok(match state {
            ClusterState::Starting | ClusterState::Stopping => {
                Probe::InProgress { detail: format!("DSS: {state:?}; AWS: {}", aws.summary()) }
            }
            ClusterState::Running if aws.cluster.is_some() => {
                Probe::Present { output: ClusterStartOutput { id: id.to_owned(), arn: arn(&aws) }, owner }
            }
            ClusterState::Running => {
                Probe::Failed { owner, detail: "DSS says RUNNING, EKS has no such cluster".to_owned() }
            }
            ClusterState::None if aws.is_gone() => Probe::Absent,
            ClusterState::None if aws.in_progress() => {
                Probe::InProgress { detail: format!("AWS: {}", aws.summary()) }
            }
            ClusterState::None => match aws.owner(&ctx.marks()).unwrap_or(owner) {
                Owner::ThisRun => Probe::Failed {
                    owner: Owner::ThisRun,
                    detail: format!("an earlier start died: {}", aws.summary()),
                },
                owner => Probe::Failed {
                    owner,
                    detail: format!(
                        "EKS or CloudFormation has a {id} that this run did not make: {}; choose another cluster.name, or \
                         remove it",
                        aws.summary()
                    ),
                },
            },
        })
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &ClusterStartInput,
        _recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let view = View::open(ctx, input).await?;
        let id = input.id.as_str();
        let marks = ctx.marks();
        let Some(definition) = clusters::by_id(&view.client, id).await? else {
            let deleted = eksctl::delete_leftovers(ctx, &view.aws, id).await?;
            return Ok(if deleted.is_empty() { Undo::NothingToDo } else { Undo::Undone });
        };
        if definition.owner(&marks) != Owner::ThisRun {
            return Ok(Undo::NothingToDo);
        }
        let state = clusters::settled(ctx, &view.client, id).await?;
        let aws = view.in_aws(id).await?;
        if state == ClusterState::None && aws.is_gone() {
            return Ok(Undo::NothingToDo);
        }
        if state == ClusterState::None && aws.owner(&marks).is_some_and(|owner| owner != Owner::ThisRun) {
            return Err(ActivityError::terminal(
                "ForeignCluster",
                format!("AWS has a {id} that this run cannot prove it made: {}", aws.summary()),
            )
            .help("look at it, remove what is yours, then `dssflow rollback RUN --retry`"));
        }
        view.tear_down(ctx, id).await?;
        Ok(Undo::Undone)
    }

    fn describe(&self, input: &ClusterStartInput) -> String {
        format!("start of cluster {}: eksctl makes it in 15 to 20 minutes", input.id)
    }

    fn poll_interval(&self) -> Duration {
        Duration::from_secs(5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_up_quota_waits_for_a_person_and_is_named() {
        let error = ActivityError::retryable("DssError", "eksctl failed: exit status 1");
        let stack = "stack eksctl-a-cluster is CREATE_FAILED: AddressLimitExceeded: The maximum number of addresses has \
                     been reached."
            .to_owned();
        let failed = start_failed(error.clone(), &[stack]);
        assert_eq!(failed.class, ErrorClass::NeedsHuman);
        assert!(failed.help.as_ref().is_some_and(|h| h.contains("L-0263D0A3")), "{failed:?}");
        let failed = start_failed(error, &[]);
        assert_eq!(failed.class, ErrorClass::Retryable);
        assert!(failed.help.is_some_and(|h| h.contains("usual causes")));
    }
}
