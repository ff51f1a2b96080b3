//! Taking a run out: its head, its entries in the lists and its records, so that it is there whole or not at all.
//!
//! The head and the lists go with the first batch, and from then on the run is gone. Records that do not fit that
//! batch go with the next ones; a mark under the run's id in a table of its own says that they are of no run, until
//! the last of them went. An owner that finds such a mark when it opens the store goes on with it. Imports use the same
//! mark the other way round.

use dssflow_engine::id::RunId;
use dssflow_engine::store::{StoreError, check_removal};

use crate::codec::{self, Commit, HeadValue, seal, unseal};
use crate::commit::{Committer, unindex};
use crate::keys;
use crate::tree::{Trouble, protect, scan};

/// Most records' values removed in one batch.
const BATCH_KEYS: usize = 4096;

/// Removes a run. Called between two groups.
pub(crate) fn remove(committer: &mut Committer, run: &RunId, seq: u64, epoch: u64) -> Result<(), StoreError> {
    if epoch != committer.last.epoch {
        return Err(StoreError::Fenced { epoch: committer.last.epoch });
    }
    committer.holds.check()?;
    let key = keys::head(run);
    let found = protect(|| Ok(committer.tree.get(&key)?))?;
    let body = match &found {
        Some(value) => Some(unseal(&key, value).ok_or_else(|| bad_head(run))?),
        None => None,
    };
    let decoded = match body {
        Some(body) => Some((body, HeadValue::decode_full(body).ok_or_else(|| bad_head(run))?)),
        None => None,
    };
    check_removal(run, seq, decoded.as_ref().map(|(_, (_, head))| head))?;
    let (body, (value, _)) = decoded.expect("a run that is not there may not be removed");

    let mut batch = sled::Batch::default();
    let mut next = committer.last.next();
    next.runs -= 1;
    codec::xor(&mut next.roots, &codec::run_root(run, body));
    unindex(&mut batch, run, &value);
    batch.remove(key);
    committer.forget(run);
    erase(committer, run, batch, next, false)
}

fn bad_head(run: &RunId) -> StoreError {
    StoreError::Corrupt(format!("run {run}: its head does not match its checksum"))
}

/// Writes a batch and with it, and with as many others as it takes, removes the records of a run. `marked` says
/// whether the mark is there already.
pub(crate) fn erase(
    committer: &mut Committer,
    run: &RunId,
    mut batch: sled::Batch,
    mut next: Commit,
    mut marked: bool,
) -> Result<(), StoreError> {
    let mark = keys::partial(run);
    let mut begun = false;
    loop {
        let found = protect(|| {
            let prefix = keys::records(run);
            let pairs = scan(&committer.tree, &prefix, &prefix).take(BATCH_KEYS + 1);
            pairs.map(|pair| pair.map(|(key, _)| key)).collect::<Result<Vec<_>, _>>()
        });
        let found = found.map_err(|trouble| match trouble {
            // The id looks free, and a run that took it would stand beside what is left of this one.
            trouble if begun => committer.poison.set(format!("run {run} is only half removed: {trouble}")),
            trouble => trouble.into(),
        })?;
        begun = true;
        let more = found.len() > BATCH_KEYS;
        for key in found.into_iter().take(BATCH_KEYS) {
            batch.remove(key);
        }
        match (more, marked) {
            (true, false) => {
                let value = seal(&mark, Vec::new());
                batch.insert(mark.clone(), value);
                marked = true;
            }
            (false, true) => batch.remove(mark.clone()),
            (true, true) | (false, false) => {}
        }
        committer.apply(std::mem::take(&mut batch), next)?;
        if !more {
            return Ok(());
        }
        next = committer.last.next();
    }
}

/// The first run that an import or a removal left behind unfinished.
pub(crate) fn first_partial(tree: &sled::Tree) -> Result<Option<RunId>, Trouble> {
    let mark = scan(tree, &[keys::PARTIAL], &[keys::PARTIAL]).next().transpose()?;
    let Some((key, value)) = mark else { return Ok(None) };
    let run = unseal(&key, &value).and_then(|_| keys::parse_head(&key));
    let run = run.ok_or_else(|| Trouble::Damage("a mark does not match its checksum".to_owned()))?;
    // The mark goes with the batch that brings the head, and comes with the one that takes it.
    if tree.contains_key(keys::head(&run))? {
        return Err(Trouble::Damage(format!("run {run} is there and marked as not there")));
    }
    Ok(Some(run))
}

/// Removes what imports and removals left behind that the process did not live to finish.
pub(crate) fn clean_up(committer: &mut Committer) -> Result<(), StoreError> {
    while let Some(run) = protect(|| first_partial(&committer.tree))? {
        tracing::info!(%run, "removing what is left of an import or a removal that was cut off");
        let next = committer.last.next();
        erase(committer, &run, sled::Batch::default(), next, true)?;
    }
    Ok(())
}
