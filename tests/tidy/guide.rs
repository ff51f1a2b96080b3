//! The engine's guide as pages of the book. It is written once, in the crate's documentation, where its programs are
//! compiled and run; the pages are made from that.

use std::fmt::Write as _;
use std::fs;

use crate::{is_written, root};

/// The modules of `dssflow_engine::guide`.
const GUIDE: &[&str] = &["guarantees", "idempotency", "compensation", "versioning", "schedules", "testing"];

/// A link of the crate's documentation as one of a page.
fn target(link: &str) -> Option<String> {
    let name = |rest: &str| GUIDE.contains(&rest).then(|| format!("{rest}.md"));
    link.strip_prefix("super::")
        .and_then(name)
        .or_else(|| link.strip_prefix("src/guide/")?.strip_suffix(".rs").and_then(name))
        .or_else(|| link.starts_with("examples/").then(|| format!("../../engine/{link}")))
        .or_else(|| link.contains("://").then(|| link.to_owned()))
}

/// A line of text with its links made those of a page; what only the crate's documentation can link is shown as it is.
fn relinked(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('[') {
        out.push_str(before);
        let Some((words, behind)) = after.split_once(']') else {
            out.push('[');
            rest = after;
            continue;
        };
        let link = behind.strip_prefix('(').and_then(|link| link.split_once(')'));
        match link {
            Some((link, behind)) => {
                match target(link) {
                    Some(target) => write!(out, "[{words}]({target})").expect("a string"),
                    None => out.push_str(words),
                }
                rest = behind;
            }
            // `[Name]` alone is a link there as well.
            None if words.starts_with('`') => {
                out.push_str(words);
                rest = behind;
            }
            None => {
                write!(out, "[{words}]").expect("a string");
                rest = behind;
            }
        }
    }
    out + rest
}

/// A page of text as it stands in the documentation of a crate: hidden lines of programs go, and links lead elsewhere.
fn page(text: &str, from: &str, title: &str) -> String {
    let mut out = format!(
        "# {title}\n\n<!-- Made from {from}: DSSFLOW_WRITE_DOCS=1 cargo test --workspace --test tidy -->\n\n"
    );
    let mut inside = false;
    let mut open = String::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            inside = !inside;
            let kind =
                if inside && kind.is_empty() { "rust" } else { kind.split(',').next().unwrap_or_default() };
            writeln!(out, "```{kind}").expect("a string");
            continue;
        }
        if inside {
            if line != "#" && !line.starts_with("# ") {
                writeln!(out, "{line}").expect("a string");
            }
            continue;
        }
        // A link may be broken over lines.
        open.push_str(line);
        if open.matches('[').count() > open.matches(']').count() || open.ends_with(']') {
            open.push('\n');
            continue;
        }
        let heading = if open.starts_with('#') { "#" } else { "" };
        writeln!(out, "{heading}{}", relinked(&open)).expect("a string");
        open.clear();
    }
    out
}

#[test]
fn the_guide_in_the_book_is_that_of_the_engine() {
    for name in GUIDE {
        let from = format!("engine/src/guide/{name}.rs");
        let source = fs::read_to_string(root().join(&from)).expect("a module of the guide");
        let text: Vec<&str> = source
            .lines()
            .map_while(|line| line.strip_prefix("//!"))
            .map(|line| line.strip_prefix(' ').unwrap_or(line))
            .collect();
        let (title, text) = text.split_first().expect("a first line");
        is_written(
            &format!("docs/guide/{name}.md"),
            &page(text.join("\n").trim(), &from, title.trim_end_matches('.')),
        );
    }
}

#[test]
fn the_readme_of_the_engine_is_a_page_of_the_book() {
    let from = "engine/README.md";
    let text = fs::read_to_string(root().join(from)).expect("a page");
    let (_, text) = text.split_once('\n').expect("a title");
    // Its headings are those of a page already.
    let made = page(text.trim(), from, "Embed the engine").replace("\n###", "\n##");
    is_written("docs/guide/embed.md", &made);
}

#[test]
fn links_of_the_crate_become_those_of_a_page() {
    assert_eq!(relinked("see [`idempotency`](super::idempotency)."), "see [`idempotency`](idempotency.md).");
    assert_eq!(
        relinked("[`Engine::start`](crate::Engine::start) and [`Lab`] and a[0]"),
        "`Engine::start` and `Lab` and a[0]"
    );
    assert_eq!(relinked("[map](examples/map.rs)"), "[map](../../engine/examples/map.rs)");
    let made = page("# One\n```\n# hidden\nshown\n```\n```text\nas it is\n```", "x", "Zero");
    assert!(made.ends_with("## One\n```rust\nshown\n```\n```text\nas it is\n```\n"), "{made}");
}
