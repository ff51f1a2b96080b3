//! The owner's side: the routes, and the socket they are served on. `serve` puts a guard before them and serves them over
//! HTTP as well.
//!
//! `table` lists the routes, each with what it takes and gives; router and OpenAPI document are made from that list. The
//! handlers stand by subject.

mod archive;
mod events;
mod logs;
mod orders;
mod runs;
mod schedules;
mod store;
pub(crate) mod table;
mod verbs;
mod workflows;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Json, Path as UrlPath, Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use dssflow_engine::Engine;
use dssflow_engine::id::RunId;
use dssflow_engine::time::Timestamp;
use dssflow_store::SledStore;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::Refusal;
use crate::api::metrics::Counts;
use crate::error::{Code, CommandError, CommandResult};
use crate::progress::now;
use crate::serve::Service;

/// The most who follow a history at once.
const MAX_STREAMS: usize = 64;

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
        let app = table::router(owner);
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

/// What the routes work on.
#[derive(Clone)]
pub(crate) struct Owner {
    engine: Engine,
    store: Arc<SledStore>,
    /// What drives any run, where the owner is `serve`; a command drives its own run only.
    service: Option<Arc<Service>>,
    counts: Counts,
    /// Places for those who follow a history.
    streams: Arc<Semaphore>,
    since: Timestamp,
}

impl Owner {
    /// A command that drives its own run.
    pub(crate) fn of_command(engine: &Engine, store: &Arc<SledStore>) -> Self {
        Self {
            engine: engine.clone(),
            store: Arc::clone(store),
            service: None,
            counts: Counts::default(),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            since: now(),
        }
    }

    /// The daemon.
    pub(crate) fn of_service(service: &Arc<Service>) -> Self {
        Self {
            service: Some(Arc::clone(service)),
            counts: service.counts.clone(),
            ..Self::of_command(&service.engine, &service.store)
        }
    }

    /// What drives any run.
    ///
    /// # Errors
    /// When the owner is a command that drives its own run only.
    fn service(&self) -> CommandResult<&Arc<Service>> {
        self.service.as_ref().ok_or_else(|| {
            let message = "the process that owns the store drives a run of its own and takes no others";
            CommandError::new(Code::StoreLocked, message)
                .hint("wait until it has ended; `dssflow serve` takes runs of others")
        })
    }

    /// Refuses what would change something while the owner is about to end.
    ///
    /// # Errors
    /// When it is.
    fn must_go_on(&self) -> CommandResult<()> {
        self.service.as_ref().map_or(Ok(()), |service| service.must_go_on())
    }
}

/// An error as an answer.
pub(crate) struct Failure(CommandError);

impl<E: Into<CommandError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = status_of(self.0.code);
        let CommandError { code, message, why, hints, .. } = self.0;
        (status, Json(Refusal { code: code.as_str().to_owned(), message, why, hints })).into_response()
    }
}

/// How an error is told in HTTP: what a client did wrong is never a fault of the server.
fn status_of(code: Code) -> StatusCode {
    match code {
        Code::NoSuchRun | Code::NoSuchStep | Code::NoSuchWorkflow | Code::NoSuchSchedule => {
            StatusCode::NOT_FOUND
        }
        Code::Usage
        | Code::OutputMismatch
        | Code::WrongSite
        | Code::BadPlan
        | Code::BadArchive
        | Code::OtherStore
        | Code::WrongSchedule
        | Code::File => StatusCode::BAD_REQUEST,
        Code::RequestRefused => StatusCode::FORBIDDEN,
        Code::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal
        | Code::StoreDamaged
        | Code::StoreFailed
        | Code::StoreUnusable
        | Code::NoStore
        | Code::Output => StatusCode::INTERNAL_SERVER_ERROR,
        // The state of the run, of the world or of this process is in the way.
        _ => StatusCode::CONFLICT,
    }
}

/// A request that says nothing that could be looked at.
pub(crate) struct Rejected(pub(crate) StatusCode, pub(crate) String);

impl IntoResponse for Rejected {
    fn into_response(self) -> Response {
        let refusal = Refusal {
            code: Code::RequestRefused.as_str().to_owned(),
            message: self.1,
            why: Vec::new(),
            hints: Vec::new(),
        };
        (self.0, Json(refusal)).into_response()
    }
}

type Answer<T> = Result<T, Failure>;
type Shared = State<Owner>;

/// A body of JSON.
struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Rejected;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejected> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(error) => {
                // What is no JSON and what is none of ours are one thing to whoever sent it.
                let status = match &error {
                    JsonRejection::JsonDataError(_) => StatusCode::BAD_REQUEST,
                    other => other.status(),
                };
                Err(Rejected(status, error.body_text()))
            }
        }
    }
}

/// Parameters behind the question mark.
struct Params<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Rejected;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejected> {
        let read: Result<_, QueryRejection> = Query::<T>::from_request_parts(parts, state).await;
        read.map(|Query(value)| Self(value)).map_err(|e| Rejected(StatusCode::BAD_REQUEST, e.body_text()))
    }
}

/// The run that the path names.
struct Run(RunId);

impl<S: Send + Sync> FromRequestParts<S> for Run {
    type Rejection = Rejected;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejected> {
        let text: Result<_, PathRejection> = UrlPath::<String>::from_request_parts(parts, state).await;
        let UrlPath(text) = text.map_err(|e| Rejected(StatusCode::BAD_REQUEST, e.body_text()))?;
        RunId::new(text).map(Self).map_err(|e| Rejected(StatusCode::BAD_REQUEST, e.to_string()))
    }
}

/// Whatever else the path names.
struct Named(String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Rejected;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejected> {
        let text: Result<_, PathRejection> = UrlPath::<String>::from_request_parts(parts, state).await;
        text.map(|UrlPath(text)| Self(text)).map_err(|e| Rejected(StatusCode::BAD_REQUEST, e.body_text()))
    }
}

fn run_id(text: String) -> Answer<RunId> {
    RunId::new(text).map_err(|e| Failure(CommandError::new(Code::Usage, e.to_string())))
}

/// Does what changes something to its end, whether or not the one who asked is still there.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = CommandResult<T>> + Send + 'static,
) -> Answer<T> {
    let done = tokio::spawn(work).await;
    Ok(done.map_err(|e| CommandError::new(Code::Internal, "what was asked for broke off").why(e))??)
}

/// Serves the socket of a store, or says in the log why not: the run goes on without it.
pub(crate) fn start(owner: Owner) -> Option<ControlServer> {
    let Some(path) = super::socket_path(owner.store.path()) else {
        tracing::warn!(
            "the store's path is too long for a socket and XDG_RUNTIME_DIR is not set; other commands cannot reach this run"
        );
        return None;
    };
    match ControlServer::start(owner, path.clone()) {
        Ok(server) => Some(server),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no control socket; other commands cannot reach this run");
            None
        }
    }
}
