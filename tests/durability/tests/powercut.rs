//! Power cuts: the real program is recorded, and cut off at any call; only what it synced is sure to be there. Every
//! image opens, holds all that was acknowledged until then, and goes on.
//!
//! `DSSFLOW_IMAGES=5000` makes more of them, `DSSFLOW_SEED` others. `DSSFLOW_IMAGE_DIR` says where they are made.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Mutex;
use std::time::Instant;

use dssflow_durability::dice::Dice;
use dssflow_durability::judge::{Bad, judge};
use dssflow_durability::oracle::Acks;
use dssflow_durability::replay::{Before, Ignored, Kept, Replay};
use dssflow_durability::shim::{Log, Op, Shim};

const SEED: u64 = 20_261_123;
const IMAGES: u64 = 500;
/// After so many calls the first life of a recording is killed.
const FIRST_LIFE: &str = "4000";
/// One image in so many is closed and looked at again.
const CLOSED: usize = 5;
/// One image in so many of an engine is gone on with by the program itself, until all its runs have ended.
const RESUMED: usize = 25;

/// Where things are made: in memory where there is such a place, as thousands of stores are written and synced.
fn scratch() -> tempfile::TempDir {
    let wanted = std::env::var_os("DSSFLOW_IMAGE_DIR").map(PathBuf::from);
    let dir = wanted.or_else(|| Some(PathBuf::from("/dev/shm")).filter(|dir| dir.is_dir()));
    dir.and_then(|dir| tempfile::tempdir_in(dir).ok()).unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// One or more lives of the program, written down.
struct Recording {
    name: &'static str,
    is_engine: bool,
    log: Log,
    before: Before,
    /// What had been acknowledged before it begins.
    acks: Acks,
}

struct Recorder {
    name: &'static str,
    shim: Shim,
    dir: tempfile::TempDir,
    before: Before,
    acks: Acks,
}

impl Recorder {
    /// On an empty disk, or one made by `fill`.
    fn new(name: &'static str, acks: Acks, fill: impl FnOnce(&Path)) -> Self {
        let dir = scratch();
        let shim = Shim::build(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("disk")).unwrap();
        fill(&dir.path().join("disk"));
        let before = Before::read(&dir.path().join("disk")).unwrap();
        Self { name, shim, dir, before, acks }
    }

    fn life(&self, args: &[&str], stop: Option<&str>) -> ExitStatus {
        let root = self.dir.path().join("disk");
        let mut command = self.shim.command(env!("CARGO_BIN_EXE_storm"), &root, &self.dir.path().join("log"));
        command.arg(root.join("store")).args(args).envs(stop.map(|stop| ("SHIM_STOP", stop)));
        command.status().unwrap()
    }

    /// Reads the log. All of it taken together is exactly what is on the disk: the shim has missed nothing.
    fn end(self) -> Recording {
        let log = Log::read(&self.dir.path().join("log")).unwrap();
        let mut replay = Replay::new(&log, &self.before, Ignored::Nothing);
        replay.advance(log.ops.len());
        let image = self.dir.path().join("image");
        let made = replay.image("store", Kept::All, &mut Dice::new(0), &image).unwrap();
        assert!(made.is_there);
        let (found, expected) = (files(&image), files(&self.dir.path().join("disk/store")));
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "{}: the files", self.name);
        for (name, bytes) in &expected {
            assert!(found[name] == *bytes, "{}: the bytes of {name}", self.name);
        }
        let Self { name, before, acks, .. } = self;
        let is_engine = log.ops.iter().any(|op| matches!(op, Op::Open { path, .. } if path == "effects"));
        Recording { name, is_engine, log, before, acks }
    }
}

/// All files below a directory.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    found
}

/// 64 runs at once, killed in the middle; a second life that goes on with them.
fn record_engine() -> Recording {
    let recorder = Recorder::new("engine", Acks::default(), |_| {});
    let killed = recorder.life(&["--runs", "64"], Some(FIRST_LIFE));
    assert_eq!(killed.code(), Some(137));
    assert!(recorder.life(&["--runs", "64", "--seconds", "1"], None).success());
    recorder.end()
}

/// Writers on the store, closed in good order; opened again, and closed again.
fn record_store() -> Recording {
    let recorder = Recorder::new("store", Acks::default(), |_| {});
    for commits in ["24", "8"] {
        assert!(recorder.life(&["--store", "--writers", "16", "--commits", commits], None).success());
    }
    recorder.end()
}

