//! The verbs on a run that another process drives, through its socket, and those that go on driving: in a sandbox.

use std::process::Stdio;

use crate::sandbox::{World, status_of};
use serde_json::{Value, json};

/// The owner writes backups and prunes while its run goes on; what needs the store alone is refused.
fn copies_of_a_store_in_use(world: &World) {
    let file = |name: &str| world.0.dir.path().join(name).to_str().unwrap().to_owned();
    let (all, one) = (file("all.ndjson"), file("one.ndjson"));
    let ran = world.does(&["store", "backup", &all], 0);
    assert!(ran.err.contains("1 run"), "{}", ran.err);
    assert!(world.does(&["store", "backup", &all], 64).err.contains("--force"));
    world.does(&["runs", "export", "@latest", "-o", &one], 0);
    assert!(world.does(&["runs", "export", "nobody"], 1).err.contains("DF0004"));
    let streamed = world.does(&["store", "export"], 0).out;
    assert!(streamed.lines().last().unwrap().starts_with("{\"end\":{\"runs\":1,"), "{streamed}");
    assert!(world.does(&["runs", "prune", "--older-than", "0s", "--yes"], 0).err.contains("no run fits"));
    for args in [&["store", "restore", &all, "--yes"][..], &["store", "compact"], &["store", "import", &one]]
    {
        assert!(world.does(args, 8).err.contains("DF0010"), "{args:?}");
    }
    assert!(world.does(&["store", "info"], 0).out.contains("; running"));

    // What was copied under the owner's hands is whole, and parked where it is put back.
    let elsewhere = file("elsewhere");
    let ran = world.does(&["--store", &elsewhere, "store", "restore", &all], 0);
    assert!(ran.err.contains("1 run had not ended and is paused"), "{}", ran.err);
    let view = world.does(&["--store", &elsewhere, "runs", "get", "-o", "json"], 0).out;
    let view: Value = serde_json::from_str(&view).unwrap();
    assert_eq!(view["status"], "paused");
    world.does(&["--store", &elsewhere, "store", "verify"], 0);
}

#[test]
fn a_live_owner_goes_by_what_other_commands_say_and_the_run_goes_on_by_retry_rerun_and_fork() {
    const HELD: &str = "glue-database-dss_main";
    let world = World::new();
    world.faults(&json!([{ "target": "aws", "op": "glue:CreateDatabase", "action": "hang" }]));
    let mut owner = world
        .command(&["run", "bootstrap", "--sandbox"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    world.wait_for(&mut owner, HELD, "running");

    let view = world.view();
    let label = format!("sandbox={}", view["labels"]["sandbox"].as_str().unwrap());
    let names = |args: &[&str]| world.does(&[&["runs", "ls", "-o", "name"], args].concat(), 0).out;
    assert_eq!(names(&["--label", &label, "--since", "1h"]).lines().count(), 1);
    assert_eq!(names(&["--label", "sandbox=another"]), "");
    assert_eq!(names(&["--until", "1h"]), "");

    copies_of_a_store_in_use(&world);
    assert_eq!(status_of(&world.view(), HELD), "running", "the run goes on");

    assert!(world.does(&["unpause"], 0).err.contains("is moving"));
    let why: Value = serde_json::from_str(&world.does(&["why", "-o", "json"], 0).out).unwrap();
    assert_eq!(why["driven"], true);
    assert!(why["steps"].as_array().unwrap().iter().any(|s| s["step"] == HELD && s["kind"] == "running"));

    // These cannot start while the other is held.
    let mut behind = vec![HELD];
    for step in view["steps"].as_array().unwrap() {
        if step["after"].as_array().unwrap().iter().any(|a| behind.contains(&a.as_str().unwrap())) {
            behind.push(step["step"].as_str().unwrap());
        }
    }
    let (next, last) = (behind[1], *behind.last().unwrap());
    let wrong = ["complete", "@latest", next, "--reason", "r", "--output", "\"nonsense\""];
    assert!(world.does(&wrong, 64).err.contains("DF0018"));
    let ran = world.does(&["skip", "@latest", last, "--reason", "not used"], 0);
    assert!(ran.err.contains("the process that drives run"), "{}", ran.err);
    assert_eq!(status_of(&world.view(), last), "skipped");
    let ran = world.does(&["skip", "@latest", HELD, "--reason", "r"], 1);
    assert!(ran.err.contains("DF0015") && ran.err.contains("dssflow pause"), "{}", ran.err);
    assert!(world.does(&["signal", "@latest", "x"], 0).err.contains("is kept"));
    assert!(world.does(&["approve", "@latest", HELD], 1).err.contains("is no gate"));
    assert!(world.does(&["rollback", "@latest", "--to", "identity"], 1).err.contains("dssflow pause"));
    assert!(world.does(&["fork", "@latest", "--from", HELD], 8).err.contains("DF0010"));

    world.does(&["terminate", "@latest", "--reason", "enough"], 0);
    assert_eq!(owner.wait().unwrap().code(), Some(1));
    assert_eq!(world.view()["status"], "cancelled");

    world.faults(&json!([]));
    let ran = world.does(&["retry", "@latest", "--step", HELD, "--reason", "the fault is gone"], 0);
    assert!(ran.out.contains("succeeded"), "{ran:?}");
    assert_eq!(status_of(&world.view(), last), "skipped", "what was decided stays decided");
    let ran = world.does(&["rerun", "@latest", "--from", last], 0);
    assert!(ran.err.contains("steps that are done again: 1"), "{}", ran.err);
    assert_eq!(status_of(&world.view(), last), "succeeded");
    assert!(world.does(&["resume", "--upgrade"], 0).err.contains("nothing to do"));
    let ran = world.does(&["fork", "@latest", "--from", last, "--id", "branch"], 0);
    assert!(ran.err.contains("run branch, which takes over"), "{}", ran.err);
    let view = world.view();
    assert_eq!((&view["run"], &view["forked_from"]["from"]), (&json!("branch"), &json!(last)));
}
