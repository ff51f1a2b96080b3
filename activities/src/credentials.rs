//! Where AWS credentials come from, and how they stay fresh over a run of hours.
//!
//! [`CredentialSource`] says where, by names and references, and never carries a secret of its own but for
//! [`CredentialSource::Fixed`]. `Renewing` asks it for every call: what has no expiry is asked again after a
//! minute, so that a person who renews it is noticed; what has one, shortly before its end. A role is assumed anew
//! with whatever its own source gives at that moment, so a session of an hour does not end a run of three.
//!
//! It decides nothing about who must be who: account and principal are the identity step's business.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{Region, imds};
use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use dssflow_engine::time::BoxFuture;
use secrecy::{ExposeSecret, SecretString};

use crate::aws::error::in_words;
use crate::clients::{self, ClientsConfig};
use crate::secret::{self, SecretClients, SecretRef};

/// How old credentials without an expiry may become before they are looked up again.
pub const CREDENTIALS_MAX_AGE: Duration = Duration::from_mins(1);
/// How long before their end credentials are looked up anew.
pub const EXPIRY_MARGIN: Duration = Duration::from_mins(5);
/// What a session of an assumed role is called unless the site says otherwise.
pub const SESSION_NAME: &str = "dssflow";

/// Where credentials come from.
#[derive(Debug, Clone)]
pub enum CredentialSource {
    /// The usual chain: environment, profile, container, instance role.
    Chain {
        /// The profile the chain reads, when it is not the default one.
        profile: Option<String>,
    },
    /// One profile of the AWS configuration files, whatever the environment says.
    Profile(String),
    /// `AWS_ACCESS_KEY_ID` and its like, and nothing else.
    Environment,
    /// The role of the instance, by its metadata service, and nothing else.
    InstanceRole,
    /// An access key by reference, read anew for each look-up.
    Static {
        /// The access key id.
        access_key_id: SecretRef,
        /// The secret access key.
        secret_access_key: SecretRef,
        /// The session token of temporary keys.
        session_token: Option<SecretRef>,
    },
    /// A role that is assumed with what `source` gives.
    Role {
        /// The role.
        arn: String,
        /// What the session is called, for CloudTrail; [`SESSION_NAME`] when absent.
        session_name: Option<String>,
        /// What the role's trust policy asks for, when the role is of another account.
        external_id: Option<String>,
        /// What assumes it.
        source: Box<CredentialSource>,
    },
    /// A set in memory.
    Fixed(StaticCredentials),
}

impl fmt::Display for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain { profile: None } => f.write_str("the usual chain"),
            Self::Chain { profile: Some(profile) } => write!(f, "the usual chain with profile {profile}"),
            Self::Profile(profile) => write!(f, "profile {profile}"),
            Self::Environment => f.write_str("the environment"),
            Self::InstanceRole => f.write_str("the instance's role"),
            Self::Static { access_key_id, .. } => write!(f, "the access key at {access_key_id}"),
            Self::Role { arn, source, .. } => write!(f, "role {arn} by {source}"),
            Self::Fixed(fixed) => write!(f, "access key {}", fixed.access_key_id),
        }
    }
}

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

    fn credentials(&self) -> Credentials {
        let token = self.session_token.as_ref().map(|t| t.expose_secret().to_owned());
        let secret = self.secret_access_key.expose_secret();
        Credentials::new(self.access_key_id.clone(), secret, token, None, "dssflow")
    }
}

/// When credentials end that somebody must renew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// When.
    pub at: SystemTime,
    /// Whether whatever gives them renews them by itself.
    pub renewed: bool,
}

/// What a look-up gave.
#[derive(Clone)]
struct Found {
    credentials: Credentials,
    /// The end of what a person gave: of a role, that of its source.
    root: Option<Ending>,
}

/// A provider that asks its source again and again; see the module.
pub(crate) struct Renewing {
    spec: ClientsConfig,
    source: CredentialSource,
    imds: imds::Client,
    /// The last answer and when it came. Held over a look-up, so that many calls at once ask once.
    last: tokio::sync::Mutex<Option<(Instant, Found)>>,
}

