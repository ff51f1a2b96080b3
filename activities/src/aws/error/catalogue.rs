//! The catalogue: which trouble a code or a text of AWS stands for, and what mends it.
//!
//! Its rows were collected from public reports of what goes wrong between EKS, EC2, IAM, Glue, ECR and eksctl. It is
//! read by code where AWS gives a code of its own, and by text where it does not; and by text alone for what tools
//! print, as eksctl and kubectl do through DSS. It knows nothing of calls, attempts or time.

/// What an error means. Each kind has one class and one way to be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Credentials are missing, expired or wrong: the run pauses, and goes on by itself once they are renewed.
    Credentials,
    /// Asked too often: asked again later, at no attempt's cost.
    Throttled,
    /// What IAM made a moment ago is not known everywhere yet.
    EventualConsistency,
    /// Lake Formation guards the catalog: rights of IAM alone do not do.
    LakeFormation,
    /// The principal may not do it.
    Denied,
    /// A quota of the account is used up: a person has to raise it or to free something.
    Quota,
    /// Something of that name is there; its tags tell whose it is.
    Exists,
    /// Something still hangs on it, or it is on its way: asked again for a quarter of an hour.
    NotYet,
    /// A zone that cannot host a control plane.
    Zone,
    /// A Kubernetes version EKS makes no cluster with.
    Version,
    /// The token was used for another request before.
    TokenReused,
    /// No machine of that kind is to be had just now.
    Capacity,
    /// Somebody protected it from being deleted.
    Protected,
    /// The service failed; whether it did what was asked is not known.
    Service,
    /// None of these.
    Other,
}

const CREDENTIALS: &[&str] = &[
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "AuthFailure",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "IncompleteSignature",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NoCredentials",
    "InvalidToken",
    "TokenRefreshRequired",
];
const THROTTLED: &[&str] = &[
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "BandwidthLimitExceeded",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "EC2ThrottledException",
    "SlowDown",
];
const DENIED: &[&str] = &[
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "AuthorizationError",
    "OptInRequired",
];
/// Codes of used-up quotas that do not end in `LimitExceeded`.
const QUOTA: &[&str] = &[
    "LimitExceededException",
    "ResourceLimitExceededException",
    "ResourceNumberLimitExceededException",
    "ServiceQuotaExceededException",
    "MaxSpotInstanceCountExceeded",
];
/// Something of that name is there: the next attempt's probe tells whose it is.
const EXISTS: &[&str] = &[
    "ResourceInUseException",
    "RepositoryAlreadyExistsException",
    "AlreadyExistsException",
    "EntityAlreadyExists",
    "EntityAlreadyExistsException",
    "InvalidLaunchTemplateName.AlreadyExistsException",
    "InvalidGroup.Duplicate",
    "InvalidKeyPair.Duplicate",
];
/// Not now: something still hangs on it or is on its way.
const NOT_YET: &[&str] = &[
    "DependencyViolation",
    "ResourceInUse",
    "DeleteConflict",
    "DeleteConflictException",
    "IncorrectState",
    "IncorrectInstanceState",
    "ConcurrentModification",
    "ConcurrentModificationException",
    "OperationInProgressException",
    "EntityTemporarilyUnmodifiable",
    "PendingVerification",
];
const SERVICE: &[&str] = &[
    "InternalFailure",
    "InternalError",
    "InternalServerError",
    "InternalServerException",
    "InternalServiceException",
    "ServerException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "ServiceFailureException",
    "ServiceFailure",
    "Unavailable",
    "RequestTimeout",
    "RequestTimeoutException",
    "OperationTimeoutException",
];
const CAPACITY: &[&str] =
    &["InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientCapacity"];

/// Texts that mean the same whatever the code is.
const TEXTS: &[(Trouble, &str)] = &[
    (
        Trouble::EventualConsistency,
        "could not be assumed because it does not exist or the trusted entity is not correct",
    ),
    (Trouble::EventualConsistency, "Error in role params"),
    (Trouble::EventualConsistency, "Role provided in the request does not exist"),
    (Trouble::EventualConsistency, "Invalid principal in policy"),
    (Trouble::LakeFormation, "Insufficient Lake Formation permission"),
    (Trouble::NotYet, "has some mapped public address"),
    (Trouble::NotYet, "has dependencies and cannot be deleted"),
    (Trouble::NotYet, "has a dependent object"),
    (Trouble::NotYet, "is currently in use"),
    (Trouble::Version, "unsupported Kubernetes version"),
    (Trouble::Protected, "TerminationProtection is enabled"),
    (Trouble::Protected, "disableApiTermination"),
    (Trouble::Protected, "deletion protection"),
    (Trouble::Quota, "The maximum number of addresses has been reached"),
    (Trouble::Quota, "The maximum number of VPCs has been reached"),
];
/// Words of tools, which have no codes. Each line wants all of its parts.
const TOOL_TEXTS: &[(Trouble, &[&str])] = &[
    // An endpoint that has just become active does not answer for some minutes.
    (Trouble::NotYet, &["dial tcp", ":443", "i/o timeout"]),
    (Trouble::NotYet, &["dial tcp", "connection refused"]),
    (Trouble::Credentials, &["security token included in the request is expired"]),
    (Trouble::Throttled, &["Rate exceeded"]),
    (Trouble::Exists, &["already exists with name"]),
];

