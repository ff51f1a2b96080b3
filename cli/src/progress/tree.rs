//! A run as a tree in lines: headings, and below them steps. Pure.

use std::collections::{BTreeMap, BTreeSet};

use dssflow_engine::id::StepName;
use dssflow_engine::run::StepStatus;
use dssflow_engine::run::view::{RunView, StepView};
use dssflow_engine::time::Timestamp;

use super::Undo;
use super::maps::Maps;
use crate::describe;
use crate::ui::one_line;
use crate::width::{cut, wrap};

/// Steps under their headings, in the order of the reference architecture.
fn groups(view: &RunView) -> Vec<(&str, Vec<&StepView>)> {
    let mut groups: Vec<(&str, Vec<&StepView>)> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for step in &view.steps {
        let place = *places.entry(step.group.as_str()).or_insert_with(|| {
            groups.push((step.group.as_str(), Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(step);
    }
    groups.sort_by_key(|(group, _)| describe::place_of(group));
    groups
}

/// The widest the column of names gets.
const MAX_WIDTH: usize = 48;
/// What stands beside a name in its line: the sign, the state and how long it took.
const BESIDE: usize = 4 + 2 + 11 + 2 + 9;
/// The most items of a map that are shown one by one; of more, those that are done are counted.
const MAX_ITEMS: usize = 20;

/// Steps with their depth: the items of a map follow it and stand deeper.
fn nested<'v>(maps: &Maps<'v>, steps: &[&'v StepView]) -> Vec<(usize, &'v StepView)> {
    let here: BTreeSet<&StepName> = steps.iter().map(|s| &s.step).collect();
    let mut below: BTreeMap<&StepName, Vec<&StepView>> = BTreeMap::new();
    let mut above = Vec::new();
    for &step in steps {
        match maps.map_of(step).filter(|map| here.contains(map)) {
            Some(map) => below.entry(map).or_default().push(step),
            None => above.push(step),
        }
    }
    above
        .into_iter()
        .flat_map(|step| {
            let items = below.remove(&step.step).unwrap_or_default();
            std::iter::once((0, step)).chain(items.into_iter().map(|item| (1, item)))
        })
        .collect()
}

fn heading(group: &str) -> String {
    if group.is_empty() { "Steps".to_owned() } else { one_line(group) }
}

/// Whether nothing more happens to a step in the direction the run goes.
fn is_over(step: &StepView, rolling_back: bool) -> bool {
    if rolling_back {
        !step.live || matches!(step.status, StepStatus::Compensated | StepStatus::Kept)
    } else {
        step.status.is_done()
    }
}

/// Whether somebody would want to see the step now.
fn is_active(step: &StepView) -> bool {
    matches!(
        step.status,
        StepStatus::Running
            | StepStatus::Backoff
            | StepStatus::Waiting
            | StepStatus::Compensating
            | StepStatus::Failed
            | StepStatus::CompensationFailed
    )
}

/// Headings with what is under way below them, and a line on the whole.
pub(crate) fn live(view: &RunView, undo: &Undo, now: Timestamp) -> Vec<String> {
    let maps = Maps::of(view);
    let mut lines = Vec::new();
    for (group, steps) in groups(view) {
        let over = steps.iter().filter(|s| is_over(s, view.rolling_back)).count();
        let failed =
            steps.iter().any(|s| matches!(s.status, StepStatus::Failed | StepStatus::CompensationFailed));
        let sign = if failed {
            "✗"
        } else if over == steps.len() {
            if view.rolling_back { "↩" } else { "✓" }
        } else if steps.iter().any(|s| is_active(s)) {
            "▸"
        } else {
            "·"
        };
        lines.push(format!("{sign} {}  {over}/{}", heading(group), steps.len()));
        let active_steps: Vec<&StepView> = steps.into_iter().filter(|s| is_active(s)).collect();
        for (depth, step) in nested(&maps, &active_steps) {
            lines.push(format!("    {}{}", "  ".repeat(depth), active(&maps, step, undo, now)));
        }
    }
    let over = view.steps.iter().filter(|s| is_over(s, view.rolling_back)).count();
    let word = if view.rolling_back { "taken back" } else { "done" };
    let elapsed =
        describe::duration(now.since(undo.turned().filter(|_| view.rolling_back).unwrap_or(view.created)));
    lines.push(format!(
        "{} {}: {over}/{} {word}, {elapsed}",
        view.run,
        describe::words(view.status.as_str()),
        view.steps.len()
    ));
    lines
}

/// One step that is under way, with elapsed and usual time and its last sign of life.
fn active(maps: &Maps<'_>, step: &StepView, undo: &Undo, now: Timestamp) -> String {
    let mut line = format!("{} {}", describe::sign(step.status), step.step);
    if let Some(awaits) = describe::awaits(step, now) {
        put!(line, "  {awaits}");
        return line;
    }
    if let Some((done, all)) = maps.items(&step.step) {
        put!(line, "  {done}/{all}");
    }
    match step.status {
        StepStatus::Failed | StepStatus::CompensationFailed => {}
        StepStatus::Backoff => {
            if let Some(at) = step.wake {
                put!(line, "  next try in {}", describe::duration(at.since(now)));
            }
        }
        _ => {
            if let Some(at) = undo.begin(step) {
                put!(line, "  {}", describe::duration(now.since(at)));
            }
            if step.expected_ms.is_some_and(|ms| ms >= 10_000)
                && let Some(usual) = describe::usual(step)
            {
                put!(line, " ({usual})");
            }
        }
    }
    let last =
        step.heartbeat.as_ref().map(describe::details).or_else(|| step.error.as_ref().map(describe::error));
    if let Some(last) = last.filter(|l| !l.is_empty()) {
        put!(line, "  {last}");
    }
    line
}

/// Every step under its heading, as it stands at the end; in lines of so many columns, or as wide as they have to be.
pub(crate) fn whole(view: &RunView, undo: &Undo, now: Timestamp, columns: Option<usize>) -> Vec<String> {
    let longest = view.steps.iter().map(|s| s.step.as_str().len()).max().unwrap_or(0).min(MAX_WIDTH);
    // On a narrow terminal the state and the time count for more than what is common to the names.
    let width = columns.map_or(longest, |columns| longest.min(columns.saturating_sub(BESIDE)));
    let maps = Maps::of(view);
    let mut lines = Vec::new();
    for (group, steps) in groups(view) {
        lines.push(heading(group));
        let mut more = (0, 0);
        for (depth, step) in nested(&maps, &steps) {
            let map = maps.map_of(step).and_then(|map| maps.items(map));
            if map.is_some_and(|(_, all)| all > MAX_ITEMS) && (step.status.is_done() || more.1 >= MAX_ITEMS) {
                more.0 += 1;
                continue;
            }
            if depth == 0 {
                rest(&mut lines, &mut more);
            } else {
                more.1 += 1;
            }
            let (first, below) = line(view, &maps, (step, depth), width, undo, now);
            let Some(columns) = columns else {
                lines.push(first);
                lines.extend(below.iter().map(|(indent, text)| format!("{indent}{text}")));
                continue;
            };
            lines.push(cut(&first, columns));
            lines.extend(below.iter().flat_map(|(indent, text)| wrap(text, indent, columns)));
        }
        rest(&mut lines, &mut more);
    }
    lines
}

/// Says how many items of the map above are not shown.
fn rest(lines: &mut Vec<String>, (hidden, shown): &mut (usize, usize)) {
    if *hidden > 0 {
        lines.push(format!("    and {hidden} more items"));
    }
    (*hidden, *shown) = (0, 0);
}

/// The line of a step, and what stands below it, each with its indent.
fn line(
    view: &RunView,
    maps: &Maps<'_>,
    (step, depth): (&StepView, usize),
    width: usize,
    undo: &Undo,
    now: Timestamp,
) -> (String, Vec<(String, String)>) {
    let took = match (undo.begin(step), step.ended) {
        (Some(from), Some(to)) if from <= to => describe::duration(to.since(from)),
        (Some(from), None) if is_active(step) => describe::duration(now.since(from)),
        _ => String::new(),
    };
    let mut title = one_line(&step.title);
    if let Some((done, all)) = maps.items(&step.step) {
        title = format!("{done}/{all} items  {title}");
    }
    let indent = "  ".repeat(depth);
    let mut line = format!(
        "  {indent}{} {:<width$}  {:<11}  {took:>9}  {title}",
        describe::sign(step.status),
        step.step.as_str(),
        describe::words(step.status.as_str()),
    );
    line.truncate(line.trim_end().len());
    let mut below = Vec::new();
    if let Some(awaits) = describe::awaits(step, now).filter(|_| !view.status.is_end()) {
        below.push(awaits);
    } else if let (Some(error), false) = (&step.error, step.status.is_done()) {
        below.push(describe::error(error));
    }
    if let Some(reason) = &step.kept {
        below.push(format!("kept: {}", one_line(reason)));
    }
    (line, below.into_iter().map(|text| (format!("  {indent}    "), text)).collect())
}
