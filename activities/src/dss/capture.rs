//! What a site must say so that dssflow sends what a DSS holds: the difference between our template of an object and
//! the live one, as an overlay.
//!
//! An administrator sets an option once by hand in DSS; this reads the object back and finds out how that DSS spells
//! it. It reads only, and nothing secret leaves it. A difference is taken for a spelling where DSS has no such key, or
//! where the spelling is one that no public source confirms; anything else is somebody's choice and becomes a note.

mod difference;

use std::collections::BTreeMap;

use dssflow_engine::activity::{ActivityError, ActivityResult};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::athena_connection::{self, AthenaConnectionInput};
use super::athena_link::{self, AthenaLinkInput};
use super::client::DssClient;
use super::cluster::{self, ClusterInput};
use super::clusters;
use super::connection::ConnectionInput as _;
use super::container_config::{self, ContainerConfigInput};
use super::document::{DocumentInput as _, Place};
use super::metastore::{self, MetastoreInput};
use super::plugin_presets::{self, PluginPresetsInput};
use super::s3_connection::{self, S3ConnectionInput};
use super::spark_config::{self, SparkConfigInput};
use super::tree;
use difference::{Difference, Rules};

/// Which live object to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A connection, by name.
    Connection(String),
    /// The general settings.
    GeneralSettings,
    /// The settings of a plugin, by id.
    Plugin(String),
    /// A cluster, by id.
    Cluster(String),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connection(name) => write!(f, "connection {name}"),
            Self::GeneralSettings => f.write_str("the general settings"),
            Self::Plugin(id) => write!(f, "the settings of plugin {id}"),
            Self::Cluster(id) => write!(f, "cluster {id}"),
        }
    }
}

/// What a step of the site would write, without the site's overlays.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Kind);

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    S3(S3ConnectionInput),
    Athena(AthenaConnectionInput),
    Link(AthenaLinkInput),
    Metastore(MetastoreInput),
    Container(ContainerConfigInput),
    Spark(SparkConfigInput),
    Presets(PluginPresetsInput),
    Cluster(ClusterInput),
}

