//! A fake cloud that outlives every process of a simulation and is the only witness its checker believes.
//!
//! It models what makes real ones hard: names that are unique or not, idempotency tokens that also replay the
//! dead, reads that lag behind, requests that land after their caller has given up, replies that get lost,
//! throttling, things that end up FAILED, and strangers' things under our names. Its own clock is the simulation's.
//! It deliberately knows nothing of the engine's state; the one thing it looks at is the durable journal, to see
//! that the intent of every change was there before the change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dssflow_engine::activity::{Marks, Owner};
use dssflow_engine::{ActivityContext, ActivityError, ActivityResult};
use serde::{Deserialize, Serialize};

use crate::chance::Chance;
use crate::journal::Journal;
use crate::life::Life;

mod sections;
mod world;

pub use sections::Section;

/// The longest a created or changed thing stays out of sight of reads, in milliseconds.
pub const STALE_MS: u64 = 20_000;
/// The longest a request whose caller has given up takes to land, in milliseconds. Together with [`STALE_MS`] it
/// stays below the 30 s for which an activity lets "absent" settle.
pub const LATE_MS: u64 = 9_000;

/// How a kind of thing is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Names are unique and a token makes a repetition harmless, as EKS clusters.
    Named,
    /// Names are free; only a token makes a repetition harmless, as EC2 instances.
    Tokened,
    /// Names are free and there is no token: a repetition makes a second thing, as security groups.
    Tagged,
}

/// Who made a thing, as the checker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A stranger.
    Stranger,
    /// An earlier run of the same site.
    EarlierRun,
    /// The run under test.
    Run,
}

/// What a thing is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Being made.
    Creating,
    /// There.
    Active,
    /// Broken for good.
    Failed,
}

/// One thing.
#[derive(Debug, Clone)]
pub struct Thing {
    /// Unique for ever.
    pub id: String,
    /// Its kind.
    pub service: Service,
    /// Its name.
    pub name: String,
    /// Who made it.
    pub origin: Origin,
    /// Its marks.
    pub marks: Option<Marks>,
    visible: u64,
    settled: u64,
    fails: bool,
}

impl Thing {
    /// What it is doing at a time.
    pub fn phase(&self, now: u64) -> Phase {
        if now < self.settled {
            Phase::Creating
        } else if self.fails {
            Phase::Failed
        } else {
            Phase::Active
        }
    }
}

/// A change somebody asks for.
#[derive(Debug, Clone)]
pub enum Request {
    /// Makes a thing.
    Create {
        /// Its kind.
        service: Service,
        /// Its name.
        name: String,
        /// Its marks.
        marks: Marks,
        /// The idempotency token.
        token: String,
        /// How long it stays in `Creating`, in milliseconds.
        slow_ms: u64,
    },
    /// Removes a thing.
    Delete {
        /// Which.
        id: String,
    },
    /// Sets a key, if it holds `expected` (when given).
    Put {
        /// The key.
        key: String,
        /// What it must hold.
        expected: Option<String>,
        /// What it then holds.
        value: String,
    },
    /// Makes a note, or writes it again.
    Note {
        /// Its name.
        name: String,
        /// Its marks.
        marks: Marks,
    },
    /// Removes a note.
    Erase {
        /// Its name.
        name: String,
    },
}

/// What a change answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done; the id of what was made.
    Id(String),
    /// Done.
    Done,
    /// There was nothing.
    NotFound,
    /// The name is taken.
    Taken,
    /// The key holds something else.
    Mismatch(String),
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It works.
    Works,
    /// It is refused for asking too often.
    Throttled,
    /// The service breaks before doing anything.
    Broken,
    /// It works and the reply is lost.
    ReplyLost,
    /// It works and no reply ever comes: the caller's timeout ends it.
    Hangs,
    /// The caller gets an error, and the request lands later.
    Late,
    /// What it makes will end up FAILED.
    Doomed,
    /// The credentials have run out.
    Credentials,
    /// It works, and the activity's code panics over the reply.
    Panics,
}

/// As a bug in an activity would, but without the message that the process's hook prints.
fn panics() -> ! {
    std::panic::resume_unwind(Box::new("a simulated bug"))
}

