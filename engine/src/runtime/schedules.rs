//! Schedules at work: stored, changed, asked about, and fired.
//!
//! [`Schedules`] is the handle: each call reads the schedule, changes it in memory, and writes it back on the condition
//! that nobody else has meanwhile; then it starts anew. [`ScheduleDriver`] fires what is due. A run and the schedule that
//! started it are written in one transition of the store, so that there is no moment at which one is there without the
//! other: an instant fires once, wherever a crash falls, and however many engines share the store.
//!
//! Nothing fires unless somebody asks for it with [`Schedules::drive`].

mod drive;
mod error;
mod launch;

use std::sync::Arc;
use std::time::Duration;

pub use drive::ScheduleDriver;
pub use error::ScheduleError;
pub use launch::{Launch, LaunchError, Launcher, RegisteredWorkflows};
use serde::{Deserialize, Serialize};

use crate::event::Request;
use crate::id::{RunId, ScheduleId};
use crate::runtime::Engine;
use crate::schedule::{
    Backfill, FiredBy, IllegalChange, Overlap, ScheduleSpec, ScheduleState, ScheduleView, SkipReason, Times,
    Update, Zone, decide, decode, encode, run_id, view,
};
use crate::store::{SchedulePut, StoreError, StoredSchedule, escaped_len};
use crate::time::Timestamp;

/// How often a change is tried that others get in the way of.
const MAX_TRIES: usize = 64;
/// The most instants that are told at once.
pub const MAX_INSTANTS: usize = 10_000;
/// The longest text of who asks and why, in bytes as JSON: both are part of the schedule.
const MAX_REQUEST_BYTES: usize = 512;

/// A page of schedules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SchedulePage {
    /// The schedules, by name.
    pub schedules: Vec<ScheduleView>,
    /// Where to go on, when there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ScheduleId>,
}

/// A firing that somebody wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Triggered {
    /// The run that it starts, once it may.
    pub run: RunId,
    /// Its instant.
    pub nominal: Timestamp,
}

/// An instant of a backfill, and why it does not fire, if it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Foreseen {
    /// The instant.
    pub nominal: Timestamp,
    /// Why it does not fire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<SkipReason>,
}

/// What a backfill does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Backfilled {
    /// Its instants, up to [`MAX_INSTANTS`].
    pub instants: Vec<Foreseen>,
    /// Whether there are more than are told.
    pub more: bool,
}

/// The schedules of an engine's store. Cheap to clone.
#[derive(Clone)]
pub struct Schedules {
    engine: Engine,
    launcher: Arc<dyn Launcher>,
}

impl std::fmt::Debug for Schedules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schedules").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl Engine {
    /// The schedules of its store.
    pub fn schedules(&self) -> Schedules {
        Schedules { engine: self.clone(), launcher: Arc::clone(&self.inner.launcher) }
    }
}

impl Schedules {
    /// The same with another launcher than the engine's.
    #[must_use]
    pub fn with_launcher(self, launcher: Arc<dyn Launcher>) -> Self {
        Self { launcher, ..self }
    }

    /// Makes a schedule. Its first instant is after now.
    ///
    /// # Errors
    /// When the spec is wrong, the launcher cannot start what it says, there is one of that name, or the store fails.
    pub async fn create(
        &self,
        id: ScheduleId,
        spec: ScheduleSpec,
        request: Request,
    ) -> Result<ScheduleView, ScheduleError> {
        check_request(&request)?;
        self.check(&id, &spec)?;
        let now = self.now();
        let state = ScheduleState::new(id.clone(), spec, now, request);
        match self.put(&state, None).await {
            Ok(_) => {}
            Err(StoreError::ScheduleConflict { .. }) => return Err(ScheduleError::Exists(id)),
            Err(error) => return Err(ScheduleError::of(&id, error)),
        }
        self.picture(&state)
    }

