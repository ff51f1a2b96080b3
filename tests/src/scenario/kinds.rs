//! The kinds of steps that are more than one call: maps, gates, sleeps, signals, sub-workflows. And random cases that
//! are full of them, with people who decide, and operators who do anything at any time.

use std::time::Duration;

use dssflow_engine::activity::ErrorClass;
use dssflow_engine::event::CancelMode;
use dssflow_engine::graph::{OnParentClose, OnReject, OutputRef, StepKind};
use dssflow_engine::id::ActivityName;
use dssflow_engine::retry::{RetryPolicy, RetryRule};
use dssflow_engine::run::{OnTrouble, RunOptions};
use dssflow_engine::{Binding, Graph, Step};
use serde_json::{Value, json};

use super::{AfterCrash, Ending, Leaves, Plan, Scenario, Sub, Traits, step_name};
use crate::chance::Chance;
use crate::cloud::Service;
use crate::crash_store::Trouble;
use crate::deeds::{EnsureInput, MakeInput, SetInput};
use crate::people::Deed;

const TROUBLE: [OnTrouble; 3] = [OnTrouble::Pause, OnTrouble::Fail, OnTrouble::Rollback];
const SERVICES: [Service; 4] = [Service::Named, Service::Named, Service::Tokened, Service::Tagged];

/// What the children of a map do.
#[derive(Debug, Clone, Copy)]
pub enum Child {
    /// Create things.
    Make(Service),
    /// Change settings.
    Set,
    /// Write notes.
    Ensure,
}

impl Plan {
    fn wait_for(mut self, name: &str, kind: StepKind, traits: &Traits) -> Self {
        let mut step = Step::new(step_name(name), kind);
        step.after.clear();
        self.push(step, name, traits, Leaves::Nothing);
        self
    }

    /// Changes what was added last.
    #[must_use]
    pub fn tune(mut self, tune: impl FnOnce(&mut Step)) -> Self {
        if let Some(step) = self.steps.last_mut() {
            tune(step);
        }
        self
    }

    /// Somebody is there who decides and sends signals.
    #[must_use]
    pub fn with_people(mut self) -> Self {
        self.people = true;
        self
    }

    /// A gate; a person decides about it.
    #[must_use]
    pub fn gate(
        self,
        name: &str,
        limit: Option<(u64, Option<bool>)>,
        on_reject: OnReject,
        traits: &Traits,
    ) -> Self {
        let kind = StepKind::Gate {
            question: format!("may {name} go on?"),
            timeout_ms: limit.map(|l| l.0),
            default: limit.and_then(|l| l.1),
            on_reject,
        };
        self.with_people().wait_for(name, kind, traits)
    }

    /// A sleep.
    #[must_use]
    pub fn sleep(self, name: &str, ms: u64, traits: &Traits) -> Self {
        self.wait_for(name, StepKind::Sleep { duration_ms: Binding::literal(ms) }, traits)
    }

    /// A step that waits for the signal of its own name.
    #[must_use]
    pub fn signal(self, name: &str, limit: Option<(u64, bool)>, traits: &Traits) -> Self {
        let kind = StepKind::Signal {
            signal: name.to_owned(),
            timeout_ms: limit.map(|l| l.0),
            default: limit.filter(|l| l.1).map(|_| json!("default")),
        };
        self.with_people().wait_for(name, kind, traits)
    }

