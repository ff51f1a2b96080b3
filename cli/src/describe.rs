//! Facts of a run in words: events, statuses, times and durations. Pure.

use std::time::Duration;

use dssflow_activities::host::SCRATCH;
use dssflow_engine::activity::{ActivityError, Owner, Probe, Resource, Undo};
use dssflow_engine::event::{Again, CancelMode, Event, EventKind, LostCause, Next, Phase, Request, UndoMark};
use dssflow_engine::run::view::{Awaited, StepView};
use dssflow_engine::run::{RunStatus, StepStatus};
use dssflow_engine::runtime::{Obstacle, ObstacleKind};
use dssflow_engine::time::Timestamp;
use serde_json::Value;

use crate::ui::one_line;
use crate::width::cut;

/// As `0.4 s`, `12 s`, `3 min 5 s`, `2 h 4 min`; whole minutes, hours and days as such.
pub(crate) fn duration(d: Duration) -> String {
    let (ms, s) = (d.as_millis(), d.as_secs());
    match s {
        0..10 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10..120 => format!("{s} s"),
        _ if s.is_multiple_of(86_400) && s > 86_400 => format!("{} d", s / 86_400),
        _ if s.is_multiple_of(3600) => format!("{} h", s / 3600),
        _ if s.is_multiple_of(60) && s < 7200 => format!("{} min", s / 60),
        120..7200 => format!("{} min {} s", s / 60, s % 60),
        7200..172_800 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// What a step recorded that may be there: a step that is done has removed the directories it worked in.
pub(crate) fn standing(recorded: &[Resource], done: bool) -> impl Iterator<Item = &Resource> {
    recorded.iter().filter(move |made| !done || made.kind != SCRATCH)
}

/// How long a step usually takes: by how often it was measured in earlier runs of the store, else as the workflow says.
pub(crate) fn usual(step: &StepView) -> Option<String> {
    let usual = usually(step.expected_ms?);
    Some(match step.expected_by {
        0 => usual,
        1 => format!("{usual}, measured once"),
        times => format!("{usual}, measured {times} times"),
    })
}

/// How long something usually takes, coarsely: it is a guess.
pub(crate) fn usually(expected_ms: u64) -> String {
    match expected_ms.div_ceil(1000) {
        0..90 => format!("usually {} s", expected_ms.div_ceil(1000)),
        s => format!("usually {} min", s.div_ceil(60)),
    }
}

/// As `2026-11-23 14:05:09Z`.
pub(crate) fn when(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{} {}Z", &text[..10], &text[11..19])
}

/// As `14:05:09Z`.
pub(crate) fn time_of_day(at: Timestamp) -> String {
    format!("{}Z", &at.to_string()[11..19])
}

/// A sign for a status, beside the word.
pub(crate) fn sign(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Pending => "·",
        StepStatus::Ready => "○",
        StepStatus::Running => "▸",
        StepStatus::Backoff => "↻",
        StepStatus::Waiting => "…",
        StepStatus::Succeeded => "✓",
        StepStatus::Adopted => "=",
        StepStatus::Failed | StepStatus::CompensationFailed => "✗",
        StepStatus::Skipped | StepStatus::Cancelled => "-",
        StepStatus::Compensating => "◂",
        StepStatus::Compensated => "↩",
        StepStatus::Kept => "k",
    }
}

/// Code, message and request id on one line.
pub(crate) fn error(error: &ActivityError) -> String {
    let mut text = one_line(&error.to_string());
    if let Some(id) = &error.request_id {
        put!(text, " (request id {})", one_line(id));
    }
    text
}

/// A state of a run or step, as people write it.
pub(crate) fn words(state: &str) -> String {
    state.replace('_', " ")
}

/// How a run stands, as what is said of it: `succeeded`, `is running`.
pub(crate) fn stands(status: RunStatus) -> String {
    match status {
        RunStatus::Succeeded | RunStatus::Failed => words(status.as_str()),
        RunStatus::Cancelled => "was cancelled".to_owned(),
        RunStatus::TimedOut => "ran out of time".to_owned(),
        RunStatus::RollbackStuck => "is stuck in its rollback".to_owned(),
        _ => format!("is {}", words(status.as_str())),
    }
}

/// An account with its alias, where one is known: `123456789012 (lab)`.
pub(crate) fn account(id: &str, alias: Option<&str>) -> String {
    alias.map_or_else(|| id.to_owned(), |alias| format!("{id} ({})", one_line(alias)))
}

/// The headings of the reference architecture, in its order.
const HEADINGS: [&str; 10] = [
    "Prepare the instance",
    "Setup connectivity to AWS",
    "Install DSS",
    "Setup container configuration in DSS",
    "Setup Spark and Metastore in DSS",
    "Setup S3 connections",
    "Setup Athena connections",
    "Install EKS plugin",
    "Create your first cluster",
    "Use it",
];

/// Where a heading stands; those of other workflows come last, as they are met.
pub(crate) fn place_of(heading: &str) -> usize {
    HEADINGS.iter().position(|h| *h == heading).unwrap_or(HEADINGS.len())
}

/// The last sign of life of a step behind a colon, or nothing.
pub(crate) fn pulse(heartbeat: Option<&Value>) -> String {
    heartbeat
        .map(details)
        .filter(|text| !text.is_empty())
        .map_or_else(String::new, |text| format!(": {text}"))
}

/// What a step waits for that only somebody or an hour can give; nothing when it waits for neither.
pub(crate) fn awaits(step: &StepView, now: Timestamp) -> Option<String> {
    let limit = |word: &str| {
        step.wake.map_or_else(String::new, |at| format!(" ({word} in {})", duration(at.since(now))))
    };
    Some(match step.awaits.as_ref()? {
        Awaited::Decision { question } => {
            let asks = if question.is_empty() { "waits for a decision" } else { "asks: " };
            format!("{asks}{}{}", one_line(question), limit("its time is over"))
        }
        Awaited::Signal { signal } => {
            format!("waits for signal {}{}", one_line(signal), limit("its time is over"))
        }
        Awaited::Time => match step.wake {
            Some(at) => format!("sleeps until {}, {} from now", when(at), duration(at.since(now))),
            None => "sleeps".to_owned(),
        },
        _ => "waits for something outside".to_owned(),
    })
}

/// What keeps a step from starting.
pub(crate) fn obstacle(obstacle: &Obstacle, now: Timestamp) -> String {
    let name = one_line(&obstacle.name);
    let runs: Vec<String> = obstacle.held_by.iter().map(ToString::to_string).collect();
    let by = |word: &str| {
        if runs.is_empty() { String::new() } else { format!("{word}{}", runs.join(", ")) }
    };
    match obstacle.kind {
        ObstacleKind::Lock => format!("waits for lock {name}{}", by(", held by run ")),
        ObstacleKind::Semaphore => {
            format!("waits for a permit of semaphore {name}{}", by(", held by run "))
        }
        ObstacleKind::Rate => {
            let until =
                obstacle.until.map_or_else(String::new, |at| format!(" for {}", duration(at.since(now))));
            format!("rate {name} is used up{until}")
        }
        ObstacleKind::Slots => {
            format!("as many attempts run as may run at a time{}", by(", of run "))
        }
        ObstacleKind::Queue => format!("stands in line for {name}{}", by(" behind run ")),
    }
}

/// Whether the last rollback of a history was asked for by a person, and not by the run's own `on_failure`.
pub(crate) fn was_asked_back(history: &[Event]) -> bool {
    let (mut asked, mut turned, mut rolling) = (false, false, false);
    for event in history {
        match &event.kind {
            EventKind::CancelRequested { mode: CancelMode::Rollback, .. } if !rolling => asked = true,
            // The engine turns a run round in its own name, and says why.
            EventKind::RollbackStarted { request, .. } => {
                turned = asked || request.by != "dssflow" || request.reason.is_empty();
                rolling = true;
            }
            _ => {}
        }
    }
    turned || (asked && !rolling)
}

/// Details of a heartbeat in words: the text itself, or the members that activities are known to give; nothing for
/// what is not known.
pub(crate) fn details(details: &Value) -> String {
    let short = |text: &str| cut(&one_line(text), 120);
    match details {
        Value::String(text) => short(text),
        Value::Array(items) if !items.is_empty() => format!("{} still there", items.len()),
        Value::Object(map) => {
            let text = |key: &str| map.get(key).and_then(Value::as_str);
            let number = |key: &str| map.get(key).and_then(Value::as_u64);
            let seconds = |s| duration(Duration::from_secs(s));
            if let Some(said) =
                ["text", "message", "detail", "state", "status", "waiting"].into_iter().find_map(text)
            {
                short(said)
            } else if let (Some(action), Some(cluster)) = (text("action"), text("cluster")) {
                short(&format!("{action} of cluster {cluster}"))
            } else if let Some(s) = number("building_s") {
                format!("building, {}", seconds(s))
            } else if let Some(s) = number("waiting_s") {
                format!("waiting, {}", seconds(s))
            } else if let Some(n) = number("ready") {
                format!("{n} ready")
            } else if let Some(file) = text("file") {
                let size = number("bytes").map_or_else(String::new, |b| format!(", {} MiB", b >> 20));
                short(&format!("{file}{size}"))
            } else if let Some(job) = text("jobId") {
                short(&format!("job {job}"))
            } else {
                String::new()
            }
        }
        _ => String::new(),
    }
}

fn by(request: &Request) -> String {
    let mut text =
        if request.by.is_empty() { String::new() } else { format!(" by {}", one_line(&request.by)) };
    if !request.reason.is_empty() {
        put!(text, ": {}", one_line(&request.reason));
    }
    text
}

fn then(next: Next, now: Timestamp) -> String {
    match next {
        Next::At { at } => format!("; next try in {}", duration(at.since(now))),
        Next::Now => "; trying again".to_owned(),
        Next::Pause => "; the run pauses".to_owned(),
        Next::Fail => "; the run fails".to_owned(),
        Next::Rollback => "; the run takes back what it made".to_owned(),
        Next::Stuck => "; it wants a person, the rest goes on".to_owned(),
        Next::Tolerate => "; its map goes on without it".to_owned(),
    }
}

fn owner(owner: &Owner) -> String {
    match owner {
        Owner::ThisRun => "made by this run".to_owned(),
        Owner::ThisSite(run) if run.is_empty() => "was so already".to_owned(),
        Owner::ThisSite(run) => format!("made by run {run}"),
        Owner::Foreign => "not made by dssflow".to_owned(),
    }
}

/// What happened, without the step's name.
pub(crate) fn event(event: &Event) -> String {
    match &event.kind {
        EventKind::RunCreated { workflow, workflow_version, site, request, .. } => {
            let site = if site.is_empty() { String::new() } else { format!(", site {site}") };
            format!("run created: {workflow} v{workflow_version}{site}{}", by(request))
        }
        EventKind::RunRecovered { gap_ms, .. } => {
            format!("run taken over after {} without an owner", duration(Duration::from_millis(*gap_ms)))
        }
        EventKind::AttemptStarted { attempt, phase, .. } => {
            // Attempts are counted over all phases: the number is no number of tries.
            match phase {
                Phase::Execute if *attempt > 1 => "started again".to_owned(),
                Phase::Execute => "started".to_owned(),
                Phase::Probe => "finding out what the last attempt did".to_owned(),
                Phase::Compensate => "taking back".to_owned(),
            }
        }
        EventKind::AttemptSucceeded { found: None | Some(Owner::ThisRun), .. } => "done".to_owned(),
        EventKind::AttemptSucceeded { found: Some(whose), .. } => format!("adopted: {}", owner(whose)),
        EventKind::AttemptFailed { error: why, next, .. } => {
            format!("failed: {}{}", error(why), then(*next, event.at))
        }
        EventKind::AttemptLost { cause: LostCause::Crash, .. } => {
            "lost: the process that ran it ended".to_owned()
        }
        EventKind::AttemptLost { cause: LostCause::Interrupted, .. } => "interrupted".to_owned(),
        EventKind::ProbeAnswered { answer, next, .. } => {
            let found = match answer {
                Probe::Absent => "looked: nothing is there".to_owned(),
                Probe::Present { owner: whose, .. } => format!("looked: it is there, {}", owner(whose)),
                Probe::InProgress { detail } => format!("looked: under way, {}", one_line(detail)),
                Probe::Failed { detail, .. } => {
                    format!("looked: it is there and broken, {}", one_line(detail))
                }
            };
            format!("{found}{}", then(*next, event.at))
        }
        EventKind::ResourceRecorded { resource, .. } => {
            format!("made {} {}", one_line(&resource.kind), one_line(&resource.id))
        }
        EventKind::BeforeRecorded { values, .. } => {
            let keys: Vec<String> = values.keys().map(|k| one_line(k)).collect();
            format!("noted the old values of {}", keys.join(", "))
        }
        EventKind::HeartbeatRecorded { details: d, .. } => format!("alive{}", pulse(Some(d))),
        EventKind::StepSkipped { request: None, .. } => "skipped: its condition is false".to_owned(),
        EventKind::StepSkipped { request: Some(request), .. } => format!("skipped, asked{}", by(request)),
        EventKind::StepCompleted { request, .. } => format!("taken as done, asked{}", by(request)),
        EventKind::StepFailed { error: why, next, .. } => {
            format!("failed: {}{}", error(why), then(*next, event.at))
        }
        EventKind::StepsReset { steps, again, request } => {
            let what = match again {
                Again::Retry => "to be tried at once".to_owned(),
                Again::Adopt => "to be tried at once, and may take what is not ours".to_owned(),
                Again::Rerun if steps.len() > 1 => {
                    format!("to be done again with {} after it", steps.len() - 1)
                }
                Again::Rerun => "to be done again".to_owned(),
            };
            let first = steps.first().map(ToString::to_string).unwrap_or_default();
            format!("step {first} {what}, asked{}", by(request))
        }
        EventKind::WaitStarted { until: None, .. } => "waits".to_owned(),
        EventKind::WaitStarted { until: Some(until), .. } => {
            format!("waits, {} at most", duration(until.since(event.at)))
        }
        EventKind::WaitEnded { .. } => "its time has come".to_owned(),
        EventKind::GateDecided { approved: true, request, .. } => format!("approved{}", by(request)),
        EventKind::GateDecided { approved: false, request, .. } => format!("rejected{}", by(request)),
        EventKind::SignalReceived { signal, request, .. } => {
            format!("signal {}{}", one_line(signal), by(request))
        }
        EventKind::MapExpanded { items, .. } => match items.len() {
            1 => "goes over one item".to_owned(),
            count => format!("goes over {count} items"),
        },
        EventKind::MapCollected { .. } => "all of its items are done".to_owned(),
        EventKind::RunUpgraded { workflow_version, reset, request, .. } => {
            let again = match reset.len() {
                0 => String::new(),
                n => format!(", {n} steps are done again"),
            };
            format!("run brought to version {workflow_version}{again}{}", by(request))
        }
        EventKind::OutputMigrated { .. } => "its output was brought to the type of now".to_owned(),
        EventKind::RunRestored { backup, request, .. } => {
            format!("its store was put back to a backup of {backup}{}", by(request))
        }
        EventKind::RunImported { store, backup, request, .. } => {
            format!("brought here as history from store {store}, by a backup of {backup}{}", by(request))
        }
        EventKind::RunTimedOut {} => "run has used up its time".to_owned(),
        EventKind::UndoMarked { mark: UndoMark::Undone, request, .. } => {
            format!("taken back by hand{}", by(request))
        }
        EventKind::UndoMarked { mark: UndoMark::Abandoned, request, .. } => {
            format!("left where it is{}", by(request))
        }
        EventKind::PauseRequested { request } => format!("pause asked for{}", by(request)),
        EventKind::RunPaused { reason } => format!("run paused: {}", one_line(&reason.message)),
        EventKind::RunResumed { request } => format!("run goes on, asked{}", by(request)),
        EventKind::CancelRequested { mode, request } => {
            let what = match mode {
                CancelMode::Keep => "keeping what it made",
                CancelMode::Rollback => "taking back what it made",
                CancelMode::Terminate => "at once",
            };
            format!("cancel asked for, {what}{}", by(request))
        }
        EventKind::RollbackStarted { keep, to, request } => {
            let keep: Vec<&str> = keep.iter().map(dssflow_engine::id::StepName::as_str).collect();
            let keep = if keep.is_empty() { String::new() } else { format!(" except {}", keep.join(", ")) };
            let to = to.as_ref().map(|to| format!(" of what depends on {to}")).unwrap_or_default();
            format!("rollback started{to}{keep}{}", by(request))
        }
        EventKind::CompensationSucceeded { undo, .. } => match undo {
            Undo::Undone => "taken back".to_owned(),
            Undo::NothingToDo => "nothing to take back".to_owned(),
            Undo::Kept { reason } => format!("kept: {}", one_line(reason)),
        },
        EventKind::CompensationFailed { error: why, next, .. } => {
            format!("could not be taken back: {}{}", error(why), then(*next, event.at))
        }
        EventKind::RollbackRetried { request } => format!("rollback tried again{}", by(request)),
        EventKind::RunFinished { status, error: None, .. } => {
            format!("run ended: {}", words(status.as_str()))
        }
        EventKind::RunFinished { status, error: Some(why), .. } => {
            format!("run ended: {}, {}", words(status.as_str()), error(why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        for (ms, text) in [
            (430, "0.4 s"),
            (9_999, "9.9 s"),
            (61_000, "61 s"),
            (120_000, "2 min"),
            (185_000, "3 min 5 s"),
            (3_600_000, "1 h"),
            (7_440_000, "2 h 4 min"),
            (86_400_000, "24 h"),
            (172_800_000, "2 d"),
            (200_000_000, "2 d 7 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
        assert_eq!(usually(900_000), "usually 15 min");
        let step = |by: u32| {
            let step = serde_json::json!({ "step": "a", "expected_ms": 900_000, "expected_by": by });
            crate::why::tests::view("running", &[step], &serde_json::json!({})).steps.remove(0)
        };
        assert_eq!(usual(&step(0)).as_deref(), Some("usually 15 min"));
        assert_eq!(usual(&step(1)).as_deref(), Some("usually 15 min, measured once"));
        assert_eq!(usual(&step(3)).as_deref(), Some("usually 15 min, measured 3 times"));
        assert_eq!(when(Timestamp::from_millis(0)), "1970-01-01 00:00:00Z");
    }

    #[test]
    fn heartbeats_from_outside_stay_on_one_line() {
        assert_eq!(details(&serde_json::json!({ "state": "CREATING\n\u{1b}[2J" })), "CREATING \\u001b[2J");
        for (value, text) in [
            (serde_json::json!({ "n": 1 }), ""),
            (serde_json::json!({ "building_s": 20 }), "building, 20 s"),
            (serde_json::json!({ "action": "stop", "cluster": "eks-main" }), "stop of cluster eks-main"),
            (serde_json::json!("cluster DELETING"), "cluster DELETING"),
        ] {
            assert_eq!(details(&value), text);
        }
    }

    #[test]
    fn who_asked_for_a_rollback_is_known() {
        let history = |kinds: Vec<EventKind>| -> Vec<Event> {
            (1..).zip(kinds).map(|(seq, kind)| Event { seq, at: Timestamp::from_millis(0), kind }).collect()
        };
        let turned = |by: &str, reason: &str| EventKind::RollbackStarted {
            keep: Vec::new(),
            to: None,
            request: Request { by: by.to_owned(), reason: reason.to_owned() },
        };
        let cancelled = || EventKind::CancelRequested {
            mode: CancelMode::Rollback,
            request: Request::by("ada".to_owned()),
        };
        assert!(was_asked_back(&history(vec![turned("ada", "")])));
        assert!(!was_asked_back(&history(vec![turned("dssflow", "step x failed")])));
        assert!(was_asked_back(&history(vec![cancelled(), turned("dssflow", "cancelled")])));
        assert!(was_asked_back(&history(vec![cancelled()])), "ended before it turned round");
        assert!(!was_asked_back(&history(vec![turned("dssflow", "step x failed"), cancelled()])));
        assert!(!was_asked_back(&[]));
    }
}
