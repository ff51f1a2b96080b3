//! Launches the EC2 instance DSS is to live on, waits for it, and terminates it again.
//!
//! An instance has no name of its own, and a token is remembered for little more than a day: so a repeated launch
//! carries the same token **and** looks for the step's tags first. Asking and waiting are steps of their own. What is
//! on the machine is the business of the host's activities.

use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, Filter, HttpTokensState, IamInstanceProfileSpecification, Instance,
    InstanceMetadataEndpointState, InstanceMetadataOptionsRequest, InstanceStateName, InstanceType,
    ResourceType, VolumeType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Marks, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::error::{classify, incomplete, none_if};
use super::poll::{Pace, Seen, until, until_ready};
use super::{instance, tags};
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.ec2.launch";
/// The kind under which the instance is recorded, by id.
pub const KIND: &str = "ec2:instance";

const RUN: &str = "ec2:RunInstances";
const NOT_FOUND: &[&str] = &["InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"];
/// How far the metadata service's answers may travel: not into a container.
const HOP_LIMIT: i32 = 1;

/// What [`Launch`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchInput {
    /// Its `Name` tag.
    pub name: String,
    /// The machine image's id.
    pub image_id: String,
    /// The name of the image's root disk.
    pub root_device: String,
    /// As `m7i.2xlarge`.
    pub instance_type: String,
    /// The subnet it stands in.
    pub subnet_id: String,
    /// The subnet's VPC, whose group called `default` the instance gets.
    pub vpc_id: String,
    /// More security groups.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// The disk, in GB.
    pub disk_gb: i32,
    /// As `gp3`.
    pub disk_type: String,
    /// The instance profile, by name.
    #[serde(default)]
    pub instance_profile: Option<String>,
    /// The key pair, by name.
    #[serde(default)]
    pub key_name: Option<String>,
    /// What it runs when it starts for the first time. No secret.
    #[serde(default)]
    pub user_data: Option<String>,
}

/// The instance that was asked for. Its addresses may still change; those of [`running::InstanceRunning`] count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchOutput {
    /// Its id.
    pub instance_id: String,
    /// The machine image it was launched from.
    pub image_id: String,
    /// Its VPC.
    pub vpc_id: String,
    /// Its subnet.
    pub subnet_id: String,
    /// Its private address.
    pub private_ip: String,
    /// Its public address, once it has one.
    pub public_ip: Option<String>,
}

impl LaunchOutput {
    fn of(instance: &Instance) -> Self {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Self {
            instance_id: text(instance.instance_id()),
            image_id: text(instance.image_id()),
            vpc_id: text(instance.vpc_id()),
            subnet_id: text(instance.subnet_id()),
            private_ip: text(instance.private_ip_address()),
            public_ip: instance.public_ip_address().filter(|a| !a.is_empty()).map(str::to_owned),
        }
    }
}

impl LaunchInput {
    /// All security groups, each once, `default` first.
    fn groups(&self, default: String) -> Vec<String> {
        let mut groups = vec![default];
        for group in &self.security_groups {
            if !groups.contains(group) {
                groups.push(group.clone());
            }
        }
        groups
    }

    fn disk(&self) -> BlockDeviceMapping {
        let volume = EbsBlockDevice::builder()
            .volume_size(self.disk_gb)
            .volume_type(VolumeType::from(self.disk_type.as_str()))
            .encrypted(true)
            .delete_on_termination(true)
            .build();
        BlockDeviceMapping::builder().device_name(&self.root_device).ebs(volume).build()
    }

    fn profile(&self) -> Option<IamInstanceProfileSpecification> {
        let name = self.instance_profile.as_ref()?;
        Some(IamInstanceProfileSpecification::builder().name(name).build())
    }
}

/// The second version of the metadata service only, and only for the machine itself.
fn metadata() -> InstanceMetadataOptionsRequest {
    InstanceMetadataOptionsRequest::builder()
        .http_endpoint(InstanceMetadataEndpointState::Enabled)
        .http_tokens(HttpTokensState::Required)
        .http_put_response_hop_limit(HOP_LIMIT)
        .build()
}

