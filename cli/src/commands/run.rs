//! `dssflow run`: starts a run, or goes on with the unfinished one of the same site.

use std::path::Path;

use dssflow_engine::Engine;
use dssflow_engine::event::Request;
use dssflow_engine::id::RunId;
use dssflow_engine::run::RunStatus;
use dssflow_engine::run::view::RunView;
use dssflow_engine::store::ListQuery;
use dssflow_sandbox::{SandboxOptions, World as Sandbox};
use dssflow_workflows::{Site, Workflow};

use super::ground::{Ground, chosen_id};
use crate::args::{FollowFormat, RunArgs};
use crate::catalog::{self, MadeOf};
use crate::commands::preflight::judge;
use crate::config::{self, Settings};
use crate::control::Order;
use crate::describe;
use crate::drive::{Aim, Session, Stream, spec_of};
use crate::error::{Code, CommandError, CommandResult};
use crate::launch;
use crate::plans::{Actor, SavedPlan};
use crate::remote::How;
use crate::spec::{About, Spec};
use crate::takeovers;
use crate::ui::{Ui, one_line};
use crate::world::{self, SANDBOX_LABEL, World};
use crate::{owner, remote};

impl RunArgs {
    /// How an order is handed over.
    pub(super) fn how(&self, aim: Aim) -> How {
        How { yes: self.yes, detach: self.detach, format: self.output.output, aim }
    }

    /// Refuses to leave a run to nobody.
    ///
    /// # Errors
    /// When it is not to be followed.
    pub(super) fn must_be_followed(&self, settings: &Settings) -> CommandResult<()> {
        if self.detach { Err(left_to_nobody(settings)) } else { Ok(()) }
    }
}

/// A run would be left to nobody.
pub(super) fn left_to_nobody(settings: &Settings) -> CommandError {
    CommandError::new(Code::Usage, "--detach leaves the run to the process that serves the store; none does")
        .hint(format!("start it first: {} serve", settings.command()))
        .hint("or leave --detach out: this command then drives the run")
}

/// How many ids are tried for a site's next run.
const MAX_RUNS_OF_A_SITE: u32 = 100_000;

/// Starts or attaches, then follows.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: RunArgs) -> CommandResult {
    match catalog::find(&args.workflow)?.made_of {
        MadeOf::Site => {}
        MadeOf::SiteAndRuns => return Box::pin(super::teardown::run(ui, settings, args)).await,
        MadeOf::Images => return Box::pin(super::image::run(ui, settings, args)).await,
        MadeOf::Resync => return Box::pin(super::resync::run(ui, settings, args)).await,
    }
    args.must_select_nothing()?;
    let id = chosen_id(args.id.as_deref())?;
    let plan = args.plan.as_deref().map(SavedPlan::read).transpose()?;
    let chosen = match (&plan, &args.file) {
        // A plan holds its site.
        (Some(plan), None) => (planned_site(plan)?, sandbox_if(ui, settings, args.sandbox).await?),
        (_, file) => choose_site(ui, settings, file.as_deref(), &args.set, args.sandbox).await?,
    };
    let Ground { site, sandbox } = Ground::of(settings, chosen, args.parallelism).await?;
    let workflow = catalog::build(&args.workflow, &site)?;
    let free = args.yes || sandbox.is_some();
    if !free && !ui.can_ask() {
        ui.confirm("This makes things in AWS that cost, and")?;
    }

    if let Some(client) = owner::served(&settings.store).await {
        let world = world::connect(&site, sandbox).await?;
        let mut order = Order::new(&args.workflow, workflow.input, id);
        order.plan = plan.map(|plan| serde_json::to_value(plan).expect("a plan is plain data"));
        if !args.as_served {
            order.principal = remote::principal(&world, About::from(&site)).await;
        }
        let how = args.how(Aim::Forward);
        return Box::pin(remote::order(ui, settings, &client, order, &how, About::from(&site))).await;
    }
    args.must_be_followed(settings)?;
    let session = Session::open(ui, settings, &format!("dssflow run {}", args.workflow), true).await?;
    let world = world::connect(&site, sandbox).await?;
    let label = world.sandbox.as_ref().map(|s| s.id.clone());
    if let Some(down) = takeovers::tidy(session.store(), &site.name, label.as_deref()).await? {
        session.close().await?;
        return Err(takeovers::in_the_way(&site.name, &down, &settings.command()));
    }
    if let Some(plan) = &plan {
        let identity = world.identify(&site).await?;
        let revision = session.revision(&site.name).await?;
        plan.must_fit(&workflow, &revision, &Actor::new(&identity, label.clone()))?;
        plan.must_hold(&super::plan::look(&world, &workflow, &revision).await?)?;
    }
    if let Some(earlier) = unfinished(session.engine(), &workflow, label.as_deref(), id.as_ref()).await? {
        let exit =
            attach(ui, settings, &session, &world, &site, &workflow, &earlier, args.output.output).await;
        session.close().await?;
        return exit;
    }
    let identity = world.identify(&site).await?;
    let store = session.engine().store().id().to_string();
    let report = world.preflight(&site, &workflow.graph, Some(store)).await;
    judge(ui, &report)?;
    let alias = report.account_alias.as_deref();
    ui.note(&banner(&site, &identity.principal_arn, alias, world.sandbox.as_ref(), settings).join("\n"));
    if !free {
        ui.confirm("Make this?")?;
    }
    Box::pin(start(ui, session, &world, workflow, id, (Aim::Forward, args.output.output), About::from(&site)))
        .await
}

