//! Puts one scenario through all its lives and judges the end by the cloud alone.
//!
//! Each life is a tokio runtime of its own on paused time: a crash drops it with everything in it. Store and cloud
//! stay. Between lives somebody decides what to type next, as a person would.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dssflow_engine::activity::Resource;
use dssflow_engine::event::{CancelMode, Request};
use dssflow_engine::id::{RunId, StepName, StoreId, WorkflowName};
use dssflow_engine::run::view::RunView;
use dssflow_engine::run::{RunStatus, StepStatus};
use dssflow_engine::runtime::{EngineOptions, engine};
use dssflow_engine::store::{Store, StoreError};
use dssflow_engine::{Engine, EngineError, StartRun};
use futures::FutureExt;

use crate::chance::Chance;
use crate::cloud::{Cloud, Fate, Origin, Phase, SITE, Service};
use crate::crash_store::{Disk, Trouble};
use crate::deeds;
use crate::journal::Journal;
use crate::life::Life;
use crate::scenario::{AfterCrash, Ending, Leaves, Scenario};

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
    /// Commits in all.
    pub commits: u64,
    /// Mutating calls in all.
    pub mutations: u64,
    /// Events in all.
    pub events: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Start,
    Resume,
    Rollback,
    RollbackAgain,
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
    out: Outcome,
}

/// Runs a scenario.
pub fn run(scenario: &Scenario) -> Outcome {
    let chance = Chance::new(scenario.seed).fork(7);
    let run = RunId::new("run").expect("a fixed name");
    let store = StoreId::generate([7; 16]);
    let journal = Arc::new(Journal::new(
        scenario.needs(),
        &[scenario.protected.clone(), scenario.keep.clone()].concat(),
    ));
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
    let mut trial = Trial {
        scenario,
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
        let engine = Engine::builder(store)
            .clock(Arc::new(life.clock()))
            .activities(deeds::registry(self.scenario.mistake))
            .resource(self.cloud.clone())
            .resource(life.clone())
            .options(options)
            .build();
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
            let next = self.judge(end, verb)?;
            // A person often types the next command without the process ending in between, and often not.
            if life.is_over() || self.chance.percent(50) {
                return Some(next);
            }
            verb = next;
        }
    }

    /// Types one verb and waits until the run stands.
    async fn drive(&mut self, engine: &Engine, verb: Verb) -> LifeEnd {
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
            let request = Request::by("tester");
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
                } else {
                    Some(Verb::Resume)
                }
            }
            Some(status) => self.stands(status, None),
        }
    }

    /// The stored status.
    fn look(&self) -> Option<RunStatus> {
        let head = self.disk.look().head(&self.run).now_or_never()?.ok()??;
        Some(head.summary.status)
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
                None
            }
            RunStatus::Paused => {
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
        let store = self.disk.look();
        let state = engine::load(store.as_ref(), &self.run).now_or_never()?.ok()?;
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
        for text in unlisted(self.scenario, &self.cloud, view) {
            self.violation(text);
        }
    }

    fn finish(mut self) -> Outcome {
        // What is still under way in the cloud lands now.
        self.cloud.advance(self.now + 300_000);
        for text in self.cloud.violations() {
            self.violation(text);
        }
        let store = self.disk.look();
        match engine::history(store.as_ref(), &self.run, 0).now_or_never() {
            Some(Ok(events)) => {
                self.out.events = events.len() as u64;
                self.out.trace =
                    events.iter().map(|e| serde_json::to_string(e).expect("events are plain data")).collect();
            }
            other => self.violation(format!("the history cannot be read: {other:?}")),
        }
        if let Some(view) = self.view() {
            self.out.end = Some(view.status);
            self.out.violations.extend(verdict(self.scenario, &self.cloud, &view, self.drifted));
        } else if self.out.violations.is_empty() {
            self.violation("there is no run at the end".to_owned());
        }
        self.out.troubles = self.disk.fired();
        self.out.call_crashes = self.cloud.crashes_fired();
        self.out.fates = self.cloud.fates();
        self.out.commits = self.disk.commits();
        self.out.mutations = self.cloud.mutations();
        self.out
    }
}