fn state(instance: &Instance) -> &str {
    instance.state().and_then(|s| s.name()).map_or("unknown", InstanceStateName::as_str)
}

fn is_ending(instance: &Instance) -> bool {
    matches!(state(instance), "shutting-down" | "terminated")
}

/// Why EC2 ended or stopped it, as `Client.VolumeLimitExceeded: Volume limit exceeded`.
fn reason(instance: &Instance) -> String {
    let told = instance.state_reason().and_then(|r| r.message()).filter(|m| !m.is_empty());
    told.unwrap_or("EC2 gives no reason").to_owned()
}

/// Every instance of this site and step, whatever its state. Names are not asked for: a name is not a key.
async fn of_step(clients: &AwsClients, marks: &Marks) -> ActivityResult<Vec<Instance>> {
    let filter = |key: &str, value: &str| Filter::builder().name(format!("tag:{key}")).values(value).build();
    let (mut found, mut next) = (Vec::new(), None);
    loop {
        let call = clients
            .ec2()
            .describe_instances()
            .filters(filter(Marks::STORE, &marks.store))
            .filters(filter(Marks::SITE, &marks.site))
            .filters(filter(Marks::STEP, &marks.step))
            .set_next_token(next)
            .send()
            .await;
        let page = call.map_err(|e| classify("ec2:DescribeInstances", e))?;
        next = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
        found.extend(
            page.reservations.unwrap_or_default().into_iter().flat_map(|r| r.instances.unwrap_or_default()),
        );
        if next.is_none() {
            return Ok(found);
        }
    }
}

fn owner(marks: &Marks, instance: &Instance) -> Owner {
    tags::owner_of_ec2(marks, instance.tags())
}

fn generation(instance: &Instance) -> Option<u32> {
    let tag = instance.tags().iter().find(|t| t.key() == Some(Marks::GENERATION))?;
    tag.value()?.parse().ok()
}

/// Tells what the instances with the step's marks mean. More than one that lives is never chosen from in silence.
fn judge(marks: &Marks, found: &[Instance]) -> ActivityResult<Probe<LaunchOutput>> {
    let ours = |i: &&Instance| owner(marks, i) == Owner::ThisRun;
    let live: Vec<&Instance> = found.iter().filter(|i| !is_ending(i)).collect();
    let (mine, others): (Vec<&Instance>, Vec<&Instance>) = live.into_iter().partition(ours);
    if mine.len() > 1 {
        let ids: Vec<&str> = mine.iter().filter_map(|i| i.instance_id()).collect();
        return Err(ActivityError::needs_human(
            "InstancesTwice",
            format!("{} instances carry this step's marks: {}", ids.len(), ids.join(", ")),
        )
        .help("terminate all but one by hand, then resume the run: it goes on with the one that is left")
        .no_effect());
    }
    let chosen = mine
        .first()
        .or_else(|| others.iter().max_by_key(|i| i.launch_time().map(aws_smithy_types::DateTime::secs)));
    if let Some(instance) = chosen {
        return Ok(Probe::Present { output: LaunchOutput::of(instance), owner: owner(marks, instance) });
    }
    // The token still answers with the ended one: the next try needs a new generation.
    let ended = found.iter().find(|i| ours(i) && generation(i) == Some(marks.generation));
    Ok(match ended {
        Some(instance) => Probe::Failed {
            owner: Owner::ThisRun,
            detail: format!(
                "instance {} is {}: {}",
                instance.instance_id().unwrap_or_default(),
                state(instance),
                reason(instance)
            ),
        },
        None => Probe::Absent,
    })
}