fn by_text(text: &str) -> Option<Trouble> {
    TEXTS.iter().find(|(_, part)| text.contains(part)).map(|(trouble, _)| *trouble)
}

/// Which trouble a code with its text stands for.
pub fn trouble(code: &str, status: Option<u16>, text: &str) -> Trouble {
    let is = |list: &[&str]| list.contains(&code);
    if is(CREDENTIALS) {
        Trouble::Credentials
    } else if is(THROTTLED) || status == Some(429) {
        Trouble::Throttled
    } else if let Some(trouble) = by_text(text) {
        trouble
    } else if is(DENIED) {
        Trouble::Denied
    } else if is(QUOTA) || code.ends_with("LimitExceeded") {
        Trouble::Quota
    } else if is(EXISTS) {
        Trouble::Exists
    } else if is(NOT_YET) {
        Trouble::NotYet
    } else if code == "UnsupportedAvailabilityZoneException" {
        Trouble::Zone
    } else if code.starts_with("IdempotentParameterMismatch") || code == "IdempotencyException" {
        Trouble::TokenReused
    } else if is(CAPACITY) {
        Trouble::Capacity
    } else if is(SERVICE) {
        Trouble::Service
    } else {
        Trouble::Other
    }
}

/// Which trouble a text without a code stands for: what a tool prints, or the reason of a stack. A code of AWS that
/// stands in it as a word counts as one. `None` when nothing in it is known.
pub fn trouble_in(text: &str) -> Option<Trouble> {
    let words = || text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').filter(|w| !w.is_empty());
    let by_code = words()
        .filter(|w| w.chars().next().is_some_and(char::is_uppercase) && w.len() > 8)
        .map(|word| trouble(word.trim_end_matches('.'), None, ""))
        .find(|t| !matches!(t, Trouble::Other | Trouble::Service));
    by_text(text).or(by_code).or_else(|| {
        TOOL_TEXTS.iter().find(|(_, parts)| parts.iter().all(|p| text.contains(p))).map(|(t, _)| *t)
    })
}

/// What mends it, for people. `action` is the IAM action of the call.
pub fn help(trouble: Trouble, action: &str, code: &str) -> Option<String> {
    let text = match trouble {
        Trouble::Credentials => {
            "renew the credentials (`aws sso login`, a new session, or the instance's role); the run goes on by itself"
        }
        Trouble::EventualConsistency => {
            "a role made a moment ago takes up to some minutes to be known everywhere; \
             if it goes on, compare the role's trust policy with the service that uses it"
        }
        Trouble::LakeFormation => {
            "Lake Formation guards this catalog, IAM rights alone do not do: \
             `aws lakeformation grant-permissions --principal DataLakePrincipalIdentifier=ARN \
             --resource '{\"Catalog\":{}}' --permissions CREATE_DATABASE`"
        }
        Trouble::Denied => {
            return Some(format!(
                "allow {action} for the principal the message names; \
                 an explicit deny may come from a boundary or an organisation's policy"
            ));
        }
        Trouble::Quota => return Some(quota_help(action, code)),
        Trouble::Exists => "something of that name exists; its tags tell whose it is",
        Trouble::NotYet => {
            "something still uses it: network interfaces, addresses and load balancers go some minutes after their owner"
        }
        Trouble::Zone => "swap the subnet for one in a zone the message names as valid",
        Trouble::Version => "`aws eks describe-cluster-versions` lists the versions on offer",
        Trouble::TokenReused => {
            "an earlier call of this step used the same token with other parameters; look at what it made"
        }
        Trouble::Capacity => {
            "AWS has none of that instance type in the zone just now; if it goes on, choose another type or subnet"
        }
        Trouble::Protected => {
            "somebody protected it from being deleted; if it may go, lift the protection, then `dssflow rollback RUN --retry`"
        }
        Trouble::Throttled | Trouble::Service | Trouble::Other => return None,
    };
    Some(text.to_owned())
}

/// A quota of an account.
struct Quota {
    name: &'static str,
    service: &'static str,
    code: &'static str,
}

const fn quota(name: &'static str, service: &'static str, code: &'static str) -> Quota {
    Quota { name, service, code }
}

