//! The other commands' side of the socket.

mod schedules;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use dssflow_activities::aws::sweep::Leftover;
use dssflow_engine::Graph;
use dssflow_engine::event::Event;
use dssflow_engine::id::RunId;
use dssflow_engine::run::versions::Comparison;
use dssflow_engine::run::view::RunView;
use dssflow_engine::runtime::Inspected;
use dssflow_engine::store::{ListPage, ListQuery, VerifyReport};
use dssflow_store::Holder;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{
    Act, Acted, Checked, Demand, Driven, Fork, Health, Obstacles, Order, OwnerInfo, Page, PruneDone,
    PruneOrder, Refusal, Resume,
};
use crate::error::{Code, CommandError, CommandResult};
use crate::owner;

/// How long an owner may take to answer a look; one that is stopped never answers.
const ANSWER: Duration = Duration::from_millis(700);
/// How long an owner may take to make a demand durable.
const DEMAND: Duration = Duration::from_secs(10);
/// The same where the owner looks at the world first.
const LOOKED: Duration = Duration::from_mins(5);
/// The longest that is waited for what goes through the whole store; the owner itself gives up before.
const LONG: Duration = Duration::from_hours(24);
/// How often an owner that is at such a thing is asked whether it is still there.
const PULSE: Duration = Duration::from_secs(5);
/// After so many of them without an answer it is not waited for any longer.
const MISSED: u32 = 12;
/// How long an owner may pause within a copy.
const SILENCE: Duration = Duration::from_mins(1);
/// The most an answer may have, in bytes.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// A connection to the owner of a store; each request dials anew.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) socket: PathBuf,
    pub(crate) store: PathBuf,
    pub(crate) holder: Option<Holder>,
}

impl Client {
    /// Who owns the store.
    pub(crate) async fn owner(&self) -> CommandResult<OwnerInfo> {
        self.get("/v1/store", ANSWER).await
    }

