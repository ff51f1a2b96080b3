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

    // One who makes the cluster himself needs more than IAM takes in one document.
    let sdk =
        ["plan", "bootstrap", "--set", "cluster.mode=sdk", "--set", "verify.smoke=true", "--iam-policy"];
    let asked = |who: &str| home.run(&[&sdk[..], &[who]].concat());
    let all = home.run(&sdk);
    assert_eq!(all.exit, 0, "{all:?}");
    let all: Value = serde_json::from_str(&all.out).unwrap();
    let all = all.as_object().unwrap();
    let names: Vec<&String> = all.keys().collect();
    assert_eq!(
        names,
        [
            "dssflow:look",
            "dssflow:machines",
            "dssflow:data",
            "service-user",
            "connection:s3-marketing",
            "connection:s3-sales"
        ]
    );
    for (name, document) in all {
        let one = asked(name);
        assert_eq!(one.exit, 0, "{one:?}");
        let one: Value = serde_json::from_str(&one.out).unwrap();
        assert_eq!(one, *document, "{name} alone is the same");
        assert_eq!(one["Version"], "2012-10-17");
        let characters = one.to_string().chars().filter(|c| !c.is_whitespace()).count();
        assert!(characters <= 6144, "{name}: IAM takes 6,144 characters, it has {characters}");
        let statements = one["Statement"].as_array().unwrap();
        assert!(statements.iter().all(|s| s["Effect"] == "Allow" && !s["Resource"].is_null()), "{one}");
    }
    let delete = all["dssflow:data"]["Statement"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["Action"].to_string().contains("ecr:DeleteRepository"))
        .unwrap();
    assert_eq!(delete["Condition"]["StringEquals"]["aws:ResourceTag/dssflow:site"], "lab");

    // By its principal it comes whole, in its parts, and the command says that all of them are needed.
    let own = asked("dssflow");
    assert_eq!(own.exit, 0, "{own:?}");
    assert!(own.err.contains("3 documents, all of which are needed: dssflow:look, "), "{own:?}");
    let own: Value = serde_json::from_str(&own.out).unwrap();
    let parts: Vec<&String> = own.as_object().unwrap().keys().collect();
    assert_eq!(parts, &names[..3]);
    assert!(parts.into_iter().all(|part| own[part] == all[part]));
    assert!(!home.store().exists(), "a policy needs no store");

    let wrong = home.run(&["plan", "bootstrap", "--iam-policy", "connection:s3-sale"]);
    assert_eq!(wrong.exit, 64, "{wrong:?}");
    assert!(wrong.err.contains("did you mean connection:s3-sales?"), "{wrong:?}");
    let both = home.run(&["plan", "bootstrap", "--iam-policy", "--out", "plan.json"]);
    assert_eq!(both.exit, 64, "{both:?}");
}
