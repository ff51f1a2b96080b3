//! Images against a real Docker daemon and real registries, and the part of the bootstrap that a second emulator of AWS
//! can serve, with real pushes and real queries in it.
//!
//! Where the programs or the rights are missing, the cases are left out and it is said why; `./test` installs them and
//! then asks for all. The engine is here only where a graph is run; elsewhere contexts are made by hand.

#![expect(clippy::print_stdout, reason = "a test program without a harness prints its own lines")]

mod build;
mod by_hand;
mod ecr_stub;
mod emulator;
mod lab;
mod ministack;
mod push;
mod undo;
mod workflow;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use by_hand::{Hand, Ledger};
use dssflow_activities::docker::build::{BuildImage, BuildInput, BuildOutput};
use dssflow_activities::docker::daemon::{CALL_TIMEOUT, Daemon};
use dssflow_activities::docker::push::PushInput;
use dssflow_activities::docker::registry::Login;
use dssflow_activities::secret::SecretRef;
use dssflow_engine::activity::{Activity, ActivityContext};
use lab::{DockerLab, RegistryLab};

/// The registry's user.
const USER: &str = "AWS";
/// Its password: with what base64 writes in another way for URLs, and to be found nowhere afterwards.
const PASSWORD: &str = "canary?>~-token~?>of-the-registry";

/// What the cases share.
struct World {
    docker: DockerLab,
    daemon: Daemon,
    registry: RegistryLab,
    hand: Hand,
}

impl World {
    async fn start() -> Self {
        let docker = DockerLab::start().await;
        let daemon = Daemon::connect(Some(&docker.host()), CALL_TIMEOUT).await.expect("the daemon answers");
        let registry = RegistryLab::start(&docker.scratch("registry"), USER, PASSWORD, true).await;
        secret(&docker.scratch("secrets").join("password"), PASSWORD);
        Self { docker, daemon, registry, hand: Hand::default() }
    }

    fn build(&self, context: &Path, image: &str, tag: &str) -> BuildInput {
        let input = serde_json::json!({
            "context": context,
            "image": image,
            "tag": tag,
            "network": "none",
            "docker_host": self.docker.host(),
        });
        serde_json::from_value(input).expect("it is an input")
    }

    fn login(&self) -> Login {
        let file = self.docker.scratch("secrets").join("password");
        Login::Basic { username: USER.into(), password: SecretRef::File { file } }
    }

    fn push(&self, image: &str, repository: &str, tag: &str) -> PushInput {
        PushInput {
            image: image.into(),
            registry: format!("http://{}/", self.registry.host),
            repository: repository.into(),
            tags: vec![tag.into()],
            login: self.login(),
            docker_host: Some(self.docker.host()),
        }
    }

    /// Builds an image with a file of that text in it, as step `build` of that run.
    async fn built(&self, run: &str, image: &str, tag: &str, text: &str) -> BuildOutput {
        let context = self.docker.scratch(&format!("{run}-{}-{tag}", image.replace('/', "-")));
        std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY text /\n").expect("written");
        std::fs::write(context.join("text"), text).expect("written");
        let (ctx, _) = self.hand.ctx(1, run, "build");
        BuildImage.execute(&ctx, &self.build(&context, image, tag)).await.expect("it is built")
    }

    /// What the registry says of a tag or digest, asked without any code of ours.
    async fn registry_digest(
        &self,
        registry: &RegistryLab,
        repository: &str,
        reference: &str,
    ) -> Option<String> {
        let url = format!("http://{}/v2/{repository}/manifests/{reference}", registry.host);
        let accept = "application/vnd.docker.distribution.manifest.v2+json";
        let call = reqwest::Client::new().get(url).basic_auth(USER, Some(PASSWORD)).header("accept", accept);
        let answer = call.send().await.expect("the registry answers");
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return None;
        }
        assert!(answer.status().is_success(), "{}", answer.status());
        let digest = answer.headers().get("docker-content-digest").expect("a digest is told");
        Some(digest.to_str().expect("it is text").to_owned())
    }

    /// The same of the registry that all cases share.
    async fn tagged(&self, repository: &str, reference: &str) -> Option<String> {
        self.registry_digest(&self.registry, repository, reference).await
    }

    fn ctx(&self, run: &str, step: &str) -> (ActivityContext, Arc<Ledger>) {
        self.hand.ctx(1, run, step)
    }
}

/// Writes a file only its owner can read.
fn secret(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("its mode can be set");
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(ministack::CHILD) {
        runtime.block_on(ministack::child(&args.next().expect("a task")));
        return ExitCode::SUCCESS;
    }
    let failed = runtime.block_on(all());
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}

async fn all() -> Vec<String> {
    let mut failed = Vec::new();
    // A word on the command line takes the cases whose names have it.
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let world = match lab::missing() {
        None => Some(Arc::new(World::start().await)),
        Some(why) => {
            println!("skipped: images against a real Docker daemon: {why}");
            None
        }
    };
    macro_rules! cases {
        ($($name:literal => $work:expr;)*) => {$(
            if let Some(world) = &world && $name.contains(&filter) {
                case(&mut failed, $name, $work(Arc::clone(world))).await;
            }
        )*};
    }
    cases! {
        "build, and build again" => build::once;
        "a changed file builds anew" => build::anew;
        "a build that fails" => build::fails;
        "a build whose answer was lost" => build::lost;
        "images of others" => build::others;
        "push, and push again" => push::once;
        "a push whose answer was lost" => push::lost;
        "a push that was cut off" => push::cut_off;
        "wrong credentials" => push::refused;
        "an expired token of ECR" => push::expired;
        "undo of a new tag" => undo::new_tag;
        "undo of a tag that was there" => undo::old_tag;
        "undo beside others" => undo::beside_others;
        "undo in a registry that keeps all" => undo::nothing_deleted;
        "the workflow image" => workflow::whole;
        "the workflow image by command" => workflow::by_command;
    }
    if "ministack".contains(&filter) {
        let docker = world.as_ref().map(|world| (world.docker.host(), world.docker.scratch("ministack")));
        case(&mut failed, "ministack", ministack::bootstrap(docker)).await;
    }
    failed
}

/// Runs a case; one that panics has told why, and the others still run.
async fn case(failed: &mut Vec<String>, name: &str, work: impl Future<Output = ()> + Send + 'static) {
    let started = Instant::now();
    let ended = tokio::spawn(work).await;
    println!("{} {name} ({} ms)", if ended.is_ok() { "ok" } else { "FAILED" }, started.elapsed().as_millis());
    failed.extend(ended.err().map(|_| name.to_owned()));
}