    /// How the owner stands; none when it is of a version that does not tell.
    pub(crate) async fn health(&self) -> CommandResult<Option<Health>> {
        match self.get("/v1/health", ANSWER).await {
            Ok(health) => Ok(Some(health)),
            Err(error) if error.code == Code::RunRefused => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the owner is `dssflow serve`, which drives any run and takes new ones.
    pub(crate) async fn serves(&self) -> CommandResult<bool> {
        Ok(self.health().await?.is_some_and(|health| health.serves))
    }

    /// What an order would do, as the owner would do it.
    pub(crate) async fn check(&self, order: &Order) -> CommandResult<Checked> {
        self.post("/v1/runs/check", order, LOOKED).await
    }

    /// Has the owner start a run, or go on with one. Nothing when there is nothing to do.
    pub(crate) async fn order(&self, order: &Order) -> CommandResult<Option<Driven>> {
        let body = serde_json::to_vec(order).expect("an order is plain data");
        let bytes = self.fetch(Method::POST, "/v1/runs", Bytes::from(body), LOOKED).await?;
        if bytes.is_empty() { Ok(None) } else { parse(&bytes).map(Some) }
    }

    /// Has the owner drive a run on.
    pub(crate) async fn resume(&self, run: &RunId, wish: &Resume) -> CommandResult<Driven> {
        self.post(&format!("/v1/runs/{}/resume", encoded(run.as_str())), wish, LOOKED).await
    }

    /// Has the owner start a run that takes over from another.
    pub(crate) async fn fork(&self, run: &RunId, fork: &Fork) -> CommandResult<Driven> {
        self.post(&format!("/v1/runs/{}/fork", encoded(run.as_str())), fork, LOOKED).await
    }

    /// How a run differs from its workflow in the owner's version.
    pub(crate) async fn compare(&self, run: &RunId) -> CommandResult<Comparison> {
        self.get(&format!("/v1/runs/{}/compare", encoded(run.as_str())), DEMAND).await
    }

    /// Has the owner compare what a run left with the world.
    pub(crate) async fn inspect(&self, run: &RunId) -> CommandResult<Vec<Inspected>> {
        self.post(&format!("/v1/runs/{}/inspect", encoded(run.as_str())), &(), LOOKED).await
    }

    /// Has the owner look for what carries the marks of a run's site and no run knows of.
    pub(crate) async fn orphans(&self, run: &RunId) -> CommandResult<Vec<Leftover>> {
        self.post(&format!("/v1/runs/{}/orphans", encoded(run.as_str())), &(), LOOKED).await
    }

    /// Has the owner read and check everything.
    pub(crate) async fn verify(&self) -> CommandResult<VerifyReport> {
        self.patiently(self.get("/v1/store/verify", LONG)).await
    }

    pub(crate) async fn list(&self, query: &ListQuery) -> CommandResult<ListPage> {
        let statuses: Vec<&str> = query.statuses.iter().map(|s| s.as_str()).collect();
        let mut uri = format!("/v1/runs?limit={}&status={}", query.limit, statuses.join(","));
        for (key, value) in [
            ("workflow", &query.workflow),
            ("site", &query.site),
            ("prefix", &query.prefix),
            ("cursor", &query.cursor),
        ] {
            if let Some(value) = value {
                put!(uri, "&{key}={}", encoded(value));
            }
        }
        if !query.labels.is_empty() {
            let labels = serde_json::to_string(&query.labels).expect("labels are plain data");
            put!(uri, "&labels={}", encoded(&labels));
        }
        for (key, at) in [("from", query.created_from), ("before", query.created_before)] {
            if let Some(at) = at {
                put!(uri, "&{key}={}", at.as_millis());
            }
        }
        let page: Page = self.get(&uri, ANSWER).await?;
        Ok(ListPage { runs: page.runs, cursor: page.cursor })
    }

    pub(crate) async fn view(&self, run: &RunId) -> CommandResult<RunView> {
        self.get(&format!("/v1/runs/{}", encoded(run.as_str())), ANSWER).await
    }

    pub(crate) async fn graph(&self, run: &RunId) -> CommandResult<Graph> {
        let uri = format!("/v1/runs/{}/graph", encoded(run.as_str()));
        let bytes = self.fetch(Method::GET, &uri, Bytes::new(), ANSWER).await?;
        Graph::decode(&bytes).map_err(|e| CommandError::new(Code::RunForeign, e.to_string()))
    }

    pub(crate) async fn events(&self, run: &RunId, after: u64) -> CommandResult<Vec<Event>> {
        let uri = format!("/v1/runs/{}/events?after={after}", encoded(run.as_str()));
        let bytes = self.fetch(Method::GET, &uri, Bytes::new(), DEMAND).await?;
        bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(parse).collect()
    }

    /// Calls `each` with every event from `after` on, until the run stands, the owner ends, or `each` says stop.
    pub(crate) async fn follow(
        &self,
        run: &RunId,
        after: u64,
        each: &mut (dyn FnMut(&Event) -> bool + Send),
    ) -> CommandResult<()> {
        let uri = format!("/v1/runs/{}/events?after={after}&follow=1", encoded(run.as_str()));
        let answer = tokio::time::timeout(ANSWER, self.send(Method::GET, &uri, Bytes::new()));
        let mut body = self.answered(answer.await).await?.into_body();
        let mut rest = Vec::new();
        // An owner that ends breaks the stream off; what is missing is in the store then.
        while let Some(Ok(frame)) = body.frame().await {
            let Some(data) = frame.data_ref() else { continue };
            rest.extend_from_slice(data);
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if line.len() > 1 && !each(&parse(&line)?) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Has the owner prune its store.
    pub(crate) async fn prune(&self, order: &PruneOrder) -> CommandResult<PruneDone> {
        self.patiently(self.post("/v1/store/prune", order, LONG)).await
    }

    /// Waits as long as it takes, and as long as the owner answers others meanwhile: one that is stopped never ends.
    async fn patiently<T>(&self, work: impl Future<Output = CommandResult<T>>) -> CommandResult<T> {
        self.health().await?;
        let mut work = std::pin::pin!(work);
        let mut missed = 0;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep(PULSE) => {}
            }
            match self.health().await {
                Ok(_) => missed = 0,
                Err(error) if missed >= MISSED => return Err(error),
                Err(_) => missed += 1,
            }
        }
    }

    /// Has the owner write an archive of its store, or of one run, and hands out what comes. That all of it came only the
    /// archive's last line tells.
    pub(crate) async fn archive(
        &self,
        run: Option<&RunId>,
        each: &mut (dyn FnMut(&[u8]) -> CommandResult<()> + Send),
    ) -> CommandResult<()> {
        let uri = match run {
            Some(run) => format!("/v1/store/archive?run={}", encoded(run.as_str())),
            None => "/v1/store/archive".to_owned(),
        };
        let answer = tokio::time::timeout(DEMAND, self.send(Method::GET, &uri, Bytes::new()));
        let mut body = self.answered(answer.await).await?.into_body();
        loop {
            match tokio::time::timeout(SILENCE, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        each(data)?;
                    }
                }
                Ok(None) => return Ok(()),
                Ok(Some(Err(error))) => return Err(self.silent(&format!("it broke the copy off: {error}"))),
                Err(_) => return Err(self.silent("it does not go on with the copy")),
            }
        }
    }

