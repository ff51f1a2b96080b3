//! The service user: it pushes images by the `aws` client and docker, and makes clusters by eksctl.
//!
//! What these tools call is theirs to decide. With the EKS plugin the list is the one Dataiku publishes for the same job
//! in its Cloud Stacks, less what only Cloud Stacks needs; eksctl's own page agrees with it. When dssflow makes the
//! cluster, the service user only attaches to it.
//!
//! Pages: <https://doc.dataiku.com/dss/latest/installation/cloudstacks-aws/guided-setup-new-vpc-elastic-compute.html>,
//! <https://eksctl.io/usage/minimum-iam-policies/>

use super::{Arns, Conditions, Permission, Principal, actions, condition, role_of};
use crate::site::{ClusterMode, Site};

pub(super) fn needed(site: &Site) -> Vec<Permission> {
    let arns = Arns::of(site);
    let on = |actions: Vec<String>, resources: Vec<String>, why: &str| Permission {
        principal: Principal::ServiceUser,
        actions,
        resources,
        conditions: Conditions::new(),
        why: why.to_owned(),
    };
    let all = || vec!["*".to_owned()];
    let images = "push images to ECR";
    let repository = site.ecr.prefix.as_ref().map_or("dku-*".to_owned(), |prefix| format!("{prefix}/*"));
    let mut needed = vec![
        on(actions("ecr", &["GetAuthorizationToken", "DescribeRepositories"]), all(), images),
        on(
            actions(
                "ecr",
                &[
                    "BatchCheckLayerAvailability",
                    "BatchGetImage",
                    "CompleteLayerUpload",
                    "CreateRepository",
                    "DescribeImages",
                    "GetDownloadUrlForLayer",
                    "InitiateLayerUpload",
                    "PutImage",
                    "TagResource",
                    "UploadLayerPart",
                ],
            ),
            vec![arns.regional("ecr", &format!("repository/{repository}"))],
            images,
        ),
    ];
    match site.cluster.mode {
        ClusterMode::DssPlugin => needed.extend(eksctl(arns, on)),
        ClusterMode::Sdk => needed.push(on(
            actions("eks", &["DescribeCluster", "DescribeNodegroup", "ListNodegroups"]),
            vec![
                arns.regional("eks", &format!("cluster/{}", site.cluster.name)),
                arns.regional("eks", &format!("nodegroup/{}/*", site.cluster.name)),
            ],
            "attach to the cluster that dssflow made",
        )),
    }
    let roles: Vec<String> = site
        .connections
        .iter()
        .filter_map(|c| role_of(site, &c.credentials))
        .chain(site.service_credentials.as_ref().and_then(|set| role_of(site, set)))
        .map(str::to_owned)
        .collect();
    if !roles.is_empty() {
        needed.push(on(actions("sts", &["AssumeRole"]), roles, "roles of S3 connections, which DSS assumes"));
    }
    needed
}

/// The EKS plugin's work.
fn eksctl(arns: Arns<'_>, on: impl Fn(Vec<String>, Vec<String>, &str) -> Permission) -> Vec<Permission> {
    let all = || vec!["*".to_owned()];
    let why = "make and manage EKS clusters by eksctl";
    let public = format!("arn:{}:ssm:{}::parameter/aws/*", arns.partition(), arns.region);
    let mut linked = on(
        actions("iam", &["CreateServiceLinkedRole"]),
        vec![arns.iam("role/aws-service-role/*")],
        "service-linked roles of EKS",
    );
    let services = ["eks.amazonaws.com", "eks-nodegroup.amazonaws.com", "eks-fargate.amazonaws.com"];
    linked.conditions = condition("StringLike", "iam:AWSServiceName", &services);
    vec![
        on(actions("cloudformation", &["*"]), all(), why),
        on(actions("ec2", &["*"]), all(), why),
        on(actions("eks", &["*"]), all(), "full control of EKS"),
        on(actions("kms", &["CreateGrant", "DescribeKey"]), all(), "encrypted disks of nodes"),
        on(
            actions("ssm", &["GetParameter", "GetParameters"]),
            vec![public, arns.regional("ssm", "parameter/aws/*")],
            "the images of nodes",
        ),
        on(
            actions(
                "autoscaling",
                &["DescribeAutoScalingGroups", "DescribeLaunchConfigurations", "DescribeScalingActivities"],
            ),
            all(),
            why,
        ),
        on(
            actions(
                "autoscaling",
                &["CreateAutoScalingGroup", "DeleteAutoScalingGroup", "UpdateAutoScalingGroup"],
            ),
            vec![arns.regional("autoscaling", "autoScalingGroup:*:autoScalingGroupName/*")],
            why,
        ),
        on(actions("iam", &["GetRole"]), vec![arns.iam("role/*")], why),
        on(
            actions(
                "iam",
                &[
                    "AddRoleToInstanceProfile",
                    "AttachRolePolicy",
                    "CreateInstanceProfile",
                    "CreateOpenIDConnectProvider",
                    "CreateRole",
                    "DeleteInstanceProfile",
                    "DeleteOpenIDConnectProvider",
                    "DeleteRole",
                    "DeleteRolePolicy",
                    "DetachRolePolicy",
                    "GetInstanceProfile",
                    "GetOpenIDConnectProvider",
                    "GetRole",
                    "GetRolePolicy",
                    "ListAttachedRolePolicies",
                    "ListInstanceProfiles",
                    "ListInstanceProfilesForRole",
                    "PassRole",
                    "PutRolePolicy",
                    "RemoveRoleFromInstanceProfile",
                    "TagRole",
                ],
            ),
            vec![
                arns.iam("instance-profile/eksctl-*"),
                arns.iam("oidc-provider/*"),
                arns.iam(
                    "role/aws-service-role/eks-nodegroup.amazonaws.com/AWSServiceRoleForAmazonEKSNodegroup",
                ),
                arns.iam("role/eksctl-*"),
            ],
            "roles of the cluster and its nodes",
        ),
        linked,
    ]
}
