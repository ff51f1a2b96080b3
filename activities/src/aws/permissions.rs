//! Which calls each activity makes to AWS, and which IAM actions each call asks for.
//!
//! Two tables, kept by hand and held to the truth by tests: a call that stands in the code and not here breaks this
//! module's own test, and the bootstrap's test compares the tables with what was called in the sandbox. An action is
//! mostly called like its operation; where it is not, or where AWS asks for a further right on the caller's behalf
//! (`iam:PassRole` for the role a cluster gets, tagging for what is made with tags), the table says so.
//!
//! It knows no site: [`On`] names a kind of thing, and whoever writes a policy puts ARNs in its place.
//!
//! Page: <https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html>

/// What a right is needed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum On {
    /// Everything: the action knows no narrower resource, or it lists.
    All,
    /// The site's EKS cluster.
    Cluster,
    /// Every EKS cluster: a search asks each for its tags.
    Clusters,
    /// Node groups of the cluster.
    NodeGroups,
    /// Add-ons of the cluster.
    Addons,
    /// Access entries of the cluster.
    AccessEntries,
    /// The repositories of DSS's images.
    Repositories,
    /// The site's Glue databases with all in them.
    Databases,
    /// The roles of the cluster and its nodes, made or given.
    Roles,
    /// The roles of the cluster and its nodes, as far as dssflow makes them.
    OwnRoles,
    /// The roles that eksctl makes.
    EksctlRoles,
    /// Service-linked roles of EKS.
    LinkedRoles,
    /// Launch templates.
    LaunchTemplates,
    /// The instance DSS runs on.
    Instance,
    /// Every instance.
    Instances,
    /// The key pairs that dssflow imports.
    KeyPairs,
    /// The role in the instance profile of a host that is launched, whose name the site does not tell.
    ProfileRole,
    /// Security groups.
    SecurityGroups,
    /// Network interfaces.
    NetworkInterfaces,
    /// Stacks of eksctl for the cluster.
    Stacks,
    /// The buckets of the connections.
    Buckets,
    /// What lies in them below the connections' paths.
    Objects,
    /// Athena workgroups of the connections.
    Workgroups,
}

/// Under which condition a right is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Only {
    /// The thing carries the site's mark as a tag.
    Marked,
    /// The role is passed to this service.
    PassedTo(&'static str),
    /// Tags are put on while this EC2 call creates the thing.
    CreatedBy(&'static str),
    /// The service-linked role is of one of these services.
    LinkedTo(&'static [&'static str]),
}

/// One IAM action that a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The action, as `eks:CreateCluster`.
    pub action: &'static str,
    /// On what.
    pub on: On,
    /// Under which condition.
    pub only: Option<Only>,
}

const fn need(action: &'static str, on: On) -> Need {
    Need { action, on, only: None }
}

const fn if_ours(action: &'static str, on: On) -> Need {
    Need { action, on, only: Some(Only::Marked) }
}

const fn pass_role(on: On, service: &'static str) -> Need {
    Need { action: "iam:PassRole", on, only: Some(Only::PassedTo(service)) }
}

const fn tag_new(operation: &'static str, on: On) -> Need {
    Need { action: "ec2:CreateTags", on, only: Some(Only::CreatedBy(operation)) }
}

/// The services of EKS that have a service-linked role.
const LINKED: &[&str] = &["eks.amazonaws.com", "eks-nodegroup.amazonaws.com"];

