//! The tree on a terminal, redrawn in place.

use dssflow_engine::event::{Event, EventKind};
use dssflow_engine::run::view::RunView;
use dssflow_engine::time::Timestamp;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::tree;
use crate::describe;
use crate::ui::{Style, Ui, guard};

/// Lines at the foot of the terminal.
pub(crate) struct Live {
    all: MultiProgress,
    lines: Vec<ProgressBar>,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)),
            lines: Vec::new(),
        }
    }

    /// What went wrong stays on the screen, above the tree.
    pub(crate) fn event(&mut self, event: &Event) {
        let failed =
            matches!(event.kind, EventKind::AttemptFailed { .. } | EventKind::CompensationFailed { .. });
        if failed && let Some(step) = event.kind.step() {
            self.above(&format!("{}  {step}  {}", describe::time_of_day(event.at), describe::event(event)));
        }
    }

    pub(crate) fn draw(&mut self, ui: &Ui, view: &RunView, now: Timestamp) {
        let texts = tree::live(view, now);
        while self.lines.len() > texts.len() {
            if let Some(line) = self.lines.pop() {
                self.all.remove(&line);
            }
        }
        while self.lines.len() < texts.len() {
            let style = ProgressStyle::with_template("{wide_msg}").expect("the template is right");
            self.lines.push(self.all.add(ProgressBar::new_spinner().with_style(style)));
        }
        for (line, text) in self.lines.iter().zip(texts) {
            line.set_message(coloured(ui, &text));
        }
    }

    /// A line that stays, above the tree.
    pub(crate) fn above(&self, text: &str) {
        // A terminal that cannot be written has nobody to tell.
        drop(self.all.println(guard(text, false)));
    }

    /// Takes the tree away. A bar that is dropped unfinished draws itself once more, over what was printed since.
    pub(crate) fn clear(self) {
        for line in &self.lines {
            line.finish_and_clear();
        }
        drop(self.all.clear());
    }
}

/// Colours the sign; the sign itself says the same.
fn coloured(ui: &Ui, text: &str) -> String {
    let safe = guard(text, false).into_owned();
    let indent = safe.len() - safe.trim_start().len();
    let Some(sign) = safe[indent..].chars().next() else { return safe };
    let style = match sign {
        '✓' | '=' => Style::Green,
        '✗' => Style::Red,
        '↻' => Style::Yellow,
        '▸' | '◂' | '↩' | '…' => Style::Cyan,
        '·' => Style::Dim,
        _ => return safe,
    };
    let (head, rest) = (&safe[..indent], &safe[indent + sign.len_utf8()..]);
    format!("{head}{}{rest}", ui.mark_err(style, &sign.to_string()))
}
