//! Many tables and many partitions, by the built command against an unkind AWS and a fake DSS, with the memory it takes.
//! `DSSFLOW_TABLES` and `DSSFLOW_PARTITIONS` say how many; `./campaign glue` tries ten thousand and a hundred thousand.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dssflow_sandbox::dss::memory::MemoryCloud;
use dssflow_sandbox::faults::FaultEngine;
use serde_json::{Value, json};

use crate::aws::{ACCOUNT, Aws};
use crate::support::program;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// How many partitions a partitioned table has.
const EACH: usize = 1_250;

async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn dataset(project: &str, number: usize, partitioned: bool) -> Value {
    let partitioning = if partitioned {
        json!({"dimensions": [{"name": "country", "type": "value", "params": {}}], "filePathPattern": "%{country}/.*"})
    } else {
        json!({"dimensions": []})
    };
    let columns: Vec<Value> = (0..20)
        .map(|n| json!({"name": format!("c{n}"), "type": (["bigint", "string", "double"])[n % 3]}))
        .collect();
    json!({
        "projectKey": project, "name": format!("t{number}"), "type": "S3", "managed": true, "formatType": "parquet",
        "formatParams": {}, "partitioning": partitioning, "schema": {"columns": columns, "userModified": false},
        "params": {
            "connection": "s3-main", "bucket": "lake", "path": format!("{project}/t{number}"),
            "metastoreSynchronizationEnabled": true, "metastoreDatabaseName": "lake",
            "metastoreTableName": format!("${{projectKey}}_t{number}")
        }
    })
}

/// What a command did and took.
struct Took {
    report: Value,
    peak_mb: u64,
    seconds: f64,
}

