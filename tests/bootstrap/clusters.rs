//! The quarter of an hour in which a cluster is made, gone wrong: in both cluster modes, lost replies, failed creates,
//! and deletions that something stands in the way of.

use serde_json::{Value, json};

use crate::support::{Home, differences, kept_by_rule};

fn count(world: &Value, part: &str) -> usize {
    world.pointer(part).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

/// Takes the run back and holds that nothing of ours is left: no cluster, stack, node group, role or repository.
#[track_caller]
fn nothing_left(home: &Home, before: &Value) {
    home.faults(&json!([]));
    home.run(&["rollback", "@latest"]).expect(0);
    let after = home.snapshot();
    for part in ["/aws/eks", "/aws/cloudformation", "/aws/ecr", "/aws/glue"] {
        assert_eq!(count(&after, part), count(before, part), "{part}: {:?}", after.pointer(part));
    }
    let left: Vec<_> = differences(before, &after).into_iter().filter(|d| !kept_by_rule(d)).collect();
    assert!(left.is_empty(), "{}", left.join("\n"));
}

#[test]
fn a_lost_reply_to_the_plugins_start_makes_no_second_cluster() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    home.faults(&json!([
        { "target": "dss", "op": "POST /admin/clusters/*/actions/start", "phase": "after", "action": "reset", "times": 1 },
        { "target": "dss", "op": "POST /admin/clusters*", "phase": "after", "action": "reset", "times": 1 },
    ]));
    home.run(&["run", "bootstrap", "--sandbox"]).expect(0);
    let world = home.snapshot();
    assert_eq!((count(&world, "/aws/eks"), count(&world, "/aws/cloudformation")), (1, 2));
    assert_eq!(count(&world, "/dss/clusters"), 1, "{:?}", world.pointer("/dss/clusters"));
    nothing_left(&home, &before);
}

#[test]
fn a_failed_create_of_the_plugin_is_cleaned_and_tried_again() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    // The control plane fails once: eksctl leaves a failed stack and a failed cluster, and cleans nothing.
    home.faults(&json!([
        { "target": "aws", "op": "eks:CreateCluster", "times": 1,
          "action": { "state": { "polls": 2, "end": "FAILED" } } },
    ]));
    home.run(&["run", "bootstrap", "--sandbox"]).expect(0);
    let step = home.step("cluster-start");
    assert!(
        step["generation"].as_u64().is_none_or(|g| g > 1),
        "the second try is another generation: {step}"
    );
    let world = home.snapshot();
    assert_eq!((count(&world, "/aws/eks"), count(&world, "/aws/cloudformation")), (1, 2));
    assert_eq!(world.pointer("/aws/eks/eks-main/status"), Some(&json!("ACTIVE")));
    nothing_left(&home, &before);
}

#[test]
fn a_failed_node_group_of_the_plugin_is_cleaned_and_tried_again() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    home.faults(&json!([
        { "target": "aws", "op": "eks:CreateNodegroup", "times": 1,
          "action": { "state": { "polls": 2, "end": "FAILED" } } },
    ]));
    home.run(&["run", "bootstrap", "--sandbox"]).expect(0);
    let world = home.snapshot();
    assert_eq!((count(&world, "/aws/eks"), count(&world, "/aws/cloudformation")), (1, 2));
    assert_eq!(count(&world, "/aws/eks/eks-main/nodeGroups"), 1);
    nothing_left(&home, &before);
}

#[test]
fn a_failed_create_by_the_api_says_why_and_is_replaced() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    home.faults(&json!([
        { "target": "aws", "op": "eks:CreateCluster", "times": 1,
          "action": { "state": { "polls": 2, "end": "FAILED" } } },
    ]));
    home.run(&["run", "bootstrap", "--sandbox", "--set", "cluster.mode=sdk"]).expect(1).says("eks-main");
    home.run(&["why"]).says("ClusterFailed").says("replaces its own failed one");
    home.run(&["rerun", "@latest", "--from", "eks-cluster", "--yes"]).expect(0);
    let world = home.snapshot();
    assert_eq!(count(&world, "/aws/eks"), 1);
    assert_eq!(world.pointer("/aws/eks/eks-main/status"), Some(&json!("ACTIVE")));
    nothing_left(&home, &before);
}

