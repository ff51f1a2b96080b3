//! The world in a normal form, for comparing before and after.
//!
//! Live things by kind, name and settings. Left out: what has ended, times, history of queries, values of secrets.
//! Generated ids are replaced by what they stand for, the marks of a run (`dssflow:run` and the like) by `*`. moto is
//! asked directly: looking counts as nobody's call and moves no state.

use std::collections::BTreeMap;
use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::aws::{ACCOUNT, Aws, status_of};
use crate::dss::FakeDss;
use crate::error::SandboxError;
use crate::host;
use crate::proxy::Proxy;
use crate::proxy::overlay::{self, Look};
use crate::xml::list;

/// Marks whose values differ from run to run.
const RUN_MARKS: [&str; 4] = ["dssflow:run", "dssflow:store", "dssflow:generation", "dssflow:step"];

/// Takes snapshots of one world.
#[derive(Debug)]
pub(crate) struct Snapshots {
    pub(crate) moto: Aws,
    pub(crate) proxy: Proxy,
    pub(crate) host_root: PathBuf,
    /// Texts of this world and what they stand for: ports and directories.
    pub(crate) names: Vec<(String, String)>,
    /// AWS as it was seen last.
    pub(crate) seen: Mutex<Option<Seen>>,
}

/// AWS at one moment: asking moto for all of it takes a hundred calls.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// How many calls had changed something.
    changes: u64,
    aws: Value,
    ids: BTreeMap<String, String>,
}

impl Snapshots {
    /// The whole world; without an installed DSS that part is null.
    pub(crate) async fn take(&self, dss: Option<&FakeDss>) -> Result<Value, SandboxError> {
        let Seen { aws, ids, .. } = self.aws().await?;
        let root = self.host_root.clone();
        let host = tokio::task::spawn_blocking(move || host::snapshot(&root)).await.unwrap_or_default();
        let mut names: Vec<(String, String)> = ids.into_iter().chain(self.names.iter().cloned()).collect();
        // Longest first, so that no name is replaced inside a longer one.
        names.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        Ok(normal(json!({ "aws": aws, "dss": dss.map(FakeDss::snapshot), "host": host }), &names))
    }

    /// All of AWS; what was seen last when nothing has changed since.
    async fn aws(&self) -> Result<Seen, SandboxError> {
        let mut seen = self.seen.lock().await;
        // Counted first: what changes while we look is looked at again the next time.
        let changes = self.proxy.changes().await;
        if let Some(seen) = seen.as_ref().filter(|seen| Some(seen.changes) == changes) {
            return Ok(seen.clone());
        }
        let mut ids = BTreeMap::new();
        let ec2 = self.ec2(&mut ids).await?;
        let aws = json!({
            "ec2": ec2, "iam": self.iam().await?, "ecr": self.ecr().await?, "eks": self.eks().await?,
            "cloudformation": self.stacks().await?, "glue": self.glue().await?, "athena": self.athena().await?,
            "s3": self.s3().await?, "ssm": self.parameters().await?, "secretsmanager": self.secrets().await?,
        });
        let now = Seen { changes: changes.unwrap_or(0), aws, ids };
        *seen = changes.is_some().then(|| now.clone());
        Ok(now)
    }