    /// A step that gives a list, and a map over it: `{name}l` and `{name}`.
    #[must_use]
    pub fn map(
        mut self,
        name: &str,
        child: Child,
        size: usize,
        at_once: u32,
        tolerated: u32,
        traits: &Traits,
    ) -> Self {
        let (list, mut items, mut children) = (format!("{name}l"), Vec::new(), Vec::new());
        let locks = traits.locks.clone();
        for n in 0..size {
            let step = format!("{name}[{n}]");
            let (item, leaves) = match child {
                Child::Make(service) => {
                    let thing = format!("thing-{step}");
                    let (poll, trusting, needs) = (false, n % 2 == 0, Value::Null);
                    let (name, locks) = (thing.clone(), locks.clone());
                    let input = MakeInput { service, name, slow_ms: 0, poll, trusting, locks, needs };
                    (json!(input), Leaves::Thing(service, thing))
                }
                Child::Set => {
                    let (key, value) = (format!("key-{step}"), format!("new-{step}"));
                    self.settings.push((key.clone(), "old".to_owned()));
                    let leaves = Leaves::Setting(key.clone(), value.clone());
                    (json!(SetInput { key, value, locks: locks.clone(), needs: Value::Null }), leaves)
                }
                Child::Ensure => {
                    let name = format!("note-{step}");
                    let leaves = Leaves::Note(name.clone());
                    (json!(EnsureInput { name, locks: locks.clone(), needs: Value::Null }), leaves)
                }
            };
            items.push(item);
            if traits.protect {
                self.protected.push(step.clone());
            }
            self.leaves.insert(step.clone(), leaves);
            children.push(step);
        }
        let input = json!({ "items": items, "needs": Self::needs(traits) });
        let before = Traits { locks: Vec::new(), protect: false, ..traits.clone() };
        self.add(&list, "list", input, &before, Leaves::Nothing);
        let activity = match child {
            Child::Make(_) => "make",
            Child::Set => "set",
            Child::Ensure => "ensure",
        };
        let kind = StepKind::Map {
            items: Binding::Output { step: step_name(&list), pointer: String::new() },
            activity: ActivityName::new(activity).expect("a fixed name"),
            max_concurrency: at_once,
            tolerated_failures: tolerated,
        };
        self.maps.insert(name.to_owned(), children);
        let after = Traits { after: vec![list], ..traits.clone() };
        self.push(Step::new(step_name(name), kind), name, &after, Leaves::Nothing);
        self
    }

    /// A sub-workflow. The names of its steps differ from all others.
    ///
    /// # Panics
    /// When the steps of `inner` make no graph.
    #[must_use]
    pub fn sub(
        mut self,
        name: &str,
        inner: Self,
        options: RunOptions,
        on_parent_close: OnParentClose,
        traits: &Traits,
    ) -> Self {
        let last = inner.steps.last().map(|step| step.name.clone()).expect("it has steps");
        let output = Binding::Output { step: last, pointer: String::new() };
        let graph = inner.steps.into_iter().fold(Graph::builder(), dssflow_engine::GraphBuilder::step);
        let graph = graph.output(output).build().expect("a plan makes a graph");
        let workflow = format!("flow-{name}");
        let input = OutputRef::to_value;
        let needs: Vec<Value> = traits
            .after
            .iter()
            .map(|a| input(&OutputRef { step: step_name(a), pointer: String::new() }))
            .collect();
        let kind = StepKind::SubWorkflow {
            workflow: workflow.clone(),
            input: Binding::from_template(Value::Array(needs)).expect("step names are fixed"),
            on_parent_close,
        };
        self.subs.push(Sub { step: name.to_owned(), workflow, graph, options });
        self.leaves.extend(inner.leaves);
        self.protected.extend(inner.protected);
        self.settings.extend(inner.settings);
        self.people |= inner.people;
        self.push(Step::new(step_name(name), kind), name, traits, Leaves::Nothing);
        // A sub-workflow takes its time.
        self.tune(|step| step.timeouts.start_to_close_ms = None)
    }
}

/// A step that does one thing.
fn leaf(plan: Plan, c: &mut Chance, name: &str, traits: &Traits) -> Plan {
    match c.below(10) {
        0..=4 => {
            let slow = if c.percent(25) { c.between(1_000, 20_000) } else { 0 };
            let (service, poll, trusting) = (*c.pick(&SERVICES), c.percent(50), c.percent(40));
            plan.make(name, service, slow, poll && slow > 0, trusting, traits)
        }
        5 | 6 => plan.set(name, c.percent(10), traits),
        _ => plan.ensure(name, traits),
    }
}

fn child(c: &mut Chance) -> Child {
    match c.below(5) {
        0..=2 => Child::Make(*c.pick(&SERVICES)),
        3 => Child::Set,
        _ => Child::Ensure,
    }
}