    /// Gives a schedule another spec. Runs that go on are left alone; if its instants are others now, those before now
    /// do not fire by the clock any more. It has as many runs left as the limit says, when that is another one.
    ///
    /// # Errors
    /// As [`Schedules::create`], and when there is no such schedule.
    pub async fn update(
        &self,
        id: &ScheduleId,
        spec: ScheduleSpec,
        request: Request,
    ) -> Result<ScheduleView, ScheduleError> {
        self.update_as(id, Update::new(spec), request).await
    }

    /// The same, and it says of which spec it is a change and whether the count of the limit begins anew.
    ///
    /// # Errors
    /// As [`Schedules::update`], and when it is not the spec any more that was to be changed.
    pub async fn update_as(
        &self,
        id: &ScheduleId,
        update: Update,
        request: Request,
    ) -> Result<ScheduleView, ScheduleError> {
        check_request(&request)?;
        self.check(id, &update.spec)?;
        self.change(id, |state, now| state.update(update.clone(), now, request.clone()))
            .await
            .map(|((), view)| view)
    }

    /// One schedule.
    ///
    /// # Errors
    /// When there is none of that name, or it cannot be read.
    pub async fn get(&self, id: &ScheduleId) -> Result<ScheduleView, ScheduleError> {
        let (state, _) = self.load(id).await?;
        self.picture(&state)
    }

