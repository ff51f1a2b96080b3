//! What the Docker Engine's texts mean. It tells all that goes wrong at a registry or in a build by a text, and the
//! same HTTP status for all, so this is the one place where texts are read.

use dssflow_engine::activity::{ActivityError, ErrorClass};

/// What the daemon says when the network between it and a registry fails.
const NETWORK: &[&str] = &[
    "connection refused",
    "connection reset by peer",
    "i/o timeout",
    "TLS handshake timeout",
    "no such host",
    "temporary failure in name resolution",
    "server misbehaving",
    "network is unreachable",
    "no route to host",
    "broken pipe",
    "unexpected EOF",
    "Client.Timeout exceeded",
    "context deadline exceeded",
    "request canceled while waiting for connection",
    "use of closed network connection",
    "received unexpected HTTP status: 5",
    "500 Internal Server Error",
    "502 Bad Gateway",
    "503 Service Unavailable",
    "504 Gateway Timeout",
    ": EOF",
];
const THROTTLED: &[&str] = &["toomanyrequests", "429 Too Many Requests", "Rate exceeded", "pull rate limit"];
/// A new login mends these where the token was a good one once (P04).
const LOGIN_OVER: &[&str] =
    &["authorization token has expired", "no basic auth credentials", "token has expired", "token expired"];
const LOGIN_WRONG: &[&str] = &[
    "authentication required",
    "incorrect username or password",
    "invalid username/password",
    "401 Unauthorized",
];
const NO_REPOSITORY: &[&str] = &["name unknown", "repository does not exist", "NAME_UNKNOWN"];
const IMMUTABLE: &[&str] = &["cannot be overwritten because", "is immutable", "TAG_INVALID"];
const DENIED: &[&str] = &["denied", "403 Forbidden"];

fn says(text: &str, any: &[&str]) -> bool {
    let text = text.to_lowercase();
    any.iter().any(|part| text.contains(&part.to_lowercase()))
}

/// Whether the text tells of a network that failed.
pub(super) fn is_network(text: &str) -> bool {
    says(text, NETWORK)
}

/// Whether the text tells of a login that a new one mends.
pub(super) fn login_is_over(text: &str) -> bool {
    says(text, LOGIN_OVER)
}

/// What it means that a push to `target` failed with this text. `fresh` says that each attempt logs in anew by itself.
pub(super) fn of_push(target: &str, text: &str, fresh: bool) -> ActivityError {
    let message = format!("push of {target}: {text}");
    let new = |class, code: &str| ActivityError::new(class, code, message.clone());
    if says(text, THROTTLED) {
        // An earlier layer may be there already.
        let mut error = ActivityError::throttled("RegistryThrottled", message.clone());
        error.no_effect = false;
        return error;
    }
    if login_is_over(text) || (fresh && says(text, LOGIN_WRONG)) {
        if fresh {
            return new(ErrorClass::Retryable, "RegistryLoginExpired")
                .help("the next attempt logs in anew; if that goes on, compare this machine's clock with the registry's");
        }
        return login_refused(message);
    }
    if says(text, LOGIN_WRONG) {
        return login_refused(message);
    }
    if says(text, NO_REPOSITORY) {
        return new(ErrorClass::Terminal, "RepositoryMissing")
            .help("make the repository first: ECR makes none by a push")
            .no_effect();
    }
    if says(text, IMMUTABLE) {
        return new(ErrorClass::Terminal, "TagImmutable")
            .help("the repository keeps its tags: choose a tag that is not there, or make its tags mutable")
            .no_effect();
    }
    if says(text, NETWORK) {
        return new(ErrorClass::Retryable, "RegistryUnreachable");
    }
    if says(text, DENIED) {
        return new(ErrorClass::Terminal, "PushDenied").help(
            "for ECR the principal needs ecr:InitiateLayerUpload, UploadLayerPart, CompleteLayerUpload, \
             BatchCheckLayerAvailability and PutImage on the repository; for others, the right to push",
        );
    }
    new(ErrorClass::Terminal, "PushFailed")
}

/// A login that the registry refuses.
pub(super) fn login_refused(message: String) -> ActivityError {
    ActivityError::credentials("RegistryLoginRefused", message)
        .help("put a login with the right to push where the spec says it lies; the run goes on by itself")
}

