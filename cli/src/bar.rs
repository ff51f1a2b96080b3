//! One line on a terminal that says how far something that takes long is, or for how long it goes on. Nothing anywhere
//! else.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::ui::Ui;
use crate::width::cut;

/// How often it is drawn anew.
const REDRAW: Duration = Duration::from_millis(100);
/// What is done sooner shows no bar.
const PATIENCE: Duration = Duration::from_millis(300);
/// How wide the bar itself is.
const WIDTH: u64 = 30;

/// How far the work is, as it tells by itself.
#[derive(Debug)]
pub(crate) struct Told(Mutex<Step>);

#[derive(Debug)]
struct Step {
    doing: String,
    done: u64,
    of: u64,
    more: String,
    since: Instant,
}

impl Told {
    fn new(doing: &str) -> Self {
        let (doing, more) = (doing.to_owned(), String::new());
        Self(Mutex::new(Step { doing, done: 0, of: 0, more, since: Instant::now() }))
    }

    fn step(&self) -> MutexGuard<'_, Step> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So much is done, of so much when that is known; `more` is a word on it. With neither, it is shown for how long
    /// that has gone on.
    pub(crate) fn at(&self, doing: &str, done: u64, of: u64, more: &str) {
        let mut step = self.step();
        if step.doing != doing {
            (step.doing, step.since) = (doing.to_owned(), Instant::now());
        }
        (step.done, step.of) = (done, of);
        more.clone_into(&mut step.more);
    }

    /// Something else begins, which does not say how far it is.
    pub(crate) fn begin(&self, doing: &str) {
        self.at(doing, 0, 0, "");
    }

    fn line(&self) -> String {
        let step = self.step();
        let Step { doing, done, of, more, since } = &*step;
        if *done == 0 && *of == 0 {
            return format!("{doing}  {} s", since.elapsed().as_secs());
        }
        line(doing, *done, *of, more)
    }
}

/// Does something that takes long, on this thread, while another draws how far it is.
pub(crate) fn beside<T>(ui: &Ui, doing: &str, work: impl FnOnce(&Told) -> T) -> T {
    let told = Told::new(doing);
    if !ui.is_live() {
        return work(&told);
    }
    thread::scope(|scope| {
        let (goes_on, ended) = channel::<()>();
        let shown = &told;
        scope.spawn(move || {
            let mut next = PATIENCE;
            while ended.recv_timeout(next) == Err(RecvTimeoutError::Timeout) {
                // The last column stays free: a full line makes some terminals begin another.
                let columns = ui.size().0.saturating_sub(1);
                ui.redraw(&[cut(&shown.line(), columns)]);
                next = REDRAW;
            }
            if next == REDRAW {
                ui.redraw(&[]);
            }
        });
        let done = work(&told);
        // The line is taken away before anything else is said.
        drop(goes_on);
        done
    })
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
    fn what_does_not_say_how_far_it_is_shows_its_time() {
        let told = Told::new("checking");
        assert_eq!(told.line(), "checking  0 s");
        told.at("copying", 5, 10, "values");
        assert!(told.line().starts_with("copying  [###"), "{}", told.line());
        told.begin("checking the copy");
        assert_eq!(told.line(), "checking the copy  0 s");
    }

    #[test]
    fn a_bar_fills_up() {
        assert_eq!(line("copying", 5, 0, ""), "copying  5");
        let half = line("copying", 50, 100, "3 KiB");
        assert_eq!(half, format!("copying  [{}{}]  50 %  50 of 100  3 KiB", "#".repeat(15), "-".repeat(15)));
        assert!(line("copying", 200, 100, "").contains("100 %  100 of 100"));
    }
}
