//! The judge itself: it finds nothing wrong with a store that was killed and went on, and it sees what is missing.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use dssflow_durability::oracle::{Acks, Verdict, check, check_effects};
use dssflow_engine::id::ScheduleId;
use dssflow_engine::store::{SchedulePut, Store as _};
use dssflow_store::{OpenOptions, SledStore};

fn storm(store: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_storm"));
    command.arg(store).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Lets it print so many lines and kills it; what it printed.
fn killed_after(mut command: Command, lines: usize) -> String {
    let mut child = command.spawn().unwrap();
    let mut printed = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    for _ in 0..lines {
        assert!(out.read_line(&mut printed).unwrap() > 0, "it printed {lines} lines");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    while out.read_line(&mut printed).unwrap() > 0 {}
    printed
}

/// Killed, then brought to an end; what was acknowledged, and the store.
fn two_lives(path: &Path, first: &[&str], second: &[&str]) -> (Acks, SledStore) {
    let mut acks = Acks::default();
    acks.read(&killed_after(storm(path, first), 500));
    let ended = storm(path, second).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    acks.read(&String::from_utf8(ended.stdout).unwrap());
    assert_eq!(acks.epoch, 2);
    (acks, SledStore::open(path, OpenOptions::default()).unwrap())
}

/// The store is good, and each of these lines is one thing lost.
async fn judge(store: &SledStore, acks: &Acks, untrue: &[&str]) {
    let verdict = check(store, acks).await;
    assert!(verdict.is_good(), "{verdict:?}");
    assert!(verdict.runs >= acks.seqs.len() as u64);
    for line in untrue {
        let mut more = acks.clone();
        assert!(more.note(line));
        let Verdict { lost, wrong, .. } = check(store, &more).await;
        assert!(lost.len() == 1 && wrong.is_empty(), "{line}: {lost:?} {wrong:?}");
    }
}

#[tokio::test]
async fn runs_that_were_cut_off_end_and_whatever_more_is_claimed_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (acks, store) = two_lives(&path, &["--runs", "16"], &["--total", "40"]);
    assert!(acks.ended.len() >= 40, "{}", acks.ended.len());
    let untrue = [
        "ack r1-0 9999",
        "ack r9-0 1",
        "done r1-0 s77",
        "ended r1-0 failed",
        "open 99",
        "at tick 99999999999",
    ];
    judge(&store, &acks, &untrue).await;

    let effects = std::fs::read_to_string(dir.path().join("effects")).unwrap();
    assert_eq!(check_effects(&store, &effects).await, [""; 0]);
    // The last one counts as done, as the runs have ended.
    let last = effects.lines().last().unwrap();
    for (effects, what) in [
        (format!("{effects}{last}\n"), "acted twice"),
        (format!("{effects}effect r1-0 s0 77\n"), "is in no history"),
        (effects.replace(&format!("{last}\n"), ""), "did nothing"),
    ] {
        let wrong = check_effects(&store, &effects).await;
        assert!(wrong.len() == 1 && wrong[0].contains(what), "{what}: {wrong:?}");
    }
}

#[tokio::test]
async fn records_that_were_acknowledged_are_there_and_whatever_more_is_claimed_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (acks, store) = two_lives(&path, &["--store"], &["--store", "--commits", "5"]);
    assert!(acks.closed);
    judge(&store, &acks, &["ack w0-0 4999", "ack w99-0 1", "ended w0-0 failed"]).await;

    // A schedule that somebody else changes, removes or makes is seen, each as one thing.
    assert!(acks.schedules.changed.len() > 10, "{:?}", acks.schedules);
    let stored = store.schedules(None, 100).await.unwrap();
    let put =
        |id: &ScheduleId, expect, due| SchedulePut { id: id.clone(), expect, record: b"x".to_vec(), due };
    let changed = &stored[0];
    store.put_schedule(put(&changed.id, Some(changed.version), changed.due), 3).await.unwrap();
    store.put_schedule(put(&ScheduleId::new("mine").unwrap(), None, None), 3).await.unwrap();
    store.remove_schedule(&stored[1].id, stored[1].version, 3).await.unwrap();
    let Verdict { lost, wrong, .. } = check(&store, &acks).await;
    assert_eq!(lost.len() + wrong.len(), 3, "{lost:?} {wrong:?}");
}
