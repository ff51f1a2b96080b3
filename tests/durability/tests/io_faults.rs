//! Calls that fail: the k-th write, sync, open, rename or other call on the store's files gives EIO or ENOSPC, once, from
//! then on, after a while, or after half a write. Nothing is acknowledged that is not durable, the program ends and says
//! why, and the store opens again with all that was acknowledged, also when the power fails with its last word.
//!
//! `DSSFLOW_IO_FAULTS=2000` makes more of them, `DSSFLOW_SEED` others; `DSSFLOW_IO_CASE="Killed sync:23:EIO:once"` makes
//! all of them the one that a failure names.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use dssflow_durability::dice::{self, Dice};
use dssflow_durability::judge::judge;
use dssflow_durability::mutate::fleeting_dir;
use dssflow_durability::oracle::Acks;
use dssflow_durability::replay::{Before, Ignored, Kept, Replay};
use dssflow_durability::shim::{CLASSES, Log, Op, Shim};

const SEED: u64 = 20_261_124;
const CASES: usize = 90;
/// Whoever takes longer hangs.
const PATIENCE: Duration = Duration::from_mins(1);
const ARGS: [&str; 5] = ["--store", "--writers", "6", "--commits", "9"];
/// After so many calls the life before is killed, where it is.
const KILLED: &str = "150";

/// What is there when the life begins in which a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Start {
    Nothing,
    Closed,
    Killed,
}

#[derive(Debug, Clone)]
struct Case {
    start: Start,
    class: &'static str,
    /// `SHIM_FAIL`.
    fail: String,
}

/// In memory where there is such a place: what counts as durable is known from the log.
fn scratch() -> tempfile::TempDir {
    fleeting_dir().unwrap()
}

struct Life {
    dir: PathBuf,
    shim: Shim,
}

impl Life {
    fn new(dir: &Path, shim: &Shim) -> Self {
        std::fs::create_dir_all(dir.join("disk")).unwrap();
        Self { dir: dir.to_owned(), shim: shim.clone() }
    }

    fn store(&self) -> PathBuf {
        self.dir.join("disk/store")
    }

    fn log(&self) -> Log {
        Log::read(&self.dir.join("log")).unwrap()
    }

    /// How it ended and what it complained of; `None` when it hangs.
    fn run(&self, env: &[(&str, &str)]) -> Option<(ExitStatus, String)> {
        let log = self.dir.join("log");
        let mut command = self.shim.command(env!("CARGO_BIN_EXE_storm"), &self.dir.join("disk"), &log);
        let errors = std::fs::File::create(self.dir.join("stderr")).unwrap();
        command.arg(self.store()).args(ARGS).envs(env.iter().copied()).env("RUST_BACKTRACE", "0");
        let mut child = command.stderr(Stdio::from(errors)).spawn().unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return Some((status, std::fs::read_to_string(self.dir.join("stderr")).unwrap()));
            }
            if started.elapsed() > PATIENCE {
                child.kill().unwrap();
                child.wait().unwrap();
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn prepare(&self, start: Start) {
        match start {
            Start::Nothing => {}
            Start::Closed => assert!(self.run(&[]).unwrap().0.success()),
            Start::Killed => assert_eq!(self.run(&[("SHIM_STOP", KILLED)]).unwrap().0.code(), Some(137)),
        }
    }
}

/// How many calls of each class a life makes in which none fails.
fn calls(shim: &Shim, start: Start) -> BTreeMap<&'static str, u64> {
    let dir = scratch();
    let life = Life::new(dir.path(), shim);
    life.prepare(start);
    assert!(life.run(&[]).unwrap().0.success());
    // The last of each is that life's.
    let log = life.log();
    let counts = log.ops.iter().filter_map(|op| match op {
        Op::Count { class, calls } => Some((CLASSES[*class], *calls)),
        _ => None,
    });
    counts.collect()
}

fn cases(shim: &Shim, count: usize, dice: &mut Dice) -> Vec<Case> {
    let starts = [Start::Nothing, Start::Closed, Start::Killed];
    if let Ok(wanted) = std::env::var("DSSFLOW_IO_CASE") {
        let (start, fail) = wanted.split_once(' ').unwrap();
        let start = starts.into_iter().find(|known| format!("{known:?}") == start).unwrap();
        let class = CLASSES.into_iter().find(|class| fail.starts_with(class)).unwrap();
        return vec![Case { start, class, fail: fail.to_owned() }; count];
    }
    let calls: BTreeMap<Start, _> = starts.map(|start| (start, calls(shim, start))).into();
    let classes =
        ["sync", "write", "sync", "open", "write", "sync", "rename", "write", "sync", "open", "other"];
    let case = |number: usize| {
        let (start, class) = (*dice.pick(&starts), classes[number % classes.len()]);
        // Groups are put together by chance: the last calls of one life are not made in another.
        let made = calls[&start][class];
        let likely = made - made / 10;
        let at = dice.below(likely.max(1)) + 1;
        let error = *dice.pick(&["EIO", "ENOSPC"]);
        let how = if class == "write" && dice.percent(25) {
            "short"
        } else {
            *dice.pick(&["once", "sticky", "late"])
        };
        Case { start, class, fail: format!("{class}:{at}:{error}:{how}") }
    };
    (0..count).map(case).collect()
}

#[derive(Debug, Default)]
struct Tally {
    cases: u64,
    fired: u64,
    /// Failed calls without which the program could do.
    absorbed: BTreeMap<&'static str, u64>,
    by_class: BTreeMap<String, u64>,
    acks: u64,
    bad: Vec<String>,
}

