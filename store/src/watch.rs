//! A watch over sled's flush. When sled fails to write, it can forget to wake the one who waits for that write; whoever
//! asks for a flush after that is told of the failure at once, and wakes the first. So a flush that takes long is asked
//! for again, from a thread of its own, until it has ended.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::tree::{Trouble, protect};

/// How long a flush may take before it is asked for again; twice as long each time, as the disk may only be slow.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest of these times.
const MOST_PATIENCE: Duration = Duration::from_mins(1);

#[derive(Default)]
struct Shared {
    /// Odd while a flush goes on.
    flushes: AtomicU64,
    /// Whether the watch waits to be woken.
    idle: AtomicBool,
    ended: AtomicBool,
}

/// The watch, until it is dropped.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(tree: &sled::Tree) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (tree, watched) = (tree.clone(), Arc::clone(&shared));
        let thread =
            thread::Builder::new().name("dssflow-watch".to_owned()).spawn(move || watched.watch(&tree))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Flushes the tree. One at a time.
    pub(crate) fn flush(&self, tree: &sled::Tree) -> Result<(), Trouble> {
        self.shared.flushes.fetch_add(1, Ordering::SeqCst);
        // Also when sled panics.
        let _ended = Ended(&self.shared);
        if self.shared.idle.swap(false, Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        tree.flush()?;
        Ok(())
    }
}

struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.flushes.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It catches what sled throws.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn watch(&self, tree: &sled::Tree) {
        let mut asked = Vec::new();
        let (mut watched, mut patience) = (0, PATIENCE);
        while !self.ended.load(Ordering::SeqCst) {
            let now = self.flushes.load(Ordering::SeqCst);
            if now.is_multiple_of(2) {
                self.idle.store(true, Ordering::SeqCst);
                let is_over = self.flushes.load(Ordering::SeqCst) != now || self.ended.load(Ordering::SeqCst);
                if !is_over {
                    thread::park();
                }
                self.idle.store(false, Ordering::SeqCst);
            } else if now != watched {
                (watched, patience) = (now, PATIENCE);
                thread::park_timeout(patience);
            } else {
                tracing::warn!("sled's flush takes long");
                let again = tree.clone();
                let ask = move || {
                    drop(protect(|| {
                        again.flush()?;
                        Ok(())
                    }));
                };
                // Without a thread it is tried again later.
                asked.extend(thread::Builder::new().name("dssflow-flush".to_owned()).spawn(ask));
                patience = MOST_PATIENCE.min(patience * 2);
                thread::park_timeout(patience);
            }
        }
        // The flush has ended, and so have all that were asked for meanwhile.
        for thread in asked {
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_that_takes_long_is_asked_for_again_and_the_watch_ends() {
        let dir = tempfile::tempdir().unwrap();
        let db = crate::tree::open(dir.path(), 1024 * 1024).unwrap();
        let watch = Watch::start(&db).unwrap();
        for number in 0_u64..100 {
            db.insert(b"key", &number.to_be_bytes()).unwrap();
            watch.flush(&db).unwrap();
        }
        // As if one were never woken.
        watch.shared.flushes.fetch_add(1, Ordering::SeqCst);
        if watch.shared.idle.swap(false, Ordering::SeqCst) {
            watch.thread.as_ref().unwrap().thread().unpark();
        }
        let before = db.size_on_disk().unwrap();
        db.insert(b"key", b"unflushed").unwrap();
        while db.size_on_disk().unwrap() == before {
            thread::yield_now();
        }
        watch.shared.flushes.fetch_add(1, Ordering::SeqCst);
        drop(watch);
        assert!(crate::tree::close(db).is_ok());
    }
}
