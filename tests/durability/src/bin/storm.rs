//! The program that harnesses cut off, kill and give faults: it writes to a store as fast as it can, and prints each
//! acknowledgement as one line in one write. What the lines mean is told at [`dssflow_durability::oracle::Acks`].
//!
//! ```text
//! storm PATH [--runs N] [--steps K] [--seed S] [--total M] [--seconds T]    an engine on the store
//! storm PATH --store [--writers W] [--commits C] [--seconds T]              writers on the store alone
//! ```
//!
//! As an engine it goes on with what it finds unfinished, and keeps N runs of K steps going, M in all or for T seconds
//! or for ever. Beside them a schedule starts some in each life, all of them again before it ends. Each step appends
//! `effect RUN STEP ATTEMPT` to the file `effects` beside the store. As writers, each makes C commits, changes a schedule
//! of its own with and between them, and at the end the store is closed. A store belongs to one of the two: the engine cannot read what the
//! writers write.
#![expect(clippy::print_stderr, reason = "it is a command")]

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dssflow_durability::scheduled;
use dssflow_durability::work::{self, Made, Task};
use dssflow_engine::event::{EventKind, Request};
use dssflow_engine::id::{RunId, ScheduleId, WorkflowName};
use dssflow_engine::runtime::engine::Published;
use dssflow_engine::runtime::{EngineOptions, Launch, LaunchError, Launcher, ScheduleDriver, ScheduleError};
use dssflow_engine::schedule::{Backfill, Firing, Overlap, ScheduleAction, ScheduleSpec};
use dssflow_engine::store::Store as _;
use dssflow_engine::time::{BoxFuture, Timestamp};
use dssflow_engine::{
    ActivityContext, ActivityError, ActivityRegistry, ActivityResult, Engine, Graph, RunHandle, StartRun,
};
use dssflow_store::{OpenEngine as _, SledStore};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

type Anything<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

struct Args {
    path: PathBuf,
    store: bool,
    runs: usize,
    steps: usize,
    seed: u64,
    total: u64,
    writers: u64,
    commits: u64,
    end: Option<Instant>,
}

impl Args {
    fn read() -> Anything<Self> {
        let mut words = std::env::args_os().skip(1);
        let path = words.next().ok_or("which store?")?.into();
        let mut args = Self {
            path,
            store: false,
            runs: 64,
            steps: 10,
            seed: 1,
            total: u64::MAX,
            writers: 16,
            commits: u64::MAX,
            end: None,
        };
        while let Some(flag) = words.next() {
            let flag = flag.to_string_lossy().into_owned();
            if flag == "--store" {
                args.store = true;
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{flag} of what?"))?;
            let value = value.to_string_lossy();
            match flag.as_str() {
                "--runs" => args.runs = value.parse()?,
                "--steps" => args.steps = value.parse()?,
                "--seed" => args.seed = value.parse()?,
                "--total" => args.total = value.parse()?,
                "--writers" => args.writers = value.parse()?,
                "--commits" => args.commits = value.parse()?,
                "--seconds" => args.end = Some(Instant::now() + Duration::try_from_secs_f64(value.parse()?)?),
                _ => return Err(format!("there is no {flag}").into()),
            }
        }
        Ok(args)
    }

    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }
}

/// One write, so that a line is there whole or not at all.
fn print(lines: &str) -> std::io::Result<()> {
    std::io::stdout().lock().write_all(lines.as_bytes())
}

/// The file of what the steps did, beside the store and no part of it.
fn effects(store: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(store.with_file_name("effects"))
}

fn activities(effects: File) -> Anything<ActivityRegistry> {
    let effects = Arc::new(effects);
    let mut activities = ActivityRegistry::new();
    activities.add_fn(work::ACTIVITY, move |ctx, task: Task| {
        let effects = Arc::clone(&effects);
        async move { act(&ctx, &task, &effects) }
    })?;
    Ok(activities)
}

fn act(ctx: &ActivityContext, task: &Task, mut effects: &File) -> ActivityResult<Made> {
    let line = format!("effect {} {} {}\n", ctx.run(), ctx.step(), ctx.attempt());
    effects
        .write_all(line.as_bytes())
        .map_err(|error| ActivityError::retryable("Effects", error.to_string()))?;
    if ctx.attempt() <= task.fails {
        return Err(ActivityError::retryable("Planned", "this attempt was to fail"));
    }
    Ok(Made::of(ctx.run(), ctx.step(), task))
}

