//! What is right, found the long way: every second or minute of a stretch is put on the zone's clock and compared with the
//! fields that the expression was made of. Nothing here is shared with the code that is judged but the offsets of zones.

use std::collections::BTreeSet;

use dssflow_engine::schedule::Zone;
use dssflow_engine::time::Timestamp;

use crate::case::{Case, Expression, Field, Interval};

const DAY: i64 = 86_400;

/// Year, month, day, hour, minute, second and weekday (0 is Sunday) of a count of seconds, by counting years and months.
pub(crate) fn civil(seconds: i64) -> (i64, u32, u32, u32, u32, u32, u32) {
    let (mut days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let weekday = (days + 4).rem_euclid(7);
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 0;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        month += 1;
        if days < length {
            break;
        }
        days -= length;
    }
    let small = |n: i64| u32::try_from(n).expect("a part of a date");
    (
        year,
        month,
        small(days + 1),
        small(rest / 3600),
        small(rest / 60 % 60),
        small(rest % 60),
        small(weekday),
    )
}

fn has(field: &Field, value: u32) -> bool {
    field.any || field.values.contains(&value)
}

fn matches(expression: &Expression, local: i64) -> bool {
    let (year, month, day, hour, minute, second, weekday) = civil(local);
    let of = expression;
    // When both days are restricted either will do.
    let of_day = if of.day.any || of.weekday.any {
        has(&of.day, day) && has(&of.weekday, weekday)
    } else {
        has(&of.day, day) || has(&of.weekday, weekday)
    };
    has(&of.second, second)
        && has(&of.minute, minute)
        && has(&of.hour, hour)
        && of_day
        && has(&of.month, month)
        && has(&of.year, u32::try_from(year).expect("a year of our days"))
}

/// Whether an interval names a moment.
pub(crate) fn is_of(interval: &Interval, at: u64) -> bool {
    at >= interval.offset && (at - interval.offset).is_multiple_of(interval.every)
}

/// All instants of a case after `from` and up to `to`, in seconds.
pub(crate) fn instants(case: &Case, zone: &Zone, from: u64, to: u64) -> Vec<u64> {
    let step = case.step();
    let mut found = Vec::new();
    let mut at = from / step * step + step;
    while at <= to {
        let of_the_clock = |expression: &Expression| {
            let offset = zone.offset_s(Timestamp::from_millis(at * 1000)).expect("a time of our days");
            matches(expression, i64::try_from(at).expect("a time of our days") + offset)
        };
        if case.intervals.iter().any(|interval| is_of(interval, at))
            || case.expression.as_ref().is_some_and(of_the_clock)
        {
            found.push(at);
        }
        at += step;
    }
    found
}

/// So many stretches of instants that fired without a gap are remembered; what lies before them does not fire any more, since
/// nobody knows whether it has.
const STRETCHES: usize = 200;
/// Of more instants at once those that are surely too late are left aside, and not counted.
const AT_ONCE: usize = 1_000;

/// What must have fired, in order, when the clock was looked at at these times, told from a list of all instants.
pub(crate) struct Expected {
    /// Instants and when they are due.
    instants: Vec<(u64, u64)>,
    window: u64,
    jitter: u64,
    mark: u64,
    /// Which of the instants have fired and are remembered, by their place in the list.
    once: BTreeSet<usize>,
    stretches: usize,
    /// The first place that is remembered.
    floor: usize,
    pub(crate) fired: Vec<u64>,
    pub(crate) missed: u64,
}

impl Expected {
    /// `due` in milliseconds, for each instant.
    pub(crate) fn new(instants: &[u64], due: &dyn Fn(u64) -> u64, case: &Case) -> Self {
        let instants = instants.iter().map(|at| (at * 1000, due(*at))).collect();
        let (once, fired, missed) = Default::default();
        Self {
            instants,
            window: case.window * 1000,
            jitter: case.jitter * 1000,
            mark: case.from * 1000,
            once,
            stretches: 0,
            floor: 0,
            fired,
            missed,
        }
    }

    pub(crate) fn look(&mut self, now: u64) {
        // A clock that is put back by more than a minute is followed.
        if now + 60_000 < self.mark {
            self.mark = now;
        }
        let first = self.instants.partition_point(|(instant, _)| *instant <= self.mark);
        let too_late = now.saturating_sub(self.window + self.jitter + 1);
        for place in first.. {
            if place == first + AT_ONCE {
                self.mark = self.mark.max(too_late);
            }
            let Some(&(instant, due)) = self.instants.get(place) else { break };
            if due > now {
                break;
            }
            if instant <= self.mark {
                continue;
            }
            self.mark = instant;
            if self.once.contains(&place) {
                continue;
            }
            if now - due > self.window {
                self.missed += 1;
            } else if place >= self.floor {
                self.fired.push(instant);
                self.remember(place);
            }
        }
    }

    fn remember(&mut self, place: usize) {
        let beside = [place.checked_sub(1), Some(place + 1)];
        let joins = beside.into_iter().flatten().filter(|other| self.once.contains(other)).count();
        self.once.insert(place);
        self.stretches = self.stretches + 1 - joins;
        while self.stretches > STRETCHES {
            let mut oldest = self.once.pop_first().expect("there are stretches");
            while self.once.remove(&(oldest + 1)) {
                oldest += 1;
            }
            self.floor = oldest + 1;
            self.stretches -= 1;
        }
    }
}
