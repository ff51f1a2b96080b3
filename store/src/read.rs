//! Reading runs, graphs and lists. Nothing here writes.
//!
//! A reader takes the run's head first and then only records up to it: those were applied before the head was, so
//! a commit that happens meanwhile cannot show half. A run that is removed meanwhile can: sled goes through a table with
//! copies of its pages, in which values stay that are gone. So what is missing is damage only if it should be there still.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use dssflow_engine::id::{RunId, StoreId};
use dssflow_engine::store::{GraphHash, Head, ListPage, ListQuery, Record, StoreError};
use dssflow_engine::time::Timestamp;

use crate::blob::{BadBlob, Blob, Blobs, Body};
use crate::codec::{self, HeadValue, unseal};
use crate::tree::{self, Trouble, protect};
use crate::{keys, payload};

/// So often what is missing of a run that is there is looked for again: the run may have been removed, and even imported
/// again, in between.
const LOOKS: u32 = 3;

/// What reading needs.
pub(crate) struct Reader<'a> {
    pub(crate) tree: &'a sled::Tree,
    pub(crate) store: &'a StoreId,
    pub(crate) payloads: &'a Path,
    /// Counts the heads that lists read.
    pub(crate) listed: &'a AtomicU64,
}

fn corrupt(run: &RunId, what: &str) -> Trouble {
    Trouble::Damage(format!("run {run}: {what}"))
}

/// The head's value without its CRC, decoded; and the summary when asked for.
pub(crate) fn head_value(tree: &sled::Tree, run: &RunId) -> Result<Option<(HeadValue, sled::IVec)>, Trouble> {
    let key = keys::head(run);
    let Some(value) = tree.get(&key)? else { return Ok(None) };
    let decoded = unseal(&key, &value).and_then(HeadValue::decode);
    let (head, _) = decoded.ok_or_else(|| corrupt(run, "its head does not match its checksum"))?;
    Ok(Some((head, value)))
}

