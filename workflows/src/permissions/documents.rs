//! A principal's policy as documents that IAM takes: one when it fits, else one a theme, and a theme that is too large
//! itself in several.
//!
//! A managed policy may have [`MANAGED_POLICY_LIMIT`] characters. Themes and not the fewest documents: who reviews them
//! sees at a glance which of them can change something, and a site that grows by a connection keeps the others as they
//! are. Together the documents allow what the one policy allows, no more and no less.
//!
//! Page: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::policy::{MANAGED_POLICY_LIMIT, document, policy, size};
use super::{Permission, Principal};

/// How many managed policies IAM attaches to a user or role, unless the account asked for more.
pub const MAX_ATTACHED_POLICIES: usize = 10;

/// What the rights in a document are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Theme {
    /// Looking: nothing in it changes anything or reads what lies in a bucket, an image or a secret.
    Look,
    /// The host, the cluster, and the roles and stacks they need.
    Machines,
    /// Images, Glue, S3, Athena, secrets.
    Data,
}

impl Theme {
    /// As it stands in the name of a document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Machines => "machines",
            Self::Data => "data",
        }
    }

    /// The theme of an action, as `eks:CreateCluster`.
    fn of(action: &str) -> Self {
        let (service, operation) = action.split_once(':').unwrap_or((action, ""));
        let describes =
            ["Describe", "List", "Get", "Simulate"].iter().any(|verb| operation.starts_with(verb));
        match (service, operation) {
            // What these give is the thing itself and no description of it.
            ("s3" | "secretsmanager" | "ssm", _)
            | ("athena", "GetQueryResults" | "GetQueryResultsStream")
            | ("ecr", "GetAuthorizationToken" | "GetDownloadUrlForLayer") => Self::Data,
            _ if describes => Self::Look,
            ("autoscaling" | "cloudformation" | "ec2" | "eks" | "iam" | "kms", _) => Self::Machines,
            _ => Self::Data,
        }
    }
}

impl fmt::Display for Theme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One policy document of a principal.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Whose it is; with what it is for when the principal has several: `dssflow`, `dssflow:look`, `dssflow:data-2`.
    pub name: String,
    /// For `aws iam create-policy --policy-document`.
    pub policy: Value,
}

/// The policy of `principal` as documents, each of which IAM takes; give it the permissions of that principal.
pub fn documents(principal: &Principal, permissions: &[Permission]) -> Vec<Document> {
    let whole = policy(permissions);
    if size(&whole) <= MANAGED_POLICY_LIMIT {
        return vec![Document { name: principal.to_string(), policy: whole }];
    }
    let mut of_theme: BTreeMap<Theme, Vec<Value>> = BTreeMap::new();
    for statement in whole["Statement"].as_array().into_iter().flatten() {
        let mut actions: BTreeMap<Theme, Vec<&str>> = BTreeMap::new();
        for action in strings(&statement["Action"]) {
            actions.entry(Theme::of(action)).or_default().push(action);
        }
        for (theme, actions) in actions {
            let part = with(statement, "Action", &actions);
            of_theme.entry(theme).or_default().extend(in_reach(part));
        }
    }
    let mut all = Vec::new();
    for (theme, statements) in of_theme {
        for (n, policy) in (1..).zip(packed(statements)) {
            let part = if n == 1 { theme.to_string() } else { format!("{theme}-{n}") };
            all.push(Document { name: format!("{principal}:{part}"), policy });
        }
    }
    all
}

/// Statements one after the other, a new document wherever the next would be too much.
fn packed(statements: Vec<Value>) -> Vec<Value> {
    let mut full = Vec::new();
    let mut open: Vec<Value> = Vec::new();
    for statement in statements {
        open.push(statement);
        if size(&document(&open)) > MANAGED_POLICY_LIMIT && open.len() > 1 {
            let next = open.pop().expect("two at least");
            full.push(document(&std::mem::replace(&mut open, vec![next])));
        }
    }
    if !open.is_empty() {
        full.push(document(&open));
    }
    full
}

