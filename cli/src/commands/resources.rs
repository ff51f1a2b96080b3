//! `dssflow resources`: what runs made that is still there, as the store knows it and as the world shows it.

use std::collections::BTreeSet;
use std::sync::Arc;

use dssflow_activities::aws::sweep::{self, Leftover};
use dssflow_engine::activity::Marks;
use dssflow_engine::id::RunId;
use dssflow_engine::run::view::RunView;
use dssflow_engine::runtime::Finding;
use dssflow_engine::store::{ListQuery, MAX_PAGE};
use schemars::JsonSchema;
use serde::Serialize;

use super::adopt;
use super::target::Target;
use crate::access::Access;
use crate::args::{ListFormat, ResourcesCommand, ResourcesLsArgs, ResourcesRunArgs};
use crate::config::Settings;
use crate::describe;
use crate::drive::Session;
use crate::error::{CommandResult, Exit};
use crate::ui::{Ui, one_line};
use crate::world::World;

/// Runs one of them.
pub(crate) async fn run(ui: &Ui, settings: &Settings, command: ResourcesCommand) -> CommandResult {
    match command {
        ResourcesCommand::Ls(args) => ls(ui, settings, &args).await,
        ResourcesCommand::Verify(args) => verify(ui, settings, &args).await,
        ResourcesCommand::Orphans(args) => orphans(ui, settings, &args).await,
        ResourcesCommand::Adopt(args) => adopt::run(ui, settings, args).await,
    }
}

/// Something a run made.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Made {
    run: RunId,
    step: String,
    kind: String,
    id: String,
    generation: u32,
}

fn made(view: &RunView) -> Vec<Made> {
    let of_step = |step: &dssflow_engine::run::view::StepView| {
        let name = step.step.to_string();
        let list = describe::standing(&step.resources, step.output.is_some()).map(move |resource| Made {
            run: view.run.clone(),
            step: name.clone(),
            kind: resource.kind.clone(),
            id: resource.id.clone(),
            generation: resource.generation,
        });
        list.collect::<Vec<_>>()
    };
    view.steps.iter().filter(|step| step.live).flat_map(of_step).collect()
}

async fn ls(ui: &Ui, settings: &Settings, args: &ResourcesLsArgs) -> CommandResult {
    let access = Access::open(&settings.store).await?;
    let all = list(&access, args.run.as_deref()).await;
    access.close().await?;
    let all = all?;
    match args.output {
        ListFormat::Table | ListFormat::Wide => {
            if all.is_empty() {
                ui.note("no run of this store has made anything that it has not taken back");
            } else {
                let wide = args.output == ListFormat::Wide;
                let mut heading = vec!["RUN", "STEP", "KIND", "ID"];
                if wide {
                    heading.push("GENERATION");
                }
                let rows: Vec<Vec<String>> = all
                    .iter()
                    .map(|m| {
                        let mut row = vec![m.run.to_string(), m.step.clone(), m.kind.clone(), m.id.clone()];
                        if wide {
                            row.push(m.generation.to_string());
                        }
                        row
                    })
                    .collect();
                ui.table(&heading, &rows, wide);
            }
        }
        ListFormat::Json => ui.json(&all, true),
        ListFormat::Jsonl => all.iter().for_each(|m| ui.json(m, false)),
        ListFormat::Yaml => ui.yaml(&all),
        ListFormat::Name => all.iter().for_each(|m| ui.out(&one_line(&m.id))),
    }
    Ok(Exit::Ok)
}

async fn list(access: &Access, run: Option<&str>) -> CommandResult<Vec<Made>> {
    if let Some(run) = run {
        return Ok(made(&access.view(&access.resolve(run).await?).await?));
    }
    let mut all = Vec::new();
    for run in runs(access, None, true).await? {
        all.extend(made(&access.view(&run).await?));
    }
    Ok(all)
}

/// Runs of one site or of all, newest first; all of them, or those that made something they have not taken back.
async fn runs(access: &Access, site: Option<&str>, live: bool) -> CommandResult<Vec<RunId>> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let query =
            ListQuery { site: site.map(str::to_owned), limit: MAX_PAGE, cursor, ..ListQuery::default() };
        let page = access.list(query).await?;
        found.extend(page.runs.into_iter().filter(|run| run.live || !live).map(|run| run.run));
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(found);
        }
    }
}

/// What a look said of something a run made.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Verified {
    step: String,
    kind: String,
    id: String,
    finding: Finding,
    note: String,
}

