//! The launch template of the nodes: the cluster's security group and those of the DSS host, an encrypted disk, and
//! instance metadata that pods can reach by `IMDSv2` only.
//!
//! A managed node group with a template of one's own gets no security group by itself, so the cluster's stands in
//! the list. Instance types and the machine image are the node group's.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{
    LaunchTemplate as Template, LaunchTemplateBlockDeviceMappingRequest, LaunchTemplateEbsBlockDeviceRequest,
    LaunchTemplateHttpTokensState, LaunchTemplateInstanceMetadataOptionsRequest,
    LaunchTemplateTagSpecificationRequest, LaunchTemplateVersion, RequestLaunchTemplateData, ResourceType,
    VolumeType,
};
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityResult, Effect, Marks, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::error::{classify, incomplete, none_if};
use super::tags;
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.ec2.launch-template";
/// The kind under which the template is recorded, by id.
pub const KIND: &str = "ec2:launch-template";

const CREATE: &str = "ec2:CreateLaunchTemplate";
const NOT_FOUND: &[&str] = &[
    "InvalidLaunchTemplateName.NotFoundException",
    "InvalidLaunchTemplateId.NotFound",
    "InvalidLaunchTemplateId.NotFoundException",
];

/// What [`LaunchTemplate`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchTemplateInput {
    /// Its name, unique in account and region.
    pub name: String,
    /// The security group EKS made for the cluster.
    #[serde(default)]
    pub cluster_security_group: Option<String>,
    /// The security groups through which nodes and DSS reach each other.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// The disk of a node, in GB.
    #[serde(default = "disk")]
    pub disk_gb: i32,
}

fn disk() -> i32 {
    200
}

/// The template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchTemplateOutput {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The version to use.
    pub version: String,
}

impl LaunchTemplateInput {
    /// All security groups, each once, the cluster's first.
    fn groups(&self) -> Vec<String> {
        let mut groups: Vec<String> = Vec::new();
        for group in self.cluster_security_group.iter().chain(&self.security_groups) {
            if !group.is_empty() && !groups.contains(group) {
                groups.push(group.clone());
            }
        }
        groups
    }

    /// Whether a version with these security groups is what is wanted.
    fn is_met_by(&self, groups: &BTreeSet<String>) -> bool {
        self.groups().into_iter().collect::<BTreeSet<_>>() == *groups
    }

    fn data(&self, marks: &Marks) -> RequestLaunchTemplateData {
        let volume = LaunchTemplateEbsBlockDeviceRequest::builder()
            .volume_size(self.disk_gb)
            .volume_type(VolumeType::Gp3)
            .encrypted(true)
            .delete_on_termination(true)
            .build();
        let disk =
            LaunchTemplateBlockDeviceMappingRequest::builder().device_name("/dev/xvda").ebs(volume).build();
        let metadata = LaunchTemplateInstanceMetadataOptionsRequest::builder()
            .http_tokens(LaunchTemplateHttpTokensState::Required)
            .http_put_response_hop_limit(2)
            .build();
        let tagged = |kind: ResourceType| {
            LaunchTemplateTagSpecificationRequest::builder()
                .resource_type(kind)
                .set_tags(Some(tags::ec2_tags(marks, &self.name)))
                .build()
        };
        RequestLaunchTemplateData::builder()
            .set_security_group_ids(Some(self.groups()))
            .block_device_mappings(disk)
            .metadata_options(metadata)
            .tag_specifications(tagged(ResourceType::Instance))
            .tag_specifications(tagged(ResourceType::Volume))
            .build()
    }
}

fn output(template: &Template, version: Option<i64>) -> LaunchTemplateOutput {
    LaunchTemplateOutput {
        id: template.launch_template_id().unwrap_or_default().to_owned(),
        name: template.launch_template_name().unwrap_or_default().to_owned(),
        version: version.or(template.latest_version_number()).unwrap_or(1).to_string(),
    }
}

async fn find(clients: &AwsClients, name: &str) -> ActivityResult<Option<Template>> {
    let call = clients.ec2().describe_launch_templates().launch_template_names(name).send().await;
    let answer = none_if(call.map_err(|e| classify("ec2:DescribeLaunchTemplates", e)), NOT_FOUND)?;
    Ok(answer.and_then(|a| a.launch_templates.unwrap_or_default().into_iter().next()))
}

/// Whether there is a template of that id.
pub(crate) async fn exists(clients: &AwsClients, id: &str) -> ActivityResult<bool> {
    let call = clients.ec2().describe_launch_templates().launch_template_ids(id).send().await;
    let answer = none_if(call.map_err(|e| classify("ec2:DescribeLaunchTemplates", e)), NOT_FOUND)?;
    Ok(answer.is_some_and(|a| !a.launch_templates().is_empty()))
}

/// A template's latest version: its number and its security groups.
async fn latest(clients: &AwsClients, id: &str) -> ActivityResult<(Option<i64>, BTreeSet<String>)> {
    let call = clients.ec2().describe_launch_template_versions().launch_template_id(id).versions("$Latest");
    let answer =
        none_if(call.send().await.map_err(|e| classify("ec2:DescribeLaunchTemplateVersions", e)), NOT_FOUND)?;
    let version = answer.as_ref().and_then(|a| a.launch_template_versions().first());
    let groups = version.and_then(|v| v.launch_template_data()).map(|d| d.security_group_ids().to_vec());
    Ok((
        version.and_then(LaunchTemplateVersion::version_number),
        groups.unwrap_or_default().into_iter().collect(),
    ))
}

