//! Who is answered at all: a client that shows the token, calls the server by a name it is meant to have, and is no page
//! of somebody else's.
//!
//! A browser on this machine can be made to call any address of it. It names the host that it believes to call (so a name
//! that was pointed here is told apart) and the origin of the page, and it has no token.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};

use super::token::Token;
use crate::control::server::Rejected;

/// What every answer says to a browser that got hold of it: show nothing of it, run nothing in it, keep nothing of it.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The guard.
#[derive(Debug)]
pub(super) struct Guard {
    token: Token,
    /// By which hosts the server may be called, with their ports, in small letters.
    hosts: BTreeSet<String>,
    /// From which origins pages may call it.
    origins: BTreeSet<String>,
}

impl Guard {
    /// For a server that listens on `address`, and that others may also call by `names`.
    pub(super) fn new(token: Token, address: SocketAddr, names: &[String]) -> Self {
        let port = address.port();
        let mut hosts: BTreeSet<String> = [
            address.to_string(),
            format!("localhost:{port}"),
            format!("127.0.0.1:{port}"),
            format!("[::1]:{port}"),
        ]
        .into();
        let mut origins: BTreeSet<String> = hosts.iter().map(|host| format!("http://{host}")).collect();
        // Whatever stands before the server and passes these names on speaks TLS.
        origins.extend(names.iter().map(|name| format!("https://{}", name.to_lowercase())));
        hosts.extend(names.iter().map(|name| name.to_lowercase()));
        Self { token, hosts, origins }
    }

    /// Puts the guard before all routes, those that are not there included.
    pub(super) fn before(self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(Arc::new(self), let_in))
    }

    fn check(&self, request: &Request) -> Result<(), Rejected> {
        let headers = request.headers();
        let host = only(headers, &header::HOST, "Host")?.unwrap_or_default().to_lowercase();
        // A request to a proxy names its host twice.
        let named = request.uri().authority().map(|authority| authority.as_str().to_lowercase());
        if !self.hosts.contains(&host) || named.is_some_and(|named| named != host) {
            let message = "this server is not called so; `--allow-host` names further hosts";
            return Err(Rejected(StatusCode::MISDIRECTED_REQUEST, message.to_owned()));
        }
        let origin = only(headers, &header::ORIGIN, "Origin")?;
        let cross = only(headers, &HeaderName::from_static("sec-fetch-site"), "Sec-Fetch-Site")?;
        if origin.is_some_and(|origin| !self.origins.contains(origin))
            || cross.is_some_and(|cross| cross == "cross-site")
        {
            let message = "pages of other origins are not answered";
            return Err(Rejected(StatusCode::FORBIDDEN, message.to_owned()));
        }
        let shown = only(headers, &header::AUTHORIZATION, "Authorization")?;
        let token = shown.and_then(|shown| {
            let (scheme, token) = shown.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim_start_matches(' '))
        });
        if !token.is_some_and(|token| self.token.is(token.as_bytes())) {
            let message = "the token is missing or another one; it is in the file that `dssflow serve` names";
            return Err(Rejected(StatusCode::UNAUTHORIZED, message.to_owned()));
        }
        Ok(())
    }
}

/// A header that must not stand there twice: who reads the first and who reads the last would understand another thing.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName, called: &str) -> Result<Option<&'a str>, Rejected> {
    let wrong = |what: &str| Rejected(StatusCode::BAD_REQUEST, format!("the header {called} {what}"));
    let mut all = headers.get_all(name).iter();
    let Some(first) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(wrong("stands there more than once"));
    }
    first.to_str().map(Some).map_err(|_| wrong("is no plain text"))
}

async fn let_in(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let mut response = match guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err(rejected) => {
            let status = rejected.0;
            let mut response = rejected.into_response();
            if status == StatusCode::UNAUTHORIZED {
                let challenge = HeaderValue::from_static("Bearer realm=\"dssflow\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            // What was not let in does not go on talking.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
