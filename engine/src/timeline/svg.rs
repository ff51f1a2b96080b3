//! A run in time as an SVG picture: a row a step, a bar an attempt, thin lines for what waits, bands for what holds for
//! the whole run. Pure and deterministic.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Outcome, Row, Span, SpanKind, Timeline};
use crate::graph::svg::escaped;
use crate::time::Timestamp;

const MARGIN: f64 = 24.0;
const HEAD: f64 = 92.0;
const ROW: f64 = 24.0;
const BAR: f64 = 14.0;
/// The chart, and the room behind it for how long a row took.
const CHART: f64 = 880.0;
const BEHIND: f64 = 96.0;
/// Widths of characters of names and of small text, on the wide side.
const NAME_CHAR: f64 = 7.4;
const SMALL_CHAR: f64 = 6.3;
/// No bar is narrower.
const LEAST: f64 = 2.5;
/// The most lines of the grid.
const TICKS: u64 = 9;

/// Distances of grid lines, in milliseconds.
const STEPS: [u64; 30] = [
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    900_000,
    1_800_000,
    3_600_000,
    7_200_000,
    10_800_000,
    21_600_000,
    43_200_000,
    86_400_000,
    172_800_000,
    604_800_000,
    2_592_000_000,
];

/// The run as an SVG document.
pub fn svg(timeline: &Timeline) -> String {
    let rows: Vec<&Row> = timeline.rows.iter().filter(|row| !row.spans.is_empty()).collect();
    let longest = rows.iter().map(|row| row.step.as_str().chars().count()).max().unwrap_or(0);
    let label = MARGIN + count(longest) * NAME_CHAR + 14.0;
    let height = HEAD + count(rows.len()) * ROW + MARGIN;
    let heading = format!("{}: {}", timeline.run, timeline.status.as_str().replace('_', " "));
    let under = format!(
        "{}, {} from {}",
        timeline.workflow,
        length(timeline.length_ms()),
        timeline.begin.to_string().get(..19).unwrap_or_default().replace('T', " ")
    );
    let scale = Scale { begin: timeline.begin, length: timeline.length_ms().max(1), left: label };
    let legend = legend(timeline);
    let width = (label + CHART + BEHIND)
        .max(2.0 * MARGIN + count(heading.chars().count()) * 10.0)
        .max(2.0 * MARGIN + legend.1);
    let mut out = String::with_capacity(8192 + 400 * rows.len());
    put(
        &mut out,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\" role=\"img\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n{HATCHES}\
             <rect class=\"page\" width=\"100%\" height=\"100%\"/>\n<text class=\"heading\" x=\"{MARGIN}\" y=\"32\">{}</text>\n\
             <text class=\"small\" x=\"{MARGIN}\" y=\"50\">{} UTC</text>\n{}",
            escaped(&heading),
            escaped(&heading),
            escaped(&under),
            legend.0,
        ),
    );
    let bottom = height - MARGIN;
    for span in &timeline.run_spans {
        let (x, w) = scale.bar(span);
        put(
            &mut out,
            format_args!(
                "<rect class=\"{}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{w:.1}\" height=\"{:.1}\">{}</rect>\n",
                class(span),
                HEAD - 6.0,
                bottom - HEAD + 6.0,
                title(span, timeline.begin)
            ),
        );
    }
    grid(&mut out, &scale, bottom);
    for (n, row) in rows.iter().enumerate() {
        draw(&mut out, row, &scale, HEAD + count(n) * ROW, timeline.begin);
    }
    out.push_str("</svg>\n");
    out
}

/// As `350 ms`, `42 s`, `3 min 5 s`, `2 h 4 min`.
pub(super) fn length(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms} ms"),
        1..10 if ms % 1000 >= 100 => format!("{s}.{} s", ms % 1000 / 100),
        1..120 => format!("{s} s"),
        120..7200 if s.is_multiple_of(60) => format!("{} min", s / 60),
        120..7200 => format!("{} min {} s", s / 60, s % 60),
        7200..172_800 if s % 3600 < 60 => format!("{} h", s / 3600),
        7200..172_800 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ if s % 86_400 < 3600 => format!("{} d", s / 86_400),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Writing to a `String` cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes everything");
}

fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

struct Scale {
    begin: Timestamp,
    length: u64,
    left: f64,
}

impl Scale {
    #[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
    fn x(&self, at: Timestamp) -> f64 {
        let since = at.as_millis().saturating_sub(self.begin.as_millis()).min(self.length);
        self.left + CHART * since as f64 / self.length as f64
    }

    fn bar(&self, span: &Span) -> (f64, f64) {
        let (x, end) = (self.x(span.begin), self.x(span.end));
        ((x).min(self.left + CHART - LEAST), (end - x).max(LEAST))
    }
}

fn class(span: &Span) -> &'static str {
    match (span.kind, span.outcome) {
        (SpanKind::Backoff, _) => "backoff",
        (SpanKind::Queue, _) => "queue",
        (SpanKind::Wait, _) => "wait",
        (SpanKind::Paused, _) => "paused",
        (SpanKind::Unowned, _) => "unowned",
        (SpanKind::RollingBack, _) => "rolling",
        (_, Outcome::Failed) => "failed",
        (_, Outcome::Lost) => "lost",
        (_, Outcome::Left) => "left",
        (SpanKind::Compensate, _) => "back",
        (SpanKind::Probe, _) => "probe",
        (SpanKind::Children, _) => "children",
        (_, Outcome::Open) => "open",
        (_, Outcome::Adopted) => "adopted",
        (SpanKind::Execute | SpanKind::Mark, Outcome::Done | Outcome::Answered) => "done",
    }
}

/// What a class of bars means, in the order of the legend.
const MEANINGS: [(&str, &str); 14] = [
    ("done", "attempt, done"),
    ("open", "under way"),
    ("adopted", "adopted"),
    ("failed", "attempt, failed"),
    ("lost", "attempt, lost"),
    ("probe", "look"),
    ("back", "taking back"),
    ("children", "children of a map"),
    ("left", "left, skipped"),
    ("backoff", "waits for the next try"),
    ("queue", "waits for a lock or slot"),
    ("wait", "waits for somebody or an hour"),
    ("paused", "paused"),
    ("unowned", "driven by nobody"),
];

fn legend(timeline: &Timeline) -> (String, f64) {
    let used: BTreeSet<&str> =
        timeline.rows.iter().flat_map(|row| &row.spans).chain(&timeline.run_spans).map(class).collect();
    let (mut out, mut x) = (String::new(), MARGIN);
    for (class, words) in MEANINGS.iter().filter(|(class, _)| used.contains(class)) {
        let thin = matches!(*class, "backoff" | "queue" | "wait");
        let (y, height) = if thin { (64.0, 4.0) } else { (60.0, 11.0) };
        put(
            &mut out,
            format_args!(
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" width=\"18\" height=\"{height}\" rx=\"2\"/>\
                 <text class=\"small\" x=\"{:.1}\" y=\"69.5\">{words}</text>\n",
                x + 24.0
            ),
        );
        x += 24.0 + count(words.len()) * SMALL_CHAR + 16.0;
    }
    (out, x)
}

fn grid(out: &mut String, scale: &Scale, bottom: f64) {
    let step = STEPS.into_iter().find(|step| scale.length / step <= TICKS).unwrap_or(scale.length);
    let mut at = 0;
    while at <= scale.length {
        let x = scale.x(scale.begin + std::time::Duration::from_millis(at));
        put(
            out,
            format_args!(
                "<path class=\"grid\" d=\"M{x:.1} {:.1}V{bottom:.1}\"/><text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>\n",
                HEAD - 6.0,
                HEAD - 10.0,
                if at == 0 { "0".to_owned() } else { length(at) }
            ),
        );
        at += step;
    }
}