    async fn ec2(&self, ids: &mut BTreeMap<String, String>) -> Result<Value, SandboxError> {
        let found = async |action: &str, set: &str| -> Result<Vec<Value>, SandboxError> {
            let reply = self.moto.query("ec2", action, &[]).await?;
            Ok(list(&reply, &[set]).into_iter().cloned().collect())
        };
        let vpcs = found("DescribeVpcs", "vpcSet").await?;
        let subnets = found("DescribeSubnets", "subnetSet").await?;
        let groups = found("DescribeSecurityGroups", "securityGroupInfo").await?;
        let tables = found("DescribeRouteTables", "routeTableSet").await?;
        let gateways = found("DescribeInternetGateways", "internetGatewaySet").await?;
        let addresses = found("DescribeAddresses", "addressesSet").await?;
        let templates = found("DescribeLaunchTemplates", "launchTemplates").await?;
        let keys = found("DescribeKeyPairs", "keySet").await?;
        let volumes = found("DescribeVolumes", "volumeSet").await?;
        let images = self.moto.query("ec2", "DescribeImages", &[("Owner.1", ACCOUNT)]).await?;
        let reservations = found("DescribeInstances", "reservationSet").await?;
        let instances: Vec<Value> = reservations
            .iter()
            .flat_map(|reservation| list(reservation, &["instancesSet"]))
            .filter(|it| {
                !matches!(it["instanceState"]["name"].as_str(), Some("terminated" | "shutting-down"))
            })
            .cloned()
            .collect();
        for (kind, things, id, fallback) in [
            ("vpc", &vpcs, "vpcId", "cidrBlock"),
            ("subnet", &subnets, "subnetId", "cidrBlock"),
            ("sg", &groups, "groupId", "groupName"),
            ("rtb", &tables, "routeTableId", "vpcId"),
            ("igw", &gateways, "internetGatewayId", "ownerId"),
            ("lt", &templates, "launchTemplateId", "launchTemplateName"),
            ("instance", &instances, "instanceId", "instanceType"),
        ] {
            for thing in things {
                let name = tags(thing)["Name"].as_str().map(str::to_owned);
                let name = name.unwrap_or_else(|| text(thing, fallback));
                // Each VPC has a group named `default`.
                let within = if kind == "sg" { ids.get(&text(thing, "vpcId")).cloned() } else { None };
                let within = within.map(|vpc| format!("{vpc}/")).unwrap_or_default();
                ids.insert(text(thing, id), format!("{within}{kind}:{name}"));
            }
        }
        let mut lines = Vec::new();
        for template in &templates {
            let params = [("LaunchTemplateId", template["launchTemplateId"].as_str().unwrap_or_default())];
            let versions = self.moto.query("ec2", "DescribeLaunchTemplateVersions", &params).await?;
            let data: Vec<Value> = list(&versions, &["launchTemplateVersionSet"])
                .into_iter()
                .map(|version| version["launchTemplateData"].clone())
                .collect();
            lines.push(
                json!({ "name": template["launchTemplateName"], "versions": data, "tags": tags(template) }),
            );
        }
        Ok(json!({
            "vpcs": each(&vpcs, &["vpcId", "cidrBlock"]),
            "subnets": each(&subnets, &["subnetId", "vpcId", "cidrBlock", "availabilityZone", "mapPublicIpOnLaunch"]),
            "security_groups": each(&groups, &["groupId", "groupName", "vpcId", "ipPermissions", "ipPermissionsEgress"]),
            "route_tables": each(&tables, &["routeTableId", "vpcId", "routeSet"]),
            "internet_gateways": each(&gateways, &["internetGatewayId"]),
            "addresses": each(&addresses, &["domain"]),
            "images": each(&list(&images, &["imagesSet"]).into_iter().cloned().collect::<Vec<_>>(), &["name"]),
            "launch_templates": sorted(lines),
            "key_pairs": sorted(keys.iter().map(|it| json!({ "name": it["keyName"], "tags": tags(it) })).collect()),
            "volumes": sorted(volumes.iter().map(|it| json!({
                "size": it["size"], "type": it["volumeType"], "encrypted": it["encrypted"], "tags": tags(it),
            })).collect()),
            "instances": instances.iter().map(|it| json!({
                "instanceId": it["instanceId"], "type": it["instanceType"], "subnet": it["subnetId"],
                "state": it["instanceState"]["name"], "tags": tags(it),
                "groups": sorted(list(it, &["groupSet"]).iter().map(|group| group["groupId"].clone()).collect()),
            })).collect::<Vec<_>>(),
        }))
    }