/// A life that begins with what a power cut left of another one.
fn record_recovery(store: &Recording, dice: &mut Dice) -> Recording {
    let lives = parts(&store.log);
    let running = lives.iter().find(|part| part.name == "running").unwrap();
    let at = running.ops.start + running.ops.len() / 2 + dice.index(running.ops.len() / 4);
    let mut replay = Replay::new(&store.log, &store.before, Ignored::Nothing);
    replay.advance(at);
    let mut acks = Acks::default();
    acks.read(&store.log.said(0, at));
    let recorder = Recorder::new("recovery", acks, |disk| {
        assert!(replay.image("store", Kept::Torn, dice, &disk.join("store")).unwrap().is_there);
    });
    assert!(recorder.life(&["--store", "--writers", "8", "--commits", "8"], None).success());
    recorder.end()
}

/// A part of a recording, by what the program did then.
#[derive(Debug)]
struct Part {
    name: &'static str,
    /// How many images of a hundred.
    share: u64,
    ops: Range<usize>,
}

/// Each life has an opening, which ends when it says so, and a closing, which begins after its last other word.
fn parts(log: &Log) -> Vec<Part> {
    let starts: Vec<usize> =
        (0..log.ops.len()).filter(|at| matches!(log.ops[*at], Op::Life { .. })).collect();
    let mut parts = Vec::new();
    for (life, start) in starts.iter().enumerate() {
        let end = starts.get(life + 1).copied().unwrap_or(log.ops.len());
        let said: Vec<usize> = (*start..end).filter(|at| matches!(log.ops[*at], Op::Said { .. })).collect();
        let opened = *said.first().unwrap() + 1;
        let closes = log.said(*start, end).ends_with("closed\n");
        let ran = if closes { said[said.len() - 2] + 1 } else { end };
        let name = if life == 0 { "creating" } else { "opening" };
        parts.push(Part { name, share: 15, ops: *start..opened });
        parts.push(Part { name: "running", share: 60, ops: opened..ran });
        if closes {
            parts.push(Part { name: "closing", share: 15, ops: ran..end });
        }
    }
    parts
}

#[derive(Debug, Clone, Copy)]
struct Case {
    number: usize,
    part: &'static str,
    at: usize,
    kept: Kept,
}

/// So many cut-off moments, spread over all parts; half of those in the running part are right behind a word of the
/// program, when the most has been promised and the least was done since.
fn cases(recording: &Recording, count: u64, dice: &mut Dice) -> Vec<Case> {
    let mut parts = parts(&recording.log);
    if !recording.acks.seqs.is_empty() {
        for part in parts.iter_mut().filter(|part| part.name == "creating") {
            part.name = "recovering";
        }
    }
    let shares: u64 = parts.iter().map(|part| part.share).sum();
    let mut cases = Vec::new();
    for part in parts {
        let count = (count * part.share).div_ceil(shares);
        for i in 0..count {
            let len = part.ops.len() as u64;
            let from = part.ops.start as u64 + i * len / count;
            let mut at = usize::try_from(from + dice.below(len.div_ceil(count)) + 1).unwrap();
            if part.name == "running" && dice.percent(50) {
                let said = (at..part.ops.end).find(|at| matches!(recording.log.ops[*at], Op::Said { .. }));
                at = said.map_or(at, |said| said + 1);
            }
            let kept = Kept::EACH[usize::try_from(i % Kept::EACH.len() as u64).unwrap()];
            cases.push(Case { number: 0, part: part.name, at: at.min(part.ops.end), kept });
        }
    }
    cases.sort_by_key(|case| case.at);
    for (number, case) in cases.iter_mut().enumerate() {
        case.number = number;
    }
    cases
}

#[derive(Debug, Default)]
struct Tally {
    images: u64,
    /// Images from which something was missing that the program had written.
    cut: u64,
    acknowledged: u64,
    lost: u64,
    unopened: u64,
    wrong: u64,
    resumed: u64,
    by_part: BTreeMap<String, u64>,
    by_kept: BTreeMap<Kept, u64>,
    first: Option<String>,
}

impl Tally {
    fn bad(&self) -> u64 {
        self.lost + self.unopened + self.wrong
    }

    fn add(&mut self, other: Self) {
        self.images += other.images;
        self.cut += other.cut;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.unopened += other.unopened;
        self.wrong += other.wrong;
        self.resumed += other.resumed;
        for (part, count) in other.by_part {
            *self.by_part.entry(part).or_default() += count;
        }
        for (kept, count) in other.by_kept {
            *self.by_kept.entry(kept).or_default() += count;
        }
        self.first = self.first.take().or(other.first);
    }
}

