//! Fires what is due, follows the runs, and does it all again.
//!
//! One task looks at the clock and hands out schedules; each is worked on by a task of its own, so that one whose run is
//! slow to make holds up no other. What a task does it decides from what it has just read, and writes on the condition that
//! nobody wrote meanwhile, so it does not matter who else works on the same schedule.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{LOOK, Launch, LaunchError, read, times};
use crate::event::{CancelMode, Event, EventKind, Request};
use crate::id::{RunId, ScheduleId};
use crate::runtime::engine::{Engine, EngineError, Published};
use crate::runtime::metrics::Measure;
use crate::runtime::schedules::{ScheduleError, Schedules};
use crate::runtime::start::{Conflict, First, Reuse};
use crate::schedule::{
    Decision, Ended, Fire, Firing, LastResult, Running, ScheduleState, Skip, Stop, Times, decide, encode,
};
use crate::store::{SchedulePut, StoreError};
use crate::time::Timestamp;

/// The label of every run of a schedule.
pub(crate) const LABEL: &str = "schedule";
/// The most schedules that are read from the due index at once.
const MAX_DUE: usize = 1_000;
/// The most firings of one schedule in a row; each is a turn.
const MAX_TURNS: usize = 1_000;
/// The most schedules that are worked on at once.
const MAX_AT_ONCE: usize = 64;
/// A clock that is put back by more than this is noticed.
const SET_BACK: Duration = Duration::from_secs(1);
/// Wait before the first new try of what could not be started; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Fires what is due as long as it is there. Dropping it ends that as a crash would: nothing is lost, nothing fires twice.
#[derive(Debug)]
pub struct ScheduleDriver {
    task: JoinHandle<()>,
    stop: CancellationToken,
    ended: watch::Receiver<Option<Result<(), ScheduleError>>>,
}

impl ScheduleDriver {
    pub(super) fn start(schedules: Schedules) -> Self {
        let stop = CancellationToken::new();
        let (ended_to, ended) = watch::channel(None);
        // What it must not miss is subscribed to before anything is read.
        let driver = Driver::new(schedules, stop.clone());
        let task = tokio::spawn(async move {
            let result = AssertUnwindSafe(driver.run()).catch_unwind().await.unwrap_or_else(|_| {
                Err(ScheduleError::Store(StoreError::Unavailable(
                    "the driver of schedules panicked".to_owned(),
                )))
            });
            if let Err(error) = &result {
                tracing::error!(%error, "schedules are not driven any more");
            }
            ended_to.send_replace(Some(result));
        });
        Self { task, stop, ended }
    }

    /// Fires nothing more from now on. [`ScheduleDriver::stop`] waits for the end of what is being started; a launcher that
    /// gives it up after this leaves no trouble with the schedule.
    pub fn tell_to_stop(&self) {
        self.stop.cancel();
    }

    /// Fires nothing more, waits until what is being started is started, and returns. Runs go on.
    ///
    /// # Errors
    /// Why it had ended by itself.
    pub async fn stop(self) -> Result<(), ScheduleError> {
        self.stop.cancel();
        self.ended().await
    }

    /// Resolves when nothing is fired any more: the store failed, or it was stopped.
    ///
    /// # Errors
    /// Why, when it ended by itself.
    pub async fn ended(&self) -> Result<(), ScheduleError> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            Err(_) => Ok(()),
        }
    }
}

impl Drop for ScheduleDriver {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            self.task.abort();
        }
    }
}

/// A schedule that cannot go on at once.
#[derive(Debug, Clone, Copy)]
struct Waits {
    until: Timestamp,
    tries: u32,
}

/// What a look at a schedule left.
#[derive(Debug, Default)]
struct Looked {
    /// Its runs that are not over.
    running: Vec<RunId>,
    /// Set when it wants to be tried again although nothing changes.
    again: bool,
}

