//! Tables that people changed by hand, and what becomes of them.

use std::time::Duration;

use dssflow_engine::activity::Marks;
use serde_json::{Value, json};

use crate::lake::{DATABASE, Lake, counts};

const COLUMNS: [(&str, &str); 3] = [("id", "bigint"), ("at", "date"), ("note", "string")];

#[test]
fn the_commands_of_the_sandbox_make_data_and_drift_that_a_resync_mends() {
    let lake = Lake::new();
    let nothing = lake.resync(&[]).expect(0).says("0 datasets: 0 equal");
    nothing.says("nothing to compare: DSS has no dataset on S3; `dssflow sandbox datasets` makes some");
    let before = lake.home.mutating_calls();
    let made = lake.home.json(&["sandbox", "datasets", "-o", "json"]);
    assert_eq!(made.as_array().map(Vec::len), Some(6), "{made}");
    assert_eq!(made[2]["partitions"], 3, "{made}");
    assert_eq!(lake.home.json(&["sandbox", "datasets", "-o", "json"]), made, "the same once more");
    assert_eq!(lake.home.mutating_calls(), before, "they are nobody's calls");
    lake.resync(&[]).expect(0).says("6 datasets: 0 equal, 6 added");
    let names = (1..=6).map(|n| format!("sample_{n}"));
    let right: Vec<_> = names.clone().map(|name| lake.is(&name)).collect();
    assert_eq!(right[2]["partitions"].as_object().map(serde_json::Map::len), Some(3), "{}", right[2]);

    let changes = lake.home.json(&["sandbox", "spoil", "5", "-o", "json"]);
    let said: Vec<_> = changes.as_array().into_iter().flatten().map(|c| &c["change"]).collect();
    assert_eq!(
        said,
        [
            "column id is a string now, was bigint",
            "deleted",
            "partition at is gone",
            "deleted",
            "column id is a string now, was bigint",
            "made, a table that no dataset names"
        ],
        "{changes}"
    );
    lake.resync(&["--dry-run"]).expect(0).says("6 datasets: 1 equal, 2 added, 3 changed");
    lake.resync(&[]).expect(0).says("6 datasets: 1 equal, 2 added, 3 changed");
    let mended: Vec<_> = names.map(|name| lake.is(&name)).collect();
    assert_eq!(mended, right);
    // What is spoilt already is spoilt no further, and the table of somebody else is made once.
    let again = lake.home.json(&["sandbox", "spoil", "1", "-o", "json"]);
    assert_eq!(again.as_array().map(Vec::len), Some(1), "{again}");
}

