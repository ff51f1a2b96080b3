//! The admin routes: how the command, the host stubs and the tests steer the daemon. All of them ask for the token.

use std::collections::BTreeSet;
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::aws::Aws;
use crate::dss::behaviour::Behaviour;
use crate::dss::{BaseImage, FakeDss};
use crate::error::SandboxError;
use crate::faults::{self, Fault, FaultEngine, Phase, Target};
use crate::lake;
use crate::proxy::Proxy;
use crate::proxy::overlay::now_ms;
use crate::proxy::record::{CallRecord, Recorder};
use crate::serve;
use crate::snapshot::Snapshots;

/// What the routes act on. Clones share it.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) token: Arc<str>,
    pub(crate) faults: Arc<FaultEngine>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) proxy: Proxy,
    pub(crate) dss: Arc<DssHost>,
    pub(crate) snapshots: Arc<Snapshots>,
    /// The emulator itself, where nobody's calls are counted.
    pub(crate) moto: Aws,
    pub(crate) clock: Arc<IdleClock>,
    pub(crate) stop: CancellationToken,
}

/// When the world was last used, and which runs need it.
#[derive(Debug, Default)]
pub(crate) struct IdleClock {
    last_ms: AtomicU64,
    started_ms: AtomicU64,
    holds: Mutex<BTreeSet<String>>,
}

impl IdleClock {
    pub(crate) fn new() -> Self {
        let clock = Self::default();
        clock.started_ms.store(now_ms(), Ordering::Relaxed);
        clock.touch();
        clock
    }

    pub(crate) fn touch(&self) {
        self.last_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// Milliseconds since the last request; 0 while a run holds the world.
    pub(crate) fn idle_ms(&self) -> u64 {
        if !self.holds.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return 0;
        }
        now_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed))
    }

    /// The runs that hold the world.
    fn holds(&self) -> Vec<String> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// The fake DSS and whether it listens.
pub(crate) struct DssHost {
    pub(crate) dss: FakeDss,
    host_root: PathBuf,
    /// Where DSS was started last, on the host.
    data_dir: tokio::sync::Mutex<Option<PathBuf>>,
    recorder: Arc<Recorder>,
    clock: Arc<IdleClock>,
    running: tokio::sync::Mutex<Option<Running>>,
    /// Holds the port of the shipped site while nothing listens there.
    reserved: tokio::sync::Mutex<Option<(u16, TcpSocket)>>,
}

