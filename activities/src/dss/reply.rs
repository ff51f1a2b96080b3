//! What DSS answered, judged in one place: the status, and what stands in the reply whatever the status was.
//!
//! Success is not HTTP 200. Replies carry `messages.error`, results of tasks carry `success`, and every reply of every
//! call goes through [`send`], so no caller can forget to look. Errors are told apart by what they say about the
//! effect: refused connections did nothing, 401 and 403 want other credentials, other 4xx are for good, and a lost
//! reply or a 5xx of a writing call may have done its work.

use std::time::Duration;

use dssflow_engine::activity::ActivityError;
use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::Value;

/// How much of a foreign text goes into a message, in characters.
const MAX_TEXT: usize = 300;
/// The code of an error DSS gives none for.
const FAILED: &str = "DssTaskFailed";

/// Why a call came to no good.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// DSS did what it was asked and says itself that it failed.
    Said(ActivityError),
    /// No answer, or one that refuses: what was asked may not have begun.
    Call(ActivityError),
}

impl Trouble {
    /// Who only wants to know that it failed.
    pub(crate) fn into_error(self) -> ActivityError {
        match self {
            Self::Said(error) | Self::Call(error) => error,
        }
    }

    pub(crate) fn map(self, change: impl FnOnce(ActivityError) -> ActivityError) -> Self {
        match self {
            Self::Said(error) => Self::Said(change(error)),
            Self::Call(error) => Self::Call(change(error)),
        }
    }
}

/// Sends one request, reads the reply and judges it.
pub(crate) async fn send(request: RequestBuilder, method: &Method, what: &str) -> Result<Value, Trouble> {
    let response = request.send().await.map_err(|error| Trouble::Call(transport_error(what, &error)))?;
    let status = response.status();
    let retry_after =
        response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let text = response.text().await.map_err(|error| Trouble::Call(transport_error(what, &error)))?;
    if !status.is_success() {
        return Err(Trouble::Call(status_error(what, status, &text, retry_after.map(Duration::from_secs))));
    }
    let reply = if text.trim().is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    };
    match failure(&reply, *method == Method::GET) {
        Some((code, why)) => {
            Err(Trouble::Said(ActivityError::retryable(code, format!("{what}: {}", clipped(&why)))))
        }
        None => Ok(reply),
    }
}

/// The code and the reason when a reply says that something failed.
///
/// A document that is only read may hold a key `success` of its own; what a call did, and the result of a task, use it
/// for the verdict.
fn failure(reply: &Value, only_read: bool) -> Option<(String, String)> {
    let result = (reply["hasResult"] == true).then(|| &reply["result"]);
    for (part, is_verdict) in [(Some(reply), !only_read), (result, true)] {
        let Some(part) = part else { continue };
        // The messages stand beside the outcome, or are all there is of it.
        let messages = if part["messages"].is_object() { &part["messages"] } else { part };
        if messages["error"] == true || messages["fatal"] == true {
            return Some(told(messages));
        }
        if is_verdict && part["success"] == false && part.get("maxSeverity").is_none() {
            let why = ["message", "detailedMessage", "installationError", "error"];
            let why = why.iter().find_map(|key| part[*key].as_str()).unwrap_or("DSS says that it failed");
            return Some((FAILED.to_owned(), why.to_owned()));
        }
    }
    None
}

/// Code and text of the messages that are errors.
fn told(messages: &Value) -> (String, String) {
    let list = messages["messages"].as_array().map_or(&[][..], Vec::as_slice);
    let grave = |message: &&Value| {
        message["severity"].as_str().is_none_or(|severity| severity == "ERROR") || message["isFatal"] == true
    };
    let texts: Vec<&str> = list
        .iter()
        .filter(grave)
        .filter_map(|message| message["message"].as_str().or_else(|| message["details"].as_str()))
        .collect();
    let code = list.iter().filter(grave).find_map(|message| message["code"].as_str()).unwrap_or(FAILED);
    let text = if texts.is_empty() { "DSS says that it failed".to_owned() } else { texts.join("; ") };
    (code.to_owned(), text)
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

/// The beginning of a foreign text, for a message.
pub(crate) fn clipped(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use dssflow_engine::activity::ErrorClass;

    use serde_json::json;

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
        let fails = |reply: Value| failure(&reply, false).map(|(code, why)| format!("{code}: {why}"));
        let messages = json!({"error": true, "messages": [
            {"severity": "WARNING", "code": "WARN_Y", "message": "slow"},
            {"severity": "ERROR", "code": "ERR_X", "message": "no"}
        ]});
        assert_eq!(fails(json!({"messages": messages.clone()})).as_deref(), Some("ERR_X: no"));
        let task = json!({"hasResult": true, "result": {"success": true, "messages": messages.clone()}});
        assert_eq!(fails(task).as_deref(), Some("ERR_X: no"));
        assert_eq!(fails(messages).as_deref(), Some("ERR_X: no"), "the messages may be the whole result");
        assert!(fails(json!({"hasResult": true, "result": {"success": false}})).is_some());
        assert!(fails(json!({"success": false})).is_some());
        for good in [
            json!({"messages": {"error": false}}),
            json!({"success": true}),
            json!({"hasResult": false, "result": {"success": false}}),
            json!({"hasResult": true, "result": {"messages": [], "anyMessage": false}}),
            // The verdict of messages is their `error`: warnings alone are no failure.
            json!({"hasResult": true, "result": {"success": false, "error": false, "messages": [], "maxSeverity": "WARNING"}}),
            json!({}),
            Value::Null,
        ] {
            assert_eq!(fails(good.clone()), None, "{good}");
        }
        assert_eq!(failure(&json!({"success": false, "name": "a document"}), true), None);
        assert!(failure(&json!({"messages": {"error": true}}), true).is_some());
    }
}