impl Reader<'_> {
    fn full_head(&self, run: &RunId) -> Result<Option<(HeadValue, Head)>, Trouble> {
        let key = keys::head(run);
        let Some(value) = self.tree.get(&key)? else { return Ok(None) };
        let decoded = unseal(&key, &value).and_then(HeadValue::decode_full);
        decoded.map(Some).ok_or_else(|| corrupt(run, "its head does not match its checksum"))
    }

    pub(crate) fn head(&self, run: &RunId) -> Result<Option<Head>, StoreError> {
        Ok(protect(|| self.full_head(run))?.map(|(_, head)| head))
    }

    fn body(&self, body: Body<'static>) -> Result<Vec<u8>, String> {
        match body {
            Body::Inline(bytes) => Ok(bytes.into_owned()),
            Body::Payload { len, digest } => payload::read(self.payloads, &digest, len),
        }
    }

    pub(crate) fn load(&self, run: &RunId, after: u64) -> Result<Vec<Record>, StoreError> {
        Ok(protect(|| self.load_steadily(run, after, usize::MAX))?)
    }

    /// The first records of those that [`Reader::load`] gives, of at most so many bytes, and at least one.
    pub(crate) fn page(&self, run: &RunId, after: u64, bytes: usize) -> Result<Vec<Record>, StoreError> {
        Ok(protect(|| self.load_steadily(run, after, bytes))?)
    }

    /// A run that is removed while it is read has no records, as one that was removed before.
    fn load_steadily(&self, run: &RunId, after: u64, limit: usize) -> Result<Vec<Record>, Trouble> {
        let mut looks = 0;
        loop {
            let Some((head, _)) = head_value(self.tree, run)? else { return Ok(Vec::new()) };
            match self.load_records(run, &head, after, limit) {
                // What is damaged is so the next time, too.
                Err(Trouble::Damage(_)) if looks < LOOKS => looks += 1,
                answer => return answer,
            }
        }
    }

    fn load_records(
        &self,
        run: &RunId,
        head: &HeadValue,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, Trouble> {
        if after >= head.seq {
            return Ok(Vec::new());
        }
        let all = keys::records(run);
        let mut from = keys::record(run, 0);
        if after > 0 {
            // The record that holds event `after + 1` is the last that begins there or earlier.
            let mut end = keys::record(run, after + 1);
            end.extend_from_slice(&[0; keys::CHUNK]);
            if let Some(last) = self.tree.range(all.clone()..=end).next_back() {
                let key = last?.0;
                from = key[..key.len() - keys::CHUNK].to_vec();
            }
        }
        let mut records: Vec<Record> = Vec::new();
        let mut left = limit;
        let mut chain = codec::genesis(self.store, run);
        let mut next = None;
        for blob in Blobs::new(tree::scan(self.tree, &all, &from)) {
            if next.is_some_and(|next| next > head.seq) {
                break;
            }
            let bad = |bad: BadBlob| match keys::parse_record(&bad.prefix) {
                Some((_, seq)) => bad.what.at(format_args!("run {run}: event {seq}")),
                None => bad.what.at(format_args!("run {run}")),
            };
            let Blob { prefix, events, body } = blob.map_err(bad)?;
            let first_seq = keys::parse_record(&prefix).map(|(_, seq)| seq);
            let first_seq = first_seq.ok_or_else(|| corrupt(run, "a record's key makes no sense"))?;
            match left.checked_sub(usize::try_from(body.len()).unwrap_or(usize::MAX)) {
                Some(rest) => left = rest,
                // The rest is read, and its end looked at, with the next page.
                None if !records.is_empty() => return Ok(records),
                None => left = 0,
            }
            let expected = next.unwrap_or(if after == 0 { 1 } else { first_seq });
            if first_seq != expected || first_seq > after.saturating_add(1) && records.is_empty() {
                return Err(corrupt(run, &format!("event {expected} is missing")));
            }
            if after == 0 {
                chain = codec::chain(&chain, first_seq, events, body.hashed());
            }
            next = Some(first_seq + u64::from(events));
            let bytes =
                self.body(body).map_err(|what| corrupt(run, &format!("event {first_seq}: {what}")))?;
            records.push(Record { first_seq, events, bytes });
        }
        if next != Some(head.seq + 1) {
            return Err(corrupt(run, &format!("event {} is missing", next.unwrap_or(after + 1))));
        }
        if after == 0 && chain != head.chain {
            return Err(corrupt(run, "its records do not form the chain that its head names"));
        }
        Ok(records)
    }

    pub(crate) fn graph(&self, hash: &GraphHash) -> Result<Vec<u8>, StoreError> {
        let prefix = keys::graph(hash);
        let found = protect(|| {
            let Some(blob) = Blobs::new(tree::scan(self.tree, &prefix, &prefix)).next() else {
                return Ok(None);
            };
            let read =
                blob.map_err(|bad| bad.what).and_then(|blob| self.body(blob.body).map_err(Trouble::Damage));
            match read {
                Ok(bytes) => Ok(Some(bytes)),
                // A sweep may have removed it meanwhile.
                Err(Trouble::Damage(_)) if !self.has_value(&prefix)? => Ok(None),
                Err(trouble) => Err(trouble.at(format_args!("the graph {}", hash.0))),
            }
        })?;
        found.ok_or_else(|| StoreError::NotFound(format!("the graph {}", hash.0)))
    }

    /// Whether the first value of a byte string is there now.
    fn has_value(&self, prefix: &[u8]) -> Result<bool, Trouble> {
        let mut first = prefix.to_vec();
        first.extend_from_slice(&[0; keys::CHUNK]);
        Ok(self.tree.contains_key(first)?)
    }

    pub(crate) fn due(&self, until: Timestamp, limit: usize) -> Result<Vec<(Timestamp, RunId)>, StoreError> {
        let scan = || {
            let mut due = Vec::new();
            for pair in tree::scan(self.tree, &[keys::DUE], &[keys::DUE]).take(limit) {
                let (key, value) = pair?;
                let item = unseal(&key, &value).and_then(|_| keys::parse_timed(&key));
                let item =
                    item.ok_or_else(|| Trouble::Damage("a due item does not match its checksum".to_owned()))?;
                if item.0 > until {
                    break;
                }
                due.push(item);
            }
            Ok(due)
        };
        Ok(protect(scan)?)
    }

    pub(crate) fn list(&self, query: &ListQuery) -> Result<ListPage, StoreError> {
        let after = query.after()?;
        Ok(protect(|| self.list_after(query, after))?)
    }

    /// The head of a run that a list has under `key`; `None` when the run was removed since the entry was read.
    fn listed_head(&self, key: &[u8], run: &RunId) -> Result<Option<Head>, Trouble> {
        for _ in 0..LOOKS {
            if let Some((_, head)) = self.full_head(run)? {
                return Ok(Some(head));
            }
            // Both go with the same batch.
            if !self.tree.contains_key(key)? {
                return Ok(None);
            }
        }
        Err(corrupt(run, "its head is missing"))
    }

    fn list_after(&self, query: &ListQuery, after: Option<(Timestamp, RunId)>) -> Result<ListPage, Trouble> {
        // What has not ended is few among many that have.
        let unfinished = !query.statuses.is_empty() && query.statuses.iter().all(|status| !status.is_end());
        let table = if unfinished { keys::UNFINISHED } else { keys::CREATED };
        // The keys are ordered by creation: only those of the time asked for are looked at.
        let start = query.created_from.map_or_else(|| vec![table], |at| keys::time(table, at));
        let before = query.created_before.map(|at| keys::time(table, at));
        let after = after.map(|(at, run)| keys::timed(table, at, &run));
        let end = before.into_iter().chain(after).min().unwrap_or_else(|| vec![table + 1]);
        let mut page = ListPage::default();
        if start >= end {
            return Ok(page);
        }
        for pair in self.tree.range(start..end).rev() {
            let (key, _) = pair?;
            let bad = || Trouble::Damage("an entry of the list of runs makes no sense".to_owned());
            let (_, run) = keys::parse_timed(&key).ok_or_else(bad)?;
            let Some(head) = self.listed_head(&key, &run)? else { continue };
            self.listed.fetch_add(1, Ordering::Relaxed);
            if !query.matches(&head.summary) {
                continue;
            }
            if page.runs.len() == query.page_size() {
                page.cursor = page.runs.last().map(ListQuery::cursor_after);
                break;
            }
            page.runs.push(head.summary);
        }
        Ok(page)
    }
}
