//! Why a single step does not get on, and what a person can do about it.

use dssflow_engine::run::verbs::FOREIGN;
use dssflow_engine::run::view::{Awaited, RunView, StepView};
use dssflow_engine::run::{RunStatus, StepStatus};
use dssflow_engine::runtime::sub_run_id;
use dssflow_engine::time::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::control::Obstacles;
use crate::describe;
use crate::progress::maps::Maps;
use crate::ui::one_line;

/// What kind of thing a step hangs on, most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// It could not be taken back.
    Stuck,
    /// Somebody has to decide.
    Decision,
    /// The run that it started is paused.
    SubWorkflow,
    /// It failed, or the run paused for it.
    Failed,
    /// A signal has to come.
    Signal,
    /// Others hold what it needs.
    Blocked,
    /// It is tried again in a while.
    Backoff,
    /// It was under way when the process ended.
    Lost,
    /// Something outside has to change.
    Outside,
    /// An hour has to come.
    Time,
    /// It is under way.
    Running,
    /// It failed, and its map goes on without it.
    Tolerated,
}

/// A step the run hangs on.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Reason {
    /// The step.
    pub(crate) step: String,
    /// Where it stands.
    pub(crate) status: StepStatus,
    /// What kind of thing it is.
    pub(crate) kind: Kind,
    /// Why.
    pub(crate) why: String,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) help: Option<String>,
    /// What can be typed about it, best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) next: Vec<String>,
}

/// What is judged.
pub(super) struct Asked<'a> {
    pub(super) view: &'a RunView,
    pub(super) maps: Maps<'a>,
    pub(super) driven: bool,
    pub(super) obstacles: &'a Obstacles,
    pub(super) now: Timestamp,
    pub(super) command: &'a str,
}

/// Every step the run hangs on, most urgent first.
pub(super) fn all(asked: &Asked<'_>) -> Vec<Reason> {
    let view = asked.view;
    let mut reasons: Vec<Reason> = view.steps.iter().filter_map(|step| asked.reason(step)).collect();
    if let Some(paused) = &view.paused
        && let Some(step) = &paused.step
        && !reasons.iter().any(|r| r.step == step.as_str())
    {
        let (step, why) = (step.to_string(), one_line(&paused.message));
        let status = StepStatus::Ready;
        reasons.push(Reason { step, status, kind: Kind::Failed, why, help: None, next: Vec::new() });
    }
    reasons.sort_by_key(|r| r.kind);
    reasons
}

