//! The DSS activities against the fake DSS, in one process: make everything, find everything, take it back.
//!
//! Beside DSS stands as much of AWS as these activities look at: whether EKS has a cluster, that there are no stacks,
//! tables of Glue and objects of S3. What DSS, eksctl and AWS do together is shown in the whole-system tests.

#![expect(clippy::unwrap_used, reason = "helpers of a test may panic as tests do")]

#[path = "dss/behaviour.rs"]
mod behaviour;
#[path = "dss/clusters.rs"]
mod clusters;
#[path = "dss/lab.rs"]
mod lab;
#[path = "dss/secrets.rs"]
mod secrets;
#[path = "dss/smoke.rs"]
mod smoke;
#[path = "dss/tasks.rs"]
mod tasks;

use dssflow_engine::activity::{ErrorClass, Owner, Probe, Undo};
use dssflow_sandbox::faults::{Action, Fault, Target};
use serde_json::json;

use lab::{Lab, by_hand, comparable, eks_cluster, secret};

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
    let mut settings = by_hand(&lab, reqwest::Method::GET, "/admin/general-settings", None).await;
    settings["defaultK8sClusterId"] = json!("theirs");
    by_hand(&lab, reqwest::Method::PUT, "/admin/general-settings", Some(&settings)).await;
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
