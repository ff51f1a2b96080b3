//! The host itself made by the run: launched once whatever happens to the answers, and terminated when it is taken back.

use serde_json::{Value, json};

use crate::calls;
use crate::rights;
use crate::support::{Home, differences, kept_by_rule};

const PUBLIC_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsABgH5C9okWi0dh2l9GKJl lab@example";

/// The shipped site with `launch` in place of `instance`; its path.
fn launching_site(home: &Home) -> String {
    let good = std::fs::read_to_string(home.store().join("sandbox/site.yaml")).expect("the shipped site");
    let line = |start: &str| {
        good.lines()
            .find(|l| l.trim_start().starts_with(start))
            .expect("a line of the shipped site")
            .to_owned()
    };
    let subnet = line("subnets:").split(['[', ',']).nth(1).expect("a list").trim().to_owned();
    let account = line("expected_account:").split('"').nth(1).expect("in quotes").to_owned();
    let launch = format!(
        "  launch:\n    subnet: {subnet}\n    image_owner: \"{account}\"\n    public_key: {PUBLIC_KEY}\n    \
         user_data: \"#!/bin/sh\\nmkdir -p /data\\n\""
    );
    let file = home.path().join("launch.yaml");
    std::fs::write(&file, good.replace(&line("instance:"), &launch)).expect("a file of ours");
    file.to_str().expect("plain path").to_owned()
}

fn instances(world: &Value) -> Vec<Value> {
    world.pointer("/aws/ec2/instances").and_then(Value::as_array).expect("instances").clone()
}

#[test]
fn a_host_is_launched_once_and_terminated_again() {
    let home = Home::with_sandbox();
    let site = launching_site(&home);
    let before = home.snapshot();
    // The answers to the launch and to the import of the key are lost.
    home.faults(&json!([
        { "target": "aws", "op": "ec2:RunInstances", "phase": "after", "action": "reset", "times": 1 },
        { "target": "aws", "op": "ec2:ImportKeyPair", "phase": "after", "action": "reset", "times": 1 },
    ]));
    let run = ["run", "bootstrap", "--sandbox", "-f", site.as_str()];
    home.run(&run).expect(0).says("succeeded");
    home.faults(&json!([]));
    let built = home.snapshot();
    assert_eq!(instances(&built).len(), instances(&before).len() + 1, "one more, and only one");
    let launched =
        instances(&built).into_iter().find(|i| i["tags"].to_string().contains("dssflow-sandbox-host"));
    let launched = launched.expect("the launched one");
    assert!(launched["groups"].to_string().contains("sg:default"), "{launched}");
    let keys = built.pointer("/aws/ec2/key_pairs").and_then(Value::as_array).expect("key pairs");
    assert!(keys.len() == 1 && keys[0]["name"] == "dssflow-sandbox-host", "{keys:?}");
    let volumes = built.pointer("/aws/ec2/volumes").and_then(Value::as_array).expect("volumes");
    assert!(volumes.iter().any(|v| v["tags"].to_string().contains("dssflow-sandbox-host")), "{volumes:?}");
    // The image is chosen once, and kept: the launch takes it from the step that looked.
    let image = home.step("host-image")["output"]["id"].clone();
    assert!(image.as_str().is_some_and(|id| id.starts_with("ami-")), "{image}");

    // A second run of the site finds its machine, and leaves it when it is taken back.
    home.run(&run).expect(0);
    assert_eq!(differences(&built, &home.snapshot()), Vec::<String>::new(), "a second run changed the world");
    home.run(&["rollback", "@latest"]).expect(0);
    assert_eq!(
        differences(&built, &home.snapshot()),
        Vec::<String>::new(),
        "it took the first one's machine"
    );

    home.run(&["rollback", "bootstrap-sandbox"]).expect(0);
    let left: Vec<_> =
        differences(&before, &home.snapshot()).into_iter().filter(|d| !kept_by_rule(d)).collect();
    assert!(left.is_empty(), "{}", left.join("\n"));
    home.run(&["rollback", "bootstrap-sandbox"]).expect(0).says("nothing to do");
    calls::carry_our_tokens_and_marks(
        &home,
        &["ec2:RunInstances", "ec2:ImportKeyPair", "ec2:TerminateInstances"],
    );
    rights::are_what_was_called(&home, "launch");
}
