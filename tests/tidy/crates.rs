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

pub(crate) fn metadata() -> Metadata {
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

/// The files that `./test` hands to `tests_of`, and the names that it gives itself.
fn run_by_the_test_command() -> BTreeSet<String> {
    let script = std::fs::read_to_string(root().join("test")).expect("the test command");
    let mut names = BTreeSet::new();
    let areas = script.lines().map(str::trim_start);
    for line in areas.filter(|line| line.starts_with("area \"") || line.starts_with("lane_area \"")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        names.extend(words.windows(2).filter(|w| w[0] == "--test").map(|w| w[1].to_owned()));
        let Some((_, rest)) = line.split_once("$(tests_of ") else { continue };
        let (globs, _) = rest.split_once(')').expect("a bracket closes");
        let listing = std::process::Command::new("bash")
            .args(["-O", "nullglob", "-c", &format!("printf '%s\\n' {globs}")])
            .current_dir(root())
            .output()
            .expect("bash");
        for file in String::from_utf8_lossy(&listing.stdout).lines() {
            let file = file.strip_suffix("/main.rs").unwrap_or(file);
            let name = file.rsplit('/').next().unwrap_or(file);
            names.insert(name.trim_end_matches(".rs").to_owned());
        }
    }
    names
}

#[test]
fn the_test_command_runs_every_test() {
    let run = run_by_the_test_command();
    let metadata = metadata();
    let targets = metadata.packages.iter().flat_map(|package| &package.targets);
    let left_out: Vec<_> = targets
        .filter(|t| t.is_test())
        .map(|t| t.name.as_str())
        .filter(|name| !run.contains(*name))
        .collect();
    assert!(left_out.is_empty(), "tests that ./test does not run: {left_out:?}");
    assert!(run.len() > 20, "{run:?}");
}
