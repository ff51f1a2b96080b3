//! What a run works on: clients and host made from the site, the sandbox it may belong to, and the checks that come
//! before anything is made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dssflow_activities::aws::identity::{self, Identity, identify};
use dssflow_activities::clients::{AwsClients, ClientsConfig};
use dssflow_activities::credentials::CredentialSource;
use dssflow_activities::host::{
    Host, HostError, HostHandle, HostRoute, LocalHost, SshHost, SshTarget, reachable,
};
use dssflow_activities::preflight;
use dssflow_engine::activity::ActivityResult;
use dssflow_engine::graph::Graph;
use dssflow_engine::id::RunId;
use dssflow_engine::run::view::RunView;
use dssflow_sandbox::World as Sandbox;
use dssflow_workflows::site::{Aws, Transport};
use dssflow_workflows::{ImageSpec, ResyncSpec, Site};
use tokio::sync::Mutex;

use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::spec::About;

/// The label that says to which sandbox a run belongs.
pub(crate) const SANDBOX_LABEL: &str = "sandbox";

/// How long an answer to the question who we are is good for others who ask the same.
const KNOWN_FOR: Duration = Duration::from_secs(5);

/// AWS clients by what they are made from: runs that want the same share them, and who they are is asked once for all
/// runs that are opened at about the same time.
#[derive(Default)]
pub(crate) struct Pool(Mutex<BTreeMap<String, Pooled>>);

#[derive(Clone)]
struct Pooled {
    clients: AwsClients,
    known: Known,
}

/// Who somebody was a moment ago.
type Known = Arc<Mutex<Option<(Instant, Identity)>>>;

/// What a run works on.
pub(crate) struct World {
    /// AWS.
    pub(crate) clients: AwsClients,
    known: Known,
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
    connect_from(&Pool::default(), site, sandbox).await
}

/// The same for whatever a run is made from. What belongs into a sandbox must not point out of it.
///
/// # Errors
/// As [`connect`], and when it points out of the sandbox.
pub(crate) async fn connect_about(
    pool: &Pool,
    about: About<'_>,
    sandbox: Option<Sandbox>,
) -> CommandResult<World> {
    match about {
        About::Site(site) => {
            if let Some(sandbox) = &sandbox {
                must_be_inside(site, sandbox)?;
            }
            Box::pin(connect_from(pool, site, sandbox)).await
        }
        About::Images(images) => connect_images(pool, images).await,
        About::Resync(spec) => {
            if let Some(sandbox) = &sandbox {
                resync_must_be_inside(spec, sandbox)?;
            }
            Box::pin(connect_resync(pool, spec, sandbox)).await
        }
    }
}

impl Pool {
    /// The clients that a file asks for; `named` finds its credentials by their name.
    async fn clients_for(
        &self,
        region: &str,
        aws: &Aws,
        named: impl FnOnce(&str) -> Option<CredentialSource>,
    ) -> CommandResult<Pooled> {
        let mut config = ClientsConfig::new(region);
        config.endpoint_url.clone_from(&aws.endpoint_url);
        config.imds_endpoint.clone_from(&aws.imds_endpoint);
        if let Some(name) = &aws.credentials {
            let source = named(name).ok_or_else(|| {
                CommandError::new(Code::WrongSite, format!("there are no usable credentials named {name:?}"))
            })?;
            config.source = Some(source);
        }
        Ok(Box::pin(self.clients(&config)).await)
    }

    async fn clients(&self, config: &ClientsConfig) -> Pooled {
        // Where credentials come from is printed without any that are secret, and never is a set in memory.
        let key = format!("{config:?}");
        let mut all = self.0.lock().await;
        if let Some(made) = all.get(&key) {
            return made.clone();
        }
        let made = Pooled { clients: AwsClients::connect(config).await, known: Known::default() };
        all.insert(key, made.clone());
        made
    }
}

/// The same with the clients of a pool.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn connect_from(pool: &Pool, site: &Site, sandbox: Option<Sandbox>) -> CommandResult<World> {
    let named = |name: &str| site.credential_source(name);
    let Pooled { clients, known } = Box::pin(pool.clients_for(&site.region, &site.aws, named)).await?;
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
            let ssh = SshHost::new(target).map_err(|e| host_unusable(&e))?;
            let route = match site.dss.url {
                Some(_) => None,
                None => Some(
                    HostRoute::open(&ssh, &site.dss_url(), site.dss.port)
                        .await
                        .map_err(|e| host_unusable(&e))?,
                ),
            };
            (Arc::new(ssh), route)
        }
    };
    Ok(World { clients, known, host: HostHandle(host), route, sandbox })
}

fn host_unusable(error: &HostError) -> CommandError {
    CommandError::new(Code::HostUnusable, error.to_string())
        .caused_by(error)
        .hint("correct how the site reaches the machine, then look: `dssflow preflight`")
}