    async fn iam(&self) -> Result<Value, SandboxError> {
        let names = async |action: &str, set: &str, key: &str, params: &[(&str, &str)]| {
            let reply = self.moto.query("iam", action, params).await?;
            let names = list(&reply, &[set]);
            let names = names.into_iter().map(|it| if key.is_empty() { it.clone() } else { it[key].clone() });
            Ok::<Vec<Value>, SandboxError>(sorted(names.collect()))
        };
        let strings = async |action: &str, set: &str, params: &[(&str, &str)]| {
            let reply = self.moto.query("iam", action, params).await?;
            Ok::<Value, SandboxError>(reply[set].clone())
        };
        let mut users = Map::new();
        for user in names("ListUsers", "Users", "UserName", &[]).await? {
            let name = user.as_str().unwrap_or_default();
            let of = [("UserName", name)];
            let keys = names("ListAccessKeys", "AccessKeyMetadata", "Status", &of).await?;
            let policies = strings("ListUserPolicies", "PolicyNames", &of).await?;
            users.insert(name.to_owned(), json!({ "keys": keys, "policies": policies }));
        }
        let mut roles = Vec::new();
        let reply = self.moto.query("iam", "ListRoles", &[]).await?;
        for role in list(&reply, &["Roles"]) {
            let name = text(role, "RoleName");
            let of = [("RoleName", name.as_str())];
            let attached = names("ListAttachedRolePolicies", "AttachedPolicies", "PolicyArn", &of).await?;
            let inline = strings("ListRolePolicies", "PolicyNames", &of).await?;
            let tagged = self.moto.query("iam", "ListRoleTags", &of).await?;
            roles.push(json!({ "name": without_suffix(&name), "attached": attached, "inline": inline,
                               "tags": pairs(list(&tagged, &["Tags"])) }));
        }
        let profiles = names("ListInstanceProfiles", "InstanceProfiles", "InstanceProfileName", &[]).await?;
        let policies = names("ListPolicies", "Policies", "PolicyName", &[("Scope", "Local")]).await?;
        Ok(
            json!({ "users": users, "roles": sorted(roles), "instance_profiles": profiles, "policies": policies }),
        )
    }

    async fn ecr(&self) -> Result<Value, SandboxError> {
        let target = |operation: &str| format!("AmazonEC2ContainerRegistry_V20150921.{operation}");
        let found = self.moto.json("ecr", &target("DescribeRepositories"), &json!({})).await?;
        let mut all = Map::new();
        for repository in list(&found, &["repositories"]) {
            let name = text(repository, "repositoryName");
            let of = json!({ "repositoryName": name });
            let images = self.moto.json("ecr", &target("DescribeImages"), &of).await?;
            let images = list(&images, &["imageDetails"])
                .into_iter()
                .map(|image| json!({ "tags": image["imageTags"], "digest": image["imageDigest"] }))
                .collect();
            let arn = json!({ "resourceArn": repository["repositoryArn"] });
            let tagged = self.moto.json("ecr", &target("ListTagsForResource"), &arn).await?;
            let shown = json!({ "images": sorted(images), "tags": pairs(list(&tagged, &["tags"])),
                                "mutability": repository["imageTagMutability"],
                                "scan": repository["imageScanningConfiguration"] });
            all.insert(name, shown);
        }
        Ok(Value::Object(all))
    }

