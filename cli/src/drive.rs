//! Driving runs: this process owns the store, shows progress, answers on the socket, and on Ctrl-C pauses.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use dssflow_activities::clients::AwsClients;
use dssflow_engine::event::{Event, EventKind, PauseKind, Request};
use dssflow_engine::id::RunId;
use dssflow_engine::run::resolve::FunctionRegistry;
use dssflow_engine::run::view::{RunView, StepView};
use dssflow_engine::run::{RunStatus, StepStatus};
use dssflow_engine::runtime::EngineBuilder;
use dssflow_engine::store::Store;
use dssflow_engine::time::Timestamp;
use dssflow_engine::{ActivityRegistry, Engine, EngineError, RunHandle};
use dssflow_sandbox::World as Sandbox;
use dssflow_store::SledStore;
use dssflow_workflows::{ImageSpec, ResyncSpec, Site};
use serde::Deserialize as _;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;

use crate::access::Access;
use crate::args::FollowFormat;
use crate::catalog;
use crate::config::{self, Settings};
use crate::control::server::{self, ControlServer, Owner};
use crate::describe;
use crate::drift_report;
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::launch;
use crate::logging;
use crate::owner;
use crate::past;
use crate::plans::Revision;
use crate::progress::Progress;
use crate::renewal::{self, Answer, Renewal};
use crate::spec::{About, Spec};
use crate::takeovers;
use crate::ui::{self, Style, Ui, one_line};
use crate::world::{self, Pool, World};

/// The most leftovers that are listed.
const MAX_LEFT: usize = 30;

/// The owner of a store, driving runs.
pub(crate) struct Session<'a> {
    ui: &'a Ui,
    settings: &'a Settings,
    store: Arc<SledStore>,
    /// An engine that knows every activity, without anything injected.
    engine: Engine,
    server: Option<ControlServer>,
    /// The AWS clients of the world that runs are driven in, and how its time is scaled; once there is a world.
    acting: std::sync::OnceLock<(AwsClients, f64)>,
}

/// What a command wants of the run it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// To get it done: a rollback is a failure that was tidied up.
    Forward,
    /// To take it back: a rollback is the success.
    Back,
}

/// Commands that look at a run and its world, and drive nothing.
const LOOKS: [&str; 3] = ["drift", "resources verify", "resources orphans"];

/// How much patience a run in the sandbox has at latency 1: half a minute between two looks becomes 1.5 s.
const SANDBOX_PATIENCE: f64 = 0.05;

/// An engine that knows every activity and workflow, without anything injected: for looking, and for writing down what
/// somebody wants.
///
/// # Errors
/// When two activities have one name.
pub(crate) fn engine_on(store: &Arc<SledStore>) -> CommandResult<Engine> {
    engine_over(Arc::clone(store) as Arc<dyn Store>)
}

/// The same on any store.
///
/// # Errors
/// When two activities have one name.
pub(crate) fn engine_over(store: Arc<dyn Store>) -> CommandResult<Engine> {
    engine_with(store, |_| {})
}

/// The same, with `change` made to the activities.
///
/// # Errors
/// When two activities have one name.
pub(crate) fn engine_with(
    store: Arc<dyn Store>,
    change: impl FnOnce(&mut ActivityRegistry),
) -> CommandResult<Engine> {
    Ok(engine_builder(store, change)?.build())
}

/// What the engines of this command are built from.
///
/// # Errors
/// When two activities have one name.
pub(crate) fn engine_builder(
    store: Arc<dyn Store>,
    change: impl FnOnce(&mut ActivityRegistry),
) -> CommandResult<EngineBuilder> {
    let mut activities = ActivityRegistry::new();
    dssflow_activities::register_all(&mut activities)
        .and_then(|()| dssflow_workflows::teardown::register(&mut activities))
        .map_err(|e| CommandError::new(Code::Internal, e.to_string()))?;
    change(&mut activities);
    let mut functions = FunctionRegistry::default();
    dssflow_workflows::register_functions(&mut functions);
    Ok(Engine::builder(store)
        .activities(activities)
        .functions(functions)
        .definition(catalog::definition())
        .definition(catalog::image_definition())
        .definition(catalog::resync_definition())
        .launcher(launch::Checker))
}

