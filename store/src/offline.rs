//! Looking at a store that nobody owns: checking it ([`verify_offline`]) and describing it ([`info_offline`]).
//!
//! The store is locked meanwhile and not changed. sled writes when it opens, so it works on a copy of its directory
//! (see [`crate::trial`]); that takes as much room there as the store has, and some more.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dssflow_engine::id::{RunId, StoreId};
use dssflow_engine::run::RunStatus;
use dssflow_engine::store::VerifyReport;
use dssflow_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::check::{self, damage};
use crate::codec::{Commit, HeadValue, unseal};
use crate::error::{Holder, OpenError};
use crate::format::{Format, read_current};
use crate::head::{self, Slots};
use crate::lock::{self, Lock};
use crate::manifest::{self, ManifestState};
use crate::place::{GENERATION, Place, names};
use crate::tree::{self, BLOBS, Trouble, protect};
use crate::trial::{Copy, not_looked_at};
use crate::{keys, place, remove};

/// Cache of a copy that is read once.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// What [`verify_offline`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfflineReport {
    /// What was read, and everything that is wrong, files that differ from the manifest included.
    #[serde(flatten)]
    pub report: VerifyReport,
    /// Whether every byte could be compared with what was there at the last close.
    pub manifest: ManifestState,
    /// What is not damage and worth knowing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What a store is and has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoreInfo {
    /// Where it is.
    pub path: PathBuf,
    /// Its format.
    pub format: u32,
    /// Its id.
    pub store: StoreId,
    /// The epoch in force, or the last one when nobody owns it.
    pub epoch: u64,
    /// The last group of commits.
    pub last_group: u64,
    /// How many runs stand where.
    pub runs: BTreeMap<RunStatus, u64>,
    /// How many events all runs have.
    pub events: u64,
    /// What it takes on the disk, in bytes.
    pub bytes_on_disk: u64,
    /// Where those bytes are.
    #[serde(default)]
    pub parts: Parts,
    /// Runs that wanted to be looked at by now, and were not.
    #[serde(default)]
    pub lag: Lag,
    /// Who owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// The run created first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<OldestRun>,
}

/// What the parts of a store take on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Parts {
    /// sled's directory, in bytes.
    pub log_bytes: u64,
    /// How many payload files there are.
    pub payload_files: u64,
    /// What they take, in bytes.
    pub payload_bytes: u64,
    /// What a compaction that did not end left behind, in bytes; the next one removes it.
    pub leftover_bytes: u64,
}

/// How far the work is behind: what was due and has not been looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Lag {
    /// How many runs.
    pub runs: u64,
    /// When the first of them was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How long ago that is, in milliseconds.
    pub late_ms: u64,
}

/// The run created first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OldestRun {
    /// The run.
    pub run: RunId,
    /// When it was created.
    pub created: Timestamp,
}

/// Checks a store that nobody owns, without changing it. Damage is in the report; it may take seconds a gigabyte.
///
/// # Errors
/// [`OpenError::Locked`] when somebody owns it (ask the owner to verify), and whatever keeps it from being looked
/// at: no store there, unsafe, a later format, IO errors. [`OpenError::Io`] also when there is no room for the copy:
/// nothing is known of the store then.
pub fn verify_offline(path: impl AsRef<Path>) -> Result<OfflineReport, OpenError> {
    let (place, lock) = lock_to_look(path.as_ref(), "store verify")?;
    let report = inspect(&place);
    // The note of a verifier is of no use later; should wiping fail, it does no harm.
    drop(lock.wipe());
    report
}

/// Describes a store that nobody owns, without changing it.
///
/// # Errors
/// As [`verify_offline`], and [`OpenError::Damaged`] when it cannot be read.
pub fn info_offline(path: impl AsRef<Path>) -> Result<StoreInfo, OpenError> {
    let (place, lock) = lock_to_look(path.as_ref(), "store info")?;
    let info = info_of(&place);
    drop(lock.wipe());
    info
}