/// Prints what becomes durable until the engine is gone. Lines that it is too slow for are left out: what is not
/// printed was not promised.
fn print_events(mut events: broadcast::Receiver<Published>) {
    loop {
        let (run, events) = match events.blocking_recv() {
            Ok(published) => published,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let Some(last) = events.last() else { continue };
        let done = events.iter().filter_map(|event| match &event.kind {
            EventKind::AttemptSucceeded { step, .. } => Some(format!("done {run} {step}\n")),
            EventKind::RunFinished { status, .. } => Some(format!("ended {run} {status}\n")),
            _ => None,
        });
        let lines: String = std::iter::once(format!("ack {run} {}\n", last.seq)).chain(done).collect();
        if print(&lines).is_err() {
            return;
        }
    }
}

async fn start(engine: &Engine, graphs: &[Graph], number: u64) -> Anything<RunHandle> {
    let id = RunId::new(format!("r{}-{number}", engine.store().epoch()))?;
    let graph = graphs[usize::try_from(number % work::SHAPES)?].clone();
    Ok(engine.start(StartRun::new(WorkflowName::new("storm")?, graph).id(id)).await?)
}

/// Instants that each life brings up.
const TICKS: u64 = 8;
const HOUR: Duration = Duration::from_hours(1);

/// The runs of the schedule are of the same kinds as the others.
struct Ticks(Vec<Graph>);

impl Launcher for Ticks {
    fn check(&self, _: &Engine, _: &ScheduleAction) -> Result<(), LaunchError> {
        Ok(())
    }

    fn launch<'a>(
        &'a self,
        engine: &'a Engine,
        firing: &'a Firing,
    ) -> BoxFuture<'a, Result<Launch, LaunchError>> {
        let never = |error: &dyn std::fmt::Display| LaunchError::Never(error.to_string());
        Box::pin(async move {
            let workflow = WorkflowName::new("storm").map_err(|error| never(&error))?;
            let number = u128::from(firing.nominal.as_millis()) / HOUR.as_millis() % u128::from(work::SHAPES);
            let graph = &self.0[usize::try_from(number).map_err(|error| never(&error))?];
            Ok(Launch::new(StartRun::new(workflow, graph.clone()), engine.clone()))
        })
    }
}

/// The schedule, and what fires it.
struct Tick {
    engine: Engine,
    id: ScheduleId,
    driver: ScheduleDriver,
}

impl Tick {
    /// Says how far it has come, durably. Only while nobody writes it: what is read may be of a group that is not
    /// durable yet.
    async fn tell(engine: &Engine, id: &ScheduleId) -> Anything<()> {
        let stored = engine.store().schedule(id).await?.ok_or("the schedule is gone")?;
        Ok(print(&format!("at {id} {}\n", stored.version))?)
    }

