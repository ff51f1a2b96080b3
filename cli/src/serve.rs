//! What `dssflow serve` does while it owns the store: it drives any run in the run's own world, looks after it until it
//! stands for good, and goes on with all that were under way when it starts.
//!
//! `recovery` begins with the runs of before, `verbs` is what people want of a run that is there, `orders` are new runs,
//! `firings` those that schedules start, `notify` talks to systemd. What is asked comes in through the API (`control`); nothing here knows HTTP.

mod firings;
pub(crate) mod notify;
mod orders;
mod recovery;
mod verbs;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use dssflow_engine::event::Request;
use dssflow_engine::id::RunId;
use dssflow_engine::run::view::RunView;
use dssflow_engine::store::StoreError;
use dssflow_engine::time::Timestamp;
use dssflow_engine::{Engine, EngineError, RunHandle};
use dssflow_store::SledStore;
use futures::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::api::metrics::Counts;
use crate::config::Settings;
use crate::control::{Health, Parked, Standing};
use crate::drive::{self, Aim, exit_of, patience};
use crate::error::{Code, CommandError, CommandResult};
use crate::progress::now;
use crate::renewal::{Answer, Renewal};
use crate::spec::{About, Spec};
use crate::takeovers;
use crate::ui::one_line;
use crate::world::{Pool, World};

/// Who asks, in histories, when the daemon itself does.
pub(crate) const ACTOR: &str = "dssflow serve";
/// Why it pauses every run when it stops. A run that is paused so goes on when it starts again.
pub(crate) const STOPS: &str = "it stops; the run goes on when it starts again";
/// How long runs may take to come to a stand when it stops, beyond what attempts are given.
const STANDSTILL: Duration = Duration::from_secs(20);

/// The daemon's own: what it needs to drive runs, and what it knows of those that it cannot drive.
pub(crate) struct Service {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<SledStore>,
    /// Knows every activity, without anything injected.
    pub(crate) engine: Engine,
    pool: Pool,
    keepers: TaskTracker,
    stopping: CancellationToken,
    /// Why it has to end: the store failed.
    broken: watch::Sender<Option<String>>,
    parked: Mutex<BTreeMap<RunId, Why>>,
    recovered: Mutex<recovery::Recovered>,
    tickets: Mutex<orders::Tickets>,
    /// New runs are begun one after another, so that two orders for one site do not both begin it.
    starting: Arc<tokio::sync::Mutex<()>>,
    /// Where it serves HTTP, once it does.
    listens: OnceLock<SocketAddr>,
    pub(crate) counts: Counts,
    since: Timestamp,
}

/// Why a run that was under way is not driven.
#[derive(Debug, Clone)]
struct Why {
    text: String,
    /// Whether it may go away without anybody doing something to the run.
    passing: bool,
}

/// A run in its world.
struct Opened {
    spec: Spec,
    world: World,
    engine: Engine,
}

