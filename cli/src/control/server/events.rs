//! The history of a run: as it is, or followed while it grows.
//!
//! Both forms read the store after the last event that was sent, whenever something was announced and once a second: a
//! slow reader misses nothing, and a client that comes back with the number of its last event gets what came after it.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use dssflow_engine::Engine;
use dssflow_engine::event::Event;
use dssflow_engine::id::RunId;
use dssflow_engine::runtime::engine::Published;
use dssflow_engine::store::StoreError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::{Answer, Failure, Owner, Params, Rejected, Run, Shared};
use crate::error::{Code, CommandError};

/// How often a follower looks at the history when nothing was announced.
const LOOK: Duration = Duration::from_secs(1);
/// How often a silent stream says that it is there.
const ALIVE: Duration = Duration::from_secs(15);
/// What a client says that takes server-sent events.
const EVENT_STREAM: &str = "text/event-stream";

/// Parameters of `GET /v1/runs/{run}/events`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tail {
    /// Only events after this number.
    after: u64,
    /// 1 goes on as long as the run is driven. Server-sent events always do.
    follow: u8,
}

pub(super) async fn events(
    State(owner): Shared,
    Run(run): Run,
    Params(tail): Params<Tail>,
    headers: HeaderMap,
) -> Answer<Response> {
    let wanted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let sse = wanted.split(',').any(|kind| kind.split(';').next().unwrap_or_default().trim() == EVENT_STREAM);
    let Owner { engine, service, streams, .. } = owner;
    let place = streams.try_acquire_owned();
    if place.is_err() && (sse || tail.follow != 0) {
        let message = "too many follow histories already; try again in a moment";
        return Ok(Rejected(StatusCode::TOO_MANY_REQUESTS, message.to_owned()).into_response());
    }
    // Subscribed before the history is read, so that nothing falls between.
    let news = engine.subscribe();
    let ends = service.map_or_else(CancellationToken::new, |service| service.stopping().clone());
    let after = if sse { last_event(&headers)?.unwrap_or(tail.after) } else { tail.after };
    let follower = Follower { engine, news, run, after, ends, _place: place.ok() };
    // A run that is not there is an answer of its own, not a stream that breaks off.
    follower.engine.history(&follower.run, u64::MAX - 1).await?;
    if sse {
        if follower.is_over().await? {
            // It tells a client that comes back by itself to stop.
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        let stream = futures::stream::try_unfold(Some((follower, Vec::new())), next_sent);
        return Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(ALIVE)).into_response());
    }
    let stop = if tail.follow == 0 { Until::Read } else { Until::Idle };
    let body =
        Body::from_stream(futures::stream::try_unfold(follower, move |follower| next_lines(follower, stop)));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// The number that a client which comes back has seen last.
fn last_event(headers: &HeaderMap) -> Answer<Option<u64>> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| {
        Failure(CommandError::new(Code::Usage, "Last-Event-ID is no number of an event of this stream"))
    })
}

/// When a follower has nothing more to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// What there is has been read.
    Read,
    /// Nobody drives the run.
    Idle,
    /// The run has ended, so that nothing comes after.
    Ended,
}

/// Reads a run's history on as it grows.
struct Follower {
    engine: Engine,
    news: Receiver<Published>,
    run: RunId,
    after: u64,
    ends: CancellationToken,
    _place: Option<OwnedSemaphorePermit>,
}

impl Follower {
    /// What came since; nothing at the end.
    async fn next(&mut self, until: Until) -> io::Result<Option<Vec<Event>>> {
        loop {
            // Asked before the history is read: what is written before the end of the drive is then read below.
            let driven = self.engine.handle(&self.run).is_some();
            let events = self.engine.history(&self.run, self.after).await.map_err(io::Error::other)?;
            if let Some(last) = events.last() {
                self.after = last.seq;
                return Ok(Some(events));
            }
            let done = match until {
                Until::Read => true,
                Until::Idle => !driven,
                Until::Ended => !driven && self.has_ended().await.map_err(io::Error::other)?,
            };
            if done {
                return Ok(None);
            }
            loop {
                let told = tokio::select! {
                    told = tokio::time::timeout(LOOK, self.news.recv()) => told,
                    () = self.ends.cancelled(), if until == Until::Ended => return Ok(None),
                };
                match told {
                    Ok(Ok((run, _))) if run != self.run => {}
                    Ok(Err(RecvError::Closed)) => return Ok(None),
                    Ok(Ok(_) | Err(RecvError::Lagged(_))) | Err(_) => break,
                }
            }
        }
    }

    async fn has_ended(&self) -> Result<bool, StoreError> {
        let head = self.engine.store().head(&self.run).await?;
        // One that was pruned meanwhile has ended too. What ended it may have been written since the history was read.
        Ok(head.is_none_or(|head| head.summary.status.is_end() && head.seq <= self.after))
    }

    /// Whether nothing comes after what the client has seen.
    async fn is_over(&self) -> Result<bool, CommandError> {
        let head = self.engine.store().head(&self.run).await?;
        let seen = head.is_none_or(|head| self.after >= head.seq && head.summary.status.is_end());
        Ok(seen && self.after > 0 && self.engine.handle(&self.run).is_none())
    }
}

/// The next lines of the stream.
async fn next_lines(mut follower: Follower, until: Until) -> Result<Option<(Bytes, Follower)>, io::Error> {
    let Some(events) = follower.next(until).await? else { return Ok(None) };
    let mut lines = Vec::new();
    for event in &events {
        serde_json::to_writer(&mut lines, event).map_err(io::Error::other)?;
        lines.push(b'\n');
    }
    Ok(Some((Bytes::from(lines), follower)))
}

type Sending = Option<(Follower, Vec<Event>)>;

/// The next of the stream: an event under its number, or, once the run has ended, that this is all.
async fn next_sent(state: Sending) -> Result<Option<(Sent, Sending)>, io::Error> {
    let Some((mut follower, mut waiting)) = state else { return Ok(None) };
    if waiting.is_empty() {
        match follower.next(Until::Ended).await? {
            Some(mut events) => {
                events.reverse();
                waiting = events;
            }
            None if follower.ends.is_cancelled() => return Ok(None),
            None => {
                let end = Sent::default().event("end").data(json!({ "run": follower.run }).to_string());
                return Ok(Some((end, None)));
            }
        }
    }
    let Some(event) = waiting.pop() else { return Ok(None) };
    let data = serde_json::to_string(&event).map_err(io::Error::other)?;
    let sent = Sent::default().id(event.seq.to_string()).data(data);
    Ok(Some((sent, Some((follower, waiting)))))
}
