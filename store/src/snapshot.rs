//! The heads of all runs between two groups. Records are only appended, so what each run had then can be read later.

use dssflow_engine::store::{Snapshot, SnapshotHead, StoreError};

use crate::codec::{HeadValue, unseal};
use crate::commit::Committer;
use crate::tree::{Trouble, protect, scan};
use crate::{keys, schedules};

/// Called between two groups: everything in the tree is acknowledged or about to be.
pub(crate) fn snapshot(committer: &mut Committer) -> Result<Snapshot, StoreError> {
    let heads = protect(|| {
        let mut heads = Vec::new();
        for pair in scan(&committer.tree, &[keys::HEADS], &[keys::HEADS]) {
            let (key, value) = pair?;
            let head = unseal(&key, &value).and_then(HeadValue::decode);
            let (Some(run), Some((head, _))) = (keys::parse_head(&key), head) else {
                return Err(Trouble::Damage("a run's head does not match its checksum".to_owned()));
            };
            heads.push(SnapshotHead { run, seq: head.seq, due: head.due });
        }
        Ok(heads)
    })?;
    let schedules = protect(|| schedules::all(&committer.tree, None, usize::MAX))?;
    Ok(Snapshot { heads, schedules, hold: committer.holds.hold() })
}
