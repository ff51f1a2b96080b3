//! W4: a process killed in the middle of many runs, and the next one, which goes on.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dssflow_engine::event::EventKind;
use dssflow_engine::prelude::*;
use dssflow_engine::runtime::Measure;
use dssflow_store::OpenEngine as _;
use futures::future::try_join_all;
use serde_json::json;
use tokio::sync::Notify;

use crate::bench::engine::{RUNS, STEPS};
use crate::bench::report::{Bar, Report, median, ms};
use crate::bench::{Anything, Options, scratch};

/// Where steps note that they were called; outside of the store.
struct Calls(std::fs::File);

/// A step that leaves a trace.
async fn trace(ctx: ActivityCtx, n: u32) -> ActivityResult<u32> {
    let line = format!("{} {}\n", ctx.run(), ctx.step());
    let mut calls = &ctx.resource::<Calls>()?.0;
    calls.write_all(line.as_bytes()).map_err(|e| ActivityError::retryable("File", e.to_string()))?;
    Ok(n + 1)
}

/// What is durable, as it becomes so. A stream of events may leave some out; this sees each commit.
struct Teller {
    ended: AtomicUsize,
    changed: Notify,
}

impl Teller {
    fn take(&self, measure: &Measure<'_>) {
        let Measure::Committed { run, events, .. } = measure else { return };
        for event in *events {
            match &event.kind {
                EventKind::AttemptSucceeded { step, .. } => say(&format!("done {run} {step}")),
                EventKind::RunFinished { .. } => {
                    self.ended.fetch_add(1, Ordering::Relaxed);
                    self.changed.notify_one();
                }
                _ => {}
            }
        }
    }

    /// Returns when so many runs have ended.
    async fn wait_for(&self, runs: usize) {
        while self.ended.load(Ordering::Relaxed) < runs {
            self.changed.notified().await;
        }
        say("all");
    }
}