/// The engine with a world, for driving runs in it and for looking at it.
pub(crate) fn equip(engine: &Engine, world: &World) -> Engine {
    let mut resources = dssflow_engine::activity::Resources::default();
    resources.insert(world.clients.clone());
    resources.insert(world.host.clone());
    if let Some(route) = &world.route {
        resources.insert(route.clone());
    }
    // Secrets and sinks in AWS are reached through these.
    resources.insert(world.clients.secretsmanager().clone());
    resources.insert(world.clients.ssm().clone());
    engine.with_resources(resources).with_patience(patience(world))
}

/// How time is scaled in a world. The sandbox is consistent at once and its durations are scaled; waiting is scaled with
/// them.
pub(crate) fn patience(world: &World) -> f64 {
    world.sandbox.as_ref().map_or(1.0, |sandbox| SANDBOX_PATIENCE * sandbox.latency)
}

impl<'a> Session<'a> {
    /// Takes the store and opens the socket.
    ///
    /// # Errors
    /// When another process owns the store, or it cannot be opened.
    pub(crate) async fn open(
        ui: &'a Ui,
        settings: &'a Settings,
        command: &str,
        create: bool,
    ) -> CommandResult<Self> {
        // Before anything is driven: a wrong setting must not end a command that drives a run.
        renewal::limit()?;
        let store = owner::open_to_drive(&settings.store, command, create).await?;
        logging::runs::keep(&settings.store);
        let engine = engine_on(&store)?;
        let server = server::start(Owner::of_command(&engine, &store));
        Ok(Self { ui, settings, store, engine, server, acting: std::sync::OnceLock::new() })
    }

    /// Takes the store to drive a run that is there, and makes its world: the same sandbox or none, the same principal.
    ///
    /// # Errors
    /// When the run's sandbox is gone, another process owns the store, the site cannot be read, or somebody else asks.
    pub(crate) async fn of_run(
        ui: &'a Ui,
        settings: &'a Settings,
        verb: &str,
        view: &RunView,
    ) -> CommandResult<(Self, Spec, World)> {
        let sandbox = sandbox_of(&settings.store, view).await?;
        let session = Self::open(ui, settings, &format!("dssflow {verb} {}", view.run), false).await?;
        if !LOOKS.contains(&verb) {
            let access = Access::Store(Arc::clone(&session.store));
            takeovers::must_be_free(&access, view, &settings.command()).await?;
        }
        let (spec, world) = world_of(&session.engine, &Pool::default(), view, sandbox).await?;
        Ok((session, spec, world))
    }

    /// The store.
    pub(crate) fn store(&self) -> &Arc<SledStore> {
        &self.store
    }

