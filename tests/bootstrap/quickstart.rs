//! Pages whose commands are run: what a `console` block shows below a line that begins with `$ ` is what that line
//! printed. All lines of a page go through one shell, in one empty directory, against a sandbox at no latency.
//!
//! What differs each time (times, durations, ids, ports) is not compared; but where a page names one id twice, so must what
//! is printed, and a schedule fires when its expression says. When something differs, `DSSFLOW_WRITE_DOCS=1` writes all
//! that is printed anew, so that a page shows one pass; otherwise it leaves the page alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Home, program};

/// Seconds that all commands of a page may take.
const TIMEOUT_S: &str = "300";
/// Begins a command.
const PROMPT: &str = "$ ";
/// Who a run was started by, on a page.
const SOMEBODY: &str = "you";

/// What stands behind a number that differs each time.
const UNITS: &[&str] = &["ms", "s", "min", "h", "open"];
/// A word with so many digits is a time, an id or a port; and one with so many characters if there is a digit at all.
const MANY_DIGITS: usize = 4;
const LONG: usize = 8;
/// `2026-11-29`.
const DATE: usize = 10;

/// A command of a page: its lines are those after `at`, up to `end`.
struct Shown {
    command: String,
    at: usize,
    end: usize,
}

/// The commands in the `console` blocks of a page.
fn commands(page: &str) -> Vec<Shown> {
    let mut found: Vec<Shown> = Vec::new();
    let (mut inside, mut open) = (false, false);
    for (n, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            if let (true, Some(last)) = (open, found.last_mut()) {
                last.end = n;
            }
            inside = !inside && line == "```console";
            open = false;
        } else if let (true, Some(command)) = (inside, line.strip_prefix(PROMPT)) {
            if let (true, Some(last)) = (open, found.last_mut()) {
                last.end = n;
            }
            found.push(Shown { command: command.to_owned(), at: n, end: n + 1 });
            open = true;
        }
    }
    found
}

/// Runs the commands one after the other in one shell; gives what each printed, as a terminal would show it.
fn run(home: &Home, commands: &[Shown]) -> Vec<String> {
    let work = home.path().join("work");
    let printed = home.path().join("printed");
    for dir in [&work, &printed] {
        fs::create_dir(dir).expect("a directory of ours");
    }
    // What is left in the background ends with the shell.
    let mut script = String::from("trap '[ -z \"${!:-}\" ] || kill \"$!\" 2>/dev/null' EXIT\n");
    for (n, shown) in commands.iter().enumerate() {
        let command = &shown.command;
        writeln!(script, "{{ {command}\n}} >'{}/{n}' 2>&1", printed.display()).expect("a string");
        if command.ends_with('&') {
            // As long as it takes to type the next one.
            script.push_str("n=0; until [ -S \"$DSSFLOW_STORE/control.sock\" ] || [ $n = 100 ]; do sleep 0.1; n=$((n+1)); done\n");
        }
    }
    let bin = program().parent().expect("a directory").to_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    let status = Command::new("timeout")
        .args([TIMEOUT_S, "sh", "-c", &script])
        .current_dir(&work)
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("DSSFLOW_STORE", home.store())
        .env("XDG_CONFIG_HOME", home.path())
        .env_remove("DSSFLOW_LOG")
        .env_remove("AWS_PROFILE")
        .stdin(Stdio::null())
        .status();
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "the commands were cut off: {status:?}"
    );
    let user = whoami();
    let read = |n| fs::read_to_string(printed.join(format!("{n}"))).unwrap_or_else(|e| e.to_string());
    (0..commands.len()).map(|n| read(n).replace(&format!("by {user}"), &format!("by {SOMEBODY}"))).collect()
}

