//! Writes an archive line by line. Knows no store; what is not in order is refused before a byte is written.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::line::Sums;
use super::{ARCHIVE_FORMAT, ArchivedRun, ArchivedSchedule, Header, Totals};
use crate::id::RunId;
use crate::store::{GraphHash, Record};

/// Bytes of a value in one line; in JSON they are at most six times as many.
const PIECE: usize = 128 * 1024;

/// Writes an archive. One that is not finished is one that was cut off.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    out: W,
    sums: Sums,
    totals: Totals,
    /// Digests of the hashes of the graphs that are in it.
    graphs: BTreeSet<[u8; 16]>,
    run: Option<Open>,
    bytes: u64,
}

/// The run that is being written.
#[derive(Debug)]
struct Open {
    run: RunId,
    end: u64,
    seq: u64,
    records: u64,
    sha: Sha256,
}

fn misuse(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

fn digest(graph: &GraphHash) -> [u8; 16] {
    let whole: [u8; 32] = Sha256::digest(graph.0.as_bytes()).into();
    *whole.first_chunk().expect("half of it")
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an archive.
    ///
    /// # Errors
    /// What `out` fails with.
    pub fn new(out: W, header: &Header) -> io::Result<Self> {
        let (sums, totals, graphs) = Default::default();
        let mut writer = Self { out, sums, totals, graphs, run: None, bytes: 0 };
        writer.line(&Begin { dssflow_archive: ARCHIVE_FORMAT, header })?;
        Ok(writer)
    }

    /// Whether the graph is in it already.
    pub fn has_graph(&self, graph: &GraphHash) -> bool {
        self.graphs.contains(&digest(graph))
    }

    /// Adds a graph, unless it is in there.
    ///
    /// # Errors
    /// What the output fails with; also when a run was begun and not ended.
    pub fn graph(&mut self, hash: &GraphHash, bytes: &[u8]) -> io::Result<()> {
        if let Some(open) = &self.run {
            return Err(misuse(format!("run {} is not ended yet", open.run)));
        }
        if self.graphs.insert(digest(hash)) {
            self.value(&json!({ "graph": hash, "len": bytes.len() }), bytes)?;
            self.totals.graphs += 1;
        }
        Ok(())
    }

    /// Begins a run. Its graphs must be in there.
    ///
    /// # Errors
    /// What the output fails with; also when another was not ended, or a graph is missing.
    pub fn run(&mut self, run: &ArchivedRun) -> io::Result<()> {
        if let Some(open) = &self.run {
            return Err(misuse(format!("run {} is not ended yet", open.run)));
        }
        if let Some(graph) = run.graphs.iter().find(|graph| !self.has_graph(graph)) {
            return Err(misuse(format!("the graph {} comes after run {}", graph.0, run.run)));
        }
        self.line(run)?;
        self.run = Some(Open { run: run.run.clone(), end: run.seq, seq: 0, records: 0, sha: Sha256::new() });
        Ok(())
    }

    /// Adds the next record of the run that was begun.
    ///
    /// # Errors
    /// What the output fails with; also when no run was begun, or the record does not follow the one before.
    pub fn record(&mut self, record: &Record) -> io::Result<()> {
        let Some(open) = &mut self.run else { return Err(misuse("no run was begun".to_owned())) };
        let last = open.seq.saturating_add(u64::from(record.events));
        if record.first_seq != open.seq + 1 || record.events == 0 || last > open.end {
            let (run, found) = (&open.run, record.first_seq);
            return Err(misuse(format!("event {found} of run {run} does not follow event {}", open.seq)));
        }
        open.seq = last;
        open.records += 1;
        open.sha.update(&record.bytes);
        let head = json!({ "record": record.first_seq, "events": record.events, "len": record.bytes.len() });
        self.value(&head, &record.bytes)
    }

    /// Ends the run that was begun.
    ///
    /// # Errors
    /// What the output fails with; also when no run was begun, or it has more events.
    pub fn end_run(&mut self) -> io::Result<()> {
        let Some(open) = self.run.take() else { return Err(misuse("no run was begun".to_owned())) };
        if open.seq != open.end {
            let why = format!("run {} ends at event {}, its head is at {}", open.run, open.seq, open.end);
            return Err(misuse(why));
        }
        let sha256 = hex::encode(open.sha.finalize());
        let (run, records, seq) = (open.run, open.records, open.seq);
        self.line(&json!({ "end_of_run": run, "records": records, "seq": seq, "sha256": sha256 }))?;
        self.totals.runs += 1;
        self.totals.records += records;
        Ok(())
    }

    /// Adds a schedule.
    ///
    /// # Errors
    /// What the output fails with; also when a run was begun and not ended.
    pub fn schedule(&mut self, schedule: &ArchivedSchedule) -> io::Result<()> {
        if let Some(open) = &self.run {
            return Err(misuse(format!("run {} is not ended yet", open.run)));
        }
        let ArchivedSchedule { schedule, due, record } = schedule;
        self.value(&json!({ "schedule": schedule, "due": due, "len": record.len() }), record)?;
        self.totals.schedules += 1;
        Ok(())
    }

    /// What it has so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the last line and flushes. Whoever wants it to survive a power cut syncs what comes back.
    ///
    /// # Errors
    /// What the output fails with; also when a run was begun and not ended.
    pub fn finish(mut self) -> io::Result<(W, Totals)> {
        if let Some(open) = &self.run {
            return Err(misuse(format!("run {} is not ended yet", open.run)));
        }
        self.line(&json!({ "end": self.totals }))?;
        self.out.flush()?;
        Ok((self.out, self.totals))
    }

    /// A value in as many lines as it takes.
    fn value(&mut self, head: &serde_json::Value, bytes: &[u8]) -> io::Result<()> {
        let pieces: Box<dyn Iterator<Item = String>> = match std::str::from_utf8(bytes) {
            Ok(text) => Box::new(texts(text).map(str::to_owned)),
            Err(_) => Box::new(bytes.chunks(PIECE).map(hex::encode)),
        };
        let form = if std::str::from_utf8(bytes).is_ok() { "text" } else { "hex" };
        let mut pieces = pieces;
        let mut head = head.clone();
        head[form] = pieces.next().unwrap_or_default().into();
        self.line(&head)?;
        for piece in pieces {
            self.line(&json!({ "more": piece }))?;
        }
        Ok(())
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut body = serde_json::to_vec(line)?;
        let closing = body.pop();
        debug_assert_eq!(closing, Some(b'}'), "every line is an object");
        self.sums.seal(&mut body);
        self.bytes += body.len() as u64;
        self.out.write_all(&body)
    }
}

#[derive(Serialize)]
struct Begin<'a> {
    dssflow_archive: u16,
    #[serde(flatten)]
    header: &'a Header,
}

/// A text in pieces, none cut inside a character.
fn texts(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let (piece, rest) = text.split_at(text.floor_char_boundary(PIECE));
        text = rest;
        Some(piece)
    })
}