/// A statement that fits a document by itself, or its parts that do: the same actions on some of the things each.
fn in_reach(statement: Value) -> Vec<Value> {
    let resources: Vec<String> = strings(&statement["Resource"]).map(str::to_owned).collect();
    if size(&document(std::slice::from_ref(&statement))) <= MANAGED_POLICY_LIMIT || resources.len() < 2 {
        return vec![statement];
    }
    let (one, other) = resources.split_at(resources.len() / 2);
    [one, other]
        .into_iter()
        .flat_map(|half| {
            let half: Vec<&str> = half.iter().map(String::as_str).collect();
            in_reach(with(&statement, "Resource", &half))
        })
        .collect()
}

fn with(statement: &Value, key: &str, values: &[&str]) -> Value {
    let mut changed = statement.clone();
    changed[key] = match values {
        [one] => json!(one),
        many => json!(many),
    };
    changed
}

/// A string, or the strings of a list.
fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_str().into_iter().chain(value.as_array().into_iter().flatten().filter_map(Value::as_str))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::Conditions;
    use super::*;

    /// Every action with every thing it is allowed on, and under which condition.
    fn allowed<'a>(policies: impl IntoIterator<Item = &'a Value>) -> BTreeSet<(String, String, String)> {
        let mut all = BTreeSet::new();
        for statement in policies.into_iter().flat_map(|p| p["Statement"].as_array().into_iter().flatten()) {
            for action in strings(&statement["Action"]) {
                for resource in strings(&statement["Resource"]) {
                    let condition = statement["Condition"].to_string();
                    let right = (action.to_owned(), resource.to_owned(), condition);
                    assert!(all.insert(right), "said twice: {action} on {resource}");
                }
            }
        }
        all
    }

    fn permission(actions: &[&str], resources: Vec<String>) -> Permission {
        Permission {
            principal: Principal::Dssflow,
            actions: actions.iter().map(|a| (*a).to_owned()).collect(),
            resources,
            conditions: Conditions::new(),
            why: String::new(),
        }
    }

    fn many(what: &str, n: usize) -> Vec<String> {
        (0..n).map(|n| format!("arn:aws:glue:eu-west-1:123456789012:{what}/a_rather_long_name_{n}")).collect()
    }

    #[test]
    fn what_fits_stays_one_document() {
        let made = documents(&Principal::Dssflow, &[permission(&["eks:CreateCluster"], many("c", 2))]);
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].name, "dssflow");
    }

    #[test]
    fn what_does_not_fit_is_cut_by_theme_then_by_thing_and_says_the_same() {
        let permissions = [
            permission(&["eks:CreateCluster", "eks:DescribeCluster"], many("cluster", 60)),
            permission(&["glue:CreateDatabase", "glue:GetTable"], many("database", 200)),
            permission(&["ec2:DescribeSubnets"], vec!["*".to_owned()]),
        ];
        let made = documents(&Principal::Dssflow, &permissions);
        for document in &made {
            let size = size(&document.policy);
            assert!(size <= MANAGED_POLICY_LIMIT, "{} has {size} characters", document.name);
            assert_eq!(document.policy["Version"], "2012-10-17");
        }
        let names: Vec<&str> = made.iter().map(|d| d.name.as_str()).collect();
        assert!(names.contains(&"dssflow:look") && names.contains(&"dssflow:machines"), "{names:?}");
        assert!(names.contains(&"dssflow:data") && names.contains(&"dssflow:data-2"), "{names:?}");
        assert_eq!(allowed(made.iter().map(|d| &d.policy)), allowed([&policy(&permissions)]));
    }

    #[test]
    fn the_theme_of_looking_changes_nothing_and_reads_no_content() {
        for (action, theme) in [
            ("ec2:DescribeSubnets", Theme::Look),
            ("iam:SimulatePrincipalPolicy", Theme::Look),
            ("glue:GetTables", Theme::Look),
            ("athena:GetWorkGroup", Theme::Look),
            ("athena:GetQueryResults", Theme::Data),
            ("s3:ListBucket", Theme::Data),
            ("s3:GetObject", Theme::Data),
            ("secretsmanager:GetSecretValue", Theme::Data),
            ("ssm:GetParameter", Theme::Data),
            ("ecr:GetAuthorizationToken", Theme::Data),
            ("ecr:DescribeImages", Theme::Look),
            ("eks:*", Theme::Machines),
            ("iam:PassRole", Theme::Machines),
            ("glue:DeleteDatabase", Theme::Data),
        ] {
            assert_eq!(Theme::of(action), theme, "{action}");
        }
    }
}
