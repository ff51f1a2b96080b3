//! The general settings: one document, no version, the last writer wins.
//!
//! Like the real one, it drops what it does not know, or knows in another place, and answers 200 all the same.
//! The container part has two shapes: up to major 14 an execution config carries its registry; from 15 a list of
//! build configs does, and an execution config that names a missing one rejects the whole document.

use serde_json::{Map, Value, json};

use super::FakeDss;
use super::behaviour::{Behaviour, Redaction};
use super::reply::{Answer, Call, Refusal, Reply, ok};
use super::spelling::{self, Document};
use super::unverified;

/// What survives a write.
enum Known {
    /// Anything.
    Any,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// An object of these keys.
    Object(&'static [(&'static str, Known)]),
    /// A list of such values.
    List(&'static Known),
}

impl Known {
    /// The part of `value` that is known here; `None` when nothing is.
    fn keep(&self, value: &Value) -> Option<Value> {
        match (self, value) {
            (Self::Any, _) => Some(value.clone()),
            (Self::OneOf(texts), Value::String(text)) => {
                texts.contains(&text.as_str()).then(|| value.clone())
            }
            (Self::Object(keys), Value::Object(fields)) => {
                let kept = fields.iter().filter_map(|(name, field)| {
                    let (_, known) = keys.iter().find(|(key, _)| key == name)?;
                    Some((name.clone(), known.keep(field)?))
                });
                Some(Value::Object(kept.collect()))
            }
            (Self::List(item), Value::Array(items)) => {
                Some(Value::Array(items.iter().filter_map(|value| item.keep(value)).collect()))
            }
            (Self::OneOf(_) | Self::Object(_) | Self::List(_), _) => None,
        }
    }
}

use Known::{Any, List, Object, OneOf};

const RESOURCES: Known = Object(&[
    ("memRequestMB", Any),
    ("memLimitMB", Any),
    ("cpuRequest", Any),
    ("cpuLimit", Any),
    ("customLimits", Any),
    ("customRequests", Any),
]);

const EXECUTION_14: Known = Object(&[
    ("name", Any),
    ("type", Any),
    ("usableBy", Any),
    ("allowedGroups", Any),
    ("workloadType", Any),
    ("properties", Any),
    ("dockerNetwork", Any),
    ("dockerResources", Any),
    ("dockerHost", Any),
    ("dockerTLSVerify", Any),
    ("dockerCertPath", Any),
    ("kubernetesNamespace", Any),
    ("createNamespace", Any),
    ("ensureNamespaceCompliance", Any),
    ("kubernetesResources", RESOURCES),
    ("hostPathVolumes", Any),
    ("isFinal", Any),
    ("baseImageType", Any),
    ("baseImage", Any),
    ("repositoryURL", Any),
    ("prePushMode", OneOf(&["NONE", "ECR", "CUSTOM"])),
    ("prePushScript", Any),
]);

const EXECUTION_15: Known = Object(&[
    ("name", Any),
    ("type", Any),
    ("imageBuildConfig", Any),
    ("usableBy", Any),
    ("allowedGroups", Any),
    ("workloadType", Any),
    ("properties", Any),
    ("isFinal", Any),
    ("dockerRuntimeConfig", Any),
    (
        "kubernetesRuntimeConfig",
        Object(&[
            ("createNamespace", Any),
            ("kubernetesNamespace", Any),
            ("ensureNamespaceCompliance", Any),
            ("kubernetesResources", RESOURCES),
            ("hostPathVolumes", Any),
            ("properties", Any),
        ]),
    ),
]);

