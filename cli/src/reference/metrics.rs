//! What `GET /metrics` has: read from what it writes after everything was measured once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use dssflow_engine::activity::ErrorClass;
use dssflow_engine::event::Phase;
use dssflow_engine::id::{RunId, ScheduleId, StepName};
use dssflow_engine::run::RunStatus;
use dssflow_engine::runtime::{AttemptEnd, Measure, Metrics as _};
use dssflow_engine::schedule::{FiredBy, SkipReason};
use dssflow_store::{OpenOptions, SledStore};

use super::{MADE, cell, is_written};
use crate::api::metrics::{Counts, written};
use crate::control::Health;

/// More values of a label than these are not listed.
const FEW: usize = 12;

/// Everything that can be measured, once.
fn counts() -> Counts {
    let counts = Counts::default();
    let (run, step) = (RunId::new("run").unwrap(), StepName::new("step").unwrap());
    let (took, activity) = (Duration::from_millis(1), "NAME");
    counts.measure(&Measure::Committed { run: &run, events: &[], took });
    for phase in [Phase::Execute, Phase::Probe, Phase::Compensate] {
        let ends = [
            AttemptEnd::Done,
            AttemptEnd::Answered,
            AttemptEnd::Failed(ErrorClass::Terminal),
            AttemptEnd::Lost,
        ];
        for end in ends {
            counts.measure(&Measure::AttemptStarted { run: &run, step: &step, activity, phase });
            counts.measure(&Measure::AttemptEnded { run: &run, step: &step, activity, phase, end, took });
        }
    }
    for status in RunStatus::ALL.iter().copied().map(Some).chain([None]) {
        counts.measure(&Measure::DriveEnded { run: &run, status });
    }
    let schedule = ScheduleId::new("schedule").unwrap();
    for by in [FiredBy::Clock, FiredBy::Backfill, FiredBy::Trigger] {
        counts.measure(&Measure::ScheduleFired { schedule: &schedule, run: &run, by, late: took });
    }
    for why in [
        SkipReason::Overlap,
        SkipReason::Superseded,
        SkipReason::Missed,
        SkipReason::Paused,
        SkipReason::Limit,
        SkipReason::Fired,
        SkipReason::Unknown,
    ] {
        counts.measure(&Measure::ScheduleSkipped { schedule: &schedule, why });
    }
    counts.measure(&Measure::ScheduleRefused { schedule: &schedule });
    counts
}

/// The labels of a sample, `le` of a histogram left out.
fn labels(sample: &str, into: &mut BTreeMap<String, BTreeSet<String>>) {
    let Some((_, rest)) = sample.split_once('{') else { return };
    let inside = rest.rsplit_once('}').unwrap().0;
    for pair in inside.split(',').filter(|pair| !pair.starts_with("le=")) {
        let (name, value) = pair.split_once('=').unwrap();
        into.entry(name.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
    }
}

#[tokio::test]
async fn every_measurement_is_in_the_docs() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path().join("store"), OpenOptions::default()).unwrap();
    let mut info = store.info().await.unwrap();
    info.runs = RunStatus::ALL.iter().map(|status| (*status, 1)).collect();
    let health = Health::at_rest(true);
    let text = written(&counts(), &info, 0.0, &health).unwrap();
    let mut out = format!(
        "# Measurements\n\n{MADE}\n\n`GET /metrics` of [the HTTP API](../http-api.md#measurements), in the OpenMetrics form that \
         Prometheus reads. A counter is read with `_total` behind its name, a histogram has `_bucket`, `_sum` and \
         `_count`.\n\n| name | kind | what | labels |\n|---|---|---|---|\n"
    );
    let mut rest = text.as_str();
    let mut all = 0;
    while let Some((_, after)) = rest.split_once("# HELP ") {
        let part = after.split_once("# HELP ").map_or(after, |(part, _)| part);
        let (name, help) = part.lines().next().unwrap().split_once(' ').unwrap();
        let kind =
            part.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} ") as &str)).unwrap();
        let mut found = BTreeMap::new();
        part.lines().filter(|line| !line.starts_with('#')).for_each(|sample| labels(sample, &mut found));
        let shown: Vec<String> = found
            .into_iter()
            .map(|(label, values)| {
                let words: Vec<&str> = values.iter().map(String::as_str).collect();
                let open = values.len() > FEW || values.contains("NAME") || label == "version";
                if open { format!("`{label}`") } else { format!("`{label}`: {}", words.join(", ")) }
            })
            .collect();
        writeln!(out, "| `{name}` | {kind} | {} | {} |", cell(help.trim_end_matches('.')), shown.join("; "))
            .unwrap();
        rest = after;
        all += 1;
    }
    assert!(all > 10, "{text}");
    is_written("metrics.md", &out);
}
