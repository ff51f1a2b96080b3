//! References to secrets, secrets in memory, and the sinks new secrets are written to.
//!
//! A spec names a secret by where it lies, never by value: [`SecretRef`] refuses a plain string. The value is read
//! when a call needs it, lives in a [`Secret`] that cannot be printed or serialised and is wiped when dropped, and
//! goes nowhere but into that call. A secret that dssflow itself obtains, as the DSS API key shown once, is put
//! durably into a [`SecretSink`] before the step is done.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The most a secret may have, in bytes.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Where a secret lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum SecretRef {
    /// `{ env: NAME }`: a variable of the command's environment.
    Env {
        /// Name of the variable.
        env: String,
    },
    /// `{ file: PATH }`: a file only its owner can read; one trailing newline is not part of the secret.
    File {
        /// Absolute path, on the machine dssflow runs on.
        file: PathBuf,
    },
    /// `{ secrets_manager: ID, key: NAME }`: AWS Secrets Manager; `key` picks a member of a JSON secret.
    SecretsManager {
        /// Name or ARN of the secret.
        secrets_manager: String,
        /// Member of a JSON object; the whole text when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// `{ ssm: NAME }`: a `SecureString` of the SSM parameter store.
    Ssm {
        /// Name or ARN of the parameter.
        ssm: String,
    },
}

const REF_HELP: &str = "name the secret by where it lies: {env: NAME}, {file: PATH}, \
                        {secrets_manager: ID, key: NAME} or {ssm: NAME}";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRef {
    env: Option<String>,
    file: Option<PathBuf>,
    secrets_manager: Option<String>,
    key: Option<String>,
    ssm: Option<String>,
}

/// A mapping, and a refusal that does not repeat the value for everything else.
fn mapping<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
    refusal: &'static str,
) -> Result<T, D::Error> {
    struct Only<T>(&'static str, std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Only<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<T, E> {
            Err(E::custom(format_args!("a plain text stands here; {}", self.0)))
        }
        fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<T, E> {
            self.visit_str("")
        }
        fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<T, E> {
            self.visit_str("")
        }
        fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<T, E> {
            self.visit_str("")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(serde::de::value::MapAccessDeserializer::new(map))
        }
    }
    deserializer.deserialize_any(Only(refusal, std::marker::PhantomData))
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let raw: RawRef = mapping(deserializer, REF_HELP)?;
        let named = [raw.env.is_some(), raw.file.is_some(), raw.secrets_manager.is_some(), raw.ssm.is_some()];
        if named.iter().filter(|n| **n).count() != 1 {
            return Err(D::Error::custom(format_args!(
                "a secret reference names exactly one place; {REF_HELP}"
            )));
        }
        if raw.key.is_some() && raw.secrets_manager.is_none() {
            return Err(D::Error::custom("`key` goes with `secrets_manager` only"));
        }
        if let Some(env) = raw.env {
            return Ok(Self::Env { env });
        }
        if let Some(file) = raw.file {
            return Ok(Self::File { file });
        }
        if let Some(secrets_manager) = raw.secrets_manager {
            return Ok(Self::SecretsManager { secrets_manager, key: raw.key });
        }
        Ok(Self::Ssm { ssm: raw.ssm.expect("one of four is named and it is none of the others") })
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env { env } => write!(f, "env {env}"),
            Self::File { file } => write!(f, "file {}", file.display()),
            Self::SecretsManager { secrets_manager, key: None } => {
                write!(f, "Secrets Manager {secrets_manager}")
            }
            Self::SecretsManager { secrets_manager, key: Some(key) } => {
                write!(f, "Secrets Manager {secrets_manager} ({key})")
            }
            Self::Ssm { ssm } => write!(f, "SSM {ssm}"),
        }
    }
}

