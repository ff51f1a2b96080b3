//! What the proxy knows beyond moto: replies kept for tokens, states in transition, access entries, add-ons, stacks.
//!
//! Plain data. It lives in memory, as moto's own state does: both end with the daemon. The rules are in `eks` and
//! `stacks`.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::reply::Reply;
use super::upstream::Incoming;

/// Everything the proxy adds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overlay {
    /// By service, operation and token.
    tokens: BTreeMap<String, Kept>,
    /// By name.
    pub(crate) clusters: BTreeMap<String, Cluster>,
    /// CloudFormation stacks whose state moto does not tell, by name.
    pub(crate) stacks: BTreeMap<String, Stack>,
    /// Deletions of stacks that are under way, by name.
    pub(crate) stack_deletions: BTreeMap<String, StackDeletion>,
    /// EC2 instances in transition, by id.
    pub(crate) instances: BTreeMap<String, Option<Phase>>,
    /// For ids that must be new each time.
    next_id: u64,
}

#[derive(Debug, Clone)]
struct Kept {
    request: String,
    reply: Reply,
}

/// What a token has been used for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing yet.
    New,
    /// This very request: here is the reply.
    Same(Reply),
    /// Another request.
    Other,
}

/// What the proxy knows of a cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster {
    pub(crate) phase: Option<Phase>,
    /// `CONFIG_MAP`, `API` or `API_AND_CONFIG_MAP`.
    pub(crate) authentication_mode: String,
    /// The group EKS makes for the cluster.
    pub(crate) security_group: String,
    pub(crate) vpc_id: String,
    pub(crate) node_groups: BTreeMap<String, NodeGroup>,
    pub(crate) access_entries: BTreeMap<String, AccessEntry>,
    pub(crate) addons: BTreeMap<String, Addon>,
    pub(crate) updates: BTreeMap<String, Value>,
}

/// What the proxy knows of a node group.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeGroup {
    pub(crate) phase: Option<Phase>,
    pub(crate) node_role: String,
}

/// An access entry with the policies associated with it.
#[derive(Debug, Clone)]
pub(crate) struct AccessEntry {
    pub(crate) body: Value,
    pub(crate) policies: BTreeMap<String, Value>,
}

/// An add-on.
#[derive(Debug, Clone)]
pub(crate) struct Addon {
    pub(crate) body: Value,
    pub(crate) phase: Option<Phase>,
}

/// A stack whose state is not what moto says.
#[derive(Debug, Clone)]
pub(crate) struct Stack {
    pub(crate) status: String,
    pub(crate) reason: String,
}

/// A stack that is being deleted: moto is told so only at the end.
#[derive(Debug, Clone)]
pub(crate) struct StackDeletion {
    pub(crate) phase: Option<Phase>,
    pub(crate) request: Incoming,
}

/// A state that will pass, or a failure that stays.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    /// What is shown, for example `CREATING`.
    showing: String,
    /// Not before this time, in milliseconds since 1970.
    until_ms: u64,
    /// Not before it was seen so many times more.
    looks: u32,
    /// What comes then.
    end: End,
    /// The thing as it was, for one that moto no longer has.
    pub(crate) last: Option<Value>,
}

/// How a transition ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Active,
    Failed,
    Gone,
    /// The deletion fails, and the thing stays.
    DeleteFailed,
}

/// How long a transition takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) ms: u64,
    pub(crate) looks: u32,
    pub(crate) end: End,
}

/// What a look at a thing shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    Settled,
    Showing(String),
    Failed,
    Gone,
    DeleteFailed,
}

impl Phase {
    pub(crate) fn new(showing: &str, pace: Pace, last: Option<Value>) -> Self {
        Self {
            showing: showing.to_owned(),
            until_ms: now_ms().saturating_add(pace.ms),
            looks: pace.looks,
            end: pace.end,
            last,
        }
    }
}

