//! Requests as the handlers see them, and what they answer: JSON, text, nothing, or a refusal in DSS's form.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};

use super::behaviour::Behaviour;
use crate::serve::DropConnection;

/// One public-API request, path and query decoded.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: String,
    /// Path segments below the base path, without empty ones: a trailing slash makes no difference.
    pub(super) segments: Vec<String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) body: Bytes,
    /// Who asks: the id of the key.
    pub(super) key_id: String,
    /// A scripted course for the long task this call starts: polls until it ends, and whether it fails.
    pub(super) course: Option<Course>,
}

/// How a long task goes when a fault says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) polls: u32,
    pub(super) fails: bool,
}

impl Call {
    /// The body as JSON, whatever the Content-Type says: the official client sends none.
    pub(super) fn json(&self) -> Result<Value, Refusal> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Refusal::illegal(format!("Malformed JSON body: {error}")))
    }

    /// A required text field of the body.
    pub(super) fn text(body: &Value, field: &str) -> Result<String, Refusal> {
        match body.get(field).and_then(Value::as_str) {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(Refusal::illegal(format!("Missing required field: {field}"))),
        }
    }

    /// A query boolean: Python writes `True`, everyone else `true`.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.query.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

/// A successful answer.
#[derive(Debug)]
pub(super) enum Reply {
    Json(Value),
    Text(String),
    Empty,
    /// No reply: the connection is dropped.
    Dropped,
    /// No reply, ever.
    Never,
}

/// An error answer: `{errorType, message, detailedMessage}`.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    status: StatusCode,
    kind: &'static str,
    message: String,
    /// Says that an object is not there.
    absent: bool,
}

impl Refusal {
    /// 400: the caller asked for something that makes no sense.
    pub(super) fn illegal(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "java.lang.IllegalArgumentException",
            message: message.into(),
            absent: false,
        }
    }

    /// 401: no key, or one this instance did not make.
    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            kind: "com.dataiku.dip.exceptions.UnauthorizedException",
            message: message.into(),
            absent: false,
        }
    }

    /// 403: the key has not the right.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            kind: "com.dataiku.dip.exceptions.ForbiddenException",
            message: message.into(),
            absent: false,
        }
    }

    /// 404: no such object.
    pub(super) fn missing(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            kind: "com.dataiku.dip.exceptions.NotFoundException",
            message: message.into(),
            absent: true,
        }
    }

    /// 500 with the type DSS uses for arguments it finds out late; existence must not be probed by it.
    pub(super) fn late_illegal(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: "java.lang.IllegalArgumentException",
            message: message.into(),
            absent: false,
        }
    }

    /// 500: something broke inside.
    pub(super) fn broken(kind: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, kind, message: message.into(), absent: false }
    }

    /// What it says.
    pub(super) fn text(&self) -> String {
        self.message.clone()
    }

    /// The same, as said of something that is not there.
    pub(super) fn of_absent(mut self) -> Self {
        self.absent = true;
        self
    }

    /// The same with another status.
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

/// What every handler returns.
pub(super) type Answer = Result<Reply, Refusal>;

/// Answers with a JSON document.
#[expect(clippy::unnecessary_wraps, reason = "the shape of every handler's end")]
pub(super) fn ok(value: Value) -> Answer {
    Ok(Reply::Json(value))
}

/// DSS's message list, as cluster, push and code-env replies carry it.
pub(super) fn messages(error: Option<(&str, &str)>) -> Value {
    let list = error.map_or_else(Vec::new, |(code, message)| {
        vec![json!({"severity": "ERROR", "isFatal": false, "code": code, "title": code, "message": message, "details": message})]
    });
    json!({
        "messages": list, "anyMessage": error.is_some(), "success": error.is_none(), "warning": false,
        "error": error.is_some(), "fatal": false,
        "maxSeverity": if error.is_some() { Value::from("ERROR") } else { Value::Null }
    })
}

/// The HTTP form of an answer.
pub(super) async fn respond(answer: Answer, behaviour: &Behaviour) -> Response {
    match answer {
        Ok(Reply::Json(value)) => json_response(StatusCode::OK, &value),
        Ok(Reply::Text(text)) => {
            let mut response = Response::new(Body::from(text));
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=utf-8"));
            response
        }
        Ok(Reply::Empty) => Response::new(Body::empty()),
        Ok(Reply::Dropped) => dropped(),
        Ok(Reply::Never) => std::future::pending().await,
        Err(refusal) => {
            let status = behaviour
                .missing_status
                .filter(|_| refusal.absent)
                .and_then(|status| StatusCode::from_u16(status).ok())
                .unwrap_or(refusal.status);
            if behaviour.html_errors && status.is_server_error() {
                return html_response(status, &refusal.message);
            }
            error_response(status, refusal.kind, &refusal.message)
        }
    }
}

/// A connection that breaks off without a reply.
pub(super) fn dropped() -> Response {
    let broken = futures::stream::once(async {
        Err::<Bytes, _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    });
    let mut response = Response::new(Body::from_stream(broken));
    response.extensions_mut().insert(DropConnection);
    response
}

/// An error in DSS's form.
pub(super) fn error_response(status: StatusCode, kind: &str, message: &str) -> Response {
    json_response(status, &json!({"errorType": kind, "message": message, "detailedMessage": message}))
}

/// An error as a gateway in front of DSS would put it.
pub(super) fn html_response(status: StatusCode, message: &str) -> Response {
    let mut response =
        Response::new(Body::from(format!("<html><body><h1>{status}</h1><p>{message}</p></body></html>")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

fn json_response(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json;charset=utf-8"));
    response
}
