//! Small worlds written by hand, each for one thing that can go wrong: shapes of graphs, kinds of steps, and ends.
//! Every write of each of them is crashed in turn.

use dssflow_engine::event::CancelMode;
use dssflow_engine::graph::{OnParentClose, OnReject};
use dssflow_engine::run::{OnTrouble, RunOptions};

use crate::cloud::{Origin, Service};
use crate::scenario::{Child, Ending, Plan, Scenario, Traits};

fn after(steps: &[&str]) -> Traits {
    Traits { after: steps.iter().map(|s| (*s).to_owned()).collect(), attempts: 3, ..Traits::default() }
}

fn locked(steps: &[&str], lock: &str, exclusive: bool) -> Traits {
    Traits { locks: vec![(lock.to_owned(), exclusive)], ..after(steps) }
}

fn on(steps: &[&str], when: &str) -> Traits {
    Traits { when: Some(when.to_owned()), ..after(steps) }
}

use Service::{Named, Tagged, Tokened};

/// A shape: its name, its steps, the step that fails when one is to fail, and how many attempts at once.
type Shape = (&'static str, fn() -> Plan, &'static str, u32);

const SHAPES: &[Shape] = &[
    ("one create", || Plan::default().make("a", Tagged, 0, false, false, &after(&[])), "a", 1),
    ("one function", || Plan::default().ensure("a", &after(&[])), "a", 1),
    ("one setting", || Plan::default().set("a", false, &after(&[])), "a", 1),
    (
        "chain of creates",
        || {
            Plan::default()
                .make("a", Named, 0, false, false, &after(&[]))
                .make("b", Tokened, 0, false, false, &after(&["a"]))
                .make("c", Tagged, 0, false, true, &after(&["b"]))
        },
        "c",
        4,
    ),
    (
        "chain of settings",
        || {
            Plan::default().set("a", false, &after(&[])).set("b", true, &after(&["a"])).set(
                "c",
                false,
                &after(&["b"]),
            )
        },
        "c",
        4,
    ),
    (
        "chain of functions",
        || Plan::default().ensure("a", &after(&[])).ensure("b", &after(&["a"])).ensure("c", &after(&["b"])),
        "c",
        4,
    ),
    (
        "diamond",
        || {
            Plan::default()
                .make("a", Named, 0, false, false, &after(&[]))
                .set("b", false, &after(&["a"]))
                .ensure("c", &after(&["a"]))
                .make("d", Tagged, 0, false, false, &after(&["b", "c"]))
        },
        "d",
        4,
    ),
    (
        "fan out",
        || {
            Plan::default()
                .make("a", Tokened, 0, false, false, &after(&[]))
                .make("b", Named, 0, false, false, &after(&["a"]))
                .make("c", Tagged, 0, false, false, &after(&["a"]))
                .set("d", false, &after(&["a"]))
                .ensure("e", &after(&["a"]))
        },
        "c",
        3,
    ),
    (
        "fan in",
        || {
            Plan::default()
                .make("a", Tagged, 0, false, false, &after(&[]))
                .set("b", false, &after(&[]))
                .ensure("c", &after(&[]))
                .make("d", Named, 0, false, true, &after(&["a", "b", "c"]))
        },
        "d",
        2,
    ),
    (
        "two chains",
        || {
            Plan::default()
                .make("a", Named, 0, false, false, &after(&[]))
                .make("b", Tagged, 0, false, false, &after(&["a"]))
                .set("x", false, &after(&[]))
                .ensure("y", &after(&["x"]))
        },
        "b",
        2,
    ),
    (
        "one at a time",
        || {
            Plan::default()
                .make("a", Tagged, 0, false, false, &after(&[]))
                .make("b", Tagged, 0, false, false, &after(&[]))
                .set("c", false, &after(&[]))
        },
        "c",
        1,
    ),
    (
        "slow create with waiter",
        || {
            Plan::default()
                .make("a", Named, 20_000, false, false, &after(&[]))
                .wait("w", "a", &after(&["a"]))
                .make("b", Tagged, 0, false, false, &after(&["w"]))
        },
        "b",
        2,
    ),
    (
        "slow create that polls",
        || Plan::default().make("a", Tokened, 20_000, true, false, &after(&[])).ensure("b", &after(&["a"])),
        "b",
        2,
    ),
    (
        "condition that holds",
        || {
            Plan::default()
                .compute("q", true, &after(&[]))
                .make("a", Tagged, 0, false, false, &on(&["q"], "q"))
                .set("b", false, &after(&["a"]))
        },
        "b",
        2,
    ),
    (
        "condition that does not",
        || {
            Plan::default()
                .compute("q", false, &after(&[]))
                .make("a", Tagged, 0, false, false, &on(&["q"], "q"))
                .set("b", false, &after(&["a"]))
        },
        "b",
        2,
    ),
    (
        "exclusive lock",
        || {
            Plan::default()
                .make("a", Tagged, 0, false, false, &locked(&[], "settings", true))
                .set("b", false, &locked(&[], "settings", true))
                .ensure("c", &locked(&[], "settings", false))
        },
        "b",
        3,
    ),
    (
        "shared lock",
        || {
            Plan::default().ensure("a", &locked(&[], "l", false)).ensure("b", &locked(&[], "l", false)).make(
                "c",
                Tagged,
                0,
                false,
                false,
                &locked(&["a"], "l", true),
            )
        },
        "c",
        3,
    ),
    (
        "adopts a stranger's",
        || {
            Plan::default()
                .plant("a", Named, Origin::Stranger, false)
                .make("a", Named, 0, false, true, &Traits { adopt: true, ..after(&[]) })
                .make("b", Tagged, 0, false, false, &after(&["a"]))
        },
        "b",
        2,
    ),
    (
        "adopts an earlier run's",
        || {
            Plan::default()
                .plant("a", Named, Origin::EarlierRun, false)
                .make("a", Named, 0, false, true, &after(&[]))
                .set("b", false, &after(&["a"]))
        },
        "b",
        2,
    ),
    (
        "a stranger's in the way",
        || {
            Plan::default().set("z", false, &after(&[])).plant("a", Named, Origin::Stranger, true).make(
                "a",
                Named,
                0,
                false,
                true,
                &after(&["z"]),
            )
        },
        "a",
        2,
    ),
    (
        "a stranger's of a free name",
        || {
            Plan::default()
                .plant("a", Tagged, Origin::Stranger, false)
                .make("a", Tagged, 0, false, false, &after(&[]))
                .ensure("b", &after(&["a"]))
        },
        "b",
        2,
    ),
    (
        "protected in the middle",
        || {
            Plan::default()
                .make("a", Named, 0, false, false, &after(&[]))
                .make("b", Tagged, 0, false, false, &Traits { protect: true, ..after(&["a"]) })
                .set("c", false, &after(&["b"]))
        },
        "c",
        2,
    ),
];

