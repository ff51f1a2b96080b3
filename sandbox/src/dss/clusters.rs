//! Cluster definitions and their start and stop.
//!
//! Start is one long synchronous call, as in the real product. What it runs goes on when the caller hangs up.
//! The id is made from the name, and a second definition of the same name gets another id: nothing protects a
//! client from making two. Deleting a definition does not stop the cluster.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::FakeDss;
use super::backend::{ClusterInfo, ClusterSpec, NodePool};
use super::behaviour::StartReply;
use super::plugins::{EKS, preset, unknown_route};
use super::pods::complained;
use super::reply::{Answer, Call, Course, Refusal, Reply, messages, ok};
use super::state::{Cluster, ClusterState, State};

/// Creates an EKS cluster with `eksctl`.
const CREATE: &str = "pycluster_eks-clusters_create-eks-cluster";
/// Attaches to an existing EKS cluster.
const ATTACH: &str = "pycluster_eks-clusters_attach-eks-cluster";

/// What a start or stop has to do outside.
enum Work {
    Create(ClusterSpec),
    Describe(String),
    Delete { name: String, region: String },
    Nothing,
}

impl FakeDss {
    pub(super) fn clusters(&self, call: &Call) -> Answer {
        if call.method == "GET" {
            let list: Vec<Cluster> = self.read(|state| state.clusters.values().cloned().collect());
            let list: Vec<Value> =
                list.iter().map(|cluster| summary(cluster, self.shown_state(cluster))).collect();
            return ok(json!(list));
        }
        let body = call.json()?;
        let name = Call::text(&body, "name")?;
        let kind = body["type"].as_str().unwrap_or("manual").to_owned();
        let id = self.try_write(|state| {
            if kind.starts_with("pycluster_") && (![CREATE, ATTACH].contains(&kind.as_str()) || !state.plugins.contains_key(EKS)) {
                return Err(Refusal::illegal(format!("Unknown cluster type: {kind}")));
            }
            let id = free_id(state, &slug(&name));
            let settings = json!({
                "id": id, "name": name, "type": kind, "architecture": body["architecture"].as_str().unwrap_or("HADOOP"),
                "owner": call.key_id, "permissions": [], "usableByAll": true,
                "params": body.get("params").cloned().unwrap_or_else(|| json!({"config": {}})), "data": null,
                "containerSettings": {"executionConfigsGenericOverrides": {}}, "description": ""
            });
            state.clusters.insert(id.clone(), Cluster { settings, state: ClusterState::None, error: None, pods: BTreeMap::new() });
            Ok(id)
        })?;
        ok(json!({"id": id, "messages": messages(None)}))
    }

    pub(super) async fn cluster(&self, call: &Call, id: &str, rest: &[&str]) -> Answer {
        match (call.method.as_str(), rest) {
            ("GET", []) => {
                let cluster = self.read(|state| find(state, id).cloned())?;
                let state = self.shown_state(&cluster);
                let mut settings = cluster.settings;
                settings["state"] = json!(state);
                ok(settings)
            }
            ("PUT", []) => self.cluster_save(call, id),
            ("DELETE", []) => {
                self.try_write(|state| state.clusters.remove(id).ok_or_else(|| missing(id)))?;
                Ok(Reply::Empty)
            }
            ("GET", ["status"]) => {
                let cluster = self.read(|state| find(state, id).cloned())?;
                ok(json!({"state": self.shown_state(&cluster), "error": cluster.error, "usages": []}))
            }
            ("POST", ["actions", "start"]) => self.cluster_start(call, id).await,
            ("POST", ["actions", "stop"]) => self.cluster_stop(call, id).await,
            ("POST", ["k8s", "actions", "run-kubectl"]) => self.kubectl(call, id).await,
            _ => Err(unknown_route(call)),
        }
    }

    /// The state it shows: a start under way may go unseen.
    fn shown_state(&self, cluster: &Cluster) -> ClusterState {
        match cluster.state {
            ClusterState::Starting if !self.behaviour().shows_starting => ClusterState::None,
            state => state,
        }
    }

