//! A run in time as lines of characters: names, a chart, how long each step was at work. Pure; colour is put on at the end
//! and never the only carrier.

use std::time::Duration;

use dssflow_engine::timeline::{Outcome, Row, Span, SpanKind, Timeline};

use crate::describe;
use crate::ui::{Style, Ui, one_line};
use crate::width::cut;

/// The most columns a name takes, and the part of the width that names take at most.
const MAX_NAME: usize = 36;
const NAME_PART: usize = 4;
/// Room for how long a step was at work and how often it was tried.
const BEHIND: usize = 18;

/// A line, with what its parts mean.
pub(crate) struct Line(Vec<(Option<Style>, String)>);

impl Line {
    fn plain(text: impl Into<String>) -> Self {
        Self(vec![(None, text.into())])
    }

    /// As it goes to stdout.
    pub(crate) fn marked(&self, ui: &Ui) -> String {
        let parts = self.0.iter().map(|(style, text)| match style {
            Some(style) => ui.mark(*style, text),
            None => text.clone(),
        });
        parts.collect::<String>().trim_end().to_owned()
    }

    /// Without marks.
    #[cfg(test)]
    fn text(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect::<String>().trim_end().to_owned()
    }
}

/// How a stretch of time is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    sign: char,
    style: Option<Style>,
    words: &'static str,
    /// Of several in one cell the one with the most weight is seen.
    weight: u8,
}

const fn look(sign: char, style: Option<Style>, words: &'static str, weight: u8) -> Look {
    Look { sign, style, words, weight }
}

/// All looks, in the order of the legend.
const LOOKS: [Look; 14] = [
    look('█', Some(Style::Green), "done", 6),
    look('▶', Some(Style::Cyan), "under way", 7),
    look('=', Some(Style::Cyan), "adopted", 6),
    look('✗', Some(Style::Red), "failed", 9),
    look('▒', Some(Style::Yellow), "lost", 8),
    look('?', None, "looking", 5),
    look('◂', Some(Style::Yellow), "taking back", 6),
    look('▬', Some(Style::Green), "children", 4),
    look('-', Some(Style::Dim), "left", 6),
    look('↻', Some(Style::Yellow), "waits to be tried again", 2),
    look('·', Some(Style::Dim), "waits for a lock or slot", 1),
    look('…', Some(Style::Cyan), "waits for somebody or an hour", 3),
    look('‖', Some(Style::Dim), "paused", 3),
    look('○', Some(Style::Dim), "driven by nobody", 4),
];

fn look_of(span: &Span) -> Option<&'static Look> {
    let words = match (span.kind, span.outcome) {
        (SpanKind::Backoff, _) => "waits to be tried again",
        (SpanKind::Queue, _) => "waits for a lock or slot",
        (SpanKind::Wait, _) => "waits for somebody or an hour",
        (SpanKind::Paused, _) => "paused",
        (SpanKind::Unowned, _) => "driven by nobody",
        (_, Outcome::Failed) => "failed",
        (_, Outcome::Lost) => "lost",
        (_, Outcome::Left) => "left",
        (SpanKind::Compensate | SpanKind::RollingBack, _) => "taking back",
        (SpanKind::Probe, _) => "looking",
        (SpanKind::Children, _) => "children",
        (_, Outcome::Open) => "under way",
        (_, Outcome::Adopted) => "adopted",
        _ => "done",
    };
    LOOKS.iter().find(|look| look.words == words)
}

/// The whole picture, `width` columns wide.
pub(crate) fn lines(timeline: &Timeline, width: usize) -> Vec<Line> {
    let rows: Vec<&Row> = timeline.rows.iter().filter(|row| !row.spans.is_empty()).collect();
    let longest = rows.iter().map(|row| row.step.as_str().chars().count()).max().unwrap_or(0);
    let names = longest.max(3).min(MAX_NAME.min(width / NAME_PART));
    let columns = width.saturating_sub(names + 2 + BEHIND).max(8);
    let scale = Scale {
        begin: timeline.begin.as_millis(),
        length: timeline.length_ms().max(1),
        columns: u64::try_from(columns).unwrap_or(u64::MAX),
    };
    let mut out = vec![
        Line::plain(cut(
            &format!(
                "{}: {}, {} from {}",
                timeline.run,
                describe::words(timeline.status.as_str()),
                describe::duration(Duration::from_millis(timeline.length_ms())),
                describe::when(timeline.begin)
            ),
            width,
        )),
        Line(vec![(Some(Style::Dim), format!("{:names$}  {}", "", scale.axis()))]),
    ];
    let mut used = Vec::new();
    if !timeline.run_spans.is_empty() {
        out.push(row("run", &timeline.run_spans, &scale, names, &mut used, ""));
    }
    for each in &rows {
        out.push(row(each.step.as_str(), &each.spans, &scale, names, &mut used, &behind(each)));
    }
    let idle = timeline.rows.len() - rows.len();
    if idle > 0 {
        let (steps, have) = if idle == 1 { ("step", "has") } else { ("steps", "have") };
        out.push(Line::plain(cut(&format!("{idle} {steps} {have} not started"), width)));
    }
    out.extend(legend(&used, width));
    out
}

