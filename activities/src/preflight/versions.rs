//! Versions: of Kubernetes (P19), of the tools among each other (P17), and that the EKS plugin finds a pinned eksctl
//! (P18).

use std::time::SystemTime;

use dssflow_engine::time::Timestamp;

use super::Notes;
use super::look::Look;
use super::spec::Spec;
use super::version::{at_least, minor, numbers};
use crate::aws::versions::{self, OfferedVersion, Verdict};
use crate::host::{HostCommand, HostUser};

/// From this kubectl on, the token's API is v1beta1, which older tools do not speak.
const NEW_TOKENS: &str = "1.24";
/// The first aws-iam-authenticator that speaks it, as the plugin has it.
const AUTHENTICATOR: &str = "0.5.4";
/// The first aws command line client whose `eks get-token` speaks it.
/// Page: <https://docs.aws.amazon.com/eks/latest/userguide/create-kubeconfig.html>
const AWS_CLI: &str = "2.7.0";
/// The oldest Docker whose images and networks DSS is known to work with.
const DOCKER: &str = "20.10";

/// P19: the version of Kubernetes is supported, and not at six times the price.
pub(super) async fn kubernetes(look: &Look, notes: &mut Notes) {
    let wanted = &look.spec.cluster.k8s_version;
    match look.versions().await {
        Ok(offered) => {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let now = Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
            judge_kubernetes(wanted, offered.as_deref().unwrap_or_default(), now, notes);
        }
        Err(error) => notes.unanswered(wanted, error),
    }
}

fn judge_kubernetes(wanted: &str, offered: &[OfferedVersion], now: Timestamp, notes: &mut Notes) {
    match versions::judge(wanted, offered, now) {
        Verdict::Good => notes.seen(format!("Kubernetes {wanted} is supported")),
        Verdict::Warn { message, help } => notes.warning(wanted, message, help),
        Verdict::Refuse { message, help } => notes.error(
            wanted,
            format!("{message}: it would say \"unsupported Kubernetes version\""),
            format!("{help}; DSS has to support it as well"),
        ),
        Verdict::Unknown { reason } => {
            notes.skipped(wanted, reason, "allow eks:DescribeClusterVersions to have it checked");
        }
    }
}

/// P17: the tools fit each other and the cluster.
pub(super) async fn tools(look: &Look, notes: &mut Notes) {
    let docker = match look.host() {
        Some(host) if look.root().await.is_ok() => {
            let argv = ["docker", "version", "-f", "{{.Server.Version}}"];
            let output = host.exec(HostCommand::new(HostUser::Root, argv)).await;
            // Not installed: the run installs the current one.
            output.ok().filter(crate::host::HostOutput::ok).map(|o| o.text()).filter(|t| numbers(t).is_some())
        }
        _ => None,
    };
    judge_tools(&look.spec, docker.as_deref(), notes);
}

/// What the EKS plugin makes of an authenticator's version: it compares text.
fn plugin_refuses(version: &str) -> bool {
    version.trim_start_matches('v') < AUTHENTICATOR
}