/// Starts a run in its world, under the id that was chosen or the next free one, and follows it; the session ends with it.
///
/// # Errors
/// When the run cannot be started, or the store fails underneath.
pub(super) async fn start(
    ui: &Ui,
    session: Session<'_>,
    world: &World,
    workflow: Workflow,
    id: Option<RunId>,
    (aim, format): (Aim, FollowFormat),
    about: About<'_>,
) -> CommandResult {
    let id = match id {
        Some(id) => id,
        None => free_id(session.engine(), &workflow).await?,
    };
    world.hold(&id).await;
    let sandbox = world.sandbox.as_ref().map(|sandbox| sandbox.id.as_str());
    let start = launch::start_of(workflow, Some(id.clone()), sandbox, Request::by(config::user()));
    ui.note(&format!("run {id}"));
    let engine = session.engine_in(world);
    let stream = Stream::new(ui, format, &id, 0);
    let handle = engine.start(start).await?;
    let exit = session.follow(&engine, handle, stream, aim, about).await;
    world.let_go(&id, &exit).await;
    session.close().await?;
    exit
}

/// The site that a command is about, and the sandbox that was asked for.
///
/// # Errors
/// When the sandbox does not start, or the site file is wrong.
pub(crate) async fn choose_site(
    ui: &Ui,
    settings: &Settings,
    file: Option<&Path>,
    set: &[String],
    sandbox: bool,
) -> CommandResult<(Site, Option<Sandbox>)> {
    let sandbox = sandbox_if(ui, settings, sandbox).await?;
    let file = match (file, &sandbox) {
        (Some(file), _) => file,
        (None, Some(sandbox)) => sandbox.site_yaml.as_path(),
        (None, None) => Path::new("site.yaml"),
    };
    Ok((catalog::read_site(file, set)?, sandbox))
}

pub(crate) async fn sandbox_if(ui: &Ui, settings: &Settings, wanted: bool) -> CommandResult<Option<Sandbox>> {
    if wanted { start_sandbox(ui, settings).await.map(Some) } else { Ok(None) }
}

/// The site that a plan was made of, checked as a file is.
fn planned_site(plan: &SavedPlan) -> CommandResult<Site> {
    dssflow_workflows::parse(&plan.spec.to_string(), "the site of the plan").map_err(|errors| {
        let mut error = CommandError::from(errors);
        error.code = Code::BadPlan;
        error.hint("make a new one with this version: `dssflow plan bootstrap --out FILE`")
    })
}

/// Starts the sandbox of the store, or finds the one that runs.
pub(crate) async fn start_sandbox(ui: &Ui, settings: &Settings) -> CommandResult<Sandbox> {
    let options = sandbox_options(settings)?;
    Ok(dssflow_sandbox::up(&options, &|text| ui.note(&one_line(text))).await?)
}

