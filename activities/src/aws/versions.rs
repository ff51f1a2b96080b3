//! Whether EKS still supports a Kubernetes version: what `DescribeClusterVersions` says, and a verdict on it.
//!
//! The verdict is pure, the look is one call that changes nothing. Where the call does not answer, because the endpoint
//! does not know it or the principal may not ask, there is no verdict: a version EKS refuses is then told by the
//! create itself. No activity is registered here; the preflight asks.
//!
//! Pages: <https://docs.aws.amazon.com/eks/latest/APIReference/API_DescribeClusterVersions.html>,
//! <https://docs.aws.amazon.com/eks/latest/userguide/kubernetes-versions.html>.

use std::time::Duration;

use aws_sdk_eks::types::{ClusterVersionInformation, VersionStatus};
use dssflow_engine::activity::{ActivityError, ActivityResult, ErrorClass};
use dssflow_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::classify;
use crate::clients::AwsClients;

/// A version whose standard support ends within this time is warned of.
pub const ENDS_SOON: Duration = Duration::from_hours(90 * 24);

/// How long EKS stands behind a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Support {
    /// The usual price.
    Standard,
    /// Six times the usual price for the control plane.
    Extended,
    /// No new cluster can be made with it.
    Unsupported,
}

/// A Kubernetes version as EKS tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedVersion {
    /// As `1.33`.
    pub version: String,
    /// How long EKS stands behind it; `None` when EKS says something this program does not know.
    pub support: Option<Support>,
    /// Whether it is what a create without a version gets.
    pub is_default: bool,
    /// When the usual price ends.
    pub standard_until: Option<Timestamp>,
    /// When support ends for good.
    pub extended_until: Option<Timestamp>,
}

impl OfferedVersion {
    fn of(info: &ClusterVersionInformation) -> Option<Self> {
        let time = |at: Option<&aws_smithy_types::DateTime>| {
            at.and_then(|t| t.to_millis().ok())
                .and_then(|ms| u64::try_from(ms).ok())
                .map(Timestamp::from_millis)
        };
        Some(Self {
            version: info.cluster_version()?.to_owned(),
            support: match info.version_status() {
                Some(VersionStatus::StandardSupport) => Some(Support::Standard),
                Some(VersionStatus::ExtendedSupport) => Some(Support::Extended),
                Some(VersionStatus::Unsupported) => Some(Support::Unsupported),
                _ => None,
            },
            is_default: info.default_version(),
            standard_until: time(info.end_of_standard_support_date()),
            extended_until: time(info.end_of_extended_support_date()),
        })
    }
}

/// What a site should know of the version it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Supported, and for a while yet.
    Good,
    /// It works, and costs more or ends soon. The text says what and when.
    Warn {
        /// What is the matter.
        message: String,
        /// What to do about it.
        help: String,
    },
    /// EKS makes no cluster with it.
    Refuse {
        /// What is the matter.
        message: String,
        /// What to do about it.
        help: String,
    },
    /// EKS did not answer the question.
    Unknown {
        /// Why not.
        reason: String,
    },
}

/// Judges `wanted` by what EKS offers. Pure. An empty list is no answer: some endpoints give one.
pub fn judge(wanted: &str, offered: &[OfferedVersion], now: Timestamp) -> Verdict {
    if offered.is_empty() {
        return Verdict::Unknown { reason: "EKS names no version at all".to_owned() };
    }
    let help = || match suggestion(offered) {
        Some(version) => format!("set cluster.k8s_version: \"{version}\"; {ALL}"),
        None => ALL.to_owned(),
    };
    let Some(version) = offered.iter().find(|v| v.version == wanted) else {
        return Verdict::Refuse { message: format!("EKS does not offer Kubernetes {wanted}"), help: help() };
    };
    match version.support {
        Some(Support::Unsupported) => Verdict::Refuse {
            message: format!(
                "EKS no longer supports Kubernetes {wanted}{}",
                date(" since ", version.extended_until)
            ),
            help: help(),
        },
        Some(Support::Extended) => Verdict::Warn {
            message: format!(
                "Kubernetes {wanted} is in extended support{}: a control plane costs $0.60 an hour in place of $0.10{}",
                date(" since ", version.standard_until),
                date(", and is upgraded by AWS on ", version.extended_until)
            ),
            help: help(),
        },
        Some(Support::Standard) => match version.standard_until {
            Some(until) if until.since(now) < ENDS_SOON => Verdict::Warn {
                message: format!(
                    "standard support of Kubernetes {wanted} ends{}, then a control plane costs six times as much",
                    date(" on ", Some(until))
                ),
                help: help(),
            },
            _ => Verdict::Good,
        },
        None => Verdict::Unknown { reason: format!("EKS does not say how it supports Kubernetes {wanted}") },
    }
}

const ALL: &str = "`aws eks describe-cluster-versions` lists the versions on offer";

/// The version to name in place of a bad one: the default while it is in standard support, else the highest that is.
fn suggestion(offered: &[OfferedVersion]) -> Option<&str> {
    let number = |v: &OfferedVersion| -> Vec<u32> {
        v.version.split('.').map_while(|part| part.parse().ok()).collect()
    };
    let standard = || offered.iter().filter(|v| v.support == Some(Support::Standard));
    standard()
        .find(|v| v.is_default)
        .or_else(|| standard().max_by_key(|v| number(v)))
        .map(|v| v.version.as_str())
}