fn judge_tools(spec: &Spec, docker: Option<&str>, notes: &mut Notes) {
    let before = notes.findings.len();
    let (kubectl, cluster) = (&spec.kubectl.version, &spec.cluster.k8s_version);
    match (minor(kubectl), minor(cluster)) {
        (Some(tool), Some(served)) if tool.0 != served.0 || tool.1.abs_diff(served.1) > 1 => notes.error(
            "kubectl",
            format!("kubectl {kubectl} and Kubernetes {cluster} are more than one minor version apart"),
            format!("pin host.tools.kubectl to {}.{}.x", served.0, served.1),
        ),
        (Some(_), Some(_)) => {}
        _ => notes.warning(
            "kubectl",
            format!("{kubectl} is no version that can be compared"),
            "pin it as 1.33.4",
        ),
    }
    let authenticator = &spec.authenticator.version;
    if at_least(kubectl, NEW_TOKENS) && !at_least(authenticator, AUTHENTICATOR) {
        notes.error(
            "aws-iam-authenticator",
            format!("kubectl {kubectl} wants tokens of API v1beta1, which aws-iam-authenticator {authenticator} does not make (exec plugin apiVersion error)"),
            format!("pin host.tools.aws_iam_authenticator to {AUTHENTICATOR} or later"),
        );
    } else if plugin_refuses(authenticator) {
        notes.error(
            "aws-iam-authenticator",
            format!("the EKS plugin compares versions as text, so {authenticator} counts as older than {AUTHENTICATOR} and is refused"),
            "pin host.tools.aws_iam_authenticator to a version whose text sorts after 0.5.4, as 0.7.2",
        );
    }
    if !at_least(&spec.aws_cli.version, AWS_CLI) {
        notes.error(
            "aws",
            format!(
                "the aws client {} is older than {AWS_CLI}, whose `eks get-token` speaks v1beta1",
                spec.aws_cli.version
            ),
            format!("pin host.tools.aws_cli to {AWS_CLI} or later"),
        );
    }
    if numbers(&spec.eksctl.version).is_none() {
        notes.warning(
            "eksctl",
            format!("{} is no version that can be compared", spec.eksctl.version),
            "pin it as 0.215.0",
        );
    }
    if let Some(docker) = docker.filter(|d| !at_least(d, DOCKER)) {
        notes.warning(
            "docker",
            format!("the host has Docker {docker}, older than {DOCKER}"),
            "update docker-ce on the host; an installed one is left as it is",
        );
    }
    if notes.findings.len() == before {
        notes.seen(format!(
            "kubectl {kubectl}, aws {}, aws-iam-authenticator {authenticator}, eksctl {}, docker {}",
            spec.aws_cli.version,
            spec.eksctl.version,
            docker.unwrap_or("to be installed")
        ));
    }
}

/// P18: the plugin finds an eksctl and downloads none.
pub(super) async fn eksctl(look: &Look, notes: &mut Notes) {
    let pin = &look.spec.eksctl;
    notes.seen(format!("step eksctl puts {} into the path, checked by its SHA-256", pin.version));
    let Some(host) = look.host() else { return };
    if let Err(error) = look.root().await {
        return notes.unanswered("host", error);
    }
    let find = HostCommand::new(HostUser::Root, ["sh", "-c", "command -v eksctl"]);
    if let Ok(found) = host.exec(find).await
        && found.ok()
        && !found.text().is_empty()
    {
        return notes.seen(format!("the host has {}", found.text()));
    }
    // The head only: whether the host gets there. Old servers refuse the method, which is an answer too.
    let limit = "10";
    let argv = ["curl", "-sSIL", "--max-time", limit, pin.url.as_str()];
    match host.exec(HostCommand::new(HostUser::Root, argv)).await {
        Ok(output) if output.ok() => notes.seen("the host reaches the download".to_owned()),
        Ok(output) if output.status == 127 => {
            notes.skipped("eksctl", "the host has no curl yet", "nothing: the run installs it");
        }
        Ok(output) => judge_egress(&pin.url, output.status, &output.complaint(), notes),
        Err(error) => notes.unanswered("host", &error.into()),
    }
}

fn judge_egress(url: &str, status: i32, complaint: &str, notes: &mut Notes) {
    notes.error(
        "eksctl",
        format!("the host cannot download it from {url}: curl ended with status {status}: {complaint}"),
        "let the host out to that address, or name a mirror in host.tools.eksctl.url; without eksctl in the path the EKS plugin downloads the latest from github.com, which fails or hangs as well",
    );
}

#[cfg(test)]
mod tests {
    use super::super::spec::Pinned;
    use super::super::{CHECKS, Finding, Severity};
    use super::*;

