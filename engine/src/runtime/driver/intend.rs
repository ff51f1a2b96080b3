//! What the core decided, as events: intents of attempts, waits, lists of maps, ends.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Driver;
use super::attempts::Intended;
use crate::activity::{ActivityError, ActivityResult, ErasedActivity, check_payload};
use crate::event::{EventKind, Next, Phase, Request};
use crate::graph::{LockMode, StepIx, StepKind, truthy};
use crate::id::{LockName, StepName};
use crate::run::decide::{attempt_limit, give_up_for_good};
use crate::run::resolve::resolve;
use crate::run::state::{Ledger, RunState};
use crate::run::verbs::rejected;
use crate::run::{Command, RunStatus, child_name, collect};
use crate::runtime::admission::{Hold, Want};
use crate::runtime::engine::{EngineError, Inner};
use crate::runtime::sub::SubWorkflow;

/// What a step needs of what all runs share.
pub(crate) fn want(state: &RunState, inner: &Inner, ix: StepIx) -> ActivityResult<Want> {
    let step = state.graph.step(ix);
    let mut holds = Vec::with_capacity(step.locks.len());
    for lock in &step.locks {
        let name = match &lock.key {
            None => lock.name.clone(),
            Some(key) => {
                match resolve(state, &inner.functions, key).and_then(|key| keyed(&lock.name, &key)) {
                    Ok(name) => name,
                    // On the way back what the key was made of may be gone: the lock without it is wider, and will do.
                    Err(_) if state.rolling_back => lock.name.clone(),
                    Err(error) => return Err(error),
                }
            }
        };
        holds.push(match lock.mode {
            LockMode::Exclusive => Hold::Exclusive(name),
            LockMode::Shared => Hold::Shared(name),
            LockMode::Permit => Hold::Permit(name),
        });
    }
    Ok(Want {
        run: state.id.clone(),
        step: line(state, ix),
        priority: state.options.priority,
        holds,
        rates: step.rates.iter().map(ToString::to_string).collect(),
        // A sub-workflow does nothing itself; its steps take slots.
        slot: !matches!(step.kind, StepKind::SubWorkflow { .. }),
    })
}

/// Steps of a run that want the same stand in one line, under the number of one of them. Which of them goes first is
/// the run's business: were each to stand for itself, one that is asked about first could wait for ever behind one that
/// is not asked about because of it.
fn line(state: &RunState, ix: StepIx) -> StepIx {
    let step = state.graph.step(ix);
    if step.locks.is_empty() && step.rates.is_empty() {
        return StepIx::MAX - u32::from(matches!(step.kind, StepKind::SubWorkflow { .. }));
    }
    let first = state.graph.steps().iter().position(|other| other.wants_the_same(step));
    first.and_then(|first| StepIx::try_from(first).ok()).unwrap_or(ix)
}

/// The name of a lock with a key.
fn keyed(name: &LockName, key: &Value) -> ActivityResult<LockName> {
    let text = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
    LockName::new(format!("{name}[{text}]")).map_err(|e| {
        ActivityError::terminal("LockKey", format!("the key of lock {name} makes no name: {e}")).no_effect()
    })
}

impl Driver {
    /// Stages what a command of the core leads to.
    pub(super) fn obey(&mut self, command: Command) -> Result<(), EngineError> {
        match command {
            Command::StartAttempt { step, phase } => self.intend(step, phase),
            Command::GoOn { step } => self.go_on(step),
            Command::EndWait { step } => self.end_wait(step),
            Command::StartTooLate { step: ix } => {
                let limit = self.state.graph.step(ix).timeouts.schedule_to_start_ms.unwrap_or_default();
                let why = format!("no attempt could start within {:?}", Duration::from_millis(limit));
                self.fail(ix, ActivityError::terminal("ScheduleToStart", why).no_effect())
            }
            Command::TimeOut => self.stage(EventKind::RunTimedOut {}),
            Command::Pause(reason) => self.stage(EventKind::RunPaused { reason }),
            Command::BeginRollback => {
                let request = Request { by: "dssflow".to_owned(), reason: self.rollback_reason() };
                self.stage(EventKind::RollbackStarted { keep: Vec::new(), to: None, request })?;
                (self.halted, self.grace_ends) = (false, None);
                Ok(())
            }
            Command::Finish(status) => self.finish(status),
            Command::WakeAt(_) => Ok(()),
        }
    }

    fn rollback_reason(&self) -> String {
        match self.state.failed_step {
            Some(ix) => format!("step {} failed", self.name(ix)),
            None => "cancelled".to_owned(),
        }
    }

    /// The end, with what the run returns.
    fn finish(&mut self, status: RunStatus) -> Result<(), EngineError> {
        let returns = self.state.graph.output().filter(|_| status == RunStatus::Succeeded).cloned();
        let answer = returns.map(|binding| {
            let output = resolve(&self.state, &self.inner.functions, &binding)?;
            check_payload(&output).map_err(|why| {
                ActivityError::terminal("OutputTooLarge", format!("what the run returns {why}"))
            })?;
            Ok(output)
        });
        let event = match answer {
            None => EventKind::RunFinished { status, output: None, error: None },
            Some(Ok(output)) => EventKind::RunFinished { status, output: Some(output), error: None },
            Some(Err(error)) => {
                EventKind::RunFinished { status: RunStatus::Failed, output: None, error: Some(error) }
            }
        };
        self.stage(event)
    }

