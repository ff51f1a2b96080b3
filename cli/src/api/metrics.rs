//! Measurements in the form that Prometheus reads. What the engine does is counted as it happens; how many runs stand where
//! is looked up when somebody asks.

use std::sync::atomic::AtomicU64;

use dssflow_engine::runtime::{AttemptEnd, Measure, Metrics};
use dssflow_engine::schedule::FiredBy;
use dssflow_engine::store::Store as _;
use dssflow_store::{SledStore, StoreInfo};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::control::Health;
use crate::error::{Code, CommandError, CommandResult};
use crate::progress::now;

/// Text as it is served.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    activity: String,
    phase: &'static str,
    end: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    by: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// What is counted while the engine works. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    commit: Histogram,
    events: Counter,
    attempts: Family<Attempt, Histogram>,
    acting: Gauge,
    drives: Family<Status, Counter>,
    fired: Family<By, Counter>,
    late: Histogram,
    skipped: Family<Why, Counter>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            // From half a millisecond to about 16 s.
            commit: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            events: Counter::default(),
            // From 10 ms to about 45 min: an EKS cluster takes its time.
            attempts: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.01, 3.0, 12))),
            acting: Gauge::default(),
            drives: Family::default(),
            fired: Family::default(),
            // From 10 ms to about half a day: a firing may be as late as its catch-up window is.
            late: Histogram::new(exponential_buckets(0.01, 4.0, 12)),
            skipped: Family::default(),
        }
    }
}

impl Metrics for Counts {
    fn measure(&self, measure: &Measure<'_>) {
        match measure {
            Measure::Committed { events, took, .. } => {
                self.commit.observe(took.as_secs_f64());
                self.events.inc_by(events.len() as u64);
            }
            Measure::AttemptStarted { .. } => {
                self.acting.inc();
            }
            Measure::AttemptEnded { activity, phase, end, took, .. } => {
                self.acting.dec();
                let labels = Attempt {
                    activity: (*activity).to_owned(),
                    phase: match phase {
                        dssflow_engine::event::Phase::Execute => "execute",
                        dssflow_engine::event::Phase::Probe => "probe",
                        dssflow_engine::event::Phase::Compensate => "compensate",
                    },
                    end: match end {
                        AttemptEnd::Done => "done",
                        AttemptEnd::Answered => "answered",
                        AttemptEnd::Failed(_) => "failed",
                        _ => "lost",
                    },
                };
                self.attempts.get_or_create(&labels).observe(took.as_secs_f64());
            }
            Measure::DriveEnded { status, .. } => {
                let status = status.map_or("broken", |status| status.as_str());
                self.drives.get_or_create(&Status { status }).inc();
            }
            Measure::ScheduleFired { by, late, .. } => {
                self.fired.get_or_create(&By { by: by.as_str() }).inc();
                // What somebody wanted after all is not late.
                if *by == FiredBy::Clock {
                    self.late.observe(late.as_secs_f64());
                }
            }
            Measure::ScheduleSkipped { why, .. } => {
                self.skipped.get_or_create(&Why { why: why.as_str() }).inc();
            }
            Measure::ScheduleRefused { .. } => {
                self.skipped.get_or_create(&Why { why: "refused" }).inc();
            }
            // The list of the engine may grow.
            _ => {}
        }
    }
}

/// Everything that is measured, as text.
///
/// # Errors
/// When the store fails.
pub(crate) async fn text(counts: &Counts, store: &SledStore, health: &Health) -> CommandResult<String> {
    let now = now();
    let due = store.due_schedules(now, 1).await?;
    let late = due.first().map_or(0.0, |(at, _)| now.since(*at).as_secs_f64());
    written(counts, &store.info().await?, late, health)
}

