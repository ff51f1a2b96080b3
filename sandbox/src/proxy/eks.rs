//! EKS as AWS has it: clusters and node groups that take their time, with the group and the access entries EKS makes
//! for them. moto keeps the clusters and node groups; the states are added here.
//!
//! Access entries and add-ons, which moto lacks, are in `eks_access` and `eks_addons`.

use serde_json::{Map, Value, json};

use super::overlay::{self, Cluster, End, Look, NodeGroup, Overlay, Pace, Phase};
use super::recognise::Call;
use super::reply::Reply;
use super::upstream::{Incoming, Upstream};
use super::{eks_access, eks_addons};

/// Versions the fake service makes clusters with, the default first.
const VERSIONS: [&str; 6] = ["1.33", "1.34", "1.32", "1.31", "1.30", "1.29"];
/// Those of them that cost more.
const EXTENDED: [&str; 2] = ["1.30", "1.29"];
/// Versions it no longer makes clusters with, and still tells of.
const UNSUPPORTED: [&str; 2] = ["1.28", "1.27"];
/// Seconds of a year.
const YEAR_S: i64 = 365 * 86_400;

/// Usual durations at scale 1, in milliseconds.
const CLUSTER_MS: u64 = 6_000;
const NODE_GROUP_MS: u64 = 4_000;
pub(super) const ADDON_MS: u64 = 1_500;
const DELETE_MS: u64 = 2_500;

/// What handling a call needs.
pub(super) struct Context<'a> {
    pub(super) overlay: &'a mut Overlay,
    pub(super) upstream: &'a Upstream,
    pub(super) latency: f64,
    /// A scripted state: polls and end.
    pub(super) state: Option<(u32, String)>,
}

impl Context<'_> {
    /// How long a creation takes and how it ends.
    pub(super) fn creation(&self, usual_ms: u64) -> Pace {
        match &self.state {
            Some((looks, end)) => {
                Pace { ms: 0, looks: *looks, end: if end == "FAILED" { End::Failed } else { End::Active } }
            }
            None => Pace { ms: self.scaled(usual_ms), looks: 1, end: End::Active },
        }
    }

    /// How long a deletion takes.
    pub(super) fn deletion(&self) -> Pace {
        match &self.state {
            Some((looks, end)) => {
                let fails = matches!(end.as_str(), "DELETE_FAILED" | "FAILED");
                Pace { ms: 0, looks: *looks, end: if fails { End::DeleteFailed } else { End::Gone } }
            }
            None => Pace { ms: self.scaled(DELETE_MS), looks: 1, end: End::Gone },
        }
    }

    fn scaled(&self, ms: u64) -> u64 {
        overlay::scaled(ms, self.latency)
    }

    /// A cluster that is there and ACTIVE, or the reply that says why not.
    pub(super) fn active(&mut self, name: &str) -> Result<&mut Cluster, Reply> {
        let Some(cluster) = self.overlay.clusters.get_mut(name) else { return Err(no_cluster(name)) };
        match overlay::peek(cluster.phase.as_ref()) {
            Look::Settled => Ok(cluster),
            Look::Gone => Err(no_cluster(name)),
            Look::Showing(_) | Look::Failed | Look::DeleteFailed => Err(error(
                400,
                "InvalidRequestException",
                &format!("Cluster '{name}' is not in ACTIVE status"),
            )),
        }
    }
}

