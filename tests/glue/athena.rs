//! `verify_athena` against an Athena that reads: ministack's, which runs the query over the file in S3 by way of the
//! table in Glue. The datasets are those of the sandbox's DSS; AWS is the emulator, reached as a user reaches his own.

use std::path::PathBuf;

use dssflow_activities::clients::{AwsClients, ClientsConfig, StaticCredentials};
use reqwest::Method;
use serde_json::{Value, json};

use crate::emulator::{ACCOUNT, Emulator, REGION};
use crate::lake::{DATABASE, Lake, PROJECT};
use crate::support::{Home, Ran, runtime};

const ID: &str = "test";

/// A dataset. In tab-separated text, DuckDB reads its file as Athena reads it.
fn dataset(lake: &Lake, name: &str, format: &str) -> Value {
    let dataset = json!({
        "projectKey": PROJECT, "name": name, "type": "S3", "managed": true, "formatType": format,
        "formatParams": {"style": "no_escape_no_quote", "separator": "\t", "parseHeaderRow": false},
        "params": {
            "connection": "s3-main", "path": format!("dataiku/{PROJECT}/{name}"),
            "metastoreSynchronizationEnabled": false, "metastoreTableName": Lake::table_name(name)
        },
        "partitioning": {"dimensions": []},
        "schema": {"columns": [{"name": "id", "type": "int"}, {"name": "amount", "type": "int"}], "userModified": false}
    });
    lake.home.dss().call(Method::POST, &format!("/projects/{PROJECT}/datasets/"), Some(&dataset))
}

/// The same account for the test's own hands.
async fn hands(emulator: &Emulator) -> AwsClients {
    let mut config = ClientsConfig::new(REGION);
    config.endpoint_url = Some(format!("http://{}", emulator.address));
    config.credentials = Some(StaticCredentials::new(ID.to_owned(), ID.to_owned()));
    AwsClients::connect(&config).await
}

fn resync(home: &Home, emulator: &Emulator, file: &str) -> Ran {
    let env = [
        ("AWS_ENDPOINT_URL", format!("http://{}", emulator.address)),
        ("AWS_ACCESS_KEY_ID", ID.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", ID.to_owned()),
        ("DSS_KEY", home.dss().key),
    ];
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, PathBuf::from(value))).collect();
    home.run_with(&["run", "glue-resync", "-f", file, "--yes"], &env)
}

#[test]
fn athena_reads_what_was_mended_and_a_table_that_it_cannot_read_fails_the_run() {
    let lake = Lake::new();
    for name in ["orders", "items"] {
        dataset(&lake, name, "csv");
    }
    let home = &lake.home;
    let bucket = home.world().buckets[0].clone();
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = runtime();
    let emulator = runtime.block_on(Emulator::start(dir.path()));
    let aws = runtime.block_on(hands(&emulator));
    let put = |name: &str, text: &'static str| {
        let key = format!("dataiku/{PROJECT}/{name}/part-0.csv");
        let put = aws.s3().put_object().bucket(&bucket).key(key).body(text.as_bytes().to_vec().into());
        runtime.block_on(put.send()).expect("a file");
    };
    runtime.block_on(aws.s3().create_bucket().bucket(&bucket).send()).expect("a bucket");
    let database = aws_sdk_glue::types::DatabaseInput::builder().name(DATABASE).build().expect("a name");
    runtime.block_on(aws.glue().create_database().database_input(database).send()).expect("a database");
    put("orders", "7\t70\n");
    put("items", "8\t80\n9\t90\n");
    let spec = |names: &str| {
        let names: Vec<String> = names.split(", ").map(|name| format!("{PROJECT}.{name}")).collect();
        let output = format!("s3://{bucket}/results/");
        let spec = json!({
            "name": "lab", "expected_account": ACCOUNT, "region": REGION,
            "dss": {"url": home.dss().url, "api_key": {"env": "DSS_KEY"}},
            "connections": [{"name": "s3-main", "glue_database": DATABASE}],
            "glue_resync": {
                "mode": "direct", "include": "all", "datasets": names,
                "verify_athena": {"output_location": output, "tables": 10}
            }
        });
        let file = home.path().join("resync.yaml");
        std::fs::write(&file, spec.to_string()).expect("a file of ours");
        file.to_str().expect("a plain path").to_owned()
    };

    resync(home, &emulator, &spec("orders, items"))
        .expect(0)
        .says("2 datasets: 0 equal, 2 added")
        .says("mended: 2 tables");
    let queries = home.step("queries")["output"].clone();
    // A row of each, as DuckDB has found it in S3 through the table that dssflow made.
    let mut rows: Vec<Value> =
        queries.as_array().expect("a query a table").iter().map(|q| q["rows"].clone()).collect();
    rows.sort_by_key(Value::to_string);
    assert!(rows.contains(&json!([["7", "70"]])), "{rows:?}");
    assert!(rows.iter().any(|rows| [json!([["8", "80"]]), json!([["9", "90"]])].contains(rows)), "{rows:?}");

    // What is equal is read again, and what Athena cannot read is no success, whatever Glue says.
    dataset(&lake, "visits", "parquet");
    put("visits", "no parquet\n");
    let failed = resync(home, &emulator, &spec("orders, items, visits")).expect(1);
    let failed = failed.says("3 datasets: 2 equal, 1 added");
    failed.says("1 table cannot be queried, not readable: dss_main.churn_visits").says("step queries");
}
