//! Checks a whole store: every checksum, every chain, every index, the counts and hashes over all of it, and what
//! `HEAD` says was acknowledged. Reads only; goes on after damage, so that one report names all of it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use dssflow_engine::id::{RunId, ScheduleId, StoreId};
use dssflow_engine::store::{Damage, VerifyReport};
use dssflow_engine::time::Timestamp;

use crate::blob::{BadBlob, Blobs};
use crate::codec::{self, Commit, Hash, HeadValue, unseal};
use crate::head::Slots;
use crate::tree::{Trouble, after_prefix, protect, scan};
use crate::{blob, keys, payload, schedules};

/// Most damages a report lists.
const MAX_DAMAGES: usize = 1_000;

pub(crate) struct Input<'a> {
    pub(crate) tree: &'a sled::Tree,
    pub(crate) store: &'a StoreId,
    pub(crate) payloads: &'a Path,
    pub(crate) blobs: &'a Path,
    /// `None` when there is no such file.
    pub(crate) slots: Option<&'a Slots>,
    /// Whether an owner asks, between two groups: the tree and `HEAD` must agree then.
    pub(crate) owned: bool,
}

struct Check<'a> {
    input: &'a Input<'a>,
    report: VerifyReport,
    heads: HashMap<RunId, HeadValue>,
    roots: Hash,
    graphs: u64,
    schedules: BTreeMap<ScheduleId, Option<Timestamp>>,
    /// Whether a table could not be read to its end, so that counts over it mean nothing.
    partial: bool,
    /// Why reading ended early, which says nothing of what is there.
    refused: Option<io::Error>,
}

/// Reads and checks everything.
///
/// # Errors
/// When the system does not let sled read: what was found until then may come of that, and is not told.
pub(crate) fn check(input: &Input<'_>) -> io::Result<VerifyReport> {
    Check::new(input).read(true)
}

/// Checks that heads, graphs, schedules and indexes are those of the last group, and that this is the one acknowledged.
/// Records are not read: they are compared with their run's head whenever they are.
///
/// Where a part of the log cannot be read, sled may go on with what it has of the pages in it: older values, each whole.
///
/// # Errors
/// The first thing that is wrong; [`Trouble::Io`] when the system does not let sled read.
pub(crate) fn summary(input: &Input<'_>) -> Result<(), Trouble> {
    let found = Check::new(input).read(false).map_err(Trouble::Io)?;
    match found.damage.into_iter().next() {
        Some(Damage { run: Some(run), what, .. }) => Err(Trouble::Damage(format!("run {run}: {what}"))),
        Some(Damage { what, .. }) => Err(Trouble::Damage(what)),
        None => Ok(()),
    }
}

pub(crate) fn damage(
    report: &mut VerifyReport,
    run: Option<&RunId>,
    seq: Option<u64>,
    what: impl Into<String>,
) {
    if report.damage.len() < MAX_DAMAGES {
        report.damage.push(Damage { run: run.cloned(), seq, what: what.into() });
    }
}

impl<'a> Check<'a> {
    fn new(input: &'a Input<'a>) -> Self {
        Self {
            input,
            report: VerifyReport::default(),
            heads: HashMap::new(),
            roots: [0; 32],
            graphs: 0,
            schedules: BTreeMap::new(),
            partial: false,
            refused: None,
        }
    }

    /// Reads all of it, or what there is beside the records.
    fn read(mut self, records: bool) -> io::Result<VerifyReport> {
        self.part("heads", Self::heads);
        if records {
            self.records();
            self.part("records without a head", Self::orphans);
        }
        self.part("graphs", Self::graphs);
        self.part("schedules", Self::schedules);
        self.part("indexes", Self::indexes);
        self.part("due schedules", Self::due_schedules);
        if records {
            self.part("other keys", Self::strangers);
        }
        self.part("group", Self::group);
        if records {
            // A write that was cut off is damage to whoever looks, and none to the next owner, who writes it anew.
            if self.input.slots.is_some_and(Slots::is_damaged) {
                self.bad(None, None, "a slot of HEAD is damaged");
            }
            self.part("files", Self::files);
        }
        match self.refused {
            Some(error) => Err(error),
            None => Ok(self.report),
        }
    }

    fn bad(&mut self, run: Option<&RunId>, seq: Option<u64>, what: impl Into<String>) {
        damage(&mut self.report, run, seq, what);
    }

