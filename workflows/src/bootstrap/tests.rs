//! The graph as a whole, in both cluster modes.

use std::collections::{BTreeMap, BTreeSet};

use dssflow_engine::activity::ActivityRegistry;
use dssflow_engine::graph::{Binding, LockMode, StepIx, StepKind};
use serde_json::{Value, json};

use super::*;
use crate::site::parse;

const PLUGIN: &str = include_str!("../../examples/site.yaml");
const SDK: &str = include_str!("../../examples/site-sdk.yaml");

fn site(text: &str) -> Site {
    parse(text, "site.yaml").unwrap_or_else(|e| panic!("{e}"))
}

/// Both modes, and the smoke test.
fn with_everything() -> [(&'static str, Workflow); 3] {
    let [plugin, sdk] = both();
    [plugin, sdk, ("smoke", bootstrap(&with_smoke()).expect("a graph"))]
}

fn both() -> [(&'static str, Workflow); 2] {
    [
        ("dss-plugin", bootstrap(&site(PLUGIN)).expect("a graph")),
        ("sdk", bootstrap(&site(SDK)).expect("a graph")),
    ]
}

/// The example with a host that is still to be launched.
fn launching() -> Site {
    let instance = "instance: i-0a1b2c3d4e5f60718";
    assert!(PLUGIN.contains(instance));
    site(&PLUGIN.replacen(
        instance,
        "launch:\n    subnet: subnet-0a1b2c3d4e5f60718\n    public_key: ssh-ed25519 \
         AAAAC3NzaC1lZDI1NTE5AAAAIPXh0Zk3mWm5c0zY9bq1a2b3c4d5e6f7a8b9c0d1e2f3 me@here",
        1,
    ))
}

fn registry() -> ActivityRegistry {
    let mut registry = ActivityRegistry::new();
    dssflow_activities::register_all(&mut registry).expect("all activities can be registered");
    registry
}

/// What each output that is referred to looks like, from the activities' own types.
fn outputs() -> BTreeMap<&'static str, Value> {
    samples::all()
}

/// The input as the activity will get it, with samples for what other steps give.
fn sample(workflow: &Workflow, binding: &Binding, functions: &FunctionRegistry) -> Value {
    match binding {
        Binding::Literal { value } => value.clone(),
        Binding::Output { step, pointer } => {
            let ix = workflow.graph.index_of(step).expect("references are checked");
            let StepKind::Activity { activity, .. } = &workflow.graph.step(ix).kind else {
                panic!("an activity")
            };
            let outputs = outputs();
            let output =
                outputs.get(activity.as_str()).unwrap_or_else(|| panic!("no sample output of {activity}"));
            output.pointer(pointer).unwrap_or_else(|| panic!("{activity} has nothing at {pointer:?}")).clone()
        }
        Binding::Object { fields } => {
            fields.iter().map(|(k, b)| (k.clone(), sample(workflow, b, functions))).collect()
        }
        Binding::List { items } => items.iter().map(|b| sample(workflow, b, functions)).collect(),
        Binding::Function { name, argument } => {
            assert!(functions.contains(name), "function {name} is not registered");
            let argument = sample(workflow, argument, functions);
            match name.as_str() {
                "bootstrap.principal" => cluster::principal(&argument).expect("a principal"),
                "bootstrap.pod-image" => cluster::pod_image(&argument).expect("an image"),
                "bootstrap.repositories" | "bootstrap.images" => {
                    let images = registry::built_images(&argument).expect("built images");
                    let names = name == "bootstrap.repositories";
                    images
                        .into_iter()
                        .map(|(repository, tag)| {
                            if names {
                                json!(repository)
                            } else {
                                json!({ "repository": repository, "tag": tag })
                            }
                        })
                        .collect()
                }
                other => panic!("no sample result of {other}"),
            }
        }
        Binding::Input { .. } => panic!("the bootstrap binds nothing to the run's input"),
    }
}

fn with_smoke() -> Site {
    let mut site = site(PLUGIN);
    site.verify.smoke = true;
    site
}

#[test]
fn the_smoke_test_comes_last_and_only_where_the_site_asks_for_it() {
    let is_smoke = |step: &&Step| step.name.as_str().starts_with("smoke-");
    for (mode, workflow) in both() {
        assert_eq!(workflow.graph.steps().iter().filter(is_smoke).count(), 0, "{mode}");
    }
    let site = with_smoke();
    let workflow = bootstrap(&site).expect("a graph");
    let names: Vec<&str> =
        workflow.graph.steps().iter().filter(is_smoke).map(|step| step.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "smoke-project",
            "smoke-dataset-rows",
            "smoke-dataset-copy",
            "smoke-recipe-python",
            "smoke-recipe-spark",
            "smoke-job",
            "smoke-table",
            "smoke-athena",
            "smoke-clean"
        ]
    );
    let exercised = wired_not_exercised(&site).join("\n");
    assert!(!exercised.contains("no recipe has run"), "{exercised}");
    let mut none = site;
    none.connections.clear();
    let value = serde_json::to_string(&none).expect("plain data");
    let problems = parse(&value, "site.yaml").expect_err("nothing to write to").problems;
    assert!(problems.iter().any(|problem| problem.path == "verify.smoke"), "{problems:?}");
}