    /// Made by the first life. It ended long ago, so the clock never brings anything up: each life wants the next hours
    /// since 1970, unless an earlier one's wait.
    async fn start(engine: &Engine) -> Anything<Self> {
        let schedules = engine.schedules();
        let id = ScheduleId::new(scheduled::ENGINE)?;
        let mut spec = ScheduleSpec::every(HOUR, ScheduleAction::new("storm")).overlap(Overlap::AllowAll);
        spec.end = Some(Timestamp::from_millis(0) + HOUR * 400_000);
        match schedules.create(id.clone(), spec, Request::by("storm")).await {
            Ok(_) | Err(ScheduleError::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let view = schedules.get(&id).await?;
        if view.backfills.is_empty() && view.waiting.is_empty() {
            let after = |hours: u64| Timestamp::from_millis(hours * 3_600_000);
            let (from, to) = (view.counts.fired + 1, view.counts.fired + TICKS);
            let mut wanted = Backfill::new(after(from), after(to));
            wanted.overlap = Overlap::AllowAll;
            schedules.backfill(&id, wanted, false, Request::by("storm")).await?;
        }
        Self::tell(engine, &id).await?;
        Ok(Self { engine: engine.clone(), id, driver: schedules.drive() })
    }

    /// When all that was wanted has run.
    async fn end(self) -> Anything<()> {
        loop {
            let view = self.engine.schedules().get(&self.id).await?;
            if view.backfills.is_empty() && view.waiting.is_empty() && view.running.is_empty() {
                break;
            }
            if let Some(trouble) = view.trouble {
                return Err(format!("the schedule starts nothing: {trouble:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.driver.stop().await?;
        Self::tell(&self.engine, &self.id).await
    }
}

/// Drives runs on an engine. What this leaves is what a crash leaves: the store is dropped, not closed.
async fn drive(args: Args) -> Anything<()> {
    let graphs: Vec<Graph> =
        (0..work::SHAPES).map(|shape| work::graph(args.steps, args.seed, shape)).collect::<Result<_, _>>()?;
    let mut options = EngineOptions::default();
    // Whoever is cut off again and again is no run that kills its process.
    options.crash_loop_cap = u32::MAX;
    let activities = activities(effects(&args.path)?)?;
    let engine = Engine::open(&args.path).await?.activities(activities).options(options);
    let engine = engine.launcher(Ticks(graphs.clone())).build();
    let events = engine.subscribe();
    print(&format!("open {}\n", engine.store().epoch()))?;
    let printer = std::thread::spawn(move || print_events(events));

    let recovered = engine.recover().await?;
    if let Some((run, error)) = recovered.parked.into_iter().next() {
        return Err(format!("run {run} cannot go on: {error}").into());
    }
    let tick = Tick::start(&engine).await?;
    let mut going = JoinSet::new();
    for run in recovered.runs {
        going.spawn(async move { run.wait().await });
    }
    let mut started = 0;
    loop {
        while going.len() < args.runs && started < args.total && !args.is_over() {
            let run = start(&engine, &graphs, started).await?;
            started += 1;
            going.spawn(async move { run.wait().await });
        }
        let Some(ended) = going.join_next().await else { break };
        let ended = ended??;
        if !ended.status.is_end() {
            return Err(format!("run {} stands still: {}", ended.run, ended.status).into());
        }
    }
    tick.end().await?;
    drop(engine);
    printer.join().map_err(|_| "the printer panicked")?;
    Ok(())
}

/// One writer: run after run, event after event, each after the acknowledgement of the one before.
async fn write(store: Arc<SledStore>, writer: u64, args: Arc<Args>) -> Anything<()> {
    let mut left = args.commits;
    for number in 0_u64.. {
        let run = format!("w{writer}-{number}");
        let mut seq = store.head(&RunId::new(run.as_str())?).await?.map_or(0, |head| head.seq);
        // What an earlier life has not come to.
        follow(&store, writer, scheduled::position(number, seq)).await?;
        while seq < work::RUN_EVENTS {
            if left == 0 || args.is_over() {
                return Ok(());
            }
            left -= 1;
            let mut next = work::next(&run, seq + 1, store.epoch());
            scheduled::add(&*store, writer, scheduled::position(number, seq + 1), &mut next).await?;
            seq = store.commit(next).await?;
            print(&format!("ack {run} {seq}\n"))?;
            follow(&store, writer, scheduled::position(number, seq)).await?;
        }
    }
    Ok(())
}

async fn follow(store: &SledStore, writer: u64, position: u64) -> Anything<()> {
    if let Some(line) = scheduled::follow(store, writer, position).await? {
        print(&line)?;
    }
    Ok(())
}

async fn write_all(args: Args) -> Anything<()> {
    let store = Arc::new(SledStore::open(&args.path, dssflow_store::OpenOptions::default())?);
    print(&format!("open {}\n", store.epoch()))?;
    let args = Arc::new(args);
    let mut writers = JoinSet::new();
    for writer in 0..args.writers {
        writers.spawn(write(Arc::clone(&store), writer, Arc::clone(&args)));
    }
    // Each may have something to acknowledge after another one has failed.
    let mut failed = None;
    while let Some(ended) = writers.join_next().await {
        if let Err(error) = ended? {
            failed = failed.or(Some(error));
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    store.close().await?;
    print("closed\n")?;
    Ok(())
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let done = match Args::read() {
        Ok(args) if args.store => write_all(args).await,
        Ok(args) => drive(args).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storm: {error}");
            ExitCode::FAILURE
        }
    }
}
