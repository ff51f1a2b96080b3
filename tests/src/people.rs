//! The people of a simulation: one who decides at gates and sends signals after a while, and an operator who retries,
//! skips, completes, repeats and ends whatever is there. They see no more than the picture of the run.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dssflow_engine::event::Request;
use dssflow_engine::id::{RunId, StepName};
use dssflow_engine::run::view::{Awaited, RunView};
use dssflow_engine::run::{StepStatus, Verb};
use dssflow_engine::{Engine, EngineError};
use serde_json::{Value, json};

use crate::chance::Chance;
use crate::cloud::Cloud;
use crate::deeds::BY_HAND;
use crate::scenario::{Leaves, Scenario, Sub};

/// What an operator does to some step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Tries one that failed, or waits, at once.
    Retry,
    /// Leaves one out.
    Skip,
    /// Says that one is done.
    Complete,
    /// Does one again with all that depends on it.
    Rerun,
    /// Sends a signal that nobody waits for yet, or twice.
    Signal,
    /// Takes back by hand what is stuck.
    MarkUndone,
    /// Leaves what is stuck.
    Abandon,
    /// Ends the run at once.
    Terminate,
}

impl Deed {
    /// Any of them.
    pub fn any(c: &mut Chance) -> Self {
        use Deed::{Abandon, Complete, MarkUndone, Rerun, Retry, Signal, Skip, Terminate};
        *c.pick(&[Retry, Retry, Skip, Complete, Rerun, Rerun, Signal, Signal, MarkUndone, Abandon, Terminate])
    }

    /// For reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::Complete => "complete",
            Self::Rerun => "rerun",
            Self::Signal => "signal",
            Self::MarkUndone => "mark undone",
            Self::Abandon => "abandon",
            Self::Terminate => "terminate",
        }
    }
}

/// What people did, and what they were told.
#[derive(Debug, Default)]
pub struct Notes {
    /// Verbs that were acknowledged: the run, and the name under which they were asked for.
    pub acknowledged: Vec<(RunId, String)>,
    /// Steps about which a person said that they are done or left out, acknowledged or not.
    pub decided: BTreeSet<String>,
    /// Steps whose undo somebody gave up.
    pub abandoned: BTreeSet<String>,
    /// Verbs by word.
    pub counts: BTreeMap<&'static str, u64>,
    /// Somebody wanted the run to end at once.
    pub terminated: bool,
    serial: u64,
}

/// The people of one trial.
pub struct People<'a> {
    scenario: &'a Scenario,
    cloud: Cloud,
    run: RunId,
    /// Steps whose repetition would repeat a sub-workflow: in a run of its own, whose things have the same names.
    above_subs: BTreeSet<String>,
    chance: RefCell<Chance>,
    notes: RefCell<Notes>,
}

impl<'a> People<'a> {
    /// They know the run and what its steps leave.
    pub fn new(scenario: &'a Scenario, cloud: Cloud, run: RunId, chance: Chance) -> Self {
        let needs = scenario.needs();
        let mut todo: Vec<&str> = scenario.subs.iter().map(|sub| sub.step.as_str()).collect();
        let mut above_subs = BTreeSet::new();
        while let Some(step) = todo.pop() {
            let inner = scenario.subs.iter().flat_map(Sub::steps).any(|inner| inner == step);
            if !inner && above_subs.insert(step.to_owned()) {
                todo.extend(needs.get(step).into_iter().flatten().map(String::as_str));
            }
        }
        Self { scenario, cloud, run, above_subs, chance: RefCell::new(chance), notes: RefCell::default() }
    }

