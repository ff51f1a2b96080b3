//! Every switch of the fake DSS, and that the product copes: it wires and takes back the same, or fails with the right
//! error and the world as it was.

use std::collections::BTreeMap;

use dssflow_activities::dss::capture::{Subject, Template, capture};
use dssflow_activities::dss::client::DssClient;
use dssflow_engine::activity::ErrorClass;
use dssflow_sandbox::dss::behaviour::{Auth, BasePath, Behaviour, Duplicates, StartReply};
use dssflow_sandbox::faults::{Action, Fault, Target};
use reqwest::Method;
use serde_json::{Value, json};

use super::lab::{Lab, by_hand, comparable, eks_cluster};

fn usual() -> Behaviour {
    Behaviour::default()
}

#[tokio::test]
async fn all_that_real_instances_may_differ_in_makes_no_difference() {
    let switches = [
        Behaviour { drop_unknown_keys: false, reject_unknown_build_configs: false, ..usual() },
        Behaviour { base_path: BasePath::Dip, auth: vec![Auth::BasicUser], ..usual() },
        Behaviour { require_content_type: true, python_booleans_only: true, ..usual() },
        Behaviour { future_polls: 9, shows_starting: false, ..usual() },
        Behaviour { future_polls: 0, html_errors: true, ..usual() },
        Behaviour { missing_status: Some(500), duplicates: Duplicates::Refused500, ..usual() },
        Behaviour { missing_status: Some(404), duplicates: Duplicates::Overwritten, ..usual() },
        Behaviour { missing_status: Some(400), ..usual() },
    ];
    for (n, behaviour) in switches.into_iter().enumerate() {
        let mut lab = Lab::open(if n % 2 == 0 { 14 } else { 15 }).await;
        lab.dss.behave(behaviour.clone()).unwrap();
        lab.cloud.add_cluster(eks_cluster());
        let before = lab.dss.snapshot();
        lab.wire().await;
        let wired = lab.dss.snapshot();
        for (name, input, ledger) in &lab.steps {
            lab.attempt(name, input, ledger)
                .await
                .unwrap_or_else(|error| panic!("{behaviour:?}: {name}: {error}"));
        }
        assert_eq!(lab.dss.snapshot(), wired, "{behaviour:?}: a second time changed something");
        for (name, undo) in lab.undo().await {
            undo.unwrap_or_else(|error| panic!("{behaviour:?}: {name}: {error}"));
        }
        assert_eq!(comparable(lab.dss.snapshot()), comparable(before), "{behaviour:?}");
    }
}

#[tokio::test]
async fn the_documented_path_and_the_other_forms_of_the_key_are_served() {
    let lab = Lab::open(14).await;
    let key = std::fs::read_to_string(lab.dir.join("key")).unwrap();
    let base = lab.target["url"].as_str().unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let status = async |path: &str, how: &str| {
        let request = http.get(format!("{base}{path}/auth/info"));
        let request = match how {
            "user" => request.basic_auth(&key, Some("")),
            "password" => request.basic_auth("", Some(&key)),
            _ => request.bearer_auth(&key),
        };
        request.send().await.unwrap().status().as_u16()
    };
    for (base_path, auth, wanted) in [
        (BasePath::Both, Auth::BasicUser, [200, 200]),
        (BasePath::Public, Auth::Bearer, [404, 200]),
        (BasePath::Dip, Auth::BasicPassword, [200, 404]),
    ] {
        lab.dss.behave(Behaviour { base_path, auth: vec![auth], ..usual() }).unwrap();
        for (how, form) in
            [("user", Auth::BasicUser), ("password", Auth::BasicPassword), ("bearer", Auth::Bearer)]
        {
            for (path, served) in ["/dip/publicapi", "/public/api"].into_iter().zip(wanted) {
                let wanted = if served == 404 {
                    404
                } else if form == auth {
                    200
                } else {
                    401
                };
                assert_eq!(status(path, how).await, wanted, "{base_path:?} {auth:?}: {path} {how}");
            }
        }
    }
}

