//! The error catalogue, row by row: each quoted text with its class, whether the call can have had an effect, and a
//! part of the help a person reads.

use super::*;

fn answered(status: u16, code: &str, message: &str) -> Failure {
    Failure {
        reach: Reach::Answered,
        status: Some(status),
        code: code.into(),
        message: message.into(),
        request_id: Some("req-1".into()),
        retry_after_s: None,
    }
}

/// An error with a cause.
#[derive(Debug)]
struct Because(&'static str, Option<Box<Because>>);

impl std::fmt::Display for Because {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Because {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

#[test]
fn an_error_is_told_in_words_with_its_causes_each_once() {
    let cause = Because("io error", Some(Box::new(Because("connection refused", None))));
    let error = Because("dispatch failure", Some(Box::new(cause)));
    assert_eq!(in_words(&error), "dispatch failure: io error: connection refused");
    let error = Because("it says: io error", Some(Box::new(Because("io error", None))));
    assert_eq!(in_words(&error), "it says: io error");
}

#[test]
fn missing_credentials_are_told_without_the_names_of_types() {
    use aws_credential_types::provider::error::CredentialsError;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    type Of = SdkError<aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityError, HttpResponse>;
    let none = CredentialsError::not_loaded("nothing has any");
    let failure = failure_of(Of::dispatch_failure(ConnectorError::other(none.into(), None)));
    assert_eq!((failure.code.as_str(), failure.reach), ("NoCredentials", Reach::NotSent));
    assert!(failure.message.ends_with("nothing has any"), "{}", failure.message);
    assert!(
        !failure.message.contains("DispatchFailure") && !failure.message.contains('{'),
        "{}",
        failure.message
    );
}

struct Row {
    action: &'static str,
    status: u16,
    code: &'static str,
    message: &'static str,
    trouble: Trouble,
    class: ErrorClass,
    no_effect: bool,
    /// A part of the help; empty when there is nothing to say.
    help: &'static str,
}

const fn row(
    action: &'static str,
    status: u16,
    code: &'static str,
    message: &'static str,
    meaning: (Trouble, ErrorClass, bool),
    help: &'static str,
) -> Row {
    let (trouble, class, no_effect) = meaning;
    Row { action, status, code, message, trouble, class, no_effect, help }
}

const EXISTS: (Trouble, ErrorClass, bool) = (Trouble::Exists, ErrorClass::Retryable, false);
const SPREADING: (Trouble, ErrorClass, bool) = (Trouble::EventualConsistency, ErrorClass::Retryable, true);
const THROTTLED: (Trouble, ErrorClass, bool) = (Trouble::Throttled, ErrorClass::Throttled, true);
const CREDENTIALS: (Trouble, ErrorClass, bool) = (Trouble::Credentials, ErrorClass::Credentials, true);
const NOT_YET: (Trouble, ErrorClass, bool) = (Trouble::NotYet, ErrorClass::Retryable, true);
const QUOTA: (Trouble, ErrorClass, bool) = (Trouble::Quota, ErrorClass::NeedsHuman, true);
const DENIED: (Trouble, ErrorClass, bool) = (Trouble::Denied, ErrorClass::Terminal, true);
const SERVICE: (Trouble, ErrorClass, bool) = (Trouble::Service, ErrorClass::Retryable, false);
const OTHER: (Trouble, ErrorClass, bool) = (Trouble::Other, ErrorClass::Terminal, true);

/// Texts seen in the wild, with the call they answered.
const CATALOGUE: &[Row] = &[
    row(
        "eks:CreateCluster",
        409,
        "ResourceInUseException",
        "Cluster already exists with name: X",
        EXISTS,
        "tags tell whose it is",
    ),
    row(
        "ec2:ImportKeyPair",
        400,
        "InvalidKeyPair.Duplicate",
        "The keypair already exists",
        EXISTS,
        "tags tell",
    ),
    row(
        "eks:CreateCluster",
        400,
        "InvalidParameterException",
        "Role with arn: arn:aws:iam::1:role/r, could not be assumed because it does not exist or the trusted entity is \
         not correct",
        SPREADING,
        "trust policy",
    ),
    row(
        "eks:CreateCluster",
        400,
        "InvalidRequestException",
        "Error in role params",
        SPREADING,
        "trust policy",
    ),
    row(
        "eks:CreateNodegroup",
        400,
        "InvalidParameterException",
        "Role provided in the request does not exist.",
        SPREADING,
        "trust policy",
    ),
    row(
        "eks:DeleteCluster",
        409,
        "ResourceInUseException",
        "Cluster has nodegroups attached",
        NOT_YET,
        "still uses it",
    ),
    row(
        "cloudformation:DeleteStack",
        400,
        "ValidationError",
        "Stack [eksctl-x-cluster] cannot be deleted while TerminationProtection is enabled",
        (Trouble::Protected, ErrorClass::Terminal, true),
        "lift the protection",
    ),
    row(
        "ec2:TerminateInstances",
        400,
        "OperationNotPermitted",
        "The instance 'i-1' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.",
        (Trouble::Protected, ErrorClass::Terminal, true),
        "lift the protection",
    ),
    row("eks:DescribeCluster", 400, "Throttling", "Rate exceeded", THROTTLED, ""),
    row("ecr:DescribeImages", 429, "TooManyRequestsException", "Too many", THROTTLED, ""),
    row("ec2:DescribeTags", 503, "RequestLimitExceeded", "Request limit exceeded.", THROTTLED, ""),
    row(
        "ec2:DescribeTags",
        400,
        "ExpiredToken",
        "The security token included in the request is expired",
        CREDENTIALS,
        "goes on by itself",
    ),
    row(
        "eks:ListClusters",
        400,
        "ExpiredTokenException",
        "The security token included in the request is expired",
        CREDENTIALS,
        "aws sso login",
    ),
    row(
        "sts:GetCallerIdentity",
        403,
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
        CREDENTIALS,
        "renew the credentials",
    ),
    row(
        "ec2:DeleteSubnet",
        400,
        "DependencyViolation",
        "The subnet 'subnet-1' has dependencies and cannot be deleted.",
        NOT_YET,
        "network interfaces",
    ),
    row(
        "ec2:DeleteSecurityGroup",
        400,
        "DependencyViolation",
        "resource sg-1 has a dependent object",
        NOT_YET,
        "load balancers",
    ),
    row(
        "ec2:DetachInternetGateway",
        400,
        "DependencyViolation",
        "Network vpc-1 has some mapped public address(es).",
        NOT_YET,
        "addresses",
    ),
    row(
        "ec2:AllocateAddress",
        400,
        "AddressLimitExceeded",
        "The maximum number of addresses has been reached.",
        QUOTA,
        "\"EC2-VPC Elastic IPs\" (L-0263D0A3)",
    ),
    row(
        "ec2:CreateVpc",
        400,
        "VpcLimitExceeded",
        "The maximum number of VPCs has been reached.",
        QUOTA,
        "https://console.aws.amazon.com/servicequotas/home/services/vpc/quotas/L-F678F1CE",
    ),
    row(
        "ec2:RunInstances",
        400,
        "VcpuLimitExceeded",
        "You have requested more vCPU capacity than your current vCPU limit of 32 allows",
        QUOTA,
        "L-1216C47A",
    ),
    row(
        "eks:CreateCluster",
        400,
        "InvalidParameterException",
        "unsupported Kubernetes version",
        (Trouble::Version, ErrorClass::Terminal, true),
        "describe-cluster-versions",
    ),
    row(
        "eks:CreateCluster",
        400,
        "UnsupportedAvailabilityZoneException",
        "Cannot create cluster 'x' because us-east-1e, the targeted availability zone, does not currently have sufficient \
         capacity to support the cluster.",
        (Trouble::Zone, ErrorClass::Terminal, true),
        "swap the subnet",
    ),
    row(
        "glue:CreateDatabase",
        400,
        "AccessDeniedException",
        "Insufficient Lake Formation permission(s): Required Create Database on Catalog",
        (Trouble::LakeFormation, ErrorClass::Terminal, true),
        "grant-permissions",
    ),
    row(
        "eks:CreateCluster",
        403,
        "AccessDenied",
        "User: arn:aws:iam::1:user/u is not authorized to perform: eks:CreateCluster",
        DENIED,
        "allow eks:CreateCluster",
    ),
    row(
        "ecr:CreateRepository",
        400,
        "LimitExceededException",
        "You've reached your quota",
        QUOTA,
        "L-CFEB8E8D",
    ),
    row(
        "ec2:RunInstances",
        500,
        "InsufficientInstanceCapacity",
        "We currently do not have sufficient m7i.2xlarge capacity in the Availability Zone you requested",
        (Trouble::Capacity, ErrorClass::Retryable, true),
        "another type or subnet",
    ),
    row(
        "ec2:RunInstances",
        400,
        "IdempotentParameterMismatch",
        "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
        (Trouble::TokenReused, ErrorClass::Terminal, true),
        "the same token with other parameters",
    ),
    row("eks:CreateCluster", 500, "ServerException", "Internal", SERVICE, ""),
    row("eks:CreateCluster", 503, "ServiceUnavailable", "busy", SERVICE, ""),
    row("eks:CreateCluster", 400, "ValidationException", "bad", OTHER, ""),
    row("eks:DescribeCluster", 400, "com.amazonaws.eks#ResourceNotFoundException", "no", OTHER, ""),
];

#[test]
fn the_error_catalogue() {
    for row in CATALOGUE {
        let failure = answered(row.status, row.code, row.message);
        let error = classify_failure(row.action, &failure);
        let code = row.code.rsplit('#').next().unwrap_or_default();
        let at = format!("{}: {}", row.code, row.message);
        assert_eq!(trouble_of(row.action, code, Some(row.status), row.message), row.trouble, "{at}");
        assert_eq!((error.class, error.no_effect), (row.class, row.no_effect), "{at}");
        assert_eq!(error.code, code, "{at}");
        assert_eq!(error.request_id.as_deref(), Some("req-1"), "{at}");
        assert!(error.message.contains(row.action) && error.message.contains(row.message), "{at}");
        let help = error.help.unwrap_or_default();
        assert!(help.contains(row.help) && help.is_empty() == row.help.is_empty(), "{at}: {help}");
    }
}

/// The row of the catalogue that is no error of a call: a control plane that stays CREATING for hours.
#[test]
fn slow_progress_goes_on_and_never_asks_for_a_second() {
    let error = slow_progress("cluster x", "CREATING", Duration::from_mins(59));
    assert_eq!(
        (error.class, error.code.as_str(), error.no_effect),
        (ErrorClass::Retryable, "SlowProgress", true)
    );
    assert!(error.message.contains("CREATING after 59 minutes"), "{error}");
    assert!(error.help.is_some_and(|help| help.contains("never asks for a second one")));
}

#[test]
fn only_a_request_that_was_not_sent_surely_did_nothing() {
    let lost = |reach| Failure {
        reach,
        status: None,
        code: "ConnectionFailed".into(),
        message: String::new(),
        request_id: None,
        retry_after_s: None,
    };
    let before = classify_failure("ec2:X", &lost(Reach::NotSent));
    let after = classify_failure("ec2:X", &lost(Reach::Unknown));
    assert_eq!((before.class, before.no_effect), (ErrorClass::Retryable, true));
    assert_eq!((after.class, after.no_effect), (ErrorClass::Retryable, false));
    assert!(surely_not_sent("dispatch failure: io error: error trying to connect: tcp connect error"));
    assert!(!surely_not_sent("connection closed before message completed"));
    assert!(!surely_not_sent("connection reset by peer"));
}

#[test]
fn the_services_wish_is_kept() {
    let failure = Failure { retry_after_s: Some(7), ..answered(429, "ThrottlingException", "x") };
    assert_eq!(classify_failure("eks:X", &failure).retry_after_ms, Some(7000));
}

#[test]
fn not_there_is_an_answer() {
    let gone: ActivityResult<()> = Err(ActivityError::terminal("NoSuchEntity", "x"));
    assert_eq!(none_if(gone.clone(), &["NoSuchEntity"]), Ok(None));
    assert!(none_if(gone, &["Other"]).is_err());
}
