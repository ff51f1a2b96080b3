//! Which instants have fired, in little room and for ever.
//!
//! Runs are pruned, so they cannot tell. What fires without a gap is one range; a skipped instant ends it. Ranges mean
//! the instants of the timing they were made under: when that changes, they are kept with it. The oldest are given up
//! when there are too many, and nothing at or before them ever fires again: better never than twice.

use serde::{Deserialize, Serialize};

use super::spec::{ScheduleSpec, Timing};
use super::times::{Instants, Times};
use crate::time::Timestamp;

/// The most ranges, of all timings together.
pub(super) const MAX_RANGES: usize = 200;
/// The most earlier timings.
pub(super) const MAX_ERAS: usize = 3;

/// From the first to the last of instants that all fired.
type Range = (Timestamp, Timestamp);

/// The instants that have fired.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    /// Of the present timing, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
    /// Of earlier ones, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<Era>,
    /// What fired up to here is not known any more.
    #[serde(default)]
    floor: Timestamp,
}

/// What fired under an earlier timing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Era {
    pub(super) timing: Vec<Timing>,
    pub(super) zone: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) start: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) end: Option<Timestamp>,
    ranges: Vec<Range>,
}

impl Fired {
    pub(super) fn eras(&self) -> &[Era] {
        &self.earlier
    }

    /// Up to here it is not known any more what fired, so nothing does.
    pub fn floor(&self) -> Timestamp {
        self.floor
    }

    /// Whether an instant has fired.
    pub fn contains(&self, instant: Timestamp, times: &Times) -> bool {
        within(&self.ranges, instant)
            || self
                .earlier
                .iter()
                .zip(&times.eras)
                .any(|(era, instants)| within(&era.ranges, instant) && instants.contains(instant))
    }

    /// Notes that an instant fires.
    pub(super) fn add(&mut self, instant: Timestamp, times: &Times) {
        let at = self.ranges.partition_point(|(first, _)| *first <= instant);
        if at > 0 && instant <= self.ranges[at - 1].1 {
            return;
        }
        let follows = |a: Timestamp, b: Timestamp| follows(&times.instants, a, b);
        let joins_before = at > 0 && follows(self.ranges[at - 1].1, instant);
        let joins_after = at < self.ranges.len() && follows(instant, self.ranges[at].0);
        match (joins_before, joins_after) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = instant,
            (false, true) => self.ranges[at].0 = instant,
            (false, false) => self.ranges.insert(at, (instant, instant)),
        }
        self.trim();
    }

    /// From here on the instants are others.
    pub(super) fn turn(&mut self, before: &ScheduleSpec) {
        if !self.ranges.is_empty() {
            let ranges = std::mem::take(&mut self.ranges);
            let (timing, zone) = (before.timing.clone(), before.zone.clone());
            self.earlier.push(Era { timing, zone, start: before.start, end: before.end, ranges });
        }
        self.trim();
    }

    fn trim(&mut self) {
        let count = |fired: &Self| -> usize {
            fired.earlier.iter().map(|era| era.ranges.len()).sum::<usize>() + fired.ranges.len()
        };
        while self.earlier.len() > MAX_ERAS || count(self) > MAX_RANGES {
            let oldest = match self.earlier.first_mut() {
                Some(era) => era.ranges.remove(0),
                None => self.ranges.remove(0),
            };
            self.floor = self.floor.max(oldest.1);
            self.earlier.retain(|era| !era.ranges.is_empty());
        }
    }
}

fn within(ranges: &[Range], instant: Timestamp) -> bool {
    let at = ranges.partition_point(|(first, _)| *first <= instant);
    at > 0 && instant <= ranges[at - 1].1
}

/// Whether no instant is between the two.
fn follows(instants: &Instants, earlier: Timestamp, later: Timestamp) -> bool {
    instants.next_after(earlier) == Some(later)
}
