//! One case of a simulation: a graph, a world, and everything that will go wrong. Random ones come from a seed.

use std::collections::BTreeMap;
use std::time::Duration;

use dssflow_engine::event::CancelMode;
use dssflow_engine::graph::{LockMode, LockUse, OutputRef, Timeouts};
use dssflow_engine::id::{ActivityName, LockName, StepName};
use dssflow_engine::retry::RetryPolicy;
use dssflow_engine::run::{OnTrouble, RunOptions};
use dssflow_engine::{Binding, Graph, Step};
use serde_json::{Value, json};

use crate::chance::Chance;
use crate::cloud::{Origin, Service};
use crate::crash_store::{Sabotage, Trouble};
use crate::deeds::{EnsureInput, Held, MakeInput, Mistake, SetInput};
use crate::people::Deed;

mod kinds;

pub use kinds::{Child, eventful, unlocked};

/// What a step leaves in the cloud when it has succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaves {
    /// A thing.
    Thing(Service, String),
    /// A key with this value.
    Setting(String, String),
    /// A note.
    Note(String),
    /// Nothing.
    Nothing,
}

/// How the case is meant to end. It may end otherwise when something goes wrong for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With everything in place.
    Forward,
    /// Rolled back by the verb once it stands.
    RollbackAfter,
    /// Rolled back by the verb while it runs, so many milliseconds into its first life.
    RollbackAt(u64),
    /// Cancelled.
    CancelAt(u64, CancelMode),
}

/// Permits of semaphores named `permit-...`.
pub const PERMITS: u32 = 2;
/// Attempts in [`RATE_MS`] that rates named `rate-...` let through.
pub const RATE: u32 = 5;
/// The time that [`RATE`] is about.
pub const RATE_MS: u64 = 10_000;

/// A sub-workflow of a scenario.
#[derive(Debug, Clone)]
pub struct Sub {
    /// The step that runs it.
    pub step: String,
    /// Its name.
    pub workflow: String,
    /// What it does. Its steps have names of their own.
    pub graph: Graph,
    /// How its runs behave.
    pub options: RunOptions,
}

impl Sub {
    /// The names of its steps.
    pub fn steps(&self) -> impl Iterator<Item = String> {
        self.graph.steps().iter().map(|step| step.name.to_string())
    }
}

/// What a person types after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterCrash {
    /// `resume`.
    Resume,
    /// `rollback`.
    Rollback,
}

/// One case.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Scenario {
    /// Its name, for people.
    pub name: String,
    /// Seed of all chance in it.
    pub seed: u64,
    /// What is run.
    pub graph: Graph,
    /// What steps leave behind.
    pub leaves: BTreeMap<String, Leaves>,
    /// Steps that rollback leaves alone.
    pub protected: Vec<String>,
    /// Steps that the rollback verb is told to leave alone.
    pub keep: Vec<String>,
    /// How the run behaves.
    pub options: RunOptions,
    /// Things of others.
    pub plants: Vec<(Service, String, Origin)>,
    /// Names of strangers' things that are in the way.
    pub in_the_way: Vec<String>,
    /// Settings with their first values.
    pub settings: Vec<(String, String)>,
    /// Steps refused for good.
    pub refused: Vec<String>,
    /// Steps whose undo is refused for good.
    pub stubborn: Vec<String>,
    /// How many calls go wrong.
    pub budget: u64,
    /// Trouble at commits.
    pub troubles: Vec<(u64, Trouble)>,
    /// Crashes at mutating calls; true means after it took effect.
    pub call_crashes: Vec<(u64, bool)>,
    /// Crashes so many milliseconds into successive lives.
    pub timed_crashes: Vec<u64>,
    /// Pauses so many milliseconds into successive lives.
    pub pauses: Vec<u64>,
    /// The engine lets go so many milliseconds into successive lives, and the process lives on.
    pub stops: Vec<u64>,
    /// How far the clock of successive lives is behind, in milliseconds.
    pub behind: Vec<u64>,
    /// How it ends.
    pub ending: Ending,
    /// What follows a crash.
    pub after_crash: AfterCrash,
    /// A stranger changes settings before a rollback.
    pub drift: bool,
    /// Commits take time.
    pub slow_store: bool,
    /// Deliberate mistakes of the store.
    pub sabotage: Option<Sabotage>,
    /// A deliberate mistake of activities.
    pub mistake: Option<Mistake>,
    /// Workflows that are steps.
    pub subs: Vec<Sub>,
    /// Children of each map.
    pub maps: BTreeMap<String, Vec<String>>,
    /// Whether somebody decides at gates, sends signals, and does what is in `deeds`.
    pub people: bool,
    /// What an operator does, so many milliseconds into successive drives.
    pub deeds: Vec<(u64, Deed)>,
    /// After a crash the process recovers all runs by itself.
    pub recovers: bool,
    /// What people do by whim: with it they try again, give up, leave it. Without, they always go on to the end.
    pub whims: bool,
}

