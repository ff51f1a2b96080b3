//! Seeds that once found a mistake in the engine, each with what it was. Taking the mend back turns them red.

use dssflow_tests::scenario::{eventful, random};
use dssflow_tests::trial;

const FOUND: &[(u64, &str)] = &[
    (
        9,
        "a step stood in a waiting line behind another of its own run, which was not asked about because of it",
    ),
    (37, "the same"),
    (708, "the same"),
    (872, "the same"),
    (477, "a timer fell due while a commit was under way and was never looked at again"),
    (1_167, "the same, in a run that went forward"),
    (1_568, "a failed thing about to be replaced was forgotten by the rollback"),
    (2_095, "a clock set between two lives cut short the time for which absence must hold"),
    (3_755, "a refused attempt made the engine forget what an earlier one may have done"),
    (4_289, "as 2095, in another step"),
];

const EVENTFUL: &[(u64, &str)] = &[
    (11_239, "a clock set between an end and the rollback cut short the time for which absence must hold"),
    (15_123, "the same, in a child of a map"),
    (755, "recovery resumed a run that the run above had driven to its end since it was listed"),
    (1_768, "a repetition that failed without effect made the engine forget what had been there before"),
];

#[test]
fn eventful_seeds_that_found_something_stay_green() {
    for (seed, what) in EVENTFUL {
        let outcome = trial::run(&eventful(*seed));
        assert!(outcome.violations.is_empty(), "DSSFLOW_SEED={seed}, {what}: {:?}", outcome.violations);
    }
}

#[test]
fn seeds_that_found_something_stay_green() {
    for (seed, what) in FOUND {
        let outcome = trial::run(&random(*seed));
        assert!(outcome.violations.is_empty(), "DSSFLOW_SEED={seed}, {what}: {:?}", outcome.violations);
    }
}
