//! Graphs as SVG pictures, by our own [`layout`]: one file that needs nothing else, readable on
//! light and on dark, every box with its words as a title.
//!
//! What follows from other dependencies is not drawn: `a` to `c` is left out where `a` leads to `b` and `b` to `c`. A
//! step stands where its lines are short, which may be below steps that run later. Pure and deterministic.

use std::fmt::Write as _;

use crate::graph::layout::{self, LayoutError, Line, MARGIN, Place, Size, between};
use crate::graph::render::Statuses;
use crate::graph::{Graph, Step, StepIx, StepKind};
use crate::run::StepStatus;

/// Height of the part above the picture: title and legend.
const HEAD: f64 = 64.0;
/// Height of a box with a title, and without one.
const TALL: f64 = 46.0;
const SHORT: f64 = 32.0;
/// How wide a box is at least and at most, for its title's sake; a name is always shown in full.
const NARROW: f64 = 112.0;
const WIDE: f64 = 236.0;
/// Width of a character of a name and of a title. Fonts differ, so these are on the wide side.
const NAME_CHAR: f64 = 7.4;
const TITLE_CHAR: f64 = 5.9;
/// Left of the words: the sign of the state.
const BEFORE: f64 = 30.0;
const AFTER: f64 = 12.0;

/// The graph as an SVG document. `heading` stands above it.
///
/// # Errors
/// When there are so many long lines that a picture would show nothing.
pub fn svg(graph: &Graph, statuses: Option<&Statuses>, heading: &str) -> Result<String, LayoutError> {
    let every = |graph: &Graph| 0..StepIx::try_from(graph.len()).expect("at most MAX_STEPS");
    let edges: Vec<(usize, usize)> = every(graph)
        .flat_map(|from| graph.dependents(from).iter().map(move |&to| (from as usize, to as usize)))
        .collect();
    let edges = layout::essential(graph.len(), &edges)?;
    let sizes: Vec<Size> = graph.steps().iter().map(size).collect();
    let laid = layout::lay_out(&sizes, &edges)?;

    let legend = legend(graph, statuses);
    let width = laid.width.max(2.0 * MARGIN + units(heading) * 10.0).max(2.0 * MARGIN + legend.width);
    let left = (width - laid.width) / 2.0;
    let height = laid.height + HEAD;
    let mut out = String::with_capacity(4096 + 600 * graph.len());
    put(
        &mut out,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\" role=\"img\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n\
             <rect class=\"page\" width=\"100%\" height=\"100%\"/>\n<text class=\"heading\" x=\"{MARGIN}\" y=\"34\">{}</text>\n{}",
            escaped(heading),
            escaped(heading),
            legend.text,
        ),
    );
    put(&mut out, format_args!("<g transform=\"translate({left:.1} {HEAD})\">\n"));
    lines(&mut out, graph, &laid.lines);
    for (step, place) in graph.steps().iter().zip(&laid.places) {
        let status = statuses.and_then(|all| all.get(&step.name)).copied();
        draw(&mut out, step, *place, status);
    }
    out.push_str("</g>\n</svg>\n");
    Ok(out)
}

/// Text of a document: nothing in it is markup, and what XML does not allow is a blank.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            c if c.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&c) => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// How a state is shown: class, sign and word. The colour is never the only carrier.
pub fn look(status: Option<StepStatus>) -> (&'static str, &'static str, &'static str) {
    match status {
        None => ("plain", "", ""),
        Some(StepStatus::Pending) => ("pending", "·", "pending"),
        Some(StepStatus::Ready) => ("pending", "○", "ready"),
        Some(StepStatus::Running) => ("running", "▶", "running"),
        Some(StepStatus::Waiting) => ("running", "…", "waiting"),
        Some(StepStatus::Backoff) => ("backoff", "↻", "waits to be tried again"),
        Some(StepStatus::Succeeded) => ("succeeded", "✓", "succeeded"),
        Some(StepStatus::Adopted) => ("adopted", "=", "adopted"),
        Some(StepStatus::Failed) => ("failed", "✗", "failed"),
        Some(StepStatus::CompensationFailed) => ("failed", "!", "could not be taken back"),
        Some(StepStatus::Skipped) => ("out", "–", "skipped"),
        Some(StepStatus::Cancelled) => ("out", "×", "cancelled"),
        Some(StepStatus::Compensating) => ("back", "◀", "being taken back"),
        Some(StepStatus::Compensated) => ("back", "↩", "taken back"),
        Some(StepStatus::Kept) => ("kept", "k", "kept"),
    }
}

