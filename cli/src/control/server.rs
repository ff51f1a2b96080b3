//! The owner's side of the socket.

mod archive;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use dssflow_engine::activity::MAX_PAYLOAD_BYTES;
use dssflow_engine::event::{CancelMode, Request};
use dssflow_engine::id::{RunId, StepName};
use dssflow_engine::run::{RunStatus, StepStatus};
use dssflow_engine::store::{ListQuery, Store as _};
use dssflow_engine::time::Timestamp;
use dssflow_engine::{Engine, EngineError};
use dssflow_store::SledStore;
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;

use super::{Act, Acted, Demand, Obstacles, OwnerInfo, Page, PruneDone, PruneOrder, Refusal};
use crate::commands::prune::carry_out;
use crate::error::{Code, CommandError};
use crate::progress::now;

/// The largest body a request may have, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// The same for a verb, which may carry an output.
const MAX_ACT: usize = MAX_PAYLOAD_BYTES + MAX_BODY;
/// Of so many steps that may start it is told at most what keeps them.
const MAX_OBSTRUCTED: usize = 8;
/// How often a follower looks at the history when nothing was announced.
const LOOK: Duration = Duration::from_secs(1);

/// The socket, served until this is closed or dropped.
#[derive(Debug)]
pub(crate) struct ControlServer {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl ControlServer {
    /// Serves `owner` on `path`. The caller owns the store, so a socket that is there is a dead owner's.
    ///
    /// # Errors
    /// When the socket cannot be made.
    fn start(owner: Owner, path: PathBuf) -> io::Result<Self> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let app = router(owner);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::warn!(%error, "the control socket stopped");
            }
        });
        Ok(Self { path, task })
    }

    /// Stops answering and removes the socket.
    pub(crate) fn close(self) {
        drop(self);
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.task.abort();
        drop(fs::remove_file(&self.path));
    }
}

fn router(owner: Owner) -> Router {
    Router::new()
        .route("/v1/store", get(store))
        .route("/v1/store/verify", get(verify))
        .route("/v1/store/archive", get(archive::stream))
        .route("/v1/runs", get(runs))
        .route("/v1/store/prune", post(prune))
        .route("/v1/runs/{run}", get(view))
        .route("/v1/runs/{run}/events", get(events))
        .route("/v1/runs/{run}/graph", get(graph))
        .route("/v1/runs/{run}/pause", post(pause))
        .route("/v1/runs/{run}/cancel", post(cancel))
        .route("/v1/runs/{run}/rollback", post(rollback))
        .route("/v1/runs/{run}/obstacles", get(obstacles))
        .route("/v1/runs/{run}/act", post(act).layer(DefaultBodyLimit::max(MAX_ACT)))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(owner)
}

/// An error as an answer.
struct Failure(CommandError);

impl<E: Into<CommandError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.code {
            Code::NoSuchRun | Code::NoSuchStep => StatusCode::NOT_FOUND,
            Code::Usage | Code::OutputMismatch => StatusCode::BAD_REQUEST,
            Code::RunRefused => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body =
            Refusal { code: self.0.code.as_str().to_owned(), message: self.0.message, hints: self.0.hints };
        (status, Json(body)).into_response()
    }
}

type Answer<T> = Result<T, Failure>;
type Shared = State<Owner>;

/// What the routes work on.
#[derive(Clone)]
struct Owner {
    engine: Engine,
    store: Arc<SledStore>,
}

fn run_id(text: String) -> Answer<RunId> {
    RunId::new(text).map_err(|e| Failure(CommandError::new(Code::Usage, e.to_string())))
}

async fn store(State(owner): Shared) -> Answer<Json<OwnerInfo>> {
    let info = owner.store.info().await?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(Json(OwnerInfo { info, version, live: owner.engine.live_runs() }))
}

async fn verify(State(owner): Shared) -> Answer<Response> {
    Ok(Json(owner.store.verify().await?).into_response())
}

async fn prune(State(owner): Shared, Json(order): Json<PruneOrder>) -> Answer<Json<PruneDone>> {
    Ok(Json(carry_out(&owner.engine, &order, &mut |_, _| ()).await?))
}

