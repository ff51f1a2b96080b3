//! Registries: logins that live for one attempt, and manifests by tag.
//!
//! ECR is asked by its own API, whatever host images are pushed to; others by the registry API over HTTP. A token of
//! ECR is fetched for each push and is nowhere but in memory: not in an event, not in `~/.docker/config.json`.
//!
//! Pages: <https://docs.aws.amazon.com/AmazonECR/latest/userguide/registry_auth.html>,
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_ecr::types::{ImageFailureCode, ImageIdentifier};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::reference::registry_host;
use super::registry_http::HttpRegistry;
use crate::aws::error::{classify, incomplete, none_if};
use crate::clients::AwsClients;
use crate::secret::{Secret, SecretRef, resolve_in};

/// The most a manifest may have, in bytes; registries refuse larger ones.
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// The kinds of manifests that are understood.
pub const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
];

const NOT_FOUND: &[&str] = &["ImageNotFoundException", "RepositoryNotFoundException"];

/// How a registry is logged in to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Login {
    /// ECR of the account, with a token of `ecr:GetAuthorizationToken`.
    Ecr,
    /// A name and a password.
    Basic {
        /// The name.
        username: String,
        /// Where the password lies.
        password: SecretRef,
    },
    /// Nobody asks.
    Anonymous,
}

/// A registry and its login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryLogin {
    /// Its host, as `123456789012.dkr.ecr.eu-west-1.amazonaws.com`.
    pub registry: String,
    /// The login.
    pub login: Login,
}

/// A login's name and password, for one attempt.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) username: String,
    pub(super) password: Secret,
}

impl Login {
    /// Whether each attempt gets a new login by itself.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self, Self::Ecr)
    }

    /// Logs in: a new token from ECR, a password from where it lies.
    pub(super) async fn account(&self, ctx: &ActivityContext) -> ActivityResult<Option<Account>> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Basic { username, password } => {
                let password = resolve_in(ctx, password).await?;
                Ok(Some(Account { username: username.clone(), password }))
            }
            Self::Ecr => ecr_token(&*AwsClients::of(ctx)?).await.map(Some),
        }
    }
}

async fn ecr_token(clients: &AwsClients) -> ActivityResult<Account> {
    const ACTION: &str = "ecr:GetAuthorizationToken";
    let answer = clients.ecr().get_authorization_token().send().await.map_err(|e| classify(ACTION, e))?;
    let token = answer.authorization_data().first().and_then(|data| data.authorization_token());
    let token = token.ok_or_else(|| incomplete(ACTION, "authorizationToken"))?;
    let unreadable = || incomplete(ACTION, "readable authorizationToken");
    let plain = Zeroizing::new(STANDARD.decode(token).map_err(|_| unreadable())?);
    let plain = std::str::from_utf8(&plain).map_err(|_| unreadable())?;
    let (username, password) = plain.split_once(':').ok_or_else(unreadable)?;
    Ok(Account { username: username.to_owned(), password: Secret::new(password) })
}

/// The logins of a build, by registry, as the Engine takes them.
pub(super) async fn auth_config(
    ctx: &ActivityContext,
    logins: &[RegistryLogin],
) -> ActivityResult<BTreeMap<String, BTreeMap<&'static str, String>>> {
    let mut all = BTreeMap::new();
    for login in logins {
        let host = registry_host(&login.registry)?;
        if let Some(account) = login.login.account(ctx).await? {
            let fields = [
                ("username", account.username),
                ("password", account.password.expose().to_owned()),
                ("serveraddress", host.clone()),
            ];
            all.insert(host, fields.into());
        }
    }
    Ok(all)
}

/// What a tag stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `sha256:` and the hash of its text.
    pub digest: String,
    /// What kind it is.
    pub media_type: String,
    /// Its text, to the byte.
    pub text: String,
}

impl Manifest {
    /// Takes a manifest in as a registry gave it. The digest is taken from the text, not from what is said of it.
    ///
    /// # Errors
    /// A terminal error for one that is too large.
    pub(super) fn new(media_type: Option<&str>, text: String) -> ActivityResult<Self> {
        if text.len() > MAX_MANIFEST_BYTES {
            return Err(ActivityError::terminal(
                "ManifestTooLarge",
                format!("a manifest of {} bytes; {MAX_MANIFEST_BYTES} are the most", text.len()),
            ));
        }
        let told = serde_json::from_str::<Value>(&text).ok();
        let told = told.as_ref().and_then(|m| m.get("mediaType")).and_then(Value::as_str);
        let media_type = told.or(media_type).unwrap_or(MANIFEST_TYPES[0]).to_owned();
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&text)));
        Ok(Self { digest, media_type, text })
    }

    /// Whether it is the manifest of the local image with this id: the hash of its configuration in Docker's own store,
    /// that of the manifest in containerd's.
    pub fn is_of(&self, image_id: &str) -> bool {
        let config = serde_json::from_str::<Value>(&self.text).ok().and_then(|manifest| {
            manifest.pointer("/config/digest").and_then(Value::as_str).map(|digest| digest == image_id)
        });
        self.digest == image_id || config == Some(true)
    }
}

/// What became of an image that was to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone, or was not there.
    Gone,
    /// The registry does not delete.
    NotSupported,
}

/// A registry that can be asked for manifests.
pub enum Registry {
    /// ECR, by its own API.
    Ecr(Arc<AwsClients>),
    /// Any other.
    Http(HttpRegistry),
}

impl Registry {
    /// Makes ready to ask; asks nothing yet but for the login.
    ///
    /// # Errors
    /// When there is no login.
    pub async fn connect(ctx: &ActivityContext, host: &str, login: &Login) -> ActivityResult<Self> {
        Ok(match login {
            Login::Ecr => Self::Ecr(AwsClients::of(ctx)?),
            other => Self::Http(HttpRegistry::new(host, other.account(ctx).await?)?),
        })
    }

