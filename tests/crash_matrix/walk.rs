//! Walks through the bootstrap step by step. At each step the world is as the steps before left it; whoever goes along
//! may do with it what it wants, as long as it leaves the world as it found it, and then the step is done for good.

use std::collections::{BTreeMap, BTreeSet};

use dssflow_engine::graph::{Graph, Step};
use dssflow_engine::id::StepName;
use dssflow_engine::run::RunStatus;
use serde_json::Value;

use crate::learn::{Learned, RUN, alone, learn, references, stood};
use crate::life::{Cut, Disk, Does};
use crate::plants;
use crate::report::Report;
use crate::settings::{self, Mode};
use crate::world::{Tamper, World};

/// A step on the way.
pub(crate) struct At<'a> {
    pub(crate) world: &'a World,
    pub(crate) step: &'a Step,
    /// The step alone, with what it takes of others given.
    pub(crate) graph: &'a Graph,
    /// The world at this moment.
    pub(crate) now: &'a Value,
    /// Steps of the whole graph.
    pub(crate) steps: usize,
    /// Steps that both modes have are put through their cells in one of them, by turns.
    pub(crate) mine: bool,
}

impl At<'_> {
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.world.mode, self.step.name)
    }

    /// What the step does undisturbed, with the host put aside as it is now; nothing when no cell of it is wanted here.
    ///
    /// # Errors
    /// When it does not work undisturbed.
    pub(crate) async fn learned(&self) -> Result<Option<Learned>, String> {
        if !self.mine || !settings::wants_of(&self.name()) {
            return Ok(None);
        }
        self.world.save_host();
        let learned = Box::pin(learn(self.world, self.step, self.graph, self.now.clone())).await;
        let learned = learned.map_err(|why| format!("undisturbed: {}", why.join("\n  ")))?;
        self.world.tidy(self.now).await;
        Ok(Some(learned))
    }
}

/// Who goes along.
pub(crate) trait Visit {
    /// The step has not been done.
    ///
    /// # Errors
    /// When it is no use to go on.
    async fn before(&mut self, at: &At<'_>) -> Result<(), String>;

    /// The step has been done for good.
    async fn after(&mut self, at: &At<'_>);
}

/// Steps of a graph, each after those it takes something of or waits for.
fn in_order(world: &World) -> Vec<Step> {
    let mut left: Vec<Step> = world.graph.steps().to_vec();
    let mut done: BTreeSet<StepName> = BTreeSet::new();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let ready = left.iter().position(|step| {
            step.after.iter().all(|name| done.contains(name)) && references(step).is_subset(&done)
        });
        let step = left.remove(ready.expect("a graph has no circles"));
        done.insert(step.name.clone());
        ordered.push(step);
    }
    ordered
}

/// Does a step for good and gives its output.
async fn settle(world: &World, step: &Step, graph: &Graph) -> Result<Value, String> {
    let disk = Disk::new(world, &step.name, RUN, 0);
    stood(
        disk.live(world, Does::Start(graph.clone()), Cut::Never, &Tamper::default()).await,
        RunStatus::Succeeded,
    )?;
    let view = disk.view().await.expect("it is written");
    let done = view.steps.into_iter().find(|it| it.step == step.name).and_then(|it| it.output);
    done.ok_or_else(|| "it gave no output".to_owned())
}

/// A step with all that must be done before it.
fn needed_for(steps: &[Step], name: &str) -> BTreeSet<StepName> {
    let mut wanted: BTreeSet<StepName> = BTreeSet::new();
    for step in steps.iter().rev() {
        if step.name.as_str() == name || wanted.contains(&step.name) {
            wanted.insert(step.name.clone());
            wanted.extend(step.after.iter().cloned());
            wanted.extend(references(step));
        }
    }
    wanted
}

/// Which steps of a mode a walk puts through its cells, where several walks share them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) shard: usize,
    pub(crate) shards: usize,
}

impl Share {
    /// All of them.
    pub(crate) const WHOLE: Self = Self { shard: 0, shards: 1 };
}