struct Running {
    port: u16,
    data_dir: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl DssHost {
    /// Reserves the port, so that no other program is given it while DSS is stopped.
    pub(crate) fn new(
        dss: FakeDss,
        host_root: PathBuf,
        recorder: Arc<Recorder>,
        clock: Arc<IdleClock>,
    ) -> std::io::Result<(Self, u16)> {
        let socket = bind(0)?;
        let port = socket.local_addr()?.port();
        let host = Self {
            dss,
            host_root,
            data_dir: tokio::sync::Mutex::new(None),
            recorder,
            clock,
            running: tokio::sync::Mutex::new(None),
            reserved: tokio::sync::Mutex::new(Some((port, socket))),
        };
        Ok((host, port))
    }

    async fn start(&self, data_dir: PathBuf, port: u16) -> std::io::Result<()> {
        let mut running = self.running.lock().await;
        if let Some(now) = &*running {
            return if now.port == port && now.data_dir == data_dir {
                Ok(())
            } else {
                Err(std::io::Error::other(format!("DSS is already running on port {}", now.port)))
            };
        }
        let mut reserved = self.reserved.lock().await;
        let socket = match reserved.take() {
            Some((kept, socket)) if kept == port => socket,
            other => {
                *reserved = other;
                bind(port)?
            }
        };
        socket.set_reuseaddr(true)?;
        let listener = socket.listen(1024)?;
        self.open_data_dir(&data_dir).await;
        self.dss.restart();
        let stop = CancellationToken::new();
        let (recorder, clock) = (Arc::clone(&self.recorder), Arc::clone(&self.clock));
        let router =
            self.dss.router().layer(axum::middleware::from_fn(move |request: Request, next: Next| {
                record_dss(Arc::clone(&recorder), Arc::clone(&clock), request, next)
            }));
        let task = tokio::spawn(serve::serve(listener, router, stop.clone()));
        *running = Some(Running { port, data_dir, stop, task });
        Ok(())
    }

    /// Makes the instance the one of this data directory: a directory that DSS was not started in before, as after
    /// a new installation, is a new instance.
    async fn open_data_dir(&self, data_dir: &FsPath) {
        let below = self.on_host(data_dir);
        let marker = below.join("run").join("sandbox-instance");
        if below.join("install.ini").exists() && !marker.exists() {
            self.dss.reset();
            let written = std::fs::create_dir_all(below.join("run"))
                .and_then(|()| std::fs::write(&marker, "started\n"));
            if let Err(error) = written {
                tracing::warn!(error = %error, "the next start will find a new instance");
            }
        }
        let json = |file: &str| -> Option<Value> {
            serde_json::from_slice(&std::fs::read(below.join(file)).ok()?).ok()
        };
        if let Some(version) = json("dss-version.json")
            && let Some(version) = version["product_version"].as_str()
            && let Some(major) = version.split('.').next().and_then(|major| major.parse().ok())
        {
            self.dss.set_version(major, version);
        }
        if let Some(license) = json("config/license.json") {
            self.dss.set_license(license);
        }
        *self.data_dir.lock().await = Some(data_dir.to_owned());
    }

    fn on_host(&self, path: &FsPath) -> PathBuf {
        self.host_root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The instance, if it is running or its data directory is there; one moved aside is no instance any more.
    pub(crate) async fn instance(&self) -> Option<&FakeDss> {
        let installed = match &*self.data_dir.lock().await {
            Some(data_dir) => self.on_host(data_dir).join("install.ini").exists(),
            None => false,
        };
        (installed || self.port().await.is_some()).then_some(&self.dss)
    }

    async fn stop(&self) {
        let Some(running) = self.running.lock().await.take() else { return };
        running.stop.cancel();
        // It only ends by the token; a panic in a handler has been answered already.
        drop(running.task.await);
        self.dss.restart();
        // Another program may have taken the port in this instant; then the next start says so.
        if let Ok(socket) = bind(running.port) {
            *self.reserved.lock().await = Some((running.port, socket));
        }
    }

    /// The port DSS listens on, while it runs.
    pub(crate) async fn port(&self) -> Option<u16> {
        self.running.lock().await.as_ref().map(|running| running.port)
    }
}

fn bind(port: u16) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port).into())?;
    // Two sockets may only share a port when both allow it; connections of an earlier DSS had to be allowed above.
    socket.set_reuseaddr(false)?;
    Ok(socket)
}

/// Counts a call to DSS.
async fn record_dss(
    recorder: Arc<Recorder>,
    clock: Arc<IdleClock>,
    request: Request,
    next: Next,
) -> Response {
    clock.touch();
    let path = request.uri().path();
    let below =
        ["/dip/publicapi", "/public/api"].iter().find_map(|base| path.strip_prefix(base)).unwrap_or(path);
    let op = format!("{} {}", request.method(), below.trim_end_matches('/'));
    let mutating = faults::changes(Target::Dss, &op);
    let response = next.run(request).await;
    let dropped = response.extensions().get::<serve::DropConnection>().is_some();
    recorder.add(CallRecord {
        seq: 0,
        target: "dss".to_owned(),
        op,
        caller: String::new(),
        mutating,
        marked: false,
        status: if dropped { 0 } else { response.status().as_u16() },
        replayed: false,
        fault: dropped.then(|| "reset".to_owned()),
        token: None,
    });
    response
}

