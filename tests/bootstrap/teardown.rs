//! Plans, drift, a second run, adoption and teardown of a whole site: what is looked at is never changed, and what is
//! taken back is what was made.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Home, differences, kept_by_rule};

/// Runs a command that must leave the world as it is.
#[track_caller]
fn looks(home: &Home, args: &[&str], code: i32) -> crate::support::Ran {
    let (calls, world) = (home.changing_calls(), home.snapshot());
    let ran = home.run(args).expect(code);
    assert_eq!(home.changing_calls(), calls, "{args:?} called something that changes the world");
    let changed = differences(&world, &home.snapshot());
    assert!(changed.is_empty(), "{args:?} changed the world:\n{}", changed.join("\n"));
    ran
}

/// A plan that is only looked at: how many steps of each action, and the steps of one.
struct Planned(Value);

impl Planned {
    #[track_caller]
    fn of(home: &Home, args: &[&str]) -> Self {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        let ran = looks(home, &args, 0);
        Self(serde_json::from_str(&ran.stdout).expect("a plan is JSON"))
    }

    fn count(&self, action: &str) -> u64 {
        self.0["totals"][action].as_u64().unwrap_or_default()
    }

    fn steps(&self, action: &str) -> Vec<String> {
        let steps = self.0["plan"]["steps"].as_array().expect("steps").iter();
        steps
            .filter(|s| s["action"] == action)
            .map(|s| format!("{}: {}{}", s["step"], s["note"], s["error"]))
            .collect()
    }
}

/// One call of AWS's JSON protocol, as somebody else would make it.
fn aws(endpoint: &str, service: &str, target: &str, body: &Value) {
    let host = endpoint.strip_prefix("http://").expect("plain http").trim_end_matches('/');
    let body = body.to_string();
    let mut stream = TcpStream::connect(host).expect("the sandbox listens");
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: {host}\r\nX-Amz-Target: {target}\r\nContent-Type: application/x-amz-json-1.1\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=AKIAFOREIGN/20261128/eu-west-1/{service}/aws4_request, \
         SignedHeaders=host, Signature=00\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .expect("the sandbox reads");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("the sandbox answers");
    assert!(reply.starts_with("HTTP/1.1 200"), "{target}: {reply}");
}

