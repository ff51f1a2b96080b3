//! One sandbox with its site, its clients and its host: where steps of the real bootstrap act.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dssflow_activities::clients::{AwsClients, ClientsConfig, StaticCredentials};
use dssflow_activities::host::{Host, HostHandle, LocalHost};
use dssflow_engine::Engine;
use dssflow_engine::activity::{ActivityRegistry, ErasedActivity};
use dssflow_engine::graph::Graph;
use dssflow_engine::id::ActivityName;
use dssflow_engine::run::resolve::FunctionRegistry;
use dssflow_engine::store::Store;
use dssflow_engine::time::Clock;
use dssflow_sandbox::{CallRecord, Fault, FaultCount, SandboxOptions};
use serde_json::Value;

use crate::settings::Mode;
use crate::support::program;

/// A step that gives what an earlier step of the real graph gave.
pub(crate) const GIVEN: &str = "matrix.given";
/// The least patience there is: every wait of the engine is a thousandth.
const PATIENCE: f64 = 0.001;

/// Puts something around every activity.
pub(crate) type Wrap =
    Arc<dyn Fn(&ActivityName, Arc<dyn ErasedActivity>) -> Arc<dyn ErasedActivity> + Send + Sync>;

/// What is put into the place of the product's own in one life of a process; nothing by default.
#[derive(Clone, Default)]
pub(crate) struct Tamper {
    /// Around every activity.
    code: Option<Wrap>,
    /// In place of the host.
    host: Option<HostHandle>,
    /// In place of the machine's clock.
    clock: Option<Arc<dyn Clock>>,
}

impl Tamper {
    pub(crate) fn code(code: Wrap) -> Self {
        Self { code: Some(code), ..Self::default() }
    }

    /// The same with something more around the code.
    pub(crate) fn and_code(&self, outer: Wrap) -> Self {
        let code = match self.code.clone() {
            None => outer,
            Some(inner) => {
                let both: Wrap = Arc::new(move |name, code| outer(name, inner(name, code)));
                both
            }
        };
        Self { code: Some(code), ..self.clone() }
    }

    /// The same with another host.
    pub(crate) fn and_host(&self, host: Arc<dyn Host>) -> Self {
        Self { host: Some(HostHandle(host)), ..self.clone() }
    }

    /// The same with another clock.
    pub(crate) fn and_clock(&self, clock: Arc<dyn Clock>) -> Self {
        Self { clock: Some(clock), ..self.clone() }
    }
}

/// A sandbox in which nothing takes time, and what a run in it needs. It ends with this value.
pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) mode: Mode,
    pub(crate) sandbox: dssflow_sandbox::World,
    /// The graph of the whole bootstrap.
    pub(crate) graph: Graph,
    pub(crate) site: String,
    pub(crate) clients: AwsClients,
    pub(crate) host: HostHandle,
}

