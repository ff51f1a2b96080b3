//! Tells what an AWS error means for the run, by its code, HTTP status and, where AWS gives no better code, its text.
//!
//! The same table serves every service. It never decides whether to try again: it names the class, says whether the
//! call can have had an effect, and adds what mends it.
//!
//! Pages: <https://docs.aws.amazon.com/eks/latest/APIReference/CommonErrors.html>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>.

use std::error::Error;
use std::time::Duration;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use dssflow_engine::activity::{ActivityError, ActivityResult, ErrorClass};

/// How far a call got before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The request was never sent.
    NotSent,
    /// It may have been sent; no answer that can be read came back.
    Unknown,
    /// The service answered.
    Answered,
}

/// What is known of a failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How far it got.
    pub reach: Reach,
    /// The HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// The service's error code, as `ResourceInUseException`; of a call without an answer, a word of ours.
    pub code: String,
    /// The service's text.
    pub message: String,
    /// The service's id of the request.
    pub request_id: Option<String>,
    /// Seconds asked for by a `Retry-After` header.
    pub retry_after_s: Option<u64>,
}

/// Turns the error of a call into the engine's terms. `action` is the IAM action, as `eks:CreateCluster`.
pub fn classify<E>(action: &str, error: SdkError<E, HttpResponse>) -> ActivityError
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    classify_failure(action, &failure_of(error))
}

/// Reads what a failed call tells.
pub fn failure_of<E>(error: SdkError<E, HttpResponse>) -> Failure
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let headers = |raw: &HttpResponse| {
        let get = |name: &str| raw.headers().get(name).map(str::to_owned);
        let id = get("x-amzn-requestid").or_else(|| get("x-amz-request-id"));
        (Some(raw.status().as_u16()), id, get("retry-after").and_then(|s| s.parse().ok()))
    };
    let failure = |reach, code: &str, message: String| Failure {
        reach,
        status: None,
        code: code.to_owned(),
        message,
        request_id: None,
        retry_after_s: None,
    };
    match error {
        SdkError::ServiceError(service) => {
            let (status, request_id, retry_after_s) = headers(service.raw());
            let meta = service.err().meta();
            Failure {
                reach: Reach::Answered,
                status,
                code: meta
                    .code()
                    .map_or_else(|| format!("Http{}", status.unwrap_or_default()), str::to_owned),
                message: meta.message().map_or_else(|| service.err().to_string(), str::to_owned),
                request_id: request_id.or_else(|| meta.extra("aws_request_id").map(str::to_owned)),
                retry_after_s,
            }
        }
        SdkError::ResponseError(response) => {
            let (status, request_id, retry_after_s) = headers(response.raw());
            let text = DisplayErrorContext(&SdkError::<E, HttpResponse>::ResponseError(response)).to_string();
            Failure {
                status,
                request_id,
                retry_after_s,
                ..failure(Reach::Unknown, "ResponseUnreadable", text)
            }
        }
        SdkError::TimeoutError(_) => {
            failure(Reach::Unknown, "Timeout", DisplayErrorContext(&error).to_string())
        }
        SdkError::ConstructionFailure(_) => {
            failure(Reach::NotSent, "RequestInvalid", DisplayErrorContext(&error).to_string())
        }
        SdkError::DispatchFailure(ref dispatch) => {
            let user = dispatch.is_user();
            let text = DisplayErrorContext(&error).to_string();
            let code = match () {
                () if is_credentials_text(&text) => "NoCredentials",
                () if user => "RequestInvalid",
                () => "ConnectionFailed",
            };
            let reach = if code != "ConnectionFailed" || surely_not_sent(&text) {
                Reach::NotSent
            } else {
                Reach::Unknown
            };
            failure(reach, code, text)
        }
        other => failure(Reach::Unknown, "Unknown", DisplayErrorContext(&other).to_string()),
    }
}

/// A connection that was never made carries nothing. Only failures to connect say these; a reset later says others.
fn surely_not_sent(text: &str) -> bool {
    const BEFORE: &[&str] = &[
        "client error (Connect)",
        "error trying to connect",
        "Connection refused",
        "connection refused",
        "dns error",
        "failed to lookup address",
        "ConnectError",
        "tcp connect error",
        "HTTP connect timeout",
    ];
    BEFORE.iter().any(|part| text.contains(part))
}

