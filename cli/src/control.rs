//! The API of the process that owns the store: through it other commands look at its runs and act on them, on a unix
//! socket that only its owner can reach. `serve` offers the same routes over HTTP, with a guard before them.
//!
//! JSON for answers, NDJSON or SSE for events. It offers what `engine::Engine` offers and decides nothing itself. The
//! types here are those of both sides.

#[cfg(test)]
mod both_sides;
pub(crate) mod client;
pub(crate) mod schedules;
pub(crate) mod server;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dssflow_engine::event::{CancelMode, Request};
use dssflow_engine::id::{RunId, StepName};
use dssflow_engine::run::Verb;
use dssflow_engine::runtime::Obstacle;
use dssflow_engine::store::RunSummary;
use dssflow_engine::store::prune::{Policy, Stays};
use dssflow_engine::time::Timestamp;
use dssflow_store::StoreInfo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config;

/// The longest path a socket is put under; the system's own limit is 107 bytes.
const MAX_SOCKET_PATH: usize = 100;

/// Where the socket of a store is; `None` when its path is too long and there is no `$XDG_RUNTIME_DIR`.
pub(crate) fn socket_path(store: &Path) -> Option<PathBuf> {
    let path = store.join("control.sock");
    if path.as_os_str().len() <= MAX_SOCKET_PATH {
        return Some(path);
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute())?;
    // FNV-1a: tells stores apart, nothing more.
    let hash = store
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    let path = runtime.join(format!("dssflow-{hash:016x}.sock"));
    (path.as_os_str().len() <= MAX_SOCKET_PATH).then_some(path)
}

/// Answer of `GET /v1/runs`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Page {
    /// The runs.
    pub(crate) runs: Vec<RunSummary>,
    /// Where to go on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) cursor: Option<String>,
}

/// Answer of `GET /v1/store`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OwnerInfo {
    /// The store.
    #[serde(flatten)]
    pub(crate) info: StoreInfo,
    /// The owner's version.
    pub(crate) version: String,
    /// Runs it drives.
    pub(crate) live: Vec<RunId>,
    /// Whether it is `dssflow serve`, which drives any run of the store and takes new ones.
    #[serde(default)]
    pub(crate) serves: bool,
}

/// Answer of `GET /v1/health`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Health {
    /// How it stands.
    pub(crate) status: Standing,
    /// Its version.
    pub(crate) version: String,
    /// Whether it is `dssflow serve`, which drives any run of the store and takes new ones.
    pub(crate) serves: bool,
    /// Since when it has owned the store.
    pub(crate) since: Timestamp,
    /// Where it serves HTTP, when it does, as `127.0.0.1:7477`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listens: Option<String>,
    /// How many runs it drives.
    pub(crate) driven: usize,
    /// How many of their steps could start and stand in line: for a lock, a permit, a rate or a slot.
    pub(crate) queued: usize,
    /// How many runs of before it has looked at since it started.
    pub(crate) recovered: usize,
    /// How long that took, in milliseconds; 0 as long as it goes on.
    pub(crate) recover_ms: u64,
    /// Runs that were under way and are not driven, with why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) parked: Vec<Parked>,
}

#[cfg(test)]
impl Health {
    /// That of an owner with nothing to do.
    pub(crate) fn at_rest(serves: bool) -> Self {
        Self {
            status: Standing::Ok,
            version: String::new(),
            serves,
            since: Timestamp::from_millis(0),
            listens: None,
            driven: 0,
            queued: 0,
            recovered: 0,
            recover_ms: 0,
            parked: Vec::new(),
        }
    }
}

/// How a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// It does what it is there for.
    Ok,
    /// It is still taking up runs of before.
    Recovering,
    /// It was told to stop.
    Stopping,
    /// The store has failed; it ends.
    Broken,
}

/// A run that was under way and is not driven.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Parked {
    /// The run.
    pub(crate) run: RunId,
    /// Why not.
    pub(crate) why: String,
}

/// Body of `POST /v1/store/prune`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PruneOrder {
    /// Which runs are to go.
    pub(crate) policy: Policy,
    /// Whether it is only to be said.
    pub(crate) dry_run: bool,
}

/// Answer of `POST /v1/store/prune`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PruneDone {
    /// The runs that are gone, or would be.
    pub(crate) runs: Vec<RunId>,
    /// How many runs were looked at.
    pub(crate) seen: u64,
    /// How many events went.
    pub(crate) events: u64,
    /// How many runs were asked for and stay.
    pub(crate) stayed: u64,
    /// Some of them, with why.
    pub(crate) stays: Vec<(RunId, Stays)>,
    /// Bytes of graphs and large values that went with them.
    pub(crate) swept_bytes: u64,
}

/// Body of `POST /v1/runs/{run}/pause`, `cancel` and `rollback`. What is not asked for is not sent, so that an owner of
/// another version understands the rest.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Demand {
    /// Who asks.
    pub(crate) by: String,
    /// Why.
    pub(crate) reason: String,
    /// For a rollback: steps to leave alone.
    pub(crate) keep: Vec<String>,
    /// For a rollback: only what depends on this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    /// For a cancel: whether what was made is taken back.
    pub(crate) rollback: bool,
    /// For a cancel: whether attempts under way are left behind.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) terminate: bool,
}

impl Demand {
    /// A cancel of this kind.
    pub(crate) fn cancel(mode: CancelMode, request: Request) -> Self {
        Self {
            rollback: mode == CancelMode::Rollback,
            terminate: mode == CancelMode::Terminate,
            ..Self::from(request)
        }
    }

    /// The kind of cancel that is asked for.
    pub(crate) fn mode(&self) -> CancelMode {
        match (self.terminate, self.rollback) {
            (true, _) => CancelMode::Terminate,
            (false, true) => CancelMode::Rollback,
            (false, false) => CancelMode::Keep,
        }
    }
}

