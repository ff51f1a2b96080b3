//! The Docker Engine of this machine: how it is reached, and what it knows of an image.
//!
//! Only unix sockets: whoever may use one is as good as root on its machine, so nothing is gained by another way, and
//! contexts and logins never leave this machine but to the registry.
//!
//! Page: <https://docs.docker.com/reference/api/engine/>

use std::collections::{BTreeMap, HashMap};
use std::error::Error as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ImageInspect;
use bollard::query_parameters::{ListImagesOptions, RemoveImageOptions, TagImageOptions};
use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult, Marks, Owner};
use futures::{Stream, StreamExt};
use reqwest::header::{HeaderName, HeaderValue};
use serde::Serialize;
use zeroize::Zeroizing;

/// The socket without any other word.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// How long the daemon may take to begin an answer to a look or a small change.
pub const CALL_TIMEOUT: Duration = Duration::from_mins(1);
/// How often a silent build or push says that it lives.
const BEAT: Duration = Duration::from_secs(15);
/// The label that carries the hash of what an image was built from.
pub const INPUT_HASH: &str = "dssflow.inputhash";
/// The label that carries the ownership marks, as a JSON object. One for all: the classic builder makes a container for
/// each label.
pub const MARKS: &str = "dssflow.marks";

/// The next answer of a build or a push; as long as none comes, `beat` says that it lives.
///
/// # Errors
/// When the attempt is cancelled.
pub(super) async fn next_answer<S: Stream + Unpin>(
    ctx: &ActivityContext,
    answers: &mut S,
    beat: &impl Serialize,
) -> ActivityResult<Option<S::Item>> {
    loop {
        tokio::select! {
            answer = answers.next() => return Ok(answer),
            slept = ctx.sleep(BEAT) => {
                slept?;
                ctx.heartbeat(beat);
            }
            () = ctx.cancelled() => return Err(ActivityError::cancelled()),
        }
    }
}

/// A connection to the daemon; makes its connections call by call.
#[derive(Debug, Clone)]
pub struct Daemon {
    docker: Docker,
}

/// What the daemon knows of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalImage {
    /// `sha256:` and the hash of its configuration (or, with the containerd store, of its manifest).
    pub id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Every name with tag.
    pub tags: Vec<String>,
    /// `NAME@sha256:...` of every registry it was pushed to or pulled from.
    pub digests: Vec<String>,
    /// Its size in bytes.
    pub size: u64,
}

impl LocalImage {
    fn of(found: ImageInspect) -> Self {
        let labels = found.config.and_then(|c| c.labels).unwrap_or_default();
        Self {
            id: found.id.unwrap_or_default(),
            labels: labels.into_iter().collect(),
            tags: found.repo_tags.unwrap_or_default(),
            digests: found.repo_digests.unwrap_or_default(),
            size: found.size.and_then(|s| u64::try_from(s).ok()).unwrap_or_default(),
        }
    }

    /// Whose it is, by its labels alone: what others built on it says the same.
    pub fn owner(&self, marks: &Marks) -> Owner {
        let found = self.marks();
        marks.owner_by(found.iter().map(|(k, v)| (k.as_str(), v.as_str())))
    }

