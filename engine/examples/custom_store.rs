//! A store of one's own: a file of JSON lines, with the memory store as its index. The conformance suite of the engine
//! holds it to its promises; then a run is made on it and read again by the next owner of the file.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use dssflow_engine::prelude::*;
use dssflow_engine::store::conformance::{self, Harness};
use dssflow_engine::store::{
    Expect, GraphHash, Head, ListPage, ListQuery, Record, RunSummary, StoreCaps, StoreError, Transition,
    VerifyReport,
};
use dssflow_engine::time::{BoxFuture, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// One line of the file. The bytes of a record are the engine's own, so they are written as hex.
#[derive(Serialize, Deserialize)]
enum Line {
    Store([u8; 16]),
    Opened,
    Commit(Box<Commit>),
}

#[derive(Serialize, Deserialize)]
struct Commit {
    at: Option<u64>,
    epoch: u64,
    events: u32,
    record: String,
    summary: RunSummary,
    due: Option<Timestamp>,
    graph: Option<(GraphHash, String)>,
}

impl Commit {
    fn of(t: &Transition) -> Self {
        let at = if let Expect::At { seq } = t.expect { Some(seq) } else { None };
        let graph = t.graph.as_ref().map(|(hash, bytes)| (hash.clone(), hex::encode(bytes)));
        let (record, summary) = (hex::encode(&t.record), t.summary.clone());
        Self { at, epoch: t.epoch, events: t.events, record, summary, due: t.due, graph }
    }

    fn into_transition(self) -> Result<Transition, hex::FromHexError> {
        Ok(Transition {
            run: self.summary.run.clone(),
            expect: self.at.map_or(Expect::New, |seq| Expect::At { seq }),
            epoch: self.epoch,
            events: self.events,
            record: hex::decode(self.record)?,
            summary: self.summary,
            due: self.due,
            graph: self.graph.map(|(hash, hex)| Ok((hash, hex::decode(hex)?))).transpose()?,
            // It keeps no schedules.
            schedule: None,
        })
    }
}

struct JsonLines {
    index: MemoryStore,
    file: Mutex<File>,
    poisoned: AtomicBool,
}

impl JsonLines {
    /// Reads the file, makes it when it is not there, and notes that it was opened: earlier owners are fenced.
    async fn open(path: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let (mut text, mut index) = (String::new(), None);
        file.read_to_string(&mut text)?;
        // A last line without an end was never acknowledged.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        file.seek(SeekFrom::End(0))?;
        for line in text[..whole].lines() {
            index = Some(match (serde_json::from_str(line)?, index) {
                (Line::Store(id), None) => MemoryStore::new(StoreId::generate(id)),
                (Line::Opened, Some(index)) => MemoryStore::reopen(&index),
                (Line::Commit(commit), Some(index)) => {
                    index.commit(commit.into_transition()?).await?;
                    index
                }
                _ => return Err("the file is damaged".into()),
            });
        }
        let (line, index) = if let Some(index) = index {
            (Line::Opened, index.reopen())
        } else {
            let id: [u8; 16] = rand::random();
            (Line::Store(id), MemoryStore::new(StoreId::generate(id)))
        };
        append(&mut file, &line)?;
        Ok(Self { index, file: Mutex::new(file), poisoned: AtomicBool::new(false) })
    }

    /// After a failed write nobody knows what is on disk: the store must be opened again.
    fn sound(&self) -> Result<&MemoryStore, StoreError> {
        if self.poisoned.load(SeqCst) {
            Err(StoreError::Poisoned("a write failed".to_owned()))
        } else {
            Ok(&self.index)
        }
    }
}

/// Durable when it returns. (A store for use would do this on a thread of its own, for many commits at once.)
fn append(file: &mut File, line: &Line) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_data()
}

impl Store for JsonLines {
    fn id(&self) -> StoreId {
        self.index.id()
    }

    fn epoch(&self) -> u64 {
        self.index.epoch()
    }

    fn caps(&self) -> StoreCaps {
        StoreCaps { durable: true, multi_worker: false, backend: "jsonlines" }
    }

    fn commit(&self, transition: Transition) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            // Held until the line is on disk, so that lines stand in the order of commits.
            let mut file = self.file.lock().await;
            let line = Line::Commit(Box::new(Commit::of(&transition)));
            let seq = self.sound()?.commit(transition).await?;
            append(&mut file, &line).map_err(|error| {
                self.poisoned.store(true, SeqCst);
                StoreError::Poisoned(error.to_string())
            })?;
            Ok(seq)
        })
    }

    fn load<'a>(&'a self, run: &'a RunId, after: u64) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(async move { self.sound()?.load(run, after).await })
    }

    fn head<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Option<Head>, StoreError>> {
        Box::pin(async move { self.sound()?.head(run).await })
    }

    fn graph<'a>(&'a self, hash: &'a GraphHash) -> BoxFuture<'a, Result<Vec<u8>, StoreError>> {
        Box::pin(async move { self.sound()?.graph(hash).await })
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<ListPage, StoreError>> {
        Box::pin(async move { self.sound()?.list(query).await })
    }

    fn due(
        &self,
        until: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, RunId)>, StoreError>> {
        Box::pin(async move { self.sound()?.due(until, limit).await })
    }

    fn verify(&self) -> BoxFuture<'_, Result<VerifyReport, StoreError>> {
        Box::pin(async move { self.sound()?.verify().await })
    }
}

/// Makes files for the suite.
struct Files {
    dir: PathBuf,
    made: u32,
}

impl Files {
    async fn open(&self) -> JsonLines {
        let path = self.dir.join(format!("{}.jsonl", self.made));
        JsonLines::open(&path).await.expect("the directory is ours")
    }
}

impl Harness for Files {
    type Store = JsonLines;

    fn fresh(&mut self) -> BoxFuture<'_, JsonLines> {
        self.made += 1;
        Box::pin(self.open())
    }

    fn reopen(&mut self, store: JsonLines) -> BoxFuture<'_, JsonLines> {
        drop(store);
        Box::pin(self.open())
    }
}

async fn greet(_ctx: ActivityCtx, name: String) -> ActivityResult<String> {
    Ok(format!("hello, {name}"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let done = conformance::run(&mut Files { dir: dir.path().to_owned(), made: 0 }).await;
    println!("the store keeps its promises in all cases: {}", done.cases);
    assert!(done.cases > 20);

    let path = dir.path().join("runs.jsonl");
    let hello = Workflow::<String, String>::build("hello", |w| w.step("greet", greet, w.input()))?;
    let engine = Engine::builder(Arc::new(JsonLines::open(&path).await?)).register(&hello)?.build();
    let run = engine.submit(&hello, "world".to_owned()).await?;
    println!("the run returned {:?}", run.result().await?);
    let id = run.id().clone();
    drop((run, engine));

    let engine = Engine::builder(Arc::new(JsonLines::open(&path).await?)).build();
    let view = engine.view(&id).await?;
    println!("the next owner of the file reads: {}", view.status);
    assert_eq!(view.output, Some("hello, world".into()));
    Ok(())
}
