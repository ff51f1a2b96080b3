//! `host.unpack`: the DSS kit unpacked into its installation directory.
//!
//! # Idempotency
//! Unpacked into a directory of its own beside the target and moved in place by one rename, so a half unpacked kit
//! never stands where DSS is looked for. A directory with the wanted version is left.
//!
//! # Compensation
//! The directory is removed if this run made it. The data directory is gone from its place by then.

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::step::{self, SETTLE, host};
use super::transport::{Host, HostCommand, HostUser};
use super::{SCRATCH, check_path, marker, owned_dir};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnpackInput {
    /// The archive on the host.
    pub archive: String,
    /// Its SHA-256: another archive is another input.
    pub sha256: String,
    /// Directory above the installation directory; made for the service user when missing.
    pub parent: String,
    /// The one directory in the archive, as `dataiku-dss-14.2.0`.
    pub directory: String,
    /// Version that `dss-version.json` in it must name.
    pub version: String,
    /// The service user, who owns it.
    pub user: String,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpackOutput {
    /// The installation directory.
    pub install_dir: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Unpack;

const TREE: &str = "host:tree";

/// The version in `DIR/dss-version.json`; `None` without one.
pub(super) async fn version_in(
    host: &dyn Host,
    user: &HostUser,
    dir: &str,
) -> ActivityResult<Option<String>> {
    let Some(bytes) = host.read_file(user, &format!("{dir}/dss-version.json")).await? else {
        return Ok(None);
    };
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    Ok(json.get("product_version").and_then(serde_json::Value::as_str).map(str::to_owned))
}

fn install_dir(input: &UnpackInput) -> ActivityResult<String> {
    let dir = format!("{}/{}", input.parent.trim_end_matches('/'), input.directory);
    check_path(&dir)?;
    if input.directory.is_empty() || input.directory.contains('/') {
        return Err(ActivityError::terminal("BadPath", "the kit's directory must be one name").no_effect());
    }
    Ok(dir)
}

fn scratch(input: &UnpackInput) -> String {
    format!("{}/.dssflow-unpack-{}", input.parent.trim_end_matches('/'), input.directory)
}

impl Activity for Unpack {
    type Input = UnpackInput;
    type Output = UnpackOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(&self, ctx: &ActivityContext, input: &UnpackInput) -> ActivityResult<Probe<UnpackOutput>> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let there = async |output: &UnpackOutput| {
            Ok(version_in(&*host, &user, &output.install_dir).await?.as_deref() == Some(&input.version))
        };
        step::probe_marked(ctx, &*host, input, there).await
    }

    async fn execute(&self, ctx: &ActivityContext, input: &UnpackInput) -> ActivityResult<UnpackOutput> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let dir = install_dir(input)?;
        let scratch = scratch(input);
        owned_dir::make(ctx, &*host, &input.parent, &input.user, "0755").await?;
        let mut made = Vec::new();
        if version_in(&*host, &user, &dir).await?.as_deref() == Some(&input.version) {
            // An attempt that was cut off had moved the kit in place already.
            host.remove_tree(&HostUser::Root, &scratch).await?;
        } else {
            if host.exists(&user, &dir).await? {
                let message = format!("{dir} is there and is not DSS {}", input.version);
                return Err(ActivityError::needs_human("DirectoryInTheWay", message).help(
                    "move it away on the host, or choose another `dss.install_dir`, then resume the run",
                ));
            }
            // Root makes the place, because the parent may belong to root; the kit itself belongs to the user.
            host.remove_tree(&HostUser::Root, &scratch).await?;
            let owner = format!("{0}:{0}", input.user);
            ctx.record_resource(SCRATCH, &scratch).await?;
            host.make_dir(&HostUser::Root, &scratch, "0755", Some(&owner)).await?;
            let argv = ["tar", "xzf", &input.archive, "--no-same-owner", "-C", &scratch];
            host.run(HostCommand::new(user.clone(), argv).timeout(Duration::from_mins(20))).await?;
            let unpacked = format!("{scratch}/{}", input.directory);
            let found = version_in(&*host, &user, &unpacked).await?;
            if found.as_deref() != Some(&input.version) {
                host.remove_tree(&HostUser::Root, &scratch).await?;
                let message = format!(
                    "the archive holds DSS {} in {}, {} was expected",
                    found.as_deref().unwrap_or("of no known version"),
                    input.directory,
                    input.version
                );
                return Err(ActivityError::terminal("WrongKit", message)
                    .help("check `dss.version` against `dss.kits.dss.url` in the site file"));
            }
            ctx.record_resource(TREE, &dir).await?;
            host.move_path(&HostUser::Root, &unpacked, &dir).await?;
            host.remove_tree(&HostUser::Root, &scratch).await?;
            made.push(dir.clone());
        }
        let output = UnpackOutput { install_dir: dir };
        marker::write(ctx, &*host, input, made, &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &UnpackInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        let mut undo = Undo::NothingToDo;
        let trees = [TREE, SCRATCH].map(|kind| step::recorded_ids(recorded, kind));
        for tree in trees.concat() {
            if host.remove_tree(&HostUser::Root, &tree).await? {
                undo = Undo::Undone;
            }
        }
        owned_dir::remove_empty(ctx, &*host, &input.parent).await?;
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &UnpackInput) -> String {
        format!("unpack DSS {} into {}", input.version, input.parent)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}