/// The same of what was looked up; `late` is how many seconds the firing of a schedule is overdue.
pub(crate) fn written(
    counts: &Counts,
    info: &StoreInfo,
    late: f64,
    health: &Health,
) -> CommandResult<String> {
    let mut registry = Registry::with_prefix("dssflow");
    let with = |registry: &mut Registry, name: &str, help: &str, value: f64| {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    let build = Family::<Build, Gauge>::default();
    build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
    registry.register("build", "The version that serves", build);

    let runs = Family::<Status, Gauge>::default();
    for (status, n) in &info.runs {
        runs.get_or_create(&Status { status: status.as_str() }).set(i64::try_from(*n).unwrap_or(i64::MAX));
    }
    registry.register("runs", "Runs in the store, by status", runs);
    with(&mut registry, "runs_driven", "Runs that are driven now", number(health.driven as u64));
    with(
        &mut registry,
        "runs_parked",
        "Runs that were under way and cannot be driven",
        number(health.parked.len() as u64),
    );
    with(&mut registry, "runs_overdue", "Runs that wanted to be looked at by now", number(info.lag.runs));
    with(
        &mut registry,
        "queue_depth",
        "Steps that could start and stand in line",
        number(health.queued as u64),
    );
    with(&mut registry, "store_bytes", "What the store takes on the disk", number(info.bytes_on_disk));
    with(&mut registry, "store_events", "Events in the store", number(info.events));

    with(
        &mut registry,
        "schedule_lag_seconds",
        "How long the firing of a schedule is overdue, of the latest one",
        late,
    );
    if let Some(bytes) = resident() {
        with(&mut registry, "resident_memory_bytes", "Memory of the process that is in use", number(bytes));
    }

    registry.register_with_unit(
        "commit",
        "How long the store took to make a change durable",
        Unit::Seconds,
        counts.commit.clone(),
    );
    registry.register("events", "Events that were written", counts.events.clone());
    registry.register_with_unit(
        "attempt",
        "How long attempts of steps took",
        Unit::Seconds,
        counts.attempts.clone(),
    );
    registry.register("attempts_acting", "Attempts that act now", counts.acting.clone());
    registry.register("drives_ended", "Drives that are over, by where the run stands", counts.drives.clone());
    registry.register(
        "schedule_fired",
        "Runs that schedules started, by what made them",
        counts.fired.clone(),
    );
    registry.register_with_unit(
        "schedule_late",
        "How long after their instants runs of the clock were started, jitter among it",
        Unit::Seconds,
        counts.late.clone(),
    );
    registry.register(
        "schedule_skipped",
        "Instants of which no run was started, by why",
        counts.skipped.clone(),
    );

    let mut text = String::new();
    encode(&mut text, &registry)
        .map_err(|e| CommandError::new(Code::Internal, "the measurements cannot be written").why(e))?;
    Ok(text)
}

/// Counts are far below what a float holds exactly.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn number(n: u64) -> f64 {
    n as f64
}

/// Resident memory of this process, in bytes.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dssflow_engine::id::{RunId, ScheduleId};
    use dssflow_engine::schedule::SkipReason;
    use dssflow_store::OpenOptions;

    use super::*;

    #[tokio::test]
    async fn what_schedules_do_is_counted() {
        let counts = Counts::default();
        let (schedule, run) = (ScheduleId::new("s").unwrap(), RunId::new("s-1").unwrap());
        for (by, late_s) in [(FiredBy::Clock, 2), (FiredBy::Clock, 3), (FiredBy::Backfill, 90_000)] {
            let late = Duration::from_secs(late_s);
            counts.measure(&Measure::ScheduleFired { schedule: &schedule, run: &run, by, late });
        }
        for why in [SkipReason::Overlap, SkipReason::Overlap, SkipReason::Missed] {
            counts.measure(&Measure::ScheduleSkipped { schedule: &schedule, why });
        }
        counts.measure(&Measure::ScheduleRefused { schedule: &schedule });
        let dir = tempfile::tempdir().unwrap();
        let store = SledStore::open(dir.path().join("store"), OpenOptions::default()).unwrap();
        let health = Health::at_rest(true);
        let text = text(&counts, &store, &health).await.unwrap();
        for line in [
            "dssflow_schedule_fired_total{by=\"clock\"} 2",
            "dssflow_schedule_fired_total{by=\"backfill\"} 1",
            "dssflow_schedule_late_seconds_sum 5.0",
            "dssflow_schedule_late_seconds_count 2",
            "dssflow_schedule_skipped_total{why=\"overlap\"} 2",
            "dssflow_schedule_skipped_total{why=\"missed\"} 1",
            "dssflow_schedule_skipped_total{why=\"refused\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
