//! The tree on a terminal, redrawn in place.

use std::time::{Duration, Instant};

use dssflow_engine::event::{Event, EventKind};
use dssflow_engine::run::view::RunView;
use dssflow_engine::time::Timestamp;

use super::{Undo, tree};
use crate::describe;
use crate::ui::{Style, Ui, one_line};
use crate::width::cut;

/// The least time between two frames.
const FRAME: Duration = Duration::from_millis(100);

/// Frames are looked for several times a second. One that is so late was held up, by a stop from the terminal perhaps: whether
/// it was is known a moment later.
const LATE: Duration = Duration::from_millis(700);

/// Lines at the foot of the terminal.
#[derive(Default)]
pub(crate) struct Live {
    drawn: Option<Instant>,
    looked: Option<Instant>,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What went wrong stays on the screen, above the tree.
    pub(crate) fn event(ui: &Ui, event: &Event) {
        let failed =
            matches!(event.kind, EventKind::AttemptFailed { .. } | EventKind::CompensationFailed { .. });
        if failed && let Some(step) = event.kind.step() {
            let text = format!("{}  {step}  {}", describe::time_of_day(event.at), describe::event(event));
            ui.note(&text);
        }
    }

    pub(crate) fn draw(&mut self, ui: &Ui, view: &RunView, undo: &Undo, now: Timestamp) {
        let late = self.looked.replace(Instant::now()).is_some_and(|at| at.elapsed() > LATE);
        if late || self.drawn.is_some_and(|at| at.elapsed() < FRAME) {
            return;
        }
        let lines = frame(&tree::live(view, undo, now), ui.size());
        ui.redraw(&lines.iter().map(|line| coloured(ui, line)).collect::<Vec<_>>());
        self.drawn = Some(Instant::now());
    }

    /// Takes the tree away.
    pub(crate) fn clear(ui: &Ui) {
        ui.redraw(&[]);
    }
}

/// What of the tree is shown on a terminal of so many columns and rows.
pub(super) fn frame(all: &[String], (columns, rows): (usize, usize)) -> Vec<String> {
    // What scrolls off cannot be taken away again: the end, with the line on the whole, is what is shown.
    let skipped = all.len().saturating_sub(rows.saturating_sub(1).max(1));
    all.iter().skip(skipped).map(|line| fit(line, columns)).collect()
}

/// A line that leaves the last column free: a full one makes some terminals begin a line of their own.
fn fit(text: &str, columns: usize) -> String {
    cut(&one_line(text), columns.saturating_sub(1).max(1))
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
        assert_eq!(fit("数据库", 6), "数据…");
        assert_eq!(fit("abc", 0), "…");
    }
}
