//! The only place that writes to the terminal. stdout is data; progress, notes, questions and errors go to stderr.
//!
//! Text from outside may hold control characters; what is written is guarded here, so no caller can forget it: only
//! line breaks, tabs and the few colours of our own pass. Nothing here knows what the text means.

use std::borrow::Cow;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{Code, CommandError, CommandResult};
use crate::jq;
use crate::width::{cut, width};

/// How a word is marked on a terminal. Never the only carrier of what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Style {
    const ALL: [Self; 6] = [Self::Bold, Self::Dim, Self::Red, Self::Green, Self::Yellow, Self::Cyan];

    const fn begin(self) -> &'static str {
        match self {
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Red => "\x1b[31m",
            Self::Green => "\x1b[32m",
            Self::Yellow => "\x1b[33m",
            Self::Cyan => "\x1b[36m",
        }
    }
}

const END: &str = "\x1b[0m";

/// What stands at the foot of a live terminal and is redrawn in place. One for the process: the log writes lines as well,
/// and has no [`Ui`].
struct Foot {
    /// Whole lines, as they were written.
    text: String,
    /// The columns that the terminal had then.
    columns: usize,
    /// When it was last looked at. Who redraws does so several times a second.
    at: Option<Instant>,
}

/// After so long somebody else may have written to the terminal: the command was stopped, and the word of that is on its way.
const HELD_UP: Duration = Duration::from_secs(2);

static FOOT: Mutex<Foot> = Mutex::new(Foot { text: String::new(), columns: 0, at: None });

fn foot() -> MutexGuard<'static, Foot> {
    FOOT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Foot {
    /// Takes what stands there away, writes lines that stay, and draws `text` below them: all of it in one write, so that
    /// nothing of anybody else comes between.
    fn draw(&mut self, stay: &str, text: String) {
        let held_up = self.at.replace(Instant::now()).is_some_and(|at| at.elapsed() > HELD_UP);
        let height = if held_up { 0 } else { self.text.lines().count() };
        let mut frame = if height > 0 { format!("\x1b[{height}A\r\x1b[J") } else { String::new() };
        frame.push_str(stay);
        frame.push_str(&text);
        self.text = text;
        let mut stderr = io::stderr().lock();
        // Nobody to tell when stderr is gone.
        drop(stderr.write_all(frame.as_bytes()).and_then(|()| stderr.flush()));
    }
}

/// Writes lines that are safe to stderr, above what is redrawn in place.
pub(crate) fn write_above(safe: &str) {
    let mut foot = foot();
    // What was made for another width would break; the next frame is made for this one.
    let fits = foot.text.is_empty() || foot.columns == size_of_stderr().map_or(0, |(columns, _)| columns);
    let text = if fits { foot.text.clone() } else { String::new() };
    foot.draw(&format!("{safe}\n"), text);
}

/// Somebody else has written to the terminal, as a shell does when a command was stopped: the next frame begins below.
pub(crate) fn forget_foot() {
    foot().text.clear();
}

/// Whether colours and redrawing are unwanted or unknown to the terminal.
pub(crate) fn is_plain() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
        || std::env::var_os("TERM").is_none_or(|t| t == "dumb" || t.is_empty())
}

fn size_of_stderr() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (usize::from(size.ws_col), usize::from(size.ws_row)))
}

/// The terminal, or the pipes in its place.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "what each stream is, on its own")]
pub(crate) struct Ui {
    /// Whether people read stderr on a terminal that can redraw.
    live: bool,
    out_terminal: bool,
    out_colour: bool,
    asks: bool,
    quiet_reader: AtomicBool,
    failed: AtomicBool,
    /// What JSON goes through, and why it did not.
    filter: Option<String>,
    misfit: Mutex<Option<String>>,
}