/// Runs the command and watches its memory.
async fn run(dir: &Path, args: &[&str], expect: i32) -> Took {
    let begun = Instant::now();
    let mut child = Command::new(program())
        .args(args)
        .current_dir(dir)
        .env("DSSFLOW_STORE", dir.join("store"))
        .env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "unused")
        .env("DSS_API_KEY", std::fs::read_to_string(dir.join("key")).expect("a key"))
        .env_remove("AWS_PROFILE")
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(dir.join("stdout")).expect("a file"))
        .stderr(std::fs::File::create(dir.join("stderr")).expect("a file"))
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
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect("a file");
    assert_eq!(code, Some(expect), "{args:?}\n{}\n{}", read("stdout"), read("stderr"));
    let seconds = begun.elapsed().as_secs_f64();
    let report = serde_json::from_str(&read("stdout")).unwrap_or_default();
    Took { report, peak_mb, seconds }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tables_and_partitions_in_bounded_memory() {
    let (tables, partitions) = (setting("DSSFLOW_TABLES", 400), setting("DSSFLOW_PARTITIONS", 5_000));
    let partitioned = partitions.div_ceil(EACH).min(tables);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let aws = Aws::default();
    let dss = MemoryCloud::default().dss(14, Arc::new(FaultEngine::new()));
    std::fs::write(dir.path().join("key"), dss.api_keys().create("dssflow", "").key.expect("a key"))
        .expect("a file");
    let (aws_url, dss_url) = (serve(aws.router()).await, serve(dss.router()).await);
    let connection = json!({"name": "s3-main", "type": "EC2", "params": {"chbucket": "lake"}});
    let made = reqwest::Client::builder().no_proxy().build().expect("a client");
    let key = std::fs::read_to_string(dir.path().join("key")).expect("a key");
    let made =
        made.post(format!("{dss_url}/public/api/admin/connections/")).bearer_auth(&key).json(&connection);
    assert!(made.send().await.expect("an answer").status().is_success());
    for of_project in 0..10 {
        let project = format!("P{of_project}");
        let mut all = BTreeMap::new();
        for number in (of_project..tables).step_by(10) {
            all.insert(format!("t{number}"), dataset(&project, number, number < partitioned));
            if number < partitioned {
                let count = partitions / partitioned + usize::from(number < partitions % partitioned);
                let names = (0..count).map(|n| format!("c{n:06}")).collect();
                aws.cloud().directories.insert(format!("{project}/t{number}"), names);
            }
        }
        dss.put_datasets(&project, all);
    }
    let spec = format!(
        "name: large\nexpected_account: \"{ACCOUNT}\"\nregion: eu-west-1\ndss:\n  url: {dss_url}\n  api_key: {{ env: DSS_API_KEY \
         }}\naws:\n  endpoint_url: {aws_url}\nglue_resync:\n  mode: direct\n"
    );
    std::fs::write(dir.path().join("site.yaml"), spec).expect("a file");
    let counts = |report: &Value, of: &str| {
        let count = report.pointer(of).and_then(Value::as_u64).unwrap_or_default();
        usize::try_from(count).expect("it fits")
    };

    let plan = ["plan", "glue-resync", "-o", "json", "--detailed-exitcode"];
    let empty = run(dir.path(), &plan, 2).await;
    assert_eq!(counts(&empty.report, "/totals/added"), tables);
    assert_eq!(counts(&empty.report, "/totals/partitions/added"), partitions);
    assert_eq!(aws.mutating(), 0, "a plan changes nothing");
    let made = run(dir.path(), &["run", "glue-resync", "--yes"], 0).await;
    let parallel = aws.cloud().most_at_once;
    assert!(parallel <= 5, "{parallel} calls at once");
    {
        let cloud = aws.cloud();
        assert_eq!(cloud.tables.len(), tables);
        assert_eq!(cloud.tables.values().map(|t| t.partitions.len()).sum::<usize>(), partitions);
        assert!(cloud.largest_batch <= 100 && (partitions < 1000 || cloud.largest_batch == 100));
    }
    let calls = aws.mutating();
    let equal = run(dir.path(), &plan, 0).await;
    assert_eq!(counts(&equal.report, "/totals/equal"), tables);
    let again = run(dir.path(), &["run", "glue-resync", "--yes"], 0).await;
    assert_eq!(aws.mutating(), calls, "what is equal is left alone");

    // Some of all are spoilt.
    let mut spoilt = 0;
    {
        let mut cloud = aws.cloud();
        for (n, (_, kept)) in cloud.tables.iter_mut().enumerate() {
            match n % 50 {
                0 => kept.input["StorageDescriptor"]["Columns"][0]["Type"] = json!("string"),
                1 => kept.input["StorageDescriptor"]["Location"] = json!("s3://lake/elsewhere"),
                _ => continue,
            }
            kept.version += 1;
            spoilt += 1;
        }
        for kept in cloud.tables.values_mut().filter(|kept| !kept.partitions.is_empty()) {
            let gone: Vec<_> = kept.partitions.keys().step_by(10).cloned().collect();
            for values in &gone {
                kept.partitions.remove(values);
            }
        }
    }
    let before = aws.called("UpdateTable");
    // What lies elsewhere could be somebody else's: it is adopted by name.
    let adopt = ["run", "glue-resync", "--yes", "--set", "glue_resync.adopt=[\"lake.*\"]"];
    let mended = run(dir.path(), &adopt, 0).await;
    assert!(aws.called("UpdateTable") - before >= spoilt);
    let after = run(dir.path(), &plan, 0).await;
    assert_eq!(counts(&after.report, "/totals/equal"), tables);
    assert_eq!(aws.cloud().tables.values().map(|t| t.partitions.len()).sum::<usize>(), partitions);

    let peak = [&empty, &made, &equal, &again, &mended]
        .map(|took| took.peak_mb)
        .into_iter()
        .max()
        .unwrap_or_default();
    println!(
        "glue: tables={tables} partitions={partitions} plan={:.1}s make={:.1}s equal={:.1}s mend={:.1}s spoilt={spoilt} \
         peak_rss_mb={peak} most_calls_at_once={parallel} violations=0",
        empty.seconds, made.seconds, again.seconds, mended.seconds
    );
    assert!(peak < 600, "it took {peak} MB");
}