fn title(span: &Span, begin: Timestamp) -> String {
    let from = length(span.begin.as_millis().saturating_sub(begin.as_millis()));
    let what = match span.kind {
        SpanKind::Execute => "attempt",
        SpanKind::Probe => "look",
        SpanKind::Compensate => "taking back",
        SpanKind::Backoff => "waits for the next try",
        SpanKind::Queue => "waits",
        SpanKind::Wait => "waits for somebody or an hour",
        SpanKind::Children => "children",
        SpanKind::Mark => "decided",
        SpanKind::Paused => "paused",
        SpanKind::Unowned => "driven by nobody",
        SpanKind::RollingBack => "taking back what the run made",
    };
    let number = span.attempt.map_or_else(String::new, |n| format!(" {n}"));
    let ended = match span.outcome {
        Outcome::Open => ", not over",
        Outcome::Failed => ", failed",
        Outcome::Lost => ", lost",
        Outcome::Adopted => ", adopted",
        Outcome::Done | Outcome::Answered | Outcome::Left => "",
    };
    let note = if span.note.is_empty() { String::new() } else { format!("\n{}", span.note) };
    let took =
        if span.kind == SpanKind::Mark { String::new() } else { format!(", {}", length(span.length_ms())) };
    format!("<title>{}</title>", escaped(&format!("{what}{number}{ended}{took}, from {from}{note}")))
}

fn draw(out: &mut String, row: &Row, scale: &Scale, y: f64, begin: Timestamp) {
    let name = escaped(row.step.as_str());
    let words: Vec<&str> =
        [row.step.as_str(), &row.title, &row.group].into_iter().filter(|w| !w.is_empty()).collect();
    put(
        out,
        format_args!(
            "<g><title>{}</title><text class=\"name\" x=\"{MARGIN}\" y=\"{:.1}\">{name}</text></g>\n",
            escaped(&words.join("\n")),
            y + 15.5
        ),
    );
    let (mut end, mut work) = (scale.left, 0);
    for span in &row.spans {
        let (x, w) = scale.bar(span);
        let (top, height, round) = match span.kind {
            SpanKind::Backoff | SpanKind::Queue | SpanKind::Wait => (y + ROW / 2.0 - 2.0, 4.0, 2.0_f64),
            SpanKind::Execute
            | SpanKind::Probe
            | SpanKind::Compensate
            | SpanKind::Children
            | SpanKind::Mark
            | SpanKind::Paused
            | SpanKind::Unowned
            | SpanKind::RollingBack => (y + (ROW - BAR) / 2.0, BAR, 3.0),
        };
        put(
            out,
            format_args!(
                "<rect class=\"{}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{w:.1}\" height=\"{height}\" rx=\"{:.1}\">{}</rect>\n",
                class(span),
                round.min(w / 2.0),
                title(span, begin)
            ),
        );
        end = x + w;
        if span.is_attempt() {
            work += span.length_ms();
        }
    }
    let tries = row.spans.iter().filter(|s| s.kind == SpanKind::Execute).count();
    let times = if tries > 1 { format!(" ×{tries}") } else { String::new() };
    if work > 0 || tries > 1 {
        put(
            out,
            format_args!(
                "<text class=\"small\" x=\"{:.1}\" y=\"{:.1}\">{}{times}</text>\n",
                end + 6.0,
                y + 15.5,
                length(work)
            ),
        );
    }
}

const HATCHES: &str = "<defs><pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
    patternTransform=\"rotate(45)\"><rect class=\"hatch\" width=\"2\" height=\"6\"/></pattern></defs>\n";

