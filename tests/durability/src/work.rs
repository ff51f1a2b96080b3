//! What `storm` writes: records, graphs and outputs whose content follows from their names, so that whoever finds
//! them can tell whether they are what was written.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use dssflow_engine::graph::GraphError;
use dssflow_engine::id::{ActivityName, RunId, StepName, StoreId};
use dssflow_engine::retry::RetryPolicy;
use dssflow_engine::run::RunStatus;
use dssflow_engine::store::conformance::transition;
use dssflow_engine::store::{Expect, GraphHash, Store as _, Transition};
use dssflow_engine::time::Timestamp;
use dssflow_engine::{Binding, Graph, Step};
use dssflow_store::{OpenOptions, Restore};
use serde::{Deserialize, Serialize};

use crate::dice::Dice;

/// Events of a run in store mode; the last one ends it.
pub const RUN_EVENTS: u64 = 48;
/// The activity that all steps call.
pub const ACTIVITY: &str = "work";
/// How many different graphs the runs of one seed have.
pub const SHAPES: u64 = 8;

/// Over 4 KiB, so that a record is cut into several values.
const CHUNKED: usize = 5_000;
/// Over 64 KiB, so that a record goes to a payload file.
const LARGE: usize = 70_000;

/// `size` bytes that follow from a name.
pub fn text(name: &str, size: usize) -> String {
    name.chars().chain([';']).cycle().take(size).collect()
}

/// The record of one event in store mode.
pub fn record(run: &str, seq: u64) -> Vec<u8> {
    let size = match seq % 16 {
        3 | 11 => CHUNKED,
        7 => LARGE,
        5 => 900,
        _ => 300,
    };
    text(&format!("{run}:{seq}"), size).into_bytes()
}

/// The transition that appends event `seq` to a run in store mode.
pub fn next(run: &str, seq: u64, epoch: u64) -> Transition {
    let expect = if seq == 1 { Expect::New } else { Expect::At { seq: seq - 1 } };
    let mut next = transition(run, expect, epoch);
    next.record = record(run, seq);
    next.due = seq.is_multiple_of(2).then(|| Timestamp::from_millis(seq));
    if seq == 1 {
        next.graph = Some(graph_bytes(run));
    }
    if seq == RUN_EVENTS {
        next.summary.status = RunStatus::Succeeded;
    }
    next
}

/// The graph of a run in store mode: one for every eight names, some of them large.
fn graph_bytes(run: &str) -> (GraphHash, Vec<u8>) {
    let number = run.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 8;
    let size = if number == 3 { LARGE } else { 2_000 };
    (GraphHash(format!("{number:064x}")), text(&format!("graph-{number}"), size).into_bytes())
}

/// The run that a store which is put back has, in store mode.
pub const RESTORED_RUN: &str = "w-restored";
/// How many events it has: one of each size.
pub const RESTORED_EVENTS: u64 = 20;

/// The id of a store that is put back.
pub fn restored_id() -> StoreId {
    StoreId::generate([0x5e; 16])
}

/// Begins to put another store in the place of what is at `path`, and fills that; [`Restore::finish`] is left to do.
///
/// # Errors
/// When it cannot be made.
pub async fn restore(path: &Path) -> Result<Restore, Box<dyn Error + Send + Sync>> {
    let (restore, store) = Restore::begin(path, restored_id(), OpenOptions::default())?;
    for seq in 1..=RESTORED_EVENTS {
        store.commit(next(RESTORED_RUN, seq, store.epoch())).await?;
    }
    store.close().await?;
    Ok(restore)
}

/// What a step is given in engine mode.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// How long its output's text is.
    pub size: usize,
    /// So many attempts fail before one succeeds.
    pub fails: u32,
    /// From the steps before it.
    pub from: Vec<u64>,
}

/// What a step gives in engine mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// One more than the largest that it was given.
    pub depth: u64,
    /// See [`text`].
    pub text: String,
}

impl Made {
    /// What a step of a run gives for a task.
    pub fn of(run: &RunId, step: &StepName, task: &Task) -> Self {
        let depth = task.from.iter().max().unwrap_or(&0) + 1;
        Self { depth, text: text(&format!("{run}:{step}"), task.size) }
    }

    /// Whether its text is what that step of that run gives.
    pub fn is_of(&self, run: &RunId, step: &StepName) -> bool {
        self.text == text(&format!("{run}:{step}"), self.text.len())
    }
}

/// A graph of `steps` steps: chains, and now and then a small fan-out that is joined again.
///
/// # Errors
/// When there is no step.
pub fn graph(steps: usize, seed: u64, shape: u64) -> Result<Graph, GraphError> {
    let mut chance = Dice::new(seed.wrapping_mul(SHAPES).wrapping_add(shape % SHAPES));
    let activity = ActivityName::new(ACTIVITY).expect("a valid name");
    let mut graph = Graph::builder();
    let mut before: Vec<StepName> = Vec::new();
    let mut number = 0;
    while number < steps {
        let wide = if chance.percent(20) { 3 } else { 1 };
        let layer: Vec<StepName> = (number..steps.min(number + wide))
            .map(|number| StepName::new(format!("s{number}")).expect("a valid name"))
            .collect();
        number += layer.len();
        for name in &layer {
            graph.push(step(name.clone(), activity.clone(), &before, &mut chance));
        }
        before = layer;
    }
    graph.build()
}

fn step(name: StepName, activity: ActivityName, before: &[StepName], chance: &mut Dice) -> Step {
    let size = match chance.below(40) {
        0 => LARGE,
        1..=4 => CHUNKED,
        _ => 20 + chance.index(200),
    };
    let fails = u32::from(chance.percent(8));
    let from = before.iter().map(|step| Binding::output(step, "/depth")).collect();
    let fields = [
        ("size".to_owned(), Binding::literal(size)),
        ("fails".to_owned(), Binding::literal(fails)),
        ("from".to_owned(), Binding::List { items: from }),
    ];
    let mut step = Step::activity(name, activity, Binding::Object { fields: fields.into() });
    // Lost attempts count too, and a harness may cut the program off often.
    step.retry = RetryPolicy::attempts(1_000).first_after(Duration::from_millis(1)).without_jitter();
    step.retry.maximum_interval_ms = 2;
    step
}
