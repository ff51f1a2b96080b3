//! `docker.build-image`: an image from a Dockerfile and its context.
//!
//! The image carries as labels the hash of all it was built from and the marks of who built it. It gets its name only
//! when it is complete and what was sent is what was hashed, so a name never stands for half a build.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use bollard::body_try_stream;
use bollard::errors::Error;
use bollard::models::BuildInfo;
use bollard::query_parameters::BuildImageOptions;
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::context::Context;
use super::daemon::{CALL_TIMEOUT, Daemon, INPUT_HASH, LocalImage, classify, labels, next_answer};
use super::reference::{check_image, check_repository, check_tag};
use super::registry::{RegistryLogin, auth_config};
use super::trouble;

/// The registered name.
pub const NAME: &str = "docker.build-image";
/// The kind under which an image is recorded, by its id.
pub const KIND: &str = "docker:image";

/// How long the daemon may take to begin its answer to a build: it takes the whole context in first.
const BUILD_TIMEOUT: Duration = Duration::from_mins(15);
/// How many lines of what a build printed go into its error, and how many bytes.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: usize = 4096;
/// Words in the name of a build argument by which it is a secret.
const SECRET_WORDS: &[&str] = &[
    "password",
    "passwd",
    "secret",
    "token",
    "credential",
    "private_key",
    "access_key",
    "api_key",
    "apikey",
];

/// What [`BuildImage`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildInput {
    /// Absolute path of the directory the build may read.
    pub context: String,
    /// Path of the Dockerfile below it.
    #[serde(default = "dockerfile")]
    pub dockerfile: String,
    /// Name of the image, without tag and registry.
    pub image: String,
    /// Its tag.
    pub tag: String,
    /// Values of the Dockerfile's `ARG`s. Never secrets: they stay readable in the image's history.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub build_args: BTreeMap<String, String>,
    /// The stage to stop at; the last one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// As `linux/amd64`; the daemon's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Network of `RUN`: `default`, `none` or `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Whether the images behind `FROM` are looked for in their registries also when they are here.
    #[serde(default)]
    pub pull: bool,
    /// Logins for the registries behind `FROM`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registries: Vec<RegistryLogin>,
    /// The daemon's socket, as `unix:///var/run/docker.sock`; `DOCKER_HOST` or that one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_host: Option<String>,
}

fn dockerfile() -> String {
    "Dockerfile".to_owned()
}

impl BuildInput {
    fn name(&self) -> String {
        format!("{}:{}", self.image, self.tag)
    }

    fn check(&self) -> ActivityResult<()> {
        check_repository(&self.image)?;
        check_tag(&self.tag)?;
        check_image(&self.name())?;
        let secret = |name: &&String| {
            let name = name.to_lowercase();
            SECRET_WORDS.iter().any(|word| name.contains(word))
        };
        match self.build_args.keys().find(secret) {
            None => Ok(()),
            Some(name) => Err(ActivityError::terminal(
                "BuildArgSecret",
                format!("the build argument {name} looks like a secret"),
            )
            .help("build arguments stay readable in the image's history: fetch secrets when the container starts")
            .no_effect()),
        }
    }

    /// The hash of all that decides what is built, given that of the files.
    fn hash(&self, files: &str) -> String {
        let all = json!({
            "version": 1,
            "files": files,
            "dockerfile": self.dockerfile,
            "build_args": self.build_args,
            "target": self.target,
            "platform": self.platform,
        });
        hex::encode(Sha256::digest(all.to_string()))
    }

