//! The DSS activities against the fake DSS, in one process: make everything, find everything, take it back.
//!
//! Beside DSS stands as much of AWS as the start of a cluster looks at: whether EKS has it, and that there are no
//! stacks. What DSS, eksctl and AWS do together is shown in the whole-system tests.

#![expect(clippy::unwrap_used, reason = "helpers of a test may panic as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path as Segment, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use dssflow_activities::clients::{AwsClients, ClientsConfig, StaticCredentials};
use dssflow_activities::dss;
use dssflow_engine::activity::{
    ActivityContext, ActivityRegistry, ActivityResult, ContextInner, ErasedActivity, ErrorClass, Owner,
    Probe, Recorded, Recorder, Resource, Resources, Undo,
};
use dssflow_engine::id::{ActivityName, RunId, StepName, StoreId};
use dssflow_engine::time::{BoxFuture, Clock, Timestamp};
use dssflow_sandbox::dss::backend::{ClusterSpec, NodePool};
use dssflow_sandbox::dss::memory::MemoryCloud;
use dssflow_sandbox::dss::{BaseImage, FakeDss};
use dssflow_sandbox::faults::{Action, Fault, FaultEngine, Target};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What one step recorded.
#[derive(Default)]
struct Ledger {
    recorded: Mutex<Recorded>,
    heartbeat: Mutex<Option<Value>>,
}

impl Recorder for Ledger {
    fn resource(&self, resource: Resource) -> BoxFuture<'_, ActivityResult<()>> {
        self.recorded.lock().unwrap().resources.push(resource);
        Box::pin(async { Ok(()) })
    }

    fn before(&self, values: BTreeMap<String, Value>) -> BoxFuture<'_, ActivityResult<()>> {
        let mut recorded = self.recorded.lock().unwrap();
        for (key, value) in values {
            recorded.before.entry(key).or_insert(value);
        }
        Box::pin(async { Ok(()) })
    }

    fn heartbeat(&self, details: Value) {
        *self.heartbeat.lock().unwrap() = Some(details);
    }
}

/// Time that jumps: a sleep ends as soon as everything else stands still.
#[derive(Default)]
struct Jumping(Arc<Mutex<u64>>);

impl Clock for Jumping {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(*self.0.lock().unwrap())
    }

    fn sleep_until(&self, until: Timestamp) -> BoxFuture<'static, ()> {
        let clock = Arc::clone(&self.0);
        Box::pin(async move {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            let mut now = clock.lock().unwrap();
            *now = (*now).max(until.as_millis());
        })
    }
}

/// EKS as far as DSS's clusters go, and a CloudFormation without stacks.
fn aws(cloud: MemoryCloud) -> Router {
    async fn describe(State(cloud): State<MemoryCloud>, Segment(name): Segment<String>) -> impl IntoResponse {
        let json = [(header::CONTENT_TYPE, "application/json")];
        let Some(spec) = cloud.seen().clusters.get(&name).cloned() else {
            let error = json!({"__type": "ResourceNotFoundException", "message": "No cluster found"});
            return (StatusCode::NOT_FOUND, json, error.to_string());
        };
        let arn = format!("arn:aws:eks:eu-west-1:123456789012:cluster/{name}");
        let cluster = json!({"name": name, "arn": arn, "status": "ACTIVE", "tags": spec.tags});
        (StatusCode::OK, json, json!({"cluster": cluster}).to_string())
    }
    async fn stacks() -> impl IntoResponse {
        let empty = r#"<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">
            <DescribeStacksResult><Stacks/></DescribeStacksResult></DescribeStacksResponse>"#;
        ([(header::CONTENT_TYPE, "text/xml")], empty)
    }
    Router::new().route("/clusters/{name}", get(describe)).route("/", post(stacks)).with_state(cloud)
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(tokio::spawn(async move { axum::serve(listener, router).await }));
    url
}

struct Lab {
    dir: PathBuf,
    aws: AwsClients,
    cloud: MemoryCloud,
    dss: FakeDss,
    faults: Arc<FaultEngine>,
    registry: ActivityRegistry,
    store: StoreId,
    run: &'static str,
    target: Value,
    steps: Vec<(String, Value, Arc<Ledger>)>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.dir);
    }
}

