//! Everything that can be wrong with an event, before anything is touched.

use crate::event::{Again, Event, EventKind, Phase};
use crate::graph::{StepIx, StepKind};
use crate::id::StepName;
use crate::run::apply::{maps, upgrade};
use crate::run::state::{Halt, Ledger, RunState, UndoRole};
use crate::run::{RunStatus, StepStatus};

/// The most signals of one name that wait to be taken.
pub(super) const MAX_SIGNALS: usize = 1_000;

pub(super) fn check(state: &RunState, event: &Event) -> Result<(), String> {
    if event.seq != state.seq + 1 {
        return Err(format!("the run is at event {}", state.seq));
    }
    if event.at < state.updated {
        return Err(format!("it is dated {}, before the last event at {}", event.at, state.updated));
    }
    let step = event.kind.step().map(|name| find(state, name)).transpose()?;
    if let EventKind::RollbackStarted { keep, to, .. } = &event.kind {
        keep.iter().chain(to).try_for_each(|step| find(state, step).map(drop))?;
    }
    if let Some(end) = state.finished {
        ended(&event.kind, end)?;
    }
    if let Some(imported) = &state.imported
        && !matches!(event.kind, EventKind::RunRestored { .. } | EventKind::RunImported { .. })
    {
        return Err(format!("it is the history of store {} and ends here", imported.store));
    }
    match &event.kind {
        EventKind::RunCreated { .. } => Err("the run exists already".to_owned()),
        EventKind::RunRecovered { .. }
        | EventKind::RunRestored { .. }
        | EventKind::RunImported { .. }
        | EventKind::PauseRequested { .. }
        | EventKind::CancelRequested { .. }
        | EventKind::ResourceRecorded { .. }
        | EventKind::BeforeRecorded { .. } => Ok(()),
        EventKind::AttemptStarted { attempt, phase, generation, .. } => {
            attempt_started(state, step.expect("has a step"), *attempt, *phase, *generation)
        }
        EventKind::AttemptSucceeded { attempt, .. }
        | EventKind::ProbeAnswered { attempt, .. }
        | EventKind::AttemptFailed { attempt, .. } => {
            in_flight(state, step, *attempt, &[Phase::Execute, Phase::Probe])
        }
        EventKind::AttemptLost { attempt, .. } | EventKind::HeartbeatRecorded { attempt, .. } => {
            in_flight(state, step, *attempt, &[Phase::Execute, Phase::Probe, Phase::Compensate])
        }
        EventKind::CompensationSucceeded { attempt, .. } | EventKind::CompensationFailed { attempt, .. } => {
            if !state.rolling_back {
                return Err("the run is not being rolled back".to_owned());
            }
            in_flight(state, step, *attempt, &[Phase::Compensate, Phase::Probe])
        }
        EventKind::StepSkipped { request: None, .. } => {
            let ix = step.expect("has a step");
            let s = &state.steps[ix as usize];
            if s.status == StepStatus::Ready && !s.asked {
                Ok(())
            } else {
                Err(format!("{} is {} and cannot be skipped", name(state, ix), s.status))
            }
        }
        EventKind::StepSkipped { .. } | EventKind::StepCompleted { .. } => {
            decidable(state, step.expect("has a step"))
        }
        EventKind::StepFailed { .. } => {
            let ix = step.expect("has a step");
            forward(state)?;
            let s = &state.steps[ix as usize];
            let starts = matches!(s.status, StepStatus::Ready | StepStatus::Backoff | StepStatus::Waiting);
            if starts { Ok(()) } else { Err(format!("{} is {}", name(state, ix), s.status)) }
        }
        EventKind::StepsReset { steps, again, .. } => steps_reset(state, steps, *again),
        EventKind::WaitStarted { .. } => {
            let ix = step.expect("has a step");
            forward(state)?;
            let waits = matches!(
                state.graph.step(ix).kind,
                StepKind::Gate { .. } | StepKind::Sleep { .. } | StepKind::Signal { .. }
            );
            let s = &state.steps[ix as usize];
            if waits && s.status == StepStatus::Ready && s.missing == 0 {
                Ok(())
            } else {
                Err(format!("{} is {} and cannot wait", name(state, ix), s.status))
            }
        }
        EventKind::WaitEnded { .. } => waits(state, step.expect("has a step")),
        EventKind::GateDecided { .. } => {
            let ix = step.expect("has a step");
            if !matches!(state.graph.step(ix).kind, StepKind::Gate { .. }) {
                return Err(format!("{} is no gate", name(state, ix)));
            }
            waits(state, ix)
        }
        EventKind::SignalReceived { signal, .. } => {
            if state.rolling_back {
                return Err("the run goes backwards and takes no signals".to_owned());
            }
            match state.signals.get(signal) {
                Some(kept) if kept.len() >= MAX_SIGNALS => {
                    Err(format!("{MAX_SIGNALS} signals named {signal} wait to be taken already"))
                }
                _ => Ok(()),
            }
        }
        EventKind::MapExpanded { keys, items, .. } => {
            let ix = step.expect("has a step");
            ready(state, ix)?;
            maps::check_expansion(state, ix, keys, items)
        }
        EventKind::MapCollected { .. } => {
            let ix = step.expect("has a step");
            ready(state, ix)?;
            if state.maps.contains_key(&ix) && state.steps[ix as usize].missing == 0 {
                Ok(())
            } else {
                Err(format!("the children of {} are not done", name(state, ix)))
            }
        }
        EventKind::RunUpgraded { graph, reset, .. } => {
            idle(state)?;
            forward(state)?;
            let graph =
                state.known_graphs.get(graph).ok_or_else(|| format!("graph {} was not loaded", graph.0))?;
            upgrade::check_upgrade(state, graph, reset)
        }
        EventKind::OutputMigrated { .. } => {
            let ix = step.expect("has a step");
            if state.steps[ix as usize].output.is_some() {
                Ok(())
            } else {
                Err(format!("{} has no output", name(state, ix)))
            }
        }
        EventKind::RunTimedOut {} => forward(state),
        EventKind::RunPaused { .. } => {
            idle(state)?;
            if state.paused.is_some() { Err("the run is paused already".to_owned()) } else { Ok(()) }
        }
        EventKind::RunResumed { .. } => {
            // A crash may have come between the wish to stop and the stop.
            let stopping = matches!(state.halt, Some(Halt::Pause | Halt::Fail | Halt::TimedOut));
            if state.paused.is_some() || state.finished.is_some() {
                Ok(())
            } else if stopping {
                idle(state)
            } else {
                Err("the run is not paused".to_owned())
            }
        }
        EventKind::RollbackStarted { .. } => {
            idle(state)?;
            if state.rolling_back && state.finished.is_none() {
                Err("the run is being rolled back already".to_owned())
            } else {
                Ok(())
            }
        }
        EventKind::RollbackRetried { .. } => {
            if state.finished == Some(RunStatus::RollbackStuck) {
                Ok(())
            } else {
                Err("the rollback is not stuck".to_owned())
            }
        }
        EventKind::UndoMarked { .. } => {
            let ix = step.expect("has a step");
            if state.steps[ix as usize].undo == UndoRole::Stuck {
                Ok(())
            } else {
                Err(format!("the undo of {} is not stuck", name(state, ix)))
            }
        }
        EventKind::RunFinished { status, .. } => {
            idle(state)?;
            if status.is_end() { Ok(()) } else { Err(format!("{status} is no end")) }
        }
    }
}

