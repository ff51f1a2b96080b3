//! `image`: builds images from Dockerfiles and pushes them to a registry. For ECR it makes the repositories first.
//!
//! `image.yaml` is read and checked as a site is, with all problems in one go. Contexts are named as the file sees them;
//! whoever read it makes them absolute with [`ImageSpec::resolve`], because nothing here knows where it lies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use dssflow_activities::aws::{identity, repositories};
use dssflow_activities::credentials::CredentialSource;
use dssflow_activities::docker::reference::{check_repository, check_tag};
use dssflow_activities::docker::registry::Login;
use dssflow_activities::docker::{build, push};
use dssflow_activities::secret::SecretRef;
use dssflow_engine::graph::{Binding, Graph, Step, Timeouts};
use dssflow_engine::id::{ActivityName, StepName, WorkflowName};
use dssflow_engine::retry::RetryPolicy;
use dssflow_engine::run::{OnTrouble, RunOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Workflow;
use crate::site::{self, Aws, Credentials, OnFailure, SiteErrors, SiteProblem, codes, formats};

/// The workflow's name.
pub const NAME: &str = "image";
/// The workflow's version; rises when the same file gives another graph.
pub const VERSION: u32 = 1;

/// Images, what they are built from and where they go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// Names the set in every ownership mark and in the run id.
    #[schemars(schema_with = "formats::site_name")]
    pub name: String,
    /// Where the images go.
    pub registry: Registry,
    /// The images.
    #[schemars(length(min = 1))]
    pub images: Vec<Image>,
    /// The socket of the Docker Engine, as `unix:///var/run/docker.sock`; `DOCKER_HOST` or that one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::plain")]
    pub docker_host: Option<String>,
    /// Sets of AWS credentials, by a name of your choice. Values are references, never secrets.
    #[serde(default)]
    pub credentials: BTreeMap<String, Credentials>,
    /// How dssflow itself reaches AWS.
    #[serde(default)]
    pub aws: Aws,
    /// What happens when a step fails for good or uses up its attempts.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// How many steps run at once.
    #[serde(default = "default_parallelism")]
    #[schemars(range(min = 1, max = 64))]
    pub parallelism: u32,
}

fn default_parallelism() -> u32 {
    2
}

/// Where images go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Registry {
    /// Amazon ECR, with a token for each push.
    Ecr {
        /// The AWS account everything must happen in; another one is refused before anything is made.
        #[schemars(schema_with = "formats::account")]
        account: String,
        /// The AWS region.
        #[schemars(schema_with = "formats::region")]
        region: String,
        /// The registry's host, when it is not the account's in that region.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "formats::registry")]
        host: Option<String>,
        /// Use repositories that others made, too; they are never deleted.
        #[serde(default)]
        adopt: bool,
    },
    /// Another registry, with a name and a password.
    Basic {
        /// Its host, as `registry.example.com:5000`.
        #[schemars(schema_with = "formats::registry")]
        host: String,
        /// The name.
        #[schemars(schema_with = "formats::plain")]
        username: String,
        /// Where the password lies.
        #[schemars(schema_with = "formats::secret_ref")]
        password: SecretRef,
    },
    /// Another registry that asks nobody.
    Anonymous {
        /// Its host.
        #[schemars(schema_with = "formats::registry")]
        host: String,
    },
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Names it in the steps.
    #[schemars(schema_with = "formats::cluster_name")]
    pub name: String,
    /// The directory the build may read; relative to the file.
    #[schemars(schema_with = "formats::plain")]
    pub context: String,
    /// Path of the Dockerfile below it.
    #[serde(default = "dockerfile")]
    #[schemars(schema_with = "formats::plain")]
    pub dockerfile: String,
    /// The repository in the registry.
    #[schemars(schema_with = "formats::plain")]
    pub repository: String,
    /// The tags.
    #[schemars(length(min = 1))]
    pub tags: Vec<String>,
    /// Values of the Dockerfile's `ARG`s; never secrets.
    #[serde(default)]
    pub build_args: BTreeMap<String, String>,
    /// The stage to stop at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::plain")]
    pub target: Option<String>,
    /// As `linux/amd64`; the daemon's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::plain")]
    pub platform: Option<String>,
    /// Network of `RUN`: `default`, `none` or `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::plain")]
    pub network: Option<String>,
    /// Look for newer images behind `FROM`.
    #[serde(default)]
    pub pull: bool,
}

fn dockerfile() -> String {
    "Dockerfile".to_owned()
}

static SCHEMA: LazyLock<Value> = LazyLock::new(schema);

/// The JSON Schema of `image.yaml`.
///
/// # Panics
/// Never: the schema of a type is plain data.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(ImageSpec);
    schema.insert("title".to_owned(), "dssflow images".into());
    serde_json::to_value(schema).expect("a schema is plain data")
}

/// Reads and checks an `image.yaml`; `source_name` is what people call it.
///
/// # Errors
/// Everything that is wrong with it, not only the first.
pub fn parse(text: &str, source_name: &str) -> Result<ImageSpec, SiteErrors> {
    let spec: ImageSpec = site::read(text, source_name, NAME, &SCHEMA, |_, _, _| ())?;
    let problems = spec.problems();
    if problems.is_empty() {
        Ok(spec)
    } else {
        Err(SiteErrors { source_name: source_name.to_owned(), problems })
    }
}

