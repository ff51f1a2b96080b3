//! A hook for measurements. The engine counts nothing itself: whoever embeds it decides what to do with them.

use std::time::Duration;

use crate::activity::ErrorClass;
use crate::event::{Event, Phase};
use crate::id::{RunId, ScheduleId, StepName};
use crate::run::RunStatus;
use crate::schedule::{FiredBy, SkipReason};

/// How an attempt ended, as far as measurements go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttemptEnd {
    /// It did its work, or took it back.
    Done,
    /// A probe answered something other than "done".
    Answered,
    /// It failed.
    Failed(ErrorClass),
    /// It was not waited for: the run was let go, terminated, or could not wait longer. Its outcome is not known.
    Lost,
}

/// One measurement.
#[derive(Debug)]
#[non_exhaustive]
pub enum Measure<'a> {
    /// A transition became durable.
    Committed {
        /// The run.
        run: &'a RunId,
        /// Its events.
        events: &'a [Event],
        /// How long the store took.
        took: Duration,
    },
    /// An attempt acts.
    AttemptStarted {
        /// The run.
        run: &'a RunId,
        /// The step.
        step: &'a StepName,
        /// Its activity; for a sub-workflow `sub-workflow`.
        activity: &'a str,
        /// What for.
        phase: Phase,
    },
    /// An attempt ended.
    AttemptEnded {
        /// The run.
        run: &'a RunId,
        /// The step.
        step: &'a StepName,
        /// Its activity; for a sub-workflow `sub-workflow`.
        activity: &'a str,
        /// What it was for.
        phase: Phase,
        /// How it ended.
        end: AttemptEnd,
        /// How long it took.
        took: Duration,
    },
    /// A schedule started a run.
    ScheduleFired {
        /// The schedule.
        schedule: &'a ScheduleId,
        /// The run.
        run: &'a RunId,
        /// What made the firing.
        by: FiredBy,
        /// How long after its instant.
        late: Duration,
    },
    /// A schedule skipped an instant.
    ScheduleSkipped {
        /// The schedule.
        schedule: &'a ScheduleId,
        /// Why.
        why: SkipReason,
    },
    /// A schedule could not start a run, and will not.
    ScheduleRefused {
        /// The schedule.
        schedule: &'a ScheduleId,
    },
    /// A drive is over: the run ended, stands still, or was let go.
    DriveEnded {
        /// The run.
        run: &'a RunId,
        /// Where it stands; none when the store failed.
        status: Option<RunStatus>,
    },
}

/// Takes measurements. Called in the middle of things: it must be quick and must not block.
pub trait Metrics: Send + Sync + 'static {
    /// Takes one.
    fn measure(&self, measure: &Measure<'_>);
}

impl<F: Fn(&Measure<'_>) + Send + Sync + 'static> Metrics for F {
    fn measure(&self, measure: &Measure<'_>) {
        self(measure);
    }
}