/// What a caller gets.
enum Answer {
    /// Nothing, ever; with `dies` the caller's process ends.
    Never { dies: bool },
    /// An error.
    Refused(ActivityError),
    /// A reply that its code cannot stand.
    Panics,
    /// A reply.
    Given(Reply),
}

/// A setting: the values it held, each with the time from which reads see it.
#[derive(Debug, Clone)]
struct Setting {
    original: String,
    current: String,
    seen: Vec<(u64, String)>,
    ours: bool,
}

#[derive(Default)]
struct Inner {
    now: u64,
    serial: u64,
    things: BTreeMap<String, Thing>,
    /// Names as first created with each token; replays the dead as well.
    tokens: BTreeMap<String, String>,
    settings: BTreeMap<String, Setting>,
    notes: BTreeMap<String, Marks>,
    pending: Vec<(u64, u64, Request)>,
    fates: BTreeMap<Fate, u64>,
    refused_steps: BTreeSet<String>,
    stubborn_steps: BTreeSet<String>,
    budget: u64,
    mutations: u64,
    violations: Vec<String>,
    sections: BTreeMap<String, (u32, bool)>,
    begun: BTreeMap<String, Vec<u64>>,
    crash_at: BTreeMap<u64, bool>,
    crashes_fired: u64,
    fenced: u64,
    dawdles: u64,
    calls: u64,
}

/// The cloud. Shared by everything in one case.
#[derive(Clone)]
pub struct Cloud {
    inner: Arc<Mutex<Inner>>,
    chance: Arc<Mutex<Chance>>,
    journal: Arc<Journal>,
    run: String,
    store: String,
}

impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cloud({} things)", self.lock().things.len())
    }
}