#[test]
fn one_overlay_fits_every_pair() {
    let mut site = site(PLUGIN);
    site.overlays.athena_link =
        Some(json!({"params": {"athenaConnection": null, "pair": "{{athena_connection}}"}}));
    let workflow = bootstrap(&site).expect("a graph");
    for connection in site.connections.iter().filter(|connection| connection.athena.is_some()) {
        let name = StepName::new(format!("athena-link-{}", connection.name)).expect("a name");
        let step = workflow.graph.step(workflow.graph.index_of(&name).expect("a step"));
        let StepKind::Activity { input: Binding::Literal { value }, .. } = &step.kind else {
            panic!("{step:?}")
        };
        let athena = connection.athena.as_ref().map(|athena| athena.name.as_str());
        assert_eq!(value["overlay"]["params"]["pair"].as_str(), athena);
    }
    let wrong = "overlays:\n  athena_link: {params: {pair: '{{athena_conection}}'}}\n";
    let typo = PLUGIN.replacen("overlays:\n", wrong, 1);
    let problems = parse(&typo, "site.yaml").expect_err("a typo").problems;
    assert!(problems.iter().any(|problem| problem.help.contains("athena_connection")), "{problems:?}");
}

#[test]
fn every_step_names_a_registered_activity_and_its_input_fits() {
    let registry = registry();
    let mut functions = FunctionRegistry::default();
    register_functions(&mut functions);
    let mut wrong = Vec::new();
    let launching = ("launch", bootstrap(&launching()).expect("a graph"));
    for (mode, workflow) in with_everything().into_iter().chain([launching]) {
        for step in workflow.graph.steps() {
            let StepKind::Activity { activity, input } = &step.kind else {
                panic!("{} is no activity", step.name)
            };
            let Some(code) = registry.get(activity) else {
                wrong.push(format!("{mode}: {}: {activity} is not registered", step.name));
                continue;
            };
            let input = sample(&workflow, input, &functions);
            if let Err(error) = code.check_input(&input) {
                wrong.push(format!("{mode}: {}: {error}\n  {input}", step.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each row of the reference architecture with the steps that do it; `*` stands for any text. A row whose steps
/// differ by mode stands twice; "Push base images", which the document says twice, is one step, because one call
/// pushes for both configurations.
const ROWS: &[(&str, &str, &str)] = &[
    ("Prepare the instance", "Setup an AlmaLinux 8 EC2 machine", "instance host-facts packages java python"),
    (
        "Prepare the instance",
        "Make sure that the EC2 machine has the \"default\" security group assigned",
        "default-security-group",
    ),
    ("Prepare the instance", "Install and configure Docker CE", "docker"),
    ("Prepare the instance", "Install kubectl", "kubectl eksctl aws-iam-authenticator"),
    ("Prepare the instance", "Install the aws command line client", "aws-cli"),
    ("Prepare the instance", "Setup a non-root user for the dssuser", "service-user limits"),
    ("Setup connectivity to AWS", "As the dssuser, run aws configure", "aws-credentials"),
    (
        "Install DSS",
        "Download DSS, together with the Hadoop libraries and Spark binaries",
        "kit-dss kit-hadoop kit-spark",
    ),
    (
        "Install DSS",
        "Install DSS",
        "unpack install-deps install-dss env-site hadoop-integration spark-integration boot dss-start api-key dss-ready license admin-password",
    ),
    ("Install DSS", "Build base container-exec and Spark images", "image-container-exec image-spark"),
    (
        "Setup container configuration in DSS",
        "Create a new container config, of type K8S",
        "container-config",
    ),
    ("Setup container configuration in DSS", "Set the Image URL", "container-config ecr-repositories"),
    ("Setup container configuration in DSS", "Set the pre-push hook to \"Enable ECR\"", "container-config"),
    ("Setup Spark and Metastore in DSS", "Push base images", "push-needed push-base-images images-present"),
    ("Setup Spark and Metastore in DSS", "Enable \"Managed Spark on K8S\"", "spark-config"),
    ("Setup Spark and Metastore in DSS", "Set the Image URL and the pre-push hook", "spark-config"),
    ("Setup Spark and Metastore in DSS", "Set metastore catalog to \"Glue\"", "metastore"),
    (
        "Setup S3 connections",
        "Setup as many S3 connections as required, S3A as the HDFS interface",
        "s3-connection-s3-sales s3-connection-s3-marketing groups",
    ),
    (
        "Setup S3 connections",
        "Enable synchronization, and select a Glue database",
        "glue-database-sales glue-database-marketing",
    ),
    (
        "Setup Athena connections",
        "For each S3 connection, setup an Athena connection",
        "athena-driver athena-connection-athena-sales athena-connection-athena-marketing",
    ),
    (
        "Setup Athena connections",
        "Associate the S3 connection to the Athena connection",
        "athena-link-s3-sales athena-link-s3-marketing",
    ),
    ("Install EKS plugin", "Install the EKS plugin", "plugin plugin-code-env"),
    ("Install EKS plugin", "Create presets for connection and networking", "plugin-presets"),
    (
        "Use it",
        "Configure a project to use this cluster",
        "default-cluster project-churn project-settings-churn project-pricing project-settings-pricing",
    ),
    (
        "Use it",
        "You can now perform Spark operations and query Athena",
        "nodes-check pods-check athena-query-athena-sales athena-query-athena-marketing",
    ),
];
const PLUGIN_ROWS: &[(&str, &str, &str)] = &[(
    "Create your first cluster",
    "Create EKS cluster, select settings and node pool, create",
    "cluster cluster-start",
)];
const SDK_ROWS: &[(&str, &str, &str)] = &[(
    "Create your first cluster",
    "Create EKS cluster, select settings and node pool, create",
    "service-linked-role-eks service-linked-role-eks-nodegroup cluster-role node-role eks-cluster eks-cluster-active access-entry \
     launch-template node-group node-group-active addon-vpc-cni addon-coredns addon-kube-proxy cluster-attach",
)];

#[test]
fn every_row_of_the_reference_architecture_has_its_steps() {
    for (mode, workflow) in both() {
        let more = if mode == "sdk" { SDK_ROWS } else { PLUGIN_ROWS };
        for (heading, row, steps) in ROWS.iter().chain(more) {
            for name in steps.split_whitespace() {
                let step = workflow.graph.steps().iter().find(|s| s.name.as_str() == name);
                let step = step.unwrap_or_else(|| panic!("{mode}: {row}: no step {name}"));
                assert_eq!(step.group, *heading, "{mode}: {name}");
                assert!(!step.title.is_empty(), "{mode}: {name} has no title");
            }
        }
    }
}

/// Everything that `ix` waits for, directly or not.
fn upstream(graph: &Graph, ix: StepIx) -> BTreeSet<&str> {
    let mut seen = BTreeSet::new();
    let mut todo = graph.dependencies(ix).to_vec();
    while let Some(next) = todo.pop() {
        if seen.insert(graph.step(next).name.as_str()) {
            todo.extend_from_slice(graph.dependencies(next));
        }
    }
    seen
}

#[test]
fn nothing_is_made_before_the_checks_and_nothing_speaks_to_dss_before_the_key() {
    for (mode, workflow) in both() {
        let graph = &workflow.graph;
        for (ix, step) in (0..).zip(graph.steps()) {
            let before = upstream(graph, ix);
            let StepKind::Activity { activity, .. } = &step.kind else { panic!("an activity") };
            let name = step.name.as_str();
            if name != "identity" {
                assert!(before.contains("identity"), "{mode}: {name} does not wait for the identity");
            }
            if !matches!(name, "identity" | "instance" | "host-facts" | "network") {
                for check in ["instance", "host-facts", "network"] {
                    assert!(before.contains(check), "{mode}: {name} does not wait for {check}");
                }
            }
            if activity.as_str().starts_with("dss.") {
                assert!(before.contains("api-key"), "{mode}: {name} speaks to DSS before the key");
                let shared = step
                    .locks
                    .iter()
                    .any(|l| l.name.as_str().starts_with("host:dss-service:") && l.mode == LockMode::Shared);
                assert!(shared, "{mode}: {name} may run while DSS is stopped");
            }
            assert!(
                step.timeouts.start_to_close_ms.is_some() && step.expected_ms.is_some(),
                "{mode}: {name} has no limits"
            );
        }
    }
}

#[test]
fn the_order_that_works() {
    let pairs = [
        ("hadoop-integration", "spark-integration"),
        ("spark-integration", "image-container-exec"),
        ("image-spark", "boot"),
        ("boot", "api-key"),
        ("install-deps", "install-dss"),
        ("install-dss", "ecr-repositories"),
        ("image-spark", "ecr-repositories"),
        ("ecr-repositories", "push-base-images"),
        ("container-config", "push-base-images"),
        ("spark-config", "push-base-images"),
        ("groups", "s3-connection-s3-sales"),
        ("glue-database-sales", "s3-connection-s3-sales"),
        ("s3-connection-s3-sales", "athena-connection-athena-sales"),
        ("athena-driver", "athena-connection-athena-sales"),
        ("athena-link-s3-sales", "metastore"),
        ("plugin", "plugin-code-env"),
        ("plugin-code-env", "plugin-presets"),
        ("admin-password", "container-config"),
    ];
    let plugin = [
        ("plugin-presets", "cluster"),
        ("cluster", "cluster-start"),
        ("eksctl", "cluster-start"),
        ("cluster-start", "default-cluster"),
    ];
    let sdk = [
        ("plugin-presets", "cluster-attach"),
        ("service-linked-role-eks", "eks-cluster"),
        ("eks-cluster-active", "node-group"),
        ("node-group-active", "addon-coredns"),
        ("access-entry", "cluster-attach"),
        ("cluster-attach", "default-cluster"),
    ];
    for (mode, workflow) in both() {
        let graph = &workflow.graph;
        for (first, then) in
            pairs.iter().chain(if mode == "sdk" { sdk.as_slice() } else { plugin.as_slice() })
        {
            let ix =
                graph.index_of(&plan::step_name(*then)).unwrap_or_else(|| panic!("{mode}: no step {then}"));
            assert!(upstream(graph, ix).contains(first), "{mode}: {then} does not wait for {first}");
        }
    }
    // In sdk mode the control plane comes up while DSS is installed.
    let [_, (_, sdk)] = both();
    let ix = sdk.graph.index_of(&plan::step_name("eks-cluster-active")).expect("a step");
    assert!(!upstream(&sdk.graph, ix).contains("install-dss"));
}

#[test]
fn a_host_is_launched_after_the_network_was_looked_at_and_before_anything_is_on_it() {
    let workflow = bootstrap(&launching()).expect("a graph");
    let graph = &workflow.graph;
    let before = |name: &str| upstream(graph, graph.index_of(&plan::step_name(name)).expect("a step"));
    let launch = before("host-launch");
    for first in ["identity", "network", "host-image", "host-key-pair"] {
        assert!(launch.contains(first), "host-launch does not wait for {first}");
    }
    assert!(!before("network").contains("instance"), "there is no instance yet");
    for then in ["instance", "host-facts", "packages", "default-security-group", "cluster-start"] {
        assert!(before(then).contains("host-running"), "{then} does not wait for the machine");
    }
    assert!(
        summary(&launching())[0].contains("1 x m7i.2xlarge with 200 GB"),
        "it costs money, so it is told"
    );
    let StepKind::Activity { input, .. } =
        &graph.step(graph.index_of(&plan::step_name("host-launch")).expect("a step")).kind
    else {
        panic!("an activity")
    };
    let input = serde_json::to_string(input).expect("plain data");
    assert!(
        input.contains("host-image") && input.contains("/root_device"),
        "the image is another step's: {input}"
    );
}

/// What hangs on a cluster goes by itself in most cases: it is waited for between a quarter of an hour and twenty
/// minutes, and not at all by chance. What is ours and failed is replaced, also by a step with two attempts.
#[test]
fn deletions_wait_for_what_hangs_on_them_and_failed_creates_are_replaced() {
    use dssflow_engine::activity::ActivityError;
    for (workflow, names) in both()
        .iter()
        .map(|(_, w)| w)
        .zip([["cluster-start"].as_slice(), ["eks-cluster", "node-group", "cluster-attach"].as_slice()])
    {
        for name in names {
            let step = workflow.graph.step(workflow.graph.index_of(&plan::step_name(*name)).expect("a step"));
            let undo = step.undo_retry.as_ref().expect("an undo of its own");
            for code in ["StillInUse", "DependencyViolation", "ResourceInUseException"] {
                let (_, policy) = undo.for_error(&ActivityError::retryable(code, ""));
                let waits =
                    (1..policy.maximum_attempts).map(|n| policy.delay(n, 0.0, None).as_secs()).sum::<u64>();
                assert!((15 * 60..=20 * 60).contains(&waits), "{name}: {code} is waited for {waits} s");
            }
            let (rule, policy) = step.retry.for_error(&ActivityError::retryable("FailedResource", ""));
            assert!(rule.is_some() && policy.maximum_attempts > 1, "{name}: a failed one is never replaced");
        }
    }
}

#[test]
fn a_launched_host_behind_ssh_is_reached_before_anything_is_on_it() {
    let mut site = launching();
    let names = |site: &Site| -> Vec<String> {
        bootstrap(site).expect("a graph").graph.steps().iter().map(|s| s.name.to_string()).collect()
    };
    assert!(!names(&site).contains(&"host-reachable".to_owned()), "dssflow runs on it");
    site.host.transport = crate::site::Transport::Ssh;
    site.host.user = Some("ec2-user".to_owned());
    for (by, pointer) in [
        (crate::site::ReachBy::PrivateAddress, "/private_ip"),
        (crate::site::ReachBy::PublicAddress, "/public_ip"),
        (crate::site::ReachBy::InstanceId, "/instance_id"),
    ] {
        site.host.reach_by = by;
        let workflow = bootstrap(&site).expect("a graph");
        let graph = &workflow.graph;
        let ix = graph.index_of(&plan::step_name("host-reachable")).expect("a step");
        assert!(upstream(graph, ix).contains("host-running"));
        let StepKind::Activity { input: Binding::Object { fields }, .. } = &graph.step(ix).kind else {
            panic!("an activity with references")
        };
        assert_eq!(fields["address"], Binding::output(&plan::step_name("host-running"), pointer));
        for then in ["host-facts", "packages", "service-user", "kit-dss", "dss-ready"] {
            let before = upstream(graph, graph.index_of(&plan::step_name(then)).expect("a step"));
            assert!(before.contains("host-reachable"), "{then} does not wait for the machine");
        }
    }
}

#[test]
fn the_general_settings_are_written_by_one_at_a_time() {
    for (_, workflow) in both() {
        for name in ["container-config", "spark-config", "metastore", "default-cluster"] {
            let step = workflow.graph.step(workflow.graph.index_of(&plan::step_name(name)).expect("a step"));
            let alone = step.locks.iter().any(|l| {
                l.name.as_str().starts_with("dss:general-settings:") && l.mode == LockMode::Exclusive
            });
            assert!(alone, "{name}");
        }
    }
}

#[test]
fn the_same_site_gives_the_same_graph() {
    for text in [PLUGIN, SDK] {
        let (a, b) = (bootstrap(&site(text)).expect("a graph"), bootstrap(&site(text)).expect("a graph"));
        assert_eq!(a.graph.hash(), b.graph.hash());
        assert_eq!(a.input, b.input);
    }
}

#[test]
fn steps_are_protected_and_adopted_by_pattern() {
    let mut site = site(PLUGIN);
    site.protect = vec!["glue-database-*".to_owned()];
    site.adopt = vec!["project-churn".to_owned(), "*-link-*".to_owned()];
    let workflow = bootstrap(&site).expect("a graph");
    let marked = |of: fn(&Step) -> bool| -> Vec<String> {
        workflow.graph.steps().iter().filter(|s| of(s)).map(|s| s.name.to_string()).collect()
    };
    assert_eq!(marked(|s| s.protect), ["glue-database-sales", "glue-database-marketing"]);
    assert_eq!(marked(|s| s.adopt), ["athena-link-s3-sales", "athena-link-s3-marketing", "project-churn"]);

    site.protect = vec!["glue-database-sale".to_owned()];
    let error = bootstrap(&site).expect_err("no such step");
    assert_eq!(error.problems[0].path, "protect[0]");
    assert!(error.problems[0].help.contains("glue-database-sales"), "{error}");
}

#[test]
fn what_costs_money_is_told() {
    let lines = summary(&site(PLUGIN)).join("\n");
    assert!(lines.contains("3 x m7i.4xlarge") && lines.contains("control plane"), "{lines}");
    assert!(wired_not_exercised(&site(PLUGIN)).iter().any(|line| line.contains("SparkOnEKS")));
}

#[test]
fn trouble_is_met_as_the_site_says() {
    let mut site = site(PLUGIN);
    let mut of = |on_failure| {
        site.on_failure = on_failure;
        let options = bootstrap(&site).expect("a graph").options;
        (options.on_exhausted, options.on_failure)
    };
    assert_eq!(of(OnFailure::Pause), (OnTrouble::Pause, OnTrouble::Fail));
    assert_eq!(of(OnFailure::Fail), (OnTrouble::Fail, OnTrouble::Fail));
    assert_eq!(of(OnFailure::Rollback), (OnTrouble::Rollback, OnTrouble::Rollback));
}

mod samples;
