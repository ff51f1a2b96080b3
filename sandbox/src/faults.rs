//! Scripted faults: which call goes wrong, when, and how.
//!
//! Pure and counted. The engine says what should happen to a call; the proxy, the fake DSS and the host stubs do it.
//! Nothing here sleeps, replies or closes a connection.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Which part of the world a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The server never saw the call.
    #[default]
    Before,
    /// The server carried it out, and then the reply went wrong.
    After,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// The connection is dropped without a reply.
    Reset,
    /// No reply ever comes.
    Hang,
    /// The call takes this much longer.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// What the call makes shows a transitional state for so many looks, then ends as told. Only for things that
    /// have states (EKS clusters, node groups, add-ons); the phase does not matter.
    State {
        /// How often the transitional state is seen.
        polls: u32,
        /// `ACTIVE` or `FAILED`.
        end: String,
    },
}

/// One scripted fault. `op` is a glob in which `*` stands for anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Part of the world.
    pub target: Target,
    /// Glob over the operation.
    pub op: String,
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
        Self { target, op: op.into(), phase: Phase::Before, action, skip: 0, times: None }
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultCount {
    /// The fault as it was set.
    pub fault: Fault,
    /// Calls that matched it.
    pub matched: u32,
    /// Calls it struck.
    pub fired: u32,
}

/// Holds the script and counts. Shared by everything that can go wrong.
#[derive(Debug, Default)]
pub struct FaultEngine {
    script: Mutex<Vec<FaultCount>>,
}

impl FaultEngine {
    /// An engine with an empty script: nothing goes wrong.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the script; counts start again.
    pub fn set(&self, faults: Vec<Fault>) {
        *self.lock() = faults.into_iter().map(|fault| FaultCount { fault, matched: 0, fired: 0 }).collect();
    }

    /// What happens to this call in this phase. Asked exactly once a phase of each call, because asking counts.
    /// [`Action::State`] is answered in [`Phase::Before`] only.
    pub fn check(&self, target: Target, op: &str, phase: Phase) -> Option<Action> {
        for entry in self.lock().iter_mut() {
            let fault = &entry.fault;
            let due = if matches!(fault.action, Action::State { .. }) { Phase::Before } else { fault.phase };
            if fault.target != target || due != phase || !glob(&fault.op, op) {
                continue;
            }
            entry.matched = entry.matched.saturating_add(1);
            if entry.matched > fault.skip && fault.times.is_none_or(|times| entry.fired < times) {
                entry.fired = entry.fired.saturating_add(1);
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
}