/// The id that `FORMAT` names, also of a store of which nothing else can be read; `None` when that file says nothing.
pub fn id_offline(path: impl AsRef<Path>) -> Option<StoreId> {
    let place = Place::existing(path.as_ref()).ok()?;
    Some(Format::read(&place).ok()??.store)
}

/// The process that owns the store at `path`, as it has noted; `None` when none has, or it cannot be read.
pub fn holder_of(path: impl AsRef<Path>) -> Option<Holder> {
    let place = Place::existing(path.as_ref()).ok()?;
    lock::read_note(&place.lock())
}

pub(crate) fn lock_to_look(path: &Path, command: &str) -> Result<(Place, Lock), OpenError> {
    let place = Place::existing(path)?;
    if !place.is_used()? {
        return Err(OpenError::NotFound { path: path.to_owned() });
    }
    let lock = Lock::acquire(&place, command)?;
    Ok((place, lock))
}

fn info_of(place: &Place) -> Result<StoreInfo, OpenError> {
    let damaged = |what: &str| OpenError::damaged(&place.root, what);
    let format = Format::read(place)?.ok_or_else(|| damaged("FORMAT is missing"))?;
    let generation = read_current(place)?.ok_or_else(|| damaged("CURRENT is missing"))?;
    let copy = Copy::of(&place.root.join(format!("{GENERATION}{generation}")))?;
    let db = tree::open(&copy.dir(), CACHE_BYTES).map_err(|trouble| copy.blame(&place.root, trouble))?;
    let info = describe(place, &db, format.number, &format.store, None);
    drop(tree::close(db));
    info.map_err(|trouble| copy.blame(&place.root, trouble))
}

/// Reads every head.
pub(crate) fn describe(
    place: &Place,
    tree: &sled::Tree,
    format: u32,
    store: &StoreId,
    holder: Option<Holder>,
) -> Result<StoreInfo, Trouble> {
    protect(|| {
        let commit = check::read_commit(tree)?.unwrap_or_else(|| Commit::none(store));
        let mut info = StoreInfo {
            path: place.root.clone(),
            format,
            store: store.clone(),
            epoch: commit.epoch,
            last_group: commit.number,
            runs: BTreeMap::new(),
            events: 0,
            bytes_on_disk: bytes_on_disk(place).map_err(Trouble::Io)?,
            parts: parts(place).map_err(Trouble::Io)?,
            lag: lag(tree, lock::now())?,
            holder,
            oldest: None,
        };
        for pair in tree::scan(tree, &[keys::HEADS], &[keys::HEADS]) {
            let (key, value) = pair?;
            let head = unseal(&key, &value).and_then(HeadValue::decode_full);
            let (value, head) = head.ok_or_else(|| Trouble::Damage("a run's head is damaged".to_owned()))?;
            *info.runs.entry(head.summary.status).or_default() += 1;
            info.events += value.seq;
            if info.oldest.as_ref().is_none_or(|oldest| value.created < oldest.created) {
                info.oldest = Some(OldestRun { run: head.summary.run, created: value.created });
            }
        }
        Ok(info)
    })
}

/// What a file or a directory with all that is in it takes on the disk.
pub(crate) fn dir_bytes(path: &Path) -> std::io::Result<u64> {
    // Files come and go under a store that is in use.
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(0) };
    let mut bytes = meta.blocks() * 512;
    if meta.is_dir() {
        for name in names(path)? {
            bytes += dir_bytes(&path.join(name))?;
        }
    }
    Ok(bytes)
}

fn parts(place: &Place) -> std::io::Result<Parts> {
    let live = match read_current(place) {
        Ok(Some(generation)) => format!("{GENERATION}{generation}"),
        _ => String::new(),
    };
    let mut parts = Parts::default();
    for name in names(&place.root)?.into_iter().filter(|name| name.starts_with(GENERATION)) {
        let bytes = dir_bytes(&place.root.join(&name))?;
        if name == live {
            parts.log_bytes = bytes;
        } else {
            parts.leftover_bytes += bytes;
        }
    }
    for name in names(&place.payloads())? {
        parts.payload_files += 1;
        parts.payload_bytes += dir_bytes(&place.payloads().join(name))?;
    }
    Ok(parts)
}

