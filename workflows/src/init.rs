//! A commented `site.yaml` to start from. What the instance's metadata and AWS say is filled in; the rest is marked
//! so that it cannot be overlooked: a file with a mark in it is refused with help. Looks at nothing itself: the
//! facts come in.

use std::fmt::Write as _;

use crate::site::FILL_IN;

const TEMPLATE: &str = include_str!("init/template.yaml");

/// What is known of the host from instance metadata and `DescribeInstances`. What is not known stays empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceFacts {
    /// The account of the caller.
    pub account: Option<String>,
    /// The instance's region.
    pub region: Option<String>,
    /// The instance.
    pub instance_id: Option<String>,
    /// Its VPC.
    pub vpc_id: Option<String>,
    /// Subnets of its VPC.
    pub subnets: Vec<SubnetFacts>,
    /// The security groups of the instance.
    pub security_groups: Vec<String>,
}

/// A subnet of the instance's VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetFacts {
    /// Its id.
    pub id: String,
    /// Its availability zone.
    pub zone: String,
    /// Whether instances in it get a public address by themselves.
    pub public: bool,
}

/// A commented `site.yaml` for the bootstrap workflow.
///
/// Of the known subnets it takes one in each of the first two zones, those with public addresses first, because
/// that is what a cluster with public nodes needs.
pub fn init_template(facts: Option<&InstanceFacts>) -> String {
    let none = InstanceFacts::default();
    let facts = facts.unwrap_or(&none);
    let known = |value: &Option<String>, what: &str| {
        value.as_ref().map_or_else(|| format!("\"{FILL_IN}: {what}>\""), |v| format!("\"{v}\""))
    };
    let origin = match (&facts.instance_id, &facts.vpc_id) {
        (Some(instance), Some(vpc)) => {
            format!("# Filled from instance {instance} in {vpc}; check what was filled in.")
        }
        (Some(instance), None) => format!("# Filled from instance {instance}; check what was filled in."),
        (None, _) => "# Nothing could be filled in: there was no instance metadata here.".to_owned(),
    };
    let name = facts.instance_id.as_ref().map_or_else(|| "lab".to_owned(), |_| "main".to_owned());
    let fields = [
        ("origin", origin),
        ("name", name),
        ("account", known(&facts.account, "the AWS account id, 12 digits")),
        ("region", known(&facts.region, "the AWS region, as eu-west-1")),
        (
            "instance",
            known(&facts.instance_id, "the EC2 instance id of the DSS host, as i-0123456789abcdef0"),
        ),
        ("subnets", subnets(&facts.subnets)),
        ("security_groups", security_groups(&facts.security_groups)),
    ];
    let mut text = TEMPLATE.to_owned();
    for (field, value) in fields {
        text = text.replace(&format!("@{{{field}}}"), &value);
    }
    text
}

fn subnets(known: &[SubnetFacts]) -> String {
    let mut sorted: Vec<&SubnetFacts> = known.iter().collect();
    sorted.sort_by(|a, b| (!a.public, &a.zone, &a.id).cmp(&(!b.public, &b.zone, &b.id)));
    let mut chosen: Vec<&SubnetFacts> = Vec::new();
    for subnet in sorted {
        if chosen.len() < 2 && chosen.iter().all(|c| c.zone != subnet.zone) {
            chosen.push(subnet);
        }
    }
    let mut text = String::new();
    for subnet in &chosen {
        let addresses =
            if subnet.public { "public addresses" } else { "no public addresses: set `private: true`" };
        writeln!(text, "    - {}  # {}, {addresses}", subnet.id, subnet.zone)
            .expect("a String takes everything");
    }
    for n in chosen.len()..2 {
        let which = if n == 0 { "a subnet in the VPC of the host" } else { "a second one, in another zone" };
        writeln!(text, "    - \"{FILL_IN}: {which}, as subnet-0123456789abcdef0>\"")
            .expect("a String takes everything");
    }
    text
}

fn security_groups(known: &[String]) -> String {
    if known.is_empty() {
        return format!("    - \"{FILL_IN}: the security group of the host, as sg-0123456789abcdef0>\"\n");
    }
    known.iter().fold(String::new(), |text, id| text + "    - " + id + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{codes, parse};

    fn facts() -> InstanceFacts {
        let subnet = |id: &str, zone: &str, public| SubnetFacts { id: id.into(), zone: zone.into(), public };
        InstanceFacts {
            account: Some("012345678901".into()),
            region: Some("eu-central-1".into()),
            instance_id: Some("i-0aaaaaaaaaaaaaaa1".into()),
            vpc_id: Some("vpc-0aaaaaaaaaaaaaaa1".into()),
            subnets: vec![
                subnet("subnet-0aaaaaaaaaaaaaaa1", "eu-central-1a", false),
                subnet("subnet-0aaaaaaaaaaaaaaa2", "eu-central-1a", true),
                subnet("subnet-0aaaaaaaaaaaaaaa3", "eu-central-1b", false),
            ],
            security_groups: vec!["sg-0aaaaaaaaaaaaaaa1".into()],
        }
    }

    #[test]
    fn what_is_left_open_is_refused_and_nothing_else() {
        for (facts, fewest) in [(None, 18), (Some(facts()), 13)] {
            let text = init_template(facts.as_ref());
            assert!(!text.contains("@{"), "every field is replaced");
            let errors = parse(&text, "site.yaml").unwrap_err();
            assert!(errors.problems.iter().all(|p| p.code == codes::UNFILLED), "{errors}");
            assert_eq!(
                errors.problems.len(),
                text.matches(FILL_IN).count() - 1,
                "one a mark; the head explains it\n{errors}"
            );
            assert!(errors.problems.len() >= fewest, "{errors}");
        }
    }

    #[test]
    fn a_filled_template_is_a_site() {
        let mut text = init_template(Some(&facts()));
        for (mark, value) in [
            ("the SHA-256", "ab".repeat(32)),
            ("the bucket", "some-bucket".into()),
            ("the ARN", "arn:aws:iam::012345678901:role/x".into()),
            ("where Athena", "s3://some-bucket/out/".into()),
        ] {
            while let Some(start) = text.find(&format!("\"{FILL_IN}: {mark}")) {
                let end = start + 1 + text[start + 1..].find('"').unwrap() + 1;
                text.replace_range(start..end, &value);
            }
        }
        let site = parse(&text, "site.yaml").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(site.cluster.subnets, ["subnet-0aaaaaaaaaaaaaaa2", "subnet-0aaaaaaaaaaaaaaa3"]);
        assert_eq!(site.expected_account, "012345678901");
    }
}
