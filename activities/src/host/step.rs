//! What most host activities need: the host, commands as root or the service user, packages, downloads.
//!
//! Not an activity. Errors of tools are classed here, in one place, by what the tools print.

use std::sync::Arc;
use std::time::Duration;

use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult, ErrorClass, Probe, Recorded};
use dssflow_engine::time::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::SshHost;
use super::marker::{self, Marker};
use super::transport::{
    Host, HostCommand, HostError, HostHandle, HostOutput, HostUser, StartFence, is_account_name,
};

/// How long "absent" must hold after a lost attempt: the guard ends what the attempt left within about a second.
pub(super) const SETTLE: Duration = Duration::from_secs(2);
/// Why packages are never taken back.
pub(super) const PACKAGES_STAY: &str = "packages stay on an adopted host";
/// Package installation, by facts/dss.md section 14.
pub(super) const PACKAGE_TIMEOUT: Duration = Duration::from_mins(30);
/// Where the download of a tool is unpacked: a directory of its own, because tools are installed side by side.
pub(super) fn scratch(tool: &str) -> String {
    format!("/var/lib/dssflow/scratch-{tool}")
}

/// The injected host, its commands under the lock of this step: one at a time, also when an attempt that was cut off has
/// left one running there.
pub(super) fn host(ctx: &ActivityContext) -> ActivityResult<Arc<dyn Host>> {
    Ok(Arc::new(StepHost { host: beside(ctx)?, lock: lock(ctx), ctx: ctx.clone() }))
}

/// The injected host as it is, for a look while another command of the step runs.
pub(super) fn beside(ctx: &ActivityContext) -> ActivityResult<Arc<dyn Host>> {
    Ok(Arc::clone(&ctx.resource::<HostHandle>()?.0))
}

/// The lock of a step: of its run too, so that whoever holds it is an older command of the same step.
fn lock(ctx: &ActivityContext) -> String {
    let marks = ctx.marks();
    let hash = Sha256::digest(format!("{}\n{}\n{}", marks.store, marks.run, marks.step));
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let step: String = marks.step.chars().take(60).map(plain).collect();
    format!("{step}.{}", &hex::encode(hash)[..16])
}

/// A host on which every command has the lock of one step, and none is started for a run that is another's by now.
#[derive(Debug)]
struct StepHost {
    host: Arc<dyn Host>,
    lock: String,
    ctx: ActivityContext,
}

impl Host for StepHost {
    fn exec(&self, mut command: HostCommand) -> BoxFuture<'_, Result<HostOutput, HostError>> {
        command.lock.get_or_insert_with(|| self.lock.clone());
        let ctx = self.ctx.clone();
        let fence: StartFence = Arc::new(move || match ctx.fence() {
            Err(error) if error.class == ErrorClass::Cancelled => Err(error),
            // Who only looks has no run to lose; what it starts are probes.
            Ok(()) | Err(_) => Ok(()),
        });
        Box::pin(async move {
            // Asked here, so that what is lost waits for no lock, and again when the lock is held.
            fence().map_err(HostError::Fenced)?;
            command.fence = Some(fence);
            self.host.exec(command).await
        })
    }

    fn describe(&self) -> String {
        self.host.describe()
    }

    fn ssh(&self) -> Option<SshHost> {
        self.host.ssh()
    }
}

/// The service user, its name checked.
pub(super) fn service(name: &str) -> ActivityResult<HostUser> {
    if !is_account_name(name) || name == "root" {
        let message = format!("{name:?} cannot be the service user");
        return Err(ActivityError::terminal("BadUserName", message)
            .help("use a plain account name other than root: DSS must not run as root")
            .no_effect());
    }
    Ok(HostUser::Service(name.to_owned()))
}

/// A command as root.
pub(super) fn root<I: IntoIterator<Item = S>, S: Into<String>>(argv: I) -> HostCommand {
    HostCommand::new(HostUser::Root, argv)
}

/// Runs a command as root that must succeed.
pub(super) async fn run_root<I, S>(host: &dyn Host, argv: I) -> ActivityResult<HostOutput>
where
    I: IntoIterator<Item = S> + Send,
    S: Into<String>,
{
    let command = root(argv);
    Ok(host.run(command).await?)
}

/// Whether a command exits with 0.
pub(super) async fn succeeds(host: &dyn Host, command: HostCommand) -> ActivityResult<bool> {
    Ok(host.exec(command).await?.ok())
}

