//! Deliberate mistakes, each of which must turn the harness red. A harness that has never been red proves nothing.

use std::path::Path;

use dssflow_tests::cloud::{Origin, Service};
use dssflow_tests::crash_store::{Sabotage, Trouble};
use dssflow_tests::deeds::Mistake;
use dssflow_tests::scenario::{Ending, Plan, Scenario, Traits, random};
use dssflow_tests::{shapes, trial};

/// `./campaign teeth` plants the bugs in `tests/teeth` one by one. Here only that each still fits the code it is for.
#[test]
fn planted_bugs_still_fit() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = tests.parent().expect("it is a member of a workspace");
    let mut patches: Vec<_> = std::fs::read_dir(tests.join("teeth"))
        .expect("the planted bugs are there")
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    patches.sort();
    assert!(patches.len() >= 10, "{patches:?}");
    for patch in patches {
        let text = std::fs::read_to_string(&patch).expect("a readable patch");
        let (mut source, mut hunks) = (String::new(), 0);
        // Hunk by hunk: what it expects must stand in its file exactly once.
        let mut parts = text.split("\n@@ ");
        for line in parts.next().unwrap_or_default().lines() {
            if let Some(path) = line.strip_prefix("--- a/") {
                source = std::fs::read_to_string(root.join(path)).expect("the patched file is there");
            }
        }
        for part in parts {
            let lines = part.lines().skip(1).filter(|line| !line.starts_with('+'));
            let lines: Vec<&str> = lines.map(|line| line.get(1..).unwrap_or_default()).collect();
            let before = lines.join("\n");
            assert_eq!(source.matches(&before).count(), 1, "{} does not fit:\n{before}", patch.display());
            hunks += 1;
        }
        assert!(hunks > 0, "{} has nothing to plant", patch.display());
    }
}

/// Worlds that all share a mistake: enumerated ones with a crash each, then random ones.
fn worlds() -> impl Iterator<Item = Scenario> {
    let by_hand = shapes::all().into_iter().take(36).flat_map(|scenario| {
        (1..12).map(move |at| {
            let mut scenario = scenario.clone();
            scenario.troubles.push((at, Trouble::CrashAfter));
            scenario
        })
    });
    by_hand.chain((1..=600).map(random))
}

#[track_caller]
fn assert_red(what: &str, expected: &str, mistake: impl Fn(&mut Scenario)) {
    let (mut tried, mut other) = (0, Vec::new());
    for mut scenario in worlds() {
        tried += 1;
        mistake(&mut scenario);
        let found = trial::run(&scenario).violations;
        if let Some(text) = found.iter().find(|text| text.contains(expected)) {
            println!("teeth: {what}: red after {tried} worlds: {text}");
            return;
        }
        other.extend(found);
    }
    panic!(
        "{what} went unnoticed in {tried} worlds; found only {:?}",
        other.iter().take(5).collect::<Vec<_>>()
    );
}

#[test]
fn a_store_that_acknowledges_before_it_writes() {
    assert_red("acknowledges early", "acts before durable", |s| {
        s.sabotage = Some(Sabotage::AcknowledgesEarly);
    });
}

#[test]
fn a_store_that_loses_an_acknowledged_tail() {
    assert_red("loses the tail", "stored", |s| s.sabotage = Some(Sabotage::LosesTail));
}

#[test]
fn a_probe_that_sees_nothing() {
    assert_red("blind probe", "live things are named", |s| {
        s.mistake = Some(Mistake::BlindProbe);
    });
}

#[test]
fn an_undo_that_only_says_so() {
    assert_red("forgetful undo", "orphan", |s| s.mistake = Some(Mistake::ForgetfulUndo));
}

#[test]
fn an_undo_of_what_is_not_ours() {
    assert_red("greedy undo", "not ours", |s| s.mistake = Some(Mistake::GreedyUndo));
}

#[test]
fn a_token_that_survives_its_generation() {
    assert_red("same token", "lost", |s| s.mistake = Some(Mistake::SameToken));
}

#[test]
fn a_change_without_its_old_value() {
    assert_red("careless change", "orphan", |s| s.mistake = Some(Mistake::CarelessChange));
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
    let plan = Plan::default().plant("a", Service::Named, Origin::Stranger, false).make(
        "a",
        Service::Named,
        0,
        false,
        true,
        &Traits { adopt: true, ..Traits::default() },
    );
    let mut scenario = plan.done("adopts", 1);
    scenario.ending = Ending::RollbackAfter;
    assert!(trial::run(&scenario).violations.is_empty());
    scenario.mistake = Some(Mistake::GreedyUndo);
    assert!(!trial::run(&scenario).violations.is_empty());
}
