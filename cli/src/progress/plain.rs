//! One line for each change, and one for each running step every 30 seconds: for logs and pipes.

use std::collections::BTreeMap;
use std::time::Duration;

use dssflow_engine::event::{Event, EventKind};
use dssflow_engine::id::StepName;
use dssflow_engine::run::StepStatus;
use dssflow_engine::run::view::RunView;
use dssflow_engine::time::Timestamp;

use crate::describe;
use crate::ui::{Ui, one_line};

/// How long a running step may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// What was said last.
#[derive(Default)]
pub(crate) struct Plain {
    /// Said once, with a step's first start.
    titles: BTreeMap<StepName, String>,
    knows_titles: bool,
    started: BTreeMap<StepName, Timestamp>,
    said: BTreeMap<StepName, Timestamp>,
}

impl Plain {
    pub(crate) fn event(&mut self, ui: &Ui, event: &Event) {
        if let Some(line) = self.line(event) {
            ui.note(&line);
        }
    }

    /// The line for an event; `None` for what is no change of a state.
    fn line(&mut self, event: &Event) -> Option<String> {
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
        let Some(step) = event.kind.step() else { return Some(format!("{time}  {text}")) };
        self.said.insert(step.clone(), event.at);
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

    pub(crate) fn tick(&mut self, ui: &Ui, view: &RunView, now: Timestamp) {
        if !self.knows_titles {
            self.titles = view.steps.iter().map(|s| (s.step.clone(), s.title.clone())).collect();
            self.knows_titles = true;
        }
        for step in &view.steps {
            if !matches!(step.status, StepStatus::Running | StepStatus::Compensating) {
                continue;
            }
            let Some(begin) = step.started else { continue };
            let last = self.said.entry(step.step.clone()).or_insert(begin);
            if now.since(*last) < SILENCE {
                continue;
            }
            *last = now;
            let usual =
                step.expected_ms.map_or_else(String::new, |ms| format!(" ({})", describe::usually(ms)));
            let pulse =
                step.heartbeat.as_ref().map_or_else(String::new, |h| format!(": {}", describe::details(h)));
            let elapsed = describe::duration(now.since(begin));
            ui.note(&format!(
                "{}  {}  still running, {elapsed}{usual}{pulse}",
                describe::time_of_day(now),
                step.step
            ));
        }
    }
}
