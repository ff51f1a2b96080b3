//! A daemon that starts over a store full of runs that were under way.
//!
//! `DSSFLOW_UNFINISHED` is how many there are, `DSSFLOW_PROGRAM` another build of the command to measure.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::any;
use dssflow_engine::graph::{Binding, StepKind};
use dssflow_engine::id::{RunId, StepName, WorkflowName};
use dssflow_engine::{Engine, Graph, StartRun, Step};
use dssflow_store::{OpenOptions, SledStore};

use crate::daemon::Daemon;
use crate::support;

/// How long the runs sleep.
const HOUR_MS: u64 = 3_600_000;

/// The answer of STS to the question who asks.
const WHO: &str = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
    <GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/ops</Arn><UserId>AIDAEXAMPLE</UserId>\
    <Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>";

/// An AWS that knows who asks, and how often it was asked.
async fn aws() -> (String, Arc<std::sync::atomic::AtomicUsize>) {
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    let app = Router::new().fallback(any(move || {
        counts.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async { ([(CONTENT_TYPE, "text/xml")], WHO) }
    }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a port");
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}"), asked)
}

/// Runs of the bootstrap's name that sleep, as an owner leaves them that is killed.
async fn fill(store: &Path, site: &serde_json::Value, runs: usize) {
    let opened =
        SledStore::open(store, OpenOptions { command: "a test".to_owned(), ..OpenOptions::default() });
    let store = Arc::new(opened.expect("a new store"));
    let engine = Engine::builder(Arc::clone(&store) as Arc<dyn dssflow_engine::store::Store>).build();
    let starts = (0..runs).map(|n| {
        let kind = StepKind::Sleep { duration_ms: Binding::literal(HOUR_MS) };
        let graph = Graph::builder()
            .step(Step::new(StepName::new("sleep").expect("a name"), kind))
            .build()
            .expect("a graph");
        let mut start = StartRun::new(WorkflowName::new("bootstrap").expect("a name"), graph);
        start.id = Some(RunId::new(format!("asleep-{n}")).expect("an id"));
        (start.site, start.input) = (format!("site-{n}"), site.clone());
        engine.start(start)
    });
    futures::future::try_join_all(starts).await.expect("they start");
    engine.stop();
    while !engine.live_runs().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(engine);
    store.close().await.expect("it closes");
}

fn program() -> PathBuf {
    std::env::var_os("DSSFLOW_PROGRAM").map_or_else(support::program, PathBuf::from)
}

/// Resident memory of a process, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("a line of its memory");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_before_are_taken_up_soon_and_an_idle_daemon_is_small() {
    let runs: usize = std::env::var("DSSFLOW_UNFINISHED").map_or(200, |text| text.parse().expect("a number"));
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("store");
    let (endpoint, asked) = aws().await;
    let example = include_str!("../../workflows/examples/site.yaml");
    let text = example.replacen(
        "region: eu-west-1\n",
        &format!("region: eu-west-1\naws:\n  endpoint_url: {endpoint}\n"),
        1,
    );
    let site = dssflow_workflows::parse(&text, "the example").expect("a site");
    let site = serde_json::to_value(&site).expect("plain data");
    let account = site["expected_account"].as_str().expect("an account");
    assert_eq!(account, "123456789012", "the stub says so");
    fill(&store, &site, runs).await;

    let command = |store: &Path| {
        let mut command = Command::new(program());
        command
            .arg("serve")
            .env("DSSFLOW_STORE", store)
            .env("HOME", dir.path())
            .env("AWS_ACCESS_KEY_ID", "ops")
            .env("AWS_SECRET_ACCESS_KEY", "nothing")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null());
        command
    };
    let store_of_runs = store.clone();
    let full = command(&store);
    let mut daemon = tokio::task::block_in_place(|| Daemon::start(full, store_of_runs));
    tokio::task::block_in_place(|| {
        daemon.until("all are taken up", |daemon| {
            daemon.get("/v1/health").is_some_and(|health| health["status"] == "ok")
        });
    });
    let health = daemon.get("/v1/health").expect("it answers");
    assert_eq!(health["driven"], runs, "{health}");
    assert_eq!(health["parked"], serde_json::Value::Null, "{health}");
    let asked = asked.load(std::sync::atomic::Ordering::SeqCst);
    assert!(asked <= 1 + runs / 100, "who it is was asked {asked} times for {runs} runs");
    let full = resident_kib(daemon.pid());
    let (code, said) = tokio::task::block_in_place(|| daemon.stop());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("{runs} runs are saved")), "{said}");

    // An empty store: nothing to do.
    let empty = dir.path().join("empty");
    let idle = command(&empty);
    let daemon = tokio::task::block_in_place(|| Daemon::start(idle, empty));
    let idle = resident_kib(daemon.pid());
    drop(daemon);
    println!(
        "serve: unfinished={runs} recover_ms={} resident_kib={full} idle_kib={idle} who_asked={asked}",
        health["recover_ms"]
    );
    if std::env::var_os("DSSFLOW_PROGRAM").is_some() {
        assert!(health["recover_ms"].as_u64() < Some(2000), "{health}");
        assert!(idle < 40 * 1024, "{idle} KiB");
    }
}