#[test]
fn what_was_changed_by_hand_is_found_told_and_mended_by_dss() {
    let lake = Lake::new();
    for name in ["orders", "items", "places"] {
        lake.dataset(name, &COLUMNS, false, true);
    }
    lake.dataset("visits", &COLUMNS, true, true);
    lake.dataset("private", &COLUMNS, false, false);
    for country in ["de", "fr", "it"] {
        lake.file("visits", country);
    }
    lake.home.aws(async |aws| {
        aws.iam().create_account_alias().account_alias("lab-of-us").send().await.expect("an alias");
    });
    let first = lake.resync(&[]).expect(0).says("4 datasets: 0 equal, 4 added");
    first.says("account     123456789012 (lab-of-us) in eu-west-1");
    assert_eq!(
        lake.totals(),
        counts(&[
            ("datasets", 4),
            ("added", 4),
            ("mended", 4),
            ("partitions looked", 3),
            ("partitions added", 3),
            ("partitions mended", 3)
        ])
    );
    let names = ["orders", "items", "places", "visits"];
    let right = names.map(|name| lake.is(name));
    assert_eq!(right[0]["columns"], json!([["id", "bigint"], ["at", "timestamp"], ["note", "string"]]));
    assert_eq!(right[3]["partitions"].as_object().map(serde_json::Map::len), Some(3));

    // Once more: nothing is done.
    let before = lake.home.mutating_calls();
    lake.resync(&[]).expect(0).says("4 datasets: 4 equal");
    assert_eq!(lake.home.mutating_calls(), before, "a second run changes nothing");

    // A type, a place, a table, partitions in every way, and a table of somebody else.
    lake.spoil("orders", |stored| {
        for column in stored.columns.iter_mut().flatten().filter(|c| c.name == "id") {
            column.r#type = Some("string".to_owned());
        }
    });
    lake.spoil("items", |stored| {
        stored.location = stored.location.take().map(|place| format!("{place}_old"));
    });
    lake.drop_table("places");
    lake.drop_partition("visits", "de");
    lake.file("visits", "es");
    lake.no_file("visits", "it");
    lake.ghost("visits", "nl");
    lake.foreign("orders_backup", "s3://elsewhere/backup");
    let foreign = lake.is("orders_backup");

    let wrong = names.map(|name| lake.is(name));
    let before = lake.home.mutating_calls();
    lake.resync(&["--dry-run"])
        .expect(0)
        .says("nothing was changed")
        .says("~ dss_main.churn_orders: changed, dataset CHURN.orders")
        .says("+ dss_main.churn_places: added, dataset CHURN.places");
    let found = counts(&[
        ("datasets", 4),
        ("added", 1),
        ("changed", 3),
        ("mismatched_types", 1),
        ("partitions looked", 5),
        ("partitions added", 2),
        ("partitions vanished", 2),
    ]);
    assert_eq!(lake.totals(), found);
    let report = lake.report();
    assert_eq!(report["not_synced"], 1);
    assert_eq!(report["unclaimed_examples"], json!(["dss_main.churn_orders_backup"]));
    let planned =
        lake.home.run(&["plan", "glue-resync", "--sandbox", "-o", "json", "--detailed-exitcode"]).expect(2);
    let planned: Value = serde_json::from_str(&planned.stdout).expect("a plan is JSON");
    assert_eq!(planned["totals"], report["totals"], "a plan and a dry run say the same");
    assert_eq!(lake.home.mutating_calls(), before, "neither changes anything");
    assert_eq!(names.map(|name| lake.is(name)), wrong);

    // One dataset, then the rest.
    lake.resync(&["--dataset", "CHURN.orders"]).expect(0).says("1 dataset: 0 equal, 1 changed");
    assert_eq!((lake.is("orders"), lake.is("items")), (right[0].clone(), wrong[1].clone()));
    lake.resync(&["--connection", "s3-main"]).expect(0).says("mended: 3 tables, 4 partitions");
    for (name, was) in names.iter().zip(&right).take(3) {
        assert_eq!(lake.is(name), *was, "{name}");
    }
    let partitions: Vec<String> = lake.partitions("visits").into_keys().collect();
    assert_eq!(partitions, ["de", "es", "fr"]);
    assert_eq!(lake.is("orders_backup"), foreign, "what is foreign stays");
    let before = lake.home.mutating_calls();
    lake.resync(&[]).expect(0).says("4 datasets: 4 equal");
    assert_eq!(lake.home.mutating_calls(), before);
    lake.home.run(&["runs", "get", "@latest"]).expect(0).says("4 datasets: 4 equal");
    // Nothing of it is anybody's to take back.
    lake.home.run(&["resources", "ls", "@latest"]).expect(0);
    assert_eq!(lake.home.json(&["runs", "get", "-o", "json"])["live"], false);

    // Nothing on a table of DSS's says whose it was: without its dataset it is one of those that are left alone.
    lake.drop_dataset("items");
    lake.resync(&["--set", "glue_resync.prune=true"])
        .expect(0)
        .says("3 datasets: 3 equal")
        .says("left alone");
    assert_eq!(lake.totals().get("removed"), None);
    let left = lake.report()["unclaimed_examples"].to_string();
    assert!(left.contains("dss_main.churn_items"), "{left}");
    assert_ne!(lake.is("items"), Value::Null);
}

#[test]
fn partitions_that_vanished_are_left_to_dss_with_prune_only_and_disputed_when_it_leaves_them() {
    const PRUNE: [&str; 2] = ["--set", "glue_resync.prune=true"];
    let lake = Lake::new();
    lake.dataset("visits", &COLUMNS, true, true);
    for country in ["de", "fr", "it"] {
        lake.file("visits", country);
    }
    lake.resync(&[]).expect(0).says("mended: 1 table, 3 partitions");
    lake.no_file("visits", "fr");
    let before = lake.home.mutating_calls();
    for _ in 0..2 {
        lake.resync(&[])
            .expect(0)
            .says("~ dss_main.churn_visits: changed, dataset CHURN.visits, left as it is")
            .says("1 partition in Glue and no longer in S3: left, prune is off");
    }
    assert_eq!(lake.home.mutating_calls(), before, "DSS is not asked at every run for what it may never do");

    // A DSS that only ever adds: it is asked, and what it leaves is no longer a matter of asking.
    let switches = lake.home.path().join("dss.json");
    let behave = |how: &str| {
        std::fs::write(&switches, json!({"metastore_sync": how}).to_string()).expect("a file of ours");
        let switches = switches.to_str().expect("a plain path");
        lake.home.run(&["sandbox", "up", "--dss", switches]).expect(0);
    };
    behave("adds_only");
    lake.resync(&PRUNE)
        .expect(0)
        .says("! dss_main.churn_visits: disputed, dataset CHURN.visits")
        .says("1 partition in Glue and no longer in S3: DSS leaves 1");
    assert_eq!(lake.totals().get("disputed"), Some(&1));
    assert!(lake.home.mutating_calls() > before, "it was asked");
    // What it is asked for anyway it does, and nothing more is made of what stays.
    lake.file("visits", "es");
    lake.resync(&[]).expect(0).says("left, prune is off").says("mended: 0 tables, 1 partition");
    let before = lake.home.mutating_calls();
    lake.resync(&[]).expect(0).says("left, prune is off");
    assert_eq!(lake.home.mutating_calls(), before);

    behave("full");
    lake.resync(&PRUNE).expect(0).says("mended: 1 table, 1 partition");
    let partitions: Vec<String> = lake.partitions("visits").into_keys().collect();
    assert_eq!(partitions, ["de", "es", "it"]);
    lake.resync(&PRUNE).expect(0).says("1 dataset: 1 equal");
}