    async fn look(&self) -> ActivityResult<(Context, String)> {
        self.check()?;
        let context = Context::find(Path::new(&self.context), &self.dockerfile).await?;
        let hash = self.hash(&context.hash().await?);
        Ok((context, hash))
    }
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildOutput {
    /// Its name with tag.
    pub image: String,
    /// Its id, as `sha256:...`: the same build under another name keeps it.
    pub image_id: String,
    /// The hash of what it was built from.
    pub input_hash: String,
    /// Its size in bytes.
    pub size: u64,
}

impl BuildOutput {
    fn of(input: &BuildInput, hash: &str, image: &LocalImage) -> Self {
        Self {
            image: input.name(),
            image_id: image.id.clone(),
            input_hash: hash.to_owned(),
            size: image.size,
        }
    }
}

/// Builds an image.
///
/// # Idempotency
/// The name is looked up: an image whose label carries the same hash is the one wanted, whoever built it. A complete
/// image of a lost attempt is taken and only named. The daemon's cache makes what else is repeated cheap.
///
/// # Compensation
/// The name goes back to the image that had it before, or away; the images this step built go with it. What a
/// container uses stays, and the undo waits for it. An image of others under the name is left alone.
///
/// Page: <https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Image/operation/ImageBuild>
#[derive(Debug, Clone, Copy, Default)]
pub struct BuildImage;

/// Under which key the image is recorded that had the name before.
fn before_key(input: &BuildInput) -> String {
    format!("image {}", input.name())
}

impl Activity for BuildImage {
    type Input = BuildInput;
    type Output = BuildOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(&self, ctx: &ActivityContext, input: &BuildInput) -> ActivityResult<Probe<BuildOutput>> {
        let (_, hash) = input.look().await?;
        let daemon = Daemon::connect(input.docker_host.as_deref(), CALL_TIMEOUT).await?;
        let found = daemon.find(&input.name()).await?;
        let Some(found) = found.filter(|image| image.labels.get(INPUT_HASH) == Some(&hash)) else {
            return Ok(Probe::Absent);
        };
        let owner = match found.owner(&ctx.marks()) {
            // The same content of another store serves as well, and is never taken away.
            Owner::Foreign => Owner::ThisSite(String::new()),
            owner => owner,
        };
        Ok(Probe::Present { output: BuildOutput::of(input, &hash, &found), owner })
    }

    async fn execute(&self, ctx: &ActivityContext, input: &BuildInput) -> ActivityResult<BuildOutput> {
        let (context, hash) = input.look().await?;
        let daemon = Daemon::connect(input.docker_host.as_deref(), CALL_TIMEOUT).await?;
        let name = input.name();
        let before = daemon.find(&name).await?.map(|image| image.id);
        ctx.record_before(BTreeMap::from([(before_key(input), json!(before))])).await?;

        let complete = daemon.built_by(&ctx.marks()).await?;
        let image = match complete.into_iter().find(|i| i.labels.get(INPUT_HASH) == Some(&hash)) {
            Some(complete) => complete,
            None => build(ctx, input, &context, &hash).await?,
        };
        ctx.record_resource(KIND, &image.id).await?;
        ctx.fence()?;
        daemon.tag(&image.id, &input.image, &input.tag).await?;
        Ok(BuildOutput::of(input, &hash, &image))
    }

    async fn verify(
        &self,
        _: &ActivityContext,
        input: &BuildInput,
        output: &BuildOutput,
    ) -> ActivityResult<()> {
        let daemon = Daemon::connect(input.docker_host.as_deref(), CALL_TIMEOUT).await?;
        match daemon.find(&output.image).await? {
            Some(image) if image.id == output.image_id => Ok(()),
            _ => Err(ActivityError::retryable(
                "ImageMissing",
                format!("image {} is not the one that was built", output.image),
            )
            .help("does something else build an image of this name?")),
        }
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &BuildInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let daemon = Daemon::connect(input.docker_host.as_deref(), CALL_TIMEOUT).await?;
        let marks = ctx.marks();
        let name = input.name();
        let mut undo = Undo::NothingToDo;
        if let Some(now) = daemon.find(&name).await?
            && now.owner(&marks) == Owner::ThisRun
            && recorded.ids(KIND).any(|id| id == now.id)
        {
            let before = recorded.before.get(&before_key(input)).and_then(Value::as_str);
            ctx.fence()?;
            match before {
                Some(before) if before == now.id => {}
                Some(before) if daemon.find(before).await?.is_some() => {
                    daemon.tag(before, &input.image, &input.tag).await?;
                    undo = Undo::Undone;
                }
                _ => {
                    daemon.remove(&name).await?;
                    undo = Undo::Undone;
                }
            }
        }
        for image in daemon.built_by(&marks).await? {
            if image.tags.iter().all(|tag| tag == "<none>:<none>") {
                ctx.fence()?;
                daemon.remove(&image.id).await?;
                undo = Undo::Undone;
            }
        }
        Ok(undo)
    }

