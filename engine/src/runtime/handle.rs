//! One run for whoever waits for it.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::Stream;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use crate::event::{CancelMode, Event, Request};
use crate::id::RunId;
use crate::run::view::{RunView, view};
use crate::run::{RunState, RunStatus, Verb};
use crate::runtime::driver::Ask;
use crate::runtime::engine::{Engine, EngineError, Live, Published};

/// A run that is being driven, or has just been. `T` is what it returns. While a handle is kept its engine goes on.
pub struct RunHandle<T = Value> {
    engine: Engine,
    run: RunId,
    pub(crate) live: Live,
    returns: PhantomData<fn() -> T>,
}

impl<T> Clone for RunHandle<T> {
    fn clone(&self) -> Self {
        Self {
            engine: self.engine.clone(),
            run: self.run.clone(),
            live: self.live.clone(),
            returns: PhantomData,
        }
    }
}

impl<T> std::fmt::Debug for RunHandle<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RunHandle({})", self.run)
    }
}

impl Engine {
    /// A handle of a run that has ended.
    pub(crate) fn at_rest(&self, state: &RunState) -> RunHandle {
        let (asks, _) = tokio::sync::mpsc::unbounded_channel();
        let (_, ended) = watch::channel(Some(Arc::new(Ok(view(state)))));
        RunHandle::new(self.clone(), state.id.clone(), Live { asks, ended })
    }
}

impl RunHandle {
    pub(crate) fn new(engine: Engine, run: RunId, live: Live) -> Self {
        Self { engine, run, live, returns: PhantomData }
    }

    /// The same handle, for a run that returns a `T`.
    pub fn typed<T>(self) -> RunHandle<T> {
        RunHandle { engine: self.engine, run: self.run, live: self.live, returns: PhantomData }
    }
}

impl<T> RunHandle<T> {
    /// The run.
    pub fn id(&self) -> &RunId {
        &self.run
    }

    /// Waits until the run has ended or stands still, and shows it then.
    ///
    /// # Errors
    /// When the store failed, or the engine was dropped first.
    pub async fn wait(&self) -> Result<RunView, EngineError> {
        let mut ended = self.live.ended.clone();
        let end = ended
            .wait_for(Option::is_some)
            .await
            .map_err(|_| EngineError::Dropped(self.run.clone()))?
            .clone();
        match end.as_deref() {
            Some(Ok(view)) => Ok(view.clone()),
            Some(Err(error)) => Err(error.clone()),
            None => Err(EngineError::Dropped(self.run.clone())),
        }
    }

    /// Waits until the run has ended or stands still, and gives what it returned.
    ///
    /// # Errors
    /// [`EngineError::NotSucceeded`] when it did anything but succeed, with the step that failed and why;
    /// [`EngineError::ResultMismatch`] when what it returned is no `T`; and as [`RunHandle::wait`].
    pub async fn result(&self) -> Result<T, EngineError>
    where
        T: DeserializeOwned,
    {
        let view = self.wait().await?;
        if view.status == RunStatus::Succeeded {
            let output = view.output.unwrap_or(Value::Null);
            return serde_json::from_value(output)
                .map_err(|e| EngineError::ResultMismatch { run: self.run.clone(), why: e.to_string() });
        }
        if !view.status.is_end() && view.paused.is_none() {
            return Err(EngineError::Dropped(self.run.clone()));
        }
        let failed = view.failed_step.as_ref().and_then(|name| view.steps.iter().find(|s| s.step == *name));
        let error = failed.and_then(|s| s.error.clone()).or(view.error);
        Err(EngineError::NotSucceeded {
            run: self.run.clone(),
            status: view.status,
            step: view.failed_step,
            error: error.map(Box::new),
        })
    }

    /// Shows the run as it is now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn status(&self) -> Result<RunView, EngineError> {
        self.engine.view(&self.run).await
    }

    /// Asks it to pause; see [`Engine::pause`].
    ///
    /// # Errors
    /// When it is not driven any more.
    pub async fn pause(&self, request: Request) -> Result<(), EngineError> {
        self.engine.pause(&self.run, request).await
    }

    /// Asks it to end; see [`Engine::cancel`].
    ///
    /// # Errors
    /// When it is not driven any more.
    pub async fn cancel(&self, mode: CancelMode, request: Request) -> Result<(), EngineError> {
        self.engine.cancel(&self.run, mode, request).await
    }

    /// Does what an operator wants of one of its steps. Only asks: a run that is not driven any more is left as it is;
    /// [`Engine::act`] would drive it on.
    ///
    /// # Errors
    /// When it is not driven any more, or its state does not allow it.
    pub async fn act(&self, verb: Verb, request: Request) -> Result<(), EngineError> {
        self.engine.ask(&self.run, Ask::Act(verb, request)).await
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended, or the payload is over a limit.
    pub async fn signal(
        &self,
        signal: impl Into<String>,
        payload: impl serde::Serialize,
        request: Request,
    ) -> Result<(), EngineError> {
        let payload = serde_json::to_value(payload)
            .map_err(|e| EngineError::Illegal { run: self.run.clone(), why: format!("the payload: {e}") })?;
        let verb = Verb::Signal { signal: signal.into(), payload };
        self.engine.act(&self.run, verb, request).await.map(drop)
    }

    /// Its history from the event after `after`, and what is added to it as long as it is driven: the same events in the
    /// same order as are stored, each once it is durable, none lost to a slow reader. Ends when the drive is over.
    pub fn events(&self, after: u64) -> impl Stream<Item = Result<Event, EngineError>> + Send + use<T> {
        let reader = Reader {
            engine: self.engine.clone(),
            run: self.run.clone(),
            // Before the first look at the history, so that nothing falls between.
            published: self.engine.subscribe(),
            ended: self.live.ended.clone(),
            buffer: VecDeque::new(),
            seen: after,
            behind: true,
            over: false,
        };
        futures::stream::unfold(reader, |mut reader| async move {
            let next = reader.next().await?;
            Some((next, reader))
        })
    }
}

struct Reader {
    engine: Engine,
    run: RunId,
    published: broadcast::Receiver<Published>,
    ended: watch::Receiver<Option<crate::runtime::engine::Ended>>,
    buffer: VecDeque<Event>,
    /// Number of the last event handed out or buffered.
    seen: u64,
    /// Set when the history has to be read: at the start, and when events went by too quickly.
    behind: bool,
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Event, EngineError>> {
        loop {
            if let Some(event) = self.buffer.pop_front() {
                return Some(Ok(event));
            }
            if self.behind {
                self.behind = false;
                match self.engine.history(&self.run, self.seen).await {
                    Ok(events) => self.take(events),
                    Err(error) => {
                        self.over = true;
                        return Some(Err(error));
                    }
                }
                continue;
            }
            if self.over {
                return None;
            }
            let published = tokio::select! {
                biased;
                published = self.published.recv() => Some(published),
                _ = self.ended.wait_for(Option::is_some) => None,
            };
            match published {
                Some(Ok((run, events))) if run == self.run => self.take(events.to_vec()),
                Some(Ok(_)) => {}
                Some(Err(broadcast::error::RecvError::Lagged(_))) => self.behind = true,
                // A last look: the end is told after its events were published, but a lag may hide them.
                Some(Err(broadcast::error::RecvError::Closed)) | None => {
                    (self.behind, self.over) = (true, true);
                }
            }
        }
    }

    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            if event.seq == self.seen + 1 {
                self.seen = event.seq;
                self.buffer.push_back(event);
            } else if event.seq > self.seen {
                // Something is missing before it; the history has it.
                self.behind = true;
                return;
            }
        }
    }
}
