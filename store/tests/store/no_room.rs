//! Where no copy of a store can be made or read, nothing is known of the store: it is not opened and not called damaged.

use std::fs;
use std::path::Path;

use dssflow_engine::archive::CopyOptions;
use dssflow_engine::time::Timestamp;
use dssflow_store::{
    ExportError, OpenError, OpenOptions, SledStore, export_offline, info_offline, verify_offline,
};

use crate::support::{child, child_path, contents, fill, open, wait};

#[track_caller]
fn not_looked_at(error: &OpenError) {
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
    let (said, hint) = (error.to_string(), error.hint());
    assert!(said.contains("a copy of the store") && hint.contains("TMPDIR"), "{said}; {hint}");
    assert!(!said.contains("damaged"), "{said}");
}

fn look(path: &Path) {
    not_looked_at(&verify_offline(path).unwrap_err());
    not_looked_at(&info_offline(path).unwrap_err());
    let options =
        CopyOptions { now: Timestamp::from_millis(5_000), product: "a test".to_owned(), runs: None };
    let answer = wait(export_offline(path, Vec::new(), options, &mut |_| ()));
    match answer.map(|(_, report)| report) {
        Err(ExportError::Open(error)) => not_looked_at(&error),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_directory_for_copies_nothing_is_said_of_a_store() {
    if let Some(path) = child_path() {
        look(&path);
        not_looked_at(&SledStore::open(&path, OpenOptions::default()).unwrap_err());
        // There is nothing of a new one that could be copied.
        let new = open(&path.with_file_name("new"));
        wait(fill(&new, 1));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    wait(fill(&store, 6));
    let expected = wait(contents(&store));
    drop(store);

    let before = fs::read(path.join("gen-1/db")).unwrap();
    let mut child = child("no_room::without_a_directory_for_copies_nothing_is_said_of_a_store", &path);
    let output = child.env("TMPDIR", dir.path().join("absent")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(fs::read(path.join("gen-1/db")).unwrap() == before, "it was not touched");

    assert!(verify_offline(&path).unwrap().report.damage.is_empty());
    let store = open(&path);
    assert!(wait(contents(&store)) == expected);
    wait(store.close()).unwrap();
    // What was closed in good order is opened without a copy.
    drop(open(&path));
}

#[test]
fn copies_of_killed_processes_are_removed_by_the_next_one() {
    if let Some(path) = child_path() {
        verify_offline(&path).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    wait(fill(&store, 3));
    wait(store.close()).unwrap();
    let temp = dir.path().join("temp");
    let left = temp.join("dssflow-store-0123456789abcdef");
    fs::create_dir_all(left.join("data")).unwrap();
    fs::write(left.join("lock"), "").unwrap();
    fs::write(left.join("data/db"), "a copy").unwrap();
    let used = temp.join("dssflow-store-fedcba9876543210");
    fs::create_dir(&used).unwrap();
    let lock = fs::File::create(used.join("lock")).unwrap();
    lock.lock().unwrap();

    let mut child = child("no_room::copies_of_killed_processes_are_removed_by_the_next_one", &path);
    let output = child.env("TMPDIR", &temp).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let names: Vec<_> = fs::read_dir(&temp).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, [used], "its own is gone, too");
}
