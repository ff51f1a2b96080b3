//! The only way state changes: one event at a time. An event that does not fit is an error and changes nothing.

use std::sync::Arc;

use crate::activity::{Effect, Owner, Probe, Undo};
use crate::event::{Event, EventKind, LostCause, Next, PauseKind, PauseReason, Phase};
use crate::graph::{Graph, LockMode, StepIx};
use crate::id::{RunId, StepName};
use crate::run::compensate;
use crate::run::state::{Halt, InFlight, Ledger, RunState, StepState, UndoRole};
use crate::run::{RunStatus, StepStatus};

/// An event that does not fit the state it met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {seq} does not fit: {why}")]
pub struct IllegalEvent {
    /// The event's number.
    pub seq: u64,
    /// Both sides of the mismatch.
    pub why: String,
}

/// Makes the state of a new run from its first event.
///
/// # Errors
/// When the event is not `RunCreated` number 1, or names another graph.
pub fn create(id: RunId, graph: Graph, event: &Event) -> Result<RunState, IllegalEvent> {
    let refuse = |why: String| Err(IllegalEvent { seq: event.seq, why });
    let EventKind::RunCreated {
        workflow,
        workflow_version,
        site,
        graph: hash,
        input,
        options,
        labels,
        request,
        ..
    } = &event.kind
    else {
        return refuse("a history starts with run_created".to_owned());
    };
    if event.seq != 1 {
        return refuse("run_created is event 1".to_owned());
    }
    if hash != graph.hash() {
        return refuse(format!("the run was made with graph {}, not {}", hash.0, graph.hash().0));
    }
    let total = StepIx::try_from(graph.len()).expect("a checked graph");
    let mut state = RunState {
        id,
        workflow: workflow.clone(),
        workflow_version: *workflow_version,
        site: site.clone(),
        input: Arc::new(input.clone()),
        options: options.clone(),
        labels: labels.clone(),
        request: request.clone(),
        seq: 1,
        created: event.at,
        updated: event.at,
        suspended_ms: 0,
        steps: (0..total)
            .map(|ix| new_step(u32::try_from(graph.dependencies(ix).len()).expect("limited")))
            .collect(),
        ready: Default::default(),
        timers: Default::default(),
        in_flight: Default::default(),
        locks: Default::default(),
        done: 0,
        rolling_back: false,
        undo_left: 0,
        stuck: Default::default(),
        halt: None,
        pause_reason: None,
        paused: None,
        paused_at: None,
        finished: None,
        failed_step: None,
        graph,
    };
    for ix in 0..total {
        if state.steps[ix as usize].missing == 0 {
            make_ready(&mut state, ix);
        }
    }
    Ok(state)
}

fn new_step(missing: u32) -> StepState {
    StepState {
        status: StepStatus::Pending,
        missing,
        attempt: 0,
        failures: 0,
        throttles: 0,
        generation: 1,
        ledger: Ledger::Untouched,
        intent: false,
        effect: Effect::Idempotent,
        probed: false,
        replacing: false,
        unproven: false,
        input: None,
        output: None,
        resources: Vec::new(),
        before: Default::default(),
        heartbeat: None,
        error: None,
        wake: None,
        budget_start_ms: None,
        started: None,
        ended: None,
        undo: UndoRole::None,
        undo_missing: 0,
        kept: None,
    }
}

/// Takes in one fact.
///
/// # Errors
/// [`IllegalEvent`] when it does not fit; the state stays as it was.
pub fn apply(state: &mut RunState, event: &Event) -> Result<(), IllegalEvent> {
    check(state, event).map_err(|why| IllegalEvent { seq: event.seq, why })?;
    state.seq = event.seq;
    state.updated = event.at;
    change(state, event);
    Ok(())
}

