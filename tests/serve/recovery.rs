//! A daemon that starts over a store full of runs that were under way, and what it takes while nothing happens.
//!
//! `DSSFLOW_UNFINISHED` is how many there are, `DSSFLOW_PROGRAM` another build of the command to measure. With
//! `DSSFLOW_BARS` the figures are held to what is promised; `./campaign serve` does that with a thousand runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

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
async fn aws() -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    let app = Router::new().fallback(any(move || {
        counts.fetch_add(1, Ordering::SeqCst);
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

/// How long nothing may have changed before memory counts as settled.
const SETTLED: Duration = Duration::from_secs(3);
/// The longest that is waited for it.
const UNSETTLED: Duration = Duration::from_secs(30);
/// What is promised: all runs of before are taken up within this, counted from the start of the process.
const RECOVERED_MS: u128 = 2_000;
/// And a daemon that has nothing to do takes no more. Of a build without optimisation only what it allocates is held to
/// that: its code alone is larger, and nobody runs it.
const IDLE_KIB: u64 = 40 * 1024;
/// What an unfinished run may add to that: most of it is its input as a tree, its tasks and their channels.
const RUN_KIB: u64 = 80;

/// A line of what the kernel says of a process's memory, in KiB.
fn memory_kib(pid: u32, line: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find(|found| found.starts_with(line)).expect("a line of its memory");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// Memory of a process, in KiB.
#[derive(Clone, Copy)]
struct Memory {
    /// All that is resident.
    resident: u64,
    /// What of it is no file: what it has allocated.
    allocated: u64,
}

impl Memory {
    /// Once it has stopped changing.
    fn settled(pid: u32) -> Self {
        let begin = Instant::now();
        let (mut before, mut since) = (0, begin);
        loop {
            let resident = memory_kib(pid, "VmRSS:");
            if resident != before {
                (before, since) = (resident, Instant::now());
            }
            if since.elapsed() > SETTLED || begin.elapsed() > UNSETTLED {
                return Self { resident, allocated: memory_kib(pid, "RssAnon:") };
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What is held to the bar.
    fn counts(self, release: bool) -> u64 {
        if release { self.resident } else { self.allocated }
    }
}

/// How long a daemon took to take up all runs of before.
struct Started {
    /// When it answered, counted from the start of the process.
    answers_ms: u128,
    /// When all were taken up.
    recovered_ms: u128,
    /// The processor's time until then, which a busy machine does not lengthen.
    cpu_ms: u64,
}

/// The processor's time that a process has had, in milliseconds.
fn cpu_ms(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // The name stands in parentheses and may hold anything; user and system time are the 12th and 13th behind it.
    let (_, rest) = text.rsplit_once(')').expect("a name");
    let ticks = rest.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
    // A tick is a hundredth of a second on every Linux that matters.
    ticks.sum::<u64>() * 10
}

fn started(command: Command, store: &Path, runs: usize) -> (Daemon, Started) {
    let begin = Instant::now();
    let mut daemon = Daemon::start(command, store.to_owned());
    let answers_ms = begin.elapsed().as_millis();
    daemon.until("all are taken up", |daemon| {
        daemon.get("/v1/health").is_some_and(|health| health["status"] == "ok")
    });
    let recovered_ms = begin.elapsed().as_millis();
    let cpu_ms = cpu_ms(daemon.pid());
    let health = daemon.get("/v1/health").expect("it answers");
    assert_eq!(health["driven"], runs, "{health}");
    assert_eq!(health["parked"], serde_json::Value::Null, "{health}");
    (daemon, Started { answers_ms, recovered_ms, cpu_ms })
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
    let home = dir.path().to_owned();
    tokio::task::spawn_blocking(move || measure(&home, &store, runs, &asked)).await.expect("no panic");
}

#[expect(clippy::print_stdout, reason = "a campaign prints its figures")]
fn measure(home: &Path, store: &Path, runs: usize, asked: &AtomicUsize) {
    let command = |store: &Path| {
        let mut command = Command::new(program());
        command
            .arg("serve")
            .env("DSSFLOW_STORE", store)
            .env("HOME", home)
            .env("AWS_ACCESS_KEY_ID", "ops")
            .env("AWS_SECRET_ACCESS_KEY", "nothing")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null());
        command
    };
    // Once after a stop in good order, once after a kill, when the store is looked through before it is opened.
    let (daemon, first) = started(command(store), store, runs);
    let who = asked.load(Ordering::SeqCst);
    assert!(who <= 1 + runs / 100, "who it is was asked {who} times for {runs} runs");
    daemon.kill();
    let (daemon, again) = started(command(store), store, runs);
    let full = Memory::settled(daemon.pid());
    let peak = memory_kib(daemon.pid(), "VmHWM:");
    let (code, said) = daemon.stop();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("{runs} runs are saved")), "{said}");
    // And once more with runs that the stop has paused.
    let (daemon, resumed) = started(command(store), store, runs);
    daemon.kill();

    // An empty store: nothing to do.
    let empty = home.join("empty");
    let (daemon, _) = started(command(&empty), &empty, 0);
    let idle = Memory::settled(daemon.pid());
    drop(daemon);

    let release = program().ancestors().any(|dir| dir.ends_with("release"));
    let mut missed = Vec::new();
    for (what, started) in [("at first", &first), ("after a kill", &again), ("after a stop", &resumed)] {
        if started.recovered_ms >= RECOVERED_MS {
            missed.push(format!("{what} all runs were taken up in {} ms", started.recovered_ms));
        }
    }
    let of_runs = RUN_KIB * u64::try_from(runs).expect("it is small");
    for (count, memory, may) in [(runs, full, IDLE_KIB + of_runs), (0, idle, IDLE_KIB)] {
        if memory.counts(release) >= may {
            missed.push(format!("with {count} runs it takes {} KiB of {may}", memory.counts(release)));
        }
    }
    println!(
        "serve: build={} unfinished={runs} answers_ms={} recovered_ms={} recovered_cpu_ms={} killed_answers_ms={} \
         killed_recovered_ms={} stopped_recovered_ms={} resident_kib={} allocated_kib={} peak_kib={peak} idle_resident_kib={} \
         idle_allocated_kib={} who_asked={who} bars_missed={}",
        if release { "release" } else { "dev" },
        first.answers_ms,
        first.recovered_ms,
        first.cpu_ms,
        again.answers_ms,
        again.recovered_ms,
        resumed.recovered_ms,
        full.resident,
        full.allocated,
        idle.resident,
        idle.allocated,
        missed.len()
    );
    assert!(missed.is_empty() || std::env::var_os("DSSFLOW_BARS").is_none(), "bars are missed: {missed:?}");
}
