//! Schedules against a clock that jumps: which instants an expression means, and what fires when the clock is put forward
//! and back, the machine sleeps, and the process dies. Each case is an expression, intervals or both, a zone and a stretch
//! of time around something awkward; a brute-force oracle that walks through the stretch second by second or minute by
//! minute says what is right, and how many instants are missed. `DSSFLOW_CASES` says how many, `DSSFLOW_SEED` where to
//! begin, `DSSFLOW_SHOW` how many failures are told.

mod case;
mod oracle;
mod walk;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use case::Case;
use walk::{Plant, Walked};

/// What is run in `./test`; `./campaign schedules` runs ten times as many.
const CASES: u64 = 5_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs cases on all cores; gives what they did, and the failures by case.
fn run(seed: u64, cases: u64, plant: Plant) -> (Walked, Vec<(u64, String)>) {
    let (next, sum, failures) = (AtomicU64::new(0), Mutex::new(Walked::default()), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut mine = Walked::default();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= cases {
                        break;
                    }
                    let case = Case::new(seed, n);
                    match walk::check(&case, plant) {
                        Ok(walked) => mine.add(&walked),
                        Err(why) => {
                            let text = format!("DSSFLOW_SEED={seed} case {n}: {case:?}\n  {why}");
                            failures.lock().expect("no thread panics with it").push((n, text));
                        }
                    }
                }
                sum.lock().expect("no thread panics with it").add(&mine);
            });
        }
    });
    let mut failures = failures.into_inner().expect("all threads are done");
    failures.sort();
    (sum.into_inner().expect("all threads are done"), failures)
}

#[test]
fn every_instant_fires_once_and_no_other_does() {
    let begun = Instant::now();
    let (seed, cases) = (number("DSSFLOW_SEED", 1), number("DSSFLOW_CASES", CASES));
    let (walked, failures) = run(seed, cases, Plant::Nothing);
    println!(
        "calendar: cases {cases}, {walked}, violations {}, seed {seed}, seconds {:.1}",
        failures.len(),
        begun.elapsed().as_secs_f64()
    );
    let shown = usize::try_from(number("DSSFLOW_SHOW", 3)).expect("a small number");
    let told: Vec<&str> = failures.iter().take(shown).map(|(_, text)| text.as_str()).collect();
    assert!(failures.is_empty(), "{} cases failed\n{}", failures.len(), told.join("\n"));
    if cases >= 1_000 {
        walked.assert_that_everything_happened();
    }
}

/// Bugs of the kind that schedulers have: each must be found.
#[test]
fn planted_bugs_are_found() {
    for plant in Plant::ALL.iter().copied().filter(|plant| *plant != Plant::Nothing) {
        let (_, failures) = run(number("DSSFLOW_SEED", 1), 600, plant);
        println!("{plant:?}: {} of 600 cases turn red", failures.len());
        assert!(!failures.is_empty(), "{plant:?} goes unnoticed");
    }
}
