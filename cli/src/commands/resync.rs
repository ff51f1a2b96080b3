//! `dssflow run glue-resync` and its plan: Glue's tables brought to what DSS says of its datasets, or what differs.
//!
//! The plan is the workflow itself as a dry run, in a store that is forgotten afterwards.

use std::path::Path;
use std::sync::Arc;

use dssflow_engine::event::Request;
use dssflow_engine::id::StoreId;
use dssflow_engine::run::RunStatus;
use dssflow_engine::store::{Store, memory::MemoryStore};
use dssflow_sandbox::World as Sandbox;
use dssflow_workflows::permissions::{Principal, documents, resync_needs};
use dssflow_workflows::{ResyncSpec, glue_resync};

use crate::args::{PlanArgs, RunArgs, ViewFormat};
use crate::catalog;
use crate::commands::ground::chosen_id;
use crate::commands::preflight::judge;
use crate::commands::run::{attach, sandbox_if, start, unfinished};
use crate::config::{self, Settings};
use crate::control::Order;
use crate::describe;
use crate::drift_report;
use crate::drive::{Aim, Session, engine_over, equip, exit_of};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::launch;
use crate::plans::Revision;
use crate::spec::About;
use crate::takeovers;
use crate::ui::{Ui, one_line};
use crate::world::{self, Pool, World};
use crate::{owner, remote};

/// Starts or goes on, then follows.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: RunArgs) -> CommandResult {
    if args.plan.is_some() {
        return Err(CommandError::new(Code::Usage, "a resync runs no saved plan")
            .hint("it compares anew before each change; --dry-run shows what it would change"));
    }
    let id = chosen_id(args.id.as_deref())?;
    let (mut spec, sandbox) = choose(ui, settings, args.file.as_deref(), &args.set, args.sandbox).await?;
    // What the flags make of the file is checked here as it is where the store is served.
    if let Some(parallelism) = args.parallelism {
        spec.glue_resync.parallel = parallelism;
    }
    spec.select(&args.select.dataset, &args.select.connection, args.select.dry_run)?;
    let workflow = dssflow_workflows::glue_resync(&spec);
    let free = args.yes || sandbox.is_some() || spec.glue_resync.dry_run;
    if !free && !ui.can_ask() {
        ui.confirm("This changes tables in Glue, and")?;
    }
    if let Some(client) = owner::served(&settings.store).await {
        let mut order = Order::new(&args.workflow, workflow.input, id);
        if !args.as_served {
            let world = world::connect_resync(&Pool::default(), &spec, sandbox).await?;
            order.principal = remote::principal(&world, About::from(&spec)).await;
        }
        let how = args.how(Aim::Forward);
        return Box::pin(remote::order(ui, settings, &client, order, &how, About::from(&spec))).await;
    }
    args.must_be_followed(settings)?;
    let session = Session::open(ui, settings, &format!("dssflow run {}", args.workflow), true).await?;
    let world = world::connect_resync(&Pool::default(), &spec, sandbox).await?;
    let label = world.sandbox.as_ref().map(|s| s.id.clone());
    if let Some(down) = takeovers::tidy(session.store(), &spec.name, label.as_deref()).await? {
        session.close().await?;
        return Err(takeovers::in_the_way(&spec.name, &down, &settings.command()));
    }
    if let Some(earlier) = unfinished(session.engine(), &workflow, label.as_deref(), id.as_ref()).await? {
        let exit =
            attach(ui, settings, &session, &world, &spec, &workflow, &earlier, args.output.output).await;
        session.close().await?;
        return exit;
    }
    let identity = world.identify(&spec).await?;
    let report = world.preflight_resync(&spec).await;
    judge(ui, &report)?;
    let alias = report.account_alias.as_deref();
    ui.note(&banner(&spec, &identity.principal_arn, alias, world.sandbox.as_ref(), settings).join("\n"));
    if !free {
        ui.confirm("Change tables in Glue?")?;
    }
    Box::pin(start(ui, session, &world, workflow, id, (Aim::Forward, args.output.output), About::from(&spec)))
        .await
}

/// Says what a run would change, or what it must be allowed to do.
pub(crate) async fn plan(ui: &Ui, settings: &Settings, args: PlanArgs) -> CommandResult {
    if args.out.is_some() {
        return Err(CommandError::new(Code::Usage, "a plan of a resync is not saved")
            .hint("a run compares anew before each change; `-o json` prints what differs now"));
    }
    let (mut spec, sandbox) = choose(ui, settings, args.file.as_deref(), &args.set, args.sandbox).await?;
    if let Some(who) = &args.iam_policy {
        spec.select(&args.dataset, &args.connection, false)?;
        return iam_policy(ui, &spec, who);
    }
    spec.select(&args.dataset, &args.connection, true)?;
    let command = format!("dssflow plan {}", args.workflow);
    let revision = Revision::read(&settings.store, &command, &spec.name).await?;
    let world = world::connect_resync(&Pool::default(), &spec, sandbox).await?;
    world.identify(&spec).await?;
    judge(ui, &world.preflight_resync(&spec).await)?;
    let report = look(ui, &world, &spec, &revision).await?;
    match args.output {
        ViewFormat::Table => {
            let more = format!("{} plan {} -o json", settings.command(), args.workflow);
            let makes = drift_report::makes(settings, world.sandbox.is_some());
            ui.out(&drift_report::lines(ui, &more, makes.as_deref(), &report).join("\n"));
        }
        ViewFormat::Json => ui.json(&report, true),
        ViewFormat::Yaml => ui.yaml(&report),
    }
    let trouble = report.totals.trouble() || report.pages_failed > 0;
    Ok(match (args.detailed_exitcode, trouble, report.totals.differ()) {
        (false, ..) | (true, false, false) => Exit::Ok,
        (true, true, _) => Exit::Preflight,
        (true, false, true) => Exit::Changes,
    })
}