    fn found(judge: impl FnOnce(&mut Notes)) -> Vec<Finding> {
        let mut notes = Notes::of(&CHECKS[0]);
        judge(&mut notes);
        notes.findings
    }

    fn spec() -> Spec {
        let pin = |version: &str| Pinned { version: version.into(), ..Pinned::default() };
        let mut spec = Spec {
            kubectl: pin("1.33.4"),
            aws_cli: pin("2.31.0"),
            eksctl: pin("0.215.0"),
            authenticator: pin("0.7.2"),
            ..Spec::default()
        };
        spec.cluster.k8s_version = "1.33".into();
        spec
    }

    #[test]
    fn p17_tools_are_compared_as_numbers_and_the_plugins_trap_is_told() {
        assert_eq!(found(|n| judge_tools(&spec(), Some("27.3.1"), n)), []);
        let of = |change: fn(&mut Spec)| {
            let mut spec = spec();
            change(&mut spec);
            let mut found = found(|n| judge_tools(&spec, None, n));
            assert_eq!(found.len(), 1, "{found:?}");
            found.remove(0)
        };
        let trap = of(|s| s.authenticator.version = "0.10.0".into());
        assert!(trap.evidence.contains("as text") && trap.severity == Severity::Error, "{trap:?}");
        let old = of(|s| s.authenticator.version = "0.5.3".into());
        assert!(old.evidence.contains("v1beta1") && old.fix.contains("0.5.4"), "{old:?}");
        assert!(of(|s| s.kubectl.version = "1.31.0".into()).fix.contains("1.33.x"));
        assert!(of(|s| s.aws_cli.version = "2.6.4".into()).subject == "aws");
        assert_eq!(of(|s| s.eksctl.version = "latest".into()).severity, Severity::Warning);
        let docker = found(|n| judge_tools(&spec(), Some("19.3.15"), n));
        assert_eq!((docker[0].subject.as_str(), docker[0].severity), ("docker", Severity::Warning));
    }

    #[test]
    fn p18_a_host_without_a_way_to_the_download_is_told() {
        let told = found(|n| judge_egress("https://github.com/x", 28, "Connection timed out", n));
        assert!(
            told[0].evidence.contains("Connection timed out") && told[0].fix.contains("mirror"),
            "{told:?}"
        );
    }

    #[test]
    fn p19_versions_by_support_and_end() {
        use crate::aws::versions::Support;

        let day = |n: u64| Timestamp::from_millis(1_700_000_000_000 + n * 86_400_000);
        let offer = |version: &str, support, until| OfferedVersion {
            version: version.into(),
            support: Some(support),
            is_default: false,
            standard_until: Some(day(until)),
            extended_until: Some(day(until + 365)),
        };
        let offers = [
            offer("1.34", Support::Standard, 1400),
            offer("1.33", Support::Standard, 1060),
            offer("1.30", Support::Extended, 970),
            offer("1.22", Support::Unsupported, 100),
        ];
        let judge = |version: &str| found(|n| judge_kubernetes(version, &offers, day(1000), n)).pop();
        assert_eq!(judge("1.34"), None);
        let soon = judge("1.33").unwrap();
        assert!(soon.severity == Severity::Warning && soon.evidence.contains("six times"), "{soon:?}");
        let dear = judge("1.30").unwrap();
        assert!(dear.severity == Severity::Warning && dear.evidence.contains("$0.60"), "{dear:?}");
        for version in ["1.22", "1.99"] {
            let gone = judge(version).unwrap();
            assert_eq!(gone.severity, Severity::Error);
            assert!(gone.evidence.contains("unsupported Kubernetes version"), "{gone:?}");
            assert!(gone.fix.contains("\"1.34\""), "{gone:?}");
        }
        let unknown = found(|n| judge_kubernetes("1.34", &[], day(1000), n)).remove(0);
        assert_eq!(unknown.severity, Severity::Skipped, "no answer is no trouble");
    }
}