/// Refuses a resync that is to run in the sandbox and points out of it.
///
/// # Errors
/// When its AWS or its DSS is not the sandbox's.
pub(crate) fn resync_must_be_inside(spec: &ResyncSpec, sandbox: &Sandbox) -> CommandResult<()> {
    let mut outside = Vec::new();
    if spec.aws.endpoint_url.as_ref() != Some(&sandbox.aws_endpoint) {
        outside.push(format!("aws.endpoint_url is not {}", sandbox.aws_endpoint));
    }
    if spec.dss.url.trim_end_matches('/') != sandbox.dss_url.trim_end_matches('/') || spec.dss.ssh.is_some() {
        outside.push(format!("dss.url does not lead to {}", sandbox.dss_url));
    }
    if outside.is_empty() {
        return Ok(());
    }
    let mut error =
        CommandError::new(Code::WrongSite, "the file points out of the sandbox; nothing was changed");
    error.why = outside;
    Err(error.hint(format!("start from the site that fits this sandbox: {}", sandbox.site_yaml.display())))
}

/// Makes the world of a resync: AWS, and the way to DSS.
///
/// # Errors
/// When a secret cannot be read, or DSS's host cannot be reached.
pub(crate) async fn connect_resync(
    pool: &Pool,
    spec: &ResyncSpec,
    sandbox: Option<Sandbox>,
) -> CommandResult<World> {
    let named = |name: &str| spec.credential_source(name);
    let Pooled { clients, known } = Box::pin(pool.clients_for(&spec.region, &spec.aws, named)).await?;
    let (host, route): (Arc<dyn Host>, _) = match &spec.dss.ssh {
        None => (Arc::new(LocalHost::new(Vec::new())), None),
        Some(way) => {
            let target = SshTarget {
                host: way.address.clone(),
                user: way.user.clone(),
                port: way.port,
                identity_file: way.identity_file.as_ref().map(PathBuf::from),
                config_file: way.config.as_ref().map(PathBuf::from),
                wrapper: Vec::new(),
            };
            let ssh = SshHost::new(target).map_err(|e| host_unusable(&e))?;
            let port = spec.dss.url.rsplit(':').next().and_then(|p| p.trim_end_matches('/').parse().ok());
            let port = port.unwrap_or(if spec.dss.url.starts_with("https") { 443 } else { 80 });
            let route = HostRoute::open(&ssh, &spec.dss.url, port).await.map_err(|e| host_unusable(&e))?;
            (Arc::new(ssh), Some(route))
        }
    };
    Ok(World { clients, known, host: HostHandle(host), route, sandbox })
}

/// Makes the world of a run of images: AWS, where the registry or a secret is there, and this machine.
///
/// # Errors
/// When the file names credentials that it does not have.
pub(crate) async fn connect_images(pool: &Pool, spec: &ImageSpec) -> CommandResult<World> {
    // A registry elsewhere has no region; then only secrets that lie in AWS are asked for there.
    let region = spec.account().map(|(_, region)| region.to_owned());
    let region =
        region.or_else(|| std::env::var("AWS_REGION").ok()).unwrap_or_else(|| "us-east-1".to_owned());
    let named = |name: &str| spec.credential_source(name);
    let Pooled { clients, known } = Box::pin(pool.clients_for(&region, &spec.aws, named)).await?;
    let host = HostHandle(Arc::new(LocalHost::new(Vec::new())));
    Ok(World { clients, known, host, route: None, sandbox: None })
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

    /// Asks who we are. Those who ask at about the same time share one answer.
    async fn who(&self) -> ActivityResult<Identity> {
        let mut known = self.known.lock().await;
        if let Some((at, identity)) = known.as_ref().filter(|(at, _)| at.elapsed() < KNOWN_FOR) {
            tracing::debug!(ago = ?at.elapsed(), "who we are was asked a moment ago");
            return Ok(identity.clone());
        }
        let identity = identify(&self.clients).await?;
        *known = Some((Instant::now(), identity.clone()));
        Ok(identity)
    }

    /// Asks who we are and refuses another account than the site's.
    ///
    /// # Errors
    /// When there are no credentials, or they are of another account.
    pub(crate) async fn identify(&self, about: impl Into<About<'_>>) -> CommandResult<Identity> {
        let about = about.into();
        let identity = self.who().await.map_err(|error| {
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

    /// The world as the checks of the preflight look at it.
    pub(crate) fn look(&self, site: &Site, graph: &Graph, store: Option<String>) -> preflight::Look {
        preflight::Look::new(
            dssflow_workflows::preflight(site, graph, store),
            self.clients.clone(),
            self.host.clone(),
        )
    }

    /// The same before a resync.
    pub(crate) fn look_resync(&self, spec: &ResyncSpec) -> preflight::Look {
        preflight::Look::new(
            dssflow_workflows::preflight_resync(spec),
            self.clients.clone(),
            self.host.clone(),
        )
    }

    /// Looks whether a resync can work before it begins.
    pub(crate) async fn preflight_resync(&self, spec: &ResyncSpec) -> preflight::Report {
        let only = dssflow_workflows::RESYNC_CHECKS.map(str::to_owned);
        Box::pin(preflight::run(&self.look_resync(spec), &only)).await
    }

    /// Looks whether the world fits before anything is made.
    pub(crate) async fn preflight(
        &self,
        site: &Site,
        graph: &Graph,
        store: Option<String>,
    ) -> preflight::Report {
        let look = self.look(site, graph, store);
        Box::pin(preflight::run(&look, &[])).await
    }
}
