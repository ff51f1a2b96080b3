//! The life of one simulated process: from its start to its crash.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A switch that everything of one process looks at. Once it is off, nothing of that process acts any more.
#[derive(Debug, Clone, Default)]
pub struct Life(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    over: AtomicBool,
    ended: Notify,
}

impl Life {
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
