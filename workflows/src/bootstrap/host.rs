//! The host, item by item: packages, Docker CE, the tools, the service user with its limits and AWS credentials.
//! Package steps share a lock, because `dnf` does not share.

use dssflow_activities::host::{
    aws_cli, aws_credentials, credentials_private, docker, limits, packages, service_user, tool,
};
use dssflow_engine::id::StepName;

use super::Start;
use super::names;
use super::plan::{HOST, PACKAGES, Plan, from_step};
use crate::site::{Credentials, Python, Site, Tool};

/// Where pinned programs go: in the path of every user.
const TOOL_DIR: &str = "/usr/local/bin";
/// DSS asks for this locale.
const LOCALE: &str = "en_US.utf8";
/// The least hard limit on open files and on processes that DSS asks for.
const LIMIT: u32 = 65_536;

/// What later steps may rely on.
pub(super) struct HostSteps {
    /// The service user is there, in the docker group; the output says its home.
    pub(super) service_user: StepName,
    /// Everything DSS's installer asks of the host.
    pub(super) prepared: Vec<StepName>,
    /// The service user has AWS credentials; the output says whose.
    pub(super) aws_ready: StepName,
    /// What DSS runs to make and use clusters.
    pub(super) cluster_tools: Vec<StepName>,
}

pub(super) fn steps(plan: &mut Plan<'_>, start: &Start) -> HostSteps {
    let site = plan.site;
    plan.heading("Prepare the instance");
    default_security_group(plan, start);
    metadata_options(plan, start);
    let base = install(
        plan,
        start,
        "packages",
        "package tools, unzip and the locale DSS asks for",
        &Wanted {
            packages: &["dnf-plugins-core", "glibc-langpack-en", "unzip", "tar", "curl"],
            locale: Some(LOCALE),
            after: &[],
        },
    );
    let java = install(
        plan,
        start,
        "java",
        "Java 17",
        &Wanted { packages: &["java-17-openjdk-headless"], locale: None, after: &[&base] },
    );
    let python = install(
        plan,
        start,
        "python",
        &format!("Python {} for DSS", site.host.python.version()),
        &Wanted { packages: &[python_package(site.host.python)], locale: None, after: &[&base] },
    );
    let docker = plan
        .step(
            "docker",
            names::DOCKER,
            &docker::DockerInput {
                repo_url: site.host.tools.docker_repo.clone(),
                packages: ["docker-ce", "docker-ce-cli", "containerd.io"].map(str::to_owned).to_vec(),
            },
        )
        .title("Docker CE")
        .after([&base])
        .lock("host:dnf")
        .budget(PACKAGES)
        .add();
    let tools = &site.host.tools;
    let kubectl = program(plan, start, tool::ToolKind::Kubectl, "kubectl", &tools.kubectl);
    let eksctl = program(plan, start, tool::ToolKind::Eksctl, "eksctl", &tools.eksctl);
    let authenticator = program(
        plan,
        start,
        tool::ToolKind::AwsIamAuthenticator,
        "aws-iam-authenticator",
        &tools.aws_iam_authenticator,
    );
    let aws_cli = plan
        .step(
            "aws-cli",
            names::AWS_CLI,
            &aws_cli::AwsCliInput {
                version: tools.aws_cli.version.clone(),
                url: tools.aws_cli.url.clone(),
                sha256: Some(tools.aws_cli.sha256.to_lowercase()),
            },
        )
        .title(format!("aws command line client {}", tools.aws_cli.version))
        .after([&base])
        .budget(PACKAGES)
        .add();
    let user = &site.host.service_user;
    let service_user = plan
        .step(
            "service-user",
            names::SERVICE_USER,
            &service_user::ServiceUserInput { name: user.clone(), groups: vec!["docker".to_owned()] },
        )
        .title(format!("user {user}, in the docker group"))
        .after([&docker])
        .budget(HOST)
        .add();
    let limits = plan
        .step(
            "limits",
            names::LIMITS,
            &limits::LimitsInput {
                user: from_step(&service_user, "/name"),
                open_files: LIMIT,
                processes: LIMIT,
            },
        )
        .title(format!("limits of {user}: open files and processes"))
        .budget(HOST)
        .add();

    plan.heading("Setup connectivity to AWS");
    let aws_ready = plan
        .step(
            "aws-credentials",
            names::AWS_CREDENTIALS,
            &aws_credentials::AwsCredentialsInput {
                user: user.clone(),
                home: from_step(&service_user, "/home"),
                keys: keys(site),
                role: role(site),
                region: site.region.clone(),
                expected_account: site.expected_account.clone(),
            },
        )
        .title(match &site.service_credentials {
            Some(name) => format!("AWS credentials of {user}: {name}"),
            None => format!("AWS credentials of {user}: the instance's role"),
        })
        .after([&aws_cli])
        .budget(HOST)
        .add();

    let private = private(plan, &service_user, &aws_ready);

    HostSteps {
        prepared: vec![java, python, limits, service_user.clone(), private],
        cluster_tools: vec![kubectl, eksctl, authenticator, aws_ready.clone()],
        service_user,
        aws_ready,
    }
}

