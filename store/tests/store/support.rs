//! What all areas use: a directory, transitions, and this test binary run again as a child.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use dssflow_engine::store::conformance::transition;
use dssflow_engine::store::{Expect, GraphHash, Head, ListQuery, Record, Store};
use dssflow_engine::time::Timestamp;
use dssflow_store::{OpenOptions, SledStore};

pub(crate) fn open(path: &Path) -> SledStore {
    SledStore::open(path, OpenOptions::default()).unwrap()
}

/// Runs a future whose waiting is for other threads only.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Runs of all shapes: small, chunked and large records, a due item, graphs; every third has ended.
pub(crate) async fn fill(store: &SledStore, runs: u64) {
    for i in 0..runs {
        for seq in 0..4 {
            let expect = if seq == 0 { Expect::New } else { Expect::At { seq } };
            let mut next = transition(&format!("run-{i}"), expect, store.epoch());
            next.record =
                vec![u8::try_from(i * 10 + seq).unwrap(); [100, 900, 9_000, 70_000][(i + seq) as usize % 4]];
            next.due = (i % 2 == 0).then(|| Timestamp::from_millis(i));
            if seq == 3 && i % 3 == 0 {
                next.summary.status = dssflow_engine::run::RunStatus::Succeeded;
            }
            if seq == 0 {
                next.graph = Some((GraphHash(format!("{:064x}", i / 4)), vec![b'g'; 2_000 + i as usize / 4]));
            }
            store.commit(next).await.unwrap();
        }
    }
}

/// Appends one event to each of so many runs.
pub(crate) async fn extend(store: &SledStore, runs: u64, seq: u64) {
    let commits = (0..runs).map(|i| {
        let expect = if seq == 0 { Expect::New } else { Expect::At { seq } };
        store.commit(transition(&format!("long-{i}"), expect, store.epoch()))
    });
    for done in futures::future::join_all(commits).await {
        done.unwrap();
    }
}

/// Everything that can be read of each run.
pub(crate) type Contents = BTreeMap<String, (Head, Vec<Record>)>;

pub(crate) async fn contents(store: &dyn Store) -> Contents {
    let mut all = Contents::new();
    let mut cursor = None;
    loop {
        let page = store.list(ListQuery { cursor, ..ListQuery::default() }).await.unwrap();
        for summary in page.runs {
            let head = store.head(&summary.run).await.unwrap().unwrap();
            assert_eq!(head.summary, summary, "list and head agree");
            let records = store.load(&summary.run, 0).await.unwrap();
            all.insert(summary.run.to_string(), (head, records));
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return all;
        }
    }
}

/// This test binary, to run `test` alone with `DSSFLOW_CHILD` set to `path`.
pub(crate) fn child(test: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env("DSSFLOW_CHILD", path);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// The path given by [`child`], when this process is one.
pub(crate) fn child_path() -> Option<std::path::PathBuf> {
    std::env::var_os("DSSFLOW_CHILD").map(Into::into)
}

/// xorshift64*: enough for choosing positions, and the same everywhere.
pub(crate) struct Dice(u64);

impl Dice {
    /// From `DSSFLOW_SEED`, or the given seed; says which.
    pub(crate) fn new(area: &str, seed: u64) -> Self {
        let seed = std::env::var("DSSFLOW_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(seed);
        println!("{area}: DSSFLOW_SEED={seed}");
        Self(seed.max(1))
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % end
    }
}
