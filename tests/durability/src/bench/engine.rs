//! The engine's workloads on the sled store, with steps that do nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dssflow_engine::event::{Event, EventKind};
use dssflow_engine::prelude::*;
use dssflow_store::OpenEngine as _;
use futures::future::try_join_all;
use serde_json::json;
use tokio::sync::broadcast;

use crate::bench::report::{Bar, Report, cpu, median, ms, percentile};
use crate::bench::{Anything, Options, scratch};

/// W1: steps of the one run.
pub(crate) const CHAIN: usize = 100;
/// W2: runs at once, and their steps.
pub(crate) const RUNS: usize = 1000;
pub(crate) const STEPS: usize = 10;
/// W3: parallel steps.
const WIDE: u32 = 1000;
/// W7: layers, and steps in each.
const LAYERS: usize = 100;
const WIDTH: usize = 100;

/// What one run is compared with: one that writes at a time, alone.
pub(crate) const ONE_WRITER: &[&str] = &["raw_1_p50", "store_1_p50"];

/// A step that does nothing but count.
pub(crate) async fn count(_ctx: ActivityCtx, n: u32) -> ActivityResult<u32> {
    Ok(n + 1)
}

/// Steps one after the other.
pub(crate) fn chain(name: &str, steps: usize) -> Result<Workflow<u32, u32>, WorkflowError> {
    Workflow::build(name, |w| {
        let mut last = w.step("s0", count, w.input());
        for i in 1..steps {
            last = w.step(format!("s{i}"), count, &last);
        }
        last
    })
}

/// Steps that need nothing of each other, and one that waits for all.
fn wide(steps: usize) -> Result<Workflow<u32, u32>, WorkflowError> {
    Workflow::build("wide", |w| {
        let all: Vec<_> = (0..steps - 1).map(|i| w.step(format!("s{i}"), count, w.input())).collect();
        all.iter().fold(w.step("last", count, w.input()), Step::after)
    })
}

/// Layers of steps, each after three of the layer above.
fn layers() -> Result<Workflow<u32, u32>, WorkflowError> {
    Workflow::build("layers", |w| {
        let mut above: Vec<Step<u32>> = Vec::new();
        for layer in 0..LAYERS {
            let mut here = Vec::with_capacity(WIDTH);
            for i in 0..WIDTH {
                let name = format!("s{layer}x{i}");
                let step = if layer == 0 {
                    w.step(name, count, w.input())
                } else {
                    w.step(name, count, &above[i])
                        .after(&above[(i + 1) % WIDTH])
                        .after(&above[(i + 2) % WIDTH])
                };
                here.push(step.any());
            }
            above = here;
        }
        above.swap_remove(0)
    })
}

pub(crate) async fn open(dir: &Path, workflows: &[&Workflow<u32, u32>]) -> Anything<Engine> {
    let mut engine = Engine::open(dir.join("store")).await?;
    for workflow in workflows {
        engine = engine.register(workflow)?;
    }
    Ok(engine.build())
}

/// When each step of a run was known to be durable, from the start of the run on.
async fn times(mut events: broadcast::Receiver<(RunId, Arc<Vec<Event>>)>, begin: Instant) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut last = begin;
    loop {
        let (_, events) = events.recv().await.expect("the engine outlives the run");
        for event in events.iter() {
            match event.kind {
                EventKind::AttemptSucceeded { .. } => {
                    times.push(last.elapsed());
                    last = Instant::now();
                }
                EventKind::RunFinished { .. } => return times,
                _ => {}
            }
        }
    }
}

/// One run of [`CHAIN`] steps: how long each took, and the processor's time for all.
pub(crate) async fn one_chain(
    engine: &Engine,
    workflow: &Workflow<u32, u32>,
) -> Anything<(Vec<Duration>, Duration)> {
    let events = engine.subscribe();
    let (begin, cpu_before) = (Instant::now(), cpu());
    let watch = tokio::spawn(times(events, begin));
    let answer = engine.run(workflow, 0).await?;
    let spent = cpu().saturating_sub(cpu_before);
    if answer as usize != CHAIN {
        return Err(format!("the run counted to {answer}").into());
    }
    Ok((watch.await?, spent))
}

