//! Pods of the cluster reach DSS: its address means something there, and a connection comes about.
//!
//! Code in containers calls DSS back; where it cannot, jobs hang without a word. Mostly the name of DSS means something
//! else inside the cluster (`DKU_BACKEND_EXT_HOST`), or a security group is shut. One pod of the base image that was pushed
//! asks DSS by `curl` and ends, and its exit status tells which part failed. What cannot be told (an image without `curl`, no
//! room for a pod, a kubectl that refuses) is told as such and fails nothing: the cluster's own troubles are the business
//! of others.
//!
//! # Idempotency
//! The pod is named after the step's token: one that is there is waited for, and none is started beside it. It is deleted
//! at the end, whatever it said.
//! # Compensation
//! None: nothing stays. A run that dies in between and is never resumed leaves a pod that has ended, and which goes with
//! its cluster.
//!
//! Page: <https://doc.dataiku.com/dss/latest/containers/troubleshooting.html>

use std::time::Duration;

use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{DssClient, DssTarget};
use super::kubectl::{Kubectl, is_plain};

/// The registered name.
pub const NAME: &str = "dss.pods-check";
/// How long the pod may take: its node may have to fetch some gigabytes of image.
const LIMIT: Duration = Duration::from_mins(12);
/// Wait between two looks; the first come quicker.
const POLL: Duration = Duration::from_secs(5);
const FIRST_POLL: Duration = Duration::from_millis(200);
/// How long a connection may take, in seconds.
const CONNECT_S: &str = "10";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodsCheckInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Id of the DSS cluster.
    pub cluster_id: String,
    /// The image of the pod, with registry and tag; it must have `curl`.
    pub image: String,
    /// The address under which containers look for DSS.
    pub address: String,
    /// The port of DSS.
    pub port: u16,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// DSS answered.
    Reached,
    /// It cannot be told.
    Untold,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodsCheckOutput {
    /// Whether pods reach DSS.
    pub reach: Reach,
    /// What was seen.
    pub detail: String,
}

/// The activity.
pub(crate) struct PodsCheck;

/// How the pod ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// With this exit status.
    Status(i64),
    /// It cannot be told, and why.
    Untold(String),
}

/// How a pod stands: its end, or why it has none yet.
fn end_of(pod: &Value) -> Result<End, String> {
    let container = pod.pointer("/status/containerStatuses/0/state");
    if let Some(ended) = container.and_then(|state| state.get("terminated")) {
        let status = ended["exitCode"].as_i64().unwrap_or(-1);
        // The container's program could not even be started.
        return Ok(match ended["reason"].as_str() {
            Some(reason @ ("StartError" | "ContainerCannotRun")) => {
                End::Untold(format!("the pod's program does not start ({reason})"))
            }
            _ => End::Status(status),
        });
    }
    let waiting = container.and_then(|state| state.pointer("/waiting/reason")).and_then(Value::as_str);
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or("Unknown");
    match (phase, waiting) {
        ("Failed", _) => Ok(End::Untold("the pod failed before its program ran".to_owned())),
        (_, Some(reason)) => Err(format!("{phase}, {reason}")),
        (_, None) => Err(phase.to_owned()),
    }
}

/// What the end means. The statuses are those of curl's manual.
fn judge(input: &PodsCheckInput, end: End) -> ActivityResult<PodsCheckOutput> {
    let (address, port) = (&input.address, input.port);
    let unreachable = |what: String, help: String| {
        Err(ActivityError::needs_human(
            "PodsCannotReachDss",
            format!("{what}: jobs in containers would hang"),
        )
        .help(help)
        .no_effect())
    };
    match end {
        End::Untold(why) => Ok(PodsCheckOutput { reach: Reach::Untold, detail: why }),
        End::Status(6) => unreachable(
            format!("{address} means nothing inside the cluster"),
            "give an address that pods can look up (dss.ext_host in the site file, DKU_BACKEND_EXT_HOST in \
             DATADIR/bin/env-site.sh), as the private address of DSS's machine; then restart DSS and try the step again"
                .to_owned(),
        ),
        End::Status(7) => unreachable(
            format!("nothing listens for pods on {address}:{port}"),
            "see that the address is that of DSS's machine and not of the pod itself (localhost), and that DSS runs; \
             dss.ext_host in the site file sets it"
                .to_owned(),
        ),
        End::Status(28) => unreachable(
            format!("no packet comes back to pods from {address}:{port}"),
            "let the nodes' security groups reach every TCP port of DSS's machine; `dssflow preflight --only P14` \
             compares the rules"
                .to_owned(),
        ),
        // 126 and 127 are a shell's for what cannot be run, 2 is curl's for arguments it does not know.
        End::Status(status @ (-1 | 2 | 126..=143)) => Ok(PodsCheckOutput {
            reach: Reach::Untold,
            detail: format!("curl could not be run in the pod (status {status})"),
        }),
        // Any other one comes after a connection: what DSS says to a stranger does not matter here.
        End::Status(_) => Ok(PodsCheckOutput {
            reach: Reach::Reached,
            detail: format!("a pod reaches DSS at {address}:{port}"),
        }),
    }
}

impl PodsCheckInput {
    /// Starts the pod unless it is there; what kubectl complains of otherwise.
    async fn start(&self, kubectl: Kubectl<'_>, pod: &str) -> ActivityResult<Result<(), String>> {
        match kubectl.json(&["get", "pod", pod, "--ignore-not-found", "-o", "json"]).await? {
            Ok(Some(_)) => return Ok(Ok(())),
            Ok(None) => {}
            Err(complaint) => return Ok(Err(complaint)),
        }
        let image = format!("--image={}", self.image);
        let url = format!("http://{}:{}/", self.address, self.port);
        let words = [
            "run",
            pod,
            &image,
            "--restart=Never",
            "--labels=app.kubernetes.io/managed-by=dssflow",
            "--command",
            "--",
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "--connect-timeout",
            CONNECT_S,
            "--max-time",
            "20",
            &url,
        ];
        Ok(match kubectl.run(&words).await? {
            Err(complaint) if complaint.contains("AlreadyExists") => Ok(()),
            other => other.map(drop),
        })
    }