impl Scenario {
    /// What each step needs to be done first.
    pub fn needs(&self) -> BTreeMap<String, Vec<String>> {
        let name = |ix: u32| self.graph.step(ix).name.to_string();
        let total = u32::try_from(self.graph.len()).expect("a checked graph");
        let mut needs: BTreeMap<String, Vec<String>> = (0..total)
            .map(|ix| (name(ix), self.graph.dependencies(ix).iter().map(|&d| name(d)).collect()))
            .collect();
        // Children come after what their map needs, and before what needs the map; so do the steps of a sub-workflow.
        for (map, children) in &self.maps {
            let before = needs[map].clone();
            needs.extend(children.iter().map(|child| (child.clone(), before.clone())));
            needs.entry(map.clone()).or_default().extend(children.iter().cloned());
        }
        for sub in &self.subs {
            let before = needs[&sub.step].clone();
            for (ix, step) in (0..).zip(sub.graph.steps()) {
                let own = sub.graph.dependencies(ix).iter().map(|&d| sub.graph.step(d).name.to_string());
                needs.insert(step.name.to_string(), own.chain(before.iter().cloned()).collect());
            }
            needs.entry(sub.step.clone()).or_default().extend(sub.steps());
        }
        needs
    }

    /// Steps of sub-workflows: their runs may go on while steps of the run above are done again.
    pub fn below(&self) -> Vec<String> {
        self.subs.iter().flat_map(Sub::steps).collect()
    }
}

/// Builds graphs for scenarios.
#[derive(Debug, Default)]
pub struct Plan {
    steps: Vec<Step>,
    leaves: BTreeMap<String, Leaves>,
    protected: Vec<String>,
    plants: Vec<(Service, String, Origin)>,
    in_the_way: Vec<String>,
    settings: Vec<(String, String)>,
    subs: Vec<Sub>,
    maps: BTreeMap<String, Vec<String>>,
    people: bool,
    /// Steps watch their locks and do not declare them: a deliberate mistake.
    pub unlocked: bool,
    /// Attempts have no limit in time: a deliberate mistake.
    pub endless: bool,
}

fn step_name(name: &str) -> StepName {
    StepName::new(name).expect("a fixed name")
}

/// What may be set on a step of a [`Plan`].
#[derive(Debug, Clone, Default)]
pub struct Traits {
    /// Steps that come first.
    pub after: Vec<String>,
    /// A `compute` step whose output decides.
    pub when: Option<String>,
    /// Locks; `name[key]` has a key, `permit-...` is a semaphore, `rate-...` a rate.
    pub locks: Vec<Held>,
    /// Attempts; 0 means six.
    pub attempts: u32,
    /// Left alone by rollback.
    pub protect: bool,
    /// Takes what is there.
    pub adopt: bool,
}

