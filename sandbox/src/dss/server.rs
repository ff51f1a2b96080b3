//! From HTTP to the handlers and back: base paths, authentication, rights, scripted faults.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State as Shared};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::FakeDss;
use super::behaviour::{Auth, BasePath};
use super::plugins::unknown_route;
use super::reply::{Answer, Call, Course, Refusal, Reply, dropped, error_response, html_response, respond};
use super::unverified::LOGIN_PATH;
use crate::faults::{Action, Phase, Target};

/// The official client uses the first, the documentation the second.
const BASE_PATHS: [&str; 2] = ["/dip/publicapi", "/public/api"];
/// Largest body taken, in bytes: a plugin archive.
const BODY_LIMIT: usize = 64 << 20;

impl FakeDss {
    /// The public API under both base paths, and the login of the web interface.
    ///
    /// A scripted reset is a response with `DropConnection`, for a server that knows it; any other server sends a
    /// body that breaks off.
    pub fn router(&self) -> Router {
        Router::new().fallback(entry).with_state(self.clone())
    }

    async fn answer(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let behaviour = self.behaviour();
        let path = parts.uri.path().to_owned();
        let bases = match behaviour.base_path {
            BasePath::Both => &BASE_PATHS[..],
            BasePath::Dip => &BASE_PATHS[..1],
            BasePath::Public => &BASE_PATHS[1..],
        };
        let below =
            bases.iter().find_map(|base| path.strip_prefix(base).filter(|rest| rest.starts_with('/')));
        let op = format!("{} {}", parts.method, below.unwrap_or(&path).trim_end_matches('/'));
        let mut course = None;
        match self.faults().check(Target::Dss, &op, Phase::Before) {
            Some(Action::State { polls, end }) => {
                course = Some(Course { polls, fails: matches!(end.as_str(), "FAILED" | "DELETE_FAILED") });
            }
            Some(Action::Late { ms }) => {
                if let Ok(body) = to_bytes(body, BODY_LIMIT).await {
                    self.land_later(ms, parts, body);
                }
                return struck(Action::Reset).await;
            }
            Some(Action::Delay { ms }) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Some(Action::Hold) => self.faults().released().await,
            Some(action) => return struck(action).await,
            None => {}
        }
        let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
            return error_response(StatusCode::BAD_REQUEST, "java.io.IOException", "the body broke off");
        };
        let answer = match below {
            Some(below) => {
                self.call(&parts.method, below, parts.uri.query(), &parts.headers, body, course).await
            }
            None if path == LOGIN_PATH && parts.method == Method::POST => self.login_form(&body),
            None => Err(Refusal::missing(format!("Not found: {path}"))),
        };
        match self.faults().check(Target::Dss, &op, Phase::After) {
            Some(Action::Delay { ms }) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Some(Action::Hold) => self.faults().released().await,
            None => {}
            Some(action) => return struck(action).await,
        }
        respond(answer, &behaviour).await
    }

    /// Carries a request out when the time has come; nobody hears the answer.
    fn land_later(&self, ms: u64, parts: Parts, body: Bytes) {
        let dss = self.clone();
        drop(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            let path = parts.uri.path();
            let Some(below) = BASE_PATHS.iter().find_map(|base| path.strip_prefix(base)) else { return };
            drop(dss.call(&parts.method, below, parts.uri.query(), &parts.headers, body, None).await);
        }));
    }

    async fn call(
        &self,
        method: &Method,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
        body: Bytes,
        course: Option<Course>,
    ) -> Answer {
        let behaviour = self.behaviour();
        let Some(key) = api_key(headers, &behaviour.auth) else {
            return Err(Refusal::unauthorized("Authentication required"));
        };
        let Some((key_id, admin)) = self.authenticate(&key) else {
            return Err(Refusal::unauthorized("Unknown or revoked API key"));
        };
        let json =
            headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|kind| {
                kind.starts_with("application/json") || kind.starts_with("multipart/form-data")
            });
        if behaviour.require_content_type && !body.is_empty() && !json {
            return Err(Refusal::illegal("Unsupported Media Type: Content-Type must be application/json")
                .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let query = form(query.unwrap_or_default());
        let odd =
            query.iter().find(|(_, value)| matches!(value.as_str(), "true" | "false" | "TRUE" | "FALSE"));
        if let Some((name, value)) = odd.filter(|_| behaviour.python_booleans_only) {
            return Err(Refusal::illegal(format!("Invalid boolean for {name}: {value}")));
        }
        let segments: Vec<String> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| decoded(segment, false))
            .collect();
        let call = Call { method: method.as_str().to_owned(), query, segments, body, key_id, course };
        let needs_admin = matches!(call.segments.first().map(String::as_str), Some("admin" | "plugins"));
        if needs_admin && !admin {
            return Err(Refusal::forbidden("You need to be an administrator to perform this action"));
        }
        self.route(&call).await
    }

    async fn route(&self, call: &Call) -> Answer {
        let segments: Vec<&str> = call.segments.iter().map(String::as_str).collect();
        match (call.method.as_str(), segments.as_slice()) {
            ("GET", ["auth", "info"]) => Self::auth_info(call),
            ("GET", ["instance-info"]) => self.instance_info(),
            (_, ["admin", "licensing", rest @ ..]) => self.licensing(call, rest),
            ("POST", ["admin", "sanity-check", "run"]) => self.sanity_check(call),
            ("GET", ["futures"]) => self.futures(),
            ("GET" | "DELETE", ["futures", job]) => self.future_state(call, job),
            (_, ["admin", "global-api-keys", rest @ ..]) => self.global_api_keys(call, rest),
            ("GET" | "PUT", ["admin", "general-settings"]) => self.general_settings(call),
            ("POST", ["admin", "container-exec", "actions", "push-base-images"]) => {
                self.push_base_images(call)
            }
            ("POST", ["admin", "container-exec", "actions", "apply-kubernetes-policies"]) => {
                self.container_task(call, "apply-kubernetes-policies")
            }
            ("POST", ["admin", "container-exec", "actions", "build-cde-plugins-image"]) => {
                self.container_task(call, "build-cde-plugins-image")
            }
            ("GET" | "POST", ["admin", "connections"]) => self.connections(call),
            ("GET" | "PUT" | "DELETE", ["admin", "connections", name]) => self.connection(call, name),
            ("GET", ["connections", "get-names"]) => self.connection_names(call),
            ("GET", ["connections", name, "test"]) => self.connection_test(name),
            ("GET", ["connections", name, "info"]) => self.connection_info(name),
            ("GET", ["plugins"]) => self.plugin_list(),
            ("POST", ["plugins", "actions", "installFromZip"]) => self.plugin_upload(call),
            ("POST", ["plugins", "actions", "future", "installFromZip"]) => {
                self.plugin_install(call, "installFromZip")
            }
            ("POST", ["plugins", "actions", how @ ("installFromStore" | "installFromGit")]) => {
                self.plugin_install(call, how)
            }
            (_, ["plugins", id, rest @ ..]) => self.plugin(call, id, rest),
            ("GET" | "POST", ["admin", "clusters"]) => self.clusters(call),
            (_, ["admin", "clusters", id, rest @ ..]) => self.cluster(call, id, rest).await,
            ("GET" | "POST", ["projects"]) => self.projects(call),
            (_, ["projects", key, rest @ ..]) => self.project(call, key, rest).await,
            ("POST", ["sql", "queries"]) => self.sql_query(call).await,
            ("GET", ["sql", "queries", id, "stream"]) => self.sql_rows(id),
            ("GET", ["sql", "queries", id, "finish-streaming"]) => self.sql_finish(id),
            (_, ["admin", "groups", rest @ ..]) => self.groups(call, rest),
            (_, ["admin", "users", rest @ ..]) => self.users(call, rest),
            (_, ["admin", "code-envs", rest @ ..]) => self.code_envs(call, rest),
            ("GET" | "PUT", ["admin", "variables"]) => self.variables(call),
            _ => Err(unknown_route(call)),
        }
    }

    fn login_form(&self, body: &[u8]) -> Answer {
        let fields = form(&String::from_utf8_lossy(body));
        let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        if self.login(field("login"), field("password")) {
            Ok(Reply::Json(serde_json::json!({"success": true})))
        } else {
            Err(Refusal::unauthorized("Login failed"))
        }
    }
}

