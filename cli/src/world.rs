//! What a run works on: clients and host made from the site, the sandbox it may belong to, and the checks that come
//! before anything is made.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dssflow_activities::aws::bucket::check_bucket;
use dssflow_activities::aws::identity::{self, Identity, identify};
use dssflow_activities::aws::instance::{InstanceInput, MIN_MEMORY_MIB, instance_facts};
use dssflow_activities::aws::network::{NetworkInput, check_network};
use dssflow_activities::clients::{AwsClients, ClientsConfig};
use dssflow_activities::host::{
    Host, HostError, HostHandle, HostRoute, LocalHost, SshHost, SshTarget, reachable,
};
use dssflow_activities::secret::{self, SecretClients, SecretRef};
use dssflow_engine::activity::ErrorClass;
use dssflow_engine::id::RunId;
use dssflow_engine::run::view::RunView;
use dssflow_sandbox::World as Sandbox;
use dssflow_workflows::site::{ApiKey, Transport};
use dssflow_workflows::{ImageSpec, Site};

use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::spec::About;

/// The label that says to which sandbox a run belongs.
pub(crate) const SANDBOX_LABEL: &str = "sandbox";

/// What a run works on.
pub(crate) struct World {
    /// AWS.
    pub(crate) clients: AwsClients,
    /// The host of DSS.
    pub(crate) host: HostHandle,
    /// How DSS is reached where the host is behind ssh and the site names no URL of its own.
    pub(crate) route: Option<HostRoute>,
    /// The sandbox all of it is in.
    pub(crate) sandbox: Option<Sandbox>,
}

/// Where the sandbox of a store keeps its files.
pub(crate) fn sandbox_dir(store: &Path) -> PathBuf {
    store.join("sandbox")
}

/// The sandbox a run belongs to, if it belongs to one.
///
/// # Errors
/// When it is gone: the run can then not go on, and never goes to real AWS instead.
pub(crate) async fn sandbox_of(store: &Path, view: &RunView) -> CommandResult<Option<Sandbox>> {
    let Some(id) = view.labels.get(SANDBOX_LABEL) else { return Ok(None) };
    let living = dssflow_sandbox::find(&sandbox_dir(store)).await?;
    match living.filter(|world| world.id == *id) {
        Some(world) => Ok(Some(world)),
        None => Err(CommandError::new(
            Code::SandboxGone,
            format!("run {} belongs to sandbox {id}, which is gone with everything in it", view.run),
        )
        .why("nothing was done: a run of a sandbox never goes on against real AWS")
        .why("a sandbox lies in the directory of its store: a backup that is restored elsewhere has none")
        .hint("`dssflow run bootstrap --sandbox` starts a new run in a new world")),
    }
}

/// Refuses a site that is to run in the sandbox and points out of it.
///
/// # Errors
/// When the endpoint or the host is not the sandbox's.
pub(crate) fn must_be_inside(site: &Site, sandbox: &Sandbox) -> CommandResult<()> {
    let mut outside = Vec::new();
    if site.aws.endpoint_url.as_ref() != Some(&sandbox.aws_endpoint) {
        outside.push(format!("aws.endpoint_url is not {}", sandbox.aws_endpoint));
    }
    if site.host.wrapper != sandbox.host_wrapper {
        outside.push("host.wrapper is not the sandbox's, so commands would run on a real machine".to_owned());
    }
    if site.host.transport == Transport::Ssh && site.host.address.as_deref() != Some("127.0.0.1") {
        outside.push("host.address is not 127.0.0.1, where the sandbox's host is".to_owned());
    }
    if site.dss_url().trim_end_matches('/') != sandbox.dss_url.trim_end_matches('/') {
        outside.push(format!("dss.port or dss.url does not lead to {}", sandbox.dss_url));
    }
    if outside.is_empty() {
        return Ok(());
    }
    let mut error =
        CommandError::new(Code::WrongSite, "the site points out of the sandbox; nothing was created");
    error.why = outside;
    Err(error.hint(format!("start from the site that fits this sandbox: {}", sandbox.site_yaml.display())))
}