/// The usual options of the store's sandbox.
///
/// # Errors
/// When the program does not know its own path.
pub(crate) fn sandbox_options(settings: &Settings) -> CommandResult<SandboxOptions> {
    let exe = std::env::current_exe().map_err(|e| {
        CommandError::new(Code::SandboxFailed, "dssflow does not know where it lies itself").why(e)
    })?;
    std::fs::create_dir_all(&settings.store).map_err(|e| unusable(&settings.store, &e))?;
    Ok(SandboxOptions::new(world::sandbox_dir(&settings.store), exe))
}

fn unusable(dir: &Path, error: &std::io::Error) -> CommandError {
    CommandError::new(Code::StoreUnusable, format!("the directory {} cannot be made", dir.display()))
        .why(error)
        .hint("name another one with --store or DSSFLOW_STORE")
}

/// The sandbox of the store when what a run is about leads into it: such a run costs nothing and belongs to that world.
pub(crate) async fn sandbox_behind<'a>(
    settings: &Settings,
    about: impl Into<About<'a>>,
) -> CommandResult<Option<Sandbox>> {
    let Some(endpoint) = about.into().endpoint() else { return Ok(None) };
    let living = dssflow_sandbox::find(&world::sandbox_dir(&settings.store)).await?;
    Ok(living.filter(|world| world.aws_endpoint == *endpoint))
}

/// The run of the same workflow, site and world that still wants something. One of a workflow that leaves nothing behind
/// stands in nobody's way, so it is only gone on with when it was made of the same.
pub(crate) async fn unfinished(
    engine: &Engine,
    workflow: &Workflow,
    sandbox: Option<&str>,
    id: Option<&RunId>,
) -> CommandResult<Option<RunView>> {
    let leaves_nothing = leaves_nothing(workflow.name.as_str())?;
    for view in all_unfinished(engine, workflow.name.as_str(), &workflow.site, sandbox).await? {
        if id.is_some_and(|id| *id != view.run) {
            continue;
        }
        if leaves_nothing && !is_made_of(engine, &view.run, workflow).await? {
            continue;
        }
        return Ok(Some(view));
    }
    Ok(None)
}

/// Whether runs of a workflow leave nothing that a rollback would take back.
pub(crate) fn leaves_nothing(workflow: &str) -> CommandResult<bool> {
    Ok(catalog::find(workflow)?.made_of == MadeOf::Resync)
}

/// All runs of a workflow, site and world that still want something, the newest first.
pub(crate) async fn all_unfinished(
    engine: &Engine,
    workflow: &str,
    site: &str,
    sandbox: Option<&str>,
) -> CommandResult<Vec<RunView>> {
    let query = ListQuery {
        workflow: Some(workflow.to_owned()),
        site: Some(site.to_owned()),
        statuses: vec![
            RunStatus::Pending,
            RunStatus::Running,
            RunStatus::Waiting,
            RunStatus::Paused,
            RunStatus::RollingBack,
            RunStatus::Failed,
            RunStatus::RollbackStuck,
        ],
        ..ListQuery::default()
    };
    let mut found = Vec::new();
    for summary in engine.list(query).await?.runs {
        if !summary.live && summary.status.is_end() {
            continue;
        }
        let view = engine.view(&summary.run).await?;
        if view.labels.get(SANDBOX_LABEL).map(String::as_str) == sandbox {
            found.push(view);
        }
    }
    Ok(found)
}

/// Whether a run was made of what a workflow would be made of now.
async fn is_made_of(engine: &Engine, run: &RunId, workflow: &Workflow) -> CommandResult<bool> {
    let recorded = match spec_of(engine, run).await? {
        Spec::Site(site) => serde_json::to_value(&site),
        Spec::Images(images) => serde_json::to_value(&images),
        Spec::Resync(spec) => serde_json::to_value(&spec),
    };
    Ok(recorded.ok().as_ref() == Some(&workflow.input))
}

