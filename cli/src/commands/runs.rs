//! `dssflow runs`: lists, single runs, histories, pictures.

use std::collections::BTreeMap;
use std::time::Duration;

use dssflow_engine::event::Event;
use dssflow_engine::graph::render;
use dssflow_engine::id::RunId;
use dssflow_engine::run::RunStatus;
use dssflow_engine::run::view::RunView;
use dssflow_engine::store::{ListQuery, MAX_PAGE, RunSummary};
use dssflow_workflows::teardown;

use crate::access::Access;
use crate::args::{EventsArgs, EventsFormat, GetArgs, ListFormat, LsArgs, RunGraphArgs, RunRef, RunsCommand};
use crate::catalog;
use crate::commands::{copies, graph, logs, prune, timeline};
use crate::config::Settings;
use crate::describe;
use crate::drift_report;
use crate::drive::{exit_of, version_line};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::moment;
use crate::past;
use crate::progress::{Progress, Undo, now, tree};
use crate::suggest;
use crate::ui::{Ui, one_line, table};

/// How often a watched run is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Runs one of them.
pub(crate) async fn run(ui: &Ui, settings: &Settings, command: RunsCommand) -> CommandResult {
    match command {
        RunsCommand::Ls(args) => return ls(ui, settings, args).await,
        RunsCommand::Import(args) => return copies::import(ui, settings, &args).await,
        RunsCommand::Prune(args) => return prune::run(ui, settings, &args).await,
        RunsCommand::Logs(args) => return logs::run(ui, settings, &args).await,
        RunsCommand::Timeline(args) => return timeline::run(ui, settings, &args).await,
        _ => {}
    }
    let access = Access::open(&settings.store).await?;
    let result = match &command {
        RunsCommand::Ls(_)
        | RunsCommand::Import(_)
        | RunsCommand::Prune(_)
        | RunsCommand::Logs(_)
        | RunsCommand::Timeline(_) => Ok(Exit::Ok),
        RunsCommand::Get(args) => get(ui, settings, &access, args).await,
        RunsCommand::Events(args) => events(ui, &access, args).await,
        RunsCommand::Watch(args) => watch(ui, settings, &access, args).await,
        RunsCommand::Graph(args) => picture_of(ui, &access, args).await,
        RunsCommand::Export(args) => match copies::outside(&settings.store, &args.output) {
            Ok(()) => copies::export_run(ui, &access, args).await,
            Err(error) => Err(error),
        },
    };
    access.close().await?;
    result
}

async fn ls(ui: &Ui, settings: &Settings, args: LsArgs) -> CommandResult {
    let statuses = args.status.iter().map(|s| status(s)).collect::<CommandResult<Vec<_>>>()?;
    let labels = args.label.iter().map(|l| label(l)).collect::<CommandResult<BTreeMap<_, _>>>()?;
    let now = now();
    let time =
        |flag: &str, text: &Option<String>| text.as_ref().map(|t| moment::parse(flag, t, now)).transpose();
    let query = ListQuery {
        statuses,
        workflow: args.workflow.clone(),
        site: args.site.clone(),
        labels,
        created_from: time("--since", &args.since)?,
        created_before: time("--until", &args.until)?,
        ..ListQuery::default()
    };
    let (runs, driven) = match Access::open(&settings.store).await {
        Ok(access) => {
            let runs = list(&access, &query, args.limit).await;
            // The owner counts all its runs to answer this: it is asked where it makes a difference.
            let matters = runs.as_ref().is_ok_and(|runs| runs.iter().any(|run| is_left(run, &[])));
            let driven = if matters { access.driven().await } else { Ok(Vec::new()) };
            access.close().await?;
            (runs?, driven?)
        }
        // Nobody has run anything here yet.
        Err(error) if error.code == Code::NoStore => (Vec::new(), Vec::new()),
        Err(error) => return Err(error),
    };
    match args.output {
        ListFormat::Table | ListFormat::Wide => {
            if runs.is_empty() && is_narrow(&query) {
                ui.note(&settings.address("no run fits; `dssflow runs ls` lists all"));
                // Runs of other programs' workflows may be here: it is a hint and no error.
                let known = catalog::ALL.iter().map(|entry| entry.name);
                let typed =
                    query.workflow.as_deref().filter(|name| known.clone().all(|known| known != *name));
                if let Some(near) = typed.and_then(|name| suggest::nearest(name, known)) {
                    ui.note(&format!("did you mean --workflow {near}?"));
                }
            } else if runs.is_empty() {
                ui.note(
                    &settings.address(
                        "no runs; `dssflow run bootstrap --sandbox` starts one that needs no account",
                    ),
                );
            } else {
                summaries(ui, &runs, &driven, args.output == ListFormat::Wide);
                if runs.iter().any(|run| is_left(run, &driven)) {
                    ui.note(&settings.address("`dssflow resume RUN` goes on with what nobody drives"));
                }
            }
        }
        ListFormat::Json => ui.json(&runs, true),
        ListFormat::Jsonl => runs.iter().for_each(|run| ui.json(run, false)),
        ListFormat::Yaml => ui.yaml(&runs),
        ListFormat::Name => runs.iter().for_each(|run| ui.out(run.run.as_str())),
    }
    Ok(Exit::Ok)
}

