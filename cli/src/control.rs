//! The socket through which other commands look at and act on the runs of the process that owns the store.
//!
//! HTTP on a unix socket that only its owner can reach: JSON for answers, NDJSON for events. It offers what
//! `engine::Engine` offers and decides nothing itself.

#[cfg(test)]
mod both_sides;
pub(crate) mod client;
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
use dssflow_store::StoreInfo;
use serde::{Deserialize, Serialize};

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
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    /// The runs.
    pub(crate) runs: Vec<RunSummary>,
    /// Where to go on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) cursor: Option<String>,
}

/// Answer of `GET /v1/store`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OwnerInfo {
    /// The store.
    #[serde(flatten)]
    pub(crate) info: StoreInfo,
    /// The owner's version.
    pub(crate) version: String,
    /// Runs it drives.
    pub(crate) live: Vec<RunId>,
}

/// Body of `POST /v1/store/prune`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PruneOrder {
    /// Which runs are to go.
    pub(crate) policy: Policy,
    /// Whether it is only to be said.
    pub(crate) dry_run: bool,
}

/// Answer of `POST /v1/store/prune`.
#[derive(Debug, Serialize, Deserialize)]
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
#[derive(Debug, Default, Serialize, Deserialize)]
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
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Act {
    /// What is wanted.
    #[serde(flatten)]
    pub(crate) verb: Verb,
    /// Who and why.
    #[serde(flatten)]
    pub(crate) request: Request,
}

/// Answer of `POST /v1/runs/{run}/act`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Acted {
    /// Whether the owner drives the run, and does it now; else it is only written down.
    pub(crate) driven: bool,
}

/// Answer of `GET /v1/runs/{run}/obstacles`: what keeps steps that may start from starting.
pub(crate) type Obstacles = BTreeMap<StepName, Vec<Obstacle>>;

/// Body of an answer that is an error.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// As `DF0004`.
    pub(crate) code: String,
    /// What happened.
    pub(crate) message: String,
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
