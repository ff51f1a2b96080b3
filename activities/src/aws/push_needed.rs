//! Whether images of the host have to be pushed: a push that would change nothing is left out, so that a second run of a
//! site makes no call that changes anything.

use std::collections::BTreeMap;

use aws_sdk_ecr::types::ImageIdentifier;
use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{classify, none_if};
use super::images::ImageWanted;
use crate::clients::AwsClients;
use crate::host::{HostCommand, HostHandle, HostUser};

/// The registered name.
pub const NAME: &str = "aws.ecr.push-needed";

/// What [`PushNeeded`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushNeededInput {
    /// The images as they are to be in ECR.
    pub images: Vec<ImageWanted>,
    /// What stands before a local repository's name in ECR, without the slash.
    #[serde(default)]
    pub prefix: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushNeededOutput {
    /// Whether any image is not in ECR as it is on the host.
    pub needed: bool,
    /// Those that are not, as `repository:tag`.
    pub images: Vec<String>,
}

/// The ids of the host's images by `repository:tag`.
async fn local_ids(ctx: &ActivityContext) -> ActivityResult<BTreeMap<String, String>> {
    let host = ctx.resource::<HostHandle>()?;
    let argv = ["docker", "images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"];
    let output = host.0.exec(HostCommand::new(HostUser::Root, argv)).await?;
    if !output.ok() {
        let message = format!("docker images ended with status {}: {}", output.status, output.complaint());
        return Err(ActivityError::retryable("DockerNotReady", message));
    }
    Ok(output
        .text()
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(n, id)| (n.to_owned(), id.to_owned()))
        .collect())
}

/// What tells an image in ECR apart: the digest of its manifest, and that of the configuration in it, which is the id that
/// Docker gives an image. Nothing when the tag is not there.
async fn remote_ids(clients: &AwsClients, image: &ImageWanted) -> ActivityResult<Vec<String>> {
    let id = ImageIdentifier::builder().image_tag(&image.tag).build();
    let call = clients
        .ecr()
        .batch_get_image()
        .repository_name(&image.repository)
        .image_ids(id)
        .send()
        .await
        .map_err(|e| classify("ecr:BatchGetImage", e));
    let Some(answer) = none_if(call, &["RepositoryNotFoundException"])? else { return Ok(Vec::new()) };
    let mut ids = Vec::new();
    for found in answer.images() {
        ids.extend(found.image_id().and_then(|id| id.image_digest()).map(str::to_owned));
        let manifest: Value =
            found.image_manifest().and_then(|m| serde_json::from_str(m).ok()).unwrap_or_default();
        ids.extend(manifest["config"]["digest"].as_str().map(str::to_owned));
    }
    Ok(ids)
}

/// Compares the host's images with those in ECR, by the id that Docker gives an image.
///
/// A list of manifests in ECR, as some builds push it, names no single configuration: then a push is needed, which
/// leaves the same images.
///
/// # Idempotency
/// Reads only.
///
/// # Compensation
/// None.
///
/// Page: <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_BatchGetImage.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct PushNeeded;

impl Activity for PushNeeded {
    type Input = PushNeededInput;
    type Output = PushNeededOutput;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &PushNeededInput,
    ) -> ActivityResult<PushNeededOutput> {
        let clients = AwsClients::of(ctx)?;
        let local = local_ids(ctx).await?;
        let prefix = input.prefix.as_ref().map_or_else(String::new, |prefix| format!("{prefix}/"));
        let mut images = Vec::new();
        for image in &input.images {
            let name = image.repository.strip_prefix(&prefix).unwrap_or(&image.repository);
            let id = local.get(&format!("{name}:{}", image.tag));
            let there = remote_ids(&clients, image).await?;
            if id.is_none_or(|id| !there.contains(id)) {
                images.push(format!("{}:{}", image.repository, image.tag));
            }
        }
        Ok(PushNeededOutput { needed: !images.is_empty(), images })
    }

    fn describe(&self, input: &PushNeededInput) -> String {
        let names: Vec<_> = input.images.iter().map(|i| format!("{}:{}", i.repository, i.tag)).collect();
        format!("compare {} with the images of the host", names.join(", "))
    }
}
