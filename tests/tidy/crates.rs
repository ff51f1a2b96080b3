//! Who may use whom.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use crate::root;

/// The crates of ours that each one may name. `None` means all: the command and the tests stand at the end.
const MAY_NAME: &[(&str, Option<&[&str]>)] = &[
    ("dssflow-engine", Some(&[])),
    ("dssflow-store", Some(&["dssflow-engine"])),
    ("dssflow-activities", Some(&["dssflow-engine"])),
    ("dssflow-workflows", Some(&["dssflow-engine", "dssflow-activities"])),
    ("dssflow-sandbox", Some(&[])),
    ("dssflow", None),
    ("dssflow-tests", None),
    ("dssflow-durability", Some(&["dssflow-engine", "dssflow-store"])),
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned(), "--locked".to_owned()])
        .exec()
        .expect("cargo metadata")
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let rules: BTreeMap<&str, Option<&[&str]>> = MAY_NAME.iter().copied().collect();
    let unknown: Vec<_> = ours.iter().filter(|name| !rules.contains_key(*name)).collect();
    assert!(
        unknown.is_empty(),
        "crates without a rule: {unknown:?}; add them to MAY_NAME and to ARCHITECTURE.md"
    );
    let gone: Vec<_> = rules.keys().filter(|name| !ours.contains(*name)).collect();
    assert!(gone.is_empty(), "rules for crates that are not there: {gone:?}");
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let Some(may) = rules[package.name.as_str()] else { continue };
        for dependency in package.dependencies.iter().filter(|d| ours.contains(d.name.as_str())) {
            // The sandbox uses none of ours, so that tests of any crate may run against it. The engine's examples show a
            // run that outlives its process, which takes a store on disk.
            let for_tests = dependency.kind == DependencyKind::Development
                && (dependency.name == "dssflow-sandbox"
                    || (package.name.as_str(), dependency.name.as_str())
                        == ("dssflow-engine", "dssflow-store"));
            if !for_tests && !may.contains(&dependency.name.as_str()) {
                wrong.push(format!("{} uses {} ({})", package.name, dependency.name, dependency.kind));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nobody_uses_the_tests() {
    let metadata = metadata();
    let users: Vec<_> = metadata
        .packages
        .iter()
        .filter(|p| {
            p.dependencies.iter().any(|d| {
                ["dssflow-tests", "dssflow-durability"].contains(&d.name.as_str())
                    && d.kind != DependencyKind::Unknown
            })
        })
        .map(|p| p.name.as_str())
        .collect();
    assert!(users.is_empty(), "{users:?}");
}

#[test]
fn every_crate_takes_the_lints_and_versions_of_the_workspace() {
    let mut wrong = Vec::new();
    for package in &metadata().packages {
        let text = std::fs::read_to_string(&package.manifest_path).expect("a manifest");
        if !text.contains("[lints]\nworkspace = true") {
            wrong.push(format!("{} does not take the workspace's lints", package.name));
        }
        let mut in_dependencies = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
            } else if in_dependencies
                && !line.is_empty()
                && !line.starts_with('#')
                && !line.contains("workspace = true")
            {
                wrong.push(format!("{}: {line:?} does not take the workspace's version", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
