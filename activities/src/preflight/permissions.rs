//! Whether the principals may do what the run is going to do: P07, P08, P27.
//!
//! IAM is asked to evaluate the policies (`iam:SimulatePrincipalPolicy`), which reads and does nothing. Where that
//! is not allowed, dry runs of EC2 and harmless reads tell what they can, and the rest is said to be unknown.

mod policy;
mod probes;
mod simulate;

use std::collections::BTreeSet;

use dssflow_engine::activity::{ActivityError, ErrorClass};
use futures::future::join_all;

use self::policy::minimal_policy;
use self::simulate::{Decision, simulate};
use super::Notes;
use super::look::Look;
use super::spec::{ConnectionSpec, Need, Spec, Who};
use crate::aws::error::classify;
use crate::aws::tags::partition;
use crate::clients::AwsClients;

/// The service-linked roles EKS works through, each with its service.
const LINKED: [(&str, &str); 2] = [
    ("AWSServiceRoleForAmazonEKS", "eks.amazonaws.com"),
    ("AWSServiceRoleForAmazonEKSNodegroup", "eks-nodegroup.amazonaws.com"),
];
const CREATE_LINKED: &str = "iam:CreateServiceLinkedRole";

/// What a role's missing trust looks like later, in AWS's words.
const NOT_ASSUMED: &str =
    "could not be assumed because it does not exist or the trusted entity is not correct";

/// What DSS calls on Glue with a connection's credentials, to synchronise and to query by Athena. The database
/// `default` is asked for by Athena whatever the query.
/// Page: <https://doc.dataiku.com/dss/latest/metastore/glue-metastore.html>
const GLUE_ACTIONS: &[&str] = &[
    "glue:GetDatabase",
    "glue:GetDatabases",
    "glue:GetTable",
    "glue:GetTables",
    "glue:GetPartition",
    "glue:GetPartitions",
    "glue:BatchGetPartition",
    "glue:GetCatalogImportStatus",
    "glue:CreateTable",
    "glue:UpdateTable",
    "glue:DeleteTable",
    "glue:CreatePartition",
    "glue:BatchCreatePartition",
    "glue:UpdatePartition",
    "glue:DeletePartition",
    "glue:BatchDeletePartition",
];

/// Whether an error says that the caller may not ask.
fn is_denied(error: &ActivityError) -> bool {
    error.class == ErrorClass::Terminal
        && ["AccessDenied", "AccessDeniedException", "UnauthorizedOperation"].contains(&error.code.as_str())
}

/// P07: the service-linked roles of EKS are there, or may be made.
pub(super) async fn linked_roles(look: &Look, notes: &mut Notes) {
    let asked = LINKED.map(|(name, service)| async move {
        let call =
            look.clients.iam().list_roles().path_prefix(format!("/aws-service-role/{service}/")).send();
        let answer = call.await.map_err(|e| classify("iam:ListRoles", e));
        (name, service, answer.map(|page| !page.roles().is_empty()))
    });
    let mut missing = Vec::new();
    for (name, service, there) in join_all(asked).await {
        match there {
            Ok(true) => notes.seen(format!("{name} is there")),
            Ok(false) => missing.push((name, service)),
            Err(error) => notes.unanswered(name, &error),
        }
    }
    if missing.is_empty() {
        return;
    }
    let maker = if look.spec.cluster.by_plugin { Who::Service } else { Who::Operator };
    let need = Need {
        actions: vec![CREATE_LINKED.to_owned()],
        resources: missing.iter().map(|(name, service)| linked_arn(&look.spec, name, service)).collect(),
        context: Vec::new(),
        condition: None,
        why: "EKS works through them".to_owned(),
        who: maker.clone(),
    };
    let may = match principal(look, &maker).await {
        Some(arn) => simulate(look, &arn, &[need]).await.map(|denied| denied.is_empty()),
        None => {
            Err(ActivityError::terminal("PrincipalUnknown", "who makes the cluster is not known from here"))
        }
    };
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    judge_linked(&names, may.map_err(|e| e.to_string()), notes);
}

fn linked_arn(spec: &Spec, name: &str, service: &str) -> String {
    let (partition, account) = (partition(&spec.region), &spec.expected_account);
    format!("arn:{partition}:iam::{account}:role/aws-service-role/{service}/{name}")
}