const BUILD_15: Known = Object(&[
    ("name", Any),
    ("baseImageType", Any),
    ("imageBuilderType", OneOf(&["DOCKER", "DKU_IN_CLUSTER", "OPENSHIFT"])),
    (
        "dockerBuilderConfig",
        Object(&[
            ("dockerTLSVerify", Any),
            ("dockerHost", Any),
            (
                "pushConfigs",
                List(&Object(&[
                    ("repositoryURL", Any),
                    ("prePushMode", OneOf(&["NONE", "ECR", "CUSTOM"])),
                    ("prePushScript", Any),
                ])),
            ),
        ]),
    ),
    ("dkuInClusterBuilderConfig", Any),
    ("openshiftBuilderConfig", Any),
]);

const SPARK: Known = Object(&[
    ("sparkEnabled", Any),
    ("defaultExecutionConfig", Any),
    (
        "executionConfigs",
        List(&Object(&[
            ("name", Any),
            ("description", Any),
            ("conf", Any),
            ("usableBy", Any),
            ("allowedGroups", Any),
            ("isFinal", Any),
            (
                "kubernetesSettings",
                Object(&[
                    ("managedKubernetes", Any),
                    ("managedNamespace", Any),
                    ("createNamespace", Any),
                    ("ensureNamespaceCompliance", Any),
                    ("authenticationMode", OneOf(&["BUILTIN", "DYNAMIC_SERVICE_ACCOUNT"])),
                    ("baseImageType", Any),
                    ("baseImage", Any),
                    ("repositoryURL", Any),
                    ("prePushMode", OneOf(&["NONE", "ECR", "CUSTOM"])),
                    ("prePushScript", Any),
                    ("dockerTLSVerify", Any),
                ]),
            ),
        ])),
    ),
]);

const METASTORE: Known = Object(&[(
    "synchronizeTo",
    Object(&[
        ("flavor", OneOf(&["HIVESERVER2", "NONE", unverified::GLUE_FLAVOR])),
        ("glueCredentialsMode", OneOf(&["DEFAULT", unverified::GLUE_CREDENTIALS_MODE])),
        (unverified::GLUE_CONNECTION, Any),
    ]),
)]);

const CONTAINER_14: Known = Object(&[
    ("executionConfigs", List(&EXECUTION_14)),
    ("executionConfigsGenericOverrides", Any),
    ("defaultExecutionConfig", Any),
    ("defaultExecutionConfigForVisualRecipesWorkloads", Any),
    ("defaultExecutionConfigForExporters", Any),
]);

const CONTAINER_15: Known = Object(&[
    ("buildConfigs", List(&BUILD_15)),
    ("executionConfigs", List(&EXECUTION_15)),
    ("executionConfigsGenericOverrides", Any),
    ("defaultExecutionConfig", Any),
    ("defaultExecutionConfigForVisualRecipesWorkloads", Any),
    ("defaultExecutionConfigForExporters", Any),
]);

macro_rules! document {
    ($container:expr) => {
        Object(&[
            ("containerSettings", $container),
            ("sparkSettings", SPARK),
            ("metastoreCatalogsSettings", METASTORE),
            ("defaultK8sClusterId", Any),
            ("useImplicitK8sCluster", Any),
            ("impersonation", Any),
            ("mailSettings", Any),
            ("limits", Any),
            ("ldapSettings", Any),
            ("studioExternalUrl", Any),
            ("security", Any),
        ])
    };
}

const DOCUMENT_14: Known = document!(CONTAINER_14);
const DOCUMENT_15: Known = document!(CONTAINER_15);

/// The settings of a new instance: Spark off, two named Spark configs, metastore on Hive.
pub(super) fn fresh(major: u32) -> Value {
    let mut document = json!({
        "containerSettings": {"executionConfigs": [], "executionConfigsGenericOverrides": {}},
        "sparkSettings": {"sparkEnabled": false, "executionConfigs": [
            {"name": "default", "description": "", "conf": [{"key": "spark.executor.memory", "value": "2400m"}],
             "kubernetesSettings": {"managedKubernetes": false}},
            {"name": "sample-local-config", "description": "", "conf": [{"key": "spark.master", "value": "local[4]"}],
             "kubernetesSettings": {"managedKubernetes": false}}
        ]},
        "metastoreCatalogsSettings": {"synchronizeTo": {"flavor": "HIVESERVER2", "glueCredentialsMode": "DEFAULT"}},
        "useImplicitK8sCluster": false,
        "impersonation": {"userRules": [], "groupRules": []},
        "mailSettings": {},
        "limits": {},
        "studioExternalUrl": ""
    });
    if major >= 15 {
        document["containerSettings"]["buildConfigs"] = json!([]);
    }
    document
}

