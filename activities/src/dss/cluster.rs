//! The definition of an EKS cluster in DSS, made by the plugin's create type. It starts nothing.
//!
//! The ownership marks are the cluster's tags: the plugin hands them to eksctl, so that stacks and cluster carry them
//! too. The id is DSS's, made from the name; the EKS cluster will be called by it.
//!
//! # Idempotency
//! The name is looked up in the list first and once more behind, because nothing keeps DSS from taking a second of the
//! same name: of two attempts at once the later one takes its definition back.
//! # Compensation
//! Deleted when its tags name this run. Deleting does not stop: the start is undone before.
//!
//! Page: <https://doc.dataiku.com/dss/latest/containers/eks/managed.html>

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::client::{DssClient, DssTarget};
use super::clusters::{self, ClusterState};
use super::document::SETTLE;
use super::tree::overlaid;

/// The registered name.
pub const NAME: &str = "dss.cluster";
/// The plugin's type for clusters it creates.
const CREATE_TYPE: &str = "pycluster_eks-clusters_create-eks-cluster";

/// The nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePoolSpec {
    /// EC2 instance type.
    pub machine_type: String,
    /// Nodes to start with.
    pub num_nodes: u32,
    /// The fewest nodes.
    pub min_nodes: u32,
    /// The most nodes.
    pub max_nodes: u32,
    /// Disk of each node, in GB.
    pub disk_gb: u32,
}

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Name of the cluster.
    pub name: String,
    /// Preset of `connection-info`.
    pub connection_preset: String,
    /// Preset of `networking-settings`.
    pub network_preset: String,
    /// Kubernetes version, as `1.33`.
    pub k8s_version: String,
    /// The nodes.
    pub node_pool: NodePoolSpec,
    /// Merged into `params.config`; `null` takes a key out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Value>,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterOutput {
    /// Id of the definition in DSS; the EKS cluster has the same name.
    pub id: String,
}

/// The activity.
pub(crate) struct ClusterDefinition;

/// Of several definitions of one name, ours counts most.
pub(crate) fn rank(owner: &Owner) -> u8 {
    match owner {
        Owner::Foreign => 0,
        Owner::ThisSite(_) => 1,
        Owner::ThisRun => 2,
    }
}

/// The marks as a JSON object, for `clusterTags`.
pub(crate) fn tags(ctx: &ActivityContext) -> Value {
    let tags = ctx.marks().tags().into_iter().map(|(key, value)| (key.to_owned(), json!(value)));
    Value::Object(tags.collect::<Map<_, _>>())
}

impl ClusterInput {
    /// What is written into `params.config`, without the overlay and without our tags.
    pub(crate) fn template(&self) -> Value {
        let pool = &self.node_pool;
        json!({
            "connectionInfo": {"mode": "PRESET", "name": self.connection_preset},
            "networkingSettings": {"mode": "PRESET", "name": self.network_preset},
            "nodePool": {"mode": "INLINE", "inlinedConfig": {
                "machineType": pool.machine_type, "numNodes": pool.num_nodes,
                "numNodesAutoscaling": pool.min_nodes != pool.max_nodes,
                "minNumNodes": pool.min_nodes, "maxNumNodes": pool.max_nodes, "diskSizeGb": pool.disk_gb
            }, "inlinedPluginConfig": {}},
            "nodePools": [], "k8sVersion": self.k8s_version, "installMetricsServer": true,
            "privateCluster": false, "advanced": false
        })
    }

    fn config(&self, ctx: &ActivityContext) -> Value {
        let mut config = overlaid(self.template(), self.overlay.as_ref());
        // An overlay may add tags of its own; ours are always there.
        config["clusterTags"] = overlaid(config["clusterTags"].take(), Some(&tags(ctx)));
        config
    }
}

impl Activity for ClusterDefinition {
    type Input = ClusterInput;
    type Output = ClusterOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn execute(&self, ctx: &ActivityContext, input: &ClusterInput) -> ActivityResult<ClusterOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let found = clusters::named(&client, &input.name).await?;
        if let Some(ours) = found.iter().find(|definition| definition.owner(&ctx.marks()) == Owner::ThisRun) {
            return Ok(ClusterOutput { id: ours.id.clone() });
        }
        let body = json!({
            "name": input.name, "type": CREATE_TYPE, "architecture": "KUBERNETES",
            "params": {"config": input.config(ctx)}
        });
        let id = clusters::define(ctx, &client, &input.name, &body).await?;
        Ok(ClusterOutput { id })
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &ClusterInput,
    ) -> ActivityResult<Probe<ClusterOutput>> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let marks = ctx.marks();
        let mut best: Option<(Owner, String)> = None;
        for definition in clusters::named(&client, &input.name).await? {
            let owner = definition.owner(&marks);
            if best.as_ref().is_none_or(|(known, _)| rank(&owner) > rank(known)) {
                best = Some((owner, definition.id));
            }
        }
        Ok(match best {
            Some((owner, id)) => Probe::Present { output: ClusterOutput { id }, owner },
            None => Probe::Absent,
        })
    }

    async fn verify(
        &self,
        ctx: &ActivityContext,
        input: &ClusterInput,
        output: &ClusterOutput,
    ) -> ActivityResult<()> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let definition = clusters::by_id(&client, &output.id).await?;
        match definition {
            Some(definition) if definition.settings["type"] == CREATE_TYPE => Ok(()),
            Some(definition) => Err(ActivityError::terminal(
                "ClusterType",
                format!("cluster {} in DSS has type {}", output.id, definition.settings["type"]),
            )
            .help("choose another cluster.name, or remove that definition")),
            None => Err(ActivityError::retryable(
                "ClusterMissing",
                format!("cluster {} is not listed", output.id),
            )),
        }
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &ClusterInput,
        _recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let client = DssClient::connect(ctx, &input.target).await?;
        remove(ctx, &client, &input.name).await
    }

    fn describe(&self, input: &ClusterInput) -> String {
        let pool = &input.node_pool;
        format!(
            "cluster {} on Kubernetes {} with {} x {}",
            input.name, input.k8s_version, pool.num_nodes, pool.machine_type
        )
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}

/// Deletes every stopped definition of this name that this run made.
pub(crate) async fn remove(ctx: &ActivityContext, client: &DssClient, name: &str) -> ActivityResult<Undo> {
    let mut undo = Undo::NothingToDo;
    for definition in clusters::named(client, name).await? {
        if definition.owner(&ctx.marks()) != Owner::ThisRun {
            continue;
        }
        let id = definition.id.as_str();
        let state = match clusters::settled(ctx, client, id).await {
            // Another attempt was faster.
            Err(_) if clusters::by_id(client, id).await?.is_none() => continue,
            state => state?,
        };
        if state == ClusterState::Running {
            return Err(ActivityError::terminal(
                "ClusterRuns",
                format!("cluster {id} runs: deleting its definition would leave it running"),
            )
            .help("stop the cluster in DSS, then `dssflow rollback RUN --retry`"));
        }
        clusters::delete(client, id).await?;
        undo = Undo::Undone;
    }
    Ok(undo)
}
