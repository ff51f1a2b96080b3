//! Schedules: when runs are started without anybody asking, and what happens when they overlap, are late or fail.
//!
//! Pure, as the core of runs is: [`Times`] says which instants a spec means, [`decide`] what is to be done at a given
//! time, [`ScheduleState`] is all that is known. No clock, no chance (a jitter is a hash of the schedule and the instant)
//! and no IO, but for looking up a time zone by its name ([`Zone::find`]), which the edge does. The edge is
//! [`Schedules`](crate::runtime::Schedules): it stores the state, starts what is to be started in the same transition that
//! says so, and follows the runs.
//!
//! An *instant* is the nominal time of a firing. Each is handled once: it fires, or it is skipped for a reason that can
//! be told. What has fired is kept in the schedule itself, so it does not depend on which runs are still in the store.
//!
//! # Daylight saving
//! A cron expression is compared with the clock on the wall of its zone, literally. A local time that does not exist on
//! the day the clock goes forward does not fire; one that exists twice when it goes back is two instants, and fires
//! twice. `30 2 * * *` in New York so is silent on one night in March; `30 1 * * *` fires twice on one in November.
//! Intervals are counted from the epoch and know no zone. Whoever wants neither uses UTC, the default.

mod change;
mod cron;
mod decide;
mod fired;
mod record;
mod spec;
mod state;
mod times;
mod view;

pub use change::{Backfill, Ended, IllegalChange, Update};
pub use cron::Cron;
pub use decide::{Decision, Fire, Skip, Stop, decide};
pub use fired::Fired;
pub use record::{RECORD_FORMAT, UnreadableSchedule, decode, encode};
pub use spec::{
    DEFAULT_CATCH_UP, MAX_CRON_BYTES, MAX_SPEC_BYTES, MAX_TIMINGS, MIN_CATCH_UP, Overlap, ScheduleAction,
    ScheduleSpec, SpecError, Timing,
};
pub use state::{
    Asked, BackfillState, Counts, FiredBy, Firing, Happened, LastFailure, LastResult, MAX_ASKED_BYTES,
    MAX_BACKFILLS, MAX_INLINE_RESULT, MAX_QUEUE, MAX_RECENT, MAX_RUNNING, PauseCause, Paused, Recent,
    Resumed, Running, ScheduleState, Scheduled, SkipReason, Trouble, Wanted, run_id,
};
pub use times::{Times, Zone, ZoneError};
pub use view::{ScheduleStatus, ScheduleView, view};

#[cfg(test)]
mod tests;
