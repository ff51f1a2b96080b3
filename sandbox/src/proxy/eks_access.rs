//! EKS access entries and the policies associated with them, which moto lacks.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::eks::{Context, error, in_use, invalid, text};
use super::overlay::{AccessEntry, Cluster, Overlay, now_s};
use super::recognise::Call;
use super::reply::Reply;
use super::upstream::Incoming;
use crate::aws::{ACCOUNT, REGION};

const ADMIN: &str = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy";
const POLICIES: [&str; 5] = [
    "AmazonEKSClusterAdminPolicy",
    "AmazonEKSAdminPolicy",
    "AmazonEKSAdminViewPolicy",
    "AmazonEKSEditPolicy",
    "AmazonEKSViewPolicy",
];

/// Answers a call about access entries.
pub(super) fn handle(context: &mut Context<'_>, call: &Call, request: &Incoming) -> Reply {
    match answer(context, call, request) {
        Ok(reply) | Err(reply) => reply,
    }
}

fn answer(context: &mut Context<'_>, call: &Call, request: &Incoming) -> Result<Reply, Reply> {
    let part = |at: usize| call.path.get(at).cloned().unwrap_or_default();
    if call.operation == "ListAccessPolicies" {
        let all: Vec<Value> =
            POLICIES.iter().map(|name| json!({ "name": name, "arn": policy_arn(name) })).collect();
        return Ok(Reply::json(&json!({ "accessPolicies": all })));
    }
    let (name, principal) = (part(1), part(3));
    let id = context.overlay.fresh_id();
    let cluster = context.active(&name)?;
    if cluster.authentication_mode == "CONFIG_MAP" {
        return Err(error(
            400,
            "InvalidRequestException",
            "The cluster's authentication mode must be set to one of [API, API_AND_CONFIG_MAP] to perform this operation.",
        ));
    }
    let body = request.json();
    match call.operation.as_str() {
        "CreateAccessEntry" => create(cluster, &name, &body, &id),
        "ListAccessEntries" => {
            let entries: Vec<&String> = cluster.access_entries.keys().collect();
            Ok(Reply::json(&json!({ "accessEntries": entries })))
        }
        "DeleteAccessEntry" => {
            cluster.access_entries.remove(&principal).ok_or_else(|| missing(&principal))?;
            Ok(Reply::json(&json!({})))
        }
        operation => {
            let entry = cluster.access_entries.get_mut(&principal).ok_or_else(|| missing(&principal))?;
            about_entry(operation, entry, &name, &principal, &part(5), &body)
        }
    }
}

fn create(cluster: &mut Cluster, name: &str, body: &Value, id: &str) -> Result<Reply, Reply> {
    let principal = text(body, "principalArn");
    if !principal.starts_with("arn:aws:iam::")
        || !(principal.contains(":role/") || principal.contains(":user/"))
    {
        return Err(invalid("The specified principalArn is invalid: invalid principal."));
    }
    if cluster.access_entries.contains_key(&principal) {
        return Err(in_use("The specified access entry resource is already in use on this cluster."));
    }
    let kind = body["type"].as_str().unwrap_or("STANDARD");
    let mut made = entry(name, &principal, kind, id);
    for key in ["tags", "kubernetesGroups", "username"] {
        if !body[key].is_null() {
            made.body[key] = body[key].clone();
        }
    }
    let reply = Reply::json(&json!({ "accessEntry": made.body }));
    cluster.access_entries.insert(principal, made);
    Ok(reply)
}

