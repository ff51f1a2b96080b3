//! `iam:SimulatePrincipalPolicy`, which moto does not have: evaluates the policies that are written into a user or role.
//!
//! Managed policies count by AWS's own two that allow everything; others are taken for nothing. Conditions are not
//! looked at. That is enough to tell a principal that may do something from one that may not.

use std::fmt::Write as _;

use serde_json::Value;

use super::recognise::parse_form;
use super::reply::Reply;
use super::upstream::{Incoming, Upstream};
use crate::xml::{escape, list};

/// AWS's managed policies that allow every action.
const ALL: [&str; 2] =
    ["arn:aws:iam::aws:policy/AdministratorAccess", "arn:aws:iam::aws:policy/PowerUserAccess"];

/// Answers the call.
pub(super) async fn simulate(upstream: &Upstream, request: &Incoming) -> Reply {
    let form = parse_form(&String::from_utf8_lossy(&request.body));
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let members = |name: &str| -> Vec<&str> {
        let prefix = format!("{name}.member.");
        form.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(_, value)| value.as_str()).collect()
    };
    let source = field("PolicySourceArn").unwrap_or_default();
    let Some(statements) = statements(upstream, source).await else {
        return Reply::error("iam", 404, "NoSuchEntity", &format!("{source} is no user or role"));
    };
    let mut resources = members("ResourceArns");
    if resources.is_empty() {
        resources.push("*");
    }
    let mut results = String::new();
    for action in members("ActionNames") {
        let decision = resources
            .iter()
            .map(|resource| decide(&statements, action, resource))
            .max()
            .unwrap_or(Decision::Implicit);
        // Writing to a string cannot fail.
        let _written = write!(
            results,
            "<member><EvalActionName>{}</EvalActionName><EvalResourceName>*</EvalResourceName>\
             <EvalDecision>{}</EvalDecision><MatchedStatements/><MissingContextValues/></member>",
            escape(action),
            decision.as_str()
        );
    }
    let body = format!(
        "<SimulatePrincipalPolicyResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\">\
         <SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated><EvaluationResults>{results}</EvaluationResults>\
         </SimulatePrincipalPolicyResult><ResponseMetadata><RequestId>sandbox</RequestId></ResponseMetadata>\
         </SimulatePrincipalPolicyResponse>"
    );
    Reply {
        status: 200,
        headers: vec![("content-type".to_owned(), "text/xml".to_owned())],
        body: body.into(),
    }
}

/// The worst decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Decision {
    Allowed,
    Implicit,
    Explicit,
}

impl Decision {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Implicit => "implicitDeny",
            Self::Explicit => "explicitDeny",
        }
    }
}

/// Every statement of a user or role; `None` when it is neither.
async fn statements(upstream: &Upstream, arn: &str) -> Option<Vec<Value>> {
    let (kind, rest) = ["user", "role"]
        .into_iter()
        .find_map(|kind| arn.split_once(&format!(":{kind}/")).map(|(_, rest)| (kind, rest)))?;
    let name = rest.rsplit('/').next()?;
    let (title, parameter) = if kind == "user" { ("User", "UserName") } else { ("Role", "RoleName") };
    let aws = upstream.aws();
    let of = [(parameter, name)];
    let names = aws.query("iam", &format!("List{title}Policies"), &of).await.ok()?;
    let mut statements = Vec::new();
    for policy in list(&names, &["PolicyNames"]).iter().filter_map(|n| n.as_str()) {
        let of = [(parameter, name), ("PolicyName", policy)];
        let found = aws.query("iam", &format!("Get{title}Policy"), &of).await.ok()?;
        let text = super::recognise::decode(found["PolicyDocument"].as_str().unwrap_or_default());
        let document: Value = serde_json::from_str(&text).unwrap_or_default();
        match &document["Statement"] {
            Value::Array(all) => statements.extend(all.iter().cloned()),
            Value::Null => {}
            one => statements.push(one.clone()),
        }
    }
    let attached = aws.query("iam", &format!("ListAttached{title}Policies"), &of).await.ok()?;
    if list(&attached, &["AttachedPolicies"])
        .iter()
        .any(|p| p["PolicyArn"].as_str().is_some_and(|a| ALL.contains(&a)))
    {
        statements.push(serde_json::json!({ "Effect": "Allow", "Action": "*", "Resource": "*" }));
    }
    Some(statements)
}

fn decide(statements: &[Value], action: &str, resource: &str) -> Decision {
    let fits = |statement: &&Value| {
        any(&statement["Action"], |pattern| glob(&pattern.to_lowercase(), &action.to_lowercase()))
            && any(&statement["Resource"], |pattern| glob(pattern, resource))
    };
    let mut decision = Decision::Implicit;
    for statement in statements.iter().filter(fits) {
        if statement["Effect"] == "Deny" {
            return Decision::Explicit;
        }
        decision = Decision::Allowed;
    }
    decision
}

/// Whether one text, or one of a list, fits.
fn any(value: &Value, fits: impl Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => fits(text),
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).any(fits),
        _ => false,
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    loop {
        if glob(rest, left) {
            return true;
        }
        let mut characters = left.chars();
        if characters.next().is_none() {
            return false;
        }
        left = characters.as_str();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_are_evaluated_as_iam_does() {
        let statements = [
            json!({ "Effect": "Allow", "Action": ["eks:*", "s3:Get*"], "Resource": "*" }),
            json!({ "Effect": "Deny", "Action": "eks:DeleteCluster", "Resource": "arn:aws:eks:*:cluster/prod" }),
        ];
        let of = |action, resource| decide(&statements, action, resource);
        assert_eq!(of("eks:CreateCluster", "*"), Decision::Allowed);
        assert_eq!(of("s3:PutObject", "*"), Decision::Implicit);
        assert_eq!(of("eks:DeleteCluster", "arn:aws:eks:eu-west-1:1:cluster/prod"), Decision::Explicit);
        assert_eq!(of("eks:DeleteCluster", "arn:aws:eks:eu-west-1:1:cluster/lab"), Decision::Allowed);
        assert!(glob("a*c", "abbc") && !glob("a*c", "abb") && glob("*", ""));
    }
}
