//! `dssflow plan teardown`: what a teardown of a site would take back, looked up in the world without a change to it.
//!
//! Each step of each run is looked at in the name of that run, as `drift` does. Whether something goes is decided by the
//! step's own undo at that time; what is told here is what that undo would find now.

use std::collections::{BTreeMap, BTreeSet};

use dssflow_engine::activity::Owner;
use dssflow_engine::id::{RunId, StepName};
use dssflow_engine::run::RunState;
use dssflow_engine::run::view::view;
use dssflow_engine::runtime::{Action, Finding, Inspected, LookOptions};
use dssflow_workflows::teardown;
use schemars::JsonSchema;
use serde::Serialize;

use super::ground::Ground;
use super::run::choose_site;
use super::teardown::{self as command, Thing};
use crate::args::{PlanArgs, ViewFormat};
use crate::config::Settings;
use crate::describe;
use crate::drive::Session;
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::takeovers;
use crate::ui::{Style, Ui, one_line};
use crate::world::{self, World};

/// What `plan teardown` prints.
#[derive(Serialize, JsonSchema)]
pub(crate) struct TeardownPlan {
    workflow: &'static str,
    site: String,
    /// What the runs of the site have left, the latest first; empty when they have left nothing.
    steps: Vec<Planned>,
}

/// What a teardown would do with what one step of one run made.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TeardownStep")]
struct Planned {
    step: StepName,
    run: RunId,
    title: String,
    /// `delete`, `nothing` or `unknown`.
    action: Action,
    /// What the look said.
    finding: Finding,
    /// What was recorded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
}

/// Plans and prints.
pub(super) async fn run(ui: &Ui, settings: &Settings, args: PlanArgs) -> CommandResult {
    if args.out.is_some() || args.iam_policy.is_some() {
        return Err(CommandError::new(
            Code::Usage,
            "the plan of a teardown is for reading: --out and --iam-policy go with `plan bootstrap`",
        )
        .hint("what a teardown needs of IAM is in the policies of `plan bootstrap --iam-policy`"));
    }
    let chosen = choose_site(ui, settings, args.file.as_deref(), &args.set, args.sandbox).await?;
    let Ground { site, sandbox } = Ground::of(settings, chosen, None).await?;
    let session = match Session::open(ui, settings, "dssflow plan teardown", false).await {
        Err(error) if error.code == Code::NoStore => {
            print(ui, args.output, site.name, Vec::new());
            return Ok(Exit::Ok);
        }
        other => other?,
    };
    let world = world::connect(&site, sandbox).await?;
    let label = world.sandbox.as_ref().map(|s| s.id.clone());
    let found = look(ui, settings, &session, &world, &site, label.as_deref()).await;
    session.close().await?;
    let planned = found?.unwrap_or_default();
    let has = |action: Action| planned.iter().any(|p| p.action == action);
    let exit = match (args.detailed_exitcode, has(Action::Unknown), has(Action::Delete)) {
        (false, ..) | (true, false, false) => Exit::Ok,
        (true, true, _) => Exit::Preflight,
        (true, false, true) => Exit::Changes,
    };
    print(ui, args.output, site.name, planned);
    Ok(exit)
}

fn print(ui: &Ui, output: ViewFormat, site: String, steps: Vec<Planned>) {
    let plan = TeardownPlan { workflow: teardown::NAME, site, steps };
    match output {
        ViewFormat::Table if plan.steps.is_empty() => ui.note(&command::nothing(&plan.site)),
        ViewFormat::Table => ui.out(&picture(ui, &plan.site, &plan.steps)),
        ViewFormat::Json => ui.json(&plan, true),
        ViewFormat::Yaml => ui.yaml(&plan),
    }
}

