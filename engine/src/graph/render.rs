//! Graphs as text for people: layers on a terminal, DOT for Graphviz, Mermaid for pages.
//!
//! Pure and deterministic: the same graph and statuses give the same bytes. Pixels are for [`layout`](super::layout)
//! and [`svg`](super::svg), and nothing judges a graph; it was checked when it was built.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::graph::{Graph, Step, StepIx, StepKind};
use crate::id::StepName;
use crate::run::StepStatus;

/// Where the steps of a run stand, by name. Steps that are missing are drawn plainly.
pub type Statuses = BTreeMap<StepName, StepStatus>;

/// The graph in layers: every step stands one layer below the last step it waits for, so what stands in one layer
/// may run at once.
pub fn text(graph: &Graph, statuses: Option<&Statuses>) -> String {
    let mut out = String::new();
    let name_width = graph.steps().iter().map(|s| s.name.as_str().len()).max().unwrap_or(0);
    let status_width = statuses.map_or(0, |all| all.values().map(|s| s.as_str().len()).max().unwrap_or(0));
    for (number, layer) in layers(graph).iter().enumerate() {
        put(&mut out, format_args!("layer {}\n", number + 1));
        for &ix in layer {
            let step = graph.step(ix);
            put(&mut out, format_args!("  {:<name_width$}", step.name.as_str()));
            if let Some(all) = statuses {
                let status = all.get(&step.name).map_or("", |s| s.as_str());
                put(&mut out, format_args!("  {status:<status_width$}"));
            }
            let waits: Vec<&str> =
                graph.dependencies(ix).iter().map(|&d| graph.step(d).name.as_str()).collect();
            if !waits.is_empty() {
                put(&mut out, format_args!("  <- {}", waits.join(", ")));
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
        }
    }
    out
}

/// The graph for Graphviz, with a box around each heading.
pub fn dot(graph: &Graph, statuses: Option<&Statuses>) -> String {
    let mut out = String::from(
        "digraph workflow {\n  rankdir=LR;\n  node [shape=box, style=\"rounded,filled\", fillcolor=white];\n",
    );
    for (number, (group, steps)) in groups(graph).iter().enumerate() {
        let indent = if group.is_empty() { "  " } else { "    " };
        if !group.is_empty() {
            put(&mut out, format_args!("  subgraph cluster_{number} {{\n    label={};\n", quoted(group)));
        }
        for &ix in steps {
            let step = graph.step(ix);
            let status = statuses.and_then(|all| all.get(&step.name)).copied();
            let mut label = step.name.to_string();
            for line in [step.title.as_str(), status.map_or("", StepStatus::as_str)] {
                if !line.is_empty() {
                    label.push('\n');
                    label.push_str(line);
                }
            }
            put(&mut out, format_args!("{indent}{} [label={}", quoted(step.name.as_str()), quoted(&label)));
            if let Some(status) = status {
                put(&mut out, format_args!(", fillcolor=\"{}\"", colour(status)));
            }
            out.push_str("];\n");
        }
        if !group.is_empty() {
            out.push_str("  }\n");
        }
    }
    for (from, to) in edges(graph) {
        put(&mut out, format_args!("  {} -> {};\n", quoted(from.name.as_str()), quoted(to.name.as_str())));
    }
    out.push_str("}\n");
    out
}

/// The graph as a Mermaid flowchart, with a box around each heading.
pub fn mermaid(graph: &Graph, statuses: Option<&Statuses>) -> String {
    let mut out = String::from("flowchart LR\n");
    for (number, (group, steps)) in groups(graph).iter().enumerate() {
        if !group.is_empty() {
            put(&mut out, format_args!("  subgraph g{number}[\"{}\"]\n", entities(group)));
        }
        let indent = if group.is_empty() { "  " } else { "    " };
        for &ix in steps {
            let step = graph.step(ix);
            // Names may hold characters that are Mermaid's own, so nodes go by number.
            let (open, close) =
                if matches!(step.kind, StepKind::Gate { .. }) { ("{", "}") } else { ("[", "]") };
            put(&mut out, format_args!("{indent}s{ix}{open}\"{}", entities(step.name.as_str())));
            if !step.title.is_empty() {
                put(&mut out, format_args!("<br/>{}", entities(&step.title)));
            }
            put(&mut out, format_args!("\"{close}"));
            if let Some(status) = statuses.and_then(|all| all.get(&step.name)) {
                put(&mut out, format_args!(":::{status}"));
            }
            out.push('\n');
        }
        if !group.is_empty() {
            out.push_str("  end\n");
        }
    }
    for ix in indices(graph) {
        for &to in graph.dependents(ix) {
            put(&mut out, format_args!("  s{ix} --> s{to}\n"));
        }
    }
    if let Some(all) = statuses {
        for &status in StepStatus::ALL {
            if all.values().any(|s| *s == status) {
                put(&mut out, format_args!("  classDef {status} fill:{}\n", colour(status)));
            }
        }
    }
    out
}

/// Writing to a `String` cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes everything");
}

