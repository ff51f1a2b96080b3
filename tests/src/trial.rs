//! Puts one scenario through all its lives and judges the end by the cloud alone.
//!
//! Each life is a tokio runtime of its own on paused time: a crash drops it with everything in it. Store and cloud
//! stay. Between lives somebody decides what to type next, as a person would.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dssflow_engine::event::{CancelMode, EventKind, Next, Request};
use dssflow_engine::id::{RunId, StepName, StoreId, WorkflowName};
use dssflow_engine::run::RunStatus;
use dssflow_engine::run::view::RunView;
use dssflow_engine::runtime::{EngineOptions, Rate, history, load};
use dssflow_engine::store::{Store, StoreError};
use dssflow_engine::workflow::Definition;
use dssflow_engine::{Engine, EngineError, RunHandle, StartRun};
use futures::FutureExt;

use crate::chance::Chance;
use crate::cloud::{Cloud, Fate, SITE, Service};
use crate::crash_store::{Disk, Trouble};
use crate::deeds;
use crate::journal::Journal;
use crate::life::Life;
use crate::moves::Moves;
use crate::people::{Deed, People};
use crate::scenario::{AfterCrash, Ending, PERMITS, RATE, RATE_MS, Scenario, Sub};
use crate::verdict::Judge;

/// When simulated time begins, in milliseconds since the epoch.
const BEGIN_MS: u64 = 1_700_000_000_000;
/// A run that has not moved to an end or a stop after so much simulated time is stuck.
const LIFE_LIMIT: Duration = Duration::from_hours(12);
/// So many verbs bring every run to its end once troubles have stopped.
const VERB_LIMIT: u32 = 40;

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What went against the promise. Empty is good.
    pub violations: Vec<String>,
    /// The history, one event a line.
    pub trace: Vec<String>,
    /// How it ended.
    pub end: Option<RunStatus>,
    /// Lives it took.
    pub lives: u64,
    /// Crashes.
    pub crashes: u64,
    /// Of those, at a commit, by kind; and refused commits.
    pub troubles: BTreeMap<Trouble, u64>,
    /// Of those, at a mutating call.
    pub call_crashes: u64,
    /// Faults of the cloud, by kind.
    pub fates: BTreeMap<Fate, u64>,
    /// Verbs typed.
    pub verbs: BTreeMap<&'static str, u64>,
    /// What runs went through, by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Commits in all.
    pub commits: u64,
    /// Mutating calls in all.
    pub mutations: u64,
    /// Events in all.
    pub events: u64,
    /// Which states followed which.
    pub moves: Moves,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Start,
    Resume,
    Rollback,
    RollbackAgain,
    /// The process drives on whatever was running.
    Recover,
    /// The same, at the very end: runs below may still go on.
    RecoverRest,
    /// An operator does something to a run that stands still.
    Deed(Deed),
}

/// What somebody does to a run while it is driven.
#[derive(Debug, Clone, Copy)]
enum Act {
    Pause,
    Stop,
    Rollback,
    Cancel(CancelMode),
}

#[derive(Debug)]
enum LifeEnd {
    Crashed,
    LetGo,
    Stood(Box<RunView>),
    Refused(EngineError),
    Stuck,
}

struct Trial<'a> {
    scenario: &'a Scenario,
    run: RunId,
    disk: Arc<Disk>,
    cloud: Cloud,
    chance: Chance,
    timed: std::vec::IntoIter<u64>,
    pauses: std::vec::IntoIter<u64>,
    stops: std::vec::IntoIter<u64>,
    behind: std::vec::IntoIter<u64>,
    ending: Ending,
    now: u64,
    verbs: u32,
    acked_cancel: Option<CancelMode>,
    rollback_typed: bool,
    drifted: bool,
    mutations_before: u64,
    deeds: std::vec::IntoIter<(u64, Deed)>,
    people: Rc<People<'a>>,
    out: Outcome,
}

