//! The part of ECR's API that a push asks, before a plain registry: tokens as the test wants them, manifests as the
//! registry has them. An emulator of ECR checks no token, so a token that is over can only be shown this way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Ends with the runtime it was started on.
pub(crate) struct EcrStub {
    /// Where the SDK finds it.
    pub(crate) endpoint: String,
    shared: Arc<Shared>,
}

struct Shared {
    registry: String,
    user: String,
    password: String,
    token: Mutex<String>,
    given: AtomicUsize,
}

impl EcrStub {
    pub(crate) async fn start(registry: &str, user: &str, password: &str) -> Self {
        let shared = Arc::new(Shared {
            registry: registry.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
            token: Mutex::new(String::new()),
            given: AtomicUsize::new(0),
        });
        let router = Router::new().route("/", post(answer)).with_state(Arc::clone(&shared));
        let listener =
            tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { endpoint, shared }
    }

    /// Every token from now on.
    pub(crate) fn token(&self, token: &str) {
        token.clone_into(&mut self.shared.token.lock().expect("nobody panics while it is held"));
    }

    pub(crate) fn tokens_given(&self) -> usize {
        self.shared.given.load(Ordering::SeqCst)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let input: Value = serde_json::from_slice(&body).unwrap_or_default();
    let found = match operation.as_str() {
        "GetAuthorizationToken" => {
            shared.given.fetch_add(1, Ordering::SeqCst);
            let token = shared.token.lock().expect("nobody panics while it is held").clone();
            let token = STANDARD.encode(format!("{}:{token}", shared.user));
            let endpoint = format!("https://{}", shared.registry);
            json!({ "authorizationData": [{ "authorizationToken": token, "proxyEndpoint": endpoint }] })
        }
        "BatchGetImage" => shared.images(&input).await,
        "DescribeImages" => json!({ "imageDetails": [{ "imageTags": shared.tags(&input).await }] }),
        "BatchDeleteImage" => {
            let (name, digest) = named(&input);
            let path = format!("{name}/manifests/{digest}");
            let gone = shared.ask(reqwest::Method::DELETE, &path).await;
            assert!(gone.status().is_success(), "{}", gone.status());
            json!({ "imageIds": [], "failures": [] })
        }
        other => return (StatusCode::BAD_REQUEST, format!("{other} is not served")).into_response(),
    };
    ([("content-type", "application/x-amz-json-1.1")], found.to_string()).into_response()
}

fn named(input: &Value) -> (&str, &str) {
    let id = &input["imageIds"][0];
    let reference = id["imageDigest"].as_str().or_else(|| id["imageTag"].as_str());
    (input["repositoryName"].as_str().unwrap_or_default(), reference.unwrap_or_default())
}

impl Shared {
    async fn ask(&self, method: reqwest::Method, path: &str) -> reqwest::Response {
        let url = format!("http://{}/v2/{path}", self.registry);
        let accept = "application/vnd.docker.distribution.manifest.v2+json";
        let call = reqwest::Client::new().request(method, url).header("accept", accept);
        call.basic_auth(&self.user, Some(&self.password)).send().await.expect("the registry answers")
    }

    async fn images(&self, input: &Value) -> Value {
        let (name, reference) = named(input);
        let found = self.ask(reqwest::Method::GET, &format!("{name}/manifests/{reference}")).await;
        if !found.status().is_success() {
            let failure = json!({ "imageId": input["imageIds"][0], "failureCode": "ImageNotFound" });
            return json!({ "images": [], "failures": [failure] });
        }
        let manifest = found.text().await.expect("a manifest is text");
        json!({ "images": [{ "repositoryName": name, "imageManifest": manifest }], "failures": [] })
    }

    async fn tags(&self, input: &Value) -> Vec<String> {
        let (name, digest) = named(input);
        let list: Value = self
            .ask(reqwest::Method::GET, &format!("{name}/tags/list"))
            .await
            .json()
            .await
            .expect("a list of tags is JSON");
        let mut tags = Vec::new();
        for tag in list["tags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let found = self.ask(reqwest::Method::GET, &format!("{name}/manifests/{tag}")).await;
            if found.headers().get("docker-content-digest").is_some_and(|d| d == digest) {
                tags.push(tag.to_owned());
            }
        }
        tags
    }
}