/// A secret in memory: cannot be printed or serialised, wiped when dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a value in.
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// The value, for the one call that needs it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// 16 hex characters by which to recognise the same secret; for values of high entropy only, as generated keys.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"dssflow secret fingerprint\0");
        hash.update(self.expose());
        hex::encode(hash.finalize())[..16].to_owned()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a secret could not be read or written. Never carries a value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set, or not text.
    #[error("the environment variable {0} is not set")]
    EnvMissing(String),
    /// The file cannot be used.
    #[error("the secret file {} cannot be used: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The reference points to nothing, or to nothing usable.
    #[error("{reference}: {why}")]
    NotUsable {
        /// The reference.
        reference: String,
        /// The reason.
        why: String,
    },
    /// AWS said no.
    #[error("{reference}: AWS answered {code}: {message}")]
    Aws {
        /// The reference.
        reference: String,
        /// The service's code.
        code: String,
        /// The service's message.
        message: String,
    },
    /// The place is on AWS and no client was given.
    #[error("{0} needs an AWS client and none was given")]
    NoClient(String),
}

impl From<SecretError> for ActivityError {
    fn from(error: SecretError) -> Self {
        let message = error.to_string();
        match &error {
            SecretError::Aws { code, .. } if code.contains("Throttl") => {
                Self::throttled(code.clone(), message)
            }
            SecretError::Aws { code, .. } if code.starts_with("dispatch") || code.starts_with("Internal") => {
                Self::retryable(code.clone(), message).no_effect()
            }
            _ => Self::credentials("SecretUnavailable", message).help(
                "put the secret where the spec says it lies, or change the reference, then resume the run",
            ),
        }
    }
}

/// The clients a reference may need. Only those that the references in use name must be there.
#[derive(Debug, Clone, Copy, Default)]
pub struct SecretClients<'a> {
    /// For `secrets_manager`.
    pub secrets_manager: Option<&'a aws_sdk_secretsmanager::Client>,
    /// For `ssm`.
    pub ssm: Option<&'a aws_sdk_ssm::Client>,
}

/// Reads a secret from where it lies.
///
/// # Errors
/// [`SecretError`] when it is missing, empty, too large, readable by others (files), or AWS refuses.
pub async fn resolve(reference: &SecretRef, clients: SecretClients<'_>) -> Result<Secret, SecretError> {
    let unusable =
        |why: &str| SecretError::NotUsable { reference: reference.to_string(), why: why.to_owned() };
    let secret = match reference {
        SecretRef::Env { env } => {
            Secret::new(std::env::var(env).map_err(|_| SecretError::EnvMissing(env.clone()))?)
        }
        SecretRef::File { file } => {
            read_secret_file(file)?.ok_or_else(|| unusable("the file does not exist"))?
        }
        SecretRef::SecretsManager { secrets_manager, key } => {
            let client =
                clients.secrets_manager.ok_or_else(|| SecretError::NoClient(reference.to_string()))?;
            let reply = client.get_secret_value().secret_id(secrets_manager).send().await;
            let reply = reply.map_err(|e| aws_error(reference, &e))?;
            let text = reply.secret_string().ok_or_else(|| unusable("it is binary, text is needed"))?;
            match key {
                None => Secret::new(text),
                Some(key) => {
                    let json: serde_json::Value = serde_json::from_str(text)
                        .map_err(|_| unusable("a key is named, but it is not JSON"))?;
                    let value = json.get(key).and_then(serde_json::Value::as_str);
                    Secret::new(value.ok_or_else(|| unusable("the JSON has no such text member"))?)
                }
            }
        }
        SecretRef::Ssm { ssm } => {
            let client = clients.ssm.ok_or_else(|| SecretError::NoClient(reference.to_string()))?;
            let reply = client.get_parameter().name(ssm).with_decryption(true).send().await;
            let reply = reply.map_err(|e| aws_error(reference, &e))?;
            let value = reply.parameter().and_then(|p| p.value());
            Secret::new(value.ok_or_else(|| unusable("the parameter has no value"))?)
        }
    };
    if secret.expose().is_empty() {
        return Err(unusable("it is empty"));
    }
    Ok(secret)
}