fn date(before: &str, at: Option<Timestamp>) -> String {
    at.map(|at| format!("{before}{}", at.to_string().split('T').next().unwrap_or_default()))
        .unwrap_or_default()
}

/// Every version EKS tells of, unsupported ones too; `None` when the service does not know the question or the
/// principal may not ask it.
///
/// # Errors
/// Every other error of the call: credentials, throttling, a service that does not answer.
pub async fn offered(clients: &AwsClients) -> ActivityResult<Option<Vec<OfferedVersion>>> {
    let (mut all, mut next) = (Vec::new(), None);
    loop {
        let call =
            clients.eks().describe_cluster_versions().include_all(true).set_next_token(next).send().await;
        let page = match call.map_err(|e| classify("eks:DescribeClusterVersions", e)) {
            Ok(page) => page,
            Err(error) if not_answered(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        all.extend(page.cluster_versions().iter().filter_map(OfferedVersion::of));
        next = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
        if next.is_none() {
            return Ok(Some(all));
        }
    }
}

/// A refusal that says nothing about versions: no such operation, no right, or an answer nobody can read.
fn not_answered(error: &ActivityError) -> bool {
    error.class == ErrorClass::Terminal
        || error.code == "ResponseUnreadable"
        || error.code.starts_with("Http4")
}

/// Looks up how EKS supports `wanted` and judges it.
///
/// # Errors
/// As [`offered`].
pub async fn check_version(clients: &AwsClients, wanted: &str, now: Timestamp) -> ActivityResult<Verdict> {
    Ok(match offered(clients).await? {
        Some(offered) => judge(wanted, &offered, now),
        None => Verdict::Unknown { reason: "eks:DescribeClusterVersions does not answer here".to_owned() },
    })
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::DateTime;

    use super::*;

    /// 2026-11-23.
    const NOW: Timestamp = Timestamp::from_millis(1_795_392_000_000);

    fn version(version: &str, support: Support, standard_days: i64) -> OfferedVersion {
        let ms = i64::try_from(NOW.as_millis()).unwrap() + standard_days * 86_400_000;
        let until = Timestamp::from_millis(u64::try_from(ms).unwrap());
        OfferedVersion {
            version: version.into(),
            support: Some(support),
            is_default: version == "1.33",
            standard_until: Some(until),
            extended_until: Some(until + Duration::from_hours(365 * 24)),
        }
    }

    fn list() -> Vec<OfferedVersion> {
        vec![
            version("1.34", Support::Standard, 300),
            version("1.33", Support::Standard, 200),
            version("1.32", Support::Standard, 89),
            version("1.30", Support::Extended, -30),
            version("1.27", Support::Unsupported, -600),
        ]
    }

    #[test]
    fn unsupported_is_refused_extended_is_warned_of_and_standard_is_good() {
        assert_eq!(judge("1.34", &list(), NOW), Verdict::Good);
        let Verdict::Warn { message, help } = judge("1.30", &list(), NOW) else { panic!("a warning") };
        assert!(message.contains("$0.60") && message.contains("since 2026-10-24"), "{message}");
        assert!(help.contains("\"1.33\""), "the default is suggested: {help}");
        let Verdict::Refuse { message, .. } = judge("1.27", &list(), NOW) else { panic!("refused") };
        assert!(message.contains("no longer supports Kubernetes 1.27 since 20"), "{message}");
        let Verdict::Refuse { message, .. } = judge("1.99", &list(), NOW) else { panic!("refused") };
        assert!(message.contains("does not offer Kubernetes 1.99"), "{message}");
    }

    #[test]
    fn a_version_that_ends_within_ninety_days_is_warned_of() {
        let Verdict::Warn { message, .. } = judge("1.32", &list(), NOW) else { panic!("a warning") };
        assert!(message.contains("ends on 2027-02-20"), "{message}");
        let mut list = list();
        list[2] = version("1.32", Support::Standard, 91);
        assert_eq!(judge("1.32", &list, NOW), Verdict::Good);
    }

    #[test]
    fn no_answer_is_no_verdict() {
        assert!(matches!(judge("1.33", &[], NOW), Verdict::Unknown { .. }));
        let mut odd = version("1.33", Support::Standard, 200);
        odd.support = None;
        assert!(matches!(judge("1.33", &[odd], NOW), Verdict::Unknown { .. }));
        assert!(not_answered(&ActivityError::terminal("AccessDeniedException", "no")));
        assert!(!not_answered(&ActivityError::throttled("ThrottlingException", "slow")));
        assert!(!not_answered(&ActivityError::credentials("ExpiredToken", "old")));
    }

    #[test]
    fn the_highest_is_suggested_by_number_when_the_default_is_no_good() {
        let list = [version("1.9", Support::Standard, 200), version("1.10", Support::Standard, 200)];
        assert_eq!(suggestion(&list), Some("1.10"));
        assert_eq!(suggestion(&[version("1.9", Support::Extended, 1)]), None);
    }

    #[test]
    fn what_eks_says_is_read() {
        let info = ClusterVersionInformation::builder()
            .cluster_version("1.31")
            .version_status(VersionStatus::ExtendedSupport)
            .end_of_standard_support_date(DateTime::from_secs(1_795_392_000))
            .build();
        let read = OfferedVersion::of(&info).unwrap();
        assert_eq!((read.support, read.standard_until), (Some(Support::Extended), Some(NOW)));
        assert_eq!(OfferedVersion::of(&ClusterVersionInformation::builder().build()), None);
    }
}