/// All admin routes.
pub(crate) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/ping", get(ping))
        .route("/status", get(status))
        .route("/shutdown", post(shutdown))
        .route("/calls", get(calls))
        .route("/snapshot", get(snapshot))
        .route("/lake/datasets", post(put_datasets))
        .route("/lake/spoil", post(spoil_tables))
        .route("/faults", post(set_faults).get(fault_report))
        .route("/faults/report", get(fault_report))
        .route("/faults/check", post(check_fault))
        .route("/faults/wait", get(wait_for_faults))
        .route("/tokens/forget", post(forget_tokens))
        .route("/holds/{run}", post(hold).delete(release))
        .route("/dss/start", post(dss_start))
        .route("/dss/stop", post(dss_stop))
        .route("/dss/reset", post(dss_reset))
        .route("/dss/restart", post(dss_restart))
        .route("/dss/behaviour", post(behave).get(behaviour))
        .route("/dss/state", get(dss_state))
        .route("/dss/api-keys", post(create_key).get(keys))
        .route("/dss/api-keys/{id}", delete(delete_key))
        .route("/dss/base-images", post(base_image).get(base_images))
        .layer(axum::middleware::from_fn_with_state(admin.clone(), check_token))
        .with_state(admin)
}

async fn check_token(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let token = request.headers().get("x-sandbox-token").and_then(|value| value.to_str().ok());
    if token != Some(&*admin.token) {
        return (StatusCode::UNAUTHORIZED, "x-sandbox-token is missing or wrong").into_response();
    }
    // Looking whether the world lives, or looking at it, does not keep it alive.
    if !matches!(request.uri().path(), "/ping" | "/status") {
        admin.clock.touch();
    }
    next.run(request).await
}

async fn ping() -> Json<Value> {
    Json(json!({ "pid": std::process::id() }))
}

async fn status(State(admin): State<Admin>) -> Json<Value> {
    let report = admin.recorder.report();
    let port = admin.dss.port().await;
    Json(json!({
        "uptime_s": now_ms().saturating_sub(admin.clock.started_ms.load(Ordering::Relaxed)) / 1000,
        "idle_s": admin.clock.idle_ms() / 1000, "holds": admin.clock.holds(),
        "dss_port": port, "calls": report.total, "mutating_calls": report.mutating,
        "faults": admin.faults.report(),
    }))
}

async fn shutdown(State(admin): State<Admin>) -> Json<Value> {
    admin.stop.cancel();
    Json(json!({}))
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    after: u64,
}

async fn calls(State(admin): State<Admin>, Query(since): Query<Since>) -> Response {
    Json(admin.recorder.since(since.after)).into_response()
}

