//! Runs, looked at.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use dssflow_activities::aws::sweep::Leftover;
use dssflow_engine::run::view::{RunView, StepView};
use dssflow_engine::run::{RunStatus, StepStatus};
use dssflow_engine::runtime::Inspected;
use dssflow_engine::store::ListQuery;
use dssflow_engine::time::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, Failure, Owner, Params, Run, Shared};
use crate::control::{Obstacles, Page};
use crate::error::{Code, CommandError};
use crate::progress::now;

/// Of so many steps that may start it is told at most what keeps them.
const MAX_OBSTRUCTED: usize = 8;

/// Parameters of `GET /v1/runs`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Filter {
    /// Only runs in these states, separated by commas, as `failed,paused`.
    status: String,
    /// Only runs of this workflow.
    workflow: Option<String>,
    /// Only runs of this site.
    site: Option<String>,
    /// Only runs whose id begins so.
    prefix: Option<String>,
    /// Only runs with these labels: an object of texts, as JSON.
    labels: Option<String>,
    /// Only runs created then or later, in milliseconds since 1970.
    from: Option<u64>,
    /// Only runs created before then, in milliseconds since 1970.
    before: Option<u64>,
    /// At most so many; 0 and more than 1000 mean 1000.
    limit: usize,
    /// Where the last page ended, as its `cursor` says.
    cursor: Option<String>,
}

pub(super) async fn list(
    State(Owner { engine, .. }): Shared,
    Params(filter): Params<Filter>,
) -> Answer<Json<Page>> {
    let wrong = |what: String| Failure(CommandError::new(Code::Usage, what));
    let statuses = filter
        .status
        .split(',')
        .filter(|s| !s.is_empty())
        .map(|s| RunStatus::parse(s).ok_or_else(|| wrong(format!("{s:?} is no status"))))
        .collect::<Answer<Vec<_>>>()?;
    let labels = match filter.labels {
        Some(text) => {
            serde_json::from_str(&text).map_err(|e| wrong(format!("labels are no object of texts: {e}")))?
        }
        None => BTreeMap::new(),
    };
    let query = ListQuery {
        statuses,
        workflow: filter.workflow,
        site: filter.site,
        prefix: filter.prefix,
        labels,
        created_from: filter.from.map(Timestamp::from_millis),
        created_before: filter.before.map(Timestamp::from_millis),
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let page = engine.list(query).await?;
    Ok(Json(Page { runs: page.runs, cursor: page.cursor }))
}

pub(super) async fn view(State(Owner { engine, .. }): Shared, Run(run): Run) -> Answer<Json<RunView>> {
    Ok(Json(engine.view(&run).await?))
}

pub(super) async fn steps(State(Owner { engine, .. }): Shared, Run(run): Run) -> Answer<Json<Vec<StepView>>> {
    Ok(Json(engine.view(&run).await?.steps))
}

pub(super) async fn graph(State(Owner { engine, .. }): Shared, Run(run): Run) -> Answer<Response> {
    let state = engine.load(&run).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], state.graph.encode().to_vec()).into_response())
}

/// What keeps steps that may start from starting. Nothing for a run that is not driven here.
pub(super) async fn obstacles(State(Owner { engine, .. }): Shared, Run(run): Run) -> Answer<Json<Obstacles>> {
    let view = engine.view(&run).await?;
    let mut found = Obstacles::new();
    if engine.handle(&run).is_none() {
        return Ok(Json(found));
    }
    let now = now();
    let may_start = view.steps.iter().filter(|s| match s.status {
        StepStatus::Ready => true,
        StepStatus::Backoff | StepStatus::Waiting => s.awaits.is_none() && s.wake.is_some_and(|at| at <= now),
        _ => false,
    });
    for step in may_start.take(MAX_OBSTRUCTED) {
        let these = engine.obstacles(&run, &step.step).await?;
        if !these.is_empty() {
            found.insert(step.step.clone(), these);
        }
    }
    Ok(Json(found))
}

pub(super) async fn inspect(State(owner): Shared, Run(run): Run) -> Answer<Json<Vec<Inspected>>> {
    Ok(Json(owner.service()?.inspect(&run).await?))
}

pub(super) async fn orphans(State(owner): Shared, Run(run): Run) -> Answer<Json<Vec<Leftover>>> {
    Ok(Json(owner.service()?.orphans(&run).await?))
}