/// What a PUT of `sent` leaves behind.
fn accept(major: u32, sent: &Value, behaviour: &Behaviour) -> Result<Value, Refusal> {
    let known = match major {
        _ if !behaviour.drop_unknown_keys => &Any,
        15.. => &DOCUMENT_15,
        _ => &DOCUMENT_14,
    };
    let Some(Value::Object(mut kept)) = known.keep(sent) else {
        return Err(Refusal::illegal("General settings must be an object"));
    };
    if let Value::Object(defaults) = fresh(major) {
        for (key, value) in defaults {
            // What was not sent goes back to its default: a document built from scratch loses the rest.
            kept.entry(key).or_insert(value);
        }
    }
    if major >= 15 && behaviour.reject_unknown_build_configs {
        check_build_configs(&mut kept)?;
    }
    Ok(Value::Object(kept))
}

fn check_build_configs(document: &mut Map<String, Value>) -> Result<(), Refusal> {
    let Some(Value::Object(container)) = document.get_mut("containerSettings") else { return Ok(()) };
    let builds = container.entry("buildConfigs").or_insert_with(|| json!([])).clone();
    let exists =
        |name: &str| builds.as_array().is_some_and(|list| list.iter().any(|build| build["name"] == name));
    for execution in container.get("executionConfigs").and_then(Value::as_array).into_iter().flatten() {
        let name = execution["name"].as_str().unwrap_or_default();
        match execution["imageBuildConfig"].as_str() {
            Some(build) if !exists(build) => {
                return Err(Refusal::illegal(format!(
                    "Container configuration '{name}' references an unknown image build configuration '{build}'"
                )));
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// One place base images are pushed to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PushTarget {
    /// `container-exec` or `spark`.
    pub(super) kind: &'static str,
    /// Registry URL with an optional prefix.
    pub(super) registry: String,
}

/// Every registry the settings name, for container execution and for managed Spark.
pub(super) fn push_targets(general: &Value) -> Vec<PushTarget> {
    let list =
        |pointer: &str| general.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut targets = Vec::new();
    let mut add = |kind: &'static str, url: &Value| {
        if let Some(url) = url.as_str().filter(|url| !url.is_empty()) {
            targets.push(PushTarget { kind, registry: url.trim_end_matches('/').to_owned() });
        }
    };
    for execution in list("/containerSettings/executionConfigs") {
        add("container-exec", &execution["repositoryURL"]);
    }
    for build in list("/containerSettings/buildConfigs") {
        for push in
            build.pointer("/dockerBuilderConfig/pushConfigs").and_then(Value::as_array).into_iter().flatten()
        {
            add("container-exec", &push["repositoryURL"]);
        }
    }
    for spark in list("/sparkSettings/executionConfigs") {
        if spark["kubernetesSettings"]["managedKubernetes"] == true {
            add("spark", &spark["kubernetesSettings"]["repositoryURL"]);
        }
    }
    targets.sort();
    targets.dedup();
    targets
}

/// Where the settings hold secrets.
const SECRETS: &[&str] = &["/mailSettings/password", "/ldapSettings/bindPassword"];

impl FakeDss {
    pub(super) fn general_settings(&self, call: &Call) -> Answer {
        let behaviour = self.behaviour();
        if call.method == "GET" {
            let mut document = self.read(|state| state.general.clone());
            for pointer in SECRETS {
                redact(&mut document, pointer, behaviour.redaction);
            }
            spelling::outward(&behaviour.spellings, Document::General, &mut document);
            return ok(document);
        }
        let mut sent = call.json()?;
        spelling::inward(&behaviour.spellings, Document::General, &mut sent);
        let mut accepted = accept(self.major(), &sent, &behaviour)?;
        self.try_write(|state| {
            for pointer in SECRETS {
                let stored = state.general.pointer(pointer).cloned();
                self.keep_secret(&mut accepted, pointer, stored);
            }
            state.general = accepted;
            Ok(())
        })?;
        Ok(Reply::Empty)
    }

    /// Its own encrypted form is taken back as what it is; anything else is a new secret; nothing keeps the old one.
    fn keep_secret(&self, document: &mut Value, pointer: &str, stored: Option<Value>) {
        let sent = document.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let (section, key) = pointer[1..].split_once('/').expect("two keys lead to each");
        match sent {
            Some(text) if self.vault().unwrap(&text).is_some() => {}
            Some(text) if text.is_empty() => {}
            Some(text) => document[section][key] = Value::from(self.vault().wrap(&text)),
            None => {
                if let (Some(stored), Some(Value::Object(fields))) = (stored, document.get_mut(section)) {
                    fields.insert(key.to_owned(), stored);
                }
            }
        }
    }

    /// A secret of the general settings in clear, as `/mailSettings/password`, to see what became of it.
    pub fn general_secret(&self, pointer: &str) -> Option<String> {
        let stored = self.read(|state| state.general.pointer(pointer).cloned())?;
        self.vault().unwrap(stored.as_str()?)
    }
}

/// Makes the secret at `pointer` look as it does when it is read.
pub(super) fn redact(document: &mut Value, pointer: &str, form: Redaction) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    let Some(Value::Object(fields)) = document.pointer_mut(parent) else { return };
    if fields.get(key).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    match form {
        Redaction::Encrypted => {}
        Redaction::Masked => drop(fields.insert(key.to_owned(), Value::from("*****"))),
        Redaction::LeftOut => drop(fields.shift_remove(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_misplaced_keys_are_dropped_without_a_word() {
        let mut sent = fresh(14);
        sent["containerSettings"]["buildConfigs"] = json!([{"name": "b"}]);
        sent["containerSettings"]["executionConfigs"] =
            json!([{"name": "eks", "prePushMode": "ecr", "colour": 1}]);
        sent["surprise"] = json!(true);
        let kept = accept(14, &sent, &Behaviour::default()).unwrap();
        assert_eq!(kept["containerSettings"]["executionConfigs"], json!([{"name": "eks"}]));
        assert!(kept["containerSettings"].get("buildConfigs").is_none());
        assert!(kept.get("surprise").is_none());
    }

    #[test]
    fn an_unknown_build_config_rejects_the_whole_document() {
        let mut sent = fresh(15);
        sent["containerSettings"]["executionConfigs"] = json!([{"name": "eks", "imageBuildConfig": "b"}]);
        assert!(accept(15, &sent, &Behaviour::default()).is_err());
        sent["containerSettings"]["buildConfigs"] =
            json!([{"name": "b", "type": "X", "imageBuilderType": "DOCKER"}]);
        let kept = accept(15, &sent, &Behaviour::default()).unwrap();
        assert_eq!(
            kept["containerSettings"]["buildConfigs"],
            json!([{"name": "b", "imageBuilderType": "DOCKER"}])
        );
    }

    #[test]
    fn what_is_not_sent_goes_back_to_its_default() {
        let kept = accept(
            14,
            &json!({"sparkSettings": {"sparkEnabled": true, "executionConfigs": []}}),
            &Behaviour::default(),
        )
        .unwrap();
        assert_eq!(kept["metastoreCatalogsSettings"]["synchronizeTo"]["flavor"], "HIVESERVER2");
        assert_eq!(kept["sparkSettings"]["executionConfigs"], json!([]));
    }
}