struct Driver {
    schedules: Schedules,
    stop: CancellationToken,
    touched: tokio::sync::broadcast::Receiver<ScheduleId>,
    events: tokio::sync::broadcast::Receiver<Published>,
    tasks: JoinSet<(ScheduleId, Result<Looked, ScheduleError>)>,
    /// Those that are worked on, and whether they are to be looked at once more afterwards.
    busy: BTreeMap<ScheduleId, bool>,
    /// Those that are to be looked at.
    wanted: BTreeSet<ScheduleId>,
    waits: BTreeMap<ScheduleId, Waits>,
    /// Whose runs are followed.
    following: BTreeMap<RunId, ScheduleId>,
    /// Whether all of them are to be looked at: what was not heard of may be of any.
    all: bool,
    last_now: Timestamp,
    /// When runs that others drive were looked at last.
    last_tick: Timestamp,
}

impl Driver {
    fn new(schedules: Schedules, stop: CancellationToken) -> Self {
        let inner = &schedules.engine.inner;
        let (touched, events) = (inner.touched.subscribe(), inner.events.subscribe());
        let now = inner.clock.now();
        Self {
            all: true,
            last_now: now,
            last_tick: now,
            schedules,
            stop,
            touched,
            events,
            tasks: JoinSet::new(),
            busy: BTreeMap::new(),
            wanted: BTreeSet::new(),
            waits: BTreeMap::new(),
            following: BTreeMap::new(),
        }
    }