    /// The schedules after `after` by name, at most `limit`. One that cannot be read is left out, with a warning in the
    /// log; [`Schedules::get`] says why.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(
        &self,
        after: Option<&ScheduleId>,
        limit: usize,
    ) -> Result<SchedulePage, ScheduleError> {
        let limit = limit.clamp(1, crate::store::MAX_PAGE);
        let stored = self.engine.inner.store.schedules(after, limit).await;
        let stored = stored.map_err(ScheduleError::Store)?;
        let full = stored.len() == limit;
        let last = stored.last().map(|stored| stored.id.clone());
        let mut schedules = Vec::with_capacity(stored.len());
        for stored in &stored {
            match read(stored).and_then(|state| self.picture(&state)) {
                Ok(view) => schedules.push(view),
                Err(error) => {
                    tracing::warn!(schedule = %stored.id, %error, "a schedule is left out of the list");
                }
            }
        }
        Ok(SchedulePage { schedules, after: last.filter(|_| full) })
    }

    /// Pauses a schedule: the clock starts nothing until it is unpaused, and what its time brings up meanwhile never
    /// fires. Triggers and backfills do. Runs go on.
    ///
    /// # Errors
    /// When there is no such schedule, or somebody paused it already.
    pub async fn pause(&self, id: &ScheduleId, request: Request) -> Result<ScheduleView, ScheduleError> {
        check_request(&request)?;
        self.change(id, |state, now| state.pause(now, request.clone())).await.map(|((), view)| view)
    }

    /// Lets a schedule go on from now.
    ///
    /// # Errors
    /// When there is no such schedule, or it is not paused.
    pub async fn unpause(&self, id: &ScheduleId, request: Request) -> Result<ScheduleView, ScheduleError> {
        check_request(&request)?;
        self.change(id, |state, now| state.unpause(now, request.clone())).await.map(|((), view)| view)
    }

    /// Wants one run more, now, also of a schedule that is paused. It starts as soon as somebody drives the schedules and
    /// the overlap policy allows it: that of the schedule, unless another one is given. The run says who wanted it, and why.
    ///
    /// # Errors
    /// When there is no such schedule, or too much waits.
    pub async fn trigger(
        &self,
        id: &ScheduleId,
        overlap: Option<Overlap>,
        request: Request,
    ) -> Result<Triggered, ScheduleError> {
        check_request(&request)?;
        let changed = self.change(id, |state, now| state.trigger(overlap, now, request.clone())).await;
        changed.map(|(nominal, _)| Triggered { run: run_id(id, nominal, FiredBy::Trigger), nominal })
    }

    /// Wants the instants of a stretch of time, those left out that have fired. They start as soon as somebody drives the
    /// schedules, and say who wanted them, and why. With `dry_run` it only says which.
    ///
    /// # Errors
    /// When there is no such schedule, or the stretch makes no sense.
    pub async fn backfill(
        &self,
        id: &ScheduleId,
        backfill: Backfill,
        dry_run: bool,
        request: Request,
    ) -> Result<Backfilled, ScheduleError> {
        check_request(&request)?;
        let foreseen = |state: &ScheduleState, now: Timestamp| {
            let times = times(state)?;
            let illegal = |why| ScheduleError::Illegal { id: id.clone(), why };
            let mut found = state.foresee(&backfill, &times, now, MAX_INSTANTS + 1).map_err(illegal)?;
            let more = found.len() > MAX_INSTANTS;
            found.truncate(MAX_INSTANTS);
            let told = found.into_iter().map(|(nominal, skipped)| Foreseen { nominal, skipped });
            Ok(Backfilled { instants: told.collect(), more })
        };
        if dry_run {
            let (state, _) = self.load(id).await?;
            return foreseen(&state, self.now());
        }
        let (state, _) = self.load(id).await?;
        let told = foreseen(&state, self.now())?;
        self.change(id, |state, now| state.backfill(&backfill, now, request.clone())).await?;
        Ok(told)
    }

    /// The next `count` instants by the clock, at most [`MAX_INSTANTS`], whether it is paused or not. No more than its limit
    /// still allows.
    ///
    /// # Errors
    /// When there is no such schedule, or it cannot be read.
    pub async fn next(&self, id: &ScheduleId, count: usize) -> Result<Vec<Timestamp>, ScheduleError> {
        let (state, _) = self.load(id).await?;
        coming(&state, self.now(), count)
    }

    /// Removes a schedule. Its runs go on and stay.
    ///
    /// # Errors
    /// When there is no such schedule, or the store fails.
    pub async fn remove(&self, id: &ScheduleId) -> Result<(), ScheduleError> {
        let store = &self.engine.inner.store;
        for _ in 0..MAX_TRIES {
            let stored = store.schedule(id).await.map_err(|e| ScheduleError::of(id, e))?;
            // Also one that cannot be read.
            let stored = stored.ok_or_else(|| ScheduleError::NotFound(id.clone()))?;
            match store.remove_schedule(id, stored.version, store.epoch()).await {
                Err(StoreError::ScheduleConflict { .. }) => {}
                Err(error) => return Err(ScheduleError::of(id, error)),
                Ok(()) => {
                    self.tell(id);
                    return Ok(());
                }
            }
        }
        Err(ScheduleError::Contended(id.clone()))
    }

    /// Fires what is due from now on, until the driver that comes back is dropped or stopped. It keeps the engine going.
    /// Several engines on a store that they share may all do so: an instant fires once.
    ///
    /// Must be called inside a tokio runtime.
    pub fn drive(&self) -> ScheduleDriver {
        ScheduleDriver::start(self.clone())
    }

    /// Checks a spec as [`Schedules::create`] does, and gives its next instants.
    ///
    /// # Errors
    /// When the spec is wrong, or the launcher cannot start what it says.
    pub fn preview(
        &self,
        id: &ScheduleId,
        spec: &ScheduleSpec,
        count: usize,
    ) -> Result<Vec<Timestamp>, ScheduleError> {
        self.check(id, spec)?;
        let state = ScheduleState::new(id.clone(), spec.clone(), self.now(), Request::default());
        coming(&state, state.mark, count)
    }

    fn check(&self, id: &ScheduleId, spec: &ScheduleSpec) -> Result<(), ScheduleError> {
        spec.check().map_err(|why| ScheduleError::Spec { id: id.clone(), why })?;
        let checked = self.launcher.check(&self.engine, &spec.action);
        checked.map_err(|why| ScheduleError::Launch { id: id.clone(), why: why.to_string() })
    }

    fn now(&self) -> Timestamp {
        self.engine.inner.clock.now()
    }

    fn picture(&self, state: &ScheduleState) -> Result<ScheduleView, ScheduleError> {
        Ok(view(state, &times(state)?, self.now()))
    }

    async fn load(&self, id: &ScheduleId) -> Result<(ScheduleState, u64), ScheduleError> {
        let stored = self.engine.inner.store.schedule(id).await.map_err(|e| ScheduleError::of(id, e))?;
        let stored = stored.ok_or_else(|| ScheduleError::NotFound(id.clone()))?;
        Ok((read(&stored)?, stored.version))
    }

    /// Reads, changes and writes back, until nobody was in the way.
    async fn change<T>(
        &self,
        id: &ScheduleId,
        change: impl Fn(&mut ScheduleState, Timestamp) -> Result<T, IllegalChange>,
    ) -> Result<(T, ScheduleView), ScheduleError> {
        for _ in 0..MAX_TRIES {
            let (mut state, version) = self.load(id).await?;
            let done = change(&mut state, self.now())
                .map_err(|why| ScheduleError::Illegal { id: id.clone(), why })?;
            match self.put(&state, Some(version)).await {
                Err(StoreError::ScheduleConflict { .. }) => {}
                Err(error) => return Err(ScheduleError::of(id, error)),
                Ok(_) => return Ok((done, self.picture(&state)?)),
            }
        }
        Err(ScheduleError::Contended(id.clone()))
    }

    /// Writes a schedule, and tells whoever drives.
    async fn put(&self, state: &ScheduleState, expect: Option<u64>) -> Result<u64, StoreError> {
        let store = &self.engine.inner.store;
        let put = stored_form(state, expect, self.now());
        let version = store.put_schedule(put, store.epoch()).await?;
        self.tell(&state.id);
        Ok(version)
    }

    fn tell(&self, id: &ScheduleId) {
        // Nobody driving is fine.
        drop(self.engine.inner.touched.send(id.clone()));
    }
}