    /// Does one part of the work; sled may fail or panic in the middle of it.
    fn part(&mut self, name: &str, work: fn(&mut Self) -> Result<(), Trouble>) {
        if self.refused.is_some() {
            return;
        }
        match protect(|| work(self)) {
            Ok(()) => {}
            Err(Trouble::Io(error)) => self.refused = Some(error),
            Err(Trouble::Damage(what)) => {
                self.partial = true;
                self.bad(None, None, format!("the {name} cannot be read to their end: {what}"));
            }
        }
    }

    fn table(&self, table: u8) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), Trouble>> + use<> {
        scan(self.input.tree, &[table], &[table])
    }

    fn heads(&mut self) -> Result<(), Trouble> {
        for pair in self.table(keys::HEADS) {
            let (key, value) = pair?;
            self.report.runs += 1;
            let run = keys::parse_head(&key);
            let decoded = unseal(&key, &value).and_then(|body| Some((body, HeadValue::decode_full(body)?)));
            match (run, decoded) {
                (Some(run), Some((body, (value, _)))) => {
                    codec::xor(&mut self.roots, &codec::run_root(&run, body));
                    self.heads.insert(run, value);
                }
                (run, _) => {
                    self.partial = true;
                    self.bad(run.as_ref(), None, "the run's head does not match its checksum");
                }
            }
        }
        Ok(())
    }

    /// Run by run, so that one that cannot be read does not hide the others.
    fn records(&mut self) {
        let mut runs: Vec<_> = self.heads.iter().map(|(run, head)| (run.clone(), head.clone())).collect();
        runs.sort_by(|a, b| a.0.cmp(&b.0));
        for (run, head) in runs {
            if self.refused.is_some() {
                return;
            }
            self.run_records(&run, &head);
        }
    }

    fn run_records(&mut self, run: &RunId, head: &HeadValue) {
        let mut next = 1;
        let mut records = 0;
        let mut chain = codec::genesis(self.input.store, run);
        let mut found = Vec::new();
        let outcome = protect(|| {
            let prefix = keys::records(run);
            for blob in Blobs::new(scan(self.input.tree, &prefix, &prefix)) {
                let blob = match blob {
                    Ok(blob) => blob,
                    Err(BadBlob { what: what @ Trouble::Io(_), .. }) => return Err(what),
                    Err(bad) => {
                        let seq = keys::parse_record(&bad.prefix).map_or(next, |(_, seq)| seq);
                        found.push((seq, format!("the record cannot be read: {}", bad.what)));
                        // Without a key there is no telling where to go on.
                        if bad.prefix.is_empty() {
                            break;
                        }
                        continue;
                    }
                };
                let Some((_, first_seq)) = keys::parse_record(&blob.prefix) else {
                    found.push((next, "a record's key makes no sense".to_owned()));
                    continue;
                };
                if first_seq != next && found.is_empty() {
                    found.push((next, "the record is missing".to_owned()));
                }
                if let blob::Body::Payload { len, digest } = &blob.body
                    && let Err(what) = payload::read(self.input.payloads, digest, *len)
                {
                    found.push((first_seq, what));
                }
                chain = codec::chain(&chain, first_seq, blob.events, blob.body.hashed());
                next = first_seq + u64::from(blob.events);
                records += 1;
                self.report.events += u64::from(blob.events);
                self.report.bytes += blob.body.len();
            }
            Ok(())
        });
        match outcome {
            Ok(()) => {}
            Err(Trouble::Io(error)) => {
                self.refused = Some(error);
                return;
            }
            Err(Trouble::Damage(what)) => {
                found.push((next, format!("the records cannot be read further: {what}")));
            }
        }
        if found.is_empty() {
            if next != head.seq + 1 {
                let what = format!("the records end here, and the head is at event {}", head.seq);
                found.push((next.min(head.seq + 1), what));
            } else if records != head.records || chain != head.chain {
                found.push((1, "the records do not form the chain that the head names".to_owned()));
            }
        }
        for (seq, what) in found {
            self.bad(Some(run), Some(seq), what);
        }
    }

    /// Records of runs that have no head. Jumps from run to run.
    fn orphans(&mut self) -> Result<(), Trouble> {
        let mut from = vec![keys::RECORDS];
        while let Some(pair) = scan(self.input.tree, &[keys::RECORDS], &from).next() {
            let (key, _) = pair?;
            let prefix = key.len().checked_sub(keys::CHUNK).map(|len| &key[..len]);
            if let Some((run, seq)) = prefix.and_then(keys::parse_record) {
                let mark = keys::partial(&run);
                let value = self.input.tree.get(&mark)?;
                let is_marked = value.is_some_and(|value| unseal(&mark, &value).is_some());
                if is_marked == self.heads.contains_key(&run) {
                    let what = if is_marked {
                        "the run has a head and is marked as having none"
                    } else {
                        "the run has records and no readable head"
                    };
                    self.bad(Some(&run), Some(seq), what);
                }
                from = after_prefix(&keys::records(&run));
            } else {
                self.bad(None, None, "a record's key makes no sense");
                from = key.to_vec();
                from.push(0);
            }
        }
        Ok(())
    }

    fn graphs(&mut self) -> Result<(), Trouble> {
        for blob in Blobs::new(self.table(keys::GRAPHS)) {
            match blob {
                Ok(blob) => {
                    self.graphs += 1;
                    let Some(hash) = keys::parse_graph(&blob.prefix) else {
                        self.bad(None, None, "a graph's key makes no sense");
                        continue;
                    };
                    if let blob::Body::Payload { len, digest } = &blob.body
                        && let Err(what) = payload::read(self.input.payloads, digest, *len)
                    {
                        self.bad(None, None, format!("graph {}: {what}", hash.0));
                    }
                    codec::xor(&mut self.roots, &codec::graph_root(&hash, blob.body.hashed()));
                }
                Err(bad) if bad.prefix.is_empty() => return Err(bad.what),
                Err(bad) => {
                    self.partial = true;
                    let hash = keys::parse_graph(&bad.prefix).map_or_else(String::new, |hash| hash.0);
                    self.bad(None, None, format!("graph {hash} cannot be read: {}", bad.what));
                }
            }
        }
        Ok(())
    }

    fn schedules(&mut self) -> Result<(), Trouble> {
        for blob in Blobs::new(self.table(keys::SCHEDULES)) {
            self.report.schedules += 1;
            let (prefix, read) = match blob {
                Ok(blob) => (blob.prefix.clone(), schedules::decode(blob)),
                Err(bad) if bad.prefix.is_empty() => return Err(bad.what),
                Err(bad) => (bad.prefix, Err(bad.what.to_string())),
            };
            match read {
                Ok((stored, known)) => {
                    codec::xor(&mut self.roots, known.root());
                    self.schedules.insert(stored.id, stored.due);
                }
                Err(what) => {
                    self.partial = true;
                    let id = keys::parse_schedule(&prefix).map_or_else(String::new, |id| id.to_string());
                    self.bad(None, None, format!("schedule {id} cannot be read: {what}"));
                }
            }
        }
        Ok(())
    }

    fn due_schedules(&mut self) -> Result<(), Trouble> {
        let mut seen = 0;
        for pair in self.table(keys::SCHEDULE_DUE) {
            let (key, value) = pair?;
            match unseal(&key, &value).and_then(|_| keys::parse_schedule_due(&key)) {
                Some((at, id)) if self.schedules.get(&id) == Some(&Some(at)) => seen += 1,
                Some((_, id)) => {
                    let what = format!("the due index has an entry that schedule {id} does not have");
                    self.bad(None, None, what);
                }
                None => self.bad(None, None, "a due item of a schedule does not match its checksum"),
            }
        }
        let expected = self.schedules.values().filter(|due| due.is_some()).count();
        if seen != expected {
            let what =
                format!("the due index of schedules has {seen} good entries and should have {expected}");
            self.bad(None, None, what);
        }
        Ok(())
    }

    /// Each table ordered by time has just what the heads say.
    fn indexes(&mut self) -> Result<(), Trouble> {
        type Entry = fn(&HeadValue) -> Option<Timestamp>;
        let tables: [(u8, &str, Entry); 3] = [
            (keys::DUE, "due index", |head| head.due),
            (keys::CREATED, "list of runs", |head| Some(head.created)),
            (keys::UNFINISHED, "list of unfinished runs", |head| (!head.ended).then_some(head.created)),
        ];
        for (table, name, entry) in tables {
            let mut seen = 0;
            for pair in self.table(table) {
                let (key, value) = pair?;
                let item = unseal(&key, &value).and_then(|_| keys::parse_timed(&key));
                let Some((at, run)) = item else {
                    self.bad(None, None, format!("an entry of the {name} does not match its checksum"));
                    continue;
                };
                if self.heads.get(&run).and_then(entry) == Some(at) {
                    seen += 1;
                } else {
                    self.bad(
                        Some(&run),
                        None,
                        format!("the {name} has an entry that the run's head does not have"),
                    );
                }
            }
            let expected = self.heads.values().filter(|head| entry(head).is_some()).count();
            if seen != expected {
                self.bad(
                    None,
                    None,
                    format!("the {name} has {seen} good entries and should have {expected}"),
                );
            }
        }
        Ok(())
    }

    /// Nothing is in the tree but our tables.
    fn strangers(&mut self) -> Result<(), Trouble> {
        let mut known = [
            keys::META,
            keys::HEADS,
            keys::RECORDS,
            keys::DUE,
            keys::CREATED,
            keys::UNFINISHED,
            keys::GRAPHS,
            keys::PARTIAL,
            keys::SCHEDULES,
            keys::SCHEDULE_DUE,
        ];
        known.sort_unstable();
        let mut from = vec![0];
        for table in known {
            if self.input.tree.range(from..vec![table]).next().transpose()?.is_some() {
                self.bad(None, None, "there are keys of no known table");
            }
            from = vec![table + 1];
        }
        let beyond = self.input.tree.range(from..).next().transpose()?.is_some();
        if beyond || self.table(keys::META).count() > 2 {
            self.bad(None, None, "there are keys of no known table");
        }
        Ok(())
    }

    /// The last group against what was read and against `HEAD`.
    fn group(&mut self) -> Result<(), Trouble> {
        let commit = read_commit(self.input.tree)?;
        if let Err(what) = agree(commit.as_ref(), self.input.slots, self.input.store, self.input.owned) {
            self.bad(None, None, what);
        }
        let Some(commit) = commit else { return Ok(()) };
        if !self.partial {
            if (commit.runs, commit.graphs) != (self.report.runs, self.graphs) {
                let what = format!(
                    "the store has {} runs and {} graphs, and its last group says {} and {}",
                    self.report.runs, self.graphs, commit.runs, commit.graphs
                );
                self.bad(None, None, what);
            } else if commit.schedules != self.schedules.len() as u64 {
                let (found, said) = (self.schedules.len(), commit.schedules);
                self.bad(
                    None,
                    None,
                    format!("the store has {found} schedules, and its last group says {said}"),
                );
            } else if commit.roots != self.roots {
                self.bad(None, None, "runs, graphs or schedules are not those of the last group");
            }
        }
        let id = self.input.tree.get(keys::STORE)?;
        let id = id.as_ref().and_then(|value| unseal(keys::STORE, value));
        if id != Some(self.input.store.as_str().as_bytes()) {
            self.bad(None, None, "the data are those of another store, or the store's id is damaged");
        }
        Ok(())
    }

    fn files(&mut self) -> Result<(), Trouble> {
        // The store's own files, not those that are read in its place: what cannot be read of them is lost.
        let own = |error: io::Error| Trouble::Damage(error.to_string());
        if std::fs::read_dir(self.input.blobs).map_err(own)?.next().is_some() {
            self.bad(None, None, "sled moved a value into a file that it does not sync");
        }
        for name in payload::damaged(self.input.payloads).map_err(own)? {
            self.bad(None, None, format!("the payload file {name} does not match its name"));
        }
        Ok(())
    }
}