    async fn eks(&self) -> Result<Value, SandboxError> {
        let overlay = self.proxy.overlay().await;
        let names = self.moto.eks(Method::GET, "/clusters", None).await?;
        let mut all = Map::new();
        for name in names["clusters"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let found = self.moto.eks(Method::GET, &format!("/clusters/{name}"), None).await?;
            let cluster = &found["cluster"];
            let known = overlay.clusters.get(name);
            let groups = self.moto.eks(Method::GET, &format!("/clusters/{name}/node-groups"), None).await?;
            let mut node_groups = Map::new();
            for group in groups["nodegroups"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let path = format!("/clusters/{name}/node-groups/{group}");
                let found = self.moto.eks(Method::GET, &path, None).await?;
                let found = &found["nodegroup"];
                let phase = known.and_then(|it| it.node_groups.get(group)).and_then(|it| it.phase.as_ref());
                let keys = [
                    "scalingConfig",
                    "instanceTypes",
                    "subnets",
                    "amiType",
                    "nodeRole",
                    "launchTemplate",
                    "tags",
                ];
                let mut shown = pick(found, &keys);
                shown["status"] =
                    json!(if overlay::peek(phase) == Look::Failed { "CREATE_FAILED" } else { "ACTIVE" });
                shown["nodeRole"] = json!(without_suffix(&text(found, "nodeRole")));
                node_groups.insert(group.to_owned(), shown);
            }
            let failed = overlay::peek(known.and_then(|it| it.phase.as_ref())) == Look::Failed;
            let mut shown = pick(cluster, &["version", "resourcesVpcConfig", "tags"]);
            shown["roleArn"] = json!(without_suffix(&text(cluster, "roleArn")));
            shown["status"] = json!(if failed { "FAILED" } else { "ACTIVE" });
            shown["nodeGroups"] = Value::Object(node_groups);
            if let Some(known) = known {
                shown["authenticationMode"] = json!(known.authentication_mode);
                let entries = known.access_entries.iter().map(|(principal, entry)| {
                    let policies: Vec<&String> = entry.policies.keys().collect();
                    let mut shown = pick(&entry.body, &["type", "kubernetesGroups", "tags"]);
                    shown["policies"] = json!(policies);
                    (without_suffix(principal), shown)
                });
                shown["accessEntries"] = Value::Object(entries.collect());
                let living =
                    known.addons.iter().filter(|(_, addon)| !overlay::is_deletion(addon.phase.as_ref()));
                let addons = living.map(|(name, addon)| {
                    (name.clone(), pick(&addon.body, &["addonVersion", "configurationValues", "tags"]))
                });
                shown["addons"] = Value::Object(addons.collect());
            }
            all.insert(name.to_owned(), shown);
        }
        Ok(Value::Object(all))
    }

    async fn stacks(&self) -> Result<Value, SandboxError> {
        let overlay = self.proxy.overlay().await;
        let found = self.moto.query("cloudformation", "DescribeStacks", &[]).await?;
        let mut all = Map::new();
        for stack in list(&found, &["Stacks"]) {
            let name = text(stack, "StackName");
            let status =
                overlay.stacks.get(&name).map_or_else(|| text(stack, "StackStatus"), |it| it.status.clone());
            all.insert(name, json!({ "status": status, "tags": pairs(list(stack, &["Tags"])) }));
        }
        Ok(Value::Object(all))
    }

    async fn glue(&self) -> Result<Value, SandboxError> {
        let found = self.moto.json("glue", "AWSGlue.GetDatabases", &json!({})).await?;
        let mut all = Map::new();
        for database in list(&found, &["DatabaseList"]) {
            let name = text(database, "Name");
            let tables =
                self.moto.json("glue", "AWSGlue.GetTables", &json!({ "DatabaseName": name })).await?;
            let tables = list(&tables, &["TableList"]).into_iter().map(|table| {
                (
                    text(table, "Name"),
                    pick(table, &["StorageDescriptor", "PartitionKeys", "Parameters", "TableType"]),
                )
            });
            let mut shown = pick(database, &["Description", "LocationUri", "Parameters"]);
            shown["tables"] = Value::Object(tables.collect());
            all.insert(name, shown);
        }
        Ok(Value::Object(all))
    }

    async fn athena(&self) -> Result<Value, SandboxError> {
        let found = self.moto.json("athena", "AmazonAthena.ListWorkGroups", &json!({})).await?;
        let names = list(&found, &["WorkGroups"]).into_iter().map(|group| group["Name"].clone()).collect();
        Ok(json!({ "workgroups": sorted(names) }))
    }

    async fn s3(&self) -> Result<Value, SandboxError> {
        let found = self.moto.s3(Method::GET, "/", String::new()).await?;
        let mut all = Map::new();
        for bucket in list(&found, &["ListAllMyBucketsResult", "Buckets", "Bucket"]) {
            let name = text(bucket, "Name");
            let tags = match self.moto.s3(Method::GET, &format!("/{name}?tagging"), String::new()).await {
                Ok(found) => pairs(list(&found, &["Tagging", "TagSet", "Tag"])),
                Err(error) if status_of(&error) == 404 => json!({}),
                Err(error) => return Err(error),
            };
            all.insert(name, json!({ "tags": tags }));
        }
        Ok(Value::Object(all))
    }

