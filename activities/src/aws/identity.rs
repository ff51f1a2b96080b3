//! Who we are: the account, region and principal a run works as, pinned for its whole life.
//!
//! It is the first step of a run, so its undo is the last: the final sweep, which looks for anything that still
//! carries the run's marks.

use std::time::Duration;

use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityOutput;
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::error::{classify, incomplete};
use super::sweep::{self, Scope};
use super::tags::partition;
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.sts.identity";
/// The registered name of the check alone.
pub const ACCOUNT: &str = "aws.sts.account";
pub use super::sweep::SWEEP_LIMIT;
const ACTION: &str = "sts:GetCallerIdentity";

/// What [`StsIdentity`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityInput {
    /// The region the site is in.
    pub region: String,
    /// The account the site is in; another one is an error.
    #[serde(default)]
    pub expected_account: Option<String>,
    /// The principal of an earlier run of the site, as [`Identity::principal_arn`]; another one is an error.
    #[serde(default)]
    pub expected_principal: Option<String>,
    /// Seconds for which the final sweep must go on finding nothing: a lost create can land late.
    #[serde(default)]
    pub quiet_seconds: u64,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The account's twelve digits.
    pub account: String,
    /// The region.
    pub region: String,
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    /// The user's or role's ARN, without a session's name. A role's path is not part of what STS tells.
    pub principal_arn: String,
    /// The user's or role's unique id, without a session's name: it tells a role made anew from the one before.
    pub principal_id: String,
    /// The ARN as STS gave it.
    pub caller_arn: String,
}

impl Identity {
    /// Whether both are the same user or role of the same account and region, whatever the session is called.
    pub fn same_principal(&self, other: &Self) -> bool {
        (&self.account, &self.region, &self.principal_id)
            == (&other.account, &other.region, &other.principal_id)
    }

    fn check(&self, input: &IdentityInput) -> ActivityResult<()> {
        if self.region != input.region {
            return Err(ActivityError::terminal(
                "RegionMismatch",
                format!("the clients call {}, the site is in {}", self.region, input.region),
            )
            .no_effect());
        }
        if let Some(expected) = input.expected_account.as_ref().filter(|a| **a != self.account) {
            return Err(ActivityError::terminal(
                "AccountMismatch",
                format!("the credentials are of account {}, the site expects {expected}", self.account),
            )
            .help(format!(
                "choose the profile of account {expected} (AWS_PROFILE), or correct expected_account"
            ))
            .no_effect());
        }
        if let Some(expected) = input.expected_principal.as_ref().filter(|p| **p != self.principal_arn) {
            return Err(ActivityError::terminal(
                "PrincipalMismatch",
                format!("the credentials are of {}, the run belongs to {expected}", self.principal_arn),
            )
            .help("the principal that makes an EKS cluster administers it: go on with the same one")
            .no_effect());
        }
        Ok(())
    }
}

/// Asks STS who calls.
///
/// # Errors
/// A credentials error when nobody does, and the call's own errors.
pub async fn identify(clients: &AwsClients) -> ActivityResult<Identity> {
    let answer = clients.sts().get_caller_identity().send().await.map_err(|e| classify(ACTION, e))?;
    identity_of(&answer, clients.region())
}

/// Reads an answer of STS.
///
/// # Errors
/// A retryable error when it lacks something.
pub fn identity_of(answer: &GetCallerIdentityOutput, region: &str) -> ActivityResult<Identity> {
    let caller_arn = answer.arn().ok_or_else(|| incomplete(ACTION, "Arn"))?.to_owned();
    let account = answer.account().ok_or_else(|| incomplete(ACTION, "Account"))?.to_owned();
    let user_id = answer.user_id().ok_or_else(|| incomplete(ACTION, "UserId"))?;
    Ok(Identity {
        account,
        region: region.to_owned(),
        partition: partition(region).to_owned(),
        principal_arn: principal_arn(&caller_arn),
        principal_id: user_id.split(':').next().unwrap_or(user_id).to_owned(),
        caller_arn,
    })
}

