//! A fake DSS with as much of AWS beside it as the DSS activities look at, and steps that run as the engine runs them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as Segment, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use dssflow_activities::clients::{AwsClients, ClientsConfig, StaticCredentials};
use dssflow_activities::dss;
use dssflow_engine::activity::{
    ActivityContext, ActivityRegistry, ActivityResult, ContextInner, ErasedActivity, Probe, Recorded,
    Recorder, Resource, Resources, Undo,
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
pub(crate) struct Ledger {
    pub(crate) recorded: Mutex<Recorded>,
    pub(crate) heartbeat: Mutex<Option<Value>>,
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
pub(crate) struct Jumping(Arc<Mutex<u64>>);

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

/// EKS as far as DSS's clusters go, a CloudFormation without stacks, the tables and objects of the smoke test.
pub(crate) fn aws(cloud: MemoryCloud) -> Router {
    async fn describe(State(cloud): State<MemoryCloud>, Segment(name): Segment<String>) -> impl IntoResponse {
        let json = [(header::CONTENT_TYPE, "application/json")];
        let Some(spec) = cloud.seen().clusters.get(&name).cloned() else {
            let error = json!({"__type": "ResourceNotFoundException", "message": "No cluster found"});
            return (StatusCode::NOT_FOUND, json, error.to_string());
        };
        let arn = format!("arn:aws:eks:eu-west-1:123456789012:cluster/{name}");
        let status = if cloud.seen().creating.contains(&name) { "CREATING" } else { "ACTIVE" };
        let cluster = json!({"name": name, "arn": arn, "status": status, "tags": spec.tags});
        (StatusCode::OK, json, json!({"cluster": cluster}).to_string())
    }
    async fn root(State(cloud): State<MemoryCloud>, headers: HeaderMap, body: Bytes) -> Response {
        let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
        let name = format!(
            "{}.{}",
            asked["DatabaseName"].as_str().unwrap_or_default(),
            asked["Name"].as_str().unwrap_or_default()
        );
        let json = [(header::CONTENT_TYPE, "application/x-amz-json-1.1")];
        let gone = json!({"__type": "EntityNotFoundException", "message": "Entity Not Found"}).to_string();
        match headers.get("x-amz-target").and_then(|target| target.to_str().ok()) {
            Some("AWSGlue.GetTable") => match cloud.seen().tables.get(&name) {
                Some(place) => {
                    let storage = json!({"Location": format!("s3://{place}"), "Columns": [{"Name": "id"}]});
                    let table = json!({"Table": {"Name": asked["Name"], "StorageDescriptor": storage}});
                    (json, table.to_string()).into_response()
                }
                None => (StatusCode::BAD_REQUEST, json, gone).into_response(),
            },
            Some("AWSGlue.DeleteTable") if cloud.delete_table(&name) => (json, "{}").into_response(),
            Some(_) => (StatusCode::BAD_REQUEST, json, gone).into_response(),
            None => {
                let empty = r#"<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">
                    <DescribeStacksResult><Stacks/></DescribeStacksResult></DescribeStacksResponse>"#;
                ([(header::CONTENT_TYPE, "text/xml")], empty).into_response()
            }
        }
    }
    async fn objects(
        State(cloud): State<MemoryCloud>,
        Segment(bucket): Segment<String>,
        Query(query): Query<BTreeMap<String, String>>,
    ) -> impl IntoResponse {
        let wanted = format!("{bucket}/{}", query.get("prefix").map(String::as_str).unwrap_or_default());
        let mut entries = String::new();
        for (place, rows) in cloud.seen().data {
            for row in 0..rows {
                let key = format!("{place}/part-{row}");
                if key.starts_with(&wanted) {
                    let key = &key[bucket.len() + 1..];
                    entries.push_str("<Contents><Size>1</Size><Key>");
                    entries.push_str(key);
                    entries.push_str("</Key></Contents>");
                }
            }
        }
        let list = format!(
            "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        );
        ([(header::CONTENT_TYPE, "application/xml")], list)
    }
    async fn drop_object(
        State(cloud): State<MemoryCloud>,
        Segment((bucket, key)): Segment<(String, String)>,
    ) -> StatusCode {
        cloud.delete_object(&format!("{bucket}/{key}"));
        StatusCode::NO_CONTENT
    }
    Router::new()
        .route("/clusters/{name}", get(describe))
        .route("/", post(root))
        .route("/{bucket}", get(objects))
        .route("/{bucket}/", get(objects))
        .route("/{bucket}/{*key}", delete(drop_object))
        .with_state(cloud)
}

pub(crate) async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(tokio::spawn(async move { axum::serve(listener, router).await }));
    url
}

pub(crate) struct Lab {
    pub(crate) dir: PathBuf,
    pub(crate) aws: AwsClients,
    pub(crate) cloud: MemoryCloud,
    pub(crate) dss: FakeDss,
    pub(crate) faults: Arc<FaultEngine>,
    pub(crate) registry: ActivityRegistry,
    pub(crate) store: StoreId,
    pub(crate) run: &'static str,
    pub(crate) target: Value,
    pub(crate) steps: Vec<(String, Value, Arc<Ledger>)>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.dir);
    }
}

