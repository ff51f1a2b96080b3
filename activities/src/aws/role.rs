//! The IAM roles of an EKS cluster made by dssflow: the control plane's and the nodes'.
//!
//! Their permissions are AWS's managed policies, nothing of our own. A site that brings its roles gives their ARNs:
//! such a role is checked to be there and otherwise left alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_iam::types::Role as IamRole;
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::error::{classify, incomplete, is_propagation, none_if};
use super::tags;
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.iam.role";
/// The kind under which the role is recorded, by name.
pub const KIND: &str = "iam:role";

const NOT_FOUND: &[&str] = &["NoSuchEntity", "NoSuchEntityException"];

/// For so long after its making a role may be unknown to the services that use it.
pub const SPREADS_WITHIN: Duration = Duration::from_mins(2);
/// The code of an error that is due to a role made a moment ago; retried on a budget of its own.
pub const SPREADING: &str = "RoleSpreading";
/// When a call with a new role is tried again.
const SPREADING_PAUSE: Duration = Duration::from_secs(5);

/// What the role is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoleKind {
    /// The control plane.
    EksCluster,
    /// The nodes.
    EksNode,
}

impl RoleKind {
    /// The service that assumes the role.
    pub fn service(self) -> &'static str {
        match self {
            Self::EksCluster => "eks.amazonaws.com",
            Self::EksNode => "ec2.amazonaws.com",
        }
    }

    /// Names of the managed policies it needs.
    pub fn policies(self) -> &'static [&'static str] {
        match self {
            Self::EksCluster => &["AmazonEKSClusterPolicy"],
            Self::EksNode => {
                &["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryReadOnly", "AmazonEKS_CNI_Policy"]
            }
        }
    }

    fn trust_policy(self) -> String {
        serde_json::json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": { "Service": self.service() },
                "Action": "sts:AssumeRole",
            }],
        })
        .to_string()
    }
}

/// What [`Role`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleInput {
    /// The name of the role to make; begins with [`tags::NAME_PREFIX`], at most 64 characters.
    #[serde(default)]
    pub name: Option<String>,
    /// The ARN of a role the site brings; nothing is made then.
    #[serde(default)]
    pub given_arn: Option<String>,
    /// What it is for.
    pub kind: RoleKind,
    /// ARNs of more policies to attach to a role made here.
    #[serde(default)]
    pub extra_policies: Vec<String>,
}

/// The role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleOutput {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
}

impl RoleInput {
    /// The role's name, and whether the site brings it.
    fn target(&self) -> ActivityResult<(&str, bool)> {
        if let Some(arn) = &self.given_arn {
            return match arn.rsplit_once('/') {
                Some((head, name)) if head.contains(":role") && !name.is_empty() => Ok((name, true)),
                _ => {
                    Err(ActivityError::terminal("RoleArnInvalid", format!("{arn} is not the ARN of a role"))
                        .no_effect())
                }
            };
        }
        match &self.name {
            Some(name) if name.starts_with(tags::NAME_PREFIX) && name.len() <= 64 => Ok((name, false)),
            name => Err(ActivityError::terminal(
                "RoleNameInvalid",
                format!("a role to be made needs a name of at most 64 characters that begins with {}, not {name:?}", tags::NAME_PREFIX),
            )
            .no_effect()),
        }
    }

    fn policy_arns(&self, region: &str) -> Vec<String> {
        let partition = tags::partition(region);
        let managed = self.kind.policies().iter().map(|p| format!("arn:{partition}:iam::aws:policy/{p}"));
        managed.chain(self.extra_policies.iter().cloned()).collect()
    }
}

/// Reads a role with its tags; `None` when there is none of that name.
pub(crate) async fn find(clients: &AwsClients, name: &str) -> ActivityResult<Option<IamRole>> {
    let call = clients.iam().get_role().role_name(name).send().await;
    Ok(none_if(call.map_err(|e| classify("iam:GetRole", e)), NOT_FOUND)?.and_then(|a| a.role))
}

