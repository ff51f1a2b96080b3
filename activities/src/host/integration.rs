//! `host.integration`: the standalone Hadoop libraries or Spark put into the data directory by `dssadmin`.
//!
//! DSS must be stopped; it is, and is started again if it ran.
//!
//! # Idempotency
//! The marker names the archive's hash, because DSS does not say what an integration was made from.
//!
//! # Compensation
//! There is no documented way to remove an integration; it goes with the data directory.

use std::time::Duration;

use dssflow_engine::activity::{Activity, ActivityContext, ActivityResult, Effect, Probe, Recorded, Undo};
use serde::{Deserialize, Serialize};

use super::step::{self, SETTLE, host};
use super::transport::{HostCommand, HostUser};
use super::{check_path, marker};

/// Which integration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntegrationKind {
    /// `install-hadoop-integration`.
    Hadoop,
    /// `install-spark-integration -forK8S`.
    Spark,
}

impl IntegrationKind {
    fn name(self) -> &'static str {
        match self {
            Self::Hadoop => "hadoop",
            Self::Spark => "spark",
        }
    }
}

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IntegrationInput {
    /// Which.
    pub kind: IntegrationKind,
    /// The data directory.
    pub data_dir: String,
    /// The service user.
    pub user: String,
    /// The archive on the host.
    pub archive: String,
    /// Its SHA-256: another archive is another input.
    pub sha256: String,
    /// The systemd service of DSS, as `dataiku`.
    pub service: String,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntegrationOutput {
    /// The file by which the data directory shows the integration.
    pub env_file: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Integration;

const INTEGRATION: &str = "dss:integration";

impl Activity for Integration {
    type Input = IntegrationInput;
    type Output = IntegrationOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &IntegrationInput,
    ) -> ActivityResult<Probe<IntegrationOutput>> {
        let host = host(ctx)?;
        let there =
            async |output: &IntegrationOutput| Ok(host.exists(&HostUser::Root, &output.env_file).await?);
        step::probe_marked(ctx, &*host, input, there).await
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &IntegrationInput,
    ) -> ActivityResult<IntegrationOutput> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        check_path(&input.data_dir)?;
        check_path(&input.archive)?;
        let kind = input.kind.name();
        ctx.record_resource(INTEGRATION, format!("{} {kind}", input.data_dir)).await?;
        let dssadmin = format!("{}/bin/dssadmin", input.data_dir);
        let verb = format!("install-{kind}-integration");
        let mut argv = vec![dssadmin.as_str(), &verb, "-standaloneArchive", &input.archive];
        match input.kind {
            IntegrationKind::Hadoop => argv.extend(["-standalone", "generic-hadoop3"]),
            IntegrationKind::Spark => argv.push("-forK8S"),
        }
        let command = HostCommand::new(user, argv).timeout(Duration::from_mins(30));
        step::with_dss_stopped(&*host, &input.service, async || Ok(host.run(command).await?)).await?;
        let output = IntegrationOutput { env_file: format!("{}/bin/env-{kind}.sh", input.data_dir) };
        marker::write(ctx, &*host, input, vec![output.env_file.clone()], &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &IntegrationInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        if recorded.resources.is_empty() || !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        marker::remove(ctx, &*host, input).await?;
        let kind = input.kind.name();
        Ok(Undo::Kept {
            reason: format!(
                "DSS has no way to remove its {kind} integration; it goes with the data directory"
            ),
        })
    }

    fn describe(&self, input: &IntegrationInput) -> String {
        format!("install the {} integration into {}", input.kind.name(), input.data_dir)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}
