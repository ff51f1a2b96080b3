//! How a run shows itself while it is driven: a tree that is redrawn on a terminal, plain lines elsewhere.

mod live;
pub(crate) mod maps;
mod plain;
pub(crate) mod tree;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dssflow_engine::event::{Event, EventKind};
use dssflow_engine::id::StepName;
use dssflow_engine::run::StepStatus;
use dssflow_engine::run::past::Past;
use dssflow_engine::run::view::{RunView, StepView};
use dssflow_engine::time::Timestamp;

use crate::config::Settings;
use crate::ui::Ui;

/// When a run was turned round, and when the undo of each step began. A view knows the first start of a step only.
#[derive(Debug, Default)]
pub(crate) struct Undo {
    turned: Option<Timestamp>,
    begun: BTreeMap<StepName, Timestamp>,
}

impl Undo {
    /// What a whole history says.
    pub(crate) fn of(history: &[Event]) -> Self {
        let mut undo = Self::default();
        for event in history {
            undo.note(event);
        }
        undo
    }

    /// Takes one event in; one that was seen before changes nothing.
    fn note(&mut self, event: &Event) {
        match &event.kind {
            EventKind::RollbackStarted { .. } if self.turned.is_none_or(|at| at < event.at) => {
                self.turned = Some(event.at);
                self.begun.clear();
            }
            EventKind::AttemptStarted { step, .. } if self.turned.is_some_and(|at| at <= event.at) => {
                self.begun.entry(step.clone()).or_insert(event.at);
            }
            _ => {}
        }
    }

    /// When the run was turned round last.
    pub(crate) fn turned(&self) -> Option<Timestamp> {
        self.turned
    }

    /// When what a step is at began: its undo when it is taken back, else its first start.
    pub(crate) fn begin(&self, step: &StepView) -> Option<Timestamp> {
        match step.status {
            StepStatus::Compensating
            | StepStatus::Compensated
            | StepStatus::CompensationFailed
            | StepStatus::Kept => self.begun.get(&step.step).copied(),
            _ => step.started,
        }
    }
}

/// Progress of one run on stderr.
pub(crate) struct Progress {
    undo: Undo,
    /// What steps took in earlier runs.
    past: Past,
    kind: Kind,
}

enum Kind {
    /// Redrawn in place.
    Live(live::Live),
    /// One line a change.
    Plain(plain::Plain),
}

impl Progress {
    /// The kind that fits the terminal.
    pub(crate) fn new(ui: &Ui, settings: &Settings) -> Self {
        if !ui.is_live() {
            return Self::plain(settings);
        }
        Self { undo: Undo::default(), past: Past::default(), kind: Kind::Live(live::Live::new()) }
    }

    /// One line a change, whatever the terminal.
    pub(crate) fn plain(settings: &Settings) -> Self {
        let kind = Kind::Plain(plain::Plain::new(settings.command()));
        Self { undo: Undo::default(), past: Past::default(), kind }
    }

    /// Takes in what happened before it is shown.
    pub(crate) fn learn(&mut self, history: &[Event]) {
        self.undo = Undo::of(history);
    }

    /// What steps took in earlier runs is what is expected of them in this one.
    pub(crate) fn expect(&mut self, past: Past) {
        self.past = past;
    }

    /// What is known of the way back.
    pub(crate) fn undo(&self) -> &Undo {
        &self.undo
    }

    /// How often [`Progress::tick`] wants to be called.
    pub(crate) fn interval(&self) -> Duration {
        match &self.kind {
            Kind::Live(_) => Duration::from_millis(200),
            Kind::Plain(_) => Duration::from_secs(1),
        }
    }

    /// Something happened.
    pub(crate) fn event(&mut self, ui: &Ui, event: &Event) {
        self.undo.note(event);
        match &mut self.kind {
            Kind::Live(_) => live::Live::event(ui, event),
            Kind::Plain(plain) => plain.event(ui, event),
        }
    }

    /// Time went by.
    pub(crate) fn tick(&mut self, ui: &Ui, view: &RunView) {
        let mut view = view.clone();
        self.past.mark(&mut view);
        match &mut self.kind {
            Kind::Live(live) => live.draw(ui, &view, &self.undo, now()),
            Kind::Plain(plain) => plain.tick(&view, &self.undo, now()).iter().for_each(|line| ui.note(line)),
        }
    }

    /// The run stands: leaves the whole tree behind on a terminal.
    pub(crate) fn finish(self, ui: &Ui, view: &RunView) {
        match self.kind {
            Kind::Live(_) => {
                live::Live::clear(ui);
                ui.note(&tree::whole(view, &self.undo, now(), Some(ui.size().0)).join("\n"));
            }
            Kind::Plain(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;

/// The machine's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
