//! Putting a whole run in. What fits one batch goes in one batch; the records of a longer run go in before its head,
//! under a mark (see [`crate::remove`]) that goes away with the batch that brings the head. Until then there is no
//! such run, and an owner that finds the mark when it opens the store removes the records.

use std::sync::atomic::{AtomicU64, Ordering};

use dssflow_engine::id::RunId;
use dssflow_engine::store::{GraphHash, RunSummary, StoreError, WholeRun, check_graph};

use crate::blob::{self, Body, INLINE_LIMIT};
use crate::codec::{self, HeadValue, seal};
use crate::commit::{Committer, Order, has_graph, index};
use crate::inflight::Held;
use crate::keys;
use crate::read;
use crate::remove::erase;
use crate::store::SledStore;

/// So many bytes go in one batch.
const PART_BYTES: usize = 1024 * 1024;

/// An import whose records go in before its head does.
pub(crate) struct Importing {
    token: u64,
    graphs: Vec<GraphHash>,
}

impl Importing {
    /// The graphs that its records name.
    pub(crate) fn graphs(&self) -> &[GraphHash] {
        &self.graphs
    }
}

/// Records on their way.
#[derive(Default)]
struct Part {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
    held: Vec<Held>,
}

impl Part {
    fn into_batch(self) -> (sled::Batch, Vec<Held>) {
        let mut batch = sled::Batch::default();
        for (key, value) in self.pairs {
            batch.insert(key, value);
        }
        (batch, self.held)
    }
}

/// Takes back what is in the store of an import that did not end.
struct Undo<'a> {
    store: &'a SledStore,
    run: RunId,
    token: u64,
    armed: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.armed {
            let (run, token) = (self.run.clone(), self.token);
            // A store that was closed meanwhile removes it when it is opened again.
            let _closed = self.store.order(Order::Task(Box::new(move |committer| {
                if let Err(error) = committer.carefully(|committer| abort(committer, &run, token)) {
                    tracing::warn!(%run, %error, "what is left of an import stays until the store is opened again");
                }
            })));
        }
    }
}

/// As [`dssflow_engine::store::Store::import`].
pub(crate) async fn import(store: &SledStore, mut whole: WholeRun<'_>) -> Result<(), StoreError> {
    static TOKENS: AtomicU64 = AtomicU64::new(1);
    let mut order = whole.check()?;
    let run = whole.run.clone();
    let mut undo =
        Undo { store, run: run.clone(), token: TOKENS.fetch_add(1, Ordering::Relaxed), armed: false };
    let mut head = HeadValue {
        seq: whole.seq,
        records: 0,
        due: whole.due,
        created: whole.summary.created,
        ended: whole.summary.status.is_end(),
        chain: codec::genesis(store.store_id(), &run),
    };
    let mut part = Part::default();
    for record in whole.records.by_ref() {
        let record = record?;
        order.take(&record)?;
        let body = stored(store, &record.bytes, &mut part)?;
        head.chain = codec::chain(&head.chain, record.first_seq, record.events, body.hashed());
        head.records += 1;
        blob::write(&keys::record(&run, record.first_seq), record.events, &body, |key, value| {
            part.bytes += key.len() + value.len();
            part.pairs.push((key, value));
        });
        if part.bytes >= PART_BYTES {
            let (run, token, graphs) = (run.clone(), undo.token, whole.graphs.clone());
            let part = std::mem::take(&mut part);
            if undo.armed {
                store.between(move |committer| more(committer, &run, token, part)).await?;
            } else {
                // Before it is asked for: this future may be dropped while it waits.
                undo.armed = true;
                store.between(move |committer| begin(committer, &run, token, graphs, part)).await?;
            }
        }
    }
    order.finish()?;
    let (token, summary, graphs) = (undo.armed.then_some(undo.token), whole.summary, whole.graphs);
    store.between(move |committer| finish(committer, &run, token, part, &graphs, &head, &summary)).await?;
    undo.armed = false;
    Ok(())
}