    fn cluster_save(&self, call: &Call, id: &str) -> Answer {
        let body = call.json()?;
        self.try_write(|state| {
            let cluster = state.clusters.get_mut(id).ok_or_else(|| missing(id))?;
            for key in
                ["params", "permissions", "usableByAll", "containerSettings", "data", "description", "owner"]
            {
                if let Some(value) = body.get(key) {
                    cluster.settings[key] = value.clone();
                }
            }
            Ok(())
        })?;
        ok(json!({}))
    }

    async fn cluster_start(&self, call: &Call, id: &str) -> Answer {
        let reply = self.behaviour().cluster_start;
        let scripted = matches!(call.course, Some(Course { fails: true, .. })) || reply == StartReply::Fails;
        let work = self.try_write(|state| {
            let cluster = find(state, id)?;
            if cluster.state != ClusterState::None {
                let text = format!("Cluster {id} is in state {}, cannot start it", json!(cluster.state));
                return Err(Refusal::broken("java.lang.IllegalStateException", text));
            }
            let work = plan_start(state, id, &find(state, id)?.settings);
            let cluster = state.clusters.get_mut(id).ok_or_else(|| missing(id))?;
            cluster.state = ClusterState::Starting;
            cluster.error = None;
            Ok(work)
        })?;
        let (tell, told) = oneshot::channel();
        let (dss, id, life) = (self.clone(), id.to_owned(), self.life());
        tokio::spawn(async move {
            let outcome = match (work, scripted) {
                (Err(message), _) => Err(message),
                (Ok(_), true) => Err("eksctl failed, as scripted".to_owned()),
                (Ok(Work::Create(spec)), false) => dss.backend().create(spec).await,
                (Ok(Work::Describe(name)), false) => match dss.backend().describe(name.clone()).await {
                    Ok(Some(info)) if info.status == "ACTIVE" => Ok(info),
                    Ok(Some(info)) => Err(format!("cluster {name} is {}", info.status)),
                    Ok(None) => Err(format!("No cluster found for name: {name} (ResourceNotFoundException)")),
                    Err(message) => Err(message),
                },
                (Ok(Work::Delete { .. } | Work::Nothing), false) => Err("nothing to start".to_owned()),
            };
            dss.started(&id, life, &outcome);
            // The caller may have hung up long ago.
            let _gone = tell.send(outcome.map(|_| ()));
        });
        match reply {
            StartReply::Hangs => return Ok(Reply::Never),
            StartReply::Drops => return Ok(Reply::Dropped),
            StartReply::Answers | StartReply::Fails => {}
        }
        match told.await {
            Ok(Ok(())) => ok(json!({"messages": messages(None)})),
            Ok(Err(message)) => {
                ok(json!({"messages": messages(Some(("ERR_CLUSTERS_START_FAILED", &message)))}))
            }
            Err(_) => Err(Refusal::broken("java.lang.InterruptedException", "the start was interrupted")),
        }
    }

    /// Writes the end of a start, unless DSS was restarted meanwhile.
    fn started(&self, id: &str, life: u64, outcome: &Result<ClusterInfo, String>) {
        self.write(|state| {
            let Some(cluster) = state.clusters.get_mut(id) else { return };
            if life != self.life() || cluster.state != ClusterState::Starting {
                return;
            }
            match outcome {
                Ok(info) => {
                    cluster.state = ClusterState::Running;
                    cluster.settings["data"] = json!({
                        "kube_config_path": format!("clusters/{id}/exec/kube_config"),
                        "cluster": {"Name": info.name, "Arn": info.arn, "Endpoint": info.endpoint, "Version": info.version}
                    });
                    cluster.settings["containerSettings"]["executionConfigsGenericOverrides"] = json!({
                        "kubeCtlContext": info.name, "kubeConfigPath": format!("clusters/{id}/exec/kube_config"), "properties": []
                    });
                }
                Err(message) => {
                    cluster.state = ClusterState::None;
                    cluster.error = Some(message.clone());
                }
            }
        });
    }

