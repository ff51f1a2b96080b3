//! The AWS clients the activities use, all made from one configuration.
//!
//! The engine owns retries, so the SDK's are off but for one second try of a call that only looks; every call has a connect, read, attempt and operation timeout,
//! because the SDK by itself waits for a hung reply for ever. Credentials are looked up anew when the last answer is
//! a minute old, so that a run that paused for expired ones goes on as soon as a person has renewed them.
//!
//! It decides nothing: which call is made when, and what its answer means, is the activities' business.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig, imds};
use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult};
use secrecy::{ExposeSecret, SecretString};

mod reads;

pub use reads::READ_ATTEMPTS;

use reads::ReadsTwice;

/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reply may stay silent.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one call may take in all.
pub const OPERATION_TIMEOUT: Duration = Duration::from_mins(1);
/// How old credentials without an expiry may become before they are looked up again.
pub const CREDENTIALS_MAX_AGE: Duration = Duration::from_mins(1);
/// How long before their end credentials are looked up anew.
const EXPIRY_MARGIN: Duration = Duration::from_mins(2);
/// How long a response body may stand still.
const STALL_GRACE: Duration = Duration::from_secs(20);

/// A fixed set of credentials, as of the sandbox or of a second account. Cannot be printed.
#[derive(Clone)]
pub struct StaticCredentials {
    /// The access key id, which is no secret.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: SecretString,
    /// The session token of temporary credentials.
    pub session_token: Option<SecretString>,
}

impl fmt::Debug for StaticCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticCredentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

impl StaticCredentials {
    /// Credentials without a session token.
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<SecretString>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret_access_key: secret_access_key.into(),
            session_token: None,
        }
    }

    fn provider(&self) -> SharedCredentialsProvider {
        SharedCredentialsProvider::new(Credentials::new(
            self.access_key_id.clone(),
            self.secret_access_key.expose_secret(),
            self.session_token.as_ref().map(|t| t.expose_secret().to_owned()),
            None,
            "dssflow",
        ))
    }
}

/// Where the clients call and as whom.
#[derive(Debug, Clone)]
pub struct ClientsConfig {
    /// The AWS region.
    pub region: String,
    /// Calls every service here instead of at AWS, as the sandbox does.
    pub endpoint_url: Option<String>,
    /// The instance metadata service, when it is not the usual one.
    pub imds_endpoint: Option<String>,
    /// The profile of `~/.aws`, when it is not the default one.
    pub profile: Option<String>,
    /// Fixed credentials; without them the default chain is asked.
    pub credentials: Option<StaticCredentials>,
}

impl ClientsConfig {
    /// The default chain in `region`.
    pub fn new(region: impl Into<String>) -> Self {
        Self {
            region: region.into(),
            endpoint_url: None,
            imds_endpoint: None,
            profile: None,
            credentials: None,
        }
    }
}

/// Clients of every service, made when first asked for. Cheap to clone; injected into the engine as a resource.
#[derive(Clone)]
pub struct AwsClients {
    inner: Arc<Inner>,
}

struct Inner {
    spec: ClientsConfig,
    config: SdkConfig,
    imds: imds::Client,
    athena: OnceLock<aws_sdk_athena::Client>,
    cloudformation: OnceLock<aws_sdk_cloudformation::Client>,
    ec2: OnceLock<aws_sdk_ec2::Client>,
    ecr: OnceLock<aws_sdk_ecr::Client>,
    eks: OnceLock<aws_sdk_eks::Client>,
    glue: OnceLock<aws_sdk_glue::Client>,
    iam: OnceLock<aws_sdk_iam::Client>,
    lakeformation: OnceLock<aws_sdk_lakeformation::Client>,
    s3: OnceLock<aws_sdk_s3::Client>,
    secretsmanager: OnceLock<aws_sdk_secretsmanager::Client>,
    servicequotas: OnceLock<aws_sdk_servicequotas::Client>,
    ssm: OnceLock<aws_sdk_ssm::Client>,
    sts: OnceLock<aws_sdk_sts::Client>,
}

