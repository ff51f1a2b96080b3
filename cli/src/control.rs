//! The socket through which other commands look at and act on the runs of the process that owns the store.
//!
//! HTTP on a unix socket that only its owner can reach: JSON for answers, NDJSON for events. It offers what
//! `engine::Engine` offers and decides nothing itself.

pub(crate) mod client;
pub(crate) mod server;

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dssflow_engine::id::RunId;
use dssflow_engine::store::RunSummary;
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

/// Body of the `POST` routes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Demand {
    /// Who asks.
    pub(crate) by: String,
    /// Why.
    pub(crate) reason: String,
    /// For a rollback: steps to leave alone.
    pub(crate) keep: Vec<String>,
    /// For a cancel: whether what was made is taken back.
    pub(crate) rollback: bool,
}

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
    fn a_long_path_moves_the_socket() {
        assert_eq!(socket_path(Path::new("/s")), Some(PathBuf::from("/s/control.sock")));
        let long = PathBuf::from(format!("/{}", "x".repeat(120)));
        if let Some(path) = socket_path(&long) {
            assert!(!path.starts_with(&long) && path.as_os_str().len() <= MAX_SOCKET_PATH);
        }
    }
}
