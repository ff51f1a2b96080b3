//! Others who work on the same things at the same moment, and datasets that nobody asked for: what others put into Glue
//! stays, what is put right is not sent again, what comes back is not deleted, what is not looked at is told.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::unkind::{Unkind, count, dataset};

const COLUMNS: [(&str, &str); 2] = [("id", "bigint"), ("note", "string")];
const RUN: [&str; 3] = ["run", "glue-resync", "--yes"];

fn which(country: &str) -> Vec<String> {
    vec![country.to_owned()]
}

/// What somebody could know of a partition: the type of its first column, a comment, its place and its parameters.
fn facts(partition: &Value) -> Value {
    let stored = &partition["StorageDescriptor"];
    json!([
        stored["Columns"][0]["Type"],
        stored["Columns"][1]["Comment"],
        stored["Location"],
        partition["Parameters"]
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_put_into_partitions_stays_and_what_they_put_right_is_not_sent_again() {
    const COUNTRIES: [&str; 5] = ["de", "es", "fr", "it", "pl"];
    let world = Unkind::start().await;
    world.put("P", [dataset("P", "visits", &COLUMNS, true)]);
    let countries = COUNTRIES.map(str::to_owned).to_vec();
    world.aws.cloud().directories.insert("P/visits".to_owned(), countries);
    world.run(&RUN, 0).await;
    let right = world.aws.cloud().tables["p_visits"].partitions.clone();
    assert_eq!(right.len(), COUNTRIES.len());

    // Each has another type and somebody's words in it; one is not there at all.
    let spoilt = |country: &str, parameters: &Value| {
        let mut partition = right[&which(country)].clone();
        partition["StorageDescriptor"]["Columns"][0]["Type"] = json!("string");
        partition["StorageDescriptor"]["Columns"][1]["Comment"] = json!("ask Ann");
        partition["Parameters"] = parameters.clone();
        partition
    };
    let mut put_right = right[&which("fr")].clone();
    put_right["Parameters"] = json!({"by": "bob"});
    {
        let mut cloud = world.aws.cloud();
        let kept = cloud.tables.get_mut("p_visits").expect("it was made");
        for country in ["de", "fr", "it", "pl"] {
            kept.partitions.insert(which(country), spoilt(country, &json!({"by": "ann"})));
        }
        kept.partitions.remove(&which("es"));
        // While dssflow mends, others make one, put one right, change one that stays wrong, and take one out.
        cloud.rivals = BTreeMap::from([
            (which("es"), Some(spoilt("es", &json!({"by": "carl"})))),
            (which("fr"), Some(put_right.clone())),
            (which("it"), Some(spoilt("it", &json!({"rows": "7"})))),
            (which("pl"), None),
        ]);
        cloud.sent.clear();
    }
    let took = world.run(&RUN, 0).await;
    assert!(took.said.contains("1 table, 5 partitions"), "{}", took.said);

    let cloud = world.aws.cloud();
    let now = &cloud.tables["p_visits"].partitions;
    for (country, parameters) in
        [("de", json!({"by": "ann"})), ("es", json!({"by": "carl"})), ("it", json!({"rows": "7"}))]
    {
        let mut wanted = right[&which(country)].clone();
        wanted["StorageDescriptor"]["Columns"][1]["Comment"] = json!("ask Ann");
        wanted["Parameters"] = parameters;
        assert_eq!(facts(&now[&which(country)]), facts(&wanted), "{country}");
    }
    assert_eq!(now[&which("fr")], put_right, "as he left it");
    assert_eq!(facts(&now[&which("pl")]), facts(&right[&which("pl")]), "it is made anew");
    let all = |countries: &[&str]| countries.iter().map(|country| which(country)).collect::<Vec<_>>();
    assert_eq!(
        cloud.sent,
        [
            ("create", all(&["es"])),
            ("update", all(&["de", "fr", "it", "pl", "es"])),
            ("update", all(&["it"])),
            ("create", all(&["pl"])),
        ],
        "what is right by now is not sent again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_comes_back_while_others_are_deleted_keeps_its_table() {
    let world = Unkind::start().await;
    let of = |name: &str| dataset("P", name, &COLUMNS, false);
    world.put("P", ["a", "b", "c", "d"].map(of));
    world.run(&RUN, 0).await;
    for name in ["a", "b", "c"] {
        world.call(Method::DELETE, &format!("/projects/P/datasets/{name}"), None).await;
    }
    // As soon as the table of the first is gone, somebody makes the second dataset again.
    let (dss, back) = (world.dss.clone(), BTreeMap::from([("b".to_owned(), of("b"))]));
    world.aws.cloud().after_delete = Some(Box::new(move || dss.put_datasets("P", back)));
    let took = world.run(&[&RUN[..], &["--set", "glue_resync.prune=true"]].concat(), 0).await;
    assert!(took.said.contains("its dataset is there again"), "{}", took.said);
    let tables: Vec<String> = world.aws.cloud().tables.keys().cloned().collect();
    assert_eq!(tables, ["p_b", "p_d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_looked_at_is_told_by_reason_and_what_to_do_when_that_is_all() {
    let world = Unkind::start().await;
    let plan = ["plan", "glue-resync"];
    let empty = world.run(&plan, 0).await;
    assert!(empty.said.contains("0 datasets: 0 equal"), "{}", empty.said);
    assert!(empty.said.contains("nothing to compare: DSS shows no dataset"), "{}", empty.said);

    let of = |name: &str, pointer: &str, value: Value| {
        let mut dataset = dataset("P", name, &COLUMNS, false);
        *dataset.pointer_mut(pointer).expect("it has one") = value;
        dataset
    };
    let mut elsewhere = of("elsewhere_unsynced", "/params/connection", json!("s3-old"));
    elsewhere["params"]["metastoreSynchronizationEnabled"] = json!(false);
    world.put(
        "P",
        [
            of("looked_at", "/managed", json!(true)),
            of("unsynced", "/params/metastoreSynchronizationEnabled", json!(false)),
            of("elsewhere", "/params/connection", json!("s3-old")),
            elsewhere,
            of("local", "/type", json!("Filesystem")),
        ],
    );
    let counted = async |more: &[&str]| {
        let took = world.run(&[&plan[..], &["-o", "json"], more].concat(), 0).await;
        let of = |pointer| count(&took.report, pointer);
        [
            of("/totals/datasets"),
            of("/not_synced"),
            of("/totals/other_connections"),
            of("/totals/not_selected"),
            of("/totals/not_on_s3"),
        ]
    };
    assert_eq!(counted(&[]).await, [1, 1, 2, 0, 1]);
    assert_eq!(counted(&["--dataset", "P.looked_at"]).await, [1, 0, 2, 1, 1]);
    let told = world.run(&plan, 0).await;
    assert!(
        told.said.contains("left out: 1 dataset not synchronised, 2 on other connections\n"),
        "{}",
        told.said
    );
    let none = world.run(&[&plan[..], &["--dataset", "Q.*"]].concat(), 0).await;
    for line in
        ["0 datasets: 0 equal", "2 datasets on other connections, 2 not selected", "nothing to compare: "]
    {
        assert!(none.said.contains(line), "{line:?} is not in {}", none.said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_is_held_to_what_the_file_is_held_to() {
    let world = Unkind::start().await;
    let flag = world.run(&[&RUN[..], &["--parallelism", "64"]].concat(), 64).await;
    let file = world.run(&[&RUN[..], &["--set", "glue_resync.parallel=64"]].concat(), 64).await;
    for took in [flag, file] {
        let wanted = "[DF0104] glue_resync.parallel: 64 is out of range";
        assert!(took.said.contains(wanted), "{}", took.said);
    }
    assert_eq!(world.aws.called("GetTables"), 0);
}