impl fmt::Debug for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewing").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Renewing {
    pub(crate) fn new(spec: &ClientsConfig, imds: &imds::Client) -> Self {
        Self {
            spec: spec.clone(),
            source: spec.source(),
            imds: imds.clone(),
            last: tokio::sync::Mutex::new(None),
        }
    }

    /// Forgets the last answer: the next call looks again.
    pub(crate) async fn forget(&self) {
        *self.last.lock().await = None;
    }

    /// When what a person gave ends; `None` when it does not, or does not say.
    pub(crate) async fn ending(&self) -> Result<Option<Ending>, CredentialsError> {
        Ok(self.found().await?.root)
    }

    async fn found(&self) -> Result<Found, CredentialsError> {
        let mut last = self.last.lock().await;
        if let Some((asked, found)) = last.as_ref()
            && still_good(asked.elapsed(), max_age(&self.source), found.credentials.expiry().map(left))
        {
            return Ok(found.clone());
        }
        match self.look_up(&self.source).await {
            Ok(found) => {
                *last = Some((Instant::now(), found.clone()));
                Ok(found)
            }
            // A source that does not answer is no reason to drop what is still good for some minutes.
            Err(error) => match last.as_ref() {
                Some((_, found)) if found.credentials.expiry().is_some_and(|e| left(e) > Duration::ZERO) => {
                    tracing::warn!(error = in_words(&error), "credentials could not be renewed yet");
                    Ok(found.clone())
                }
                _ => Err(error),
            },
        }
    }

    fn look_up<'a>(&'a self, source: &'a CredentialSource) -> BoxFuture<'a, Result<Found, CredentialsError>> {
        Box::pin(async move {
            match source {
                CredentialSource::Chain { profile } => self.chain(profile.as_deref()).await.map(found),
                CredentialSource::Profile(name) => {
                    let config = ProviderConfig::without_region()
                        .with_region(Some(Region::new(self.spec.region.clone())));
                    let profile =
                        ProfileFileCredentialsProvider::builder().configure(&config).profile_name(name);
                    profile.build().provide_credentials().await.map_err(named(source)).map(found)
                }
                CredentialSource::Environment => {
                    let environment = EnvironmentVariableCredentialsProvider::new();
                    environment.provide_credentials().await.map_err(named(source)).map(found)
                }
                CredentialSource::InstanceRole => {
                    let role = ImdsCredentialsProvider::builder().imds_client(self.imds.clone()).build();
                    role.provide_credentials().await.map_err(named(source)).map(found)
                }
                CredentialSource::Static { access_key_id, secret_access_key, session_token } => self
                    .by_reference(access_key_id, secret_access_key, session_token.as_ref())
                    .await
                    .map(found),
                CredentialSource::Role { arn, session_name, external_id, source } => {
                    let given = self.look_up(source).await?;
                    let name = session_name.as_deref().unwrap_or(SESSION_NAME);
                    let session = self.assume(arn, name, external_id.as_deref(), given.credentials.clone());
                    let credentials = session.await.map_err(|text| {
                        CredentialsError::provider_error(format!("role {arn} by {source}: {text}"))
                    })?;
                    Ok(Found { credentials, root: given.root })
                }
                CredentialSource::Fixed(fixed) => Ok(found(fixed.credentials())),
            }
        })
    }

    /// The default chain, built anew for every look-up: the SDK's own reads the profile files once and for ever.
    async fn chain(&self, profile: Option<&str>) -> provider::Result {
        let mut chain = DefaultCredentialsChain::builder()
            .region(Region::new(self.spec.region.clone()))
            .imds_client(self.imds.clone());
        if let Some(profile) = profile {
            chain = chain.profile_name(profile);
        }
        Box::pin(chain.build()).await.provide_credentials().await
    }

    /// Reads an access key where it lies. One in AWS is read with the usual chain: these very credentials cannot be used
    /// to read themselves.
    async fn by_reference(
        &self,
        id: &SecretRef,
        secret: &SecretRef,
        token: Option<&SecretRef>,
    ) -> provider::Result {
        let in_aws = |r: &SecretRef| matches!(r, SecretRef::SecretsManager { .. } | SecretRef::Ssm { .. });
        let clients = if [Some(id), Some(secret), token].into_iter().flatten().any(in_aws) {
            let chain = self.chain(self.spec.profile.as_deref()).await?;
            let config = clients::load(&self.spec, SharedCredentialsProvider::new(chain)).await;
            Some((aws_sdk_secretsmanager::Client::new(&config), aws_sdk_ssm::Client::new(&config)))
        } else {
            None
        };
        let clients = SecretClients {
            secrets_manager: clients.as_ref().map(|(manager, _)| manager),
            ssm: clients.as_ref().map(|(_, ssm)| ssm),
        };
        let id = secret::resolve(id, clients).await.map_err(CredentialsError::provider_error)?;
        let secret = secret::resolve(secret, clients).await.map_err(CredentialsError::provider_error)?;
        let token = match token {
            Some(token) => {
                let token = secret::resolve(token, clients).await;
                Some(token.map_err(CredentialsError::provider_error)?.expose().to_owned())
            }
            None => None,
        };
        Ok(Credentials::new(id.expose(), secret.expose(), token, None, "dssflow"))
    }

    async fn assume(
        &self,
        arn: &str,
        session_name: &str,
        external_id: Option<&str>,
        with: Credentials,
    ) -> Result<Credentials, String> {
        let config = clients::load(&self.spec, SharedCredentialsProvider::new(with)).await;
        let call = aws_sdk_sts::Client::new(&config)
            .assume_role()
            .role_arn(arn)
            .role_session_name(session_name)
            .set_external_id(external_id.map(str::to_owned));
        let answer = call.send().await.map_err(|e| {
            let meta =
                e.as_service_error().map(aws_smithy_types::error::metadata::ProvideErrorMetadata::meta);
            match meta.and_then(|m| Some((m.code()?.to_owned(), m.message().unwrap_or_default().to_owned())))
            {
                Some((code, message)) => format!("sts:AssumeRole: {code}: {message}"),
                None => format!("sts:AssumeRole: {}", in_words(&e)),
            }
        })?;
        let given = answer.credentials().ok_or("sts:AssumeRole gave no credentials")?;
        let end = SystemTime::try_from(*given.expiration()).map_err(|e| format!("the session's end: {e}"))?;
        Ok(Credentials::new(
            given.access_key_id(),
            given.secret_access_key(),
            Some(given.session_token().to_owned()),
            Some(end),
            "dssflow",
        ))
    }
}