/// Goes on with an earlier run.
#[expect(clippy::too_many_arguments, reason = "what `run` found out, handed on once")]
pub(super) async fn attach(
    ui: &Ui,
    settings: &Settings,
    session: &Session<'_>,
    world: &World,
    about: impl Into<About<'_>>,
    workflow: &Workflow,
    earlier: &RunView,
    format: FollowFormat,
) -> CommandResult {
    let (about, run) = (about.into(), &earlier.run);
    must_fit(session.engine(), workflow, earlier, settings).await?;
    if about.account().is_some() {
        let identity = world.identify(about).await?;
        World::same_principal(earlier, &identity)?;
    }
    ui.note(&going_on(earlier));
    world.hold(run).await;
    let engine = session.engine_in(world);
    let stream = Stream::new(ui, format, run, earlier.seq);
    let handle = engine.resume(run, Request::by(config::user())).await?;
    let exit = session.follow(&engine, handle, stream, Aim::Forward, about).await;
    world.let_go(run, &exit).await;
    exit
}

/// What is told when an earlier run is gone on with.
pub(crate) fn going_on(earlier: &RunView) -> String {
    format!("going on with run {}, which is {}", earlier.run, describe::words(earlier.status.as_str()))
}

/// Refuses an earlier run that is being taken back, or that was made from something else.
///
/// # Errors
/// With what to do about it.
pub(crate) async fn must_fit(
    engine: &Engine,
    workflow: &Workflow,
    earlier: &RunView,
    settings: &Settings,
) -> CommandResult<()> {
    let (run, command) = (&earlier.run, settings.command());
    if earlier.rolling_back {
        return Err(CommandError::new(
            Code::RunInTheWay,
            format!("run {run} of site {} is being taken back", workflow.site),
        )
        .why(format!("it is {}", describe::words(earlier.status.as_str())))
        .hint(format!("finish that first: {command} rollback {run}")));
    }
    if !is_made_of(engine, run, workflow).await? {
        return Err(CommandError::new(
            Code::RunInTheWay,
            format!(
                "run {run} of site {} is not finished, and the site file has changed since",
                workflow.site
            ),
        )
        .why(format!(
            "it is {}; a run keeps the site it was created with",
            describe::words(earlier.status.as_str())
        ))
        .hint(format!("finish it as it was: {command} resume {run}"))
        .hint(format!("or take it back, then run again: {command} rollback {run}")));
    }
    Ok(())
}

/// What is about to happen, where, and as whom.
pub(crate) fn banner(
    site: &Site,
    principal: &str,
    alias: Option<&str>,
    sandbox: Option<&Sandbox>,
    settings: &Settings,
) -> Vec<String> {
    let mut lines = vec![
        format!("site       {}", site.name),
        format!("account    {}", describe::account(&site.expected_account, alias)),
        format!("region     {}", site.region),
        format!("principal  {}", one_line(principal)),
        format!("store      {}", settings.store.display()),
    ];
    match (sandbox, &site.aws.endpoint_url) {
        (Some(sandbox), _) => lines.push(format!("sandbox    {} (nothing real, no cost)", sandbox.id)),
        (None, Some(endpoint)) => lines.push(format!("endpoint   {}", one_line(endpoint))),
        (None, None) => {}
    }
    lines.extend(
        dssflow_workflows::security_notes(site).iter().map(|line| format!("open       {}", one_line(line))),
    );
    if sandbox.is_none() {
        lines.extend(
            dssflow_workflows::summary(site).iter().map(|line| format!("costs      {}", one_line(line))),
        );
    }
    lines
}

/// `bootstrap-lab`, then `bootstrap-lab-2` and so on.
pub(crate) async fn free_id(engine: &Engine, workflow: &Workflow) -> CommandResult<RunId> {
    let base = format!("{}-{}", workflow.name, workflow.site);
    for n in 1..MAX_RUNS_OF_A_SITE {
        let text = if n == 1 { base.clone() } else { format!("{base}-{n}") };
        let id = RunId::new(text).map_err(|e| CommandError::new(Code::Usage, e.to_string()))?;
        if engine.store().head(&id).await?.is_none() {
            return Ok(id);
        }
    }
    Err(CommandError::new(Code::RunInTheWay, format!("site {} has too many runs", workflow.site))
        .hint("choose an id with --id"))
}
