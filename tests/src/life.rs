//! The life of one simulated process: from its start to its crash, and what its clock shows meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dssflow_engine::runtime::clock::TokioClock;
use dssflow_engine::time::{BoxFuture, Clock, Timestamp};
use tokio::sync::Notify;

/// A switch that everything of one process looks at. Once it is off, nothing of that process acts any more.
#[derive(Debug, Clone)]
pub struct Life(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    over: AtomicBool,
    ended: Notify,
    time: TokioClock,
    behind: Duration,
}

impl Life {
    /// A process that starts at a time, with a clock that is so much behind. Must be made inside a runtime.
    pub fn starting_at(now_ms: u64, behind: Duration) -> Self {
        Self(Arc::new(Inner {
            over: AtomicBool::new(false),
            ended: Notify::new(),
            time: TokioClock::starting_at(Timestamp::from_millis(now_ms)),
            behind,
        }))
    }

    /// The true time, in milliseconds: what the cloud lives by.
    pub fn now_ms(&self) -> u64 {
        self.0.time.now().as_millis()
    }

    /// The clock of the process.
    pub fn clock(&self) -> LateClock {
        LateClock(Arc::clone(&self.0))
    }

    /// Ends it: the process has crashed.
    pub fn end(&self) {
        self.0.over.store(true, Ordering::SeqCst);
        self.0.ended.notify_one();
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.0.over.load(Ordering::SeqCst)
    }

    /// Resolves when it ends. For one listener.
    pub async fn ended(&self) {
        while !self.is_over() {
            self.0.ended.notified().await;
        }
    }
}

/// A wall clock that somebody has set back.
#[derive(Debug, Clone)]
pub struct LateClock(Arc<Inner>);

impl Clock for LateClock {
    fn now(&self) -> Timestamp {
        let behind = u64::try_from(self.0.behind.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(self.0.time.now().as_millis().saturating_sub(behind))
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(at.since(self.now())))
    }
}