    async fn cluster_stop(&self, call: &Call, id: &str) -> Answer {
        let (terminate, force) = (call.flag("terminate"), call.flag("forceStop"));
        let work = self.try_write(|state| {
            let cluster = find(state, id)?;
            match cluster.state {
                ClusterState::Running => {}
                ClusterState::None if force => {}
                ClusterState::None | ClusterState::Starting | ClusterState::Stopping => {
                    let text = format!("Cluster {id} is in state {}, cannot stop it", json!(cluster.state));
                    return Err(Refusal::broken("java.lang.IllegalStateException", text));
                }
            }
            let work = match cluster.settings["type"].as_str() {
                Some(CREATE) => {
                    Work::Delete { name: id.to_owned(), region: region(state, &cluster.settings) }
                }
                _ => Work::Nothing,
            };
            let cluster = state.clusters.get_mut(id).ok_or_else(|| missing(id))?;
            cluster.state = ClusterState::Stopping;
            Ok(work)
        })?;
        let (tell, told) = oneshot::channel();
        let (dss, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            let outcome = match work {
                Work::Delete { name, region } => dss.backend().delete(name, region).await,
                Work::Create(_) | Work::Describe(_) | Work::Nothing => Ok(()),
            };
            dss.write(|state| {
                if let Some(cluster) = state.clusters.get_mut(&id) {
                    cluster.state = ClusterState::None;
                    cluster.settings["data"] = Value::Null;
                    cluster.pods.clear();
                    cluster.settings["containerSettings"]["executionConfigsGenericOverrides"] = json!({});
                    cluster.error = outcome.as_ref().err().cloned();
                }
                if terminate && outcome.is_ok() {
                    state.clusters.remove(&id);
                }
            });
            let _gone = tell.send(outcome);
        });
        match told.await {
            Ok(Ok(())) => ok(json!({"messages": messages(None)})),
            Ok(Err(message)) => {
                ok(json!({"messages": messages(Some(("ERR_CLUSTERS_STOP_FAILED", &message)))}))
            }
            Err(_) => Err(Refusal::broken("java.lang.InterruptedException", "the stop was interrupted")),
        }
    }

    async fn kubectl(&self, call: &Call, id: &str) -> Answer {
        let args = Call::text(&call.json()?, "args")?;
        let name = self.read(|state| {
            let cluster = find(state, id)?;
            match cluster.state {
                ClusterState::Running => Ok(eks_name(id, &cluster.settings)),
                _ => Err(Refusal::broken(
                    "java.lang.IllegalStateException",
                    format!("Cluster {id} is not running"),
                )),
            }
        })?;
        let words: Vec<&str> = args.split_whitespace().collect();
        if let Some(answer) = self.pods(id, &words) {
            return answer;
        }
        if words.first() != Some(&"get") || !matches!(words.get(1), Some(&"nodes" | &"node" | &"no")) {
            return complained(format!("error: the sandbox cannot run: kubectl {args}"));
        }
        match self.backend().nodes(name).await {
            Err(message) => complained(message),
            Ok(nodes) => {
                let items: Vec<Value> = nodes
                    .iter()
                    .map(|node| {
                        json!({
                            "apiVersion": "v1", "kind": "Node",
                            "metadata": {"name": node.name, "labels": {"node.kubernetes.io/instance-type": node.instance_type}},
                            "status": {"conditions": [{"type": "Ready", "status": if node.ready { "True" } else { "False" }}],
                                       "nodeInfo": {"kubeletVersion": node.version}}
                        })
                    })
                    .collect();
                let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
                ok(json!({"returnValue": 0, "output": list.to_string(), "error": ""}))
            }
        }
    }
}

fn find<'a>(state: &'a State, id: &str) -> Result<&'a Cluster, Refusal> {
    state.clusters.get(id).ok_or_else(|| missing(id))
}