/// What may still happen to a run that has ended.
fn ended(kind: &EventKind, end: RunStatus) -> Result<(), String> {
    use RunStatus as S;
    let allowed = match kind {
        EventKind::RunResumed { .. }
        | EventKind::RunUpgraded { .. }
        | EventKind::StepSkipped { request: Some(_), .. }
        | EventKind::StepCompleted { .. }
        | EventKind::StepsReset { again: Again::Retry | Again::Adopt, .. } => {
            matches!(end, S::Failed | S::Cancelled | S::TimedOut)
        }
        EventKind::RollbackStarted { .. } | EventKind::StepsReset { again: Again::Rerun, .. } => {
            matches!(end, S::Succeeded | S::Failed | S::Cancelled | S::TimedOut)
        }
        EventKind::RollbackRetried { .. } | EventKind::UndoMarked { .. } => end == S::RollbackStuck,
        EventKind::RunRecovered { .. }
        | EventKind::RunRestored { .. }
        | EventKind::RunImported { .. }
        | EventKind::OutputMigrated { .. } => true,
        EventKind::RunCreated { .. }
        | EventKind::AttemptStarted { .. }
        | EventKind::AttemptSucceeded { .. }
        | EventKind::AttemptFailed { .. }
        | EventKind::AttemptLost { .. }
        | EventKind::ProbeAnswered { .. }
        | EventKind::ResourceRecorded { .. }
        | EventKind::BeforeRecorded { .. }
        | EventKind::HeartbeatRecorded { .. }
        | EventKind::StepSkipped { request: None, .. }
        | EventKind::StepFailed { .. }
        | EventKind::WaitStarted { .. }
        | EventKind::WaitEnded { .. }
        | EventKind::GateDecided { .. }
        | EventKind::SignalReceived { .. }
        | EventKind::MapExpanded { .. }
        | EventKind::MapCollected { .. }
        | EventKind::RunTimedOut {}
        | EventKind::PauseRequested { .. }
        | EventKind::RunPaused { .. }
        | EventKind::CancelRequested { .. }
        | EventKind::CompensationSucceeded { .. }
        | EventKind::CompensationFailed { .. }
        | EventKind::RunFinished { .. } => false,
    };
    if allowed { Ok(()) } else { Err(format!("the run has ended: {end}")) }
}

