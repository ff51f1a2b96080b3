//! What the fake DSS remembers, and how that survives a restart of DSS or of the sandbox.
//!
//! One JSON file, mode 0600, replaced by rename after every change. As in the real product, secrets are not in
//! it in clear: API keys and passwords are hashed, connection secrets are wrapped with a key kept in a file of
//! its own. That wrapping is there so that a scan of the disk finds no secret, not to withstand an attack.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::general;

/// Start of every wrapped secret, as the real product's encrypted values start.
pub(super) const WRAPPED: &str = "e:AES:";

/// A global API key; the key itself is shown once and only its hash kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredKey {
    pub(super) id: String,
    pub(super) label: String,
    pub(super) description: String,
    pub(super) key_sha256: String,
    pub(super) admin: bool,
}

/// A local user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) settings: Value,
    pub(super) password_sha256: String,
}

/// An installed plugin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plugin {
    pub(super) version: String,
    pub(super) code_env: Option<String>,
    pub(super) presets: Vec<Value>,
}

/// State of a cluster definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum ClusterState {
    None,
    Starting,
    Running,
    Stopping,
}

/// A cluster definition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Cluster {
    pub(super) settings: Value,
    pub(super) state: ClusterState,
    pub(super) error: Option<String>,
    #[serde(default)]
    pub(super) pods: BTreeMap<String, Value>,
}

/// A project with the little of it that automation touches.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Project {
    pub(super) summary: Value,
    pub(super) settings: Value,
    pub(super) metadata: Value,
    #[serde(default)]
    pub(super) variables: Value,
    pub(super) datasets: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) recipes: BTreeMap<String, Value>,
    pub(super) scenarios: BTreeMap<String, Value>,
    pub(super) jobs: BTreeMap<String, Value>,
}

/// An image built on the host by `dssadmin build-base-image`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BaseImage {
    /// `container-exec` or `spark`.
    pub kind: String,
    /// Repository name without registry, for example `dku-exec-base-abc123`.
    pub repository: String,
    /// Tag, for example `dss-14.2.0`.
    pub tag: String,
    /// `sha256:...`.
    pub digest: String,
}

/// Everything the fake remembers across restarts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) general: Value,
    pub(super) connections: BTreeMap<String, Value>,
    pub(super) plugins: BTreeMap<String, Plugin>,
    pub(super) clusters: BTreeMap<String, Cluster>,
    pub(super) projects: BTreeMap<String, Project>,
    pub(super) groups: BTreeMap<String, Value>,
    pub(super) users: BTreeMap<String, User>,
    pub(super) keys: Vec<StoredKey>,
    pub(super) license: Option<Value>,
    pub(super) variables: Value,
    pub(super) code_envs: BTreeMap<String, Value>,
    pub(super) base_images: Vec<BaseImage>,
    /// Source of generated ids; never goes back.
    pub(super) next_id: u64,
}

impl State {
    /// A DSS as the installer leaves it: one admin with the well-known password, no licence, no connection but
    /// the local file system.
    pub(super) fn fresh(major: u32) -> Self {
        let admin = User {
            settings: json!({
                "login": "admin", "displayName": "Administrator", "sourceType": "LOCAL", "enabled": true,
                "groups": ["administrators"], "userProfile": "DESIGNER", "email": null,
                "adminProperties": {}, "userProperties": {}, "credentials": {}
            }),
            password_sha256: password_hash("admin", "admin"),
        };
        let group = |name: &str, admin: bool| {
            let definition = json!({"name": name, "description": "", "sourceType": "LOCAL", "admin": admin});
            (name.to_owned(), definition)
        };
        let local = json!({
            "name": "filesystem_managed", "type": "Filesystem", "description": "", "params": {"root": "managed_datasets"},
            "usableBy": "ALL", "allowedGroups": [], "allowWrite": true, "allowManagedDatasets": true,
            "allowManagedFolders": true, "credentialsMode": "GLOBAL", "maxActivities": 0, "useGlobalProxy": false,
            "detailsReadability": {"readableBy": "NONE", "allowedGroups": []}
        });
        Self {
            general: general::fresh(major),
            connections: BTreeMap::from([("filesystem_managed".to_owned(), local)]),
            plugins: BTreeMap::new(),
            clusters: BTreeMap::new(),
            projects: BTreeMap::new(),
            groups: BTreeMap::from([
                group("administrators", true),
                group("data_team", false),
                group("readers", false),
            ]),
            users: BTreeMap::from([("admin".to_owned(), admin)]),
            keys: Vec::new(),
            license: None,
            variables: json!({}),
            code_envs: BTreeMap::new(),
            base_images: Vec::new(),
            next_id: 1,
        }
    }