    /// Waits until the pod has ended, or nobody can tell.
    async fn follow(&self, ctx: &ActivityContext, kubectl: Kubectl<'_>, pod: &str) -> ActivityResult<End> {
        let until = ctx.now() + LIMIT;
        let mut looks = 0u32;
        loop {
            let stands = match kubectl.json(&["get", "pod", pod, "--ignore-not-found", "-o", "json"]).await? {
                Ok(Some(seen)) => match end_of(&seen) {
                    Ok(end) => return Ok(end),
                    Err(stands) => stands,
                },
                Ok(None) => return Ok(End::Untold("somebody took the pod away".to_owned())),
                Err(complaint) => complaint,
            };
            if ctx.now() >= until {
                return Ok(End::Untold(format!("the pod has not ended: {stands}")));
            }
            ctx.heartbeat(json!({ "pod": pod, "state": stands }));
            ctx.sleep(if looks < 5 { FIRST_POLL } else { POLL }).await?;
            looks += 1;
        }
    }
}

impl Activity for PodsCheck {
    type Input = PodsCheckInput;
    type Output = PodsCheckOutput;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &PodsCheckInput,
    ) -> ActivityResult<PodsCheckOutput> {
        if ![&input.address, &input.image].into_iter().all(|word| is_plain(word)) {
            let detail =
                format!("{} and {} cannot be handed to kubectl as they are", input.address, input.image);
            return Ok(PodsCheckOutput { reach: Reach::Untold, detail });
        }
        let client = DssClient::connect(ctx, &input.target).await?;
        let kubectl = Kubectl::on(&client, &input.cluster_id);
        let pod = format!("dssflow-reach-{}", &ctx.token("pod").as_str()[..12]);
        let end = match input.start(kubectl, &pod).await? {
            Ok(()) => input.follow(ctx, kubectl, &pod).await?,
            Err(complaint) => End::Untold(format!("kubectl: {complaint}")),
        };
        if let Err(complaint) = kubectl.run(&["delete", "pod", &pod, "--ignore-not-found", "--now"]).await? {
            tracing::warn!(pod, complaint, "the pod that looked for DSS stays");
        }
        let judged = judge(input, end)?;
        if judged.reach == Reach::Untold {
            tracing::warn!(detail = judged.detail, "nobody can tell whether pods reach DSS");
        }
        Ok(judged)
    }

    fn describe(&self, input: &PodsCheckInput) -> String {
        format!("a pod of {} reaches DSS at {}:{}", input.cluster_id, input.address, input.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> PodsCheckInput {
        PodsCheckInput {
            target: DssTarget {
                url: "http://127.0.0.1:1".into(),
                api_key: serde_json::from_value(json!({ "env": "KEY" })).unwrap(),
                major: None,
            },
            cluster_id: "eks-main".into(),
            image: "r/dku-exec-base:dss-14".into(),
            address: "10.0.0.9".into(),
            port: 11200,
        }
    }

    #[test]
    fn p32_what_keeps_pods_from_dss_is_told_by_its_kind() {
        let help = |status| {
            let error = judge(&input(), End::Status(status)).unwrap_err();
            assert_eq!(error.code, "PodsCannotReachDss");
            format!("{} {}", error.message, error.help.unwrap())
        };
        let unknown = help(6);
        assert!(
            unknown.contains("means nothing inside the cluster") && unknown.contains("DKU_BACKEND_EXT_HOST")
        );
        assert!(help(7).contains("localhost"), "{}", help(7));
        assert!(help(28).contains("--only P14"), "{}", help(28));
    }

    #[test]
    fn an_answer_of_any_kind_is_an_answer_and_what_cannot_be_told_fails_nothing() {
        // 52 is an empty answer, 56 one cut off, 22 a status of HTTP, 60 a certificate.
        for status in [0, 22, 52, 56, 60] {
            assert_eq!(judge(&input(), End::Status(status)).unwrap().reach, Reach::Reached, "{status}");
        }
        for end in [End::Status(127), End::Status(137), End::Untold("no room".into())] {
            assert_eq!(judge(&input(), end).unwrap().reach, Reach::Untold);
        }
    }

    #[test]
    fn a_pod_that_has_not_ended_says_what_it_waits_for() {
        let pod = |status: Value| json!({ "status": status });
        assert_eq!(end_of(&pod(json!({ "phase": "Pending" }))), Err("Pending".to_owned()));
        let pulling = json!({ "phase": "Pending",
            "containerStatuses": [{ "state": { "waiting": { "reason": "ImagePullBackOff" } } }] });
        assert_eq!(end_of(&pod(pulling)), Err("Pending, ImagePullBackOff".to_owned()));
        let ended = |state: Value| json!({ "phase": "Failed", "containerStatuses": [{ "state": { "terminated": state } }] });
        assert_eq!(end_of(&pod(ended(json!({ "exitCode": 28, "reason": "Error" })))), Ok(End::Status(28)));
        let broken = end_of(&pod(ended(json!({ "exitCode": 128, "reason": "StartError" }))));
        assert!(matches!(broken, Ok(End::Untold(_))), "{broken:?}");
        let evicted = end_of(&pod(json!({ "phase": "Failed", "reason": "Evicted" })));
        assert!(matches!(evicted, Ok(End::Untold(_))), "{evicted:?}");
    }
}