    /// The code that a step calls.
    pub(super) fn code_of(&self, ix: StepIx) -> Result<Arc<dyn ErasedActivity>, EngineError> {
        let step = self.state.graph.step(ix);
        if let StepKind::SubWorkflow { workflow, on_parent_close, .. } = &step.kind {
            let sub = SubWorkflow::new(Arc::downgrade(&self.inner), workflow.clone(), *on_parent_close)
                .with(self.resources.clone(), self.patience);
            return Ok(Arc::new(sub));
        }
        let name = step.kind.activity().expect("only steps that call something are attempted");
        self.inner.activities.get(name).cloned().ok_or_else(|| EngineError::MissingActivity {
            run: self.state.id.clone(),
            activity: name.to_string(),
        })
    }

    /// Asks a step's condition once. False when the step was skipped or failed by it.
    fn condition_holds(&mut self, ix: StepIx) -> Result<bool, EngineError> {
        if self.state.steps[ix as usize].asked {
            return Ok(true);
        }
        let step = self.state.graph.step(ix);
        let Some(when) = &step.when else { return Ok(true) };
        match resolve(&self.state, &self.inner.functions, when) {
            Ok(value) if truthy(&value) => Ok(true),
            Ok(_) => {
                let step = step.name.clone();
                self.stage(EventKind::StepSkipped { step, request: None })?;
                Ok(false)
            }
            Err(error) => {
                self.fail(ix, error)?;
                Ok(false)
            }
        }
    }

    /// Stages the intent of an attempt, or what follows when it cannot even start.
    fn intend(&mut self, ix: StepIx, phase: Phase) -> Result<(), EngineError> {
        let mut input = None;
        if phase == Phase::Execute {
            if !self.condition_holds(ix)? {
                return Ok(());
            }
            match self.resolve_input(ix) {
                Ok((value, size)) => {
                    self.weight += size;
                    if self.state.steps[ix as usize].input.as_deref() != Some(&value) {
                        input = Some(value);
                    }
                }
                Err(error) => return self.fail(ix, error),
            }
        }
        let now = self.now();
        let Some(grant) = self.granted.remove(&ix) else {
            // Only what cannot be asked for comes here without.
            return match self.want(ix) {
                Ok(_) => Ok(()),
                Err(error) => self.fail(ix, error),
            };
        };
        let activity = self.code_of(ix)?;
        let s = &self.state.steps[ix as usize];
        let deadline = attempt_limit(&self.state, ix, now).map(|limit| now + limit);
        // A new input makes another thing: a service that knows the token would answer with the old one.
        let changed = input.is_some() && s.intent && !matches!(s.ledger, Ledger::NoEffect | Ledger::NotOurs);
        self.stage(EventKind::AttemptStarted {
            step: self.name(ix),
            attempt: s.attempt + 1,
            phase,
            generation: s.generation + u32::from(changed),
            effect: activity.effect(),
            probed: activity.has_probe(),
            owns_nothing: !activity.owns(),
            input,
            deadline,
        })?;
        self.to_start.push(Intended { step: ix, phase, activity, grant });
        Ok(())
    }

    /// The input of a step and about how many bytes it has.
    fn resolve_input(&self, ix: StepIx) -> ActivityResult<(Value, usize)> {
        let binding =
            self.state.graph.step(ix).kind.bindings().expect("only steps with an input are attempted");
        let value = resolve(&self.state, &self.inner.functions, binding)?;
        match check_payload(&value) {
            Ok(size) => Ok((value, size)),
            Err(why) => Err(ActivityError::terminal("InputTooLarge", format!("the input {why}")).no_effect()),
        }
    }

    /// A step fails without an attempt, so that the history tells it.
    fn fail(&mut self, ix: StepIx, error: ActivityError) -> Result<(), EngineError> {
        let next = match give_up_for_good(&self.state, ix) {
            _ if self.state.rolling_back => Next::Stuck,
            next => next,
        };
        self.stage(EventKind::StepFailed { step: self.name(ix), error, next })
    }