impl Template {
    /// The template of a step, by its activity and input; `None` for activities without overlays.
    pub fn of_step(activity: &str, input: &Value) -> Option<Self> {
        fn read<T: DeserializeOwned>(input: &Value, make: fn(T) -> Kind) -> Option<Template> {
            serde_json::from_value(input.clone()).ok().map(make).map(Template)
        }
        match activity {
            s3_connection::NAME => read(input, Kind::S3),
            athena_connection::NAME => read(input, Kind::Athena),
            athena_link::NAME => read(input, Kind::Link),
            metastore::NAME => read(input, Kind::Metastore),
            container_config::NAME => read(input, Kind::Container),
            spark_config::NAME => read(input, Kind::Spark),
            plugin_presets::NAME => read(input, Kind::Presets),
            cluster::NAME => read(input, Kind::Cluster),
            _ => None,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Captured {
    /// Key under `overlays` of the site, and what belongs there.
    pub overlays: BTreeMap<&'static str, Value>,
    /// What a person should know, one line each.
    pub notes: Vec<String>,
}

impl Captured {
    fn take(&mut self, key: &'static str, found: Difference) {
        if let Some(overlay) = found.overlay {
            self.overlays.insert(key, overlay);
        }
        self.notes.extend(found.notes.into_iter().map(|note| format!("{key}: {note}")));
    }
}

/// Reads the live object and gives the overlays with which `templates` would write what it holds.
///
/// `placeholder` gives the placeholder that stands for a text in an overlay, as `{{s3_connection}}` for its name.
///
/// # Errors
/// `CaptureMissing` when there is no such object, `CaptureKind` when no step of the site writes such a one; what DSS
/// answers else.
pub async fn capture(
    client: &DssClient,
    subject: &Subject,
    templates: &[Template],
    placeholder: &(dyn Fn(&str) -> Option<String> + Send + Sync),
) -> ActivityResult<Captured> {
    let live = match subject {
        Subject::Connection(name) => Place::Connection(name.clone()).read(client).await?,
        Subject::GeneralSettings => Place::GeneralSettings.read(client).await?,
        Subject::Plugin(id) => Place::Plugin(id.clone()).read(client).await?,
        Subject::Cluster(id) => clusters::by_id(client, id).await?.map(|found| found.settings),
    };
    let live = live.ok_or_else(|| {
        ActivityError::terminal("CaptureMissing", format!("DSS has no {subject}"))
            .help("is the name right? names are told apart by case")
            .no_effect()
    })?;
    compare(subject, &live, templates, placeholder)
}

fn no_template(subject: &Subject, what: &str) -> ActivityError {
    ActivityError::terminal("CaptureKind", format!("{subject}: {what}"))
        .help("only what a step of the bootstrap writes has an overlay")
        .no_effect()
}

fn compare(
    subject: &Subject,
    live: &Value,
    templates: &[Template],
    placeholder: &(dyn Fn(&str) -> Option<String> + Send + Sync),
) -> ActivityResult<Captured> {
    let kinds = templates.iter().map(|Template(kind)| kind);
    let mut captured = Captured::default();
    match subject {
        Subject::Connection(name) => match live["type"].as_str().unwrap_or_default() {
            "EC2" => {
                let all: Vec<&S3ConnectionInput> = kinds
                    .clone()
                    .filter_map(|kind| if let Kind::S3(input) = kind { Some(input) } else { None })
                    .collect();
                let input = all.iter().find(|input| input.name == *name).or(all.first());
                let input = input.ok_or_else(|| no_template(subject, "the site has no S3 connection"))?;
                let link =
                    kinds.filter_map(|kind| if let Kind::Link(input) = kind { Some(input) } else { None });
                let link = link.filter(|link| link.s3_connection == input.name).collect::<Vec<_>>().pop();
                s3(&mut captured, live, input, link, placeholder);
                if input.name != *name {
                    captured.notes.push(other_name(name, &input.name));
                }
            }
            "Athena" => {
                let all: Vec<&AthenaConnectionInput> = kinds
                    .filter_map(|kind| if let Kind::Athena(input) = kind { Some(input) } else { None })
                    .collect();
                let input = all.iter().find(|input| input.name == *name).or(all.first());
                let input = input.ok_or_else(|| no_template(subject, "the site has no Athena connection"))?;
                let rules = Rules { guessed: &["params/*"], placeholder, ..Rules::default() };
                captured.take("athena_connection", difference::find(&input.wanted().patch(), live, &rules));
                if input.name != *name {
                    captured.notes.push(other_name(name, &input.name));
                }
            }
            other => return Err(no_template(subject, &format!("it has type {other}, not EC2 or Athena"))),
        },
        Subject::GeneralSettings => general(&mut captured, live, templates, placeholder)?,
        Subject::Plugin(id) => {
            let input =
                kinds.filter_map(|kind| if let Kind::Presets(input) = kind { Some(input) } else { None });
            let input = input.filter(|input| input.plugin_id == *id).collect::<Vec<_>>().pop();
            let input = input.ok_or_else(|| no_template(subject, "the site writes no presets of it"))?;
            let rules = Rules { placeholder, ..Rules::default() };
            captured.take("plugin_presets", difference::find(&input.patch(live)?, live, &rules));
        }
        Subject::Cluster(id) => {
            let input = kinds
                .filter_map(|kind| if let Kind::Cluster(input) = kind { Some(input) } else { None })
                .next_back();
            let input = input.ok_or_else(|| no_template(subject, "the site makes no cluster in DSS"))?;
            let config = &live["params"]["config"];
            if !config.is_object() {
                return Err(no_template(subject, &format!("{id} was not made by the EKS plugin")));
            }
            let rules = Rules { guessed: &["nodePool/*", "nodePools"], placeholder, ..Rules::default() };
            captured.take("cluster", difference::find(&input.template(), config, &rules));
        }
    }
    Ok(captured)
}

fn other_name(live: &str, template: &str) -> String {
    format!(
        "{live} is not in the site: it was compared with what the site says of {template}, so values of its own may \
         stand where a placeholder belongs"
    )
}

/// An S3 connection is written by two steps; a key that names the pair belongs to the second.
fn s3(
    captured: &mut Captured,
    live: &Value,
    input: &S3ConnectionInput,
    link: Option<&AthenaLinkInput>,
    placeholder: &(dyn Fn(&str) -> Option<String> + Send + Sync),
) {
    let linked = link.map_or(Value::Null, AthenaLinkInput::ours);
    let pair = link.map(|link| link.athena_connection.as_str());
    let names_pair = |value: &Value| pair.is_some() && value.as_str() == pair;
    let ours = input.wanted().patch();
    let rules = Rules {
        guessed: &["params/metastoreSynchronizationMode", "params/metastoreDatabaseName"],
        known: &linked,
        belongs: &|value| !names_pair(value),
        placeholder,
    };
    captured.take("s3_connection", difference::find(&ours, live, &rules));
    if link.is_some() {
        let rules =
            Rules { guessed: &["params/athenaConnection"], known: &ours, belongs: &names_pair, placeholder };
        captured.take("athena_link", difference::find(&linked, live, &rules));
    }
}

fn general(
    captured: &mut Captured,
    live: &Value,
    templates: &[Template],
    placeholder: &(dyn Fn(&str) -> Option<String> + Send + Sync),
) -> ActivityResult<()> {
    let plain = Rules { placeholder, ..Rules::default() };
    for Template(kind) in templates {
        match kind {
            Kind::Metastore(input) => {
                let patch = input.patch(live)?;
                let key = "metastoreCatalogsSettings";
                let rules = Rules { guessed: &["synchronizeTo/*"], ..plain };
                let on =
                    live.pointer("/metastoreCatalogsSettings/synchronizeTo/flavor").and_then(Value::as_str);
                if matches!(on, None | Some("" | "NONE" | "HIVESERVER2")) {
                    captured
                        .notes
                        .push("metastore: it is not on Glue; set that by hand in DSS first".to_owned());
                } else {
                    captured.take("metastore", difference::find(&patch[key], &live[key], &rules));
                }
            }
            Kind::Container(input) => container(captured, live, input, &plain)?,
            Kind::Spark(input) => {
                let patch = input.patch(live)?;
                let wanted = patch.pointer("/sparkSettings/executionConfigs/0").cloned().unwrap_or_default();
                let name = wanted["name"].as_str().unwrap_or_default().to_owned();
                let Some(found) = tree::get(live, &format!("sparkSettings/executionConfigs/{}", item(&name)))
                else {
                    captured.notes.push(format!("spark_config: DSS has no Spark configuration {name}"));
                    continue;
                };
                let rules = Rules {
                    guessed: &["kubernetesSettings/repositoryURL", "kubernetesSettings/prePushMode"],
                    ..plain
                };
                let mut wanted = wanted;
                // The overlay goes into every configuration: what tells them apart is no part of it.
                if let Some(fields) = wanted.as_object_mut() {
                    fields.shift_remove("name");
                    fields.shift_remove("conf");
                }
                captured.take("spark_config", difference::find(&wanted, found, &rules));
            }
            Kind::S3(_) | Kind::Athena(_) | Kind::Link(_) | Kind::Presets(_) | Kind::Cluster(_) => {}
        }
    }
    Ok(())
}

fn item(name: &str) -> String {
    format!("[{}]", name.replace('~', "~0").replace('/', "~1"))
}

fn container(
    captured: &mut Captured,
    live: &Value,
    input: &ContainerConfigInput,
    plain: &Rules<'_>,
) -> ActivityResult<()> {
    let patch = input.patch(live)?;
    let settings = &patch["containerSettings"];
    let place = format!("containerSettings/executionConfigs/{}", item(&input.name));
    let Some(found) = tree::get(live, &place) else {
        captured.notes.push(format!("container_config: DSS has no container configuration {}", input.name));
        return Ok(());
    };
    let rules = Rules { guessed: &["kubernetesRuntimeConfig/kubernetesNamespace"], ..*plain };
    let mut all = difference::find(&settings["executionConfigs"][0], found, &rules);
    if let Some(wanted) = settings.pointer("/buildConfigs/0") {
        let name = found["imageBuildConfig"].as_str().unwrap_or_default();
        match tree::get(live, &format!("containerSettings/buildConfigs/{}", item(name))) {
            Some(build) => {
                let rules = Rules { guessed: &["dockerBuilderConfig/pushConfigs"], ..*plain };
                let builds = difference::find(wanted, build, &rules);
                if let Some(overlay) = builds.overlay {
                    all.overlay.get_or_insert_with(|| json!({}))["buildConfig"] = overlay;
                }
                all.notes.extend(builds.notes.into_iter().map(|note| format!("buildConfig: {note}")));
            }
            None => all.notes.push(format!("DSS has no build configuration {name}")),
        }
    }
    captured.take("container_config", all);
    Ok(())
}

/// The document a site would hold these overlays in.
pub fn as_site(captured: &Captured) -> Value {
    let overlays: Map<String, Value> =
        captured.overlays.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    json!({"overlays": overlays})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3_template() -> [Template; 2] {
        let target = json!({"url": "http://x", "api_key": {"env": "K"}});
        let credentials = json!({"kind": "assume_role", "role_arn": "arn:aws:iam::1:role/r"});
        let s3 = json!({"target": target, "name": "s3-main", "bucket": "b", "region": "eu-west-1", "glue_database": "db",
                        "credentials": credentials});
        let link = json!({"target": target, "s3_connection": "s3-main", "athena_connection": "athena-main",
                          "credentials": credentials});
        [
            Template::of_step("dss.s3-connection", &s3).unwrap(),
            Template::of_step("dss.s3-athena-link", &link).unwrap(),
        ]
    }

    #[test]
    fn a_pair_is_told_apart_and_secrets_and_choices_are_no_spelling() {
        let templates = s3_template();
        let Template(Kind::S3(input)) = &templates[0] else { panic!("an S3 connection") };
        let mut live = input.wanted().patch();
        let params = live["params"].as_object_mut().unwrap();
        params.shift_remove("metastoreDatabaseName");
        params.insert("metastoreSynchronizationMode".into(), json!("ON"));
        params.insert("glueDb".into(), json!("db"));
        params.insert("associatedAthena".into(), json!("athena-main"));
        params.insert("secretKey".into(), json!("e:AES:00"));
        params.insert("sessionToken".into(), json!("in clear"));
        params.insert("chbucket".into(), json!("another"));
        params.insert("dkuProperties".into(), json!([]));
        let subject = Subject::Connection("s3-main".into());
        let names = |text: &str| match text {
            "db" => Some("{{glue_database}}".to_owned()),
            "athena-main" => Some("{{athena_connection}}".to_owned()),
            _ => None,
        };
        let captured = compare(&subject, &live, &templates, &names).unwrap();
        assert_eq!(
            captured.overlays["s3_connection"],
            json!({"params": {"metastoreSynchronizationMode": "ON", "metastoreDatabaseName": null, "glueDb": "{{glue_database}}"}})
        );
        assert_eq!(
            captured.overlays["athena_link"],
            json!({"params": {"athenaConnection": null, "associatedAthena": "{{athena_connection}}"}})
        );
        let all = format!("{captured:?}");
        assert!(!all.contains("in clear") && !all.contains("e:AES"), "{all}");
        assert!(captured.notes.iter().any(|note| note.contains("chbucket")), "{:?}", captured.notes);
    }

    #[test]
    fn nothing_differs_nothing_is_printed() {
        let templates = s3_template();
        let Template(Kind::S3(input)) = &templates[0] else { panic!("an S3 connection") };
        let mut live = input.wanted().patch();
        live["params"]["athenaConnection"] = json!("athena-main");
        live["params"]["more"] = json!("of their own");
        let captured = compare(&Subject::Connection("s3-main".into()), &live, &templates, &|_| None).unwrap();
        assert_eq!(captured, Captured::default());
        let other = compare(&Subject::Connection("x".into()), &json!({"type": "FTP"}), &templates, &|_| None);
        assert_eq!(other.unwrap_err().code, "CaptureKind");
    }
}
