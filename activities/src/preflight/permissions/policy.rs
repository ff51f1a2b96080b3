//! The smallest policy that adds what is missing.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::spec::Need;

/// A policy document, on one line, that allows `actions` on the resources that `needs` names for them.
pub(super) fn minimal_policy(needs: &[Need], actions: &[&str]) -> String {
    // Statements by resources, so that what belongs together stands together.
    let mut statements: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
    for need in needs {
        let mut resources: Vec<&str> = need.resources.iter().map(String::as_str).collect();
        if resources.is_empty() {
            resources.push("*");
        }
        resources.sort_unstable();
        let wanted = need.actions.iter().map(String::as_str).filter(|a| actions.contains(a));
        for action in wanted {
            let list = statements.entry(resources.clone()).or_default();
            if !list.contains(&action) {
                list.push(action);
            }
        }
    }
    let statements: Vec<_> = statements
        .into_iter()
        .map(|(resources, mut actions)| {
            actions.sort_unstable();
            json!({ "Effect": "Allow", "Action": actions, "Resource": resources })
        })
        .collect();
    json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
}