fn options(c: &mut Chance) -> RunOptions {
    let mut options = RunOptions {
        parallelism: u32::try_from(c.between(1, 8)).expect("small"),
        on_exhausted: *c.pick(&TROUBLE),
        on_failure: *c.pick(&TROUBLE),
        timeout_ms: c.percent(10).then(|| c.between(60_000, 600_000)),
        priority: i32::from(c.percent(20)),
        ..RunOptions::default()
    };
    // Without a chance of its own: the seeds that are kept go on meaning what they did.
    if options.timeout_ms.is_some() {
        options.on_blocked = options.on_failure;
    }
    options
}

fn inner(c: &mut Chance, prefix: &str) -> Plan {
    let (mut plan, mut before) = (Plan::default(), None::<String>);
    for n in 0..c.between(2, 4) {
        let name = format!("{prefix}i{n}");
        let traits = Traits {
            after: before.iter().filter(|_| c.percent(60)).cloned().collect(),
            attempts: u32::try_from(c.between(2, 5)).expect("small"),
            ..Traits::default()
        };
        plan = match c.below(20) {
            0 => plan.sleep(&name, c.between(1_000, 90_000), &traits),
            1 => plan.gate(&name, None, OnReject::Continue, &traits),
            _ => leaf(plan, c, &name, &traits),
        };
        before = Some(name);
    }
    plan
}

fn close(c: &mut Chance) -> OnParentClose {
    *c.pick(&[OnParentClose::Cancel, OnParentClose::Terminate, OnParentClose::Abandon])
}

/// A random case that has steps of all kinds.
pub fn eventful(seed: u64) -> Scenario {
    let mut chance = Chance::new(seed ^ 0x00e7_e47f);
    let c = &mut chance;
    let (mut plan, mut names) = (Plan::default().with_people(), Vec::<String>::new());
    let total = c.between(4, 14);
    for n in 0..total {
        let name = format!("e{n:02}");
        let attempts = u32::try_from(c.between(2, 6)).expect("small");
        let mut traits = Traits { attempts, ..Traits::default() };
        for _ in 0..c.below(3) {
            if !names.is_empty() {
                let before = c.pick(&names).clone();
                if !traits.after.contains(&before) {
                    traits.after.push(before);
                }
            }
        }
        if c.percent(25) {
            let lock = match c.below(5) {
                0 => format!("lock-{}", c.below(2)),
                1 | 2 => format!("lock-0[{}]", c.below(2)),
                3 => "permit-0".to_owned(),
                _ => "rate-0".to_owned(),
            };
            let exclusive = !lock.starts_with("permit-") && !lock.starts_with("rate-") && c.percent(60);
            traits.locks.push((lock, exclusive));
        }
        traits.protect = c.percent(3);
        let free = Traits { locks: Vec::new(), protect: false, ..traits.clone() };
        plan = match c.below(100) {
            0..=39 => leaf(plan, c, &name, &traits),
            40..=57 => {
                let (child, size) = (child(c), c.index(6));
                let at_once = u32::try_from(c.below(4)).expect("small");
                let tolerated = if c.percent(40) { 1 + u32::from(c.percent(40)) } else { 0 };
                plan.map(&name, child, size, at_once, tolerated, &traits)
            }
            58..=69 => {
                let limit = c.percent(40).then(|| {
                    let default = if c.percent(60) { Some(c.percent(70)) } else { None };
                    (c.between(5_000, 120_000), default)
                });
                let on_reject = if c.percent(50) { OnReject::Fail } else { OnReject::Continue };
                plan.gate(&name, limit, on_reject, &free)
            }
            70..=77 => plan.sleep(&name, c.between(0, 400_000), &free),
            78..=87 => {
                let limit = c.percent(40).then(|| (c.between(5_000, 120_000), c.percent(60)));
                plan.signal(&name, limit, &free)
            }
            _ => {
                let (inner, options, close) = (inner(c, &name), options(c), close(c));
                plan.sub(&name, inner, options, close, &free)
            }
        };
        let trouble = c.percent(15).then(|| (*c.pick(&TROUBLE), *c.pick(&TROUBLE)));
        let rule = c.percent(15).then(|| {
            let code = *c.pick(&["ConnectionReset", "Internal*", "Create*"]);
            RetryRule::for_code(code, RetryPolicy::attempts(u32::try_from(c.between(1, 4)).expect("small")))
        });
        let by_class = c.percent(5);
        let start_by = (!traits.locks.is_empty() && c.percent(20)).then(|| c.between(2_000, 60_000));
        plan = plan.tune(|step| {
            if let Some((exhausted, failure)) = trouble {
                (step.on_exhausted, step.on_failure) = (Some(exhausted), Some(failure));
            }
            step.retry.rules.extend(rule);
            if by_class {
                let policy = RetryPolicy::attempts(9).first_after(Duration::from_secs(1));
                step.retry.rules.push(RetryRule::for_class(ErrorClass::Retryable, policy));
            }
            step.timeouts.schedule_to_start_ms = start_by;
        });
        names.push(name);
    }
    let mut s = plan.done(format!("eventful seed {seed}"), seed);
    troubles(&mut s, c, &names, total);
    s
}

