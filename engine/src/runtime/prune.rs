//! Removes what a policy asks for: old runs, and then what they alone had named.

use std::collections::BTreeSet;

use crate::event::{self, EventKind, graphs_named};
use crate::id::RunId;
use crate::runtime::engine::{Engine, EngineError};
use crate::runtime::load::in_run;
use crate::store::prune::{Policy, Selection, Stays};
use crate::store::{ListQuery, Store, StoreError, Swept};
use crate::time::Timestamp;

/// The most runs that stay which are told one by one.
const MAX_TOLD: usize = 10_000;

/// What a prune is at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pruning {
    /// Looking through the runs.
    Looking {
        /// How many it has looked at.
        runs: u64,
    },
    /// A run is removed, or would be.
    Goes {
        /// The run.
        run: RunId,
    },
    /// What no run names any more is removed.
    Sweeping,
}

/// What a prune did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// Runs looked at.
    pub seen: u64,
    /// Runs removed, or that would be.
    pub removed: u64,
    /// Their events.
    pub events: u64,
    /// Runs that were asked for and stay.
    pub stayed: u64,
    /// The first ten thousand of them, with why. Of a tree the run at its top.
    pub stays: Vec<(RunId, Stays)>,
    /// What was swept; none in a dry run.
    pub swept: Option<Swept>,
}

impl Pruned {
    fn stay(&mut self, run: RunId, why: Stays) {
        self.stayed += 1;
        if self.stays.len() < MAX_TOLD {
            self.stays.push((run, why));
        }
    }
}

fn of_store(error: StoreError) -> EngineError {
    EngineError::Store { run: None, error }
}

impl Engine {
    /// Removes the runs that a policy asks for, and then the graphs and large values that nothing names any more. See
    /// [`crate::store::prune`] for what always stays. Runs of the engine go on meanwhile. A dry run removes nothing.
    ///
    /// It can be stopped at any time and started again: each run goes whole or not at all, and those that others started
    /// go first.
    ///
    /// # Errors
    /// When the store cannot be pruned, is being copied, or fails. What was removed until then is gone.
    pub async fn prune(
        &self,
        policy: &Policy,
        dry_run: bool,
        progress: &mut (dyn FnMut(Pruning) + Send),
    ) -> Result<Pruned, EngineError> {
        let store = self.inner.store.as_ref();
        let now = self.inner.clock.now();
        let mut selection = Selection::new(policy, now);
        let mut query = ListQuery::default();
        loop {
            let page = self.list(query.clone()).await?;
            for summary in &page.runs {
                selection.add(summary, parent(store, &summary.run).await);
            }
            progress(Pruning::Looking { runs: selection.seen() });
            query.cursor = page.cursor;
            if query.cursor.is_none() {
                break;
            }
        }
        let mut gone = BTreeSet::new();
        for run in selection.unknown() {
            if store.head(&run).await.map_err(|e| in_run(&run, e))?.is_none() {
                gone.insert(run);
            }
        }
        let mut pruned = Pruned { seen: selection.seen(), ..Pruned::default() };
        let selected = selection.finish(&gone);
        for (run, why) in selected.stays {
            pruned.stay(run, why);
        }
        for tree in selected.trees {
            self.prune_tree(policy, now, &tree, dry_run, &mut pruned, progress).await?;
        }
        if !dry_run {
            progress(Pruning::Sweeping);
            pruned.swept = Some(store.sweep(graphs_named).await.map_err(of_store)?);
        }
        Ok(pruned)
    }

    /// Removes a tree, if it still is what it was when it was chosen.
    async fn prune_tree(
        &self,
        policy: &Policy,
        now: Timestamp,
        tree: &[RunId],
        dry_run: bool,
        pruned: &mut Pruned,
        progress: &mut (dyn FnMut(Pruning) + Send),
    ) -> Result<(), EngineError> {
        let store = self.inner.store.as_ref();
        let top = tree.last().expect("a tree has a top").clone();
        let busy = |run: &RunId, why: String| Stays::Busy { why: format!("run {run}: {why}") };
        let mut heads = Vec::new();
        for run in tree {
            match store.head(run).await.map_err(|e| in_run(run, e))? {
                None => {}
                Some(head) => match policy.must_stay(&head.summary, now) {
                    None if self.handle(run).is_none() => {
                        if let Some(why) = self.must_stay_after_all(run).await? {
                            pruned.stay(top, if tree.len() == 1 { why } else { busy(run, why.to_string()) });
                            return Ok(());
                        }
                        heads.push((run, head.seq));
                    }
                    why => {
                        let why = why.map_or_else(|| "it is being driven".to_owned(), |why| why.to_string());
                        pruned.stay(top, busy(run, why));
                        return Ok(());
                    }
                },
            }
        }
        for (run, seq) in heads {
            let removed = if dry_run { Ok(()) } else { self.remove(run, seq).await };
            match removed {
                Ok(()) => {
                    (pruned.removed, pruned.events) = (pruned.removed + 1, pruned.events + seq);
                    progress(Pruning::Goes { run: run.clone() });
                }
                Err(
                    error @ (StoreError::Conflict { .. }
                    | StoreError::Held { .. }
                    | StoreError::Invalid(_)
                    | StoreError::NotFound(_)),
                ) if self.inner.store.head(run).await.is_ok_and(|head| {
                    // What cannot be removed at all is no matter of this run.
                    head.is_none_or(|head| head.seq != seq) || matches!(error, StoreError::Held { .. })
                }) =>
                {
                    pruned.stay(top, busy(run, error.to_string()));
                    return Ok(());
                }
                Err(error) => return Err(in_run(run, error)),
            }
        }
        Ok(())
    }

    /// What the history says against it. A run that was restored may have made things since the backup, of which its
    /// summary, which is from then, knows nothing.
    async fn must_stay_after_all(&self, run: &RunId) -> Result<Option<Stays>, EngineError> {
        match self.load(run).await {
            Ok(state) => Ok(state.is_live().then_some(Stays::Live)),
            Err(error @ EngineError::Store { .. }) => Err(error),
            Err(error) => Ok(Some(Stays::Busy { why: format!("what it made cannot be told: {error}") })),
        }
    }

    async fn remove(&self, run: &RunId, seq: u64) -> Result<(), StoreError> {
        let (store, worker) = (&self.inner.store, &self.inner.worker);
        let claim = store.claim(run, worker, self.inner.clock.now(), self.inner.options.lease_ttl).await?;
        let removed = store.remove(run, seq, claim.epoch).await;
        let released = store.release(run, worker).await;
        removed.and(released)
    }
}

/// The run that started a run. Only ids with a colon are of runs that others started; the others are not read.
async fn parent(store: &dyn Store, run: &RunId) -> Result<Option<RunId>, String> {
    if !run.as_str().contains(':') {
        return Ok(None);
    }
    let first = store.page(run, 0, 1).await.map_err(|error| error.to_string())?;
    let first = first.first().ok_or("it has no events")?;
    let events = event::decode(first.first_seq, &first.bytes).map_err(|error| error.to_string())?;
    match events.first().map(|event| &event.kind) {
        Some(EventKind::RunCreated { parent, .. }) => Ok(parent.as_ref().map(|parent| parent.run.clone())),
        _ => Err("its history does not start with run_created".to_owned()),
    }
}
