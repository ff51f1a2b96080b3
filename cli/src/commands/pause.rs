//! `dssflow pause` and `dssflow cancel`: for a run that another process drives.

use dssflow_engine::run::RunStatus;

use crate::access::Access;
use crate::args::{CancelArgs, PauseArgs};
use crate::config::{self, Settings};
use crate::control::Demand;
use crate::describe;
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::ui::Ui;
use crate::world::SANDBOX_LABEL;

/// Asks the owner to let the run come to a stand.
pub(crate) async fn pause(ui: &Ui, settings: &Settings, args: PauseArgs) -> CommandResult {
    let demand = Demand { by: config::user(), reason: args.reason, ..Demand::default() };
    ask(ui, settings, &args.run, "pause", &demand, None).await
}

/// Asks the owner to end the run.
pub(crate) async fn cancel(ui: &Ui, settings: &Settings, args: CancelArgs) -> CommandResult {
    let demand =
        Demand { by: config::user(), reason: args.reason, rollback: args.rollback, ..Demand::default() };
    let question = (args.rollback && !args.yes).then_some("This deletes everything the run made, and");
    ask(ui, settings, &args.run, "cancel", &demand, question).await
}

async fn ask(
    ui: &Ui,
    settings: &Settings,
    selector: &str,
    verb: &str,
    demand: &Demand,
    question: Option<&str>,
) -> CommandResult {
    let access = Access::open(&settings.store).await?;
    let found = match access.resolve(selector).await {
        Ok(run) => access.view(&run).await,
        Err(error) => Err(error),
    };
    let Access::Owner(client) = &access else {
        access.close().await?;
        let view = found?;
        let (run, command) = (&view.run, settings.command());
        if verb == "pause" && !matches!(view.status, RunStatus::Running | RunStatus::Pending) {
            ui.note(&format!("run {run} is {}: nothing to do", describe::words(view.status.as_str())));
            return Ok(Exit::Ok);
        }
        return Err(CommandError::new(
            Code::RunRefused,
            format!("no process drives run {run}, so it stands still already"),
        )
        .why(format!("it is {}", describe::words(view.status.as_str())))
        .hint(format!("go on with it: {command} resume {run}"))
        .hint(format!("or take it back: {command} rollback {run}")));
    };
    let view = found?;
    if let Some(question) = question.filter(|_| !view.labels.contains_key(SANDBOX_LABEL)) {
        ui.confirm(question)?;
    }
    client.demand(&view.run, verb, demand).await?;
    ui.note(&format!("asked the process that drives run {} to {verb} it", view.run));
    Ok(Exit::Ok)
}