/// Answers a call to EKS.
pub(super) async fn handle(context: &mut Context<'_>, call: &Call, request: &Incoming) -> Reply {
    let part = |at: usize| call.path.get(at).map_or("", String::as_str);
    let (name, item) = (part(1), part(3));
    forget_gone(context.overlay);
    match call.operation.as_str() {
        "CreateCluster" => create_cluster(context, call, request).await,
        "DescribeCluster" => describe_cluster(context, name, request).await,
        "ListClusters" => {
            let deleted =
                context.overlay.clusters.iter().filter(|(_, it)| overlay::is_deletion(it.phase.as_ref()));
            let names = deleted.map(|(name, _)| name.clone()).collect();
            with_names(context.upstream.forward(request).await, "clusters", names)
        }
        "DeleteCluster" => delete_cluster(context, name, request).await,
        "UpdateClusterConfig" => update_cluster(context, name, request).await,
        "CreateNodegroup" => create_node_group(context, name, request).await,
        "DescribeNodegroup" => describe_node_group(context, name, item, request).await,
        "ListNodegroups" => {
            let groups = context.overlay.clusters.get(name).map(|cluster| &cluster.node_groups);
            let deleted =
                groups.into_iter().flatten().filter(|(_, it)| overlay::is_deletion(it.phase.as_ref()));
            let names = deleted.map(|(name, _)| name.clone()).collect();
            with_names(context.upstream.forward(request).await, "nodegroups", names)
        }
        "DeleteNodegroup" => delete_node_group(context, name, item, request).await,
        "UpdateNodegroupConfig" => {
            let reply = context.upstream.forward(request).await;
            if !reply.is_success() {
                return reply;
            }
            update(context, name, "ConfigUpdate")
        }
        "DescribeUpdate" => {
            let cluster = context.overlay.clusters.get(name);
            match cluster.and_then(|cluster| cluster.updates.get(item)) {
                Some(update) => {
                    let mut update = update.clone();
                    update["status"] = json!("Successful");
                    Reply::json(&json!({ "update": update }))
                }
                None => error(404, "ResourceNotFoundException", &format!("No update found for ID: {item}")),
            }
        }
        "ListUpdates" => {
            let ids: Vec<&String> = context
                .overlay
                .clusters
                .get(name)
                .into_iter()
                .flat_map(|cluster| cluster.updates.keys())
                .collect();
            Reply::json(&json!({ "updateIds": ids }))
        }
        "DescribeClusterVersions" => {
            let all = super::recognise::query_value(&request.uri, "includeAll");
            Reply::json(&json!({ "clusterVersions": versions(all.as_deref() == Some("true")) }))
        }
        operation if operation.contains("Access") => eks_access::handle(context, call, request),
        operation if operation.contains("Addon") => eks_addons::handle(context, call, request),
        "TagResource" | "UntagResource" | "ListTagsForResource" => {
            let arn = call.path[1..].join("/");
            match eks_addons::tags(context.overlay, &arn, call, request) {
                Some(reply) => reply,
                None => context.upstream.forward(request).await,
            }
        }
        _ => context.upstream.forward(request).await,
    }
}

/// What `DescribeClusterVersions` tells; unsupported versions only when all are asked for, as AWS has it.
fn versions(all: bool) -> Vec<Value> {
    let now = i64::try_from(overlay::now_ms() / 1000).unwrap_or_default();
    let unsupported = UNSUPPORTED.iter().filter(|_| all);
    VERSIONS
        .iter()
        .chain(unsupported)
        .map(|version| {
            let (status, standard_ends) = match version {
                v if UNSUPPORTED.contains(v) => ("UNSUPPORTED", now - 2 * YEAR_S),
                v if EXTENDED.contains(v) => ("EXTENDED_SUPPORT", now - YEAR_S / 2),
                _ => ("STANDARD_SUPPORT", now + YEAR_S),
            };
            json!({ "clusterVersion": version, "clusterType": "eks", "defaultVersion": *version == VERSIONS[0],
                    "versionStatus": status, "status": status.to_lowercase(),
                    "endOfStandardSupportDate": standard_ends, "endOfExtendedSupportDate": standard_ends + YEAR_S })
        })
        .collect()
}

/// Drops what is deleted and was seen so for long enough.
fn forget_gone(overlay: &mut Overlay) {
    let gone = |phase: &Option<Phase>| overlay::peek(phase.as_ref()) == Look::Gone;
    overlay.clusters.retain(|_, cluster| !gone(&cluster.phase));
    for cluster in overlay.clusters.values_mut() {
        cluster.node_groups.retain(|_, group| !gone(&group.phase));
        cluster.addons.retain(|_, addon| !gone(&addon.phase));
    }
}

