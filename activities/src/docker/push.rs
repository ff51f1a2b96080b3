//! `docker.push-image`: an image of this machine to ECR or another registry.
//!
//! Before anything moves it is written down what each tag stood for in the registry and on this machine, and which
//! image is about to be pushed: so an attempt whose answer was lost is known again by content, and the undo can put
//! the old manifest back. The daemon moves the layers; it is given a login for this one push.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::PushImageInfo;
use bollard::query_parameters::PushImageOptions;
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::daemon::{AuthHeader, CALL_TIMEOUT, Daemon, LocalImage, classify, next_answer};
use super::reference::{check_image, check_repository, check_tag, registry_host};
use super::registry::{Deleted, Login, Manifest, Registry};
use super::trouble;

/// The registered name.
pub const NAME: &str = "docker.push-image";
/// The kind under which a pushed image is recorded, as `REGISTRY/REPOSITORY@sha256:...`.
pub const KIND: &str = "registry:image";
/// The kind under which it is recorded what is about to be pushed, as `REGISTRY/REPOSITORY:TAG@IMAGE-ID`.
pub const INTENT: &str = "registry:tag";

/// What [`PushImage`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushInput {
    /// The image of this machine: its id, as a build gives it, or its name with tag.
    pub image: String,
    /// The registry's host, as `123456789012.dkr.ecr.eu-west-1.amazonaws.com`.
    pub registry: String,
    /// The repository in it, which must be there.
    pub repository: String,
    /// The tags: all of them stand for the image afterwards.
    pub tags: Vec<String>,
    /// The login.
    pub login: Login,
    /// The daemon's socket, as `unix:///var/run/docker.sock`; `DOCKER_HOST` or that one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_host: Option<String>,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushOutput {
    /// `REGISTRY/REPOSITORY:TAG`, one for each tag.
    pub references: Vec<String>,
    /// The digest of its manifest, as the registry has it.
    pub digest: String,
    /// The id of the image on this machine.
    pub image_id: String,
}

/// Pushes an image.
///
/// # Idempotency
/// Registries are addressed by content. The tags are looked up: when they stand for the manifest of this very image there
/// is nothing to do, whoever pushed it. An image that is half there is completed by the next push.
///
/// # Compensation
/// Only while a tag stands for what this run pushed: it goes back to the manifest it had before, or away; the pushed
/// digest goes unless it was there before or has tags of others. The name that the push needed on this machine goes back,
/// too. A registry that deletes nothing keeps the image, and the undo says so.
///
/// Pages: <https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Image/operation/ImagePush>,
/// <https://docs.aws.amazon.com/AmazonECR/latest/userguide/docker-push-ecr-image.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct PushImage;

/// Where an image goes, checked.
struct Target {
    host: String,
    /// `HOST/REPOSITORY`.
    name: String,
}

impl Target {
    fn of(input: &PushInput) -> ActivityResult<Self> {
        check_image(&input.image)?;
        check_repository(&input.repository)?;
        if input.tags.is_empty() {
            return Err(ActivityError::terminal("ImageNameInvalid", "there is no tag to push to").no_effect());
        }
        input.tags.iter().try_for_each(|tag| check_tag(tag))?;
        let host = registry_host(&input.registry)?;
        Ok(Self { name: format!("{host}/{}", input.repository), host })
    }

    fn reference(&self, tag: &str) -> String {
        format!("{}:{tag}", self.name)
    }

    /// Under which key it is recorded what a tag was before.
    fn key(&self, tag: &str) -> String {
        format!("tag {}", self.reference(tag))
    }

    fn output(&self, input: &PushInput, digest: String, image: LocalImage) -> PushOutput {
        let references = input.tags.iter().map(|tag| self.reference(tag)).collect();
        PushOutput { references, digest, image_id: image.id }
    }

    /// The digests under which the local image is known in this repository: what earlier pushes and pulls left.
    fn digests_of<'a>(&'a self, image: &'a LocalImage) -> impl Iterator<Item = &'a str> {
        let known = image.digests.iter().filter_map(|full| full.split_once('@'));
        known.filter(|(name, _)| *name == self.name).map(|(_, digest)| digest)
    }

    /// Whether a manifest is that of the local image. By its configuration, by its own digest, or by the digest that an
    /// earlier push of the same image left.
    fn is_same(&self, manifest: &Manifest, image: &LocalImage) -> bool {
        manifest.is_of(&image.id) || self.digests_of(image).any(|digest| digest == manifest.digest)
    }
}

/// What a tag was before the push; recorded.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    /// What the tag stood for in the registry.
    manifest: Option<Manifest>,
    /// Digests of this image that the registry already had, under other tags or none.
    known: Vec<String>,
    /// The image that had the name on this machine.
    local: Option<String>,
}

