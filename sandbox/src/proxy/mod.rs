//! The proxy between the SDKs and moto: it records, goes wrong on request, honours tokens, shows slow states and lets
//! reads be stale.
//!
//! A request is carried out in a task of its own, so that it goes on when the client drops the connection, as it does
//! on a real server. Signatures are neither checked nor changed: `Host` is kept, moto checks nothing.

pub mod record;

mod eks;
mod eks_access;
mod eks_addons;
mod iam;
mod instances;
pub(crate) mod overlay;
mod quotas;
pub(crate) mod recognise;
mod reply;
mod stacks;
mod stale;
mod tokens;
mod upstream;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde_json::Value;
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
/// A call that hangs is dropped when the script is replaced, and in the end all the same: a forgotten fault must not keep
/// a socket for ever.
pub(crate) const HANG: Duration = Duration::from_hours(1);

/// What a fault makes of a call that is carried out.
#[derive(Debug, Default)]
struct Course {
    /// What it makes is in a transitional state for so many looks and then ends so.
    state: Option<(u32, String)>,
    /// So many reads after it do not see it.
    stale: Option<u32>,
}

/// The proxy. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    upstream: Upstream,
    overlay: Mutex<Overlay>,
    seen: std::sync::Mutex<stale::Seen>,
    faults: Arc<FaultEngine>,
    recorder: Arc<Recorder>,
    /// Calls that may have changed something.
    changes: AtomicU64,
    latency: f64,
}

impl Proxy {
    pub(crate) fn new(moto: &str, faults: Arc<FaultEngine>, recorder: Arc<Recorder>, latency: f64) -> Self {
        let overlay = Mutex::default();
        let (upstream, seen) = (Upstream::new(moto), std::sync::Mutex::default());
        let inner = Inner { upstream, overlay, seen, faults, recorder, changes: AtomicU64::new(0), latency };
        Self { inner: Arc::new(inner) }
    }

    /// Everything that comes is a call to AWS.
    pub(crate) fn router(&self) -> Router {
        Router::new().fallback(serve).with_state(self.clone())
    }

    /// How many calls may have changed something in AWS so far; `None` while something changes by itself.
    pub(crate) async fn changes(&self) -> Option<u64> {
        let settled = self.inner.overlay.lock().await.is_settled();
        settled.then(|| self.inner.changes.load(Ordering::SeqCst))
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
        let mut course = Course::default();
        match self.inner.faults.check_by(Target::Aws, &name, &call.access_key, Phase::Before) {
            Some(Action::State { polls, end }) => course.state = Some((polls, end)),
            Some(Action::Stale { reads }) => course.stale = Some(reads),
            Some(Action::Late { ms }) => return self.land_later(call, request, ms, record),
            Some(action) => {
                record.fault = Some(format!("before: {action:?}"));
                if let Some(response) = self.strike(&call, action, &record).await {
                    return response;
                }
            }
            None => {}
        }
        if !call.mutating
            && let Some(reply) = self.seen().answer(&call, request)
        {
            self.inner.recorder.add(CallRecord {
                status: reply.status,
                fault: Some("stale".to_owned()),
                ..record
            });
            return reply.into();
        }
        let (reply, replayed) = self.carry_out(&call, request, &course).await;
        record.status = reply.status;
        record.replayed = replayed;
        if let Some(action) = self.inner.faults.check_by(Target::Aws, &name, &call.access_key, Phase::After) {
            record.fault = Some(format!("after: {action:?}"));
            if let Some(response) = self.strike(&call, action, &record).await {
                return response;
            }
        }
        self.inner.recorder.add(record);
        reply.into()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, stale::Seen> {
        self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the connection, and carries the request out when the time has come.
    fn land_later(&self, call: Call, request: &Incoming, ms: u64, record: CallRecord) -> Response {
        self.inner
            .recorder
            .add(CallRecord { fault: Some(format!("late: lands in {ms} ms")), ..record.clone() });
        let (proxy, request) = (self.clone(), request.clone());
        drop(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            let (reply, replayed) = proxy.carry_out(&call, &request, &Course::default()).await;
            let fault = Some("landed late".to_owned());
            proxy.inner.recorder.add(CallRecord { status: reply.status, replayed, fault, ..record });
        }));
        drop_connection()
    }

