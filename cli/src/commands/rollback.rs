//! `dssflow rollback`: takes back everything a run made. A second one has nothing to do and calls nothing.

use dssflow_engine::event::Request;
use dssflow_engine::id::StepName;
use dssflow_engine::run::RunStatus;
use dssflow_engine::run::view::RunView;

use crate::access::Access;
use crate::args::RollbackArgs;
use crate::config::{self, Settings};
use crate::control::Demand;
use crate::control::client::Client;
use crate::describe;
use crate::drive::{Aim, Session, Stream, exit_of, summary};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::progress::Progress;
use crate::suggest;
use crate::ui::Ui;
use crate::world::SANDBOX_LABEL;

/// Rolls back, then follows.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: RollbackArgs) -> CommandResult {
    let access = Access::open(&settings.store).await?;
    let found = match access.resolve(&args.run).await {
        Ok(run) => access.view(&run).await,
        Err(error) => Err(error),
    };
    let view = match found {
        Ok(view) => view,
        Err(error) => {
            access.close().await?;
            return Err(error);
        }
    };
    if view.status == RunStatus::RolledBack {
        access.close().await?;
        ui.note(&format!("run {} is rolled back already: nothing to do", view.run));
        return Ok(Exit::Ok);
    }
    let keep = steps(&view, &args.keep)?;
    if !args.yes && !view.labels.contains_key(SANDBOX_LABEL) {
        ui.confirm(&format!("This deletes everything run {} made, and", view.run)).map_err(|error| {
            match error.code {
                Code::NotConfirmed => error,
                _ => error.why(format!("run {} is {}", view.run, describe::words(view.status.as_str()))),
            }
        })?;
    }
    if let Access::Owner(client) = &access {
        return ask_owner(ui, settings, client, &view, args.keep).await;
    }
    access.close().await?;

    let (session, site, world) = Session::of_run(ui, settings, "rollback", &view).await?;
    ui.note(&format!("taking back run {}, which is {}", view.run, describe::words(view.status.as_str())));
    world.hold(&view.run).await;
    let engine = session.engine_in(&world);
    let stream = Stream::new(ui, args.output.output, &view.run, view.seq);
    let handle = engine.rollback(&view.run, keep, Request::by(config::user())).await?;
    let exit = session.follow(&engine, handle, stream, Aim::Back, &site).await;
    world.let_go(&view.run, &exit).await;
    session.close().await?;
    exit
}

/// The steps named with `--keep`.
fn steps(view: &RunView, names: &[String]) -> CommandResult<Vec<StepName>> {
    names
        .iter()
        .map(|name| {
            view.steps.iter().find(|s| s.step.as_str() == name).map(|s| s.step.clone()).ok_or_else(|| {
                let error =
                    CommandError::new(Code::NoSuchStep, format!("run {} has no step {name:?}", view.run));
                match suggest::nearest(name, view.steps.iter().map(|s| s.step.as_str())) {
                    Some(near) => error.hint(format!("did you mean {near}?")),
                    None => error.hint(format!("`dssflow runs get {}` shows its steps", view.run)),
                }
            })
        })
        .collect()
}

/// Has the process that drives the run turn it round, and watches.
async fn ask_owner(
    ui: &Ui,
    settings: &Settings,
    client: &Client,
    view: &RunView,
    keep: Vec<String>,
) -> CommandResult {
    let mut progress = Progress::plain();
    progress.learn(&client.events(&view.run, 0).await?);
    if view.rolling_back && keep.is_empty() {
        ui.note(&format!("run {} is being taken back already", view.run));
    } else {
        let demand = Demand { by: config::user(), keep, ..Demand::default() };
        client.demand(&view.run, "rollback", &demand).await?;
        ui.note(&format!("the process that drives run {} takes it back", view.run));
    }
    let mut last = view.seq;
    client
        .follow(&view.run, view.seq, &mut |event| {
            last = event.seq;
            progress.event(ui, event);
            true
        })
        .await?;
    let access = Access::open(&settings.store).await?;
    let end = access.view(&view.run).await;
    access.close().await?;
    let end = end?;
    let exit = exit_of(&end, Aim::Back, None);
    summary(ui, settings, &end, exit, None, progress.undo().turned());
    Ok(exit)
}
