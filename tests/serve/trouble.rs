//! What stands in a schedule's way: a store that fails, a DSS that refuses, an AWS that does not answer, runs of others.

use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::support::Home;
use crate::through::{serve, until};

const ID: &str = "often";

/// A schedule of a workflow in the sandbox, every few seconds.
fn scheduled(home: &Home, workflow: &str) {
    home.run(&["schedules", "create", ID, "--workflow", workflow, "--sandbox", "--every", "6s"]).expect(0);
}

fn schedule(daemon: &Daemon) -> Value {
    daemon.get(&format!("/v1/schedules/{ID}")).expect("a schedule")
}

/// The runs of the schedule, the oldest first.
fn runs(home: &Home) -> Vec<(String, String)> {
    let listed =
        home.json(&["runs", "ls", "--label", &format!("schedule={ID}"), "--limit", "1000", "-o", "json"]);
    let text = |run: &Value, key: &str| run[key].as_str().expect("a text").to_owned();
    let mut all: Vec<_> =
        listed.as_array().expect("a list").iter().map(|r| (text(r, "run"), text(r, "status"))).collect();
    all.sort();
    all
}

/// How often the first fault of the script has struck.
fn struck(home: &Home) -> u64 {
    home.json(&["sandbox", "faults", "show", "-o", "json"])[0]["fired"].as_u64().expect("a count")
}

#[test]
fn a_daemon_whose_store_fails_ends_though_no_run_is_under_way() {
    let home = Home::with_sandbox();
    // What is written beyond a limit is refused, not punished with a signal.
    let plain = home.command(&["serve", "--log", "info"]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(dir) = plain.get_current_dir() {
        command.current_dir(dir);
    }
    let daemon = Daemon::start(command, home.store());
    scheduled(&home, "glue-resync");
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).expect("a pid"));
    prlimit(pid, Resource::Fsize, Rlimit { current: Some(0), maximum: Some(0) }).expect("a process of ours");
    let (code, said) = daemon.ended();
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("the store has failed") && said.contains("DF0014"), "{said}");
    // Nothing acknowledged is lost.
    assert_eq!(home.json(&["schedules", "get", ID, "-o", "json"])["schedule"], ID);
    home.run(&["store", "verify"]).expect(0);
}

#[test]
fn a_firing_that_dss_refuses_fails_and_the_next_one_fires() {
    let home = Home::with_sandbox();
    home.run(&["run", "bootstrap", "--sandbox"]).expect(0);
    let refused = json!({ "error": { "status": 401, "code": "Unauthorized", "message": "made to fail" } });
    home.faults(&json!([{ "target": "dss", "op": "GET /projects*", "action": refused, "times": 1 }]));
    let mut daemon = serve(&home);
    scheduled(&home, "glue-resync");
    daemon.until("one fires after the one that was refused", |_| {
        runs(&home).iter().any(|(_, status)| status == "succeeded")
    });
    let runs = runs(&home);
    assert_eq!(runs[0].1, "failed", "{runs:?}");
    assert_eq!(struck(&home), 1);
    // It is told, and nobody has to do anything.
    home.run(&["why", &runs[0].0]).expect(0).says("401");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_stop_gives_up_a_firing_that_is_not_answered_and_leaves_no_trouble() {
    let home = Home::with_sandbox();
    home.faults(&json!([{ "target": "aws", "op": "sts:GetCallerIdentity", "action": "hang" }]));
    let mut daemon = serve(&home);
    scheduled(&home, "glue-resync");
    daemon.until("a firing waits for an answer", |_| struck(&home) > 0);
    let (code, said) = daemon.stop();
    assert_eq!(code, Some(0), "{said}");
    // Had it been waited for, the firing would have failed by its own limit on time.
    let left = home.json(&["schedules", "get", ID, "-o", "json"]);
    assert_eq!((&left["trouble"], &left["running"]), (&Value::Null, &json!([])), "{left}");
    assert_eq!(runs(&home), []);

    home.faults(&json!([]));
    let mut daemon = serve(&home);
    daemon.until("what was given up fires", |_| !runs(&home).is_empty());
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_firing_waits_for_a_run_of_its_site_that_somebody_else_began() {
    let home = Home::with_sandbox();
    home.faults(&json!([{ "target": "aws", "op": "glue:CreateDatabase", "action": "hang" }]));
    let mut daemon = serve(&home);
    home.run(&["run", "bootstrap", "--sandbox", "--detach"]).expect(3);
    scheduled(&home, "bootstrap");
    daemon.until("the schedule says what is in its way", |daemon| {
        let why = schedule(daemon)["trouble"]["why"].as_str().unwrap_or_default().to_owned();
        why.contains("run bootstrap-sandbox of site sandbox is not finished")
    });
    assert_eq!(runs(&home), [], "two runs of one site");
    home.faults(&json!([]));
    until(&home, "bootstrap-sandbox", "succeeded");
    daemon.until("it fires once the other is over", |_| !runs(&home).is_empty());
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_resync_of_something_else_does_not_wait_for_that_of_a_schedule() {
    let home = Home::with_sandbox();
    home.run(&["run", "bootstrap", "--sandbox"]).expect(0);
    home.run(&["sandbox", "datasets", "2"]).expect(0);
    home.faults(&json!([{ "target": "aws", "op": "glue:GetTables", "action": "hang", "times": 1 }]));
    let mut daemon = serve(&home);
    scheduled(&home, "glue-resync");
    daemon.until("the schedule's run hangs", |_| struck(&home) == 1);
    home.run(&["run", "glue-resync", "--sandbox", "--dry-run"])
        .expect(0)
        .says("2 datasets: 0 equal, 2 added");
    home.run(&["run", "glue-resync", "--sandbox", "--dataset", "*.sample_1"])
        .expect(0)
        .says("1 dataset: 0 equal, 1 added");
    assert_eq!(runs(&home).len(), 1, "the other one goes on");
    assert_eq!(runs(&home)[0].1, "running");
    home.faults(&json!([]));
    assert_eq!(daemon.stop().0, Some(0));
}