impl Cloud {
    /// An empty cloud for the run `run` of the store `store`, or for all runs whose ids begin so.
    pub fn new(chance: Chance, journal: Arc<Journal>, run: &str, store: &str, budget: u64) -> Self {
        let inner = Inner { budget, ..Inner::default() };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            chance: Arc::new(Mutex::new(chance)),
            journal,
            run: run.to_owned(),
            store: store.to_owned(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Chance) -> T) -> T {
        draw(&mut self.chance.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets who is in which locked section: the process has ended.
    pub fn process_ended(&self) {
        let mut inner = self.lock();
        inner.sections.clear();
        inner.begun.clear();
    }

    /// From now on callers take up to so many milliseconds before they ask for a change.
    pub fn dawdle(&self, ms: u64) {
        self.lock().dawdles = ms;
    }

    /// Moves the cloud's clock and lets land what is due.
    pub fn advance(&self, now: u64) {
        let mut inner = self.lock();
        self.advance_inner(&mut inner, now);
    }

    fn advance_inner(&self, inner: &mut Inner, now: u64) {
        loop {
            let due = (0..inner.pending.len())
                .filter(|&i| inner.pending[i].0 <= now)
                .min_by_key(|&i| (inner.pending[i].0, inner.pending[i].1));
            let Some(i) = due else { break };
            let (at, _, request) = inner.pending.remove(i);
            inner.now = inner.now.max(at);
            self.land(inner, request, false);
        }
        inner.now = inner.now.max(now);
    }

    // ---- what activities call

    /// Whether a step has troubles that only a person ends.
    fn permanent(inner: &Inner, ctx: &ActivityContext, undoing: bool) -> bool {
        let set = if undoing { &inner.stubborn_steps } else { &inner.refused_steps };
        set.contains(ctx.step().as_str())
    }

    fn fate(&self, inner: &mut Inner, mutating: bool, late_allowed: bool, create: bool) -> Fate {
        if inner.budget == 0 {
            return Fate::Works;
        }
        let roll = self.draw(|c| c.below(100));
        let fate = match roll {
            0..=2 => Fate::Throttled,
            3..=5 => Fate::Broken,
            6..=9 if mutating => Fate::ReplyLost,
            10 | 11 => Fate::Hangs,
            12..=14 if mutating && late_allowed => Fate::Late,
            15..=17 if create => Fate::Doomed,
            18 => Fate::Credentials,
            19 => Fate::Panics,
            _ => Fate::Works,
        };
        if fate != Fate::Works {
            inner.budget -= 1;
            *inner.fates.entry(fate).or_default() += 1;
        }
        fate
    }

    /// Changes something.
    ///
    /// # Errors
    /// By the fate of the call.
    pub async fn change(
        &self,
        ctx: &ActivityContext,
        request: Request,
        undoing: bool,
        late: bool,
    ) -> ActivityResult<Reply> {
        let life = ctx.resource::<Life>()?;
        if life.is_over() {
            std::future::pending::<()>().await;
        }
        let dawdles = self.lock().dawdles;
        if dawdles > 0 {
            let ms = self.draw(|c| c.between(0, dawdles));
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        if let Err(lost) = ctx.fence() {
            self.lock().fenced += 1;
            return Err(lost);
        }
        match self.decide(ctx, life.now_ms(), request, undoing, late) {
            Answer::Never { dies } => {
                if dies {
                    life.end();
                }
                std::future::pending().await
            }
            Answer::Refused(error) => Err(error),
            Answer::Panics => panics(),
            Answer::Given(reply) => {
                self.latency().await;
                Ok(reply)
            }
        }
    }

    /// What becomes of a change, all at once.
    fn decide(&self, ctx: &ActivityContext, now: u64, request: Request, undoing: bool, late: bool) -> Answer {
        let mut inner = self.lock();
        self.advance_inner(&mut inner, now);
        inner.calls += 1;
        inner.mutations += 1;
        if let Some(text) =
            self.journal.objection(ctx.run().as_str(), ctx.step().as_str(), ctx.attempt(), undoing, now)
        {
            inner.violations.push(format!("acts before durable: {text}: {request:?}"));
        }
        if undoing {
            let before = self.journal.downstream(ctx.step().as_str());
            if let Some(step) = before.iter().find(|d| inner.has_something_of(d)) {
                let text = format!("{} is undone before {step}, which depends on it", ctx.step());
                inner.violations.push(text);
            }
        }
        let n = inner.mutations;
        let dies = inner.crash_at.get(&n).copied();
        if dies.is_some() {
            inner.crashes_fired += 1;
        }
        if dies == Some(false) {
            return Answer::Never { dies: true };
        }
        if Self::permanent(&inner, ctx, undoing) {
            let code = if undoing { "UndoRefused" } else { "AccessDenied" };
            return Answer::Refused(ActivityError::terminal(code, "refused for good").no_effect());
        }
        let create = matches!(request, Request::Create { .. });
        let fate = if dies.is_some() { Fate::Works } else { self.fate(&mut inner, true, late, create) };
        match fate {
            Fate::Throttled => {
                let error = ActivityError::throttled("Throttling", "slow down");
                return Answer::Refused(error.retry_after(Duration::from_secs(3)));
            }
            Fate::Broken => {
                return Answer::Refused(ActivityError::retryable(
                    "InternalError",
                    "broken before anything was done",
                ));
            }
            Fate::Credentials => {
                return Answer::Refused(ActivityError::credentials("ExpiredToken", "run out"));
            }
            Fate::Late => {
                let at = inner.now + self.draw(|c| c.between(200, LATE_MS));
                inner.serial += 1;
                let serial = inner.serial;
                inner.pending.push((at, serial, request));
                return Answer::Refused(ActivityError::retryable("Timeout", "no answer in time"));
            }
            Fate::Works | Fate::ReplyLost | Fate::Hangs | Fate::Doomed | Fate::Panics => {}
        }
        let reply = self.land(&mut inner, request, fate == Fate::Doomed);
        match fate {
            _ if dies.is_some() => Answer::Never { dies: true },
            Fate::Hangs => Answer::Never { dies: false },
            Fate::Panics => Answer::Panics,
            Fate::ReplyLost => {
                Answer::Refused(ActivityError::retryable("ConnectionReset", "the reply was lost"))
            }
            _ => Answer::Given(reply),
        }
    }

    async fn latency(&self) {
        let ms = self.draw(|c| if c.percent(50) { 0 } else { c.between(1, 900) });
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    /// Before a read: faults and latency.
    async fn read(&self, ctx: &ActivityContext) -> ActivityResult<()> {
        let life = ctx.resource::<Life>()?;
        if life.is_over() {
            std::future::pending::<()>().await;
        }
        let fate = {
            let mut inner = self.lock();
            self.advance_inner(&mut inner, life.now_ms());
            inner.calls += 1;
            self.fate(&mut inner, false, false, false)
        };
        match fate {
            Fate::Throttled => Err(ActivityError::throttled("Throttling", "slow down")),
            Fate::Broken => Err(ActivityError::retryable("InternalError", "broken").no_effect()),
            Fate::Credentials => Err(ActivityError::credentials("ExpiredToken", "run out")),
            Fate::Hangs => std::future::pending().await,
            Fate::Panics => panics(),
            _ => {
                self.latency().await;
                let mut inner = self.lock();
                self.advance_inner(&mut inner, life.now_ms());
                Ok(())
            }
        }
    }

    /// Things of a kind and name, as a read that may lag sees them, with what they are doing.
    ///
    /// # Errors
    /// By the fate of the call.
    pub async fn list(
        &self,
        ctx: &ActivityContext,
        service: Service,
        name: &str,
    ) -> ActivityResult<Vec<(Thing, Phase)>> {
        self.read(ctx).await?;
        let inner = self.lock();
        let now = inner.now;
        let seen =
            inner.things.values().filter(|t| t.service == service && t.name == name && t.visible <= now);
        Ok(seen.map(|t| (t.clone(), t.phase(now))).collect())
    }

    /// What of this run and step there is under a name, by a read that does not lag.
    ///
    /// # Errors
    /// By the fate of the call.
    pub async fn mine(
        &self,
        ctx: &ActivityContext,
        service: Service,
        name: &str,
    ) -> ActivityResult<Vec<(Thing, Phase)>> {
        self.read(ctx).await?;
        let marks = ctx.marks();
        let inner = self.lock();
        let now = inner.now;
        let mine = inner.things.values().filter(|t| {
            t.service == service
                && t.name == name
                && t.marks
                    .as_ref()
                    .is_some_and(|m| marks.owner_of(m) == Owner::ThisRun && m.step == marks.step)
        });
        Ok(mine.map(|t| (t.clone(), t.phase(now))).collect())
    }

    /// One thing by id, by a read that does not lag.
    ///
    /// # Errors
    /// By the fate of the call.
    pub async fn get(&self, ctx: &ActivityContext, id: &str) -> ActivityResult<Option<Phase>> {
        self.read(ctx).await?;
        let inner = self.lock();
        Ok(inner.things.get(id).map(|t| t.phase(inner.now)))
    }

    /// The value of a key, as a read that may lag sees it.
    ///
    /// # Errors
    /// By the fate of the call.
    pub async fn setting(&self, ctx: &ActivityContext, key: &str) -> ActivityResult<String> {
        self.read(ctx).await?;
        let inner = self.lock();
        let now = inner.now;
        let seen = inner.settings[key].seen.iter().rev().find(|(from, _)| *from <= now);
        Ok(seen.map(|(_, v)| v.clone()).unwrap_or_default())
    }

    /// Whose a note is, if it is there.
    ///
    /// # Errors
    /// By the fate of the call.
    pub async fn note(&self, ctx: &ActivityContext, name: &str) -> ActivityResult<Option<Marks>> {
        self.read(ctx).await?;
        Ok(self.lock().notes.get(name).cloned())
    }

    // ---- how changes land

    fn land(&self, inner: &mut Inner, request: Request, doomed: bool) -> Reply {
        let now = inner.now;
        let visible = now + self.draw(|c| if c.percent(60) { 0 } else { c.between(1, STALE_MS) });
        match request {
            Request::Create { service, name, marks, token, slow_ms } => {
                let twin = inner.tokens.get(&token).filter(|_| service != Service::Tagged).cloned();
                if let Some(id) = twin {
                    // A token replays its first answer, also when what it made is dead.
                    return Reply::Id(id);
                }
                if service == Service::Named
                    && inner.things.values().any(|t| t.service == service && t.name == name)
                {
                    return Reply::Taken;
                }
                let id = inner.id();
                inner.tokens.insert(token, id.clone());
                let thing = Thing {
                    id: id.clone(),
                    service,
                    name,
                    origin: Origin::Run,
                    marks: Some(marks),
                    visible,
                    settled: now + slow_ms,
                    fails: doomed,
                };
                inner.things.insert(id.clone(), thing);
                Reply::Id(id)
            }
            Request::Delete { id } => {
                let Some(thing) = inner.things.get(&id) else { return Reply::NotFound };
                let ours = thing
                    .marks
                    .as_ref()
                    .is_some_and(|m| m.run.starts_with(&self.run) && m.store == self.store);
                if !ours {
                    let text = format!("deleted what is not ours: {} {:?}", thing.name, thing.origin);
                    inner.violations.push(text);
                }
                inner.things.remove(&id);
                Reply::Done
            }
            Request::Put { key, expected, value } => {
                let setting = inner.settings.get_mut(&key).expect("settings are set up first");
                if expected.is_some_and(|e| e != setting.current) {
                    return Reply::Mismatch(setting.current.clone());
                }
                setting.ours = value != setting.original;
                setting.current.clone_from(&value);
                setting.seen.push((visible, value));
                Reply::Done
            }
            Request::Note { name, marks } => {
                if inner.notes.get(&name).is_some_and(|m| !m.run.starts_with(&self.run)) {
                    inner.violations.push(format!("overwrote the note {name} of another"));
                }
                inner.notes.insert(name, marks);
                Reply::Done
            }
            Request::Erase { name } => match inner.notes.remove(&name) {
                None => Reply::NotFound,
                Some(marks) => {
                    if !marks.run.starts_with(&self.run) {
                        inner.violations.push(format!("erased the note {name} of another"));
                    }
                    Reply::Done
                }
            },
        }
    }

    // ---- what the checker sees

    /// Takes out what went wrong so far.
    pub fn violations(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().violations)
    }

    /// Adds something that went wrong.
    pub fn object(&self, text: String) {
        self.lock().violations.push(text);
    }

    /// Changes asked for so far.
    pub fn mutations(&self) -> u64 {
        self.lock().mutations
    }

    /// Faults that fired, by kind.
    pub fn fates(&self) -> BTreeMap<Fate, u64> {
        self.lock().fates.clone()
    }

    /// Crashes at a change that fired.
    pub fn crashes_fired(&self) -> u64 {
        self.lock().crashes_fired
    }

    /// Changes that were not asked for because the process could not show that it may.
    pub fn fenced(&self) -> u64 {
        self.lock().fenced
    }

    /// The clock.
    pub fn now(&self) -> u64 {
        self.lock().now
    }

    /// Ends all troubles for ever.
    pub fn calm(&self) {
        self.lock().budget = 0;
    }

    /// Everything that is there.
    pub fn things(&self) -> Vec<Thing> {
        self.lock().things.values().cloned().collect()
    }

    /// Settings with first and present value.
    pub fn settings(&self) -> Vec<(String, String, String)> {
        self.lock().settings.iter().map(|(k, s)| (k.clone(), s.original.clone(), s.current.clone())).collect()
    }

    /// All notes.
    pub fn notes(&self) -> BTreeMap<String, Marks> {
        self.lock().notes.clone()
    }
}

/// The site of simulated runs.
pub const SITE: &str = "lab";

impl Inner {
    /// Whether something that a step of the run made is there.
    fn has_something_of(&self, step: &str) -> bool {
        let made = |m: &Marks| m.step == step;
        self.things.values().any(|t| t.origin == Origin::Run && t.marks.as_ref().is_some_and(made))
            || self.notes.values().any(made)
            || self.settings.get(&format!("key-{step}")).is_some_and(|s| s.ours)
    }

    fn id(&mut self) -> String {
        self.serial += 1;
        format!("i-{:04}", self.serial)
    }
}
