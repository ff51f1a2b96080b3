//! `dssflow plan`: what a run would do, step by step, without changing or recording anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use dssflow_engine::StartRun;
use dssflow_engine::id::StoreId;
use dssflow_engine::runtime::{Action, LookOptions, Plan, Planned};
use dssflow_engine::store::Store;
use dssflow_engine::store::memory::MemoryStore;
use dssflow_workflows::Workflow;

use crate::args::{PlanArgs, ViewFormat};
use crate::catalog::{self, MadeOf};
use crate::commands::ground::Ground;
use crate::commands::run::choose_site;
use crate::config::Settings;
use crate::describe;
use crate::drive::{engine_over, equip};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::iam_policy;
use crate::plans::{Actor, Revision, SavedPlan};
use crate::progress::now;
use crate::ui::{Style, Ui, one_line};
use crate::world::{self, World};

/// Plans, prints, saves.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: PlanArgs) -> CommandResult {
    let made_of = catalog::find(&args.workflow)?.made_of;
    if made_of == MadeOf::Resync {
        return Box::pin(super::resync::plan(ui, settings, args)).await;
    }
    if !args.dataset.is_empty() || !args.connection.is_empty() {
        return Err(CommandError::new(Code::Usage, "--dataset and --connection are for glue-resync"));
    }
    match made_of {
        MadeOf::Site | MadeOf::Resync => {}
        MadeOf::SiteAndRuns => return Box::pin(super::teardown_plan::run(ui, settings, args)).await,
        MadeOf::Images => {
            return Err(CommandError::new(
                Code::Usage,
                format!("there are no plans of workflow {}", args.workflow),
            )
            .hint(format!("`{} plan bootstrap` plans a site", settings.command())));
        }
    }
    let chosen = choose_site(ui, settings, args.file.as_deref(), &args.set, args.sandbox).await?;
    if let Some(who) = &args.iam_policy {
        return iam_policy::print(ui, &chosen.0, who);
    }
    let Ground { site, sandbox } = Ground::of(settings, chosen, None).await?;
    let workflow = catalog::build(&args.workflow, &site)?;
    let revision =
        Revision::read(&settings.store, &format!("dssflow plan {}", args.workflow), &site.name).await?;
    let world = world::connect(&site, sandbox).await?;
    let identity = world.identify(&site).await?;
    let plan = look(&world, &workflow, &revision).await?;
    let actor = Actor::new(&identity, world.sandbox.as_ref().map(|s| s.id.clone()));
    let costs = dssflow_workflows::costs(&site);
    let saved = SavedPlan::new(&workflow, revision, actor, costs, plan, now());
    if let Some(path) = &args.out {
        saved.write(path, args.force)?;
    }
    match args.output {
        ViewFormat::Table => {
            ui.out(&picture(ui, &saved));
            for line in dssflow_workflows::security_notes(&site) {
                ui.note(&format!("open: {}", one_line(&line)));
            }
        }
        ViewFormat::Json => ui.json(&saved, true),
        ViewFormat::Yaml => ui.yaml(&saved),
    }
    if let Some(path) = &args.out {
        ui.note(&format!(
            "saved; run just this: {} run {} --plan {}",
            settings.command(),
            args.workflow,
            path.display()
        ));
    }
    Ok(match (args.detailed_exitcode, saved.plan.has_trouble(), saved.plan.has_changes()) {
        (false, ..) | (true, false, false) => Exit::Ok,
        (true, true, _) => Exit::Preflight,
        (true, false, true) => Exit::Changes,
    })
}

