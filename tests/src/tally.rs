//! Adds outcomes up, so that a harness can say what really fired. A count of zero where troubles were planned is a
//! failure of the harness itself.

use std::collections::BTreeMap;
use std::fmt;

use crate::cloud::Fate;
use crate::crash_store::Trouble;
use crate::moves::Moves;
use crate::trial::Outcome;

/// Sums over many trials.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Trials.
    pub cases: u64,
    /// Processes.
    pub lives: u64,
    /// Crashes of any kind.
    pub crashes: u64,
    /// Crashes at a mutating call.
    pub call_crashes: u64,
    /// Troubles at commits, by kind.
    pub troubles: BTreeMap<Trouble, u64>,
    /// Faults of the cloud, by kind.
    pub fates: BTreeMap<Fate, u64>,
    /// Verbs typed.
    pub verbs: BTreeMap<&'static str, u64>,
    /// What runs went through, by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Ends, by status.
    pub ends: BTreeMap<String, u64>,
    /// Events written.
    pub events: u64,
    /// Commits.
    pub commits: u64,
    /// Mutating calls.
    pub mutations: u64,
    /// Trials with a violation.
    pub violations: u64,
    /// Which states followed which.
    pub moves: Moves,
}

impl Tally {
    /// Adds one trial.
    pub fn add(&mut self, outcome: &Outcome) {
        self.cases += 1;
        self.lives += outcome.lives;
        self.crashes += outcome.crashes;
        self.call_crashes += outcome.call_crashes;
        self.events += outcome.events;
        self.commits += outcome.commits;
        self.mutations += outcome.mutations;
        self.violations += u64::from(!outcome.violations.is_empty());
        self.moves.add(&outcome.moves);
        merge(&mut self.troubles, &outcome.troubles);
        merge(&mut self.fates, &outcome.fates);
        merge(&mut self.verbs, &outcome.verbs);
        merge(&mut self.kinds, &outcome.kinds);
        let end = outcome.end.map_or("none".to_owned(), |s| s.to_string());
        *self.ends.entry(end).or_default() += 1;
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: &Self) {
        self.cases += other.cases;
        self.lives += other.lives;
        self.crashes += other.crashes;
        self.call_crashes += other.call_crashes;
        self.events += other.events;
        self.commits += other.commits;
        self.mutations += other.mutations;
        self.violations += other.violations;
        merge(&mut self.troubles, &other.troubles);
        merge(&mut self.fates, &other.fates);
        merge(&mut self.verbs, &other.verbs);
        merge(&mut self.kinds, &other.kinds);
        merge(&mut self.ends, &other.ends);
    }
}

fn merge<K: Ord + Clone>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key.clone()).or_default() += count;
    }
}

fn fate(fate: Fate) -> &'static str {
    match fate {
        Fate::Works => "works",
        Fate::Throttled => "throttled",
        Fate::Broken => "transient",
        Fate::ReplyLost => "lost_replies",
        Fate::Hangs => "hangs",
        Fate::Late => "late_landings",
        Fate::Doomed => "became_failed",
        Fate::Credentials => "credentials",
        Fate::Panics => "panics",
    }
}

fn trouble(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::CrashBefore => "crash_before_write",
        Trouble::CrashAfter => "crash_after_write",
        Trouble::Torn => "torn_writes",
        Trouble::Refused => "refused_writes",
        Trouble::Unknown => "unknown_writes",
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cases={} lives={} crashes={}", self.cases, self.lives, self.crashes)?;
        write!(f, " crash_at_call={}", self.call_crashes)?;
        for (key, count) in &self.troubles {
            write!(f, " {}={count}", trouble(*key))?;
        }
        for (key, count) in &self.fates {
            write!(f, " {}={count}", fate(*key))?;
        }
        for (key, count) in &self.verbs {
            write!(f, " {}={count}", key.replace(' ', "_"))?;
        }
        for (key, count) in &self.kinds {
            write!(f, " {key}={count}")?;
        }
        for (key, count) in &self.ends {
            write!(f, " end_{key}={count}")?;
        }
        write!(f, " events={} commits={} mutating_calls={}", self.events, self.commits, self.mutations)?;
        write!(f, " violations={}", self.violations)
    }
}