/// Reads a secret with the clients injected into the engine.
///
/// # Errors
/// As [`resolve`], as an activity's error.
pub async fn resolve_in(ctx: &ActivityContext, reference: &SecretRef) -> ActivityResult<Secret> {
    let (manager, ssm) = injected(ctx);
    let clients = SecretClients { secrets_manager: manager.as_deref(), ssm: ssm.as_deref() };
    Ok(resolve(reference, clients).await?)
}

type Injected =
    (Option<std::sync::Arc<aws_sdk_secretsmanager::Client>>, Option<std::sync::Arc<aws_sdk_ssm::Client>>);

fn injected(ctx: &ActivityContext) -> Injected {
    (ctx.resource::<aws_sdk_secretsmanager::Client>().ok(), ctx.resource::<aws_sdk_ssm::Client>().ok())
}

fn aws_error<E, R>(
    place: &impl fmt::Display,
    error: &aws_smithy_runtime_api::client::result::SdkError<E, R>,
) -> SecretError
where
    E: aws_smithy_types::error::metadata::ProvideErrorMetadata,
{
    let meta = error.as_service_error().map(aws_smithy_types::error::metadata::ProvideErrorMetadata::meta);
    let code = meta.and_then(|m| m.code()).unwrap_or("dispatch failure").to_owned();
    let message = meta.and_then(|m| m.message()).unwrap_or("no answer").to_owned();
    SecretError::Aws { reference: place.to_string(), code, message }
}

fn file_error(path: &Path, why: impl fmt::Display) -> SecretError {
    SecretError::File { path: path.to_owned(), why: why.to_string() }
}

/// Reads a file that only its owner can read; `None` when there is none.
fn read_secret_file(path: &Path) -> Result<Option<Secret>, SecretError> {
    use std::os::unix::fs::PermissionsExt;
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(file_error(path, e)),
    };
    if !meta.is_file() {
        return Err(file_error(path, "it is not a regular file"));
    }
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(file_error(path, "others can read it; run `chmod 600` on it"));
    }
    if meta.len() > MAX_SECRET_BYTES {
        return Err(file_error(path, format_args!("it has more than {MAX_SECRET_BYTES} bytes")));
    }
    let bytes = Zeroizing::new(std::fs::read(path).map_err(|e| file_error(path, e))?);
    let text = std::str::from_utf8(&bytes).map_err(|_| file_error(path, "it is not UTF-8 text"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(Some(Secret::new(text.strip_suffix('\r').unwrap_or(text))))
}

/// Where a secret that dssflow obtains is put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum SecretSink {
    /// `{ file: PATH }`: a file of mode 0600 outside the store.
    File {
        /// Absolute path, on the machine dssflow runs on.
        file: PathBuf,
    },
    /// `{ secrets_manager: NAME }`: a secret of AWS Secrets Manager, made when missing.
    SecretsManager {
        /// Name of the secret.
        secrets_manager: String,
    },
    /// `{ ssm: NAME }`: a `SecureString` of the SSM parameter store, made when missing.
    Ssm {
        /// Name of the parameter.
        ssm: String,
    },
}

impl<'de> Deserialize<'de> for SecretSink {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        const HELP: &str = "name where the secret goes: {file: PATH}, {secrets_manager: NAME} or {ssm: NAME}";
        let raw: RawRef = mapping(deserializer, HELP)?;
        match raw {
            RawRef { env: None, file: Some(file), secrets_manager: None, key: None, ssm: None } => {
                Ok(Self::File { file })
            }
            RawRef {
                env: None,
                file: None,
                secrets_manager: Some(secrets_manager),
                key: None,
                ssm: None,
            } => Ok(Self::SecretsManager { secrets_manager }),
            RawRef { env: None, file: None, secrets_manager: None, key: None, ssm: Some(ssm) } => {
                Ok(Self::Ssm { ssm })
            }
            _ => Err(D::Error::custom(HELP)),
        }
    }
}

impl SecretSink {
    /// The reference by which what was put here is read back.
    pub fn reference(&self) -> SecretRef {
        match self {
            Self::File { file } => SecretRef::File { file: file.clone() },
            Self::SecretsManager { secrets_manager } => {
                SecretRef::SecretsManager { secrets_manager: secrets_manager.clone(), key: None }
            }
            Self::Ssm { ssm } => SecretRef::Ssm { ssm: ssm.clone() },
        }
    }