impl Plan {
    fn add(&mut self, name: &str, activity: &str, input: Value, traits: &Traits, leaves: Leaves) {
        let input = Binding::from_template(input).expect("step names are fixed");
        let activity = ActivityName::new(activity).expect("a fixed name");
        self.push(Step::activity(step_name(name), activity, input), name, traits, leaves);
    }

    fn push(&mut self, mut step: Step, name: &str, traits: &Traits, leaves: Leaves) {
        step.after = traits.after.iter().map(|a| step_name(a)).collect();
        step.when =
            traits.when.as_ref().map(|w| Binding::Output { step: step_name(w), pointer: "/go".to_owned() });
        step.locks = traits
            .locks
            .iter()
            .filter(|(lock, _)| !self.unlocked && !lock.starts_with("rate-"))
            .map(|(lock, exclusive)| {
                let (name, key) = match lock.split_once('[') {
                    Some((name, key)) => (name, Some(Binding::literal(key.trim_end_matches(']')))),
                    None => (lock.as_str(), None),
                };
                LockUse {
                    name: LockName::new(name).expect("a fixed name"),
                    mode: match exclusive {
                        _ if name.starts_with("permit-") => LockMode::Permit,
                        true => LockMode::Exclusive,
                        false => LockMode::Shared,
                    },
                    key,
                }
            })
            .collect();
        let rates = traits.locks.iter().filter(|(lock, _)| lock.starts_with("rate-"));
        step.rates = rates.map(|(rate, _)| LockName::new(rate.as_str()).expect("a fixed name")).collect();
        step.retry = RetryPolicy::attempts(if traits.attempts == 0 { 6 } else { traits.attempts });
        if !self.endless {
            step.timeouts = Timeouts::per_attempt(Duration::from_mins(1));
        }
        step.protect = traits.protect;
        step.adopt = traits.adopt;
        if traits.protect {
            self.protected.push(name.to_owned());
        }
        self.steps.push(step);
        self.leaves.insert(name.to_owned(), leaves);
    }

    fn needs(traits: &Traits) -> Value {
        let refs =
            traits.after.iter().map(|a| OutputRef { step: step_name(a), pointer: String::new() }.to_value());
        Value::Array(refs.collect())
    }

    /// A step that creates a thing.
    #[must_use]
    pub fn make(
        mut self,
        name: &str,
        service: Service,
        slow_ms: u64,
        poll: bool,
        trusting: bool,
        traits: &Traits,
    ) -> Self {
        let thing = format!("thing-{name}");
        let input = MakeInput {
            service,
            name: thing.clone(),
            slow_ms,
            poll,
            trusting,
            locks: traits.locks.clone(),
            needs: Value::Null,
        };
        let mut input = json!(input);
        input["needs"] = Self::needs(traits);
        self.add(name, "make", input, traits, Leaves::Thing(service, thing));
        self
    }

    /// A step that sets a key; `same` when it holds the value already.
    #[must_use]
    pub fn set(mut self, name: &str, same: bool, traits: &Traits) -> Self {
        let (key, value) = (format!("key-{name}"), format!("new-{name}"));
        self.settings.push((key.clone(), if same { value.clone() } else { "old".to_owned() }));
        let input = SetInput {
            key: key.clone(),
            value: value.clone(),
            locks: traits.locks.clone(),
            needs: Value::Null,
        };
        let mut input = json!(input);
        input["needs"] = Self::needs(traits);
        self.add(name, "set", input, traits, Leaves::Setting(key, value));
        self
    }

    /// A step that is a plain function with an undo.
    #[must_use]
    pub fn ensure(mut self, name: &str, traits: &Traits) -> Self {
        let note = format!("note-{name}");
        let input = EnsureInput { name: note.clone(), locks: traits.locks.clone(), needs: Value::Null };
        let mut input = json!(input);
        input["needs"] = Self::needs(traits);
        self.add(name, "ensure", input, traits, Leaves::Note(note));
        self
    }

