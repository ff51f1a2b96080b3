//! Runs that a teardown has taken over: which they are, and closing their books once it is done.
//!
//! A run whose things a teardown takes back must not go on meanwhile. Once they are gone its own history says so: its
//! rollback is written down without calling anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use dssflow_engine::event::{EventKind, Request};
use dssflow_engine::id::{RunId, StepName};
use dssflow_engine::run::RunStatus;
use dssflow_engine::run::view::RunView;
use dssflow_engine::store::{ListQuery, MAX_PAGE, Store};
use dssflow_engine::takeover::{self, Taken};
use dssflow_store::SledStore;
use dssflow_workflows::teardown;

use crate::access::Access;
use crate::config;
use crate::describe;
use crate::drive::engine_with;
use crate::error::{Code, CommandError, CommandResult};
use crate::world::SANDBOX_LABEL;

/// Whether the run is a teardown.
pub(crate) fn is_teardown(view: &RunView) -> bool {
    view.workflow == teardown::NAME
}

/// Whether a teardown has taken back all it took over.
pub(crate) fn is_done(view: &RunView) -> bool {
    is_teardown(view) && view.status == RunStatus::RolledBack
}

/// All teardowns of a site, newest first.
async fn of_site(access: &Access, site: &str) -> CommandResult<Vec<RunView>> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let query = ListQuery {
            workflow: Some(teardown::NAME.to_owned()),
            site: Some(site.to_owned()),
            limit: MAX_PAGE,
            cursor,
            ..ListQuery::default()
        };
        let page = access.list(query).await?;
        for run in page.runs {
            found.push(access.view(&run.run).await?);
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(found);
        }
    }
}

/// The runs that a teardown took over.
async fn taken(access: &Access, down: &RunId) -> CommandResult<Vec<Taken>> {
    let first = access.events(down, 0).await?.into_iter().next();
    Ok(match first.map(|event| event.kind) {
        Some(EventKind::RunCreated { input, .. }) => takeover::taken(&input),
        _ => Vec::new(),
    })
}

/// Whether a teardown holds on to what it took over, or took it back.
fn counts(down: &RunView) -> bool {
    // One that was cancelled before it turned round has taken nothing.
    down.imported.is_none() && !matches!(down.status, RunStatus::Cancelled | RunStatus::Succeeded)
}

/// The teardown that took this run over, if the run still stands as it did then.
///
/// # Errors
/// When runs cannot be read.
pub(crate) async fn taker(access: &Access, view: &RunView) -> CommandResult<Option<RunView>> {
    if !view.live || is_teardown(view) {
        return Ok(None);
    }
    for down in of_site(access, &view.site).await? {
        let ours = |taken: &Taken| taken.run == view.run && taken.seq == view.seq;
        if counts(&down) && taken(access, &down.run).await?.iter().any(ours) {
            return Ok(Some(down));
        }
    }
    Ok(None)
}

/// Refuses what would drive a run that a teardown has taken over.
///
/// # Errors
/// When one has.
pub(crate) async fn must_be_free(access: &Access, view: &RunView, command: &str) -> CommandResult<()> {
    match taker(access, view).await? {
        None => Ok(()),
        Some(down) if is_done(&down) => Err(CommandError::new(
            Code::RunRefused,
            format!("what run {} made was taken back by run {}: it cannot go on", view.run, down.run),
        )
        .hint(format!("start anew: {command} run {}", view.workflow))),
        Some(down) => Err(in_the_way(&view.site, &down, command)),
    }
}

/// A teardown that is not finished is in the way of everything else on its site.
pub(crate) fn in_the_way(site: &str, down: &RunView, command: &str) -> CommandError {
    CommandError::new(Code::RunInTheWay, format!("run {} is tearing site {site} down", down.run))
        .why(format!("it is {}", describe::words(down.status.as_str())))
        .hint(format!("finish that first: {command} run {}", teardown::NAME))
        .hint(format!("what keeps it: {command} why {}", down.run))
}

/// Whether the teardown holds on to things, or took them back, in the world of this label.
fn is_in(down: &RunView, sandbox: Option<&str>) -> bool {
    down.labels.get(SANDBOX_LABEL).map(String::as_str) == sandbox && counts(down)
}

/// The teardown of a site that is not done; only looks.
///
/// # Errors
/// When runs cannot be read.
pub(crate) async fn under_way(
    store: &Arc<SledStore>,
    site: &str,
    sandbox: Option<&str>,
) -> CommandResult<Option<RunView>> {
    let all = of_site(&Access::Store(Arc::clone(store)), site).await?;
    Ok(all.into_iter().find(|down| is_in(down, sandbox) && !is_done(down)))
}

/// Closes the books of all teardowns of a site that are done, and gives one that is not. `sandbox` is the label of the
/// world: what is in another one is another site.
///
/// # Errors
/// When runs cannot be read or written.
pub(crate) async fn tidy(
    store: &Arc<SledStore>,
    site: &str,
    sandbox: Option<&str>,
) -> CommandResult<Option<RunView>> {
    let access = Access::Store(Arc::clone(store));
    let mut unfinished = None;
    for down in of_site(&access, site).await? {
        if !is_in(&down, sandbox) {
            continue;
        }
        if is_done(&down) {
            close(store, &down).await?;
        } else {
            unfinished = Some(down);
        }
    }
    Ok(unfinished)
}

/// Writes down in each run that a teardown took over that what it made is taken back. Calls nothing; what is written
/// already stays.
///
/// # Errors
/// When runs cannot be read or written.
pub(crate) async fn close(store: &Arc<SledStore>, down: &RunView) -> CommandResult<Vec<RunId>> {
    let access = Access::Store(Arc::clone(store));
    let kept: BTreeMap<StepName, String> =
        down.steps.iter().filter_map(|step| Some((step.step.clone(), step.kept.clone()?))).collect();
    let mut closed = Vec::new();
    for Taken { run, seq } in taken(&access, &down.run).await? {
        // A run that is gone owned nothing.
        if store.head(&run).await?.is_none() {
            continue;
        }
        let view = access.view(&run).await?;
        let begun = view.rolling_back && !view.status.is_end();
        if !(view.live && view.seq == seq || begun) {
            continue;
        }
        let engine = engine_with(Arc::clone(store) as Arc<dyn Store>, |activities| {
            takeover::close_books(activities, &kept);
        })?;
        let request = Request { by: config::user(), reason: format!("taken back by run {}", down.run) };
        engine.rollback(&run, Vec::new(), request).await?.wait().await?;
        closed.push(run);
    }
    Ok(closed)
}