/// Tells what a refused role means: made a moment ago, it is tried again; after that a person must look, and gets
/// the difference between the trust policy it has and the one it needs. Other errors come back as they are.
pub(crate) async fn explain_refusal(
    clients: &AwsClients,
    arn: &str,
    kind: RoleKind,
    error: ActivityError,
) -> ActivityError {
    if !is_propagation(&error) {
        return error;
    }
    let name = arn.rsplit('/').next().unwrap_or(arn);
    let role = match find(clients, name).await {
        Ok(role) => role,
        Err(look) => {
            tracing::debug!(role = name, error = %look, "the refused role was not looked at");
            return error;
        }
    };
    // By the wall clock: IAM tells the time of the real world, an attempt in a simulated one has a faster clock.
    let age = role.as_ref().map(|role| {
        let made = Duration::from_secs(u64::try_from(role.create_date().secs()).unwrap_or_default());
        SystemTime::now().duration_since(UNIX_EPOCH + made).unwrap_or_default()
    });
    let trust = role.as_ref().and_then(IamRole::assume_role_policy_document).unwrap_or_default();
    judge_refusal(name, age, &trust_gap(trust, kind.service()), error)
}

/// The verdict on a refused role of that age; `None` when there is no such role.
fn judge_refusal(name: &str, age: Option<Duration>, gap: &str, error: ActivityError) -> ActivityError {
    let Some(age) = age else {
        return ActivityError::needs_human(
            "RoleNotFound",
            format!("there is no role {name}: {}", error.message),
        )
        .help("correct the role's ARN in the site file, or leave it out and dssflow makes one")
        .no_effect();
    };
    if age < SPREADS_WITHIN {
        return ActivityError::retryable(
            SPREADING,
            format!(
                "role {name} was made {} s ago and is not known everywhere yet: {}",
                age.as_secs(),
                error.message
            ),
        )
        .retry_after(SPREADING_PAUSE)
        .no_effect();
    }
    ActivityError::needs_human("RoleUnusable", error.message).help(format!("role {name}: {gap}")).no_effect()
}

