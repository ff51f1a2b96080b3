//! One line on a terminal that says how far something that takes long is. Nothing anywhere else.

use std::time::{Duration, Instant};

use crate::ui::Ui;
use crate::width::cut;

/// How often it is drawn anew.
const REDRAW: Duration = Duration::from_millis(100);
/// What is done sooner shows no bar.
const PATIENCE: Duration = Duration::from_millis(300);
/// How wide the bar itself is.
const WIDTH: u64 = 30;

/// The line, taken away when this is dropped.
pub(crate) struct Bar<'a> {
    ui: &'a Ui,
    begin: Instant,
    drawn: Option<Instant>,
}

impl<'a> Bar<'a> {
    pub(crate) fn new(ui: &'a Ui) -> Self {
        Self { ui, begin: Instant::now(), drawn: None }
    }

    /// So much is done, of so much when that is known; `more` is a word on it.
    pub(crate) fn at(&mut self, doing: &str, done: u64, of: u64, more: &str) {
        let now = Instant::now();
        let is_time = match self.drawn {
            Some(drawn) => now.duration_since(drawn) >= REDRAW,
            None => now.duration_since(self.begin) >= PATIENCE,
        };
        if self.ui.is_live() && is_time {
            // The last column stays free: a full line makes some terminals begin another.
            let columns = self.ui.size().0.saturating_sub(1);
            self.ui.redraw(&[cut(&line(doing, done, of, more), columns)]);
            self.drawn = Some(now);
        }
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            self.ui.redraw(&[]);
        }
    }
}

fn line(doing: &str, done: u64, of: u64, more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!("  {more}") };
    if of == 0 {
        return format!("{doing}  {done}{more}");
    }
    let done = done.min(of);
    let full = usize::try_from(done * WIDTH / of).unwrap_or_default();
    let rest = usize::try_from(WIDTH).unwrap_or_default() - full;
    format!(
        "{doing}  [{}{}] {:>3} %  {done} of {of}{more}",
        "#".repeat(full),
        "-".repeat(rest),
        done * 100 / of
    )
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{} MiB", bytes.div_ceil(1024 * 1024)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_up() {
        assert_eq!(line("copying", 5, 0, ""), "copying  5");
        let half = line("copying", 50, 100, "3 KiB");
        assert_eq!(half, format!("copying  [{}{}]  50 %  50 of 100  3 KiB", "#".repeat(15), "-".repeat(15)));
        assert!(line("copying", 200, 100, "").contains("100 %  100 of 100"));
    }
}
