//! What workers tell, as events.

use serde_json::Value;

use super::{Answer, Driver, MAX_WEIGHT};
use crate::activity::{ActivityError, ErrorClass, Owner, Probe, check_payload};
use crate::event::{EventKind, LostCause, Next, Phase};
use crate::graph::StepIx;
use crate::run::decide::{after_absent, blocked, over_time};
use crate::runtime::engine::EngineError;
use crate::runtime::metrics::AttemptEnd;
use crate::runtime::worker::{Outcome, Report};
use crate::time::Timestamp;

impl Driver {
    /// Whether a report is of the attempt that is under way; anything else comes from the past.
    fn current(&self, ix: StepIx, attempt: u32) -> bool {
        self.state.in_flight.get(&ix).is_some_and(|f| f.attempt == attempt)
    }

    pub(super) fn take(&mut self, report: Report) -> Result<(), EngineError> {
        match report {
            Report::Ended { step: ix, attempt, outcome } => {
                if self.current(ix, attempt) {
                    let running = self.running.remove(&ix);
                    let told = running.as_ref().is_some_and(|r| r.cancel.is_cancelled());
                    if let Some(running) = running {
                        // The next attempt reads the last details, also those that the throttle held back.
                        if let Some(details) =
                            running.pulse.held_back().filter(|_| matches!(outcome, Outcome::Failed(_)))
                        {
                            let step = self.name(ix);
                            self.stage(EventKind::HeartbeatRecorded { step, attempt, details })?;
                        }
                        let end = match &outcome {
                            Outcome::Done { .. } | Outcome::Undone(_) => AttemptEnd::Done,
                            Outcome::Answer(_) => AttemptEnd::Answered,
                            Outcome::Failed(error) => AttemptEnd::Failed(error.class),
                        };
                        self.measure_end(ix, &running, end);
                    }
                    let outcome = match outcome {
                        // Nobody told it to stop: without a budget this would go on for ever.
                        Outcome::Failed(error) if !told && error.class == ErrorClass::Cancelled => {
                            Outcome::Failed(ActivityError { class: ErrorClass::Retryable, ..error })
                        }
                        outcome => outcome,
                    };
                    self.ended(ix, attempt, outcome)?;
                }
            }
            Report::Resource { step: ix, attempt, resource, done } => {
                if self.current(ix, attempt) {
                    let step = self.name(ix);
                    self.stage(EventKind::ResourceRecorded { step, resource })?;
                    self.answers.push(Answer::Recorder(done));
                }
            }
            Report::Before { step: ix, attempt, values, done } => {
                if self.current(ix, attempt) {
                    self.weight +=
                        values.values().map(|v| check_payload(v).unwrap_or(MAX_WEIGHT)).sum::<usize>();
                    let step = self.name(ix);
                    self.stage(EventKind::BeforeRecorded { step, values })?;
                    self.answers.push(Answer::Recorder(done));
                }
            }
            Report::Heartbeat { step: ix, attempt, details } => {
                if self.current(ix, attempt) {
                    let step = self.name(ix);
                    self.stage(EventKind::HeartbeatRecorded { step, attempt, details })?;
                }
            }
        }
        Ok(())
    }

    fn ended(&mut self, ix: StepIx, attempt: u32, outcome: Outcome) -> Result<(), EngineError> {
        let step = self.name(ix);
        let now = self.now();
        let phase = self.state.in_flight[&ix].phase;
        let undoing = self.state.rolling_back;
        let outcome = match outcome {
            // Waiting for it is part of all attempts' time together.
            Outcome::Answer(Probe::InProgress { detail }) if over_time(&self.state, ix, now) => {
                Outcome::Failed(ActivityError::retryable("StillInProgress", detail))
            }
            outcome => outcome,
        };
        match outcome {
            Outcome::Done { output, found } => {
                self.weight += check_payload(&output).unwrap_or(MAX_WEIGHT);
                self.stage(EventKind::AttemptSucceeded { step, attempt, output, found })
            }
            Outcome::Undone(undo) => self.stage(EventKind::CompensationSucceeded { step, attempt, undo }),
            Outcome::Failed(error) if error.class == ErrorClass::Cancelled && phase != Phase::Compensate => {
                self.stage(EventKind::AttemptLost { step, attempt, cause: LostCause::Interrupted })
            }
            Outcome::Failed(error) => {
                let next = self.after_failure(ix, &error, now);
                if undoing {
                    self.stage(EventKind::CompensationFailed { step, attempt, error, next })
                } else {
                    self.stage(EventKind::AttemptFailed { step, attempt, error, next })
                }
            }
            Outcome::Answer(answer) => {
                if let Probe::Present { output, .. } = &answer {
                    self.weight += check_payload(output).unwrap_or(MAX_WEIGHT);
                }
                let next = self.after_answer(ix, &answer, now);
                self.stage(EventKind::ProbeAnswered { step, attempt, answer, next })
            }
        }
    }

    fn after_answer(&mut self, ix: StepIx, answer: &Probe<Value>, now: Timestamp) -> Next {
        let Ok(activity) = self.code_of(ix) else { return Next::Now };
        match answer {
            Probe::Absent => after_absent(&self.state, ix, self.scaled(activity.settle()), now),
            Probe::InProgress { .. } => Next::At { at: now + self.scaled(activity.poll_interval()) },
            Probe::Failed { owner: Owner::ThisRun, detail } => {
                let error = ActivityError::retryable("FailedResource", detail.clone());
                match self.after_failure(ix, &error, now) {
                    _ if self.state.rolling_back => Next::Now,
                    // It is replaced, not waited for.
                    Next::At { .. } => Next::Now,
                    next => next,
                }
            }
            Probe::Failed { .. } | Probe::Present { .. } => {
                if self.state.rolling_back {
                    Next::Now
                } else {
                    blocked(&self.state, ix)
                }
            }
        }
    }
}