/// What goes wrong, and what people do.
fn troubles(s: &mut Scenario, c: &mut Chance, names: &[String], total: u64) {
    s.options = options(c);
    s.budget = if c.percent(15) { 0 } else { c.between(1, 20) };
    let acting: Vec<String> =
        s.leaves.iter().filter(|(_, l)| **l != Leaves::Nothing).map(|(step, _)| step.clone()).collect();
    if c.percent(25) && !acting.is_empty() {
        s.refused.push(c.pick(&acting).clone());
    }
    if c.percent(25) && !acting.is_empty() {
        for _ in 0..c.between(1, 3) {
            s.stubborn.push(c.pick(&acting).clone());
        }
    }
    let commits = total * 4;
    for _ in 0..c.below(6) {
        match c.below(3) {
            0 => s.troubles.push((c.between(1, commits), *c.pick(&Trouble::CRASHES))),
            1 => s.call_crashes.push((c.between(1, total * 2), c.percent(50))),
            _ => s.timed_crashes.push(c.between(0, 120_000)),
        }
    }
    for _ in 0..c.below(3) {
        s.pauses.push(c.between(0, 90_000));
    }
    if c.percent(10) {
        s.stops.push(c.between(0, 90_000));
    }
    if c.percent(10) {
        s.behind = (0..4).map(|_| if c.percent(50) { 0 } else { c.between(1, 7_200_000) }).collect();
    }
    if c.percent(5) {
        s.keep.push(c.pick(names).clone());
    }
    for _ in 0..c.below(12) {
        s.deeds.push((c.between(0, 120_000), Deed::any(c)));
    }
    s.ending = match c.below(100) {
        0..=49 => Ending::Forward,
        50..=69 => Ending::RollbackAfter,
        70..=84 => Ending::RollbackAt(c.between(0, 90_000)),
        _ => Ending::CancelAt(
            c.between(0, 90_000),
            *c.pick(&[CancelMode::Rollback, CancelMode::Rollback, CancelMode::Keep, CancelMode::Terminate]),
        ),
    };
    s.after_crash = if c.percent(15) { AfterCrash::Rollback } else { AfterCrash::Resume };
    s.recovers = c.percent(50);
    s.drift = c.percent(5);
    s.slow_store = c.percent(40);
    s.whims = true;
}

/// A random small case without locks, which engines that share no memory do not share either.
pub fn unlocked(seed: u64) -> Scenario {
    let mut chance = Chance::new(seed ^ 0x1ea5_e0ff);
    let c = &mut chance;
    let (mut plan, mut names) = (Plan::default(), Vec::<String>::new());
    for n in 0..c.between(3, 8) {
        let name = format!("u{n}");
        let attempts = u32::try_from(c.between(3, 6)).expect("small");
        let after = names.iter().filter(|_| c.percent(30)).cloned().collect();
        let traits = Traits { after, attempts, ..Traits::default() };
        plan = match c.below(6) {
            0 => {
                let child = child(c);
                plan.map(&name, child, 3, 2, 0, &traits)
            }
            _ => leaf(plan, c, &name, &traits),
        };
        names.push(name);
    }
    let mut s = plan.done(format!("unlocked seed {seed}"), seed);
    (s.options.on_exhausted, s.options.on_failure) = (OnTrouble::Pause, OnTrouble::Pause);
    s.budget = c.below(12);
    s.ending = if c.percent(70) { Ending::Forward } else { Ending::RollbackAfter };
    s
}
