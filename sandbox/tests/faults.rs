//! What the proxy does on request: throttling, stale reads, requests that land late, slow and failing ends of things,
//! and scripts that it refuses.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use dssflow_sandbox::{
    Action, Fault, Only, SandboxError, Target, calls_since, fault_report, forget_tokens, set_faults,
    wait_for_faults,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Lab, client};

const EC2: (&str, &str) = ("Version", "2016-11-15");

async fn script(lab: &Lab, faults: &[Fault]) {
    set_faults(&lab.world, faults).await.unwrap();
}

fn state(op: &str, polls: u32, end: &str) -> Fault {
    Fault::new(Target::Aws, op, Action::State { polls, end: end.to_owned() })
}

/// Starts an instance and gives its id.
async fn launch(lab: &Lab, token: &str) -> String {
    let form = [
        ("Action", "RunInstances"),
        EC2,
        ("ImageId", "ami-1"),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("InstanceType", "t3.micro"),
        ("ClientToken", token),
    ];
    let (status, text) = lab.query("ec2", &form).await.unwrap();
    assert_eq!(status, 200, "{text}");
    text.split("<instanceId>").nth(1).unwrap().split('<').next().unwrap().to_owned()
}

/// The state of an instance, or the code of the refusal.
async fn look(lab: &Lab, id: &str) -> String {
    let form = [("Action", "DescribeInstances"), EC2, ("InstanceId.1", id)];
    let (status, text) = lab.query("ec2", &form).await.unwrap();
    let (open, part) = if status == 200 { ("<instanceState>", "<name>") } else { ("<Error>", "<Code>") };
    let rest = text.split(open).nth(1).unwrap_or_else(|| panic!("{text}"));
    rest.split(part).nth(1).unwrap().split('<').next().unwrap().to_owned()
}

#[tokio::test]
async fn throttling_has_each_services_form_and_says_when_to_come_back() {
    let lab = Lab::new().await;
    let throttle = Action::Throttle { retry_after_s: Some(3) };
    script(
        &lab,
        &[Fault::new(Target::Aws, "*", throttle.clone()), Fault::new(Target::Dss, "GET *", throttle)],
    )
    .await;
    let (status, text) = lab.query("ec2", &[("Action", "DescribeVpcs"), EC2]).await.unwrap();
    assert_eq!(status, 503);
    assert!(text.contains("<Code>RequestLimitExceeded</Code>"), "{text}");
    let (status, text) = lab.query("iam", &[("Action", "ListRoles")]).await.unwrap();
    assert_eq!(status, 400);
    assert!(text.contains("<Code>Throttling</Code>"), "{text}");
    let (status, body) = lab.json("glue", "AWSGlue.GetDatabases", &json!({})).await;
    assert_eq!((status.as_u16(), &body["__type"]), (400, &json!("ThrottlingException")));
    let (status, body) = lab.eks(Method::GET, "/clusters", None).await;
    assert_eq!((status.as_u16(), &body["code"]), (429, &json!("ThrottlingException")));
    let report = fault_report(&lab.world).await.unwrap();
    assert_eq!((report[0].fired, report[1].matched), (4, 0), "DSS is not even running");
    lab.end().await;
}

#[tokio::test]
async fn reads_after_a_change_can_be_stale() {
    let lab = Lab::new().await;
    let all = [("Action", "DescribeInstances"), EC2];
    let count = async || {
        let (_, text) = lab.query("ec2", &all).await.unwrap();
        text.matches("<instanceId>").count()
    };
    let before = count().await;
    script(&lab, &[Fault::new(Target::Aws, "ec2:RunInstances", Action::Stale { reads: 3 }).times(1)]).await;
    let id = launch(&lab, "t1").await;
    assert_eq!(count().await, before, "as it was seen before");
    assert_eq!(look(&lab, &id).await, "InvalidInstanceID.NotFound", "the id is not known yet");
    assert_eq!(count().await, before);
    assert_eq!(count().await, before + 1, "three reads were stale");
    // Another change, seen at once.
    launch(&lab, "t2").await;
    assert_eq!(count().await, before + 2);
    lab.end().await;
}

