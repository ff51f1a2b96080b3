//! `plan --iam-policy`: JSON for IAM, from the site file alone.

use serde_json::Value;

use crate::support::{EXAMPLE, Home};

#[test]
fn policies_are_printed_from_the_site_alone() {
    let home = Home::new();
    home.write("site.yaml", EXAMPLE);
    // Without credentials, without AWS, without a store.
    let all = home.run(&["plan", "bootstrap", "--iam-policy"]);
    assert_eq!(all.exit, 0, "{all:?}");
    let all: Value = serde_json::from_str(&all.out).unwrap();
    let names: Vec<&String> = all.as_object().unwrap().keys().collect();
    assert_eq!(names, ["dssflow", "service-user", "connection:s3-marketing", "connection:s3-sales"]);
    for name in names {
        let one = home.run(&["plan", "bootstrap", "--iam-policy", name]);
        let one: Value = serde_json::from_str(&one.out).unwrap();
        assert_eq!(one, all[name], "{name} alone is the same");
        assert_eq!(one["Version"], "2012-10-17");
        let statements = one["Statement"].as_array().unwrap();
        assert!(statements.iter().all(|s| s["Effect"] == "Allow" && !s["Resource"].is_null()), "{one}");
    }
    let delete = all["dssflow"]["Statement"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["Action"].to_string().contains("ecr:DeleteRepository"))
        .unwrap();
    assert_eq!(delete["Condition"]["StringEquals"]["aws:ResourceTag/dssflow:site"], "lab");
    assert!(!home.store().exists(), "a policy needs no store");

    let wrong = home.run(&["plan", "bootstrap", "--iam-policy", "connection:s3-sale"]);
    assert_eq!(wrong.exit, 64, "{wrong:?}");
    assert!(wrong.err.contains("did you mean connection:s3-sales?"), "{wrong:?}");
    let both = home.run(&["plan", "bootstrap", "--iam-policy", "--out", "plan.json"]);
    assert_eq!(both.exit, 64, "{both:?}");
}
