//! The checks before a run, against answers in AWS's own shapes: a world that fits is green, each trouble of the
//! catalogue is found under its id, a right that lacks is a skip, many questions are asked at once, and nothing is
//! ever changed.

mod preflight_aws;

use std::time::Duration;

use dssflow_activities::clients::{AwsClients, ClientsConfig, CredentialSource, StaticCredentials};
use dssflow_activities::host::{Host, HostCommand, HostError, HostHandle, HostOutput, HostUser};
use dssflow_activities::preflight::{
    self, AthenaSpec, CHECKS, ConnectionSpec, Demand, Finding, Look, Need, Pinned, Report, Severity, Spec,
    Status, Who,
};
use dssflow_engine::time::BoxFuture;
use preflight_aws::{FakeAws, Reply, groups, roles, route_tables, subnets, version};
use serde_json::json;

/// A host that answers as an AlmaLinux 8 that nobody has touched, but for one command.
#[derive(Debug, Default, Clone)]
struct FakeHost {
    /// A program, its status, what it prints and what it complains.
    told: Option<(&'static str, i32, &'static str, &'static str)>,
    /// A file and its contents.
    file: Option<(&'static str, &'static str)>,
}

impl Host for FakeHost {
    fn exec(&self, command: HostCommand) -> BoxFuture<'_, Result<HostOutput, HostError>> {
        let line = command.argv.join(" ");
        let output = |status: i32, out: &str, err: &str| HostOutput {
            status,
            stdout: zeroize::Zeroizing::new(out.as_bytes().to_vec()),
            stderr: err.as_bytes().to_vec(),
        };
        let answer = match &self.told {
            Some((program, status, out, err)) if command.argv.first().is_some_and(|p| p == program) => {
                output(*status, out, err)
            }
            _ if command.argv[0] == "rpm" => output(3, "package podman is not installed", ""),
            _ if command.argv[0] == "uname" => output(0, "x86_64", ""),
            _ if command.argv[0] == "nproc" => output(0, "8", ""),
            _ if command.argv[0] == "hostname" => output(0, "dss", ""),
            _ if command.argv[0] == "df" => output(0, "F T B U A C M\n/dev/x xfs 524288000 1 2 4% /data", ""),
            _ if command.argv == ["id", "-u"] => output(0, "0", ""),
            _ if command.argv[0] == "curl" => output(0, "", ""),
            _ => match self.files().into_iter().find(|(path, _)| line.contains(path)) {
                // However a file is read, its path is an argument, and its contents are printed.
                Some((_, text)) => output(0, text, ""),
                None => output(44, "", ""),
            },
        };
        assert!(command.user != HostUser::Login, "checks act as root or as the service user");
        Box::pin(async move { Ok(answer) })
    }

    fn describe(&self) -> String {
        "a fake host".to_owned()
    }
}

impl FakeHost {
    fn files(&self) -> Vec<(&'static str, &'static str)> {
        let mut files = vec![
            ("/etc/os-release", "ID=\"almalinux\"\nVERSION_ID=\"8.10\"\n"),
            ("/proc/meminfo", "MemTotal:       65011712 kB\n"),
            ("/proc/net/tcp", "  sl  local_address\n   0: 00000000:0016 00000000:0000 0A 0\n"),
        ];
        files.extend(self.file);
        files.reverse();
        files
    }
}

fn spec() -> Spec {
    let pin = |version: &str| Pinned {
        version: version.into(),
        url: "https://example.com/x".into(),
        sha256: "0".repeat(64),
    };
    let mut spec = Spec {
        site: "lab".into(),
        store: Some("s1".into()),
        region: "eu-west-1".into(),
        expected_account: "123456789012".into(),
        typical: Duration::from_mins(50),
        instance: Some("i-0a1b2c3d4e5f60718".into()),
        min_memory_mib: 30_000,
        min_memory_gb: 32,
        min_disk_gb: 100,
        host_reachable: true,
        service_user: "dssuser".into(),
        service_credentials: Some("ops".into()),
        data_dir: "/data/dss".into(),
        dss_port: 11200,
        dss_version: "14.2.0".into(),
        image_tag: "dss-14.2.0".into(),
        kubectl: pin("1.33.1"),
        aws_cli: pin("2.31.0"),
        eksctl: pin("0.215.0"),
        authenticator: pin("0.7.2"),
        demands: vec![Demand::NodeVcpus(3), Demand::Clusters(1), Demand::Roles(2)],
        needs: vec![Need {
            actions: vec!["eks:CreateCluster".into(), "ecr:PutImage".into()],
            resources: vec!["*".into()],
            context: Vec::new(),
            condition: None,
            why: "the cluster".into(),
            who: Who::Operator,
        }],
        connections: vec![ConnectionSpec {
            name: "s3-sales".into(),
            bucket: "acme-sales".into(),
            path: "/".into(),
            credentials: "ops".into(),
            glue_database: "sales".into(),
            athena: Some(AthenaSpec {
                name: "athena-sales".into(),
                workgroup: "primary".into(),
                output_location: "s3://acme-sales/results/".into(),
            }),
        }],
        ..Spec::default()
    };
    spec.credentials.insert("ops".into(), CredentialSource::Fixed(StaticCredentials::new("AKIAOPS", "hush")));
    spec.cluster.name = "eks-main".into();
    spec.cluster.by_plugin = true;
    spec.cluster.k8s_version = "1.33".into();
    spec.cluster.subnets = vec!["subnet-a".into(), "subnet-b".into()];
    spec.cluster.security_groups = vec!["sg-default".into()];
    spec.cluster.machine_type = "m7i.4xlarge".into();
    spec.cluster.nodes = 3;
    spec.cluster.max_nodes = 5;
    spec
}

