//! Which steps of a run are items of its maps, and how far each map is.

use std::collections::BTreeMap;

use dssflow_engine::id::StepName;
use dssflow_engine::run::view::{RunView, StepView};

/// The maps of a run and their items.
pub(crate) struct Maps<'v> {
    /// The map of each item.
    of: BTreeMap<&'v StepName, &'v StepName>,
    /// Items that need nothing more, and all of them, of each map.
    counts: BTreeMap<&'v StepName, (usize, usize)>,
}

impl<'v> Maps<'v> {
    /// Looks at every step once.
    pub(crate) fn of(view: &'v RunView) -> Self {
        let mut maps = Self { of: BTreeMap::new(), counts: BTreeMap::new() };
        for step in &view.steps {
            if let Some(map) = &step.map {
                maps.of.insert(&step.step, map);
                let count = maps.counts.entry(map).or_default();
                count.0 += usize::from(step.status.is_done());
                count.1 += 1;
            }
        }
        maps
    }

    /// The map whose item a step is.
    pub(crate) fn map_of(&self, step: &StepView) -> Option<&'v StepName> {
        self.of.get(&step.step).copied()
    }

    /// Of a map whose list is known: how many of its items need nothing more, and how many there are.
    pub(crate) fn items(&self, map: &StepName) -> Option<(usize, usize)> {
        self.counts.get(map).copied()
    }
}
