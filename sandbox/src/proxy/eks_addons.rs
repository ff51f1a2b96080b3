//! EKS add-ons, and the tags of what moto does not keep.

use serde_json::{Map, Value, json};

use super::eks::{ADDON_MS, Context, error, in_use, invalid, text};
use super::overlay::{self, Addon, Look, Overlay, Phase, now_s};
use super::recognise::{Call, query_value};
use super::reply::Reply;
use super::upstream::Incoming;
use crate::aws::{ACCOUNT, REGION};

/// Add-ons on offer, each with its default version.
const ADDONS: [(&str, &str, &str); 5] = [
    ("vpc-cni", "networking", "v1.20.4-eksbuild.1"),
    ("coredns", "networking", "v1.12.4-eksbuild.1"),
    ("kube-proxy", "networking", "v1.33.3-eksbuild.4"),
    ("eks-pod-identity-agent", "security", "v1.3.9-eksbuild.3"),
    ("metrics-server", "observability", "v0.8.0-eksbuild.2"),
];

/// Answers a call about add-ons.
pub(super) fn handle(context: &mut Context<'_>, call: &Call, request: &Incoming) -> Reply {
    match answer(context, call, request) {
        Ok(reply) | Err(reply) => reply,
    }
}

fn answer(context: &mut Context<'_>, call: &Call, request: &Incoming) -> Result<Reply, Reply> {
    let part = |at: usize| call.path.get(at).cloned().unwrap_or_default();
    if call.operation == "DescribeAddonVersions" {
        return Ok(versions(request));
    }
    let (name, addon) = (part(1), part(3));
    let id = context.overlay.fresh_id();
    let creation = context.creation(ADDON_MS);
    let deletion = context.deletion();
    let body = request.json();
    let cluster = context.active(&name)?;
    let missing =
        || error(404, "ResourceNotFoundException", &format!("No addon: {addon} found in cluster: {name}"));
    match call.operation.as_str() {
        "CreateAddon" => {
            let wanted = text(&body, "addonName");
            let Some((_, _, default)) = ADDONS.iter().find(|(known, _, _)| *known == wanted) else {
                return Err(invalid(&format!("Addon {wanted} specified is not supported")));
            };
            if cluster.addons.contains_key(&wanted) {
                return Err(in_use("Addon already exists."));
            }
            let version = body["addonVersion"].as_str().unwrap_or(default);
            let mut made = json!({
                "addonName": wanted, "clusterName": name, "status": "CREATING", "addonVersion": version,
                "health": { "issues": [] }, "createdAt": now_s(), "modifiedAt": now_s(), "tags": {},
                "addonArn": format!("arn:aws:eks:{REGION}:{ACCOUNT}:addon/{name}/{wanted}/{id}"),
            });
            for key in ["tags", "serviceAccountRoleArn", "configurationValues"] {
                if !body[key].is_null() {
                    made[key] = body[key].clone();
                }
            }
            let phase = Some(Phase::new("CREATING", creation, None));
            cluster.addons.insert(wanted, Addon { body: made.clone(), phase });
            Ok(Reply::json(&json!({ "addon": made })))
        }
        "ListAddons" => {
            let names: Vec<&String> = cluster.addons.keys().collect();
            Ok(Reply::json(&json!({ "addons": names })))
        }
        "DescribeAddon" => {
            let known = cluster.addons.get_mut(&addon).ok_or_else(missing)?;
            let status = match overlay::look(&mut known.phase) {
                Look::Settled => "ACTIVE".to_owned(),
                Look::Failed => "CREATE_FAILED".to_owned(),
                Look::DeleteFailed => "DELETE_FAILED".to_owned(),
                Look::Showing(status) => status,
                Look::Gone => return Err(missing()),
            };
            let mut shown = known.body.clone();
            shown["status"] = json!(status);
            Ok(Reply::json(&json!({ "addon": shown })))
        }
        "DeleteAddon" => {
            let known = cluster.addons.get_mut(&addon).ok_or_else(missing)?;
            if !overlay::is_deletion(known.phase.as_ref()) {
                known.phase = Some(Phase::new("DELETING", deletion, None));
            }
            let mut shown = known.body.clone();
            shown["status"] = json!("DELETING");
            Ok(Reply::json(&json!({ "addon": shown })))
        }
        "UpdateAddon" => {
            let known = cluster.addons.get_mut(&addon).ok_or_else(missing)?;
            for key in ["addonVersion", "serviceAccountRoleArn", "configurationValues"] {
                if !body[key].is_null() {
                    known.body[key] = body[key].clone();
                }
            }
            let update = json!({ "id": id, "status": "InProgress", "type": "AddonUpdate", "params": [],
                                 "errors": [], "createdAt": now_s() });
            cluster.updates.insert(id, update.clone());
            Ok(Reply::json(&json!({ "update": update })))
        }
        _ => Err(error(404, "ResourceNotFoundException", "not served by the sandbox")),
    }
}

fn versions(request: &Incoming) -> Reply {
    let wanted = query_value(&request.uri, "addonName");
    let cluster_version = query_value(&request.uri, "kubernetesVersion").unwrap_or_else(|| "1.33".to_owned());
    let addons: Vec<Value> = ADDONS
        .iter()
        .filter(|(name, _, _)| wanted.as_deref().is_none_or(|wanted| wanted == *name))
        .map(|(name, kind, version)| {
            let fit = json!([{ "clusterVersion": cluster_version, "platformVersions": ["*"], "defaultVersion": true }]);
            json!({ "addonName": name, "type": kind, "owner": "aws", "publisher": "eks",
                    "addonVersions": [{ "addonVersion": version, "architecture": ["amd64", "arm64"],
                                        "compatibilities": fit }] })
        })
        .collect();
    Reply::json(&json!({ "addons": addons }))
}

/// Answers a call about the tags of an add-on or access entry; `None` for everything that moto keeps.
pub(super) fn tags(overlay: &mut Overlay, arn: &str, call: &Call, request: &Incoming) -> Option<Reply> {
    if !arn.contains(":addon/") && !arn.contains(":access-entry/") {
        return None;
    }
    let found = overlay.clusters.values_mut().find_map(|cluster| {
        let addons = cluster.addons.values_mut().map(|it| ("addonArn", &mut it.body));
        let entries = cluster.access_entries.values_mut().map(|it| ("accessEntryArn", &mut it.body));
        addons.chain(entries).find(|(key, body)| body[*key] == arn).map(|(_, body)| body)
    });
    let Some(body) = found else {
        return Some(error(404, "NotFoundException", "Resource was not found"));
    };
    if !body["tags"].is_object() {
        body["tags"] = Value::Object(Map::new());
    }
    let tags = body["tags"].as_object_mut()?;
    Some(match call.operation.as_str() {
        "TagResource" => {
            let sent = request.json()["tags"].as_object().cloned().unwrap_or_default();
            tags.extend(sent);
            Reply::json(&json!({}))
        }
        "UntagResource" => {
            for (key, value) in super::recognise::parse_form(request.uri.query().unwrap_or_default()) {
                if key == "tagKeys" {
                    tags.shift_remove(&value);
                }
            }
            Reply::json(&json!({}))
        }
        _ => Reply::json(&json!({ "tags": tags })),
    })
}