fn there_and_gone(mode: &str, killed: bool) {
    let home = Home::with_sandbox();
    let set = format!("cluster.mode={mode}");
    let plan = ["plan", "bootstrap", "--sandbox", "--set", &set];
    let run = ["run", "bootstrap", "--sandbox", "--set", &set];
    let before = home.snapshot();

    // A fresh world: nearly everything is to be made, and nothing stands in the way.
    let file = home.path().join("plan.json");
    let file = file.to_str().expect("plain path");
    let fresh = Planned::of(&home, &[&plan[..], &["--out", file]].concat());
    assert!(fresh.count("create") > 25, "{}", fresh.0["totals"]);
    for trouble in ["conflict", "unknown", "adopt", "delete"] {
        assert_eq!(fresh.count(trouble), 0, "{mode}: {trouble}: {:?}", fresh.steps(trouble));
    }
    assert!(!fresh.0["costs"].as_object().expect("costs").is_empty());
    looks(&home, &[&plan[..], &["--detailed-exitcode"]].concat(), 2);

    // The saved plan runs, up to a fault half way.
    home.faults(&json!([{ "target": "aws", "op": "glue:CreateDatabase",
        "action": { "error": { "status": 500, "code": "InternalServiceException", "message": "made to fail" } } }]));
    home.run(&["run", "bootstrap", "--sandbox", "--plan", file]).expect(3);
    home.faults(&json!([]));
    let half = Planned::of(&home, &plan);
    assert!(half.count("create") > 0 && half.count("create") < fresh.count("create"), "{}", half.0["totals"]);
    assert_eq!((half.count("conflict"), half.count("unknown")), (0, 0), "{:?}", half.steps("unknown"));
    looks(&home, &["run", "bootstrap", "--sandbox", "--plan", file], 5).says("run bootstrap-sandbox is new");
    home.run(&run).expect(0).says("succeeded");

    // A finished world: nothing to do, nothing drifted, everything is there and ours.
    let built = home.snapshot();
    looks(&home, &[&plan[..], &["--detailed-exitcode"]].concat(), 0).says("0 to create, 0 to update");
    looks(&home, &["drift"], 0).says(" fine");
    looks(&home, &["resources", "verify"], 0).says("eks");
    looks(&home, &["resources", "orphans"], 0).says("nothing carries the marks");
    let made = home.json(&["resources", "ls", "-o", "json"]);
    assert!(made.as_array().is_some_and(|list| list.len() > 20), "{made}");

    // A second run makes no call that changes anything.
    looks(&home, &run, 0);
    assert!(differences(&built, &home.snapshot()).is_empty());
    if mode == "sdk" {
        another_store(&home, &set);
    }

    // Somebody takes one thing away and puts another of the same name there.
    let endpoint = home.world().aws_endpoint;
    aws(&endpoint, "glue", "AWSGlue.DeleteDatabase", &json!({ "Name": "dss_main" }));
    looks(&home, &["drift", "bootstrap-sandbox"], 2).says("missing");
    let theirs = json!({ "DatabaseInput": { "Name": "dss_main", "Description": "theirs" } });
    aws(&endpoint, "glue", "AWSGlue.CreateDatabase", &theirs);
    looks(&home, &["drift", "bootstrap-sandbox"], 2).says("foreign");
    assert_eq!(Planned::of(&home, &plan).count("conflict"), 1);

    // What a teardown would take back is told thing by thing, and what is theirs is not among it.
    let planned = ["plan", "teardown", "--sandbox"];
    looks(&home, &[&planned[..], &["--detailed-exitcode"]].concat(), 2).says("not ours: it stays");
    let told = looks(&home, &[&planned[..], &["-o", "json"]].concat(), 0);
    let told: Value = serde_json::from_str(&told.stdout).expect("a plan is JSON");
    let goes: Vec<&Value> =
        told["steps"].as_array().expect("steps").iter().filter(|s| s["action"] == "delete").collect();
    let names = |name: &str| goes.iter().any(|s| s["step"] == name && s["run"] == "bootstrap-sandbox");
    assert!(goes.len() > 30 && !names("glue-database-dss_main"), "{told:#}");
    let cluster = if mode == "sdk" { "eks-cluster" } else { "cluster-start" };
    for name in ["glue-database-dss_finance", "ecr-repositories", "s3-connection-s3-main", cluster] {
        assert!(names(name), "{name} would stay: {told:#}");
    }
    assert!(told["steps"].as_array().expect("steps").iter().all(|s| s["action"] != "unknown"), "{told:#}");

    // The teardown takes back what both runs made, and only that.
    let teardown = ["run", "teardown", "--sandbox"];
    if killed {
        let struck = home.kill_after(&teardown, Duration::from_millis(1500));
        let listed = home.run(&["runs", "ls", "-o", "name"]).stdout;
        if struck && listed.contains("teardown-sandbox") {
            // Meanwhile nothing else may be done with the site.
            home.run(&run).expect(3).says("tearing site sandbox down");
            home.run(&["rollback", "bootstrap-sandbox"]).expect(3).says("tearing site sandbox down");
            home.run(&["resume", "teardown-sandbox"]).expect(0).says("torn down");
        } else {
            home.run(&teardown).expect(0);
        }
    } else {
        home.run(&teardown).expect(0).says("torn down").says("kept");
    }
    let after = home.snapshot();
    let left: Vec<_> = differences(&before, &after)
        .into_iter()
        .filter(|d| !kept_by_rule(d) && !d.starts_with("world > aws > glue > dss_main: added"))
        .collect();
    assert!(left.is_empty(), "{mode}: a teardown left behind:\n{}", left.join("\n"));
    assert!(
        after["aws"]["glue"]["dss_main"].is_object(),
        "what is theirs is theirs: {}",
        after["aws"]["glue"]
    );

    // Nothing is left to take back, neither of the site nor of its runs.
    for old in ["bootstrap-sandbox", "bootstrap-sandbox-2"] {
        looks(&home, &["rollback", old], 0).says("nothing to do");
        let view = home.json(&["runs", "get", old, "-o", "json"]);
        assert_eq!((&view["status"], &view["live"]), (&json!("rolled_back"), &json!(false)), "{old}");
    }
    looks(&home, &teardown, 0).says("nothing to tear down");
    looks(&home, &planned, 0).says("nothing to tear down");
    home.run(&["store", "verify"]).expect(0);
}