fn judge_linked(missing: &[&str], may: Result<bool, String>, notes: &mut Notes) {
    let roles = missing.join(" and ");
    let by_hand = format!(
        "allow {CREATE_LINKED}, or once for the account: {}",
        LINKED
            .iter()
            .filter(|(name, _)| missing.contains(name))
            .map(|(_, service)| format!("`aws iam create-service-linked-role --aws-service-name {service}`"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    match may {
        Ok(true) => notes.seen(format!("{roles} will be made: {CREATE_LINKED} is allowed")),
        Ok(false) => notes.error(
            roles,
            format!("this account has none, and the principal may not make it; EKS would say \"Role with arn ... {NOT_ASSUMED}\""),
            by_hand,
        ),
        Err(reason) => notes.warning(
            roles,
            format!("this account has none, and whether it may be made is not known: {reason}"),
            by_hand,
        ),
    }
}

/// The ARN of who calls; `None` when that is not known from here.
async fn principal(look: &Look, who: &Who) -> Option<String> {
    let set = match who {
        Who::Operator => return look.caller().await.identity.as_ref().ok().map(|i| i.principal_arn.clone()),
        // Without a set it is the instance's role.
        Who::Service => look.spec.service_credentials.as_ref()?,
        Who::Set(set) => set,
    };
    Some(look.principal(set).await?.ok()?.arn.clone())
}

/// What people call them.
fn name_of(who: &Who) -> String {
    match who {
        Who::Operator => "dssflow's principal".to_owned(),
        Who::Service => "the service user's principal".to_owned(),
        Who::Set(set) => format!("credentials.{set}"),
    }
}

/// P08: everything the run calls is allowed.
pub(super) async fn permissions(look: &Look, notes: &mut Notes) {
    let all: BTreeSet<&Who> = look.spec.needs.iter().map(|n| &n.who).collect();
    let asked = all.into_iter().map(|who| async move {
        let needs: Vec<Need> = look.spec.needs.iter().filter(|n| n.who == *who).cloned().collect();
        let Some(arn) = principal(look, who).await else { return (who, needs, None) };
        let answer = Box::pin(simulate(look, &arn, &needs)).await;
        (who, needs, Some((arn, answer)))
    });
    for (who, needs, answer) in join_all(asked).await {
        let name = name_of(who);
        match answer {
            None => notes.skipped(
                name,
                "who that is is not known from here",
                "name a set in service_credentials, or see P01",
            ),
            Some((arn, Ok(decisions))) => judge_permissions(&arn, &needs, &decisions, notes),
            Some((arn, Err(error))) if *who == Who::Operator && is_denied(&error) => {
                notes.skipped(
                    name,
                    format!("{error}; so only what dry runs and reads can tell is known"),
                    "allow iam:SimulatePrincipalPolicy and iam:GetRole to have every action checked",
                );
                let denied = Box::pin(probes::ask(look, &needs, notes)).await;
                // What was not tried is not known: nothing is said of it.
                if !denied.is_empty() {
                    judge_permissions(&arn, &needs, &denied, notes);
                }
            }
            Some((_, Err(error))) => notes.unanswered(name, &error),
        }
    }
}

fn judge_permissions(arn: &str, needs: &[Need], denied: &[Decision], notes: &mut Notes) {
    let (sure, unsure): (Vec<&Decision>, Vec<&Decision>) = denied.iter().partition(|d| d.sure);
    let list = |decisions: &[&Decision]| {
        let names: BTreeSet<&str> = decisions.iter().map(|d| d.action.as_str()).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    if !sure.is_empty() {
        let reasons: BTreeSet<&str> = sure.iter().map(|d| d.reason.as_str()).collect();
        let policy = minimal_policy(needs, &sure.iter().map(|d| d.action.as_str()).collect::<Vec<_>>());
        notes.error(
            arn,
            format!("not allowed: {} ({})", list(&sure), reasons.into_iter().collect::<Vec<_>>().join("; ")),
            format!("attach this policy: {policy}"),
        );
    }
    if !unsure.is_empty() {
        notes.warning(
            arn,
            format!("allowed only under conditions that cannot be tried here: {}", list(&unsure)),
            "compare the conditions of the policy with the tags and names that the run uses",
        );
    }
    let total: usize = needs.iter().map(|n| n.actions.len()).sum();
    if denied.is_empty() && total > 0 {
        notes.seen(format!("{arn} may do all {total} actions of the plan"));
    }
}

/// P27: the credentials of each connection may use Glue.
pub(super) async fn glue(look: &Look, notes: &mut Notes) {
    if look.spec.connections.is_empty() {
        return notes.seen("the site has no connection");
    }
    // Connections often share a set: it is asked once, for all their databases.
    let sets: BTreeSet<&str> = look.spec.connections.iter().map(|c| c.credentials.as_str()).collect();
    let asked = sets.into_iter().map(|set| async move {
        let of: Vec<&ConnectionSpec> =
            look.spec.connections.iter().filter(|c| c.credentials == set).collect();
        (of.clone(), Box::pin(glue_of(look, set, &of)).await)
    });
    for (connections, answer) in join_all(asked).await {
        let names = connections.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        match answer {
            Ok((arn, denied)) => judge_glue(&look.spec, &names, &arn, &connections, &denied, notes),
            Err(error) => notes.unanswered(names, &error),
        }
    }
}

type GlueAnswer = Result<(String, Vec<String>), ActivityError>;

/// The principal of a set, and which Glue actions it may not do.
async fn glue_of(look: &Look, set: &str, connections: &[&ConnectionSpec]) -> GlueAnswer {
    let principal = match look.principal(set).await {
        Some(Ok(principal)) => principal,
        Some(Err(error)) => return Err(error.clone()),
        None => {
            return Err(ActivityError::terminal("CredentialsUnknown", format!("the site has no set {set}")));
        }
    };
    let need = glue_need(&look.spec, connections);
    match simulate(look, &principal.arn, std::slice::from_ref(&need)).await {
        Ok(decisions) => {
            Ok((principal.arn.clone(), decisions.into_iter().filter(|d| d.sure).map(|d| d.action).collect()))
        }
        Err(error) => match &principal.clients {
            // With the credentials at hand, harmless reads tell the rows that are met first.
            Some(clients) => Ok((principal.arn.clone(), glue_reads(clients).await?)),
            None => Err(error),
        },
    }
}

fn glue_need(spec: &Spec, connections: &[&ConnectionSpec]) -> Need {
    let base = format!("arn:{}:glue:{}:{}", partition(&spec.region), spec.region, spec.expected_account);
    let mut resources = vec![format!("{base}:catalog"), format!("{base}:database/default")];
    for connection in connections {
        resources.push(format!("{base}:database/{}", connection.glue_database));
        resources.push(format!("{base}:table/{}/*", connection.glue_database));
    }
    resources.sort();
    resources.dedup();
    Need {
        actions: GLUE_ACTIONS.iter().map(|a| (*a).to_owned()).collect(),
        resources,
        context: Vec::new(),
        condition: None,
        why: "DSS synchronises to Glue and queries by Athena".to_owned(),
        who: Who::Operator,
    }
}

/// What two reads with the connection's own credentials are refused.
async fn glue_reads(clients: &AwsClients) -> Result<Vec<String>, ActivityError> {
    let (database, status) = tokio::join!(
        async {
            let call = clients.glue().get_database().name("default").send().await;
            call.map(drop).map_err(|e| classify("glue:GetDatabase", e))
        },
        async {
            let call = clients.glue().get_catalog_import_status().send().await;
            call.map(drop).map_err(|e| classify("glue:GetCatalogImportStatus", e))
        },
    );
    let mut denied = Vec::new();
    for (action, answer) in [("glue:GetDatabase", database), ("glue:GetCatalogImportStatus", status)] {
        match answer {
            Err(error) if is_denied(&error) => denied.push(action.to_owned()),
            // A database `default` need not exist.
            Ok(()) => {}
            Err(error) if error.code == "EntityNotFoundException" => {}
            Err(error) => return Err(error),
        }
    }
    Ok(denied)
}

fn judge_glue(
    spec: &Spec,
    names: &str,
    arn: &str,
    connections: &[&ConnectionSpec],
    denied: &[String],
    notes: &mut Notes,
) {
    if denied.is_empty() {
        return notes.seen(format!("{arn} of {names} may use Glue"));
    }
    let need = glue_need(spec, connections);
    let actions: Vec<&str> = denied.iter().map(String::as_str).collect();
    notes.error(
        names,
        format!(
            "{arn} may not do {}: synchronisation and Athena would fail with AccessDenied",
            actions.join(", ")
        ),
        format!(
            "allow it, the database `default` included, which Athena asks for: {}",
            minimal_policy(&[need], &actions)
        ),
    );
}

/// Which of the actions that Athena needs of a place for results the credentials of a set may not do.
///
/// # Errors
/// When the principal is not known or IAM cannot be asked.
pub(super) async fn may_write(look: &Look, set: &str, location: &str) -> Result<Vec<String>, ActivityError> {
    let principal = match look.principal(set).await {
        Some(Ok(principal)) => principal,
        Some(Err(error)) => return Err(error.clone()),
        None => {
            return Err(ActivityError::terminal("CredentialsUnknown", format!("the site has no set {set}")));
        }
    };
    let path = location.trim_start_matches("s3://").trim_end_matches('/');
    let bucket = path.split('/').next().unwrap_or(path);
    let partition = partition(&look.spec.region);
    let need = |actions: &[&str], resource: String| Need {
        actions: actions.iter().map(|a| (*a).to_owned()).collect(),
        resources: vec![resource],
        context: Vec::new(),
        condition: None,
        why: "Athena writes results there".to_owned(),
        who: Who::Operator,
    };
    let needs = [
        need(&["s3:GetBucketLocation", "s3:ListBucket"], format!("arn:{partition}:s3:::{bucket}")),
        need(
            &["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"],
            format!("arn:{partition}:s3:::{path}/*"),
        ),
    ];
    let decisions = simulate(look, &principal.arn, &needs).await?;
    Ok(decisions.into_iter().filter(|d| d.sure).map(|d| d.action).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{CHECKS, Finding, Severity};
    use super::*;

    fn found(judge: impl FnOnce(&mut Notes)) -> Option<Finding> {
        let mut notes = Notes::of(&CHECKS[0]);
        judge(&mut notes);
        notes.findings.pop()
    }

    #[test]
    fn p07_missing_roles_are_fine_if_they_may_be_made() {
        let names = ["AWSServiceRoleForAmazonEKS"];
        assert_eq!(found(|n| judge_linked(&names, Ok(true), n)), None);
        let refused = found(|n| judge_linked(&names, Ok(false), n)).unwrap();
        assert_eq!(refused.severity, Severity::Error);
        assert!(refused.evidence.contains(NOT_ASSUMED), "{refused:?}");
        assert!(refused.fix.contains("--aws-service-name eks.amazonaws.com`"), "{refused:?}");
        assert!(!refused.fix.contains("eks-nodegroup"), "only what is missing: {refused:?}");
        let unknown = found(|n| judge_linked(&names, Err("AccessDenied".into()), n)).unwrap();
        assert_eq!(unknown.severity, Severity::Warning);
    }

    fn need(actions: &[&str], resource: &str) -> Need {
        Need {
            actions: actions.iter().map(|a| (*a).to_owned()).collect(),
            resources: vec![resource.to_owned()],
            context: Vec::new(),
            condition: None,
            why: String::new(),
            who: Who::Operator,
        }
    }

    #[test]
    fn p08_one_finding_carries_every_missing_action_and_its_policy() {
        let needs = [
            need(&["eks:CreateCluster", "eks:TagResource"], "arn:aws:eks:r:1:cluster/x"),
            need(&["ecr:PutImage"], "*"),
        ];
        let denied =
            |action: &str, sure| Decision { action: action.into(), reason: "implicitDeny".into(), sure };
        let told = found(|n| {
            judge_permissions(
                "arn:me",
                &needs,
                &[denied("eks:CreateCluster", true), denied("ecr:PutImage", true)],
                n,
            );
        })
        .unwrap();
        assert_eq!(told.severity, Severity::Error);
        assert!(told.evidence.contains("ecr:PutImage, eks:CreateCluster (implicitDeny)"), "{told:?}");
        assert!(
            told.fix
                .contains("\"Action\":[\"eks:CreateCluster\"],\"Resource\":[\"arn:aws:eks:r:1:cluster/x\"]"),
            "{told:?}"
        );
        assert!(!told.fix.contains("TagResource"), "what is allowed is not asked for again: {told:?}");
        let unsure =
            found(|n| judge_permissions("arn:me", &needs, &[denied("ecr:PutImage", false)], n)).unwrap();
        assert_eq!(unsure.severity, Severity::Warning);
        assert_eq!(found(|n| judge_permissions("arn:me", &needs, &[], n)), None);
    }

    #[test]
    fn p27_the_default_database_is_part_of_what_is_asked() {
        let spec = Spec { region: "eu-west-1".into(), expected_account: "1".into(), ..Spec::default() };
        let connection = ConnectionSpec {
            name: "s3-sales".into(),
            bucket: "b".into(),
            path: "/".into(),
            credentials: "sales".into(),
            glue_database: "sales".into(),
            athena: None,
        };
        let need = glue_need(&spec, &[&connection]);
        assert!(need.resources.contains(&"arn:aws:glue:eu-west-1:1:database/default".to_owned()));
        assert!(need.actions.contains(&"glue:GetCatalogImportStatus".to_owned()));
        let denied = ["glue:GetDatabase".to_owned()];
        let told = found(|n| judge_glue(&spec, "s3-sales", "arn:r", &[&connection], &denied, n)).unwrap();
        assert!(told.evidence.contains("arn:r may not do glue:GetDatabase"), "{told:?}");
        assert!(told.fix.contains("database/default"), "{told:?}");
    }
}