#[tokio::test]
async fn an_execution_config_without_its_build_config_is_refused_whole() {
    let mut lab = Lab::open(15).await;
    let before = lab.dss.snapshot();
    let input = json!({"name": "eks", "registry_url": "r", "overlay": {"imageBuildConfig": "nowhere"}});
    let error = lab.step("dss.container-config", input.clone()).await.unwrap_err();
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Terminal, "IllegalArgumentException"));
    assert!(error.message.contains("references an unknown image build configuration"), "{error}");
    assert_eq!(lab.dss.snapshot(), before);
    lab.dss.behave(Behaviour { reject_unknown_build_configs: false, ..usual() }).unwrap();
    lab.step("dss.container-config", input).await.unwrap();
}

#[tokio::test]
async fn a_page_of_html_becomes_one_line_and_is_tried_again() {
    let mut lab = Lab::open(14).await;
    lab.dss.behave(Behaviour { html_errors: true, ..usual() }).unwrap();
    let error = lab.step("dss.connection-test", json!({"name": "nowhere"})).await.unwrap_err();
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Retryable, "HTTP500"));
    assert!(error.message.contains("does not exist") && !error.message.contains('<'), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_create_the_same_at_once_leave_one_and_lose_nothing() {
    for duplicates in [Duplicates::Refused400, Duplicates::Refused500] {
        let mut lab = Lab::open(14).await;
        lab.dss.behave(Behaviour { duplicates, ..usual() }).unwrap();
        // The first look of the second is over before the first has created.
        let slow = Fault::new(Target::Dss, "POST /admin/connections", Action::Delay { ms: 60 });
        lab.faults.set(vec![slow]);
        let input = lab.input(lab.s3("one"));
        let (one, two) = (std::sync::Arc::default(), std::sync::Arc::default());
        let ended = tokio::join!(
            lab.attempt("dss.s3-connection", &input, &one),
            lab.attempt("dss.s3-connection", &input, &two)
        );
        let errors: Vec<_> = [ended.0, ended.1].into_iter().filter_map(Result::err).collect();
        assert!(errors.len() <= 1, "{errors:?}");
        for error in errors {
            assert_eq!(error.code, "IllegalArgumentException", "{error}");
            assert!(error.message.contains("already exists"), "{error}");
        }
        lab.faults.set(Vec::new());
        lab.step("dss.s3-connection", lab.s3("one")).await.unwrap();
        let connections = lab.dss.snapshot()["connections"].as_object().unwrap().len();
        assert_eq!(connections, 2, "the one and the local file system");
    }
}

#[tokio::test]
async fn a_wrong_spelling_in_the_switches_is_refused_and_changes_nothing() {
    let lab = Lab::open(14).await;
    let spellings = BTreeMap::from([("glue_flavour".to_owned(), "X".to_owned())]);
    let refused = lab.dss.behave(Behaviour { spellings, cluster_start: StartReply::Fails, ..usual() });
    assert!(refused.unwrap_err().contains("glue_flavor"));
    assert_eq!(lab.dss.behaviour(), usual());
}

/// Another spelling of everything that nobody could verify.
fn elsewhere() -> Behaviour {
    let names = [
        ("glue_flavor", "AWS_GLUE"),
        ("glue_credentials_mode", "FROM_CONN"),
        ("glue_connection", "connectionName"),
        ("s3_sync_mode", "ON"),
        ("s3_sync_database", "glueDb"),
        ("s3_athena_connection", "associatedAthena"),
        ("athena_s3_connection", "borrowFrom"),
        ("athena_credentials_mode", "BORROWED"),
        ("athena_output_location", "resultsAt"),
        ("athena_driver_directory", "jars"),
        ("build_push_mode", "hook"),
        ("execution_namespace", "podNamespace"),
        ("spark_registry", "imagesAt"),
        ("spark_push_mode", "sparkHook"),
    ];
    let spellings = names.into_iter().map(|(name, theirs)| (name.to_owned(), theirs.to_owned())).collect();
    Behaviour { spellings, ..usual() }
}

/// Steps of a pair and of the general settings, with the site's overlays in them.
fn steps(lab: &Lab, overlays: &BTreeMap<&str, Value>) -> Vec<(&'static str, Value)> {
    let registry = "1.dkr.ecr.eu-west-1.amazonaws.com/team";
    let with = |mut input: Value, key: &str| {
        if let Some(overlay) = overlays.get(key) {
            input["overlay"] = overlay.clone();
        }
        input
    };
    let pair = json!({"name": "athena-one", "s3_connection": "one", "region": "eu-west-1", "database": "db_one",
                      "output_location": "s3://results/", "driver_directory": "/opt/athena"});
    let link = json!({"s3_connection": "one", "athena_connection": "athena-one", "credentials": lab.credentials("one")});
    let spark = json!({"registry_url": registry, "configs": [{"name": "SparkOnEKS"}]});
    vec![
        ("dss.container-config", with(json!({"name": "eks", "registry_url": registry}), "container_config")),
        ("dss.spark-config", with(spark, "spark_config")),
        ("dss.s3-connection", with(lab.s3("one"), "s3_connection")),
        ("dss.athena-connection", with(pair, "athena_connection")),
        ("dss.s3-athena-link", with(link, "athena_link")),
        ("dss.glue-metastore", with(json!({"connection": "one"}), "metastore")),
    ]
}

/// What an administrator sets once by hand, as this DSS spells it.
async fn set_by_hand(lab: &Lab, major: u32) {
    let registry = "1.dkr.ecr.eu-west-1.amazonaws.com/team";
    let s3 = json!({"name": "one", "type": "EC2", "params": {"credentialsMode": "KEYPAIR", "accessKey": "AKIA",
        "secretKey": "by hand", "chbucket": "bucket-one", "metastoreSynchronizationMode": "ON", "glueDb": "db_one",
        "associatedAthena": "athena-one", "hdfsInterface": "S3A"}});
    let athena = json!({"name": "athena-one", "type": "Athena", "params": {"region": "eu-west-1", "resultsAt": "s3://results/",
        "credentialsMode": "BORROWED", "borrowFrom": "one", "jars": "/opt/athena", "database": "db_one"}});
    for connection in [&s3, &athena] {
        by_hand(lab, Method::POST, "/admin/connections/", Some(connection)).await;
    }
    let mut settings = by_hand(lab, Method::GET, "/admin/general-settings", None).await;
    settings["metastoreCatalogsSettings"]["synchronizeTo"] =
        json!({"flavor": "AWS_GLUE", "glueCredentialsMode": "FROM_CONN", "connectionName": "one"});
    let spark = json!({"managedKubernetes": true, "imagesAt": registry, "sparkHook": "ECR"});
    settings["sparkSettings"]["executionConfigs"] =
        json!([{"name": "SparkOnEKS", "kubernetesSettings": spark}]);
    let container = &mut settings["containerSettings"];
    if major >= 15 {
        container["buildConfigs"] = json!([{"name": "b", "dockerBuilderConfig": {
            "pushConfigs": [{"repositoryURL": registry, "hook": "ECR"}]}}]);
        container["executionConfigs"] = json!([{"name": "eks", "type": "KUBERNETES", "imageBuildConfig": "b",
            "kubernetesRuntimeConfig": {"podNamespace": "dssns-${dssUserLogin}"}}]);
    } else {
        container["executionConfigs"] =
            json!([{"name": "eks", "type": "KUBERNETES", "repositoryURL": registry, "prePushMode": "ECR"}]);
    }
    by_hand(lab, Method::PUT, "/admin/general-settings", Some(&settings)).await;
}

/// The whole way of somebody whose DSS spells everything differently: the step fails naming the key, the option is set
/// by hand in another instance of the same version, captured there, pasted, and the same steps succeed.
async fn captured_overlays_fit(major: u32) {
    let mut lab = Lab::open(major).await;
    lab.dss.behave(elsewhere()).unwrap();
    let before = lab.dss.snapshot();
    for (name, input) in steps(&lab, &BTreeMap::new()) {
        if name == "dss.container-config" && major < 15 {
            continue;
        }
        let error = lab.step(name, input).await.unwrap_err();
        assert_eq!(
            (error.class, error.code.as_str()),
            (ErrorClass::Terminal, "SettingsDropped"),
            "{name}: {error}"
        );
        assert!(error.help.as_deref().unwrap_or_default().contains("dssflow dss capture"), "{error:?}");
    }
    for (name, undo) in lab.undo().await {
        undo.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert_eq!(lab.dss.snapshot(), before);

    let model = Lab::open(major).await;
    model.dss.behave(elsewhere()).unwrap();
    set_by_hand(&model, major).await;
    let plain = steps(&lab, &BTreeMap::new());
    let templates: Vec<Template> =
        plain.iter().filter_map(|(name, input)| Template::of_step(name, &lab.input(input.clone()))).collect();
    assert_eq!(templates.len(), plain.len());
    let key = std::fs::read_to_string(model.dir.join("key")).unwrap();
    let client = DssClient::with_key(model.target["url"].as_str().unwrap(), &key).unwrap();
    let mut overlays = BTreeMap::new();
    let calls_before = model.dss.snapshot();
    for subject in [
        Subject::Connection("one".into()),
        Subject::Connection("athena-one".into()),
        Subject::GeneralSettings,
    ] {
        let captured = capture(&client, &subject, &templates, &|_| None).await.unwrap();
        assert!(!format!("{captured:?}").contains("by hand"), "{captured:?}");
        overlays.extend(captured.overlays);
    }
    assert_eq!(model.dss.snapshot(), calls_before, "a capture only reads");
    for (name, input) in steps(&lab, &overlays) {
        lab.step(name, input).await.unwrap_or_else(|error| panic!("{name}: {error}\n{overlays:#?}"));
    }
    // Inside, the fake has its own names: what was captured means the same to it.
    let world = lab.dss.snapshot();
    assert_eq!(world["generalSettings"]["metastoreCatalogsSettings"]["synchronizeTo"]["flavor"], "GLUE");
    assert_eq!(world["connections"]["one"]["params"]["athenaConnection"], "athena-one");
    assert_eq!(world["connections"]["athena-one"]["params"]["s3Connection"], "one");
    assert_eq!(lab.step("dss.sql-check", json!({"connection": "athena-one"})).await.unwrap()["rows"], 1);
}

#[tokio::test]
async fn what_is_captured_makes_the_run_succeed_on_14() {
    captured_overlays_fit(14).await;
}

#[tokio::test]
async fn what_is_captured_makes_the_run_succeed_on_15() {
    captured_overlays_fit(15).await;
}

#[tokio::test]
async fn a_capture_of_what_is_not_there_says_so() {
    let lab = Lab::open(14).await;
    let key = std::fs::read_to_string(lab.dir.join("key")).unwrap();
    let client = DssClient::with_key(lab.target["url"].as_str().unwrap(), &key).unwrap();
    for (subject, code) in [
        (Subject::Connection("nowhere".into()), "CaptureMissing"),
        (Subject::Connection("filesystem_managed".into()), "CaptureKind"),
        (Subject::Plugin("eks-clusters".into()), "CaptureMissing"),
        (Subject::Cluster("c".into()), "CaptureMissing"),
    ] {
        let error = capture(&client, &subject, &[], &|_| None).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.no_effect), (code, true), "{subject}");
    }
}
