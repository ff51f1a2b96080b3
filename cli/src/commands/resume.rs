//! `dssflow resume`: goes on with a run where it is, or brings it to the workflow of this version first.

use dssflow_engine::event::{EventKind, Request};
use dssflow_engine::id::RunId;
use dssflow_engine::run::RunStatus;
use dssflow_engine::run::versions::{Change, Comparison, Verdict};
use dssflow_engine::run::view::RunView;

use super::target::{Target, request};
use crate::access::Access;
use crate::args::{FollowFormat, ResumeArgs};
use crate::catalog;
use crate::config::Settings;
use crate::control::Resume;
use crate::control::client::Client;
use crate::describe;
use crate::drive::{Aim, Session, Stream, engine_on, spec_in};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::spec::About;
use crate::ui::Ui;
use crate::{owner, remote};

/// Resumes, then follows.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: &ResumeArgs) -> CommandResult {
    let upgrade = args.upgrade.then_some(args.yes);
    Box::pin(go_on(ui, settings, &args.run, "resume", upgrade, args.output.output)).await
}

/// Goes on with a run. `upgrade` is set when it is to be brought to the workflow of this version; true when nobody need
/// be asked for that.
pub(crate) async fn go_on(
    ui: &Ui,
    settings: &Settings,
    selector: &str,
    verb: &str,
    upgrade: Option<bool>,
    format: FollowFormat,
) -> CommandResult {
    if let Some(client) = owner::served(&settings.store).await {
        return Box::pin(served(ui, settings, client, selector, upgrade, format)).await;
    }
    let store = owner::open_to_drive(&settings.store, &format!("dssflow {verb}"), false).await?;
    let access = Access::Store(store);
    let found = match access.resolve(selector).await {
        Ok(run) => look(&access, &run).await,
        Err(error) => Err(error),
    };
    let (view, aim) = match found {
        Ok(found) => found,
        Err(error) => {
            access.close().await?;
            return Err(error);
        }
    };
    let over = matches!(view.status, RunStatus::Succeeded | RunStatus::RolledBack);
    let target = Target { access, view, driven: false };
    let changed = match upgrade {
        Some(yes) if !over => compare(ui, &target, yes).await,
        None if !over => {
            tell_of_changes(ui, settings, &target).await;
            Ok(false)
        }
        _ => Ok(false),
    };
    let Target { access, view, .. } = target;
    access.close().await?;
    let changed = changed?;
    if over {
        ui.note(&format!("run {} is {}: nothing to do", view.run, describe::words(view.status.as_str())));
        return Ok(Exit::Ok);
    }
    let (session, site, world) = Session::of_run(ui, settings, verb, &view).await?;
    ui.note(&format!("run {}, which is {}", view.run, describe::words(view.status.as_str())));
    world.hold(&view.run).await;
    let engine = session.engine_in(&world);
    let stream = Stream::new(ui, format, &view.run, view.seq);
    // A run that was being taken back on request goes on with that.
    let handle = if changed {
        engine.upgrade(&view.run, request("upgrade")).await?
    } else {
        engine.resume(&view.run, request("")).await?
    };
    let exit = session.follow(&engine, handle, stream, aim, &site).await;
    world.let_go(&view.run, &exit).await;
    session.close().await?;
    exit
}

/// The same where a process serves the store: that one drives the run.
async fn served(
    ui: &Ui,
    settings: &Settings,
    client: Client,
    selector: &str,
    upgrade: Option<bool>,
    format: FollowFormat,
) -> CommandResult {
    let access = Access::Owner(Box::new(client.clone()));
    let run = access.resolve(selector).await?;
    let (view, aim) = look(&access, &run).await?;
    if matches!(view.status, RunStatus::Succeeded | RunStatus::RolledBack) {
        ui.note(&format!("run {run} is {}: nothing to do", describe::words(view.status.as_str())));
        return Ok(Exit::Ok);
    }
    let spec = spec_in(&access.events(&run, 0).await?, &run)?;
    let driven = access.is_driven(&run).await?;
    let target = Target { access, view, driven };
    let changed = if let Some(yes) = upgrade {
        compare(ui, &target, yes).await?
    } else {
        tell_of_changes(ui, settings, &target).await;
        false
    };
    if !driven {
        ui.note(&remote::standing(&target.view));
    }
    let Request { by, reason } = request(if changed { "upgrade" } else { "" });
    let driven = client.resume(&run, &Resume { by, reason, upgrade: changed }).await?;
    remote::driven_on(ui, settings, &client, &driven, format, aim, About::from(&spec)).await
}