    /// A new id with `prefix`, unique in the life of this instance.
    pub(super) fn new_id(&mut self, prefix: &str) -> String {
        let id = format!("{prefix}{}", self.next_id);
        self.next_id += 1;
        id
    }
}

/// Where the state lives on disk, and the key that wraps its secrets.
#[derive(Debug)]
pub(super) struct Vault {
    file: Option<PathBuf>,
    key: [u8; 32],
}

impl Vault {
    /// Opens the vault beside `file`; without a file everything lives in memory.
    pub(super) fn open(file: Option<PathBuf>) -> Self {
        let key_file = file.as_deref().map(|path| path.with_extension("key"));
        let stored =
            key_file.as_deref().and_then(|path| fs::read(path).ok()).and_then(|bytes| bytes.try_into().ok());
        let key = stored.unwrap_or_else(|| {
            let key: [u8; 32] = rand::random();
            if let Some(path) = &key_file
                && let Err(error) = write_private(path, &key)
            {
                tracing::error!(%error, path = %path.display(), "could not write the fake DSS key");
            }
            key
        });
        Self { file, key }
    }

    /// The state on disk, or a fresh one.
    pub(super) fn load(&self, major: u32) -> State {
        let stored = self.file.as_deref().and_then(|path| fs::read(path).ok());
        let mut state = match stored.map(|bytes| serde_json::from_slice::<State>(&bytes)) {
            Some(Ok(state)) => state,
            Some(Err(error)) => {
                tracing::error!(%error, "the fake DSS state cannot be read, starting afresh");
                State::fresh(major)
            }
            None => State::fresh(major),
        };
        settle_clusters(&mut state);
        state
    }

    /// Replaces the file. A failure is logged: the fake goes on in memory, as a demo should.
    pub(super) fn save(&self, state: &State) {
        let Some(path) = &self.file else { return };
        let bytes = serde_json::to_vec(state).expect("the state has only string keys");
        if let Err(error) = write_private(path, &bytes) {
            tracing::error!(%error, path = %path.display(), "could not save the fake DSS state");
        }
    }

    /// Wraps a secret for storage and for replies.
    pub(super) fn wrap(&self, secret: &str) -> String {
        let nonce: [u8; 8] = rand::random();
        format!("{WRAPPED}{}{}", hex::encode(nonce), hex::encode(self.mask(nonce, secret.as_bytes())))
    }

    /// The secret inside a wrapped value; `None` when this instance did not wrap it.
    pub(super) fn unwrap(&self, wrapped: &str) -> Option<String> {
        let bytes = hex::decode(wrapped.strip_prefix(WRAPPED)?).ok()?;
        let (nonce, body) = bytes.split_first_chunk::<8>()?;
        String::from_utf8(self.mask(*nonce, body)).ok()
    }

    fn mask(&self, nonce: [u8; 8], bytes: &[u8]) -> Vec<u8> {
        let pad = (0u64..).flat_map(|block| {
            Sha256::new()
                .chain_update(self.key)
                .chain_update(nonce)
                .chain_update(block.to_be_bytes())
                .finalize()
        });
        bytes.iter().zip(pad).map(|(byte, mask)| byte ^ mask).collect()
    }
}

/// A start, a stop or a job does not outlive the process that served it.
///
/// What the real product shows after dying during a start is unknown; the fake goes back to `NONE`, so that a
/// client which trusts DSS more than EKS is found out.
pub(super) fn settle_clusters(state: &mut State) {
    for cluster in state.clusters.values_mut() {
        match cluster.state {
            ClusterState::Starting | ClusterState::Stopping => cluster.state = ClusterState::None,
            ClusterState::None | ClusterState::Running => {}
        }
    }
    // Nor does a job.
    for job in state.projects.values_mut().flat_map(|project| project.jobs.values_mut()) {
        if job["state"] == "RUNNING" {
            job["state"] = json!("ABORTED");
            job["polls"] = json!(0);
        }
    }
}

/// Hex SHA-256 of a text.
pub(super) fn sha256(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// How a password is kept.
pub(super) fn password_hash(login: &str, password: &str) -> String {
    sha256(&format!("{login}\0{password}"))
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let temporary = path.with_extension("tmp");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_secret_comes_back_only_where_it_was_wrapped() {
        let vault = Vault::open(None);
        let wrapped = vault.wrap("hunter2 hunter2 hunter2 hunter2 hunter2");
        assert!(wrapped.starts_with(WRAPPED) && !wrapped.contains("hunter2"));
        assert_eq!(vault.unwrap(&wrapped).as_deref(), Some("hunter2 hunter2 hunter2 hunter2 hunter2"));
        assert_eq!(vault.unwrap("hunter2"), None);
    }
}
