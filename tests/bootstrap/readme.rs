//! What README shows of a first run is what a first run prints.

use std::collections::BTreeMap;

use crate::support::Home;

/// Stands in README for lines that are left out.
const CUT: &str = "…";

/// The block of README that begins with this line.
fn block(first: &str) -> Vec<&'static str> {
    let page = include_str!("../../README.md");
    let found = page.split("```").map(|part| part.trim_matches('\n')).find(|part| part.starts_with(first));
    found.unwrap_or_else(|| panic!("README has no block that begins with {first:?}")).lines().collect()
}

/// A line without how long something took, which differs each time.
fn timeless(line: &str) -> String {
    let (head, tail) = line.split_once(" after ").unwrap_or((line, ""));
    match tail.split_once(" (") {
        Some((_, rest)) => format!("{head} ({rest}"),
        None => line.to_owned(),
    }
}

/// The summary and the headings, as a run of the shipped site ended with `stdout`.
#[track_caller]
pub(crate) fn shows_what_is_printed(home: &Home, stdout: &str) {
    let mut printed = stdout.lines().map(timeless);
    for line in block("run bootstrap-sandbox: succeeded") {
        if line.trim() == CUT {
            continue;
        }
        let line = timeless(line);
        assert!(
            printed.any(|other| other == line),
            "README shows {line:?}, which is not printed, or not there:\n{stdout}"
        );
    }

    let view = home.json(&["runs", "get", "bootstrap-sandbox", "-o", "json"]);
    let steps = view["steps"].as_array().expect("steps");
    let mut of_heading: BTreeMap<&str, usize> = BTreeMap::new();
    for step in steps {
        *of_heading.entry(step["group"].as_str().unwrap_or_default()).or_default() += 1;
    }
    let mut headings = 0;
    for line in block("run bootstrap-sandbox\n") {
        let Some((sign, rest)) = line.split_once(' ') else { continue };
        if !["✓", "▸", "·"].contains(&sign) {
            continue;
        }
        let (heading, counts) = rest.split_once("  ").expect("a heading and its counts");
        let (done, all) = counts.split_once('/').expect("done and all");
        assert_eq!(of_heading.get(heading).map(ToString::to_string).as_deref(), Some(all), "README: {line}");
        assert_eq!(sign == "✓", done == all, "README: {line}");
        headings += 1;
    }
    assert!(headings > 3, "README shows no headings any more");
    let last = block("run bootstrap-sandbox\n").pop().expect("lines");
    assert!(
        last.contains(&format!("/{} done, ", steps.len())),
        "README: {last}; there are {} steps",
        steps.len()
    );
}
