//! Permissions as an IAM policy document: as few statements as say the same, sorted, so that two runs print the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Conditions, Permission};
use dssflow_activities::wildcard::matches;

/// The most characters a managed policy may have, white space not counted.
pub const MANAGED_POLICY_LIMIT: usize = 6144;

/// The policy that grants `permissions`, whoever needs them; give it those of one principal.
pub fn policy(permissions: &[Permission]) -> Value {
    // Actions with the same conditions on the same things stand together. First by action, so that an action that is
    // needed on several things stands once.
    let mut of_action: BTreeMap<(&Conditions, &str), BTreeSet<&str>> = BTreeMap::new();
    for permission in permissions {
        for action in &permission.actions {
            let resources = of_action.entry((&permission.conditions, action)).or_default();
            resources.extend(permission.resources.iter().map(String::as_str));
        }
    }
    let unconditional: BTreeMap<&str, BTreeSet<&str>> = of_action
        .iter()
        .filter(|((conditions, _), _)| conditions.is_empty())
        .map(|((_, action), resources)| (*action, resources.clone()))
        .collect();
    let mut statements: BTreeMap<(Vec<&str>, &Conditions), BTreeSet<&str>> = BTreeMap::new();
    for ((conditions, action), mut resources) in of_action {
        if resources.contains("*") {
            resources = BTreeSet::from(["*"]);
        }
        // What is allowed without a condition needs none with one.
        if !conditions.is_empty() {
            for (wider, on) in &unconditional {
                if matches(wider, action) {
                    resources.retain(|r| !on.iter().any(|o| matches(o, r)));
                }
            }
        }
        if resources.is_empty() {
            continue;
        }
        statements.entry((resources.into_iter().collect(), conditions)).or_default().insert(action);
    }
    let mut list: Vec<Value> = Vec::new();
    for ((resources, conditions), mut actions) in statements {
        let wide: Vec<&str> = actions.iter().copied().filter(|a| a.ends_with('*')).collect();
        actions.retain(|a| !wide.iter().any(|w| w != a && matches(w, a)));
        let mut statement = Map::new();
        statement.insert("Effect".to_owned(), json!("Allow"));
        statement.insert("Action".to_owned(), one_or_many(actions.into_iter()));
        statement.insert("Resource".to_owned(), one_or_many(resources.into_iter()));
        if !conditions.is_empty() {
            let conditions: Map<String, Value> = conditions
                .iter()
                .map(|(operator, keys)| {
                    let keys: Map<String, Value> = keys
                        .iter()
                        .map(|(key, values)| (key.clone(), one_or_many(values.iter().map(String::as_str))))
                        .collect();
                    (operator.clone(), Value::Object(keys))
                })
                .collect();
            statement.insert("Condition".to_owned(), Value::Object(conditions));
        }
        list.push(Value::Object(statement));
    }
    list.sort_by_key(|s| (s["Action"].to_string(), s["Resource"].to_string()));
    document(&list)
}

/// A policy document of these statements.
pub(super) fn document(statements: &[Value]) -> Value {
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// The size of a policy as IAM counts it.
pub fn size(policy: &Value) -> usize {
    policy.to_string().chars().filter(|c| !c.is_whitespace()).count()
}

fn one_or_many<'a>(values: impl Iterator<Item = &'a str>) -> Value {
    let values: Vec<&str> = values.collect();
    match values.as_slice() {
        [one] => json!(one),
        many => json!(many),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Principal, condition};
    use super::*;

    fn permission(actions: &[&str], resources: &[&str], conditions: Conditions) -> Permission {
        let text = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect();
        Permission {
            principal: Principal::Dssflow,
            actions: text(actions),
            resources: text(resources),
            conditions,
            why: String::new(),
        }
    }

    #[test]
    fn actions_on_the_same_things_share_a_statement() {
        let tagged = || condition("StringEquals", "aws:ResourceTag/dssflow:site", &["lab"]);
        let made = policy(&[
            permission(&["eks:B", "eks:A"], &["c1"], Conditions::new()),
            permission(&["eks:C"], &["c1"], Conditions::new()),
            permission(&["eks:A"], &["c1"], Conditions::new()),
            permission(&["eks:D"], &["c1"], tagged()),
            permission(&["ec2:X"], &["i1"], Conditions::new()),
            permission(&["ec2:X"], &["*"], Conditions::new()),
            permission(&["eks:C"], &["c1"], tagged()),
        ]);
        assert_eq!(
            made["Statement"],
            json!([
                { "Effect": "Allow", "Action": "ec2:X", "Resource": "*" },
                { "Effect": "Allow", "Action": "eks:D", "Resource": "c1",
                  "Condition": { "StringEquals": { "aws:ResourceTag/dssflow:site": "lab" } } },
                { "Effect": "Allow", "Action": ["eks:A", "eks:B", "eks:C"], "Resource": "c1" },
            ])
        );
    }

    #[test]
    fn a_wide_action_swallows_the_narrow_ones_beside_it() {
        let made = policy(&[permission(&["eks:*", "eks:A", "ecr:A"], &["*"], Conditions::new())]);
        assert_eq!(made["Statement"][0]["Action"], json!(["ecr:A", "eks:*"]));
    }

    #[test]
    fn patterns_cover() {
        for (wide, narrow, yes) in [
            ("*", "anything", true),
            ("eks:*", "eks:A", true),
            ("eks:A", "eks:AB", false),
            ("a/*/c*", "a/b/c", true),
            ("a/*/c", "a/b/d", false),
            ("a*", "b", false),
        ] {
            assert_eq!(matches(wide, narrow), yes, "{wide} over {narrow}");
        }
    }

    #[test]
    fn the_size_is_counted_without_white_space() {
        assert_eq!(size(&json!({ "a": "b c" })), r#"{"a":"bc"}"#.len());
    }
}