/// Makes the launch template of the nodes.
///
/// # Idempotency
/// The step's token, a name unique in account and region, and tags given with the create. A template of ours whose
/// latest version names other security groups gets one more version; one that names the wanted ones is left as it is.
///
/// # Compensation
/// Deletes the template with all its versions, if this run made it.
///
/// Page: <https://docs.aws.amazon.com/eks/latest/userguide/launch-templates.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct LaunchTemplate;

impl Activity for LaunchTemplate {
    type Input = LaunchTemplateInput;
    type Output = LaunchTemplateOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &LaunchTemplateInput,
    ) -> ActivityResult<Probe<LaunchTemplateOutput>> {
        let clients = AwsClients::of(ctx)?;
        let Some(template) = find(&clients, &input.name).await? else { return Ok(Probe::Absent) };
        let owner = tags::owner_of_ec2(&ctx.marks(), template.tags());
        let (version, there) = latest(&clients, template.launch_template_id().unwrap_or_default()).await?;
        if owner == Owner::ThisRun && !input.is_met_by(&there) {
            return Ok(Probe::Absent);
        }
        Ok(Probe::Present { output: output(&template, version), owner })
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &LaunchTemplateInput,
    ) -> ActivityResult<LaunchTemplateOutput> {
        let clients = AwsClients::of(ctx)?;
        let marks = ctx.marks();
        let data = input.data(&marks);
        if let Some(template) = find(&clients, &input.name).await?
            && tags::owner_of_ec2(&marks, template.tags()) == Owner::ThisRun
        {
            // Another attempt may have made it since the probe looked.
            let (version, there) =
                latest(&clients, template.launch_template_id().unwrap_or_default()).await?;
            if input.is_met_by(&there) {
                ctx.record_resource(KIND, template.launch_template_id().unwrap_or_default()).await?;
                return Ok(output(&template, version));
            }
            let call = clients
                .ec2()
                .create_launch_template_version()
                .set_launch_template_id(template.launch_template_id().map(str::to_owned))
                .client_token(ctx.token("create-version").as_str())
                .launch_template_data(data);
            let answer = call.send().await.map_err(|e| classify("ec2:CreateLaunchTemplateVersion", e))?;
            return Ok(output(
                &template,
                answer.launch_template_version().and_then(LaunchTemplateVersion::version_number),
            ));
        }
        let call = clients
            .ec2()
            .create_launch_template()
            .launch_template_name(&input.name)
            .client_token(ctx.token("create-template").as_str())
            .launch_template_data(data)
            .tag_specifications(tags::ec2(&marks, ResourceType::LaunchTemplate, &input.name));
        let answer = call.send().await.map_err(|e| classify(CREATE, e))?;
        let made = answer
            .launch_template()
            .map(|t| output(t, None))
            .ok_or_else(|| incomplete(CREATE, "template"))?;
        ctx.record_resource(KIND, &made.id).await?;
        Ok(made)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &LaunchTemplateInput,
        _: &Recorded,
    ) -> ActivityResult<Undo> {
        let clients = AwsClients::of(ctx)?;
        let Some(template) = find(&clients, &input.name).await? else { return Ok(Undo::NothingToDo) };
        if tags::owner_of_ec2(&ctx.marks(), template.tags()) != Owner::ThisRun {
            return Ok(Undo::NothingToDo);
        }
        let id = template.launch_template_id().map(str::to_owned);
        let call = clients.ec2().delete_launch_template().set_launch_template_id(id).send().await;
        none_if(call.map_err(|e| classify("ec2:DeleteLaunchTemplate", e)), NOT_FOUND)?;
        Ok(Undo::Undone)
    }

    fn describe(&self, input: &LaunchTemplateInput) -> String {
        format!("create launch template {} with security groups {}", input.name, input.groups().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_group_comes_first_and_none_twice() {
        let input = LaunchTemplateInput {
            name: "n".into(),
            cluster_security_group: Some("sg-c".into()),
            security_groups: vec!["sg-d".into(), "sg-c".into(), String::new()],
            disk_gb: 100,
        };
        assert_eq!(input.groups(), ["sg-c", "sg-d"]);
        let there = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        assert!(input.is_met_by(&there(&["sg-d", "sg-c"])));
        assert!(!input.is_met_by(&there(&["sg-d"])) && !input.is_met_by(&there(&[])));
        let marks =
            Marks { store: "s".into(), site: "l".into(), run: "r".into(), step: "x".into(), generation: 1 };
        let data = input.data(&marks);
        assert_eq!(data.security_group_ids(), ["sg-c", "sg-d"]);
        assert_eq!(
            data.block_device_mappings()[0]
                .ebs()
                .and_then(aws_sdk_ec2::types::LaunchTemplateEbsBlockDeviceRequest::volume_size),
            Some(100)
        );
        assert_eq!(data.tag_specifications().len(), 2);
    }
}