/// The run, and what the person wants of it: a rollback that somebody asked for is a success when it is done, one that
/// the run began by itself is a failure tidied up.
pub(crate) async fn look(access: &Access, run: &RunId) -> CommandResult<(RunView, Aim)> {
    let view = access.view(run).await?;
    let back = describe::was_asked_back(&access.events(run, 0).await?);
    Ok((view, if back { Aim::Back } else { Aim::Forward }))
}

/// Shows how the run's workflow differs from that of this version, and asks. False when it does not.
async fn compare(ui: &Ui, target: &Target, yes: bool) -> CommandResult<bool> {
    let run = &target.view.run;
    let Some(comparison) = difference(target).await? else {
        return Err(CommandError::new(
            Code::RunForeign,
            format!("this version has no workflow {}", target.view.workflow),
        )
        .hint("`dssflow workflows ls` lists the workflows there are"));
    };
    let definition = match target.view.workflow.as_str() {
        dssflow_workflows::image::NAME => catalog::image_definition(),
        _ => catalog::definition(),
    };
    let first = target.access.events(run, 0).await?.into_iter().next().map(|event| event.kind);
    let graph = target.access.graph(run).await?;
    // What the definition takes was seen a moment ago.
    let same = match &first {
        Some(EventKind::RunCreated { input, .. }) => {
            definition.graph(input).is_ok_and(|now| now.hash() == graph.hash())
        }
        _ => false,
    };
    if same && comparison.differences.is_empty() {
        ui.note(&format!("run {run} follows workflow {} as it is now: nothing to upgrade", definition.name));
        return Ok(false);
    }
    if target.view.rolling_back {
        return Err(CommandError::new(Code::RunRefused, format!("run {run} is being taken back"))
            .hint("a run that goes backwards keeps the workflow that it was made with"));
    }
    ui.note(&differences(&target.view, definition.version, &comparison));
    target.confirm(
        ui,
        yes,
        "Bring the run to this workflow?",
        "an upgrade does steps again where they or their input changed",
    )?;
    Ok(true)
}

/// How the run differs from its workflow in the version that drives it; nothing when that has no such workflow.
async fn difference(target: &Target) -> CommandResult<Option<Comparison>> {
    let run = &target.view.run;
    match &target.access {
        Access::Store(store) => Ok(engine_on(store)?.compare(run).await?),
        Access::Owner(client) => match client.compare(run).await {
            Ok(comparison) => Ok(Some(comparison)),
            Err(error) if error.code == Code::RunForeign => Ok(None),
            Err(error) => Err(error),
        },
    }
}

/// A run keeps the workflow that it was made with. Whoever resumes it with another version is told what that means.
async fn tell_of_changes(ui: &Ui, settings: &Settings, target: &Target) {
    let run = &target.view.run;
    // What stands against a comparison is told by `--upgrade`; the run goes on without one.
    let Ok(Some(comparison)) = difference(target).await else { return };
    let n = comparison.differences.len();
    let what = match comparison.verdict {
        Verdict::Compatible => return,
        Verdict::PendingOnly => format!("{n} steps differ, none of which has started"),
        Verdict::Incompatible => format!("{n} steps differ, some of which have started"),
    };
    ui.note(&format!(
        "run {run} keeps the workflow that it was made with; in this version {what}: `{} resume {run} --upgrade` \
         shows them and brings it over",
        settings.command()
    ));
}

fn differences(view: &RunView, version: u32, comparison: &Comparison) -> String {
    let verdict = match comparison.verdict {
        Verdict::Compatible => "it does the same: titles, retries or limits differ",
        Verdict::PendingOnly => "only steps differ that have not started",
        Verdict::Incompatible => {
            "steps differ that have started; they and what depends on them are done again"
        }
    };
    let mut text = format!(
        "run {} was made with version {} of workflow {}; now it is at version {version}\n{verdict}",
        view.run, view.workflow_version, view.workflow
    );
    for difference in &comparison.differences {
        let (sign, what) = match difference.change {
            Change::Added => ("+", "is new"),
            Change::Removed => ("-", "is gone"),
            Change::Changed => ("~", "does something else, or is given something else"),
            Change::Retyped => ("~", "takes or gives another type"),
        };
        put!(text, "\n  {sign} {}  {what}", difference.step);
        if let Some(status) = difference.status {
            put!(text, "; it is {}", describe::words(status.as_str()));
        }
    }
    text
}
