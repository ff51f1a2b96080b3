//! `host.base-image`: the container base images of DSS, built by `dssadmin build-base-image`.
//!
//! The image for Python and R is `dku-exec-base-INSTALLID:dss-VERSION`; the name of the Spark one is not documented,
//! so images are found by install id and tag. They must be built anew after each upgrade of DSS: the version is
//! part of the input.
//!
//! # Idempotency
//! The step looks for the images by name before it builds; Docker's own cache makes a second build cheap.
//!
//! # Compensation
//! The local tags that were not there before are removed. Pushed images are another step's business.

use std::collections::BTreeMap;
use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::install_dss::inspect;
use super::step::{self, SETTLE, host, root};
use super::transport::{Host, HostCommand};
use super::{check_path, marker};

/// Which image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaseImageKind {
    /// Python and R code.
    ContainerExec,
    /// Spark drivers and executors.
    Spark,
}

impl BaseImageKind {
    fn name(self) -> &'static str {
        match self {
            Self::ContainerExec => "container-exec",
            Self::Spark => "spark",
        }
    }

    /// Whether a repository can be of this kind. `dku-exec-base-` is documented; all else with the install id is not.
    fn owns(self, repository: &str) -> bool {
        let exec = repository.contains("exec-base-");
        match self {
            Self::ContainerExec => exec,
            Self::Spark => !exec && repository.contains("spark"),
        }
    }
}

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BaseImageInput {
    /// Which.
    pub kind: BaseImageKind,
    /// The data directory.
    pub data_dir: String,
    /// The service user, in the `docker` group.
    pub user: String,
    /// Version of DSS.
    pub version: String,
    /// More options of `build-base-image`, as `--without-r`.
    #[serde(default)]
    pub options: Vec<String>,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseImageOutput {
    /// Install id of the data directory.
    pub install_id: String,
    /// `repository:tag` of every image, sorted.
    pub images: Vec<String>,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct BaseImage;

const IMAGE: &str = "docker:image-kind";
const BEFORE: &str = "images";

/// Local images with the install id and the version's tag, of this kind.
async fn images(host: &dyn Host, input: &BaseImageInput, install_id: &str) -> ActivityResult<Vec<String>> {
    let argv = ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"];
    let output = host.exec(root(argv)).await?;
    // 127: Docker itself is gone, as when an undo is repeated after the rest was undone.
    if !output.ok() && output.status != 127 {
        let message = format!("docker images ended with status {}: {}", output.status, output.complaint());
        return Err(ActivityError::retryable("DockerNotReady", message));
    }
    let tag = format!("dss-{}", input.version);
    let mut found: Vec<String> = output
        .text()
        .lines()
        .filter(|line| {
            line.rsplit_once(':').is_some_and(|(repository, t)| {
                t == tag
                    && repository.ends_with(install_id)
                    && !repository.contains('/')
                    && input.kind.owns(repository)
            })
        })
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

impl Activity for BaseImage {
    type Input = BaseImageInput;
    type Output = BaseImageOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &BaseImageInput,
    ) -> ActivityResult<Probe<BaseImageOutput>> {
        let host = host(ctx)?;
        let there = async |output: &BaseImageOutput| {
            let now = images(&*host, input, &output.install_id).await?;
            Ok(output.images.iter().all(|image| now.contains(image)))
        };
        step::probe_marked(ctx, &*host, input, there).await
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &BaseImageInput,
    ) -> ActivityResult<BaseImageOutput> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        check_path(&input.data_dir)?;
        let Some(dss) = inspect(&*host, &user, &input.data_dir).await? else {
            return Err(ActivityError::terminal(
                "NoDataDir",
                format!("{} is not a complete data directory", input.data_dir),
            )
            .no_effect());
        };
        let before = images(&*host, input, &dss.install_id).await?;
        ctx.record_before(BTreeMap::from([(BEFORE.to_owned(), serde_json::json!(before))])).await?;
        ctx.record_resource(IMAGE, &dss.install_id).await?;
        let dssadmin = format!("{}/bin/dssadmin", input.data_dir);
        let fixed = [dssadmin.as_str(), "build-base-image", "--type", input.kind.name()];
        let argv = fixed.into_iter().chain(input.options.iter().map(String::as_str));
        let building = host.exec(HostCommand::new(user, argv).timeout(Duration::from_hours(1)));
        tokio::pin!(building);
        let started = ctx.now();
        let output = loop {
            tokio::select! {
                output = &mut building => break output?,
                beat = ctx.sleep(Duration::from_secs(20)) => {
                    beat?;
                    ctx.heartbeat(serde_json::json!({"building_s": ctx.now().since(started).as_secs()}));
                }
            }
        };
        if !output.ok() {
            let complaint = output.complaint();
            let message = format!(
                "building the {} image ended with status {}: {complaint}",
                input.kind.name(),
                output.status
            );
            if complaint.contains("permission denied") {
                return Err(ActivityError::terminal("DockerDenied", message)
                    .help("the service user must be in the `docker` group"));
            }
            return Err(ActivityError::retryable("BuildFailed", message)
                .help("the build needs Internet and about 20 GB of disk"));
        }
        let found = images(&*host, input, &dss.install_id).await?;
        if found.is_empty() {
            let message = format!(
                "the build ended well, but no {} image has the install id and version",
                input.kind.name()
            );
            return Err(ActivityError::terminal("ImageMissing", message));
        }
        let output = BaseImageOutput { install_id: dss.install_id, images: found.clone() };
        marker::write(ctx, &*host, input, found, &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &BaseImageInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        let before = recorded.before.get(BEFORE).cloned().unwrap_or_default();
        let before: Vec<String> = serde_json::from_value(before).unwrap_or_default();
        let mut undo = Undo::NothingToDo;
        for install_id in step::recorded_ids(recorded, IMAGE) {
            for image in images(&*host, input, &install_id).await? {
                if before.contains(&image) {
                    continue;
                }
                let output = host.exec(root(["docker", "rmi", &image])).await?;
                if !output.ok() && !output.complaint().contains("No such image") {
                    let message = format!("docker rmi {image}: {}", output.complaint());
                    return Err(ActivityError::retryable("ImageInUse", message)
                        .help("stop the containers that use the image, then retry the rollback"));
                }
                undo = Undo::Undone;
            }
        }
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &BaseImageInput) -> String {
        format!("build the {} base image of DSS {}", input.kind.name(), input.version)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_kinds_are_told_apart() {
        assert!(BaseImageKind::ContainerExec.owns("dku-exec-base-abcd1234"));
        assert!(!BaseImageKind::Spark.owns("dku-exec-base-abcd1234"));
        assert!(BaseImageKind::Spark.owns("dku-spark-base-abcd1234"));
    }
}
