//! Schedules as they are printed: a list, one with what it did last.

use std::time::Duration;

use dssflow_engine::id::RunId;
use dssflow_engine::runtime::Triggered;
use dssflow_engine::schedule::{FiredBy, Happened, Recent, ScheduleSpec, ScheduleView, Timing};

use crate::args::{ListFormat, ViewFormat};
use crate::config::Settings;
use crate::describe;
use crate::ui::{Style, Ui, one_line, table};

/// How many of what happened last are shown.
const RECENT: usize = 8;

/// What becomes of a firing that somebody wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its run is there.
    Begun,
    /// It waits for this run.
    Waits(RunId),
    /// It could not be started so far and is tried again; `schedules get` says why.
    Later,
    /// There will be no run of it, and why.
    Not(String),
}

/// What the schedule says of it by now.
pub(super) fn fate(view: &ScheduleView, wanted: &Triggered) -> Option<Fate> {
    let at = wanted.nominal;
    for recent in view.recent.iter().filter(|recent| recent.by == FiredBy::Trigger) {
        match &recent.what {
            Happened::Started { run, .. } if *run == wanted.run => return Some(Fate::Begun),
            Happened::Skipped { why, last, .. } if (recent.nominal..=*last).contains(&at) => {
                return Some(Fate::Not(format!("skipped: {}", why.as_str())));
            }
            Happened::Refused { why } if recent.nominal == at => return Some(Fate::Not(one_line(why))),
            _ => {}
        }
    }
    if view.trouble.as_ref().is_some_and(|trouble| trouble.nominal == at) {
        return Some(Fate::Later);
    }
    let waits = view.waiting.iter().any(|waiting| waiting.nominal == at);
    let other = view.running.iter().find(|running| running.run != wanted.run).filter(|_| waits);
    other.map(|other| Fate::Waits(other.run.clone()))
}

/// Why the clock brings up nothing any more, and what mends that.
pub(super) fn over(view: &ScheduleView, settings: &Settings) -> String {
    let (id, command) = (&view.schedule, settings.command());
    if view.left == Some(0) {
        return format!(
            "it has ended: it started as many runs as its limit allows; `{command} schedules update {id} --limit N` lets it start N \
             more"
        );
    }
    format!(
        "it has ended: no time that it names is still to come; `{command} schedules update {id}` gives it others"
    )
}

pub(super) fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn times(spec: &ScheduleSpec) -> String {
    let one = |timing: &Timing| match timing {
        Timing::Cron { cron } => cron.clone(),
        Timing::Interval { every_ms, offset_ms: 0 } => {
            format!("every {}", describe::duration(Duration::from_millis(*every_ms)))
        }
        Timing::Interval { every_ms, offset_ms } => format!(
            "every {} and {}",
            describe::duration(Duration::from_millis(*every_ms)),
            describe::duration(Duration::from_millis(*offset_ms))
        ),
    };
    spec.timing.iter().map(one).collect::<Vec<_>>().join("; ")
}

pub(super) fn list(ui: &Ui, settings: &Settings, all: &[ScheduleView], output: ListFormat) {
    match output {
        ListFormat::Json => ui.json(&all, true),
        ListFormat::Jsonl => all.iter().for_each(|view| ui.json(view, false)),
        ListFormat::Yaml => ui.yaml(&all),
        ListFormat::Name => all.iter().for_each(|view| ui.out(view.schedule.as_str())),
        ListFormat::Table | ListFormat::Wide if all.is_empty() => ui.note(&settings.address(
            "no schedules; `dssflow schedules create --workflow bootstrap -f site.yaml --every 1d` makes one",
        )),
        ListFormat::Table | ListFormat::Wide => {
            let wide = output == ListFormat::Wide;
            let row = |view: &ScheduleView| {
                let mut row = vec![
                    view.schedule.to_string(),
                    view.status.to_string(),
                    view.next.map_or_else(|| "-".to_owned(), describe::when),
                    times(&view.spec),
                    view.spec.zone.clone(),
                    view.spec.action.workflow.clone(),
                    view.running.len().to_string(),
                    last(view),
                ];
                if wide {
                    let labels = view.spec.action.labels.iter().map(|(key, value)| format!("{key}={value}"));
                    row.extend([
                        overlap(&view.spec),
                        view.counts.fired.to_string(),
                        labels.collect::<Vec<_>>().join(","),
                    ]);
                }
                row
            };
            let rows: Vec<_> = all.iter().map(row).collect();
            let mut heading =
                vec!["SCHEDULE", "STATUS", "NEXT", "TIMES", "ZONE", "WORKFLOW", "RUNNING", "LAST"];
            if wide {
                heading.extend(["OVERLAP", "STARTED", "LABELS"]);
            }
            ui.table(&heading, &rows, wide);
        }
    }
}

