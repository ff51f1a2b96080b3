//! R9: every step and every undo done twice, three times and by two attempts at once, on a fresh world; and over what
//! is there already, ours or somebody else's. The world is that of a single run.

use std::sync::Arc;
use std::time::Duration;

use dssflow_engine::activity::{
    ActivityContext, ActivityError, ActivityResult, Effect, ErasedActivity, ErrorClass, Probe, Recorded,
    Shapes, Undo,
};
use dssflow_engine::run::RunStatus;
use dssflow_engine::time::BoxFuture;
use serde_json::Value;

use crate::learn::{Learned, RUN, learn, stood};
use crate::life::{Cut, Disk, Does};
use crate::oracle;
use crate::report::Report;
use crate::settings;
use crate::walk::{At, Visit, in_both};
use crate::world::{GIVEN, Wrap};

/// How an activity is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// So many times in a row, as by attempts whose answers were lost.
    InARow(u32),
    /// By two at once, as by an attempt that was given up and is still under way.
    Racing,
}

/// An activity that acts more than once for every time it is asked.
pub(crate) struct Repeated {
    pub(crate) inner: Arc<dyn ErasedActivity>,
    pub(crate) how: How,
}

/// Repeats every activity of the bootstrap.
pub(crate) fn repeating(how: How) -> Wrap {
    Arc::new(
        move |name, inner| if name.as_str() == GIVEN { inner } else { Arc::new(Repeated { inner, how }) },
    )
}

impl Repeated {
    /// What the next attempt does: it looks first, where the activity can be looked at.
    async fn again(&self, ctx: &ActivityContext, input: &Value) -> ActivityResult<Value> {
        if !self.inner.has_probe() {
            return self.inner.execute(ctx, input).await;
        }
        match self.inner.probe(ctx, input).await? {
            Probe::Absent => self.inner.execute(ctx, input).await,
            Probe::Present { output, .. } => Ok(output),
            Probe::InProgress { detail } | Probe::Failed { detail, .. } => {
                Err(ActivityError::retryable("AsFound", detail))
            }
        }
    }
}

/// Of two attempts at one thing: what the one that got through says, else what is worth another try.
fn either<T>(left: ActivityResult<T>, right: ActivityResult<T>) -> ActivityResult<T> {
    match (left, right) {
        (Ok(value), _) | (_, Ok(value)) => Ok(value),
        (Err(left), Err(right)) => {
            let hopeless = left.class == ErrorClass::Terminal;
            Err(if hopeless { right } else { left })
        }
    }
}

impl ErasedActivity for Repeated {
    fn effect(&self) -> Effect {
        self.inner.effect()
    }

    fn has_probe(&self) -> bool {
        self.inner.has_probe()
    }

    fn execute<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Value>> {
        Box::pin(async move {
            match self.how {
                How::InARow(times) => {
                    let mut answer = self.inner.execute(ctx, input).await?;
                    for _ in 1..times {
                        // What is still being made is no answer; the first one stands.
                        match self.again(ctx, input).await {
                            Err(error) if error.code == "AsFound" => {}
                            other => answer = other?,
                        }
                    }
                    Ok(answer)
                }
                How::Racing => {
                    let (left, right) =
                        futures::join!(self.inner.execute(ctx, input), self.again(ctx, input));
                    either(left, right)
                }
            }
        })
    }

    fn probe<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Probe<Value>>> {
        self.inner.probe(ctx, input)
    }

    fn verify<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
        output: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<()>> {
        self.inner.verify(ctx, input, output)
    }

    fn compensate<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
        recorded: &'a Recorded,
    ) -> BoxFuture<'a, ActivityResult<Undo>> {
        Box::pin(async move {
            match self.how {
                How::InARow(times) => {
                    let first = self.inner.compensate(ctx, input, recorded).await?;
                    for _ in 1..times {
                        self.inner.compensate(ctx, input, recorded).await?;
                    }
                    Ok(first)
                }
                How::Racing => {
                    let (left, right) = futures::join!(
                        self.inner.compensate(ctx, input, recorded),
                        self.inner.compensate(ctx, input, recorded)
                    );
                    // The one that came too late may be told so, and is then repeated.
                    left.and_then(|undo| right.map(|_| undo))
                }
            }
        })
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