    /// A step that waits for what step `of` made.
    #[must_use]
    pub fn wait(mut self, name: &str, of: &str, traits: &Traits) -> Self {
        let id = OutputRef { step: step_name(of), pointer: "/id".to_owned() }.to_value();
        let input = json!({ "id": id, "needs": Self::needs(traits) });
        self.add(name, "wait", input, traits, Leaves::Nothing);
        self
    }

    /// A step that only decides.
    #[must_use]
    pub fn compute(mut self, name: &str, go: bool, traits: &Traits) -> Self {
        let input = json!({ "go": go, "needs": Self::needs(traits) });
        self.add(name, "compute", input, traits, Leaves::Nothing);
        self
    }

    /// Somebody else's thing under the name that step `name` uses.
    #[must_use]
    pub fn plant(mut self, name: &str, service: Service, origin: Origin, in_the_way: bool) -> Self {
        self.plants.push((service, format!("thing-{name}"), origin));
        if in_the_way {
            self.in_the_way.push(format!("thing-{name}"));
        }
        self
    }

    /// The scenario, in which nothing goes wrong yet.
    ///
    /// # Panics
    /// When the steps make no graph.
    pub fn done(self, name: impl Into<String>, seed: u64) -> Scenario {
        let graph = self.steps.into_iter().fold(Graph::builder(), dssflow_engine::GraphBuilder::step);
        Scenario {
            name: name.into(),
            seed,
            graph: graph.build().expect("a plan makes a graph"),
            leaves: self.leaves,
            protected: self.protected,
            keep: Vec::new(),
            options: RunOptions::default(),
            plants: self.plants,
            in_the_way: self.in_the_way,
            settings: self.settings,
            refused: Vec::new(),
            stubborn: Vec::new(),
            budget: 0,
            troubles: Vec::new(),
            call_crashes: Vec::new(),
            timed_crashes: Vec::new(),
            pauses: Vec::new(),
            stops: Vec::new(),
            behind: Vec::new(),
            ending: Ending::Forward,
            after_crash: AfterCrash::Resume,
            subs: self.subs,
            maps: self.maps,
            people: self.people,
            deeds: Vec::new(),
            recovers: false,
            drift: false,
            slow_store: false,
            sabotage: None,
            mistake: None,
            whims: false,
        }
    }
}

/// A random case.
pub fn random(seed: u64) -> Scenario {
    let mut c = Chance::new(seed);
    let total = if c.percent(70) { c.between(5, 20) } else { c.between(21, 60) };
    random_of(seed, &mut c, total, "s")
}

