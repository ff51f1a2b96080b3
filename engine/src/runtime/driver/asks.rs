//! What people want of a run that is being driven.

use tokio::sync::oneshot;

use super::{Answer, Driver, Flow};
use crate::event::{CancelMode, EventKind, Request};
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
        let event = verb.event(&self.state, request).map_err(illegal)?;
        if let Verb::Complete { step, output } = verb {
            self.inner.check_output(&self.state, step, output)?;
        }
        self.stage(event)
    }
}