    /// The engine without a world: for looking.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What the store knows of a site.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn revision(&self, site: &str) -> CommandResult<Revision> {
        Revision::of(&Access::Store(Arc::clone(&self.store)), site).await
    }

    /// The engine with a world, for driving runs in it.
    pub(crate) fn engine_in(&self, world: &World) -> Engine {
        // A session works in one world; whoever asked first has it.
        let _ours = self.acting.set((world.clients.clone(), patience(world)));
        equip(&self.engine, world)
    }

    /// Gives the store back.
    ///
    /// # Errors
    /// When the store fails while it closes.
    pub(crate) async fn close(self) -> CommandResult<()> {
        if let Some(server) = self.server {
            server.close();
        }
        drop(self.engine);
        owner::close(self.store).await
    }

    /// Shows a driven run until it stands, prints what became of it, and says how the command ends.
    ///
    /// # Errors
    /// When the store or the run failed underneath.
    pub(crate) async fn follow(
        &self,
        engine: &Engine,
        mut handle: RunHandle,
        mut stream: Stream,
        aim: Aim,
        about: impl Into<About<'_>>,
    ) -> CommandResult<Exit> {
        // First of all: the run is driven already, and whoever types Ctrl-C now wants it saved.
        let mut signals = Signals::new()?;
        let about = about.into();
        let run = handle.id().clone();
        let mut news = engine.subscribe();
        let mut progress = Progress::new(self.ui, self.settings);
        progress.learn(&engine.history(&run, 0).await?);
        if let Ok(view) = engine.view(&run).await {
            progress.expect(past::of(&Access::Store(Arc::clone(&self.store)), &view).await);
            progress.tick(self.ui, &view);
        }
        stream.catch_up(engine, &run, self.ui, &mut progress).await?;
        let mut tick = tokio::time::interval(progress.interval());
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stopped: Option<Exit> = None;
        let mut renewal = match self.acting.get() {
            Some((clients, scale)) => Some(Renewal::new(clients, *scale)?),
            None => None,
        };
        let view = loop {
            let ended = {
                let mut end = pin!(handle.wait());
                loop {
                    tokio::select! {
                        result = &mut end => break result,
                        got = news.recv() => match got {
                            Ok((of, _)) if of != run => {}
                            Ok(_) | Err(RecvError::Lagged(_)) => stream.catch_up(engine, &run, self.ui, &mut progress).await?,
                            Err(RecvError::Closed) => {}
                        },
                        _ = tick.tick() => if let Ok(view) = engine.view(&run).await {
                            progress.tick(self.ui, &view);
                        },
                        exit = signals.next() => {
                            if stopped.is_some() {
                                self.ui.note(&format!("stopped at once; go on with: {} resume {run}", self.settings.command()));
                                leave(exit);
                            }
                            stopped = Some(exit);
                            self.ui.note("pausing: no new step starts, what runs is saved; once more stops at once");
                            let reason = if exit == Exit::Interrupted { "Ctrl-C" } else { "SIGTERM" };
                            let request = Request { by: config::user(), reason: reason.to_owned() };
                            // A run that has just ended has nothing to pause.
                            drop(engine.pause(&run, request).await);
                        }
                    }
                }
            };
            stream.catch_up(engine, &run, self.ui, &mut progress).await?;
            let (Ok(view), None, Some(renewal)) = (&ended, stopped, &mut renewal) else { break ended };
            if !renewal.may_wait(view) {
                break ended;
            }
            match self.until_renewed(renewal, view, about, &mut signals).await {
                Waited::Renewed(request) => handle = engine.resume(&run, request).await?,
                Waited::Stopped(exit) => {
                    stopped = Some(exit);
                    break ended;
                }
                Waited::TooLong => break ended,
            }
        };
        let view = match view {
            Ok(view) => view,
            Err(error) => {
                self.ui.redraw(&[]);
                return Err(CommandError::from(error)
                    .hint(format!("go on with: {} resume {run}", self.settings.command())));
            }
        };
        if takeovers::is_done(&view) {
            takeovers::close(&self.store, &view).await?;
        }
        let exit = exit_of(&view, aim, stopped);
        conclude(self.ui, self.settings, progress, &view, exit, stream.format, about.site());
        Ok(exit)
    }
}

/// Finds the sandbox that a run belongs to, if it belongs to one.
///
/// # Errors
/// When the run is of another store, or its sandbox is gone.
pub(crate) async fn sandbox_of(store: &Path, view: &RunView) -> CommandResult<Option<Sandbox>> {
    // Before its world is looked for, which is not here.
    if let Some(store) = &view.imported {
        return Err(EngineError::Imported { run: view.run.clone(), store: store.clone() }.into());
    }
    world::sandbox_of(store, view).await
}

