//! A world for one test, ended when the test is over, and calls to it without an SDK.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use dssflow_sandbox::{SandboxOptions, World};
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// The program that serves `__sandbox`.
pub(crate) const EXE: &str = env!("CARGO_BIN_EXE_dssflow-sandbox");

/// A directory with a world in it; both go away at the end.
pub(crate) struct Lab {
    pub(crate) world: World,
    dir: PathBuf,
}

pub(crate) fn options(dir: &Path) -> SandboxOptions {
    SandboxOptions { latency: 0.0, idle: Duration::from_mins(10), ..SandboxOptions::new(dir, EXE) }
}

pub(crate) fn fresh_dir() -> PathBuf {
    let name = format!("dssflow-sandbox-{}-{:08x}", std::process::id(), rand::random::<u32>());
    std::env::temp_dir().join(name)
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let dir = fresh_dir();
        let world = dssflow_sandbox::up(&options(&dir), &|_| {}).await.unwrap();
        Self { world, dir }
    }

    /// Ends the world; a test that panics leaves that to [`Drop`].
    pub(crate) async fn end(self) {
        assert!(dssflow_sandbox::down(&self.dir).await.unwrap());
    }

    pub(crate) async fn eks(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.request(method, "eks", path);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let code = response.headers().get("x-amzn-errortype").map(|code| code.to_str().unwrap().to_owned());
        let mut value: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
        if let (Some(code), true) = (code, value.is_object()) {
            value["code"] = Value::String(code);
        }
        (status, value)
    }

    /// A call with the query protocol; status and text.
    pub(crate) async fn query(
        &self,
        service: &str,
        form: &[(&str, &str)],
    ) -> Result<(StatusCode, String), reqwest::Error> {
        let response = self.request(Method::POST, service, "/").form(form).send().await?;
        Ok((response.status(), response.text().await?))
    }

    pub(crate) async fn json(&self, service: &str, target: &str, body: &Value) -> (StatusCode, Value) {
        let request = self
            .request(Method::POST, service, "/")
            .header("x-amz-target", target)
            .header("content-type", "application/x-amz-json-1.1");
        let response = request.body(body.to_string()).send().await.unwrap();
        (response.status(), serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    fn request(&self, method: Method, service: &str, path: &str) -> reqwest::RequestBuilder {
        let scope = format!("{}/20260101/eu-west-1/{service}/aws4_request", self.world.access_key_id);
        client().request(method, format!("{}{path}", self.world.aws_endpoint)).header(
            "authorization",
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"),
        )
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let dir = self.dir.clone();
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _gone = runtime.block_on(dssflow_sandbox::down(&dir));
            let _gone = std::fs::remove_dir_all(&dir);
        });
        let _panicked = ended.join();
    }
}

pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap()
}