impl fmt::Debug for AwsClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsClients").field("spec", &self.inner.spec).finish_non_exhaustive()
    }
}

macro_rules! client {
    ($(#[$doc:meta])* $name:ident: $sdk:ident) => {
        $(#[$doc])*
        pub fn $name(&self) -> &$sdk::Client {
            self.inner.$name.get_or_init(|| {
                let config = $sdk::config::Builder::from(&self.inner.config).interceptor(ReadsTwice).build();
                $sdk::Client::from_conf(config)
            })
        }
    };
}

impl AwsClients {
    /// Makes the clients. Calls nothing: credentials are looked up with the first call.
    pub async fn connect(spec: &ClientsConfig) -> Self {
        let imds = metadata_client(spec);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(spec.region.clone()))
            .retry_config(RetryConfig::standard().with_max_attempts(1))
            .timeout_config(timeouts())
            // Cached by `FreshChain`: the SDK's cache keeps credentials without an expiry for 15 minutes or more.
            .identity_cache(IdentityCache::no_cache())
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled().grace_period(STALL_GRACE).build(),
            )
            .credentials_provider(match &spec.credentials {
                Some(fixed) => fixed.provider(),
                None => SharedCredentialsProvider::new(FreshChain::new(spec, &imds)),
            });
        if let Some(profile) = &spec.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(url) = &spec.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        let config = Box::pin(loader.load()).await;
        Self {
            inner: Arc::new(Inner {
                spec: spec.clone(),
                config,
                imds,
                athena: OnceLock::new(),
                cloudformation: OnceLock::new(),
                ec2: OnceLock::new(),
                ecr: OnceLock::new(),
                eks: OnceLock::new(),
                glue: OnceLock::new(),
                iam: OnceLock::new(),
                lakeformation: OnceLock::new(),
                s3: OnceLock::new(),
                secretsmanager: OnceLock::new(),
                servicequotas: OnceLock::new(),
                ssm: OnceLock::new(),
                sts: OnceLock::new(),
            }),
        }
    }

    /// The same world as somebody else: other credentials, same region and endpoints.
    pub async fn for_credentials(&self, credentials: StaticCredentials) -> Self {
        Self::connect(&ClientsConfig { credentials: Some(credentials), ..self.inner.spec.clone() }).await
    }

    /// The clients injected into the engine.
    ///
    /// # Errors
    /// A terminal error when the engine was built without them.
    pub fn of(ctx: &ActivityContext) -> ActivityResult<Arc<Self>> {
        ctx.resource::<Self>()
    }

    /// The region all clients call.
    pub fn region(&self) -> &str {
        &self.inner.spec.region
    }

    /// The configuration the clients were made from.
    pub fn spec(&self) -> &ClientsConfig {
        &self.inner.spec
    }

    client!(
        /// Amazon Athena.
        athena: aws_sdk_athena
    );
    client!(
        /// AWS CloudFormation.
        cloudformation: aws_sdk_cloudformation
    );
    client!(
        /// Amazon EC2.
        ec2: aws_sdk_ec2
    );
    client!(
        /// Amazon ECR.
        ecr: aws_sdk_ecr
    );
    client!(
        /// Amazon EKS.
        eks: aws_sdk_eks
    );
    client!(
        /// AWS Glue.
        glue: aws_sdk_glue
    );
    client!(
        /// AWS IAM.
        iam: aws_sdk_iam
    );
    client!(
        /// AWS Lake Formation.
        lakeformation: aws_sdk_lakeformation
    );
    client!(
        /// AWS Secrets Manager.
        secretsmanager: aws_sdk_secretsmanager
    );
    client!(
        /// AWS Service Quotas.
        servicequotas: aws_sdk_servicequotas
    );
    client!(
        /// AWS Systems Manager, for its parameter store.
        ssm: aws_sdk_ssm
    );
    client!(
        /// AWS STS.
        sts: aws_sdk_sts
    );

    /// Amazon S3. An endpoint of our own gets path-style requests: it has no DNS name for each bucket.
    pub fn s3(&self) -> &aws_sdk_s3::Client {
        self.inner.s3.get_or_init(|| {
            let config = aws_sdk_s3::config::Builder::from(&self.inner.config)
                .force_path_style(self.inner.spec.endpoint_url.is_some())
                .interceptor(ReadsTwice)
                .build();
            aws_sdk_s3::Client::from_conf(config)
        })
    }

    /// When the credentials in use end; `None` when they do not, or do not say.
    ///
    /// # Errors
    /// A credentials error when there are none.
    pub async fn credentials_expiry(&self) -> ActivityResult<Option<SystemTime>> {
        let provider =
            self.inner.config.credentials_provider().ok_or_else(|| no_credentials("none is configured"))?;
        let credentials = provider.provide_credentials().await.map_err(|e| no_credentials(&e.to_string()))?;
        Ok(credentials.expiry())
    }

    /// Where the credentials in use come from, in words, as `the profile of ~/.aws`.
    ///
    /// # Errors
    /// A credentials error when there are none.
    pub async fn credentials_source(&self) -> ActivityResult<String> {
        let provider =
            self.inner.config.credentials_provider().ok_or_else(|| no_credentials("none is configured"))?;
        let credentials = provider.provide_credentials().await.map_err(|e| no_credentials(&e.to_string()))?;
        let features = credentials.get_property::<Vec<AwsCredentialFeature>>();
        let profile = self.inner.spec.profile.as_deref().map_or_else(String::new, |p| format!(" {p}"));
        Ok(match features.and_then(|f| f.iter().find_map(|f| source_of(f, &profile))) {
            Some(source) => source,
            None if self.inner.spec.credentials.is_some() => "fixed credentials".to_owned(),
            None => "the default chain".to_owned(),
        })
    }

    /// The id of the instance this process runs on, from the metadata service (`IMDSv2`).
    ///
    /// # Errors
    /// A terminal error when no metadata service answers.
    pub async fn instance_id_from_metadata(&self) -> ActivityResult<String> {
        let id = Box::pin(self.inner.imds.get("/latest/meta-data/instance-id")).await.map_err(|e| {
            ActivityError::terminal(
                "InstanceUnknown",
                format!("the instance metadata service does not answer: {e}"),
            )
            .help("name the instance in the site file (host.instance), or run dssflow on the instance itself")
            .no_effect()
        })?;
        Ok(AsRef::<str>::as_ref(&id).trim().to_owned())
    }
}