/// Walks through the steps of one mode: all of them, or one and what it needs.
///
/// # Errors
/// The step at which it could not go on, and why.
#[expect(clippy::print_stdout, reason = "who wants to see how it gets on asks for it")]
pub(crate) async fn walk(
    world: &World,
    visit: &mut impl Visit,
    only: Option<&str>,
    share: Share,
) -> Result<(), String> {
    plants::plant_in_aws(world).await;
    let verbose = std::env::var("DSSFLOW_SHOW").is_ok();
    let (shared, mut steps) = (shared_steps(world), in_order(world));
    if let Some(only) = only {
        let wanted = needed_for(&steps, only);
        assert!(!wanted.is_empty(), "no step is named {only}");
        steps.retain(|step| wanted.contains(&step.name));
    }
    let mut outputs: BTreeMap<StepName, Value> = BTreeMap::new();
    let mut now = world.snapshot().await;
    for (ix, step) in steps.iter().enumerate() {
        let begun = std::time::Instant::now();
        let graph = alone(step, &outputs);
        let of_the_mode = only.is_some()
            || !shared.contains(&step.name)
            || ix.is_multiple_of(2) == (world.mode == Mode::Plugin);
        // Of two steps that follow each other in a mode the other one is often the other mode's.
        let mine = of_the_mode && (only.is_some() || (ix / 2) % share.shards == share.shard);
        let at = At { world, step, graph: &graph, now: &now, steps: steps.len(), mine };
        let failed = |why: String| format!("{}/{}: {why}", world.mode, step.name);
        Box::pin(visit.before(&at)).await.map_err(failed)?;
        let output =
            Box::pin(settle(world, step, &graph)).await.map_err(|why| failed(format!("for good: {why}")))?;
        outputs.insert(step.name.clone(), output);
        if step.name.as_str() == "dss-ready" {
            plants::plant_in_dss(world).await;
        }
        now = world.snapshot().await;
        let at = At { world, step, graph: &graph, now: &now, steps: steps.len(), mine };
        Box::pin(visit.after(&at)).await;
        if verbose {
            println!("{}/{}: {} ms", world.mode, step.name, begun.elapsed().as_millis());
        }
    }
    Ok(())
}

/// Steps that the graphs of both modes have.
fn shared_steps(world: &World) -> BTreeSet<StepName> {
    let file = match world.mode {
        Mode::Plugin => &world.sandbox.site_yaml_sdk,
        Mode::Sdk => &world.sandbox.site_yaml,
    };
    let text = std::fs::read_to_string(file).expect("the shipped site");
    let site = dssflow_workflows::parse(&text, "site.yaml").expect("the shipped site is right");
    let other = dssflow_workflows::bootstrap(&site).expect("the shipped site has a graph");
    let names: BTreeSet<StepName> = other.graph.steps().iter().map(|step| step.name.clone()).collect();
    world.graph.steps().iter().map(|step| step.name.clone()).filter(|name| names.contains(name)).collect()
}

/// Walks in one or more worlds of each mode at once, and adds up what is reported.
pub(crate) fn in_both<V>(what: &'static str, visitor: fn(Mode) -> V, report: fn(V) -> Report) -> Report
where
    V: Visit + 'static,
{
    let mut whole = Report::new(what);
    let shards = settings::shards();
    let modes = Mode::ALL.into_iter().filter(|mode| settings::wants_of(&mode.to_string()));
    let walks: Vec<_> = modes
        .flat_map(|mode| (0..shards).map(move |shard| (mode, shard)))
        .map(|(mode, shard)| {
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let world = World::up(mode).await;
                    let mut visit = visitor(mode);
                    let only = settings::only();
                    let only = only.as_ref().and_then(|id| id.split('/').nth(1));
                    let share = Share { shard, shards };
                    let end = Box::pin(walk(&world, &mut visit, only, share)).await;
                    let mut found = report(visit);
                    found.violations.extend(end.err());
                    found
                })
            })
        })
        .collect();
    for walk in walks {
        match walk.join() {
            Ok(report) => whole.add(report),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    whole
}
