//! One case: a copy of a store, a change to one of its files, and what the store says to that. Runs in a process of
//! its own, as damage must never take one down, and must not take for ever.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::{fs, mem};

use dssflow_durability::content::Content;
use dssflow_durability::mutate::{self, Mutation};
use dssflow_engine::store::conformance::transition;
use dssflow_engine::store::{Damage, Expect, Store as _};
use dssflow_store::{OpenError, OpenOptions, SledStore, verify_offline};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::wait;

/// Where a child of this test finds its work, as `from:path`.
pub(crate) const WORK: &str = "DSSFLOW_DAMAGE_CASES";
/// The most memory a process may write to: some ten times what a store of the tests needs.
const MEMORY: u64 = 512 * 1024 * 1024;
/// A store that is used after damage: every so many cases.
const USED: usize = 4;

/// What is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// A file.
    File(Mutation),
    /// A value in sled, through sled: what it holds is then just what sled gives back.
    Value(ValueChange),
}

/// What happens to a value of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ValueChange {
    Flip { at: usize, bit: u8 },
    Cut,
    Remove,
}

/// One case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Case {
    /// Which image.
    pub(crate) image: usize,
    /// Which of its files.
    pub(crate) file: String,
    pub(crate) change: Change,
    /// The record that is hit, when that is known: run and sequence number.
    pub(crate) hit: Option<(String, u64)>,
}

/// All cases, and what the stores hold.
#[derive(Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) images: Vec<(PathBuf, Content)>,
    pub(crate) cases: Vec<Case>,
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum End {
    /// The change changed nothing.
    Same,
    /// The store does not open.
    Refused,
    /// It opens, and what is damaged cannot be read.
    Unreadable,
    /// It opens and everything is as it was; `verify` tells of the damage.
    Reported,
    /// It opens, everything is as it was, and nothing tells of the change: it hit no live byte.
    Harmless,
}

/// What a case gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Came {
    pub(crate) end: End,
    /// Whether the damage that was found names the record that was hit; `None` when that is not known.
    pub(crate) named: Option<Named>,
    pub(crate) violations: Vec<String>,
}

/// How well a record that was hit is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Named {
    /// By run and sequence number.
    Exactly,
    /// By its run, at an earlier event.
    Earlier,
    /// Some damage is reported, at no place or another one.
    Elsewhere,
    /// Nothing is reported.
    Not,
}

fn all_but_lock(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = mutate::files(dir).unwrap();
    // The note in it says who looked last.
    files.remove("lock");
    files
}