/// Every operation that is called, with the actions it asks for.
const OPERATIONS: &[(&str, &[Need])] = &[
    ("athena:GetQueryExecution", &[need("athena:GetQueryExecution", On::Workgroups)]),
    ("athena:GetWorkGroup", &[need("athena:GetWorkGroup", On::Workgroups)]),
    ("athena:GetQueryResults", &[need("athena:GetQueryResults", On::Workgroups)]),
    ("athena:StartQueryExecution", &[need("athena:StartQueryExecution", On::Workgroups)]),
    ("athena:StopQueryExecution", &[need("athena:StopQueryExecution", On::Workgroups)]),
    (
        // CloudFormation deletes what is in the stack with the caller's rights.
        "cloudformation:DeleteStack",
        &[
            if_ours("cloudformation:DeleteStack", On::Stacks),
            if_ours("ec2:DeleteLaunchTemplate", On::LaunchTemplates),
            if_ours("ec2:DeleteSecurityGroup", On::SecurityGroups),
            if_ours("ec2:RevokeSecurityGroupEgress", On::SecurityGroups),
            if_ours("ec2:RevokeSecurityGroupIngress", On::SecurityGroups),
            if_ours("eks:DeleteCluster", On::Cluster),
            need("eks:DescribeCluster", On::Clusters),
            if_ours("eks:DeleteNodegroup", On::NodeGroups),
            need("eks:DescribeNodegroup", On::NodeGroups),
            if_ours("iam:DeleteRole", On::EksctlRoles),
            if_ours("iam:DeleteRolePolicy", On::EksctlRoles),
            if_ours("iam:DetachRolePolicy", On::EksctlRoles),
            need("iam:GetRole", On::EksctlRoles),
        ],
    ),
    ("cloudformation:DescribeStacks", &[need("cloudformation:DescribeStacks", On::All)]),
    (
        "ec2:CreateLaunchTemplate",
        &[
            need("ec2:CreateLaunchTemplate", On::LaunchTemplates),
            tag_new("CreateLaunchTemplate", On::LaunchTemplates),
        ],
    ),
    ("ec2:CreateLaunchTemplateVersion", &[if_ours("ec2:CreateLaunchTemplateVersion", On::LaunchTemplates)]),
    ("ec2:DeleteLaunchTemplate", &[if_ours("ec2:DeleteLaunchTemplate", On::LaunchTemplates)]),
    ("ec2:DeleteKeyPair", &[if_ours("ec2:DeleteKeyPair", On::KeyPairs)]),
    ("ec2:DescribeImages", &[need("ec2:DescribeImages", On::All)]),
    ("ec2:DescribeInstanceTypes", &[need("ec2:DescribeInstanceTypes", On::All)]),
    ("ec2:DescribeInstances", &[need("ec2:DescribeInstances", On::All)]),
    ("ec2:DescribeKeyPairs", &[need("ec2:DescribeKeyPairs", On::All)]),
    ("ec2:DescribeLaunchTemplateVersions", &[need("ec2:DescribeLaunchTemplateVersions", On::All)]),
    ("ec2:DescribeLaunchTemplates", &[need("ec2:DescribeLaunchTemplates", On::All)]),
    ("ec2:DescribeNatGateways", &[need("ec2:DescribeNatGateways", On::All)]),
    ("ec2:DescribeNetworkInterfaces", &[need("ec2:DescribeNetworkInterfaces", On::All)]),
    ("ec2:DescribeRouteTables", &[need("ec2:DescribeRouteTables", On::All)]),
    ("ec2:DescribeSecurityGroups", &[need("ec2:DescribeSecurityGroups", On::All)]),
    ("ec2:DescribeSubnets", &[need("ec2:DescribeSubnets", On::All)]),
    ("ec2:DescribeTags", &[need("ec2:DescribeTags", On::All)]),
    ("ec2:DescribeVolumes", &[need("ec2:DescribeVolumes", On::All)]),
    ("ec2:DescribeVpcEndpoints", &[need("ec2:DescribeVpcEndpoints", On::All)]),
    ("ec2:GetConsoleOutput", &[need("ec2:GetConsoleOutput", On::Instances)]),
    ("ec2:ImportKeyPair", &[need("ec2:ImportKeyPair", On::KeyPairs), tag_new("ImportKeyPair", On::KeyPairs)]),
    (
        "ec2:ModifyInstanceAttribute",
        &[
            need("ec2:ModifyInstanceAttribute", On::Instance),
            need("ec2:ModifyInstanceAttribute", On::SecurityGroups),
        ],
    ),
    ("ec2:ModifyInstanceMetadataOptions", &[need("ec2:ModifyInstanceMetadataOptions", On::Instance)]),
    (
        "ec2:ModifyNetworkInterfaceAttribute",
        &[
            need("ec2:ModifyNetworkInterfaceAttribute", On::NetworkInterfaces),
            need("ec2:ModifyNetworkInterfaceAttribute", On::SecurityGroups),
        ],
    ),
    (
        // On image, subnet, groups, key, disk and interface as well as on the instance.
        "ec2:RunInstances",
        &[
            need("ec2:RunInstances", On::All),
            tag_new("RunInstances", On::All),
            pass_role(On::ProfileRole, "ec2.amazonaws.com"),
        ],
    ),
    ("ec2:TerminateInstances", &[if_ours("ec2:TerminateInstances", On::Instances)]),
    ("ecr:BatchDeleteImage", &[if_ours("ecr:BatchDeleteImage", On::Repositories)]),
    ("ecr:BatchGetImage", &[need("ecr:BatchGetImage", On::Repositories)]),
    (
        "ecr:CreateRepository",
        &[need("ecr:CreateRepository", On::Repositories), need("ecr:TagResource", On::Repositories)],
    ),
    ("ecr:DeleteRepository", &[if_ours("ecr:DeleteRepository", On::Repositories)]),
    ("ecr:DescribeImages", &[need("ecr:DescribeImages", On::Repositories)]),
    ("ecr:DescribeRepositories", &[need("ecr:DescribeRepositories", On::All)]),
    (
        // What Docker then does with the token it does as us.
        "ecr:GetAuthorizationToken",
        &[
            need("ecr:GetAuthorizationToken", On::All),
            need("ecr:BatchCheckLayerAvailability", On::Repositories),
            need("ecr:CompleteLayerUpload", On::Repositories),
            need("ecr:InitiateLayerUpload", On::Repositories),
            need("ecr:PutImage", On::Repositories),
            need("ecr:UploadLayerPart", On::Repositories),
        ],
    ),
    ("ecr:ListImages", &[need("ecr:ListImages", On::Repositories)]),
    ("ecr:ListTagsForResource", &[need("ecr:ListTagsForResource", On::All)]),
    ("ecr:PutImage", &[need("ecr:PutImage", On::Repositories)]),
    ("eks:AssociateAccessPolicy", &[need("eks:AssociateAccessPolicy", On::AccessEntries)]),
    (
        "eks:CreateAccessEntry",
        &[
            need("eks:CreateAccessEntry", On::Cluster),
            need("eks:TagResource", On::Cluster),
            need("eks:TagResource", On::AccessEntries),
        ],
    ),
    (
        "eks:CreateAddon",
        &[
            need("eks:CreateAddon", On::Cluster),
            need("eks:TagResource", On::Cluster),
            need("eks:TagResource", On::Addons),
        ],
    ),
    (
        "eks:CreateCluster",
        &[
            need("eks:CreateCluster", On::Cluster),
            need("eks:TagResource", On::Cluster),
            pass_role(On::Roles, "eks.amazonaws.com"),
        ],
    ),
    (
        // EKS tries the launch template with the caller's rights before it makes the group.
        "eks:CreateNodegroup",
        &[
            need("eks:CreateNodegroup", On::Cluster),
            need("eks:TagResource", On::Cluster),
            need("eks:TagResource", On::NodeGroups),
            need("ec2:RunInstances", On::All),
            tag_new("RunInstances", On::All),
            need("iam:GetRole", On::Roles),
            need("iam:ListAttachedRolePolicies", On::Roles),
            pass_role(On::Roles, "eks.amazonaws.com"),
        ],
    ),
    ("eks:DeleteAccessEntry", &[if_ours("eks:DeleteAccessEntry", On::AccessEntries)]),
    ("eks:DeleteAddon", &[if_ours("eks:DeleteAddon", On::Addons)]),
    ("eks:DeleteCluster", &[if_ours("eks:DeleteCluster", On::Cluster)]),
    ("eks:DeleteNodegroup", &[if_ours("eks:DeleteNodegroup", On::NodeGroups)]),
    ("eks:DescribeAccessEntry", &[need("eks:DescribeAccessEntry", On::AccessEntries)]),
    ("eks:DescribeAddon", &[need("eks:DescribeAddon", On::Addons)]),
    ("eks:DescribeCluster", &[need("eks:DescribeCluster", On::Clusters)]),
    ("eks:DescribeClusterVersions", &[need("eks:DescribeClusterVersions", On::All)]),
    ("eks:DescribeNodegroup", &[need("eks:DescribeNodegroup", On::NodeGroups)]),
    ("eks:DisassociateAccessPolicy", &[if_ours("eks:DisassociateAccessPolicy", On::AccessEntries)]),
    ("eks:ListAccessEntries", &[need("eks:ListAccessEntries", On::Cluster)]),
    ("eks:ListAssociatedAccessPolicies", &[need("eks:ListAssociatedAccessPolicies", On::AccessEntries)]),
    ("eks:ListClusters", &[need("eks:ListClusters", On::All)]),
    ("glue:BatchCreatePartition", &[need("glue:BatchCreatePartition", On::Databases)]),
    ("glue:BatchDeletePartition", &[need("glue:BatchDeletePartition", On::Databases)]),
    ("glue:BatchGetPartition", &[need("glue:BatchGetPartition", On::Databases)]),
    ("glue:BatchUpdatePartition", &[need("glue:BatchUpdatePartition", On::Databases)]),
    (
        "glue:CreateDatabase",
        &[need("glue:CreateDatabase", On::Databases), need("glue:TagResource", On::Databases)],
    ),
    ("glue:CreateTable", &[need("glue:CreateTable", On::Databases)]),
    // Glue's databases know no condition on tags; the ownership is proven by the activity before it deletes.
    ("glue:DeleteDatabase", &[need("glue:DeleteDatabase", On::Databases)]),
    // Nor do tables: the smoke test deletes one only while it points into its own project, a resync only with marks.
    ("glue:DeleteTable", &[need("glue:DeleteTable", On::Databases)]),
    ("glue:GetDatabase", &[need("glue:GetDatabase", On::Databases)]),
    ("glue:GetDatabases", &[need("glue:GetDatabases", On::All)]),
    ("glue:GetPartitions", &[need("glue:GetPartitions", On::Databases)]),
    ("glue:GetTable", &[need("glue:GetTable", On::Databases)]),
    ("glue:GetTables", &[need("glue:GetTables", On::Databases)]),
    ("glue:UpdateTable", &[need("glue:UpdateTable", On::Databases)]),
    ("iam:AttachRolePolicy", &[if_ours("iam:AttachRolePolicy", On::OwnRoles)]),
    ("iam:CreateRole", &[need("iam:CreateRole", On::OwnRoles), need("iam:TagRole", On::OwnRoles)]),
    (
        "iam:CreateServiceLinkedRole",
        &[Need {
            action: "iam:CreateServiceLinkedRole",
            on: On::LinkedRoles,
            only: Some(Only::LinkedTo(LINKED)),
        }],
    ),
    ("iam:DeleteRole", &[if_ours("iam:DeleteRole", On::OwnRoles)]),
    ("iam:DetachRolePolicy", &[if_ours("iam:DetachRolePolicy", On::OwnRoles)]),
    ("iam:GetAccountSummary", &[need("iam:GetAccountSummary", On::All)]),
    ("iam:GetRole", &[need("iam:GetRole", On::Roles)]),
    ("iam:ListAccountAliases", &[need("iam:ListAccountAliases", On::All)]),
    ("iam:ListAttachedRolePolicies", &[need("iam:ListAttachedRolePolicies", On::Roles)]),
    ("iam:ListRoles", &[need("iam:ListRoles", On::All)]),
    ("iam:SimulatePrincipalPolicy", &[need("iam:SimulatePrincipalPolicy", On::All)]),
    ("lakeformation:GetDataLakeSettings", &[need("lakeformation:GetDataLakeSettings", On::All)]),
    ("lakeformation:ListPermissions", &[need("lakeformation:ListPermissions", On::All)]),
    ("servicequotas:GetAWSDefaultServiceQuota", &[need("servicequotas:GetAWSDefaultServiceQuota", On::All)]),
    ("servicequotas:GetServiceQuota", &[need("servicequotas:GetServiceQuota", On::All)]),
    // One by one, and only below the path of a smoke test's project.
    ("s3:DeleteObject", &[need("s3:DeleteObject", On::Objects)]),
    // A look at a bucket is the right to list it.
    ("s3:HeadBucket", &[need("s3:ListBucket", On::Buckets)]),
    ("s3:ListObjectsV2", &[need("s3:ListBucket", On::Buckets)]),
    // Everybody may ask who he is; no policy can take that away.
    ("sts:GetCallerIdentity", &[]),
];

