//! Power cuts while a whole store is compacted, replaced by a backup, or brought to a later format: what is found is
//! the store as it was or as it was to become, or a refusal that giving the restore again mends; and what was to be kept
//! is kept to the last byte.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use dssflow_durability::dice::{self, Dice};
use dssflow_durability::judge::judge;
use dssflow_durability::oracle::{Acks, check_all};
use dssflow_durability::replay::{Ignored, Kept, Replay};
use dssflow_durability::shim::{Log, Op};
use dssflow_durability::work;
use dssflow_engine::store::Store;
use dssflow_store::{OpenError, OpenOptions, STORE_FORMAT, SledStore, verify_offline};

use crate::recording::{Recorder, Recording, files, scratch};

const SEED: u64 = 20_261_124;
/// Images of each recording, besides those about its renames.
const SPREAD: usize = 40;
/// So many calls before and after a rename are cut off one by one.
const ABOUT: usize = 5;

type Files = BTreeMap<String, Vec<u8>>;

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Calls after which the power fails: all those about renames behind `from`, and some in all of the log.
fn moments(log: &Log, from: usize) -> Vec<usize> {
    let end = log.ops.len();
    let mut at: Vec<usize> = (0..SPREAD).map(|i| 1 + i * (end - 1) / SPREAD).collect();
    for (number, op) in log.ops.iter().enumerate().skip(from) {
        if matches!(op, Op::Rename { .. } | Op::Link { .. }) {
            at.extend(number.saturating_sub(ABOUT).max(1)..=(number + ABOUT).min(end));
        }
    }
    at.push(end);
    at.sort_unstable();
    at.dedup();
    at
}

/// Makes the images of a recording and has each looked at, with what was said until then. A program that leaves the
/// syncs of `planted` out is found out.
fn each_image(
    recording: &Recording,
    from: usize,
    planted: Ignored,
    judged: impl Fn(usize, &str, &Path) -> Result<(), String>,
) {
    assert_ne!(
        violations(recording, from, planted, &judged),
        Vec::<String>::new(),
        "{planted:?} is not seen"
    );
    let found = violations(recording, from, Ignored::Nothing, &judged);
    assert!(found.is_empty(), "DSSFLOW_SEED={}: {:#?}", seed(), &found[..found.len().min(4)]);
}

fn violations(
    recording: &Recording,
    from: usize,
    ignored: Ignored,
    judged: &impl Fn(usize, &str, &Path) -> Result<(), String>,
) -> Vec<String> {
    let (started, seed) = (Instant::now(), seed());
    let dir = scratch();
    let mut replay = Replay::new(&recording.log, &recording.before, ignored);
    let (mut cases, mut cut, mut violations) = (0, 0, Vec::new());
    for at in moments(&recording.log, from) {
        replay.advance(at);
        let kinds = [Kept::EACH[at % 7], Kept::EACH[(at / 7 + at + 3) % 7]];
        for kept in if at > from { &kinds[..] } else { &kinds[..1] } {
            let mut dice = Dice::new(seed.wrapping_mul(1_000_003) + at as u64);
            let store = dir.path().join(format!("{cases}")).join("store");
            std::fs::create_dir(store.parent().unwrap()).unwrap();
            let made = replay.image("store", *kept, &mut dice, &store).unwrap();
            cases += 1;
            cut += usize::from(made.left > 0);
            if let Err(wrong) = judged(cases, &recording.log.said(0, at), &store) {
                violations.push(format!("call {at}, kept {kept:?}: {wrong}"));
            }
            std::fs::remove_dir_all(store.parent().unwrap()).unwrap();
        }
    }
    println!(
        "power cut, {}{}: cases={cases} faults_fired={cut} violations={} seed={seed} seconds={}",
        recording.name,
        if ignored == Ignored::Nothing { String::new() } else { format!(", planted {ignored:?}") },
        violations.len(),
        started.elapsed().as_secs()
    );
    assert!(cases >= 60 && cut * 3 > cases, "{cut} of {cases}");
    violations
}

