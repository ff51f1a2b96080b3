//! The judgement: the cloud against what the runs say of themselves.

use std::collections::{BTreeMap, BTreeSet};

use dssflow_engine::activity::{Marks, Resource};
use dssflow_engine::run::view::{RunView, StepView};
use dssflow_engine::run::{RunStatus, StepStatus};

use crate::cloud::{Cloud, Origin, Phase, Thing};
use crate::scenario::{Leaves, Scenario};

/// The judgement of one run that had no people around it and none below it.
pub fn verdict(scenario: &Scenario, cloud: &Cloud, view: &RunView, drifted: bool) -> Vec<String> {
    let none = BTreeSet::new();
    Judge { scenario, cloud, drifted, decided: &none, abandoned: &none }.all(&[view])
}

/// What a judge has to know besides the runs.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// The case.
    pub scenario: &'a Scenario,
    /// What is there.
    pub cloud: &'a Cloud,
    /// A stranger changed settings.
    pub drifted: bool,
    /// Steps that a person called done or left out.
    pub decided: &'a BTreeSet<String>,
    /// Steps whose undo a person gave up.
    pub abandoned: &'a BTreeSet<String>,
}

/// What is in the cloud.
struct Seen {
    things: Vec<Thing>,
    notes: BTreeMap<String, Marks>,
    settings: Vec<(String, String, String)>,
}

impl Seen {
    /// Whether what a step may leave is there because of us.
    fn left(&self, leaves: &Leaves) -> bool {
        match leaves {
            Leaves::Thing(service, name) => self
                .things
                .iter()
                .any(|t| t.service == *service && t.name == *name && t.origin == Origin::Run),
            Leaves::Note(name) => self.notes.contains_key(name),
            Leaves::Setting(key, value) => {
                self.settings.iter().any(|(k, old, now)| k == key && old != now && now == value)
            }
            Leaves::Nothing => false,
        }
    }

    /// Whether it is there at all.
    fn there(&self, leaves: &Leaves, drifted: bool) -> bool {
        match leaves {
            Leaves::Thing(service, name) => {
                self.things.iter().any(|t| t.service == *service && t.name == *name)
            }
            Leaves::Setting(key, value) => {
                self.settings.iter().any(|(k, _, v)| k == key && (v == value || (drifted && v == "drifted")))
            }
            Leaves::Note(name) => self.notes.contains_key(name),
            Leaves::Nothing => true,
        }
    }
}