impl Ui {
    /// Looks at the streams and at `NO_COLOR` and `TERM`.
    pub(crate) fn detect() -> Self {
        let plain = is_plain();
        let err = io::stderr().is_terminal();
        let out = io::stdout().is_terminal();
        Self {
            live: err && !plain,
            out_terminal: out,
            out_colour: out && !plain,
            asks: err && io::stdin().is_terminal(),
            quiet_reader: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            filter: None,
            misfit: Mutex::new(None),
        }
    }

    /// From here on JSON goes through this expression of jq.
    pub(crate) fn filter(&mut self, expression: Option<String>) {
        self.filter = expression;
    }

    /// Why something could not go through it.
    pub(crate) fn misfit(&self) -> Option<String> {
        self.misfit.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many columns the terminal has that stdout is.
    pub(crate) fn columns() -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        (size.ws_col > 0).then(|| usize::from(size.ws_col))
    }

    /// Whether progress may be redrawn in place and coloured.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Whether nobody reads stdout any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.quiet_reader.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed)
    }

    /// Whether stdout could not be written for another reason than that its reader left.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Marks a word for stdout.
    pub(crate) fn mark(&self, style: Style, text: &str) -> String {
        paint(self.out_colour, style, text)
    }

    /// Marks a word for stderr.
    pub(crate) fn mark_err(&self, style: Style, text: &str) -> String {
        paint(self.live, style, text)
    }

    /// Writes lines of data.
    pub(crate) fn out(&self, text: &str) {
        if self.is_closed() {
            return;
        }
        let mut foot = foot();
        // On one terminal with it, data would stand in the middle of what is redrawn.
        let around = if self.out_terminal { foot.text.clone() } else { String::new() };
        if !around.is_empty() {
            foot.draw("", String::new());
        }
        let mut stdout = io::stdout().lock();
        let written = writeln!(stdout, "{}", guard(text, self.out_colour)).and_then(|()| stdout.flush());
        if !around.is_empty() {
            foot.draw("", around);
        }
        if let Err(error) = written {
            let flag =
                if error.kind() == io::ErrorKind::BrokenPipe { &self.quiet_reader } else { &self.failed };
            flag.store(true, Ordering::Relaxed);
        }
    }

    /// Writes rows under a heading. On a terminal a line ends where the terminal does, unless they are to be `wide`.
    pub(crate) fn table(&self, heading: &[&str], rows: &[Vec<String>], wide: bool) {
        let text = table(heading, rows);
        match Self::columns().filter(|_| !wide) {
            Some(columns) => {
                self.out(&text.lines().map(|line| cut(line, columns)).collect::<Vec<_>>().join("\n"));
            }
            None => self.out(&text),
        }
    }

    /// Writes a value as JSON: on lines of its own, or on one.
    pub(crate) fn json(&self, value: &impl Serialize, pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        let text = text.expect("what commands print is plain data");
        let Some(filter) = &self.filter else { return self.out(&text) };
        let mut print = |result: &str| {
            self.out(result);
            !self.is_closed()
        };
        if let Err(why) = jq::apply(filter, text.as_bytes(), pretty, &mut print) {
            self.misfit.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        }
    }

    /// Writes a value as YAML.
    pub(crate) fn yaml(&self, value: &impl Serialize) {
        let plain = serde_json::to_value(value).expect("what commands print is plain data");
        self.out(serde_saphyr::to_string(&plain).expect("plain data is YAML").trim_end());
    }

    /// Writes a note for people.
    pub(crate) fn note(&self, text: &str) {
        write_above(&guard(text, self.live));
    }

    /// Columns and rows of the terminal people read; 80 and 24 when it does not say.
    pub(crate) fn size(&self) -> (usize, usize) {
        size_of_stderr().filter(|_| self.live).unwrap_or((80, 24))
    }

    /// Draws lines that fit at the foot of a live terminal, in place of those that stand there.
    pub(crate) fn redraw(&self, lines: &[String]) {
        let mut text = String::new();
        for line in lines {
            put!(text, "{}\n", guard(line, self.live));
        }
        let mut foot = foot();
        if foot.text == text {
            foot.at = Some(Instant::now());
        } else {
            foot.columns = self.size().0;
            foot.draw("", text);
        }
    }

    /// Writes an error.
    pub(crate) fn error(&self, error: &CommandError, json: bool) {
        let error = &error.complete();
        if json {
            return self.note(&error.to_json());
        }
        let text = error.to_string();
        let head = format!("error[{}]", error.code.as_str());
        let text = text.replacen(&head, &self.mark_err(Style::Red, &head), 1);
        let hint = self.mark_err(Style::Cyan, "hint");
        self.note(&text.replace("\nhint: ", &format!("\n{hint}: ")));
    }

    /// Asks for a yes before something that destroys or costs.
    ///
    /// # Errors
    /// [`Code::NotConfirmed`] when nobody can answer, [`Code::Declined`] when the answer is no.
    pub(crate) fn confirm(&self, question: &str) -> CommandResult<()> {
        if !self.asks {
            return Err(CommandError::new(
                Code::NotConfirmed,
                format!("{question} nobody is here to confirm it"),
            )
            .hint("add --yes to the command, or run it on a terminal"));
        }
        let prompt = format!("{question} Type yes to go on: ");
        let mut stderr = io::stderr().lock();
        drop(write!(stderr, "{}", guard(&prompt, self.live)).and_then(|()| stderr.flush()));
        drop(stderr);
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        if read.is_ok() && matches!(answer.trim(), "yes" | "y" | "Yes" | "YES") {
            return Ok(());
        }
        Err(CommandError::new(Code::Declined, "not confirmed; nothing was done"))
    }

    /// Whether somebody could answer [`Ui::confirm`].
    pub(crate) fn can_ask(&self) -> bool {
        self.asks
    }
}