fn whoami() -> String {
    let out = Command::new("id").arg("-un").output().expect("coreutils");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// What is left of a line without what differs each time.
#[derive(Debug, Default)]
struct Lasting {
    text: String,
    /// The ids that were in it, in order.
    ids: Vec<String>,
}

/// Which id of a page is which that is printed.
#[derive(Debug, Default)]
struct Ids {
    printed: BTreeMap<String, String>,
    shown: BTreeMap<String, String>,
}

impl Ids {
    /// Whether the ids of two lines can be the same things as in the lines before.
    fn agree(&mut self, shown: &[String], printed: &[String]) -> bool {
        shown.len() == printed.len()
            && shown.iter().zip(printed).all(|(shown, printed)| {
                let there = self.printed.entry(shown.clone()).or_insert_with(|| printed.clone());
                let back = self.shown.entry(printed.clone()).or_insert_with(|| shown.clone());
                there == printed && back == shown
            })
    }
}

fn lasting(line: &str) -> Lasting {
    let mut lasting = Lasting::default();
    if line.trim_start().starts_with("|0 ") {
        "the scale of a chart".clone_into(&mut lasting.text);
        return lasting;
    }
    // When it fires follows from its expression: the times of day, and how far apart the days are.
    let fires = line.contains("; it fires ");
    let mut first_day = None;
    let words: Vec<&str> = line.split_whitespace().collect();
    // How much is done when something else stops depends on what was faster.
    let open = line.contains(" open)");
    let Lasting { text: out, ids } = &mut lasting;
    for (n, word) in words.iter().enumerate() {
        let next = words.get(n + 1).copied().unwrap_or_default();
        let unit = next.trim_end_matches([',', ')', ';', ':']);
        let measured = UNITS.contains(&unit) || (open && unit == "done");
        let said = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_count = !said.is_empty() && said.chars().all(|c| c.is_ascii_digit() || c == '.');
        out.push_str(if n > 0 { " " } else { "" });
        if let Some(day) = day_of(word).filter(|_| fires) {
            let first = *first_day.get_or_insert(day);
            write!(out, "day {}", day - first).expect("a string");
        } else if fires && is_time_of_day(word) {
            out.push_str(word);
        } else if measured && is_count {
            out.push('#');
        } else if word.chars().all(|c| !c.is_ascii_alphanumeric() && !c.is_ascii_punctuation())
            && word.len() > 3
        {
            // A bar of a chart.
            out.extend(word.chars().next());
        } else if let Some((done, all)) =
            word.split_once('/').filter(|(done, all)| is_number(done) && is_number(all))
        {
            let _ = write!(out, "{}/{all}", if done == all { done } else { "#" });
        } else {
            without_ids(word, out, ids);
        }
    }
    lasting
}

/// The number of a day that is written as `2026-11-29`.
fn day_of(word: &str) -> Option<i64> {
    let parts: Vec<i64> = word.split('-').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let &[year, month, day] = parts.as_slice() else { return None };
    // From March on, so that the leap day is the last of a year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    Some(365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day)
}

/// As `03:00:00Z`.
fn is_time_of_day(word: &str) -> bool {
    let time = word.trim_end_matches(',');
    time.strip_suffix('Z').is_some_and(|time| time.len() == 8 && time.split(':').all(is_number))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A word without times, drawn ids and ports; the ids are handed out.
fn without_ids(word: &str, out: &mut String, ids: &mut Vec<String>) {
    let part = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase() || "TZ:.-".contains(c);
    let mut rest = word;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| part(c) != part(first)).unwrap_or(rest.len());
        let (stretch, after) = rest.split_at(end);
        rest = after;
        let bytes = stretch.as_bytes();
        if bytes.len() >= DATE && bytes[4] == b'-' && bytes[7] == b'-' && is_number(&stretch[..4]) {
            out.push('#');
            continue;
        }
        for (n, piece) in stretch.split('-').enumerate() {
            out.push_str(if n > 0 { "-" } else { "" });
            let digits = piece.bytes().filter(u8::is_ascii_digit).count();
            let drawn = digits >= MANY_DIGITS || (digits > 0 && piece.len() >= LONG);
            out.push_str(if drawn { "#" } else { piece });
            // What has a colon inside is a time or an address.
            let end = [':', '.'];
            if drawn && !stretch.trim_end_matches(end).contains(':') {
                ids.push(piece.trim_end_matches(end).to_owned());
            }
        }
    }
}

fn same(shown: &[&str], printed: &[&str], ids: &mut Ids) -> bool {
    shown.len() == printed.len()
        && shown.iter().zip(printed).all(|(shown, printed)| {
            let (shown, printed) = (lasting(shown), lasting(printed));
            shown.text == printed.text && ids.agree(&shown.ids, &printed.ids)
        })
}