fn is_credentials_text(text: &str) -> bool {
    [
        "CredentialsNotLoaded",
        "credentials provider",
        "no providers in chain",
        "CredentialsError",
        "ProviderError",
    ]
    .iter()
    .any(|part| text.contains(part))
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
const QUOTA: &[&str] = &[
    "LimitExceeded",
    "LimitExceededException",
    "ResourceLimitExceededException",
    "ResourceNumberLimitExceededException",
    "ServiceQuotaExceededException",
    "AddressLimitExceeded",
    "VpcLimitExceeded",
    "VcpuLimitExceeded",
    "InstanceLimitExceeded",
    "SecurityGroupLimitExceeded",
    "RulesPerSecurityGroupLimitExceeded",
    "SecurityGroupsPerInterfaceLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "VolumeLimitExceeded",
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
];
/// Texts by which AWS says that a role made a moment ago is not known everywhere yet.
const PROPAGATION: &[&str] = &[
    "could not be assumed because it does not exist or the trusted entity is not correct",
    "Error in role params",
    "Role provided in the request does not exist",
    "Invalid principal in policy",
];

fn is_quota(code: &str) -> bool {
    QUOTA.contains(&code) || (code.ends_with("LimitExceeded") && !THROTTLED.contains(&code))
}

/// The table. Pure, so that the error catalogue can be tested on it.
pub fn classify_failure(action: &str, failure: &Failure) -> ActivityError {
    let Failure { reach, status, code, message, request_id, retry_after_s } = failure;
    let code = code.rsplit('#').next().unwrap_or(code).split(':').next().unwrap_or(code);
    let says = |texts: &[&str]| texts.iter().any(|part| message.contains(part));
    let text = format!("{action}: {message}");
    let new = |class| ActivityError::new(class, code, text.clone());
    let retryable = || new(ErrorClass::Retryable);

    let mut error = if CREDENTIALS.contains(&code) {
        new(ErrorClass::Credentials)
            .no_effect()
            .help("renew the credentials (`aws sso login`, a new session, or the instance's role); the run goes on by itself")
    } else if THROTTLED.contains(&code) || *status == Some(429) {
        new(ErrorClass::Throttled).no_effect()
    } else if says(PROPAGATION) {
        retryable().no_effect().help(
            "a role made a moment ago takes up to some minutes to be known everywhere; \
             if it goes on, compare the role's trust policy with the service that uses it",
        )
    } else if says(&["Insufficient Lake Formation permission"]) {
        new(ErrorClass::Terminal).no_effect().help(
            "Lake Formation guards this catalog, IAM rights alone do not do: \
             `aws lakeformation grant-permissions --principal DataLakePrincipalIdentifier=ARN \
             --resource '{\"Catalog\":{}}' --permissions CREATE_DATABASE`",
        )
    } else if DENIED.contains(&code) {
        new(ErrorClass::Terminal).no_effect().help(format!(
            "allow {action} for the principal the message names; \
             an explicit deny may come from a boundary or an organisation's policy"
        ))
    } else if is_quota(code) {
        new(ErrorClass::NeedsHuman).no_effect().help(quota_help(code))
    } else if EXISTS.contains(&code) {
        // Not "no effect": the thing may be this very step's, of a call whose answer was lost.
        retryable().help("something of that name exists; its tags tell whose it is")
    } else if NOT_YET.contains(&code)
        || says(&["has some mapped public address", "has dependencies and cannot be deleted"])
    {
        retryable().no_effect().help("something still uses it: network interfaces and load balancers go some minutes after their owner")
    } else if code == "UnsupportedAvailabilityZoneException" {
        new(ErrorClass::Terminal)
            .no_effect()
            .help("swap the subnet for one in a zone the message names as valid")
    } else if says(&["unsupported Kubernetes version"]) {
        new(ErrorClass::Terminal)
            .no_effect()
            .help("`aws eks describe-cluster-versions` lists the versions on offer")
    } else if code.starts_with("IdempotentParameterMismatch") || code == "IdempotencyException" {
        new(ErrorClass::Terminal).no_effect().help(
            "an earlier call of this step used the same token with other parameters; look at what it made",
        )
    } else if code == "RequestInvalid" {
        new(ErrorClass::Terminal).no_effect()
    } else {
        match (reach, status) {
            (Reach::NotSent, _) => retryable().no_effect(),
            (Reach::Unknown, _) => retryable(),
            (Reach::Answered, Some(status)) if *status >= 500 => retryable(),
            (Reach::Answered, _) if is_server_side(code) => retryable(),
            (Reach::Answered, _) => new(ErrorClass::Terminal).no_effect(),
        }
    };
    error.request_id.clone_from(request_id);
    if let Some(seconds) = retry_after_s {
        error = error.retry_after(Duration::from_secs(*seconds));
    }
    error
}

fn is_server_side(code: &str) -> bool {
    const CODES: &[&str] = &[
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
        "InsufficientInstanceCapacity",
    ];
    CODES.contains(&code)
}

fn quota_help(code: &str) -> String {
    let quota = match code {
        "AddressLimitExceeded" => "EC2-VPC Elastic IPs, quota L-0263D0A3",
        "VpcLimitExceeded" => "VPCs per region, quota L-F678F1CE",
        "VcpuLimitExceeded" | "InstanceLimitExceeded" => {
            "running on-demand standard instances (vCPU), quota L-1216C47A"
        }
        _ => "the quota the message names",
    };
    format!(
        "raise {quota} at https://console.aws.amazon.com/servicequotas, or free some; then resume the run"
    )
}

/// `Ok(None)` when the call failed with one of `codes`: the thing is not there.
///
/// # Errors
/// Every other error of the call.
pub fn none_if<T>(result: ActivityResult<T>, codes: &[&str]) -> ActivityResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if codes.contains(&error.code.as_str()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An answer that lacks what its documentation promises.
pub(crate) fn incomplete(action: &str, what: &str) -> ActivityError {
    ActivityError::retryable("AnswerIncomplete", format!("{action}: the answer has no {what}"))
}

#[cfg(test)]
mod tests {
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

    /// The error catalogue: texts seen in the wild.
    #[test]
    fn the_error_catalogue() {
        use ErrorClass::{Credentials, NeedsHuman, Retryable, Terminal, Throttled};
        let table = [
            (409, "ResourceInUseException", "Cluster already exists with name: X", Retryable, false),
            (
                400,
                "InvalidParameterException",
                "Role with arn: arn:aws:iam::1:role/r, could not be assumed because it does not exist or the trusted entity is not correct",
                Retryable,
                true,
            ),
            (400, "InvalidRequestException", "Error in role params", Retryable, true),
            (
                400,
                "InvalidParameterException",
                "Role provided in the request does not exist.",
                Retryable,
                true,
            ),
            (400, "Throttling", "Rate exceeded", Throttled, true),
            (429, "TooManyRequestsException", "Too many", Throttled, true),
            (503, "RequestLimitExceeded", "Request limit exceeded.", Throttled, true),
            (400, "ExpiredToken", "The security token included in the request is expired", Credentials, true),
            (
                400,
                "ExpiredTokenException",
                "The security token included in the request is expired",
                Credentials,
                true,
            ),
            (
                403,
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
                Credentials,
                true,
            ),
            (
                400,
                "DependencyViolation",
                "The subnet 'subnet-1' has dependencies and cannot be deleted.",
                Retryable,
                true,
            ),
            (
                400,
                "DependencyViolation",
                "Network vpc-1 has some mapped public address(es).",
                Retryable,
                true,
            ),
            (
                400,
                "AddressLimitExceeded",
                "The maximum number of addresses has been reached.",
                NeedsHuman,
                true,
            ),
            (400, "VpcLimitExceeded", "The maximum number of VPCs has been reached.", NeedsHuman, true),
            (400, "InvalidParameterException", "unsupported Kubernetes version", Terminal, true),
            (
                400,
                "UnsupportedAvailabilityZoneException",
                "Cannot create cluster 'x' because us-east-1e ...",
                Terminal,
                true,
            ),
            (
                400,
                "AccessDeniedException",
                "Insufficient Lake Formation permission(s): Required Create Database on Catalog",
                Terminal,
                true,
            ),
            (
                403,
                "AccessDenied",
                "User: arn:aws:iam::1:user/u is not authorized to perform: eks:CreateCluster",
                Terminal,
                true,
            ),
            (400, "LimitExceededException", "You've reached your quota", NeedsHuman, true),
            (500, "ServerException", "Internal", Retryable, false),
            (503, "ServiceUnavailable", "busy", Retryable, false),
            (400, "ValidationException", "bad", Terminal, true),
            (400, "com.amazonaws.eks#ResourceNotFoundException", "no", Terminal, true),
        ];
        for (status, code, message, class, no_effect) in table {
            let error = classify_failure("eks:CreateCluster", &answered(status, code, message));
            assert_eq!((error.class, error.no_effect), (class, no_effect), "{code}: {message}");
            assert_eq!(error.request_id.as_deref(), Some("req-1"));
            assert!(error.message.contains(message));
        }
    }

    #[test]
    fn help_says_what_mends_it() {
        let help = |code: &str, message: &str| {
            classify_failure("glue:CreateDatabase", &answered(400, code, message)).help.unwrap_or_default()
        };
        assert!(help("AccessDeniedException", "no").contains("allow glue:CreateDatabase"));
        assert!(
            help("AccessDeniedException", "Insufficient Lake Formation permission(s): x")
                .contains("grant-permissions")
        );
        assert!(help("AddressLimitExceeded", "x").contains("L-0263D0A3"));
        assert!(help("ExpiredToken", "x").contains("aws sso login"));
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
}
