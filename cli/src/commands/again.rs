//! `dssflow retry`, `rerun` and `fork`: steps are done once more, in the same run or in a new one.
//!
//! Of a run that has ended, that nobody drives, or that paused for the very step, the run goes on and is followed as
//! `resume` does. A run that stands still because somebody wants it to, or for another step, stays so: then the wish is
//! only written down, and no world is needed.

use std::collections::BTreeSet;

use dssflow_engine::event::{PauseKind, Request};
use dssflow_engine::id::StepName;
use dssflow_engine::run::RunStatus;
use dssflow_engine::run::Verb;
use dssflow_engine::run::view::RunView;
use dssflow_engine::{Engine, RunHandle};

use super::ground::chosen_id;
use super::target::{Target, explain, request, step_of};
use crate::access::Access;
use crate::args::{FollowFormat, ForkArgs, RerunArgs, RetryArgs};
use crate::config::Settings;
use crate::control::client::Client;
use crate::control::{Act, Fork};
use crate::describe;
use crate::drive::{Aim, Session, Stream, spec_in};
use crate::error::{Code, CommandError, CommandResult};
use crate::spec::About;
use crate::ui::Ui;
use crate::{owner, remote};

/// The most steps that are named before the rest is counted.
const MAX_LISTED: usize = 40;

/// Tries one step at once.
pub(crate) async fn retry(ui: &Ui, settings: &Settings, args: RetryArgs) -> CommandResult {
    let target = Target::find(settings, &args.run, &format!("retry {}", args.run)).await?;
    let step = target.step(&args.step)?;
    let verb = Verb::Retry { step: step.clone() };
    let reason = args.reason.reason;
    let goes_on = goes_on(&target.view, &step);
    if goes_on && let Some(client) = target.server().await? {
        return Box::pin(ask_server(ui, settings, target, client, verb, &reason, args.output.output)).await;
    }
    if !goes_on || matches!(target.access, Access::Owner(_)) {
        let done = format!("step {step} is to be tried again");
        return target.write(ui, settings, verb, &reason, &done).await;
    }
    Box::pin(drive(ui, settings, target, verb, &reason, args.output.output)).await
}

/// Does a step and what depends on it again.
pub(crate) async fn rerun(ui: &Ui, settings: &Settings, args: RerunArgs) -> CommandResult {
    let target = Target::find(settings, &args.run, &format!("rerun {}", args.run)).await?;
    let from = target.step(&args.from)?;
    let closure = closure(&target.view, &from);
    let mut lines = vec![format!("steps that are done again: {}", closure.len())];
    lines.extend(closure.iter().take(MAX_LISTED).map(|s| {
        format!("  {} {}  {}", describe::sign(s.status), s.step, describe::words(s.status.as_str()))
    }));
    if closure.len() > MAX_LISTED {
        lines.push(format!("  and {} more", closure.len() - MAX_LISTED));
    }
    ui.note(&lines.join("\n"));
    target.confirm(ui, args.yes, "Do these steps again?", "doing steps again can change what is there")?;
    let verb = Verb::Rerun { from: from.clone() };
    if target.view.paused.is_none()
        && let Some(client) = target.server().await?
    {
        return Box::pin(ask_server(ui, settings, target, client, verb, &args.reason, args.output.output))
            .await;
    }
    if target.view.paused.is_some() || matches!(target.access, Access::Owner(_)) {
        let done = format!("step {from} is to be done again, with {} after it", closure.len() - 1);
        return target.write(ui, settings, verb, &args.reason, &done).await;
    }
    Box::pin(drive(ui, settings, target, verb, &args.reason, args.output.output)).await
}

