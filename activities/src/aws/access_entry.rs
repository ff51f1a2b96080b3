//! Lets a principal, the service user DSS runs as, into an EKS cluster by an access entry with an access policy.
//!
//! EKS makes such an entry by itself for the principal that created the cluster. One that is there with the policy is
//! used as it is; one without it only gets the policy.

use aws_sdk_eks::types::{AccessScope, AccessScopeType};
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::cluster::NOT_FOUND;
use super::error::{classify, none_if};
use super::tags;
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.eks.access-entry";
/// The kind under which an entry is recorded, by its principal.
pub const KIND: &str = "eks:access-entry";
/// The kind under which a policy given to somebody else's entry is recorded, by its ARN.
pub const POLICY_KIND: &str = "eks:access-policy";
/// The policy of a cluster's administrator, in the `aws` partition.
pub const CLUSTER_ADMIN: &str = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy";

/// What [`AccessEntry`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessEntryInput {
    /// The cluster.
    pub cluster: String,
    /// The user or role let in; of a session, its role.
    pub principal_arn: String,
    /// The access policy; the administrator's when absent.
    #[serde(default)]
    pub policy_arn: Option<String>,
}

/// What is there afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessEntryOutput {
    /// The principal.
    pub principal_arn: String,
    /// The policy it has.
    pub policy_arn: String,
}

impl AccessEntryInput {
    fn policy(&self, region: &str) -> String {
        let admin = || CLUSTER_ADMIN.replacen("aws", tags::partition(region), 1);
        self.policy_arn.clone().unwrap_or_else(admin)
    }
}

/// Whose the entry is; `None` when there is no entry, or no cluster.
async fn entry_owner(
    ctx: &ActivityContext,
    clients: &AwsClients,
    input: &AccessEntryInput,
) -> ActivityResult<Option<Owner>> {
    let call = clients
        .eks()
        .describe_access_entry()
        .cluster_name(&input.cluster)
        .principal_arn(&input.principal_arn);
    let answer = none_if(call.send().await.map_err(|e| classify("eks:DescribeAccessEntry", e)), NOT_FOUND)?;
    Ok(answer.and_then(|a| a.access_entry).map(|e| tags::owner_of_map(&ctx.marks(), e.tags())))
}

async fn has_policy(clients: &AwsClients, input: &AccessEntryInput, policy: &str) -> ActivityResult<bool> {
    let mut next = None;
    loop {
        let call = clients
            .eks()
            .list_associated_access_policies()
            .cluster_name(&input.cluster)
            .principal_arn(&input.principal_arn)
            .set_next_token(next)
            .send()
            .await;
        let answer = none_if(call.map_err(|e| classify("eks:ListAssociatedAccessPolicies", e)), NOT_FOUND)?;
        let Some(page) = answer else { return Ok(false) };
        if page.associated_access_policies().iter().any(|p| p.policy_arn() == Some(policy)) {
            return Ok(true);
        }
        next = page.next_token().map(str::to_owned);
        if next.is_none() {
            return Ok(false);
        }
    }
}

/// Makes an access entry with an access policy for the whole cluster.
///
/// # Idempotency
/// There is one entry for a principal; the create carries the step's token and tags, and a policy associated twice
/// is one association.
///
/// # Compensation
/// Deletes the entry if this run made it; takes the policy back from an entry of somebody else if this run gave it.
///
/// Page: <https://docs.aws.amazon.com/eks/latest/userguide/access-entries.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct AccessEntry;

impl Activity for AccessEntry {
    type Input = AccessEntryInput;
    type Output = AccessEntryOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &AccessEntryInput,
    ) -> ActivityResult<Probe<AccessEntryOutput>> {
        let clients = AwsClients::of(ctx)?;
        let policy_arn = input.policy(clients.region());
        let Some(owner) = entry_owner(ctx, &clients, input).await? else { return Ok(Probe::Absent) };
        if !has_policy(&clients, input, &policy_arn).await? {
            return Ok(Probe::Absent);
        }
        let output = AccessEntryOutput { principal_arn: input.principal_arn.clone(), policy_arn };
        // Somebody else's entry with the policy is all that is wanted: used, and left alone by an undo.
        let owner = if owner == Owner::Foreign { Owner::ThisSite(String::new()) } else { owner };
        Ok(Probe::Present { output, owner })
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &AccessEntryInput,
    ) -> ActivityResult<AccessEntryOutput> {
        let clients = AwsClients::of(ctx)?;
        let policy_arn = input.policy(clients.region());
        match entry_owner(ctx, &clients, input).await? {
            None => {
                // Recorded before the call: an entry without the policy is none for the probe, and an undo would look no
                // more.
                ctx.record_resource(KIND, &input.principal_arn).await?;
                let call = clients
                    .eks()
                    .create_access_entry()
                    .cluster_name(&input.cluster)
                    .principal_arn(&input.principal_arn)
                    .client_request_token(ctx.token("create-access-entry").as_str())
                    .set_tags(Some(tags::map(&ctx.marks())));
                call.send().await.map_err(|e| classify("eks:CreateAccessEntry", e))?;
            }
            Some(Owner::ThisRun) => {}
            // Recorded before the call: a lost answer must not leave a policy nobody knows of.
            Some(_) => ctx.record_resource(POLICY_KIND, &policy_arn).await?,
        }
        let scope = AccessScope::builder().r#type(AccessScopeType::Cluster).build();
        let call = clients
            .eks()
            .associate_access_policy()
            .cluster_name(&input.cluster)
            .principal_arn(&input.principal_arn)
            .policy_arn(&policy_arn)
            .access_scope(scope);
        call.send().await.map_err(|e| classify("eks:AssociateAccessPolicy", e))?;
        Ok(AccessEntryOutput { principal_arn: input.principal_arn.clone(), policy_arn })
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &AccessEntryInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let clients = AwsClients::of(ctx)?;
        match entry_owner(ctx, &clients, input).await? {
            Some(Owner::ThisRun) => {
                let call = clients.eks().delete_access_entry().cluster_name(&input.cluster);
                let answer = call.principal_arn(&input.principal_arn).send().await;
                none_if(answer.map_err(|e| classify("eks:DeleteAccessEntry", e)), NOT_FOUND)?;
                Ok(Undo::Undone)
            }
            Some(_) if recorded.ids(POLICY_KIND).next().is_some() => {
                for policy in recorded.ids(POLICY_KIND) {
                    let call = clients.eks().disassociate_access_policy().cluster_name(&input.cluster);
                    let answer = call.principal_arn(&input.principal_arn).policy_arn(policy).send().await;
                    none_if(answer.map_err(|e| classify("eks:DisassociateAccessPolicy", e)), NOT_FOUND)?;
                }
                Ok(Undo::Undone)
            }
            _ => Ok(Undo::NothingToDo),
        }
    }

    fn describe(&self, input: &AccessEntryInput) -> String {
        format!("let {} into EKS cluster {}", input.principal_arn, input.cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_policy_is_of_the_regions_partition() {
        let input = AccessEntryInput { cluster: "c".into(), principal_arn: "p".into(), policy_arn: None };
        assert_eq!(input.policy("eu-west-1"), CLUSTER_ADMIN);
        assert_eq!(
            input.policy("cn-north-1"),
            "arn:aws-cn:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
        );
    }
}