async fn create_cluster(context: &mut Context<'_>, call: &Call, request: &Incoming) -> Reply {
    let mut body = request.json();
    let name = text(&body, "name");
    if let Some(cluster) = context.overlay.clusters.get(&name)
        && overlay::is_deletion(cluster.phase.as_ref())
    {
        return in_use(&format!("Cluster already exists with name: {name}"));
    }
    if body["version"].as_str().is_none_or(str::is_empty) {
        body["version"] = json!(VERSIONS[0]);
    } else if !VERSIONS.contains(&text(&body, "version").as_str()) {
        return invalid("unsupported Kubernetes version");
    }
    let vpc_id = match check_subnets(context.upstream, &body["resourcesVpcConfig"]["subnetIds"]).await {
        Ok(vpc_id) => vpc_id,
        Err(reply) => return reply,
    };
    let reply = context.upstream.forward(&request.with_json(&body)).await;
    if !reply.is_success() {
        return reply;
    }
    let mode = body["accessConfig"]["authenticationMode"].as_str().unwrap_or("CONFIG_MAP").to_owned();
    let security_group = cluster_security_group(context.upstream, &name, &vpc_id).await;
    let phase = Phase::new("CREATING", context.creation(CLUSTER_MS), None);
    let cluster = Cluster {
        phase: Some(phase),
        authentication_mode: mode.clone(),
        security_group,
        vpc_id,
        ..Cluster::default()
    };
    context.overlay.clusters.insert(name.clone(), cluster);
    let bootstrap = body["accessConfig"]["bootstrapClusterCreatorAdminPermissions"].as_bool().unwrap_or(true);
    if bootstrap
        && mode != "CONFIG_MAP"
        && let Some(creator) = context.upstream.caller(&call.access_key).await
    {
        eks_access::creator(context.overlay, &name, &creator);
    }
    let cluster = &context.overlay.clusters[&name];
    shown(reply, "cluster", |it| dress_cluster(it, cluster, &Look::Showing("CREATING".to_owned())))
}

async fn describe_cluster(context: &mut Context<'_>, name: &str, request: &Incoming) -> Reply {
    let Some(cluster) = context.overlay.clusters.get_mut(name) else {
        return context.upstream.forward(request).await;
    };
    let seen = overlay::look(&mut cluster.phase);
    if overlay::is_deletion(cluster.phase.as_ref()) {
        let last = cluster.phase.as_ref().and_then(|phase| phase.last.clone()).unwrap_or_default();
        return if seen == Look::Gone { no_cluster(name) } else { Reply::json(&json!({ "cluster": last })) };
    }
    let cluster = cluster.clone();
    let reply = context.upstream.forward(request).await;
    shown(reply, "cluster", |it| dress_cluster(it, &cluster, &seen))
}

async fn delete_cluster(context: &mut Context<'_>, name: &str, request: &Incoming) -> Reply {
    let Some(cluster) = context.overlay.clusters.get(name) else {
        return context.upstream.forward(request).await;
    };
    if overlay::is_deletion(cluster.phase.as_ref()) {
        let last = cluster.phase.as_ref().and_then(|phase| phase.last.clone()).unwrap_or_default();
        return Reply::json(&json!({ "cluster": last }));
    }
    if !cluster.node_groups.is_empty() {
        return in_use("Cluster has nodegroups attached");
    }
    if let Look::Showing(status) = overlay::peek(cluster.phase.as_ref()) {
        return in_use(&format!(
            "Cannot delete because cluster {name} currently has an update in progress ({status})"
        ));
    }
    let cluster = cluster.clone();
    let pace = context.deletion();
    if pace.end == End::DeleteFailed {
        let reply = context.upstream.forward(&request.as_get()).await;
        if reply.is_success()
            && let Some(known) = context.overlay.clusters.get_mut(name)
        {
            known.phase = Some(Phase::new("DELETING", pace, None));
        }
        return shown(reply, "cluster", |it| {
            dress_cluster(it, &cluster, &Look::Showing("DELETING".to_owned()));
        });
    }
    let reply = context.upstream.forward(request).await;
    if !reply.is_success() {
        return reply;
    }
    if !cluster.security_group.is_empty() {
        let group = [("GroupId", cluster.security_group.as_str())];
        if let Err(error) = context.upstream.aws().query("ec2", "DeleteSecurityGroup", &group).await {
            tracing::warn!(error = %error, "the cluster's security group stays, as it does in AWS when it is in use");
        }
    }
    let showing = Look::Showing("DELETING".to_owned());
    let reply = shown(reply, "cluster", |it| dress_cluster(it, &cluster, &showing));
    let phase = Phase::new("DELETING", pace, Some(reply.value()["cluster"].clone()));
    context.overlay.clusters.insert(name.to_owned(), Cluster { phase: Some(phase), ..Cluster::default() });
    reply
}