/// The judgement: the cloud against what the run says of itself.
pub fn verdict(scenario: &Scenario, cloud: &Cloud, view: &RunView, drifted: bool) -> Vec<String> {
    let (things, notes, settings) = (cloud.things(), cloud.notes(), cloud.settings());
    let mut bad = Vec::new();

    // Nothing of others is gone.
    for (service, name, origin) in &scenario.plants {
        let there = things.iter().any(|t| t.service == *service && t.name == *name && t.origin == *origin);
        let removed = *origin == Origin::Stranger && scenario.in_the_way.contains(name);
        if !there && !removed {
            bad.push(format!("{name} of {origin:?} is gone"));
        }
    }
    // Nothing is there twice.
    let mut live: BTreeMap<&str, u32> = BTreeMap::new();
    for thing in things.iter().filter(|t| t.origin == Origin::Run) {
        *live.entry(thing.name.as_str()).or_default() += 1;
    }
    for (name, count) in live.iter().filter(|(_, n)| **n > 1) {
        bad.push(format!("{count} live things are named {name}"));
    }
    let status_of: BTreeMap<&str, StepStatus> =
        view.steps.iter().map(|s| (s.step.as_str(), s.status)).collect();
    match view.status {
        RunStatus::Succeeded => {
            for (step, leaves) in &scenario.leaves {
                let status = status_of[step.as_str()];
                if status == StepStatus::Skipped {
                    if ours(&things, &notes, leaves) {
                        bad.push(format!("step {step} was skipped and left something"));
                    }
                    continue;
                }
                if !status.is_done() {
                    bad.push(format!("the run succeeded and step {step} is {status}"));
                }
                let there = match leaves {
                    Leaves::Thing(service, name) => {
                        things.iter().any(|t| t.service == *service && t.name == *name)
                    }
                    Leaves::Setting(key, value) => settings
                        .iter()
                        .any(|(k, _, v)| k == key && (v == value || (drifted && v == "drifted"))),
                    Leaves::Note(name) => notes.contains_key(name),
                    Leaves::Nothing => true,
                };
                if !there {
                    bad.push(format!("lost: step {step} is {status} and {leaves:?} is missing"));
                }
            }
        }
        RunStatus::RolledBack => {
            for (step, leaves) in &scenario.leaves {
                let kept = status_of[step.as_str()] == StepStatus::Kept;
                if kept && !scenario.protected.contains(step) && !scenario.keep.contains(step) {
                    bad.push(format!("step {step} was kept without being asked to"));
                }
                let left = match leaves {
                    Leaves::Setting(key, _) => settings.iter().any(|(k, old, now)| k == key && old != now),
                    other => ours(&things, &notes, other),
                };
                if left && !kept {
                    bad.push(format!("orphan: {leaves:?} of step {step} is left after the rollback"));
                }
            }
        }
        RunStatus::RollbackStuck => {}
        _ => {
            for text in unlisted(scenario, cloud, view) {
                bad.push(text);
            }
        }
    }
    if view.status == RunStatus::RollbackStuck {
        bad.extend(unlisted(scenario, cloud, view));
    }
    // A thing that somebody waited for is whole.
    if view.status == RunStatus::Succeeded {
        for thing in &things {
            let polled = scenario.graph.steps().iter().any(|s| {
                thing.name == format!("thing-{}", s.name)
                    && serde_json::to_string(&s.kind).is_ok_and(|k| k.contains("\"poll\":true"))
            });
            if thing.origin == Origin::Run && polled && thing.phase(u64::MAX) == Phase::Failed {
                bad.push(format!("{} is FAILED and its step is done", thing.name));
            }
        }
    }
    bad
}

fn stood_or_refused(stood: Result<RunView, EngineError>) -> LifeEnd {
    match stood {
        Ok(view) => LifeEnd::Stood(Box::new(view)),
        Err(error) => LifeEnd::Refused(error),
    }
}

fn ours(
    things: &[crate::cloud::Thing],
    notes: &BTreeMap<String, dssflow_engine::activity::Marks>,
    leaves: &Leaves,
) -> bool {
    match leaves {
        Leaves::Thing(service, name) => {
            things.iter().any(|t| t.service == *service && t.name == *name && t.origin == Origin::Run)
        }
        Leaves::Note(name) => notes.contains_key(name),
        Leaves::Setting(..) | Leaves::Nothing => false,
    }
}

/// What of this run is in the cloud and not told by the picture of the run.
fn unlisted(scenario: &Scenario, cloud: &Cloud, view: &RunView) -> Vec<String> {
    let (things, notes, settings) = (cloud.things(), cloud.notes(), cloud.settings());
    let mut bad = Vec::new();
    for step in &view.steps {
        let Some(leaves) = scenario.leaves.get(step.step.as_str()) else { continue };
        let left = match leaves {
            Leaves::Setting(key, value) => {
                settings.iter().any(|(k, old, now)| k == key && old != now && now == value)
            }
            other => ours(&things, &notes, other),
        };
        let told = step.live || step.status == StepStatus::Kept;
        if left && !told {
            bad.push(format!(
                "{leaves:?} of step {} ({}) is there and not told as live",
                step.step, step.status
            ));
        }
        let Leaves::Thing(service, name) = leaves else { continue };
        if !left || !told || step.effect == "unknown" || step.status == StepStatus::Kept {
            continue;
        }
        for thing in
            things.iter().filter(|t| t.origin == Origin::Run && t.service == *service && t.name == *name)
        {
            let recorded = step.resources.iter().any(|r: &Resource| r.id == thing.id);
            let output = step.output.as_ref().is_some_and(|o| o["id"] == thing.id.as_str());
            if !recorded && !output && view.status == RunStatus::RollbackStuck {
                bad.push(format!("{} of step {} is left and its id is not told", thing.id, step.step));
            }
        }
    }
    bad
}

/// A step name, for scenarios written by hand.
pub fn step(name: &str) -> StepName {
    StepName::new(name).expect("a fixed name")
}

/// How kinds of services are spread, for reports.
pub const SERVICES: [Service; 3] = [Service::Named, Service::Tokened, Service::Tagged];
