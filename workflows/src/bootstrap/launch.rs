//! The host, when the site has none yet: machine image, key pair, launch, and the wait for it.

use dssflow_activities::aws::{key_pair, launch, machine_image};
use dssflow_engine::id::StepName;

use super::plan::{LAUNCH, LOOK, Plan, from_step};
use crate::site::Launch;

/// Adds the steps that launch the host once the network was found to fit; gives the wait, whose output says the
/// instance's id and addresses.
pub(super) fn steps(plan: &mut Plan<'_>, wanted: &Launch, network: &StepName) -> StepName {
    let site = plan.site;
    let name = format!("dssflow-{}-host", site.name);
    let image = plan
        .step(
            "host-image",
            machine_image::NAME,
            &machine_image::MachineImageInput {
                id: wanted.image.clone(),
                owner: wanted.image_owner.clone(),
                name: wanted.image_name.clone(),
            },
        )
        .title(match &wanted.image {
            Some(id) => format!("machine image {id}"),
            None => format!("newest machine image named {:?} of {}", wanted.image_name, wanted.image_owner),
        })
        .after([network])
        .budget(LOOK)
        .add();
    let key = wanted.public_key.as_ref().map(|public_key| {
        let input = key_pair::KeyPairInput { name: name.clone(), public_key: public_key.clone() };
        plan.step("host-key-pair", key_pair::NAME, &input)
            .title(format!("key pair {name}, from your public key"))
            .after([network])
            .add()
    });
    let key_name = key.as_ref().map(|step| from_step(step, "/name")).or_else(|| wanted.key_name.clone());
    let launched = plan
        .step(
            "host-launch",
            launch::NAME,
            &launch::LaunchInput {
                name,
                image_id: from_step(&image, "/id"),
                root_device: from_step(&image, "/root_device"),
                instance_type: wanted.instance_type.clone(),
                subnet_id: wanted.subnet.clone(),
                vpc_id: from_step(network, "/vpc_id"),
                security_groups: wanted.security_groups.clone(),
                disk_gb: i32::try_from(wanted.disk_gb).expect("sizes of disks are checked with the site"),
                disk_type: wanted.disk_type.name().to_owned(),
                instance_profile: wanted.instance_profile.clone(),
                key_name,
                user_data: wanted.user_data.clone(),
            },
        )
        .title(format!("launch a {} for DSS", wanted.instance_type))
        .budget(LAUNCH)
        .stubborn()
        .add();
    plan.step(
        "host-running",
        launch::running::NAME,
        &launch::running::InstanceRunningInput { instance_id: from_step(&launched, "/instance_id") },
    )
    .title("the launched instance runs")
    .budget(LAUNCH)
    .add()
}
