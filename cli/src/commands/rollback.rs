//! `dssflow rollback`: takes back everything a run made, or what came after a step. A second one has nothing to do and
//! calls nothing.

use dssflow_engine::event::{PauseKind, Request};
use dssflow_engine::run::RunStatus;
use dssflow_engine::run::view::RunView;
use dssflow_engine::store::ListQuery;

use super::rollback_plan::RollbackPlan;
use super::run::left_to_nobody;
use super::target::Target;
use crate::access::Access;
use crate::args::RollbackArgs;
use crate::config::{self, Settings};
use crate::control::Demand;
use crate::control::client::Client;
use crate::describe;
use crate::drive::{Aim, Session, Stream, exit_of, spec_in, summary};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::progress::Progress;
use crate::remote;
use crate::spec::About;
use crate::takeovers;
use crate::ui::Ui;
use crate::world::SANDBOX_LABEL;

/// Rolls back, then follows.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: RollbackArgs) -> CommandResult {
    let target = Target::find(settings, &args.run, &format!("rollback {}", args.run)).await?;
    let (run, status) = (&target.view.run, target.view.status);
    if status == RunStatus::RolledBack {
        target.access.close().await?;
        ui.note(&format!("run {run} is rolled back already: nothing to do"));
        return Ok(Exit::Ok);
    }
    if let Some(down) = takeovers::taker(&target.access, &target.view).await? {
        return torn_down(ui, settings, target, &down).await;
    }
    let keep = args.keep.iter().map(|name| target.step(name)).collect::<CommandResult<Vec<_>>>()?;
    let to = args.to.as_ref().map(|name| target.step(name)).transpose()?;
    if args.dry_run {
        let graph = target.access.graph(run).await;
        target.access.close().await?;
        return RollbackPlan::of(&target.view, &graph?, to.as_ref(), &keep).print(ui, args.output.output);
    }
    if args.retry && status != RunStatus::RollbackStuck {
        target.access.close().await?;
        return Err(CommandError::new(Code::RunRefused, format!("the rollback of run {run} is not stuck"))
            .why(format!("the run is {}", describe::words(status.as_str())))
            .hint(format!("take back what it made: {} rollback {run}", settings.command())));
    }
    if args.detach && matches!(target.access, Access::Store(_)) {
        target.access.close().await?;
        return Err(left_to_nobody(settings));
    }
    tell_of_nothing(ui, settings, &target).await?;
    if !args.yes && !target.view.labels.contains_key(SANDBOX_LABEL) {
        let what = match &to {
            Some(to) => format!("everything run {run} made after step {to}"),
            None => format!("everything run {run} made"),
        };
        ui.confirm(&format!("This deletes {what}, and")).map_err(|error| match error.code {
            Code::NotConfirmed => error,
            _ => error.why(format!("run {run} is {}", describe::words(status.as_str()))),
        })?;
    }
    let Target { access, view, .. } = target;
    if let Access::Owner(client) = &access {
        if client.serves().await? {
            return Box::pin(ask_server(ui, settings, client, &view, args)).await;
        }
        return ask_owner(ui, settings, client, &view, args).await;
    }
    access.close().await?;

    let (session, site, world) = Session::of_run(ui, settings, "rollback", &view).await?;
    tell_of_restore(ui, settings, &view);
    ui.note(&format!("taking back run {}, which {}", view.run, describe::stands(view.status)));
    world.hold(&view.run).await;
    let engine = session.engine_in(&world);
    let stream = Stream::new(ui, args.output.output, &view.run, view.seq);
    let handle = engine.rollback_to(&view.run, to, keep, Request::by(config::user())).await?;
    let exit = session.follow(&engine, handle, stream, Aim::Back, &site).await;
    world.let_go(&view.run, &exit).await;
    session.close().await?;
    exit
}

/// Whoever takes back the latest run may mean the one before: this one made nothing that is still there.
async fn tell_of_nothing(ui: &Ui, settings: &Settings, target: &Target) -> CommandResult<()> {
    let view = &target.view;
    if view.live || !view.status.is_end() {
        return Ok(());
    }
    ui.note(&format!("run {} has made nothing that could be taken back", view.run));
    let newest = target.access.list(ListQuery::default()).await?.runs;
    if let Some(other) = newest.iter().find(|run| run.live) {
        let (run, command) = (&other.run, settings.command());
        ui.note(&format!("the newest run that has is {run}: {command} rollback {run}"));
    }
    Ok(())
}

fn tell_of_restore(ui: &Ui, settings: &Settings, view: &RunView) {
    if view.paused.as_ref().is_some_and(|paused| paused.kind == PauseKind::Restored) {
        ui.note(&format!(
            "run {0} has not gone on since it was restored: what it made after the backup was not looked for and stays \
             where it is; `{1} resume {0}` looks for it",
            view.run,
            settings.command()
        ));
    }
}

/// A teardown took the run over: when that is done there is nothing to take back, else it is in the way.
async fn torn_down(ui: &Ui, settings: &Settings, target: Target, down: &RunView) -> CommandResult {
    let Target { access, view, .. } = target;
    if !takeovers::is_done(down) {
        access.close().await?;
        return Err(takeovers::in_the_way(&view.site, down, &settings.command()));
    }
    if let Access::Store(store) = &access {
        takeovers::close(store, down).await?;
    }
    access.close().await?;
    ui.note(&format!("run {} was torn down by run {} already: nothing to do", view.run, down.run));
    Ok(Exit::Ok)
}

/// Has the process that serves the store take the run back, and follows.
async fn ask_server(
    ui: &Ui,
    settings: &Settings,
    client: &Client,
    view: &RunView,
    args: RollbackArgs,
) -> CommandResult {
    let run = &view.run;
    let spec = spec_in(&client.events(run, 0).await?, run)?;
    let RollbackArgs { keep, to, output, detach, .. } = args;
    let driven = client.owner().await?.live.contains(run);
    if driven && view.rolling_back && keep.is_empty() && to.is_none() {
        ui.note(&format!("run {run} is being taken back already"));
    } else {
        tell_of_restore(ui, settings, view);
        ui.note(&format!("taking back {}", remote::standing(view)));
        let demand = Demand { keep, to, ..Demand::from(Request::by(config::user())) };
        client.demand(run, "rollback", &demand).await?;
    }
    if detach {
        return remote::detached(ui, settings, client, run, output.output).await;
    }
    let stream = Stream::new(ui, output.output, run, view.seq);
    remote::follow(ui, settings, client, run, stream, Aim::Back, About::from(&spec)).await
}

/// Has the process that drives the run turn it round, and watches.
async fn ask_owner(
    ui: &Ui,
    settings: &Settings,
    client: &Client,
    view: &RunView,
    args: RollbackArgs,
) -> CommandResult {
    let mut progress = Progress::plain(settings);
    progress.learn(&client.events(&view.run, 0).await?);
    let RollbackArgs { keep, to, detach, output, .. } = args;
    if view.rolling_back && keep.is_empty() && to.is_none() {
        ui.note(&format!("run {} is being taken back already", view.run));
    } else {
        let demand = Demand { keep, to, ..Demand::from(Request::by(config::user())) };
        client.demand(&view.run, "rollback", &demand).await?;
        ui.note(&format!("the process that drives run {} takes it back", view.run));
    }
    if detach {
        return remote::detached(ui, settings, client, &view.run, output.output).await;
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
