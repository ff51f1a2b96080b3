//! The smallest policy that adds what is missing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::spec::Need;

/// Resources, and the condition as text.
type Place<'a> = (Vec<&'a str>, String);
/// The condition, and the actions.
type Statement<'a> = (Option<&'a Value>, Vec<&'a str>);

/// A policy document, on one line, that allows `actions` on the resources that `needs` names for them.
pub(super) fn minimal_policy(needs: &[Need], actions: &[&str]) -> String {
    // Statements by resources and condition, so that what belongs together stands together.
    let mut statements: BTreeMap<Place<'_>, Statement<'_>> = BTreeMap::new();
    for need in needs {
        let mut resources: Vec<&str> = need.resources.iter().map(String::as_str).collect();
        if resources.is_empty() {
            resources.push("*");
        }
        resources.sort_unstable();
        let condition = need.condition.as_ref().map(Value::to_string).unwrap_or_default();
        let wanted = need.actions.iter().map(String::as_str).filter(|a| actions.contains(a));
        for action in wanted {
            let place = (resources.clone(), condition.clone());
            let (_, list) = statements.entry(place).or_insert_with(|| (need.condition.as_ref(), Vec::new()));
            if !list.contains(&action) {
                list.push(action);
            }
        }
    }
    let statements: Vec<_> = statements
        .into_iter()
        .map(|((resources, _), (condition, mut actions))| {
            actions.sort_unstable();
            let mut statement = json!({ "Effect": "Allow", "Action": actions, "Resource": resources });
            if let Some(condition) = condition {
                statement["Condition"] = condition.clone();
            }
            statement
        })
        .collect();
    json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
}
