//! A token bucket in whole numbers. Time is handed in; nothing is rounded away.

use std::time::Duration;

use crate::time::Timestamp;

/// So many starts in so much time; a full bucket lets as many go at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Starts; 0 counts as 1, as a rate of nothing would be a run that never ends.
    pub permits: u32,
    /// The time they are spread over, in milliseconds; 0 counts as 1.
    pub per_ms: u64,
}

/// Drivers read the clock before they get the lock, so times come a little out of order. A step back that is no
/// longer than this is taken for that, and not for a clock that was set back.
pub(super) const DISORDER: Duration = Duration::from_secs(1);

/// What is left of a rate. One permit weighs `per_ms`, and each millisecond brings `permits` of weight.
#[derive(Debug)]
pub(super) struct Bucket {
    permits: u32,
    per_ms: u64,
    weight: u128,
    /// Up to when it was refilled; `None` before it was first looked at, when it is full.
    filled: Option<Timestamp>,
}

impl Bucket {
    pub(super) fn new(rate: Rate) -> Self {
        let (permits, per_ms) = (rate.permits.max(1), rate.per_ms.max(1));
        Self { permits, per_ms, weight: u128::from(permits) * u128::from(per_ms), filled: None }
    }

    /// The most it gives at once.
    pub(super) fn burst(&self) -> u32 {
        self.permits
    }

    /// Adds what the time since the last look brought. A clock that was set back brings nothing and takes nothing;
    /// from there it goes on.
    pub(super) fn refill(&mut self, now: Timestamp) {
        let filled = *self.filled.get_or_insert(now);
        if now >= filled {
            let brought = u128::from(now.as_millis() - filled.as_millis()) * u128::from(self.permits);
            let full = u128::from(self.permits) * u128::from(self.per_ms);
            self.weight = (self.weight + brought).min(full);
            self.filled = Some(now);
        } else if filled.since(now) > DISORDER {
            self.filled = Some(now);
        }
    }

    /// When it has `permits`, should nobody take any: `None` when it has them. It may be more than the burst; the time
    /// is then that at which so many will have come.
    pub(super) fn short_until(&self, permits: u64) -> Option<Timestamp> {
        let short = (u128::from(permits) * u128::from(self.per_ms)).checked_sub(self.weight)?;
        if short == 0 {
            return None;
        }
        let wait = u64::try_from(short.div_ceil(u128::from(self.permits))).unwrap_or(u64::MAX);
        Some(self.filled.unwrap_or_default() + Duration::from_millis(wait))
    }

    /// Spends permits; the caller has seen that they are there.
    pub(super) fn spend(&mut self, permits: u32) {
        let weight = u128::from(permits) * u128::from(self.per_ms);
        self.weight = self.weight.checked_sub(weight).expect("permits are spent after a look at them");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn empty(permits: u32, per_ms: u64, now: u64) -> Bucket {
        let mut bucket = Bucket::new(Rate { permits, per_ms });
        bucket.refill(at(now));
        bucket.spend(permits);
        bucket
    }

    #[test]
    fn refills_continuously_and_to_the_burst_at_most() {
        let mut b = empty(3, 1_000, 10_000);
        assert_eq!(b.short_until(1), Some(at(10_334)), "a third of a second, rounded up");
        b.refill(at(10_333));
        assert_eq!(b.short_until(1), Some(at(10_334)));
        b.refill(at(10_334));
        assert_eq!(b.short_until(1), None);
        b.spend(1);
        // Two thousandths of a permit are left over from before.
        assert_eq!(b.short_until(1), Some(at(10_667)));
        b.refill(at(9_000_000));
        assert_eq!(b.short_until(3), None);
        assert!(b.short_until(4).is_some());
    }

    #[test]
    fn a_clock_set_back_gives_and_takes_nothing() {
        let mut b = empty(1, 1_000, 100_000);
        b.refill(at(100_600));
        // A little out of order: the same moment does not count twice.
        b.refill(at(100_100));
        b.refill(at(100_600));
        assert_eq!(b.short_until(1), Some(at(101_000)));
        // Set back for good: what was there stays, and time counts from there.
        b.refill(at(50_000));
        assert_eq!(b.short_until(1), Some(at(50_400)));
        b.refill(at(50_400));
        assert_eq!(b.short_until(1), None);
    }

    #[test]
    fn copes_with_any_numbers() {
        let mut b = Bucket::new(Rate { permits: 0, per_ms: 0 });
        assert_eq!((b.burst(), b.short_until(1)), (1, None));
        b.refill(Timestamp::MAX);
        b.spend(1);
        assert_eq!(b.short_until(u64::MAX), Some(Timestamp::MAX));
        let b = empty(u32::MAX, u64::MAX, 5);
        assert_eq!(b.short_until(u64::MAX), Some(Timestamp::MAX));
    }
}
