//! The fake DSS: the public API of one instance, as far as the bootstrap touches it.
//!
//! It follows the recorded wire facts, including the unpleasant ones: settings that are dropped without a word,
//! secrets that do not come back, a cluster start that answers a quarter of an hour later, futures that are
//! forgotten by a restart. What it "runs" (eksctl, docker, Athena) goes through the traits of [`backend`], so
//! that its effects are seen in the same world as everybody else's. It deliberately has no web interface, runs
//! no recipe and computes nothing. Spellings nobody could verify are listed in [`unverified`].
//!
//! Errors have DSS's form. Where the status of a missing object is not known, groups, users, projects, plugins,
//! clusters and futures answer 404 and connections 500: clients must list and look up.

pub mod backend;
pub mod behaviour;
pub mod memory;
pub mod unverified;

mod admin;
mod clusters;
mod connections;
mod datasets;
mod general;
mod people;
mod plugins;
mod pods;
mod projects;
mod recipes;
mod reply;
mod server;
mod snapshot;
mod spelling;
mod state;
mod tasks;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

pub use people::{ApiKey, ApiKeys};
pub use state::BaseImage;

use self::backend::{ClusterBackend, DataBackend, ImageBackend, QueryBackend};
use self::behaviour::Behaviour;
use self::reply::Refusal;
use self::state::{State, Vault};
use self::tasks::Tasks;
use crate::faults::FaultEngine;

/// How to make a [`FakeDss`].
pub struct FakeDssOptions {
    /// Where the instance is kept, so that it survives a restart; memory only without it. Its secrets are
    /// wrapped by a key in a second file beside it, with the extension `key`.
    pub state_file: Option<PathBuf>,
    /// 14 or 15: the shape of the container settings.
    pub major: u32,
    /// Full version, for example `14.2.0`.
    pub version: String,
    /// Scripted faults.
    pub faults: Arc<FaultEngine>,
    /// Where clusters are made.
    pub clusters: Arc<dyn ClusterBackend>,
    /// Where images are pushed.
    pub images: Arc<dyn ImageBackend>,
    /// Where queries run.
    pub queries: Arc<dyn QueryBackend>,
    /// Where jobs write.
    pub data: Arc<dyn DataBackend>,
    /// Scale of the simulated durations: 1.0 for a demo, 0.0 for tests.
    pub latency: f64,
}

struct Inner {
    options: FakeDssOptions,
    vault: Vault,
    state: Mutex<State>,
    tasks: Tasks,
    queries: Mutex<admin::OpenQueries>,
    life: AtomicU64,
    identity: RwLock<(u32, String)>,
    behaviour: RwLock<Behaviour>,
}

/// One fake DSS instance; clones share it.
#[derive(Clone)]
pub struct FakeDss {
    inner: Arc<Inner>,
}

impl fmt::Debug for FakeDss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeDss").field("major", &self.major()).finish_non_exhaustive()
    }
}

impl FakeDss {
    /// Makes the instance, or brings back the one in `state_file`.
    pub fn new(options: FakeDssOptions) -> Self {
        let vault = Vault::open(options.state_file.clone());
        let state = vault.load(options.major);
        let identity = RwLock::new((options.major, options.version.clone()));
        let inner = Inner {
            options,
            vault,
            state: Mutex::new(state),
            tasks: Tasks::default(),
            queries: Mutex::new(admin::OpenQueries::new()),
            life: AtomicU64::new(0),
            identity,
            behaviour: RwLock::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The API keys, as the host's `dsscli` handles them.
    pub fn api_keys(&self) -> ApiKeys {
        ApiKeys(self.clone())
    }

    /// What a restart of the service does: futures and open queries are forgotten, a start or stop under way no
    /// longer reports to this instance. What it runs outside goes on.
    pub fn restart(&self) {
        self.inner.life.fetch_add(1, Ordering::SeqCst);
        self.tasks().forget();
        self.open_queries().clear();
        self.write(state::settle_clusters);
    }

    /// Back to what the installer leaves behind; for a data directory that was moved aside. Recorded base
    /// images belong to the host and stay.
    pub fn reset(&self) {
        let major = self.major();
        self.write(|state| {
            let (images, next_id) = (std::mem::take(&mut state.base_images), state.next_id);
            *state = State { base_images: images, next_id, ..State::fresh(major) };
        });
        self.restart();
    }

    /// Gives the instance the version of the kit that was installed. A new major brings fresh settings.
    pub fn set_version(&self, major: u32, version: &str) {
        let before = self.major();
        *self.inner.identity.write().unwrap_or_else(PoisonError::into_inner) = (major, version.to_owned());
        if before != major {
            self.write(|state| state.general = general::fresh(major));
        }
    }

    /// Records an image built on the host; the same repository and tag replace the earlier one.
    pub fn record_base_image(&self, image: BaseImage) {
        self.write(|state| {
            state
                .base_images
                .retain(|known| (&known.repository, &known.tag) != (&image.repository, &image.tag));
            state.base_images.push(image);
        });
    }

    /// Forgets an image removed on the host; false when it was not known.
    pub fn forget_base_image(&self, repository: &str, tag: &str) -> bool {
        self.write(|state| {
            let before = state.base_images.len();
            state.base_images.retain(|known| known.repository != repository || known.tag != tag);
            state.base_images.len() != before
        })
    }

    /// The images built on the host.
    pub fn base_images(&self) -> Vec<BaseImage> {
        self.read(|state| state.base_images.clone())
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let value = change(&mut state);
        self.inner.vault.save(&state);
        value
    }

    /// As [`FakeDss::write`]; a refusal leaves the state as it was.
    fn try_write<T>(&self, change: impl FnOnce(&mut State) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut state = self.lock();
        let mut draft = state.clone();
        let value = change(&mut draft)?;
        *state = draft;
        self.inner.vault.save(&state);
        Ok(value)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_queries(&self) -> MutexGuard<'_, admin::OpenQueries> {
        self.inner.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vault(&self) -> &Vault {
        &self.inner.vault
    }

    fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    fn backend(&self) -> &dyn ClusterBackend {
        &*self.inner.options.clusters
    }

    fn images(&self) -> &dyn ImageBackend {
        &*self.inner.options.images
    }

    fn queries(&self) -> &dyn QueryBackend {
        &*self.inner.options.queries
    }

    fn data(&self) -> &dyn DataBackend {
        &*self.inner.options.data
    }

    fn faults(&self) -> &FaultEngine {
        &self.inner.options.faults
    }

    fn major(&self) -> u32 {
        self.inner.identity.read().unwrap_or_else(PoisonError::into_inner).0
    }

    fn version(&self) -> String {
        self.inner.identity.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Which life of the service this is; rises with every restart.
    fn life(&self) -> u64 {
        self.inner.life.load(Ordering::SeqCst)
    }

    /// Sleeps `seconds` of demo time.
    async fn pause(&self, seconds: f64) {
        let scaled = seconds * self.inner.options.latency;
        if scaled > 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(scaled)).await;
        }
    }
}
