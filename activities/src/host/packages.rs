//! `host.packages`: packages of the distribution, and a locale.
//!
//! Serves the repository tools and locale, Java 17, and Python 3.9-3.11 (facts/dss.md section 3).
//!
//! # Idempotency
//! Only what `rpm -q` does not know is installed; `dnf` itself is idempotent. A marker says that the step is done.
//!
//! # Compensation
//! Packages stay on an adopted host.

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::step::{self, PACKAGES_STAY, SETTLE, host, missing_packages, root};
use super::{marker, transport::Host};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PackagesInput {
    /// Names, as `dnf install` takes them.
    pub packages: Vec<String>,
    /// A locale that must be there afterwards, as `en_US.utf8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Whether to refresh the metadata first; stale metadata is a known cause of failures.
    #[serde(default)]
    pub refresh: bool,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagesOutput {
    /// Names that were not there before.
    pub installed: Vec<String>,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Packages;

const PACKAGE: &str = "host:package";

async fn complete(host: &dyn Host, input: &PackagesInput) -> ActivityResult<bool> {
    if !missing_packages(host, &input.packages).await?.is_empty() {
        return Ok(false);
    }
    let Some(locale) = &input.locale else { return Ok(true) };
    let listed = step::run_root(host, ["locale", "-a"]).await?;
    Ok(listed.text().lines().any(|l| l.eq_ignore_ascii_case(locale)))
}

impl Activity for Packages {
    type Input = PackagesInput;
    type Output = PackagesOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &PackagesInput,
    ) -> ActivityResult<Probe<PackagesOutput>> {
        let host = host(ctx)?;
        step::probe_marked(ctx, &*host, input, async |_| complete(&*host, input).await).await
    }

    async fn execute(&self, ctx: &ActivityContext, input: &PackagesInput) -> ActivityResult<PackagesOutput> {
        let host = host(ctx)?;
        let missing = missing_packages(&*host, &input.packages).await?;
        for name in &missing {
            ctx.record_resource(PACKAGE, name).await?;
        }
        if !missing.is_empty() {
            if input.refresh {
                host.run(root(["dnf", "-y", "makecache"]).timeout(step::PACKAGE_TIMEOUT)).await?;
            }
            step::dnf(&*host, &["install"], &missing).await?;
        }
        if !complete(&*host, input).await? {
            let wanted = input.locale.as_deref().unwrap_or("a package");
            let message = format!("after the installation {wanted} is still not there");
            return Err(ActivityError::terminal("PackagesIncomplete", message));
        }
        let output = PackagesOutput { installed: missing.clone() };
        marker::write(ctx, &*host, input, missing, &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &PackagesInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        let installed = step::recorded_ids(recorded, PACKAGE);
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        marker::remove(ctx, &*host, input).await?;
        if installed.is_empty() {
            return Ok(Undo::NothingToDo);
        }
        Ok(Undo::Kept { reason: format!("{PACKAGES_STAY}: {}", installed.join(" ")) })
    }

    fn describe(&self, input: &PackagesInput) -> String {
        format!("install packages: {}", input.packages.join(" "))
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}