    /// What they did so far.
    pub fn notes(&self) -> std::cell::RefMut<'_, Notes> {
        self.notes.borrow_mut()
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Chance) -> T) -> T {
        draw(&mut self.chance.borrow_mut())
    }

    /// A request under a name of its own.
    pub fn request(&self) -> (String, Request) {
        let mut notes = self.notes.borrow_mut();
        notes.serial += 1;
        let by = format!("tester {}", notes.serial);
        (by.clone(), Request::by(by))
    }

    /// The run and those below it.
    pub fn runs(&self) -> Vec<RunId> {
        let below = self.scenario.subs.iter().map(|sub| {
            let step = StepName::new(sub.step.as_str()).expect("a fixed name");
            dssflow_engine::runtime::sub_run_id(&self.run, &step)
        });
        std::iter::once(self.run.clone()).chain(below).collect()
    }

    /// Decides and sends for ever, and does the deeds at their times.
    pub async fn live(&self, engine: &Engine, mut deeds: Vec<(u64, Deed)>) {
        deeds.sort_by_key(|d| d.0);
        let begin = tokio::time::Instant::now();
        let mut deeds = deeds.into_iter().peekable();
        let mut next = self.draw(|c| c.between(3_000, 45_000));
        loop {
            let deed = deeds.next_if(|d| d.0 <= next);
            let at = deed.map_or(next, |d| d.0);
            tokio::time::sleep_until(begin + Duration::from_millis(at)).await;
            if let Some((_, deed)) = deed {
                let run = self.draw(|c| if c.percent(80) { None } else { Some(c.draw()) });
                let runs = self.runs();
                let at = run.map_or(0, |n| usize::try_from(n % runs.len() as u64).expect("below a length"));
                let _refused = self.act(engine, &runs[at], deed).await;
            } else {
                for run in self.runs() {
                    self.answer(engine, &run).await;
                }
                next += self.draw(|c| c.between(3_000, 45_000));
            }
        }
    }

    /// Answers what a run waits for, mostly.
    async fn answer(&self, engine: &Engine, run: &RunId) {
        let Ok(view) = engine.view(run).await else { return };
        if view.status.is_end() || view.rolling_back {
            return;
        }
        for step in &view.steps {
            let verb = match &step.awaits {
                Some(Awaited::Decision { .. }) if self.draw(|c| c.percent(60)) => {
                    let step = step.step.clone();
                    if self.draw(|c| c.percent(85)) { Verb::Approve { step } } else { Verb::Reject { step } }
                }
                Some(Awaited::Signal { signal }) if self.draw(|c| c.percent(60)) => {
                    Verb::Signal { signal: signal.clone(), payload: json!("late") }
                }
                _ => continue,
            };
            let word = match verb {
                Verb::Approve { .. } => "approve",
                Verb::Reject { .. } => "reject",
                _ => "signal",
            };
            let again = word == "signal" && self.draw(|c| c.percent(10));
            let _refused = self.ask(engine, run, word, verb.clone()).await;
            if again {
                let _refused = self.ask(engine, run, word, verb).await;
            }
        }
    }

    async fn ask(
        &self,
        engine: &Engine,
        run: &RunId,
        word: &'static str,
        verb: Verb,
    ) -> Result<(), EngineError> {
        let (by, request) = self.request();
        engine.act(run, verb, request).await?;
        let mut notes = self.notes();
        notes.acknowledged.push((run.clone(), by));
        *notes.counts.entry(word).or_default() += 1;
        Ok(())
    }

    /// Does something to a run. What the run's state does not allow is no mistake of anybody.
    ///
    /// # Errors
    /// What else the engine says.
    pub async fn act(&self, engine: &Engine, run: &RunId, deed: Deed) -> Result<(), EngineError> {
        let done = self.try_to(engine, run, deed).await;
        match done {
            Err(
                EngineError::Illegal { .. }
                | EngineError::NoSuchRun(_)
                | EngineError::NotLive(_)
                | EngineError::Live(_)
                | EngineError::Dropped(_),
            ) => Ok(()),
            other => other,
        }
    }

    async fn try_to(&self, engine: &Engine, run: &RunId, deed: Deed) -> Result<(), EngineError> {
        let view = engine.view(run).await?;
        let wanted: Vec<&StepName> = view
            .steps
            .iter()
            .filter(|s| match deed {
                Deed::MarkUndone | Deed::Abandon => {
                    s.status == StepStatus::CompensationFailed
                        && self.scenario.leaves.contains_key(s.step.as_str())
                        && !self.scenario.subs.iter().any(|sub| sub.step == s.step.as_str())
                }
                Deed::Rerun => {
                    (s.status.is_done() || s.status == StepStatus::Failed)
                        && !self.above_subs.contains(s.step.as_str())
                }
                _ => matches!(
                    s.status,
                    StepStatus::Failed
                        | StepStatus::Waiting
                        | StepStatus::Backoff
                        | StepStatus::Ready
                        | StepStatus::Pending
                ),
            })
            .map(|s| &s.step)
            .collect();
        if deed == Deed::Terminate {
            let (by, request) = self.request();
            self.notes().terminated |= *run == self.run;
            engine.terminate(run, request).await?;
            let mut notes = self.notes();
            notes.acknowledged.push((run.clone(), by));
            *notes.counts.entry(deed.word()).or_default() += 1;
            return Ok(());
        }
        if deed == Deed::Signal {
            let signals: Vec<&str> =
                view.steps.iter().filter(|s| s.activity == "signal").map(|s| s.step.as_str()).collect();
            if signals.is_empty() {
                return Ok(());
            }
            let signal = self.draw(|c| (*c.pick(&signals)).to_owned());
            let verb = Verb::Signal { signal, payload: json!("early") };
            return self.ask(engine, run, deed.word(), verb).await;
        }
        // What failed is what an operator looks at first.
        let failed = view.failed_step.as_ref().filter(|f| wanted.contains(f));
        let step = match failed {
            Some(failed) if self.draw(|c| c.percent(70)) => failed.clone(),
            _ if wanted.is_empty() => return Ok(()),
            _ => self.draw(|c| (*c.pick(&wanted)).clone()),
        };
        let name = step.to_string();
        let verb = match deed {
            Deed::Retry => Verb::Retry { step },
            Deed::Rerun => Verb::Rerun { from: step },
            Deed::Skip => {
                self.notes().decided.insert(name);
                Verb::Skip { step }
            }
            Deed::Complete => {
                let Some(output) = self.output(&view, &name) else { return Ok(()) };
                self.notes().decided.insert(name);
                Verb::Complete { step, output }
            }
            Deed::MarkUndone => {
                self.cloud.by_hand(&name);
                Verb::MarkUndone { step }
            }
            Deed::Abandon => {
                self.notes().abandoned.insert(name.clone());
                self.cloud.leave(&name);
                Verb::Abandon { step }
            }
            Deed::Signal | Deed::Terminate => unreachable!("done above"),
        };
        self.ask(engine, run, deed.word(), verb).await
    }

    /// What a person gives as the output of a step; nothing for those that nobody completes.
    fn output(&self, view: &RunView, step: &str) -> Option<Value> {
        if self.scenario.maps.contains_key(step) || self.scenario.subs.iter().any(|sub| sub.step == step) {
            return None;
        }
        match self.scenario.leaves.get(step)? {
            Leaves::Thing(_, name) => Some(json!({ "id": BY_HAND, "name": name })),
            Leaves::Setting(..) | Leaves::Note(_) => Some(json!("by hand")),
            Leaves::Nothing => {
                let activity = &view.steps.iter().find(|s| s.step.as_str() == step)?.activity;
                match activity.as_str() {
                    "compute" => Some(json!({ "go": true })),
                    "wait" => Some(json!("by hand")),
                    _ => None,
                }
            }
        }
    }
}