/// An error that says who was asked: the SDK's own providers do not.
fn named(source: &CredentialSource) -> impl Fn(CredentialsError) -> CredentialsError {
    let source = source.to_string();
    move |error| CredentialsError::provider_error(format!("{source} gives none: {}", in_words(&error)))
}

/// What a source gave that is no role.
fn found(credentials: Credentials) -> Found {
    let renewed = credentials.get_property::<Vec<AwsCredentialFeature>>().is_some_and(|features| {
        use AwsCredentialFeature as F;
        features
            .iter()
            .any(|f| matches!(f, F::CredentialsImds | F::CredentialsHttp | F::CredentialsStsAssumeRoleWebId))
    });
    let root = credentials.expiry().map(|at| Ending { at, renewed });
    Found { credentials, root }
}

fn left(expiry: SystemTime) -> Duration {
    expiry.duration_since(SystemTime::now()).unwrap_or_default()
}

/// How long an answer without an expiry is used again. An access key at a place of this machine is simply read again.
fn max_age(source: &CredentialSource) -> Duration {
    let here = |r: &SecretRef| matches!(r, SecretRef::Env { .. } | SecretRef::File { .. });
    match source {
        CredentialSource::Static { access_key_id, secret_access_key, session_token }
            if here(access_key_id) && here(secret_access_key) && session_token.as_ref().is_none_or(here) =>
        {
            Duration::ZERO
        }
        _ => CREDENTIALS_MAX_AGE,
    }
}

/// Whether credentials of that age are used again: those with an expiry until shortly before it, others for a while.
fn still_good(age: Duration, max_age: Duration, left: Option<Duration>) -> bool {
    left.map_or(age < max_age, |left| left > EXPIRY_MARGIN)
}

impl ProvideCredentials for Renewing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { self.found().await.map(|found| found.credentials) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let fixed = CredentialSource::Fixed(StaticCredentials::new("AKIAEXAMPLE", "hush-hush"));
        for text in [format!("{fixed:?}"), fixed.to_string()] {
            assert!(text.contains("AKIAEXAMPLE") && !text.contains("hush"), "{text}");
        }
    }

    #[test]
    fn credentials_without_an_expiry_are_used_for_a_minute() {
        let seconds = Duration::from_secs;
        let minute = CREDENTIALS_MAX_AGE;
        assert!(still_good(seconds(59), minute, None) && !still_good(seconds(60), minute, None));
        assert!(still_good(seconds(3000), minute, Some(seconds(301))));
        assert!(!still_good(seconds(1), minute, Some(seconds(300))));
    }

    #[tokio::test]
    async fn a_key_in_a_file_is_read_again_for_every_call() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            SecretRef::File { file: path }
        };
        let source = CredentialSource::Static {
            access_key_id: write("id", "AKIAFIRST"),
            secret_access_key: write("secret", "first"),
            session_token: None,
        };
        let spec = ClientsConfig { source: Some(source), ..ClientsConfig::new("eu-west-1") };
        let provider = Renewing::new(&spec, &imds::Client::builder().build());
        assert_eq!(provider.provide_credentials().await.unwrap().access_key_id(), "AKIAFIRST");
        write("id", "AKIASECOND");
        assert_eq!(provider.provide_credentials().await.unwrap().access_key_id(), "AKIASECOND");
        std::fs::remove_file(dir.path().join("id")).unwrap();
        let error = in_words(&provider.provide_credentials().await.unwrap_err());
        assert!(error.contains("does not exist") && !error.contains("first"), "{error}");
    }
}