/// Starts a run that takes over from another.
pub(crate) async fn fork(ui: &Ui, settings: &Settings, args: ForkArgs) -> CommandResult {
    let id = chosen_id(args.id.as_deref())?;
    let access = match owner::served(&settings.store).await {
        Some(client) => Access::Owner(Box::new(client)),
        None => Access::Store(owner::open_to_drive(&settings.store, "dssflow fork", false).await?),
    };
    let found = match access.resolve(&args.run).await {
        Ok(run) => access.view(&run).await,
        Err(error) => Err(error),
    };
    let target = Target { access, view: found?, driven: false };
    let from = step_of(&target.view, &args.from)?;
    target.confirm(ui, args.yes, "Start a new run from there?", "a new run makes things that cost")?;
    let Target { access, view, .. } = target;
    if let Access::Owner(client) = &access {
        let spec = spec_in(&client.events(&view.run, 0).await?, &view.run)?;
        let Request { by, reason } = request(&args.reason);
        let driven = client.fork(&view.run, &Fork { from: from.clone(), id, by, reason }).await?;
        let run = &driven.run;
        ui.note(&format!("run {run}, which takes over what run {} did before {from}", view.run));
        let (format, about) = (args.output.output, About::from(&spec));
        return Box::pin(remote::driven_on(ui, settings, client, &driven, format, Aim::Forward, about)).await;
    }
    access.close().await?;

    let (session, site, world) = Session::of_run(ui, settings, "fork", &view).await?;
    let engine = session.engine_in(&world);
    let handle = engine.fork(&view.run, &from, id, request(&args.reason)).await?;
    let run = handle.id().clone();
    world.hold(&run).await;
    ui.note(&format!("run {run}, which takes over what run {} did before {from}", view.run));
    let stream = Stream::new(ui, args.output.output, &run, 0);
    let exit = session.follow(&engine, handle, stream, Aim::Forward, &site).await;
    world.let_go(&run, &exit).await;
    session.close().await?;
    exit
}

/// Whether the run stands still only because of the step, so that retrying it means to go on.
pub(super) fn goes_on(view: &RunView, step: &StepName) -> bool {
    match (&view.paused, view.status) {
        (Some(why), _) => why.kind != PauseKind::Requested && why.step.as_ref() == Some(step),
        (None, RunStatus::RollingBack | RunStatus::RollbackStuck) => false,
        (None, _) => true,
    }
}

/// A step and all that depends on it, as the view shows them.
fn closure<'v>(view: &'v RunView, from: &StepName) -> Vec<&'v dssflow_engine::run::view::StepView> {
    let mut names: BTreeSet<&StepName> = BTreeSet::from([from]);
    // The steps stand in an order in which what is needed comes first.
    view.steps
        .iter()
        .filter(|s| {
            let again = s.step == *from || s.after.iter().any(|a| names.contains(a));
            if again {
                names.insert(&s.step);
            }
            again
        })
        .collect()
}

/// Has the process that serves the store go on with the run, the verb first, and follows.
async fn ask_server(
    ui: &Ui,
    settings: &Settings,
    target: Target,
    client: Client,
    verb: Verb,
    reason: &str,
    format: FollowFormat,
) -> CommandResult {
    let Target { view, driven, .. } = target;
    let run = &view.run;
    let spec = spec_in(&client.events(run, 0).await?, run)?;
    if !driven {
        ui.note(&remote::standing(&view));
    }
    let act = Act { verb: verb.clone(), request: request(reason), drive: true };
    let command = settings.command();
    client.act(run, &act).await.map_err(|error| explain(error, &view, driven, &verb, &command))?;
    let stream = Stream::new(ui, format, run, view.seq);
    remote::follow(ui, settings, &client, run, stream, Aim::Forward, About::from(&spec)).await
}

/// Goes on with the run as `resume` does, the verb first.
pub(super) async fn drive(
    ui: &Ui,
    settings: &Settings,
    target: Target,
    verb: Verb,
    reason: &str,
    format: FollowFormat,
) -> CommandResult {
    let Target { access, view, .. } = target;
    access.close().await?;
    let word = match verb {
        Verb::Retry { .. } => "retry",
        Verb::Adopt { .. } => "resources adopt",
        _ => "rerun",
    };
    let (session, site, world) = Session::of_run(ui, settings, word, &view).await?;
    ui.note(&format!("run {}, which is {}", view.run, describe::words(view.status.as_str())));
    world.hold(&view.run).await;
    let engine = session.engine_in(&world);
    let stream = Stream::new(ui, format, &view.run, view.seq);
    let started = begin(&engine, &view, verb.clone(), request(reason)).await;
    let handle = match started {
        Ok(handle) => handle,
        Err(error) => {
            session.close().await?;
            return Err(explain(error, &view, false, &verb, &settings.command()));
        }
    };
    let exit = session.follow(&engine, handle, stream, Aim::Forward, &site).await;
    world.let_go(&view.run, &exit).await;
    session.close().await?;
    exit
}

/// The verb, and the run goes on.
pub(crate) async fn begin(
    engine: &Engine,
    view: &RunView,
    verb: Verb,
    request: Request,
) -> CommandResult<RunHandle> {
    if view.paused.is_some() {
        engine.note(&view.run, verb, request.clone()).await?;
        return Ok(engine.resume(&view.run, request).await?);
    }
    engine.act(&view.run, verb, request).await?.handle.ok_or_else(|| {
        CommandError::new(Code::RunRefused, format!("run {} stands still", view.run))
            .hint(format!("`dssflow why {}` says why", view.run))
    })
}