fn changed(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

/// The key of a record's first value; see the table in the store's `keys`.
fn record_key(run: &str, seq: u64) -> Vec<u8> {
    [b"r", run.as_bytes(), &[0], &seq.to_be_bytes(), &[0, 0]].concat()
}

fn change_value(dir: &Path, change: ValueChange, (run, seq): (&str, u64)) {
    let db = sled::Config::new().path(dir.join("gen-1")).flush_every_ms(None).open().unwrap();
    let key = record_key(run, seq);
    let mut value = db.get(&key).unwrap().expect("the record has a value").to_vec();
    match change {
        ValueChange::Flip { at, bit } => {
            let at = at % value.len();
            value[at] ^= 1 << bit;
        }
        ValueChange::Cut => drop(value.pop()),
        ValueChange::Remove => {
            db.remove(&key).unwrap();
            value.clear();
        }
    }
    if !value.is_empty() {
        db.insert(&key, value).unwrap();
    }
    db.flush().unwrap();
    drop(db);
    // sled lets go a moment later.
    let log = fs::File::open(dir.join("gen-1/db")).unwrap();
    while log.try_lock().is_err() {
        std::thread::yield_now();
    }
}

fn named(damage: &[Damage], hit: &(String, u64)) -> Named {
    let of_run =
        || damage.iter().filter(|damage| damage.run.as_ref().is_some_and(|run| run.as_str() == hit.0));
    if of_run().any(|damage| damage.seq == Some(hit.1)) {
        Named::Exactly
    } else if of_run().any(|damage| damage.seq.is_some_and(|seq| seq < hit.1)) {
        Named::Earlier
    } else if damage.is_empty() {
        Named::Not
    } else {
        Named::Elsewhere
    }
}

/// Does one case in `dir`, which is removed afterwards.
fn run(case: &Case, image: &(PathBuf, Content), dir: &Path, number: usize) -> Came {
    let mut came = Came { end: End::Same, named: None, violations: Vec::new() };
    let (now, content) = image;
    mutate::copy(now, dir).unwrap();
    match &case.change {
        Change::File(mutation) => {
            if !mutation.apply(&dir.join(&case.file)).unwrap() {
                return came;
            }
        }
        Change::Value(change) => {
            let (run, seq) = case.hit.as_ref().expect("a value belongs to a record");
            change_value(dir, *change, (run, *seq));
        }
    }
    let before = all_but_lock(dir);
    let verified = verify_offline(dir);
    let after = all_but_lock(dir);
    for name in changed(&before, &after) {
        came.violations.push(format!("verify changed {name}"));
    }
    let found = verified.as_ref().map_or_else(
        |error| vec![Damage { run: None, seq: None, what: error.to_string() }],
        |report| report.report.damage.clone(),
    );
    if let Some(hit) = &case.hit {
        came.named = Some(named(&found, hit));
    }
    if let Ok(report) = &verified
        && found.is_empty()
        && (report.report.runs, report.report.events) != (content.runs.len() as u64, content.events)
    {
        came.violations.push(format!("verify read something else: {report:?}"));
    }

    // Every byte of a store that was closed is known.
    if found.is_empty() && before.contains_key("MANIFEST") {
        came.violations.push("the store was closed, and verify saw nothing".to_owned());
    }

    match SledStore::open(dir, OpenOptions::default()) {
        Err(error) => {
            came.end = End::Refused;
            if !error.hint().contains("dssflow store verify") {
                came.violations.push(format!("refused, and the hint is no help: {}", error.hint()));
            }
            if found.is_empty() {
                came.violations.push(format!("refused, and verify saw nothing: {error}"));
            }
            if !matches!(error, OpenError::Damaged { .. }) {
                came.violations.push(format!("refused, and not as damaged: {error:?}"));
            }
            for name in changed(&before, &all_but_lock(dir)) {
                came.violations.push(format!("refused, and changed {name}: {error}"));
            }
        }
        Ok(store) => {
            let read = wait(Content::read(&store, &content.runs, &content.graphs));
            let mut differences = content.compare(&read);
            let told = if found.is_empty() { "silently" } else { "told by verify only" };
            for silent in mem::take(&mut differences.silent) {
                came.violations.push(format!("other data, {told}: {silent}"));
            }
            came.end = match (differences.errors.first(), found.is_empty()) {
                (Some(error), empty) => {
                    if empty {
                        came.violations.push(format!("unreadable, and verify saw nothing: {error}"));
                    }
                    End::Unreadable
                }
                (None, false) => End::Reported,
                (None, true) => End::Harmless,
            };
            let is_used = differences.errors.is_empty() && number.is_multiple_of(USED);
            if is_used && let Err(why) = use_on(store, dir, content) {
                came.violations.push(format!("used on: {why}"));
            }
        }
    }
    came
}

/// A store that opened and has everything is written to, and has everything and that later.
fn use_on(store: SledStore, dir: &Path, content: &Content) -> Result<(), String> {
    let mut next = transition("zz-new", Expect::New, store.epoch());
    next.summary.status = dssflow_engine::run::RunStatus::Succeeded;
    next.summary.created = dssflow_engine::time::Timestamp::from_millis(1);
    wait(store.commit(next)).map_err(|error| error.to_string())?;
    wait(store.close()).map_err(|error| error.to_string())?;
    drop(store);
    let store = SledStore::open(dir, OpenOptions::default()).map_err(|error| error.to_string())?;
    let read = wait(Content::read(&store, &content.runs, &content.graphs));
    let mut differences = content.compare(&read);
    // The list has one run more.
    differences.silent.retain(|silent| !silent.starts_with("list: "));
    let run = dssflow_engine::id::RunId::new("zz-new").unwrap();
    match wait(store.load(&run, 0)) {
        Ok(records) if records.len() == 1 => {}
        other => return Err(format!("the new run is {other:?}")),
    }
    match (differences.silent.pop(), differences.errors.pop()) {
        (None, None) => Ok(()),
        (Some(what), _) | (_, Some(what)) => Err(what),
    }
}

/// No test of its own: the process that does cases for one that is. Prints a line before and after each.
#[test]
fn worker() {
    let Some(work) = std::env::var_os(WORK) else { return };
    let work = work.to_str().unwrap();
    let mut parts = work.splitn(4, ':');
    let mut number = || parts.next().unwrap().parse::<usize>().unwrap();
    let (from, to, step) = (number(), number(), number());
    let plan = Path::new(parts.next().unwrap());
    let limit = Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    setrlimit(Resource::Data, limit).unwrap();
    // sled's panics are expected, and caught.
    std::panic::set_hook(Box::new(|_| {}));
    let root = tempfile::tempdir_in(plan.parent().unwrap()).unwrap();
    let plan: Plan = serde_json::from_slice(&fs::read(plan).unwrap()).unwrap();
    for number in (from..to).step_by(step) {
        let case = &plan.cases[number];
        println!("\nbegin {number}");
        let dir = root.path().join(format!("case-{number}"));
        let work = || run(case, &plan.images[case.image], &dir, number);
        let came = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let what = format!("panicked: {}", text.unwrap_or_default());
            Came { end: End::Refused, named: None, violations: vec![what] }
        });
        println!("came {}", serde_json::to_string(&came).unwrap());
        std::io::stdout().flush().unwrap();
        drop(fs::remove_dir_all(&dir));
    }
}
