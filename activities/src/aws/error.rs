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

pub use self::catalogue::{Trouble, help, trouble, trouble_in};

mod catalogue;

/// What an error and those below it say, each once. The SDK's own way of printing an error adds all that is inside it,
/// a page of names of types.
pub fn in_words(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        below = cause.source();
    }
    text
}

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
            let text = in_words(&SdkError::<E, HttpResponse>::ResponseError(response));
            Failure {
                status,
                request_id,
                retry_after_s,
                ..failure(Reach::Unknown, "ResponseUnreadable", text)
            }
        }
        SdkError::TimeoutError(_) => failure(Reach::Unknown, "Timeout", in_words(&error)),
        SdkError::ConstructionFailure(_) => failure(Reach::NotSent, "RequestInvalid", in_words(&error)),
        SdkError::DispatchFailure(ref dispatch) => {
            let user = dispatch.is_user();
            // Which it is only the names of the types inside tell.
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
            failure(reach, code, in_words(&error))
        }
        other => failure(Reach::Unknown, "Unknown", in_words(&other)),
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

/// The table. Pure, so that the error catalogue can be tested on it.
pub fn classify_failure(action: &str, failure: &Failure) -> ActivityError {
    let Failure { reach, status, code, message, request_id, retry_after_s } = failure;
    let code = code.rsplit('#').next().unwrap_or(code).split(':').next().unwrap_or(code);
    let trouble = trouble_of(action, code, *status, message);
    let (class, no_effect) = match trouble {
        Trouble::Credentials => (ErrorClass::Credentials, true),
        Trouble::Throttled => (ErrorClass::Throttled, true),
        Trouble::Quota => (ErrorClass::NeedsHuman, true),
        Trouble::EventualConsistency | Trouble::NotYet | Trouble::Capacity => (ErrorClass::Retryable, true),
        // Not "no effect": the thing may be this very step's, of a call whose answer was lost.
        Trouble::Exists | Trouble::Service => (ErrorClass::Retryable, false),
        Trouble::LakeFormation
        | Trouble::Denied
        | Trouble::Zone
        | Trouble::Version
        | Trouble::Protected
        | Trouble::TokenReused => (ErrorClass::Terminal, true),
        Trouble::Other if code == "RequestInvalid" => (ErrorClass::Terminal, true),
        Trouble::Other => match (reach, status) {
            (Reach::NotSent, _) => (ErrorClass::Retryable, true),
            (Reach::Unknown, _) => (ErrorClass::Retryable, false),
            (Reach::Answered, Some(status)) if *status >= 500 => (ErrorClass::Retryable, false),
            (Reach::Answered, _) => (ErrorClass::Terminal, true),
        },
    };
    let mut error = ActivityError::new(class, code, format!("{action}: {message}"));
    error.no_effect = no_effect;
    error.help = help(trouble, action, code);
    error.request_id.clone_from(request_id);
    if let Some(seconds) = retry_after_s {
        error = error.retry_after(Duration::from_secs(*seconds));
    }
    error
}

/// Whether an error of this code goes away when the AWS credentials of the caller are renewed.
pub fn is_renewable(code: &str) -> bool {
    trouble(code, None, "") == Trouble::Credentials
}

/// Which trouble an error of the call `action` stands for.
fn trouble_of(action: &str, code: &str, status: Option<u16>, message: &str) -> Trouble {
    let deletes = action.split(':').next_back().is_some_and(|operation| operation.starts_with("Delete"));
    match trouble(code, status, message) {
        // "In use" by what still hangs on it: what is deleted cannot be in its own way.
        Trouble::Exists if deletes => Trouble::NotYet,
        trouble => trouble,
    }
}

/// Whether an error says that IAM has not spread what it made a moment ago.
pub(crate) fn is_propagation(error: &ActivityError) -> bool {
    trouble(&error.code, None, &error.message) == Trouble::EventualConsistency
}

/// The code of [`slow_progress`].
pub(crate) const SLOW_PROGRESS: &str = "SlowProgress";

/// The end of one attempt at a wait that takes long: it goes on, and nothing is asked for again.
pub(crate) fn slow_progress(what: &str, status: &str, waited: Duration) -> ActivityError {
    ActivityError::retryable(
        SLOW_PROGRESS,
        format!("{what} is still {status} after {} minutes of this attempt", waited.as_secs() / 60),
    )
    .help(
        "AWS has been seen to take two and a half hours for a control plane that came up in the end: the wait goes on, \
         and never asks for a second one; `dssflow why RUN` shows the last status",
    )
    .no_effect()
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
mod tests;
