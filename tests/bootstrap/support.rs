//! The built command in a home of its own, with a sandbox of its own; both end with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use dssflow_activities::clients::{AwsClients, ClientsConfig, StaticCredentials};
use serde_json::Value;

/// A store and a sandbox for one test.
pub(crate) struct Home {
    dir: tempfile::TempDir,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Fails the test with everything printed unless the exit code is `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        let all = format!("{}\n{}", self.stdout, self.stderr);
        assert!(all.contains(text), "{text:?} is not in:\n{all}");
        self
    }
}

/// The command, built with this test.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its path");
    let program = test.ancestors().nth(2).expect("target/debug/deps/test").join("dssflow");
    assert!(
        program.exists(),
        "{} is missing: build it first with `cargo build -p dssflow`",
        program.display()
    );
    program
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    /// A home whose sandbox is up, at no latency.
    pub(crate) fn with_sandbox() -> Self {
        let home = Self::new();
        home.run(&["sandbox", "up", "--latency", "0"]).expect(0);
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("DSSFLOW_STORE", self.store())
            .env("DSSFLOW_LOG", "warn")
            .env_remove("AWS_PROFILE")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, &[])
    }

    /// Runs a command to its end, with these variables.
    pub(crate) fn run_with(&self, args: &[&str], env: &[(&str, PathBuf)]) -> Ran {
        let mut command = self.command(args);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        let Output { status, stdout, stderr } = command.output().expect("the command starts");
        Ran {
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Starts a command and leaves it running.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command starts")
    }

    /// Starts a command and kills it after `after`, unless it ended by itself; true when the kill met it alive.
    pub(crate) fn kill_after(&self, args: &[&str], after: Duration) -> bool {
        let mut child = self.spawn(args);
        std::thread::sleep(after);
        let alive = child.try_wait().expect("a child of ours").is_none();
        // SIGKILL; a child that ended meanwhile is no error.
        let killed = child.kill().is_ok();
        child.wait().expect("a child of ours");
        alive && killed
    }

    pub(crate) fn snapshot(&self) -> Value {
        let ran = self.run(&["sandbox", "snapshot"]).expect(0);
        serde_json::from_str(&ran.stdout).expect("a snapshot is JSON")
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(args).expect(0);
        serde_json::from_str(&ran.stdout)
            .unwrap_or_else(|e| panic!("{args:?} printed no JSON: {e}\n{}", ran.stdout))
    }

    /// Where a step of the newest run stands.
    pub(crate) fn step(&self, name: &str) -> Value {
        let view = self.json(&["runs", "get", "-o", "json"]);
        let steps = view["steps"].as_array().expect("steps").clone();
        steps.into_iter().find(|s| s["step"] == name).unwrap_or_else(|| panic!("no step {name}"))
    }

    /// Scripts what goes wrong in the sandbox.
    pub(crate) fn faults(&self, faults: &Value) {
        let file = self.path().join("faults.json");
        std::fs::write(&file, faults.to_string()).expect("a file of ours");
        self.run(&["sandbox", "up", "--faults", file.to_str().expect("plain path")]).expect(0);
    }

    /// The fake DSS, for somebody who works in it by hand.
    pub(crate) fn dss(&self) -> Dss {
        let site = std::fs::read_to_string(self.store().join("sandbox/site.yaml")).expect("the shipped site");
        let value = |key: &str| -> Value {
            let site: Value = serde_saphyr::from_str(&site).expect("YAML");
            site.pointer(key).cloned().unwrap_or_default()
        };
        let file = value("/dss/api_key/sink/file");
        let key = std::fs::read_to_string(file.as_str().expect("a file")).expect("the key");
        Dss { url: format!("http://127.0.0.1:{}", value("/dss/port")), key: key.trim().to_owned() }
    }

    /// The sandbox.
    pub(crate) fn world(&self) -> dssflow_sandbox::World {
        let dir = self.store().join("sandbox");
        runtime().block_on(async { dssflow_sandbox::find(&dir).await.expect("asks").expect("alive") })
    }

    /// The same without queries to Athena, which are checks and leave a result.
    pub(crate) fn changing_calls(&self) -> u64 {
        let world = self.world();
        let report = runtime().block_on(async { dssflow_sandbox::calls(&world).await.expect("answers") });
        report.mutating - report.by_op.get("athena:StartQueryExecution").copied().unwrap_or_default()
    }

    /// Calls that changed something in the sandbox's AWS and DSS so far.
    pub(crate) fn mutating_calls(&self) -> u64 {
        let world = self.world();
        runtime().block_on(async { dssflow_sandbox::calls(&world).await.expect("answers").mutating })
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

impl Home {
    /// Calls the sandbox's AWS as the person who runs dssflow.
    pub(crate) fn aws<T, F: Future<Output = T>>(&self, call: impl FnOnce(AwsClients) -> F) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let world =
                dssflow_sandbox::find(&self.store().join("sandbox")).await.expect("asks").expect("alive");
            let mut spec = ClientsConfig::new(world.region.clone());
            spec.endpoint_url = Some(world.moto_endpoint.clone());
            let (id, secret) = (world.access_key_id.clone(), world.secret_access_key.clone());
            spec.credentials = Some(StaticCredentials::new(id, secret));
            let clients = Box::pin(AwsClients::connect(&spec)).await;
            Box::pin(call(clients)).await
        })
    }
}

/// A DSS and the key to it.
pub(crate) struct Dss {
    pub(crate) url: String,
    pub(crate) key: String,
}

impl Dss {
    pub(crate) fn get(&self, path: &str) -> Value {
        self.call(reqwest::Method::GET, path, None)
    }

    pub(crate) fn put(&self, path: &str, body: &Value) {
        self.call(reqwest::Method::PUT, path, Some(body));
    }

    /// Any call; answers that are no JSON are null.
    pub(crate) fn call(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> Value {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().expect("a client");
            let mut request =
                client.request(method, format!("{}/public/api{path}", self.url)).bearer_auth(&self.key);
            if let Some(body) = body {
                request = request.json(body);
            }
            let response = request.send().await.expect("an answer");
            assert!(response.status().is_success(), "{path}: {}", response.status());
            serde_json::from_str(&response.text().await.expect("a body")).unwrap_or_default()
        })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A test that failed has printed why already.
        drop(self.command(&["sandbox", "down", "--yes"]).output());
    }
}

/// `text` with a star in the place of what follows each `mark`, as far as it is made of such characters.
pub(crate) fn masked(text: &str, mark: &str, drawn: impl Fn(char) -> bool) -> String {
    let mut parts = text.split(mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(mark);
        out.push('*');
        out.push_str(part.trim_start_matches(&drawn));
    }
    out
}

/// The id of an installation has at least so many digits.
const MIN_ID: usize = 6;

/// A snapshot without what differs between two installations of DSS: its id, drawn by the installer, and the digests of
/// the images built for it.
pub(crate) fn without_installation(world: &Value) -> Value {
    let mut text = world.to_string();
    let ids = text.split("dku-exec-base-").skip(1);
    let ids = ids.map(|rest| rest.chars().take_while(char::is_ascii_hexdigit).collect::<String>());
    if let Some(id) = ids.filter(|id| id.len() >= MIN_ID).max() {
        text = text.replace(&id, "INSTALLID");
    }
    let text = masked(&text, "sha256:", |c| c.is_ascii_hexdigit());
    let mut world: Value = serde_json::from_str(&text).expect("still JSON");
    if let Some(images) = world.pointer_mut("/dss/baseImages").and_then(Value::as_array_mut) {
        images.sort_by_key(Value::to_string);
    }
    world
}

/// Every difference between two snapshots, one line each.
pub(crate) fn differences(before: &Value, after: &Value) -> Vec<String> {
    fn walk(path: &str, a: &Value, b: &Value, out: &mut Vec<String>) {
        match (a, b) {
            (Value::Object(a), Value::Object(b)) => {
                for (key, value) in a {
                    match b.get(key) {
                        Some(other) => walk(&format!("{path} > {key}"), value, other, out),
                        None => out.push(format!("{path} > {key}: removed {value}")),
                    }
                }
                for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                    out.push(format!("{path} > {key}: added {value}"));
                }
            }
            (a, b) if a != b => out.push(format!("{path}: {a} -> {b}")),
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk("world", before, after, &mut out);
    out
}

/// What a rollback on an adopted host leaves by rule, and prints: packages with their programs, the data directory,
/// moved aside, and AWS's own service-linked roles, which the whole account shares.
pub(crate) fn kept_by_rule(difference: &str) -> bool {
    const PROGRAMS: [&str; 5] = ["git", "java", "python3.11", "unzip", "nginx"];
    difference.starts_with("world > host > packages:")
        || only_service_linked_roles(difference)
        || difference.starts_with("world > host > files > /data")
        || PROGRAMS
            .iter()
            .any(|p| difference.starts_with(&format!("world > host > files > /usr/bin/{p}: added")))
}

/// Whether all that was added to the roles are service-linked ones.
fn only_service_linked_roles(difference: &str) -> bool {
    let Some(lists) = difference.strip_prefix("world > aws > iam > roles: ") else { return false };
    let roles = |text: &str| -> Vec<Value> { serde_json::from_str(text).expect("a list of roles") };
    let (before, after) = lists.split_once(" -> ").expect("a change");
    let (before, after) = (roles(before), roles(after));
    before.iter().all(|role| after.contains(role))
        && after.iter().all(|role| {
            before.contains(role) || role["name"].as_str().is_some_and(|n| n.starts_with("AWSServiceRoleFor"))
        })
}
