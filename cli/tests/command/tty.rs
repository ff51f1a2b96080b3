//! A terminal: a pair of pseudo-terminals, whoever sits at it, and what stands on its screen.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::sandbox::PATIENCE;

/// What Ctrl-C and Ctrl-Z type.
pub(crate) const CTRL_C: &[u8] = b"\x03";
pub(crate) const CTRL_Z: &[u8] = b"\x1a";

/// A terminal that somebody reads all the time.
pub(crate) struct Tty {
    ours: Option<File>,
    theirs: String,
    heard: Arc<Mutex<Vec<u8>>>,
    closing: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Tty {
    pub(crate) fn new(columns: u16, rows: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let theirs = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        // A reader that hangs in a read would keep the terminal open when it is closed.
        fcntl_setfl(&ours, fcntl_getfl(&ours).unwrap() | OFlags::NONBLOCK).unwrap();
        let ours = File::from(ours);
        let (heard, closing) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let reader = {
            let (mut ours, heard, closing) =
                (ours.try_clone().unwrap(), Arc::clone(&heard), Arc::clone(&closing));
            std::thread::spawn(move || {
                let mut buffer = [0; 8192];
                while !closing.load(Ordering::Relaxed) {
                    match ours.read(&mut buffer) {
                        Ok(n) => heard.lock().unwrap().extend(&buffer[..n]),
                        // EIO says that nobody has the other side open, which may be before it begins.
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(_) => std::thread::sleep(Duration::from_millis(3)),
                    }
                }
            })
        };
        let tty = Self { ours: Some(ours), theirs, heard, closing, reader: Some(reader) };
        tty.resize(columns, rows);
        tty
    }

    /// The side that a command has as its stdin, stdout or stderr.
    pub(crate) fn side(&self) -> File {
        let flags = i32::try_from(OFlags::NOCTTY.bits()).unwrap();
        File::options().read(true).write(true).custom_flags(flags).open(&self.theirs).unwrap()
    }

    /// Starts a command that this is the terminal of: what is typed reaches it as signals, and so does the end of the
    /// terminal.
    pub(crate) fn start(&self, command: &Command) -> Child {
        session_of(command).stdin(self.side()).stdout(self.side()).stderr(self.side()).spawn().unwrap()
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.ours.as_ref().unwrap(), size).unwrap();
    }

    pub(crate) fn types(&self, keys: &[u8]) {
        self.ours.as_ref().unwrap().write_all(keys).unwrap();
    }

    /// Everything that was written to it.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }

    /// Waits until this stands in what was written after the first `from` bytes.
    #[track_caller]
    pub(crate) fn until(&self, text: &str, from: usize) {
        let begin = Instant::now();
        while !self.heard.lock().unwrap()[from..].windows(text.len()).any(|part| part == text.as_bytes()) {
            assert!(begin.elapsed() < PATIENCE, "{text:?} never came:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the end of a child that wrote to it, and until all of that was read.
    #[track_caller]
    pub(crate) fn ends(&self, child: &mut Child, code: i32) {
        let status = ended(child, &|| self.text());
        self.settle();
        assert_eq!(status.code(), Some(code), "{status}\n{}", self.text());
    }

    /// Waits until what was written so far was read: a word of our own comes after all of it, and is taken away again.
    #[track_caller]
    pub(crate) fn settle(&self) {
        const LAST: &str = "\u{1}that was all\u{1}";
        let from = self.len();
        self.side().write_all(LAST.as_bytes()).unwrap();
        self.until(LAST, from);
        let mut heard = self.heard.lock().unwrap();
        let end = heard.len() - LAST.len();
        heard.truncate(end);
    }

    /// How much was written so far.
    pub(crate) fn len(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    /// Closes the window: the system sends SIGHUP.
    pub(crate) fn close(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        drop(self.ours.take());
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        self.close();
    }
}

/// The same command in a session of its own, which takes the terminal that is its stdin.
fn session_of(command: &Command) -> Command {
    let mut session = Command::new("setsid");
    session.arg("--ctty").arg(command.get_program()).args(command.get_args()).env_clear();
    session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    session.current_dir(command.get_current_dir().unwrap());
    session
}

/// Waits for a child's end.
#[track_caller]
pub(crate) fn ends(child: &mut Child, code: i32, said: impl Fn() -> String) {
    let status = ended(child, &said);
    assert_eq!(status.code(), Some(code), "{status}\n{}", said());
}

#[track_caller]
fn ended(child: &mut Child, said: &impl Fn() -> String) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > PATIENCE {
            drop((child.kill(), child.wait()));
            panic!("it never ended:\n{}", said());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The lines on a screen, those that have scrolled off as well, after all of this was written to it. Fails at a sequence that
/// is none of ours, and where a line is wider than the screen.
#[track_caller]
pub(crate) fn screen(text: &str, columns: usize, rows: usize) -> Vec<String> {
    let (mut lines, mut row, mut column) = (vec![Vec::<char>::new()], 0_usize, 0_usize);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                if row == lines.len() {
                    lines.push(Vec::new());
                }
            }
            '\u{1b}' => {
                assert_eq!(rest.next(), Some('['), "{:?}", lines[row]);
                let mut number = String::new();
                let end = rest.by_ref().find(|c| {
                    number.push(*c);
                    c.is_ascii_alphabetic()
                });
                let number: usize = number.trim_end_matches(char::is_alphabetic).parse().unwrap_or(0);
                match end {
                    Some('A') => {
                        // One cannot go up beyond the screen.
                        let top = lines.len().saturating_sub(rows);
                        assert!(
                            row >= number + top,
                            "{number} up from {row}: what scrolled off cannot be redrawn"
                        );
                        row -= number;
                    }
                    Some('J') => {
                        lines.truncate(row + 1);
                        lines[row].truncate(column);
                    }
                    Some('m') => {}
                    other => panic!("a sequence of ours ends with {other:?}"),
                }
            }
            c => {
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
                assert!(column <= columns, "wider than {columns}: {}", line.iter().collect::<String>());
            }
        }
    }
    lines.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_owned()).collect()
}
