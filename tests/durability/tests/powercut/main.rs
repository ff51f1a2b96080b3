//! Power cuts: the real program is recorded, and cut off at any call; only what it synced is sure to be there. Every
//! image opens, holds all that was acknowledged until then, and goes on.
//!
//! `DSSFLOW_IMAGES=5000` makes more of them, `DSSFLOW_SEED` others. `DSSFLOW_IMAGE_DIR` says where they are made.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod gate;
mod images;
mod planted;
mod recording;
mod upkeep;

use std::time::Instant;

use dssflow_durability::dice;
use dssflow_durability::replay::Ignored;

use crate::images::{Tally, cases, run};
use crate::recording::{after_cut, engine, images, store};

const SEED: u64 = 20_261_123;

#[test]
fn nothing_acknowledged_is_lost_when_the_power_fails() {
    let started = Instant::now();
    let (mut dice, seed) = dice::from_env(SEED);
    let images = images();
    let recovery = after_cut("recovery", "running", &mut dice);
    let again = after_cut("made again", "creating", &mut dice);
    let mut tally = Tally::default();
    for (recording, share) in [(engine(), 45), (store(), 30), (&recovery, 15), (&again, 10)] {
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
