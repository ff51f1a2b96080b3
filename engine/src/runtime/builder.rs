//! Collects what an engine needs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::broadcast;

use crate::activity::{ActivityRegistry, RegistryError, Resources};
use crate::id::{ActivityName, WorkerId, WorkflowName};
use crate::run::resolve::FunctionRegistry;
use crate::runtime::admission::{Admission, Limits};
use crate::runtime::engine::{Engine, EngineOptions, Inner};
use crate::runtime::metrics::Metrics;
use crate::runtime::schedules::{Launcher, RegisteredWorkflows};
use crate::runtime::{Rate, SystemClock};
use crate::store::Store;
use crate::time::Clock;
use crate::workflow::Definition;

/// Brings an old output of an activity to the type that it gives now.
pub(crate) type Migration = Arc<dyn Fn(&Value) -> Result<Value, String> + Send + Sync>;

/// Collects what an engine needs. Nothing is global: two engines in one process share nothing but what they are given.
#[must_use]
pub struct EngineBuilder {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    activities: ActivityRegistry,
    functions: FunctionRegistry,
    pub(crate) workflows: BTreeMap<WorkflowName, Definition>,
    migrations: BTreeMap<ActivityName, Migration>,
    resources: Resources,
    options: EngineOptions,
    limits: Limits,
    metrics: Option<Arc<dyn Metrics>>,
    launcher: Arc<dyn Launcher>,
}

impl std::fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EngineBuilder({:?}, {:?})", self.activities, self.workflows.keys())
    }
}

impl EngineBuilder {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            clock: Arc::new(SystemClock),
            activities: ActivityRegistry::new(),
            functions: FunctionRegistry::default(),
            workflows: BTreeMap::new(),
            migrations: BTreeMap::new(),
            resources: Resources::default(),
            options: EngineOptions::default(),
            limits: Limits::default(),
            metrics: None,
            launcher: Arc::new(RegisteredWorkflows),
        }
    }

    /// Takes another clock than the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Gives the activities, in place of those given before.
    pub fn activities(mut self, activities: ActivityRegistry) -> Self {
        self.activities = activities;
        self
    }

    /// Gives the functions that bindings name, in place of those given before.
    pub fn functions(mut self, functions: FunctionRegistry) -> Self {
        self.functions = functions;
        self
    }

    /// Adds a workflow that the engine knows by name: for sub-workflows, and to bring runs to its present version.
    /// Takes the place of an earlier one of that name.
    pub fn definition(mut self, definition: Definition) -> Self {
        self.workflows.insert(definition.name.clone(), definition);
        self
    }

    /// Adds activities and functions to those that are there.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn add_code(
        mut self,
        activities: ActivityRegistry,
        functions: FunctionRegistry,
    ) -> Result<Self, RegistryError> {
        self.activities.merge(activities)?;
        self.functions.merge(functions);
        Ok(self)
    }

    /// Says how an old output of an activity becomes one of the type that it gives now. The activity of a typed workflow's
    /// step is named `workflow/step`; see [the guide](crate::guide::versioning). Asked for outputs that do not
    /// fit any more, when a run is driven on; the result is recorded in the run's history.
    pub fn migrate(
        mut self,
        activity: ActivityName,
        migration: impl Fn(&Value) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        self.migrations.insert(activity, Arc::new(migration));
        self
    }

    /// Injects a thing for activities, in place of an earlier one of its type.
    pub fn resource<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.resources.insert(value);
        self
    }

    /// Sets options.
    pub fn options(mut self, options: EngineOptions) -> Self {
        self.options = options;
        self
    }

    /// So many attempts at once, over all runs. Default: no limit but each run's own.
    pub fn max_attempts(mut self, limit: u32) -> Self {
        self.limits.max_attempts = Some(limit);
        self
    }

    /// The permits of a semaphore. One that is used and not told has one permit.
    pub fn semaphore(mut self, name: impl Into<String>, permits: u32) -> Self {
        self.limits.semaphores.insert(name.into(), permits);
        self
    }

    /// How often attempts of the steps that name this rate may start. A rate that is used and not told is no limit.
    pub fn rate(mut self, name: impl Into<String>, rate: Rate) -> Self {
        self.limits.rates.insert(name.into(), rate);
        self
    }

    /// Takes measurements.
    pub fn metrics(mut self, metrics: impl Metrics) -> Self {
        self.metrics = Some(Arc::new(metrics));
        self
    }

    /// Says what the firings of schedules start. Default: runs of registered workflows.
    pub fn launcher(mut self, launcher: impl Launcher) -> Self {
        self.launcher = Arc::new(launcher);
        self
    }

    /// Makes the engine. It starts nothing by itself; see [`Engine::recover`].
    pub fn build(self) -> Engine {
        let (events, _) = broadcast::channel(1024);
        let (touched, _) = broadcast::channel(256);
        let inner = Arc::new(Inner {
            multi_worker: self.store.caps().multi_worker,
            store: self.store,
            clock: self.clock,
            activities: self.activities,
            functions: self.functions,
            workflows: self.workflows,
            migrations: self.migrations,
            options: self.options,
            admission: Admission::new(self.limits),
            worker: WorkerId::generate(rand::random()),
            lease_end: Default::default(),
            lease_kept: Default::default(),
            metrics: self.metrics,
            events,
            launcher: self.launcher,
            touched,
            live: Mutex::new(BTreeMap::new()),
            closed: Default::default(),
        });
        Engine::owner(inner, self.resources)
    }
}