/// Its policy for runs that overlap, as it is written.
fn overlap(spec: &ScheduleSpec) -> String {
    spec.overlap.as_str().replace('_', "-")
}

/// What became of the last run that ended.
fn last(view: &ScheduleView) -> String {
    let ended = view.recent.iter().rev().find_map(|recent| match &recent.what {
        Happened::Started { status, .. } => status.map(|status| status.as_str().replace('_', " ")),
        Happened::Refused { .. } => Some("refused".to_owned()),
        Happened::Skipped { .. } => None,
    });
    ended.unwrap_or_else(|| "-".to_owned())
}

pub(super) fn show(ui: &Ui, view: &ScheduleView, output: ViewFormat) {
    match output {
        ViewFormat::Json => ui.json(view, true),
        ViewFormat::Yaml => ui.yaml(view),
        ViewFormat::Table => ui.out(&picture(ui, view).join("\n")),
    }
}

fn picture(ui: &Ui, view: &ScheduleView) -> Vec<String> {
    let spec = &view.spec;
    let mut lines = vec![
        format!("schedule   {}", ui.mark(Style::Bold, view.schedule.as_str())),
        format!("status     {}", view.status),
    ];
    if let Some(paused) = &view.paused {
        let why =
            if paused.reason.is_empty() { String::new() } else { format!(": {}", one_line(&paused.reason)) };
        lines.push(format!("paused     by {} {}{why}", one_line(&paused.by), describe::when(paused.at)));
    }
    if let Some(resumed) = &view.resumed {
        let why = if resumed.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", one_line(&resumed.reason))
        };
        lines.push(format!("resumed    by {} {}{why}", one_line(&resumed.by), describe::when(resumed.at)));
    }
    if let Some(next) = view.next {
        let local = view.next_local.as_ref().filter(|_| spec.zone != "UTC");
        let local =
            local.map_or_else(String::new, |local| format!(" ({} {})", local.replace('T', " "), spec.zone));
        lines.push(format!("next       {}{local}", describe::when(next)));
    }
    lines.push(format!("times      {} ({})", times(spec), spec.zone));
    lines.push(format!("workflow   {}", spec.action.workflow));
    lines.push(format!(
        "policy     overlap {}, catch-up {}{}{}{}",
        overlap(spec),
        describe::duration(Duration::from_millis(spec.catch_up_ms)),
        if spec.jitter_ms == 0 {
            String::new()
        } else {
            format!(", jitter {}", describe::duration(Duration::from_millis(spec.jitter_ms)))
        },
        if spec.pause_on_failure { ", pauses on failure" } else { "" },
        view.left.map_or_else(String::new, |left| format!(", {} left", count(left, "run"))),
    ));
    let c = &view.counts;
    lines.push(format!(
        "so far     {} started: {} succeeded, {} failed, {} cancelled; skipped: {} overlapping, {} missed",
        c.fired, c.succeeded, c.failed, c.cancelled, c.overlapped, c.missed
    ));
    for running in &view.running {
        lines.push(format!("running    {} since {}", running.run, describe::when(running.started)));
    }
    if !view.waiting.is_empty() {
        lines.push(format!("waiting    {}", count(view.waiting.len() as u64, "firing")));
    }
    if let Some(trouble) = &view.trouble {
        lines.push(format!(
            "trouble    {} cannot be started: {}",
            describe::when(trouble.nominal),
            one_line(&trouble.why)
        ));
    }
    if let Some(failure) = &view.last_failure {
        lines.push(format!("failure    {}", one_line(&failure.message)));
    }
    let recent: Vec<_> = view.recent.iter().rev().take(RECENT).map(happened).collect();
    if !recent.is_empty() {
        lines.push(String::new());
        lines.push(table(&["INSTANT", "BY", "WHAT"], &recent));
    }
    lines
}