async fn update_cluster(context: &mut Context<'_>, name: &str, request: &Incoming) -> Reply {
    let mut body = request.json();
    let mode = body["accessConfig"]["authenticationMode"].as_str().map(str::to_owned);
    let cluster = match context.active(name) {
        Ok(cluster) => cluster,
        Err(reply) => return reply,
    };
    if let Some(mode) = mode {
        if mode == "CONFIG_MAP" {
            return invalid("Unsupported authentication mode update from API_AND_CONFIG_MAP to CONFIG_MAP");
        }
        cluster.authentication_mode = mode;
        return update(context, name, "AccessConfigUpdate");
    }
    // moto would put the sent part in the place of the whole.
    if let Some(sent) = body["resourcesVpcConfig"].as_object().cloned() {
        let path = format!("/clusters/{name}");
        let now = context.upstream.aws().eks(reqwest::Method::GET, &path, None).await.unwrap_or_default();
        let mut whole = now["cluster"]["resourcesVpcConfig"].as_object().cloned().unwrap_or_default();
        whole.extend(sent);
        body["resourcesVpcConfig"] = Value::Object(whole);
    }
    let reply = context.upstream.forward(&request.with_json(&body)).await;
    if reply.is_success() { update(context, name, "EndpointAccessUpdate") } else { reply }
}

async fn create_node_group(context: &mut Context<'_>, cluster: &str, request: &Incoming) -> Reply {
    let mut body = request.json();
    let name = text(&body, "nodegroupName");
    let mode = match context.active(cluster) {
        Ok(known)
            if known.node_groups.get(&name).is_some_and(|it| overlay::is_deletion(it.phase.as_ref())) =>
        {
            return in_use(&format!("NodeGroup already exists with name {name} and cluster name {cluster}"));
        }
        Ok(known) => known.authentication_mode.clone(),
        Err(reply) => return reply,
    };
    if body["version"].as_str().is_none_or(str::is_empty) {
        let path = format!("/clusters/{cluster}");
        let now = context.upstream.aws().eks(reqwest::Method::GET, &path, None).await.unwrap_or_default();
        body["version"] = now["cluster"]["version"].clone();
    }
    let reply = context.upstream.forward(&request.with_json(&body)).await;
    if !reply.is_success() {
        return reply;
    }
    let node_role = text(&body, "nodeRole");
    if mode != "CONFIG_MAP" {
        eks_access::node_role(context.overlay, cluster, &node_role);
    }
    let phase = Some(Phase::new("CREATING", context.creation(NODE_GROUP_MS), None));
    if let Some(known) = context.overlay.clusters.get_mut(cluster) {
        known.node_groups.insert(name, NodeGroup { phase, node_role });
    }
    shown(reply, "nodegroup", |it| dress_node_group(it, &Look::Showing("CREATING".to_owned())))
}

async fn describe_node_group(
    context: &mut Context<'_>,
    cluster: &str,
    name: &str,
    request: &Incoming,
) -> Reply {
    let known = context.overlay.clusters.get_mut(cluster).and_then(|it| it.node_groups.get_mut(name));
    let Some(group) = known else { return context.upstream.forward(request).await };
    let seen = overlay::look(&mut group.phase);
    if overlay::is_deletion(group.phase.as_ref()) {
        let last = group.phase.as_ref().and_then(|phase| phase.last.clone()).unwrap_or_default();
        return if seen == Look::Gone {
            error(404, "ResourceNotFoundException", &format!("No node group found for name: {name}."))
        } else {
            Reply::json(&json!({ "nodegroup": last }))
        };
    }
    let reply = context.upstream.forward(request).await;
    shown(reply, "nodegroup", |it| dress_node_group(it, &seen))
}

