//! Who we are, as whom the service user acts, how long that lasts, and whether the clocks agree: P01, P02, P03, P16.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use dssflow_engine::activity::{ActivityError, ActivityResult, ErrorClass};

use super::Notes;
use super::leftovers::ClusterFacts;
use super::look::Look;
use super::spec::Spec;
use crate::aws::error::classify;
use crate::aws::identity::{Identity, identity_of};
use crate::clients::AwsClients;

/// AWS refuses signatures that are further from its clock than this.
const MAX_SKEW: Duration = Duration::from_mins(5);
/// A clock this far away is on its way there.
const BAD_SKEW: Duration = Duration::from_mins(1);

/// Who calls, with the clock of the service that said so.
#[derive(Debug)]
pub(super) struct Caller {
    /// The answer.
    pub(super) identity: ActivityResult<Identity>,
    /// The `Date` of the answer, also of a refusal, and when it came.
    pub(super) clocks: Option<(SystemTime, SystemTime)>,
}

impl Caller {
    pub(super) async fn ask(clients: &AwsClients) -> Self {
        let watch = ServiceClock::default();
        let call = clients.sts().get_caller_identity().customize().interceptor(watch.clone()).send().await;
        let answer = call.map_err(|e| classify("sts:GetCallerIdentity", e));
        let identity = answer.and_then(|answer| identity_of(&answer, clients.region()));
        Self { identity, clocks: watch.read() }
    }
}

/// Reads the `Date` header of an answer, which the SDK does not hand out.
#[derive(Debug, Clone, Default)]
struct ServiceClock(Arc<Mutex<Option<(SystemTime, SystemTime)>>>);

impl ServiceClock {
    fn read(&self) -> Option<(SystemTime, SystemTime)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for ServiceClock {
    fn name(&self) -> &'static str {
        "ServiceClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date")
            && let Ok(date) = DateTime::from_str(date, Format::HttpDate)
            && let Ok(date) = SystemTime::try_from(date)
        {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((date, SystemTime::now()));
        }
        Ok(())
    }
}

/// P01: a region and credentials, and where they come from.
pub(super) async fn source(look: &Look, notes: &mut Notes) {
    let source = look.clients.spec().source().to_string();
    let from = match &look.spec.credentials_set {
        Some(set) => format!("the site's set {set} ({source})"),
        None => look.clients.credentials_from().await.unwrap_or(source),
    };
    let files = ProfileFiles::of_environment();
    let caller = look.caller().await;
    judge_source(&look.spec, &from, &files.profiles(), caller.identity.as_ref(), notes);
    let wants = |name| std::env::var(name).ok().filter(|v| !v.is_empty() && *v != look.spec.region);
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        if let Some(other) = wants(name) {
            notes.seen(format!("{name} is {other}, which is not used: the site's region wins"));
        }
    }
}

fn judge_source(
    spec: &Spec,
    from: &str,
    profiles: &[String],
    caller: Result<&Identity, &ActivityError>,
    notes: &mut Notes,
) {
    if spec.region.is_empty() {
        let fix = "set `region` in the site file; dssflow takes it from nowhere else";
        notes.error("region", "You must specify a region", fix);
    }
    match caller {
        Ok(identity) => {
            notes.seen(format!("region {} (site file), credentials from {from}", identity.region));
        }
        Err(error) if error.class == ErrorClass::Credentials => {
            let known = match profiles {
                [] => "no profile was found in ~/.aws".to_owned(),
                profiles => format!("profiles found: {}", profiles.join(", ")),
            };
            let fix = format!(
                "set AWS_PROFILE, run `aws sso login`, give the instance a role, or name a set in aws.credentials; {known}"
            );
            notes.error("credentials", format!("{from}: {error}"), fix);
        }
        Err(error) => notes.unanswered("credentials", error),
    }
}

/// The files of `~/.aws`.
struct ProfileFiles {
    config: PathBuf,
    credentials: PathBuf,
}

impl ProfileFiles {
    fn of_environment() -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let named =
            |name, usual: &str| std::env::var_os(name).map_or_else(|| home.join(usual), PathBuf::from);
        Self {
            config: named("AWS_CONFIG_FILE", ".aws/config"),
            credentials: named("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),
        }
    }

    /// The names of profiles, each once, without anything that stands in them.
    fn profiles(&self) -> Vec<String> {
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let mut names = profile_names(&read(&self.config));
        names.extend(profile_names(&read(&self.credentials)));
        names.sort();
        names.dedup();
        names
    }
}

/// The headings `[NAME]` and `[profile NAME]`; other kinds of sections are none.
fn profile_names(text: &str) -> Vec<String> {
    let heading = |line: &str| {
        let inside = line.trim().strip_prefix('[')?.split(']').next()?.trim().to_owned();
        let name = inside.strip_prefix("profile ").map_or(inside.as_str(), str::trim);
        (!name.is_empty() && !name.contains(' ')).then(|| name.to_owned())
    };
    text.lines().filter_map(heading).collect()
}

