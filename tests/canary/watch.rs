//! Looks at the children of a command while it runs: what others could read of them, their argv and environment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// What was seen of the processes below one.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Pids of children that were met.
    pub(crate) children: BTreeSet<u32>,
    /// Their command lines and environments, each once.
    pub(crate) texts: BTreeSet<Vec<u8>>,
}

/// A look at `/proc` again and again, until it is asked to end.
pub(crate) struct Watch {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watch {
    pub(crate) fn begin(parent: u32) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            let command = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            // Whoever starts a process goes on a moment before that one has its arguments.
            let mut own = command(parent);
            while own.is_empty() && !ended.load(Ordering::Relaxed) {
                std::thread::yield_now();
                own = command(parent);
            }
            while !ended.load(Ordering::Relaxed) {
                for pid in below(parent) {
                    // Between fork and exec a child is still its parent, and shows what that one was given. One that
                    // has ended meanwhile shows nothing.
                    let argv = command(pid);
                    if argv.is_empty() || argv == own {
                        continue;
                    }
                    seen.children.insert(pid);
                    seen.texts.insert(argv);
                    seen.texts.insert(std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default());
                }
                std::thread::yield_now();
            }
            seen
        });
        Self { end, thread }
    }

    pub(crate) fn end(self) -> Seen {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only reads")
    }
}

/// The descendants of a process.
fn below(parent: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in brackets may hold anything; what follows it is plain.
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        if let Some(above) = rest.split(' ').nth(1).and_then(|word| word.parse().ok()) {
            children.entry(above).or_default().push(pid);
        }
    }
    let (mut found, mut at) = (vec![parent], 0);
    while at < found.len() {
        found.extend(children.get(&found[at]).into_iter().flatten());
        at += 1;
    }
    found.split_off(1)
}