/// Makes clients and host. Calls nothing but where credentials of the site lie.
///
/// # Errors
/// When a secret cannot be read, or the host's address cannot be used.
pub(crate) async fn connect(site: &Site, sandbox: Option<Sandbox>) -> CommandResult<World> {
    let mut config = ClientsConfig::new(&site.region);
    config.endpoint_url.clone_from(&site.aws.endpoint_url);
    config.imds_endpoint.clone_from(&site.aws.imds_endpoint);
    if let Some(name) = &site.aws.credentials {
        let source = site.credential_source(name).ok_or_else(|| {
            CommandError::new(Code::WrongSite, format!("there are no usable credentials named {name:?}"))
        })?;
        config.source = Some(source);
    }
    let clients = AwsClients::connect(&config).await;
    let unusable = |e: HostError| CommandError::new(Code::HostUnusable, e.to_string());
    let (host, route): (Arc<dyn Host>, _) = match site.host.transport {
        Transport::Local => (Arc::new(LocalHost::new(site.host.wrapper.clone())), None),
        Transport::Ssh => {
            let target = SshTarget {
                host: site.host.address.clone().unwrap_or_default(),
                user: site.host.user.clone(),
                port: site.host.ssh_port,
                identity_file: site.host.identity_file.as_ref().map(PathBuf::from),
                config_file: site.host.ssh_config.as_ref().map(PathBuf::from),
                wrapper: site.host.wrapper.clone(),
            };
            let ssh = SshHost::new(target).map_err(unusable)?;
            let route = match site.dss.url {
                Some(_) => None,
                None => Some(HostRoute::open(&ssh, &site.dss_url(), site.dss.port).await.map_err(unusable)?),
            };
            (Arc::new(ssh), route)
        }
    };
    Ok(World { clients, host: HostHandle(host), route, sandbox })
}

/// Makes the world of a run of images: AWS, where the registry or a secret is there, and this machine.
///
/// # Errors
/// When the file names credentials that it does not have.
pub(crate) async fn connect_images(spec: &ImageSpec) -> CommandResult<World> {
    // A registry elsewhere has no region; then only secrets that lie in AWS are asked for there.
    let region = spec.account().map(|(_, region)| region.to_owned());
    let region =
        region.or_else(|| std::env::var("AWS_REGION").ok()).unwrap_or_else(|| "us-east-1".to_owned());
    let mut config = ClientsConfig::new(region);
    config.endpoint_url.clone_from(&spec.aws.endpoint_url);
    config.imds_endpoint.clone_from(&spec.aws.imds_endpoint);
    if let Some(name) = &spec.aws.credentials {
        let source = spec.credential_source(name).ok_or_else(|| {
            CommandError::new(Code::WrongSite, format!("there are no usable credentials named {name:?}"))
        })?;
        config.source = Some(source);
    }
    let clients = AwsClients::connect(&config).await;
    Ok(World { clients, host: HostHandle(Arc::new(LocalHost::new(Vec::new()))), route: None, sandbox: None })
}

/// The references to this machine's environment and files that cannot be read: each once, never with a value.
async fn unreadable_secrets(site: &Site) -> Vec<(String, String)> {
    let mut references: Vec<(String, &SecretRef)> =
        vec![("dss.admin_password".to_owned(), &site.dss.admin_password)];
    if let Some(license) = &site.dss.license {
        references.push(("dss.license".to_owned(), license));
    }
    if let ApiKey::Ref(key) = &site.dss.api_key {
        references.push(("dss.api_key".to_owned(), key));
    }
    for (name, set) in &site.credentials {
        references.extend(
            set.secrets().into_iter().map(|(key, secret)| (format!("credentials.{name}.{key}"), secret)),
        );
    }
    let mut problems = Vec::new();
    for (path, reference) in references {
        let help = match reference {
            SecretRef::Env { env } => format!("set the variable {env} for this command"),
            SecretRef::File { .. } => "name a file of mode 0600 with the secret in it".to_owned(),
            // Those lie where the run's own credentials lead.
            SecretRef::SecretsManager { .. } | SecretRef::Ssm { .. } => continue,
        };
        if let Err(error) = secret::resolve(reference, SecretClients::default()).await {
            problems.push((format!("{path}: {error}"), help));
        }
    }
    problems
}

impl World {
    /// Keeps the sandbox from ending when it is idle, while the run may go on in it. Real worlds need nobody for that.
    pub(crate) async fn hold(&self, run: &RunId) {
        if let Some(sandbox) = &self.sandbox
            && let Err(error) = dssflow_sandbox::hold(sandbox, run.as_str()).await
        {
            tracing::warn!(%error, "the sandbox may end when it is idle");
        }
    }

    /// Ends what [`World::hold`] did, once the run has nothing left to do.
    pub(crate) async fn let_go(&self, run: &RunId, end: &CommandResult) {
        if matches!(end, Ok(Exit::Ok | Exit::RolledBack))
            && let Some(sandbox) = &self.sandbox
            && let Err(error) = dssflow_sandbox::release(sandbox, run.as_str()).await
        {
            tracing::warn!(%error, "the sandbox stays although no run needs it; `dssflow sandbox down` ends it");
        }
    }