/// Parameters of `GET /v1/runs`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Filter {
    /// Statuses, separated by commas.
    status: String,
    workflow: Option<String>,
    site: Option<String>,
    prefix: Option<String>,
    /// An object of texts, as JSON.
    labels: Option<String>,
    /// Milliseconds since the epoch.
    from: Option<u64>,
    /// Milliseconds since the epoch.
    before: Option<u64>,
    limit: usize,
    cursor: Option<String>,
}

async fn runs(State(Owner { engine, .. }): Shared, Query(filter): Query<Filter>) -> Answer<Json<Page>> {
    let statuses = filter
        .status
        .split(',')
        .filter(|s| !s.is_empty())
        .map(|s| {
            RunStatus::parse(s)
                .ok_or_else(|| Failure(CommandError::new(Code::Usage, format!("{s:?} is no status"))))
        })
        .collect::<Answer<Vec<_>>>()?;
    let labels = match filter.labels {
        Some(text) => serde_json::from_str(&text).map_err(|e| {
            Failure(CommandError::new(Code::Usage, format!("labels are no object of texts: {e}")))
        })?,
        None => BTreeMap::new(),
    };
    let query = ListQuery {
        statuses,
        workflow: filter.workflow,
        site: filter.site,
        prefix: filter.prefix,
        labels,
        created_from: filter.from.map(Timestamp::from_millis),
        created_before: filter.before.map(Timestamp::from_millis),
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let page = engine.list(query).await?;
    Ok(Json(Page { runs: page.runs, cursor: page.cursor }))
}

async fn view(State(Owner { engine, .. }): Shared, UrlPath(run): UrlPath<String>) -> Answer<Response> {
    Ok(Json(engine.view(&run_id(run)?).await?).into_response())
}

async fn graph(State(Owner { engine, .. }): Shared, UrlPath(run): UrlPath<String>) -> Answer<Response> {
    let state = engine.load(&run_id(run)?).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], state.graph.encode().to_vec()).into_response())
}

/// Parameters of `GET /v1/runs/{run}/events`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tail {
    after: u64,
    follow: u8,
}

