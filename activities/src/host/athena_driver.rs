//! `host.athena-driver`: the Athena JDBC driver in a directory of its own.
//!
//! Outside `DATADIR/lib/jdbc`, where its jars would conflict (Dataiku, Athena connections).
//!
//! # Idempotency
//! Checked by hash, unpacked beside the target and moved in place by one rename.
//!
//! # Compensation
//! The directory is removed if this run made it.

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::kit::path_for;
use super::step::{self, Download, SETTLE, host, root};
use super::transport::{Host, HostUser};
use super::{SCRATCH, check_path, marker, owned_dir};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AthenaDriverInput {
    /// URL of the driver: a `.jar`, or a `.zip` with jars.
    pub url: String,
    /// SHA-256 of the download, lower-case hex.
    pub sha256: String,
    /// Directory for the jars.
    pub directory: String,
    /// The data directory of DSS, to keep out of.
    pub data_dir: String,
    /// The service user, who must be able to read it.
    pub user: String,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AthenaDriverOutput {
    /// Directory with the jars.
    pub directory: String,
    /// Their names, sorted.
    pub jars: Vec<String>,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct AthenaDriver;

const TREE: &str = "host:tree";

async fn jars(host: &dyn Host, user: &HostUser, directory: &str) -> ActivityResult<Vec<String>> {
    let mut names = host.list_dir(user, directory).await?.unwrap_or_default();
    names.retain(|name| name.strip_suffix(".jar").is_some_and(|stem| !stem.is_empty()));
    names.sort();
    Ok(names)
}

impl Activity for AthenaDriver {
    type Input = AthenaDriverInput;
    type Output = AthenaDriverOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &AthenaDriverInput,
    ) -> ActivityResult<Probe<AthenaDriverOutput>> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let there = async |output: &AthenaDriverOutput| {
            Ok(jars(&*host, &user, &output.directory).await? == output.jars)
        };
        step::probe_marked(ctx, &*host, input, there).await
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &AthenaDriverInput,
    ) -> ActivityResult<AthenaDriverOutput> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let directory = input.directory.trim_end_matches('/');
        check_path(directory)?;
        if format!("{directory}/").starts_with(&format!("{}/lib/jdbc/", input.data_dir)) {
            let message =
                "the driver must lie outside of lib/jdbc of the data directory: its jars conflict there";
            return Err(ActivityError::terminal("DriverInLibJdbc", message).no_effect());
        }
        let mut made = Vec::new();
        if jars(&*host, &user, directory).await?.is_empty() {
            if host.stat(&HostUser::Root, directory).await?.is_some_and(|s| s.entries > 0) {
                let message = format!("{directory} is there, has no jar in it, and is not empty");
                return Err(ActivityError::needs_human("DirectoryInTheWay", message)
                    .help("choose another directory for the driver"));
            }
            let root_user = HostUser::Root;
            let scratch = format!("{directory}.dssflow-new");
            ctx.record_resource(TREE, directory).await?;
            ctx.record_resource(SCRATCH, &scratch).await?;
            made.push(directory.to_owned());
            let parent = directory.rsplit_once('/').map_or("", |(parent, _)| parent);
            owned_dir::make(ctx, &*host, parent, "root", "0755").await?;
            host.make_dir(&root_user, &scratch, "0755", None).await?;
            let file = path_for(&scratch, &input.url)?;
            let wanted =
                Download { url: &input.url, sha256: Some(&input.sha256), path: &file, user: &root_user };
            step::download(ctx, &*host, wanted).await?;
            if step::has_extension(&file, "zip") {
                step::run_root(&*host, ["unzip", "-q", "-o", &file, "-d", &scratch]).await?;
                host.remove_file(&root_user, &file).await?;
            }
            host.run(root(["chmod", "-R", "a+rX", &scratch])).await?;
            host.remove_empty_dir(&root_user, directory).await?;
            host.move_path(&root_user, &scratch, directory).await?;
        }
        let jars = jars(&*host, &user, directory).await?;
        if jars.is_empty() {
            let message = format!("{directory} has no jar that {} can see", input.user);
            return Err(ActivityError::terminal("DriverWithoutJar", message)
                .help("the archive must hold its jars at the top"));
        }
        let output = AthenaDriverOutput { directory: directory.to_owned(), jars };
        marker::write(ctx, &*host, input, made, &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &AthenaDriverInput,
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
        owned_dir::remove_empty(ctx, &*host, input.directory.trim_end_matches('/')).await?;
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &AthenaDriverInput) -> String {
        format!("put the Athena JDBC driver into {}", input.directory)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}
