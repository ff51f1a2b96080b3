//! `host.dss-start`: DSS running and ready, started by systemd.
//!
//! Never by `bin/dss start`: Dataiku's page warns against mixing the two. Ready means that `dsscli` gets an answer.
//!
//! # Idempotency
//! A running service is only waited for.
//!
//! # Compensation
//! The service is stopped if this run started it.

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::step::{self, SETTLE, host, root};
use super::transport::{Host, HostCommand, HostUser};
use super::{check_path, marker};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DssStartInput {
    /// The systemd service, as `dataiku`.
    pub service: String,
    /// The data directory.
    pub data_dir: String,
    /// The service user.
    pub user: String,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DssStartOutput {
    /// The service.
    pub service: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct DssStart;

const STARTED: &str = "host:service-started";
/// How long DSS may take from start to the first answer.
const READY_WITHIN: Duration = Duration::from_mins(10);
/// Pause between two questions; short at first, so that a fast start is not waited for.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

async fn ready(host: &dyn Host, user: &HostUser, data_dir: &str) -> ActivityResult<bool> {
    let dsscli = format!("{data_dir}/bin/dsscli");
    let command = HostCommand::new(user.clone(), [dsscli.as_str(), "api-keys-list", "--output", "json"]);
    step::succeeds(host, command).await
}

impl Activity for DssStart {
    type Input = DssStartInput;
    type Output = DssStartOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &DssStartInput,
    ) -> ActivityResult<Probe<DssStartOutput>> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let running = async |_: &_| {
            Ok(step::is_active(&*host, &input.service).await?
                && ready(&*host, &user, &input.data_dir).await?)
        };
        step::probe_marked(ctx, &*host, input, running).await
    }

    async fn execute(&self, ctx: &ActivityContext, input: &DssStartInput) -> ActivityResult<DssStartOutput> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        step::check_unit(&input.service)?;
        check_path(&input.data_dir)?;
        let mut made = Vec::new();
        if !step::is_active(&*host, &input.service).await? {
            ctx.record_resource(STARTED, &input.service).await?;
            made.push(input.service.clone());
            host.run(root(["systemctl", "start", &input.service]).timeout(READY_WITHIN)).await?;
        }
        let started = ctx.now();
        let mut pause = FIRST_PAUSE;
        while !ready(&*host, &user, &input.data_dir).await? {
            let waited = ctx.now().since(started);
            if waited > READY_WITHIN {
                let message = format!("DSS gave no answer within {} s of its start", READY_WITHIN.as_secs());
                return Err(ActivityError::retryable("DssNotReady", message)
                    .help(format!("look at {}/run/backend.log on the host", input.data_dir)));
            }
            ctx.heartbeat(serde_json::json!({"waiting_s": waited.as_secs()}));
            ctx.sleep(pause).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let output = DssStartOutput { service: input.service.clone() };
        marker::write(ctx, &*host, input, made, &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &DssStartInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        let mut undo = Undo::NothingToDo;
        for service in step::recorded_ids(recorded, STARTED) {
            if step::is_active(&*host, &service).await? {
                host.run(root(["systemctl", "stop", &service]).timeout(Duration::from_mins(10))).await?;
                undo = Undo::Undone;
            }
        }
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &DssStartInput) -> String {
        format!("start {} and wait until DSS answers", input.service)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}