/// One run of sequential steps.
pub(crate) async fn w1(options: &Options, report: &mut Report) -> Anything<()> {
    let workflow = chain("chain", CHAIN)?;
    let place = scratch(&options.dir)?;
    let engine = open(place.path(), &[&workflow]).await?;
    one_chain(&engine, &workflow).await?;
    let (mut took, mut spent) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds * 4 {
        let (more, cpu) = one_chain(&engine, &workflow).await?;
        took.extend(more);
        spent.push(ms(cpu) / CHAIN as f64);
    }
    let p99 = percentile(&mut took, 99);
    let p50 = percentile(&mut took, 50);
    report.figure("w1_p50", p50, "ms/step", json!({ "p99": p99, "steps": took.len() }));
    report.figure("w1_cpu", median(spent), "ms/step", json!({}));
    report.ratio("w1_p50 / raw_1_p50", "w1_p50", "raw_1_p50", Bar::AtMost(4.0));
    report.beside("w1_p50", p50, &["store_1_p50"]);
    Ok(())
}

/// Many short runs at once.
pub(crate) async fn w2(options: &Options, report: &mut Report) -> Anything<()> {
    let workflow = chain("short", STEPS)?;
    let (mut rates, mut spent) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let place = scratch(&options.dir)?;
        let engine = open(place.path(), &[&workflow]).await?;
        let (begin, before) = (Instant::now(), cpu());
        many(&engine, &workflow, RUNS).await?;
        rates.push((RUNS * STEPS) as f64 / begin.elapsed().as_secs_f64());
        spent.push(ms(cpu().saturating_sub(before)) / (RUNS * STEPS) as f64);
    }
    let rate = median(rates);
    report.figure("w2", rate, "steps/s", json!({ "cpu_ms_a_step": median(spent) }));
    report.beside("w2", rate, &["raw_256"]);
    report.ratio("w2 / store_256", "w2", "store_256", Bar::AtLeast(0.35));
    Ok(())
}

/// Starts so many runs and waits for all.
pub(crate) async fn many(engine: &Engine, workflow: &Workflow<u32, u32>, runs: usize) -> Anything<()> {
    let answers = try_join_all((0..runs).map(|_| engine.run(workflow, 0))).await?;
    if let Some(answer) = answers.iter().find(|answer| **answer as usize != STEPS) {
        return Err(format!("a run counted to {answer}").into());
    }
    Ok(())
}

/// One run of parallel steps.
pub(crate) async fn w3(options: &Options, report: &mut Report) -> Anything<()> {
    let workflow = wide(WIDE as usize)?;
    let place = scratch(&options.dir)?;
    let engine = open(place.path(), &[&workflow]).await?;
    let mut walls = Vec::new();
    for _ in 0..=options.rounds {
        let begin = Instant::now();
        // As wide as the graph; the default is 16 at once, which suits calls to a cloud.
        let all = |start: &mut StartRun| start.options.parallelism = WIDE;
        engine.submit_with(&workflow, 0, all).await?.result().await?;
        walls.push(ms(begin.elapsed()));
    }
    walls.remove(0);
    let wall = median(walls);
    report.figure("w3", wall, "ms", json!({ "steps": WIDE }));
    report.bar("w3", wall, Bar::AtMost(50.0));
    report.beside("w3 a step", wall / f64::from(WIDE), ONE_WRITER);
    Ok(())
}

/// One large run.
pub(crate) async fn w7(options: &Options, report: &mut Report) -> Anything<()> {
    let workflow = layers()?;
    let place = scratch(&options.dir)?;
    let engine = Arc::new(open(place.path(), &[&workflow]).await?);
    let (mut walls, mut spent) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds.min(3) {
        let (begin, before) = (Instant::now(), cpu());
        let answer = engine.run(&workflow, 0).await?;
        if answer as usize != LAYERS {
            return Err(format!("the run counted to {answer}").into());
        }
        spent.push(ms(cpu().saturating_sub(before)) / (LAYERS * WIDTH) as f64);
        walls.push(ms(begin.elapsed()));
    }
    let wall = median(walls);
    report.figure("w7_cpu", median(spent), "ms/step", json!({ "wall_ms": wall }));
    report.ratio("w7_cpu / w1_cpu", "w7_cpu", "w1_cpu", Bar::AtMost(1.5));
    report.beside("w7 a step", wall / (LAYERS * WIDTH) as f64, ONE_WRITER);
    Ok(())
}