    /// Asks the owner for `pause`, `cancel` or `rollback`; durable when this returns.
    pub(crate) async fn demand(&self, run: &RunId, verb: &str, demand: &Demand) -> CommandResult<()> {
        let body = serde_json::to_vec(demand).expect("a demand is plain data");
        let uri = format!("/v1/runs/{}/{verb}", encoded(run.as_str()));
        // To take back a run that it does not drive, the owner looks at the run's world first.
        let limit = if verb == "pause" { DEMAND } else { LOOKED };
        self.fetch(Method::POST, &uri, Bytes::from(body), limit).await.map(drop)
    }

    /// Has the owner do what an operator wants of a step; durable when this returns.
    pub(crate) async fn act(&self, run: &RunId, act: &Act) -> CommandResult<Acted> {
        let limit = if act.drive { LOOKED } else { DEMAND };
        self.post(&format!("/v1/runs/{}/act", encoded(run.as_str())), act, limit).await
    }

    /// What keeps the run's steps from starting, as far as the owner knows.
    pub(crate) async fn obstacles(&self, run: &RunId) -> CommandResult<Obstacles> {
        // The owner reads the run's history for each step.
        self.get(&format!("/v1/runs/{}/obstacles", encoded(run.as_str())), DEMAND).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        uri: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> CommandResult<T> {
        let body = serde_json::to_vec(body).expect("what is sent is plain data");
        parse(&self.fetch(Method::POST, uri, Bytes::from(body), limit).await?)
    }

    async fn get<T: DeserializeOwned>(&self, uri: &str, limit: Duration) -> CommandResult<T> {
        parse(&self.fetch(Method::GET, uri, Bytes::new(), limit).await?)
    }

    async fn fetch(&self, method: Method, uri: &str, body: Bytes, limit: Duration) -> CommandResult<Bytes> {
        let whole = async {
            let answer = self.send(method, uri, body).await?;
            let (head, body) = answer.into_parts();
            let bytes = http_body_util::Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok::<_, Failed>((head.status, bytes))
        };
        match tokio::time::timeout(limit, whole).await {
            Ok(Ok((status, bytes))) if status.is_success() => Ok(bytes),
            Ok(Ok((status, bytes))) => Err(refused(status, &bytes)),
            Ok(Err(error)) => Err(self.silent(&format!("its control socket failed: {error}"))),
            Err(_) => Err(self.silent("it does not answer on its control socket")),
        }
    }

    async fn answered(
        &self,
        answer: Result<Result<Response<Incoming>, Failed>, tokio::time::error::Elapsed>,
    ) -> CommandResult<Response<Incoming>> {
        match answer {
            Ok(Ok(answer)) if answer.status().is_success() => Ok(answer),
            Ok(Ok(answer)) => {
                let status = answer.status();
                let bytes = answer
                    .into_body()
                    .collect()
                    .await
                    .map(http_body_util::Collected::to_bytes)
                    .unwrap_or_default();
                Err(refused(status, &bytes))
            }
            Ok(Err(error)) => Err(self.silent(&format!("its control socket failed: {error}"))),
            Err(_) => Err(self.silent("it does not answer on its control socket")),
        }
    }

    async fn send(&self, method: Method, uri: &str, body: Bytes) -> Result<Response<Incoming>, Failed> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the connection; its errors come out of the request.
        drop(tokio::spawn(connection));
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(hyper::header::HOST, "dssflow")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        Ok(sender.send_request(request).await?)
    }

    fn silent(&self, why: &str) -> CommandError {
        owner::locked(&self.store, self.holder.as_ref()).why(why)
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> CommandResult<T> {
    serde_json::from_slice(bytes).map_err(|e| {
        CommandError::new(
            Code::RunForeign,
            format!("the owner of the store answers in a way this version does not know: {e}"),
        )
        .hint("use the version of dssflow that owns the store, or wait until it has ended")
    })
}

fn refused(status: StatusCode, bytes: &[u8]) -> CommandError {
    match serde_json::from_slice::<Refusal>(bytes) {
        Ok(refusal) => {
            let code = Code::parse(&refusal.code).unwrap_or(Code::RunRefused);
            CommandError {
                why: refusal.why,
                hints: refusal.hints,
                ..CommandError::new(code, refusal.message)
            }
        }
        Err(_) => CommandError::new(Code::RunRefused, format!("the owner of the store answered {status}")),
    }
}

/// A value in a URL: everything but letters, digits and `-._~` as percent signs.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            put!(out, "%{b:02X}");
        }
        out
    })
}
