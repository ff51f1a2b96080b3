//! Which runs may be removed: by age, by number, by status. Pure; [`Engine::prune`] acts on it.
//!
//! Whatever the policy says, these stay: a run that has not ended, one that made things that are still there, and all
//! of a tree of which one run stays. A tree is a run with the runs that its steps started, and theirs; the run at
//! its top is what the policy looks at. A run that others were forked from may go: a fork took over what it needs.
//!
//! [`Engine::prune`]: crate::runtime::Engine::prune

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RunSummary;
use crate::id::RunId;
use crate::run::RunStatus;
use crate::time::Timestamp;

/// How long runs are kept by default.
pub const RETENTION: Duration = Duration::from_hours(90 * 24);
/// No tree of runs is deeper.
const MAX_DEPTH: usize = 1_000;

/// What is to go: trees whose topmost run fits all of it.
///
/// An id is free again when its run is gone, and a new run of that id has the tokens of the old one. Services forget
/// tokens after a day or so: runs that are removed earlier should not be started again under the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Policy {
    /// Only where nothing has happened for so long.
    pub older_than: Duration,
    /// But not the last so many, of each workflow and site, that have ended.
    pub keep_newest: usize,
    /// Only what ended so; empty means all ends.
    pub statuses: Vec<RunStatus>,
    /// Only runs of this workflow.
    pub workflow: Option<String>,
    /// Only runs of this site.
    pub site: Option<String>,
}

impl Default for Policy {
    /// Everything that has ended, after [`RETENTION`].
    fn default() -> Self {
        Self { older_than: RETENTION, keep_newest: 0, statuses: Vec::new(), workflow: None, site: None }
    }
}

impl Policy {
    /// Whether it asks for a run, seen by itself.
    fn asks_for(&self, summary: &RunSummary, now: Timestamp) -> bool {
        (self.statuses.is_empty() || self.statuses.contains(&summary.status))
            && self.workflow.as_ref().is_none_or(|workflow| *workflow == summary.workflow)
            && self.site.as_ref().is_none_or(|site| *site == summary.site)
            && self.is_old(summary, now)
    }

    fn is_old(&self, summary: &RunSummary, now: Timestamp) -> bool {
        now.since(summary.updated) >= self.older_than
    }

    /// Why a run of a tree must stay, whatever is asked for.
    pub fn must_stay(&self, summary: &RunSummary, now: Timestamp) -> Option<Stays> {
        if !summary.status.is_end() {
            Some(Stays::Unfinished)
        } else if summary.live {
            Some(Stays::Live)
        } else if !self.is_old(summary, now) {
            Some(Stays::Young)
        } else {
            None
        }
    }
}

/// Why a run stays that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "because")]
pub enum Stays {
    /// It has not ended.
    Unfinished,
    /// It made things that are still there.
    Live,
    /// Something happened to it lately.
    Young,
    /// It is one of the last of its workflow and site.
    Newest,
    /// A run that it started, or one that that one started, stays.
    Sub {
        /// That run.
        run: RunId,
        /// Why that one stays.
        why: Box<Stays>,
    },
    /// Who started it cannot be told.
    Unreadable {
        /// Why.
        why: String,
    },
    /// Somebody is at it, or it went on a moment ago.
    Busy {
        /// What was found.
        why: String,
    },
}

impl std::fmt::Display for Stays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unfinished => f.write_str("it has not ended"),
            Self::Live => f.write_str("it made things that are still there"),
            Self::Young => f.write_str("something happened to it lately"),
            Self::Newest => f.write_str("it is one of the last of its workflow and site"),
            Self::Sub { run, why } => write!(f, "run {run}, which it started, stays: {why}"),
            Self::Unreadable { why } => write!(f, "who started it cannot be told: {why}"),
            Self::Busy { why } => f.write_str(why),
        }
    }
}

/// One run that a selection has to know: one that is asked for, or one that another started.
#[derive(Debug, Clone)]
struct Known {
    parent: Option<RunId>,
    /// Why it must stay, seen by itself.
    stays: Option<Stays>,
    asked_for: bool,
}

/// Chooses among the runs of a store, given one by one. Remembers those that are asked for and those that others
/// started, a few hundred bytes each, and nothing of the others.
#[derive(Debug)]
pub struct Selection<'a> {
    policy: &'a Policy,
    now: Timestamp,
    runs: BTreeMap<RunId, Known>,
    newest: BTreeMap<(String, String), usize>,
    seen: u64,
}