/// Runs a scenario.
pub fn run(scenario: &Scenario) -> Outcome {
    let chance = Chance::new(scenario.seed).fork(7);
    let run = RunId::new("run").expect("a fixed name");
    let store = StoreId::generate([7; 16]);
    let mut kept = [scenario.protected.clone(), scenario.keep.clone()].concat();
    let below: Vec<String> =
        scenario.subs.iter().filter(|sub| kept.contains(&sub.step)).flat_map(Sub::steps).collect();
    kept.extend(below);
    let journal = Journal::new(scenario.needs(), &kept).with(scenario.below(), scenario.behind.is_empty());
    let journal = Arc::new(journal);
    let disk = Disk::new(store.clone(), Arc::clone(&journal), chance.fork(1), scenario.slow_store);
    let cloud = Cloud::new(chance.fork(2), journal, run.as_str(), store.as_str(), scenario.budget);
    for (service, name, origin) in &scenario.plants {
        cloud.plant(*service, name, *origin);
    }
    for (key, value) in &scenario.settings {
        cloud.set_up(key, value);
    }
    scenario.refused.iter().for_each(|s| cloud.refuse(s));
    scenario.stubborn.iter().for_each(|s| cloud.refuse_undo(s));
    scenario.call_crashes.iter().for_each(|&(at, after)| cloud.crash_at(at, after));
    scenario.troubles.iter().for_each(|&(at, trouble)| disk.trouble_at(at, trouble));
    if let Some(sabotage) = scenario.sabotage {
        disk.sabotage(sabotage);
    }
    let watched = cloud.clone();
    let mut trial = Trial {
        scenario,
        people: Rc::new(People::new(scenario, watched, run.clone(), chance.fork(4))),
        deeds: scenario.deeds.clone().into_iter(),
        run,
        disk: Arc::new(disk),
        cloud,
        chance: chance.fork(3),
        timed: scenario.timed_crashes.clone().into_iter(),
        pauses: scenario.pauses.clone().into_iter(),
        stops: scenario.stops.clone().into_iter(),
        behind: scenario.behind.clone().into_iter(),
        ending: scenario.ending,
        now: BEGIN_MS,
        verbs: 0,
        acked_cancel: None,
        rollback_typed: false,
        drifted: false,
        mutations_before: 0,
        out: Outcome::default(),
    };
    trial.lives();
    trial.finish()
}

