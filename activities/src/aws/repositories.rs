//! The ECR repositories of the base images, all of a site in one step.
//!
//! They carry the marks as tags. Images are pushed by DSS and by hosts; here they matter only when a repository is
//! to go: one that holds images this site did not push stays.

use std::collections::BTreeSet;

use aws_sdk_ecr::types::{ImageFailureCode, ImageIdentifier, Repository, Tag};
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Marks, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::error::{classify, none_if};
use super::tags;
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.ecr.repositories";
/// The kind under which each repository is recorded, by name.
pub const KIND: &str = "ecr:repository";

const NOT_FOUND: &[&str] = &["RepositoryNotFoundException"];
/// ECR deletes at most so many images by one call.
const DELETE_BATCH: usize = 100;

/// What [`Repositories`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoriesInput {
    /// Names, with their prefix and without the registry.
    pub names: Vec<String>,
    /// Image tags this site pushes, as `dss-14.1.0`: such images go with a repository of this run.
    #[serde(default)]
    pub own_tags: Vec<String>,
    /// Whether repositories of others are used as they are.
    #[serde(default)]
    pub adopt: bool,
}

/// What is there afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoriesOutput {
    /// The registry's host, as `123456789012.dkr.ecr.eu-west-1.amazonaws.com`.
    pub registry: String,
    /// The repositories, in the order asked for.
    pub repositories: Vec<RepositoryFacts>,
}

/// One repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryFacts {
    /// Its name.
    pub name: String,
    /// Where images are pushed to.
    pub uri: String,
    /// Its ARN.
    pub arn: String,
}

impl RepositoryFacts {
    fn of(repository: &Repository) -> Self {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Self {
            name: text(repository.repository_name()),
            uri: text(repository.repository_uri()),
            arn: text(repository.repository_arn()),
        }
    }
}

impl RepositoriesOutput {
    fn of(repositories: Vec<RepositoryFacts>) -> Self {
        let registry = repositories.first().and_then(|r| r.uri.split('/').next()).unwrap_or_default();
        Self { registry: registry.to_owned(), repositories }
    }
}

/// Describes one repository; `None` when there is none of that name.
pub(crate) async fn find(clients: &AwsClients, name: &str) -> ActivityResult<Option<RepositoryFacts>> {
    let call = clients.ecr().describe_repositories().repository_names(name).send().await;
    let found = none_if(call.map_err(|e| classify("ecr:DescribeRepositories", e)), NOT_FOUND)?;
    Ok(found.and_then(|a| a.repositories().first().map(RepositoryFacts::of)))
}

/// The tags of a repository; none when it is gone.
pub(crate) async fn tags_of(clients: &AwsClients, arn: &str) -> ActivityResult<Vec<Tag>> {
    let call = clients.ecr().list_tags_for_resource().resource_arn(arn).send().await;
    let found = none_if(call.map_err(|e| classify("ecr:ListTagsForResource", e)), NOT_FOUND)?;
    Ok(found.and_then(|a| a.tags).unwrap_or_default())
}

async fn owner(clients: &AwsClients, marks: &Marks, arn: &str) -> ActivityResult<Owner> {
    Ok(tags::owner_of_ecr(marks, &tags_of(clients, arn).await?))
}

/// Every image of a repository: one entry for each tag, and one for each image without a tag.
pub(crate) async fn images(clients: &AwsClients, name: &str) -> ActivityResult<Vec<ImageIdentifier>> {
    let mut images = Vec::new();
    let mut next = None;
    loop {
        let call = clients.ecr().list_images().repository_name(name).set_next_token(next).send().await;
        let Some(page) = none_if(call.map_err(|e| classify("ecr:ListImages", e)), NOT_FOUND)? else {
            return Ok(images);
        };
        next = page.next_token().map(str::to_owned);
        images.extend(page.image_ids.unwrap_or_default());
        if next.is_none() {
            return Ok(images);
        }
    }
}

/// The digests this site pushed, and how many it did not. An image that also has a tag of somebody else is not ours
/// to delete.
fn split_images(images: &[ImageIdentifier], own_tags: &[String]) -> (BTreeSet<String>, usize) {
    let is_own = |i: &ImageIdentifier| i.image_tag().is_some_and(|t| own_tags.iter().any(|own| own == t));
    let digests = |own: bool| -> BTreeSet<String> {
        images
            .iter()
            .filter(|i| is_own(i) == own)
            .filter_map(|i| i.image_digest())
            .map(str::to_owned)
            .collect()
    };
    let foreign = digests(false);
    (digests(true).difference(&foreign).cloned().collect(), foreign.len())
}

async fn undo_one(clients: &AwsClients, name: &str, own_tags: &[String]) -> ActivityResult<Option<String>> {
    let (own, foreign) = split_images(&images(clients, name).await?, own_tags);
    if foreign > 0 {
        return Ok(Some(format!("repository {name} holds {foreign} images that this run did not push")));
    }
    for batch in own.into_iter().collect::<Vec<_>>().chunks(DELETE_BATCH) {
        let ids = batch.iter().map(|d| ImageIdentifier::builder().image_digest(d).build()).collect();
        let call =
            clients.ecr().batch_delete_image().repository_name(name).set_image_ids(Some(ids)).send().await;
        let answer = none_if(call.map_err(|e| classify("ecr:BatchDeleteImage", e)), NOT_FOUND)?;
        if let Some(failure) = answer
            .iter()
            .flat_map(aws_sdk_ecr::operation::batch_delete_image::BatchDeleteImageOutput::failures)
            .find(|f| f.failure_code() != Some(&ImageFailureCode::ImageNotFound))
        {
            let text = format!(
                "ecr:BatchDeleteImage: {name}: {}",
                failure.failure_reason().unwrap_or("no reason given")
            );
            return Err(ActivityError::retryable("ImageNotDeleted", text));
        }
    }
    // Without force: an image pushed since the list was read keeps the repository.
    let call = clients.ecr().delete_repository().repository_name(name).send().await;
    match none_if(call.map_err(|e| classify("ecr:DeleteRepository", e)), NOT_FOUND) {
        Err(error) if error.code == "RepositoryNotEmptyException" => {
            Ok(Some(format!("repository {name} got images of others")))
        }
        other => other.map(|_| None),
    }
}