/// The user or role behind a caller's ARN: `assumed-role/ROLE/SESSION` of STS becomes `role/ROLE` of IAM.
pub fn principal_arn(caller: &str) -> String {
    let parts: Vec<&str> = caller.splitn(6, ':').collect();
    if let [arn, partition, "sts", region, account, resource] = parts[..]
        && let Some(role) = resource.strip_prefix("assumed-role/").and_then(|rest| rest.split('/').next())
    {
        return format!("{arn}:{partition}:iam:{region}:{account}:role/{role}");
    }
    caller.to_owned()
}

/// Finds out who calls, and at the very end whether anything of the run is left.
///
/// # Idempotency
/// Reads only.
///
/// # Compensation
/// The final sweep: searches EC2, EKS, ECR, Glue, IAM and CloudFormation for what still carries this run's marks,
/// waits up to [`SWEEP_LIMIT`] for what is on its way out, and fails with the list if something stays that no rule
/// keeps. What a rule keeps (a database with tables, a repository with images, the effects of steps that stay) is
/// named and kept.
///
/// Page: <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct StsIdentity;

impl Activity for StsIdentity {
    type Input = IdentityInput;
    type Output = Identity;

    /// Not a read: a read is never undone, and the final sweep is this step's undo.
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    async fn execute(&self, ctx: &ActivityContext, input: &IdentityInput) -> ActivityResult<Identity> {
        let clients = AwsClients::of(ctx)?;
        let identity = identify(&clients).await?;
        identity.check(input)?;
        Ok(identity)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &IdentityInput,
        _: &Recorded,
    ) -> ActivityResult<Undo> {
        sweep::until_clean(ctx, Duration::from_secs(input.quiet_seconds), Scope::Run).await
    }

    fn describe(&self, input: &IdentityInput) -> String {
        match &input.expected_account {
            Some(account) => {
                format!("check that the credentials are of account {account} in {}", input.region)
            }
            None => format!("find out the account and principal in {}", input.region),
        }
    }
}

/// Finds out who calls, for runs that own nothing: the same check without the final sweep.
///
/// # Idempotency
/// Reads only.
///
/// # Compensation
/// None.
///
/// Page: <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct StsAccount;

impl Activity for StsAccount {
    type Input = IdentityInput;
    type Output = Identity;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, ctx: &ActivityContext, input: &IdentityInput) -> ActivityResult<Identity> {
        StsIdentity.execute(ctx, input).await
    }

    fn describe(&self, input: &IdentityInput) -> String {
        StsIdentity.describe(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(caller: &str, id: &str) -> Identity {
        Identity {
            account: "123456789012".into(),
            region: "eu-west-1".into(),
            partition: "aws".into(),
            principal_arn: principal_arn(caller),
            principal_id: id.into(),
            caller_arn: caller.into(),
        }
    }

    #[test]
    fn a_sessions_name_is_no_identity() {
        let one = identity("arn:aws:sts::123456789012:assumed-role/Admin/alice-1", "AROAX");
        let two = identity("arn:aws:sts::123456789012:assumed-role/Admin/alice-2", "AROAX");
        assert_eq!(one.principal_arn, "arn:aws:iam::123456789012:role/Admin");
        assert!(one.same_principal(&two));
        let user = identity("arn:aws:iam::123456789012:user/path/bob", "AIDAX");
        assert_eq!(user.principal_arn, "arn:aws:iam::123456789012:user/path/bob");
        assert!(!user.same_principal(&one));
    }

    #[test]
    fn another_account_region_or_principal_is_refused() {
        let ours = identity("arn:aws:iam::123456789012:user/bob", "AIDAX");
        let input = |region: &str, account: Option<&str>, principal: Option<&str>| IdentityInput {
            region: region.into(),
            expected_account: account.map(Into::into),
            expected_principal: principal.map(Into::into),
            quiet_seconds: 0,
        };
        let code = |input| ours.check(&input).err().map(|e| e.code);
        assert_eq!(code(input("eu-west-1", Some("123456789012"), None)), None);
        assert_eq!(code(input("eu-west-2", None, None)).as_deref(), Some("RegionMismatch"));
        assert_eq!(code(input("eu-west-1", Some("210987654321"), None)).as_deref(), Some("AccountMismatch"));
        assert_eq!(code(input("eu-west-1", None, Some("arn:x"))).as_deref(), Some("PrincipalMismatch"));
    }
}