/// Launches one instance.
///
/// The VPC's `default` security group is on it from the start, its disk is encrypted and goes with it, and its
/// metadata service answers to tokens only (`IMDSv2`) and not into containers.
///
/// # Idempotency
/// The step's token, and tags on instance and disk given with the call. The probe finds the instance by those tags in
/// any state; one that ended by itself makes the next try another generation, because the token would go on answering
/// with the dead one. Two live instances with the same marks wait for a person.
///
/// # Compensation
/// Terminates every instance whose tags prove that this run launched it, and waits until it is gone. One that is
/// protected from termination is an error that says how to lift that.
///
/// Pages: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html>,
/// <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct Launch;

impl Activity for Launch {
    type Input = LaunchInput;
    type Output = LaunchOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(&self, ctx: &ActivityContext, _: &LaunchInput) -> ActivityResult<Probe<LaunchOutput>> {
        let marks = ctx.marks();
        judge(&marks, &of_step(&*AwsClients::of(ctx)?, &marks).await?)
    }

    async fn execute(&self, ctx: &ActivityContext, input: &LaunchInput) -> ActivityResult<LaunchOutput> {
        let clients = AwsClients::of(ctx)?;
        let marks = ctx.marks();
        let default = instance::default_security_group(&clients, &input.vpc_id).await?;
        let call = clients
            .ec2()
            .run_instances()
            .image_id(&input.image_id)
            .instance_type(InstanceType::from(input.instance_type.as_str()))
            .min_count(1)
            .max_count(1)
            .subnet_id(&input.subnet_id)
            .set_security_group_ids(Some(input.groups(default)))
            .block_device_mappings(input.disk())
            .metadata_options(metadata())
            .set_iam_instance_profile(input.profile())
            .set_key_name(input.key_name.clone())
            .set_user_data(input.user_data.as_ref().map(|text| STANDARD.encode(text)))
            .client_token(ctx.token("run-instances").as_str())
            .tag_specifications(tags::ec2(&marks, ResourceType::Instance, &input.name))
            .tag_specifications(tags::ec2(&marks, ResourceType::Volume, &input.name));
        let answer = call.send().await.map_err(|e| classify(RUN, e))?;
        let instance = answer.instances().first().ok_or_else(|| incomplete(RUN, "Instances"))?;
        let output = LaunchOutput::of(instance);
        ctx.record_resource(KIND, &output.instance_id).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        _: &LaunchInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let clients = AwsClients::of(ctx)?;
        let marks = ctx.marks();
        let mut found = of_step(&clients, &marks).await?;
        for id in recorded.ids(KIND) {
            // Its tags may have been taken off: then the look by id says so, and it is left alone.
            if !found.iter().any(|i| i.instance_id() == Some(id)) {
                found.extend(instance::describe(&clients, id).await?);
            }
        }
        let ours: Vec<String> = found
            .iter()
            .filter(|i| !is_ending(i) && owner(&marks, i) == Owner::ThisRun)
            .filter_map(|i| i.instance_id())
            .map(str::to_owned)
            .collect();
        let ending =
            found.iter().filter(|i| state(i) == "shutting-down" && owner(&marks, i) == Owner::ThisRun);
        let ending: Vec<String> = ending.filter_map(|i| i.instance_id()).map(str::to_owned).collect();
        for id in &ours {
            terminate(&clients, id).await?;
        }
        for id in ours.iter().chain(&ending) {
            gone(ctx, &clients, id).await?;
        }
        Ok(if ours.is_empty() { Undo::NothingToDo } else { Undo::Undone })
    }

    fn describe(&self, input: &LaunchInput) -> String {
        format!(
            "launch a {} from {} in {} with {} GB of disk",
            input.instance_type, input.image_id, input.subnet_id, input.disk_gb
        )
    }
}

async fn terminate(clients: &AwsClients, id: &str) -> ActivityResult<()> {
    let call = clients.ec2().terminate_instances().instance_ids(id).send().await;
    match none_if(call.map_err(|e| classify("ec2:TerminateInstances", e)), NOT_FOUND) {
        Err(error) if error.code == "OperationNotPermitted" => {
            let help = format!(
                "if it may go: `aws ec2 modify-instance-attribute --instance-id {id} --no-disable-api-termination`, then \
                 `dssflow rollback RUN --retry`"
            );
            Err(error.help(help))
        }
        other => other.map(drop),
    }
}

