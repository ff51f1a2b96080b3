//! Planted faults: a disk that ignores one kind of sync. Each must be found, or the harness sees nothing.

use dssflow_durability::dice;
use dssflow_durability::replay::{Ignored, Kept};

use crate::images::{Tally, cases, run};
use crate::recording::store;

const SEED: u64 = 7;
const IMAGES: u64 = 40;

fn without(ignored: Ignored) -> Tally {
    let (mut dice, seed) = dice::from_env(SEED);
    let mut cases = cases(store(), IMAGES, &mut dice);
    for case in &mut cases {
        case.kept = Kept::None;
    }
    let tally = run(store(), &cases, ignored, seed);
    println!(
        "power cut without {ignored:?}: cases={} lost={} unopened={} wrong={} seed={seed}",
        tally.images, tally.lost, tally.unopened, tally.wrong
    );
    tally
}

#[test]
fn a_disk_without_fdatasync_loses_what_was_acknowledged() {
    let tally = without(Ignored::Data);
    assert!(tally.lost > 0 && tally.bad() * 2 > tally.images, "{tally:?}");
}

#[test]
fn a_disk_without_fsync_of_files_leaves_stores_that_do_not_open() {
    let tally = without(Ignored::Files);
    assert!(tally.bad() * 2 > tally.images, "{tally:?}");
}

#[test]
fn a_disk_without_fsync_of_directories_loses_what_was_acknowledged() {
    let tally = without(Ignored::Directories);
    assert!(tally.lost > 0 && tally.bad() * 2 > tally.images, "{tally:?}");
}
