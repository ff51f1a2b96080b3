//! The public API of one DSS, call by call.
//!
//! It never repeats a call and keeps no connection: whether a call may be repeated is decided by who knows what it
//! does. What came back is judged by `reply`, for every call in the same way. Existence is looked up in lists, never by a 404: which status DSS gives for a missing object is not documented.
//!
//! Page: <https://doc.dataiku.com/dss/latest/publicapi/rest.html>

use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult};
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, RequestBuilder, Url};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::reply::{self, Trouble};
use crate::host::HostRoute;
use crate::secret::{SecretRef, resolve_in};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an ordinary call may take.
const CALL_TIMEOUT: Duration = Duration::from_mins(1);
/// How long sending an archive may take.
const UPLOAD_TIMEOUT: Duration = Duration::from_mins(10);

/// Which DSS, and with which key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DssTarget {
    /// Base URL without the API path, as `http://127.0.0.1:11200`.
    pub url: String,
    /// An admin's API key.
    pub api_key: SecretRef,
    /// Shape of the container settings, 14 or 15; without it the instance is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major: Option<u32>,
}

/// A DSS with the key to it. Cannot be printed with its key.
#[derive(Clone)]
pub struct DssClient {
    base: Url,
    authorization: HeaderValue,
}

impl std::fmt::Debug for DssClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DssClient").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

/// One HTTP client for the process: no pool, no proxy, no redirects.
pub(crate) fn http() -> ActivityResult<&'static reqwest::Client> {
    static CLIENT: OnceLock<Result<reqwest::Client, String>> = OnceLock::new();
    let made = CLIENT.get_or_init(|| {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("dssflow/", env!("CARGO_PKG_VERSION")));
        builder.build().map_err(|error| error.to_string())
    });
    made.as_ref().map_err(|why| {
        ActivityError::terminal("HttpClient", format!("no HTTP client can be made: {why}")).no_effect()
    })
}

pub(crate) fn base_url(url: &str) -> ActivityResult<Url> {
    let parsed = Url::parse(url)
        .ok()
        .filter(|parsed| parsed.has_host() && matches!(parsed.scheme(), "http" | "https"));
    parsed.ok_or_else(|| {
        ActivityError::terminal("DssUrl", format!("{url} is not an http or https URL")).no_effect()
    })
}

/// A URL of DSS as it is reached from here: over ssh it leads through a forward.
pub(crate) fn reached(ctx: &ActivityContext, url: &str) -> String {
    ctx.resource::<HostRoute>().map_or_else(|_| url.to_owned(), |route| route.translate(url))
}

impl DssClient {
    /// Reads the key; calls nothing yet.
    ///
    /// # Errors
    /// When the key cannot be read or the URL is none.
    pub async fn connect(ctx: &ActivityContext, target: &DssTarget) -> ActivityResult<Self> {
        let key = resolve_in(ctx, &target.api_key).await?;
        Self::with_key(&reached(ctx, &target.url), key.expose())
    }