/// Everything that can be wrong, before anything is touched.
fn check(state: &RunState, event: &Event) -> Result<(), String> {
    if event.seq != state.seq + 1 {
        return Err(format!("the run is at event {}", state.seq));
    }
    if event.at < state.updated {
        return Err(format!("it is dated {}, before the last event at {}", event.at, state.updated));
    }
    let step = event.kind.step().map(|name| find(state, name)).transpose()?;
    let in_flight = |attempt: u32, phases: &[Phase]| {
        let ix = step.expect("asked only for events about a step");
        match state.in_flight.get(&ix) {
            Some(f) if f.attempt == attempt && phases.contains(&f.phase) => Ok(()),
            Some(f) => {
                Err(format!("attempt {} ({:?}) of {} is under way", f.attempt, f.phase, name(state, ix)))
            }
            None => Err(format!("no attempt of {} is under way", name(state, ix))),
        }
    };
    if let EventKind::RollbackStarted { keep, .. } = &event.kind {
        keep.iter().try_for_each(|step| find(state, step).map(drop))?;
    }
    if let Some(end) = state.finished {
        let allowed = match &event.kind {
            EventKind::RunResumed { .. } => {
                matches!(end, RunStatus::Failed | RunStatus::Cancelled | RunStatus::TimedOut)
            }
            EventKind::RollbackStarted { .. } => {
                matches!(
                    end,
                    RunStatus::Succeeded | RunStatus::Failed | RunStatus::Cancelled | RunStatus::TimedOut
                )
            }
            EventKind::RollbackRetried { .. } => end == RunStatus::RollbackStuck,
            EventKind::RunRecovered { .. } => true,
            _ => false,
        };
        return if allowed { Ok(()) } else { Err(format!("the run has ended: {end}")) };
    }
    match &event.kind {
        EventKind::RunCreated { .. } => Err("the run exists already".to_owned()),
        EventKind::RunRecovered { .. }
        | EventKind::PauseRequested { .. }
        | EventKind::CancelRequested { .. }
        | EventKind::ResourceRecorded { .. }
        | EventKind::BeforeRecorded { .. } => Ok(()),
        EventKind::AttemptStarted { attempt, phase, .. } => {
            let ix = step.expect("has a step");
            let s = &state.steps[ix as usize];
            if state.in_flight.contains_key(&ix) {
                return Err(format!("an attempt of {} is under way", name(state, ix)));
            }
            if state.paused.is_some() {
                return Err("the run is paused".to_owned());
            }
            if *attempt != s.attempt + 1 {
                return Err(format!("{} has had {} attempts", name(state, ix), s.attempt));
            }
            let startable = match phase {
                Phase::Execute => !state.rolling_back && s.missing == 0,
                Phase::Probe => matches!(s.ledger, Ledger::Unknown { .. }),
                Phase::Compensate => state.rolling_back && s.undo == UndoRole::Wanted && s.undo_missing == 0,
            };
            let waiting = matches!(
                s.status,
                StepStatus::Ready | StepStatus::Backoff | StepStatus::Waiting | StepStatus::Compensating
            ) || (state.rolling_back && s.undo == UndoRole::Wanted);
            if startable && waiting {
                Ok(())
            } else {
                Err(format!("{} is {} and cannot start to {phase:?}", name(state, ix), s.status))
            }
        }
        EventKind::AttemptSucceeded { attempt, .. } => in_flight(*attempt, &[Phase::Execute, Phase::Probe]),
        EventKind::ProbeAnswered { attempt, .. } => in_flight(*attempt, &[Phase::Execute, Phase::Probe]),
        EventKind::AttemptFailed { attempt, .. } => in_flight(*attempt, &[Phase::Execute, Phase::Probe]),
        EventKind::AttemptLost { attempt, .. } | EventKind::HeartbeatRecorded { attempt, .. } => {
            in_flight(*attempt, &[Phase::Execute, Phase::Probe, Phase::Compensate])
        }
        EventKind::CompensationSucceeded { .. } if !state.rolling_back => {
            Err("the run is not being rolled back".to_owned())
        }
        EventKind::CompensationSucceeded { attempt, .. } => {
            in_flight(*attempt, &[Phase::Compensate, Phase::Probe])
        }
        EventKind::CompensationFailed { .. } if !state.rolling_back => {
            Err("the run is not being rolled back".to_owned())
        }
        EventKind::CompensationFailed { attempt, .. } => {
            in_flight(*attempt, &[Phase::Compensate, Phase::Probe])
        }
        EventKind::StepSkipped { .. } => {
            let ix = step.expect("has a step");
            let s = &state.steps[ix as usize];
            if s.status == StepStatus::Ready && s.input.is_none() {
                Ok(())
            } else {
                Err(format!("{} is {} and cannot be skipped", name(state, ix), s.status))
            }
        }
        EventKind::RunPaused { .. } => {
            idle(state)?;
            if state.paused.is_some() { Err("the run is paused already".to_owned()) } else { Ok(()) }
        }
        EventKind::RunResumed { .. } => {
            // A crash may have come between the wish to stop and the stop.
            if state.paused.is_some() {
                Ok(())
            } else if matches!(state.halt, Some(Halt::Pause | Halt::Fail)) {
                idle(state)
            } else {
                Err("the run is not paused".to_owned())
            }
        }
        EventKind::RollbackStarted { .. } => {
            idle(state)?;
            if state.rolling_back { Err("the run is being rolled back already".to_owned()) } else { Ok(()) }
        }
        EventKind::RollbackRetried { .. } => Err("the rollback is not stuck".to_owned()),
        EventKind::RunFinished { status } => {
            idle(state)?;
            if status.is_end() { Ok(()) } else { Err(format!("{status} is no end")) }
        }
    }
}

