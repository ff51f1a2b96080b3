//! The docs as a book: SUMMARY.md names every page once, and every link between pages leads somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::root;

/// Pages that are no part of the book and whose links are held all the same.
const BESIDE: &[&str] = &["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "engine/README.md"];
/// The book's table of contents.
const SUMMARY: &str = "docs/SUMMARY.md";

/// Every page of the docs by its path from the root, SUMMARY.md included.
fn pages() -> BTreeMap<String, String> {
    let root = root();
    let mut found = BTreeMap::new();
    let mut todo = vec![root.join("docs")];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the docs").map(|e| e.expect("an entry").path())
        {
            if entry.is_dir() {
                todo.push(entry);
            } else if entry.extension().is_some_and(|e| e == "md") {
                let path = entry.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
                found.insert(path, fs::read_to_string(&entry).expect("a page is text"));
            }
        }
    }
    assert!(found.len() > 50, "the pages were not found: {}", found.len());
    found
}

/// A page's lines without code.
fn prose(page: &str) -> impl Iterator<Item = String> {
    let mut inside = false;
    page.lines().filter_map(move |line| {
        if line.trim_start().starts_with("```") {
            inside = !inside;
            return None;
        }
        // Every second part between backticks is code.
        (!inside).then(|| {
            line.split('`').enumerate().map(|(n, part)| if n % 2 == 0 { part } else { "x" }).collect()
        })
    })
}

/// Where the links of a page lead.
fn links(page: &str) -> Vec<String> {
    let targets = |line: String| -> Vec<String> {
        let parts = line.split("](").skip(1);
        parts.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
    };
    prose(page).flat_map(targets).collect()
}

/// The anchors of a page, as GitHub and mdBook make them of its headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in page.lines() {
        if line.starts_with("```") {
            inside = !inside;
        }
        let Some((_, heading)) =
            line.split_once("# ").filter(|(marks, _)| !inside && marks.chars().all(|c| c == '#'))
        else {
            continue;
        };
        let keeps = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
        let anchor: String =
            heading.trim().to_lowercase().chars().filter(keeps).collect::<String>().replace(' ', "-");
        let times = seen.entry(anchor.clone()).or_default();
        found.insert(if *times == 0 { anchor } else { format!("{anchor}-{times}") });
        *times += 1;
    }
    found
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

/// What is wrong with the links of a page.
fn dead(path: &str, page: &str) -> Vec<String> {
    let root = root();
    let mut wrong = Vec::new();
    for link in links(page).iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
        let (to, anchor) = link.split_once('#').unwrap_or((link, ""));
        let file = if to.is_empty() {
            root.join(path)
        } else {
            plain(&root.join(path).parent().expect("a page lies in a folder").join(to))
        };
        if !file.exists() {
            wrong.push(format!("{path}: {link} is not there"));
        } else if !anchor.is_empty() {
            let there = fs::read_to_string(&file).unwrap_or_default();
            if !anchors(&there).contains(anchor) {
                wrong.push(format!("{path}: {link}: there is no such heading"));
            }
        }
    }
    wrong
}

#[test]
fn the_summary_names_every_page_once() {
    let pages = pages();
    let named: Vec<String> = links(&pages[SUMMARY]).into_iter().map(|link| format!("docs/{link}")).collect();
    let mut wrong: Vec<String> = Vec::new();
    for page in pages.keys().filter(|page| *page != SUMMARY) {
        match named.iter().filter(|name| *name == page).count() {
            1 => {}
            0 => wrong.push(format!("{page} is not named")),
            n => wrong.push(format!("{page} is named {n} times")),
        }
    }
    wrong.extend(
        named.iter().filter(|name| !pages.contains_key(*name)).map(|name| format!("{name} is not there")),
    );
    assert!(wrong.is_empty(), "{SUMMARY}: {wrong:#?}");
}

#[test]
fn every_decision_is_in_the_index() {
    let pages = pages();
    let named: BTreeSet<String> =
        links(&pages["docs/decisions.md"]).into_iter().map(|link| format!("docs/{link}")).collect();
    let missing: Vec<_> =
        pages.keys().filter(|page| page.starts_with("docs/decisions/") && !named.contains(*page)).collect();
    assert!(missing.is_empty(), "docs/decisions.md does not name {missing:?}");
}

#[test]
fn every_link_leads_somewhere() {
    let mut pages = pages();
    for path in BESIDE {
        let page = fs::read_to_string(root().join(path)).expect("a page is text");
        pages.insert((*path).to_owned(), page);
    }
    assert!(pages.values().map(|page| links(page).len()).sum::<usize>() > 300, "the links were not found");
    let wrong: Vec<String> = pages.iter().flat_map(|(path, page)| dead(path, page)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn links_and_headings_are_recognised() {
    let page = "# One `two`: three\n[a](b.md#c) and ![d](e.svg)\n`[no](no)`\n```\n[no](no)\n# no\n```\n## Again\n## Again\n";
    assert_eq!(links(page), ["b.md#c", "e.svg"]);
    assert_eq!(anchors(page), ["one-two-three", "again", "again-1"].map(String::from).into());
    assert_eq!(dead("docs/site.md", "[x](nowhere.md) [y](store.md#nowhere) [z](store.md#formats)").len(), 2);
}