/// Holds a page to what its commands print.
fn hold(page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = fs::read_to_string(&path).expect("a page of the docs");
    let shown = commands(&text);
    assert!(shown.len() > 2, "{page} shows no commands");
    let home = Home::with_sandbox();
    let printed = run(&home, &shown);
    let lines: Vec<&str> = text.lines().collect();
    let (mut now, mut from, mut wrong) = (Vec::new(), 0, Vec::new());
    let mut ids = Ids::default();
    for (shown, printed) in shown.iter().zip(&printed) {
        let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
        let before = &lines[shown.at + 1..shown.end];
        now.extend_from_slice(&lines[from..=shown.at]);
        if !same(before, &printed, &mut ids) {
            wrong.push(format!(
                "$ {}\n{}\nand not\n{}",
                shown.command,
                printed.join("\n"),
                before.join("\n")
            ));
        }
        now.extend_from_slice(&printed);
        from = shown.end;
    }
    now.extend_from_slice(&lines[from..]);
    if std::env::var_os("DSSFLOW_WRITE_DOCS").is_some() {
        if wrong.is_empty() {
            return;
        }
        fs::write(&path, now.join("\n") + "\n").expect("a page of ours");
        return;
    }
    assert!(
        wrong.is_empty(),
        "docs/{page} shows what is not printed; write it anew: DSSFLOW_WRITE_DOCS=1 cargo test --workspace --test bootstrap \
         quickstart\n{}",
        wrong.join("\n\n")
    );
}

#[test]
fn the_quickstart_shows_what_is_printed() {
    hold("quickstart.md");
}

#[test]
fn only_what_differs_each_time_is_left_out() {
    for (a, b, alike) in [
        ("succeeded after 42 s (69 steps: 68 done)", "succeeded after 7 s (69 steps: 68 done)", true),
        ("succeeded after 42 s (69 steps: 68 done)", "succeeded after 42 s (69 steps: 67 done)", false),
        ("69 steps: 35 done, 1 failed, 33 open)", "69 steps: 34 done, 1 failed, 34 open)", true),
        ("69 steps: 35 done, 1 failed, 33 open)", "69 steps: 34 done, 2 failed, 33 open)", false),
        ("lab  paused  35/69  2026-11-29 08:39:00Z", "lab paused 7/69 2026-11-30 18:39:00Z", true),
        ("lab  paused  35/69  2026-11-29 08:39:00Z", "lab failed 7/69 2026-11-30 18:39:00Z", false),
        ("lab  succeeded  69/69", "lab  succeeded  68/69", false),
        ("resync-20261129t083917.580z: ok", "resync-20261130t000000.000z: ok", true),
        ("AWS      http://127.0.0.1:34375", "AWS http://127.0.0.1:40000", true),
        ("identity   ██   0.5 s", "identity █████ 7 s", true),
        ("identity   ██   0.5 s", "instance ██ 0.5 s", false),
        ("created by you", "created by me", false),
        (
            "it is created; it fires 2026-11-30 03:00:00Z, 2026-12-01 03:00:00Z",
            "it is created; it fires 2028-02-29 03:00:00Z, 2028-03-01 03:00:00Z",
            true,
        ),
        (
            "it is created; it fires 2026-11-30 03:00:00Z, 2026-12-01 03:00:00Z",
            "it is created; it fires 2026-11-30 09:00:00Z, 2026-12-01 09:00:00Z",
            false,
        ),
        (
            "it is created; it fires 2026-11-30 03:00:00Z, 2026-12-01 03:00:00Z",
            "it is created; it fires 2027-02-28 03:00:00Z, 2027-03-02 03:00:00Z",
            false,
        ),
    ] {
        let (a, b) = (lasting(a), lasting(b));
        assert_eq!(a.text == b.text, alike, "{} and {}", a.text, b.text);
    }
}

#[test]
fn what_is_named_twice_is_one_thing() {
    let shown = |watched: &str| {
        let watch = "`dssflow runs watch resync-20261129t085814.451z` follows the run".to_owned();
        [watch, format!("run resync-{watched}: succeeded"), "sandbox=f97af88b293a279d".to_owned()]
    };
    let printed = [
        "`dssflow runs watch resync-20270101t000000.001z` follows the run",
        "run resync-20270101t000000.001z: succeeded",
        "sandbox=0123456789abcdef",
    ];
    for (watched, alike) in [("20261129t085814.451z", true), ("20261129t150232.649z", false)] {
        let shown = shown(watched);
        let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
        assert_eq!(same(&shown, &printed, &mut Ids::default()), alike, "{watched}");
        assert_eq!(same(&printed, &shown, &mut Ids::default()), alike, "{watched}, the other way");
    }
}

#[test]
fn commands_are_found_with_what_they_show() {
    let page =
        "```sh\n$ not me\n```\n```console\n$ one\n1\n1\n$ two\n```\ntext\n```console\n$ three\n3\n```\n";
    let found: Vec<_> = commands(page).into_iter().map(|s| (s.command, s.at, s.end)).collect();
    assert_eq!(found, [("one".into(), 4, 7), ("two".into(), 7, 8), ("three".into(), 11, 13)]);
}