/// Colours on light and on dark. Viewers that know no media queries show the light ones.
const STYLE: &str = "\
text{font-family:ui-sans-serif,system-ui,'Segoe UI','DejaVu Sans',sans-serif}
.page{fill:#ffffff}.heading{font-size:17px;font-weight:600;fill:#0f172a}.small{font-size:11px;fill:#475569}
.name{font-family:ui-monospace,'SF Mono','DejaVu Sans Mono',monospace;font-size:12px;fill:#0f172a}
.tick{font-size:10.5px;fill:#64748b;text-anchor:middle}.grid{stroke:#e2e8f0;stroke-width:1;fill:none}
.done{fill:#3fae7a}.open{fill:#38a3e0}.adopted{fill:#22a6b8}.failed{fill:#e04848}.lost{fill:#f0a35e}
.probe{fill:#8fa3bf}.back{fill:#8b5cf6}.left{fill:#cbb26a}.children{fill:#cdeadb;stroke:#3fae7a;stroke-width:1}
.backoff{fill:#e0a21b}.queue{fill:#94a3b8}.wait{fill:#7dc4ef}
.paused{fill:#eef2f7}.unowned{fill:url(#hatch)}.hatch{fill:#dfe5ee}.rolling{fill:#f4effe}
@media (prefers-color-scheme:dark){
.page{fill:#0b1220}.heading,.name{fill:#e2e8f0}.small{fill:#a3b1c6}.tick{fill:#8493aa}.grid{stroke:#1e2a40}
.done{fill:#35966a}.open{fill:#38bdf8}.adopted{fill:#22a6b8}.failed{fill:#f05252}.lost{fill:#d98a45}
.probe{fill:#7388a6}.back{fill:#a78bfa}.left{fill:#a8914e}.children{fill:#123127;stroke:#35966a}
.backoff{fill:#fbbf24}.queue{fill:#64748b}.wait{fill:#3a83b0}
.paused{fill:#162033}.hatch{fill:#22304a}.rolling{fill:#1b1638}
}
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{RunId, StepName};
    use crate::run::RunStatus;

    fn span(kind: SpanKind, from: u64, to: u64, outcome: Outcome, note: &str) -> Span {
        let at = Timestamp::from_millis;
        Span { kind, begin: at(from), end: at(to), outcome, attempt: Some(1), note: note.to_owned() }
    }

    #[test]
    fn every_stretch_is_a_bar_with_a_title_and_nothing_is_markup() {
        let mut spans = vec![
            span(SpanKind::Execute, 0, 100, Outcome::Failed, "<script>&"),
            span(SpanKind::Backoff, 100, 200, Outcome::Done, ""),
            span(SpanKind::Queue, 200, 300, Outcome::Done, ""),
            span(SpanKind::Execute, 300, 1000, Outcome::Done, ""),
        ];
        let timeline = Timeline {
            run: RunId::new("lab").unwrap(),
            workflow: "bootstrap".to_owned(),
            status: RunStatus::Succeeded,
            begin: Timestamp::from_millis(0),
            end: Timestamp::from_millis(1000),
            run_spans: vec![span(SpanKind::Paused, 400, 500, Outcome::Done, "asked")],
            rows: vec![Row {
                step: StepName::new("first").unwrap(),
                group: String::new(),
                title: "It's <first>".to_owned(),
                spans: std::mem::take(&mut spans),
            }],
        };
        let picture = svg(&timeline);
        assert!(
            !picture.contains("<script>") && picture.contains("\n&lt;script&gt;&amp;</title>"),
            "{picture}"
        );
        for class in ["failed", "backoff", "queue", "done", "paused"] {
            // In the legend and in the chart.
            assert_eq!(
                picture.matches(&format!("<rect class=\"{class}\"")).count(),
                2,
                "{class} in {picture}"
            );
        }
        assert!(
            picture.contains("attempt 1, failed, 100 ms, from 0 ms") && picture.contains("800 ms ×2<"),
            "{picture}"
        );
        assert_eq!(
            picture.matches("<rect").count(),
            picture.matches("</rect>").count() + picture.matches("/>").count()
                - picture.matches("<path").count()
        );
    }

    #[test]
    fn lengths_and_grids_are_round() {
        for (ms, text) in [
            (350, "350 ms"),
            (1_500, "1.5 s"),
            (42_000, "42 s"),
            (300_000, "5 min"),
            (185_000, "3 min 5 s"),
            (7_200_000, "2 h"),
            (90_000_000, "25 h"),
        ] {
            assert_eq!(length(ms), text);
        }
        let mut out = String::new();
        grid(&mut out, &Scale { begin: Timestamp::from_millis(0), length: 1_260_000, left: 0.0 }, 100.0);
        assert!(out.contains(">5 min<") && out.contains(">20 min<"), "{out}");
    }
}