/// What goes, and what stays though it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selected {
    /// Trees that go; in each the runs that others started come first, the topmost run last.
    pub trees: Vec<Vec<RunId>>,
    /// Runs at the top of a tree that stay, with why.
    pub stays: Vec<(RunId, Stays)>,
}

impl<'a> Selection<'a> {
    /// Begins, at this time.
    pub fn new(policy: &'a Policy, now: Timestamp) -> Self {
        let (runs, newest) = Default::default();
        Self { policy, now, runs, newest, seen: 0 }
    }

    /// Takes in the next run, newest first by creation. `parent` is the run that started it; an error says why that
    /// cannot be told.
    pub fn add(&mut self, summary: &RunSummary, parent: Result<Option<RunId>, String>) {
        self.seen += 1;
        let mut stays = self.policy.must_stay(summary, self.now);
        let (parent, readable) = match parent {
            Ok(parent) => (parent, true),
            Err(why) => {
                stays = Some(Stays::Unreadable { why });
                // The id of a run that another started begins with that one's id.
                let above = summary.run.as_str().rsplit_once(':').and_then(|(id, _)| RunId::new(id).ok());
                (above, false)
            }
        };
        let mut asked_for = self.policy.asks_for(summary, self.now);
        if parent.is_none() && summary.status.is_end() {
            let group = (summary.workflow.clone(), summary.site.clone());
            let newer = self.newest.entry(group).or_default();
            if *newer < self.policy.keep_newest && stays.is_none() {
                stays = Some(Stays::Newest);
            }
            *newer += 1;
        }
        asked_for |= !readable;
        if asked_for || parent.is_some() {
            self.runs.insert(summary.run.clone(), Known { parent, stays, asked_for });
        }
    }

    /// How many runs it was given.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Runs that started others, and were not asked for: they may be in the store or gone.
    pub fn unknown(&self) -> BTreeSet<RunId> {
        let parents = self.runs.values().filter_map(|known| known.parent.as_ref());
        parents.filter(|parent| !self.runs.contains_key(parent)).cloned().collect()
    }

    /// Chooses. `gone` are those of [`Selection::unknown`] that are not in the store: what they started is at the top of
    /// a tree of its own.
    pub fn finish(self, gone: &BTreeSet<RunId>) -> Selected {
        let mut trees: BTreeMap<RunId, Vec<(usize, RunId)>> = BTreeMap::new();
        for run in self.runs.keys() {
            let (mut top, mut depth) = (run, 0);
            while let Some(above) = self.runs.get(top).and_then(|known| known.parent.as_ref())
                && !gone.contains(above)
                && depth < MAX_DEPTH
            {
                (top, depth) = (above, depth + 1);
            }
            // Its top is there and was not asked for, or starters go round in a circle: it stays.
            if self.runs.contains_key(top) && depth < MAX_DEPTH {
                trees.entry(top.clone()).or_default().push((depth, run.clone()));
            }
        }
        let mut selected = Selected::default();
        for (top, mut members) in trees {
            let known = &self.runs[&top];
            if !known.asked_for {
                continue;
            }
            let stays = known.stays.clone().or_else(|| {
                members.iter().find_map(|(_, run)| {
                    let why = self.runs[run].stays.clone()?;
                    Some(Stays::Sub { run: run.clone(), why: Box::new(why) })
                })
            });
            if let Some(stays) = stays {
                selected.stays.push((top, stays));
            } else {
                members.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
                selected.trees.push(members.into_iter().map(|(_, run)| run).collect());
            }
        }
        selected
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Expect, conformance};
    use super::*;

    const NOW: u64 = 1_000 * 86_400_000;

    fn summary(run: &str, days: u64, status: RunStatus) -> RunSummary {
        let mut summary = conformance::transition(run, Expect::New, 1).summary;
        (summary.status, summary.updated) = (status, Timestamp::from_millis(NOW - days * 86_400_000));
        summary.workflow = run.split(['-', ':']).next().unwrap_or_default().to_owned();
        summary
    }