/// Whether only some runs are wanted.
fn is_narrow(query: &ListQuery) -> bool {
    !query.statuses.is_empty()
        || query.workflow.is_some()
        || query.site.is_some()
        || !query.labels.is_empty()
        || query.created_from.is_some()
        || query.created_before.is_some()
}

async fn list(access: &Access, query: &ListQuery, limit: usize) -> CommandResult<Vec<RunSummary>> {
    let mut runs = Vec::new();
    let mut cursor = None;
    while runs.len() < limit {
        let page = (limit - runs.len()).min(MAX_PAGE);
        let page = access.list(ListQuery { limit: page, cursor, ..query.clone() }).await?;
        runs.extend(page.runs);
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok(runs)
}

pub(crate) fn label(text: &str) -> CommandResult<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(CommandError::new(Code::Usage, format!("{text:?} is no label"))
            .hint("it is written KEY=VALUE, as --label team=data")),
    }
}

pub(crate) fn status(text: &str) -> CommandResult<RunStatus> {
    RunStatus::parse(text).ok_or_else(|| {
        let names = RunStatus::ALL.iter().map(|s| s.as_str());
        let error = CommandError::new(Code::Usage, format!("{text:?} is no state of a run"));
        match suggest::nearest(text, names.clone()) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.hint(format!("states are: {}", names.collect::<Vec<_>>().join(", "))),
        }
    })
}

/// Whether the process that drove the run has ended before the run did.
fn is_left(run: &RunSummary, driven: &[RunId]) -> bool {
    let under_way = match run.status {
        RunStatus::Pending | RunStatus::Running | RunStatus::Waiting | RunStatus::RollingBack => true,
        RunStatus::Paused
        | RunStatus::Succeeded
        | RunStatus::Failed
        | RunStatus::RolledBack
        | RunStatus::RollbackStuck
        | RunStatus::Cancelled
        | RunStatus::TimedOut => false,
    };
    under_way && !driven.contains(&run.run)
}

/// The state of a run in a word, and a note on it.
fn standing(run: &RunSummary, driven: &[RunId]) -> (String, String) {
    let status = describe::words(run.status.as_str());
    match run.status {
        // It turns round by a step that fails by design.
        RunStatus::RolledBack if run.workflow == teardown::NAME => ("torn down".to_owned(), String::new()),
        _ if is_left(run, driven) => (status, "nobody drives it".to_owned()),
        _ => (status, run.note.clone()),
    }
}

fn summaries(ui: &Ui, runs: &[RunSummary], driven: &[RunId], wide: bool) {
    let mut heading = vec!["RUN", "STATUS", "STEPS", "CREATED", "UPDATED", "NOTE"];
    if wide {
        heading.extend(["WORKFLOW", "SITE", "LIVE", "LABELS"]);
    }
    let rows: Vec<Vec<String>> = runs
        .iter()
        .map(|run| {
            let (status, note) = standing(run, driven);
            let mut row = vec![
                run.run.to_string(),
                status,
                format!("{}/{}", run.done, run.total),
                describe::when(run.created),
                describe::when(run.updated),
                note,
            ];
            if wide {
                row.extend([
                    run.workflow.clone(),
                    run.site.clone(),
                    if run.live { "yes" } else { "no" }.to_owned(),
                    run.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","),
                ]);
            }
            row
        })
        .collect();
    ui.table(&heading, &rows, wide);
}

async fn get(ui: &Ui, settings: &Settings, access: &Access, args: &GetArgs) -> CommandResult {
    let run = access.resolve(&args.run.run).await?;
    let view = access.view(&run).await?;
    match args.output {
        ListFormat::Table | ListFormat::Wide => {
            let undo = Undo::of(&access.events(&run, 0).await?);
            ui.out(&picture(&view, &undo, args.output == ListFormat::Wide));
            let report = drift_report::of_run(ui, settings, &view);
            if !report.is_empty() {
                ui.out(&format!("\n{}", report.join("\n")));
            }
        }
        ListFormat::Json => ui.json(&view, true),
        ListFormat::Jsonl => ui.json(&view, false),
        ListFormat::Yaml => ui.yaml(&view),
        ListFormat::Name => ui.out(view.run.as_str()),
    }
    Ok(Exit::Ok)
}

