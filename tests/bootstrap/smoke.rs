//! The smoke test and the capture, by the built command in the sandbox.

use serde_json::{Value, json};

use crate::support::{Home, differences, kept_by_rule};

/// What of the world a smoke test could leave behind.
fn of_smoke(world: &Value) -> Vec<String> {
    let text = world.to_string();
    ["DSSFLOW_SMOKE_", "dssflow_smoke_", "smoke_rows", "smoke_copy"]
        .into_iter()
        .filter(|mark| text.contains(mark))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_smoke_test_goes_through_and_leaves_nothing() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    home.run(&["run", "bootstrap", "--sandbox", "--set", "verify.smoke=true"]).expect(0).says("succeeded");
    for step in ["smoke-job", "smoke-table", "smoke-athena", "smoke-clean"] {
        assert_eq!(home.step(step)["status"], "succeeded", "{step}");
    }
    let removed = home.step("smoke-clean")["output"]["removed"].clone();
    assert_eq!(removed.as_array().map(Vec::len), Some(5), "{removed}");
    let built = home.snapshot();
    assert_eq!(of_smoke(&built), Vec::<String>::new());
    home.run(&["rollback", "@latest"]).expect(0);
    let left: Vec<_> =
        differences(&before, &home.snapshot()).into_iter().filter(|d| !kept_by_rule(d)).collect();
    assert!(left.is_empty(), "a rollback left behind:\n{}", left.join("\n"));
}

#[test]
fn a_smoke_test_that_fails_in_the_middle_is_taken_back_to_the_last_object() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    // The data is made and its table too; then Athena does not answer.
    home.faults(&json!([{"target": "dss", "op": "POST /sql/queries", "skip": 2,
                         "action": {"error": {"status": 400, "code": "java.sql.SQLException", "message": "no"}}}]));
    let set = ["--set", "verify.smoke=true", "--set", "on_failure=rollback"];
    let mut args = vec!["run", "bootstrap", "--sandbox"];
    args.extend(set);
    home.run(&args).expect(6).says("smoke-athena");
    assert_eq!(of_smoke(&home.snapshot()), Vec::<String>::new());
    home.faults(&json!([]));
    let left: Vec<_> =
        differences(&before, &home.snapshot()).into_iter().filter(|d| !kept_by_rule(d)).collect();
    assert!(left.is_empty(), "the rollback left behind:\n{}", left.join("\n"));
}

/// A DSS that spells the metastore differently: the run stops naming the key, an administrator sets it by hand, capture
/// prints the overlay, and with it the run goes through.
#[test]
fn what_capture_prints_is_pasted_and_the_run_succeeds() {
    let home = Home::new();
    let switches = home.path().join("dss.json");
    let spellings = json!({"spellings": {"glue_flavor": "AWS_GLUE", "glue_connection": "connectionName",
                                         "s3_athena_connection": "associatedAthena"}});
    std::fs::write(&switches, spellings.to_string()).expect("a file of ours");
    let switches = switches.to_str().expect("plain path");
    home.run(&["sandbox", "up", "--latency", "0", "--dss", switches]).expect(0);
    home.run(&["run", "bootstrap", "--sandbox"])
        .expect(1)
        .says("SettingsDropped")
        .says("dssflow dss capture");
    // By hand, while what the run made still stands.
    let dss = home.dss();
    let mut settings = dss.get("/admin/general-settings");
    settings["metastoreCatalogsSettings"]["synchronizeTo"] =
        json!({"flavor": "AWS_GLUE", "glueCredentialsMode": "CONNECTION", "connectionName": "s3-main"});
    dss.put("/admin/general-settings", &settings);
    let mut connection = dss.get("/admin/connections/s3-main");
    connection["params"]["associatedAthena"] = json!("athena-main");
    connection["params"]["secretKey"] = json!("set by hand as well");
    dss.put("/admin/connections/s3-main", &connection);

    let calls = home.mutating_calls();
    let mut overlays = serde_json::Map::new();
    for what in [&["general-settings"][..], &["connection", "s3-main"]] {
        let mut args = vec!["dss", "capture"];
        args.extend(what);
        args.extend(["--run", "@latest"]);
        let printed = home.run(&args).expect(0).stdout;
        assert!(!printed.contains("set by hand") && !printed.contains("e:AES"), "{printed}");
        let value: Value = serde_saphyr::from_str(&printed).expect("what is printed is YAML");
        overlays.extend(value["overlays"].as_object().expect("overlays").clone());
    }
    assert_eq!(home.mutating_calls(), calls, "capture only reads");
    assert_eq!(overlays["athena_link"]["params"]["associatedAthena"], "{{athena_connection}}");
    assert_eq!(overlays["metastore"]["synchronizeTo"]["connectionName"], "{{s3_connection}}");

    // Back to nothing, and again with what was captured: both pairs, from one overlay.
    home.run(&["dss", "capture", "connection", "nowhere", "--sandbox"]).expect(1).says("DF0150");
    home.run(&["dss", "capture", "connection", "filesystem_managed", "--sandbox"]).expect(1).says("DF0151");
    home.run(&["sandbox", "down", "--yes"]).expect(0);
    home.run(&["sandbox", "up", "--latency", "0", "--dss", switches]).expect(0);
    let set = format!("overlays={}", Value::Object(overlays));
    home.run(&["run", "bootstrap", "--sandbox", "--id", "second", "--set", &set]).expect(0).says("succeeded");
    let world = home.snapshot();
    assert_eq!(world["dss"]["connections"]["s3-finance"]["params"]["athenaConnection"], "athena-finance");
}
