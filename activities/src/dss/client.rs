//! The public API of one DSS, call by call.
//!
//! It never repeats a call and keeps no connection: whether a call may be repeated is decided by who knows what it
//! does. Errors are told apart by what they say about the effect: refused connections did nothing, 401 and 403 want
//! other credentials, other 4xx are for good, and a lost reply or a 5xx of a writing call may have done its work.
//! Existence is looked up in lists, never by a 404: which status DSS gives for a missing object is not documented.
//!
//! Page: <https://doc.dataiku.com/dss/latest/publicapi/rest.html>

use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult};
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::host::HostRoute;
use crate::secret::{SecretRef, resolve_in};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an ordinary call may take.
const CALL_TIMEOUT: Duration = Duration::from_mins(1);
/// How much of a foreign text goes into a message, in characters.
const MAX_TEXT: usize = 300;
/// Wait between two looks at a future.
const POLL: Duration = Duration::from_secs(2);
/// The first waits are shorter: many futures end at once.
const FIRST_POLL: Duration = Duration::from_millis(100);

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

    /// Reads a JSON document.
    pub(crate) async fn get(&self, path: &[&str]) -> ActivityResult<Value> {
        let request = self.request(Method::GET, path, CALL_TIMEOUT)?;
        send(request, &format!("GET /{}", path.join("/"))).await.map_err(ActivityError::no_effect)
    }

    /// Reads with a query.
    pub(crate) async fn get_with(&self, path: &[&str], query: &[(&str, &str)]) -> ActivityResult<Value> {
        let request = self.request(Method::GET, path, CALL_TIMEOUT)?.query(query);
        send(request, &format!("GET /{}", path.join("/"))).await.map_err(ActivityError::no_effect)
    }

    /// Posts a JSON document, or nothing.
    pub(crate) async fn post(&self, path: &[&str], body: Option<&Value>) -> ActivityResult<Value> {
        self.post_long(path, &[], body, CALL_TIMEOUT).await
    }

    /// Posts and waits as long as told: some calls answer when a quarter of an hour's work is done.
    pub(crate) async fn post_long(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
        timeout: Duration,
    ) -> ActivityResult<Value> {
        let mut request = self.request(Method::POST, path, timeout)?;
        if !query.is_empty() {
            request = request.query(query);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        send(request, &format!("POST /{}", path.join("/"))).await
    }

    /// Replaces a JSON document.
    pub(crate) async fn put(&self, path: &[&str], body: &Value) -> ActivityResult<Value> {
        let request = self.request(Method::PUT, path, CALL_TIMEOUT)?.json(body);
        send(request, &format!("PUT /{}", path.join("/"))).await
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, path: &[&str], query: &[(&str, &str)]) -> ActivityResult<Value> {
        let request = self.request(Method::DELETE, path, CALL_TIMEOUT)?.query(query);
        send(request, &format!("DELETE /{}", path.join("/"))).await
    }

    /// Uploads one file as the multipart field `file`.
    pub(crate) async fn upload(
        &self,
        path: &[&str],
        file_name: &str,
        bytes: Vec<u8>,
    ) -> ActivityResult<Value> {
        let part = reqwest::multipart::Part::bytes(bytes).file_name(file_name.to_owned());
        let form = reqwest::multipart::Form::new().part("file", part);
        let request = self.request(Method::POST, path, Duration::from_mins(10))?.multipart(form);
        send(request, &format!("POST /{}", path.join("/"))).await
    }

    /// Waits for a long task and gives its result. A job DSS no longer knows (it was restarted) is retryable: the
    /// caller looks at the world and starts anew.
    pub(crate) async fn wait_future(
        &self,
        ctx: &ActivityContext,
        started: &Value,
        what: &str,
    ) -> ActivityResult<Value> {
        let mut state = started.clone();
        let mut looks = 0u32;
        loop {
            if state["hasResult"] == true {
                let result = state["result"].clone();
                check_result(&result, what)?;
                return Ok(result);
            }
            let Some(job) = state["jobId"].as_str().map(str::to_owned) else {
                check_result(&state, what)?;
                return Ok(state);
            };
            if state["aborted"] == true {
                return Err(ActivityError::retryable("DssTaskAborted", format!("{what} was aborted in DSS")));
            }
            ctx.heartbeat(json!({"jobId": job, "looks": looks}));
            ctx.sleep(if looks < 5 { FIRST_POLL } else { POLL }).await?;
            looks += 1;
            state = match self.get_with(&["futures", &job], &[("peek", "False")]).await {
                Ok(state) => state,
                Err(error) if is_gone(&error) => {
                    let text = format!("DSS no longer knows the task {job} ({what}): was it restarted?");
                    let mut lost = ActivityError::retryable("DssTaskLost", text);
                    lost.no_effect = false;
                    return Err(lost);
                }
                Err(error) => return Err(error),
            };
        }
    }
}