impl Activity for PushImage {
    type Input = PushInput;
    type Output = PushOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Update
    }

    async fn probe(&self, ctx: &ActivityContext, input: &PushInput) -> ActivityResult<Probe<PushOutput>> {
        let target = Target::of(input)?;
        let daemon = Daemon::connect(input.docker_host.as_deref(), CALL_TIMEOUT).await?;
        let Some(image) = daemon.find(&input.image).await? else { return Ok(Probe::Absent) };
        let registry = Registry::connect(ctx, &target.host, &input.login).await?;
        let mut digest = String::new();
        for tag in &input.tags {
            match registry.manifest(&input.repository, tag).await? {
                Some(manifest) if target.is_same(&manifest, &image) => digest = manifest.digest,
                _ => return Ok(Probe::Absent),
            }
        }
        // A tag carries no marks: what this run recorded before it pushed is the proof that it is ours.
        let owner = Owner::ThisSite(String::new());
        Ok(Probe::Present { output: target.output(input, digest, image), owner })
    }

    async fn execute(&self, ctx: &ActivityContext, input: &PushInput) -> ActivityResult<PushOutput> {
        let target = Target::of(input)?;
        let daemon = Daemon::connect(input.docker_host.as_deref(), CALL_TIMEOUT).await?;
        let Some(image) = daemon.find(&input.image).await? else {
            return Err(ActivityError::terminal(
                "ImageMissing",
                format!("image {} is not on this machine", input.image),
            )
            .help("build it here, or `docker pull` it, then retry the step")
            .no_effect());
        };
        let registry = Registry::connect(ctx, &target.host, &input.login).await?;
        let mut known = Vec::new();
        for digest in target.digests_of(&image) {
            if registry.manifest(&input.repository, digest).await?.is_some() {
                known.push(digest.to_owned());
            }
        }
        let mut before = BTreeMap::new();
        for tag in &input.tags {
            let was = Before {
                manifest: registry.manifest(&input.repository, tag).await?,
                local: daemon.find(&target.reference(tag)).await?.map(|image| image.id),
                known: known.clone(),
            };
            before.insert(target.key(tag), serde_json::to_value(&was).expect("it is plain data"));
        }
        ctx.record_before(before).await?;
        for tag in &input.tags {
            ctx.record_resource(INTENT, format!("{}@{}", target.reference(tag), image.id)).await?;
        }

        let mut digest = String::new();
        for tag in &input.tags {
            ctx.fence()?;
            daemon.tag(&image.id, &target.name, tag).await?;
            digest = push(ctx, input, &target, &daemon, &registry, tag, &image).await?;
        }
        ctx.record_resource(KIND, format!("{}@{digest}", target.name)).await?;
        Ok(target.output(input, digest, image))
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &PushInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let target = Target::of(input)?;
        let mut tags = Vec::new();
        for tag in &input.tags {
            // Nothing is pushed before this is recorded.
            let Some(before) = recorded.before.get(&target.key(tag)) else { continue };
            let before: Before = serde_json::from_value(before.clone()).map_err(|e| {
                let what = format!("what {} was before: {e}", target.reference(tag));
                ActivityError::terminal("RecordUnreadable", what)
            })?;
            let reference = target.reference(tag);
            let intents = recorded.ids(INTENT).filter_map(|id| id.rsplit_once('@'));
            let pushed = intents.filter(|(pushed, _)| *pushed == reference).map(|(_, id)| id).collect();
            tags.push(Tag { tag, before, pushed });
        }
        if tags.is_empty() {
            return Ok(Undo::NothingToDo);
        }
        let digests = recorded.ids(KIND).filter_map(|id| id.rsplit_once('@'));
        let digests: BTreeSet<String> =
            digests.filter(|(name, _)| *name == target.name).map(|(_, digest)| digest.to_owned()).collect();

        let registry = Registry::connect(ctx, &target.host, &input.login).await?;
        let (mut undone, kept) = undo_remote(ctx, &input.repository, &registry, &tags, digests).await?;
        undone |= undo_local(ctx, input, &target, &tags).await?;
        Ok(match (kept, undone) {
            (Some(reason), _) => Undo::Kept { reason },
            (None, true) => Undo::Undone,
            (None, false) => Undo::NothingToDo,
        })
    }

    fn describe(&self, input: &PushInput) -> String {
        format!("push {}/{}:{}", input.registry, input.repository, input.tags.join(", :"))
    }

    fn settle(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// A tag that is taken back.
struct Tag<'a> {
    tag: &'a str,
    before: Before,
    /// Ids of the images it was to stand for, in this run.
    pushed: Vec<&'a str>,
}