/// A random case with so many steps, whose names begin so.
pub fn random_of(seed: u64, c: &mut Chance, total: u64, prefix: &str) -> Scenario {
    let mut plan = Plan::default();
    let mut names: Vec<String> = Vec::new();
    let mut computes: Vec<String> = Vec::new();
    let mut makes: Vec<String> = Vec::new();
    let wide = c.percent(40);
    for n in 0..total {
        let name = format!("{prefix}{n:02}");
        let mut traits =
            Traits { attempts: u32::try_from(c.between(3, 8)).expect("small"), ..Traits::default() };
        let most = if wide { 2 } else { 4 };
        for _ in 0..c.below(most) {
            if !names.is_empty() {
                let near = names.len().saturating_sub(if wide { names.len() } else { 6 });
                let pick = near + c.index(names.len() - near);
                if !traits.after.contains(&names[pick]) {
                    traits.after.push(names[pick].clone());
                }
            }
        }
        if !computes.is_empty() && c.percent(15) {
            traits.when = Some(c.pick(&computes).clone());
        }
        if c.percent(20) {
            traits.locks.push((format!("lock-{}", c.below(3)), c.percent(60)));
        }
        traits.protect = c.percent(3);
        let roll = c.below(100);
        plan = match roll {
            0..=49 => {
                let service = *c.pick(&[Service::Named, Service::Named, Service::Tokened, Service::Tagged]);
                let slow = if c.percent(35) { c.between(1_000, 40_000) } else { 0 };
                let poll = slow > 0 && c.percent(50);
                let trusting = c.percent(40);
                let origin = match c.below(100) {
                    0..=3 => Some(Origin::EarlierRun),
                    4..=8 => Some(Origin::Stranger),
                    _ => None,
                };
                traits.adopt = origin == Some(Origin::Stranger) && c.percent(50);
                if let Some(origin) = origin {
                    let blocks = origin == Origin::Stranger && service == Service::Named && !traits.adopt;
                    plan = plan.plant(&name, service, origin, blocks);
                }
                makes.push(name.clone());
                plan.make(&name, service, slow, poll, trusting, &traits)
            }
            50..=64 => plan.set(&name, c.percent(10), &traits),
            65..=79 => plan.ensure(&name, &traits),
            80..=89 if !makes.is_empty() => {
                let of = c.pick(&makes).clone();
                plan.wait(&name, &of, &traits)
            }
            _ => {
                computes.push(name.clone());
                plan.compute(&name, c.percent(60), &traits)
            }
        };
        names.push(name);
    }
    let mut s = plan.done(format!("seed {seed}"), seed);
    let trouble = [OnTrouble::Pause, OnTrouble::Fail, OnTrouble::Rollback];
    s.options = RunOptions {
        parallelism: u32::try_from(c.between(1, 8)).expect("small"),
        on_exhausted: *c.pick(&trouble),
        on_failure: *c.pick(&trouble),
        ..RunOptions::default()
    };
    s.budget = if c.percent(10) { 0 } else { c.between(1, total.min(40)) };
    if c.percent(20) {
        s.refused.push(c.pick(&names).clone());
    }
    if c.percent(15) {
        for _ in 0..c.between(1, 3) {
            s.stubborn.push(c.pick(&names).clone());
        }
    }
    let commits = total * 2;
    for _ in 0..c.below(7) {
        match c.below(3) {
            0 => s.troubles.push((c.between(1, commits), *c.pick(&Trouble::CRASHES))),
            1 => s.call_crashes.push((c.between(1, total), c.percent(50))),
            _ => s.timed_crashes.push(c.between(0, 90_000)),
        }
    }
    if c.percent(10) {
        s.troubles.push((c.between(1, commits), *c.pick(&[Trouble::Refused, Trouble::Unknown])));
    }
    for _ in 0..c.below(3) {
        s.pauses.push(c.between(0, 60_000));
    }
    if c.percent(15) {
        s.stops.push(c.between(0, 60_000));
    }
    if c.percent(15) {
        s.behind = (0..4).map(|_| if c.percent(50) { 0 } else { c.between(1, 7_200_000) }).collect();
    }
    if c.percent(10) {
        s.keep.push(c.pick(&names).clone());
    }
    s.ending = match c.below(100) {
        0..=49 => Ending::Forward,
        50..=69 => Ending::RollbackAfter,
        70..=84 => Ending::RollbackAt(c.between(0, 60_000)),
        _ => Ending::CancelAt(
            c.between(0, 60_000),
            if c.percent(60) { CancelMode::Rollback } else { CancelMode::Keep },
        ),
    };
    s.after_crash = if c.percent(15) { AfterCrash::Rollback } else { AfterCrash::Resume };
    s.drift = c.percent(10);
    s.slow_store = c.percent(40);
    s.whims = true;
    s
}

/// A random small case in which only the cloud makes trouble: for enumerating its crash points.
pub fn random_small(seed: u64) -> Scenario {
    let mut c = Chance::new(seed);
    let total = c.between(3, 12);
    let mut s = random_of(seed, &mut c, total, "s");
    s.troubles.clear();
    s.call_crashes.clear();
    s.timed_crashes.clear();
    s.stops.clear();
    s.keep.clear();
    s.after_crash = AfterCrash::Resume;
    s.budget = c.below(5);
    s.whims = false;
    s
}