/// The report on a world in which something was changed.
async fn look_with(change: impl FnOnce(&FakeAws, &mut Spec, &mut FakeHost)) -> (Report, FakeAws) {
    let (aws, endpoint) = FakeAws::start().await;
    let (mut spec, mut host) = (spec(), FakeHost::default());
    change(&aws, &mut spec, &mut host);
    let mut config = ClientsConfig::new("eu-west-1");
    config.endpoint_url = Some(endpoint);
    config.credentials = Some(StaticCredentials::new("AKIAOPS", "hush"));
    let clients = AwsClients::connect(&config).await;
    let look = Look::new(spec, clients, HostHandle(std::sync::Arc::new(host)));
    (Box::pin(preflight::run(&look, &[])).await, aws)
}

fn of(report: &Report, severity: Severity) -> Vec<String> {
    report.of(severity).map(|f| format!("{}: {}: {}", f.id, f.subject, f.evidence)).collect()
}

/// One trouble, the check that finds it, what its evidence and its help say.
struct Trouble {
    id: &'static str,
    severity: Severity,
    evidence: &'static str,
    fix: &'static str,
    change: fn(&FakeAws, &mut Spec, &mut FakeHost),
}

const ERROR: Severity = Severity::Error;
const WARNING: Severity = Severity::Warning;

const CLUSTER: &str = r#"{"cluster": {"name": "eks-main", "status": "ACTIVE", "version": "1.33", "arn": "arn:c",
    "tags": {"dssflow:store": "s1", "dssflow:site": "lab", "dssflow:run": "r1"},
    "resourcesVpcConfig": {"endpointPublicAccess": true, "endpointPrivateAccess": false,
        "publicAccessCidrs": ["203.0.113.0/24"]}}}"#;

const STACK: &str = "<DescribeStacksResponse><DescribeStacksResult><Stacks><member>\
    <StackName>eksctl-eks-main-cluster</StackName><StackId>arn:s</StackId><CreationTime>2026-01-01T00:00:00Z</CreationTime>\
    <StackStatus>ROLLBACK_COMPLETE</StackStatus><StackStatusReason>it was cancelled</StackStatusReason></member></Stacks>\
    </DescribeStacksResult></DescribeStacksResponse>";

