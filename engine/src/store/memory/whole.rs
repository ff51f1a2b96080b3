//! Whole runs in memory: a snapshot, an import, a removal and a sweep, each under the store's lock.

use std::collections::BTreeSet;

use super::{Data, Run, check_epoch};
use crate::id::RunId;
use crate::store::{
    GraphHash, Head, NamesGraphs, Record, Snapshot, SnapshotHead, StoreError, Swept, WholeRun, check_graph,
    check_removal,
};

pub(super) fn snapshot(data: &Data) -> Snapshot {
    let head = |(run, at): (&RunId, &Run)| SnapshotHead { run: run.clone(), seq: at.seq, due: at.due };
    Snapshot {
        heads: data.runs.iter().map(head).collect(),
        schedules: data.schedules.page(None, usize::MAX),
        hold: data.holds.hold(),
    }
}

pub(super) fn put_graph(data: &mut Data, hash: &GraphHash, bytes: Vec<u8>) -> Result<(), StoreError> {
    check_graph(hash, &bytes)?;
    data.graphs.entry(hash.clone()).or_insert(bytes);
    Ok(())
}

/// A run that was read and checked, and is not in the store yet.
pub(super) struct Collected {
    id: RunId,
    graphs: Vec<GraphHash>,
    run: Run,
}

/// Checks a run and reads its records.
pub(super) fn collect(mut whole: WholeRun<'_>) -> Result<Collected, StoreError> {
    let mut order = whole.check()?;
    let mut records = Vec::new();
    for record in whole.records {
        let record: Record = record?;
        order.take(&record)?;
        records.push(record);
    }
    order.finish()?;
    let run = Run { seq: whole.seq, records, summary: Some(whole.summary), due: whole.due };
    Ok(Collected { id: whole.run, graphs: whole.graphs, run })
}

pub(super) fn import(data: &mut Data, collected: Collected) -> Result<(), StoreError> {
    let Collected { id, graphs, run } = collected;
    if data.runs.contains_key(&id) {
        return Err(StoreError::Exists(id));
    }
    if let Some(missing) = graphs.iter().find(|hash| !data.graphs.contains_key(hash)) {
        return Err(StoreError::NotFound(format!("the graph {} of run {id}", missing.0)));
    }
    if let Some(summary) = &run.summary {
        data.created.insert((summary.created, id.clone()));
    }
    if let Some(at) = run.due {
        data.due.insert((at, id.clone()));
    }
    data.runs.insert(id, run);
    data.commits += 1;
    Ok(())
}

pub(super) fn remove(data: &mut Data, id: &RunId, seq: u64, epoch: u64) -> Result<(), StoreError> {
    check_epoch(data, id, epoch)?;
    data.holds.check()?;
    let run = data.runs.get(id);
    let head = run.and_then(|run| Some(Head { seq: run.seq, summary: run.summary.clone()? }));
    check_removal(id, seq, head.as_ref())?;
    if let Some(head) = head {
        data.created.remove(&(head.summary.created, id.clone()));
    }
    if let Some(at) = run.and_then(|run| run.due) {
        data.due.remove(&(at, id.clone()));
    }
    data.runs.remove(id);
    data.commits += 1;
    Ok(())
}

pub(super) fn sweep(data: &mut Data, names: NamesGraphs) -> Result<Swept, StoreError> {
    data.holds.check()?;
    let mut named = BTreeSet::new();
    for (id, run) in &data.runs {
        for record in &run.records {
            let found = names(record.first_seq, &record.bytes);
            named.extend(found.map_err(|why| {
                StoreError::Corrupt(format!("run {id}: which graphs it names cannot be told: {why}"))
            })?);
        }
    }
    let mut swept = Swept::default();
    data.graphs.retain(|hash, bytes| {
        let stays = named.contains(hash);
        if !stays {
            swept.graphs += 1;
            swept.bytes += bytes.len() as u64;
        }
        stays
    });
    Ok(swept)
}