impl From<Request> for Demand {
    fn from(request: Request) -> Self {
        Self { by: request.by, reason: request.reason, ..Self::default() }
    }
}

/// Body of `POST /v1/runs/{run}/act`: an operator's verb, with who and why beside it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Act {
    /// What is wanted.
    #[serde(flatten)]
    pub(crate) verb: Verb,
    /// Who and why.
    #[serde(flatten)]
    pub(crate) request: Request,
    /// Whether a run that nobody drives is driven on with it, where `serve` owns the store. For `retry` and `rerun`; the
    /// other verbs are decisions and no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) drive: bool,
}

/// Answer of `POST /v1/runs/{run}/act`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Acted {
    /// Whether the owner drives the run, and does it now; else it is only written down.
    pub(crate) driven: bool,
}

/// Answer of `GET /v1/runs/{run}/obstacles`: what keeps steps that may start from starting.
pub(crate) type Obstacles = BTreeMap<StepName, Vec<Obstacle>>;

/// Body of `POST /v1/runs/{run}/resume`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Resume {
    /// Who asks.
    pub(crate) by: String,
    /// Why.
    pub(crate) reason: String,
    /// Whether the run is brought to the workflow of the server's version first.
    pub(crate) upgrade: bool,
}

/// Body of `POST /v1/runs/{run}/fork`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fork {
    /// The step from which on everything is done again.
    pub(crate) from: StepName,
    /// The new run's id; made up when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<RunId>,
    /// Who asks.
    #[serde(default)]
    pub(crate) by: String,
    /// Why.
    #[serde(default)]
    pub(crate) reason: String,
}

/// A run that the server drives.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Driven {
    /// The run.
    pub(crate) run: RunId,
    /// Its last event before it was gone on with; 0 for a new one. What comes after that is news.
    pub(crate) seq: u64,
    /// Whether it was being driven already, and nothing was changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) already: bool,
}

/// Body of `POST /v1/runs` and of `POST /v1/runs/check`: a run that is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    /// The workflow.
    pub(crate) workflow: String,
    /// What its file says, as JSON: a site, or images. Paths in it are absolute: they are the server's.
    pub(crate) spec: Value,
    /// The run's id; made from workflow and site when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<RunId>,
    /// A plan that must still hold, as `dssflow plan --out` saves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plan: Option<Value>,
    /// Who the run has to act as. The server refuses when it is somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) principal: Option<Principal>,
    /// What `check` answered to the same order: what it looked at is then not looked at once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ticket: Option<String>,
    /// Who asks.
    #[serde(default)]
    pub(crate) by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
}

impl Order {
    /// An order by this user.
    pub(crate) fn new(workflow: &str, spec: Value, id: Option<RunId>) -> Self {
        Self {
            workflow: workflow.to_owned(),
            spec,
            id,
            plan: None,
            principal: None,
            ticket: None,
            by: config::user(),
            reason: String::new(),
        }
    }
}

/// A user or role of AWS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Principal {
    /// The account's twelve digits.
    pub(crate) account: String,
    /// Its ARN, without a session's name.
    pub(crate) arn: String,
}

/// Answer of `POST /v1/runs/check`: what the order would do. Nothing was changed.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Checked {
    /// The run that the order starts, or goes on with; none when there is nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<RunId>,
    /// Whether that run is there and is gone on with.
    pub(crate) goes_on: bool,
    /// What a person has to know before: warnings, who acts and where, what it makes.
    pub(crate) notes: Vec<String>,
    /// What a person is asked.
    pub(crate) question: String,
    /// Whether nobody need be asked: it is in the sandbox, or nothing is made.
    pub(crate) free: bool,
    /// To be sent with the order, for some minutes.
    pub(crate) ticket: String,
}

/// Body of an answer that is an error.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Refusal {
    /// As `DF0004`; `dssflow explain` has a page for each.
    pub(crate) code: String,
    /// What happened.
    pub(crate) message: String,
    /// Why, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) why: Vec<String>,
    /// What to do.
    #[serde(default)]
    pub(crate) hints: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_and_who_asks_stand_side_by_side() {
        let act = Act {
            verb: Verb::Skip { step: StepName::new("copy").unwrap() },
            request: Request { by: "ada".to_owned(), reason: "not used".to_owned() },
            drive: false,
        };
        let text = serde_json::to_value(&act).unwrap();
        assert_eq!(
            text,
            serde_json::json!({ "verb": "skip", "step": "copy", "by": "ada", "reason": "not used" })
        );
        let read: Act = serde_json::from_value(text).unwrap();
        assert_eq!((read.verb, read.request), (act.verb, act.request));
    }

    #[test]
    fn a_demand_says_only_what_is_asked_for() {
        let plain = serde_json::to_value(Demand::from(Request::by("ada"))).unwrap();
        assert!(plain.get("terminate").is_none() && plain.get("to").is_none(), "{plain}");
        for mode in [CancelMode::Keep, CancelMode::Rollback, CancelMode::Terminate] {
            let sent = serde_json::to_string(&Demand::cancel(mode, Request::by("ada"))).unwrap();
            assert_eq!(serde_json::from_str::<Demand>(&sent).unwrap().mode(), mode);
        }
    }

    #[test]
    fn a_long_path_moves_the_socket() {
        assert_eq!(socket_path(Path::new("/s")), Some(PathBuf::from("/s/control.sock")));
        let long = PathBuf::from(format!("/{}", "x".repeat(120)));
        if let Some(path) = socket_path(&long) {
            assert!(!path.starts_with(&long) && path.as_os_str().len() <= MAX_SOCKET_PATH);
        }
    }
}
