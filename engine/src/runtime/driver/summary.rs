//! What lists show of a run.

use crate::run::RunStatus;
use crate::run::state::RunState;
use crate::store::{MAX_SUMMARY_BYTES, RunSummary};

/// What lists show. The note is cut so that the whole stays within its limit.
pub fn summary(state: &RunState) -> RunSummary {
    let status = state.status();
    let note = match (&state.paused, state.failed_step) {
        (Some(reason), _) => reason.message.clone(),
        (None, Some(ix)) if status.is_end() => state.graph.step(ix).name.to_string(),
        _ => String::new(),
    };
    let mut summary = RunSummary {
        run: state.id.clone(),
        workflow: state.workflow.to_string(),
        site: state.site.clone(),
        status,
        created: state.created,
        updated: state.updated,
        done: state.done,
        total: state.total(),
        labels: state.labels.clone(),
        // Looking at every step is worth it only when the run stands still.
        live: if status.is_end() { state.is_live() } else { status != RunStatus::Pending },
        note,
    };
    while serde_json::to_vec(&summary).is_ok_and(|bytes| bytes.len() > MAX_SUMMARY_BYTES)
        && !summary.note.is_empty()
    {
        let keep = summary.note.chars().count() * 2 / 3;
        summary.note = summary.note.chars().take(keep).collect();
    }
    summary
}