const DIRECT: [&str; 4] = ["--set", "glue_resync.mode=direct", "--set", "glue_resync.include=all"];

fn direct<'a>(more: &[&'a str]) -> Vec<&'a str> {
    DIRECT.iter().copied().chain(more.iter().copied()).collect()
}

#[test]
fn without_dss_tables_are_made_marked_and_deleted_only_when_asked() {
    let lake = Lake::new();
    for name in ["orders", "items"] {
        lake.dataset(name, &COLUMNS, false, false);
    }
    lake.dataset("visits", &COLUMNS, true, false);
    for n in 0..230 {
        lake.file("visits", &format!("c{n:03}"));
    }
    lake.foreign("places", "s3://elsewhere/places");
    lake.dataset("places", &COLUMNS, false, false);
    let foreign = lake.is("places");
    lake.resync(&direct(&[])).expect(0).says("foreign");
    assert_eq!(
        lake.totals(),
        counts(&[
            ("datasets", 4),
            ("added", 3),
            ("foreign", 1),
            ("mended", 3),
            ("partitions looked", 230),
            ("partitions added", 230),
            ("partitions mended", 230)
        ])
    );
    assert_eq!(lake.is("places"), foreign);
    let marks = lake.table("orders").and_then(|t| t.parameters).expect("marks");
    assert_eq!(marks.get("dssflow:dataset").map(String::as_str), Some("CHURN.orders"));
    assert!(marks.contains_key(Marks::STORE), "{marks:?}");
    let right = lake.is("orders");

    // Somebody else changes the table at the same moment, and Glue is slow: it is read again.
    lake.spoil("orders", |stored| stored.location = Some("s3://elsewhere/orders".to_owned()));
    lake.drop_partition("visits", "c007");
    lake.home.faults(&json!([
        {"target": "aws", "op": "glue:UpdateTable", "times": 2, "action": {"error": {
            "status": 400, "code": "ConcurrentModificationException", "message": "another was first"}}},
        {"target": "aws", "op": "glue:BatchCreatePartition", "times": 1, "action": {"throttle": {}}},
        {"target": "aws", "op": "glue:GetTable", "times": 2, "action": {"throttle": {}}}
    ]));
    lake.resync(&direct(&[])).expect(0).says("2 changed");
    lake.home.faults(&json!([]));
    assert_eq!(lake.is("orders"), right);
    assert_eq!(lake.partitions("visits").len(), 230);

    // What vanished from S3, and datasets that are gone, stay until somebody says so.
    lake.no_file("visits", "c008");
    lake.drop_dataset("items");
    lake.resync(&direct(&[])).expect(0).says("dss_main.churn_items: removed").says("1 vanished");
    assert_eq!((lake.table("items").is_some(), lake.partitions("visits").len()), (true, 230));
    lake.resync(&direct(&["--set", "glue_resync.prune=true"])).expect(0);
    assert_eq!((lake.table("items").is_some(), lake.partitions("visits").len()), (false, 229));
    assert_eq!(lake.is("places"), foreign);
    let before = lake.home.mutating_calls();
    lake.resync(&direct(&["--set", "glue_resync.prune=true"])).expect(0).says("2 equal, 1 foreign");
    assert_eq!(lake.home.mutating_calls(), before);
}

#[test]
fn killed_in_the_middle_it_goes_on() {
    let lake = Lake::new();
    for n in 0..40 {
        lake.dataset(&format!("t{n:02}"), &COLUMNS, false, false);
    }
    // Long enough that a kill meets it in the middle.
    lake.home.faults(&json!([{"target": "aws", "op": "glue:CreateTable", "action": {"delay": {"ms": 60}}}]));
    let args = [
        "run",
        "glue-resync",
        "--sandbox",
        "--set",
        "glue_resync.page_size=4",
        "--set",
        "glue_resync.parallel=1",
    ];
    let args: Vec<&str> = args.into_iter().chain(DIRECT).collect();
    let tables = || {
        lake.home.aws(async |aws| {
            let found = aws.glue().get_tables().database_name(DATABASE).send().await.expect("tables");
            found.table_list().len()
        })
    };
    let mut child = lake.home.spawn(&args);
    let mut kills = 0;
    while kills < 3 {
        let met = tables();
        std::thread::sleep(Duration::from_millis(50));
        if tables() > met && tables() >= 5 * (kills + 1) {
            child.kill().expect("a child of ours");
            child.wait().expect("a child of ours");
            kills += 1;
            child = lake.home.spawn(&["resume", "@latest"]);
        }
        assert!(child.try_wait().expect("a child of ours").is_none(), "it ended before it was killed thrice");
    }
    child.wait().expect("a child of ours");
    assert_eq!(tables(), 40);
    assert_eq!(lake.home.json(&["runs", "get", "-o", "json"])["status"], "succeeded");
    assert_eq!(lake.totals().get("datasets"), Some(&40));
    let before = lake.home.mutating_calls();
    let again: Vec<&str> = args[3..].to_vec();
    lake.resync(&again).expect(0).says("40 datasets: 40 equal");
    assert_eq!(lake.home.mutating_calls(), before);
}
