//! What goes wrong around activities, by script or by chance: calls that fail, whose reply is lost, that panic, hang or
//! are repeated. The activity itself is not touched; it is called, or not, or more than once.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::activity::{
    ActivityContext, ActivityError, ActivityResult, Effect, ErasedActivity, ErrorClass, Probe, Recorded,
    Shapes, Undo,
};
use crate::event::Phase;
use crate::id::{ActivityName, StepName};
use crate::time::BoxFuture;

/// What happens to one call of an activity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error and is not called at all.
    Fail(ActivityError),
    /// It acts, and its answer is lost: the attempt fails with an error that leaves open whether it did anything.
    LoseReply,
    /// It acts, and the process crashes before anybody knows.
    Crash,
    /// It panics and is not called at all.
    Panic,
    /// It is not called, and the attempt hangs until it is cancelled or its time is over.
    Hang,
    /// It acts so many times in a row. An activity with a probe is looked at between, as the engine does it, and acts
    /// again only if nothing is found.
    Repeat(u32),
}

impl Fault {
    /// A failure of this class before anything is done.
    pub fn fail(class: ErrorClass) -> Self {
        let error = ActivityError::new(class, "Injected", "a fault was injected before the activity acted");
        Self::Fail(error.no_effect())
    }
}

/// Which calls a fault happens to. Without a phase it happens to executions and undos, never to probes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Rule {
    fault: Fault,
    activity: Option<String>,
    step: Option<String>,
    attempts: Option<RangeInclusive<u32>>,
    phase: Option<Phase>,
    left: Option<u32>,
}

impl Rule {
    /// A fault that happens to every execution and every undo.
    pub fn new(fault: Fault) -> Self {
        Self { fault, activity: None, step: None, attempts: None, phase: None, left: None }
    }

    /// Only calls of this activity.
    pub fn activity(mut self, name: impl Into<String>) -> Self {
        self.activity = Some(name.into());
        self
    }

    /// Only calls for this step.
    pub fn step(mut self, name: impl Into<String>) -> Self {
        self.step = Some(name.into());
        self
    }

    /// Only the attempt of this number. All attempts of a step are counted together, undos too.
    pub fn attempt(self, number: u32) -> Self {
        self.attempts(number..=number)
    }

    /// Only the attempts of these numbers.
    pub fn attempts(mut self, numbers: RangeInclusive<u32>) -> Self {
        self.attempts = Some(numbers);
        self
    }

    /// Only calls of this kind: executions, probes or undos.
    pub fn phase(mut self, phase: Phase) -> Self {
        self.phase = Some(phase);
        self
    }

    /// Only the first call that the rest of the rule fits.
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Only the first so many calls that the rest of the rule fits.
    pub fn times(mut self, count: u32) -> Self {
        self.left = Some(count);
        self
    }

    fn fits(&self, activity: &ActivityName, step: &StepName, attempt: u32, phase: Phase) -> bool {
        self.left != Some(0)
            && self.activity.as_deref().is_none_or(|name| name == activity.as_str())
            && self.step.as_deref().is_none_or(|name| name == step.as_str())
            && self.attempts.as_ref().is_none_or(|numbers| numbers.contains(&attempt))
            && self.phase.map_or(phase != Phase::Probe, |wanted| wanted == phase)
    }
}

/// How often chance makes each fault happen, in percent of executions and undos. What is left over goes well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// [`Fault::Fail`], worth another attempt.
    pub fail: u8,
    /// [`Fault::Fail`], throttled.
    pub throttle: u8,
    /// [`Fault::LoseReply`].
    pub lose_reply: u8,
    /// [`Fault::Crash`].
    pub crash: u8,
    /// [`Fault::Panic`].
    pub panic: u8,
    /// [`Fault::Hang`]; only attempts whose time is limited.
    pub hang: u8,
    /// [`Fault::Repeat`], twice.
    pub repeat: u8,
}

impl Rates {
    /// A rough day: every second call goes wrong in some way.
    pub const ROUGH: Self =
        Self { fail: 8, throttle: 5, lose_reply: 10, crash: 10, panic: 3, hang: 4, repeat: 10 };
}

