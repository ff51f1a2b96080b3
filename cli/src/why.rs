//! Why a run does not move, and what to type next: a judgement on its view and on what its steps stand in line for.
//! Pure.

mod reason;

use dssflow_engine::event::PauseKind;
use dssflow_engine::run::RunStatus;
use dssflow_engine::run::view::RunView;
use dssflow_engine::time::Timestamp;
use schemars::JsonSchema;
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
#[derive(Debug, Serialize, JsonSchema)]
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
            PauseKind::CrashLoop | PauseKind::Restored => {}
            _ if reason.step.is_none() && !reason.message.is_empty() => {
                summary = format!("{summary} ({})", one_line(&reason.message));
            }
            _ => {}
        }
    }
    let next = match &view.imported {
        Some(store) => {
            summary =
                format!("it is of store {store} and is here as history only; it goes on there or not at all");
            vec![format!("{command} runs events {}", view.run)]
        }
        None => next(&asked, &steps),
    };
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
            Some(PauseKind::Restored) => "its store was put back to a backup, and nothing goes on until somebody says \
                                          so: what the run made since is looked for before anything is made anew"
                .to_owned(),
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
            let restored = view.paused.as_ref().is_some_and(|p| p.kind == PauseKind::Restored);
            if restored && !view.rolling_back {
                // A rollback takes back what is known; only going on finds what came after the backup.
                next.push(format!("{}   # finds what it made after the backup", verb("resume")));
            } else {
                next.push(verb("resume"));
                if view.live && !view.rolling_back {
                    next.push(verb("rollback"));
                }
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
    let mut text =
        format!("run {} {}: {}", diagnosis.run, describe::stands(diagnosis.status), diagnosis.summary);
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

#[cfg(test)]
pub(crate) mod tests {
    use dssflow_engine::run::view::RunView;
    use serde_json::{Value, json};

    use super::*;

    /// A view with these steps, and whatever else differs.
    pub(crate) fn view(status: &str, steps: &[Value], more: &Value) -> RunView {
        let steps: Vec<Value> = steps
            .iter()
            .map(|step| {
                let mut whole = json!({
                    "activity": "test.do", "status": "succeeded", "attempt": 1, "failures": 0,
                    "maximum_attempts": 3, "generation": 1, "effect": "none", "after": [], "live": false,
                });
                merge(&mut whole, step);
                whole
            })
            .collect();
        let mut whole = json!({
            "run": "lab", "workflow": "test", "site": "", "status": status, "created": 0, "updated": 0,
            "seq": 9, "request": { "by": "ada" }, "options": {}, "labels": {}, "live": true,
            "rolling_back": false, "steps": steps,
        });
        merge(&mut whole, more);
        serde_json::from_value(whole).unwrap()
    }

    fn merge(whole: &mut Value, more: &Value) {
        for (key, value) in more.as_object().unwrap() {
            whole[key] = value.clone();
        }
    }

    fn error(code: &str, help: &str) -> Value {
        let error = dssflow_engine::ActivityError::needs_human(code, "it stands").help(help);
        serde_json::to_value(error).unwrap()
    }

    fn judged(view: &RunView, driven: bool) -> Diagnosis {
        let now = Timestamp::from_millis(60_000);
        diagnose(view, driven, &Obstacles::new(), now, "dssflow")
    }

    #[test]
    fn what_a_person_can_do_something_about_comes_first() {
        let steps = [
            json!({ "step": "runs", "status": "running", "started": 0 }),
            json!({ "step": "sleeps", "status": "waiting", "awaits": { "for": "time" }, "wake": 120_000 }),
            json!({ "step": "again", "status": "backoff", "wake": 90_000, "failures": 1 }),
            json!({ "step": "hears", "status": "waiting", "awaits": { "for": "signal", "signal": "it's on" } }),
            json!({ "step": "asks", "status": "waiting", "wake": 90_000,
                    "awaits": { "for": "decision", "question": "Go?" } }),
            json!({ "step": "done" }),
        ];
        let found = judged(&view("running", &steps, &json!({})), true);
        let order: Vec<&str> = found.steps.iter().map(|s| s.step.as_str()).collect();
        assert_eq!(order, ["asks", "hears", "again", "sleeps", "runs"]);
        assert_eq!(found.summary, "it waits for somebody's decision");
        assert_eq!(
            found.next,
            ["dssflow approve lab asks", "dssflow reject lab asks", "dssflow runs watch lab"]
        );
        let whys: Vec<&str> = found.steps.iter().map(|s| s.why.as_str()).collect();
        assert_eq!(whys[0], "asks: Go? (its time is over in 30 s)");
        assert_eq!(found.steps[1].next, ["dssflow signal lab 'it'\\''s on' --payload JSON"]);
        assert_eq!(whys[2], "next try in 30 s (failed 1 of 3 times)");
        assert_eq!(whys[3], "sleeps until 1970-01-01 00:02:00Z, 60 s from now");
        let text = lines(&found);
        assert_eq!(text.matches("dssflow approve lab asks").count(), 1, "not told twice: {text}");
    }

    #[test]
    fn a_restored_run_goes_on_before_it_is_taken_back() {
        let paused =
            json!({ "paused": { "kind": "restored", "message": "restored from a backup" }, "live": true });
        let found = judged(&view("paused", &[], &paused), false);
        assert_eq!(found.next, ["dssflow resume lab   # finds what it made after the backup"]);
    }

    #[test]
    fn a_paused_run_below_is_named() {
        let steps = [
            json!({ "step": "below", "status": "failed", "error": error("SubWorkflowPaused", "dssflow why x") }),
        ];
        let paused = json!({ "paused": { "kind": "needs_human", "step": "below", "message": "it stands" } });
        let found = judged(&view("paused", &steps, &paused), false);
        assert_eq!(found.steps[0].kind, Kind::SubWorkflow);
        assert_eq!(found.next[..2], ["dssflow why lab:below", "dssflow resume lab"]);
        assert_eq!(found.steps[0].help, None, "the help of the error is that command");
        assert!(found.summary.contains("a run that it started is paused"), "{}", found.summary);
    }

    #[test]
    fn a_crash_loop_is_looked_into_before_it_goes_on() {
        let steps = [json!({ "step": "heavy", "status": "ready" })];
        let paused = json!({ "paused": { "kind": "crash_loop", "message": "it was recovered 5 times" } });
        let found = judged(&view("paused", &steps, &paused), false);
        assert!(found.summary.contains("find the step"), "{}", found.summary);
        assert!(found.next[0].starts_with("dssflow runs events lab"), "{:?}", found.next);
        assert_eq!(found.next[1], "dssflow resume lab");
    }

    #[test]
    fn items_that_a_map_bears_come_last_and_the_one_that_ended_the_run_first() {
        let failed = |step: &str, tolerated: bool| {
            let error = error("Nope", "look");
            json!({ "step": step, "status": "failed", "error": error, "map": "each", "tolerated": tolerated })
        };
        let steps = [
            failed("each[0]", true),
            failed("each[1]", false),
            json!({ "step": "each", "status": "waiting" }),
        ];
        let found = judged(&view("failed", &steps, &json!({ "failed_step": "each[1]" })), false);
        let kinds: Vec<(&str, Kind)> = found.steps.iter().map(|s| (s.step.as_str(), s.kind)).collect();
        assert_eq!(kinds, [("each[1]", Kind::Failed), ("each", Kind::Running), ("each[0]", Kind::Tolerated)]);
        assert_eq!(
            found.steps[0].next,
            ["dssflow retry lab --step 'each[1]' --reason TEXT", "dssflow skip lab 'each[1]' --reason TEXT"]
        );
        assert_eq!(found.next[0], "dssflow resume lab");
    }
}
