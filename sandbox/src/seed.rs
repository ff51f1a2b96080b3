//! What is in the account before anything is run: a network, an instance, users with keys, buckets.
//!
//! Made in moto directly, so that it counts as nobody's calls. The seed of moto's random numbers is fixed first: every
//! world has the same ids.

use reqwest::Method;
use serde_json::Value;

use crate::aws::{Aws, REGION};
use crate::error::SandboxError;
use crate::xml::list;

/// Buckets of the shipped connections, and the one for Athena's results.
pub(crate) const BUCKETS: [&str; 3] =
    ["dssflow-sandbox-main", "dssflow-sandbox-finance", "dssflow-sandbox-athena"];

/// What was made.
#[derive(Debug, Clone)]
pub(crate) struct Seeded {
    pub(crate) vpc_id: String,
    pub(crate) subnets: Vec<String>,
    pub(crate) default_security_group: String,
    pub(crate) instance_security_group: String,
    pub(crate) instance_id: String,
    pub(crate) operator: Key,
    pub(crate) service: Key,
    pub(crate) main: Key,
    pub(crate) finance: Key,
}

/// An access key of a user.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) user_arn: String,
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("user_arn", &self.user_arn).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Fills a new emulator.
pub(crate) async fn seed(moto: &Aws) -> Result<Seeded, SandboxError> {
    moto.moto("/seed?a=20261123", &Value::Null).await?;
    let (vpc_id, subnets) = network(moto).await?;
    let in_vpc = [("Filter.1.Name", "vpc-id"), ("Filter.1.Value.1", vpc_id.as_str())];
    let groups = moto.query("ec2", "DescribeSecurityGroups", &in_vpc).await?;
    let default_security_group = list(&groups, &["securityGroupInfo"])
        .iter()
        .find(|group| group["groupName"] == "default")
        .map(|group| text(group, "groupId"))
        .unwrap_or_default();
    // AWS gives the default group a rule for its own members; moto does not.
    let own = [
        ("GroupId", default_security_group.as_str()),
        ("IpPermissions.1.IpProtocol", "-1"),
        ("IpPermissions.1.Groups.1.GroupId", &default_security_group),
    ];
    moto.query("ec2", "AuthorizeSecurityGroupIngress", &own).await?;
    let instance_security_group = instance_group(moto, &vpc_id).await?;
    let instance_id = instance(moto, &subnets[0], &instance_security_group).await?;
    for bucket in BUCKETS {
        let place = format!(
            "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>{REGION}\
             </LocationConstraint></CreateBucketConfiguration>"
        );
        moto.s3(Method::PUT, &format!("/{bucket}"), place).await?;
    }
    let allow = |actions: &str, resource: &str| {
        format!(
            "{{\"Version\":\"2012-10-17\",\"Statement\":[{{\"Effect\":\"Allow\",\"Action\":[{actions}],\"Resource\":\
             \"{resource}\"}}]}}"
        )
    };
    let data = "\"s3:*\",\"athena:*\",\"glue:*\"";
    Ok(Seeded {
        operator: user(moto, "platform-engineer", &allow("\"*\"", "*")).await?,
        // As eksctl needs it, which DSS runs as this user.
        service: user(
            moto,
            "dss-service",
            &allow(
                "\"eks:*\",\"ecr:*\",\"ec2:*\",\"cloudformation:*\",\"iam:*\",\"autoscaling:*\",\"ssm:GetParameter*\",\"kms:*\"",
                "*",
            ),
        )
        .await?,
        main: user(moto, "dss-s3-main", &allow(data, "*")).await?,
        finance: user(moto, "dss-s3-finance", &allow(data, "*")).await?,
        vpc_id,
        subnets,
        default_security_group,
        instance_security_group,
        instance_id,
    })
}

