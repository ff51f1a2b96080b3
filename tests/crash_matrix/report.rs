//! What was tried and what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use crate::settings;

/// Figures of one part of the matrix.
#[derive(Debug)]
pub(crate) struct Report {
    what: &'static str,
    /// Cells that were judged.
    pub(crate) cases: u64,
    /// Crashes that took place.
    pub(crate) fired: u64,
    /// Cells whose moment never came.
    pub(crate) not_reached: u64,
    /// Cells there are.
    pub(crate) enumerated: u64,
    /// Judged cells, by the name of their point.
    pub(crate) by_point: BTreeMap<String, u64>,
    /// Steps that were put through it.
    pub(crate) steps: u64,
    pub(crate) violations: Vec<String>,
    /// Those that were not reached.
    pub(crate) unmet: Vec<String>,
    begun: Instant,
}

impl Report {
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            what,
            cases: 0,
            fired: 0,
            not_reached: 0,
            enumerated: 0,
            by_point: BTreeMap::new(),
            steps: 0,
            violations: Vec::new(),
            unmet: Vec::new(),
            begun: Instant::now(),
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.fired += other.fired;
        self.not_reached += other.not_reached;
        self.enumerated += other.enumerated;
        self.steps += other.steps;
        self.violations.extend(other.violations);
        self.unmet.extend(other.unmet);
        for (point, count) in other.by_point {
            *self.by_point.entry(point).or_default() += count;
        }
    }

    /// A case was judged in which something was done to the step on purpose.
    pub(crate) fn case(&mut self, point: &str) {
        self.cases += 1;
        self.fired += 1;
        *self.by_point.entry(point.to_owned()).or_default() += 1;
    }

    pub(crate) fn seconds(&self) -> u64 {
        self.begun.elapsed().as_secs()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points: Vec<String> =
            self.by_point.iter().map(|(point, count)| format!("{point}={count}")).collect();
        writeln!(
            f,
            "{}: cases={} faults_fired={} violations={} not_reached={} enumerated={} steps={} seed={} seconds={}",
            self.what,
            self.cases,
            self.fired,
            self.violations.len(),
            self.not_reached,
            self.enumerated,
            self.steps,
            settings::seed(),
            self.seconds()
        )?;
        write!(f, "{}: {}", self.what, points.join(" "))?;
        if !self.unmet.is_empty() {
            write!(f, "\n{}: not reached: {}", self.what, self.unmet.join(" "))?;
        }
        self.violations.iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}
