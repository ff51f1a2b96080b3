//! Serves the kits, with ranges, so that a download can be resumed.

use std::path::PathBuf;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// The files of one directory; nothing below it.
pub(crate) fn router(dir: PathBuf) -> Router {
    Router::new().route("/{file}", get(file)).with_state(dir)
}

async fn file(State(dir): State<PathBuf>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    if name.contains('/') || name.starts_with('.') {
        return StatusCode::NOT_FOUND.into_response();
    }
    let Ok(content) = tokio::fs::read(dir.join(&name)).await else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let size = content.len();
    let from = headers
        .get("range")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        None => ([("accept-ranges", "bytes".to_owned())], content).into_response(),
        Some(from) if from < size => {
            let range = format!("bytes {from}-{}/{size}", size - 1);
            (StatusCode::PARTIAL_CONTENT, [("content-range", range)], content[from..].to_vec())
                .into_response()
        }
        Some(_) => (StatusCode::RANGE_NOT_SATISFIABLE, [("content-range", format!("bytes */{size}"))])
            .into_response(),
    }
}