/// The words for what the SDK notes about credentials; `None` for notes on something else.
fn source_of(feature: &AwsCredentialFeature, profile: &str) -> Option<String> {
    use AwsCredentialFeature as F;
    Some(match feature {
        F::CredentialsEnvVars => "environment variables".to_owned(),
        F::CredentialsEnvVarsStsWebIdToken | F::CredentialsStsAssumeRoleWebId => {
            "a web identity token".to_owned()
        }
        F::CredentialsProfile | F::CredentialsProfileSourceProfile | F::CredentialsProfileNamedProvider => {
            format!("the profile{profile} of ~/.aws")
        }
        F::CredentialsProfileSso | F::CredentialsSso => format!("an SSO session of the profile{profile}"),
        F::CredentialsProfileProcess | F::CredentialsProcess => {
            format!("the process of the profile{profile}")
        }
        F::CredentialsHttp => "the container's endpoint".to_owned(),
        F::CredentialsImds => "the instance's role".to_owned(),
        _ => return None,
    })
}

fn no_credentials(why: &str) -> ActivityError {
    ActivityError::credentials("NoCredentials", format!("no AWS credentials: {why}"))
        .help("set AWS_PROFILE, run `aws sso login`, or give the instance a role; then resume the run")
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .operation_attempt_timeout(OPERATION_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build()
}

fn metadata_client(spec: &ClientsConfig) -> imds::Client {
    let builder = imds::Client::builder()
        .connect_timeout(Duration::from_secs(1))
        .read_timeout(Duration::from_secs(2))
        .max_attempts(2);
    match &spec.imds_endpoint {
        // An endpoint that is no URI is reported by the first call, as one that does not answer.
        Some(endpoint) => match builder.endpoint(endpoint) {
            Ok(builder) => builder.build(),
            Err(error) => {
                tracing::warn!(endpoint, %error, "the metadata endpoint is not a URI; the usual one is used");
                imds::Client::builder().build()
            }
        },
        None => builder.build(),
    }
}

/// The default chain, built anew for every look-up: the SDK's own reads the profile files once and for ever.
struct FreshChain {
    spec: ClientsConfig,
    imds: imds::Client,
    /// The last answer and when it came. Held over a look-up, so that many calls at once ask once.
    last: tokio::sync::Mutex<Option<(Instant, Credentials)>>,
}

impl fmt::Debug for FreshChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FreshChain")
    }
}

