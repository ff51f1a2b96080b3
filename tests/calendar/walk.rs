//! Walks a schedule through a case, as whoever drives schedules does, and compares with the oracle.

use std::collections::BTreeSet;

use dssflow_engine::event::Request;
use dssflow_engine::id::ScheduleId;
use dssflow_engine::run::RunStatus;
use dssflow_engine::schedule::{
    Ended, Overlap, ScheduleAction, ScheduleSpec, ScheduleState, SkipReason, Times, Timing, Zone, decide,
    decode, encode,
};
use dssflow_engine::time::Timestamp;

use crate::case::{Case, Move};
use crate::oracle::{Expected, instants, is_of};

/// Of a stretch with more instants the rest is left aside.
const MOST: usize = 300;

/// A bug to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    Nothing,
    /// The zone is ignored.
    OnlyUtc,
    /// Of a local time that comes twice only the first one fires.
    FoldOnce,
    /// A local time that does not exist fires an hour later.
    GapLater,
    /// A process that dies takes with it what has fired.
    ForgetsFired,
    /// A process that dies takes with it how far it was.
    ForgetsMark,
    /// What was missed is caught up however late.
    NoWindow,
    /// A process that dies has fired before it wrote that down.
    FiresBeforeItIsWritten,
    /// A clock that is put back is waited for.
    WaitsForTheClock,
    /// Intervals are not shifted by their offset.
    NoOffset,
    /// A process that dies takes with it how many were missed.
    ForgetsMissed,
}

impl Plant {
    pub(crate) const ALL: &[Self] = &[
        Self::Nothing,
        Self::OnlyUtc,
        Self::FoldOnce,
        Self::GapLater,
        Self::ForgetsFired,
        Self::ForgetsMark,
        Self::NoWindow,
        Self::FiresBeforeItIsWritten,
        Self::WaitsForTheClock,
        Self::NoOffset,
        Self::ForgetsMissed,
    ];
}

/// What happened in cases.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Walked {
    looks: u64,
    instants: u64,
    /// Those of them that an interval names.
    of_intervals: u64,
    fired: u64,
    missed: u64,
    forward: u64,
    back: u64,
    deaths: u64,
    changes: u64,
}

impl Walked {
    pub(crate) fn add(&mut self, other: &Self) {
        self.looks += other.looks;
        self.instants += other.instants;
        self.of_intervals += other.of_intervals;
        self.fired += other.fired;
        self.missed += other.missed;
        self.forward += other.forward;
        self.back += other.back;
        self.deaths += other.deaths;
        self.changes += other.changes;
    }

    pub(crate) fn assert_that_everything_happened(&self) {
        let Self { looks, instants, of_intervals, fired, missed, forward, back, deaths, changes } = *self;
        for count in [looks, instants, of_intervals, fired, missed, forward, back, deaths, changes] {
            assert!(count > 500, "a harness that tries nothing proves nothing: {self:?}");
        }
    }
}

impl std::fmt::Display for Walked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { looks, instants, of_intervals, fired, missed, forward, back, deaths, changes } = self;
        write!(f, "instants {instants}, of intervals {of_intervals}, fired {fired}, missed {missed}, ")?;
        write!(f, "looks {looks}, jumps fired: {forward} forward, ")?;
        write!(f, "{back} back, {deaths} deaths, {changes} cases across a change of the clocks")
    }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_millis(second * 1000)
}

/// Checks both which instants there are, and which of them fire.
pub(crate) fn check(case: &Case, plant: Plant) -> Result<Walked, String> {
    let zone = Zone::find(case.zone).map_err(|error| error.to_string())?;
    let mut right = instants(case, &zone, case.from, case.to);
    // Dense ones are looked at for a shorter time.
    let end = right.get(MOST).copied().unwrap_or(case.to);
    right.truncate(MOST + 1);
    let mut spec = ScheduleSpec::cron("", ScheduleAction::new("flow"))
        .zone(if plant == Plant::OnlyUtc { "UTC" } else { case.zone })
        .overlap(Overlap::AllowAll);
    spec.timing = case.expression.iter().map(|of| Timing::Cron { cron: of.text() }).collect();
    spec.timing.extend(case.intervals.iter().map(|of| Timing::Interval {
        every_ms: of.every * 1000,
        offset_ms: if plant == Plant::NoOffset { 0 } else { of.offset * 1000 },
    }));
    spec.jitter_ms = case.jitter * 1000;
    spec.end = Some(at(end));
    spec.catch_up_ms = if plant == Plant::NoWindow { u64::MAX / 4 } else { case.window * 1000 };
    let id = ScheduleId::new("s").expect("a name");
    let times = match Times::new(&id, &spec, &Zone::find) {
        Ok(times) => times,
        Err(error) => return Err(format!("it was refused: {error}")),
    };
    let mut found = Vec::new();
    let mut after = at(case.from);
    while let Some(next) = times.next_after(after) {
        if next <= after {
            return Err(format!("{next} comes after {after}"));
        }
        found.push(next.as_millis() / 1000);
        after = next;
    }
    plant_in(plant, &zone, &mut found);
    if found != right {
        let extra: Vec<_> =
            found.iter().filter(|at| !right.contains(at)).take(3).map(|s| at(*s).to_string()).collect();
        let lost: Vec<_> =
            right.iter().filter(|at| !found.contains(at)).take(3).map(|s| at(*s).to_string()).collect();
        return Err(format!("instants that are none: {extra:?}; instants that are not found: {lost:?}"));
    }
    let offset = |second: u64| zone.offset_s(at(second));
    let by_interval = |at: &&u64| case.intervals.iter().any(|of| is_of(of, **at));
    let mut walked = Walked {
        instants: right.len() as u64,
        of_intervals: right.iter().filter(by_interval).count() as u64,
        changes: u64::from(offset(case.from) != offset(case.to)),
        ..Walked::default()
    };
    let due = |second: u64| times.due(at(second)).as_millis();
    for &second in &right {
        let late = due(second) - second * 1000;
        let next = right.iter().find(|next| **next > second);
        if late > case.jitter * 1000 || next.is_some_and(|next| due(second) >= next * 1000) {
            return Err(format!("the jitter of {} is {late} ms", at(second)));
        }
    }
    // A clock that is put back to before the schedule was made was ahead when that was: it is followed there too.
    let mut all = instants(case, &zone, case.earliest(), case.from);
    all.extend(&right);
    let expected = Expected::new(&all, &due, case);
    fire(case, plant, spec, expected, &mut walked)?;
    Ok(walked)
}

