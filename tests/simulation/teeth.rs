//! Deliberate mistakes, each of which must turn the harness red. A harness that has never been red proves nothing.

use dssflow_tests::cloud::{Origin, Service};
use dssflow_tests::crash_store::{Sabotage, Trouble};
use dssflow_tests::deeds::Mistakes;
use dssflow_tests::scenario::{Ending, Plan, Scenario, Traits, random};
use dssflow_tests::{shapes, trial};

/// Violations found in random worlds and in enumerated ones that all share a mistake.
fn red(mistake: impl Fn(&mut Scenario)) -> Vec<String> {
    let mut found = Vec::new();
    for seed in 1..=150 {
        let mut scenario = random(seed);
        mistake(&mut scenario);
        found.extend(trial::run(&scenario).violations);
    }
    for mut scenario in shapes::all().into_iter().take(24) {
        mistake(&mut scenario);
        for at in 1..12 {
            let mut scenario = scenario.clone();
            scenario.troubles.push((at, Trouble::CrashAfter));
            found.extend(trial::run(&scenario).violations);
        }
    }
    found
}

#[track_caller]
fn assert_red(what: &str, expected: &str, mistake: impl Fn(&mut Scenario)) {
    let found = red(mistake);
    let fitting = found.iter().filter(|text| text.contains(expected)).count();
    println!("teeth: {what}: {} violations, {fitting} of them {expected:?}", found.len());
    assert!(fitting > 0, "{what} went unnoticed; found only {:?}", found.iter().take(5).collect::<Vec<_>>());
}

#[test]
fn a_store_that_acknowledges_before_it_writes() {
    assert_red("acknowledges early", "acts before durable", |s| s.sabotage = Some(Sabotage::AcknowledgesEarly));
}

#[test]
fn a_store_that_loses_an_acknowledged_tail() {
    assert_red("loses the tail", "stored", |s| s.sabotage = Some(Sabotage::LosesTail));
}

#[test]
fn a_probe_that_sees_nothing() {
    assert_red("blind probe", "live things are named", |s| {
        s.mistakes = Mistakes { blind: true, ..Mistakes::default() };
    });
}

#[test]
fn an_undo_that_only_says_so() {
    assert_red("forgetful undo", "orphan", |s| s.mistakes = Mistakes { forgetful: true, ..Mistakes::default() });
}

#[test]
fn an_undo_of_what_is_not_ours() {
    assert_red("greedy undo", "not ours", |s| s.mistakes = Mistakes { greedy: true, ..Mistakes::default() });
}

#[test]
fn a_token_that_survives_its_generation() {
    assert_red("same token", "lost", |s| s.mistakes = Mistakes { same_token: true, ..Mistakes::default() });
}

#[test]
fn a_change_without_its_old_value() {
    assert_red("careless change", "orphan", |s| s.mistakes = Mistakes { careless: true, ..Mistakes::default() });
}

#[test]
fn a_lock_that_is_not_declared() {
    let traits = Traits { locks: vec![("l".to_owned(), true)], ..Traits::default() };
    let mut found = Vec::new();
    for seed in 0..20 {
        let mut plan = Plan::default();
        plan.unlocked = true;
        for step in ["a", "b", "c"] {
            plan = plan.make(step, Service::Tagged, 0, false, false, &traits);
        }
        found.extend(trial::run(&plan.done("unlocked", seed)).violations);
    }
    assert!(found.iter().any(|text| text.contains("section of lock")), "{found:?}");
}

#[test]
fn a_step_that_never_comes_back() {
    // An attempt without a limit on a reply that never comes: nobody can end it, and the harness says so.
    let mut found = Vec::new();
    for seed in 0..40 {
        let mut plan = Plan::default();
        plan.endless = true;
        for step in ["a", "b", "c", "d"] {
            plan = plan.make(step, Service::Tagged, 0, false, false, &Traits::default());
        }
        let mut scenario = plan.done("endless", seed);
        scenario.budget = 10;
        found.extend(trial::run(&scenario).violations);
    }
    assert!(found.iter().any(|text| text.contains("stuck")), "{found:?}");
}

#[test]
fn a_strangers_thing_that_somebody_removes() {
    let plan = Plan::default()
        .plant("a", Service::Named, Origin::Stranger, false)
        .make("a", Service::Named, 0, false, true, &Traits { adopt: true, ..Traits::default() });
    let mut scenario = plan.done("adopts", 1);
    scenario.ending = Ending::RollbackAfter;
    assert!(trial::run(&scenario).violations.is_empty());
    scenario.mistakes = Mistakes { greedy: true, ..Mistakes::default() };
    assert!(!trial::run(&scenario).violations.is_empty());
}
