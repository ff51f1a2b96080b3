//! `dssflow run teardown`: takes back what any run of this store made for a site, as a run of its own.

use dssflow_engine::Engine;
use dssflow_engine::graph::GraphError;
use dssflow_engine::id::{RunId, StepName};
use dssflow_engine::run::view::{RunView, view};
use dssflow_engine::run::{RunState, RunStatus};
use dssflow_engine::store::{ListQuery, MAX_PAGE};
use dssflow_workflows::{Site, Teardown, teardown};

use super::ground::{Ground, chosen_id};
use super::run::{choose_site, start};
use super::{resume, rollback};
use crate::args::{RollbackArgs, RunArgs};
use crate::config::Settings;
use crate::control::Order;
use crate::describe;
use crate::drive::{Aim, Session};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::spec::About;
use crate::takeovers;
use crate::ui::{Ui, one_line};
use crate::world::{self, SANDBOX_LABEL, World};
use crate::{owner, remote};

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
        .hint(format!("`{} plan teardown` shows it", settings.command())));
    }
    let id = chosen_id(args.id.as_deref())?;
    let chosen = choose_site(ui, settings, args.file.as_deref(), &args.set, args.sandbox).await?;
    let Ground { site, sandbox } = Ground::of(settings, chosen, args.parallelism).await?;
    let free = args.yes || sandbox.is_some();
    if !free && !ui.can_ask() {
        ui.confirm(&format!("This deletes what the runs of site {} made, and", site.name))?;
    }
    if let Some(client) = owner::served(&settings.store).await {
        let world = world::connect(&site, sandbox).await?;
        let spec = serde_json::to_value(&site).expect("a site is plain data");
        let mut order = Order::new(&args.workflow, spec, id);
        if !args.as_served {
            order.principal = remote::principal(&world, About::from(&site)).await;
        }
        let how = args.how(Aim::Back);
        return Box::pin(remote::order(ui, settings, &client, order, &how, About::from(&site))).await;
    }
    args.must_be_followed(settings)?;
    let session = match Session::open(ui, settings, "dssflow run teardown", false).await {
        Err(error) if error.code == Code::NoStore => {
            ui.note(&nothing(&site.name));
            return Ok(Exit::Ok);
        }
        other => other?,
    };
    let world = world::connect(&site, sandbox).await?;
    let label = world.sandbox.as_ref().map(|s| s.id.clone());
    if let Some(down) = takeovers::tidy(session.store(), &site.name, label.as_deref()).await? {
        session.close().await?;
        ui.note(&format!("going on with run {}", down.run));
        return go_on(ui, settings, &down, args.yes, args.output).await;
    }
    let runs = runs_of(session.engine(), &site.name, label.as_deref()).await?;
    let Some(made) = made_of(&site, &runs)? else {
        session.close().await?;
        ui.note(&nothing(&site.name));
        return Ok(Exit::Ok);
    };
    let identity = world.identify(&site).await?;
    for run in &runs {
        World::same_principal(&view(run), &identity)?;
    }
    ui.note(&what_goes(&made, &runs, &identity.principal_arn, settings));
    if !free {
        ui.confirm("Delete this?")?;
    }
    Box::pin(start(
        ui,
        session,
        &world,
        made.workflow,
        id,
        (Aim::Back, args.output.output),
        About::from(&site),
    ))
    .await
}

/// What is told when there is nothing to take back.
pub(crate) fn nothing(site: &str) -> String {
    format!("no run of this store has left anything of site {site}: nothing to tear down")
}

/// The teardown of what runs made for a site; none when they have left nothing.
///
/// # Errors
/// When it has too many steps.
pub(crate) fn made_of(site: &Site, runs: &[RunState]) -> CommandResult<Option<Teardown>> {
    teardown(site, runs).map_err(too_many)
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
        let args = RollbackArgs {
            run,
            to: None,
            keep: Vec::new(),
            retry: true,
            dry_run: false,
            yes,
            detach: false,
            output,
        };
        return Box::pin(rollback::run(ui, settings, args)).await;
    }
    Box::pin(resume::go_on(ui, settings, &run, "run teardown", None, output.output)).await
}

