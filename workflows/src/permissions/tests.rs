//! The policies of the shipped sites.

use dssflow_activities::aws::permissions as declared;
use serde_json::Value;

use super::*;

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

#[test]
fn policies_fit_and_are_the_same_each_time() {
    for text in [PLUGIN, SDK] {
        let site = site(text);
        for principal in principals(&site) {
            let made = policy(&needed_by(&site, &principal));
            assert_eq!(made, policy(&needed_by(&site, &principal)));
            // With all that preflight asks, dssflow's own takes two managed policies; the command says so.
            assert!(size(&made) <= 2 * MANAGED_POLICY_LIMIT, "{principal}: {} characters", size(&made));
            let alone = |statement: &Value| size(statement) < MANAGED_POLICY_LIMIT / 2;
            assert!(made["Statement"].as_array().is_some_and(|list| list.iter().all(alone)), "{principal}");
            for statement in made["Statement"].as_array().expect("statements") {
                assert_eq!(statement["Effect"], "Allow");
                let all = |v: &Value| v == "*";
                assert!(!(all(&statement["Action"]) && all(&statement["Resource"])));
            }
        }
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
