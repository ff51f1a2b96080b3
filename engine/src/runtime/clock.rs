//! Real time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::time::{BoxFuture, Clock, Timestamp};

/// The longest sleep before the wall clock is looked at again: it may have jumped, or the machine slept.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the engine reads the clock")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let wait = at.since(self.now()).min(LONGEST_SLEEP);
        Box::pin(tokio::time::sleep(wait))
    }
}

/// A clock for tests: starts where it is told and follows tokio's time, which a paused runtime moves by itself
/// whenever nothing else can happen.
#[derive(Debug, Clone)]
pub struct TokioClock {
    start: Timestamp,
    origin: tokio::time::Instant,
}

impl TokioClock {
    /// A clock that shows `start` now. Must be made inside a tokio runtime.
    pub fn starting_at(start: Timestamp) -> Self {
        Self { start, origin: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.start + self.origin.elapsed()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(at.since(self.now())))
    }
}

/// A clock that runs faster than the one below it, from a common start: for attempts in a simulated world.
pub(crate) struct HurriedClock {
    base: std::sync::Arc<dyn Clock>,
    start: Timestamp,
    patience: f64,
}

impl HurriedClock {
    pub(crate) fn new(base: std::sync::Arc<dyn Clock>, patience: f64) -> Self {
        let start = base.now();
        Self { base, start, patience }
    }

    /// A time of this clock for one of the base clock.
    pub(crate) fn hurried(&self, base: Timestamp) -> Timestamp {
        self.start + base.since(self.start).div_f64(self.patience)
    }
}

impl Clock for HurriedClock {
    fn now(&self) -> Timestamp {
        self.hurried(self.base.now())
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        // Whole milliseconds, rounded up, so that a loop on `now` does not spin.
        let wait = at.since(self.start).mul_f64(self.patience) + Duration::from_millis(1);
        self.base.sleep_until(self.start + wait)
    }
}
