//! Which instants a spec means.

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};

use super::cron::Cron;
use super::fired::Era;
use super::spec::{ScheduleSpec, SpecError, Timing};
use super::state::ScheduleState;
use crate::id::ScheduleId;
use crate::time::Timestamp;

/// A match is looked for piece by piece between two changes of the zone's offset; no more pieces than this. Zones change
/// at most a handful of times a year, and stretches without a match are jumped over.
const MAX_PIECES: usize = 4_096;
/// No zone is further from another than this, so no two local clocks are either.
const MAX_OFFSETS_APART_S: i64 = 2 * 24 * 3_600;

/// A time zone.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// A name that is no time zone's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no time zone; it takes a name of the IANA database, as Europe/Berlin")]
pub struct ZoneError {
    /// The name.
    pub name: String,
}

impl Zone {
    /// UTC.
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// The zone of an IANA name: the machine's data (`/usr/share/zoneinfo`, or where `TZDIR` says) where it has some, else
    /// what was compiled in. Reads files.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn find(name: &str) -> Result<Self, ZoneError> {
        if name == "UTC" {
            return Ok(Self::utc());
        }
        let unknown = || ZoneError { name: name.chars().take(100).collect() };
        // What is no name is never looked for among files.
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"_+-/".contains(&b);
        if name.is_empty() || name.len() > 64 || name.starts_with('/') || !name.bytes().all(is_name) {
            return Err(unknown());
        }
        TimeZone::get(name).map(Self).map_err(|_| unknown())
    }

    /// How far its clocks are ahead of UTC at an instant, in seconds.
    pub fn offset_s(&self, at: Timestamp) -> Option<i64> {
        let second = i64::try_from(at.as_millis() / 1000).ok()?;
        let at = jiff::Timestamp::from_second(second).ok()?;
        Some(i64::from(self.0.to_offset(at).seconds()))
    }
}

impl std::fmt::Debug for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Zone({:?})", self.0.iana_name().unwrap_or("unnamed"))
    }
}

/// The instants of a schedule.
#[derive(Debug, Clone)]
pub struct Times {
    id: ScheduleId,
    pub(super) instants: Instants,
    jitter_ms: u64,
    /// Those of earlier specs of the schedule, by [`Fired`](super::Fired)'s eras.
    pub(super) eras: Vec<Instants>,
}

/// What an expression, an interval or several of them mean, within a start and an end.
#[derive(Debug, Clone)]
pub(super) struct Instants {
    crons: Vec<Cron>,
    /// Milliseconds between two, and of the first behind the epoch.
    intervals: Vec<(u64, u64)>,
    pub(super) zone: Zone,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
}

impl Times {
    /// The instants of a spec. `zones` looks up a zone; [`Zone::find`] is the one that does.
    ///
    /// # Errors
    /// When the spec is wrong.
    pub fn new(
        id: &ScheduleId,
        spec: &ScheduleSpec,
        zones: &dyn Fn(&str) -> Result<Zone, ZoneError>,
    ) -> Result<Self, SpecError> {
        let instants = Instants::new(&spec.timing, &spec.zone, spec.start, spec.end, zones)?;
        Ok(Self { id: id.clone(), instants, jitter_ms: spec.jitter_ms, eras: Vec::new() })
    }

    /// The instants of a schedule as it is now, and what its earlier specs meant.
    ///
    /// # Errors
    /// When the spec, or an earlier one, is wrong.
    pub fn of(
        state: &ScheduleState,
        zones: &dyn Fn(&str) -> Result<Zone, ZoneError>,
    ) -> Result<Self, SpecError> {
        let mut times = Self::new(&state.id, &state.spec, zones)?;
        for Era { timing, zone, start, end, .. } in state.fired.eras() {
            times.eras.push(Instants::new(timing, zone, *start, *end, zones)?);
        }
        Ok(times)
    }