/// A fault that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// The activity.
    pub activity: ActivityName,
    /// The step.
    pub step: StepName,
    /// The attempt.
    pub attempt: u32,
    /// What was called.
    pub phase: Phase,
    /// What happened.
    pub fault: Fault,
}

impl fmt::Display for Fired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { activity, step, attempt, phase, fault } = self;
        write!(f, "{fault:?} in attempt {attempt} ({phase:?}) of step {step}, activity {activity}")
    }
}

#[derive(Debug)]
struct Chance {
    rng: StdRng,
    rates: Rates,
    left: u32,
}

#[derive(Debug, Default)]
struct Inner {
    rules: Vec<Rule>,
    unfired: Vec<bool>,
    chance: Option<Chance>,
    fired: Vec<Fired>,
}

/// The faults of a [`Lab`](super::Lab), over all its lives. Cheap to clone; all clones are the same faults.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    inner: Arc<Mutex<Inner>>,
}

impl Faults {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every execution and every undo is repeated so many times in a row.
    pub fn repeat_all(times: u32) -> Self {
        let faults = Self::new();
        faults.add(Rule::new(Fault::Repeat(times)));
        faults
    }

    /// Faults by chance: the same for the same seed, at most `limit` in all, so that a run comes to its end.
    pub fn random(seed: u64, rates: Rates, limit: u32) -> Self {
        let faults = Self::new();
        faults.lock().chance = Some(Chance { rng: StdRng::seed_from_u64(seed), rates, left: limit });
        faults
    }

    /// With a rule more. The first rule that fits a call wins; chance is asked when none does.
    #[must_use]
    pub fn with(self, rule: Rule) -> Self {
        self.add(rule);
        self
    }

    /// Adds a rule, also while runs are under way.
    pub fn add(&self, rule: Rule) {
        let mut inner = self.lock();
        inner.rules.push(rule);
        inner.unfired.push(true);
    }

    /// Takes every rule and all chance away.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.rules.clear();
        inner.unfired.clear();
        inner.chance = None;
    }

    /// What happened so far.
    pub fn fired(&self) -> Vec<Fired> {
        self.lock().fired.clone()
    }

    /// Rules that never fitted any call: most often a misspelt name.
    pub fn unfired(&self) -> Vec<Rule> {
        let inner = self.lock();
        let unfired = inner.rules.iter().zip(&inner.unfired).filter(|(_, unfired)| **unfired);
        unfired.map(|(rule, _)| rule.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens to this call.
    fn next(&self, activity: &ActivityName, ctx: &ActivityContext, phase: Phase) -> Option<Fault> {
        let (step, attempt) = (ctx.step(), ctx.attempt());
        let mut inner = self.lock();
        let rule = inner.rules.iter().position(|rule| rule.fits(activity, step, attempt, phase));
        let fault = match rule {
            Some(at) => {
                inner.unfired[at] = false;
                let rule = &mut inner.rules[at];
                rule.left = rule.left.map(|left| left - 1);
                rule.fault.clone()
            }
            None if phase == Phase::Probe => return None,
            None => inner.chance.as_mut()?.draw(ctx.deadline().is_some())?,
        };
        let (activity, step) = (activity.clone(), step.clone());
        inner.fired.push(Fired { activity, step, attempt, phase, fault: fault.clone() });
        Some(fault)
    }
}

impl Chance {
    fn draw(&mut self, limited: bool) -> Option<Fault> {
        // Drawn in any case, so that what follows does not depend on the limit.
        let mut roll = self.rng.random_range(0..100u8);
        let Rates { fail, throttle, lose_reply, crash, panic, hang, repeat } = self.rates;
        let table = [
            (fail, Fault::fail(ErrorClass::Retryable)),
            (throttle, Fault::fail(ErrorClass::Throttled)),
            (lose_reply, Fault::LoseReply),
            (crash, Fault::Crash),
            (panic, Fault::Panic),
            (hang, Fault::Hang),
            (repeat, Fault::Repeat(2)),
        ];
        for (rate, fault) in table {
            if roll >= rate {
                roll -= rate;
                continue;
            }
            if self.left == 0 || fault == Fault::Hang && !limited {
                return None;
            }
            self.left -= 1;
            return Some(fault);
        }
        None
    }
}

/// An activity in a lab: it stops with its process, and faults happen to it.
pub(super) struct Faulty {
    pub(super) name: ActivityName,
    pub(super) inner: Arc<dyn ErasedActivity>,
    pub(super) faults: Faults,
    pub(super) life: CancellationToken,
}

impl Faulty {
    /// Does nothing more once the process has crashed.
    async fn alive<T>(&self, call: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            () = self.life.cancelled() => std::future::pending().await,
            answer = call => answer,
        }
    }

    /// Lets the planned fault happen to a call. `again` gets the last answer and gives the next one.
    async fn call<T, C, D>(
        &self,
        ctx: &ActivityContext,
        phase: Phase,
        act: impl Fn() -> C,
        again: impl Fn(T) -> D,
    ) -> ActivityResult<T>
    where
        C: Future<Output = ActivityResult<T>>,
        D: Future<Output = ActivityResult<T>>,
    {
        let Some(fault) = self.faults.next(&self.name, ctx, phase) else { return act().await };
        match fault {
            Fault::Fail(error) => Err(error),
            Fault::LoseReply => {
                act().await?;
                Err(ActivityError::retryable("ReplyLost", "the activity acted and its answer was lost"))
            }
            Fault::Crash => {
                // Whatever it answered, nobody hears it.
                drop(act().await);
                self.life.cancel();
                std::future::pending().await
            }
            Fault::Panic => panic!("a fault was injected into activity {}", self.name),
            Fault::Hang => {
                ctx.cancelled().await;
                Err(ActivityError::cancelled())
            }
            Fault::Repeat(times) => {
                let mut answer = act().await?;
                for _ in 1..times {
                    answer = again(answer).await?;
                }
                Ok(answer)
            }
        }
    }

    /// Does it once more, as the engine would after an answer that it did not get.
    async fn execute_again(
        &self,
        ctx: &ActivityContext,
        input: &Value,
        last: Value,
    ) -> ActivityResult<Value> {
        if !self.inner.has_probe() {
            return self.inner.execute(ctx, input).await;
        }
        match self.inner.probe(ctx, input).await? {
            Probe::Absent => self.inner.execute(ctx, input).await,
            Probe::Present { output, .. } => Ok(output),
            Probe::InProgress { .. } | Probe::Failed { .. } => Ok(last),
        }
    }
}

