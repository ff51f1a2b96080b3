//! `host.docker`: Docker CE from its own repository, enabled and running.
//!
//! After docs.docker.com/engine/install/centos and Dataiku's page on containers, which rules out podman's shim.
//!
//! # Idempotency
//! Packages, repository file and service are looked at one by one; only what is missing is done. Packages that
//! conflict (podman, buildah, runc, old Docker) are removed; their names are recorded first.
//!
//! # Compensation
//! What the step added goes: service disabled, packages removed, group and repository file removed, and the
//! conflicting packages that were there before come back. Docker that was there before is not touched.

use std::collections::BTreeMap;
use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::step::{self, SETTLE, host, missing_packages, root};
use super::transport::{Host, HostUser};
use super::{HostCommand, marker};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DockerInput {
    /// URL of `docker-ce.repo`.
    pub repo_url: String,
    /// Packages; `docker-ce`, `docker-ce-cli` and `containerd.io` as a rule.
    pub packages: Vec<String>,
}

/// What runs now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerOutput {
    /// Version of the Docker server.
    pub version: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Docker;

const CONFLICTS: [&str; 6] = ["podman", "podman-docker", "buildah", "runc", "docker", "docker-common"];
const REPO_DIR: &str = "/etc/yum.repos.d";
const UNIT: &str = "docker";
const PACKAGE: &str = "host:package";
const FILE: &str = "host:file";
const GROUP: &str = "host:group";
const ENABLED: &str = "host:service-enabled";
const REMOVED: &str = "removed_packages";

async fn server_version(host: &dyn Host) -> ActivityResult<Option<String>> {
    let output = host.exec(root(["docker", "version", "-f", "{{.Server.Version}}"])).await?;
    let version = output.text();
    Ok((output.ok() && !version.is_empty()).then_some(version))
}

fn repo_file(url: &str) -> ActivityResult<String> {
    let name = url.rsplit('/').next().unwrap_or_default();
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !plain || name.strip_suffix(".repo").is_none_or(str::is_empty) || url::Url::parse(url).is_err() {
        return Err(ActivityError::terminal(
            "BadUrl",
            "the Docker repository must be the URL of a .repo file",
        )
        .no_effect());
    }
    Ok(format!("{REPO_DIR}/{name}"))
}

async fn group_exists(host: &dyn Host) -> ActivityResult<bool> {
    step::succeeds(host, root(["getent", "group", "docker"])).await
}

impl Activity for Docker {
    type Input = DockerInput;
    type Output = DockerOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(&self, ctx: &ActivityContext, input: &DockerInput) -> ActivityResult<Probe<DockerOutput>> {
        let host = host(ctx)?;
        step::probe_marked(ctx, &*host, input, async |_| Ok(server_version(&*host).await?.is_some())).await
    }

    async fn execute(&self, ctx: &ActivityContext, input: &DockerInput) -> ActivityResult<DockerOutput> {
        let host = host(ctx)?;
        let missing = missing_packages(&*host, &input.packages).await?;
        if !missing.is_empty() {
            let names: Vec<String> = CONFLICTS.iter().map(|s| (*s).to_owned()).collect();
            let absent = missing_packages(&*host, &names).await?;
            let conflicting: Vec<String> = names.into_iter().filter(|n| !absent.contains(n)).collect();
            if !conflicting.is_empty() {
                let before = BTreeMap::from([(REMOVED.to_owned(), serde_json::json!(conflicting))]);
                ctx.record_before(before).await?;
                step::dnf(&*host, &["remove"], &conflicting).await?;
            }
            let repo = repo_file(&input.repo_url)?;
            if !host.exists(&HostUser::Root, &repo).await? {
                ctx.record_resource(FILE, &repo).await?;
                host.run(root(["dnf", "-y", "config-manager", "--add-repo", &input.repo_url])).await?;
            }
            if !group_exists(&*host).await? {
                ctx.record_resource(GROUP, "docker").await?;
            }
            for name in &missing {
                ctx.record_resource(PACKAGE, name).await?;
            }
            step::dnf(&*host, &["install"], &missing).await?;
        }
        if !step::succeeds(&*host, root(["systemctl", "is-enabled", "--quiet", UNIT])).await? {
            ctx.record_resource(ENABLED, UNIT).await?;
        }
        let start: HostCommand = root(["systemctl", "enable", "--now", UNIT]).timeout(Duration::from_mins(3));
        host.run(start).await?;
        let Some(version) = server_version(&*host).await? else {
            return Err(ActivityError::retryable(
                "DockerNotReady",
                "the Docker service was started but does not answer",
            ));
        };
        let output = DockerOutput { version };
        marker::write(ctx, &*host, input, missing, &output).await?;
        Ok(output)
    }

    async fn verify(&self, ctx: &ActivityContext, _: &DockerInput, _: &DockerOutput) -> ActivityResult<()> {
        let host = host(ctx)?;
        if missing_packages(&*host, &["podman-docker".to_owned()]).await?.is_empty() {
            return Err(ActivityError::terminal(
                "PodmanShim",
                "podman's `docker` shim is installed; DSS does not work with it",
            )
            .help("run `dnf remove podman-docker` on the host"));
        }
        Ok(())
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &DockerInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        if recorded.resources.is_empty() && recorded.before.is_empty() {
            marker::remove(ctx, &*host, input).await?;
            return Ok(Undo::NothingToDo);
        }
        let mut undo = Undo::NothingToDo;
        let packages = step::recorded_ids(recorded, PACKAGE);
        let absent = missing_packages(&*host, &packages).await?;
        let present: Vec<String> = packages.into_iter().filter(|p| !absent.contains(p)).collect();
        let docker_there = missing_packages(&*host, &["docker-ce".to_owned()]).await?.is_empty();
        if docker_there && recorded.ids(ENABLED).next().is_some() {
            host.run(root(["systemctl", "disable", "--now", UNIT]).timeout(Duration::from_mins(3))).await?;
            undo = Undo::Undone;
        }
        if !present.is_empty() {
            step::dnf(&*host, &["remove"], &present).await?;
            undo = Undo::Undone;
        }
        if recorded.ids(GROUP).next().is_some() && group_exists(&*host).await? {
            let members = step::run_root(&*host, ["getent", "group", "docker"]).await?.text();
            // A group that somebody else put people into is theirs by now.
            if members.ends_with(':') {
                step::run_root(&*host, ["groupdel", "docker"]).await?;
                undo = Undo::Undone;
            }
        }
        for file in step::recorded_ids(recorded, FILE) {
            if host.remove_file(&HostUser::Root, &file).await? {
                undo = Undo::Undone;
            }
        }
        let removed = recorded.before.get(REMOVED).cloned().unwrap_or_default();
        let removed: Vec<String> = serde_json::from_value(removed).unwrap_or_default();
        let back = missing_packages(&*host, &removed).await?;
        if !back.is_empty() {
            step::dnf(&*host, &["install"], &back).await?;
            undo = Undo::Undone;
        }
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &DockerInput) -> String {
        format!("install and start Docker CE ({})", input.packages.join(" "))
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}
