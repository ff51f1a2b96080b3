//! Serves an axum router on a listener, and can drop a connection on purpose.
//!
//! axum's own server always answers. The faults of a sandbox need a peer that closes without a reply: a handler asks
//! for it by putting [`DropConnection`] into the extensions of its response.

use std::io;

use axum::Router;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Put into a response's extensions: the connection is closed and the response is not sent.
#[derive(Debug, Clone, Copy)]
pub struct DropConnection;

/// A response that makes [`serve`] close the connection without a reply.
pub fn drop_connection() -> Response {
    let mut response = ().into_response();
    response.extensions_mut().insert(DropConnection);
    response
}

/// Serves until `stop` is cancelled; open connections are then dropped, as by a process that ends.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        // A failed accept is the peer's doing (reset in the backlog) or a lack of descriptors that passes.
        let Ok((stream, _)) = accepted else {
            tokio::task::yield_now().await;
            continue;
        };
        let inner = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let reply = inner.call(request);
                async move {
                    let response = match reply.await {
                        Ok(response) => response,
                        Err(never) => match never {},
                    };
                    if response.extensions().get::<DropConnection>().is_some() {
                        return Err(io::Error::other("connection dropped on purpose"));
                    }
                    Ok(response)
                }
            });
            // An error here is a peer that went away or a drop on purpose; both are the normal life of a socket.
            let _ended = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
    connections.shutdown().await;
}
