//! Scripted faults: which call goes wrong, when, and how.
//!
//! Pure and counted. The engine says what should happen to a call; the proxy, the fake DSS and the host stubs do it.
//! Nothing here sleeps, replies or closes a connection. A script that cannot do what it says is refused: see
//! [`problems`].

mod catalog;
mod check;

use std::sync::{Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use self::check::problems;
use crate::proxy::recognise;

/// Runs host commands through the wrapper: dssflow.
pub const BY_DSSFLOW: &str = "dssflow";
/// Runs host commands of its own: DSS, as `eksctl`.
pub const BY_DSS: &str = "dss";

/// Which part of the world a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "FaultTarget")]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A call to AWS; the operation is `service:Operation`, for example `eks:CreateCluster`.
    Aws,
    /// A call to DSS; the operation is `METHOD /path` without the base path, for example `PUT /admin/general-settings`.
    Dss,
    /// A command on the host; the operation is the argv joined by blanks, for example `dnf -y install docker-ce`.
    Host,
}

/// Whether the call had been carried out when it went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "FaultPhase")]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The server never saw the call.
    #[default]
    Before,
    /// The server carried it out, and then the reply went wrong.
    After,
}

/// Which of the calls that fit the glob are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "FaultOnly")]
#[serde(rename_all = "snake_case")]
pub enum Only {
    /// Those of a kind that changes something.
    Changes,
    /// Those that only look.
    Reads,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "FaultAction")]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// An error reply in the shape of the service (for the host: exit code 1 and the message on stderr).
    Error {
        /// HTTP status.
        status: u16,
        /// Error code, for example `AccessDeniedException`.
        code: String,
        /// Error text.
        message: String,
    },
    /// Too many calls: the refusal in the service's own form, as `RequestLimitExceeded`, `ThrottlingException` or
    /// `SlowDown`.
    Throttle {
        /// After how many seconds the service says to come back; it says nothing without.
        #[serde(default)]
        retry_after_s: Option<u64>,
    },
    /// The connection is dropped without a reply.
    Reset,
    /// No reply ever comes.
    Hang,
    /// The call waits until the script is replaced, and goes on then. Not for host commands.
    Hold,
    /// The call takes this much longer.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// What the call makes or deletes shows a transitional state for so many looks, then ends as told. Only for things
    /// that have states (EKS clusters, node groups, add-ons, EC2 instances, CloudFormation stacks, clusters of DSS);
    /// the phase does not matter.
    State {
        /// How often the transitional state is seen.
        polls: u32,
        /// `ACTIVE` or `FAILED` for what is made, `GONE` or `DELETE_FAILED` for what is deleted.
        end: String,
    },
    /// The call is carried out, and the next reads of the same service answer as the world was before it. AWS only; the
    /// phase does not matter.
    Stale {
        /// How many reads are stale.
        reads: u32,
    },
    /// The connection is dropped, and the request is carried out all the same, but only after so long.
    Late {
        /// Milliseconds.
        ms: u64,
    },
}

impl Action {
    /// Whether the phase does not matter to it: it is asked for before the call, and changes what the call does.
    fn is_of_the_call(&self) -> bool {
        matches!(self, Self::State { .. } | Self::Stale { .. } | Self::Late { .. })
    }
}

/// One scripted fault. `op` is a glob in which `*` stands for anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Part of the world.
    pub target: Target,
    /// Glob over the operation.
    pub op: String,
    /// Only calls of this kind; all when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Only>,
    /// Only calls signed with this access key id; of host commands those that `dssflow` runs, or that `dss` does. All when
    /// not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Before or after the call was carried out.
    #[serde(default)]
    pub phase: Phase,
    /// What goes wrong.
    pub action: Action,
    /// The first so many matching calls pass.
    #[serde(default)]
    pub skip: u32,
    /// It happens so many times, then never again; `None` is for ever.
    #[serde(default)]
    pub times: Option<u32>,
}

impl Fault {
    /// A fault that happens to every matching call, before it is carried out.
    pub fn new(target: Target, op: impl Into<String>, action: Action) -> Self {
        Self {
            target,
            op: op.into(),
            only: None,
            by: None,
            phase: Phase::Before,
            action,
            skip: 0,
            times: None,
        }
    }

    /// The same, but only for calls signed with this access key id, or host commands of [`BY_DSSFLOW`] or [`BY_DSS`].
    #[must_use]
    pub fn by(mut self, whom: impl Into<String>) -> Self {
        self.by = Some(whom.into());
        self
    }

