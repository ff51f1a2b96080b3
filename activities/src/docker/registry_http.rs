//! A registry over HTTP: manifests and tags, with a name and password or with the token such a login gives.
//!
//! No layers go through here; the Docker Engine moves those.

use std::time::Duration;

use dssflow_engine::activity::{ActivityError, ActivityResult, ErrorClass};
use reqwest::header::{ACCEPT, CONTENT_TYPE, LINK, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::reference::is_loopback;
use super::registry::{Account, Deleted, MANIFEST_TYPES, MAX_MANIFEST_BYTES, Manifest};
use super::trouble::login_refused;
use crate::secret::Secret;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How many tags are looked through for the others of an image.
const MAX_TAGS: usize = 2_000;
/// How many tags come with a page.
const PAGE: usize = 500;
/// The most of a refusal that is told.
const TOLD: usize = 500;

/// A registry over HTTP.
pub struct HttpRegistry {
    client: Client,
    host: String,
    base: String,
    account: Option<Account>,
}

struct Ask<'a> {
    method: Method,
    repository: &'a str,
    url: String,
    body: Option<(&'a str, &'a str)>,
}

impl HttpRegistry {
    /// Plain HTTP for this machine, HTTPS for every other, as Docker does it.
    pub(super) fn new(host: &str, account: Option<Account>) -> ActivityResult<Self> {
        let (scheme, builder) = if is_loopback(host) {
            ("http", Client::builder().no_proxy())
        } else {
            ("https", Client::builder().https_only(true))
        };
        // A login must not follow to another host.
        let client = builder.timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).build();
        let client = client.map_err(|e| {
            ActivityError::terminal("RegistryUnreachable", format!("no HTTP client: {e}")).no_effect()
        })?;
        Ok(Self { client, host: host.to_owned(), base: format!("{scheme}://{host}"), account })
    }

    fn ask<'a>(&self, method: Method, repository: &'a str, rest: &str) -> Ask<'a> {
        Ask { method, repository, url: format!("{}/v2/{repository}/{rest}", self.base), body: None }
    }

    pub(super) async fn manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> ActivityResult<Option<Manifest>> {
        let ask = self.ask(Method::GET, repository, &format!("manifests/{reference}"));
        let answer = self.send(&ask).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = self.expect(answer).await?;
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let text = self.text(answer).await?;
        Manifest::new(kind.as_deref(), text).map(Some)
    }

    pub(super) async fn put(&self, repository: &str, tag: &str, manifest: &Manifest) -> ActivityResult<()> {
        let mut ask = self.ask(Method::PUT, repository, &format!("manifests/{tag}"));
        ask.body = Some((&manifest.media_type, &manifest.text));
        let answer = self.send(&ask).await?;
        self.expect(answer).await.map(drop)
    }

    pub(super) async fn tags(&self, repository: &str, digest: &str) -> ActivityResult<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut found = Vec::new();
        let mut looked_at = 0;
        let mut ask = self.ask(Method::GET, repository, &format!("tags/list?n={PAGE}"));
        loop {
            let answer = self.send(&ask).await?;
            if answer.status() == StatusCode::NOT_FOUND {
                return Ok(found);
            }
            let answer = self.expect(answer).await?;
            let next = answer.headers().get(LINK).and_then(|v| v.to_str().ok()).and_then(next_page);
            let page: Page = self.json(answer).await?;
            for tag in page.tags.unwrap_or_default() {
                looked_at += 1;
                if looked_at > MAX_TAGS {
                    return Err(ActivityError::terminal(
                        "TooManyTags",
                        format!("{}/{repository} has more than {MAX_TAGS} tags", self.host),
                    ));
                }
                if self.manifest(repository, &tag).await?.is_some_and(|m| m.digest == digest) {
                    found.push(tag);
                }
            }
            match next {
                // Only the path counts: a login does not follow to another host.
                Some(next) if next.starts_with('/') => ask.url = format!("{}{next}", self.base),
                _ => return Ok(found),
            }
        }
    }

    pub(super) async fn delete(&self, repository: &str, reference: &str) -> ActivityResult<Deleted> {
        if !reference.starts_with("sha256:") {
            return Ok(Deleted::NotSupported);
        }
        let ask = self.ask(Method::DELETE, repository, &format!("manifests/{reference}"));
        let answer = self.send(&ask).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(Deleted::Gone),
            StatusCode::METHOD_NOT_ALLOWED => Ok(Deleted::NotSupported),
            _ => self.expect(answer).await.map(|_| Deleted::Gone),
        }
    }

    /// Asks with the name and password; where the registry wants a token instead, fetches one and asks again.
    async fn send(&self, ask: &Ask<'_>) -> ActivityResult<Response> {
        let basic = |request: RequestBuilder| match &self.account {
            Some(account) => request.basic_auth(&account.username, Some(account.password.expose())),
            None => request,
        };
        let answer = basic(self.request(ask)).send().await.map_err(|e| self.lost(&e))?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let challenge = answer.headers().get(WWW_AUTHENTICATE).and_then(|v| v.to_str().ok());
        let Some(challenge) = challenge.and_then(Challenge::parse) else { return Ok(answer) };
        let token = self.token(ask, &challenge).await?;
        let request = self.request(ask).bearer_auth(token.expose());
        request.send().await.map_err(|e| self.lost(&e))
    }

    fn request(&self, ask: &Ask<'_>) -> RequestBuilder {
        let mut request =
            self.client.request(ask.method.clone(), &ask.url).header(ACCEPT, MANIFEST_TYPES.join(", "));
        if let Some((kind, body)) = ask.body {
            request = request.header(CONTENT_TYPE, kind).body(body.to_owned());
        }
        request
    }

    async fn token(&self, ask: &Ask<'_>, challenge: &Challenge) -> ActivityResult<Secret> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let secure = challenge.realm.starts_with("https://")
            || (challenge.realm.starts_with("http://") && is_loopback(&self.host));
        if !secure {
            return Err(self.refused("it asks for tokens from a place without TLS"));
        }
        let actions = match ask.method {
            Method::GET => "pull",
            Method::DELETE => "pull,delete",
            _ => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", ask.repository);
        let mut request = self.client.get(&challenge.realm).query(&[("scope", scope.as_str())]);
        if let Some(service) = &challenge.service {
            request = request.query(&[("service", service.as_str())]);
        }
        if let Some(account) = &self.account {
            request = request.basic_auth(&account.username, Some(account.password.expose()));
        }
        let answer = request.send().await.map_err(|e| self.lost(&e))?;
        let answer: Answer = self.json(self.expect(answer).await?).await?;
        let token = answer.token.or(answer.access_token);
        token.map(Secret::new).ok_or_else(|| self.refused("it gave no token"))
    }

    async fn expect(&self, answer: Response) -> ActivityResult<Response> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let seconds = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
        let text = self.text(answer).await.unwrap_or_default();
        let text = &text[..text.floor_char_boundary(TOLD)];
        let message = format!("registry {} answered {status}: {}", self.host, text.trim());
        let mut error = match status {
            StatusCode::UNAUTHORIZED => login_refused(message),
            StatusCode::TOO_MANY_REQUESTS => ActivityError::throttled("RegistryThrottled", message),
            _ if status.is_server_error() => ActivityError::retryable("RegistryFailed", message),
            _ => ActivityError::new(ErrorClass::Terminal, "RegistryRefused", message).no_effect(),
        };
        if let Some(seconds) = seconds {
            error = error.retry_after(Duration::from_secs(seconds));
        }
        Err(error)
    }

    /// An answer's text, at most as much as a manifest may have.
    async fn text(&self, mut answer: Response) -> ActivityResult<String> {
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.lost(&e))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_MANIFEST_BYTES {
                return Err(self.unreadable(&format!("it has more than {MAX_MANIFEST_BYTES} bytes")));
            }
        }
        String::from_utf8(bytes).map_err(|_| self.unreadable("it is no text"))
    }

    async fn json<T: DeserializeOwned>(&self, answer: Response) -> ActivityResult<T> {
        serde_json::from_str(&self.text(answer).await?).map_err(|e| self.unreadable(&e.to_string()))
    }

    fn unreadable(&self, why: &str) -> ActivityError {
        let message = format!("the answer of registry {} cannot be read: {why}", self.host);
        ActivityError::terminal("RegistryUnreadable", message)
    }

    fn refused(&self, why: &str) -> ActivityError {
        login_refused(format!("registry {}: {why}", self.host))
    }

    fn lost(&self, error: &reqwest::Error) -> ActivityError {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(next) = cause {
            text = format!("{text}: {next}");
            cause = next.source();
        }
        let made = ActivityError::retryable("RegistryUnreachable", format!("registry {}: {text}", self.host));
        if error.is_connect() { made.no_effect() } else { made }
    }
}

