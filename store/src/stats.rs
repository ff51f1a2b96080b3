//! What a store has done since it was opened, and where the time of its commits went.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::commit::Counters;

/// What a store has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Groups of commits made durable, the one that raised the epoch included.
    pub groups: u64,
    /// Transitions in them.
    pub transitions: u64,
    /// Syncs of sled's log, for groups.
    pub tree_syncs: u64,
    /// Syncs of `HEAD`, for groups.
    pub head_syncs: u64,
    /// Payload files written or found there.
    pub payloads: u64,
    /// Transitions in the largest group.
    pub largest_group: u64,
    /// Transitions that were refused: decided elsewhere, fenced, not fit to be stored.
    pub refused: u64,
    /// Runs that lists have looked at, those that did not match included: what queries cost.
    pub listed: u64,
    /// Where the time of the groups went.
    pub spent: Spent,
}

/// How long the committer was in each part of its groups, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Checking transitions and encoding what they write.
    pub staging: Duration,
    /// sled's `apply_batch`.
    pub applying: Duration,
    /// sled's `flush`.
    pub flushing: Duration,
    /// `fdatasync` of sled's log.
    pub syncing_tree: Duration,
    /// Writing and syncing a slot of `HEAD`.
    pub writing_head: Duration,
}

impl Stats {
    pub(crate) fn of(counters: &Counters) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let time = |counter| Duration::from_nanos(read(counter));
        Self {
            groups: read(&counters.groups),
            transitions: read(&counters.transitions),
            tree_syncs: read(&counters.tree_syncs),
            head_syncs: read(&counters.head_syncs),
            payloads: read(&counters.payloads),
            largest_group: read(&counters.largest_group),
            refused: read(&counters.refused),
            listed: read(&counters.listed),
            spent: Spent {
                staging: time(&counters.spent.staging),
                applying: time(&counters.spent.applying),
                flushing: time(&counters.spent.flushing),
                syncing_tree: time(&counters.spent.syncing_tree),
                writing_head: time(&counters.spent.writing_head),
            },
        }
    }
}
