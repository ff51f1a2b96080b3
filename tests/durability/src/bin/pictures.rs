//! How long it takes to lay a graph out: `pictures [BOXES]`. Prints the best and the worst of many graphs of that size
//! and ends with 1 when the best of a kind takes longer than is promised for a thousand boxes.

#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use dssflow_engine::graph::layout::{self, Size};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// What is promised for a thousand boxes.
const LIMIT: Duration = Duration::from_millis(50);
/// Graphs of each kind.
const GRAPHS: u64 = 10;

fn main() -> ExitCode {
    let boxes: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1000).max(2);
    let kinds: [(&str, usize, usize); 4] =
        [("long", 2, boxes), ("local", 3, 30), ("dense", 6, 100), ("fan", 1, 0)];
    let mut slow = false;
    for (name, most, reach) in kinds {
        let mut times: Vec<Duration> = (0..GRAPHS)
            .map(|seed| {
                let (sizes, edges) = graph(seed, boxes, most, reach);
                let begin = Instant::now();
                let edges = layout::essential(boxes, &edges).expect("edges go down");
                let laid = layout::lay_out(&sizes, &edges).expect("it is not too large");
                let took = begin.elapsed();
                assert_eq!(laid.places.len(), boxes);
                took
            })
            .collect();
        times.sort_unstable();
        let (best, worst) = (times[0], times[times.len() - 1]);
        println!(
            "{name:6} {boxes} boxes  best {best:9.1?}  median {:9.1?}  worst {worst:9.1?}",
            times[times.len() / 2]
        );
        slow |= boxes <= 1000 && best > LIMIT;
    }
    ExitCode::from(u8::from(slow))
}

/// Boxes that stand below up to `most` of the `reach` before them; without reach a fan and its end.
fn graph(seed: u64, boxes: usize, most: usize, reach: usize) -> (Vec<Size>, Vec<(usize, usize)>) {
    let mut chance = StdRng::seed_from_u64(seed);
    let sizes = (0..boxes).map(|_| Size { width: chance.random_range(112.0..236.0), height: 46.0 }).collect();
    let mut edges = Vec::new();
    for to in 1..boxes {
        if reach == 0 {
            edges.push((0, to));
            if to + 1 < boxes {
                edges.push((to, boxes - 1));
            }
            continue;
        }
        for _ in 0..chance.random_range(1..=most) {
            edges.push((to - 1 - chance.random_range(0..to.min(reach)), to));
        }
    }
    (sizes, edges)
}