const KINDS: &[Shape] = &[
    (
        "map of creates, two at once",
        || {
            Plan::default().map("m", Child::Make(Tagged), 3, 2, 0, &after(&[])).make(
                "z",
                Named,
                0,
                false,
                false,
                &after(&["m"]),
            )
        },
        "m[1]",
        4,
    ),
    (
        "map that tolerates one",
        || Plan::default().map("m", Child::Ensure, 3, 0, 1, &after(&[])).set("z", false, &after(&["m"])),
        "z",
        4,
    ),
    (
        "map of settings, one at a time",
        || Plan::default().map("m", Child::Set, 2, 1, 0, &after(&[])),
        "m[1]",
        2,
    ),
    (
        "gate between creates",
        || {
            Plan::default()
                .make("a", Tagged, 0, false, false, &after(&[]))
                .gate("g", None, OnReject::Continue, &after(&["a"]))
                .make("b", Named, 0, false, false, &after(&["g"]))
        },
        "b",
        2,
    ),
    (
        "gate with a limit",
        || {
            Plan::default()
                .ensure("a", &after(&[]))
                .gate("g", Some((20_000, Some(true))), OnReject::Continue, &after(&["a"]))
                .set("b", false, &after(&["g"]))
        },
        "b",
        2,
    ),
    (
        "sleep beside a create",
        || {
            Plan::default()
                .make("a", Tokened, 0, false, false, &after(&[]))
                .sleep("w", 30_000, &after(&["a"]))
                .make("b", Tagged, 0, false, false, &after(&["w"]))
                .ensure("c", &after(&["a"]))
        },
        "b",
        2,
    ),
    (
        "signal",
        || {
            Plan::default().set("a", false, &after(&[])).signal("s", None, &after(&["a"])).make(
                "b",
                Tagged,
                0,
                false,
                false,
                &after(&["s"]),
            )
        },
        "b",
        2,
    ),
    (
        "sub-workflow",
        || {
            let inner =
                Plan::default().make("i", Tagged, 0, false, false, &after(&[])).ensure("j", &after(&["i"]));
            Plan::default()
                .make("a", Named, 0, false, false, &after(&[]))
                .sub("s", inner, RunOptions::default(), OnParentClose::Cancel, &after(&["a"]))
                .set("z", false, &after(&["s"]))
        },
        "j",
        2,
    ),
    (
        "sub-workflow that goes on by itself",
        || {
            let inner = Plan::default().set("i", false, &after(&[])).make(
                "j",
                Tagged,
                0,
                false,
                false,
                &after(&["i"]),
            );
            Plan::default()
                .sub("s", inner, RunOptions::default(), OnParentClose::Abandon, &after(&[]))
                .ensure("z", &after(&[]))
        },
        "z",
        2,
    ),
    (
        "keyed lock, semaphore, rate",
        || {
            Plan::default()
                .make("a", Tagged, 0, false, false, &locked(&[], "l[x]", true))
                .set("b", false, &locked(&[], "l[x]", true))
                .ensure("c", &locked(&[], "permit-0", false))
                .ensure("d", &locked(&["c"], "rate-0", false))
        },
        "b",
        4,
    ),
];

