//! What steps took in earlier runs of a store: what a command that shows a run expects of it.

use dssflow_engine::run::past::Past;
use dssflow_engine::run::view::RunView;
use dssflow_engine::store::ListQuery;

use crate::access::Access;
use crate::error::CommandResult;
use crate::world::SANDBOX_LABEL;

/// The most earlier runs that are taken in: the newest tell most.
const RUNS: usize = 10;
/// The most runs among which they are looked for.
const AMONG: usize = 50;

/// What the newest earlier runs of the same workflow took; those in a sandbox say nothing of those in the world. What
/// cannot be read is left out: it is for show.
pub(crate) async fn of(access: &Access, view: &RunView) -> Past {
    match earlier(access, view).await {
        Ok(past) => past,
        Err(error) => {
            tracing::debug!(%error, "what earlier runs took is not known");
            Past::default()
        }
    }
}

async fn earlier(access: &Access, view: &RunView) -> CommandResult<Past> {
    let query = ListQuery { workflow: Some(view.workflow.clone()), limit: AMONG, ..ListQuery::default() };
    let in_sandbox = view.labels.contains_key(SANDBOX_LABEL);
    let mut past = Past::default();
    let found = access.list(query).await?.runs.into_iter();
    let like =
        found.filter(|run| run.run != view.run && run.labels.contains_key(SANDBOX_LABEL) == in_sandbox);
    for run in like.take(RUNS) {
        past.learn(&access.view(&run.run).await?);
    }
    Ok(past)
}
