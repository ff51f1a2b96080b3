//! Seeds that once found a mistake in the engine, each with what it was. Taking the mend back turns them red.

use dssflow_tests::scenario::random;
use dssflow_tests::trial;

const FOUND: &[(u64, &str)] = &[
    (477, "a timer fell due while a commit was under way and was never looked at again"),
    (1_167, "the same, in a run that went forward"),
    (1_568, "a failed thing about to be replaced was forgotten by the rollback"),
    (2_095, "a clock set between two lives cut short the time for which absence must hold"),
    (3_755, "a refused attempt made the engine forget what an earlier one may have done"),
    (4_289, "as 2095, in another step"),
];

#[test]
fn seeds_that_found_something_stay_green() {
    for (seed, what) in FOUND {
        let outcome = trial::run(&random(*seed));
        assert!(outcome.violations.is_empty(), "DSSFLOW_SEED={seed}, {what}: {:?}", outcome.violations);
    }
}
