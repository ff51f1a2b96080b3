//! The policies of the shipped sites.

use dssflow_activities::aws::permissions as declared;
use dssflow_activities::secret::{SecretRef, SecretSink};
use serde_json::Value;

use super::*;
use crate::site::ApiKey;

const PLUGIN: &str = include_str!("../../examples/site.yaml");
const SDK: &str = include_str!("../../examples/site-sdk.yaml");

fn site(text: &str) -> Site {
    crate::parse(text, "site.yaml").unwrap_or_else(|e| panic!("{e}"))
}

fn actions_of(permissions: &[Permission]) -> BTreeSet<&str> {
    permissions.iter().flat_map(|p| p.actions.iter().map(String::as_str)).collect()
}

#[test]
fn who_needs_something() {
    let names = |text| principals(&site(text)).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(PLUGIN), ["dssflow", "service-user", "connection:s3-marketing", "connection:s3-sales"]);
    let text = PLUGIN.replace("parallelism: 8", "parallelism: 8\naws: { credentials: marketing }");
    // The rule about such sites is the site's own business; here it is only what they would need.
    if let Ok(site) = crate::parse(&text, "site.yaml") {
        let source = needed_by(&site, &Principal::Source);
        assert_eq!(actions_of(&source), BTreeSet::from(["sts:AssumeRole"]));
    }
}

#[test]
fn dssflows_own_policy_is_what_its_steps_declare() {
    for text in [PLUGIN, SDK] {
        let site = site(text);
        let own = needed_by(&site, &Principal::Dssflow);
        let (always, sometimes) = calls(&site);
        let mut declared: BTreeSet<&str> = always
            .iter()
            .chain(sometimes.keys())
            .flat_map(|op| declared::needs(op).expect("declared").iter().map(|n| n.action))
            .collect();
        // The secrets of the shipped site.
        if text == PLUGIN {
            declared.insert("secretsmanager:GetSecretValue");
        }
        let own = actions_of(&own);
        let own: BTreeSet<&str> = own.into_iter().filter(|a| !a.starts_with("secretsmanager:")).collect();
        declared.retain(|a| !a.starts_with("secretsmanager:"));
        assert_eq!(own, declared);
        assert!(!own.contains("eks:CreateCluster") || site.cluster.mode == crate::site::ClusterMode::Sdk);
    }
}

#[test]
fn resources_name_the_site_and_deletes_ask_for_its_mark() {
    let site = site(SDK);
    let own = needed_by(&site, &Principal::Dssflow);
    let of = |action: &str| own.iter().find(|p| p.actions == [action]).unwrap_or_else(|| panic!("{action}"));
    let cluster = &site.cluster.name;
    assert_eq!(
        of("eks:CreateCluster").resources,
        [format!("arn:aws:eks:eu-west-1:123456789012:cluster/{cluster}")]
    );
    let delete = of("eks:DeleteCluster");
    assert_eq!(delete.conditions["StringEquals"]["aws:ResourceTag/dssflow:site"][0], site.name);
    assert_eq!(of("iam:PassRole").conditions["StringEquals"]["iam:PassedToService"], ["eks.amazonaws.com"]);
    assert!(own.iter().all(|p| !p.resources.is_empty() && !p.why.is_empty()));
}

/// The site with everything switched on that asks for rights, and `pairs` connections.
fn with_everything(text: &str, pairs: usize) -> Site {
    let mut site = site(text);
    let launch = serde_json::json!({
        "subnet": "subnet-0a1b2c3d4e5f60718",
        "instance_profile": "dss-host",
        "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPXh0Zk3mWm5c0zY9bq1a2b3c4d5e6f7a8b9c0d1e2f3 me@here",
    });
    site.host.launch = Some(serde_json::from_value(launch).expect("a launch"));
    site.host.instance = None;
    site.verify.smoke = true;
    site.dss.user_isolation = true;
    let secret = |name: &str| SecretRef::SecretsManager { secrets_manager: name.to_owned(), key: None };
    site.dss.admin_password = secret("dss/admin");
    site.dss.license = Some(SecretRef::Ssm { ssm: "/dss/license".to_owned() });
    site.dss.api_key =
        ApiKey::Sink { sink: SecretSink::SecretsManager { secrets_manager: "dss/key".to_owned() } };
    site.aws.credentials = Some("ops".to_owned());
    let [first, ..] = site.connections.as_slice() else { panic!("the example has connections") };
    let first = first.clone();
    site.connections = (0..pairs)
        .map(|n| {
            let mut connection = first.clone();
            connection.name = format!("s3-{n}");
            connection.bucket = format!("acme-with-a-rather-long-name-{n}");
            connection.glue_database = format!("database_{n}");
            connection.credentials = format!("set-{n}");
            let athena = connection.athena.as_mut().expect("the first one has a pair");
            athena.name = format!("athena-{n}");
            athena.workgroup = format!("workgroup-{n}");
            connection
        })
        .collect();
    for n in 0..pairs {
        let set = Credentials::Static {
            access_key_id: secret(&format!("dss/a-set-{n}")),
            secret_access_key: secret(&format!("dss/b-set-{n}")),
            session_token: None,
        };
        site.credentials.insert(format!("set-{n}"), set);
    }
    site.glue.connection = Some("s3-0".to_owned());
    site
}