    fn describe(&self, input: &BuildInput) -> String {
        format!("build image {}", input.name())
    }

    // The name is given by a single call, and the daemon has no stale reads.
    fn settle(&self) -> Duration {
        Duration::from_secs(2)
    }
}

async fn build(
    ctx: &ActivityContext,
    input: &BuildInput,
    context: &Context,
    hash: &str,
) -> ActivityResult<LocalImage> {
    let mut daemon = Daemon::connect(input.docker_host.as_deref(), BUILD_TIMEOUT).await?;
    if !input.registries.is_empty() {
        daemon = daemon.with_login("x-registry-config", &auth_config(ctx, &input.registries).await?)?;
    }
    let args: HashMap<String, String> = input.build_args.clone().into_iter().collect();
    let options = BuildImageOptions {
        dockerfile: input.dockerfile.clone(),
        buildargs: Some(args),
        labels: Some(labels(&ctx.marks(), hash)),
        target: input.target.clone().unwrap_or_default(),
        platform: input.platform.clone().unwrap_or_default(),
        networkmode: input.network.clone(),
        pull: input.pull.then(|| "1".to_owned()),
        rm: true,
        forcerm: true,
        ..BuildImageOptions::default()
    };
    let (archive, sent) = context.stream();
    ctx.fence()?;
    let id = {
        let answers = daemon.docker().build_image(options, None, Some(body_try_stream(archive)));
        tokio::pin!(answers);
        let mut progress = Progress::new(context.bytes());
        loop {
            match next_answer(ctx, &mut answers, &progress.beat).await? {
                None => break progress.id,
                Some(Ok(line)) => {
                    if progress.take(line) {
                        ctx.heartbeat(&progress.beat);
                    }
                }
                Some(Err(error)) => return Err(failed(input, &error, &progress)),
            }
        }
    };
    let Some(id) = id else {
        return Err(ActivityError::retryable(
            "BuildCutOff",
            format!("build of {}: the daemon ended its answer without naming an image", input.name()),
        ));
    };
    let Some(image) = daemon.find(&id).await? else {
        return Err(ActivityError::retryable(
            "ImageMissing",
            format!("image {id} is gone right after its build"),
        ));
    };
    if sent.get().is_none_or(|sent| input.hash(&sent) != hash) {
        daemon.remove(&image.id).await?;
        return Err(ActivityError::retryable(
            "ContextChanged",
            "files of the context changed while they were sent",
        )
        .help("let nothing write into the context while it is built"));
    }
    Ok(image)
}

fn failed(input: &BuildInput, error: &Error, progress: &Progress) -> ActivityError {
    let name = input.name();
    match error {
        Error::DockerStreamError { error } => trouble::of_build(&name, error, &progress.tail()),
        // A Dockerfile that cannot be read is refused before anything runs.
        Error::DockerResponseServerError { status_code: 400..=499, message } => {
            trouble::of_build(&name, message, "")
        }
        Error::DockerResponseServerError { message, .. } if !trouble::is_network(message) => {
            trouble::of_build(&name, message, "")
        }
        other => classify(&format!("build of {name}"), other),
    }
}

/// What is known of a build while it goes on.
struct Progress {
    beat: Beat,
    id: Option<String>,
    tail: VecDeque<String>,
}

/// What a heartbeat says. Nothing that a command of the Dockerfile printed: that is not ours to keep.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Beat {
    /// What the files of the context have.
    context_bytes: u64,
    /// As `3/7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<String>,
    /// The layer of a base image that is being fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<String>,
    /// How many bytes of it are here.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<i64>,
    /// How many it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_bytes: Option<i64>,
}

