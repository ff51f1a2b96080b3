//! What test programs without a harness share: the sandbox, which such a program is itself (`__sandbox ...`), attempts
//! made by hand, and cases that are run in turn and named.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dssflow_activities::clients::{AwsClients, ClientsConfig, StaticCredentials};
use dssflow_engine::activity::{
    ActivityContext, ActivityResult, ContextInner, Recorded, Recorder, Resource, Resources,
};
use dssflow_engine::id::{RunId, StepName, StoreId};
use dssflow_engine::runtime::clock::SystemClock;
use dssflow_engine::time::BoxFuture;
use dssflow_sandbox::{SandboxOptions, World};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// The program: a sandbox when it is asked to be one, else `cases` against a sandbox of its own.
pub(crate) fn main<F: Future<Output = Cases>>(cases: impl FnOnce(Sandbox) -> F) -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "__sandbox") {
        return dssflow_sandbox::main(args.collect());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts").block_on(async {
        let dir = tempfile::tempdir().expect("a directory");
        let sandbox = Sandbox::start(dir.path().join("sandbox")).await;
        let of_sandbox = dir.path().join("sandbox");
        let Cases { failed } = cases(sandbox).await;
        dssflow_sandbox::down(&of_sandbox).await.expect("the sandbox ends");
        assert!(failed.is_empty(), "failed: {failed:?}");
    });
    ExitCode::SUCCESS
}

/// A sandbox without latency, and clients that call it as the person who runs dssflow.
pub(crate) struct Sandbox {
    pub(crate) world: World,
    pub(crate) clients: AwsClients,
}

impl Sandbox {
    async fn start(dir: PathBuf) -> Self {
        let exe = std::env::current_exe().expect("this program has a path");
        let mut options = SandboxOptions::new(dir, exe);
        options.latency = 0.0;
        options.idle = Duration::from_mins(10);
        let world = dssflow_sandbox::up(&options, &|line: &str| println!("{line}"));
        let world = world.await.expect("the sandbox starts");
        let mut spec = ClientsConfig::new(world.region.clone());
        spec.endpoint_url = Some(world.aws_endpoint.clone());
        spec.imds_endpoint = Some(world.imds_endpoint.clone());
        spec.credentials =
            Some(StaticCredentials::new(world.access_key_id.clone(), world.secret_access_key.clone()));
        let clients = AwsClients::connect(&spec).await;
        Self { world, clients }
    }
}

/// The cases so far.
#[derive(Default)]
pub(crate) struct Cases {
    failed: Vec<String>,
}

impl Cases {
    /// Runs a case; one that panics has told why, and the others still run.
    pub(crate) async fn case(&mut self, name: &str, work: impl Future<Output = ()> + Send + 'static) {
        let started = Instant::now();
        let ended = tokio::spawn(work).await;
        let word = if ended.is_ok() { "ok" } else { "FAILED" };
        println!("{word} {name} ({} ms)", started.elapsed().as_millis());
        self.failed.extend(ended.err().map(|_| name.to_owned()));
    }
}

/// The ledger of one step, in memory.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Recorded>);

impl Ledger {
    pub(crate) fn recorded(&self) -> Recorded {
        self.0.lock().expect("no case panics while it records").clone()
    }
}

impl Recorder for Ledger {
    fn resource(&self, resource: Resource) -> BoxFuture<'_, ActivityResult<()>> {
        self.0.lock().expect("no case panics while it records").resources.push(resource);
        Box::pin(async { Ok(()) })
    }

    fn before(&self, values: BTreeMap<String, Value>) -> BoxFuture<'_, ActivityResult<()>> {
        let mut recorded = self.0.lock().expect("no case panics while it records");
        for (key, value) in values {
            recorded.before.entry(key).or_insert(value);
        }
        Box::pin(async { Ok(()) })
    }

    fn heartbeat(&self, _: Value) {}
}

/// Whose attempt it is.
pub(crate) struct Attempt<'a> {
    /// Makes the store's id; store 1 is ours.
    pub(crate) store: u8,
    pub(crate) run: &'a str,
    pub(crate) step: &'a str,
    pub(crate) attempt: u32,
    pub(crate) generation: u32,
    /// Steps that the run keeps.
    pub(crate) kept: &'a [&'a str],
}

impl Default for Attempt<'_> {
    fn default() -> Self {
        Self { store: 1, run: "run-1", step: "step", attempt: 1, generation: 1, kept: &[] }
    }
}

impl Attempt<'_> {
    /// A context of it, with its ledger.
    pub(crate) fn context(&self, resources: Resources) -> (ActivityContext, Arc<Ledger>) {
        let ledger = Arc::new(Ledger::default());
        let name = |text: &str| StepName::new(text).expect("a step name");
        let inner = ContextInner {
            store: StoreId::generate([self.store; 16]),
            site: "lab".into(),
            run: RunId::new(self.run).expect("a run id"),
            step: name(self.step),
            attempt: self.attempt,
            generation: self.generation,
            deadline: None,
            last_heartbeat: None,
            cancel: CancellationToken::new(),
            stop: Default::default(),
            fence: None,
            recorder: Arc::<Ledger>::clone(&ledger),
            resources,
            clock: Arc::new(SystemClock),
            kept: self.kept.iter().map(|step| name(step)).collect(),
        };
        (ActivityContext::new(inner), ledger)
    }
}