async fn entry(Shared(dss): Shared<FakeDss>, request: Request) -> Response {
    dss.answer(request).await
}

/// What a fault makes of the reply.
async fn struck(action: Action) -> Response {
    match action {
        Action::Error { status, code, message } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            if code == "html" {
                html_response(status, &message)
            } else {
                error_response(status, &code, &message)
            }
        }
        Action::Reset => dropped(),
        Action::Hang => std::future::pending().await,
        Action::Throttle { retry_after_s } => {
            let mut response = error_response(
                StatusCode::TOO_MANY_REQUESTS,
                "com.dataiku.common.server.TooManyRequests",
                "Too many requests",
            );
            if let Some(seconds) = retry_after_s {
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            response
        }
        Action::Delay { .. }
        | Action::Hold
        | Action::State { .. }
        | Action::Stale { .. }
        | Action::Late { .. } => Response::new(Body::empty()),
    }
}

/// The key, in any of the forms that are taken: user name, password, bearer.
fn api_key(headers: &HeaderMap, taken: &[Auth]) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return taken.contains(&Auth::Bearer).then(|| rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    let (part, form) =
        if user.is_empty() { (password, Auth::BasicPassword) } else { (user, Auth::BasicUser) };
    (taken.contains(&form) && !part.is_empty()).then(|| part.to_owned())
}

/// The fields of a query string or a form body.
fn form(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name, true), decoded(value, true))
        })
        .collect()
}

/// Undoes percent encoding; `+` is a blank only in forms.
fn decoded(text: &str, form: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'%' if tail.len() >= 2 => {
                if let Ok(byte) = hex::decode(&tail[..2]) {
                    bytes.extend(byte);
                    rest = &tail[2..];
                } else {
                    bytes.push(b'%');
                }
            }
            b'+' if form => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_key_is_found_in_all_three_forms() {
        let all = [Auth::BasicUser, Auth::BasicPassword, Auth::Bearer];
        for (value, form) in ["Basic a2V5Og==", "Basic OmtleQ==", "Bearer key"].into_iter().zip(all) {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(api_key(&headers, &all).as_deref(), Some("key"), "{value}");
            assert_eq!(api_key(&headers, &[form]).as_deref(), Some("key"), "{value}");
            let others: Vec<Auth> = all.into_iter().filter(|other| *other != form).collect();
            assert_eq!(api_key(&headers, &others), None, "{value}");
        }
        assert_eq!(api_key(&HeaderMap::new(), &all), None);
    }

    #[test]
    fn forms_and_paths_are_decoded() {
        assert_eq!(form("login=admin&password=a%2Bb+c")["password"], "a+b c");
        assert_eq!(decoded("s3%20main+", false), "s3 main+");
    }
}