/// Colours on light and on dark. Viewers that know no media queries show the light ones.
pub const STYLE: &str = "\
text{font-family:ui-sans-serif,system-ui,'Segoe UI','DejaVu Sans',sans-serif}
.page{fill:#ffffff}.heading{font-size:17px;font-weight:600;fill:#0f172a}.small{font-size:11px;fill:#475569}
.name{font-family:ui-monospace,'SF Mono','DejaVu Sans Mono',monospace;font-size:12px;fill:#0f172a}
.line{fill:none;stroke:#94a3b8;stroke-width:1.5}.tip{fill:#94a3b8}.line:hover{stroke:#0f172a;stroke-width:2.5}
.box{fill:#ffffff;stroke:#94a3b8;stroke-width:1.3}.under{fill:#ffffff;stroke:#94a3b8;stroke-width:1.3}
.sign{font-size:11px;font-weight:700;fill:#ffffff;text-anchor:middle}.dot{fill:#64748b}
.plain .dot{fill:#cbd5e1}.pending .box{stroke-dasharray:4 3}.pending .dot{fill:#94a3b8}
.running .box{fill:#e0f2fe;stroke:#0284c7;stroke-width:2}.running .dot{fill:#0284c7}
.backoff .box{fill:#fef3c7;stroke:#b45309}.backoff .dot{fill:#b45309}
.succeeded .box{fill:#ecfdf5;stroke:#34a673}.succeeded .dot{fill:#15803d}
.adopted .box{fill:#ecfeff;stroke:#0e9aa7}.adopted .dot{fill:#0e7490}
.failed .box{fill:#fee2e2;stroke:#dc2626;stroke-width:2}.failed .dot{fill:#dc2626}
.out .box{fill:#f1f5f9;stroke-dasharray:2 3}.out .name{fill:#64748b}.out .dot{fill:#94a3b8}
.back .box{fill:#f5f0ff;stroke:#8b5cf6}.back .dot{fill:#7c3aed}
.kept .box{fill:#fbf5e6;stroke:#a16207}.kept .dot{fill:#a16207}
@media (prefers-color-scheme:dark){
.page{fill:#0b1220}.heading,.name{fill:#e2e8f0}.small{fill:#a3b1c6}
.line{stroke:#51617a}.tip{fill:#51617a}.line:hover{stroke:#e2e8f0}
.box,.under{fill:#121c2f;stroke:#51617a}.sign{fill:#0b1220}
.plain .dot{fill:#51617a}.pending .dot{fill:#64748b}
.running .box{fill:#0c2a43;stroke:#38bdf8}.running .dot{fill:#38bdf8}
.backoff .box{fill:#33260c;stroke:#fbbf24}.backoff .dot{fill:#fbbf24}
.succeeded .box{fill:#0d2a20;stroke:#2f9e6e}.succeeded .dot{fill:#4ade80}
.adopted .box{fill:#0b2930;stroke:#22a6b8}.adopted .dot{fill:#22d3ee}
.failed .box{fill:#3a1216;stroke:#f87171}.failed .dot{fill:#f87171}
.out .box{fill:#151d2c}.out .name{fill:#8493aa}.out .dot{fill:#64748b}
.back .box{fill:#211742;stroke:#a78bfa}.back .dot{fill:#a78bfa}
.kept .box{fill:#2c2410;stroke:#d4a93a}.kept .dot{fill:#d4a93a}
}
";

/// Writing to a `String` cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes everything");
}

/// How wide a text is, in characters; those of East Asia take two.
fn units(text: &str) -> f64 {
    f64::from(text.chars().map(|c| if u32::from(c) >= 0x1100 { 2 } else { 1 }).sum::<u32>())
}

fn size(step: &Step) -> Size {
    let name = units(step.name.as_str()) * NAME_CHAR;
    let title = (units(&step.title) * TITLE_CHAR).min(WIDE - BEFORE - AFTER);
    let height = if step.title.is_empty() { SHORT } else { TALL };
    Size { width: (BEFORE + name.max(title) + AFTER).max(NARROW), height }
}

/// As much of a title as there is room for.
fn shortened(title: &str, width: f64) -> String {
    let room = width - BEFORE - AFTER;
    if units(title) * TITLE_CHAR <= room {
        return title.to_owned();
    }
    let mut kept = String::new();
    let mut used = TITLE_CHAR;
    for c in title.chars() {
        used += units(c.encode_utf8(&mut [0; 4])) * TITLE_CHAR;
        if used > room {
            break;
        }
        kept.push(c);
    }
    kept.truncate(kept.trim_end_matches([' ', ',', ';']).len());
    kept.push('…');
    kept
}

/// One path for all lines of a trunk, so that a pointer on it marks where it leads.
fn lines(out: &mut String, graph: &Graph, lines: &[Line]) {
    let mut from = 0;
    while from < lines.len() {
        let end =
            lines[from..].iter().position(|l| l.from != lines[from].from).map_or(lines.len(), |n| from + n);
        let mut drawn = std::collections::BTreeSet::new();
        let mut path = String::new();
        for line in &lines[from..end] {
            stretches(&mut path, line, &mut drawn);
        }
        let name = |ix: usize| escaped(graph.steps()[ix].name.as_str());
        let to: Vec<String> = lines[from..end].iter().map(|l| name(l.to)).collect();
        put(
            out,
            format_args!(
                "<path class=\"line\" d=\"{path}\"><title>{} → {}</title></path>\n",
                name(lines[from].from),
                to.join(", ")
            ),
        );
        from = end;
    }
    let mut tips: Vec<usize> = lines.iter().map(|l| l.to).collect();
    tips.sort_unstable();
    tips.dedup();
    for to in tips {
        if let Some(tip) = lines.iter().find(|l| l.to == to).and_then(|l| l.points.last()) {
            put(out, format_args!("<path class=\"tip\" d=\"M{:.1} {:.1}l-4 -7h8z\"/>\n", tip.x, tip.y));
        }
    }
}

/// The stretches of a line that are not drawn yet.
fn stretches(path: &mut String, line: &Line, drawn: &mut std::collections::BTreeSet<String>) {
    let mut stretch = String::new();
    let mut pen = false;
    for (n, pair) in line.points.windows(2).enumerate() {
        let (a, b) = (pair[0], pair[1]);
        if n % 2 == 0 && (b.y - a.y) < 0.05 {
            continue;
        }
        stretch.clear();
        if n % 2 == 0 || (a.x - b.x).abs() < 0.05 {
            put(&mut stretch, format_args!("V{:.1}", b.y));
        } else {
            let (c, d) = between(a, b);
            put(
                &mut stretch,
                format_args!("C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}", c.x, c.y, d.x, d.y, b.x, b.y),
            );
        }
        if !drawn.insert(format!("{:.1} {:.1}{stretch}", a.x, a.y)) {
            pen = false;
            continue;
        }
        if !std::mem::replace(&mut pen, true) {
            put(path, format_args!("M{:.1} {:.1}", a.x, a.y));
        }
        path.push_str(&stretch);
    }
}

fn draw(out: &mut String, step: &Step, place: Place, status: Option<StepStatus>) {
    let (class, sign, word) = look(status);
    let (width, height) = (place.size.width, place.size.height);
    put(out, format_args!("<g class=\"{class}\" transform=\"translate({:.1} {:.1})\">", place.x, place.y));
    let mut words = step.name.to_string();
    for (before, text) in [("\n", step.title.as_str()), ("\n", step.group.as_str()), ("\n", word)] {
        if !text.is_empty() {
            words.push_str(before);
            words.push_str(text);
        }
    }
    if !matches!(step.kind, StepKind::Activity { .. }) {
        words.push('\n');
        words.push_str(step.kind.word());
    }
    put(out, format_args!("<title>{}</title>", escaped(&words)));
    // What waits for somebody or an hour is round, a map is a pile, another run has a frame of its own.
    let round = match step.kind {
        StepKind::Gate { .. } | StepKind::Sleep { .. } | StepKind::Signal { .. } => height / 2.0,
        StepKind::Activity { .. } | StepKind::Map { .. } | StepKind::SubWorkflow { .. } => 7.0,
    };
    let rect = |out: &mut String, class: &str, x: f64, y: f64, w: f64, h: f64, r: f64| {
        put(
            out,
            format_args!(
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" rx=\"{r:.1}\"/>"
            ),
        );
    };
    match step.kind {
        StepKind::Map { .. } => {
            rect(out, "under", 4.0, 0.0, width - 8.0, height, round);
            rect(out, "box", 0.0, 0.0, width, height - 4.0, round);
        }
        StepKind::SubWorkflow { .. } => {
            rect(out, "under", 0.0, 0.0, width, height, round);
            rect(out, "box", 3.0, 3.0, width - 6.0, height - 6.0, round - 2.0);
        }
        StepKind::Activity { .. }
        | StepKind::Gate { .. }
        | StepKind::Sleep { .. }
        | StepKind::Signal { .. } => {
            rect(out, "box", 0.0, 0.0, width, height, round);
        }
    }
    let middle = height / 2.0;
    put(
        out,
        format_args!(
            "<circle class=\"dot\" cx=\"17\" cy=\"{middle:.1}\" r=\"{}\"/>",
            if sign.is_empty() { 4 } else { 8 }
        ),
    );
    if !sign.is_empty() {
        put(out, format_args!("<text class=\"sign\" x=\"17\" y=\"{:.1}\">{sign}</text>", middle + 4.0));
    }
    let name_at = if step.title.is_empty() { middle + 4.0 } else { 20.0 };
    put(
        out,
        format_args!(
            "<text class=\"name\" x=\"{BEFORE}\" y=\"{name_at:.1}\">{}</text>",
            escaped(step.name.as_str())
        ),
    );
    if !step.title.is_empty() {
        let title = escaped(&shortened(&step.title, width));
        put(out, format_args!("<text class=\"small\" x=\"{BEFORE}\" y=\"36\">{title}</text>"));
    }
    out.push_str("</g>\n");
}

struct Legend {
    text: String,
    width: f64,
}

/// How many steps stand where, in the signs of the picture.
fn legend(graph: &Graph, statuses: Option<&Statuses>) -> Legend {
    let mut legend = Legend { text: String::new(), width: 0.0 };
    let Some(all) = statuses else {
        let text = format!("{} steps", graph.len());
        put(&mut legend.text, format_args!("<text class=\"small\" x=\"{MARGIN}\" y=\"54\">{text}</text>\n"));
        return legend;
    };
    for &status in StepStatus::ALL {
        let count = graph.steps().iter().filter(|s| all.get(&s.name) == Some(&status)).count();
        if count == 0 {
            continue;
        }
        let (class, sign, word) = look(Some(status));
        let (x, words) = (MARGIN + legend.width, format!("{count} {word}"));
        put(
            &mut legend.text,
            format_args!(
                "<g class=\"{class}\"><circle class=\"dot\" cx=\"{:.1}\" cy=\"50\" r=\"8\"/><text class=\"sign\" x=\"{:.1}\" \
                 y=\"54\">{sign}</text></g><text class=\"small\" x=\"{:.1}\" y=\"54\">{words}</text>\n",
                x + 8.0,
                x + 8.0,
                x + 21.0
            ),
        );
        legend.width += 21.0 + units(&words) * 6.4 + 14.0;
    }
    legend
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Binding;
    use crate::id::{ActivityName, StepName};

    fn step(name: &str, title: &str, after: &[&str]) -> Step {
        let mut step = Step::activity(
            StepName::new(name).unwrap(),
            ActivityName::new("test.do").unwrap(),
            Binding::literal(()),
        );
        step.title = title.to_owned();
        step.after = after.iter().map(|a| StepName::new(*a).unwrap()).collect();
        step
    }

    fn graph() -> Graph {
        let hostile =
            "</title><script>alert(1)</script> & \"more\" \u{7} that goes on and on until it is cut";
        Graph::builder()
            .step(step("first", "", &[]))
            .step(step("second", hostile, &["first"]))
            .step(step("third", "Third", &["first", "second"]))
            .build()
            .unwrap()
    }

    #[test]
    fn words_are_never_markup_and_each_box_has_its_title() {
        let picture = svg(&graph(), None, "<heading> & 'more'").unwrap();
        assert!(!picture.contains("<script") && !picture.contains('\u{7}'), "{picture}");
        assert!(picture.contains("<title>&lt;heading&gt; &amp; &#39;more&#39;</title>"), "{picture}");
        assert!(picture.contains("<title>second\n&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt; &amp;"));
        assert_eq!(picture.matches("<g class=\"plain\"").count(), 3);
        // What follows from the others is not drawn.
        assert_eq!(picture.matches("class=\"line\"").count(), 2, "{picture}");
        assert!(picture.contains("<title>first → second</title>"), "{picture}");
        assert_eq!(picture, svg(&graph(), None, "<heading> & 'more'").unwrap());
        // Every element that is opened is closed, so that it is a document.
        for tag in ["svg", "g", "text", "title", "style", "path"] {
            let opened =
                picture.matches(&format!("<{tag}>")).count() + picture.matches(&format!("<{tag} ")).count();
            let alone = if tag == "path" { picture.matches("z\"/>").count() } else { 0 };
            assert_eq!(opened, alone + picture.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn states_have_a_class_a_sign_and_a_word() {
        let statuses: Statuses = graph()
            .steps()
            .iter()
            .map(|s| s.name.clone())
            .zip([StepStatus::Succeeded, StepStatus::Failed, StepStatus::Pending])
            .collect();
        let picture = svg(&graph(), Some(&statuses), "run lab").unwrap();
        for (class, sign, word) in
            [("succeeded", "✓", "succeeded"), ("failed", "✗", "failed"), ("pending", "·", "pending")]
        {
            assert!(picture.contains(&format!("<g class=\"{class}\" transform")), "{picture}");
            assert!(
                picture.contains(&format!(">{sign}</text>")) && picture.contains(&format!(">1 {word}<")),
                "{picture}"
            );
        }
        let mut looks: Vec<_> = StepStatus::ALL.iter().map(|s| look(Some(*s)).2).collect();
        looks.sort_unstable();
        looks.dedup();
        assert_eq!(looks.len(), StepStatus::ALL.len(), "each state has a word of its own");
        let signs: std::collections::BTreeSet<_> = StepStatus::ALL.iter().map(|s| look(Some(*s)).1).collect();
        assert_eq!(signs.len(), StepStatus::ALL.len(), "and a sign");
        for class in StepStatus::ALL.iter().map(|s| look(Some(*s)).0) {
            assert_eq!(STYLE.matches(&format!(".{class} .dot{{")).count(), 2, "{class} on light and on dark");
        }
    }

    #[test]
    fn titles_are_cut_to_their_box_and_names_are_not() {
        assert_eq!(shortened("short", 200.0), "short");
        let cut = shortened("a title, which is far too long for any box of a picture", 200.0);
        assert!(
            cut.ends_with('…') && units(&cut) * TITLE_CHAR <= 200.0 - BEFORE - AFTER + TITLE_CHAR,
            "{cut}"
        );
        let long = step("a-name-that-is-longer-than-any-title-may-be-and-still-shown-in-full", "t", &[]);
        assert!(size(&long).width > WIDE);
    }
}
