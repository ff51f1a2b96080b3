//! Raw calls to moto or to the proxy, without an SDK.
//!
//! moto reads the service and the access key from the `Authorization` header and checks no signature, so a header that
//! names them is enough. For the sandbox's own hands only: it never reaches anything but loopback.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::error::SandboxError;
use crate::xml;

/// Region of every sandbox.
pub(crate) const REGION: &str = "eu-west-1";
/// Account of every sandbox; moto's own default.
pub(crate) const ACCOUNT: &str = "123456789012";

/// A caller with an access key, at one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Aws {
    http: reqwest::Client,
    endpoint: String,
    access_key: String,
}

impl Aws {
    pub(crate) fn new(endpoint: &str, access_key: &str) -> Self {
        Self { http: http_client(), endpoint: endpoint.to_owned(), access_key: access_key.to_owned() }
    }

    /// A service with the query protocol (EC2, IAM, STS, CloudFormation); the reply as JSON.
    pub(crate) async fn query(
        &self,
        service: &str,
        action: &str,
        params: &[(&str, &str)],
    ) -> Result<Value, SandboxError> {
        let version = match service {
            "ec2" => "2016-11-15",
            "iam" => "2010-05-08",
            "sts" => "2011-06-15",
            _ => "2010-05-15",
        };
        let mut form = vec![("Action", action), ("Version", version)];
        form.extend_from_slice(params);
        let request = self.request(Method::POST, service, "/").form(&form);
        let text = send(request, service, action).await?;
        let reply = xml::to_json(&text);
        // One root element, named after the action in one of two ways.
        let root = reply.as_object().and_then(|map| map.values().next().cloned()).unwrap_or_default();
        let result = format!("{action}Result");
        Ok(root.get(&result).cloned().unwrap_or(root))
    }

    /// A service with the JSON protocol (Athena, ECR, Glue, SSM, Secrets Manager).
    pub(crate) async fn json(
        &self,
        service: &str,
        target: &str,
        body: &Value,
    ) -> Result<Value, SandboxError> {
        let request = self
            .request(Method::POST, service, "/")
            .header("x-amz-target", target)
            .header("content-type", "application/x-amz-json-1.1")
            .body(body.to_string());
        let operation = target.rsplit('.').next().unwrap_or(target);
        let text = send(request, service, operation).await?;
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    /// EKS, whose operations are paths.
    pub(crate) async fn eks(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, SandboxError> {
        let mut request = self.request(method, "eks", path);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let text = send(request, "eks", path).await?;
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    /// S3, path style; the reply as JSON.
    pub(crate) async fn s3(&self, method: Method, path: &str, body: String) -> Result<Value, SandboxError> {
        let text = send(self.request(method, "s3", path).body(body), "s3", path).await?;
        Ok(xml::to_json(&text))
    }

    /// moto's own control routes.
    pub(crate) async fn moto(&self, path: &str, body: &Value) -> Result<(), SandboxError> {
        let request = self.http.post(format!("{}/moto-api{path}", self.endpoint)).json(body);
        send(request, "moto", path).await.map(|_| ())
    }

    fn request(&self, method: Method, service: &str, path: &str) -> reqwest::RequestBuilder {
        let scope = format!("{}/20260101/{REGION}/{service}/aws4_request", self.access_key);
        self.http.request(method, format!("{}{path}", self.endpoint)).header(
            "authorization",
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"),
        )
    }
}

/// A client for loopback: no proxy of the environment may come between, and a hung peer is an error in the end.
pub(crate) fn http_client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_mins(1))
        .build()
        .expect("a client without options that can fail")
}

/// The HTTP status of a failed call, read from its error; 0 when there was no reply.
pub(crate) fn status_of(error: &SandboxError) -> u16 {
    match error {
        SandboxError::Aws { detail, .. } => {
            detail.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
        }
        _ => 0,
    }
}

async fn send(
    request: reqwest::RequestBuilder,
    service: &str,
    operation: &str,
) -> Result<String, SandboxError> {
    let failed = |detail: String| SandboxError::Aws { operation: format!("{service}:{operation}"), detail };
    let response = request.send().await.map_err(|error| failed(error.to_string()))?;
    let status = response.status();
    let text = response.text().await.map_err(|error| failed(error.to_string()))?;
    if status.is_success() {
        return Ok(text);
    }
    let short: String = text.chars().take(600).collect();
    Err(failed(format!("{} {short}", status.as_u16())))
}
