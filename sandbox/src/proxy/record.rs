//! What was called: a ring of the last calls and a count of all, for tests and for `sandbox status`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// So many calls are kept with their details.
const RING: usize = 5_000;

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// Position among all calls, from 0.
    pub seq: u64,
    /// `aws` or `dss`.
    pub target: String,
    /// For AWS `service:Operation`, for DSS `METHOD /path`.
    pub op: String,
    /// The caller's access key id; empty for a call to DSS.
    #[serde(default)]
    pub caller: String,
    /// Whether it is of a kind that changes something.
    pub mutating: bool,
    /// Whether the request carries the five ownership marks, as tags or in another form.
    #[serde(default)]
    pub marked: bool,
    /// Status of the reply that was made; 0 when the call never reached the server.
    pub status: u16,
    /// Whether the reply was one kept for the call's token.
    pub replayed: bool,
    /// What a fault did to it, if one did.
    pub fault: Option<String>,
    /// The client token it carried, if its operation takes one.
    #[serde(default)]
    pub token: Option<String>,
}

/// All calls so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallReport {
    /// Number of calls.
    pub total: u64,
    /// Number of calls of a kind that changes something, those that failed or were replayed included.
    pub mutating: u64,
    /// Number of calls by operation.
    pub by_op: BTreeMap<String, u64>,
    /// Number of calls to AWS by the caller's access key id, then by operation.
    #[serde(default)]
    pub by_caller: BTreeMap<String, BTreeMap<String, u64>>,
    /// The last calls, oldest first.
    pub recent: Vec<CallRecord>,
}

/// Collects calls.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    total: u64,
    mutating: u64,
    by_op: BTreeMap<String, u64>,
    by_caller: BTreeMap<String, BTreeMap<String, u64>>,
    ring: VecDeque<CallRecord>,
}

impl Recorder {
    /// Adds a call; its position is given here.
    pub(crate) fn add(&self, mut record: CallRecord) {
        let mut inner = self.lock();
        record.seq = inner.total;
        inner.total += 1;
        inner.mutating += u64::from(record.mutating);
        *inner.by_op.entry(record.op.clone()).or_default() += 1;
        if !record.caller.is_empty() {
            let of_caller = inner.by_caller.entry(record.caller.clone()).or_default();
            *of_caller.entry(record.op.clone()).or_default() += 1;
        }
        if inner.ring.len() == RING {
            inner.ring.pop_front();
        }
        inner.ring.push_back(record);
    }

    pub(crate) fn report(&self) -> CallReport {
        self.since(0)
    }

    /// The same, of the last calls only those from this position on.
    pub(crate) fn since(&self, seq: u64) -> CallReport {
        let inner = self.lock();
        CallReport {
            total: inner.total,
            mutating: inner.mutating,
            by_op: inner.by_op.clone(),
            by_caller: inner.by_caller.clone(),
            recent: inner.ring.iter().filter(|call| call.seq >= seq).cloned().collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