/// A closed store that writers filled, and what they were told.
fn written(disk: &Path) -> Acks {
    let args = ["--store", "--writers", "4", "--commits", "20"];
    let ended =
        Command::new(env!("CARGO_BIN_EXE_storm")).arg(disk.join("store")).args(args).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let mut acks = Acks::default();
    acks.read(std::str::from_utf8(&ended.stdout).unwrap());
    assert!(acks.closed && acks.count == 80);
    acks
}

fn seed() -> u64 {
    dice::from_env(SEED).1
}

#[test]
fn a_store_that_is_compacted_is_whole_whenever_the_power_fails() {
    let mut acks = Acks::default();
    let recorder = Recorder::new("compact", Acks::default(), |disk| acks = written(disk));
    recorder.upkeep("compact");
    let recording = recorder.end();
    let renames = |op: &Op| matches!(op, Op::Rename { to, .. } if to == "store/CURRENT");
    assert_eq!(recording.log.ops.iter().filter(|op| renames(op)).count(), 1);
    each_image(&recording, 0, Ignored::Files, |number, _, store| {
        if number % 4 == 0 {
            SledStore::compact(store, OpenOptions::default(), &mut |_| ())
                .map_err(|e| format!("again: {e}"))?;
        }
        let bad = judge(store, &acks, None, number % 5 == 0);
        if bad.is_nothing() { Ok(()) } else { Err(format!("{bad:?}")) }
    });
}

/// The directories whose names begin so.
fn kept(store: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix) && path.is_dir())
        .collect()
}

/// Each file of the old store is still somewhere, as it was.
fn all_kept(store: &Path, old: &Files) -> Result<(), String> {
    let mut places = kept(store, "kept-");
    places.push(store.to_owned());
    for (name, bytes) in old {
        if !places.iter().any(|place| std::fs::read(place.join(name)).is_ok_and(|found| found == *bytes)) {
            return Err(format!("{name} of the old store is nowhere"));
        }
    }
    Ok(())
}

/// All of them in one place.
fn kept_together(store: &Path, old: &Files) -> Result<(), String> {
    let is_there = |place: &PathBuf, name: &str, bytes: &[u8]| {
        std::fs::read(place.join(name)).is_ok_and(|found| found == bytes)
    };
    let places = kept(store, "kept-");
    if places.iter().any(|place| old.iter().all(|(name, bytes)| is_there(place, name, bytes))) {
        return Ok(());
    }
    Err(format!("the old store is in pieces: {places:?}"))
}

fn check(store: &SledStore, acks: &Acks) -> Result<(), String> {
    let verdict = wait(check_all(store, acks, None));
    if verdict.is_good() { Ok(()) } else { Err(format!("{verdict:?}")) }
}

/// What may be found: the old store until `filled` and a while longer, the new one from then on, or a refusal while they
/// change places. `old` is `None` when the old one does not open.
fn restored(store: &Path, said: &str, old: Option<&Acks>, old_files: &Files) -> Result<(), String> {
    let mut new = Acks::default();
    new.seqs.insert(work::RESTORED_RUN.to_owned(), work::RESTORED_EVENTS);
    all_kept(store, old_files)?;
    match SledStore::open(store, OpenOptions::default()) {
        Ok(found) if found.id() == work::restored_id() => {
            if !said.contains("filled") {
                return Err("the new store is in place before it is whole".to_owned());
            }
            kept_together(store, old_files)?;
            return check(&found, &new);
        }
        Ok(found) => {
            let old = old.ok_or("a store that was damaged opens")?;
            if said.contains("restored") {
                return Err("the old store is still in place".to_owned());
            }
            return check(&found, old);
        }
        Err(OpenError::Damaged { .. }) if !said.contains("restored") => {
            if old.is_some() && !said.contains("filled") {
                return Err("the old store does not open any more".to_owned());
            }
        }
        Err(error) => return Err(format!("{error:?}")),
    }
    let again = wait(work::restore(store)).map_err(|error| format!("again: {error}"))?;
    again.finish().map_err(|error| format!("again: {error}"))?;
    kept_together(store, old_files)?;
    check(&SledStore::open(store, OpenOptions::default()).map_err(|error| format!("again: {error}"))?, &new)
}