/// Shapes with the kinds of steps that are more than a call, with every end.
pub fn kinds() -> Vec<Scenario> {
    every_end(KINDS, 1_001)
}

/// Shapes of plain steps: every one with every end.
pub fn all() -> Vec<Scenario> {
    every_end(SHAPES, 1)
}

fn every_end(shapes: &[Shape], from: u64) -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for (n, (name, plan, failing, parallelism)) in (from..).zip(shapes) {
        let make = |suffix: &str| {
            let mut s = plan().done(format!("{name}, {suffix}"), n);
            s.options.parallelism = *parallelism;
            s
        };
        scenarios.push(make("to the end"));

        let mut s = make("rolled back after its end");
        s.ending = Ending::RollbackAfter;
        scenarios.push(s);

        let mut s = make("fails for good and rolls back");
        s.refused.push((*failing).to_owned());
        (s.options.on_failure, s.options.on_exhausted) = (OnTrouble::Rollback, OnTrouble::Rollback);
        scenarios.push(s);

        let mut s = make("an undo is refused, then not");
        s.stubborn.push((*failing).to_owned());
        s.ending = Ending::RollbackAfter;
        scenarios.push(s);

        let mut s = make("cancelled with rollback");
        s.ending = Ending::CancelAt(300, CancelMode::Rollback);
        s.slow_store = true;
        scenarios.push(s);

        let mut s = make("calls go wrong");
        s.budget = 4;
        s.ending = if n % 2 == 0 { Ending::Forward } else { Ending::RollbackAfter };
        (s.options.on_failure, s.options.on_exhausted) = (OnTrouble::Pause, OnTrouble::Pause);
        scenarios.push(s);
    }
    scenarios
}