/// How many groups were made durable after a call failed on `HEAD` or the tree's log. Others may be under way elsewhere,
/// as those for which a payload file is written.
fn groups(log: &Log, fault: usize) -> usize {
    let (mut paths, mut syncs) = (BTreeMap::new(), BTreeSet::new());
    let mut groups = 0;
    for (at, op) in log.ops.iter().enumerate() {
        match op {
            Op::Open { ino, path, .. } => drop(paths.insert(*ino, path.as_str())),
            Op::Fault { ino } if at == fault => match paths.get(ino) {
                Some(&("store/HEAD" | "store/gen-1/db")) => {}
                _ => return 0,
            },
            Op::SyncStart { ino, id } if at > fault && paths.get(ino) == Some(&"store/HEAD") => {
                syncs.insert(*id);
            }
            Op::SyncEnd { id, .. } => groups += usize::from(syncs.remove(id)),
            _ => {}
        }
    }
    groups
}

fn one(case: &Case, dir: &Path, shim: &Shim, tally: &mut Tally) {
    let life = Life::new(dir, shim);
    life.prepare(case.start);
    let ended = life.run(&[("SHIM_FAIL", case.fail.as_str())]);
    let log = life.log();
    let fault = log.ops.iter().position(|op| matches!(op, Op::Fault { .. }));
    let mut acks = Acks::default();
    acks.read(&log.said(0, log.ops.len()));
    tally.cases += 1;
    tally.acks += acks.count;
    let mut bad = |what: String| tally.bad.push(format!("{case:?}: {what}"));
    if fault.is_some() {
        tally.fired += 1;
        *tally.by_class.entry(format!("{}/{:?}", case.class, case.start)).or_default() += 1;
    }
    match (&ended, fault) {
        (None, _) => bad("it hangs".to_owned()),
        (Some((status, _)), Some(_)) if status.success() => {
            *tally.absorbed.entry(case.class).or_default() += 1;
            if matches!(case.class, "sync" | "write" | "rename") {
                bad("it ended as if nothing had failed".to_owned());
            }
        }
        (Some((status, _)), None) if status.success() => {}
        // An error that is told, not a panic or a signal.
        (Some((status, said)), Some(_)) if status.code() == Some(1) && said.contains("storm: ") => {}
        (Some((status, said)), _) => bad(format!("it ended with {status}: {said}")),
    }
    let groups = fault.map_or(0, |fault| groups(&log, fault));
    if groups > 0 {
        bad(format!("{groups} groups were made durable after it"));
    }
    let mut judged = |what: &str, path: &Path| {
        let found = judge(path, &acks, None, true);
        if !found.is_nothing() {
            bad(format!("{what}: {found:?}"));
        }
    };
    // The power fails with the last word, or when all is over: nothing was said that was not durable.
    let last_word = log.ops.iter().rposition(|op| matches!(op, Op::Said { .. }));
    for (what, at) in [
        ("power cut with the last word", last_word.map_or(0, |at| at + 1)),
        ("power cut at the end", log.ops.len()),
    ] {
        let mut replay = Replay::new(&log, &Before::default(), Ignored::Nothing);
        replay.advance(at);
        let image = life.dir.join("image");
        std::fs::create_dir(&image).unwrap();
        replay.image("store", Kept::None, &mut Dice::new(0), &image.join("store")).unwrap();
        judged(what, &image.join("store"));
        std::fs::remove_dir_all(image).unwrap();
    }
    judged("opened again", &life.store());
}

#[test]
fn after_a_failed_call_nothing_is_acknowledged_and_nothing_lost() {
    let started = Instant::now();
    let (mut dice, seed) = dice::from_env(SEED);
    let count = std::env::var("DSSFLOW_IO_FAULTS").map_or(CASES, |count| count.parse().unwrap());
    let built = scratch();
    let shim = Shim::build(built.path()).unwrap();
    let cases = cases(&shim, count, &mut dice);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let all = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (all, cases, shim) = (&all, &cases, &shim);
            scope.spawn(move || {
                let mut tally = Tally::default();
                for case in cases.iter().skip(thread).step_by(threads) {
                    let dir = scratch();
                    let before = tally.bad.len();
                    one(case, dir.path(), shim, &mut tally);
                    if tally.bad.len() > before {
                        println!("{case:?} is kept in {}", dir.keep().display());
                    }
                }
                let mut all = all.lock().unwrap();
                all.cases += tally.cases;
                all.fired += tally.fired;
                all.acks += tally.acks;
                all.bad.extend(tally.bad);
                for (class, count) in tally.absorbed {
                    *all.absorbed.entry(class).or_default() += count;
                }
                for (class, count) in tally.by_class {
                    *all.by_class.entry(class).or_default() += count;
                }
            });
        }
    });
    let tally = all.into_inner().unwrap();
    println!("by class: {:?}\nabsorbed: {:?}", tally.by_class, tally.absorbed);
    println!(
        "io faults: cases={} faults_fired={} acknowledged={} violations={} seed={seed} seconds={}",
        tally.cases,
        tally.fired,
        tally.acks,
        tally.bad.len(),
        started.elapsed().as_secs()
    );
    let first: Vec<_> = tally.bad.iter().take(5).collect();
    assert!(first.is_empty(), "DSSFLOW_SEED={seed}: {first:#?}");
    assert_eq!(tally.cases, count as u64);
    assert!(tally.fired * 10 >= tally.cases * 9, "faults fired: {} of {}", tally.fired, tally.cases);
}