    async fn run(mut self) -> Result<(), ScheduleError> {
        let (stop, clock) = (self.stop.clone(), Arc::clone(&self.schedules.engine.inner.clock));
        let mut failed = 0;
        while !stop.is_cancelled() {
            let wake = match self.round().await {
                Ok(wake) => {
                    failed = 0;
                    wake
                }
                Err(ScheduleError::Store(error)) if is_fatal(&error) => {
                    return Err(ScheduleError::Store(error));
                }
                Err(error) => {
                    failed += 1;
                    let wait = wait_before(failed);
                    tracing::warn!(%error, ?wait, "what is due cannot be read; it is tried again");
                    self.schedules.now() + wait
                }
            };
            let mut timer = clock.sleep_until(wake);
            // The store is not asked again for every event of every run.
            let mut quiet = true;
            while quiet {
                quiet = false;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    Some(done) = self.tasks.join_next() => self.done(done)?,
                    touched = self.touched.recv() => match touched {
                        Ok(id) => {
                            self.waits.remove(&id);
                            self.wanted.insert(id);
                        }
                        Err(RecvError::Lagged(_)) => self.all = true,
                        // The engine is here, so its end of the channel is too.
                        Err(RecvError::Closed) => stop.cancel(),
                    },
                    events = self.events.recv() => match events {
                        Ok((run, events)) => quiet = !self.heard(&run, &events),
                        Err(RecvError::Lagged(_)) => self.want_followed(),
                        Err(RecvError::Closed) => stop.cancel(),
                    },
                    () = &mut timer => {}
                }
            }
        }
        while let Some(done) = self.tasks.join_next().await {
            self.done(done)?;
        }
        Ok(())
    }

    /// Reads what is due and hands it out. When to do it again at the latest.
    async fn round(&mut self) -> Result<Timestamp, ScheduleError> {
        if self.all {
            self.want_all().await?;
            self.all = false;
        }
        self.look().await?;
        self.hand_out();
        self.wake().await
    }

    async fn want_all(&mut self) -> Result<(), ScheduleError> {
        let store = Arc::clone(&self.schedules.engine.inner.store);
        let mut after = None;
        loop {
            let page = store.schedules(after.as_ref(), MAX_DUE).await.map_err(ScheduleError::Store)?;
            let full = page.len() == MAX_DUE;
            after = page.last().map(|stored| stored.id.clone());
            self.wanted.extend(page.into_iter().map(|stored| stored.id));
            if !full {
                return Ok(());
            }
        }
    }

    fn want_followed(&mut self) {
        self.wanted.extend(self.following.values().cloned());
    }

    /// Looks at the clock: what is due, and runs that others drive and that may have ended.
    async fn look(&mut self) -> Result<(), ScheduleError> {
        let inner = &self.schedules.engine.inner;
        let (store, now) = (Arc::clone(&inner.store), inner.clock.now());
        if now + SET_BACK < self.last_now {
            tracing::warn!(%now, before = %self.last_now, "the clock was put back; every schedule is looked at");
            self.want_all().await?;
        }
        self.last_now = now;
        let ticked = now < self.last_tick || now.since(self.last_tick) >= LOOK;
        let due = store.due_schedules(now, MAX_DUE).await.map_err(ScheduleError::Store)?;
        let waits = &self.waits;
        let may = |id: &ScheduleId| waits.get(id).is_none_or(|waits| waits.until <= now);
        self.wanted.extend(due.into_iter().map(|(_, id)| id).filter(may));
        self.wanted.extend(self.waits.iter().filter(|(_, w)| w.until <= now).map(|(id, _)| id.clone()));
        if ticked {
            self.last_tick = now;
            let engine = &self.schedules.engine;
            let elsewhere = self.following.iter().filter(|(run, _)| engine.handle(run).is_none());
            self.wanted.extend(elsewhere.map(|(_, id)| id.clone()));
        }
        Ok(())
    }

    /// When to look again at the latest.
    async fn wake(&self) -> Result<Timestamp, ScheduleError> {
        let inner = &self.schedules.engine.inner;
        let now = self.last_now;
        let mut wake = now + LOOK;
        // Behind those that are in hand there is one that is not, or none.
        let limit = (self.busy.len() + self.waits.len() + self.wanted.len() + 1).min(MAX_DUE);
        let due = inner.store.due_schedules(wake, limit).await.map_err(ScheduleError::Store)?;
        let in_hand = |id: &ScheduleId| {
            self.busy.contains_key(id) || self.waits.contains_key(id) || self.wanted.contains(id)
        };
        let next = due.into_iter().find(|(_, id)| !in_hand(id));
        if let Some((at, _)) = next {
            wake = wake.min(at.max(now));
        }
        Ok(self.waits.values().map(|waits| waits.until).fold(wake, Timestamp::min))
    }

    /// True when it is news for a schedule.
    fn heard(&mut self, run: &RunId, events: &[Event]) -> bool {
        let ended = |event: &Event| matches!(event.kind, EventKind::RunFinished { .. });
        let Some(id) = self.following.get(run).filter(|_| events.iter().any(ended)) else { return false };
        self.wanted.insert(id.clone());
        true
    }

    /// Starts work on what is wanted.
    fn hand_out(&mut self) {
        for id in std::mem::take(&mut self.wanted) {
            if let Some(again) = self.busy.get_mut(&id) {
                *again = true;
            } else if self.busy.len() >= MAX_AT_ONCE {
                self.wanted.insert(id);
            } else {
                self.busy.insert(id.clone(), false);
                let (schedules, stop) = (self.schedules.clone(), self.stop.clone());
                self.tasks.spawn(async move {
                    let work = AssertUnwindSafe(work(&schedules, &id, &stop)).catch_unwind().await;
                    let looked = work.unwrap_or_else(|_| {
                        tracing::error!(schedule = %id, "work on the schedule panicked; it is tried again");
                        Ok(Looked { again: true, ..Looked::default() })
                    });
                    (id, looked)
                });
            }
        }
    }

    fn done(
        &mut self,
        done: Result<(ScheduleId, Result<Looked, ScheduleError>), tokio::task::JoinError>,
    ) -> Result<(), ScheduleError> {
        // A task that was ended is one of a runtime that ends.
        let Ok((id, looked)) = done else { return Ok(()) };
        if self.busy.remove(&id) == Some(true) {
            self.wanted.insert(id.clone());
        }
        let looked = match looked {
            Ok(looked) => looked,
            Err(ScheduleError::Store(error)) if is_fatal(&error) => return Err(ScheduleError::Store(error)),
            Err(error) => {
                tracing::warn!(schedule = %id, %error, "the schedule cannot be worked on; it is tried again");
                Looked { again: true, running: self.runs_of(&id) }
            }
        };
        self.following.retain(|_, of| *of != id);
        self.following.extend(looked.running.into_iter().map(|run| (run, id.clone())));
        if looked.again {
            let tries = self.waits.get(&id).map_or(0, |waits| waits.tries).saturating_add(1);
            let until = self.schedules.now() + wait_before(tries);
            self.waits.insert(id, Waits { until, tries });
        } else {
            self.waits.remove(&id);
        }
        Ok(())
    }

    fn runs_of(&self, id: &ScheduleId) -> Vec<RunId> {
        self.following.iter().filter(|(_, of)| *of == id).map(|(run, _)| run.clone()).collect()
    }
}