fn indices(graph: &Graph) -> impl Iterator<Item = StepIx> {
    0..StepIx::try_from(graph.len()).expect("a checked graph has at most MAX_STEPS steps")
}

fn edges(graph: &Graph) -> impl Iterator<Item = (&Step, &Step)> {
    indices(graph).flat_map(move |from| {
        graph.dependents(from).iter().map(move |&to| (graph.step(from), graph.step(to)))
    })
}

/// Steps by longest way from a start, each layer in topological order.
fn layers(graph: &Graph) -> Vec<Vec<StepIx>> {
    let mut depth = vec![0_usize; graph.len()];
    let mut layers: Vec<Vec<StepIx>> = Vec::new();
    for &ix in graph.order() {
        let below = graph.dependencies(ix).iter().map(|&d| depth[d as usize] + 1).max().unwrap_or(0);
        depth[ix as usize] = below;
        if layers.len() <= below {
            layers.resize(below + 1, Vec::new());
        }
        layers[below].push(ix);
    }
    layers
}

/// Steps under their headings, headings in the order in which the first of their steps can run.
fn groups(graph: &Graph) -> Vec<(&str, Vec<StepIx>)> {
    let mut groups: Vec<(&str, Vec<StepIx>)> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for &ix in graph.order() {
        let group = graph.step(ix).group.as_str();
        let place = *places.entry(group).or_insert_with(|| {
            groups.push((group, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(ix);
    }
    groups
}

/// A DOT string. Line breaks in it are Graphviz's own `\n`.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Text inside a Mermaid label.
fn entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("#quot;"),
            '#' => out.push_str("#35;"),
            '<' => out.push_str("#lt;"),
            '>' => out.push_str("#gt;"),
            '&' => out.push_str("#amp;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Light fills on which black text reads; the status stands in words as well.
fn colour(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Pending | StepStatus::Ready => "#ffffff",
        StepStatus::Running | StepStatus::Waiting => "#cfe8ff",
        StepStatus::Backoff => "#fff3c4",
        StepStatus::Succeeded => "#d3f2d3",
        StepStatus::Adopted => "#d9f0ee",
        StepStatus::Failed | StepStatus::CompensationFailed => "#ffd0cc",
        StepStatus::Skipped | StepStatus::Cancelled => "#e6e6e6",
        StepStatus::Compensating => "#ead9ff",
        StepStatus::Compensated => "#f3ecff",
        StepStatus::Kept => "#e8e0c8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Binding;
    use crate::id::ActivityName;

    fn step(name: &str, group: &str, after: &[&str]) -> Step {
        let mut step = Step::activity(
            StepName::new(name).unwrap(),
            ActivityName::new("test.do").unwrap(),
            Binding::literal(()),
        );
        step.group = group.to_owned();
        step.after = after.iter().map(|a| StepName::new(*a).unwrap()).collect();
        step
    }

    fn diamond() -> Graph {
        let mut left = step("left", "Middle", &["top"]);
        left.title = "Say \"hi\" & <go>".to_owned();
        Graph::builder()
            .step(step("top", "", &[]))
            .step(left)
            .step(step("right", "Middle", &["top"]))
            .step(step("bottom", "", &["left", "right"]))
            .build()
            .unwrap()
    }

    fn statuses() -> Statuses {
        [("top", StepStatus::Succeeded), ("left", StepStatus::Running)]
            .into_iter()
            .map(|(name, status)| (StepName::new(name).unwrap(), status))
            .collect()
    }

    #[test]
    fn text_shows_what_may_run_at_once() {
        assert_eq!(
            text(&diamond(), None),
            "layer 1\n  top\nlayer 2\n  left    <- top\n  right   <- top\nlayer 3\n  bottom  <- left, right\n"
        );
        let with = text(&diamond(), Some(&statuses()));
        assert!(
            with.starts_with("layer 1\n  top     succeeded\nlayer 2\n  left    running    <- top\n"),
            "{with}"
        );
    }

    #[test]
    fn dot_escapes_and_boxes() {
        let drawn = dot(&diamond(), Some(&statuses()));
        assert!(drawn.contains("subgraph cluster_1 {\n    label=\"Middle\";\n"), "{drawn}");
        assert!(
            drawn.contains(
                "\"left\" [label=\"left\\nSay \\\"hi\\\" & <go>\\nrunning\", fillcolor=\"#cfe8ff\"];"
            ),
            "{drawn}"
        );
        assert_eq!(drawn.matches(" -> ").count(), 4);
    }

    #[test]
    fn mermaid_escapes_and_marks() {
        let drawn = mermaid(&diamond(), Some(&statuses()));
        assert!(drawn.contains("s1[\"left<br/>Say #quot;hi#quot; #amp; #lt;go#gt;\"]:::running"), "{drawn}");
        assert!(
            drawn.contains("  s0 --> s1\n") && drawn.contains("classDef succeeded fill:#d3f2d3"),
            "{drawn}"
        );
        assert_eq!(drawn, mermaid(&diamond(), Some(&statuses())));
    }
}