/// What is due at `now`, from the index.
fn lag(tree: &sled::Tree, now: Timestamp) -> Result<Lag, Trouble> {
    let mut lag = Lag::default();
    for pair in tree::scan(tree, &[keys::DUE], &[keys::DUE]) {
        let (key, _) = pair?;
        let Some((at, _)) = keys::parse_timed(&key) else { continue };
        if at > now {
            break;
        }
        lag.runs += 1;
        if lag.since.is_none() {
            lag.since = Some(at);
            lag.late_ms = now.as_millis() - at.as_millis();
        }
    }
    Ok(lag)
}

fn bytes_on_disk(place: &Place) -> std::io::Result<u64> {
    let mut bytes = 0;
    for name in names(&place.root)? {
        if place::is_own(&name) {
            bytes += dir_bytes(&place.root.join(name))?;
        }
    }
    Ok(bytes)
}

/// Checks files and contents. The caller holds the lock.
pub(crate) fn inspect(place: &Place) -> Result<OfflineReport, OpenError> {
    let mut report = VerifyReport::default();
    let mut notes = Vec::new();
    let compared = manifest::check(place, u64::MAX).map_err(OpenError::io("read", &place.root))?;
    let manifest = compared.state;
    match &manifest {
        ManifestState::Differs { problems } => {
            for problem in problems {
                damage(&mut report, None, None, problem.as_str());
            }
        }
        ManifestState::Absent => notes.push(
            "the last owner did not close the store, so that only what is live could be checked, not every byte"
                .to_owned(),
        ),
        ManifestState::Checked { .. } => {}
    }

    let store = match Format::read(place) {
        Ok(Some(format)) => Some(format.store),
        Ok(None) => {
            damage(&mut report, None, None, "FORMAT is missing");
            None
        }
        Err(OpenError::Damaged { what, .. }) => {
            damage(&mut report, None, None, what);
            None
        }
        Err(other) => return Err(other),
    };
    let generation = match read_current(place) {
        Ok(Some(generation)) => format!("{GENERATION}{generation}"),
        outcome => {
            match outcome {
                Ok(_) => damage(&mut report, None, None, "CURRENT is missing"),
                Err(OpenError::Damaged { what, .. }) => damage(&mut report, None, None, what),
                Err(other) => return Err(other),
            }
            newest_generation(place)?
        }
    };
    let Some(store) = store.or_else(|| head::store_of(place)) else {
        damage(
            &mut report,
            None,
            None,
            "the store's id is in no readable file, so that nothing else can be checked",
        );
        return Ok(OfflineReport { report, manifest, notes });
    };
    let dir = place.root.join(generation);
    if !dir.join(tree::DB).is_file() {
        damage(&mut report, None, None, "sled's log is missing");
        return Ok(OfflineReport { report, manifest, notes });
    }
    let slots = Slots::read(place, &store)?;

    let copy = Copy::of(&dir)?;
    match tree::open(&copy.dir(), CACHE_BYTES) {
        Err(trouble) => {
            let what = copy.judge(trouble)?;
            damage(&mut report, None, None, format!("the data do not open: {what}"));
        }
        Ok(db) => {
            let found = check::check(&check::Input {
                tree: &db,
                store: &store,
                payloads: &place.payloads(),
                blobs: &dir.join(BLOBS),
                slots: slots.as_ref(),
                owned: false,
            });
            let commit = protect(|| check::read_commit(&db)).ok().flatten();
            // A copy that does not close is none the worse for what was read.
            drop(tree::close(db));
            let found = found.map_err(not_looked_at)?;
            if !found.damage.is_empty() {
                copy.has_room()?;
            }
            if let (Some(commit), Some(head)) = (commit, slots.as_ref().and_then(Slots::newest))
                && commit.number > head.number
                && found.damage.is_empty()
            {
                notes.push(format!("group {} was written and not acknowledged; it is kept", commit.number));
            }
            (report.runs, report.events, report.bytes) = (found.runs, found.events, found.bytes);
            report.schedules = found.schedules;
            report.damage.extend(found.damage);
        }
    }
    Ok(OfflineReport { report, manifest, notes })
}

