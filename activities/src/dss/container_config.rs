//! The container configuration that runs on EKS, and the instance's default.
//!
//! Up to DSS 14 an execution config carries its registry; from 15 a build config does, and both are written in one
//! PUT because an execution config that names a missing build config rejects the whole document. Which shape it is
//! shows in the document itself, unless the target says. Nothing here pushes an image.
//!
//! # Idempotency
//! The managed keys are compared first; equal ones are not written.
//! # Compensation
//! Our entry is removed, or the old keys are put back, where they still hold our values.
//!
//! Page: <https://doc.dataiku.com/dss/latest/containers/containerized-execution.html>

use dssflow_engine::activity::ActivityResult;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::DssTarget;
use super::document::{DocumentInput, DocumentUpdate, Place};
use super::tree::overlaid;

/// The registered name.
pub const NAME: &str = "dss.container-config";
/// The activity.
pub(crate) type ContainerConfig = DocumentUpdate<ContainerConfigInput>;
/// Namespace of the pods: one for each DSS user.
pub const DEFAULT_NAMESPACE: &str = "dssns-${dssUserLogin}";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerConfigInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Name of the execution config.
    pub name: String,
    /// Registry with an optional prefix, no scheme, no slash at the end.
    pub registry_url: String,
    /// Namespace of the pods.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Whether it becomes the instance's default.
    #[serde(default = "yes")]
    pub make_default: bool,
    /// Merged into the execution config; from DSS 15 its member `buildConfig` goes into the build config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Value>,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfigOutput {
    /// Name of the execution config.
    pub name: String,
}

pub(crate) fn default_namespace() -> String {
    DEFAULT_NAMESPACE.to_owned()
}

fn yes() -> bool {
    true
}

/// Whether the document has the container settings of DSS 15 and later.
pub(crate) fn has_build_configs(target: &DssTarget, document: &Value) -> bool {
    match target.major {
        Some(major) => major >= 15,
        None => document.pointer("/containerSettings/buildConfigs").is_some(),
    }
}

fn up_to_14(input: &ContainerConfigInput) -> Value {
    let entry = json!({
        "name": input.name, "type": "KUBERNETES", "usableBy": "ALL", "allowedGroups": [], "properties": [],
        "dockerNetwork": "host", "dockerResources": [], "kubernetesNamespace": input.namespace,
        "createNamespace": true, "ensureNamespaceCompliance": false,
        "kubernetesResources": {"memRequestMB": -1, "memLimitMB": -1, "cpuRequest": -1.0, "cpuLimit": -1.0,
                                "customLimits": [], "customRequests": []},
        "hostPathVolumes": [], "isFinal": false, "baseImageType": "EXEC", "dockerTLSVerify": false,
        "repositoryURL": input.registry_url, "prePushMode": "ECR"
    });
    json!({"executionConfigs": [overlaid(entry, input.overlay.as_ref())]})
}

fn from_15(input: &ContainerConfigInput) -> Value {
    let build_name = format!("{}-build", input.name);
    let mut overlay = input.overlay.clone().unwrap_or_else(|| json!({}));
    let build_overlay = overlay.as_object_mut().and_then(|fields| fields.shift_remove("buildConfig"));
    let build = json!({
        "name": build_name, "baseImageType": "EXEC", "imageBuilderType": "DOCKER",
        "dockerBuilderConfig": {"dockerTLSVerify": false,
                                "pushConfigs": [{"repositoryURL": input.registry_url, "prePushMode": "ECR"}]}
    });
    let entry = json!({
        "name": input.name, "type": "KUBERNETES", "imageBuildConfig": build_name, "usableBy": "ALL",
        "allowedGroups": [], "workloadType": "ANY",
        "kubernetesRuntimeConfig": {"createNamespace": true, "kubernetesNamespace": input.namespace}
    });
    json!({
        "buildConfigs": [overlaid(build, build_overlay.as_ref())],
        "executionConfigs": [overlaid(entry, Some(&overlay))]
    })
}

impl DocumentInput for ContainerConfigInput {
    type Output = ContainerConfigOutput;

    fn target(&self) -> &DssTarget {
        &self.target
    }

    fn place(&self) -> Place {
        Place::GeneralSettings
    }

    fn patch(&self, document: &Value) -> ActivityResult<Value> {
        let mut settings =
            if has_build_configs(&self.target, document) { from_15(self) } else { up_to_14(self) };
        if self.make_default {
            settings["defaultExecutionConfig"] = json!(self.name);
        }
        Ok(json!({"containerSettings": settings}))
    }

    fn output(&self, _document: &Value) -> ContainerConfigOutput {
        ContainerConfigOutput { name: self.name.clone() }
    }

    fn describe(&self) -> String {
        let default = if self.make_default { ", the default" } else { "" };
        format!("container configuration {} with images in {}{default}", self.name, self.registry_url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretRef;

    fn input() -> ContainerConfigInput {
        ContainerConfigInput {
            target: DssTarget {
                url: "http://x".into(),
                api_key: SecretRef::Env { env: "K".into() },
                major: None,
            },
            name: "eks".into(),
            registry_url: "1.dkr.ecr.eu-west-1.amazonaws.com/team".into(),
            namespace: default_namespace(),
            make_default: true,
            overlay: Some(json!({"workloadType": "USER_CODE", "buildConfig": {"baseImageType": "CDE"}})),
        }
    }

    #[test]
    fn the_document_decides_the_shape() {
        let old = input().patch(&json!({"containerSettings": {"executionConfigs": []}})).unwrap();
        assert_eq!(old.pointer("/containerSettings/executionConfigs/0/prePushMode"), Some(&json!("ECR")));
        let new = input().patch(&json!({"containerSettings": {"buildConfigs": []}})).unwrap();
        let new = &new["containerSettings"];
        assert_eq!(new["executionConfigs"][0]["imageBuildConfig"], new["buildConfigs"][0]["name"]);
        assert_eq!(new["buildConfigs"][0]["baseImageType"], "CDE");
        assert_eq!(new["executionConfigs"][0]["workloadType"], "USER_CODE");
        assert!(new["executionConfigs"][0].get("buildConfig").is_none());
        assert_eq!(new["defaultExecutionConfig"], "eks");
    }
}
