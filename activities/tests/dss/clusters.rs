//! Clusters: defined, started once and never twice, taken down.

use std::sync::Arc;
use std::time::Duration;

use dssflow_engine::activity::{ErrorClass, Owner, Probe, Recorded, Undo};
use dssflow_sandbox::dss::backend::ClusterSpec;
use dssflow_sandbox::dss::behaviour::{Behaviour, Pods, StartReply};
use dssflow_sandbox::faults::{Action, Fault, Target};
use serde_json::{Value, json};

use super::lab::{Lab, eks_cluster};

impl Lab {
    /// Plugin, code env, presets and a definition; gives its id.
    pub(crate) async fn define(&mut self) -> Value {
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

pub(crate) const START: &str = "POST /admin/clusters/*/actions/start";

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

/// A pod that asks for DSS at `address`, on a running cluster that is otherwise left as it is.
async fn pods_reach(lab: &mut Lab, id: &Value, address: &str, pods: Pods) -> Result<Value, (String, String)> {
    lab.dss.behave(Behaviour { pods, ..Behaviour::default() }).unwrap();
    let before = lab.dss.snapshot();
    let input =
        json!({"cluster_id": id, "image": "r/dku-exec-base:dss-14", "address": address, "port": 11200});
    let (input, ledger) = (lab.input(input), Arc::default());
    let answer =
        lab.activity("dss.pods-check").execute(&lab.context("dss.pods-check", &ledger), &input).await;
    assert_eq!(lab.dss.snapshot(), before, "a pod was left behind");
    answer.map_err(|error| (error.code, format!("{} {}", error.message, error.help.unwrap_or_default())))
}

#[tokio::test]
async fn p32_a_pod_tells_whether_it_reaches_dss_and_is_gone_afterwards() {
    let mut lab = Lab::open(14).await;
    let id = lab.define().await;
    lab.step("dss.cluster-start", json!({"id": id})).await.unwrap();
    let reached = pods_reach(&mut lab, &id, "10.0.0.9", Pods::Reach).await.unwrap();
    assert_eq!(reached["reach"], "reached", "{reached}");
    for (pods, address, told) in [
        (Pods::Unresolved, "dss.internal", "DKU_BACKEND_EXT_HOST"),
        (Pods::Refused, "10.0.0.9", "nothing listens"),
        (Pods::TimesOut, "10.0.0.9", "security groups"),
        // What P32 is about: a name that is the pod itself.
        (Pods::Reach, "localhost", "localhost"),
    ] {
        let (code, text) = pods_reach(&mut lab, &id, address, pods).await.unwrap_err();
        assert!(code == "PodsCannotReachDss" && text.contains(told), "{pods:?}: {text}");
    }
    for pods in [Pods::NoCurl, Pods::Pending] {
        let told = pods_reach(&mut lab, &id, "10.0.0.9", pods).await.unwrap();
        assert_eq!(told["reach"], "untold", "{pods:?}: {told}");
    }
}

#[tokio::test]
async fn p32_a_pod_that_a_lost_attempt_started_is_waited_for() {
    let mut lab = Lab::open(14).await;
    let id = lab.define().await;
    lab.step("dss.cluster-start", json!({"id": id})).await.unwrap();
    // The first reply to `run` is lost after the pod was made, so the attempt fails; the next one finds the pod.
    lab.dss.behave(Behaviour::default()).unwrap();
    let before = lab.dss.snapshot();
    let kubectl = "POST /admin/clusters/*/k8s/actions/run-kubectl";
    lab.faults.set(vec![Fault::new(Target::Dss, kubectl, Action::Reset).after().skip(1).times(1)]);
    let input = json!({"cluster_id": id, "image": "r/i:t", "address": "10.0.0.9", "port": 11200});
    let (input, ledger, activity) = (lab.input(input), Arc::default(), lab.activity("dss.pods-check"));
    let lost = activity.execute(&lab.context("dss.pods-check", &ledger), &input).await.unwrap_err();
    assert!(lost.class == ErrorClass::Retryable && lost.no_effect, "{lost:?}");
    assert_ne!(lab.dss.snapshot(), before, "the pod is there");
    let reached = activity.execute(&lab.context("dss.pods-check", &ledger), &input).await.unwrap();
    assert_eq!(reached["reach"], "reached", "{reached}");
    assert_eq!(lab.dss.snapshot(), before);
}

/// Waits until eksctl is at work.
async fn until_creating(lab: &Lab) {
    while lab.cloud.seen().creating.is_empty() {
        tokio::task::yield_now().await;
    }
}

fn starts_so(lab: &Lab, cluster_start: StartReply) {
    lab.dss.behave(Behaviour { cluster_start, ..Behaviour::default() }).unwrap();
}

/// The start whose reply never comes, or whose connection breaks while eksctl works.
async fn silent_start(reply: StartReply) {
    let mut lab = Lab::open(14).await;
    let id = lab.define().await;
    lab.count(START);
    starts_so(&lab, reply);
    lab.cloud.hold_creations();
    let cloud = lab.cloud.clone();
    let release = tokio::spawn(async move {
        while cloud.seen().creating.is_empty() {
            tokio::task::yield_now().await;
        }
        // Some looks of ours meanwhile.
        tokio::time::sleep(Duration::from_millis(60)).await;
        cloud.let_go();
    });
    lab.step("dss.cluster-start", json!({"id": id})).await.unwrap();
    release.await.unwrap();
    assert_eq!((lab.counted(), lab.cloud.seen().creations), (1, 1), "{reply:?}");
    // The stop answers as usual.
    for (name, undo) in lab.undo().await {
        assert_eq!(undo, Ok(Undo::Undone), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_connection_breaks_midway_is_not_posted_again() {
    silent_start(StartReply::Drops).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_never_answers_is_seen_through_by_its_state() {
    silent_start(StartReply::Hangs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_killed_during_the_start_finds_it_under_way_and_posts_nothing() {
    let mut lab = Lab::open(14).await;
    let id = lab.define().await;
    lab.count(START);
    lab.cloud.hold_creations();
    let (activity, ledger) = (lab.activity("dss.cluster-start"), Arc::default());
    let (ctx, input) = (lab.context("dss.cluster-start", &ledger), lab.input(json!({"id": id})));
    tokio::select! {
        ended = activity.execute(&ctx, &input) => panic!("the start is held: {ended:?}"),
        () = until_creating(&lab) => {}
    }
    // The attempt is gone with its connection; DSS and eksctl go on.
    let found = activity.probe(&ctx, &input).await.unwrap();
    assert!(matches!(&found, Probe::InProgress { detail } if detail.contains("CREATING")), "{found:?}");
    lab.cloud.let_go();
    let found = loop {
        match activity.probe(&ctx, &input).await.unwrap() {
            Probe::InProgress { .. } => tokio::task::yield_now().await,
            found => break found,
        }
    };
    assert!(matches!(found, Probe::Present { owner: Owner::ThisRun, .. }), "{found:?}");
    assert_eq!((lab.counted(), lab.cloud.seen().creations), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_dss_during_the_start_is_no_reason_to_start_on_top_of_it() {
    let mut lab = Lab::open(14).await;
    let id = lab.define().await;
    lab.count(START);
    lab.cloud.hold_creations();
    let (activity, ledger) = (lab.activity("dss.cluster-start"), Arc::default());
    let (ctx, input) = (lab.context("dss.cluster-start", &ledger), lab.input(json!({"id": id})));
    tokio::select! {
        ended = activity.execute(&ctx, &input) => panic!("the start is held: {ended:?}"),
        () = until_creating(&lab) => {}
    }
    // DSS says NONE from now on, whatever becomes of eksctl.
    lab.dss.restart();
    let found = activity.probe(&ctx, &input).await.unwrap();
    assert!(matches!(&found, Probe::InProgress { detail } if detail.contains("CREATING")), "{found:?}");
    let error = activity.execute(&ctx, &input).await.unwrap_err();
    assert_eq!((error.code.as_str(), lab.counted()), ("ClusterBusy", 1), "{error}");
    lab.cloud.let_go();
    while !lab.cloud.seen().creating.is_empty() {
        tokio::task::yield_now().await;
    }
    // AWS is believed: what the lost start made is there, of this run, and of no use to DSS.
    let found = activity.probe(&ctx, &input).await.unwrap();
    assert!(matches!(found, Probe::Failed { owner: Owner::ThisRun, .. }), "{found:?}");
    assert_eq!(lab.counted(), 1);
    // The next generation takes it down before it starts its own.
    activity.execute(&ctx, &input).await.unwrap();
    let seen = lab.cloud.seen();
    assert_eq!((lab.counted(), seen.creations, seen.clusters.len()), (2, 2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_dss_does_not_show_is_seen_in_aws() {
    let mut lab = Lab::open(14).await;
    let id = lab.define().await;
    lab.count(START);
    lab.dss
        .behave(Behaviour { shows_starting: false, cluster_start: StartReply::Drops, ..Behaviour::default() })
        .unwrap();
    lab.cloud.hold_creations();
    let error = lab.step("dss.cluster-start", json!({"id": id})).await.unwrap_err();
    assert!(error.class == ErrorClass::Retryable && !error.no_effect, "{error:?}");
    let (name, input, ledger) = lab.steps.last().unwrap();
    let found = lab.activity(name).probe(&lab.context(name, ledger), input).await.unwrap();
    assert!(matches!(found, Probe::InProgress { .. }), "{found:?}");
    lab.cloud.let_go();
    while !lab.cloud.seen().creating.is_empty() {
        tokio::task::yield_now().await;
    }
    lab.attempt(name, input, ledger).await.unwrap();
    assert_eq!((lab.counted(), lab.cloud.seen().creations), (1, 1));
}

#[tokio::test]
async fn a_start_that_answers_with_an_error_is_one() {
    let mut lab = Lab::open(14).await;
    let id = lab.define().await;
    starts_so(&lab, StartReply::Fails);
    let error = lab.step("dss.cluster-start", json!({"id": id})).await.unwrap_err();
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Retryable, "ERR_CLUSTERS_START_FAILED"));
    assert!(error.help.is_some(), "{error:?}");
    starts_so(&lab, StartReply::Answers);
    let (name, input, ledger) = lab.steps.last().unwrap();
    lab.attempt(name, input, ledger).await.unwrap();
    assert_eq!(lab.cloud.seen().clusters.len(), 1);
}
