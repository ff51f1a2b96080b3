//! Steps made to fail for good, by the sandbox's fault switch.

use serde_json::json;

use crate::support::{Home, differences, kept_by_rule};

fn failing(op: &str, code: &str, status: u16) -> serde_json::Value {
    json!([{ "target": "aws", "op": op,
             "action": { "error": { "status": status, "code": code, "message": "made to fail" } } }])
}

#[test]
fn attempts_used_up_pause_the_run_and_both_ways_on_work() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    home.faults(&failing("glue:CreateDatabase", "InternalServiceException", 500));
    let run = ["run", "bootstrap", "--sandbox"];
    home.run(&run).expect(3).says("dssflow resume").says("dssflow rollback");
    let step = home.step("glue-database-dss_main");
    let other = home.step("glue-database-dss_finance");
    assert!(
        step["failures"] == step["maximum_attempts"] || other["failures"] == other["maximum_attempts"],
        "{step}\n{other}"
    );
    home.run(&["why"]).expect(0).says("InternalServiceException").says("dssflow resume");
    // Still broken: pauses again. Mended: goes on to the end.
    home.run(&["resume", "@latest"]).expect(3);
    home.faults(&json!([]));
    home.run(&["resume", "@latest"]).expect(0);
    home.run(&["rollback", "@latest"]).expect(0);
    let left: Vec<_> =
        differences(&before, &home.snapshot()).into_iter().filter(|d| !kept_by_rule(d)).collect();
    assert!(left.is_empty(), "{}", left.join("\n"));
}

#[test]
fn a_terminal_error_fails_the_run_and_says_what_is_left() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    home.faults(&failing("ecr:CreateRepository", "AccessDeniedException", 400));
    home.run(&["run", "bootstrap", "--sandbox"]).expect(1).says("dssflow resume").says("dssflow rollback");
    home.faults(&json!([]));
    home.run(&["rollback", "@latest"]).expect(0);
    let left: Vec<_> =
        differences(&before, &home.snapshot()).into_iter().filter(|d| !kept_by_rule(d)).collect();
    assert!(left.is_empty(), "{}", left.join("\n"));
}

#[test]
fn on_failure_rollback_takes_everything_back() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    home.faults(&failing("ecr:CreateRepository", "AccessDeniedException", 400));
    home.run(&["run", "bootstrap", "--sandbox", "--set", "on_failure=rollback"]).expect(6);
    let left: Vec<_> =
        differences(&before, &home.snapshot()).into_iter().filter(|d| !kept_by_rule(d)).collect();
    assert!(left.is_empty(), "{}", left.join("\n"));
}

#[test]
fn a_lost_reply_to_the_create_makes_no_second_cluster() {
    let home = Home::with_sandbox();
    home.faults(&json!([
        { "target": "aws", "op": "eks:CreateCluster", "phase": "after", "action": "reset", "times": 1 },
        { "target": "aws", "op": "eks:CreateNodegroup", "phase": "after", "action": "reset", "times": 1 },
        { "target": "aws", "op": "glue:CreateDatabase", "phase": "after", "action": "reset", "times": 1 },
        { "target": "dss", "op": "POST /admin/connections*", "phase": "after", "action": "reset", "times": 1 },
    ]));
    home.run(&["run", "bootstrap", "--sandbox", "--set", "cluster.mode=sdk"]).expect(0);
    let world = home.snapshot();
    assert_eq!(world["aws"]["eks"].as_object().map(serde_json::Map::len), Some(1));
    home.run(&["rollback", "@latest"]).expect(0);
    assert_eq!(home.snapshot()["aws"]["eks"].as_object().map(serde_json::Map::len), Some(0));
}

#[test]
fn expired_credentials_pause_without_an_attempt() {
    let home = Home::with_sandbox();
    home.faults(&failing("glue:CreateDatabase", "ExpiredTokenException", 400));
    home.run(&["run", "bootstrap", "--sandbox"]).expect(4).says("dssflow resume");
    home.faults(&json!([]));
    home.run(&["resume", "@latest"]).expect(0);
}

#[test]
fn a_stuck_rollback_lists_what_is_left_and_goes_on_when_mended() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    home.run(&["run", "bootstrap", "--sandbox"]).expect(0);
    home.faults(&failing("glue:DeleteDatabase", "AccessDeniedException", 400));
    home.run(&["rollback", "@latest"]).expect(7).says("dss_main").says("dssflow rollback");
    home.faults(&json!([]));
    home.run(&["rollback", "@latest"]).expect(0);
    let left: Vec<_> =
        differences(&before, &home.snapshot()).into_iter().filter(|d| !kept_by_rule(d)).collect();
    assert!(left.is_empty(), "{}", left.join("\n"));
}