impl Asked<'_> {
    fn reason(&self, step: &StepView) -> Option<Reason> {
        let (kind, why) = self.judge(step)?;
        let next = self.next(step, kind);
        // That of a paused run below is its command, which is told anyway.
        let help = step.error.as_ref().and_then(|e| e.help.clone()).filter(|_| kind != Kind::SubWorkflow);
        Some(Reason {
            step: step.step.to_string(),
            status: step.status,
            kind,
            why,
            help: help.map(|h| one_line(&h)),
            next,
        })
    }

    fn judge(&self, step: &StepView) -> Option<(Kind, String)> {
        let (view, now) = (self.view, self.now);
        let concerned = view.paused.as_ref().and_then(|p| p.step.as_ref()) == Some(&step.step);
        let error = step.error.as_ref().map(describe::error);
        if let Some(obstacles) = self.obstacles.get(&step.step) {
            let all: Vec<String> = obstacles.iter().map(|o| describe::obstacle(o, now)).collect();
            return Some((Kind::Blocked, all.join("; ")));
        }
        // A run that has ended waits for nothing any more.
        if !view.status.is_end()
            && let Some(why) = describe::awaits(step, now)
        {
            let kind = match step.awaits {
                Some(Awaited::Decision { .. }) => Kind::Decision,
                Some(Awaited::Signal { .. }) => Kind::Signal,
                _ => Kind::Time,
            };
            return Some((kind, why));
        }
        Some(match step.status {
            StepStatus::CompensationFailed => (Kind::Stuck, with_rest(error, step)),
            StepStatus::Failed if step.tolerated => {
                let why = error.unwrap_or_else(|| "no reason was recorded".to_owned());
                (Kind::Tolerated, format!("failed, and its map goes on without it: {why}"))
            }
            StepStatus::Failed => {
                let below = step.error.as_ref().is_some_and(|e| e.code == "SubWorkflowPaused");
                (if below { Kind::SubWorkflow } else { Kind::Failed }, with_rest(error, step))
            }
            StepStatus::Backoff => {
                let wait = step.wake.map_or_else(String::new, |at| {
                    format!(
                        "next try in {} (failed {} of {} times)",
                        describe::duration(at.since(now)),
                        step.failures,
                        step.maximum_attempts
                    )
                });
                (Kind::Backoff, error.map_or_else(|| wait.clone(), |e| format!("{wait}: {e}")))
            }
            StepStatus::Waiting => match self.maps.items(&step.step) {
                Some((done, all)) => (Kind::Running, format!("{done} of its {all} items are done")),
                // Cut off, by a pause perhaps: nothing outside has to answer, it is looked at when the run goes on.
                None if error.is_none() && step.effect == "unknown" => {
                    let when = if self.driven { "in a moment" } else { "when the run goes on" };
                    (
                        Kind::Lost,
                        format!("was cut off; what it did is looked at {when}, before it is repeated"),
                    )
                }
                None => {
                    (Kind::Outside, error.unwrap_or_else(|| "waits for an answer from outside".to_owned()))
                }
            },
            StepStatus::Running | StepStatus::Compensating if self.driven => {
                let since = step
                    .started
                    .map_or_else(String::new, |at| format!(" for {}", describe::duration(now.since(at))));
                let usual = describe::usual(step).map_or_else(String::new, |usual| format!(" ({usual})"));
                let pulse = describe::pulse(step.heartbeat.as_ref());
                (Kind::Running, format!("under way{since}{usual}{pulse}"))
            }
            StepStatus::Running | StepStatus::Compensating => {
                let why =
                    "was under way when the process ended; what it did is looked at before it is repeated";
                (Kind::Lost, why.to_owned())
            }
            _ if concerned => (Kind::Failed, error?),
            _ => return None,
        })
    }

    fn next(&self, step: &StepView, kind: Kind) -> Vec<String> {
        let (view, command) = (self.view, self.command);
        let (run, name) = (&view.run, &step.step);
        // The brackets of a map's items mean something to a shell.
        let word = quoted(name.as_str());
        match kind {
            Kind::Stuck => ["mark-undone", "abandon"]
                .map(|verb| format!("{command} {verb} {run} {word} --reason TEXT"))
                .into(),
            Kind::Decision => {
                ["approve", "reject"].map(|verb| format!("{command} {verb} {run} {word}")).into()
            }
            Kind::SubWorkflow => vec![format!("{command} why {}", sub_run_id(run, name))],
            Kind::Signal => match &step.awaits {
                Some(Awaited::Signal { signal }) => {
                    vec![format!("{command} signal {run} {} --payload JSON", quoted(signal))]
                }
                _ => Vec::new(),
            },
            Kind::Failed | Kind::Backoff if !view.rolling_back && view.status != RunStatus::RolledBack => {
                let mut next = Vec::new();
                if step.error.as_ref().is_some_and(|error| error.code == FOREIGN) {
                    next.push(format!("{command} resources adopt {run} --step {word} --reason TEXT"));
                }
                next.push(format!("{command} retry {run} --step {word} --reason TEXT"));
                if kind == Kind::Failed {
                    next.push(format!("{command} skip {run} {word} --reason TEXT"));
                }
                next
            }
            Kind::Blocked => {
                let holders = self.obstacles.get(name).into_iter().flatten().flat_map(|o| &o.held_by);
                let other = holders.into_iter().find(|holder| *holder != run);
                other.map(|holder| format!("{command} why {holder}")).into_iter().collect()
            }
            Kind::Tolerated if view.status == RunStatus::Succeeded => {
                vec![format!("{command} rerun {run} --from {word}")]
            }
            Kind::Failed
            | Kind::Backoff
            | Kind::Lost
            | Kind::Outside
            | Kind::Time
            | Kind::Running
            | Kind::Tolerated => Vec::new(),
        }
    }
}

fn with_rest(error: Option<String>, step: &StepView) -> String {
    let mut why = error.unwrap_or_else(|| "no reason was recorded".to_owned());
    let left: Vec<String> =
        step.resources.iter().map(|r| one_line(&format!("{} {}", r.kind, r.id))).collect();
    if !left.is_empty() {
        // It is recorded before it is made.
        put!(why, "; it may have left: {}", left.join(", "));
    }
    why
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:+".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", one_line(word).replace('\'', "'\\''")) }
}