fn attempt_started(
    state: &RunState,
    ix: StepIx,
    attempt: u32,
    phase: Phase,
    generation: u32,
) -> Result<(), String> {
    let s = &state.steps[ix as usize];
    if state.in_flight.contains_key(&ix) {
        return Err(format!("an attempt of {} is under way", name(state, ix)));
    }
    if state.paused.is_some() {
        return Err("the run is paused".to_owned());
    }
    if attempt != s.attempt + 1 {
        return Err(format!("{} has had {} attempts", name(state, ix), s.attempt));
    }
    // It rises by one with a new input, and else by what was seen of the last generation.
    if generation != s.generation && (generation != s.generation + 1 || phase != Phase::Execute) {
        return Err(format!("{} is at generation {}, not {generation}", name(state, ix), s.generation));
    }
    let startable = match phase {
        Phase::Execute => !state.rolling_back && s.missing == 0 && !s.retired,
        Phase::Probe => matches!(s.ledger, Ledger::Unknown { .. }),
        Phase::Compensate => state.rolling_back && s.undo == UndoRole::Wanted && s.undo_missing == 0,
    };
    let waiting = !state.waiting.contains(&ix)
        && matches!(
            s.status,
            StepStatus::Ready | StepStatus::Backoff | StepStatus::Waiting | StepStatus::Compensating
        )
        || (state.rolling_back && s.undo == UndoRole::Wanted);
    if startable && waiting {
        Ok(())
    } else {
        Err(format!("{} is {} and cannot start to {phase:?}", name(state, ix), s.status))
    }
}

fn in_flight(state: &RunState, step: Option<StepIx>, attempt: u32, phases: &[Phase]) -> Result<(), String> {
    let ix = step.expect("asked only for events about a step");
    match state.in_flight.get(&ix) {
        Some(f) if f.attempt == attempt && phases.contains(&f.phase) => Ok(()),
        Some(f) => Err(format!("attempt {} ({:?}) of {} is under way", f.attempt, f.phase, name(state, ix))),
        None => Err(format!("no attempt of {} is under way", name(state, ix))),
    }
}

/// Whether an operator may say that the step is done or left out.
fn decidable(state: &RunState, ix: StepIx) -> Result<(), String> {
    forward(state)?;
    let s = &state.steps[ix as usize];
    if state.in_flight.contains_key(&ix) {
        Err(format!("an attempt of {} is under way; pause the run first", name(state, ix)))
    } else if s.is_settled() {
        Err(format!("{} is {} already", name(state, ix), s.status))
    } else if state.maps.contains_key(&ix) && s.missing > 0 {
        Err(format!("the children of {} are under way; decide about each of them", name(state, ix)))
    } else {
        Ok(())
    }
}

fn steps_reset(state: &RunState, steps: &[StepName], again: Again) -> Result<(), String> {
    forward(state)?;
    let steps: Vec<StepIx> = steps.iter().map(|s| find(state, s)).collect::<Result<_, _>>()?;
    let Some(&first) = steps.first() else { return Err("no step is named".to_owned()) };
    // Where a map is done again the children of its present list go with it, and they come before it.
    let children = state.maps.get(&first).filter(|_| again == Again::Rerun).map(|map| map.children.iter());
    let mut touched = steps.iter().chain(children.into_iter().flatten());
    if let Some(&ix) = touched.find(|ix| state.in_flight.contains_key(ix)) {
        return Err(format!("an attempt of {} is under way; pause the run first", name(state, ix)));
    }
    let s = &state.steps[first as usize];
    match again {
        Again::Adopt if s.ledger != Ledger::NotOurs => {
            Err(format!("nothing that is not ours stands in the way of {}", name(state, first)))
        }
        Again::Retry | Again::Adopt => {
            let stopped = matches!(
                s.status,
                StepStatus::Failed | StepStatus::Backoff | StepStatus::Waiting | StepStatus::Cancelled
            );
            // What was about to start when the run ended was stopped by that.
            let stopped = stopped || (s.status == StepStatus::Ready && state.finished.is_some());
            if steps.len() != 1 {
                Err("one step is retried at a time".to_owned())
            } else if !stopped || s.is_settled() || s.missing > 0 || state.waiting.contains(&first) {
                Err(format!("{} is {} and cannot be retried", name(state, first), s.status))
            } else {
                Ok(())
            }
        }
        Again::Rerun => {
            if steps != state.closure(first) {
                Err(format!("that is not {} with all that depends on it", name(state, first)))
            } else if s.missing > 0 && !state.maps.contains_key(&first) {
                Err(format!("{} still waits for other steps", name(state, first)))
            } else if s.retired || s.status == StepStatus::Pending {
                Err(format!("{} is {}", name(state, first), s.status))
            } else {
                Ok(())
            }
        }
    }
}

fn ready(state: &RunState, ix: StepIx) -> Result<(), String> {
    forward(state)?;
    let s = &state.steps[ix as usize];
    if s.status == StepStatus::Ready { Ok(()) } else { Err(format!("{} is {}", name(state, ix), s.status)) }
}

fn waits(state: &RunState, ix: StepIx) -> Result<(), String> {
    if state.waiting.contains(&ix) {
        Ok(())
    } else {
        let status = state.steps[ix as usize].status;
        Err(format!("{} is {status} and does not wait for that", name(state, ix)))
    }
}

fn forward(state: &RunState) -> Result<(), String> {
    if state.rolling_back { Err("the run goes backwards".to_owned()) } else { Ok(()) }
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