/// Every action with everything it is allowed on and under which condition.
fn allowed(policies: &[Value]) -> BTreeSet<(String, String, String)> {
    let many = |value: &Value| match value {
        Value::Array(list) => list.iter().map(ToString::to_string).collect(),
        one => vec![one.to_string()],
    };
    let statements = policies.iter().flat_map(|policy| policy["Statement"].as_array().expect("statements"));
    let mut all = BTreeSet::new();
    for statement in statements {
        assert_eq!(statement["Effect"], "Allow");
        assert!(statement["Action"] != "*", "{statement}");
        for action in many(&statement["Action"]) {
            for resource in many(&statement["Resource"]) {
                all.insert((action.clone(), resource, statement["Condition"].to_string()));
            }
        }
    }
    all
}

#[test]
fn every_document_is_one_that_iam_takes_and_together_they_are_the_policy() {
    let mut parts = BTreeSet::new();
    for (mode, text) in [("dss-plugin", PLUGIN), ("sdk", SDK)] {
        for (what, site, most) in [
            ("as shipped", site(text), 3),
            ("everything", with_everything(text, 2), 4),
            // More than IAM attaches without a quota that was raised; the command says so.
            ("everything and many connections", with_everything(text, 80), 20),
        ] {
            let needed = needed(&site);
            let of =
                |who: &Principal| needed.iter().filter(|p| p.principal == *who).cloned().collect::<Vec<_>>();
            let all = policies(&site);
            assert_eq!(all, policies(&site), "the same each time");
            for (principal, made) in all {
                for Document { name, policy } in &made {
                    let size = size(policy);
                    assert!(size <= MANAGED_POLICY_LIMIT, "{mode}, {what}: {name} has {size} characters");
                    assert_eq!(policy["Version"], "2012-10-17");
                    parts.insert(name.clone());
                }
                assert!(made.len() <= most, "{mode}, {what}: {principal} has {}", made.len());
                let policies: Vec<Value> = made.into_iter().map(|document| document.policy).collect();
                assert_eq!(
                    allowed(&policies),
                    allowed(&[policy(&of(&principal))]),
                    "{mode}, {what}: {principal}"
                );
            }
        }
    }
    for part in ["dssflow:look", "dssflow:machines", "dssflow:data", "dssflow:data-2", "service-user"] {
        assert!(parts.contains(part), "{part} is not among {parts:?}");
    }
}

#[test]
fn what_looks_is_apart_from_what_changes() {
    let site = with_everything(SDK, 2);
    let made = documents(&Principal::Dssflow, &needed_by(&site, &Principal::Dssflow));
    let look = made.iter().find(|document| document.name == "dssflow:look").expect("it is large");
    for (action, ..) in allowed(std::slice::from_ref(&look.policy)) {
        let (_, operation) = action.trim_matches('"').split_once(':').expect("service:Operation");
        let looks = ["Describe", "Get", "List", "Simulate"].iter().any(|verb| operation.starts_with(verb));
        assert!(looks, "{action} is among what only looks");
    }
}

#[test]
fn each_principal_gets_its_own_and_not_the_others() {
    let site = site(PLUGIN);
    let own = needed_by(&site, &Principal::Dssflow);
    assert!(!actions_of(&own).contains("ecr:PutImage"), "dssflow pushes no image itself");
    let service = needed_by(&site, &Principal::ServiceUser);
    assert!(actions_of(&service).contains("eks:*") && actions_of(&service).contains("ecr:PutImage"));
    assert!(actions_of(&service).iter().all(|a| !a.starts_with("s3:") && !a.starts_with("glue:")));
    // The marketing connection is a role that DSS assumes.
    assert!(service.iter().any(|p| p.resources.iter().any(|r| r.ends_with(":role/dss-marketing-data"))));
    let sales = needed_by(&site, &Principal::Connection("s3-sales".into()));
    let resources: BTreeSet<&str> =
        sales.iter().flat_map(|p| p.resources.iter().map(String::as_str)).collect();
    assert!(resources.contains("arn:aws:s3:::acme-sales/dataiku/*"));
    assert!(resources.contains("arn:aws:s3:::acme-sales/athena-results/*"));
    assert!(resources.contains("arn:aws:glue:eu-west-1:123456789012:table/marketing/*"), "it is Glue's");
    let marketing = needed_by(&site, &Principal::Connection("s3-marketing".into()));
    assert!(marketing.iter().all(|p| p.resources.iter().all(|r| !r.contains("sales"))));
    assert!(actions_of(&marketing).iter().all(|a| !a.starts_with("eks:")));
}

#[test]
fn partitions_have_arns_of_their_own() {
    let text = SDK.replace("region: eu-west-1", "region: cn-north-1");
    let site = site(&text);
    let arns = needed(&site).into_iter().flat_map(|p| p.resources).filter(|r| r != "*").collect::<Vec<_>>();
    assert!(arns.iter().filter(|a| !a.contains(":role/")).all(|a| a.starts_with("arn:aws-cn:")), "{arns:?}");
}