async fn delete_node_group(
    context: &mut Context<'_>,
    cluster: &str,
    name: &str,
    request: &Incoming,
) -> Reply {
    let known = context.overlay.clusters.get_mut(cluster).and_then(|it| it.node_groups.get_mut(name));
    if let Some(group) = known
        && overlay::is_deletion(group.phase.as_ref())
    {
        let last = group.phase.as_ref().and_then(|phase| phase.last.clone()).unwrap_or_default();
        return Reply::json(&json!({ "nodegroup": last }));
    }
    let pace = context.deletion();
    if pace.end == End::DeleteFailed {
        let reply = context.upstream.forward(&request.as_get()).await;
        let known = context.overlay.clusters.get_mut(cluster).and_then(|it| it.node_groups.get_mut(name));
        if reply.is_success()
            && let Some(group) = known
        {
            group.phase = Some(Phase::new("DELETING", pace, None));
        }
        return shown(reply, "nodegroup", |it| dress_node_group(it, &Look::Showing("DELETING".to_owned())));
    }
    let reply = context.upstream.forward(request).await;
    if !reply.is_success() {
        return reply;
    }
    let reply = shown(reply, "nodegroup", |it| dress_node_group(it, &Look::Showing("DELETING".to_owned())));
    let phase = Some(Phase::new("DELETING", pace, Some(reply.value()["nodegroup"].clone())));
    if let Some(known) = context.overlay.clusters.get_mut(cluster)
        && let Some(group) = known.node_groups.get_mut(name)
    {
        let role = group.node_role.clone();
        group.phase = phase;
        eks_access::node_role_unused(known, &role);
    }
    reply
}

/// Records an update and answers with it.
fn update(context: &mut Context<'_>, cluster: &str, kind: &str) -> Reply {
    let id = context.overlay.fresh_id();
    let body = json!({ "id": id, "status": "InProgress", "type": kind, "params": [], "errors": [],
                       "createdAt": overlay::now_s() });
    if let Some(known) = context.overlay.clusters.get_mut(cluster) {
        known.updates.insert(id, body.clone());
    }
    Reply::json(&json!({ "update": body }))
}

/// Adds what moto does not know of a cluster.
fn dress_cluster(it: &mut Map<String, Value>, cluster: &Cluster, seen: &Look) {
    it.insert(
        "accessConfig".to_owned(),
        json!({ "authenticationMode": cluster.authentication_mode, "bootstrapClusterCreatorAdminPermissions": true }),
    );
    if let Some(network) = it.get_mut("resourcesVpcConfig").and_then(Value::as_object_mut) {
        network.insert("clusterSecurityGroupId".to_owned(), json!(cluster.security_group));
        network.insert("vpcId".to_owned(), json!(cluster.vpc_id));
    }
    match seen {
        Look::Settled | Look::Gone => {}
        Look::Failed | Look::DeleteFailed => {
            it.insert("status".to_owned(), json!("FAILED"));
            let issue = json!({ "code": "InternalFailure", "message": "the sandbox was told to fail", "resourceIds": [] });
            it.insert("health".to_owned(), json!({ "issues": [issue] }));
        }
        Look::Showing(status) => {
            if status == "CREATING" {
                it.remove("endpoint");
                it.remove("certificateAuthority");
                it.remove("identity");
            }
            it.insert("status".to_owned(), json!(status));
        }
    }
}

fn dress_node_group(it: &mut Map<String, Value>, seen: &Look) {
    match seen {
        Look::Settled | Look::Gone => {}
        Look::Failed => {
            it.insert("status".to_owned(), json!("CREATE_FAILED"));
            let message = "Instances failed to join the kubernetes cluster";
            let issue = json!({ "code": "NodeCreationFailure", "message": message, "resourceIds": [] });
            it.insert("health".to_owned(), json!({ "issues": [issue] }));
        }
        Look::DeleteFailed => {
            it.insert("status".to_owned(), json!("DELETE_FAILED"));
            let message = "The security group of the node group is in use";
            let issue =
                json!({ "code": "Ec2SecurityGroupDeletionFailure", "message": message, "resourceIds": [] });
            it.insert("health".to_owned(), json!({ "issues": [issue] }));
        }
        Look::Showing(status) => {
            it.insert("status".to_owned(), json!(status));
        }
    }
}

