//! A flipped bit anywhere in a closed store is reported; one in live data is reported after a crash as well, or
//! changes nothing of what is read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dssflow_engine::id::RunId;
use dssflow_engine::store::{ListQuery, Store as _};
use dssflow_store::{OpenError, OpenOptions, SledStore, verify_offline};

use crate::support::{Dice, fill, open, wait};

/// Flips in each file of a closed store.
const FLIPS: u64 = 200;
/// Flips in each file of a store whose owner was killed; each is followed by reading everything.
const CRASHED_FLIPS: u64 = 25;

fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if fs::metadata(&path).unwrap().len() > 0 {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn flip(path: &Path, dice: &mut Dice) -> (u64, u8) {
    let mut bytes = fs::read(path).unwrap();
    let (at, bit) = (dice.below(bytes.len() as u64), u8::try_from(dice.below(8)).unwrap());
    bytes[at as usize] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
    (at, bit)
}

fn unflip(path: &Path, (at, bit): (u64, u8)) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_bit_anywhere_in_a_closed_store_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    wait(async {
        let store = open(&path);
        fill(&store, 4).await;
        store.close().await.unwrap();
    });
    let mut dice = Dice::new("flips", 7);
    let mut cases = 0;
    let files = files(&path);
    for file in &files {
        let name = file.strip_prefix(&path).unwrap().display().to_string();
        // Payload files are alike, and the small text files have fewer bits than that.
        let flips = if name.starts_with("payloads") { FLIPS / 20 } else { FLIPS };
        for _ in 0..flips.min(fs::metadata(file).unwrap().len()) {
            let flipped = flip(file, &mut dice);
            match verify_offline(&path) {
                Ok(report) => assert!(!report.report.damage.is_empty(), "{name} {flipped:?}: not reported"),
                Err(error) => {
                    assert!(matches!(error, OpenError::Damaged { .. }), "{name} {flipped:?}: {error:?}");
                }
            }
            unflip(file, flipped);
            cases += 1;
        }
    }
    println!("flips in a closed store: files={} cases={cases} unreported=0", files.len());
    assert!(cases >= 500, "{cases}");
    assert!(verify_offline(&path).unwrap().report.damage.is_empty(), "undone flips leave no trace");
}

type Content = BTreeMap<String, Vec<Vec<u8>>>;

/// Everything a reader can get; `None` when any of it is refused.
fn read_all(store: &SledStore) -> Option<Content> {
    wait(async {
        let mut content = Content::new();
        for summary in store.list(ListQuery::default()).await.ok()?.runs {
            let records = store.load(&summary.run, 0).await.ok()?;
            content.insert(format!("{summary:?}"), records.into_iter().map(|record| record.bytes).collect());
        }
        Some(content)
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_flipped_bit_after_a_crash_is_never_read_as_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let content = {
        let store = open(&path);
        wait(fill(&store, 4));
        read_all(&store).unwrap()
        // Dropped, not closed: there is no manifest.
    };
    let mut dice = Dice::new("flips after a crash", 11);
    let (mut refused, mut reported, mut harmless) = (0, 0, 0);
    for file in files(&path) {
        let name = file.strip_prefix(&path).unwrap().to_owned();
        let flips = if name.starts_with("payloads") { 1 } else { CRASHED_FLIPS };
        let flips = if name.ends_with("db") { 8 * flips } else { flips };
        for _ in 0..flips {
            let image = dir.path().join("image");
            copy(&path, &image);
            let flipped = flip(&image.join(&name), &mut dice);
            let report = verify_offline(&image);
            let found = report.as_ref().map_or(true, |report| !report.report.damage.is_empty());
            match SledStore::open(&image, OpenOptions::default()) {
                Err(OpenError::Damaged { .. } | OpenError::Io { .. }) => {
                    assert!(
                        found,
                        "{} {flipped:?}: refused, and verify saw nothing: {report:?}",
                        name.display()
                    );
                    refused += 1;
                }
                Err(error) => panic!("{} {flipped:?}: {error:?}", name.display()),
                Ok(store) => match read_all(&store) {
                    Some(read) if read == content => harmless += 1,
                    Some(_) => panic!("{} {flipped:?}: other data, silently", name.display()),
                    None => {
                        assert!(found, "{} {flipped:?}: verify saw nothing: {report:?}", name.display());
                        reported += 1;
                    }
                },
            }
            fs::remove_dir_all(&image).unwrap();
        }
    }
    println!(
        "flips after a crash: cases={} refused={refused} reported={reported} harmless={harmless} silent=0",
        refused + reported + harmless
    );
}

#[test]
fn verify_names_run_and_event() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    wait(fill(&store, 4));
    // The record of 70,000 bytes is in a payload file: event 4 of run-0.
    let records = wait(store.load(&RunId::new("run-0").unwrap(), 0)).unwrap();
    assert_eq!(records[3].bytes.len(), 70_000);
    drop(store);
    let file = fs::read_dir(path.join("payloads"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|file| fs::read(file).unwrap() == records[3].bytes)
        .unwrap();
    flip(&file, &mut Dice::new("payload", 3));
    let damage = verify_offline(&path).unwrap().report.damage;
    let named = damage.iter().find(|damage| damage.run.is_some()).unwrap();
    assert_eq!(named.run.as_ref().map(RunId::as_str), Some("run-0"));
    assert_eq!(named.seq, Some(4), "{damage:?}");
}

#[test]
fn one_old_file_put_back_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    drop(open(&path));
    copy(&path, &old);
    let store = open(&path);
    wait(fill(&store, 4));
    drop(store);
    copy(&path, &new);
    for name in ["HEAD", "gen-1/db"] {
        let image = dir.path().join("image");
        copy(&new, &image);
        fs::copy(old.join(name), image.join(name)).unwrap();
        let report = verify_offline(&image).unwrap().report;
        assert!(!report.damage.is_empty(), "an old {name} is reported");
        let error = SledStore::open(&image, OpenOptions::default()).expect_err("an old file is refused");
        assert!(matches!(&error, OpenError::Damaged { .. }), "{name}: {error:?}");
        assert!(error.hint().contains("dssflow store verify"), "{}", error.hint());
        fs::remove_dir_all(&image).unwrap();
    }
}