struct Repeats {
    report: Report,
}

/// A name for the report.
fn word(how: How) -> String {
    match how {
        How::InARow(times) => format!("x{times}"),
        How::Racing => "racing".to_owned(),
    }
}

impl Repeats {
    /// There and back with everything repeated.
    async fn fresh(&mut self, at: &At<'_>, learned: &Learned, how: How) {
        let wrap = repeating(how);
        let disk = Disk::new(at.world, &at.step.name, RUN, 0);
        let mut found = Vec::new();
        let forward = disk.live(at.world, Does::Start(at.graph.clone()), Cut::Never, Some(&wrap)).await;
        found.extend(stood(forward, RunStatus::Succeeded).err());
        found.extend(oracle::unlike(&learned.after, &at.world.snapshot().await));
        let back = disk.live(at.world, Does::Rollback, Cut::Never, Some(&wrap)).await;
        found.extend(stood(back, RunStatus::RolledBack).err());
        let left = oracle::left_behind(at.now, &at.world.snapshot().await);
        found.extend(left.into_iter().map(|line| format!("after the rollback: {line}")));
        at.world.tidy(at.now).await;
        self.judged(at, &format!("fresh.{}", word(how)), &found);
    }

    /// The step again over what is there: by a later run of the same site, or by a run of another store. Nothing
    /// may change, neither by it nor by taking it back.
    async fn over(&mut self, at: &At<'_>, foreign: bool, how: How) {
        let wrap = repeating(how);
        let (run, other) = if foreign { (RUN, 1) } else { ("bootstrap-sandbox-2", 0) };
        let disk = Disk::new(at.world, &at.step.name, run, other);
        let mut found = Vec::new();
        let forward = disk.live(at.world, Does::Start(at.graph.clone()), Cut::Never, Some(&wrap)).await;
        // What is somebody else's may be refused.
        if !foreign {
            found.extend(stood(forward, RunStatus::Succeeded).err());
        }
        found.extend(oracle::unlike(at.now, &at.world.snapshot().await));
        let back = disk.live(at.world, Does::Rollback, Cut::Never, Some(&wrap)).await;
        found.extend(stood(back, RunStatus::RolledBack).err());
        let left = oracle::unlike(at.now, &at.world.snapshot().await);
        found.extend(left.into_iter().map(|line| format!("after the rollback: {line}")));
        let whose = if foreign { "foreign" } else { "adopted" };
        self.judged(at, &format!("{whose}.{}", word(how)), &found);
    }

    fn judged(&mut self, at: &At<'_>, what: &str, found: &[String]) {
        self.report.case(what);
        if !found.is_empty() {
            self.report.violations.push(format!("{}/{what}:\n  {}", at.name(), found.join("\n  ")));
        }
    }
}

impl Visit for Repeats {
    async fn before(&mut self, at: &At<'_>) -> Result<(), String> {
        self.report.steps += 1;
        if !at.mine {
            return Ok(());
        }
        at.world.save_host();
        let learned = Box::pin(learn(at.world, at.step, at.graph, at.now.clone())).await;
        let learned = learned.map_err(|why| format!("undisturbed: {}", why.join("\n  ")))?;
        at.world.tidy(at.now).await;
        let all = settings::number::<u64>("DSSFLOW_REPEATS", 0) > 0;
        let ways = [How::Racing, How::InARow(3), How::InARow(2)];
        for how in ways.into_iter().take(if all { 3 } else { 2 }) {
            Box::pin(self.fresh(at, &learned, how)).await;
        }
        Ok(())
    }

    async fn after(&mut self, at: &At<'_>) {
        if !at.mine {
            return;
        }
        at.world.save_host();
        Box::pin(self.over(at, false, How::Racing)).await;
        Box::pin(self.over(at, true, How::InARow(2))).await;
    }
}

#[test]
fn every_step_and_undo_repeated_and_raced_leaves_one_world() {
    let report = in_both("repeats", |_| Repeats { report: Report::new("repeats") }, |visit| visit.report);
    println!("{report}");
    assert!(report.violations.is_empty(), "{report}");
    assert!(report.cases >= 200, "too few cases: {report}");
}
