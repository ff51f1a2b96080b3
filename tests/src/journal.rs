//! The durable journal as an outsider reads it: which intents were there before which change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dssflow_engine::event::{EventKind, Phase, decode};

#[derive(Default)]
struct Inner {
    unread: Vec<(u64, Vec<u8>)>,
    intents: BTreeSet<(String, u32, bool)>,
    done: BTreeSet<String>,
    rollback: bool,
    needs: BTreeMap<String, Vec<String>>,
    downstream: BTreeMap<String, Vec<String>>,
}

/// What is durable, fed by the store when it acknowledges.
#[derive(Default)]
pub struct Journal {
    inner: Mutex<Inner>,
}

impl Journal {
    /// A journal of a run whose steps depend on each other so. Steps in `kept` are never undone.
    pub fn new(needs: BTreeMap<String, Vec<String>>, kept: &[String]) -> Self {
        let mut downstream: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for step in needs.keys().filter(|s| !kept.contains(s)) {
            let (mut seen, mut todo) = (BTreeSet::new(), vec![step]);
            while let Some(next) = todo.pop() {
                for need in needs.get(next).into_iter().flatten() {
                    if seen.insert(need) {
                        downstream.entry(need.clone()).or_default().push(step.clone());
                        todo.push(need);
                    }
                }
            }
        }
        Self { inner: Mutex::new(Inner { needs, downstream, ..Inner::default() }) }
    }

    /// Steps that depend on a step, over any distance, and have to be undone before it.
    pub fn downstream(&self, step: &str) -> Vec<String> {
        self.lock().downstream.get(step).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a record that has become durable.
    pub fn durable(&self, first_seq: u64, bytes: Vec<u8>) {
        self.lock().unread.push((first_seq, bytes));
    }

    /// Reads everything again from what a crash has left.
    pub fn replace(&self, records: Vec<(u64, Vec<u8>)>) {
        let mut inner = self.lock();
        inner.unread = records;
        inner.intents.clear();
        inner.done.clear();
        inner.rollback = false;
    }

    /// What speaks against a change by this attempt, if anything does.
    pub fn objection(&self, step: &str, attempt: u32, undoing: bool) -> Option<String> {
        let mut inner = self.lock();
        for (first, bytes) in std::mem::take(&mut inner.unread) {
            let events = match decode(first, &bytes) {
                Ok(events) => events,
                Err(error) => return Some(format!("the journal cannot be read: {error}")),
            };
            for event in events {
                match event.kind {
                    EventKind::AttemptStarted { step, attempt, phase, .. } => {
                        inner.intents.insert((step.to_string(), attempt, phase == Phase::Compensate));
                    }
                    EventKind::AttemptSucceeded { step, .. } | EventKind::StepSkipped { step, .. } => {
                        inner.done.insert(step.to_string());
                    }
                    EventKind::RollbackStarted { .. } => inner.rollback = true,
                    _ => {}
                }
            }
        }
        if !inner.intents.contains(&(step.to_owned(), attempt, undoing)) {
            return Some(format!("no durable intent of {step}#{attempt}"));
        }
        if undoing && !inner.rollback {
            return Some(format!("{step}#{attempt} undoes without a durable rollback"));
        }
        if !undoing
            && let Some(need) = inner.needs.get(step).into_iter().flatten().find(|n| !inner.done.contains(*n))
        {
            return Some(format!("{step}#{attempt} runs before {need} is durably done"));
        }
        None
    }
}
