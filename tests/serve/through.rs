//! Commands that go through the daemon: the same words, the same output.

use std::io::Read as _;
use std::process::Stdio;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::daemon::{Daemon, PATIENCE};
use crate::support::{Home, differences, kept_by_rule};

/// The daemon of a home.
pub(crate) fn serve(home: &Home) -> Daemon {
    Daemon::start(home.command(&["serve", "--log", "info"]), home.store())
}

/// The status of a run, as commands see it.
pub(crate) fn status(home: &Home, run: &str) -> String {
    home.json(&["runs", "get", run, "-o", "json"])["status"].as_str().expect("a status").to_owned()
}

/// Waits until a run has a status, or stands with another one.
#[track_caller]
pub(crate) fn until(home: &Home, run: &str, wanted: &str) {
    let begin = Instant::now();
    loop {
        let now = status(home, run);
        if now == wanted {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "run {run} is {now}, not {wanted}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn everything_goes_through_the_daemon_and_looks_as_without_it() {
    let home = Home::with_sandbox();
    let daemon = serve(&home);
    let before = home.snapshot();
    let owner = home.json(&["store", "info", "-o", "json"]);
    assert_eq!(owner["holder"]["command"], "dssflow serve");

    // A step fails, and the run pauses for it.
    home.faults(&json!([{ "target": "aws", "op": "glue:CreateDatabase",
        "action": { "error": { "status": 500, "code": "InternalServiceException", "message": "made to fail" } } }]));
    let ran = home.run(&["run", "bootstrap", "--sandbox"]);
    home.faults(&json!([]));
    let ran = ran.expect(3).says("bootstrap-sandbox: paused");
    assert!(
        ran.stderr.contains("sandbox    ") && ran.stderr.contains("run bootstrap-sandbox\n"),
        "{}",
        ran.stderr
    );
    let view = home.json(&["runs", "get", "-o", "json"]);
    let failed = view["paused"]["step"].as_str().expect("a step that failed").to_owned();
    home.run(&["why"]).expect(0).says(&failed);

    // The daemon drives it on, and the command follows.
    let ran = home
        .run(&["retry", "bootstrap-sandbox", "--step", &failed, "--reason", "mended", "-o", "json"])
        .expect(0);
    let end: Value = serde_json::from_str(&ran.stdout).expect("the run as JSON");
    assert_eq!((&end["status"], &end["run"]), (&json!("succeeded"), &json!("bootstrap-sandbox")));
    assert!(ran.stderr.contains("run bootstrap-sandbox: succeeded"), "{}", ran.stderr);
    home.run(&["resume"]).expect(0).says("nothing to do");

    // Looks at the world are the daemon's, and find nothing.
    home.run(&["drift"]).expect(0);
    home.run(&["resources", "verify", "bootstrap-sandbox"]).expect(0);
    home.run(&["resources", "orphans", "bootstrap-sandbox"]).expect(0);
    let events = home.run(&["runs", "events", "-o", "jsonl"]).expect(0).stdout;
    assert!(events.lines().count() > 100 && events.starts_with("{\"type\":\"version\""), "{events}");

    // What is taken back is gone, and a second time there is nothing to do.
    home.run(&["rollback", "bootstrap-sandbox"]).expect(0).says("rolled back");
    home.run(&["rollback", "bootstrap-sandbox"]).expect(0).says("nothing to do");
    let left = differences(&before, &home.snapshot());
    let left: Vec<_> = left.iter().filter(|difference| !kept_by_rule(difference)).collect();
    assert!(left.is_empty(), "{left:#?}");
    let (code, said) = daemon.stop();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("no run was being driven"), "{said}");
}

#[test]
fn ctrl_c_leaves_the_run_to_the_daemon_and_says_how_to_come_back() {
    let home = Home::with_sandbox();
    let _daemon = serve(&home);
    let mut command = home.command(&["run", "bootstrap", "--sandbox"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let begin = Instant::now();
    // It follows once the run is there.
    while !home.run(&["runs", "ls", "-o", "name"]).stdout.contains("bootstrap-sandbox") {
        assert!(begin.elapsed() < PATIENCE, "no run was started");
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let ended = child.wait().expect("a child of ours");
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert_eq!(ended.code(), Some(3), "{said}");
    for text in ["goes on without this command", "runs watch bootstrap-sandbox", "pause bootstrap-sandbox"] {
        assert!(said.contains(text), "{text} is not in {said}");
    }
    until(&home, "bootstrap-sandbox", "succeeded");
    // Who comes back sees how it ended.
    home.run(&["runs", "watch"]).expect(0).says("run bootstrap-sandbox: succeeded");
    // A rollback is waited for unless somebody says not to.
    home.run(&["rollback", "bootstrap-sandbox", "--detach"]).expect(3).says("goes on without this command");
    until(&home, "bootstrap-sandbox", "rolled_back");
}

#[test]
fn an_order_is_checked_before_anything_is_accepted() {
    let home = Home::with_sandbox();
    home.run(&["run", "bootstrap", "--sandbox", "--detach"]).expect(64).says("dssflow serve");
    let daemon = serve(&home);
    let site = std::fs::read_to_string(home.store().join("sandbox/site.yaml")).expect("the shipped site");
    let site: Value = serde_saphyr::from_str(&site).expect("YAML");
    let order = |change: &dyn Fn(&mut Value)| {
        let mut order = json!({ "workflow": "bootstrap", "spec": site, "by": "ada" });
        change(&mut order);
        order.to_string()
    };
    let refused = |path: &str, body: &str| -> (u16, Value) {
        let (status, body) = daemon.call("POST", path, body).expect("an answer");
        (status, serde_json::from_str(&body).unwrap_or_default())
    };
    for (what, change, status, code) in [
        (
            "another account",
            &(|o: &mut Value| o["spec"]["expected_account"] = "999999999999".into()) as &dyn Fn(&mut Value),
            409,
            "DF0021",
        ),
        (
            "another principal",
            &|o: &mut Value| o["principal"] = json!({ "account": "1", "arn": "arn:aws:iam::1:user/eve" }),
            409,
            "DF0021",
        ),
        ("no site", &|o: &mut Value| o["spec"] = json!({ "name": "x" }), 400, "DF0100"),
        ("out of the sandbox", &|o: &mut Value| o["spec"]["host"]["wrapper"] = json!([]), 400, "DF0100"),
        ("no workflow", &|o: &mut Value| o["workflow"] = "bootsrap".into(), 404, "DF0006"),
        ("no plan", &|o: &mut Value| o["plan"] = json!({ "format": 1 }), 400, "DF0180"),
        ("an unknown key", &|o: &mut Value| o["hurry"] = true.into(), 400, "DF0063"),
    ] {
        for path in ["/v1/runs/check", "/v1/runs"] {
            let (got, body) = refused(path, &order(change));
            assert_eq!((got, &body["code"]), (status, &json!(code)), "{what} to {path}: {body}");
        }
    }
    assert_eq!(home.run(&["runs", "ls", "-o", "name"]).expect(0).stdout, "", "nothing was accepted");
    // Two at once for one site are one run.
    let (first, second) = std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| refused("/v1/runs", &order(&|_| ()))));
        let [first, second] = both.map(|answer| answer.join().expect("no panic"));
        (first, second)
    });
    assert_eq!(first.1["run"], "bootstrap-sandbox");
    assert_eq!(second.1["run"], "bootstrap-sandbox", "{second:?}");
    let mut statuses = [first.0, second.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 202]);
    until(&home, "bootstrap-sandbox", "succeeded");
}
