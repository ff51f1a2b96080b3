//! `dssflow pause`, `unpause`, `cancel` and `terminate`: a run comes to a stand, goes on, or ends.
//!
//! A run that another process drives is stopped by that process. To end one that nobody drives takes no world, but
//! for a cancel that takes back what was made.

use dssflow_engine::event::CancelMode;
use dssflow_engine::run::RunStatus;

use super::resume;
use super::target::{Target, request};
use crate::access::Access;
use crate::args::{CancelArgs, FollowFormat, PauseArgs, TerminateArgs, UnpauseArgs};
use crate::config::Settings;
use crate::control::Demand;
use crate::describe;
use crate::drive::{Aim, Session, Stream, engine_on, spec_in};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::remote;
use crate::spec::About;
use crate::ui::Ui;

/// Asks the owner to let the run come to a stand.
pub(crate) async fn pause(ui: &Ui, settings: &Settings, args: PauseArgs) -> CommandResult {
    let target = Target::find(settings, &args.run, &format!("pause {}", args.run)).await?;
    let (run, command) = (&target.view.run, settings.command());
    if target.driven
        && let Access::Owner(client) = &target.access
    {
        client.demand(run, "pause", &Demand::from(request(&args.reason))).await?;
        ui.note(&format!("asked the process that drives run {run} to pause it"));
        return Ok(Exit::Ok);
    }
    let status = target.view.status;
    let result = if status.is_end() || status == RunStatus::Paused {
        ui.note(&format!("run {run} is {}: nothing to do", describe::words(status.as_str())));
        Ok(Exit::Ok)
    } else {
        Err(CommandError::new(
            Code::RunRefused,
            format!("no process drives run {run}, so it stands still already"),
        )
        .why(format!("it is {}", describe::words(status.as_str())))
        .hint(format!("go on with it: {command} resume {run}"))
        .hint(format!("or take it back: {command} rollback {run}")))
    };
    target.access.close().await?;
    result
}

/// Goes on with a run that stands still.
pub(crate) async fn unpause(ui: &Ui, settings: &Settings, args: UnpauseArgs) -> CommandResult {
    let target = Target::find(settings, &args.run, &format!("unpause {}", args.run)).await?;
    let (run, driven) = (target.view.run, target.driven);
    target.access.close().await?;
    if driven {
        ui.note(&format!(
            "run {run} is moving: nothing to do; watch it: {} runs watch {run}",
            settings.command()
        ));
        return Ok(Exit::Ok);
    }
    Box::pin(resume::go_on(ui, settings, run.as_str(), "unpause", None, args.output.output)).await
}

/// Ends the run, with what it made kept or taken back.
pub(crate) async fn cancel(ui: &Ui, settings: &Settings, args: CancelArgs) -> CommandResult {
    let mode = if args.rollback { CancelMode::Rollback } else { CancelMode::Keep };
    let target = Target::find(settings, &args.run, &format!("cancel {}", args.run)).await?;
    if args.rollback {
        target.confirm(
            ui,
            args.yes,
            &format!("This deletes everything run {} made.", target.view.run),
            &format!("this deletes everything run {} made", target.view.run),
        )?;
    }
    Box::pin(end(ui, settings, target, mode, &args.reason)).await
}

/// Ends the run at once.
pub(crate) async fn terminate(ui: &Ui, settings: &Settings, args: TerminateArgs) -> CommandResult {
    let target = Target::find(settings, &args.run, &format!("terminate {}", args.run)).await?;
    target.confirm(
        ui,
        args.yes,
        &format!("End run {} at once? What is under way is left behind.", target.view.run),
        &format!("what run {} has under way is then left behind", target.view.run),
    )?;
    Box::pin(end(ui, settings, target, CancelMode::Terminate, &args.reason.reason)).await
}

async fn end(ui: &Ui, settings: &Settings, target: Target, mode: CancelMode, reason: &str) -> CommandResult {
    let Target { access, view, driven } = target;
    let (run, command) = (&view.run, settings.command());
    let word = if mode == CancelMode::Terminate { "terminate" } else { "cancel" };
    if view.status.is_end() {
        access.close().await?;
        let status = describe::words(view.status.as_str());
        if mode != CancelMode::Rollback || !view.live {
            ui.note(&format!("run {run} is {status}: nothing to {word}"));
            return Ok(Exit::Ok);
        }
        return Err(CommandError::new(Code::RunRefused, format!("run {run} has ended: it is {status}"))
            .hint(format!("take back what it made: {command} rollback {run}")));
    }
    let store = match &access {
        Access::Owner(client) => {
            client.demand(run, "cancel", &Demand::cancel(mode, request(reason))).await?;
            if driven {
                ui.note(&format!("asked the process that drives run {run} to {word} it"));
            } else if mode == CancelMode::Rollback {
                ui.note(&format!(
                    "taking back run {run}, which is {}",
                    describe::words(view.status.as_str())
                ));
                let spec = spec_in(&client.events(run, 0).await?, run)?;
                let stream = Stream::new(ui, FollowFormat::Table, run, view.seq);
                let about = About::from(&spec);
                return Box::pin(remote::follow(ui, settings, client, run, stream, Aim::Back, about)).await;
            } else {
                ui.note(&format!("run {run} is cancelled; what it made is still there"));
            }
            return Ok(Exit::Ok);
        }
        Access::Store(store) => store,
    };
    if mode == CancelMode::Rollback {
        access.close().await?;
        let (session, site, world) = Session::of_run(ui, settings, word, &view).await?;
        ui.note(&format!("taking back run {run}, which is {}", describe::words(view.status.as_str())));
        world.hold(run).await;
        let engine = session.engine_in(&world);
        let stream = Stream::new(ui, FollowFormat::Table, run, view.seq);
        let handle = engine.cancel_idle(run, mode, request(reason)).await?;
        let exit = session.follow(&engine, handle, stream, Aim::Back, &site).await;
        world.let_go(run, &exit).await;
        session.close().await?;
        return exit;
    }
    // Nothing starts by it, so no world is needed.
    let ended = match engine_on(store)?.cancel_idle(run, mode, request(reason)).await {
        Ok(handle) => handle.wait().await,
        Err(error) => Err(error),
    };
    access.close().await?;
    let ended = ended?;
    let left = if ended.live { "; what it made is still there" } else { "" };
    ui.note(&format!("run {run} is {}{left}", describe::words(ended.status.as_str())));
    if ended.live {
        ui.note(&format!("take back: {command} rollback {run}"));
    }
    Ok(Exit::Ok)
}
