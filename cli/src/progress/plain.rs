//! One line for each change, and one for each running step every 30 seconds: for logs and pipes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dssflow_engine::activity::ErrorClass;
use dssflow_engine::event::{Event, EventKind, Phase};
use dssflow_engine::id::StepName;
use dssflow_engine::run::StepStatus;
use dssflow_engine::run::view::{Awaited, RunView};
use dssflow_engine::time::Timestamp;

use super::Undo;
use crate::describe;
use crate::ui::{Ui, one_line};

/// How long a running step may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// What was said last.
#[derive(Default)]
pub(crate) struct Plain {
    /// How dssflow is called for this store.
    command: String,
    /// Said once, with a step's first start.
    titles: BTreeMap<StepName, String>,
    knows_titles: bool,
    started: BTreeMap<StepName, Timestamp>,
    said: BTreeMap<StepName, Timestamp>,
    /// Failed tries of the present budget, and how many there may be.
    tries: BTreeMap<StepName, (u32, u32)>,
    /// The last event those tries know of.
    known: u64,
    /// Steps of which was said what they wait for.
    waits: BTreeSet<StepName>,
}

impl Plain {
    pub(crate) fn new(command: String) -> Self {
        Self { command, ..Self::default() }
    }

    pub(crate) fn event(&mut self, ui: &Ui, event: &Event) {
        if let Some(line) = self.line(event) {
            ui.note(&line);
        }
    }

    /// The line for an event; `None` for what is no change of a state.
    pub(super) fn line(&mut self, event: &Event) -> Option<String> {
        let mut text = describe::event(event);
        let quiet = matches!(
            event.kind,
            EventKind::ResourceRecorded { .. }
                | EventKind::BeforeRecorded { .. }
                | EventKind::HeartbeatRecorded { .. }
        );
        if quiet {
            return None;
        }
        let time = describe::time_of_day(event.at);
        if matches!(
            event.kind,
            EventKind::RunResumed { .. }
                | EventKind::RollbackStarted { .. }
                | EventKind::RollbackRetried { .. }
        ) {
            // Fresh budgets.
            self.tries.values_mut().for_each(|(failures, _)| *failures = 0);
        }
        let Some(step) = event.kind.step() else { return Some(format!("{time}  {text}")) };
        self.said.insert(step.clone(), event.at);
        match &event.kind {
            // As the engine counts: waiting for credentials or a quieter service uses up no try.
            EventKind::AttemptFailed { error, .. }
                if event.seq > self.known
                    && matches!(
                        error.class,
                        ErrorClass::Retryable | ErrorClass::Terminal | ErrorClass::NeedsHuman
                    ) =>
            {
                self.tries.entry(step.clone()).or_default().0 += 1;
            }
            EventKind::AttemptStarted { phase: Phase::Execute, .. } => {
                if let Some((failures @ 1.., most)) = self.tries.get(step)
                    && failures < most
                {
                    text = format!("started (try {} of {most})", failures + 1);
                }
            }
            _ => {}
        }
        if matches!(event.kind, EventKind::AttemptStarted { .. }) {
            self.started.insert(step.clone(), event.at);
            if let Some(title) = self.titles.remove(step).filter(|t| !t.is_empty()) {
                put!(text, ": {}", one_line(&title));
            }
        } else if let Some(at) = self.started.remove(step) {
            put!(text, " ({})", describe::duration(event.at.since(at)));
        }
        Some(format!("{time}  {step}  {text}"))
    }

    /// What gates ask and which signals are awaited, each once: the event that begins a wait does not say it.
    fn waits(&mut self, view: &RunView, now: Timestamp) -> Vec<String> {
        let mut lines = Vec::new();
        for step in &view.steps {
            match &step.awaits {
                Some(Awaited::Decision { .. } | Awaited::Signal { .. }) => {
                    if self.waits.insert(step.step.clone())
                        && let Some(what) = describe::awaits(step, now)
                    {
                        let time = describe::time_of_day(now);
                        lines.push(format!(
                            "{time}  {}  {what}; see {} why {}",
                            step.step, self.command, view.run
                        ));
                    }
                }
                _ => {
                    self.waits.remove(&step.step);
                }
            }
        }
        lines
    }

    /// What is said because time went by.
    pub(crate) fn tick(&mut self, view: &RunView, undo: &Undo, now: Timestamp) -> Vec<String> {
        self.known = view.seq;
        self.tries = view.steps.iter().map(|s| (s.step.clone(), (s.failures, s.maximum_attempts))).collect();
        if !self.knows_titles {
            self.titles = view.steps.iter().map(|s| (s.step.clone(), s.title.clone())).collect();
            self.knows_titles = true;
        }
        let mut lines = self.waits(view, now);
        for step in &view.steps {
            if !matches!(step.status, StepStatus::Running | StepStatus::Compensating) {
                continue;
            }
            let Some(begin) = undo.begin(step) else { continue };
            let last = self.said.entry(step.step.clone()).or_insert(begin);
            if now.since(*last) < SILENCE {
                continue;
            }
            *last = now;
            let usual = describe::usual(step).map_or_else(String::new, |usual| format!(" ({usual})"));
            let pulse = describe::pulse(step.heartbeat.as_ref());
            let elapsed = describe::duration(now.since(begin));
            let time = describe::time_of_day(now);
            lines.push(format!("{time}  {}  still running, {elapsed}{usual}{pulse}", step.step));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::why::tests::view;

    #[test]
    fn what_a_gate_asks_is_said_once_for_each_time_it_asks() {
        let now = Timestamp::from_millis(0);
        let decision = json!({ "for": "decision", "question": "Go?" });
        let asks =
            view("waiting", &[json!({ "step": "go", "status": "waiting", "awaits": decision })], &json!({}));
        let done = view("running", &[json!({ "step": "go" })], &json!({}));
        let mut plain = Plain::new("dssflow".to_owned());
        assert_eq!(plain.waits(&asks, now), ["00:00:00Z  go  asks: Go?; see dssflow why lab"]);
        assert!(plain.waits(&asks, now).is_empty());
        assert!(plain.waits(&done, now).is_empty());
        assert_eq!(plain.waits(&asks, now).len(), 1, "done again, it asks again");
    }
}
