//! The picture of who uses whom, as the manifests say.

use dssflow_tests::diagram::{Named, svg};

use crate::crates::metadata;
use crate::is_written;

/// Each crate with what it is for, and its place in the picture: column and row.
const CRATES: &[(&str, &str, (f64, f64))] = &[
    ("dssflow", "the command, the daemon", (1.0, 0.0)),
    ("dssflow-workflows", "site in, graph out", (0.0, 1.0)),
    ("dssflow-activities", "AWS, DSS, hosts", (0.1, 2.0)),
    ("dssflow-engine", "the core and its loop", (1.0, 3.0)),
    ("dssflow-store", "sled, made safe", (1.6, 2.0)),
    ("dssflow-sandbox", "a cloud to try it in", (2.0, 1.0)),
];
const COLUMN: f64 = 250.0;
const ROW: f64 = 110.0;
/// Left of and above the first box.
const BEFORE: (f64, f64) = (124.0, 24.0);

#[test]
fn the_architecture_in_the_docs_is_that_of_the_manifests() {
    let boxes: Vec<Named> = CRATES
        .iter()
        .map(|(name, words, (column, row))| Named {
            name: (*name).to_owned(),
            words: (*words).to_owned(),
            look: ("plain", ""),
            at: (BEFORE.0 + column * COLUMN, BEFORE.1 + row * ROW),
        })
        .collect();
    let place = |name: &str| CRATES.iter().position(|(other, ..)| *other == name);
    let mut arrows = Vec::new();
    for package in &metadata().packages {
        let Some(from) = place(package.name.as_str()) else {
            assert!(
                ["dssflow-tests", "dssflow-durability"].contains(&package.name.as_str()),
                "{} has no place in docs/pictures/architecture.svg",
                package.name
            );
            continue;
        };
        let uses = package.dependencies.iter().filter(|d| d.kind == cargo_metadata::DependencyKind::Normal);
        arrows.extend(uses.filter_map(|d| place(&d.name)).map(|to| (from, to)));
    }
    arrows.sort_unstable();
    is_written("docs/pictures/architecture.svg", &svg("The crates, and who uses whom", &boxes, &arrows));
}
