//! Why a run does not move, and what to type next: a judgement on its view. Pure.

use dssflow_engine::event::PauseKind;
use dssflow_engine::run::view::{RunView, StepView};
use dssflow_engine::run::{RunStatus, StepStatus};
use dssflow_engine::time::Timestamp;
use serde::Serialize;

use crate::describe;
use crate::ui::one_line;

/// The judgement.
#[derive(Debug, Serialize)]
pub(crate) struct Diagnosis {
    /// The run.
    pub(crate) run: String,
    /// Where it stands.
    pub(crate) status: RunStatus,
    /// Whether a process drives it.
    pub(crate) driven: bool,
    /// In a sentence.
    pub(crate) summary: String,
    /// The steps it hangs on.
    pub(crate) steps: Vec<Reason>,
    /// What to type, best first.
    pub(crate) next: Vec<String>,
}

/// A step the run hangs on.
#[derive(Debug, Serialize)]
pub(crate) struct Reason {
    /// The step.
    pub(crate) step: String,
    /// Where it stands.
    pub(crate) status: StepStatus,
    /// Why.
    pub(crate) why: String,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) help: Option<String>,
}

/// Judges a run. `command` is how dssflow is called for its store; `driven` says whether a process drives it.
pub(crate) fn diagnose(view: &RunView, driven: bool, now: Timestamp, command: &str) -> Diagnosis {
    let run = view.run.as_str();
    let verb = |verb: &str| format!("{command} {verb} {run}");
    let mut next = Vec::new();
    let paused = view.paused.as_ref();
    let summary = match view.status {
        RunStatus::Succeeded => "every step is done; there is nothing to wait for".to_owned(),
        RunStatus::RolledBack => "everything it made is gone again".to_owned(),
        RunStatus::Cancelled => "it was cancelled; what it made is still there".to_owned(),
        RunStatus::TimedOut => "it ran out of its time; what it made is still there".to_owned(),
        RunStatus::Failed => match &view.failed_step {
            Some(step) => format!("step {step} failed for good; what the run made is still there"),
            None => "it failed; what it made is still there".to_owned(),
        },
        RunStatus::RollbackStuck => "something could not be taken back and wants a person".to_owned(),
        RunStatus::Paused => match paused.map(|p| p.kind) {
            Some(PauseKind::Requested) | None => "somebody paused it".to_owned(),
            Some(PauseKind::Exhausted) => "a step used up its attempts".to_owned(),
            Some(PauseKind::Credentials) => "credentials are missing, expired or denied".to_owned(),
            Some(PauseKind::NeedsHuman) => "a person has to decide something".to_owned(),
            Some(PauseKind::CrashLoop) => "it was recovered over and over without getting on".to_owned(),
        },
        RunStatus::Pending | RunStatus::Running | RunStatus::Waiting | RunStatus::RollingBack if !driven => {
            "the process that drove it has ended; nothing is lost, and it goes on when it is resumed"
                .to_owned()
        }
        RunStatus::RollingBack => "it is being taken back".to_owned(),
        RunStatus::Waiting => "it waits for a time or for something outside".to_owned(),
        RunStatus::Pending | RunStatus::Running => "it is moving".to_owned(),
    };
    match view.status {
        RunStatus::Succeeded if view.live => next.push(format!("{}   # takes it all back", verb("rollback"))),
        RunStatus::Succeeded | RunStatus::RolledBack => {}
        RunStatus::RollbackStuck => {
            next.push(format!("{}   # tries again what could not be taken back", verb("rollback")));
        }
        RunStatus::Failed | RunStatus::Paused | RunStatus::Cancelled | RunStatus::TimedOut => {
            next.push(verb("resume"));
            if view.live && !view.rolling_back {
                next.push(verb("rollback"));
            }
        }
        RunStatus::Pending | RunStatus::Running | RunStatus::Waiting | RunStatus::RollingBack => {
            if driven {
                next.push(verb("runs watch"));
            } else {
                next.push(verb("resume"));
                if !view.rolling_back {
                    next.push(verb("rollback"));
                }
            }
        }
    }
    let mut steps: Vec<Reason> = view.steps.iter().filter_map(|s| reason(s, view, driven, now)).collect();
    if let Some(reason) = paused
        && let Some(step) = &reason.step
        && !steps.iter().any(|s| s.step == step.as_str())
    {
        let why = one_line(&reason.message);
        steps.insert(0, Reason { step: step.to_string(), status: StepStatus::Ready, why, help: None });
    }
    let summary = match paused {
        Some(reason) if reason.kind == PauseKind::Requested && !reason.message.is_empty() => {
            one_line(&reason.message)
        }
        Some(reason) if reason.step.is_none() && !reason.message.is_empty() => {
            format!("{summary} ({})", one_line(&reason.message))
        }
        _ => summary,
    };
    Diagnosis { run: run.to_owned(), status: view.status, driven, summary, steps, next }
}

fn reason(step: &StepView, view: &RunView, driven: bool, now: Timestamp) -> Option<Reason> {
    let concerned = view.paused.as_ref().and_then(|p| p.step.as_ref()) == Some(&step.step);
    let error = step.error.as_ref().map(describe::error);
    let why = match step.status {
        StepStatus::Failed | StepStatus::CompensationFailed => {
            let mut why = error.unwrap_or_else(|| "no reason was recorded".to_owned());
            let left: Vec<String> =
                step.resources.iter().map(|r| one_line(&format!("{} {}", r.kind, r.id))).collect();
            if !left.is_empty() {
                put!(why, "; left: {}", left.join(", "));
            }
            why
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
            error.map_or_else(|| wait.clone(), |e| format!("{wait}: {e}"))
        }
        StepStatus::Waiting => error.unwrap_or_else(|| "waits for an answer from outside".to_owned()),
        StepStatus::Running | StepStatus::Compensating if driven => {
            let since = step
                .started
                .map_or_else(String::new, |at| format!(" for {}", describe::duration(now.since(at))));
            let usual =
                step.expected_ms.map_or_else(String::new, |ms| format!(" ({})", describe::usually(ms)));
            let pulse = describe::pulse(step.heartbeat.as_ref());
            format!("under way{since}{usual}{pulse}")
        }
        StepStatus::Running | StepStatus::Compensating => {
            "was under way when the process ended; what it did is looked at before it is repeated".to_owned()
        }
        _ if concerned => error?,
        _ => return None,
    };
    Some(Reason {
        step: step.step.to_string(),
        status: step.status,
        why,
        help: step.error.as_ref().and_then(|e| e.help.clone()).map(|h| one_line(&h)),
    })
}

/// As lines for people.
pub(crate) fn lines(diagnosis: &Diagnosis) -> String {
    let mut text = format!(
        "run {} is {}: {}",
        diagnosis.run,
        describe::words(diagnosis.status.as_str()),
        diagnosis.summary
    );
    for reason in &diagnosis.steps {
        put!(text, "\n  {} {}: {}", describe::sign(reason.status), reason.step, reason.why);
        if let Some(help) = &reason.help {
            put!(text, "\n      help: {help}");
        }
    }
    for (n, command) in diagnosis.next.iter().enumerate() {
        text.push_str(if n == 0 { "\nnext: " } else { "\n  or: " });
        text.push_str(command);
    }
    text
}
