//! Asks IAM to evaluate a principal's policies. Nothing is done by it.
//!
//! Page: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html>

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_iam::types::{
    ContextEntry, ContextKeyTypeEnum, EvaluationResult, OrganizationsDecisionDetail,
    PermissionsBoundaryDecisionDetail, PolicyEvaluationDecisionType,
};
use dssflow_engine::activity::ActivityResult;
use futures::{StreamExt as _, TryStreamExt as _};

use super::super::look::Look;
use super::super::spec::Need;
use crate::aws::error::classify;

/// How many actions are asked about in one call.
const ACTIONS_A_CALL: usize = 40;
/// IAM answers a few of these a second and refuses more.
const CALLS_AT_ONCE: usize = 4;
/// What stands for any text in an ARN that is asked about: IAM wants an ARN of one thing.
const SOME_NAME: &str = "dssflow-preflight";

/// An action that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// As `eks:CreateCluster`.
    pub(super) action: String,
    /// As IAM says it: `implicitDeny`, `explicitDeny`, with what denied it where it tells.
    pub(super) reason: String,
    /// Whether that is sure: not when a policy asks for keys that were not given.
    pub(super) sure: bool,
}

/// The actions of `needs` that the principal may not do, each once.
///
/// # Errors
/// The call's own errors.
pub(super) async fn simulate(look: &Look, principal: &str, needs: &[Need]) -> ActivityResult<Vec<Decision>> {
    // The account's root user has no policies, and may do everything its organisation lets it.
    if principal.ends_with(":root") {
        return Ok(Vec::new());
    }
    let source = look.policy_source(principal).await;
    let questions = calls(needs);
    let calls: Vec<_> = questions.iter().map(|question| ask(look, &source, question)).collect();
    let answers: Vec<Vec<Decision>> =
        futures::stream::iter(calls).buffer_unordered(CALLS_AT_ONCE).try_collect().await?;
    let mut denied: BTreeMap<String, Decision> = BTreeMap::new();
    for decision in answers.into_iter().flatten() {
        // Sure on one resource is sure.
        let entry = denied.entry(decision.action.clone()).or_insert_with(|| decision.clone());
        if decision.sure && !entry.sure {
            *entry = decision;
        }
    }
    Ok(denied.into_values().collect())
}

/// One question: these actions on each of these resources.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    actions: Vec<String>,
    resources: Vec<String>,
    context: Vec<(String, String)>,
}

/// The resources and the context of a question.
type Circumstances = (Vec<String>, Vec<(String, String)>);

/// As few questions as the resources allow.
fn calls(needs: &[Need]) -> Vec<Question> {
    let mut groups: BTreeMap<Circumstances, BTreeSet<&str>> = BTreeMap::new();
    for need in needs {
        let mut resources: Vec<String> =
            need.resources.iter().filter(|r| *r != "*").map(|r| r.replace('*', SOME_NAME)).collect();
        resources.sort();
        resources.dedup();
        groups
            .entry((resources, need.context.clone()))
            .or_default()
            .extend(need.actions.iter().map(String::as_str));
    }
    let mut questions = Vec::new();
    for ((resources, context), actions) in groups {
        let actions: Vec<String> = actions.into_iter().map(str::to_owned).collect();
        for some in actions.chunks(ACTIONS_A_CALL) {
            questions.push(Question {
                actions: some.to_vec(),
                resources: resources.clone(),
                context: context.clone(),
            });
        }
    }
    questions
}

async fn ask(look: &Look, source: &str, question: &Question) -> ActivityResult<Vec<Decision>> {
    let (mut denied, mut next) = (Vec::new(), None);
    let entries = |(key, value): &(String, String)| {
        ContextEntry::builder()
            .context_key_name(key)
            .context_key_values(value)
            .context_key_type(ContextKeyTypeEnum::String)
            .build()
    };
    let context: Vec<ContextEntry> = question.context.iter().map(entries).collect();
    loop {
        let call = look
            .clients
            .iam()
            .simulate_principal_policy()
            .policy_source_arn(source)
            .set_action_names(Some(question.actions.clone()))
            .set_resource_arns(Some(question.resources.clone()).filter(|r| !r.is_empty()))
            .set_context_entries(Some(context.clone()).filter(|c| !c.is_empty()))
            .set_marker(next)
            .send()
            .await;
        let page = call.map_err(|e| classify("iam:SimulatePrincipalPolicy", e))?;
        denied.extend(page.evaluation_results().iter().filter_map(decision));
        next = page.marker().filter(|_| page.is_truncated()).map(str::to_owned);
        if next.is_none() {
            return Ok(denied);
        }
    }
}

fn decision(result: &EvaluationResult) -> Option<Decision> {
    if *result.eval_decision() == PolicyEvaluationDecisionType::Allowed {
        return None;
    }
    let kept =
        |detail: Option<bool>, what: &str| detail.is_some_and(|allowed| !allowed).then(|| what.to_owned());
    let boundary = kept(
        result
            .permissions_boundary_decision_detail()
            .map(PermissionsBoundaryDecisionDetail::allowed_by_permissions_boundary),
        "the permissions boundary does not allow it",
    );
    let organisation = kept(
        result.organizations_decision_detail().map(OrganizationsDecisionDetail::allowed_by_organizations),
        "the organisation does not allow it",
    );
    let reason = boundary.or(organisation).unwrap_or_else(|| result.eval_decision().as_str().to_owned());
    let explicit = *result.eval_decision() == PolicyEvaluationDecisionType::ExplicitDeny;
    Some(Decision {
        action: result.eval_action_name().to_owned(),
        reason,
        sure: explicit || result.missing_context_values().is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::spec::Who;
    use super::*;

    fn need(actions: &[&str], resources: &[&str]) -> Need {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Need {
            actions: owned(actions),
            resources: owned(resources),
            context: Vec::new(),
            condition: None,
            why: String::new(),
            who: Who::Operator,
        }
    }

    #[test]
    fn needs_of_the_same_resources_are_one_question() {
        let made = calls(&[
            need(&["a:B"], &["*"]),
            need(&["a:A", "a:B"], &["*"]),
            need(&["c:D"], &["arn:aws:s3:::bucket/*"]),
        ]);
        assert_eq!(made.len(), 2, "{made:?}");
        assert_eq!(
            (made[0].actions.as_slice(), made[0].resources.len()),
            (&["a:A".to_owned(), "a:B".into()][..], 0)
        );
        assert_eq!(made[1].resources, ["arn:aws:s3:::bucket/dssflow-preflight"]);
        let many: Vec<String> = (0..100).map(|n| format!("a:{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(calls(&[need(&many, &["*"])]).len(), 3);
    }

    #[test]
    fn a_denial_for_keys_not_given_is_not_sure() {
        use PolicyEvaluationDecisionType::{Allowed, ExplicitDeny, ImplicitDeny};

        let result = |missing: Option<&str>, decision: PolicyEvaluationDecisionType| {
            EvaluationResult::builder()
                .eval_action_name("a:B")
                .eval_decision(decision)
                .set_missing_context_values(missing.map(|m| vec![m.to_owned()]))
                .build()
                .unwrap()
        };
        assert_eq!(decision(&result(None, Allowed)), None);
        assert!(decision(&result(None, ImplicitDeny)).unwrap().sure);
        assert!(!decision(&result(Some("aws:ResourceTag/x"), ImplicitDeny)).unwrap().sure);
        assert!(decision(&result(Some("aws:ResourceTag/x"), ExplicitDeny)).unwrap().sure);
    }
}