/// Changes the object under `key` in a good reply.
fn shown(reply: Reply, key: &str, change: impl FnOnce(&mut Map<String, Value>)) -> Reply {
    let mut value = reply.value();
    match value.get_mut(key).and_then(Value::as_object_mut) {
        Some(object) if reply.is_success() => change(object),
        _ => return reply,
    }
    Reply { body: value.to_string().into(), ..reply }
}

fn with_names(reply: Reply, key: &str, more: Vec<String>) -> Reply {
    let mut value = reply.value();
    let Some(names) = value.get_mut(key).and_then(Value::as_array_mut) else { return reply };
    names.extend(more.into_iter().map(Value::String));
    Reply { body: value.to_string().into(), ..reply }
}

/// The VPC of the subnets, or the refusal of EKS.
async fn check_subnets(upstream: &Upstream, subnets: &Value) -> Result<String, Reply> {
    let ids: Vec<&str> = subnets.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if ids.is_empty() {
        return Err(invalid("Atleast two subnets in different AZs are required"));
    }
    let keys: Vec<String> = (1..=ids.len()).map(|at| format!("SubnetId.{at}")).collect();
    let params: Vec<(&str, &str)> = keys.iter().map(String::as_str).zip(ids.iter().copied()).collect();
    let found = upstream.aws().query("ec2", "DescribeSubnets", &params).await;
    let found =
        found.map_err(|_| invalid(&format!("The subnet ID '{}' does not exist", ids.join("', '"))))?;
    let found = crate::xml::list(&found, &["subnetSet"]);
    let mut zones: Vec<&str> =
        found.iter().filter_map(|subnet| subnet["availabilityZone"].as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    if zones.len() < 2 {
        return Err(invalid("Subnets specified must be in at least two different AZs"));
    }
    Ok(found.first().and_then(|subnet| subnet["vpcId"].as_str()).unwrap_or_default().to_owned())
}

/// Makes the security group that EKS makes for a cluster.
async fn cluster_security_group(upstream: &Upstream, cluster: &str, vpc_id: &str) -> String {
    let name = format!("eks-cluster-sg-{cluster}");
    let owned = format!("kubernetes.io/cluster/{cluster}");
    let params = [
        ("GroupName", name.as_str()),
        (
            "GroupDescription",
            "EKS created security group applied to ENI that is attached to EKS Control Plane",
        ),
        ("VpcId", vpc_id),
        ("TagSpecification.1.ResourceType", "security-group"),
        ("TagSpecification.1.Tag.1.Key", "Name"),
        ("TagSpecification.1.Tag.1.Value", name.as_str()),
        ("TagSpecification.1.Tag.2.Key", owned.as_str()),
        ("TagSpecification.1.Tag.2.Value", "owned"),
        ("TagSpecification.1.Tag.3.Key", "aws:eks:cluster-name"),
        ("TagSpecification.1.Tag.3.Value", cluster),
    ];
    match upstream.aws().query("ec2", "CreateSecurityGroup", &params).await {
        Ok(made) => {
            let group = made["groupId"].as_str().unwrap_or_default().to_owned();
            // EKS lets nodes and control plane, which share it, reach each other.
            let own = [
                ("GroupId", group.as_str()),
                ("IpPermissions.1.IpProtocol", "-1"),
                ("IpPermissions.1.Groups.1.GroupId", group.as_str()),
            ];
            if let Err(error) = upstream.aws().query("ec2", "AuthorizeSecurityGroupIngress", &own).await {
                tracing::warn!(error = %error, "the cluster's group lets nobody through");
            }
            group
        }
        Err(error) => {
            tracing::warn!(error = %error, "no security group for the cluster");
            String::new()
        }
    }
}

pub(super) fn text(body: &Value, key: &str) -> String {
    body[key].as_str().unwrap_or_default().to_owned()
}

pub(super) fn error(status: u16, code: &str, message: &str) -> Reply {
    Reply::error("eks", status, code, message)
}

pub(super) fn in_use(message: &str) -> Reply {
    error(409, "ResourceInUseException", message)
}

pub(super) fn invalid(message: &str) -> Reply {
    error(400, "InvalidParameterException", message)
}

pub(super) fn no_cluster(name: &str) -> Reply {
    error(404, "ResourceNotFoundException", &format!("No cluster found for name: {name}."))
}