    fn marks(&self) -> BTreeMap<String, String> {
        self.labels.get(MARKS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// Whether both carry the same labels of ours.
    fn has_labels_of(&self, other: &Self) -> bool {
        [MARKS, INPUT_HASH].iter().all(|label| self.labels.get(*label) == other.labels.get(*label))
    }
}

/// A login as the Engine takes it, in a header of its own.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) struct AuthHeader<'a> {
    pub(super) username: &'a str,
    pub(super) password: &'a str,
    pub(super) serveraddress: &'a str,
}

/// The path of the socket that an input, or else `DOCKER_HOST`, names.
///
/// # Errors
/// A terminal error for what is no unix socket.
pub fn socket(given: Option<&str>, docker_host: Option<&str>) -> ActivityResult<String> {
    let named = given.or(docker_host.filter(|text| !text.is_empty())).unwrap_or(DEFAULT_SOCKET);
    let path = named.strip_prefix("unix://").unwrap_or(named);
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    Err(ActivityError::terminal("DockerHostUnsupported", format!("Docker at {named:?} cannot be used"))
        .help("name a unix socket, as unix:///var/run/docker.sock; run dssflow where Docker runs")
        .no_effect())
}

impl Daemon {
    /// Connects to the socket of `docker_host`, of `DOCKER_HOST`, or the usual one, and agrees on the API's version.
    /// `timeout` is how long an answer may take to begin.
    ///
    /// # Errors
    /// A retryable error when no daemon answers; a terminal one when we may not ask it.
    pub async fn connect(docker_host: Option<&str>, timeout: Duration) -> ActivityResult<Self> {
        let path = socket(docker_host, std::env::var("DOCKER_HOST").ok().as_deref())?;
        let made = Docker::connect_with_unix(&path, timeout.as_secs(), bollard::API_DEFAULT_VERSION);
        let docker = made.map_err(|e| unreachable_daemon(&path, &e))?;
        let docker = docker.negotiate_version().await.map_err(|e| unreachable_daemon(&path, &e))?;
        Ok(Self { docker })
    }

    /// The client itself.
    pub(super) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// The same with a login in `header` of every call. Encoded here: Docker wants the alphabet of URLs, in which
    /// bollard does not write.
    pub(super) fn with_login(&self, header: &'static str, login: &impl Serialize) -> ActivityResult<Self> {
        let json = Zeroizing::new(serde_json::to_string(login).expect("a login is plain text"));
        let encoded = Zeroizing::new(URL_SAFE.encode(json.as_bytes()));
        let mut value = HeaderValue::from_str(&encoded).map_err(|_| {
            ActivityError::terminal("RegistryLoginUnusable", "the login is no text").no_effect()
        })?;
        value.set_sensitive(true);
        let name = HeaderName::from_static(header);
        let docker = self.docker.clone().with_request_modifier(move |mut request| {
            request.headers_mut().insert(name.clone(), value.clone());
            request
        });
        Ok(Self { docker })
    }

    /// The image of that name or id; `None` when there is none.
    ///
    /// # Errors
    /// The call's own.
    pub async fn find(&self, image: &str) -> ActivityResult<Option<LocalImage>> {
        match self.docker.inspect_image(image).await {
            Ok(found) => Ok(Some(LocalImage::of(found))),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(error) => Err(classify(&format!("looking at image {image}"), &error)),
        }
    }

    /// Every image that a step built, untagged ones as well; those first that were made last. What was built on such an
    /// image has its labels too, but then its parent has them as well: that one is left out.
    ///
    /// # Errors
    /// The call's own.
    pub async fn built_by(&self, marks: &Marks) -> ActivityResult<Vec<LocalImage>> {
        let filters = HashMap::from([("label".to_owned(), vec![MARKS.to_owned()])]);
        let options = ListImagesOptions { filters: Some(filters), ..ListImagesOptions::default() };
        let mut list =
            self.docker.list_images(Some(options)).await.map_err(|e| classify("listing images", &e))?;
        list.sort_by_key(|image| std::cmp::Reverse(image.created));
        let mut found = Vec::new();
        for listed in list.into_iter().filter(|image| !image.parent_id.is_empty()) {
            let Some(image) = self.find(&listed.id).await? else { continue };
            let ours = image.labels.contains_key(INPUT_HASH)
                && image.owner(marks) == Owner::ThisRun
                && image.marks().get(Marks::STEP) == Some(&marks.step);
            if !ours {
                continue;
            }
            let parent = self.find(&listed.parent_id).await?.unwrap_or_default();
            if !image.has_labels_of(&parent) {
                found.push(image);
            }
        }
        Ok(found)
    }

    /// Gives an image a name. One of that name loses it.
    ///
    /// # Errors
    /// The call's own.
    pub async fn tag(&self, image: &str, name: &str, tag: &str) -> ActivityResult<()> {
        let options = TagImageOptions { repo: Some(name.to_owned()), tag: Some(tag.to_owned()) };
        let done = self.docker.tag_image(image, Some(options)).await;
        done.map_err(|e| classify(&format!("tagging image {name}:{tag}"), &e))
    }