fn idle(state: &RunState) -> Result<(), String> {
    match state.in_flight.keys().next() {
        None => Ok(()),
        Some(&ix) => Err(format!("an attempt of {} is under way", name(state, ix))),
    }
}

fn find(state: &RunState, name: &StepName) -> Result<StepIx, String> {
    state.graph.index_of(name).ok_or_else(|| format!("step {name} is not in the graph"))
}

fn name(state: &RunState, ix: StepIx) -> &StepName {
    &state.graph.step(ix).name
}

fn change(state: &mut RunState, event: &Event) {
    let at = event.at;
    let ix = event.kind.step().map(|n| state.graph.index_of(n).expect("checked"));
    match &event.kind {
        EventKind::RunCreated { .. } => unreachable!("refused by check"),
        EventKind::RunRecovered { gap_ms, .. } => {
            // A pause counts from its start to its end, whoever owned the run meanwhile.
            if state.paused.is_none() && state.finished.is_none() {
                state.suspended_ms = state.suspended_ms.saturating_add(*gap_ms);
            }
            // The clock may have been set meanwhile: "absent" has to settle within one ownership.
            for s in &mut state.steps {
                if matches!(s.ledger, Ledger::Unknown { .. }) {
                    s.ledger = Ledger::Unknown { absent_since: None };
                }
            }
        }
        EventKind::AttemptStarted { attempt, phase, generation, effect, probed, input, .. } => {
            let ix = ix.expect("has a step");
            unschedule(state, ix);
            hold_locks(state, ix);
            let active = state.active_ms(at);
            state.in_flight.insert(ix, InFlight { attempt: *attempt, phase: *phase });
            let s = &mut state.steps[ix as usize];
            s.attempt = *attempt;
            s.generation = *generation;
            s.effect = *effect;
            s.probed = *probed;
            if let Some(input) = input {
                s.input = Some(Arc::new(input.clone()));
            }
            s.started.get_or_insert(at);
            s.budget_start_ms.get_or_insert(active);
            match phase {
                Phase::Execute => {
                    s.intent = true;
                    s.ledger = Ledger::Intent;
                    s.status = StepStatus::Running;
                }
                Phase::Probe => {
                    s.status =
                        if s.undo == UndoRole::None { StepStatus::Running } else { StepStatus::Compensating }
                }
                Phase::Compensate => s.status = StepStatus::Compensating,
            }
        }
        EventKind::AttemptSucceeded { output, found, .. } => {
            let ix = ix.expect("has a step");
            land(state, ix);
            let ours = matches!(found, None | Some(Owner::ThisRun));
            let s = &mut state.steps[ix as usize];
            s.output = Some(Arc::new(output.clone()));
            s.error = None;
            (s.replacing, s.unproven) = (false, false);
            s.ledger = if ours { Ledger::Done } else { Ledger::NotOurs };
            if state.rolling_back {
                // A probe before the undo: now it is known what there is to take back.
                if ours || s.has_records() {
                    schedule(state, ix);
                } else {
                    let s = &mut state.steps[ix as usize];
                    s.status = StepStatus::Adopted;
                    compensate::resolve(state, ix);
                }
            } else {
                s.status = if ours { StepStatus::Succeeded } else { StepStatus::Adopted };
                s.ended = Some(at);
                finish_step(state, ix);
            }
        }
        EventKind::AttemptFailed { error, next, .. } => {
            let ix = ix.expect("has a step");
            let phase = land(state, ix);
            let s = &mut state.steps[ix as usize];
            count_failure(s, error.class);
            s.error = Some(error.clone());
            if phase == Phase::Execute {
                s.ledger = after_failure(s, error.no_effect);
            }
            follow(state, ix, *next, at);
        }
        EventKind::AttemptLost { cause, .. } => {
            let ix = ix.expect("has a step");
            let phase = land(state, ix);
            let s = &mut state.steps[ix as usize];
            if phase == Phase::Execute {
                s.ledger = after_failure(s, false);
            }
            // Neither a crash of ours nor being told to stop is the step's failure: no budget is used.
            match cause {
                LostCause::Crash | LostCause::Interrupted => schedule(state, ix),
            }
        }
        EventKind::ProbeAnswered { answer, next, .. } => {
            let ix = ix.expect("has a step");
            land(state, ix);
            let s = &mut state.steps[ix as usize];
            match answer {
                Probe::Absent => match s.ledger {
                    Ledger::Unknown { absent_since: Some(_) } if !matches!(next, Next::At { .. }) => {
                        s.ledger = Ledger::NoEffect;
                    }
                    Ledger::Unknown { absent_since: Some(_) } => {}
                    _ => s.ledger = Ledger::Unknown { absent_since: Some(at) },
                },
                Probe::InProgress { .. } => s.ledger = Ledger::Unknown { absent_since: None },
                Probe::Failed { owner, detail } => {
                    s.failures += 1;
                    s.error =
                        Some(crate::activity::ActivityError::retryable("FailedResource", detail.clone()));
                    if *owner == Owner::ThisRun {
                        s.ledger = if state.rolling_back { Ledger::Done } else { Ledger::NoEffect };
                        if !state.rolling_back {
                            s.generation += 1;
                            s.replacing = true;
                            s.heartbeat = None;
                        }
                    } else {
                        s.ledger = Ledger::NotOurs;
                    }
                }
                Probe::Present { owner, .. } => {
                    // Present and not to be had: foreign, and the step may not adopt it.
                    s.ledger = if *owner == Owner::ThisRun { Ledger::Done } else { Ledger::NotOurs };
                    s.error = Some(crate::activity::ActivityError::needs_human(
                        "ForeignResource",
                        "something of that name is there and was not made by this site",
                    ));
                }
            }
            if state.rolling_back {
                compensate::after_probe(state, ix, *next);
            } else {
                follow(state, ix, *next, at);
                let s = &mut state.steps[ix as usize];
                if s.wake.is_some() {
                    s.status = StepStatus::Waiting;
                }
            }
        }
        EventKind::ResourceRecorded { resource, .. } => {
            let s = &mut state.steps[ix.expect("has a step") as usize];
            if !s.resources.contains(resource) {
                s.resources.push(resource.clone());
            }
        }
        EventKind::BeforeRecorded { values, .. } => {
            let s = &mut state.steps[ix.expect("has a step") as usize];
            for (key, value) in values {
                s.before.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        EventKind::HeartbeatRecorded { details, .. } => {
            state.steps[ix.expect("has a step") as usize].heartbeat = Some(details.clone());
        }
        EventKind::StepSkipped { .. } => {
            let ix = ix.expect("has a step");
            unschedule(state, ix);
            let s = &mut state.steps[ix as usize];
            s.status = StepStatus::Skipped;
            s.ended = Some(at);
            finish_step(state, ix);
        }
        EventKind::PauseRequested { request } => {
            raise(state, Halt::Pause);
            let by = if request.by.is_empty() { "somebody" } else { &request.by };
            let why = if request.reason.is_empty() { String::new() } else { format!(": {}", request.reason) };
            state.pause_reason.get_or_insert(PauseReason {
                kind: PauseKind::Requested,
                step: None,
                message: format!("paused by {by}{why}"),
            });
        }
        EventKind::RunPaused { reason } => {
            state.paused = Some(reason.clone());
            state.paused_at = Some(at);
            state.pause_reason = None;
        }
        EventKind::RunResumed { .. } => {
            if let Some(since) = state.paused_at.take() {
                state.suspended_ms += u64::try_from(at.since(since).as_millis()).unwrap_or(u64::MAX);
            } else if state.finished.is_some() {
                state.suspended_ms += u64::try_from(at.since(state.updated).as_millis()).unwrap_or(0);
            }
            state.paused = None;
            state.pause_reason = None;
            state.halt = None;
            state.finished = None;
            state.failed_step = None;
            fresh_budgets(state);
        }
        EventKind::CancelRequested { mode, .. } => {
            state.paused = None;
            state.paused_at = None;
            if !state.rolling_back {
                raise(state, Halt::Cancel((*mode).into()));
            }
        }
        EventKind::RollbackStarted { keep, .. } => {
            state.paused = None;
            state.paused_at = None;
            // Somebody asked for a pause while the run was about to turn round: it pauses before the first undo.
            let pause = matches!(state.halt, Some(Halt::Rollback | Halt::Cancel(_)))
                && state.pause_reason.as_ref().is_some_and(|r| r.kind == PauseKind::Requested);
            if !pause {
                state.pause_reason = None;
            }
            state.halt = pause.then_some(Halt::Pause);
            state.finished = None;
            compensate::start(state, keep);
        }
        EventKind::CompensationSucceeded { undo, .. } => {
            let ix = ix.expect("has a step");
            land(state, ix);
            let s = &mut state.steps[ix as usize];
            s.error = None;
            s.ended = Some(at);
            match undo {
                Undo::Undone | Undo::NothingToDo => {
                    s.status = StepStatus::Compensated;
                    s.ledger = Ledger::NoEffect;
                    (s.replacing, s.unproven) = (false, false);
                    s.resources.clear();
                    s.before.clear();
                }
                Undo::Kept { reason } => {
                    s.status = StepStatus::Kept;
                    s.kept = Some(reason.clone());
                }
            }
            compensate::resolve(state, ix);
        }
        EventKind::CompensationFailed { error, next, .. } => {
            let ix = ix.expect("has a step");
            land(state, ix);
            let s = &mut state.steps[ix as usize];
            count_failure(s, error.class);
            s.error = Some(error.clone());
            s.status = StepStatus::Compensating;
            match next {
                Next::At { .. } | Next::Now => follow(state, ix, *next, at),
                Next::Pause => {
                    schedule(state, ix);
                    pause_for(state, ix, error.class, error.to_string());
                }
                Next::Fail | Next::Rollback | Next::Stuck => {
                    s.status = StepStatus::CompensationFailed;
                    s.undo = UndoRole::Stuck;
                    s.ended = Some(at);
                    state.undo_left -= 1;
                    state.stuck.insert(ix);
                    state.failed_step = Some(ix);
                }
            }
        }
        EventKind::RollbackRetried { .. } => {
            state.finished = None;
            state.failed_step = None;
            for ix in std::mem::take(&mut state.stuck) {
                let s = &mut state.steps[ix as usize];
                s.undo = UndoRole::Wanted;
                s.status = StepStatus::Compensating;
                (s.failures, s.throttles, s.budget_start_ms) = (0, 0, None);
                state.undo_left += 1;
                schedule(state, ix);
            }
        }
        EventKind::RunFinished { status } => {
            state.finished = Some(*status);
            state.halt = None;
            if *status == RunStatus::Cancelled {
                for s in &mut state.steps {
                    if matches!(s.status, StepStatus::Ready | StepStatus::Backoff | StepStatus::Waiting) {
                        s.status = StepStatus::Cancelled;
                    }
                }
            }
            if !matches!(status, RunStatus::RollbackStuck | RunStatus::RolledBack) {
                state.ready.clear();
                state.timers.clear();
            }
        }
    }
}

/// What is known after an attempt to execute that gave no answer.
fn after_failure(s: &mut StepState, no_effect: bool) -> Ledger {
    if s.effect == Effect::Read || (no_effect && !s.unproven) {
        return Ledger::NoEffect;
    }
    // Without a probe nothing but success tells what an earlier attempt did.
    s.unproven = !s.probed;
    Ledger::Unknown { absent_since: None }
}

fn count_failure(s: &mut StepState, class: crate::activity::ErrorClass) {
    use crate::activity::ErrorClass as C;
    match class {
        C::Throttled => s.throttles += 1,
        C::Credentials | C::Cancelled => {}
        C::Retryable | C::Terminal | C::NeedsHuman => {
            s.failures += 1;
            s.throttles = 0;
        }
    }
}

/// Puts a step where `next` says.
fn follow(state: &mut RunState, ix: StepIx, next: Next, now: crate::time::Timestamp) {
    match next {
        Next::At { at } => {
            let s = &mut state.steps[ix as usize];
            s.wake = Some(at);
            if s.status != StepStatus::Compensating {
                s.status = StepStatus::Backoff;
            }
            state.timers.insert((at, ix));
        }
        Next::Now => schedule(state, ix),
        Next::Pause => {
            let s = &mut state.steps[ix as usize];
            s.status = StepStatus::Failed;
            let (class, message) =
                s.error.as_ref().map_or((crate::activity::ErrorClass::NeedsHuman, String::new()), |e| {
                    (e.class, e.to_string())
                });
            pause_for(state, ix, class, message);
        }
        Next::Fail | Next::Rollback | Next::Stuck => {
            let s = &mut state.steps[ix as usize];
            s.status = StepStatus::Failed;
            s.ended = Some(now);
            state.failed_step = Some(ix);
            raise(state, if next == Next::Rollback { Halt::Rollback } else { Halt::Fail });
        }
    }
}

fn pause_for(state: &mut RunState, ix: StepIx, class: crate::activity::ErrorClass, message: String) {
    use crate::activity::ErrorClass as C;
    let kind = match class {
        C::Credentials => PauseKind::Credentials,
        C::NeedsHuman => PauseKind::NeedsHuman,
        C::Retryable | C::Throttled | C::Terminal | C::Cancelled => PauseKind::Exhausted,
    };
    raise(state, Halt::Pause);
    state.failed_step = Some(ix);
    let step = Some(name(state, ix).clone());
    state.pause_reason = Some(PauseReason { kind, step, message });
}

fn raise(state: &mut RunState, halt: Halt) {
    if state.halt.as_ref().is_none_or(|h| *h < halt) {
        state.halt = Some(halt);
    }
}

/// Failed and cancelled steps may start again, with fresh budgets; so may those that wait, at once.
fn fresh_budgets(state: &mut RunState) {
    for ix in 0..StepIx::try_from(state.steps.len()).expect("a checked graph") {
        let s = &mut state.steps[ix as usize];
        (s.failures, s.throttles, s.budget_start_ms) = (0, 0, None);
        let again = matches!(
            s.status,
            StepStatus::Failed
                | StepStatus::Cancelled
                | StepStatus::Ready
                | StepStatus::Backoff
                | StepStatus::Waiting
        );
        if again && s.missing == 0 && !state.rolling_back {
            // What a probe found foreign is looked at again: a person may have moved it.
            if s.ledger == Ledger::NotOurs {
                s.ledger = Ledger::NoEffect;
            }
            s.ended = None;
            schedule(state, ix);
        } else if state.rolling_back && s.undo == UndoRole::Wanted && s.undo_missing == 0 {
            schedule(state, ix);
        }
    }
}

/// Removes a step from the sets that decide reads.
fn unschedule(state: &mut RunState, ix: StepIx) {
    state.ready.remove(&(order(state, ix), ix));
    if let Some(wake) = state.steps[ix as usize].wake.take() {
        state.timers.remove(&(wake, ix));
    }
}

/// Makes a step startable at once, in the direction the run goes.
pub(super) fn schedule(state: &mut RunState, ix: StepIx) {
    unschedule(state, ix);
    let key = (order(state, ix), ix);
    state.ready.insert(key);
    let s = &mut state.steps[ix as usize];
    s.status = if s.undo == UndoRole::None { StepStatus::Ready } else { StepStatus::Compensating };
}

fn make_ready(state: &mut RunState, ix: StepIx) {
    schedule(state, ix);
}

fn order(state: &RunState, ix: StepIx) -> u32 {
    if state.rolling_back { u32::MAX - state.graph.rank(ix) } else { state.graph.rank(ix) }
}

/// Ends the attempt under way and gives its locks back; says what it was for.
fn land(state: &mut RunState, ix: StepIx) -> Phase {
    let flight = state.in_flight.remove(&ix).expect("checked");
    let graph = state.graph.clone();
    for lock in &graph.step(ix).locks {
        if let Some(held) = state.locks.get_mut(&lock.name) {
            match lock.mode {
                LockMode::Exclusive => held.exclusive = false,
                LockMode::Shared => held.shared -= 1,
            }
            if !held.exclusive && held.shared == 0 {
                state.locks.remove(&lock.name);
            }
        }
    }
    flight.phase
}

fn hold_locks(state: &mut RunState, ix: StepIx) {
    let graph = state.graph.clone();
    for lock in &graph.step(ix).locks {
        let held = state.locks.entry(lock.name.clone()).or_default();
        match lock.mode {
            LockMode::Exclusive => held.exclusive = true,
            LockMode::Shared => held.shared += 1,
        }
    }
}

/// A step is done: those that waited only for it may start.
fn finish_step(state: &mut RunState, ix: StepIx) {
    state.done += 1;
    let graph = state.graph.clone();
    for &next in graph.dependents(ix) {
        let s = &mut state.steps[next as usize];
        s.missing -= 1;
        if s.missing == 0 && s.status == StepStatus::Pending {
            make_ready(state, next);
        }
    }
}