async fn verify(ui: &Ui, settings: &Settings, args: &ResourcesRunArgs) -> CommandResult {
    let target = Target::find(settings, &args.run.run, &format!("resources verify {}", args.run.run)).await?;
    let (_, found) = Box::pin(target.inspect(ui, settings, "resources verify")).await?;
    let mut all = Vec::new();
    for step in found {
        let note = match &step.error {
            Some(error) => describe::error(error),
            None => step.note.clone(),
        };
        all.extend(step.resources.iter().map(|resource| Verified {
            step: step.step.to_string(),
            kind: resource.kind.clone(),
            id: resource.id.clone(),
            finding: step.finding,
            note: note.clone(),
        }));
    }
    match args.output {
        ListFormat::Table | ListFormat::Wide => {
            let rows: Vec<Vec<String>> = all
                .iter()
                .map(|v| {
                    let finding = describe::words(v.finding.as_str());
                    vec![v.step.clone(), v.kind.clone(), v.id.clone(), finding, v.note.clone()]
                })
                .collect();
            let wide = args.output == ListFormat::Wide;
            ui.table(&["STEP", "KIND", "ID", "FOUND", "NOTE"], &rows, wide);
        }
        ListFormat::Json => ui.json(&all, true),
        ListFormat::Jsonl => all.iter().for_each(|v| ui.json(v, false)),
        ListFormat::Yaml => ui.yaml(&all),
        ListFormat::Name => all.iter().for_each(|v| ui.out(&one_line(&v.id))),
    }
    Ok(if all.iter().any(|v| v.finding.is_drift()) { Exit::Changes } else { Exit::Ok })
}

async fn orphans(ui: &Ui, settings: &Settings, args: &ResourcesRunArgs) -> CommandResult {
    let target =
        Target::find(settings, &args.run.run, &format!("resources orphans {}", args.run.run)).await?;
    let Target { access, view, .. } = target;
    let orphans = match &access {
        Access::Owner(client) if client.serves().await? => client.orphans(&view.run).await?,
        _ => {
            access.close().await?;
            let (session, _, world) = Session::of_run(ui, settings, "resources orphans", &view).await?;
            let access = Access::Store(Arc::clone(session.store()));
            let found = Box::pin(look_for_orphans(&access, &world, &view)).await;
            session.close().await?;
            found?
        }
    };
    match args.output {
        ListFormat::Table | ListFormat::Wide => {
            if orphans.is_empty() {
                ui.note(&format!("nothing carries the marks of site {} that no run knows of", view.site));
            } else {
                let rows: Vec<Vec<String>> = orphans
                    .iter()
                    .map(|o| vec![o.kind.clone(), o.id.clone(), o.run.clone(), o.step.clone()])
                    .collect();
                let wide = args.output == ListFormat::Wide;
                ui.table(&["KIND", "ID", "RUN", "STEP"], &rows, wide);
            }
        }
        ListFormat::Json => ui.json(&orphans, true),
        ListFormat::Jsonl => orphans.iter().for_each(|o| ui.json(o, false)),
        ListFormat::Yaml => ui.yaml(&orphans),
        ListFormat::Name => orphans.iter().for_each(|o| ui.out(&one_line(&o.id))),
    }
    Ok(if orphans.is_empty() { Exit::Ok } else { Exit::Changes })
}

/// What carries the marks of the site of a run and no run knows of.
///
/// # Errors
/// When runs cannot be read, or the look fails.
pub(crate) async fn look_for_orphans(
    access: &Access,
    world: &World,
    view: &RunView,
) -> CommandResult<Vec<Leftover>> {
    let known = known(access, &view.site).await?;
    let marks = Marks {
        store: access.store_id().await?.as_str().to_owned(),
        site: view.site.clone(),
        run: view.run.to_string(),
        step: String::new(),
        generation: 1,
    };
    let found = Box::pin(sweep::of_site(&world.clients, &marks, &[])).await?;
    Ok(found.into_iter().filter(|left| !known.has(left)).collect())
}

/// What runs of a site know of: what they have not taken back, and what they left in place.
#[derive(Debug, Default)]
struct Known {
    /// Ids that were recorded.
    ids: BTreeSet<String>,
    /// Runs with those of their steps that may have made something. What somebody else makes for a step, as eksctl its
    /// stacks, carries its marks and is not recorded.
    steps: BTreeSet<(String, String)>,
}

impl Known {
    fn has(&self, left: &Leftover) -> bool {
        self.ids.contains(&left.id) || self.steps.contains(&(left.run.clone(), left.step.clone()))
    }
}

async fn known(access: &Access, site: &str) -> CommandResult<Known> {
    let mut known = Known::default();
    for run in runs(access, Some(site), false).await? {
        let view = access.view(&run).await?;
        known.ids.extend(made(&view).into_iter().map(|m| m.id));
        // What a rollback left in place by rule is known as well.
        let known_of = view.steps.iter().filter(|step| step.live || step.kept.is_some());
        known.steps.extend(known_of.map(|step| (run.to_string(), step.step.to_string())));
    }
    Ok(known)
}
