//! Images: what a power cut could leave at some moment of a recording, made and judged.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use dssflow_durability::dice::Dice;
use dssflow_durability::judge::{Bad, judge};
use dssflow_durability::oracle::Acks;
use dssflow_durability::replay::{Ignored, Kept, Replay};
use dssflow_durability::shim::Op;

use crate::recording::{Recording, parts, scratch};

/// One image in so many is closed and looked at again.
const CLOSED: usize = 5;
/// One image in so many of an engine is gone on with by the program itself, until all its runs have ended.
const RESUMED: usize = 25;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    number: usize,
    part: &'static str,
    at: usize,
    pub(crate) kept: Kept,
}

/// So many cut-off moments, spread over all parts; half of those in the running part are right behind a word of the
/// program, when the most has been promised and the least was done since.
pub(crate) fn cases(recording: &Recording, count: u64, dice: &mut Dice) -> Vec<Case> {
    let mut parts = parts(&recording.log);
    // Of what a power cut has left.
    if recording.is_second() {
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
pub(crate) struct Tally {
    pub(crate) images: u64,
    /// Images from which something was missing that the program had written.
    pub(crate) cut: u64,
    pub(crate) acknowledged: u64,
    pub(crate) lost: u64,
    pub(crate) unopened: u64,
    pub(crate) wrong: u64,
    pub(crate) resumed: u64,
    pub(crate) by_part: BTreeMap<String, u64>,
    pub(crate) by_kept: BTreeMap<Kept, u64>,
    pub(crate) first: Option<String>,
}

impl Tally {
    pub(crate) fn bad(&self) -> u64 {
        self.lost + self.unopened + self.wrong
    }

    pub(crate) fn add(&mut self, other: Self) {
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
pub(crate) fn run(recording: &Recording, cases: &[Case], ignored: Ignored, seed: u64) -> Tally {
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
