//! Why a run does not move, and what to type next: a judgement on its view and on what its steps stand in line for.
//! Pure.

mod reason;

use dssflow_engine::event::PauseKind;
use dssflow_engine::run::RunStatus;
use dssflow_engine::run::view::RunView;
use dssflow_engine::time::Timestamp;
use serde::Serialize;

use crate::control::Obstacles;
use crate::describe;
use crate::progress::maps::Maps;
use crate::ui::one_line;
use reason::Asked;
pub(crate) use reason::{Kind, Reason};

/// The most steps that people are shown; programs get all.
const MAX_SHOWN: usize = 25;

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
    /// The steps it hangs on: what a person can do something about comes first.
    pub(crate) steps: Vec<Reason>,
    /// What to type, best first.
    pub(crate) next: Vec<String>,
}

/// Judges a run. `command` is how dssflow is called for its store; `driven` says whether a process drives it, and
/// `obstacles` what that process knows to keep steps from starting.
pub(crate) fn diagnose(
    view: &RunView,
    driven: bool,
    obstacles: &Obstacles,
    now: Timestamp,
    command: &str,
) -> Diagnosis {
    let asked = Asked { view, maps: Maps::of(view), driven, obstacles, now, command };
    let steps = reason::all(&asked);
    let mut summary = summary(view, driven, &steps);
    if let Some(reason) = &view.paused {
        match reason.kind {
            PauseKind::Requested if !reason.message.is_empty() => summary = one_line(&reason.message),
            PauseKind::CrashLoop => {}
            _ if reason.step.is_none() && !reason.message.is_empty() => {
                summary = format!("{summary} ({})", one_line(&reason.message));
            }
            _ => {}
        }
    }
    let next = next(&asked, &steps);
    Diagnosis { run: view.run.to_string(), status: view.status, driven, summary, steps, next }
}

fn summary(view: &RunView, driven: bool, steps: &[Reason]) -> String {
    let any = |kind: Kind| steps.iter().any(|s| s.kind == kind);
    match view.status {
        RunStatus::Succeeded if any(Kind::Tolerated) => {
            "it is done; some items of its maps failed and were left out".to_owned()
        }
        RunStatus::Succeeded => "every step is done; there is nothing to wait for".to_owned(),
        RunStatus::RolledBack => "everything it made is gone again".to_owned(),
        RunStatus::Cancelled => "it was cancelled; what it made is still there".to_owned(),
        RunStatus::TimedOut => "it ran out of its time; what it made is still there".to_owned(),
        RunStatus::Failed => match &view.failed_step {
            Some(step) => format!("step {step} failed for good; what the run made is still there"),
            None => "it failed; what it made is still there".to_owned(),
        },
        RunStatus::RollbackStuck => "something could not be taken back and wants a person".to_owned(),
        RunStatus::Paused => match view.paused.as_ref().map(|p| p.kind) {
            Some(PauseKind::Requested) | None => "somebody paused it".to_owned(),
            Some(PauseKind::Exhausted) => "a step used up its attempts".to_owned(),
            Some(PauseKind::Credentials) => "credentials are missing, expired or denied".to_owned(),
            Some(PauseKind::NeedsHuman) if any(Kind::SubWorkflow) => {
                "a run that it started is paused, and it waits for that".to_owned()
            }
            Some(PauseKind::NeedsHuman) => "a person has to decide something".to_owned(),
            Some(PauseKind::CrashLoop) => "it was recovered over and over and no step got on; perhaps one of its \
                                           steps ends the process (memory, disk, a defect): find the step that \
                                           its history ends with each time before it goes on"
                .to_owned(),
        },
        RunStatus::Pending | RunStatus::Running | RunStatus::Waiting | RunStatus::RollingBack if !driven => {
            "the process that drove it has ended; nothing is lost, and it goes on when it is resumed"
                .to_owned()
        }
        RunStatus::RollingBack => "it is being taken back".to_owned(),
        _ if any(Kind::Decision) => "it waits for somebody's decision".to_owned(),
        RunStatus::Waiting if any(Kind::Signal) => "it waits for a signal".to_owned(),
        RunStatus::Waiting if any(Kind::Blocked) => "it waits for what other runs hold".to_owned(),
        RunStatus::Waiting => "it waits for a time or for something outside".to_owned(),
        RunStatus::Pending | RunStatus::Running => "it is moving".to_owned(),
    }
}

/// What to type, best first.
fn next(asked: &Asked<'_>, steps: &[Reason]) -> Vec<String> {
    let (view, command) = (asked.view, asked.command);
    let verb = |verb: &str| format!("{command} {verb} {}", view.run);
    let mut next = Vec::new();
    match view.status {
        RunStatus::Succeeded if view.live => next.push(format!("{}   # takes it all back", verb("rollback"))),
        RunStatus::Succeeded | RunStatus::RolledBack => {}
        RunStatus::RollbackStuck => {
            next.push(format!("{} --retry   # tries again what could not be taken back", verb("rollback")));
        }
        RunStatus::Failed | RunStatus::Paused | RunStatus::Cancelled | RunStatus::TimedOut => {
            if view.paused.as_ref().is_some_and(|p| p.kind == PauseKind::CrashLoop) {
                next.push(format!("{}   # what came last before each end", verb("runs events")));
            }
            if let Some(first) = steps.first().filter(|s| s.kind == Kind::SubWorkflow) {
                next.extend(first.next.iter().cloned());
            }
            next.push(verb("resume"));
            if view.live && !view.rolling_back {
                next.push(verb("rollback"));
            }
        }
        RunStatus::Pending | RunStatus::Running | RunStatus::Waiting | RunStatus::RollingBack => {
            if asked.driven {
                let decides = |kind| matches!(kind, Kind::Decision | Kind::Signal);
                if let Some(first) = steps.first().filter(|s| decides(s.kind)) {
                    next.extend(first.next.iter().cloned());
                }
                next.push(verb("runs watch"));
            } else {
                next.push(verb("resume"));
                if !view.rolling_back {
                    next.push(verb("rollback"));
                }
            }
        }
    }
    next
}

/// As lines for people.
pub(crate) fn lines(diagnosis: &Diagnosis) -> String {
    let mut text = format!(
        "run {} is {}: {}",
        diagnosis.run,
        describe::words(diagnosis.status.as_str()),
        diagnosis.summary
    );
    for reason in diagnosis.steps.iter().take(MAX_SHOWN) {
        put!(text, "\n  {} {}: {}", describe::sign(reason.status), reason.step, reason.why);
        if let Some(help) = &reason.help {
            put!(text, "\n      help: {help}");
        }
        for command in reason.next.iter().filter(|c| !diagnosis.next.contains(c)) {
            put!(text, "\n      {command}");
        }
    }
    if diagnosis.steps.len() > MAX_SHOWN {
        put!(text, "\n  and {} more steps", diagnosis.steps.len() - MAX_SHOWN);
    }
    for (n, command) in diagnosis.next.iter().enumerate() {
        text.push_str(if n == 0 { "\nnext: " } else { "\n  or: " });
        text.push_str(command);
    }
    text
}
