//! Schedules in the tree: one blob each, with its version and due item in front, and an index by due time.
//!
//! A schedule that starts a run is written in the group of that run's first transition; all other changes are groups of
//! their own. Its part in the XOR over the store is taken over all of its bytes, so one that vanished or was put back
//! shows as a run would.

use std::collections::HashMap;

use dssflow_engine::id::ScheduleId;
use dssflow_engine::store::{SchedulePut, StoreError, StoredSchedule};
use dssflow_engine::time::Timestamp;

use crate::blob::{self, Blob, Blobs, Body};
use crate::codec::{self, Commit, Hash, seal, unseal};
use crate::commit::Committer;
use crate::keys;
use crate::tree::{Trouble, protect, scan};

/// Bytes in front of the record.
const HEADER: usize = 8 + 1 + 8;
const HAS_DUE: u8 = 1;
/// So many versions fit one group; a group has at most 256 transitions.
const VERSION_BITS: u32 = 16;

/// What is known of a schedule without its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    version: u64,
    due: Option<Timestamp>,
    root: Hash,
    /// How many values it has.
    values: u16,
}

/// Schedules as a group under way leaves them, and how many it has written.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    known: HashMap<ScheduleId, Known>,
    puts: u64,
}

impl Overlay {
    pub(crate) fn clear(&mut self) {
        self.known.clear();
        self.puts = 0;
    }
}

fn encode(stored: &StoredSchedule) -> Vec<u8> {
    let mut body = Vec::with_capacity(HEADER + stored.record.len());
    body.extend_from_slice(&stored.version.to_be_bytes());
    body.push(if stored.due.is_some() { HAS_DUE } else { 0 });
    body.extend_from_slice(&stored.due.unwrap_or_default().as_millis().to_be_bytes());
    body.extend_from_slice(&stored.record);
    body
}

/// A schedule put together from its values, and what is known of it.
pub(crate) fn decode(blob: Blob) -> Result<(StoredSchedule, Known), String> {
    let id = keys::parse_schedule(&blob.prefix).ok_or("its key makes no sense")?;
    let Body::Inline(body) = blob.body else { return Err("it is of an unknown kind".to_owned()) };
    let root = codec::schedule_root(&id, &body);
    let values = blob::values(body.len());
    let parts = || {
        let (version, rest) = body.split_first_chunk::<8>()?;
        let (&flags, rest) = rest.split_first()?;
        let (due, record) = rest.split_first_chunk::<8>()?;
        let due = Timestamp::from_millis(u64::from_be_bytes(*due));
        Some((u64::from_be_bytes(*version), (flags == HAS_DUE).then_some(due), record.to_vec()))
    };
    let (version, due, record) = parts().ok_or("it is too short")?;
    let known = Known { version, due, root, values };
    Ok((StoredSchedule { id, version, due, record }, known))
}

/// A schedule as it was at one moment: one of several values may be written anew or removed while they are read. The first
/// has the version, which no other writing has.
fn find(tree: &sled::Tree, id: &ScheduleId) -> Result<Option<(StoredSchedule, Known)>, Trouble> {
    let prefix = keys::schedule(id);
    let mut first = prefix.clone();
    first.extend_from_slice(&[0; keys::CHUNK]);
    let mut before = tree.get(&first)?;
    loop {
        let found = Blobs::new(scan(tree, &prefix, &prefix)).next();
        let found = found.map(|blob| blob.map_err(|bad| bad.what).and_then(decoded)).transpose();
        let after = tree.get(&first)?;
        if before == after {
            return found.map_err(|trouble| trouble.at(format_args!("schedule {id}")));
        }
        before = after;
    }
}

fn decoded(blob: Blob) -> Result<(StoredSchedule, Known), Trouble> {
    decode(blob).map_err(Trouble::Damage)
}

pub(crate) fn get(tree: &sled::Tree, id: &ScheduleId) -> Result<Option<StoredSchedule>, StoreError> {
    Ok(protect(|| find(tree, id))?.map(|(stored, _)| stored))
}

/// The schedules after `after`, at most `limit`.
pub(crate) fn page(
    tree: &sled::Tree,
    after: Option<&ScheduleId>,
    limit: usize,
) -> Result<Vec<StoredSchedule>, StoreError> {
    Ok(protect(|| all(tree, after, limit))?)
}

pub(crate) fn all(
    tree: &sled::Tree,
    after: Option<&ScheduleId>,
    limit: usize,
) -> Result<Vec<StoredSchedule>, Trouble> {
    let from =
        after.map_or_else(|| vec![keys::SCHEDULES], |id| crate::tree::after_prefix(&keys::schedule(id)));
    let mut found = Vec::new();
    for blob in Blobs::new(scan(tree, &[keys::SCHEDULES], &from)) {
        if found.len() == limit {
            break;
        }
        // Only which there are: what a table is gone through with may be older than some of the values.
        let prefix = match blob {
            Ok(blob) => blob.prefix,
            Err(bad) if bad.prefix.is_empty() => return Err(bad.what.at("a schedule cannot be read")),
            Err(bad) => bad.prefix,
        };
        let id = keys::parse_schedule(&prefix);
        let id = id.ok_or_else(|| Trouble::Damage("a schedule's key makes no sense".to_owned()))?;
        // One that was removed meanwhile is not there any more.
        found.extend(find(tree, &id)?.map(|(stored, _)| stored));
    }
    Ok(found)
}

