//! What somebody changes by hand in what a step has made.

use dssflow_engine::graph::Step;
use dssflow_sandbox::Hands;
use serde_json::{Value, json};

use crate::learn::Learned;
use crate::world::World;

/// What the hand writes.
const BY_HAND: &str = "by-hand";

/// One change by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Drift {
    /// A file on the host has one more line.
    File(String),
    /// A value in a document of DSS is another one.
    Document(Document),
    /// A Glue database is described otherwise.
    Database(String),
    /// A launch template has one more version, without security groups.
    Template(String),
    /// The instance has lost a security group.
    Group,
    /// A role has lost a policy.
    Role(String),
}

/// A value in a document of DSS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    path: String,
    /// Plugins take their settings by another method than the rest.
    method: &'static str,
    pointer: String,
    /// What the step wrote there.
    ours: String,
}

/// What can be changed by hand of what a step makes.
pub(crate) fn of(step: &Step, learned: &Learned) -> Option<Drift> {
    let name = step.name.as_str();
    if let Some(database) = name.strip_prefix("glue-database-") {
        return Some(Drift::Database(database.to_owned()));
    }
    let new = |place: &str, key: &str| -> Option<String> {
        let named = |world: &Value| -> Vec<String> {
            let things = world.pointer(place).and_then(Value::as_array).cloned().unwrap_or_default();
            things.iter().filter_map(|thing| thing[key].as_str().map(str::to_owned)).collect()
        };
        let before = named(&learned.before);
        named(&learned.after).into_iter().find(|name| !before.contains(name))
    };
    match name {
        "launch-template" => {
            return new("/aws/ec2/launch_templates", "launchTemplateName").map(Drift::Template);
        }
        "cluster-role" | "node-role" => return new("/aws/iam/roles", "name").map(Drift::Role),
        "default-security-group" => return Some(Drift::Group),
        _ => {}
    }
    file(learned).map(Drift::File).or_else(|| document(learned).map(Drift::Document))
}

/// The first file on the host that the step made or wrote, of those that are its own.
fn file(learned: &Learned) -> Option<String> {
    let files = |world: &Value| world.pointer("/host/files").and_then(Value::as_object).cloned();
    let (before, after) = (files(&learned.before)?, files(&learned.after)?);
    let shared = ["/var/lib/", "/etc/passwd", "/etc/group", "/usr/bin/"];
    let written = after.iter().find(|(path, file)| {
        file["kind"] == "file"
            && before.get(*path) != Some(*file)
            && !shared.iter().any(|shared| path.starts_with(shared))
    });
    written.map(|(path, _)| path.clone())
}