/// The last group in the tree; `None` when there is none yet.
pub(crate) fn read_commit(tree: &sled::Tree) -> Result<Option<Commit>, Trouble> {
    let Some(value) = tree.get(keys::COMMIT)? else { return Ok(None) };
    let commit = unseal(keys::COMMIT, &value).and_then(Commit::decode);
    commit.map(Some).ok_or_else(|| Trouble::Damage("the last group does not match its checksum".to_owned()))
}

/// Whether the tree holds what `HEAD` says was acknowledged. Returns the tree's group.
pub(crate) fn agree(
    commit: Option<&Commit>,
    slots: Option<&Slots>,
    store: &StoreId,
    owned: bool,
) -> Result<Commit, String> {
    let slots = slots.ok_or("HEAD is missing")?;
    let head = slots.newest().ok_or("neither slot of HEAD can be read")?;
    let commit = commit.cloned().unwrap_or_else(|| Commit::none(store));
    match commit.number.checked_sub(head.number) {
        None => Err(format!(
            "the data end at group {}, and group {} was acknowledged: the last {} are lost",
            commit.number,
            head.number,
            head.number - commit.number
        )),
        Some(0) if commit.chain == head.chain => Ok(commit),
        Some(0) => Err(format!("group {} is not the one that was acknowledged", head.number)),
        // Written, and the process ended before it was acknowledged.
        Some(1) if commit.before == head.chain && !owned => Ok(commit),
        Some(ahead) => {
            Err(format!("HEAD is of another time: it ends at group {}, {ahead} before the data", head.number))
        }
    }
}
