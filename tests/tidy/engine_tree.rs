//! What an embedder compiles along with the engine: not much, and nothing of the edges.

use std::collections::BTreeSet;
use std::process::Command;

use crate::root;

/// The most crates the engine's tree may have, itself included.
const ENGINE_CRATES: usize = 80;

/// Names and versions in the tree of the engine's normal dependencies, without those of a platform that is not this
/// one.
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

/// A crate that embedders of the engine must not get: a store, a command line, a cloud, HTTP, another crate of ours.
fn is_edge(name: &str) -> bool {
    ["sled", "clap", "reqwest", "axum", "hyper"].contains(&name)
        || name.starts_with("aws-")
        || (name.starts_with("dssflow-") && name != "dssflow-engine")
}

#[test]
fn the_engine_stays_small_and_knows_no_edge() {
    let tree = engine_tree();
    assert!(
        tree.iter().any(|line| line.starts_with("dssflow-engine ")) && tree.len() > 5,
        "the tree was not read: {tree:#?}"
    );
    assert!(
        tree.len() <= ENGINE_CRATES,
        "{} crates in the engine's tree, at most {ENGINE_CRATES} are allowed: {tree:#?}",
        tree.len()
    );
    let edges: Vec<_> =
        tree.iter().filter(|line| line.split_whitespace().next().is_some_and(is_edge)).collect();
    assert!(edges.is_empty(), "the engine's tree has {edges:?} among {tree:#?}");
}

#[test]
fn edges_are_recognised() {
    assert!(["sled", "clap", "aws-config", "dssflow-store"].into_iter().all(is_edge));
    assert!(!["tokio", "dssflow-engine", "clap_lex"].into_iter().any(is_edge));
}