/// Waits until an instance is terminated or forgotten.
async fn gone(ctx: &ActivityContext, clients: &AwsClients, id: &str) -> ActivityResult<()> {
    until(ctx, Pace::SLOW, || async {
        let instance = instance::describe(clients, id).await?;
        let now = instance.as_ref().map_or("gone", state);
        ctx.heartbeat(format!("{id} is {now}"));
        Ok(matches!(now, "gone" | "terminated").then_some(()))
    })
    .await
}

/// Waiting for a launched instance to run.
pub mod running {
    use super::{
        Activity, ActivityContext, ActivityError, ActivityResult, AwsClients, Deserialize, Effect, Instance,
        LaunchOutput, Pace, Seen, Serialize, instance, reason, state, until_ready,
    };

    /// The registered name.
    pub const NAME: &str = "aws.ec2.instance-running";

    /// What [`InstanceRunning`] takes.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct InstanceRunningInput {
        /// The instance.
        pub instance_id: String,
    }

    fn judge(id: &str, instance: Option<&Instance>) -> ActivityResult<Option<LaunchOutput>> {
        let Some(instance) = instance else {
            // A moment after the launch not every answer knows it yet.
            return Err(ActivityError::retryable("InstanceUnknown", format!("EC2 does not know {id} (yet)"))
                .no_effect());
        };
        match state(instance) {
            "running" => Ok(Some(LaunchOutput::of(instance))),
            "pending" | "unknown" => Ok(None),
            other => {
                let text = format!("instance {id} is {other}: {}", reason(instance));
                Err(ActivityError::terminal("InstanceEnded", text)
                    .help(
                        "mend what EC2 names (often a quota, a disk encryption key, or no capacity in the zone), then \
                         run the step that launches it again: it launches another one",
                    )
                    .no_effect())
            }
        }
    }

    /// Waits until an instance runs, and tells its addresses. Whether its system has booted is not looked at.
    ///
    /// # Idempotency
    /// Reads only; a wait cut short is simply begun again.
    ///
    /// # Compensation
    /// None.
    ///
    /// Page: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html>
    #[derive(Debug, Clone, Copy, Default)]
    pub struct InstanceRunning;

    impl Activity for InstanceRunning {
        type Input = InstanceRunningInput;
        type Output = LaunchOutput;

        fn effect(&self) -> Effect {
            Effect::Read
        }

        async fn execute(
            &self,
            ctx: &ActivityContext,
            input: &InstanceRunningInput,
        ) -> ActivityResult<LaunchOutput> {
            let clients = AwsClients::of(ctx)?;
            until_ready(ctx, Pace::SLOW, &format!("instance {}", input.instance_id), || async {
                let instance = instance::describe(&clients, &input.instance_id).await?;
                let status = instance.as_ref().map_or("unknown", state).to_owned();
                Ok(judge(&input.instance_id, instance.as_ref())?.map_or(Seen::Still(status), Seen::Ready))
            })
            .await
        }

        fn describe(&self, input: &InstanceRunningInput) -> String {
            format!("wait until instance {} runs", input.instance_id)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::super::tests::instance;
        use super::*;

        #[test]
        fn running_is_ready_pending_is_waited_for_and_the_rest_is_for_good() {
            assert_eq!(judge("i-1", Some(&instance("i-1", "pending", &[]))), Ok(None));
            let ready = judge("i-1", Some(&instance("i-1", "running", &[])));
            assert!(matches!(ready, Ok(Some(out)) if out.instance_id == "i-1"));
            for state in ["stopped", "stopping", "shutting-down", "terminated"] {
                let error = judge("i-1", Some(&instance("i-1", state, &[]))).unwrap_err();
                assert_eq!(error.code, "InstanceEnded");
                assert!(error.message.contains("Volume limit exceeded"), "{error}");
            }
            assert!(judge("i-1", None).unwrap_err().class == dssflow_engine::activity::ErrorClass::Retryable);
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{InstanceState, StateReason};

    use super::*;

    pub(super) fn instance(id: &str, state: &str, tags: &[aws_sdk_ec2::types::Tag]) -> Instance {
        Instance::builder()
            .instance_id(id)
            .state(InstanceState::builder().name(InstanceStateName::from(state)).build())
            .state_reason(
                StateReason::builder().message("Client.VolumeLimitExceeded: Volume limit exceeded").build(),
            )
            .set_tags(Some(tags.to_vec()))
            .build()
    }

    fn marks(run: &str, generation: u32) -> Marks {
        Marks {
            store: "s".into(),
            site: "lab".into(),
            run: run.into(),
            step: "host-launch".into(),
            generation,
        }
    }

    fn of(id: &str, state: &str, run: &str, generation: u32) -> Instance {
        instance(id, state, &tags::ec2_tags(&marks(run, generation), "dss"))
    }

    #[test]
    fn the_one_with_our_marks_is_found_and_the_sites_is_taken_over() {
        let ours = marks("r1", 1);
        let found = [of("i-old", "running", "r0", 1), of("i-new", "pending", "r1", 1)];
        let Ok(Probe::Present { output, owner }) = judge(&ours, &found) else { panic!("present") };
        assert_eq!((output.instance_id.as_str(), owner), ("i-new", Owner::ThisRun));
        let Ok(Probe::Present { output, owner }) = judge(&ours, &found[..1]) else { panic!("present") };
        assert_eq!((output.instance_id.as_str(), owner), ("i-old", Owner::ThisSite("r0".into())));
        assert_eq!(judge(&ours, &[]), Ok(Probe::Absent));
    }

    #[test]
    fn two_are_never_chosen_from() {
        let found = [of("i-1", "running", "r1", 1), of("i-2", "stopped", "r1", 1)];
        let error = judge(&marks("r1", 1), &found).unwrap_err();
        assert_eq!(error.code, "InstancesTwice");
        assert!(error.message.contains("i-1, i-2"), "{error}");
    }

    #[test]
    fn one_that_ended_asks_for_another_generation_and_only_once() {
        let found = [of("i-1", "terminated", "r1", 1)];
        let Ok(Probe::Failed { owner: Owner::ThisRun, detail }) = judge(&marks("r1", 1), &found) else {
            panic!("failed")
        };
        assert!(detail.contains("i-1") && detail.contains("Volume limit exceeded"), "{detail}");
        assert_eq!(judge(&marks("r1", 2), &found), Ok(Probe::Absent), "of an older generation");
        assert_eq!(judge(&marks("r2", 1), &found), Ok(Probe::Absent), "of another run");
    }

    #[test]
    fn what_is_asked_for_is_private_and_marked() {
        let input = LaunchInput {
            name: "dss".into(),
            image_id: "ami-1".into(),
            root_device: "/dev/sda1".into(),
            instance_type: "m7i.2xlarge".into(),
            subnet_id: "subnet-1".into(),
            vpc_id: "vpc-1".into(),
            security_groups: vec!["sg-a".into(), "sg-d".into()],
            disk_gb: 200,
            disk_type: "gp3".into(),
            instance_profile: Some("dss-host".into()),
            key_name: None,
            user_data: None,
        };
        assert_eq!(input.groups("sg-d".into()), ["sg-d", "sg-a"]);
        let disk = input.disk();
        let ebs = disk.ebs().expect("a disk");
        assert_eq!((ebs.encrypted(), ebs.delete_on_termination()), (Some(true), Some(true)));
        let metadata = metadata();
        assert_eq!(metadata.http_tokens(), Some(&HttpTokensState::Required));
        assert_eq!(metadata.http_put_response_hop_limit(), Some(1));
        assert_eq!(input.profile().and_then(|p| p.name().map(str::to_owned)).as_deref(), Some("dss-host"));
    }
}