/// What is written of a schedule that somebody has changed: it is looked at when its next firing may start.
fn stored_form(state: &ScheduleState, expect: Option<u64>, now: Timestamp) -> SchedulePut {
    // A schedule whose zone is not to be found is looked at at once, and says so.
    let due = times(state).map_or(Some(now), |times| decide(state, &times, now).due);
    SchedulePut { id: state.id.clone(), expect, record: encode(state), due }
}

fn read(stored: &StoredSchedule) -> Result<ScheduleState, ScheduleError> {
    decode(&stored.id, &stored.record).map_err(|why| ScheduleError::Unreadable { id: stored.id.clone(), why })
}

fn times(state: &ScheduleState) -> Result<Times, ScheduleError> {
    Times::of(state, &Zone::find).map_err(|why| ScheduleError::Spec { id: state.id.clone(), why })
}

/// The next instants that the clock may fire.
fn coming(state: &ScheduleState, now: Timestamp, count: usize) -> Result<Vec<Timestamp>, ScheduleError> {
    let times = times(state)?;
    let left = state.left.map_or(MAX_INSTANTS, |left| usize::try_from(left).unwrap_or(MAX_INSTANTS));
    let mut after = state.mark.max(now);
    let next = || {
        after = times.next_after(after)?;
        Some(after)
    };
    Ok(std::iter::from_fn(next).take(count.min(left).min(MAX_INSTANTS)).collect())
}

fn check_request(request: &Request) -> Result<(), ScheduleError> {
    let size = escaped_len(&request.by) + escaped_len(&request.reason);
    if size > MAX_REQUEST_BYTES {
        return Err(ScheduleError::RequestTooLong { size });
    }
    Ok(())
}

/// How long between two looks at the clock: it may jump.
pub(crate) const LOOK: Duration = Duration::from_secs(10);
