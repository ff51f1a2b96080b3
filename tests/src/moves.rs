//! Which states of runs and steps follow each other, as histories tell. Only what is durable counts: the states between
//! the events of one record are seen by nobody.

use std::collections::{BTreeMap, BTreeSet};

use dssflow_engine::event::{EventKind, decode};
use dssflow_engine::graph::Graph;
use dssflow_engine::id::{RunId, StepName};
use dssflow_engine::run::{RunState, RunStatus, StepStatus, apply, create};
use dssflow_engine::store::{GraphHash, Store};

/// Pairs of states, the second of which came after the first.
#[derive(Debug, Clone, Default)]
pub struct Moves {
    /// Of runs.
    pub runs: BTreeSet<(RunStatus, RunStatus)>,
    /// Of steps.
    pub steps: BTreeSet<(StepStatus, StepStatus)>,
}

impl Moves {
    /// Adds those of others.
    pub fn add(&mut self, other: &Self) {
        self.runs.extend(&other.runs);
        self.steps.extend(&other.steps);
    }

    /// Those of one run; `None` when it cannot be read.
    pub async fn of(store: &dyn Store, run: &RunId) -> Option<Self> {
        let mut found = Self::default();
        let mut state: Option<RunState> = None;
        for record in store.load(run, 0).await.ok()? {
            let before = state.as_ref().map(|state| (state.status(), steps(state)));
            for event in decode(record.first_seq, &record.bytes).ok()? {
                match (&mut state, &event.kind) {
                    (None, EventKind::RunCreated { graph: hash, .. }) => {
                        state = Some(create(run.clone(), graph(store, hash).await?, &event).ok()?);
                    }
                    (Some(state), kind) => {
                        if let EventKind::RunUpgraded { graph: hash, .. } = kind {
                            state.known_graphs.insert(hash.clone(), graph(store, hash).await?);
                        }
                        apply(state, &event).ok()?;
                    }
                    (None, _) => return None,
                }
            }
            let Some((state, (run_before, steps_before))) = state.as_ref().zip(before) else { continue };
            if run_before != state.status() {
                found.runs.insert((run_before, state.status()));
            }
            for (name, status) in steps(state) {
                if let Some(before) = steps_before.get(&name).filter(|before| **before != status) {
                    found.steps.insert((*before, status));
                }
            }
        }
        Some(found)
    }
}

async fn graph(store: &dyn Store, hash: &GraphHash) -> Option<Graph> {
    Graph::decode(&store.graph(hash).await.ok()?).ok()
}

fn steps(state: &RunState) -> BTreeMap<StepName, StepStatus> {
    state
        .graph
        .steps()
        .iter()
        .map(|step| step.name.clone())
        .zip(state.steps.iter().map(|step| step.status))
        .collect()
}
