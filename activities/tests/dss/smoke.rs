//! The smoke test: what it makes, what it finds, and that nothing of it stays.

use std::sync::Arc;

use dssflow_engine::activity::{ErrorClass, Undo};
use dssflow_sandbox::faults::{Action, Fault, Target};
use reqwest::Method;
use serde_json::{Value, json};

use super::lab::{Lab, by_hand, eks_cluster};

const JOB: &str = "POST /projects/*/jobs";

/// A wired DSS; the steps of the wiring are forgotten, so that an undo takes back the smoke test alone.
async fn wired() -> Lab {
    let mut lab = Lab::open(14).await;
    lab.cloud.add_cluster(eks_cluster());
    lab.wire().await;
    lab.steps.clear();
    lab
}

struct Made {
    key: String,
    copy: Value,
    rows: Value,
}

impl Lab {
    async fn prepare_smoke(&mut self) -> Made {
        let project = json!({"cluster_id": "main", "container_config": "eks"});
        let key = self.step("dss.smoke-project", project).await.unwrap()["key"].as_str().unwrap().to_owned();
        assert!(key.starts_with("DSSFLOW_SMOKE_") && key.len() == 22, "{key}");
        let mut datasets = Vec::new();
        for name in ["smoke_rows", "smoke_copy"] {
            let input = json!({"project": key, "name": name, "connection": "one", "glue_database": "db_one"});
            datasets.push(self.step("dss.smoke-dataset", input).await.unwrap());
        }
        let python = json!({"project": key, "name": "smoke_python", "output": "smoke_rows",
                            "engine": {"kind": "python", "container_config": "eks", "rows": 3}});
        self.step("dss.smoke-recipe", python).await.unwrap();
        let spark = json!({"project": key, "name": "smoke_spark", "input": "smoke_rows", "output": "smoke_copy",
                           "engine": {"kind": "spark", "spark_config": "SparkOnEKS"}});
        self.step("dss.smoke-recipe", spark).await.unwrap();
        let copy = datasets.pop().unwrap();
        let rows = datasets.pop().unwrap();
        Made { key, copy, rows }
    }

    fn job(made: &Made) -> Value {
        json!({"project": made.key, "dataset": "smoke_copy"})
    }

    fn clean(made: &Made) -> Value {
        json!({"project": made.key, "recipes": ["smoke_spark", "smoke_python"], "datasets": [made.copy, made.rows]})
    }

    async fn table(&mut self, made: &Made) -> Value {
        let table = json!({"project": made.key, "dataset": "smoke_copy", "database": made.copy["database"], "table": made.copy["table"]});
        self.step("dss.smoke-table", table).await.unwrap()
    }
}

#[tokio::test]
async fn data_is_made_copied_found_counted_and_removed() {
    let mut lab = wired().await;
    let before = lab.dss.snapshot();
    let made = lab.prepare_smoke().await;
    // Every step again, as after a crash: nothing is made twice.
    for (name, input, ledger) in &lab.steps {
        lab.attempt(name, input, ledger).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let project = &lab.dss.snapshot()["projects"][&made.key];
    assert_eq!(project["datasets"].as_object().unwrap().len(), 2);
    let python = &project["recipes"]["smoke_python"]["recipe"]["params"];
    assert_eq!(python["containerSelection"]["containerConf"], "eks");
    let spark = &project["recipes"]["smoke_spark"]["recipe"]["params"];
    assert_eq!(spark["sparkConfig"]["inheritConf"], "SparkOnEKS");
    lab.step("dss.smoke-job", Lab::job(&made)).await.unwrap();
    let table = lab.table(&made).await;
    assert_eq!(table["columns"], 1);
    let count = json!({"connection": "athena-one", "query": table["count_query"], "expect": "3"});
    lab.step("dss.sql-check", count.clone()).await.unwrap();
    let mut wrong = count;
    wrong["expect"] = json!("4");
    let error = lab.step("dss.sql-check", wrong).await.unwrap_err();
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Retryable, "SqlAnswer"));
    let removed = lab.step("dss.smoke-clean", Lab::clean(&made)).await.unwrap();
    assert_eq!(removed["removed"].as_array().unwrap().len(), 5, "{removed}");
    assert_eq!(lab.dss.snapshot(), before);
    let seen = lab.cloud.seen();
    assert!(seen.data.is_empty() && seen.tables.is_empty(), "{seen:?}");
    // Twice, and the undo of everything: nothing is left to do.
    let (name, input, ledger) = lab.steps.last().unwrap();
    assert_eq!(lab.attempt(name, input, ledger).await.unwrap()["removed"], json!([]));
    for (name, undo) in lab.undo().await {
        assert_eq!(undo, Ok(Undo::NothingToDo), "{name}");
    }
}