fn secret(dir: &Path, name: &str, value: &str) -> Value {
    let path = dir.join(name);
    fs::write(&path, value).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    json!({"file": path})
}

impl Lab {
    async fn open(major: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("dssflow-dss-{}-{count}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let faults = Arc::new(FaultEngine::new());
        let cloud = MemoryCloud::default();
        let dss = cloud.dss(major, Arc::clone(&faults));
        let key = dss.api_keys().create("dssflow", "").key.unwrap();
        dss.record_base_image(BaseImage {
            kind: "container-exec".into(),
            repository: "dku-exec-base-x".into(),
            tag: "dss-1".into(),
            digest: "sha256:00".into(),
        });
        let url = serve(dss.router()).await;
        let mut config = ClientsConfig::new("eu-west-1");
        config.endpoint_url = Some(serve(aws(cloud.clone())).await);
        config.credentials = Some(StaticCredentials::new("AKIA", "unused"));
        let aws = AwsClients::connect(&config).await;
        let target = json!({"url": url, "api_key": secret(&dir, "key", &key)});
        let mut registry = ActivityRegistry::new();
        dss::register(&mut registry).unwrap();
        Self {
            dir,
            aws,
            cloud,
            dss,
            faults,
            registry,
            store: StoreId::generate([7; 16]),
            run: "run-1",
            target,
            steps: Vec::new(),
        }
    }

    fn activity(&self, name: &str) -> Arc<dyn ErasedActivity> {
        Arc::clone(self.registry.get(&ActivityName::new(name).unwrap()).unwrap_or_else(|| panic!("{name}")))
    }

    fn context(&self, name: &str, ledger: &Arc<Ledger>) -> ActivityContext {
        let mut resources = Resources::default();
        resources.insert(self.aws.clone());
        ActivityContext::new(ContextInner {
            store: self.store.clone(),
            site: "lab".into(),
            run: RunId::new(self.run).unwrap(),
            step: StepName::new(name.replace('.', "-")).unwrap(),
            attempt: 1,
            generation: 1,
            deadline: None,
            last_heartbeat: ledger.heartbeat.lock().unwrap().clone(),
            cancel: CancellationToken::new(),
            stop: Default::default(),
            fence: None,
            recorder: Arc::clone(ledger) as Arc<dyn Recorder>,
            resources,
            clock: Arc::new(Jumping::default()),
            kept: Vec::new(),
        })
    }

    fn input(&self, mut input: Value) -> Value {
        input["target"] = self.target.clone();
        input
    }

    /// One step as the engine runs it: probe, execute when absent, verify; then the probe must find it.
    async fn step(&mut self, name: &str, input: Value) -> ActivityResult<Value> {
        let input = self.input(input);
        let ledger = Arc::new(Ledger::default());
        self.steps.push((name.to_owned(), input.clone(), Arc::clone(&ledger)));
        self.attempt(name, &input, &ledger).await
    }

    async fn attempt(&self, name: &str, input: &Value, ledger: &Arc<Ledger>) -> ActivityResult<Value> {
        let activity = self.activity(name);
        let ctx = self.context(name, ledger);
        if activity.has_probe()
            && let Probe::Present { output, .. } = activity.probe(&ctx, input).await?
        {
            activity.verify(&ctx, input, &output).await?;
            return Ok(output);
        }
        let output = activity.execute(&ctx, input).await?;
        activity.verify(&ctx, input, &output).await?;
        if activity.has_probe() {
            let found = activity.probe(&ctx, input).await?;
            assert!(
                matches!(found, Probe::Present { .. }),
                "{name} is not found after it was made: {found:?}"
            );
        }
        Ok(output)
    }

    /// Undoes every step in reverse; gives what each said.
    async fn undo(&self) -> Vec<(String, ActivityResult<Undo>)> {
        let mut said = Vec::new();
        for (name, input, ledger) in self.steps.iter().rev() {
            let recorded = ledger.recorded.lock().unwrap().clone();
            let undo = self.activity(name).compensate(&self.context(name, ledger), input, &recorded).await;
            said.push((name.clone(), undo));
        }
        said
    }

    fn s3(&self, name: &str) -> Value {
        json!({
            "name": name, "bucket": format!("bucket-{name}"), "region": "eu-west-1", "glue_database": format!("db_{name}"),
            "credentials": self.credentials(name), "usable_by": ["team"], "readable_by": ["team"]
        })
    }

    fn credentials(&self, name: &str) -> Value {
        json!({"kind": "key_pair", "access_key": secret(&self.dir, &format!("{name}-id"), "AKIA"),
               "secret_key": secret(&self.dir, &format!("{name}-secret"), &format!("hunter2-{name}"))})
    }

    async fn wire(&mut self) {
        let registry = "1.dkr.ecr.eu-west-1.amazonaws.com/team";
        self.step("dss.ready", json!({})).await.unwrap();
        let license = secret(&self.dir, "license", r#"{"content": {"licenseKind": "T"}}"#);
        self.step("dss.license", json!({"license": license})).await.unwrap();
        let password = secret(&self.dir, "password", "a new one");
        self.step("dss.admin-password", json!({"password": password})).await.unwrap();
        self.step("dss.groups", json!({"groups": [{"name": "team"}, {"name": "readers"}]})).await.unwrap();
        self.step("dss.container-config", json!({"name": "eks", "registry_url": registry})).await.unwrap();
        let configs = json!([{"name": "default", "properties": {"spark.executor.memory": "4g", "spark.x": "y"}}, {"name": "SparkOnEKS"}]);
        self.step("dss.spark-config", json!({"registry_url": registry, "configs": configs})).await.unwrap();
        self.step("dss.push-base-images", json!({})).await.unwrap();
        for name in ["one", "two"] {
            let athena = format!("athena-{name}");
            self.step("dss.s3-connection", self.s3(name)).await.unwrap();
            let pair = json!({"name": athena, "s3_connection": name, "region": "eu-west-1", "database": format!("db_{name}"),
                              "output_location": "s3://results/", "driver_directory": "/opt/athena"});
            self.step("dss.athena-connection", pair).await.unwrap();
            let link = json!({"s3_connection": name, "athena_connection": athena, "credentials": self.credentials(name)});
            self.step("dss.s3-athena-link", link).await.unwrap();
            self.step("dss.connection-test", json!({"name": name})).await.unwrap();
            let answer = self.step("dss.sql-check", json!({"connection": athena})).await.unwrap();
            assert_eq!(answer["rows"], 1);
        }
        self.step("dss.glue-metastore", json!({"connection": "one"})).await.unwrap();
        self.step("dss.plugin", json!({"source": {"kind": "store"}, "version": "1.5.0"})).await.unwrap();
        self.step("dss.plugin-code-env", json!({"interpreter": "PYTHON39"})).await.unwrap();
        let presets = json!({"connection_preset": "aws-env", "network_preset": "dss-vpc", "subnets": ["a", "b"], "security_groups": ["sg"]});
        self.step("dss.plugin-presets", presets).await.unwrap();
        let attach = json!({"name": "main", "eks_cluster": "made-by-sdk", "connection_preset": "aws-env"});
        let id = self.step("dss.cluster-attach", attach).await.unwrap()["id"].clone();
        self.step("dss.default-cluster", json!({"cluster_id": id})).await.unwrap();
        self.step("dss.project", json!({"key": "P", "name": "Project"})).await.unwrap();
        self.step("dss.project-settings", json!({"key": "P", "cluster_id": id, "container_config": "eks"}))
            .await
            .unwrap();
        let nodes = self.step("dss.nodes-check", json!({"cluster_id": id, "expected": 2})).await.unwrap();
        assert_eq!(nodes["ready"], 2);
    }
}

fn eks_cluster() -> ClusterSpec {
    ClusterSpec {
        name: "made-by-sdk".into(),
        region: "eu-west-1".into(),
        subnets: vec![],
        security_groups: vec![],
        version: "1.33".into(),
        tags: BTreeMap::new(),
        node_pool: NodePool { machine_type: "m7i.large".into(), num_nodes: 2, min: 2, max: 2, disk_gb: 20 },
    }
}

/// Without what stays by rule.
fn comparable(mut snapshot: Value) -> Value {
    for kept in ["license", "adminHasDefaultPassword"] {
        snapshot[kept] = Value::Null;
    }
    snapshot
}

async fn wire_and_undo(major: u32) {
    let mut lab = Lab::open(major).await;
    lab.cloud.add_cluster(eks_cluster());
    let before = lab.dss.snapshot();
    lab.wire().await;
    let wired = lab.dss.snapshot();
    assert_eq!(wired["adminHasDefaultPassword"], false);
    assert_eq!(wired["generalSettings"]["defaultK8sClusterId"], "main");
    assert_eq!(wired["connections"]["one"]["params"]["athenaConnection"], "athena-one");
    assert_eq!(lab.cloud.seen().images["team/dku-exec-base-x:dss-1"], "sha256:00");
    assert_eq!(lab.cloud.seen().queries[1].secret_key, "hunter2-two", "the link wrote the secret back");
    // Everything again, as another attempt would: nothing changes.
    for (name, input, ledger) in &lab.steps {
        lab.attempt(name, input, ledger).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert_eq!(lab.dss.snapshot(), wired);
    for (name, undo) in lab.undo().await {
        undo.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert_eq!(comparable(lab.dss.snapshot()), comparable(before));
    assert!(lab.cloud.seen().clusters.contains_key("made-by-sdk"), "detaching leaves EKS alone");
    // Twice: nothing left to do.
    for (name, undo) in lab.undo().await {
        assert!(matches!(undo, Ok(Undo::NothingToDo | Undo::Kept { .. })), "{name}: {undo:?}");
    }
}

#[tokio::test]
async fn all_of_it_is_made_found_and_taken_back_on_14() {
    wire_and_undo(14).await;
}

#[tokio::test]
async fn all_of_it_is_made_found_and_taken_back_on_15() {
    wire_and_undo(15).await;
}

#[tokio::test]
async fn a_dropped_key_is_named() {
    let mut lab = Lab::open(14).await;
    let overlay = json!({"synchronizeTo": {"glueRegion": "eu-west-1", "glueConnection": null}});
    let error =
        lab.step("dss.glue-metastore", json!({"connection": "one", "overlay": overlay})).await.unwrap_err();
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Terminal, "SettingsDropped"));
    assert!(error.message.contains("metastoreCatalogsSettings/synchronizeTo/glueRegion"), "{error}");
    assert!(error.help.unwrap().contains("overlays"));
    let undone = lab.undo().await.remove(0).1.unwrap();
    assert_eq!(undone, Undo::NothingToDo, "what was taken has been put back at once");
}

#[tokio::test]
async fn a_key_somebody_changed_since_is_left_and_named() {
    let mut lab = Lab::open(14).await;
    lab.step("dss.default-cluster", json!({"cluster_id": "ours"})).await.unwrap();
    let url = format!("{}/public/api/admin/general-settings", lab.target["url"].as_str().unwrap());
    let key = fs::read_to_string(lab.dir.join("key")).unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut settings: Value = http.get(&url).bearer_auth(&key).send().await.unwrap().json().await.unwrap();
    settings["defaultK8sClusterId"] = json!("theirs");
    http.put(&url).bearer_auth(&key).json(&settings).send().await.unwrap();
    let error = lab.undo().await.remove(0).1.unwrap_err();
    assert!(error.code == "ChangedSince" && error.message.contains("defaultK8sClusterId"), "{error}");
    assert_eq!(lab.dss.snapshot()["generalSettings"]["defaultK8sClusterId"], "theirs");
}

#[tokio::test]
async fn a_lost_reply_is_found_out_and_nothing_is_made_twice() {
    let mut lab = Lab::open(14).await;
    lab.step("dss.groups", json!({"groups": [{"name": "team"}]})).await.unwrap();
    for op in
        ["POST /admin/connections", "PUT /admin/connections/one", "POST /plugins/actions/installFromStore"]
    {
        lab.faults.set(vec![Fault::new(Target::Dss, op, Action::Reset).after().times(1)]);
        let (name, input) = if op.contains("plugins") {
            ("dss.plugin", json!({"source": {"kind": "store"}}))
        } else {
            ("dss.s3-connection", lab.s3(if op.starts_with("POST") { "zero" } else { "one" }))
        };
        let error = lab.step(name, input).await.unwrap_err();
        assert!(error.class == ErrorClass::Retryable && !error.no_effect, "{op}: {error:?}");
        let (name, input, ledger) = lab.steps.last().unwrap();
        // The install goes on in DSS; give it its turn.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        lab.attempt(name, input, ledger).await.unwrap_or_else(|error| panic!("{op}: {error}"));
    }
    for (name, undo) in lab.undo().await {
        assert_eq!(undo, Ok(Undo::Undone), "{name}");
    }
}

#[tokio::test]
async fn what_others_made_stays() {
    let mut lab = Lab::open(14).await;
    lab.step("dss.s3-connection", lab.s3("one")).await.unwrap();
    lab.step("dss.project", json!({"key": "P"})).await.unwrap();
    // Another run of the same site finds them and owns neither.
    lab.run = "run-2";
    for (name, input, ledger) in &lab.steps {
        let found = lab.activity(name).probe(&lab.context(name, ledger), input).await.unwrap();
        assert!(
            matches!(&found, Probe::Present { owner: Owner::ThisSite(run), .. } if run == "run-1"),
            "{name}: {found:?}"
        );
    }
    for (name, undo) in lab.undo().await {
        assert_eq!(undo, Ok(Undo::NothingToDo), "{name}");
    }
    assert!(lab.dss.snapshot()["connections"].get("one").is_some());
}

#[tokio::test]
async fn a_wrong_key_pauses_and_a_dead_dss_did_nothing() {
    let mut lab = Lab::open(14).await;
    let good = lab.target["api_key"].clone();
    lab.target["api_key"] = secret(&lab.dir, "wrong", "nonsense");
    let error = lab.step("dss.default-cluster", json!({"cluster_id": "x"})).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Credentials);
    assert!(!format!("{error:?}").contains("nonsense"));
    lab.target = json!({"url": "http://127.0.0.1:1", "api_key": good});
    let error = lab.step("dss.default-cluster", json!({"cluster_id": "x"})).await.unwrap_err();
    assert!(
        error.class == ErrorClass::Retryable && error.no_effect && error.code == "DssUnreachable",
        "{error:?}"
    );
}

impl Lab {
    /// Plugin, code env, presets and a definition; gives its id.
    async fn define(&mut self) -> Value {
        self.step("dss.plugin", json!({"source": {"kind": "store"}})).await.unwrap();
        self.step("dss.plugin-code-env", json!({"interpreter": "PYTHON39"})).await.unwrap();
        let presets = json!({"connection_preset": "aws-env", "network_preset": "dss-vpc", "subnets": ["a", "b"], "security_groups": ["sg"]});
        self.step("dss.plugin-presets", presets).await.unwrap();
        let pool = json!({"machine_type": "m7i.large", "num_nodes": 2, "min_nodes": 1, "max_nodes": 3, "disk_gb": 20});
        let cluster = json!({"name": "Main One", "connection_preset": "aws-env", "network_preset": "dss-vpc", "k8s_version": "1.33",
                             "node_pool": pool, "overlay": {"clusterTags": {"team": "x"}}});
        self.step("dss.cluster", cluster).await.unwrap()["id"].clone()
    }
}

const START: &str = "POST /admin/clusters/*/actions/start";

#[tokio::test]
async fn a_cluster_is_started_and_taken_down_with_all_it_needed() {
    let mut lab = Lab::open(14).await;
    let before = lab.dss.snapshot();
    let id = lab.define().await;
    assert_eq!(id, "main-one");
    lab.step("dss.cluster-start", json!({"id": id})).await.unwrap();
    let made = lab.cloud.seen().clusters["main-one"].clone();
    assert_eq!((made.tags["team"].as_str(), made.tags["dssflow:run"].as_str()), ("x", "run-1"));
    assert_eq!((made.subnets.len(), made.node_pool.max), (2, 3));
    for (name, undo) in lab.undo().await {
        assert_eq!(undo, Ok(Undo::Undone), "{name}");
    }
    assert!(lab.cloud.seen().clusters.is_empty());
    assert_eq!(lab.dss.snapshot(), before);
    for (name, undo) in lab.undo().await {
        assert_eq!(undo, Ok(Undo::NothingToDo), "{name}");
    }
}

#[tokio::test]
async fn lost_replies_of_start_and_stop_are_seen_through() {
    let mut lab = Lab::open(14).await;
    let id = lab.define().await;
    lab.faults.set(vec![Fault::new(Target::Dss, START, Action::Reset).after().times(1)]);
    lab.step("dss.cluster-start", json!({"id": id})).await.unwrap();
    assert_eq!(lab.cloud.seen().creations, 1);
    let stop = "POST /admin/clusters/*/actions/stop";
    lab.faults.set(vec![Fault::new(Target::Dss, stop, Action::Reset).after().times(1)]);
    for (name, undo) in lab.undo().await {
        assert_eq!(undo, Ok(Undo::Undone), "{name}");
    }
}

#[tokio::test]
async fn a_start_that_died_is_cleaned_up_before_the_next() {
    let mut lab = Lab::open(14).await;
    let id = lab.define().await;
    // DSS was restarted while eksctl ran: DSS says NONE, EKS has the cluster.
    let ours = lab.context("dss.cluster", &Arc::default()).marks();
    let tags = ours.tags().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    lab.cloud.add_cluster(ClusterSpec { name: "main-one".into(), tags, ..eks_cluster() });
    let (activity, ledger) = (lab.activity("dss.cluster-start"), Arc::default());
    let (ctx, input) = (lab.context("dss.cluster-start", &ledger), lab.input(json!({"id": id})));
    let found = activity.probe(&ctx, &input).await.unwrap();
    assert!(matches!(found, Probe::Failed { owner: Owner::ThisRun, .. }), "{found:?}");
    activity.execute(&ctx, &input).await.unwrap();
    assert_eq!(lab.cloud.seen().creations, 1);
}

#[tokio::test]
async fn somebody_elses_cluster_of_that_name_is_left_alone() {
    let mut lab = Lab::open(14).await;
    let id = lab.define().await;
    lab.cloud.add_cluster(ClusterSpec { name: "main-one".into(), ..eks_cluster() });
    let (activity, ledger) = (lab.activity("dss.cluster-start"), Arc::default());
    let (ctx, input) = (lab.context("dss.cluster-start", &ledger), lab.input(json!({"id": id})));
    let found = activity.probe(&ctx, &input).await.unwrap();
    assert!(matches!(found, Probe::Failed { owner: Owner::Foreign, .. }), "{found:?}");
    let error = activity.execute(&ctx, &input).await.unwrap_err();
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::NeedsHuman, "ForeignCluster"));
    let error = activity.compensate(&ctx, &input, &Recorded::default()).await.unwrap_err();
    assert_eq!(error.code, "ForeignCluster");
    assert!(lab.cloud.seen().clusters.contains_key("main-one"));
}

#[tokio::test]
async fn a_failed_start_says_why_and_may_be_tried_again() {
    let mut lab = Lab::open(14).await;
    let id = lab.define().await;
    let fails = Action::State { polls: 1, end: "FAILED".into() };
    lab.faults.set(vec![Fault::new(Target::Dss, START, fails).times(1)]);
    let error = lab.step("dss.cluster-start", json!({"id": id})).await.unwrap_err();
    assert!(error.message.contains("as scripted") && error.help.is_some(), "{error:?}");
    let (name, input, ledger) = lab.steps.last().unwrap();
    lab.attempt(name, input, ledger).await.unwrap();
}
