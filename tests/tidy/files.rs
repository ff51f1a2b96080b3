//! What every source file must have, and must not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::root;

/// Past so many lines one looks for the seam.
const LONG_LINES: usize = 800;

/// Files that are longer, each with the reason why it has no seam.
const LONG: &[(&str, &str)] = &[];

/// Sources of every crate, by path from the root.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = vec![root.clone()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the workspace").map(|e| e.expect("an entry")) {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    todo.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source is text");
                found.push((short(&root, &path), text));
            }
        }
    }
    assert!(found.len() > 50, "the sources were not found: {}", found.len());
    found.sort();
    found
}

fn short(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned()
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<_> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "files that do not open with `//!`: {silent:#?}");
}

#[test]
fn no_file_is_too_long() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        let listed = LONG.iter().any(|(long, _)| *long == path);
        if lines > LONG_LINES && !listed {
            wrong.push(format!("{path} has {lines} lines; find its seam, or list it with a reason"));
        }
        if lines <= LONG_LINES && listed {
            wrong.push(format!("{path} has only {lines} lines and is listed as long"));
        }
    }
    for (path, _) in LONG.iter().filter(|(path, _)| !root().join(path).exists()) {
        wrong.push(format!("{path} is listed as long and is not there"));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_test_is_ignored() {
    // Put together, so that this file is not found.
    let mark = ["#[", "ignore"].concat();
    let ignored: Vec<_> =
        sources().into_iter().filter(|(_, text)| text.contains(&mark)).map(|(path, _)| path).collect();
    assert!(ignored.is_empty(), "tests are ignored in {ignored:?}");
}

#[test]
fn nothing_is_left_to_do() {
    let marks = [["to", "do!("].concat(), ["unimplemen", "ted!("].concat(), ["FIX", "ME"].concat()];
    let mut found = Vec::new();
    for (path, text) in sources() {
        for mark in marks.iter().filter(|mark| text.contains(*mark)) {
            found.push(format!("{mark} in {path}"));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Codes as `DF0101` in a text.
fn codes(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("DF") {
        let code: String = text[at..].chars().take(6).collect();
        let before = text[..at].chars().next_back();
        let after = text[at..].chars().nth(6);
        let alone = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric());
        if code.len() == 6 && code[2..].bytes().all(|b| b.is_ascii_digit()) && alone(before) && alone(after) {
            found.insert(code);
        }
    }
    found
}

#[test]
fn every_error_code_has_its_page_and_every_page_its_code() {
    let pages_in = root().join("docs/errors");
    let Ok(folder) = fs::read_dir(&pages_in) else { return };
    let pages: BTreeSet<String> = folder
        .map(|entry| entry.expect("an entry").path())
        .filter_map(|path| path.file_stem().map(|s| s.to_string_lossy().into_owned()))
        .filter(|name| codes(name).contains(name))
        .collect();
    let used: BTreeSet<String> = sources()
        .iter()
        .filter(|(path, _)| !path.starts_with("tests/"))
        .flat_map(|(_, text)| codes(text))
        .collect();
    let without_page: Vec<_> = used.difference(&pages).collect();
    let without_code: Vec<_> = pages.difference(&used).collect();
    assert!(without_page.is_empty(), "codes without a page in docs/errors: {without_page:?}");
    assert!(without_code.is_empty(), "pages of codes that nothing gives: {without_code:?}");
}

#[test]
fn codes_are_recognised() {
    assert_eq!(
        codes("see DF0101, DF01012 and XDF0102 or \"DF0103\""),
        ["DF0101".into(), "DF0103".into()].into()
    );
}