/// The dry run, in a store in memory with the id of the real one: by that tables of ours are told from others'.
async fn look(
    ui: &Ui,
    world: &World,
    spec: &ResyncSpec,
    revision: &Revision,
) -> CommandResult<glue_resync::Report> {
    let workflow = dssflow_workflows::glue_resync(spec);
    // Without a store nothing can be ours.
    let id = revision.store.clone().unwrap_or_else(|| StoreId::generate([0; 16]));
    let store = Arc::new(MemoryStore::new(id)) as Arc<dyn Store>;
    let engine = equip(&engine_over(store)?, world);
    let start = launch::start_of(workflow, None, None, Request::by(config::user()));
    ui.note("comparing; nothing is changed");
    let view = engine.start(start).await?.wait().await?;
    // The verdict fails when something could not be compared; the report says what.
    if let Some(report) = drift_report::of(&view) {
        return Ok(report);
    }
    let mut error = CommandError::new(Code::Preflight, "what differs cannot be told");
    error.exit = match exit_of(&view, Aim::Forward, None) {
        Exit::Ok | Exit::Waiting => Exit::Failed,
        other => other,
    };
    let failed = view.steps.iter().filter_map(|step| Some((step, step.error.as_ref()?)));
    for (step, why) in failed {
        error.why.push(format!("{}: {}", step.step, describe::error(why)));
        error.hints.extend(why.help.clone());
    }
    if view.status == RunStatus::Paused {
        error.why.extend(view.paused.map(|reason| reason.message));
    }
    Err(error)
}

/// What a resync takes, and the sandbox that it leads into or that was asked for.
///
/// # Errors
/// When the sandbox does not start, or the file is wrong or points out of the sandbox.
pub(super) async fn choose(
    ui: &Ui,
    settings: &Settings,
    file: Option<&Path>,
    set: &[String],
    sandbox: bool,
) -> CommandResult<(ResyncSpec, Option<Sandbox>)> {
    let sandbox = sandbox_if(ui, settings, sandbox).await?;
    let file = match (file, &sandbox) {
        (Some(file), _) => file,
        (None, Some(sandbox)) => sandbox.site_yaml.as_path(),
        (None, None) => Path::new("site.yaml"),
    };
    let spec = catalog::read_resync(file, set)?;
    let sandbox = match (sandbox, &spec.aws.endpoint_url) {
        (Some(sandbox), _) => Some(sandbox),
        (None, Some(endpoint)) => dssflow_sandbox::find(&world::sandbox_dir(&settings.store))
            .await?
            .filter(|world| world.aws_endpoint == *endpoint),
        (None, None) => None,
    };
    if let Some(sandbox) = &sandbox {
        world::resync_must_be_inside(&spec, sandbox)?;
    }
    Ok((spec, sandbox))
}

/// There is one principal: who runs it.
fn iam_policy(ui: &Ui, spec: &ResyncSpec, who: &str) -> CommandResult {
    let documents = documents(&Principal::Dssflow, &resync_needs(spec));
    let one = documents.iter().find(|document| document.name == who);
    match (one, &documents[..]) {
        (Some(document), _) => ui.json(&document.policy, true),
        (None, all) if who == "all" || who == Principal::Dssflow.to_string() => {
            let named = all.iter().map(|d| (d.name.clone(), d.policy.clone()));
            ui.json(&named.collect::<serde_json::Map<_, _>>(), true);
        }
        (None, all) => {
            let names: Vec<&str> = all.iter().map(|document| document.name.as_str()).collect();
            return Err(CommandError::new(Code::Usage, format!("a resync has no principal {who}"))
                .hint(format!("it has: {}", names.join(", "))));
        }
    }
    Ok(Exit::Ok)
}

/// What is about to happen, where, and as whom.
pub(crate) fn banner(
    spec: &ResyncSpec,
    principal: &str,
    alias: Option<&str>,
    sandbox: Option<&Sandbox>,
    settings: &Settings,
) -> Vec<String> {
    let rules = &spec.glue_resync;
    let list = |names: &[String], all: &str| {
        if names.is_empty() { all.to_owned() } else { one_line(&names.join(", ")) }
    };
    let mode = match (rules.dry_run, rules.mode) {
        (true, _) => "changes nothing",
        (false, glue_resync::Mode::Dss) => "DSS mends",
        (false, glue_resync::Mode::Direct) => "dssflow mends",
    };
    let mut lines = vec![
        format!("site        {}", spec.name),
        format!("account     {} in {}", describe::account(&spec.expected_account, alias), spec.region),
        format!("principal   {}", one_line(principal)),
        format!("DSS         {}", one_line(&spec.dss.url)),
        format!("datasets    {}", list(&rules.datasets, "all")),
        format!("connections {}", list(&rules.connections, "all on S3")),
        format!("mode        {mode}{}", if rules.prune { ", and deletes what is gone" } else { "" }),
        format!("store       {}", settings.store.display()),
    ];
    match (sandbox, &spec.aws.endpoint_url) {
        (Some(sandbox), _) => lines.push(format!("sandbox     {} (nothing real, no cost)", sandbox.id)),
        (None, Some(endpoint)) => lines.push(format!("endpoint    {}", one_line(endpoint))),
        (None, None) => {}
    }
    if let Some(athena) = rules.verify_athena.as_ref().filter(|_| !rules.dry_run) {
        lines.push(format!("costs       up to {} queries of Athena", athena.tables));
    }
    lines
}
