//! `dssflow run teardown`: takes back what any run of this store made for a site, as a run of its own.

use dssflow_engine::StartRun;
use dssflow_engine::event::Request;
use dssflow_engine::id::RunId;
use dssflow_engine::run::view::{RunView, view};
use dssflow_engine::run::{RunState, RunStatus};
use dssflow_engine::store::{ListQuery, MAX_PAGE};
use dssflow_workflows::{Teardown, teardown};

use super::run::{choose_site, free_id, sandbox_behind};
use super::{resume, rollback};
use crate::args::{RollbackArgs, RunArgs};
use crate::config::{self, Settings};
use crate::drive::{Aim, Session, Stream};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::takeovers;
use crate::ui::{Ui, one_line};
use crate::world::{self, SANDBOX_LABEL, World};

/// The most things that are listed before somebody says yes.
const MAX_TOLD: usize = 200;

/// Takes back, or goes on with a teardown that is not finished.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: RunArgs) -> CommandResult {
    args.must_select_nothing()?;
    if args.plan.is_some() {
        return Err(CommandError::new(
            Code::Usage,
            "a teardown has no plan: what goes is what the store knows of",
        )
        .hint(format!("`{} resources ls` lists it", settings.command())));
    }
    let id =
        args.id.map(RunId::new).transpose().map_err(|e| CommandError::new(Code::Usage, e.to_string()))?;
    let (mut site, sandbox) =
        choose_site(ui, settings, args.file.as_deref(), &args.set, args.sandbox).await?;
    if let Some(parallelism) = args.parallelism {
        site.parallelism = parallelism;
    }
    let sandbox = match sandbox {
        Some(sandbox) => Some(sandbox),
        None => sandbox_behind(settings, &site).await?,
    };
    if let Some(sandbox) = &sandbox {
        world::must_be_inside(&site, sandbox)?;
    }
    let free = args.yes || sandbox.is_some();
    if !free && !ui.can_ask() {
        ui.confirm(&format!("This deletes what the runs of site {} made, and", site.name))?;
    }
    let session = match Session::open(ui, settings, "dssflow run teardown", false).await {
        Err(error) if error.code == Code::NoStore => return Ok(nothing(ui, &site.name)),
        other => other?,
    };
    let world = world::connect(&site, sandbox).await?;
    let label = world.sandbox.as_ref().map(|s| s.id.clone());
    if let Some(down) = takeovers::tidy(session.store(), &site.name, label.as_deref()).await? {
        session.close().await?;
        ui.note(&format!("going on with run {}", down.run));
        return go_on(ui, settings, &down, args.yes, args.output).await;
    }
    let runs = runs_of(&session, &site.name, label.as_deref()).await?;
    let made = teardown(&site, &runs).map_err(|e| {
        CommandError::new(Code::RunRefused, "together the runs of the site have too many steps").why(e)
    })?;
    let Some(made) = made else {
        session.close().await?;
        return Ok(nothing(ui, &site.name));
    };
    let identity = world.identify(&site).await?;
    for run in &runs {
        World::same_principal(&view(run), &identity)?;
    }
    ui.note(&what_goes(&made, &runs, &identity.principal_arn, settings));
    if !free {
        ui.confirm("Delete this?")?;
    }
    let id = match id {
        Some(id) => id,
        None => free_id(&session, &made.workflow).await?,
    };
    world.hold(&id).await;
    let Teardown { workflow, .. } = made;
    let start = StartRun {
        id: Some(id.clone()),
        version: workflow.version,
        site: workflow.site,
        input: workflow.input,
        options: workflow.options,
        labels: label.into_iter().map(|id| (SANDBOX_LABEL.to_owned(), id)).collect(),
        request: Request::by(config::user()),
        ..StartRun::new(workflow.name, workflow.graph)
    };
    ui.note(&format!("run {id}"));
    let engine = session.engine_in(&world);
    let stream = Stream::new(ui, args.output.output, &id, 0);
    let handle = engine.start(start).await?;
    let exit = session.follow(&engine, handle, stream, Aim::Back, &site).await;
    world.let_go(&id, &exit).await;
    session.close().await?;
    exit
}

fn nothing(ui: &Ui, site: &str) -> Exit {
    ui.note(&format!("no run of this store has left anything of site {site}: nothing to tear down"));
    Exit::Ok
}

/// Goes on with a teardown: from where it was, or with what could not be taken back.
async fn go_on(
    ui: &Ui,
    settings: &Settings,
    down: &RunView,
    yes: bool,
    output: crate::args::FollowOutput,
) -> CommandResult {
    let run = down.run.to_string();
    if down.status == RunStatus::RollbackStuck {
        let args = RollbackArgs { run, to: None, keep: Vec::new(), retry: true, yes, output };
        return Box::pin(rollback::run(ui, settings, args)).await;
    }
    Box::pin(resume::go_on(ui, settings, &run, "run teardown", None, output.output)).await
}

/// Every run of the site in the same world, as its history has it.
async fn runs_of(session: &Session<'_>, site: &str, sandbox: Option<&str>) -> CommandResult<Vec<RunState>> {
    let (mut runs, mut cursor) = (Vec::new(), None);
    loop {
        let query =
            ListQuery { site: Some(site.to_owned()), limit: MAX_PAGE, cursor, ..ListQuery::default() };
        let page = session.engine().list(query).await?;
        for summary in page.runs {
            let here = summary.labels.get(SANDBOX_LABEL).map(String::as_str) == sandbox;
            if here && summary.workflow != dssflow_workflows::teardown::NAME {
                runs.push(session.engine().load(&summary.run).await?);
            }
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(runs);
        }
    }
}

/// What will go, as far as runs recorded it.
fn what_goes(made: &Teardown, runs: &[RunState], principal: &str, settings: &Settings) -> String {
    let mut lines = vec![
        format!("site       {}", one_line(&made.workflow.site)),
        format!("principal  {}", one_line(principal)),
        format!("store      {}", settings.store.display()),
        "takes back, each thing only when it carries the marks of the run that made it:".to_owned(),
    ];
    let mut things = Vec::new();
    // As it goes: what came last first.
    for &ix in made.workflow.graph.order().iter().rev() {
        let step = made.workflow.graph.step(ix);
        let Some(creators) = made.steps.get(&step.name) else { continue };
        if made.protected.contains(&step.name) {
            things.push(format!("  k {} stays: protected by the spec", step.name));
            continue;
        }
        for id in creators {
            let state = runs.iter().find(|run| run.id == *id).and_then(|run| run.step(&step.name));
            let recorded = state.map(|s| s.resources.as_slice()).unwrap_or_default();
            let list: Vec<String> =
                recorded.iter().map(|r| format!("{} {}", one_line(&r.kind), one_line(&r.id))).collect();
            let what = if list.is_empty() { one_line(&step.title) } else { list.join(", ") };
            things.push(format!("  - {} of run {id}: {what}", step.name));
        }
    }
    let more = things.len().saturating_sub(MAX_TOLD);
    lines.extend(things.into_iter().take(MAX_TOLD));
    if more > 0 {
        lines.push(format!("  and {more} more: {} resources ls", settings.command()));
    }
    lines.push("datasets, tables and images of others are kept, and listed at the end".to_owned());
    lines.join("\n")
}