impl World {
    pub(crate) async fn up(mode: Mode) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut options = SandboxOptions::new(dir.path().join("sandbox"), program());
        options.latency = 0.0;
        let sandbox = dssflow_sandbox::up(&options, &|_| {}).await.expect("the sandbox starts");
        let file = match mode {
            Mode::Plugin => &sandbox.site_yaml,
            Mode::Sdk => &sandbox.site_yaml_sdk,
        };
        let text = std::fs::read_to_string(file).expect("the shipped site");
        let site = dssflow_workflows::parse(&text, "site.yaml").expect("the shipped site is right");
        let workflow = dssflow_workflows::bootstrap(&site).expect("the shipped site has a graph");
        let mut config = ClientsConfig::new(&site.region);
        config.endpoint_url.clone_from(&site.aws.endpoint_url);
        config.imds_endpoint.clone_from(&site.aws.imds_endpoint);
        config.credentials =
            Some(StaticCredentials::new(&sandbox.access_key_id, sandbox.secret_access_key.clone()));
        let clients = AwsClients::connect(&config).await;
        let host = HostHandle(Arc::new(LocalHost::new(site.host.wrapper.clone())));
        Self { dir, mode, sandbox, graph: workflow.graph, site: site.name, clients, host }
    }

    /// An engine for one life of a process.
    pub(crate) fn engine(&self, store: Arc<dyn Store>, tamper: &Tamper) -> Engine {
        let mut activities = ActivityRegistry::new();
        dssflow_activities::register_all(&mut activities).expect("names are unique");
        if let Some(wrap) = &tamper.code {
            activities.wrap(|name, code| wrap(name, code));
        }
        activities.add_fn(GIVEN, |_ctx, value: Value| async move { Ok(value) }).expect("a name of ours");
        let mut functions = FunctionRegistry::default();
        dssflow_workflows::register_functions(&mut functions);
        let builder = Engine::builder(store);
        let builder = match &tamper.clock {
            None => builder,
            Some(clock) => builder.clock(Arc::clone(clock)),
        };
        builder
            .activities(activities)
            .functions(functions)
            .resource(self.clients.clone())
            .resource(tamper.host.as_ref().unwrap_or(&self.host).clone())
            .resource(self.clients.secretsmanager().clone())
            .resource(self.clients.ssm().clone())
            .build()
            .with_patience(PATIENCE)
    }

    pub(crate) async fn snapshot(&self) -> Value {
        let taken = dssflow_sandbox::snapshot(&self.sandbox).await.expect("the sandbox answers");
        crate::oracle::without_chance(&taken)
    }

    pub(crate) async fn faults(&self, faults: &[Fault]) {
        dssflow_sandbox::set_faults(&self.sandbox, faults).await.expect("a script that can take place");
    }

    pub(crate) async fn fault_report(&self) -> Vec<FaultCount> {
        dssflow_sandbox::fault_report(&self.sandbox).await.expect("the sandbox answers")
    }

    /// Resolves when the script has struck; never when the limit is over first.
    pub(crate) async fn struck(&self, limit: Duration) {
        match dssflow_sandbox::wait_for_faults(&self.sandbox, 1, limit).await {
            Ok(true) => {}
            Ok(false) | Err(_) => std::future::pending().await,
        }
    }

    /// The number of calls so far.
    pub(crate) async fn calls_so_far(&self) -> u64 {
        dssflow_sandbox::calls_since(&self.sandbox, u64::MAX).await.expect("the sandbox answers").total
    }

    pub(crate) async fn calls_since(&self, seq: u64) -> Vec<CallRecord> {
        dssflow_sandbox::calls_since(&self.sandbox, seq).await.expect("the sandbox answers").recent
    }

    /// A day passes for AWS: it has forgotten all tokens.
    pub(crate) async fn next_day(&self) {
        dssflow_sandbox::forget_tokens(&self.sandbox).await.expect("the sandbox answers");
    }

    fn host_dirs(&self) -> [(PathBuf, &'static str); 2] {
        let shims = self.sandbox.dir.join("host-shims");
        [(self.sandbox.host_root.clone(), "host"), (shims, "host-shims")]
    }

    /// Puts back what a rollback leaves by rule, so that the next cell finds the world as this one did: the host with its
    /// packages, and AWS's own roles. A day passes as well.
    pub(crate) async fn tidy(&self, before: &Value) {
        self.next_day().await;
        let now = self.snapshot().await;
        if now["host"] != before["host"] {
            self.restore_host();
        }
        let default =
            |world: &Value| world.pointer("/dss/adminHasDefaultPassword") == Some(&Value::Bool(true));
        if default(before) && !default(&now) {
            let (hands, path) = (dssflow_sandbox::Hands::of(&self.sandbox), "/admin/users/admin");
            let mut admin = hands.dss("GET", path, None).await.expect("there is an admin");
            admin["password"] = Value::from("admin");
            hands.dss("PUT", path, Some(&admin)).await.expect("the password is set");
        }
        let roles = |world: &Value| -> Vec<String> {
            let roles = world["aws"]["iam"]["roles"].as_array().cloned().unwrap_or_default();
            roles.iter().filter_map(|role| role["name"].as_str().map(str::to_owned)).collect()
        };
        let known = roles(before);
        for role in roles(&now) {
            if role.starts_with("AWSServiceRoleFor") && !known.contains(&role) {
                let hands = dssflow_sandbox::Hands::of(&self.sandbox);
                hands.query("iam", "DeleteRole", &[("RoleName", &role)]).await.expect("nobody uses it");
            }
        }
    }

    /// Copies the host aside.
    pub(crate) fn save_host(&self) {
        for (dir, name) in self.host_dirs() {
            copy(&dir, &self.dir.path().join("saved").join(name));
        }
    }

    /// Makes the host what it was when it was saved.
    pub(crate) fn restore_host(&self) {
        for (dir, name) in self.host_dirs() {
            copy(&self.dir.path().join("saved").join(name), &dir);
        }
    }
}

/// Makes `to` a copy of the directory `from`; `to` itself stays the same directory.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory of ours");
    for entry in std::fs::read_dir(to).expect("a directory of ours") {
        let path = entry.expect("readable").path();
        let removed = if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.expect("a file of ours");
    }
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().expect("cp starts");
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
}

impl Drop for World {
    fn drop(&mut self) {
        let dir = self.sandbox.dir.clone();
        // A runtime of its own, because this may be dropped inside one. A sandbox that is gone is no error.
        let down = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            drop(runtime.block_on(dssflow_sandbox::down(&dir)));
        });
        drop(down.join());
    }
}
