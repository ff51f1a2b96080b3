//! `host.install-deps`: the packages DSS itself asks for, by the kit's own script.
//!
//! Run before the installer, which avoids the documented loop of failing, installing and starting again.
//!
//! # Idempotency
//! `install-deps.sh -check` says what is missing, without root; `-yes` installs only that.
//!
//! # Compensation
//! Packages stay on an adopted host.

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::step::{self, PACKAGE_TIMEOUT, PACKAGES_STAY, SETTLE, host, root};
use super::transport::{Host, HostCommand, HostUser};
use super::{check_path, marker};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstallDepsInput {
    /// The installation directory of DSS.
    pub install_dir: String,
    /// The service user.
    pub user: String,
    /// Also what R needs.
    #[serde(default)]
    pub with_r: bool,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallDepsOutput {
    /// Whether anything had to be installed.
    pub installed: bool,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct InstallDeps;

const PACKAGES: &str = "host:packages";

fn script(input: &InstallDepsInput) -> ActivityResult<String> {
    let path = format!("{}/scripts/install/install-deps.sh", input.install_dir);
    check_path(&path)?;
    Ok(path)
}

async fn complete(host: &dyn Host, user: &HostUser, input: &InstallDepsInput) -> ActivityResult<bool> {
    let mut argv = vec![script(input)?, "-check".to_owned()];
    if input.with_r {
        argv.push("-with-r".to_owned());
    }
    step::succeeds(host, HostCommand::new(user.clone(), argv)).await
}

impl Activity for InstallDeps {
    type Input = InstallDepsInput;
    type Output = InstallDepsOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &InstallDepsInput,
    ) -> ActivityResult<Probe<InstallDepsOutput>> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        step::probe_marked(ctx, &*host, input, async |_| complete(&*host, &user, input).await).await
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &InstallDepsInput,
    ) -> ActivityResult<InstallDepsOutput> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let mut installed = false;
        if !complete(&*host, &user, input).await? {
            ctx.record_resource(PACKAGES, script(input)?).await?;
            let mut argv = vec![script(input)?, "-yes".to_owned()];
            if input.with_r {
                argv.push("-with-r".to_owned());
            }
            host.run(root(argv).timeout(PACKAGE_TIMEOUT)).await?;
            installed = true;
            if !complete(&*host, &user, input).await? {
                return Err(ActivityError::retryable(
                    "DependenciesIncomplete",
                    "install-deps.sh -check still finds something missing",
                ));
            }
        }
        let output = InstallDepsOutput { installed };
        marker::write(ctx, &*host, input, Vec::new(), &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &InstallDepsInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        marker::remove(ctx, &*host, input).await?;
        if recorded.ids(PACKAGES).next().is_none() {
            return Ok(Undo::NothingToDo);
        }
        Ok(Undo::Kept { reason: format!("{PACKAGES_STAY}: what install-deps.sh of DSS installed") })
    }

    fn describe(&self, _: &InstallDepsInput) -> String {
        "install the packages DSS needs".to_owned()
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}
