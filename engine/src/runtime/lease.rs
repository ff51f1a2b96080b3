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

/// When the lease of an engine ends, in milliseconds since the epoch, and how often it has been over; shared with
/// every attempt.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseEnd(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    until: AtomicU64,
    lapses: AtomicU64,
}

impl LeaseEnd {
    /// The store gave time until `until`, asked at `now`. False when the lease had been over by then: somebody else may
    /// have taken runs of this engine, however long it lasts now.
    #[must_use]
    pub(crate) fn extend(&self, now: Timestamp, until: Timestamp) -> bool {
        let before = Timestamp::from_millis(self.0.until.load(Ordering::SeqCst));
        let lapsed = before != Timestamp::default() && now >= before;
        if lapsed {
            self.0.lapses.fetch_add(1, Ordering::SeqCst);
        }
        self.0.until.store(until.as_millis(), Ordering::SeqCst);
        !lapsed
    }

    pub(crate) fn get(&self) -> Timestamp {
        Timestamp::from_millis(self.0.until.load(Ordering::SeqCst))
    }

    fn lapses(&self) -> u64 {
        self.0.lapses.load(Ordering::SeqCst)
    }
}

/// Says whether an attempt may still act: its worker's lease must not have ended since the run was claimed, not even if
/// it was renewed later. Between the look and the call a
/// process may still be stopped; tokens and names that stay the same are what makes that harmless.
pub(crate) struct LeaseFence {
    epoch: u64,
    end: LeaseEnd,
    lapses: u64,
    clock: Arc<dyn Clock>,
}

impl LeaseFence {
    /// For a run that has just been claimed.
    pub(crate) fn new(epoch: u64, end: LeaseEnd, clock: Arc<dyn Clock>) -> Self {
        let lapses = end.lapses();
        Self { epoch, end, lapses, clock }
    }
}

impl Fence for LeaseFence {
    fn epoch(&self) -> ActivityResult<u64> {
        let (now, until) = (self.clock.now(), self.end.get());
        if now < until && self.end.lapses() == self.lapses {
            return Ok(self.epoch);
        }
        Err(ActivityError::lost_ownership(
            "the lease on the run has ended; another worker may drive it, so nothing more is called",
        ))
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
        if now >= engine.lease_end.get() {
            // The process was away for long: whatever the store says now, runs may have been taken.
            tracing::error!("the lease has ended: every run is let go");
            engine.stop();
        }
        let renewed = tokio::select! {
            biased;
            renewed = engine.store.renew(&engine.worker, now, ttl) => renewed,
            () = clock.sleep_until(now + ttl / 3) => Err(crate::store::StoreError::Unavailable("it does not answer".to_owned())),
        };
        match renewed {
            Ok(until) => {
                let _let_go_above = engine.lease_end.extend(now, until);
            }
            Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
        }
    }
}