/// Where a registry gives tokens.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    realm: String,
    service: Option<String>,
}

impl Challenge {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        // Between quotes there are commas, as in scopes.
        let field = |name: &str| {
            let (_, value) = rest.split_once(&format!("{name}=\""))?;
            value.split_once('"').map(|(value, _)| value.to_owned())
        };
        Some(Self { realm: field("realm")?, service: field("service") })
    }
}

/// The path of the next page, from a `Link` header.
fn next_page(link: &str) -> Option<String> {
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    rest.contains("rel=\"next\"").then(|| target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_for_a_token() {
        let text = r#"Bearer realm="https://auth.example.com/token",service="registry",scope="repository:a/b:pull,push""#;
        let expected =
            Challenge { realm: "https://auth.example.com/token".into(), service: Some("registry".into()) };
        assert_eq!(Challenge::parse(text), Some(expected));
        assert_eq!(Challenge::parse("Basic realm=\"x\""), None);
    }

    #[test]
    fn pages_follow_each_other() {
        let link = "</v2/lab/tags/list?last=b&n=2>; rel=\"next\"";
        assert_eq!(next_page(link).as_deref(), Some("/v2/lab/tags/list?last=b&n=2"));
        assert_eq!(next_page("</x>; rel=\"prev\""), None);
    }

    /// A registry that gives tokens for a login, and tells tags one by one.
    async fn token_registry() -> String {
        use axum::Router;
        use axum::extract::Query;
        use axum::http::{HeaderMap, StatusCode as Status};
        use axum::response::{IntoResponse, Response};
        use axum::routing::get;
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let realm = format!("Bearer realm=\"http://{host}/token\",service=\"lab\"");
        let token = |headers: HeaderMap, Query(query): Query<std::collections::BTreeMap<String, String>>| async move {
            let login = headers["authorization"].to_str().unwrap().to_owned();
            // ci:hush
            let good = login == "Basic Y2k6aHVzaA=="
                && query["scope"] == "repository:lab/exec:pull"
                && query["service"] == "lab";
            if good {
                "{\"token\":\"a-token\"}".into_response()
            } else {
                Status::UNAUTHORIZED.into_response()
            }
        };
        let guarded = move |headers: &HeaderMap, answer: Response| {
            if headers.get("authorization").is_some_and(|value| value == "Bearer a-token") {
                return answer;
            }
            (Status::UNAUTHORIZED, [("www-authenticate", realm.clone())]).into_response()
        };
        let (of_manifest, of_tags) = (guarded.clone(), guarded);
        let manifest =
            move |headers: HeaderMap| async move { of_manifest(&headers, "{\"config\":{}}".into_response()) };
        let tags = move |headers: HeaderMap,
                         Query(query): Query<std::collections::BTreeMap<String, String>>| async move {
            let (body, link) = match query.get("last").map(String::as_str) {
                None => ("{\"tags\":[\"1\"]}", "</v2/lab/exec/tags/list?last=1>; rel=\"next\""),
                Some(_) => ("{\"tags\":[\"2\"]}", ""),
            };
            of_tags(&headers, ([("link", link)], body).into_response())
        };
        let router = Router::new()
            .route("/token", get(token))
            .route("/v2/lab/exec/tags/list", get(tags))
            .route("/v2/lab/exec/manifests/{reference}", get(manifest));
        tokio::spawn(async move { axum::serve(listener, router).await });
        host
    }

    #[tokio::test]
    async fn a_login_is_turned_into_a_token_where_the_registry_wants_one() {
        let host = token_registry().await;
        let registry = |password: &str| {
            let account = Account { username: "ci".into(), password: Secret::new(password) };
            HttpRegistry::new(&host, Some(account)).unwrap()
        };
        let manifest = registry("hush").manifest("lab/exec", "1").await.unwrap().unwrap();
        assert_eq!(registry("hush").tags("lab/exec", &manifest.digest).await.unwrap(), ["1", "2"]);
        let error = registry("wrong").manifest("lab/exec", "1").await.unwrap_err();
        assert_eq!((error.class, error.code.as_str()), (ErrorClass::Credentials, "RegistryLoginRefused"));
    }
}