/// Looks at a phase, which counts, and ends it when it is due.
pub(crate) fn look(phase: &mut Option<Phase>) -> Look {
    let Some(now) = phase else { return Look::Settled };
    if now.looks > 0 || now_ms() < now.until_ms {
        now.looks = now.looks.saturating_sub(1);
        return Look::Showing(now.showing.clone());
    }
    match now.end {
        End::Failed => Look::Failed,
        End::Gone => Look::Gone,
        End::DeleteFailed => Look::DeleteFailed,
        End::Active => {
            *phase = None;
            Look::Settled
        }
    }
}

/// What a look would show, without counting: for things that depend on this one.
pub(crate) fn peek(phase: Option<&Phase>) -> Look {
    let mut copy = phase.cloned();
    look(&mut copy)
}

/// Whether a phase is a deletion, running or over.
pub(crate) fn is_deletion(phase: Option<&Phase>) -> bool {
    phase.is_some_and(|phase| phase.end == End::Gone)
}

impl Overlay {
    /// What a token has been used for.
    pub(crate) fn seen(&self, call: &str, token: &str, request: &[u8]) -> Seen {
        match self.tokens.get(&format!("{call} {token}")) {
            None => Seen::New,
            Some(kept) if kept.request == hash(request) => Seen::Same(kept.reply.clone()),
            Some(_) => Seen::Other,
        }
    }

    /// Keeps the reply for a token.
    pub(crate) fn keep(&mut self, call: &str, token: &str, request: &[u8], reply: &Reply) {
        let kept = Kept { request: hash(request), reply: reply.clone() };
        self.tokens.insert(format!("{call} {token}"), kept);
    }

    /// Whether nothing is in a state that passes, and no stack is worked on.
    pub(crate) fn is_settled(&self) -> bool {
        let clusters = self.clusters.values().all(|cluster| {
            let groups = cluster.node_groups.values().all(|group| group.phase.is_none());
            cluster.phase.is_none() && groups && cluster.addons.values().all(|addon| addon.phase.is_none())
        });
        clusters
            && self.stack_deletions.is_empty()
            && self.stacks.values().all(|stack| !stack.status.ends_with("_IN_PROGRESS"))
    }

    /// Forgets every token, as a service does after a day.
    pub(crate) fn forget_tokens(&mut self) {
        self.tokens.clear();
    }

    /// An id in the form of a UUID that was not given before.
    pub(crate) fn fresh_id(&mut self) -> String {
        self.next_id += 1;
        format!("00000000-0000-4000-9000-{:012x}", self.next_id)
    }
}

fn hash(request: &[u8]) -> String {
    hex::encode(Sha256::digest(request))
}

/// A duration at this scale.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a few seconds scaled by a small positive number"
)]
pub(crate) fn scaled(ms: u64, latency: f64) -> u64 {
    (ms as f64 * latency.clamp(0.0, 1000.0)) as u64
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since 1970, as EKS writes times.
pub(crate) fn now_s() -> Value {
    Value::from(now_ms() / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_seen_so_often_and_then_ends() {
        let pace = |end| Pace { ms: 0, looks: 2, end };
        let showing = || Look::Showing("CREATING".to_owned());
        let mut phase = Some(Phase::new("CREATING", pace(End::Active), None));
        assert_eq!(peek(phase.as_ref()), showing());
        assert_eq!(
            [look(&mut phase), look(&mut phase), look(&mut phase)],
            [showing(), showing(), Look::Settled]
        );
        assert!(phase.is_none());
        let mut phase = Some(Phase::new("CREATING", pace(End::Failed), None));
        look(&mut phase);
        look(&mut phase);
        assert_eq!([look(&mut phase), look(&mut phase)], [Look::Failed, Look::Failed]);
    }

    #[test]
    fn a_token_gives_the_same_reply_or_a_mismatch() {
        let mut overlay = Overlay::default();
        let reply = Reply::error("ec2", 200, "x", "y");
        assert_eq!(overlay.seen("ec2:RunInstances", "t", b"a"), Seen::New);
        overlay.keep("ec2:RunInstances", "t", b"a", &reply);
        assert_eq!(overlay.seen("ec2:RunInstances", "t", b"a"), Seen::Same(reply));
        assert_eq!(overlay.seen("ec2:RunInstances", "t", b"b"), Seen::Other);
        assert_eq!(overlay.seen("eks:CreateCluster", "t", b"b"), Seen::New);
    }
}
