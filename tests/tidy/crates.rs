//! Who may use whom.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

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
];

/// The most crates the engine's tree may have, itself included.
const ENGINE_CRATES: usize = 80;

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
            // The sandbox uses none of ours, so that tests of any crate may run against it.
            let fake = dependency.name == "dssflow-sandbox" && dependency.kind == DependencyKind::Development;
            if !fake && !may.contains(&dependency.name.as_str()) {
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
            p.dependencies.iter().any(|d| d.name == "dssflow-tests" && d.kind != DependencyKind::Unknown)
        })
        .map(|p| p.name.as_str())
        .collect();
    assert!(users.is_empty(), "{users:?}");
}

/// Names in the tree of the engine's normal dependencies, without those of a platform that is not this one.
fn engine_tree() -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--package", "dssflow-engine", "--edges", "normal", "--prefix", "none"])
        .args(["--offline", "--locked", "--format", "{p}"])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn the_engine_stays_small_and_knows_no_edge() {
    let tree = engine_tree();
    assert!(tree.len() > 5, "the tree was not read: {tree:?}");
    assert!(tree.len() <= ENGINE_CRATES, "{} crates in the engine's tree: {tree:#?}", tree.len());
    let edge = |name: &str| {
        ["sled", "clap", "reqwest", "axum", "hyper"].contains(&name)
            || name.starts_with("aws-")
            || name.starts_with("dssflow-")
    };
    let unwanted: Vec<_> = tree
        .iter()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| edge(name) && *name != "dssflow-engine")
        .collect();
    assert!(unwanted.is_empty(), "the engine's tree has {unwanted:?}");
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