#[tokio::test]
async fn a_request_can_land_after_its_sender_gave_up() {
    let lab = Lab::new().await;
    script(&lab, &[Fault::new(Target::Aws, "ecr:CreateRepository", Action::Late { ms: 300 }).times(1)]).await;
    let target = |operation: &str| format!("AmazonEC2ContainerRegistry_V20150921.{operation}");
    let create = {
        let scope = format!("{}/20260101/eu-west-1/ecr/aws4_request", lab.world.access_key_id);
        client()
            .post(&lab.world.aws_endpoint)
            .header(
                "authorization",
                format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"),
            )
            .header("x-amz-target", target("CreateRepository"))
            .body(json!({ "repositoryName": "late" }).to_string())
            .send()
    };
    assert!(create.await.is_err(), "the connection was dropped");
    let there = async || {
        let (_, found) = lab.json("ecr", &target("DescribeRepositories"), &json!({})).await;
        found["repositories"].as_array().unwrap().iter().any(|it| it["repositoryName"] == "late")
    };
    assert!(!there().await, "not yet");
    for _ in 0..200 {
        if there().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(there().await, "it landed");
    let calls = calls_since(&lab.world, 0).await.unwrap().recent;
    let faults: Vec<_> = calls.iter().filter_map(|call| call.fault.as_deref()).collect();
    assert_eq!(faults, ["late: lands in 300 ms", "landed late"]);
    lab.end().await;
}

#[tokio::test]
async fn instances_take_their_time_and_may_fail() {
    let lab = Lab::new().await;
    let id = launch(&lab, "t1").await;
    assert_eq!([look(&lab, &id).await, look(&lab, &id).await], ["pending", "running"], "one look by default");
    let end = async |id: &str| {
        lab.query("ec2", &[("Action", "TerminateInstances"), EC2, ("InstanceId.1", id)]).await
    };
    script(&lab, &[state("ec2:TerminateInstances", 2, "GONE"), state("ec2:RunInstances", 1, "FAILED")]).await;
    assert_eq!(end(&id).await.unwrap().0, 200);
    let seen = [look(&lab, &id).await, look(&lab, &id).await, look(&lab, &id).await];
    assert_eq!(seen, ["shutting-down", "shutting-down", "terminated"]);
    let id = launch(&lab, "t2").await;
    assert_eq!([look(&lab, &id).await, look(&lab, &id).await], ["pending", "terminated"]);
    // The token of an instance that has ended gives it again, until AWS has forgotten it.
    assert_eq!(launch(&lab, "t2").await, id);
    forget_tokens(&lab.world).await.unwrap();
    assert_ne!(launch(&lab, "t2").await, id);
    lab.end().await;
}

#[tokio::test]
async fn deletions_can_fail() {
    let lab = Lab::new().await;
    let role = "arn:aws:iam::123456789012:role/x";
    let cluster = json!({ "name": "c", "roleArn": role,
                          "resourcesVpcConfig": { "subnetIds": &lab.world.subnets[..2] } });
    assert_eq!(lab.eks(Method::POST, "/clusters", Some(cluster)).await.0, 200);
    for _ in 0..2 {
        lab.eks(Method::GET, "/clusters/c", None).await;
    }
    let group = json!({ "nodegroupName": "n", "nodeRole": role, "subnets": &lab.world.subnets[..2] });
    assert_eq!(lab.eks(Method::POST, "/clusters/c/node-groups", Some(group)).await.0, 200);
    let path = "/clusters/c/node-groups/n";
    let status = async || {
        let (status, body) = lab.eks(Method::GET, path, None).await;
        if status == StatusCode::NOT_FOUND { json!("gone") } else { body["nodegroup"]["status"].clone() }
    };
    while status().await != "ACTIVE" {}
    script(&lab, &[state("eks:DeleteNodegroup", 1, "DELETE_FAILED").times(1)]).await;
    assert_eq!(lab.eks(Method::DELETE, path, None).await.0, 200);
    assert_eq!([status().await, status().await], ["DELETING", "DELETE_FAILED"]);
    // Once more, and now it goes.
    assert_eq!(lab.eks(Method::DELETE, path, None).await.0, 200);
    assert_eq!([status().await, status().await], ["DELETING", "gone"]);

    let template =
        r#"{"AWSTemplateFormatVersion":"2010-09-09","Resources":{"T":{"Type":"AWS::SNS::Topic"}}}"#;
    let stack = ("StackName", "s");
    lab.query("cloudformation", &[("Action", "CreateStack"), stack, ("TemplateBody", template)])
        .await
        .unwrap();
    let status = async || {
        let (_, text) = lab.query("cloudformation", &[("Action", "DescribeStacks")]).await.unwrap();
        let rest = text.split("<StackStatus>").nth(1);
        rest.map_or("gone", |rest| rest.split('<').next().unwrap()).to_owned()
    };
    let delete = [("Action", "DeleteStack"), stack];
    script(
        &lab,
        &[
            state("cloudformation:DeleteStack", 1, "DELETE_FAILED").times(1),
            state("cloudformation:DeleteStack", 2, "GONE"),
        ],
    )
    .await;
    assert_eq!(lab.query("cloudformation", &delete).await.unwrap().0, 200);
    assert_eq!([status().await, status().await], ["DELETE_IN_PROGRESS", "DELETE_FAILED"]);
    assert_eq!(lab.query("cloudformation", &delete).await.unwrap().0, 200);
    assert_eq!(
        [status().await, status().await, status().await],
        ["DELETE_IN_PROGRESS", "DELETE_IN_PROGRESS", "gone"]
    );
    lab.end().await;
}

#[tokio::test]
async fn a_script_is_waited_for_counted_and_checked() {
    let lab = Lab::new().await;
    let hang = Fault::new(Target::Aws, "*", Action::Hang).only(Only::Changes).after().times(1);
    script(&lab, std::slice::from_ref(&hang)).await;
    assert!(!wait_for_faults(&lab.world, 1, Duration::from_millis(20)).await.unwrap());
    lab.eks(Method::GET, "/clusters", None).await;
    let database = json!({ "DatabaseInput": { "Name": "a" } });
    let create = lab.json("glue", "AWSGlue.CreateDatabase", &database);
    tokio::select! {
        _ = create => panic!("it hangs"),
        met = wait_for_faults(&lab.world, 1, Duration::from_secs(20)) => assert!(met.unwrap()),
    }
    let report = fault_report(&lab.world).await.unwrap();
    assert_eq!((report[0].matched, report[0].fired), (1, 1), "the read did not match");
    script(&lab, &[]).await;
    let (_, found) = lab.json("glue", "AWSGlue.GetDatabase", &json!({ "Name": "a" })).await;
    assert_eq!(found["Database"]["Name"], "a", "it was carried out before it hung");

    let typo = Fault::new(Target::Aws, "eks:CreateNodeGroup", Action::Reset);
    match set_faults(&lab.world, &[typo]).await {
        Err(SandboxError::Admin { detail, .. }) => assert!(detail.contains("did you mean"), "{detail}"),
        other => panic!("{other:?}"),
    }
    let unknown: Value = json!([{ "target": "aws", "op": "eks:*", "action": "reset", "time": 1 }]);
    let posted = client()
        .post(format!("{}/faults", lab.world.admin_url))
        .header("x-sandbox-token", &lab.world.admin_token)
        .json(&unknown);
    assert!(posted.send().await.unwrap().status().is_client_error());
    lab.end().await;
}