    /// Lets a step go on that makes no attempts.
    fn go_on(&mut self, ix: StepIx) -> Result<(), EngineError> {
        if !self.condition_holds(ix)? {
            return Ok(());
        }
        let now = self.now();
        let kind = self.state.graph.step(ix).kind.clone();
        match kind {
            StepKind::Gate { timeout_ms, .. } | StepKind::Signal { timeout_ms, .. } => {
                let until = timeout_ms.map(|ms| now + self.scaled(Duration::from_millis(ms)));
                self.stage(EventKind::WaitStarted { step: self.name(ix), until })
            }
            StepKind::Sleep { duration_ms } => {
                let resolved = resolve(&self.state, &self.inner.functions, &duration_ms);
                match resolved.and_then(|value| {
                    value.as_u64().ok_or_else(|| {
                        let why = format!("a sleep takes a whole number of milliseconds, not {value}");
                        ActivityError::terminal("InputMismatch", why).no_effect()
                    })
                }) {
                    Ok(ms) => {
                        let until = Some(now + self.scaled(Duration::from_millis(ms)));
                        self.stage(EventKind::WaitStarted { step: self.name(ix), until })
                    }
                    Err(error) => self.fail(ix, error),
                }
            }
            StepKind::Map { .. } if self.state.maps.contains_key(&ix) => {
                let output = collect(&self.state, ix);
                match check_payload(&output) {
                    Ok(size) => {
                        self.weight += size;
                        self.stage(EventKind::MapCollected { step: self.name(ix) })
                    }
                    Err(why) => {
                        let why = format!("what its children gave {why} together");
                        self.fail(ix, ActivityError::terminal("OutputTooLarge", why).no_effect())
                    }
                }
            }
            StepKind::Map { .. } => self.expand(ix),
            StepKind::Activity { .. } | StepKind::SubWorkflow { .. } => {
                unreachable!("these are attempted")
            }
        }
    }

    /// Reads the list of a map.
    fn expand(&mut self, ix: StepIx) -> Result<(), EngineError> {
        let name = self.name(ix);
        let listed = self.resolve_input(ix).and_then(|(value, size)| match value {
            Value::Array(items) => Ok((items, size)),
            other => {
                let what = match other {
                    Value::Null => "null",
                    Value::Bool(_) => "a boolean",
                    Value::Number(_) => "a number",
                    Value::String(_) => "a text",
                    Value::Array(_) | Value::Object(_) => "an object",
                };
                Err(ActivityError::terminal("NotAList", format!("a map takes a list, not {what}"))
                    .no_effect())
            }
        });
        let (items, size) = match listed {
            Ok(listed) => listed,
            Err(error) => return self.fail(ix, error),
        };
        self.weight += size;
        let keys = keys(&name, &items);
        let event = EventKind::MapExpanded { step: name, keys, items };
        match self.stage(event) {
            Err(EngineError::Illegal { why, .. }) => {
                self.fail(ix, ActivityError::terminal("MapTooLarge", why).no_effect())
            }
            other => other,
        }
    }

    /// The time a step waited for has come.
    fn end_wait(&mut self, ix: StepIx) -> Result<(), EngineError> {
        let step = self.name(ix);
        match self.state.graph.step(ix).kind.clone() {
            StepKind::Sleep { .. } => self.stage(EventKind::WaitEnded { step, output: Value::Null }),
            StepKind::Signal { default: Some(output), .. } => {
                self.stage(EventKind::WaitEnded { step, output })
            }
            StepKind::Gate { default: Some(approved), timeout_ms, .. } => {
                let request = Request {
                    by: "timeout".to_owned(),
                    reason: format!(
                        "nobody decided within {:?}",
                        Duration::from_millis(timeout_ms.unwrap_or_default())
                    ),
                };
                let next = if approved { None } else { rejected(&self.state, ix) };
                self.stage(EventKind::GateDecided { step, approved, request, next })
            }
            StepKind::Gate { .. } => {
                let error = ActivityError::terminal("GateTimeout", "nobody decided in time");
                self.fail(ix, error.no_effect())
            }
            StepKind::Signal { signal, .. } => {
                let error =
                    ActivityError::terminal("SignalTimeout", format!("no signal {signal} came in time"));
                self.fail(ix, error.no_effect())
            }
            StepKind::Activity { .. } | StepKind::SubWorkflow { .. } | StepKind::Map { .. } => {
                unreachable!("these do not wait for a time")
            }
        }
    }
}

/// What tells the children of a map apart: the items themselves where they are different texts that make names.
pub(crate) fn keys(map: &StepName, items: &[Value]) -> Vec<String> {
    let texts: Option<Vec<String>> = items
        .iter()
        .map(|item| item.as_str().filter(|text| child_name(map, text).is_ok()).map(str::to_owned))
        .collect();
    let texts =
        texts.filter(|texts| texts.iter().collect::<std::collections::BTreeSet<_>>().len() == texts.len());
    texts.unwrap_or_else(|| (0..items.len()).map(|n| n.to_string()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn children_are_named_after_their_items_where_that_tells_them_apart() {
        let map = StepName::new("m").unwrap();
        let keys = |items: Value| keys(&map, items.as_array().unwrap());
        assert_eq!(keys(json!(["eu-west-1", "us-east-1"])), ["eu-west-1", "us-east-1"]);
        assert_eq!(keys(json!(["a", "a"])), ["0", "1"]);
        assert_eq!(keys(json!(["a", "Not a name"])), ["0", "1"]);
        assert_eq!(keys(json!([{"x": 1}, 7])), ["0", "1"]);
        assert!(keys(json!([])).is_empty());
    }
}