fn picture(view: &RunView, undo: &Undo, wide: bool) -> String {
    let mut lines = vec![
        format!("run       {}", view.run),
        format!("workflow  {}", one_line(&view.workflow)),
        format!("site      {}", one_line(&view.site)),
        format!("status    {}", describe::words(view.status.as_str())),
        format!("created   {} by {}", describe::when(view.created), one_line(&view.request.by)),
        format!("updated   {}", describe::when(view.updated)),
        format!("live      {}", if view.live { "yes: something it made may be out there" } else { "no" }),
    ];
    for (key, value) in &view.labels {
        lines.push(format!("label     {}={}", one_line(key), one_line(value)));
    }
    if let Some(parent) = &view.parent {
        lines.push(format!("parent    step {} of run {}", parent.step, parent.run));
    }
    if let Some(source) = &view.forked_from {
        lines.push(format!("fork of   {} from {}", source.run, source.from));
    }
    if let Some(reason) = &view.paused {
        lines.push(format!("paused    {}", one_line(&reason.message)));
    }
    lines.push(String::new());
    lines.extend(tree::whole(view, undo, now(), Ui::columns()));
    if wide {
        let rows: Vec<Vec<String>> = view
            .steps
            .iter()
            .flat_map(|s| {
                describe::standing(&s.resources, s.output.is_some())
                    .map(move |r| vec![s.step.to_string(), r.kind.clone(), r.id.clone()])
            })
            .collect();
        if !rows.is_empty() {
            lines.push(String::new());
            lines.push(table(&["STEP", "MADE", "ID"], &rows));
        }
    }
    lines.join("\n")
}

async fn events(ui: &Ui, access: &Access, args: &EventsArgs) -> CommandResult {
    let run = access.resolve(&args.run.run).await?;
    if args.output == EventsFormat::Jsonl {
        ui.json(&version_line(&run), false);
    }
    let print = |event: &Event| match args.output {
        EventsFormat::Table => {
            let step = event.kind.step().map_or_else(String::new, |s| format!("{s}  "));
            ui.out(&format!(
                "{:>5}  {}  {step}{}",
                event.seq,
                describe::when(event.at),
                describe::event(event)
            ));
        }
        EventsFormat::Json | EventsFormat::Jsonl => ui.json(event, false),
    };
    match access {
        Access::Owner(client) if args.follow && args.output != EventsFormat::Json => {
            client
                .follow(&run, args.after, &mut |event| {
                    print(event);
                    !ui.is_closed()
                })
                .await?;
        }
        _ => {
            let all = access.events(&run, args.after).await?;
            if args.output == EventsFormat::Json {
                ui.json(&all, true);
            } else {
                all.iter().for_each(print);
            }
        }
    }
    Ok(Exit::Ok)
}

/// Shows a run as its owner's terminal does, until it stands.
async fn watch(ui: &Ui, settings: &Settings, access: &Access, args: &RunRef) -> CommandResult {
    let run = access.resolve(&args.run).await?;
    let (mut view, aim) = super::resume::look(access, &run).await?;
    let mut history = access.events(&run, 0).await?;
    if let Access::Owner(client) = access {
        let mut progress = Progress::new(ui, settings);
        progress.learn(&history);
        progress.expect(past::of(access, &view).await);
        while client.owner().await.is_ok_and(|owner| owner.live.contains(&run)) {
            for event in client.events(&run, view.seq).await? {
                progress.event(ui, &event);
            }
            // An owner that has just ended is seen in the next round.
            if let Ok(newer) = client.view(&run).await {
                view = newer;
            }
            progress.tick(ui, &view);
            tokio::time::sleep(LOOK).await;
        }
        if let Ok(store) = Access::open(&settings.store).await {
            let last = store.view(&run).await;
            let all = store.events(&run, 0).await;
            store.close().await?;
            (view, history) = (last?, all?);
        }
        if Ui::columns().is_some() {
            // The same tree comes below, on the same terminal.
            ui.redraw(&[]);
        } else {
            progress.finish(ui, &view);
        }
    }
    let mut lines = tree::whole(&view, &Undo::of(&history), now(), Ui::columns());
    lines.push(format!("run {}: {}", view.run, describe::words(view.status.as_str())));
    ui.out(&lines.join("\n"));
    Ok(exit_of(&view, aim, None))
}

async fn picture_of(ui: &Ui, access: &Access, args: &RunGraphArgs) -> CommandResult {
    let run = access.resolve(&args.run.run).await?;
    let graph = access.graph(&run).await?;
    let view = access.view(&run).await?;
    let statuses: render::Statuses = view.steps.iter().map(|s| (s.step.clone(), s.status)).collect();
    let heading = format!("{run}: {}", describe::words(view.status.as_str()));
    graph::draw(ui, args.output, &graph, Some(&statuses), &heading)
}
