//! Attaches the VPC's `default` security group to the DSS instance, so that pods and DSS reach each other.
//!
//! The call replaces the whole list, so the old one is recorded first and put back only while the list is still the
//! one written here. Rules of the group are not looked at.

use std::collections::BTreeMap;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::classify;
use super::instance;
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.ec2.default-security-group";
/// The key under which the old list is recorded.
pub const BEFORE: &str = "security_groups";

/// What [`DefaultSecurityGroup`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultSgInput {
    /// The instance.
    pub instance_id: String,
    /// Its VPC.
    pub vpc_id: String,
    /// The group to attach; the VPC's `default` when absent.
    #[serde(default)]
    pub security_group: Option<String>,
}

/// What the instance has afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultSgOutput {
    /// The instance.
    pub instance_id: String,
    /// The group that was asked for.
    pub security_group: String,
    /// All of its groups.
    pub security_groups: Vec<String>,
}

/// What an undo does, told from the list recorded before and the list now.
#[derive(Debug, PartialEq, Eq)]
enum Restore {
    /// The old list is there, or our group is not.
    Nothing,
    /// The list is what we wrote: put the old one back.
    PutBack,
    /// Somebody changed the list since.
    Changed,
}

fn with_group(old: &[String], group: &str) -> Vec<String> {
    let mut new = old.to_vec();
    if !new.iter().any(|g| g == group) {
        new.push(group.to_owned());
    }
    new
}

fn same_set(a: &[String], b: &[String]) -> bool {
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    sorted(a) == sorted(b)
}

fn restore(old: &[String], group: &str, now: &[String]) -> Restore {
    if same_set(now, old) || !now.iter().any(|g| g == group) {
        Restore::Nothing
    } else if same_set(now, &with_group(old, group)) {
        Restore::PutBack
    } else {
        Restore::Changed
    }
}

async fn wanted_group(clients: &AwsClients, input: &DefaultSgInput) -> ActivityResult<String> {
    match &input.security_group {
        Some(group) => Ok(group.clone()),
        None => instance::default_security_group(clients, &input.vpc_id).await,
    }
}

/// Writes the list: on the instance when it has one interface, else on the first of them, as AWS asks.
async fn write(
    clients: &AwsClients,
    instance: &aws_sdk_ec2::types::Instance,
    id: &str,
    groups: Vec<String>,
) -> ActivityResult<()> {
    let interfaces = instance.network_interfaces();
    let first = interfaces.iter().find(|i| {
        i.attachment().and_then(aws_sdk_ec2::types::InstanceNetworkInterfaceAttachment::device_index)
            == Some(0)
    });
    if interfaces.len() > 1
        && let Some(interface) = first.and_then(|i| i.network_interface_id())
    {
        let call = clients.ec2().modify_network_interface_attribute().network_interface_id(interface);
        let answer = call.set_groups(Some(groups)).send().await;
        return answer.map(drop).map_err(|e| classify("ec2:ModifyNetworkInterfaceAttribute", e));
    }
    let call = clients.ec2().modify_instance_attribute().instance_id(id).set_groups(Some(groups));
    call.send().await.map(drop).map_err(|e| classify("ec2:ModifyInstanceAttribute", e))
}

/// Adds the VPC's `default` security group to the instance's list.
///
/// # Idempotency
/// The list is read first; a list that holds the group is left as it is.
///
/// # Compensation
/// Puts the recorded list back if the list is still the one written here. A list somebody changed since is an
/// error naming it. An instance that is gone needs nothing.
///
/// Page: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceAttribute.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct DefaultSecurityGroup;

impl Activity for DefaultSecurityGroup {
    type Input = DefaultSgInput;
    type Output = DefaultSgOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Update
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &DefaultSgInput,
    ) -> ActivityResult<Probe<DefaultSgOutput>> {
        let clients = AwsClients::of(ctx)?;
        let group = wanted_group(&clients, input).await?;
        let Some(instance) = instance::describe(&clients, &input.instance_id).await? else {
            return Ok(Probe::Absent);
        };
        let now = instance::group_ids(&instance);
        if !now.contains(&group) {
            return Ok(Probe::Absent);
        }
        // A list carries no mark: the ledger's old values tell whether this step wrote it.
        Ok(Probe::Present {
            output: DefaultSgOutput {
                instance_id: input.instance_id.clone(),
                security_group: group,
                security_groups: now,
            },
            owner: Owner::ThisSite(String::new()),
        })
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &DefaultSgInput,
    ) -> ActivityResult<DefaultSgOutput> {
        let clients = AwsClients::of(ctx)?;
        let group = wanted_group(&clients, input).await?;
        let instance = instance::describe(&clients, &input.instance_id).await?.ok_or_else(|| {
            ActivityError::terminal("InstanceNotFound", format!("there is no instance {}", input.instance_id))
                .no_effect()
        })?;
        let old = instance::group_ids(&instance);
        let new = with_group(&old, &group);
        if new.len() != old.len() {
            ctx.record_before(BTreeMap::from([(BEFORE.to_owned(), Value::from(old))])).await?;
            write(&clients, &instance, &input.instance_id, new.clone()).await?;
        }
        Ok(DefaultSgOutput {
            instance_id: input.instance_id.clone(),
            security_group: group,
            security_groups: new,
        })
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &DefaultSgInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let old: Option<Vec<String>> =
            recorded.before.get(BEFORE).and_then(|v| serde_json::from_value(v.clone()).ok());
        let Some(old) = old else { return Ok(Undo::NothingToDo) };
        let clients = AwsClients::of(ctx)?;
        let group = wanted_group(&clients, input).await?;
        let Some(instance) = instance::describe(&clients, &input.instance_id).await? else {
            return Ok(Undo::NothingToDo);
        };
        let now = instance::group_ids(&instance);
        match restore(&old, &group, &now) {
            Restore::Nothing => Ok(Undo::NothingToDo),
            Restore::PutBack => {
                write(&clients, &instance, &input.instance_id, old).await?;
                Ok(Undo::Undone)
            }
            Restore::Changed => Err(ActivityError::terminal(
                "ChangedSince",
                format!(
                    "{BEFORE} of {} is {now:?}; it was {old:?} before this run and somebody changed it since",
                    input.instance_id
                ),
            )
            .help(format!(
                "take {group} off the instance if nothing needs it, then `dssflow rollback RUN --retry`"
            ))
            .no_effect()),
        }
    }

    fn describe(&self, input: &DefaultSgInput) -> String {
        let group = input.security_group.as_deref().unwrap_or("`default`");
        format!("attach security group {group} of {} to {}", input.vpc_id, input.instance_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn the_group_is_added_once() {
        assert_eq!(with_group(&list(&["a"]), "d"), list(&["a", "d"]));
        assert_eq!(with_group(&list(&["d", "a"]), "d"), list(&["d", "a"]));
    }

    #[test]
    fn only_our_own_list_is_taken_back() {
        let old = list(&["a", "b"]);
        assert_eq!(restore(&old, "d", &list(&["d", "b", "a"])), Restore::PutBack);
        assert_eq!(restore(&old, "d", &old), Restore::Nothing);
        assert_eq!(restore(&old, "d", &list(&["a", "c"])), Restore::Nothing);
        assert_eq!(restore(&old, "d", &list(&["a", "b", "c", "d"])), Restore::Changed);
        assert_eq!(restore(&old, "d", &list(&["a", "d"])), Restore::Changed);
    }
}
