//! The proxy between the SDKs and moto: it records, goes wrong on request, honours tokens and shows slow states.
//!
//! A request is carried out in a task of its own, so that it goes on when the client drops the connection, as it does
//! on a real server. Signatures are neither checked nor changed: `Host` is kept, moto checks nothing.

pub mod record;

mod eks;
mod eks_access;
mod eks_addons;
mod iam;
pub(crate) mod overlay;
mod quotas;
pub(crate) mod recognise;
mod reply;
mod stacks;
mod upstream;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, MutexGuard};

use self::overlay::{Overlay, Seen};
use self::recognise::Call;
use self::record::{CallRecord, Recorder};
use self::reply::Reply;
use self::upstream::{Incoming, Upstream};
use crate::faults::{Action, FaultEngine, Phase, Target};
use crate::serve::drop_connection;

/// Larger requests are refused; the product sends none.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// A call that hangs is dropped in the end, so that a forgotten fault does not keep a socket for ever.
pub(crate) const HANG: Duration = Duration::from_hours(1);

/// The proxy. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    upstream: Upstream,
    overlay: Mutex<Overlay>,
    faults: Arc<FaultEngine>,
    recorder: Arc<Recorder>,
    latency: f64,
}

impl Proxy {
    pub(crate) fn new(moto: &str, faults: Arc<FaultEngine>, recorder: Arc<Recorder>, latency: f64) -> Self {
        let overlay = Mutex::default();
        let inner = Inner { upstream: Upstream::new(moto), overlay, faults, recorder, latency };
        Self { inner: Arc::new(inner) }
    }

    /// Everything that comes is a call to AWS.
    pub(crate) fn router(&self) -> Router {
        Router::new().fallback(serve).with_state(self.clone())
    }

    /// What is kept beyond moto.
    pub(crate) async fn overlay(&self) -> MutexGuard<'_, Overlay> {
        self.inner.overlay.lock().await
    }
}

async fn serve(State(proxy): State<Proxy>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let body = match http_body_util::Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        // The client went away or sends more than anyone should.
        Err(_) => return Reply::error("s3", 400, "EntityTooLarge", "the request is too large").into(),
    };
    let request = Incoming { method: parts.method, uri: parts.uri, headers: parts.headers, body };
    let task = tokio::spawn(async move { proxy.process(&request).await });
    match task.await {
        Ok(response) => response,
        Err(_) => Reply::error("s3", 500, "InternalError", "the sandbox's proxy failed").into(),
    }
}

impl Proxy {
    async fn process(&self, request: &Incoming) -> Response {
        let call = recognise::recognise(&request.method, &request.uri, &request.headers, &request.body);
        let name = call.name();
        let mut record = CallRecord {
            seq: 0,
            target: "aws".to_owned(),
            op: name.clone(),
            caller: call.access_key.clone(),
            mutating: call.mutating,
            marked: call.mutating && recognise::is_marked(&request.body),
            status: 0,
            replayed: false,
            fault: None,
            token: call.token.clone().or_else(|| recognise::other_token(&call, &request.body)),
        };
        if let Some(refusal) = Reply::ended_session(&call.service, &call.access_key) {
            self.inner.recorder.add(CallRecord { status: refusal.status, ..record });
            return refusal.into();
        }
        let mut state = None;
        match self.inner.faults.check(Target::Aws, &name, Phase::Before) {
            Some(Action::State { polls, end }) => state = Some((polls, end)),
            Some(action) => {
                record.fault = Some(format!("before: {action:?}"));
                if let Some(response) = self.strike(&call, action, &record).await {
                    return response;
                }
            }
            None => {}
        }
        let (reply, replayed) = self.carry_out(&call, request, state).await;
        record.status = reply.status;
        record.replayed = replayed;
        if let Some(action) = self.inner.faults.check(Target::Aws, &name, Phase::After) {
            record.fault = Some(format!("after: {action:?}"));
            if let Some(response) = self.strike(&call, action, &record).await {
                return response;
            }
        }
        self.inner.recorder.add(record);
        reply.into()
    }

