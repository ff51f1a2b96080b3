//! A run whose store was put back to a backup, and one that was brought here from another store.

use super::change::lose;
use crate::event::{PauseKind, PauseReason};
use crate::graph::StepIx;
use crate::run::RunStatus;
use crate::run::state::{Halt, Imported, Ledger, Restored, RunState};
use crate::time::Timestamp;

/// Nobody knows what the run did since the backup. It stands still until somebody has it go on; from then on whatever
/// can be looked at is looked at.
pub(super) fn restored(state: &mut RunState, backup: Timestamp, gap_ms: u64, at: Timestamp) {
    lose_all(state);
    // Each restore has generations of its own, also when one backup is restored twice: no two are in one second.
    let of_time = u32::try_from(at.as_millis() / 1_000).unwrap_or(u32::MAX - 1);
    let used = state.steps.iter().map(|s| s.generation).max().unwrap_or(0);
    let before = state.restored.map_or(0, |restored| restored.generation);
    let generation = of_time.max(used.saturating_add(1)).max(before.saturating_add(1));
    state.restored = Some(Restored { backup, generation });
    for ix in 0..StepIx::try_from(state.steps.len()).expect("a checked graph") {
        let doubt = state.in_doubt(ix);
        let s = &mut state.steps[ix as usize];
        // What surely had no effect then may have had one since; what was seen may have changed hands.
        let known = matches!(s.ledger, Ledger::NoEffect | Ledger::NotOurs);
        if doubt && s.intent && s.probed && known && !s.status.is_done() {
            s.ledger = Ledger::Unknown { absent_since: None };
        }
        if matches!(s.ledger, Ledger::Unknown { .. }) {
            s.ledger = Ledger::Unknown { absent_since: None };
        }
    }
    state.recoveries = 0;
    if state.finished.is_some() {
        return;
    }
    let message = restored_note(backup, state.paused.as_ref().map(|reason| reason.message.as_str()));
    if state.paused.is_none() {
        state.suspended_ms = state.suspended_ms.saturating_add(gap_ms);
        state.paused_at = Some(at);
    }
    // It pauses already.
    state.halt = state.halt.take().filter(|halt| *halt != Halt::Pause);
    state.pause_reason = None;
    state.paused = Some(PauseReason { kind: PauseKind::Restored, step: None, message });
}

/// It is history here. If it was under way it ends, as one that was cancelled and keeps what it made.
pub(super) fn imported(state: &mut RunState, from: Imported, at: Timestamp) {
    lose_all(state);
    // A copy of a copy is still of the store it began in.
    state.imported.get_or_insert(from);
    if state.finished.is_none() {
        (state.finished, state.finished_at) = (Some(RunStatus::Cancelled), Some(at));
    }
    (state.paused, state.paused_at, state.pause_reason, state.halt) = (None, None, None, None);
    state.ready.clear();
    state.timers.clear();
    state.prompt.clear();
    state.waiting.clear();
    state.start_by.clear();
}

/// What lists and views say of a run that was restored.
pub(crate) fn restored_note(backup: Timestamp, paused: Option<&str>) -> String {
    const PAUSED: &str = "; it was paused then: ";
    // Of one that was restored before, the reason from before that.
    let why = paused.map(|why| match why.strip_prefix("restored from ") {
        Some(earlier) => earlier.split_once(PAUSED).map_or("", |(_, why)| why),
        None => why,
    });
    match why.filter(|why| !why.is_empty()) {
        Some(why) => format!("restored from a backup of {backup}{PAUSED}{why}"),
        None => format!("restored from a backup of {backup}"),
    }
}

fn lose_all(state: &mut RunState) {
    while let Some(&ix) = state.in_flight.keys().next() {
        lose(state, ix);
    }
}