/// `None` when the runs of the site have left nothing.
async fn look(
    ui: &Ui,
    settings: &Settings,
    session: &Session<'_>,
    world: &World,
    site: &dssflow_workflows::Site,
    sandbox: Option<&str>,
) -> CommandResult<Option<Vec<Planned>>> {
    let runs = command::runs_of(session.engine(), &site.name, sandbox).await?;
    if let Some(down) = takeovers::under_way(session.store(), &site.name, sandbox).await? {
        let goes_on = settings.address("`dssflow run teardown` goes on with it");
        ui.note(&format!("run {} is at it already: {goes_on}", down.run));
    }
    let made = teardown(site, &runs).map_err(command::too_many)?;
    let Some(made) = made else { return Ok(None) };
    let identity = world.identify(site).await?;
    for run in &runs {
        World::same_principal(&view(run), &identity)?;
    }
    let engine = session.engine_in(world);
    let things = command::things(&made, &runs);
    let mut looked: BTreeMap<&RunId, BTreeMap<StepName, Inspected>> = BTreeMap::new();
    let creators: BTreeSet<&RunId> = things.iter().map(|thing| thing.run).collect();
    for run in creators {
        let found = Box::pin(engine.inspect(run, &LookOptions::default())).await?;
        looked.insert(run, found.into_iter().map(|step| (step.step.clone(), step)).collect());
    }
    let planned = things.iter().map(|thing| {
        let state = runs.iter().find(|run| run.id == *thing.run);
        judge(thing, state, looked[thing.run].get(thing.step))
    });
    Ok(Some(planned.collect()))
}

/// What the undo of the step would find.
fn judge(thing: &Thing<'_>, run: Option<&RunState>, found: Option<&Inspected>) -> Planned {
    let recorded = run
        .and_then(|run| run.step(thing.step))
        .is_some_and(|step| !step.before.is_empty() || !step.resources.is_empty());
    let finding = found.map_or(Finding::NotLooked, |found| found.finding);
    let (action, note) = if thing.protected {
        (Action::Nothing, "protected by the spec: it stays".to_owned())
    } else {
        match (finding, found.and_then(|found| found.owner.as_ref())) {
            (Finding::Missing, _) => (Action::Nothing, "gone already".to_owned()),
            (Finding::Foreign, _) => (Action::Nothing, "what is there is not ours: it stays".to_owned()),
            (Finding::Unknown, _) => {
                let why =
                    found.and_then(|found| found.error.as_ref()).map_or_else(String::new, describe::error);
                (Action::Unknown, format!("cannot tell: {why}"))
            }
            (_, Some(Owner::ThisSite(other))) if !recorded => {
                (Action::Nothing, format!("made by run {}", one_line(other)))
            }
            (_, Some(Owner::Foreign)) if !recorded => {
                (Action::Nothing, "it was there before, and stays".to_owned())
            }
            (Finding::NotLooked, _) => {
                (Action::Delete, "not looked at: its undo finds out what is there".to_owned())
            }
            (Finding::Changed, _) => {
                (Action::Delete, "changed since; what is not as the run left it stays".to_owned())
            }
            (Finding::Broken, _) => {
                let what = found.map_or("", |found| found.note.as_str());
                (Action::Delete, one_line(what))
            }
            (Finding::Fine, _) => (Action::Delete, String::new()),
        }
    };
    Planned {
        step: thing.step.clone(),
        run: thing.run.clone(),
        title: thing.title.to_owned(),
        action,
        finding,
        resources: thing.resources.clone(),
        note,
    }
}

fn picture(ui: &Ui, site: &str, planned: &[Planned]) -> String {
    let mut lines: Vec<String> = planned
        .iter()
        .map(|p| {
            let sign = match p.action {
                Action::Delete | Action::Unknown => ui.mark(Style::Red, &p.action.sign().to_string()),
                _ => p.action.sign().to_string(),
            };
            let mut line = format!("{sign} {}", command::told(&p.step, &p.run, &p.title, &p.resources));
            if !p.note.is_empty() {
                put!(line, "\n    {}", ui.mark(Style::Dim, &p.note));
            }
            line
        })
        .collect();
    let count = |action: Action| planned.iter().filter(|p| p.action == action).count();
    let mut parts = vec![
        format!("{} to take back", count(Action::Delete)),
        format!("{} that stay or are gone", count(Action::Nothing)),
    ];
    if count(Action::Unknown) > 0 {
        parts.push(format!("{} that cannot be told", count(Action::Unknown)));
    }
    lines.push(format!("plan of teardown for site {}: {}", one_line(site), parts.join(", ")));
    lines.push(command::KEPT.to_owned());
    lines.join("\n")
}