fn happened(recent: &Recent) -> Vec<String> {
    let what = match &recent.what {
        Happened::Started { run, status: None, .. } => format!("run {run}"),
        Happened::Started { run, status: Some(status), .. } => {
            format!("run {run}: {}", status.as_str().replace('_', " "))
        }
        Happened::Skipped { why, times: 1, .. } => format!("skipped: {}", why.as_str()),
        Happened::Skipped { why, times, last } => {
            format!("{times} skipped until {}: {}", describe::when(*last), why.as_str())
        }
        Happened::Refused { why } => format!("not started: {}", one_line(why)),
    };
    vec![describe::when(recent.nominal), recent.by.as_str().to_owned(), what]
}

#[cfg(test)]
mod tests {
    use dssflow_engine::schedule::ScheduleAction;
    use dssflow_engine::time::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    /// A schedule with these members.
    fn with(members: &Value) -> ScheduleView {
        let spec = ScheduleSpec::cron("0 3 * * *", ScheduleAction::new("w"));
        let mut view = json!({
            "schedule": "s", "status": "active", "spec": spec, "created": 0, "updated": 0, "mark": 0,
            "request": { "by": "ada" }, "running": [], "waiting": [], "recent": [], "counts": {},
        });
        view.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        serde_json::from_value(view).unwrap()
    }

    /// What is told of the run `s-9`, wanted at 9 s, by a schedule with these members.
    fn told(members: &Value) -> Option<Fate> {
        let wanted = Triggered { run: RunId::new("s-9").unwrap(), nominal: Timestamp::from_millis(9_000) };
        fate(&with(members), &wanted)
    }

    #[test]
    fn of_one_that_has_ended_is_told_what_brings_it_back() {
        let settings = Settings { store: "/store".into(), named: false };
        let used_up = over(&with(&json!({ "status": "ended", "left": 0 })), &settings);
        assert!(used_up.contains("its limit") && used_up.contains("update s --limit N"), "{used_up}");
        let past = over(&with(&json!({ "status": "ended", "left": 2 })), &settings);
        assert!(past.contains("still to come") && !past.contains("limit"), "{past}");
    }

    #[test]
    fn a_wanted_run_begins_waits_or_is_none() {
        let recent = |by: &str, nominal: u64, what: Value| {
            let mut recent = json!({ "nominal": nominal, "by": by, "at": 9_001 });
            recent.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
            json!({ "recent": [recent] })
        };
        let running = json!([{ "run": "s-1", "nominal": 1_000, "by": "clock", "started": 1_000 }]);
        let waiting = json!([{ "nominal": 9_000, "by": "trigger" }]);
        let other = RunId::new("s-1").unwrap();
        let skipped = |last: u64| json!({ "what": "skipped", "why": "overlap", "times": 2, "last": last });
        let started = |run: &str| json!({ "what": "started", "run": run });
        assert_eq!(told(&json!({})), None, "nobody has looked at it yet");
        assert_eq!(told(&json!({ "waiting": waiting })), None, "it is free to begin");
        assert_eq!(told(&json!({ "waiting": waiting, "running": running })), Some(Fate::Waits(other)));
        assert_eq!(told(&recent("trigger", 9_000, started("s-9"))), Some(Fate::Begun));
        assert_eq!(told(&recent("trigger", 9_000, started("s-8"))), None, "another one");
        let not = |why: &str| Some(Fate::Not(why.to_owned()));
        assert_eq!(told(&recent("trigger", 8_000, skipped(9_000))), not("skipped: overlap"));
        assert_eq!(told(&recent("trigger", 7_000, skipped(8_000))), None, "earlier ones");
        assert_eq!(told(&recent("clock", 8_000, skipped(10_000))), None, "those of the clock");
        assert_eq!(told(&recent("trigger", 9_000, json!({ "what": "refused", "why": "no" }))), not("no"));
        let trouble = json!({ "trouble": { "nominal": 9_000, "since": 9_000, "why": "busy" } });
        assert_eq!(told(&trouble), Some(Fate::Later));
    }
}