/// What it means that a build failed with this text. `log` is the end of what it printed.
pub(super) fn of_build(image: &str, text: &str, log: &str) -> ActivityError {
    let ended = if log.is_empty() { String::new() } else { format!("\nthe log ends:\n{log}") };
    let message = format!("build of {image}: {}{ended}", text.trim_end());
    // What a RUN printed is not the daemon's own trouble.
    let command = text.contains("returned a non-zero code");
    if !command && says(text, THROTTLED) {
        return ActivityError::throttled("RegistryThrottled", message);
    }
    if !command && (is_network(text) || login_is_over(text)) {
        return ActivityError::retryable("BaseImageUnreachable", message);
    }
    if !command
        && says(text, &["pull access denied", "manifest unknown", "authentication required", "denied"])
    {
        return ActivityError::terminal("BaseImageMissing", message).help(
            "is the image behind FROM spelt right, and does `registries` name a login for its registry?",
        );
    }
    let error = ActivityError::terminal("BuildFailed", message);
    if text.contains("requires BuildKit") {
        return error.help("the image is built by Docker's classic builder; do without --mount and heredocs");
    }
    if says(text, &["no space left on device"]) {
        return error.help("`docker system df` shows what fills the disk");
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_push() {
        use ErrorClass::{Credentials, Retryable, Terminal, Throttled};
        let expired = "denied: Your authorization token has expired. Reauthenticate and try again.";
        let immutable = "tag invalid: The image tag '1' already exists in the 'lab/exec' repository and cannot be \
                         overwritten because the repository is immutable.";
        for (text, fresh, class, code) in [
            (expired, true, Retryable, "RegistryLoginExpired"),
            (expired, false, Credentials, "RegistryLoginRefused"),
            ("no basic auth credentials", true, Retryable, "RegistryLoginExpired"),
            ("unauthorized: authentication required", true, Retryable, "RegistryLoginExpired"),
            ("unauthorized: authentication required", false, Credentials, "RegistryLoginRefused"),
            ("denied: requested access to the resource is denied", false, Terminal, "PushDenied"),
            (
                "name unknown: The repository with name 'lab/x' does not exist in the registry with id '123456789012'",
                true,
                Terminal,
                "RepositoryMissing",
            ),
            (immutable, true, Terminal, "TagImmutable"),
            ("toomanyrequests: Rate exceeded", true, Throttled, "RegistryThrottled"),
            (
                "Put \"https://h/v2/x/blobs/uploads/1\": dial tcp 10.0.0.1:443: connect: connection refused",
                true,
                Retryable,
                "RegistryUnreachable",
            ),
            (
                "Get \"https://h/v2/\": net/http: TLS handshake timeout",
                true,
                Retryable,
                "RegistryUnreachable",
            ),
            (
                "received unexpected HTTP status: 503 Service Unavailable",
                true,
                Retryable,
                "RegistryUnreachable",
            ),
            ("blob upload invalid", true, Terminal, "PushFailed"),
        ] {
            let error = of_push("h/lab/exec:1", text, fresh);
            assert_eq!((error.class, error.code.as_str()), (class, code), "{text}");
            assert!(error.message.contains("h/lab/exec:1") && error.message.contains(text), "{error}");
        }
    }

    #[test]
    fn texts_of_a_build() {
        for (text, class, code) in [
            (
                "The command '/bin/sh -c make' returned a non-zero code: 2",
                ErrorClass::Terminal,
                "BuildFailed",
            ),
            (
                "The command 'curl' returned a non-zero code: connection refused",
                ErrorClass::Terminal,
                "BuildFailed",
            ),
            ("dockerfile parse error line 2: unknown instruction: RAN", ErrorClass::Terminal, "BuildFailed"),
            (
                "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host",
                ErrorClass::Retryable,
                "BaseImageUnreachable",
            ),
            (
                "pull access denied for nosuch, repository does not exist",
                ErrorClass::Terminal,
                "BaseImageMissing",
            ),
            (
                "toomanyrequests: You have reached your pull rate limit",
                ErrorClass::Throttled,
                "RegistryThrottled",
            ),
        ] {
            let error = of_build("lab/exec:1", text, "line 1\nline 2");
            assert_eq!((error.class, error.code.as_str()), (class, code), "{text}");
            assert!(error.message.ends_with("the log ends:\nline 1\nline 2"), "{error}");
        }
        assert_eq!(of_build("x:1", "no", "").message, "build of x:1: no");
        let buildkit = of_build("x:1", "the --mount option requires BuildKit.", "");
        assert!(buildkit.help.is_some_and(|help| help.contains("classic")));
    }
}