    /// What lies here; `None` when there is nothing yet.
    ///
    /// # Errors
    /// As [`resolve`].
    pub async fn read(&self, clients: SecretClients<'_>) -> Result<Option<Secret>, SecretError> {
        match resolve(&self.reference(), clients).await {
            Ok(secret) => Ok(Some(secret)),
            Err(SecretError::NotUsable { why, .. })
                if why.contains("does not exist") || why.contains("empty") =>
            {
                Ok(None)
            }
            Err(SecretError::Aws { code, .. })
                if code == "ResourceNotFoundException" || code == "ParameterNotFound" =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a secret here; durable when it returns. `token` makes a repeated write of the same secret one version in
    /// Secrets Manager; it must be another one for another secret.
    ///
    /// # Errors
    /// When the file cannot be written and synced, or AWS refuses.
    pub async fn write(
        &self,
        secret: &Secret,
        clients: SecretClients<'_>,
        token: Option<&str>,
    ) -> Result<SecretRef, SecretError> {
        let reference = self.reference();
        match self {
            Self::File { file } => write_secret_file(file, secret).map_err(|e| file_error(file, e))?,
            Self::SecretsManager { secrets_manager } => {
                let client =
                    clients.secrets_manager.ok_or_else(|| SecretError::NoClient(reference.to_string()))?;
                let put = client.put_secret_value().secret_id(secrets_manager).secret_string(secret.expose());
                let put = put.set_client_request_token(token.map(str::to_owned));
                match put.send().await.map_err(|e| aws_error(&reference, &e)) {
                    Ok(_) => {}
                    Err(SecretError::Aws { code, .. }) if code == "ResourceNotFoundException" => {
                        let create =
                            client.create_secret().name(secrets_manager).secret_string(secret.expose());
                        let create = create.set_client_request_token(token.map(str::to_owned));
                        create.send().await.map_err(|e| aws_error(&reference, &e))?;
                    }
                    Err(error) => return Err(error),
                }
            }
            Self::Ssm { ssm } => {
                let client = clients.ssm.ok_or_else(|| SecretError::NoClient(reference.to_string()))?;
                let put = client.put_parameter().name(ssm).value(secret.expose()).overwrite(true);
                let put = put.r#type(aws_sdk_ssm::types::ParameterType::SecureString);
                put.send().await.map_err(|e| aws_error(&reference, &e))?;
            }
        }
        Ok(reference)
    }

    /// Removes what lies here if its fingerprint is still `fingerprint`; true when it was removed.
    ///
    /// # Errors
    /// As [`SecretSink::read`], and when the removal is refused.
    pub async fn remove(&self, fingerprint: &str, clients: SecretClients<'_>) -> Result<bool, SecretError> {
        let Some(current) = self.read(clients).await? else { return Ok(false) };
        if current.fingerprint() != fingerprint {
            return Ok(false);
        }
        let reference = self.reference();
        match self {
            Self::File { file } => {
                std::fs::remove_file(file).map_err(|e| file_error(file, e))?;
                sync_parent(file).map_err(|e| file_error(file, e))?;
            }
            Self::SecretsManager { secrets_manager } => {
                let client =
                    clients.secrets_manager.ok_or_else(|| SecretError::NoClient(reference.to_string()))?;
                let delete =
                    client.delete_secret().secret_id(secrets_manager).force_delete_without_recovery(true);
                delete.send().await.map_err(|e| aws_error(&reference, &e))?;
            }
            Self::Ssm { ssm } => {
                let client = clients.ssm.ok_or_else(|| SecretError::NoClient(reference.to_string()))?;
                client.delete_parameter().name(ssm).send().await.map_err(|e| aws_error(&reference, &e))?;
            }
        }
        Ok(true)
    }

    /// [`SecretSink::read`] with the clients injected into the engine.
    pub(crate) async fn read_in(&self, ctx: &ActivityContext) -> ActivityResult<Option<Secret>> {
        let (manager, ssm) = injected(ctx);
        Ok(self.read(SecretClients { secrets_manager: manager.as_deref(), ssm: ssm.as_deref() }).await?)
    }

    /// [`SecretSink::write`] with the clients injected into the engine.
    pub(crate) async fn write_in(&self, ctx: &ActivityContext, secret: &Secret) -> ActivityResult<SecretRef> {
        let (manager, ssm) = injected(ctx);
        let clients = SecretClients { secrets_manager: manager.as_deref(), ssm: ssm.as_deref() };
        // Of the secret as well: an attempt that makes another key must not be answered for the first one.
        let token = ctx.token(&format!("put-secret-{}", secret.fingerprint()));
        Ok(self.write(secret, clients, Some(token.as_str())).await?)
    }

    /// [`SecretSink::remove`] with the clients injected into the engine.
    pub(crate) async fn remove_in(&self, ctx: &ActivityContext, fingerprint: &str) -> ActivityResult<bool> {
        let (manager, ssm) = injected(ctx);
        let clients = SecretClients { secrets_manager: manager.as_deref(), ssm: ssm.as_deref() };
        Ok(self.remove(fingerprint, clients).await?)
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent)?.sync_all()
}

fn write_secret_file(path: &Path, secret: &Secret) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    if std::fs::symlink_metadata(path).is_ok_and(|m| !m.is_file()) {
        return Err(io::Error::other("it is a link or a directory"));
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let mut name = path.file_name().ok_or_else(|| io::Error::other("it has no file name"))?.to_owned();
    name.push(".dssflow-new");
    let temporary = path.with_file_name(name);
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(secret.expose().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_parent(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_mappings_and_never_text() {
        let parse = |json: &str| serde_json::from_str::<SecretRef>(json);
        assert_eq!(parse(r#"{"env":"X"}"#).unwrap(), SecretRef::Env { env: "X".into() });
        assert!(matches!(
            parse(r#"{"secrets_manager":"a","key":"k"}"#).unwrap(),
            SecretRef::SecretsManager { .. }
        ));
        for bad in [r#""hunter2-canary""#, "42", r#"{"env":"X","ssm":"y"}"#, "{}", r#"{"env":"X","key":"k"}"#]
        {
            let error = parse(bad).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "the refusal repeats the secret: {error}");
        }
        assert!(parse(r#""x""#).unwrap_err().to_string().contains("{env: NAME}"));
        for json in [r#"{"env":"X"}"#, r#"{"ssm":"/a/b"}"#, r#"{"secrets_manager":"a"}"#] {
            assert_eq!(serde_json::to_string(&parse(json).unwrap()).unwrap(), json);
        }
        assert!(serde_json::from_str::<SecretSink>(r#"{"env":"X"}"#).is_err());
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_ne!(secret.fingerprint(), Secret::new("hunter3").fingerprint());
    }

    #[tokio::test]
    async fn file_sinks_are_private_and_removed_only_when_unchanged() {
        use std::os::unix::fs::PermissionsExt;
        let dir = std::env::temp_dir().join(format!("dssflow-sink-{}", std::process::id()));
        let sink = SecretSink::File { file: dir.join("key") };
        let none = SecretClients::default();
        assert!(sink.read(none).await.unwrap().is_none());
        let secret = Secret::new("first");
        let reference = sink.write(&secret, none, None).await.unwrap();
        assert_eq!(resolve(&reference, none).await.unwrap().expose(), "first");
        assert_eq!(std::fs::metadata(dir.join("key")).unwrap().permissions().mode() & 0o777, 0o600);
        sink.write(&Secret::new("second"), none, None).await.unwrap();
        assert!(!sink.remove(&secret.fingerprint(), none).await.unwrap(), "somebody else's secret stays");
        assert!(sink.remove(&Secret::new("second").fingerprint(), none).await.unwrap());
        std::fs::write(dir.join("key"), "open").unwrap();
        std::fs::set_permissions(dir.join("key"), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(sink.read(none).await, Err(SecretError::File { .. })));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