    /// Takes a name, or an image without one, away. One that is not there is none. Never by force: an image that a
    /// container uses stays.
    ///
    /// # Errors
    /// A retryable error while something uses it.
    pub async fn remove(&self, image: &str) -> ActivityResult<()> {
        match self.docker.remove_image(image, None::<RemoveImageOptions>, None).await {
            Ok(_) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(Error::DockerResponseServerError { status_code: 409, message }) => Err(
                ActivityError::retryable("ImageInUse", format!("image {image} cannot be removed: {message}"))
                    .help("end the containers that use it, then retry the rollback"),
            ),
            Err(error) => Err(classify(&format!("removing image {image}"), &error)),
        }
    }
}

/// The labels of what a step makes.
pub(super) fn labels(marks: &Marks, hash: &str) -> HashMap<String, String> {
    let marks: BTreeMap<&str, String> = marks.tags().into_iter().collect();
    let marks = serde_json::to_string(&marks).expect("marks are plain text");
    HashMap::from([(MARKS.to_owned(), marks), (INPUT_HASH.to_owned(), hash.to_owned())])
}

fn causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

fn unreachable_daemon(path: &str, error: &Error) -> ActivityError {
    let text = causes(error);
    let message = format!("Docker at {path} cannot be asked: {text}");
    if text.contains("ermission denied") {
        return ActivityError::terminal("DockerDenied", message)
            .help("who runs dssflow must be in the group `docker`, and log in anew after joining it")
            .no_effect();
    }
    ActivityError::retryable("DockerNotReady", message)
        .help("start Docker (`systemctl start docker`), or name its socket")
        .no_effect()
}

/// What an answer of the daemon means that is not about a registry or a build.
pub(super) fn classify(what: &str, error: &Error) -> ActivityError {
    let message = format!("{what}: {}", causes(error));
    match error {
        Error::DockerResponseServerError { status_code: 400..=499, .. } => {
            ActivityError::terminal("DockerRefused", message)
        }
        _ => ActivityError::retryable("DockerFailed", message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_names_the_socket_then_the_environment() {
        let path = |given, env| socket(given, env).unwrap();
        assert_eq!(path(Some("unix:///a"), Some("unix:///b")), "/a");
        assert_eq!(path(Some("/a"), None), "/a");
        assert_eq!(path(None, Some("unix:///b")), "/b");
        assert_eq!(path(None, Some("")), DEFAULT_SOCKET);
        assert_eq!(socket(None, Some("tcp://10.0.0.1:2375")).unwrap_err().code, "DockerHostUnsupported");
    }

    #[test]
    fn labels_tell_whose_an_image_is() {
        let ours = Marks {
            store: "s".into(),
            site: "lab".into(),
            run: "r1".into(),
            step: "b".into(),
            generation: 1,
        };
        let image = LocalImage { labels: labels(&ours, "h").into_iter().collect(), ..LocalImage::default() };
        assert_eq!(image.labels.get(INPUT_HASH).map(String::as_str), Some("h"));
        assert_eq!(image.owner(&ours), Owner::ThisRun);
        assert_eq!(image.owner(&Marks { run: "r2".into(), ..ours.clone() }), Owner::ThisSite("r1".into()));
        assert_eq!(LocalImage::default().owner(&ours), Owner::Foreign);
        assert!(!image.has_labels_of(&LocalImage::default()));
    }

    #[tokio::test]
    async fn no_daemon_is_something_to_wait_for() {
        let error = Daemon::connect(Some("/nowhere/docker.sock"), CALL_TIMEOUT).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.no_effect), ("DockerNotReady", true));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = Daemon::connect(path.to_str(), CALL_TIMEOUT).await.unwrap_err();
        assert_eq!(error.code, "DockerNotReady", "{error}");
    }

    #[test]
    fn a_refusal_is_final_and_a_defect_is_not() {
        let answer = |status_code| Error::DockerResponseServerError { status_code, message: "no".into() };
        assert_eq!(classify("x", &answer(400)).code, "DockerRefused");
        assert_eq!(classify("x", &answer(500)).code, "DockerFailed");
        assert_eq!(classify("x", &Error::RequestTimeoutError).code, "DockerFailed");
    }
}
