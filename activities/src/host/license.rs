//! `host.license`: the licence file of DSS, `DATADIR/config/license.json`.
//!
//! DSS reads it when it starts; if it runs, it is stopped and started around the change.
//!
//! # Idempotency
//! The contents are compared; the file is written by rename.
//!
//! # Compensation
//! The older file, saved beside it on the host, comes back while the current one is ours; without an older one ours is
//! removed.

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::step::{self, SETTLE, host};
use super::transport::HostUser;
use super::{check_path, marker};
use crate::secret::{SecretRef, resolve_in};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LicenseInput {
    /// The data directory.
    pub data_dir: String,
    /// The service user.
    pub user: String,
    /// Where the licence lies.
    pub license: SecretRef,
    /// The systemd service of DSS, as `dataiku`.
    pub service: String,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenseOutput {
    /// The file.
    pub path: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct License;

const FILE: &str = "host:file";

fn path(input: &LicenseInput) -> ActivityResult<String> {
    let path = format!("{}/config/license.json", input.data_dir);
    check_path(&path)?;
    Ok(path)
}

fn aside(path: &str) -> String {
    format!("{path}.dssflow-before")
}

impl Activity for License {
    type Input = LicenseInput;
    type Output = LicenseOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Update
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &LicenseInput,
    ) -> ActivityResult<Probe<LicenseOutput>> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let current = async |output: &LicenseOutput| {
            let wanted = resolve_in(ctx, &input.license).await?;
            let now = host.read_file(&user, &output.path).await?;
            Ok(now.is_some_and(|now| now.as_slice() == wanted.expose().as_bytes()))
        };
        step::probe_marked(ctx, &*host, input, current).await
    }

    async fn execute(&self, ctx: &ActivityContext, input: &LicenseInput) -> ActivityResult<LicenseOutput> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let path = path(input)?;
        let wanted = resolve_in(ctx, &input.license).await?;
        if serde_json::from_str::<serde_json::Value>(wanted.expose()).is_err() {
            return Err(ActivityError::terminal("LicenseNotJson", "the licence is not JSON")
                .help("point `dss.license` at the file Dataiku sent")
                .no_effect());
        }
        let now = host.read_file(&user, &path).await?;
        let mut made = Vec::new();
        if now.as_ref().is_none_or(|now| now.as_slice() != wanted.expose().as_bytes()) {
            if now.is_some() && !host.exists(&user, &aside(&path)).await? {
                host.copy_file(&user, &path, &aside(&path)).await?;
            }
            let id = format!("{path} {}", step::fingerprint(ctx, wanted.expose().as_bytes()));
            ctx.record_resource(FILE, id).await?;
            let write =
                async || Ok(host.write_file(&user, &path, wanted.expose().as_bytes(), "0600", None).await?);
            step::with_dss_stopped(&*host, &input.service, write).await?;
            made.push(path.clone());
        }
        let output = LicenseOutput { path };
        marker::write(ctx, &*host, input, made, &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &LicenseInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        let user = HostUser::Root;
        let path = path(input)?;
        let ids = step::recorded_ids(recorded, FILE);
        let saved = host.exists(&user, &aside(&path)).await?;
        let mut undo = Undo::NothingToDo;
        if !ids.is_empty() {
            let now = host.read_file(&user, &path).await?;
            let ours = now
                .as_ref()
                .is_some_and(|now| ids.contains(&format!("{path} {}", step::fingerprint(ctx, now))));
            if now.is_some() && !ours && saved {
                let message =
                    format!("{path} was changed after dssflow wrote it; the older file is beside it");
                return Err(ActivityError::needs_human("ChangedSince", message).help(format!(
                    "compare {path} with {}, keep one of them, then retry the rollback",
                    aside(&path)
                )));
            }
            if ours {
                host.remove_file(&user, &path).await?;
                undo = Undo::Undone;
            }
            if saved && host.move_path(&user, &aside(&path), &path).await? {
                undo = Undo::Undone;
            }
        }
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &LicenseInput) -> String {
        format!("put the licence from {} into DSS", input.license)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}
