//! Long tasks of DSS: found again after a crash, done again after a restart of DSS, never run twice side by side.

use std::sync::Arc;
use std::time::Duration;

use dssflow_sandbox::dss::behaviour::Behaviour;
use dssflow_sandbox::faults::{Action, Fault, Target};
use serde_json::json;

use super::lab::{Lab, Ledger};

const PUSH: &str = "POST /admin/container-exec/actions/push-base-images";
const INSTALL: &str = "POST /plugins/actions/installFromStore";

/// Futures that are not over before so many looks.
fn futures_take(lab: &Lab, future_polls: u32) {
    lab.dss.behave(Behaviour { future_polls, ..Behaviour::default() }).unwrap();
}

/// Runs the step until its task is on record, and then is killed.
async fn killed_at_the_task(lab: &Lab, name: &str, input: &serde_json::Value) -> Arc<Ledger> {
    let ledger = Arc::new(Ledger::default());
    let ctx = lab.context(name, &ledger);
    let activity = lab.activity(name);
    let on_record = async {
        while !ledger.recorded.lock().unwrap().resources.iter().any(|resource| resource.kind == "dss:task") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        ended = activity.execute(&ctx, input) => panic!("{name} ended: {ended:?}"),
        () = on_record => {}
    }
    // What is durable when the record is.
    let heartbeat = ledger.heartbeat.lock().unwrap().clone().unwrap();
    assert!(heartbeat["job_id"].is_string(), "the id goes to the store before the first look: {heartbeat}");
    ledger
}

#[tokio::test]
async fn an_attempt_after_a_crash_waits_for_the_same_task() {
    for (name, input, op) in [
        ("dss.push-base-images", json!({}), PUSH),
        ("dss.plugin", json!({"source": {"kind": "store"}}), INSTALL),
    ] {
        let lab = Lab::open(14).await;
        lab.count(op);
        futures_take(&lab, 1_000_000);
        let input = lab.input(input);
        let ledger = killed_at_the_task(&lab, name, &input).await;
        assert_eq!(lab.counted(), 1, "{name}");
        futures_take(&lab, 2);
        let activity = lab.activity(name);
        // The task itself still wants a million looks: a second post would be the only way to be done at once.
        let ctx = lab.context(name, &ledger);
        let waits = tokio::time::timeout(Duration::from_millis(300), activity.execute(&ctx, &input)).await;
        assert!(
            waits.is_err() || name == "dss.plugin",
            "{name} did not wait for the task under way: {waits:?}"
        );
        assert_eq!(lab.counted(), 1, "{name} was posted again");
    }
}

#[tokio::test]
async fn a_restart_of_dss_forgets_the_task_and_it_is_started_once_more() {
    let lab = Lab::open(14).await;
    lab.count(PUSH);
    futures_take(&lab, 1_000_000);
    let input = lab.input(json!({}));
    let ledger = killed_at_the_task(&lab, "dss.push-base-images", &input).await;
    lab.dss.restart();
    futures_take(&lab, 2);
    let ctx = lab.context("dss.push-base-images", &ledger);
    lab.activity("dss.push-base-images").execute(&ctx, &input).await.unwrap();
    assert_eq!(lab.counted(), 2);
}

#[tokio::test]
async fn a_plugin_whose_task_was_forgotten_is_looked_for_before_it_is_installed_again() {
    let lab = Lab::open(14).await;
    lab.count(INSTALL);
    futures_take(&lab, 1_000_000);
    let input = lab.input(json!({"source": {"kind": "store"}}));
    let ledger = killed_at_the_task(&lab, "dss.plugin", &input).await;
    // The work is over although nobody was told.
    while lab.dss.snapshot()["plugins"].get("eks-clusters").is_none() {
        tokio::task::yield_now().await;
    }
    lab.dss.restart();
    let ctx = lab.context("dss.plugin", &ledger);
    let output = lab.activity("dss.plugin").execute(&ctx, &input).await.unwrap();
    assert_eq!(output["plugin_id"], "eks-clusters");
    assert_eq!(lab.counted(), 1);
}

#[tokio::test]
async fn a_task_that_failed_is_an_error_with_its_reason_and_started_anew_the_next_time() {
    let mut lab = Lab::open(14).await;
    let fails = Action::State { polls: 2, end: "FAILED".into() };
    lab.faults.set(vec![Fault::new(Target::Dss, PUSH, fails).times(1)]);
    let error = lab.step("dss.push-base-images", json!({})).await.unwrap_err();
    assert_eq!(error.code, "ERR_FAULT");
    assert!(error.message.contains("as scripted") && !error.no_effect, "{error:?}");
    let (name, input, ledger) = lab.steps.last().unwrap();
    lab.attempt(name, input, ledger).await.unwrap();
}

#[tokio::test]
async fn some_looks_may_fail_while_dss_is_busy() {
    let mut lab = Lab::open(14).await;
    futures_take(&lab, 3);
    let busy = Action::Error { status: 502, code: "html".into(), message: "Bad Gateway".into() };
    lab.faults.set(vec![Fault::new(Target::Dss, "GET /futures/*", busy).times(4)]);
    lab.step("dss.push-base-images", json!({})).await.unwrap();
    assert_eq!(lab.faults.report()[0].fired, 4);
}
