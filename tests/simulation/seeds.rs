//! Random worlds, by seed.

use std::sync::Mutex;
use std::time::Instant;

use dssflow_tests::moves::Moves;
use dssflow_tests::scenario::{Scenario, eventful, random};
use dssflow_tests::tally::Tally;
use dssflow_tests::trial;

use crate::{Failures, number, on_all_cores, pictures};

#[test]
fn random_worlds_lose_nothing() {
    worlds("simulation", random, |_| {});
}

#[test]
fn worlds_of_all_kinds_of_steps_lose_nothing() {
    worlds("eventful simulation", eventful, pictures::hold);
}

/// How many, unless somebody says otherwise.
const COUNT: u64 = 5_000;

/// `then` is called with what all worlds did when they were the usual ones.
fn worlds(what: &str, make: impl Fn(u64) -> Scenario + Sync, then: impl FnOnce(&Moves)) {
    let base = number("DSSFLOW_SEED", 1);
    let one = std::env::var("DSSFLOW_SEED").is_ok() && std::env::var("DSSFLOW_SEEDS").is_err();
    let count = number("DSSFLOW_SEEDS", if one { 1 } else { COUNT });
    let begin = Instant::now();
    let (tally, failures) = (Mutex::new(Tally::default()), Failures::default());
    on_all_cores(count, |n| {
        let seed = base + n;
        let scenario = make(seed);
        let outcome = trial::run(&scenario);
        if n % 50 == 0 || one {
            let again = trial::run(&make(seed));
            if again.trace != outcome.trace {
                let at = again.trace.iter().zip(&outcome.trace).position(|(a, b)| a != b);
                let at = at.unwrap_or(again.trace.len().min(outcome.trace.len()));
                let text = format!(
                    "DSSFLOW_SEED={seed}: two executions differ from event {at}:\n{:?}\n{:?}",
                    outcome.trace.get(at),
                    again.trace.get(at)
                );
                failures.add(seed, text);
            }
        }
        if !outcome.violations.is_empty() {
            let trace = if one { outcome.trace.join("\n") } else { String::new() };
            failures.add(seed, format!("DSSFLOW_SEED={seed}: {}\n{trace}", outcome.violations.join("; ")));
        }
        tally.lock().expect("no thread panics with it").add(&outcome);
    });
    let tally = tally.into_inner().expect("no thread panics with it");
    println!("{what}: {tally} seconds={:.1} seed={base}", begin.elapsed().as_secs_f64());
    failures.assert_none(what);
    if (base, count) == (1, COUNT) {
        then(&tally.moves);
    }
    if count >= 1_000 {
        // Worlds of all kinds of steps have no store that only refuses.
        assert!(
            tally.troubles.len() >= 3 && tally.fates.len() == 8,
            "not every kind of trouble fired: {tally}"
        );
    }
}