/// To another store everything is somebody else's: each kind of thing is a conflict until the site adopts it, and what was
/// adopted is never taken back.
fn another_store(home: &Home, set: &str) {
    let store = home.path().join("other");
    let store = store.to_str().expect("plain path");
    let site = home.world().site_yaml;
    let site = site.to_str().expect("plain path");
    let plan = ["--store", store, "plan", "bootstrap", "-f", site, "--set", set];
    let found = Planned::of(home, &plan);
    let conflicts = found.steps("conflict");
    for step in [
        "service-user",
        "install-dss",
        "ecr-repositories",
        "glue-database-dss_main",
        "s3-connection-s3-main",
        "athena-connection-athena-main",
        "eks-cluster",
        "cluster-role",
        "api-key",
    ] {
        assert!(conflicts.iter().any(|c| c.contains(step)), "{step} is no conflict: {conflicts:#?}");
    }
    looks(home, &[&plan[..], &["--detailed-exitcode"]].concat(), 5);
    let run = ["--store", store, "run", "bootstrap", "--yes", "-f", site, "--set", set];
    looks(home, &run, 5).says("[P22]");
    // With the cluster allowed, the run gets as far as the first thing that is not.
    looks(home, &[&run[..], &["--set", "adopt=['eks-cluster']"]].concat(), 3).says("not made by this site");
    adopted_one_by_one(home, store, site, set);

    let adopting = [&plan[..], &["--set", "adopt=['*']"]].concat();
    let found = Planned::of(home, &adopting);
    assert!(found.count("adopt") > 20, "{}", found.0["totals"]);
    for change in ["create", "update", "conflict", "unknown"] {
        assert_eq!(found.count(change), 0, "{change}: {:?}", found.steps(change));
    }
    looks(home, &[&run[..], &["--set", "adopt=['*']"]].concat(), 0);
    looks(home, &["--store", store, "drift"], 0);
    looks(home, &["--store", store, "rollback", "--yes", "@latest"], 0);
    looks(home, &["--store", store, "run", "teardown", "--yes", "-f", site, "--set", set], 0);
}

/// A run that stopped because something foreign is in its way takes it once the site allows that, and goes on to the
/// next; nothing of it is ever changed or taken back.
fn adopted_one_by_one(home: &Home, store: &str, site: &str, set: &str) {
    let reason = "the other store made it";
    let adopt = [
        "--store",
        store,
        "resources",
        "adopt",
        "@latest",
        "--yes",
        "--reason",
        reason,
        "-f",
        site,
        "--set",
        set,
    ];
    looks(home, &adopt, 1).says("the site file does not let these steps take what is not ours");
    let step = [&adopt[..], &["--step", "identity"]].concat();
    looks(home, &step, 1).says("nothing that is not ours stands in the way of step identity");
    let elsewhere = [&adopt[..], &["--set", "name=elsewhere"]].concat();
    looks(home, &elsewhere, 1).says("is not the site of run");
    looks(home, &["--store", store, "why", "@latest"], 0).says("resources adopt bootstrap-sandbox --step ");

    let (calls, world) = (home.changing_calls(), home.snapshot());
    let allowed = [&adopt[..], &["--set", "adopt=['*']"]].concat();
    let mut rounds = 1;
    let mut ran = home.run(&allowed);
    while ran.code == 3 {
        rounds += 1;
        assert!(rounds < 80, "it does not end: {ran:?}");
        ran = home.run(&allowed);
    }
    ran.expect(0).says("succeeded");
    assert!(rounds > 5, "a run stops for each thing that comes after another: {rounds}");
    assert_eq!(home.changing_calls(), calls, "adopting called something that changes the world");
    let changed = differences(&world, &home.snapshot());
    assert!(changed.is_empty(), "adopting changed the world:\n{}", changed.join("\n"));

    let events = home.run(&["--store", store, "runs", "events", "@latest", "-o", "jsonl"]).expect(0).stdout;
    let audited: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"))
        .filter(|event| event["type"] == "steps_reset" && event["again"] == "adopt")
        .collect();
    assert!(
        audited.len() >= rounds && audited.iter().all(|e| e["request"]["reason"] == reason),
        "{audited:?}"
    );
    looks(home, &adopt, 0).says("nothing to adopt");
    looks(home, &["--store", store, "rollback", "--yes", "@latest"], 0);
}

#[test]
fn plugin_mode_planned_built_and_torn_down_with_a_kill_on_the_way() {
    there_and_gone("dss-plugin", true);
}

#[test]
fn sdk_mode_planned_built_adopted_by_another_store_and_torn_down() {
    there_and_gone("sdk", false);
}