    /// The same, but only for calls of this kind.
    #[must_use]
    pub fn only(mut self, only: Only) -> Self {
        self.only = Some(only);
        self
    }

    /// The same, but after the call was carried out.
    #[must_use]
    pub fn after(mut self) -> Self {
        self.phase = Phase::After;
        self
    }

    /// The same, but only so many times.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// The same, but the first `skip` matching calls pass.
    #[must_use]
    pub fn skip(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }
}

/// A fault and how often it matched and struck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FaultCount {
    /// The fault as it was set.
    pub fault: Fault,
    /// Calls that matched it.
    pub matched: u32,
    /// Calls it struck.
    pub fired: u32,
}

/// Holds the script and counts. Shared by everything that can go wrong.
#[derive(Debug)]
pub struct FaultEngine {
    script: Mutex<Vec<FaultCount>>,
    fired: watch::Sender<u64>,
    /// Scripts so far.
    scripts: watch::Sender<u64>,
}

impl Default for FaultEngine {
    fn default() -> Self {
        Self { script: Mutex::default(), fired: watch::Sender::new(0), scripts: watch::Sender::new(0) }
    }
}

impl FaultEngine {
    /// An engine with an empty script: nothing goes wrong.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the script; counts start again.
    pub fn set(&self, faults: Vec<Fault>) {
        let mut script = self.lock();
        *script = faults.into_iter().map(|fault| FaultCount { fault, matched: 0, fired: 0 }).collect();
        self.fired.send_replace(0);
        self.scripts.send_modify(|scripts| *scripts += 1);
    }

    /// Resolves when the present script is replaced by another one.
    pub(crate) fn replaced(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut scripts = self.scripts.subscribe();
        async move {
            // An engine that is gone has no script any more.
            drop(scripts.changed().await);
        }
    }

