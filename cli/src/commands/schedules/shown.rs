//! Schedules as they are printed: a list, one with what it did last.

use std::time::Duration;

use dssflow_engine::schedule::{Happened, Recent, ScheduleSpec, ScheduleView, Timing};

use crate::args::{ListFormat, ViewFormat};
use crate::config::Settings;
use crate::describe;
use crate::ui::{Style, Ui, one_line, table};

/// How many of what happened last are shown.
const RECENT: usize = 8;

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
