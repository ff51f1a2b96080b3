//! Opens what a power cut or a fault left, and says what is wrong with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use dssflow_engine::store::Store as _;
use dssflow_store::{ManifestState, OpenOptions, SledStore, verify_offline};

use crate::oracle::{Acks, check_all};
use crate::work;

/// What was wrong.
#[derive(Debug, Clone, Default)]
pub struct Bad {
    /// It does not open, and why.
    pub unopened: Option<String>,
    /// What was acknowledged and is not there.
    pub lost: Vec<String>,
    /// All else.
    pub wrong: Vec<String>,
}

impl Bad {
    /// Whether nothing is.
    pub fn is_nothing(&self) -> bool {
        self.unopened.is_none() && self.lost.is_empty() && self.wrong.is_empty()
    }
}

/// Opens a store in this process, compares it with what was acknowledged and done, commits once more, and if `close`,
/// closes it and looks at it again.
pub fn judge(path: &Path, acks: &Acks, effects: Option<&str>, close: bool) -> Bad {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made");
    let judged = AssertUnwindSafe(|| runtime.block_on(look(path, acks, effects, close)));
    catch_unwind(judged).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Bad { wrong: vec![format!("it panicked: {}", text.unwrap_or_default())], ..Bad::default() }
    })
}

async fn look(path: &Path, acks: &Acks, effects: Option<&str>, close: bool) -> Bad {
    let mut bad = Bad::default();
    let store = match SledStore::open(path, OpenOptions::default()) {
        Ok(store) => store,
        Err(error) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            bad.unopened = Some(format!("{error}{}", source.unwrap_or_default()));
            return bad;
        }
    };
    let verdict = check_all(&store, acks, effects).await;
    (bad.lost, bad.wrong) = (verdict.lost, verdict.wrong);
    let run = "w-after";
    for seq in 1..=2 {
        if let Err(error) = store.commit(work::next(run, seq, store.epoch())).await {
            bad.wrong.push(format!("commit {seq} after it was refused: {error}"));
        }
    }
    if !close {
        return bad;
    }
    if let Err(error) = store.close().await {
        bad.wrong.push(format!("closing: {error}"));
    }
    drop(store);
    match verify_offline(path) {
        Ok(report) => {
            if !report.report.damage.is_empty() || !matches!(report.manifest, ManifestState::Checked { .. }) {
                bad.wrong.push(format!("after it was closed: {report:?}"));
            }
        }
        Err(error) => bad.wrong.push(format!("after it was closed: {error}")),
    }
    bad
}