/// The actions an operation asks for; `None` for one that dssflow is not known to call.
pub fn needs(operation: &str) -> Option<&'static [Need]> {
    OPERATIONS.iter().find(|(name, _)| *name == operation).map(|(_, needs)| *needs)
}

/// The calls of an activity.
#[derive(Debug, Clone, Copy)]
pub struct Calls {
    /// The activity's registered name.
    pub activity: &'static str,
    /// Those that a run and its rollback make when all goes well.
    pub always: &'static [&'static str],
    /// Those that belong to some worlds or to trouble, each with when.
    pub sometimes: &'static [(&'static str, &'static str)],
}

const fn calls(
    activity: &'static str,
    always: &'static [&'static str],
    sometimes: &'static [(&'static str, &'static str)],
) -> Calls {
    Calls { activity, always, sometimes }
}

/// Stands among the activities for the looks before a run, which are made by no step.
pub const LOOK_BEFORE: &str = "preflight";
const BLOCKED: &str = "when something hangs on what is deleted";
const LEFT: &str = "when DSS leaves something of a smoke test's dataset behind";
const TAKEN_BACK: &str = "when a smoke test is taken back";
const NO_JOIN: &str = "when nodes do not join";
const PARTITIONED: &str = "when a dataset has partitions";
const DIRECT: &str = "when dssflow itself mends";
const ORPHANED: &str = "when a table's dataset is gone";
const WATCH_CLUSTER: &[&str] = &["eks:DescribeCluster"];

