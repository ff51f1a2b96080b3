//! The tree on a terminal, redrawn in place.

use std::time::{Duration, Instant};

use dssflow_engine::event::{Event, EventKind};
use dssflow_engine::run::view::RunView;
use dssflow_engine::time::Timestamp;

use super::{Undo, tree};
use crate::describe;
use crate::ui::{Style, Ui, guard};

/// The least time between two frames.
const FRAME: Duration = Duration::from_millis(100);

/// Lines at the foot of the terminal.
#[derive(Default)]
pub(crate) struct Live {
    /// What stands there now, one terminal line each, without colours.
    lines: Vec<String>,
    drawn: Option<Instant>,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What went wrong stays on the screen, above the tree.
    pub(crate) fn event(&mut self, ui: &Ui, event: &Event) {
        let failed =
            matches!(event.kind, EventKind::AttemptFailed { .. } | EventKind::CompensationFailed { .. });
        if failed && let Some(step) = event.kind.step() {
            let text = format!("{}  {step}  {}", describe::time_of_day(event.at), describe::event(event));
            self.above(ui, &text);
        }
    }

    pub(crate) fn draw(&mut self, ui: &Ui, view: &RunView, undo: &Undo, now: Timestamp) {
        if self.drawn.is_some_and(|at| at.elapsed() < FRAME) {
            return;
        }
        let (columns, rows) = ui.size();
        let all = tree::live(view, undo, now);
        // What scrolls off cannot be taken away again: the end, with the line on the whole, is what is shown.
        let skipped = all.len().saturating_sub(rows.saturating_sub(1).max(1));
        let lines: Vec<String> = all.iter().skip(skipped).map(|line| fit(line, columns)).collect();
        if lines == self.lines {
            return;
        }
        self.frame(ui, None, lines);
        self.drawn = Some(Instant::now());
    }

    /// A line that stays, above the tree.
    pub(crate) fn above(&mut self, ui: &Ui, text: &str) {
        self.frame(ui, Some(text), self.lines.clone());
    }

    /// Takes the tree away.
    pub(crate) fn clear(&mut self, ui: &Ui) {
        self.frame(ui, None, Vec::new());
    }

    /// Puts `lines` where the lines of before were, below a text that stays.
    fn frame(&mut self, ui: &Ui, above: Option<&str>, lines: Vec<String>) {
        let mut text = above.map_or_else(String::new, |above| format!("{}\n", guard(above, false)));
        for line in &lines {
            put!(text, "{}\n", coloured(ui, line));
        }
        ui.redraw(self.lines.len(), &text);
        self.lines = lines;
    }
}

/// A line that leaves the last column free: a full one makes some terminals begin a line of their own.
fn fit(text: &str, columns: usize) -> String {
    let safe = guard(text, false).replace(['\n', '\t'], " ");
    let width = columns.saturating_sub(1).max(1);
    if safe.chars().count() <= width { safe } else { safe.chars().take(width - 1).chain(['…']).collect() }
}

/// Colours the sign; the sign itself says the same.
fn coloured(ui: &Ui, safe: &str) -> String {
    let indent = safe.len() - safe.trim_start().len();
    let Some(sign) = safe[indent..].chars().next() else { return safe.to_owned() };
    let style = match sign {
        '✓' | '=' => Style::Green,
        '✗' => Style::Red,
        '↻' => Style::Yellow,
        '▸' | '◂' | '↩' | '…' => Style::Cyan,
        '·' => Style::Dim,
        _ => return safe.to_owned(),
    };
    let (head, rest) = (&safe[..indent], &safe[indent + sign.len_utf8()..]);
    format!("{head}{}{rest}", ui.mark_err(style, &sign.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_reaches_the_last_column() {
        assert_eq!(fit("12345678", 9), "12345678");
        assert_eq!(fit("123456789", 9), "1234567…");
        assert_eq!(fit("a\nb\u{1b}[2J", 80), "a b\\u001b[2J");
        assert_eq!(fit("abc", 0), "…");
    }
}