/// Makes the world of a run that is there: the same sandbox or none, the same principal.
///
/// # Errors
/// When what it was made from cannot be read, its world not be reached, or somebody else asks.
pub(crate) async fn world_of(
    engine: &Engine,
    pool: &Pool,
    view: &RunView,
    sandbox: Option<Sandbox>,
) -> CommandResult<(Spec, World)> {
    let spec = spec_of(engine, &view.run).await?;
    let world = world::connect_about(pool, About::from(&spec), sandbox).await?;
    if About::from(&spec).account().is_some() {
        let identity = world.identify(&spec).await?;
        World::same_principal(view, &identity)?;
    }
    world.find_host(view)?;
    Ok((spec, world))
}

/// What a run was created with.
///
/// # Errors
/// When the run is not one that this version knows.
pub(crate) async fn spec_of(engine: &Engine, run: &RunId) -> CommandResult<Spec> {
    spec_in(&engine.history(run, 0).await?, run)
}

/// The same, from the run's history.
///
/// # Errors
/// When the run is not one that this version knows.
pub(crate) fn spec_in(history: &[Event], run: &RunId) -> CommandResult<Spec> {
    let Some(EventKind::RunCreated { input, workflow, .. }) = history.first().map(|event| &event.kind) else {
        return Err(CommandError::new(
            Code::StoreDamaged,
            format!("the history of run {run} has no beginning"),
        ));
    };
    let read = if workflow.as_str() == dssflow_workflows::image::NAME {
        ImageSpec::deserialize(input).map(|images| Spec::Images(Box::new(images)))
    } else if workflow.as_str() == dssflow_workflows::glue_resync::NAME {
        ResyncSpec::deserialize(input).map(|spec| Spec::Resync(Box::new(spec)))
    } else {
        let site = dssflow_workflows::teardown::site_in(workflow.as_str(), input);
        Site::deserialize(site).map(|site| Spec::Site(Box::new(site)))
    };
    read.map_err(|e| {
        CommandError::new(
            Code::RunForeign,
            format!("run {run} of workflow {workflow} was given what this version cannot read"),
        )
        .why(e)
        .hint("go on with the version of dssflow that made the run")
    })
}

/// How a wait for credentials ended.
enum Waited {
    /// They are the same user's or role's again.
    Renewed(Request),
    /// A signal ended it.
    Stopped(Exit),
    /// Nobody renewed them in time.
    TooLong,
}

impl Session<'_> {
    /// Asks until the credentials of the paused run answer again as who it belongs to, and says so.
    async fn until_renewed(
        &self,
        renewal: &Renewal,
        view: &RunView,
        about: About<'_>,
        signals: &mut Signals,
    ) -> Waited {
        self.ui.note(&renewal.begins(view));
        let deadline = tokio::time::Instant::now() + renewal.limit();
        let mut told = None;
        let mut asked = 0;
        loop {
            tokio::select! {
                () = tokio::time::sleep(renewal.pause(asked)) => {}
                exit = signals.next() => return Waited::Stopped(exit),
            }
            asked += 1;
            match renewal.ask(view, about).await {
                Answer::Same(principal) => {
                    let principal = one_line(&principal);
                    self.ui.note(&format!("the credentials answer again as {principal}: going on"));
                    let reason = format!("the credentials answer again as {principal}");
                    return Waited::Renewed(Request { by: "dssflow".to_owned(), reason });
                }
                Answer::Other(why) => {
                    if told.as_ref() != Some(&why) {
                        self.ui.note(&format!("still waiting: {}", one_line(&why)));
                        told = Some(why);
                    }
                }
                Answer::Nobody(why) => tracing::debug!(why, "the credentials do not answer yet"),
            }
            if tokio::time::Instant::now() >= deadline {
                self.ui.note("nobody has renewed the credentials in time; the run stays paused");
                return Waited::TooLong;
            }
        }
    }
}