/// The calls of every activity that makes any.
const ACTIVITIES: &[Calls] = &[
    calls(
        super::access_entry::NAME,
        &[
            "eks:DescribeAccessEntry",
            "eks:ListAssociatedAccessPolicies",
            "eks:CreateAccessEntry",
            "eks:AssociateAccessPolicy",
            "eks:DeleteAccessEntry",
        ],
        &[("eks:DisassociateAccessPolicy", "when the principal had an access entry before")],
    ),
    calls(super::addon::NAME, &["eks:DescribeAddon", "eks:CreateAddon", "eks:DeleteAddon"], &[]),
    calls(super::addon::wait::NAME, &["eks:DescribeAddon"], &[]),
    calls(
        super::athena_query::NAME,
        &["athena:StartQueryExecution", "athena:GetQueryExecution", "athena:GetQueryResults"],
        &[("athena:StopQueryExecution", "when the query is cancelled")],
    ),
    calls(super::bucket::NAME, &["s3:HeadBucket"], &[]),
    calls(
        super::cluster::NAME,
        &["eks:DescribeCluster", "eks:CreateCluster", "eks:DeleteCluster", "ec2:DescribeSecurityGroups"],
        &[("ec2:DescribeNetworkInterfaces", BLOCKED)],
    ),
    calls(super::cluster::wait::NAME, WATCH_CLUSTER, &[]),
    calls(
        super::default_sg::NAME,
        &["ec2:DescribeInstances", "ec2:DescribeSecurityGroups"],
        &[
            ("ec2:ModifyInstanceAttribute", "when the instance has not the VPC's default security group"),
            ("ec2:ModifyNetworkInterfaceAttribute", "when such an instance has several network interfaces"),
        ],
    ),
    calls(
        super::glue_database::NAME,
        &["glue:GetDatabase", "glue:CreateDatabase", "glue:GetTables", "glue:DeleteDatabase"],
        &[],
    ),
    calls(
        super::identity::NAME,
        &[
            "sts:GetCallerIdentity",
            "cloudformation:DescribeStacks",
            "ec2:DescribeTags",
            "ecr:DescribeRepositories",
            "eks:ListClusters",
            "glue:GetDatabases",
            "iam:ListRoles",
        ],
        &[
            ("ec2:DescribeInstances", "when tags of an instance outlive it"),
            ("ec2:DescribeKeyPairs", "when tags of a key pair outlive it"),
            ("ec2:DescribeLaunchTemplates", "when tags of a launch template outlive it"),
            ("ec2:DescribeVolumes", "when tags of a disk outlive it"),
            ("ecr:ListTagsForResource", "when the account has repositories"),
            ("eks:DescribeCluster", "when the account has other clusters"),
            ("glue:GetTables", "when a database of the run stays"),
            ("iam:GetRole", "when the account has other roles of dssflow"),
        ],
    ),
    calls(
        super::site_sweep::NAME,
        &[
            "cloudformation:DescribeStacks",
            "ec2:DescribeTags",
            "ecr:DescribeRepositories",
            "eks:ListClusters",
            "glue:GetDatabases",
            "iam:ListRoles",
        ],
        &[
            ("ec2:DescribeInstances", "when tags of an instance outlive it"),
            ("ec2:DescribeLaunchTemplates", "when tags of a launch template outlive it"),
            ("ec2:DescribeVolumes", "when tags of a disk outlive it"),
            ("ecr:ListTagsForResource", "when the account has repositories"),
            ("eks:DescribeCluster", "when the account has other clusters"),
            ("glue:GetTables", "when a database of the run stays"),
            ("iam:GetRole", "when the account has other roles of dssflow"),
        ],
    ),
    calls(super::identity::ACCOUNT, &["sts:GetCallerIdentity"], &[]),
    calls(crate::glue::inventory::NAME, &[], &[("glue:GetTables", "when no dataset is named")]),
    calls(
        crate::glue::page::COMPARE,
        &["glue:GetTable"],
        &[("glue:GetPartitions", PARTITIONED), ("s3:ListObjectsV2", PARTITIONED)],
    ),
    calls(
        crate::glue::page::SYNC,
        &["glue:GetTable"],
        &[("glue:GetPartitions", PARTITIONED), ("s3:ListObjectsV2", PARTITIONED)],
    ),
    calls(
        crate::glue::page::SYNC_DIRECT,
        &["glue:GetTable"],
        &[
            ("glue:BatchCreatePartition", DIRECT),
            ("glue:BatchDeletePartition", "when the resync may prune"),
            ("glue:BatchGetPartition", DIRECT),
            ("glue:BatchUpdatePartition", DIRECT),
            ("glue:CreateTable", DIRECT),
            ("glue:DeleteTable", "when the resync may prune"),
            ("glue:GetPartitions", PARTITIONED),
            ("glue:UpdateTable", DIRECT),
            ("s3:ListObjectsV2", PARTITIONED),
        ],
    ),
    calls(crate::glue::prune::NAME, &[], &[("glue:GetTable", ORPHANED), ("glue:DeleteTable", ORPHANED)]),
    calls(super::push_needed::NAME, &["ecr:BatchGetImage"], &[]),
    calls(super::images::NAME, &["ecr:DescribeImages"], &[]),
    calls(
        super::instance::NAME,
        &["ec2:DescribeInstances", "ec2:DescribeInstanceTypes", "ec2:DescribeSecurityGroups"],
        &[],
    ),
    calls(super::key_pair::NAME, &["ec2:DescribeKeyPairs", "ec2:ImportKeyPair", "ec2:DeleteKeyPair"], &[]),
    calls(
        super::launch::NAME,
        &[
            "ec2:DescribeInstances",
            "ec2:DescribeSecurityGroups",
            "ec2:RunInstances",
            "ec2:TerminateInstances",
        ],
        &[],
    ),
    calls(super::launch::running::NAME, &["ec2:DescribeInstances"], &[]),
    calls(
        crate::host::reachable::NAME,
        &[],
        &[("ec2:GetConsoleOutput", "when the console shows the host keys of the launched machine")],
    ),
    calls(
        super::launch_template::NAME,
        &[
            "ec2:DescribeLaunchTemplates",
            "ec2:DescribeLaunchTemplateVersions",
            "ec2:CreateLaunchTemplate",
            "ec2:DeleteLaunchTemplate",
        ],
        &[("ec2:CreateLaunchTemplateVersion", "when a template of an earlier run says something else")],
    ),
    calls(super::machine_image::NAME, &["ec2:DescribeImages"], &[]),
    calls(
        super::metadata_options::NAME,
        &["ec2:DescribeInstances"],
        &[("ec2:ModifyInstanceMetadataOptions", "when the instance's metadata service is open")],
    ),
    calls(
        super::network::NAME,
        &["ec2:DescribeSubnets", "ec2:DescribeRouteTables", "ec2:DescribeSecurityGroups"],
        &[],
    ),
    calls(
        super::node_group::NAME,
        &[
            "eks:DescribeNodegroup",
            "eks:CreateNodegroup",
            "eks:DeleteNodegroup",
            "ec2:DescribeSecurityGroups",
        ],
        &[("ec2:DescribeNetworkInterfaces", BLOCKED)],
    ),
    calls(
        super::node_group::wait::NAME,
        &["eks:DescribeNodegroup"],
        &[
            ("ec2:DescribeInstances", NO_JOIN),
            ("ec2:DescribeRouteTables", NO_JOIN),
            ("ec2:DescribeSecurityGroups", NO_JOIN),
            ("ec2:DescribeSubnets", NO_JOIN),
            ("ec2:GetConsoleOutput", NO_JOIN),
            ("eks:DescribeCluster", NO_JOIN),
        ],
    ),
    calls(
        super::repositories::NAME,
        &[
            "ecr:DescribeRepositories",
            "ecr:ListTagsForResource",
            "ecr:CreateRepository",
            "ecr:ListImages",
            "ecr:BatchDeleteImage",
            "ecr:DeleteRepository",
        ],
        &[],
    ),
    calls(
        super::role::NAME,
        &[
            "iam:GetRole",
            "iam:ListAttachedRolePolicies",
            "iam:CreateRole",
            "iam:AttachRolePolicy",
            "iam:DetachRolePolicy",
            "iam:DeleteRole",
        ],
        &[],
    ),
    calls(super::service_linked_role::NAME, &["iam:ListRoles", "iam:CreateServiceLinkedRole"], &[]),
    calls(
        crate::docker::build::NAME,
        &[],
        &[("ecr:GetAuthorizationToken", "when an image behind FROM is in ECR")],
    ),
    calls(
        crate::docker::push::NAME,
        &["ecr:BatchGetImage", "ecr:GetAuthorizationToken", "ecr:DescribeImages", "ecr:BatchDeleteImage"],
        &[("ecr:PutImage", "when a tag goes back to what it was")],
    ),
    calls(
        crate::dss::cluster_start::NAME,
        &["eks:DescribeCluster", "cloudformation:DescribeStacks"],
        &[
            ("cloudformation:DeleteStack", "when eksctl leaves stacks behind"),
            ("ec2:DescribeNetworkInterfaces", BLOCKED),
            ("ec2:DescribeSecurityGroups", BLOCKED),
        ],
    ),
    calls(crate::dss::smoke::table::NAME, &["glue:GetTable"], &[]),
    calls(
        crate::dss::smoke::clean::NAME,
        &["glue:GetTable", "s3:ListObjectsV2"],
        &[("glue:DeleteTable", LEFT), ("s3:DeleteObject", LEFT)],
    ),
    calls(
        crate::dss::smoke::dataset::NAME,
        &[],
        &[
            ("glue:DeleteTable", LEFT),
            ("glue:GetTable", TAKEN_BACK),
            ("s3:DeleteObject", LEFT),
            ("s3:ListObjectsV2", TAKEN_BACK),
        ],
    ),
    calls(
        LOOK_BEFORE,
        &[
            "athena:GetWorkGroup",
            "cloudformation:DescribeStacks",
            "ec2:DescribeInstanceTypes",
            "ec2:DescribeInstances",
            "ec2:DescribeRouteTables",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ecr:DescribeRepositories",
            "eks:DescribeCluster",
            "eks:DescribeClusterVersions",
            "eks:ListClusters",
            "iam:GetAccountSummary",
            "iam:ListAccountAliases",
            "iam:ListRoles",
            "iam:SimulatePrincipalPolicy",
            "lakeformation:GetDataLakeSettings",
            "lakeformation:ListPermissions",
            "s3:HeadBucket",
            "servicequotas:GetServiceQuota",
            "sts:GetCallerIdentity",
        ],
        &[
            ("ec2:DescribeNatGateways", "when the cluster's API is closed to most before a run"),
            ("ec2:DescribeVpcEndpoints", "when a subnet has no default route"),
            ("eks:ListAccessEntries", "when the cluster is there before a run"),
            ("iam:GetRole", "when a principal is a role"),
            ("servicequotas:GetAWSDefaultServiceQuota", "when the account never asked for another quota"),
        ],
    ),
];