/// How long it is waited before something is tried again, after so many tries.
fn wait_before(tries: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << tries.min(10).saturating_sub(1)).min(LONGEST_WAIT)
}

/// Whether nothing more can be done on this store.
fn is_fatal(error: &StoreError) -> bool {
    matches!(error, StoreError::Fenced { .. } | StoreError::Poisoned(_) | StoreError::Corrupt(_))
}

/// Brings one schedule to where it should be now.
async fn work(
    schedules: &Schedules,
    id: &ScheduleId,
    stop: &CancellationToken,
) -> Result<Looked, ScheduleError> {
    let store = &schedules.engine.inner.store;
    for _ in 0..MAX_TURNS {
        if stop.is_cancelled() {
            return Ok(Looked::default());
        }
        let stored = store.schedule(id).await.map_err(ScheduleError::Store)?;
        let Some(stored) = stored else { return Ok(Looked::default()) };
        let before = read(&stored)?;
        let times = times(&before)?;
        let mut state = before.clone();
        for running in before.running.clone() {
            if let Some(ended) = look_at(&schedules.engine, &running.run(id)).await? {
                state.ended(running.nominal, running.by, ended, schedules.now());
            }
        }
        let decision = decide(&state, &times, schedules.now());
        let turn = Turn { schedules, version: stored.version, times: &times, decision };
        let again = if let Some(fire) = turn.decision.fire.clone() {
            match turn.fire(*fire).await? {
                Fired::Done => continue,
                // It was given up for the stop, and is no trouble of the schedule.
                Fired::NotYet(_) if stop.is_cancelled() => return Ok(Looked::default()),
                Fired::NotYet(why) => {
                    let mut state = turn.decision.state.clone();
                    let (nominal, now) = (turn.nominal(), schedules.now());
                    let news = state.note_trouble(nominal, &why, now);
                    // What else was decided goes with it; if nothing was, the trouble is written once.
                    if (news || turn.decision.state != before) && !turn.put(&state, Some(now)).await? {
                        continue;
                    }
                    if news {
                        tracing::warn!(schedule = %id, %nominal, %why, "a firing cannot be started yet");
                    }
                    true
                }
            }
        } else {
            let Decision { state, due, .. } = &turn.decision;
            let more = due.is_some_and(|due| due <= schedules.now());
            if (*state != before || *due != stored.due) && !turn.put(state, *due).await? {
                continue;
            }
            turn.tell_skips();
            if more && *state != before {
                continue;
            }
            false
        };
        for stop in &turn.decision.stop {
            end(&schedules.engine, id, stop).await;
        }
        let running = turn.decision.state.running.iter().map(|running: &Running| running.run(id));
        return Ok(Looked { running: running.collect(), again });
    }
    // Others go on meanwhile.
    Ok(Looked { again: true, ..Looked::default() })
}

/// What became of a firing.
enum Fired {
    /// It was settled one way or the other; the schedule is to be read again.
    Done,
    /// It could not be started, and may be in a moment.
    NotYet(String),
}

/// One decision, on the version it was made of.
struct Turn<'a> {
    schedules: &'a Schedules,
    version: u64,
    times: &'a Times,
    decision: Decision,
}