/// Makes each image and judges it, on as many threads as there are processors.
fn run(recording: &Recording, cases: &[Case], ignored: Ignored, seed: u64) -> Tally {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let all = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let all = &all;
            scope.spawn(move || {
                let dir = scratch();
                let mut replay = Replay::new(&recording.log, &recording.before, ignored);
                let mut acks = recording.acks.clone();
                let mut tally = Tally::default();
                for case in cases.iter().skip(thread).step_by(threads) {
                    acks.read(&recording.log.said(replay.at(), case.at));
                    replay.advance(case.at);
                    let planted = ignored != Ignored::Nothing;
                    one(recording, &replay, *case, &acks, seed, dir.path(), planted, &mut tally);
                }
                all.lock().unwrap().add(tally);
            });
        }
    });
    all.into_inner().unwrap()
}

#[expect(clippy::too_many_arguments, reason = "one image, from what its thread has")]
fn one(
    recording: &Recording,
    replay: &Replay<'_>,
    case: Case,
    acks: &Acks,
    seed: u64,
    dir: &Path,
    planted: bool,
    tally: &mut Tally,
) {
    let mut dice = Dice::new(seed.wrapping_add(case.at as u64).wrapping_mul(1_000_003) + case.number as u64);
    let store = dir.join(format!("{}-{}", recording.name, case.number)).join("store");
    std::fs::create_dir(store.parent().unwrap()).unwrap();
    let made = replay.image("store", case.kept, &mut dice, &store).unwrap();
    let effects = recording.is_engine.then(|| replay.now("effects").unwrap_or_default());
    let effects = effects.map(|bytes| String::from_utf8(bytes).unwrap());
    let resumes = recording.is_engine && case.number.is_multiple_of(RESUMED) && made.is_there && !planted;
    let mut bad = Bad::default();
    if resumes {
        // Before this process writes anything the program could not read.
        std::fs::write(store.with_file_name("effects"), effects.as_deref().unwrap_or_default()).unwrap();
        let ended = Command::new(env!("CARGO_BIN_EXE_storm")).arg(&store).args(["--total", "2"]).output();
        let ended = ended.unwrap();
        if !ended.status.success() {
            bad.wrong.push(format!("it did not go on: {}", String::from_utf8_lossy(&ended.stderr)));
        }
        tally.resumed += 1;
    }
    let effects = if resumes {
        Some(std::fs::read_to_string(store.with_file_name("effects")).unwrap())
    } else {
        effects
    };
    let found = judge(&store, acks, effects.as_deref(), case.number.is_multiple_of(CLOSED));
    bad.unopened = found.unopened;
    bad.lost = found.lost;
    bad.wrong.extend(found.wrong);
    tally.images += 1;
    tally.cut += u64::from(made.left > 0);
    tally.acknowledged += acks.seqs.values().sum::<u64>();
    tally.lost += bad.lost.len() as u64;
    tally.unopened += u64::from(bad.unopened.is_some());
    tally.wrong += u64::from(!bad.wrong.is_empty());
    *tally.by_part.entry(format!("{}/{}", recording.name, case.part)).or_default() += 1;
    *tally.by_kept.entry(case.kept).or_default() += 1;
    if !bad.is_nothing() && !planted {
        tally.first.get_or_insert_with(|| format!("{} {case:?} {made:?}: {bad:?}", recording.name));
    }
    std::fs::remove_dir_all(store.parent().unwrap()).unwrap();
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_fails() {
    let started = Instant::now();
    let (mut dice, seed) = Dice::from_env(SEED);
    let images = std::env::var("DSSFLOW_IMAGES").map_or(IMAGES, |images| images.parse().unwrap());
    let (engine, store) = (record_engine(), record_store());
    let recovery = record_recovery(&store, &mut dice);
    let mut tally = Tally::default();
    for (recording, share) in [(&engine, 50), (&store, 30), (&recovery, 20)] {
        let from = Instant::now();
        let cases = cases(recording, (images * share).div_ceil(100), &mut dice);
        let found = run(recording, &cases, Ignored::Nothing, seed);
        println!(
            "{}: {} calls, {} MB, {} images in {:.1} s",
            recording.name,
            recording.log.ops.len(),
            recording.log.bytes.len() / 1_000_000,
            found.images,
            from.elapsed().as_secs_f64()
        );
        tally.add(found);
    }
    println!("by part: {:?}\nby what was kept: {:?}", tally.by_part, tally.by_kept);
    println!(
        "power cut: cases={} faults_fired={} acknowledged={} lost={} unopened={} wrong={} resumed={} violations={} seed={seed} seconds={}",
        tally.images,
        tally.cut,
        tally.acknowledged,
        tally.lost,
        tally.unopened,
        tally.wrong,
        tally.resumed,
        tally.bad(),
        started.elapsed().as_secs()
    );
    assert!(tally.first.is_none(), "DSSFLOW_SEED={seed}: {}", tally.first.unwrap());
    assert_eq!(tally.bad(), 0);
    assert!(tally.images >= images, "{}", tally.images);
    assert!(tally.cut * 2 > tally.images, "in most images something is missing: {}", tally.cut);
}
