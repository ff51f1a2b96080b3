//! Every write of small worlds, crashed before, after and in the middle, then resumed or rolled back. Sampling finds
//! what is likely; this finds what is possible.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dssflow_tests::crash_store::Trouble;
use dssflow_tests::scenario::{AfterCrash, Scenario, random_small};
use dssflow_tests::shapes;
use dssflow_tests::tally::Tally;
use dssflow_tests::trial;

use crate::{Failures, number, on_all_cores};

/// Scenarios that are enumerated when no number of points is given: those by hand, and random small ones.
const SCENARIOS: usize = 300;

struct Point<'a> {
    scenario: &'a Scenario,
    at: u64,
    trouble: Trouble,
    then: AfterCrash,
    /// A second crash so many commits later, in the recovery of the first.
    again: Option<u64>,
}

impl Point<'_> {
    fn scenario(&self) -> Scenario {
        let mut scenario = self.scenario.clone();
        scenario.troubles.push((self.at, self.trouble));
        if let Some(gap) = self.again {
            scenario.troubles.push((self.at + gap, Trouble::CrashAfter));
        }
        scenario.after_crash = self.then;
        scenario
    }
}

fn scenarios() -> impl Iterator<Item = Scenario> {
    shapes::kinds().into_iter().chain(shapes::all()).chain((1_000_000..).map(random_small))
}

/// How many commits a scenario takes when nobody crashes.
fn writes(scenario: &Scenario) -> u64 {
    let outcome = trial::run(scenario);
    assert!(outcome.violations.is_empty(), "{} without a crash: {:?}", scenario.name, outcome.violations);
    outcome.commits
}

fn try_all(what: &str, points: &[Point<'_>]) -> Tally {
    let (tally, failures, fired) = (Mutex::new(Tally::default()), Failures::default(), AtomicU64::new(0));
    on_all_cores(points.len() as u64, |n| {
        let point = &points[usize::try_from(n).expect("a length")];
        let outcome = trial::run(&point.scenario());
        fired.fetch_add(u64::from(outcome.troubles.contains_key(&point.trouble)), Ordering::Relaxed);
        if !outcome.violations.is_empty() {
            let text = format!(
                "{:?}, {:?} at write {} then {:?} (again: {:?}): {}\n{}",
                point.scenario.name,
                point.trouble,
                point.at,
                point.then,
                point.again,
                outcome.violations.join("; "),
                outcome.trace.join("\n")
            );
            failures.add(n, text);
        }
        tally.lock().expect("no thread panics with it").add(&outcome);
    });
    failures.assert_none(what);
    assert_eq!(fired.into_inner(), points.len() as u64, "{what}: not every point fired");
    tally.into_inner().expect("no thread panics with it")
}

#[test]
fn every_write_survives_every_crash() {
    let limit = number("DSSFLOW_POINTS", 20_000);
    let begin = Instant::now();
    let (mut all, mut total) = (Vec::new(), 0);
    for scenario in scenarios() {
        // Whole scenarios only: every write of each one that is begun. No limit at all is 0.
        if if limit > 0 { total >= limit } else { all.len() == SCENARIOS } {
            break;
        }
        let writes = writes(&scenario);
        total += writes * 6;
        all.push((scenario, writes));
    }
    let mut points = Vec::new();
    for (scenario, writes) in &all {
        for at in 1..=*writes {
            for trouble in Trouble::CRASHES {
                for then in [AfterCrash::Resume, AfterCrash::Rollback] {
                    points.push(Point { scenario, at, trouble, then, again: None });
                }
            }
        }
    }
    let used = all.len();
    let tally = try_all("enumeration", &points);
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "enumeration: scenarios={used} points={} fired={} {tally} seconds={seconds:.1}",
        points.len(),
        points.len()
    );
    assert!(limit > 0 && limit < 5_000 || used >= 50, "only {used} scenarios");
}

#[test]
fn every_write_survives_a_crash_in_the_recovery() {
    let begin = Instant::now();
    let all: Vec<Scenario> = shapes::all().into_iter().take(20).collect();
    let mut points = Vec::new();
    for scenario in &all {
        for at in 1..=writes(scenario) {
            for gap in 1..=6 {
                let then = if (at + gap) % 2 == 0 { AfterCrash::Resume } else { AfterCrash::Rollback };
                points.push(Point { scenario, at, trouble: Trouble::CrashBefore, then, again: Some(gap) });
            }
        }
    }
    let tally = try_all("pairs", &points);
    let second = tally.troubles.get(&Trouble::CrashAfter).copied().unwrap_or(0);
    let seconds = begin.elapsed().as_secs_f64();
    println!("pairs: points={} second_fired={second} {tally} seconds={seconds:.1}", points.len());
    assert!(second * 2 > points.len() as u64, "the second crash hardly ever fired");
}
