//! Connections: taken on a loopback address, each limited in size and time, all of them in number.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::guard::Guard;
use super::token::Token;
use crate::error::{Code, CommandError, CommandResult};

/// The most connections at once; more wait to be taken.
const MAX_CONNECTIONS: usize = 128;
/// The most the head of a request may have, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// The most headers a request may have.
const MAX_HEADERS: usize = 64;
/// How long a client may take for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// How long a client may take nothing of an answer that is ready.
const STALLED: Duration = Duration::from_mins(1);
/// How long answers may take to end when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// The server, until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct HttpServer {
    address: SocketAddr,
    stopping: CancellationToken,
    connections: TaskTracker,
}

/// What a server is started with.
#[derive(Debug)]
pub(crate) struct Listen<'a> {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The file of its token.
    pub(crate) token: &'a Path,
    /// Further hosts by which it may be called.
    pub(crate) names: &'a [String],
}

impl HttpServer {
    /// Listens, and serves the routes behind the guard.
    ///
    /// # Errors
    /// When the address is not of this machine alone or cannot be had, or the token's file cannot be used.
    pub(crate) async fn start(listen: &Listen<'_>, routes: Router) -> CommandResult<Self> {
        if !listen.address.ip().is_loopback() {
            let message = format!("{} is not an address of this machine alone", listen.address);
            return Err(CommandError::new(Code::Listen, message)
                .why("the API carries a token that may start and take back runs, and dssflow does not encrypt it")
                .hint("listen on 127.0.0.1, and reach it from elsewhere through ssh -L or a reverse proxy with TLS"));
        }
        let token = Token::open(listen.token)?;
        let unusable = |e: io::Error| {
            CommandError::new(Code::Listen, format!("{} cannot be listened on", listen.address)).why(e)
        };
        let listener = TcpListener::bind(listen.address).await.map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        let routes = Guard::new(token, address, listen.names).before(routes);
        let (stopping, connections) = (CancellationToken::new(), TaskTracker::new());
        tokio::spawn(accept(listener, routes, stopping.clone(), connections.clone()));
        Ok(Self { address, stopping, connections })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, and gives answers under way a moment.
    pub(crate) async fn stop(self) {
        self.stopping.cancel();
        self.connections.close();
        drop(tokio::time::timeout(FAREWELL, self.connections.wait()).await);
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    routes: Router,
    stopping: CancellationToken,
    connections: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Who finds no place waits in the system's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let taken = tokio::select! {
            taken = listener.accept() => taken,
            () = stopping.cancelled() => return,
        };
        let stream = match taken {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                // Out of descriptors, most likely: it passes when others end.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (routes, stopping) = (routes.clone(), stopping.clone());
        connections.spawn(async move {
            let _place = place;
            if let Err(error) = serve(stream, routes, stopping).await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}

async fn serve(stream: TcpStream, routes: Router, stopping: CancellationToken) -> Result<(), hyper::Error> {
    // Answers are small and wanted at once.
    drop(stream.set_nodelay(true));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let routes = routes.clone();
        async move { routes.oneshot(request.map(Body::new)).await }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_HEAD * 4);
    let mut connection =
        std::pin::pin!(builder.serve_connection(TokioIo::new(Patient::new(stream)), service));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stopping.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => ended,
        // A stream of events has no end of its own.
        () = sleep(FAREWELL) => Ok(()),
    }
}

/// A connection whose reader is waited for, but not for ever.
struct Patient {
    stream: TcpStream,
    /// Set while something waits to be written.
    until: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream) -> Self {
        Self { stream, until: None }
    }

    fn waits(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let until =
            self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + STALLED)));
        ready!(until.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of its answer")))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Ready(written) => {
                self.until = None;
                Poll::Ready(written)
            }
            Poll::Pending => self.waits(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(cx, slices) {
            Poll::Ready(written) => {
                self.until = None;
                Poll::Ready(written)
            }
            Poll::Pending => self.waits(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