pub(crate) fn due(
    tree: &sled::Tree,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<(Timestamp, ScheduleId)>, StoreError> {
    let read = || {
        let mut due = Vec::new();
        for pair in scan(tree, &[keys::SCHEDULE_DUE], &[keys::SCHEDULE_DUE]).take(limit) {
            let (key, value) = pair?;
            let item = unseal(&key, &value).and_then(|_| keys::parse_schedule_due(&key));
            let item = item.ok_or_else(|| {
                Trouble::Damage("a due item of a schedule does not match its checksum".to_owned())
            })?;
            if item.0 > until {
                break;
            }
            due.push(item);
        }
        Ok(due)
    };
    Ok(protect(read)?)
}

/// Whether a schedule may be written, given what the group so far leaves behind. Gives what it replaces.
pub(crate) fn check(
    tree: &sled::Tree,
    overlay: &Overlay,
    put: &SchedulePut,
) -> Result<Option<Known>, StoreError> {
    let known = match overlay.known.get(&put.id) {
        Some(known) => Some(known.clone()),
        None => protect(|| find(tree, &put.id))?.map(|(_, known)| known),
    };
    put.check_version(known.as_ref().map(|known| known.version))?;
    Ok(known)
}

/// Adds a schedule that was checked to the group.
pub(crate) fn write(
    batch: &mut sled::Batch,
    next: &mut Commit,
    overlay: &mut Overlay,
    put: &SchedulePut,
    old: Option<&Known>,
) -> u64 {
    overlay.puts += 1;
    let version = (next.number << VERSION_BITS) | overlay.puts;
    let stored = StoredSchedule { id: put.id.clone(), version, due: put.due, record: put.record.clone() };
    let body = encode(&stored);
    let root = codec::schedule_root(&put.id, &body);
    let values = blob::values(body.len());
    let prefix = keys::schedule(&put.id);
    blob::write(&prefix, 0, &Body::Inline(body.into()), |key, value| batch.insert(key, value));
    match old {
        Some(old) => {
            codec::xor(&mut next.roots, &old.root);
            remove_values(batch, &prefix, values, old.values);
            unindex(batch, &put.id, old);
        }
        None => next.schedules += 1,
    }
    if let Some(at) = put.due {
        let key = keys::schedule_due(at, &put.id);
        let value = seal(&key, Vec::new());
        batch.insert(key, value);
    }
    codec::xor(&mut next.roots, &root);
    overlay.known.insert(put.id.clone(), Known { version, due: put.due, root, values });
    version
}

fn remove_values(batch: &mut sled::Batch, prefix: &[u8], from: u16, to: u16) {
    for value in from..to {
        let mut key = prefix.to_vec();
        key.extend_from_slice(&value.to_be_bytes());
        batch.remove(key);
    }
}

fn unindex(batch: &mut sled::Batch, id: &ScheduleId, old: &Known) {
    if let Some(at) = old.due {
        batch.remove(keys::schedule_due(at, id));
    }
}

fn fenced(committer: &Committer, epoch: u64) -> Result<(), StoreError> {
    if epoch != committer.last.epoch {
        return Err(StoreError::Fenced { epoch: committer.last.epoch });
    }
    Ok(())
}

/// Writes a schedule in a group of its own. Called between two groups.
pub(crate) fn put(committer: &mut Committer, put: &SchedulePut, epoch: u64) -> Result<u64, StoreError> {
    fenced(committer, epoch)?;
    let mut overlay = Overlay::default();
    let old = check(&committer.tree, &overlay, put)?;
    let (mut batch, mut next) = (sled::Batch::default(), committer.last.next());
    let version = write(&mut batch, &mut next, &mut overlay, put, old.as_ref());
    committer.apply(batch, next)?;
    Ok(version)
}

/// Removes a schedule in a group of its own. Called between two groups.
pub(crate) fn remove(
    committer: &mut Committer,
    id: &ScheduleId,
    version: u64,
    epoch: u64,
) -> Result<(), StoreError> {
    fenced(committer, epoch)?;
    let old = protect(|| find(&committer.tree, id))?.map(|(_, known)| known);
    let found = old.as_ref().map_or(0, |old| old.version);
    let Some(old) = old.filter(|old| old.version == version) else {
        return Err(StoreError::ScheduleConflict { found });
    };
    let (mut batch, mut next) = (sled::Batch::default(), committer.last.next());
    next.schedules -= 1;
    codec::xor(&mut next.roots, &old.root);
    remove_values(&mut batch, &keys::schedule(id), 0, old.values);
    unindex(&mut batch, id, &old);
    committer.apply(batch, next)
}

impl Known {
    pub(crate) fn root(&self) -> &Hash {
        &self.root
    }
}