impl Turn<'_> {
    fn nominal(&self) -> Timestamp {
        self.decision.fire.as_ref().map_or(Timestamp::default(), |fire| fire.firing.nominal)
    }

    fn form(&self, state: &ScheduleState, due: Option<Timestamp>) -> SchedulePut {
        SchedulePut { id: state.id.clone(), expect: Some(self.version), record: encode(state), due }
    }

    /// Writes the schedule; false when somebody else did.
    async fn put(&self, state: &ScheduleState, due: Option<Timestamp>) -> Result<bool, ScheduleError> {
        let store = &self.schedules.engine.inner.store;
        match store.put_schedule(self.form(state, due), store.epoch()).await {
            Ok(_) => Ok(true),
            // It may have been written: what is there now tells.
            Err(StoreError::ScheduleConflict { .. } | StoreError::Unknown(_)) => Ok(false),
            Err(error) => Err(ScheduleError::Store(error)),
        }
    }

    async fn refuse(&self, why: &str) -> Result<Fired, ScheduleError> {
        let now = self.schedules.now();
        let state = self.decision.refused(why, now);
        tracing::warn!(schedule = %state.id, nominal = %self.nominal(), %why, "a firing cannot be started");
        self.schedules.engine.inner.measure(&Measure::ScheduleRefused { schedule: &state.id });
        self.put(&state, Some(now)).await?;
        self.tell_skips();
        Ok(Fired::Done)
    }

    /// Starts the run of a firing, and writes down that it fired, in one transition.
    async fn fire(&self, fire: Fire) -> Result<Fired, ScheduleError> {
        let engine = &self.schedules.engine;
        let Fire { mut firing, state } = fire;
        self.read_result(&mut firing).await;
        let launched = self.schedules.launcher.launch(engine, &firing).await;
        let mut launch = match launched {
            Ok(launch) => launch,
            Err(LaunchError::Never(why)) => return self.refuse(&why).await,
            // It waits as long as the catch-up window is; then it is missed.
            Err(LaunchError::Later(why)) => return Ok(Fired::NotYet(why)),
        };
        let mut start = launch.start.clone();
        (start.id, start.reuse, start.conflict) = (Some(firing.run.clone()), Reuse::Reject, Conflict::Fail);
        start.labels.insert(LABEL.to_owned(), firing.schedule.to_string());
        start.request = firing.asks();
        let due = self.due_after(&state);
        let schedule = Some((firing.scheduled(), self.form(&state, due)));
        if let Err(error) = launch.engine.check_code(&firing.run, &start.graph, true) {
            return self.refuse(&error.to_string()).await;
        }
        let first = First { schedule, ..First::default() };
        match launch.engine.start_as(firing.run.clone(), start, None, None, first).await {
            Ok(handle) => {
                self.tell_fired(&firing);
                launch.take_started()(handle);
                Ok(Fired::Done)
            }
            Err(error) => self.not_started(&firing, &state, &mut launch, error).await,
        }
    }

    /// When the schedule is to be looked at once the run is there. It is read again at once, so this counts after a crash.
    fn due_after(&self, state: &ScheduleState) -> Option<Timestamp> {
        decide(state, self.times, self.schedules.now()).due
    }

    async fn not_started(
        &self,
        firing: &Firing,
        state: &ScheduleState,
        launch: &mut Launch,
        error: EngineError,
    ) -> Result<Fired, ScheduleError> {
        match error {
            // Somebody else was quicker.
            EngineError::Store { error: StoreError::ScheduleConflict { .. }, .. } => Ok(Fired::Done),
            // What is there tells whether it was written; if it was, nobody drives the run.
            EngineError::Store { error: StoreError::Unknown(_), .. } => {
                match launch.engine.resume(&firing.run, Request::by("recovery")).await {
                    Ok(handle) => {
                        self.tell_fired(firing);
                        launch.take_started()(handle);
                    }
                    Err(error) => tracing::debug!(run = %firing.run, %error, "it was not started"),
                }
                Ok(Fired::Done)
            }
            EngineError::Store { error: StoreError::Exists(_), .. }
            | EngineError::Live(_)
            | EngineError::Held { .. } => {
                let store = &self.schedules.engine.inner.store;
                if store.head(&firing.run).await.map_err(ScheduleError::Store)?.is_none() {
                    return Ok(Fired::NotYet("another engine holds its run".to_owned()));
                }
                // The run is there: the instant has fired, by a schedule of that name that was removed, or by hand. If it
                // was another engine a moment ago, this is not written.
                self.put(state, Some(self.schedules.now())).await?;
                Ok(Fired::Done)
            }
            EngineError::Store { error: error @ StoreError::Unavailable(_), .. } => {
                Ok(Fired::NotYet(error.to_string()))
            }
            EngineError::Store { error, .. } if is_fatal(&error) => Err(ScheduleError::Store(error)),
            EngineError::Dropped(_) => Err(ScheduleError::Store(StoreError::Unavailable(
                "the engine lets go of its runs".to_owned(),
            ))),
            error => self.refuse(&error.to_string()).await,
        }
    }

    /// The last result, from its run, when it was too long to be kept.
    async fn read_result(&self, firing: &mut Firing) {
        let Some(LastResult { run, output: output @ None, .. }) = &mut firing.last_result else { return };
        // A run that was removed has none any more.
        if let Ok(view) = self.schedules.engine.view(run).await {
            *output = view.output;
        }
    }

    fn tell_fired(&self, firing: &Firing) {
        let late = self.schedules.now().since(firing.nominal);
        let Firing { schedule, run, by, .. } = firing;
        tracing::info!(%schedule, %run, ?late, "fired");
        self.schedules.engine.inner.measure(&Measure::ScheduleFired { schedule, run, by: *by, late });
        self.tell_skips();
    }

    fn tell_skips(&self) {
        let schedule = &self.decision.state.id;
        for Skip { nominal, by, why } in &self.decision.skips {
            tracing::info!(%schedule, %nominal, by = by.as_str(), why = why.as_str(), "an instant was skipped");
            self.schedules.engine.inner.measure(&Measure::ScheduleSkipped { schedule, why: *why });
        }
    }
}