async fn snapshot(State(admin): State<Admin>) -> Response {
    match admin.snapshots.take(admin.dss.instance().await).await {
        Ok(value) => Json(value).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

#[derive(Deserialize)]
struct Count {
    count: u16,
}

async fn put_datasets(State(admin): State<Admin>, Json(wanted): Json<Count>) -> Response {
    let made =
        lake::fill(admin.dss.instance().await, &admin.moto, wanted.count.min(lake::MOST_DATASETS)).await;
    lake_answer(made)
}

async fn spoil_tables(State(admin): State<Admin>, Json(wanted): Json<Count>) -> Response {
    lake_answer(lake::spoil(admin.dss.instance().await, &admin.moto, wanted.count).await)
}

/// What is missing is an answer, with 409; all else is the emulator's failure.
fn lake_answer<T: Serialize>(result: Result<Vec<T>, SandboxError>) -> Response {
    match result {
        Ok(list) => Json(list).into_response(),
        Err(SandboxError::TooEarly { what, command }) => {
            (StatusCode::CONFLICT, Json(json!({ "what": what, "command": command }))).into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

async fn set_faults(State(admin): State<Admin>, Json(faults): Json<Vec<Fault>>) -> Response {
    let problems = faults::problems(&faults);
    if !problems.is_empty() {
        return (StatusCode::BAD_REQUEST, problems.join("\n")).into_response();
    }
    admin.faults.set(faults);
    Json(json!({})).into_response()
}

#[derive(Deserialize)]
struct Wait {
    fired: u64,
    ms: u64,
}

/// Answers once the script has struck so often, or after so long.
async fn wait_for_faults(State(admin): State<Admin>, Query(wait): Query<Wait>) -> Json<Value> {
    let mut watch = admin.faults.watch();
    let struck = watch.wait_for(|fired| *fired >= wait.fired);
    let met =
        tokio::time::timeout(Duration::from_millis(wait.ms), struck).await.is_ok_and(|seen| seen.is_ok());
    let fired = *admin.faults.watch().borrow();
    Json(json!({ "met": met, "fired": fired }))
}

async fn forget_tokens(State(admin): State<Admin>) -> Json<Value> {
    admin.proxy.overlay().await.forget_tokens();
    Json(json!({}))
}

async fn fault_report(State(admin): State<Admin>) -> Response {
    Json(admin.faults.report()).into_response()
}

#[derive(Deserialize)]
struct Question {
    target: Target,
    op: String,
    #[serde(default)]
    phase: Phase,
}

async fn check_fault(State(admin): State<Admin>, Json(asked): Json<Question>) -> Json<Value> {
    let action = admin.faults.check_by(asked.target, &asked.op, faults::BY_DSSFLOW, asked.phase);
    Json(json!({ "action": action, "after": admin.faults.strikes_after_host_commands() }))
}

async fn hold(State(admin): State<Admin>, Path(run): Path<String>) -> Json<Value> {
    admin.clock.holds.lock().unwrap_or_else(PoisonError::into_inner).insert(run);
    Json(json!({}))
}

async fn release(State(admin): State<Admin>, Path(run): Path<String>) -> Json<Value> {
    let there = admin.clock.holds.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
    Json(json!({ "released": there }))
}

#[derive(Deserialize)]
struct Start {
    data_dir: PathBuf,
    port: u16,
}

async fn dss_start(State(admin): State<Admin>, Json(start): Json<Start>) -> Response {
    match admin.dss.start(start.data_dir, start.port).await {
        Ok(()) => Json(json!({})).into_response(),
        Err(error) => (StatusCode::CONFLICT, error.to_string()).into_response(),
    }
}

async fn dss_stop(State(admin): State<Admin>) -> Json<Value> {
    admin.dss.stop().await;
    Json(json!({}))
}

async fn dss_reset(State(admin): State<Admin>) -> Json<Value> {
    admin.dss.dss.reset();
    Json(json!({}))
}

/// A restart as clients see it: futures, queries and jobs under way are forgotten; the port goes on listening.
async fn dss_restart(State(admin): State<Admin>) -> Json<Value> {
    admin.dss.dss.restart();
    Json(json!({}))
}

async fn behave(State(admin): State<Admin>, Json(wanted): Json<Behaviour>) -> Response {
    match admin.dss.dss.behave(wanted) {
        Ok(()) => Json(json!({})).into_response(),
        Err(message) => (StatusCode::BAD_REQUEST, message).into_response(),
    }
}

async fn behaviour(State(admin): State<Admin>) -> Response {
    Json(admin.dss.dss.behaviour()).into_response()
}

async fn dss_state(State(admin): State<Admin>) -> Json<Value> {
    let running = admin.dss.running.lock().await;
    Json(match &*running {
        Some(now) => json!({ "running": true, "port": now.port, "data_dir": now.data_dir }),
        None => json!({ "running": false }),
    })
}

#[derive(Deserialize)]
struct NewKey {
    label: String,
    #[serde(default)]
    description: String,
}

async fn create_key(State(admin): State<Admin>, Json(key): Json<NewKey>) -> Response {
    Json(admin.dss.dss.api_keys().create(&key.label, &key.description)).into_response()
}

async fn keys(State(admin): State<Admin>) -> Response {
    Json(admin.dss.dss.api_keys().list()).into_response()
}

async fn delete_key(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    if admin.dss.dss.api_keys().delete(&id) {
        Json(json!({})).into_response()
    } else {
        (StatusCode::NOT_FOUND, "no such API key").into_response()
    }
}

async fn base_image(State(admin): State<Admin>, Json(image): Json<BaseImage>) -> Json<Value> {
    admin.dss.dss.record_base_image(image);
    Json(json!({}))
}

async fn base_images(State(admin): State<Admin>) -> Response {
    Json(admin.dss.dss.base_images()).into_response()
}