/// The last words on a run that was followed: the tree, what became of it, and what comes next.
pub(crate) fn conclude(
    ui: &Ui,
    settings: &Settings,
    progress: Progress,
    view: &RunView,
    exit: Exit,
    format: FollowFormat,
    site: Option<&Site>,
) {
    let turned = progress.undo().turned();
    progress.finish(ui, view);
    match format {
        FollowFormat::Table => summary(ui, settings, view, exit, site, turned),
        FollowFormat::Json => ui.json(view, true),
        FollowFormat::Yaml => ui.yaml(view),
        FollowFormat::Jsonl => {}
        FollowFormat::Name => ui.out(view.run.as_str()),
    }
    if format != FollowFormat::Table {
        // For people, when stdout belongs to a program.
        let mut lines = vec![headline(ui, view, turned)];
        lines.extend(remains(settings, view));
        lines.extend(commands(settings, view, exit));
        ui.note(&lines.join("\n"));
    }
}

/// What became of the run, as data on stdout. `turned` is when its rollback began.
pub(crate) fn summary(
    ui: &Ui,
    settings: &Settings,
    view: &RunView,
    exit: Exit,
    site: Option<&Site>,
    turned: Option<Timestamp>,
) {
    let mut lines = vec![headline(ui, view, turned)];
    if let Some(site) = site.filter(|_| view.status == RunStatus::Succeeded) {
        let open = dssflow_workflows::security_notes(site);
        if !open.is_empty() {
            lines.push("not private to the service user:".to_owned());
            lines.extend(open.into_iter().map(|l| format!("  {}", one_line(&l))));
        }
        lines.push("wired, not exercised:".to_owned());
        lines.extend(
            dssflow_workflows::wired_not_exercised(site).into_iter().map(|l| format!("  {}", one_line(&l))),
        );
    }
    lines.extend(drift_report::of_run(ui, settings, view));
    lines.extend(remains(settings, view));
    lines.extend(commands(settings, view, exit));
    ui.out(&lines.join("\n"));
}

fn headline(ui: &Ui, view: &RunView, turned: Option<Timestamp>) -> String {
    let steps = || view.steps.iter().filter(|s| !is_turn(s));
    let count = |wanted: &[StepStatus]| steps().filter(|s| wanted.contains(&s.status)).count();
    let style = match view.status {
        RunStatus::Succeeded | RunStatus::RolledBack => Style::Green,
        RunStatus::Paused => Style::Yellow,
        _ => Style::Red,
    };
    // A rollback is timed from where the run was turned round: that may be days after it was made.
    let begin =
        turned.filter(|_| view.rolling_back || view.status == RunStatus::RolledBack).unwrap_or(view.created);
    let took = describe::duration(view.updated.since(begin));
    let mut counts = Vec::new();
    for (word, statuses) in [
        ("done", &[StepStatus::Succeeded][..]),
        ("adopted", &[StepStatus::Adopted]),
        ("skipped", &[StepStatus::Skipped]),
        ("failed", &[StepStatus::Failed, StepStatus::CompensationFailed]),
        ("taken back", &[StepStatus::Compensated]),
        ("kept", &[StepStatus::Kept]),
        ("open", &[StepStatus::Pending, StepStatus::Ready, StepStatus::Backoff, StepStatus::Waiting]),
    ] {
        let n = count(statuses);
        if n > 0 {
            counts.push(format!("{n} {word}"));
        }
    }
    let word = if takeovers::is_done(view) { "torn down" } else { view.status.as_str() };
    let status = ui.mark(style, &describe::words(word));
    format!("run {}: {status} after {took} ({} steps: {})", view.run, steps().count(), counts.join(", "))
}