impl Progress {
    fn new(context_bytes: u64) -> Self {
        Self { beat: Beat { context_bytes, ..Beat::default() }, id: None, tail: VecDeque::new() }
    }

    /// Takes a line in; tells whether there is something new to say.
    fn take(&mut self, line: BuildInfo) -> bool {
        if let Some(id) = line.aux.and_then(|aux| aux.id) {
            self.id = Some(id);
        }
        for text in line.stream.iter().flat_map(|text| text.lines()).filter(|text| !text.trim().is_empty()) {
            self.tail.push_back(text.to_owned());
            if self.tail.len() > TAIL_LINES {
                self.tail.pop_front();
            }
        }
        let before = (self.beat.step.clone(), self.beat.layer.clone(), self.beat.bytes);
        let step = line.stream.as_deref().and_then(|text| text.strip_prefix("Step "));
        if let Some((step, _)) = step.and_then(|text| text.split_once(" : ")) {
            self.beat = Beat { context_bytes: self.beat.context_bytes, ..Beat::default() };
            self.beat.step = Some(step.to_owned());
        }
        if let (Some(layer), Some(detail)) = (line.id, line.progress_detail) {
            self.beat.layer = Some(layer);
            self.beat.bytes = detail.current;
            self.beat.of_bytes = detail.total;
        }
        before != (self.beat.step.clone(), self.beat.layer.clone(), self.beat.bytes)
    }

    fn tail(&self) -> String {
        let text = self.tail.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        let from = text.ceil_char_boundary(text.len().saturating_sub(TAIL_BYTES));
        text[from..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{ImageId, ProgressDetail};

    use super::*;

    fn input() -> BuildInput {
        serde_json::from_value(json!({ "context": "/src", "image": "lab/exec", "tag": "1" })).unwrap()
    }

    #[test]
    fn secrets_are_no_build_arguments() {
        let mut input = input();
        assert!(input.check().is_ok());
        input.build_args.insert("VERSION".into(), "1".into());
        assert!(input.check().is_ok());
        for name in ["DB_PASSWORD", "npm_token", "AWS_SECRET_ACCESS_KEY"] {
            let mut input = input.clone();
            input.build_args.insert(name.into(), "hush".into());
            let error = input.check().unwrap_err();
            assert_eq!(error.code, "BuildArgSecret");
            assert!(error.message.contains(name) && !error.message.contains("hush"), "{error}");
        }
    }

    #[test]
    fn progress_tells_steps_and_bytes_but_not_what_was_printed() {
        let mut progress = Progress::new(7);
        let stream = |text: &str| BuildInfo { stream: Some(text.to_owned()), ..BuildInfo::default() };
        assert!(progress.take(stream("Step 2/3 : RUN make")));
        assert!(!progress.take(stream("printed by make\n")));
        assert_eq!(progress.beat, Beat { context_bytes: 7, step: Some("2/3".into()), ..Beat::default() });
        let pulled = BuildInfo {
            id: Some("abc".into()),
            status: Some("Downloading".into()),
            progress_detail: Some(ProgressDetail { current: Some(5), total: Some(9) }),
            ..BuildInfo::default()
        };
        assert!(progress.take(pulled.clone()) && !progress.take(pulled));
        assert!(!serde_json::to_string(&progress.beat).unwrap().contains("printed"));
        assert_eq!(progress.tail(), "Step 2/3 : RUN make\nprinted by make");
        progress
            .take(BuildInfo { aux: Some(ImageId { id: Some("sha256:x".into()) }), ..BuildInfo::default() });
        assert_eq!(progress.id.as_deref(), Some("sha256:x"));
        for n in 0..100 {
            progress.take(stream(&format!("{n} {}", "é".repeat(300))));
        }
        assert!(progress.tail().len() <= TAIL_BYTES && progress.tail().contains("99 é"));
    }
}