/// Every run of the site in the same world, as its history has it.
pub(crate) async fn runs_of(
    engine: &Engine,
    site: &str,
    sandbox: Option<&str>,
) -> CommandResult<Vec<RunState>> {
    let (mut runs, mut cursor) = (Vec::new(), None);
    loop {
        let query =
            ListQuery { site: Some(site.to_owned()), limit: MAX_PAGE, cursor, ..ListQuery::default() };
        let page = engine.list(query).await?;
        for summary in page.runs {
            let here = summary.labels.get(SANDBOX_LABEL).map(String::as_str) == sandbox;
            if here && summary.workflow != dssflow_workflows::teardown::NAME {
                runs.push(engine.load(&summary.run).await?);
            }
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(runs);
        }
    }
}

/// The error of runs that together are more than one teardown can take back.
pub(super) fn too_many(error: GraphError) -> CommandError {
    CommandError::new(Code::RunRefused, "together the runs of the site have too many steps").why(error)
}

/// What stays whatever is taken back.
pub(super) const KEPT: &str = "datasets, tables and images of others are kept, and listed at the end";

/// Something that goes, or that `protect` keeps: what one step of one run made.
pub(super) struct Thing<'a> {
    pub(super) step: &'a StepName,
    pub(super) run: &'a RunId,
    pub(super) title: &'a str,
    /// What the run recorded, as kind and id.
    pub(super) resources: Vec<String>,
    pub(super) protected: bool,
}

/// All there is to take back, in that order: what came last first.
pub(super) fn things<'a>(made: &'a Teardown, runs: &[RunState]) -> Vec<Thing<'a>> {
    let mut things = Vec::new();
    for &ix in made.workflow.graph.order().iter().rev() {
        let step = made.workflow.graph.step(ix);
        for run in made.steps.get(&step.name).into_iter().flatten() {
            let state = runs.iter().find(|state| state.id == *run).and_then(|state| state.step(&step.name));
            let recorded = state.map(|s| s.resources.as_slice()).unwrap_or_default();
            let done = state.is_some_and(|s| s.output.is_some());
            things.push(Thing {
                step: &step.name,
                run,
                title: &step.title,
                resources: describe::standing(recorded, done)
                    .map(|r| format!("{} {}", one_line(&r.kind), one_line(&r.id)))
                    .collect(),
                protected: made.protected.contains(&step.name),
            });
        }
    }
    things
}

/// One of them in a line.
pub(super) fn told(step: &StepName, run: &RunId, title: &str, resources: &[String]) -> String {
    let what = if resources.is_empty() { one_line(title) } else { resources.join(", ") };
    format!("{step} of run {run}: {what}")
}

/// What will go, as far as runs recorded it.
pub(crate) fn what_goes(made: &Teardown, runs: &[RunState], principal: &str, settings: &Settings) -> String {
    let mut lines = vec![
        format!("site       {}", one_line(&made.workflow.site)),
        format!("principal  {}", one_line(principal)),
        format!("store      {}", settings.store.display()),
        "takes back, each thing only when it carries the marks of the run that made it:".to_owned(),
    ];
    let all = things(made, runs);
    lines.extend(all.iter().take(MAX_TOLD).map(|thing| {
        let told = told(thing.step, thing.run, thing.title, &thing.resources);
        if thing.protected {
            format!("  k {told}: stays, protected by the spec")
        } else {
            format!("  - {told}")
        }
    }));
    let more = all.len().saturating_sub(MAX_TOLD);
    if more > 0 {
        lines.push(format!("  and {more} more: {} plan teardown", settings.command()));
    }
    lines.push(KEPT.to_owned());
    lines.join("\n")
}
