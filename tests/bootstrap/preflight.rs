//! The preflight against the sandbox: green as it is, red for each fault, and never a change.

use serde_json::{Value, json};

use crate::support::Home;

const LOOK: [&str; 5] = ["preflight", "bootstrap", "--sandbox", "-o", "json"];

/// The report, and how the command ended.
fn look(home: &Home, more: &[&str]) -> (i32, Value) {
    let args: Vec<&str> = LOOK.iter().chain(more).copied().collect();
    let ran = home.run(&args);
    let report = serde_json::from_str(&ran.stdout)
        .unwrap_or_else(|e| panic!("{args:?} printed no JSON: {e}\n{}\n{}", ran.stdout, ran.stderr));
    (ran.code, report)
}

fn status(report: &Value, id: &str) -> String {
    let checks = report["checks"].as_array().expect("checks");
    let check = checks.iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("no {id}"));
    check["status"].as_str().expect("a status").to_owned()
}

fn not_passed(report: &Value) -> Vec<String> {
    let checks = report["checks"].as_array().expect("checks").iter();
    checks.filter(|c| c["status"] != "passed").map(ToString::to_string).collect()
}

#[test]
fn the_sandbox_is_green_before_and_after_a_run_and_nothing_is_changed() {
    let home = Home::with_sandbox();
    let calls = home.mutating_calls();
    for mode in ["cluster.mode=dss-plugin", "cluster.mode=sdk"] {
        let (code, report) = look(&home, &["--set", mode]);
        assert_eq!((code, not_passed(&report)), (0, Vec::new()), "{mode}");
        assert!(report["checks"].as_array().is_some_and(|c| c.len() >= 30), "{mode}");
    }
    assert_eq!(home.mutating_calls(), calls, "a look changed something");
    home.run(&["run", "bootstrap", "--sandbox"]).expect(0);
    let calls = home.mutating_calls();
    let (code, report) = look(&home, &[]);
    assert_eq!((code, not_passed(&report)), (0, Vec::new()), "what a run of ours made is no trouble");
    assert_eq!(home.mutating_calls(), calls, "a look changed something");
}

#[test]
fn faults_turn_it_red_and_a_run_does_not_start() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    let fault = |op: &str, status: u16, code: &str, message: &str| {
        home.faults(&json!([{ "target": "aws", "op": op,
            "action": { "error": { "status": status, "code": code, "message": message } } }]));
    };
    // Of the world.
    for (set, id) in [
        ("cluster.security_groups=[sg-0123456789abcdef0]", "P10"),
        ("cluster.k8s_version='1.19'", "P19"),
        ("host.tools.aws_iam_authenticator.version='0.10.0'", "P17"),
        (
            "cluster.node_pool={machine_type: m7i.4xlarge, num_nodes: 200, max_nodes: 200, disk_gb: 200}",
            "P20",
        ),
        ("connections[0].bucket=nowhere-at-all", "B01"),
        ("connections[0].athena.workgroup=nowhere", "P28"),
        ("dss.admin_password={env: DSSFLOW_NOT_SET}", "S01"),
        ("expected_account='210987654321'", "P02"),
    ] {
        let (code, report) = look(&home, &["--set", set]);
        assert_eq!((code, status(&report, id).as_str()), (5, "error"), "{set}: {:?}", not_passed(&report));
    }
    // Of calls: a right that lacks is a skip, an instance that is gone an error.
    fault("iam:SimulatePrincipalPolicy", 403, "AccessDenied", "User is not authorized");
    let (code, report) = look(&home, &["--only", "P27", "--only", "P28"]);
    assert_eq!(code, 0, "{report}");
    fault("ec2:DescribeInstances", 400, "InvalidInstanceID.NotFound", "The instance ID does not exist");
    let (code, report) = look(&home, &["--only", "I01"]);
    assert_eq!((code, status(&report, "I01").as_str()), (5, "error"), "{report}");
    home.run(&["run", "bootstrap", "--sandbox"]).expect(5).says("[I01]").says("nothing was created");
    fault(
        "sts:GetCallerIdentity",
        403,
        "ExpiredToken",
        "The security token included in the request is expired",
    );
    let (code, report) = look(&home, &["--only", "P01"]);
    assert_eq!((code, status(&report, "P01").as_str()), (4, "error"), "{report}");
    home.faults(&json!([{ "target": "host", "op": "rpm -q podman*",
        "action": { "error": { "status": 1, "code": "x", "message": "rpmdb is locked" } } }]));
    let (code, report) = look(&home, &["--only", "H04"]);
    assert_eq!((code, status(&report, "H04").as_str()), (0, "skipped"), "{report}");
    home.faults(&json!([]));
    assert!(crate::support::differences(&before, &home.snapshot()).is_empty());
    assert_eq!(home.run(&["runs", "ls", "-o", "name"]).stdout.trim(), "", "nothing was started");
    home.run(&["preflight", "--sandbox", "--only", "P90"]).expect(64).says("there is no check");
}