impl Service {
    pub(crate) fn new(
        settings: Settings,
        store: Arc<SledStore>,
        engine: Engine,
        counts: Counts,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            store,
            engine,
            pool: Pool::default(),
            keepers: TaskTracker::new(),
            stopping: CancellationToken::new(),
            broken: watch::Sender::new(None),
            parked: Mutex::default(),
            recovered: Mutex::default(),
            tickets: Mutex::default(),
            starting: Arc::default(),
            listens: OnceLock::new(),
            counts,
            since: now(),
        })
    }

    fn parked(&self) -> MutexGuard<'_, BTreeMap<RunId, Why>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends with why, once the store has failed and nothing can go on.
    pub(crate) async fn broken(&self) -> String {
        let mut broken = self.broken.subscribe();
        match broken.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // The sender is ours.
            Err(_) => std::future::pending().await,
        }
    }

    /// Notes that nothing can go on, and why.
    pub(crate) fn breaks(&self, why: String) {
        self.broken.send_if_modified(|broken| {
            let first = broken.is_none();
            broken.get_or_insert(why);
            first
        });
    }

    /// Notes where it serves HTTP.
    pub(crate) fn listens_on(&self, address: SocketAddr) {
        let _once = self.listens.set(address);
    }

    /// Cancelled when it is to stop.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Refuses what would change something while it stops.
    ///
    /// # Errors
    /// When it stops.
    pub(crate) fn must_go_on(&self) -> CommandResult<()> {
        if !self.stopping.is_cancelled() {
            return Ok(());
        }
        Err(CommandError::new(Code::Stopping, "the process that serves the store is stopping")
            .hint("repeat the command when it has started again"))
    }

    /// How it stands.
    pub(crate) fn health(&self) -> Health {
        let recovered = *self.recovered.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = if self.broken.borrow().is_some() {
            Standing::Broken
        } else if self.stopping.is_cancelled() {
            Standing::Stopping
        } else if recovered.done < recovered.of || !recovered.listed {
            Standing::Recovering
        } else {
            Standing::Ok
        };
        let parked = self.parked();
        let parked = parked.iter().map(|(run, why)| Parked { run: run.clone(), why: why.text.clone() });
        Health {
            status: standing,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            serves: true,
            since: self.since,
            listens: self.listens.get().map(ToString::to_string),
            driven: self.engine.live_runs().len(),
            queued: self.engine.queued(),
            recovered: recovered.done,
            recover_ms: recovered.took_ms,
            parked: parked.collect(),
        }
    }

    /// The run that was started by itself, and not as a step: what a run starts is in the world of the run above.
    async fn top_of(&self, view: &RunView) -> CommandResult<RunView> {
        let mut top = view.clone();
        while let Some(parent) = &top.parent {
            top = self.engine.view(&parent.run).await?;
        }
        Ok(top)
    }

    /// Opens the world that a run is in.
    async fn open(&self, view: &RunView) -> CommandResult<Opened> {
        let top = self.top_of(view).await?;
        let sandbox = drive::sandbox_of(&self.settings.store, &top).await?;
        let (spec, world) = drive::world_of(&self.engine, &self.pool, &top, sandbox).await?;
        let engine = drive::equip(&self.engine, &world);
        Ok(Opened { spec, world, engine })
    }

    /// The same for a run that is to be driven on: nothing else may have taken it over.
    async fn open_to_drive(&self, view: &RunView) -> CommandResult<Opened> {
        let access = Access::Store(Arc::clone(&self.store));
        takeovers::must_be_free(&access, view, &self.settings.command()).await?;
        self.open(view).await
    }

    /// Looks after a driven run from now on.
    fn keep(self: &Arc<Self>, opened: Opened, handle: RunHandle) {
        self.parked().remove(handle.id());
        let (service, run) = (Arc::clone(self), handle.id().clone());
        self.keepers.spawn(async move {
            if let Err(error) = service.look_after(opened, handle).await {
                tracing::warn!(%run, error = %error, "the run is not driven any more");
            }
        });
    }

    /// Waits until the run stands, closes the books of a teardown, and waits for credentials that have ended.
    async fn look_after(&self, opened: Opened, mut handle: RunHandle) -> CommandResult<()> {
        let Opened { spec, world, engine } = opened;
        // Most runs only wait, and there may be thousands: what is seldom wanted is read again, and futures that are
        // seldom awaited are boxed.
        drop(spec);
        let run = handle.id().clone();
        Box::pin(world.hold(&run)).await;
        let mut renewal = Renewal::new(&world.clients, patience(&world))?;
        loop {
            let view = match handle.wait().await {
                Ok(view) => view,
                Err(error) => return self.failed(error),
            };
            if takeovers::is_done(&view) {
                Box::pin(takeovers::close(&self.store, &view)).await?;
            }
            let stopping = self.stopping.is_cancelled();
            let request = if !stopping && recovery::was_stopped(&view) {
                // The last stop asked it to pause, and was over before it did.
                recovery::request()
            } else if !stopping && renewal.may_wait(&view) {
                let top = Box::pin(self.top_of(&view)).await?;
                let spec = Box::pin(drive::spec_of(&self.engine, &top.run)).await?;
                match Box::pin(self.until_renewed(&renewal, &view, About::from(&spec))).await {
                    Some(request) => request,
                    None => return Ok(()),
                }
            } else {
                Box::pin(world.let_go(&run, &Ok(exit_of(&view, Aim::Forward, None)))).await;
                return Ok(());
            };
            handle = match Box::pin(engine.resume(&run, request)).await {
                Ok(handle) => handle,
                // Somebody went on with it a moment ago, and that drive is looked after.
                Err(EngineError::Live(_)) => return Ok(()),
                Err(error) => return self.failed(error),
            };
        }
    }

    /// A drive ended by an error. When the store is what failed, nothing here can go on.
    fn failed(&self, error: EngineError) -> CommandResult<()> {
        if let EngineError::Store { error: StoreError::Poisoned(_) | StoreError::Unknown(_), .. } = &error {
            self.breaks(error.to_string());
        }
        // It is let go when the daemon stops.
        if matches!(error, EngineError::Dropped(_)) && self.stopping.is_cancelled() {
            return Ok(());
        }
        Err(error.into())
    }

    /// Asks until the credentials of a paused run answer again as who it belongs to. Nothing when somebody else went on
    /// with the run, nobody renewed them in time, or the daemon stops.
    async fn until_renewed(&self, renewal: &Renewal, view: &RunView, about: About<'_>) -> Option<Request> {
        tracing::warn!(run = %view.run, "{}", one_line(&renewal.begins(view)));
        let deadline = tokio::time::Instant::now() + renewal.limit();
        let (mut told, mut asked) = (None, 0);
        while tokio::time::Instant::now() < deadline {
            tokio::select! {
                () = tokio::time::sleep(renewal.pause(asked)) => {}
                () = self.stopping.cancelled() => return None,
            }
            asked += 1;
            if self.engine.handle(&view.run).is_some() {
                return None;
            }
            match renewal.ask(view, about).await {
                Answer::Same(principal) => {
                    let reason = format!("the credentials answer again as {}", one_line(&principal));
                    tracing::info!(run = %view.run, "{reason}: going on");
                    return Some(Request { by: ACTOR.to_owned(), reason });
                }
                Answer::Other(why) => {
                    if told.as_ref() != Some(&why) {
                        tracing::warn!(run = %view.run, "still waiting: {}", one_line(&why));
                        told = Some(why);
                    }
                }
                Answer::Nobody(why) => tracing::debug!(why, "the credentials do not answer yet"),
            }
        }
        tracing::warn!(run = %view.run, "nobody has renewed the credentials in time; the run stays paused");
        None
    }

    /// Lets every run come to a stand, so that it goes on when the daemon starts again. How many were saved, and how
    /// many did not stand in time: those are as after a crash.
    pub(crate) async fn stop(&self) -> (usize, usize) {
        self.stopping.cancel();
        let deadline = tokio::time::Instant::now() + STANDSTILL;
        // What was about to begin has begun, or is refused.
        drop(tokio::time::timeout_at(deadline, self.starting.lock()).await);
        let mut saved = 0;
        loop {
            let handles: Vec<RunHandle> =
                self.engine.live_runs().iter().filter_map(|run| self.engine.handle(run)).collect();
            if handles.is_empty() {
                break;
            }
            let stand = join_all(handles.iter().map(async |handle| {
                let request = Request { by: ACTOR.to_owned(), reason: STOPS.to_owned() };
                // One that has just ended has nothing to pause.
                drop(handle.pause(request).await);
                handle.wait().await.is_ok()
            }));
            let Ok(stood) = tokio::time::timeout_at(deadline, stand).await else {
                let left = self.engine.live_runs().len();
                self.engine.stop();
                return (saved + handles.len().saturating_sub(left), left);
            };
            saved += stood.into_iter().filter(|stood| *stood).count();
        }
        self.keepers.close();
        // What is left to do for runs that ended is short.
        drop(tokio::time::timeout_at(deadline, self.keepers.wait()).await);
        (saved, 0)
    }
}
