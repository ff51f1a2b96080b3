//! Passes requests on to moto and brings its replies back, both whole.

use axum::http::{HeaderMap, Method, Uri};
use bytes::Bytes;
use serde_json::Value;

use super::reply::Reply;
use crate::aws::{self, Aws};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Incoming {
    /// The body as JSON; null when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A look at what the request names by its path.
    pub(crate) fn as_get(&self) -> Self {
        Self { method: Method::GET, body: Bytes::new(), ..self.clone() }
    }

    /// The same request with another body.
    pub(crate) fn with_json(&self, body: &Value) -> Self {
        Self { body: body.to_string().into(), ..self.clone() }
    }
}

/// moto.
#[derive(Debug)]
pub(crate) struct Upstream {
    http: reqwest::Client,
    endpoint: String,
    aws: Aws,
}

impl Upstream {
    pub(crate) fn new(endpoint: &str) -> Self {
        Self {
            http: aws::http_client(),
            endpoint: endpoint.to_owned(),
            aws: Aws::new(endpoint, "AKIASANDBOXPROXY"),
        }
    }

    /// moto with hands of our own.
    pub(crate) fn aws(&self) -> &Aws {
        &self.aws
    }

    /// The ARN of the user that an access key belongs to.
    pub(crate) async fn caller(&self, access_key: &str) -> Option<String> {
        let aws = Aws::new(&self.endpoint, access_key);
        let identity = aws.query("sts", "GetCallerIdentity", &[]).await.ok()?;
        identity["Arn"].as_str().filter(|arn| arn.starts_with("arn:aws:iam::")).map(str::to_owned)
    }

    /// Passes a request on. `Host` stays as the client signed it.
    pub(crate) async fn forward(&self, request: &Incoming) -> Reply {
        let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut headers = request.headers.clone();
        for name in ["connection", "content-length", "transfer-encoding", "expect", "accept-encoding"] {
            headers.remove(name);
        }
        let sent = self
            .http
            .request(request.method.clone(), format!("{}{path}", self.endpoint))
            .headers(headers)
            .body(request.body.clone())
            .send()
            .await;
        let response = match sent {
            Ok(response) => response,
            Err(error) => return broken(&error.to_string()),
        };
        let status = response.status().as_u16();
        let head = request.method == Method::HEAD;
        let headers = response
            .headers()
            .iter()
            .filter(|(name, _)| {
                let name = name.as_str();
                !matches!(name, "connection" | "transfer-encoding" | "date" | "server" | "status")
                    && (head || name != "content-length")
            })
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect();
        match response.bytes().await {
            Ok(body) => Reply { status, headers, body },
            Err(error) => broken(&error.to_string()),
        }
    }
}

fn broken(detail: &str) -> Reply {
    Reply::error("sandbox", 502, "ServiceUnavailable", &format!("the emulator did not answer: {detail}"))
}
