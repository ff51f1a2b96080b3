//! Operations that can be named in a script of faults, so that a name nobody ever calls is noticed.
//!
//! EKS and S3 are told by method and path and hence known whole; of other services the operations dssflow and its
//! fakes use are listed, and others are let through. Routes of DSS are told by their beginning.

/// Services whose calls the proxy tells apart, by their signing names.
pub(super) const SERVICES: [&str; 20] = [
    "account",
    "athena",
    "autoscaling",
    "cloudformation",
    "cloudtrail",
    "ec2",
    "ecr",
    "eks",
    "elasticloadbalancing",
    "glue",
    "iam",
    "kms",
    "lakeformation",
    "logs",
    "organizations",
    "s3",
    "secretsmanager",
    "servicequotas",
    "ssm",
    "sts",
];

/// Every operation of EKS that the proxy tells.
const EKS: [&str; 33] = [
    "AssociateAccessPolicy",
    "CreateAccessEntry",
    "CreateAddon",
    "CreateCluster",
    "CreateNodegroup",
    "DeleteAccessEntry",
    "DeleteAddon",
    "DeleteCluster",
    "DeleteNodegroup",
    "DescribeAccessEntry",
    "DescribeAddon",
    "DescribeAddonVersions",
    "DescribeCluster",
    "DescribeClusterVersions",
    "DescribeNodegroup",
    "DescribeUpdate",
    "DisassociateAccessPolicy",
    "ListAccessEntries",
    "ListAccessPolicies",
    "ListAddons",
    "ListAssociatedAccessPolicies",
    "ListClusters",
    "ListNodegroups",
    "ListTagsForResource",
    "ListUpdates",
    "TagResource",
    "UntagResource",
    "UpdateAccessEntry",
    "UpdateAddon",
    "UpdateClusterConfig",
    "UpdateClusterVersion",
    "UpdateNodegroupConfig",
    "UpdateNodegroupVersion",
];

/// Every operation of S3 that the proxy tells.
const S3: [&str; 18] = [
    "CopyObject",
    "CreateBucket",
    "DeleteBucket",
    "DeleteBucket*",
    "DeleteObject",
    "DeleteObject*",
    "DeleteObjects",
    "GetBucket*",
    "GetObject",
    "GetObject*",
    "HeadBucket",
    "HeadObject",
    "ListBuckets",
    "ListObjects",
    "PostObject",
    "PutBucket*",
    "PutObject",
    "PutObject*",
];

/// What is used of the others, to suggest what was meant.
const USED: [&str; 65] = [
    "athena:GetQueryExecution",
    "athena:GetQueryResults",
    "athena:GetWorkGroup",
    "athena:StartQueryExecution",
    "athena:StopQueryExecution",
    "cloudformation:CreateStack",
    "cloudformation:DeleteStack",
    "cloudformation:DescribeStackResource",
    "cloudformation:DescribeStacks",
    "ec2:AuthorizeSecurityGroupIngress",
    "ec2:CreateLaunchTemplate",
    "ec2:CreateTags",
    "ec2:DeleteLaunchTemplate",
    "ec2:DescribeImages",
    "ec2:DescribeInstances",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "ec2:ImportKeyPair",
    "ec2:ModifyInstanceAttribute",
    "ec2:RunInstances",
    "ec2:TerminateInstances",
    "ecr:BatchDeleteImage",
    "ecr:BatchGetImage",
    "ecr:CreateRepository",
    "ecr:DeleteRepository",
    "ecr:DescribeImages",
    "ecr:DescribeRepositories",
    "ecr:GetAuthorizationToken",
    "ecr:ListTagsForResource",
    "ecr:PutImage",
    "glue:BatchCreatePartition",
    "glue:BatchDeletePartition",
    "glue:BatchGetPartition",
    "glue:BatchUpdatePartition",
    "glue:CreateDatabase",
    "glue:CreateTable",
    "glue:DeleteDatabase",
    "glue:GetDatabase",
    "glue:GetPartitions",
    "glue:GetTable",
    "glue:GetTables",
    "glue:UpdateDatabase",
    "glue:UpdateTable",
    "iam:AttachRolePolicy",
    "iam:CreateRole",
    "iam:CreateServiceLinkedRole",
    "iam:DeleteRole",
    "iam:DetachRolePolicy",
    "iam:GetRole",
    "iam:ListAttachedRolePolicies",
    "iam:ListRoleTags",
    "iam:TagRole",
    "secretsmanager:CreateSecret",
    "secretsmanager:DeleteSecret",
    "secretsmanager:GetSecretValue",
    "secretsmanager:PutSecretValue",
    "ssm:GetParameter",
    "ssm:PutParameter",
    "sts:AssumeRole",
    "sts:GetCallerIdentity",
];

/// Calls to AWS that put something into a state that passes.
pub(super) const STATEFUL: [&str; 9] = [
    "cloudformation:DeleteStack",
    "ec2:RunInstances",
    "ec2:TerminateInstances",
    "eks:CreateAddon",
    "eks:CreateCluster",
    "eks:CreateNodegroup",
    "eks:DeleteAddon",
    "eks:DeleteCluster",
    "eks:DeleteNodegroup",
];

/// Routes of DSS that put something into a state that passes.
pub(super) const DSS_STATEFUL: [&str; 4] =
    ["* /admin/clusters*", "* /admin/container-exec/actions/*", "* /plugins/*", "* /admin/code-envs*"];

/// Beginnings of the routes of DSS, below the base path.
pub(super) const DSS: [&str; 12] = [
    "* /admin/*",
    "* /auth/info*",
    "* /connections/*",
    "* /dip/*",
    "* /futures*",
    "* /instance-info*",
    "* /jobs*",
    "* /login*",
    "* /plugins*",
    "* /projects*",
    "* /sql/*",
    "* /workspaces*",
];

/// Every operation known of AWS, as `service:Operation`; some are globs.
pub(super) fn aws() -> impl Iterator<Item = String> {
    let eks = EKS.iter().map(|op| format!("eks:{op}"));
    let s3 = S3.iter().map(|op| format!("s3:{op}"));
    eks.chain(s3).chain(USED.iter().map(|op| (*op).to_owned()))
}

/// Whether all operations of a service are known.
pub(super) fn is_whole(service: &str) -> bool {
    matches!(service, "eks" | "s3")
}