/// Every check of the catalogue with AWS's, or the host's, own words for what is wrong.
#[rustfmt::skip]
const TROUBLES: &[Trouble] = &[
    Trouble { id: "P01", severity: ERROR, evidence: "ExpiredToken", fix: "aws sso login",
        change: |aws, _, _| aws.fail("sts:GetCallerIdentity", 403, "ExpiredToken", "The security token included in the request is expired") },
    Trouble { id: "P02", severity: ERROR, evidence: "123456789012 (acme-lab)", fix: "210987654321",
        change: |_, spec, _| spec.expected_account = "210987654321".into() },
    Trouble { id: "P07", severity: ERROR, evidence: "could not be assumed because it does not exist", fix: "create-service-linked-role",
        change: |aws, _, _| { aws.answer("iam:ListRoles", Reply::ok(roles(&[]))); aws.deny(&["iam:CreateServiceLinkedRole"]); } },
    Trouble { id: "P08", severity: ERROR, evidence: "not allowed: eks:CreateCluster", fix: r#""Action":["eks:CreateCluster"]"#,
        change: |aws, _, _| aws.deny(&["eks:CreateCluster"]) },
    Trouble { id: "P09", severity: ERROR, evidence: "use1-az3", fix: "another zone",
        change: |aws, _, _| aws.answer("ec2:DescribeSubnets", Reply::ok(subnets("use1-az3", "use1-az1", true, 250))) },
    Trouble { id: "P10", severity: ERROR, evidence: "no such security group", fix: "describe-security-groups",
        change: |_, spec, _| spec.cluster.security_groups.push("sg-gone".into()) },
    Trouble { id: "P11", severity: ERROR, evidence: "no public address", fix: "--map-public-ip-on-launch",
        change: |aws, _, _| aws.answer("ec2:DescribeSubnets", Reply::ok(subnets("euw1-az1", "euw1-az2", false, 250))) },
    Trouble { id: "P12", severity: ERROR, evidence: "NodeCreationFailure", fix: "NAT gateway",
        change: |aws, spec, _| { spec.cluster.private_nodes = true;
            aws.answer("ec2:DescribeRouteTables", Reply::ok(route_tables("<natGatewayId>nat-1</natGatewayId><state>blackhole</state>"))); } },
    Trouble { id: "P13", severity: ERROR, evidence: "203.0.113.0/24 only and not the VPC", fix: "endpointPrivateAccess=true",
        change: |aws, _, _| aws.answer("eks:DescribeCluster", Reply::ok(CLUSTER)) },
    Trouble { id: "P14", severity: ERROR, evidence: "reach DSS on ports 11200-11209", fix: "authorize-security-group-ingress",
        change: |aws, _, _| aws.answer("ec2:DescribeSecurityGroups", Reply::ok(groups(""))) },
    Trouble { id: "P16", severity: ERROR, evidence: "clock is", fix: "timedatectl",
        change: |aws, _, _| aws.answer("sts:GetCallerIdentity", Reply::ok(
            "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/ops</Arn><UserId>A</UserId>\
             <Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>")
            .header("date", "Tue, 15 Nov 1994 08:12:31 GMT")) },
    Trouble { id: "P17", severity: ERROR, evidence: "compares versions as text", fix: "0.7.2",
        change: |_, spec, _| spec.authenticator.version = "0.10.0".into() },
    Trouble { id: "P18", severity: ERROR, evidence: "Connection timed out", fix: "mirror",
        change: |_, _, host| host.told = Some(("curl", 28, "", "curl: (28) Connection timed out")) },
    Trouble { id: "P19", severity: ERROR, evidence: "unsupported Kubernetes version", fix: "describe-cluster-versions",
        change: |aws, _, _| aws.answer("eks:DescribeClusterVersions", Reply::json(&json!({ "clusterVersions": [version("1.33", "UNSUPPORTED")] }))) },
    Trouble { id: "P19", severity: WARNING, evidence: "$0.60", fix: "describe-cluster-versions",
        change: |aws, _, _| aws.answer("eks:DescribeClusterVersions", Reply::json(&json!({ "clusterVersions": [version("1.33", "EXTENDED_SUPPORT")] }))) },
    Trouble { id: "P20", severity: ERROR, evidence: "8 of 40 are used, the run needs 48: 16 are missing (AWS would say VcpuLimitExceeded)", fix: "quotas/L-1216C47A",
        change: |aws, _, _| aws.answer("servicequotas:GetServiceQuota", Reply::json(&json!({ "Quota": { "Value": 40.0 } }))) },
    Trouble { id: "P21", severity: WARNING, evidence: "which take 330", fix: "larger subnets",
        change: |aws, _, _| aws.answer("ec2:DescribeSubnets", Reply::ok(subnets("euw1-az1", "euw1-az2", true, 60))) },
    Trouble { id: "P22", severity: ERROR, evidence: "ROLLBACK_COMPLETE", fix: "eksctl delete cluster",
        change: |aws, _, _| aws.answer("cloudformation:DescribeStacks", Reply::ok(STACK)) },
    Trouble { id: "P26", severity: ERROR, evidence: "Required Create Database on Catalog", fix: "grant-permissions",
        change: |aws, _, _| { aws.answer("lakeformation:GetDataLakeSettings", Reply::json(&json!({ "DataLakeSettings": {} })));
            aws.answer("lakeformation:ListPermissions", Reply::json(&json!({ "PrincipalResourcePermissions": [] }))); } },
    Trouble { id: "P27", severity: ERROR, evidence: "may not do glue:GetDatabase", fix: "database/default",
        change: |aws, _, _| aws.deny(&["glue:GetDatabase"]) },
    Trouble { id: "P28", severity: ERROR, evidence: "Unable to verify/create output bucket", fix: "s3:PutObject",
        change: |aws, _, _| aws.deny(&["s3:PutObject"]) },
    Trouble { id: "P28", severity: ERROR, evidence: "WorkGroup is not found", fix: "create-work-group",
        change: |aws, _, _| aws.fail("athena:GetWorkGroup", 400, "InvalidRequestException", "WorkGroup primary is not found.") },
    Trouble { id: "P29", severity: WARNING, evidence: "s3://central/ and not to s3://acme-sales/results/", fix: "EnforceWorkGroupConfiguration=false",
        change: |aws, _, _| aws.answer("athena:GetWorkGroup", Reply::json(&json!({ "WorkGroup": { "Name": "primary", "State": "ENABLED",
            "Configuration": { "EnforceWorkGroupConfiguration": true, "ResultConfiguration": { "OutputLocation": "s3://central/" } } } }))) },
    Trouble { id: "P34", severity: WARNING, evidence: "DSS 14.1.0 is installed", fix: "image-container-exec",
        change: |_, _, host| host.file = Some(("/data/dss/dss-version.json", r#"{"product_version": "14.1.0"}"#)) },
    Trouble { id: "S01", severity: ERROR, evidence: "DSSFLOW_TEST_NOT_SET", fix: "set the variable",
        change: |_, spec, _| spec.secrets.push(("dss.license".into(), serde_json::from_value(json!({ "env": "DSSFLOW_TEST_NOT_SET" })).expect("a reference"))) },
    Trouble { id: "I01", severity: ERROR, evidence: "InstanceNotFound", fix: "host.instance",
        change: |aws, _, _| aws.fail("ec2:DescribeInstances", 400, "InvalidInstanceID.NotFound", "The instance ID does not exist") },
    Trouble { id: "B01", severity: ERROR, evidence: "BucketNotFound", fix: "make the bucket",
        change: |aws, _, _| aws.fail("s3:HeadBucket", 404, "NoSuchBucket", "") },
    Trouble { id: "H01", severity: ERROR, evidence: "a password is required", fix: "sudo without a password",
        change: |_, _, host| host.told = Some(("id", 1, "", "sudo: a password is required")) },
    Trouble { id: "H02", severity: ERROR, evidence: "the architecture is aarch64", fix: "Dataiku's requirements",
        change: |_, _, host| host.told = Some(("uname", 0, "aarch64", "")) },
    Trouble { id: "H03", severity: ERROR, evidence: "somebody listens on 11201", fix: "another dss.port",
        change: |_, _, host| host.file = Some(("/proc/net/tcp", "  sl\n 0: 0100007F:2BC1 00000000:0000 0A 0\n")) },
    Trouble { id: "H04", severity: WARNING, evidence: "podman-4.9.4", fix: "rollback",
        change: |_, _, host| host.told = Some(("rpm", 0, "podman-4.9.4-1.el8.x86_64", "")) },
];

#[tokio::test]
async fn a_world_that_fits_is_green_and_nothing_is_changed() {
    let (report, aws) = look_with(|_, _, _| {}).await;
    assert_eq!(of(&report, Severity::Error), Vec::<String>::new());
    assert_eq!(of(&report, Severity::Warning), Vec::<String>::new());
    assert_eq!(of(&report, Severity::Skipped), Vec::<String>::new());
    assert_eq!(report.checks.len(), CHECKS.len());
    assert!(report.checks.iter().all(|c| c.status == Status::Passed && !c.seen.is_empty()), "{report:#?}");
    let looks = ["Describe", "List", "Get", "Head", "Simulate"];
    for call in aws.calls() {
        let operation = call.split(':').nth(1).unwrap_or_default();
        assert!(looks.iter().any(|verb| operation.starts_with(verb)), "{call} changes something");
    }
    // Everything is asked once, but for what is asked about several things.
    let calls = aws.calls();
    for once in ["eks:DescribeClusterVersions", "ec2:DescribeSubnets", "ec2:DescribeRouteTables"] {
        assert_eq!(calls.iter().filter(|c| *c == once).count(), 1, "{once} in {calls:?}");
    }
}

#[tokio::test]
async fn every_trouble_is_found_under_its_id() {
    for trouble in TROUBLES {
        let (report, _) = look_with(trouble.change).await;
        let check = report.check(trouble.id).expect("every check was run");
        let found: Vec<&Finding> = check.findings.iter().filter(|f| f.severity == trouble.severity).collect();
        let fits = |f: &&&Finding| f.evidence.contains(trouble.evidence) && f.fix.contains(trouble.fix);
        assert!(
            found.iter().any(|f| fits(&f)),
            "{}: {:?} / {:?} not in {:#?}",
            trouble.id,
            trouble.evidence,
            trouble.fix,
            check
        );
        assert_eq!(report.fits(), of(&report, Severity::Error).is_empty());
    }
    // All but the one on the end of credentials, which fixed ones do not have: it is tested on values.
    let told: std::collections::BTreeSet<&str> = TROUBLES.iter().map(|t| t.id).collect();
    let without: Vec<&str> = CHECKS.iter().map(|c| c.id).filter(|id| !told.contains(id)).collect();
    assert_eq!(without, ["P03"]);
}

#[tokio::test]
async fn a_right_that_lacks_is_a_skip_and_never_an_error() {
    let operations = [
        "iam:ListAccountAliases",
        "iam:ListRoles",
        "iam:SimulatePrincipalPolicy",
        "iam:GetAccountSummary",
        "ec2:DescribeInstances",
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeSubnets",
        "ec2:DescribeRouteTables",
        "ec2:DescribeSecurityGroups",
        "eks:DescribeCluster",
        "eks:DescribeClusterVersions",
        "cloudformation:DescribeStacks",
        "servicequotas:GetServiceQuota",
        "lakeformation:GetDataLakeSettings",
        "lakeformation:ListPermissions",
        "athena:GetWorkGroup",
        "ecr:DescribeRepositories",
    ];
    for operation in operations {
        let (report, _) = look_with(|aws, spec, _| {
            let code =
                if operation.starts_with("ec2:") { "UnauthorizedOperation" } else { "AccessDeniedException" };
            aws.fail(operation, 403, code, "is not authorized to perform it");
            spec.demands.push(Demand::Repositories(2));
        })
        .await;
        assert_eq!(of(&report, Severity::Error), Vec::<String>::new(), "{operation}");
        if operation != "cloudformation:DescribeStacks" {
            let skipped = of(&report, Severity::Skipped);
            assert!(!skipped.is_empty(), "{operation} is not missed by anybody");
        }
    }
}

#[tokio::test]
async fn without_the_simulation_dry_runs_and_reads_tell_what_they_can() {
    let (report, aws) = look_with(|aws, spec, _| {
        aws.fail("iam:SimulatePrincipalPolicy", 403, "AccessDenied", "no");
        aws.fail("ec2:CreateLaunchTemplate", 403, "UnauthorizedOperation", "You are not authorized");
        aws.fail(
            "ec2:CreateTags",
            412,
            "DryRunOperation",
            "Request would have succeeded, but DryRun flag is set.",
        );
        aws.fail("ecr:DescribeRepositories", 400, "AccessDeniedException", "no");
        spec.dry_runs = true;
        spec.needs[0].actions = ["ec2:CreateLaunchTemplate", "ec2:CreateTags", "ecr:DescribeRepositories"]
            .map(str::to_owned)
            .to_vec();
    })
    .await;
    let check = report.check("P08").expect("it was run");
    let error = check.findings.iter().find(|f| f.severity == Severity::Error).expect("two are denied");
    assert!(error.evidence.contains("ec2:CreateLaunchTemplate, ecr:DescribeRepositories"), "{error:?}");
    assert!(check.seen.iter().any(|s| s.contains("ec2:CreateTags")), "{check:?}");
    assert!(aws.calls().iter().any(|c| c == "ec2:CreateLaunchTemplate"));
    // Against anything that is not AWS nothing of the kind is called.
    let (_, aws) =
        look_with(|aws, _, _| aws.fail("iam:SimulatePrincipalPolicy", 403, "AccessDenied", "no")).await;
    assert!(!aws.calls().iter().any(|c| c.contains("Create")), "{:?}", aws.calls());
}

#[tokio::test]
async fn questions_are_asked_at_the_same_time_and_not_without_limit() {
    let (report, aws) = look_with(|aws, _, _| aws.hold(Duration::from_millis(60))).await;
    assert!(report.fits());
    let (most, calls) = (aws.most_at_once(), aws.calls().len());
    assert!(most >= 8, "only {most} of {calls} calls at once");
    assert!(most <= 4 * preflight::PARALLEL, "{most} calls at once");
    // One after the other they would be more than ten seconds of 200 ms each; so many at once they are not.
    assert!(calls.div_ceil(most) * 200 < 10_000, "{calls} calls, {most} at once");
}
