//! Random runs with an operator who does anything: see [`super::simulation`] and [`super::invariants`].

use std::collections::BTreeMap;

use super::simulation::Sim;

#[test]
fn whatever_happens_the_state_holds_together_and_the_run_can_be_driven_to_an_end() {
    let (mut ends, mut verbs) = (BTreeMap::new(), BTreeMap::new());
    let (from, to) = match option_env!("DSSFLOW_SEED").and_then(|seed| seed.parse::<u64>().ok()) {
        Some(seed) => (seed, seed + 1),
        None => (0, 300),
    };
    for seed in from..to {
        let mut sim = Sim::new(seed);
        sim.chaos(120);
        sim.finish();
        sim.replay();
        *ends.entry(sim.status()).or_insert(0) += 1;
        for (verb, times) in std::mem::take(&mut sim.accepted) {
            *verbs.entry(verb).or_insert(0) += times;
        }
    }
    if to - from > 1 {
        assert!(ends.len() >= 5, "too few ends to mean anything: {ends:?}");
        assert!(verbs.len() == 9 && verbs.values().all(|n| *n > 1), "too few verbs: {verbs:?}");
    }
}