    /// A client with a key at hand.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn with_key(url: &str, key: &str) -> ActivityResult<Self> {
        let basic = Zeroizing::new(format!("{key}:"));
        let value = Zeroizing::new(format!("Basic {}", STANDARD.encode(basic.as_bytes())));
        let mut authorization = HeaderValue::from_str(&value).expect("base64 is plain ASCII");
        authorization.set_sensitive(true);
        Ok(Self { base: base_url(url)?, authorization })
    }

    fn request(&self, method: Method, path: &[&str], timeout: Duration) -> ActivityResult<RequestBuilder> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| ActivityError::terminal("DssUrl", "the URL of DSS takes no path").no_effect())?
            .pop_if_empty()
            .extend(["dip", "publicapi"])
            .extend(path);
        let request = http()?.request(method, url).timeout(timeout);
        Ok(request.header(header::AUTHORIZATION, self.authorization.clone()))
    }

    async fn send(&self, method: Method, path: &[&str], call: Call<'_>) -> Result<Value, Trouble> {
        let what = format!("{method} /{}", path.join("/"));
        let mut request = self.request(method.clone(), path, call.timeout).map_err(Trouble::Call)?;
        if !call.query.is_empty() {
            request = request.query(call.query);
        }
        request = match call.body {
            Body::None => request,
            Body::Json(body) => request.json(body),
            Body::Form(form) => request.multipart(form),
        };
        reply::send(request, &method, &what).await
    }

    /// Reads a JSON document.
    pub(crate) async fn get(&self, path: &[&str]) -> ActivityResult<Value> {
        self.get_with(path, &[]).await
    }

    /// Reads with a query.
    pub(crate) async fn get_with(&self, path: &[&str], query: &[(&str, &str)]) -> ActivityResult<Value> {
        self.look(path, query).await.map_err(|trouble| trouble.into_error().no_effect())
    }

    /// Reads what may say of itself that it failed, as the state of a task.
    pub(crate) async fn look(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Trouble> {
        self.send(Method::GET, path, Call { query, ..Call::default() }).await
    }

    /// Posts a JSON document, or nothing.
    pub(crate) async fn post(&self, path: &[&str], body: Option<&Value>) -> ActivityResult<Value> {
        self.post_long(path, &[], body, CALL_TIMEOUT).await.map_err(Trouble::into_error)
    }

    /// Posts and waits as long as told: some calls answer when a quarter of an hour's work is done.
    pub(crate) async fn post_long(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<Value, Trouble> {
        let body = body.map_or(Body::None, Body::Json);
        self.send(Method::POST, path, Call { query, body, timeout }).await
    }

    /// Replaces a JSON document.
    pub(crate) async fn put(&self, path: &[&str], body: &Value) -> ActivityResult<Value> {
        let call = Call { body: Body::Json(body), ..Call::default() };
        self.send(Method::PUT, path, call).await.map_err(Trouble::into_error)
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, path: &[&str], query: &[(&str, &str)]) -> ActivityResult<Value> {
        self.send(Method::DELETE, path, Call { query, ..Call::default() }).await.map_err(Trouble::into_error)
    }

    /// Deletes an object that was there a moment ago, as `is_there` tells. If another attempt was faster it is gone,
    /// whatever DSS says to the second deletion.
    pub(crate) async fn delete_known(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        is_there: impl Future<Output = ActivityResult<bool>> + Send,
    ) -> ActivityResult<Value> {
        let refused = match self.delete(path, query).await {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        match is_there.await {
            Ok(false) => Ok(Value::Null),
            Ok(true) | Err(_) => Err(refused),
        }
    }

    /// Uploads one file as the multipart field `file`.
    pub(crate) async fn upload(
        &self,
        path: &[&str],
        file_name: &str,
        bytes: Vec<u8>,
    ) -> ActivityResult<Value> {
        let part = reqwest::multipart::Part::bytes(bytes).file_name(file_name.to_owned());
        let form = Body::Form(reqwest::multipart::Form::new().part("file", part));
        let call = Call { body: form, timeout: UPLOAD_TIMEOUT, ..Call::default() };
        self.send(Method::POST, path, call).await.map_err(Trouble::into_error)
    }

    /// Hash of `parts`, keyed by the API key: whoever has not the key cannot try out values against it. 32 hex
    /// characters after 8 that tell keys apart, as `0123abcd.…`.
    pub(crate) fn keyed_hash(&self, label: &str, parts: &[&str]) -> String {
        let key = Sha256::digest(self.authorization.as_bytes());
        let mac = |label: &str, parts: &[&str]| {
            let pad = |byte: u8| {
                let mut block = [byte; 64];
                for (cell, key) in block.iter_mut().zip(key) {
                    *cell ^= key;
                }
                Zeroizing::new(block)
            };
            let mut inner = Sha256::new().chain_update(&pad(0x36)[..]);
            for part in std::iter::once(&label).chain(parts) {
                let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
                inner = inner.chain_update(length.to_be_bytes()).chain_update(part);
            }
            let outer = Sha256::new().chain_update(&pad(0x5c)[..]).chain_update(inner.finalize());
            hex::encode(outer.finalize())
        };
        format!("{}.{}", &mac("dssflow key id", &[])[..8], &mac(label, parts)[..32])
    }
}

/// What a call carries beside method and path.
struct Call<'a> {
    query: &'a [(&'a str, &'a str)],
    body: Body<'a>,
    timeout: Duration,
}

enum Body<'a> {
    None,
    Json(&'a Value),
    Form(reqwest::multipart::Form),
}

impl Default for Call<'_> {
    fn default() -> Self {
        Self { query: &[], body: Body::None, timeout: CALL_TIMEOUT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_not_printed() {
        let client = DssClient::with_key("http://127.0.0.1:1/base/", "hunter2").unwrap();
        assert!(!format!("{client:?}").contains("hunter2"));
        assert!(!format!("{:?}", client.authorization).contains("aHVudGVyMjo"));
        assert!(DssClient::with_key("ftp://x", "k").is_err());
    }

    #[test]
    fn a_keyed_hash_tells_secrets_and_keys_apart() {
        let hash = |key: &str, parts: &[&str]| {
            DssClient::with_key("http://127.0.0.1:1", key).unwrap().keyed_hash("s3", parts)
        };
        let known = hash("k", &["id", "secret"]);
        assert_eq!(known, hash("k", &["id", "secret"]));
        assert_eq!(known.len(), 41);
        for other in [hash("k", &["id", "secret2"]), hash("k", &["ids", "ecret"]), hash("k", &["id", ""])] {
            assert_eq!(known[..8], other[..8], "the same key");
            assert_ne!(known, other);
        }
        assert_ne!(known[..8], hash("k2", &["id", "secret"])[..8]);
    }
}
