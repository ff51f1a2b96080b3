//! A backup of the store while it is in use, as a stream.

use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use dssflow_engine::archive;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, Params, Shared, run_id};
use crate::commands::copies::copy_options;

/// Bytes sent at once.
const CHUNK: usize = 64 * 1024;
/// Chunks that wait for a slow reader.
const WAITING: usize = 16;

/// Parameters of `GET /v1/store/archive`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Which {
    /// Only this run.
    run: Option<String>,
}

type Chunk = Result<Bytes, io::Error>;

/// Hands what is written to the one who answers. A channel of tokio's would not let a thread wait that runs a future.
struct Pipe(SyncSender<Chunk>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An archive of the store, or of one run, as of now. When it fails on the way the stream breaks off.
pub(super) async fn stream(State(owner): Shared, Params(which): Params<Which>) -> Answer<Response> {
    let runs = match which.run {
        Some(run) => {
            let run = run_id(run)?;
            // A run that is not there is an answer of its own.
            owner.engine.history(&run, u64::MAX - 1).await?;
            Some(vec![run])
        }
        None => None,
    };
    let (sender, receiver) = sync_channel(WAITING);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let out = BufWriter::with_capacity(CHUNK, Pipe(sender.clone()));
        let written =
            runtime.block_on(archive::write(owner.store.as_ref(), out, copy_options(runs), &mut |_| ()));
        if let Err(error) = written {
            tracing::warn!(%error, "a backup was broken off");
            // Who asked may have gone.
            let _gone = sender.send(Err(io::Error::other(error.to_string())));
        }
    });
    let body = Body::from_stream(futures::stream::unfold(receiver, next));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

async fn next(receiver: Receiver<Chunk>) -> Option<(Chunk, Receiver<Chunk>)> {
    let received = tokio::task::spawn_blocking(move || receiver.recv().ok().map(|chunk| (chunk, receiver)));
    received.await.ok().flatten()
}