/// Over a store from which these files were lost.
fn restore(name: &'static str, lost: &[&str]) {
    let (mut acks, mut old) = (Acks::default(), Files::new());
    let recorder = Recorder::new(name, Acks::default(), |disk| {
        acks = written(disk);
        for name in lost {
            std::fs::remove_file(disk.join("store").join(name)).unwrap();
        }
        old = files(&disk.join("store"));
        old.remove("lock");
    });
    recorder.upkeep("restore");
    let recording = recorder.end();
    let said = |op: &Op| matches!(op, Op::Said { .. });
    let filled = recording.log.ops.iter().position(said).unwrap();
    let expected = lost.is_empty().then_some(&acks);
    each_image(&recording, filled, Ignored::Directories, |_, said, store| {
        restored(store, said, expected, &old)
    });
}

#[test]
fn a_store_that_is_restored_is_the_old_one_or_the_new_one_or_refused_whenever_the_power_fails() {
    restore("restore", &[]);
}

#[test]
fn a_restore_over_a_damaged_store_that_is_cut_off_never_leaves_an_empty_one() {
    restore("restore without HEAD", &["HEAD"]);
    restore("restore without FORMAT and HEAD", &["FORMAT", "HEAD"]);
}

/// What a store of an earlier format has, as it reads.
fn contents(store: &SledStore) -> Vec<String> {
    let list = wait(store.list(dssflow_engine::store::ListQuery::default())).unwrap();
    assert!(list.cursor.is_none());
    let run = |run: dssflow_engine::store::RunSummary| {
        let records = wait(store.load(&run.run, 0)).unwrap();
        format!("{run:?} {records:?}")
    };
    list.runs.into_iter().map(run).collect()
}

#[test]
fn a_store_that_gets_a_later_format_is_whole_and_kept_whenever_the_power_fails() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../store/tests/golden/format-1.tar.gz");
    let unpack = |into: &Path| {
        assert!(Command::new("tar").arg("xzf").arg(&golden).arg("-C").arg(into).status().unwrap().success());
    };
    let apart = scratch();
    unpack(apart.path());
    let mut old = files(&apart.path().join("store"));
    old.remove("lock");
    let expected = contents(&SledStore::open(apart.path().join("store"), OpenOptions::default()).unwrap());
    assert!(expected.len() > 10, "{}", expected.len());

    let recorder = Recorder::new("later format", Acks::default(), unpack);
    recorder.upkeep("open");
    let recording = recorder.end();
    let present = format!("format {STORE_FORMAT}\n");
    let (earlier, later) = (Cell::new(0_u32), Cell::new(0_u32));
    each_image(&recording, 0, Ignored::Files, |number, said, store| {
        let of_earlier = kept(store, "kept-before-format-");
        let format = std::fs::read_to_string(store.join("FORMAT")).map_err(|error| error.to_string())?;
        let has_present = format.contains(&present);
        let seen = if has_present { &later } else { &earlier };
        seen.set(seen.get() + 1);
        if has_present && of_earlier.is_empty() {
            return Err("it has the later format, and no copy of it is kept".to_owned());
        }
        for copy in &of_earlier {
            if files(copy) != old {
                return Err(format!("{} is not what was there", copy.display()));
            }
        }
        let found = SledStore::open(store, OpenOptions::default()).map_err(|error| {
            format!(
                "after {said:?}: {error}: {:?}",
                std::error::Error::source(&error).map(ToString::to_string)
            )
        })?;
        if contents(&found) != expected {
            return Err("another content".to_owned());
        }
        if number % 4 != 0 {
            return Ok(());
        }
        wait(found.close()).map_err(|error| format!("closing: {error}"))?;
        drop(found);
        let report = verify_offline(store).map_err(|error| format!("closed: {error}"))?;
        if !report.report.damage.is_empty() {
            return Err(format!("closed: {report:?}"));
        }
        let copies = kept(store, "kept-before-format-");
        if copies.len() != 1 || files(&copies[0]) != old {
            return Err(format!("kept: {copies:?}"));
        }
        Ok(())
    });
    // Both are met, or what is said of the later one was never asked.
    assert!(later.get() > 0 && earlier.get() > 0, "later {later:?}, earlier {earlier:?}");
}
