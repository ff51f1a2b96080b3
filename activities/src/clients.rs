//! The AWS clients the activities use, all made from one configuration.
//!
//! The engine owns retries, so the SDK's are off but for one second try of a call that only looks; every call has a
//! connect, read, attempt and operation timeout, because the SDK by itself waits for a hung reply for ever. Where
//! credentials come from and when they are looked up again is told in [`crate::credentials`].
//!
//! It decides nothing: which call is made when, and what its answer means, is the activities' business.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig, imds};
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult};

pub use crate::credentials::{CredentialSource, Ending, StaticCredentials};

use crate::aws::error::in_words;
use crate::credentials::Renewing;

mod reads;

pub use reads::READ_ATTEMPTS;

use reads::ReadsTwice;

/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reply may stay silent.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one call may take in all.
pub const OPERATION_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a response body may stand still.
const STALL_GRACE: Duration = Duration::from_secs(20);

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
    /// Fixed credentials; they win over [`ClientsConfig::source`].
    pub credentials: Option<StaticCredentials>,
    /// Where credentials come from; without it the usual chain is asked.
    pub source: Option<CredentialSource>,
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
            source: None,
        }
    }

    /// Where credentials come from.
    pub fn source(&self) -> CredentialSource {
        match (&self.credentials, &self.source) {
            (Some(fixed), _) => CredentialSource::Fixed(fixed.clone()),
            (None, Some(source)) => source.clone(),
            (None, None) => CredentialSource::Chain { profile: self.profile.clone() },
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
    provider: Arc<Renewing>,
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
        let provider = Arc::new(Renewing::new(spec, &imds));
        let shared: Arc<dyn ProvideCredentials> = Arc::clone(&provider) as _;
        let config = load(spec, SharedCredentialsProvider::new(shared)).await;
        Self {
            inner: Arc::new(Inner {
                spec: spec.clone(),
                config,
                provider,
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

    /// When the credentials that somebody gave end; `None` when they do not, or do not say. Those of an assumed role are
    /// renewed with those of its source, so the source's end counts.
    ///
    /// # Errors
    /// A credentials error when there are none.
    pub async fn credentials_ending(&self) -> ActivityResult<Option<Ending>> {
        let ending = self.inner.provider.ending().await;
        ending.map_err(|e| no_credentials(&in_words(&e)))
    }

    /// Where the credentials in use come from, in words: the source, and of the usual chain what answered in it.
    ///
    /// # Errors
    /// A credentials error when there are none.
    pub async fn credentials_from(&self) -> ActivityResult<String> {
        let found = self.inner.provider.provide_credentials().await;
        let found = found.map_err(|e| no_credentials(&in_words(&e)))?;
        let source = self.inner.spec.source().to_string();
        let features = found.get_property::<Vec<AwsCredentialFeature>>();
        let answered = features.and_then(|all| all.iter().find_map(in_chain));
        Ok(answered.map_or(source.clone(), |who| format!("{source}: {who}")))
    }

    /// Forgets the credentials of the last look-up: the next call sees what somebody has renewed.
    pub async fn renew_credentials(&self) {
        self.inner.provider.forget().await;
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

/// The configuration of the SDKs with these credentials.
pub(crate) async fn load(spec: &ClientsConfig, provider: SharedCredentialsProvider) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(spec.region.clone()))
        .retry_config(RetryConfig::standard().with_max_attempts(1))
        .timeout_config(timeouts())
        // Cached by `Renewing`: the SDK's cache keeps credentials without an expiry for 15 minutes or more.
        .identity_cache(IdentityCache::no_cache())
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(STALL_GRACE).build())
        .credentials_provider(provider);
    if let Some(profile) = &spec.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(url) = &spec.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    Box::pin(loader.load()).await
}

/// What of the usual chain gave credentials; `None` for notes of the SDK on something else.
fn in_chain(feature: &AwsCredentialFeature) -> Option<&'static str> {
    use AwsCredentialFeature as F;
    Some(match feature {
        F::CredentialsEnvVars => "environment variables",
        F::CredentialsEnvVarsStsWebIdToken | F::CredentialsStsAssumeRoleWebId => "a web identity token",
        F::CredentialsProfile | F::CredentialsProfileSourceProfile | F::CredentialsProfileNamedProvider => {
            "a profile of ~/.aws"
        }
        F::CredentialsProfileSso | F::CredentialsSso => "an SSO session",
        F::CredentialsProfileProcess | F::CredentialsProcess => "a process that a profile names",
        F::CredentialsHttp => "the container's endpoint",
        F::CredentialsImds => "the instance's role",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clients_are_made_without_a_call() {
        let mut spec = ClientsConfig::new("eu-west-1");
        spec.endpoint_url = Some("http://127.0.0.1:9".into());
        spec.credentials = Some(StaticCredentials::new("a", "b"));
        let clients = AwsClients::connect(&spec).await;
        assert_eq!(clients.region(), "eu-west-1");
        assert_eq!(clients.eks().config().retry_config().map(RetryConfig::max_attempts), Some(1));
        assert_eq!(clients.credentials_ending().await.unwrap(), None);
    }
}
