//! `host.kit`: one archive downloaded to the host, complete and verified.
//!
//! # Idempotency
//! `PATH.part`, resumed by range, SHA-256, rename. A complete file with the wanted hash is left.
//!
//! # Compensation
//! The file is removed if this run downloaded it and it still has the wanted hash, and so is a part of it.

use std::time::Duration;

use dssflow_engine::activity::{Activity, ActivityContext, ActivityResult, Effect, Probe, Recorded, Undo};
use serde::{Deserialize, Serialize};

use super::step::{self, Download, SETTLE, host};
use super::transport::HostUser;
use super::{check_path, marker, owned_dir};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KitInput {
    /// Where it is downloaded from.
    pub url: String,
    /// Its SHA-256, lower-case hex.
    pub sha256: String,
    /// Directory it goes to; made for the service user when missing. The file keeps the name it has in the URL.
    pub directory: String,
    /// The service user, who owns it.
    pub user: String,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KitOutput {
    /// Path of the file.
    pub path: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Kit;

const FILE: &str = "host:file";

/// The file a URL is stored as.
pub(super) fn path_for(directory: &str, url: &str) -> ActivityResult<String> {
    let name = url.split(['?', '#']).next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let path =
        format!("{}/{}", directory.trim_end_matches('/'), if name.is_empty() { "download" } else { name });
    check_path(&path)?;
    Ok(path)
}

impl Activity for Kit {
    type Input = KitInput;
    type Output = KitOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(&self, ctx: &ActivityContext, input: &KitInput) -> ActivityResult<Probe<KitOutput>> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let same = async |output: &KitOutput| {
            let hash = host.sha256(&user, &output.path).await?;
            Ok(hash.is_some_and(|h| h.eq_ignore_ascii_case(&input.sha256)))
        };
        step::probe_marked(ctx, &*host, input, same).await
    }

    async fn execute(&self, ctx: &ActivityContext, input: &KitInput) -> ActivityResult<KitOutput> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let path = path_for(&input.directory, &input.url)?;
        owned_dir::make(ctx, &*host, &input.directory, &input.user, "0755").await?;
        let mut made = Vec::new();
        let have = host.sha256(&user, &path).await?;
        if have.is_none_or(|h| !h.eq_ignore_ascii_case(&input.sha256)) {
            ctx.record_resource(FILE, &path).await?;
            made.push(path.clone());
            let wanted = Download { url: &input.url, sha256: Some(&input.sha256), path: &path, user: &user };
            step::download(ctx, &*host, wanted).await?;
        }
        let output = KitOutput { path };
        marker::write(ctx, &*host, input, made, &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &KitInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        // As root: the service user may be gone when an undo is repeated.
        let user = HostUser::Root;
        let mut undo = Undo::NothingToDo;
        for path in step::recorded_ids(recorded, FILE) {
            host.remove_file(&user, &format!("{path}.part")).await?;
            let hash = host.sha256(&user, &path).await?;
            if hash.is_some_and(|h| h.eq_ignore_ascii_case(&input.sha256)) {
                host.remove_file(&user, &path).await?;
                undo = Undo::Undone;
            }
        }
        owned_dir::remove_empty(ctx, &*host, &input.directory).await?;
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &KitInput) -> String {
        let name = input.url.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        format!("download {name} into {}", input.directory)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}