    /// Does what a fault says; `None` when the call goes on. A call that ends here is recorded here.
    async fn strike(&self, call: &Call, action: Action, record: &CallRecord) -> Option<Response> {
        match action {
            Action::Delay { ms } => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                None
            }
            Action::Hold => {
                tokio::select! {
                    () = self.inner.faults.released() => {}
                    () = tokio::time::sleep(HANG) => {}
                }
                None
            }
            Action::State { .. } | Action::Stale { .. } | Action::Late { .. } => None,
            Action::Throttle { retry_after_s } => {
                let reply = Reply::throttled(&call.service, retry_after_s);
                self.inner.recorder.add(CallRecord { status: reply.status, ..record.clone() });
                Some(reply.into())
            }
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
                tokio::select! {
                    () = self.inner.faults.replaced() => {}
                    () = tokio::time::sleep(HANG) => {}
                }
                Some(drop_connection())
            }
        }
    }

    /// Carries a call out; says whether the reply is one kept for its token.
    async fn carry_out(&self, call: &Call, request: &Incoming, course: &Course) -> (Reply, bool) {
        let (reply, replayed) = self.reply(call, request, course).await;
        if call.mutating {
            self.inner.changes.fetch_add(1, Ordering::SeqCst);
        }
        self.seen().saw(call, request, &reply, course.stale);
        (reply, replayed)
    }

    async fn reply(&self, call: &Call, request: &Incoming, course: &Course) -> (Reply, bool) {
        let ours = matches!(call.service.as_str(), "eks" | "cloudformation");
        if !ours && call.token.is_none() {
            let reply = self.plain(call, request).await;
            let reply = if call.service == "ec2" { self.instances(call, reply, course).await } else { reply };
            return (reply, false);
        }
        if let Some(reply) = tokens::refused(call) {
            return (reply, false);
        }
        // One at a time: a token must be looked up and kept without another request with it in between.
        let mut overlay = self.inner.overlay.lock().await;
        let name = call.name();
        // The path names the cluster that a request to EKS is about; the body does not.
        let fingerprint = [request.uri.path().as_bytes(), b"\n", &tokens::compared(&request.body)].concat();
        if let Some(token) = &call.token {
            match overlay.seen(&name, token, &fingerprint) {
                Seen::New => {}
                Seen::Same(reply) => return (reply, true),
                Seen::Other => return (tokens::mismatch(&call.service), false),
            }
        }
        let upstream = &self.inner.upstream;
        let (latency, state) = (self.inner.latency, course.state.clone());
        let reply = match call.service.as_str() {
            "eks" => {
                let mut context = eks::Context { overlay: &mut overlay, upstream, latency, state };
                eks::handle(&mut context, call, request).await
            }
            "cloudformation" => stacks::handle(&mut overlay, upstream, call, request, state.as_ref()).await,
            _ => {
                let reply = self.plain(call, request).await;
                if call.service == "ec2" {
                    instances::begin(&mut overlay, &call.operation, &reply, latency, state.as_ref());
                }
                reply
            }
        };
        if let Some(token) = &call.token
            && reply.is_success()
        {
            overlay.keep(&name, token, &fingerprint, &reply);
        }
        (reply, false)
    }

    /// Notes instances that come or go, and shows those in transition as they stand.
    async fn instances(&self, call: &Call, reply: Reply, course: &Course) -> Reply {
        match call.operation.as_str() {
            operation @ ("RunInstances" | "TerminateInstances") if call.mutating => {
                let mut overlay = self.inner.overlay.lock().await;
                let latency = self.inner.latency;
                instances::begin(&mut overlay, operation, &reply, latency, course.state.as_ref());
                reply
            }
            "DescribeInstances" | "DescribeInstanceStatus" => {
                instances::show(&mut *self.inner.overlay.lock().await, reply)
            }
            _ => reply,
        }
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