/// The probe of most steps: the marker is there, and so is what `check` looks for.
pub(super) async fn probe_marked<T, F>(
    ctx: &ActivityContext,
    host: &dyn Host,
    input: &impl Serialize,
    check: F,
) -> ActivityResult<Probe<T>>
where
    T: DeserializeOwned,
    F: AsyncFnOnce(&T) -> ActivityResult<bool>,
{
    let Some((Marker { output, .. }, owner)) = marker::read::<T>(ctx, host, input).await? else {
        return Ok(Probe::Absent);
    };
    if !check(&output).await? {
        return Ok(Probe::Absent);
    }
    Ok(Probe::Present { output, owner })
}

/// Whether this run may take back what it recorded: see [`marker::may_undo`].
pub(super) async fn may_undo(
    ctx: &ActivityContext,
    host: &dyn Host,
    input: &impl Serialize,
) -> ActivityResult<bool> {
    Ok(marker::may_undo(marker::read::<serde_json::Value>(ctx, host, input).await?.as_ref()))
}

/// Ids recorded under `kind`, each once.
pub(super) fn recorded_ids(recorded: &Recorded, kind: &str) -> Vec<String> {
    let mut ids: Vec<String> = recorded.ids(kind).map(str::to_owned).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// A fingerprint of file contents that may hold secrets: keyed by the run and step, so that the ledger does not
/// carry a hash others could compare with.
pub(super) fn fingerprint(ctx: &ActivityContext, contents: &[u8]) -> String {
    let marks = ctx.marks();
    let mut hash = Sha256::new();
    for part in
        [b"dssflow file".as_slice(), marks.store.as_bytes(), marks.run.as_bytes(), marks.step.as_bytes()]
    {
        hash.update(u64::try_from(part.len()).expect("a length fits 64 bits").to_be_bytes());
        hash.update(part);
    }
    hash.update(contents);
    hex::encode(hash.finalize())[..32].to_owned()
}

/// Refuses package names that a tool could read as something else.
pub(super) fn check_packages(names: &[String]) -> ActivityResult<()> {
    let plain = |name: &String| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c))
    };
    match names.iter().find(|name| !plain(name)) {
        None => Ok(()),
        Some(name) => {
            Err(ActivityError::terminal("BadPackageName", format!("{name:?} is not a package name"))
                .no_effect())
        }
    }
}

/// Those of `names` that are not installed.
pub(super) async fn missing_packages(host: &dyn Host, names: &[String]) -> ActivityResult<Vec<String>> {
    check_packages(names)?;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let argv = ["rpm", "-q"].into_iter().map(str::to_owned).chain(names.iter().cloned());
    let output = host.exec(root(argv)).await?;
    if output.ok() {
        return Ok(Vec::new());
    }
    let text = output.text();
    let missing =
        |name: &&String| text.lines().any(|line| line == format!("package {name} is not installed"));
    Ok(names.iter().filter(missing).cloned().collect())
}

/// `dnf -y VERB NAMES`, its failures classed.
pub(super) async fn dnf(host: &dyn Host, verb: &[&str], names: &[String]) -> ActivityResult<()> {
    check_packages(names)?;
    let argv = ["dnf", "-y"].iter().chain(verb).map(|s| (*s).to_owned()).chain(names.iter().cloned());
    let command = root(argv).timeout(PACKAGE_TIMEOUT);
    match host.run(command).await {
        Ok(_) => Ok(()),
        Err(HostError::Failed { complaint, .. }) if complaint.contains("Unable to find a match") => {
            Err(ActivityError::terminal("PackageUnknown", complaint)
                .help("check the names and that the host's repositories are reachable and enabled"))
        }
        Err(HostError::Failed { complaint, .. }) if complaint.contains("conflicts with") => {
            Err(ActivityError::terminal("PackageConflict", complaint)
                .help("remove the conflicting package on the host, or leave Docker to the operator"))
        }
        Err(error) => Err(error.into()),
    }
}

/// A file to download.
pub(super) struct Download<'a> {
    pub(super) url: &'a str,
    /// Lower-case hex; without one the contents are taken as they come.
    pub(super) sha256: Option<&'a str>,
    /// Where it goes; `PATH.part` until it is complete and checked.
    pub(super) path: &'a str,
    pub(super) user: &'a HostUser,
}

/// How often a running download tells how far it is.
const DOWNLOAD_BEAT: Duration = Duration::from_secs(15);
const DOWNLOAD_TIMEOUT: Duration = Duration::from_hours(1);