    /// Resolves once no call is held: a script without a hold that has struck takes the place of the present one.
    pub(crate) fn released(&self) -> impl Future<Output = ()> + Send + use<'_> {
        let mut scripts = self.scripts.subscribe();
        let held = |it: &FaultCount| it.fault.action == Action::Hold && it.fired > 0;
        async move {
            loop {
                scripts.borrow_and_update();
                if !self.lock().iter().any(held) || scripts.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    /// How often the faults of the present script struck, and every change of that.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.fired.subscribe()
    }

    /// Whether a fault of the script waits for a host command to end.
    pub(crate) fn strikes_after_host_commands(&self) -> bool {
        self.lock().iter().any(|it| it.fault.target == Target::Host && it.fault.phase == Phase::After)
    }

    /// What happens to this call in this phase. Asked exactly once a phase of each call, because asking counts.
    /// [`Action::State`], [`Action::Stale`] and [`Action::Late`] are answered in [`Phase::Before`] only.
    pub fn check(&self, target: Target, op: &str, phase: Phase) -> Option<Action> {
        self.check_by(target, op, "", phase)
    }

    /// The same, of a call by somebody: an access key id, or who runs a host command.
    pub fn check_by(&self, target: Target, op: &str, by: &str, phase: Phase) -> Option<Action> {
        for entry in self.lock().iter_mut() {
            let fault = &entry.fault;
            let due = if fault.action.is_of_the_call() { Phase::Before } else { fault.phase };
            if fault.target != target || due != phase || !glob(&fault.op, op) {
                continue;
            }
            if fault.by.as_ref().is_some_and(|wanted| wanted != by) {
                continue;
            }
            if fault.only.is_some_and(|only| (only == Only::Changes) != changes(target, op)) {
                continue;
            }
            entry.matched = entry.matched.saturating_add(1);
            if entry.matched > fault.skip && fault.times.is_none_or(|times| entry.fired < times) {
                entry.fired = entry.fired.saturating_add(1);
                self.fired.send_modify(|fired| *fired += 1);
                return Some(fault.action.clone());
            }
        }
        None
    }

    /// The script with its counts.
    pub fn report(&self) -> Vec<FaultCount> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<FaultCount>> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Posts of DSS that only ask.
const DSS_ASKS: [&str; 4] = ["/sql/queries", "/run-kubectl", "/sanity-check/run", "/dip/api/login"];

/// Whether an operation is of a kind that changes something. Of a host command nobody can tell, so it counts.
pub(crate) fn changes(target: Target, op: &str) -> bool {
    match target {
        Target::Aws => op.split_once(':').is_none_or(|(service, op)| recognise::changes(service, op)),
        Target::Dss => {
            let (method, path) = op.split_once(' ').unwrap_or(("", op));
            !matches!(method, "GET" | "HEAD" | "OPTIONS") && !DSS_ASKS.iter().any(|part| path.contains(part))
        }
        Target::Host => true,
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, fits) in [
            ("eks:CreateCluster", "eks:CreateCluster", true),
            ("eks:CreateCluster", "eks:CreateClusterX", false),
            ("eks:*", "eks:CreateCluster", true),
            ("POST /admin/clusters/*/actions/start", "POST /admin/clusters/a/actions/start", true),
            ("POST /admin/clusters/*/actions/start", "POST /admin/clusters/a/actions/stop", false),
            ("*", "", true),
            ("a*a", "a", false),
            ("dnf*install*docker*", "dnf -y install docker-ce", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} on {text}");
        }
    }

    #[test]
    fn skips_then_fires_so_many_times_and_counts() {
        let engine = FaultEngine::new();
        engine.set(vec![Fault::new(Target::Aws, "eks:*", Action::Reset).after().skip(1).times(2)]);
        let fired: Vec<bool> =
            (0..5).map(|_| engine.check(Target::Aws, "eks:CreateCluster", Phase::After).is_some()).collect();
        assert_eq!(fired, [false, true, true, false, false]);
        assert_eq!(engine.check(Target::Aws, "eks:CreateCluster", Phase::Before), None);
        assert_eq!(engine.check(Target::Dss, "eks:CreateCluster", Phase::After), None);
        let report = engine.report();
        assert_eq!((report[0].matched, report[0].fired), (5, 2));
    }

    #[test]
    fn only_changes_or_only_reads() {
        let engine = FaultEngine::new();
        engine.set(vec![Fault::new(Target::Aws, "*", Action::Reset).only(Only::Changes)]);
        let struck = |target, op| engine.check(target, op, Phase::Before).is_some();
        assert!(!struck(Target::Aws, "eks:DescribeCluster"));
        assert!(struck(Target::Aws, "eks:CreateCluster"));
        engine.set(vec![Fault::new(Target::Dss, "*", Action::Reset).only(Only::Reads)]);
        assert!(struck(Target::Dss, "GET /admin/connections"));
        assert!(struck(Target::Dss, "POST /sql/queries"));
        assert!(!struck(Target::Dss, "POST /admin/connections"));
    }

    #[test]
    fn only_calls_of_one_key() {
        let engine = FaultEngine::new();
        engine.set(vec![Fault::new(Target::Aws, "eks:*", Action::Reset).by("AKIAOURS")]);
        let struck = |key| engine.check_by(Target::Aws, "eks:CreateCluster", key, Phase::Before).is_some();
        assert!(struck("AKIAOURS") && !struck("AKIAOTHER") && !struck(""));
    }

    #[tokio::test]
    async fn what_is_held_goes_on_when_the_script_is_replaced() {
        let engine = FaultEngine::new();
        let hold = vec![Fault::new(Target::Aws, "*", Action::Hold).times(1)];
        engine.set(hold.clone());
        engine.released().await;
        assert_eq!(engine.check(Target::Aws, "eks:CreateCluster", Phase::Before), Some(Action::Hold));
        let mut held = std::pin::pin!(engine.released());
        assert!(futures::poll!(&mut held).is_pending());
        engine.set(hold);
        held.await;
    }

    #[test]
    fn who_watches_is_told_of_each_strike_and_of_a_new_script() {
        let engine = FaultEngine::new();
        let watch = engine.watch();
        engine.set(vec![Fault::new(Target::Host, "*", Action::Reset).times(1)]);
        engine.check(Target::Host, "dnf", Phase::Before);
        engine.check(Target::Host, "dnf", Phase::Before);
        assert_eq!(*watch.borrow(), 1);
        engine.set(Vec::new());
        assert_eq!(*watch.borrow(), 0);
    }

    #[test]
    fn a_key_that_is_not_known_is_refused() {
        for text in [
            r#"{"target": "aws", "op": "eks:*", "action": "reset", "time": 1}"#,
            r#"{"target": "aws", "op": "eks:*", "action": {"delay": {"ms": 1, "s": 1}}}"#,
            r#"{"target": "aws", "op": "eks:*", "action": "explode"}"#,
        ] {
            assert!(serde_json::from_str::<Fault>(text).is_err(), "{text}");
        }
        let whole = r#"{"target": "aws", "op": "eks:*", "only": "changes", "phase": "after",
                        "action": {"throttle": {}}, "skip": 1, "times": 2}"#;
        serde_json::from_str::<Fault>(whole).expect("all keys there are");
    }
}
