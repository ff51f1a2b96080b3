//! The whole engine in simulated worlds that do everything to it: random ones by seed, and every single write of
//! hand-made ones. `DSSFLOW_SEED` and `DSSFLOW_SEEDS` choose which and how many, `DSSFLOW_POINTS` how many points of
//! the enumeration, `DSSFLOW_SHOW` how many failures are told in full.
#![expect(clippy::print_stdout, reason = "harnesses report what they did")]

mod crowd;
mod enumeration;
mod found;
mod leases;
mod pictures;
mod seeds;
mod teeth;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Calls `work` for `0..count` on all cores.
fn on_all_cores(count: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    work(n);
                }
            });
        }
    });
}

/// Collects failures, the first few in full.
#[derive(Default)]
struct Failures(Mutex<Vec<(u64, String)>>);

impl Failures {
    fn add(&self, order: u64, text: String) {
        self.0.lock().expect("no thread panics with it").push((order, text));
    }

    fn count(&self) -> usize {
        self.0.lock().expect("no thread panics with it").len()
    }

    fn assert_none(self, what: &str) {
        let mut all = self.0.into_inner().expect("no thread panics with it");
        all.sort();
        if !all.is_empty() {
            let shown = usize::try_from(number("DSSFLOW_SHOW", 5)).expect("a small number");
            let few: Vec<&str> = all.iter().take(shown).map(|(_, text)| text.as_str()).collect();
            panic!("{what}: {} failed\n{}", all.len(), few.join("\n\n"));
        }
    }
}