fn behind(row: &Row) -> String {
    let work: u64 = row.spans.iter().filter(|s| s.is_attempt()).map(Span::length_ms).sum();
    let tries = row.spans.iter().filter(|s| s.kind == SpanKind::Execute).count();
    let times = if tries > 1 { format!(" ×{tries}") } else { String::new() };
    if row.spans.iter().any(Span::is_attempt) {
        format!("{}{times}", describe::duration(Duration::from_millis(work)))
    } else {
        String::new()
    }
}

fn row(
    name: &str,
    spans: &[Span],
    scale: &Scale,
    names: usize,
    used: &mut Vec<&'static Look>,
    behind: &str,
) -> Line {
    let mut cells: Vec<Option<&'static Look>> = vec![None; usize::try_from(scale.columns).unwrap_or(0)];
    for span in spans {
        let Some(look) = look_of(span) else { continue };
        if !used.contains(&look) {
            used.push(look);
        }
        let (first, end) = scale.cells(span);
        for cell in &mut cells[first..end] {
            if cell.is_none_or(|there| there.weight <= look.weight) {
                *cell = Some(look);
            }
        }
    }
    let mut parts = vec![(None, format!("{:names$}  ", cut(&one_line(name), names)))];
    for alike in cells.chunk_by(|a, b| a == b) {
        let style = alike[0].and_then(|look| look.style);
        parts.push((style, alike.iter().map(|cell| cell.map_or(' ', |look| look.sign)).collect()));
    }
    if !behind.is_empty() {
        parts.push((Some(Style::Dim), format!("  {}", cut(behind, BEHIND - 2))));
    }
    Line(parts)
}