async fn open(dir: &Path) -> Anything<(Engine, Workflow<u32, u32>, Arc<Teller>)> {
    let workflow = Workflow::<u32, u32>::build("traced", |w| {
        let mut last = w.step("s0", trace, w.input());
        for i in 1..STEPS {
            last = w.step(format!("s{i}"), trace, &last);
        }
        last
    })?;
    let calls = OpenOptions::new().create(true).append(true).open(dir.join("calls"))?;
    let teller = Arc::new(Teller { ended: AtomicUsize::new(0), changed: Notify::new() });
    let told = Arc::clone(&teller);
    let engine = Engine::open(dir.join("store"))
        .await?
        .register(&workflow)?
        .resource(Calls(calls))
        .metrics(move |measure: &Measure<'_>| told.take(measure))
        .build();
    Ok((engine, workflow, teller))
}

/// Tells the parent, a whole line at once.
fn say(line: &str) {
    // A parent that has gone kills this process.
    let _gone = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// Runs everything; its parent kills it on the way.
pub(crate) async fn first_life(dir: &Path) -> Anything<()> {
    let (engine, workflow, teller) = open(dir).await?;
    let all = (0..RUNS).map(async |i| {
        let id = RunId::new(format!("run-{i}"))?;
        Anything::Ok(engine.submit_with(&workflow, 0, |start| start.id = Some(id)).await?)
    });
    let _all_go_on = try_join_all(all).await?;
    teller.wait_for(RUNS).await;
    Ok(())
}

/// Goes on with what the first life left.
pub(crate) async fn second_life(dir: &Path) -> Anything<()> {
    let (engine, _, teller) = open(dir).await?;
    let unfinished = engine.list(dssflow_engine::store::ListQuery {
        statuses: vec![RunStatus::Running, RunStatus::Waiting, RunStatus::Pending],
        limit: 1000,
        ..Default::default()
    });
    let left = unfinished.await?.runs.len();
    say(&format!("left {left}"));
    let recovered = engine.recover().await?;
    if !recovered.parked.is_empty() || !recovered.looping.is_empty() {
        return Err(format!("not all runs go on: {:?}", recovered.parked).into());
    }
    teller.wait_for(left).await;
    Ok(())
}

fn spawn(role: &str, dir: &Path) -> Anything<Child> {
    Ok(Command::new(std::env::current_exe()?)
        .arg(format!("child-{role}"))
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()?)
}

type Done = BTreeSet<(String, String)>;

fn done(line: &str) -> Option<(String, String)> {
    let (run, step) = line.strip_prefix("done ")?.split_once(' ')?;
    Some((run.to_owned(), step.to_owned()))
}

/// Kills the owner of 1,000 runs in the middle and measures the next one.
pub(crate) fn w4(options: &Options, report: &mut Report) -> Anything<()> {
    let (mut firsts, mut alls, mut lefts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let place = scratch(&options.dir)?;
        let mut owner = spawn("w2", place.path())?;
        let mut lines = BufReader::new(owner.stdout.take().ok_or("a child has an output")?).lines();
        let mut acknowledged = Done::new();
        while acknowledged.len() < RUNS * STEPS / 2 {
            let line = lines.next().ok_or("the first owner ended by itself")??;
            acknowledged.extend(done(&line));
        }
        owner.kill()?;
        owner.wait()?;
        acknowledged.extend(lines.map_while(Result::ok).filter_map(|line| done(&line)));
        let called_before = calls(place.path())?;

        let begin = Instant::now();
        let mut next = spawn("resume", place.path())?;
        let lines = BufReader::new(next.stdout.take().ok_or("a child has an output")?).lines();
        let (mut first, mut all, mut left) = (None, None, 0);
        let mut resumed = Done::new();
        for line in lines {
            let line = line?;
            if let Some(step) = done(&line) {
                first.get_or_insert_with(|| ms(begin.elapsed()));
                resumed.insert(step);
            } else if line == "all" {
                all = Some(ms(begin.elapsed()));
            } else if let Some(count) = line.strip_prefix("left ") {
                left = count.parse()?;
            }
        }
        if !next.wait()?.success() {
            return Err("the second owner failed".into());
        }
        check(place.path(), &acknowledged, &resumed, &called_before)?;
        firsts.push(first.ok_or("nothing was resumed")?);
        alls.push(all.ok_or("the second owner did not end its runs")?);
        lefts.push(f64::from(left));
    }
    let (first, all) = (median(firsts), median(alls));
    report.figure("w4_first", first, "ms", json!({ "unfinished": median(lefts) }));
    report.bar("w4_first", first, Bar::AtMost(200.0));
    report.figure("w4_all", all, "ms", json!({}));
    report.bar("w4_all", all, Bar::AtMost(1000.0));
    Ok(())
}

/// How often each step was called.
fn calls(dir: &Path) -> Anything<BTreeMap<(String, String), u32>> {
    let mut calls = BTreeMap::new();
    for line in std::fs::read_to_string(dir.join("calls"))?.lines() {
        let (run, step) = line.split_once(' ').ok_or("a torn line of calls")?;
        *calls.entry((run.to_owned(), step.to_owned())).or_insert(0) += 1;
    }
    Ok(calls)
}

/// Nothing lost, and only what was in flight ran twice.
fn check(
    dir: &Path,
    acknowledged: &Done,
    resumed: &Done,
    before: &BTreeMap<(String, String), u32>,
) -> Anything<()> {
    let after = calls(dir)?;
    if after.len() != RUNS * STEPS {
        return Err(format!("{} steps ran, there are {}", after.len(), RUNS * STEPS).into());
    }
    if let Some(step) = acknowledged.intersection(resumed).next() {
        return Err(format!("{step:?} was acknowledged twice").into());
    }
    for (step, times) in &after {
        let once = before.contains_key(step) && acknowledged.contains(step);
        if *times > 2 || once && *times > 1 {
            return Err(format!("{step:?} ran {times} times").into());
        }
    }
    Ok(())
}
