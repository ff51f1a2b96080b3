//! Whether pushed images are really in ECR, by tag and digest.
//!
//! It pushes nothing: hosts and DSS do.

use aws_sdk_ecr::types::ImageIdentifier;
use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect};
use serde::{Deserialize, Serialize};

use super::error::{classify, none_if};
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.ecr.images-present";

/// What [`ImagesPresent`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesInput {
    /// The images that must be there.
    pub images: Vec<ImageWanted>,
}

/// An image that must be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageWanted {
    /// The repository's name.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// The digest it must have, when that is known.
    #[serde(default)]
    pub digest: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagesOutput {
    /// Each image with its digest, in the order asked for.
    pub images: Vec<ImageFound>,
}

/// An image that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFound {
    /// The repository's name.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// Its digest.
    pub digest: String,
}

/// The digest of a tag; `None` when repository or tag are not there.
///
/// # Errors
/// The call's own errors.
pub async fn digest_of(clients: &AwsClients, repository: &str, tag: &str) -> ActivityResult<Option<String>> {
    let id = ImageIdentifier::builder().image_tag(tag).build();
    let call = clients.ecr().describe_images().repository_name(repository).image_ids(id).send().await;
    let answer = none_if(
        call.map_err(|e| classify("ecr:DescribeImages", e)),
        &["ImageNotFoundException", "RepositoryNotFoundException"],
    )?;
    Ok(answer.and_then(|a| a.image_details().iter().find_map(|d| d.image_digest()).map(str::to_owned)))
}

/// Compares what was asked for with what was found. Pure.
fn judge(wanted: &[ImageWanted], found: &[Option<String>]) -> ActivityResult<ImagesOutput> {
    let (mut images, mut missing, mut other) = (Vec::new(), Vec::new(), Vec::new());
    for (image, digest) in wanted.iter().zip(found) {
        let name = format!("{}:{}", image.repository, image.tag);
        match digest {
            None => missing.push(name),
            Some(digest) if image.digest.as_ref().is_some_and(|d| d != digest) => {
                other
                    .push(format!("{name} is {digest}, not {}", image.digest.as_deref().unwrap_or_default()));
            }
            Some(digest) => images.push(ImageFound {
                repository: image.repository.clone(),
                tag: image.tag.clone(),
                digest: digest.clone(),
            }),
        }
    }
    if !other.is_empty() {
        return Err(ActivityError::terminal("ImageDiffers", format!("in ECR {}", other.join("; ")))
            .help("somebody else pushed that tag; push the base images again")
            .no_effect());
    }
    if !missing.is_empty() {
        return Err(ActivityError::retryable("ImageMissing", format!("not in ECR: {}", missing.join(", ")))
            .help("push the base images again; DSS tells why a push failed in its log")
            .no_effect());
    }
    Ok(ImagesOutput { images })
}

/// Checks that images are in ECR under their tags, with the digest they were built with.
///
/// # Idempotency
/// Reads only.
///
/// # Compensation
/// None.
///
/// Page: <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_DescribeImages.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct ImagesPresent;

impl Activity for ImagesPresent {
    type Input = ImagesInput;
    type Output = ImagesOutput;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, ctx: &ActivityContext, input: &ImagesInput) -> ActivityResult<ImagesOutput> {
        let clients = AwsClients::of(ctx)?;
        let mut found = Vec::new();
        for image in &input.images {
            found.push(digest_of(&clients, &image.repository, &image.tag).await?);
        }
        judge(&input.images, &found)
    }

    fn describe(&self, input: &ImagesInput) -> String {
        let names: Vec<_> = input.images.iter().map(|i| format!("{}:{}", i.repository, i.tag)).collect();
        format!("check that ECR holds {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use dssflow_engine::activity::ErrorClass;

    use super::*;

    #[test]
    fn a_missing_image_may_come_and_another_one_will_not_change() {
        let wanted = |digest: Option<&str>| {
            [ImageWanted { repository: "r".into(), tag: "t".into(), digest: digest.map(Into::into) }]
        };
        let class = |digest, found: Option<&str>| {
            judge(&wanted(digest), &[found.map(str::to_owned)])
                .map_err(|e| e.class)
                .map(|o| o.images[0].digest.clone())
        };
        assert_eq!(class(None, None), Err(ErrorClass::Retryable));
        assert_eq!(class(Some("sha256:a"), Some("sha256:b")), Err(ErrorClass::Terminal));
        assert_eq!(class(Some("sha256:a"), Some("sha256:a")), Ok("sha256:a".to_owned()));
    }
}