    /// Asks who we are and refuses another account than the site's.
    ///
    /// # Errors
    /// When there are no credentials, or they are of another account.
    pub(crate) async fn identify(&self, about: impl Into<About<'_>>) -> CommandResult<Identity> {
        let about = about.into();
        let identity = identify(&self.clients).await.map_err(|error| {
            let mut made = CommandError::from(error);
            // Those of the error are for a run that waits; here is none yet.
            made.hints.clear();
            made.why("nothing was created")
                .hint("AWS_PROFILE, `aws sso login` or an instance role give credentials")
        })?;
        if let Some(expected) = about.account().filter(|expected| *expected != identity.account) {
            let message =
                format!("the credentials are of account {}, the site expects {expected}", identity.account);
            return Err(CommandError::new(Code::WrongAccount, message)
                .why(format!("they are {}", identity.caller_arn))
                .hint(format!(
                    "choose credentials of account {expected} (AWS_PROFILE), or correct expected_account"
                )));
        }
        Ok(identity)
    }

    /// Gives the host the address and keys that the run has recorded for the machine it launched.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub(crate) fn find_host(&self, view: &RunView) -> CommandResult<()> {
        let reached = view.steps.iter().filter(|s| s.activity == reachable::NAME);
        for output in reached.filter_map(|s| s.output.as_ref()) {
            reachable::restore(&*self.host.0, output).map_err(CommandError::from)?;
        }
        Ok(())
    }

    /// Refuses another principal than the one the run began with.
    ///
    /// # Errors
    /// When it is another one.
    pub(crate) fn same_principal(view: &RunView, now: &Identity) -> CommandResult<()> {
        let before = view
            .steps
            .iter()
            .filter(|s| s.activity == identity::NAME)
            .filter_map(|s| s.output.clone())
            .find_map(|output| serde_json::from_value::<Identity>(output).ok());
        match before {
            Some(before) if !before.same_principal(now) => Err(CommandError::new(
                Code::WrongAccount,
                format!("run {} belongs to {} in {}", view.run, before.principal_arn, before.region),
            )
            .why(format!("the credentials are {} in {}", now.caller_arn, now.region))
            .hint("go on with the same user or role: what made the EKS cluster administers it")),
            _ => Ok(()),
        }
    }

    /// Looks at the secrets of this machine, the instance, the network and the buckets before anything is made.
    ///
    /// # Errors
    /// Everything that does not fit.
    pub(crate) async fn preflight(&self, site: &Site) -> CommandResult<()> {
        let mut problems = unreadable_secrets(site).await;
        let input = InstanceInput { instance_id: site.host.instance.clone(), min_memory_mib: MIN_MEMORY_MIB };
        let looked = match &site.host.launch {
            // There is no instance yet: the subnet it is to stand in is looked at with the network.
            Some(_) => None,
            None => Some(Box::pin(instance_facts(&self.clients, &input)).await),
        };
        let lost = matches!(looked, Some(Err(_)));
        let vpc_id = match looked {
            None => None,
            Some(Ok(facts)) => {
                let misfits = facts.misfits(MIN_MEMORY_MIB);
                let help = "take an instance that fits, or correct host.instance";
                problems.extend(
                    misfits.into_iter().map(|m| (format!("{}: {m}", facts.instance_id), help.to_owned())),
                );
                Some(facts.vpc_id)
            }
            Some(Err(error)) if error.class == ErrorClass::Credentials => return Err(error.into()),
            Some(Err(error)) => {
                let help =
                    error.help.clone().unwrap_or_else(|| "correct host.instance in the site file".to_owned());
                problems.push((error.to_string(), help));
                None
            }
        };
        let input = NetworkInput {
            vpc_id,
            subnets: site.cluster.subnets.clone(),
            security_groups: site.cluster.security_groups.clone(),
            public: !site.cluster.private,
            host_subnet: site.host.launch.as_ref().map(|launch| launch.subnet.clone()),
        };
        if let Err(found) = Box::pin(check_network(&self.clients, &input)).await {
            for problem in found {
                match problem.error {
                    Some(error) if error.class == ErrorClass::Credentials => return Err(error.into()),
                    _ => {
                        // Without the instance there is no VPC to look in.
                        let help = if lost && problem.help.contains("Values=`") {
                            "correct region, or the id in the site file".to_owned()
                        } else {
                            problem.help
                        };
                        let what = format!("[{}] {}: {}", problem.code, problem.subject, problem.message);
                        problems.push((what, help));
                    }
                }
            }
        }
        let buckets: BTreeSet<&str> = site.connections.iter().map(|c| c.bucket.as_str()).collect();
        for bucket in buckets {
            // What else may go wrong with the look, the run meets with its retries.
            if let Err(error) = Box::pin(check_bucket(&self.clients, bucket)).await
                && error.class == ErrorClass::Terminal
            {
                let help = error.help.clone().unwrap_or_else(|| "correct connections[].bucket".to_owned());
                problems.push((error.to_string(), help));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        let count = problems.len();
        let plural = if count == 1 { "" } else { "s" };
        let mut error = CommandError::new(
            Code::Preflight,
            format!("the world does not fit the site: {count} problem{plural}"),
        );
        error.why = problems.into_iter().map(|(what, help)| format!("{what}\n  help: {help}")).collect();
        Err(error.hint("nothing was created; mend this and run the command again"))
    }
}
