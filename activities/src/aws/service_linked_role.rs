//! The service-linked roles EKS works through, which a new account does not have.
//!
//! They are the account's, shared by every cluster in it, and carry no tags of ours: one that is there is used, and
//! one made here is never deleted.

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::error::{classify, incomplete};
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.iam.service-linked-role";
/// The kind under which a role made here is recorded, by name.
pub const KIND: &str = "iam:service-linked-role";

/// What [`ServiceLinkedRole`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceLinkedRoleInput {
    /// The service, as `eks.amazonaws.com` or `eks-nodegroup.amazonaws.com`.
    pub service: String,
}

/// The role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLinkedRoleOutput {
    /// Its name, as `AWSServiceRoleForAmazonEKS`.
    pub role_name: String,
    /// Its ARN.
    pub arn: String,
}

async fn find(clients: &AwsClients, service: &str) -> ActivityResult<Option<ServiceLinkedRoleOutput>> {
    let call = clients.iam().list_roles().path_prefix(format!("/aws-service-role/{service}/")).send().await;
    let page = call.map_err(|e| classify("iam:ListRoles", e))?;
    Ok(page
        .roles()
        .first()
        .map(|r| ServiceLinkedRoleOutput { role_name: r.role_name().to_owned(), arn: r.arn().to_owned() }))
}

/// Sees to it that a service has its role in this account.
///
/// # Idempotency
/// There is one such role for a service; a second create is refused, which counts as done.
///
/// # Compensation
/// None: the role is kept, other clusters of the account may use it by now.
///
/// Page: <https://docs.aws.amazon.com/eks/latest/userguide/using-service-linked-roles.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct ServiceLinkedRole;

impl Activity for ServiceLinkedRole {
    type Input = ServiceLinkedRoleInput;
    type Output = ServiceLinkedRoleOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &ServiceLinkedRoleInput,
    ) -> ActivityResult<Probe<ServiceLinkedRoleOutput>> {
        let found = find(&*AwsClients::of(ctx)?, &input.service).await?;
        Ok(found
            .map_or(Probe::Absent, |output| Probe::Present { output, owner: Owner::ThisSite(String::new()) }))
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &ServiceLinkedRoleInput,
    ) -> ActivityResult<ServiceLinkedRoleOutput> {
        const ACTION: &str = "iam:CreateServiceLinkedRole";
        let clients = AwsClients::of(ctx)?;
        let call = clients.iam().create_service_linked_role().aws_service_name(&input.service);
        match call.send().await.map_err(|e| classify(ACTION, e)) {
            Ok(answer) => {
                let role = answer.role().ok_or_else(|| incomplete(ACTION, "Role"))?;
                ctx.record_resource(KIND, role.role_name()).await?;
                Ok(ServiceLinkedRoleOutput {
                    role_name: role.role_name().to_owned(),
                    arn: role.arn().to_owned(),
                })
            }
            Err(error) if error.message.contains("has been taken in this account") => {
                find(&clients, &input.service).await?.ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn compensate(
        &self,
        _: &ActivityContext,
        _: &ServiceLinkedRoleInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let made: Vec<_> = recorded.ids(KIND).collect();
        if made.is_empty() {
            return Ok(Undo::NothingToDo);
        }
        Ok(Undo::Kept { reason: format!("service-linked role {} is the account's", made.join(", ")) })
    }

    fn describe(&self, input: &ServiceLinkedRoleInput) -> String {
        format!("see that {} has its service-linked role", input.service)
    }
}
