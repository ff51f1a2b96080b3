//! Why the engine did not do as asked.

use crate::activity::ActivityError;
use crate::event::DecodeError;
use crate::graph::GraphError;
use crate::id::{RunId, StepName, StoreId, WorkerId};
use crate::run::{IllegalEvent, RunStatus};
use crate::store::StoreError;
use crate::time::Timestamp;

/// What became of a run that has no result, and what mends it where the error says so.
fn not_succeeded(
    run: &RunId,
    status: RunStatus,
    step: Option<&StepName>,
    error: Option<&ActivityError>,
) -> String {
    let mut text = match (status, step) {
        (RunStatus::Failed, Some(step)) => format!("run {run} failed at step {step}"),
        (RunStatus::Failed, None) => format!("run {run} failed"),
        (_, Some(step)) => {
            format!("run {run} is {}, step {step} failed", status.to_string().replace('_', " "))
        }
        (_, None) => format!("run {run} is {}", status.to_string().replace('_', " ")),
    };
    if let Some(error) = error {
        text = format!("{text}: {error}");
        if let Some(help) = &error.help {
            text = format!("{text} ({help})");
        }
    }
    text
}

/// Why the engine did not do as asked. Each says what to do about it. Print it with `{}`: a `main` that returns it shows
/// its fields instead.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The store refused or failed.
    #[error("{}{error}", run.as_ref().map(|r| format!("run {r}: ")).unwrap_or_default())]
    Store {
        /// The run concerned.
        run: Option<RunId>,
        /// Why.
        error: StoreError,
    },
    /// There is no such run.
    #[error("run {0} is not in the store")]
    NoSuchRun(RunId),
    /// The run is driven from this engine already.
    #[error("run {0} is being driven already; use its handle, or pause it and wait until it stands")]
    Live(RunId),
    /// Another engine drives the run.
    #[error("run {run} is being driven by worker {by}; its lease ends at {until} unless it is renewed")]
    Held {
        /// The run.
        run: RunId,
        /// The worker.
        by: WorkerId,
        /// When its lease ends.
        until: Timestamp,
    },
    /// The run is not driven from here, so it cannot be told anything.
    #[error("run {0} is not being driven; resume it, or use a verb for runs that stand still")]
    NotLive(RunId),
    /// A step names an activity that was not registered.
    #[error(
        "activity {activity}, which run {run} needs, is not registered; register it before the run goes on"
    )]
    MissingActivity {
        /// The run.
        run: RunId,
        /// The activity.
        activity: String,
    },
    /// A binding names a function that was not registered.
    #[error(
        "function {function}, which run {run} needs, is not registered; register it before the run goes on"
    )]
    MissingFunction {
        /// The run.
        run: RunId,
        /// The function.
        function: String,
    },
    /// A workflow was asked for by name that was not registered.
    #[error("workflow {workflow} is not registered; register it when the engine is built")]
    MissingWorkflow {
        /// The workflow.
        workflow: String,
    },
    /// A workflow cannot be made from what it was given.
    #[error("workflow {workflow} does not take this input: {why}")]
    BadInput {
        /// The workflow.
        workflow: String,
        /// Why.
        why: String,
    },
    /// A literal input does not fit its activity.
    #[error("the input of step {step} does not fit activity {activity}: {why}")]
    InputMismatch {
        /// The step.
        step: StepName,
        /// The activity.
        activity: String,
        /// Why.
        why: String,
    },
    /// An output does not fit the type its activity gives.
    #[error("the output for step {step} does not fit what activity {activity} gives: {why}")]
    OutputMismatch {
        /// The step.
        step: StepName,
        /// The activity.
        activity: String,
        /// Why.
        why: String,
    },
    /// Steps are done whose activities give other types now.
    #[error("run {run}: the stored output of {} does not fit what the activity gives now ({why}); register a migration for it, or rerun the step", steps.iter().map(StepName::as_str).collect::<Vec<_>>().join(", "))]
    OutputChanged {
        /// The run.
        run: RunId,
        /// The steps.
        steps: Vec<StepName>,
        /// What does not fit, of the first.
        why: String,
    },
    /// What a run is given is over a limit.
    #[error("the input of run {run} {why}; keep what is large elsewhere and pass where it is")]
    InputTooLarge {
        /// The run.
        run: RunId,
        /// Which limit.
        why: String,
    },
    /// What a run is told is over a limit.
    #[error("run {run}: {what} {why}; keep it elsewhere and say where it is")]
    PayloadTooLarge {
        /// The run.
        run: RunId,
        /// What is too large.
        what: String,
        /// Which limit.
        why: String,
    },
    /// The run's state does not allow it.
    #[error("run {run} does not allow that: {why}")]
    Illegal {
        /// The run.
        run: RunId,
        /// Why.
        why: String,
    },
    /// The run is another store's and is here as history only.
    #[error(
        "run {run} is of store {store} and is here as history only; what it made is that store's to change, so do it there"
    )]
    Imported {
        /// The run.
        run: RunId,
        /// The store it is of.
        store: StoreId,
    },
    /// The run did not succeed, so it has no result.
    #[error("{}", not_succeeded(run, *status, step.as_ref(), error.as_deref()))]
    NotSucceeded {
        /// The run.
        run: RunId,
        /// Where it stands.
        status: RunStatus,
        /// The step that failed.
        step: Option<StepName>,
        /// Why.
        error: Option<Box<ActivityError>>,
    },
    /// The run's result does not fit the type it is wanted in.
    #[error("what run {run} returned does not fit the type it is wanted in: {why}")]
    ResultMismatch {
        /// The run.
        run: RunId,
        /// Why.
        why: String,
    },
    /// The history cannot be read.
    #[error("run {run} cannot be read: {error}")]
    History {
        /// The run.
        run: RunId,
        /// Why.
        error: DecodeError,
    },
    /// The history contradicts itself.
    #[error("the history of run {run} is damaged: {error}")]
    Replay {
        /// The run.
        run: RunId,
        /// Where.
        error: IllegalEvent,
    },
    /// The stored graph cannot be read.
    #[error("the graph of run {run} cannot be read: {error}")]
    Graph {
        /// The run.
        run: RunId,
        /// Why.
        error: GraphError,
    },
    /// The driver ended without an answer, because the engine stopped or a task was lost.
    #[error("run {0} was let go before it ended; it can be resumed")]
    Dropped(RunId),
}