impl Trial<'_> {
    fn lives(&mut self) {
        let mut verb = Verb::Start;
        loop {
            self.out.lives += 1;
            self.now += self.chance.between(0, if self.chance.clone().percent(20) { 600_000 } else { 3_000 });
            let Some(next) = self.live(verb) else { return };
            verb = next;
            if self.out.lives > u64::from(VERB_LIMIT) * 2 {
                self.violation("the run never ends".to_owned());
                return;
            }
        }
    }

    fn violation(&mut self, text: String) {
        self.out.violations.push(text);
    }

    /// One process. Returns the verb for the next one.
    fn live(&mut self, verb: Verb) -> Option<Verb> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without IO");
        let next = runtime.block_on(self.live_in(verb));
        drop(runtime);
        self.cloud.process_ended();
        self.now = self.now.max(self.cloud.now());
        next
    }

    async fn live_in(&mut self, verb: Verb) -> Option<Verb> {
        let behind = Duration::from_millis(self.behind.next().unwrap_or(0));
        let life = Life::starting_at(self.now, behind);
        let mut options = EngineOptions::default();
        options.seed = Some(self.scenario.seed);
        let store = Arc::new(self.disk.open(&life));
        let mut builder = Engine::builder(store)
            .clock(Arc::new(life.clock()))
            .activities(deeds::registry(self.scenario.mistake))
            .resource(self.cloud.clone())
            .resource(life.clone())
            .options(options)
            .semaphore("permit-0", PERMITS)
            .rate("rate-0", Rate { permits: RATE, per_ms: RATE_MS });
        for sub in &self.scenario.subs {
            let name = WorkflowName::new(sub.workflow.as_str()).expect("a fixed name");
            let definition = Definition::fixed(name, 1, sub.graph.clone());
            builder = builder.definition(definition.options(sub.options.clone()));
        }
        let engine = builder.build();
        let dies = self.timed.next();
        let mut verb = verb;
        loop {
            self.verbs += 1;
            let end = {
                let death = async {
                    match dies {
                        Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = life.ended() => LifeEnd::Crashed,
                    () = death => { life.end(); LifeEnd::Crashed }
                    end = self.drive(&engine, verb) => end,
                    () = tokio::time::sleep(LIFE_LIMIT) => LifeEnd::Stuck,
                }
            };
            self.now = self.now.max(life.now_ms());
            self.cloud.advance(self.now);
            let next = match self.judge(end, verb) {
                Some(next) => next,
                // Whatever runs below has to end too, and a process that starts again must see to it.
                None if self.rest() => Verb::RecoverRest,
                None => return None,
            };
            // A person often types the next command without the process ending in between, and often not.
            if life.is_over() || self.chance.percent(50) {
                return Some(next);
            }
            verb = next;
        }
    }

    /// Types one verb and waits until the run stands, and whatever runs below it.
    async fn drive(&mut self, engine: &Engine, verb: Verb) -> LifeEnd {
        if !self.scenario.people {
            return self.drive_alone(engine, verb).await;
        }
        let deeds = match verb {
            Verb::RollbackAgain | Verb::RecoverRest => Vec::new(),
            _ => self.deeds.by_ref().take(1).collect(),
        };
        let people = Rc::clone(&self.people);
        let work = async {
            let mut end = self.drive_alone(engine, verb).await;
            if !matches!(end, LifeEnd::LetGo) {
                // What was started as a step may go on by itself.
                while let Some(handle) = engine.live_runs().first().and_then(|run| engine.handle(run)) {
                    let _shown_by_its_history = handle.wait().await;
                    tokio::task::yield_now().await;
                }
                if let LifeEnd::Stood(view) = &mut end
                    && let Ok(now) = engine.view(&self.run).await
                {
                    // Somebody may have acted on the run meanwhile.
                    **view = now;
                }
            }
            end
        };
        tokio::select! {
            biased;
            end = work => end,
            () = people.live(engine, deeds) => LifeEnd::LetGo,
        }
    }

    /// An operator does something to the run, which stands still.
    async fn deed(&mut self, engine: &Engine, deed: Deed) -> LifeEnd {
        self.acked_cancel = None;
        if let Err(error) = self.people.act(engine, &self.run, deed).await {
            return LifeEnd::Refused(error);
        }
        match engine.handle(&self.run) {
            Some(handle) => stood_or_refused(handle.wait().await),
            None => stood_or_refused(engine.view(&self.run).await),
        }
    }

    /// The process drives on whatever was running when the last one ended.
    async fn recover(&mut self, engine: &Engine) -> Result<Option<RunHandle>, EngineError> {
        *self.out.verbs.entry("recover").or_default() += 1;
        let recovered = engine.recover().await?;
        for (run, error) in recovered.parked {
            if !matches!(error, EngineError::Store { .. }) {
                self.violation(format!("run {run} was parked: {error}"));
            }
        }
        Ok(engine.handle(&self.run))
    }

    /// Types one verb and waits until the run stands.
    async fn drive_alone(&mut self, engine: &Engine, verb: Verb) -> LifeEnd {
        let request = Request::by("tester");
        let started = match verb {
            Verb::Start => {
                let mut start = StartRun::new(
                    WorkflowName::new("sim").expect("a fixed name"),
                    self.scenario.graph.clone(),
                );
                start.id = Some(self.run.clone());
                SITE.clone_into(&mut start.site);
                start.options = self.scenario.options.clone();
                start.request = request;
                *self.out.verbs.entry("start").or_default() += 1;
                engine.start(start).await
            }
            Verb::Resume => {
                *self.out.verbs.entry("resume").or_default() += 1;
                engine.resume(&self.run, request).await
            }
            Verb::Deed(deed) => return self.deed(engine, deed).await,
            Verb::Recover | Verb::RecoverRest => match self.recover(engine).await {
                Ok(Some(handle)) => Ok(handle),
                // It had just stopped by itself, or is one that was recovered too often.
                Ok(None) => return stood_or_refused(engine.view(&self.run).await),
                Err(error) => Err(error),
            },
            Verb::Rollback | Verb::RollbackAgain => {
                *self.out.verbs.entry("rollback").or_default() += 1;
                match engine.rollback(&self.run, self.keep(), request.clone()).await {
                    // A run that goes backwards already takes no wishes; asked again without.
                    Err(EngineError::Illegal { why, .. }) if why.starts_with("what to keep") => {
                        engine.rollback(&self.run, Vec::new(), request).await
                    }
                    other => other,
                }
            }
        };
        let handle = match started {
            Ok(handle) => handle,
            Err(error) => return LifeEnd::Refused(error),
        };
        let mut acts: Vec<(u64, Act)> = Vec::new();
        match self.ending {
            Ending::CancelAt(ms, mode) if self.acked_cancel.is_none() => acts.push((ms, Act::Cancel(mode))),
            Ending::RollbackAt(ms) if !self.rollback_typed => acts.push((ms, Act::Rollback)),
            _ => {}
        }
        acts.extend(self.pauses.next().map(|ms| (ms, Act::Pause)));
        acts.extend(self.stops.next().map(|ms| (ms, Act::Stop)));
        acts.sort_by_key(|a| a.0);
        let begin = tokio::time::Instant::now();
        for (ms, act) in acts {
            tokio::select! {
                biased;
                stood = handle.wait() => return stood_or_refused(stood),
                () = tokio::time::sleep_until(begin + Duration::from_millis(ms)) => {}
            }
            let (by, request) = self.people.request();
            let asked = match act {
                Act::Pause => {
                    *self.out.verbs.entry("pause").or_default() += 1;
                    engine.pause(&self.run, request).await
                }
                Act::Stop => {
                    *self.out.verbs.entry("stop").or_default() += 1;
                    engine.stop();
                    return match handle.wait().await {
                        Ok(view) if view.status.is_end() || view.paused.is_some() => {
                            LifeEnd::Stood(Box::new(view))
                        }
                        Ok(_) => LifeEnd::LetGo,
                        Err(error) => LifeEnd::Refused(error),
                    };
                }
                Act::Rollback => {
                    *self.out.verbs.entry("rollback live").or_default() += 1;
                    let rolled = engine.rollback(&self.run, Vec::new(), request).await.map(drop);
                    if rolled.is_ok() {
                        self.rollback_typed = true;
                        self.acked_cancel = Some(CancelMode::Rollback);
                    }
                    rolled
                }
                Act::Cancel(mode) => {
                    *self.out.verbs.entry("cancel").or_default() += 1;
                    let cancelled = engine.cancel(&self.run, mode, request).await;
                    if cancelled.is_ok() {
                        self.acked_cancel = Some(mode);
                    }
                    cancelled
                }
            };
            // A run that has just ended can be told nothing any more; a store that fails ends the drive.
            if asked.is_ok() && !matches!(act, Act::Rollback) {
                self.people.notes().acknowledged.push((self.run.clone(), by));
            }
            match asked {
                Ok(()) | Err(EngineError::NotLive(_) | EngineError::Store { .. }) => {}
                Err(error) => return LifeEnd::Refused(error),
            }
        }
        stood_or_refused(handle.wait().await)
    }

    /// What a person does next; `None` when it is over.
    fn judge(&mut self, end: LifeEnd, verb: Verb) -> Option<Verb> {
        if self.disk.overrun() {
            self.violation("the run writes without end".to_owned());
            return None;
        }
        for text in self.cloud.violations() {
            self.violation(text);
        }
        if verb == Verb::RollbackAgain {
            self.rolled_back_again(&end);
            return None;
        }
        if verb == Verb::RecoverRest {
            return None;
        }
        if self.verbs > VERB_LIMIT {
            self.violation(format!("the run does not end after {VERB_LIMIT} verbs: {end:?}"));
            return None;
        }
        if self.verbs > VERB_LIMIT / 2 {
            self.cloud.calm();
            self.cloud.repair(&self.scenario.in_the_way);
        }
        match end {
            LifeEnd::Crashed => {
                self.out.crashes += 1;
                self.after_silence()
            }
            LifeEnd::LetGo => self.after_silence(),
            LifeEnd::Stuck => {
                self.violation(format!("stuck: nothing more happens, {:?}", self.look()));
                None
            }
            LifeEnd::Stood(view) => {
                let stored = self.look();
                if stored != Some(view.status) {
                    self.violation(format!("told {:?}, stored {stored:?}", view.status));
                }
                self.stands(view.status, Some(*view))
            }
            LifeEnd::Refused(error) => self.refused(&error, verb),
        }
    }

    fn refused(&mut self, error: &EngineError, verb: Verb) -> Option<Verb> {
        match error {
            EngineError::Store { error: StoreError::Unavailable(_) | StoreError::Unknown(_), .. } => {
                self.after_silence()
            }
            EngineError::Store { error: StoreError::Exists(_), .. } if verb == Verb::Start => {
                Some(Verb::Resume)
            }
            error => {
                self.violation(format!("{verb:?} was refused: {error}"));
                None
            }
        }
    }

    /// What follows when the process ended, or the store left open what happened: a look at what is stored.
    fn after_silence(&mut self) -> Option<Verb> {
        match self.look() {
            None => Some(Verb::Start),
            Some(RunStatus::Pending | RunStatus::Running | RunStatus::Waiting | RunStatus::RollingBack) => {
                if self.scenario.after_crash == AfterCrash::Rollback && !self.rollback_typed {
                    self.before_rollback();
                    Some(Verb::Rollback)
                } else if self.scenario.recovers {
                    Some(Verb::Recover)
                } else {
                    Some(Verb::Resume)
                }
            }
            Some(status) => self.stands(status, None),
        }
    }

    /// The stored status.
    fn look(&self) -> Option<RunStatus> {
        self.status_of(&self.run)
    }

    fn status_of(&self, run: &RunId) -> Option<RunStatus> {
        let head = self.disk.look().head(run).now_or_never()?.ok()??;
        Some(head.summary.status)
    }

    /// Whether something below the run has not come to an end.
    fn rest(&self) -> bool {
        self.out.violations.is_empty()
            && self.out.lives < u64::from(VERB_LIMIT) * 2
            && self.people.runs().iter().skip(1).filter_map(|run| self.status_of(run)).any(going)
    }

    /// What an operator does now to a run that stands still, if anything.
    fn next_deed(&mut self, fits: impl Fn(Deed) -> bool) -> Option<Verb> {
        if !self.scenario.people || self.chance.percent(40) {
            return None;
        }
        let rest: Vec<(u64, Deed)> = self.deeds.by_ref().collect();
        let at = rest.iter().position(|(_, deed)| fits(*deed));
        let found = at.map(|at| Verb::Deed(rest[at].1));
        let rest: Vec<(u64, Deed)> =
            rest.into_iter().enumerate().filter(|(n, _)| Some(*n) != at).map(|(_, deed)| deed).collect();
        self.deeds = rest.into_iter();
        found
    }

    /// The last means against a step that never works out: an operator leaves it out.
    fn exasperated(&self) -> bool {
        self.scenario.people && self.verbs > VERB_LIMIT / 2 && self.verbs.is_multiple_of(2)
    }

    fn keep(&self) -> Vec<StepName> {
        self.scenario.keep.iter().map(|name| step(name)).collect()
    }

    fn before_rollback(&mut self) {
        self.rollback_typed = true;
        if self.scenario.drift && !self.drifted {
            for (key, _) in &self.scenario.settings {
                if self.chance.percent(30) {
                    self.drifted |= self.cloud.drift(key);
                }
            }
        }
    }

    fn stands(&mut self, status: RunStatus, view: Option<RunView>) -> Option<Verb> {
        let whims = self.scenario.whims;
        self.cancel_kept(status);
        match status {
            RunStatus::Succeeded => {
                let after_crash = self.scenario.after_crash == AfterCrash::Rollback && self.out.crashes > 0;
                if self.ending == Ending::RollbackAfter || (after_crash && !self.rollback_typed) {
                    self.before_rollback();
                    return Some(Verb::Rollback);
                }
                self.next_deed(|deed| deed == Deed::Rerun)
            }
            RunStatus::Paused => {
                if self.exasperated() {
                    return Some(Verb::Deed(Deed::Skip));
                }
                let fits = |d| !matches!(d, Deed::MarkUndone | Deed::Abandon | Deed::Terminate);
                if let Some(deed) = self.next_deed(fits) {
                    return Some(deed);
                }
                let roll = self.chance.below(100);
                if whims && roll < 15 {
                    self.before_rollback();
                    return Some(Verb::Rollback);
                }
                if !whims || roll < 60 {
                    self.cloud.repair(&self.scenario.in_the_way);
                }
                Some(Verb::Resume)
            }
            RunStatus::Failed | RunStatus::Cancelled | RunStatus::TimedOut => {
                if self.exasperated() {
                    return Some(Verb::Deed(Deed::Skip));
                }
                let fits = |d| matches!(d, Deed::Retry | Deed::Skip | Deed::Complete | Deed::Rerun);
                if let Some(deed) = self.next_deed(fits) {
                    return Some(deed);
                }
                let roll = self.chance.below(100);
                if self.ending == Ending::RollbackAfter || roll < 35 {
                    self.before_rollback();
                    Some(Verb::Rollback)
                } else if (whims && roll < 60) || status == RunStatus::Cancelled {
                    None
                } else {
                    self.cloud.repair(&self.scenario.in_the_way);
                    Some(Verb::Resume)
                }
            }
            RunStatus::RollbackStuck => {
                let view = view.or_else(|| self.view())?;
                self.leftovers_are_listed(&view);
                if let Some(deed) = self.next_deed(|d| matches!(d, Deed::MarkUndone | Deed::Abandon)) {
                    return Some(deed);
                }
                if self.drifted || (whims && self.chance.percent(25)) {
                    return None;
                }
                self.cloud.repair(&self.scenario.in_the_way);
                Some(if self.chance.percent(50) { Verb::Rollback } else { Verb::Resume })
            }
            RunStatus::RolledBack => {
                self.mutations_before = self.cloud.mutations();
                Some(Verb::RollbackAgain)
            }
            RunStatus::Pending | RunStatus::Running | RunStatus::Waiting | RunStatus::RollingBack => {
                self.violation(format!("nobody drives the run any more and it is {status}"));
                None
            }
        }
    }

    /// A cancellation that was acknowledged is never forgotten.
    fn cancel_kept(&mut self, status: RunStatus) {
        if std::mem::take(&mut self.people.notes().terminated) {
            // It may have come too late to be told what became of it.
            self.acked_cancel = None;
        }
        let Some(mode) = self.acked_cancel else { return };
        let fits = match (mode, status) {
            (_, RunStatus::Succeeded | RunStatus::RolledBack | RunStatus::RollbackStuck) => true,
            // A run that goes backwards already goes on backwards, and may pause on the way.
            (CancelMode::Keep | CancelMode::Terminate, status) => {
                status.is_end() || self.view().is_some_and(|v| v.rolling_back)
            }
            (CancelMode::Rollback, RunStatus::Paused) => true,
            (CancelMode::Rollback, _) => false,
        };
        // Of the ends, Succeeded only when it had succeeded before the request: the history tells.
        if !fits {
            self.violation(format!("an acknowledged cancel ({mode:?}) led to {status}"));
        }
    }

    fn view(&self) -> Option<RunView> {
        self.view_of(&self.run)
    }

    fn view_of(&self, run: &RunId) -> Option<RunView> {
        let store = self.disk.look();
        let state = load(store.as_ref(), run).now_or_never()?.ok()?;
        Some(dssflow_engine::run::view::view(&state))
    }

    /// The verb on a run that is rolled back is refused or does nothing; no change is asked for.
    fn rolled_back_again(&mut self, end: &LifeEnd) {
        match end {
            LifeEnd::Crashed | LifeEnd::LetGo | LifeEnd::Refused(EngineError::Illegal { .. }) => {}
            LifeEnd::Stood(view) if view.status == RunStatus::RolledBack => {}
            other => self.violation(format!("a second rollback answered {other:?}")),
        }
        if self.look() != Some(RunStatus::RolledBack) {
            self.violation(format!("after a second rollback the run is {:?}", self.look()));
        }
        if self.mutations_before != self.cloud.mutations() {
            self.violation("a second rollback asked for changes".to_owned());
        }
    }

    /// Everything of this run that is there must be found in the picture, by id where the id could be known.
    fn leftovers_are_listed(&mut self, view: &RunView) {
        let listed = self.judgement(|judge| judge.unlisted(view));
        self.out.violations.extend(listed);
    }

    fn judgement<T>(&self, judge: impl FnOnce(Judge<'_>) -> T) -> T {
        let notes = self.people.notes();
        judge(Judge {
            scenario: self.scenario,
            cloud: &self.cloud,
            drifted: self.drifted,
            decided: &notes.decided,
            abandoned: &notes.abandoned,
        })
    }

    /// The history of a run, one event a line, with every acknowledged verb in it.
    fn read_history(&mut self, run: &RunId) {
        let store = self.disk.look();
        let events = match history(store.as_ref(), run, 0).now_or_never() {
            Some(Ok(events)) => events,
            other => return self.violation(format!("the history cannot be read: {other:?}")),
        };
        self.out.events += events.len() as u64;
        match Moves::of(store.as_ref(), run).now_or_never().flatten() {
            Some(moves) => self.out.moves.add(&moves),
            None => self.violation(format!("the history of {run} cannot be replayed")),
        }
        let lines: Vec<String> =
            events.iter().map(|e| serde_json::to_string(e).expect("events are plain data")).collect();
        for event in &events {
            let kind = match &event.kind {
                EventKind::MapExpanded { .. } => "maps",
                EventKind::GateDecided { .. } => "gates",
                EventKind::SignalReceived { .. } => "signals",
                EventKind::WaitEnded { .. } => "waits",
                EventKind::RunTimedOut { .. } => "timed_out",
                EventKind::RunCreated { parent: Some(_), .. } => "subs",
                EventKind::StepsReset { .. } => "resets",
                EventKind::UndoMarked { .. } => "undo_marks",
                EventKind::AttemptFailed { next: Next::Tolerate, .. } => "tolerated",
                EventKind::StepFailed { .. } => "unattempted",
                _ => continue,
            };
            *self.out.kinds.entry(kind).or_default() += 1;
        }
        let notes = std::mem::take(&mut self.people.notes().acknowledged);
        for (of, by) in notes.iter().filter(|(of, _)| of == run) {
            let asked = format!("\"by\":\"{by}\"");
            if !lines.iter().any(|line| line.contains(&asked)) {
                self.violation(format!("{of}: what {by} was told is done is not in the history"));
            }
        }
        self.people.notes().acknowledged = notes;
        self.out.trace.extend(lines);
    }

    fn finish(mut self) -> Outcome {
        // What is still under way in the cloud lands now.
        self.cloud.advance(self.now + 300_000);
        for text in self.cloud.violations() {
            self.violation(text);
        }
        for run in self.people.runs() {
            if run == self.run || self.status_of(&run).is_some() {
                self.read_history(&run);
            }
        }
        let views: Vec<RunView> = self.people.runs().iter().filter_map(|run| self.view_of(run)).collect();
        if let Some(view) = views.first().filter(|view| view.run == self.run) {
            self.out.end = Some(view.status);
            let bad = self.judgement(|judge| judge.all(&views.iter().collect::<Vec<_>>()));
            self.out.violations.extend(bad);
        } else if self.out.violations.is_empty() {
            self.violation("there is no run at the end".to_owned());
        }
        let counts = std::mem::take(&mut self.people.notes().counts);
        for (verb, n) in counts {
            *self.out.verbs.entry(verb).or_default() += n;
        }
        self.out.troubles = self.disk.fired();
        self.out.call_crashes = self.cloud.crashes_fired();
        self.out.fates = self.cloud.fates();
        self.out.commits = self.disk.commits();
        self.out.mutations = self.cloud.mutations();
        self.out
    }
}

/// Whether somebody has to drive a run.
fn going(status: RunStatus) -> bool {
    matches!(status, RunStatus::Pending | RunStatus::Running | RunStatus::Waiting | RunStatus::RollingBack)
}

fn stood_or_refused(stood: Result<RunView, EngineError>) -> LifeEnd {
    match stood {
        Ok(view) => LifeEnd::Stood(Box::new(view)),
        Err(error) => LifeEnd::Refused(error),
    }
}

/// A step name, for scenarios written by hand.
pub fn step(name: &str) -> StepName {
    StepName::new(name).expect("a fixed name")
}

/// How kinds of services are spread, for reports.
pub const SERVICES: [Service; 3] = [Service::Named, Service::Tokened, Service::Tagged];