    /// Does what a fault says; `None` when the call goes on. A call that ends here is recorded here.
    async fn strike(&self, call: &Call, action: Action, record: &CallRecord) -> Option<Response> {
        match action {
            Action::Delay { ms } => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                None
            }
            Action::State { .. } => None,
            Action::Error { status, code, message } => {
                self.inner.recorder.add(CallRecord { status, ..record.clone() });
                Some(Reply::error(&call.service, status, &code, &message).into())
            }
            Action::Reset => {
                self.inner.recorder.add(record.clone());
                Some(drop_connection())
            }
            Action::Hang => {
                self.inner.recorder.add(record.clone());
                tokio::time::sleep(HANG).await;
                Some(drop_connection())
            }
        }
    }

    /// Carries a call out; says whether the reply is one kept for its token.
    async fn carry_out(
        &self,
        call: &Call,
        request: &Incoming,
        state: Option<(u32, String)>,
    ) -> (Reply, bool) {
        let ours = matches!(call.service.as_str(), "eks" | "cloudformation");
        if !ours && call.token.is_none() {
            return (self.plain(call, request).await, false);
        }
        // One at a time: a token must be looked up and kept without another request with it in between.
        let mut overlay = self.inner.overlay.lock().await;
        let name = call.name();
        // The path names the cluster that a request to EKS is about; the body does not.
        let fingerprint = [request.uri.path().as_bytes(), b"\n", &request.body].concat();
        if let Some(token) = &call.token {
            match overlay.seen(&name, token, &fingerprint) {
                Seen::New => {}
                Seen::Same(reply) => return (reply, true),
                Seen::Other => return (mismatch(&call.service), false),
            }
        }
        let reply = match call.service.as_str() {
            "eks" => {
                let mut context = eks::Context {
                    overlay: &mut overlay,
                    upstream: &self.inner.upstream,
                    latency: self.inner.latency,
                    state,
                };
                eks::handle(&mut context, call, request).await
            }
            "cloudformation" => {
                let reply = self.inner.upstream.forward(request).await;
                stacks::rewrite(&overlay, reply)
            }
            _ => self.plain(call, request).await,
        };
        if let Some(token) = &call.token
            && reply.is_success()
        {
            overlay.keep(&name, token, &fingerprint, &reply);
        }
        (reply, false)
    }

    /// A call that moto answers, but for small things it gets wrong.
    async fn plain(&self, call: &Call, request: &Incoming) -> Reply {
        let upstream = &self.inner.upstream;
        match (call.service.as_str(), call.operation.as_str()) {
            ("iam", "SimulatePrincipalPolicy") => iam::simulate(upstream, request).await,
            ("servicequotas", "GetServiceQuota" | "GetAWSDefaultServiceQuota") => quotas::get(request),
            ("ecr", "PutImage") => upstream.forward(&with_digest(request)).await,
            ("athena", "StartQueryExecution") => {
                let asked = request.json();
                let sql = asked["QueryString"].as_str().unwrap_or_default();
                if let Err(error) = crate::athena::queue_result(upstream.aws(), sql).await {
                    tracing::warn!(error = %error, "the query will have no rows");
                }
                upstream.forward(request).await
            }
            _ => upstream.forward(request).await,
        }
    }
}

/// moto makes up a digest unless it is told the right one.
fn with_digest(request: &Incoming) -> Incoming {
    let mut body = request.json();
    match body["imageManifest"].as_str() {
        Some(manifest) if body["imageDigest"].is_null() => {
            body["imageDigest"] = Value::String(format!("sha256:{}", hex::encode(Sha256::digest(manifest))));
            request.with_json(&body)
        }
        _ => request.clone(),
    }
}

/// The refusal of a token that came with other parameters before.
fn mismatch(service: &str) -> Reply {
    match service {
        "ec2" => Reply::error(
            service,
            400,
            "IdempotentParameterMismatch",
            "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
        ),
        "athena" => {
            let mut reply = Reply::error(service, 400, "InvalidRequestException", "");
            let body = json!({ "__type": "InvalidRequestException", "AthenaErrorCode": "INVALID_INPUT",
                               "Message": "Idempotent parameters do not match" });
            reply.body = body.to_string().into();
            reply
        }
        _ => Reply::error(
            service,
            400,
            "InvalidParameterException",
            "IdempotentParameterMismatch: arguments on this idempotent request are inconsistent with arguments used in \
             previous request(s).",
        ),
    }
}