impl FreshChain {
    fn new(spec: &ClientsConfig, imds: &imds::Client) -> Self {
        Self { spec: spec.clone(), imds: imds.clone(), last: tokio::sync::Mutex::new(None) }
    }

    async fn provide(&self) -> provider::Result {
        let mut last = self.last.lock().await;
        if let Some((asked, credentials)) = last.as_ref()
            && still_good(asked.elapsed(), credentials.expiry().map(left))
        {
            return Ok(credentials.clone());
        }
        let credentials = self.look_up().await?;
        *last = Some((Instant::now(), credentials.clone()));
        Ok(credentials)
    }

    async fn look_up(&self) -> provider::Result {
        let mut chain = DefaultCredentialsChain::builder()
            .region(Region::new(self.spec.region.clone()))
            .imds_client(self.imds.clone());
        if let Some(profile) = &self.spec.profile {
            chain = chain.profile_name(profile);
        }
        let chain = Box::pin(chain.build()).await;
        chain.provide_credentials().await
    }
}

fn left(expiry: SystemTime) -> Duration {
    expiry.duration_since(SystemTime::now()).unwrap_or_default()
}

/// Whether credentials of that age are used again: those with an expiry until shortly before it, others for a minute.
fn still_good(age: Duration, left: Option<Duration>) -> bool {
    left.map_or(age < CREDENTIALS_MAX_AGE, |left| left > EXPIRY_MARGIN)
}

impl ProvideCredentials for FreshChain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(Box::pin(self.provide()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let mut spec = ClientsConfig::new("eu-west-1");
        spec.credentials = Some(StaticCredentials::new("AKIAEXAMPLE", "hush-hush"));
        let text = format!("{spec:?}");
        assert!(text.contains("AKIAEXAMPLE") && !text.contains("hush"), "{text}");
    }

    #[test]
    fn credentials_without_an_expiry_are_used_for_a_minute() {
        let seconds = Duration::from_secs;
        assert!(still_good(seconds(59), None) && !still_good(seconds(60), None));
        assert!(still_good(seconds(3000), Some(seconds(121))) && !still_good(seconds(1), Some(seconds(120))));
    }

    #[tokio::test]
    async fn clients_are_made_without_a_call() {
        let mut spec = ClientsConfig::new("eu-west-1");
        spec.endpoint_url = Some("http://127.0.0.1:9".into());
        spec.credentials = Some(StaticCredentials::new("a", "b"));
        let clients = AwsClients::connect(&spec).await;
        assert_eq!(clients.region(), "eu-west-1");
        assert_eq!(clients.eks().config().retry_config().map(RetryConfig::max_attempts), Some(1));
        assert_eq!(clients.credentials_expiry().await.unwrap(), None);
    }
}