    async fn parameters(&self) -> Result<Value, SandboxError> {
        let found = self.moto.json("ssm", "AmazonSSM.DescribeParameters", &json!({})).await?;
        let all = list(&found, &["Parameters"]).into_iter().map(|it| pick(it, &["Name", "Type"])).collect();
        Ok(json!(sorted(all)))
    }

    async fn secrets(&self) -> Result<Value, SandboxError> {
        let found = self.moto.json("secretsmanager", "secretsmanager.ListSecrets", &json!({})).await?;
        let all = list(&found, &["SecretList"]).into_iter().map(|it| pick(it, &["Name"])).collect();
        Ok(json!(sorted(all)))
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn pick(value: &Value, keys: &[&str]) -> Value {
    keys.iter()
        .filter(|key| !value[**key].is_null())
        .map(|key| ((*key).to_owned(), value[*key].clone()))
        .collect()
}

fn each(things: &[Value], keys: &[&str]) -> Vec<Value> {
    sorted(
        things
            .iter()
            .map(|thing| {
                let mut shown = pick(thing, keys);
                shown["tags"] = tags(thing);
                shown
            })
            .collect(),
    )
}

fn sorted(mut values: Vec<Value>) -> Vec<Value> {
    values.sort_by_cached_key(Value::to_string);
    values
}

/// The tags of a thing of EC2.
fn tags(thing: &Value) -> Value {
    pairs(list(thing, &["tagSet"]))
}

/// A list of keys and values, in any of the spellings AWS has for it, as an object.
fn pairs(tags: Vec<&Value>) -> Value {
    let either = |tag: &Value, small: &str, large: &str| {
        tag[small].as_str().or_else(|| tag[large].as_str()).unwrap_or_default().to_owned()
    };
    tags.into_iter()
        .map(|tag| (either(tag, "key", "Key"), Value::String(either(tag, "value", "Value"))))
        .collect()
}

/// A name without the random end CloudFormation gives it.
fn without_suffix(name: &str) -> String {
    match name.rsplit_once('-') {
        Some((stem, end))
            if end.len() >= 12 && end.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()) =>
        {
            format!("{stem}-*")
        }
        _ => name.to_owned(),
    }
}

/// Sorts keys, replaces names, hides the marks of a run.
fn normal(value: Value, names: &[(String, String)]) -> Value {
    let rename = |text: String| {
        names.iter().fold(text, |text, (from, to)| {
            if from.is_empty() || !text.contains(from.as_str()) { text } else { text.replace(from, to) }
        })
    };
    match value {
        Value::String(text) => Value::String(rename(text)),
        Value::Array(items) => {
            let items: Vec<Value> = items.into_iter().map(|item| normal(item, names)).collect();
            // Lists of objects come in the order of their ids, which are gone now.
            if items.iter().all(Value::is_object) { sorted(items).into() } else { items.into() }
        }
        Value::Object(fields) => {
            // Tags come as a map, or as a list of `key` and `value`.
            let named = fields.get("key").and_then(Value::as_str).is_some_and(|key| RUN_MARKS.contains(&key));
            let sorted: BTreeMap<String, Value> = fields
                .into_iter()
                .map(|(key, value)| {
                    let mark = RUN_MARKS.contains(&key.as_str()) || (named && key == "value");
                    let hidden = mark && value.is_string();
                    (rename(key), if hidden { json!("*") } else { normal(value, names) })
                })
                .collect();
            Value::Object(sorted.into_iter().collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_marks_are_named() {
        let names = [("sg-12".to_owned(), "sg:b".to_owned()), ("sg-1".to_owned(), "sg:a".to_owned())];
        let value = json!({ "z": ["sg-12"], "a": { "dssflow:run": "r1", "group": "sg-1" } });
        assert_eq!(
            normal(value, &names).to_string(),
            "{\"a\":{\"dssflow:run\":\"*\",\"group\":\"sg:a\"},\"z\":[\"sg:b\"]}"
        );
        assert_eq!(
            without_suffix("eksctl-x-cluster-ServiceRole-G7EY7QUJ2UEU"),
            "eksctl-x-cluster-ServiceRole-*"
        );
        assert_eq!(without_suffix("dssflow-eks-node"), "dssflow-eks-node");
    }
}