#[tokio::test]
async fn a_job_that_fails_says_why_and_the_undo_removes_all_of_it() {
    let mut lab = wired().await;
    let before = lab.dss.snapshot();
    let made = lab.prepare_smoke().await;
    let fails = Action::State { polls: 1, end: "FAILED".into() };
    lab.faults.set(vec![Fault::new(Target::Dss, JOB, fails)]);
    let error = lab.step("dss.smoke-job", Lab::job(&made)).await.unwrap_err();
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Retryable, "SmokeJobFailed"));
    assert!(error.message.contains("as scripted") && error.help.is_some(), "{error:?}");
    for (name, undo) in lab.undo().await {
        undo.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert_eq!(lab.dss.snapshot(), before);
    for (name, undo) in lab.undo().await {
        assert_eq!(undo, Ok(Undo::NothingToDo), "{name}");
    }
}

#[tokio::test]
async fn a_job_under_way_is_found_again_and_none_is_started_beside_it() {
    let mut lab = wired().await;
    let made = lab.prepare_smoke().await;
    // The reply to the start is lost: the job runs all the same.
    let lost = Fault::new(Target::Dss, JOB, Action::Reset).after().times(1);
    lab.faults.set(vec![lost, Fault::new(Target::Dss, JOB, Action::Delay { ms: 0 })]);
    lab.dss
        .behave(dssflow_sandbox::dss::behaviour::Behaviour { future_polls: 6, ..Default::default() })
        .unwrap();
    let error = lab.step("dss.smoke-job", Lab::job(&made)).await.unwrap_err();
    assert!(error.class == ErrorClass::Retryable && !error.no_effect, "{error:?}");
    let (name, input, ledger) = lab.steps.last().unwrap();
    lab.attempt(name, input, ledger).await.unwrap();
    assert_eq!(lab.faults.report()[1].matched, 1, "a second job was started");
    // Killed while it waits, and again: the heartbeat names the job, which is done by now.
    let output = lab.attempt(name, input, ledger).await.unwrap();
    assert!(output["job_id"].is_string());
    assert_eq!(lab.faults.report()[1].matched, 1);
}

#[tokio::test]
async fn a_job_that_still_runs_is_aborted_before_its_data_goes() {
    let mut lab = wired().await;
    let before = lab.dss.snapshot();
    let made = lab.prepare_smoke().await;
    lab.dss
        .behave(dssflow_sandbox::dss::behaviour::Behaviour { future_polls: 1_000_000, ..Default::default() })
        .unwrap();
    let input = lab.input(Lab::job(&made));
    let ledger = Arc::default();
    let ctx = lab.context("dss.smoke-job", &ledger);
    let activity = lab.activity("dss.smoke-job");
    let waits =
        tokio::time::timeout(std::time::Duration::from_millis(50), activity.execute(&ctx, &input)).await;
    assert!(waits.is_err(), "{waits:?}");
    lab.steps.push(("dss.smoke-job".to_owned(), input, ledger));
    for (name, undo) in lab.undo().await {
        assert_eq!(undo, Ok(Undo::Undone), "{name}");
    }
    assert_eq!(lab.dss.snapshot(), before);
}

#[tokio::test]
async fn what_dss_leaves_in_s3_and_glue_is_removed_by_name_and_what_is_elsewhere_is_not() {
    let mut lab = wired().await;
    let made = lab.prepare_smoke().await;
    lab.step("dss.smoke-job", Lab::job(&made)).await.unwrap();
    lab.cloud.be_careless();
    // Somebody else's table took the name meanwhile.
    let table =
        format!("{}.{}", made.rows["database"].as_str().unwrap(), made.rows["table"].as_str().unwrap());
    lab.cloud.put_table(&table, "bucket-one/theirs");
    let error = lab.step("dss.smoke-clean", Lab::clean(&made)).await.unwrap_err();
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Terminal, "ForeignTable"));
    assert!(lab.cloud.seen().tables.contains_key(&table));
    lab.cloud.delete_table(&table);
    let (name, input, ledger) = lab.steps.last().unwrap();
    lab.attempt(name, input, ledger).await.unwrap();
    let seen = lab.cloud.seen();
    assert!(seen.data.is_empty() && seen.tables.is_empty(), "{seen:?}");
}

#[tokio::test]
async fn what_somebody_put_into_the_project_is_kept_and_said() {
    let mut lab = wired().await;
    let made = lab.prepare_smoke().await;
    let theirs = json!({"name": "theirs", "type": "S3", "params": {"connection": "one"}});
    by_hand(&lab, Method::POST, &format!("/projects/{}/datasets/", made.key), Some(&theirs)).await;
    let error = lab.step("dss.smoke-clean", Lab::clean(&made)).await.unwrap_err();
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::NeedsHuman, "SmokeKept"));
    assert!(error.message.contains("theirs"), "{error}");
    let undone = lab.undo().await;
    assert!(
        matches!(&undone.last().unwrap().1, Ok(Undo::Kept { reason }) if reason.contains("theirs")),
        "{undone:?}"
    );
    assert!(lab.dss.snapshot()["projects"].get(&made.key).is_some());
}
