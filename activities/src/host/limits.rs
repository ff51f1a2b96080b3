//! `host.limits`: open files and processes the service user may have, at least 65536 each for DSS.
//!
//! A file of our own below `/etc/security/limits.d`. It counts from the next login.
//!
//! # Idempotency
//! The contents follow from the input alone; the same file is written again.
//!
//! # Compensation
//! The file is removed if it still has our contents.

use std::time::Duration;

use dssflow_engine::activity::{Activity, ActivityContext, ActivityResult, Effect, Probe, Recorded, Undo};
use serde::{Deserialize, Serialize};

use super::marker;
use super::step::{self, SETTLE, host};
use super::transport::HostUser;

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LimitsInput {
    /// Name of the account.
    pub user: String,
    /// Open files, hard and soft.
    pub open_files: u32,
    /// Processes, hard and soft.
    pub processes: u32,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsOutput {
    /// The file.
    pub path: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Limits;

const FILE: &str = "host:file";

fn path(user: &str) -> String {
    format!("/etc/security/limits.d/90-dssflow-{user}.conf")
}

fn contents(input: &LimitsInput) -> String {
    let LimitsInput { user, open_files, processes } = input;
    format!("# Written by dssflow for DSS.\n{user} - nofile {open_files}\n{user} - nproc {processes}\n")
}

impl Activity for Limits {
    type Input = LimitsInput;
    type Output = LimitsOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(&self, ctx: &ActivityContext, input: &LimitsInput) -> ActivityResult<Probe<LimitsOutput>> {
        let host = host(ctx)?;
        step::service(&input.user)?;
        let there = async |output: &LimitsOutput| {
            let now = host.read_file(&HostUser::Root, &output.path).await?;
            Ok(now.is_some_and(|bytes| *bytes == contents(input).as_bytes()))
        };
        step::probe_marked(ctx, &*host, input, there).await
    }

    async fn execute(&self, ctx: &ActivityContext, input: &LimitsInput) -> ActivityResult<LimitsOutput> {
        let host = host(ctx)?;
        step::service(&input.user)?;
        let path = path(&input.user);
        let now = host.read_file(&HostUser::Root, &path).await?;
        let mut made = Vec::new();
        if now.is_none_or(|bytes| *bytes != contents(input).as_bytes()) {
            ctx.record_resource(FILE, &path).await?;
            made.push(path.clone());
            host.write_file(&HostUser::Root, &path, contents(input).as_bytes(), "0644", None).await?;
        }
        let output = LimitsOutput { path };
        marker::write(ctx, &*host, input, made, &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &LimitsInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        let mut undo = Undo::NothingToDo;
        for path in step::recorded_ids(recorded, FILE) {
            let now = host.read_file(&HostUser::Root, &path).await?;
            if now.is_some_and(|bytes| *bytes == contents(input).as_bytes()) {
                host.remove_file(&HostUser::Root, &path).await?;
                undo = Undo::Undone;
            }
        }
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &LimitsInput) -> String {
        format!("let {} have {} open files and {} processes", input.user, input.open_files, input.processes)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}