async fn events(
    State(Owner { engine, .. }): Shared,
    UrlPath(run): UrlPath<String>,
    Query(tail): Query<Tail>,
) -> Answer<Response> {
    let run = run_id(run)?;
    // Subscribed before the history is read, so that nothing falls between.
    let follower =
        Follower { news: engine.subscribe(), engine, run, after: tail.after, once: tail.follow == 0 };
    // A run that is not there is an answer of its own, not a stream that breaks off.
    follower.engine.history(&follower.run, u64::MAX - 1).await?;
    let body = Body::from_stream(futures::stream::try_unfold(follower, Follower::next));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Reads a run's history on as it grows.
struct Follower {
    engine: Engine,
    news: tokio::sync::broadcast::Receiver<dssflow_engine::runtime::engine::Published>,
    run: RunId,
    after: u64,
    once: bool,
}

impl Follower {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, io::Error> {
        loop {
            // Asked before the history is read: what is written before the end of the drive is then read below.
            let driven = self.engine.handle(&self.run).is_some();
            let events = self.engine.history(&self.run, self.after).await.map_err(io::Error::other)?;
            if let Some(last) = events.last() {
                self.after = last.seq;
                let mut lines = Vec::new();
                for event in &events {
                    serde_json::to_writer(&mut lines, event).map_err(io::Error::other)?;
                    lines.push(b'\n');
                }
                return Ok(Some((Bytes::from(lines), self)));
            }
            if self.once || !driven {
                return Ok(None);
            }
            loop {
                match tokio::time::timeout(LOOK, self.news.recv()).await {
                    Ok(Ok((run, _))) if run != self.run => {}
                    Ok(Err(RecvError::Closed)) => return Ok(None),
                    Ok(Ok(_) | Err(RecvError::Lagged(_))) | Err(_) => break,
                }
            }
        }
    }
}

fn request(demand: &Demand) -> Request {
    Request { by: demand.by.clone(), reason: demand.reason.clone() }
}

async fn pause(
    State(Owner { engine, .. }): Shared,
    UrlPath(run): UrlPath<String>,
    Json(demand): Json<Demand>,
) -> Answer<StatusCode> {
    engine.pause(&run_id(run)?, request(&demand)).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn cancel(
    State(Owner { engine, .. }): Shared,
    UrlPath(run): UrlPath<String>,
    Json(demand): Json<Demand>,
) -> Answer<StatusCode> {
    let (run, mode) = (run_id(run)?, demand.mode());
    let request = request(&demand);
    if engine.handle(&run).is_some() {
        engine.cancel(&run, mode, request).await?;
    } else if mode == CancelMode::Rollback {
        engine.view(&run).await?;
        return Err(not_driven_here(&run));
    } else {
        // Nothing starts by it, so no clients are needed.
        engine.cancel_idle(&run, mode, request).await?.wait().await?;
    }
    Ok(StatusCode::ACCEPTED)
}

fn not_driven_here(run: &RunId) -> Failure {
    let message = format!("run {run} is not driven by the process that owns the store");
    Failure(
        CommandError::new(Code::RunRefused, message)
            .hint("wait until that process has ended, then try again"),
    )
}

/// A run that is not driven here belongs to a world this process has no clients for: then it is only written down.
async fn act(
    State(Owner { engine, .. }): Shared,
    UrlPath(run): UrlPath<String>,
    Json(Act { verb, request }): Json<Act>,
) -> Answer<(StatusCode, Json<Acted>)> {
    let run = run_id(run)?;
    // Never driven on from here: this process may have no clients for it. Between two looks a drive may begin or end.
    let driven = loop {
        if let Some(handle) = engine.handle(&run) {
            match handle.act(verb.clone(), request.clone()).await {
                Err(EngineError::NotLive(_)) => {}
                other => break other.map(|()| true)?,
            }
        }
        match engine.note(&run, verb.clone(), request.clone()).await {
            Err(EngineError::Live(_)) => {}
            other => break other.map(|_| false)?,
        }
    };
    Ok((StatusCode::ACCEPTED, Json(Acted { driven })))
}

/// What keeps steps that may start from starting. Nothing for a run that is not driven here.
async fn obstacles(
    State(Owner { engine, .. }): Shared,
    UrlPath(run): UrlPath<String>,
) -> Answer<Json<Obstacles>> {
    let run = run_id(run)?;
    let view = engine.view(&run).await?;
    let mut found = Obstacles::new();
    if engine.handle(&run).is_none() {
        return Ok(Json(found));
    }
    let now = now();
    let may_start = view.steps.iter().filter(|s| match s.status {
        StepStatus::Ready => true,
        StepStatus::Backoff | StepStatus::Waiting => s.awaits.is_none() && s.wake.is_some_and(|at| at <= now),
        _ => false,
    });
    for step in may_start.take(MAX_OBSTRUCTED) {
        let these = engine.obstacles(&run, &step.step).await?;
        if !these.is_empty() {
            found.insert(step.step.clone(), these);
        }
    }
    Ok(Json(found))
}

/// Only for a run that is driven here: another one belongs to a world this process has no clients for.
async fn rollback(
    State(Owner { engine, .. }): Shared,
    UrlPath(run): UrlPath<String>,
    Json(demand): Json<Demand>,
) -> Answer<StatusCode> {
    let run = run_id(run)?;
    if engine.handle(&run).is_none() {
        engine.view(&run).await?;
        return Err(not_driven_here(&run));
    }
    let named = demand.keep.iter().chain(&demand.to).map(|name| StepName::new(name.as_str()));
    let named = named
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Failure(CommandError::new(Code::NoSuchStep, e.to_string())))?;
    if !named.is_empty() {
        return Err(Failure(
            CommandError::new(
                Code::RunRefused,
                "a run that is being driven can only be taken back as a whole",
            )
            .hint(format!("pause it first: dssflow pause {run}")),
        ));
    }
    engine.cancel(&run, CancelMode::Rollback, request(&demand)).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Serves the socket of a store, or says in the log why not: the run goes on without it.
pub(crate) fn start(engine: &Engine, store: &Arc<SledStore>) -> Option<ControlServer> {
    let Some(path) = super::socket_path(store.path()) else {
        tracing::warn!(
            "the store's path is too long for a socket and XDG_RUNTIME_DIR is not set; other commands cannot reach this run"
        );
        return None;
    };
    match ControlServer::start(Owner { engine: engine.clone(), store: Arc::clone(store) }, path.clone()) {
        Ok(server) => Some(server),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no control socket; other commands cannot reach this run");
            None
        }
    }
}
