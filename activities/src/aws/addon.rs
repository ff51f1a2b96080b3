//! An EKS add-on, as `vpc-cni`, `coredns` or `kube-proxy`: create, wait, delete.
//!
//! A new cluster brings its own unmanaged copies; the add-on takes their place, so conflicts are overwritten.

use aws_sdk_eks::types::{Addon as EksAddon, AddonStatus, ResolveConflicts};
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Marks, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::cluster::{NOT_FOUND, join_issues};
use super::error::{classify, incomplete, none_if};
use super::poll::{Pace, Seen, until, until_ready};
use super::tags;
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.eks.addon";
/// The kind under which the add-on is recorded, as `CLUSTER/NAME`.
pub const KIND: &str = "eks:addon";

/// What [`Addon`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddonInput {
    /// The cluster.
    pub cluster: String,
    /// The add-on's name.
    pub addon: String,
    /// Its version; EKS's default for the cluster when absent.
    #[serde(default)]
    pub version: Option<String>,
}

/// The add-on that was asked for; it works only after [`wait::WaitAddon`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddonOutput {
    /// The cluster.
    pub cluster: String,
    /// The add-on's name.
    pub addon: String,
    /// Its ARN.
    pub arn: String,
}

impl AddonOutput {
    fn of(addon: &EksAddon) -> Self {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Self {
            cluster: text(addon.cluster_name()),
            addon: text(addon.addon_name()),
            arn: text(addon.addon_arn()),
        }
    }
}

async fn find(clients: &AwsClients, cluster: &str, addon: &str) -> ActivityResult<Option<EksAddon>> {
    let call = clients.eks().describe_addon().cluster_name(cluster).addon_name(addon).send().await;
    Ok(none_if(call.map_err(|e| classify("eks:DescribeAddon", e)), NOT_FOUND)?.and_then(|a| a.addon))
}

fn status(addon: &EksAddon) -> &str {
    addon.status().map_or("UNKNOWN", AddonStatus::as_str)
}

fn issues(addon: &EksAddon) -> String {
    let issues = addon.health().map(aws_sdk_eks::types::AddonHealth::issues).unwrap_or_default();
    join_issues(
        issues.iter().map(|i| {
            (i.code().map(aws_sdk_eks::types::AddonIssueCode::as_str), i.message(), i.resource_ids())
        }),
    )
}

fn judge(marks: &Marks, addon: Option<&EksAddon>) -> Probe<AddonOutput> {
    let Some(addon) = addon else { return Probe::Absent };
    let owner = tags::owner_of_map(marks, addon.tags());
    match addon.status() {
        Some(AddonStatus::Deleting) => Probe::InProgress {
            detail: format!("add-on {} is being deleted", addon.addon_name().unwrap_or_default()),
        },
        Some(AddonStatus::CreateFailed | AddonStatus::DeleteFailed) => {
            Probe::Failed { owner, detail: issues(addon) }
        }
        _ => Probe::Present { output: AddonOutput::of(addon), owner },
    }
}

/// Deletes an add-on of this run and waits until it is gone.
async fn delete(
    ctx: &ActivityContext,
    clients: &AwsClients,
    cluster: &str,
    name: &str,
) -> ActivityResult<()> {
    let call =
        clients.eks().delete_addon().cluster_name(cluster).addon_name(name).preserve(false).send().await;
    none_if(call.map_err(|e| classify("eks:DeleteAddon", e)), NOT_FOUND)?;
    until(ctx, Pace::SLOW, || async {
        let addon = find(clients, cluster, name).await?;
        ctx.heartbeat(addon.as_ref().map_or("gone", status));
        match addon {
            None => Ok(Some(())),
            Some(addon) if addon.status() == Some(&AddonStatus::DeleteFailed) => {
                Err(ActivityError::terminal("DeleteFailed", format!("add-on {name}: {}", issues(&addon)))
                    .help("its cluster takes it along when it is deleted; `dssflow rollback RUN --retry`"))
            }
            Some(_) => Ok(None),
        }
    })
    .await
}

/// Asks for an EKS add-on.
///
/// # Idempotency
/// The step's token, a name unique in the cluster, and tags given with the create.
///
/// # Compensation
/// Deletes the add-on if this run made it, and waits until it is gone.
///
/// Page: <https://docs.aws.amazon.com/eks/latest/APIReference/API_CreateAddon.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct Addon;

impl Activity for Addon {
    type Input = AddonInput;
    type Output = AddonOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(&self, ctx: &ActivityContext, input: &AddonInput) -> ActivityResult<Probe<AddonOutput>> {
        let addon = find(&*AwsClients::of(ctx)?, &input.cluster, &input.addon).await?;
        Ok(judge(&ctx.marks(), addon.as_ref()))
    }