/// Creates the repositories that are missing.
///
/// # Idempotency
/// Names are unique in a registry, and tags given with the create tell whose one is. ECR takes no token.
///
/// # Compensation
/// Deletes the repositories of this run, after the images tagged with one of `own_tags`. One that holds other images
/// is kept; `force` is never used.
///
/// Page: <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_CreateRepository.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct Repositories;

impl Activity for Repositories {
    type Input = RepositoriesInput;
    type Output = RepositoriesOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &RepositoriesInput,
    ) -> ActivityResult<Probe<RepositoriesOutput>> {
        let clients = AwsClients::of(ctx)?;
        let (mut found, mut owners) = (Vec::new(), Vec::new());
        for name in &input.names {
            let Some(repository) = find(&clients, name).await? else { return Ok(Probe::Absent) };
            owners.push(owner(&clients, &ctx.marks(), &repository.arn).await?);
            found.push(repository);
        }
        let owner = if input.adopt && owners.contains(&Owner::ThisRun) {
            Owner::ThisRun
        } else if input.adopt {
            Owner::ThisSite(String::new())
        } else {
            tags::joint_owner(owners)
        };
        Ok(Probe::Present { output: RepositoriesOutput::of(found), owner })
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &RepositoriesInput,
    ) -> ActivityResult<RepositoriesOutput> {
        let clients = AwsClients::of(ctx)?;
        let marks = ctx.marks();
        let mut made = Vec::new();
        for name in &input.names {
            if let Some(there) = find(&clients, name).await? {
                if !input.adopt && owner(&clients, &marks, &there.arn).await? == Owner::Foreign {
                    return Err(foreign(name));
                }
                made.push(there);
                continue;
            }
            // Recorded before the call: without all of them there is none for the probe, and an undo would look no more.
            ctx.record_resource(KIND, name).await?;
            let call =
                clients.ecr().create_repository().repository_name(name).set_tags(Some(tags::ecr(&marks)));
            let answer = call.send().await.map_err(|e| classify("ecr:CreateRepository", e))?;
            ctx.heartbeat(name);
            made.push(
                answer
                    .repository()
                    .map(RepositoryFacts::of)
                    .ok_or_else(|| super::error::incomplete("ecr:CreateRepository", "repository"))?,
            );
        }
        Ok(RepositoriesOutput::of(made))
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &RepositoriesInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let clients = AwsClients::of(ctx)?;
        let marks = ctx.marks();
        let names: BTreeSet<&str> =
            input.names.iter().map(String::as_str).chain(recorded.ids(KIND)).collect();
        let (mut kept, mut gone) = (Vec::new(), 0);
        for name in names {
            let Some(there) = find(&clients, name).await? else { continue };
            if owner(&clients, &marks, &there.arn).await? != Owner::ThisRun {
                continue;
            }
            match undo_one(&clients, name, &input.own_tags).await? {
                Some(reason) => kept.push(reason),
                None => gone += 1,
            }
        }
        Ok(match (kept.is_empty(), gone) {
            (false, _) => Undo::Kept { reason: kept.join("; ") },
            (true, 0) => Undo::NothingToDo,
            (true, _) => Undo::Undone,
        })
    }

    fn describe(&self, input: &RepositoriesInput) -> String {
        format!("create ECR repositories {}", input.names.join(", "))
    }
}

fn foreign(name: &str) -> ActivityError {
    ActivityError::needs_human(
        "RepositoryForeign",
        format!("repository {name} exists and was not made by this site"),
    )
    .help("allow adoption of the ECR repositories in the site file, or choose another ecr.prefix")
    .no_effect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(digest: &str, tag: Option<&str>) -> ImageIdentifier {
        ImageIdentifier::builder().image_digest(digest).set_image_tag(tag.map(str::to_owned)).build()
    }

    #[test]
    fn only_images_with_nothing_but_our_tags_are_ours() {
        let own = vec!["dss-14.1.0".to_owned()];
        let images = [
            image("sha256:a", Some("dss-14.1.0")),
            image("sha256:b", Some("dss-14.1.0")),
            image("sha256:b", Some("prod")),
            image("sha256:c", None),
        ];
        let (ours, foreign) = split_images(&images, &own);
        assert_eq!(ours.into_iter().collect::<Vec<_>>(), ["sha256:a"]);
        assert_eq!(foreign, 2);
        assert_eq!(split_images(&images[..1], &[]).1, 1);
    }

    #[test]
    fn the_registry_is_the_host_of_the_uri() {
        let one = RepositoryFacts { name: "a/b".into(), uri: "host:5000/a/b".into(), arn: "x".into() };
        assert_eq!(RepositoriesOutput::of(vec![one]).registry, "host:5000");
    }
}