/// Asks the world. The store is not needed for that, only its id, by which things of ours are told from others'.
///
/// # Errors
/// When the workflow names code that is not there.
pub(crate) async fn look(world: &World, workflow: &Workflow, revision: &Revision) -> CommandResult<Plan> {
    // Without a store nothing can be ours.
    let id = revision.store.clone().unwrap_or_else(|| StoreId::generate([0; 16]));
    let engine = equip(&engine_over(Arc::new(MemoryStore::new(id)) as Arc<dyn Store>)?, world);
    let start = StartRun {
        version: workflow.version,
        site: workflow.site.clone(),
        input: workflow.input.clone(),
        options: workflow.options.clone(),
        ..StartRun::new(workflow.name.clone(), workflow.graph.clone())
    };
    Ok(Box::pin(engine.plan(&start, &LookOptions::default())).await?)
}

fn picture(ui: &Ui, saved: &SavedPlan) -> String {
    let plan = &saved.plan;
    let mut groups: BTreeMap<(usize, &str), Vec<&Planned>> = BTreeMap::new();
    for step in &plan.steps {
        groups.entry((describe::place_of(&step.group), &step.group)).or_default().push(step);
    }
    let width = plan.steps.iter().map(|s| s.step.as_str().len()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for ((_, heading), steps) in groups {
        if !heading.is_empty() {
            lines.push(ui.mark(Style::Bold, &one_line(heading)));
        }
        for step in steps {
            let sign = match step.action {
                Action::Create => ui.mark(Style::Green, "+"),
                Action::Update | Action::Wait => ui.mark(Style::Yellow, &step.action.sign().to_string()),
                Action::Delete | Action::Conflict | Action::Unknown => {
                    ui.mark(Style::Red, &step.action.sign().to_string())
                }
                Action::Adopt | Action::Gate | Action::Nothing => step.action.sign().to_string(),
            };
            let mut line = format!("  {sign} {:width$}  {}", step.step.as_str(), one_line(&step.title));
            if let Some(expected) = step.expected_ms.filter(|_| step.action.is_change()) {
                put!(line, " ({})", describe::usually(expected));
            }
            lines.push(line);
            let mut more = |text: String| lines.push(format!("    {:width$}  {text}", ""));
            match step.action {
                Action::Conflict => more(format!(
                    "conflict: {}; a run stops here for a person, unless the site adopts it (`adopt: [{}]`)",
                    one_line(&step.note),
                    step.step
                )),
                Action::Unknown => {
                    let why = step.error.as_ref().map_or_else(String::new, describe::error);
                    more(format!("cannot tell: {why}"));
                    if let Some(help) = step.error.as_ref().and_then(|e| e.help.as_ref()) {
                        more(format!("help: {}", one_line(help)));
                    }
                }
                _ if !step.note.is_empty() => more(ui.mark(Style::Dim, &one_line(&step.note))),
                _ => {}
            }
            if let Some(cost) = saved.costs.get(step.step.as_str()).filter(|_| step.action.is_change()) {
                more(format!("costs: {}", one_line(cost)));
            }
        }
    }
    lines.push(totals(saved));
    lines.join("\n")
}

/// The last line: how much of what, and how long.
fn totals(saved: &SavedPlan) -> String {
    let count = |action: Action| saved.totals.get(&action).copied().unwrap_or_default();
    let mut parts: Vec<String> = [
        (Action::Create, "to create"),
        (Action::Update, "to update"),
        (Action::Adopt, "to adopt"),
        (Action::Delete, "to delete"),
    ]
    .map(|(action, word)| format!("{} {word}", count(action)))
    .into();
    for (action, word) in [
        (Action::Gate, "waiting for somebody"),
        (Action::Wait, "in progress outside"),
        (Action::Conflict, "in conflict"),
        (Action::Unknown, "that cannot be told"),
    ] {
        if count(action) > 0 {
            parts.push(format!("{} {word}", count(action)));
        }
    }
    parts.push(format!("{} as they are", count(Action::Nothing)));
    let mut line =
        format!("plan of {} for site {}: {}", saved.workflow, one_line(&saved.site), parts.join(", "));
    if saved.plan.expected_ms > 0 {
        put!(line, "; {} on the longest path", describe::usually(saved.plan.expected_ms));
    }
    line
}