/// The commands that come next.
fn commands(settings: &Settings, view: &RunView, exit: Exit) -> Vec<String> {
    let (dssflow, run) = (settings.command(), &view.run);
    let mut lines = Vec::new();
    let resumes = matches!(
        view.status,
        RunStatus::Paused | RunStatus::Failed | RunStatus::Cancelled | RunStatus::TimedOut
    );
    if resumes {
        lines.push(format!("go on:     {dssflow} resume {run}"));
    }
    if view.status == RunStatus::RollbackStuck || (view.live && !view.rolling_back) {
        lines.push(format!("take back: {dssflow} rollback {run}"));
    }
    if exit != Exit::Ok {
        lines.push(format!("details:   {dssflow} why {run}"));
    }
    lines
}

/// After the rollback of a run whose store was put back to a backup: what it may have made and does not know of.
fn unknown_since(view: &RunView) -> Option<String> {
    let backup = view.restored.filter(|_| view.rolling_back || view.status == RunStatus::RolledBack)?;
    let found: Vec<&str> =
        view.steps.iter().filter(|s| s.status == StepStatus::Adopted).map(|s| s.step.as_str()).collect();
    let found = match &found[..] {
        [] => String::new(),
        names => format!("; these steps were found done and are left as they are: {}", names.join(", ")),
    };
    Some(format!(
        "restored from a backup of {}: what it made after that is taken back only where a step looked for it and it \
         carries the run's mark{found}",
        describe::when(backup)
    ))
}

/// Whether it is the step at which a teardown turns round, which fails by design.
fn is_turn(step: &StepView) -> bool {
    step.error.as_ref().is_some_and(|error| error.code == dssflow_engine::takeover::TURN_CODE)
}

/// What went wrong, and what is still out there.
fn remains(settings: &Settings, view: &RunView) -> Vec<String> {
    let mut lines = Vec::from_iter(unknown_since(view));
    if let Some(reason) = view.paused.as_ref().filter(|r| !r.message.is_empty()) {
        let step = reason.step.as_ref().map_or_else(String::new, |s| format!("{s}: "));
        lines.push(format!("paused: {step}{}", one_line(&reason.message)));
    }
    for step in &view.steps {
        let failed =
            matches!(step.status, StepStatus::Failed | StepStatus::CompensationFailed) && !is_turn(step);
        if let Some(error) = step.error.as_ref().filter(|_| failed) {
            lines.push(format!("failed: {}: {}", step.step, describe::error(error)));
            // What is rolled back cannot be gone on with.
            if let Some(help) = error.help.as_ref().filter(|_| view.status != RunStatus::RolledBack) {
                lines.push(format!("  help: {}", one_line(help)));
            }
        }
        if let Some(reason) = &step.kept {
            lines.push(format!("kept: {}: {}", step.step, one_line(reason)));
        }
    }
    let left: Vec<String> = view
        .steps
        .iter()
        .filter(|s| s.live)
        .flat_map(|s| {
            // Of what did not end well only the intent is sure.
            let sure = if s.output.is_some() { "" } else { " (if it was made)" };
            describe::standing(&s.resources, s.output.is_some())
                .map(move |r| format!("  {}: {} {}{sure}", s.step, one_line(&r.kind), one_line(&r.id)))
        })
        .collect();
    match view.status {
        RunStatus::Failed | RunStatus::RollbackStuck | RunStatus::Cancelled | RunStatus::TimedOut
            if !left.is_empty() =>
        {
            lines.push("still there:".to_owned());
            lines.extend(left.iter().take(MAX_LEFT).cloned());
            if left.len() > MAX_LEFT {
                lines.push(format!(
                    "  and {} more: {} runs get {} -o wide",
                    left.len() - MAX_LEFT,
                    settings.command(),
                    view.run
                ));
            }
        }
        _ => {}
    }
    lines
}

