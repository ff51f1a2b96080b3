//! Ownership where several engines share a store: one lease a worker, renewed while it lives, and a fence for calls.
//!
//! A store that one process owns needs none of this: its claims never end, nothing is renewed, and every call passes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::activity::{ActivityError, ActivityResult, Fence};
use crate::runtime::engine::Inner;
use crate::time::{Clock, Timestamp};

/// How long a lease lasts by default.
pub const LEASE_TTL: Duration = Duration::from_secs(15);

/// When the lease of an engine ends, in milliseconds since the epoch; shared with every attempt.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseEnd(Arc<AtomicU64>);

impl LeaseEnd {
    pub(crate) fn set(&self, until: Timestamp) {
        self.0.store(until.as_millis(), Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Says whether an attempt may still act: its worker's lease must not have ended. Between the look and the call a
/// process may still be stopped; tokens and names that stay the same are what makes that harmless.
pub(crate) struct LeaseFence {
    pub(crate) epoch: u64,
    pub(crate) end: LeaseEnd,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Fence for LeaseFence {
    fn epoch(&self) -> ActivityResult<u64> {
        let (now, until) = (self.clock.now(), self.end.get());
        if now < until {
            return Ok(self.epoch);
        }
        Err(ActivityError::lost_ownership(format!(
            "the lease on the run ended at {until}; another worker may drive it, so nothing more is called"
        )))
    }
}

/// Renews the lease until the engine is gone. When it has ended before it could be renewed, every run is let go.
pub(crate) async fn keep(inner: Weak<Inner>) {
    loop {
        let Some(engine) = inner.upgrade() else { return };
        let (clock, ttl) = (Arc::clone(&engine.clock), engine.options.lease_ttl);
        drop(engine);
        clock.sleep_until(clock.now() + ttl / 3).await;
        let Some(engine) = inner.upgrade() else { return };
        let now = clock.now();
        let renewed = tokio::select! {
            biased;
            renewed = engine.store.renew(&engine.worker, now, ttl) => renewed,
            () = clock.sleep_until(now + ttl / 3) => Err(crate::store::StoreError::Unavailable("it does not answer".to_owned())),
        };
        match renewed {
            Ok(until) => engine.lease_end.set(until),
            Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
        }
        if clock.now() >= engine.lease_end.get() {
            tracing::error!("the lease has ended: every run is let go");
            engine.stop();
        }
    }
}