/// As [`dssflow_engine::store::Store::put_graph`].
pub(crate) async fn put_graph(store: &SledStore, hash: &GraphHash, bytes: Vec<u8>) -> Result<(), StoreError> {
    check_graph(hash, &bytes)?;
    let mut part = Part::default();
    let body = stored(store, &bytes, &mut part)?;
    let root = codec::graph_root(hash, body.hashed());
    blob::write(&keys::graph(hash), 0, &body, |key, value| part.pairs.push((key, value)));
    let hash = hash.clone();
    store
        .between(move |committer| {
            if has_graph(&committer.tree, &mut committer.cache.graphs, &hash)? {
                return Ok(());
            }
            let mut next = committer.last.next();
            next.graphs += 1;
            codec::xor(&mut next.roots, &root);
            let (batch, _held) = part.into_batch();
            committer.apply(batch, next)
        })
        .await
}

/// Where bytes are kept; what is large is written to its file now.
fn stored<'a>(store: &SledStore, bytes: &'a [u8], part: &mut Part) -> Result<Body<'a>, StoreError> {
    if bytes.len() <= INLINE_LIMIT {
        return Ok(Body::Inline(bytes.into()));
    }
    let (held, digest) = store.write_payload(bytes)?;
    part.held.push(held);
    Ok(Body::Payload { len: bytes.len() as u64, digest })
}

fn check_new(committer: &mut Committer, run: &RunId, graphs: &[GraphHash]) -> Result<(), StoreError> {
    if committer.cache.importing.contains_key(run) || read::head_value(&committer.tree, run)?.is_some() {
        return Err(StoreError::Exists(run.clone()));
    }
    for hash in graphs {
        if !has_graph(&committer.tree, &mut committer.cache.graphs, hash)? {
            return Err(StoreError::NotFound(format!("the graph {} of run {run}", hash.0)));
        }
    }
    Ok(())
}

fn begin(
    committer: &mut Committer,
    run: &RunId,
    token: u64,
    graphs: Vec<GraphHash>,
    part: Part,
) -> Result<(), StoreError> {
    check_new(committer, run, &graphs)?;
    let (mut batch, _held) = part.into_batch();
    let mark = keys::partial(run);
    let value = seal(&mark, Vec::new());
    batch.insert(mark, value);
    committer.apply(batch, committer.last.next())?;
    committer.cache.importing.insert(run.clone(), Importing { token, graphs });
    Ok(())
}

fn is_ours(committer: &Committer, run: &RunId, token: u64) -> bool {
    committer.cache.importing.get(run).is_some_and(|importing| importing.token == token)
}

fn more(committer: &mut Committer, run: &RunId, token: u64, part: Part) -> Result<(), StoreError> {
    assert!(is_ours(committer, run, token), "an import goes on only after it has begun");
    let (batch, _held) = part.into_batch();
    committer.apply(batch, committer.last.next())
}

fn finish(
    committer: &mut Committer,
    run: &RunId,
    token: Option<u64>,
    part: Part,
    graphs: &[GraphHash],
    head: &HeadValue,
    summary: &RunSummary,
) -> Result<(), StoreError> {
    match token {
        Some(token) => assert!(is_ours(committer, run, token), "an import ends only after it has begun"),
        None => check_new(committer, run, graphs)?,
    }
    let (mut batch, _held) = part.into_batch();
    let mut next = committer.last.next();
    index(&mut batch, run, None, head);
    let value = head.encode(summary);
    codec::xor(&mut next.roots, &codec::run_root(run, &value));
    next.runs += 1;
    let key = keys::head(run);
    let value = seal(&key, value);
    batch.insert(key, value);
    if token.is_some() {
        batch.remove(keys::partial(run));
    }
    committer.apply(batch, next)?;
    committer.cache.importing.remove(run);
    Ok(())
}

fn abort(committer: &mut Committer, run: &RunId, token: u64) -> Result<(), StoreError> {
    if !is_ours(committer, run, token) {
        return Ok(());
    }
    let next = committer.last.next();
    erase(committer, run, sled::Batch::default(), next, true)?;
    committer.cache.importing.remove(run);
    Ok(())
}