fn about_entry(
    operation: &str,
    entry: &mut AccessEntry,
    cluster: &str,
    principal: &str,
    policy: &str,
    body: &Value,
) -> Result<Reply, Reply> {
    let about = |mut value: Value| {
        value["clusterName"] = json!(cluster);
        value["principalArn"] = json!(principal);
        Reply::json(&value)
    };
    match operation {
        "DescribeAccessEntry" => Ok(Reply::json(&json!({ "accessEntry": entry.body }))),
        "UpdateAccessEntry" => {
            for key in ["kubernetesGroups", "username"] {
                if !body[key].is_null() {
                    entry.body[key] = body[key].clone();
                }
            }
            entry.body["modifiedAt"] = now_s();
            Ok(Reply::json(&json!({ "accessEntry": entry.body })))
        }
        "AssociateAccessPolicy" => {
            if entry.body["type"] != "STANDARD" {
                return Err(error(
                    400,
                    "InvalidRequestException",
                    "Access policies can only be associated with access entries of type STANDARD.",
                ));
            }
            let arn = text(body, "policyArn");
            if !POLICIES.iter().any(|name| policy_arn(name) == arn) {
                return Err(error(
                    404,
                    "ResourceNotFoundException",
                    "The specified policyArn could not be found.",
                ));
            }
            let made = json!({ "policyArn": arn, "accessScope": body["accessScope"], "associatedAt": now_s(),
                               "modifiedAt": now_s() });
            entry.policies.insert(arn, made.clone());
            Ok(about(json!({ "associatedAccessPolicy": made })))
        }
        "ListAssociatedAccessPolicies" => {
            let all: Vec<&Value> = entry.policies.values().collect();
            Ok(about(json!({ "associatedAccessPolicies": all })))
        }
        "DisassociateAccessPolicy" => {
            entry.policies.remove(policy).ok_or_else(|| {
                error(404, "ResourceNotFoundException", "The specified policyArn could not be found.")
            })?;
            Ok(Reply::json(&json!({})))
        }
        _ => Err(error(404, "ResourceNotFoundException", "not served by the sandbox")),
    }
}

/// The entry EKS makes for who created the cluster.
pub(super) fn creator(overlay: &mut Overlay, cluster: &str, principal: &str) {
    let id = overlay.fresh_id();
    let Some(known) = overlay.clusters.get_mut(cluster) else { return };
    let mut made = entry(cluster, principal, "STANDARD", &id);
    let policy = json!({ "policyArn": ADMIN, "accessScope": { "type": "cluster", "namespaces": [] },
                         "associatedAt": now_s(), "modifiedAt": now_s() });
    made.policies.insert(ADMIN.to_owned(), policy);
    known.access_entries.insert(principal.to_owned(), made);
}

/// The entry EKS makes for the role of a managed node group.
pub(super) fn node_role(overlay: &mut Overlay, cluster: &str, role: &str) {
    let id = overlay.fresh_id();
    let Some(known) = overlay.clusters.get_mut(cluster) else { return };
    known.access_entries.entry(role.to_owned()).or_insert_with(|| entry(cluster, role, "EC2_LINUX", &id));
}

/// Takes the entry of a node role away when no living node group uses it.
pub(super) fn node_role_unused(cluster: &mut Cluster, role: &str) {
    let used = cluster
        .node_groups
        .values()
        .any(|group| group.node_role == role && !super::overlay::is_deletion(group.phase.as_ref()));
    let made_by_eks = cluster.access_entries.get(role).is_some_and(|entry| entry.body["type"] == "EC2_LINUX");
    if !used && made_by_eks {
        cluster.access_entries.remove(role);
    }
}

fn entry(cluster: &str, principal: &str, kind: &str, id: &str) -> AccessEntry {
    let who = principal.rsplit(':').next().unwrap_or_default();
    let (who_kind, who_name) = who.split_once('/').unwrap_or(("user", who));
    let groups = if kind == "EC2_LINUX" { json!(["system:nodes"]) } else { json!([]) };
    let username = if kind == "EC2_LINUX" { "system:node:{{EC2PrivateDNSName}}" } else { principal };
    let arn =
        format!("arn:aws:eks:{REGION}:{ACCOUNT}:access-entry/{cluster}/{who_kind}/{ACCOUNT}/{who_name}/{id}");
    let body = json!({ "clusterName": cluster, "principalArn": principal, "kubernetesGroups": groups,
                       "accessEntryArn": arn, "createdAt": now_s(), "modifiedAt": now_s(), "tags": {},
                       "username": username, "type": kind });
    AccessEntry { body, policies: BTreeMap::new() }
}

fn policy_arn(name: &str) -> String {
    format!("arn:aws:eks::aws:cluster-access-policy/{name}")
}

fn missing(principal: &str) -> Reply {
    let message = format!("The specified principalArn could not be found: {principal}");
    error(404, "ResourceNotFoundException", &message)
}