pub(crate) fn secret(dir: &Path, name: &str, value: &str) -> Value {
    let path = dir.join(name);
    fs::write(&path, value).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    json!({"file": path})
}

impl Lab {
    pub(crate) async fn open(major: u32) -> Self {
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

    pub(crate) fn activity(&self, name: &str) -> Arc<dyn ErasedActivity> {
        Arc::clone(self.registry.get(&ActivityName::new(name).unwrap()).unwrap_or_else(|| panic!("{name}")))
    }

    pub(crate) fn context(&self, name: &str, ledger: &Arc<Ledger>) -> ActivityContext {
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

    pub(crate) fn input(&self, mut input: Value) -> Value {
        input["target"] = self.target.clone();
        input
    }

    /// One step as the engine runs it: probe, execute when absent, verify; then the probe must find it.
    pub(crate) async fn step(&mut self, name: &str, input: Value) -> ActivityResult<Value> {
        let input = self.input(input);
        let ledger = Arc::new(Ledger::default());
        self.steps.push((name.to_owned(), input.clone(), Arc::clone(&ledger)));
        self.attempt(name, &input, &ledger).await
    }

    pub(crate) async fn attempt(
        &self,
        name: &str,
        input: &Value,
        ledger: &Arc<Ledger>,
    ) -> ActivityResult<Value> {
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

    /// Counts the calls of `op` from now on; takes the place of all faults.
    pub(crate) fn count(&self, op: &str) {
        self.faults.set(vec![Fault::new(Target::Dss, op, Action::Delay { ms: 0 })]);
    }

    /// How often the counted call has been made.
    pub(crate) fn counted(&self) -> u32 {
        self.faults.report()[0].matched
    }

    /// Undoes every step in reverse; gives what each said.
    pub(crate) async fn undo(&self) -> Vec<(String, ActivityResult<Undo>)> {
        let mut said = Vec::new();
        for (name, input, ledger) in self.steps.iter().rev() {
            let recorded = ledger.recorded.lock().unwrap().clone();
            let undo = self.activity(name).compensate(&self.context(name, ledger), input, &recorded).await;
            said.push((name.clone(), undo));
        }
        said
    }

    pub(crate) fn s3(&self, name: &str) -> Value {
        json!({
            "name": name, "bucket": format!("bucket-{name}"), "region": "eu-west-1", "glue_database": format!("db_{name}"),
            "credentials": self.credentials(name), "usable_by": ["team"], "readable_by": ["team"]
        })
    }

    pub(crate) fn credentials(&self, name: &str) -> Value {
        json!({"kind": "key_pair", "access_key": secret(&self.dir, &format!("{name}-id"), "AKIA"),
               "secret_key": secret(&self.dir, &format!("{name}-secret"), &format!("hunter2-{name}"))})
    }

    pub(crate) async fn wire(&mut self) {
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

pub(crate) fn eks_cluster() -> ClusterSpec {
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
pub(crate) fn comparable(mut snapshot: Value) -> Value {
    for kept in ["license", "adminHasDefaultPassword"] {
        snapshot[kept] = Value::Null;
    }
    snapshot
}

/// A call to the API by somebody else; `Null` when there is no answer worth reading.
pub(crate) async fn by_hand(lab: &Lab, method: reqwest::Method, path: &str, body: Option<&Value>) -> Value {
    let url = format!("{}/dip/publicapi{path}", lab.target["url"].as_str().unwrap());
    let key = fs::read_to_string(lab.dir.join("key")).unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = http.request(method, url).basic_auth(key, Some(""));
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await.unwrap();
    assert!(response.status().is_success(), "{path}: {}", response.status());
    serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default()
}