/// How a run ended; none while it goes on.
async fn look_at(engine: &Engine, run: &RunId) -> Result<Option<Ended>, ScheduleError> {
    let head = engine.inner.store.head(run).await.map_err(ScheduleError::Store)?;
    let Some(head) = head else {
        return Ok(Some(Ended { status: None, output: None, message: String::new() }));
    };
    let status = head.summary.status;
    if !status.is_end() {
        return Ok(None);
    }
    let (output, message) = match engine.load(run).await {
        Ok(state) => {
            let view = crate::run::view::view(&state);
            let failed =
                view.failed_step.as_ref().and_then(|name| view.steps.iter().find(|s| s.step == *name));
            let error = failed.and_then(|step| step.error.as_ref()).or(view.error.as_ref());
            let step = view.failed_step.as_ref().map_or_else(String::new, |step| format!("step {step}: "));
            let message = error.map_or_else(String::new, |error| format!("{step}{error}"));
            (view.output, message)
        }
        Err(error) => (None, error.to_string()),
    };
    Ok(Some(Ended { status: Some(status), output, message }))
}

/// Ends a run for the one that comes after it. It is asked until it is over, so an answer that it cannot be is no failure.
async fn end(engine: &Engine, schedule: &ScheduleId, stop: &Stop) {
    let request = Request {
        by: format!("schedule {schedule}"),
        reason: "the next run of the schedule takes its place".to_owned(),
    };
    let asked = if stop.terminate {
        engine.terminate(&stop.run, request).await.map(drop)
    } else if engine.handle(&stop.run).is_some() {
        engine.cancel(&stop.run, CancelMode::Keep, request).await
    } else {
        engine.cancel_idle(&stop.run, CancelMode::Keep, request).await.map(drop)
    };
    match asked {
        Ok(()) => tracing::info!(%schedule, run = %stop.run, "the run is ended for the next one"),
        Err(error) => tracing::debug!(%schedule, run = %stop.run, %error, "the run could not be ended"),
    }
}