    async fn execute(&self, ctx: &ActivityContext, input: &AddonInput) -> ActivityResult<AddonOutput> {
        const ACTION: &str = "eks:CreateAddon";
        let clients = AwsClients::of(ctx)?;
        let there = find(&clients, &input.cluster, &input.addon).await?;
        if there.is_some_and(|a| {
            matches!(judge(&ctx.marks(), Some(&a)), Probe::Failed { owner: Owner::ThisRun, .. })
        }) {
            Box::pin(delete(ctx, &clients, &input.cluster, &input.addon)).await?;
        }
        let call = clients
            .eks()
            .create_addon()
            .cluster_name(&input.cluster)
            .addon_name(&input.addon)
            .set_addon_version(input.version.clone())
            .resolve_conflicts(ResolveConflicts::Overwrite)
            .client_request_token(ctx.token("create-addon").as_str())
            .set_tags(Some(tags::map(&ctx.marks())));
        let answer = call.send().await.map_err(|e| classify(ACTION, e))?;
        ctx.record_resource(KIND, format!("{}/{}", input.cluster, input.addon)).await?;
        answer.addon().map(AddonOutput::of).ok_or_else(|| incomplete(ACTION, "addon"))
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &AddonInput,
        _: &Recorded,
    ) -> ActivityResult<Undo> {
        let clients = AwsClients::of(ctx)?;
        match find(&clients, &input.cluster, &input.addon).await? {
            Some(addon) if tags::owner_of_map(&ctx.marks(), addon.tags()) == Owner::ThisRun => {
                Box::pin(delete(ctx, &clients, &input.cluster, &input.addon)).await?;
                Ok(Undo::Undone)
            }
            _ => Ok(Undo::NothingToDo),
        }
    }

    fn describe(&self, input: &AddonInput) -> String {
        format!("add {} to EKS cluster {}", input.addon, input.cluster)
    }
}

/// Waiting for an add-on to work.
pub mod wait {
    use super::{
        Activity, ActivityContext, ActivityError, ActivityResult, AddonStatus, AwsClients, Deserialize,
        Effect, EksAddon, Pace, Seen, Serialize, find, issues, status, until_ready,
    };

    /// The registered name.
    pub const NAME: &str = "aws.eks.wait-addon";

    /// What [`WaitAddon`] takes.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct WaitAddonInput {
        /// The cluster.
        pub cluster: String,
        /// The add-on's name.
        pub addon: String,
    }

    /// An add-on that works.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct WaitAddonOutput {
        /// The cluster.
        pub cluster: String,
        /// The add-on's name.
        pub addon: String,
        /// Its version.
        pub version: String,
    }

    fn judge(input: &WaitAddonInput, addon: Option<&EksAddon>) -> ActivityResult<Option<WaitAddonOutput>> {
        let name = &input.addon;
        let Some(addon) = addon else {
            return Err(
                ActivityError::terminal("AddonGone", format!("there is no add-on {name}")).no_effect()
            );
        };
        match addon.status() {
            Some(AddonStatus::Active) => Ok(Some(WaitAddonOutput {
                cluster: input.cluster.clone(),
                addon: name.clone(),
                version: addon.addon_version().unwrap_or_default().to_owned(),
            })),
            Some(
                AddonStatus::CreateFailed
                | AddonStatus::UpdateFailed
                | AddonStatus::DeleteFailed
                | AddonStatus::Deleting,
            ) => {
                let text = format!("add-on {name} is {}: {}", status(addon), issues(addon));
                Err(ActivityError::terminal("AddonFailed", text)
                    .help("mend what EKS names, then run the step that creates the add-on again")
                    .no_effect())
            }
            // Degraded too: coredns is, until the first node has joined.
            _ => Ok(None),
        }
    }

    /// Waits until an add-on is ACTIVE.
    ///
    /// # Idempotency
    /// Reads only.
    ///
    /// # Compensation
    /// None.
    ///
    /// Page: <https://docs.aws.amazon.com/eks/latest/APIReference/API_DescribeAddon.html>
    #[derive(Debug, Clone, Copy, Default)]
    pub struct WaitAddon;

    impl Activity for WaitAddon {
        type Input = WaitAddonInput;
        type Output = WaitAddonOutput;

        fn effect(&self) -> Effect {
            Effect::Read
        }

        async fn execute(
            &self,
            ctx: &ActivityContext,
            input: &WaitAddonInput,
        ) -> ActivityResult<WaitAddonOutput> {
            let clients = AwsClients::of(ctx)?;
            until_ready(ctx, Pace::SLOW, &format!("add-on {}", input.addon), || async {
                let addon = find(&clients, &input.cluster, &input.addon).await?;
                let status = addon.as_ref().map_or("gone", status).to_owned();
                Ok(judge(input, addon.as_ref())?.map_or(Seen::Still(status), Seen::Ready))
            })
            .await
        }

        fn describe(&self, input: &WaitAddonInput) -> String {
            format!("wait for add-on {}", input.addon)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn degraded_may_still_become_active() {
            let input = WaitAddonInput { cluster: "c".into(), addon: "coredns".into() };
            let addon = |status| EksAddon::builder().addon_name("coredns").status(status).build();
            assert_eq!(judge(&input, Some(&addon(AddonStatus::Degraded))), Ok(None));
            assert!(matches!(judge(&input, Some(&addon(AddonStatus::Active))), Ok(Some(_))));
            assert_eq!(
                judge(&input, Some(&addon(AddonStatus::CreateFailed))).unwrap_err().code,
                "AddonFailed"
            );
        }
    }
}