impl ErasedActivity for Faulty {
    fn effect(&self) -> Effect {
        self.inner.effect()
    }

    fn has_probe(&self) -> bool {
        self.inner.has_probe()
    }

    fn owns(&self) -> bool {
        self.inner.owns()
    }

    fn execute<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Value>> {
        Box::pin(self.alive(self.call(
            ctx,
            Phase::Execute,
            || self.inner.execute(ctx, input),
            |last| self.execute_again(ctx, input, last),
        )))
    }

    fn probe<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Probe<Value>>> {
        Box::pin(self.alive(self.call(
            ctx,
            Phase::Probe,
            || self.inner.probe(ctx, input),
            |_| self.inner.probe(ctx, input),
        )))
    }

    fn verify<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
        output: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<()>> {
        Box::pin(self.alive(self.inner.verify(ctx, input, output)))
    }

    fn compensate<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
        recorded: &'a Recorded,
    ) -> BoxFuture<'a, ActivityResult<Undo>> {
        Box::pin(self.alive(self.call(
            ctx,
            Phase::Compensate,
            || self.inner.compensate(ctx, input, recorded),
            // That nothing is left to take back the second time is what the first one wanted.
            move |first| async move { self.inner.compensate(ctx, input, recorded).await.map(|_| first) },
        )))
    }

    fn describe(&self, input: &Value) -> String {
        self.inner.describe(input)
    }

    fn settle(&self) -> Duration {
        self.inner.settle()
    }

    fn poll_interval(&self) -> Duration {
        self.inner.poll_interval()
    }

    fn check_input(&self, input: &Value) -> Result<(), String> {
        self.inner.check_input(input)
    }

    fn check_output(&self, output: &Value) -> Result<(), String> {
        self.inner.check_output(output)
    }

    fn shapes(&self) -> Shapes {
        self.inner.shapes()
    }
}