/// Puts tags back, then takes away what was pushed. Tells whether something changed, and what had to stay.
async fn undo_remote(
    ctx: &ActivityContext,
    repository: &str,
    registry: &Registry,
    tags: &[Tag<'_>],
    mut digests: BTreeSet<String>,
) -> ActivityResult<(bool, Option<String>)> {
    let mut undone = false;
    // Tags that were not there before, and what was there before in whatever way.
    let (mut new, mut there) = (BTreeSet::new(), BTreeSet::new());
    for Tag { tag, before, pushed } in tags {
        there.extend(before.known.iter().chain(before.manifest.iter().map(|m| &m.digest)));
        let now = registry.manifest(repository, tag).await?;
        let ours = |m: &Manifest| digests.contains(&m.digest) || pushed.iter().any(|id| m.is_of(id));
        let Some(now) = now.filter(ours) else { continue };
        match &before.manifest {
            Some(old) if old.digest == now.digest => continue,
            Some(old) => {
                ctx.fence()?;
                registry.put(repository, tag, old).await?;
                undone = true;
            }
            None => {
                new.insert(*tag);
            }
        }
        digests.insert(now.digest);
    }
    let mut kept = Vec::new();
    for digest in &digests {
        if registry.manifest(repository, digest).await?.is_none() {
            continue;
        }
        let now = registry.tags(repository, digest).await?;
        let (ours, others): (Vec<&str>, Vec<&str>) =
            now.iter().map(String::as_str).partition(|t| new.contains(t));
        let whole = others.is_empty() && !there.contains(digest);
        for what in if whole { vec![digest.as_str()] } else { ours } {
            ctx.fence()?;
            match registry.delete(repository, what).await? {
                Deleted::Gone => undone = true,
                Deleted::NotSupported if whole => {
                    kept.push(format!("{repository}@{digest}: the registry does not delete images"));
                }
                Deleted::NotSupported => kept.push(format!(
                    "tag {what} of {repository}: others use its image, and the registry removes no single tag"
                )),
            }
        }
    }
    Ok((undone, (!kept.is_empty()).then(|| kept.join("; "))))
}

/// Puts the names on this machine back. Tells whether something changed.
async fn undo_local(
    ctx: &ActivityContext,
    input: &PushInput,
    target: &Target,
    tags: &[Tag<'_>],
) -> ActivityResult<bool> {
    let daemon = Daemon::connect(input.docker_host.as_deref(), CALL_TIMEOUT).await?;
    let mut undone = false;
    for Tag { tag, before, pushed } in tags {
        let reference = target.reference(tag);
        let now = daemon.find(&reference).await?.filter(|image| pushed.contains(&image.id.as_str()));
        let Some(now) = now.filter(|now| before.local.as_ref() != Some(&now.id)) else { continue };
        ctx.fence()?;
        match &before.local {
            Some(old) if daemon.find(old).await?.is_some() => daemon.tag(old, &target.name, tag).await?,
            _ => daemon.remove(&reference).await?,
        }
        tracing::debug!(reference, image = now.id, "the name on this machine is taken back");
        undone = true;
    }
    Ok(undone)
}

/// Pushes to one tag; gives the digest, which Docker and the registry agree on.
async fn push(
    ctx: &ActivityContext,
    input: &PushInput,
    target: &Target,
    daemon: &Daemon,
    registry: &Registry,
    tag: &str,
    image: &LocalImage,
) -> ActivityResult<String> {
    let reference = target.reference(tag);
    let told = send(ctx, input, target, daemon, tag).await?;
    // The daemon's word is not enough: the tag may have been moved by another push at the same time.
    let there = registry.manifest(&input.repository, tag).await?;
    match (there, told) {
        (Some(m), Some(told)) if told == m.digest => Ok(m.digest),
        (Some(m), None) if m.is_of(&image.id) => Ok(m.digest),
        (there, told) => {
            let told = told.unwrap_or_else(|| "an image".to_owned());
            let there = there.map_or_else(|| "not there".to_owned(), |m| m.digest);
            Err(ActivityError::retryable(
                "DigestMismatch",
                format!("Docker pushed {told}, but {reference} is {there}"),
            )
            .help("does something else push to this tag?"))
        }
    }
}

/// Lets the daemon push, with a login of its own; gives the digest it tells.
async fn send(
    ctx: &ActivityContext,
    input: &PushInput,
    target: &Target,
    daemon: &Daemon,
    tag: &str,
) -> ActivityResult<Option<String>> {
    let account = input.login.account(ctx).await?;
    let daemon = match &account {
        Some(account) => daemon.with_login(
            "x-registry-auth",
            &AuthHeader {
                username: &account.username,
                password: account.password.expose(),
                serveraddress: &target.host,
            },
        )?,
        None => daemon.clone(),
    };
    drop(account);
    let reference = target.reference(tag);
    let options = PushImageOptions { tag: Some(tag.to_owned()), platform: None };
    ctx.fence()?;
    let answers = daemon.docker().push_image(&target.name, Some(options), None);
    tokio::pin!(answers);
    let mut progress = Progress::default();
    loop {
        match next_answer(ctx, &mut answers, &progress.beat).await? {
            None => return Ok(progress.digest),
            Some(Ok(line)) => {
                progress.take(line);
                ctx.heartbeat(&progress.beat);
            }
            Some(Err(Error::DockerStreamError { error })) => {
                return Err(trouble::of_push(&reference, &error, input.login.is_fresh()));
            }
            Some(Err(Error::DockerResponseServerError { message, .. })) => {
                return Err(trouble::of_push(&reference, &message, input.login.is_fresh()));
            }
            Some(Err(error)) => return Err(classify(&format!("push of {reference}"), &error)),
        }
    }
}

/// What is known of a push while it goes on.
#[derive(Default)]
struct Progress {
    beat: Beat,
    digest: Option<String>,
}

/// What a heartbeat says.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Beat {
    /// How many layers there are, as far as is known.
    layers: u32,
    /// How many of them the registry has.
    there: u32,
    /// How many bytes of the layer on its way were sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<i64>,
    /// How many it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_bytes: Option<i64>,
}

impl Progress {
    fn take(&mut self, line: PushImageInfo) {
        let status = line.status.unwrap_or_default();
        match status.as_str() {
            "Preparing" => self.beat.layers += 1,
            "Pushed" | "Layer already exists" => self.beat.there += 1,
            text if text.starts_with("Mounted from ") => self.beat.there += 1,
            text => {
                // As `1.0: digest: sha256:... size: 528`.
                let digest = text.split_once(": digest: ").and_then(|(_, rest)| rest.split(' ').next());
                self.digest = digest.map(str::to_owned).or(self.digest.take());
            }
        }
        if let Some(detail) = line.progress_detail.filter(|detail| detail.current.is_some()) {
            self.beat.bytes = detail.current;
            self.beat.of_bytes = detail.total;
        }
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;
    use serde_json::json;

    use super::*;

    fn input() -> PushInput {
        serde_json::from_value(json!({
            "image": "lab/exec:1",
            "registry": "https://registry.example.com:5000/",
            "repository": "lab/exec",
            "tags": ["1", "latest"],
            "login": "anonymous",
        }))
        .unwrap()
    }

    #[test]
    fn the_target_has_no_scheme() {
        let target = Target::of(&input()).unwrap();
        assert_eq!(target.reference("1"), "registry.example.com:5000/lab/exec:1");
        let wrong = PushInput { repository: "Lab".into(), ..input() };
        assert!(Target::of(&wrong).is_err());
        assert!(Target::of(&PushInput { tags: vec![], ..input() }).is_err());
    }

    #[test]
    fn an_image_is_known_by_its_configuration_and_by_what_was_pushed() {
        let target = Target::of(&input()).unwrap();
        let manifest = Manifest::new(None, r#"{"config":{"digest":"sha256:c"}}"#.to_owned()).unwrap();
        let image = |id: &str, digest: Option<String>| LocalImage {
            id: id.into(),
            digests: digest.into_iter().collect(),
            ..LocalImage::default()
        };
        assert!(target.is_same(&manifest, &image("sha256:c", None)));
        assert!(target.is_same(&manifest, &image(&manifest.digest, None)));
        let here = format!("registry.example.com:5000/lab/exec@{}", manifest.digest);
        assert!(target.is_same(&manifest, &image("sha256:d", Some(here))));
        let elsewhere = format!("registry.example.com:5000/other@{}", manifest.digest);
        assert!(!target.is_same(&manifest, &image("sha256:d", Some(elsewhere))));
    }

    #[test]
    fn progress_counts_layers_and_reads_the_digest() {
        let mut progress = Progress::default();
        let status = |text: &str| PushImageInfo { status: Some(text.into()), ..PushImageInfo::default() };
        for text in ["The push refers to repository [h/x]", "Preparing", "Preparing", "Layer already exists"]
        {
            progress.take(status(text));
        }
        progress.take(PushImageInfo {
            progress_detail: Some(ProgressDetail { current: Some(5), total: Some(9) }),
            ..status("Pushing")
        });
        progress.take(status("Pushed"));
        assert_eq!(progress.beat, Beat { layers: 2, there: 2, bytes: Some(5), of_bytes: Some(9) });
        assert_eq!(progress.digest, None);
        progress.take(status("1.0: digest: sha256:abc size: 528"));
        assert_eq!(progress.digest.as_deref(), Some("sha256:abc"));
    }

    #[test]
    fn what_was_before_is_read_back() {
        let manifest = Manifest::new(None, "{}".to_owned()).unwrap();
        let before = Before { manifest: Some(manifest), known: vec!["sha256:a".into()], local: None };
        let value = serde_json::to_value(&before).unwrap();
        assert_eq!(serde_json::from_value::<Before>(value).unwrap(), before);
    }
}
