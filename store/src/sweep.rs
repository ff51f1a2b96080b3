//! Removes graphs that no record names, and payload files that nothing names. Marks what is named by reading every
//! record, then removes the rest; commits wait meanwhile.

use std::collections::HashSet;

use dssflow_engine::store::{GraphHash, NamesGraphs, StoreError, Swept};

use crate::blob::{BadBlob, Blobs, Body};
use crate::codec::{self, Hash};
use crate::commit::Committer;
use crate::disk::{self, TEMPORARY};
use crate::tree::{Trouble, protect, scan};
use crate::{keys, payload, place};

/// Most values of graphs removed in one batch.
const BATCH_KEYS: usize = 4096;

/// What something that stays names.
#[derive(Default)]
struct Marked {
    graphs: HashSet<GraphHash>,
    payloads: HashSet<Hash>,
}

/// A graph that nothing names.
struct Dead {
    hash: GraphHash,
    root: Hash,
    keys: Vec<sled::IVec>,
    /// Bytes that it alone takes, in the tree.
    bytes: u64,
}

/// Called between two groups. What is on its way to the committer is held or brings its graph along.
pub(crate) fn sweep(committer: &mut Committer, names: NamesGraphs) -> Result<Swept, StoreError> {
    committer.holds.check()?;
    let mut marked = protect(|| mark(committer, names))?;
    marked.graphs.extend(committer.imported_graphs());
    let dead = protect(|| dead_graphs(committer, &mut marked))?;
    let mut swept = Swept::default();
    let mut dead = dead.into_iter().peekable();
    while dead.peek().is_some() {
        let (mut batch, mut next, mut removed) = (sled::Batch::default(), committer.last.next(), 0);
        while let Some(graph) = dead.next_if(|graph| removed == 0 || removed + graph.keys.len() <= BATCH_KEYS)
        {
            removed += graph.keys.len();
            graph.keys.into_iter().for_each(|key| batch.remove(key));
            codec::xor(&mut next.roots, &graph.root);
            next.graphs -= 1;
            committer.forget_graph(&graph.hash);
            swept.graphs += 1;
            swept.bytes += graph.bytes;
        }
        committer.apply(batch, next)?;
    }
    let failed = |error| StoreError::Unavailable(format!("removing payload files failed: {error}"));
    remove_files(committer, &marked.payloads, &mut swept).map_err(failed)?;
    Ok(swept)
}

/// Reads every record, those of imports under way included.
fn mark(committer: &Committer, names: NamesGraphs) -> Result<Marked, Trouble> {
    let mut marked = Marked::default();
    let dir = committer.place.payloads();
    for blob in Blobs::new(scan(&committer.tree, &[keys::RECORDS], &[keys::RECORDS])) {
        let bad = |bad: BadBlob| match keys::parse_record(&bad.prefix) {
            Some((run, seq)) => bad.what.at(format_args!("run {run}: event {seq}")),
            None => bad.what,
        };
        let blob = blob.map_err(bad)?;
        let Some((run, seq)) = keys::parse_record(&blob.prefix) else {
            return Err(Trouble::Damage("a record's key makes no sense".to_owned()));
        };
        let unread = |what: String| {
            Trouble::Damage(format!("run {run}: event {seq}: which graphs it names cannot be told: {what}"))
        };
        let bytes = match &blob.body {
            Body::Inline(bytes) => std::borrow::Cow::Borrowed(&**bytes),
            Body::Payload { len, digest } => {
                marked.payloads.insert(*digest);
                payload::read(&dir, digest, *len).map_err(unread)?.into()
            }
        };
        marked.graphs.extend(names(seq, &bytes).map_err(unread)?);
    }
    Ok(marked)
}

/// The graphs that are not marked; marks the payload files of those that are.
fn dead_graphs(committer: &Committer, marked: &mut Marked) -> Result<Vec<Dead>, Trouble> {
    let mut dead = Vec::new();
    for blob in Blobs::new(scan(&committer.tree, &[keys::GRAPHS], &[keys::GRAPHS])) {
        let blob = blob.map_err(|bad| bad.what.at("a graph cannot be read"))?;
        let hash = keys::parse_graph(&blob.prefix);
        let hash = hash.ok_or_else(|| Trouble::Damage("a graph's key makes no sense".to_owned()))?;
        if marked.graphs.contains(&hash) {
            if let Body::Payload { digest, .. } = blob.body {
                marked.payloads.insert(digest);
            }
            continue;
        }
        let bytes = match &blob.body {
            Body::Inline(bytes) => bytes.len() as u64,
            // Counted when the file goes, which others may name.
            Body::Payload { .. } => 0,
        };
        let root = codec::graph_root(&hash, blob.body.hashed());
        let values = scan(&committer.tree, &blob.prefix, &blob.prefix);
        let keys = values.map(|pair| pair.map(|(key, _)| key));
        dead.push(Dead { hash, root, keys: keys.collect::<Result<_, _>>()?, bytes });
    }
    Ok(dead)
}

/// Removes payload files, also such as were never finished.
fn remove_files(committer: &Committer, marked: &HashSet<Hash>, swept: &mut Swept) -> std::io::Result<()> {
    let dir = committer.place.payloads();
    let wanted = committer.inflight.wanted();
    let mut removed = false;
    for name in place::names(&dir)? {
        let whole = match name.strip_suffix(TEMPORARY) {
            Some(unfinished) => payload::of_temporary(unfinished),
            None => name.as_str(),
        };
        let digest = hex::decode(whole).ok().and_then(|bytes| Hash::try_from(bytes).ok());
        // What is not named as we name files is not ours.
        let Some(digest) = digest else { continue };
        let is_live = whole == name && marked.contains(&digest);
        if is_live || wanted.contains(&digest) {
            continue;
        }
        let path = dir.join(&name);
        let bytes = std::fs::symlink_metadata(&path)?.len();
        std::fs::remove_file(&path)?;
        removed = true;
        if whole == name {
            swept.payloads += 1;
            swept.bytes += bytes;
        }
    }
    if removed {
        disk::sync_dir(&*committer.disk, &dir)?;
    }
    Ok(())
}
