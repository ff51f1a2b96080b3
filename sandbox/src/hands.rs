//! Somebody else's hands in the world: to plant things, and to change some behind a run's back. For tests.
//!
//! Calls go the way of everybody, through the proxy and to the fake DSS, and are counted like any.

use reqwest::Method;
use serde_json::Value;

use crate::aws::{self, Aws};
use crate::error::SandboxError;
use crate::world::World;

/// An administrator of the account and of DSS who knows nothing of dssflow.
#[derive(Debug, Clone)]
pub struct Hands {
    aws: Aws,
    dss_url: String,
    key_file: Option<std::path::PathBuf>,
}

impl Hands {
    /// Hands in this world.
    pub fn of(world: &World) -> Self {
        let key_file =
            world.secrets.iter().find(|(name, _)| name == "dss-api-key").map(|(_, path)| path.clone());
        Self {
            aws: Aws::new(&world.aws_endpoint, &world.access_key_id),
            dss_url: world.dss_url.trim_end_matches('/').to_owned(),
            key_file,
        }
    }

    /// Calls a service with the query protocol (EC2, IAM, CloudFormation); the reply as JSON.
    ///
    /// # Errors
    /// What the service says.
    pub async fn query(
        &self,
        service: &str,
        action: &str,
        params: &[(&str, &str)],
    ) -> Result<Value, SandboxError> {
        self.aws.query(service, action, params).await
    }

    /// Calls a service with the JSON protocol (Athena, ECR, Glue, SSM, Secrets Manager).
    ///
    /// # Errors
    /// What the service says.
    pub async fn json(&self, service: &str, target: &str, body: &Value) -> Result<Value, SandboxError> {
        self.aws.json(service, target, body).await
    }

    /// Calls EKS: a method as `POST`, a path, a body.
    ///
    /// # Errors
    /// What EKS says.
    pub async fn eks(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, SandboxError> {
        self.aws.eks(parse(method), path, body).await
    }

    /// Calls DSS with the key that the shipped site keeps, below the base path.
    ///
    /// # Errors
    /// What DSS says, or that there is no key yet.
    pub async fn dss(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, SandboxError> {
        let failed = |detail: String| SandboxError::Aws { operation: format!("dss:{method} {path}"), detail };
        let file = self.key_file.as_ref().ok_or_else(|| failed("no key is kept".to_owned()))?;
        let key = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
        let url = format!("{}/public/api{path}", self.dss_url);
        let mut request = aws::http_client().request(parse(method), url).bearer_auth(key.trim());
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| failed(error.to_string()))?;
        let status = response.status();
        let text = response.text().await.map_err(|error| failed(error.to_string()))?;
        if !status.is_success() {
            return Err(failed(format!("{} {text}", status.as_u16())));
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

fn parse(method: &str) -> Method {
    Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET)
}
