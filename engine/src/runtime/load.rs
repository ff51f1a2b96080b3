//! Runs as they are stored: history and state, from any store, as of now or of an earlier event.

use std::panic::AssertUnwindSafe;

use crate::event::{self, Event, EventKind};
use crate::graph::Graph;
use crate::id::RunId;
use crate::run::{IllegalEvent, RunState, apply, create};
use crate::runtime::error::EngineError;
use crate::store::{GraphHash, Store, StoreError};

pub(crate) fn in_run(run: &RunId, error: StoreError) -> EngineError {
    EngineError::Store { run: Some(run.clone()), error }
}

/// The history of a run after event `after`, from any store.
///
/// # Errors
/// When there is no such run or it cannot be read.
pub async fn history(store: &dyn Store, run: &RunId, after: u64) -> Result<Vec<Event>, EngineError> {
    if store.head(run).await.map_err(|e| in_run(run, e))?.is_none() {
        return Err(EngineError::NoSuchRun(run.clone()));
    }
    let mut events = Vec::new();
    for record in store.load(run, after).await.map_err(|e| in_run(run, e))? {
        let decoded = event::decode(record.first_seq, &record.bytes)
            .map_err(|error| EngineError::History { run: run.clone(), error })?;
        events.extend(decoded.into_iter().filter(|e| e.seq > after));
    }
    Ok(events)
}

async fn graph(store: &dyn Store, run: &RunId, hash: &GraphHash) -> Result<Graph, EngineError> {
    let bytes = store.graph(hash).await.map_err(|e| in_run(run, e))?;
    Graph::decode(&bytes).map_err(|error| EngineError::Graph { run: run.clone(), error })
}

/// The state of a run by replay, from any store.
///
/// # Errors
/// When there is no such run, or its history or graph cannot be read.
pub async fn load(store: &dyn Store, run: &RunId) -> Result<RunState, EngineError> {
    replay(store, run, history(store, run, 0).await?).await
}

/// The state that a run had after event `until`, from any store.
///
/// # Errors
/// As [`load`].
pub async fn load_at(store: &dyn Store, run: &RunId, until: u64) -> Result<RunState, EngineError> {
    let mut events = history(store, run, 0).await?;
    events.retain(|event| event.seq <= until);
    replay(store, run, events).await
}

async fn replay(store: &dyn Store, run: &RunId, events: Vec<Event>) -> Result<RunState, EngineError> {
    let replay = |error| EngineError::Replay { run: run.clone(), error };
    let Some((first, rest)) = events.split_first() else {
        return Err(EngineError::NoSuchRun(run.clone()));
    };
    let EventKind::RunCreated { graph: hash, .. } = &first.kind else {
        let why = "a history starts with run_created".to_owned();
        return Err(replay(IllegalEvent { seq: first.seq, why }));
    };
    let mut state = create(run.clone(), graph(store, run, hash).await?, first).map_err(replay)?;
    for event in rest {
        if let EventKind::RunUpgraded { graph: hash, .. } = &event.kind {
            state.known_graphs.insert(hash.clone(), graph(store, run, hash).await?);
        }
        // A history that no version of ours wrote must not take the others with it.
        std::panic::catch_unwind(AssertUnwindSafe(|| apply(&mut state, event)))
            .unwrap_or_else(|_| {
                let why = "it contradicts what came before".to_owned();
                Err(IllegalEvent { seq: event.seq, why })
            })
            .map_err(replay)?;
    }
    Ok(state)
}