impl ImageSpec {
    /// Makes contexts absolute that are named as a file in `directory` sees them.
    pub fn resolve(&mut self, directory: &Path) {
        for image in &mut self.images {
            image.context = directory.join(&image.context).display().to_string();
        }
    }

    /// The registry's host.
    pub fn host(&self) -> String {
        match &self.registry {
            Registry::Ecr { host: Some(host), .. }
            | Registry::Basic { host, .. }
            | Registry::Anonymous { host } => host.clone(),
            Registry::Ecr { account, region, host: None, .. } => {
                let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
                format!("{account}.dkr.ecr.{region}.{suffix}")
            }
        }
    }

    /// The AWS account and region, when the registry is in one.
    pub fn account(&self) -> Option<(&str, &str)> {
        match &self.registry {
            Registry::Ecr { account, region, .. } => Some((account, region)),
            Registry::Basic { .. } | Registry::Anonymous { .. } => None,
        }
    }

    /// Where the named set of credentials gets them from; `None` when it, or a set it builds on, is not there.
    pub fn credential_source(&self, name: &str) -> Option<CredentialSource> {
        site::source_at(&self.credentials, name, self.credentials.len())
    }

    fn login(&self) -> Login {
        match &self.registry {
            Registry::Ecr { .. } => Login::Ecr,
            Registry::Basic { username, password, .. } => {
                Login::Basic { username: username.clone(), password: password.clone() }
            }
            Registry::Anonymous { .. } => Login::Anonymous,
        }
    }

    /// What no schema can say.
    fn problems(&self) -> Vec<SiteProblem> {
        let mut problems = Vec::new();
        let mut note = |code, path: String, message: String, help: &str| {
            problems.push(SiteProblem { code, path, line: None, message, help: help.to_owned() });
        };
        let (mut names, mut targets) = (BTreeSet::new(), BTreeSet::new());
        for (ix, image) in self.images.iter().enumerate() {
            let at = |key: &str| format!("images[{ix}].{key}");
            if !names.insert(&image.name) {
                note(
                    codes::DUPLICATE,
                    at("name"),
                    format!("{:?} stands there twice", image.name),
                    "rename one",
                );
            }
            if let Err(error) = check_repository(&image.repository) {
                let help = error.help.unwrap_or_default();
                note(codes::WRONG_VALUE, at("repository"), error.message, &help);
            }
            for (tag_ix, tag) in image.tags.iter().enumerate() {
                let path = at(&format!("tags[{tag_ix}]"));
                if let Err(error) = check_tag(tag) {
                    note(codes::WRONG_VALUE, path, error.message, &error.help.unwrap_or_default());
                } else if !targets.insert((&image.repository, tag)) {
                    let what = format!("{}:{tag} stands there twice", image.repository);
                    note(codes::DUPLICATE, path, what, "two images cannot have one tag");
                }
            }
        }
        if let Some(name) = self.aws.credentials.as_ref().filter(|name| !self.credentials.contains_key(*name))
        {
            let what = format!("there are no credentials named {name:?}");
            note(codes::UNKNOWN_REFERENCE, "aws.credentials".into(), what, "add them under `credentials:`");
        }
        problems
    }
}

fn step_name(name: impl Into<String>) -> StepName {
    StepName::new(name).expect("step names are made of checked parts")
}

fn step<I: Serialize>(name: impl Into<String>, activity: &str, input: &I, title: String) -> Step {
    let activity = ActivityName::new(activity).expect("activities have good names");
    let mut step = Step::activity(step_name(name), activity, Binding::literal(input));
    step.title = title;
    step
}

fn budget(step: &mut Step, typical_s: u64, limit_min: u64, attempts: u32) {
    step.expected_ms = Some(typical_s * 1000);
    step.timeouts = Timeouts::per_attempt(std::time::Duration::from_mins(limit_min));
    step.retry = RetryPolicy::attempts(attempts);
}

