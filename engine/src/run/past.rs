//! How long steps took in earlier runs: what is to be expected of the next ones, where somebody has done them before.
//! Pure; which runs are taken in is the caller's choice.

use std::collections::BTreeMap;

use crate::id::StepName;
use crate::run::StepStatus;
use crate::run::view::{RunView, StepView};

/// What steps took in earlier runs of a workflow.
#[derive(Debug, Clone, Default)]
pub struct Past {
    by_step: BTreeMap<StepName, Vec<u64>>,
    by_activity: BTreeMap<String, Vec<u64>>,
}

/// What a step took, by earlier runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usual {
    /// The median, in milliseconds.
    pub ms: u64,
    /// Of so many.
    pub of: u32,
}

impl Past {
    /// Takes in what the steps of a run took. Only those count that were done in one attempt: what was found there already,
    /// or was tried again and again, says nothing of how long it takes.
    pub fn learn(&mut self, view: &RunView) {
        for step in &view.steps {
            let (Some(from), Some(to)) = (step.started, step.ended) else { continue };
            if step.status != StepStatus::Succeeded || step.attempt != 1 || step.activity.is_empty() {
                continue;
            }
            let took = u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX);
            self.by_step.entry(step.step.clone()).or_default().push(took);
            self.by_activity.entry(step.activity.clone()).or_default().push(took);
        }
    }

    /// What is to be expected of a step: by steps of its name, else by others of its activity.
    pub fn usual(&self, step: &StepView) -> Option<Usual> {
        let took = self.by_step.get(&step.step).or_else(|| self.by_activity.get(&step.activity))?;
        Some(Usual { ms: median(took)?, of: u32::try_from(took.len()).unwrap_or(u32::MAX) })
    }

    /// Puts what is known in the place of what the workflow expects; other steps keep that.
    pub fn mark(&self, view: &mut RunView) {
        for step in &mut view.steps {
            if let Some(usual) = self.usual(step) {
                (step.expected_ms, step.expected_by) = (Some(usual.ms), usual.of);
            }
        }
    }
}

/// The one in the middle, of an even number the mean of both.
fn median(took: &[u64]) -> Option<u64> {
    let mut took = took.to_vec();
    took.sort_unstable();
    let middle = took.len() / 2;
    let upper = *took.get(middle)?;
    Some(if took.len().is_multiple_of(2) { took[middle - 1].midpoint(upper) } else { upper })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A run whose steps are named, with their status, attempts and milliseconds.
    fn run(steps: &[(&str, &str, u32, u64)]) -> RunView {
        let steps: Vec<serde_json::Value> = steps
            .iter()
            .map(|(name, status, attempt, took)| {
                json!({ "step": name, "activity": name.split('-').next(), "status": status, "attempt": attempt,
                        "failures": 0, "maximum_attempts": 8, "generation": 1, "effect": "done", "started": 1000,
                        "ended": 1000 + took, "expected_ms": 60_000, "after": [], "live": false })
            })
            .collect();
        let view = json!({ "run": "r", "workflow": "w", "site": "", "status": "running", "created": 0, "updated": 0,
            "seq": 1, "request": { "by": "a" }, "options": {}, "labels": {}, "live": false,
            "rolling_back": false, "steps": steps });
        serde_json::from_value(view).expect("a view")
    }

    #[test]
    fn the_median_of_clean_runs_takes_the_place_of_what_was_expected() {
        let mut past = Past::default();
        for (took, other) in [(900, 10), (100, 20), (300, 30)] {
            past.learn(&run(&[("tool-a", "succeeded", 1, took), ("tool-b", "succeeded", 1, other)]));
        }
        past.learn(&run(&[
            ("tool-a", "adopted", 1, 1),
            ("tool-b", "succeeded", 3, 90_000),
            ("kit-a", "failed", 1, 5),
        ]));
        let mut view = run(&[
            ("tool-a", "running", 1, 0),
            ("tool-b", "running", 1, 0),
            ("tool-new", "running", 1, 0),
            ("kit-a", "running", 1, 0),
        ]);
        past.mark(&mut view);
        let told: Vec<_> = view.steps.iter().map(|step| (step.expected_ms, step.expected_by)).collect();
        // Of the new one only others of its activity are known, of the last nothing.
        assert_eq!(told, [(Some(300), 3), (Some(20), 3), (Some(65), 6), (Some(60_000), 0)]);
    }
}