/// P02: the account and its alias.
pub(super) async fn account(look: &Look, notes: &mut Notes) {
    let identity = match &look.caller().await.identity {
        Ok(identity) => identity,
        Err(error) => return notes.unanswered("account", error),
    };
    let answer = look.clients.iam().list_account_aliases().send().await;
    let alias = match answer.map_err(|e| classify("iam:ListAccountAliases", e)) {
        Ok(answer) => answer.account_aliases().first().cloned(),
        Err(error) => {
            notes.unanswered("alias", &error);
            None
        }
    };
    judge_account(&look.spec.expected_account, identity, alias.as_deref(), notes);
    if let Some(alias) = alias {
        // The same when it is there already.
        let _known = look.alias.set(alias);
    }
}

fn judge_account(expected: &str, identity: &Identity, alias: Option<&str>, notes: &mut Notes) {
    let account = match alias {
        Some(alias) => format!("{} ({alias})", identity.account),
        None => identity.account.clone(),
    };
    if identity.account == expected {
        return notes.seen(format!("account {account}, as {}", identity.caller_arn));
    }
    notes.error(
        "account",
        format!(
            "the credentials are of account {account}, the site expects {expected}; they are {}",
            identity.caller_arn
        ),
        format!("choose credentials of account {expected} (AWS_PROFILE), or correct expected_account"),
    );
}

/// P03: credentials outlive the run.
pub(super) async fn expiry(look: &Look, notes: &mut Notes) {
    match look.clients.credentials_ending().await {
        Ok(Some(end)) if end.renewed => notes.seen("whatever gives the credentials renews them"),
        Ok(end) => judge_expiry(end.map(|e| e.at), SystemTime::now(), look.spec.typical, notes),
        Err(error) => notes.unanswered("credentials", &error),
    }
}

fn judge_expiry(end: Option<SystemTime>, now: SystemTime, typical: Duration, notes: &mut Notes) {
    let minutes = |d: Duration| d.as_secs().div_ceil(60);
    let Some(end) = end else { return notes.seen("the credentials name no end") };
    let left = end.duration_since(now).unwrap_or_default();
    let text = format!(
        "the credentials end in {} min, the run usually takes {} min",
        minutes(left),
        minutes(typical)
    );
    if left >= typical {
        return notes.seen(text);
    }
    notes.warning(
        "credentials",
        text,
        "renew them now (`aws sso login`, a longer session); else the run pauses when they end and goes on by itself once they are renewed",
    );
}

/// P16: clocks agree, and whoever uses the cluster may use it.
pub(super) async fn access(look: &Look, notes: &mut Notes) {
    let caller = look.caller().await;
    match caller.clocks {
        Some((service, here)) => judge_clocks(service, here, notes),
        None => notes.skipped("clock", "no answer of AWS carried a date", "see P01"),
    }
    let service = match &look.spec.service_credentials {
        Some(set) => match look.principal(set).await {
            Some(Ok(principal)) => Some(principal.arn.clone()),
            Some(Err(error)) => {
                notes.unanswered(format!("credentials.{set}"), error);
                None
            }
            None => None,
        },
        None => None,
    };
    match (&caller.identity, look.cluster().await) {
        (Ok(identity), Ok(cluster)) => {
            judge_access(&look.spec, &identity.principal_arn, service.as_deref(), cluster, notes);
        }
        (Err(error), _) => notes.unanswered("principal", error),
        (_, Err(error)) => notes.unanswered(&look.spec.cluster.name, error),
    }
}

fn judge_clocks(service: SystemTime, here: SystemTime, notes: &mut Notes) {
    let (skew, which) = match here.duration_since(service) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let text = format!("this machine's clock is {} s {which} that of AWS", skew.as_secs());
    let fix = "`timedatectl set-ntp true`, or `chronyc makestep`: tokens for the cluster and signatures are refused when the clock is wrong";
    if skew >= MAX_SKEW {
        notes.error("clock", text, fix);
    } else if skew >= BAD_SKEW {
        notes.warning("clock", text, fix);
    } else {
        notes.seen("the clocks agree");
    }
}

