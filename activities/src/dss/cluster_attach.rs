//! An EKS cluster that dssflow made itself, attached in DSS: defined with the plugin's attach type and started.
//!
//! The plugin's attach type takes no tags; the ownership marks stand in its config under `clusterTags`, which the
//! plugin does not read. Starting such a cluster only fetches its address; stopping it leaves EKS alone.
//!
//! # Idempotency
//! The name is looked up in the list first; a definition of ours that does not run is started, under the next generation.
//! # Compensation
//! Stopped (which detaches) and its definition deleted when it carries this run's marks.
//!
//! Page: <https://doc.dataiku.com/dss/latest/containers/eks/unmanaged.html>

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{DssClient, DssTarget};
use super::cluster::{rank, remove, tags};
use super::clusters::{self, ClusterState, LongCall};
use super::document::SETTLE;

/// The registered name.
pub const NAME: &str = "dss.cluster-attach";
/// The plugin's type for clusters it did not create.
const ATTACH_TYPE: &str = "pycluster_eks-clusters_attach-eks-cluster";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterAttachInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Name of the cluster in DSS.
    pub name: String,
    /// Name of the EKS cluster.
    pub eks_cluster: String,
    /// Preset of `connection-info`.
    pub connection_preset: String,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterAttachOutput {
    /// Id of the definition in DSS.
    pub id: String,
}

/// The activity.
pub(crate) struct ClusterAttach;

/// Stops the definition, which leaves EKS alone.
async fn detach(ctx: &ActivityContext, client: &DssClient, id: &str) -> ActivityResult<()> {
    if clusters::settled(ctx, client, id).await? != ClusterState::Running {
        return Ok(());
    }
    let query = [("terminate", "False"), ("forceStop", "True")];
    match clusters::long_call(ctx, client, id, "stop", &query).await? {
        LongCall::Done => Ok(()),
        LongCall::Failed(error) | LongCall::Lost(error) => match clusters::settled(ctx, client, id).await? {
            ClusterState::Running => Err(error),
            _ => Ok(()),
        },
    }
}

impl Activity for ClusterAttach {
    type Input = ClusterAttachInput;
    type Output = ClusterAttachOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &ClusterAttachInput,
    ) -> ActivityResult<ClusterAttachOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let found = clusters::named(&client, &input.name).await?;
        let ours = found.into_iter().find(|definition| definition.owner(&ctx.marks()) != Owner::Foreign);
        let id = if let Some(definition) = ours {
            definition.id
        } else {
            let body = json!({
                "name": input.name, "type": ATTACH_TYPE, "architecture": "KUBERNETES",
                "params": {"config": {
                    "connectionInfo": {"mode": "PRESET", "name": input.connection_preset},
                    "clusterId": input.eks_cluster, "clusterTags": tags(ctx)
                }}
            });
            clusters::define(ctx, &client, &input.name, &body).await?
        };
        if clusters::settled(ctx, &client, &id).await? == ClusterState::None {
            match clusters::long_call(ctx, &client, &id, "start", &[]).await? {
                LongCall::Done => {}
                LongCall::Failed(error) | LongCall::Lost(error) => {
                    if clusters::settled(ctx, &client, &id).await? != ClusterState::Running {
                        return Err(error);
                    }
                }
            }
        }
        Ok(ClusterAttachOutput { id })
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &ClusterAttachInput,
    ) -> ActivityResult<Probe<ClusterAttachOutput>> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let mut found = clusters::named(&client, &input.name).await?;
        found.sort_by_key(|definition| std::cmp::Reverse(rank(&definition.owner(&ctx.marks()))));
        let Some(definition) = found.into_iter().next() else { return Ok(Probe::Absent) };
        let owner = definition.owner(&ctx.marks());
        let output = ClusterAttachOutput { id: definition.id.clone() };
        if owner == Owner::Foreign {
            return Ok(Probe::Present { output, owner });
        }
        Ok(match clusters::state(&client, &definition.id).await? {
            ClusterState::Running => Probe::Present { output, owner },
            // Made in part: a rollback has to remove it, and execute starts it. Absent would say that there is nothing to
            // take back.
            ClusterState::None => Probe::Failed {
                owner,
                detail: format!("cluster {} is defined in DSS and not started", definition.id),
            },
            ClusterState::Starting | ClusterState::Stopping => {
                Probe::InProgress { detail: format!("cluster {} starts or stops in DSS", definition.id) }
            }
        })
    }

    async fn verify(
        &self,
        ctx: &ActivityContext,
        input: &ClusterAttachInput,
        output: &ClusterAttachOutput,
    ) -> ActivityResult<()> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let definition = clusters::by_id(&client, &output.id).await?;
        let attached =
            definition.as_ref().and_then(|found| found.settings["params"]["config"]["clusterId"].as_str());
        if attached == Some(input.eks_cluster.as_str()) {
            return Ok(());
        }
        Err(ActivityError::terminal(
            "ClusterType",
            format!("cluster {} in DSS is not attached to EKS cluster {}", output.id, input.eks_cluster),
        )
        .help("choose another cluster.name, or remove that definition"))
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &ClusterAttachInput,
        _recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let client = DssClient::connect(ctx, &input.target).await?;
        for definition in clusters::named(&client, &input.name).await? {
            if definition.owner(&ctx.marks()) != Owner::ThisRun {
                continue;
            }
            match detach(ctx, &client, &definition.id).await {
                // Another attempt was faster.
                Err(_) if clusters::by_id(&client, &definition.id).await?.is_none() => {}
                detached => detached?,
            }
        }
        remove(ctx, &client, &input.name).await
    }

    fn describe(&self, input: &ClusterAttachInput) -> String {
        format!("EKS cluster {} attached as {}", input.eks_cluster, input.name)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}