impl Judge<'_> {
    /// The judgement of all runs, the one that was started first.
    pub fn all(&self, views: &[&RunView]) -> Vec<String> {
        let (scenario, cloud) = (self.scenario, self.cloud);
        let seen = Seen { things: cloud.things(), notes: cloud.notes(), settings: cloud.settings() };
        let mut bad = Vec::new();

        // Nothing of others is gone.
        for (service, name, origin) in &scenario.plants {
            let mut same = seen.things.iter().filter(|t| t.service == *service && t.name == *name);
            let there = same.any(|t| t.origin == *origin);
            let removed = *origin == Origin::Stranger && scenario.in_the_way.contains(name);
            if !there && !removed {
                bad.push(format!("{name} of {origin:?} is gone"));
            }
        }
        // Nothing is there twice.
        let mut live: BTreeMap<&str, u32> = BTreeMap::new();
        for thing in seen.things.iter().filter(|t| t.origin == Origin::Run) {
            *live.entry(thing.name.as_str()).or_default() += 1;
        }
        for (name, count) in live.iter().filter(|(_, n)| **n > 1) {
            bad.push(format!("{count} live things are named {name}"));
        }
        let steps: BTreeMap<&str, (&RunView, &StepView)> = views
            .iter()
            .flat_map(|view| view.steps.iter().map(move |s| (s.step.as_str(), (*view, s))))
            .collect();
        for (step, leaves) in &scenario.leaves {
            match steps.get(step.as_str()) {
                Some((view, shown)) => bad.extend(self.step(&seen, view, shown, leaves)),
                None if seen.left(leaves) => {
                    bad.push(format!("step {step} is in no run and left {leaves:?}"));
                }
                None => {}
            }
        }
        for view in
            views.iter().filter(|v| v.status != RunStatus::Succeeded && v.status != RunStatus::RolledBack)
        {
            bad.extend(self.unlisted(view));
        }
        bad.extend(self.below(views));
        bad.extend(self.whole(views, &seen));
        bad
    }

    fn step(&self, seen: &Seen, view: &RunView, shown: &StepView, leaves: &Leaves) -> Option<String> {
        let (step, status) = (shown.step.as_str(), shown.status);
        let decided = self.decided.contains(step);
        match view.status {
            RunStatus::Succeeded => {
                let child = self.scenario.maps.values().flatten().any(|c| c == step);
                if status == StepStatus::Skipped {
                    let told = decided && shown.live;
                    return (seen.left(leaves) && !told)
                        .then(|| format!("step {step} was skipped and left something"));
                }
                // A child may fail where its map tolerates it, and is put aside when the list is read again.
                if child && matches!(status, StepStatus::Failed | StepStatus::Cancelled) {
                    return (seen.left(leaves) && !shown.live)
                        .then(|| format!("step {step} is {status}, and {leaves:?} is there and not told"));
                }
                if !status.is_done() {
                    return Some(format!("the run succeeded and step {step} is {status}"));
                }
                (!decided && !seen.there(leaves, self.drifted))
                    .then(|| format!("lost: step {step} is {status} and {leaves:?} is missing"))
            }
            RunStatus::RolledBack => {
                let kept = status == StepStatus::Kept;
                let scenario = self.scenario;
                let asked = |names: &[String]| names.iter().any(|n| n == step);
                if kept
                    && !asked(&scenario.protected)
                    && !asked(&scenario.keep)
                    && !self.abandoned.contains(step)
                {
                    return Some(format!("step {step} was kept without being asked to"));
                }
                let left = match leaves {
                    Leaves::Setting(key, _) => {
                        seen.settings.iter().any(|(k, old, now)| k == key && old != now)
                    }
                    other => seen.left(other),
                };
                (left && !kept)
                    .then(|| format!("orphan: {leaves:?} of step {step} is left after the rollback"))
            }
            _ => None,
        }
    }

    /// Runs below, against the steps that started them.
    fn below(&self, views: &[&RunView]) -> Vec<String> {
        let mut bad = Vec::new();
        let Some(above) = views.first() else { return bad };
        for sub in &self.scenario.subs {
            let Some(shown) = above.steps.iter().find(|s| s.step.as_str() == sub.step) else { continue };
            let below = views.iter().find(|v| v.parent.as_ref().is_some_and(|p| p.step.as_str() == sub.step));
            let status = below.map(|v| v.status);
            let done = above.status == RunStatus::Succeeded && shown.status == StepStatus::Succeeded;
            if done && !self.decided.contains(&sub.step) && status != Some(RunStatus::Succeeded) {
                bad.push(format!("step {} is done and its run is {status:?}", sub.step));
            }
            let kept = shown.status == StepStatus::Kept;
            let gone = matches!(status, None | Some(RunStatus::RolledBack));
            if above.status == RunStatus::RolledBack && !kept && !gone {
                bad.push(format!(
                    "the run above is rolled back, and that of step {} is {status:?}",
                    sub.step
                ));
            }
            if status.is_some_and(|s| !s.is_end() && s != RunStatus::Paused) {
                bad.push(format!("nobody drives the run of step {}, and it is {status:?}", sub.step));
            }
        }
        bad
    }

    /// A thing that somebody waited for is whole.
    fn whole(&self, views: &[&RunView], seen: &Seen) -> Vec<String> {
        let mut bad = Vec::new();
        if views.first().is_none_or(|view| view.status != RunStatus::Succeeded) {
            return bad;
        }
        for thing in &seen.things {
            let polled = self.scenario.graph.steps().iter().any(|s| {
                thing.name == format!("thing-{}", s.name)
                    && !self.decided.contains(s.name.as_str())
                    && serde_json::to_string(&s.kind).is_ok_and(|k| k.contains("\"poll\":true"))
            });
            if thing.origin == Origin::Run && polled && thing.phase(u64::MAX) == Phase::Failed {
                bad.push(format!("{} is FAILED and its step is done", thing.name));
            }
        }
        bad
    }

    /// What of a run is in the cloud and not told by its picture.
    pub fn unlisted(&self, view: &RunView) -> Vec<String> {
        let cloud = self.cloud;
        let seen = Seen { things: cloud.things(), notes: cloud.notes(), settings: cloud.settings() };
        let mut bad = Vec::new();
        for step in &view.steps {
            let Some(leaves) = self.scenario.leaves.get(step.step.as_str()) else { continue };
            let left = seen.left(leaves);
            let told = step.live || step.status == StepStatus::Kept;
            if left && !told {
                bad.push(format!(
                    "{leaves:?} of step {} ({}) is there and not told as live",
                    step.step, step.status
                ));
            }
            let Leaves::Thing(service, name) = leaves else { continue };
            if !left || !told || step.effect == "unknown" || step.status == StepStatus::Kept {
                continue;
            }
            let mine = |t: &&Thing| t.origin == Origin::Run && t.service == *service && t.name == *name;
            for thing in seen.things.iter().filter(mine) {
                let recorded = step.resources.iter().any(|r: &Resource| r.id == thing.id);
                let output = step.output.as_ref().is_some_and(|o| o["id"] == thing.id.as_str());
                if !recorded && !output && view.status == RunStatus::RollbackStuck {
                    bad.push(format!("{} of step {} is left and its id is not told", thing.id, step.step));
                }
            }
        }
        bad
    }
}
