//! Everything that can be read of a store, to be compared with what was there before.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use dssflow_engine::id::RunId;
use dssflow_engine::run::RunStatus;
use dssflow_engine::store::{GraphHash, ListQuery, MAX_PAGE, Store, StoreError};
use dssflow_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Most items asked for at once: more than the stores of the tests have.
const ALL: usize = 100_000;

/// The answers to all questions, each as text or a hash of it; or why there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// By question.
    pub answers: BTreeMap<String, Result<String, String>>,
    /// Runs asked for.
    pub runs: Vec<String>,
    /// Graphs asked for.
    pub graphs: Vec<String>,
    /// Events of all runs, going by their heads.
    pub events: u64,
}

/// How what is read now differs from what was there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// Questions that get another answer and no error.
    pub silent: Vec<String>,
    /// Questions that get an error.
    pub errors: Vec<String>,
}

impl Content {
    /// Asks everything: all lists, and each of these runs and graphs in every way.
    pub async fn read(store: &dyn Store, runs: &[String], graphs: &[String]) -> Self {
        let mut content = Self { runs: runs.to_vec(), graphs: graphs.to_vec(), ..Self::default() };
        content.put("id", Ok(store.id().to_string()));
        let unfinished = vec![RunStatus::Running, RunStatus::Waiting];
        for (question, statuses) in [("list", Vec::new()), ("list of unfinished runs", unfinished)] {
            let answer = list(store, statuses).await;
            content.put(question, answer.map(|page| format!("{page:?}")));
        }
        let due = store.due(Timestamp::MAX, ALL).await;
        content.put("due", due.map(|due| format!("{due:?}")));
        // Two questions, as a schedule that cannot be read is no reason to find no other one due.
        let schedules = store.schedules(None, MAX_PAGE).await;
        content.put("schedules", schedules.map(|all| format!("{:x}", hash(format!("{all:?}").as_bytes()))));
        let due = store.due_schedules(Timestamp::MAX, MAX_PAGE).await;
        content.put("due schedules", due.map(|due| format!("{due:?}")));
        for name in runs {
            let run = RunId::new(name.as_str()).expect("it was a run of the store");
            let head = store.head(&run).await;
            let seq = head.as_ref().ok().and_then(Option::as_ref).map_or(0, |head| head.seq);
            content.events += seq;
            content.put(format!("head of {name}"), head.map(|head| format!("{head:?}")));
            for after in [0, seq / 2] {
                let records = store.load(&run, after).await;
                let answer = records.map(|records| {
                    let sum: Vec<_> = records
                        .iter()
                        .map(|record| (record.first_seq, record.events, hash(&record.bytes)))
                        .collect();
                    format!("{sum:x?}")
                });
                // Without a head the middle is not known; the first question is enough then.
                let part = if after == 0 { "records" } else { "later records" };
                content.put(format!("{part} of {name}"), answer);
            }
        }
        for name in graphs {
            let graph = store.graph(&GraphHash(name.clone())).await;
            content.put(format!("graph {name}"), graph.map(|bytes| format!("{:x}", hash(&bytes))));
        }
        content
    }

    fn put(&mut self, question: impl Into<String>, answer: Result<String, StoreError>) {
        self.answers.insert(question.into(), answer.map_err(|error| error.to_string()));
    }

    /// Compares what is read now with this, which was there before.
    pub fn compare(&self, now: &Self) -> Differences {
        let mut differences = Differences::default();
        for (question, before) in &self.answers {
            match now.answers.get(question) {
                Some(Err(error)) => differences.errors.push(format!("{question}: {error}")),
                Some(answer) if answer == before => {}
                // The middle of the run could not be found, as its head could not be read: that was told.
                None if question.starts_with("later records") => {}
                other => differences.silent.push(format!("{question}: {other:.200?}, it was {before:.200?}")),
            }
        }
        differences
    }
}

async fn list(
    store: &dyn Store,
    statuses: Vec<RunStatus>,
) -> Result<Vec<dssflow_engine::store::RunSummary>, StoreError> {
    let mut runs = Vec::new();
    let mut cursor = None;
    loop {
        let page =
            store.list(ListQuery { statuses: statuses.clone(), cursor, ..ListQuery::default() }).await?;
        runs.extend(page.runs);
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(runs);
        }
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
