//! An unkind AWS and a fake DSS, both in memory, and the built command between them, with a store of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dssflow_sandbox::dss::FakeDss;
use dssflow_sandbox::dss::memory::MemoryCloud;
use dssflow_sandbox::faults::FaultEngine;
use reqwest::Method;
use serde_json::{Value, json};

use crate::aws::{ACCOUNT, Aws};
use crate::support::program;

/// The one bucket, which its S3 connection is restricted to.
const BUCKET: &str = "lake";
/// The Glue database that datasets name.
const DATABASE: &str = "lake";

/// The world.
pub(crate) struct Unkind {
    dir: tempfile::TempDir,
    pub(crate) aws: Aws,
    pub(crate) dss: FakeDss,
    dss_url: String,
    key: String,
}

/// What a command said and took.
pub(crate) struct Took {
    pub(crate) said: String,
    /// What it printed, where that is JSON.
    pub(crate) report: Value,
    pub(crate) peak_mb: u64,
    pub(crate) seconds: f64,
}

async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// A count in a report.
pub(crate) fn count(report: &Value, of: &str) -> usize {
    let count = report.pointer(of).and_then(Value::as_u64).unwrap_or_default();
    usize::try_from(count).expect("it fits")
}

/// A dataset of files in Parquet on the connection, with these columns; partitioned by country when `partitioned`.
pub(crate) fn dataset(project: &str, name: &str, columns: &[(&str, &str)], partitioned: bool) -> Value {
    let partitioning = if partitioned {
        json!({"dimensions": [{"name": "country", "type": "value", "params": {}}], "filePathPattern": "%{country}/.*"})
    } else {
        json!({"dimensions": []})
    };
    let columns: Vec<Value> = columns.iter().map(|(n, t)| json!({"name": n, "type": t})).collect();
    json!({
        "projectKey": project, "name": name, "type": "S3", "managed": true, "formatType": "parquet",
        "formatParams": {}, "partitioning": partitioning, "schema": {"columns": columns, "userModified": false},
        "params": {
            "connection": "s3-main", "bucket": BUCKET, "path": format!("{project}/{name}"),
            "metastoreSynchronizationEnabled": true, "metastoreDatabaseName": DATABASE,
            "metastoreTableName": format!("${{projectKey}}_{name}")
        }
    })
}

impl Unkind {
    /// A world without a dataset, whose site lets dssflow mend.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let aws = Aws::default();
        let dss = MemoryCloud::default().dss(14, Arc::new(FaultEngine::new()));
        let key = dss.api_keys().create("dssflow", "").key.expect("a key");
        let (aws_url, dss_url) = (serve(aws.router()).await, serve(dss.router()).await);
        let spec = format!(
            "name: large\nexpected_account: \"{ACCOUNT}\"\nregion: eu-west-1\ndss:\n  url: {dss_url}\n  api_key: {{ env: \
             DSS_API_KEY }}\naws:\n  endpoint_url: {aws_url}\nglue_resync:\n  mode: direct\n"
        );
        std::fs::write(dir.path().join("site.yaml"), spec).expect("a file");
        let unkind = Self { dir, aws, dss, dss_url, key };
        let connection = json!({"name": "s3-main", "type": "EC2", "params": {"chbucket": BUCKET}});
        unkind.call(Method::POST, "/admin/connections/", Some(&connection)).await;
        unkind
    }

    /// Calls DSS as somebody who works in it.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = format!("{}/public/api{path}", self.dss_url);
        let mut call = client.request(method, url).bearer_auth(&self.key);
        if let Some(body) = body {
            call = call.json(body);
        }
        let status = call.send().await.expect("an answer").status();
        assert!(status.is_success(), "{path}: {status}");
    }

    /// Puts datasets into a project, by their names.
    pub(crate) fn put(&self, project: &str, datasets: impl IntoIterator<Item = Value>) {
        let named = |dataset: Value| (dataset["name"].as_str().unwrap_or_default().to_owned(), dataset);
        self.dss.put_datasets(project, datasets.into_iter().map(named).collect::<BTreeMap<_, _>>());
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the command to its end and watches its memory.
    pub(crate) async fn run(&self, args: &[&str], expect: i32) -> Took {
        let begun = Instant::now();
        let mut child = Command::new(program())
            .args(args)
            .current_dir(self.path())
            .env("DSSFLOW_STORE", self.path().join("store"))
            .env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "unused")
            .env("DSS_API_KEY", &self.key)
            .env_remove("AWS_PROFILE")
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(self.path().join("stdout")).expect("a file"))
            .stderr(std::fs::File::create(self.path().join("stderr")).expect("a file"))
            .spawn()
            .expect("the command starts");
        let status = format!("/proc/{}/status", child.id());
        let mut peak_mb = 0;
        let code = loop {
            if let Some(ended) = child.try_wait().expect("a child of ours") {
                break ended.code();
            }
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let peak = peak.and_then(|p| p.split_whitespace().next()).and_then(|p| p.parse::<u64>().ok());
            peak_mb = peak_mb.max(peak.unwrap_or_default() / 1024);
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let read = |name: &str| std::fs::read_to_string(self.path().join(name)).expect("a file");
        let said = format!("{}\n{}", read("stdout"), read("stderr"));
        assert_eq!(code, Some(expect), "{args:?}\n{said}");
        let report = serde_json::from_str(&read("stdout")).unwrap_or_default();
        Took { said, report, peak_mb, seconds: begun.elapsed().as_secs_f64() }
    }
}