fn judge_access(spec: &Spec, caller: &str, service: Option<&str>, cluster: &ClusterFacts, notes: &mut Notes) {
    let name = &spec.cluster.name;
    let Some(service) = service else {
        return notes.seen("the service user uses the instance's role, which is not known from here");
    };
    let Some(seen) = &cluster.state.cluster else {
        return notes.seen(if spec.cluster.by_plugin {
            format!("{service} will make cluster {name} and so administer it")
        } else if service == caller {
            format!("{service} will make cluster {name} and use it")
        } else {
            format!("{caller} will make cluster {name}; step access-entry lets {service} use it")
        });
    };
    if !spec.cluster.by_plugin {
        return notes.seen(format!("step access-entry lets {service} use cluster {name}"));
    }
    match &cluster.access_entries {
        // EKS does not tell who made a cluster; where it keeps entries, the maker has one.
        Some(entries) if entries.iter().any(|e| e == service) => {
            notes.seen(format!("{service} has an access entry of cluster {name}"));
        }
        Some(_) => notes.error(
            name,
            format!(
                "cluster {name} is {} and has no access entry for {service}: kubectl would say \"You must be logged in to the server\"",
                seen.status
            ),
            format!(
                "`aws eks create-access-entry --cluster-name {name} --principal-arn {service}` and \
                 `aws eks associate-access-policy --cluster-name {name} --principal-arn {service} --access-scope type=cluster \
                 --policy-arn arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy`"
            ),
        ),
        None => notes.skipped(
            name,
            "the access entries of the cluster cannot be listed, so who may use it is not known",
            "allow eks:ListAccessEntries; a cluster that authenticates by config map only has none",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{CHECKS, Severity};
    use super::*;
    use crate::aws::eksctl::{EksctlState, SeenCluster};

    fn notes() -> Notes {
        Notes::of(&CHECKS[0])
    }

    fn identity() -> Identity {
        Identity {
            account: "123456789012".into(),
            region: "eu-west-1".into(),
            partition: "aws".into(),
            principal_arn: "arn:aws:iam::123456789012:user/ops".into(),
            principal_id: "AIDA".into(),
            caller_arn: "arn:aws:iam::123456789012:user/ops".into(),
        }
    }

    #[test]
    fn p01_help_lists_the_profiles_and_says_what_was_asked() {
        let profiles = profile_names("[default]\nregion = x\n[profile lab]\n[sso-session corp]\n[ops]\n");
        assert_eq!(profiles, ["default", "lab", "ops"]);
        let spec = Spec { region: "eu-west-1".into(), ..Spec::default() };
        let mut notes = notes();
        let none = ActivityError::credentials("NoCredentials", "no AWS credentials");
        judge_source(&spec, "the default chain", &profiles, Err(&none), &mut notes);
        let found = &notes.findings[0];
        assert_eq!(found.severity, Severity::Error);
        assert!(
            found.fix.contains("default, lab, ops") && found.evidence.contains("default chain"),
            "{found:?}"
        );
        let mut notes = self::notes();
        judge_source(&Spec::default(), "x", &[], Ok(&identity()), &mut notes);
        assert_eq!(notes.findings[0].evidence, "You must specify a region");
    }

    #[test]
    fn p02_another_account_is_named_with_its_alias() {
        let mut notes = notes();
        judge_account("210987654321", &identity(), Some("acme-prod"), &mut notes);
        assert!(notes.findings[0].evidence.contains("123456789012 (acme-prod)"), "{:?}", notes.findings);
    }

    #[test]
    fn p03_a_session_shorter_than_the_run_is_a_warning() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(1000);
        let judge = |left| {
            let mut notes = notes();
            judge_expiry(Some(now + left), now, Duration::from_mins(55), &mut notes);
            notes
        };
        assert!(judge(Duration::from_mins(56)).findings.is_empty());
        let short = judge(Duration::from_mins(42));
        assert_eq!(short.findings[0].severity, Severity::Warning);
        assert_eq!(short.findings[0].evidence, "the credentials end in 42 min, the run usually takes 55 min");
    }

    #[test]
    fn p16_a_clock_that_is_five_minutes_off_is_an_error() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(1000);
        let judge = |here| {
            let mut notes = notes();
            judge_clocks(now, here, &mut notes);
            notes.findings.first().map(|f| f.severity)
        };
        assert_eq!(judge(now + Duration::from_secs(20)), None);
        assert_eq!(judge(now - Duration::from_secs(90)), Some(Severity::Warning));
        assert_eq!(judge(now + Duration::from_secs(301)), Some(Severity::Error));
        assert_eq!(judge(now - Duration::from_secs(301)), Some(Severity::Error));
    }

    #[test]
    fn p16_a_cluster_whose_entries_lack_the_service_user_is_told() {
        let mut spec = Spec::default();
        spec.cluster.name = "eks-main".into();
        spec.cluster.by_plugin = true;
        let mut cluster = ClusterFacts {
            state: EksctlState {
                cluster: Some(SeenCluster {
                    status: "ACTIVE".into(),
                    arn: String::new(),
                    tags: BTreeMap::new(),
                }),
                stacks: Vec::new(),
            },
            access_entries: Some(vec!["arn:aws:iam::1:role/other".into()]),
            ..ClusterFacts::default()
        };
        let judge = |spec: &Spec, cluster: &ClusterFacts| {
            let mut notes = notes();
            judge_access(spec, "arn:ops", Some("arn:service"), cluster, &mut notes);
            notes
        };
        let found = judge(&spec, &cluster).findings.remove(0);
        assert!(found.evidence.contains("You must be logged in to the server"), "{found:?}");
        assert!(
            found.fix.contains("create-access-entry --cluster-name eks-main --principal-arn arn:service")
        );
        cluster.access_entries = Some(vec!["arn:service".into()]);
        assert!(judge(&spec, &cluster).findings.is_empty());
        cluster.access_entries = None;
        assert_eq!(judge(&spec, &cluster).findings[0].severity, Severity::Skipped);
        spec.cluster.by_plugin = false;
        assert!(judge(&spec, &cluster).findings.is_empty());
    }
}