/// The sled directory to read when `CURRENT` does not say; empty when there is none. A compaction that was cut off leaves
/// two: the one with the later group is it, or with more in it, as the other may be only half a copy.
pub(crate) fn newest_generation(place: &Place) -> Result<String, OpenError> {
    let found = names(&place.root).map_err(OpenError::io("read", &place.root))?;
    let number = |name: &str| name.strip_prefix(GENERATION).and_then(|n| n.parse::<u32>().ok());
    let mut found: Vec<(u32, String)> =
        found.into_iter().filter_map(|name| Some((number(&name)?, name))).collect();
    if found.len() < 2 {
        return Ok(found.pop().map(|(_, name)| name).unwrap_or_default());
    }
    let mut best = None;
    for (number, name) in found {
        let holds = holds(&place.root.join(&name))?;
        best = best.max(Some((holds, number, name)));
    }
    Ok(best.map(|(_, _, name)| name).unwrap_or_default())
}

/// The last group in a sled directory, and how many values there are; zeros when it cannot be read.
fn holds(dir: &Path) -> Result<(u64, usize), OpenError> {
    if !dir.join(tree::DB).is_file() {
        return Ok((0, 0));
    }
    let copy = Copy::of(dir)?;
    let db = match tree::open(&copy.dir(), CACHE_BYTES) {
        Ok(db) => db,
        Err(trouble) => return copy.judge(trouble).map(|_| (0, 0)),
    };
    let group = protect(|| Ok(check::read_commit(&db)?.map_or(0, |commit| commit.number)));
    let values = protect(|| Ok(db.len()));
    // A copy that does not close is none the worse for what was read.
    drop(tree::close(db));
    let group = group.or_else(|trouble| copy.judge(trouble).map(|_| 0))?;
    let values = values.or_else(|trouble| copy.judge(trouble).map(|_| 0))?;
    Ok((group, values))
}

/// Opens a copy of sled's directory and looks whether it holds what it should, see [`whole`]. sled writes when it opens
/// what nobody closed: it cuts off the end of its log that it cannot read, and replaces its snapshot. So what turns out
/// to be damaged would be changed before it is refused.
///
/// A store of more than `limit` bytes is not copied. Says whether it was.
///
/// # Errors
/// [`OpenError::Damaged`]; [`OpenError::Io`] when there is no room for the copy, as opening untried may change what is
/// refused then.
pub(crate) fn rehearse(
    place: &Place,
    dir: &Path,
    slots: &Slots,
    store: &StoreId,
    limit: u64,
) -> Result<bool, OpenError> {
    let acknowledged = slots.newest().is_some_and(|head| head.number > 0);
    if !dir.join(tree::DB).is_file() {
        if acknowledged {
            return Err(OpenError::damaged(&place.root, "sled's log is missing"));
        }
        // A new store: there is nothing that could be changed.
        return Ok(false);
    }
    if dir_bytes(dir).map_err(OpenError::io("read", dir))? > limit {
        return Ok(false);
    }
    let copy = Copy::of(dir)?;
    let trial = || {
        let db = tree::open(&copy.dir(), CACHE_BYTES)?;
        let found = whole(place, dir, &db, slots, store);
        // A copy that does not close is none the worse for what was read.
        drop(tree::close(db));
        found
    };
    trial().map_err(|trouble| copy.blame(&place.root, trouble))?;
    Ok(true)
}

/// Whether a tree that nobody closed is the one of the group that was acknowledged last, with all that opening and lists
/// go by. Reads every head, graph and schedule.
pub(crate) fn whole(
    place: &Place,
    dir: &Path,
    tree: &sled::Tree,
    slots: &Slots,
    store: &StoreId,
) -> Result<(), Trouble> {
    let input = check::Input {
        tree,
        store,
        payloads: &place.payloads(),
        blobs: &dir.join(BLOBS),
        slots: Some(slots),
        owned: false,
    };
    check::summary(&input)?;
    // An import or a removal that was cut off is gone on with.
    protect(|| remove::first_partial(tree)).map(drop)
}