    /// Runs as `name days status parent`, newest first; what goes and what stays, as texts.
    fn check(policy: &Policy, runs: &[(&str, u64, RunStatus, Option<&str>)], gone: &[&str]) -> String {
        let mut selection = Selection::new(policy, Timestamp::from_millis(NOW));
        for (run, days, status, parent) in runs {
            let mut summary = summary(run, *days, *status);
            summary.live = run.ends_with("live");
            let parent = match parent {
                Some("?") => Err("damaged".to_owned()),
                parent => Ok(parent.map(|parent| RunId::new(parent).unwrap())),
            };
            selection.add(&summary, parent);
        }
        let gone = gone.iter().map(|run| RunId::new(*run).unwrap()).collect();
        let selected = selection.finish(&gone);
        let trees: Vec<String> = selected
            .trees
            .iter()
            .map(|tree| tree.iter().map(RunId::as_str).collect::<Vec<_>>().join(" "))
            .collect();
        let stays: Vec<String> = selected.stays.iter().map(|(run, why)| format!("{run}: {why}")).collect();
        format!("{} | {}", trees.join(", "), stays.join(", "))
    }

    use RunStatus as S;

    #[test]
    fn age_status_and_number_choose_among_what_has_ended() {
        let runs = [
            ("a-3", 89, S::Succeeded, None),
            ("b-1", 90, S::Failed, None),
            ("a-2", 91, S::Failed, None),
            ("a-1", 200, S::Succeeded, None),
            ("a-0", 300, S::Running, None),
            ("a-live", 300, S::Succeeded, None),
        ];
        let policy = Policy::default();
        assert_eq!(
            check(&policy, &runs, &[]),
            "a-1, a-2, b-1 | a-0: it has not ended, a-live: it made things that are still there"
        );
        let failed = Policy { statuses: vec![S::Failed], ..Policy::default() };
        assert_eq!(check(&failed, &runs, &[]), "a-2, b-1 | ");
        let newest = Policy { keep_newest: 2, ..Policy::default() };
        assert_eq!(
            check(&newest, &runs[..4], &[]),
            "a-1 | a-2: it is one of the last of its workflow and site, \
             b-1: it is one of the last of its workflow and site"
        );
        let of_b = Policy { workflow: Some("b".to_owned()), ..Policy::default() };
        assert_eq!(check(&of_b, &runs, &[]), "b-1 | ");
        let elsewhere = Policy { site: Some("lab".to_owned()), ..Policy::default() };
        assert_eq!(check(&elsewhere, &runs, &[]), " | ");
    }

    #[test]
    fn a_tree_goes_whole_or_not_at_all() {
        let policy = Policy { workflow: Some("a".to_owned()), ..Policy::default() };
        let tree = |days, status, below| {
            let runs = [
                ("b", days, status, Some("a")),
                (below, 100, S::Succeeded, Some("b")),
                ("a", 100, S::Succeeded, None),
            ];
            check(&policy, &runs, &[])
        };
        assert_eq!(tree(100, S::Succeeded, "c"), "c b a | ");
        assert_eq!(
            tree(10, S::Succeeded, "c"),
            " | a: run b, which it started, stays: something happened to it lately"
        );
        assert_eq!(tree(100, S::Paused, "c"), " | a: run b, which it started, stays: it has not ended");
        assert_eq!(
            tree(100, S::Succeeded, "c-live"),
            " | a: run c-live, which it started, stays: it made things that are still there"
        );
        let child = [("a:x", 100, S::Succeeded, Some("top"))];
        assert_eq!(check(&policy, &child, &[]), " | ", "its starter is there and stays");
        assert_eq!(check(&policy, &child, &["top"]), "a:x | ", "its starter is gone");
        let young = [("a:x", 100, S::Succeeded, Some("a")), ("a", 10, S::Succeeded, None)];
        assert_eq!(check(&policy, &young, &[]), " | ");
        let circle = [("a", 100, S::Succeeded, Some("b")), ("b", 100, S::Succeeded, Some("a"))];
        assert_eq!(check(&policy, &circle, &[]), " | ", "what makes no sense stays");
        let damaged = [("a:x", 100, S::Succeeded, Some("?")), ("a", 100, S::Succeeded, None)];
        assert_eq!(
            check(&policy, &damaged, &[]),
            " | a: run a:x, which it started, stays: who started it cannot be told: damaged"
        );
    }
}