/// How the trust policy of a role differs from one that lets `service` assume it, for people.
fn trust_gap(document: &str, service: &str) -> String {
    let plain = if document.trim_start().starts_with('{') {
        document.to_owned()
    } else {
        let form = format!("p={document}");
        url::form_urlencoded::parse(form.as_bytes()).next().map(|(_, v)| v.into_owned()).unwrap_or_default()
    };
    let mend = format!("`aws iam update-assume-role-policy` must let {service} do sts:AssumeRole");
    let Ok(policy) = serde_json::from_str::<serde_json::Value>(&plain) else {
        return format!("its trust policy cannot be read; {mend}");
    };
    let one_or_many = |value: &serde_json::Value| -> Vec<String> {
        match value {
            serde_json::Value::String(text) => vec![text.clone()],
            serde_json::Value::Array(items) => {
                items.iter().filter_map(|i| i.as_str()).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        }
    };
    let statements = match &policy["Statement"] {
        serde_json::Value::Array(all) => all.clone(),
        one => vec![one.clone()],
    };
    let mut trusted = Vec::new();
    for statement in &statements {
        let services = one_or_many(&statement["Principal"]["Service"]);
        let names_it = services.iter().any(|s| s == service);
        let actions = one_or_many(&statement["Action"]);
        let assumes = actions.iter().any(|a| matches!(a.as_str(), "sts:AssumeRole" | "sts:*" | "*"));
        match (names_it, statement["Effect"] == "Allow") {
            (true, false) => return format!("its trust policy denies {service}; {mend}"),
            (true, true) if !assumes => {
                return format!("its trust policy names {service} for {} only; {mend}", actions.join(", "));
            }
            (true, true) if !statement["Condition"].is_null() => {
                return format!(
                    "its trust policy names {service} under a condition ({}); see that it holds for this account and \
                     cluster",
                    statement["Condition"]
                );
            }
            (true, true) => {
                return format!(
                    "its trust policy is right for {service}; the account's policies or a boundary of the role may \
                     stand in the way"
                );
            }
            (false, _) => trusted.extend(services),
        }
    }
    let now = if trusted.is_empty() { "no service".to_owned() } else { trusted.join(", ") };
    format!("its trust policy trusts {now}, wanted is {service}; {mend}")
}

async fn attached(clients: &AwsClients, name: &str) -> ActivityResult<Vec<String>> {
    let (mut arns, mut next) = (Vec::new(), None);
    loop {
        let call = clients.iam().list_attached_role_policies().role_name(name).set_marker(next).send().await;
        let Some(page) = none_if(call.map_err(|e| classify("iam:ListAttachedRolePolicies", e)), NOT_FOUND)?
        else {
            return Ok(arns);
        };
        arns.extend(page.attached_policies().iter().filter_map(|p| p.policy_arn()).map(str::to_owned));
        next = page.marker().filter(|_| page.is_truncated()).map(str::to_owned);
        if next.is_none() {
            return Ok(arns);
        }
    }
}

fn output(role: &IamRole) -> RoleOutput {
    RoleOutput { name: role.role_name().to_owned(), arn: role.arn().to_owned() }
}

/// Makes the role of a control plane or of nodes, with AWS's managed policies.
///
/// # Idempotency
/// Names are unique in an account and the tags tell whose one is; attaching a policy twice is one attachment. A
/// role of ours without all its policies counts as not there yet, and `execute` adds what is missing.
///
/// # Compensation
/// Detaches the policies attached here and deletes the role, if this run made it. One to which somebody attached
/// more stays an error that names them. A role the site brought is never touched.
///
/// Page: <https://docs.aws.amazon.com/eks/latest/userguide/cluster-iam-role.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct Role;

impl Activity for Role {
    type Input = RoleInput;
    type Output = RoleOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(&self, ctx: &ActivityContext, input: &RoleInput) -> ActivityResult<Probe<RoleOutput>> {
        let clients = AwsClients::of(ctx)?;
        let (name, given) = input.target()?;
        let Some(role) = find(&clients, name).await? else { return Ok(Probe::Absent) };
        if given {
            return Ok(Probe::Present { output: output(&role), owner: Owner::ThisSite(String::new()) });
        }
        let owner = tags::owner_of_iam(&ctx.marks(), role.tags());
        if owner != Owner::Foreign {
            let there = attached(&clients, name).await?;
            if input.policy_arns(clients.region()).iter().any(|p| !there.contains(p)) {
                return Ok(Probe::Absent);
            }
        }
        Ok(Probe::Present { output: output(&role), owner })
    }

    async fn execute(&self, ctx: &ActivityContext, input: &RoleInput) -> ActivityResult<RoleOutput> {
        const ACTION: &str = "iam:CreateRole";
        let clients = AwsClients::of(ctx)?;
        let (name, given) = input.target()?;
        if given {
            return Err(ActivityError::terminal(
                "RoleNotFound",
                format!("there is no role {name} in this account"),
            )
            .help("correct the role's ARN in the site file, or leave it out and dssflow makes one")
            .no_effect());
        }
        let role = match find(&clients, name).await? {
            Some(role) if tags::owner_of_iam(&ctx.marks(), role.tags()) != Owner::Foreign => output(&role),
            found => {
                // Recorded before the call: a role without its policies is none for the probe, and an undo would look no
                // more.
                if found.is_none() {
                    ctx.record_resource(KIND, name).await?;
                }
                let call = clients
                    .iam()
                    .create_role()
                    .role_name(name)
                    .assume_role_policy_document(input.kind.trust_policy())
                    .description("made by dssflow for an EKS cluster")
                    .set_tags(Some(tags::iam(&ctx.marks())));
                let answer = call.send().await.map_err(|e| classify(ACTION, e))?;
                output(answer.role().ok_or_else(|| incomplete(ACTION, "Role"))?)
            }
        };
        for policy in input.policy_arns(clients.region()) {
            let call = clients.iam().attach_role_policy().role_name(name).policy_arn(&policy).send().await;
            call.map_err(|e| classify("iam:AttachRolePolicy", e))?;
        }
        Ok(role)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &RoleInput,
        _: &Recorded,
    ) -> ActivityResult<Undo> {
        let (name, given) = input.target()?;
        if given {
            return Ok(Undo::NothingToDo);
        }
        let clients = AwsClients::of(ctx)?;
        let Some(role) = find(&clients, name).await? else { return Ok(Undo::NothingToDo) };
        if tags::owner_of_iam(&ctx.marks(), role.tags()) != Owner::ThisRun {
            return Ok(Undo::NothingToDo);
        }
        let ours = input.policy_arns(clients.region());
        let (detach, foreign): (Vec<_>, Vec<_>) =
            attached(&clients, name).await?.into_iter().partition(|p| ours.contains(p));
        if !foreign.is_empty() {
            return Err(ActivityError::terminal(
                "RoleInUse",
                format!("role {name} got policies of others: {}", foreign.join(", ")),
            )
            .help(format!(
                "`aws iam detach-role-policy --role-name {name} --policy-arn ARN` for each nobody needs"
            ))
            .no_effect());
        }
        for policy in detach {
            let call = clients.iam().detach_role_policy().role_name(name).policy_arn(&policy).send().await;
            none_if(call.map_err(|e| classify("iam:DetachRolePolicy", e)), NOT_FOUND)?;
        }
        let call = clients.iam().delete_role().role_name(name).send().await;
        none_if(call.map_err(|e| classify("iam:DeleteRole", e)), NOT_FOUND)?;
        Ok(Undo::Undone)
    }

    fn describe(&self, input: &RoleInput) -> String {
        match (&input.given_arn, &input.name) {
            (Some(arn), _) => format!("use role {arn}"),
            (None, name) => {
                format!("create role {} for {}", name.as_deref().unwrap_or_default(), input.kind.service())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: Option<&str>, given: Option<&str>) -> RoleInput {
        RoleInput {
            name: name.map(Into::into),
            given_arn: given.map(Into::into),
            kind: RoleKind::EksNode,
            extra_policies: vec!["arn:aws:iam::1:policy/x".into()],
        }
    }

    #[test]
    fn a_given_role_is_found_by_its_last_part() {
        let target =
            |name, given| input(name, given).target().map(|(n, g)| (n.to_owned(), g)).map_err(|e| e.code);
        assert_eq!(target(None, Some("arn:aws:iam::1:role/path/R")), Ok(("R".into(), true)));
        assert_eq!(target(None, Some("R")), Err("RoleArnInvalid".into()));
        assert_eq!(target(Some("dssflow-a"), None), Ok(("dssflow-a".into(), false)));
        assert_eq!(target(Some("other"), None), Err("RoleNameInvalid".into()));
        assert_eq!(target(None, None), Err("RoleNameInvalid".into()));
    }

    #[test]
    fn a_refused_role_is_waited_for_while_it_is_new_and_then_shown_to_a_person() {
        use dssflow_engine::activity::ErrorClass;
        let refused =
            || ActivityError::retryable("InvalidParameterException", "Role ... could not be assumed");
        let gap = trust_gap(&RoleKind::EksNode.trust_policy(), RoleKind::EksCluster.service());
        let at = |age| judge_refusal("r", age, &gap, refused());
        let young = at(Some(Duration::from_secs(119)));
        assert_eq!(
            (young.class, young.code.as_str(), young.no_effect),
            (ErrorClass::Retryable, SPREADING, true)
        );
        assert_eq!(young.retry_after_ms, Some(5000));
        let old = at(Some(Duration::from_mins(2)));
        assert_eq!((old.class, old.code.as_str()), (ErrorClass::NeedsHuman, "RoleUnusable"));
        let help = old.help.unwrap_or_default();
        assert!(help.contains("trusts ec2.amazonaws.com, wanted is eks.amazonaws.com"), "{help}");
        assert_eq!(at(None).code, "RoleNotFound");
    }

    #[test]
    fn the_difference_of_a_trust_policy_is_told() {
        let gap = |document: &str| trust_gap(document, "eks.amazonaws.com");
        let statement = |body: &str| format!("{{\"Statement\":[{{{body}}}]}}");
        assert!(gap(&RoleKind::EksCluster.trust_policy()).contains("is right for eks.amazonaws.com"));
        // As IAM gives it: with percent signs.
        let encoded: String =
            url::form_urlencoded::byte_serialize(RoleKind::EksNode.trust_policy().as_bytes()).collect();
        assert!(gap(&encoded).contains("trusts ec2.amazonaws.com"), "{}", gap(&encoded));
        let service = "\"Principal\":{\"Service\":[\"eks.amazonaws.com\"]},\"Action\":";
        let denied = statement(&format!("\"Effect\":\"Deny\",{service}\"sts:AssumeRole\""));
        assert!(gap(&denied).contains("denies"), "{}", gap(&denied));
        let tags = statement(&format!("\"Effect\":\"Allow\",{service}\"sts:TagSession\""));
        assert!(gap(&tags).contains("for sts:TagSession only"), "{}", gap(&tags));
        let condition = statement(&format!(
            "\"Effect\":\"Allow\",{service}\"sts:AssumeRole\",\"Condition\":{{\"StringEquals\":{{\"a\":\"b\"}}}}"
        ));
        assert!(gap(&condition).contains("under a condition"), "{}", gap(&condition));
        assert!(gap("not json").contains("cannot be read"));
        assert!(gap("{}").contains("trusts no service"));
    }

    #[test]
    fn policies_are_of_the_regions_partition() {
        let arns = input(None, None).policy_arns("cn-north-1");
        assert_eq!(arns[0], "arn:aws-cn:iam::aws:policy/AmazonEKSWorkerNodePolicy");
        assert_eq!(arns.last().map(String::as_str), Some("arn:aws:iam::1:policy/x"));
    }
}