    /// The manifest of a tag or digest; `None` when it, or its repository, is not there.
    ///
    /// # Errors
    /// The call's own.
    pub async fn manifest(&self, repository: &str, reference: &str) -> ActivityResult<Option<Manifest>> {
        let clients = match self {
            Self::Http(http) => return http.manifest(repository, reference).await,
            Self::Ecr(clients) => clients,
        };
        let call = clients.ecr().batch_get_image().repository_name(repository).image_ids(image_id(reference));
        let call = call.set_accepted_media_types(Some(MANIFEST_TYPES.map(str::to_owned).to_vec()));
        let answer = none_if(call.send().await.map_err(|e| classify("ecr:BatchGetImage", e)), NOT_FOUND)?;
        let Some(answer) = answer else { return Ok(None) };
        if let Some(failure) = answer.failures().iter().find(|f| !is_missing(f.failure_code())) {
            let reason = failure.failure_reason().unwrap_or("no reason given");
            return Err(ActivityError::retryable(
                "ImageUnreadable",
                format!("ecr:BatchGetImage: {repository}: {reason}"),
            ));
        }
        let Some(image) = answer.images().first() else { return Ok(None) };
        let text = image.image_manifest().ok_or_else(|| incomplete("ecr:BatchGetImage", "imageManifest"))?;
        Manifest::new(image.image_manifest_media_type(), text.to_owned()).map(Some)
    }

    /// Lets a tag stand for a manifest whose layers are there.
    ///
    /// # Errors
    /// The call's own.
    pub async fn put(&self, repository: &str, tag: &str, manifest: &Manifest) -> ActivityResult<()> {
        let clients = match self {
            Self::Http(http) => return http.put(repository, tag, manifest).await,
            Self::Ecr(clients) => clients,
        };
        let call = clients.ecr().put_image().repository_name(repository).image_tag(tag);
        let call = call.image_manifest_media_type(&manifest.media_type).image_manifest(&manifest.text);
        match call.send().await.map_err(|e| classify("ecr:PutImage", e)) {
            Err(error) if error.code == "ImageAlreadyExistsException" => Ok(()),
            other => other.map(drop),
        }
    }

    /// Every tag of a digest.
    ///
    /// # Errors
    /// The call's own.
    pub async fn tags(&self, repository: &str, digest: &str) -> ActivityResult<Vec<String>> {
        let clients = match self {
            Self::Http(http) => return http.tags(repository, digest).await,
            Self::Ecr(clients) => clients,
        };
        let call = clients.ecr().describe_images().repository_name(repository).image_ids(image_id(digest));
        let answer = none_if(call.send().await.map_err(|e| classify("ecr:DescribeImages", e)), NOT_FOUND)?;
        let details = answer.and_then(|a| a.image_details).unwrap_or_default();
        Ok(details.into_iter().flat_map(|d| d.image_tags.unwrap_or_default()).collect())
    }

    /// Takes a digest with all its tags away, or only a tag. The last tag takes the image along in ECR; other registries
    /// take no single tag away.
    ///
    /// # Errors
    /// The call's own.
    pub async fn delete(&self, repository: &str, reference: &str) -> ActivityResult<Deleted> {
        let clients = match self {
            Self::Http(http) => return http.delete(repository, reference).await,
            Self::Ecr(clients) => clients,
        };
        let call =
            clients.ecr().batch_delete_image().repository_name(repository).image_ids(image_id(reference));
        let answer = none_if(call.send().await.map_err(|e| classify("ecr:BatchDeleteImage", e)), NOT_FOUND)?;
        let failures = answer.and_then(|a| a.failures).unwrap_or_default();
        match failures.iter().find(|f| !is_missing(f.failure_code())) {
            None => Ok(Deleted::Gone),
            Some(failure) => {
                let reason = failure.failure_reason().unwrap_or("no reason given");
                let text = format!("ecr:BatchDeleteImage: {repository}: {reason}");
                Err(ActivityError::retryable("ImageNotDeleted", text))
            }
        }
    }
}

fn is_missing(code: Option<&ImageFailureCode>) -> bool {
    code == Some(&ImageFailureCode::ImageNotFound)
}

fn image_id(reference: &str) -> ImageIdentifier {
    let id = ImageIdentifier::builder();
    if reference.starts_with("sha256:") { id.image_digest(reference) } else { id.image_tag(reference) }
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_names_where_its_password_lies() {
        let text = r#"{"basic":{"username":"ci","password":{"env":"REGISTRY_PASSWORD"}}}"#;
        let login: Login = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&login).unwrap(), text);
        assert_eq!(serde_json::from_str::<Login>("\"ecr\"").unwrap(), Login::Ecr);
        let plain = r#"{"basic":{"username":"ci","password":"hush"}}"#;
        let error = serde_json::from_str::<Login>(plain).unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
    }

    #[test]
    fn a_manifest_tells_whose_it_is_by_its_text() {
        let text = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"sha256:c"}}"#;
        let manifest = Manifest::new(Some("text/plain"), text.to_owned()).unwrap();
        assert_eq!(manifest.media_type, MANIFEST_TYPES[1]);
        assert!(
            manifest.is_of("sha256:c") && manifest.is_of(&manifest.digest) && !manifest.is_of("sha256:d")
        );
        let other = Manifest::new(None, "{}".to_owned()).unwrap();
        assert!(other.media_type == MANIFEST_TYPES[0] && !other.is_of("sha256:c"));
        assert_eq!(
            Manifest::new(None, "x".repeat(MAX_MANIFEST_BYTES + 1)).unwrap_err().code,
            "ManifestTooLarge"
        );
    }
}