/// The calls of an activity to AWS as dssflow's own principal; `None` for one that makes none.
pub fn of(activity: &str) -> Option<&'static Calls> {
    ACTIVITIES.iter().find(|c| c.activity == activity)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// `"service:Operation"` wherever it stands in the sources, with the file.
    fn named_in_sources() -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        let mut rooms: Vec<_> =
            ["src/aws", "src/docker", "src/dss/smoke", "src/glue", "src/host", "src/preflight"]
                .map(|r| Path::new(env!("CARGO_MANIFEST_DIR")).join(r))
                .to_vec();
        while let Some(dir) = rooms.pop() {
            let Ok(entries) = std::fs::read_dir(dir) else { continue };
            for entry in entries {
                let path = entry.expect("a readable directory").path();
                if path.is_dir() {
                    rooms.push(path);
                    continue;
                }
                let file = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
                // Examples of the classifier and their tests, rights that are asked about and not used, what no site of today counts,
                // and this table, which is what is checked.
                let aside =
                    ["error.rs", "tests.rs", "permissions.rs", "catalogue.rs", "probes.rs", "usage.rs"];
                if path.extension().is_none_or(|e| e != "rs") || aside.contains(&file.as_str()) {
                    continue;
                }
                let text = std::fs::read_to_string(&path).expect("a readable file");
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                for (at, _) in code.match_indices('"') {
                    let literal = code[at + 1..].split('"').next().unwrap_or_default();
                    let Some((service, operation)) = literal.split_once(':') else { continue };
                    if service.len() > 1
                        && service.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
                        && operation.starts_with(|c: char| c.is_ascii_uppercase())
                        && operation.len() > 1
                        && operation.bytes().all(|b| b.is_ascii_alphanumeric())
                    {
                        found.insert((literal.to_owned(), file.clone()));
                    }
                }
            }
        }
        found
    }

    #[test]
    fn every_call_in_the_code_is_declared_and_nothing_else_is() {
        // `sts:AssumeRole` of a trust policy is not called.
        let named: BTreeSet<(String, String)> =
            named_in_sources().into_iter().filter(|(op, _)| op != "sts:AssumeRole").collect();
        assert!(named.len() > 50, "the search finds nothing any more: {named:?}");
        let undeclared: Vec<_> = named.iter().filter(|(op, _)| needs(op).is_none()).collect();
        assert!(undeclared.is_empty(), "add these to aws/permissions.rs: {undeclared:?}");
        let unused: Vec<_> =
            OPERATIONS.iter().map(|(op, _)| *op).filter(|op| !named.iter().any(|(n, _)| n == op)).collect();
        assert!(unused.is_empty(), "no code names these any more: {unused:?}");
    }

    #[test]
    fn every_operation_belongs_to_an_activity() {
        let mut of_activities = BTreeSet::new();
        for calls in ACTIVITIES {
            for op in calls.always.iter().chain(calls.sometimes.iter().map(|(op, _)| op)) {
                assert!(needs(op).is_some(), "{} calls {op}, which has no entry", calls.activity);
                of_activities.insert(*op);
            }
        }
        let nobodys: Vec<_> =
            OPERATIONS.iter().map(|(op, _)| *op).filter(|op| !of_activities.contains(op)).collect();
        assert!(nobodys.is_empty(), "no activity calls these: {nobodys:?}");
    }

    #[test]
    fn every_activity_of_aws_is_in_the_table() {
        let mut registry = dssflow_engine::activity::ActivityRegistry::new();
        super::super::register(&mut registry).expect("names are free");
        let missing: Vec<String> =
            registry.names().map(ToString::to_string).filter(|name| of(name).is_none()).collect();
        assert!(missing.is_empty(), "add these to aws/permissions.rs: {missing:?}");
        for calls in ACTIVITIES.iter().filter(|c| c.activity.starts_with("aws.")) {
            let known = registry.names().any(|name| name.as_str() == calls.activity);
            assert!(known, "there is no activity {}", calls.activity);
        }
    }

    #[test]
    fn what_deletes_asks_for_the_mark_where_the_service_knows_tags() {
        let free: Vec<&str> = OPERATIONS
            .iter()
            .flat_map(|(_, needs)| needs.iter())
            .filter(|n| n.action.contains(":Delete") || n.action.contains(":BatchDelete"))
            .filter(|n| n.only != Some(Only::Marked))
            .map(|n| n.action)
            .collect();
        assert_eq!(
            free,
            ["glue:BatchDeletePartition", "glue:DeleteDatabase", "glue:DeleteTable", "s3:DeleteObject"]
        );
    }
}
