//! How a run shows itself while it is driven: a tree that is redrawn on a terminal, plain lines elsewhere.

mod live;
mod plain;
pub(crate) mod tree;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dssflow_engine::event::Event;
use dssflow_engine::run::view::RunView;
use dssflow_engine::time::Timestamp;

use crate::ui::Ui;

/// Progress of one run on stderr.
pub(crate) enum Progress {
    /// Redrawn in place.
    Live(live::Live),
    /// One line a change.
    Plain(plain::Plain),
}

impl Progress {
    /// The kind that fits the terminal.
    pub(crate) fn new(ui: &Ui) -> Self {
        if ui.is_live() { Self::Live(live::Live::new()) } else { Self::Plain(plain::Plain::default()) }
    }

    /// One line a change, whatever the terminal.
    pub(crate) fn plain() -> Self {
        Self::Plain(plain::Plain::default())
    }

    /// How often [`Progress::tick`] wants to be called.
    pub(crate) fn interval(&self) -> Duration {
        match self {
            Self::Live(_) => Duration::from_millis(200),
            Self::Plain(_) => Duration::from_secs(1),
        }
    }

    /// Something happened.
    pub(crate) fn event(&mut self, ui: &Ui, event: &Event) {
        match self {
            Self::Live(live) => live.event(event),
            Self::Plain(plain) => plain.event(ui, event),
        }
    }

    /// Time went by.
    pub(crate) fn tick(&mut self, ui: &Ui, view: &RunView) {
        match self {
            Self::Live(live) => live.draw(ui, view, now()),
            Self::Plain(plain) => plain.tick(ui, view, now()),
        }
    }

    /// A note that must not tear the tree.
    pub(crate) fn note(&self, ui: &Ui, text: &str) {
        match self {
            Self::Live(live) => live.above(text),
            Self::Plain(_) => ui.note(text),
        }
    }

    /// The run stands: leaves the whole tree behind on a terminal.
    pub(crate) fn finish(self, ui: &Ui, view: &RunView) {
        match self {
            Self::Live(live) => {
                live.clear();
                ui.note(&tree::whole(view, now()).join("\n"));
            }
            Self::Plain(_) => {}
        }
    }
}

/// The machine's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