/// The first text in a document of DSS that the step wrote.
fn document(learned: &Learned) -> Option<Document> {
    fn walk(pointer: &str, before: Option<&Value>, after: &Value, found: &mut Vec<(String, String)>) {
        let below = |key: &str| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
        match after {
            Value::Object(fields) => {
                for (key, value) in fields {
                    walk(&below(key), before.and_then(|it| it.get(key)), value, found);
                }
            }
            Value::Array(items) => {
                for (at, value) in items.iter().enumerate() {
                    walk(&below(&at.to_string()), before.and_then(|it| it.get(at)), value, found);
                }
            }
            Value::String(text) if before != Some(after) => found.push((pointer.to_owned(), text.clone())),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk("", learned.before.get("dss"), learned.after.get("dss")?, &mut found);
    // Names are how things are found, marks say whose they are, and of modes there are few: DSS drops any other.
    let fixed = [
        "/name",
        "/id",
        "ype",
        "/state",
        "Key",
        "Mode",
        "/flavor",
        "/usableBy",
        "/readableBy",
        "/hdfsInterface",
    ];
    found
        .into_iter()
        .filter(|(pointer, text)| {
            !text.is_empty() && !text.contains("dssflow") && !fixed.iter().any(|end| pointer.ends_with(end))
        })
        .find_map(|(pointer, ours)| {
            let parts: Vec<&str> = pointer.splitn(5, '/').collect();
            let (path, method, rest) = match parts.as_slice() {
                ["", "generalSettings", ..] => {
                    ("/admin/general-settings".to_owned(), "PUT", pointer.strip_prefix("/generalSettings")?)
                }
                ["", "connections", name, ..] => (
                    format!("/admin/connections/{name}"),
                    "PUT",
                    &pointer[format!("/connections/{name}").len()..],
                ),
                ["", "plugins", id, "presets", _] => {
                    (format!("/plugins/{id}/settings"), "POST", &pointer[format!("/plugins/{id}").len()..])
                }
                ["", "projects", key, "settings", _] => (
                    format!("/projects/{key}/settings"),
                    "PUT",
                    &pointer[format!("/projects/{key}/settings").len()..],
                ),
                ["", "clusters", id, ..] => {
                    (format!("/admin/clusters/{id}"), "PUT", &pointer[format!("/clusters/{id}").len()..])
                }
                _ => return None,
            };
            Some(Document { path, method, pointer: rest.to_owned(), ours })
        })
}

impl Document {
    /// Puts `new` in the place of `old`, if that stands there.
    async fn put(&self, hands: &Hands, old: &str, new: &str) {
        let Ok(mut document) = hands.dss("GET", &self.path, None).await else { return };
        match document.pointer_mut(&self.pointer) {
            Some(value) if *value == *old => *value = Value::from(new),
            _ => return,
        }
        hands.dss(self.method, &self.path, Some(&document)).await.expect("written by hand");
    }
}

impl Drift {
    /// Changes it.
    pub(crate) async fn make(&self, world: &World) {
        self.change(world, true).await;
    }

    /// Puts it back where it still is as [`Drift::make`] has left it.
    pub(crate) async fn unmake(&self, world: &World) {
        self.change(world, false).await;
    }

    async fn change(&self, world: &World, make: bool) {
        let hands = Hands::of(&world.sandbox);
        match self {
            Self::File(path) => {
                let file = world.sandbox.host_root.join(path.trim_start_matches('/'));
                let Ok(bytes) = std::fs::read(&file) else { return };
                let line = format!("\n# {BY_HAND}\n");
                let plain = bytes.strip_suffix(line.as_bytes());
                let wanted =
                    if make { [&bytes, line.as_bytes()].concat() } else { plain.unwrap_or(&bytes).to_vec() };
                std::fs::write(&file, wanted).expect("a file of the sandbox");
            }
            Self::Document(document) if make => document.put(&hands, &document.ours, BY_HAND).await,
            Self::Document(document) => document.put(&hands, BY_HAND, &document.ours).await,
            Self::Database(name) => {
                let asked = json!({ "Name": name });
                let Ok(found) = hands.json("glue", "AWSGlue.GetDatabase", &asked).await else { return };
                let mut database = json!({ "Name": name });
                for key in ["Description", "Parameters"] {
                    database[key] = found["Database"][key].clone();
                }
                let text = database["Description"].as_str().unwrap_or_default();
                database["Description"] = if make {
                    Value::from(format!("{text}{BY_HAND}"))
                } else {
                    Value::from(text.trim_end_matches(BY_HAND))
                };
                let update = json!({ "Name": name, "DatabaseInput": database });
                hands.json("glue", "AWSGlue.UpdateDatabase", &update).await.expect("changed by hand");
            }
            Self::Template(name) => {
                // A version goes with its template; who asks for the newest gets this one.
                let params =
                    [("LaunchTemplateName", name.as_str()), ("LaunchTemplateData.InstanceType", BY_HAND)];
                if make {
                    hands
                        .query("ec2", "CreateLaunchTemplateVersion", &params)
                        .await
                        .expect("changed by hand");
                }
            }
            Self::Group => {
                let mut params = vec![
                    ("InstanceId", world.sandbox.instance_id.as_str()),
                    ("GroupId.1", &world.sandbox.instance_security_group),
                ];
                if !make {
                    params.push(("GroupId.2", &world.sandbox.default_security_group));
                }
                hands.query("ec2", "ModifyInstanceAttribute", &params).await.expect("changed by hand");
            }
            Self::Role(name) => {
                let policy = if name.contains("node") {
                    "AmazonEKSWorkerNodePolicy"
                } else {
                    "AmazonEKSClusterPolicy"
                };
                let arn = format!("arn:aws:iam::aws:policy/{policy}");
                let action = if make { "DetachRolePolicy" } else { "AttachRolePolicy" };
                // A role that is gone has no policies; one that has it, or has it not, is as wanted.
                drop(hands.query("iam", action, &[("RoleName", name), ("PolicyArn", &arn)]).await);
            }
        }
    }
}