/// Downloads by the host's own `curl`, going on where an earlier attempt stopped, and verifies the checksum. The URL
/// goes in by stdin, because a signed one is a secret.
pub(super) async fn download(
    ctx: &ActivityContext,
    host: &dyn Host,
    wanted: Download<'_>,
) -> ActivityResult<String> {
    let Download { url, sha256, path, user } = wanted;
    let parsed = url::Url::parse(url).ok().filter(|u| matches!(u.scheme(), "http" | "https"));
    if parsed.is_none() || url.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
        return Err(
            ActivityError::terminal("BadUrl", "a download needs a plain http or https URL").no_effect()
        );
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let part = format!("{path}.part");
    let beside = beside(ctx)?;
    for fresh in [false, true] {
        if fresh || sha256.is_none() {
            host.remove_file(user, &part).await?;
        }
        let argv = ["curl", "-fsSL", "--connect-timeout", "20", "-C", "-", "-o", &part, "-K", "-"];
        let command = HostCommand::new(user.clone(), argv)
            .stdin(format!("url = \"{url}\"\n"))
            .timeout(DOWNLOAD_TIMEOUT);
        let transfer = host.exec(command);
        tokio::pin!(transfer);
        let output = loop {
            tokio::select! {
                output = &mut transfer => break output?,
                beat = ctx.sleep(DOWNLOAD_BEAT) => {
                    beat?;
                    let size = beside.stat(user, &part).await?.map_or(0, |s| s.size);
                    ctx.heartbeat(serde_json::json!({"file": name, "bytes": size}));
                }
            }
        };
        // 33: the server cannot resume. 22 with 416: the part is already as long as the file, or longer.
        let cannot_resume = output.status == 33 || output.status == 22 && output.complaint().contains("416");
        if !output.ok() && !cannot_resume {
            let message =
                format!("curl for {name} ended with status {}: {}", output.status, output.complaint());
            // 3: bad URL, 22: the server answered with an error such as 403 or 404.
            let hopeless = output.status == 3 || output.status == 22 && !output.complaint().contains(" 5");
            let error = if hopeless { ActivityError::terminal } else { ActivityError::retryable };
            return Err(error("DownloadFailed".to_owned(), message));
        }
        let actual = host.sha256(user, &part).await?;
        let Some(actual) = actual else {
            return Err(ActivityError::retryable("DownloadFailed", format!("curl left no file for {name}")));
        };
        if sha256.is_none_or(|wanted| wanted.eq_ignore_ascii_case(&actual)) {
            host.remove_file(user, path).await?;
            host.move_path(user, &part, path).await?;
            return Ok(actual);
        }
        tracing::warn!(file = name, "the checksum differs; downloading from the start");
    }
    host.remove_file(user, &part).await?;
    let message =
        format!("{name} has another SHA-256 than the spec says, also when downloaded from the start");
    Err(ActivityError::terminal("ChecksumMismatch", message)
        .help("check the URL and the sha256 in the spec; the file was not used"))
}

/// Whether a path or URL ends in `.EXTENSION`.
pub(super) fn has_extension(name: &str, extension: &str) -> bool {
    let path = name.split(['?', '#']).next().unwrap_or_default();
    std::path::Path::new(path).extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

/// Whether a systemd service runs.
pub(super) async fn is_active(host: &dyn Host, unit: &str) -> ActivityResult<bool> {
    succeeds(host, root(["systemctl", "is-active", "--quiet", unit])).await
}

/// Refuses unit names that are more than `dataiku` or `dataiku.NAME`.
pub(super) fn check_unit(unit: &str) -> ActivityResult<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if unit.starts_with(|c: char| c.is_ascii_alphanumeric()) && unit.chars().all(plain) {
        return Ok(());
    }
    Err(ActivityError::terminal("BadUnitName", format!("{unit:?} is not a service name")).no_effect())
}

/// Runs `work` with DSS stopped, and starts it again if it ran before.
pub(super) async fn with_dss_stopped<T>(
    host: &dyn Host,
    unit: &str,
    work: impl AsyncFnOnce() -> ActivityResult<T>,
) -> ActivityResult<T> {
    check_unit(unit)?;
    let ran = is_active(host, unit).await?;
    if ran {
        host.run(root(["systemctl", "stop", unit]).timeout(Duration::from_mins(10))).await?;
    }
    let result = work().await;
    if ran {
        host.run(root(["systemctl", "start", unit]).timeout(Duration::from_mins(10))).await?;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_never_options() {
        for bad in ["-y", "", "a b", "a;b", "../x", "*"] {
            assert!(check_packages(&[bad.to_owned()]).is_err(), "{bad:?}");
            assert!(check_unit(bad).is_err(), "{bad:?}");
        }
        check_packages(&["java-17-openjdk-headless".to_owned(), "containerd.io".to_owned()]).unwrap();
        assert!(service("root").is_err());
    }
}
