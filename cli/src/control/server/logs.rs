//! What was said while a run was driven.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, Params, Run, Shared};
use crate::commands::logs::Wanted;
use crate::error::{Code, CommandError};
use crate::logging::Record;
use crate::logging::runs::Reader;

/// The most lines that are given at once.
const MAX_LINES: usize = 10_000;

/// Parameters of `GET /v1/runs/{run}/logs`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Which {
    /// Only lines about this step.
    step: Option<String>,
    /// Only lines of this level and above: error, warn, info, debug or trace.
    level: Option<String>,
    /// Only the last so many; 0 and more than 10000 mean 10000.
    lines: usize,
}

pub(super) async fn logs(
    State(owner): Shared,
    Run(run): Run,
    Params(which): Params<Which>,
) -> Answer<Json<Vec<Record>>> {
    let wanted = Wanted::new(which.step, which.level.as_deref())?;
    // A run that is not there is an answer of its own.
    owner.engine.history(&run, u64::MAX - 1).await?;
    let mut reader = Reader::new(owner.store.path(), &run);
    let read = tokio::task::spawn_blocking(move || reader.next()).await;
    let failed =
        |why: String| CommandError::new(Code::File, format!("the log of run {run} cannot be read")).why(why);
    let mut records = read.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
    records.retain(|record| wanted.has(record));
    let lines = if which.lines == 0 { MAX_LINES } else { which.lines.min(MAX_LINES) };
    records.drain(..records.len().saturating_sub(lines));
    Ok(Json(records))
}
