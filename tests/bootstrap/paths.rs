//! The straight path in both cluster modes, and back.

use crate::support::{Home, differences, kept_by_rule};
use crate::{calls, readme, rights};

const MODES: [&str; 2] = ["dss-plugin", "sdk"];

fn there_and_back(mode: &str) {
    let home = Home::with_sandbox();
    let set = format!("cluster.mode={mode}");
    let before = home.snapshot();
    let ran = home.run(&["run", "bootstrap", "--sandbox", "--set", &set]).expect(0).says("succeeded");
    if mode == MODES[0] {
        readme::shows_what_is_printed(&home, &ran.stdout);
    }
    let built = home.snapshot();
    holds_what_the_document_asks_for(&built, mode);

    // A second run of the same site finds everything there.
    home.run(&["run", "bootstrap", "--sandbox", "--set", &set]).expect(0);
    let again = differences(&built, &home.snapshot());
    assert!(again.is_empty(), "a second run changed the world:\n{}", again.join("\n"));
    home.run(&["rollback", "@latest"]).expect(0);
    let again = differences(&built, &home.snapshot());
    assert!(
        again.is_empty(),
        "rolling the second run back took the first one's things:\n{}",
        again.join("\n")
    );

    // Taking the first one back leaves the world as it was, but for what stays by rule.
    home.run(&["rollback", "bootstrap-sandbox"]).expect(0).says("kept");
    let left: Vec<_> =
        differences(&before, &home.snapshot()).into_iter().filter(|d| !kept_by_rule(d)).collect();
    assert!(left.is_empty(), "{mode}: a rollback left behind:\n{}", left.join("\n"));

    let before = home.mutating_calls();
    home.run(&["rollback", "bootstrap-sandbox"]).expect(0).says("nothing to do");
    assert_eq!(home.mutating_calls(), before, "a second rollback called something that changes the world");
    home.run(&["store", "verify"]).expect(0);
    rights::are_what_was_called(&home, mode);
    let by_the_api = [
        "eks:CreateCluster",
        "eks:CreateNodegroup",
        "eks:CreateAddon",
        "eks:CreateAccessEntry",
        "ec2:CreateLaunchTemplate",
        "iam:CreateRole",
    ];
    calls::carry_our_tokens_and_marks(&home, &["ecr:CreateRepository", "glue:CreateDatabase"]);
    calls::carry_our_tokens_and_marks(&home, if mode == "sdk" { &by_the_api } else { &[] });
}

#[test]
fn plugin_mode_there_and_back() {
    there_and_back(MODES[0]);
}

#[test]
fn sdk_mode_there_and_back() {
    there_and_back(MODES[1]);
}

/// Row by row of the reference architecture, read from the world.
#[track_caller]
fn holds_what_the_document_asks_for(world: &serde_json::Value, mode: &str) {
    let at = |pointer: &str| world.pointer(pointer).unwrap_or_else(|| panic!("{mode}: nothing at {pointer}"));
    let text = |pointer: &str| at(pointer).to_string();

    // Prepare the instance; the default security group beside the one it had.
    assert!(
        text("/aws/ec2/instances/0/groups").contains("sg:default"),
        "{}",
        text("/aws/ec2/instances/0/groups")
    );
    let users = text("/host/users");
    assert!(users.contains("dssuser"), "{users}");
    for tool in ["kubectl", "aws", "eksctl", "aws-iam-authenticator"] {
        let files = at("/host/files").as_object().expect("files");
        assert!(files.keys().any(|f| f.ends_with(&format!("bin/{tool}"))), "{tool} is not installed");
    }
    // Credentials private to the service user.
    let credentials = at("/host/files/~1home~1dssuser~1.aws~1credentials");
    assert_eq!((&credentials["mode"], &credentials["owner"]), (&"0600".into(), &"dssuser".into()));
    // DSS, base images, and their repositories.
    assert_eq!(at("/dss/adminHasDefaultPassword"), &serde_json::Value::Bool(false));
    let repositories = at("/aws/ecr").as_object().expect("repositories");
    assert_eq!(repositories.len(), 2, "{repositories:?}");
    assert!(
        repositories.values().all(|r| r["images"].as_array().is_some_and(|i| i.len() == 1)),
        "{repositories:?}"
    );
    // Container and Spark configurations, metastore.
    let settings = at("/dss/generalSettings");
    let container = &settings["containerSettings"]["executionConfigs"][0];
    assert_eq!(
        (&container["type"], &container["prePushMode"]),
        (&"KUBERNETES".into(), &"ECR".into()),
        "{container}"
    );
    assert!(container["repositoryURL"].as_str().is_some_and(|u| u.contains(".dkr.ecr.")), "{container}");
    assert_eq!(settings["containerSettings"]["defaultExecutionConfig"], "eks");
    let spark = settings["sparkSettings"]["executionConfigs"].to_string();
    assert!(
        spark.contains("\"managedKubernetes\":true") && spark.contains("\"prePushMode\":\"ECR\""),
        "{spark}"
    );
    assert!(settings["metastoreCatalogsSettings"].to_string().contains("GLUE"));
    // Connections, each with its own key and its pair.
    let connections = at("/dss/connections").as_object().expect("connections");
    let of = |kind: &str| connections.values().filter(|c| c["type"] == kind).collect::<Vec<_>>();
    let (s3, athena) = (of("EC2"), of("Athena"));
    assert_eq!((s3.len(), athena.len()), (2, 2));
    assert!(s3.iter().all(|c| c["params"]["hdfsInterface"] == "S3A"), "{s3:?}");
    assert_ne!(s3[0]["params"]["accessKey"], s3[1]["params"]["accessKey"], "each connection has its own key");
    for pair in &athena {
        let partner = pair["params"]["s3Connection"].as_str().expect("paired");
        let back = connections[partner]["params"].to_string();
        assert!(
            back.contains(pair["name"].as_str().expect("named")),
            "{partner} does not name its pair: {back}"
        );
    }
    assert_eq!(at("/aws/glue").as_object().map(serde_json::Map::len), Some(2), "{}", text("/aws/glue"));
    // Plugin with both presets.
    let plugin = text("/dss/plugins");
    assert!(plugin.contains("eks-clusters") && plugin.contains("networking-settings"), "{plugin}");
    // The cluster, in AWS and in DSS, and what uses it.
    let cluster = at("/aws/eks/eks-main");
    assert_eq!(cluster["status"], "ACTIVE");
    assert_eq!(cluster["nodeGroups"].as_object().map(serde_json::Map::len), Some(1), "{cluster}");
    let entries = cluster["accessEntries"].to_string();
    assert!(entries.contains("user/dss-service"), "the service user may not use the cluster: {entries}");
    let addons = cluster["addons"].as_object().map_or(0, serde_json::Map::len);
    let stacks = at("/aws/cloudformation").as_object().map_or(0, serde_json::Map::len);
    match mode {
        "sdk" => assert_eq!((addons, stacks), (3, 0), "{cluster}"),
        _ => assert_eq!((addons, stacks), (0, 2), "{cluster}"),
    }
    assert_eq!(at("/dss/clusters/eks-main/state"), "RUNNING");
    assert_eq!(settings["defaultK8sClusterId"], "eks-main");
    let projects = at("/dss/projects").as_object().expect("projects");
    assert_eq!(projects.len(), 2);
    assert!(projects.values().all(|p| p.to_string().contains("EXPLICIT_CLUSTER")), "{projects:?}");
}
