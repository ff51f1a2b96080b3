//! `runs prune`: removes runs that have ended and own nothing, by the engine's policy.

use std::path::Path;

use dssflow_engine::Engine;
use dssflow_engine::id::RunId;
use dssflow_engine::run::RunStatus;
use dssflow_engine::runtime::{Pruned, Pruning};
use dssflow_engine::store::prune::{Policy, Stays};

use crate::access::Access;
use crate::args::{PruneArgs, ViewFormat};
use crate::bar::{beside, size};
use crate::commands::{copies, runs};
use crate::config::Settings;
use crate::control::{PruneDone, PruneOrder};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::logging;
use crate::moment;
use crate::progress::now;
use crate::ui::{Ui, one_line};

/// How many runs that stay are told one by one.
const MAX_TOLD: usize = 20;

fn policy(args: &PruneArgs) -> CommandResult<Policy> {
    let mut statuses = Vec::new();
    for text in &args.status {
        let status = runs::status(text)?;
        if !status.is_end() {
            let ends = RunStatus::ALL.iter().filter(|status| status.is_end()).map(|status| status.as_str());
            let ends = ends.collect::<Vec<_>>().join(", ");
            return Err(CommandError::new(
                Code::Usage,
                format!("a run that is {text} has not ended and stays"),
            )
            .hint(format!("those that have ended are: {ends}")));
        }
        statuses.push(status);
    }
    let now = now();
    let older_than = now.since(moment::parse("--older-than", &args.older_than, now)?);
    Ok(Policy {
        older_than,
        keep_newest: args.keep,
        statuses,
        workflow: args.workflow.clone(),
        site: args.site.clone(),
    })
}

/// Runs it.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: &PruneArgs) -> CommandResult {
    let policy = policy(args)?;
    let access = Access::open_as(&settings.store, "dssflow runs prune").await?;
    let result = prune(ui, settings, &access, policy, args);
    access.close().await?;
    result
}

fn prune(ui: &Ui, settings: &Settings, access: &Access, policy: Policy, args: &PruneArgs) -> CommandResult {
    let found = once(ui, access, &PruneOrder { policy: policy.clone(), dry_run: true })?;
    if args.dry_run || found.runs.is_empty() {
        tell_stays(ui, &found);
        print(ui, &found, args.output);
        ui.note(&match found.runs.len() {
            0 => "no run fits; nothing was removed".to_owned(),
            n => format!("{} would be removed; nothing was", count(n)),
        });
        return Ok(Exit::Ok);
    }
    if !args.yes {
        tell_stays(ui, &found);
        let n = found.runs.len();
        ui.confirm(&format!("{} will be removed for good, history and all.", count(n)))?;
    }
    let done = once(ui, access, &PruneOrder { policy, dry_run: false })?;
    tell_stays(ui, &done);
    print(ui, &done, args.output);
    ui.note(&format!(
        "{} removed, and {} of graphs and large values that only they named; `{} store compact` gives the room back",
        count(done.runs.len()),
        size(done.swept_bytes),
        settings.command()
    ));
    Ok(Exit::Ok)
}

fn once(ui: &Ui, access: &Access, order: &PruneOrder) -> CommandResult<PruneDone> {
    match access {
        Access::Store(store) => {
            let engine = Engine::builder(store.clone()).build();
            beside(ui, "looking", |told| {
                let mut show = |doing: &'static str, done| told.at(doing, done, 0, "runs");
                copies::blocking(carry_out(&engine, store.path(), order, &mut show))
            })
        }
        Access::Owner(client) => {
            let doing = if order.dry_run {
                "the process that owns the store is looking"
            } else {
                "the process that owns the store is removing"
            };
            beside(ui, doing, |_| copies::blocking(client.prune(order)))
        }
    }
}

/// Has an engine prune its store, which lies in `store`, and says what it did. Logs go with their runs.
pub(crate) async fn carry_out(
    engine: &Engine,
    store: &Path,
    order: &PruneOrder,
    show: &mut (dyn FnMut(&'static str, u64) + Send),
) -> CommandResult<PruneDone> {
    let mut runs: Vec<RunId> = Vec::new();
    let mut progress = |at: Pruning| match at {
        Pruning::Looking { runs } => show("looking", runs),
        Pruning::Goes { run } => {
            runs.push(run);
            show(if order.dry_run { "looking closer" } else { "removing" }, runs.len() as u64);
        }
        Pruning::Sweeping => show("looking for what no run names", 0),
        _ => {}
    };
    let Pruned { seen, events, stayed, stays, swept, .. } =
        engine.prune(&order.policy, order.dry_run, &mut progress).await?;
    if !order.dry_run {
        logging::runs::remove(store, &runs);
    }
    let swept_bytes = swept.map_or(0, |swept| swept.bytes);
    Ok(PruneDone { runs, seen, events, stayed, stays, swept_bytes })
}

fn count(n: usize) -> String {
    if n == 1 { "1 run".to_owned() } else { format!("{n} runs") }
}

fn tell_stays(ui: &Ui, done: &PruneDone) {
    // Those that are merely among the last were meant to stay.
    let told = |(_, why): &&(RunId, Stays)| !matches!(why, Stays::Newest | Stays::Unfinished);
    let stays: Vec<_> = done.stays.iter().filter(told).collect();
    for (run, why) in stays.iter().take(MAX_TOLD) {
        ui.note(&format!("run {run} stays: {}", one_line(&why.to_string())));
    }
    if stays.len() > MAX_TOLD {
        ui.note(&format!("and {} more", count(stays.len() - MAX_TOLD)));
    }
}

fn print(ui: &Ui, done: &PruneDone, output: ViewFormat) {
    match output {
        ViewFormat::Table => done.runs.iter().for_each(|run| ui.out(run.as_str())),
        ViewFormat::Json => ui.json(done, true),
        ViewFormat::Yaml => ui.yaml(done),
    }
}