pub(super) fn missing(id: &str) -> Refusal {
    Refusal::missing(format!("Cluster does not exist: {id}"))
}

fn summary(cluster: &Cluster, state: ClusterState) -> Value {
    let settings = &cluster.settings;
    json!({
        "id": settings["id"], "name": settings["name"], "type": settings["type"],
        "architecture": settings["architecture"], "state": state
    })
}

fn slug(name: &str) -> String {
    let dashed: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    dashed.trim_matches('-').to_owned()
}

fn free_id(state: &State, wanted: &str) -> String {
    let candidates = std::iter::once(wanted.to_owned()).chain((2..).map(|n| format!("{wanted}-{n}")));
    candidates.into_iter().find(|id| !state.clusters.contains_key(id)).expect("the candidates never end")
}

/// The EKS name behind a definition: its own id, or the one it is attached to.
fn eks_name(id: &str, settings: &Value) -> String {
    match settings["type"].as_str() {
        Some(ATTACH) => {
            settings.pointer("/params/config/clusterId").and_then(Value::as_str).unwrap_or(id).to_owned()
        }
        _ => id.to_owned(),
    }
}

/// A parameter set as the plugin receives it: presets resolved, inline values unpacked, `NONE` empty.
fn resolve(state: &State, set: &str, reference: &Value) -> Result<Value, String> {
    match reference["mode"].as_str() {
        Some("PRESET") => {
            let name = reference["name"].as_str().unwrap_or_default();
            preset(state, set, name).ok_or_else(|| format!("Preset '{name}' of {set} does not exist"))
        }
        Some("INLINE") => Ok(reference["inlinedConfig"].clone()),
        _ => Ok(json!({})),
    }
}

fn region(state: &State, settings: &Value) -> String {
    let info = resolve(state, "connection-info", &settings["params"]["config"]["connectionInfo"])
        .unwrap_or_default();
    info["region"].as_str().unwrap_or_default().to_owned()
}

fn plan_start(state: &State, id: &str, settings: &Value) -> Result<Work, String> {
    let plugin = state.plugins.get(EKS).ok_or("plugin eks-clusters is not installed")?;
    if plugin.code_env.is_none() {
        return Err("Not a file: code-envs/desc/python/plugin_eks-clusters_managed/desc.json".to_owned());
    }
    let config = &settings["params"]["config"];
    match settings["type"].as_str() {
        Some(ATTACH) => Ok(Work::Describe(eks_name(id, settings))),
        Some(CREATE) => {
            if config.get("networkingSettings").is_none() {
                return Err("KeyError: 'networkingSettings'".to_owned());
            }
            let info = resolve(state, "connection-info", &config["connectionInfo"])?;
            let network = resolve(state, "networking-settings", &config["networkingSettings"])?;
            let pool = resolve(state, "node-pool-request", &config["nodePool"])?;
            Ok(Work::Create(spec(id, config, &info, &network, &pool)))
        }
        _ => Err("this cluster type cannot be started".to_owned()),
    }
}

fn spec(id: &str, config: &Value, info: &Value, network: &Value, pool: &Value) -> ClusterSpec {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let number =
        |key: &str, default: u32| pool[key].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
    let nodes = number("numNodes", 3);
    let scales = pool["numNodesAutoscaling"] == true;
    let tags: BTreeMap<String, String> = config["clusterTags"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect();
    ClusterSpec {
        name: id.to_owned(),
        region: info["region"].as_str().unwrap_or_default().to_owned(),
        subnets: texts(&network["subnets"]),
        security_groups: texts(&network["securityGroups"]),
        version: config["k8sVersion"].as_str().unwrap_or_default().to_owned(),
        tags,
        node_pool: NodePool {
            machine_type: pool["machineType"].as_str().unwrap_or("m7i.4xlarge").to_owned(),
            num_nodes: nodes,
            min: if scales { number("minNumNodes", 2) } else { nodes },
            max: if scales { number("maxNumNodes", 5) } else { nodes },
            disk_gb: number("diskSizeGb", 200),
        },
    }
}
