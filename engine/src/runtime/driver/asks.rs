//! What people want of a run that is being driven.

use tokio::sync::oneshot;

use super::{Answer, Driver, Flow};
use crate::activity::{MAX_NOTE_BYTES, check_payload};
use crate::event::{CancelMode, EventKind, Request};
use crate::id::RunId;
use crate::run::{Verb, view};
use crate::runtime::engine::EngineError;

/// What others ask of a driver.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Pause, giving attempts under way some time.
    Pause(Request),
    /// End, keeping or taking back what was made.
    Cancel(CancelMode, Request),
    /// An operator's verb on a step.
    Act(Verb, Request),
    /// Show the run as it is, with live heartbeats.
    View(oneshot::Sender<view::RunView>),
    /// Let go at once, as a crash would.
    Stop,
}

/// An ask with its answer: resolved when the events it led to are durable.
pub(crate) struct Asked {
    pub(crate) ask: Ask,
    pub(crate) done: Option<oneshot::Sender<Result<(), EngineError>>>,
}

fn check_note(text: &str) -> Result<(), String> {
    if text.len() > MAX_NOTE_BYTES {
        return Err(format!("has {} bytes, at most {MAX_NOTE_BYTES} are allowed", text.len()));
    }
    Ok(())
}

/// Whether who asks, and why, can be stored.
pub(crate) fn check_request(run: &RunId, request: &Request) -> Result<(), EngineError> {
    for (what, text) in [("who asks", &request.by), ("the reason", &request.reason)] {
        check_note(text).map_err(|why| EngineError::PayloadTooLarge {
            run: run.clone(),
            what: what.to_owned(),
            why,
        })?;
    }
    Ok(())
}

impl Driver {
    pub(super) fn asked(&mut self, asked: Asked) -> Flow {
        let Asked { ask, done } = asked;
        let staged = match ask {
            Ask::Pause(request) => {
                if self.halted && self.grace_ends.is_none() {
                    self.grace_ends = Some(tokio::time::Instant::now() + self.inner.options.pause_grace);
                }
                self.stage(EventKind::PauseRequested { request })
            }
            Ask::Cancel(mode, request) => {
                self.halted = false;
                self.stage(EventKind::CancelRequested { mode, request })
            }
            Ask::Act(verb, request) => self.act(&verb, request),
            Ask::View(to) => {
                drop(to.send(self.view()));
                Ok(())
            }
            Ask::Stop => return Flow::Stop,
        };
        if let Some(done) = done {
            match staged {
                Ok(()) => self.answers.push(Answer::Ask(done)),
                Err(error) => drop(done.send(Err(error))),
            }
        }
        Flow::On
    }

    /// Stages the event of a verb.
    pub(crate) fn act(&mut self, verb: &Verb, request: Request) -> Result<(), EngineError> {
        let illegal = |why| EngineError::Illegal { run: self.state.id.clone(), why };
        if let Verb::Signal { signal, payload } = verb {
            let too_large = |what: &str, why| EngineError::PayloadTooLarge {
                run: self.state.id.clone(),
                what: what.to_owned(),
                why,
            };
            check_note(signal).map_err(|why| too_large("the name of the signal", why))?;
            self.weight +=
                check_payload(payload).map_err(|why| too_large("the payload of the signal", why))?;
        }
        let event = verb.event(&self.state, request).map_err(illegal)?;
        if let Verb::Complete { step, output } = verb {
            self.inner.check_output(&self.state, step, output)?;
        }
        self.stage(event)
    }
}