/// Whether an answer says that the object is not known. Only for futures, which have no list to look in.
fn is_gone(error: &ActivityError) -> bool {
    error.code == "HTTP404" || error.message.to_ascii_lowercase().contains("not found")
}

/// A result that says `success: false`, or carries an error message, is a failure whatever the status was.
pub(crate) fn check_result(result: &Value, what: &str) -> ActivityResult<()> {
    check_messages(result, what)?;
    if result["success"] == false {
        return Err(ActivityError::retryable("DssTaskFailed", format!("{what} failed in DSS")));
    }
    Ok(())
}

/// Fails when `messages.error` is set.
pub(crate) fn check_messages(reply: &Value, what: &str) -> ActivityResult<()> {
    let messages = &reply["messages"];
    if messages["error"] != true {
        return Ok(());
    }
    let list = messages["messages"].as_array().cloned().unwrap_or_default();
    let texts: Vec<&str> = list
        .iter()
        .filter(|message| message["severity"].as_str().is_none_or(|severity| severity == "ERROR"))
        .filter_map(|message| message["message"].as_str().or_else(|| message["details"].as_str()))
        .collect();
    let code = list.iter().find_map(|message| message["code"].as_str()).unwrap_or("DssTaskFailed");
    Err(ActivityError::retryable(code, format!("{what}: {}", clipped(&texts.join("; ")))))
}

/// Sends one request and reads the reply.
pub(crate) async fn send(request: RequestBuilder, what: &str) -> ActivityResult<Value> {
    let response = request.send().await.map_err(|error| transport_error(what, &error))?;
    let status = response.status();
    let retry_after =
        response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let text = response.text().await.map_err(|error| transport_error(what, &error))?;
    if status.is_success() {
        return Ok(if text.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        });
    }
    Err(status_error(what, status, &text, retry_after.map(Duration::from_secs)))
}

fn transport_error(what: &str, error: &reqwest::Error) -> ActivityError {
    // The error's own text repeats the URL, which we name by its path.
    let mut reasons: Vec<String> = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(next) = source {
        reasons.push(next.to_string());
        source = next.source();
    }
    let reason = reasons.pop().unwrap_or_else(|| "no reason given".to_owned());
    if error.is_connect() {
        return ActivityError::retryable(
            "DssUnreachable",
            format!("{what}: DSS cannot be reached: {reason}"),
        )
        .help("is DSS running, and is dss.url right?")
        .no_effect();
    }
    if error.is_timeout() {
        return ActivityError::retryable("DssTimeout", format!("{what}: no reply in time"));
    }
    if error.is_builder() || error.is_request() && error.is_body() {
        return ActivityError::terminal("DssRequest", format!("{what}: {reason}")).no_effect();
    }
    ActivityError::retryable("DssNoReply", format!("{what}: the connection broke: {reason}"))
}