    /// The first instant after `after`; none when there is none any more.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.instants.next_after(after)
    }

    /// When the firing of an instant is due: with a jitter up to that much later, always the same for an instant, and
    /// always before the next one.
    pub fn due(&self, nominal: Timestamp) -> Timestamp {
        if self.jitter_ms == 0 {
            return nominal;
        }
        let gap = self.next_after(nominal).map_or(u64::MAX, |next| next.as_millis() - nominal.as_millis());
        let most = self.jitter_ms.min(gap).max(1);
        let mut hash = Sha256::new();
        hash.update((self.id.as_str().len() as u64).to_be_bytes());
        hash.update(self.id.as_str());
        hash.update(nominal.as_millis().to_be_bytes());
        let digest = hash.finalize();
        let chance = u64::from_be_bytes(digest[..8].try_into().expect("eight bytes of a hash"));
        Timestamp::from_millis(nominal.as_millis().saturating_add(chance % most))
    }

    /// What the expressions say in words, and how many there are.
    pub fn describe(&self) -> Vec<String> {
        self.instants.crons.iter().map(Cron::describe).collect()
    }
}

impl Instants {
    fn new(
        timing: &[Timing],
        zone: &str,
        start: Option<Timestamp>,
        end: Option<Timestamp>,
        zones: &dyn Fn(&str) -> Result<Zone, ZoneError>,
    ) -> Result<Self, SpecError> {
        let mut instants = Self { crons: Vec::new(), intervals: Vec::new(), zone: zones(zone)?, start, end };
        for timing in timing {
            match timing {
                Timing::Cron { cron } => instants
                    .crons
                    .push(Cron::parse(cron).map_err(|why| SpecError::Cron { cron: cron.clone(), why })?),
                Timing::Interval { every_ms, offset_ms } => {
                    timing.check_interval()?;
                    instants.intervals.push((*every_ms, *offset_ms));
                }
            }
        }
        Ok(instants)
    }

    pub(super) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let start = self.start.map(|at| at.as_millis().saturating_sub(1));
        let after = after.as_millis().max(start.unwrap_or(0));
        let crons = self.crons.iter().filter_map(|cron| next_cron(cron, &self.zone.0, after));
        let intervals =
            self.intervals.iter().filter_map(|&(every, offset)| next_interval(every, offset, after));
        let next = Timestamp::from_millis(crons.chain(intervals).min()?);
        self.end.is_none_or(|end| next <= end).then_some(next)
    }

    /// Whether it is one of the instants.
    pub(super) fn contains(&self, instant: Timestamp) -> bool {
        match instant.as_millis().checked_sub(1) {
            Some(before) => self.next_after(Timestamp::from_millis(before)) == Some(instant),
            None => false,
        }
    }
}

fn next_interval(every: u64, offset: u64, after: u64) -> Option<u64> {
    match after.checked_sub(offset) {
        None => Some(offset),
        Some(since) => (since / every).checked_add(1)?.checked_mul(every)?.checked_add(offset),
    }
}

/// The first instant after `after` at which the zone's clock shows what the expression wants, in milliseconds.
///
/// Between two changes of the offset local time and UTC run side by side, so the next match on the clock is the next
/// instant if it comes before the change; behind the change the clock shows something else, and is looked at again from
/// there. A time in a gap so never comes, and one in a fold comes on both sides of the change.
fn next_cron(cron: &Cron, zone: &TimeZone, after: u64) -> Option<u64> {
    let mut from = i64::try_from(after / 1000).ok()? + 1;
    for _ in 0..MAX_PIECES {
        let at = jiff::Timestamp::from_second(from).ok()?;
        let offset = zone.to_offset(at);
        let change = zone.following(at).next().map(|change| change.timestamp().as_second());
        let clock = offset.to_datetime(at);
        let Some(local) = cron.next_local(clock) else {
            // Nothing ever again on this clock. One that is put back soon shows some of it once more.
            from = change.filter(|change| change - from <= MAX_OFFSETS_APART_S)?;
            continue;
        };
        let found = from.checked_add(local.duration_since(clock).as_secs())?;
        match change {
            Some(change) if found >= change => {
                // A change soon may show again what the clock shows now. Behind one that is far, no clock shows a match
                // much before `found`.
                let far = change - from > MAX_OFFSETS_APART_S;
                from = if far { change.max(found - MAX_OFFSETS_APART_S) } else { change };
            }
            _ => return u64::try_from(found).ok()?.checked_mul(1000),
        }
    }
    None
}

/// The zone's clock at an instant, for people.
pub(super) fn local(zone: &Zone, at: Timestamp) -> Option<jiff::civil::DateTime> {
    let millis = i64::try_from(at.as_millis()).ok()?;
    let at = jiff::Timestamp::UNIX_EPOCH.checked_add(SignedDuration::from_millis(millis)).ok()?;
    Some(zone.0.to_datetime(at))
}