#[test]
fn nodes_that_do_not_join_are_explained() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    home.faults(&json!([
        { "target": "aws", "op": "eks:CreateNodegroup", "times": 1,
          "action": { "state": { "polls": 2, "end": "FAILED" } } },
    ]));
    home.run(&["run", "bootstrap", "--sandbox", "--set", "cluster.mode=sdk"]).expect(1);
    home.run(&["why"]).says("NodeGroupFailed").says("verdict:");
    nothing_left(&home, &before);
}

#[test]
fn a_role_nobody_knows_yet_is_waited_for() {
    let home = Home::with_sandbox();
    home.faults(&json!([
        { "target": "aws", "op": "eks:CreateCluster", "times": 1,
          "action": { "error": { "status": 400, "code": "InvalidParameterException",
            "message": "Role with arn: r, could not be assumed because it does not exist or the trusted entity is not \
                        correct" } } },
    ]));
    home.run(&["run", "bootstrap", "--sandbox", "--set", "cluster.mode=sdk"]).expect(0);
    let world = home.snapshot();
    assert_eq!(world.pointer("/aws/eks/eks-main/status"), Some(&json!("ACTIVE")));
}

#[test]
fn what_stands_in_the_way_of_a_deletion_is_waited_for_and_then_shown() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    let sdk = ["run", "bootstrap", "--sandbox", "--set", "cluster.mode=sdk"];
    home.run(&sdk).expect(0);
    let in_the_way = |times: Option<u32>| {
        json!([{ "target": "aws", "op": "eks:DeleteCluster", "times": times,
            "action": { "error": { "status": 400, "code": "DependencyViolation",
                "message": "resource sg-0ab has a dependent object" } } }])
    };
    home.faults(&in_the_way(None));
    home.run(&["rollback", "@latest"])
        .expect(7)
        .says("sg-0ab has a dependent object")
        .says("dssflow rollback");
    let step = home.step("eks-cluster");
    assert!(step.to_string().contains("DependencyViolation"), "{step}");
    // It goes away by itself: the same rollback, tried again, waits for it.
    home.faults(&in_the_way(Some(6)));
    home.run(&["rollback", "@latest", "--retry"]).expect(0);
    nothing_left(&home, &before);
}

#[test]
fn a_stack_that_could_not_be_deleted_is_waited_for_and_then_shown() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    home.run(&["run", "bootstrap", "--sandbox"]).expect(0);
    // eksctl's own deletion of the control plane is refused: it leaves a stack that says DELETE_FAILED.
    home.faults(&json!([
        { "target": "aws", "op": "eks:DeleteCluster",
          "action": { "error": { "status": 400, "code": "DependencyViolation",
            "message": "resource sg-0ab has a dependent object" } } },
    ]));
    home.run(&["rollback", "@latest"]).expect(7).says("eks-main").says("dssflow rollback");
    nothing_left(&home, &before);
}

#[test]
fn a_stack_of_somebody_else_is_refused_and_left_alone() {
    let home = Home::with_sandbox();
    let name = "eksctl-eks-main-cluster";
    let made = home.aws(|aws| async move {
        let template = "{\"Resources\":{\"T\":{\"Type\":\"AWS::SNS::Topic\"}}}";
        let call = aws.cloudformation().create_stack().stack_name(name).template_body(template);
        Box::pin(call.send()).await.map(drop).map_err(|e| format!("{e:?}"))
    });
    made.expect("a stack of somebody");
    let before = home.snapshot();
    home.run(&["run", "bootstrap", "--sandbox"])
        .expect(5)
        .says("[P22]")
        .says("dssflow did not make it for this site")
        .says("cluster.name");
    let changed = differences(&before, &home.snapshot());
    assert!(changed.is_empty(), "{changed:?}");
    assert!(home.snapshot().pointer("/aws/cloudformation").is_some_and(|s| s.to_string().contains(name)));
}