fn paint(on: bool, style: Style, text: &str) -> String {
    if on { format!("{}{text}{END}", style.begin()) } else { text.to_owned() }
}

/// Escapes what could move a cursor, ring or reorder text, as `\u001b`: readable, and still JSON where it was.
pub(crate) fn guard(text: &str, colours: bool) -> Cow<'_, str> {
    if !text.chars().any(|c| c != '\n' && c != '\t' && is_dangerous(c)) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '\x1b'
            && colours
            && let Some(code) =
                Style::ALL.iter().map(|s| s.begin()).chain([END]).find(|s| rest.starts_with(s))
        {
            safe.push_str(code);
            rest = &rest[code.len()..];
            continue;
        }
        if c != '\n' && c != '\t' && is_dangerous(c) {
            put!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(safe)
}

/// One line of text from outside, for a place where a line break would break the layout.
pub(crate) fn one_line(text: &str) -> String {
    guard(text, false).replace(['\n', '\t'], " ")
}

fn is_dangerous(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Lays rows out under a heading, columns two blanks apart, nothing at the end of a line.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|h| width(h)).collect();
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
    for row in &rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = (*w).max(width(cell));
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, w) in cells.zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(w - width(cell) + 2));
        }
        line.trim_end().to_owned()
    };
    let mut lines = vec![line(&mut heading.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let hostile = "a\x1b[2Jb\u{9b}1mc\u{202e}d\r\x07";
        assert_eq!(guard(hostile, false), "a\\u001b[2Jb\\u009b1mc\\u202ed\\u000d\\u0007");
        assert_eq!(guard("\x1b[31mred\x1b[0m\x1b[2J", true), "\x1b[31mred\x1b[0m\\u001b[2J");
        assert_eq!(guard("\x1b[31mred", false), "\\u001b[31mred");
        assert_eq!(guard("two\nlines", false), "two\nlines");
        assert_eq!(one_line("two\nlines"), "two lines");
    }

    #[test]
    fn tables_are_aligned_and_have_no_trailing_blanks() {
        let text = table(
            &["RUN", "STATUS"],
            &[vec!["bootstrap-lab".into(), "failed".into()], vec!["b".into(), String::new()]],
        );
        assert_eq!(text, "RUN            STATUS\nbootstrap-lab  failed\nb");
    }
}