/// The signs that were used, on as few lines as they need.
fn legend(used: &[&'static Look], width: usize) -> Vec<Line> {
    let mut lines: Vec<(usize, Line)> = Vec::new();
    for look in LOOKS.iter().filter(|look| used.contains(look)) {
        let takes = 2 + look.words.chars().count();
        let parts = [(look.style, look.sign.to_string()), (None, format!(" {}", look.words))];
        match lines.last_mut() {
            Some((taken, line)) if *taken + 3 + takes <= width => {
                line.0.push((None, "   ".to_owned()));
                line.0.extend(parts);
                *taken += 3 + takes;
            }
            _ => lines.push((takes, Line(parts.to_vec()))),
        }
    }
    lines.into_iter().map(|(_, line)| line).collect()
}

struct Scale {
    begin: u64,
    length: u64,
    columns: u64,
}

impl Scale {
    /// The first cell of a stretch and the one after its last; it has at least one.
    fn cells(&self, span: &Span) -> (usize, usize) {
        let since = |at: u64| u128::from(at.saturating_sub(self.begin).min(self.length));
        let (columns, length) = (u128::from(self.columns), u128::from(self.length));
        let first = (since(span.begin.as_millis()) * columns / length).min(columns - 1);
        let end = (since(span.end.as_millis()) * columns).div_ceil(length).clamp(first + 1, columns);
        (usize::try_from(first).unwrap_or(0), usize::try_from(end).unwrap_or(0))
    }

    /// Marks at round times, with what they say where there is room.
    fn axis(&self) -> String {
        const STEPS: [u64; 22] = [
            1,
            10,
            100,
            500,
            1_000,
            2_000,
            5_000,
            10_000,
            30_000,
            60_000,
            120_000,
            300_000,
            600_000,
            1_800_000,
            3_600_000,
            7_200_000,
            21_600_000,
            43_200_000,
            86_400_000,
            172_800_000,
            604_800_000,
            2_592_000_000,
        ];
        let most = (self.columns / 12).max(1);
        let step = STEPS.into_iter().find(|step| self.length / step <= most).unwrap_or(self.length);
        let mut line = String::new();
        for n in 0..=self.length / step {
            let at = n * step;
            let column = usize::try_from(u128::from(at) * u128::from(self.columns) / u128::from(self.length));
            let column = column.unwrap_or(usize::MAX);
            let label = format!("|{}", round(at));
            let there = line.chars().count();
            let fits = column + label.chars().count() <= usize::try_from(self.columns).unwrap_or(0);
            if there > column || !fits {
                continue;
            }
            line.push_str(&" ".repeat(column - there));
            line.push_str(&label);
        }
        line
    }
}

/// As `0`, `250 ms`, `30 s`, `5 min`, `2 h`, `3 d`: round times only.
fn round(ms: u64) -> String {
    match ms {
        0 => "0".to_owned(),
        _ if ms.is_multiple_of(86_400_000) => format!("{} d", ms / 86_400_000),
        _ if ms.is_multiple_of(3_600_000) => format!("{} h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{} min", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("{} s", ms / 1_000),
        _ => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A run of three steps that was driven for real, with a clock that a test moves by hand.
    fn sample(now: Option<u64>) -> Timeline {
        let steps = ["network", "cluster", "a-step-with-a-name-that-is-far-too-long-to-show", "never"];
        let view: Value = json!({
            "run": "bootstrap-lab", "workflow": "bootstrap", "site": "lab", "status": "running", "created": 0,
            "updated": 0, "seq": 1, "request": { "by": "ada" }, "options": dssflow_engine::run::RunOptions::default(),
            "labels": {}, "live": true, "rolling_back": false,
            "steps": (0..).zip(steps).map(|(n, step)| json!({
                "step": step, "after": steps[..n].last().into_iter().collect::<Vec<_>>(), "kind": "activity", "activity": "test.do", "status": "pending", "attempt": 0,
                "failures": 0, "maximum_attempts": 3, "generation": 1, "effect": "none", "live": false,
            })).collect::<Vec<_>>(),
        });
        let start = |step: &str, attempt: u32| {
            json!({ "type": "attempt_started", "step": step, "attempt": attempt,
            "phase": "execute", "generation": 1, "effect": "create", "probed": true })
        };
        let error = json!({ "class": "retryable", "code": "Busy", "message": "later" });
        let failed = |attempt: u32, at: u64| {
            json!({ "type": "attempt_failed", "step": "cluster", "attempt": attempt,
            "error": error, "next": { "then": "at", "at": at } })
        };
        let done = |step: &str, attempt: u32| json!({ "type": "attempt_succeeded", "step": step, "attempt": attempt, "output": null });
        let events = [
            (0, start("network", 1)),
            (60_000, done("network", 1)),
            (60_000, start("cluster", 1)),
            (120_000, failed(1, 240_000)),
            (240_000, start("cluster", 2)),
            (250_000, failed(2, 300_000)),
            (300_000, json!({ "type": "run_paused", "reason": { "kind": "requested", "message": "asked" } })),
            (600_000, json!({ "type": "run_resumed", "request": { "by": "ada" } })),
            (600_000, start("cluster", 3)),
            (900_000, done("cluster", 3)),
            (1_200_000, start(steps[2], 1)),
        ];
        let history: Vec<_> = (1_u64..)
            .zip(events)
            .map(|(seq, (at, mut event))| {
                event["seq"] = seq.into();
                event["at"] = at.into();
                serde_json::from_value(event).unwrap()
            })
            .collect();
        let now = now.map(dssflow_engine::time::Timestamp::from_millis);
        Timeline::of(&serde_json::from_value(view).unwrap(), &history, now)
    }

    fn text(timeline: &Timeline, width: usize) -> String {
        lines(timeline, width).iter().map(Line::text).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_run_is_a_chart() {
        let expected = [
            "bootstrap-lab: running, 22 min from 1970-01-01 00:00:00Z",
            "                           |0          |5 min       |10 min     |15 min",
            "run                                    ‖‖‖‖‖‖‖‖‖‖‖‖‖",
            "network                    ███                                                      60 s",
            "cluster                      ✗✗✗↻↻↻↻↻✗↻↻            █████████████                   6 min 10 s ×3",
            "a-step-with-a-name-that-…                                       ·············▶▶▶▶▶  2 min",
            "1 step has not started",
            "█ done   ▶ under way   ✗ failed   ↻ waits to be tried again   · waits for a lock or slot   ‖ paused",
        ];
        assert_eq!(text(&sample(Some(1_320_000)), 100).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn no_line_is_wider_than_asked_at_any_width() {
        for width in [40, 41, 60, 80, 100, 133, 200] {
            for timeline in [sample(None), sample(Some(1_320_000)), sample(Some(400_000_000))] {
                let drawn = text(&timeline, width);
                for line in drawn.lines() {
                    assert!(line.chars().count() <= width, "{width}: {line}");
                }
                assert!(!drawn.contains('\u{1b}'));
            }
        }
    }

    #[test]
    fn each_look_has_a_sign_of_its_own() {
        let mut signs: Vec<char> = LOOKS.iter().map(|look| look.sign).collect();
        signs.sort_unstable();
        signs.dedup();
        assert_eq!(signs.len(), LOOKS.len());
    }
}