/// What a status means. The body is DSS's `{errorType, message, detailedMessage}` or some gateway's page.
fn status_error(what: &str, status: StatusCode, body: &str, retry_after: Option<Duration>) -> ActivityError {
    let parsed: Option<Value> = serde_json::from_str(body).ok();
    let kind = parsed.as_ref().and_then(|value| value["errorType"].as_str()).map(str::to_owned);
    let message = parsed
        .as_ref()
        .and_then(|value| value["detailedMessage"].as_str().or_else(|| value["message"].as_str()))
        .map_or_else(|| clipped(&plain(body)), clipped);
    let code = kind
        .as_deref()
        .and_then(|kind| kind.rsplit('.').next())
        .map_or_else(|| format!("HTTP{}", status.as_u16()), str::to_owned);
    let text = format!("{what}: {} {message}", status.as_u16());
    match status.as_u16() {
        401 => ActivityError::credentials(code, text)
            .help("the API key of DSS is wrong or was revoked; mend dss.api_key, then resume"),
        403 if what.contains("/plugins") => ActivityError::credentials(code, text)
            .help("plugin calls may want a personal API key of an administrator instead of a global one"),
        403 => ActivityError::credentials(code, text).help("the API key needs admin rights"),
        404 => {
            ActivityError { code: "HTTP404".to_owned(), ..ActivityError::terminal(code, text).no_effect() }
        }
        429 => {
            let throttled = ActivityError::throttled(code, text);
            match retry_after {
                Some(after) => throttled.retry_after(after),
                None => throttled,
            }
        }
        400..=499 => ActivityError::terminal(code, text).no_effect(),
        _ => {
            let error = ActivityError::retryable(code, text);
            match retry_after {
                Some(after) => error.retry_after(after),
                None => error,
            }
        }
    }
}

/// A page's text without its tags.
fn plain(html: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for c in html.chars().take(4 * MAX_TEXT) {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                text.push(' ');
            }
            c if !inside => text.push(c),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use dssflow_engine::activity::ErrorClass;

    use super::*;

    fn status(code: u16, body: &str) -> ActivityError {
        status_error("GET /x", StatusCode::from_u16(code).unwrap(), body, None)
    }

    #[test]
    fn a_status_tells_class_and_effect() {
        let json =
            r#"{"errorType":"java.lang.IllegalArgumentException","message":"m","detailedMessage":"why"}"#;
        for (code, class, no_effect) in [
            (400, ErrorClass::Terminal, true),
            (401, ErrorClass::Credentials, true),
            (403, ErrorClass::Credentials, true),
            (429, ErrorClass::Throttled, true),
            (500, ErrorClass::Retryable, false),
            (503, ErrorClass::Retryable, false),
        ] {
            let error = status(code, json);
            assert_eq!((error.class, error.no_effect), (class, no_effect), "{code}");
            assert!(error.message.ends_with("why") && error.code == "IllegalArgumentException", "{error}");
        }
    }

    #[test]
    fn a_gateways_page_becomes_a_line() {
        let error = status(502, "<html><body><h1>502</h1><p>Bad Gateway</p></body></html>");
        assert_eq!((error.code.as_str(), error.message.as_str()), ("HTTP502", "GET /x: 502 502 Bad Gateway"));
    }

    #[test]
    fn success_is_not_the_status() {
        assert!(check_messages(&json!({"messages": {"error": false}}), "x").is_ok());
        let failed = json!({"messages": {"error": true, "messages": [{"severity": "ERROR", "code": "ERR_X", "message": "no"}]}});
        assert_eq!(check_messages(&failed, "push").unwrap_err().to_string(), "ERR_X: push: no");
        assert!(check_result(&json!({"success": false}), "x").is_err());
        assert!(check_result(&json!({"success": true}), "x").is_ok());
        assert!(check_result(&json!({}), "x").is_ok());
    }

    #[test]
    fn the_key_is_not_printed() {
        let client = DssClient::with_key("http://127.0.0.1:1/base/", "hunter2").unwrap();
        assert!(!format!("{client:?}").contains("hunter2"));
        assert!(!format!("{:?}", client.authorization).contains("aHVudGVyMjo"));
        assert!(DssClient::with_key("ftp://x", "k").is_err());
    }
}