/// Nobody else on the host can read the credentials.
fn private(plan: &mut Plan<'_>, service_user: &StepName, written: &StepName) -> StepName {
    let site = plan.site;
    plan.step(
        "aws-credentials-private",
        credentials_private::NAME,
        &credentials_private::CredentialsPrivateInput {
            user: site.host.service_user.clone(),
            home: from_step(service_user, "/home"),
            stranger: credentials_private::STRANGER.to_owned(),
        },
    )
    .title(format!("nobody but {} can read them", site.host.service_user))
    .after([written])
    .budget(HOST)
    .add()
}

fn default_security_group(plan: &mut Plan<'_>, start: &Start) {
    use dssflow_activities::aws::default_sg;
    plan.step(
        "default-security-group",
        default_sg::NAME,
        &default_sg::DefaultSgInput {
            instance_id: from_step(&start.instance, "/instance_id"),
            vpc_id: from_step(&start.instance, "/vpc_id"),
            security_group: None,
        },
    )
    .title("the VPC's default security group is on the instance")
    .after(&start.checked)
    .add();
}

fn metadata_options(plan: &mut Plan<'_>, start: &Start) {
    use dssflow_activities::aws::metadata_options;
    if !plan.site.host.protect_metadata {
        return;
    }
    plan.step(
        "metadata-options",
        metadata_options::NAME,
        &metadata_options::MetadataOptionsInput { instance_id: from_step(&start.instance, "/instance_id") },
    )
    .title("instance metadata: version 2 only, closed to containers")
    .after(&start.checked)
    .add();
}

struct Wanted<'w> {
    packages: &'w [&'w str],
    locale: Option<&'w str>,
    after: &'w [&'w StepName],
}

fn install(plan: &mut Plan<'_>, start: &Start, name: &str, title: &str, wanted: &Wanted<'_>) -> StepName {
    let input = packages::PackagesInput {
        packages: wanted.packages.iter().map(|p| (*p).to_owned()).collect(),
        locale: wanted.locale.map(str::to_owned),
        refresh: wanted.after.is_empty(),
    };
    plan.step(name, names::PACKAGES, &input)
        .title(title)
        .after(&start.checked)
        .after(wanted.after.iter().copied())
        .lock("host:dnf")
        .budget(PACKAGES)
        .add()
}

fn python_package(python: Python) -> &'static str {
    match python {
        Python::Python39 => "python39",
        Python::Python310 => "python3.10",
        Python::Python311 => "python3.11",
    }
}

fn program(plan: &mut Plan<'_>, start: &Start, kind: tool::ToolKind, name: &str, pinned: &Tool) -> StepName {
    let input = tool::ToolInput {
        tool: kind,
        version: pinned.version.clone(),
        url: pinned.url.clone(),
        sha256: Some(pinned.sha256.to_lowercase()),
        directory: TOOL_DIR.to_owned(),
    };
    plan.step(name, names::TOOL, &input)
        .title(format!("{name} {}", pinned.version))
        .after(&start.checked)
        .budget(PACKAGES)
        .add()
}

/// The keys for the service user, or of what assumes its role; the kinds were checked with the site.
fn keys(site: &Site) -> Option<aws_credentials::AwsKeys> {
    let mut set = &site.credentials[site.service_credentials.as_ref()?];
    if let Credentials::AssumeRole { source, .. } = set {
        set = &site.credentials[source.as_ref()?];
    }
    match set {
        Credentials::Static { access_key_id, secret_access_key, session_token } => {
            Some(aws_credentials::AwsKeys {
                access_key_id: access_key_id.clone(),
                secret_access_key: secret_access_key.clone(),
                session_token: session_token.clone(),
            })
        }
        Credentials::AssumeRole { .. }
        | Credentials::Profile { .. }
        | Credentials::Environment {}
        | Credentials::InstanceRole {} => None,
    }
}

/// The role that the service user's tools assume.
fn role(site: &Site) -> Option<aws_credentials::AwsRole> {
    match &site.credentials[site.service_credentials.as_ref()?] {
        Credentials::AssumeRole { role_arn, session_name, external_id, .. } => {
            Some(aws_credentials::AwsRole {
                role_arn: role_arn.clone(),
                session_name: session_name.clone(),
                external_id: external_id.clone(),
            })
        }
        _ => None,
    }
}
