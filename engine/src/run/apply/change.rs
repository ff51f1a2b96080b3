//! What each event does to the state. Everything was checked; nothing here can fail.

use std::sync::Arc;

use serde_json::json;

use crate::activity::{ActivityError, Effect, Owner, Probe, Undo};
use crate::event::{CancelMode, Event, EventKind, LostCause, Next, PauseKind, PauseReason, Phase, UndoMark};
use crate::graph::{StepIx, StepKind};
use crate::run::apply::steps::{
    count_failure, finish_step, follow, fresh_budget, land, pause_for, raise, unschedule, wait,
};
use crate::run::apply::{again, maps, restore, schedule, upgrade};
use crate::run::compensate;
use crate::run::state::{Halt, Imported, InFlight, Ledger, RunState, StepState, UndoRole};
use crate::run::verbs::FOREIGN;
use crate::run::{RunStatus, StepStatus};

pub(super) fn change(state: &mut RunState, event: &Event) {
    let at = event.at;
    let ix = event.kind.step().map(|n| state.graph.index_of(n).expect("checked"));
    match &event.kind {
        EventKind::RunCreated { .. } => unreachable!("refused by check"),
        EventKind::RunRecovered { gap_ms, .. } => {
            // Where nothing acted, nothing of the run's can have ended the process.
            if !state.in_flight.is_empty() {
                state.recoveries += 1;
            }
            // A pause counts from its start to its end, whoever owned the run meanwhile.
            if state.paused.is_none() && state.finished.is_none() {
                state.suspended_ms = state.suspended_ms.saturating_add(*gap_ms);
            }
            again::unsettle(state);
        }
        EventKind::RunRestored { backup, gap_ms, .. } => restore::restored(state, *backup, *gap_ms, at),
        EventKind::RunImported { store, backup, .. } => {
            restore::imported(state, Imported { store: store.clone(), backup: *backup }, at);
        }
        EventKind::AttemptStarted {
            attempt, phase, generation, effect, probed, owns_nothing, input, ..
        } => {
            let ix = ix.expect("has a step");
            unschedule(state, ix);
            let active = state.active_ms(at);
            state.in_flight.insert(ix, InFlight { attempt: *attempt, phase: *phase });
            let s = &mut state.steps[ix as usize];
            s.attempt = *attempt;
            if *generation != s.generation {
                s.generation = *generation;
                s.heartbeat = None;
            }
            s.effect = *effect;
            s.probed = *probed;
            s.owns_nothing = *owns_nothing;
            if let Some(input) = input {
                let old = s.input.replace(Arc::new(input.clone()));
                // What was made with it may still be there, under names that only the old input tells.
                let kept = s.intent && (s.has_records() || !matches!(s.ledger, Ledger::NoEffect));
                s.past_inputs.extend(old.filter(|_| kept));
            }
            s.started.get_or_insert(at);
            s.budget_start_ms.get_or_insert(active);
            match phase {
                Phase::Execute => {
                    (s.intent, s.asked) = (true, true);
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
                finish_step(state, ix, at);
            }
        }
        EventKind::AttemptFailed { error, next, .. } => {
            let ix = ix.expect("has a step");
            let phase = land(state, ix);
            count_failure(state, ix, error);
            let s = &mut state.steps[ix as usize];
            s.error = Some(error.clone());
            if phase == Phase::Execute {
                s.ledger = after_failure(s, error.no_effect);
            }
            follow(state, ix, *next, at);
        }
        EventKind::AttemptLost { cause, .. } => {
            // Neither a crash of ours nor being told to stop is the step's failure: no budget is used.
            match cause {
                LostCause::Crash | LostCause::Interrupted => lose(state, ix.expect("has a step")),
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
                        let made = s.resources.iter().any(|r| r.generation == s.generation);
                        let made = made || s.output.is_some() || state.in_doubt(ix);
                        if !state.rolling_back && made {
                            // What this generation made is gone: a service that knows its token would answer with it.
                            let generation = state.next_generation(ix);
                            let s = &mut state.steps[ix as usize];
                            s.generation = generation;
                            (s.output, s.heartbeat) = (None, None);
                        }
                    }
                    Ledger::Unknown { absent_since: Some(_) } => {}
                    _ => s.ledger = Ledger::Unknown { absent_since: Some(at) },
                },
                Probe::InProgress { .. } => s.ledger = Ledger::Unknown { absent_since: None },
                Probe::Failed { owner, detail } => {
                    let error = ActivityError::retryable("FailedResource", detail.clone());
                    count_failure(state, ix, &error);
                    let generation = state.next_generation(ix);
                    let s = &mut state.steps[ix as usize];
                    s.error = Some(error);
                    if *owner == Owner::ThisRun {
                        s.ledger = if state.rolling_back { Ledger::Done } else { Ledger::NoEffect };
                        if !state.rolling_back {
                            s.generation = generation;
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
                    s.error = Some(
                        ActivityError::needs_human(
                            FOREIGN,
                            "something of that name is there and was not made by this site",
                        )
                        .help(
                            "take it away and go on, or let the step adopt it: then it is used as it is and never undone",
                        ),
                    );
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
            again::reopen(state, at);
            unschedule(state, ix);
            let s = &mut state.steps[ix as usize];
            s.status = StepStatus::Skipped;
            s.error = None;
            decided(state, ix);
            finish_step(state, ix, at);
        }
        EventKind::StepCompleted { output, .. } => {
            let ix = ix.expect("has a step");
            again::reopen(state, at);
            unschedule(state, ix);
            decided(state, ix);
            done(state, ix, output.clone(), at);
        }
        EventKind::StepFailed { error, next, .. } => {
            let ix = ix.expect("has a step");
            unschedule(state, ix);
            count_failure(state, ix, error);
            state.steps[ix as usize].error = Some(error.clone());
            follow(state, ix, *next, at);
        }
        EventKind::StepsReset { steps, again, .. } => {
            let steps: Vec<StepIx> =
                steps.iter().map(|step| state.graph.index_of(step).expect("checked")).collect();
            state.recoveries = 0;
            again::reset(state, &steps, *again, at);
        }
        EventKind::WaitStarted { until, .. } => {
            let ix = ix.expect("has a step");
            let s = &mut state.steps[ix as usize];
            s.asked = true;
            s.started.get_or_insert(at);
            let graph = state.graph.clone();
            if let StepKind::Signal { signal, .. } = &graph.step(ix).kind
                && let Some(payload) = take_signal(state, signal)
            {
                unschedule(state, ix);
                done(state, ix, payload.as_ref().clone(), at);
            } else {
                wait(state, ix, *until);
            }
        }
        EventKind::WaitEnded { output, .. } => {
            let ix = ix.expect("has a step");
            unschedule(state, ix);
            done(state, ix, output.clone(), at);
        }
        EventKind::GateDecided { approved, request, next, .. } => {
            let ix = ix.expect("has a step");
            unschedule(state, ix);
            let by = if request.by.is_empty() { "somebody" } else { &request.by };
            if let Some(next) = next {
                let why = after_colon(&request.reason);
                let error = ActivityError::terminal("Rejected", format!("rejected by {by}{why}"));
                state.steps[ix as usize].error = Some(error.no_effect());
                follow(state, ix, *next, at);
            } else {
                let output = json!({ "approved": approved, "by": request.by, "reason": request.reason });
                done(state, ix, output, at);
            }
        }
        EventKind::SignalReceived { signal, payload, .. } => {
            state.recoveries = 0;
            let waits = state.waiting.iter().copied().find(|&ix| {
                matches!(&state.graph.step(ix).kind, StepKind::Signal { signal: name, .. } if name == signal)
            });
            match waits {
                Some(ix) => {
                    unschedule(state, ix);
                    done(state, ix, payload.clone(), at);
                }
                None => {
                    state.signals.entry(signal.clone()).or_default().push_back(Arc::new(payload.clone()));
                }
            }
        }
        EventKind::MapExpanded { keys, items, .. } => {
            let ix = ix.expect("has a step");
            state.steps[ix as usize].asked = true;
            maps::expand(state, ix, keys, items);
        }
        EventKind::MapCollected { .. } => {
            let ix = ix.expect("has a step");
            unschedule(state, ix);
            let output = maps::collect(state, ix);
            done(state, ix, output, at);
        }
        EventKind::RunUpgraded { graph, workflow_version, reset, shapes, .. } => {
            let graph = state.known_graphs.get(graph).expect("checked").clone();
            state.workflow_version = *workflow_version;
            state.shapes.clone_from(shapes);
            upgrade::upgrade(state, &graph, reset, at);
        }
        EventKind::OutputMigrated { output, .. } => {
            state.steps[ix.expect("has a step") as usize].output = Some(Arc::new(output.clone()));
        }
        EventKind::RunTimedOut {} => raise(state, Halt::TimedOut),
        EventKind::PauseRequested { request } => {
            raise(state, Halt::Pause);
            let by = if request.by.is_empty() { "somebody" } else { &request.by };
            let why = after_colon(&request.reason);
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
                again::suspend(state, since, at);
            }
            let timed_out = state.halt == Some(Halt::TimedOut);
            again::reopen(state, at);
            if timed_out {
                state.time_from_ms = state.active_ms(at);
            }
            let restored = state.paused.as_ref().is_some_and(|p| p.kind == PauseKind::Restored);
            (state.paused, state.pause_reason) = (None, None);
            // Somebody had asked for an end when the backup was made: that still stands.
            if !(restored && matches!(state.halt, Some(Halt::Rollback | Halt::Cancel(_)))) {
                state.halt = None;
            }
            state.failed_step = None;
            state.recoveries = 0;
            again::resume(state);
        }
        EventKind::CancelRequested { mode, .. } => {
            end_pause(state, at);
            if !state.rolling_back || *mode == CancelMode::Terminate {
                raise(state, Halt::Cancel((*mode).into()));
            }
        }
        EventKind::RollbackStarted { keep, to, .. } => {
            end_pause(state, at);
            // Somebody asked for a pause while the run was about to turn round: it pauses before the first undo.
            let pause = matches!(state.halt, Some(Halt::Rollback | Halt::Cancel(_)))
                && state.pause_reason.as_ref().is_some_and(|r| r.kind == PauseKind::Requested);
            if !pause {
                state.pause_reason = None;
            }
            state.halt = pause.then_some(Halt::Pause);
            if state.finished.is_some() {
                again::unsettle(state);
            }
            (state.finished, state.finished_at) = (None, None);
            state.output = None;
            // The undo of the step that failed clears its error; the run remembers why it turned round.
            let failed = state.failed_step.and_then(|ix| state.steps[ix as usize].error.clone());
            state.error = failed.or(state.error.take());
            compensate::start(state, keep, to.as_ref());
        }
        EventKind::CompensationSucceeded { undo, .. } => {
            let ix = ix.expect("has a step");
            land(state, ix);
            state.recoveries = 0;
            let s = &mut state.steps[ix as usize];
            s.error = None;
            s.ended = Some(at);
            match undo {
                Undo::Undone | Undo::NothingToDo => gone(s),
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
            count_failure(state, ix, error);
            let s = &mut state.steps[ix as usize];
            s.error = Some(error.clone());
            s.status = StepStatus::Compensating;
            match next {
                Next::At { .. } | Next::Now => follow(state, ix, *next, at),
                Next::Pause => {
                    schedule(state, ix);
                    pause_for(state, ix, error.class, error.to_string());
                }
                Next::Fail | Next::Rollback | Next::Stuck | Next::Tolerate => {
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
            (state.finished, state.finished_at) = (None, None);
            state.failed_step = None;
            for ix in std::mem::take(&mut state.stuck) {
                let s = &mut state.steps[ix as usize];
                s.undo = UndoRole::Wanted;
                s.status = StepStatus::Compensating;
                fresh_budget(s);
                state.undo_left += 1;
                schedule(state, ix);
            }
        }
        EventKind::UndoMarked { mark, request, .. } => {
            let ix = ix.expect("has a step");
            (state.finished, state.finished_at) = (None, None);
            state.stuck.remove(&ix);
            if state.failed_step == Some(ix) {
                state.failed_step = None;
            }
            let s = &mut state.steps[ix as usize];
            s.ended = Some(at);
            match mark {
                UndoMark::Undone => gone(s),
                UndoMark::Abandoned => {
                    s.status = StepStatus::Kept;
                    s.kept = Some(format!("abandoned by {}{}", request.by, after_colon(&request.reason)));
                }
            }
            state.undo_left += 1;
            compensate::resolve(state, ix);
        }
        EventKind::RunFinished { status, output, error } => {
            state.finished = Some(*status);
            state.finished_at = Some(at);
            state.halt = None;
            state.output = output.clone().map(Arc::new);
            if error.is_some() || *status == RunStatus::Succeeded {
                state.error.clone_from(error);
            }
            // The steps keep what they were about to do, for somebody who wants the run to go on.
            state.ready.clear();
            state.timers.clear();
            state.prompt.clear();
            state.waiting.clear();
            state.start_by.clear();
        }
    }
}

/// The attempt under way has no answer: what it did is not known.
pub(super) fn lose(state: &mut RunState, ix: StepIx) {
    let phase = land(state, ix);
    let s = &mut state.steps[ix as usize];
    if phase == Phase::Execute {
        s.ledger = after_failure(s, false);
    }
    schedule(state, ix);
}

fn after_colon(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

/// A step is done without an attempt.
fn done(state: &mut RunState, ix: StepIx, output: serde_json::Value, at: crate::time::Timestamp) {
    let s = &mut state.steps[ix as usize];
    s.output = Some(Arc::new(output));
    s.error = None;
    s.status = StepStatus::Succeeded;
    finish_step(state, ix, at);
}

/// Somebody decided about a step: it is no longer what the run stands still or fails for.
fn decided(state: &mut RunState, ix: StepIx) {
    if state.failed_step == Some(ix) {
        state.failed_step = None;
    }
}

/// Nothing of a step is left.
fn gone(s: &mut StepState) {
    s.status = StepStatus::Compensated;
    s.ledger = Ledger::NoEffect;
    (s.replacing, s.unproven) = (false, false);
    s.resources.clear();
    s.before.clear();
    s.past_inputs.clear();
}

fn end_pause(state: &mut RunState, at: crate::time::Timestamp) {
    state.paused = None;
    if let Some(since) = state.paused_at.take() {
        again::suspend(state, since, at);
    }
}

fn take_signal(state: &mut RunState, signal: &str) -> Option<Arc<serde_json::Value>> {
    let kept = state.signals.get_mut(signal)?;
    let payload = kept.pop_front();
    if kept.is_empty() {
        state.signals.remove(signal);
    }
    payload
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
