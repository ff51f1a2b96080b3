//! The durable journal as an outsider reads it: which intents were there before which change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dssflow_engine::event::{Again, EventKind, Phase, decode};
use dssflow_engine::id::StepName;

/// A record: its run, the number of its first event, its bytes.
pub type Written = (String, u64, Vec<u8>);

#[derive(Default)]
struct Inner {
    unread: Vec<Written>,
    intents: BTreeSet<(String, u32, bool)>,
    done: BTreeSet<String>,
    /// Steps that were done at some time, even if they are done again now.
    ever_done: BTreeSet<String>,
    /// Signals that came.
    signals: BTreeSet<String>,
    /// Until when steps sleep, in milliseconds.
    sleeps: BTreeMap<String, u64>,
    rollback: BTreeSet<String>,
    below: BTreeSet<String>,
    strict: bool,
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

    /// The same, with steps of runs that started as steps; `strict` also holds steps to the end of sleeps, which only
    /// makes sense where the process's clock is right.
    #[must_use]
    pub fn with(self, below: Vec<String>, strict: bool) -> Self {
        {
            let mut inner = self.lock();
            (inner.below, inner.strict) = (below.into_iter().collect(), strict);
        }
        self
    }

    /// A step is never undone from now on.
    pub fn keep(&self, step: &str) {
        self.lock().downstream.values_mut().for_each(|steps| steps.retain(|s| s != step));
    }

    /// Steps that depend on a step, over any distance, and have to be undone before it.
    pub fn downstream(&self, step: &str) -> Vec<String> {
        self.lock().downstream.get(step).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a record that has become durable.
    pub fn durable(&self, run: &str, first_seq: u64, bytes: Vec<u8>) {
        self.lock().unread.push((run.to_owned(), first_seq, bytes));
    }

    /// Reads everything again from what a crash has left.
    pub fn replace(&self, records: Vec<Written>) {
        let mut inner = self.lock();
        inner.unread = records;
        inner.intents.clear();
        inner.done.clear();
        inner.ever_done.clear();
        inner.signals.clear();
        inner.sleeps.clear();
        inner.rollback.clear();
    }

    /// What speaks against a change by this attempt at this time, if anything does.
    pub fn objection(&self, run: &str, step: &str, attempt: u32, undoing: bool, now: u64) -> Option<String> {
        let mut inner = self.lock();
        for (run, first, bytes) in std::mem::take(&mut inner.unread) {
            let events = match decode(first, &bytes) {
                Ok(events) => events,
                Err(error) => return Some(format!("the journal cannot be read: {error}")),
            };
            for event in events {
                inner.read(&run, event.kind);
            }
        }
        if !inner.intents.contains(&(step.to_owned(), attempt, undoing)) {
            return Some(format!("no durable intent of {step}#{attempt}"));
        }
        if undoing && !inner.rollback.contains(run) {
            return Some(format!("{step}#{attempt} undoes without a durable rollback"));
        }
        if undoing {
            return None;
        }
        let done = if inner.below.contains(step) { &inner.ever_done } else { &inner.done };
        let mut needs = inner.needs.get(step).into_iter().flatten();
        let early = needs.clone().find_map(|need| inner.sleeps.get_key_value(need).filter(|s| now < *s.1));
        if let Some((need, until)) = early.filter(|_| inner.strict) {
            return Some(format!("{step}#{attempt} runs at {now} and {need} sleeps until {until}"));
        }
        let missing = needs.find(|n| !done.contains(*n))?;
        Some(format!("{step}#{attempt} runs before {missing} is durably done"))
    }
}

impl Inner {
    fn finished(&mut self, step: &StepName) {
        self.done.insert(step.to_string());
        self.ever_done.insert(step.to_string());
    }

    /// Takes in an event.
    fn read(&mut self, run: &str, kind: EventKind) {
        match kind {
            EventKind::AttemptStarted { step, attempt, phase, .. } => {
                self.intents.insert((step.to_string(), attempt, phase == Phase::Compensate));
            }
            // Whoever still works on it acts beside its successor.
            EventKind::AttemptLost { step, attempt, .. } => {
                self.intents.retain(|(s, a, _)| s != step.as_str() || *a != attempt);
            }
            EventKind::AttemptSucceeded { step, .. }
            | EventKind::MapCollected { step }
            | EventKind::WaitEnded { step, .. } => self.finished(&step),
            EventKind::GateDecided { step, next: None, .. }
            | EventKind::StepSkipped { step, .. }
            | EventKind::StepCompleted { step, .. } => {
                self.sleeps.remove(step.as_str());
                self.finished(&step);
            }
            // A signal is named after the one step that takes it.
            EventKind::SignalReceived { signal, .. } => {
                self.signals.insert(signal.clone());
                self.sleeps.remove(&signal);
                self.done.insert(signal.clone());
                self.ever_done.insert(signal);
            }
            EventKind::WaitStarted { step, until } => {
                if self.signals.contains(step.as_str()) {
                    self.finished(&step);
                } else if let Some(until) = until {
                    self.sleeps.insert(step.to_string(), until.as_millis());
                }
            }
            EventKind::StepsReset { steps, again: Again::Rerun, .. } => {
                for step in steps {
                    self.done.remove(step.as_str());
                    self.sleeps.remove(step.as_str());
                }
            }
            EventKind::RollbackStarted { .. } => {
                self.rollback.insert(run.to_owned());
            }
            _ => {}
        }
    }
}
