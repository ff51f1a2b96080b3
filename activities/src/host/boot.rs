//! `host.boot`: the systemd unit of DSS, made by the kit's `install-boot.sh`.
//!
//! # Idempotency
//! An enabled unit that names the data directory is left; one for another data directory stops the run.
//!
//! # Compensation
//! The unit this run made is disabled and removed.

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::step::{self, SETTLE, host, root};
use super::transport::{Host, HostUser};
use super::{check_path, marker};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BootInput {
    /// The installation directory.
    pub install_dir: String,
    /// The data directory.
    pub data_dir: String,
    /// The service user.
    pub user: String,
    /// Name of the instance, for `dataiku.NAME`; plain `dataiku` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootOutput {
    /// The service, as `dataiku`.
    pub service: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Boot;

const UNIT: &str = "host:unit";

fn service(input: &BootInput) -> ActivityResult<String> {
    let service = input.name.as_ref().map_or_else(|| "dataiku".to_owned(), |name| format!("dataiku.{name}"));
    step::check_unit(&service)?;
    Ok(service)
}

fn unit_file(service: &str) -> String {
    format!("/etc/systemd/system/{service}.service")
}

async fn enabled(host: &dyn Host, service: &str) -> ActivityResult<bool> {
    step::succeeds(host, root(["systemctl", "is-enabled", "--quiet", service])).await
}

impl Activity for Boot {
    type Input = BootInput;
    type Output = BootOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(&self, ctx: &ActivityContext, input: &BootInput) -> ActivityResult<Probe<BootOutput>> {
        let host = host(ctx)?;
        let there = async |output: &BootOutput| enabled(&*host, &output.service).await;
        step::probe_marked(ctx, &*host, input, there).await
    }

    async fn execute(&self, ctx: &ActivityContext, input: &BootInput) -> ActivityResult<BootOutput> {
        let host = host(ctx)?;
        step::service(&input.user)?;
        check_path(&input.data_dir)?;
        let service = service(input)?;
        let unit = host.read_file(&HostUser::Root, &unit_file(&service)).await?;
        let names_ours = unit.as_ref().map(|bytes| String::from_utf8_lossy(bytes).contains(&input.data_dir));
        // The unit of some versions names a configuration file instead of the data directory; only a path of another
        // data directory is a conflict.
        let foreign = unit.as_ref().is_some_and(|bytes| String::from_utf8_lossy(bytes).contains("DIP_HOME="))
            && names_ours == Some(false);
        if foreign {
            let message = format!("the service {service} starts another data directory");
            return Err(ActivityError::needs_human("ServiceTaken", message)
                .help("give this instance a name of its own, or remove the old unit"));
        }
        let mut made = Vec::new();
        if unit.is_none() {
            ctx.record_resource(UNIT, &service).await?;
            made.push(service.clone());
        }
        if unit.is_none() || !enabled(&*host, &service).await? {
            let script = format!("{}/scripts/install/install-boot.sh", input.install_dir);
            let mut argv = vec![script.as_str()];
            if let Some(name) = &input.name {
                argv.extend(["-n", name]);
            }
            argv.extend([input.data_dir.as_str(), &input.user]);
            step::run_root(&*host, argv).await?;
            step::run_root(&*host, ["systemctl", "daemon-reload"]).await?;
            step::run_root(&*host, ["systemctl", "enable", &service]).await?;
        }
        let output = BootOutput { service };
        marker::write(ctx, &*host, input, made, &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &BootInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        let mut undo = Undo::NothingToDo;
        for service in step::recorded_ids(recorded, UNIT) {
            if host.exists(&HostUser::Root, &unit_file(&service)).await? {
                let disable = ["systemctl", "disable", "--now", &service];
                host.run(root(disable).timeout(Duration::from_mins(10))).await?;
                host.remove_file(&HostUser::Root, &unit_file(&service)).await?;
                step::run_root(&*host, ["systemctl", "daemon-reload"]).await?;
                undo = Undo::Undone;
            }
        }
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &BootInput) -> String {
        format!("start DSS of {} with the machine", input.data_dir)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}
