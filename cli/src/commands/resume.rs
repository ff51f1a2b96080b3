//! `dssflow resume`: goes on with a run where it is.

use dssflow_engine::event::Request;
use dssflow_engine::id::RunId;
use dssflow_engine::run::RunStatus;
use dssflow_engine::run::view::RunView;

use crate::access::Access;
use crate::args::ResumeArgs;
use crate::config::{self, Settings};
use crate::describe;
use crate::drive::{Aim, Session, Stream};
use crate::error::{CommandResult, Exit};
use crate::owner;
use crate::ui::Ui;

/// Resumes, then follows.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: &ResumeArgs) -> CommandResult {
    let store = owner::open_to_drive(&settings.store, "dssflow resume", false).await?;
    let access = Access::Store(store);
    let found = match access.resolve(&args.run).await {
        Ok(run) => look(&access, &run).await,
        Err(error) => Err(error),
    };
    access.close().await?;
    let (view, aim) = found?;
    if matches!(view.status, RunStatus::Succeeded | RunStatus::RolledBack) {
        ui.note(&format!("run {} is {}: nothing to do", view.run, describe::words(view.status.as_str())));
        return Ok(Exit::Ok);
    }
    let (session, site, world) = Session::of_run(ui, settings, "resume", &view).await?;
    ui.note(&format!("run {}, which is {}", view.run, describe::words(view.status.as_str())));
    world.hold(&view.run).await;
    let engine = session.engine_in(&world);
    let stream = Stream::new(ui, args.output.output, &view.run, view.seq);
    // A run that was being taken back on request goes on with that.
    let handle = engine.resume(&view.run, Request::by(config::user())).await?;
    let exit = session.follow(&engine, handle, stream, aim, &site).await;
    world.let_go(&view.run, &exit).await;
    session.close().await?;
    exit
}

/// The run, and what the person wants of it: a rollback that somebody asked for is a success when it is done, one that
/// the run began by itself is a failure tidied up.
pub(crate) async fn look(access: &Access, run: &RunId) -> CommandResult<(RunView, Aim)> {
    let view = access.view(run).await?;
    let back = describe::was_asked_back(&access.events(run, 0).await?);
    Ok((view, if back { Aim::Back } else { Aim::Forward }))
}