/// The workflow of a checked `image.yaml` whose contexts are absolute.
///
/// # Panics
/// Never: a checked file gives a graph that holds together.
pub fn image(spec: &ImageSpec) -> Workflow {
    let mut graph = Graph::builder();
    let mut ready = Vec::new();
    if let Registry::Ecr { account, region, adopt, .. } = &spec.registry {
        let input = identity::IdentityInput {
            region: region.clone(),
            expected_account: Some(account.clone()),
            expected_principal: None,
            quiet_seconds: 0,
        };
        let mut who = step("identity", identity::NAME, &input, format!("AWS account {account} in {region}"));
        budget(&mut who, 1, 2, 8);
        let names: BTreeSet<&String> = spec.images.iter().map(|image| &image.repository).collect();
        let input = repositories::RepositoriesInput {
            names: names.into_iter().cloned().collect(),
            own_tags: Vec::new(),
            adopt: *adopt,
        };
        let title = format!("ECR repositories {}", input.names.join(", "));
        let mut repositories = step("repositories", repositories::NAME, &input, title);
        budget(&mut repositories, 2, 5, 5);
        repositories.after.push(who.name.clone());
        ready = vec![repositories.name.clone()];
        graph.push(who);
        graph.push(repositories);
    }
    for image in &spec.images {
        let local = image.repository.clone();
        let input = build::BuildInput {
            context: image.context.clone(),
            dockerfile: image.dockerfile.clone(),
            image: local.clone(),
            tag: image.tags[0].clone(),
            build_args: image.build_args.clone(),
            target: image.target.clone(),
            platform: image.platform.clone(),
            network: image.network.clone(),
            pull: image.pull,
            registries: Vec::new(),
            docker_host: spec.docker_host.clone(),
        };
        let title = format!("image {local}:{} from {}", image.tags[0], image.context);
        let mut build = step(format!("build-{}", image.name), build::NAME, &input, title);
        budget(&mut build, 300, 60, 3);
        let input = push::PushInput {
            image: String::new(),
            registry: spec.host(),
            repository: image.repository.clone(),
            tags: image.tags.clone(),
            login: spec.login(),
            docker_host: spec.docker_host.clone(),
        };
        let Ok(Value::Object(fields)) = serde_json::to_value(&input) else { unreachable!("a struct") };
        let mut fields: BTreeMap<String, Binding> =
            fields.into_iter().map(|(key, value)| (key, Binding::Literal { value })).collect();
        fields.insert("image".to_owned(), Binding::output(&build.name, "/image_id"));
        let activity = ActivityName::new(push::NAME).expect("activities have good names");
        let name = step_name(format!("push-{}", image.name));
        let mut push = Step::activity(name, activity, Binding::Object { fields });
        push.title = format!("{}/{}:{}", spec.host(), image.repository, image.tags.join(", :"));
        budget(&mut push, 120, 60, 8);
        push.after.clone_from(&ready);
        graph.push(build);
        graph.push(push);
    }
    let (on_exhausted, on_failure) = match spec.on_failure {
        OnFailure::Pause => (OnTrouble::Pause, OnTrouble::Fail),
        OnFailure::Fail => (OnTrouble::Fail, OnTrouble::Fail),
        OnFailure::Rollback => (OnTrouble::Rollback, OnTrouble::Rollback),
    };
    Workflow {
        name: WorkflowName::new(NAME).expect("a good name"),
        version: VERSION,
        site: spec.name.clone(),
        graph: graph.build().expect("a checked file gives a graph that holds together"),
        input: serde_json::to_value(spec).expect("a spec is plain data"),
        options: RunOptions {
            parallelism: spec.parallelism,
            on_exhausted,
            on_failure,
            ..RunOptions::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = include_str!("../examples/image.yaml");

    #[test]
    fn the_example_builds_once_and_pushes_once() {
        let mut spec = parse(SPEC, "image.yaml").unwrap();
        spec.resolve(Path::new("/srv/images"));
        assert_eq!(spec.images[0].context, "/srv/images/exec");
        assert_eq!(spec.host(), "123456789012.dkr.ecr.eu-west-1.amazonaws.com");
        let workflow = image(&spec);
        let names: Vec<&str> = workflow.graph.steps().iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["identity", "repositories", "build-exec", "push-exec"]);
        let again: ImageSpec = serde_json::from_value(workflow.input.clone()).unwrap();
        assert_eq!(image(&again).graph.hash(), workflow.graph.hash());
    }

    #[test]
    fn without_ecr_nothing_asks_aws() {
        let text = "name: lab\nregistry: {kind: basic, host: \"127.0.0.1:5000\", username: ci, password: {env: PW}}\n\
                    images: [{name: a, context: /a, repository: lab/a, tags: [\"1\"]}]\n";
        let spec = parse(text, "image.yaml").unwrap();
        assert_eq!(spec.account(), None);
        let workflow = image(&spec);
        assert!(
            workflow
                .graph
                .steps()
                .iter()
                .all(|s| s.kind.activity().is_some_and(|a| a.as_str().starts_with("docker.")))
        );
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let text = "name: lab\nregistry: {kind: anonymous, host: \"127.0.0.1:5000\"}\nimages:\n\
                    - {name: a, context: /a, repository: Lab, tags: [\"1\", \"1\"]}\n\
                    - {name: a, context: /b, repository: lab/b, tags: [\"?\"]}\naws: {credentials: x}\n";
        let errors = parse(text, "image.yaml").unwrap_err();
        let paths: Vec<&str> = errors.problems.iter().map(|p| p.path.as_str()).collect();
        let expected = [
            "images[0].repository",
            "images[0].tags[1]",
            "images[1].name",
            "images[1].tags[0]",
            "aws.credentials",
        ];
        assert_eq!(paths, expected);
        let plain = text.replace("kind: anonymous", "kind: basic, username: ci, password: hush");
        let error = parse(&plain, "image.yaml").unwrap_err().to_string();
        assert!(error.contains("DF0105") && !error.contains("hush"), "{error}");
        assert!(parse("name: lab\nimage: []", "image.yaml").is_err());
    }
}
