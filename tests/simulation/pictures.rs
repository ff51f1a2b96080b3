//! What states runs and steps go through, for the docs: the changes that the simulated worlds made. The page has each state;
//! the pictures are made from the page and have those together that stand for the same.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use dssflow_engine::graph::svg::look;
use dssflow_engine::run::{RunStatus, StepStatus};
use dssflow_tests::diagram::{Named, around, svg};
use dssflow_tests::moves::Moves;

/// States that are one box: its name, the state of a step that it looks like, the states.
type Group<T> = (&'static str, StepStatus, &'static [T]);

const RUNS: &[Group<RunStatus>] = &[
    ("under way", StepStatus::Running, &[RunStatus::Pending, RunStatus::Running, RunStatus::Waiting]),
    ("paused", StepStatus::Backoff, &[RunStatus::Paused]),
    ("succeeded", StepStatus::Succeeded, &[RunStatus::Succeeded]),
    ("ended early", StepStatus::Failed, &[RunStatus::Failed, RunStatus::Cancelled, RunStatus::TimedOut]),
    ("rolling back", StepStatus::Compensating, &[RunStatus::RollingBack]),
    ("rolled back", StepStatus::Compensated, &[RunStatus::RolledBack]),
    ("stuck", StepStatus::CompensationFailed, &[RunStatus::RollbackStuck]),
];

const STEPS: &[Group<StepStatus>] = &[
    ("not begun", StepStatus::Pending, &[StepStatus::Pending, StepStatus::Ready]),
    ("under way", StepStatus::Running, &[StepStatus::Running, StepStatus::Backoff, StepStatus::Waiting]),
    ("done", StepStatus::Succeeded, &[StepStatus::Succeeded, StepStatus::Adopted, StepStatus::Skipped]),
    ("stopped", StepStatus::Failed, &[StepStatus::Failed, StepStatus::Cancelled]),
    ("going back", StepStatus::Compensating, &[StepStatus::Compensating]),
    ("taken back", StepStatus::Compensated, &[StepStatus::Compensated]),
    ("kept", StepStatus::Kept, &[StepStatus::Kept]),
    ("stuck", StepStatus::CompensationFailed, &[StepStatus::CompensationFailed]),
];

/// The page with every change, and what stands before its second part.
const PAGE: &str = "docs/reference/states.md";
const STEPS_PART: &str = "\n## Steps\n\n";
/// How the page and the pictures are written anew.
const ANEW: &str =
    "write it anew: DSSFLOW_WRITE_DOCS=1 cargo test --workspace --test simulation worlds_of_all";
/// So many changes on the page need not come up: some are so rare that other worlds may not have them.
const RARE: usize = 6;

/// How wide and high a picture is, and its boxes at most.
const SIZE: (f64, f64) = (300.0, 190.0);
const WIDEST: f64 = 210.0;

fn picture<T: Copy + Eq>(
    heading: &str,
    groups: &[Group<T>],
    all: &[T],
    name: fn(T) -> &'static str,
    moves: &BTreeSet<(T, T)>,
) -> String {
    let place =
        |status| groups.iter().position(|(.., of)| of.contains(&status)).expect("every state has its box");
    for &status in all {
        assert!(place(status) < groups.len());
    }
    let boxes = groups.iter().zip(around(u32::try_from(groups.len()).expect("few"), SIZE, WIDEST));
    let boxes: Vec<Named> = boxes
        .map(|(&(title, like, of), at)| {
            let (class, sign, _) = look(Some(like));
            let words: Vec<&str> = of.iter().map(|&status| name(status)).collect();
            Named { name: title.to_owned(), words: words.join(", "), look: (class, sign), at }
        })
        .collect();
    let arrows: BTreeSet<_> =
        moves.iter().map(|&(from, to)| (place(from), place(to))).filter(|(from, to)| from != to).collect();
    svg(heading, &boxes, &arrows.into_iter().collect::<Vec<_>>())
}

fn table<T: Copy + Eq>(all: &[T], name: fn(T) -> &'static str, moves: &BTreeSet<(T, T)>) -> String {
    let mut out = String::from("| from | to |\n|---|---|\n");
    for &from in all {
        let to = moves.iter().filter(|(f, _)| *f == from).map(|&(_, to)| format!("`{}`", name(to)));
        let to: Vec<String> = to.collect();
        writeln!(out, "| `{}` | {} |", name(from), to.join(", ")).expect("a string");
    }
    out
}

/// The changes that a part of the page names.
fn named<T: Copy + Ord>(part: &str, parse: fn(&str) -> Option<T>) -> BTreeSet<(T, T)> {
    let mut found = BTreeSet::new();
    for row in part.lines().filter(|line| line.starts_with("| `")) {
        let mut states = row.split('`').skip(1).step_by(2).map(|name| parse(name).expect("a state"));
        let from = states.next().expect("a row begins with a state");
        found.extend(states.map(|to| (from, to)));
    }
    found
}

/// Holds what the page names to what was seen: all of that is there, and hardly anything else.
fn compare<T: Copy + Ord>(
    what: &str,
    name: fn(T) -> &'static str,
    seen: &BTreeSet<(T, T)>,
    page: &BTreeSet<(T, T)>,
) {
    let show = |only: Vec<&(T, T)>| {
        only.iter().map(|(from, to)| format!("{} to {}", name(*from), name(*to))).collect()
    };
    let new: Vec<String> = show(seen.difference(page).collect());
    let gone: Vec<String> = show(page.difference(seen).collect());
    assert!(new.is_empty(), "{PAGE} does not know of {what} from {new:?}; {ANEW}");
    assert!(gone.len() <= RARE, "{PAGE} knows of {what} that do not come up any more, from {gone:?}; {ANEW}");
}

fn is_written(page: &str, now: &str) {
    let path = format!("{}/../docs/{page}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("DSSFLOW_WRITE_DOCS").is_some() {
        std::fs::write(&path, now).expect("a file of the docs");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == now, "docs/{page} is of another version; {ANEW}");
}

/// Holds the docs to what worlds of all kinds of steps did.
pub(crate) fn hold(moves: &Moves) {
    let (run, step) = (RunStatus::as_str, StepStatus::as_str);
    let path = format!("{}/../{PAGE}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("DSSFLOW_WRITE_DOCS").is_some() {
        let page = format!(
            "# States\n\nMade from the code: `DSSFLOW_WRITE_DOCS=1 cargo test --workspace --test simulation worlds_of_all` writes \
             it anew.\n\nThese are the changes that thousands of simulated worlds went through, with crashes, faults and people at \
             every moment. What lies between two writes of the store is seen by nobody and is left out. \
             [Concepts](../concepts.md) has the pictures.\n\n## Runs\n\n{}{STEPS_PART}{}",
            table(RunStatus::ALL, run, &moves.runs),
            table(StepStatus::ALL, step, &moves.steps),
        );
        std::fs::write(&path, page).expect("a page of the docs");
    }
    let page = std::fs::read_to_string(&path).expect("a page of the docs");
    let (runs, steps) = page.split_once(STEPS_PART).expect("two parts");
    let (runs, steps) = (named(runs, RunStatus::parse), named(steps, StepStatus::parse));
    compare("runs", run, &moves.runs, &runs);
    compare("steps", step, &moves.steps, &steps);
    is_written("pictures/run-states.svg", &picture("The states of a run", RUNS, RunStatus::ALL, run, &runs));
    is_written(
        "pictures/step-states.svg",
        &picture("The states of a step", STEPS, StepStatus::ALL, step, &steps),
    );
}