/// What a scheduler with such a bug would take for the instants.
fn plant_in(plant: Plant, zone: &Zone, found: &mut Vec<u64>) {
    let offset = |second: u64| zone.offset_s(at(second)).expect("a time of our days");
    let local = |second: u64| i64::try_from(second).expect("a time of our days") + offset(second);
    match plant {
        Plant::FoldOnce => {
            let mut seen = BTreeSet::new();
            found.retain(|second| seen.insert(local(*second)));
        }
        Plant::GapLater => {
            let jumps: Vec<u64> = found
                .windows(2)
                .filter(|pair| offset(pair[0]) < offset(pair[1]))
                .map(|pair| pair[1] - 1)
                .collect();
            found.extend(jumps);
            found.sort_unstable();
        }
        _ => {}
    }
}

/// Looks as the clock of the case goes, and a last time when all of it is over.
fn fire(
    case: &Case,
    plant: Plant,
    spec: ScheduleSpec,
    mut expected: Expected,
    walked: &mut Walked,
) -> Result<(), String> {
    let id = ScheduleId::new("s").expect("a name");
    let mut state = ScheduleState::new(id.clone(), spec, at(case.from), Request::by("ada"));
    let mut fired = Vec::new();
    let (mut once, mut seen) = (BTreeSet::new(), 0);
    let mut now = case.from;
    let last = Move::On((case.to + 2 * 3600).saturating_sub(case.from));
    for step in case.moves.iter().copied().chain([last]) {
        let before = state.clone();
        match step {
            Move::On(seconds) => now += seconds,
            Move::Forward(seconds) => (now, walked.forward) = (now + seconds, walked.forward + 1),
            Move::Back(seconds) => (now, walked.back) = (now - seconds.min(now), walked.back + 1),
            Move::Dies(seconds) => {
                walked.deaths += 1;
                now += seconds;
                // What it had begun is not written: it looks, and dies before any of it is; the next one looks at once.
                if plant == Plant::FiresBeforeItIsWritten {
                    look(&mut state, now, &mut fired, plant);
                    state = before;
                }
                state = decode(&id, &encode(&state)).map_err(|error| error.to_string())?;
                if plant == Plant::ForgetsMark {
                    state.mark = state.created;
                }
                if plant == Plant::ForgetsMissed {
                    state.counts.missed = 0;
                }
                if plant == Plant::ForgetsFired {
                    (state.fired, state.mark) = (Default::default(), state.created);
                }
            }
        }
        // The last look is long after, so that nothing is left to come.
        if step == last {
            now = now.max(case.to + 2 * 3600);
        }
        walked.looks += 1;
        walked.missed += look(&mut state, now, &mut fired, plant);
        expected.look(now * 1000);
        if let Some(twice) = fired[seen..].iter().find(|instant| !once.insert(**instant)) {
            return Err(format!("{} fired twice, at a look at {}", Timestamp::from_millis(*twice), at(now)));
        }
        if fired.len() != expected.fired.len() || fired[seen..] != expected.fired[seen..] {
            let wrong = fired.iter().zip(&expected.fired).position(|(a, b)| a != b);
            let place = wrong.unwrap_or(fired.len().min(expected.fired.len()));
            let told = |list: &[u64]| list.get(place).map(|ms| Timestamp::from_millis(*ms).to_string());
            return Err(format!(
                "at a look at {} firing {place} is {:?} and should be {:?}",
                at(now),
                told(&fired),
                told(&expected.fired)
            ));
        }
        if state.counts.missed != expected.missed {
            return Err(format!(
                "at a look at {} {} were missed so far, and it should be {}",
                at(now),
                state.counts.missed,
                expected.missed
            ));
        }
        seen = fired.len();
    }
    walked.fired += fired.len() as u64;
    Ok(())
}

/// Does what is to be done now. Gives how many instants were missed.
fn look(state: &mut ScheduleState, now: u64, fired: &mut Vec<u64>, plant: Plant) -> u64 {
    let times = Times::of(state, &Zone::find).expect("it was read before");
    let mut missed = 0;
    loop {
        let mark = state.mark;
        let decision = decide(state, &times, at(now));
        missed += decision.skips.iter().filter(|skip| skip.why == SkipReason::Missed).count() as u64;
        let mut next = match decision.fire {
            Some(fire) => {
                fired.push(fire.firing.nominal.as_millis());
                let mut next = fire.state;
                // Runs are over at once: what is looked at is when they start.
                let ended =
                    Ended { status: Some(RunStatus::Succeeded), output: None, message: String::new() };
                next.ended(fire.firing.nominal, fire.firing.by, ended, at(now));
                next
            }
            None if decision.due.is_some_and(|due| due <= at(now)) => decision.state,
            None => {
                *state = decision.state;
                if plant == Plant::WaitsForTheClock {
                    state.mark = state.mark.max(mark);
                }
                return missed;
            }
        };
        if plant == Plant::WaitsForTheClock {
            next.mark = next.mark.max(mark);
        }
        *state = next;
    }
}