/// The quota behind an error: by its code, and where one code serves many, by the call.
fn quota_of(action: &str, code: &str) -> Option<Quota> {
    Some(match (code, action) {
        ("AddressLimitExceeded", _) => quota("EC2-VPC Elastic IPs", "ec2", "L-0263D0A3"),
        ("VpcLimitExceeded", _) => quota("VPCs per region", "vpc", "L-F678F1CE"),
        ("VcpuLimitExceeded" | "InstanceLimitExceeded", _) => {
            quota("running on-demand standard instances (vCPU)", "ec2", "L-1216C47A")
        }
        ("NatGatewayLimitExceeded", _) => quota("NAT gateways per zone", "vpc", "L-FE5A380F"),
        ("InternetGatewayLimitExceeded", _) => quota("internet gateways per region", "vpc", "L-A4707A72"),
        ("SubnetLimitExceeded", _) => quota("subnets per VPC", "vpc", "L-407747CB"),
        ("SecurityGroupLimitExceeded", _) => quota("VPC security groups per region", "vpc", "L-E79EC296"),
        ("RulesPerSecurityGroupLimitExceeded", _) => quota("rules per security group", "vpc", "L-0EA8095F"),
        ("SecurityGroupsPerInterfaceLimitExceeded", _) => {
            quota("security groups per network interface", "vpc", "L-2AFB9258")
        }
        ("NetworkInterfaceLimitExceeded", _) => quota("network interfaces per region", "vpc", "L-DF5E4CA3"),
        ("VolumeLimitExceeded", _) => quota("storage of gp3 volumes", "ebs", "L-7A658B76"),
        (_, "eks:CreateCluster") => quota("EKS clusters per region", "eks", "L-1194D53C"),
        (_, "eks:CreateNodegroup") => quota("managed node groups per cluster", "eks", "L-6D54EA21"),
        (_, "ecr:CreateRepository") => quota("ECR repositories per region", "ecr", "L-CFEB8E8D"),
        (_, "iam:CreateRole") => quota("IAM roles per account", "iam", "L-FE177D64"),
        _ => return None,
    })
}

fn quota_help(action: &str, code: &str) -> String {
    match quota_of(action, code) {
        Some(Quota { name, service, code }) => format!(
            "raise the quota \"{name}\" ({code}) at \
             https://console.aws.amazon.com/servicequotas/home/services/{service}/quotas/{code} in the run's region, or \
             free some; then resume the run"
        ),
        None => "raise the quota the message names at https://console.aws.amazon.com/servicequotas in the run's region, \
                 or free some; then resume the run"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_print_is_read_by_the_codes_and_texts_in_it() {
        for (text, expected) in [
            (
                "waiting for CloudFormation stack \"eksctl-x-cluster\": AddressLimitExceeded: The maximum number of \
                 addresses has been reached.",
                Some(Trouble::Quota),
            ),
            (
                "Resource handler returned message: \"resource sg-0ab has a dependent object\"",
                Some(Trouble::NotYet),
            ),
            (
                "Get \"https://X.eks.amazonaws.com/api\": dial tcp 10.0.1.7:443: i/o timeout",
                Some(Trouble::NotYet),
            ),
            ("dial tcp 10.0.1.7:443: connect: connection refused", Some(Trouble::NotYet)),
            (
                "ExpiredToken: The security token included in the request is expired",
                Some(Trouble::Credentials),
            ),
            ("api error Throttling: Rate exceeded", Some(Trouble::Throttled)),
            ("UnsupportedAvailabilityZoneException: Cannot create cluster", Some(Trouble::Zone)),
            ("AlreadyExistsException: Stack [eksctl-x-cluster] already exists", Some(Trouble::Exists)),
            ("signal: killed", None),
            ("exit status 1", None),
        ] {
            assert_eq!(trouble_in(text), expected, "{text}");
        }
    }

    #[test]
    fn every_quota_is_told_with_its_name_code_and_link() {
        let help = |action: &str, code: &str| help(Trouble::Quota, action, code).unwrap();
        for (action, code, part) in [
            ("ec2:AllocateAddress", "AddressLimitExceeded", "services/ec2/quotas/L-0263D0A3"),
            ("ec2:CreateVpc", "VpcLimitExceeded", "services/vpc/quotas/L-F678F1CE"),
            ("ec2:RunInstances", "VcpuLimitExceeded", "services/ec2/quotas/L-1216C47A"),
            ("eks:CreateCluster", "ResourceLimitExceededException", "services/eks/quotas/L-1194D53C"),
            ("eks:CreateNodegroup", "ResourceLimitExceededException", "services/eks/quotas/L-6D54EA21"),
            ("ecr:CreateRepository", "LimitExceededException", "services/ecr/quotas/L-CFEB8E8D"),
        ] {
            assert!(help(action, code).contains(part), "{action} {code}: {}", help(action, code));
        }
        assert!(
            help("glue:CreateDatabase", "ResourceNumberLimitExceededException").contains("the message names")
        );
    }
}