async fn network(moto: &Aws) -> Result<(String, Vec<String>), SandboxError> {
    let made = tagged(moto, "CreateVpc", "vpc", "dss-vpc", &[("CidrBlock", "10.0.0.0/16")]).await?;
    let vpc_id = text(&made["vpc"], "vpcId");
    for attribute in ["EnableDnsSupport.Value", "EnableDnsHostnames.Value"] {
        moto.query("ec2", "ModifyVpcAttribute", &[("VpcId", &vpc_id), (attribute, "true")]).await?;
    }
    let gateway = tagged(moto, "CreateInternetGateway", "internet-gateway", "dss-igw", &[]).await?;
    let gateway = text(&gateway["internetGateway"], "internetGatewayId");
    let attach = [("InternetGatewayId", gateway.as_str()), ("VpcId", &vpc_id)];
    moto.query("ec2", "AttachInternetGateway", &attach).await?;
    let table = tagged(moto, "CreateRouteTable", "route-table", "dss-public", &[("VpcId", &vpc_id)]).await?;
    let table = text(&table["routeTable"], "routeTableId");
    let route =
        [("RouteTableId", table.as_str()), ("DestinationCidrBlock", "0.0.0.0/0"), ("GatewayId", &gateway)];
    moto.query("ec2", "CreateRoute", &route).await?;
    let mut subnets = Vec::new();
    for (name, zone, cidr) in [
        ("dss-public-a", "eu-west-1a", "10.0.1.0/24"),
        ("dss-public-b", "eu-west-1b", "10.0.2.0/24"),
        ("dss-public-a2", "eu-west-1a", "10.0.3.0/24"),
    ] {
        let params = [("VpcId", vpc_id.as_str()), ("CidrBlock", cidr), ("AvailabilityZone", zone)];
        let made = tagged(moto, "CreateSubnet", "subnet", name, &params).await?;
        let subnet = text(&made["subnet"], "subnetId");
        let public = [("SubnetId", subnet.as_str()), ("MapPublicIpOnLaunch.Value", "true")];
        moto.query("ec2", "ModifySubnetAttribute", &public).await?;
        let route = [("RouteTableId", table.as_str()), ("SubnetId", &subnet)];
        moto.query("ec2", "AssociateRouteTable", &route).await?;
        subnets.push(subnet);
    }
    Ok((vpc_id, subnets))
}

/// The group the instance has at first; not the default one, so that the bootstrap has something to do.
async fn instance_group(moto: &Aws, vpc_id: &str) -> Result<String, SandboxError> {
    let params =
        [("GroupName", "dss-host"), ("GroupDescription", "SSH and HTTPS to the DSS host"), ("VpcId", vpc_id)];
    let made = tagged(moto, "CreateSecurityGroup", "security-group", "dss-host", &params).await?;
    let group = text(&made, "groupId");
    for port in ["22", "443"] {
        let rule = [
            ("GroupId", group.as_str()),
            ("IpPermissions.1.IpProtocol", "tcp"),
            ("IpPermissions.1.FromPort", port),
            ("IpPermissions.1.ToPort", port),
            ("IpPermissions.1.IpRanges.1.CidrIp", "10.0.0.0/8"),
        ];
        moto.query("ec2", "AuthorizeSecurityGroupIngress", &rule).await?;
    }
    Ok(group)
}

async fn instance(moto: &Aws, subnet: &str, group: &str) -> Result<String, SandboxError> {
    let image = [
        ("Name", "AlmaLinux OS 8.10 x86_64"),
        ("Description", "AlmaLinux OS 8.10 (sandbox)"),
        ("Architecture", "x86_64"),
        ("RootDeviceName", "/dev/xvda"),
        ("VirtualizationType", "hvm"),
        ("BlockDeviceMapping.1.DeviceName", "/dev/xvda"),
        ("BlockDeviceMapping.1.Ebs.VolumeSize", "200"),
    ];
    let image = moto.query("ec2", "RegisterImage", &image).await?;
    let image = text(&image, "imageId");
    let params = [
        ("ImageId", image.as_str()),
        ("InstanceType", "m7i.2xlarge"),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("SubnetId", subnet),
        ("SecurityGroupId.1", group),
        ("BlockDeviceMapping.1.DeviceName", "/dev/xvda"),
        ("BlockDeviceMapping.1.Ebs.VolumeSize", "200"),
        ("BlockDeviceMapping.1.Ebs.VolumeType", "gp3"),
    ];
    let made = tagged(moto, "RunInstances", "instance", "dss-host", &params).await?;
    let instances = list(&made, &["instancesSet"]);
    Ok(instances.first().map(|instance| text(instance, "instanceId")).unwrap_or_default())
}

async fn user(moto: &Aws, name: &str, policy: &str) -> Result<Key, SandboxError> {
    let made = moto.query("iam", "CreateUser", &[("UserName", name)]).await?;
    let put = [("UserName", name), ("PolicyName", "sandbox"), ("PolicyDocument", policy)];
    moto.query("iam", "PutUserPolicy", &put).await?;
    let key = moto.query("iam", "CreateAccessKey", &[("UserName", name)]).await?;
    Ok(Key {
        user_arn: text(&made["User"], "Arn"),
        id: text(&key["AccessKey"], "AccessKeyId"),
        secret: text(&key["AccessKey"], "SecretAccessKey"),
    })
}

/// A creation in EC2 with a `Name` tag.
async fn tagged(
    moto: &Aws,
    action: &str,
    kind: &str,
    name: &str,
    params: &[(&str, &str)],
) -> Result<Value, SandboxError> {
    let mut params = params.to_vec();
    params.push(("TagSpecification.1.ResourceType", kind));
    params.push(("TagSpecification.1.Tag.1.Key", "Name"));
    params.push(("TagSpecification.1.Tag.1.Value", name));
    moto.query("ec2", action, &params).await
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}
