//! Every check there is, by id. `docs/preflight.md` lists them and is held to this list.

use super::{
    Check, athena, dss, host, identity, inputs, lake_formation, leftovers, network, permissions, quotas,
    versions,
};

macro_rules! check {
    ($id:literal, $run:path, $title:literal, $reads:expr, $page:literal) => {
        Check {
            id: $id,
            title: $title,
            reads: $reads,
            page: $page,
            run: |look, notes| Box::pin($run(look, notes)),
        }
    };
}

/// The checks, in the order in which they are told.
pub const CHECKS: &[Check] = &[
    check!(
        "P01",
        identity::source,
        "a region and credentials, and where they come from",
        &["sts:GetCallerIdentity"],
        "https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html"
    ),
    check!(
        "P02",
        identity::account,
        "the credentials are of the expected account",
        &["sts:GetCallerIdentity", "iam:ListAccountAliases"],
        "https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html"
    ),
    check!(
        "P03",
        identity::expiry,
        "the credentials outlive the run",
        &[],
        "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp.html"
    ),
    check!(
        "P07",
        permissions::linked_roles,
        "the service-linked roles of EKS are there or may be made",
        &["iam:ListRoles", "iam:SimulatePrincipalPolicy"],
        "https://docs.aws.amazon.com/eks/latest/userguide/using-service-linked-roles.html"
    ),
    check!(
        "P08",
        permissions::permissions,
        "everything the run calls is allowed",
        &["iam:SimulatePrincipalPolicy", "iam:GetRole"],
        "https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html"
    ),
    check!(
        "P09",
        network::zones,
        "the subnets are in zones that host EKS",
        &["ec2:DescribeSubnets"],
        "https://docs.aws.amazon.com/eks/latest/userguide/network-reqs.html"
    ),
    check!(
        "P10",
        network::places,
        "two subnets in two zones, and security groups, in the VPC of DSS",
        &["ec2:DescribeSubnets", "ec2:DescribeSecurityGroups", "ec2:DescribeInstances"],
        "https://docs.aws.amazon.com/eks/latest/userguide/network-reqs.html"
    ),
    check!(
        "P11",
        network::public_addresses,
        "public subnets give public addresses",
        &["ec2:DescribeSubnets"],
        "https://docs.aws.amazon.com/eks/latest/userguide/troubleshooting.html"
    ),
    check!(
        "P12",
        network::ways_out,
        "every subnet has a way out",
        &["ec2:DescribeRouteTables", "ec2:DescribeVpcEndpoints"],
        "https://docs.aws.amazon.com/eks/latest/userguide/private-clusters.html"
    ),
    check!(
        "P13",
        network::endpoint,
        "nodes can reach the API of the cluster",
        &["eks:DescribeCluster", "ec2:DescribeNatGateways"],
        "https://docs.aws.amazon.com/eks/latest/userguide/cluster-endpoint.html"
    ),
    check!(
        "P14",
        network::groups,
        "security groups let nodes, control plane and DSS through",
        &["ec2:DescribeSecurityGroups", "ec2:DescribeInstances"],
        "https://docs.aws.amazon.com/eks/latest/userguide/sec-group-reqs.html"
    ),
    check!(
        "P16",
        identity::access,
        "clocks agree, and the service user may use the cluster",
        &["sts:GetCallerIdentity", "eks:DescribeCluster", "eks:ListAccessEntries"],
        "https://docs.aws.amazon.com/eks/latest/userguide/access-entries.html"
    ),
    check!(
        "P17",
        versions::tools,
        "the tools fit each other and the cluster",
        &["host"],
        "https://docs.aws.amazon.com/eks/latest/userguide/create-kubeconfig.html"
    ),
    check!(
        "P18",
        versions::eksctl,
        "the EKS plugin finds a pinned eksctl",
        &["host"],
        "https://eksctl.io/installation/"
    ),
    check!(
        "P19",
        versions::kubernetes,
        "the Kubernetes version is supported",
        &["eks:DescribeClusterVersions"],
        "https://docs.aws.amazon.com/eks/latest/userguide/kubernetes-versions.html"
    ),
    check!(
        "P20",
        quotas::quotas,
        "what the run makes fits the quotas",
        &[
            "servicequotas:GetServiceQuota",
            "servicequotas:GetAWSDefaultServiceQuota",
            "ec2:DescribeInstances",
            "ec2:DescribeInstanceTypes",
            "ec2:DescribeSecurityGroups",
            "eks:ListClusters",
            "cloudformation:DescribeStacks",
            "ecr:DescribeRepositories",
            "iam:GetAccountSummary",
        ],
        "https://docs.aws.amazon.com/servicequotas/latest/userguide/intro.html"
    ),
    check!(
        "P21",
        network::addresses,
        "the subnets have addresses for nodes and pods",
        &["ec2:DescribeSubnets", "ec2:DescribeInstanceTypes"],
        "https://docs.aws.amazon.com/eks/latest/userguide/choosing-instance-type.html"
    ),
    check!(
        "P22",
        leftovers::leftovers,
        "nothing of that name is left from an earlier try",
        &["eks:DescribeCluster", "cloudformation:DescribeStacks"],
        "https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html"
    ),
    check!(
        "P26",
        lake_formation::rights,
        "Lake Formation lets the run make its databases",
        &["lakeformation:GetDataLakeSettings", "lakeformation:ListPermissions"],
        "https://docs.aws.amazon.com/lake-formation/latest/dg/change-settings.html"
    ),
    check!(
        "P27",
        permissions::glue,
        "the connections' credentials may use Glue",
        &["iam:SimulatePrincipalPolicy", "iam:GetRole"],
        "https://docs.aws.amazon.com/athena/latest/ug/fine-grained-access-to-glue-resources.html"
    ),
    check!(
        "P28",
        athena::results,
        "Athena's results have a place that can be written",
        &["athena:GetWorkGroup", "s3:ListBucket", "iam:SimulatePrincipalPolicy"],
        "https://docs.aws.amazon.com/athena/latest/ug/querying.html"
    ),
    check!(
        "P29",
        athena::settings,
        "who wins where workgroup and connection differ",
        &["athena:GetWorkGroup"],
        "https://docs.aws.amazon.com/athena/latest/ug/workgroups-settings-override.html"
    ),
    check!(
        "P34",
        dss::images,
        "base images are those of the DSS version",
        &["host"],
        "https://doc.dataiku.com/dss/latest/containers/setup-k8s.html"
    ),
    check!(
        "S01",
        inputs::secrets,
        "secrets of this machine can be read",
        &[],
        "https://docs.aws.amazon.com/secretsmanager/latest/userguide/best-practices.html"
    ),
    check!(
        "I01",
        inputs::instance,
        "the instance of DSS is there and carries DSS",
        &["ec2:DescribeInstances", "ec2:DescribeInstanceTypes", "ec2:DescribeSecurityGroups"],
        "https://doc.dataiku.com/dss/latest/installation/custom/requirements.html"
    ),
    check!(
        "B01",
        inputs::buckets,
        "the buckets of the connections exist",
        &["s3:ListBucket"],
        "https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadBucket.html"
    ),
    check!(
        "H01",
        host::sudo,
        "commands run as root on the host without a password",
        &["host"],
        "https://doc.dataiku.com/dss/latest/installation/custom/requirements.html"
    ),
    check!(
        "H02",
        host::machine,
        "system, memory and disk of the host carry DSS",
        &["host"],
        "https://doc.dataiku.com/dss/latest/installation/custom/requirements.html"
    ),
    check!(
        "H03",
        host::ports,
        "the ports of DSS are free",
        &["host"],
        "https://doc.dataiku.com/dss/latest/installation/custom/initial-install.html"
    ),
    check!(
        "H04",
        host::podman,
        "no podman is in the way of Docker",
        &["host"],
        "https://doc.dataiku.com/dss/latest/containers/docker.html"
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_page_lists_the_checks_as_they_are() {
        let page = include_str!("../../../docs/preflight.md");
        let rows: Vec<Vec<&str>> = page
            .lines()
            .filter(|line| line.starts_with("| ") && line.matches('|').count() == 6)
            .map(|line| line.split('|').map(str::trim).skip(1).take(3).collect())
            .filter(|row: &Vec<&str>| row[0] != "id")
            .collect();
        let wanted: Vec<Vec<String>> = CHECKS
            .iter()
            .map(|c| {
                let reads: Vec<String> = c.reads.iter().map(|r| format!("`{r}`")).collect();
                vec![c.id.to_owned(), c.title.to_owned(), reads.join(", ")]
            })
            .collect();
        assert_eq!(rows, wanted);
    }

    #[test]
    fn ids_are_unique_and_every_check_has_its_page() {
        let ids: BTreeSet<&str> = CHECKS.iter().map(|c| c.id).collect();
        assert_eq!(ids.len(), CHECKS.len());
        assert!(CHECKS.iter().all(|c| c.page.starts_with("https://") && !c.title.is_empty()));
    }
}
