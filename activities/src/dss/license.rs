//! The licence, put into a running DSS.
//!
//! # Idempotency
//! The licence DSS shows is compared first; where it cannot be compared it is put in again, which changes nothing.
//! # Compensation
//! None: DSS has no call that takes a licence out. It goes with the installation.
//!
//! Page: <https://doc.dataiku.com/dss/latest/installation/other/index.html>

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::client::{DssClient, DssTarget};
use super::tree;
use crate::secret::{SecretRef, resolve_in};

/// The registered name.
pub const NAME: &str = "dss.license";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LicenseInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Where the content of the licence file is.
    pub license: SecretRef,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenseOutput {
    /// The kind of licence DSS shows, when it shows one.
    pub kind: Option<String>,
}

/// The activity.
pub(crate) struct License;

async fn content(ctx: &ActivityContext, input: &LicenseInput) -> ActivityResult<Value> {
    let text = resolve_in(ctx, &input.license).await?;
    let parsed: Option<Value> = serde_json::from_str(text.expose()).ok();
    parsed.filter(Value::is_object).ok_or_else(|| {
        ActivityError::terminal(
            "License",
            format!("{} is not a licence: a JSON object is expected", input.license),
        )
        .no_effect()
    })
}

/// The licence DSS shows; its shape differs between versions.
async fn shown(client: &DssClient) -> ActivityResult<Value> {
    let status = client.get(&["admin", "licensing", "status"]).await?;
    Ok(status.pointer("/base/licenseContent").cloned().unwrap_or_default())
}

fn kind(shown: &Value) -> LicenseOutput {
    LicenseOutput { kind: shown["licenseKind"].as_str().map(str::to_owned) }
}

/// Whether what DSS shows is this licence. False when it cannot be told.
fn is_in(shown: &Value, license: &Value) -> bool {
    let inner = license.get("content").filter(|inner| inner.is_object()).unwrap_or(license);
    inner.as_object().is_some_and(|fields| !fields.is_empty()) && tree::holds(shown, inner)
}

impl Activity for License {
    type Input = LicenseInput;
    type Output = LicenseOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    async fn execute(&self, ctx: &ActivityContext, input: &LicenseInput) -> ActivityResult<LicenseOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let license = content(ctx, input).await?;
        client.post(&["admin", "licensing", "license"], Some(&license)).await?;
        Ok(kind(&shown(&client).await?))
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &LicenseInput,
    ) -> ActivityResult<Probe<LicenseOutput>> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let license = content(ctx, input).await?;
        let shown = shown(&client).await?;
        Ok(if is_in(&shown, &license) {
            Probe::Present { output: kind(&shown), owner: Owner::ThisSite(String::new()) }
        } else {
            Probe::Absent
        })
    }

    async fn compensate(&self, _: &ActivityContext, _: &LicenseInput, _: &Recorded) -> ActivityResult<Undo> {
        Ok(Undo::Kept {
            reason: "a licence cannot be taken out of DSS; it goes with the installation".to_owned(),
        })
    }

    fn describe(&self, input: &LicenseInput) -> String {
        format!("licence from {}", input.license)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_licence_is_recognised_by_its_content() {
        let license = json!({"content": {"licenseKind": "T", "licenseId": "1"}, "signature": "x"});
        assert!(is_in(&json!({"licenseKind": "T", "licenseId": "1", "more": 1}), &license));
        assert!(!is_in(&json!({"licenseKind": "COMMUNITY"}), &license));
        assert!(!is_in(&Value::Null, &json!({})));
    }
}