/// How a command ends that leaves the run so.
pub(crate) fn exit_of(view: &RunView, aim: Aim, stopped: Option<Exit>) -> Exit {
    match view.status {
        RunStatus::Succeeded => Exit::Ok,
        // Taking back is what a teardown is for.
        RunStatus::RolledBack if aim == Aim::Back || takeovers::is_teardown(view) => Exit::Ok,
        RunStatus::RolledBack => Exit::RolledBack,
        RunStatus::RollbackStuck => Exit::Stuck,
        RunStatus::Failed | RunStatus::Cancelled | RunStatus::TimedOut => Exit::Failed,
        RunStatus::Paused => match view.paused.as_ref().map(|p| p.kind) {
            Some(PauseKind::Credentials) => Exit::Credentials,
            Some(PauseKind::Requested) => stopped.unwrap_or(Exit::Waiting),
            Some(
                PauseKind::Exhausted | PauseKind::NeedsHuman | PauseKind::CrashLoop | PauseKind::Restored,
            )
            | None => Exit::Waiting,
        },
        RunStatus::Pending | RunStatus::Running | RunStatus::Waiting | RunStatus::RollingBack => {
            stopped.unwrap_or(Exit::Waiting)
        }
    }
}

/// The events of a run, each once and in order, to progress and (for programs) to stdout.
pub(crate) struct Stream {
    pub(crate) format: FollowFormat,
    /// The last event that was shown.
    seen: u64,
    /// Up to here events are old news for people.
    old: u64,
}

impl Stream {
    /// A stream that shows people what comes after event `old`. Programs get the whole history.
    pub(crate) fn new(ui: &Ui, format: FollowFormat, run: &RunId, old: u64) -> Self {
        if format == FollowFormat::Jsonl {
            ui.json(&version_line(run), false);
            Self { format, seen: 0, old }
        } else {
            Self { format, seen: old, old }
        }
    }

    async fn catch_up(
        &mut self,
        engine: &Engine,
        run: &RunId,
        ui: &Ui,
        progress: &mut Progress,
    ) -> CommandResult<()> {
        for event in engine.history(run, self.seen).await? {
            self.show(&event, ui, progress);
        }
        Ok(())
    }

    /// The last event that was shown.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Shows one event, unless it was shown before.
    pub(crate) fn show(&mut self, event: &Event, ui: &Ui, progress: &mut Progress) {
        if event.seq <= self.seen {
            return;
        }
        self.seen = event.seq;
        if self.format == FollowFormat::Jsonl {
            ui.json(event, false);
        }
        if event.seq > self.old {
            progress.event(ui, event);
        }
    }
}

/// The first line of an event stream; minors only add.
pub(crate) fn version_line(run: &RunId) -> serde_json::Value {
    json!({
        "type": "version",
        "stream": "1.0",
        "event_format": dssflow_engine::event::EVENT_FORMAT,
        "dssflow": env!("CARGO_PKG_VERSION"),
        "run": run,
    })
}

/// Ctrl-C, SIGTERM, and SIGHUP: a terminal that goes away must not leave a run without an owner. And SIGCONT, after which the
/// cursor is not where it was.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    go_on: Signal,
}

impl Signals {
    pub(crate) fn new() -> CommandResult<Self> {
        let failed = |e: std::io::Error| CommandError::new(Code::Internal, "signals cannot be caught").why(e);
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            hangup: signal(SignalKind::hangup()).map_err(failed)?,
            go_on: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw())).map_err(failed)?,
        })
    }

    pub(crate) async fn next(&mut self) -> Exit {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return Exit::Interrupted,
                _ = self.terminate.recv() => return Exit::Terminated,
                _ = self.hangup.recv() => return Exit::Terminated,
                // A shell has written below the tree meanwhile.
                _ = self.go_on.recv() => ui::forget_foot(),
            }
        }
    }
}

/// Ends the process at once; the store is consistent by design.
#[expect(clippy::exit, reason = "a second Ctrl-C means now: nothing that could wait may run any more")]
pub(crate) fn leave(exit: Exit) -> ! {
    std::process::exit(i32::from(exit.status()))
}
