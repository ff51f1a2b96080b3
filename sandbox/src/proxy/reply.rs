//! Replies of our own, each in the shape of the service it stands for.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::xml::escape;

/// How access keys of sessions begin that have ended.
pub(crate) const ENDED_SESSION: &str = "ASIAEXPIRED";

/// A whole reply, as it is kept for a token and sent to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A JSON reply with status 200.
    pub(crate) fn json(value: &Value) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type".to_owned(), "application/json".to_owned()), request_id()],
            body: value.to_string().into(),
        }
    }

    /// The body as JSON; null when it is none.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The refusal of a session that has ended, if the caller's is one: access keys that begin with
    /// [`ENDED_SESSION`] stand for those, because moto looks at no expiry.
    pub(crate) fn ended_session(service: &str, access_key: &str) -> Option<Self> {
        let text = "The security token included in the request is expired";
        access_key.starts_with(ENDED_SESSION).then(|| match service {
            "ec2" => Self::error(service, 400, "RequestExpired", "Request has expired."),
            "iam" | "sts" | "cloudformation" => Self::error(service, 403, "ExpiredToken", text),
            "s3" => Self::error(service, 400, "ExpiredToken", "The provided token has expired."),
            _ => Self::error(service, 400, "ExpiredTokenException", text),
        })
    }

    /// An error in the shape of the service.
    pub(crate) fn error(service: &str, status: u16, code: &str, message: &str) -> Self {
        let xml = |text: String| (text, "text/xml");
        let (body, kind) = match service {
            "ec2" => xml(format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{}</Code><Message>{}</Message>\
                 </Error></Errors><RequestID>sandbox</RequestID></Response>",
                escape(code),
                escape(message)
            )),
            "s3" => xml(format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code><Message>{}</Message>\
                 <RequestId>sandbox</RequestId></Error>",
                escape(code),
                escape(message)
            )),
            "iam" | "sts" | "cloudformation" | "autoscaling" | "elasticloadbalancing" => xml(format!(
                "<ErrorResponse><Error><Type>{}</Type><Code>{}</Code><Message>{}</Message></Error>\
                 <RequestId>sandbox</RequestId></ErrorResponse>",
                if status < 500 { "Sender" } else { "Receiver" },
                escape(code),
                escape(message)
            )),
            "eks" | "lakeformation" => (json!({ "message": message }).to_string(), "application/json"),
            _ => (json!({ "__type": code, "message": message }).to_string(), "application/x-amz-json-1.1"),
        };
        Self {
            status,
            headers: vec![
                ("content-type".to_owned(), kind.to_owned()),
                ("x-amzn-errortype".to_owned(), code.to_owned()),
                request_id(),
            ],
            body: body.into(),
        }
    }
}

impl Reply {
    /// The refusal of a service that is called too often, in its own form.
    pub(crate) fn throttled(service: &str, retry_after_s: Option<u64>) -> Self {
        let (status, code, message) = match service {
            "ec2" => (503, "RequestLimitExceeded", "Request limit exceeded."),
            "s3" => (503, "SlowDown", "Please reduce your request rate."),
            "iam" | "sts" | "cloudformation" | "autoscaling" | "elasticloadbalancing" => {
                (400, "Throttling", "Rate exceeded")
            }
            "eks" => (429, "ThrottlingException", "Rate exceeded"),
            "lakeformation" => (400, "ThrottledException", "Rate exceeded"),
            "servicequotas" | "organizations" => (400, "TooManyRequestsException", "Rate exceeded"),
            _ => (400, "ThrottlingException", "Rate exceeded"),
        };
        let mut reply = Self::error(service, status, code, message);
        if let Some(seconds) = retry_after_s {
            // The first is HTTP's, the second what the SDKs read.
            reply.headers.push(("retry-after".to_owned(), seconds.to_string()));
            reply.headers.push(("x-amz-retry-after".to_owned(), seconds.saturating_mul(1000).to_string()));
        }
        reply
    }
}

fn request_id() -> (String, String) {
    ("x-amzn-requestid".to_owned(), "00000000-0000-4000-8000-000000000000".to_owned())
}

impl From<Reply> for Response {
    fn from(reply: Reply) -> Self {
        let mut response = Self::new(Body::from(reply.body));
        *response.status_mut() =
            StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut headers = HeaderMap::new();
        for (name, value) in reply.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.append(name, value);
            }
        }
        *response.headers_mut() = headers;
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_says_too_often_in_its_own_way() {
        for (service, status, says) in [
            ("ec2", 503, "<Code>RequestLimitExceeded</Code>"),
            ("s3", 503, "<Code>SlowDown</Code>"),
            ("iam", 400, "<Code>Throttling</Code>"),
            ("eks", 429, "Rate exceeded"),
            ("glue", 400, "\"__type\":\"ThrottlingException\""),
        ] {
            let reply = Reply::throttled(service, Some(2));
            let body = String::from_utf8_lossy(&reply.body);
            assert!(reply.status == status && body.contains(says), "{service}: {} {body}", reply.status);
            assert!(reply.headers.contains(&("retry-after".to_owned(), "2".to_owned())), "{service}");
            assert!(
                reply.headers.contains(&("x-amz-retry-after".to_owned(), "2000".to_owned())),
                "{service}"
            );
        }
        assert!(Reply::throttled("eks", None).headers.iter().all(|(name, _)| !name.contains("retry-after")));
    }
}
