//! SIGKILL: whatever the child acknowledged is there, once and unchanged.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::Duration;

use dssflow_engine::id::RunId;
use dssflow_engine::store::conformance::transition;
use dssflow_engine::store::{Expect, Store as _};
use dssflow_store::{ManifestState, verify_offline};
use futures::future::join_all;

use crate::support::{Dice, child, child_path, open, wait};

const KILLS: u32 = 10;
const WRITERS: usize = 16;

/// The record of one event, told from run and number alone.
fn record(run: &str, seq: u64) -> Vec<u8> {
    let size = [50, 300, 300, 5_000, 300, 300, 66_000, 300][seq as usize % 8];
    format!("{run}:{seq};").into_bytes().into_iter().cycle().take(size).collect()
}

/// Writes for ever and prints each acknowledgement.
fn write_for_ever(path: &std::path::Path) {
    let store = open(path);
    wait(join_all((0..WRITERS).map(async |i| {
        let run = format!("run-{i}");
        let id = RunId::new(run.as_str()).unwrap();
        let mut seq = store.head(&id).await.unwrap().map_or(0, |head| head.seq);
        loop {
            let expect = if seq == 0 { Expect::New } else { Expect::At { seq } };
            let mut next = transition(&run, expect, store.epoch());
            next.record = record(&run, seq + 1);
            seq = store.commit(next).await.unwrap();
            // One write, so that a line is there whole or not at all.
            std::io::stdout().write_all(format!("ack {run} {seq}\n").as_bytes()).unwrap();
        }
    })));
}

#[test]
fn nothing_acknowledged_is_lost() {
    if let Some(path) = child_path() {
        write_for_ever(&path);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut dice = Dice::new("kill", 20_261_123);
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    let (mut acks, mut during_open) = (0_u64, 0);
    for kill in 0..KILLS {
        let mut owner =
            child("killed::nothing_acknowledged_is_lost", &path).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
        // Some are killed while they open.
        std::thread::sleep(Duration::from_millis(if kill % 4 == 3 {
            dice.below(30)
        } else {
            150 + dice.below(500)
        }));
        owner.kill().unwrap();
        owner.wait().unwrap();
        let lines = reader.join().unwrap();
        let mut any = false;
        for line in &lines {
            // The harness prints the test's name without a line end before the first.
            let Some((_, ack)) = line.split_once("ack ") else { continue };
            let Some((run, seq)) = ack.split_once(' ') else { continue };
            let last = acknowledged.entry(run.to_owned()).or_default();
            *last = (*last).max(seq.parse().unwrap());
            acks += 1;
            any = true;
        }
        during_open += u32::from(!any);

        if path.join("FORMAT").exists() {
            let report = verify_offline(&path).unwrap();
            if path.join("CURRENT").exists() {
                assert!(report.report.damage.is_empty(), "kill {kill}: {report:?}");
                assert_eq!(report.manifest, ManifestState::Absent);
            }
        }
        let store = open(&path);
        for (run, acknowledged) in &acknowledged {
            let records = wait(store.load(&RunId::new(run.as_str()).unwrap(), 0)).unwrap();
            let found = records.len() as u64;
            assert!(found >= *acknowledged && found <= acknowledged + 1 + u64::from(kill), "{run}: {found}");
            for (i, found) in records.iter().enumerate() {
                assert!(found.bytes == record(run, i as u64 + 1), "{run} event {} is as written", i + 1);
            }
        }
        drop(store);
    }
    println!("kill: cases={KILLS} acknowledgements={acks} during_open={during_open} violations=0");
    assert!(acks > 300, "the children did work: {acks}");
}
